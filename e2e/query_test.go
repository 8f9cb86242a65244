package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// rowsAre checks a query's rows, written as JSON.
func rowsAre(t testing.TB, a *harness.Answer, want string) {
	t.Helper()
	if got := harness.Text(a.OK().At("data.rows")); got != want {
		t.Errorf("%s: rows %s, want %s", a.What, got, want)
	}
}

func TestPositionalParameters(t *testing.T) {
	row(t, "DP-Q-1")
	d := db(t)
	rowsAre(t, d.Query("SELECT 1"), "[[1]]")
	rowsAre(t, d.Post(d.Path("query"), body{"sql": "SELECT 1", "params": nil}), "[[1]]")
	rowsAre(t, d.Post(d.Path("query"), body{"sql": "SELECT 1", "params": []any{}}), "[[1]]")
	rowsAre(t, d.Query("SELECT ?, ?", 1, "b"), `[[1,"b"]]`)
	rowsAre(t, d.Query("SELECT ?2, ?1, ?2", 1, "b"), `[["b",1,"b"]]`)
	rowsAre(t, d.Query("SELECT ?1, ?", 1, 2), `[[1,2]]`)
}

func TestNamedParameters(t *testing.T) {
	row(t, "DP-Q-2")
	d := db(t)
	for _, params := range []string{`{"a":1,"b":"x"}`, `{":a":1,":b":"x"}`, `{"b":"x",":a":1}`} {
		rowsAre(t, d.Post(d.Path("query"), harness.Raw(`{"sql":"SELECT :a, :b, :a","params":`+params+`}`)), `[[1,"x",1]]`)
	}
	rowsAre(t, d.Post(d.Path("query"), body{"sql": "SELECT @a, $b, :c", "params": body{"a": 1, "b": 2, "c": 3}}), `[[1,2,3]]`)
	rowsAre(t, d.Post(d.Path("query"), body{"sql": "SELECT @a, $b", "params": body{"@a": 1, "$b": 2}}), `[[1,2]]`)
	d.Post(d.Path("query"), body{"sql": "SELECT :a, :b", "params": body{"a": 1}}).Fails(http.StatusBadRequest, "").Kind("type_mismatch").Tells("b")
	d.Post(d.Path("query"), body{"sql": "SELECT :a", "params": body{"a": 1, "zz": 2}}).Fails(http.StatusBadRequest, "").Kind("too_many_params").Tells("zz")
}

func TestQueryShape(t *testing.T) {
	row(t, "DP-Q-3", "DP-Q-6", "DP-Q-10")
	d := db(t)
	d.Must("CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT)")
	w := d.Must("INSERT INTO users VALUES(42, 'ada@example.com')")
	w.Is("data.changes", "1").Is("data.lastInsertRowid", "42")
	a := d.Must("SELECT id, email FROM users")
	a.Has("data", "columns", "rows", "rowsRead", "rowsWritten", "changes", "lastInsertRowid", "meta")
	a.Is("data.columns", `["id","email"]`).Is("data.rows", `[[42,"ada@example.com"]]`).Is("data.changes", "0").Is("data.lastInsertRowid", "0")
	for _, meta := range []string{"data.meta", "meta"} {
		a.Has(meta, "rowsRead", "rowsWritten", "durationMs", "statementCount").Is(meta+".statementCount", "1")
		a.Is(meta+".rowsRead", harness.Text(a.At("data.rowsRead"))).Is(meta+".rowsWritten", "0")
	}
	a.Is("data.rowsRead", "1")
	if got := harness.Text(w.At("data.rowsWritten")); got == "0" {
		t.Error("an INSERT has rowsWritten 0")
	}
	d.Must("SELECT 1 AS a, 2 AS a, 3 AS \"\", 4 AS \"a\"").Is("data.columns", `["a","a","","a"]`)
	d.Must("SELECT 1 AS \"sp ace\", 2 AS \"quo\"\"te\"").Is("data.columns", `["sp ace","quo\"te"]`)
}

func TestChanges(t *testing.T) {
	row(t, "DP-Q-4", "DP-Q-5")
	d := db(t)
	steps := []struct{ sql, columns, rows, changes, rowid string }{
		{"CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "[]", "[]", "0", "0"},
		{"INSERT INTO t(a) VALUES(1),(2),(3)", "[]", "[]", "3", "3"},
		{"SELECT count(*) FROM t", `["count(*)"]`, "[[3]]", "0", "0"},
		{"CREATE INDEX i ON t(a)", "[]", "[]", "0", "0"},
		{"UPDATE t SET a = a + 1 WHERE id > 1", "[]", "[]", "2", "0"},
		{"UPDATE t SET a = 0 WHERE id = 99", "[]", "[]", "0", "0"},
		{"INSERT INTO t(id) VALUES(7) RETURNING id, a", `["id","a"]`, "[[7,null]]", "1", "7"},
		{"INSERT OR IGNORE INTO t(id) VALUES(7)", "[]", "[]", "0", "0"},
		{"DELETE FROM t WHERE id = 7 RETURNING id", `["id"]`, "[[7]]", "1", "0"},
		{"DELETE FROM t", "[]", "[]", "3", "0"},
		{"INSERT INTO t(id) VALUES(0)", "[]", "[]", "1", "0"},
		{"INSERT INTO t(id) VALUES(-5)", "[]", "[]", "1", "-5"},
		{"CREATE TABLE log(x)", "[]", "[]", "0", "0"},
		{"CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO log VALUES(1),(2); END", "[]", "[]", "0", "0"},
		{"INSERT INTO t(id) VALUES(11)", "[]", "[]", "1", "11"},
		{"CREATE TABLE w(k TEXT PRIMARY KEY) WITHOUT ROWID", "[]", "[]", "0", "0"},
		{"INSERT INTO w VALUES('a'),('b')", "[]", "[]", "2", "0"},
		{"REPLACE INTO w VALUES('a')", "[]", "[]", "1", "0"},
		{"DROP TABLE w", "[]", "[]", "0", "0"},
		{"SELECT 1", `["1"]`, "[[1]]", "0", "0"},
		{"SELECT 1 WHERE 0", `["1"]`, "[]", "0", "0"},
	}
	for _, s := range steps {
		a := d.Must(s.sql)
		a.Is("data.columns", s.columns).Is("data.rows", s.rows).Is("data.changes", s.changes).Is("data.lastInsertRowid", s.rowid)
	}
}

func TestOneStatement(t *testing.T) {
	row(t, "DP-Q-7")
	d := db(t)
	d.Must("CREATE TABLE t(a);")
	for _, sql := range []string{"SELECT 1;", "SELECT 1 ; ; ", " \n\t SELECT 1", "-- why\nSELECT 1", "/* why; */ SELECT 1 /* ; */ -- ;", "SELECT 1;;", "SELECT 1; -- end", "SELECT 1; /* end", ";SELECT 1"} {
		rowsAre(t, d.Query(sql), "[[1]]")
	}
	rowsAre(t, d.Query("SELECT ';', '-- no', \"a;b\" FROM (SELECT 1 AS \"a;b\")"), `[[";","-- no",1]]`)
	for _, sql := range []string{"INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)", "INSERT INTO t VALUES(1);SELEC", "INSERT INTO t VALUES(1); -- x\n DROP TABLE t", "INSERT INTO t VALUES(1);\x01"} {
		d.Query(sql).Fails(http.StatusBadRequest, "").Kind("syntax_error").Tells("batch")
	}
	if got := d.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("a refused call left %s rows", got)
	}
	d.Must("CREATE TRIGGER tr AFTER INSERT ON t BEGIN UPDATE t SET a = a + 1; DELETE FROM t WHERE a > 5; SELECT CASE WHEN 1 THEN 2 END; END;")
	d.Must("INSERT INTO t VALUES(1)")
	if got := d.One("SELECT a FROM t"); got != "2" {
		t.Errorf("the trigger left %s", got)
	}
	for _, sql := range []string{"", "   ", "-- nothing", ";", "/* nothing */"} {
		d.Query(sql).Fails(http.StatusBadRequest, "")
	}
	d.Batch(false, body{"sql": "CREATE TRIGGER tr2 AFTER DELETE ON t BEGIN SELECT 1; SELECT 2; END"}, "SELECT 1; SELECT 2").Fails(http.StatusBadRequest, "").Kind("syntax_error").Is("errorDetail.statementIndex", "1")
}

func TestTransactionStatements(t *testing.T) {
	row(t, "DP-Q-8")
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	for _, sql := range []string{"BEGIN", "begin immediate", "BEGIN EXCLUSIVE TRANSACTION", "COMMIT", "END", "END TRANSACTION", "ROLLBACK", "SAVEPOINT x", "RELEASE x", "RELEASE request", "ROLLBACK TO x", "ROLLBACK TO request", "/**/BEGIN;"} {
		d.Query(sql).Fails(http.StatusBadRequest, "").Tells("batch", "transaction")
		d.Must("INSERT INTO t VALUES(1)")
	}
	if got := d.One("SELECT count(*) FROM t"); got != "13" {
		t.Errorf("count is %s, want 13", got)
	}
}

func TestFailedStatementChangesNothing(t *testing.T) {
	row(t, "DP-Q-9")
	d := db(t)
	d.Must("CREATE TABLE t(a UNIQUE, b CHECK(b < 10))")
	d.Must("CREATE TABLE r(a UNIQUE ON CONFLICT ROLLBACK, f UNIQUE ON CONFLICT FAIL)")
	d.Must("INSERT INTO t VALUES(1, 1)")
	d.Must("INSERT INTO r VALUES(1, 1)")
	for _, sql := range []string{
		"INSERT INTO t VALUES(2,2),(1,1)", "INSERT OR FAIL INTO t VALUES(2,2),(3,3),(1,1)", "INSERT OR ROLLBACK INTO t VALUES(2,2),(1,1)",
		"UPDATE t SET a = 9 RETURNING json('{')",
		"INSERT INTO t VALUES(5, 5),(6, 60)", "INSERT INTO r VALUES(2,2),(1,3)", "INSERT INTO r VALUES(2,2),(3,1)",
	} {
		if a := d.Query(sql); a.Status == http.StatusOK {
			t.Errorf("%s succeeded", sql)
		}
		if got := d.One("SELECT (SELECT count(*) FROM t) || ' ' || (SELECT count(*) FROM r)"); got != "1 1" {
			t.Fatalf("%s left %s rows", sql, got)
		}
	}

	// Many at a time, so that they share groups: nobody loses a row by another's ROLLBACK.
	const workers, each = 16, 25
	lost := make(chan string, workers*each)
	parallel(t, workers, func(worker int) {
		for i := range each {
			key := worker*1000 + i + 100
			if worker%2 == 0 {
				a, err := d.Try(http.MethodPost, d.Path("query"), harness.Body("INSERT INTO r VALUES(?, ?)", key, key))
				if err != nil || a.Status != http.StatusOK {
					lost <- "an innocent INSERT failed"
				}
				continue
			}
			a, err := d.Try(http.MethodPost, d.Path("query"), harness.Body("INSERT OR ROLLBACK INTO r VALUES(?, ?),(1,1)", key, key))
			if err != nil || a.Status != http.StatusBadRequest {
				lost <- "a conflict didn't fail"
			}
		}
	})
	close(lost)
	for m := range lost {
		t.Error(m)
	}
	if got := d.One("SELECT count(*) FROM r"); got != "201" {
		t.Errorf("count is %s, want 201", got)
	}
}

func TestLongAndOddTexts(t *testing.T) {
	d := db(t)
	long := strings.Repeat("é", 200_000)
	if got := d.One("SELECT length(?)", long); got != "200000" {
		t.Errorf("length is %s", got)
	}
	for _, s := range []string{"", "\x00", "a\x00b", "\u2028", "</script>", "\"\\/\b\f\n\r\t", "😀", "\U0010ffff", "\ufeffbom", "\x7f", "\u0001"} {
		rowsAre(t, d.Query("SELECT ?", s), "[["+quoted(s)+"]]")
	}
}

// quoted is s as a JSON string.
func quoted(s string) string {
	list := harness.Text([]any{s})
	return list[1 : len(list)-1]
}
