package sqlite

import (
	"fmt"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Table is a virtual table that exists in every schema without being created (an "eponymous-only" one, see
// https://sqlite.org/vtab.html#epovtab) and is read from memory.
type Table struct {
	Name string
	// Columns is the column list as CREATE TABLE writes it: "id TEXT, ts INTEGER".
	Columns string
	// Rows returns the rows of one scan, each as long as the column list. The client reads the text of its error.
	Rows func() (Rows, error)
}

// Rows is one scan of a Table.
type Rows interface {
	// Next moves to the next row, the first one at first; false is the end.
	Next() bool
	// Column is column i, from 0, of the current row. Its Bytes must stay as they are until Next.
	Column(i int) Value
}

// module ties a Table to a connection. Its C struct must live as long as the connection.
type module struct {
	conn   *Conn
	table  *Table
	handle uintptr
	ptr    uintptr // *sqlite3_module
}

// vtab and vcursor are what SQLite holds of us: its own structs first, then our handle.
type vtab struct {
	base   sqlite3.Tsqlite3_vtab
	handle uintptr
}

type vcursor struct {
	base   sqlite3.Tsqlite3_vtab_cursor
	handle uintptr
}

// scan is one open cursor.
type scan struct {
	mod   *module
	rows  Rows
	rowid int64
	eof   bool
}

func (c *Conn) register(t *Table) error {
	tls := c.thread.tls
	m := &module{conn: c, table: t}
	m.ptr = libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_module{})))
	if m.ptr == 0 {
		return fmt.Errorf("register virtual table %s: out of memory", t.Name)
	}
	*(*sqlite3.Tsqlite3_module)(at(m.ptr)) = sqlite3.Tsqlite3_module{
		// No FxCreate: that is what makes it eponymous-only.
		FxConnect:    funcptr(tableConnect),
		FxBestIndex:  funcptr(tableBestIndex),
		FxDisconnect: funcptr(tableDisconnect),
		FxOpen:       funcptr(tableOpen),
		FxClose:      funcptr(tableClose),
		FxFilter:     funcptr(tableFilter),
		FxNext:       funcptr(tableNext),
		FxEof:        funcptr(tableEOF),
		FxColumn:     funcptr(tableColumn),
		FxRowid:      funcptr(tableRowid),
	}
	m.handle = newHandle(m)
	c.tables = append(c.tables, m)
	used, spilled := c.thread.mark()
	defer c.thread.rewind(used, spilled)
	name := c.thread.place([]byte(t.Name))
	if name == 0 {
		return fmt.Errorf("register virtual table %s: %w", t.Name, noMemory())
	}
	rc := sqlite3.Xsqlite3_create_module_v2(tls, c.db, name, m.ptr, m.handle, 0)
	if rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("register virtual table %s: %w", t.Name, c.fail(rc))
	}
	return nil
}

func (m *module) free() {
	freeHandle(m.handle)
	tls := libc.NewTLS()
	libc.Xfree(tls, m.ptr)
	tls.Close()
}

func tableConnect(tls *libc.TLS, db, aux uintptr, _ int32, _, out, _ uintptr) int32 {
	m := lookup[*module](aux)
	if m == nil {
		return sqlite3.SQLITE_ERROR
	}
	sql, err := libc.CString("CREATE TABLE x(" + m.table.Columns + ")")
	if err != nil {
		return sqlite3.SQLITE_NOMEM
	}
	defer libc.Xfree(tls, sql)
	if rc := sqlite3.Xsqlite3_declare_vtab(tls, db, sql); rc != sqlite3.SQLITE_OK {
		return rc
	}
	p := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(vtab{})))
	if p == 0 {
		return sqlite3.SQLITE_NOMEM
	}
	(*vtab)(at(p)).handle = aux
	*(*uintptr)(at(out)) = p
	return sqlite3.SQLITE_OK
}

func tableDisconnect(tls *libc.TLS, p uintptr) int32 {
	libc.Xfree(tls, p)
	return sqlite3.SQLITE_OK
}

// tableBestIndex takes no constraint: the table is small and in memory, SQLite filters.
func tableBestIndex(_ *libc.TLS, _, info uintptr) int32 {
	i := (*sqlite3.Tsqlite3_index_info)(at(info))
	i.FestimatedCost = 10000
	i.FestimatedRows = 10000
	return sqlite3.SQLITE_OK
}

func tableOpen(tls *libc.TLS, p, out uintptr) int32 {
	m := lookup[*module]((*vtab)(at(p)).handle)
	if m == nil {
		return sqlite3.SQLITE_ERROR
	}
	cur := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(vcursor{})))
	if cur == 0 {
		return sqlite3.SQLITE_NOMEM
	}
	(*vcursor)(at(cur)).handle = newHandle(&scan{mod: m})
	*(*uintptr)(at(out)) = cur
	return sqlite3.SQLITE_OK
}

func cursor(p uintptr) *scan { return lookup[*scan]((*vcursor)(at(p)).handle) }

func tableClose(tls *libc.TLS, p uintptr) int32 {
	freeHandle((*vcursor)(at(p)).handle)
	libc.Xfree(tls, p)
	return sqlite3.SQLITE_OK
}

func tableFilter(tls *libc.TLS, p uintptr, _ int32, _ uintptr, _ int32, _ uintptr) int32 {
	s := cursor(p)
	rows, err := s.mod.table.Rows()
	if err != nil {
		s.eof = true
		return s.fail(tls, p, err)
	}
	s.rows, s.rowid, s.eof = rows, 1, !rows.Next()
	return sqlite3.SQLITE_OK
}

// fail tells SQLite why a scan can't begin, in words that are for the client.
func (s *scan) fail(tls *libc.TLS, p uintptr, err error) int32 {
	msg := "read table " + s.mod.table.Name + ": " + err.Error()
	z := sqlite3.Xsqlite3_malloc64(tls, uint64(len(msg)+1))
	if z == 0 {
		return sqlite3.SQLITE_NOMEM
	}
	b := view(z, len(msg)+1)
	b[copy(b, msg)] = 0
	tab := (*vtab)(at((*vcursor)(at(p)).base.FpVtab))
	sqlite3.Xsqlite3_free(tls, tab.base.FzErrMsg)
	tab.base.FzErrMsg = z
	return sqlite3.SQLITE_ERROR
}

func tableNext(_ *libc.TLS, p uintptr) int32 {
	s := cursor(p)
	s.rowid++
	s.eof = !s.rows.Next()
	return sqlite3.SQLITE_OK
}

func tableEOF(_ *libc.TLS, p uintptr) int32 {
	if cursor(p).eof {
		return 1
	}
	return 0
}

func tableColumn(tls *libc.TLS, p, ctx uintptr, i int32) int32 {
	giveResult(tls, ctx, cursor(p).rows.Column(int(i)))
	return sqlite3.SQLITE_OK
}

func tableRowid(_ *libc.TLS, p, out uintptr) int32 {
	*(*int64)(at(out)) = cursor(p).rowid
	return sqlite3.SQLITE_OK
}
