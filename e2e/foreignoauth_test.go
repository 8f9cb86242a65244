package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// visitor is somebody with a browser: it has cookies, goes where it is sent, and fills in what it is shown.
type visitor struct {
	t       testing.TB
	http    *http.Client
	email   string
	signIns int // forms of the sign-in that were filled in
}

func visits(t testing.TB, email string) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{t: t, email: email, http: &http.Client{Jar: jar, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// with is the same person in a subtest.
func (v *visitor) with(t testing.TB) *visitor {
	w := *v
	w.t = t
	return &w
}

var (
	formTag   = regexp.MustCompile(`<form method="post"( action="([^"]*)")?>`)
	radioTag  = regexp.MustCompile(`<input type="radio" name="([^"]*)" value="([^"]*)"`)
	hiddenTag = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// sees goes to an app's address, decides ("allow" or "deny") if it is asked, and returns the address that the app is called back at.
func (v *visitor) sees(authorize, callback, decision string) string {
	v.t.Helper()
	at, form := authorize, url.Values(nil)
	for range 10 {
		resp := v.sends(at, form)
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			v.t.Fatal(err)
		}
		form = nil
		if resp.StatusCode == http.StatusSeeOther {
			to, err := resp.Location()
			if err != nil {
				v.t.Fatal(err)
			}
			if at = to.String(); strings.HasPrefix(at, callback+"?") {
				return at
			}
			continue
		}
		page := string(raw)
		m := formTag.FindStringSubmatch(page)
		if resp.StatusCode != http.StatusOK || m == nil {
			v.t.Fatalf("%s: %d %s", at, resp.StatusCode, page)
		}
		form = url.Values{}
		for _, h := range hiddenTag.FindAllStringSubmatch(page, -1) {
			form.Set(h[1], html.UnescapeString(h[2]))
		}
		if strings.Contains(page, `name="password"`) {
			v.signIns++
			form.Set("email", v.email)
			form.Set("password", thePassword)
		} else {
			form.Set("decision", decision)
			if m := radioTag.FindStringSubmatch(page); m != nil { // the first namespace that there is to pick
				form.Set(m[1], html.UnescapeString(m[2]))
			}
		}
		if m[2] != "" {
			to, err := resp.Request.URL.Parse(html.UnescapeString(m[2]))
			if err != nil {
				v.t.Fatal(err)
			}
			at = to.String()
		}
	}
	v.t.Fatalf("%s: goes round and round, at last to %s", authorize, at)
	return ""
}

// sends is one request of the browser, with what browsers send of themselves.
func (v *visitor) sends(at string, form url.Values) *http.Response {
	v.t.Helper()
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(v.t.Context(), method, at, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", "null") // by Referrer-Policy: no-referrer
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	resp, err := v.http.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp
}

// foreign is an app that is made of a library of others, and what it should see.
type foreign struct {
	Issuer      string `json:"issuer"`
	ID          string `json:"clientId,omitempty"`
	Secret      string `json:"clientSecret,omitempty"`
	Method      string `json:"method"`
	RedirectURI string `json:"redirectUri"`
	Register    bool   `json:"register,omitempty"`
}

const loopback = "http://127.0.0.1/callback" // as it is registered: of any port

// madeFor registers an app for a way of showing who one is.
func madeFor(t testing.TB, s *harness.Server, method string) *foreign {
	t.Helper()
	f := &foreign{Issuer: s.URL, Method: method, RedirectURI: theCallback}
	app, uri := body{"name": "App Data", "type": "confidential"}, theCallback
	if method == "none" {
		app["type"], uri, f.RedirectURI = "public", loopback, "http://127.0.0.1:49152/callback"
	}
	app["redirectUris"] = []string{uri}
	a := s.Client(t, harness.Token).Post("/v1/oauth-apps", app).OK()
	f.ID = a.Str("data.clientId")
	if method != "none" {
		f.Secret = a.Str("data.clientSecret")
	}
	return f
}

// sees is the verdict that every library has to come to.
func (f *foreign) sees(ada *person) map[string]any {
	const all, invalid = "openid email profile offline_access", "invalid_grant"
	v := map[string]any{
		"issuer": f.Issuer, "sub": ada.id, "email": ada.email, "name": "Ada", "claims": []any{ada.email, "Ada"}, "scope": all, "expiresIn": 3600.0,
		"wider": []any{"invalid_scope", "invalid_target", "unsupported_grant_type"}, "refreshed": true, "active": []any{true, true}, "revoked": []any{false, "invalid_token", invalid}, "reused": []any{invalid, "invalid_token"}, "fresh": true,
		"withoutIss": "refused", "otherIss": "refused", "stranger": "invalid_client", "verifier": invalid, "used": []any{invalid, "invalid_token"}, "denied": "access_denied", "silent": true,
		"rows": []any{[]any{"by an app"}}, "database": true, "userEmail": ada.email, "expires": "never",
	}
	if f.Secret == "" { // may not ask about tokens, and is not remembered
		v["active"], v["revoked"], v["silent"] = []any{"invalid_client", "invalid_client"}, []any{"invalid_client", "invalid_token", invalid}, "consent_required"
	}
	if f.Register {
		v["mcp"] = []any{true, "", 30 * 86400.0, "invalid_token", "Invalid or expired token"}
	}
	return v
}

// agrees compares a verdict with what it should be.
func (f *foreign) agrees(t testing.TB, ada *person, got map[string]any, but ...string) {
	t.Helper()
	want := f.sees(ada)
	for _, name := range but {
		delete(want, name)
	}
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s: %v, want %v", name, got[name], want[name])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %v, which nobody looks at", name, got[name])
		}
	}
}

// runs runs a program that is the app, plays its user, and returns its verdict.
func (f *foreign) runs(t testing.TB, v *visitor, env []string, program ...string) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	config, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, program[0], append(program[1:], string(config))...)
	cmd.Dir = "foreign"
	cmd.Env = append(harness.Environ(), env...)
	var errs strings.Builder
	cmd.Stderr = &errs
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var verdict map[string]any
	for lines := bufio.NewScanner(out); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "allow", "deny":
			_, err = fmt.Fprintln(in, v.sees(rest, f.RedirectURI, word))
		case "verdict":
			err = json.Unmarshal([]byte(rest), &verdict)
		default:
			err = fmt.Errorf("it says %q", lines.Text())
		}
		if err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Wait(); err != nil || verdict == nil {
		t.Fatalf("%v: %v\n%s", program, err, errs.String())
	}
	return verdict
}

// pythonFolder is the absolute path of what requirements.txt names, installed.
func pythonFolder(ctx context.Context, t testing.TB, python string) string {
	t.Helper()
	if out, err := exec.CommandContext(ctx, repository(t, "scripts", "foreign-python"), python).CombinedOutput(); err != nil {
		t.Logf("scripts/foreign-python: %v\n%s", err, out)
		harness.Lacking(t, "Authlib (scripts/foreign-python failed)")
	}
	return repository(t, ".cache", "foreign-python")
}

// TestForeignRelyingParties has relying parties that are made of libraries of others, unchanged, do all that this server has for them. What they may do that their defaults
// forbid is http, since the issuer is on this machine.
func TestForeignRelyingParties(t *testing.T) {
	row(t, "DP-OAU-19", "DP-OAC-4")
	s := harness.Start(t, binary, harness.Options{Public: true, Env: quick})
	s.JSONOf(t, "user", "create", "--email", "ada@example.com", "--password", thePassword, "--name", "Ada", "--namespace", "default", "--role", "owner")
	ada := signIn(t, s, "ada@example.com")
	const basic, post, none = "client_secret_basic", "client_secret_post", "none"
	try := func(t *testing.T, name, method string, register bool, run func(t testing.TB, f *foreign, v *visitor) map[string]any, but ...string) {
		t.Run(name+"/"+method+map[bool]string{true: "/registered"}[register], func(t *testing.T) {
			f, v := madeFor(t, s, method), visits(t, ada.email)
			if f.Register = register; register {
				f.ID = ""
			}
			f.agrees(t, ada, run(t, f, v), but...)
			if v.signIns != 2 { // once, and once more where max_age=0 asked for it
				t.Errorf("signed in %d times", v.signIns)
			}
		})
	}
	t.Run("node", func(t *testing.T) {
		node := harness.Need(t, "node")
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		npmFolder(ctx, t, "foreign", "openid-client")
		for _, library := range []string{"openid-client", "oauth4webapi"} {
			run := func(t testing.TB, f *foreign, v *visitor) map[string]any {
				return f.runs(t, v, nil, node, library+".mjs")
			}
			for _, method := range []string{basic, post, none} {
				try(t, library, method, false, run)
			}
			try(t, library, none, true, run)
		}
	})
	t.Run("python", func(t *testing.T) {
		python := harness.Need(t, "python3")
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		env := []string{"PYTHONPATH=" + pythonFolder(ctx, t, python), "PYTHONDONTWRITEBYTECODE=1", "AUTHLIB_INSECURE_TRANSPORT=1"}
		for _, method := range []string{basic, post, none} {
			try(t, "authlib", method, false, func(t testing.TB, f *foreign, v *visitor) map[string]any {
				return f.runs(t, v, env, python, "authlib_rp.py")
			}, "withoutIss", "otherIss")
		}
	})
	t.Run("go", func(t *testing.T) {
		for _, method := range []string{basic, post, none} {
			try(t, "go-oidc", method, false, goRelyingParty, "withoutIss", "otherIss")
		}
	})
}
