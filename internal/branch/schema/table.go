package schema

import (
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// table is the text of a CREATE TABLE in parts. SQLite's grammar has the columns first, each behind a comma, and no column's name may be one of
// the words that a table's constraint begins with.
type table struct {
	name        string
	before      string // up to the name
	after       string // from the name's end on
	columns     []column
	constraints string // in normal form
	options     []string
}

type column struct {
	name string
	text string // as it was written
	def  string // what stands behind the name, in normal form
}

// parseTable splits the text of a table that isn't virtual.
func parseTable(sql string) (t *table, ok bool) {
	s, ok := lex(sql)
	if !ok {
		return nil, false
	}
	at := s.nameAt()
	if at < 0 || s.raw(at+1) != "(" || s.is(1, "VIRTUAL") {
		return nil, false
	}
	t = &table{name: s.name(at), before: sql[:s.tokens[at].start], after: sql[s.tokens[at].end:]}
	i := at + 2
	end := i // the parenthesis that closes the list
	for end < len(s.tokens) && !(s.raw(end) == ")" && s.tokens[end].depth == 0) {
		end++
	}
	if end >= len(s.tokens) {
		return nil, false
	}
	for i < end && !s.is(i, "CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN") {
		to := i
		for to < end && !(s.raw(to) == "," && s.tokens[to].depth == 1) {
			to++
		}
		if to == i {
			return nil, false
		}
		t.columns = append(t.columns, column{name: s.name(i), text: sql[s.tokens[i].start:s.tokens[to-1].end], def: s.definition(i+1, to)})
		if i = to; i < end {
			i++ // the comma
		}
	}
	var rest []string
	for ; i < end; i++ {
		if s.tokens[i].depth == 1 && s.raw(i) == "," {
			continue // SQLite does without
		}
		rest = append(rest, s.constraintToken(i))
	}
	t.constraints = strings.Join(rest, " ")
	for i = end + 1; i < len(s.tokens); {
		to := i
		for to < len(s.tokens) && s.raw(to) != "," {
			to++
		}
		t.options = append(t.options, upper(s.join(i, to)))
		i = to + 1
	}
	slices.Sort(t.options)
	return t, len(t.columns) > 0
}

// definition is a column's type and constraints in normal form.
func (s *statement) definition(from, to int) string {
	var out []string
	i := from
	for i < to && !s.is(i, "CONSTRAINT", "PRIMARY", "NOT", "NULL", "UNIQUE", "CHECK", "DEFAULT", "COLLATE", "REFERENCES", "GENERATED", "AS") {
		i++
	}
	// SQLite knows types by their letters in either case, and shows those it knows in upper case.
	for n := from; n < i; n++ {
		if s.tokens[n].kind == quoted && i-from > 1 {
			out = append(out, sqlite.Quote(upper(s.name(n)))) // of "varchar"(10) SQLite keeps varchar alone
		} else {
			out = append(out, upper(s.normal(n)))
		}
	}
	for ; i < to; i++ {
		out = append(out, s.constraintToken(i))
	}
	return strings.Join(out, " ")
}

// constraintToken is a token of a constraint in normal form.
func (s *statement) constraintToken(i int) string {
	n := s.normal(i)
	if s.is(i-1, "COLLATE") || s.is(i, "STORED") && s.raw(i-1) == ")" {
		return upper(n)
	}
	return n
}

func (c *column) canon() string { return sqlite.Quote(c.name) + " " + c.def }

// tail is what of a table's definition isn't its columns.
func (t *table) tail() string { return t.constraints + ") " + strings.Join(t.options, ", ") }

func (t *table) canon() string {
	var b strings.Builder
	b.WriteByte('(')
	for i := range t.columns {
		b.WriteString(t.columns[i].canon())
		b.WriteString(", ")
	}
	b.WriteString(t.tail())
	return b.String()
}

// called is the text of the same table under another name.
func (t *table) called(name string) string { return t.before + sqlite.Quote(name) + t.after }

// has finds a column by its name as SQLite compares names, -1 if there is none.
func (t *table) has(name string) int {
	return slices.IndexFunc(t.columns, func(c column) bool { return fold(c.name) == fold(name) })
}

// begins tells whether t's columns begin with all of those of base, and the rest of the two is the same.
func (t *table) begins(base *table) bool {
	if len(t.columns) < len(base.columns) || t.tail() != base.tail() {
		return false
	}
	for i := range base.columns {
		if t.columns[i].canon() != base.columns[i].canon() {
			return false
		}
	}
	return true
}
