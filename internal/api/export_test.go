package api

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/go-chi/chi/v5"

	"github.com/persqld/persqld/internal/catalog"
)

// Routes are the router's, for the comparison with the OpenAPI document.
func (s *Server) Routes() chi.Routes { return s.router }

// FaultCodes are the codes of the table of faults by their status.
func FaultCodes() map[int][]string {
	codes := map[int]map[string]bool{}
	for _, f := range table {
		if f.status == statusClientGone {
			continue
		}
		if codes[f.status] == nil {
			codes[f.status] = map[string]bool{}
		}
		codes[f.status][f.code] = true
	}
	list := map[int][]string{}
	for status, set := range codes {
		list[status] = slices.Sorted(maps.Keys(set))
	}
	return list
}

// JoinDocument makes the OpenAPI document of other parts than the embedded ones.
var JoinDocument = joinDocument

// SweepOnce does what Sweep does at each of its rounds.
func (s *Server) SweepOnce(ctx context.Context) {
	s.expire(ctx)
	s.sweep(ctx)
}

// BranchPath is branchPath.
var BranchPath = branchPath

// OAuthClient is the client of a client_id, for a request.
func (s *Server) OAuthClient(r *http.Request, id string) (*catalog.OAuthClient, error) {
	return (&exchange{s: s, r: r}).oauthClient(id)
}

// UseOAuthClient notes that somebody has let a client in, by a request.
func (s *Server) UseOAuthClient(r *http.Request, cl *catalog.OAuthClient) error {
	return (&exchange{s: s, r: r}).useOAuthClient(cl)
}

// StatusOf is the status of an error's answer.
func (s *Server) StatusOf(err error) int { return s.faultOf(err).status }
