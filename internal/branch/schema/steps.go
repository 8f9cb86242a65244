package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// do adds a statement to the plan and runs it on the parent's sketch.
func (m *merger) do(sql string) error {
	if err := m.parent.run(sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	m.plan.Statements = append(m.plan.Statements, sql)
	return nil
}

func (m *merger) dof(format string, args ...any) error { return m.do(fmt.Sprintf(format, args...)) }

// attempt runs f and takes back what it did, on the sketch and in the plan, if that fails.
func (m *merger) attempt(f func() error) error {
	n := len(m.plan.Statements)
	err := m.parent.try(true, f)
	if err != nil {
		m.plan.Statements = m.plan.Statements[:n]
	}
	return err
}

// carryOut finds the statements that make the target of the parent's schema.
func (m *merger) carryOut(target []Object) error {
	want := index(target)
	differs := func(o *Object) bool { // as something to be dropped and made anew
		t := want[o.key()]
		return t == nil || t.Type != o.Type || (o.Type == "view" || o.Type == "trigger") && t.SQL != o.SQL || !same(o, t)
	}
	gone := func(o *Object) bool { // as a table
		t := want[o.key()]
		return t == nil || t.Type != o.Type || (moduleOf(o) == "") != (moduleOf(t) == "")
	}
	present := m.parent.objects
	for _, stage := range []string{"trigger", "view", "index", "virtual", "table"} {
		for i := range present {
			o := &present[i]
			if stageOf(o) != stage {
				continue
			}
			switch stage {
			case "trigger", "index":
				on := m.parent.byKey["o:"+fold(o.Table)]
				if !differs(o) || on == nil || (on.Type == "table" && gone(on)) || (on.Type == "view" && differs(on)) {
					continue // or it goes with its table
				}
			case "view":
				if !differs(o) {
					continue
				}
			default:
				if !gone(o) {
					continue
				}
				m.warnGone(o, want[o.key()] != nil)
				m.lost[fold(o.Name)] = true
			}
			if err := m.dof("DROP %s %s", strings.ToUpper(o.Type), sqlite.Quote(o.Name)); err != nil {
				return err
			}
		}
	}
	var rebuild []*Object
	for i := range present {
		o := &present[i]
		t := want[o.key()]
		if o.Type != "table" || gone(o) || same(o, t) {
			continue
		}
		altered := false
		if moduleOf(o) == "" {
			var err error
			if altered, err = m.alter(o, t); err != nil {
				return err
			}
		}
		if !altered {
			rebuild = append(rebuild, t)
		}
	}
	if len(rebuild) > 0 {
		if err := m.do(legacyOn); err != nil {
			return err
		}
		for _, t := range rebuild {
			m.lost[fold(t.Name)] = true
			if err := m.rebuild(m.parent.byKey[t.key()], t); err != nil {
				return err
			}
		}
		if err := m.do(LegacyOff); err != nil {
			return err
		}
	}
	if err := m.createMissing(target); err != nil {
		return err
	}
	return m.noteChecks(target)
}

// createMissing makes what the target has and the parent hasn't, or has no more.
func (m *merger) createMissing(target []Object) error {
	now, err := m.parent.sketch.objects()
	if err != nil {
		return err
	}
	have := index(now)
	for _, stage := range stages {
		for i := range target {
			o := &target[i]
			if stageOf(o) != stage || have[o.key()] != nil {
				continue
			}
			if err := m.do(o.SQL); err != nil {
				return err
			}
			if stage == "virtual" {
				if err := m.fill(o, ""); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// noteChecks finds the tables whose foreign keys need a look.
func (m *merger) noteChecks(target []Object) error {
	if len(m.lost) == 0 {
		return nil
	}
	for i := range target {
		o := &target[i]
		if o.Type != "table" || moduleOf(o) != "" || !mayRefer(o) {
			continue
		}
		parents, err := m.parent.parents(o.Name)
		if err != nil {
			return err
		}
		rebuilt := slices.Contains(m.plan.Rebuilt, o.Name)
		if len(parents) > 0 && (rebuilt || slices.ContainsFunc(parents, func(p string) bool { return m.lost[fold(p)] })) {
			m.plan.Check = append(m.plan.Check, o.Name)
		}
	}
	return nil
}

// alter changes a table with ALTER TABLE DROP COLUMN and ADD COLUMN, if that makes the target of it.
func (m *merger) alter(o, t *Object) (bool, error) {
	from, ok1 := parseTable(o.SQL)
	to, ok2 := parseTable(t.SQL)
	if !ok1 || !ok2 {
		return false, nil
	}
	var drop []string
	left := *from
	left.columns = nil
	for _, c := range from.columns {
		if to.has(c.name) < 0 {
			drop = append(drop, c.name)
		} else {
			left.columns = append(left.columns, c)
		}
	}
	if len(left.columns) == 0 || !to.begins(&left) {
		return false, nil
	}
	added := to.columns[len(left.columns):]
	for _, c := range added {
		if ok, err := m.addable(&left, c); err != nil || !ok {
			return false, err
		}
		left.columns = append(left.columns, c)
	}
	err := m.attempt(func() error {
		for _, name := range drop {
			if err := m.do(dropColumn(o.Name, name)); err != nil {
				return err
			}
		}
		for _, c := range added {
			if err := m.do(addColumn(o.Name, c)); err != nil {
				return err
			}
		}
		return m.made(t)
	})
	if err != nil {
		return false, m.w.ctx.Err()
	}
	var names []string
	for _, c := range added {
		names = append(names, c.name)
	}
	m.warnColumns(o.Name, drop, names)
	return true, nil
}

// made tells whether the parent's table has become t, and nothing but the table: DROP COLUMN makes 'texts' of "texts" in views.
func (m *merger) made(t *Object) error {
	all, err := m.parent.sketch.objects()
	if err != nil {
		return err
	}
	now := index(all)
	if !same(now[t.key()], t) {
		return errOtherwise
	}
	for k, o := range now {
		if was := m.parent.byKey[k]; o.Type != "table" && was != nil && was.SQL != o.SQL {
			return errOtherwise
		}
	}
	return nil
}

var errOtherwise = fmt.Errorf("it makes another table")

// warnColumns says what becomes of the values of columns that go.
func (m *merger) warnColumns(table string, gone, added []string) {
	if len(gone) == 0 {
		return
	}
	what, are := "column", "is"
	if len(gone) > 1 {
		what, are = "columns", "are"
	}
	why := ""
	if len(added) > 0 {
		why = fmt.Sprintf("; nothing shows for certain that one was renamed (%s was added)", quoteAll(added))
	}
	m.warn("table %s: %s %s %s removed with the values%s", sqlite.Quote(table), what, quoteAll(gone), are, why)
}

// warnGone says that a table's rows are lost.
func (m *merger) warnGone(o *Object, replaced bool) {
	why := ""
	if !replaced {
		var alike []string
		for i := range m.branch.objects {
			b := &m.branch.objects[i]
			if b.Type == "table" && m.parent.byKey[b.key()] == nil && m.base.byKey[b.key()] == nil && mayBeRenamed(o, b) {
				alike = append(alike, b.Name)
			}
		}
		if len(alike) > 0 {
			why = fmt.Sprintf("; nothing shows for certain that it was renamed (%s was added)", quoteAll(alike))
		}
	}
	m.warn("table %s is removed with its rows%s", sqlite.Quote(o.Name), why)
}

func quoteAll(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = sqlite.Quote(n)
	}
	return strings.Join(q, ", ")
}
