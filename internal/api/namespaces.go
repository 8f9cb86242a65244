package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
)

// reservedNamespace tells whether a slug would stand in the way of the server's own paths: pages of a namespace are under /:ns/.
func reservedNamespace(slug string) bool {
	switch slug {
	case "agent", "api", "approve", "assets", "console", "debug", "healthz", "invite", "login", "mcp", "metrics", "oauth", "p", "readyz", "settings",
		"signin", "signup", "static", "userinfo", "v1", "version":
		return true
	}
	return false
}

// listNamespaces serves GET /api/namespaces.
func (s *Server) listNamespaces(x *exchange) error {
	return x.reply(membershipsOf(s.opt.Catalog, x.user))
}

type namespaceRequest struct {
	Slug string `json:"slug"`
}

// createNamespace serves POST /api/namespaces.
func (s *Server) createNamespace(x *exchange) error {
	var req namespaceRequest
	if err := x.accountObject(&req); err != nil {
		return err
	}
	if reservedNamespace(req.Slug) {
		return newFault(http.StatusBadRequest, "invalid_slug", "The name "+req.Slug+" is reserved", "choose another slug")
	}
	ns, err := s.opt.Catalog.CreateNamespaceOf(x.acting(x.r.Context()), req.Slug, x.user.ID)
	if err != nil {
		return err
	}
	return x.reply(infoOfMembership(catalog.Membership{Namespace: ns, Role: catalog.MemberOwner}))
}

// deleteNamespace serves DELETE /api/namespaces/:ns.
func (s *Server) deleteNamespace(x *exchange) error {
	d := catalog.Deletion{NamespaceID: x.membership.ID, By: x.user.ID}
	switch x.r.URL.Query().Get("force") {
	case "", "false":
	case "true":
		d.Force = true
	default:
		return newFault(http.StatusBadRequest, codeBadRequest, "force must be true or false", "")
	}
	ctx, cancel := context.WithTimeout(x.acting(context.WithoutCancel(x.r.Context())), endTime)
	defer cancel()
	var ended []*catalog.Database
	for {
		var err error
		if d.Force && x.membership.Role == catalog.MemberOwner { // to others the catalog says that they may not
			if d.Judged, err = x.guardNamespace(); err != nil {
				return err
			}
		}
		if ended, err = s.DeleteNamespace(ctx, d); err == nil {
			break
		}
		if !errors.Is(err, catalog.ErrRulesChanged) || ctx.Err() != nil {
			return err
		}
	}
	return x.reply(struct {
		Deleted   bool `json:"deleted"`
		Databases int  `json:"databases"`
	}{true, len(ended)})
}

// guardNamespace refuses to end a namespace while a rule would stop the end of one of its databases, and returns by which rules each was judged. It isn't held: an approval is of one
// database, and is there to be used as long as that one is.
func (x *exchange) guardNamespace() (judged map[string]*approval.Rules, err error) {
	judged = map[string]*approval.Rules{}
	whole := x.database
	defer func() { x.database = whole }()
	var held error
	for _, d := range x.s.opt.Catalog.DatabasesOf(x.membership.ID) {
		x.database, judged[d.ID] = d, d.Rules
		err := x.guard(false)
		var stop *approval.Stop
		if !errors.As(err, &stop) {
			if err != nil {
				return nil, err
			}
			continue
		}
		if stop.Denied() {
			x.noteDenied(stop)
			return nil, x.standsInTheWay(d, stop)
		}
		if held == nil { // what is denied is told first
			held = x.standsInTheWay(d, stop)
		}
	}
	return judged, held
}

// standsInTheWay is why a namespace can't be deleted: the database, the rule, and what to do about both.
func (x *exchange) standsInTheWay(d *catalog.Database, stop *approval.Stop) error {
	hit := stop.First()
	path := "/api/namespaces/" + x.membership.Slug + "/databases/" + d.Slug
	rule := fmt.Sprintf("DELETE %s/approval-rules/%s", path, hit.Rule.ID)
	if d.IsBranch() {
		if parent, err := x.s.opt.Catalog.DatabaseByID(d.Fork.From); err == nil {
			path = "/api/namespaces/" + x.membership.Slug + "/databases/" + parent.Slug + "/branches/" + d.Fork.Ref
		}
	}
	f := newFault(http.StatusForbidden, codeApprovalDenied, fmt.Sprintf("The approval rule %s (%s) denies deleting the database %q; nothing was deleted", hit.Rule.ID, hit.Rule.TableGlob, d.Slug),
		"an admin takes the rule away first: "+rule)
	if !stop.Denied() {
		f = newFault(http.StatusConflict, "database_held", fmt.Sprintf("The approval rule %s (%s) asks for approval before the database %q is deleted; nothing was deleted", hit.Rule.ID, hit.Rule.TableGlob, d.Slug),
			"delete that database first, which people can approve: DELETE "+path+"; or take the rule away: "+rule)
	}
	f.extra = appendHits([]byte(`,"hits":`), approval.Records(stop.Hits), false)
	return f
}

// DeleteNamespace ends a namespace: its databases go to the trash, for as long as the server keeps them there. Its errors are
// those of catalog.DeleteNamespace.
func (s *Server) DeleteNamespace(ctx context.Context, d catalog.Deletion) ([]*catalog.Database, error) {
	d.Keep = s.opt.Trash
	ended, err := s.opt.Catalog.DeleteNamespace(ctx, d)
	if err != nil {
		return nil, err
	}
	// Nobody finds them any more; those who have found them already are kept out.
	for _, database := range ended {
		s.keepOut(ctx, database.ID, d.Keep <= 0)
	}
	return ended, nil
}

func (s *Server) keepOut(ctx context.Context, id string, forGood bool) {
	defer s.ending.lock(id)()
	if _, err := s.opt.Catalog.DatabaseByID(id); err == nil {
		return // brought back meanwhile
	}
	s.shut(ctx, id, forGood)
}

type memberInfo struct {
	User      userInfo `json:"user"`
	Role      string   `json:"role"`
	CreatedAt string   `json:"createdAt"`
}

// listMembers serves GET /api/namespaces/:ns/members: a member may see who else is one.
func (s *Server) listMembers(x *exchange) error {
	list := []memberInfo{}
	for _, m := range s.opt.Catalog.Members(x.membership.ID) {
		list = append(list, memberInfo{infoOfUser(m.User), m.Role, m.CreatedAt.Format(timeFormat)})
	}
	return x.reply(list)
}

type roleRequest struct {
	Role string `json:"role"`
}

// setMemberRole serves PATCH /api/namespaces/:ns/members/:userId.
func (s *Server) setMemberRole(x *exchange) error {
	var req roleRequest
	if err := x.accountObject(&req); err != nil {
		return err
	}
	m, err := s.opt.Catalog.SetMemberRole(x.acting(x.r.Context()), x.membership.ID, x.user.ID, unescape(x.param("user")), req.Role)
	if err != nil {
		return memberFault(err)
	}
	u, err := s.opt.Catalog.User(m.UserID)
	if err != nil {
		return err
	}
	return x.reply(memberInfo{infoOfUser(u), m.Role, m.CreatedAt.Format(timeFormat)})
}

// memberFault tells a member's role, where elsewhere it is a token's.
func memberFault(err error) error {
	if errors.Is(err, catalog.ErrMemberRole) {
		return newFault(http.StatusBadRequest, "invalid_role", "A member's role is viewer, editor, admin or owner", "")
	}
	return err
}

// removeMember serves DELETE /api/namespaces/:ns/members/:userId.
func (s *Server) removeMember(x *exchange) error {
	if err := s.opt.Catalog.RemoveMember(x.acting(x.r.Context()), x.membership.ID, x.user.ID, unescape(x.param("user"))); err != nil {
		return err
	}
	return x.reply(struct {
		Removed bool `json:"removed"`
	}{true})
}
