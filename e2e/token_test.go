package e2e_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// mint makes a token and returns it.
func mint(c *harness.Client, request body) string {
	return c.Post("/v1/tokens", request).OK().Str("data.token")
}

func TestTokens(t *testing.T) {
	row(t, "DP-TOK-1", "DP-TOK-2", "DP-TOK-3", "DP-TOK-13", "DP-DB-1")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	d := c.DB("shop")
	d.Must("CREATE TABLE orders(a)")
	made := c.Post("/v1/tokens", body{"name": "agent 7", "role": "write", "tableScope": []string{"orders", "Ünïcode"}, "database": "shop", "expiresIn": 3600}).OK()
	made.Is("data.role", "write").Is("data.name", "agent 7").Is("data.database", "shop").Is("data.test", "false").Has("data", "id", "token", "hint", "databaseId", "expiresAt", "createdAt")
	if got := harness.Text(made.At("data.tableScope")); got != `["orders","Ünïcode"]` {
		t.Errorf("scope %s", got)
	}
	secret, id := made.Str("data.token"), made.Str("data.id")
	me := c.As(secret).Get("/v1/me").OK()
	me.Is("data.role", "write").Is("data.tokenId", id).Is("data.scope.database", "shop").Is("data.scope.tables", `["orders","Ünïcode"]`)
	c.As(secret).DB("shop").Must("INSERT INTO orders VALUES(1)")
	plain := c.Post("/v1/tokens", body{}).OK()
	plain.Is("data.role", "admin").Is("data.tableScope", "null").Is("data.database", "null").Is("data.expiresAt", "null")

	list := c.Get("/v1/tokens").OK()
	if n := len(list.List("data")); n != 3 { // the operator's own too
		t.Errorf("%d tokens listed", n)
	}
	if strings.Contains(string(list.Raw), secret) || strings.Contains(string(list.Raw), harness.Token) {
		t.Error("the list shows a token")
	}
	first := c.Get("/v1/tokens?limit=1").OK()
	first.Is("data.0.id", plain.Str("data.id"))
	c.Get("/v1/tokens?limit=1&before="+plain.Str("data.id")).OK().Is("data.0.id", id)
	for _, q := range []string{"?limit=0", "?limit=501", "?limit=x"} {
		c.Get("/v1/tokens"+q).Fails(http.StatusBadRequest, "bad_request")
	}
	for _, bad := range []struct {
		request body
		code    string
	}{
		{body{"role": "owner"}, "invalid_role"}, {body{"role": "Admin"}, "invalid_role"}, {body{"tableScope": []string{}}, "invalid_table_scope"},
		{body{"tableScope": []string{""}}, "invalid_table_scope"}, {body{"tableScope": slices.Repeat([]string{"a"}, 201)}, "invalid_table_scope"},
		{body{"table_scope": []string{"orders"}}, "bad_json"}, {body{"Role": "read"}, "bad_json"}, {body{"scope": body{"tables": []string{"orders"}}}, "bad_json"}, {body{"tableScope": "orders"}, ""}, {body{"expiresIn": 0}, "bad_request"}, {body{"expiresIn": 1.5}, "bad_request"}, {body{"expiresIn": -1}, "bad_request"},
		{body{"expiresIn": 1e12}, "bad_request"}, {body{"name": strings.Repeat("x", 201)}, "bad_request"}, {body{"claims": []int{1}}, "invalid_claims"}, {body{"claims": "a"}, "invalid_claims"}, {body{"claims": body{"a": strings.Repeat("x", 4090)}}, "invalid_claims"},
	} {
		c.Post("/v1/tokens", bad.request).Fails(http.StatusBadRequest, bad.code)
	}
	for _, raw := range []string{"null", " null\n", `{"role":"read","role":"admin"}`, "{\"name\":\"\xff\"}", `{"name":"\ud800"}`} {
		c.Post("/v1/tokens", harness.Raw(raw)).Fails(http.StatusBadRequest, "bad_json")
	}
	c.Post("/v1/tokens", body{"database": "nowhere"}).Fails(http.StatusNotFound, "not_found")
	c.Post("/v1/tokens", body{}, harness.Header("Plan-Key: k"), harness.Header("Plan-Step: 1")).Fails(http.StatusBadRequest, "invalid_idempotency_key")
	c.Do("DELETE", "/v1/tokens/"+id, nil, harness.Header("Plan-Key: k"), harness.Header("Plan-Step: 1")).Fails(http.StatusBadRequest, "invalid_idempotency_key")
	c.Do("DELETE", "/v1/tokens/tok_none", nil).Fails(http.StatusNotFound, "not_found")
	when := c.Do("DELETE", "/v1/tokens/"+id, nil).OK().Is("data.revoked", "true").Str("data.revokedAt")
	c.As(secret).Get("/v1/me").Fails(http.StatusUnauthorized, "unauthorized")
	c.Do("DELETE", "/v1/tokens/"+id, nil).OK().Is("data.revokedAt", when)
	if strings.Contains(string(c.Get("/v1/tokens").OK().Raw), id) {
		t.Error("a revoked token is listed")
	}
	// The command makes them too, and what one makes the other ends.
	out := s.JSONOf(t, "token", "create", "--namespace", "default", "--role", "readonly", "--table-scope", "orders,items", "--json")
	c.As(out["token"].(string)).DB("shop").Query("SELECT * FROM orders").OK()
	c.As(out["token"].(string)).DB("shop").Query("SELECT 1 FROM sqlite_schema").Fails(http.StatusForbidden, "scope_not_allowed")
	c.Do("DELETE", "/v1/tokens/"+out["id"].(string), nil).OK()
	c.As(out["token"].(string)).Get("/v1/me").Fails(http.StatusUnauthorized, "unauthorized")
	// A restart changes nope.
	scoped := mint(c, body{"tableScope": []string{"orders"}, "role": "read"})
	s.Stop(t)
	s = harness.Start(t, binary, harness.Options{Data: s.Data})
	c = s.Client(t, harness.Token)
	c.As(scoped).Get("/v1/me").OK().Is("data.scope.tables", `["orders"]`).Is("data.role", "read")
	c.As(scoped).DB("shop").Query("DELETE FROM orders").Fails(http.StatusForbidden, "role_not_allowed").Says(`Token role "read" cannot run DELETE`)
	c.As(scoped).DB("shop").Query("CREATE TABLE x(a)").Fails(http.StatusForbidden, "role_not_allowed").Says(`Token role "read" cannot run CREATE`)
	c.As(scoped).DB("shop").Query("SELECT * FROM sqlite_sequence").Fails(http.StatusBadRequest, "")
}

// What a token may not do beside running statements.
func TestCallsThatNeedMore(t *testing.T) {
	row(t, "DP-TOK-9", "DP-AUTH-9")
	admin := client(t)
	d := admin.DB(unused())
	d.Must("CREATE TABLE orders(a)")
	tokens := map[string]string{
		"readonly": mint(admin, body{"role": "readonly"}), "write": mint(admin, body{"role": "write"}),
		"scoped": mint(admin, body{"tableScope": []string{"orders"}}), "pinned": mint(admin, body{"database": d.Slug}),
	}
	calls := []struct {
		method, path string
		body         any
		allowed      string
	}{
		{"POST", "/v1/databases", body{"slug": "made"}, ""},
		{"DELETE", "/v1/databases/" + d.Slug, nil, ""},
		{"GET", "/v1/databases?deleted=true", nil, ""},
		{"POST", "/v1/databases/db_x/undelete", body{}, ""},
		{"POST", "/v1/tokens", body{}, ""},
		{"GET", "/v1/tokens", nil, ""},
		{"DELETE", "/v1/tokens/tok_x", nil, ""},
		{"GET", d.Path("export"), nil, "pinned"},
		{"POST", d.Path("import"), harness.Raw("CREATE TABLE i(a);"), "pinned"},
		{"POST", d.Path("load-csv?table=csv"), harness.Raw("a\n1\n"), "pinned"},
		{"PUT", d.Path("describe"), body{"databaseDescription": "x"}, "pinned"},
		{"PUT", d.Path("describe"), body{"tables": []any{body{"table": "orders", "description": "x"}}}, "pinned scoped"},
	}
	for who, secret := range tokens {
		c := admin.As(secret)
		for _, call := range calls {
			a := c.Do(call.method, call.path, call.body)
			if strings.Contains(call.allowed, who) {
				if a.Status != http.StatusOK {
					t.Errorf("%s: %s %s: %s", who, call.method, call.path, harness.Tail(string(a.Raw), 300))
				}
				continue
			}
			if a.Status != http.StatusForbidden {
				t.Errorf("%s: %s %s: %d %s", who, call.method, call.path, a.Status, harness.Tail(string(a.Raw), 300))
			}
		}
		if who != "pinned" {
			c.DB(unused()).Query("SELECT 1").Fails(http.StatusNotFound, "not_found") // makes nope
			c.Get("/v1/databases/" + d.Slug).OK()
		}
	}
	if d.One("SELECT count(*) FROM orders") != "0" {
		t.Error("the database is gone")
	}
}

// A token with a scope sees nope else of the database, in whatever it asks for.
func TestScopeHidesTheRest(t *testing.T) {
	row(t, "DP-TOK-8")
	admin := client(t)
	d := admin.DB(unused())
	d.Batch(true, guarded...).OK()
	d.Must("SELECT 'zq_by_admin', hidden FROM secret")
	admin.Do("PUT", d.Path("describe"), body{"tables": []any{body{"table": "secret", "description": "zq_described secret"}, body{"table": "orders", "description": "what was ordered"}}}).OK()
	// What is hidden: names of tables that no definition in scope has, columns, words of descriptions and logs.
	hidden := []string{"secret_k", "hidden", "card", "zq_", "audit", "parts", "tasks_audit", "docs_fts_config"}
	scope := []string{"orders", "items", "lines", "payments", "tasks", "pages"}
	c := admin.As(mint(admin, body{"tableScope": scope})).DB(d.Slug)
	c.Must("SELECT 'zq own row'") // its own words
	clean := func(what string, a *harness.Answer) {
		t.Helper()
		for _, word := range hidden {
			if strings.Contains(strings.ReplaceAll(string(a.Raw), "zq own row", ""), word) {
				t.Errorf("%s tells of %s: %s", what, word, a.Raw)
			}
		}
	}
	var names []string
	tables := c.Get(c.Path("tables")).OK()
	for _, e := range tables.List("data") {
		names = append(names, e.(map[string]any)["name"].(string))
	}
	if want := []string{"items", "lines", "orders", "pages", "payments", "tasks"}; !slices.Equal(names, want) {
		t.Errorf("tables: %v", names)
	}
	clean("tables", tables)
	c.Get("/v1/databases/"+d.Slug).OK().Is("data.tableCount", "6")
	for _, path := range []string{"describe", "describe/compact", "schema", "doctor", "search?q=secret+hidden+card+customer", "query-log?limit=1000"} {
		clean(path, c.Get(c.Path(path)).OK())
	}
	if rows := c.Get(c.Path("query-log")).OK().List("data"); len(rows) != 1 {
		t.Errorf("%d rows of the query log", len(rows))
	}
	c.Get(c.Path("query-log?tokenId=other")).Fails(http.StatusForbidden, "forbidden")
	clean("describe", c.Get(c.Path("describe")).OK())
	if c.Get(c.Path("describe")).OK(); !strings.Contains(string(c.Get(c.Path("describe")).Raw), "what was ordered") {
		t.Error("a description in scope is missing")
	}
	// Hints, and errors of what can't be compiled.
	for _, sql := range []string{"SELECT * FROM secre", "SELECT hiden FROM orders", "SELECT carda FROM lines", "SELECT * FROM audits"} {
		if a := c.Query(sql).Fails(http.StatusBadRequest, ""); a.At("hint") != nil {
			t.Errorf("%s: %s", sql, a.Str("hint"))
		}
	}
	for _, sql := range []string{
		"SELECT nope FROM secret", "SELECT s.nope FROM secret s", "SELECT nope FROM \"Secret\"", "SELECT nope FROM [secret]", "SELECT nope FROM 'secret'",
		"SELECT nope FROM `secret`", "SELECT nope FROM main.secret", "UPDATE secret SET nope = 1", "INSERT INTO secret(nope) VALUES(1)", "SELECT secret.nope FROM orders, secret",
		"SELECT nope FROM secret_view", "SELECT (SELECT nope FROM secret) FROM orders", "DELETE FROM secret WHERE nope = 1", "SELECT k FROM secret ORDER BY nope", "CREATE INDEX i ON secret(nope)",
	} {
		c.Query(sql).Fails(http.StatusForbidden, "scope_not_allowed")
		a := c.Post(c.Path("validate"), harness.Body(sql)).OK()
		a.Is("data.ok", "false")
		if !strings.HasPrefix(a.Str("data.error"), "Token scope does not include table") {
			t.Errorf("validate %s: %s", sql, a.Str("data.error"))
		}
		c.Post(c.Path("explain"), harness.Body(sql)).Fails(http.StatusForbidden, "scope_not_allowed")
	}
	c.Query("SELECT nope FROM orders").Fails(http.StatusBadRequest, "unknown_column")
	// What fails when it runs is told as it is, whatever words are in it.
	c.Query("INSERT INTO items VALUES(1, 'secret customers')").Fails(http.StatusBadRequest, "unique_violation")
	c.Query("SELECT totl FROM orders").Fails(http.StatusBadRequest, "unknown_column").Tells("total")
	// Quotes in comments mislead nobody.
	d.Must(`CREATE TABLE "my table"(realcol, x)`)
	for _, sql := range []string{`/* ' */ SELECT nope FROM "my table"`, `/* ' */ INSERT INTO "my table" VALUES(1)`, "-- it's\nSELECT nope FROM [my table]", `SELECT nope FROM "my table"`} {
		c.Query(sql).Fails(http.StatusForbidden, "scope_not_allowed")
	}
	// A virtual table over a hidden one is not read for the caller either.
	over := admin.As(mint(admin, body{"tableScope": []string{"docs_fts", "secret_vocab", "orders"}})).DB(d.Slug)
	for _, e := range over.Get(over.Path("tables")).OK().List("data") {
		if e := e.(map[string]any); (e["rowCount"] == nil) != (e["name"] != "orders") {
			t.Errorf("tables: %v", e)
		}
	}
	for _, path := range []string{"describe", "describe/compact", "doctor"} {
		over.Get(over.Path(path)).OK()
	}
	// A new name is known only after it ran: nope of it stays.
	c.Query("ALTER TABLE items RENAME TO secret2").Fails(http.StatusForbidden, "scope_not_allowed")
	if got := d.One("SELECT count(*) FROM items"); got != "1" {
		t.Errorf("items: %s", got)
	}
}

func TestPinsHoldToTheDatabase(t *testing.T) {
	row(t, "DP-TOK-10", "DP-TOK-11")
	admin := client(t)
	d := admin.DB(unused())
	d.Must("CREATE TABLE t(a)")
	pinned := admin.As(mint(admin, body{"database": d.Slug}))
	pinned.DB(d.Slug).Must("SELECT * FROM t")
	pinned.DB(unused()).Query("SELECT 1").Fails(http.StatusForbidden, "forbidden").Says("Token is not scoped to this database")
	admin.Do("DELETE", "/v1/databases/"+d.Slug, nil).OK()
	admin.Post("/v1/databases", body{"slug": d.Slug}).OK()
	pinned.DB(d.Slug).Query("SELECT 1").Fails(http.StatusForbidden, "forbidden")

	test := admin.As(mint(admin, body{"test": true}))
	if !strings.HasPrefix(test.Token(), "psql_test_p1_") {
		t.Error("not a test token")
	}
	test.Post("/v1/tokens", body{"test": false}).Fails(http.StatusForbidden, "forbidden")
	made := test.Post("/v1/tokens", body{}).OK().Is("data.test", "true")
	if n := len(test.Get("/v1/tokens?limit=500").OK().List("data")); n < 2 {
		t.Errorf("%d tokens", n)
	}
	for _, e := range test.Get("/v1/tokens?limit=500").OK().List("data") {
		if e.(map[string]any)["test"] != true {
			t.Error("a test token sees another token")
		}
	}
	live := admin.Post("/v1/tokens", body{}).OK().Str("data.id")
	test.Do("DELETE", "/v1/tokens/"+live, nil).Fails(http.StatusNotFound, "not_found")
	test.Do("DELETE", "/v1/tokens/"+made.Str("data.id"), nil).OK()
	test.Post("/v1/tokens", body{"database": d.Slug}).Fails(http.StatusNotFound, "not_found")
}

// A revoked token is refused by the next request, however many are under way.
func TestRevocationUnderLoad(t *testing.T) {
	row(t, "DP-TOK-3", "DP-AUTH-7")
	s := harness.Start(t, binary, harness.Options{})
	admin := s.Client(t, harness.Token)
	admin.DB("shop").Must("CREATE TABLE t(a)")
	for round := range 6 {
		made := admin.Post("/v1/tokens", body{"role": "write"}).OK()
		var revoked atomic.Bool
		var late, let atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				c := admin.As(made.Str("data.token")).Apart()
				for n := 0; n < 2000; n++ {
					after := revoked.Load()
					a, err := c.Try("POST", c.DB("shop").Path("query"), harness.Body("INSERT INTO t VALUES(1)"))
					if err != nil {
						t.Error(err)
						return
					}
					if a.Status == http.StatusOK {
						let.Add(1)
						if after {
							late.Add(1)
						}
					} else if after {
						return
					}
				}
			})
		}
		for let.Load() < 50 {
			admin.Get("/v1/me").OK()
		}
		if round%2 == 0 {
			admin.Do("DELETE", "/v1/tokens/"+made.Str("data.id"), nil).OK()
		} else if out, errs, code := s.CLI(t, "token", "revoke", made.Str("data.id")); code != 0 {
			t.Fatal(out, errs)
		}
		revoked.Store(true)
		wg.Wait()
		if n := late.Load(); n > 0 {
			t.Errorf("round %d: %d requests were let in after the token was revoked", round, n)
		}
	}
}

// No file and no line of the log has a token in it.
func TestSecretsAreNowhere(t *testing.T) {
	row(t, "DP-TOK-12")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_LOG=debug"}})
	c := s.Client(t, harness.Token)
	secrets := []string{harness.Token}
	for _, request := range []body{{}, {"role": "readonly"}, {"tableScope": []string{"t"}}, {"test": true}, {"expiresIn": 60}} {
		secrets = append(secrets, mint(c, request))
	}
	out := s.JSONOf(t, "token", "create", "--namespace", "default", "--json")
	secrets = append(secrets, out["token"].(string))
	for _, secret := range secrets[1:] {
		c.As(secret).Get("/v1/me").OK()
		c.As(secret).Target("GET", "/v1/db/default/nowhere/subscribe?token="+secret, "")
		c.As(secret+"x").Get("/v1/me").Fails(http.StatusUnauthorized, "")
		c.As(secret).DB("shop").Query("SELECT 1")
	}
	s.Stop(t)
	log := s.Log() + s.Out()
	files := 0
	err := filepath.WalkDir(s.Data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, secret := range secrets {
			if strings.Contains(string(b), secret[len("psql_live_"):]) {
				t.Errorf("%s holds a token", path)
			}
		}
		return err
	})
	if err != nil || files < 2 {
		t.Fatal(fmt.Sprint(files, " files: ", err))
	}
	for _, secret := range secrets {
		if strings.Contains(log, secret[len("psql_live_"):]) {
			t.Error("the log holds a token")
		}
	}
}
