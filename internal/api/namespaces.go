package api

import (
	"context"
	"errors"
	"net/http"

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
	ended, err := s.DeleteNamespace(ctx, d)
	if err != nil {
		return err
	}
	return x.reply(struct {
		Deleted   bool `json:"deleted"`
		Databases int  `json:"databases"`
	}{true, len(ended)})
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
