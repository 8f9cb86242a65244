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
	if d, err := s.opt.Catalog.DatabaseByID(t.Database); t.Database != "" && err == nil {
		b = wire.AppendString(b, d.Slug)
	} else {
		b = append(b, `null`...)
	}
	b = append(b, `,"databaseId":`...) // names a pin whose database is gone, too
	if t.Database != "" {
		b = wire.AppendString(b, t.Database)
	} else {
		b = append(b, `null`...)
	}
	b = append(b, `},"expiresAt":`...)
	b = appendTime(b, t.ExpiresAt)
	x.out = append(b, `}}`...)
	return nil
}

// appendTime writes a time as RFC 3339 in UTC with milliseconds, or null for none.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, `null`...)
	}
	return wire.AppendString(b, t.UTC().Format("2006-01-02T15:04:05.000Z"))
}
