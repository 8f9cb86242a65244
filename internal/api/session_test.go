package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/password"
)

// countingPasswords counts what is verified, and finds everything wrong.
type countingPasswords struct {
	verified []string // hashes
	err      error
}

func (p *countingPasswords) Hash(context.Context, string) (string, error) { return "", p.err }

func (p *countingPasswords) Verify(_ context.Context, hash, _ string) (ok, outdated bool, err error) {
	p.verified = append(p.verified, hash)
	return false, false, p.err
}

// TestEverySignInHashes: the time that a sign-in takes is the hash's; so one is made for an account that isn't there too.
func TestEverySignInHashes(t *testing.T) {
	c, err := catalog.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, email := range []string{"ada@example.com", "disabled@example.com"} {
		u, err := c.CreateUser(t.Context(), catalog.NewUser{Email: email, PasswordHash: "hash"})
		if err == nil && email == "disabled@example.com" {
			_, err = c.SetDisabled(t.Context(), u.ID, true)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	passwords := &countingPasswords{}
	s := New(Options{Catalog: c, Passwords: passwords})
	send := func(email string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/session", strings.NewReader(`{"email":"`+email+`","password":"some password"}`)))
		return w
	}
	for email, want := range map[string]string{"ada@example.com": "hash", "disabled@example.com": "", "nobody@example.com": "", "no address": "", "": ""} {
		passwords.verified = nil
		if w := send(email); w.Code != http.StatusUnauthorized || len(passwords.verified) != 1 || passwords.verified[0] != want {
			t.Errorf("%q: %d, verified %q", email, w.Code, passwords.verified)
		}
	}
	passwords.err = password.ErrBusy
	for _, email := range []string{"ada@example.com", "nobody@example.com"} {
		if w := send(email); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "PERSQLD_PASSWORD_CHECKS") {
			t.Errorf("%s while others are checked: %d %v %s", email, w.Code, w.Header(), w.Body)
		}
	}
}
