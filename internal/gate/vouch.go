package gate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// Instead is what has to run in the place of a judged statement for this caller: "" for the statement itself.
func (g *Gate) Instead(s *sqlite.Stmt) (sql string, err error) {
	if g.Caller.Policies == nil {
		return "", nil
	}
	v, ok := s.Memo.(*verdict)
	if !ok {
		return "", errUnvouched("")
	}
	if v.bound == nil || v.bound.policies != g.Caller.Policies {
		v.bound = bind(v, s, g.Caller.Policies)
	}
	return v.bound.plain, v.bound.err
}

// PermitInstead is Permit for what Instead returned: it asks for the caller's claims.
func (g *Gate) PermitInstead(a sqlite.Access) error {
	if a.Action == sqlite.Function && a.Detail == sqlite.ClaimFunction {
		return nil
	}
	return g.Permit(a)
}

// Vouch decides, by what the authorizer reported, whether a statement that runs in the place of judged reads policied tables through their
// policies alone.
func (g *Gate) Vouch(s, judged *sqlite.Stmt) error {
	if m, ok := s.Memo.(*mixed); ok && m.bound.policies == g.Caller.Policies {
		return m.err
	}
	m := &mixed{}
	switch of := judged.Memo.(type) {
	case *verdict:
		m.bound = of.bound
	case *mixed: // which is run once more
		m.bound = of.bound
	}
	if m.bound == nil {
		return errUnvouched("")
	}
	m.err = m.bound.vouch(s)
	s.Memo = m
	return m.err
}

// Fenced is what a statement that was run in the place of another, and failed, is to be run as once more; "" if it isn't. SQLite may evaluate
// the client's conditions before the policies', and on rows that these hide: its error could tell of such a row. Fenced off, which takes no
// index, the client's text sees nothing else than what it may.
func (g *Gate) Fenced(s *sqlite.Stmt, err error) string {
	m, ok := s.Memo.(*mixed)
	var e *sqlite.Error
	if !ok || off("policy of errors") || !errors.As(err, &e) || e.Cause != nil {
		return ""
	}
	switch e.Code.Primary() {
	case sqlite.CodeError, sqlite.CodeTooBig, sqlite.CodeMismatch:
		return m.bound.fenced
	}
	return ""
}

// Claims are what the policies know of the caller.
func (g *Gate) Claims() sqlite.Claims { return g.Caller.Claims }

// Uncompiled says why a statement that runs in the place of another could not be compiled.
func (g *Gate) Uncompiled(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) || e.Cause != nil || e.Code.Primary() != sqlite.CodeError {
		return err
	}
	message := "Row-level policies cannot be applied to the statement"
	if why := e.Message; !strings.Contains(sqlite.Fold(why), g.Caller.Policies.mark) {
		message += ": " + why
	}
	return refuseHidden(message, "under policies a table has no rowid and no INDEXED BY; a policy that names a column which is gone has to be deleted")
}

// ChecksRow tells whether the last column of a statement's rows says whether the row that was written meets the policies, which the client didn't
// ask for and isn't shown; refused is what it is told where one doesn't.
func ChecksRow(s *sqlite.Stmt) (checks bool, refused *Refusal) {
	m, ok := s.Memo.(*mixed)
	if !ok || !m.bound.check {
		return false, nil
	}
	return true, refuseHidden(fmt.Sprintf("The row does not meet the policies of table %q", m.bound.checked), "a row must meet them after it is written")
}

// Mixed tells whether a statement runs in the place of another.
func Mixed(s *sqlite.Stmt) bool {
	_, ok := s.Memo.(*mixed)
	return ok
}

func (b *bound) vouch(s *sqlite.Stmt) error {
	if off("policy of the readers") {
		return nil
	}
	seen := map[string]bool{} // our table expressions that the statement reads with
	read := map[string]bool{} // views that policies read, which are the views themselves
	for i := range s.Accesses {
		a := &s.Accesses[i]
		if a.Action == sqlite.Read && !read[a.Name] && !slices.Contains(b.views, sqlite.Fold(a.Name)) && s.Kind(a.Name) == sqlite.View && triggerOf(s, a.By) == "" {
			// Of what a view reads by JOIN … USING alone nothing is reported as the view's.
			read[a.Name] = true
			if table := b.shownBy(s, a.Name); table != "" {
				return errUnvouched(table)
			}
		}
		if b.policies.own(a.By) {
			seen[a.By] = true
			continue
		}
		t := b.policies.tables[sqlite.Fold(a.Name)]
		if t == nil {
			continue
		}
		table := sqlite.Fold(t.name)
		switch a.Action {
		case sqlite.Read:
			switch {
			case !t.covers("select"):
			case a.By == "" && (table == b.target || b.byForeignKey(s, table)):
			case a.By != "" && b.trigger(s, a.By, table):
			case a.Schema == "" && a.Detail == "" && b.ofExpression(s, a.By):
			default:
				return errUnvouched(t.name)
			}
		case sqlite.Insert, sqlite.Update, sqlite.Delete:
			verb := strings.ToLower(verbs[a.Action])
			// An action of a foreign key keeps the data whole, whatever the policies hide.
			if a.By != "" && t.covers(verb) && !b.trigger(s, a.By, table) {
				return refuseHidden(fmt.Sprintf("The trigger %q writes to table %q, whose policies apply to %s", a.By, t.name, strings.ToUpper(verb)), "write to the table itself")
			}
		}
	}
	for by := range seen {
		if table := b.differs(s, by); table != "" {
			return errUnvouched(table)
		}
	}
	return nil
}

// ofExpression tells whether the name of a policied table, of which no column is read, is our table expression's: SQLite reports a table of
// which rows are only counted by its name alone. The tables themselves are meant by triggers, and by the views that these read.
func (b *bound) ofExpression(s *sqlite.Stmt, by string) bool {
	if triggerOf(s, by) != "" {
		return false
	}
	return !slices.ContainsFunc(s.Accesses, func(a sqlite.Access) bool {
		return a.Action == sqlite.Read && a.By != "" && s.Kind(a.Name) == sqlite.View && triggerOf(s, a.By) != ""
	})
}

// byForeignKey tells whether a table is read only to enforce foreign keys, or by an action of one.
func (b *bound) byForeignKey(s *sqlite.Stmt, table string) bool {
	accesses, err := s.AccessesWithoutForeignKeys()
	return err == nil && !slices.ContainsFunc(accesses, func(a sqlite.Access) bool {
		return a.Action == sqlite.Read && a.By == "" && sqlite.Fold(a.Name) == table
	})
}

// trigger tells whether a reader is a trigger on this table that the statement fires. A table expression of its name would look the same.
func (b *bound) trigger(s *sqlite.Stmt, by, table string) bool {
	if !s.Fires(by) || !triggerOn(s, by, table) {
		return false
	}
	return !slices.ContainsFunc(b.texts, func(text *statement) bool {
		for i := range text.tokens {
			if text.name(i) == sqlite.Fold(by) {
				return true
			}
		}
		return false
	})
}

// triggerOn tells whether a reader is a trigger on this table: it was made by who may see all of it, and sees the row that fired it.
func triggerOn(s *sqlite.Stmt, by, table string) bool {
	return triggerOf(s, by) == table && s.Kind(by) != sqlite.View
}

// triggerOf is the folded name of the table that a trigger of that name is on; "" if there is none.
func triggerOf(s *sqlite.Stmt, name string) string {
	on := ""
	if err := s.Look("SELECT tbl_name FROM main.sqlite_schema WHERE type='trigger' AND name=?1 COLLATE NOCASE", name, func(q *sqlite.Stmt) {
		on = sqlite.Fold(string(q.Column(0).Bytes))
	}); err != nil {
		return "?" // no table's name, and not none
	}
	return on
}

// differs compares what one of our table expressions reads in a statement with what it reads where nothing of a client's is near: another
// meaning of a name in a policy would show. It returns the table whose policies mean something else, "" if none do.
func (b *bound) differs(s *sqlite.Stmt, by string) string {
	ours, table, from := b.policies.prefix(false)+b.twinned, b.target, by
	if by == b.policies.rows() {
		ours += ", " + b.rows
	}
	for i, t := range b.policies.sorted() {
		if b.policies.reader(i) == by {
			table, from = t.name, quote(t.name)
		}
	}
	alone := "WITH " + strings.TrimPrefix(ours, ", ") + " SELECT 1 FROM " + from
	accesses, err := s.AccessesOf(alone)
	if err != nil || !sameReads(accesses, s.Accesses, by) {
		return table
	}
	return ""
}

func sameReads(a, b []sqlite.Access, by string) bool {
	return hasReads(a, b, by) && hasReads(b, a, by)
}

func hasReads(all, of []sqlite.Access, by string) bool {
	for i := range of {
		if of[i].By == by && of[i].Action == sqlite.Read && !slices.Contains(all, of[i]) {
			return false
		}
	}
	return true
}

// virtual refuses to read a virtual table that shows rows of a policied one: its content, or what triggers put into it, can have no policies.
func (b *bound) virtual(s *sqlite.Stmt) error {
	if off("policy of a virtual table") {
		return nil
	}
	for i := range s.Accesses {
		a := &s.Accesses[i]
		if a.Action != sqlite.Read {
			continue
		}
		name := a.Name
		switch s.Kind(name) {
		case sqlite.VirtualTable:
		case sqlite.ShadowTable:
			name = sqlite.ShadowOf(name)
			if b.policies.Has(name) { // its own shadow
				return errUnvouched(name)
			}
		default:
			continue
		}
		if t := b.policies.tables[triggerOf(s, a.By)]; a.By != "" && t != nil && s.Fires(a.By) {
			continue // a trigger of the policied table itself, which keeps an index of it
		}
		shown, err := b.shows(s, name, map[string]bool{})
		if err != nil {
			return err
		}
		if shown != "" {
			return refuseHidden(fmt.Sprintf("The virtual table %q shows rows of table %q that policies hide", a.Name, shown), "search the table itself, for example with LIKE")
		}
	}
	return nil
}

// shownBy is a policied table that a view reads itself; "" if there is none.
func (b *bound) shownBy(s *sqlite.Stmt, view string) string {
	accesses, err := s.AccessesOf(ReadAll(view))
	if err != nil {
		return view // what can't be read can't be vouched for
	}
	for i := range accesses {
		if t := b.policies.tables[sqlite.Fold(accesses[i].Name)]; t != nil && t.covers("select") {
			return t.name
		}
	}
	return ""
}

// shows is a policied table whose rows could come into another table or view: it reads them, or triggers write them there, directly or by way of
// others; "" if there is none. What triggers do is told from the names in their texts: it can only be too much.
func (b *bound) shows(s *sqlite.Stmt, name string, seen map[string]bool) (string, error) {
	folded := sqlite.Fold(name)
	if seen[folded] || name == "" {
		return "", nil
	}
	seen[folded] = true
	if t := b.policies.tables[folded]; t != nil && t.covers("select") {
		return t.name, nil
	}
	if s.Kind(name) == sqlite.View {
		if table := b.shownBy(s, name); table != "" {
			return table, nil
		}
	}
	if shown, err := b.shows(s, s.Lender(name), seen); shown != "" || err != nil {
		return shown, err
	}
	type trigger struct {
		on  string
		sql *statement
	}
	var triggers []trigger
	err := s.Look("SELECT tbl_name, sql FROM main.sqlite_schema WHERE type='trigger' AND ?1 <> ''", name, func(q *sqlite.Stmt) {
		on := string(q.Column(0).Bytes)
		if text, ok := lexAll(string(q.Column(1).Bytes)); ok {
			triggers = append(triggers, trigger{on, text})
		}
	})
	if err != nil {
		return "", err
	}
	for _, t := range triggers {
		names := map[string]bool{}
		for i := range t.sql.tokens {
			names[t.sql.name(i)] = true
		}
		if !names[folded] {
			continue
		}
		for table, p := range b.policies.tables {
			if names[table] && p.covers("select") {
				return p.name, nil
			}
		}
		if sqlite.Fold(t.on) == folded {
			continue
		}
		if shown, err := b.shows(s, t.on, seen); shown != "" || err != nil {
			return shown, err
		}
	}
	return "", nil
}
