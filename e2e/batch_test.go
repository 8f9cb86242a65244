package e2e_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

func TestBatch(t *testing.T) {
	row(t, "DP-B-1")
	d := db(t)
	a := d.Batch(false, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)", harness.Body("INSERT INTO t(a) VALUES(?),(?)", "x", "y"),
		body{"sql": "SELECT id, a FROM t WHERE a = :a", "params": body{"a": "y"}}, "DELETE FROM t RETURNING id").OK()
	if got := len(a.List("data")); got != 4 {
		t.Fatalf("%d results of 4 statements: %s", got, a.Raw)
	}
	a.Has("data.0", "columns", "rows", "rowsRead", "rowsWritten", "changes", "lastInsertRowid")
	a.Is("data.1.changes", "2").Is("data.1.lastInsertRowid", "2").Is("data.1.columns", "[]")
	a.Is("data.2.columns", `["id","a"]`).Is("data.2.rows", `[[2,"y"]]`).Is("data.2.changes", "0").Is("data.2.lastInsertRowid", "0")
	a.Is("data.3.rows", "[[1],[2]]").Is("data.3.changes", "2")
	a.Has("meta", "rowsRead", "rowsWritten", "durationMs", "statementCount").Is("meta.statementCount", "4")
	for _, field := range []string{"rowsRead", "rowsWritten"} {
		sum := 0
		for i := range 4 {
			n := 0
			if _, err := fmt.Sscan(harness.Text(a.At(fmt.Sprintf("data.%d.%s", i, field))), &n); err != nil {
				t.Error(err)
			}
			sum += n
		}
		a.Is("meta."+field, fmt.Sprint(sum))
	}
	d.Post(d.Path("batch"), body{"statements": []any{body{"sql": "SELECT 1"}}}).OK() // transaction may be missing
	d.Batch(true, "SELECT 1").OK().Is("data.0.rows", "[[1]]")
}

func TestBatchInATransaction(t *testing.T) {
	row(t, "DP-B-2", "DP-B-4")
	d := db(t)
	d.Must("CREATE TABLE t(a UNIQUE)")
	d.Batch(true, "INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)").OK()
	for i, bad := range []string{"INSERT INTO t VALUES(1)", "SELEC", "SELECT * FROM absent", "INSERT OR ROLLBACK INTO t VALUES(1)", "INSERT OR FAIL INTO t VALUES(8),(1)"} {
		a := d.Batch(true, "INSERT INTO t VALUES(3)", "CREATE TABLE made(a)", bad, "INSERT INTO t VALUES(4)").Fails(http.StatusBadRequest, "")
		a.Is("errorDetail.statementIndex", "2").Is("completed", "[]")
		if got := d.One("SELECT count(*) FROM t"); got != "2" {
			t.Fatalf("case %d left %s rows", i, got)
		}
		d.Query("SELECT * FROM made").Fails(http.StatusBadRequest, "").Kind("unknown_table")
	}
	// A read in a transaction sees what was written before it.
	d.Batch(true, "DELETE FROM t", "SELECT count(*) FROM t").OK().Is("data.1.rows", "[[0]]")

	// A deferred foreign key is judged at the end: the whole batch fails, and no other.
	d.Must("CREATE TABLE p(id INTEGER PRIMARY KEY)")
	d.Must("CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)")
	d.Batch(true, "INSERT INTO c VALUES(1)", "INSERT INTO p VALUES(1)").OK()
	d.Batch(true, "INSERT INTO c VALUES(2)", "INSERT INTO p VALUES(3)").Fails(http.StatusBadRequest, "").Kind("fk_violation")
	if got := d.One("SELECT (SELECT count(*) FROM c) || (SELECT count(*) FROM p)"); got != "11" {
		t.Errorf("the failed batch left %s", got)
	}
}

func TestBatchWithoutTransaction(t *testing.T) {
	row(t, "DP-B-3", "DP-B-4")
	d := db(t)
	d.Must("CREATE TABLE t(a UNIQUE)")
	a := d.Batch(false, "INSERT INTO t VALUES(1)", "SELECT a FROM t", "INSERT INTO t VALUES(2),(1)", "INSERT INTO t VALUES(3)").Fails(http.StatusBadRequest, "")
	a.Kind("unique_violation").Is("errorDetail.statementIndex", "2")
	if got := len(a.List("completed")); got != 2 {
		t.Errorf("%d completed, want 2: %s", got, a.Raw)
	}
	a.Is("completed.0.changes", "1").Is("completed.1.rows", "[[1]]")
	rowsAre(t, d.Query("SELECT a FROM t"), "[[1]]")

	a = d.Batch(false, "SELEC", "INSERT INTO t VALUES(9)").Fails(http.StatusBadRequest, "").Is("errorDetail.statementIndex", "0").Is("completed", "[]")
	a.Kind("syntax_error")
	// A statement of one's own: what a batch made is there for the next statement of it.
	d.Batch(false, "CREATE TABLE made(a)", "INSERT INTO made VALUES(1)", "DROP TABLE made", "CREATE TABLE made(a, b)", "INSERT INTO made VALUES(1, 2)").OK()
	// Wrong parameters are that statement's failure.
	a = d.Batch(false, "INSERT INTO t VALUES(5)", harness.Body("INSERT INTO t VALUES(?)", 1, 2)).Fails(http.StatusBadRequest, "").Kind("too_many_params")
	a.Is("errorDetail.statementIndex", "1")
	if got := d.One("SELECT count(*) FROM t WHERE a = 5"); got != "1" {
		t.Errorf("what ran before the failure: %s", got)
	}
	// A deferred key is judged with its own statement.
	d.Must("CREATE TABLE p(id INTEGER PRIMARY KEY)")
	d.Must("CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)")
	d.Batch(false, "INSERT INTO p VALUES(7)", "INSERT INTO c VALUES(1)", "INSERT INTO p VALUES(1)").Fails(http.StatusBadRequest, "").Kind("fk_violation").Is("errorDetail.statementIndex", "1")
	if got := d.One("SELECT (SELECT count(*) FROM c) || (SELECT count(*) FROM p)"); got != "01" {
		t.Errorf("left %s", got)
	}
}

func TestBatchTransactionStatements(t *testing.T) {
	row(t, "DP-B-5")
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	for _, transaction := range []bool{false, true} {
		for _, sql := range []string{"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "RELEASE step", "ROLLBACK TO step"} {
			d.Batch(transaction, sql, "INSERT INTO t VALUES(1)").Fails(http.StatusBadRequest, "").Is("errorDetail.statementIndex", "0").Tells("transaction")
			d.Batch(transaction, "SELECT 1", sql).Fails(http.StatusBadRequest, "").Is("errorDetail.statementIndex", "1")
		}
	}
	if got := d.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("count is %s", got)
	}
}

func TestBatchSize(t *testing.T) {
	row(t, "DP-B-6", "DP-L-1")
	d := db(t)
	many := make([]any, 101)
	for i := range many {
		many[i] = "SELECT 1"
	}
	d.Batch(false, many[:100]...).OK().Is("meta.statementCount", "100")
	d.Batch(true, many[:100]...).OK()
	d.Batch(false, many...).Fails(http.StatusBadRequest, "").Tells("100")
	d.Batch(true, many...).Fails(http.StatusBadRequest, "").Tells("100")
	d.Batch(false).Fails(http.StatusBadRequest, "bad_request")
	d.Batch(true).Fails(http.StatusBadRequest, "bad_request")
}
