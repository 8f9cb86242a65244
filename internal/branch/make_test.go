package branch_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/branch"
	"github.com/persqld/persqld/internal/sqlite"
)

// parent is a schema of all that a tenant can make, with rows; and what is done to it makes a schema's text differ from what was once written.
var parent = []string{
	"CREATE TABLE plain(id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'x', amount REAL CHECK (amount > 0))",
	"CREATE UNIQUE INDEX plain_name ON plain(name COLLATE NOCASE DESC)",
	"CREATE INDEX plain_part ON plain(amount, upper(name)) WHERE amount > 10",
	"CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, of INTEGER REFERENCES plain ON DELETE CASCADE)",
	"INSERT INTO plain VALUES(7, 'seven', 70)",
	"INSERT INTO counted VALUES(40, 7)",
	"CREATE TABLE keyed(a TEXT, b INT, c, PRIMARY KEY(a, b), UNIQUE(c)) WITHOUT ROWID",
	"CREATE INDEX keyed_c ON keyed(c)",
	"CREATE TABLE \"a 'strange' \"\"name\"(\"a b\" TEXT PRIMARY KEY, [c d] UNIQUE, UNIQUE(\"a b\", [c d]))",
	"CREATE TABLE strict(a INT NOT NULL, b ANY, c TEXT GENERATED ALWAYS AS (a || b) STORED) STRICT",
	"INSERT INTO strict(a, b) VALUES(1, 2)",
	"CREATE TABLE altered(a, gone, b)",
	"ALTER TABLE altered DROP COLUMN gone",
	"ALTER TABLE altered ADD COLUMN d DEFAULT 5",
	"ALTER TABLE altered RENAME TO renamed",
	"CREATE TABLE copied AS SELECT * FROM plain",
	"CREATE TABLE dropped(a UNIQUE)",
	"DROP TABLE dropped",
	"CREATE VIRTUAL TABLE words USING fts5(name, content='plain', content_rowid='id')",
	"CREATE VIRTUAL TABLE notes USING fts5(title, body)",
	"INSERT INTO notes VALUES('a', 'b c')",
	"CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)",
	"CREATE VIEW seen AS SELECT p.name, c.id, w.name AS body FROM plain p JOIN counted c ON c.of=p.id LEFT JOIN words w ON w.rowid=p.id",
	"CREATE VIEW lost AS SELECT * FROM nowhere",
	"CREATE TRIGGER after AFTER INSERT ON plain BEGIN INSERT INTO counted(of) VALUES(new.id); INSERT INTO words(rowid, name) VALUES(new.id, new.name); END",
	"CREATE TRIGGER instead INSTEAD OF INSERT ON seen BEGIN INSERT INTO plain(name, amount) VALUES(new.name, 1); END",
	"CREATE TABLE _persql_notes(a)",
	"ANALYZE",
	"PRAGMA user_version=-5",
	"PRAGMA application_id=77",
}

func open(t *testing.T, path string) *sqlite.Conn {
	t.Helper()
	th := sqlite.NewThread()
	c, err := sqlite.OpenScratch(sqlite.Scratch{Path: path}, th)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		th.Close()
	})
	return c
}

// empty is a database without anything.
func empty(t *testing.T) *sqlite.Conn {
	path := filepath.Join(t.TempDir(), "parent.db")
	if _, err := branch.Make(path, branch.Shape{}); err != nil {
		t.Fatal(err)
	}
	return open(t, path)
}

func run(t *testing.T, c *sqlite.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if err := c.Exec(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// rows is what a query gives, a line for each row.
func rows(t *testing.T, c *sqlite.Conn, sql string) string {
	t.Helper()
	var b strings.Builder
	err := c.EachRow(sql, func(s *sqlite.Stmt) error {
		for i := range s.Columns() {
			v := s.Column(i)
			fmt.Fprintf(&b, "%v %d %g %s|", v.Kind, v.Int, v.Float, v.Bytes)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return b.String()
}

// made is a branch of a database.
func made(t *testing.T, of *sqlite.Conn) *sqlite.Conn {
	t.Helper()
	tables, err := of.Shapes()
	if err != nil {
		t.Fatal(err)
	}
	shape, err := branch.Read(tables, of.EachRow)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "branch.db")
	fill, err := branch.Make(path, shape)
	if err != nil {
		t.Fatal(err)
	}
	c := open(t, path)
	if err := fill(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// A branch has the objects of its parent, which work, and none of its rows.
func TestMake(t *testing.T) {
	from := empty(t)
	run(t, from, parent...)
	c := made(t, from)

	const objects = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE '\\_persql%' ESCAPE '\\' AND name NOT LIKE 'sqlite_stat%' ORDER BY name, type"
	if got, want := rows(t, c, objects), rows(t, from, objects); got != want {
		t.Errorf("the branch has\n%s\nand its parent\n%s", got, want)
	}
	const versions = "SELECT * FROM pragma_user_version, pragma_application_id"
	if got, want := rows(t, c, versions), rows(t, from, versions); got != want {
		t.Errorf("versions %s, want %s", got, want)
	}
	sound(t, c)
	for _, table := range []string{"plain", "counted", "keyed", "strict", "renamed", "copied", "notes", "boxes", "sqlite_sequence", `"a 'strange' ""name"`} {
		if got := rows(t, c, "SELECT * FROM "+table); got != "" {
			t.Errorf("%s has rows: %s", table, got)
		}
	}
	// What is done to both has the same effect, once the parent has no rows either.
	run(t, from, "DELETE FROM counted", "DELETE FROM plain", "DELETE FROM strict", "DELETE FROM notes", "DELETE FROM copied", "DELETE FROM sqlite_sequence")
	for _, sql := range []string{
		"INSERT INTO plain(name, amount) VALUES('One', 11), ('two', 12)",
		"INSERT INTO plain(name, amount) VALUES('ONE', 1)", // the same name
		"INSERT INTO plain(name, amount) VALUES('three', 0)",
		"INSERT INTO seen(name) VALUES('three')",
		"INSERT INTO keyed VALUES('b', 1, 2), ('a', 2, 3)",
		"INSERT INTO keyed VALUES('b', 1, 4)",
		"INSERT INTO keyed VALUES('c', 1, 2)",
		"INSERT INTO \"a 'strange' \"\"name\" VALUES('x', 'y')",
		"INSERT INTO \"a 'strange' \"\"name\" VALUES('z', 'y')",
		"INSERT INTO strict(a, b) VALUES(3, 'x')",
		"INSERT INTO strict(a, b) VALUES('no', 'x')",
		"INSERT INTO renamed(a) VALUES(1)",
		"INSERT INTO notes VALUES('t', 'some words')",
		"INSERT INTO boxes VALUES(1, 2, 3)",
		"CREATE TABLE later(a PRIMARY KEY)",
		"ALTER TABLE plain RENAME COLUMN name TO title", // a view is broken
		"DROP VIEW lost",
		"ALTER TABLE plain RENAME COLUMN amount TO total",
		"DROP TABLE keyed",
	} {
		if got, want := fmt.Sprint(c.Exec(sql)), fmt.Sprint(from.Exec(sql)); got != want {
			t.Errorf("%s: %s, and of the parent %s", sql, got, want)
		}
	}
	for _, sql := range []string{
		"SELECT * FROM plain", "SELECT * FROM plain WHERE name='ONE' COLLATE NOCASE", "SELECT total FROM plain WHERE total>10", "SELECT * FROM counted", "SELECT * FROM seen ORDER BY id", "SELECT * FROM renamed", "SELECT * FROM strict",
		"SELECT rowid FROM notes('words')", "SELECT rowid FROM words('two')", "SELECT * FROM boxes WHERE x1>1", "SELECT * FROM sqlite_sequence", "SELECT * FROM later", objects,
	} {
		if got, want := rows(t, c, sql), rows(t, from, sql); got != want {
			t.Errorf("%s: %s, and of the parent %s", sql, got, want)
		}
	}
	sound(t, c)
}

// An empty database, one of a table alone, and a branch of a branch.
func TestMakeSmall(t *testing.T) {
	for _, sql := range []string{"SELECT 1", "CREATE TABLE t(a)", "CREATE VIEW v AS SELECT 1", "CREATE VIRTUAL TABLE f USING fts5(a)"} {
		from := empty(t)
		run(t, from, sql)
		c := made(t, made(t, from))
		const objects = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
		if got, want := rows(t, c, objects), rows(t, from, objects); got != want {
			t.Errorf("%s: the branch has %s, want %s", sql, got, want)
		}
		sound(t, c)
	}
}

// A virtual table whose module refuses what it was declared with.
func TestMakeRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "branch.db")
	fill, err := branch.Make(path, branch.Shape{Objects: []branch.Object{{Type: "table", Name: "f", Table: "f", SQL: "CREATE VIRTUAL TABLE f USING fts5(a, nothing=1)", Virtual: true}}})
	if err != nil {
		t.Fatal(err)
	}
	var refused *branch.ShapeError
	if err := fill(open(t, path)); !errors.As(err, &refused) || !strings.Contains(refused.Err.Error(), "nothing") {
		t.Errorf("got %v", err)
	}
}

// No tree is where the file's lock is.
func TestTreesAroundTheLock(t *testing.T) {
	const lock = 1<<30/sqlite.PageSize + 1
	w := &counter{}
	roots, err := sqlite.WriteTrees(w, make([]sqlite.TreeKind, lock+1))
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(roots, lock) || roots[0] != 2 || roots[lock-3] != lock-1 || roots[lock-2] != lock+1 || roots[lock] != lock+3 {
		t.Errorf("trees from %d over %d and %d to %d", roots[0], roots[lock-3], roots[lock-2], roots[lock])
	}
	if want := int64(lock+3) * sqlite.PageSize; w.n != want {
		t.Errorf("the file has %d bytes, want %d", w.n, want)
	}
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// sound checks that the database is whole.
func sound(t *testing.T, c *sqlite.Conn) {
	t.Helper()
	if got := rows(t, c, "PRAGMA integrity_check"); !strings.Contains(got, " ok|") || strings.Count(got, "\n") != 1 {
		t.Errorf("integrity_check says %s", got)
	}
}
