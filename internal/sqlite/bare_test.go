package sqlite_test

import (
	"fmt"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// A bare statement changes the rows that it names and nothing else, and is nobody else's.
func TestBare(t *testing.T) {
	c := open(t, sqlite.Config{})
	for _, sql := range []string{"CREATE TABLE p(id INTEGER PRIMARY KEY)", "CREATE TABLE c(p REFERENCES p ON DELETE CASCADE)", "CREATE TABLE log(a)",
		"CREATE TRIGGER told AFTER DELETE ON p BEGIN INSERT INTO log VALUES(old.id); END", "INSERT INTO p VALUES(1),(2),(3)", "INSERT INTO c VALUES(1),(2),(3)"} {
		must(t, c, sql)
	}
	const sql = "DELETE FROM p WHERE id=?"
	count := func(table string) (n int64) {
		if err := c.EachRow("SELECT count(*) FROM "+table, func(s *sqlite.Stmt) error { n = s.Column(0).Int; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	wants := func(p, child, log int64) {
		t.Helper()
		if count("p") != p || count("c") != child || count("log") != log {
			t.Errorf("p, c, log: %d, %d, %d, want %d, %d, %d", count("p"), count("c"), count("log"), p, child, log)
		}
	}
	bare, err := c.Bare(sql)
	if err != nil {
		t.Fatal(err)
	}
	id := func(n int64) []sqlite.Param { return []sqlite.Param{integer(n)} }
	if err := bare.Put(id(1)); err != nil {
		t.Fatal(err)
	}
	wants(2, 3, 0)
	// It is compiled again where the schema has changed.
	if err := c.Exec("CREATE TABLE other(a)"); err != nil {
		t.Fatal(err)
	}
	if err := bare.Put(id(2)); err != nil {
		t.Fatal(err)
	}
	bare.Done()
	wants(1, 3, 0)
	whole, err := c.Own(sql)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Done()
	if err := whole.Put(id(3)); err != nil {
		t.Fatal(err)
	}
	wants(0, 2, 1)
}

// What the hook tells of a row's table.
func TestChangeShape(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE r(a, b AS (a+1), c AS (a+2) STORED)")
	must(t, c, "CREATE TABLE w(a, b, c, PRIMARY KEY(c, a)) WITHOUT ROWID")
	must(t, c, "CREATE VIRTUAL TABLE f USING fts5(x)")
	seen := map[string]sqlite.RowShape{}
	c.SetChangeHook([]sqlite.ChangeHook{func(ch *sqlite.Change) { seen[ch.Table] = ch.Shape() }})
	must(t, c, "INSERT INTO r(a) VALUES(1)")
	must(t, c, "INSERT INTO w VALUES(1,2,3)")
	must(t, c, "INSERT INTO f VALUES('x')")
	for table, want := range map[string]string{
		"r": "{[{a false} {b true} {c true}] [] false}", "w": "{[{a false} {b false} {c false}] [2 0] false}", "f_content": "{[{id false} {c0 false}] [] true}",
	} {
		if got := fmt.Sprint(seen[table]); got != want {
			t.Errorf("%s: got %s, want %s", table, got, want)
		}
	}
}
