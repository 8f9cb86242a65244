package sqlite_test

import (
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

func TestDropReserved(t *testing.T) {
	c := open(t, sqlite.Config{})
	rows := func(t *testing.T, c *sqlite.Conn, sql string) string {
		t.Helper()
		return must(t, c, sql)[0][0]
	}
	exec := func(sqls ...string) {
		t.Helper()
		for _, sql := range sqls {
			if err := c.Exec(sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	build := func(name string) {
		t.Helper()
		if err := c.CreateReserved("CREATE TABLE " + name + "(a TEXT NOT NULL UNIQUE, b CHECK (b <> '('), c, PRIMARY KEY(b, c), UNIQUE(c, a))"); err != nil {
			t.Fatal(err)
		}
		exec("INSERT INTO " + name + " SELECT 'a' || value, value, hex(randomblob(200)) FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 500) SELECT value FROM n)")
	}
	schema := func() string {
		return rows(t, c, "SELECT group_concat(name, ' ') FROM (SELECT name FROM sqlite_schema ORDER BY name)")
	}
	exec("CREATE TABLE mine(a PRIMARY KEY)", "INSERT INTO mine VALUES('x')", "CREATE INDEX mine_a ON mine(a)")
	was := schema()
	build("sqlite_persql_x_v1")
	build("sqlite_persql_x_v10")
	exec("BEGIN")
	if err := c.DropReserved("sqlite_persql_x_v1"); err != nil {
		t.Fatal(err)
	}
	exec("ROLLBACK")
	if got := rows(t, c, "SELECT count(*) FROM sqlite_persql_x_v1 WHERE a='a7'"); got != "1" {
		t.Errorf("%s rows after the rollback", got)
	}
	for _, name := range []string{"sqlite_persql_x_v1", "sqlite_persql_x_v10"} {
		exec("BEGIN", "SAVEPOINT s")
		if err := c.DropReserved(name); err != nil {
			t.Fatal(err)
		}
		exec("INSERT INTO mine VALUES('"+name+"')", "RELEASE s", "COMMIT")
		if strings.Contains(schema()+" ", name+" ") {
			t.Errorf("the schema is %s", schema())
		}
		if got := rows(t, c, "PRAGMA integrity_check"); got != "ok" {
			t.Errorf("integrity: %s", got)
		}
	}
	if got := schema(); got != was {
		t.Errorf("schema %s, want %s", got, was)
	}
	if err := c.DropReserved("x'; DROP TABLE mine; --"); err == nil {
		t.Error("a name that is none was taken")
	}
	if err := c.Exec("UPDATE sqlite_schema SET name='y'"); err == nil {
		t.Error("the schema is writable afterwards")
	}
}
