package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// goApp is a relying party made of go-oidc and golang.org/x/oauth2, as their documentation has it.
type goApp struct {
	ctx      context.Context
	f        *foreign
	v        *visitor
	provider *oidc.Provider
	meta     struct {
		Issuer     string `json:"issuer"`
		Introspect string `json:"introspection_endpoint"`
		Revoke     string `json:"revocation_endpoint"`
	}
	conf oauth2.Config
}

func newGoApp(ctx context.Context, f *foreign, v *visitor) (*goApp, error) {
	p, err := oidc.NewProvider(ctx, f.Issuer)
	if err != nil {
		return nil, err
	}
	a := &goApp{ctx: ctx, f: f, v: v, provider: p, conf: oauth2.Config{ClientID: f.ID, ClientSecret: f.Secret, Endpoint: p.Endpoint(), RedirectURL: f.RedirectURI}}
	if f.Method == "client_secret_post" { // else it finds out: by Basic, of a public client with an empty secret
		a.conf.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return a, p.Claims(&a.meta)
}

// goSignIn is one sign-in, goTokens what it gets.
type goSignIn struct {
	app                    *goApp
	url                    string
	state, nonce, verifier string
}

type goTokens struct {
	*oauth2.Token
	subject string
	claims  struct {
		Email    string `json:"email"`
		Name     string `json:"name"`
		AuthTime int64  `json:"auth_time"`
	}
}

func (a *goApp) begin(scope string, more ...oauth2.AuthCodeOption) *goSignIn {
	s := &goSignIn{app: a, state: oauth2.GenerateVerifier(), nonce: oauth2.GenerateVerifier(), verifier: oauth2.GenerateVerifier()}
	conf := a.conf
	conf.Scopes = strings.Fields(scope)
	s.url = conf.AuthCodeURL(s.state, append(more, oidc.Nonce(s.nonce), oauth2.S256ChallengeOption(s.verifier))...)
	return s
}

func (s *goSignIn) finish(callback string) (*goTokens, error) {
	u, err := url.Parse(callback)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	switch {
	case q.Get("state") != s.state || q.Get("iss") != s.app.meta.Issuer:
		return nil, fmt.Errorf("an answer to something else: %v", q)
	case q.Has("error"):
		return nil, &oauth2.RetrieveError{ErrorCode: q.Get("error")}
	}
	got, err := s.app.conf.Exchange(s.app.ctx, q.Get("code"), oauth2.VerifierOption(s.verifier))
	if err != nil {
		return nil, err
	}
	return s.app.verified(got, s.nonce)
}

// verified checks the id_token, by the published keys alone.
func (a *goApp) verified(got *oauth2.Token, nonce string) (*goTokens, error) {
	raw, _ := got.Extra("id_token").(string)
	id, err := a.provider.VerifierContext(a.ctx, &oidc.Config{ClientID: a.conf.ClientID}).Verify(a.ctx, raw)
	if err != nil {
		return nil, err
	}
	if nonce != "" && id.Nonce != nonce {
		return nil, fmt.Errorf("the nonce is %q", id.Nonce)
	}
	if err := id.VerifyAccessToken(got.AccessToken); err != nil {
		return nil, err
	}
	tokens := &goTokens{Token: got, subject: id.Subject}
	return tokens, id.Claims(&tokens.claims)
}

func (a *goApp) signIn(scope string, more ...oauth2.AuthCodeOption) (*goTokens, error) {
	s := a.begin(scope, more...)
	return s.finish(a.v.sees(s.url, a.f.RedirectURI, "allow"))
}

// refresh lets the library find that the token has expired.
func (a *goApp) refresh(was *goTokens) (*goTokens, error) {
	old := *was.Token
	old.Expiry = time.Now().Add(-time.Minute)
	got, err := a.conf.TokenSource(a.ctx, &old).Token()
	if err != nil {
		return nil, err
	}
	return a.verified(got, "")
}

func (a *goApp) userInfo(of *goTokens) (*oidc.UserInfo, error) {
	return a.provider.UserInfo(a.ctx, oauth2.StaticTokenSource(of.Token))
}

// asks is what the libraries leave to the app: RFC 7009 and RFC 7662.
func (a *goApp) asks(at string, form url.Values) (map[string]any, error) {
	if a.f.Method != "client_secret_basic" {
		form.Set("client_id", a.f.ID)
	}
	if a.f.Method == "client_secret_post" {
		form.Set("client_secret", a.f.Secret)
	}
	req, err := http.NewRequestWithContext(a.ctx, http.MethodPost, at, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if a.f.Method == "client_secret_basic" {
		req.SetBasicAuth(url.QueryEscape(a.f.ID), url.QueryEscape(a.f.Secret))
	}
	return sentBy(http.DefaultClient, req)
}

func (a *goApp) query(of *goTokens, sql string) (map[string]any, error) {
	at := fmt.Sprintf("%s/v1/db/%s/query", of.Extra("api_url"), of.Extra("database"))
	raw, err := json.Marshal(body{"sql": sql})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(a.ctx, http.MethodPost, at, strings.NewReader(string(raw)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return sentBy(a.conf.Client(a.ctx, of.Token), req)
}

// sentBy is the object that answers a request, nil for no body.
func sentBy(c *http.Client, req *http.Request) (answer map[string]any, err error) {
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &answer)
	}
	return answer, err
}

// codeOf is the OAuth error code of a failure, as the libraries tell it.
func codeOf(_ any, err error) string {
	var retrieve *oauth2.RetrieveError
	switch {
	case err == nil:
		return "no failure"
	case errors.As(err, &retrieve):
		return retrieve.ErrorCode
	case strings.Contains(err.Error(), `"error":"invalid_token"`): // of go-oidc's UserInfo
		return "invalid_token"
	}
	return err.Error()
}

// goRelyingParty does with the server what e2e/foreign/scenario.mjs does, and returns the same verdict.
func goRelyingParty(t testing.TB, f *foreign, v *visitor) map[string]any {
	t.Helper()
	a, err := newGoApp(t.Context(), f, v)
	if err != nil {
		t.Fatal(err)
	}
	must := func(got *goTokens, err error) *goTokens {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	active := func(token string) any {
		got, err := a.asks(a.meta.Introspect, url.Values{"token": {token}})
		switch {
		case err != nil:
			return err.Error()
		case got["error"] != nil:
			return got["error"]
		}
		return got["active"]
	}
	const all = "openid email profile offline_access"
	first := must(a.signIn(all, oauth2.SetAuthURLParam("max_age", "3600")))
	info, err := a.userInfo(first)
	if err != nil {
		t.Fatal(err)
	}
	var named struct{ Name string }
	if err := info.Claims(&named); err != nil {
		t.Fatal(err)
	}
	verdict := map[string]any{"issuer": a.meta.Issuer, "sub": info.Subject, "email": info.Email, "name": named.Name, "scope": first.Extra("scope"), "expiresIn": first.Extra("expires_in"),
		"claims": []any{first.claims.Email, first.claims.Name}}

	second := must(a.refresh(first))
	third := must(a.refresh(second))
	secrets := map[string]bool{}
	for _, got := range []*goTokens{first, second, third} {
		secrets[got.AccessToken], secrets[got.RefreshToken] = true, true
	}
	// The library sends neither scope nor resource along with a refresh: that is the app's to do.
	verdict["wider"] = []any{}
	for _, more := range []url.Values{{"scope": {"openid database"}}, {"resource": {f.Issuer + "/mcp"}}} {
		more["grant_type"], more["refresh_token"] = []string{"refresh_token"}, []string{third.RefreshToken}
		got, err := a.asks(a.conf.Endpoint.TokenURL, more)
		if err != nil {
			t.Fatal(err)
		}
		verdict["wider"] = append(verdict["wider"].([]any), got["error"])
	}
	itself := clientcredentials.Config{ClientID: f.ID, ClientSecret: f.Secret, TokenURL: a.conf.Endpoint.TokenURL, AuthStyle: a.conf.Endpoint.AuthStyle}
	verdict["wider"] = append(verdict["wider"].([]any), codeOf(itself.Token(a.ctx)))
	verdict["refreshed"] = len(secrets) == 6 && third.subject == info.Subject && third.claims.AuthTime == first.claims.AuthTime
	verdict["active"] = []any{active(third.AccessToken), active(third.RefreshToken)}
	if got, err := a.asks(a.meta.Revoke, url.Values{"token": {third.RefreshToken}}); err != nil || got["error"] != nil {
		t.Errorf("revoke: %v %v", got, err)
	}
	verdict["revoked"] = []any{active(third.AccessToken), codeOf(a.userInfo(third)), codeOf(a.refresh(third))}

	again := must(a.signIn(all))
	newer := must(a.refresh(again))
	verdict["reused"] = []any{codeOf(a.refresh(again)), codeOf(a.userInfo(newer))}

	before := time.Now().Unix()
	verdict["fresh"] = must(a.signIn("openid", oauth2.SetAuthURLParam("max_age", "0"))).claims.AuthTime >= before

	flow := a.begin("openid")
	callback := v.sees(flow.url, f.RedirectURI, "allow")
	stranger := *flow
	them := *a
	if them.conf.ClientSecret = "psqlrs_wrong"; f.Secret == "" {
		them.conf.ClientID, them.conf.ClientSecret = "psqlrp_none", ""
	}
	stranger.app = &them
	verdict["stranger"] = codeOf(stranger.finish(callback))
	flow.verifier = strings.Repeat("x", 43)
	verdict["verifier"] = codeOf(flow.finish(callback))

	once := a.begin("openid")
	callback = v.sees(once.url, f.RedirectURI, "allow")
	had := must(once.finish(callback))
	verdict["used"] = []any{codeOf(once.finish(callback)), codeOf(a.userInfo(had))}

	denied := a.begin("openid", oauth2.SetAuthURLParam("prompt", "consent"))
	verdict["denied"] = codeOf(denied.finish(v.sees(denied.url, f.RedirectURI, "deny")))
	silent := a.begin("openid", oauth2.SetAuthURLParam("prompt", "none"))
	got, err := silent.finish(v.sees(silent.url, f.RedirectURI, "allow"))
	if verdict["silent"] = codeOf(nil, err); err == nil {
		verdict["silent"] = got.subject == info.Subject
	}

	own := must(a.signIn("openid database"))
	for _, sql := range []string{"CREATE TABLE IF NOT EXISTS notes(a)", "INSERT INTO notes VALUES ('by an app')"} {
		if got, err := a.query(own, sql); err != nil || got["success"] != true {
			t.Errorf("%s: %v %v", sql, got, err)
		}
	}
	next := must(a.signIn("openid database"))
	rows, err := a.query(next, "SELECT a FROM notes")
	if err != nil {
		t.Fatal(err)
	}
	data, _ := rows["data"].(map[string]any)
	verdict["rows"], verdict["database"], verdict["userEmail"], verdict["expires"] = data["rows"], next.Extra("database") == own.Extra("database"), own.Extra("user_email"), "never"
	if !own.Expiry.IsZero() {
		verdict["expires"] = own.Expiry
	}
	return verdict
}
