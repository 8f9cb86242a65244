package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// The parent's and the child's row have the same rowid: the child's is told.
func TestLastInsertRowidOfTheParent(t *testing.T) {
	row(t, "DP-Q-4")
	d := db(t)
	d.Batch(false, "CREATE TABLE p(id INTEGER PRIMARY KEY, n)", "CREATE TABLE c(id INTEGER PRIMARY KEY, pid)").OK()
	a := d.Batch(false, "INSERT INTO p(n) VALUES('a')", "INSERT INTO c(pid) VALUES(last_insert_rowid())", "SELECT last_insert_rowid()").OK()
	a.Is("data.1.lastInsertRowid", "1").Is("data.1.changes", "1").Is("data.2.rows", "[[1]]")
	a = d.Batch(false, "INSERT INTO p(n) VALUES('a')", "UPDATE c SET pid = last_insert_rowid()", "INSERT OR IGNORE INTO c(id) VALUES(last_insert_rowid() - 1)").OK()
	a.Is("data.1.lastInsertRowid", "0").Is("data.2.lastInsertRowid", "0").Is("data.2.changes", "0")
}

func TestSchemaStatementsChangeNoRows(t *testing.T) {
	row(t, "DP-Q-4")
	d := db(t)
	for _, sql := range []string{"CREATE VIRTUAL TABLE f USING fts5(x)", "CREATE VIRTUAL TABLE r USING rtree(id, a, b)", "CREATE VIEW v AS SELECT 1",
		"CREATE TRIGGER tr AFTER INSERT ON f_docsize BEGIN SELECT 1; END", "ANALYZE", "VACUUM", "DROP TABLE f", "DROP TABLE r"} {
		a := d.Query(sql)
		if a.Status == http.StatusOK {
			a.Is("data.changes", "0").Is("data.lastInsertRowid", "0")
		}
	}
}

// What a batch that ends early tells of what it kept.
func TestBatchTellsWhatItKept(t *testing.T) {
	row(t, "DP-B-3")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MAX_RESULT=1KB"}})
	d := s.Client(t, harness.Token).DB("kept")
	d.Must("CREATE TABLE t(a)")
	many := make([]any, 20)
	for i := range many {
		many[i] = "INSERT INTO t VALUES(1)"
	}
	a := d.Batch(false, many...).Fails(http.StatusRequestEntityTooLarge, "result_too_large")
	if got, want := d.One("SELECT count(*) FROM t"), fmt.Sprint(len(a.List("completed"))); got != want || want == "0" {
		t.Errorf("%s rows are there, %s results were told", got, want)
	}
	a.Is("errorDetail.statementIndex", d.One("SELECT count(*) FROM t"))
	d.Batch(true, many...).Fails(http.StatusRequestEntityTooLarge, "result_too_large").Is("completed", "[]")

	d.Batch(false, "CREATE TABLE p(id INTEGER PRIMARY KEY)", "CREATE TABLE c(p REFERENCES p DEFERRABLE INITIALLY DEFERRED)").OK()
	d.Batch(true, "INSERT INTO c VALUES(2)", "SELECT 1").Fails(http.StatusBadRequest, "").Kind("fk_violation").Is("completed", "[]").Is("errorDetail.statementIndex", "1")
}

// A statement inside of one call of the engine's that nothing interrupts.
const stuck = "SELECT instr(printf('%.*c', 7000000, 'a'), printf('%.*c', 3500000, 'a') || 'b')"

func TestAbandonedBatchAndTermination(t *testing.T) {
	row(t, "DP-B-3")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_STATEMENT_TIMEOUT=300ms"}})
	d := s.Client(t, harness.Token).DB("stuck")
	d.Must("CREATE TABLE t(a)")
	d.Batch(false, "INSERT INTO t VALUES(5)", stuck).Fails(http.StatusRequestTimeout, "statement_timeout").Is("completed", "[]").Is("errorDetail.statementIndex", "1")
	s.Signal(t, syscall.SIGTERM)
	if code := s.Wait(t, 11*time.Second); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

func TestAutoincrementAtItsEnd(t *testing.T) {
	row(t, "DP-E-1")
	d := db(t)
	d.Batch(false, "CREATE TABLE ai(x INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO ai VALUES(9223372036854775807)").OK()
	d.Query("INSERT INTO ai VALUES(NULL)").Fails(http.StatusBadRequest, "sql_error").Tells("AUTOINCREMENT")
}

// A foreign key to one of the server's own tables does the tenant no good, and the server no harm.
func TestForeignKeysToSystemTables(t *testing.T) {
	row(t, "DP-S-1")
	d := db(t)
	d.Query("CREATE TABLE e1(a REFERENCES sqlite_persql_kept_v1)")
	d.Query("CREATE TABLE e2(a REFERENCES sqlite_persql_kept_v1 DEFERRABLE INITIALLY DEFERRED)")
	d.Query("CREATE TABLE e3(a REFERENCES sqlite_persql_notes_v1 DEFERRABLE INITIALLY DEFERRED)")
	d.Must("CREATE TABLE t(a)")
	for range 2 {
		d.Post(d.Path("query"), harness.Body("INSERT INTO t VALUES(1)"), key("k")).OK()
		d.Do("PUT", d.Path("describe"), body{"tables": []any{body{"table": "t", "description": "a table"}}}).OK()
	}
	if got := d.One("SELECT count(*) FROM t"); got != "1" {
		t.Errorf("%s rows, want 1", got)
	}
	for _, sql := range []string{"CREATE VIRTUAL TABLE _persql USING fts5(a)", "CREATE VIRTUAL TABLE _PerSQL USING rtree(a,b,c)", "CREATE TABLE _persql(a)"} {
		d.Query(sql).Fails(http.StatusForbidden, "system_object")
	}
	d.Must("ALTER TABLE t RENAME TO t2")
}

// A replayed failure says when to try again, like the first.
func TestReplayedFailureKeepsRetryAfter(t *testing.T) {
	row(t, "DP-I-1")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MEMORY=32MiB"}})
	d := s.Client(t, harness.Token).DB("again")
	d.Must("CREATE TABLE t(a)")
	k := key("k")
	statements := harness.BatchBody(false, "INSERT INTO t VALUES(1)",
		"SELECT count(*) FROM (SELECT a.x FROM (SELECT randomblob(10000000) x) a, (SELECT randomblob(10000000) x) b, (SELECT randomblob(10000000) y) c ORDER BY 1)")
	first := d.Post(d.Path("batch"), statements, k)
	again := d.Post(d.Path("batch"), statements, k)
	if got, want := again.Header.Get("Retry-After"), first.Header.Get("Retry-After"); got != want {
		t.Errorf("Retry-After %q, the first time %q", got, want)
	}
	if first.Status != http.StatusOK {
		again.Is("error", harness.Text(first.At("error")))
	}
}

// exchange sends bytes as they are and reads one answer; half closes the sending direction before.
func exchange(t testing.TB, url, text string, half bool) (status int, answer string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if half {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// A client that closes its sending direction gets an answer that tells the truth, never an empty 200.
func TestHalfClosedClient(t *testing.T) {
	row(t, "DP-ENV-1")
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	request := func(body string, length int) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", d.Path("query"), d.Token(), length, body)
	}
	slow := `{"sql":"WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c WHERE n<30000000) SELECT count(*) FROM c"}`
	for _, text := range []string{request(slow, len(slow)), request(`{"sql":"SELECT 1"}`, 100)} {
		status, answer := exchange(t, d.URL(), text, true)
		if (status == http.StatusOK) != strings.Contains(answer, `"success":true`) || !strings.HasPrefix(answer, `{"success":`) {
			t.Errorf("status %d, %q", status, answer)
		}
	}
}

// Many clients send all of a request before they read: an early refusal reaches them all the same.
func TestEarlyRefusalReachesTheClient(t *testing.T) {
	row(t, "DP-L-2")
	d := db(t)
	for _, tt := range []struct {
		token  string
		path   string
		length int
		want   int
	}{
		{d.Token(), d.Path("query"), 10_000_001, http.StatusRequestEntityTooLarge},
		{d.Token(), d.Path("query"), 30_000_000, http.StatusRequestEntityTooLarge},
		{"psql_live_p1_nonsense", d.Path("query"), 5_000_000, http.StatusUnauthorized},
		{d.Token(), "/v1/nowhere", 5_000_000, http.StatusNotFound},
	} {
		text := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", tt.path, tt.token, tt.length, strings.Repeat("x", tt.length))
		if status, answer := exchange(t, d.URL(), text, false); status != tt.want {
			t.Errorf("%s, %d bytes: status %d, want %d: %s", tt.path, tt.length, status, tt.want, answer)
		}
	}
}
