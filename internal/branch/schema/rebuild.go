package schema

import (
	"fmt"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// temporary is a name that nobody has. It is one of the server's: a client's statement can't use it, and must not, with foreign keys on.
func (m *merger) temporary() string {
	m.temps++
	return fmt.Sprintf("_persql_new_%d", m.temps)
}

// insert overrules constraints that say ON CONFLICT IGNORE or REPLACE: rows that they are in the way of must not vanish unseen.
const insert = "INSERT OR ABORT INTO"

// rebuild makes a table anew and moves its rows: https://sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema Changes".
// PRAGMA legacy_alter_table is on, so that the last step leaves views and triggers alone, which name the table by the name that it gets.
func (m *merger) rebuild(o, t *Object) error {
	if moduleOf(t) != "" {
		return m.rebuildVirtual(o, t)
	}
	parsed, ok := parseTable(t.SQL)
	if !ok {
		return m.replace(o, t)
	}
	from, err := m.parent.facts(o.Name)
	if err != nil {
		return err
	}
	temp := m.temporary()
	err = m.attempt(func() error {
		if err := m.do(parsed.called(temp)); err != nil {
			return err
		}
		to, err := m.parent.facts(temp)
		if err != nil {
			return err
		}
		into, out, any := shared(from, to)
		if !any {
			return errNothingShared
		}
		if err := m.dof(insert+" %s(%s) SELECT %s FROM %s", sqlite.Quote(temp), into, out, sqlite.Quote(o.Name)); err != nil {
			return err
		}
		if from.shape.Counting && to.shape.Counting {
			if err := m.moveSequence(o.Name, temp); err != nil {
				return err
			}
		}
		if err := m.dof("DROP TABLE %s", sqlite.Quote(o.Name)); err != nil {
			return err
		}
		if err := m.do(renameTable(temp, t.Name)); err != nil {
			return err
		}
		return m.made(t)
	})
	if err != nil {
		if ended := m.w.ctx.Err(); ended != nil {
			return ended
		}
		// A constraint that names its own table, say, can't be made under another name.
		return m.replace(o, t)
	}
	to, err := m.parent.facts(t.Name)
	if err != nil {
		return err
	}
	m.noteRebuilt(t, from, to)
	return nil
}

var errNothingShared = fmt.Errorf("the tables have no column in common")

// noteRebuilt says what may go wrong with the rows.
func (m *merger) noteRebuilt(t *Object, from, to *facts) {
	m.plan.Rebuilt = append(m.plan.Rebuilt, t.Name)
	var gone, added []string
	for _, c := range from.columns {
		if to.find(c.name) == nil {
			gone = append(gone, c.name)
		}
	}
	for _, c := range to.columns {
		was := from.find(c.name)
		if was == nil {
			added = append(added, c.name)
		}
		switch {
		case !c.notNull || c.hidden != 0 || c.name == to.alias():
		case was == nil && !c.dflt:
			m.warn("table %s: the new column %s is NOT NULL without a default, so the merge fails if there are rows", sqlite.Quote(t.Name), sqlite.Quote(c.name))
		case was != nil && !was.notNull:
			m.warn("table %s: column %s becomes NOT NULL, so the merge fails if it holds a NULL", sqlite.Quote(t.Name), sqlite.Quote(c.name))
		}
	}
	m.warnColumns(t.Name, gone, added)
}

// shared are the columns that rows are copied by: those that both tables have, without the ones that are computed, and the rowid, which
// FTS5 tables with the text elsewhere, and people, refer to.
func shared(from, to *facts) (into, out string, any bool) {
	var left, right []string
	if id := from.rowid(); id != "" && to.shape.Rowid {
		if alias := to.alias(); alias == "" {
			if name := to.rowid(); name != "" {
				left, right = append(left, quoteRowid(to, name)), append(right, quoteRowid(from, id))
			}
		} else if from.find(alias) == nil {
			left, right = append(left, sqlite.Quote(alias)), append(right, quoteRowid(from, id))
		}
	}
	for _, c := range to.columns {
		if was := from.find(c.name); c.hidden == 0 && was != nil && was.hidden != 1 {
			left, right, any = append(left, sqlite.Quote(c.name)), append(right, sqlite.Quote(was.name)), true
		}
	}
	return strings.Join(left, ", "), strings.Join(right, ", "), any
}

// quoteRowid leaves rowid as it is where it is no column: in quotes it could be a text.
func quoteRowid(f *facts, name string) string {
	if f.find(name) != nil {
		return sqlite.Quote(name)
	}
	return name
}

// moveSequence gives the new table the highest key that the old one ever had. Without rows the copying left no entry, or one of 0.
func (m *merger) moveSequence(from, to string) error {
	if err := m.dof("DELETE FROM sqlite_sequence WHERE name = %s", literal(to)); err != nil {
		return err
	}
	return m.dof("INSERT INTO sqlite_sequence(name, seq) SELECT %s, seq FROM sqlite_sequence WHERE name = %s", literal(to), literal(from))
}

// replace makes a table anew under its own name, and keeps the rows in another table meanwhile: that is twice the copying, for tables whose
// definition doesn't stand being made under another name. Where nothing is shared the rows are lost.
func (m *merger) replace(o, t *Object) error {
	from, err := m.parent.facts(o.Name)
	if err != nil {
		return err
	}
	// What the new table is, is known when it is there; what is to be kept has to be known before.
	var to *facts
	err = m.parent.try(false, func() error {
		if err := m.parent.run("DROP TABLE " + sqlite.Quote(o.Name)); err != nil {
			return err
		}
		if err := m.parent.run(t.SQL); err != nil {
			return err
		}
		to, err = m.parent.facts(t.Name)
		return err
	})
	if err != nil {
		return err
	}
	into, out, any := shared(from, to)
	if !any {
		m.warn("table %s has no column in common with the one on the branch: its rows are lost", sqlite.Quote(o.Name))
		if err := m.dof("DROP TABLE %s", sqlite.Quote(o.Name)); err != nil {
			return err
		}
		return m.do(t.SQL)
	}
	temp := m.temporary()
	if err := m.dof("CREATE TABLE %s AS SELECT %s FROM %s", sqlite.Quote(temp), numbered(out), sqlite.Quote(o.Name)); err != nil {
		return err
	}
	counting := from.shape.Counting && to.shape.Counting
	if counting {
		if err := m.moveSequence(o.Name, temp); err != nil {
			return err
		}
	}
	if err := m.dof("DROP TABLE %s", sqlite.Quote(o.Name)); err != nil {
		return err
	}
	if err := m.do(t.SQL); err != nil {
		return err
	}
	if err := m.dof(insert+" %s(%s) SELECT * FROM %s ORDER BY rowid", sqlite.Quote(t.Name), into, sqlite.Quote(temp)); err != nil {
		return err
	}
	if counting {
		if err := m.moveSequence(temp, t.Name); err != nil {
			return err
		}
		if err := m.dof("DELETE FROM sqlite_sequence WHERE name = %s", literal(temp)); err != nil {
			return err
		}
	}
	if err := m.dof("DROP TABLE %s", sqlite.Quote(temp)); err != nil {
		return err
	}
	m.noteRebuilt(t, from, to)
	return nil
}

// numbered gives the columns of a list names that can't be in each other's way.
func numbered(list string) string {
	s, _ := lex(list)
	var b strings.Builder
	n := 0
	for i := range s.tokens {
		if s.raw(i) != "," {
			fmt.Fprintf(&b, "%s AS c%d", s.raw(i), n)
			n++
			continue
		}
		b.WriteString(", ")
	}
	return b.String()
}

// rebuildVirtual makes a virtual table anew, with its content where that can be copied or found elsewhere.
func (m *merger) rebuildVirtual(o, t *Object) error {
	if why := m.uncopied(o, t); why != "" {
		if err := m.dof("DROP TABLE %s", sqlite.Quote(o.Name)); err != nil {
			return err
		}
		if err := m.do(t.SQL); err != nil {
			return err
		}
		return m.fill(t, why)
	}
	from, err := m.parent.facts(o.Name)
	if err != nil {
		return err
	}
	s, _ := lex(t.SQL)
	at := s.tokens[s.nameAt()]
	temp := m.temporary()
	if err := m.do(t.SQL[:at.start] + sqlite.Quote(temp) + t.SQL[at.end:]); err != nil {
		return err
	}
	to, err := m.parent.facts(temp)
	if err != nil {
		return err
	}
	into, out, _ := shared(from, to)
	if moduleOf(t) == "fts5" {
		into, out = "rowid, "+into, "rowid, "+out
	}
	if err := m.dof("INSERT INTO %s(%s) SELECT %s FROM %s", sqlite.Quote(temp), into, out, sqlite.Quote(o.Name)); err != nil {
		return err
	}
	if err := m.dof("DROP TABLE %s", sqlite.Quote(o.Name)); err != nil {
		return err
	}
	if err := m.do(renameTable(temp, t.Name)); err != nil {
		return err
	}
	m.plan.Rebuilt = append(m.plan.Rebuilt, t.Name)
	return nil
}

// uncopied is why the content of a virtual table can't be copied into another, "" if it can: both are of one module and keep all of their content themselves.
func (m *merger) uncopied(o, t *Object) string {
	a, b := shadowModule(moduleOf(o)), shadowModule(moduleOf(t))
	if a != b || a != "fts5" && a != "rtree" {
		return "its content can't be copied"
	}
	if a == "fts5" {
		_, was := contentOf(o)
		if _, is := contentOf(t); !was || !is {
			return "its content is not its own"
		}
	}
	names := func(s *side, name string) (all []string) {
		if f, err := s.facts(name); err == nil {
			for _, c := range f.columns {
				if c.hidden == 0 {
					all = append(all, fold(c.name))
				}
			}
		}
		return all
	}
	from, to := names(&m.parent, o.Name), names(&m.branch, t.Name)
	common := 0
	for _, n := range to {
		for _, w := range from {
			if n == w {
				common++
			}
		}
	}
	if common == 0 || a == "rtree" && (common != len(to) || common != len(from)) {
		return "its columns are others"
	}
	return ""
}

// fill builds the index of an FTS5 table whose text is in a table of the target, and says of others that they are empty. why is "" for one that is new.
func (m *merger) fill(t *Object, why string) error {
	if moduleOf(t) == "fts5" {
		content, own := contentOf(t)
		if !own && content != "" {
			err := m.attempt(func() error { return m.dof("INSERT INTO %[1]s(%[1]s) VALUES('rebuild')", sqlite.Quote(t.Name)) })
			if err == nil || m.w.ctx.Err() != nil {
				return m.w.ctx.Err()
			}
			m.warn("virtual table %s is empty: it can't be filled from %s: %s", sqlite.Quote(t.Name), sqlite.Quote(content), message(err))
			return nil
		}
		if !own && why == "" {
			m.warn("virtual table %s keeps no text of its own: it is empty until it is written to", sqlite.Quote(t.Name))
		}
	}
	if why != "" {
		m.warn("virtual table %s is made anew and is empty: %s", sqlite.Quote(t.Name), why)
	}
	return nil
}
