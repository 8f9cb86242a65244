package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxDocument = 512 << 10 // bytes of a discovery document or a key set
	maxKeys     = 100       // of a key set

	minRSA = 2048 // bits; RFC 7518, section 3.3
	maxRSA = 8192

	// retryKeys is the least time between two look-ups of an issuer's keys, keepKeys when known ones are looked up anew, staleKeys how long they count while that fails.
	retryKeys = 10 * time.Second
	keepKeys  = 15 * time.Minute
	staleKeys = 6 * time.Hour

	// fetchTime bounds a look-up, which goes on when who wanted it leaves: others wait for it too.
	fetchTime = 15 * time.Second
)

// Getter reads a document of at most limit bytes, from where it may.
type Getter interface {
	Get(ctx context.Context, address string, limit int64) ([]byte, error)
}

// key is a public key, for one algorithm.
type key struct {
	id        string
	algorithm jose.SignatureAlgorithm
	public    any
}

// keySet is the keys of an issuer.
type keySet struct {
	issuer *Issuer
	get    Getter
	now    func() time.Time
	log    *slog.Logger

	mu      sync.Mutex
	keys    []key
	fetched time.Time // when keys were had last
	tried   time.Time // when a look-up began last
	flight  *flight   // the look-up under way
}

type flight struct {
	done chan struct{}
	err  error
}

var errNoKeys = errors.New("the keys of its issuer can't be had now")

// find are the keys of an id that are for an algorithm. An unknown id has the keys looked up, at most every retryKeys; whoever comes meanwhile waits for the same look-up.
func (s *keySet) find(ctx context.Context, id string, algorithm jose.SignatureAlgorithm) ([]key, error) {
	s.mu.Lock()
	now := s.now()
	found := s.match(id, algorithm)
	if len(found) > 0 && within(now, s.fetched, keepKeys) {
		s.mu.Unlock()
		return found, nil
	}
	f := s.flight
	if f == nil && !within(now, s.tried, retryKeys) {
		f = &flight{done: make(chan struct{})}
		s.flight, s.tried = f, now
		go s.look(f)
	}
	s.mu.Unlock()
	if f != nil {
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found = s.match(id, algorithm); len(found) > 0 && within(s.now(), s.fetched, staleKeys) {
		return found, nil
	}
	if f != nil && f.err != nil || s.fetched.IsZero() {
		return nil, errNoKeys
	}
	return nil, errors.New("it is signed with a key that its issuer does not have")
}

// within tells whether less than d has passed since a moment. A clock that was set back says no.
func within(now, since time.Time, d time.Duration) bool {
	passed := now.Sub(since)
	return passed >= 0 && passed < d
}

// match are the known keys of an id. A token without one fits only where there is no choice.
func (s *keySet) match(id string, algorithm jose.SignatureAlgorithm) (found []key) {
	for _, k := range s.keys {
		if k.algorithm == algorithm && (k.id == id || id == "") {
			found = append(found, k)
		}
	}
	if id == "" && len(found) > 1 {
		return nil
	}
	return found
}

// look looks the keys up.
func (s *keySet) look(f *flight) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
	defer cancel()
	keys, err := s.fetch(ctx)
	if err != nil {
		s.log.Warn("the keys of a trusted issuer can't be had; tokens that they signed are refused unless the keys are known", "issuer", s.issuer.URL, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.keys, s.fetched = keys, s.now()
	}
	f.err, s.flight = err, nil
	close(f.done)
}

func (s *keySet) fetch(ctx context.Context) ([]key, error) {
	if s.issuer.JWKSFile != "" {
		return readKeys(s.issuer.JWKSFile)
	}
	raw, err := s.get.Get(ctx, strings.TrimSuffix(s.issuer.URL, "/")+"/.well-known/openid-configuration", maxDocument)
	if err != nil {
		return nil, fmt.Errorf("read its discovery document: %w", err)
	}
	var d struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("read its discovery document: %w", err)
	}
	if d.Issuer != s.issuer.URL { // OpenID Connect Discovery 1.0, section 4.3
		return nil, errors.New("its discovery document is another issuer's")
	}
	u, err := url.Parse(d.JWKSURI)
	if err != nil || u.Scheme != "https" && (u.Scheme != "http" || !thisMachine(u.Hostname())) {
		return nil, errors.New("its keys are at no https address")
	}
	if raw, err = s.get.Get(ctx, d.JWKSURI, maxDocument); err != nil {
		return nil, fmt.Errorf("read its keys: %w", err)
	}
	return parseKeys(raw)
}

func readKeys(file string) ([]key, error) {
	raw, err := readFile(file, maxDocument)
	if err != nil {
		return nil, err
	}
	return parseKeys(raw)
}

// parseKeys are the keys of a JWK Set (RFC 7517) that verify what we take: RS256 and ES256. Others are passed over, secret ones above all.
func parseKeys(raw []byte) (keys []key, err error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, fmt.Errorf("no JWK Set: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("a JWK Set of more than %d keys", maxKeys)
	}
	for _, one := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(one) != nil || !k.IsPublic() || !k.Valid() || k.Use != "" && k.Use != "sig" {
			continue
		}
		if algorithm := algorithmOf(k.Key); algorithm != "" && (k.Algorithm == "" || k.Algorithm == string(algorithm)) {
			keys = append(keys, key{k.KeyID, algorithm, k.Key})
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("a JWK Set without a key for RS256 or ES256")
	}
	return keys, nil
}

// algorithmOf is the one algorithm that a public key is taken for, "" for none.
func algorithmOf(public any) jose.SignatureAlgorithm {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= minRSA && n <= maxRSA {
			return jose.RS256
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return jose.ES256
		}
	}
	return ""
}
