package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

var namespaceChoice = regexp.MustCompile(`name="namespace" value="([^"]*)"`)

// A token of the MCP endpoint is for the namespace that was picked, and opens nothing else of the server.
func TestTokenOfResource(t *testing.T) {
	h := newAppHouse(t)
	mcp := theIssuer + "/mcp"
	a := h.app(true, func(n *catalog.NewOAuthClient) { n.NamespaceID = "" })
	if _, err := h.cat.AddMember(t.Context(), h.acme.ID, h.ada.ID, catalog.MemberViewer); err != nil {
		t.Fatal(err)
	}
	choices := map[string]string{}
	for _, m := range namespaceChoice.FindAllStringSubmatch(h.authorize(a.request("", "resource", mcp)).Body.String(), -1) {
		for _, ns := range h.cat.Memberships(h.ada.ID) {
			if strings.HasPrefix(m[1], ns.ID) {
				choices[ns.Slug] = m[1]
			}
		}
	}
	if len(choices) != 2 {
		t.Fatalf("%v", choices)
	}
	w := h.send(http.MethodPost, consentPath, h.cookie, consentForm(t, h.authorize(a.request("", "resource", mcp))))
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "Pick a namespace") {
		t.Errorf("without a namespace: %d", w.Code)
	}
	form := consentForm(t, h.authorize(a.request("", "resource", mcp)))
	form.Set("namespace", h.acme.ID+" owner") // which was not shown
	if w := h.send(http.MethodPost, consentPath, h.cookie, form); w.Code != http.StatusBadRequest {
		t.Errorf("another role than shown: %d", w.Code)
	}
	get := func(slug, scope string) tokenAnswer {
		t.Helper()
		q := h.consent(a.request(scope, "resource", mcp), "namespace", choices[slug]).Query()
		a.exchange(q.Get("code"), "resource", theIssuer+"/v1").refused(t, "invalid_target")
		a.exchange(q.Get("code"), "resource", "https://other.example/mcp").refused(t, "invalid_target")
		return a.exchange(q.Get("code"), "resource", mcp).ok(t)
	}
	got := get("acme", "")
	if got.Scope != "" || got.Refresh != "" || got.Expires != int64((30*24*time.Hour).Seconds()) || got.IDToken != "" || got.Database != "" {
		t.Errorf("%+v", got)
	}
	token, err := h.cat.AuthenticateFor(got.Access, mcp)
	if err != nil || token.NamespaceID != h.acme.ID || token.Role != "readonly" || token.Database != "" || token.OAuth.Payer != "" {
		t.Fatalf("%+v %v", token, err)
	}
	if _, err := h.cat.AuthenticateFor(got.Access, theIssuer+"/other"); err == nil {
		t.Error("another resource takes it")
	}
	own := get("ada", "openid offline_access")
	if own.Expires != 3600 || own.Refresh == "" || own.IDToken == "" {
		t.Errorf("%+v", own)
	}
	// No door of the API, and not /userinfo.
	for _, path := range []string{"GET /v1/me", "GET /v1/databases", "GET /v1/tokens", "POST /v1/tokens", "GET /v1/db/ada/main/tables", "POST /v1/db/ada/main/query", "POST /v1/db/ada/main/batch", "GET /v1/db/ada/main/changes",
		"GET /v1/db/ada/main/subscribe", "GET /v1/db/ada/main/export", "GET /v1/audit", "GET /v1/usage", "GET /userinfo"} {
		method, path, _ := strings.Cut(path, " ")
		if w := h.send(method, path, "", nil, "body", "{}", "Authorization", "Bearer "+own.Access); w.Code != http.StatusUnauthorized {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/v1/db/ada/main/changes?token=", "/v1/db/ada/main/subscribe?access_token="} {
		if w := h.send(http.MethodGet, path+own.Access, "", nil); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	next := a.refresh(own.Refresh, "resource", mcp).ok(t)
	a.refresh(next.Refresh, "resource", theIssuer).refused(t, "invalid_target")
	if _, err := h.cat.AuthenticateFor(next.Access, mcp); err != nil {
		t.Error(err)
	}
	// Who is no member any more gave nothing.
	if err := h.cat.RemoveMember(t.Context(), h.acme.ID, h.ada.ID, h.ada.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := h.cat.AuthenticateFor(got.Access, mcp); err == nil {
		t.Error("it works for a namespace that the user has left")
	}
	if q := h.away(h.authorize(a.request("database", "resource", mcp))).Query(); q.Get("error") != "invalid_scope" {
		t.Errorf("%v", q)
	}
	// A token of the API is bound to none: base and /v1 are what it is for anyway.
	b := h.app(false)
	for _, resource := range []string{theIssuer, theIssuer + "/", theIssuer + "/v1"} {
		b.exchange(b.code("openid database", "resource", resource), "resource", theIssuer+"/v1").ok(t)
	}
	b.exchange(b.code("openid"), "resource", mcp).refused(t, "invalid_target")
}

func (h *appHouse) post(path string, form url.Values) (int, map[string]any) {
	h.t.Helper()
	w := h.send(http.MethodPost, path, "", form)
	m := map[string]any{}
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		h.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Code, m
}

func (a *testApp) names(token string) url.Values {
	v := url.Values{"client_id": {a.ID}, "token": {token}}
	if a.secret != "" {
		v.Set("client_secret", a.secret)
	}
	return v
}

func TestIntrospection(t *testing.T) {
	h := newAppHouse(t)
	a, b, p := h.app(false), h.app(false), h.app(true)
	plain := a.exchange(a.code("openid email offline_access")).ok(t)
	database := a.exchange(a.code("openid database")).ok(t)
	for token, want := range map[string]map[string]any{
		plain.Access:    {"scope": "openid email offline_access", "exp": float64(h.clock().Add(time.Hour).Unix()), "token_type": "Bearer"},
		plain.Refresh:   {"scope": "openid email offline_access", "exp": float64(h.clock().Add(30 * 24 * time.Hour).Unix())},
		database.Access: {"scope": "openid database", "token_type": "Bearer"},
	} {
		status, got := h.post(introspectPath, a.names(token))
		if status != http.StatusOK || got["active"] != true || got["sub"] != h.ada.ID || got["client_id"] != a.ID || got["iss"] != theIssuer {
			t.Errorf("%d %v", status, got)
		}
		for name, v := range want {
			if got[name] != v {
				t.Errorf("%s is %v, want %v", name, got[name], v)
			}
		}
		if status, got := h.post(introspectPath, b.names(token)); status != http.StatusOK || len(got) != 1 || got["active"] != false {
			t.Errorf("another app learns %d %v", status, got)
		}
	}
	own, secret, err := h.cat.CreateToken(t.Context(), catalog.NewToken{NamespaceID: h.acme.ID})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{secret, own.ID, "x", plain.Access + "x"} {
		if status, got := h.post(introspectPath, a.names(token)); status != http.StatusOK || len(got) != 1 || got["active"] != false {
			t.Errorf("%d %v", status, got)
		}
	}
	if status, got := h.post(introspectPath, p.names(plain.Access)); status != http.StatusUnauthorized || got["error"] != "invalid_client" {
		t.Errorf("%d %v", status, got)
	}
	form := a.names(plain.Access)
	form.Set("client_secret", "x")
	if status, got := h.post(introspectPath, form); status != http.StatusUnauthorized {
		t.Errorf("%d %v", status, got)
	}
	if status, got := h.post(introspectPath, a.names("")); status != http.StatusBadRequest {
		t.Errorf("%d %v", status, got)
	}
	next := a.refresh(plain.Refresh).ok(t)
	if _, got := h.post(introspectPath, a.names(plain.Refresh)); got["active"] != false {
		t.Error("an old refresh token is told as good")
	}
	h.pass(time.Hour)
	if _, got := h.post(introspectPath, a.names(next.Access)); got["active"] != false {
		t.Error("an expired token is told as good")
	}
}

func TestRevocation(t *testing.T) {
	h := newAppHouse(t)
	a, b := h.app(true), h.app(false)
	got := a.exchange(a.code("openid offline_access")).ok(t)
	other := a.exchange(a.code("openid offline_access")).ok(t)
	for _, token := range []string{got.Access, got.Refresh} { // none of its own
		if status, answer := h.post(revokePath, b.names(token)); status != http.StatusOK {
			t.Errorf("%d %v", status, answer)
		}
	}
	if status, _ := h.userinfo(got.Access); status != http.StatusOK {
		t.Errorf("another app ended it: %d", status)
	}
	for _, token := range []string{got.Refresh, got.Refresh, "unknown"} {
		if status, answer := h.post(revokePath, a.names(token)); status != http.StatusOK {
			t.Errorf("%d %v", status, answer)
		}
	}
	if status, _ := h.userinfo(got.Access); status != http.StatusUnauthorized {
		t.Errorf("the access token lives on: %d", status)
	}
	a.refresh(got.Refresh).refused(t, "invalid_grant")
	if status, _ := h.userinfo(other.Access); status != http.StatusOK {
		t.Errorf("another sign-in ended: %d", status)
	}
	if status, _ := h.post(revokePath, a.names(other.Access)); status != http.StatusOK {
		t.Error(status)
	}
	a.refresh(other.Refresh).refused(t, "invalid_grant")
	database := b.exchange(b.code("database")).ok(t)
	if status, _ := h.post(revokePath, b.names(database.Access)); status != http.StatusOK {
		t.Error(status)
	}
	if status, _ := h.sql(database.Access, database.Database, "SELECT 1"); status != http.StatusUnauthorized {
		t.Error(status)
	}
	if status, answer := h.post(revokePath, url.Values{"client_id": {b.ID}, "token": {"x"}}); status != http.StatusUnauthorized || answer["error"] != "invalid_client" {
		t.Errorf("%d %v", status, answer)
	}
	if status, _ := h.post(revokePath, a.names("")); status != http.StatusBadRequest {
		t.Error(status)
	}
}

func TestUserInfoRefuses(t *testing.T) {
	h := newAppHouse(t)
	for token, want := range map[string]string{"": `Bearer realm="persqld"`, "psqloa_x": `error="invalid_token"`, h.door.opt.BaseURL: `error="invalid_token"`} {
		headers := []string{}
		if token != "" {
			headers = []string{"Authorization", "Bearer " + token}
		}
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			w := h.send(method, userInfoPath, h.cookie, nil, headers...)
			if w.Code != http.StatusUnauthorized || !strings.Contains(w.Header().Get("WWW-Authenticate"), want) {
				t.Errorf("%q: %d %v", token, w.Code, w.Header())
			}
		}
	}
}

func TestOAuthMetadata(t *testing.T) {
	h := newAppHouse(t, func(o *Options) { o.OAuth.Register = true })
	get := func(path string) map[string]any {
		t.Helper()
		w := h.send(http.MethodGet, path, "", nil, "Origin", "https://app.example")
		m := map[string]any{}
		if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil || w.Code != http.StatusOK || w.Header().Get("Access-Control-Allow-Origin") != "*" || w.Header().Get("Access-Control-Allow-Credentials") != "" {
			t.Fatalf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
		return m
	}
	openid, server := get("/.well-known/openid-configuration"), get("/.well-known/oauth-authorization-server")
	for _, m := range []map[string]any{openid, server} {
		if m["issuer"] != theIssuer || m["authorization_response_iss_parameter_supported"] != true {
			t.Errorf("%v", m)
		}
		// What is told is there.
		for name, v := range m {
			address, ok := v.(string)
			if !ok || name == "issuer" {
				continue
			}
			path := strings.TrimPrefix(address, theIssuer)
			method := http.MethodPost
			if name == "jwks_uri" || name == "authorization_endpoint" || name == "userinfo_endpoint" {
				method = http.MethodGet
			}
			if w := h.send(method, path, "", nil); path == address || w.Code == http.StatusNotFound || w.Code == http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", name, address, w.Code)
			}
		}
	}
	agents, _ := server["agent_auth"].(map[string]any)
	if openid["agent_auth"] != nil || agents["identity_endpoint"] != theIssuer+"/agent/identity" || agents["token_endpoint"] != theIssuer+"/oauth/token" {
		t.Errorf("%v", agents)
	}
	for path, resource := range map[string]string{"": "", "/mcp": "/mcp", "/v1": "/v1"} {
		m := get("/.well-known/oauth-protected-resource" + path)
		if servers, _ := m["authorization_servers"].([]any); m["resource"] != theIssuer+resource || len(servers) != 1 || servers[0] != theIssuer {
			t.Errorf("%v", m)
		}
	}
	w := h.send(http.MethodGet, "/.well-known/auth.md", "", nil)
	if text := w.Body.String(); w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/markdown") || !strings.Contains(text, theIssuer+"/agent/identity") || strings.Contains(text, "{base}") {
		t.Errorf("%d %v %s", w.Code, w.Header(), text)
	}
}

// Programs of other origins may call what takes no cookie, and nothing else.
func TestOAuthCrossOrigin(t *testing.T) {
	h := newAppHouse(t)
	for path, open := range map[string]bool{tokenPath: true, revokePath: true, userInfoPath: true, "/.well-known/openid-configuration": true, "/.well-known/jwks.json": true,
		authorizePath: false, consentPath: false, introspectPath: false, appsPath: false, "/api/connected-apps": false} {
		got := h.send(http.MethodOptions, path, "", nil, "Origin", "https://app.example").Header()
		w := h.send(http.MethodPost, path, h.cookie, url.Values{}, "Origin", "https://app.example")
		want := map[bool]string{true: "*", false: ""}[open]
		if got.Get("Access-Control-Allow-Origin") != want || w.Header().Get("Access-Control-Allow-Origin") != want || got.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %v %v", path, got, w.Header())
		}
	}
}
