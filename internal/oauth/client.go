package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/ory/fosite"

	"github.com/persqld/persqld/internal/catalog"
)

// client is a client as fosite takes it, with the one redirect URI that was found to be its own.
type client struct {
	*catalog.OAuthClient
	redirect string
}

func (c *client) GetID() string             { return c.ID }
func (c *client) GetHashedSecret() []byte   { return nil }
func (c *client) GetRedirectURIs() []string { return []string{c.redirect} }
func (c *client) GetGrantTypes() fosite.Arguments {
	return fosite.Arguments{"authorization_code", "refresh_token"}
}
func (c *client) GetResponseTypes() fosite.Arguments { return fosite.Arguments{"code"} }
func (c *client) GetAudience() fosite.Arguments      { return nil }
func (c *client) IsPublic() bool                     { return c.Public }
func (c *client) GetScopes() (list fosite.Arguments) {
	for _, s := range Scopes() {
		if allows(c.OAuthClient, s) {
			list = append(list, s)
		}
	}
	return list
}

// allows tells whether a client may ask for a scope.
func allows(c *catalog.OAuthClient, scope string) bool {
	return len(c.Scopes) == 0 || slices.Contains(c.Scopes, scope)
}

// call is what one request to fosite knows, by its context.
type call struct {
	client  *client
	code    *catalog.OAuthCode // that was presented
	codeErr error
	consent *Consent // that is noted
	request *Request

	issue    *catalog.OAuthIssue // that is being put together; nil outside a transaction
	ended    string              // the family that a transaction ends
	revoking bool                // the app asks for the end itself
	scopes   []string            // of the new access token
	family   *catalog.OAuthFamily
}

type callKey struct{}

func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// verifiedClient is fosite's client authentication: it was done before.
func verifiedClient(ctx context.Context, _ *http.Request, _ url.Values) (fosite.Client, error) {
	return callOf(ctx).client, nil
}

// noHasher compares no secrets.
type noHasher struct{}

var errNoHasher = errors.New("secrets are not fosite's to compare")

func (noHasher) Compare(context.Context, []byte, []byte) error { return errNoHasher }
func (noHasher) Hash(context.Context, []byte) ([]byte, error)  { return nil, errNoHasher }
