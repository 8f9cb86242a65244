package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
)

// inspect looks at a scratch file as the next one to open it will: whether it is whole, and whether its views and
// triggers do only what a client may. Then it gives it the form that sqlite.Open expects, and makes it durable.
func inspect(ctx context.Context, path string) error {
	err := use(ctx, sqlite.Scratch{Path: path}, func(c *sqlite.Conn) error {
		if err := integrity(c); err != nil {
			return err
		}
		if err := judge(c); err != nil {
			return err
		}
		return toWAL(c)
	})
	if err != nil {
		return damaged(err) // what the text did to a shadow table can be in the way of the schema
	}
	return settle(path)
}

// integrity runs SQLite's own check, which includes those of FTS5 and R-Tree.
func integrity(c *sqlite.Conn) error {
	v, err := first(c, "PRAGMA integrity_check(1)")
	if err != nil {
		return damaged(err)
	}
	if msg := string(v.Bytes); msg != "ok" {
		return &Error{Reason: ReasonIntegrity, Message: "SQLite's integrity check fails: " + msg,
			Hint: "repair the database with the sqlite3 shell (.recover, or REINDEX for an index) and send it again"}
	}
	return nil
}

// judge compiles every view, and every statement that a trigger answers to, under the gate's policy. What doesn't compile
// for another reason is harmless: a view may name a table that is gone.
func judge(c *sqlite.Conn) error {
	var views, tables []string
	err := each(c, "SELECT DISTINCT type, iif(type='view', name, tbl_name) FROM sqlite_schema WHERE type IN ('view', 'trigger')", nil, func(s *sqlite.Stmt) error {
		name := string(s.Column(1).Bytes)
		if string(s.Column(0).Bytes) == "view" {
			views = append(views, name)
		} else {
			tables = append(tables, name)
		}
		return nil
	})
	if err != nil {
		return damaged(err)
	}
	for _, v := range views {
		if err := compiles(c, "SELECT * FROM main."+sqlite.Quote(v), "view "+v); err != nil {
			return err
		}
	}
	shapes, err := c.Shapes()
	if err != nil {
		return err
	}
	for _, t := range tables {
		if shapes[lower(t)].Shadow {
			return &Error{Reason: ReasonNotAllowed, Message: fmt.Sprintf("Table %q belongs to a virtual table and has a trigger", t), Hint: "drop the trigger"}
		}
		var sets []string
		err := each(c, "SELECT name FROM pragma_table_xinfo(?1) WHERE hidden=0", []sqlite.Param{text(t)}, func(s *sqlite.Stmt) error {
			name := sqlite.Quote(string(s.Column(0).Bytes))
			sets = append(sets, name+"="+name)
			return nil
		})
		if stops(err) {
			return err
		}
		target := "main." + sqlite.Quote(t)
		for _, sql := range []string{"INSERT INTO " + target + " DEFAULT VALUES", "UPDATE " + target + " SET " + strings.Join(sets, ","), "DELETE FROM " + target} {
			if err := compiles(c, sql, "a trigger on "+t); err != nil {
				return err
			}
		}
	}
	return nil
}

// compiles tells what the gate has against a statement.
func compiles(c *sqlite.Conn, sql, what string) error {
	s, _, err := c.Prepare([]byte(sql), (&gate.Gate{}).Permit)
	if err == nil {
		s.Done()
		return nil
	}
	var refusal *gate.Refusal
	if errors.As(err, &refusal) {
		return &Error{Reason: ReasonNotAllowed, Message: fmt.Sprintf("What %s does is not allowed: %s", what, refusal.Message), Hint: "drop it", err: err}
	}
	if stops(err) {
		return err
	}
	return nil
}

// stops tells whether an error is none of the statement's.
func stops(err error) bool {
	var e *sqlite.Error
	if err == nil || !errors.As(err, &e) {
		return err != nil
	}
	switch e.Code.Primary() {
	case sqlite.CodeInterrupt, sqlite.CodeNoMem, sqlite.CodeIOErr, sqlite.CodeCorrupt, sqlite.CodeFull:
		return true
	}
	return false
}

// damaged words an error that comes from the content of a file.
func damaged(err error) error {
	var e *sqlite.Error
	var mine *Error
	if !errors.As(err, &e) || errors.As(err, &mine) {
		return err
	}
	switch e.Code.Primary() {
	case sqlite.CodeNotADB:
		return &Error{Reason: ReasonFile, Message: "The file is no SQLite database, or it is encrypted", Hint: notSQLite, err: err}
	case sqlite.CodeCorrupt, sqlite.CodeError, sqlite.CodeConstraint, sqlite.CodeMismatch, sqlite.CodeTooBig, sqlite.CodeRange, sqlite.CodeSchema:
		return &Error{Reason: ReasonFile, Message: "The database is damaged, or needs what this server's SQLite hasn't got: " + e.Message,
			Hint: "repair it with the sqlite3 shell's .recover, or send what .dump writes", err: err}
	}
	return err
}

const notSQLite = "send a file that the sqlite3 shell opens without a key, or SQL text"

// stock is what an import must not change for the worse.
type stock struct {
	reserved   map[string]string    // objects of the server's own: name and definition
	violations map[string]violation // of foreign keys
}

// violation is of one foreign key of one table.
type violation struct {
	table, parent string
	rowid         sqlite.Value // of the first row
	rows          int64
}

// takeStock counts what is there.
func takeStock(c *sqlite.Conn) (*stock, error) {
	st := &stock{reserved: map[string]string{}, violations: map[string]violation{}}
	err := each(c, "SELECT name, tbl_name, type || ' ' || coalesce(sql, '') FROM sqlite_schema", nil, func(s *sqlite.Stmt) error {
		name := string(s.Column(0).Bytes)
		if ours(name) || ours(string(s.Column(1).Bytes)) {
			st.reserved[name] = string(s.Column(2).Bytes)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	shapes, err := c.Shapes()
	if err != nil {
		return nil, err
	}
	for _, shape := range shapes {
		if shape.Virtual {
			continue
		}
		err := each(c, `SELECT rowid, parent, fkid FROM pragma_foreign_key_check(?1)`, []sqlite.Param{text(shape.Name)}, func(s *sqlite.Stmt) error {
			key := fmt.Sprintf("%s\x00%d", shape.Name, s.Column(2).Int)
			v, ok := st.violations[key]
			if !ok {
				v = violation{table: shape.Name, parent: string(s.Column(1).Bytes), rowid: s.Column(0)}
			}
			v.rows++
			st.violations[key] = v
			return nil
		})
		// A foreign key whose parent has no such key is an error of the statements that use it, and may stay.
		if stops(err) {
			return nil, err
		}
	}
	return st, nil
}

// since compares what is there with what was there before.
func (st *stock) since(before *stock) error {
	for name, sql := range st.reserved {
		if was, ok := before.reserved[name]; !ok || was != sql {
			return &Error{Reason: ReasonNotAllowed, Message: fmt.Sprintf("%s is a system object, and the text brings it", name),
				Hint: "names that begin with sqlite_persql_ or _persql_ are reserved"}
		}
	}
	if len(st.reserved) != len(before.reserved) {
		return &Error{Reason: ReasonNotAllowed, Message: "The text drops a system object"}
	}
	for key, v := range st.violations {
		if v.rows <= before.violations[key].rows {
			continue
		}
		where := ""
		if v.rowid.Kind == sqlite.Integer {
			where = fmt.Sprintf(" (the first has rowid %d)", v.rowid.Int)
		}
		return &Error{Reason: ReasonForeignKey,
			Message: fmt.Sprintf("Foreign keys: %d rows of table %q refer to rows of %q that are not there%s", v.rows, v.table, v.parent, where),
			Hint:    "add the missing rows or take the reference away; PRAGMA foreign_key_check lists them. A SQLite file may be imported as it is"}
	}
	return nil
}

// toWAL is the last that is done to a file: its header says from then on that it is written through a log.
func toWAL(c *sqlite.Conn) error {
	v, err := first(c, "PRAGMA journal_mode=WAL")
	if err == nil && string(v.Bytes) != "wal" {
		err = fmt.Errorf("the journal mode stays %q", v.Bytes)
	}
	return err
}

// settle makes a closed file durable, and sees to it that nothing is left beside it.
func settle(path string) error {
	for _, suffix := range besides {
		if fi, err := os.Lstat(path + suffix); err == nil {
			return fmt.Errorf("the file is closed, and %d bytes of %s are beside it", fi.Size(), suffix)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// besides are the names of what SQLite keeps beside a file while it works.
var besides = []string{"-wal", "-shm", "-journal"}

// Remove deletes a scratch file and whatever a function of this package left beside it when it failed.
func Remove(path string) error {
	var errs []error
	for _, name := range []string{path, path + freshSuffix} {
		for _, suffix := range append([]string{""}, besides...) {
			if err := os.Remove(name + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// freshSuffix names the file that Adopt and Strip write beside theirs.
const freshSuffix = "-new"
