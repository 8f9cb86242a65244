package api

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/persqld/persqld/internal/upstream"
)

// What a sign-in by a provider must remember while the browser is elsewhere is sealed in a cookie of that browser: nobody fills the server's memory by beginning
// sign-ins, and nobody else's browser can end one. What was used is remembered here.

const (
	// signInTime is how long a sign-in by a provider may take, and then its confirmation.
	signInTime = 10 * time.Minute

	// signInCookie is the cookie of a sign-in that is under way. On https its prefix keeps other hosts of the domain from putting one here (RFC 6265bis, section 4.1.3.2).
	signInCookie     = "persql_signin"
	signInCookieHost = "__Host-" + signInCookie

	// maxCarried is the longest path, in bytes, that a sign-in by a provider goes on to, and what that leaves may be a picture's address: browsers keep cookies
	// of 4096 bytes.
	maxCarried = 2_000

	// maxUsed bounds the memory of what was used, to some 10 MB.
	maxUsed = 100_000
)

// signInState is a sign-in that is under way: first the attempt, then who came back.
type signInState struct {
	ID       string        `json:"i"`
	Provider string        `json:"p"`
	Ends     int64         `json:"e"` // Unix milliseconds
	Next     string        `json:"n,omitempty"`
	Link     string        `json:"l,omitempty"` // id of the user who wants to link it
	State    string        `json:"s,omitempty"`
	Nonce    string        `json:"o,omitempty"`
	Verifier string        `json:"v,omitempty"`
	Person   *signInPerson `json:"w,omitempty"` // nil until the browser came back
}

// signInPerson is who came back, as far as it is needed. It is short enough for a cookie.
type signInPerson struct {
	Subject  string `json:"s"`
	Email    string `json:"e,omitempty"` // folded; "" for none
	Verified bool   `json:"v,omitempty"`
	Name     string `json:"n,omitempty"`
	Picture  string `json:"u,omitempty"`
}

// signIns seals what sign-ins remember, with a key that a restart forgets.
type signIns struct {
	aead cipher.AEAD
	now  func() time.Time

	mu   sync.Mutex
	used map[string]time.Time // ids, until they would be too old anyway

	swept time.Time
}

func newSignIns(now func() time.Time) *signIns {
	key := make([]byte, 32)
	rand.Read(key) // never fails: crypto/rand ends the process first
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // of no key of 32 bytes
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return &signIns{aead: aead, now: now, used: map[string]time.Time{}}
}

var cookieEncoding = base64.RawURLEncoding.Strict()

// seal is a state as a cookie's value.
func (s *signIns) seal(state *signInState) (string, error) {
	raw, err := json.Marshal(state)
	if err != nil {
		return "", err
	}
	return cookieEncoding.EncodeToString(s.aead.Seal(nil, nil, raw, []byte(signInCookie))), nil
}

// open is the state of a cookie's value, nil for one that this process didn't make, that is too old, or that was used.
func (s *signIns) open(value string) *signInState {
	sealed, err := cookieEncoding.DecodeString(value)
	if err != nil {
		return nil
	}
	raw, err := s.aead.Open(nil, nil, sealed, []byte(signInCookie))
	if err != nil {
		return nil
	}
	var state signInState
	if err := json.Unmarshal(raw, &state); err != nil || s.now().UnixMilli() >= state.Ends {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, used := s.used[state.ID]; used {
		return nil
	}
	return &state
}

// use uses a state up, and tells whether this was the first to do so.
func (s *signIns) use(state *signInState) bool {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, used := s.used[state.ID]; used {
		return false
	}
	if now.Sub(s.swept) > time.Minute {
		for id, ends := range s.used {
			if !now.Before(ends) {
				delete(s.used, id)
			}
		}
		s.swept = now
	}
	if len(s.used) >= maxUsed {
		for id := range s.used { // any: its code was redeemed, which the provider does once
			delete(s.used, id)
			break
		}
	}
	s.used[state.ID] = time.UnixMilli(state.Ends)
	return true
}

// begin is a new state.
func (s *signIns) begin(provider, next string) *signInState {
	return &signInState{ID: rand.Text(), Provider: provider, Next: next, Ends: s.now().Add(signInTime).UnixMilli()}
}

// attempt is the state's, which the provider sends back to an address.
func (state *signInState) attempt(back string) upstream.Attempt {
	return upstream.Attempt{State: state.State, Nonce: state.Nonce, Verifier: state.Verifier, Return: back}
}

// signInCookieName is the cookie's name for the request. On plain http a browser takes none with the prefix.
func (x *exchange) signInCookieName() string {
	if x.s.https(x.r) {
		return signInCookieHost
	}
	return signInCookie
}

// keepSignIn gives the browser a state; nil takes it away.
func (x *exchange) keepSignIn(state *signInState) error {
	c := &http.Cookie{Name: x.signInCookieName(), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.s.https(x.r), MaxAge: -1}
	if state != nil {
		var err error
		if c.Value, err = x.s.signIns.seal(state); err != nil {
			return err
		}
		c.MaxAge = int(signInTime / time.Second)
	}
	http.SetCookie(x.w, c)
	return nil
}

// signInUnderWay is the state of the request's browser, nil for none. Two cookies of the name are none: one of them was put there by somebody else.
func (x *exchange) signInUnderWay() *signInState {
	cookies := x.r.CookiesNamed(x.signInCookieName())
	if len(cookies) != 1 {
		return nil
	}
	return x.s.signIns.open(cookies[0].Value)
}
