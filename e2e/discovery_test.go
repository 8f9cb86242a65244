package e2e_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// shop is a database with a schema worth describing.
func shop(t testing.TB) *harness.DB {
	t.Helper()
	d := db(t)
	d.Batch(true,
		"CREATE TABLE customers(id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT DEFAULT 'anon')",
		"CREATE TABLE orders(id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers(id), total REAL)",
		"CREATE INDEX orders_by_total ON orders(total, id)",
		"CREATE VIEW big AS SELECT * FROM orders WHERE total > 100",
		"CREATE TABLE keyless(a STRING, b)",
		"INSERT INTO customers(email) VALUES('a@x'),('b@x'),('c@x')",
		"INSERT INTO orders(customer_id, total) VALUES(1, 5.0),(1, 500.0)",
	).OK()
	return d
}

func TestTables(t *testing.T) {
	row(t, "DP-D-1")
	d := shop(t)
	a := d.Get(d.Path("tables")).OK()
	got := map[string]string{}
	for i := range a.List("data") {
		got[a.Str(fmt.Sprintf("data.%d.name", i))] = harness.Text(a.At(fmt.Sprintf("data.%d.rowCount", i)))
	}
	if fmt.Sprint(got) != "map[customers:3 keyless:0 orders:2]" {
		t.Errorf("tables: %v", got)
	}
	empty := db(t)
	if got := harness.Text(empty.Get(empty.Path("tables")).OK().At("data")); got != "[]" {
		t.Errorf("an empty database has the tables %s", got)
	}
}

// tableOf is the path of a table in the answer of describe.
func tableOf(t testing.TB, a *harness.Answer, name string) string {
	t.Helper()
	for i := range a.OK().List("data.tables") {
		if a.Str(fmt.Sprintf("data.tables.%d.table", i)) == name {
			return fmt.Sprintf("data.tables.%d", i)
		}
	}
	t.Fatalf("describe has no table %s: %s", name, a.Raw)
	return ""
}

func TestDescribe(t *testing.T) {
	row(t, "DP-D-2")
	d := shop(t)
	a := d.Get(d.Path("describe"))
	customers, orders := tableOf(t, a, "customers"), tableOf(t, a, "orders")
	a.Has("data", "databaseDescription", "tables").Has(customers, "table", "description", "columns", "foreignKeys", "indexes", "rowCount")
	a.Has(customers+".columns.0", "name", "type", "notNull", "primaryKey", "defaultValue", "description")
	a.Is(customers+".columns.0.name", "id").Is(customers+".columns.0.type", "INTEGER").Is(customers+".columns.0.primaryKey", "true")
	a.Is(customers+".columns.1.notNull", "true").Is(customers+".columns.1.primaryKey", "false").Is(customers+".columns.2.defaultValue", "'anon'")
	a.Is(customers+".rowCount", "3").Is(customers+".foreignKeys", "[]")
	a.Is(orders+".foreignKeys.0.column", "customer_id").Is(orders+".foreignKeys.0.referencesTable", "customers").Is(orders+".foreignKeys.0.referencesColumn", "id")
	a.Is(orders+".indexes.0.name", "orders_by_total").Is(orders+".indexes.0.unique", "false").Is(orders+".indexes.0.columns", `["total","id"]`)
}

func TestDescriptions(t *testing.T) {
	row(t, "DP-D-3")
	d := shop(t)
	put := func(b any) *harness.Answer { return d.Do(http.MethodPut, d.Path("describe"), b) }
	put(body{"databaseDescription": "A shop", "tables": []any{
		body{"table": "customers", "description": "Who buys", "columns": []any{body{"column": "email", "description": "Where to write"}}},
		body{"table": "orders", "description": "What was bought"},
	}}).OK()
	put(body{"tables": []any{body{"table": "orders", "columns": []any{body{"column": "total", "description": "In euros"}}}}}).OK()
	check := func() {
		t.Helper()
		a := d.Get(d.Path("describe"))
		customers, orders := tableOf(t, a, "customers"), tableOf(t, a, "orders")
		a.Is("data.databaseDescription", "A shop").Is(customers+".description", "Who buys").Is(customers+".columns.1.description", "Where to write")
		a.Is(orders+".description", "What was bought").Is(orders+".columns.2.description", "In euros")
	}
	check()
	put(body{}).OK()
	put(body{"tables": []any{}}).OK()
	check()
	for _, bad := range []any{
		body{"tables": []any{body{"table": "absent", "description": "x"}}},
		body{"tables": []any{body{"table": "customers", "columns": []any{body{"column": "absent", "description": "x"}}}}},
		body{"tables": 5}, body{"databaseDescription": 5}, body{"tables": []any{body{"description": "of nothing"}}},
		body{"tables": []any{body{"table": "sqlite_persql_notes_v1", "description": "x"}}},
		harness.Raw("["), harness.Raw("5"),
	} {
		if a := put(bad); a.Status != http.StatusBadRequest && a.Status != http.StatusNotFound {
			t.Errorf("%s: got %d %s, want 400 or 404", a.What, a.Status, a.Raw)
		}
	}
	check()
}

func TestDescribeCompact(t *testing.T) {
	row(t, "DP-D-4")
	d := shop(t)
	for _, path := range []string{"describe?format=compact", "describe/compact"} {
		a := d.Get(d.Path(path)).OK()
		text := a.Str("data")
		lines := strings.Split(strings.TrimSpace(text), "\n")
		found := 0
		for _, line := range lines {
			for _, table := range []string{"customers", "orders", "keyless"} {
				if strings.HasPrefix(line, table) {
					found++
				}
			}
		}
		if found != 3 || !strings.Contains(text, "email") || !strings.Contains(text, "customer_id") {
			t.Errorf("%s: got %q", path, text)
		}
	}
	d.Get(d.Path("describe?format=poem")).Fails(http.StatusBadRequest, "")
}

func TestSearch(t *testing.T) {
	row(t, "DP-D-5")
	d := shop(t)
	d.Do(http.MethodPut, d.Path("describe"), body{"tables": []any{body{"table": "keyless", "description": "Stored invoices of the quarter"}}}).OK()
	first := func(a *harness.Answer) string {
		a.OK()
		return a.Str("data.hits.0.kind") + " " + a.Str("data.hits.0.table") + " " + a.Str("data.hits.0.column")
	}
	for query, want := range map[string]string{"orders": "table orders ", "order": "table orders ", "email": "column customers email", "invoice": "table keyless ", "custom": "table customers "} {
		for _, path := range []string{"search?q=", "search?query="} {
			if got := first(d.Get(d.Path(path + query))); got != want {
				t.Errorf("%s%s: got %q, want %q", path, query, got, want)
			}
		}
		for _, field := range []string{"q", "query"} {
			if got := first(d.Post(d.Path("search"), body{field: query})); got != want {
				t.Errorf("%s %s: got %q, want %q", field, query, got, want)
			}
		}
	}
	a := d.Get(d.Path("search?q=customer&limit=1")).OK()
	if got := len(a.List("data.hits")); got != 1 {
		t.Errorf("limit 1 gives %d hits", got)
	}
	a = d.Get(d.Path("search?q=customer")).OK()
	last := 1e300
	for i := range a.List("data.hits") {
		a.Has(fmt.Sprintf("data.hits.%d", i), "kind", "table", "score")
		score, err := strconv.ParseFloat(harness.Text(a.At(fmt.Sprintf("data.hits.%d.score", i))), 64)
		if err != nil || score > last {
			t.Errorf("hit %d: score %v after %v: %v", i, score, last, err)
		}
		last = score
	}
	if got := harness.Text(d.Get(d.Path("search?q=zebra")).OK().At("data.hits")); got != "[]" {
		t.Errorf("zebra: %s", got)
	}
	for _, odd := range []string{`"`, `a" OR "b`, `NEAR(`, `*`, `a AND`, `-x`, `col:val`, "日本", "';--", "(", "^"} {
		d.Get(d.Path("search?q=" + url.QueryEscape(odd))).OK()
	}
	d.Get(d.Path("search?q=a&limit=x")).Fails(http.StatusBadRequest, "")
	d.Get(d.Path("search")).Fails(http.StatusBadRequest, "")
}

func TestDoctor(t *testing.T) {
	row(t, "DP-D-6")
	d := shop(t)
	d.Must("CREATE INDEX twin ON orders(total)")
	a := d.Get(d.Path("doctor")).OK().Has("data", "ok", "findings")
	found := map[string]bool{}
	for i := range a.List("data.findings") {
		path := fmt.Sprintf("data.findings.%d", i)
		a.Has(path, "severity", "code", "table", "message")
		found[a.Str(path+".table")+"."+a.Str(path+".column")] = true
		found[a.Str(path+".table")+"."] = true
	}
	for _, want := range []string{"keyless.", "orders.customer_id", "keyless.a", "orders."} {
		if !found[want] {
			t.Errorf("nothing is found about %s: %s", want, a.Raw)
		}
	}
	empty := db(t)
	empty.Get(empty.Path("doctor")).OK().Is("data.ok", "true")
}

func TestValidate(t *testing.T) {
	row(t, "DP-D-7")
	d := shop(t)
	validate := func(sql string, params ...any) *harness.Answer {
		return d.Post(d.Path("validate"), harness.Body(sql, params...)).OK()
	}
	validate("SELECT * FROM orders").Is("data.ok", "true")
	validate("DELETE FROM customers WHERE id = ?", 1).Is("data.ok", "true")
	validate("DROP TABLE keyless").Is("data.ok", "true")
	validate("SELEC").Is("data.ok", "false").Is("data.errorDetail.kind", "syntax_error")
	validate("SELECT * FROM absent").Is("data.ok", "false").Is("data.errorDetail.kind", "unknown_table")
	validate("SELECT absent FROM orders").Is("data.ok", "false").Is("data.errorDetail.kind", "unknown_column")
	validate("SELECT ?", 1, 2).Is("data.ok", "false").Is("data.errorDetail.kind", "too_many_params")
	validate("SELECT ?").Is("data.ok", "false").Is("data.errorDetail.kind", "type_mismatch")
	validate("SELECT 1; SELECT 2").Is("data.ok", "false").Is("data.errorDetail.kind", "syntax_error")
	validate("BEGIN").Is("data.ok", "false")
	validate("PRAGMA user_version = 77").Is("data.ok", "true")
	validate("PRAGMA journal_mode = DELETE").Is("data.ok", "false")
	validate("ATTACH 'x' AS y").Is("data.ok", "false")
	rowsAre(t, d.Query("SELECT count(*), (SELECT user_version FROM pragma_user_version) FROM customers"), "[[3,0]]")
	d.Must("SELECT * FROM keyless")
	d.Post(d.Path("validate"), harness.Raw("{")).Fails(http.StatusBadRequest, "bad_json")
}

func TestExplain(t *testing.T) {
	row(t, "DP-D-8")
	d := shop(t)
	a := d.Post(d.Path("explain"), harness.Body("SELECT * FROM orders WHERE id = ?", 1)).OK()
	step, _ := a.At("data.plan.0").([]any)
	if len(step) != 4 || !strings.Contains(harness.Text(step[3]), "orders") {
		t.Errorf("plan: %s", a.Raw)
	}
	d.Post(d.Path("explain"), harness.Body("DELETE FROM customers")).OK()
	d.Post(d.Path("explain"), harness.Body("SELECT * FROM orders WHERE id = ?")).OK() // a plan needs no values
	if got := d.One("SELECT count(*) FROM customers"); got != "3" {
		t.Errorf("explain ran: %s", got)
	}
	d.Post(d.Path("explain"), harness.Body("SELECT * FROM absent")).Fails(http.StatusBadRequest, "").Kind("unknown_table")
	d.Post(d.Path("explain"), harness.Body("SELECT 1; DELETE FROM customers")).Fails(http.StatusBadRequest, "").Kind("syntax_error")
	if a := d.Post(d.Path("explain"), harness.Body("BEGIN")); a.Status == http.StatusOK {
		t.Errorf("BEGIN was explained: %s", a.Raw)
	}
	d.Must("EXPLAIN SELECT 1")
	d.Must("EXPLAIN QUERY PLAN SELECT * FROM orders")
}

func TestSchema(t *testing.T) {
	row(t, "DP-D-9")
	d := shop(t)
	d.Do(http.MethodPut, d.Path("describe"), body{"databaseDescription": "makes the server's own table"}).OK()
	d.Must("CREATE TRIGGER tr AFTER INSERT ON orders BEGIN SELECT 1; END")
	a := d.Get(d.Path("schema")).OK()
	got := map[string]bool{}
	for i := range a.List("data") {
		path := fmt.Sprintf("data.%d", i)
		a.Has(path, "type", "name", "table", "sql")
		got[a.Str(path+".type")+" "+a.Str(path+".name")+" "+a.Str(path+".table")] = true
		if strings.HasPrefix(a.Str(path+".name"), "sqlite_") {
			t.Errorf("the schema lists %s", a.Str(path+".name"))
		}
	}
	for _, want := range []string{"table customers customers", "index orders_by_total orders", "view big big", "trigger tr orders"} {
		if !got[want] {
			t.Errorf("the schema lacks %s: %v", want, got)
		}
	}
}

func TestQueryLog(t *testing.T) {
	row(t, "DP-D-10", "DP-D-11")
	s := sharedServer(t)
	d := db(t)
	begin := time.Now().UnixMilli()
	d.Must("CREATE TABLE logged(a UNIQUE)")
	d.Must("INSERT INTO logged VALUES(?)", "a-parameter-that-is-secret")
	d.Query("INSERT INTO logged VALUES(?)", "a-parameter-that-is-secret").Fails(http.StatusBadRequest, "")
	id, token := newToken(t, s, "--namespace", "default")
	d.As(token).DB(d.Slug).Must("SELECT a AS other_token FROM logged")

	var a *harness.Answer
	seen := eventually(t, 10*time.Second, func() bool {
		a = d.Get(d.Path("query-log?limit=100")).OK()
		return strings.Contains(string(a.Raw), "other_token")
	})
	if !seen {
		t.Fatalf("the log lacks the last statement: %s", a.Raw)
	}
	if strings.Contains(string(a.Raw), "a-parameter-that-is-secret") {
		t.Errorf("the log tells parameters: %s", a.Raw)
	}
	last := int64(1) << 62
	for i := range a.List("data") {
		path := fmt.Sprintf("data.%d", i)
		a.Has(path, "id", "ts", "sql", "rowsRead", "rowsWritten", "durationMs", "status", "error", "tokenId")
		ts, err := strconv.ParseInt(harness.Text(a.At(path+".ts")), 10, 64)
		if err != nil || ts > last || ts < begin-1000 || ts > time.Now().UnixMilli()+1000 {
			t.Errorf("entry %d: ts %d after %d: %v", i, ts, last, err)
		}
		last = ts
	}
	a.Is("data.0.sql", "SELECT a AS other_token FROM logged").Is("data.0.tokenId", id).Is("data.0.error", "null")
	if got := a.Str("data.1.error"); !strings.Contains(got, "UNIQUE") {
		t.Errorf("the failed statement's error is %q", got)
	}
	if got, want := len(d.Get(d.Path("query-log?limit=2")).OK().List("data")), 2; got != want {
		t.Errorf("limit=2 gives %d", got)
	}
	if got := d.Get(d.Path("query-log?tokenId=" + id)).OK().List("data"); len(got) != 1 {
		t.Errorf("tokenId gives %v", got)
	}
	for since, want := range map[string]bool{
		strconv.FormatInt(begin-1000, 10):                                  true,
		strconv.FormatInt(time.Now().UnixMilli()+1e6, 10):                  false,
		time.UnixMilli(begin - 1000).UTC().Format(time.RFC3339):            true,
		time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05.000Z"): false,
	} {
		if got := len(d.Get(d.Path("query-log?since="+url.QueryEscape(since))).OK().List("data")) > 0; got != want {
			t.Errorf("since=%s: entries %v, want %v", since, got, want)
		}
	}
	for _, bad := range []string{"limit=x", "limit=-1", "since=yesterday"} {
		d.Get(d.Path("query-log?"+bad)).Fails(http.StatusBadRequest, "")
	}

	rowsAre(t, d.Query("SELECT token_id FROM _persql_meta_query_log WHERE sql LIKE '%other_token%' AND sql NOT LIKE '%LIKE%'"), "[["+quoted(id)+"]]")
	d.Must("SELECT ts, sql, rows_read, rows_written, duration_ms, status, error, token_id FROM _persql_meta_query_log ORDER BY ts DESC LIMIT 5")
	if got := d.One("SELECT count(*) > 2 AND min(ts) > 1.6e12 FROM _persql_meta_query_log"); got != "1" {
		t.Errorf("the log by SQL: %s", got)
	}
	for _, sql := range []string{"DELETE FROM _persql_meta_query_log", "INSERT INTO _persql_meta_query_log(sql) VALUES('x')", "UPDATE _persql_meta_query_log SET sql = ''", "DROP TABLE _persql_meta_query_log"} {
		if a := d.Query(sql); a.Status == http.StatusOK {
			t.Errorf("%s succeeded", sql)
		}
	}
	// One database's log is not another's.
	other := db(t)
	if got := other.One("SELECT count(*) FROM _persql_meta_query_log WHERE sql LIKE '%logged%'"); got != "0" {
		t.Errorf("another database's log has %s entries of this one", got)
	}
}

func TestSystemObjects(t *testing.T) {
	row(t, "DP-D-12")
	d := shop(t)
	d.Do(http.MethodPut, d.Path("describe"), body{"databaseDescription": "a note"}).OK()
	d.Post(d.Path("query"), harness.Body("INSERT INTO keyless VALUES(1, 2)"), "Idempotency-Key: makes-the-table").OK()
	names := d.Must("SELECT name FROM sqlite_schema WHERE name LIKE 'sqlite_persql%' AND type = 'table'").Rows()
	tables := []string{"sqlite_persql_notes_v1", "sqlite_persql_kept_v1", "_persql_meta_anything"}
	for _, r := range names {
		tables = append(tables, harness.Text(r[0]))
	}
	for _, name := range tables {
		for _, n := range []string{name, strings.ToUpper(name), `"` + name + `"`, "main." + name, "[" + name + "]"} {
			for _, sql := range []string{
				"SELECT * FROM " + n, "SELECT count(*) FROM " + n, "DELETE FROM " + n, "DROP TABLE " + n, "UPDATE " + n + " SET tbl = 1",
				"INSERT INTO " + n + " VALUES(1,2,3)", "ALTER TABLE " + n + " RENAME TO stolen", "CREATE INDEX stolen ON " + n + "(tbl)",
				"CREATE TRIGGER stolen AFTER INSERT ON " + n + " BEGIN SELECT 1; END", "SELECT * FROM (SELECT * FROM " + n + ")",
				"WITH x AS (SELECT * FROM " + n + ") SELECT * FROM x", "INSERT INTO keyless SELECT 1, count(*) FROM " + n,
			} {
				if a := d.Query(sql); a.Status != http.StatusBadRequest && a.Status != http.StatusForbidden {
					t.Errorf("%s: got %d %s", sql, a.Status, a.Raw)
				}
			}
		}
	}
	for _, sql := range []string{
		"CREATE TABLE _persql_mine(a)", "CREATE TABLE _PERSQL_mine(a)", "CREATE TABLE sqlite_mine(a)", "CREATE VIEW _persql_v AS SELECT 1",
		"CREATE INDEX _persql_i ON keyless(a)", "CREATE TRIGGER _persql_t AFTER INSERT ON keyless BEGIN SELECT 1; END",
		"CREATE VIRTUAL TABLE _persql_f USING fts5(a)", "ALTER TABLE keyless RENAME TO _persql_mine", "ALTER TABLE keyless RENAME TO sqlite_persql_x",
		"CREATE TABLE \"_persql_mine\" AS SELECT 1", "CREATE TABLE main._persql_mine(a)",
	} {
		if a := d.Query(sql); a.Status != http.StatusBadRequest && a.Status != http.StatusForbidden {
			t.Errorf("%s: got %d %s", sql, a.Status, a.Raw)
		}
	}
	// A view or a trigger of the client's is no way in either.
	for _, sql := range []string{"CREATE VIEW peek AS SELECT * FROM sqlite_persql_notes_v1", "CREATE TRIGGER poke AFTER INSERT ON keyless BEGIN DELETE FROM sqlite_persql_kept_v1; END"} {
		d.Query(sql)
	}
	if a := d.Query("SELECT * FROM peek"); a.Status == http.StatusOK {
		t.Errorf("a view reads the server's table: %s", a.Raw)
	}
	d.Query("INSERT INTO keyless VALUES(5, 5)")
	d.Query("DROP TRIGGER poke")
	d.Query("DROP VIEW peek")
	d.Post(d.Path("query"), harness.Body("INSERT INTO keyless VALUES(1, 2)"), "Idempotency-Key: makes-the-table").OK().Tells("changes")
	if got := d.One("SELECT count(*) FROM keyless WHERE a = 1 AND b = 2"); got != "1" {
		t.Errorf("the kept answer was lost: %s rows", got)
	}
	for _, path := range []string{"tables", "describe", "schema", "search?q=persql", "describe/compact", "doctor"} {
		if a := d.Get(d.Path(path)).OK(); strings.Contains(string(a.Raw), "sqlite_persql") {
			t.Errorf("%s tells of the server's tables: %s", path, a.Raw)
		}
	}
	d.Get(d.Path("describe")).OK().Is("data.databaseDescription", "a note")
}

func TestReadableSystemTables(t *testing.T) {
	row(t, "DP-D-13", "DP-D-14")
	d := shop(t)
	d.Must("SELECT type, name, sql FROM sqlite_schema")
	d.Must("SELECT name FROM sqlite_master")
	d.Must("SELECT name FROM SQLITE_MASTER")
	d.Must("CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, a)")
	d.Must("INSERT INTO auto(a) VALUES(1)")
	rowsAre(t, d.Query("SELECT seq FROM sqlite_sequence WHERE name = 'auto'"), "[[1]]")
	d.Must("UPDATE sqlite_sequence SET seq = 100 WHERE name = 'auto'")
	d.Must("INSERT INTO auto(a) VALUES(2)").Is("data.lastInsertRowid", "101")
	d.Must("DELETE FROM sqlite_sequence")
	d.Must("ANALYZE")
	d.Must("SELECT * FROM sqlite_stat1")
	d.Must("DELETE FROM sqlite_stat1")
	for _, sql := range []string{
		"DELETE FROM sqlite_schema", "UPDATE sqlite_master SET sql = ''", "INSERT INTO sqlite_schema VALUES('table','x','x',2,'')",
		"DROP TABLE sqlite_schema", "DROP TABLE sqlite_sequence", "SELECT * FROM sqlite_dbpage", "SELECT * FROM dbstat", "SELECT * FROM sqlite_stmt",
		"CREATE TEMP TABLE x(a)", "CREATE TEMPORARY VIEW x AS SELECT 1", "CREATE TABLE temp.x(a)",
		"CREATE VIEW temp.x AS SELECT 1", "CREATE TRIGGER temp.x AFTER INSERT ON orders BEGIN SELECT 1; END", "CREATE INDEX temp.x ON orders(total)",
		"CREATE VIRTUAL TABLE temp.x USING fts5(a)", "CREATE VIRTUAL TABLE temp.x USING rtree(a, b, c)", "CREATE TABLE temp.x AS SELECT 1", "SELECT * FROM sqlite_temp_schema", "INSERT INTO temp.sqlite_schema VALUES(1,1,1,1,1)",
		"CREATE TEMP TRIGGER x AFTER INSERT ON orders BEGIN SELECT 1; END", "CREATE TEMP TABLE x AS SELECT 1",
	} {
		if a := d.Query(sql); a.Status != http.StatusBadRequest && a.Status != http.StatusForbidden {
			t.Errorf("%s: got %d %s", sql, a.Status, a.Raw)
		}
	}
}
