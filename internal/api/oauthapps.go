package api

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/oauth"
	"github.com/persqld/persqld/internal/oauth/redirect"
)

// maxOverlap is how long a former secret of an app may work at the most.
const maxOverlap = 30 * 24 * time.Hour

const (
	typeConfidential = "confidential"
	typePublic       = "public"
)

// oauthAppRequest is the body of POST /v1/oauth-apps, and of PATCH …/:clientId, which takes no type.
type oauthAppRequest struct {
	Name         *string   `json:"name"`
	RedirectURIs *[]string `json:"redirectUris"`
	Type         *string   `json:"type"`
	Scopes       *[]string `json:"scopes"`
	RequirePKCE  *bool     `json:"requirePkce"`
}

type oauthSecretInfo struct {
	ID        string  `json:"id"`
	Hint      string  `json:"hint"`
	CreatedAt string  `json:"createdAt"`
	EndsAt    *string `json:"endsAt"`
}

type oauthAppInfo struct {
	ClientID     string            `json:"clientId"`
	ClientSecret string            `json:"clientSecret,omitempty"`
	Name         string            `json:"name"`
	Type         string            `json:"type"`
	RedirectURIs []string          `json:"redirectUris"`
	Scopes       []string          `json:"scopes"`
	RequirePKCE  bool              `json:"requirePkce"`
	Secrets      []oauthSecretInfo `json:"secrets"`
	CreatedAt    string            `json:"createdAt"`
	LastUsedAt   *string           `json:"lastUsedAt"`
}

// infoOfApp is an app as it is told of; secret is "" but for one that was just made.
func (s *Server) infoOfApp(cl *catalog.OAuthClient, secret string) oauthAppInfo {
	moment := func(t time.Time) *string {
		if t.IsZero() {
			return nil
		}
		text := t.UTC().Format(timeFormat)
		return &text
	}
	info := oauthAppInfo{ClientID: cl.ID, ClientSecret: secret, Name: cl.Name, Type: typeConfidential, RedirectURIs: cl.RedirectURIs, Scopes: slices.Concat([]string{}, cl.Scopes), RequirePKCE: cl.RequirePKCE || cl.Public,
		Secrets: []oauthSecretInfo{}, CreatedAt: cl.CreatedAt.UTC().Format(timeFormat), LastUsedAt: moment(cl.UsedAt)}
	if cl.Public {
		info.Type = typePublic
	}
	for _, secret := range s.opt.Catalog.LivingSecrets(cl) {
		info.Secrets = append(info.Secrets, oauthSecretInfo{secret.ID, secret.Hint, secret.CreatedAt.UTC().Format(timeFormat), moment(secret.EndsAt)})
	}
	return info
}

func badApp(message, hint string) error {
	return newFault(http.StatusBadRequest, "invalid_oauth_app", message, hint)
}

// put changes a client as the request says.
func (req *oauthAppRequest) put(cl *catalog.OAuthClient) error {
	if req.Name != nil {
		cl.Name = *req.Name
	}
	if req.RedirectURIs != nil {
		cl.RedirectURIs = *req.RedirectURIs
	}
	if req.RequirePKCE != nil {
		if cl.Public && !*req.RequirePKCE {
			return badApp("PKCE is required of a public client", "leave requirePkce out")
		}
		cl.RequirePKCE = *req.RequirePKCE
	}
	if req.Scopes != nil {
		for _, scope := range *req.Scopes {
			if !slices.Contains(oauth.Scopes(), scope) {
				return badApp("There is no such scope", "the scopes are "+strings.Join(oauth.Scopes(), ", ")+"; an empty list is all of them")
			}
		}
		cl.Scopes = *req.Scopes
	}
	return appFault(catalog.CheckOAuthClient(cl))
}

// appFault is the fault of a client that can be none.
func appFault(err error) error {
	const hint = `for example {"name": "app", "redirectUris": ["https://app.example.com/callback"]}`
	switch {
	case errors.Is(err, redirect.ErrURI):
		_, why, _ := strings.Cut(err.Error(), redirect.ErrURI.Error())
		return newFault(http.StatusBadRequest, "invalid_redirect_uri", "The redirect URI is not allowed"+why, "https, http of localhost and the loopback addresses, and for public clients private-use schemes such as com.example.app:/callback")
	case errors.Is(err, catalog.ErrOAuthClientName):
		return badApp("An app has a name of 1 to 200 characters, all of which can be seen", hint)
	case errors.Is(err, catalog.ErrRedirectURIs):
		return badApp(fmt.Sprintf("An app has 1 to %d redirect URIs, none of them twice", redirect.MaxList), hint)
	case errors.Is(err, catalog.ErrOAuthScope):
		return badApp("A scope is there twice", "an empty list is all of them")
	}
	return err
}

// mayApps refuses who may not manage the apps of a namespace.
func (x *exchange) mayApps(call string, changes bool) error {
	if err := x.needUnscoped(call); err != nil {
		return err
	}
	if changes && x.token.Test {
		return newFault(http.StatusForbidden, codeForbidden, "A test token manages no OAuth apps", "use a psql_live_ token")
	}
	return nil
}

// readApp reads the body of a call that makes or changes one.
func (x *exchange) readApp() (req oauthAppRequest, err error) {
	if err := x.refuseKey(); err != nil {
		return req, err
	}
	if err := x.object(&req); err != nil {
		return req, err
	}
	// A misspelled scopes or requirePkce must not make an app that may do more.
	return req, x.strictly(&req, true)
}

// createOAuthApp serves POST /v1/oauth-apps.
func (s *Server) createOAuthApp(x *exchange) error {
	req, err := x.readApp()
	if err != nil {
		return err
	}
	if err := x.mayApps("POST /v1/oauth-apps", true); err != nil {
		return err
	}
	cl := &catalog.OAuthClient{}
	if req.Type != nil {
		switch *req.Type {
		case typePublic:
			cl.Public = true
		case typeConfidential:
		default:
			return badApp("type must be confidential or public", "leave it out for a confidential one, which has a secret")
		}
	}
	if err := req.put(cl); err != nil {
		return err
	}
	made, secret, err := s.opt.Catalog.CreateOAuthClient(x.acting(x.r.Context()), catalog.NewOAuthClient{NamespaceID: x.token.NamespaceID, Name: cl.Name, Public: cl.Public, RedirectURIs: cl.RedirectURIs,
		Scopes: cl.Scopes, RequirePKCE: cl.RequirePKCE, Most: s.opt.OAuth.MaxApps})
	if err != nil {
		return err
	}
	return x.replySecret(s.infoOfApp(made, secret))
}

// replySecret answers with what nobody may keep on the way.
func (x *exchange) replySecret(v any) error {
	x.w.Header()["Cache-Control"] = noStore
	return x.reply(v)
}

// listOAuthApps serves GET /v1/oauth-apps, in the order of their making.
func (s *Server) listOAuthApps(x *exchange) error {
	if err := x.mayApps("GET /v1/oauth-apps", false); err != nil {
		return err
	}
	list := []oauthAppInfo{}
	for _, cl := range s.opt.Catalog.OAuthClients(x.token.NamespaceID) {
		list = append(list, s.infoOfApp(cl, ""))
	}
	return x.reply(list)
}

// getOAuthApp serves GET /v1/oauth-apps/:clientId.
func (s *Server) getOAuthApp(x *exchange) error {
	if err := x.mayApps("GET /v1/oauth-apps", false); err != nil {
		return err
	}
	cl, err := s.opt.Catalog.OAuthClient(unescape(x.param("id")))
	if err == nil && cl.NamespaceID != x.token.NamespaceID {
		err = catalog.ErrOAuthClientNotFound
	}
	if err != nil {
		return err
	}
	return x.reply(s.infoOfApp(cl, ""))
}

// updateOAuthApp serves PATCH /v1/oauth-apps/:clientId: what isn't named stays.
func (s *Server) updateOAuthApp(x *exchange) error {
	req, err := x.readApp()
	if err != nil {
		return err
	}
	if err := x.mayApps("PATCH /v1/oauth-apps", true); err != nil {
		return err
	}
	if req.Type != nil {
		return badApp("The type of an app stays what it is", "make another one")
	}
	cl, err := s.opt.Catalog.UpdateOAuthClient(x.acting(x.r.Context()), x.token.NamespaceID, unescape(x.param("id")), req.put)
	if err != nil {
		return err
	}
	return x.reply(s.infoOfApp(cl, ""))
}

// rotateOAuthSecret serves POST /v1/oauth-apps/:clientId/rotate-secret.
func (s *Server) rotateOAuthSecret(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req struct {
		OverlapSec *float64 `json:"overlapSec"`
	}
	if err := x.readBody(); err != nil {
		return err
	}
	if len(bytes.TrimSpace(x.body)) > 0 {
		if err := x.strictly(&req, true); err != nil {
			return err
		}
	}
	if err := x.mayApps("POST /v1/oauth-apps/:clientId/rotate-secret", true); err != nil {
		return err
	}
	overlap := s.opt.OAuth.Overlap
	if req.OverlapSec != nil {
		if v := *req.OverlapSec; v != math.Trunc(v) || v < 0 || v > maxOverlap.Seconds() {
			return badApp(fmt.Sprintf("overlapSec must be a whole number of seconds from 0 to %d", int(maxOverlap.Seconds())), "0 ends the former secrets at once")
		}
		overlap = time.Duration(*req.OverlapSec) * time.Second
	}
	cl, secret, err := s.opt.Catalog.RotateOAuthClientSecret(x.acting(x.r.Context()), x.token.NamespaceID, unescape(x.param("id")), overlap)
	if err != nil {
		return err
	}
	return x.replySecret(s.infoOfApp(cl, secret))
}

// deleteOAuthApp serves DELETE /v1/oauth-apps/:clientId: what it got ends at once.
func (s *Server) deleteOAuthApp(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	if err := x.mayApps("DELETE /v1/oauth-apps", true); err != nil {
		return err
	}
	cl, err := s.opt.Catalog.DeleteOAuthClient(x.acting(x.r.Context()), x.token.NamespaceID, unescape(x.param("id")))
	if err != nil {
		return err
	}
	return x.reply(struct {
		ClientID string `json:"clientId"`
		Deleted  bool   `json:"deleted"`
	}{cl.ID, true})
}
