package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"
	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// maxStatements bounds one connection's statement cache.
const maxStatements = 64

// checkpointFrames is the log's length, in frames of one page, from which the
// actor copies it back into the database file.
const checkpointFrames = 1000

// pragmas is run on every open. EXCLUSIVE stands before the first access to
// the log, so that SQLite keeps the log's index on its heap and not in a file.
const pragmas = `PRAGMA page_size=4096;
PRAGMA locking_mode=EXCLUSIVE;
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
PRAGMA foreign_keys=ON;
PRAGMA wal_autocheckpoint=0;`

var errNotOneStatement = errors.New("exactly one statement is expected")

// worker is what a goroutine needs to call SQLite: the thread-local storage of
// the transpiled C and an arena that holds bound text until the statement is
// reset. Actors borrow one for as long as they have work, so that an idle
// database costs neither.
type worker struct {
	tls   *libc.TLS
	arena uintptr
	size  int
	out   uintptr // room for out parameters and variadic arguments
}

// workers is a pool of workers; its zero value is empty and ready.
type workers struct {
	mu   sync.Mutex
	free []*worker
}

func (p *workers) get() *worker {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		w := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return w
	}
	p.mu.Unlock()
	tls := libc.NewTLS()
	return &worker{tls: tls, out: libc.Xmalloc(tls, 64)}
}

func (p *workers) put(w *worker) {
	p.mu.Lock()
	p.free = append(p.free, w)
	p.mu.Unlock()
}

// reserve makes the arena hold n bytes. What it held before is lost.
func (w *worker) reserve(n int) {
	if n <= w.size {
		return
	}
	libc.Xfree(w.tls, w.arena)
	w.size = max(n, 4096)
	w.arena = libc.Xmalloc(w.tls, libc.Tsize_t(w.size))
}

// statement is a prepared statement with what its answer always begins with.
type statement struct {
	p       uintptr
	columns int32
	params  int32
	head    []byte // `{"columns":[…],"rows":[`
	reads   bool
	ddl     bool
}

// at turns an address in C memory, which no garbage collector moves, into a
// pointer.
func at(address uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&address))
}

// conn is one database's connection. It belongs to its actor.
type conn struct {
	db     uintptr
	frames uintptr // C memory: the log's length after the last commit, set by walHook
	cache  map[string]*statement
}

func (w *worker) open(path string) (*conn, error) {
	name, err := libc.CString(path)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(w.tls, name)
	flags := int32(sqlite3.SQLITE_OPEN_READWRITE | sqlite3.SQLITE_OPEN_CREATE | sqlite3.SQLITE_OPEN_NOMUTEX)
	rc := sqlite3.Xsqlite3_open_v2(w.tls, name, w.out, flags, 0)
	c := &conn{db: *(*uintptr)(at(w.out)), cache: make(map[string]*statement, 4)}
	if rc != sqlite3.SQLITE_OK {
		err := c.err(w)
		sqlite3.Xsqlite3_close_v2(w.tls, c.db)
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	c.frames = libc.Xcalloc(w.tls, 1, 8)
	va := w.out
	sqlite3.Xsqlite3_db_config(w.tls, c.db, sqlite3.SQLITE_DBCONFIG_LOOKASIDE, libc.VaList(va, uintptr(0), int32(0), int32(0)))
	sqlite3.Xsqlite3_db_config(w.tls, c.db, sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, libc.VaList(va, int32(1), uintptr(0)))
	if err := c.exec(w, pragmas); err != nil {
		c.close(w)
		return nil, fmt.Errorf("configure %s: %w", path, err)
	}
	sqlite3.Xsqlite3_wal_hook(w.tls, c.db, walHookPointer, c.frames)
	return c, nil
}

// walHookPointer is walHook as the transpiled code takes function pointers.
var walHookPointer = *(*uintptr)(unsafe.Pointer(&struct {
	f func(*libc.TLS, uintptr, uintptr, uintptr, int32) int32
}{walHook}))

func walHook(_ *libc.TLS, cell, _, _ uintptr, frames int32) int32 {
	*(*int32)(at(cell)) = frames
	return sqlite3.SQLITE_OK
}

func (c *conn) exec(w *worker, sql string) error {
	p, err := libc.CString(sql)
	if err != nil {
		return err
	}
	defer libc.Xfree(w.tls, p)
	if rc := sqlite3.Xsqlite3_exec(w.tls, c.db, p, 0, 0, 0); rc != sqlite3.SQLITE_OK {
		return c.err(w)
	}
	return nil
}

// checkpoint copies the log back once it is long enough, or always if force is
// set.
func (c *conn) checkpoint(w *worker, force bool) {
	frames := (*int32)(at(c.frames))
	if *frames < checkpointFrames && (!force || *frames == 0) {
		return
	}
	mode := int32(sqlite3.SQLITE_CHECKPOINT_PASSIVE)
	if force {
		mode = sqlite3.SQLITE_CHECKPOINT_TRUNCATE
	}
	sqlite3.Xsqlite3_wal_checkpoint_v2(w.tls, c.db, 0, mode, 0, 0)
	*frames = 0
}

func (c *conn) close(w *worker) {
	c.checkpoint(w, true)
	c.dropCache(w)
	sqlite3.Xsqlite3_close_v2(w.tls, c.db)
	libc.Xfree(w.tls, c.frames)
}

func (c *conn) dropCache(w *worker) {
	for _, s := range c.cache {
		sqlite3.Xsqlite3_finalize(w.tls, s.p)
	}
	clear(c.cache)
}

// err is what SQLite says about the connection's last call.
func (c *conn) err(w *worker) error {
	return errors.New(libc.GoString(sqlite3.Xsqlite3_errmsg(w.tls, c.db)))
}

// prepare returns the cached statement of this text, or a new one.
func (c *conn) prepare(w *worker, sql []byte) (*statement, error) {
	if s, ok := c.cache[string(sql)]; ok {
		return s, nil
	}
	if len(c.cache) >= maxStatements {
		c.dropCache(w)
	}
	w.reserve(len(sql) + 1)
	copy(unsafe.Slice((*byte)(at(w.arena)), len(sql)), sql)
	*(*byte)(at(w.arena + uintptr(len(sql)))) = 0
	tail := w.out + 8
	if rc := sqlite3.Xsqlite3_prepare_v3(w.tls, c.db, w.arena, int32(len(sql)+1), sqlite3.SQLITE_PREPARE_PERSISTENT, w.out, tail); rc != sqlite3.SQLITE_OK {
		return nil, c.err(w)
	}
	s := &statement{p: *(*uintptr)(at(w.out))}
	rest := sql[*(*uintptr)(at(tail))-w.arena:]
	if s.p == 0 || !blank(rest) {
		sqlite3.Xsqlite3_finalize(w.tls, s.p)
		return nil, errNotOneStatement
	}
	s.columns = sqlite3.Xsqlite3_column_count(w.tls, s.p)
	s.params = sqlite3.Xsqlite3_bind_parameter_count(w.tls, s.p)
	s.reads = sqlite3.Xsqlite3_stmt_readonly(w.tls, s.p) != 0
	s.ddl = changesSchema(sql)
	s.head = append(s.head, `{"columns":[`...)
	for i := range s.columns {
		if i > 0 {
			s.head = append(s.head, ',')
		}
		s.head, _ = jsontext.AppendQuote(s.head, libc.GoString(sqlite3.Xsqlite3_column_name(w.tls, s.p, i)))
	}
	s.head = append(s.head, `],"rows":[`...)
	c.cache[string(sql)] = s
	return s, nil
}

func (c *conn) bind(w *worker, s *statement, params []value, text []byte) error {
	if len(params) != int(s.params) {
		return fmt.Errorf("the statement has %d parameters, %d were given", s.params, len(params))
	}
	need := 0
	for i := range params {
		need += params[i].n
	}
	w.reserve(need)
	used := uintptr(0)
	for i := range params {
		v, index, rc := &params[i], int32(i+1), int32(0)
		switch v.kind {
		case kindNull:
			rc = sqlite3.Xsqlite3_bind_null(w.tls, s.p, index)
		case kindInteger:
			rc = sqlite3.Xsqlite3_bind_int64(w.tls, s.p, index, v.i)
		case kindReal:
			rc = sqlite3.Xsqlite3_bind_double(w.tls, s.p, index, v.f)
		default:
			// The arena outlives the statement's reset: SQLite needn't copy.
			p := w.arena + used
			copy(unsafe.Slice((*byte)(at(p)), v.n), text[v.off:v.off+v.n])
			used += uintptr(v.n)
			if v.kind == kindBlob {
				rc = sqlite3.Xsqlite3_bind_blob(w.tls, s.p, index, p, int32(v.n), 0)
			} else {
				rc = sqlite3.Xsqlite3_bind_text(w.tls, s.p, index, p, int32(v.n), 0)
			}
		}
		if rc != sqlite3.SQLITE_OK {
			return c.err(w)
		}
	}
	return nil
}

// tally is what one or more statements did.
type tally struct {
	rowsRead, rowsWritten int64
}

// run steps a bound statement to its end, appends `{"columns":…,"lastInsertRowid":n`
// (the object stays open for meta) to out, and resets the statement.
func (c *conn) run(w *worker, s *statement, out []byte) ([]byte, tally, error) {
	var done tally
	start := len(out)
	before := int64(0)
	if !s.reads {
		before = sqlite3.Xsqlite3_total_changes64(w.tls, c.db)
	}
	out = append(out, s.head...)
	rc := sqlite3.Xsqlite3_step(w.tls, s.p)
	for ; rc == sqlite3.SQLITE_ROW; rc = sqlite3.Xsqlite3_step(w.tls, s.p) {
		if done.rowsRead > 0 {
			out = append(out, ',')
		}
		done.rowsRead++
		out = append(out, '[')
		for i := range s.columns {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendColumn(out, w.tls, sqlite3.Xsqlite3_column_value(w.tls, s.p, i))
		}
		out = append(out, ']')
	}
	if rc != sqlite3.SQLITE_DONE {
		err := c.err(w)
		sqlite3.Xsqlite3_reset(w.tls, s.p)
		return out[:start], tally{}, err
	}
	sqlite3.Xsqlite3_reset(w.tls, s.p)
	rowid := int64(0)
	if !s.reads && !s.ddl && sqlite3.Xsqlite3_total_changes64(w.tls, c.db) != before {
		done.rowsWritten = sqlite3.Xsqlite3_changes64(w.tls, c.db)
		rowid = sqlite3.Xsqlite3_last_insert_rowid(w.tls, c.db)
	}
	out = append(out, `],"rowsRead":`...)
	out = strconv.AppendInt(out, done.rowsRead, 10)
	out = append(out, `,"rowsWritten":`...)
	out = strconv.AppendInt(out, done.rowsWritten, 10)
	out = append(out, `,"changes":`...)
	out = strconv.AppendInt(out, done.rowsWritten, 10)
	out = append(out, `,"lastInsertRowid":`...)
	out = strconv.AppendInt(out, rowid, 10)
	return out, done, nil
}

// stepControl steps a statement without parameters or rows.
func (c *conn) stepControl(w *worker, s *statement) error {
	rc := sqlite3.Xsqlite3_step(w.tls, s.p)
	if rc != sqlite3.SQLITE_DONE {
		err := c.err(w)
		sqlite3.Xsqlite3_reset(w.tls, s.p)
		return err
	}
	sqlite3.Xsqlite3_reset(w.tls, s.p)
	return nil
}

// autocommit reports whether no transaction is open.
func (c *conn) autocommit(w *worker) bool {
	return sqlite3.Xsqlite3_get_autocommit(w.tls, c.db) != 0
}

// appendColumn appends one column's value as the contract spells it.
func appendColumn(out []byte, tls *libc.TLS, v uintptr) []byte {
	switch sqlite3.Xsqlite3_value_type(tls, v) {
	case sqlite3.SQLITE_INTEGER:
		return strconv.AppendInt(out, sqlite3.Xsqlite3_value_int64(tls, v), 10)
	case sqlite3.SQLITE_FLOAT:
		return appendReal(out, sqlite3.Xsqlite3_value_double(tls, v))
	case sqlite3.SQLITE_TEXT:
		p := sqlite3.Xsqlite3_value_text(tls, v)
		// Invalid UTF-8 is replaced as the contract wants it, and reported.
		out, _ = jsontext.AppendQuote(out, unsafe.Slice((*byte)(at(p)), sqlite3.Xsqlite3_value_bytes(tls, v)))
		return out
	case sqlite3.SQLITE_BLOB:
		p := sqlite3.Xsqlite3_value_blob(tls, v)
		out = append(out, `{"$blob":"`...)
		if n := sqlite3.Xsqlite3_value_bytes(tls, v); n > 0 {
			out = base64.StdEncoding.AppendEncode(out, unsafe.Slice((*byte)(at(p)), n))
		}
		return append(out, `"}`...)
	}
	return append(out, "null"...)
}

// appendReal appends the shortest form that reads back to the same bits, with
// a fraction or an exponent.
func appendReal(out []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(out, "9e999"...)
	case math.IsInf(f, -1):
		return append(out, "-9e999"...)
	}
	start := len(out)
	out = strconv.AppendFloat(out, f, 'g', -1, 64)
	for _, b := range out[start:] {
		if b == '.' || b == 'e' {
			return out
		}
	}
	return append(out, '.', '0')
}

// blank reports whether nothing but space and semicolons is left.
func blank(sql []byte) bool {
	for _, b := range sql {
		switch b {
		case ' ', '\t', '\r', '\n', ';':
		default:
			return false
		}
	}
	return true
}

// changesSchema tells by the first word whether cached column names may be
// stale after the statement.
func changesSchema(sql []byte) bool {
	for len(sql) > 0 && (sql[0] == ' ' || sql[0] == '\n' || sql[0] == '\t' || sql[0] == '\r') {
		sql = sql[1:]
	}
	if len(sql) < 4 {
		return false
	}
	switch string(sql[:4]) {
	case "CREA", "crea", "ALTE", "alte", "DROP", "drop", "VACU", "vacu", "PRAG", "prag":
		return true
	}
	return false
}
