package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// twinSchema is what two databases have that differ in rows which policies hide alone.
var twinSchema = []any{
	"CREATE TABLE orders(id INTEGER PRIMARY KEY, owner TEXT, name TEXT, n INTEGER, j TEXT)",
	"CREATE INDEX orders_n ON orders(n)",
	"CREATE INDEX orders_owner ON orders(owner, name)",
	"CREATE TABLE items(k TEXT, seq INTEGER, owner TEXT, v REAL, PRIMARY KEY (k, seq)) WITHOUT ROWID",
	"CREATE TABLE notes(id INTEGER PRIMARY KEY, ord INTEGER, owner TEXT, body TEXT)",
	"CREATE TABLE teams(usr TEXT, team TEXT)",
	"CREATE TABLE jobs(id INTEGER PRIMARY KEY, team TEXT, n INTEGER)",
	"CREATE TABLE open(id INTEGER PRIMARY KEY, x TEXT, n INTEGER)",
	"CREATE VIRTUAL TABLE notes_fts USING fts5(body, content=notes, content_rowid=id)",
	"CREATE VIEW big(id, n) AS SELECT id, n FROM orders WHERE n > 20",
	"CREATE VIEW sums AS SELECT owner, count(*) AS c, sum(n) AS s FROM orders GROUP BY owner",
	"CREATE VIEW joined AS SELECT o.id AS id, o.name AS name, x.body AS body FROM orders o LEFT JOIN notes x ON x.ord = o.id",
	"CREATE VIEW deep AS SELECT id, name FROM joined WHERE id IN (SELECT id FROM big)",
	"INSERT INTO teams VALUES('ann', 'red'), ('ann', 'green')",
	"INSERT INTO open VALUES(1, 'a', 1), (2, 'b', 20), (3, '{', 300)",
}

var twinRules = []body{
	{"name": "orders", "tableName": "orders", "expression": "owner = :auth_user", "appliesTo": every},
	{"name": "items", "tableName": "items", "expression": "owner IS :auth_user", "appliesTo": every},
	{"name": "notes", "tableName": "notes", "expression": "owner = :auth_user AND length(body) < :auth_most", "appliesTo": every},
	{"name": "teams", "tableName": "teams", "expression": "usr = :auth_user", "appliesTo": every},
	{"name": "jobs", "tableName": "jobs", "expression": "team IN (SELECT team FROM teams)", "appliesTo": every},
}

// fillTwin puts the rows that are seen into a database, and others, of which which decides; their keys are ones that no statement gives a row.
func fillTwin(d *harness.DB, which uint64) {
	seen, hidden := rand.New(rand.NewPCG(1, 1)), rand.New(rand.NewPCG(which, 99))
	var rows []any
	add := func(r *rand.Rand, owner, team string, from, n int) {
		for i := range n {
			id := from + i
			json := []string{`{"a":1}`, `{"a":[1,2]}`, `{bad`, "null", `"t"`}[r.IntN(5)]
			if owner == "ann" && json == "{bad" {
				json = "7"
			}
			rows = append(rows, fmt.Sprintf("INSERT INTO orders VALUES(%d, '%s', 'n%d', %d, '%s')", id, owner, r.IntN(20), r.IntN(60)-10, json),
				fmt.Sprintf("INSERT INTO items VALUES('k%d', %d, '%s', %g)", id%7, id, owner, float64(r.IntN(100))/4),
				fmt.Sprintf("INSERT INTO notes VALUES(%d, %d, '%s', 'word%d')", id, id-r.IntN(3), owner, r.IntN(9)),
				fmt.Sprintf("INSERT INTO jobs VALUES(%d, '%s', %d)", id, team, r.IntN(60)))
		}
	}
	add(seen, "ann", "red", 10, 8)
	add(hidden, "bob", "blue", 1_000_000, 5+hidden.IntN(8))
	if which == 2 {
		rows = append(rows, "INSERT INTO orders VALUES(-5, 'bob', 'n1', -9223372036854775808, '{bad')", "INSERT INTO notes VALUES(999, 12, 'ann', 'too long a text for her')",
			"INSERT INTO teams VALUES('bob', 'blue'), ('bob', 'red')")
	} else {
		rows = append(rows, "INSERT INTO teams VALUES('bob', 'blue')", "INSERT INTO orders VALUES(1000100, 'bob', 'n1', 7, '{}')")
	}
	rows = append(rows, "INSERT INTO notes_fts(notes_fts) VALUES('rebuild')")
	for len(rows) > 0 {
		n := min(len(rows), 100)
		d.Batch(true, rows[:n]...).OK()
		rows = rows[n:]
	}
}

// writer makes statements.
type writer struct {
	r     *rand.Rand
	depth int
	next  int // the key of the next new row
}

func (w *writer) pick(of ...string) string { return of[w.r.IntN(len(of))] }

// source is a table, or what stands for one, with columns id (a number), s (a text) and n (a number).
func (w *writer) source() string {
	w.depth++
	defer func() { w.depth-- }()
	plain := []string{"(SELECT id, name AS s, n FROM orders)", "(SELECT seq AS id, k AS s, v AS n FROM items)", "(SELECT id, body AS s, ord AS n FROM notes)", "(SELECT id, team AS s, n FROM jobs)",
		"(SELECT id, x AS s, n FROM open)", "(SELECT id, 'v' AS s, n FROM big)", "(SELECT c AS id, owner AS s, s AS n FROM sums)", "(SELECT id, name AS s, length(body) AS n FROM joined)",
		"(SELECT id, name AS s, id AS n FROM deep)", "(SELECT length(team) AS id, team AS s, 1 AS n FROM teams)"}
	if w.depth > 3 || w.r.IntN(3) > 0 {
		return plain[w.r.IntN(len(plain))]
	}
	switch w.r.IntN(5) {
	case 0:
		return "(SELECT id, s, n FROM " + w.source() + " WHERE " + w.condition() + ")"
	case 1:
		return "(SELECT a.id AS id, b.s AS s, a.n AS n FROM " + w.source() + " a " + w.pick("JOIN", "LEFT JOIN") + " " + w.source() + " b ON a.id " + w.pick("=", "<", "<>") + " b.id)"
	case 2:
		return "(SELECT id, s, n FROM " + w.source() + " " + w.pick("UNION", "UNION ALL", "EXCEPT", "INTERSECT") + " SELECT id, s, n FROM " + w.source() + ")"
	case 3:
		return "(WITH c AS " + w.pick("", "MATERIALIZED ") + w.source() + " SELECT id, s, n FROM c)"
	}
	return "(SELECT count(*) AS id, s, " + w.pick("sum", "max", "min", "total", "avg", "count") + "(n) AS n FROM " + w.source() + " GROUP BY s HAVING " + w.pick("1", "count(*) > 1", "max(n) > 5") + ")"
}

func (w *writer) number() string {
	return w.pick("id", "n", "n + 1", "n % 3", "length(s)", "5", "12", "abs(n)", "n * id", "coalesce(n, 0)", "(SELECT count(*) FROM orders)", "(SELECT max(n) FROM orders)", "(SELECT sum(v) FROM items)",
		"(SELECT count(*) FROM joined)", "json_array_length('[1,2]')", "(SELECT min(id) FROM notes)", "-n")
}

func (w *writer) condition() string {
	switch w.r.IntN(12) {
	case 0:
		return w.number() + " " + w.pick("<", ">", "=", "<>", "<=", "IS") + " " + w.number()
	case 1:
		return "id IN (SELECT id FROM " + w.source() + ")"
	case 2:
		return w.pick("", "NOT ") + "EXISTS (SELECT 1 FROM " + w.source() + " q WHERE q.id " + w.pick("=", ">", "<") + " " + w.pick("5", "11", "1000001") + ")"
	case 3:
		return "s LIKE '" + w.pick("n%", "%1", "word%", "b%") + "'"
	case 4:
		return "n BETWEEN " + w.pick("-5", "0", "10") + " AND " + w.pick("5", "20", "50")
	case 5:
		return "(" + w.condition() + " " + w.pick("AND", "OR") + " " + w.condition() + ")"
	case 6:
		return "s " + w.pick("=", "<>", ">") + " (SELECT " + w.pick("max", "min") + "(name) FROM orders)"
	case 7:
		return "json_valid(s)"
	case 8:
		return "n > (SELECT avg(n) FROM " + w.source() + ")"
	case 9:
		return w.pick("id = 11", "id = 1000001", "id < 15", "id > 999999")
	case 10:
		return "json_extract((SELECT j FROM orders WHERE orders.id = id LIMIT 1), '$.a') IS NULL"
	}
	return "1"
}

func (w *writer) query() string {
	from := w.source()
	switch w.r.IntN(9) {
	case 0:
		return "SELECT count(*), sum(n), group_concat(s) FROM " + from + " WHERE " + w.condition()
	case 1:
		return "SELECT id, s, n, row_number() OVER (ORDER BY id, s, n), sum(n) OVER (PARTITION BY s) FROM " + from + " ORDER BY 1, 2, 3"
	case 2:
		return "SELECT id, " + w.number() + " FROM " + from + " WHERE " + w.condition() + " ORDER BY " + w.pick("id", "n", "s") + " LIMIT " + w.pick("1", "3", "100")
	case 3:
		return "SELECT s, count(*), " + w.pick("max", "min", "sum") + "(n) FROM " + from + " GROUP BY s"
	case 4:
		return "WITH c AS " + from + ", d AS (SELECT id, s, n FROM c WHERE " + w.condition() + ") SELECT * FROM d ORDER BY 1, 2, 3"
	case 5:
		return "SELECT (SELECT n FROM " + from + " WHERE " + w.condition() + " ORDER BY 1 LIMIT 1), " + strings.ReplaceAll(strings.ReplaceAll(w.pick("(SELECT count(*) FROM big)", "EXISTS (SELECT 1 FROM deep)", "(SELECT group_concat(name) FROM orders)"), "  ", " "), "\n", "")
	case 6:
		return w.pick("SELECT * FROM orders WHERE abs(n) > 3", "SELECT id FROM orders WHERE json_extract(j, '$.a') = 1", "SELECT * FROM orders WHERE id = "+w.pick("11", "1000001", "-5"), "SELECT * FROM items WHERE k = 'k3'",
			"SELECT json_extract(j, '$.a[0]') FROM orders ORDER BY id", "SELECT * FROM sums", "SELECT * FROM orders ORDER BY n, id", "SELECT count(*) FROM orders", "SELECT max(id) FROM orders", "SELECT DISTINCT owner FROM orders",
			"SELECT * FROM main.orders", "SELECT rowid FROM orders", "SELECT * FROM notes_fts('word1')", "PRAGMA page_count", "PRAGMA integrity_check", "EXPLAIN QUERY PLAN SELECT * FROM orders WHERE n > 3", "SELECT count(*) FROM notes_fts",
			"SELECT name FROM orders WHERE name LIKE '%' ESCAPE '!' AND n / 0 IS NULL", "SELECT sum(n) FROM orders WHERE n * 9223372036854775807 > 0", "SELECT zeroblob(n * 100000000) IS NULL FROM orders")
	}
	return "SELECT id, s, n FROM " + from + " WHERE " + w.condition() + " ORDER BY 1, 2, 3"
}

// onRow is a condition on a row of a table with these columns.
func (w *writer) onRow(table string) string {
	c := w.condition()
	switch table {
	case "orders":
		return regexp.MustCompile(`\bs\b`).ReplaceAllString(c, "name")
	case "jobs":
		return regexp.MustCompile(`\bs\b`).ReplaceAllString(c, "team")
	}
	return c
}

func (w *writer) write() string {
	w.next++
	id := w.next
	switch w.r.IntN(12) {
	case 0:
		return "UPDATE orders SET n = n + 1, name = '" + w.pick("n1", "n2", "z") + "' WHERE " + w.onRow("orders")
	case 1:
		return "UPDATE orders AS o SET n = " + w.pick("1", "o.n * 2", "(SELECT count(*) FROM orders)", "abs(o.n)") + " WHERE o.id " + w.pick("< 13", "> 999999", "IN (SELECT id FROM notes)", "= -5") + w.pick("", " RETURNING id, n, name")
	case 2:
		return fmt.Sprintf("INSERT INTO orders VALUES(%d, '%s', '%s', %d, '{}')%s", id, w.pick("ann", "ann", "bob"), w.pick("n1", "new"), w.r.IntN(50), w.pick("", " RETURNING *"))
	case 3:
		return fmt.Sprintf("INSERT INTO orders SELECT id + %d, owner, name, n, j FROM orders WHERE %s", id*1000, w.onRow("orders"))
	case 4:
		return "DELETE FROM orders WHERE " + w.onRow("orders") + w.pick("", " AND id > 500000", " AND n < -3") + w.pick("", " RETURNING id")
	case 5:
		return fmt.Sprintf("INSERT INTO orders VALUES(%s, 'ann', 'up', 1, '{}') ON CONFLICT(id) DO UPDATE SET n = n + 1 WHERE n < 50 RETURNING id, n", w.pick("10", "11", "12", "13"))
	case 6:
		return "UPDATE items SET v = v + 1 WHERE " + w.pick("k = 'k1'", "v > 10", "seq < 14", "1", "owner = 'bob'") + w.pick("", " RETURNING k, v")
	case 7:
		return fmt.Sprintf("INSERT INTO open SELECT %d + row_number() OVER (), s, n FROM %s WHERE %s ORDER BY id, s, n LIMIT 2", id*1000, w.source(), w.condition())
	case 8:
		return "UPDATE notes SET body = body || '" + w.pick("", "x", "xxxxxxxx") + "' WHERE " + w.pick("id < 13", "ord IN (SELECT id FROM orders)", "body LIKE 'word%'", "id = 999")
	case 9:
		return "UPDATE jobs SET n = (SELECT " + w.pick("count(*)", "max(n)", "sum(n)") + " FROM jobs), team = '" + w.pick("red", "red", "green", "blue") + "' WHERE " + w.onRow("jobs")
	case 10:
		return "UPDATE orders SET n = x.n FROM (SELECT id, n FROM " + w.source() + ") x WHERE x.id = orders.id AND orders.id < 14"
	}
	return "DELETE FROM open WHERE id > 3 AND n > (SELECT avg(n) FROM orders)"
}

// unlike is what may differ between two answers: the request's id, and times.
var unlike = regexp.MustCompile(`"requestId":"[^"]*"|"durationMs":[0-9.]+|-[0-9a-f]{8}"|"id":"snap_[a-z0-9]+"`)

func canonical(a *harness.Answer) string { return unlike.ReplaceAllString(string(a.Raw), "") }

// twins makes two databases and returns how many of the statements, and which first, two callers find answered differently.
func twins(t *testing.T, admin *harness.Client, seed uint64, statements int, enough int) (differ int, first []string) {
	var dbs [2]*harness.DB
	token := mint(admin, body{"role": "readwrite", "claims": body{"user": "ann", "most": 20}})
	for i := range dbs {
		d := admin.DB(unused())
		d.Batch(true, twinSchema...).OK()
		fillTwin(d, uint64(i+1))
		for _, r := range twinRules {
			d.Post(d.Path("policies"), r).OK()
		}
		dbs[i] = admin.As(token).DB(d.Slug)
	}
	answered := 0
	w := &writer{r: rand.New(rand.NewPCG(seed, 7)), next: 2000}
	for n := range statements {
		sql := w.query()
		if w.r.IntN(4) == 0 {
			sql = w.write()
		}
		a, b := dbs[0].Query(sql), dbs[1].Query(sql)
		if a.Status == http.StatusOK {
			answered++
		}
		if x, y := canonical(a), canonical(b); x != y {
			if differ++; len(first) < enough {
				first = append(first, fmt.Sprintf("%d %s:\n\t%s\n\t%s", n, sql, harness.Tail(x, 400), harness.Tail(y, 400)))
			}
		}
		if n%500 == 0 {
			for _, path := range []string{"tables", "describe", "describe/compact", "doctor", "schema", "search?q=word", "query-log?limit=1"} {
				a, b := dbs[0].Get(dbs[0].Path(path)), dbs[1].Get(dbs[1].Path(path))
				logged := regexp.MustCompile(`"(ts|id)":("[^"]*"|[0-9]+)`)
				if x, y := logged.ReplaceAllString(canonical(a), ""), logged.ReplaceAllString(canonical(b), ""); x != y {
					if differ++; len(first) < enough {
						first = append(first, fmt.Sprintf("%d %s:\n\t%s\n\t%s", n, path, harness.Tail(x, 400), harness.Tail(y, 400)))
					}
				}
			}
		}
	}
	// Most must run, or they would be alike for being refused.
	if answered < statements/2 {
		t.Errorf("only %d of %d statements ran", answered, statements)
	}
	t.Logf("%d of %d statements ran, %d answers differ", answered, statements, differ)
	return differ, first
}

// TestHiddenRowsShowNowhere asks two databases that differ only in rows that the caller may not see the same: they answer alike, byte for byte, but for
// ids and times. E2E_SEED has other statements made.
func TestHiddenRowsShowNowhere(t *testing.T) {
	row(t, "DP-POL-5", "DP-POL-7", "DP-POL-8")
	seed := uint64(7)
	if v := os.Getenv("E2E_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	differ, first := twins(t, client(t).Apart(), seed, 4000, 10)
	if differ > 0 {
		t.Errorf("%d answers tell of hidden rows, for example\n%s", differ, strings.Join(first, "\n"))
	}
}

// The same statements must be able to tell: without policies they do.
func TestHiddenRowsWouldShow(t *testing.T) {
	s := harness.Start(t, mutated(t), harness.Options{Env: []string{"GATE_OFF=policy"}})
	if differ, _ := twins(t, s.Client(t, harness.Token).Apart(), 7, 4000, 0); differ < 1000 {
		t.Errorf("only %d answers of 4000 differ where policies are off: the statements are too weak", differ)
	}
}
