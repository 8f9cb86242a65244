package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

func hintOf(a *harness.Answer) string { return a.Str("errorDetail.hint") + a.Str("hint") }

func TestUniqueViolation(t *testing.T) {
	row(t, "DP-E-1")
	d := db(t)
	d.Must("CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT UNIQUE, a, b, UNIQUE(a, b))")
	d.Must("INSERT INTO users VALUES(1, 'x', 1, 1), (2, 'y', 2, 2)")
	a := d.Query("INSERT INTO users(email) VALUES('x')").Fails(http.StatusBadRequest, "").Kind("unique_violation")
	a.Says("UNIQUE constraint failed: users.email").Is("errorDetail.table", "users").Is("errorDetail.column", "email")
	a.Is("errorDetail.columns", `[{"column":"email","table":"users"}]`)
	if !strings.Contains(hintOf(a), "ON CONFLICT") || !strings.Contains(hintOf(a), "DO UPDATE") {
		t.Errorf("the hint of an INSERT is %q", hintOf(a))
	}
	a = d.Query("UPDATE users SET email = 'x' WHERE id = 2").Fails(http.StatusBadRequest, "").Kind("unique_violation")
	if strings.Contains(hintOf(a), "ON CONFLICT") {
		t.Errorf("the hint of an UPDATE is %q", hintOf(a))
	}
	a = d.Query("INSERT INTO users(a, b) VALUES(1, 1)").Fails(http.StatusBadRequest, "").Kind("unique_violation")
	a.Is("errorDetail.columns.0.column", "a").Is("errorDetail.columns.1.column", "b")
	d.Query("INSERT INTO users(id) VALUES(1)").Fails(http.StatusBadRequest, "").Kind("unique_violation").Is("errorDetail.column", "id")
	d.Must("CREATE TABLE w(k TEXT PRIMARY KEY) WITHOUT ROWID")
	d.Must("INSERT INTO w VALUES('a')")
	d.Query("INSERT INTO w VALUES('a')").Fails(http.StatusBadRequest, "").Kind("unique_violation").Is("errorDetail.table", "w")
}

func TestNotNullViolation(t *testing.T) {
	row(t, "DP-E-2")
	d := db(t)
	d.Must("CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT NOT NULL)")
	d.Query("INSERT INTO users DEFAULT VALUES").Fails(http.StatusBadRequest, "").Kind("not_null_violation").
		Says("NOT NULL constraint failed: users.email").Is("errorDetail.table", "users").Is("errorDetail.column", "email")
}

func TestForeignKeyViolation(t *testing.T) {
	row(t, "DP-E-3", "DP-L-7")
	d := db(t)
	d.Must("CREATE TABLE p(id INTEGER PRIMARY KEY)")
	d.Must("CREATE TABLE c(p INTEGER REFERENCES p(id))")
	d.Query("INSERT INTO c VALUES(1)").Fails(http.StatusBadRequest, "").Kind("fk_violation").Says("FOREIGN KEY constraint failed")
	d.Must("INSERT INTO p VALUES(1)")
	d.Must("INSERT INTO c VALUES(1)")
	d.Query("DELETE FROM p").Fails(http.StatusBadRequest, "").Kind("fk_violation")
}

func TestCheckViolation(t *testing.T) {
	row(t, "DP-E-4")
	d := db(t)
	d.Must("CREATE TABLE t(a CONSTRAINT positive CHECK(a > 0), b)")
	d.Query("INSERT INTO t(a) VALUES(-1)").Fails(http.StatusBadRequest, "").Kind("check_violation").
		Says("CHECK constraint failed: positive").Is("errorDetail.constraint", "positive")
	d.Must("CREATE TRIGGER tr BEFORE INSERT ON t WHEN new.b = 13 BEGIN SELECT RAISE(ABORT, 'thirteen is unlucky'); END")
	d.Query("INSERT INTO t VALUES(1, 13)").Fails(http.StatusBadRequest, "").Kind("check_violation").Says("thirteen is unlucky")
	d.Must("CREATE TRIGGER tr2 BEFORE INSERT ON t WHEN new.b = 14 BEGIN SELECT RAISE(ROLLBACK, 'rolled back'); END")
	d.Query("INSERT INTO t VALUES(1, 14)").Fails(http.StatusBadRequest, "").Kind("check_violation").Says("rolled back")
	d.Must("CREATE TRIGGER tr3 BEFORE INSERT ON t WHEN new.b = 15 BEGIN SELECT RAISE(FAIL, 'failed'); END")
	d.Query("INSERT INTO t VALUES(1, 1),(1, 15)").Fails(http.StatusBadRequest, "").Kind("check_violation").Says("failed")
	if got := d.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("failed statements left %s rows", got)
	}
}

func TestUnknownNames(t *testing.T) {
	row(t, "DP-E-5", "DP-E-6")
	d := db(t)
	d.Must("CREATE TABLE customers(id INTEGER PRIMARY KEY, email TEXT)")
	a := d.Query("SELECT * FROM custmers").Fails(http.StatusBadRequest, "").Kind("unknown_table").Says("no such table: custmers").Is("errorDetail.table", "custmers")
	if !strings.Contains(hintOf(a), "customers") {
		t.Errorf("hint %q", hintOf(a))
	}
	a = d.Query("SELECT emial FROM customers").Fails(http.StatusBadRequest, "").Kind("unknown_column").Says("no such column: emial").Is("errorDetail.column", "emial")
	if !strings.Contains(hintOf(a), "email") {
		t.Errorf("hint %q", hintOf(a))
	}
	d.Query("SELECT c.nme FROM customers c").Fails(http.StatusBadRequest, "").Kind("unknown_column")
	d.Query("INSERT INTO customers(nope) VALUES(1)").Fails(http.StatusBadRequest, "").Kind("unknown_column")
	d.Query("UPDATE customers SET nope = 1").Fails(http.StatusBadRequest, "").Kind("unknown_column")
	d.Query("DELETE FROM nope").Fails(http.StatusBadRequest, "").Kind("unknown_table")
	d.Query("DROP TABLE nope").Fails(http.StatusBadRequest, "").Kind("unknown_table")
	d.Query("INSERT INTO nope VALUES(1)").Fails(http.StatusBadRequest, "").Kind("unknown_table")
	// The hint never names what the server keeps for itself.
	a = d.Query("SELECT * FROM sqlite_persql_note").Fails(a.Status, "")
	if strings.Contains(hintOf(a), "sqlite_persql_notes") {
		t.Errorf("hint %q", hintOf(a))
	}
}

func TestSyntaxError(t *testing.T) {
	row(t, "DP-E-7")
	d := db(t)
	d.Query("SELEC 1").Fails(http.StatusBadRequest, "").Kind("syntax_error").Is("errorDetail.near", "SELEC").Is("errorDetail.offset", "0")
	d.Query("SELECT 1 FORM t").Fails(http.StatusBadRequest, "").Kind("syntax_error").Is("errorDetail.near", "t").Is("errorDetail.offset", "14")
	d.Query("SELECT 'é' FORM t").Fails(http.StatusBadRequest, "").Kind("syntax_error").Is("errorDetail.offset", "17")
	d.Query("SELECT (").Fails(http.StatusBadRequest, "").Kind("syntax_error")
	d.Query("SELECT 'unterminated").Fails(http.StatusBadRequest, "").Kind("syntax_error")
	d.Query("INSERT INTO").Fails(http.StatusBadRequest, "").Kind("syntax_error")
	d.Query("SELECT 1 \x00 garbage").Fails(http.StatusBadRequest, "")

	d.Query("CREATE TABLE limited(id INTEGER PRIMARY KEY, a)").OK()
	d.Query("INSERT INTO limited(a) VALUES(1),(2),(3),(4)").OK()
	for sql, near := range map[string]string{
		"DELETE FROM limited LIMIT 2":                            "LIMIT",
		"delete from limited where a>0 limit 2":                  "limit",
		"UPDATE limited SET a=0 LIMIT 2":                         "LIMIT",
		"DELETE FROM limited ORDER BY a LIMIT 2":                 "ORDER",
		"WITH w AS (SELECT 1) DELETE FROM limited LIMIT 2":       "LIMIT",
		"/* two */ UPDATE limited SET a=0 WHERE id>1 ORDER BY a": "ORDER",
	} {
		a := d.Query(sql).Fails(http.StatusBadRequest, "").Kind("syntax_error").Is("errorDetail.near", near)
		if !strings.Contains(hintOf(a), "WHERE rowid IN (SELECT rowid FROM … LIMIT n)") {
			t.Errorf("%s: hint %q", sql, hintOf(a))
		}
	}
	if a := d.Query("SELECT * FROM limited LIMIT LIMIT").Fails(http.StatusBadRequest, "").Kind("syntax_error"); hintOf(a) != "" {
		t.Errorf("the hint of a SELECT is %q", hintOf(a))
	}
	// What the hint says does it.
	d.Query("DELETE FROM limited WHERE rowid IN (SELECT rowid FROM limited LIMIT 2)").OK().Is("data.changes", "2")
}

func TestTypeMismatch(t *testing.T) {
	row(t, "DP-E-8")
	d := db(t)
	d.Must("CREATE TABLE s(id INTEGER PRIMARY KEY, n INT, x ANY) STRICT")
	d.Query("INSERT INTO s(n) VALUES('word')").Fails(http.StatusBadRequest, "").Kind("type_mismatch").Tells("cannot store TEXT value in INT column s.n")
	d.Must("CREATE TABLE p(id INTEGER PRIMARY KEY)")
	d.Query("INSERT INTO p VALUES('word')").Fails(http.StatusBadRequest, "").Kind("type_mismatch").Says("datatype mismatch")
	d.Query("SELECT ?").Fails(http.StatusBadRequest, "").Kind("type_mismatch")
	d.Query("SELECT ?", []any{1}).Fails(http.StatusBadRequest, "").Kind("type_mismatch")
}

func TestTooManyParams(t *testing.T) {
	row(t, "DP-E-9", "DP-L-2")
	d := db(t)
	d.Query("SELECT 1", 1).Fails(http.StatusBadRequest, "").Kind("too_many_params")
	d.Query("SELECT ?32767").Fails(http.StatusBadRequest, "").Kind("too_many_params")
	params := make([]any, 32_767)
	for i := range params {
		params[i] = 1
	}
	d.Must("SELECT ?32766", params[:32_766]...)
	d.Query("SELECT ?32766", params...).Fails(http.StatusBadRequest, "").Kind("too_many_params").Tells("32766")
}

func TestReadonlyAndUnknown(t *testing.T) {
	row(t, "DP-E-10", "DP-E-11")
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	d.Must("CREATE VIEW v AS SELECT a FROM t")
	if a := d.Query("INSERT INTO v VALUES(1)").Fails(http.StatusBadRequest, ""); a.Str("errorDetail.kind") != "readonly" {
		t.Errorf("a write to a view: %s", a.Raw)
	}
	if a := d.Query("DELETE FROM json_each"); a.Status == http.StatusOK || a.Str("errorDetail.kind") != "readonly" {
		t.Errorf("a write to a table-valued function: %s", a.Raw)
	}
	d.Query("SELECT json('{')").Fails(http.StatusBadRequest, "").Kind("unknown").Says("malformed JSON")
	d.Query("SELECT abs(-9223372036854775808)").Fails(http.StatusBadRequest, "").Kind("unknown").Says("integer overflow")
	d.Query("SELECT nofunction(1)").Fails(http.StatusBadRequest, "").Says("no such function: nofunction")
	d.Query("CREATE TABLE t(a)").Fails(http.StatusBadRequest, "").Tells("already exists")
}
