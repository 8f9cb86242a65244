package schema_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/branch/schema"
)

// rebuilt is a parent with children, and the plan of a merge that makes it anew.
func rebuilt(t *testing.T) (*database, schema.Plan) {
	d, branch := openFile(t), openMemory(t)
	d.must(family)
	base := d.objects()
	d.must(relatives)
	branch.must(family + "; DROP TABLE p; CREATE TABLE p(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b TEXT)")
	return d, merge(t, base, base, branch.objects())
}

// TestWithForeignKeys shows what the statements have to be compiled without foreign keys for: deferring them doesn't keep DROP TABLE from cascading.
func TestWithForeignKeys(t *testing.T) {
	d, plan := rebuilt(t)
	d.must("DELETE FROM restricts; BEGIN; PRAGMA foreign_keys=OFF; PRAGMA defer_foreign_keys=ON")
	if err := plan.Run(d.conn.Exec); err != nil {
		t.Fatal(err)
	}
	if got := d.rows("SELECT (SELECT count(*) FROM cascades), (SELECT count(*) FROM grandchild)"); got != "0,0" {
		t.Errorf("DROP TABLE with foreign keys on leaves %s rows of those that refer to it: Conn.System isn't needed any more", got)
	}
	d.must("ROLLBACK")
	d.conn.DropStatements()
	if err := d.run(plan); err != nil {
		t.Fatal(err)
	}
	if got := d.rows("SELECT (SELECT count(*) FROM cascades), (SELECT count(*) FROM grandchild)"); got != "2,2" {
		t.Errorf("%s rows are left", got)
	}
	d.must("DELETE FROM p WHERE id=1") // and foreign keys are enforced as ever
	if got := d.rows("SELECT (SELECT count(*) FROM cascades), (SELECT count(*) FROM grandchild)"); got != "1,1" {
		t.Errorf("after a deletion %s rows are left", got)
	}
	d.healthy()
}

// TestRunFails stops a plan at every statement.
func TestRunFails(t *testing.T) {
	_, plan := rebuilt(t)
	for at := range plan.Statements {
		d, _ := rebuilt(t)
		before := d.texts()
		d.must("BEGIN")
		n := 0
		err := plan.Run(func(sql string) error {
			if n++; n == at+1 {
				return errors.New("stop")
			}
			s, err := d.conn.System(sql)
			if err != nil {
				return err
			}
			defer s.Done()
			_, err = s.Step()
			return err
		})
		if err == nil || err.Error() != "stop" {
			t.Fatal(err)
		}
		d.must("ROLLBACK")
		d.conn.DropStatements()
		if got := d.texts(); got != before {
			t.Errorf("stopped at %d the schema is %s", at, got)
		}
		d.healthy() // which looks at legacy_alter_table
	}
}

func TestRead(t *testing.T) {
	d := openFile(t)
	if err := d.conn.CreateReserved("CREATE TABLE sqlite_persql_x_v1(a UNIQUE)"); err != nil {
		t.Fatal(err)
	}
	d.must(`CREATE TABLE _persql_old(a); CREATE INDEX own ON _persql_old(a); CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, u UNIQUE);
		CREATE VIRTUAL TABLE f USING fts5(a); CREATE VIRTUAL TABLE r USING rtree(id, a, b); CREATE VIRTUAL TABLE w USING fts5vocab(f, row);
		CREATE TABLE w_data(a); CREATE TABLE t_data(a); CREATE VIEW F_x AS SELECT 1; CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END; CREATE INDEX i ON t(u); INSERT INTO t VALUES(1,2); ANALYZE`)
	var got []string
	for _, o := range d.objects() {
		got = append(got, o.Type+" "+o.Name+" "+o.Table)
	}
	if s := strings.Join(got, ", "); s != "table t t, table f f, table r r, table w w, table w_data w_data, table t_data t_data, view F_x F_x, trigger g t, index i t" {
		t.Error(s)
	}
}

func TestLimits(t *testing.T) {
	var limit *schema.LimitError
	many := make([]schema.Object, schema.MaxObjects+1)
	for i := range many {
		n := fmt.Sprintf("t%d", i)
		many[i] = schema.Object{Type: "table", Name: n, Table: n, SQL: "CREATE TABLE " + n + "(a)"}
	}
	if _, err := schema.Merge(context.Background(), nil, nil, many, nil); !errors.As(err, &limit) {
		t.Errorf("too many objects: %v", err)
	}
	long := []schema.Object{{Type: "view", Name: "v", Table: "v", SQL: "CREATE VIEW v AS SELECT '" + strings.Repeat("x", 65<<20) + "'"}}
	if _, err := schema.Merge(context.Background(), nil, long, nil, nil); !errors.As(err, &limit) {
		t.Errorf("too much text: %v", err)
	}
	for _, sql := range []string{"DROP TABLE t", "", "CREATE TABLE", "SELECT 1; CREATE TABLE t(a)", "CREATE TABLE t("} {
		bad := []schema.Object{{Type: "table", Name: "t", Table: "t", SQL: sql}}
		p, err := schema.Merge(context.Background(), nil, nil, bad, nil)
		if err == nil {
			t.Errorf("%q makes %+v", sql, p)
		}
	}
	// Work stops with its context, wherever it is.
	branch := many[:2000]
	begun := time.Now()
	for _, after := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(context.Background(), after)
		if _, err := schema.Merge(ctx, nil, branch[:1], branch, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", after, err)
		}
		cancel()
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
}

func TestEmptySchemas(t *testing.T) {
	if p := merge(t, nil, nil, nil); !p.Empty() {
		t.Errorf("%+v", p)
	}
	one := []schema.Object{{Type: "table", Name: "t", Table: "t", SQL: "CREATE TABLE t(a)"}}
	if p := merge(t, nil, nil, one); len(p.Statements) != 1 || names(p.Added) != "table t" {
		t.Errorf("%+v", p)
	}
	if p := merge(t, one, one, nil); len(p.Statements) != 1 || names(p.Removed) != "table t" {
		t.Errorf("%+v", p)
	}
}

// wide is a schema of n tables, each with an index, a view and a trigger.
func wide(n int) (all []schema.Object) {
	for i := range n {
		t := fmt.Sprintf("t%d", i)
		all = append(all, schema.Object{Type: "table", Name: t, Table: t, SQL: "CREATE TABLE " + t + "(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b REFERENCES t0)"},
			schema.Object{Type: "index", Name: t + "i", Table: t, SQL: "CREATE INDEX " + t + "i ON " + t + "(a)"},
			schema.Object{Type: "view", Name: t + "v", Table: t + "v", SQL: "CREATE VIEW " + t + "v AS SELECT a FROM " + t},
			schema.Object{Type: "trigger", Name: t + "g", Table: t, SQL: "CREATE TRIGGER " + t + "g AFTER INSERT ON " + t + " BEGIN SELECT 1; END"})
	}
	return all
}

// TestGreat merges a great schema; with PERSQLD_SCHEMAS set the greatest there may be.
func TestGreat(t *testing.T) {
	n := 250
	if os.Getenv("PERSQLD_SCHEMAS") != "" {
		n = schema.MaxObjects / 4
	}
	base := wide(n)
	branch := append([]schema.Object(nil), base...)
	branch[0].SQL = "CREATE TABLE t0(id INTEGER PRIMARY KEY, a TEXT, b REFERENCES t0)"
	begun := time.Now()
	p := merge(t, base, base, branch)
	if names(p.Changed) != "table t0" || len(p.Check) != n {
		t.Errorf("changed: %s, to check: %d", names(p.Changed), len(p.Check))
	}
	t.Logf("%d objects in %v", len(base), time.Since(begun))
}

func BenchmarkMerge(b *testing.B) {
	base := wide(50)
	for _, c := range []struct{ name, sql string }{
		{"same", base[0].SQL}, {"column", "CREATE TABLE t0(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b REFERENCES t0, c)"}, {"rebuild", "CREATE TABLE t0(id INTEGER PRIMARY KEY, a TEXT, b REFERENCES t0)"},
	} {
		branch := append([]schema.Object(nil), base...)
		branch[0].SQL = c.sql
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				merge(b, base, base, branch)
			}
		})
	}
}
