package api

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

func TestClientCredentials(t *testing.T) {
	h := newAppHouse(t)
	a, b := h.app(false), h.app(false)
	basic := func(id, secret string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
	}
	bare := []string{"client_id", "", "client_secret", ""}
	h.token(a.grantOf(a.code("openid"), bare...), "Authorization", basic(a.ID, a.secret)).ok(t)
	a.exchange(a.code("openid")).ok(t)
	fields := map[string]string{}
	for name, v := range a.grantOf(a.code("openid")) {
		fields[name] = v[0]
	}
	body, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	h.token(nil, "body", string(body)).ok(t)

	code := a.code("openid")
	h.token(a.grantOf(code), "Authorization", basic(a.ID, a.secret)).refused(t, "invalid_request")
	h.token(a.grantOf(code, bare...), "Authorization", basic(a.ID, b.secret)).refused(t, "invalid_client")
	h.token(a.grantOf(code, bare...), "Authorization", "Bearer x").refused(t, "invalid_client")
	h.token(a.grantOf(code, "client_id", b.ID, "client_secret", ""), "Authorization", basic(a.ID, a.secret)).refused(t, "invalid_request")
	a.exchange(code, "client_secret", "").refused(t, "invalid_client")
	a.exchange(code, "client_secret", a.secret+"x").refused(t, "invalid_client")
	a.exchange(code, "client_id", "psqlrp_none").refused(t, "invalid_client")
	a.exchange(code, "client_id", "", "client_secret", "").refused(t, "invalid_request")
	// The code of one app is none of another's; it isn't used up by that.
	b.exchange(code).refused(t, "invalid_grant")
	a.exchange(code).ok(t)

	p := h.app(true)
	code = p.code("openid")
	p.exchange(code, "client_secret", "x").refused(t, "invalid_client")
	p.exchange(code).ok(t)
}

// Who fails too often has to wait, with a good secret too; others don't.
func TestClientAttemptsAreBounded(t *testing.T) {
	h := newAppHouse(t)
	a, b := h.app(false), h.app(false)
	code := a.code("openid")
	for range 20 {
		a.exchange(code, "client_secret", "wrong").refused(t, "invalid_client")
	}
	w := h.send(http.MethodPost, tokenPath, "", a.grantOf(code))
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	b.exchange(b.code("openid")).ok(t)
	h.pass(4 * time.Second)
	a.exchange(code).ok(t)
}

func TestCodeIsUsedOnce(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(false)
	code := a.code("openid offline_access")
	got := a.exchange(code).ok(t)
	other := a.exchange(a.code("openid offline_access")).ok(t)
	a.exchange(code).refused(t, "invalid_grant")
	if status, _ := h.userinfo(got.Access); status != http.StatusUnauthorized {
		t.Errorf("what the code got lives on: %d", status)
	}
	a.refresh(got.Refresh).refused(t, "invalid_grant")
	if status, _ := h.userinfo(other.Access); status != http.StatusOK {
		t.Errorf("another sign-in ended with it: %d", status)
	}

	old := a.code("openid")
	h.pass(catalog.OAuthCodeLife)
	a.exchange(old).refused(t, "invalid_grant")
	a.exchange("psqloc_nonsense").refused(t, "invalid_grant")
	a.exchange("", "code", "").refused(t, "invalid_request")
}

func TestCodeIsRacedFor(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(false)
	for range 5 {
		code := a.code("openid offline_access")
		answers := atOnce(8, func() tokenAnswer { return a.exchange(code) })
		winners := 0
		for _, got := range answers {
			if got.status == http.StatusOK {
				winners++
				if status, _ := h.userinfo(got.Access); status != http.StatusUnauthorized {
					t.Errorf("what the code got lives on: %d", status)
				}
				continue
			}
			got.refused(t, "invalid_grant")
		}
		// The first may find that what it got has been ended already.
		if winners > 1 {
			t.Errorf("%d got tokens", winners)
		}
	}
}

func atOnce(n int, do func() tokenAnswer) []tokenAnswer {
	answers := make([]tokenAnswer, n)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = do() })
	}
	wg.Wait()
	return answers
}

func TestRefreshRotates(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(true)
	got := a.exchange(a.code("openid email offline_access")).ok(t)
	if got.Refresh == "" {
		t.Fatal("no refresh token")
	}
	h.pass(2 * time.Hour)
	second := a.refresh(got.Refresh).ok(t)
	if second.Refresh == got.Refresh || second.Refresh == "" || second.Scope != "openid email offline_access" {
		t.Errorf("%+v", second)
	}
	if claims := idTokenOf(t, second.IDToken); claims["sub"] != h.ada.ID || claims["nonce"] != nil || claims["iat"] != float64(h.clock().Unix()) {
		t.Errorf("%v", claims)
	}
	// Narrower, not wider; what the refresh token is good for stays.
	third := a.refresh(second.Refresh, "scope", "openid").ok(t)
	if _, info := h.userinfo(third.Access); third.Scope != "openid" || info["email"] != nil {
		t.Errorf("%+v %v", third, info)
	}
	a.refresh(third.Refresh, "scope", "openid profile").refused(t, "invalid_scope")
	a.refresh(third.Refresh, "scope", "openid database").refused(t, "invalid_scope")
	fourth := a.refresh(third.Refresh).ok(t)
	if fourth.Scope != "openid email offline_access" {
		t.Errorf("%+v", fourth)
	}
	other := h.app(true)
	other.refresh(fourth.Refresh).refused(t, "invalid_grant")

	// An old one ends them all.
	a.refresh(second.Refresh).refused(t, "invalid_grant")
	a.refresh(fourth.Refresh).refused(t, "invalid_grant")
	if status, _ := h.userinfo(fourth.Access); status != http.StatusUnauthorized {
		t.Errorf("%d", status)
	}

	got = a.exchange(a.code("openid offline_access")).ok(t)
	h.pass(30 * 24 * time.Hour)
	a.refresh(got.Refresh).refused(t, "invalid_grant")
	a.refresh("").refused(t, "invalid_request")
	a.refresh("psqlor_x").refused(t, "invalid_grant")
}

func TestRefreshIsRacedFor(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(false)
	for range 5 {
		first := a.exchange(a.code("openid offline_access")).ok(t)
		winners := 0
		for _, got := range atOnce(8, func() tokenAnswer { return a.refresh(first.Refresh) }) {
			if got.status == http.StatusOK {
				winners++
				a.refresh(got.Refresh).refused(t, "invalid_grant")
				continue
			}
			got.refused(t, "invalid_grant")
		}
		if winners > 1 {
			t.Errorf("%d got tokens", winners)
		}
		if status, _ := h.userinfo(first.Access); status != http.StatusUnauthorized {
			t.Errorf("the family lives on: %d", status)
		}
	}
}

func TestVerifier(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(true)
	code := a.code("openid")
	a.exchange(code, "code_verifier", strings.Repeat("w", 43)).refused(t, "invalid_grant")
	a.exchange(code, "code_verifier", "").refused(t, "invalid_grant")
	a.exchange(code, "code_verifier", strings.Repeat("v", 42)).refused(t, "invalid_grant")
	a.exchange(code, "redirect_uri", "").ok(t) // OAuth 2.1 leaves it out

	c := h.app(false) // who may do without
	code = c.code("openid")
	c.exchange(code, "code_verifier", strings.Repeat("v", 43)).refused(t, "invalid_grant")
	c.exchange(code, "redirect_uri", "").refused(t, "invalid_grant")
	c.exchange(code, "redirect_uri", "https://app.example/cb?x").refused(t, "invalid_grant")
	c.exchange(code).ok(t)
	// A challenge that was sent has to be met, also after a wrong try.
	c.verifier = strings.Repeat("v", 43)
	code = c.code("openid")
	c.exchange(code, "code_verifier", strings.Repeat("w", 43)).refused(t, "invalid_grant")
	c.exchange(code, "code_verifier", "").refused(t, "invalid_grant")
	c.exchange(code).ok(t)
}

func TestRedirectsOfRequests(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(true, func(n *catalog.NewOAuthClient) {
		n.RedirectURIs = []string{"https://app.example/cb", "http://127.0.0.1:8080/cb", "http://localhost/cb", "cursor://anysphere/cb", "https://app.example/with?a=b"}
	})
	for uri, good := range map[string]bool{
		"https://app.example/cb": true, "http://127.0.0.1:49152/cb": true, "http://127.0.0.1/cb": true, "http://localhost:3000/cb": true, "cursor://anysphere/cb": true, "https://app.example/with?a=b": true,
		"https://app.example/cb/": false, "https://app.example/cb/more": false, "https://app.example/": false, "https://app.example/CB": false, "https://APP.example/cb": false,
		"https://app.example/cb?x=1": false, "https://app.example/cb#f": false, "https://app.example/cb#": false, "https://user@app.example/cb": false, "https://app.example:8443/cb": false, "https://app.example:443/cb": false,
		"https://app.example.evil.example/cb": false, "https://evil.example/cb": false, "http://app.example/cb": false, "//app.example/cb": false, "/cb": false, "https://app.example/../cb": false,
		"http://user@127.0.0.1:1/cb": false, "http://127.0.0.1:1/other": false, "http://127.0.0.2:1/cb": false, "http://127.0.0.1:1@evil.example/cb": false, "http://[::1]:1/cb": false, "https://localhost:3000/cb": false,
		"javascript:alert(1)": false, "cursor://anysphere/cb2": false, "https://app.example/cb%20": false, " https://app.example/cb": false, "https://app.example\\@evil.example/cb": false,
	} {
		a.redirect = uri
		w := h.authorize(a.request("openid"))
		if !good {
			if w.Code != http.StatusBadRequest || w.Header().Get("Location") != "" || strings.Contains(w.Body.String(), "decision") {
				t.Errorf("%s: %d to %q", uri, w.Code, w.Header().Get("Location"))
			}
			continue
		}
		if code := a.code("openid"); code != "" {
			a.exchange(code).ok(t)
		}
	}
	a.redirect = "https://app.example/with?a=b"
	if u := h.consent(a.request("openid")); u.Query().Get("a") != "b" {
		t.Errorf("the app's own query is gone: %s", u)
	}
	for _, w := range []*http.Response{h.authorize(a.request("openid", "redirect_uri", "")).Result(), h.authorize(a.request("openid", "client_id", "")).Result(), h.authorize(a.request("openid", "client_id", "psqlrp_none")).Result()} {
		if w.StatusCode != http.StatusBadRequest || w.Header.Get("Location") != "" {
			t.Errorf("%d to %q", w.StatusCode, w.Header.Get("Location"))
		}
	}
	for _, twice := range []string{"client_id", "redirect_uri"} {
		v := a.request("openid")
		v.Add(twice, v.Get(twice))
		if w := h.authorize(v); w.Code != http.StatusBadRequest {
			t.Errorf("%s twice: %d", twice, w.Code)
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(true)
	for _, c := range []struct {
		name, value, want string
	}{
		{"scope", "openid admin", "invalid_scope"},
		{"scope", "OpenID", "invalid_scope"},
		{"response_type", "token", "unsupported_response_type"},
		{"response_type", "code id_token", "unsupported_response_type"},
		{"response_type", "", "unsupported_response_type"},
		{"response_mode", "fragment", "invalid_request"},
		{"response_mode", "form_post", "invalid_request"},
		{"code_challenge", "", "invalid_request"},
		{"code_challenge", "short", "invalid_request"},
		{"code_challenge_method", "plain", "invalid_request"},
		{"code_challenge_method", "", "invalid_request"},
		{"resource", "https://other.example", "invalid_target"},
		{"resource", theIssuer + "/v1/db", "invalid_target"},
		{"resource", theIssuer + ".evil.example", "invalid_target"},
		{"request", "x.y.z", "request_not_supported"},
		{"request_uri", "https://app.example/r", "request_uri_not_supported"},
		{"prompt", "none login", "invalid_request"},
		{"prompt", "create", "invalid_request"},
		{"max_age", "-1", "invalid_request"},
		{"nonce", strings.Repeat("n", 513), "invalid_request"},
	} {
		q := h.away(h.authorize(a.request("openid", c.name, c.value))).Query()
		if q.Get("error") != c.want || q.Get("state") != "s" || q.Get("iss") != theIssuer || q.Get("code") != "" || q.Get("error_description") == "" {
			t.Errorf("%s=%s: %v, want %s", c.name, c.value, q, c.want)
		}
	}
	for _, name := range []string{"scope", "nonce", "response_type", "code_challenge", "prompt"} {
		v := a.request("openid")
		v[name] = append(v[name], "consent")
		if len(v[name]) == 1 {
			v[name] = append(v[name], "consent")
		}
		if q := h.away(h.authorize(v)).Query(); q.Get("error") != "invalid_request" {
			t.Errorf("%s twice: %v", name, q)
		}
	}
	v := a.request("openid")
	v["resource"] = []string{theIssuer, theIssuer + "/v1"}
	if q := h.away(h.authorize(v)).Query(); q.Get("error") != "invalid_target" {
		t.Errorf("two resources: %v", q)
	}
	v = a.request("openid")
	v["state"] = []string{"a", "b"}
	if q := h.away(h.authorize(v)).Query(); q.Get("error") != "invalid_request" || q.Has("state") {
		t.Errorf("two states: %v", q)
	}
	// Stock clients without state and nonce.
	if u := h.consent(a.request("", "state", "", "nonce", "")); u.Query().Get("code") == "" || u.Query().Has("state") {
		t.Errorf("without state: %s", u)
	}
	held := h.app(false, func(n *catalog.NewOAuthClient) { n.Scopes = []string{"openid", "email"} })
	if q := h.away(h.authorize(held.request("openid database"))).Query(); q.Get("error") != "invalid_scope" {
		t.Errorf("%v", q)
	}
	strict := h.app(false, func(n *catalog.NewOAuthClient) { n.RequirePKCE = true })
	if q := h.away(h.authorize(strict.request("openid"))).Query(); q.Get("error") != "invalid_request" {
		t.Errorf("%v", q)
	}
	form := a.grantOf("psqloc_x")
	form.Add("code", "psqloc_y")
	h.token(form).refused(t, "invalid_request")
}
