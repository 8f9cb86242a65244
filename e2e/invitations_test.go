package e2e_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

func accept(c *harness.Client, token string, request any) *harness.Answer {
	return c.Post("/api/invitations/"+token+"/accept", request)
}

func TestInvitations(t *testing.T) {
	row(t, "DP-INV-1", "DP-INV-2", "DP-INV-3", "DP-INV-5", "DP-ACC-5", "DP-ACC-3")
	s := people(t, "PERSQLD_MAX_INVITATIONS=4", "PERSQLD_BASE_URL=https://sql.example.com/")
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	nobody := s.Client(t, "")
	const at = "/api/namespaces/default/invitations"
	a := owner.Post(at, body{"role": "editor", "email": "Ada@example.com", "expiresIn": 3600}).OK()
	a.Is("data.role", "editor").Is("data.email", "ada@example.com").Is("data.invitedBy", owner.id)
	token := a.Str("data.token")
	if got := a.Str("data.url"); got != "https://sql.example.com/invite/"+token || len(token) < 30 {
		t.Errorf("url %s", got)
	}
	list := owner.Get(at).OK()
	list.Is("data.0.id", a.Str("data.id")).Is("data.0.token", "null").Is("data.0.url", "null")

	// For one person, who has no account yet.
	ada := body{"email": "ada@example.com", "password": thePassword, "name": "Ada <b>"}
	accept(nobody, token, body{"email": "eve@example.com", "password": thePassword}).Fails(http.StatusForbidden, "forbidden")
	accept(owner.Client, token, nil).Fails(http.StatusForbidden, "forbidden")
	accept(owner.Client, token, ada).Fails(http.StatusBadRequest, "bad_request").Tells("signed in")
	accept(nobody, token, body{"email": "ada@example.com", "password": "short77"}).Fails(http.StatusBadRequest, "invalid_password")
	accept(nobody, token, body{"email": "ada@example.com", "password": strings.Repeat("x", 1025)}).Fails(http.StatusBadRequest, "invalid_password")
	accept(nobody, token, body{"email": "ada@example.com", "password": "with\nnewline"}).Fails(http.StatusBadRequest, "invalid_password")
	accept(nobody, token, body{"email": "ada@example.com", "password": thePassword, "name": strings.Repeat("x", 201)}).Fails(http.StatusBadRequest, "bad_request")
	accept(nobody, token, body{"password": thePassword}).Fails(http.StatusBadRequest, "bad_request")
	accept(nobody, token, body{"email": "ada@example.com", "password": thePassword, "role": "owner"}).Fails(http.StatusBadRequest, "bad_json")
	accept(nobody, token, harness.Raw(strings.Repeat(" ", 64_001))).Fails(http.StatusRequestEntityTooLarge, "request_too_large")
	accept(nobody, token+"x", ada).Fails(http.StatusNotFound, "not_found")
	accept(nobody, a.Str("data.id"), ada).Fails(http.StatusNotFound, "not_found")
	in := accept(nobody, token, ada).OK()
	in.Is("data.user.email", "ada@example.com").Is("data.user.name", "Ada <b>").Is("data.namespaces.0.slug", "ada").Is("data.namespaces.1.slug", "default").Is("data.namespaces.1.role", "editor")
	adaIn := nobody.AsSession(cookieOf(t, in))
	adaIn.Post("/api/namespaces/default/databases/x/query", harness.Body("SELECT 1")).Fails(http.StatusNotFound, "not_found") // an editor makes none
	adaIn.Get("/api/namespaces/default/databases").OK()
	// Once.
	accept(nobody, token, ada).Fails(http.StatusNotFound, "not_found")
	accept(nobody, token, body{"email": "eve@example.com", "password": thePassword}).Fails(http.StatusNotFound, "not_found")
	accept(adaIn, token, nil).Fails(http.StatusNotFound, "not_found")
	if n := len(owner.Get(at).OK().List("data")); n != 1 { // the sign-up link of the first start
		t.Errorf("%d open invitations", n)
	}
	// No account is taken over, whoever has the invitation.
	token, _ = owner.invite("default", body{"role": "admin"})
	accept(nobody, token, body{"email": "Owner@example.com", "password": "the attacker's"}).Fails(http.StatusConflict, "account_exists")
	accept(nobody, token, body{"email": "ada@example.com", "password": thePassword}).Fails(http.StatusConflict, "account_exists")
	nobody.Post("/api/session", body{"email": "owner@example.com", "password": "the attacker's"}).Fails(http.StatusUnauthorized, "")
	// A member has nothing to accept, and the invitation stays for another.
	accept(adaIn, token, nil).Fails(http.StatusConflict, "already_member")
	bob := enrol(t, s, "bob@example.com", "", "")
	accept(bob.Client, token, body{}).OK()
	bob.Get(at).OK()
	// Revoked.
	token, id := owner.invite("default", body{"role": "viewer"})
	owner.Do(http.MethodDelete, at+"/"+id, nil).OK().Is("data.revoked", "true")
	owner.Do(http.MethodDelete, at+"/"+id, nil).Fails(http.StatusNotFound, "not_found")
	accept(nobody, token, body{"email": "eve@example.com", "password": thePassword}).Fails(http.StatusNotFound, "not_found")
	// Of another namespace.
	_, id = owner.invite("default", body{"role": "viewer"})
	owner.Do(http.MethodDelete, "/api/namespaces/owner/invitations/"+id, nil).Fails(http.StatusNotFound, "not_found")
	for _, bad := range []body{{}, {"role": "god"}, {"role": "viewer", "email": "nobody"}, {"role": "viewer", "expiresIn": 0}, {"role": "viewer", "expiresIn": 2592001}, {"role": "viewer", "expiresIn": 1.5}, {"role": "viewer", "mail": "a@b"}} {
		owner.Post(at, bad).Fails(http.StatusBadRequest, "")
	}
	owner.Post(at, harness.Raw(strings.Repeat(" ", 64_001))).Fails(http.StatusRequestEntityTooLarge, "request_too_large")
	for range 2 {
		owner.invite("default", body{"role": "viewer"})
	}
	owner.Post(at, body{"role": "viewer"}).Fails(http.StatusConflict, "too_many_invitations").Tells("PERSQLD_MAX_INVITATIONS")
	// Without an invitation nobody makes an account.
	nobody.Post("/api/signup", body{"email": "eve@example.com", "password": thePassword}).Fails(http.StatusForbidden, "signup_closed")
}

// TestRacingAccepts has many accept one invitation.
func TestRacingAccepts(t *testing.T) {
	row(t, "DP-INV-5")
	s := people(t)
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	for round := range 8 {
		token, _ := owner.invite("default", body{"role": "viewer"})
		var won atomic.Int32
		parallel(t, 6, func(i int) {
			request := body{"email": fmt.Sprintf("p%d-%d@example.com", round, i), "password": thePassword}
			if round%2 == 1 { // the same person: a double click
				request["email"] = fmt.Sprintf("p%d@example.com", round)
			}
			a, err := s.Client(t, "").Try(http.MethodPost, "/api/invitations/"+token+"/accept", request)
			switch {
			case err != nil:
				t.Error(err)
			case a.Status == http.StatusOK:
				won.Add(1)
			case a.Status != http.StatusNotFound && a.Status != http.StatusConflict && a.Status != http.StatusTooManyRequests:
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
		if won.Load() != 1 {
			t.Errorf("round %d: %d accepted", round, won.Load())
		}
	}
	if n := len(owner.Get("/api/namespaces/default/members").OK().List("data")); n != 9 {
		t.Errorf("%d members", n)
	}
	// Who lost has no account.
	if list := s.JSONOf(t, "user", "list")["users"].([]any); len(list) != 9 {
		t.Errorf("%d users", len(list))
	}
}

func TestInvitationPage(t *testing.T) {
	row(t, "DP-INV-4", "DP-INV-7", "DP-SES-8")
	s := people(t)
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	nobody := s.Client(t, "")
	send := func(c *harness.Client, token string, fields url.Values, headers ...harness.Header) *harness.Answer {
		t.Helper()
		return c.Post("/invite/"+token, harness.Raw(fields.Encode()), append([]harness.Header{formType}, headers...)...)
	}
	shows := func(a *harness.Answer, status int, words ...string) {
		t.Helper()
		text := html.UnescapeString(string(a.Raw))
		if a.Status != status {
			t.Errorf("%s: %d, want %d", a.What, a.Status, status)
		}
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("%s: the page lacks %q: %s", a.What, word, text)
			}
		}
	}
	token, _ := owner.invite("default", body{"role": "editor"})
	page := nobody.Get("/invite/" + token)
	shows(page, http.StatusOK, "editor", "default", "Make an account", "Sign in")
	text := string(page.Raw)
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(text)
	if style == nil {
		t.Fatal("no style sheet")
	}
	sum := sha256.Sum256([]byte(style[1]))
	policy := page.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %q lacks %s", policy, want)
		}
	}
	if page.Header.Get("Referrer-Policy") != "no-referrer" || page.Header.Get("Cache-Control") != "no-store" || page.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", page.Header)
	}
	// Every input has its label, and nothing comes from elsewhere.
	ids := regexp.MustCompile(`<input id="([^"]+)"`).FindAllStringSubmatch(text, -1)
	if len(ids) != 5 {
		t.Errorf("%d inputs", len(ids))
	}
	for _, id := range ids {
		if !strings.Contains(text, `<label for="`+id[1]+`">`) {
			t.Errorf("input %s has no label", id[1])
		}
	}
	for _, bad := range []string{"<script", "http://", "https://", " src=", " onclick", " style="} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	for _, want := range []string{`lang="en"`, `name="viewport"`, "prefers-color-scheme: dark", "<main>", "<h1>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	// Looking changes nothing; a page of another site changes nothing.
	shows(send(nobody, token, url.Values{"action": {"signup"}, "email": {"eve@example.com"}, "password": {thePassword}}, "Sec-Fetch-Site: cross-site"), http.StatusForbidden, "another site")
	shows(send(owner.Client, token, url.Values{"action": {"accept"}}, "Origin: https://evil.example"), http.StatusForbidden, "another site")
	// What is wrong is said, and what was typed is there, harmless.
	hostile := `"><script>alert(1)</script>`
	a := send(nobody, token, url.Values{"action": {"signup"}, "email": {hostile}, "name": {hostile}, "password": {thePassword}})
	shows(a, http.StatusBadRequest, "e-mail address", hostile)
	if strings.Contains(string(a.Raw), "<script") || strings.Contains(string(a.Raw), thePassword) {
		t.Error("the page has what was typed as it was, or the password")
	}
	shows(send(nobody, token, url.Values{"action": {"signup"}, "email": {"ada@example.com"}, "password": {"short77"}}), http.StatusBadRequest, "8 to 1024", "ada@example.com")
	shows(send(nobody, token, url.Values{"action": {"signup"}, "email": {owner.email}, "password": {thePassword}}), http.StatusConflict, "sign in")
	shows(send(nobody, token, url.Values{"action": {"signin"}, "email": {owner.email}, "password": {"wrong password"}}), http.StatusUnauthorized, "wrong")
	shows(send(nobody, token, url.Values{"action": {"accept"}}), http.StatusUnauthorized, "Not signed in")
	shows(send(nobody, token, url.Values{"action": {"steal"}}), http.StatusBadRequest)
	shows(nobody.Post("/invite/"+token, harness.Raw(`{"action":"signup"}`)), http.StatusBadRequest)
	shows(nobody.Post("/invite/"+token, harness.Raw("%zz"), formType), http.StatusBadRequest)
	shows(send(nobody, token, url.Values{"action": {strings.Repeat("x", 64_000)}}), http.StatusRequestEntityTooLarge)
	shows(send(nobody, "pinv_none", url.Values{"action": {"signup"}}), http.StatusNotFound, "unknown, used, revoked or expired")
	shows(nobody.Get("/invite/pinv_none"), http.StatusNotFound, "unknown, used, revoked or expired")
	// Making an account.
	a = send(nobody, token, url.Values{"action": {"signup"}, "email": {"ada@example.com"}, "name": {"Ada"}, "password": {thePassword}}, "Sec-Fetch-Site: same-origin")
	shows(a, http.StatusOK, "ada@example.com", "editor", "default")
	nobody.AsSession(cookieOf(t, a)).Get("/api/namespaces/default/databases").OK()
	shows(nobody.Get("/invite/"+token), http.StatusNotFound)
	// Signing in.
	bob := enrol(t, s, "bob@example.com", "", "")
	token, _ = owner.invite("default", body{"role": "viewer"})
	a = send(nobody, token, url.Values{"action": {"signin"}, "email": {bob.email}, "password": {thePassword}})
	shows(a, http.StatusOK, bob.email, "viewer")
	nobody.AsSession(cookieOf(t, a)).Get("/api/namespaces/default/databases").OK()
	// Being signed in.
	eve := enrol(t, s, "eve@example.com", "", "")
	token, _ = owner.invite("default", body{"role": "viewer", "email": eve.email})
	shows(eve.Get("/invite/"+token), http.StatusOK, "signed in as", eve.email)
	shows(send(owner.Client, token, url.Values{"action": {"accept"}}), http.StatusForbidden, "another e-mail")
	shows(send(eve.Client, token, url.Values{"action": {"accept"}}), http.StatusOK, "You joined default")
	eve.Get("/api/namespaces/default/databases").OK()
}

func TestSignUp(t *testing.T) {
	row(t, "DP-ACC-3", "DP-ACC-5")
	s := people(t, "PERSQLD_SIGNUP=open")
	c := s.Client(t, "")
	a := c.Post("/api/signup", body{"email": "Ada@Example.com", "password": thePassword}).OK().Is("data.user.email", "ada@example.com").Is("data.user.name", "ada").Is("data.namespaces.0.slug", "ada")
	ada := c.AsSession(cookieOf(t, a))
	ada.Post("/api/namespaces/ada/databases/main/query", harness.Body("SELECT 1")).OK()
	c.Post("/api/signup", body{"email": "ada@example.com", "password": "the attacker's"}).Fails(http.StatusConflict, "account_exists")
	c.Post("/api/session", body{"email": "ada@example.com", "password": "the attacker's"}).Fails(http.StatusUnauthorized, "")
	for _, bad := range []string{"", "ada", "@example.com", "ada@", "Ada <ada@example.com>", "a b@example.com", "ada@example.com,eve@example.com", strings.Repeat("x", 250) + "@example.com", "ada@exa\nmple.com"} {
		c.Post("/api/signup", body{"email": bad, "password": thePassword}).Fails(http.StatusBadRequest, "bad_request")
	}
	c.Post("/api/signup", body{"email": "bob@example.com", "password": "1234567"}).Fails(http.StatusBadRequest, "invalid_password")
	c.Post("/api/signup", harness.Raw(strings.Repeat(" ", 64_001))).Fails(http.StatusRequestEntityTooLarge, "request_too_large")
	signIn(t, s, "ada@example.com")
	// Names of namespaces.
	for email, slug := range map[string]string{"bob.builder+x@example.com": "bob-builder-x", "ADA@other.example": "ada-2", "v1@example.com": "user-v1", "_@example.com": "user"} {
		c.Post("/api/signup", body{"email": email, "password": thePassword}).OK().Is("data.namespaces.0.slug", slug)
	}
	s = people(t, "PERSQLD_SIGNUP=closed")
	if strings.Contains(s.Out(), "/invite/") {
		t.Error("a closed server prints a sign-up link")
	}
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	token, _ := owner.invite("default", body{"role": "viewer"})
	c = s.Client(t, "")
	accept(c, token, body{"email": "ada@example.com", "password": thePassword}).Fails(http.StatusForbidden, "signup_closed")
	if page := c.Get("/invite/" + token); strings.Contains(string(page.Raw), "Make an account") {
		t.Error("the page offers an account")
	}
	bob := enrol(t, s, "bob@example.com", "", "")
	accept(bob.Client, token, nil).OK()
}
