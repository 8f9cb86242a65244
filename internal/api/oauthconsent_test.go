package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/console"
)

func TestConsentPage(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(true)
	w := h.authorize(a.request("openid email database"))
	text := w.Body.String()
	for _, word := range []string{"App Data", "app.example", "Your e-mail address", "A private database", "ada@example.com", `action="/oauth/consent"`} {
		if !strings.Contains(text, word) {
			t.Errorf("the page lacks %q", word)
		}
	}
	if strings.Contains(text, "<script") || strings.Contains(text, "Your name and picture") {
		t.Error("the page has what it should not")
	}
	hd := w.Header()
	if hd.Get("X-Frame-Options") != "DENY" || hd.Get("Content-Security-Policy") != console.PolicyOnward("https") || !strings.Contains(hd.Get("Content-Security-Policy"), "frame-ancestors 'none'") || hd.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v", hd)
	}
	u := h.consent(a.request("openid"), "decision", "deny")
	if q := u.Query(); q.Get("error") != "access_denied" || q.Get("state") != "s" || q.Get("iss") != theIssuer {
		t.Errorf("%v", q)
	}
	// Nobody's app says so.
	d := h.app(true, func(n *catalog.NewOAuthClient) { n.NamespaceID = "" })
	if text := h.authorize(d.request("openid")).Body.String(); !strings.Contains(text, "own word") {
		t.Error("the page doesn't say that the app is unknown")
	}
	if text := h.authorize(d.request("database")).Body.String(); !strings.Contains(text, "charged to your namespace") {
		t.Error("the page doesn't say who pays")
	}
	app := h.app(true, func(n *catalog.NewOAuthClient) { n.RedirectURIs = []string{"cursor://anysphere/cb"} })
	if got := h.authorize(app.request("openid")).Header().Get("Content-Security-Policy"); got != console.PolicyOnward("cursor") {
		t.Errorf("%s", got)
	}
}

// A consent counts for whom it was shown to and for just what it said.
func TestForgedConsent(t *testing.T) {
	h := newAppHouse(t)
	a, b := h.app(true), h.app(true)
	fresh := func() url.Values { return consentForm(t, h.authorize(a.request("openid"))) }
	post := func(cookie string, form url.Values, headers ...string) *httptest.ResponseRecorder {
		return h.send(http.MethodPost, consentPath, cookie, form, headers...)
	}
	refused := func(what string, w *httptest.ResponseRecorder) {
		t.Helper()
		if w.Code != http.StatusForbidden || w.Header().Get("Location") != "" {
			t.Errorf("%s: %d to %q", what, w.Code, w.Header().Get("Location"))
		}
	}
	for what, request := range map[string]url.Values{
		"more scopes":       a.request("openid email"),
		"another app":       b.request("openid"),
		"another challenge": a.request("openid", "code_challenge", s256(strings.Repeat("x", 43))),
		"another state":     a.request("openid", "state", "other"),
	} {
		form := fresh()
		form.Set("request", request.Encode())
		refused(what, post(h.cookie, form))
	}
	form := fresh()
	form.Set("seal", "")
	refused("no seal", post(h.cookie, form))
	refused("another session", post(h.signIn(""), fresh()))
	refused("another site", post(h.cookie, fresh(), "Sec-Fetch-Site", "cross-site"))
	refused("another origin", post(h.cookie, fresh(), "Origin", "https://evil.example"))
	refused("no origin", post(h.cookie, fresh(), "Origin", "null"))
	form = fresh()
	h.pass(consentTime + time.Second)
	refused("out of date", post(h.cookie, form))
	// The app changed its name since.
	form = fresh()
	if _, err := h.cat.UpdateOAuthClient(t.Context(), h.acme.ID, a.ID, func(cl *catalog.OAuthClient) error { cl.Name = "Bank"; return nil }); err != nil {
		t.Fatal(err)
	}
	refused("another name", post(h.cookie, form))
	if to := h.away(post("", fresh())); to.Path != signInPath {
		t.Errorf("signed out: %s", to)
	}
	if w := post(h.cookie, fresh()); h.away(w).Query().Get("code") == "" {
		t.Error("an honest one is refused too")
	}
}

// Confidential apps are remembered for what was agreed to, others ask every time.
func TestConsentIsRemembered(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(false)
	asks := func(v url.Values) bool { return h.authorize(v).Code == http.StatusOK }
	none := func(v url.Values) string { return h.away(h.authorize(v)).Query().Get("error") }
	if got := none(a.request("openid", "prompt", "none")); got != "consent_required" {
		t.Errorf("%q", got)
	}
	got := a.exchange(a.code("openid email")).ok(t)
	if asks(a.request("openid")) || asks(a.request("email openid")) || !asks(a.request("openid profile")) || !asks(a.request("openid", "prompt", "consent")) || !asks(a.request("openid", "prompt", "select_account")) {
		t.Error("what was agreed to isn't remembered, or something else is")
	}
	if got := none(a.request("openid", "prompt", "none")); got != "" {
		t.Errorf("%q", got)
	}
	if got := none(a.request("openid", "prompt", "none", "id_token_hint", got.IDToken)); got != "" {
		t.Errorf("%q", got)
	}
	if got := none(a.request("openid", "prompt", "none", "id_token_hint", got.IDToken[:len(got.IDToken)-4])); got != "login_required" {
		t.Errorf("%q", got)
	}
	p := h.app(true)
	p.code("openid")
	if !asks(p.request("openid")) || none(p.request("openid", "prompt", "none")) != "consent_required" {
		t.Error("a public app is remembered")
	}
	// Disconnected is forgotten.
	g, err := h.cat.OAuthGrantOf(h.ada.ID, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.cat.DisconnectOAuth(t.Context(), h.ada.ID, g.ID); err != nil {
		t.Fatal(err)
	}
	if !asks(a.request("openid")) {
		t.Error("it is remembered after a disconnect")
	}
}

// An app's request survives the sign-in, and can ask for another one.
func TestAuthorizeSignsIn(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(true)
	v := a.request("openid", "state", strings.Repeat("s", 1500), "login_hint", "Ada@Example.com")
	signIn := func(v url.Values, cookie string) string {
		t.Helper()
		to := h.away(h.send(http.MethodGet, authorizePath+"?"+v.Encode(), cookie, nil))
		if to.Path != signInPath || to.Host != "" {
			t.Fatalf("sent to %s", to)
		}
		return to.String()
	}
	login := signIn(v, "")
	page := h.send(http.MethodGet, login, "", nil)
	if !strings.Contains(page.Body.String(), `value="ada@example.com"`) || page.Header().Get("Content-Security-Policy") != console.PolicyOnward("https") {
		t.Errorf("%v %s", page.Header(), page.Body)
	}
	back := h.send(http.MethodPost, login, "", credentials(adaPassword))
	w := h.send(http.MethodGet, back.Header().Get("Location"), setCookie(back), nil)
	if form := consentForm(t, w); !strings.Contains(form.Get("request"), strings.Repeat("s", 1500)) {
		t.Error("the request came back another")
	}
	if got := h.away(h.send(http.MethodGet, authorizePath+"?"+a.request("openid", "prompt", "none").Encode(), "", nil)).Query().Get("error"); got != "login_required" {
		t.Errorf("%q", got)
	}
	// prompt=login and max_age, with somebody signed in.
	for _, change := range [][]string{{"prompt", "login"}, {"max_age", "30"}, {"max_age", "0"}} {
		h.pass(time.Minute)
		v := a.request("openid", change...)
		login := signIn(v, h.cookie)
		if page := h.send(http.MethodGet, login, h.cookie, nil); page.Code != http.StatusOK || !strings.Contains(page.Body.String(), `name="password"`) {
			t.Errorf("%v: the sign-in page does not ask: %d", change, page.Code)
		}
		next, err := url.Parse(login)
		if err != nil {
			t.Fatal(err)
		}
		// To come back without a sign-in is of no use, nor is a moment of one's own.
		if to := h.away(h.send(http.MethodGet, next.Query().Get("next"), h.cookie, nil)); to.Path != signInPath {
			t.Errorf("%v: %s", change, to)
		}
		forged := a.request("openid", append(change, afterParam, "1.x")...)
		if to := h.away(h.send(http.MethodGet, authorizePath+"?"+forged.Encode(), h.cookie, nil)); to.Path != signInPath {
			t.Errorf("%v: %s", change, to)
		}
		h.pass(time.Second)
		back := h.send(http.MethodPost, login, h.cookie, credentials(adaPassword))
		h.cookie = setCookie(back)
		w := h.send(http.MethodGet, back.Header().Get("Location"), h.cookie, nil)
		code := h.away(h.send(http.MethodPost, consentPath, h.cookie, consentForm(t, w))).Query().Get("code")
		if at := idTokenOf(t, a.exchange(code).ok(t).IDToken)["auth_time"]; at != float64(h.clock().Unix()) {
			t.Errorf("%v: auth_time %v", change, at)
		}
		if change[0] == "max_age" {
			h.pass(time.Minute)
			if got := h.away(h.authorize(a.request("openid", "prompt", "none", "max_age", "30"))).Query().Get("error"); got != "login_required" {
				t.Errorf("%q", got)
			}
		}
	}
	if w := h.authorize(a.request("openid", "state", strings.Repeat("s", maxAuthorize))); w.Code != http.StatusBadRequest {
		t.Errorf("too long: %d", w.Code)
	}
	// An app may post its request; the browser comes again with GET.
	if to := h.away(h.send(http.MethodPost, authorizePath, "", a.request("openid"), "Sec-Fetch-Site", "cross-site", "Origin", "https://app.example")); to.Path != authorizePath || to.Query().Get("client_id") != a.ID {
		t.Errorf("%s", to)
	}
}

func TestDatabaseOfApp(t *testing.T) {
	h := newAppHouse(t)
	for _, public := range []bool{true, false} {
		a := h.app(public)
		got := a.exchange(a.code("openid database")).ok(t)
		if got.APIURL != theIssuer || got.Email != "ada@example.com" || got.IDToken == "" || strings.Contains(got.raw, "expires_in") || got.Refresh != "" || !strings.HasPrefix(got.Access, "psql_live_") || !strings.HasPrefix(got.Database, "ada/app-data") {
			t.Errorf("%+v", got)
		}
		for _, sql := range []string{"CREATE TABLE notes(a)", "INSERT INTO notes VALUES(1)", "SELECT a FROM notes"} {
			if status, body := h.sql(got.Access, got.Database, sql); status != http.StatusOK {
				t.Errorf("%s: %d %s", sql, status, body)
			}
		}
		if status, _ := h.sql(got.Access, "ada/main", "SELECT 1"); status != http.StatusForbidden {
			t.Errorf("it opens another database: %d", status)
		}
		if status, info := h.userinfo(got.Access); status != http.StatusOK || info["sub"] != h.ada.ID {
			t.Errorf("%d %v", status, info)
		}
		// It makes nothing that outlives it.
		for _, path := range []string{"/claim_branch", "/branches/b"} {
			method := map[bool]string{true: http.MethodPost, false: http.MethodPut}[path == "/claim_branch"]
			if w := h.send(method, "/v1/db/"+got.Database+path, "", nil, "body", `{}`, "Authorization", "Bearer "+got.Access); w.Code != http.StatusForbidden {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		}
		// Without openid there is no id_token; the database is the same, the token another.
		again := a.exchange(a.code("database")).ok(t)
		if again.Database != got.Database || again.Access == got.Access || again.IDToken != "" {
			t.Errorf("%+v", again)
		}
		if status, info := h.userinfo(again.Access); status != http.StatusForbidden || info["error"] != "insufficient_scope" {
			t.Errorf("%d %v", status, info)
		}
		if status, body := h.sql(again.Access, again.Database, "SELECT count(*) FROM notes"); status != http.StatusOK || !strings.Contains(body, "1") {
			t.Errorf("%d %s", status, body)
		}
		if status, _ := h.sql(got.Access, got.Database, "SELECT 1"); status != http.StatusOK {
			t.Errorf("the former token: %d", status)
		}
	}
	// As many sign-ins live as may; the oldest ends.
	a := h.app(false)
	first := a.exchange(a.code("database")).ok(t)
	for range 5 {
		a.exchange(a.code("database")).ok(t)
	}
	if status, _ := h.sql(first.Access, first.Database, "SELECT 1"); status != http.StatusUnauthorized {
		t.Errorf("the oldest lives: %d", status)
	}
	// A deleted one: the code gets nothing, and the next consent makes another.
	code := a.code("database")
	d, err := h.cat.OAuthGrantOf(h.ada.ID, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.door.delete(t.Context(), d.Database, ""); err != nil {
		t.Fatal(err)
	}
	a.exchange(code).refused(t, "invalid_grant")
	if w := h.authorize(a.request("database")); w.Code != http.StatusOK {
		t.Errorf("the user isn't asked for a new database: %d", w.Code)
	}
	if next := a.exchange(a.code("database")).ok(t); next.Database == first.Database {
		t.Errorf("%+v", next)
	}
}

func TestDoubleClickMakesOneDatabase(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(true)
	form := consentForm(t, h.authorize(a.request("database")))
	answers := atOnce(8, func() tokenAnswer {
		return a.exchange(h.away(h.send(http.MethodPost, consentPath, h.cookie, form)).Query().Get("code"))
	})
	for _, got := range answers {
		if got.status == http.StatusOK && got.Database != "ada/app-data" {
			t.Errorf("%+v", got)
		}
	}
	home, err := h.cat.HomeOf(h.ada.ID)
	if err != nil {
		t.Fatal(err)
	}
	if list := h.cat.DatabasesOf(home.ID); len(list) != 2 {
		t.Errorf("%d databases, want main and the app's", len(list))
	}
}

// Who has no namespace has no place for an app's database.
func TestConsentWithoutNamespace(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(false)
	form := consentForm(t, h.authorize(a.request("database")))
	home, err := h.cat.HomeOf(h.ada.ID)
	if err == nil {
		_, err = h.cat.DeleteNamespace(t.Context(), catalog.Deletion{NamespaceID: home.ID, By: h.ada.ID, Force: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	if w := h.send(http.MethodPost, consentPath, h.cookie, form); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "no namespace of your own") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// What an app's token does is charged to the app, across a restart of the books too.
func TestAppPays(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(false)
	got := a.exchange(a.code("database")).ok(t)
	for _, sql := range []string{"CREATE TABLE t(a)", "INSERT INTO t VALUES(1),(2)", "SELECT * FROM t"} {
		if status, body := h.sql(got.Access, got.Database, sql); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	books := h.door.opt.Billing
	if err := books.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	home, err := h.cat.HomeOf(h.ada.ID)
	if err != nil {
		t.Fatal(err)
	}
	used := func(ns string) (requests int64) {
		day := catalog.Day(h.clock())
		r, err := books.Usage(t.Context(), catalog.UsageQuery{NamespaceID: ns, From: day, To: day, GroupBy: "day"})
		if err != nil {
			t.Fatal(err)
		}
		return r.Total.Requests
	}
	if app, user := used(h.acme.ID), used(home.ID); app != 3 || user != 0 {
		t.Errorf("charged to the app %d requests, to the user %d", app, user)
	}
	// Of one that is disconnected, too: the file may tell later.
	token, err := h.cat.Authenticate(got.Access)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.cat.DisconnectOAuth(t.Context(), h.ada.ID, h.cat.ConnectedApps(h.ada.ID)[0].ID); err != nil {
		t.Fatal(err)
	}
	if h.cat.Payer(token.ID) != h.acme.ID {
		t.Error("who pays is forgotten")
	}
}

func TestDisconnect(t *testing.T) {
	h := newAppHouse(t)
	a, b := h.app(false), h.app(false, func(n *catalog.NewOAuthClient) { n.Name = "Other" })
	got := a.exchange(a.code("openid database offline_access")).ok(t)
	plain := a.exchange(a.code("openid")).ok(t)
	other := b.exchange(b.code("openid database")).ok(t)
	h.sql(got.Access, got.Database, "CREATE TABLE kept(a)")
	pending := a.code("openid")
	page := h.send(http.MethodGet, appsPath, h.cookie, nil)
	id := h.cat.ConnectedApps(h.ada.ID)[0].ID
	if text := page.Body.String(); page.Code != http.StatusOK || !strings.Contains(text, "App Data") || !strings.Contains(text, got.Database) || !strings.Contains(text, id) {
		t.Errorf("%d %s", page.Code, text)
	}
	var list struct{ Data []connectedAppInfo }
	if err := json.Unmarshal(h.send(http.MethodGet, "/api/connected-apps", h.cookie, nil).Body.Bytes(), &list); err != nil || len(list.Data) != 2 || list.Data[0].ClientID != a.ID || *list.Data[0].Database != got.Database || !slices.Contains(list.Data[0].Scopes, "database") {
		t.Errorf("%+v %v", list, err)
	}
	if w := h.send(http.MethodPost, appsPath, h.cookie, url.Values{"action": {"disconnect"}, "app": {id}}, "Sec-Fetch-Site", "cross-site"); w.Code != http.StatusForbidden {
		t.Errorf("of another site: %d", w.Code)
	}
	if to := h.away(h.send(http.MethodPost, appsPath, h.cookie, url.Values{"action": {"disconnect"}, "app": {id}})); to.Path != appsPath {
		t.Errorf("%s", to)
	}
	if status, _ := h.sql(got.Access, got.Database, "SELECT 1"); status != http.StatusUnauthorized {
		t.Errorf("%d", status)
	}
	if status, _ := h.userinfo(plain.Access); status != http.StatusUnauthorized {
		t.Errorf("%d", status)
	}
	a.refresh(got.Refresh).refused(t, "invalid_grant")
	a.exchange(pending).refused(t, "invalid_grant")
	if status, _ := h.sql(other.Access, other.Database, "SELECT 1"); status != http.StatusOK {
		t.Errorf("another app's: %d", status)
	}
	if w := h.send(http.MethodDelete, "/api/connected-apps/"+id, h.cookie, nil); w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
	// The data stays, and is there again when the app is.
	again := a.exchange(a.code("openid database")).ok(t)
	if again.Database != got.Database {
		t.Errorf("%+v", again)
	}
	if status, body := h.sql(again.Access, again.Database, "SELECT * FROM kept"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	if w := h.send(http.MethodDelete, "/api/connected-apps/"+id, h.cookie, nil); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if status, _ := h.sql(again.Access, again.Database, "SELECT 1"); status != http.StatusUnauthorized {
		t.Errorf("%d", status)
	}
}

// What was agreed to ends with the app and with the user's own rights.
func TestGrantFollowsCatalog(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(false)
	got := a.exchange(a.code("openid database")).ok(t)
	works := func() bool {
		status, _ := h.sql(got.Access, got.Database, "SELECT 1")
		info, _ := h.userinfo(got.Access)
		if (status == http.StatusOK) != (info == http.StatusOK) {
			t.Errorf("%d %d", status, info)
		}
		return status == http.StatusOK
	}
	if _, err := h.cat.SetDisabled(t.Context(), h.ada.ID, true); err != nil || works() {
		t.Errorf("a disabled user's token works: %v", err)
	}
	if _, err := h.cat.SetDisabled(t.Context(), h.ada.ID, false); err != nil || !works() {
		t.Errorf("%v", err)
	}
	code := ""
	h.cookie = h.signIn("")
	plain := a.exchange(a.code("openid")).ok(t)
	code = a.code("openid")
	if _, err := h.cat.DeleteOAuthClient(t.Context(), h.acme.ID, a.ID); err != nil || works() {
		t.Errorf("a deleted app's token works: %v", err)
	}
	if status, _ := h.userinfo(plain.Access); status != http.StatusUnauthorized {
		t.Errorf("a deleted app's sign-in works: %d", status)
	}
	a.exchange(code).refused(t, "invalid_client")
	if err := h.cat.SweepOAuth(t.Context()); err != nil || len(h.cat.ConnectedApps(h.ada.ID)) != 0 {
		t.Errorf("%v", err)
	}
	b := h.app(false)
	got = b.exchange(b.code("openid database")).ok(t)
	tokens, err := h.cat.Authenticate(got.Access)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.cat.RevokeToken(t.Context(), tokens.ID); err != nil || works() {
		t.Errorf("%v", err)
	}
}
