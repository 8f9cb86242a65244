package e2e_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

const (
	appsPath     = "/v1/oauth-apps"
	registerPath = "/oauth/register"
)

func newApp(more body) body {
	b := body{"name": "app", "redirectUris": []string{"https://app.example.com/callback"}}
	for k, v := range more {
		b[k] = v
	}
	return b
}

// register sends a registration; the answer has no envelope.
func register(c *harness.Client, send any, headers ...harness.Header) *harness.Answer {
	a := c.Post(registerPath, send, headers...)
	_ = json.Unmarshal(a.Raw, &a.Body) // what it lacks is missed
	return a
}

func TestOAuthApps(t *testing.T) {
	row(t, "DP-OAC-1", "DP-OAC-2", "DP-OAC-6")
	s := harness.Start(t, binary, harness.Options{Env: quick})
	admin := s.Client(t, harness.Token)
	a := admin.Post(appsPath, newApp(body{"type": "confidential"})).OK().Is("data.type", "confidential").Is("data.requirePkce", "false").Is("data.scopes", "[]").Is("data.redirectUris.0", "https://app.example.com/callback").Is("data.lastUsedAt", "null")
	id, secret := a.Str("data.clientId"), a.Str("data.clientSecret")
	if !strings.HasPrefix(id, "psqlrp_") || !strings.HasPrefix(secret, "psqlrs_") || len(secret) < 39 || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %s, Cache-Control %q", id, secret, a.Header.Get("Cache-Control"))
	}
	public := admin.Post(appsPath, newApp(body{"type": "public", "redirectUris": []string{"cursor://anysphere.cursor-mcp/oauth/callback", "http://localhost/cb"}, "scopes": []string{"openid", "database"}})).OK().
		Is("data.type", "public").Is("data.requirePkce", "true").Is("data.clientSecret", "null").Is("data.secrets", "[]")
	admin.Post(appsPath, newApp(nil)).OK().Is("data.type", "confidential")
	// The secret is shown once, and is in no file as it is.
	for _, path := range []string{appsPath, appsPath + "/" + id} {
		if got := admin.Get(path).OK(); strings.Contains(string(got.Raw), secret) || strings.Contains(string(got.Raw), "clientSecret") {
			t.Errorf("%s: %s", path, got.Raw)
		}
	}
	admin.Get(appsPath).OK().Is("data.0.clientId", id).Is("data.1.clientId", public.Str("data.clientId"))
	admin.Get(appsPath+"/"+id).OK().Is("data.name", "app")

	admin.Do(http.MethodPatch, appsPath+"/"+id, body{"name": "other", "redirectUris": []string{"https://b.example/cb"}, "scopes": []string{"openid"}, "requirePkce": true}).OK().
		Is("data.name", "other").Is("data.redirectUris.0", "https://b.example/cb").Is("data.scopes.0", "openid").Is("data.requirePkce", "true").Is("data.clientSecret", "null")
	admin.Do(http.MethodPatch, appsPath+"/"+id, body{"scopes": []string{}}).OK().Is("data.scopes", "[]").Is("data.name", "other").Is("data.requirePkce", "true")

	for what, bad := range map[string]any{"no name": body{"redirectUris": []string{"https://a.example/"}}, "an empty name": newApp(body{"name": ""}), "a name that turns": newApp(body{"name": "a\u202eb"}), "no URIs": body{"name": "a"}, "none": newApp(body{"redirectUris": []string{}}),
		"one twice": newApp(body{"redirectUris": []string{"https://a.example/", "https://a.example/"}}), "another type": newApp(body{"type": "native"}), "another scope": newApp(body{"scopes": []string{"admin"}}), "a scope twice": newApp(body{"scopes": []string{"openid", "openid"}}),
		"public without PKCE": newApp(body{"type": "public", "requirePkce": false}), "a misspelled member": newApp(body{"requirePKCE": true}), "a list": harness.Raw("[]"), "null": harness.Raw("null"), "a member twice": harness.Raw(`{"name":"a","name":"b","redirectUris":["https://a.example/"]}`)} {
		if got := admin.Post(appsPath, bad); got.Status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", what, got.Status, got.Raw)
		}
	}
	admin.Do(http.MethodPatch, appsPath+"/"+id, body{"type": "public"}).Fails(http.StatusBadRequest, "invalid_oauth_app")
	admin.Do(http.MethodPatch, appsPath+"/"+public.Str("data.clientId"), body{"requirePkce": false}).Fails(http.StatusBadRequest, "invalid_oauth_app")
	admin.Post(appsPath, newApp(nil), "Plan-Key: x").Fails(http.StatusBadRequest, "invalid_idempotency_key")

	// Another namespace sees and changes nothing of it.
	s.JSONOf(t, "namespace", "create", "rival")
	_, rivalToken := newToken(t, s, "--namespace", "rival")
	rival := s.Client(t, rivalToken)
	rival.Get(appsPath).OK().Is("data", "[]")
	rival.Get(appsPath+"/"+id).Fails(http.StatusNotFound, "not_found")
	rival.Do(http.MethodPatch, appsPath+"/"+id, body{"name": "x"}).Fails(http.StatusNotFound, "not_found")
	rival.Do(http.MethodDelete, appsPath+"/"+id, nil).Fails(http.StatusNotFound, "not_found")
	rival.Post(appsPath+"/"+id+"/rotate-secret", nil).Fails(http.StatusNotFound, "not_found")
	// Nor does a token of less.
	test := s.Client(t, admin.Post("/v1/tokens", body{"test": true}).OK().Str("data.token"))
	test.Get(appsPath).OK()
	for _, c := range []*harness.Client{test, s.Client(t, admin.Post("/v1/tokens", body{"role": "write"}).OK().Str("data.token")), s.Client(t, admin.Post("/v1/tokens", body{"tableScope": []string{"t"}}).OK().Str("data.token"))} {
		c.Post(appsPath, newApp(nil)).Fails(http.StatusForbidden, "")
		c.Do(http.MethodPatch, appsPath+"/"+id, body{"name": "x"}).Fails(http.StatusForbidden, "")
		c.Post(appsPath+"/"+id+"/rotate-secret", nil).Fails(http.StatusForbidden, "")
		c.Do(http.MethodDelete, appsPath+"/"+id, nil).Fails(http.StatusForbidden, "")
	}

	// It all stays, whatever ends the server.
	s.Kill()
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: quick})
	admin = s.Client(t, harness.Token)
	admin.Get(appsPath+"/"+id).OK().Is("data.name", "other").Is("data.requirePkce", "true").Tells(secret[len(secret)-4:])
	admin.Do(http.MethodDelete, appsPath+"/"+id, nil, "Plan-Key: some-plan", "Plan-Step: 1").Fails(http.StatusBadRequest, "")
	admin.Do(http.MethodDelete, appsPath+"/"+id, nil).OK().Is("data.deleted", "true").Is("data.clientId", id)
	admin.Get(appsPath+"/"+id).Fails(http.StatusNotFound, "not_found")
	admin.Do(http.MethodDelete, appsPath+"/"+id, nil).Fails(http.StatusNotFound, "not_found")
	// With its namespace go its apps.
	rival = s.Client(t, rivalToken)
	rivals := rival.Post(appsPath, newApp(nil)).OK().Str("data.clientId")
	s.JSONOf(t, "namespace", "delete", "rival", "--force")
	for _, cl := range s.JSONOf(t, "oauth-client", "list")["clients"].([]any) {
		if cl.(map[string]any)["client_id"] == rivals {
			t.Error("the app of a namespace that is gone is there")
		}
	}
}

func TestOAuthSecretRotation(t *testing.T) {
	row(t, "DP-OAC-3")
	s := harness.Start(t, binary, harness.Options{Env: append([]string{"PERSQLD_OAUTH_SECRET_OVERLAP=2h"}, quick...)})
	admin := s.Client(t, harness.Token)
	a := admin.Post(appsPath, newApp(nil)).OK()
	path := appsPath + "/" + a.Str("data.clientId") + "/rotate-secret"
	lasts := func(a *harness.Answer, want time.Duration) {
		t.Helper()
		ends, err := time.Parse(time.RFC3339, a.Str("data.secrets.1.endsAt"))
		if left := time.Until(ends); err != nil || left > want || left < want-time.Minute {
			t.Errorf("the former secret works for %v, not %v: %v", left, want, err)
		}
	}
	first := admin.Post(path, nil).OK().Is("data.secrets.0.endsAt", "null")
	if first.Str("data.clientSecret") == a.Str("data.clientSecret") || first.Header.Get("Cache-Control") != "no-store" {
		t.Error("the same secret, or one that may be kept")
	}
	lasts(first, 2*time.Hour)
	lasts(admin.Post(path, body{"overlapSec": 600}).OK(), 10*time.Minute)
	if n := len(admin.Post(path, body{"overlapSec": 0}).OK().At("data.secrets").([]any)); n != 1 {
		t.Errorf("%d secrets work after a rotation without overlap", n)
	}
	for range 4 {
		admin.Post(path, nil).OK()
	}
	admin.Post(path, nil).Fails(http.StatusConflict, "too_many_secrets").Tells("overlapSec")
	admin.Post(path, body{"overlapSec": 0}).OK()
	for _, bad := range []any{body{"overlapSec": -1}, body{"overlapSec": 1.5}, body{"overlapSec": 2592001}, body{"overlapSec": "1"}, body{"overlap": 1}, harness.Raw("null")} {
		admin.Post(path, bad).Fails(http.StatusBadRequest, "")
	}
	public := admin.Post(appsPath, newApp(body{"type": "public"})).OK().Str("data.clientId")
	admin.Post(appsPath+"/"+public+"/rotate-secret", nil).Fails(http.StatusConflict, "public_client")
}

// TestRedirectURIs registers them at each door; what is which is a table in internal/oauth/redirect.
func TestRedirectURIs(t *testing.T) {
	row(t, "DP-OAC-5")
	s := harness.Start(t, binary, harness.Options{Env: append([]string{"PERSQLD_OAUTH_REGISTRATION_RATE=1000"}, quick...)})
	admin, anybody := s.Client(t, harness.Token), s.Client(t, "")
	for uri, want := range map[string]struct{ confidential, public bool }{
		"https://app.example.com/callback": {true, true}, "http://localhost/cb": {true, true}, "http://127.0.0.1:8080/cb": {true, true}, "http://[::1]/cb": {true, true}, "cursor://anysphere.cursor-mcp/oauth/callback": {false, true}, "com.example.app:/callback": {false, true},
		"http://app.example.com/cb": {}, "javascript:alert(1)": {}, "JavaScript:alert(1)": {}, "data:text/html,x": {}, "file:///etc/passwd": {}, "vbscript:x": {}, "about:blank": {}, "blob:https://a.example/x": {}, "ws://a.example/": {}, "https://a.example/cb#x": {}, "https://u:p@a.example/": {},
		"https://*.example.com/": {}, "https://a.example/\n": {}, "/callback": {}, "": {}, "https://a.example/" + strings.Repeat("a", 3000): {},
	} {
		for kind, ok := range map[string]bool{"confidential": want.confidential, "public": want.public} {
			if a := admin.Post(appsPath, newApp(body{"type": kind, "redirectUris": []string{uri}})); ok != (a.Status == http.StatusOK) || !ok && a.Str("code") != "invalid_redirect_uri" {
				t.Errorf("%q, %s: %d %s", uri, kind, a.Status, a.Raw)
			}
		}
		if a := register(anybody, body{"redirect_uris": []string{"https://ok.example/", uri}}); want.public != (a.Status == http.StatusCreated) || !want.public && (a.Status != http.StatusBadRequest || a.Str("error") != "invalid_redirect_uri") {
			t.Errorf("%q registers itself: %d %s", uri, a.Status, a.Raw)
		}
	}
}

func TestRacingOAuthApps(t *testing.T) {
	row(t, "DP-OAC-7")
	s := harness.Start(t, binary, harness.Options{Env: append([]string{"PERSQLD_MAX_OAUTH_APPS=5"}, quick...)})
	var all sync.WaitGroup
	var made atomic.Int64
	for range 20 {
		all.Go(func() {
			switch a := s.Client(t, harness.Token).Post(appsPath, newApp(nil)); {
			case a.Status == http.StatusOK:
				made.Add(1)
			case a.Status != http.StatusConflict || a.Str("code") != "too_many_oauth_apps":
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
	}
	all.Wait()
	if made.Load() != 5 {
		t.Errorf("%d apps of 5 were made", made.Load())
	}
	if out, errs, code := s.CLI(t, "oauth-client", "create", "--namespace", "default", "--name", "x", "--redirect-uri", "https://a.example/"); code != 1 {
		t.Errorf("one more by the command line: %d %s%s", code, out, errs)
	}
}

func TestClientRegistration(t *testing.T) {
	row(t, "DP-OAC-4")
	s := harness.Start(t, binary, harness.Options{Env: append([]string{"PERSQLD_OAUTH_REGISTRATION_RATE=1000"}, quick...)})
	c := s.Client(t, "")
	a := register(c, body{"redirect_uris": []string{"http://127.0.0.1/callback", "cursor://x/cb"}, "client_name": "An editor", "token_endpoint_auth_method": "none", "grant_types": []string{"authorization_code", "refresh_token"},
		"response_types": []string{"code"}, "scope": "openid database mcp:tools", "client_uri": "https://editor.example", "logo_uri": "javascript:alert(1)", "contacts": []string{"a@b.example"}, "x": body{"y": 1}}, origin)
	if a.Status != http.StatusCreated || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Pragma") != "no-cache" || a.Header.Get("Access-Control-Allow-Origin") != "*" || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %s", a.Status, a.Header, a.Raw)
	}
	a.Is("client_name", "An editor").Is("token_endpoint_auth_method", "none").Is("redirect_uris.1", "cursor://x/cb").Is("grant_types.0", "authorization_code").Is("response_types.0", "code").Is("scope", "openid database")
	if !strings.HasPrefix(a.Str("client_id"), "psqlrp_") || strings.Contains(string(a.Raw), "client_secret") || strings.Contains(string(a.Raw), "logo_uri") {
		t.Errorf("%s", a.Raw)
	}
	if issued, _ := a.At("client_id_issued_at").(float64); time.Since(time.Unix(int64(issued), 0)).Abs() > time.Minute {
		t.Errorf("issued at %v", issued)
	}
	// What runtimes send without meaning it, or leave out.
	for _, more := range []body{{}, {"token_endpoint_auth_method": "client_secret_post"}, {"token_endpoint_auth_method": "client_secret_basic"}, {"client_name": " "}, {"grant_types": []string{"authorization_code", "client_credentials"}}, {"scope": ""}} {
		more["redirect_uris"] = []string{"http://localhost:3118/callback"}
		got := register(c, more)
		if got.Status != http.StatusCreated || got.Str("token_endpoint_auth_method") != "none" || got.Str("client_name") != "localhost:3118" || strings.Contains(string(got.Raw), `"scope"`) {
			t.Errorf("%v: %d %s", more, got.Status, got.Raw)
		}
	}
	fine := []string{"https://a.example/cb"}
	for what, bad := range map[string]struct {
		send any
		code string
	}{
		"no redirect URIs":   {body{"client_name": "x"}, "invalid_redirect_uri"},
		"none":               {body{"redirect_uris": []string{}}, "invalid_redirect_uri"},
		"one twice":          {body{"redirect_uris": []string{fine[0], fine[0]}}, "invalid_redirect_uri"},
		"too many":           {body{"redirect_uris": manyURIs(21)}, "invalid_redirect_uri"},
		"a text":             {body{"redirect_uris": "https://a.example/cb"}, "invalid_client_metadata"},
		"keys of its own":    {body{"redirect_uris": fine, "token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"},
		"another grant":      {body{"redirect_uris": fine, "grant_types": []string{"client_credentials"}}, "invalid_client_metadata"},
		"an implicit answer": {body{"redirect_uris": fine, "response_types": []string{"token"}}, "invalid_client_metadata"},
		"a long name":        {body{"redirect_uris": fine, "client_name": strings.Repeat("x", 201)}, "invalid_client_metadata"},
		"a name that turns":  {body{"redirect_uris": fine, "client_name": "Bank\u202e"}, "invalid_client_metadata"},
		"a member twice":     {harness.Raw(`{"redirect_uris":["https://a.example/cb"],"redirect_uris":["https://b.example/cb"]}`), "invalid_client_metadata"},
		"a list":             {harness.Raw(`[]`), "invalid_client_metadata"},
		"null":               {harness.Raw(`null`), "invalid_client_metadata"},
		"nothing":            {nil, "invalid_client_metadata"},
	} {
		if got := register(c, bad.send); got.Status != http.StatusBadRequest || got.Str("error") != bad.code || got.Str("error_description") == "" {
			t.Errorf("%s: %d %s", what, got.Status, got.Raw)
		}
	}
	if got := register(c, harness.Raw("redirect_uris=https://a.example/"), formType); got.Status != http.StatusBadRequest || got.Str("error") != "invalid_client_metadata" {
		t.Errorf("a form: %d %s", got.Status, got.Raw)
	}
	if got := register(c, body{"redirect_uris": fine, "x": strings.Repeat("x", 32_000)}); got.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d %s", got.Status, got.Raw)
	}
	// Nobody's app: no namespace lists it, and the log tells of none that nobody has let in.
	admin := s.Client(t, harness.Token)
	admin.Get(appsPath).OK().Is("data", "[]")
	admin.Get(appsPath+"/"+a.Str("client_id")).Fails(http.StatusNotFound, "not_found")
	admin.Do(http.MethodDelete, appsPath+"/"+a.Str("client_id"), nil).Fails(http.StatusNotFound, "not_found")
	for _, e := range s.JSONOf(t, "audit", "--limit", "1000")["entries"].([]any) {
		if strings.HasPrefix(e.(map[string]any)["action"].(string), "oauth_client.") {
			t.Errorf("the log has %v", e)
		}
	}
}

func manyURIs(n int) (list []string) {
	for i := range n {
		list = append(list, "https://a.example/"+strconv.Itoa(i))
	}
	return list
}

func TestRegistrationLimits(t *testing.T) {
	row(t, "DP-OAC-8")
	fine := body{"redirect_uris": []string{"https://a.example/cb"}}
	c := harness.Start(t, binary, harness.Options{Env: append([]string{"PERSQLD_OAUTH_REGISTRATION_RATE=3"}, quick...)}).Client(t, "")
	for i := range 4 {
		a := register(c, fine)
		if want := i < 3; want != (a.Status == http.StatusCreated) {
			t.Errorf("registration %d: %d", i+1, a.Status)
		}
		if i == 3 && (a.Status != http.StatusTooManyRequests || a.Str("error") != "temporarily_unavailable" || a.Header.Get("Retry-After") == "") {
			t.Errorf("one too many: %d %s", a.Status, a.Raw)
		}
	}
	c = harness.Start(t, binary, harness.Options{Env: append([]string{"PERSQLD_MAX_OAUTH_REGISTRATIONS=2", "PERSQLD_OAUTH_REGISTRATION_RATE=1000"}, quick...)}).Client(t, "")
	var made, refused atomic.Int64
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			switch a := register(c, fine); {
			case a.Status == http.StatusCreated:
				made.Add(1)
			case a.Status == http.StatusServiceUnavailable && a.Str("error") == "temporarily_unavailable" && a.Header.Get("Retry-After") != "":
				refused.Add(1)
			default:
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
	}
	all.Wait()
	if made.Load() != 2 || refused.Load() != 8 {
		t.Errorf("%d made, %d refused", made.Load(), refused.Load())
	}
	c = harness.Start(t, binary, harness.Options{Env: append([]string{"PERSQLD_OAUTH_REGISTRATION=false"}, quick...)}).Client(t, "")
	if a := register(c, fine); a.Status != http.StatusForbidden || a.Str("error") != "access_denied" {
		t.Errorf("switched off: %d %s", a.Status, a.Raw)
	}
}

// TestOAuthClientCommands runs the subcommands with a server and without.
func TestOAuthClientCommands(t *testing.T) {
	row(t, "DP-OAC-9", "DP-OAC-10")
	s := harness.Start(t, binary, harness.Options{Env: quick})
	running := true
	for range 2 {
		made := s.JSONOf(t, "oauth-client", "create", "--namespace", "default", "--name", "app", "--redirect-uri", "https://app.example.com/callback?a=b,c", "--redirect-uri", "http://localhost/cb")
		id, secret := made["client_id"].(string), made["client_secret"].(string)
		if !strings.HasPrefix(id, "psqlrp_") || !strings.HasPrefix(secret, "psqlrs_") || len(made["redirect_uris"].([]any)) != 2 {
			t.Errorf("%v", made)
		}
		public := s.JSONOf(t, "oauth-client", "create", "--namespace", "default", "--name", "editor", "--redirect-uri", "cursor://x/cb", "--type", "public")
		if _, has := public["client_secret"]; has || public["type"] != "public" {
			t.Errorf("%v", public)
		}
		if running {
			s.Client(t, harness.Token).Get(appsPath+"/"+id).OK().Is("data.redirectUris.0", "https://app.example.com/callback?a=b,c")
		}
		rotated := s.JSONOf(t, "oauth-client", "rotate-secret", id, "--overlap", "1h")
		if rotated["client_secret"] == secret || len(rotated["secrets"].([]any)) != 2 {
			t.Errorf("%v", rotated)
		}
		clients := func() (ids []string) {
			for _, cl := range s.JSONOf(t, "oauth-client", "list", "--namespace", "default")["clients"].([]any) {
				ids = append(ids, cl.(map[string]any)["client_id"].(string))
			}
			return ids
		}
		if list := clients(); !slices.Contains(list, id) || !slices.Contains(list, public["client_id"].(string)) {
			t.Errorf("%v", list)
		}
		s.JSONOf(t, "oauth-client", "delete", id)
		if list := clients(); slices.Contains(list, id) {
			t.Errorf("deleted, and listed: %v", list)
		}
		if running {
			s.Client(t, harness.Token).Get(appsPath+"/"+id).Fails(http.StatusNotFound, "not_found")
		}
		for _, args := range [][]string{{"delete", id}, {"rotate-secret", id}, {"rotate-secret", public["client_id"].(string)}, {"create", "--namespace", "none", "--name", "x", "--redirect-uri", "https://a.example/"},
			{"create", "--namespace", "default", "--name", "x", "--redirect-uri", "javascript:alert(1)", "--type", "public"}, {"create", "--namespace", "default", "--name", "", "--redirect-uri", "https://a.example/"}} {
			if out, errs, code := s.CLI(t, append([]string{"oauth-client"}, args...)...); code != 1 {
				t.Errorf("%v: exit %d %s%s", args, code, out, errs)
			}
		}
		for _, args := range [][]string{{"create", "--namespace", "default", "--name", "x"}, {"create", "--namespace", "default", "--name", "x", "--redirect-uri", "https://a.example/", "--type", "native"}, {"rotate-secret", id, "--overlap", "721h"}} {
			if out, errs, code := s.CLI(t, append([]string{"oauth-client"}, args...)...); code != 2 {
				t.Errorf("%v: exit %d %s%s", args, code, out, errs)
			}
		}
		if running {
			s.Stop(t)
			running = false
		}
	}
	actions := map[string]int{}
	for _, e := range s.JSONOf(t, "audit", "--limit", "1000")["entries"].([]any) {
		actions[e.(map[string]any)["action"].(string)]++
	}
	if actions["oauth_client.created"] != 4 || actions["oauth_client.secret_rotated"] != 2 || actions["oauth_client.deleted"] != 2 {
		t.Errorf("audit log: %v", actions)
	}
}
