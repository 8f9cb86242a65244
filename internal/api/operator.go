package api

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
)

// OperatorID stands in the query log for the operator, who has the files in hand and needs no token.
const OperatorID = "operator"

// Operator serves POST …/query to the operator, with an admin's rights in one namespace: the same way in as a token's, the
// gate included. It is for a subcommand that has opened the files itself; no listener may serve it.
func (s *Server) Operator(ns catalog.Namespace) http.Handler {
	token := &catalog.Token{ID: OperatorID, NamespaceID: ns.ID, NamespaceSlug: ns.Slug, Name: OperatorID, Role: gate.RoleAdmin}
	const pattern = "/v1/db/{ns}/{db}/query"
	r := chi.NewRouter()
	r.Method(http.MethodPost, pattern, s.call(pattern, entryOpen, func(x *exchange) error {
		x.token = token
		return s.query(x)
	}))
	return r
}
