package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

const origin = harness.Header("Origin: https://app.example.com")

func TestPreflight(t *testing.T) {
	row(t, "DP-CORS-1", "DP-CORS-3")
	c := client(t).As("")
	for _, path := range []string{"/v1/me", "/v1/databases", "/v1/databases/x", "/v1/db/default/x/query", "/v1/db/default/x/describe", "/v1/db/other/none/batch"} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
			a := c.Do(http.MethodOptions, path, nil, origin, "Access-Control-Request-Method: "+harness.Header(method),
				"Access-Control-Request-Headers: authorization,content-type,idempotency-key,plan-key,plan-step,x-request-id")
			if a.Status != http.StatusOK && a.Status != http.StatusNoContent {
				t.Errorf("%s: status %d", a.What, a.Status)
			}
			if o := a.Header.Get("Access-Control-Allow-Origin"); o != "*" && o != "https://app.example.com" {
				t.Errorf("%s: Access-Control-Allow-Origin %q", a.What, o)
			}
			if allow := strings.ToUpper(a.Header.Get("Access-Control-Allow-Methods")); !strings.Contains(allow, method) {
				t.Errorf("%s: Access-Control-Allow-Methods %q lacks %s", a.What, allow, method)
			}
			allowed := strings.ToLower(a.Header.Get("Access-Control-Allow-Headers"))
			for _, h := range []string{"authorization", "content-type", "idempotency-key", "last-event-id", "mcp-protocol-version", "plan-key", "plan-step", "x-approval-token", "x-request-id"} {
				if !strings.Contains(allowed, h) {
					t.Errorf("%s: Access-Control-Allow-Headers %q lacks %s", a.What, allowed, h)
				}
			}
			if got := a.Header.Get("Access-Control-Allow-Credentials"); got != "" {
				t.Errorf("%s: Access-Control-Allow-Credentials %q", a.What, got)
			}
		}
	}
}

func TestExposedHeaders(t *testing.T) {
	row(t, "DP-CORS-2", "DP-CORS-3")
	c := client(t)
	d := db(t)
	for name, a := range map[string]*harness.Answer{
		"success":      c.Get("/v1/me", origin),
		"query":        d.Post(d.Path("query"), harness.Body("SELECT 1"), origin),
		"SQL error":    d.Post(d.Path("query"), harness.Body("SELEC"), origin),
		"unauthorized": c.As("").Get("/v1/me", origin),
		"not found":    c.Get("/v1/none", origin),
		"wrong method": c.Do(http.MethodPut, "/v1/me", nil, origin),
	} {
		if o := a.Header.Get("Access-Control-Allow-Origin"); o != "*" && o != "https://app.example.com" {
			t.Errorf("%s: Access-Control-Allow-Origin %q", name, o)
		}
		exposed := strings.ToLower(strings.Join(a.Header.Values("Access-Control-Expose-Headers"), ","))
		for _, h := range []string{"retry-after", "x-request-id", "idempotency-replayed", "plan-replayed", "www-authenticate"} {
			if !strings.Contains(exposed, h) {
				t.Errorf("%s: Access-Control-Expose-Headers %q lacks %s", name, exposed, h)
			}
		}
		if got := a.Header.Get("Access-Control-Allow-Credentials"); got != "" {
			t.Errorf("%s: Access-Control-Allow-Credentials %q", name, got)
		}
	}
}

func TestOtherRoutesAreNotForOtherOrigins(t *testing.T) {
	row(t, "DP-CORS-3")
	c := client(t)
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/version"} {
		for _, a := range []*harness.Answer{c.Get(path, origin), c.Do(http.MethodOptions, path, nil, origin, "Access-Control-Request-Method: GET")} {
			for name := range a.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s: %s: %s", a.What, name, a.Header.Get(name))
				}
			}
		}
	}
}
