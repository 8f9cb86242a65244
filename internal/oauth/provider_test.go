package oauth_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/identity"
	"github.com/persqld/persqld/internal/oauth"
)

const issuer = "https://sql.example.com"

// house is a provider with one app and one user.
type house struct {
	*oauth.Provider
	cat *catalog.Catalog
	app *catalog.OAuthClient
	ada *catalog.User
	key identity.SigningKey
}

func newHouse(t *testing.T) *house {
	t.Helper()
	now := func() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) } // not fosite's
	c, err := catalog.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	key, err := identity.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := c.CreateNamespace(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	h := &house{cat: c, key: key}
	if h.app, _, err = c.CreateOAuthClient(t.Context(), catalog.NewOAuthClient{NamespaceID: ns.ID, Name: "app", RedirectURIs: []string{"https://app.example/cb?a=b"}, Most: 1}); err != nil {
		t.Fatal(err)
	}
	if h.ada, err = c.CreateUser(t.Context(), catalog.NewUser{Email: "ada@example.com", PasswordHash: "hash"}); err != nil {
		t.Fatal(err)
	}
	h.Provider = oauth.New(oauth.Options{Catalog: c, Issuer: issuer + "/", Now: now, Key: func(context.Context) (identity.SigningKey, error) { return key, nil }, Keys: func() []identity.SigningKey { return []identity.SigningKey{key} }})
	return h
}

// forged are id_tokens that say the same as ours and that we have not signed.
func (h *house) forged(t *testing.T, ours string) map[string]string {
	t.Helper()
	parts := strings.Split(ours, ".")
	var public jose.JSONWebKey
	if err := json.Unmarshal([]byte(h.key.Public), &public); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public.Key)
	if err != nil {
		t.Fatal(err)
	}
	head := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) + "." + parts[1] }
	byMAC := func(signed string, key []byte) string {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(signed))
		return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	other, err := identity.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	other.ID = h.key.ID // as its header says
	signer, err := other.Signer("JWT")
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	object, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	hs := head(fmt.Sprintf(`{"alg":"HS256","kid":%q}`, h.key.ID))
	return map[string]string{
		"none":                  head(fmt.Sprintf(`{"alg":"none","kid":%q}`, h.key.ID)) + ".",
		"HS256 with public DER": byMAC(hs, der), "HS256 with public PEM": byMAC(hs, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "HS256 with the JWK": byMAC(hs, []byte(h.key.Public)),
		"another key":   stranger,
		"no key id":     head(`{"alg":"RS256"}`) + "." + parts[2],
		"other key id":  head(`{"alg":"RS256","kid":"../../dev/null"}`) + "." + parts[2],
		"own key":       head(fmt.Sprintf(`{"alg":"RS256","kid":%q,"jwk":%s}`, h.key.ID, other.Public)) + "." + strings.Split(stranger, ".")[2],
		"other payload": parts[0] + "." + base64.RawURLEncoding.EncodeToString(append(payload, ' ')) + "." + parts[2],
	}
}

func (h *house) ask(t *testing.T, changes ...string) (*oauth.Request, error) {
	t.Helper()
	form := url.Values{"client_id": {h.app.ID}, "redirect_uri": {h.app.RedirectURIs[0]}, "response_type": {"code"}}
	for i := 0; i < len(changes); i += 2 {
		form[changes[i]] = strings.Fields(changes[i+1])
	}
	return h.Ask(t.Context(), form, h.cat.OAuthClient)
}

// Only what goes to the app comes with a request: everything else is for the person to read.
func TestWhoIsTold(t *testing.T) {
	h := newHouse(t)
	var told *oauth.Error
	for _, changes := range [][]string{{"redirect_uri", "https://app.example/cb"}, {"redirect_uri", ""}, {"client_id", ""}, {"client_id", "a b"}} {
		if r, err := h.ask(t, changes...); r != nil || !errors.As(err, &told) || told.Code != "invalid_request" {
			t.Errorf("%v: %v %v", changes, r, err)
		}
	}
	if r, err := h.ask(t, "client_id", "psqlrp_none"); r != nil || !errors.Is(err, catalog.ErrOAuthClientNotFound) {
		t.Errorf("%v %v", r, err)
	}
	r, err := h.ask(t, "scope", "nonsense", "state", "s")
	if r == nil || !errors.As(err, &told) || told.Code != "invalid_scope" {
		t.Fatalf("%v %v", r, err)
	}
	to, err := url.Parse(h.Refuse(r, told))
	if err != nil || to.Host != "app.example" {
		t.Fatalf("%v %v", to, err)
	}
	if q := to.Query(); q.Get("a") != "b" || q.Get("error") != "invalid_scope" || q.Get("state") != "s" || q.Get("iss") != issuer {
		t.Errorf("%v", q)
	}
	if r, err := h.ask(t); err != nil || len(r.Scopes) != 1 || r.Scopes[0] != oauth.ScopeOpenID {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := h.ask(t, "resource", issuer+"/mcp"); err != nil || len(r.Scopes) != 0 || r.Resource != h.MCP() {
		t.Errorf("%+v %v", r, err)
	}
}

// The provider's clock is the server's, wherever fosite has its own; and an id_token is known again.
func TestExchangeByClock(t *testing.T) {
	h := newHouse(t)
	r, err := h.ask(t, "nonce", "n")
	if err != nil {
		t.Fatal(err)
	}
	to, err := h.Grant(t.Context(), r, &oauth.Consent{User: h.ada.ID, AuthAt: time.Date(2029, 12, 31, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.Exchange(t.Context(), h.app, url.Values{"grant_type": {"authorization_code"}, "code": {u.Query().Get("code")}, "redirect_uri": {h.app.RedirectURIs[0]}})
	if err != nil || got.ExpiresIn != 3600 {
		t.Fatalf("%+v %v", got, err)
	}
	if !h.HintIs(got.IDToken, h.ada.ID) || h.HintIs(got.IDToken, "usr_other") || h.HintIs(got.IDToken+"x", h.ada.ID) || h.HintIs("a.b.c", h.ada.ID) {
		t.Error("the id_token is not known for what it is")
	}
	for name, hint := range h.forged(t, got.IDToken) {
		if h.HintIs(hint, h.ada.ID) {
			t.Errorf("%s passes for ours", name)
		}
	}
	if info, err := h.UserInfo(t.Context(), got.AccessToken); err != nil || info.Subject != h.ada.ID {
		t.Errorf("%+v %v", info, err)
	}
	if _, err := h.UserInfo(t.Context(), got.IDToken); !errors.Is(err, catalog.ErrOAuthUnknown) {
		t.Error(err)
	}
}
