package gate

import (
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

func TestSplit(t *testing.T) {
	const trigger = "CREATE TRIGGER g AFTER INSERT ON t WHEN new.a BEGIN INSERT INTO t SELECT CASE a WHEN 1 THEN 2 END FROM t; UPDATE t SET a=';'; END"
	for sql, want := range map[string][]string{
		"": nil, " ;; -- c\n; /* ; */ ": nil, "SELECT 1": {"SELECT 1"}, "SELECT 1;": {"SELECT 1"}, " SELECT 1 ; SELECT 2 -- ;\n": {"SELECT 1", "SELECT 2"},
		";SELECT ';' , \";\", [;], `;`;;SELECT 2": {"SELECT ';' , \";\", [;], `;`", "SELECT 2"},
		"SELECT 1 -- ;\n; /* ; */ SELECT 2 /* ; ": {"SELECT 1 -- ;", "SELECT 2"},
		trigger + "; SELECT 3":                    {trigger, "SELECT 3"},
		"create /* ; */ temp\ntrigger g after insert on t begin select 1; end ;delete from t": {"create /* ; */ temp\ntrigger g after insert on t begin select 1; end", "delete from t"},
		"EXPLAIN QUERY PLAN " + trigger: {"EXPLAIN QUERY PLAN " + trigger},
		"CREATE TABLE trigger(a); DELETE FROM t; SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 1": {"CREATE TABLE trigger(a)", "DELETE FROM t", "SELECT CASE 1 WHEN 1 THEN 2 END", "SELECT 1"},
		"VACUUM;PRAGMA optimize": {"VACUUM", "PRAGMA optimize"},
	} {
		got, params, ok := Split(sql)
		if !ok || params || strings.Join(got, "\x01") != strings.Join(want, "\x01") {
			t.Errorf("%q: %q, %v, %v", sql, got, params, ok)
		}
	}
	for _, sql := range []string{"SELECT ?", "SELECT 1; DELETE FROM t WHERE a = :a", "SELECT @b", "SELECT $c", "SELECT ?12"} {
		if _, params, ok := Split(sql); !ok || !params {
			t.Errorf("%q: %v, %v", sql, params, ok)
		}
	}
	for _, sql := range []string{"SELECT 'a", "SELECT (1", "SELECT \"a; SELECT 1", "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1", "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; SELECT 2;"} {
		if got, _, ok := Split(sql); ok {
			t.Errorf("%q was split into %q", sql, got)
		}
	}
}

// FuzzSplitSQL holds Split against SQLite: where each piece compiles, the tails that Prepare returns are the same pieces.
func FuzzSplitSQL(f *testing.F) {
	for _, s := range []string{"SELECT 1; SELECT a FROM t", "DELETE FROM t;UPDATE t SET a=';'--\n;", "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; DELETE FROM t; END; SELECT CASE a WHEN 1 THEN 2 END FROM t;", ";;SELECT [;]"} {
		f.Add(s)
	}
	th := sqlite.NewThread()
	f.Cleanup(th.Close)
	c, err := sqlite.OpenMemory(th)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	if err := c.EachRow("CREATE TABLE t(a, b)", func(*sqlite.Stmt) error { return nil }); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		pieces, _, ok := Split(sql)
		if !ok || strings.Contains(sql, "\x00") {
			return
		}
		var theirs []string
		for rest := sql; rest != ""; {
			s, n, err := c.Prepare([]byte(rest), nil)
			if err != nil {
				return // it would fail when it runs
			}
			if n == 0 {
				break
			}
			if s != nil {
				s.Done()
				theirs = append(theirs, rest[:n])
			}
			rest = rest[n:]
		}
		if len(theirs) != len(pieces) {
			t.Fatalf("%q: %q, SQLite's %q", sql, pieces, theirs)
		}
		for i := range pieces {
			if !strings.Contains(theirs[i], pieces[i]) {
				t.Fatalf("%q: %q, SQLite's %q", sql, pieces[i], theirs[i])
			}
		}
	})
}
