// Package identitytest is an issuer of OIDC tokens for tests: a real server with real keys, which can be told to lie.
package identitytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Key is a key of an issuer.
type Key struct {
	ID      string
	Private crypto.Signer // of RSA or P-256
}

// NewRSA and NewEC make keys.
func NewRSA(t testing.TB, id string, bits int) *Key {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return &Key{id, k}
}

// NewEC makes a P-256 key.
func NewEC(t testing.TB, id string) *Key {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &Key{id, k}
}

// JWK is the key's public half.
func (k *Key) JWK() map[string]any {
	switch p := k.Private.Public().(type) {
	case *rsa.PublicKey:
		return map[string]any{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": k.ID, "n": b64(p.N.Bytes()), "e": b64(big.NewInt(int64(p.E)).Bytes())}
	case *ecdsa.PublicKey:
		raw, err := p.Bytes() // 4, x, y
		if err != nil {
			panic(err)
		}
		return map[string]any{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": k.ID, "x": b64(raw[1:33]), "y": b64(raw[33:])}
	}
	panic("no such key")
}

// Algorithm is what the key signs with.
func (k *Key) Algorithm() string {
	if _, ok := k.Private.(*rsa.PrivateKey); ok {
		return "RS256"
	}
	return "ES256"
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Issuer is an issuer that listens on 127.0.0.1.
type Issuer struct {
	URL string
	// Now is the issuer's clock.
	Now func() time.Time

	mu        sync.Mutex
	keys      []*Key
	discovery func(w http.ResponseWriter, r *http.Request) // nil tells the truth
	jwks      func(w http.ResponseWriter, r *http.Request)
	fetches   atomic.Int64
	tokens    atomic.Int64
}

// New starts an issuer with an RSA key. It ends with the test.
func New(t testing.TB) *Issuer {
	t.Helper()
	is := &Issuer{Now: time.Now, keys: []*Key{NewRSA(t, "key-1", 2048)}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		is.mu.Lock()
		lie := is.discovery
		is.mu.Unlock()
		if lie != nil {
			lie(w, r)
			return
		}
		Send(w, map[string]any{"issuer": is.URL, "jwks_uri": is.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"}, "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, r *http.Request) {
		is.fetches.Add(1)
		is.mu.Lock()
		lie, keys := is.jwks, is.keys
		is.mu.Unlock()
		if lie != nil {
			lie(w, r)
			return
		}
		Send(w, Set(keys...))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	is.URL = server.URL
	return is
}

// Set is the JWK Set of keys.
func Set(keys ...*Key) map[string]any {
	list := []any{}
	for _, k := range keys {
		list = append(list, k.JWK())
	}
	return map[string]any{"keys": list}
}

// Send answers with JSON.
func Send(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// Lie has the issuer answer otherwise than it should; nil is as it should.
func (is *Issuer) Lie(discovery, jwks func(w http.ResponseWriter, r *http.Request)) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.discovery, is.jwks = discovery, jwks
}

// SetKeys gives the issuer other keys; the first signs.
func (is *Issuer) SetKeys(keys ...*Key) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.keys = keys
}

// Key is the one that signs.
func (is *Issuer) Key() *Key {
	is.mu.Lock()
	defer is.mu.Unlock()
	return is.keys[0]
}

// Fetches counts how often the keys were asked for.
func (is *Issuer) Fetches() int { return int(is.fetches.Load()) }

// Claims are those of a job of a repository, as GitHub's, with some changed; nil takes one away.
func (is *Issuer) Claims(repository, id string, change map[string]any) map[string]any {
	owner := repository
	for i := range repository {
		if repository[i] == '/' {
			owner = repository[:i]
			break
		}
	}
	now := is.Now()
	c := map[string]any{"iss": is.URL, "aud": "persql", "sub": "repo:" + repository + ":ref:refs/heads/main", "iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		"jti": fmt.Sprint("jti-", is.tokens.Add(1)), "repository": repository, "repository_id": id, "repository_owner": owner, "repository_owner_id": "owner-of-" + owner}
	maps.Copy(c, change)
	for name, v := range c {
		if v == nil {
			delete(c, name)
		}
	}
	return c
}

// Token is a token of a repository's job.
func (is *Issuer) Token(repository, id string, change map[string]any) string {
	k := is.Key()
	return Sign(k, map[string]any{"alg": k.Algorithm(), "kid": k.ID, "typ": "JWT"}, is.Claims(repository, id, change))
}

// Sign signs claims under a header, which may say anything: the signature is by its alg, if the key can make such.
func Sign(k *Key, header map[string]any, claims any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return SignRaw(k, header, payload)
}

// SignRaw is Sign for a payload that is signed as it is.
func SignRaw(k *Key, header map[string]any, payload []byte) string {
	head, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	input := b64(head) + "." + b64(payload)
	sum := sha256.Sum256([]byte(input))
	var signature []byte
	switch p := k.Private.(type) {
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(rand.Reader, p, crypto.SHA256, sum[:])
	case *ecdsa.PrivateKey:
		var r, s *big.Int
		r, s, err = ecdsa.Sign(rand.Reader, p, sum[:])
		if err == nil {
			signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}
	}
	if err != nil {
		panic(err)
	}
	return input + "." + b64(signature)
}

// HMAC signs claims with HS256 and a secret, such as a public key's text.
func HMAC(secret []byte, header map[string]any, claims any) string {
	head, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	input := b64(head) + "." + b64(payload)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + b64(mac.Sum(nil))
}

// Unsigned is claims under alg none.
func Unsigned(claims any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return b64([]byte(`{"alg":"none"}`)) + "." + b64(payload) + "."
}
