package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/upstream/upstreamtest"
)

// asPerson is who is signed in at the browser.
func (b *browser) asPerson() *person {
	b.t.Helper()
	c := b.AsSession(b.session())
	a := c.Get("/api/session").OK()
	return &person{Client: c, t: b.t, id: a.Str("data.user.id"), email: a.Str("data.user.email")}
}

// told are the claims that an app gets with a scope, which the id_token and userinfo say alike; and the access token.
func (c *connecting) told(scope string) (map[string]any, string) {
	c.t.Helper()
	got := c.signsIn(scope)
	var id map[string]any
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(got.Str("id_token")+"..", ".")[1])
	if err != nil || json.Unmarshal(raw, &id) != nil {
		c.t.Fatalf("%s, %v", got.Raw, err)
	}
	info := c.userinfo(got.Str("access_token"))
	for _, name := range []string{"sub", "email", "email_verified", "name", "picture"} {
		_, in := id[name]
		if _, there := info.Body[name]; in != there || id[name] != info.Body[name] {
			c.t.Errorf("%s: %s is %v in the id_token, and %v at userinfo", scope, name, id[name], info.Body[name])
		}
	}
	return id, got.Str("access_token")
}

// An app that is let see the profile learns the picture that a provider told last; nobody fetches or shows it here.
func TestPictureByProvider(t *testing.T) {
	row(t, "DP-UP-11", "DP-OAU-4")
	hub := upstreamtest.NewGitHub(t)
	s, is := upstreamHouse(t, append(hub.Settings(), "PERSQLD_SIGNUP=open")...)
	var fetched atomic.Int64
	pictures := httptest.NewUnstartedServer(http.NotFoundHandler())
	pictures.Config.ConnState = func(net.Conn, http.ConnState) { fetched.Add(1) }
	pictures.StartTLS()
	defer pictures.Close()
	first, second, third := pictures.URL+"/ada.png?s=1&x=2", pictures.URL+"/ada-2.png", pictures.URL+"/octocat.png"
	ada := func(picture any) {
		c := claimsOf("ada@example.com", true)
		c["picture"] = picture
		is.Person(c)
	}
	ada(first)
	b := newBrowser(t, s)
	leadsTo(t, b.signIn("/login/oidc"), "/login/confirm")
	if page := string(b.open("/login/confirm").Raw); strings.Contains(page, "ada.png") {
		t.Errorf("the page shows the picture: %s", page)
	}
	leadsTo(t, b.send("/login/confirm", create), "/login")
	app := connects(t, s, b.asPerson(), false)
	showsPage(t, b.open(app.begins("openid profile")), http.StatusOK, "Your name and picture")
	claims, access := app.told("openid profile")
	if claims["picture"] != first || claims["name"] != "Name of ada@example.com" {
		t.Errorf("the claims are %v", claims)
	}
	mail, _ := app.told("openid email")
	if _, has := mail["picture"]; has || mail["email"] != "ada@example.com" || mail["name"] != nil {
		t.Errorf("without profile the claims are %v", mail)
	}
	for _, path := range []string{"/account", "/account/apps", "/login"} {
		if a := b.open(path); a.Status != http.StatusOK || strings.Contains(string(a.Raw), "ada.png") || strings.Contains(a.Header.Get("Content-Security-Policy"), "img-src https:") {
			t.Errorf("%s: %d %s\n%s", path, a.Status, a.Header.Get("Content-Security-Policy"), a.Raw)
		}
	}

	shows := func(what string, want any) {
		t.Helper()
		app.ada = b.asPerson()
		if claims, _ := app.told("openid profile"); claims["picture"] != want {
			t.Errorf("%s: the picture is %v, want %v", what, claims["picture"], want)
		}
	}
	again := func(path string) {
		t.Helper()
		leadsTo(t, b.signIn(path), "/login")
	}
	// Another picture at the next sign-in: what userinfo says for a token that was there before changes too.
	ada(second)
	again("/login/oidc")
	shows("another", second)
	if got := app.userinfo(access).Str("picture"); got != second {
		t.Errorf("userinfo says %s", got)
	}
	// By GitHub, which is linked: its avatar.
	hub.Person(7, "ada", "Ada", upstreamtest.Email{Email: "ada@example.com", Primary: true, Verified: true})
	hub.Picture(third)
	leadsTo(t, b.signIn("/login/github?link"), "/login/confirm")
	leadsTo(t, b.send("/login/confirm", link), "/account")
	shows("linked", third)
	hub.Picture(third + "?v=2")
	again("/login/github")
	shows("of GitHub", third+"?v=2")
	// What can't be one is none: the sign-in goes on, and takes back nothing but what the same provider told.
	ada("javascript:alert(1)")
	again("/login/oidc")
	shows("a wicked one beside another's", third+"?v=2")
	list := b.AsSession(b.session()).Get("/api/identities").OK()
	leadsTo(t, b.send("/account", url.Values{"unlink": {list.Is("data.1.provider", "github").Str("data.1.id")}}), "/account")
	shows("unlinked", nil)
	ada(second)
	again("/login/oidc")
	shows("told again", second)
	for _, wicked := range []any{"javascript:alert(1)", "http://pictures.example/x", "https://ada@pictures.example/x", "https://pictures.example/" + strings.Repeat("x", 500), map[string]any{"url": second}, 7} {
		ada(second)
		again("/login/oidc")
		ada(wicked)
		again("/login/oidc")
		shows(fmt.Sprint(wicked), nil)
	}
	// Beside a long way to go on there is no room for one: it comes with the next sign-in.
	long := pictures.URL + "/" + strings.Repeat("p", 400)
	bob := claimsOf("bob@example.com", true)
	bob["picture"] = long
	is.Person(bob)
	b = newBrowser(t, s)
	next := "/account?" + strings.Repeat("n", 1900)
	leadsTo(t, b.signIn("/login/oidc?next="+next), "/login/confirm")
	leadsTo(t, b.send("/login/confirm", create), next)
	shows("no room", nil)
	again("/login/oidc")
	shows("the next time", long)

	changed := 0
	for _, e := range s.JSONOf(t, "audit", "--limit", "500")["entries"].([]any) {
		if m, _ := e.(map[string]any)["metadata"].(map[string]any); m["pictureChanged"] == true {
			changed++
		}
		if text := harness.Text(e); strings.Contains(text, pictures.URL) {
			t.Errorf("the audit log has the picture: %s", text)
		}
	}
	if changed < 10 {
		t.Errorf("%d entries say that the picture changed", changed)
	}
	if fetched.Load() != 0 || strings.Contains(s.Log(), pictures.URL) {
		t.Errorf("%d connections to the pictures; the log has them: %v", fetched.Load(), strings.Contains(s.Log(), pictures.URL))
	}
}
