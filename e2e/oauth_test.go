package e2e_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

const theVerifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

// connecting is an app and somebody who uses it.
type connecting struct {
	t          testing.TB
	s          *harness.Server
	admin      *harness.Client // of the app's namespace
	anyone     *harness.Client
	ada        *person
	id, secret string
	public     bool
}

func connects(t testing.TB, s *harness.Server, ada *person, public bool) *connecting {
	t.Helper()
	c := &connecting{t: t, s: s, admin: s.Client(t, harness.Token), anyone: s.Client(t, ""), ada: ada, public: public}
	kind := map[bool]string{true: "public", false: "confidential"}[public]
	a := c.admin.Post("/v1/oauth-apps", newApp(body{"name": "App Data", "type": kind})).OK()
	c.id = a.Str("data.clientId")
	if !public {
		c.secret = a.Str("data.clientSecret")
	}
	return c
}

const theCallback = "https://app.example.com/callback"

// begins is the address that an app sends its user to.
func (c *connecting) begins(scope string, more ...string) string {
	v := url.Values{"response_type": {"code"}, "client_id": {c.id}, "redirect_uri": {theCallback}, "state": {"the state"}, "scope": {scope}}
	if c.public {
		sum := sha256.Sum256([]byte(theVerifier))
		v.Set("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
		v.Set("code_challenge_method", "S256")
	}
	for i := 0; i < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return "/oauth/authorize?" + v.Encode()
}

var consentField = regexp.MustCompile(`name="(request|seal|namespace)" value="([^"]*)"`)

// agrees has the user agree, if she is asked, and returns what the app gets back.
func (c *connecting) agrees(scope string, more ...string) url.Values {
	c.t.Helper()
	a := c.ada.Get(c.begins(scope, more...))
	if a.Status == http.StatusOK {
		form := url.Values{"decision": {"allow"}}
		for _, m := range consentField.FindAllStringSubmatch(string(a.Raw), -1) {
			form.Set(m[1], html.UnescapeString(m[2]))
		}
		a = sendForm(c.ada.Client, "/oauth/consent", form)
	}
	to, err := url.Parse(a.Header.Get("Location"))
	if err != nil || a.Status != http.StatusSeeOther || !strings.HasPrefix(to.String(), theCallback+"?") {
		c.t.Fatalf("%s: %d to %q: %s", a.What, a.Status, a.Header.Get("Location"), a.Raw)
	}
	if q := to.Query(); q.Get("state") != "the state" || !strings.HasPrefix(q.Get("iss"), "http") {
		c.t.Errorf("%v", q)
	}
	return to.Query()
}

// gets posts for a grant, with the app's credentials.
func (c *connecting) gets(fields url.Values) *harness.Answer {
	c.t.Helper()
	fields.Set("client_id", c.id)
	if c.secret != "" {
		fields.Set("client_secret", c.secret)
	}
	a := sendForm(c.anyone, "/oauth/token", fields)
	_ = json.Unmarshal(a.Raw, &a.Body) // what it lacks is missed
	return a
}

func (c *connecting) exchanges(code string) *harness.Answer {
	c.t.Helper()
	v := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {theCallback}}
	if c.public {
		v.Set("code_verifier", theVerifier)
	}
	return c.gets(v)
}

// signsIn is a whole sign-in.
func (c *connecting) signsIn(scope string, more ...string) *harness.Answer {
	c.t.Helper()
	a := c.exchanges(c.agrees(scope, more...).Get("code"))
	if a.Status != http.StatusOK {
		c.t.Fatalf("%s: %d %s", a.What, a.Status, a.Raw)
	}
	return a
}

func (c *connecting) refused(a *harness.Answer, code string) {
	c.t.Helper()
	if a.Status < 400 || a.At("error") != code {
		c.t.Errorf("%s: %d %s, want %s", a.What, a.Status, a.Raw, code)
	}
}

// userinfo is the status of /userinfo for a token.
func (c *connecting) userinfo(token string) *harness.Answer {
	c.t.Helper()
	a := c.anyone.As(token).Get("/userinfo")
	if posted := c.anyone.As(token).Post("/userinfo", nil); posted.Status != a.Status {
		c.t.Errorf("GET %d, POST %d", a.Status, posted.Status)
	}
	_ = json.Unmarshal(a.Raw, &a.Body)
	return a
}

func TestAppSignsIn(t *testing.T) {
	row(t, "DP-OAU-1", "DP-OAU-2", "DP-OAU-4", "DP-OAU-8", "DP-OAU-9", "DP-OAU-10")
	s := people(t)
	ada := enrol(t, s, "ada@example.com", "", "")
	for _, public := range []bool{true, false} {
		c := connects(t, s, ada, public)
		got := c.signsIn("openid email offline_access")
		if info := c.userinfo(got.Str("access_token")); info.Status != http.StatusOK || info.Str("email") != "ada@example.com" || info.Str("sub") != ada.id {
			t.Errorf("%s", info.Raw)
		}
		c.anyone.As(got.Str("access_token")).Get("/v1/me").Fails(http.StatusUnauthorized, "unauthorized")
		c.userinfo("").Is("error", "invalid_request")
		c.userinfo("psqloa_x").Is("error", "invalid_token")
		next := c.gets(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.Str("refresh_token")}})
		c.refused(c.gets(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.Str("refresh_token")}}), "invalid_grant")
		if info := c.userinfo(next.Str("access_token")); info.Status != http.StatusUnauthorized {
			t.Errorf("reuse ended nothing: %d", info.Status)
		}
		code := c.agrees("openid").Get("code")
		first := c.exchanges(code)
		c.refused(c.exchanges(code), "invalid_grant")
		if info := c.userinfo(first.Str("access_token")); info.Status != http.StatusUnauthorized {
			t.Errorf("%d", info.Status)
		}
		if asked := ada.Get(c.begins("openid")).Status == http.StatusOK; asked != public {
			t.Errorf("asked again: %v", asked)
		}
		if got := c.agrees("openid", "response_type", "token").Get("error"); got != "unsupported_response_type" {
			t.Errorf("%s", got)
		}
		showsPage(t, ada.Get(c.begins("openid", "redirect_uri", "https://evil.example/")), http.StatusBadRequest, "not registered the redirect_uri")
		showsPage(t, ada.Get(c.begins("openid", "client_id", "psqlrp_none")), http.StatusBadRequest, "not registered on this server")
		leadsTo(t, sendForm(c.anyone, "/oauth/authorize", url.Values{"client_id": {c.id}}), "/oauth/authorize?client_id="+c.id)
		showsPage(t, c.anyone.Post("/oauth/authorize", harness.Raw("{}")), http.StatusBadRequest, "not the form")
		showsPage(t, sendForm(c.anyone, "/oauth/authorize", url.Values{"state": {strings.Repeat("x", 70_000)}}), http.StatusRequestEntityTooLarge)
		signIn := c.anyone.Get(c.begins("openid")).Header.Get("Location")
		if !strings.HasPrefix(signIn, "/login?next=") {
			t.Errorf("%s", signIn)
		}
		form := url.Values{"request": {"client_id=" + c.id}, "seal": {"x"}, "decision": {"allow"}}
		showsPage(t, sendForm(ada.Client, "/oauth/consent", url.Values{"request": {strings.TrimPrefix(c.begins("openid"), "/oauth/authorize?")}, "seal": {"1.x"}, "decision": {"allow"}}), http.StatusForbidden, "not the consent page")
		showsPage(t, sendForm(ada.Client, "/oauth/consent", form, "Sec-Fetch-Site: cross-site"), http.StatusForbidden, "another site")
		showsPage(t, sendForm(ada.Client, "/oauth/consent", form), http.StatusBadRequest, "redirect_uri")
		showsPage(t, sendForm(ada.Client, "/oauth/consent", url.Values{"request": {strings.Repeat("x", 70_000)}}), http.StatusRequestEntityTooLarge)
	}
}

func TestAppGetsDatabase(t *testing.T) {
	row(t, "DP-OAU-3", "DP-OAU-11", "DP-OAU-12", "DP-OAU-14", "DP-OAU-16")
	s := people(t)
	ada := enrol(t, s, "ada@example.com", "", "")
	c := connects(t, s, ada, false)
	code := c.agrees("openid database").Get("code")
	// As an SDK may send it: JSON, with the secret as Basic.
	basic := harness.Header("Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(c.id+":"+c.secret)))
	got := c.anyone.Post("/oauth/token", body{"grant_type": "authorization_code", "code": code, "redirect_uri": theCallback}, "Content-Type: application/json", basic)
	if err := json.Unmarshal(got.Raw, &got.Body); err != nil || got.Status != http.StatusOK {
		t.Fatalf("%d %s", got.Status, got.Raw)
	}
	database, token := got.Str("database"), got.Str("access_token")
	if !strings.HasPrefix(token, "psql_live_") || !strings.HasSuffix(database, "/app-data") || got.Str("api_url") == "" || got.Str("id_token") == "" || got.Str("user_email") != "ada@example.com" || strings.Contains(string(got.Raw), "expires_in") {
		t.Errorf("%s", got.Raw)
	}
	app := c.anyone.As(token)
	run := func(app *harness.Client, sql string) *harness.Answer {
		return app.Post("/v1/db/"+database+"/query", body{"sql": sql})
	}
	run(app, "CREATE TABLE notes(a)").OK()
	run(app, "INSERT INTO notes VALUES (1), (2)").OK()
	run(app, "SELECT a FROM notes").OK()
	app.Get("/v1/me").OK().Is("data.role", "readwrite")
	app.Post("/v1/tokens", body{}).Fails(http.StatusForbidden, "")
	app.Post("/v1/db/"+database+"/claim_branch", body{}).Fails(http.StatusForbidden, "")
	// It is the user's, in her own namespace, and the app pays.
	ns, _, _ := strings.Cut(database, "/")
	if list := ada.Get("/api/namespaces/" + ns + "/databases").OK(); !strings.Contains(string(list.Raw), "app-data") {
		t.Errorf("%s", list.Raw)
	}
	eventually(t, 10*time.Second, func() bool {
		usage := c.admin.Get("/v1/usage?groupBy=token").OK()
		return strings.Contains(string(usage.Raw), app.Get("/v1/me").OK().Str("data.tokenId"))
	})
	if usage := ada.Get("/api/namespaces/" + ns + "/usage?groupBy=token").OK(); strings.Contains(string(usage.Raw), app.Get("/v1/me").OK().Str("data.tokenId")) {
		t.Errorf("the user is charged: %s", usage.Raw)
	}
	again := c.signsIn("database")
	if again.Str("database") != database || again.Str("access_token") == token || again.At("id_token") != nil {
		t.Errorf("%s", again.Raw)
	}
	if info := c.userinfo(again.Str("access_token")); info.Status != http.StatusForbidden || info.Str("error") != "insufficient_scope" {
		t.Errorf("%d %s", info.Status, info.Raw)
	}
	// What was answered stands, whatever ends the process.
	s.Kill()
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: quick})
	c2 := *c
	c2.s, c2.admin, c2.anyone = s, s.Client(t, harness.Token), s.Client(t, "")
	c2.ada = &person{Client: c2.anyone.AsSession(ada.Cookie()), t: t, id: ada.id, email: ada.email}
	run(c2.anyone.As(token), "SELECT a FROM notes").OK()
	apps := c2.ada.Get("/api/connected-apps").OK().Is("data.0.database", database).Is("data.0.clientId", c.id)
	showsPage(t, c2.ada.Get("/account/apps"), http.StatusOK, "App Data", database)
	leadsTo(t, c2.anyone.Get("/account/apps"), "/login?next=%2Faccount%2Fapps")
	showsPage(t, sendForm(c2.ada.Client, "/account/apps", url.Values{"action": {"disconnect"}, "app": {"ogr_none"}}), http.StatusNotFound)
	showsPage(t, sendForm(c2.ada.Client, "/account/apps", url.Values{"action": {"x"}}), http.StatusBadRequest)
	showsPage(t, sendForm(c2.ada.Client, "/account/apps", url.Values{"action": {"disconnect"}}, "Sec-Fetch-Site: cross-site"), http.StatusForbidden)
	showsPage(t, sendForm(c2.ada.Client, "/account/apps", url.Values{"action": {strings.Repeat("x", 70_000)}}), http.StatusRequestEntityTooLarge)
	leadsTo(t, sendForm(c2.ada.Client, "/account/apps", url.Values{"action": {"disconnect"}, "app": {apps.Str("data.0.id")}}), "/account/apps")
	run(c2.anyone.As(token), "SELECT 1").Fails(http.StatusUnauthorized, "unauthorized")
	c2.ada.Do(http.MethodDelete, "/api/connected-apps/"+apps.Str("data.0.id"), nil).Fails(http.StatusNotFound, "not_found")
	back := c2.signsIn("database")
	run(c2.anyone.As(back.Str("access_token")), "SELECT a FROM notes").OK()
	c2.ada.Do(http.MethodDelete, "/api/connected-apps/"+apps.Str("data.0.id"), nil).OK().Is("data.database", database)
	signedOut(t, c2.anyone.Get("/api/connected-apps"))
	signedOut(t, c2.anyone.Do(http.MethodDelete, "/api/connected-apps/x", nil))
	c2.ada.Do(http.MethodDelete, "/api/connected-apps/x", nil, "Sec-Fetch-Site: cross-site").Fails(http.StatusForbidden, "forbidden")

	log := string(c2.ada.Get("/api/namespaces/" + ns + "/audit?limit=200").OK().Raw)
	for _, action := range []string{"oauth.consented", "oauth.token_issued", "oauth.disconnected", "database.created"} {
		if !strings.Contains(log, action) {
			t.Errorf("the audit log lacks %s: %s", action, log)
		}
	}
}

func TestAppAsksAboutTokens(t *testing.T) {
	row(t, "DP-OAU-5", "DP-OAU-6", "DP-OAU-15")
	s := people(t)
	ada := enrol(t, s, "ada@example.com", "", "")
	c, other := connects(t, s, ada, false), connects(t, s, ada, true)
	got := c.signsIn("openid")
	ask := func(c *connecting, path, token, secret string) *harness.Answer {
		v := url.Values{"client_id": {c.id}, "token": {token}}
		if secret != "" {
			v.Set("client_secret", secret)
		}
		a := sendForm(c.anyone, path, v)
		_ = json.Unmarshal(a.Raw, &a.Body)
		return a
	}
	const introspect, revoke = "/oauth/introspect", "/oauth/revoke"
	ask(c, introspect, got.Str("access_token"), c.secret).Is("active", "true").Is("sub", ada.id).Is("client_id", c.id)
	ask(c, introspect, "x", c.secret).Is("active", "false")
	c.refused(ask(other, introspect, got.Str("access_token"), ""), "invalid_client")
	for _, path := range []string{introspect, revoke} {
		c.refused(ask(c, path, "x", "wrong"), "invalid_client")
		c.refused(ask(c, path, "", c.secret), "invalid_request")
		a := sendForm(c.anyone, path, url.Values{"token": {strings.Repeat("x", 70_000)}})
		if a.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("%d", a.Status)
		}
	}
	if a := ask(other, revoke, got.Str("access_token"), ""); a.Status != http.StatusOK {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	ask(c, introspect, got.Str("access_token"), c.secret).Is("active", "true")
	if a := ask(c, revoke, got.Str("access_token"), c.secret); a.Status != http.StatusOK {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	ask(c, introspect, got.Str("access_token"), c.secret).Is("active", "false")
	s = people(t, "PERSQLD_SIGN_IN_PER_ADDRESS=5")
	c = connects(t, s, enrol(t, s, "ada@example.com", "", ""), false)
	for _, path := range []string{introspect, revoke, "/oauth/token"} {
		var a *harness.Answer
		for range 30 {
			v := url.Values{"client_id": {c.id}, "client_secret": {"wrong"}, "token": {"x"}, "grant_type": {"refresh_token"}, "refresh_token": {"x"}}
			a = sendForm(c.anyone, path, v)
		}
		if a.Status != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, a.Status, a.Raw)
		}
	}
}

func TestOAuthDocuments(t *testing.T) {
	row(t, "DP-OAU-7", "DP-OAU-13")
	s := people(t, "PERSQLD_BASE_URL=https://sql.example.com")
	c := s.Client(t, "")
	read := func(path string) *harness.Answer {
		a := c.Get(path)
		if err := json.Unmarshal(a.Raw, &a.Body); err != nil || a.Status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, a.Status, a.Raw)
		}
		return a
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		read(path).Is("issuer", "https://sql.example.com").Is("authorization_endpoint", "https://sql.example.com/oauth/authorize").Is("registration_endpoint", "https://sql.example.com/oauth/register").
			Is("userinfo_endpoint", "https://sql.example.com/userinfo").Is("authorization_response_iss_parameter_supported", "true").Is("code_challenge_methods_supported.0", "S256").Is("claims_supported.10", "name").Is("claims_supported.11", "picture").Is("client_id_metadata_document_supported", "true")
	}
	read("/.well-known/oauth-authorization-server").Is("agent_auth.skill", "https://sql.example.com/.well-known/auth.md").Is("agent_auth.identity_endpoint", "https://sql.example.com/agent/identity")
	for _, suffix := range []string{"", "/mcp", "/v1"} {
		read("/.well-known/oauth-protected-resource"+suffix).Is("resource", "https://sql.example.com"+suffix).Is("authorization_servers.0", "https://sql.example.com")
	}
	if a := c.Get("/.well-known/auth.md"); a.Status != http.StatusOK || !strings.Contains(string(a.Raw), "https://sql.example.com/oauth/token") {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	// A token of the MCP endpoint opens nothing of /v1.
	ada := enrol(t, s, "ada@example.com", "default", "viewer")
	app := connects(t, s, ada, true)
	got := app.signsIn("", "resource", "https://sql.example.com/mcp")
	for _, call := range []string{"GET /v1/me", "GET /v1/databases", "POST /v1/db/default/main/query", "GET /userinfo"} {
		method, path, _ := strings.Cut(call, " ")
		if a := c.As(got.Str("access_token")).Do(method, path, nil); a.Status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", call, a.Status, a.Raw)
		}
	}
	if got := app.agrees("openid", "resource", "https://other.example").Get("error"); got != "invalid_target" {
		t.Errorf("%s", got)
	}
	showsPage(t, app.ada.Get(app.begins("", "resource", "https://sql.example.com/mcp")), http.StatusOK, "Which namespace may it use?", "default")
}
