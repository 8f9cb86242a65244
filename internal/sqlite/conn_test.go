package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// open makes an empty database and opens it.
func open(t testing.TB, cfg sqlite.Config) *sqlite.Conn {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "t.db")
	}
	if _, err := os.Stat(cfg.Path); err != nil {
		if err := os.WriteFile(cfg.Path, sqlite.EmptyFile(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	th := sqlite.NewThread()
	c, err := sqlite.Open(cfg, th)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); th.Close() })
	return c
}

func text(s string) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Text, Bytes: []byte(s)}}
}
func integer(n int64) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Integer, Int: n}}
}

// run runs one statement as a client's and returns its rows, values written as strings.
func run(t testing.TB, c *sqlite.Conn, sql string, params ...sqlite.Param) ([][]string, error) {
	t.Helper()
	s, _, err := c.Prepare([]byte(sql), nil)
	if err != nil {
		return nil, err
	}
	defer s.Done()
	if err := s.Bind(params); err != nil {
		return nil, err
	}
	var rows [][]string
	for {
		ok, err := s.Step()
		if err != nil || !ok {
			return rows, err
		}
		var row []string
		for i := range s.Columns() {
			v := s.Column(i)
			switch v.Kind {
			case sqlite.Integer:
				row = append(row, itoa(v.Int))
			case sqlite.Null:
				row = append(row, "NULL")
			case sqlite.Real:
				row = append(row, "real")
			default:
				row = append(row, string(v.Bytes))
			}
		}
		rows = append(rows, row)
	}
}

func itoa(n int64) string {
	if n < 0 {
		return "-" + itoa(-n)
	}
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

func must(t testing.TB, c *sqlite.Conn, sql string, params ...sqlite.Param) [][]string {
	t.Helper()
	rows, err := run(t, c, sql, params...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return rows
}

func TestEmptyFileIsADatabase(t *testing.T) {
	c := open(t, sqlite.Config{})
	if got := must(t, c, "PRAGMA integrity_check"); got[0][0] != "ok" {
		t.Errorf("integrity_check: %v", got)
	}
	must(t, c, "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
	must(t, c, "INSERT INTO t VALUES(?, ?)", integer(7), text("héllo"))
	if got := must(t, c, "SELECT a, b, NULL, zeroblob(3), 1.5 FROM t"); len(got) != 1 || strings.Join(got[0], "|") != "7|héllo|NULL|\x00\x00\x00|real" {
		t.Errorf("rows: %q", got)
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "locking_mode": "exclusive", "synchronous": "2", "foreign_keys": "1", "page_size": "4096", "encoding": "UTF-8", "max_page_count": strconv.Itoa(sqlite.DefaultPages)} {
		if got := must(t, c, "PRAGMA "+pragma); got[0][0] != want {
			t.Errorf("%s: got %s, want %s", pragma, got[0][0], want)
		}
	}
}

func TestOpenMissing(t *testing.T) {
	th := sqlite.NewThread()
	defer th.Close()
	if _, err := sqlite.Open(sqlite.Config{Path: filepath.Join(t.TempDir(), "none.db")}, th); err == nil {
		t.Fatal("opened a file that is not there")
	}
}

func TestAccesses(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a, b)")
	must(t, c, "CREATE VIEW v AS SELECT a FROM t")
	must(t, c, "CREATE TABLE log(x)")
	must(t, c, "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO log VALUES(new.a); END")
	for sql, want := range map[string][]sqlite.Access{
		"SELECT a FROM v":           {{Action: sqlite.Read, Name: "t", Detail: "a", Schema: "main", By: "v"}, {Action: sqlite.Read, Name: "v", Detail: "a", Schema: "main"}},
		"SELECT count(*) FROM t":    {{Action: sqlite.Read, Name: "t"}, {Action: sqlite.Function, Detail: "count"}},
		"INSERT INTO t VALUES(1,2)": {{Action: sqlite.Insert, Name: "t", Schema: "main"}, {Action: sqlite.Insert, Name: "log", Schema: "main", By: "tr"}},
	} {
		s, _, err := c.Prepare([]byte(sql), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			found := false
			for _, a := range s.Accesses {
				found = found || a == w
			}
			if !found {
				t.Errorf("%s: no access %+v in %+v", sql, w, s.Accesses)
			}
		}
		if want := strings.HasPrefix(sql, "INSERT"); s.Writes != want {
			t.Errorf("%s: writes %v", sql, s.Writes)
		}
		s.Done()
	}
}

func TestPolicyDenies(t *testing.T) {
	c := open(t, sqlite.Config{})
	no := errors.New("not here")
	policy := func(a sqlite.Access) error {
		if a.Action == sqlite.Pragma || a.Action == sqlite.Attach {
			return no
		}
		return nil
	}
	for _, sql := range []string{"PRAGMA journal_mode=DELETE", "ATTACH 'x' AS y"} {
		if _, _, err := c.Prepare([]byte(sql), policy); !errors.Is(err, no) {
			t.Errorf("%s: got %v", sql, err)
		}
	}
	if got := must(t, c, "PRAGMA journal_mode"); got[0][0] != "wal" {
		t.Errorf("journal mode: %v", got)
	}
	dir := t.TempDir()
	if _, err := run(t, c, "VACUUM INTO '"+dir+"/x.db'"); err == nil {
		t.Error("VACUUM INTO wrote a file")
	}
	if _, err := os.Stat(dir + "/x.db"); err == nil {
		t.Error("VACUUM INTO made a file")
	}
}

func TestTail(t *testing.T) {
	c := open(t, sqlite.Config{})
	for sql, want := range map[string]int{"SELECT 1; SELECT 2": 9, "SELECT 1;": 9, " -- c\n ": 7, "": 0, "SELECT ';' ;x": 12} {
		s, n, err := c.Prepare([]byte(sql), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n != want {
			t.Errorf("%q: %d bytes, want %d", sql, n, want)
		}
		if s != nil {
			s.Done()
		}
	}
}

func TestVirtualTablesRun(t *testing.T) {
	c := open(t, sqlite.Config{})
	for _, sql := range []string{
		"CREATE VIRTUAL TABLE f USING fts5(body)",
		"INSERT INTO f VALUES('hello world')",
		"INSERT INTO f(f) VALUES('optimize')",
		"CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
		"INSERT INTO r VALUES(1, 0, 1)",
		"DELETE FROM r",
		"ALTER TABLE f RENAME TO g",
		"UPDATE g SET body='bye' WHERE g MATCH 'hello'",
		"DROP TABLE g",
		"CREATE TABLE a(x)", "ALTER TABLE a ADD COLUMN y", "ALTER TABLE a RENAME COLUMN y TO z", "ALTER TABLE a DROP COLUMN z",
		"CREATE INDEX ai ON a(x)", "REINDEX", "ANALYZE", "DROP INDEX ai", "PRAGMA optimize",
	} {
		must(t, c, sql)
	}
}

func TestVacuum(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a)")
	must(t, c, "INSERT INTO t SELECT randomblob(1000) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) SELECT i FROM n)")
	must(t, c, "DELETE FROM t")
	s, _, err := c.Prepare([]byte("VACUUM"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Vacuum || !s.Writes {
		t.Error("VACUUM is not recognised")
	}
	if err := c.AllowVacuum(func() error { _, err := s.Step(); return err }); err != nil {
		t.Fatal(err)
	}
	s.Done()
	if got := must(t, c, "PRAGMA page_count"); got[0][0] != "2" {
		t.Errorf("pages after vacuum: %v", got)
	}
}

func TestWatchInterrupts(t *testing.T) {
	c := open(t, sqlite.Config{})
	late := errors.New("too late")
	deadline := time.Now().Add(20 * time.Millisecond)
	c.Watch(func() error {
		if time.Now().After(deadline) {
			return late
		}
		return nil
	})
	_, err := run(t, c, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n")
	if !errors.Is(err, late) {
		t.Fatalf("got %v", err)
	}
	if over := time.Since(deadline); over > 100*time.Millisecond {
		t.Errorf("interrupted %v late", over)
	}
}

func TestWAL(t *testing.T) {
	dir := t.TempDir()
	c := open(t, sqlite.Config{Path: filepath.Join(dir, "w.db")})
	must(t, c, "CREATE TABLE t(a)")
	must(t, c, "INSERT INTO t VALUES(1)")
	f, err := os.Open(filepath.Join(dir, "w.db-wal"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := sqlite.NewWALReader(f)
	if err != nil {
		t.Fatal(err)
	}
	n, frames := 0, 0
	for {
		fs, err := r.Next()
		if err != nil {
			break
		}
		n, frames = n+1, frames+len(fs)
	}
	if n != 2 || frames != c.LogFrames() {
		t.Errorf("%d transactions in %d frames, hook says %d", n, frames, c.LogFrames())
	}
	if err := c.Checkpoint(sqlite.CheckpointTruncate); err != nil {
		t.Fatal(err)
	}
	if fi, _ := f.Stat(); fi.Size() != 0 || c.LogFrames() != 0 {
		t.Errorf("log after checkpoint: %d bytes, %d frames", fi.Size(), c.LogFrames())
	}
}

func TestChangeHook(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c AS (b||'!') VIRTUAL)")
	var seen []string
	c.SetChangeHook([]sqlite.ChangeHook{func(ch *sqlite.Change) {
		if ch.Op == sqlite.Delete {
			v, _ := ch.Old(1)
			seen = append(seen, "-"+string(v.Bytes))
			return
		}
		v, _ := ch.New(1)
		seen = append(seen, "+"+string(v.Bytes))
	}})
	must(t, c, "INSERT INTO t(b) VALUES('x'),('y')")
	must(t, c, "DELETE FROM t")
	if got := strings.Join(seen, ""); got != "+x+y-x-y" {
		t.Errorf("changes: %s", got)
	}
}

func TestTable(t *testing.T) {
	tab := &sqlite.Table{Name: "_mem", Columns: "id INTEGER, name TEXT", Rows: func() (sqlite.Rows, error) { return &memRows{}, nil }}
	c := open(t, sqlite.Config{Tables: []*sqlite.Table{tab}})
	if got := must(t, c, "SELECT name FROM _mem WHERE id > 1 ORDER BY id DESC"); len(got) != 2 || got[0][0] != "n3" {
		t.Errorf("rows: %v", got)
	}
	if _, err := run(t, c, "INSERT INTO _mem VALUES(1, 'x')"); err == nil {
		t.Error("wrote a read-only table")
	}
}

type memRows struct{ i int }

func (r *memRows) Next() bool { r.i++; return r.i <= 3 }
func (r *memRows) Column(i int) sqlite.Value {
	if i == 0 {
		return sqlite.Value{Kind: sqlite.Integer, Int: int64(r.i)}
	}
	return sqlite.Value{Kind: sqlite.Text, Bytes: []byte("n" + itoa(int64(r.i)))}
}

func TestBindNamed(t *testing.T) {
	c := open(t, sqlite.Config{})
	named := func(n, v string) sqlite.Param { p := text(v); p.Name = n; return p }
	got := must(t, c, "SELECT :a, @b, $c, :a", named("a", "1"), named("@b", "2"), named("c", "3"))
	if strings.Join(got[0], "") != "1231" {
		t.Errorf("got %v", got)
	}
	for sql, params := range map[string][]sqlite.Param{
		"SELECT :a, :b": {named("a", "1")},
		"SELECT :a":     {named("a", "1"), named("z", "1")},
		"SELECT ?, ?":   {text("1")},
		"SELECT ?":      {text("1"), text("2")},
	} {
		var be *sqlite.BindError
		if _, err := run(t, c, sql, params...); !errors.As(err, &be) {
			t.Errorf("%s: got %v", sql, err)
		}
	}
}

func TestFaultIsRecovered(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a)")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		c.Fault()
	}()
	if err := c.Abandon(); err != nil {
		t.Errorf("abandon: %v", err)
	}
}
