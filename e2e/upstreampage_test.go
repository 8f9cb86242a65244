package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/upstream/upstreamtest"
)

// TestSignInPagesInABrowser signs up and in by providers in Chromium, without JavaScript and by keyboard, and looks at the pages with axe-core.
func TestSignInPagesInABrowser(t *testing.T) {
	row(t, "DP-UP-2", "DP-UP-3", "DP-PAGE-4", "DP-PAGE-7", "DP-ACC-6")
	node, chromium := harness.Need(t, "node"), harness.Need(t, "chromium")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	npmFolder(ctx, t, "browser", "axe-core")
	hub := upstreamtest.NewGitHub(t)
	hub.Person(7, "ada", "Ada", upstreamtest.Email{Email: "ada.with.a.long.address.that.a.phone.has.no.room.for@private.example.com", Primary: true, Verified: true})
	s, is := upstreamHouse(t, append(hub.Settings(), "PERSQLD_SIGNUP=open")...)
	is.Person(claimsOf("ada@example.com", true))
	enrol(t, s, "bob@example.com", "", "")
	_, reset, _ := strings.Cut(s.JSONOf(t, "user", "reset-link", "--email", "bob@example.com")["url"].(string), "sql.example.com")
	cmd := exec.CommandContext(ctx, node, "signin.mjs")
	cmd.Dir = "browser"
	cmd.Env = append(harness.Environ(), "CHROMIUM="+chromium, "API=http://sql.example.com", "AT="+s.Addr, "RESET="+reset, "SHOTS="+os.Getenv("SHOTS"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("the pages failed: %v\n%s%s", err, out.String(), errs.String())
	}
	var seen struct {
		FirstAt, ConfirmAt, Confirm, MadeAt, Made, Link, Linked, WithPassword, Out, Reset string
		Problems, Violations, Cookies                                                     []string
		Rules                                                                             int
	}
	if err := json.Unmarshal(out.Bytes(), &seen); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	for what, got := range map[string][2]string{
		"the first page":        {seen.FirstAt, "/login?next=%2Faccount"},
		"the provider's return": {seen.ConfirmAt, "/login/confirm"},
		"the new account":       {seen.MadeAt, "/account"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is at %q, want %q", what, got[0], got[1])
		}
	}
	for text, words := range map[string][]string{
		seen.Confirm:      {"ada@example.com", "Example ID", "Make an account"},
		seen.Made:         {"Your account", "verified", "Example ID", "Set a password"},
		seen.Link:         {"Link this sign-in", "ada.with.a.long.address", "Is it yours?"},
		seen.Linked:       {"GitHub", "ada.with.a.long.address"},
		seen.WithPassword: {"Change the password"},
		seen.Out:          {"all of your sessions have ended"},
		seen.Reset:        {"The password is set", "bob@example.com"},
	} {
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("the page lacks %q: %s", word, text)
			}
		}
	}
	if len(seen.Violations) > 0 || seen.Rules < 20 {
		t.Errorf("%d rules of axe-core passed; it says:\n%s", seen.Rules, strings.Join(seen.Violations, "\n"))
	}
	if len(seen.Problems) > 0 || slices.Contains(seen.Cookies, "persql_session") {
		t.Errorf("the browser says %q, and has %v", seen.Problems, seen.Cookies)
	}
}
