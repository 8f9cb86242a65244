package transfer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
)

// Dump writes the database at path as SQL text in the shape of the sqlite3 shell's .dump, so that [Load] and the shell
// read it back to the same schema and the same rows, bit for bit. It returns the number of rows that it read. The file
// is opened read-only and must not change meanwhile. Memory is bounded by one row: the text goes to w as it is made.
//
// Rowids that nobody declared are written where reading the rows in order would not give the same. Left out are the
// server's own tables (sqlite_persql_…, _persql_…), what ANALYZE noted about them, and sqlite_stat4, which not every
// SQLite has. A dump that an error cut short doesn't end in COMMIT, without which nothing of it is taken.
func Dump(ctx context.Context, w io.Writer, path string) (rows int64, err error) {
	err = use(ctx, sqlite.Scratch{Path: path, ReadOnly: true, Limits: sqlite.Limits{Length: maxLength}}, func(c *sqlite.Conn) error {
		d := &dumper{conn: c, w: bufio.NewWriterSize(w, 64<<10)}
		err := d.dump()
		if err == nil {
			err = d.w.Flush()
		}
		rows = d.rows
		return err
	})
	if err != nil {
		return rows, fmt.Errorf("export as SQL text: %w", err)
	}
	return rows, nil
}

// maxLength lets every value be read that can be stored at all.
const maxLength = 1_000_000_000

// dumper writes one database. Errors of w are kept by its buffer until the next look.
type dumper struct {
	conn    *sqlite.Conn
	w       *bufio.Writer
	enc     encoder
	rows    int64
	schema  []object
	virtual map[string]int // virtual tables by name in lower case, as indexes of schema
	shapes  map[string]sqlite.Shape
	editing bool // the text has switched writable_schema on
}

// object is a row of sqlite_schema; its text is read when it is needed.
type object struct {
	rowid int64
	typ   string
	name  string
	done  bool
}

func (d *dumper) dump() error {
	if err := d.readSchema(); err != nil {
		return err
	}
	d.w.WriteString("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n")
	for _, name := range []string{"application_id", "user_version"} {
		v, err := first(d.conn, "PRAGMA "+name)
		if err != nil {
			return err
		}
		if v.Int != 0 {
			fmt.Fprintf(d.w, "PRAGMA %s=%d;\n", name, v.Int)
		}
	}
	for i := range d.schema {
		if err := d.table(i); err != nil {
			return err
		}
	}
	if err := d.statistics(); err != nil {
		return err
	}
	if err := d.sequence(); err != nil {
		return err
	}
	// Triggers after all rows, which they would act on; indexes too, since they are made faster of what is there.
	for _, o := range d.schema {
		if o.typ == "table" || gate.IsSystem(o.name) {
			continue
		}
		sql, err := d.text(o)
		if err != nil {
			return err
		}
		if err := d.create(sql); err != nil {
			return err
		}
	}
	if d.editing {
		d.w.WriteString("PRAGMA writable_schema=OFF;\n")
	}
	_, err := d.w.WriteString("COMMIT;\n")
	return err
}

func (d *dumper) readSchema() error {
	d.virtual = map[string]int{}
	// Also what has no text, such as the indexes of UNIQUE, is known by name only to SQLite: it is left to the tables.
	err := each(d.conn, "SELECT rowid, type, name, rootpage, tbl_name FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid", nil, func(s *sqlite.Stmt) error {
		o := object{rowid: s.Column(0).Int, typ: string(s.Column(1).Bytes), name: string(s.Column(2).Bytes)}
		if ours(o.name) || ours(string(s.Column(4).Bytes)) {
			return nil
		}
		if o.typ == "table" && s.Column(3).Int == 0 {
			d.virtual[lower(o.name)] = len(d.schema)
		}
		d.schema = append(d.schema, o)
		return nil
	})
	if err != nil {
		return err
	}
	d.shapes, err = d.conn.Shapes()
	return err
}

// ours tells whether a name is kept for the server's own.
func ours(name string) bool {
	n := lower(name)
	return strings.HasPrefix(n, "sqlite_persql_") || strings.HasPrefix(n, "_persql_")
}

// text is the CREATE statement of an object.
func (d *dumper) text(o object) ([]byte, error) {
	v, err := first(d.conn, "SELECT sql FROM sqlite_schema WHERE rowid=?1", integer(o.rowid))
	return v.Bytes, err
}

// table writes a table with its rows. A virtual one goes before its shadow tables, which would else be in its way when
// it is made.
func (d *dumper) table(i int) error {
	o := &d.schema[i]
	if o.done || o.typ != "table" || gate.IsSystem(o.name) {
		return nil // SQLite's own are made by what they belong to
	}
	o.done = true
	sql, err := d.text(*o)
	if err != nil {
		return err
	}
	if _, ok := d.virtual[lower(o.name)]; ok {
		if !d.editing {
			d.editing = true
			d.w.WriteString("PRAGMA writable_schema=ON;\n")
		}
		d.w.WriteString("INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table',")
		d.enc.text(d.w, []byte(o.name))
		d.w.WriteByte(',')
		d.enc.text(d.w, []byte(o.name))
		d.w.WriteString(",0,")
		d.enc.text(d.w, sql)
		_, err := d.w.WriteString(");\n")
		return err
	}
	shape, ok := d.shapes[lower(o.name)]
	if !ok {
		return fmt.Errorf("table %q is in the schema's rows and not in the schema", o.name)
	}
	if v, ok := d.virtual[lower(sqlite.ShadowOf(o.name))]; shape.Shadow && ok {
		if err := d.table(v); err != nil {
			return err
		}
		// The text of a shadow table is its module's: CREATE TABLE and the name.
		if rest, ok := strings.CutPrefix(string(sql), "CREATE TABLE "); ok {
			sql = []byte("CREATE TABLE IF NOT EXISTS " + rest)
		}
	}
	if err := d.create(sql); err != nil {
		return err
	}
	return d.rowsOf(shape)
}

// create writes a CREATE statement and what ends it: its text may end in a comment.
func (d *dumper) create(sql []byte) error {
	d.w.Write(sql)
	var sc scanner
	sc.scan(sql, false)
	switch sc.in {
	case inLine:
		d.w.WriteByte('\n')
	case inBlock:
		d.w.WriteString("*/")
	}
	_, err := d.w.WriteString(";\n")
	return err
}

// rowsOf writes a table's rows in the order of their rowids.
func (d *dumper) rowsOf(shape sqlite.Shape) error {
	var cols []string
	names := map[string]bool{}
	err := each(d.conn, "SELECT name, hidden FROM pragma_table_xinfo(?1)", []sqlite.Param{text(shape.Name)}, func(s *sqlite.Stmt) error {
		name := string(s.Column(0).Bytes)
		names[lower(name)] = true
		if s.Column(1).Int == 0 { // the others are generated
			cols = append(cols, sqlite.Quote(name))
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Under a name that no column has. Where all three are taken, nobody can have referred to it.
	rowid := ""
	if shape.Rowid && !shape.Key && len(cols) < maxColumns {
		for _, name := range []string{"rowid", "_rowid_", "oid"} {
			if !names[name] {
				rowid = name
				break
			}
		}
	}
	list := strings.Join(cols, ",")
	from := " FROM main." + sqlite.Quote(shape.Name)
	if shape.Rowid {
		from += " NOT INDEXED" // an index that has all columns has another order
	}
	if rowid == "" {
		return d.insert(shape.Name, "", "SELECT "+list+from, -1)
	}
	return d.insert(shape.Name, "("+rowid+","+list+")", "SELECT "+rowid+","+list+from+" ORDER BY "+rowid, 0)
}

// maxColumns is how many columns a result may have.
const maxColumns = 2000

// insert writes an INSERT for each row of a query. With a rowid as the first column, it is written if SQLite would not
// choose the same for a row without one, which is one more than the greatest.
func (d *dumper) insert(table, columns, query string, rowid int) error {
	head := "INSERT INTO " + sqlite.Quote(table)
	from := rowid + 1
	expected := int64(1)
	return each(d.conn, query, nil, func(s *sqlite.Stmt) error {
		d.rows++
		d.w.WriteString(head)
		i := from
		if rowid >= 0 {
			id := s.Column(rowid).Int
			if id != expected {
				d.w.WriteString(columns)
				i = 0
			}
			expected = id + 1 // past the greatest integer it is no rowid of a later row
		}
		d.w.WriteString(" VALUES(")
		for n := s.Columns(); i < n; i++ {
			d.enc.value(d.w, s.Column(i))
			if i < n-1 {
				d.w.WriteByte(',')
			}
		}
		_, err := d.w.WriteString(");\n")
		return err
	})
}

// statistics writes what ANALYZE found.
func (d *dumper) statistics() error {
	if _, ok := d.shapes["sqlite_stat1"]; !ok {
		return nil
	}
	// It makes the table where there is none.
	d.w.WriteString("ANALYZE sqlite_schema;\n")
	return d.insert("sqlite_stat1", "", "SELECT tbl, idx, stat FROM sqlite_stat1 WHERE "+notOurs("tbl")+" ORDER BY rowid", -1)
}

// sequence writes the last rowids of tables with AUTOINCREMENT. Reading the rows has set some already.
func (d *dumper) sequence() error {
	any := false
	for name, s := range d.shapes {
		any = any || s.Counting && !ours(name)
	}
	if !any {
		return nil
	}
	d.w.WriteString("DELETE FROM sqlite_sequence;\n")
	return d.insert("sqlite_sequence", "", "SELECT name, seq FROM sqlite_sequence WHERE "+notOurs("name")+" ORDER BY rowid", -1)
}

// notOurs is the condition that a column doesn't name one of the server's own tables.
func notOurs(column string) string {
	return strings.NewReplacer("$", column).Replace(`($ IS NULL OR ($ NOT LIKE 'sqlite\_persql\_%' ESCAPE '\' AND $ NOT LIKE '\_persql\_%' ESCAPE '\'))`)
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func integer(n int64) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Integer, Int: n}}
}

func text(s string) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Text, Bytes: []byte(s)}}
}
