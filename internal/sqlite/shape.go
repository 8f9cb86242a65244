package sqlite

import (
	"slices"

	sqlite3 "modernc.org/sqlite/lib"
)

// Shape is what SQLite made of a table's definition, which no pragma tells without compiling every view.
type Shape struct {
	Name     string
	Virtual  bool // of a module
	Shadow   bool // a virtual table keeps its content in it
	Rowid    bool // an ordinary table that isn't WITHOUT ROWID
	Key      bool // its rowid is a column: INTEGER PRIMARY KEY
	Counting bool // AUTOINCREMENT
}

// Shapes are the tables of the main schema, without views and sqlite_schema, by their names in lower case (as SQLite compares them).
func (c *Conn) Shapes() (map[string]Shape, error) {
	if err := c.Exec("SELECT 1 FROM main.sqlite_schema LIMIT 0"); err != nil { // which reads the schema, if that has to be
		return nil, err
	}
	const ordinary, virtual = 0, 1 // TABTYP_NORM, TABTYP_VTAB
	shapes := map[string]Shape{}
	db := (*sqlite3.Tsqlite3)(at(c.db))
	schema := (*sqlite3.TSchema)(at((*sqlite3.TDb)(at(db.FaDb)).FpSchema))
	for p := schema.FtblHash.Ffirst; p != 0; {
		elem := (*sqlite3.THashElem)(at(p))
		p = elem.Fnext
		tab := (*sqlite3.TTable)(at(elem.Fdata))
		if tab.FeTabType != ordinary && tab.FeTabType != virtual {
			continue
		}
		s := Shape{Name: cstr(tab.FzName), Virtual: tab.FeTabType == virtual}
		if s.Name == "sqlite_master" {
			continue // the schema's own
		}
		if !s.Virtual {
			s.Shadow = tab.FtabFlags&sqlite3.TF_Shadow != 0
			s.Rowid = tab.FtabFlags&sqlite3.TF_WithoutRowid == 0
			s.Key = s.Rowid && tab.FiPKey >= 0
			s.Counting = tab.FtabFlags&sqlite3.TF_Autoincrement != 0
		}
		shapes[Fold(s.Name)] = s
	}
	return shapes, nil
}

// TableKind is what the schema holds under a name.
type TableKind uint8

// The kinds of tables. NoTable is nothing at all: such a name is a table expression's, or a table-valued function's.
const (
	NoTable TableKind = iota
	OrdinaryTable
	VirtualTable
	View
	ShadowTable // of a virtual table
)

// Kind is what the main schema holds under a table's name, as SQLite has parsed it.
func (s *Stmt) Kind(name string) TableKind {
	const virtual, view = 1, 2 // TABTYP_VTAB, TABTYP_VIEW
	db := (*sqlite3.Tsqlite3)(at(s.conn.db))
	schema := (*sqlite3.TSchema)(at((*sqlite3.TDb)(at(db.FaDb)).FpSchema))
	for p := schema.FtblHash.Ffirst; p != 0; {
		elem := (*sqlite3.THashElem)(at(p))
		p = elem.Fnext
		tab := (*sqlite3.TTable)(at(elem.Fdata))
		if !sameName(tab.FzName, name) {
			continue
		}
		switch {
		case tab.FeTabType == virtual:
			return VirtualTable
		case tab.FeTabType == view:
			return View
		case tab.FtabFlags&sqlite3.TF_Shadow != 0:
			return ShadowTable
		}
		return OrdinaryTable
	}
	return NoTable
}

// TableOfIndex is the table that an index of the main schema is on, or "".
func (s *Stmt) TableOfIndex(name string) string {
	db := (*sqlite3.Tsqlite3)(at(s.conn.db))
	schema := (*sqlite3.TSchema)(at((*sqlite3.TDb)(at(db.FaDb)).FpSchema))
	for p := schema.FidxHash.Ffirst; p != 0; {
		elem := (*sqlite3.THashElem)(at(p))
		p = elem.Fnext
		if index := (*sqlite3.TIndex)(at(elem.Fdata)); sameName(index.FzName, name) {
			return cstr((*sqlite3.TTable)(at(index.FpTable)).FzName)
		}
	}
	return ""
}

// sameName compares a name of SQLite's as SQLite does.
func sameName(p uintptr, name string) bool {
	c := view(p, strlen(p))
	if len(c) != len(name) {
		return false
	}
	for i := range c {
		if c[i] != name[i] && fold(c[i]) != fold(name[i]) {
			return false
		}
	}
	return true
}

func fold(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// Fold is a name as SQLite compares names: ASCII letters in lower case, whatever the other bytes are.
func Fold(s string) string {
	upper := false
	for i := range len(s) {
		upper = upper || 'A' <= s[i] && s[i] <= 'Z'
	}
	if !upper {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// readSchema makes SQLite parse the schema, if it hasn't; for that it opens the log.
func (c *Conn) readSchema() error {
	t := c.thread
	used, spilled := t.mark()
	defer t.rewind(used, spilled)
	main, table := t.place([]byte("main")), t.place([]byte("sqlite_schema"))
	if main == 0 || table == 0 {
		return noMemory()
	}
	if rc := sqlite3.Xsqlite3_table_column_metadata(t.tls, c.db, main, table, 0, 0, 0, 0, 0, 0); rc != sqlite3.SQLITE_OK {
		return c.fail(rc)
	}
	return nil
}

// TableNames are the names of the main schema's tables that begin with a prefix of lower case, in order and in lower case
// themselves. They are read from what SQLite has parsed: a statement that asks for them would take a good part of the time of opening the
// file. Only a connection that has done nothing yet has certainly parsed what the file holds: a rollback can leave another.
func (c *Conn) TableNames(prefix string) ([]string, error) {
	if c.db == 0 || c.damaged {
		return nil, errClosed()
	}
	if err := c.readSchema(); err != nil {
		return nil, err
	}
	var names []string
	db := (*sqlite3.Tsqlite3)(at(c.db))
	schema := (*sqlite3.TSchema)(at((*sqlite3.TDb)(at(db.FaDb)).FpSchema))
	for p := schema.FtblHash.Ffirst; p != 0; {
		elem := (*sqlite3.THashElem)(at(p))
		p = elem.Fnext
		if name := (*sqlite3.TTable)(at(elem.Fdata)).FzName; hasPrefixFold(name, prefix) {
			names = append(names, Fold(cstr(name)))
		}
	}
	slices.Sort(names)
	return names, nil
}

// hasPrefixFold compares a C string with a prefix of lower case.
func hasPrefixFold(p uintptr, prefix string) bool {
	for i := range len(prefix) {
		b := *(*byte)(at(p + uintptr(i))) // a shorter string's zero is no part of a prefix
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		if b != prefix[i] {
			return false
		}
	}
	return true
}
