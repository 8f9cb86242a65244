package api

import "github.com/persqld/persqld/internal/catalog"

// oauthClient is the client of a client_id, or catalog.ErrOAuthClientNotFound.
func (x *exchange) oauthClient(id string) (*catalog.OAuthClient, error) {
	return x.s.opt.Catalog.OAuthClient(id)
}
