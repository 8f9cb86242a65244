package api

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// userRequest is the body of POST /v1/users.
type userRequest struct {
	Subject   string   `json:"subject"`
	Template  string   `json:"template"`
	Role      string   `json:"role"`
	ExpiresIn *float64 `json:"expiresIn"`
}

const (
	maxSubject    = 256   // characters
	minUserToken  = 60    // seconds
	maxUserToken  = 86400 // seconds
	userTokenTime = 3600  // seconds
)

// createUser serves POST /v1/users: the database of one of the caller's users, which is made at the first call, and a new token for
// it at each.
func (s *Server) createUser(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req userRequest
	if err := x.object(&req); err != nil {
		return err
	}
	if err := x.strictly(&req, false); err != nil {
		return err
	}
	if err := x.needUnscoped("POST /v1/users"); err != nil {
		return err
	}
	if n := utf8.RuneCountInString(req.Subject); n < 1 || n > maxSubject {
		return newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("subject must have 1 to %d characters", maxSubject), "it is your own id of the user; it is not stored, only its hash")
	}
	switch req.Role {
	case "":
		req.Role = "write"
	case "write", "read":
	default:
		return newFault(http.StatusBadRequest, "invalid_role", "The role of a user's token is write or read", "")
	}
	seconds := float64(userTokenTime)
	if req.ExpiresIn != nil {
		seconds = *req.ExpiresIn
	}
	expires, err := s.expiry(seconds, minUserToken, maxUserToken)
	if err != nil {
		return err
	}
	m, err := s.userDatabase(x, &req)
	if err != nil {
		return err
	}
	t, secret, err := s.opt.Catalog.CreateToken(x.acting(x.r.Context()), catalog.NewToken{NamespaceID: x.token.NamespaceID, Name: "user " + m.d.Slug, Role: req.Role,
		Database: m.d.ID, Test: x.token.Test, ExpiresAt: expires})
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"token":`...)
	b = wire.AppendString(b, secret)
	b = append(b, `,"tokenId":`...)
	b = wire.AppendString(b, t.ID)
	b = append(b, `,"namespaceSlug":`...)
	b = wire.AppendString(b, t.NamespaceSlug)
	b = append(b, `,"role":`...)
	b = wire.AppendString(b, t.Role)
	b = append(b, `,"database":`...)
	b = append(appendDatabase(b, m.d), '}')
	b = append(b, `,"expiresAt":`...)
	b = appendTime(b, t.ExpiresAt)
	b = append(b, `,"created":`...)
	b = strconv.AppendBool(b, m.new)
	x.out = append(b, `}}`...)
	return nil
}

// userDatabase is the database of a subject.
func (s *Server) userDatabase(x *exchange, req *userRequest) (made, error) {
	n := catalog.NewDatabase{NamespaceID: x.token.NamespaceID, Slug: userSlug(x.token, req.Subject), Test: x.token.Test}
	if d, err := s.opt.Catalog.Database(n.NamespaceID, n.Slug); err == nil {
		return made{d: d}, nil
	}
	var objects []schemaObject
	if req.Template != "" {
		template, err := x.find(req.Template)
		if err != nil {
			return made{}, err
		}
		x.database = template
		err = x.do(store.JobFunc(func(tx *store.Tx) (err error) {
			objects, err = schemaObjects(tx, &x.gate.Caller)
			return err
		}))
		if err != nil {
			return made{}, err
		}
	}
	return s.createMade(x.acting(x.r.Context()), n, func(ctx context.Context, owner store.Runner, id string) error {
		return fill(ctx, owner, id, n.NamespaceID, objects)
	})
}

// userSlug is the slug of a subject's database: the beginning of a hash, which tells nothing of the subject. Test tokens have
// databases of their own.
func userSlug(t *catalog.Token, subject string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%t\x00%s", t.NamespaceID, t.Test, subject))
	return "user-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// fill makes the objects of a schema in a new database, all or none.
func fill(ctx context.Context, owner store.Runner, id, namespace string, objects []schemaObject) error {
	if len(objects) == 0 {
		return nil
	}
	err := owner.Do(ctx, id, &store.Request{Namespace: namespace, Gate: &gate.Gate{Caller: gate.Caller{Role: gate.RoleAdmin}}, Job: store.JobFunc(func(tx *store.Tx) error {
		for _, o := range objects {
			if o.SQL == nil {
				continue // an index of a constraint
			}
			st, _, err := tx.Prepare([]byte(*o.SQL))
			if err == nil {
				_, err = tx.Run(st, nil, nil)
				st.Done()
			}
			if err != nil {
				return err
			}
		}
		return nil
	})})
	var e *sqlite.Error
	var refused *gate.Refusal
	if errors.As(err, &e) && e.Code.Primary() == sqlite.CodeError || errors.As(err, &refused) {
		return newFault(http.StatusConflict, "template_not_copied", "The template's schema can't be made anew: "+err.Error(), "mend the template, or leave it out")
	}
	return err
}
