package api

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/oauth/redirect"
)

const registerPath = "/oauth/register"

// maxRegistration bounds the body of a registration, in bytes.
const maxRegistration = 32_000

// registration is what of a client's metadata (RFC 7591, section 2) counts here. The rest is passed over, and not kept: nobody is shown it.
type registration struct {
	RedirectURIs  []string `json:"redirect_uris"`
	Name          *string  `json:"client_name"`
	Method        *string  `json:"token_endpoint_auth_method"`
	GrantTypes    []string `json:"grant_types"`
	ResponseTypes []string `json:"response_types"`
	Scope         *string  `json:"scope"`
}

// registered is the answer (RFC 7591, section 3.2.1): what of the request is kept, and what stands in the place of the rest.
type registered struct {
	ClientID      string   `json:"client_id"`
	IssuedAt      int64    `json:"client_id_issued_at"`
	Name          string   `json:"client_name"`
	RedirectURIs  []string `json:"redirect_uris"`
	Method        string   `json:"token_endpoint_auth_method"`
	GrantTypes    []string `json:"grant_types"`
	ResponseTypes []string `json:"response_types"`
	Scope         string   `json:"scope,omitempty"`
}

func invalidMetadata(why string) error {
	return &oauthError{status: http.StatusBadRequest, code: "invalid_client_metadata", description: why}
}

// registerClient serves POST /oauth/register: whoever asks gets a public client.
func (s *Server) registerClient(x *exchange) error {
	h := x.w.Header()
	h["Cache-Control"], h["Pragma"] = noStore, []string{"no-cache"}
	cl, err := s.register(x)
	if err != nil {
		return x.replyOAuth(err)
	}
	return x.plain(http.StatusCreated, registered{cl.ID, cl.CreatedAt.Unix(), cl.Name, cl.RedirectURIs, "none", []string{"authorization_code", "refresh_token"}, []string{"code"}, strings.Join(cl.Scopes, " ")})
}

func (s *Server) register(x *exchange) (*catalog.OAuthClient, error) {
	if err := s.flood.admit(x); err != nil {
		return nil, err
	}
	if !s.opt.OAuth.Register {
		return nil, &oauthError{status: http.StatusForbidden, code: "access_denied", description: "dynamic registration is switched off here; an admin of a namespace makes an OAuth app"}
	}
	if err := tooMany(s.registrations.try(addressName(s.clientAddress(x.r))), "to register, from this address"); err != nil {
		return nil, err
	}
	if err := x.readUpTo(min(maxRegistration, s.opt.MaxRequest)); err != nil {
		return nil, err
	}
	if kind, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, invalidMetadata("the body must be application/json")
	}
	var req registration
	if err := json.Unmarshal(x.body, &req); err != nil || !strings.HasPrefix(strings.TrimSpace(string(x.body)), "{") {
		return nil, invalidMetadata("the body is no JSON object of client metadata, or has a member twice")
	}
	switch {
	case len(req.RedirectURIs) == 0:
		return nil, &oauthError{status: http.StatusBadRequest, code: "invalid_redirect_uri", description: "redirect_uris is missing"}
	case req.GrantTypes != nil && !slices.Contains(req.GrantTypes, "authorization_code"):
		return nil, invalidMetadata("grant_types must have authorization_code in it")
	case req.ResponseTypes != nil && !slices.Contains(req.ResponseTypes, "code"):
		return nil, invalidMetadata("response_types must have code in it")
	}
	if req.Method != nil {
		switch *req.Method {
		case "none", "client_secret_basic", "client_secret_post":
			// The latter are what many say without meaning them, and what RFC 7591 has where nothing is said. A server may put another value in their place (section 3.2.1), and the
			// answer says so: none.
		default:
			return nil, invalidMetadata("token_endpoint_auth_method must be none: only public clients register themselves")
		}
	}
	n := catalog.NewOAuthClient{RedirectURIs: req.RedirectURIs, Public: true, Most: s.opt.OAuth.MaxRegistered}
	if req.Scope != nil {
		n.Scopes = knownScopes(strings.Fields(*req.Scope))
	}
	if req.Name != nil {
		n.Name = strings.TrimSpace(*req.Name)
	}
	if n.Name == "" {
		n.Name = nameOfRedirect(req.RedirectURIs[0])
	}
	cl, _, err := s.opt.Catalog.CreateOAuthClient(x.actingAs(x.r.Context(), nil), n)
	switch {
	case errors.Is(err, redirect.ErrURI):
		_, why, _ := strings.Cut(err.Error(), redirect.ErrURI.Error())
		return nil, &oauthError{status: http.StatusBadRequest, code: "invalid_redirect_uri", description: "the redirect URI is not allowed" + why}
	case errors.Is(err, catalog.ErrRedirectURIs):
		return nil, &oauthError{status: http.StatusBadRequest, code: "invalid_redirect_uri", description: fmt.Sprintf("there may be 1 to %d redirect_uris, none of them twice", redirect.MaxList)}
	case errors.Is(err, catalog.ErrOAuthClientName):
		return nil, invalidMetadata("client_name has more than 200 characters, or some that can not be seen")
	case errors.Is(err, catalog.ErrTooManyOAuthClients):
		return nil, &oauthError{status: http.StatusServiceUnavailable, code: "temporarily_unavailable", description: "as many clients have registered themselves as may; try again later", retry: time.Minute}
	}
	return cl, err
}

// nameOfRedirect stands for the name of a client that gives none: where it has people sent.
func nameOfRedirect(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil || len(u.Host)+len(u.Scheme) > 100:
		return "app"
	case (u.Scheme == "https" || u.Scheme == "http") && u.Host != "":
		return u.Host
	case u.Scheme != "":
		return u.Scheme
	}
	return "app"
}
