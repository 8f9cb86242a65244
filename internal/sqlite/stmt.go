package sqlite

import (
	"fmt"
	"strings"
	"unsafe"

	sqlite3 "modernc.org/sqlite/lib"
)

// Stmt is a compiled statement. It belongs to its connection's cache: Done gives it back.
type Stmt struct {
	conn   *Conn
	thread *Thread // whose memory its parameters are in, while it is in use
	ptr    uintptr
	sql    string

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
	// Claims marks a statement that calls ClaimFunction: SetClaims is to be called before it runs.
	Claims bool
	// Memo holds what a policy worked out about the statement, as long as it stays compiled.
	Memo any

	policy    Policy // for what it compiles while it runs
	params    int32
	estimate  estimate
	fires     []string // triggers that it has programs of
	borrows   []string // tables that its virtual tables read by statements of their own
	shown     string   // the table that a pragma_…() function of it was asked about last, in lower case: a virtual one is connected then
	switched  uint64   // the connection's flags that it switches, a pragma,
	values    uint64   // and what to
	optimizes bool
	// writesVirtual says that a virtual table is written to, by the statement or, perhaps, a trigger.
	writesVirtual bool
	checks        bool // it checks the file's integrity, for which virtual tables read all that is theirs
	busy          bool
	own           bool
	bare          bool // neither triggers nor foreign keys
	cached        bool
	bound         bool
	running       bool
	ended         bool // Step came to the end or to an error; SQLite would begin anew

	prev, next *Stmt // the cache, most recently used first; or the connection's loose statements
}

// SQL is the text of the statement.
func (s *Stmt) SQL() string { return s.sql }

// program is what the statement was compiled to.
func (s *Stmt) program() []sqlite3.TVdbeOp {
	v := (*sqlite3.TVdbe)(at(s.ptr))
	return unsafe.Slice((*sqlite3.TVdbeOp)(at(v.FaOp)), v.FnOp)
}

// examine reads the compiled program for what no callback tells.
func (s *Stmt) examine() {
	tls := s.conn.thread.tls
	s.params = sqlite3.Xsqlite3_bind_parameter_count(tls, s.ptr)
	s.Explain = sqlite3.Xsqlite3_stmt_isexplain(tls, s.ptr) != 0
	ops := s.program()
	s.estimate.examine(ops)
	for i := range ops {
		switch ops[i].Fopcode {
		case sqlite3.OP_Vacuum:
			s.Vacuum = !s.Explain
		case sqlite3.OP_ParseSchema, sqlite3.OP_DropTable, sqlite3.OP_DropIndex, sqlite3.OP_DropTrigger, sqlite3.OP_LoadAnalysis:
			s.Alters = true // nothing is collected of the server's own statements
		case sqlite3.OP_SetCookie:
			s.Alters = s.Alters || ops[i].Fp2 == sqlite3.BTREE_SCHEMA_VERSION
		case sqlite3.OP_VUpdate, sqlite3.OP_Program:
			s.writesVirtual = true
		}
	}
	for i := range s.Accesses {
		switch s.Accesses[i].Action {
		case Insert, Update, Delete:
			s.Writes = true
		case CreateIndex, CreateTable, CreateTrigger, CreateView, DropIndex, DropTable, DropTrigger, DropView, AlterTable,
			CreateVTable, DropVTable, Analyze, Reindex:
			s.Writes, s.Alters = true, true
		case Function:
			s.Claims = s.Claims || s.Accesses[i].Detail == ClaimFunction
		case Pragma:
			switch strings.ToLower(s.Accesses[i].Name) {
			case "optimize":
				s.Writes, s.Alters, s.optimizes = true, true, true
			case "integrity_check", "quick_check":
				s.checks = true
			}
		case Read:
			switch strings.ToLower(s.Accesses[i].Name) {
			case "pragma_integrity_check", "pragma_quick_check":
				s.checks = true
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
// must get a value, and every value a parameter. The values are copied.
func (s *Stmt) Bind(params []Param) error {
	if s.conn == nil || s.conn.damaged {
		return errClosed()
	}
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
	exact := s.names()
	bare := make(map[string][]int, len(exact))
	for name, i := range exact {
		bare[name[1:]] = append(bare[name[1:]], i)
	}
	given := make([]bool, s.params+1)
	give := func(p *Param, indexes []int) error {
		if len(indexes) == 0 {
			return &BindError{TooMany: true, Message: fmt.Sprintf("the statement has no parameter named %s", p.Name)}
		}
		bound := false
		for _, i := range indexes {
			if given[i] {
				continue
			}
			if err := s.bind(i, &p.Value); err != nil {
				return err
			}
			given[i], bound = true, true
		}
		if !bound {
			return &BindError{TooMany: true, Message: fmt.Sprintf("parameter %s is given twice", p.Name)}
		}
		return nil
	}
	// With its prefix a name means one parameter; without, all that are left: a means :a and @a.
	for p := range params {
		if i, ok := exact[params[p].Name]; ok {
			if err := give(&params[p], []int{i}); err != nil {
				return err
			}
		}
	}
	for p := range params {
		if _, ok := exact[params[p].Name]; !ok {
			if err := give(&params[p], bare[params[p].Name]); err != nil {
				return err
			}
		}
	}
	named := make([]bool, s.params+1)
	for _, i := range exact {
		named[i] = true
	}
	for i := 1; i <= int(s.params); i++ {
		if given[i] || !named[i] && s.gap(i) {
			continue
		}
		return &BindError{Missing: s.label(i), Message: fmt.Sprintf("no value for parameter %s", s.label(i))}
	}
	return nil
}

// names are the statement's named parameters with their indexes. It reads SQLite's own list at once: asked name by
// name, SQLite goes through the list each time, and a statement may have 32,766.
func (s *Stmt) names() map[string]int {
	p := (*sqlite3.TVdbe)(at(s.ptr)).FpVList
	if p == 0 {
		return nil
	}
	// Integers: room, used; then for each name its index, how many integers the entry takes, and the name.
	list := unsafe.Slice((*int32)(at(p)), *(*int32)(at(p + 4)))
	names := make(map[string]int)
	for i := 2; i < len(list); i += int(list[i+1]) {
		names[cstr(p+uintptr(4*(i+2)))] = int(list[i])
	}
	return names
}

// gap tells whether parameter i is only counted and not read by the program: ?5 alone makes five parameters.
func (s *Stmt) gap(i int) bool {
	ops := s.program()
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
			return noMemory()
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

// Put runs the statement to its end with these values and takes back the memory that they stood in: for many rows, one after another.
func (s *Stmt) Put(params []Param) error {
	t := s.conn.thread
	used, spilled := t.mark()
	defer t.rewind(used, spilled)
	defer s.Reset() // before the memory goes
	if err := s.Bind(params); err != nil {
		return err
	}
	for {
		if more, err := s.Step(); err != nil || !more {
			return err
		}
	}
}

// Step runs the statement to its next row; false is its end, and stays so until Reset.
func (s *Stmt) Step() (row bool, err error) {
	c := s.conn
	if c == nil || c.damaged {
		return false, errClosed()
	}
	if s.ended {
		return false, nil
	}
	c.denied, c.stopped = nil, nil
	was, nested := c.mode, c.nested
	if s.own {
		c.mode = modeOwn
	} else {
		c.mode, c.nested = modeStep, s
	}
	if s.switched != 0 && !s.running {
		db := (*sqlite3.Tsqlite3)(at(c.db))
		db.Fflags = db.Fflags&^s.switched | s.values
	}
	if !s.running {
		(*sqlite3.Tsqlite3)(at(c.db)).FnProgressOps = firstOps
		c.began = true
		if s.writesVirtual {
			s.noteVirtual()
		}
	}
	s.running = true
	if s.Alters {
		c.altered = true
	}
	var rc int32
	if s.bare { // it may be compiled again here
		c.barely(func() { rc = sqlite3.Xsqlite3_step(c.thread.tls, s.ptr) })
	} else {
		rc = sqlite3.Xsqlite3_step(c.thread.tls, s.ptr)
	}
	c.mode, c.nested = was, nested
	switch rc {
	case sqlite3.SQLITE_ROW:
		return true, nil
	case sqlite3.SQLITE_DONE:
		s.ended = true
		return false, nil
	}
	s.ended = true
	e := c.fail(rc)
	e.Offset = -1 // a position in the text is the compiler's to tell; what stands there now is an earlier error's
	if e.Code.Primary() == CodeNoMem && s.readsPragma() {
		// SQLite makes a statement of the function's argument, and says that it has no memory for one that is too long.
		e.Code, e.Message = CodeTooBig, "string or blob too big"
	}
	return false, e
}

// readsPragma tells whether the statement reads a pragma's table-valued function.
func (s *Stmt) readsPragma() bool {
	for i := range s.Accesses {
		if n := s.Accesses[i].Name; s.Accesses[i].Action == Read && len(n) > 7 && strings.EqualFold(n[:7], "pragma_") {
			return true
		}
	}
	return false
}

// Columns is the number of columns that a row has: 0 for a statement that returns none. The first Step may change it,
// when the schema has changed since Prepare.
func (s *Stmt) Columns() int {
	if s.ptr == 0 {
		return 0
	}
	return int((*sqlite3.TVdbe)(at(s.ptr)).FnResColumn)
}

// ColumnName is the name of column i, from 0, valid until the next Step.
func (s *Stmt) ColumnName(i int) []byte {
	if s.ptr == 0 {
		return nil
	}
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
	if s.ptr == 0 {
		return Value{}
	}
	v := (*sqlite3.TVdbe)(at(s.ptr))
	row := v.FpResultRow
	if row == 0 || i < 0 || i >= int(v.FnResColumn) {
		return Value{}
	}
	m := (*sqlite3.TMem)(at(row + uintptr(i)*unsafe.Sizeof(sqlite3.TMem{})))
	switch f := m.Fflags; {
	case f&sqlite3.MEM_Null != 0:
		return Value{}
	// Numbers first: a register that was made text for a moment (a||'x') holds both, and is a number.
	case f&sqlite3.MEM_Int != 0:
		return Value{Kind: Integer, Int: *(*int64)(unsafe.Pointer(&m.Fu))}
	case f&sqlite3.MEM_Real != 0:
		return Value{Kind: Real, Float: *(*float64)(unsafe.Pointer(&m.Fu))}
	case f&(sqlite3.MEM_IntReal|sqlite3.MEM_Zero) != 0:
		return s.columnSlow(int32(i))
	case f&sqlite3.MEM_Str != 0 && m.Fenc == sqlite3.SQLITE_UTF8:
		return Value{Kind: Text, Bytes: view(m.Fz, int(m.Fn))}
	case f&sqlite3.MEM_Str != 0:
		return s.columnSlow(int32(i))
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

// Counts is what a statement cost, in rows: see DESIGN.md, "The row meter".
type Counts struct {
	RowsRead    int64
	RowsWritten int64
}

// Counts is what the statement cost since Prepare gave it out, or since the last Counts: all its runs, failed ones and
// the one that goes on too. changed is the difference of TotalChanges that they made, which only the estimate asks for.
func (s *Stmt) Counts(changed int64) Counts {
	if s.ptr == 0 {
		return Counts{}
	}
	n := s.cost(changed)
	s.forgetCost()
	return n
}

// Cost is what Counts would return now, for a callback that runs in the middle of a Step. It forgets nothing.
func (s *Stmt) Cost() Counts {
	if s.ptr == 0 {
		return Counts{}
	}
	return s.cost((*sqlite3.TVdbe)(at(s.ptr)).FnChange)
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
		s.running, s.ended = false, false
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
	if c.damaged {
		s.busy = false
		return
	}
	s.Reset()
	if s.cached {
		s.leave()
	} else {
		c.loose.unlink(s)
		s.finalize()
	}
	if s.Alters {
		c.DropStatements()
	}
}

// Discard is Done for a statement that won't be wanted soon again: it isn't kept.
func (s *Stmt) Discard() {
	if s.cached {
		s.conn.cache.remove(s)
	}
	s.Done()
}

// leave ends the use: nothing points at what was bound any more.
func (s *Stmt) leave() {
	if s.busy {
		s.busy = false
		s.thread.drop()
		s.thread = nil
	}
}

// finalize frees the statement, which is in no list any more.
func (s *Stmt) finalize() {
	sqlite3.Xsqlite3_finalize(s.conn.thread.tls, s.ptr)
	s.conn, s.ptr = nil, 0
	s.leave()
}
