package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

func scratch(t testing.TB, cfg sqlite.Scratch) *sqlite.Conn {
	t.Helper()
	th := sqlite.NewThread()
	c, err := sqlite.OpenScratch(cfg, th)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); th.Close() })
	return c
}

func emptyFile(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestScratchReadOnly(t *testing.T) {
	path := emptyFile(t, "a b?c#d%20.db") // in WAL mode, with a name that a URI would misread
	w := scratch(t, sqlite.Scratch{Path: path})
	must(t, w, "CREATE TABLE t(a)")
	must(t, w, "INSERT INTO t VALUES(7)")
	must(t, w, "PRAGMA journal_mode=WAL")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if before[18] != 2 {
		t.Fatalf("the file's journal mode is %d", before[18])
	}
	c := scratch(t, sqlite.Scratch{Path: path, ReadOnly: true})
	if got := must(t, c, "SELECT a FROM t")[0][0]; got != "7" {
		t.Errorf("read %s", got)
	}
	if _, err := run(t, c, "INSERT INTO t VALUES(8)"); err == nil {
		t.Error("it was written")
	}
	if files, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(files) != 1 {
		t.Errorf("files %v", files)
	}
}

func TestScratchKeepsNothingBeside(t *testing.T) {
	path := emptyFile(t, "x.db")
	c := scratch(t, sqlite.Scratch{Path: path})
	must(t, c, "BEGIN")
	must(t, c, "CREATE TABLE t(a)")
	must(t, c, "ROLLBACK")
	if got := must(t, c, "SELECT count(*) FROM sqlite_schema")[0][0]; got != "0" {
		t.Errorf("after a rollback there are %s objects", got)
	}
	if _, err := run(t, c, "ATTACH ':memory:' AS x"); err == nil {
		t.Error("a file was attached")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(files) != 1 {
		t.Errorf("files %v", files)
	}
	if _, err := sqlite.OpenScratch(sqlite.Scratch{Path: path + "-missing"}, sqlite.NewThread()); err == nil {
		t.Error("a missing file was opened")
	}
}

func TestScratchLimits(t *testing.T) {
	c := scratch(t, sqlite.Scratch{Limits: sqlite.Limits{Length: 100}})
	long := "/*" + strings.Repeat("x", 3_000_000) + "*/ SELECT 1"
	if _, err := run(t, c, long); err != nil {
		t.Errorf("a statement of 3 MB: %v", err)
	}
	if _, err := run(t, c, "SELECT zeroblob(101)"); err == nil {
		t.Error("a value over the limit was made")
	}
}

func TestScratchShadows(t *testing.T) {
	for _, shadows := range []bool{false, true} {
		path := emptyFile(t, "secret.db")
		c := scratch(t, sqlite.Scratch{Path: path, Shadows: shadows})
		must(t, c, "CREATE VIRTUAL TABLE f USING fts5(a)")
		if _, err := run(t, c, "DELETE FROM f_data"); (err == nil) != shadows {
			t.Errorf("shadows %v: %v", shadows, err)
		}
		if got := must(t, c, "SELECT file FROM pragma_database_list")[0][0]; shadows && strings.Contains(got, "secret") {
			t.Errorf("the file's name is told: %s", got)
		}
	}
}

func TestWriteSchema(t *testing.T) {
	c := scratch(t, sqlite.Scratch{Path: emptyFile(t, "x.db")})
	if err := c.CreateReserved("CREATE TABLE sqlite_persql_x(a PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("failed")
	if err := c.WriteSchema(func() error { return failed }); err != failed {
		t.Errorf("%v", err)
	}
	if err := c.WriteSchema(func() error { return c.Exec("DELETE FROM sqlite_schema WHERE tbl_name='sqlite_persql_x'") }); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, c, "SELECT * FROM sqlite_persql_x"); err == nil {
		t.Error("the table is still there")
	}
	for _, sql := range []string{"DELETE FROM sqlite_schema", "PRAGMA writable_schema=ON", "DELETE FROM sqlite_schema"} {
		if _, err := run(t, c, sql); err == nil && strings.HasPrefix(sql, "DELETE") {
			t.Errorf("%s: the schema stays open to writing", sql)
		}
	}
}

// What is left out compiles to nothing, whose length is known, and is asked about each time.
func TestIgnore(t *testing.T) {
	c := open(t, sqlite.Config{})
	asked := 0
	policy := func(a sqlite.Access) error {
		if a.Action == sqlite.Pragma || a.Action == sqlite.Transaction || a.Action == sqlite.CreateTable {
			asked++
			return sqlite.ErrIgnore
		}
		return nil
	}
	for _, sql := range []string{"BEGIN IMMEDIATE", "PRAGMA journal_mode=DELETE", "PRAGMA user_version=7", "COMMIT", "PRAGMA user_version=7"} {
		before := asked
		s, n, err := c.Prepare([]byte(sql+"; SELECT 1"), policy)
		if err != nil || n != len(sql)+1 || s == nil || len(s.Accesses) != 0 {
			t.Fatalf("%s: %v %d %v", sql, s, n, err)
		}
		if row, err := s.Step(); row || err != nil {
			t.Errorf("%s: %v %v", sql, row, err)
		}
		s.Done()
		if asked == before {
			t.Errorf("%s: nobody was asked", sql)
		}
	}
	if c.InTransaction() {
		t.Error("BEGIN began")
	}
	// Another policy gets the statement itself.
	s, _, err := c.Prepare([]byte("PRAGMA user_version=7"), policy)
	if err != nil {
		t.Fatal(err)
	}
	s.Done()
	must(t, c, "PRAGMA user_version=7")
	if got := must(t, c, "PRAGMA user_version")[0][0]; got != "7" {
		t.Errorf("user_version is %s", got)
	}
	var e *sqlite.Error
	if _, _, err := c.Prepare([]byte("CREATE TABLE x(a)"), policy); !errors.As(err, &e) || e.Code != sqlite.CodeAuth {
		t.Errorf("another access: %v", err)
	}
}

func TestShapes(t *testing.T) {
	c := open(t, sqlite.Config{})
	for _, sql := range []string{
		"CREATE TABLE Plain(a)", "CREATE TABLE k(id INTEGER PRIMARY KEY)", "CREATE TABLE d(id INTEGER PRIMARY KEY DESC)", "CREATE TABLE n(id INT PRIMARY KEY)",
		"CREATE TABLE w(a PRIMARY KEY) WITHOUT ROWID", "CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT)", "CREATE VIEW v AS SELECT 1",
		"CREATE VIRTUAL TABLE f USING fts5(a)", "CREATE TABLE plain_data(a)", "CREATE TABLE ÄB(a)",
	} {
		must(t, c, sql)
	}
	got, err := c.Shapes()
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]sqlite.Shape{
		"plain": {Name: "Plain", Rowid: true}, "k": {Name: "k", Rowid: true, Key: true}, "d": {Name: "d", Rowid: true}, "n": {Name: "n", Rowid: true},
		"w": {Name: "w"}, "auto": {Name: "auto", Rowid: true, Key: true, Counting: true}, "f": {Name: "f", Virtual: true},
		"f_data": {Name: "f_data", Shadow: true, Rowid: true, Key: true}, "f_idx": {Name: "f_idx", Shadow: true}, "plain_data": {Name: "plain_data", Rowid: true},
		"Äb": {Name: "ÄB", Rowid: true},
	} {
		if got[key] != want {
			t.Errorf("%s is %+v, want %+v", key, got[key], want)
		}
	}
	for _, key := range []string{"v", "sqlite_master"} {
		if s, ok := got[key]; ok {
			t.Errorf("%s is %+v", key, s)
		}
	}
}
