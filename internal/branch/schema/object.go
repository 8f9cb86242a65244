package schema

import (
	"fmt"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// Object is a row of sqlite_schema.
type Object struct {
	Type  string // table, index, view or trigger
	Name  string
	Table string // what an index or trigger is on; else the name once more
	SQL   string
}

// Query runs a query and hands row its rows: in the store, a statement of the server's own.
type Query func(sql string, row func(*sqlite.Stmt) error) error

// What one schema may be, far beyond what anybody has.
const (
	maxObjects = 10_000
	maxBytes   = 64 << 20
)

// LimitError tells that a schema is larger than what is merged.
type LimitError struct{ Message string }

func (e *LimitError) Error() string { return e.Message }

// Read returns the objects that users made, in the order in which they were made: without SQLite's own and the server's, and without the tables
// that virtual tables keep their content in.
func Read(query Query) ([]Object, error) {
	var all []Object
	size := 0
	err := query("SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid", func(s *sqlite.Stmt) error {
		o := Object{Type: string(s.Column(0).Bytes), Name: string(s.Column(1).Bytes), Table: string(s.Column(2).Bytes), SQL: string(s.Column(3).Bytes)}
		if reserved(o.Name) || reserved(o.Table) {
			return nil
		}
		all = append(all, o)
		size += len(o.SQL)
		return bounded(len(all), size)
	})
	if err != nil {
		return nil, err
	}
	modules := map[string]string{}
	for i := range all {
		if m := moduleOf(&all[i]); m != "" {
			modules[fold(all[i].Name)] = m
		}
	}
	users := all[:0]
	for _, o := range all {
		if !isShadow(o.Table, modules) {
			users = append(users, o)
		}
	}
	return users, nil
}

func bounded(objects, size int) error {
	switch {
	case objects > maxObjects:
		return &LimitError{fmt.Sprintf("the schema has more than %d objects", maxObjects)}
	case size > maxBytes:
		return &LimitError{fmt.Sprintf("the schema has more than %d bytes of SQL", maxBytes)}
	}
	return nil
}

func checkBounds(schema []Object) error {
	size := 0
	for i := range schema {
		size += len(schema[i].SQL)
	}
	return bounded(len(schema), size)
}

// reserved tells whether a name is SQLite's or the server's.
func reserved(name string) bool {
	n := fold(name)
	return strings.HasPrefix(n, "sqlite_") || strings.HasPrefix(n, "_persql_")
}

// shadows are the suffixes of the tables that the modules of this SQLite keep beside a table of theirs.
var shadows = map[string][]string{
	"fts5":    {"_data", "_idx", "_content", "_docsize", "_config"},
	"rtree":   {"_node", "_parent", "_rowid"},
	"geopoly": {"_node", "_parent", "_rowid"},
}

// isShadow asks as SQLite does, by the name: modules are those of the virtual tables, by folded names.
func isShadow(table string, modules map[string]string) bool {
	base := fold(sqlite.ShadowOf(table))
	if base == "" {
		return false
	}
	for _, suffix := range shadows[shadowModule(modules[base])] {
		if strings.HasSuffix(fold(table), suffix) {
			return true
		}
	}
	return false
}

func shadowModule(module string) string {
	if module == "rtree_i32" {
		return "rtree"
	}
	return module
}

// key is what SQLite tells objects apart by: triggers have names of their own, all others share theirs.
func (o *Object) key() string {
	if o.Type == "trigger" {
		return "t:" + fold(o.Name)
	}
	return "o:" + fold(o.Name)
}

// set is a schema by key.
type set map[string]*Object

func index(objects []Object) set {
	m := make(set, len(objects))
	for i := range objects {
		m[objects[i].key()] = &objects[i]
	}
	return m
}

// canon is a definition in the form in which definitions of the same meaning are the same.
func canon(o *Object) string {
	s, ok := lex(o.SQL)
	if !ok {
		return o.SQL
	}
	i := s.nameAt()
	if i < 0 {
		return o.SQL
	}
	head := o.Type + " " + sqlite.Quote(s.name(i)) + " "
	switch {
	case o.Type == "table" && s.is(1, "VIRTUAL"):
		// What stands in the parentheses is the module's to read: only the space around tokens is SQL's.
		var b strings.Builder
		b.WriteString(head + "VIRTUAL")
		for i++; i < len(s.tokens); i++ {
			if raw := s.raw(i); s.tokens[i].depth == 0 {
				b.WriteString(" " + fold(raw)) // USING and the module
			} else {
				b.WriteString(" " + raw)
			}
		}
		return b.String()
	case o.Type == "table":
		if t, ok := parseTable(o.SQL); ok {
			return head + t.canon()
		}
	case o.Type == "index" && s.is(i+1, "ON"):
		if s.is(1, "UNIQUE") {
			head += "UNIQUE "
		}
		return head + sqlite.Quote(s.name(i+2)) + " " + s.join(i+3, len(s.tokens))
	}
	return head + s.join(i+1, len(s.tokens))
}

// nameAt is the token that names the object, past CREATE, its type, IF NOT EXISTS and a schema; -1 if there is none.
func (s *statement) nameAt() int {
	if !s.is(0, "CREATE") {
		return -1
	}
	i := 1
	for s.is(i, "TEMP", "TEMPORARY", "UNIQUE", "VIRTUAL") {
		i++
	}
	if !s.is(i, "TABLE", "INDEX", "VIEW", "TRIGGER") {
		return -1
	}
	i++
	if s.is(i, "IF") && s.is(i+1, "NOT") && s.is(i+2, "EXISTS") {
		i += 3
	}
	if s.raw(i+1) == "." {
		i += 2
	}
	if i >= len(s.tokens) {
		return -1
	}
	return i
}

// same tells whether two objects mean the same; both may be nil. What it can't tell from the text alone is in [workshop.same].
func same(a, b *Object) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Type == b.Type && (a.SQL == b.SQL || canon(a) == canon(b))
}

// moduleOf is the module of a virtual table, in lower case; "" for what is none.
func moduleOf(o *Object) string {
	if o == nil || o.Type != "table" {
		return ""
	}
	if len(o.SQL) > 64 && !strings.Contains(upper(o.SQL[:64]), "VIRTUAL") {
		return ""
	}
	s, ok := lex(o.SQL)
	i := s.nameAt()
	if !ok || i < 0 || !s.is(1, "VIRTUAL") || !s.is(i+1, "USING") {
		return ""
	}
	return fold(s.name(i + 2))
}

// contentOf says where an FTS5 table has its text: its own table, another one (its name), or none.
func contentOf(o *Object) (table string, own bool) {
	s, ok := lex(o.SQL)
	if !ok {
		return "", true
	}
	for i := 0; i+2 < len(s.tokens); i++ {
		// FTS5 takes any beginning of an option's name.
		if s.raw(i+1) == "=" && s.tokens[i].depth == 1 && (s.raw(i-1) == "(" || s.raw(i-1) == ",") && s.raw(i) != "" && strings.HasPrefix("content", fold(s.raw(i))) {
			return s.name(i + 2), false
		}
	}
	return "", true
}
