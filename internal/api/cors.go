package api

import (
	"net/http"
	"strings"
)

var (
	anyOrigin     = []string{"*"}
	exposeHeaders = []string{"Retry-After, X-Request-Id, Idempotency-Replayed, Plan-Replayed, WWW-Authenticate"}
)

// crossOrigin lets a page of any origin read the answer: a bearer is no cookie, a page that has one was given it.
// Credentials are never allowed.
func crossOrigin(h http.Header) {
	h["Access-Control-Allow-Origin"] = anyOrigin
	h["Access-Control-Expose-Headers"] = exposeHeaders
}

// openPaths are where other origins may call (Fetch standard, section 3.2).
func openPath(path string) bool {
	for _, p := range []string{"/v1/", "/p/", "/oauth/token", "/oauth/revoke", "/oauth/register", "/userinfo", "/.well-known/", "/api/openapi.json", "/openapi.json"} {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}

// preflight answers OPTIONS.
func (s *Server) preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if openPath(r.URL.Path) {
		crossOrigin(h)
		h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, MCP-Protocol-Version, Plan-Key, Plan-Step, X-Approval-Token, X-Request-Id")
		h.Set("Access-Control-Max-Age", "86400")
	}
	h.Set("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	h.Set("X-Request-Id", requestID(r))
	w.WriteHeader(http.StatusNoContent)
}
