package api

import (
	"context"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/console"
)

func TestLocalPath(t *testing.T) {
	for _, good := range []string{"/", "/approve/appr_x", "/approve/appr_x?a=b&c=%2F%2Fevil.example", "/a/../b", "/%2f%2fevil.example", "/a#b"} {
		if got := localPath(good); got != good {
			t.Errorf("%q becomes %q", good, got)
		}
	}
	for _, bad := range []string{"", "approve", "//evil.example", "///evil.example", `/\evil.example`, `\/evil.example`, `/a\b`, "https://evil.example", "http:/evil.example", "javascript:alert(1)",
		"/\t/evil.example", "/\n/evil.example", "\t//evil.example", " //evil.example", "/a b", "/\x00", "/é", "/\x7f", "/a\r\nSet-Cookie: x=y", "/login", "/login?next=/login", "/logout", "/signup", "/%zz", "/" + strings.Repeat("x", maxNextPath)} {
		if got := localPath(bad); got != "" {
			t.Errorf("%q becomes %q", bad, got)
		}
	}
}

// plainPasswords are their own hashes.
type plainPasswords struct{}

func (plainPasswords) Hash(_ context.Context, password string) (string, error) { return password, nil }
func (plainPasswords) Verify(_ context.Context, hash, password string) (ok, outdated bool, err error) {
	return hash == password && hash != "", false, nil
}

// pageHouse is a server with one user, ada, who owns the namespace ada.
type pageHouse struct {
	t    testing.TB
	door *Server
	cat  *catalog.Catalog
}

const adaPassword = "correct horse battery"

func newPageHouse(t testing.TB, change ...func(*Options)) *pageHouse {
	t.Helper()
	c, err := catalog.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	u, err := c.CreateUser(t.Context(), catalog.NewUser{Email: "ada@example.com", PasswordHash: adaPassword})
	if err == nil {
		_, err = c.CreateHome(t.Context(), catalog.NewHome{UserID: u.ID, Slug: "ada", DatabaseID: catalog.NewID("db"), Database: "main"})
	}
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Catalog: c, Passwords: plainPasswords{}}
	for _, f := range change {
		f(&opt)
	}
	return &pageHouse{t: t, door: New(opt), cat: c}
}

// ask sends a request: a form with POST unless it is nil.
func (h *pageHouse) ask(method, path, cookie string, form url.Values, headers ...string) *httptest.ResponseRecorder {
	h.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if cookie != "" {
		r.AddCookie(&http.Cookie{Name: cookieName, Value: cookie})
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.door.ServeHTTP(w, r)
	for name, want := range map[string]string{"Content-Security-Policy": console.Policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"} {
		if got := w.Header().Get(name); got != want {
			h.t.Errorf("%s %s: %s is %q, want %q", method, path, name, got, want)
		}
	}
	if got := w.Header().Get("Content-Type"); got != "text/html; charset=utf-8" && w.Code != http.StatusSeeOther {
		h.t.Errorf("%s %s: %d with content type %q", method, path, w.Code, got)
	}
	return w
}

// shows checks a page's status and words.
func (h *pageHouse) shows(w *httptest.ResponseRecorder, status int, words ...string) {
	h.t.Helper()
	text := html.UnescapeString(w.Body.String())
	for _, word := range words {
		if !strings.Contains(text, word) {
			h.t.Errorf("the page lacks %q: %s", word, text[strings.Index(text, "</style>")+8:])
		}
	}
	if w.Code != status {
		h.t.Errorf("status %d, want %d", w.Code, status)
	}
}

// leads checks where a redirect leads.
func (h *pageHouse) leads(w *httptest.ResponseRecorder, to string) {
	h.t.Helper()
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != to {
		h.t.Errorf("status %d to %q, want 303 to %q", w.Code, w.Header().Get("Location"), to)
	}
}

func setCookie(w *httptest.ResponseRecorder) string {
	for _, c := range w.Result().Cookies() {
		if c.Name == cookieName {
			return c.Value
		}
	}
	return ""
}

func credentials(password string) url.Values {
	return url.Values{"email": {"Ada@example.com"}, "password": {password}}
}

// signedIn is the cookie of a session of ada's.
func (h *pageHouse) signedIn() string {
	h.t.Helper()
	w := h.ask(http.MethodPost, "/login", "", credentials(adaPassword))
	h.leads(w, "/login")
	return setCookie(w)
}

func TestSignInPage(t *testing.T) {
	h := newPageHouse(t)
	h.shows(h.ask(http.MethodGet, "/login", "", nil), http.StatusOK, `<h1>Sign in</h1>`, `autocomplete="current-password"`)
	h.shows(h.ask(http.MethodGet, "/login?next=/approve/x", "", nil), http.StatusOK, "You come back to where you were")
	for _, next := range []string{"//evil.example", "https://evil.example", `/\evil.example`} {
		at := "/login?next=" + url.QueryEscape(next)
		if w := h.ask(http.MethodGet, at, "", nil); strings.Contains(w.Body.String(), "evil") || strings.Contains(w.Body.String(), "come back") {
			t.Errorf("%s: %s", next, w.Body)
		}
		h.leads(h.ask(http.MethodPost, at, "", credentials(adaPassword)), "/login")
	}
	w := h.ask(http.MethodPost, "/login?next=%2Fapprove%2Fx%3Fa%3Db", "", credentials(adaPassword))
	h.leads(w, "/approve/x?a=b")
	cookie := setCookie(w)
	if _, u, err := h.cat.AuthenticateSession(cookie); err != nil || u.Email != "ada@example.com" {
		t.Fatalf("the cookie %q: %v", cookie, err)
	}
	h.shows(h.ask(http.MethodGet, "/login", cookie, nil), http.StatusOK, "You are signed in", "ada@example.com", "owner", `action="/logout"`)
	h.leads(h.ask(http.MethodGet, "/login?next=/approve/x", cookie, nil), "/approve/x")
	// Signing in anew ends the session that was.
	again := setCookie(h.ask(http.MethodPost, "/login", cookie, credentials(adaPassword)))
	if _, _, err := h.cat.AuthenticateSession(cookie); err == nil || again == cookie {
		t.Error("the former session goes on")
	}
}

func TestRefusedSignIn(t *testing.T) {
	h := newPageHouse(t, func(o *Options) { o.SignInPerAddress, o.SignInPerAccount = 10, 3 })
	w := h.ask(http.MethodPost, "/login?next=/approve/x", "", url.Values{"email": {`"><script>@example.com`}, "password": {"the wrong password"}})
	h.shows(w, http.StatusUnauthorized, `role="alert"`, "The e-mail address or the password is wrong.", "You come back")
	if body := w.Body.String(); strings.Contains(body, "<script") || strings.Contains(body, "the wrong password") || setCookie(w) != "" || w.Header().Get("Www-Authenticate") != cookieChallenge[0] {
		t.Errorf("%v %s", w.Header(), body)
	}
	for range 3 {
		h.shows(h.ask(http.MethodPost, "/login", "", credentials("wrong")), http.StatusUnauthorized, `value="Ada@example.com"`)
	}
	w = h.ask(http.MethodPost, "/login", "", credentials(adaPassword))
	h.shows(w, http.StatusTooManyRequests, "Too many attempts on this account")
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestSignOutPage(t *testing.T) {
	h := newPageHouse(t)
	cookie := h.signedIn()
	w := h.ask(http.MethodPost, "/logout", cookie, url.Values{})
	h.shows(w, http.StatusOK, "You are signed out", `href="/login"`)
	if _, _, err := h.cat.AuthenticateSession(cookie); err == nil {
		t.Error("the session goes on")
	}
	if got := w.Header().Get("Set-Cookie"); !strings.Contains(got, "Max-Age=0") {
		t.Errorf("Set-Cookie %q", got)
	}
	h.shows(h.ask(http.MethodPost, "/logout", cookie, url.Values{}), http.StatusOK, "You are signed out")
}

func TestSignUpPage(t *testing.T) {
	for _, mode := range []string{SignUpInvite, SignUpClosed} {
		h := newPageHouse(t, func(o *Options) { o.SignUp = mode })
		h.shows(h.ask(http.MethodGet, "/signup", "", nil), http.StatusForbidden, "Not allowed", "Accounts are made by the operator here")
		h.shows(h.ask(http.MethodPost, "/signup", "", credentials("long enough")), http.StatusForbidden)
		if w := h.ask(http.MethodGet, "/login", "", nil); strings.Contains(w.Body.String(), "/signup") {
			t.Errorf("%s: the page to sign in offers an account", mode)
		}
		if n := len(h.cat.Users()); n != 1 {
			t.Errorf("%s: %d users", mode, n)
		}
	}
	h := newPageHouse(t, func(o *Options) { o.SignUp = SignUpOpen })
	h.shows(h.ask(http.MethodGet, "/login?next=/approve/x", "", nil), http.StatusOK, `href="/signup?next=%2Fapprove%2Fx"`)
	h.shows(h.ask(http.MethodGet, "/signup?next=/approve/x", "", nil), http.StatusOK, "Make an account", `href="/login?next=%2Fapprove%2Fx"`, `minlength="8"`)
	h.shows(h.ask(http.MethodPost, "/signup", "", credentials("another password")), http.StatusConflict, "There is an account", `value="Ada@example.com"`)
	h.shows(h.ask(http.MethodPost, "/signup", "", url.Values{"email": {"nobody"}, "name": {"N<b>"}}), http.StatusBadRequest, `value="N<b>"`)
	h.leads(h.ask(http.MethodGet, "/signup?next=/approve/x", h.signedIn(), nil), "/approve/x")
}

// TestFormsOfOtherSites: what a page of another site has a browser send does nothing, with whatever cookie.
func TestFormsOfOtherSites(t *testing.T) {
	h := newPageHouse(t, func(o *Options) { o.SignUp = SignUpOpen })
	cookie := h.signedIn()
	for _, path := range []string{"/login", "/logout", "/signup", "/invite/pinv_x"} {
		for name, headers := range map[string][]string{
			"by Sec-Fetch-Site": {"Sec-Fetch-Site", "cross-site"},
			"a sibling":         {"Sec-Fetch-Site", "same-site"},
			"by Origin":         {"Origin", "https://evil.example"},
			"a null origin":     {"Origin", "null"},
		} {
			w := h.ask(http.MethodPost, path, cookie, credentials(adaPassword), headers...)
			h.shows(w, http.StatusForbidden, "A page of another site sent this request")
			if setCookie(w) != "" || strings.Contains(w.Body.String(), "ada@example.com") {
				t.Errorf("%s, %s: %v %s", path, name, w.Header(), w.Body)
			}
		}
		h.shows(h.ask(http.MethodPost, path, cookie, nil, "Content-Type", "text/plain"), http.StatusBadRequest, "This is not the form of this page")
		h.shows(h.ask(http.MethodPost, path, cookie, url.Values{"x": {strings.Repeat("x", maxAccountBody)}}), http.StatusRequestEntityTooLarge)
	}
	if _, _, err := h.cat.AuthenticateSession(cookie); err != nil {
		t.Error("somebody else's form signed ada out")
	}
}

func TestPagesAreBoundedByAddress(t *testing.T) {
	h := newPageHouse(t, func(o *Options) { o.RatePerAddress = 1 })
	h.ask(http.MethodGet, "/login", "", nil)
	w := h.ask(http.MethodGet, "/login", "", nil)
	h.shows(w, http.StatusTooManyRequests, "Too many requests from this address")
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestFaultTitles(t *testing.T) {
	for status, want := range map[int]string{404: "Not found", 403: "Not allowed", 429: "Too many requests", 500: "That failed", 503: "That failed", 400: "That didn't work"} {
		if got := faultTitle(status); got != want {
			t.Errorf("%s: got %q, want %q", fmt.Sprint(status), got, want)
		}
	}
}
