package api

import "github.com/persqld/persqld/internal/sqlite"

// DatabaseListTable stands for pragma_database_list: SQLite's own shows the path of the file.
func DatabaseListTable() *sqlite.Table {
	return &sqlite.Table{Name: "pragma_database_list", Columns: "seq INTEGER, name TEXT, file TEXT",
		Rows: func() (sqlite.Rows, error) { return &oneDatabase{}, nil }}
}

// oneDatabase is the one row: a connection has no other database than its own.
type oneDatabase struct{ read bool }

func (o *oneDatabase) Next() bool {
	was := o.read
	o.read = true
	return !was
}

func (o *oneDatabase) Column(i int) sqlite.Value {
	switch i {
	case 0:
		return sqlite.Value{Kind: sqlite.Integer}
	case 1:
		return sqlite.Value{Kind: sqlite.Text, Bytes: []byte("main")}
	}
	return sqlite.Value{Kind: sqlite.Text}
}
