package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/store"
)

const theIssuer = "https://sql.example.com"

// appHouse is a server with a user, ada, and apps of another namespace, acme.
type appHouse struct {
	t      testing.TB
	door   *Server
	cat    *catalog.Catalog
	dir    string
	acme   catalog.Namespace
	ada    *catalog.User
	cookie string // of ada's session

	mu  sync.Mutex
	now time.Time
}

func (h *appHouse) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *appHouse) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func newAppHouse(t testing.TB, change ...func(*Options)) *appHouse {
	t.Helper()
	h := &appHouse{t: t, dir: t.TempDir(), now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	h.cat, err = catalog.Open(t.Context(), filepath.Join(h.dir, "catalog.db"), catalog.Options{Now: h.clock, MaxSignIns: 5})
	must(err)
	books, err := billing.Open(t.Context(), billing.Options{Catalog: h.cat, Now: h.clock, Prices: billing.Prices{Request: 500}})
	must(err)
	must(os.Mkdir(filepath.Join(h.dir, "db"), 0o700))
	st, err := store.New(store.Options{Dir: filepath.Join(h.dir, "db"), Now: h.clock, Meter: books})
	must(err)
	t.Cleanup(func() {
		st.Close(context.Background())
		h.cat.Close()
	})
	h.acme, err = h.cat.CreateNamespace(t.Context(), "acme")
	must(err)
	h.ada, err = h.cat.CreateUser(t.Context(), catalog.NewUser{Email: "ada@example.com", Name: "Ada", PasswordHash: adaPassword})
	must(err)
	opt := Options{Catalog: h.cat, Placement: st, Billing: books, Now: h.clock, BaseURL: theIssuer + "/", Passwords: plainPasswords{}}
	for _, f := range change {
		f(&opt)
	}
	h.door = New(opt)
	h.cookie = h.signIn("")
	return h
}

// send sends a request as it is.
func (h *appHouse) send(method, path, cookie string, form url.Values, headers ...string) *httptest.ResponseRecorder {
	h.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", formEncoding)
	}
	if cookie != "" {
		r.AddCookie(&http.Cookie{Name: cookieName, Value: cookie})
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "body" {
			r = httptest.NewRequest(method, path, strings.NewReader(headers[i+1])).WithContext(r.Context())
			r.Header.Set("Content-Type", "application/json")
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.door.ServeHTTP(w, r)
	return w
}

// signIn signs ada in, on the way to an address, and returns the cookie.
func (h *appHouse) signIn(login string) string {
	h.t.Helper()
	if login == "" {
		login = signInPath
	}
	w := h.send(http.MethodPost, login, "", credentials(adaPassword))
	cookie := setCookie(w)
	if w.Code != http.StatusSeeOther || cookie == "" {
		h.t.Fatalf("sign in: %d %s", w.Code, w.Body)
	}
	return cookie
}

// testApp is an app with its secret.
type testApp struct {
	*catalog.OAuthClient
	h        *appHouse
	secret   string
	verifier string
	redirect string
}

func (h *appHouse) app(public bool, change ...func(*catalog.NewOAuthClient)) *testApp {
	h.t.Helper()
	n := catalog.NewOAuthClient{NamespaceID: h.acme.ID, Name: "App Data", Public: public, RedirectURIs: []string{"https://app.example/cb"}, Most: 100}
	for _, f := range change {
		f(&n)
	}
	cl, secret, err := h.cat.CreateOAuthClient(h.t.Context(), n)
	if err != nil {
		h.t.Fatal(err)
	}
	a := &testApp{OAuthClient: cl, h: h, secret: secret, redirect: cl.RedirectURIs[0]}
	if public {
		a.verifier = strings.Repeat("v", 43)
	}
	return a
}

func s256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// request is the app's request for scopes, with changes: name, value; an empty value takes a parameter away.
func (a *testApp) request(scope string, changes ...string) url.Values {
	v := url.Values{"response_type": {"code"}, "client_id": {a.ID}, "redirect_uri": {a.redirect}, "state": {"s"}, "nonce": {"n"}}
	if scope != "" {
		v.Set("scope", scope)
	}
	if a.verifier != "" {
		v.Set("code_challenge", s256(a.verifier))
		v.Set("code_challenge_method", "S256")
	}
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == "" {
			v.Del(changes[i])
		} else {
			v.Set(changes[i], changes[i+1])
		}
	}
	return v
}

func (h *appHouse) authorize(v url.Values) *httptest.ResponseRecorder {
	h.t.Helper()
	return h.send(http.MethodGet, authorizePath+"?"+v.Encode(), h.cookie, nil)
}

var hiddenField = regexp.MustCompile(`name="(request|seal)" value="([^"]*)"`)

// consentForm is the form of a page that asks for consent.
func consentForm(t testing.TB, w *httptest.ResponseRecorder) url.Values {
	t.Helper()
	form := url.Values{"decision": {"allow"}}
	for _, m := range hiddenField.FindAllStringSubmatch(w.Body.String(), -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	if w.Code != http.StatusOK || form.Get("request") == "" || form.Get("seal") == "" {
		t.Fatalf("no page of a consent: %d %v %s", w.Code, w.Header(), w.Body)
	}
	return form
}

// consent lets ada agree to a request, if she is asked, and returns where she is sent.
func (h *appHouse) consent(v url.Values, changes ...string) *url.URL {
	h.t.Helper()
	w := h.authorize(v)
	if w.Code == http.StatusOK {
		form := consentForm(h.t, w)
		for i := 0; i < len(changes); i += 2 {
			form.Set(changes[i], changes[i+1])
		}
		w = h.send(http.MethodPost, consentPath, h.cookie, form)
	}
	return h.away(w)
}

// away is where a browser is sent.
func (h *appHouse) away(w *httptest.ResponseRecorder) *url.URL {
	h.t.Helper()
	u, err := url.Parse(w.Header().Get("Location"))
	if err != nil || w.Code != http.StatusSeeOther {
		h.t.Fatalf("not sent away: %d %s", w.Code, w.Body)
	}
	return u
}

// code is what the browser brings the app.
func (a *testApp) code(scope string, changes ...string) string {
	a.h.t.Helper()
	u := a.h.consent(a.request(scope, changes...))
	q := u.Query()
	if q.Get("code") == "" || q.Get("state") != "s" || q.Get("iss") != theIssuer || u.Scheme+"://"+u.Host+u.Path != strings.SplitN(a.redirect, "?", 2)[0] {
		a.h.t.Fatalf("sent to %s", u)
	}
	return q.Get("code")
}

// grantOf is the app's request for tokens, with changes as in request.
func (a *testApp) grantOf(code string, changes ...string) url.Values {
	v := url.Values{"grant_type": {grantCode}, "code": {code}, "redirect_uri": {a.redirect}, "client_id": {a.ID}}
	if a.secret != "" {
		v.Set("client_secret", a.secret)
	}
	if a.verifier != "" {
		v.Set("code_verifier", a.verifier)
	}
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == "" {
			v.Del(changes[i])
		} else {
			v.Set(changes[i], changes[i+1])
		}
	}
	return v
}

type tokenAnswer struct {
	Access      string `json:"access_token"`
	Type        string `json:"token_type"`
	Expires     int64  `json:"expires_in"`
	Refresh     string `json:"refresh_token"`
	Scope       string `json:"scope"`
	IDToken     string `json:"id_token"`
	Database    string `json:"database"`
	APIURL      string `json:"api_url"`
	Email       string `json:"user_email"`
	Error       string `json:"error"`
	Description string `json:"error_description"`
	status      int
	raw         string
}

// token posts to the token endpoint.
func (h *appHouse) token(form url.Values, headers ...string) tokenAnswer {
	h.t.Helper()
	w := h.send(http.MethodPost, tokenPath, "", form, headers...)
	var a tokenAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		h.t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	a.status, a.raw = w.Code, w.Body.String()
	if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Pragma") != "no-cache" {
		h.t.Errorf("the answer may be kept: %v", w.Header())
	}
	return a
}

func (a *testApp) exchange(code string, changes ...string) tokenAnswer {
	a.h.t.Helper()
	return a.h.token(a.grantOf(code, changes...))
}

func (a *testApp) refresh(token string, changes ...string) tokenAnswer {
	a.h.t.Helper()
	return a.h.token(a.grantOf("", append([]string{"grant_type", grantRefresh, "refresh_token", token, "code", "", "redirect_uri", "", "code_verifier", ""}, changes...)...))
}

// ok fails where tokens were refused.
func (a tokenAnswer) ok(t testing.TB) tokenAnswer {
	t.Helper()
	if a.status != http.StatusOK || a.Access == "" || a.Type != "Bearer" {
		t.Fatalf("refused: %+v", a)
	}
	return a
}

// refused fails where they were not, or for another reason.
func (a tokenAnswer) refused(t testing.TB, code string) {
	t.Helper()
	if want := map[bool]int{true: http.StatusUnauthorized, false: http.StatusBadRequest}[code == "invalid_client"]; a.status != want || a.Error != code || a.Access != "" || a.Description == "" {
		t.Errorf("got %+v, want %s", a, code)
	}
}

// userinfo is the status of /userinfo, and what it says.
func (h *appHouse) userinfo(token string) (int, map[string]any) {
	h.t.Helper()
	w := h.send(http.MethodGet, userInfoPath, "", nil, "Authorization", "Bearer "+token)
	m := map[string]any{}
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		h.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Code, m
}

// sql runs a statement with a token, and returns the status and the answer.
func (h *appHouse) sql(token, database, sql string) (int, string) {
	h.t.Helper()
	text, err := json.Marshal(map[string]string{"sql": sql})
	if err != nil {
		h.t.Fatal(err)
	}
	w := h.send(http.MethodPost, "/v1/db/"+database+"/query", "", nil, "body", string(text), "Authorization", "Bearer "+token)
	return w.Code, w.Body.String()
}

func sha(text string) [32]byte { return sha256.Sum256([]byte(text)) }
