package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/persqld/persqld/internal/catalog"
)

// lateBody is a body that comes after its header, with something in between.
type lateBody struct {
	io.Reader
	before func()
}

func (b *lateBody) Read(p []byte) (int, error) {
	if b.before != nil {
		b.before()
		b.before = nil
	}
	return b.Reader.Read(p)
}

// TestLateBody: what a caller may do is what the caller may do when the whole request has come; else one who is about to be
// removed would keep requests open, and make a token afterwards.
func TestLateBody(t *testing.T) {
	ctx := t.Context()
	c, err := catalog.Open(ctx, filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	u, err := c.CreateUser(ctx, catalog.NewUser{Email: "ada@example.com", PasswordHash: "hash"})
	must(err)
	other, err := c.CreateUser(ctx, catalog.NewUser{Email: "bob@example.com", PasswordHash: "hash"})
	must(err)
	ns, err := c.CreateNamespaceOf(ctx, "acme", other.ID)
	must(err)
	s := New(Options{Catalog: c, SignUp: SignUpInvite})

	for name, tt := range map[string]struct {
		path string
		take func(session *catalog.Session, tok *catalog.Token) error
		want int
	}{
		"nothing taken, by cookie": {"/api/namespaces/acme/tokens", func(*catalog.Session, *catalog.Token) error { return nil }, 200},
		"nothing taken, by token":  {"/v1/tokens", func(*catalog.Session, *catalog.Token) error { return nil }, 200},
		"signed out":               {"/api/namespaces/acme/tokens", func(session *catalog.Session, _ *catalog.Token) error { return c.EndSession(ctx, session) }, 401},
		"removed": {"/api/namespaces/acme/tokens", func(*catalog.Session, *catalog.Token) error {
			return c.RemoveMember(ctx, ns.ID, other.ID, u.ID)
		}, 404},
		"another role": {"/api/namespaces/acme/tokens", func(*catalog.Session, *catalog.Token) error {
			_, err := c.SetMemberRole(ctx, ns.ID, other.ID, u.ID, catalog.MemberViewer)
			return err
		}, 403},
		"disabled": {"/api/namespaces", func(*catalog.Session, *catalog.Token) error {
			_, err := c.SetDisabled(ctx, u.ID, true)
			return err
		}, 401},
		"revoked": {"/v1/tokens", func(_ *catalog.Session, tok *catalog.Token) error { _, err := c.RevokeToken(ctx, tok.ID); return err }, 401},
	} {
		for _, length := range []int64{-1, 0} { // unknown, and told
			_, err := c.SetDisabled(ctx, u.ID, false)
			must(err)
			_, err = c.AddMember(ctx, ns.ID, u.ID, catalog.MemberAdmin)
			must(err)
			session, cookie, err := c.CreateSession(ctx, catalog.NewSession{UserID: u.ID, PasswordHash: "hash"})
			must(err)
			tok, bearer, err := c.CreateToken(ctx, catalog.NewToken{NamespaceID: ns.ID})
			must(err)
			body := `{"name":"late"}`
			if tt.path == "/api/namespaces" {
				body = `{"slug":"late"}`
			}
			taken := false
			r := httptest.NewRequest(http.MethodPost, tt.path, &lateBody{iotest.OneByteReader(strings.NewReader(body)), func() {
				taken = true
				must(tt.take(session, tok))
			}})
			if r.ContentLength = length; length == 0 {
				r.ContentLength = int64(len(body))
			}
			if strings.HasPrefix(tt.path, "/v1") {
				r.Header.Set("Authorization", "Bearer "+bearer)
			} else {
				r.AddCookie(&http.Cookie{Name: cookieName, Value: cookie})
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != tt.want || !taken {
				t.Errorf("%s, length %d: %d %s; want %d", name, r.ContentLength, w.Code, w.Body, tt.want)
			}
		}
	}
}
