// Package upstreamtest has providers that people sign in with, for tests: real servers, which keep to the protocol where they aren't told to lie.
package upstreamtest

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/persqld/persqld/internal/identity/identitytest"
)

// The client that providers know.
const (
	ClientID     = "persqld-at-test"
	ClientSecret = "a secret of tests"
)

// flow is what both providers do: browsers come with a challenge and are sent back with a code, which is redeemed once.
type flow struct {
	t  testing.TB
	mu sync.Mutex
	// codes are what was asked for with each code that is open.
	codes map[string]url.Values
	made  int
	deny  string
	iss   string // that answers name; "" for none
}

// Deny has the next browsers sent back with an error; "" with a code again.
func (f *flow) Deny(code string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deny = code
}

// SetIss is what answers name as iss; "" is nothing.
func (f *flow) SetIss(iss string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.iss = iss
}

// authorize sends a browser back.
func (f *flow) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != ClientID || q.Get("response_type") != "code" || q.Get("state") == "" || q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" {
		http.Error(w, "<script>alert('not a good request')</script>", http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	f.made++
	code := fmt.Sprint("code-", f.made)
	answer := url.Values{"state": {q.Get("state")}}
	if f.iss != "" {
		answer.Set("iss", f.iss)
	}
	if f.deny != "" {
		answer.Set("error", f.deny)
		answer.Set("error_description", "<script>alert(1)</script>")
	} else {
		f.codes[code] = q
		answer.Set("code", code)
	}
	f.mu.Unlock()
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+answer.Encode(), http.StatusFound)
}

// redeem is what was asked for with a request's code, if the client may have it.
func (f *flow) redeem(r *http.Request, basic bool) (asked url.Values, problem string) {
	id, secret, ok := r.BasicAuth()
	if ok != basic {
		return nil, "invalid_client"
	}
	if ok {
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if id != ClientID || secret != ClientSecret {
		return nil, "invalid_client"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	asked = f.codes[r.PostFormValue("code")]
	delete(f.codes, r.PostFormValue("code"))
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if asked == nil || asked.Get("redirect_uri") != r.PostFormValue("redirect_uri") || asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) {
		return nil, "invalid_grant"
	}
	return asked, ""
}

// OIDC is an OpenID Connect provider that listens on 127.0.0.1.
type OIDC struct {
	flow
	URL string
	// Key signs, and is published. Others may be published beside it.
	Key *identitytest.Key
	// Now is the provider's clock.
	Now func() time.Time

	person   map[string]any // claims of who signs in
	userinfo map[string]any
	sign     func(claims map[string]any) string
	document map[string]any // what is changed in the discovery document
	down     bool
	basic    bool
	lookUps  int
}

// NewOIDC starts a provider. It ends with the test.
func NewOIDC(t testing.TB) *OIDC {
	t.Helper()
	p := &OIDC{flow: flow{t: t, codes: map[string]url.Values{}}, Key: identitytest.NewRSA(t, "key-1", 2048), Now: time.Now, basic: true}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.lookUps++
		if p.down {
			http.Error(w, "<script>alert('down')</script>", http.StatusBadGateway)
			return
		}
		d := map[string]any{"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys", "userinfo_endpoint": p.URL + "/userinfo",
			"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"}}
		if p.iss != "" {
			d["authorization_response_iss_parameter_supported"] = true
		}
		maps.Copy(d, p.document)
		identitytest.Send(w, d)
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		identitytest.Send(w, identitytest.Set(p.Key))
	})
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		asked, problem := p.redeem(r, p.basic)
		if problem != "" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			identitytest.Send(w, map[string]any{"error": problem, "error_description": "<script>alert(2)</script>"})
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		now := p.Now()
		claims := map[string]any{"iss": p.URL, "aud": ClientID, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "nonce": asked.Get("nonce")}
		maps.Copy(claims, p.person)
		for name, v := range claims {
			if v == nil {
				delete(claims, name)
			}
		}
		sign := p.sign
		if sign == nil {
			sign = p.Signed
		}
		identitytest.Send(w, map[string]any{"access_token": "access-token", "token_type": "Bearer", "expires_in": 60, "id_token": sign(claims)})
	})
	mux.HandleFunc("GET /userinfo", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer access-token" || p.userinfo == nil {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		identitytest.Send(w, p.userinfo)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

// Signed is a token of the provider's key.
func (p *OIDC) Signed(claims map[string]any) string {
	return identitytest.Sign(p.Key, map[string]any{"alg": p.Key.Algorithm(), "kid": p.Key.ID, "typ": "JWT"}, claims)
}

// SignedAs is a good token of the provider's key, under another algorithm.
func (p *OIDC) SignedAs(algorithm jose.SignatureAlgorithm, claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		p.t.Error(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: p.Key.Private, KeyID: p.Key.ID}}, nil)
	if err != nil {
		p.t.Error(err)
		return ""
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		p.t.Error(err)
		return ""
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		p.t.Error(err)
	}
	return token
}

// SignedWithPublicKey is a token under HS256, whose secret is the provider's public key as the PEM that everybody can make of it.
func (p *OIDC) SignedWithPublicKey(claims map[string]any) string {
	der, err := x509.MarshalPKIXPublicKey(p.Key.Private.Public())
	if err != nil {
		p.t.Error(err)
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return identitytest.HMAC(secret, map[string]any{"alg": "HS256", "kid": p.Key.ID, "typ": "JWT"}, claims)
}

// Person is who signs in next: the id_token's claims, of which nil takes one away that is always there.
func (p *OIDC) Person(claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.person = claims
}

// UserInfo is what userinfo says; nil refuses.
func (p *OIDC) UserInfo(claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.userinfo = claims
}

// Sign has tokens signed in another way; nil is the good one.
func (p *OIDC) Sign(sign func(claims map[string]any) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sign = sign
}

// Document changes the discovery document.
func (p *OIDC) Document(change map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.document = change
	_, post := change["token_endpoint_auth_methods_supported"]
	p.basic = !post
}

// Down has the discovery document answered with an error, or again with itself.
func (p *OIDC) Down(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

// LookUps counts how often the discovery document was asked for.
func (p *OIDC) LookUps() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lookUps
}

// Settings are those of a server that people sign in to with the provider.
func (p *OIDC) Settings() []string {
	return []string{"PERSQLD_OIDC_ISSUER=" + p.URL, "PERSQLD_OIDC_CLIENT_ID=" + ClientID, "PERSQLD_OIDC_CLIENT_SECRET=" + ClientSecret, "PERSQLD_OIDC_LABEL=Example ID", "PERSQLD_ALLOW_NETWORKS=127.0.0.0/8"}
}
