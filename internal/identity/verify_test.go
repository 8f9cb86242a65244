package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/persqld/persqld/internal/identity"
	"github.com/persqld/persqld/internal/identity/identitytest"
	"github.com/persqld/persqld/internal/outbound"
)

// clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var loopback = outbound.Networks{Any: true, Contains: netip.MustParsePrefix("127.0.0.0/8").Contains}

func mustIssuers(t testing.TB, text string) []*identity.Issuer {
	t.Helper()
	list, err := identity.ParseIssuers(text, false)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// world is a verifier that trusts one issuer, with a clock for both.
func world(t testing.TB, more string) (*identity.Verifier, *identitytest.Issuer, *clock) {
	t.Helper()
	is := identitytest.New(t)
	c := &clock{now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	is.Now = c.Now
	v := identity.NewVerifier(identity.Options{Issuers: mustIssuers(t, fmt.Sprintf(`[{"issuer":%q,"identity":"{repository}"%s}]`, is.URL, more)),
		Get: outbound.NewFetcher(loopback, 2*time.Second, ""), Now: c.Now})
	return v, is, c
}

func refused(t *testing.T, v *identity.Verifier, token, why string) {
	t.Helper()
	id, err := v.Verify(t.Context(), token)
	if !errors.Is(err, identity.ErrToken) || !strings.Contains(err.Error(), why) {
		t.Errorf("got %+v, %v, want a refusal that says %q", id, err, why)
	}
}

func TestVerify(t *testing.T) {
	v, is, _ := world(t, "")
	id, err := v.Verify(t.Context(), is.Token("Acme/Shop", "7", nil))
	if err != nil {
		t.Fatal(err)
	}
	if id.Issuer != is.URL || id.Name != "Acme/Shop" || id.Folded() != "acme/shop" || id.ID != "7" || id.OwnerID != "owner-of-Acme" || id.BuiltIn {
		t.Errorf("%+v", id)
	}
	// Again by memory.
	if _, err := v.Verify(t.Context(), is.Token("acme/shop", "7", nil)); err != nil || is.Fetches() != 1 {
		t.Errorf("%v, %d look-ups", err, is.Fetches())
	}
	// Those who come first, all at once, wait for one look-up.
	many, forge, _ := world(t, "")
	forge.Lie(nil, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(100 * time.Millisecond) // so that the others come meanwhile
		identitytest.Send(w, identitytest.Set(forge.Key()))
	})
	var all sync.WaitGroup
	token := forge.Token("acme/shop", "7", nil)
	for range 50 {
		all.Go(func() {
			if _, err := many.Verify(context.Background(), token); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := forge.Fetches(); n != 1 {
		t.Errorf("%d look-ups", n)
	}
	// An EC key, and an audience among others.
	ec := identitytest.NewEC(t, "ec")
	is.SetKeys(ec, is.Key())
	v2, is2, _ := world(t, "")
	is2.SetKeys(ec)
	if id, err := v2.Verify(t.Context(), is2.Token("acme/shop", "7", map[string]any{"aud": []string{"x", "persql"}})); err != nil || id.Name != "acme/shop" {
		t.Errorf("ES256: %v", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	v, is, c := world(t, "")
	k := is.Key()
	claims := func(change map[string]any) map[string]any { return is.Claims("acme/shop", "7", change) }
	sign := func(header, change map[string]any) string {
		h := map[string]any{"alg": "RS256", "kid": k.ID}
		for name, val := range header {
			h[name] = val
		}
		return identitytest.Sign(k, h, claims(change))
	}
	der, err := x509.MarshalPKIXPublicKey(k.Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	jwk, err := json.Marshal(k.JWK())
	if err != nil {
		t.Fatal(err)
	}
	stranger := identitytest.NewRSA(t, k.ID, 2048)
	good := is.Token("acme/shop", "7", nil)
	parts := strings.Split(good, ".")
	now := c.Now()
	for name, tt := range map[string]struct{ token, why string }{
		"none":                            {"", "there is none"},
		"no JWT":                          {"x", "no JWT"},
		"too long":                        {strings.Repeat("x", identity.MaxToken+1), "longer"},
		"alg none":                        {identitytest.Unsigned(claims(nil)), "RS256 or ES256"},
		"alg none with a signature":       {base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "." + parts[2], "RS256 or ES256"},
		"HS256 with the public key's PEM": {identitytest.HMAC(public, map[string]any{"alg": "HS256", "kid": k.ID}, claims(nil)), "RS256 or ES256"},
		"HS256 with the key's DER":        {identitytest.HMAC(der, map[string]any{"alg": "HS256", "kid": k.ID}, claims(nil)), "RS256 or ES256"},
		"HS256 with the key's JWK":        {identitytest.HMAC(jwk, map[string]any{"alg": "HS256", "kid": k.ID}, claims(nil)), "RS256 or ES256"},
		"RS256 in the header, HMAC":       {identitytest.HMAC(public, map[string]any{"alg": "RS256", "kid": k.ID}, claims(nil)), "signature"},
		"PS256":                           {sign(map[string]any{"alg": "PS256"}, nil), "RS256 or ES256"},
		"ES256 of an RSA key":             {sign(map[string]any{"alg": "ES256"}, nil), "key that its issuer does not have"},
		"its own key in the header":       {identitytest.Sign(stranger, map[string]any{"alg": "RS256", "kid": k.ID, "jwk": stranger.JWK()}, claims(nil)), "signature"},
		"keys at an address of its own":   {identitytest.Sign(stranger, map[string]any{"alg": "RS256", "kid": k.ID, "jku": "https://evil.example/keys"}, claims(nil)), "signature"},
		"a stranger's key of the same id": {identitytest.Sign(stranger, map[string]any{"alg": "RS256", "kid": k.ID}, claims(nil)), "signature"},
		"claims of another token":         {parts[0] + "." + strings.Split(is.Token("acme/other", "8", nil), ".")[1] + "." + parts[2], "signature"},
		"no signature":                    {parts[0] + "." + parts[1] + ".", "signature"},
		"unknown crit":                    {sign(map[string]any{"crit": []string{"x"}, "x": true}, nil), ""},
		"kid as a path":                   {sign(map[string]any{"kid": "../../../../dev/null"}, nil), "key that its issuer does not have"},
		"kid as a statement":              {sign(map[string]any{"kid": "x' UNION SELECT 'key"}, nil), "key that its issuer does not have"},
		"kid as an address":               {sign(map[string]any{"kid": "http://127.0.0.1/key"}, nil), "key that its issuer does not have"},
		"issuer with a suffix":            {sign(nil, map[string]any{"iss": is.URL + ".evil.example"}), "not trusted"},
		"issuer with a prefix":            {sign(nil, map[string]any{"iss": "https://evil.example/" + is.URL}), "not trusted"},
		"issuer with a slash":             {sign(nil, map[string]any{"iss": is.URL + "/"}), "not trusted"},
		"issuer in capitals":              {sign(nil, map[string]any{"iss": strings.ToUpper(is.URL)}), "not trusted"},
		"a list of issuers":               {sign(nil, map[string]any{"iss": []string{is.URL}}), "not trusted"},
		"no issuer":                       {sign(nil, map[string]any{"iss": nil}), "not trusted"},
		"another audience":                {sign(nil, map[string]any{"aud": "https://github.com/acme"}), "audience"},
		"an audience that begins so":      {sign(nil, map[string]any{"aud": "persql2"}), "audience"},
		"no audience":                     {sign(nil, map[string]any{"aud": nil}), "audience"},
		"no subject":                      {sign(nil, map[string]any{"sub": nil}), "subject"},
		"expired":                         {sign(nil, map[string]any{"exp": now.Add(-identity.Leeway).Unix()}), "expired"},
		"never expires":                   {sign(nil, map[string]any{"exp": nil}), "never expires"},
		"expires in words":                {sign(nil, map[string]any{"exp": "tomorrow"}), "no time"},
		"expires too far to count":        {sign(nil, map[string]any{"exp": 1e300}), "no time"},
		"not yet valid":                   {sign(nil, map[string]any{"nbf": now.Add(identity.Leeway + 2*time.Second).Unix()}), "not valid yet"},
		"made in the future":              {sign(nil, map[string]any{"iat": now.Add(time.Hour).Unix()}), "not valid yet"},
		"no repository":                   {sign(nil, map[string]any{"repository": nil}), "repository is missing"},
		"a list of repositories":          {sign(nil, map[string]any{"repository": []string{"acme/shop"}}), "no text"},
		"a repository with a space":       {sign(nil, map[string]any{"repository": "acme/shop x"}), "ASCII"},
		"a repository that looks alike":   {sign(nil, map[string]any{"repository": "аcme/shop"}), "ASCII"},
		"a repository's name is too long": {sign(nil, map[string]any{"repository": strings.Repeat("a", 257)}), "ASCII"},
		"a claim twice": {identitytest.SignRaw(k, map[string]any{"alg": "RS256", "kid": k.ID},
			fmt.Appendf(nil, `{"iss":%q,"aud":"persql","sub":"x","exp":%d,"repository":"acme/shop","repository":"evil/shop"}`, is.URL, now.Add(time.Minute).Unix())), "can't be read"},
		"claims that are a list": {identitytest.SignRaw(k, map[string]any{"alg": "RS256", "kid": k.ID}, []byte(`[]`)), "can't be read"},
		"claims that are null":   {identitytest.SignRaw(k, map[string]any{"alg": "RS256", "kid": k.ID}, []byte(`null`)), "not trusted"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, v, tt.token, tt.why) })
	}
	// On the edge, and the token that all of these are made of.
	for _, change := range []map[string]any{nil, {"exp": now.Add(2*time.Second - identity.Leeway).Unix()}, {"nbf": now.Add(identity.Leeway).Unix()}, {"exp": float64(now.Add(time.Minute).Unix()) + 0.5}} {
		if _, err := v.Verify(t.Context(), sign(nil, change)); err != nil {
			t.Errorf("%v: %v", change, err)
		}
	}
}

// A key of one trusted issuer signs nothing for another.
func TestKeysAreTheirIssuersOwn(t *testing.T) {
	a, b := identitytest.New(t), identitytest.New(t)
	v := identity.NewVerifier(identity.Options{Issuers: mustIssuers(t, fmt.Sprintf(`[{"issuer":%q,"identity":"{repository}"},{"issuer":%q,"identity":"{repository}"}]`, a.URL, b.URL)), Get: outbound.NewFetcher(loopback, 2*time.Second, "")})
	if _, err := v.Verify(t.Context(), a.Token("acme/shop", "7", nil)); err != nil {
		t.Fatal(err)
	}
	refused(t, v, b.Token("acme/shop", "7", map[string]any{"iss": a.URL}), "signature")
}

func TestUnknownKeysAreLookedUpRarely(t *testing.T) {
	v, is, c := world(t, "")
	forged := func(i int) string {
		return identitytest.Sign(is.Key(), map[string]any{"alg": "RS256", "kid": fmt.Sprint("unknown-", i)}, is.Claims("acme/shop", "7", nil))
	}
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			if _, err := v.Verify(context.Background(), forged(i)); err == nil {
				t.Error("let in")
			}
		})
	}
	all.Wait()
	if n := is.Fetches(); n != 1 {
		t.Errorf("%d look-ups at once, want 1", n)
	}
	for i := range 100 {
		c.Advance(90 * time.Millisecond)
		refused(t, v, forged(i), "does not have")
	}
	if n := is.Fetches(); n != 1 {
		t.Errorf("%d look-ups in 9 s, want 1", n)
	}
	c.Advance(time.Second)
	refused(t, v, forged(1), "does not have")
	if n := is.Fetches(); n != 2 {
		t.Errorf("%d look-ups after 10 s, want 2", n)
	}
	// The storm keeps nobody out whose key is known.
	if _, err := v.Verify(t.Context(), is.Token("acme/shop", "7", nil)); err != nil {
		t.Error(err)
	}
	// A clock that is set back doesn't stop look-ups for as long as it was ahead.
	c.Advance(-24 * time.Hour)
	refused(t, v, forged(2), "")
	if n := is.Fetches(); n != 3 {
		t.Errorf("%d look-ups with the clock set back, want 3", n)
	}
}

func TestIssuerRotatesItsKeys(t *testing.T) {
	v, is, c := world(t, "")
	first := is.Key()
	old := is.Token("acme/shop", "7", map[string]any{"exp": c.Now().Add(24 * time.Hour).Unix()})
	if _, err := v.Verify(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	second := identitytest.NewRSA(t, "key-2", 2048)
	is.SetKeys(second, first)
	c.Advance(11 * time.Second)
	for _, token := range []string{is.Token("acme/shop", "7", nil), old} {
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Errorf("while both are there: %v", err)
		}
	}
	// What the issuer has taken back counts no more once the keys are looked up again.
	is.SetKeys(second)
	c.Advance(16 * time.Minute)
	refused(t, v, old, "does not have")
	// While they can't be, the known ones count for a while and not for good.
	is.Lie(nil, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	c.Advance(16 * time.Minute)
	token := is.Token("acme/shop", "7", map[string]any{"exp": c.Now().Add(24 * time.Hour).Unix()})
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Errorf("while the issuer is down: %v", err)
	}
	c.Advance(6 * time.Hour)
	refused(t, v, token, "can't be had")
}

// Whatever an issuer's documents say, the server goes nowhere else and reads no more than it should.
func TestIssuerLies(t *testing.T) {
	type lie = func(w http.ResponseWriter, r *http.Request)
	reached := 0
	private := identitytest.New(t)
	discover := func(fields map[string]any) func(is *identitytest.Issuer) lie {
		return func(is *identitytest.Issuer) lie {
			d := map[string]any{"issuer": is.URL, "jwks_uri": is.URL + "/keys"}
			for k, v := range fields {
				d[k] = v
			}
			return func(w http.ResponseWriter, _ *http.Request) { identitytest.Send(w, d) }
		}
	}
	for name, tt := range map[string]struct {
		discovery func(is *identitytest.Issuer) lie
		jwks      lie
		more      func(is *identitytest.Issuer) lie // jwks, of the issuer's own key
	}{
		"another issuer":       {discovery: discover(map[string]any{"issuer": "https://other.example"})},
		"a slash more":         {discovery: func(is *identitytest.Issuer) lie { return discover(map[string]any{"issuer": is.URL + "/"})(is) }},
		"a private address":    {discovery: discover(map[string]any{"jwks_uri": "https://10.0.0.1/keys"})},
		"the metadata service": {discovery: discover(map[string]any{"jwks_uri": "http://169.254.169.254/latest/meta-data"})},
		"plain http":           {discovery: discover(map[string]any{"jwks_uri": "http://example.com/keys"})},
		"a file":               {discovery: discover(map[string]any{"jwks_uri": "file:///etc/passwd"})},
		"no address":           {discovery: discover(map[string]any{"jwks_uri": nil})},
		"discovery elsewhere": {discovery: func(*identitytest.Issuer) lie {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, private.URL+"/.well-known/openid-configuration", http.StatusFound)
			}
		}},
		"keys elsewhere": {jwks: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, private.URL+"/keys", http.StatusTemporaryRedirect)
		}},
		"endless keys": {jwks: func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"keys":[`)
			for r.Context().Err() == nil {
				if _, err := fmt.Fprint(w, strings.Repeat(" ", 64<<10)); err != nil {
					return
				}
			}
		}},
		"slow keys":        {jwks: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		"keys that aren't": {jwks: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "no") }},
		"too many keys": {more: func(is *identitytest.Issuer) lie {
			return func(w http.ResponseWriter, _ *http.Request) {
				list := []any{}
				for range 101 {
					list = append(list, is.Key().JWK())
				}
				identitytest.Send(w, map[string]any{"keys": list})
			}
		}},
		"large keys": {more: func(is *identitytest.Issuer) lie {
			return func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, strings.Repeat(" ", 600<<10))
				identitytest.Send(w, identitytest.Set(is.Key()))
			}
		}},
		"a secret key": {jwks: func(w http.ResponseWriter, _ *http.Request) {
			identitytest.Send(w, map[string]any{"keys": []any{map[string]any{"kty": "oct", "kid": "key-1", "k": "c2VjcmV0"}}})
		}},
		"keys for encryption": {jwks: func(w http.ResponseWriter, _ *http.Request) {
			identitytest.Send(w, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "kid": "key-1", "use": "enc", "n": "AQAB", "e": "AQAB"}}})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			v, is, _ := world(t, "")
			var d lie
			if tt.discovery != nil {
				d = tt.discovery(is)
			}
			if tt.more != nil {
				tt.jwks = tt.more(is)
			}
			is.Lie(d, tt.jwks)
			begin := time.Now()
			refused(t, v, is.Token("acme/shop", "7", nil), "can't be had")
			if took := time.Since(begin); took > 8*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	if reached = private.Fetches(); reached != 0 {
		t.Errorf("%d redirects were followed", reached)
	}
	// A short key verifies nothing, nor does one for another algorithm.
	v, is, _ := world(t, "")
	short, good := identitytest.NewRSA(t, "short", 1024), is.Key()
	is.SetKeys(short, good)
	refused(t, v, is.Token("acme/shop", "7", nil), "does not have")
	// Without the network in PERSQLD_ALLOW_NETWORKS nothing is asked at all.
	is = identitytest.New(t)
	v = identity.NewVerifier(identity.Options{Issuers: mustIssuers(t, fmt.Sprintf(`[{"issuer":%q,"identity":"{repository}"}]`, is.URL)), Get: outbound.NewFetcher(outbound.Networks{}, time.Second, "")})
	refused(t, v, is.Token("acme/shop", "7", nil), "can't be had")
	if is.Fetches() != 0 {
		t.Error("it was asked")
	}
}

func TestAllow(t *testing.T) {
	v, is, _ := world(t, `,"allow":["acme/*","Beta/One","deep/**"]`)
	for name, want := range map[string]bool{"acme/shop": true, "ACME/Shop": true, "beta/one": true, "beta/two": false, "acme": false, "acme/a/b": false, "acmex/shop": false, "x/acme/shop": false, "deep/a": true, "deep/a/b/c": true, "deep": false, "deeper/a": false} {
		_, err := v.Verify(t.Context(), is.Token(name, "7", nil))
		if want && err != nil || !want && !errors.Is(err, identity.ErrNotAllowed) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestClaimsMakeIdentities(t *testing.T) {
	for name, tt := range map[string]struct {
		entry  string
		claims map[string]any
		want   string // "name id owner", or the refusal
	}{
		"gitlab's":                   {`"identity":"{project_path}"`, map[string]any{"project_path": "group/sub/app", "project_id": 42, "namespace_id": "9"}, "group/sub/app 42 9"},
		"without ids":                {`"identity":"{project_path}"`, map[string]any{"project_path": "group/app"}, "group/app  "},
		"an id that is needed":       {`"identity":"{project_path}","id":"{project_id}"`, map[string]any{"project_path": "group/app"}, "project_id is missing"},
		"an email":                   {`"identity":"{email}"`, map[string]any{"email": "robot@example.com", "email_verified": true, "sub": "77"}, "robot@example.com 77 "},
		"an email, verified in text": {`"identity":"{email}"`, map[string]any{"email": "robot@example.com", "email_verified": "true", "sub": "77"}, "robot@example.com 77 "},
		"an email, not verified":     {`"identity":"{email}"`, map[string]any{"email": "robot@example.com", "email_verified": false}, "not verified"},
		"an email, nothing said":     {`"identity":"{email}"`, map[string]any{"email": "robot@example.com"}, "not verified"},
		"two claims":                 {`"identity":"{org}/{app}"`, map[string]any{"org": "acme", "app": "shop"}, "acme/shop  "},
		"a claim with the separator": {`"identity":"{org}/{app}"`, map[string]any{"org": "acme/x", "app": "shop"}, "separates"},
		"the subject":                {``, map[string]any{"sub": "system:serviceaccount:ci:bot"}, "system:serviceaccount:ci:bot  "},
	} {
		t.Run(name, func(t *testing.T) {
			is := identitytest.New(t)
			entry := fmt.Sprintf(`[{"issuer":%q`, is.URL)
			if tt.entry != "" {
				entry += "," + tt.entry
			}
			v := identity.NewVerifier(identity.Options{Issuers: mustIssuers(t, entry+"}]"), Get: outbound.NewFetcher(loopback, 2*time.Second, "")})
			for _, c := range []string{"repository", "repository_id", "repository_owner_id"} {
				tt.claims[c] = nil
			}
			id, err := v.Verify(t.Context(), is.Token("x/y", "1", tt.claims))
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %s", err, tt.want)
				}
				return
			}
			if got := id.Name + " " + id.ID + " " + id.OwnerID; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseIssuers(t *testing.T) {
	list, err := identity.ParseIssuers("", true)
	if err != nil || len(list) != 3 || !list[0].BuiltIn {
		t.Errorf("%v %v", list, err)
	}
	// The operator's own entry for a built-in issuer counts in its place, and need not repeat what that says.
	list, err = identity.ParseIssuers(`[{"issuer":"https://token.actions.githubusercontent.com","allow":["acme/*"]}]`, true)
	if err != nil || len(list) != 3 || list[0].URL != identity.GitHub || list[0].BuiltIn {
		t.Errorf("%+v %v", list, err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "issuers.json")
	if err := os.WriteFile(file, []byte(` [{"issuer":"https://a.example"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := identity.ParseIssuers(file, false); err != nil || len(list) != 1 || list[0].Audience != "persql" {
		t.Errorf("%v %v", list, err)
	}
	for _, bad := range []string{filepath.Join(dir, "none.json"), dir, `[{}]`, `{"issuer":"https://a.example"}`, `[{"issuer":"https://a.example","alow":["x"]}]`, `[{"issuer":"http://a.example"}]`, `[{"issuer":"ftp://a.example"}]`, `[{"issuer":"https://"}]`, `[{"issuer":"https://u:p@a.example"}]`,
		`[{"issuer":"https://a.example?x"}]`, `[{"issuer":"https://a.example#x"}]`, `[{"issuer":"https://a.example"},{"issuer":"https://a.example"}]`, `[{"issuer":"https://a.example","identity":"fixed"}]`, `[{"issuer":"https://a.example","identity":"{a}{b}"}]`, `[{"issuer":"https://a.example","identity":"{a"}]`,
		`[{"issuer":"https://a.example","identity":"a}"}]`, `[{"issuer":"https://a.example","identity":"{}"}]`, `[{"issuer":"https://a.example","id":"x{a}"}]`, `[{"issuer":"https://a.example","allow":[]}]`, `[{"issuer":"https://a.example","allow":["[x"]}]`, `[{"issuer":"https://a.example","allow":[""]}]`,
		`[{"issuer":"https://a.example","jwksFile":"` + filepath.Join(dir, "none") + `"}]`, `[{"issuer":"https://a.example","jwksFile":"` + file + `"}]`, "[" + strings.TrimSuffix(strings.Repeat(`{"issuer":"https://a.example"},`, 51), ",") + "]"} {
		if list, err := identity.ParseIssuers(bad, true); !errors.Is(err, identity.ErrIssuers) {
			t.Errorf("%.80s: %v %v", bad, list, err)
		}
	}
}

// A site without a way out has the keys in a file.
func TestKeysInAFile(t *testing.T) {
	k, next := identitytest.NewEC(t, "k"), identitytest.NewRSA(t, "next", 2048)
	file := filepath.Join(t.TempDir(), "keys.json")
	write := func(keys ...*identitytest.Key) {
		raw, err := json.Marshal(identitytest.Set(keys...))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(k)
	c := &clock{now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	v := identity.NewVerifier(identity.Options{Issuers: mustIssuers(t, fmt.Sprintf(`[{"issuer":"https://ci.internal.example","identity":"{repository}","jwksFile":%q}]`, file)), Now: c.Now})
	token := func(k *identitytest.Key) string {
		return identitytest.Sign(k, map[string]any{"alg": k.Algorithm(), "kid": k.ID}, map[string]any{"iss": "https://ci.internal.example", "aud": "persql", "sub": "x", "exp": c.Now().Add(time.Hour).Unix(), "repository": "acme/shop"})
	}
	if _, err := v.Verify(t.Context(), token(k)); err != nil {
		t.Fatal(err)
	}
	write(next)
	c.Advance(11 * time.Second)
	if _, err := v.Verify(t.Context(), token(next)); err != nil {
		t.Error(err)
	}
}

// The other signature of the same ECDSA token is no other token.
func TestOnceIsNotTheSignature(t *testing.T) {
	v, is, _ := world(t, "")
	is.SetKeys(identitytest.NewEC(t, "ec"))
	token := is.Token("acme/shop", "7", map[string]any{"jti": nil})
	dot := strings.LastIndexByte(token, '.')
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil {
		t.Fatal(err)
	}
	n := is.Key().Private.(*ecdsa.PrivateKey).Curve.Params().N
	s := new(big.Int).Sub(n, new(big.Int).SetBytes(signature[32:]))
	twin := token[:dot+1] + base64.RawURLEncoding.EncodeToString(append(signature[:32:32], s.FillBytes(make([]byte, 32))...))
	a, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	b, err := v.Verify(t.Context(), twin)
	if err != nil || twin == token || a.Once != b.Once {
		t.Errorf("%v: the twin is another token", err)
	}
	other, err := v.Verify(t.Context(), is.Token("acme/shop", "7", map[string]any{"jti": nil, "x": 1}))
	if err != nil || other.Once == a.Once {
		t.Errorf("%v: another token is the same", err)
	}
}

func TestAssertions(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	first, err := identity.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	second, err := identity.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	const us, door = "https://sql.example.com", "https://sql.example.com/oauth/token"
	id := &identity.Identity{Issuer: identity.GitHub, Name: "acme/shop", ID: "7", OwnerID: "3"}
	token, expires, err := identity.Sign(first, us, door, id, now, 5*time.Minute)
	if err != nil || !expires.Equal(now.Add(5*time.Minute)) {
		t.Fatal(expires, err)
	}
	both := []identity.SigningKey{{ID: second.ID, Public: second.Public}, {ID: first.ID, Public: first.Public}}
	got, err := identity.VerifyAssertion(token, both, us, door, now.Add(4*time.Minute))
	if err != nil || got.Issuer != id.Issuer || got.Name != id.Name || got.ID != "7" || got.OwnerID != "3" {
		t.Errorf("%+v %v", got, err)
	}
	for name, f := range map[string]func() error{
		"expired":         func() error { _, err := identity.VerifyAssertion(token, both, us, door, expires); return err },
		"another server":  func() error { _, err := identity.VerifyAssertion(token, both, us+"x", door, now); return err },
		"another purpose": func() error { _, err := identity.VerifyAssertion(token, both, us, us, now); return err },
		"a key that went": func() error { _, err := identity.VerifyAssertion(token, both[:1], us, door, now); return err },
		"no assertion":    func() error { _, err := identity.VerifyAssertion("x.y.z", both, us, door, now); return err },
		"too long": func() error {
			_, err := identity.VerifyAssertion(strings.Repeat("x", 20000), both, us, door, now)
			return err
		},
		"another type": func() error {
			der, err := base64.StdEncoding.DecodeString(first.Private)
			if err != nil {
				return nil
			}
			private, err := x509.ParsePKCS8PrivateKey(der)
			if err != nil {
				return nil
			}
			k := &identitytest.Key{ID: first.ID, Private: private.(*rsa.PrivateKey)}
			claims := map[string]any{"iss": us, "sub": "acme/shop", "aud": door, "jti": "x", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "identity_issuer": identity.GitHub}
			_, err = identity.VerifyAssertion(identitytest.Sign(k, map[string]any{"alg": "RS256", "kid": k.ID, "typ": "JWT"}, claims), both, us, door, now)
			return err
		},
		"alg none": func() error {
			_, err := identity.VerifyAssertion(identitytest.Unsigned(map[string]any{"iss": us, "aud": door}), both, us, door, now)
			return err
		},
	} {
		if err := f(); !errors.Is(err, identity.ErrAssertion) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Somebody else's library reads our keys and verifies what we sign.
	raw, err := identity.JWKS(both)
	if err != nil || strings.Contains(string(raw), `"d"`) {
		t.Fatalf("%v: %s", err, raw)
	}
	set := &staticKeys{raw}
	verifier := oidc.NewVerifier(us, set, &oidc.Config{ClientID: door, SupportedSigningAlgs: []string{"RS256"}, Now: func() time.Time { return now }})
	if theirs, err := verifier.Verify(t.Context(), token); err != nil || theirs.Subject != "acme/shop" {
		t.Errorf("go-oidc: %v", err)
	}
}

// FuzzVerify: whatever a token is, it is refused without a crash, unless the issuer signed it.
func FuzzVerify(f *testing.F) {
	v, is, _ := world(f, "")
	good := is.Token("acme/shop", "7", nil)
	for _, s := range []string{good, "", "..", "a.b.c", identitytest.Unsigned(map[string]any{"iss": is.URL}), strings.Repeat("A", 100) + "." + strings.Repeat("A", 100) + ".AA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := v.Verify(t.Context(), token); err == nil && token != good && !strings.HasPrefix(good, token[:strings.LastIndexByte(token, '.')]) {
			t.Errorf("%q lets in %+v", token, id)
		}
	})
}
