package sqlite

import (
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Change is one row that is about to change, as SQLite's preupdate hook reports it: by the client's statement, by
// a trigger or by a foreign key's cascade. It is valid during the call only.
type Change struct {
	conn *Conn

	Op       Action // Insert, Update or Delete
	Schema   string
	Table    string
	OldRowid int64 // of UPDATE and DELETE; meaningless in a WITHOUT ROWID table
	NewRowid int64 // of INSERT and UPDATE
}

// ChangeHook is told of every row change before it happens.
type ChangeHook func(*Change)

type changeHook struct {
	funcs  []ChangeHook
	change Change
	names  [4]string // of the last schemas and tables
	oldest int       // of names
}

// SetChangeHook makes f the connection's listeners' dispatcher: SQLite has one hook a connection, so those who
// need row changes share it. Nil takes it away. Either drops the compiled statements: a DELETE without WHERE that
// was compiled without a hook truncates the table and reports no row.
func (c *Conn) SetChangeHook(funcs []ChangeHook) {
	if len(funcs) == 0 && c.changes == nil || c.db == 0 {
		return
	}
	c.DropStatements()
	if len(funcs) == 0 {
		c.changes = nil
		sqlite3.Xsqlite3_preupdate_hook(c.thread.tls, c.db, 0, 0)
		return
	}
	c.changes = &changeHook{funcs: funcs}
	sqlite3.Xsqlite3_preupdate_hook(c.thread.tls, c.db, funcptr(onChange), c.handle)
}

func onChange(_ *libc.TLS, h, _ uintptr, op int32, schema, table uintptr, oldRowid, newRowid int64) {
	c := lookup[*Conn](h)
	if c == nil || c.changes == nil {
		return
	}
	ch := &c.changes.change
	*ch = Change{conn: c, Op: Action(op), Schema: c.changes.name(schema), Table: c.changes.name(table), OldRowid: oldRowid, NewRowid: newRowid}
	for _, f := range c.changes.funcs {
		f(ch)
	}
}

// name is a C string. To intern it takes longer than all else of the hook, so it is looked for among the last ones first: the feed's own table comes between those of clients.
func (h *changeHook) name(p uintptr) string {
	if p == 0 {
		return ""
	}
	b := view(p, strlen(p))
	for _, name := range &h.names {
		if string(b) == name {
			return name
		}
	}
	name := intern(p)
	h.names[h.oldest] = name
	h.oldest = (h.oldest + 1) % len(h.names)
	return name
}

// Shape is what the row's table looks like.
func (ch *Change) Shape() RowShape {
	p := (*sqlite3.TPreUpdate)(at((*sqlite3.Tsqlite3)(at(ch.conn.db)).FpPreUpdate))
	tab := (*sqlite3.TTable)(at(p.FpTab))
	s := RowShape{Shadow: tab.FtabFlags&sqlite3.TF_Shadow != 0}
	if tab.FaCol == 0 { // ANALYZE names a stand-in for sqlite_stat1, without columns
		return s
	}
	s.Columns = make([]RowColumn, tab.FnCol)
	for i := range s.Columns {
		col := (*sqlite3.TColumn)(at(tab.FaCol + uintptr(i)*unsafe.Sizeof(sqlite3.TColumn{})))
		s.Columns[i] = RowColumn{cstr(col.FzCnName), col.FcolFlags&sqlite3.COLFLAG_GENERATED != 0}
	}
	if p.FpPk != 0 {
		index := (*sqlite3.TIndex)(at(p.FpPk))
		for _, i := range unsafe.Slice((*int16)(at(index.FaiColumn)), index.FnKeyCol) {
			s.Key = append(s.Key, int(i))
		}
	}
	return s
}

// Halfway tells of a statement that failed whether what it had changed by then stands, as OR FAIL and RAISE(FAIL) leave it. It is to be asked before Reset.
func (s *Stmt) Halfway() bool {
	const fail = 3 // OE_Fail
	return s.ptr != 0 && (*sqlite3.TVdbe)(at(s.ptr)).FerrorAction == fail
}

// Stopped tells of a statement that came to no end of its own that whoever took its rows wanted no more of them: what it has changed stands.
func (s *Stmt) Stopped() bool { return !s.ended }

// WritesVirtual tells whether the statement may write to a virtual table, itself or by a trigger.
func (s *Stmt) WritesVirtual() bool { return s.writesVirtual }

// RowShape is what somebody who keeps rows needs to know of their table.
type RowShape struct {
	Columns []RowColumn
	Key     []int // the columns of the primary key of a WITHOUT ROWID table, in its order; nil where the rowid is the key
	Shadow  bool  // a virtual table keeps its content in it
}

// RowColumn is a column of a RowShape.
type RowColumn struct {
	Name      string
	Generated bool // worked out from the others
}

// Columns is the number of columns of the row.
func (ch *Change) Columns() int {
	return int(sqlite3.Xsqlite3_preupdate_count(ch.conn.thread.tls, ch.conn.db))
}

// Old is column i of the row before the change, of UPDATE and DELETE. False means that SQLite can't tell, as for
// a virtual generated column.
func (ch *Change) Old(i int) (Value, bool) { return ch.value(i, sqlite3.Xsqlite3_preupdate_old) }

// New is column i of the row after the change, of INSERT and UPDATE.
func (ch *Change) New(i int) (Value, bool) { return ch.value(i, sqlite3.Xsqlite3_preupdate_new) }

func (ch *Change) value(i int, get func(*libc.TLS, uintptr, int32, uintptr) int32) (Value, bool) {
	t := ch.conn.thread
	// The result code counts, not the pointer: on an error it is what an earlier call left there. Where SQLite finds no memory for the row it
	// says OK and gives no pointer.
	*(*uintptr)(at(t.out)) = 0
	if rc := get(t.tls, ch.conn.db, int32(i), t.out); rc != sqlite3.SQLITE_OK {
		return Value{}, false
	}
	v := *(*uintptr)(at(t.out))
	if v == 0 {
		return Value{}, false
	}
	switch sqlite3.Xsqlite3_value_type(t.tls, v) {
	case sqlite3.SQLITE_INTEGER:
		return Value{Kind: Integer, Int: sqlite3.Xsqlite3_value_int64(t.tls, v)}, true
	case sqlite3.SQLITE_FLOAT:
		return Value{Kind: Real, Float: sqlite3.Xsqlite3_value_double(t.tls, v)}, true
	case sqlite3.SQLITE_TEXT:
		p := sqlite3.Xsqlite3_value_text(t.tls, v)
		return Value{Kind: Text, Bytes: view(p, int(sqlite3.Xsqlite3_value_bytes(t.tls, v)))}, true
	case sqlite3.SQLITE_BLOB:
		p := sqlite3.Xsqlite3_value_blob(t.tls, v)
		return Value{Kind: Blob, Bytes: view(p, int(sqlite3.Xsqlite3_value_bytes(t.tls, v)))}, true
	}
	return Value{}, true
}

// Shadow tells whether a virtual table keeps its content in the row's table.
func (ch *Change) Shadow() bool {
	p := (*sqlite3.TPreUpdate)(at((*sqlite3.Tsqlite3)(at(ch.conn.db)).FpPreUpdate))
	return (*sqlite3.TTable)(at(p.FpTab)).FtabFlags&sqlite3.TF_Shadow != 0
}
