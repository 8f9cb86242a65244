package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

func TestSizeLimits(t *testing.T) {
	row(t, "DP-L-1")
	d := db(t)
	d.Must("SELECT 1 /*" + strings.Repeat("x", 99_000) + "*/")
	d.Query("SELECT 1 /*"+strings.Repeat("x", 100_000)+"*/").Fails(http.StatusBadRequest, "sql_too_long")
	d.Batch(false, "SELECT 1 /*"+strings.Repeat("x", 100_000)+"*/").Fails(http.StatusBadRequest, "sql_too_long")
	d.Must("SELECT length(zeroblob(15900000))")
	for _, sql := range []string{"SELECT length(zeroblob(17000000))", "SELECT length(hex(zeroblob(9000000)))", "SELECT length(replace(hex(zeroblob(100000)), '0', '" + strings.Repeat("y", 100) + "'))"} {
		d.Query(sql).Fails(http.StatusBadRequest, "").Tells("too big")
	}
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MAX_STATEMENTS=2", "PERSQLD_MAX_SQL=2KB"}})
	small := newDB(t, s.Client(t, harness.Token))
	small.Batch(false, "SELECT 1", "SELECT 1").OK()
	small.Batch(false, "SELECT 1", "SELECT 1", "SELECT 1").Fails(http.StatusBadRequest, "").Tells("2")
	small.Query("SELECT 1 /*"+strings.Repeat("x", 2000)+"*/").Fails(http.StatusBadRequest, "sql_too_long")
}

func TestEngineLimits(t *testing.T) {
	row(t, "DP-L-2")
	d := db(t)
	list := func(n int, format, separator string) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = strings.ReplaceAll(format, "#", fmt.Sprint(i))
		}
		return strings.Join(parts, separator)
	}
	for name, sql := range map[string]func(over int) string{
		"columns":    func(over int) string { return "SELECT " + list(2000+over, "#", ",") },
		"compound":   func(over int) string { return list(500+over, "SELECT #", " UNION ALL ") },
		"expression": func(over int) string { return "SELECT 1" + strings.Repeat("+1", 990+over*20) },
	} {
		d.Must(sql(0))
		if a := d.Query(sql(1)).Fails(http.StatusBadRequest, ""); a.Str("error") == "" {
			t.Errorf("%s: no message", name)
		}
	}
	d.Must("CREATE TABLE wide(" + list(2000, "c#", ",") + ")")
	d.Query("CREATE TABLE wider("+list(2001, "c#", ",")+")").Fails(http.StatusBadRequest, "")
	d.Must("SELECT 'a' LIKE ?", strings.Repeat("a", 50_000))
	d.Query("SELECT 'a' LIKE ?", strings.Repeat("a", 50_001)).Fails(http.StatusBadRequest, "")
	d.Must("SELECT ?32766", make([]any, 32_766)...)
	d.Query("SELECT ?32767").Fails(http.StatusBadRequest, "").Kind("too_many_params")

	// A chain of triggers, one level a table.
	const tables = 103
	var tablesSQL, chain []any
	for i := range tables {
		tablesSQL = append(tablesSQL, fmt.Sprintf("CREATE TABLE chain%d(a)", i))
		if i > 0 {
			chain = append(chain, fmt.Sprintf("CREATE TRIGGER tr%d AFTER INSERT ON chain%d BEGIN INSERT INTO chain%d VALUES(1); END", i, i-1, i))
		}
	}
	for _, statements := range [][]any{tablesSQL, chain} {
		d.Batch(true, statements[:60]...).OK()
		d.Batch(true, statements[60:]...).OK()
	}
	d.Query("INSERT INTO chain0 VALUES(1)").Fails(http.StatusBadRequest, "")
	d.Must(fmt.Sprintf("INSERT INTO chain%d VALUES(1)", tables-99))
	if got := d.One(fmt.Sprintf("SELECT count(*) FROM chain%d", tables-1)); got != "1" {
		t.Errorf("the chain's end has %s rows", got)
	}
}

func TestForbiddenStatements(t *testing.T) {
	row(t, "DP-L-3")
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	for _, sql := range []string{
		"ATTACH '/tmp/persqld-e2e-x.db' AS x", "ATTACH ':memory:' AS x", "ATTACH '' AS x", "attach database 'x' as y", "DETACH main", "DETACH x",
		"VACUUM INTO '/tmp/persqld-e2e-x.db'", "VACUUM main INTO 'x.db'", "SELECT load_extension('x')", "SELECT load_extension('/tmp/x', 'entry')",
		"SELECT readfile('/etc/passwd')", "SELECT writefile('x', 'y')", "SELECT fts3_tokenizer('simple')", "SELECT fts3_tokenizer('simple', x'00')",
		"SELECT * FROM pragma_database_list WHERE file = load_extension('x')", "CREATE VIRTUAL TABLE x USING csv(filename='/etc/passwd')", "CREATE VIRTUAL TABLE x USING dbstat", "CREATE VIRTUAL TABLE x USING sqlite_dbpage",
	} {
		a := d.Query(sql)
		if a.Status != http.StatusForbidden && a.Status != http.StatusBadRequest {
			t.Errorf("%s: got %d %s", sql, a.Status, a.Raw)
		}
		if a := d.Batch(true, sql); a.Status != http.StatusForbidden && a.Status != http.StatusBadRequest {
			t.Errorf("batch %s: got %d %s", sql, a.Status, a.Raw)
		}
	}
	d.Query("ATTACH 'x' AS y").Fails(http.StatusForbidden, "")
	d.Query("VACUUM INTO 'x'").Fails(http.StatusForbidden, "")
	d.Must("VACUUM")
	d.Must("REINDEX")
	d.Must("ANALYZE")
}

func TestReadablePragmas(t *testing.T) {
	row(t, "DP-L-4")
	d := shop(t)
	for _, p := range strings.Fields(`table_info(orders) table_xinfo(orders) table_list index_list(orders) index_info(orders_by_total) index_xinfo(orders_by_total)
		foreign_key_list(orders) foreign_key_check integrity_check quick_check data_version page_size page_count freelist_count encoding user_version
		application_id compile_options function_list collation_list pragma_list table_list(orders) foreign_key_check(orders) integrity_check(orders)`) {
		a := d.Must("PRAGMA " + p)
		if len(a.List("data.rows")) == 0 && !strings.HasPrefix(p, "foreign_key_check") {
			t.Errorf("PRAGMA %s has no rows", p)
		}
		name, arg, _ := strings.Cut(strings.TrimSuffix(p, ")"), "(")
		if arg != "" {
			arg = "('" + arg + "')" // a function's argument is a value
		}
		if b := d.Query("SELECT * FROM pragma_" + name + arg); b.Status != http.StatusOK {
			t.Errorf("pragma_%s%s: %s", name, arg, b.Raw)
		}
		d.Must("PRAGMA main." + p)
		d.Must("pragma " + strings.ToUpper(p))
	}
	rowsAre(t, d.Query("PRAGMA integrity_check"), `[["ok"]]`)
	rowsAre(t, d.Query("PRAGMA foreign_key_list(orders)"), `[[0,0,"customers","customer_id","id","NO ACTION","NO ACTION","NONE"]]`)
	for _, r := range d.Must("PRAGMA database_list").Rows() {
		if len(r) != 3 || r[2] != "" {
			t.Errorf("PRAGMA database_list tells %v", r)
		}
	}
	for _, sql := range []string{
		"SELECT * FROM pragma_database_list", "SELECT file FROM pragma_database_list", "SELECT hex(file) FROM pragma_database_list",
		"SELECT count(*) FROM pragma_database_list WHERE file LIKE '/%'", "SELECT group_concat(file) FROM pragma_database_list",
		"SELECT length(file) FROM pragma_database_list", "WITH x AS (SELECT file AS f FROM pragma_database_list) SELECT f FROM x", "EXPLAIN PRAGMA database_list",
	} {
		a := d.Query(sql) // the client looks for the path in every answer
		if a.Status == http.StatusOK && strings.Contains(strings.ToLower(string(a.Raw)), fmt.Sprintf("%x", "/db/")) {
			t.Errorf("%s tells the path: %s", sql, a.Raw)
		}
		if a.Status == http.StatusOK && strings.HasPrefix(sql, "SELECT length") {
			if n := harness.Text(a.At("data.rows.0.0")); n != "0" && n != "null" {
				t.Errorf("%s tells the path's length: %s", sql, n)
			}
		}
		if a.Status == http.StatusOK && strings.HasPrefix(sql, "SELECT count") {
			a.Is("data.rows", "[[0]]")
		}
	}
}

func TestWritablePragmas(t *testing.T) {
	row(t, "DP-L-5")
	d := db(t)
	d.Must("PRAGMA optimize")
	d.Must("PRAGMA user_version = 7")
	d.Must("PRAGMA application_id = 11")
	rowsAre(t, d.Query("PRAGMA user_version"), "[[7]]")
	rowsAre(t, d.Query("PRAGMA application_id"), "[[11]]")
	d.Must("CREATE TABLE p(id INTEGER PRIMARY KEY)")
	d.Must("CREATE TABLE c(p REFERENCES p(id))")
	d.Batch(true, "PRAGMA defer_foreign_keys = ON", "INSERT INTO c VALUES(1)", "INSERT INTO p VALUES(1)").OK()
	d.Batch(true, "PRAGMA defer_foreign_keys = ON", "INSERT INTO c VALUES(2)").Fails(http.StatusBadRequest, "").Kind("fk_violation")
	// It ends with its batch.
	d.Query("INSERT INTO c VALUES(3)").Fails(http.StatusBadRequest, "").Kind("fk_violation")
	d.Batch(true, "INSERT INTO c VALUES(4)", "INSERT INTO p VALUES(4)").Fails(http.StatusBadRequest, "").Kind("fk_violation").Is("errorDetail.statementIndex", "0")
	for _, a := range []*harness.Answer{d.Query("PRAGMA defer_foreign_keys = ON"), d.Batch(false, "PRAGMA defer_foreign_keys = ON")} {
		if a.Status == http.StatusOK {
			t.Errorf("%s succeeded outside of a transactional batch", a.What)
		}
	}
	rowsAre(t, d.Query("SELECT count(*) FROM c"), "[[1]]")
}

func TestForbiddenPragmas(t *testing.T) {
	row(t, "DP-L-6")
	d := db(t)
	for _, p := range strings.Fields(`journal_mode journal_mode=DELETE locking_mode=NORMAL synchronous=OFF max_page_count max_page_count=1 foreign_keys=OFF writable_schema=ON
		cache_size=10 temp_store=1 temp_store_directory='/tmp' wal_checkpoint wal_checkpoint(TRUNCATE) mmap_size=0 trusted_schema=0 recursive_triggers=1 auto_vacuum=1
		incremental_vacuum secure_delete=1 schema_version=5 query_only=1 ignore_check_constraints=1 legacy_alter_table=1 reverse_unordered_selects=1 hard_heap_limit=1
		soft_heap_limit=1 threads=4 busy_timeout=1 case_sensitive_like=1 cell_size_check=1 data_store_directory='x' journal_size_limit=1 lock_status module_list
		shrink_memory wal_autocheckpoint=1 cache_spill=0 stats key='x' nonsense vdbe_trace=1 count_changes=1 full_column_names=1`) {
		name, _, _ := strings.Cut(p, "=")
		name, _, _ = strings.Cut(name, "(")
		d.Query("PRAGMA "+p).Fails(http.StatusForbidden, "").Tells(name)
	}
	d.Query("PRAGMA main.journal_mode").Fails(http.StatusForbidden, "").Tells("journal_mode")
	d.Query("PRAGMA page_size = 8192").Fails(http.StatusForbidden, "").Tells("page_size")
	d.Query("PRAGMA encoding = 'UTF-16'").Fails(http.StatusForbidden, "").Tells("encoding")
	d.Query("SELECT * FROM pragma_journal_mode").Fails(http.StatusForbidden, "")
	d.Query("SELECT * FROM pragma_module_list").Fails(http.StatusForbidden, "")
	d.Batch(true, "SELECT 1", "PRAGMA journal_mode").Fails(http.StatusForbidden, "").Is("errorDetail.statementIndex", "1")
}

func TestFeatures(t *testing.T) {
	row(t, "DP-L-7")
	d := db(t)
	d.Must("CREATE VIRTUAL TABLE notes USING fts5(title, body)")
	d.Must("INSERT INTO notes VALUES('first', 'the quick brown fox'), ('second', 'lazy dogs sleep')")
	rowsAre(t, d.Query("SELECT title, highlight(notes, 1, '<', '>') FROM notes WHERE notes MATCH 'fox' ORDER BY bm25(notes)"), `[["first","the quick brown <fox>"]]`)
	d.Must("CREATE VIEW found AS SELECT snippet(notes, 1, '[', ']', '…', 4) AS s FROM notes WHERE notes MATCH 'dogs'")
	rowsAre(t, d.Query("SELECT s FROM found"), `[["lazy [dogs] sleep"]]`)
	d.Must("UPDATE notes SET body = 'gone' WHERE title = 'second'")
	d.Must("INSERT INTO notes(notes) VALUES('optimize')")
	d.Must("CREATE VIRTUAL TABLE boxes USING rtree(id, minx, maxx, miny, maxy)")
	d.Must("INSERT INTO boxes VALUES(1, 0, 10, 0, 10), (2, 20, 30, 20, 30)")
	rowsAre(t, d.Query("SELECT id FROM boxes WHERE minx < 5 AND maxx > 5"), "[[1]]")
	rowsAre(t, d.Query("SELECT json_extract('{\"a\":[1,2]}', '$.a[1]'), '{\"b\":1}' ->> 'b', json_valid('{')"), "[[2,1,0]]")
	rowsAre(t, d.Query("SELECT key, value FROM json_each('{\"x\":1,\"y\":\"z\"}')"), `[["x",1],["y","z"]]`)
	rowsAre(t, d.Query("SELECT typeof(jsonb('[1]')), json(jsonb('[1]'))"), `[["blob","[1]"]]`)
	rowsAre(t, d.Query("SELECT sqrt(16), pow(2, 10), floor(1.5), round(pi(), 2)"), "[[4.0,1024.0,1.0,3.14]]")
	d.Must("CREATE TABLE g(a INTEGER, b INTEGER GENERATED ALWAYS AS (a * 2) VIRTUAL, c TEXT AS ('n' || a) STORED)")
	d.Must("INSERT INTO g(a) VALUES(1),(2),(3)")
	rowsAre(t, d.Query("SELECT a, b, c FROM g WHERE b = 4"), `[[2,4,"n2"]]`)
	d.Must("CREATE TABLE s(id INTEGER PRIMARY KEY, n INT, r REAL, x TEXT, b BLOB, y ANY) STRICT")
	d.Must("INSERT INTO s VALUES(1, 2, 3.5, 'x', x'00', 9)")
	rowsAre(t, d.Query("SELECT a, sum(a) OVER (ORDER BY a), row_number() OVER (ORDER BY a DESC), lag(a) OVER (ORDER BY a) FROM g ORDER BY a"), "[[1,1,3,null],[2,3,2,1],[3,6,1,2]]")
	d.Must("INSERT INTO s(id, n) VALUES(1, 5) ON CONFLICT(id) DO UPDATE SET n = excluded.n + 1")
	rowsAre(t, d.Query("SELECT n FROM s"), "[[6]]")
	d.Must("ALTER TABLE g ADD COLUMN d DEFAULT 5")
	d.Must("ALTER TABLE g RENAME COLUMN d TO e")
	d.Must("ALTER TABLE g RENAME TO h")
	rowsAre(t, d.Query("SELECT e FROM h WHERE a = 1"), "[[5]]")
	rowsAre(t, d.Query("SELECT date('2024-02-29', '+1 year'), strftime('%Y', 0, 'unixepoch')"), `[["2025-03-01","1970"]]`)
	d.Must("DROP TABLE notes")
	d.Must("DROP TABLE boxes")
}
