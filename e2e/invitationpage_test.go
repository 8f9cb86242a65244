package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"html/template"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// hostileForm is a page of another site with one form, as its address says.
var hostileForm = template.Must(template.New("form").Parse(`<!doctype html><title>x</title>
<form method="post" action="{{.Get "action"}}" enctype="{{.Get "type"}}"><input type="hidden" name="{{.Get "field"}}" value="{{.Get "value"}}"><button>win</button></form>`))

// TestInvitationInABrowser accepts invitations in Chromium, without JavaScript and by keyboard, and lets a page of another site try its forms.
func TestInvitationInABrowser(t *testing.T) {
	row(t, "DP-INV-4", "DP-INV-7", "DP-SES-8", "DP-SES-4")
	node, chromium := harness.Need(t, "node"), harness.Need(t, "chromium")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	npmFolder(ctx, t, "browser", "playwright-core")
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		// The client that reads it is looked at below.
		_ = hostileForm.Execute(w, r.URL.Query())
	}))
	defer evil.Close()
	s := people(t)
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	owner.Post("/api/namespaces", body{"slug": "more"}).OK()
	owner.Post("/api/namespaces", body{"slug": "third"}).OK()
	enrol(t, s, "eve@example.com", "", "")
	first, _ := owner.invite("default", body{"role": "editor"})
	second, _ := owner.invite("more", body{"role": "viewer"})
	third, _ := owner.invite("third", body{"role": "viewer"})
	named := func(url, host string) string { return strings.Replace(url, "127.0.0.1", host, 1) }
	cmd := exec.CommandContext(ctx, node, "invitation.mjs")
	cmd.Dir = "browser"
	cmd.Env = append(harness.Environ(), "CHROMIUM="+chromium, "API="+named(s.URL, "sql.test"), "EVIL="+named(evil.URL, "evil.test"), "TOKEN="+first, "SECOND="+second, "THIRD="+third)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("the page failed: %v\n%s%s", err, out.String(), errs.String())
	}
	var seen struct {
		Title, Background, Joined, Second string
		Wider                             bool
		Problems                          []string
		Posted                            []struct{ Origin, Site, Referer string }
		Cookies                           []struct {
			Name, SameSite, Path string
			HTTPOnly, Secure     bool
		}
		Attacks map[string]struct {
			Status int
			Cookie bool
		}
	}
	if err := json.Unmarshal(out.Bytes(), &seen); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if !strings.Contains(seen.Title, "Join default") || !strings.Contains(seen.Joined, "You joined default") || !strings.Contains(seen.Joined, "ada@example.com") {
		t.Errorf("%q: %q", seen.Title, seen.Joined)
	}
	if !strings.Contains(seen.Second, "You joined more") {
		t.Errorf("signed in: %q", seen.Second)
	}
	// The style sheet passes the policy, and knows the dark.
	if seen.Background != "rgb(20, 23, 26)" || seen.Wider || len(seen.Problems) > 0 {
		t.Errorf("background %s, wider than the phone: %v, the browser says %q", seen.Background, seen.Wider, seen.Problems)
	}
	// What the server knows the form by: with no-referrer alone it would be "null".
	if len(seen.Posted) != 1 || seen.Posted[0].Origin != named(s.URL, "sql.test") || seen.Posted[0].Site != "" {
		t.Errorf("posted with %+v", seen.Posted)
	}
	if len(seen.Cookies) != 1 || seen.Cookies[0].Name != "persql_session" || !seen.Cookies[0].HTTPOnly || seen.Cookies[0].SameSite != "Lax" || seen.Cookies[0].Path != "/" {
		t.Errorf("cookies %+v", seen.Cookies)
	}
	for name, a := range seen.Attacks {
		if a.Status != http.StatusForbidden {
			t.Errorf("a page of another site, %s: %d, with the cookie: %v", name, a.Status, a.Cookie)
		}
	}
	if len(seen.Attacks) != 4 {
		t.Errorf("%d attacks", len(seen.Attacks))
	}
	if n := len(owner.Get("/api/namespaces/third/members").OK().List("data")); n != 1 {
		t.Errorf("%d members of the third", n)
	}
	if n := len(owner.Get("/api/namespaces/default/members").OK().List("data")); n != 2 {
		t.Errorf("%d members of the first", n)
	}
}
