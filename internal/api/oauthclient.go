package api

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/oauth"
	"github.com/persqld/persqld/internal/oauth/clientdoc"
)

// OAuthClients says what clients there may be. A zero number is the default.
type OAuthClients struct {
	MaxApps int           // of a namespace; 100
	Overlap time.Duration // that a secret works after it was rotated, where the call doesn't say; 24 h

	Register       bool                 // whoever asks may register a public client (RFC 7591)
	MaxRegistered  int                  // clients that did; 10,000
	RegisterRate   int                  // registrations a minute and address; 20
	RegisterUnused time.Duration        // a registration is forgotten that nobody has let in for so long; 24 h
	RegisterIdle   time.Duration        // or that nobody lets in any more; 180 days
	Documents      *clientdoc.Documents // clients that are metadata documents; nil takes none
}

func (o *OAuthClients) fill() {
	if o.MaxApps <= 0 {
		o.MaxApps = 100
	}
	if o.Overlap <= 0 {
		o.Overlap = 24 * time.Hour
	}
	if o.MaxRegistered <= 0 {
		o.MaxRegistered = 10_000
	}
	if o.RegisterRate <= 0 {
		o.RegisterRate = 20
	}
	if o.RegisterUnused <= 0 {
		o.RegisterUnused = 24 * time.Hour
	}
	if o.RegisterIdle <= 0 {
		o.RegisterIdle = 180 * 24 * time.Hour
	}
}

const (
	// documentsPerAddress and documentsPerHost are how many look-ups of client metadata documents a minute an address may cause, and a host has to answer.
	documentsPerAddress = 20
	documentsPerHost    = 60
)

var errDocumentUnavailable = &fault{status: http.StatusServiceUnavailable, code: "client_metadata_unavailable", message: "The client's metadata document can't be had now",
	hint: "the client_id is its address; try again after the time in Retry-After", retry: 10 * time.Second, index: -1}

// oauthClient is the client of a client_id: one of the catalog's, or what the document at an https address says. It returns catalog.ErrOAuthClientNotFound, with the reason where a
// document is refused, or another fault where there is no telling now.
func (x *exchange) oauthClient(id string) (*catalog.OAuthClient, error) {
	documents := x.s.opt.OAuth.Documents
	if !clientdoc.Is(id) {
		return x.s.opt.Catalog.OAuthClient(id)
	}
	if documents == nil {
		return nil, fmt.Errorf("%w: client metadata documents are switched off here", catalog.ErrOAuthClientNotFound)
	}
	c, err := documents.Client(x.r.Context(), id, func(known bool) error {
		if err := tooMany(x.s.documentAddresses.try(addressName(x.s.clientAddress(x.r))), "to look client metadata up, from this address"); err != nil || known {
			return err // what others make of its host's other addresses is no harm to a client that is known
		}
		return tooMany(x.s.documentHosts.try(documentHost(id)), "to look client metadata up, at this host")
	})
	switch {
	case errors.Is(err, clientdoc.ErrDocument):
		return nil, fmt.Errorf("%w: %w", catalog.ErrOAuthClientNotFound, err)
	case errors.Is(err, clientdoc.ErrUnavailable):
		return nil, errDocumentUnavailable
	case err != nil:
		return nil, err
	}
	return &catalog.OAuthClient{ID: c.ID, Name: c.Name, Public: true, RedirectURIs: c.RedirectURIs, Scopes: knownScopes(c.Scopes)}, nil
}

// useOAuthClient notes that somebody has let a client in. Of a metadata document nothing is kept.
func (x *exchange) useOAuthClient(cl *catalog.OAuthClient) error {
	if clientdoc.Is(cl.ID) {
		return nil
	}
	return x.s.opt.Catalog.UseOAuthClient(x.lasting(x.user), cl.ID)
}

// knownScopes are those of a client's words that are scopes here; nil, which is all, where there are none.
func knownScopes(words []string) (list []string) {
	seen := map[string]bool{}
	for _, known := range oauth.Scopes() {
		seen[known] = true
	}
	for _, w := range words {
		if seen[w] {
			list, seen[w] = append(list, w), false
		}
	}
	return list
}
