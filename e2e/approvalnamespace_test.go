package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// The end of a namespace is the end of its databases: it asks of each what that end would ask.
func TestDeletingANamespaceAsksRules(t *testing.T) {
	row(t, "DP-RUL-8")
	dir := filepath.Join(t.TempDir(), "data")
	start := func() (*harness.Server, *harness.Client) {
		s := harness.Start(t, binary, harness.Options{Data: dir, Env: quick})
		return s, s.Client(t, harness.Token)
	}
	s, admin := start()
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	head := enrol(t, s, "head@example.com", "default", "admin")
	const ns = "/api/namespaces/default"
	end := func() *harness.Answer { return owner.Do(http.MethodDelete, ns+"?force=true", nil) }
	named := func(a *harness.Answer, words ...string) {
		t.Helper()
		for _, word := range words {
			if !strings.Contains(a.Str("error")+" "+a.Str("hint"), word) {
				t.Errorf("%s doesn't say %q", a.Raw, word)
			}
		}
	}
	asks := func(d *harness.DB, r body) (id string) {
		return owner.Post(ns+"/databases/"+d.Slug+"/approval-rules", r).OK().Str("data.id")
	}
	shop, other := admin.DB("shop"), admin.DB("other")
	shop.Must("CREATE TABLE prod_users(a)")
	other.Must("CREATE TABLE free(a)")
	first := asks(shop, body{"tableGlob": "prod_*", "action": "require_approval", "operations": []string{"insert"}, "maxRows": 1000})
	asks(other, body{"tableGlob": "prod_*", "action": "deny"}) // about no table that is there

	held := end()
	named(held.Fails(http.StatusConflict, "database_held"), first, "prod_*", `"shop"`, "nothing was deleted", "DELETE "+ns+"/databases/shop")
	held.Is("hits.0.ruleId", first).Is("hits.0.matchedTable", "prod_users").Is("hits.0.action", "require_approval")
	// To who may not it tells nothing of rules; and without force that there are databases.
	head.Do(http.MethodDelete, ns+"?force=true", nil).Fails(http.StatusForbidden, "role_not_allowed")
	owner.Do(http.MethodDelete, ns, nil).Fails(http.StatusConflict, "namespace_not_empty")

	// What is denied is told first, wherever it stands.
	late := admin.DB("zz")
	late.Must("CREATE TABLE safe(a)")
	deny := asks(late, body{"tableGlob": "SAFE", "action": "deny"})
	named(end().Fails(http.StatusForbidden, "approval_denied"), deny, `"zz"`, "DELETE "+ns+"/databases/zz/approval-rules/"+deny)
	owner.Get(ns+"/audit?action=approval.refused").OK().Is("data.0.metadata.ruleId", deny)
	owner.Do(http.MethodDelete, ns+"/databases/zz/approval-rules/"+deny, nil).OK()
	end().Fails(http.StatusConflict, "database_held")

	// The way that the answer names: people approve the end of that database.
	token := holds(owner.Do(http.MethodDelete, ns+"/databases/shop", nil))
	end().Fails(http.StatusConflict, "database_held")
	head.Post("/api/approvals/"+token+"/approve", body{}).OK()
	end().Fails(http.StatusConflict, "database_held") // that was approved, and this isn't
	owner.Post(ns+"/databases/shop/redeem_approval", body{"approvalToken": token}).OK()

	// A branch with rules of its own is in the way too, of a database without any.
	admin.Post(late.Path("claim_branch"), body{"ref": "work", "content": "full"}).OK()
	rule := owner.Post(ns+"/databases/zz.work/approval-rules", body{"tableGlob": "safe", "action": "require_approval"}).OK().Str("data.id")
	named(end().Fails(http.StatusConflict, "database_held"), rule, "DELETE "+ns+"/databases/zz/branches/work;", "DELETE "+ns+"/databases/zz-work/approval-rules/"+rule)
	owner.Do(http.MethodDelete, ns+"/databases/zz.work/approval-rules/"+rule, nil).OK()

	// What is in a damaged file nobody can tell: every rule may be about it.
	damaged := admin.DB("damaged")
	damaged.Must("CREATE TABLE free(a)")
	id := admin.Get("/v1/databases/damaged").OK().Str("data.id")
	rule = asks(damaged, body{"tableGlob": "anything", "action": "require_approval"})
	s.Stop(t)
	if err := os.WriteFile(fileOf(t, dir, id), []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	s, admin = start()
	owner = signIn(t, s, "owner@example.com")
	admin.DB("damaged").Query("SELECT 1 FROM free").Fails(http.StatusServiceUnavailable, "database_damaged")
	named(end().Fails(http.StatusConflict, "database_held"), rule, `"damaged"`)
	owner.Do(http.MethodDelete, ns+"/databases/damaged/approval-rules/"+rule, nil).OK()
	end().OK().Is("data.deleted", "true").Is("data.databases", "4")
	owner.Get(ns+"/databases").Fails(http.StatusNotFound, "not_found")
}
