package api

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/identity"
)

// idTokenOf are the claims of an id_token, unverified.
func idTokenOf(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no JWT: %q", token)
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSignInWithApp(t *testing.T) {
	h := newAppHouse(t)
	for _, public := range []bool{true, false} {
		a := h.app(public)
		h.pass(time.Second)
		got := a.exchange(a.code("openid email profile")).ok(t)
		if got.Expires != 3600 || got.Refresh != "" || got.Scope != "openid email profile" || got.Database != "" {
			t.Errorf("%+v", got)
		}
		claims := idTokenOf(t, got.IDToken)
		hash := base64.RawURLEncoding.EncodeToString(func() []byte { s := sha(got.Access); return s[:16] }())
		for name, want := range map[string]any{"iss": theIssuer, "sub": h.ada.ID, "aud": a.ID, "nonce": "n", "email": "ada@example.com", "email_verified": false, "name": "Ada", "at_hash": hash,
			"iat": float64(h.clock().Unix()), "exp": float64(h.clock().Add(time.Hour).Unix())} {
			if claims[name] != want {
				t.Errorf("%s is %v, want %v", name, claims[name], want)
			}
		}
		if at, _ := claims["auth_time"].(float64); at == 0 || int64(at) > h.clock().Unix()-1 {
			t.Errorf("auth_time is %v", claims["auth_time"])
		}
		status, info := h.userinfo(got.Access)
		if status != http.StatusOK || info["sub"] != h.ada.ID || info["email"] != "ada@example.com" || info["name"] != "Ada" {
			t.Errorf("%d %v", status, info)
		}
		// It reads that and nothing else.
		if status, body := h.sql(got.Access, "ada/main", "SELECT 1"); status != http.StatusUnauthorized {
			t.Errorf("%d %s", status, body)
		}
		h.pass(time.Hour)
		if status, _ := h.userinfo(got.Access); status != http.StatusUnauthorized {
			t.Errorf("after its time: %d", status)
		}
	}
}

// A key that is replaced is told of for the overlap: id_tokens that it signed are good until they end by themselves.
func TestKeysRotateUnderApps(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(false)
	signedBy := func(token string) string {
		t.Helper()
		signed, err := jose.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
		if err != nil {
			t.Fatal(err)
		}
		var keys jose.JSONWebKeySet
		if err := json.Unmarshal(h.send(http.MethodGet, "/.well-known/jwks.json", "", nil).Body.Bytes(), &keys); err != nil {
			t.Fatal(err)
		}
		id := signed.Signatures[0].Header.KeyID
		list := keys.Key(id)
		if len(list) != 1 {
			t.Fatalf("no key %s is told of", id)
		}
		if _, err := signed.Verify(list[0].Key); err != nil {
			t.Error(err)
		}
		return id
	}
	before := a.exchange(a.code("openid")).ok(t)
	first := signedBy(before.IDToken)
	k, err := identity.NewSigningKey()
	if err == nil {
		_, err = h.cat.AddSigningKey(t.Context(), catalog.NewSigningKey{ID: k.ID, Public: k.Public, Private: k.Private, Overlap: time.Hour, Replace: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	if after := signedBy(a.exchange(a.code("openid")).ok(t).IDToken); after != k.ID || signedBy(before.IDToken) != first {
		t.Errorf("signed by %s, want %s; before by %s", after, k.ID, first)
	}
	hint := func() string {
		return h.away(h.authorize(a.request("openid", "prompt", "none", "id_token_hint", before.IDToken))).Query().Get("error")
	}
	if got := hint(); got != "" {
		t.Errorf("within the overlap: %s", got)
	}
	h.pass(time.Hour)
	if got := hint(); got != "login_required" {
		t.Errorf("after it: %q", got)
	}
}
