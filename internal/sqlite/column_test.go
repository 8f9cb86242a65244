package sqlite_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// one is the first value of the first row.
func one(t *testing.T, c *sqlite.Conn, sql string, params ...sqlite.Param) sqlite.Value {
	t.Helper()
	s, _, err := c.Prepare([]byte(sql), nil)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer s.Done()
	if err := s.Bind(params); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if row, err := s.Step(); err != nil || !row {
		t.Fatalf("%s: %v, %v", sql, row, err)
	}
	v := s.Column(0)
	v.Bytes = []byte(string(v.Bytes))
	return v
}

func TestColumn(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE r(x REAL, n)")
	must(t, c, "INSERT INTO r VALUES(7, 8)")
	for _, test := range []struct {
		sql  string
		want sqlite.Value
	}{
		{"SELECT NULL", sqlite.Value{}},
		{"SELECT 9223372036854775807", sqlite.Value{Kind: sqlite.Integer, Int: math.MaxInt64}},
		{"SELECT -9223372036854775808", sqlite.Value{Kind: sqlite.Integer, Int: math.MinInt64}},
		{"SELECT 9e999", sqlite.Value{Kind: sqlite.Real, Float: math.Inf(1)}},
		{"SELECT x FROM r", sqlite.Value{Kind: sqlite.Real, Float: 7}}, // stored as an integer
		{"SELECT max(x) FROM r", sqlite.Value{Kind: sqlite.Real, Float: 7}},
		{"SELECT x FROM (SELECT x FROM r UNION ALL SELECT 1.5)", sqlite.Value{Kind: sqlite.Real, Float: 7}},
		{"SELECT 'é'", sqlite.Value{Kind: sqlite.Text, Bytes: []byte("é")}},
		{"SELECT ''", sqlite.Value{Kind: sqlite.Text}},
		{"SELECT x''", sqlite.Value{Kind: sqlite.Blob}},
		{"SELECT zeroblob(3)", sqlite.Value{Kind: sqlite.Blob, Bytes: make([]byte, 3)}},
		{"SELECT x'0001'||x'02'", sqlite.Value{Kind: sqlite.Text, Bytes: []byte("\x00\x01\x02")}},
		// The register of a is made text for a||'x'.
		{"SELECT a FROM (SELECT n AS a FROM r UNION ALL SELECT 1) WHERE a||'x' <> ''", sqlite.Value{Kind: sqlite.Integer, Int: 8}},
		{"WITH w(a) AS MATERIALIZED (SELECT n+0 FROM r) SELECT a FROM w WHERE a||'x' LIKE '8%'", sqlite.Value{Kind: sqlite.Integer, Int: 8}},
		{"SELECT a FROM (SELECT n AS a, n||'x' AS b FROM r ORDER BY b)", sqlite.Value{Kind: sqlite.Integer, Int: 8}},
		{"SELECT group_concat(n) FROM r", sqlite.Value{Kind: sqlite.Text, Bytes: []byte("8")}},
	} {
		got := one(t, c, test.sql)
		if got.Kind != test.want.Kind || got.Int != test.want.Int || got.Float != test.want.Float || string(got.Bytes) != string(test.want.Bytes) {
			t.Errorf("%s: got %+v, want %+v", test.sql, got, test.want)
		}
	}
	// Whatever a register went through, its kind is what typeof() says.
	for _, expr := range []string{"a", "a||''", "a+0", "-a", "CAST(a AS TEXT)", "CAST(a AS BLOB)", "a/2", "a*1.0", "coalesce(a,1)", "max(a,1)"} {
		for _, from := range []string{"(SELECT n AS a FROM r UNION ALL SELECT 'z')", "(SELECT x AS a FROM r UNION ALL SELECT 2)", "(SELECT 5 AS a)"} {
			sql := "SELECT " + expr + ", typeof(" + expr + "), a||'-', a FROM " + from + " WHERE a||'x' IS NOT NULL"
			kind := one(t, c, sql).Kind
			if want := must(t, c, "SELECT upper(typeof("+expr+")) FROM "+from)[0][0]; kind.String() != want {
				t.Errorf("%s: got %v, typeof says %s", sql, kind, want)
			}
		}
	}
}

// A file that came from elsewhere may hold its text as UTF-16.
func TestColumnUTF16(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	page := sqlite.EmptyFile()
	page[59] = 2 // text encoding: UTF-16le
	if err := os.WriteFile(path, page, 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, sqlite.Config{Path: path})
	must(t, c, "CREATE TABLE t(a)")
	must(t, c, "INSERT INTO t VALUES(?)", text("aé東🦀"))
	if got := must(t, c, "SELECT a, length(a), (SELECT encoding FROM pragma_encoding) FROM t"); got[0][0] != "aé東🦀" || got[0][1] != "4" || got[0][2] != "UTF-16le" {
		t.Errorf("got %q", got)
	}
}

// The schema may change between Prepare and the first Step of a statement: SQLite compiles it anew.
func TestStatementAfterSchemaChange(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a, b, c)")
	must(t, c, "INSERT INTO t VALUES(1, 2, 3)")
	prepare := func(sql string) *sqlite.Stmt {
		s, _, err := c.Prepare([]byte(sql), nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := prepare("SELECT * FROM t")
	must(t, c, "ALTER TABLE t DROP COLUMN c")
	if row, err := s.Step(); err != nil || !row {
		t.Fatal(row, err)
	}
	if s.Columns() != 2 || s.Column(2).Kind != sqlite.Null || s.Column(1).Int != 2 {
		t.Errorf("%d columns after one was dropped", s.Columns())
	}
	s.Done()

	// What nobody judged is not read: here a column that is new, a view that is another one.
	s = prepare("SELECT * FROM t")
	must(t, c, "ALTER TABLE t ADD COLUMN secret DEFAULT 'x'")
	if _, err := s.Step(); err == nil {
		t.Error("a new column was read without being judged")
	}
	s.Done()
	must(t, c, "CREATE TABLE secrets(a)")
	must(t, c, "CREATE VIEW v AS SELECT a FROM t")
	s = prepare("SELECT a FROM v")
	must(t, c, "DROP VIEW v")
	must(t, c, "CREATE VIEW v AS SELECT a FROM secrets")
	_, err := s.Step()
	if e, ok := err.(*sqlite.Error); !ok || e.Code != sqlite.CodeAuth || e.Offset != -1 {
		t.Errorf("another view was read: %v", err)
	}
	s.Done()
	if _, err := run(t, c, "SELECT a FROM v"); err != nil {
		t.Errorf("prepared anew: %v", err)
	}
}

// LIKE with a bound pattern, and STAT4 with a bound value, are compiled anew when the value is another one.
func TestReoptimised(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a TEXT COLLATE NOCASE, b)")
	must(t, c, "CREATE INDEX ta ON t(a)")
	must(t, c, "CREATE INDEX tb ON t(b)")
	must(t, c, "INSERT INTO t SELECT 'k'||i, i%7=0 FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000) SELECT i FROM n)")
	must(t, c, "ANALYZE")
	for range 3 {
		for _, pattern := range []string{"k19%", "%9", "K1_", ""} {
			n := must(t, c, "SELECT count(*) FROM t WHERE a LIKE ?", text(pattern))[0][0]
			if want := must(t, c, "SELECT count(*) FROM t WHERE +a LIKE '"+pattern+"'")[0][0]; n != want {
				t.Errorf("LIKE %q: %s, want %s", pattern, n, want)
			}
		}
		for b, want := range map[int64]string{0: "1715", 1: "285", 2: "0"} {
			if got := must(t, c, "SELECT count(a) FROM t WHERE b=?", integer(b)); got[0][0] != want {
				t.Errorf("b=%d: %s, want %s", b, got[0][0], want)
			}
		}
	}
}

func TestStepStaysAtTheEnd(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a)")
	s, _, err := c.Prepare([]byte("INSERT INTO t VALUES(1)"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Done()
	for range 3 {
		if row, err := s.Step(); row || err != nil {
			t.Fatal(row, err)
		}
	}
	if got := must(t, c, "SELECT count(*) FROM t"); got[0][0] != "1" {
		t.Errorf("%s rows", got[0][0])
	}
}
