package api

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-chi/chi/v5"
)

// What the shortcut finds the router would find too; the rest it leaves to the router.
func TestShortcut(t *testing.T) {
	s := New(Options{})
	for path, found := range map[string]bool{
		"/v1/db/default/shop/query": true, "/v1/db/default/shop/batch": true, "/v1/db/a/b.c/query": true,
		"/v1/db/default/query/query": true, "/v1/db/v1/db/query": true, "/v1/db/batch/x/batch": true,
		"/v1/db/default/shop/query/": false, "/v1/db/default//query": false, "/v1/db//shop/query": false, "/v1/db/default/query": false,
		"/v1/db/default/a/b/query": false, "/v1/db/de%66ault/shop/query": false, "/v1/db/default/sh%2fop/query": false, "/v1/db/default/sh%25op/query": false,
		"/v1/db/%25/shop/query": false, "/v1/db/default/shop/tables": false, "/v1/databases": false, "/v1/dbx/default/shop/query": false, "//v1/db/default/shop/query": false,
	} {
		r := httptest.NewRequest(http.MethodPost, path, http.NoBody)
		e, parts := s.shortcut(r)
		if (e != nil) != found {
			t.Errorf("%s: found: %v", path, e != nil)
		}
		if e == nil {
			continue
		}
		route := chi.NewRouteContext()
		if !s.router.Match(route, http.MethodPost, r.URL.Path) {
			t.Errorf("%s: not the router's", path)
		}
		if got := (pathParts{route.URLParam("ns"), route.URLParam("db")}); got != parts {
			t.Errorf("%s: %v, the router has %v", path, parts, got)
		}
		if e.metric.pattern != route.RoutePattern() {
			t.Errorf("%s: %s, the router has %s", path, e.metric.pattern, route.RoutePattern())
		}
		if e, _ := s.shortcut(httptest.NewRequest(http.MethodGet, path, http.NoBody)); e != nil {
			t.Errorf("GET %s found", path)
		}
	}
}
