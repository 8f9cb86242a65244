package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// drive runs a script of the browser and reads what it saw.
func drive(ctx context.Context, t *testing.T, script string, seen any, env ...string) {
	t.Helper()
	node, chromium := harness.Need(t, "node"), harness.Need(t, "chromium")
	npmFolder(ctx, t, "browser", "axe-core")
	cmd := exec.CommandContext(ctx, node, script)
	cmd.Dir = "browser"
	cmd.Env = append(append(harness.Environ(), "CHROMIUM="+chromium), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s failed: %v\n%s%s", script, err, out.String(), errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), seen); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
}

// TestOAuthInABrowser makes an account, connects apps and disconnects one in Chromium, without JavaScript, by keyboard, on a phone; and looks at the pages with axe-core.
func TestOAuthInABrowser(t *testing.T) {
	row(t, "DP-OAU-1", "DP-OAU-8", "DP-OAU-10", "DP-OAU-12", "DP-OAU-17")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	app := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><link rel="icon" href="data:,"><title>app</title>the app`))
	})
	far, near := httptest.NewTLSServer(app), httptest.NewServer(app)
	defer far.Close()
	defer near.Close()
	named := func(url, host string) string { return strings.Replace(url, "127.0.0.1", host, 1) }
	s := people(t, "PERSQLD_SIGNUP=open")
	issuer := named(s.URL, "localhost") // as no other is set
	admin := s.Client(t, harness.Token)
	callback := named(far.URL, "app.test") + "/callback"
	const scheme = "cursor://anysphere.cursor-mcp/oauth/callback"
	made := func(name, kind, redirect string) string {
		return admin.Post("/v1/oauth-apps", body{"name": name, "type": kind, "redirectUris": []string{redirect}}).OK().Str("data.clientId")
	}
	link := func(client, redirect, scope string, more ...string) string {
		c := &connecting{t: t, s: s, id: client, public: true}
		return c.begins(scope, append([]string{"redirect_uri", redirect}, more...)...)
	}
	wiki, notes := made("Team wiki", "confidential", callback), made("Notes", "public", callback)
	registered := register(s.Client(t, ""), body{"client_name": "Command line", "redirect_uris": []string{"http://127.0.0.1/callback", scheme}}).Str("client_id")
	links, err := json.Marshal(map[string]any{
		"confidential": link(wiki, callback, "openid email profile offline_access"),
		"loopback":     link(registered, near.URL+"/callback", "openid database"),
		"wrong":        link(wiki, "https://evil.test/callback", "openid"),
		"unknown":      link("psqlrp_nobody", callback, "openid"),
		"database":     link(notes, callback, "openid database"),
		"mcp":          link(notes, callback, "", "resource", issuer+"/mcp"),
		"scheme":       link(registered, scheme, "openid"),
		"exchange":     map[string]string{"grant_type": "authorization_code", "client_id": notes, "redirect_uri": callback, "code_verifier": theVerifier},
	})
	if err != nil {
		t.Fatal(err)
	}
	var seen struct {
		Problems, Wider, Violations []string
		Pages                       map[string]struct{ At, Text string }
		Posted                      []struct{ Path, Origin, Site string }
		Stops                       []struct {
			What             []*string
			Outlined, InView bool
		}
		Scheme struct {
			Status int
			To     string
		}
		Picked, Button       string
		Before, After, Rules int
	}
	drive(ctx, t, "oauth.mjs", &seen, "API="+named(s.URL, "sql.test"), "LINKS="+string(links), "EMAIL=ada@example.com", "PASSWORD="+thePassword, "SHOTS="+os.Getenv("SHOTS"))

	for name, want := range map[string]struct {
		at    string
		words []string
	}{
		"sign-in":           {"/login", []string{"Sign in to go on", "Make one"}},
		"sign-up":           {"/signup", []string{"Make an account", "Sign in"}},
		"consent":           {"/oauth/authorize", []string{"Team wiki", strings.TrimPrefix(named(far.URL, "app.test"), "https://"), "Your e-mail address", "Your name and picture", "while you are away", "ada@example.com", "connected apps"}},
		"consent-loopback":  {"/oauth/authorize", []string{"Command line", "127.0.0.1", "on your own", "app's own word", "A private database", "charged to your namespace"}},
		"wrong":             {"/oauth/authorize", []string{"The app's request is wrong", "redirect_uri"}},
		"unknown":           {"/oauth/authorize", []string{"not registered"}},
		"signed-out":        {"/logout", []string{"You are signed out"}},
		"refused":           {"/login", []string{"The e-mail address or the password is wrong"}},
		"consent-database":  {"/oauth/authorize", []string{"Notes", "A private database", "Your other databases stay closed"}},
		"consent-namespace": {"/oauth/authorize", []string{"Which namespace may it use?", "ada", "owner"}},
		"consent-scheme":    {"/oauth/authorize", []string{"Command line", "cursor:"}},
		"apps":              {"/account/apps", []string{"Team wiki", "Notes", "ada/notes", "Disconnect"}},
		"disconnected":      {"/account/apps", []string{"Team wiki"}},
	} {
		got := seen.Pages[name]
		if got.At != want.at {
			t.Errorf("%s is at %s, want %s", name, got.At, want.at)
		}
		for _, word := range want.words {
			if !strings.Contains(got.Text, word) {
				t.Errorf("%s lacks %q: %s", name, word, got.Text)
			}
		}
	}
	for name, want := range map[string]string{"allowed": "code", "remembered": "code", "allowed-database": "code", "allowed-namespace": "code", "denied": "error"} {
		at := seen.Pages[name].At
		to, err := url.Parse(at)
		q := to.Query()
		if begins := map[bool]string{true: near.URL + "/callback", false: callback}[name == "denied"]; err != nil || !strings.HasPrefix(at, begins+"?") || q.Get(want) == "" || q.Get("state") != "the state" || q.Get("iss") != issuer || seen.Pages[name].Text != "the app" {
			t.Errorf("%s is at %s: %q", name, at, seen.Pages[name].Text)
		}
		if name == "denied" && q.Get("error") != "access_denied" {
			t.Errorf("denied is %s", at)
		}
	}
	if seen.Scheme.Status != http.StatusSeeOther || !strings.HasPrefix(seen.Scheme.To, scheme+"?code=") {
		t.Errorf("an app with a scheme of its own: %+v", seen.Scheme)
	}
	if !strings.Contains(seen.Picked, "ada") || seen.Button != "Notes" {
		t.Errorf("picked %q, to disconnect %q", seen.Picked, seen.Button)
	}
	if seen.Before != http.StatusOK || seen.After != http.StatusUnauthorized || strings.Contains(seen.Pages["disconnected"].Text, "Notes") {
		t.Errorf("before disconnecting %d, after it %d: %s", seen.Before, seen.After, seen.Pages["disconnected"].Text)
	}
	// What the browser says of the policy, or of anything else; a wrong password and a wrong request it tells of too, and that there is no app of that scheme.
	if problems := slices.DeleteFunc(seen.Problems, func(p string) bool {
		return strings.Contains(p, "401 (Unauthorized)") || strings.Contains(p, "400 (Bad Request)") || strings.Contains(p, "Failed to launch 'cursor:")
	}); len(problems) > 0 {
		t.Errorf("the browser says %q", problems)
	}
	for _, stop := range seen.Stops {
		if !stop.Outlined || !stop.InView {
			t.Errorf("the keyboard is on %s, which one doesn't see", harness.Text(stop))
		}
	}
	if len(seen.Wider) > 0 {
		t.Errorf("wider than the window: %q", seen.Wider)
	}
	if len(seen.Violations) > 0 || seen.Rules < 20 {
		t.Errorf("%d rules of axe-core passed; it says:\n%s", seen.Rules, strings.Join(seen.Violations, "\n"))
	}
	for _, p := range seen.Posted {
		if p.Origin != named(s.URL, "sql.test") || p.Site != "" {
			t.Errorf("posted with %+v", p)
		}
	}
}

// TestBrowserAppSignsIn is a page of another origin that signs its user in with fetch and PKCE, and tries what it may not.
func TestBrowserAppSignsIn(t *testing.T) {
	row(t, "DP-OAU-2", "DP-OAU-4", "DP-OAU-5", "DP-OAU-7", "DP-OAU-18")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	app := httptest.NewServer(http.FileServer(http.Dir("browser")))
	defer app.Close()
	s := people(t)
	issuer := strings.Replace(s.URL, "127.0.0.1", "localhost", 1) // as no other is set
	enrol(t, s, "ada@example.com", "", "")
	session := cookieOf(t, s.Client(t, "").Post("/api/session", body{"email": "ada@example.com", "password": thePassword}).OK())
	client := s.Client(t, harness.Token).Post("/v1/oauth-apps", body{"name": "Page", "type": "public", "redirectUris": []string{app.URL + "/pkce.html"}}).OK().Str("data.clientId")
	var seen struct {
		Origin, Issuer, Email           string
		State, Iss, IDToken             bool
		Token, Keys, Refreshed, Revoked int
		Form                            int
		Wrong                           struct {
			Status int
			Error  string
		}
		Gone struct {
			Status    int
			Challenge string
		}
		Closed map[string]string
		Framed []string
	}
	drive(ctx, t, "pkce.mjs", &seen, "PAGE="+app.URL+"/pkce.html", "API="+issuer, "CLIENT="+client, "SESSION="+session)
	if seen.Origin != app.URL || seen.Issuer != issuer || !seen.State || !seen.Iss {
		t.Errorf("%+v", seen)
	}
	if seen.Token != http.StatusOK || !seen.IDToken || seen.Keys == 0 || seen.Email != "ada@example.com" || seen.Refreshed != http.StatusOK {
		t.Errorf("%+v", seen)
	}
	if seen.Wrong.Status != http.StatusBadRequest || seen.Wrong.Error != "invalid_grant" {
		t.Errorf("a wrong code: %+v", seen.Wrong)
	}
	if seen.Revoked != http.StatusOK || seen.Gone.Status != http.StatusUnauthorized || !strings.HasPrefix(seen.Gone.Challenge, "Bearer") {
		t.Errorf("revoked: %d, then %+v", seen.Revoked, seen.Gone)
	}
	if len(seen.Closed) != 5 || seen.Form != http.StatusForbidden {
		t.Errorf("%d are closed, and the form of the page is %d", len(seen.Closed), seen.Form)
	}
	for what, got := range seen.Closed {
		if got != "TypeError" {
			t.Errorf("%s can be read: %s", what, got)
		}
	}
	for _, text := range seen.Framed {
		if strings.Contains(text, "Allow") || strings.Contains(text, "persqld") {
			t.Errorf("in a frame: %q", text)
		}
	}
	if len(seen.Framed) != 2 {
		t.Errorf("%d frames", len(seen.Framed))
	}
}
