package e2e_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/sqlite"
)

func TestAuditLog(t *testing.T) {
	row(t, "DP-AUDIT-1", "DP-AUDIT-2", "DP-AUDIT-3")
	s := harness.Start(t, binary, harness.Options{})
	admin := s.Client(t, harness.Token)
	latest := func(action string) *harness.Answer {
		t.Helper()
		a := admin.Get("/v1/audit?limit=1").OK()
		if len(a.List("data")) != 1 {
			t.Fatalf("no entry of %s", action)
		}
		return a.Is("data.0.action", action)
	}
	id := admin.Get("/v1/me").OK().Str("data.tokenId")
	byToken := func(a *harness.Answer) *harness.Answer {
		return a.Is("data.0.actor.type", "token").Is("data.0.actor.id", id).Is("data.0.address", "127.0.0.1")
	}
	// The first start.
	start := admin.Get("/v1/audit").OK()
	if n := len(start.List("data")); n != 3 {
		t.Errorf("%d entries of the first start: %s", n, start.Raw)
	}
	start.Is("data.0.action", "token.created").Is("data.0.actor.type", "server").Is("data.0.address", "null").Is("data.1.action", "invitation.created").Is("data.2.action", "namespace.created").Is("data.2.target.name", "default")

	d := admin.DB("shop")
	d.Must("CREATE TABLE t(a)") // makes it
	byToken(latest("database.created")).Is("data.0.target.type", "database").Is("data.0.target.name", "shop")
	d.Must("INSERT INTO t VALUES(1)")
	latest("database.created") // data is the query log's
	admin.Post("/v1/databases", body{"slug": "shop"}).OK()
	latest("database.created").Is("data.0.target.name", "shop")
	if n := len(admin.Get("/v1/audit?action=database.created").OK().List("data")); n != 1 {
		t.Errorf("%d databases made", n)
	}
	d.Post(d.Path("import"), harness.Raw("CREATE TABLE i(a); INSERT INTO i VALUES(1);"), harness.Header("Content-Type: application/sql")).OK()
	byToken(latest("database.imported")).Is("data.0.metadata.format", "sql")
	d.Post(d.Path("import"), harness.Raw("CREATE TABLE i(a);"), harness.Header("Content-Type: application/sql")).Fails(http.StatusBadRequest, "")
	d.Post(d.Path("load-csv?table=csv"), harness.Raw("a\n1\n")).OK()
	byToken(latest("database.csv_loaded")).Is("data.0.metadata.table", "csv")
	d.Do("PUT", d.Path("describe"), body{"tables": []any{body{"table": "t", "description": "x"}}}).OK()
	byToken(latest("database.described"))

	made := admin.Post("/v1/tokens", body{"name": "ci", "role": "read", "tableScope": []string{"t"}, "expiresIn": 60, "database": "shop"}).OK()
	a := byToken(latest("token.created")).Is("data.0.target.name", "ci").Is("data.0.target.id", made.Str("data.id")).Is("data.0.metadata.role", "read").Is("data.0.metadata.tableScope", `["t"]`)
	secret := made.Str("data.token")
	admin.Do("DELETE", "/v1/tokens/"+made.Str("data.id"), nil).OK()
	byToken(latest("token.revoked")).Is("data.0.target.id", made.Str("data.id"))
	admin.Do("DELETE", "/v1/tokens/"+made.Str("data.id"), nil).OK() // nothing more happens
	if n := len(admin.Get("/v1/audit?action=token.revoked").OK().List("data")); n != 1 {
		t.Errorf("%d tokens revoked", n)
	}
	before := admin.Get("/v1/audit").OK().List("data")
	admin.Do("DELETE", "/v1/databases/shop", nil).OK()
	byToken(latest("database.deleted")).Has("data.0.metadata", "restorableUntil")
	trashed := admin.Get("/v1/databases?deleted=true").OK().Str("data.0.id")
	admin.Post("/v1/databases/"+trashed+"/undelete", body{"slug": "shop2"}).OK()
	byToken(latest("database.undeleted")).Is("data.0.target.name", "shop2").Is("data.0.metadata.formerSlug", "shop")
	out := s.JSONOf(t, "token", "create", "--namespace", "default", "--name", "by hand", "--json")
	latest("token.created").Is("data.0.actor.type", "operator").Is("data.0.address", "null").Is("data.0.target.name", "by hand")
	s.CLI(t, "token", "revoke", out["id"].(string))
	latest("token.revoked").Is("data.0.actor.type", "operator")
	admin.Post("/v1/users", body{"subject": "someone"}).OK()
	latest("token.created")

	// Pages, and who may look.
	all := admin.Get("/v1/audit?limit=500").OK().List("data")
	if len(all) != len(before)+6 {
		t.Errorf("%d entries, were %d", len(all), len(before))
	}
	first := all[0].(map[string]any)["id"].(string)
	page := admin.Get("/v1/audit?limit=500&before=" + first).OK().List("data")
	if len(page) != len(all)-1 {
		t.Errorf("%d entries before the last of %d", len(page), len(all))
	}
	for _, q := range []string{"limit=0", "limit=501", "limit=x"} {
		admin.Get("/v1/audit?"+q).Fails(http.StatusBadRequest, "bad_request")
	}
	for _, request := range []body{{"role": "write"}, {"tableScope": []string{"t"}}, {"database": "shop2"}} {
		admin.As(mint(admin, request)).Get("/v1/audit").Fails(http.StatusForbidden, "")
	}
	test := admin.As(mint(admin, body{"test": true}))
	if n := len(test.Get("/v1/audit").OK().List("data")); n != 1 { // of itself
		t.Errorf("a test token sees %d entries", n)
	}
	if strings.Contains(string(admin.Get("/v1/audit?limit=500").Raw)+string(a.Raw), secret[len("psql_live_"):]) {
		t.Error("the log holds a token")
	}
	// Not even by hand.
	s.Stop(t)
	db, err := sqlite.OpenDriver(filepath.Join(s.Data, "catalog.db"), sqlite.DriverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, change := range []string{"UPDATE audit SET action = 'x'", "DELETE FROM audit"} {
		if _, err := db.Exec(change); err == nil || !strings.Contains(err.Error(), "only added to") {
			t.Errorf("%s: %v", change, err)
		}
	}
}
