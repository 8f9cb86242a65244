package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
)

// Adopt makes a stranger's SQLite file at path one of ours, in place: checked, without the server's own tables, UTF-8,
// pages of 4,096 bytes, no auto_vacuum, WAL mode. It needs as much room again beside the file while it works, under
// names that begin with path. Of the limits, Pages (of 4,096 bytes) and Length (of a value) count.
//
// Nothing of the schema is trusted because it stands in the file: each definition must be one that a client could have
// made here. Rows that break a foreign key are taken as they are: SQLite allows them where it doesn't enforce it.
func Adopt(ctx context.Context, path string, limits sqlite.Limits) error {
	if err := adopt(ctx, path, limits); err != nil {
		return fmt.Errorf("import SQLite file: %w", err)
	}
	return nil
}

func adopt(ctx context.Context, path string, limits sqlite.Limits) error {
	if limits.Pages <= 0 {
		limits.Pages = sqlite.DefaultPages
	}
	if limits.Length <= 0 {
		limits.Length = 16_000_000
	}
	head, err := readHeader(path)
	if err != nil {
		return err
	}
	if head.size > limits.Pages*sqlite.PageSize {
		return tooLarge(head.size, limits.Pages)
	}
	for _, suffix := range besides {
		if _, err := os.Lstat(path + suffix); err == nil {
			return fmt.Errorf("there is a file %s beside the scratch", suffix)
		}
	}
	fresh := path + freshSuffix
	if err := Remove(fresh); err != nil {
		return err
	}
	defer Remove(fresh)
	// Its pages may be smaller than ours: their number is not bounded, the file's size was.
	err = use(ctx, sqlite.Scratch{Path: path, Hostile: true, Limits: sqlite.Limits{Length: maxLength, Pages: maxPages}}, func(c *sqlite.Conn) error {
		if err := integrity(c); err != nil {
			return err
		}
		if err := rebuild(ctx, c); err != nil {
			return err
		}
		if err := valuesFit(c, head.size, limits.Length); err != nil {
			return err
		}
		if head.encoding > 1 {
			return nil
		}
		if err := dropOurs(c); err != nil {
			return err
		}
		return damaged(vacuumInto(c, fresh))
	})
	err = damaged(err) // also where it could not be opened
	if err == nil && head.encoding > 1 {
		err = convert(ctx, path, fresh, limits)
	}
	if err != nil {
		return err
	}
	fi, err := os.Stat(fresh)
	if err != nil {
		return err
	}
	if fi.Size() > limits.Pages*sqlite.PageSize {
		return tooLarge(fi.Size(), limits.Pages)
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return inspect(ctx, path)
}

// maxPages is SQLite's own bound.
const maxPages = 0xfffffffe

func tooLarge(size, pages int64) error {
	return &Error{Reason: ReasonTooLarge, Message: fmt.Sprintf("The database takes %d bytes, the limit is %d", size, pages*sqlite.PageSize)}
}

// header is what the first 100 bytes of a SQLite file say (https://sqlite.org/fileformat2.html, section 1.3).
type header struct {
	size     int64
	encoding uint32 // 1 is UTF-8, 2 and 3 are UTF-16; 0 in a database that never had a table
}

func readHeader(path string) (h header, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return h, err
	}
	h.size = fi.Size()
	var b [100]byte
	if n, err := io.ReadFull(f, b[:]); n == 0 {
		return h, &Error{Reason: ReasonFile, Message: "The file is empty", Hint: notSQLite}
	} else if err != nil || string(b[:16]) != "SQLite format 3\x00" {
		return h, &Error{Reason: ReasonFile, Message: "The file is no SQLite database, or it is encrypted", Hint: notSQLite}
	}
	page := int64(binary.BigEndian.Uint16(b[16:]))
	if page == 1 {
		page = 65536
	}
	h.encoding = binary.BigEndian.Uint32(b[56:])
	broken := func(what string) error {
		return &Error{Reason: ReasonFile, Message: "The database's header is damaged: " + what, Hint: "repair it with the sqlite3 shell's .recover"}
	}
	switch {
	case page < 512 || page&(page-1) != 0:
		return h, broken("page size")
	case b[18] < 1 || b[18] > 2 || b[19] < 1 || b[19] > 2:
		return h, broken("journal mode")
	case b[21] != 64 || b[22] != 32 || b[23] != 32:
		return h, broken("payload fractions")
	case binary.BigEndian.Uint32(b[44:]) > 4:
		return h, broken("schema format")
	case h.encoding > 3:
		return h, broken("text encoding")
	}
	// The count is valid if it was written together with the change counter.
	pages := int64(binary.BigEndian.Uint32(b[28:]))
	if binary.BigEndian.Uint32(b[24:]) == binary.BigEndian.Uint32(b[92:]) && pages*page > h.size {
		return h, &Error{Reason: ReasonFile, Message: fmt.Sprintf("The database should have %d bytes and has %d", pages*page, h.size),
			Hint: "the file was cut off, or copied while it was written: make a copy with VACUUM INTO or .backup and send that"}
	}
	return h, nil
}

// rebuild makes the whole schema anew in an empty database in memory, as a client whom the gate watches.
func rebuild(ctx context.Context, c *sqlite.Conn) error {
	from, err := c.Shapes()
	if err != nil {
		return damaged(err)
	}
	limits := sqlite.Limits{Statements: 4}
	return use(ctx, sqlite.Scratch{Limits: limits}, func(made *sqlite.Conn) error {
		return use(ctx, sqlite.Scratch{Limits: limits}, func(apart *sqlite.Conn) error {
			b := &rebuilder{from: c, shapes: from, made: made, apart: apart}
			// Virtual tables first, which make tables.
			err := each(c, `SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY CASE type
				WHEN 'table' THEN rootpage<>0 WHEN 'index' THEN 2 WHEN 'view' THEN 3 ELSE 4 END, rowid`, nil, func(s *sqlite.Stmt) error {
				at := func(i int) string { return string(s.Column(i).Bytes) }
				root := s.Column(3)
				// SQLite reads a row whose type is the blob 'table', and doesn't find it again by its type.
				for i := range 3 {
					if s.Column(i).Kind != sqlite.Text {
						return &Error{Reason: ReasonFile, Message: fmt.Sprintf("The row of %q in sqlite_schema is damaged", at(1)), Hint: "repair the database with the sqlite3 shell's .recover"}
					}
				}
				return b.object(schemaEntry{typ: at(0), name: at(1), table: at(2), sql: at(4),
					rootless: root.Kind == sqlite.Integer && root.Int == 0}, s.Column(4).Kind == sqlite.Null)
			})
			if err != nil {
				return err
			}
			return judge(made)
		})
	})
}

// rebuilder makes a schema again.
type rebuilder struct {
	from   *sqlite.Conn            // where it is from,
	shapes map[string]sqlite.Shape // and what it has
	made   *sqlite.Conn            // where it is made
	// Shadow tables are there as soon as their virtual table is. Their definitions are compiled apart.
	apart   *sqlite.Conn
	shadows map[string]sqlite.Shape // of made, once the virtual tables are there
}

// object makes one object again. Silent ones have no definition.
func (b *rebuilder) object(r schemaEntry, silent bool) error {
	refuse := func(msg string, err error) error {
		return &Error{Reason: ReasonNotAllowed, Message: fmt.Sprintf("The %s %q can't be taken: %s", r.typ, r.name, msg), err: err,
			Hint: "drop it, or send what the sqlite3 shell's .dump writes"}
	}
	switch {
	case ours(r.name) || ours(r.table):
		if strings.HasPrefix(lower(r.name), "sqlite_") || strings.HasPrefix(lower(r.table), "sqlite_") {
			return nil // it is dropped
		}
		return refuse("names that begin with _persql_ are reserved", nil)
	case r.typ == "index" && silent:
		return nil // of UNIQUE or PRIMARY KEY
	case r.typ == "table" && (lower(r.name) == "sqlite_sequence" || strings.HasPrefix(lower(r.name), "sqlite_stat")):
		return nil // SQLite's own
	}
	target := b.made
	if r.typ == "table" && !r.rootless {
		if b.shadows == nil {
			var err error
			if b.shadows, err = b.made.Shapes(); err != nil {
				return err
			}
		}
		if b.shadows[lower(r.name)].Shadow {
			if !b.sameColumns(r.name) {
				return refuse("it belongs to a virtual table, and that has other columns", nil)
			}
			target = b.apart
		}
	}
	made := false
	s, n, err := target.Prepare([]byte(r.sql), func(a sqlite.Access) error {
		switch a.Action {
		case sqlite.Select:
			if r.typ == "table" {
				return &gate.Refusal{Message: "its definition has rows in it"}
			}
		case sqlite.CreateTable, sqlite.CreateVTable:
			made = made || r.typ == "table" && a.Name == r.name
		case sqlite.CreateView:
			made = made || r.typ == "view" && a.Name == r.name
		case sqlite.CreateIndex:
			made = made || r.typ == "index" && a.Name == r.name && strings.EqualFold(a.Detail, r.table)
		case sqlite.CreateTrigger:
			made = made || r.typ == "trigger" && a.Name == r.name && strings.EqualFold(a.Detail, r.table)
		}
		return (&gate.Gate{}).Permit(a)
	})
	if err == nil && s != nil {
		defer s.Done()
		if !made || s.Explain || blank([]byte(r.sql)[n:]) != len(r.sql)-n {
			return refuse("its definition is another object's", nil)
		}
		if target == b.apart {
			return nil
		}
		_, err = s.Step()
	}
	switch {
	case stops(err):
		return err
	case err != nil:
		return refuse(err.Error(), err)
	case s == nil:
		return refuse("it has no definition", nil)
	}
	return nil
}

// sameColumns tells whether a table has the same columns in both.
func (b *rebuilder) sameColumns(table string) bool {
	columns := func(c *sqlite.Conn) string {
		v, err := first(c, "SELECT group_concat(lower(name)||' '||pk||' '||hidden) FROM pragma_table_xinfo(?1)", text(table))
		if err != nil {
			return err.Error()
		}
		return string(v.Bytes)
	}
	return columns(b.from) == columns(b.made) && b.shapes[lower(table)].Rowid == b.shadows[lower(table)].Rowid
}

// valuesFit looks for values that a client's connection could not read.
func valuesFit(c *sqlite.Conn, size int64, length int) error {
	if size <= int64(length) {
		return nil
	}
	shapes, err := c.Shapes()
	if err != nil {
		return damaged(err)
	}
	for _, shape := range shapes {
		if shape.Virtual {
			continue
		}
		var cols []string
		err := each(c, "SELECT name FROM pragma_table_xinfo(?1) WHERE hidden<>2", []sqlite.Param{text(shape.Name)}, func(s *sqlite.Stmt) error {
			cols = append(cols, "octet_length("+sqlite.Quote(string(s.Column(0).Bytes))+")>?1")
			return nil
		})
		if err != nil {
			return damaged(err)
		}
		for len(cols) > 0 {
			n := min(len(cols), 100) // an expression may be 1,000 deep
			v, err := first(c, "SELECT 1 FROM main."+sqlite.Quote(shape.Name)+" WHERE "+strings.Join(cols[:n], " OR ")+" LIMIT 1", integer(int64(length)))
			if err != nil {
				return damaged(err)
			}
			if v.Kind != sqlite.Null {
				return &Error{Reason: ReasonTooLarge, Message: fmt.Sprintf("Table %q has a value of more than %d bytes, which is the limit", shape.Name, length),
					Hint: "split it over several rows"}
			}
			cols = cols[n:]
		}
	}
	return nil
}

// dropOurs deletes the server's own tables from the schema. Their pages stay until the file is made anew.
func dropOurs(c *sqlite.Conn) error {
	const which = `name LIKE 'sqlite\_persql\_%' ESCAPE '\' OR tbl_name LIKE 'sqlite\_persql\_%' ESCAPE '\'`
	v, err := first(c, "SELECT count(*) FROM sqlite_schema WHERE "+which)
	if err != nil || v.Int == 0 {
		return damaged(err)
	}
	if err := c.WriteSchema(func() error { return c.Exec("DELETE FROM sqlite_schema WHERE " + which) }); err != nil {
		return err
	}
	for table, column := range map[string]string{"sqlite_stat1": "tbl", "sqlite_stat4": "tbl", "sqlite_sequence": "name"} {
		v, err := first(c, "SELECT 1 FROM sqlite_schema WHERE type='table' AND name=?1", text(table))
		if err == nil && v.Kind != sqlite.Null {
			err = c.Exec("DELETE FROM " + table + " WHERE NOT " + notOurs(column))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// vacuumInto makes a new file of what is in the database. INTO keeps rowids that nobody declared; plain VACUUM doesn't.
func vacuumInto(c *sqlite.Conn, path string) error {
	for _, sql := range []string{fmt.Sprintf("PRAGMA page_size=%d", sqlite.PageSize), "PRAGMA auto_vacuum=NONE"} {
		if err := c.Exec(sql); err != nil {
			return err
		}
	}
	return c.AllowVacuum(func() error { return each(c, "VACUUM INTO ?1", []sqlite.Param{text(path)}, nil) })
}

// convert makes a UTF-8 database of a UTF-16 one, by way of SQL text.
func convert(ctx context.Context, from, to string, limits sqlite.Limits) error {
	if err := os.WriteFile(to, sqlite.EmptyFile(), 0o600); err != nil {
		return err
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := Dump(ctx, w, from)
		w.CloseWithError(err) // nil is the end
	}()
	_, err := Load(ctx, to, r, limits)
	r.CloseWithError(errors.New("the import has ended"))
	<-done
	return err
}
