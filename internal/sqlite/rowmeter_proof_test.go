//go:build rowmeterproof

package sqlite_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// observe measures with the oracle beside.
func (e *expectation) observe(t testing.TB) (sqlite.Counts, *sqlite.Oracle) {
	t.Helper()
	o := new(sqlite.Oracle)
	watch = o.Watch
	defer func() { watch = nil; o.Unwatch() }()
	return e.measure(t), o
}

func runs(o *sqlite.Oracle, class string) bool {
	if class == "Next" {
		return o.Ran["Next"]+o.Ran["Prev"]+o.Ran["SorterNext"] > 0
	}
	return class == "" || o.Ran[class] > 0
}

// Every number of the table, counted a second way.
func TestRowMeterOracle(t *testing.T) {
	for i := range expectations {
		e := &expectations[i]
		got, o := e.observe(t)
		if want := (sqlite.Counts{RowsRead: o.Read, RowsWritten: o.Written}); got != want {
			t.Errorf("%s\n\tthe meter has %+v, its opcodes make %+v: %v", e.sql, got, want, o.Ran)
		}
		if !runs(o, e.class) {
			t.Errorf("%s\n\tdoesn't run %s: %v", e.sql, e.class, o.Ran)
		}
	}
}

// Without its anchor no row of a class has its number: each addition to the library is needed, and each row proves one.
func TestRowMeterAnchors(t *testing.T) {
	defer sqlite.MeterOff(0)
	rows := make(map[string][]*expectation)
	for i := range expectations {
		rows[expectations[i].class] = append(rows[expectations[i].class], &expectations[i])
	}
	structural := map[string]func(*testing.T) error{"swap": reprepared, "zeros": fresh, "size": roomy}
	for i, anchor := range sqlite.MeterAnchors() {
		sqlite.MeterOff(0)
		if check := structural[anchor]; check != nil {
			if err := check(t); err != nil {
				t.Errorf("with all anchors: %v", err)
			}
			sqlite.MeterOff(1 << i)
			if check(t) == nil {
				t.Errorf("nothing fails without the anchor %s", anchor)
			}
			continue
		}
		sqlite.MeterOff(1 << i)
		if len(rows[anchor]) == 0 {
			t.Errorf("no row needs the anchor %s", anchor)
		}
		for _, e := range rows[anchor] {
			if e.measure(t) == e.want() {
				t.Errorf("%s\n\tis right without the anchor %s", e.sql, anchor)
			}
		}
		delete(rows, anchor)
	}
	delete(rows, "")
	for class := range rows {
		t.Errorf("there is no anchor %s", class)
	}
}

// reprepared has SQLite compile a statement anew between two runs.
func reprepared(t *testing.T) error {
	c := meterConn(t)
	s, _, err := c.Prepare([]byte("SELECT * FROM n"), nil)
	if err != nil {
		return err
	}
	defer s.Done()
	for i := range 2 {
		if err := drain(s); err != nil {
			return err
		}
		s.Reset()
		must(t, c, fmt.Sprintf("CREATE TABLE more%d(a)", i))
	}
	if n := s.Counts(0).RowsRead; n != 20 {
		return fmt.Errorf("two runs read %d rows, want 20", n)
	}
	return nil
}

func drain(s *sqlite.Stmt) error {
	for {
		if row, err := s.Step(); err != nil || !row {
			return err
		}
	}
}

// fresh makes statements in the memory of others whose meters say something.
func fresh(t *testing.T) error {
	c := meterConn(t)
	for i := range 50 {
		s, _, err := c.Prepare([]byte(fmt.Sprintf("SELECT %d FROM n", i)), nil)
		if err != nil {
			return err
		}
		s.Spoil()
		s.Done()
	}
	c.DropStatements()
	for i := range 50 {
		s, _, err := c.Prepare([]byte(fmt.Sprintf("SELECT -%d FROM n", i)), nil)
		if err != nil {
			return err
		}
		defer s.Done()
		if n := s.Cost(); n != (sqlite.Counts{}) {
			return fmt.Errorf("a new statement's meter has %+v", n)
		}
	}
	return nil
}

// roomy tells whether a statement has the memory that its struct takes. It must not run where it hasn't.
func roomy(t *testing.T) error {
	c := meterConn(t)
	s, _, err := c.Prepare([]byte("SELECT 1"), nil)
	if err != nil {
		return err
	}
	defer s.Done()
	if has, needs := s.Room(); has < needs {
		return fmt.Errorf("a statement has %d bytes, and needs %d", has, needs)
	}
	return nil
}

// Statements at random, failing ones too, one after the other in the same databases.
func TestRowMeterRandom(t *testing.T) {
	const databases, statements = 20, 150
	ran, failed := make(map[string]int), 0
	for seed := range databases {
		r := &randomSQL{rand.New(rand.NewPCG(uint64(seed), 7))}
		c := meterConn(t)
		for range statements {
			sql := r.statement()
			o := new(sqlite.Oracle)
			watch = o.Watch
			got, err := meter(c, sql)
			watch = nil
			o.Unwatch()
			if want := (sqlite.Counts{RowsRead: o.Read, RowsWritten: o.Written}); got != want {
				t.Errorf("seed %d: %s\n\tthe meter has %+v, its opcodes make %+v: %v (%v)", seed, sql, got, want, o.Ran, err)
			}
			var e *sqlite.Error
			if errors.As(err, &e) {
				failed++
				if e.Code.Primary() == sqlite.CodeError && !strings.Contains(e.Message, "malformed JSON") && !strings.Contains(e.Message, "overflow") {
					t.Errorf("the generator's mistake: %s: %v", sql, err)
				}
			}
			for name, n := range o.Ran {
				ran[name] += n
			}
		}
		c.Close()
	}
	for _, name := range sqlite.MeterAnchors() {
		if name != "swap" && name != "zeros" && name != "size" && ran[name] < 20 {
			t.Errorf("%s ran %d times only", name, ran[name])
		}
	}
	if failed < databases*statements/50 {
		t.Errorf("only %d statements failed", failed)
	}
}

// randomSQL makes statements on the fixture's tables.
type randomSQL struct{ *rand.Rand }

func (r *randomSQL) one(of ...string) string { return of[r.IntN(len(of))] }

// table is a table with its columns, the key first.
func (r *randomSQL) table() (name, key, column, other string) {
	switch r.IntN(7) {
	case 0:
		return "n", "id", "a", "b"
	case 1:
		return "x", "id", "k", "v"
	case 2:
		return "u", "id", "e", "v"
	case 3:
		return "w", "k", "v", "k"
	case 4:
		return "two", "id", "a", "b"
	case 5:
		return "pt", "id", "s", "v"
	}
	return "c", "id", "pid", "id"
}

func (r *randomSQL) value() string {
	return r.one("NULL", "'k2'", "'e3'", "'text'", fmt.Sprint(r.IntN(12)), fmt.Sprint(r.IntN(12)), fmt.Sprint(r.IntN(2000)-500), "2.5", "x'00'")
}

func (r *randomSQL) where(key, column, other string) string {
	col := r.one(key, column, other)
	switch r.IntN(8) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf(" WHERE %s IN (%s,%s,%s)", col, r.value(), r.value(), r.value())
	case 2:
		return fmt.Sprintf(" WHERE %s BETWEEN %s AND %s", col, r.value(), r.value())
	case 3:
		return fmt.Sprintf(" WHERE %s=%s OR %s>%s", key, r.value(), column, r.value())
	case 4:
		return fmt.Sprintf(" WHERE %s %sIN (SELECT %s FROM %s)", col, r.one("", "NOT "), r.one("id", "id%3"), r.one("n", "x", "g", "e"))
	case 5:
		return fmt.Sprintf(" WHERE EXISTS(SELECT 1 FROM h WHERE h.a%s%s)", r.one("=", "<"), col)
	}
	return fmt.Sprintf(" WHERE %s%s%s", col, r.one("=", "<", "<=", ">", ">=", "=", " IS "), r.value())
}

func (r *randomSQL) tail(key, column, other string) string {
	s := ""
	if r.IntN(2) == 0 {
		s += fmt.Sprintf(" ORDER BY %s%s", r.one(key, column, other, other+","+key), r.one("", " DESC"))
	}
	if r.IntN(3) == 0 {
		s += fmt.Sprintf(" LIMIT %d OFFSET %d", r.IntN(6), r.IntN(3))
	}
	return s
}

func (r *randomSQL) selection() string {
	name, key, column, other := r.table()
	where, tail := r.where(key, column, other), r.tail(key, column, other)
	switch r.IntN(17) {
	case 12, 13:
		return fmt.Sprintf("SELECT * FROM %s WHERE %s%s%s ORDER BY %s DESC%s", name, key, r.one("<", "<="), r.value(), key, r.one("", " LIMIT 2"))
	case 14:
		return fmt.Sprintf("SELECT * FROM %s ORDER BY %s+0 LIMIT %d", r.one("n", "g", "e", "x"), r.one("id", "-id"), 1+r.IntN(4))
	case 0:
		return fmt.Sprintf("SELECT count(*) FROM %s", r.one(name, "g", "h", "e"))
	case 1:
		return fmt.Sprintf("SELECT %s(%s) FROM %s%s", r.one("min", "max", "sum", "count", "json"), r.one(key, column, other), name, where)
	case 2:
		return fmt.Sprintf("SELECT %s, count(*) FROM %s%s GROUP BY %s HAVING count(*)>%d", column, name, where, column, r.IntN(3))
	case 3:
		return fmt.Sprintf("SELECT DISTINCT %s FROM %s%s%s", column, name, where, strings.Replace(tail, other+","+key, column, 1))
	case 4:
		return fmt.Sprintf("SELECT 1 FROM (SELECT %s AS kk, %s AS cc FROM %s%s) AS l %s JOIN %s AS m ON m.id=l.%s", key, column, name, where, r.one("", "LEFT", "RIGHT", "FULL"), r.one("n", "x", "p", "e"), r.one("kk", "cc"))
	case 5:
		return fmt.Sprintf("SELECT %s FROM %s%s %s SELECT id FROM %s", column, name, where, r.one("UNION", "UNION ALL", "EXCEPT", "INTERSECT"), r.one("n", "p", "e"))
	case 6:
		return fmt.Sprintf("SELECT %s, %s OVER (%s ORDER BY %s) FROM %s%s", key, r.one("row_number()", "sum("+column+")", "lag("+column+")", "rank()"), r.one("", "PARTITION BY "+column), other, name, where)
	case 7:
		return fmt.Sprintf("WITH RECURSIVE i(n) AS (VALUES(1) %s SELECT n+1 FROM i WHERE n<%d) SELECT n FROM i, %s WHERE i.n=%s.%s", r.one("UNION", "UNION ALL"), r.IntN(20), name, name, key)
	case 8:
		return fmt.Sprintf("SELECT value FROM json_each('[1,2,%d]') AS j %s JOIN %s ON %s.%s=j.value", r.IntN(9), r.one("", "LEFT"), name, name, key)
	case 9:
		return fmt.Sprintf("SELECT rowid FROM f WHERE f MATCH '%s'", r.one("red", "blue", "green OR fish", "none"))
	case 10:
		return fmt.Sprintf("SELECT * FROM r WHERE x0>=%d AND x1<%d", r.IntN(6), r.IntN(9))
	case 11:
		return fmt.Sprintf("SELECT (SELECT max(%s) FROM %s WHERE %s<=l.a) FROM n AS l", column, name, key)
	}
	return fmt.Sprintf("SELECT * FROM %s%s%s", name, where, tail)
}

func (r *randomSQL) statement() string {
	name, key, column, other := r.table()
	switch r.IntN(22) {
	case 0, 1:
		return fmt.Sprintf("INSERT %sINTO %s(%s,%s) VALUES(%s,%s),(%s,%s)", r.one("", "OR IGNORE ", "OR REPLACE ", "OR FAIL "), name, key, column, r.value(), r.value(), r.value(), r.value())
	case 2:
		return fmt.Sprintf("INSERT INTO %s(%s,%s) VALUES(%s,%s) ON CONFLICT DO %s", name, key, column, r.value(), r.value(), r.one("NOTHING", "UPDATE SET "+column+"=excluded."+column))
	case 3:
		return fmt.Sprintf("INSERT INTO %s SELECT %s FROM %s%s", r.one("h", "f(body)", "e(a)", "t(a)", "ai(a)", "p(id)"), column, name, r.where(key, column, other))
	case 4, 5:
		return fmt.Sprintf("UPDATE %s%s SET %s=%s%s%s", r.one("", "OR IGNORE ", "OR REPLACE "), name, r.one(key, column, column), r.one(r.value(), column, key+"+1"), r.where(key, column, other), r.one("", "", " RETURNING *"))
	case 6:
		return fmt.Sprintf("DELETE FROM %s%s%s", name, r.where(key, column, other), r.one("", "", " RETURNING *"))
	case 7:
		return r.one("DELETE FROM h", "DELETE FROM log", "DELETE FROM w", "DELETE FROM t", "DELETE FROM p WHERE id=2", "DELETE FROM f WHERE rowid=2", "DELETE FROM ai")
	case 8:
		return fmt.Sprintf("INSERT INTO t(id,a) VALUES(%s,%d)", r.value(), r.IntN(5))
	case 9:
		return fmt.Sprintf("UPDATE t SET a=%d WHERE id<%d", r.IntN(5), r.IntN(9))
	case 10:
		return fmt.Sprintf("UPDATE %s SET id=id+%d", r.one("p", "c", "x"), 100+r.IntN(900))
	case 11:
		return fmt.Sprintf("INSERT %sINTO r VALUES(%d,%d,%d)", r.one("", "OR REPLACE ", "OR IGNORE "), r.IntN(9), r.IntN(5), 5+r.IntN(5))
	case 12:
		return fmt.Sprintf("UPDATE f SET body='%s' WHERE rowid<%d", r.one("green grass", "red"), r.IntN(5))
	case 13:
		return r.one("CREATE INDEX IF NOT EXISTS nx ON n(a, b)", "DROP INDEX IF EXISTS nx", "ANALYZE", "REINDEX", "PRAGMA integrity_check", "CREATE TABLE IF NOT EXISTS fresh AS SELECT * FROM n", "INSERT INTO vi VALUES(900, 1)", "EXPLAIN SELECT * FROM n")
	}
	return r.selection()
}
