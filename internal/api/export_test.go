package api

import (
	"context"
	"maps"
	"slices"

	"github.com/go-chi/chi/v5"
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
