package rows

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// kind is how a table keeps its rows.
type kind uint8

const (
	ordinary kind = iota
	fullText      // FTS5 with content of its own
	spatial       // R-Tree
)

// table is one side's table, as far as rows need it.
type table struct {
	name    string
	kind    kind
	columns []string // that a row can be given: no generated ones
	types   []string // as declared
	defs    []string // SQL of their defaults; "" is NULL
	rowid   string   // a name for it; "" where there is none
	key     []int    // columns of the declared primary key; nil: rows are known by their rowid
	colls   []string // collations of these
	alias   int      // the column that is the rowid; -1
	counts  bool     // AUTOINCREMENT
	indexes []string // FTS5 tables that index this one's rows by their rowid: content=
}

// row is one row of a table.
type row struct {
	rowid  int64
	values []sqlite.Value // of table.columns
}

// side is one of the two databases.
type side struct {
	db     DB
	shapes map[string]sqlite.Shape
	tables map[string]*table
	stmts  map[string]*sqlite.Stmt
	runs   int
}

func newSide(db DB) (*side, error) {
	shapes, err := db.Shapes()
	return &side{db: db, shapes: shapes, tables: map[string]*table{}, stmts: map[string]*sqlite.Stmt{}}, err
}

// statementRuns is after how many runs the statements are compiled anew: what was bound to them takes memory for as long as one of them is in use.
const statementRuns = 2000

// lookRuns is after how many runs it is asked whether to go on: half a millisecond.
const lookRuns = 100

// run runs a statement, which is kept compiled.
func (s *side) run(sql string, params []sqlite.Value, each func(*sqlite.Stmt) error) (store.Result, error) {
	if s.runs++; s.runs%statementRuns == 0 {
		s.close()
	}
	if s.runs%lookRuns == 0 {
		if err := s.db.Look(); err != nil {
			return store.Result{}, err
		}
	}
	st := s.stmts[sql]
	if st == nil {
		var err error
		if st, err = s.db.Bare(sql); err != nil {
			return store.Result{}, err
		}
		s.stmts[sql] = st
	}
	bound := make([]sqlite.Param, len(params))
	for i := range params {
		bound[i].Value = params[i]
	}
	return s.db.Run(st, bound, each)
}

// close ends the statements. It must be called before the schema changes, too.
func (s *side) close() {
	for _, st := range s.stmts {
		st.Done()
	}
	clear(s.stmts)
}

func textValue(s string) sqlite.Value {
	return sqlite.Value{Kind: sqlite.Text, Bytes: []byte(s)}
}
func intValue(n int64) sqlite.Value { return sqlite.Value{Kind: sqlite.Integer, Int: n} }

func text(st *sqlite.Stmt, i int) string { return string(st.Column(i).Bytes) }

// table looks at a table; nil if there is none of that name. It returns a *Problem for one whose rows can't be merged.
func (s *side) table(name string) (*table, error) {
	folded := sqlite.Fold(name)
	if t, ok := s.tables[folded]; ok {
		return t, nil
	}
	shape, ok := s.shapes[folded]
	if !ok {
		return nil, nil
	}
	t := &table{name: shape.Name, alias: -1, counts: shape.Counting}
	if shape.Virtual {
		var why string
		if t.kind, why = virtualKind(s.db.ModuleArgs(shape.Name)); why != "" {
			return nil, &Problem{Table: shape.Name, Message: why}
		}
	}
	var ranks []int
	_, err := s.run("SELECT name, type, dflt_value, pk, hidden FROM pragma_table_xinfo(?) ORDER BY cid", []sqlite.Value{textValue(shape.Name)}, func(st *sqlite.Stmt) error {
		if st.Column(4).Int != 0 {
			return nil
		}
		t.columns = append(t.columns, text(st, 0))
		t.types = append(t.types, text(st, 1))
		t.defs = append(t.defs, text(st, 2))
		ranks = append(ranks, int(st.Column(3).Int))
		return nil
	})
	if err != nil {
		return nil, err
	}
	switch {
	case t.kind == spatial:
		t.alias, t.key, t.colls = 0, []int{0}, []string{"BINARY"}
	case shape.Key:
		t.alias = slices.Index(ranks, 1)
		t.key, t.colls = []int{t.alias}, []string{"BINARY"}
	case !shape.Virtual:
		_, err = s.run("SELECT x.name, x.coll FROM pragma_index_list(?1) l, pragma_index_xinfo(l.name) x WHERE l.origin='pk' AND x.key ORDER BY x.seqno", []sqlite.Value{textValue(shape.Name)}, func(st *sqlite.Stmt) error {
			if i := slices.Index(t.columns, text(st, 0)); i >= 0 { // a key can't have a generated column
				t.key = append(t.key, i)
				t.colls = append(t.colls, strings.ToUpper(text(st, 1)))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if shape.Rowid || shape.Virtual {
		if t.rowid = store.RowidName(t.columns); t.rowid == "" {
			if t.alias < 0 {
				return nil, &Problem{Table: t.name, Message: "its columns take every name of the rowid, by which its changes are recorded"}
			}
			t.rowid = sqlite.Quote(t.columns[t.alias])
		}
	}
	if err := s.findIndexes(t); err != nil {
		return nil, err
	}
	s.tables[folded] = t
	return t, nil
}

// virtualKind tells what a virtual table is; why says that its rows can't be merged.
func virtualKind(args []string) (k kind, why string) {
	module := ""
	if len(args) > 0 {
		module = strings.ToLower(args[0])
	}
	switch module {
	case "rtree", "rtree_i32":
		return spatial, ""
	case "fts5":
		content, given := sqlite.ModuleOption(args, "content")
		switch {
		case !given:
			return fullText, ""
		case content == "":
			return 0, "an FTS5 table without content can't be read"
		}
		return 0, "an FTS5 table with the content of another follows that one"
	}
	return 0, fmt.Sprintf("rows of module %q can't be merged", module)
}

// findIndexes finds the FTS5 tables that index a table's rows.
func (s *side) findIndexes(t *table) error {
	if t.kind != ordinary || t.rowid == "" {
		return nil
	}
	for _, shape := range s.shapes {
		if !shape.Virtual {
			continue
		}
		args := s.db.ModuleArgs(shape.Name)
		content, _ := sqlite.ModuleOption(args, "content")
		if len(args) == 0 || !strings.EqualFold(args[0], "fts5") || !strings.EqualFold(content, t.name) {
			continue
		}
		if id, ok := sqlite.ModuleOption(args, "content_rowid"); ok && !strings.EqualFold(id, "rowid") && (t.alias < 0 || !strings.EqualFold(id, t.columns[t.alias])) {
			return &Problem{Table: t.name, Message: "the FTS5 table " + shape.Name + " knows its rows by something else than the rowid"}
		}
		if _, ok := s.shapes[sqlite.Fold(shape.Name+"_docsize")]; !ok {
			return &Problem{Table: t.name, Message: "the FTS5 table " + shape.Name + " doesn't say which rows it has (columnsize=0)"}
		}
		t.indexes = append(t.indexes, shape.Name)
	}
	slices.Sort(t.indexes)
	return nil
}

// list is the columns for SELECT, the rowid first.
func (t *table) list() string {
	names := make([]string, 0, len(t.columns)+1)
	if t.rowid == "" {
		names = append(names, "0")
	} else {
		names = append(names, t.rowid)
	}
	for _, c := range t.columns {
		names = append(names, sqlite.Quote(c))
	}
	return strings.Join(names, ", ")
}

// keyNames are the columns by which rows are known.
func (t *table) keyNames() []string {
	if t.key == nil {
		return []string{"rowid"}
	}
	names := make([]string, len(t.key))
	for i, k := range t.key {
		names[i] = t.columns[k]
	}
	return names
}

// keyOf is what the row is known by. A declared key with a NULL in it, which SQLite allows, is none: then the row is known by its rowid, and plain is false.
func (t *table) keyOf(r *row) (key []sqlite.Value, plain bool) {
	if t.key == nil {
		return []sqlite.Value{intValue(r.rowid)}, true
	}
	for _, k := range t.key {
		v := r.values[k]
		if v.Kind == sqlite.Null {
			return []sqlite.Value{intValue(r.rowid)}, false
		}
		key = append(key, v)
	}
	return key, true
}

// where is the condition that finds a row by its key.
func (t *table) where(alias string, plain bool) string {
	if t.key == nil || !plain {
		return alias + t.rowid + "=?"
	}
	if t.alias >= 0 {
		return alias + sqlite.Quote(t.columns[t.alias]) + "=?"
	}
	parts := make([]string, len(t.key))
	for i, k := range t.key {
		parts[i] = alias + sqlite.Quote(t.columns[k]) + "=? COLLATE " + sqlite.Quote(t.colls[i])
	}
	return strings.Join(parts, " AND ")
}

// find is the row of a key, or nil. plain is keyOf's: without it only a row counts that is known by its rowid too.
func (s *side) find(t *table, key []sqlite.Value, plain bool) (*row, error) {
	r, err := s.one("SELECT "+t.list()+" FROM main."+sqlite.Quote(t.name)+" WHERE "+t.where("", plain), key)
	if r != nil && !plain {
		if _, is := t.keyOf(r); is {
			return nil, err
		}
	}
	return r, err
}

// at is the row of a rowid, or nil.
func (s *side) at(t *table, rowid int64) (*row, error) {
	return s.one("SELECT "+t.list()+" FROM main."+sqlite.Quote(t.name)+" WHERE "+t.rowid+"=?", []sqlite.Value{intValue(rowid)})
}

func (s *side) one(sql string, params []sqlite.Value) (r *row, err error) {
	_, err = s.run(sql, params, func(st *sqlite.Stmt) error {
		r = &row{rowid: st.Column(0).Int, values: make([]sqlite.Value, st.Columns()-1)}
		for i := range r.values {
			v := st.Column(i + 1)
			v.Bytes = slices.Clone(v.Bytes)
			r.values[i] = v
		}
		return nil
	})
	return r, err
}

// canonical encodes a key so that keys that SQLite takes for equal are the same bytes.
func (t *table) canonical(key []sqlite.Value, plain bool) string {
	var b []byte
	for i, v := range key {
		if v.Kind == sqlite.Text && plain && t.key != nil {
			switch t.colls[i] {
			case "NOCASE":
				v.Bytes = []byte(sqlite.Fold(string(v.Bytes)))
			case "RTRIM":
				v.Bytes = []byte(strings.TrimRight(string(v.Bytes), " "))
			}
		}
		if v.Kind == sqlite.Real && v.Float == math.Trunc(v.Float) && v.Float >= -(1<<63) && v.Float < 1<<63 {
			v = intValue(int64(v.Float))
		}
		b = store.AppendValues(b, v)
	}
	if !plain {
		b = append(b, 'r')
	}
	return string(b)
}

// collated tells whether keys that differ in their bytes may be equal.
func (t *table) collated() bool {
	return slices.ContainsFunc(t.colls, func(c string) bool { return c != "BINARY" })
}

// same compares two values, storage class and all.
func same(a, b sqlite.Value) bool {
	if a.Kind != b.Kind {
		return false
	}
	switch a.Kind {
	case sqlite.Integer:
		return a.Int == b.Int
	case sqlite.Real:
		return math.Float64bits(a.Float) == math.Float64bits(b.Float)
	case sqlite.Text, sqlite.Blob:
		return string(a.Bytes) == string(b.Bytes)
	}
	return true
}
