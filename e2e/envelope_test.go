package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

func TestEnvelopeOfSuccess(t *testing.T) {
	row(t, "DP-ENV-1")
	c := client(t)
	slug := unused()
	for name, a := range map[string]*harness.Answer{
		"create": c.Post("/v1/databases", body{"slug": slug}),
		"read":   c.Get("/v1/databases/" + slug),
		"query":  c.DB(slug).Query("SELECT 1"),
		"batch":  c.DB(slug).Batch(false, "SELECT 1"),
		"delete": c.Do(http.MethodDelete, "/v1/databases/"+slug, nil),
	} {
		if a.Status != http.StatusOK || a.At("success") != true || a.At("data") == nil {
			t.Errorf("%s: got %d %s", name, a.Status, a.Raw)
		}
	}
}

func TestEnvelopeOfFailure(t *testing.T) {
	row(t, "DP-ENV-2")
	d := db(t)
	a := d.Query("SELECT * FROM absent").Fails(http.StatusBadRequest, "")
	a.Has("", "success", "error", "code", "requestId", "errorDetail")
	if a.At("success") != false {
		t.Errorf("success is %v", a.At("success"))
	}
	if a.Str("errorDetail.hint") == "" && a.Str("hint") == "" {
		d.Must("CREATE TABLE absence(a)")
		d.Query("SELECT * FROM absent").Tells("absence", "hint")
	}
	d.Post(d.Path("query"), harness.Raw("{")).Fails(http.StatusBadRequest, "bad_json")
}

func TestEveryAnswerIsJSON(t *testing.T) {
	row(t, "DP-ENV-3")
	c := client(t)
	d := db(t)
	for _, path := range []string{"/v1", "/v1/", "/v1/none", "/v1/db", "/v1/db/default", "/v1/db/default/" + d.Slug, d.Path("none"), d.Path(""), d.Path("query/more"), "/v1/databases/" + d.Slug + "/none"} {
		c.Get(path).Fails(http.StatusNotFound, "not_found")
	}
	for path, methods := range map[string][]string{
		d.Path("query"):           {"GET", "PUT", "DELETE", "PATCH"},
		d.Path("batch"):           {"GET", "PUT", "DELETE"},
		d.Path("tables"):          {"POST", "DELETE"},
		d.Path("explain"):         {"GET", "DELETE"},
		d.Path("describe"):        {"POST", "DELETE"},
		"/v1/me":                  {"POST", "DELETE", "PUT"},
		"/v1/databases":           {"PUT", "DELETE"},
		"/v1/databases/" + d.Slug: {"POST", "PUT"},
	} {
		for _, m := range methods {
			a := c.Do(m, path, nil).Fails(http.StatusMethodNotAllowed, "method_not_allowed")
			if a.Header.Get("Allow") == "" {
				t.Errorf("%s: no Allow", a.What)
			}
		}
	}
	c.Get("/v1/me", "Content-Type: application/json").OK()
	c.Get("/v1/me", "Content-Type: text/nonsense").OK()
	d.Post(d.Path("query"), harness.Body("SELECT 1"), "Content-Type:").OK()
}

func TestRequestID(t *testing.T) {
	row(t, "DP-ENV-4")
	c := client(t)
	for _, id := range []string{"abc-123", "01J9Z3K8Q2", "a.b_c-d"} {
		if got := c.Get("/v1/me", harness.Header("X-Request-Id: "+id)).OK().Header.Get("X-Request-Id"); got != id {
			t.Errorf("id %q became %q", id, got)
		}
		c.Get("/v1/none", harness.Header("X-Request-Id: "+id)).Is("requestId", id)
	}
	for _, id := range []string{"a b", `"><script>`, strings.Repeat("x", 5000), "ü", "a,b;c=d{}"} {
		if got := c.Get("/v1/me", harness.Header("X-Request-Id: "+id)).OK().Header.Get("X-Request-Id"); got == id || got == "" {
			t.Errorf("id %.20q was kept as %.20q", id, got)
		}
	}
	if a, b := c.Get("/v1/me").Header.Get("X-Request-Id"), c.Get("/v1/me").Header.Get("X-Request-Id"); a == b {
		t.Errorf("two requests have the id %q", a)
	}
}
