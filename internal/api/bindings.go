package api

import (
	"net/http"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/identity"
)

type bindingRequest struct {
	Repository   string `json:"repository"`
	Issuer       string `json:"issuer"`
	RepositoryID string `json:"repositoryId"`
}

type bindingInfo struct {
	ID           string  `json:"id"`
	Repository   string  `json:"repository"`
	Issuer       *string `json:"issuer"`
	RepositoryID *string `json:"repositoryId"`
	Database     *string `json:"database"`
	CreatedAt    string  `json:"createdAt"`
}

func (s *Server) infoOfBinding(b *catalog.Binding) bindingInfo {
	optional := func(v string) *string {
		if v == "" {
			return nil
		}
		return &v
	}
	info := bindingInfo{ID: b.ID, Repository: b.Name, Issuer: optional(b.Issuer), RepositoryID: optional(b.StableID), CreatedAt: b.CreatedAt.Format(timeFormat)}
	if d, err := s.opt.Catalog.DatabaseByID(b.DatabaseID); b.DatabaseID != "" && err == nil {
		info.Database = &d.Slug
	}
	return info
}

// createBinding serves POST /v1/actions/bindings: it lets the jobs of a repository into the namespace.
func (s *Server) createBinding(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req bindingRequest
	if err := x.object(&req); err != nil {
		return err
	}
	// A misspelled issuer or id must not bind more than was meant.
	if err := x.strictly(&req, true); err != nil {
		return err
	}
	if err := x.needUnscoped("POST /v1/actions/bindings"); err != nil {
		return err
	}
	if x.token.Test {
		return newFault(http.StatusForbidden, codeForbidden, "A test token binds no repository", "use a psql_live_ token")
	}
	if req.Issuer != "" && !x.s.opt.Identity.Verifier.Trusts(req.Issuer) {
		return newFault(http.StatusBadRequest, codeBadRequest, "The issuer is not trusted here", "the operator names it in PERSQLD_TRUSTED_ISSUERS; leave it out for GitHub Actions")
	}
	if len(req.RepositoryID) > identity.MaxName {
		return newFault(http.StatusBadRequest, codeBadRequest, "The repositoryId is too long", "")
	}
	b, _, err := s.opt.Catalog.Bind(x.acting(x.r.Context()), catalog.NewBinding{NamespaceID: x.token.NamespaceID, Issuer: req.Issuer, Name: req.Repository, StableID: req.RepositoryID})
	if err != nil {
		return err
	}
	return x.reply(s.infoOfBinding(b))
}

// listBindings serves GET /v1/actions/bindings.
func (s *Server) listBindings(x *exchange) error {
	if err := x.needUnscoped("GET /v1/actions/bindings"); err != nil {
		return err
	}
	bindings, err := s.opt.Catalog.Bindings(x.r.Context(), x.token.NamespaceID)
	if err != nil {
		return err
	}
	list := []bindingInfo{}
	for _, b := range bindings {
		list = append(list, s.infoOfBinding(b))
	}
	return x.reply(list)
}

// deleteBinding serves DELETE /v1/actions/bindings/:id: the tokens that the repository got end.
func (s *Server) deleteBinding(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	if err := x.needUnscoped("DELETE /v1/actions/bindings"); err != nil {
		return err
	}
	if x.token.Test {
		return newFault(http.StatusForbidden, codeForbidden, "A test token unbinds no repository", "use a psql_live_ token")
	}
	_, ended, err := s.opt.Catalog.Unbind(x.acting(x.r.Context()), x.token.NamespaceID, unescape(x.param("id")))
	if err != nil {
		return err
	}
	return x.reply(struct {
		Deleted     bool `json:"deleted"`
		TokensEnded int  `json:"tokensEnded"`
	}{true, ended})
}
