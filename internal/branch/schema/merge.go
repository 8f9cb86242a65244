package schema

import (
	"context"
	"fmt"
	"slices"

	"github.com/persqld/persqld/internal/sqlite"
)

// side is one of the three schemas: its objects, and a database that has them.
type side struct {
	*sketch
	objects []Object
	byKey   set
	ailing  map[string]ailment // what doesn't work in it, by key; see [workshop.examine]
}

type merger struct {
	w      *workshop
	plan   Plan
	base   side // at the fork
	parent side // now; the statements are run on it as they are found
	branch side

	before  []Object          // the parent as it was given
	renamed map[string]string // keys on the parent before, by their keys now
	lost    map[string]bool   // tables of the parent that were removed or made anew: what refers to them has to be checked
	temps   int
}

// Merge works out what makes the branch's changes on the parent: base is the schema at the fork, parent and branch are what became of it. The
// schemas must be as SQLite keeps them, see [Read]. Without origins what was renamed is guessed where it is certain. An error is the context's, a [*LimitError], or tells that a schema can't be understood;
// conflicts are no errors.
func Merge(ctx context.Context, base, parent, branch []Object, origins Origins) (Plan, error) {
	for _, schema := range [][]Object{base, parent, branch} {
		if err := checkBounds(schema); err != nil {
			return Plan{}, err
		}
	}
	if untouched(base, parent, branch) && !origins.renamed() {
		return Plan{}, ctx.Err()
	}
	m := &merger{before: parent, renamed: map[string]string{}, lost: map[string]bool{}}
	err := inWorkshop(ctx, func(w *workshop) (err error) {
		m.w = w
		m.base = side{objects: base, byKey: index(base)} // often it is only compared: see [merger.opened]
		for _, s := range []struct {
			side    *side
			objects []Object
			name    string
		}{{&m.parent, parent, "the parent's schema"}, {&m.branch, branch, "the branch's schema"}} {
			if s.side.sketch, err = w.load(s.objects, nil); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if err := s.side.refresh(); err != nil {
				return err
			}
		}
		if origins == nil {
			err = m.rename()
		} else {
			err = m.follow(origins)
		}
		if err != nil {
			return err
		}
		return m.merge()
	})
	if err != nil {
		return Plan{}, fmt.Errorf("merge schemas: %w", err)
	}
	return m.plan, nil
}

// untouched tells, from the texts alone, that the branch changed nothing that the parent hasn't too.
func untouched(base, parent, branch []Object) bool {
	b, p, h := index(base), index(parent), index(branch)
	equal := func(x, y *Object) bool {
		if x == nil || y == nil || x.SQL == y.SQL && x.Type == y.Type {
			return x == y || x != nil && y != nil
		}
		return (x.Type == "table" || x.Type == "index") && same(x, y) // views and triggers take a second look
	}
	for _, all := range [][]Object{base, branch} {
		for i := range all {
			k := all[i].key()
			if !equal(b[k], h[k]) && !equal(p[k], h[k]) {
				return false
			}
		}
	}
	return true
}

// opened sees to it that the base has a database.
func (m *merger) opened() error {
	if m.base.sketch != nil {
		return nil
	}
	s, err := m.w.load(m.base.objects, nil)
	if err != nil {
		return fmt.Errorf("the schema at the fork: %w", err)
	}
	m.base.sketch = s
	return m.base.refresh()
}

// refresh reads the schema anew.
func (s *side) refresh() (err error) {
	if s.objects, err = s.sketch.objects(); err != nil {
		return err
	}
	s.byKey, s.ailing = index(s.objects), nil
	return nil
}

// ails is what doesn't work on a side, which is looked for once.
func (m *merger) ails(s *side) (map[string]ailment, error) {
	if s.ailing == nil {
		ailing, err := m.w.examine(s.sketch, s.objects)
		if err != nil {
			return nil, err
		}
		s.ailing = ailing
	}
	return s.ailing, nil
}

func (s *side) has(name string) bool { return s.byKey["o:"+fold(name)] != nil }

func (s *side) hasTable(name string) bool {
	o := s.byKey["o:"+fold(name)]
	return o != nil && o.Type == "table"
}

// same tells whether two sides have the same under a key. Views and triggers whose texts differ in quotes or space get a second look: a "name"
// that is no column's is a string, and a view's columns are named by its text.
func (m *merger) same(x, y *side, k string) (bool, error) {
	a, b := x.byKey[k], y.byKey[k]
	if !same(a, b) {
		return false, nil
	}
	if a == nil || a.SQL == b.SQL || a.Type == "table" || a.Type == "index" {
		return true, nil
	}
	if err := m.opened(); err != nil {
		return false, err
	}
	for _, s := range []*side{x, y} {
		ails, err := m.ails(s)
		if err != nil {
			return false, err
		}
		if ails[k].degree != sound {
			return false, nil
		}
	}
	if a.Type == "trigger" {
		return true, nil
	}
	one, err := x.facts(a.Name)
	if err != nil {
		return false, err
	}
	two, err := y.facts(b.Name)
	if err != nil {
		return false, err
	}
	return slices.Equal(one.columns, two.columns), nil
}

func (m *merger) merge() error {
	target, err := m.choose()
	if err != nil {
		return err
	}
	if target, err = m.verify(target); err != nil {
		return err
	}
	if len(m.plan.Conflicts) > 0 {
		m.plan.Statements, m.plan.Rebuilt, m.plan.Check = nil, nil, nil
		m.describe(target)
		return nil
	}
	if err := m.carryOut(target); err != nil {
		return err
	}
	if err := m.parent.refresh(); err != nil {
		return err
	}
	// The plan has been run: it is right if it made what it was to make.
	want := index(target)
	for k := range m.parent.byKey {
		if want[k] == nil {
			return fmt.Errorf("the statements leave %s", k)
		}
	}
	for k, o := range want {
		if !same(o, m.parent.byKey[k]) {
			return fmt.Errorf("the statements don't make %s %s what it is to be", o.Type, sqlite.Quote(o.Name))
		}
	}
	m.describe(m.parent.objects)
	old := index(m.before)
	for to, from := range m.renamed {
		if o := m.parent.byKey[to]; o != nil && to != from {
			m.plan.Renamed = append(m.plan.Renamed, Renamed{old[from].Name, o.Name})
		}
	}
	return nil
}

// choose is the schema that the merge is to make, object by object.
func (m *merger) choose() (target []Object, err error) {
	done := map[string]bool{}
	for _, all := range [][]Object{m.parent.objects, m.branch.objects} {
		for i := range all {
			k := all[i].key()
			if done[k] {
				continue
			}
			done[k] = true
			o, err := m.pick(k)
			if err != nil {
				return nil, err
			}
			if o != nil {
				target = append(target, *o)
			}
		}
	}
	return target, nil
}

// pick is what the merge makes of one object, nil for nothing.
func (m *merger) pick(k string) (*Object, error) {
	b, p, h := m.base.byKey[k], m.parent.byKey[k], m.branch.byKey[k]
	for _, s := range []*side{&m.base, &m.parent} {
		unchanged, err := m.same(s, &m.branch, k)
		if err != nil || unchanged {
			return p, err
		}
	}
	ours, err := m.same(&m.base, &m.parent, k)
	if err != nil || ours {
		return h, err
	}
	reason := "it was changed on both sides, each in its own way"
	switch {
	case p == nil:
		reason = "it was removed on the parent and changed on the branch"
	case h == nil:
		reason = "it was changed on the parent and removed on the branch"
	case b == nil:
		reason = "it was added on both sides, each in its own way"
	case b.Type == "table" && p.Type == "table" && h.Type == "table":
		o, why, err := m.mergeColumns(b, p, h)
		if err != nil || o != nil {
			return o, err
		}
		reason += why
	}
	m.conflict(k, reason)
	return p, nil
}

// mergeColumns puts the columns that each side added to a table together; nil, and perhaps why, if more was changed than that.
func (m *merger) mergeColumns(b, p, h *Object) (merged *Object, why string, err error) {
	base, ok1 := parseTable(b.SQL)
	parent, ok2 := parseTable(p.SQL)
	branch, ok3 := parseTable(h.SQL)
	if !ok1 || !ok2 || !ok3 || !parent.begins(base) || !branch.begins(base) || p.Name != h.Name {
		return nil, "", nil
	}
	var add []string
	for _, c := range branch.columns[len(base.columns):] {
		if i := parent.has(c.name); i >= 0 {
			if parent.columns[i].canon() != c.canon() {
				return nil, fmt.Sprintf(": both added a column %s", sqlite.Quote(c.name)), nil
			}
			continue
		}
		if ok, err := m.addable(parent, c); err != nil || !ok {
			return nil, fmt.Sprintf(": ALTER TABLE can't add the branch's column %s to the parent's table", sqlite.Quote(c.name)), err
		}
		add = append(add, addColumn(p.Name, c))
	}
	err = m.parent.try(false, func() error {
		for _, sql := range add {
			if err := m.parent.run(sql); err != nil {
				return err
			}
		}
		all, err := m.parent.sketch.objects()
		if err == nil {
			merged = index(all)[p.key()]
		}
		return err
	})
	if err != nil {
		if m.w.ctx.Err() != nil {
			return nil, "", err
		}
		return nil, ": " + message(err), nil
	}
	return merged, "", nil
}

func addColumn(table string, c column) string {
	return "ALTER TABLE " + sqlite.Quote(table) + " ADD COLUMN " + c.text
}

// addable asks SQLite whether ALTER TABLE adds the column to a table that has rows, with foreign keys on. It tries that on a row of NULLs.
func (m *merger) addable(t *table, c column) (bool, error) {
	if m.w.loner == nil {
		s, err := m.w.sketch()
		if err != nil {
			return false, err
		}
		if err := s.run("PRAGMA foreign_keys=ON"); err != nil {
			return false, err
		}
		m.w.loner = s
	}
	s := m.w.loner
	strict := slices.Contains(t.options, "STRICT")
	var list []byte
	for i, col := range t.columns {
		if i > 0 {
			list = append(list, ", "...)
		}
		list = append(list, sqlite.Quote(col.name)...)
		if strict {
			list = append(list, " ANY"...)
		}
	}
	make := "CREATE TABLE " + sqlite.Quote(t.name) + "(" + string(list) + ")"
	if strict {
		make += " STRICT"
	}
	err := s.try(false, func() error {
		for _, sql := range []string{make, "INSERT INTO " + sqlite.Quote(t.name) + " DEFAULT VALUES", addColumn(t.name, c)} {
			if err := s.run(sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return false, m.w.ctx.Err()
	}
	return true, nil
}

// conflict notes what a key has on the three sides.
func (m *merger) conflict(k, reason string) {
	if m.conflicting(k) {
		return
	}
	c := Conflict{Reason: reason}
	for _, s := range []struct {
		side *side
		sql  *string
	}{{&m.base, &c.Base}, {&m.parent, &c.Parent}, {&m.branch, &c.Branch}} {
		if o := s.side.byKey[k]; o != nil {
			c.Type, c.Name, *s.sql = o.Type, o.Name, o.SQL
		}
	}
	m.plan.Conflicts = append(m.plan.Conflicts, c)
}

// conflicting tells whether a conflict was noted.
func (m *merger) conflicting(k string) bool {
	return slices.ContainsFunc(m.plan.Conflicts, func(c Conflict) bool { o := Object{Type: c.Type, Name: c.Name}; return o.key() == k })
}

func (m *merger) warn(format string, args ...any) {
	m.plan.Warnings = append(m.plan.Warnings, fmt.Sprintf(format, args...))
}

// describe compares the parent as it was given with what it becomes.
func (m *merger) describe(after []Object) {
	old := index(m.before)
	met := map[string]bool{}
	for i := range after {
		o := &after[i]
		k := o.key()
		if was, ok := m.renamed[k]; ok {
			k = was
		}
		met[k] = true
		was := old[k]
		switch {
		case was == nil:
			m.plan.Added = append(m.plan.Added, Change{o.Type, o.Name, "", o.SQL})
		case was.Type != o.Type:
			m.plan.Removed = append(m.plan.Removed, Change{was.Type, was.Name, was.SQL, ""})
			m.plan.Added = append(m.plan.Added, Change{o.Type, o.Name, "", o.SQL})
		case was.SQL != o.SQL && (!same(was, o) || was.Type == "view" || was.Type == "trigger"):
			m.plan.Changed = append(m.plan.Changed, Change{o.Type, o.Name, was.SQL, o.SQL})
		}
	}
	for i := range m.before {
		if o := &m.before[i]; !met[o.key()] && !m.conflicting(o.key()) {
			m.plan.Removed = append(m.plan.Removed, Change{o.Type, o.Name, o.SQL, ""})
		}
	}
}
