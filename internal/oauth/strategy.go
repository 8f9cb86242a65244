package oauth

import (
	"context"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/ory/fosite"

	"github.com/persqld/persqld/internal/catalog"
)

// tokenStrategy makes codes and tokens. To fosite the signature of one is the whole of it: the catalog alone hashes, and looks whether it is good.
type tokenStrategy struct{}

func (tokenStrategy) AuthorizeCodeSignature(_ context.Context, token string) string { return token }
func (tokenStrategy) AccessTokenSignature(_ context.Context, token string) string   { return token }
func (tokenStrategy) RefreshTokenSignature(_ context.Context, token string) string  { return token }

func (tokenStrategy) ValidateAuthorizeCode(context.Context, fosite.Requester, string) error {
	return nil
}
func (tokenStrategy) ValidateAccessToken(context.Context, fosite.Requester, string) error { return nil }
func (tokenStrategy) ValidateRefreshToken(context.Context, fosite.Requester, string) error {
	return nil
}

func (tokenStrategy) GenerateAuthorizeCode(context.Context, fosite.Requester) (code, signature string, err error) {
	code = catalog.NewOAuthCode()
	return code, code, nil
}

// GenerateAccessToken makes a token of the API where it opens databases, else one for /userinfo alone.
func (tokenStrategy) GenerateAccessToken(ctx context.Context, r fosite.Requester) (token, signature string, err error) {
	c := callOf(ctx)
	c.scopes = slices.Clone(r.GetGrantedScopes())
	if opensDatabases(c.resource(), c.scopes) {
		token = catalog.NewTokenSecret()
	} else {
		token = catalog.NewOAuthAccess()
	}
	return token, token, nil
}

func (tokenStrategy) GenerateRefreshToken(_ context.Context, r fosite.Requester) (token, signature string, err error) {
	token = catalog.NewOAuthRefresh(r.GetID())
	return token, token, nil
}

// opensDatabases tells whether a token of these scopes is one of the API.
func opensDatabases(resource string, scopes []string) bool {
	return resource != "" || slices.Contains(scopes, ScopeDatabase)
}

// resource is what the tokens are bound to that the request is for.
func (c *call) resource() string {
	switch {
	case c.code != nil:
		return c.code.Resource
	case c.family != nil:
		return c.family.Resource
	}
	return ""
}

// idTokens makes id_tokens (OpenID Connect Core 1.0, section 2).
type idTokens struct{ p *Provider }

// idLife is how long an id_token says that it is good for.
const idLife = time.Hour

type idToken struct {
	Issuer          string `json:"iss"`
	Subject         string `json:"sub"`
	Audience        string `json:"aud"`
	Expires         int64  `json:"exp"`
	IssuedAt        int64  `json:"iat"`
	AuthTime        int64  `json:"auth_time"`
	Nonce           string `json:"nonce,omitempty"`
	AccessTokenHash string `json:"at_hash,omitempty"`
	UserClaims
}

// UserClaims is what an app learns of a user, by what was agreed to.
type UserClaims struct {
	Email         string `json:"email,omitempty"`
	EmailVerified *bool  `json:"email_verified,omitempty"`
	Name          string `json:"name,omitempty"`
	Picture       string `json:"picture,omitempty"`
}

func claimsOf(u *catalog.User, scopes []string) (c UserClaims) {
	if slices.Contains(scopes, ScopeEmail) {
		c.Email, c.EmailVerified = u.Email, &u.EmailVerified
	}
	if slices.Contains(scopes, ScopeProfile) {
		c.Name, c.Picture = u.Name, u.Picture
	}
	return c
}

// GenerateIDToken makes the id_token of a request whose access token is there already.
func (t idTokens) GenerateIDToken(ctx context.Context, _ time.Duration, r fosite.Requester) (string, error) {
	s := r.GetSession().(*session)
	u, err := t.p.opt.Catalog.User(s.user)
	if err != nil {
		return "", err
	}
	signer, err := t.p.signWith(ctx)
	if err != nil {
		return "", err
	}
	now := t.p.opt.Now()
	raw, err := json.Marshal(idToken{Issuer: t.p.opt.Issuer, Subject: u.ID, Audience: r.GetClient().GetID(), Expires: now.Add(idLife).Unix(), IssuedAt: now.Unix(), AuthTime: s.authAt.Unix(),
		Nonce: s.nonce, AccessTokenHash: s.claims.AccessTokenHash, UserClaims: claimsOf(u, r.GetGrantedScopes())})
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(raw)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
