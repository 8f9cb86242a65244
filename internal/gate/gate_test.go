package gate_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
)

// open is a database with a little of everything, and the server's own table in it.
func open(t testing.TB) *sqlite.Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "t.db")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	th := sqlite.NewThread()
	log := &sqlite.Table{Name: gate.QueryLogTable, Columns: "id TEXT", Rows: func() (sqlite.Rows, error) { return none{}, nil }}
	c, err := sqlite.Open(sqlite.Config{Path: path, Tables: []*sqlite.Table{log}}, th)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); th.Close() })
	if err := c.CreateReserved("CREATE TABLE sqlite_persql_kept_v1(a UNIQUE)"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT)", "CREATE INDEX ta ON t(a)", "CREATE VIEW v AS SELECT a FROM t",
		"INSERT INTO t(a) VALUES('x')", "ANALYZE",
	} {
		if err := c.Exec(sql); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

type none struct{}

func (none) Next() bool              { return false }
func (none) Column(int) sqlite.Value { return sqlite.Value{} }

var admin = gate.Gate{Caller: gate.Caller{Role: gate.RoleAdmin}}

// run sends a statement through the gate, and runs it if it may.
func run(c *sqlite.Conn, g *gate.Gate, sql string) error {
	s, _, err := c.Prepare([]byte(sql), g.Permit)
	if err != nil {
		return err
	}
	defer s.Done()
	if err := g.Judge(s); err != nil {
		return err
	}
	step := func() error {
		for {
			row, err := s.Step()
			if err != nil || !row {
				return err
			}
		}
	}
	if s.Vacuum {
		return c.AllowVacuum(step)
	}
	return step()
}

func refusal(err error) string {
	var r *gate.Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// allowedPragmas is the contract's list.
var allowedPragmas = strings.Fields(`table_info table_xinfo table_list index_list index_info index_xinfo foreign_key_list foreign_key_check
	integrity_check quick_check data_version page_size page_count freelist_count encoding user_version application_id compile_options function_list
	collation_list pragma_list database_list optimize defer_foreign_keys`)

func TestEveryPragma(t *testing.T) {
	c := open(t)
	var names []string
	s, err := c.Own("SELECT name FROM pragma_pragma_list")
	if err != nil {
		t.Fatal(err)
	}
	for {
		row, err := s.Step()
		if err != nil {
			t.Fatal(err)
		}
		if !row {
			break
		}
		names = append(names, string(s.Column(0).Bytes))
	}
	s.Done()
	if len(names) < 60 {
		t.Fatalf("SQLite names %d pragmas only", len(names))
	}
	batch := admin
	batch.Batch = true
	for _, name := range names {
		allowed := strings.Contains(" "+strings.Join(allowedPragmas, " ")+" ", " "+name+" ")
		err := run(c, &batch, "PRAGMA "+strings.ToUpper(name))
		if got := refusal(err) == ""; got != allowed {
			t.Errorf("PRAGMA %s: %v", name, err)
		}
		if !allowed {
			if err := run(c, &batch, "PRAGMA main."+name+"=1"); refusal(err) != gate.CodePragma {
				t.Errorf("PRAGMA %s=1: %v", name, err)
			}
		}
		// As a function: those without rows are none, and SQLite says so.
		err = run(c, &batch, "SELECT * FROM Pragma_"+name)
		if !allowed && err == nil {
			t.Errorf("pragma_%s is readable", name)
		}
		if allowed && refusal(err) != "" && name != "optimize" && name != "defer_foreign_keys" {
			t.Errorf("pragma_%s: %v", name, err)
		}
	}
	for _, sql := range []string{"PRAGMA encoding='UTF-16'", "PRAGMA page_size=512", "PRAGMA data_version=3", "PRAGMA defer_foreign_keys=ON"} {
		if err := run(c, &admin, sql); refusal(err) != gate.CodePragma {
			t.Errorf("%s: %v", sql, err)
		}
	}
	for _, sql := range []string{"PRAGMA user_version=7", "PRAGMA application_id=7", "PRAGMA table_info(t)"} {
		if err := run(c, &admin, sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	for sql, want := range map[string]string{
		"ATTACH '" + dir + "/x.db' AS x":              gate.CodeAttach,
		"ATTACH ':memory:' AS x":                      gate.CodeAttach,
		"DETACH main":                                 gate.CodeAttach,
		"VACUUM INTO '" + dir + "/y.db'":              gate.CodeAttach,
		"VACUUM main INTO ('" + dir + "' || '/y.db')": gate.CodeAttach,
		"BEGIN":                               gate.CodeTransaction,
		"BEGIN EXCLUSIVE":                     gate.CodeTransaction,
		"COMMIT":                              gate.CodeTransaction,
		"END":                                 gate.CodeTransaction,
		"ROLLBACK":                            gate.CodeTransaction,
		"SAVEPOINT request":                   gate.CodeTransaction,
		"RELEASE request":                     gate.CodeTransaction,
		"ROLLBACK TO request":                 gate.CodeTransaction,
		"EXPLAIN BEGIN":                       gate.CodeTransaction,
		"CREATE TEMP TABLE x(a)":              gate.CodeTemp,
		"CREATE TEMPORARY VIEW x AS SELECT 1": gate.CodeTemp,
		"CREATE TABLE temp.x(a)":              gate.CodeTemp,
		`CREATE TABLE "TEMP".x(a)`:            gate.CodeTemp,
		"CREATE VIEW temp.x AS SELECT 1":      gate.CodeTemp,
		"CREATE TRIGGER temp.x AFTER INSERT ON t BEGIN SELECT 1; END":     gate.CodeTemp,
		"CREATE VIRTUAL TABLE temp.x USING fts5(a)":                       gate.CodeTemp,
		"SELECT * FROM sqlite_temp_schema":                                gate.CodeTemp,
		"SELECT load_extension('x')":                                      gate.CodeFunction,
		"CREATE VIRTUAL TABLE x USING dbstat":                             gate.CodeModule,
		"SELECT * FROM sqlite_dbpage":                                     gate.CodeSystem,
		"SELECT * FROM dbstat":                                            gate.CodeSystem,
		"SELECT * FROM sqlite_persql_kept_v1":                             gate.CodeSystem,
		"SELECT 1 FROM main.SQLite_Persql_Kept_V1":                        gate.CodeSystem,
		"SELECT 1 WHERE EXISTS (SELECT 1 FROM [sqlite_persql_kept_v1])":   gate.CodeSystem,
		"SELECT (SELECT count(*) FROM sqlite_persql_kept_v1)":             gate.CodeSystem,
		"WITH x AS (SELECT * FROM sqlite_persql_kept_v1) SELECT * FROM x": gate.CodeSystem,
		"INSERT INTO sqlite_persql_kept_v1 VALUES(1)":                     gate.CodeSystem,
		"UPDATE sqlite_persql_kept_v1 SET a=2":                            gate.CodeSystem,
		"DELETE FROM sqlite_persql_kept_v1":                               gate.CodeSystem,
		"INSERT INTO t(a) SELECT a FROM sqlite_persql_kept_v1":            gate.CodeSystem,
		"CREATE TABLE c AS SELECT * FROM sqlite_persql_kept_v1":           gate.CodeSystem,
		"CREATE TABLE _persql_x(a)":                                       gate.CodeSystem,
		"CREATE TABLE _PERSQL_x(a)":                                       gate.CodeSystem,
		`CREATE VIEW "_persql_x" AS SELECT 1`:                             gate.CodeSystem,
		"CREATE INDEX _persql_x ON t(a)":                                  gate.CodeSystem,
		"CREATE TRIGGER _persql_x AFTER INSERT ON t BEGIN SELECT 1; END":  gate.CodeSystem,
		"CREATE VIRTUAL TABLE _persql_x USING fts5(a)":                    gate.CodeSystem,
	} {
		c := open(t)
		err := run(c, &admin, sql)
		if got := refusal(err); got != want {
			t.Errorf("%s: got %q (%v), want %q", sql, got, err, want)
		}
	}
	for _, name := range []string{"x.db", "y.db"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

// What the engine itself refuses, so that the gate need not.
func TestRefusedByTheEngine(t *testing.T) {
	c := open(t)
	for _, sql := range []string{
		"INSERT INTO sqlite_schema VALUES('table','x','x',0,'CREATE TABLE x(a)')", "UPDATE sqlite_master SET sql=''", "DELETE FROM sqlite_schema",
		"CREATE TABLE sqlite_x(a)", "ALTER TABLE t RENAME TO sqlite_x", "DROP TABLE sqlite_persql_kept_v1", "CREATE INDEX i ON sqlite_persql_kept_v1(a)",
		"CREATE TRIGGER i AFTER INSERT ON sqlite_persql_kept_v1 BEGIN SELECT 1; END", "ALTER TABLE sqlite_persql_kept_v1 RENAME TO mine",
		"INSERT INTO " + gate.QueryLogTable + " VALUES('x')",
	} {
		if err := run(c, &admin, sql); err == nil {
			t.Errorf("%s ran", sql)
		}
	}
}

// A view or trigger that was made over a system table must not open it.
func TestNoWayRound(t *testing.T) {
	c := open(t)
	for _, sql := range []string{
		"CREATE VIEW peek AS SELECT * FROM sqlite_persql_kept_v1",
		"CREATE TRIGGER peek2 AFTER INSERT ON t BEGIN DELETE FROM sqlite_persql_kept_v1; END",
	} {
		_ = run(c, &admin, sql) // SQLite looks into neither before it is used
	}
	for _, sql := range []string{"SELECT * FROM peek", "SELECT count(*) FROM peek"} {
		if err := run(c, &admin, sql); err == nil {
			t.Errorf("%s ran", sql)
		}
	}
	before := must(t, c, "SELECT count(*) FROM sqlite_persql_kept_v1")
	_ = run(c, &admin, "INSERT INTO t(a) VALUES('y')")
	if after := must(t, c, "SELECT count(*) FROM sqlite_persql_kept_v1"); after != before {
		t.Errorf("a trigger changed a system table: %d rows, then %d", before, after)
	}
}

func must(t testing.TB, c *sqlite.Conn, sql string) (n int64) {
	t.Helper()
	s, err := c.Own(sql)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Done()
	if _, err := s.Step(); err != nil {
		t.Fatal(err)
	}
	return s.Column(0).Int
}

func TestAllowed(t *testing.T) {
	c := open(t)
	for _, sql := range []string{
		"SELECT * FROM sqlite_schema", "SELECT * FROM sqlite_master", "SELECT * FROM sqlite_sequence", "UPDATE sqlite_sequence SET seq=9",
		"SELECT * FROM sqlite_stat1", "DELETE FROM sqlite_stat1", "SELECT * FROM " + gate.QueryLogTable, "SELECT * FROM v",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<9) SELECT sum(i) FROM n",
		"INSERT INTO t(a) VALUES('z') ON CONFLICT DO UPDATE SET a='w' RETURNING *", "EXPLAIN QUERY PLAN SELECT * FROM t",
		"CREATE TABLE n(a REFERENCES t(id), b AS (a+1), CHECK(a>0)) STRICT", "CREATE TABLE n2(a)", "ALTER TABLE n2 ADD COLUMN b", "ALTER TABLE n2 RENAME COLUMN b TO c",
		"ALTER TABLE n2 DROP COLUMN c", "ALTER TABLE n2 RENAME TO n3", "DROP TABLE n3", "CREATE VIRTUAL TABLE f USING fts5(a)", "INSERT INTO f VALUES('x')",
		"SELECT highlight(f,0,'<','>') FROM f('x')", "DROP TABLE f", "CREATE VIRTUAL TABLE r USING rtree(id,a,b)", "DROP TABLE r", "REINDEX", "ANALYZE", "PRAGMA optimize", "VACUUM",
		"SELECT * FROM json_each('[1]')", "SELECT * FROM pragma_table_info('t')",
	} {
		if err := run(c, &admin, sql); err != nil && !strings.Contains(err.Error(), "missing datatype") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestUnknownRole(t *testing.T) {
	c := open(t)
	for _, role := range []string{"", "owner", "ADMIN", "read only"} {
		g := gate.Gate{Caller: gate.Caller{Role: role}}
		if err := run(c, &g, "SELECT 1"); refusal(err) != gate.CodeRole {
			t.Errorf("role %q: %v", role, err)
		}
	}
	// The verdict of one caller is not another's.
	if err := run(c, &admin, "SELECT 2"); err != nil {
		t.Fatal(err)
	}
	if err := run(c, &gate.Gate{}, "SELECT 2"); refusal(err) != gate.CodeRole {
		t.Errorf("cached statement: %v", err)
	}
}
