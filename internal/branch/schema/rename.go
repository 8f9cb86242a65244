package schema

import (
	"fmt"
	"slices"

	"github.com/persqld/persqld/internal/sqlite"
)

// rename carries out on the base and the parent what the branch certainly renamed. What is left is compared as if the fork had been made of the
// renamed schema: what the parent made meanwhile goes along, as ALTER TABLE rewrites it.
func (m *merger) rename() error {
	if err := m.renameTables(); err != nil {
		return err
	}
	return m.renameColumns()
}

// renameTables finds tables that are gone from the branch, and one that is new there with the very text that ALTER TABLE makes of it, to the
// byte. Where two fit, none is certain.
func (m *merger) renameTables() error {
	fits := map[string][]string{} // new keys by the old
	taken := map[string]int{}     // how many old ones fit a new one
	for _, old := range slices.Clone(m.base.objects) {
		k := old.key()
		if old.Type != "table" || m.branch.byKey[k] != nil {
			continue
		}
		for j := range m.branch.objects {
			fresh := &m.branch.objects[j]
			if fresh.Type != "table" || m.base.byKey[fresh.key()] != nil || !mayBeRenamed(&old, fresh) {
				continue
			}
			if err := m.opened(); err != nil {
				return err
			}
			var made string
			err := m.base.try(false, func() error {
				if err := m.base.run(renameTable(old.Name, fresh.Name)); err != nil {
					return err
				}
				all, err := m.base.sketch.objects()
				if o := index(all)[fresh.key()]; o != nil {
					made = o.SQL
				}
				return err
			})
			if err := m.w.ctx.Err(); err != nil {
				return err
			}
			if err == nil && made == fresh.SQL {
				fits[k] = append(fits[k], fresh.key())
				taken[fresh.key()]++
			}
		}
	}
	for _, old := range slices.Clone(m.base.objects) {
		k := old.key()
		if len(fits[k]) != 1 || taken[fits[k][0]] != 1 || m.parent.byKey[fits[k][0]] != nil || !same(m.base.byKey[k], m.parent.byKey[k]) {
			continue
		}
		fresh := m.branch.byKey[fits[k][0]]
		done, err := m.alterBoth(k, renameTable(old.Name, fresh.Name))
		if err != nil {
			return err
		}
		if done {
			m.renamed[fresh.key()] = k
			m.warn("table %s is taken to be renamed %s, and keeps its rows", sqlite.Quote(old.Name), sqlite.Quote(fresh.Name))
		}
	}
	return nil
}

// mayBeRenamed compares what renaming leaves alone.
func mayBeRenamed(old, fresh *Object) bool {
	if moduleOf(old) != "" {
		return moduleOf(old) == moduleOf(fresh)
	}
	a, ok1 := parseTable(old.SQL)
	b, ok2 := parseTable(fresh.SQL)
	return ok1 && ok2 && slices.EqualFunc(a.columns, b.columns, func(x, y column) bool { return x.name == y.name })
}

func renameColumn(table, from, to string) string {
	return "ALTER TABLE " + sqlite.Quote(table) + " RENAME COLUMN " + sqlite.Quote(from) + " TO " + sqlite.Quote(to)
}

func renameTable(from, to string) string {
	return "ALTER TABLE " + sqlite.Quote(from) + " RENAME TO " + sqlite.Quote(to)
}

// alterBoth runs a renaming on the base and the parent. Where a schema is in its way (it has a view that doesn't work, say) that is a conflict.
func (m *merger) alterBoth(k string, statements ...string) (done bool, err error) {
	refused, err := m.alterSides(statements, statements)
	if err != nil || refused != nil {
		m.refuse(k, refused)
		return false, err
	}
	return true, nil
}

func (m *merger) refuse(k string, refused error) {
	if refused != nil {
		m.conflict(k, "it was renamed on the branch, which "+refused.Error())
	}
}

// alterSides runs statements on the parent, and others on the base: on both, or, where a schema is in their way, on none; then refused says why.
func (m *merger) alterSides(onParent, onBase []string) (refused, err error) {
	run := func(s *side, statements []string, where string) error {
		for _, sql := range statements {
			if err := s.run(sql); err != nil {
				return fmt.Errorf("%s doesn't let happen: %s", where, message(err))
			}
		}
		return nil
	}
	refused = m.parent.try(true, func() error {
		if err := run(&m.parent, onParent, "the parent's schema"); err != nil {
			return err
		}
		return m.base.try(true, func() error { return run(&m.base, onBase, "the schema of the fork") })
	})
	if err := m.w.ctx.Err(); err != nil {
		return nil, err
	}
	if refused != nil {
		return refused, nil
	}
	if err := m.parent.refresh(); err != nil {
		return nil, err
	}
	if err := m.base.refresh(); err != nil {
		return nil, err
	}
	m.plan.Statements = append(m.plan.Statements, onParent...)
	return nil, nil
}

// renameColumns finds columns that have another name on the branch while all else about them is the same, place included.
func (m *merger) renameColumns() error {
	for _, o := range slices.Clone(m.base.objects) {
		k := o.key()
		h := m.branch.byKey[k]
		if o.Type != "table" || moduleOf(&o) != "" || h == nil || h.Type != "table" || same(&o, h) || !same(&o, m.parent.byKey[k]) {
			continue
		}
		base, ok1 := parseTable(o.SQL)
		branch, ok2 := parseTable(h.SQL)
		if !ok1 || !ok2 {
			continue
		}
		places := renamedAt(base, branch)
		if len(places) == 0 {
			continue
		}
		if err := m.opened(); err != nil {
			return err
		}
		certain, err := m.certain(&o, base, branch, places)
		if err != nil {
			return err
		}
		if !certain {
			continue
		}
		done, err := m.alterBoth(k, renameColumnsOf(o.Name, base, branch, places)...)
		if err != nil {
			return err
		}
		for _, i := range places {
			if done {
				m.warn("column %s of table %s is taken to be renamed %s, and keeps its values", sqlite.Quote(base.columns[i].name), sqlite.Quote(o.Name), sqlite.Quote(branch.columns[i].name))
			}
		}
	}
	return nil
}

// renamedAt are the places of columns that can only differ by name; none if the tables differ otherwise in a way that makes it pointless to ask.
func renamedAt(base, branch *table) (places []int) {
	if len(branch.columns) < len(base.columns) {
		return nil
	}
	for i, c := range base.columns {
		switch n := branch.columns[i].name; {
		case n == c.name:
		case fold(n) != fold(c.name) && (base.has(n) >= 0 || branch.has(c.name) >= 0):
			return nil // columns changed places
		default:
			places = append(places, i)
		}
	}
	return places
}

func renameColumnsOf(name string, base, branch *table, places []int) (statements []string) {
	for _, i := range places {
		statements = append(statements, renameColumn(name, base.columns[i].name, branch.columns[i].name))
	}
	return statements
}

// certain tells whether the branch renamed columns. Carried out on the base, it must make the branch's table, but for columns that were added behind. That alone could be DROP COLUMN and
// ADD COLUMN, which is another thing, where the column was the last: then nothing but a renaming must explain what else mentions it.
func (m *merger) certain(o *Object, base, branch *table, places []int) (certain bool, err error) {
	last := 0 // the last column that has kept its name
	for i, c := range base.columns {
		if branch.columns[i].name == c.name {
			last = i
		}
	}
	behind := slices.DeleteFunc(slices.Clone(places), func(i int) bool { return i < last })
	for _, i := range behind {
		dropped := m.base.try(false, func() error { return m.base.run(dropColumn(o.Name, base.columns[i].name)) })
		if err := m.w.ctx.Err(); err != nil {
			return false, err
		}
		if dropped == nil {
			return false, nil
		}
	}
	before := m.base.byKey
	err = m.base.try(false, func() error {
		for _, sql := range renameColumnsOf(o.Name, base, branch, places) {
			if err := m.base.run(sql); err != nil {
				return err
			}
		}
		all, err := m.base.sketch.objects()
		if err != nil {
			return err
		}
		after := index(all)
		made, ok := parseTable(after[o.key()].SQL)
		certain = ok && branch.begins(made)
		for k, x := range after {
			// What renaming rewrote has to be so on the branch, where the place of the column doesn't tell.
			if len(behind) > 0 && x.SQL != before[k].SQL && k != o.key() && !same(x, m.branch.byKey[k]) {
				certain = false
			}
		}
		return nil
	})
	if err != nil {
		return false, m.w.ctx.Err()
	}
	return certain, nil
}

func dropColumn(table, column string) string {
	return fmt.Sprintf("ALTER TABLE %s DROP COLUMN %s", sqlite.Quote(table), sqlite.Quote(column))
}
