package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// Statements that virtual tables run on tables of others: they work, and the policy saw what they read.
func TestContentTables(t *testing.T) {
	c := open(t, sqlite.Config{})
	for _, sql := range []string{
		"CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT, secret TEXT)",
		"CREATE VIEW shown AS SELECT id, body FROM docs",
		"CREATE VIRTUAL TABLE f USING fts5(body, content='docs', content_rowid='id')",
		`CREATE VIRTUAL TABLE g USING fts5(body, cont = "shown", content_rowid=id)`,
		"CREATE VIRTUAL TABLE words USING fts5vocab('f', row)",
		"CREATE TRIGGER di AFTER INSERT ON docs BEGIN INSERT INTO f(rowid, body) VALUES(new.id, new.body); END",
		"CREATE TRIGGER dd AFTER DELETE ON docs BEGIN INSERT INTO f(f, rowid, body) VALUES('delete', old.id, old.body); END",
		"INSERT INTO docs(body) VALUES('hello world'), ('good bye')",
		"INSERT INTO f(f) VALUES('rebuild')",
		"INSERT INTO g(g) VALUES('rebuild')",
		"INSERT INTO f(f) VALUES('integrity-check')",
		"PRAGMA integrity_check",
		"DELETE FROM docs WHERE id=2",
	} {
		must(t, c, sql)
	}
	for sql, want := range map[string]string{
		"SELECT highlight(f,0,'<','>') FROM f('hello')": "<hello> world",
		"SELECT body FROM g WHERE g MATCH 'hello'":      "hello world",
		"SELECT term FROM words WHERE doc=1 LIMIT 1":    "hello",
	} {
		if got := must(t, c, sql); len(got) != 1 || got[0][0] != want {
			t.Errorf("%s: %q", sql, got)
		}
	}

	no := errors.New("not this table")
	policy := func(a sqlite.Access) error {
		if a.Action == sqlite.Read && a.Name == "docs" {
			return no
		}
		return nil
	}
	for _, sql := range []string{"SELECT body FROM f", "SELECT count(*) FROM f('hello')", "SELECT term FROM words", "SELECT * FROM g", "INSERT INTO f(f) VALUES('rebuild')"} {
		if _, _, err := c.Prepare([]byte(sql), policy); !errors.Is(err, no) {
			t.Errorf("%s: got %v", sql, err)
		}
		// Nor out of the cache, where the same statement of another caller's stands.
		must(t, c, sql)
		if _, _, err := c.Prepare([]byte(sql), policy); !errors.Is(err, no) {
			t.Errorf("%s, cached: got %v", sql, err)
		}
	}
	// A content table that isn't there is fts5's to complain about.
	must(t, c, "CREATE VIRTUAL TABLE lost USING fts5(body, content='nowhere')")
	if _, err := run(t, c, "SELECT body FROM lost"); err != nil && !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("got %v", err)
	}
	must(t, c, "DROP TABLE lost")
}

// What SQLite's own modules and statements compile while they run is part of what was judged.
func TestWorkInsideStatements(t *testing.T) {
	c := open(t, sqlite.Config{})
	const shape = "'[[0,0],[1,0],[1,1],[0,0]]'"
	for _, sql := range []string{
		"CREATE VIRTUAL TABLE g USING geopoly(name)", "INSERT INTO g(_shape, name) VALUES(" + shape + ", 'x')",
		"SELECT name FROM g WHERE geopoly_overlap(_shape, " + shape + ")", "UPDATE g SET name='y'", "PRAGMA integrity_check",
		"ALTER TABLE g RENAME TO g2", "DELETE FROM g2", "DROP TABLE g2",
		"CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, +note)", "INSERT INTO r VALUES(1, 0, 1, 'n')", "UPDATE r SET note='z', x1=2",
		"SELECT * FROM r WHERE x0>=0", "PRAGMA integrity_check", "PRAGMA quick_check", "SELECT * FROM pragma_integrity_check",
		"ALTER TABLE r RENAME TO r2", "DROP TABLE r2",
		"CREATE VIRTUAL TABLE f USING fts5(a, b, prefix='2 3', columnsize=0, detail=none)", "INSERT INTO f VALUES('x y', 'z')",
		"INSERT INTO f(f, rank) VALUES('pgsz', 512)", "INSERT INTO f(f, rank) VALUES('merge', 8)", "INSERT INTO f(f) VALUES('optimize')", "DELETE FROM f", "DROP TABLE f",
		"CREATE VIRTUAL TABLE cl USING fts5(a, content='', contentless_delete=1)", "INSERT INTO cl(rowid, a) VALUES(1, 'x')", "DELETE FROM cl WHERE rowid=1", "DROP TABLE cl",
		"CREATE TABLE p(id INTEGER PRIMARY KEY, n TEXT)", "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id) ON DELETE CASCADE)",
		"CREATE VIEW v AS SELECT p.n AS n FROM p JOIN c ON c.p=p.id", "CREATE TRIGGER tr AFTER INSERT ON p BEGIN INSERT INTO c(p) VALUES(new.id); END",
		"CREATE INDEX pi ON p(n) WHERE n>'a'", "INSERT INTO p(n) VALUES('x'), ('y')", "DELETE FROM p WHERE n='y'",
		"ALTER TABLE p RENAME COLUMN n TO m", "ALTER TABLE p RENAME TO q", "ALTER TABLE q ADD COLUMN z INT NOT NULL DEFAULT 3 CHECK(z>2)",
		"ALTER TABLE q ADD COLUMN w AS (m||'!')", "ALTER TABLE q DROP COLUMN z", "SELECT n FROM v",
		"ANALYZE", "ANALYZE q", "SELECT * FROM sqlite_stat1", "PRAGMA optimize(-1)", "PRAGMA optimize", "REINDEX pi", "REINDEX q", "REINDEX",
		"PRAGMA foreign_key_check", "PRAGMA table_list", "SELECT * FROM pragma_table_info('q')", "SELECT l.name, x.name FROM pragma_table_list l, pragma_table_xinfo(l.name) x",
		"CREATE TABLE copy AS SELECT * FROM q", "DROP TABLE copy", "DROP VIEW v", "DROP TABLE c", "DROP TABLE q",
	} {
		must(t, c, sql)
	}
}

// A virtual table is connected by the first that looks at it, who may be a pragma's function, within a statement that names no such table.
func TestFirstLook(t *testing.T) {
	for _, sql := range []string{
		"SELECT x.name FROM pragma_table_info('f') x", "SELECT name FROM pragma_table_xinfo('F')", "SELECT name FROM pragma_table_info('r')", "SELECT name FROM pragma_table_info('g')",
		"SELECT name FROM pragma_table_info('e')", "SELECT x.name FROM sqlite_schema m, pragma_table_info(m.name) x", "SELECT l.ncol, x.name FROM pragma_table_list l, pragma_table_xinfo(l.name) x",
		"PRAGMA table_info(f)", "PRAGMA table_xinfo(r)", "PRAGMA table_list",
	} {
		path := filepath.Join(t.TempDir(), "t.db")
		for i, stmts := range [][]string{{"CREATE TABLE src(a)", "CREATE VIRTUAL TABLE f USING fts5(a, b)", "CREATE VIRTUAL TABLE e USING fts5(a, content=src)", "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)", "CREATE VIRTUAL TABLE g USING geopoly(n)"}, {sql}} {
			c := open(t, sqlite.Config{Path: path})
			for _, sql := range stmts {
				if rows := must(t, c, sql); i == 1 && len(rows) == 0 {
					t.Errorf("%s: no rows", sql)
				}
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// EXPLAIN of anything runs nothing, and is judged like the statement itself.
func TestExplain(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a)")
	must(t, c, "INSERT INTO t VALUES(1)")
	for _, sql := range []string{"DELETE FROM t", "INSERT INTO t VALUES(2)", "DROP TABLE t", "CREATE TABLE u(a)", "ALTER TABLE t RENAME TO u", "VACUUM", "VACUUM INTO '/tmp/x'", "ANALYZE", "BEGIN", "PRAGMA user_version=7", "PRAGMA optimize", "SELECT * FROM t"} {
		for _, explain := range []string{"EXPLAIN ", "EXPLAIN QUERY PLAN "} {
			s, _, err := c.Prepare([]byte(explain+sql), nil)
			if err != nil {
				t.Errorf("%s%s: %v", explain, sql, err)
				continue
			}
			if !s.Explain || s.Writes || s.Alters || s.Vacuum {
				t.Errorf("%s%s: %+v", explain, sql, s)
			}
			for more := true; more; {
				if more, err = s.Step(); err != nil {
					t.Errorf("%s%s: %v", explain, sql, err)
				}
			}
			s.Done()
		}
	}
	if got := must(t, c, "SELECT count(*), (SELECT user_version FROM pragma_user_version) FROM t"); got[0][0] != "1" || got[0][1] != "0" || c.InTransaction() {
		t.Errorf("an EXPLAIN ran: %v", got)
	}
	no := errors.New("no")
	if _, _, err := c.Prepare([]byte("EXPLAIN DELETE FROM t"), func(a sqlite.Access) error {
		if a.Action == sqlite.Delete {
			return no
		}
		return nil
	}); !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
}

// No statement of a client's makes a file, even while VACUUM may attach one.
func TestVacuumInto(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a)")
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := c.AllowVacuum(func() error {
		for _, sql := range []string{"VACUUM INTO '" + path + "'", "VACUUM main INTO '" + path[:5] + "'||'" + path[5:] + "'", "VACUUM INTO ?"} {
			var params []sqlite.Param
			if strings.Contains(sql, "?") {
				params = []sqlite.Param{text(path)}
			}
			_, err := run(t, c, sql, params...)
			if err == nil {
				t.Errorf("%s ran", sql)
			}
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s made a file", sql)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Where the file lies is nobody's business.
func TestPathIsHidden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "very-secret.db")
	c := open(t, sqlite.Config{Path: path})
	must(t, c, "CREATE TABLE t(a)")
	for _, sql := range []string{"PRAGMA database_list", "SELECT * FROM pragma_database_list"} {
		if got := must(t, c, sql); len(got) != 1 || got[0][1] != "main" || got[0][2] != "" {
			t.Errorf("%s: %q", sql, got)
		}
	}
	for _, sql := range []string{"ATTACH 'x' AS y", "VACUUM", "SELECT load_extension('x')", "PRAGMA nosuch", "SELECT * FROM sqlite_schema"} {
		rows, err := run(t, c, sql)
		if err != nil && strings.Contains(err.Error(), "secret") || strings.Contains(strings.Join(flat(rows), " "), "secret") {
			t.Errorf("%s: %v %v", sql, rows, err)
		}
	}
	// The name is only needed to open: all that comes later goes on.
	must(t, c, "INSERT INTO t SELECT randomblob(5000) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<100) SELECT i FROM n)")
	if err := c.AllowVacuum(func() error { _, err := run(t, c, "VACUUM"); return err }); err != nil {
		t.Error(err)
	}
	if err := c.Checkpoint(sqlite.CheckpointTruncate); err != nil {
		t.Error(err)
	}
	must(t, c, "DELETE FROM t")
	c.Close()
	if got := must(t, open(t, sqlite.Config{Path: path}), "SELECT count(*) FROM t"); got[0][0] != "0" {
		t.Errorf("rows: %v", got)
	}
}

func flat(rows [][]string) (all []string) {
	for _, r := range rows {
		all = append(all, r...)
	}
	return all
}

func TestTableError(t *testing.T) {
	tab := &sqlite.Table{Name: "_mem", Columns: "id INTEGER", Rows: func() (sqlite.Rows, error) { return nil, errors.New("the log is being rotated") }}
	c := open(t, sqlite.Config{Tables: []*sqlite.Table{tab}})
	for range 3 {
		if _, err := run(t, c, "SELECT * FROM _mem"); err == nil || err.Error() != "read table _mem: the log is being rotated" {
			t.Errorf("got %v", err)
		}
	}
	for _, sql := range []string{"CREATE VIRTUAL TABLE x USING _mem", "DROP TABLE _mem", "DELETE FROM _mem", "ALTER TABLE _mem RENAME TO y", "CREATE INDEX i ON _mem(id)"} {
		if _, err := run(t, c, sql); err == nil {
			t.Errorf("%s ran", sql)
		}
	}
}

// FTS5 writes what a statement put into it when a later one, of other tables, opens a savepoint.
func TestVirtualTableWritesLate(t *testing.T) {
	c := open(t, sqlite.Config{})
	for _, sql := range []string{"CREATE TABLE docs(id INTEGER PRIMARY KEY, body)", "CREATE TABLE tags(id INTEGER PRIMARY KEY, tag)", "CREATE VIRTUAL TABLE f USING fts5(body)",
		"CREATE TRIGGER docs_f AFTER INSERT ON docs BEGIN INSERT INTO f VALUES(new.body); END"} {
		must(t, c, sql)
	}
	for _, first := range []string{"INSERT INTO docs(body) VALUES('a'), ('b')", "INSERT INTO f VALUES('c')"} {
		if err := c.Exec("BEGIN"); err != nil {
			t.Fatal(err)
		}
		must(t, c, first)
		must(t, c, "INSERT INTO tags VALUES(random(), 'a'), (random(), 'b'), (random(), 'c')")
		if err := c.Exec("COMMIT"); err != nil {
			t.Fatal(err)
		}
	}
	if rows := must(t, c, "SELECT count(*) FROM f('a OR b OR c')"); rows[0][0] != "3" {
		t.Errorf("%v found", rows)
	}
}
