package oauth

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/handler/openid"
	"github.com/ory/fosite/handler/pkce"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/identity"
)

// The scopes that an app may ask for.
const (
	ScopeOpenID   = "openid"
	ScopeEmail    = "email"
	ScopeProfile  = "profile"
	ScopeDatabase = catalog.OAuthDatabase
	ScopeOffline  = catalog.OAuthOffline
)

// Scopes are all scopes, as the metadata lists them.
func Scopes() []string {
	return []string{ScopeOpenID, ScopeEmail, ScopeProfile, ScopeDatabase, ScopeOffline}
}

// Options are New's options. A zero time is the default.
type Options struct {
	Catalog *catalog.Catalog
	Issuer  string // the server's public origin, without a slash at its end
	// Key is the key that signs now.
	Key func(ctx context.Context) (identity.SigningKey, error)
	// Keys are the keys that our signatures are verified with.
	Keys        func() []identity.SigningKey
	AccessLife  time.Duration // of tokens that read /userinfo, and of those of a resource that are refreshed; 1 h
	TokenLife   time.Duration // of tokens of a resource that are not refreshed; 30 days
	RefreshLife time.Duration // of a refresh token that isn't used; 30 days
	RequirePKCE bool          // of all clients
	Now         func() time.Time
}

// Provider answers for the protocol. It may be used by many at the same time.
type Provider struct {
	opt    Options
	fosite *fosite.Fosite
	signer struct {
		mu  sync.Mutex
		id  string
		key jose.Signer
	}
}

// New returns a Provider.
func New(opt Options) *Provider {
	if opt.AccessLife <= 0 {
		opt.AccessLife = time.Hour
	}
	if opt.TokenLife <= 0 {
		opt.TokenLife = 30 * 24 * time.Hour
	}
	if opt.RefreshLife <= 0 {
		opt.RefreshLife = 30 * 24 * time.Hour
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	opt.Issuer = strings.TrimRight(opt.Issuer, "/")
	p := &Provider{opt: opt}
	config := &fosite.Config{
		AccessTokenLifespan: opt.AccessLife, RefreshTokenLifespan: opt.RefreshLife, AuthorizeCodeLifespan: catalog.OAuthCodeLife,
		IDTokenIssuer: opt.Issuer, RefreshTokenScopes: []string{ScopeOffline},
		ScopeStrategy: fosite.ExactScopeStrategy, AudienceMatchingStrategy: fosite.ExactAudienceMatchingStrategy,
		EnforcePKCE: opt.RequirePKCE, EnforcePKCEForPublicClients: true,
		// What may be registered was judged then; fosite's own check refuses private-use schemes and knows no others.
		RedirectSecureChecker:  func(context.Context, *url.URL) bool { return true },
		OmitRedirectScopeParam: true,
		// Who comes to an endpoint has been verified before: the catalog has secrets by their SHA-256, fosite would have them by bcrypt.
		ClientAuthenticationStrategy: verifiedClient, ClientSecretsHasher: noHasher{},
		GlobalSecret: nil, // nothing is signed by a secret: tokens are random, and looked up
	}
	store, tokens := &storage{p}, tokenStrategy{}
	ids := &openid.IDTokenHandleHelper{IDTokenStrategy: idTokens{p}}
	config.AuthorizeEndpointHandlers = fosite.AuthorizeEndpointHandlers{
		&oauth2.AuthorizeExplicitGrantHandler{AccessTokenStrategy: tokens, RefreshTokenStrategy: tokens, AuthorizeCodeStrategy: tokens, CoreStorage: store, TokenRevocationStorage: store, Config: config},
		&openid.OpenIDConnectExplicitHandler{OpenIDConnectRequestStorage: store, OpenIDConnectRequestValidator: openid.NewOpenIDConnectRequestValidator(nil, config), Config: config, IDTokenHandleHelper: ids},
		&pkce.Handler{AuthorizeCodeStrategy: tokens, Storage: store, Config: config},
	}
	config.TokenEndpointHandlers = fosite.TokenEndpointHandlers{
		config.AuthorizeEndpointHandlers[0].(fosite.TokenEndpointHandler),
		&oauth2.RefreshTokenGrantHandler{AccessTokenStrategy: tokens, RefreshTokenStrategy: tokens, TokenRevocationStorage: store, Config: config},
		config.AuthorizeEndpointHandlers[1].(fosite.TokenEndpointHandler),
		&openid.OpenIDConnectRefreshHandler{IDTokenHandleHelper: ids, Config: config},
		config.AuthorizeEndpointHandlers[2].(fosite.TokenEndpointHandler),
	}
	config.TokenIntrospectionHandlers = fosite.TokenIntrospectionHandlers{&oauth2.CoreValidator{CoreStrategy: tokens, CoreStorage: store, Config: config}}
	config.RevocationHandlers = fosite.RevocationHandlers{&oauth2.TokenRevocationHandler{TokenRevocationStorage: store, RefreshTokenStrategy: tokens, AccessTokenStrategy: tokens}}
	p.fosite = fosite.NewOAuth2Provider(store, config)
	return p
}

// Issuer is who the provider says that it is.
func (p *Provider) Issuer() string { return p.opt.Issuer }

// MCP is the resource of the MCP endpoint.
func (p *Provider) MCP() string { return p.opt.Issuer + "/mcp" }

// resource is what a resource indicator (RFC 8707) means here: bound is "" for the API. Foreign ones are none of ours.
func (p *Provider) resource(list []string) (bound string, given bool, err error) {
	if len(list) == 0 || len(list) == 1 && list[0] == "" {
		return "", false, nil
	}
	if len(list) > 1 {
		return "", true, fail("invalid_target", "a token is for one resource: give resource once")
	}
	switch strings.TrimRight(list[0], "/") {
	case p.opt.Issuer, p.opt.Issuer + "/v1":
		return "", true, nil
	case p.MCP():
		return p.MCP(), true, nil
	}
	return "", true, fail("invalid_target", fmt.Sprintf("the resource is none of this server, which has %s/v1 and %s", p.opt.Issuer, p.MCP()))
}

// signWith is the signer of the key that signs now.
func (p *Provider) signWith(ctx context.Context) (jose.Signer, error) {
	k, err := p.opt.Key(ctx)
	if err != nil {
		return nil, err
	}
	p.signer.mu.Lock()
	defer p.signer.mu.Unlock()
	if p.signer.id != k.ID {
		key, err := k.Signer("JWT")
		if err != nil {
			return nil, fmt.Errorf("open signing key: %w", err)
		}
		p.signer.id, p.signer.key = k.ID, key
	}
	return p.signer.key, nil
}
