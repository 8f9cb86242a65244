package sqlite

import (
	"slices"
	"strings"
	"unsafe"

	sqlite3 "modernc.org/sqlite/lib"
)

// opening is a table that a program opens, as the program itself says.
type opening struct {
	table   string
	trigger string // whose program it is; "" for the statement's own, and for the actions of foreign keys
}

// addOpened completes the accesses of a statement with the tables that its program opens and the authorizer didn't report: of a column that
// JOIN … USING or NATURAL JOIN names it says nothing. Each is a Read of no column. The policy is asked about them, too.
func (c *Conn) addOpened(s *Stmt) error {
	for i := range c.collect.accesses {
		switch c.collect.accesses[i].Action {
		case Pragma, Reindex, Analyze: // they have no SELECT, and open what they look through
			return nil
		}
	}
	opened := c.openings(s)
	if len(opened) == 0 {
		return nil
	}
	var fired []string
	for _, o := range opened {
		if o.trigger != "" && !slices.Contains(fired, o.trigger) {
			fired = append(fired, o.trigger)
		}
	}
	s.fires = fired
	for _, o := range opened {
		if c.reported(o, fired) || c.byAutoincrement(s, o) {
			continue
		}
		a := Access{Action: Read, Name: o.table, Schema: "main", By: o.trigger}
		if c.collect.add(a) && c.collect.policy != nil {
			if err := c.collect.policy(a); err != nil {
				return &Error{Code: CodeAuth, Message: "not authorized", Offset: -1, Cause: err}
			}
		}
	}
	return nil
}

// reported tells whether the authorizer was asked about the table, on behalf of that program.
func (c *Conn) reported(o opening, fired []string) bool {
	for i := range c.collect.accesses {
		a := &c.collect.accesses[i]
		switch a.Action {
		case Read, Insert, Update, Delete:
			if strings.EqualFold(a.Name, o.table) && (o.trigger == "" && !slices.Contains(fired, a.By) || o.trigger != "" && a.By == o.trigger) {
				return true
			}
		}
	}
	return false
}

// byAutoincrement tells whether sqlite_sequence is opened for the sake of a key: then the statement doesn't name it.
func (c *Conn) byAutoincrement(s *Stmt, o opening) bool {
	if o.table != "sqlite_sequence" || strings.Contains(strings.ToLower(s.sql), "sqlite_sequence") {
		return false
	}
	for i := range c.collect.accesses {
		if a := &c.collect.accesses[i]; a.Action == Insert || a.Action == DropTable {
			return true
		}
	}
	return false
}

// Fires tells whether the statement has a program of the trigger of that name.
func (s *Stmt) Fires(trigger string) bool { return slices.Contains(s.fires, trigger) }

// openings are the tables of the main schema that a statement's programs open, its indexes as their tables.
func (c *Conn) openings(s *Stmt) []opening {
	var found []opening
	roots := map[uint32][]string{} // by the triggers that open them
	note := func(ops []sqlite3.TVdbeOp, trigger string) {
		for i := range ops {
			op := &ops[i]
			switch op.Fopcode {
			case sqlite3.OP_OpenRead, sqlite3.OP_OpenWrite, sqlite3.OP_ReopenIdx:
				if op.Fp3 != 0 || op.Fp5&sqlite3.OPFLAG_P2ISREG != 0 || op.Fp2 <= 0 {
					continue
				}
				if root := uint32(op.Fp2); !slices.Contains(roots[root], trigger) {
					roots[root] = append(roots[root], trigger)
				}
			case sqlite3.OP_VOpen:
				o := opening{c.virtualName(*(*uintptr)(unsafe.Pointer(&op.Fp4))), trigger}
				if o.table != "" && !slices.Contains(found, o) {
					found = append(found, o)
				}
			}
		}
	}
	note(s.program(), "")
	for p := (*sqlite3.TVdbe)(at(s.ptr)).FpProgram; p != 0; {
		program := (*sqlite3.TSubProgram)(at(p))
		trigger := ""
		if program.Ftoken != 0 {
			trigger = intern((*sqlite3.TTrigger)(at(program.Ftoken)).FzName)
		}
		note(unsafe.Slice((*sqlite3.TVdbeOp)(at(program.FaOp)), program.FnOp), trigger)
		p = program.FpNext
	}
	if len(roots) == 0 {
		return found
	}
	add := func(root uint32, name uintptr) {
		for _, trigger := range roots[root] {
			if o := (opening{intern(name), trigger}); !slices.Contains(found, o) {
				found = append(found, o)
			}
		}
	}
	c.eachTable(func(t *sqlite3.TTable) { add(uint32(t.Ftnum), t.FzName) })
	c.eachIndex(func(i *sqlite3.TIndex) {
		if i.FpTable != 0 {
			add(uint32(i.Ftnum), (*sqlite3.TTable)(at(i.FpTable)).FzName)
		}
	})
	return found
}

// schema is SQLite's parsed main schema.
func (c *Conn) schema() *sqlite3.TSchema {
	db := (*sqlite3.Tsqlite3)(at(c.db))
	return (*sqlite3.TSchema)(at((*sqlite3.TDb)(at(db.FaDb)).FpSchema))
}

func (c *Conn) eachTable(f func(*sqlite3.TTable)) {
	for p := c.schema().FtblHash.Ffirst; p != 0; {
		elem := (*sqlite3.THashElem)(at(p))
		p = elem.Fnext
		f((*sqlite3.TTable)(at(elem.Fdata)))
	}
}

func (c *Conn) eachIndex(f func(*sqlite3.TIndex)) {
	for p := c.schema().FidxHash.Ffirst; p != 0; {
		elem := (*sqlite3.THashElem)(at(p))
		p = elem.Fnext
		f((*sqlite3.TIndex)(at(elem.Fdata)))
	}
}

// virtualName is the name of the table that SQLite keeps this VTable for: one of the schema, or a module's that needs no CREATE.
func (c *Conn) virtualName(vtable uintptr) string {
	if vtable == 0 {
		return ""
	}
	name := ""
	c.eachTable(func(t *sqlite3.TTable) {
		const isVirtual = 1 // TABTYP_VTAB
		if t.FeTabType != isVirtual {
			return
		}
		v := (*struct {
			n    int32
			args uintptr
			list uintptr
		})(unsafe.Pointer(&t.Fu))
		for p := v.list; p != 0; p = (*sqlite3.TVTable)(at(p)).FpNext {
			if p == vtable {
				name = intern(t.FzName)
			}
		}
	})
	if name == "" {
		name = intern((*sqlite3.TModule)(at((*sqlite3.TVTable)(at(vtable)).FpMod)).FzName)
	}
	return name
}
