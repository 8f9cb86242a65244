package sqlite

import (
	"strings"
	"unsafe"

	sqlite3 "modernc.org/sqlite/lib"
)

// shadowSuffixes are the tables that the compiled-in virtual-table modules keep beside a table of theirs.
var shadowSuffixes = []string{"_data", "_idx", "_content", "_docsize", "_config", "_node", "_parent", "_rowid"}

// ShadowOf is the name of the virtual table that name would be a shadow table of, by its form; or "".
func ShadowOf(name string) string {
	for _, s := range shadowSuffixes {
		if n := len(name) - len(s); n > 0 && strings.EqualFold(name[n:], s) {
			return name[:n]
		}
	}
	return ""
}

// gather completes the accesses of a statement with those of the statements that its virtual tables will run on tables
// that are not their own: an fts5 table with content=t reads t, an fts5vocab table its fts5 table. SQLite compiles these
// only when the statement runs; here they are compiled before, for the policy to see, and thrown away.
func (c *Conn) gather(s *Stmt) error {
	if !s.virtual() {
		return nil
	}
	// The list grows while it is gone through: an fts5vocab table leads to an fts5 table and this to its content.
	for i := 0; i < len(c.collect.accesses); i++ {
		a := c.collect.accesses[i]
		if a.Name == "" || a.Schema == "temp" {
			continue
		}
		name := c.lender(a.Name)
		if name == "" || s.borrowed(name) {
			continue
		}
		s.borrows = append(s.borrows, name)
		ptr, _, err := c.prepare([]byte("SELECT * FROM main." + Quote(name)))
		if e, ok := err.(*Error); ok && e.Code.Primary() == CodeAuth {
			return err
		}
		// Any other error is the module's to tell, if it comes to read that table.
		sqlite3.Xsqlite3_finalize(c.thread.tls, ptr)
	}
	return nil
}

// virtual tells whether the statement uses a virtual table or runs a trigger, which may.
func (s *Stmt) virtual() bool {
	for _, op := range s.program() {
		switch op.Fopcode {
		case sqlite3.OP_VOpen, sqlite3.OP_VUpdate, sqlite3.OP_Program:
			return true
		}
	}
	return false
}

// noteVirtual remembers which virtual tables the transaction writes to. FTS5 keeps what is written to it in memory, and brings it into its shadow
// tables when the next statement needs a savepoint, whatever that statement is.
func (s *Stmt) noteVirtual() {
	c := s.conn
	if !c.InTransaction() {
		clear(c.filling)
	}
	for i := range s.Accesses {
		switch a := &s.Accesses[i]; a.Action {
		case Insert, Update, Delete:
			if s.Kind(a.Name) == VirtualTable {
				if c.filling == nil {
					c.filling = map[string]bool{}
				}
				c.filling[Fold(a.Name)] = true
			}
		}
	}
}

// borrowed tells whether name is a table that a virtual table of the statement reads.
func (s *Stmt) borrowed(name string) bool {
	for _, b := range s.borrows {
		if strings.EqualFold(b, name) {
			return true
		}
	}
	return false
}

// Lender is the table of the main schema that the virtual table of that name reads beside its own; "" if there is none.
func (s *Stmt) Lender(name string) string { return s.conn.lender(name) }

// lender is the table that the virtual table name reads beside its own; "" if there is none. It looks into SQLite's
// parsed schema, where the arguments of a virtual table stand as they were written.
func (c *Conn) lender(name string) string { return lenderOf(c.ModuleArgs(name)) }

// ModuleArgs are what the virtual table name was declared with: its module, schema, name, and what stands in parentheses; nil if there is no such
// table.
func (c *Conn) ModuleArgs(name string) []string {
	const isVirtual = 1 // TABTYP_VTAB
	db := (*sqlite3.Tsqlite3)(at(c.db))
	schema := (*sqlite3.TSchema)(at((*sqlite3.TDb)(at(db.FaDb)).FpSchema))
	for p := schema.FtblHash.Ffirst; p != 0; {
		elem := (*sqlite3.THashElem)(at(p))
		p = elem.Fnext
		tab := (*sqlite3.TTable)(at(elem.Fdata))
		if tab.FeTabType != isVirtual || !strings.EqualFold(cstr(tab.FzName), name) {
			continue
		}
		// A union of C's: its members other than the largest have no size in the generated Go.
		v := (*struct {
			n    int32
			args uintptr // n pointers
		})(unsafe.Pointer(&tab.Fu))
		args := make([]string, v.n)
		for i := range args {
			args[i] = cstr(*(*uintptr)(at(v.args + uintptr(i)*unsafe.Sizeof(v.args))))
		}
		return args
	}
	return nil
}

// ModuleOption is the value of a module's option, as fts5 takes them: any beginning of the name will do, but content and its own come first.
func ModuleOption(args []string, name string) (value string, found bool) {
	for _, arg := range args[min(3, len(args)):] {
		key, v, ok := strings.Cut(arg, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if ok && key != "" && strings.HasPrefix(name, key) && (name == "content" || !strings.HasPrefix("content", key)) {
			return unquoteName(v), true
		}
	}
	return "", false
}

// lenderOf reads the arguments of a virtual table: module, schema, name and those in parentheses.
func lenderOf(args []string) string {
	if len(args) < 4 {
		return ""
	}
	switch strings.ToLower(args[0]) {
	case "fts5vocab":
		return unquoteName(args[len(args)-2])
	case "fts5":
		value, _ := ModuleOption(args, "content")
		return value
	}
	return ""
}

// Quote makes an identifier of SQL's of any name.
func Quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// unquoteName takes the quotes of SQL's four kinds off a name.
func unquoteName(s string) string {
	s = strings.TrimSpace(s)
	if len(s) < 2 {
		return s
	}
	q := s[0]
	switch q {
	case '[':
		q = ']'
	case '\'', '"', '`':
	default:
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] == q {
			if i+1 >= len(s) || s[i+1] != q {
				break
			}
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
