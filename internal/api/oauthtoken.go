package api

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/oauth"
)

const (
	userInfoPath   = "/userinfo"
	revokePath     = "/oauth/revoke"
	introspectPath = "/oauth/introspect"
)

// errClient is the failure of a client that isn't who it says. One that isn't there is told the same.
var errClient = &oauthError{status: http.StatusUnauthorized, code: "invalid_client", description: "the client is unknown, or its secret is wrong or missing"}

// verifiedClient is the client of a request that a program posts (RFC 6749, section 2.3): a confidential one by its secret, as Basic or in the body, a public one by its name.
// What fails counts against the address, for that client.
func (x *exchange) verifiedClient(form url.Values) (*catalog.OAuthClient, error) {
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if header := x.r.Header["Authorization"]; header != nil {
		user, password, ok := x.r.BasicAuth()
		if !ok || len(header) > 1 {
			return nil, errClient
		}
		name, err := url.QueryUnescape(user) // both are encoded as in a form (RFC 6749, section 2.3.1)
		if err != nil {
			return nil, errClient
		}
		if password, err = url.QueryUnescape(password); err != nil {
			return nil, errClient
		}
		if secret != "" || id != "" && id != name {
			return nil, invalidRequest("the client's credentials are there twice: in the header and in the body")
		}
		id, secret = name, password
	}
	if id == "" {
		return nil, invalidRequest("client_id is missing")
	}
	attempt := addressName(x.s.clientAddress(x.r)) + "\x00" + id[:min(len(id), 200)]
	if err := tooMany(x.s.badClients.spent(attempt), "with wrong credentials of this client"); err != nil {
		return nil, err
	}
	cl, err := x.oauthClient(id)
	if err != nil && !errors.Is(err, catalog.ErrOAuthClientNotFound) {
		return nil, err
	}
	if err != nil || cl.Public != (secret == "") || !cl.Public && !x.s.opt.Catalog.OAuthClientSecret(id, secret) {
		x.s.badClients.try(attempt)
		return nil, errClient
	}
	return cl, nil
}

// grantClient answers an app's request for tokens: for a code, or for a refresh token.
func (s *Server) grantClient(x *exchange, form url.Values) (any, error) {
	cl, err := x.verifiedClient(form)
	if err != nil {
		return nil, err
	}
	return s.oauth.Exchange(x.actingAs(x.r.Context(), nil), cl, form)
}

// oauthRevoke serves POST /oauth/revoke (RFC 7009).
func (s *Server) oauthRevoke(x *exchange) error {
	x.w.Header()["Cache-Control"] = noStore
	form, err := x.oauthCall()
	if err != nil {
		return x.replyOAuth(err)
	}
	cl, err := x.verifiedClient(form)
	if err == nil {
		err = s.oauth.Revoke(x.actingAs(x.r.Context(), nil), cl, form)
	}
	if err != nil {
		return x.replyOAuth(err)
	}
	return x.plain(http.StatusOK, struct{}{})
}

type introspection struct {
	Active    bool   `json:"active"`
	Scope     string `json:"scope,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
	TokenType string `json:"token_type,omitempty"`
	Expires   int64  `json:"exp,omitzero"`
	IssuedAt  int64  `json:"iat,omitzero"`
	Subject   string `json:"sub,omitempty"`
	Audience  string `json:"aud,omitempty"`
	Issuer    string `json:"iss,omitempty"`
}

// oauthIntrospect serves POST /oauth/introspect (RFC 7662): to a confidential client, of its own tokens. It reads memory alone.
func (s *Server) oauthIntrospect(x *exchange) error {
	x.w.Header()["Cache-Control"] = noStore
	form, err := x.oauthCall()
	if err != nil {
		return x.replyOAuth(err)
	}
	cl, err := x.verifiedClient(form)
	switch {
	case err == nil && cl.Public:
		err = &oauthError{status: http.StatusUnauthorized, code: "invalid_client", description: "this is for confidential clients: a public one has no secret to show"}
	case err == nil && form.Get("token") == "":
		err = invalidRequest("the token is missing")
	}
	if err != nil {
		return x.replyOAuth(err)
	}
	t, err := s.oauth.Look(x.r.Context(), form.Get("token"), true)
	if err != nil || t.Family.ClientID != cl.ID {
		return x.plain(http.StatusOK, introspection{})
	}
	in := introspection{Active: true, Scope: strings.Join(t.Scopes, " "), ClientID: cl.ID, IssuedAt: t.CreatedAt.Unix(), Subject: t.Family.UserID, Audience: t.Family.Resource, Issuer: s.oauth.Issuer()}
	if !t.Refresh {
		in.TokenType = "Bearer"
	}
	if !t.ExpiresAt.IsZero() {
		in.Expires = t.ExpiresAt.Unix()
	}
	return x.plain(http.StatusOK, in)
}

// userInfo serves GET and POST /userinfo (OpenID Connect Core 1.0, section 5.3), with failures as RFC 6750 has them.
func (s *Server) userInfo(x *exchange) error {
	h := x.w.Header()
	h["Cache-Control"] = noStore
	if err := s.flood.admit(x); err != nil {
		return err
	}
	refuse := func(status int, code, description string) error {
		h["Www-Authenticate"] = []string{`Bearer realm="persqld", error="` + code + `", error_description="` + describeOAuth(description) + `"`}
		return x.plain(status, struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}{code, describeOAuth(description)})
	}
	token := bearerOf(x.r)
	if token == "" {
		h["Www-Authenticate"] = []string{`Bearer realm="persqld"`}
		return x.plain(http.StatusUnauthorized, struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}{"invalid_request", "send the header Authorization: Bearer"})
	}
	info, err := s.oauth.UserInfo(x.r.Context(), token)
	var told *oauth.Error
	switch {
	case errors.Is(err, catalog.ErrOAuthUnknown):
		return refuse(http.StatusUnauthorized, "invalid_token", "the token is unknown, expired, ended or for something else")
	case errors.As(err, &told):
		return refuse(http.StatusForbidden, told.Code, told.Description)
	case err != nil:
		return err
	}
	return x.plain(http.StatusOK, info)
}
