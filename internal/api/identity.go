package api

import (
	"time"

	"github.com/persqld/persqld/internal/wire"
)

// me serves GET /v1/me and /v1/whoami.
func (s *Server) me(x *exchange) error {
	t := x.token
	x.success()
	b := append(x.out, `{"namespaceSlug":`...)
	b = wire.AppendString(b, t.NamespaceSlug)
	b = append(b, `,"namespace":`...)
	b = wire.AppendString(b, t.NamespaceSlug)
	b = append(b, `,"namespaceId":`...)
	b = wire.AppendString(b, t.NamespaceID)
	b = append(b, `,"role":`...)
	b = wire.AppendString(b, t.Role)
	b = append(b, `,"tokenId":`...)
	b = wire.AppendString(b, t.ID)
	b = append(b, `,"tokenName":`...)
	b = wire.AppendString(b, t.Name)
	b = append(b, `,"scope":{"database":`...)
	b = s.appendPin(b, t)
	b = append(b, `,"tables":`...)
	b = appendNames(b, t.TableScope)
	b = append(b, `,"claims":`...)
	b = appendClaims(b, t)
	b = append(b, `},"expiresAt":`...)
	b = appendTime(b, t.ExpiresAt)
	x.out = append(b, `}}`...)
	return nil
}

const timeFormat = "2006-01-02T15:04:05.000Z"

// appendTime writes a time as RFC 3339 in UTC with milliseconds, or null for none.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, `null`...)
	}
	return wire.AppendString(b, t.UTC().Format(timeFormat))
}
