package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/upstream"
)

// fakeProvider is one that is never asked for anything.
type fakeProvider struct{ person upstream.Person }

func (fakeProvider) Name() string   { return "oidc" }
func (fakeProvider) Label() string  { return "Example ID" }
func (fakeProvider) Issuer() string { return "https://id.example.com" }
func (fakeProvider) Begin(_ context.Context, a upstream.Attempt) (string, error) {
	return "https://id.example.com/?" + url.Values{"state": {a.State}, "redirect_uri": {a.Return}}.Encode(), nil
}
func (p fakeProvider) Finish(context.Context, upstream.Attempt, url.Values) (*upstream.Person, error) {
	return &p.person, nil
}

func stateIn(w *httptest.ResponseRecorder) *http.Cookie {
	for _, c := range w.Result().Cookies() {
		if strings.HasSuffix(c.Name, signInCookie) {
			return c
		}
	}
	return nil
}

// A sign-in is over after 10 minutes, before and after the browser came back.
func TestSignInTime(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		waits  [2]time.Duration
		status [2]int
	}{
		{[2]time.Duration{signInTime - time.Millisecond, signInTime - time.Millisecond}, [2]int{http.StatusSeeOther, http.StatusOK}},
		{[2]time.Duration{signInTime, 0}, [2]int{http.StatusBadRequest}},
		{[2]time.Duration{0, signInTime}, [2]int{http.StatusSeeOther, http.StatusBadRequest}},
	} {
		h := newPageHouse(t, func(o *Options) {
			o.Now = func() time.Time { return now }
			o.BaseURL, o.SignUp = "https://sql.example.com/", SignUpOpen
			o.Providers = []upstream.Provider{fakeProvider{upstream.Person{Issuer: "https://id.example.com", Subject: "1", Email: "bob@example.com", EmailVerified: true}}}
		})
		w := h.ask(http.MethodGet, "/login/oidc", "", nil)
		to, err := w.Result().Location()
		cookie := stateIn(w)
		if err != nil || to.Query().Get("redirect_uri") != "https://sql.example.com/login/oidc/callback" {
			t.Fatalf("it leads to %v, %v", to, err)
		}
		// On https no other host of the domain can have put it here.
		if cookie == nil || cookie.Name != "__Host-persql_signin" || !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" || cookie.MaxAge != 600 {
			t.Fatalf("the cookie is %v", cookie)
		}
		if strings.Contains(cookie.Value, to.Query().Get("state")) {
			t.Error("the cookie is not sealed")
		}
		now = now.Add(c.waits[0])
		w = h.ask(http.MethodGet, "/login/oidc/callback?code=x&state="+to.Query().Get("state"), "", nil, "Cookie", cookie.Name+"="+cookie.Value)
		if w.Code != c.status[0] {
			t.Errorf("%v: %d, want %d", c.waits, w.Code, c.status[0])
		}
		if c.status[1] == 0 {
			continue
		}
		if cookies := w.Header()["Set-Cookie"]; len(cookies) != 1 {
			t.Errorf("the callback leaves %q", cookies)
		}
		cookie = stateIn(w)
		now = now.Add(c.waits[1])
		if w := h.ask(http.MethodGet, confirmPath, "", nil, "Cookie", cookie.Name+"="+cookie.Value); w.Code != c.status[1] {
			t.Errorf("%v: the confirmation %d, want %d", c.waits, w.Code, c.status[1])
		}
		// Two cookies of the name are none.
		if w := h.ask(http.MethodGet, confirmPath, "", nil, "Cookie", cookie.Name+"="+cookie.Value+"; "+cookie.Name+"=x"); w.Code != http.StatusBadRequest {
			t.Errorf("two cookies: %d", w.Code)
		}
	}
}

// What comes back is kept in a cookie, whatever its length: browsers keep 4096 bytes.
func TestLongestSignIn(t *testing.T) {
	s := newSignIns(time.Now)
	email := strings.Repeat("e", 240) + "@example.com"
	picture := "https://pictures.example/" + strings.Repeat("p", 475)
	person := func(next int) *signInState {
		return &signInState{Next: "/" + strings.Repeat("n", next-1),
			Person: personOf(&upstream.Person{Subject: strings.Repeat("s", 255), Email: email, EmailVerified: true, Name: strings.Repeat("é", 500), Picture: picture}, maxCarried-next)}
	}
	for _, state := range []*signInState{
		{Next: person(maxCarried).Next, State: upstream.NewAttempt("").State, Nonce: upstream.NewAttempt("").Nonce, Verifier: upstream.NewAttempt("").Verifier},
		person(maxCarried), person(maxCarried - 499), person(maxCarried - 500), person(1),
	} {
		full := s.begin("github", state.Next)
		full.Link, full.State, full.Nonce, full.Verifier, full.Person = "usr_"+strings.Repeat("x", 26), state.State, state.Nonce, state.Verifier, state.Person
		value, err := s.seal(full)
		if err != nil || len(signInCookieHost)+1+len(value) > 4096 {
			t.Errorf("%d bytes, %v", len(value), err)
		}
		got := s.open(value)
		if got == nil || got.Next != full.Next || got.Verifier != full.Verifier {
			t.Errorf("got %+v", got)
		}
		// A picture gives way to where the browser goes on to.
		want := ""
		if len(full.Next) <= maxCarried-500 {
			want = picture
		}
		if full.Person != nil && got.Person.Picture != want {
			t.Errorf("beside %d bytes the picture is %q", len(full.Next), got.Person.Picture)
		}
	}
}

func TestSignInsAreUsedOnce(t *testing.T) {
	now := time.Now()
	s := newSignIns(func() time.Time { return now })
	state := s.begin("oidc", "")
	value, err := s.seal(state)
	if err != nil {
		t.Fatal(err)
	}
	if newSignIns(time.Now).open(value) != nil {
		t.Error("another process opens it")
	}
	var all sync.WaitGroup
	won := make(chan bool, 16)
	for range 16 {
		all.Go(func() { won <- s.use(state) })
	}
	all.Wait()
	close(won)
	n := 0
	for w := range won {
		if w {
			n++
		}
	}
	if n != 1 || s.open(value) != nil {
		t.Errorf("used %d times; it opens again: %v", n, s.open(value))
	}
	for i := range maxUsed + 100 {
		s.use(&signInState{ID: fmt.Sprint(i), Ends: now.Add(signInTime).UnixMilli()})
	}
	if len(s.used) > maxUsed {
		t.Errorf("%d are remembered", len(s.used))
	}
	now = now.Add(signInTime)
	s.use(s.begin("oidc", ""))
	if len(s.used) != 1 {
		t.Errorf("%d are remembered that are over", len(s.used))
	}
}

func TestNamesOfStrangers(t *testing.T) {
	for in, want := range map[string]string{" Ada ": "Ada", "A\x00d\na\u0085": "Ada", "": "", "\xff": "", "Zoë": "Zoë"} {
		if got := nameOf(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
