package e2e_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/identity/identitytest"
	"github.com/persqld/persqld/internal/upstream/upstreamtest"
)

// browser keeps cookies as one does, and follows links to providers.
type browser struct {
	*harness.Client
	t       testing.TB
	cookies map[string]string
}

func newBrowser(t testing.TB, s *harness.Server) *browser {
	return &browser{s.Client(t, ""), t, map[string]string{}}
}

func (b *browser) keep(a *harness.Answer) *harness.Answer {
	b.t.Helper()
	for _, c := range (&http.Response{Header: a.Header}).Cookies() {
		if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" {
			b.t.Errorf("%s: the cookie %v", a.What, c)
		}
		if b.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	return a
}

func (b *browser) header() harness.Header {
	var list []string
	for name, v := range b.cookies {
		list = append(list, name+"="+v)
	}
	return harness.Header("Cookie: " + strings.Join(list, "; "))
}

// open asks for a page, and send sends a form.
func (b *browser) open(path string) *harness.Answer {
	b.t.Helper()
	return b.keep(b.Get(path, b.header()))
}

func (b *browser) send(path string, fields url.Values) *harness.Answer {
	b.t.Helper()
	return b.keep(sendForm(b.Client, path, fields, b.header(), "Sec-Fetch-Site: same-origin"))
}

// session is the session's cookie.
func (b *browser) session() string { return b.cookies["persql_session"] }

// begin goes to a provider, and returns the path by which that leads back.
func (b *browser) begin(path string) string {
	b.t.Helper()
	a := b.open(path)
	if a.Status != http.StatusSeeOther {
		b.t.Fatalf("%s: %d %s", path, a.Status, harness.Tail(string(a.Raw), 500))
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Get(a.Header.Get("Location"))
	if err != nil {
		b.t.Fatal(err)
	}
	answer.Body.Close()
	to, err := answer.Location()
	if err != nil || !strings.HasSuffix(to.Path, "/callback") || to.Host != "sql.example.com" {
		b.t.Fatalf("the provider answers %d %v, %v", answer.StatusCode, to, err)
	}
	return to.RequestURI()
}

// signIn goes to a provider and back.
func (b *browser) signIn(path string) *harness.Answer {
	b.t.Helper()
	return b.open(b.begin(path))
}

// whoAmI is the e-mail address of who is signed in.
func (b *browser) whoAmI() string {
	b.t.Helper()
	return b.AsSession(b.session()).Get("/api/session").OK().Str("data.user.email")
}

// upstreamHouse is a server with a provider; its people come to it by a name that proxies know.
func upstreamHouse(t testing.TB, env ...string) (*harness.Server, *upstreamtest.OIDC) {
	t.Helper()
	is := upstreamtest.NewOIDC(t)
	return people(t, slices.Concat(is.Settings(), []string{"PERSQLD_BASE_URL=http://sql.example.com"}, env)...), is
}

func claimsOf(email string, verified bool) map[string]any {
	return map[string]any{"sub": "sub-of-" + email, "email": email, "email_verified": verified, "name": "Name of " + email}
}

var (
	create = url.Values{"action": {"create"}}
	link   = url.Values{"action": {"link"}}
	byPass = url.Values{"action": {"signin"}, "password": {thePassword}}
)

func TestSignUpByProvider(t *testing.T) {
	row(t, "DP-UP-1", "DP-UP-3", "DP-UP-6")
	s, is := upstreamHouse(t, "PERSQLD_SIGNUP=open")
	b := newBrowser(t, s)
	showsPage(t, b.open("/login?next=/invite/x"), http.StatusOK, "Continue with Example ID", `href="/login/oidc?next=%2Finvite%2Fx"`)
	showsPage(t, b.open("/signup"), http.StatusOK, "Continue with Example ID")
	showsPage(t, b.open("/login/github"), http.StatusNotFound, "no such sign-in provider")
	showsPage(t, b.open("/login/github/callback"), http.StatusNotFound)
	showsPage(t, b.open("/login/confirm"), http.StatusBadRequest, "This sign-in is over")
	is.Person(claimsOf("Ada@Example.com", true))
	leadsTo(t, b.signIn("/login/oidc?next=/account"), "/login/confirm")
	if b.session() != "" {
		t.Error("signed in before there is an account")
	}
	// Nothing is made by looking.
	showsPage(t, b.open("/login/confirm"), http.StatusOK, "Make an account", "ada@example.com", "Example ID")
	if users := s.JSONOf(t, "user", "list")["users"].([]any); len(users) != 0 {
		t.Errorf("users %v", users)
	}
	showsPage(t, b.send("/login/confirm", link), http.StatusBadRequest, "not the form")
	showsPage(t, b.keep(sendForm(b.Client, "/login/confirm", create, b.header(), "Sec-Fetch-Site: cross-site")), http.StatusForbidden, "another site")
	leadsTo(t, b.send("/login/confirm", create), "/account")
	if got := b.whoAmI(); got != "ada@example.com" {
		t.Errorf("signed in as %s", got)
	}
	b.AsSession(b.session()).Get("/api/session").OK().Is("data.user.emailVerified", "true").Is("data.user.name", "Name of Ada@Example.com").Is("data.namespaces.0.slug", "ada")
	showsPage(t, b.send("/login/confirm", create), http.StatusBadRequest, "This sign-in is over")

	// The same person again, elsewhere, under another address and name: the same account, which stays as it is.
	again := claimsOf("Ada@Example.com", true)
	again["email"], again["name"] = "ada@elsewhere.example", "Another"
	is.Person(again)
	other := newBrowser(t, s)
	leadsTo(t, other.signIn("/login/oidc?next=/account"), "/account")
	other.AsSession(other.session()).Get("/api/session").OK().Is("data.user.email", "ada@example.com").Is("data.user.name", "Name of Ada@Example.com")
	// No password opens it: not the empty one, nor any other.
	for _, password := range []string{"", " ", thePassword} {
		s.Client(t, "").Post("/api/session", body{"email": "ada@example.com", "password": password}).Fails(http.StatusUnauthorized, "unauthorized")
	}

	// What the provider has not verified isn't verified here.
	is.Person(claimsOf("bob@example.com", false))
	bob := newBrowser(t, s)
	leadsTo(t, bob.signIn("/login/oidc"), "/login/confirm")
	leadsTo(t, bob.send("/login/confirm", create), "/login")
	bob.AsSession(bob.session()).Get("/api/session").OK().Is("data.user.emailVerified", "false")

	// A disabled account is no account.
	s.JSONOf(t, "user", "disable", "--email", "bob@example.com")
	showsPage(t, bob.signIn("/login/oidc"), http.StatusForbidden, "There is no account here that this sign-in opens")
	if bob.session() != "" {
		signedOut(t, bob.AsSession(bob.session()).Get("/api/session"))
	}
	var audited []string
	for _, e := range s.JSONOf(t, "audit", "--limit", "100")["entries"].([]any) {
		entry := e.(map[string]any)
		if m, _ := entry["metadata"].(map[string]any); m["issuer"] == is.URL {
			audited = append(audited, entry["action"].(string))
		}
	}
	if !slices.Contains(audited, "user.linked") || !slices.Contains(audited, "session.created") {
		t.Errorf("entries that name the provider: %v", audited)
	}
}

func TestLinkByPassword(t *testing.T) {
	row(t, "DP-UP-4", "DP-UP-7")
	s, is := upstreamHouse(t)
	ada := enrol(t, s, "ada@example.com", "default", "owner")
	is.Person(claimsOf("ada@example.com", true))
	b := newBrowser(t, s)
	leadsTo(t, b.signIn("/login/oidc?next=/account"), "/login/confirm")
	showsPage(t, b.open("/login/confirm"), http.StatusOK, "You have an account already", "Sign in and link")
	showsPage(t, b.send("/login/confirm", create), http.StatusBadRequest)
	showsPage(t, b.send("/login/confirm", url.Values{"action": {"signin"}, "password": {"wrong password"}}), http.StatusUnauthorized, "The e-mail address or the password is wrong")
	if b.session() != "" {
		t.Fatal("signed in without the password")
	}
	// Until it is confirmed the sign-in opens nothing.
	leadsTo(t, newBrowser(t, s).signIn("/login/oidc"), "/login/confirm")
	ada.Get("/api/identities").OK().Is("data", "[]")
	leadsTo(t, b.send("/login/confirm", byPass), "/account")
	if got := b.whoAmI(); got != "ada@example.com" {
		t.Errorf("signed in as %s", got)
	}
	// Both work from then on, and the address is verified: by the provider, and by who has the account.
	other := newBrowser(t, s)
	leadsTo(t, other.signIn("/login/oidc"), "/login")
	signIn(t, s, "ada@example.com").Get("/api/session").OK().Is("data.user.emailVerified", "true")

	id := ada.Get("/api/identities").OK().Is("data.0.provider", "oidc").Is("data.0.issuer", is.URL).Is("data.0.name", "ada@example.com").Str("data.0.id")
	enrol(t, s, "eve@example.com", "", "").Do(http.MethodDelete, "/api/identities/"+id, nil).Fails(http.StatusNotFound, "not_found")
	ada.Do(http.MethodDelete, "/api/identities/"+id, nil, "Sec-Fetch-Site: cross-site").Fails(http.StatusForbidden, "forbidden")
	ada.Do(http.MethodDelete, "/api/identities/"+id, nil).OK().Is("data.unlinked", "true")
	ada.Do(http.MethodDelete, "/api/identities/"+id, nil).Fails(http.StatusNotFound, "not_found")
	leadsTo(t, newBrowser(t, s).signIn("/login/oidc"), "/login/confirm")
	signedOut(t, s.Client(t, "").Get("/api/identities"))
	signedOut(t, s.Client(t, "").Do(http.MethodDelete, "/api/identities/"+id, nil))
}

// Nobody gets an account by its e-mail address.
func TestNoTakeover(t *testing.T) {
	row(t, "DP-UP-4", "DP-UP-5")
	s, is := upstreamHouse(t)
	enrol(t, s, "ada@example.com", "default", "owner")
	pages := map[string]string{}
	for name, email := range map[string]string{"taken": "ada@example.com", "free": "bob@example.com"} {
		is.Person(claimsOf(email, false))
		b := newBrowser(t, s)
		leadsTo(t, b.signIn("/login/oidc"), "/login/confirm")
		a := b.open("/login/confirm")
		showsPage(t, a, http.StatusForbidden, "There is no account here that this sign-in opens")
		pages[name] = string(a.Raw)
		for _, form := range []url.Values{create, link, byPass} {
			showsPage(t, b.send("/login/confirm", form), http.StatusForbidden)
		}
		if b.session() != "" {
			t.Errorf("%s: signed in", name)
		}
	}
	if pages["taken"] != pages["free"] {
		t.Errorf("the pages tell whether there is an account: %s\n%s", pages["taken"], pages["free"])
	}
	// Verified, and nobody's: accounts are for who is invited.
	is.Person(claimsOf("carol@example.com", true))
	carol := newBrowser(t, s)
	leadsTo(t, carol.signIn("/login/oidc"), "/login/confirm")
	showsPage(t, carol.open("/login/confirm"), http.StatusForbidden, "ask for an invitation")
	is.Person(map[string]any{"sub": "nameless"})
	nameless := newBrowser(t, s)
	leadsTo(t, nameless.signIn("/login/oidc"), "/login/confirm")
	showsPage(t, nameless.open("/login/confirm"), http.StatusForbidden, "tells no e-mail address")

	// Where anybody may sign up, an address that is taken and not verified makes and opens nothing.
	open, is2 := upstreamHouse(t, "PERSQLD_SIGNUP=open")
	enrol(t, open, "ada@example.com", "", "")
	is2.Person(claimsOf("ada@example.com", false))
	b := newBrowser(t, open)
	leadsTo(t, b.signIn("/login/oidc"), "/login/confirm")
	showsPage(t, b.send("/login/confirm", byPass), http.StatusForbidden)
	// An account that has no password yet isn't to be had by one.
	is2.Person(claimsOf("dora@example.com", true))
	dora := newBrowser(t, open)
	dora.signIn("/login/oidc")
	leadsTo(t, dora.send("/login/confirm", create), "/login")
	twin := claimsOf("dora@example.com", true)
	twin["sub"] = "another"
	is2.Person(twin)
	b = newBrowser(t, open)
	b.signIn("/login/oidc")
	showsPage(t, b.open("/login/confirm"), http.StatusOK, "as you did until now")
	showsPage(t, b.send("/login/confirm", url.Values{"action": {"signin"}, "password": {""}}), http.StatusBadRequest)
}

func TestInvitationByProvider(t *testing.T) {
	row(t, "DP-UP-3")
	s, is := upstreamHouse(t)
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	token, _ := owner.invite("default", body{"role": "editor"})
	named, _ := owner.invite("default", body{"role": "viewer", "email": "bob@example.com"})
	is.Person(claimsOf("ada@example.com", true))
	b := newBrowser(t, s)
	showsPage(t, b.open("/invite/"+token), http.StatusOK, "Continue with Example ID", "/login/oidc?next=%2Finvite%2F"+token)
	leadsTo(t, b.signIn("/login/oidc?next=/invite/"+named), "/login/confirm")
	showsPage(t, b.open("/login/confirm"), http.StatusForbidden, "The invitation is for another e-mail address")
	leadsTo(t, b.signIn("/login/oidc?next=/invite/"+token), "/login/confirm")
	showsPage(t, b.open("/login/confirm"), http.StatusOK, "Make an account and accept", "default", "editor")
	leadsTo(t, b.send("/login/confirm", create), "/login")
	b.AsSession(b.session()).Get("/api/session").OK().Is("data.user.email", "ada@example.com").Is("data.namespaces.1.slug", "default").Is("data.namespaces.1.role", "editor")
	is.Person(claimsOf("carol@example.com", true))
	c := newBrowser(t, s)
	leadsTo(t, c.signIn("/login/oidc?next=/invite/"+token), "/login/confirm")
	showsPage(t, c.open("/login/confirm"), http.StatusNotFound, "The invitation is unknown, used, revoked or expired")
	showsPage(t, c.send("/login/confirm", create), http.StatusNotFound)
	// Who has an account comes back to the invitation.
	is.Person(claimsOf("ada@example.com", true))
	second, _ := owner.invite("default", body{"role": "viewer"})
	leadsTo(t, newBrowser(t, s).signIn("/login/oidc?next=/invite/"+second), "/invite/"+second)

	closed, is2 := upstreamHouse(t, "PERSQLD_SIGNUP=closed")
	shut, _ := enrol(t, closed, "owner@example.com", "default", "owner").invite("default", body{"role": "editor"})
	is2.Person(claimsOf("ada@example.com", true))
	b = newBrowser(t, closed)
	leadsTo(t, b.signIn("/login/oidc?next=/invite/"+shut), "/login/confirm")
	showsPage(t, b.send("/login/confirm", create), http.StatusForbidden)
}

// A sign-in ends once, in time, in the browser that it began in, with the provider that it began with.
func TestSignInState(t *testing.T) {
	row(t, "DP-UP-2", "DP-UP-10")
	hub := upstreamtest.NewGitHub(t)
	s, is := upstreamHouse(t, append(hub.Settings(), "PERSQLD_SIGNUP=open")...)
	is.SetIss(is.URL)
	is.Person(claimsOf("ada@example.com", true))
	ada := newBrowser(t, s)
	ada.signIn("/login/oidc")
	leadsTo(t, ada.send("/login/confirm", create), "/login")
	before := ada.session()

	over := func(b *browser, path string) {
		t.Helper()
		had := b.session()
		showsPage(t, b.open(path), http.StatusBadRequest, "begun in another browser", "Back to the sign-in")
		if b.session() != had {
			t.Errorf("%s: a session began", path)
		}
	}
	// Once.
	b := newBrowser(t, s)
	back := b.begin("/login/oidc")
	cookie := b.cookies["persql_signin"]
	leadsTo(t, b.open(back), "/login")
	over(b, back)
	b.cookies["persql_signin"] = cookie
	over(b, back)
	// In that browser alone: a link that another one began signs nobody in as that one's person.
	eve, victim := newBrowser(t, s), newBrowser(t, s)
	hers := eve.begin("/login/oidc")
	over(victim, hers)
	victim.begin("/login/oidc")
	over(victim, hers)
	victim.cookies["persql_signin"] = "x" + victim.cookies["persql_signin"][1:]
	over(victim, hers)
	// With that provider.
	mixed := newBrowser(t, s)
	_, query, _ := strings.Cut(mixed.begin("/login/oidc"), "?")
	over(mixed, "/login/github/callback?"+query)
	showsPage(t, mixed.open("/login/oidc/callback?"+strings.Replace(query, "iss=", "iss=x", 1)), http.StatusBadRequest, "The answer of Example ID can't be used")
	is.SetIss("https://evil.example")
	showsPage(t, newBrowser(t, s).signIn("/login/oidc"), http.StatusBadRequest, "The answer of Example ID can't be used")
	is.SetIss(is.URL)
	for _, path := range []string{"/login/oidc/callback", "/login/oidc/callback?state=&code=x", "/login/oidc/callback?error=x"} {
		over(newBrowser(t, s), path)
	}
	// A session that was there ends with the new one's beginning, so that who knew it knows nothing.
	leadsTo(t, ada.signIn("/login/oidc"), "/login")
	if ada.session() == before || ada.session() == "" {
		t.Error("the session is the same")
	}
	signedOut(t, ada.AsSession(before).Get("/api/session"))
	// Nobody is led away.
	for _, next := range []string{"//evil.example", "https://evil.example/", `/\evil.example`, "/\t/evil.example", "javascript:alert(1)", "/login/oidc", "/login"} {
		leadsTo(t, newBrowser(t, s).signIn("/login/oidc?next="+url.QueryEscape(next)), "/login")
	}
	// A restart in between is told of.
	b = newBrowser(t, s)
	back = b.begin("/login/oidc")
	s.Stop(t)
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: slices.Concat(quick, is.Settings(), []string{"PERSQLD_BASE_URL=http://sql.example.com"})})
	b.Client = s.Client(t, "")
	over(b, back)
}

// What the provider's answers lack of what they must be, is told on a page, without what came.
func TestProviderFailures(t *testing.T) {
	row(t, "DP-UP-2", "DP-UP-8", "DP-UP-10")
	s, is := upstreamHouse(t, "PERSQLD_SIGNUP=open")
	enrol(t, s, "local@example.com", "", "")
	is.Down(true)
	showsPage(t, newBrowser(t, s).open("/login/oidc"), http.StatusServiceUnavailable, "Example ID can't be reached now", "sign in another way")
	signIn(t, s, "local@example.com")
	is.Down(false)
	eventually(t, 20*time.Second, func() bool { return newBrowser(t, s).open("/login/oidc").Status == http.StatusSeeOther })
	for name, c := range map[string]struct {
		change map[string]any
		sign   func(map[string]any) string
	}{
		"nonce":  {change: map[string]any{"nonce": "x"}},
		"aud":    {change: map[string]any{"aud": "x"}},
		"iss":    {change: map[string]any{"iss": "https://evil.example"}},
		"exp":    {change: map[string]any{"exp": 1}},
		"none":   {sign: func(c map[string]any) string { return identitytest.Unsigned(c) }},
		"HS256":  {sign: is.SignedWithPublicKey},
		"script": {sign: func(map[string]any) string { return "<script>alert(1)</script>" }},
	} {
		claims := claimsOf("ada@example.com", true)
		for k, v := range c.change {
			claims[k] = v
		}
		is.Person(claims)
		is.Sign(c.sign)
		b := newBrowser(t, s)
		a := b.signIn("/login/oidc")
		showsPage(t, a, http.StatusBadRequest, "The answer of Example ID can't be used", "Back to the sign-in")
		if strings.Contains(string(a.Raw), "<script") || len(b.cookies) != 0 {
			t.Errorf("%s: %v %s", name, b.cookies, a.Raw)
		}
	}
	is.Sign(nil)
	is.Deny("access_denied")
	a := newBrowser(t, s).signIn("/login/oidc")
	showsPage(t, a, http.StatusForbidden, "did not grant the sign-in")
	if strings.Contains(string(a.Raw), "alert(1)") {
		t.Error("the page shows what the provider wrote")
	}
	is.Deny("temporarily_unavailable")
	showsPage(t, newBrowser(t, s).signIn("/login/oidc"), http.StatusServiceUnavailable, "Example ID can't be reached now")
	is.Deny("")
	if log := s.Log(); strings.Contains(log, upstreamtest.ClientSecret) || strings.Contains(log, "code-1") {
		t.Error("the log has a secret")
	}

	few, is2 := upstreamHouse(t, "PERSQLD_SIGN_IN_PER_ADDRESS=1")
	is2.Person(claimsOf("ada@example.com", true))
	b := newBrowser(t, few)
	b.signIn("/login/oidc")
	back := b.begin("/login/oidc")
	showsPage(t, b.open(back), http.StatusTooManyRequests, "Too many attempts from this address")

	open, is3 := upstreamHouse(t, "PERSQLD_SIGNUP=open", "PERSQLD_SIGN_IN_PER_ADDRESS=1")
	is3.Person(claimsOf("ada@example.com", true))
	b = newBrowser(t, open)
	leadsTo(t, b.signIn("/login/oidc"), "/login/confirm")
	showsPage(t, b.send("/login/confirm", create), http.StatusTooManyRequests)
	showsPage(t, b.send("/login/confirm", url.Values{"x": {strings.Repeat("x", 64_000)}}), http.StatusRequestEntityTooLarge)
}

// What a flood of requests is answered with, on every page and call.
func TestFloodOfSignIns(t *testing.T) {
	row(t, "DP-UP-8")
	s, _ := upstreamHouse(t, "PERSQLD_RATE_PER_ADDRESS=1")
	c := s.Client(t, "")
	for _, path := range []string{"/login/oidc", "/login/oidc/callback", "/login/confirm", "/account", "/reset/x"} {
		eventually(t, 10*time.Second, func() bool { return c.Get(path).Status == http.StatusTooManyRequests })
	}
	eventually(t, 10*time.Second, func() bool { return c.Get("/api/identities").Status == http.StatusTooManyRequests })
	eventually(t, 10*time.Second, func() bool {
		return c.Do(http.MethodDelete, "/api/identities/x", nil).Status == http.StatusTooManyRequests
	})
}

func TestSignInByGitHub(t *testing.T) {
	row(t, "DP-UP-1", "DP-UP-6")
	hub := upstreamtest.NewGitHub(t)
	s := people(t, append(hub.Settings(), "PERSQLD_SIGNUP=open", "PERSQLD_BASE_URL=http://sql.example.com")...)
	hub.Person(7, "ada", "Ada", upstreamtest.Email{Email: "ada@example.com", Primary: true, Verified: true})
	b := newBrowser(t, s)
	leadsTo(t, b.signIn("/login/github"), "/login/confirm")
	leadsTo(t, b.send("/login/confirm", create), "/login")
	b.AsSession(b.session()).Get("/api/session").OK().Is("data.user.email", "ada@example.com").Is("data.user.emailVerified", "true")
	b.AsSession(b.session()).Get("/api/identities").OK().Is("data.0.provider", "github").Is("data.0.issuer", hub.URL)
	// The login is somebody else's now: another id, another person.
	hub.Person(8, "ada", "Eve", upstreamtest.Email{Email: "eve@example.com", Primary: true, Verified: false})
	eve := newBrowser(t, s)
	leadsTo(t, eve.signIn("/login/github"), "/login/confirm")
	showsPage(t, eve.open("/login/confirm"), http.StatusForbidden, "tells no e-mail address")
}

func TestOwnAccount(t *testing.T) {
	row(t, "DP-UP-7", "DP-PAGE-7")
	hub := upstreamtest.NewGitHub(t)
	s, is := upstreamHouse(t, append(hub.Settings(), "PERSQLD_SIGNUP=open")...)
	is.Person(claimsOf("ada@example.com", true))
	b := newBrowser(t, s)
	leadsTo(t, b.open("/account"), "/login?next=%2Faccount")
	showsPage(t, b.send("/account", url.Values{"action": {"everywhere"}}), http.StatusUnauthorized, "Not signed in")
	b.signIn("/login/oidc")
	b.send("/login/confirm", create)
	showsPage(t, b.open("/login"), http.StatusOK, `href="/account"`)
	showsPage(t, b.open("/account"), http.StatusOK, "Your account", "ada@example.com", "verified", "Example ID", "Set a password", "/login/github?link", "nowhere else")
	me := func() *harness.Client { return b.AsSession(b.session()) }
	id := me().Get("/api/identities").OK().Str("data.0.id")
	// Never the last way.
	showsPage(t, b.send("/account", url.Values{"unlink": {id}}), http.StatusConflict, "It is the last way to sign in")
	me().Do(http.MethodDelete, "/api/identities/"+id, nil).Fails(http.StatusConflict, "last_sign_in")
	showsPage(t, b.send("/account", url.Values{"unlink": {"uid_none"}}), http.StatusNotFound, "no such linked sign-in")
	showsPage(t, b.send("/account", url.Values{"action": {"nothing"}}), http.StatusBadRequest, "not the form")
	showsPage(t, sendForm(b.Client, "/account", url.Values{"unlink": {id}}, b.header(), "Sec-Fetch-Site: cross-site"), http.StatusForbidden, "another site")

	// Another sign-in is linked by who is signed in, whatever its address, and after a question.
	hub.Person(7, "ada", "Ada", upstreamtest.Email{Email: "private@example.com", Primary: true, Verified: true})
	leadsTo(t, b.signIn("/login/github?link"), "/login/confirm")
	showsPage(t, b.open("/login/confirm"), http.StatusOK, "Link it to my account", "private@example.com", "ada@example.com")
	// By nobody else who has signed in at this browser meanwhile.
	mine, eves := b.session(), enrol(t, s, "eva@example.com", "", "")
	b.cookies["persql_session"] = eves.Cookie()
	showsPage(t, b.open("/login/confirm"), http.StatusBadRequest, "This sign-in is over")
	showsPage(t, b.send("/login/confirm", link), http.StatusBadRequest, "This sign-in is over")
	eves.Get("/api/identities").OK().Is("data", "[]")
	b.cookies["persql_session"] = mine
	leadsTo(t, b.send("/login/confirm", link), "/account")
	if list := me().Get("/api/identities").OK().List("data"); len(list) != 2 {
		t.Errorf("linked: %v", list)
	}
	leadsTo(t, b.signIn("/login/github?link"), "/account") // it is linked already
	other := newBrowser(t, s)
	leadsTo(t, other.signIn("/login/github"), "/login")
	if got := other.whoAmI(); got != "ada@example.com" {
		t.Errorf("GitHub opens %s", got)
	}
	// Somebody else can't have it.
	enrol(t, s, "eve@example.com", "", "")
	eve := newBrowser(t, s)
	leadsTo(t, eve.send("/login", url.Values{"email": {"eve@example.com"}, "password": {thePassword}}), "/login")
	showsPage(t, eve.signIn("/login/github?link"), http.StatusConflict, "linked to an account already")
	if got := eve.whoAmI(); got != "eve@example.com" {
		t.Errorf("eve became %s", got)
	}

	// Of two who ask at the same time one gets it.
	hub.Person(9, "shared", "", upstreamtest.Email{Email: "shared@example.com", Primary: true, Verified: true})
	for _, who := range []*browser{b, eve} {
		leadsTo(t, who.signIn("/login/github?link"), "/login/confirm")
	}
	leadsTo(t, b.send("/login/confirm", link), "/account")
	showsPage(t, eve.send("/login/confirm", link), http.StatusConflict, "linked to an account already")
	showsPage(t, b.send("/account", url.Values{"x": {strings.Repeat("x", 64_000)}}), http.StatusRequestEntityTooLarge)

	// A first password, then another; other sessions end.
	showsPage(t, b.send("/account", url.Values{"action": {"password"}, "password": {"short"}}), http.StatusBadRequest, "8 to 1024")
	leadsTo(t, b.send("/account", url.Values{"action": {"password"}, "password": {thePassword}}), "/account")
	signedOut(t, other.AsSession(other.session()).Get("/api/session"))
	me().Get("/api/session").OK()
	elsewhere := signIn(t, s, "ada@example.com")
	change := url.Values{"action": {"password"}, "current": {"wrong password"}, "password": {"another password"}}
	showsPage(t, b.send("/account", change), http.StatusForbidden, "The current password is wrong")
	showsPage(t, b.send("/account", url.Values{"action": {"password"}, "password": {"another password"}}), http.StatusForbidden)
	change.Set("current", thePassword)
	leadsTo(t, b.send("/account", change), "/account")
	signedOut(t, elsewhere.Get("/api/session"))
	s.Client(t, "").Post("/api/session", body{"email": "ada@example.com", "password": thePassword}).Fails(http.StatusUnauthorized, "unauthorized")
	leadsTo(t, b.send("/account", url.Values{"unlink": {id}}), "/account")

	second := s.Client(t, "").Post("/api/session", body{"email": "ada@example.com", "password": "another password"}).OK()
	showsPage(t, b.open("/account"), http.StatusOK, "1 other session")
	showsPage(t, b.send("/account", url.Values{"action": {"everywhere"}}), http.StatusOK, "all of your sessions have ended")
	signedOut(t, b.AsSession(cookieOf(t, second)).Get("/api/session"))
	if b.session() != "" {
		t.Error("the cookie is still there")
	}

	few := people(t, "PERSQLD_SIGN_IN_PER_ADDRESS=2")
	bob := newBrowser(t, few)
	enrol(t, few, "bob@example.com", "", "")
	leadsTo(t, bob.send("/login", url.Values{"email": {"bob@example.com"}, "password": {thePassword}}), "/login")
	showsPage(t, bob.send("/account", change), http.StatusTooManyRequests)
}

func TestLocalSignInOff(t *testing.T) {
	row(t, "DP-UP-9")
	is := upstreamtest.NewOIDC(t)
	s := people(t, slices.Concat(is.Settings(), []string{"PERSQLD_SIGNUP=open", "PERSQLD_BASE_URL=http://sql.example.com", "PERSQLD_LOCAL_SIGN_IN=false"})...)
	s.JSONOf(t, "user", "create", "--email", "local@example.com", "--password", thePassword, "--namespace", "default", "--role", "owner")
	c := s.Client(t, "")
	c.Post("/api/session", body{"email": "local@example.com", "password": thePassword}).Fails(http.StatusForbidden, "local_sign_in_off")
	c.Post("/api/signup", body{"email": "new@example.com", "password": thePassword}).Fails(http.StatusForbidden, "local_sign_in_off")
	b := newBrowser(t, s)
	for _, path := range []string{"/login", "/signup"} {
		a := b.open(path)
		showsPage(t, a, http.StatusOK, "Continue with Example ID")
		if strings.Contains(string(a.Raw), "<input") {
			t.Errorf("%s asks for something: %s", path, a.Raw)
		}
		showsPage(t, b.send(path, url.Values{"email": {"local@example.com"}, "password": {thePassword}}), http.StatusForbidden, "Passwords are not taken here")
	}
	is.Person(claimsOf("ada@example.com", true))
	b.signIn("/login/oidc")
	leadsTo(t, b.send("/login/confirm", create), "/login")
	a := b.open("/account")
	showsPage(t, a, http.StatusOK, "Linked sign-ins")
	if strings.Contains(string(a.Raw), "<input") {
		t.Errorf("the account asks for a password: %s", a.Raw)
	}
	showsPage(t, b.send("/account", url.Values{"action": {"password"}, "password": {thePassword}}), http.StatusForbidden, "Passwords are not taken here")
	// A password is no way to sign in, and so doesn't count as one that is left.
	id := b.AsSession(b.session()).Get("/api/identities").OK().Str("data.0.id")
	b.AsSession(b.session()).Do(http.MethodDelete, "/api/identities/"+id, nil).Fails(http.StatusConflict, "last_sign_in")
	// A local account isn't opened by its address.
	is.Person(claimsOf("local@example.com", true))
	l := newBrowser(t, s)
	l.signIn("/login/oidc")
	showsPage(t, l.open("/login/confirm"), http.StatusOK, "as you did until now")
	showsPage(t, l.send("/login/confirm", byPass), http.StatusBadRequest)
	link := s.JSONOf(t, "user", "reset-link", "--email", "local@example.com")["url"].(string)
	_, path, _ := strings.Cut(link, "sql.example.com")
	showsPage(t, b.open(path), http.StatusForbidden, "Passwords are not taken here")
	showsPage(t, b.send(path, url.Values{"password": {thePassword}}), http.StatusForbidden)
}

func TestProviderSettings(t *testing.T) {
	row(t, "DP-UP-9", "DP-UP-1")
	for _, c := range []struct {
		env  []string
		word string
	}{
		{[]string{"PERSQLD_LOCAL_SIGN_IN=false"}, "there is no provider to sign in with"},
		{[]string{"PERSQLD_OIDC_ISSUER=https://id.example.com"}, "go together"},
		{[]string{"PERSQLD_OIDC_ISSUER=http://id.example.com", "PERSQLD_OIDC_CLIENT_ID=x", "PERSQLD_OIDC_CLIENT_SECRET=y"}, "must begin with https://"},
		{[]string{"PERSQLD_GITHUB_CLIENT_ID=x"}, "go together"},
		{[]string{"PERSQLD_GITHUB_URL=ftp://x"}, "must begin with https://"},
		{[]string{"PERSQLD_OIDC_LABEL=" + strings.Repeat("x", 61)}, "up to 60 characters"},
	} {
		s, err := harness.Run(binary, harness.Options{Data: t.TempDir(), Env: c.env})
		if err == nil {
			s.Kill()
			t.Errorf("%v: it starts", c.env)
		} else if !strings.Contains(err.Error(), c.word) {
			t.Errorf("%v: %v", c.env, err)
		}
	}
}

func TestResetLink(t *testing.T) {
	row(t, "DP-ACC-6")
	s := people(t, "PERSQLD_BASE_URL=http://sql.example.com")
	ada := enrol(t, s, "ada@example.com", "default", "owner")
	fresh := func(args ...string) string {
		t.Helper()
		link := s.JSONOf(t, append([]string{"user", "reset-link", "--email", "Ada@example.com"}, args...)...)["url"].(string)
		_, path, _ := strings.Cut(link, "sql.example.com")
		if !strings.HasPrefix(path, "/reset/prst_") || strings.Contains(s.Log(), path) {
			t.Fatalf("the link is %s", link)
		}
		return path
	}
	first := fresh()
	path := fresh()
	c := s.Client(t, "")
	showsPage(t, c.Get(first), http.StatusNotFound, "The link is unknown, used or expired")
	for range 2 {
		showsPage(t, c.Get(path), http.StatusOK, "Set a new password", "ada@example.com")
	}
	ada.Get("/api/session").OK() // nothing changes by looking
	another := func(password string) url.Values { return url.Values{"password": {password}} }
	showsPage(t, sendForm(c, path, another("short")), http.StatusBadRequest, "8 to 1024")
	showsPage(t, sendForm(c, path, another("another password"), "Sec-Fetch-Site: cross-site"), http.StatusForbidden)
	showsPage(t, c.Post(path, harness.Raw("{}")), http.StatusBadRequest)
	showsPage(t, sendForm(c, path, another(strings.Repeat("x", 64_000))), http.StatusRequestEntityTooLarge)
	// Of those that race one sets the password.
	var all sync.WaitGroup
	var set atomic.Int64
	var won atomic.Value
	for i := range 8 {
		password := fmt.Sprint("password of racer ", i)
		all.Go(func() {
			a, err := c.Try(http.MethodPost, path, harness.Raw(another(password).Encode()), formType)
			if err == nil && a.Status == http.StatusOK {
				set.Add(1)
				won.Store(password)
				if strings.Contains(strings.Join(a.Header["Set-Cookie"], " "), "persql_session=") {
					t.Error("the link signs somebody in")
				}
			}
		})
	}
	all.Wait()
	if set.Load() != 1 {
		t.Fatalf("%d racers set the password", set.Load())
	}
	signedOut(t, ada.Get("/api/session"))
	c.Post("/api/session", body{"email": "ada@example.com", "password": thePassword}).Fails(http.StatusUnauthorized, "unauthorized")
	c.Post("/api/session", body{"email": "ada@example.com", "password": won.Load().(string)}).OK()
	showsPage(t, c.Get(path), http.StatusNotFound)
	showsPage(t, sendForm(c, path, another("another password")), http.StatusNotFound)
	// Another reset ends a link, and so does disabling.
	path = fresh("--expires", "24h")
	s.JSONOf(t, "user", "reset-password", "--email", "ada@example.com", "--password", thePassword)
	showsPage(t, c.Get(path), http.StatusNotFound)
	path = fresh()
	s.JSONOf(t, "user", "disable", "--email", "ada@example.com")
	s.JSONOf(t, "user", "enable", "--email", "ada@example.com")
	showsPage(t, c.Get(path), http.StatusNotFound)
	for _, bad := range []struct {
		args []string
		code int
		word string
	}{
		{[]string{"--email", "nobody@example.com"}, 1, "not_found"},
		{[]string{"--email", "ada@example.com", "--expires", "59s"}, 2, "out of its range"},
		{[]string{"--email", "ada@example.com", "--expires", "169h"}, 2, "out of its range"},
		{nil, 2, "email"},
	} {
		if out, errs, code := withInput(t, s, "", append([]string{"user", "reset-link", "--json"}, bad.args...)...); code != bad.code || !strings.Contains(out+errs, bad.word) {
			t.Errorf("%v: %d %s%s", bad.args, code, out, errs)
		}
	}
	// On the directory of a server that is stopped.
	s.Stop(t)
	if out, errs, code := withInput(t, s, "", "user", "reset-link", "--email", "ada@example.com"); code != 0 || !strings.Contains(out, "/reset/prst_") {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if out, _, _ := withInput(t, s, "", "user", "reset-link", "--email", "ada@example.com", "--base-url", "https://db.example.com/", "--json"); !strings.Contains(out, `"https://db.example.com/reset/prst_`) {
		t.Error(out)
	}

	few := people(t, "PERSQLD_SIGN_IN_PER_ADDRESS=1").Client(t, "")
	few.Get("/reset/prst_x")
	showsPage(t, few.Get("/reset/prst_x"), http.StatusTooManyRequests)
	showsPage(t, sendForm(few, "/reset/prst_x", another(thePassword)), http.StatusTooManyRequests)
}

// An app's request outlives a sign-in by a provider, and the page in between lets the browser go on to the app.
func TestAppByProvider(t *testing.T) {
	row(t, "DP-UP-1")
	s, is := upstreamHouse(t, "PERSQLD_SIGNUP=open")
	app := s.Client(t, harness.Token).Post("/v1/oauth-apps", body{"name": "Notes", "redirectUris": []string{"com.example.notes:/callback"}, "type": "public"}).OK().Str("data.clientId")
	request := func(state string) string {
		return "/oauth/authorize?" + url.Values{"response_type": {"code"}, "client_id": {app}, "redirect_uri": {"com.example.notes:/callback"}, "scope": {"openid"}, "state": {state},
			"code_challenge": {strings.Repeat("c", 43)}, "code_challenge_method": {"S256"}}.Encode()
	}
	b := newBrowser(t, s)
	is.Person(claimsOf("eve@example.com", true))
	next := url.Values{"next": {request("some-state")}}.Encode()
	leadsTo(t, b.signIn("/login/oidc?"+next), "/login/confirm")
	if policy := b.open("/login/confirm").Header.Get("Content-Security-Policy"); !strings.Contains(policy, " com.example.notes:") {
		t.Errorf("the form may not lead on to the app: %s", policy)
	}
	a := b.send("/login/confirm", create)
	if to := a.Header.Get("Location"); a.Status != http.StatusSeeOther || !strings.HasPrefix(to, "/oauth/authorize?") || !strings.Contains(to, "some-state") {
		t.Errorf("%d to %s", a.Status, to)
	}
	showsPage(t, b.open(a.Header.Get("Location")), http.StatusOK, "Notes")
	// A cookie has an end.
	long := url.Values{"next": {request(strings.Repeat("s", 3000))}}.Encode()
	showsPage(t, newBrowser(t, s).open("/login/oidc?"+long), http.StatusBadRequest, "limit of 2000 bytes")
}
