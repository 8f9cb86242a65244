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
		shapes[lower(s.Name)] = s
	}
	return shapes, nil
}

// lower folds as SQLite compares names: ASCII alone, whatever the other bytes are.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// TableNames are the names of the main schema's tables that begin with a prefix of lower case, in order and in lower case
// themselves. They are read from what SQLite has parsed: a statement that asks for them would take a good part of the time of opening the
// file. Only a connection that has done nothing yet has certainly parsed what the file holds: a rollback can leave another.
func (c *Conn) TableNames(prefix string) ([]string, error) {
	if c.db == 0 || c.damaged {
		return nil, errClosed()
	}
	t := c.thread
	used, spilled := t.mark()
	defer t.rewind(used, spilled)
	main, table := t.place([]byte("main")), t.place([]byte("sqlite_schema"))
	if main == 0 || table == 0 {
		return nil, noMemory()
	}
	// It reads the schema, if that has to be.
	if rc := sqlite3.Xsqlite3_table_column_metadata(t.tls, c.db, main, table, 0, 0, 0, 0, 0, 0); rc != sqlite3.SQLITE_OK {
		return nil, c.fail(rc)
	}
	var names []string
	db := (*sqlite3.Tsqlite3)(at(c.db))
	schema := (*sqlite3.TSchema)(at((*sqlite3.TDb)(at(db.FaDb)).FpSchema))
	for p := schema.FtblHash.Ffirst; p != 0; {
		elem := (*sqlite3.THashElem)(at(p))
		p = elem.Fnext
		if name := (*sqlite3.TTable)(at(elem.Fdata)).FzName; hasPrefixFold(name, prefix) {
			names = append(names, lower(cstr(name)))
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
