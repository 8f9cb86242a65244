package sqlite

import (
	"fmt"
	"math"
	"strings"
	"unsafe"

	sqlite3 "modernc.org/sqlite/lib"
)

// Stmt is a compiled statement. It belongs to its connection's cache: Done gives it back.
type Stmt struct {
	conn *Conn
	ptr  uintptr
	sql  string

	// Accesses is what the statement would touch, without repetitions; nil for the server's own.
	Accesses []Access
	// Writes tells that running it may change the file or the schema.
	Writes bool
	// Alters tells that running it may change the schema.
	Alters bool
	// Vacuum marks VACUUM, which SQLite's authorizer does not report: it can't run inside a transaction.
	Vacuum bool
	// Explain marks EXPLAIN and EXPLAIN QUERY PLAN, which run nothing.
	Explain bool
	// Memo holds what a policy worked out about the statement, as long as it stays compiled.
	Memo any

	policy    Policy // for what it compiles while it runs
	columns   int32
	params    int32
	seeks     uint32 // Rewind, Last and Seek operations in the program, for the estimate of rows read
	writesA   int64  // Insert and IdxInsert operations of one row, for the estimate of rows written
	optimizes bool
	busy      bool
	own       bool
	cached    bool
	bound     bool
	running   bool

	prev, next *Stmt // the cache, most recently used first
}

// SQL is the text of the statement.
func (s *Stmt) SQL() string { return s.sql }

// examine reads the compiled program for what no callback tells.
func (s *Stmt) examine() {
	tls := s.conn.thread.tls
	s.columns = sqlite3.Xsqlite3_column_count(tls, s.ptr)
	s.params = sqlite3.Xsqlite3_bind_parameter_count(tls, s.ptr)
	s.Explain = sqlite3.Xsqlite3_stmt_isexplain(tls, s.ptr) != 0
	v := (*sqlite3.TVdbe)(unsafe.Pointer(s.ptr))
	var inserts, indexes int64
	ops := unsafe.Slice((*sqlite3.TVdbeOp)(unsafe.Pointer(v.FaOp)), v.FnOp)
	for i := range ops {
		switch ops[i].Fopcode {
		case sqlite3.OP_Vacuum:
			s.Vacuum = !s.Explain
		case sqlite3.OP_Rewind, sqlite3.OP_Last, sqlite3.OP_SeekGE, sqlite3.OP_SeekGT, sqlite3.OP_SeekLE, sqlite3.OP_SeekLT,
			sqlite3.OP_SeekRowid, sqlite3.OP_NotExists:
			s.seeks++
		case sqlite3.OP_Insert:
			inserts++
		case sqlite3.OP_IdxInsert:
			indexes++
		}
	}
	s.writesA = 1
	if inserts > 0 {
		s.writesA += indexes / inserts
	}
	for i := range s.Accesses {
		switch s.Accesses[i].Action {
		case Insert, Update, Delete:
			s.Writes = true
		case CreateIndex, CreateTable, CreateTrigger, CreateView, DropIndex, DropTable, DropTrigger, DropView, AlterTable,
			CreateVTable, DropVTable, Analyze, Reindex:
			s.Writes, s.Alters = true, true
		case Pragma:
			if strings.EqualFold(s.Accesses[i].Name, "optimize") {
				s.Writes, s.Alters, s.optimizes = true, true, true
			}
		}
	}
	s.Writes = !s.Explain && (s.Writes || s.Vacuum || sqlite3.Xsqlite3_stmt_readonly(tls, s.ptr) == 0)
	s.Alters = s.Writes && (s.Alters || s.Vacuum)
}

// Params is the number of parameters, counted as SQLite does: the greatest index.
func (s *Stmt) Params() int { return int(s.params) }

// ParamName is the name of parameter i, from 1, with its prefix; empty for "?".
func (s *Stmt) ParamName(i int) string {
	return cstr(sqlite3.Xsqlite3_bind_parameter_name(s.conn.thread.tls, s.ptr, int32(i)))
}

// BindError tells that the parameters given are not the statement's.
type BindError struct {
	TooMany bool   // more than the statement has, or a name that it doesn't have
	Missing string // the parameter without a value
	Message string
}

func (e *BindError) Error() string { return e.Message }

// Bind gives the statement its parameters: by position, or by name with or without the prefix. Every parameter
// must get a value, and every value a parameter.
func (s *Stmt) Bind(params []Param) error {
	if len(params) > 0 && params[0].Name != "" {
		return s.bindNamed(params)
	}
	if len(params) > int(s.params) {
		return &BindError{TooMany: true, Message: fmt.Sprintf("the statement has %d parameters, %d values were given", s.params, len(params))}
	}
	if len(params) < int(s.params) {
		missing := s.label(len(params) + 1)
		return &BindError{Missing: missing, Message: fmt.Sprintf("no value for parameter %s: the statement has %d, %d values were given", missing, s.params, len(params))}
	}
	for i := range params {
		if err := s.bind(i+1, &params[i].Value); err != nil {
			return err
		}
	}
	return nil
}

// label names parameter i for a message.
func (s *Stmt) label(i int) string {
	if name := s.ParamName(i); name != "" {
		return name
	}
	return fmt.Sprintf("?%d", i)
}

func (s *Stmt) bindNamed(params []Param) error {
	given := make([]bool, s.params+1)
	for p := range params {
		found := false
		for i := 1; i <= int(s.params); i++ {
			name := s.ParamName(i)
			if name == "" {
				continue
			}
			if name == params[p].Name || name[1:] == params[p].Name {
				if err := s.bind(i, &params[p].Value); err != nil {
					return err
				}
				given[i], found = true, true
			}
		}
		if !found {
			return &BindError{TooMany: true, Message: fmt.Sprintf("the statement has no parameter named %s", params[p].Name)}
		}
	}
	for i := 1; i <= int(s.params); i++ {
		if given[i] {
			continue
		}
		name := s.ParamName(i)
		if name == "" && s.gap(i) {
			continue
		}
		return &BindError{Missing: s.label(i), Message: fmt.Sprintf("no value for parameter %s", s.label(i))}
	}
	return nil
}

// gap tells whether parameter i is only counted and not read by the program: ?5 alone makes five parameters.
func (s *Stmt) gap(i int) bool {
	v := (*sqlite3.TVdbe)(unsafe.Pointer(s.ptr))
	ops := unsafe.Slice((*sqlite3.TVdbeOp)(unsafe.Pointer(v.FaOp)), v.FnOp)
	for j := range ops {
		if ops[j].Fopcode == sqlite3.OP_Variable && ops[j].Fp1 == int32(i) {
			return false
		}
	}
	return true
}

func (s *Stmt) bind(i int, v *Value) error {
	tls := s.conn.thread.tls
	s.bound = true
	var rc int32
	switch v.Kind {
	case Null:
		rc = sqlite3.Xsqlite3_bind_null(tls, s.ptr, int32(i))
	case Integer:
		rc = sqlite3.Xsqlite3_bind_int64(tls, s.ptr, int32(i), v.Int)
	case Real:
		rc = sqlite3.Xsqlite3_bind_double(tls, s.ptr, int32(i), v.Float)
	default:
		p := s.conn.thread.place(v.Bytes)
		if p == 0 {
			return &Error{Code: CodeNoMem, Message: "out of memory", Offset: -1}
		}
		if v.Kind == Text {
			rc = sqlite3.Xsqlite3_bind_text64(tls, s.ptr, int32(i), p, uint64(len(v.Bytes)), 0, sqlite3.SQLITE_UTF8)
		} else {
			rc = sqlite3.Xsqlite3_bind_blob64(tls, s.ptr, int32(i), p, uint64(len(v.Bytes)), 0)
		}
	}
	if rc != sqlite3.SQLITE_OK {
		return s.conn.fail(rc)
	}
	return nil
}

// Step runs the statement to its next row; false is its end.
func (s *Stmt) Step() (row bool, err error) {
	c := s.conn
	was, nested := c.mode, c.nested
	if s.own {
		c.mode = modeOwn
	} else {
		c.mode, c.nested = modeStep, s
	}
	s.running = true
	if s.Alters {
		c.altered = true
	}
	rc := sqlite3.Xsqlite3_step(c.thread.tls, s.ptr)
	c.mode, c.nested = was, nested
	switch rc {
	case sqlite3.SQLITE_ROW:
		return true, nil
	case sqlite3.SQLITE_DONE:
		return false, nil
	}
	err = c.fail(rc)
	c.denied, c.stopped = nil, nil
	return false, err
}

// Columns is the number of columns that a row has: 0 for a statement that returns none.
func (s *Stmt) Columns() int { return int(s.columns) }

// ColumnName is the name of column i, from 0, valid until the next Step.
func (s *Stmt) ColumnName(i int) []byte {
	p := sqlite3.Xsqlite3_column_name(s.conn.thread.tls, s.ptr, int32(i))
	if p == 0 {
		return nil
	}
	return view(p, strlen(p))
}

// Column is column i, from 0, of the row that Step stopped at. Its Bytes are the engine's own memory: valid until
// the next call on the statement.
func (s *Stmt) Column(i int) Value {
	// The row stands in the virtual machine's registers: reading them costs a tenth of six calls through the API,
	// each of which looks for the register anew.
	row := (*sqlite3.TVdbe)(unsafe.Pointer(s.ptr)).FpResultRow
	if row == 0 || i < 0 || i >= int(s.columns) {
		return Value{}
	}
	m := (*sqlite3.TMem)(unsafe.Pointer(row + uintptr(i)*unsafe.Sizeof(sqlite3.TMem{})))
	switch f := m.Fflags; {
	case f&sqlite3.MEM_Null != 0:
		return Value{}
	case f&sqlite3.MEM_Str != 0 && f&sqlite3.MEM_Zero == 0 && m.Fenc == sqlite3.SQLITE_UTF8:
		return Value{Kind: Text, Bytes: view(m.Fz, int(m.Fn))}
	case f&(sqlite3.MEM_Str|sqlite3.MEM_IntReal|sqlite3.MEM_Zero) != 0:
		return s.columnSlow(int32(i))
	case f&sqlite3.MEM_Int != 0:
		return Value{Kind: Integer, Int: *(*int64)(unsafe.Pointer(&m.Fu))}
	case f&sqlite3.MEM_Real != 0:
		return Value{Kind: Real, Float: *(*float64)(unsafe.Pointer(&m.Fu))}
	case f&sqlite3.MEM_Blob != 0:
		return Value{Kind: Blob, Bytes: view(m.Fz, int(m.Fn))}
	}
	return s.columnSlow(int32(i))
}

// columnSlow lets SQLite convert what isn't stored as it is returned: UTF-16, zeroblobs, integers kept as reals.
func (s *Stmt) columnSlow(i int32) Value {
	tls := s.conn.thread.tls
	switch sqlite3.Xsqlite3_column_type(tls, s.ptr, i) {
	case sqlite3.SQLITE_INTEGER:
		return Value{Kind: Integer, Int: sqlite3.Xsqlite3_column_int64(tls, s.ptr, i)}
	case sqlite3.SQLITE_FLOAT:
		return Value{Kind: Real, Float: sqlite3.Xsqlite3_column_double(tls, s.ptr, i)}
	case sqlite3.SQLITE_TEXT:
		p := sqlite3.Xsqlite3_column_text(tls, s.ptr, i)
		return Value{Kind: Text, Bytes: view(p, int(sqlite3.Xsqlite3_column_bytes(tls, s.ptr, i)))}
	case sqlite3.SQLITE_BLOB:
		p := sqlite3.Xsqlite3_column_blob(tls, s.ptr, i)
		return Value{Kind: Blob, Bytes: view(p, int(sqlite3.Xsqlite3_column_bytes(tls, s.ptr, i)))}
	}
	return Value{}
}

// Counts is what a run of a statement cost, by SQLite's statement counters.
type Counts struct {
	RowsRead    int64
	RowsWritten int64
}

// Counts estimates the rows that the run read: the steps of every scan, and one for each seek of the program. rows
// changed is the difference of TotalChanges that the run made. The engine has no exact counter, see DESIGN.md.
func (s *Stmt) Counts(changed int64) Counts {
	v := (*sqlite3.TVdbe)(unsafe.Pointer(s.ptr))
	read := int64(v.FaCounter[0]) + int64(v.FaCounter[sqlite3.SQLITE_STMTSTATUS_FULLSCAN_STEP]) + int64(v.FaCounter[sqlite3.SQLITE_STMTSTATUS_AUTOINDEX])
	v.FaCounter[0], v.FaCounter[sqlite3.SQLITE_STMTSTATUS_FULLSCAN_STEP], v.FaCounter[sqlite3.SQLITE_STMTSTATUS_AUTOINDEX] = 0, 0, 0
	if !s.Explain {
		read += int64(s.seeks)
	}
	return Counts{RowsRead: read, RowsWritten: satMul(changed, s.writesA)}
}

func satMul(a, b int64) int64 {
	if a > math.MaxInt64/max(b, 1) {
		return math.MaxInt64
	}
	return a * b
}

// Reset stops the statement and forgets its parameters, so that it can be bound anew.
func (s *Stmt) Reset() {
	c := s.conn
	if c == nil || c.damaged {
		return
	}
	if s.running {
		// The result repeats the last Step's, which was handled there.
		sqlite3.Xsqlite3_reset(c.thread.tls, s.ptr)
		s.running = false
	}
	if s.bound {
		sqlite3.Xsqlite3_clear_bindings(c.thread.tls, s.ptr)
		s.bound = false
	}
}

// Done ends the use of the statement: it goes back into the cache, or away when it isn't kept.
func (s *Stmt) Done() {
	c := s.conn
	if c == nil || !s.busy {
		return
	}
	s.Reset()
	s.busy = false
	if !s.cached {
		s.finalize()
	}
	if c.damaged {
		return
	}
	if c.cache.busy--; c.cache.busy == 0 {
		c.thread.release()
	}
	if s.Alters {
		c.DropStatements()
	}
}

func (s *Stmt) finalize() {
	if c := s.conn; c != nil && !c.damaged {
		sqlite3.Xsqlite3_finalize(c.thread.tls, s.ptr)
	}
	s.conn, s.ptr = nil, 0
}
