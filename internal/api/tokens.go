package api

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/wire"
)

// tokenRequest is the body of POST /v1/tokens.
type tokenRequest struct {
	Name       string         `json:"name"`
	Role       string         `json:"role"`
	TableScope []string       `json:"tableScope"`
	Claims     jsontext.Value `json:"claims"`
	Database   string         `json:"database"`
	ExpiresIn  *float64       `json:"expiresIn"`
	Test       *bool          `json:"test"`
}

// maxExpiresIn is the greatest expiresIn, in seconds: 100 years.
const maxExpiresIn = 100 * 365 * 24 * 3600

// createToken serves POST /v1/tokens.
func (s *Server) createToken(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req tokenRequest
	if err := x.object(&req); err != nil {
		return err
	}
	// A misspelled tableScope or role must not make a token of everything.
	if err := x.strictly(&req, true); err != nil {
		return err
	}
	if err := x.needUnscoped("POST /v1/tokens"); err != nil {
		return err
	}
	n := catalog.NewToken{NamespaceID: x.token.NamespaceID, Name: req.Name, Role: req.Role, TableScope: req.TableScope, Claims: claimsOf(req.Claims), Test: x.token.Test}
	if req.Test != nil {
		if x.token.Test && !*req.Test {
			return newFault(http.StatusForbidden, codeForbidden, "A test token makes test tokens only", "leave test out")
		}
		n.Test = *req.Test
	}
	if req.ExpiresIn != nil {
		var err error
		if n.ExpiresAt, err = s.expiry(*req.ExpiresIn, 1, maxExpiresIn); err != nil {
			return err
		}
	}
	if req.Database != "" {
		d, err := x.find(req.Database)
		if err != nil {
			return err
		}
		n.Database = d.ID
	}
	t, secret, err := s.opt.Catalog.CreateToken(x.acting(x.r.Context()), n)
	if err != nil {
		return err
	}
	x.success()
	x.out = append(s.appendToken(x.out, t, secret), '}')
	return nil
}

// claimsOf are the claims of a body: null is none.
func claimsOf(v jsontext.Value) []byte {
	if len(v) == 0 || v.Kind() == 'n' {
		return nil
	}
	return v
}

// expiry is when a token ends that works for so many seconds, from least to most.
func (s *Server) expiry(seconds float64, least, most int) (time.Time, error) {
	if seconds < float64(least) || seconds > float64(most) || seconds != float64(int64(seconds)) {
		return time.Time{}, newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("expiresIn must be a whole number of seconds from %d to %d", least, most), "")
	}
	return s.opt.Now().Add(time.Duration(seconds) * time.Second), nil
}

// strictly decodes the body once more, and refuses what is lenient elsewhere: null for an object, a member twice, text that is no Unicode and,
// if known, a member that the call doesn't know.
func (x *exchange) strictly(v any, known bool) error {
	if err := json.Unmarshal(x.body, v, json.RejectUnknownMembers(known)); err != nil || bytes.Equal(bytes.TrimSpace(x.body), []byte("null")) {
		message := "The body is null, has a member twice, or text that is not Unicode"
		if known {
			message = "The body is null, has a member that this call doesn't know, or one twice, or text that is not Unicode"
		}
		return newFault(http.StatusBadRequest, wire.CodeBadJSON, message, "the members of this call are in /openapi.json")
	}
	return nil
}

// appendToken writes a token's object; secret is "" but for one that was just made.
func (s *Server) appendToken(b []byte, t *catalog.Token, secret string) []byte {
	b = append(b, `{"id":`...)
	b = wire.AppendString(b, t.ID)
	if secret != "" {
		b = append(b, `,"token":`...)
		b = wire.AppendString(b, secret)
	}
	b = append(b, `,"hint":`...)
	b = wire.AppendString(b, t.Hint)
	b = append(b, `,"name":`...)
	b = wire.AppendString(b, t.Name)
	b = append(b, `,"role":`...)
	b = wire.AppendString(b, t.Role)
	b = append(b, `,"tableScope":`...)
	b = appendNames(b, t.TableScope)
	b = append(b, `,"claims":`...)
	b = appendClaims(b, t)
	b = append(b, `,"database":`...)
	b = s.appendPin(b, t)
	b = append(b, `,"test":`...)
	b = strconv.AppendBool(b, t.Test)
	b = append(b, `,"expiresAt":`...)
	b = appendTime(b, t.ExpiresAt)
	b = append(b, `,"createdAt":`...)
	b = appendTime(b, t.CreatedAt)
	return append(b, '}')
}

// appendPin writes the slug and the id of the database that a token is pinned to, or two nulls. The id names a database that
// is gone, too.
func (s *Server) appendPin(b []byte, t *catalog.Token) []byte {
	if d, err := s.opt.Catalog.DatabaseByID(t.Database); t.Database != "" && err == nil {
		b = wire.AppendString(b, d.Slug)
	} else {
		b = append(b, `null`...)
	}
	b = append(b, `,"databaseId":`...)
	if t.Database == "" {
		return append(b, `null`...)
	}
	return wire.AppendString(b, t.Database)
}

// appendClaims writes a token's claims, or null for none.
func appendClaims(b []byte, t *catalog.Token) []byte {
	if t.Claims == nil {
		return append(b, `null`...)
	}
	return append(b, t.Claims.JSON...)
}

// appendNames writes names as an array, or null for nil.
func appendNames(b []byte, names []string) []byte {
	if names == nil {
		return append(b, `null`...)
	}
	b = append(b, '[')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = wire.AppendString(b, name)
	}
	return append(b, ']')
}

const (
	tokenLimit    = 100
	tokenMaxLimit = 500
)

// listTokens serves GET /v1/tokens: those that were not revoked, the newest first.
func (s *Server) listTokens(x *exchange) error {
	if err := x.needUnscoped("GET /v1/tokens"); err != nil {
		return err
	}
	limit, err := x.limit(tokenLimit, tokenMaxLimit)
	if err != nil {
		return err
	}
	list, err := s.opt.Catalog.ListTokens(x.r.Context(), catalog.TokenQuery{NamespaceID: x.token.NamespaceID, TestOnly: x.token.Test, Current: true,
		Before: x.r.URL.Query().Get("before"), Limit: limit})
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, '[')
	for i, t := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = s.appendToken(b, t, "")
	}
	x.out = append(b, `]}`...)
	return nil
}

// revokeToken serves DELETE /v1/tokens/:id.
func (s *Server) revokeToken(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	if err := x.needUnscoped("DELETE /v1/tokens"); err != nil {
		return err
	}
	t, err := s.opt.Catalog.Token(x.r.Context(), unescape(x.param("id")))
	if err == nil && (t.NamespaceID != x.token.NamespaceID || x.token.Test && !t.Test) {
		err = catalog.ErrTokenNotFound
	}
	if err == nil {
		t, err = s.opt.Catalog.RevokeToken(x.acting(x.r.Context()), t.ID)
	}
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"id":`...)
	b = wire.AppendString(b, t.ID)
	b = append(b, `,"revoked":true,"revokedAt":`...)
	b = appendTime(b, t.RevokedAt)
	x.out = append(b, `}}`...)
	return nil
}
