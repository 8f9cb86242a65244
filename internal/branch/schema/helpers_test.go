package schema_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/branch/schema"
	"github.com/persqld/persqld/internal/sqlite"
)

// database is a real file as the store opens it, foreign keys enforced, or one in memory with foreign keys off.
type database struct {
	t    testing.TB
	conn *sqlite.Conn
}

func openFile(t testing.TB) *database {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db.sqlite")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	th := sqlite.NewThread()
	conn, err := sqlite.Open(sqlite.Config{Path: path}, th)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); th.Close() })
	d := &database{t, conn}
	d.must("PRAGMA synchronous=OFF") // nobody loses power here
	return d
}

func openMemory(t testing.TB) *database {
	t.Helper()
	th := sqlite.NewThread()
	conn, err := sqlite.OpenScratch(sqlite.Scratch{}, th)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); th.Close() })
	return &database{t, conn}
}

// exec runs a script.
func (d *database) exec(script string) error {
	for rest := []byte(script); ; {
		s, n, err := d.conn.Prepare(rest, nil)
		if err != nil {
			return fmt.Errorf("%w in %q", err, rest)
		}
		if s == nil {
			return nil
		}
		rest = rest[n:]
		for row := true; row && err == nil; {
			row, err = s.Step()
		}
		sql := s.SQL()
		s.Done()
		if err != nil {
			return fmt.Errorf("%w in %q", err, sql)
		}
	}
}

func (d *database) must(script string) {
	d.t.Helper()
	if err := d.exec(script); err != nil {
		d.t.Fatal(err)
	}
}

func (d *database) query(sql string, row func(*sqlite.Stmt) error) error {
	s, err := d.conn.Own(sql)
	if err != nil {
		return err
	}
	defer s.Done()
	for {
		more, err := s.Step()
		if err != nil || !more {
			return err
		}
		if err := row(s); err != nil {
			return err
		}
	}
}

// rows is what a query returns, values behind commas and rows behind semicolons.
func (d *database) rows(sql string) string {
	d.t.Helper()
	var all []string
	err := d.query(sql, func(s *sqlite.Stmt) error {
		var vals []string
		for i := range s.Columns() {
			switch v := s.Column(i); v.Kind {
			case sqlite.Null:
				vals = append(vals, "NULL")
			case sqlite.Integer:
				vals = append(vals, fmt.Sprint(v.Int))
			case sqlite.Real:
				vals = append(vals, fmt.Sprintf("%g", v.Float))
			default:
				vals = append(vals, string(v.Bytes))
			}
		}
		all = append(all, strings.Join(vals, ","))
		return nil
	})
	if err != nil {
		d.t.Errorf("%s: %v", sql, err)
	}
	return strings.Join(all, ";")
}

func (d *database) objects() []schema.Object {
	d.t.Helper()
	all, err := schema.Read(d.query)
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}

// texts is the whole of sqlite_schema, SQLite's own included, in an order of its own.
func (d *database) texts() string {
	d.t.Helper()
	return d.rows("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema ORDER BY 1, 2")
}

func merge(t testing.TB, base, parent, branch []schema.Object) schema.Plan {
	t.Helper()
	p, err := schema.Merge(context.Background(), base, parent, branch, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run carries a plan out as the store does: one transaction with foreign keys on, each statement compiled without them, then a look at those
// that the plan names.
func (d *database) run(p schema.Plan) (err error) {
	if err := d.conn.Exec("BEGIN"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.conn.Exec("ROLLBACK"))
			d.conn.DropStatements()
		}
	}()
	err = p.Run(func(sql string) error {
		s, err := d.conn.System(sql)
		if err != nil {
			return fmt.Errorf("%w in %q", err, sql)
		}
		defer s.Done()
		for row := true; row && err == nil; {
			row, err = s.Step()
		}
		if err != nil {
			return fmt.Errorf("%w in %q", err, sql)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range p.Check {
		bad := 0
		if err := d.query("PRAGMA foreign_key_check("+sqlite.Quote(name)+")", func(*sqlite.Stmt) error { bad++; return nil }); err != nil {
			return err
		}
		if bad > 0 {
			return fmt.Errorf("%d rows of %s refer to nothing", bad, name)
		}
	}
	return d.conn.Exec("COMMIT")
}

// healthy runs SQLite's own checks.
func (d *database) healthy() {
	d.t.Helper()
	if got := d.rows("PRAGMA integrity_check"); got != "ok" {
		d.t.Errorf("integrity_check: %s", got)
	}
	if got := d.rows("PRAGMA foreign_key_check"); got != "" {
		d.t.Errorf("foreign_key_check: %s", got)
	}
	if got := d.rows("SELECT * FROM pragma_legacy_alter_table, pragma_foreign_keys"); got != "0,1" {
		d.t.Errorf("legacy_alter_table and foreign_keys: %s", got)
	}
}

func key(o schema.Object) string {
	if o.Type == "trigger" {
		return "trigger " + sqlite.Fold(o.Name)
	}
	return "other " + sqlite.Fold(o.Name)
}

func byKey(all []schema.Object) map[string]schema.Object {
	m := map[string]schema.Object{}
	for _, o := range all {
		m[key(o)] = o
	}
	return m
}

// reference is a merge of objects that only one side changed, written plainly. A change that both made is either's.
func reference(base, parent, branch []schema.Object) (want map[string]schema.Object) {
	b, p, h := byKey(base), byKey(parent), byKey(branch)
	want = map[string]schema.Object{}
	for k, o := range p {
		was, inBase := b[k]
		now, inBranch := h[k]
		switch {
		case inBase && inBranch && schema.Same(&was, &now): // the branch left it alone
			want[k] = o
		case !inBase && !inBranch: // the parent added it
			want[k] = o
		case inBranch:
			want[k] = now
		}
	}
	for k, o := range h {
		if _, ok := b[k]; !ok {
			want[k] = o
		}
		if was, ok := b[k]; ok && !schema.Same(&was, &o) {
			want[k] = o
		}
	}
	return want
}

func names(changes []schema.Change) string {
	var all []string
	for _, c := range changes {
		all = append(all, c.Type+" "+c.Name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
