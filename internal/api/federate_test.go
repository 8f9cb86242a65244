package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/identity"
	"github.com/persqld/persqld/internal/identity/identitytest"
	"github.com/persqld/persqld/internal/store"
)

// elsewhere answers in the place of the built-in issuers, which no test can be.
type elsewhere struct{ keys *identitytest.Key }

func (e *elsewhere) Get(_ context.Context, address string, _ int64) ([]byte, error) {
	for _, issuer := range []string{identity.GitHub, identity.GitLab, identity.Google} {
		switch address {
		case issuer + "/.well-known/openid-configuration":
			return json.Marshal(map[string]any{"issuer": issuer, "jwks_uri": issuer + "/keys"})
		case issuer + "/keys":
			return json.Marshal(identitytest.Set(e.keys))
		}
	}
	return nil, errors.New("nothing there")
}

// forge is a server of the built-in issuers.
type forge struct {
	t    *testing.T
	cat  *catalog.Catalog
	door *api.Server
	key  *identitytest.Key
	now  time.Time
	acme catalog.Namespace
}

func newForge(t *testing.T, signUp, issuers string, most int) *forge {
	t.Helper()
	f := &forge{t: t, key: identitytest.NewRSA(t, "k", 2048), now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := func() time.Time { return f.now }
	var err error
	f.cat, err = catalog.Open(t.Context(), filepath.Join(dir, "catalog.db"), catalog.Options{Now: now})
	must(err)
	f.acme, err = f.cat.CreateNamespace(t.Context(), "acme")
	must(err)
	must(os.Mkdir(filepath.Join(dir, "db"), 0o700))
	st, err := store.New(store.Options{Dir: filepath.Join(dir, "db"), Now: now})
	must(err)
	t.Cleanup(func() {
		st.Close(context.Background())
		f.cat.Close()
	})
	list, err := identity.ParseIssuers(issuers, true)
	must(err)
	f.door = api.New(api.Options{Catalog: f.cat, Placement: st, SignUp: signUp, Now: now, BaseURL: "https://sql.example.com",
		Identity: api.Identity{MaxOwner: most, Verifier: identity.NewVerifier(identity.Options{Issuers: list, Get: &elsewhere{f.key}, Now: now})}})
	return f
}

// ask sends a token of an issuer with these claims, and returns the status with the answer.
func (f *forge) ask(path, issuer string, claims map[string]any) (int, string) {
	f.t.Helper()
	all := map[string]any{"iss": issuer, "aud": "persql", "sub": "subject", "iat": f.now.Unix(), "exp": f.now.Add(time.Minute).Unix()}
	for k, v := range claims {
		all[k] = v
	}
	r := httptest.NewRequest(http.MethodPost, path, nil)
	r.Header.Set("Authorization", "Bearer "+identitytest.Sign(f.key, map[string]any{"alg": "RS256", "kid": "k"}, all))
	w := httptest.NewRecorder()
	f.door.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func github(repository, id string) map[string]any {
	owner, _, _ := strings.Cut(repository, "/")
	return map[string]any{"repository": repository, "repository_id": id, "repository_owner_id": "id-of-" + owner}
}

// The built-in issuers are everybody's: their machines get nothing where nobody has said so.
func TestBuiltInIssuers(t *testing.T) {
	const federate, connect = "/v1/identity/federate", "/v1/actions/connect"
	f := newForge(t, api.SignUpInvite, "", 20)
	want := func(status int, words, path, issuer string, claims map[string]any) {
		t.Helper()
		if got, text := f.ask(path, issuer, claims); got != status || !strings.Contains(text, words) {
			t.Errorf("%s %v: %d %s, want %d %s", path, claims, got, text, status, words)
		}
	}
	gitlab := map[string]any{"project_path": "acme/shop", "project_id": "70", "namespace_id": "1"}
	want(403, "identity_not_allowed", federate, identity.GitHub, github("acme/shop", "7"))
	if n := len(f.cat.Namespaces()); n != 1 {
		t.Errorf("%d namespaces", n)
	}
	if _, _, err := f.cat.Bind(t.Context(), catalog.NewBinding{NamespaceID: f.acme.ID, Name: "acme/shop"}); err != nil {
		t.Fatal(err)
	}
	// A binding that names no issuer is GitHub's, not that of whoever calls a project so elsewhere.
	want(403, "identity_not_bound", connect, identity.GitLab, gitlab)
	want(403, "identity_not_allowed", federate, identity.GitLab, gitlab)
	want(200, `"namespace":"acme","database":"acme-shop"`, connect, identity.GitHub, github("acme/shop", "7"))
	want(200, `"created":true`, federate, identity.GitHub, github("acme/shop", "7"))
	want(403, "identity_mismatch", federate, identity.GitHub, github("acme/shop", "8"))
	want(403, "identity_not_allowed", federate, identity.GitHub, github("acme/other", "9"))
	if _, _, err := f.cat.Bind(t.Context(), catalog.NewBinding{NamespaceID: f.acme.ID, Issuer: identity.GitLab, Name: "acme/shop"}); err != nil {
		t.Fatal(err)
	}
	want(200, `"namespace":"acme","database":"acme-shop-`, connect, identity.GitLab, gitlab)
	// Built-in issuers' tokens have their ids, or they are none of theirs.
	want(401, "repository_id is missing", connect, identity.GitHub, map[string]any{"repository": "acme/shop"})
	want(401, "project_id is missing", connect, identity.GitLab, map[string]any{"project_path": "acme/shop"})
	want(401, "not verified", connect, identity.Google, map[string]any{"email": "a@example.com"})

	// Where anybody may sign up, machines may, each owner a few times.
	f = newForge(t, api.SignUpOpen, "", 2)
	want(200, `"created":true`, federate, identity.GitHub, github("evil/a", "1"))
	want(200, `"created":true`, federate, identity.GitHub, github("evil/b", "2"))
	want(403, "identity_not_allowed", federate, identity.GitHub, github("evil/c", "3"))
	want(200, `"created":false`, federate, identity.GitHub, github("evil/a", "1"))
	want(200, `"created":true`, federate, identity.GitHub, github("good/a", "4"))
	want(200, `"identity":"robot@example.com"`, federate, identity.Google, map[string]any{"email": "robot@example.com", "email_verified": true})
	want(403, "identity_mismatch", federate, identity.Google, map[string]any{"email": "robot@example.com", "email_verified": true, "sub": "another"})

	// An entry of the operator's for one of them lets in whom it allows.
	f = newForge(t, api.SignUpClosed, fmt.Sprintf(`[{"issuer":%q,"allow":["acme/*"]}]`, identity.GitHub), 20)
	want(200, `"created":true`, federate, identity.GitHub, github("acme/shop", "7"))
	want(403, "identity_not_allowed", federate, identity.GitHub, github("evil/shop", "8"))
}

// Without trusted issuers nobody is let in.
func TestNoIssuers(t *testing.T) {
	s := api.New(api.Options{})
	r := httptest.NewRequest(http.MethodPost, "/v1/identity/federate", nil)
	r.Header.Set("Authorization", "Bearer "+identitytest.Sign(identitytest.NewRSA(t, "k", 2048), map[string]any{"alg": "RS256"}, map[string]any{"iss": identity.GitHub}))
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "OIDC") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
