package sqlite

import (
	"errors"
	"slices"
	"strings"
	"unique"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Action is what a statement would do, by SQLite's authorizer code
// (https://sqlite.org/c3ref/c_alter_table.html).
type Action uint8

// The actions that SQLite reports.
const (
	CreateIndex       Action = sqlite3.SQLITE_CREATE_INDEX
	CreateTable       Action = sqlite3.SQLITE_CREATE_TABLE
	CreateTempIndex   Action = sqlite3.SQLITE_CREATE_TEMP_INDEX
	CreateTempTable   Action = sqlite3.SQLITE_CREATE_TEMP_TABLE
	CreateTempTrigger Action = sqlite3.SQLITE_CREATE_TEMP_TRIGGER
	CreateTempView    Action = sqlite3.SQLITE_CREATE_TEMP_VIEW
	CreateTrigger     Action = sqlite3.SQLITE_CREATE_TRIGGER
	CreateView        Action = sqlite3.SQLITE_CREATE_VIEW
	Delete            Action = sqlite3.SQLITE_DELETE
	DropIndex         Action = sqlite3.SQLITE_DROP_INDEX
	DropTable         Action = sqlite3.SQLITE_DROP_TABLE
	DropTempIndex     Action = sqlite3.SQLITE_DROP_TEMP_INDEX
	DropTempTable     Action = sqlite3.SQLITE_DROP_TEMP_TABLE
	DropTempTrigger   Action = sqlite3.SQLITE_DROP_TEMP_TRIGGER
	DropTempView      Action = sqlite3.SQLITE_DROP_TEMP_VIEW
	DropTrigger       Action = sqlite3.SQLITE_DROP_TRIGGER
	DropView          Action = sqlite3.SQLITE_DROP_VIEW
	Insert            Action = sqlite3.SQLITE_INSERT
	Pragma            Action = sqlite3.SQLITE_PRAGMA
	Read              Action = sqlite3.SQLITE_READ
	Select            Action = sqlite3.SQLITE_SELECT
	Transaction       Action = sqlite3.SQLITE_TRANSACTION
	Update            Action = sqlite3.SQLITE_UPDATE
	Attach            Action = sqlite3.SQLITE_ATTACH
	Detach            Action = sqlite3.SQLITE_DETACH
	AlterTable        Action = sqlite3.SQLITE_ALTER_TABLE
	Reindex           Action = sqlite3.SQLITE_REINDEX
	Analyze           Action = sqlite3.SQLITE_ANALYZE
	CreateVTable      Action = sqlite3.SQLITE_CREATE_VTABLE
	DropVTable        Action = sqlite3.SQLITE_DROP_VTABLE
	Function          Action = sqlite3.SQLITE_FUNCTION
	Savepoint         Action = sqlite3.SQLITE_SAVEPOINT
	Recursive         Action = sqlite3.SQLITE_RECURSIVE
)

// Access is one thing that a statement would touch, as SQLite's own parser found it.
type Access struct {
	Action Action
	// Name is the table of READ, INSERT, UPDATE, DELETE; the object of CREATE and DROP; the schema of ALTER
	// TABLE; the pragma; BEGIN, COMMIT, ROLLBACK or RELEASE of a transaction or savepoint; the file of ATTACH.
	Name string
	// Detail is the column of READ (empty for count(*)) and UPDATE; the table of an index or trigger; the table of
	// ALTER TABLE; the argument of a pragma; the function; the module of a virtual table; the savepoint.
	Detail string
	Schema string // "main" or "temp"; empty where SQLite gives none
	By     string // the innermost trigger, view or table expression that asks; empty for the statement itself
}

// Policy says whether a statement may be compiled at all: an error denies the access and is the Cause of the
// Error that Prepare returns. It is asked during prepare, since SQLite carries some pragmas out there.
//
// [ErrIgnore] leaves the statement out instead of denying it.
type Policy func(Access) error

// ErrIgnore is a policy's answer to a Pragma or a Transaction access: the statement compiles to one that does nothing, so
// that its length is known. To any other access it is a denial.
var ErrIgnore = errors.New("left out")

type mode uint8

const (
	modeOwn     mode = iota // the server's own statement: nothing is asked
	modePrepare             // a client's statement is compiled: collect and ask the policy
	modeStep                // it runs: what SQLite compiles inside it must be part of what was judged
)

// collector gathers the accesses of the statement being compiled.
type collector struct {
	policy   Policy
	accesses []Access
	seen     map[Access]struct{} // of the accesses, once they are many
	ignored  bool                // something was left out
}

// collectFew is how many accesses are searched faster than hashed. A statement can have tens of thousands.
const collectFew = 24

// begin takes the thread's buffer: one of each connection's own would be half a kilobyte more for each that is open.
func (k *collector) begin(p Policy, t *Thread) {
	k.policy, k.accesses, k.seen, k.ignored = p, t.accesses[:0], nil, false
	t.accesses = nil
}

// ignore takes the last access back: the statement won't make it, and if it tries again, the policy is asked again.
func (k *collector) ignore() {
	last := len(k.accesses) - 1
	delete(k.seen, k.accesses[last])
	k.accesses, k.ignored = k.accesses[:last], true
}

// end returns the accesses, and the thread keeps a small buffer for the next statement.
func (k *collector) end(t *Thread) []Access {
	all := append([]Access(nil), k.accesses...)
	if cap(k.accesses) <= 64 {
		clear(k.accesses)
		t.accesses = k.accesses
	}
	k.policy, k.accesses, k.seen = nil, nil, nil
	return all
}

// hasPragma tells whether a pragma was let through.
func (k *collector) hasPragma() bool {
	return slices.ContainsFunc(k.accesses, func(a Access) bool { return a.Action == Pragma })
}

// add tells whether the access is new.
func (k *collector) add(a Access) bool {
	if len(k.accesses) < collectFew {
		for i := range k.accesses {
			if k.accesses[i] == a {
				return false
			}
		}
	} else {
		if k.seen == nil {
			k.seen = make(map[Access]struct{}, 2*collectFew)
			for _, b := range k.accesses {
				k.seen[b] = struct{}{}
			}
		}
		if _, ok := k.seen[a]; ok {
			return false
		}
		k.seen[a] = struct{}{}
	}
	k.accesses = append(k.accesses, a)
	return true
}

// onAccess is the authorizer. It stays installed while statements run, because SQLite compiles again inside step
// when the schema changed, and VACUUM asks for its ATTACH only then.
func onAccess(_ *libc.TLS, h uintptr, action int32, name, detail, schema, by uintptr) int32 {
	c := lookup[*Conn](h)
	if c == nil {
		return sqlite3.SQLITE_DENY
	}
	if c.mode == modeOwn {
		return sqlite3.SQLITE_OK
	}
	a := Access{Action(action), intern(name), intern(detail), intern(schema), intern(by)}
	var err error
	switch c.mode {
	case modePrepare:
		if c.collect.add(a) && c.collect.policy != nil {
			err = c.collect.policy(a)
		}
	case modeStep:
		err = c.nested.permits(a)
	}
	if err == ErrIgnore && c.mode == modePrepare && (a.Action == Pragma || a.Action == Transaction) {
		c.collect.ignore()
		return sqlite3.SQLITE_IGNORE
	}
	if err != nil {
		if c.denied == nil {
			c.denied = err
		}
		return sqlite3.SQLITE_DENY
	}
	return sqlite3.SQLITE_OK
}

// intern keeps one copy of a name for all statements of all databases: schemas repeat themselves.
func intern(p uintptr) string {
	if p == 0 {
		return ""
	}
	n := strlen(p)
	if n == 0 {
		return ""
	}
	return unique.Make(string(view(p, n))).Value()
}

// errNotJudged says that the statement came to mean something else than what was judged, which the schema's
// change explains: the caller prepares it anew.
var errNotJudged = &Error{Code: CodeSchema, Message: "the statement changed its meaning with the schema", Offset: -1}

// writesTo tells whether the statement was judged to write to the table.
func (s *Stmt) writesTo(table string) bool {
	for i := range s.Accesses {
		switch s.Accesses[i].Action {
		case Insert, Update, Delete:
			if strings.EqualFold(s.Accesses[i].Name, table) {
				return true
			}
		}
	}
	return false
}

// readsVirtual tells whether the statement was judged to read this virtual table. FTS5 then runs statements of its own on it, for ORDER
// BY rank, that read other columns.
func (s *Stmt) readsVirtual(table string) bool {
	for i := range s.Accesses {
		if s.Accesses[i].Action == Read && strings.EqualFold(s.Accesses[i].Name, table) {
			return s.Kind(table) == VirtualTable
		}
	}
	return false
}

// permits decides on what SQLite compiles while s runs.
func (s *Stmt) permits(a Access) error {
	switch a.Action {
	case Attach:
		// VACUUM attaches a nameless file of its own; with a name it is VACUUM INTO, or an ATTACH.
		if s.Vacuum && a.Name == "" {
			return nil
		}
		if s.policy != nil {
			if err := s.policy(a); err != nil {
				return err // in the policy's own words
			}
		}
		return errNotJudged
	case Detach:
		if s.Vacuum {
			return nil
		}
		return errNotJudged
	}
	if s.Vacuum {
		return nil
	}
	for i := range s.Accesses {
		if s.Accesses[i] == a {
			return nil
		}
	}
	switch a.Action {
	case Select, Function, Recursive:
		return nil // they name nothing that is stored
	case Read:
		// R-Tree reads the names of its own columns to tell of a violated constraint.
		if s.checks || a.By == "" && (s.borrowed(a.Name) || s.writesVirtual && s.writesTo(a.Name) || s.readsVirtual(a.Name)) {
			return nil
		}
	}
	switch a.Action {
	case Analyze, Read, Insert, Delete, CreateTable:
		if s.optimizes {
			return nil // PRAGMA optimize runs ANALYZE
		}
	}
	switch a.Action {
	case Read, Insert, Update, Delete, CreateTable, DropTable, CreateIndex, DropIndex, AlterTable, Pragma, Transaction:
	default:
		return errNotJudged
	}
	// What is left are statements that virtual tables run on their shadow tables.
	name := a.Name
	switch a.Action {
	case AlterTable:
		name = a.Detail
	case CreateIndex, DropIndex:
		name = a.Detail
	case Pragma:
		// FTS5 looks whether another connection wrote; R-Tree sizes its nodes.
		if a.Detail == "" && (a.Name == "data_version" || a.Name == "page_size") {
			return nil
		}
		for i := range s.Accesses { // a pragma_…() function runs its pragma
			if n := s.Accesses[i].Name; len(n) > 7 && strings.EqualFold(n[:7], "pragma_") && strings.EqualFold(n[7:], a.Name) {
				if s.policy != nil {
					if err := s.policy(a); err != nil {
						return err
					}
				}
				s.shown = Fold(a.Detail)
				return nil
			}
		}
		return errNotJudged
	case Transaction:
		return errNotJudged
	}
	if a.Action == Read && len(name) > 11 && strings.EqualFold(name[:11], "sqlite_stat") {
		return nil // ANALYZE loads what it wrote; R-Tree asks how many rows it has
	}
	if s.Alters && (strings.EqualFold(name, "sqlite_master") || strings.EqualFold(name, "sqlite_schema")) {
		return nil
	}
	if base := ShadowOf(name); base != "" {
		if s.conn.filling[Fold(base)] || s.shown != "" && s.shown == Fold(base) {
			return nil
		}
		for i := range s.Accesses {
			if strings.EqualFold(s.Accesses[i].Name, base) || strings.EqualFold(s.Accesses[i].Detail, base) {
				return nil
			}
		}
		if s.checks {
			return nil // it connects the virtual tables that it looks at, and R-Tree compiles all of its statements then
		}
		if s.Alters {
			return nil // ALTER TABLE … RENAME of a virtual table: its shadows take the new name
		}
	}
	return errNotJudged
}
