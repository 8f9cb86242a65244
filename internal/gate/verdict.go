package gate

import (
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// verdict is what Judge needs to know of a statement, worked out once and kept with it.
type verdict struct {
	need    Level
	verb    string  // what a role too low is told that it cannot run
	touches []touch // the tables and views that must be in the caller's scope, in the order that SQLite named them
	bare    *bare   // what is still touched without foreign keys; nil until it is asked for
	whole   string  // what of it needs a token without a scope; "" for nothing

	defers   bool   // it switches deferred foreign keys
	path     bool   // its third column is a path of the server
	temp     bool   // it reads the schema of temporary objects, which only SQLite's own ALTER TABLE may
	log      bool   // it reads the query log, which holds what others ran
	schema   bool   // it changes the schema
	rows     string // what of it tells of the file's content beside what its tables show; "" for nothing
	looked   bool   // destroys is known
	destroys string // see Destructive
	bound    *bound // for callers that policies bind; nil until one comes

	writing *writing // for databases with approval rules; nil until one asks
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
	switch verb := writes(s); {
	case own == analyzes && v.verb != "":
	case verb != "" && own&definesSchema == 0:
		v.verb = verb
	}
	if s.Vacuum {
		v.raise(LevelAdmin, "VACUUM")
		v.whole = "VACUUM"
	}
	if s.Writes && v.need < LevelWrite { // what nobody has thought of
		v.raise(LevelAdmin, "this statement")
		if len(s.Accesses) > 0 { // else it is an IF EXISTS or IF NOT EXISTS without effect
			v.whole = "this statement"
		}
	}
	v.temp = v.temp && own&alters == 0
	v.schema = own&definesSchema != 0
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
	name   string   // as SQLite wrote it
	table  string   // folded
	writes bool     // it is written to, or made, altered or dropped
	by     []string // the views, table expressions and triggers that touch it
}

func (v *verdict) touch(name string, writes bool) *touch {
	table := sqlite.Fold(name)
	for i := range v.touches {
		if t := &v.touches[i]; t.table == table {
			t.writes = t.writes || writes
			return t
		}
	}
	v.touches = append(v.touches, touch{name: name, table: table, writes: writes})
	return &v.touches[len(v.touches)-1]
}

// bare is what a statement touches where nothing enforces foreign keys, and what in it does.
type bare struct{ tables, by map[string]bool }

func withoutForeignKeys(s *sqlite.Stmt) *bare {
	accesses, err := s.AccessesWithoutForeignKeys()
	if err != nil {
		return &bare{} // the caller finds nothing of it
	}
	b := &bare{map[string]bool{}, map[string]bool{"": true}}
	without := &verdict{}
	for i := range accesses {
		without.add(s, &accesses[i], 0)
		b.by[accesses[i].By] = true
	}
	for _, t := range without.touches {
		b.tables[t.table] = true
	}
	return b
}

// checked tells whether a table is only looked at to enforce a foreign key: whoever may write to the one side may have it
// checked against the other, as with the privileges of other databases. A table that is written to is an action of a key; and
// what a trigger reads that only such an action fires is the trigger's.
func (v *verdict) checked(s *sqlite.Stmt, t *touch) bool {
	if v.need != LevelWrite || t.writes && !off("action of a key") {
		return false
	}
	if v.bare == nil {
		v.bare = withoutForeignKeys(s)
	}
	for _, by := range t.by {
		if !v.bare.by[by] && !off("trigger of a key") {
			return false
		}
	}
	return v.bare.tables != nil && !v.bare.tables[t.table]
}

// add adds what an access needs.
func (v *verdict) add(s *sqlite.Stmt, a *sqlite.Access, own kindOfWork) {
	v.temp = v.temp || hasPrefix(a.Name, "sqlite_temp_")
	if a.By != "" && s.Kind(a.By) == sqlite.View {
		v.touch(a.By, false) // of one whose rows are only counted nothing else is reported
	}
	switch a.Action {
	case sqlite.Select, sqlite.Recursive:
	case sqlite.Function:
		switch sqlite.Fold(a.Detail) {
		case "sqlite_offset", "total_changes": // the latter counts rows that triggers and cascades change
			v.rows = "The function " + sqlite.Fold(a.Detail)
		}
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
			v.touchObject(s, a, true)
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
		if own == 0 || selects(s) {
			v.whole, v.rows = a.Name, a.Name
		}
	case strings.EqualFold(a.Name, QueryLogTable):
		v.log = true
	case hasPrefix(a.Name, "pragma_") && s.Kind(a.Name) == sqlite.NoTable: // not a table of that name, from before it was reserved
		use := pragmas[sqlite.Fold(a.Name[len("pragma_"):])]
		if use.rows {
			v.rows = a.Name
		}
		switch use.scope {
		case ofIndex, ofAll:
			v.whole = a.Name
		}
	default:
		v.touchObject(s, a, false)
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
func (v *verdict) touchObject(s *sqlite.Stmt, a *sqlite.Access, writes bool) {
	name := a.Name
	switch s.Kind(name) {
	case sqlite.NoTable:
		return
	case sqlite.ShadowTable:
		name = sqlite.ShadowOf(name)
	}
	if t := v.touch(name, writes); a.By != "" && !slices.Contains(t.by, a.By) {
		t.by = append(t.by, a.By)
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
	if use.rows {
		v.rows = verb
	}
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
