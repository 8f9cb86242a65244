// Package clientdoc knows clients that no one registered: their client_id is the https address of a document that says what they are (Client ID Metadata Document). Whoever
// asks names the address, so the server is careful where it goes, how often, and what it takes.
package clientdoc

import (
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/persqld/persqld/internal/oauth/redirect"
	"github.com/persqld/persqld/internal/outbound"
)

const (
	// maxDocument is how many bytes a document may have.
	maxDocument = 10 << 10
	// maxID is how many bytes a client_id may have.
	maxID = 1024
)

// Client is what a document says.
type Client struct {
	ID           string // its address
	Name         string // client_name, or the host
	RedirectURIs []string
	Scopes       []string // scope; nil where it names none
}

// ErrDocument is returned for an address that is none of a document, or a document that is none of a client's, with the reason.
var ErrDocument = errors.New("the client metadata document is refused")

func refuse(why string) error { return fmt.Errorf("%w: %s", ErrDocument, why) }

// Is tells whether a client_id is meant as the address of a document. Those of registered clients look different.
func Is(id string) bool { return strings.HasPrefix(id, "https://") || strings.HasPrefix(id, "http://") }

// CheckID tells whether a client_id can be the address of a document. It returns ErrDocument with the reason.
func CheckID(id string) error {
	if len(id) > maxID {
		return refuse(fmt.Sprintf("the client_id is longer than %d bytes", maxID))
	}
	if !strings.HasPrefix(id, "https://") {
		return refuse("the client_id must begin with https://")
	}
	// The rules of redirect URIs are these: no fragment, user, dot segments, or host that readers disagree about.
	if err := redirect.Validate(id, false); err != nil {
		return refuse("the client_id can be none: " + strings.TrimPrefix(err.Error(), redirect.ErrURI.Error()+": "))
	}
	if u, err := url.Parse(id); err != nil || u.Path == "" {
		return refuse("the client_id has no path")
	}
	return nil
}

// document is what of a client's metadata (RFC 7591, section 2) counts here.
type document struct {
	ClientID      *string         `json:"client_id"`
	Name          *string         `json:"client_name"`
	RedirectURIs  []string        `json:"redirect_uris"`
	Method        *string         `json:"token_endpoint_auth_method"`
	GrantTypes    []string        `json:"grant_types"`
	ResponseTypes []string        `json:"response_types"`
	Scope         *string         `json:"scope"`
	Secret        *jsontext.Value `json:"client_secret"`
	SecretExpires *jsontext.Value `json:"client_secret_expires_at"`
}

// parse reads the document that is at an address.
func parse(id string, d outbound.Document) (*Client, error) {
	kind, _, err := mime.ParseMediaType(d.ContentType)
	if err != nil || kind != "application/json" && (!strings.HasPrefix(kind, "application/") || !strings.HasSuffix(kind, "+json")) {
		return nil, refuse("its content type is not application/json")
	}
	var doc document
	if err := json.Unmarshal(d.Body, &doc); err != nil { // a member that is there twice, or text that is no Unicode, is refused too
		return nil, refuse("it is no JSON object of client metadata")
	}
	switch {
	case doc.ClientID == nil || *doc.ClientID != id: // or whoever can put a file somewhere is whoever the file says
		return nil, refuse("its client_id is not the address that it is at")
	case doc.Secret != nil || doc.SecretExpires != nil:
		return nil, refuse("it has a client_secret, which everybody can read there")
	case doc.Method != nil && *doc.Method != "none":
		return nil, refuse("its token_endpoint_auth_method is not none")
	case doc.GrantTypes != nil && !slices.Contains(doc.GrantTypes, "authorization_code"):
		return nil, refuse("its grant_types lack authorization_code")
	case doc.ResponseTypes != nil && !slices.Contains(doc.ResponseTypes, "code"):
		return nil, refuse("its response_types lack code")
	case len(doc.RedirectURIs) == 0:
		return nil, refuse("it has no redirect_uris")
	case len(doc.RedirectURIs) > redirect.MaxList:
		return nil, refuse(fmt.Sprintf("it has more than %d redirect_uris", redirect.MaxList))
	}
	for _, uri := range doc.RedirectURIs {
		if err := redirect.Validate(uri, true); err != nil {
			return nil, refuse(err.Error())
		}
	}
	u, err := url.Parse(id)
	if err != nil {
		return nil, refuse("its address can't be read")
	}
	c := &Client{ID: id, Name: u.Host, RedirectURIs: doc.RedirectURIs}
	if doc.Name != nil && strings.TrimSpace(*doc.Name) != "" {
		if !redirect.ShownName(*doc.Name) {
			return nil, refuse(fmt.Sprintf("its client_name has more than %d characters, or some that can't be seen", redirect.MaxName))
		}
		c.Name = *doc.Name
	}
	if doc.Scope != nil {
		c.Scopes = strings.Fields(*doc.Scope)
	}
	return c, nil
}
