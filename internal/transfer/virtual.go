package transfer

import (
	"context"
	"fmt"
	"strings"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
)

// For a virtual table the shell's .dump writes, between PRAGMA writable_schema=ON and OFF,
//
//	INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','f','f',0,'CREATE VIRTUAL TABLE f …');
//
// and then the shadow tables with CREATE TABLE IF NOT EXISTS and their rows. A text with the run of sqlite_schema could
// make any schema, so such a statement never runs on the scratch.

// schemaRows carries out a statement that inserts into sqlite_schema, and returns how many bytes of b it takes.
func (l *loader) schemaRows(b []byte) (n int, err error) {
	rows, n, err := evaluate(l.ctx, b)
	if err != nil {
		return 0, err
	}
	for _, r := range rows {
		if err := l.schemaRow(r); err != nil {
			return 0, err
		}
	}
	l.report.Statements++
	l.report.RowsWritten += int64(len(rows))
	return n, nil
}

// schemaEntry is a row that a text wants to have in sqlite_schema.
type schemaEntry struct {
	typ, name, table, sql string
	rootless              bool // rootpage is 0
}

// evaluate runs the statement that b begins with where it can do no harm: in an empty database in memory, whose
// sqlite_schema can be written and where it may read nothing. It returns the rows that it inserted.
func evaluate(ctx context.Context, b []byte) (rows []schemaEntry, n int, err error) {
	permit := func(a sqlite.Access) error {
		switch a.Action {
		case sqlite.Insert:
			if isSchema(a.Name) {
				return nil
			}
		case sqlite.Select:
			return nil
		case sqlite.Function:
			switch lower(a.Detail) {
			case "replace", "char", "unistr": // as the shell writes newlines
				return nil
			}
		}
		return &gate.Refusal{Code: gate.CodeSystem, Message: "Only values can be inserted into sqlite_schema", Hint: schemaHint}
	}
	err = use(ctx, sqlite.Scratch{Shadows: true}, func(c *sqlite.Conn) error {
		if err := c.Exec("PRAGMA writable_schema=ON"); err != nil {
			return err
		}
		if err := c.Exec("BEGIN"); err != nil {
			return err
		}
		s, taken, err := c.Prepare(b, permit)
		if err != nil {
			return err
		}
		n = taken
		for {
			row, err := s.Step()
			if err != nil {
				s.Done()
				return err
			}
			if !row {
				break
			}
		}
		s.Done()
		return each(c, "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema", nil, func(s *sqlite.Stmt) error {
			at := func(i int) string { return string(s.Column(i).Bytes) }
			root := s.Column(3)
			rows = append(rows, schemaEntry{typ: at(0), name: at(1), table: at(2), sql: at(4),
				rootless: root.Kind == sqlite.Integer && root.Int == 0})
			return nil
		})
	})
	return rows, n, err
}

const schemaHint = "of writes to sqlite_schema only those are understood that the sqlite3 shell's .dump makes for virtual tables: " +
	"('table', name, name, 0, 'CREATE VIRTUAL TABLE name …')"

// schemaRow makes the virtual table that a row stands for, empty.
func (l *loader) schemaRow(r schemaEntry) error {
	refuse := &gate.Refusal{Code: gate.CodeSystem, Message: fmt.Sprintf("sqlite_schema can't be written: the row of %q is not a virtual table's", r.name), Hint: schemaHint}
	if r.typ != "table" || !r.rootless || r.table != r.name || r.name == "" {
		return refuse
	}
	aside, err := l.setAside(r.name)
	if err != nil {
		return err
	}
	var made string
	s, n, err := l.conn.Prepare([]byte(r.sql), func(a sqlite.Access) error {
		if a.Action == sqlite.CreateVTable {
			made = a.Name
		}
		return l.gate.Permit(a)
	})
	if err != nil {
		return err
	}
	if s == nil {
		return refuse
	}
	defer s.Done()
	if made != r.name || blank([]byte(r.sql)[n:]) != len(r.sql)-n || s.Explain {
		return refuse
	}
	if _, err := s.Step(); err != nil {
		return err
	}
	// What the module put into its shadow tables stands in the text too.
	shadows, err := l.shadows(r.name)
	if err != nil {
		return err
	}
	for _, name := range shadows {
		if err := l.conn.Exec("DELETE FROM main." + sqlite.Quote(name)); err != nil {
			return err
		}
	}
	return l.putBack(aside, shadows)
}

// shadows are the tables that a virtual table keeps its content in.
func (l *loader) shadows(virtual string) (names []string, err error) {
	shapes, err := l.conn.Shapes()
	for _, s := range shapes {
		if s.Shadow && strings.EqualFold(sqlite.ShadowOf(s.Name), virtual) {
			names = append(names, s.Name)
		}
	}
	return names, err
}

// setAside renames tables that would be in a virtual table's way: after a VACUUM its shadow tables come before it in
// a dump, and are here with all their rows. The result is name and present name of each.
func (l *loader) setAside(virtual string) (aside [][2]string, err error) {
	shapes, err := l.conn.Shapes()
	if err != nil {
		return nil, err
	}
	if _, ok := shapes[lower(virtual)]; ok {
		return nil, nil // it exists, as SQLite will say
	}
	for _, s := range shapes {
		if s.Virtual || !strings.EqualFold(sqlite.ShadowOf(s.Name), virtual) {
			continue
		}
		name := unused(l.conn)
		if err := l.rename(s.Name, name); err != nil {
			return nil, err
		}
		aside = append(aside, [2]string{s.Name, name})
	}
	return aside, nil
}

// rename leaves what names the table alone, which may not compile.
func (l *loader) rename(from, to string) error {
	for _, sql := range []string{"PRAGMA legacy_alter_table=ON", "ALTER TABLE main." + sqlite.Quote(from) + " RENAME TO " + sqlite.Quote(to), "PRAGMA legacy_alter_table=OFF"} {
		if err := l.conn.Exec(sql); err != nil {
			return err
		}
	}
	return nil
}

// putBack gives the virtual table's own shadow tables the rows that were set aside for it, and other tables their names.
func (l *loader) putBack(aside [][2]string, shadows []string) error {
	for _, a := range aside {
		shadow := ""
		for _, s := range shadows {
			if strings.EqualFold(s, a[0]) {
				shadow = s
			}
		}
		if shadow == "" {
			if err := l.rename(a[1], a[0]); err != nil {
				return err
			}
			continue
		}
		if err := l.conn.Exec("INSERT INTO main." + sqlite.Quote(shadow) + " SELECT * FROM main." + sqlite.Quote(a[1])); err != nil {
			return err
		}
		if err := l.conn.Exec("DROP TABLE main." + sqlite.Quote(a[1])); err != nil {
			return err
		}
	}
	return nil
}
