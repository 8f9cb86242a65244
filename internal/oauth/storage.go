package oauth

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"time"

	"github.com/ory/fosite"

	"github.com/persqld/persqld/internal/catalog"
)

// storage is fosite's view of the catalog. What a request changes is put together in its call and done at Commit, as one change: a crash leaves all of it or nothing.
type storage struct{ p *Provider }

var errUnused = errors.New("this part of fosite is not used")

func (s *storage) GetClient(ctx context.Context, _ string) (fosite.Client, error) {
	return callOf(ctx).client, nil
}
func (s *storage) ClientAssertionJWTValid(context.Context, string) error { return errUnused }
func (s *storage) SetClientAssertionJWT(context.Context, string, time.Time) error {
	return errUnused
}

// BeginTX begins to put a change together.
func (s *storage) BeginTX(ctx context.Context) (context.Context, error) {
	callOf(ctx).issue = &catalog.OAuthIssue{}
	return ctx, nil
}

// Commit does the change.
func (s *storage) Commit(ctx context.Context) error {
	c := callOf(ctx)
	issue := c.issue
	c.issue = nil
	if c.ended != "" {
		return s.p.opt.Catalog.EndOAuthFamily(ctx, c.ended, true)
	}
	_, err := s.p.opt.Catalog.IssueOAuth(ctx, *issue)
	return err
}

// Rollback forgets the change.
func (s *storage) Rollback(ctx context.Context) error {
	callOf(ctx).issue = nil
	return nil
}

// CreateAuthorizeCodeSession notes the code with what the user agreed to.
func (s *storage) CreateAuthorizeCodeSession(ctx context.Context, code string, _ fosite.Requester) error {
	c := callOf(ctx)
	r, n := c.request, c.consent
	_, made, err := s.p.opt.Catalog.ConsentOAuth(ctx, catalog.OAuthConsent{Code: code, UserID: n.User, ClientID: r.Client.ID, Name: r.Client.Name, Scopes: r.Scopes, Resource: r.Resource,
		NamespaceID: n.NamespaceID, RedirectURI: r.RedirectURI, Challenge: r.Challenge, Nonce: r.Nonce, AuthAt: n.AuthAt, Database: n.Database})
	n.Made = made
	return err
}

// codeOf is the code that was presented. It is read once a request.
func (s *storage) codeOf(ctx context.Context, code string) (*call, error) {
	c := callOf(ctx)
	if c.code == nil && c.codeErr == nil {
		c.code, c.codeErr = s.p.opt.Catalog.OAuthCode(ctx, code)
	}
	return c, c.codeErr
}

// requestOf is a code's authorization request as fosite takes it.
func requestOf(o *catalog.OAuthCode) *fosite.Request {
	return &fosite.Request{ID: o.FamilyID, RequestedAt: o.CreatedAt, Client: &client{OAuthClient: &catalog.OAuthClient{ID: o.ClientID}}, RequestedScope: o.Scopes, GrantedScope: o.Scopes,
		Form: url.Values{}, Session: newSession(o.UserID, o.Nonce, o.AuthAt)}
}

func (s *storage) GetAuthorizeCodeSession(ctx context.Context, code string, _ fosite.Session) (fosite.Requester, error) {
	c, err := s.codeOf(ctx, code)
	switch {
	case errors.Is(err, catalog.ErrOAuthReused):
		return requestOf(c.code), fosite.ErrInvalidatedAuthorizeCode
	case errors.Is(err, catalog.ErrOAuthUnknown):
		return nil, fosite.ErrNotFound.WithWrap(err)
	case err != nil:
		return nil, err
	}
	r := requestOf(c.code)
	r.Form.Set("redirect_uri", c.code.RedirectURI)
	return r, nil
}

func (s *storage) InvalidateAuthorizeCodeSession(ctx context.Context, code string) error {
	callOf(ctx).issue.Code = code
	return nil
}

// PKCE's part of the code is looked at as long as the code is: fosite would delete it before it has compared, and a second try without a verifier would get through.

func (s *storage) CreatePKCERequestSession(context.Context, string, fosite.Requester) error {
	return nil
}
func (s *storage) DeletePKCERequestSession(context.Context, string) error { return nil }

func (s *storage) GetPKCERequestSession(ctx context.Context, code string, _ fosite.Session) (fosite.Requester, error) {
	c, err := s.codeOf(ctx, code)
	if err != nil {
		return nil, fosite.ErrNotFound.WithWrap(err)
	}
	if c.code.Challenge == "" {
		return nil, fosite.ErrNotFound
	}
	r := requestOf(c.code)
	r.Client = c.client
	r.Form.Set("code_challenge", c.code.Challenge)
	r.Form.Set("code_challenge_method", "S256")
	return r, nil
}

func (s *storage) CreateOpenIDConnectSession(context.Context, string, fosite.Requester) error {
	return nil
}
func (s *storage) DeleteOpenIDConnectSession(context.Context, string) error { return nil }

// GetOpenIDConnectSession is asked after the code was used, and answers of it as it was read before.
func (s *storage) GetOpenIDConnectSession(ctx context.Context, _ string, r fosite.Requester) (fosite.Requester, error) {
	c := callOf(ctx)
	if c.code == nil || !slices.Contains(c.code.Scopes, ScopeOpenID) {
		return nil, fosite.ErrNotFound
	}
	o := requestOf(c.code)
	o.Session = r.GetSession()
	o.Client = c.client
	return o, nil
}

func (s *storage) CreateAccessTokenSession(ctx context.Context, token string, _ fosite.Requester) error {
	c := callOf(ctx)
	n := c.issue
	n.Access, n.Scopes = token, c.scopes
	n.Name = "app " + c.client.Name
	switch {
	case c.resource() != "" && c.family == nil && !slices.Contains(c.scopes, ScopeOffline): // what is refreshed is short-lived, also where the app asks for less
		n.AccessLife = s.p.opt.TokenLife
	case c.resource() == "" && slices.Contains(c.scopes, ScopeDatabase):
		n.Payer = c.client.NamespaceID // it lives until it is revoked: apps store it
	default:
		n.AccessLife = s.p.opt.AccessLife
	}
	return nil
}

func (s *storage) CreateRefreshTokenSession(ctx context.Context, token, _ string, _ fosite.Requester) error {
	n := callOf(ctx).issue
	n.NewRefresh, n.RefreshLife = token, s.p.opt.RefreshLife
	return nil
}

func (s *storage) RotateRefreshToken(ctx context.Context, _, token string) error {
	callOf(ctx).issue.Refresh = token
	return nil
}

// tokenRequest is a token's request as fosite takes it.
func tokenRequest(t *catalog.OAuthToken) *fosite.Request {
	f := t.Family
	s := newSession(f.UserID, "", f.AuthAt)
	s.token = t
	return &fosite.Request{ID: f.ID, RequestedAt: f.CreatedAt, Client: &client{OAuthClient: &catalog.OAuthClient{ID: f.ClientID}}, RequestedScope: t.Scopes, GrantedScope: t.Scopes,
		Form: url.Values{}, Session: s}
}

func (s *storage) GetAccessTokenSession(_ context.Context, token string, _ fosite.Session) (fosite.Requester, error) {
	t, err := s.p.opt.Catalog.OAuthAccess(token)
	if err != nil {
		return nil, fosite.ErrNotFound.WithWrap(err)
	}
	return tokenRequest(t), nil
}

func (s *storage) GetRefreshTokenSession(ctx context.Context, token string, _ fosite.Session) (fosite.Requester, error) {
	t, err := s.p.opt.Catalog.OAuthRefresh(token)
	switch {
	case errors.Is(err, catalog.ErrOAuthReused):
		return tokenRequest(t), fosite.ErrInactiveToken.WithWrap(err)
	case err != nil:
		return nil, fosite.ErrNotFound.WithWrap(err)
	}
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.family = t.Family
	}
	return tokenRequest(t), nil
}

// DeleteAccessTokenSession and DeleteRefreshTokenSession are fosite's for one token: what it belongs to ends right after.
func (s *storage) DeleteAccessTokenSession(context.Context, string) error  { return nil }
func (s *storage) DeleteRefreshTokenSession(context.Context, string) error { return nil }

// RevokeRefreshToken and RevokeAccessToken end the family, whichever comes first: neither outlives the other.
func (s *storage) RevokeRefreshToken(ctx context.Context, family string) error {
	return s.end(ctx, family)
}
func (s *storage) RevokeAccessToken(ctx context.Context, family string) error {
	return s.end(ctx, family)
}

func (s *storage) end(ctx context.Context, family string) error {
	c := callOf(ctx)
	if c.issue != nil { // Commit does it
		c.ended = family
		return nil
	}
	return s.p.opt.Catalog.EndOAuthFamily(ctx, family, !c.revoking)
}
