package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// An index of a virtual table that doesn't fit its content is the tenant's to mend, not a damaged file.
func TestFTS5OutOfStep(t *testing.T) {
	row(t, "DP-E-1")
	d := db(t)
	d.Batch(false, "CREATE TABLE c(id INTEGER PRIMARY KEY, a)", "CREATE VIRTUAL TABLE f USING fts5(a, content=c, content_rowid=id)",
		"INSERT INTO c VALUES(1, 'hello')", "INSERT INTO f(f) VALUES('rebuild')", "DELETE FROM c WHERE id = 1").OK()
	d.Query("SELECT * FROM f WHERE f MATCH 'hello'").Fails(http.StatusBadRequest, "sql_error").Tells("rebuild")
	d.Query("INSERT INTO f(f, rank) VALUES('integrity-check', 1)").Fails(http.StatusBadRequest, "sql_error")
	d.Must("INSERT INTO f(f) VALUES('rebuild')")
	rowsAre(t, d.Query("SELECT * FROM f WHERE f MATCH 'hello'"), "[]")
}

func TestRTreeConstraints(t *testing.T) {
	row(t, "DP-E-1")
	d := db(t)
	d.Batch(false, "CREATE VIRTUAL TABLE rt USING rtree(id, a, b)", "INSERT INTO rt VALUES(1, 1, 1)", "INSERT INTO rt VALUES(2, 2, 2)",
		"CREATE VIEW v AS SELECT id FROM rt", "CREATE TRIGGER vi INSTEAD OF INSERT ON v BEGIN INSERT INTO rt VALUES(new.id, 0, 0); END").OK()
	d.Must("INSERT OR IGNORE INTO rt VALUES(1, 1, 1)").Is("data.changes", "0")
	d.Query("INSERT INTO rt VALUES(1, 1, 1)").Fails(http.StatusBadRequest, "").Says("UNIQUE constraint failed: rt.id")
	d.Query("UPDATE rt SET id = 2 WHERE id = 1").Fails(http.StatusBadRequest, "").Says("UNIQUE constraint failed: rt.id")
	d.Query("INSERT INTO rt VALUES(3, 5, 4)").Fails(http.StatusBadRequest, "").Says("rtree constraint failed: rt.(a<=b)")
	d.Query("INSERT INTO v VALUES(1)").Fails(http.StatusBadRequest, "").Says("UNIQUE constraint failed: rt.id")
	d.Query("SELECT rtreecheck('rt')").Fails(http.StatusForbidden, "function_not_allowed")
}

// A table that can't be read hides no other.
func TestBrokenTables(t *testing.T) {
	row(t, "DP-D-1")
	d := db(t)
	d.Batch(false, "CREATE TABLE good(id INTEGER PRIMARY KEY, emial TEXT)", "INSERT INTO good VALUES(1, 'x')", "CREATE TABLE c(id INTEGER PRIMARY KEY, a)",
		"CREATE VIRTUAL TABLE f USING fts5(a, content=c, content_rowid=id)", "CREATE VIRTUAL TABLE vv USING fts5vocab(good, row)", "DROP TABLE c",
		"CREATE VIEW broken AS SELECT zz FROM nope").OK()
	a := d.Get(d.Path("tables")).OK()
	a.Is("data.0.name", "f").Is("data.0.rowCount", "null").Is("data.1.name", "good").Is("data.1.rowCount", "1")
	d.Get(d.Path("describe")).OK().Is("data.tables.1.rowCount", "1")
	d.Get(d.Path("describe/compact")).OK().Tells("good(id INTEGER PK, emial TEXT) 1 rows", "can't be read")
	d.Get(d.Path("doctor")).OK().Tells("broken_table")
	d.Do("PUT", d.Path("describe"), body{"tables": []any{body{"table": "good", "description": "fine"}}}).OK()
	d.Query("SELECT email FROM good").Fails(http.StatusBadRequest, "").Kind("unknown_column").Tells("emial")
}

func TestNearestColumn(t *testing.T) {
	row(t, "DP-E-1")
	d := db(t)
	wide := make([]string, 1900)
	for i := range wide {
		wide[i] = fmt.Sprintf("column_%d", i)
	}
	d.Must("CREATE TABLE awide(" + strings.Join(wide, ",") + ")")
	d.Must("CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT, domain TEXT AS (substr(email, 3)))")
	d.Query("SELECT u.emial FROM users u").Fails(http.StatusBadRequest, "").Kind("unknown_column").Tells("did you mean email")
	d.Query("SELECT domian FROM users").Fails(http.StatusBadRequest, "").Tells("did you mean domain")
}
