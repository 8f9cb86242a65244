package api

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
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
