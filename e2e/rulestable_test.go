package e2e_test

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// watched is a schema with a way to the table "safe" for every kind of object.
var watched = []any{
	"CREATE TABLE safe(id INTEGER PRIMARY KEY AUTOINCREMENT, u INTEGER UNIQUE, v TEXT)",
	"CREATE TABLE free(id INTEGER PRIMARY KEY, u INTEGER UNIQUE, v TEXT)",
	"CREATE TABLE gun(id INTEGER PRIMARY KEY)",
	"CREATE TRIGGER gun_fire AFTER INSERT ON gun BEGIN DELETE FROM safe WHERE id = new.id; END",
	"CREATE TABLE chain(id INTEGER PRIMARY KEY)",
	"CREATE TRIGGER chain_fire AFTER INSERT ON chain BEGIN INSERT INTO gun VALUES(new.id); END",
	"CREATE TABLE parent(id INTEGER PRIMARY KEY)",
	"CREATE TABLE safe_kids(id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE)",
	"CREATE TABLE setnull(id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent(id) ON DELETE SET NULL)",
	"CREATE VIEW v_safe AS SELECT * FROM safe",
	"CREATE TRIGGER v_ins INSTEAD OF INSERT ON v_safe BEGIN INSERT INTO safe(u, v) VALUES(new.u, new.v); END",
	"CREATE TRIGGER v_upd INSTEAD OF UPDATE ON v_safe BEGIN UPDATE safe SET v = new.v WHERE id = old.id; END",
	"CREATE TRIGGER v_del INSTEAD OF DELETE ON v_safe BEGIN DELETE FROM safe WHERE id = old.id; END",
	"CREATE VIEW v_free AS SELECT * FROM free",
	"CREATE TRIGGER vf_ins INSTEAD OF INSERT ON v_free BEGIN INSERT INTO free(u) VALUES(new.u); END",
	"CREATE VIRTUAL TABLE safe_fts USING fts5(body)",
	"CREATE VIRTUAL TABLE safe_box USING rtree(id, a, b)",
	"CREATE VIRTUAL TABLE free_fts USING fts5(body)",
	"CREATE TABLE safe_worid(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
	"CREATE INDEX safe_v ON safe(v)",
	"CREATE TABLE conf(id INTEGER PRIMARY KEY, u INTEGER UNIQUE ON CONFLICT REPLACE)",
	"INSERT INTO safe(u, v) VALUES(1,'a'),(2,'b'),(3,'c'),(4,'d'),(5,'e')",
	"INSERT INTO free(u, v) VALUES(1,'a'),(2,'b'),(3,'c')",
	"INSERT INTO parent VALUES(1),(2),(3)",
	"INSERT INTO safe_kids VALUES(1,1),(2,1),(3,2)",
	"INSERT INTO setnull VALUES(1,1)",
	"INSERT INTO safe_fts(rowid, body) VALUES(1,'one'),(2,'two'),(3,'three')",
	"INSERT INTO safe_box VALUES(1,0,1),(2,1,2)",
	"INSERT INTO free_fts(body) VALUES('x')",
	"INSERT INTO safe_worid VALUES('a',1),('b',2)",
	"INSERT INTO conf VALUES(1,1),(2,2)",
}

// The rules that the statements are sent against.
var (
	anyWrite  = body{"tableGlob": "safe*", "action": "require_approval"}
	onDelete  = body{"tableGlob": "safe*", "action": "require_approval", "operations": []string{"delete"}}
	onInsert  = body{"tableGlob": "SAFE*", "action": "require_approval", "operations": []string{"insert"}}
	onUpdate  = body{"tableGlob": "saf?*", "action": "require_approval", "operations": []string{"update"}}
	onSchema  = body{"tableGlob": "safe*", "action": "require_approval", "operations": []string{"ddl"}}
	moreThan2 = body{"tableGlob": "safe*", "action": "require_approval", "maxRows": 2}
	denied    = body{"tableGlob": "safe*", "action": "deny"}
	confGone  = body{"tableGlob": "conf", "action": "require_approval", "operations": []string{"delete"}}
	everyView = body{"tableGlob": "v_*", "action": "require_approval"}
	sequence  = body{"tableGlob": "*", "action": "deny"}
)

// verdicts say of each statement and rule whether it runs, is held or is denied.
var verdicts = []struct {
	rule body
	want string
	sql  []string
}{
	{anyWrite, "runs", []string{
		"SELECT * FROM safe", "WITH x AS (SELECT * FROM safe) SELECT count(*) FROM x", "EXPLAIN DELETE FROM safe", "EXPLAIN QUERY PLAN DELETE FROM safe",
		"INSERT INTO free(u) VALUES(9)", "UPDATE free SET v = (SELECT v FROM safe LIMIT 1)", "DELETE FROM free WHERE id IN (SELECT id FROM safe)", "INSERT INTO free(u) SELECT u + 10 FROM safe",
		"INSERT INTO v_free(u) VALUES(77)", "CREATE TABLE other(a)", "CREATE VIEW other_v AS SELECT * FROM safe", "CREATE INDEX free_v ON free(v)", "PRAGMA user_version = 3", "PRAGMA table_info(safe)",
		"ANALYZE", "REINDEX safe", "VACUUM", "INSERT INTO free_fts(body) VALUES('y')", "DROP TABLE IF EXISTS nosuch", "CREATE TABLE IF NOT EXISTS free(a)", "ALTER TABLE free RENAME TO unsafe",
		"CREATE TRIGGER t_free AFTER INSERT ON free BEGIN DELETE FROM safe; END", "DELETE FROM setnull", "UPDATE conf SET u = 9 WHERE id = 1", "INSERT INTO parent VALUES(9)",
	}},
	{anyWrite, "held", []string{
		"INSERT INTO safe(u) VALUES(9)", "UPDATE safe SET v = 'x'", "DELETE FROM safe", "DELETE FROM safe WHERE 0", "REPLACE INTO safe(id, u) VALUES(1, 9)", "INSERT OR IGNORE INTO safe(u) VALUES(1)",
		"INSERT INTO safe(u) VALUES(1) ON CONFLICT(u) DO UPDATE SET v = 'z'", "INSERT INTO safe(u) SELECT u + 10 FROM free", "WITH x(a) AS (VALUES(9)) INSERT INTO safe(u) SELECT a FROM x",
		"WITH x AS (SELECT 1 AS a) UPDATE safe SET v = 'x' WHERE id IN (SELECT a FROM x)", "WITH x AS (SELECT 1 AS a) DELETE FROM safe WHERE id IN x", "UPDATE safe SET v = f.v FROM free f WHERE f.id = safe.id",
		`DELETE FROM "SAFE"`, "DELETE FROM [safe]", "DELETE FROM `Safe` WHERE id = 1", "DELETE FROM main.safe", "/* x */ DELETE /* free */ FROM -- \n safe", "DELETE FROM safe AS f",
		"INSERT INTO v_safe(u, v) VALUES(9, 'x')", "UPDATE v_safe SET v = 'x'", "DELETE FROM v_safe", "INSERT INTO gun VALUES(1)", "INSERT INTO chain VALUES(1)",
		"DELETE FROM parent", "DELETE FROM parent WHERE id = 1", "UPDATE parent SET id = id + 10", "DROP TABLE safe", "DROP TABLE IF EXISTS safe", "ALTER TABLE safe ADD COLUMN x", "ALTER TABLE safe DROP COLUMN v",
		"ALTER TABLE safe RENAME COLUMN v TO w", "ALTER TABLE safe RENAME TO gone", "ALTER TABLE free RENAME TO safe_new", "CREATE TABLE safe_more(a)", "CREATE TABLE safe_copy AS SELECT * FROM free",
		"CREATE VIEW safe_view AS SELECT 1", "CREATE VIRTUAL TABLE safe_more USING fts5(a)", "CREATE INDEX i ON safe(u, v)", "DROP INDEX safe_v", "CREATE TRIGGER t AFTER INSERT ON safe BEGIN SELECT 1; END",
		"INSERT INTO safe_fts(body) VALUES('x')", "UPDATE safe_fts SET body = 'x'", "DELETE FROM safe_fts", "DROP TABLE safe_fts", "INSERT INTO safe_fts(safe_fts) VALUES('optimize')", "ALTER TABLE safe_fts RENAME TO zz",
		"INSERT INTO safe_box VALUES(9, 1, 2)", "DELETE FROM safe_box", "INSERT INTO safe_worid VALUES('x', 1)", "REPLACE INTO safe_worid VALUES('a', 9)", "DELETE FROM safe RETURNING *", "INSERT INTO safe DEFAULT VALUES",
	}},
	{onDelete, "runs", []string{"INSERT INTO safe(u) VALUES(9)", "UPDATE safe SET v = 'x'", "INSERT OR REPLACE INTO safe(id, u) VALUES(99, 99)", "CREATE INDEX i ON safe(u, v)", "UPDATE OR REPLACE safe SET u = 50 WHERE id = 1",
		"INSERT INTO safe_fts(body) VALUES('x')", "UPDATE safe_fts SET body = 'x' WHERE rowid = 1", "UPDATE safe_box SET a = 0.5 WHERE id = 1", "INSERT INTO safe_fts(safe_fts) VALUES('optimize')"}},
	{onDelete, "held", []string{"INSERT OR REPLACE INTO safe(id, u) VALUES(1, 9)", "INSERT OR REPLACE INTO safe(u) VALUES(2)", "REPLACE INTO safe(id, u) VALUES(9, 3)", "UPDATE OR REPLACE safe SET u = 2 WHERE id = 1", "DELETE FROM safe",
		"REPLACE INTO safe_worid VALUES('a', 9)", "UPDATE OR REPLACE safe_worid SET k = 'b' WHERE k = 'a'", "DROP TABLE safe", "INSERT INTO gun VALUES(99)", "DELETE FROM parent WHERE id = 3", "DELETE FROM v_safe",
		"INSERT OR REPLACE INTO safe_fts(rowid, body) VALUES(1, 'x')", "DELETE FROM safe_fts WHERE rowid = 1", "DROP TABLE parent"}},
	{onInsert, "runs", []string{"DELETE FROM safe", "UPDATE safe SET v = 'x'", "UPDATE safe_fts SET body = 'x' WHERE rowid = 1", "INSERT INTO free(u) VALUES(9)"}},
	{onInsert, "held", []string{"INSERT INTO safe(u) VALUES(9)", "REPLACE INTO safe(u) VALUES(1)", "INSERT INTO v_safe(u) VALUES(9)", "INSERT INTO safe(u) VALUES(1) ON CONFLICT DO NOTHING"}},
	{onUpdate, "runs", []string{"DELETE FROM safe", "INSERT INTO safe(u) VALUES(9)"}},
	{onUpdate, "held", []string{"UPDATE safe SET v = 'x'", "INSERT INTO safe(u) VALUES(1) ON CONFLICT(u) DO UPDATE SET v = 'z'", "UPDATE parent SET id = 11 WHERE id = 1", "UPDATE v_safe SET v = 'x'", "UPDATE safe_fts SET body = 'x' WHERE rowid = 1"}},
	{onSchema, "runs", []string{"DELETE FROM safe", "INSERT INTO safe(u) VALUES(9)", "UPDATE safe SET v = 1"}},
	{onSchema, "held", []string{"DROP TABLE safe", "ALTER TABLE safe ADD COLUMN x", "ALTER TABLE free RENAME TO safe_2", "CREATE INDEX i ON safe(u)", "DROP INDEX safe_v", "CREATE TABLE Safe_2(a)", "DROP TABLE safe_fts"}},
	{moreThan2, "runs", []string{"DELETE FROM safe WHERE id <= 2", "UPDATE safe SET v = 'x' WHERE id = 1", "DELETE FROM safe WHERE 0", "INSERT INTO safe(u) VALUES(8),(9)", "DELETE FROM parent WHERE id = 1", "INSERT INTO safe_fts(body) VALUES('a'),('b')",
		"UPDATE safe_fts SET body = 'x' WHERE rowid < 3", "DELETE FROM safe_box"}},
	{moreThan2, "held", []string{"DELETE FROM safe", "DELETE FROM safe WHERE id <= 3", "UPDATE safe SET v = 'x'", "INSERT INTO safe(u) VALUES(7),(8),(9)", "INSERT INTO safe(u) SELECT u + 10 FROM free", "DELETE FROM parent", "DROP TABLE safe",
		"REPLACE INTO safe(id, u) VALUES(1, 2)", "INSERT INTO safe_fts(body) VALUES('a'),('b'),('c')", "DELETE FROM v_safe", "UPDATE safe_fts SET body = 'x'", "ALTER TABLE safe ADD COLUMN x"}},
	{denied, "denied", []string{"INSERT INTO safe(u) VALUES(9)", "DELETE FROM safe WHERE 0", "INSERT INTO chain VALUES(1)", "DROP TABLE safe", "ALTER TABLE free RENAME TO safe_2", "DELETE FROM parent", "UPDATE v_safe SET v = 1", "CREATE TABLE safe_2(a)"}},
	{denied, "runs", []string{"SELECT * FROM safe", "INSERT INTO free(u) VALUES(9)"}},
	{confGone, "held", []string{"INSERT INTO conf VALUES(9, 1)", "UPDATE conf SET u = 1 WHERE id = 2", "UPDATE conf SET u = 9", "DELETE FROM conf"}},
	{confGone, "runs", []string{"INSERT INTO conf VALUES(9, 9)", "UPDATE conf SET u = 9 WHERE id = 1"}},
	{everyView, "held", []string{"INSERT INTO v_free(u) VALUES(9)", "DROP VIEW v_free", "DELETE FROM v_safe", "CREATE VIEW v_x AS SELECT 1", "DROP TRIGGER v_ins"}},
	{everyView, "runs", []string{"INSERT INTO free(u) VALUES(9)", "SELECT * FROM v_free"}},
	{sequence, "denied", []string{"UPDATE sqlite_sequence SET seq = 100", "DELETE FROM sqlite_sequence", "DROP TABLE free", "CREATE TABLE zzz(a)"}},
	{sequence, "runs", []string{"SELECT * FROM sqlite_sequence", "ANALYZE", "PRAGMA user_version = 2"}},
}

// contentOfWatched is everything in a database that a statement could change, the rows that it ever had and its schema among them.
func contentOfWatched(d *harness.DB) string {
	var parts []string
	for _, name := range []string{"safe", "free", "gun", "chain", "parent", "safe_kids", "setnull", "safe_worid", "conf", "sqlite_sequence", "safe_fts", "safe_box"} {
		parts = append(parts, fmt.Sprintf("'%s', (SELECT json_group_array(json(r)) FROM (SELECT json_array(%s) AS r FROM \"%s\" ORDER BY 1))", name, columnsOfWatched[name], name))
	}
	parts = append(parts, "'schema', (SELECT json_group_array(name || coalesce(sql, '')) FROM (SELECT * FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' AND name NOT LIKE 'sqlite_persql%' AND tbl_name NOT LIKE 'sqlite_persql%' ORDER BY name))")
	// Where a check is left out, what is to be read may be gone.
	rows := d.Query("SELECT json_object(" + strings.Join(parts, ", ") + ") AS content").List("data.rows")
	return fmt.Sprint(rows)
}

var columnsOfWatched = map[string]string{"safe": "id, u, v", "free": "id, u, v", "gun": "id", "chain": "id", "parent": "id", "safe_kids": "id, p", "setnull": "id, p", "safe_worid": "k, v", "conf": "id, u", "sqlite_sequence": "name, seq", "safe_fts": "rowid, body", "safe_box": "id, a, b"}

// misjudged, which stops at so many that are wrong at least, sends every statement of the table against its rule, alone and in batches, and returns what the server got wrong.
func misjudged(admin *harness.Client, enough int, report func(format string, args ...any)) (wrong []string) {
	miss := func(format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf(format, args...))
	}
	number := 0
	for _, v := range verdicts {
		if len(wrong) >= enough {
			return wrong
		}
		d := admin.DB(fmt.Sprintf("table-%d", number))
		number++
		d.Batch(true, watched...).OK()
		admin.Post(d.Path("approval-rules"), v.rule).OK()
		before := contentOfWatched(d)
		for _, sql := range v.sql {
			check := func(how string, a *harness.Answer) {
				got := "runs"
				switch code := a.Str("code"); {
				case a.Status == http.StatusForbidden && code == "approval_required":
					got = "held"
				case a.Status == http.StatusForbidden && code == "approval_denied":
					got = "denied"
				case a.Status != http.StatusOK:
					got = fmt.Sprintf("%d %s", a.Status, a.Str("error"))
				}
				if got != v.want {
					miss("%v: %s (%s): %s, want it %s", v.rule, sql, how, got, v.want)
				}
				if got == "runs" {
					return
				}
				if now := contentOfWatched(d); now != before {
					miss("%v: %s (%s): %s, and yet something has changed", v.rule, sql, how, got)
					before = now
				}
			}
			if v.want == "runs" {
				fresh := admin.DB(fmt.Sprintf("table-%d", number))
				number++
				fresh.Batch(true, watched...).OK()
				admin.Post(fresh.Path("approval-rules"), v.rule).OK()
				d = fresh
				before = contentOfWatched(d)
				check("query", d.Query(sql))
				continue
			}
			check("query", d.Query(sql))
			for _, transaction := range []bool{false, true} {
				how := fmt.Sprintf("in a batch, transaction %v", transaction)
				// Behind writes that may run, and behind what makes it compile anew.
				check(how, d.Batch(transaction, "INSERT INTO conf VALUES(1000, 1000)", sql, "INSERT INTO conf VALUES(1001, 1001)"))
				check(how+", late", d.Batch(transaction, "CREATE TABLE first(a)", "INSERT INTO first VALUES(1)", sql))
			}
		}
	}
	// A batch is judged whole before any of it runs: also where it would fail before the statement that is held.
	d := admin.DB(fmt.Sprintf("table-%d", number))
	d.Batch(true, watched...).OK()
	admin.Post(d.Path("approval-rules"), anyWrite).OK()
	for _, transaction := range []bool{false, true} {
		a := d.Batch(transaction, "INSERT INTO free(id) VALUES(1)", "DELETE FROM safe", "DELETE FROM safe_worid")
		if a.Str("code") != "approval_required" || len(a.List("hits")) != 2 {
			miss("a batch that fails before it is held, transaction %v: %d %s with %d hits", transaction, a.Status, a.Str("code"), len(a.List("hits")))
		}
	}
	for range 20 { // on a busy machine they may come one after the other
		if ran, statuses := racingApplies(admin, admin.DB("race"), 30); ran != 1 {
			miss("of 30 racing applies %d ran: %v", ran, statuses)
			break
		}
	}
	for _, w := range wrong {
		report("%s", w)
	}
	return wrong
}

func TestRulesTable(t *testing.T) {
	row(t, "DP-RUL-1", "DP-RUL-2", "DP-RUL-3")
	n := 0
	var all []string
	for _, v := range verdicts {
		n += len(v.sql)
		all = append(all, v.sql...)
	}
	slices.Sort(all)
	if n < 80 || len(slices.Compact(all)) < 80 {
		t.Errorf("%d statements, %d different ones", n, len(slices.Compact(all)))
	}
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MAX_APPROVALS=1000000"}})
	misjudged(s.Client(t, harness.Token), math.MaxInt, t.Errorf)
}
