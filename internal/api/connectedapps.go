package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/console"
)

// appsPath is the page of the apps that somebody has connected.
const appsPath = "/account/apps"

// databaseName is namespace/slug of a connected app's database, "" where it has none or it is gone.
func (s *Server) databaseName(g *catalog.OAuthGrant) string {
	d, err := s.opt.Catalog.DatabaseByID(g.Database)
	if g.Database == "" || err != nil {
		return ""
	}
	ns, err := s.opt.Catalog.NamespaceByID(d.NamespaceID)
	if err != nil {
		return ""
	}
	return ns.Slug + "/" + d.Slug
}

// showApps serves GET /account/apps.
func (s *Server) showApps(x *exchange, _ url.Values) error {
	if x.user == nil {
		return x.signInFirst()
	}
	p := &console.ConnectedApps{}
	for _, app := range s.opt.Catalog.ConnectedApps(x.user.ID) {
		c := console.ConnectedApp{ID: app.ID, Name: app.Name, Client: app.ClientID, Gets: gets(app.Scopes, ""), Database: s.databaseName(app.OAuthGrant), Since: app.CreatedAt}
		for _, f := range app.Families {
			c.Last = f.CreatedAt
			if f.Resource == "" {
				continue
			}
			if ns, err := s.opt.Catalog.NamespaceByID(f.NamespaceID); err == nil {
				c.Gets = append(c.Gets, "The databases of the namespace "+ns.Slug+", "+mayThereAs(f.Role))
			}
		}
		p.Apps = append(p.Apps, c)
	}
	return x.sendPage(http.StatusOK, p)
}

// mayThereAs is what a token of a role may do in a namespace.
func mayThereAs(role string) string {
	switch role {
	case catalog.RoleAdmin:
		return "with all rights"
	case "readwrite":
		return "to read and write"
	}
	return "to read"
}

// answerApps serves POST /account/apps: it disconnects an app.
func (s *Server) answerApps(x *exchange, form url.Values) error {
	if x.user == nil {
		return x.signInFirst()
	}
	if form.Get("action") != "disconnect" {
		return errForm
	}
	if _, err := s.opt.Catalog.DisconnectOAuth(x.actingAs(context.WithoutCancel(x.r.Context()), x.user), x.user.ID, form.Get("app")); err != nil {
		return err
	}
	return x.goTo(appsPath)
}

type connectedAppInfo struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	ClientID   string   `json:"clientId"`
	Scopes     []string `json:"scopes"`
	Database   *string  `json:"database"`
	Namespaces []string `json:"namespaces"`
	CreatedAt  string   `json:"createdAt"`
	LastSignIn *string  `json:"lastSignInAt"`
}

// listConnectedApps serves GET /api/connected-apps.
func (s *Server) listConnectedApps(x *exchange) error {
	list := []connectedAppInfo{}
	for _, app := range s.opt.Catalog.ConnectedApps(x.user.ID) {
		info := connectedAppInfo{ID: app.ID, Name: app.Name, ClientID: app.ClientID, Scopes: append([]string{}, app.Scopes...), Namespaces: []string{}, CreatedAt: app.CreatedAt.Format(timeFormat)}
		if name := s.databaseName(app.OAuthGrant); name != "" {
			info.Database = &name
		}
		seen := map[string]bool{}
		for _, f := range app.Families {
			last := f.CreatedAt.Format(timeFormat)
			info.LastSignIn = &last
			if ns, err := s.opt.Catalog.NamespaceByID(f.NamespaceID); err == nil && f.Resource != "" && !seen[ns.ID] {
				seen[ns.ID] = true
				info.Namespaces = append(info.Namespaces, ns.Slug)
			}
		}
		list = append(list, info)
	}
	return x.reply(list)
}

// disconnectApp serves DELETE /api/connected-apps/:id: the app's tokens end at once, its database stays the user's.
func (s *Server) disconnectApp(x *exchange) error {
	g, err := s.opt.Catalog.DisconnectOAuth(x.acting(context.WithoutCancel(x.r.Context())), x.user.ID, unescape(x.param("id")))
	if err != nil {
		return err
	}
	info := struct {
		Disconnected bool    `json:"disconnected"`
		Database     *string `json:"database"`
	}{Disconnected: true}
	if name := s.databaseName(g); name != "" {
		info.Database = &name
	}
	return x.reply(info)
}
