package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ory/fosite"

	"github.com/persqld/persqld/internal/catalog"
)

// Answer is what the token endpoint answers.
type Answer struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in,omitzero"`
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope,omitempty"`
	IDToken      string `json:"id_token,omitempty"`
	// Of the scope database:
	Database  string `json:"database,omitempty"` // namespace/slug
	APIURL    string `json:"api_url,omitempty"`
	UserEmail string `json:"user_email,omitempty"`
	// EmailVerified is false where nobody has shown that the address is the user's own: no app may take it for an identity then.
	EmailVerified *bool `json:"user_email_verified,omitempty"`
}

// post is a form as fosite takes it.
func post(form url.Values) *http.Request {
	return &http.Request{Method: http.MethodPost, Form: form, PostForm: form}
}

// errOthers is the failure of a code or token of another client.
var errOthers = fail("invalid_grant", "the code or refresh token was given to another client")

// Exchange answers a request of a client, which is verified, for tokens: for a code or for a refresh token.
func (p *Provider) Exchange(ctx context.Context, cl *catalog.OAuthClient, form url.Values) (*Answer, error) {
	// Before anything is used up.
	if _, err := p.signWith(ctx); err != nil {
		return nil, err
	}
	c := &call{client: &client{OAuthClient: cl}}
	ctx = withCall(ctx, c)
	given := url.Values{}
	for _, name := range []string{"grant_type", "code", "redirect_uri", "code_verifier", "refresh_token"} {
		if v := form.Get(name); v != "" {
			given.Set(name, v)
		}
	}
	switch form.Get("grant_type") {
	case "authorization_code":
		if given.Get("code") == "" {
			return nil, fail("invalid_request", "the code is missing")
		}
		// A client of OAuth 2.1 leaves the redirect URI out: the challenge binds the code to whoever began.
		c.code, c.codeErr = p.opt.Catalog.OAuthCode(ctx, given.Get("code"))
		if errors.Is(c.codeErr, catalog.ErrOAuthReused) && c.code.ClientID != cl.ID { // no other app may end what it got
			return nil, errOthers
		}
		if c.codeErr == nil && given.Get("redirect_uri") == "" && c.code.Challenge != "" {
			given.Set("redirect_uri", c.code.RedirectURI)
		}
	case "refresh_token":
		if given.Get("refresh_token") == "" {
			return nil, fail("invalid_request", "the refresh_token is missing")
		}
		if t, _ := p.opt.Catalog.OAuthRefresh(given.Get("refresh_token")); t != nil && t.Family.ClientID != cl.ID { // an old one too: its reuse ends the family
			return nil, errOthers
		}
	}
	access, err := p.fosite.NewAccessRequest(ctx, post(given), &session{})
	if err != nil {
		return nil, toldError(err)
	}
	asked := access.(*fosite.AccessRequest)
	if bound, was, err := p.resource(form["resource"]); err != nil {
		return nil, err
	} else if was && bound != c.resource() {
		return nil, fail("invalid_target", "the user has agreed to another resource")
	}
	if err := narrow(asked, form.Get("scope")); err != nil {
		return nil, err
	}
	s := asked.Session.(*session)
	u, err := p.opt.Catalog.User(s.user)
	if err != nil || !u.DisabledAt.IsZero() {
		return nil, fail("invalid_grant", "the user is gone")
	}
	resp, err := p.fosite.NewAccessResponse(ctx, asked)
	if err != nil {
		return nil, toldError(err)
	}
	a := &Answer{AccessToken: resp.GetAccessToken(), TokenType: "Bearer", Scope: strings.Join(c.scopes, " ")}
	a.RefreshToken, _ = resp.GetExtra("refresh_token").(string)
	a.IDToken, _ = resp.GetExtra("id_token").(string)
	t, err := p.opt.Catalog.OAuthAccess(a.AccessToken)
	if err != nil { // ended in this moment
		return nil, toldError(err)
	}
	if !t.ExpiresAt.IsZero() {
		a.ExpiresIn = int64(t.ExpiresAt.Sub(t.CreatedAt).Seconds())
	}
	if t.Token != nil && t.Token.Database != "" {
		d, err := p.opt.Catalog.DatabaseByID(t.Token.Database)
		if err != nil {
			return nil, toldError(catalog.ErrOAuthUnknown)
		}
		a.Database, a.APIURL, a.UserEmail, a.EmailVerified = t.Token.NamespaceSlug+"/"+d.Slug, p.opt.Issuer, u.Email, &u.EmailVerified
	}
	return a, nil
}

// narrow holds a request to some of the scopes that were agreed to. For a code the scope counts nothing: it was said before.
func narrow(r *fosite.AccessRequest, scope string) error {
	wanted := strings.Fields(scope)
	if len(wanted) == 0 || !r.GetGrantTypes().ExactOne("refresh_token") {
		return nil
	}
	var granted fosite.Arguments
	for _, s := range wanted {
		if !slices.Contains(r.GrantedScope, s) {
			return fail("invalid_scope", "a refresh token gets no scope that was not agreed to")
		}
		if !slices.Contains(granted, s) {
			granted = append(granted, s)
		}
	}
	r.GrantedScope = granted
	return nil
}

// Revoke ends a token of a client, with all that came of the same code (RFC 7009). Of any other token nothing is told, and nothing ends.
func (p *Provider) Revoke(ctx context.Context, cl *catalog.OAuthClient, form url.Values) error {
	if form.Get("token") == "" {
		return fail("invalid_request", "the token is missing")
	}
	given := url.Values{"token": {form.Get("token")}, "token_type_hint": {form.Get("token_type_hint")}}
	err := p.fosite.NewRevocationRequest(withCall(ctx, &call{client: &client{OAuthClient: cl}, revoking: true}), post(given))
	if errors.Is(err, fosite.ErrUnauthorizedClient) {
		return nil
	}
	return toldError(err)
}

// Look is a token that is good, for whoever may know: an access token, or with refresh also a refresh token. catalog.ErrOAuthUnknown.
func (p *Provider) Look(ctx context.Context, token string, refresh bool) (*catalog.OAuthToken, error) {
	use, r, err := p.fosite.IntrospectToken(ctx, token, fosite.AccessToken, &session{})
	if err != nil || use == fosite.RefreshToken && !refresh {
		return nil, catalog.ErrOAuthUnknown
	}
	return r.GetSession().(*session).token, nil
}

// UserInfo is what an access token tells of its user (OpenID Connect Core 1.0, section 5.3).
type UserInfo struct {
	Subject string `json:"sub"`
	UserClaims
}

// UserInfo is what a token tells of its user. It returns catalog.ErrOAuthUnknown, or an *Error insufficient_scope.
func (p *Provider) UserInfo(ctx context.Context, token string) (*UserInfo, error) {
	t, err := p.Look(ctx, token, false)
	if err != nil || t.Family.Resource != "" { // what is bound to a resource opens nothing else
		return nil, catalog.ErrOAuthUnknown
	}
	if !slices.Contains(t.Scopes, ScopeOpenID) {
		return nil, fail("insufficient_scope", "the user was not asked for openid")
	}
	u, err := p.opt.Catalog.User(t.Family.UserID)
	if err != nil {
		return nil, catalog.ErrOAuthUnknown
	}
	return &UserInfo{Subject: u.ID, UserClaims: claimsOf(u, t.Scopes)}, nil
}
