package e2e_test

import (
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// sendForm sends what a page's form would.
func sendForm(c *harness.Client, path string, fields url.Values, headers ...harness.Header) *harness.Answer {
	return c.Post(path, harness.Raw(fields.Encode()), append([]harness.Header{formType}, headers...)...)
}

// showsPage checks that an answer is a page with these words.
func showsPage(t testing.TB, a *harness.Answer, status int, words ...string) {
	t.Helper()
	text := html.UnescapeString(string(a.Raw))
	if a.Status != status || a.Header.Get("Content-Type") != "text/html; charset=utf-8" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %v, want %d", a.What, a.Status, a.Header, status)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s: the page lacks %q: %s", a.What, word, text)
		}
	}
}

// leadsTo checks that an answer leads to another page.
func leadsTo(t testing.TB, a *harness.Answer, path string) {
	t.Helper()
	if a.Status != http.StatusSeeOther || a.Header.Get("Location") != path {
		t.Errorf("%s: %d to %q, want %q", a.What, a.Status, a.Header.Get("Location"), path)
	}
}

func TestSignInByForms(t *testing.T) {
	row(t, "DP-PAGE-1", "DP-PAGE-2", "DP-PAGE-4")
	s := people(t)
	enrol(t, s, "ada@example.com", "default", "owner")
	c := s.Client(t, "")
	showsPage(t, c.Get("/login"), http.StatusOK, "Sign in")
	showsPage(t, c.Get("/login?next=/invite/x"), http.StatusOK, "You come back")
	form := url.Values{"email": {"Ada@example.com"}, "password": {thePassword}}
	for _, elsewhere := range []string{"//evil.example", "https://evil.example/", `/\evil.example`, "/\t/evil.example", "javascript:alert(1)"} {
		leadsTo(t, sendForm(c, "/login?next="+url.QueryEscape(elsewhere), form), "/login")
	}
	showsPage(t, sendForm(c, "/login", url.Values{"email": {"ada@example.com"}, "password": {"wrong password"}}), http.StatusUnauthorized, "The e-mail address or the password is wrong")
	showsPage(t, c.Post("/login", harness.Raw("{}")), http.StatusBadRequest, "not the form of this page")
	showsPage(t, sendForm(c, "/login", url.Values{"email": {strings.Repeat("x", 64_000)}}), http.StatusRequestEntityTooLarge)
	showsPage(t, sendForm(c, "/login", form, "Sec-Fetch-Site: cross-site"), http.StatusForbidden, "another site")
	a := sendForm(c, "/login?next=/invite/x%3Fa", form, "Sec-Fetch-Site: same-origin")
	leadsTo(t, a, "/invite/x?a")
	ada := c.AsSession(cookieOf(t, a))
	ada.Get("/api/session").OK().Is("data.user.email", "ada@example.com")
	showsPage(t, ada.Get("/login"), http.StatusOK, "You are signed in", "ada@example.com", "default", "owner")
	leadsTo(t, ada.Get("/login?next=/invite/x"), "/invite/x")

	showsPage(t, ada.Post("/logout", harness.Raw("{}")), http.StatusBadRequest)
	showsPage(t, sendForm(ada, "/logout", url.Values{"x": {strings.Repeat("x", 64_000)}}), http.StatusRequestEntityTooLarge)
	showsPage(t, sendForm(ada, "/logout", nil, "Origin: https://evil.example"), http.StatusForbidden, "another site")
	ada.Get("/api/session").OK()
	showsPage(t, sendForm(ada, "/logout", nil), http.StatusOK, "You are signed out")
	signedOut(t, ada.Get("/api/session"))
	showsPage(t, sendForm(ada, "/logout", nil), http.StatusOK, "You are signed out")

	few := people(t, "PERSQLD_SIGN_IN_PER_ADDRESS=1")
	c = few.Client(t, "")
	sendForm(c, "/login", form)
	showsPage(t, sendForm(c, "/login", form), http.StatusTooManyRequests, "Too many attempts from this address")
}

func TestSignUpByForms(t *testing.T) {
	row(t, "DP-PAGE-3", "DP-PAGE-4")
	c := people(t).Client(t, "")
	form := url.Values{"email": {"ada@example.com"}, "password": {thePassword}, "name": {"Ada <b>"}}
	showsPage(t, c.Get("/signup"), http.StatusForbidden, "Accounts are made by the operator here")
	showsPage(t, sendForm(c, "/signup", form), http.StatusForbidden, "Accounts are made by the operator here")

	c = people(t, "PERSQLD_SIGNUP=open").Client(t, "")
	showsPage(t, c.Get("/login?next=/invite/x"), http.StatusOK, `href="/signup?next=%2Finvite%2Fx"`)
	showsPage(t, c.Get("/signup"), http.StatusOK, "Make an account")
	showsPage(t, sendForm(c, "/signup", url.Values{"email": {"ada@example.com"}, "password": {"short77"}}), http.StatusBadRequest, "8 to 1024", "ada@example.com")
	showsPage(t, sendForm(c, "/signup", url.Values{"email": {strings.Repeat("x", 64_000)}}), http.StatusRequestEntityTooLarge)
	showsPage(t, sendForm(c, "/signup", form, "Sec-Fetch-Site: cross-site"), http.StatusForbidden, "another site")
	a := sendForm(c, "/signup?next=/invite/x", form)
	leadsTo(t, a, "/invite/x")
	ada := c.AsSession(cookieOf(t, a))
	ada.Get("/api/session").OK().Is("data.user.name", "Ada <b>").Is("data.namespaces.0.slug", "ada")
	leadsTo(t, ada.Get("/signup"), "/login")
	showsPage(t, sendForm(c, "/signup", form), http.StatusConflict, "There is an account")

	few := people(t, "PERSQLD_SIGNUP=open", "PERSQLD_SIGN_IN_PER_ADDRESS=1").Client(t, "")
	sendForm(few, "/signup", url.Values{"email": {"x"}})
	showsPage(t, sendForm(few, "/signup", form), http.StatusTooManyRequests)
}
