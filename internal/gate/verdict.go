package gate

import (
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// verdict is what Judge needs to know of a statement, worked out once and kept with it.
type verdict struct {
	need    Level
	verb    string          // what a role too low is told that it cannot run
	touches []touch         // the tables and views that must be in the caller's scope, in the order that SQLite named them
	bare    map[string]bool // of those that are only read, which are still touched without foreign keys; nil until it is asked for
	whole   string          // what of it needs a token without a scope; "" for nothing

	defers bool // it switches deferred foreign keys
	path   bool // its third column is a path of the server
	temp   bool // it reads the schema of temporary objects, which only SQLite's own ALTER TABLE may
	log    bool // it reads the query log, which holds what others ran
}

// classify works out a verdict.
func classify(s *sqlite.Stmt) *verdict {
	v := &verdict{need: LevelRead}
	var own kindOfWork
	for i := range s.Accesses {
		own |= workOf(&s.Accesses[i])
	}
	for i := range s.Accesses {
		v.add(s, &s.Accesses[i], own)
	}
	if verb := writes(s); verb != "" && own&definesSchema == 0 {
		v.verb = verb
	}
	if s.Vacuum {
		v.raise(LevelAdmin, "VACUUM")
		v.whole = "VACUUM"
	}
	if s.Writes && v.need < LevelWrite { // what nobody has thought of
		v.raise(LevelAdmin, "this statement")
		v.whole = "this statement"
	}
	v.temp = v.temp && own&alters == 0
	return v
}

// kindOfWork is what a statement does with the schema and the statistics, whose tables SQLite itself then reads and writes.
type kindOfWork uint8

const (
	definesSchema kindOfWork = 1 << iota // CREATE, ALTER, DROP
	alters
	analyzes // ANALYZE, PRAGMA optimize
)

func workOf(a *sqlite.Access) kindOfWork {
	switch a.Action {
	case sqlite.AlterTable:
		return definesSchema | alters
	case sqlite.CreateTable, sqlite.CreateView, sqlite.CreateTrigger, sqlite.CreateIndex, sqlite.CreateVTable,
		sqlite.DropTable, sqlite.DropView, sqlite.DropTrigger, sqlite.DropIndex, sqlite.DropVTable:
		if statistics(a.Name) {
			return 0 // ANALYZE makes them
		}
		return definesSchema
	case sqlite.Analyze:
		return analyzes
	case sqlite.Pragma:
		if strings.EqualFold(a.Name, "optimize") {
			return analyzes
		}
	}
	return 0
}

// verbs are the statements that define the schema, by their first word.
var verbs = map[sqlite.Action]string{
	sqlite.CreateTable: "CREATE", sqlite.CreateView: "CREATE", sqlite.CreateTrigger: "CREATE", sqlite.CreateIndex: "CREATE", sqlite.CreateVTable: "CREATE",
	sqlite.DropTable: "DROP", sqlite.DropView: "DROP", sqlite.DropTrigger: "DROP", sqlite.DropIndex: "DROP", sqlite.DropVTable: "DROP",
	sqlite.AlterTable: "ALTER", sqlite.Reindex: "REINDEX", sqlite.Analyze: "ANALYZE",
	sqlite.Insert: "INSERT", sqlite.Update: "UPDATE", sqlite.Delete: "DELETE",
}

// writes is INSERT, UPDATE or DELETE, as the statement itself is one, else as its triggers are.
func writes(s *sqlite.Stmt) string {
	verb := ""
	for i := range s.Accesses {
		switch a := &s.Accesses[i]; a.Action {
		case sqlite.Insert, sqlite.Update, sqlite.Delete:
			if a.By == "" {
				return verbs[a.Action]
			}
			if verb == "" {
				verb = verbs[a.Action]
			}
		case sqlite.Reindex, sqlite.Analyze:
			return verbs[a.Action]
		case sqlite.Pragma:
			return "PRAGMA " + strings.ToLower(a.Name)
		}
	}
	return verb
}

func (v *verdict) raise(need Level, verb string) {
	if v.need < need {
		v.need, v.verb = need, verb
	}
}

// touch is a table or view that a statement touches.
type touch struct {
	name   string // as SQLite wrote it
	table  string // folded
	writes bool   // it is written to, or made, altered or dropped
}

func (v *verdict) touch(table string, writes bool) {
	name := table
	table = sqlite.Fold(table)
	for i := range v.touches {
		if v.touches[i].table == table {
			v.touches[i].writes = v.touches[i].writes || writes
			return
		}
	}
	v.touches = append(v.touches, touch{name, table, writes})
}

// checked tells whether a table is only looked at to enforce a foreign key: whoever may write to the one side may have it
// checked against the other, as with the privileges of other databases.
func (v *verdict) checked(s *sqlite.Stmt, table string) bool {
	if v.bare == nil {
		v.bare = map[string]bool{}
		if !s.Writes || s.Alters {
			return false
		}
		bare, err := s.AccessesWithoutForeignKeys()
		if err != nil {
			return false
		}
		without := &verdict{}
		for i := range bare {
			without.add(s, &bare[i], 0)
		}
		for _, t := range v.touches {
			v.bare[t.table] = slices.ContainsFunc(without.touches, func(b touch) bool { return b.table == t.table })
		}
	}
	touched, known := v.bare[table]
	return known && !touched
}

// add adds what an access needs.
func (v *verdict) add(s *sqlite.Stmt, a *sqlite.Access, own kindOfWork) {
	v.temp = v.temp || hasPrefix(a.Name, "sqlite_temp_")
	switch a.Action {
	case sqlite.Select, sqlite.Recursive, sqlite.Function:
	case sqlite.Read:
		v.addRead(s, a, own)
	case sqlite.Insert, sqlite.Update, sqlite.Delete:
		switch {
		case schemaTable(a.Name): // SQLite's own work for CREATE, ALTER and DROP
		case statistics(a.Name):
			if own == 0 {
				v.raise(LevelAdmin, "")
				v.whole = a.Name
			}
		default:
			v.raise(LevelWrite, "")
			v.touchObject(s, a.Name, true)
		}
	case sqlite.CreateTable, sqlite.CreateView, sqlite.CreateVTable, sqlite.DropTable, sqlite.DropView, sqlite.DropVTable:
		if own&analyzes != 0 && statistics(a.Name) {
			return
		}
		v.raise(LevelAdmin, verbs[a.Action])
		if !IsSystem(a.Name) {
			v.touch(a.Name, true)
		}
	case sqlite.CreateIndex, sqlite.DropIndex, sqlite.DropTrigger:
		v.raise(LevelAdmin, verbs[a.Action])
		v.touch(a.Detail, true)
	case sqlite.CreateTrigger:
		// It would run with the rights of whoever writes to the table.
		v.raise(LevelAdmin, verbs[a.Action])
		v.whole = "CREATE TRIGGER"
	case sqlite.AlterTable:
		v.raise(LevelAdmin, verbs[a.Action])
		v.touch(a.Detail, true)
	case sqlite.Reindex:
		if own&definesSchema != 0 {
			return // CREATE INDEX fills it
		}
		v.raise(LevelAdmin, verbs[a.Action])
		if table := s.TableOfIndex(a.Name); table != "" {
			v.touch(table, true)
		} else {
			v.whole = "REINDEX"
		}
	case sqlite.Analyze:
		v.raise(LevelWrite, verbs[a.Action])
		v.whole = "ANALYZE"
	case sqlite.Pragma:
		v.addPragma(s, a)
	default:
		v.raise(LevelAdmin, "this statement")
		v.whole = "this statement"
	}
}

func (v *verdict) addRead(s *sqlite.Stmt, a *sqlite.Access, own kindOfWork) {
	switch {
	case schemaTable(a.Name):
		// CREATE, ALTER and DROP read it themselves. Of these CREATE TABLE alone can have a SELECT of the client's, and reads
		// one column; a client that reads that one is told by the name that it used.
		if own&definesSchema == 0 || selects(s) && (a.Detail != "ROWID" || a.Name != "sqlite_master") {
			v.whole = a.Name
		}
	case statistics(a.Name):
		if own == 0 {
			v.whole = a.Name
		}
	case strings.EqualFold(a.Name, QueryLogTable):
		v.log = true
	case hasPrefix(a.Name, "pragma_"):
		switch pragmas[sqlite.Fold(a.Name[len("pragma_"):])].scope {
		case ofIndex, ofAll:
			v.whole = a.Name
		}
	default:
		v.touchObject(s, a.Name, false)
	}
}

// selects tells whether rows of a SELECT come into a CREATE TABLE.
func selects(s *sqlite.Stmt) bool {
	creates, selects := false, false
	for i := range s.Accesses {
		creates = creates || s.Accesses[i].Action == sqlite.CreateTable
		selects = selects || s.Accesses[i].Action == sqlite.Select
	}
	return creates && selects
}

// touchObject touches what has the name in the schema: a name that isn't there is a table expression's, or a
// table-valued function's. A shadow table counts as the virtual table that keeps it.
func (v *verdict) touchObject(s *sqlite.Stmt, name string, writes bool) {
	switch s.Kind(name) {
	case sqlite.NoTable:
	case sqlite.ShadowTable:
		v.touch(sqlite.ShadowOf(name), writes)
	default:
		v.touch(name, writes)
	}
}

func (v *verdict) addPragma(s *sqlite.Stmt, a *sqlite.Access) {
	name := sqlite.Fold(a.Name)
	use := pragmas[name]
	verb := "PRAGMA " + name
	switch {
	case name == "defer_foreign_keys":
		v.defers = true
	case name == "database_list" && !s.Explain:
		v.path = true
	}
	need := use.need
	if use.sets != LevelNone && a.Detail != "" {
		need = use.sets
	}
	v.raise(need, verb)
	switch use.scope {
	case ofAll:
		v.whole = verb
	case ofTable:
		v.touch(a.Detail, false) // without one it is about all
	case ofIndex:
		if table := s.TableOfIndex(a.Detail); table != "" {
			v.touch(table, false)
		} else if s.Kind(a.Detail) != sqlite.NoTable { // the primary key of a table WITHOUT ROWID
			v.touch(a.Detail, false)
		}
	}
}
