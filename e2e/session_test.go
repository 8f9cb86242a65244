package e2e_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/sqlite"
)

func TestSessions(t *testing.T) {
	row(t, "DP-SES-1", "DP-SES-2", "DP-SES-3", "DP-SES-4", "DP-SES-5", "DP-SES-9")
	s := people(t, "PERSQLD_MAX_SESSIONS=3")
	s.JSONOf(t, "user", "create", "--email", "Ada@Example.com", "--password", thePassword, "--name", "Ada")
	c := s.Client(t, "")
	a := c.Post("/api/session", body{"email": " ADA@example.com ", "password": thePassword}).OK()
	a.Is("data.user.email", "ada@example.com").Is("data.user.name", "Ada").Is("data.namespaces.0.slug", "ada").Is("data.namespaces.0.role", "owner").Is("data.session.others", "0")
	header := a.Header.Get("Set-Cookie")
	for _, want := range []string{"persql_session=", "; Path=/;", "; HttpOnly", "; SameSite=Lax", "; Max-Age=2592000"} {
		if !strings.Contains(header, want) {
			t.Errorf("cookie %q lacks %q", header, want)
		}
	}
	if strings.Contains(header, "Secure") || strings.Contains(header, "Domain") {
		t.Errorf("cookie of http: %q", header)
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Error("the answer may be cached")
	}
	first := cookieOf(t, a)
	if len(first) < 27 { // 160 bits in base 62
		t.Errorf("cookie of %d characters", len(first))
	}
	ada := c.AsSession(first)
	ada.Get("/api/session").OK().Is("data.user.email", "ada@example.com")

	// A new sign-in has a new cookie, and ends the session that the request came with.
	second := cookieOf(t, ada.Post("/api/session", body{"email": "ada@example.com", "password": thePassword}).OK())
	if second == first {
		t.Error("the same cookie again")
	}
	signedOut(t, ada.Get("/api/session"))
	// A cookie of somebody else's making is not taken on.
	planted := strings.Repeat("A", len(first))
	if got := cookieOf(t, c.AsSession(planted).Post("/api/session", body{"email": "ada@example.com", "password": thePassword}).OK()); got == planted {
		t.Error("the planted cookie is the session's")
	}
	signedOut(t, c.AsSession(planted).Get("/api/session"))
	// What is no good cookie is none.
	for _, odd := range []string{"", second + "x", second[1:], strings.ToLower(second), strings.Repeat("x", 8000), `"` + second[:5], second + "; persql_session=" + second, "x; persql_session=" + second, "ü", "%00"} {
		signedOut(t, c.Get("/api/session", harness.Header("Cookie: persql_session="+odd)))
	}
	c.Get("/api/session", harness.Header("Cookie: other=1; persql_session="+second)).OK()
	c.Get("/api/session", harness.Header("Cookie: persql_Session="+second)).Fails(http.StatusUnauthorized, "")
	// Signing out.
	ada = c.AsSession(second)
	gone := ada.Do(http.MethodDelete, "/api/session", nil).OK()
	if h := gone.Header.Get("Set-Cookie"); !strings.HasPrefix(h, "persql_session=;") || !strings.Contains(h, "Max-Age=0") {
		t.Errorf("signing out sets %q", h)
	}
	signedOut(t, ada.Get("/api/session"))
	signedOut(t, ada.Do(http.MethodDelete, "/api/session", nil))
	// At most three, the oldest goes; everywhere ends all, of this user.
	bob := enrol(t, s, "bob@example.com", "", "")
	var list []*person
	for range 5 {
		list = append(list, signIn(t, s, "ada@example.com"))
	}
	for i, p := range list {
		if a := p.Get("/api/session"); (a.Status == http.StatusOK) != (i >= 2) {
			t.Errorf("session %d: %d", i, a.Status)
		}
	}
	list[4].Get("/api/session").OK().Is("data.session.others", "2")
	list[4].Do(http.MethodDelete, "/api/sessions", nil).OK().Is("data.ended", "3")
	for _, p := range list {
		signedOut(t, p.Get("/api/session"))
	}
	bob.Get("/api/session").OK()
	// A restart ends none, nor does kill -9; a reset password all, and a disabled user has none.
	ada = signIn(t, s, "ada@example.com").Client
	cookie := ada.Cookie()
	for _, end := range []func(){func() { s.Stop(t) }, func() { s.Kill() }} {
		end()
		s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: quick})
		s.Client(t, "").AsSession(cookie).Get("/api/session").OK()
	}
	ada = s.Client(t, "").AsSession(cookie)
	if got := s.JSONOf(t, "user", "reset-password", "--email", "ada@example.com", "--password", "another password")["sessionsEnded"]; got != float64(1) {
		t.Errorf("%v sessions ended", got)
	}
	signedOut(t, ada.Get("/api/session"))
	ada.Post("/api/session", body{"email": "ada@example.com", "password": thePassword}).Fails(http.StatusUnauthorized, "unauthorized")
	ada = ada.AsSession(cookieOf(t, ada.Post("/api/session", body{"email": "ada@example.com", "password": "another password"}).OK()))
	s.JSONOf(t, "user", "disable", "--email", "ada@example.com")
	signedOut(t, ada.Get("/api/session"))
	ada.Post("/api/session", body{"email": "ada@example.com", "password": "another password"}).Fails(http.StatusUnauthorized, "unauthorized")
	s.JSONOf(t, "user", "enable", "--email", "ada@example.com")
	signedOut(t, ada.Get("/api/session"))
	ada.Post("/api/session", body{"email": "ada@example.com", "password": "another password"}).OK()
}

func TestSecureCookie(t *testing.T) {
	row(t, "DP-SES-4")
	request := body{"email": "ada@example.com", "password": thePassword}
	secure := func(s *harness.Server, headers ...harness.Header) bool {
		return strings.Contains(s.Client(t, "").Post("/api/session", request, headers...).OK().Header.Get("Set-Cookie"), "; Secure")
	}
	s := people(t, "PERSQLD_BASE_URL=https://sql.example.com")
	enrol(t, s, "ada@example.com", "", "")
	if !secure(s) {
		t.Error("not Secure with a base URL of https")
	}
	s = people(t, "PERSQLD_TRUST_PROXY=127.0.0.0/8")
	enrol(t, s, "ada@example.com", "", "")
	if secure(s) || !secure(s, "X-Forwarded-Proto: https") {
		t.Error("Secure without https, or not with a proxy's")
	}
	s = people(t)
	enrol(t, s, "ada@example.com", "", "")
	if secure(s, "X-Forwarded-Proto: https") {
		t.Error("anybody says https")
	}
}

func TestWrongSignIns(t *testing.T) {
	row(t, "DP-SES-6", "DP-SES-10")
	s := people(t)
	enrol(t, s, "ada@example.com", "", "")
	c := s.Client(t, "")
	wrong := c.Post("/api/session", body{"email": "ada@example.com", "password": "wrong password"})
	signedOut(t, wrong)
	for _, other := range []body{
		{"email": "nobody@example.com", "password": thePassword}, {"email": "no address", "password": thePassword}, {"email": "", "password": ""}, {},
		{"email": "ada@example.com", "password": thePassword + " "}, {"email": "ada@example.com", "password": strings.Repeat("x", 2000)},
		{"email": "ada@example.com' OR 1=1 --", "password": thePassword},
	} {
		a := c.Post("/api/session", other)
		if withoutID(a) != withoutID(wrong) || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%v: %s, a wrong password gives %s", other, a.Raw, wrong.Raw)
		}
	}
	for _, bad := range []harness.Raw{`{"email":"ada@example.com","password":"` + thePassword + `","remember":true}`, `null`, `[]`, `{"email":"a","email":"b"}`, `{"email":5}`, `{`, "{\"email\":\"\xff\"}"} {
		c.Post("/api/session", bad).Fails(http.StatusBadRequest, "")
	}
	large := `{"email":"` + strings.Repeat("x", 64_000) + `"}`
	c.Post("/api/session", harness.Raw(large)).Fails(http.StatusRequestEntityTooLarge, "request_too_large").Tells("64000")
	c.Post("/api/session", harness.Stream{Reader: strings.NewReader(large)}).Fails(http.StatusRequestEntityTooLarge, "request_too_large")
}

// TestCrossSite sends every call that a cookie opens, or that leads to one, as a page of another site would.
func TestCrossSite(t *testing.T) {
	row(t, "DP-SES-8")
	s := people(t, "PERSQLD_BASE_URL=https://sql.example.com")
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	sent := 0
	for _, op := range harness.Operations() {
		// An app may post its request from its own site (OpenID Connect Core 1.0, section 3.1.2.1): the browser is sent to the same with GET, and nothing is done.
		if !forPeople(op) || op.Method == http.MethodGet || op.ID == "authorizeByPost" {
			continue
		}
		sent++
		path := strings.NewReplacer("{namespace}", "default", "{database}", "x", "{id}", "x", "{userId}", owner.id, "{token}", "x").Replace(op.Path)
		for _, headers := range [][]harness.Header{
			{"Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: same-site"}, {"Origin: https://evil.example"}, {"Origin: null"},
			{"Sec-Fetch-Site: cross-site", "Origin: http://" + harness.Header(s.Addr)}, {"Origin: http://sql.example.com"}, {"Sec-Fetch-Site: nonsense"},
		} {
			a := owner.Do(op.Method, path, nil, headers...)
			if a.Status != http.StatusForbidden || a.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s with %v: %d", op.ID, headers, a.Status)
			}
		}
	}
	if sent < 25 {
		t.Errorf("%d calls", sent)
	}
	owner.Get("/api/session").OK() // none of it did anything
	// The server's own pages, and programs.
	for i, headers := range [][]harness.Header{{"Sec-Fetch-Site: same-origin", "Origin: https://other.example"}, {"Sec-Fetch-Site: none"}, {"Origin: http://" + harness.Header(s.Addr)},
		{"Origin: https://sql.example.com"}, {"Sec-Fetch-Site: cross-site", "Origin: https://sql.example.com"}, {}} {
		owner.Post("/api/namespaces", body{"slug": fmt.Sprint("own-", i)}, headers...).OK()
	}
	// To read is let through, but no other origin is told.
	a := owner.Get("/api/namespaces", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site").OK()
	if a.Header.Get("Access-Control-Allow-Origin") != "" || a.Header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("another origin may read: %v", a.Header)
	}
	a = owner.Do(http.MethodOptions, "/api/namespaces", nil, "Origin: https://evil.example", "Access-Control-Request-Method: POST")
	if a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight lets another origin in: %v", a.Header)
	}
}

func TestSignInLimits(t *testing.T) {
	row(t, "DP-SES-7")
	from := func(address string) harness.Header { return harness.Header("X-Forwarded-For: " + address) }
	wrong := body{"email": "ada@example.com", "password": "wrong password"}
	right := body{"email": "ada@example.com", "password": thePassword}
	limited := func(a *harness.Answer) {
		t.Helper()
		a.Fails(http.StatusTooManyRequests, "too_many_attempts")
		if after := a.Header.Get("Retry-After"); after == "" || after == "0" {
			t.Errorf("Retry-After %q", after)
		}
	}
	t.Run("address", func(t *testing.T) {
		s := people(t, "PERSQLD_SIGN_IN_PER_ADDRESS=2", "PERSQLD_TRUST_PROXY=127.0.0.0/8")
		s.JSONOf(t, "user", "create", "--email", "ada@example.com", "--password", thePassword)
		c := s.Client(t, "")
		c.Post("/api/session", wrong, from("192.0.2.1")).Fails(http.StatusUnauthorized, "")
		c.Post("/api/session", right, from("192.0.2.1")).OK() // which resets nothing
		limited(c.Post("/api/session", right, from("192.0.2.1")))
		limited(c.Post("/api/session", right, from("192.0.2.1:4711"))) // as some proxies write it
		limited(c.Post("/api/session", body{"email": "other@example.com", "password": "x"}, from("192.0.2.1")))
		c.Post("/api/session", right, from("192.0.2.2")).OK()
		// Of IPv6 a /64 is one.
		for i := range 2 {
			c.Post("/api/session", wrong, from(fmt.Sprintf("2001:db8::%d", i))).Fails(http.StatusUnauthorized, "")
		}
		limited(c.Post("/api/session", wrong, from("2001:db8::ffff")))
		c.Post("/api/session", wrong, from("2001:db8:0:1::1")).Fails(http.StatusUnauthorized, "")
		// Links of invitations are tried no faster.
		for range 2 {
			c.Post("/api/invitations/pinv_x/accept", nil, from("192.0.2.3")).Fails(http.StatusNotFound, "not_found")
		}
		limited(c.Post("/api/invitations/pinv_x/accept", nil, from("192.0.2.3")))
		if a := c.Get("/invite/pinv_x", from("192.0.2.3")); a.Status != http.StatusTooManyRequests {
			t.Errorf("the page: %d", a.Status)
		}
		if a := c.Post("/invite/pinv_x", harness.Raw("action=accept"), from("192.0.2.3"), formType); a.Status != http.StatusTooManyRequests {
			t.Errorf("the form: %d", a.Status)
		}
	})
	t.Run("account", func(t *testing.T) {
		s := people(t, "PERSQLD_SIGN_IN_PER_ACCOUNT=2", "PERSQLD_TRUST_PROXY=127.0.0.0/8")
		s.JSONOf(t, "user", "create", "--email", "ada@example.com", "--password", thePassword)
		c := s.Client(t, "")
		c.Post("/api/session", right, from("192.0.2.1")).OK()
		c.Post("/api/session", wrong, from("192.0.2.2")).Fails(http.StatusUnauthorized, "")
		limited(c.Post("/api/session", wrong, from("192.0.2.3")))
		limited(c.Post("/api/session", right, from("192.0.2.4")))
		// The true owner is not locked out: not from where the account is signed in.
		for range 5 {
			c.Post("/api/session", right, from("192.0.2.1")).OK()
		}
		limited(c.Post("/api/session", wrong, from("192.0.2.5")))
		// An account that isn't there is limited alike.
		for i := range 2 {
			c.Post("/api/session", body{"email": "nobody@example.com", "password": "x"}, from(fmt.Sprintf("192.0.2.%d", 10+i))).Fails(http.StatusUnauthorized, "")
		}
		limited(c.Post("/api/session", body{"email": "Nobody@example.com", "password": "x"}, from("192.0.2.12")))
	})
	t.Run("requests", func(t *testing.T) {
		s := people(t, "PERSQLD_RATE_PER_ADDRESS=1")
		c := s.Client(t, "")
		for _, op := range harness.Operations() {
			if !forPeople(op) || strings.HasPrefix(op.Path, "/invite/") {
				continue
			}
			path := strings.NewReplacer("{namespace}", "default", "{database}", "x", "{id}", "x", "{userId}", "x", "{token}", "x").Replace(op.Path)
			for range 100 {
				if c.Do(op.Method, path, nil).Status == http.StatusTooManyRequests {
					break
				}
			}
			// Two within a second are too many, however slow the machine is: one of a hundred is.
		}
	})
}

const formType = harness.Header("Content-Type: application/x-www-form-urlencoded")

// TestRehash changes the parameters of passwords' hashes: old ones work, and become new ones.
func TestRehash(t *testing.T) {
	row(t, "DP-SES-11")
	s := people(t)
	enrol(t, s, "ada@example.com", "", "")
	stored := func() (hash string) {
		s.Stop(t)
		db, err := sqlite.OpenDriver(filepath.Join(s.Data, "catalog.db"), sqlite.DriverOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.QueryRow("SELECT password FROM users").Scan(&hash); err != nil {
			t.Fatal(err)
		}
		return hash
	}
	if hash := stored(); !strings.HasPrefix(hash, "$argon2id$v=19$m=8192,t=1,p=1$") {
		t.Errorf("hash %s", hash)
	}
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: append(append([]string{}, quick...), "PERSQLD_PASSWORD_PASSES=2")})
	s.Client(t, "").Post("/api/session", body{"email": "ada@example.com", "password": "wrong password"}).Fails(http.StatusUnauthorized, "")
	signIn(t, s, "ada@example.com")
	if hash := stored(); !strings.HasPrefix(hash, "$argon2id$v=19$m=8192,t=2,p=1$") {
		t.Errorf("hash %s", hash)
	}
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: quick})
	signIn(t, s, "ada@example.com")
}
