package e2e_test

import (
	"encoding/base64"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/sqlite"
)

// TestCorpus runs generated statements through HTTP and straight through the engine on a file of its own, and compares
// columns, rows, errors and counts: whatever stands between the two must not show.
func TestCorpus(t *testing.T) {
	d := db(t)
	direct := openDirect(t)
	g := &generator{random: rand.New(rand.NewPCG(11, 12))}
	failed := 0
	for _, sql := range append(g.schema(), g.statements(600)...) {
		a := d.Query(sql)
		columns, rows, changes, err := direct.run(sql)
		switch {
		case err != nil && a.Status != http.StatusBadRequest:
			t.Errorf("%s: the engine says %v, HTTP %d %s", sql, err, a.Status, a.Raw)
		case err != nil:
			if got := a.Str("error"); got != valid(err.Error()) {
				t.Errorf("%s: the engine says %q, HTTP %q", sql, err, got)
			}
			failed++
		case a.Status != http.StatusOK:
			t.Errorf("%s: the engine runs it, HTTP says %d %s", sql, a.Status, a.Raw)
		default:
			a.Is("data.columns", harness.Text(columns)).Is("data.changes", strconv.FormatInt(changes, 10))
			compareRows(t, sql, a.Rows(), rows)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	if failed > 300 {
		t.Errorf("%d of 600 statements fail: the corpus tests little", failed)
	}
}

func compareRows(t *testing.T, sql string, got [][]any, want [][]sqlite.Value) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d rows, the engine has %d", sql, len(got), len(want))
		return
	}
	for i, row := range want {
		if len(got[i]) != len(row) {
			t.Errorf("%s: row %d has %d values, want %d", sql, i, len(got[i]), len(row))
			return
		}
		for j, v := range row {
			text := harness.Text(got[i][j])
			same := false
			switch v.Kind {
			case sqlite.Null:
				same = got[i][j] == nil
			case sqlite.Integer:
				same = text == strconv.FormatInt(v.Int, 10)
			case sqlite.Real:
				f, err := strconv.ParseFloat(text, 64)
				same = (err == nil || math.IsInf(v.Float, 0)) && math.Float64bits(f) == math.Float64bits(v.Float) && strings.ContainsAny(text, ".e")
			case sqlite.Text:
				same = text == valid(string(v.Bytes))
			case sqlite.Blob:
				same = text == `{"$blob":"`+base64.StdEncoding.EncodeToString(v.Bytes)+`"}`
			}
			if !same {
				t.Errorf("%s: row %d, column %d: got %s, the engine has %+v", sql, i, j, text, v)
			}
		}
	}
}

// valid is s with U+FFFD for each byte that belongs to no character.
func valid(s string) string { return string([]rune(s)) }

// directDB is a connection without anything between.
type directDB struct{ conn *sqlite.Conn }

func openDirect(t *testing.T) *directDB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "direct.db")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	thread := sqlite.NewThread()
	conn, err := sqlite.Open(sqlite.Config{Path: path}, thread)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		thread.Close()
	})
	return &directDB{conn}
}

func (d *directDB) run(sql string) (columns []string, rows [][]sqlite.Value, changes int64, err error) {
	columns = []string{}
	total := d.conn.TotalChanges()
	s, _, err := d.conn.Prepare([]byte(sql), nil)
	if err != nil {
		return nil, nil, 0, err
	}
	defer s.Done()
	if err := s.Bind(nil); err != nil {
		return nil, nil, 0, err
	}
	for i := range s.Columns() {
		columns = append(columns, string(s.ColumnName(i)))
	}
	for {
		more, err := s.Step()
		if err != nil {
			return nil, nil, 0, err
		}
		if !more {
			break
		}
		r := make([]sqlite.Value, s.Columns())
		for i := range r {
			r[i] = s.Column(i)
			r[i].Bytes = append([]byte{}, r[i].Bytes...)
		}
		rows = append(rows, r)
	}
	if d.conn.TotalChanges() != total {
		changes = d.conn.Changes()
	}
	return columns, rows, changes, nil
}

// generator makes statements.
type generator struct {
	random *rand.Rand
	id     int
}

func (g *generator) pick(list ...string) string { return list[g.random.IntN(len(list))] }

func (g *generator) schema() []string {
	return []string{
		"CREATE TABLE a(id INTEGER PRIMARY KEY, n INTEGER, r REAL, s TEXT, b BLOB)",
		"CREATE TABLE b(id INTEGER PRIMARY KEY, a_id INTEGER REFERENCES a(id) ON DELETE CASCADE, s TEXT COLLATE NOCASE UNIQUE, n NUMERIC CHECK(n <> 13))",
		"CREATE TABLE c(k TEXT, v, PRIMARY KEY(k)) WITHOUT ROWID",
		"CREATE INDEX a_n ON a(n)", "CREATE INDEX b_a ON b(a_id)",
		"CREATE VIEW v AS SELECT a.id, a.s, count(b.id) AS bs FROM a LEFT JOIN b ON b.a_id = a.id GROUP BY a.id",
		"CREATE TABLE journal(what TEXT, id INTEGER)",
		"CREATE TRIGGER a_ai AFTER INSERT ON a BEGIN INSERT INTO journal VALUES('insert', new.id); END",
		"CREATE TRIGGER a_ad AFTER DELETE ON a BEGIN INSERT INTO journal VALUES('delete', old.id); END",
	}
}

func (g *generator) literal() string {
	switch g.random.IntN(9) {
	case 0:
		return "NULL"
	case 1:
		return strconv.FormatInt(int64(g.random.Uint64())>>g.random.UintN(64), 10)
	case 2:
		return strconv.FormatFloat(g.random.NormFloat64()*math.Pow(10, float64(g.random.IntN(40)-20)), 'e', -1, 64)
	case 3:
		return "x'" + g.pick("", "00", "ff00aa", "c3a9", "deadbeef") + "'"
	case 4:
		return g.pick("9e999", "-9e999", "0", "-0.0", "1", "0.1", "9223372036854775807", "(-9223372036854775807 - 1)")
	default:
		return "'" + g.pick("", "a", "A", "é", "😀", "10", "1.5", "x y", "it''s", "null", "2024-02-29", "abc", "ABC", "日本") + "'"
	}
}

func (g *generator) expr(columns []string, depth int) string {
	if depth == 0 {
		if g.random.IntN(2) == 0 && len(columns) > 0 {
			return g.pick(columns...)
		}
		return g.literal()
	}
	e := func() string { return g.expr(columns, depth-1) }
	switch g.random.IntN(12) {
	case 0, 1:
		return "(" + e() + " " + g.pick("+", "-", "*", "/", "%", "||", "&", "|", "<<", ">>") + " " + e() + ")"
	case 2, 3:
		return "(" + e() + " " + g.pick("=", "<", "<=", "IS", "IS NOT", "<>", "LIKE", "GLOB", "AND", "OR") + " " + e() + ")"
	case 4:
		return g.pick("length", "typeof", "hex", "quote", "abs", "upper", "lower", "trim", "unicode", "sign", "round", "json_quote", "likely", "ltrim", "date") + "(" + e() + ")"
	case 5:
		return g.pick("coalesce", "nullif", "ifnull", "max", "min", "instr", "json_array", "substr", "printf", "json_extract", "round") + "(" + e() + ", " + e() + ")"
	case 6:
		return "CASE WHEN " + e() + " THEN " + e() + " ELSE " + e() + " END"
	case 7:
		return "CAST(" + e() + " AS " + g.pick("INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC") + ")"
	case 8:
		return "(" + e() + " " + g.pick("IN", "NOT IN") + " (" + e() + ", " + e() + "))"
	case 9:
		return "(" + e() + " BETWEEN " + e() + " AND " + e() + ")"
	case 10:
		return g.pick("-", "+", "~", "NOT ") + "(" + e() + ")"
	}
	return e()
}

func (g *generator) statements(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = g.statement()
	}
	return list
}

func (g *generator) statement() string {
	a, b := []string{"id", "n", "r", "s", "b"}, []string{"id", "a_id", "s", "n"}
	g.id++
	switch g.random.IntN(16) {
	case 0, 1, 2:
		return fmt.Sprintf("INSERT %sINTO a(n, r, s, b) VALUES(%s, %s, %s, %s)%s", g.pick("", "", "OR IGNORE ", "OR REPLACE "), g.expr(nil, 1), g.expr(nil, 1), g.expr(nil, 1), g.literal(), g.pick("", " RETURNING id, s", " RETURNING *"))
	case 3, 4:
		return fmt.Sprintf("INSERT %sINTO b(a_id, s, n) VALUES(%d, %s, %s)", g.pick("", "OR IGNORE ", "OR REPLACE ", "OR ABORT "), g.random.IntN(60)+1, g.literal(), g.pick("1", "13", "'7'", g.literal()))
	case 5:
		return fmt.Sprintf("INSERT INTO c VALUES(%s, %s) ON CONFLICT(k) DO %s", g.literal(), g.literal(), g.pick("NOTHING", "UPDATE SET v = excluded.v", "UPDATE SET v = v || '+' RETURNING k, v"))
	case 6:
		return fmt.Sprintf("UPDATE a SET %s = %s WHERE %s%s", g.pick("n", "r", "s", "b"), g.expr(a, 2), g.expr(a, 1), g.pick("", " RETURNING id, n, r"))
	case 7:
		return fmt.Sprintf("DELETE FROM %s WHERE id %% 7 = %d%s", g.pick("a", "b"), g.random.IntN(7), g.pick("", " RETURNING id"))
	case 8:
		return fmt.Sprintf("SELECT a.id, a.n, b.s FROM a %s b ON b.a_id = a.id WHERE %s ORDER BY 1, 3, 2 LIMIT 20", g.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"), g.pick("1", "a.n IS NOT NULL", "b.n > 0", "a.id < 30"))
	case 9:
		return fmt.Sprintf("SELECT %s AS g, count(*), min(n), max(s), sum(id), avg(id), total(n), group_concat(id) FROM a GROUP BY g HAVING count(*) >= %d ORDER BY 1", g.expr(a, 1), g.random.IntN(3))
	case 10:
		return fmt.Sprintf("SELECT id, row_number() OVER w, lag(%s) OVER w, sum(id) OVER (ORDER BY id ROWS 2 PRECEDING) FROM a WINDOW w AS (ORDER BY n, id) ORDER BY id LIMIT 15", g.expr(a, 1))
	case 11:
		return fmt.Sprintf("WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < %d) SELECT i, %s FROM r", g.random.IntN(20)+1, g.expr([]string{"i"}, 2))
	case 12:
		return fmt.Sprintf("SELECT %s FROM b WHERE %s UNION %s SELECT %s ORDER BY 1", g.expr(b, 1), g.expr(b, 1), g.pick("", "ALL"), g.literal())
	case 13:
		return g.pick("SELECT * FROM v ORDER BY id", "SELECT * FROM journal ORDER BY rowid DESC LIMIT 5", "SELECT * FROM c", "SELECT * FROM nowhere", "SELECT nothing FROM a", "SELEC 1", "SELECT count(*) FROM a, b", "SELECT json_group_array(s) FROM a", "SELECT key, value, type FROM json_each('[1,2.5,\"x\",null,{\"a\":[]}]')")
	default:
		return "SELECT " + g.expr(a, 3) + ", " + g.expr(a, 2) + " FROM a ORDER BY id LIMIT 10"
	}
}
