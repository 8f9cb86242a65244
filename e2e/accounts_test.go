package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// withInput runs a subcommand with a standard input.
func withInput(t testing.TB, s *harness.Server, input string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(harness.Environ(), "PERSQLD_DATA="+s.Data)
	cmd.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestUserCommands(t *testing.T) {
	row(t, "DP-ACC-1")
	s := people(t)
	for range 2 { // with a server, then without
		if out, errs, code := withInput(t, s, thePassword+"\n", "user", "create", "--email", fmt.Sprint(unused(), "@example.com"), "--namespace", "default", "--json"); code != 0 || !strings.Contains(out, `"role":"admin"`) {
			t.Errorf("%d %s%s", code, out, errs)
		}
		for _, bad := range []struct {
			args  []string
			input string
			code  int
			word  string
		}{
			{[]string{"create", "--email", "nobody"}, thePassword, 1, "bad_email"},
			{[]string{"create", "--email", "a@example.com"}, "1234567\n", 1, "bad_password"},
			{[]string{"create", "--email", "a@example.com"}, "", 1, "bad_password"},
			{[]string{"create", "--email", "a@example.com"}, strings.Repeat("x", 1100), 1, "bad_password"},
			{[]string{"create", "--email", "a@example.com", "--namespace", "none"}, thePassword, 1, "not_found"},
			{[]string{"create", "--email", "a@example.com", "--namespace", "default", "--role", "god"}, thePassword, 1, "bad_role"},
			{[]string{"create", "--email", "a@example.com", "--role", "owner"}, thePassword, 2, "usage"},
			{[]string{"create"}, thePassword, 2, "usage"},
			{[]string{"reset-password", "--email", "nobody@example.com"}, thePassword, 1, "not_found"},
		} {
			out, errs, code := withInput(t, s, bad.input, append(append([]string{"user"}, bad.args...), "--json")...)
			var problem struct{ Error, Code string }
			if err := json.Unmarshal([]byte(out), &problem); err != nil || code != bad.code || problem.Code != bad.word || problem.Error == "" || strings.Contains(out+errs, thePassword) {
				t.Errorf("%v: %d %s%s", bad.args, code, out, errs)
			}
		}
		s.Stop(t)
	}
	users := s.JSONOf(t, "user", "list")["users"].([]any)
	if len(users) != 2 {
		t.Fatalf("%d users", len(users))
	}
	email := users[1].(map[string]any)["email"].(string)
	if out, errs, code := withInput(t, s, "", "user", "create", "--email", strings.ToUpper(email), "--password", thePassword, "--json"); code != 1 || !strings.Contains(out, `"conflict"`) {
		t.Errorf("the same again: %d %s%s", code, out, errs)
	}
	if out, errs, code := withInput(t, s, "another password\r\n", "user", "reset-password", "--email", email); code != 0 {
		t.Errorf("%d %s%s", code, out, errs)
	}
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: quick})
	c := s.Client(t, "")
	c.Post("/api/session", body{"email": email, "password": thePassword}).Fails(http.StatusUnauthorized, "")
	c.Post("/api/session", body{"email": email, "password": "another password"}).OK()
	if out, _, code := s.CLI(t, "user", "list"); code != 0 || !strings.Contains(out, email) || !strings.Contains(out, "default:admin") {
		t.Errorf("%d %s", code, out)
	}
}

func TestFirstUser(t *testing.T) {
	row(t, "DP-ACC-2")
	t.Run("of the settings", func(t *testing.T) {
		env := []string{"PERSQLD_ADMIN_EMAIL=Ada@Example.com", "PERSQLD_ADMIN_PASSWORD=" + thePassword, "PERSQLD_NAMESPACE=acme"}
		s := people(t, env...)
		if strings.Contains(s.Out(), "/invite/") {
			t.Error("there is a sign-up link too")
		}
		ada := signIn(t, s, "ada@example.com")
		ada.Get("/api/namespaces").OK().Is("data.0.slug", "acme").Is("data.0.role", "owner").Is("data.1.slug", "ada")
		s.JSONOf(t, "user", "reset-password", "--email", "ada@example.com", "--password", "another password")
		s.Stop(t)
		s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: append(append([]string{}, quick...), env...)})
		c := s.Client(t, "")
		c.Post("/api/session", body{"email": "ada@example.com", "password": thePassword}).Fails(http.StatusUnauthorized, "")
		c.Post("/api/session", body{"email": "ada@example.com", "password": "another password"}).OK()
		if n := len(s.JSONOf(t, "user", "list")["users"].([]any)); n != 1 {
			t.Errorf("%d users", n)
		}
	})
	t.Run("by the link", func(t *testing.T) {
		s := people(t)
		var link string
		eventually(t, 5*time.Second, func() bool { link = regexp.MustCompile(`http://\S+/invite/\S+`).FindString(s.Out()); return link != "" })
		u, err := url.Parse(link)
		if err != nil || link == "" {
			t.Fatalf("no link in %q: %v", s.Out(), err)
		}
		c := s.Client(t, "")
		if page := c.Get(u.Path); page.Status != http.StatusOK || !strings.Contains(string(page.Raw), "owner") {
			t.Errorf("the page: %d", page.Status)
		}
		token := strings.TrimPrefix(u.Path, "/invite/")
		a := accept(c, token, body{"email": "ada@example.com", "password": thePassword}).OK()
		a.Is("data.namespaces.1.slug", "default").Is("data.namespaces.1.role", "owner")
		accept(c, token, body{"email": "eve@example.com", "password": thePassword}).Fails(http.StatusNotFound, "not_found")
		s.Stop(t)
		s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: quick})
		if strings.Contains(s.Out(), "/invite/") {
			t.Error("the second start prints a link")
		}
	})
}

// homes checks that each user has exactly one namespace, with the database main, that can be used.
func homes(t *testing.T, s *harness.Server, emails ...string) {
	t.Helper()
	for _, email := range emails {
		p := signIn(t, s, email)
		list := p.Get("/api/namespaces").OK()
		if n := len(list.List("data")); n != 1 {
			t.Errorf("%s has %d namespaces: %s", email, n, list.Raw)
			continue
		}
		at := "/api/namespaces/" + list.Str("data.0.slug") + "/databases"
		if databases := p.Get(at).OK(); len(databases.List("data")) != 1 || databases.Str("data.0.slug") != "main" {
			t.Errorf("%s has the databases %s", email, databases.Raw)
		}
		p.Post(at+"/main/query", harness.Body("CREATE TABLE IF NOT EXISTS t(a)")).OK()
	}
}

// TestRacingFirstSignIns has the first sign-ins of a person race, and kills the server among them.
func TestRacingFirstSignIns(t *testing.T) {
	row(t, "DP-ACC-4")
	s := people(t)
	var emails []string
	for i := range 6 {
		email := fmt.Sprintf("ada@host%d.example", i)
		emails = append(emails, email)
		s.JSONOf(t, "user", "create", "--email", email, "--password", thePassword)
		parallel(t, 6, func(int) {
			a, err := s.Client(t, "").Try(http.MethodPost, "/api/session", body{"email": email, "password": thePassword})
			if err != nil || a.Status != http.StatusOK && a.Status != http.StatusTooManyRequests {
				t.Errorf("%v %v", a, err)
			}
		})
	}
	homes(t, s, emails...)
	signIn(t, s, emails[5]).Get("/api/namespaces").OK().Is("data.0.slug", "ada-6")
	for round := range 4 {
		var late []string
		for i := range 12 {
			email := fmt.Sprintf("eve@host%d-%d.example", round, i)
			late = append(late, email)
			s.JSONOf(t, "user", "create", "--email", email, "--password", thePassword)
		}
		some := make(chan struct{}, len(late))
		var wg sync.WaitGroup
		for _, email := range late {
			wg.Go(func() {
				// An answer, or the end of the server.
				_, _ = s.Client(t, "").Try(http.MethodPost, "/api/session", body{"email": email, "password": thePassword})
				some <- struct{}{}
			})
		}
		for range round + 1 {
			<-some
		}
		s.Kill()
		wg.Wait()
		s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: quick})
		homes(t, s, late...)
	}
}

// TestSecretsOfPeople looks for passwords, cookies and tokens of invitations in all files and the log.
func TestSecretsOfPeople(t *testing.T) {
	row(t, "DP-SES-11")
	s := people(t, "PERSQLD_LOG=debug", "PERSQLD_SIGNUP=open", "PERSQLD_ADMIN_EMAIL=admin@example.com", "PERSQLD_ADMIN_PASSWORD=password-of-the-settings")
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	secrets := []string{thePassword, "password-of-the-settings", "password-of-a-form", "password-by-invitation", "password-of-a-stranger", "password-that-is-new", "wrong-password-of-somebody", "password-in-bad-json", "password-too-short", owner.Cookie()}
	c := s.Client(t, "")
	open, _ := owner.invite("default", body{"role": "viewer"})
	used, _ := owner.invite("default", body{"role": "viewer"})
	revoked, id := owner.invite("default", body{"role": "viewer"})
	formed, _ := owner.invite("default", body{"role": "viewer"})
	secrets = append(secrets, open, used, revoked, formed)
	secrets = append(secrets, cookieOf(t, accept(c, used, body{"email": "ada@example.com", "password": "password-by-invitation"}).OK()))
	c.Get("/invite/" + open)
	c.Get("/invite/" + used)
	accept(c, open+"x", nil)
	owner.Do(http.MethodDelete, "/api/namespaces/default/invitations/"+id, nil).OK()
	a := c.Post("/invite/"+formed, harness.Raw(url.Values{"action": {"signup"}, "email": {"form@example.com"}, "password": {"password-of-a-form"}}.Encode()), formType)
	secrets = append(secrets, cookieOf(t, a))
	secrets = append(secrets, cookieOf(t, c.Post("/api/signup", body{"email": "stranger@example.com", "password": "password-of-a-stranger"}).OK()))
	c.Post("/api/session", body{"email": "owner@example.com", "password": "wrong-password-of-somebody"})
	c.Post("/api/session", harness.Raw(`{"email":"owner@example.com","password":password-in-bad-json}`))
	c.Post("/api/session", harness.Raw(`{"email":"owner@example.com","password":["password-in-bad-json"]}`))
	c.Get("/api/session", harness.Header("Cookie: persql_session="+owner.Cookie()+"; persql_session="+owner.Cookie()))
	s.JSONOf(t, "user", "reset-password", "--email", "ada@example.com", "--password", "password-that-is-new")
	last := signIn(t, s, owner.email)
	secrets = append(secrets, last.Cookie())
	last.Do(http.MethodDelete, "/api/session", nil).OK()
	look := func() {
		t.Helper()
		found := 0
		err := filepath.WalkDir(s.Data, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found++
			for _, secret := range secrets {
				if bytes.Contains(content, []byte(secret)) {
					t.Errorf("%s holds %q", path, secret)
				}
			}
			return nil
		})
		if err != nil || found < 3 {
			t.Errorf("%d files, %v", found, err)
		}
		for _, secret := range secrets {
			if strings.Contains(s.Log()+s.Out(), secret) {
				t.Errorf("the log holds %q", secret)
			}
		}
	}
	look() // with the write-ahead log
	s.Stop(t)
	look()
}
