package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// message is SQLite's own words.
func message(err error) string {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}

// verify looks whether what was chosen from two sides fits together: SQLite must take every object, and what works where it comes from must
// work here. It returns what SQLite took.
func (m *merger) verify(target []Object) ([]Object, error) {
	if m.parentUntouched() {
		// Then the target is the branch, and whatever doesn't work there is the branch's own.
		return target, m.judge(m.branch.sketch, target)
	}
	want := index(target)
	kept := target[:0:0]
	for i := range target {
		o := &target[i]
		if on := want["o:"+fold(o.Table)]; (o.Type == "index" || o.Type == "trigger") && (on == nil || on.Type == "index") {
			m.conflict(o.key(), fmt.Sprintf("its table %s was removed on the %s", sqlite.Quote(o.Table), m.without("o:"+fold(o.Table))))
			continue
		}
		kept = append(kept, *o)
	}
	failed := map[string]bool{}
	s, err := m.w.load(kept, func(o *Object, err error) {
		failed[o.key()] = true
		m.conflict(o.key(), "it doesn't fit what the other side changed: "+message(err))
	})
	if err != nil {
		return nil, err
	}
	target = kept[:0:0]
	for i := range kept {
		if !failed[kept[i].key()] {
			target = append(target, kept[i])
		}
	}
	return target, m.judge(s, target)
}

// parentUntouched tells whether the parent is to the letter what the base is.
func (m *merger) parentUntouched() bool {
	if len(m.base.byKey) != len(m.parent.byKey) {
		return false
	}
	for k, o := range m.parent.byKey {
		if b := m.base.byKey[k]; b == nil || *b != *o {
			return false
		}
	}
	return true
}

// judge compares what doesn't work in the target with what didn't before.
func (m *merger) judge(s *sketch, target []Object) error {
	ailing, err := m.w.examine(s, target)
	if err != nil || len(ailing) == 0 {
		return err
	}
	for i := range target {
		o := &target[i]
		k := o.key()
		if ailing[k].degree == sound {
			continue
		}
		worse, fresh := true, true
		for _, side := range []*side{&m.parent, &m.branch} {
			if !same(side.byKey[k], o) {
				continue
			}
			ails, err := m.ails(side)
			if err != nil {
				return err
			}
			if ails[k].degree >= ailing[k].degree {
				worse = false
				fresh = fresh && side != &m.parent
			}
		}
		switch {
		case worse:
			m.conflict(k, "it doesn't work with what the other side changed: "+ailing[k].why)
		case fresh && ailing[k].degree == broken:
			m.warn("%s %s doesn't work any more, as on the branch: %s", o.Type, sqlite.Quote(o.Name), ailing[k].why)
		}
	}
	return nil
}

// without names the side that hasn't got an object.
func (m *merger) without(k string) string {
	if m.parent.byKey[k] == nil {
		return "parent"
	}
	return "branch"
}

// ailment is what doesn't work about an object that SQLite keeps all the same.
type ailment struct {
	degree degree
	why    string
}

type degree int

const (
	sound  degree = iota
	loose         // it works, for a "name" of it is the name of nothing and SQLite takes that for a text
	broken        // it doesn't compile, or refers to nothing
)

// examine finds what SQLite keeps although it doesn't work: views and triggers that don't compile, foreign keys without a table or key to refer
// to, FTS5 tables whose text is in a table that isn't there. s has the objects.
func (w *workshop) examine(s *sketch, objects []Object) (map[string]ailment, error) {
	ailing := map[string]ailment{}
	strict := make([]Object, len(objects))
	for i, o := range objects {
		if o.Type != "table" {
			o.SQL = withoutTexts(o.SQL)
		}
		strict[i] = o
	}
	if !slices.Equal(strict, objects) {
		t, err := w.load(strict, func(o *Object, err error) { ailing[o.key()] = ailment{loose, message(err)} })
		if err != nil {
			return nil, err
		}
		defer w.dismiss(t)
		kept := slices.DeleteFunc(strict, func(o Object) bool { return ailing[o.key()].degree != sound })
		if err := t.look(kept, loose, ailing); err != nil {
			return nil, err
		}
		if len(ailing) == 0 {
			return ailing, nil
		}
	}
	return ailing, s.look(objects, broken, ailing)
}

// withoutTexts has all names in quotes that can't be texts.
func withoutTexts(sql string) string {
	s, ok := lex(sql)
	if !ok || !strings.Contains(sql, `"`) {
		return sql
	}
	var b strings.Builder
	last := 0
	for i, t := range s.tokens {
		if t.kind == quoted && sql[t.start] == '"' {
			b.WriteString(sql[last:t.start])
			b.WriteString("`" + strings.ReplaceAll(s.name(i), "`", "``") + "`")
			last = t.end
		}
	}
	return b.String() + sql[last:]
}

// look notes what doesn't work in a schema.
func (s *sketch) look(objects []Object, as degree, ailing map[string]ailment) error {
	all := index(objects)
	triggers := map[string][]*Object{} // by the key of their table
	for i := range objects {
		o := &objects[i]
		if err := s.w.ctx.Err(); err != nil {
			return err
		}
		switch o.Type {
		case "view":
			if err := s.compiles("SELECT * FROM main." + sqlite.Quote(o.Name)); err != nil {
				ailing[o.key()] = ailment{as, message(err)}
			}
		case "trigger":
			triggers["o:"+fold(o.Table)] = append(triggers["o:"+fold(o.Table)], o)
		case "table":
			why, err := s.danglingTable(o, all)
			if err != nil {
				return err
			}
			if why != "" {
				ailing[o.key()] = ailment{as, why}
			}
		}
	}
	for k, list := range triggers {
		if all[k] == nil {
			continue
		}
		err := s.examineTriggers(all[k], list, func(o *Object, why string) { ailing[o.key()] = ailment{as, why} })
		if err != nil {
			return err
		}
	}
	return nil
}

// danglingTable is why a table refers to nothing, "" if it doesn't.
func (s *sketch) danglingTable(o *Object, all set) (string, error) {
	if module := moduleOf(o); module != "" {
		content, own := contentOf(o)
		if module == "fts5" && !own && content != "" && all["o:"+fold(content)] == nil {
			return fmt.Sprintf("its text is in %s, which isn't there", sqlite.Quote(content)), nil
		}
		return "", nil
	}
	if !mayRefer(o) {
		return "", nil
	}
	parents, err := s.parents(o.Name)
	if err != nil || len(parents) == 0 {
		return "", err
	}
	for _, p := range parents {
		if t := all["o:"+fold(p)]; t == nil || t.Type != "table" {
			return fmt.Sprintf("it refers to table %s, which isn't there", sqlite.Quote(p)), nil
		}
	}
	err = s.rows("PRAGMA main.foreign_key_check("+sqlite.Quote(o.Name)+")", func(*sqlite.Stmt) error { return nil })
	if err != nil {
		return message(err), s.w.ctx.Err()
	}
	return "", nil
}

// mayRefer tells, without a parser, whether a table can have a foreign key.
func mayRefer(o *Object) bool { return strings.Contains(upper(o.SQL), "REFERENCES") }

// examineTriggers compiles what the triggers of a table answer to. If that fails each is tried without the others: it is to blame for an error that isn't there without it.
func (s *sketch) examineTriggers(on *Object, list []*Object, note func(*Object, string)) error {
	if on.Type == "view" && s.compiles("SELECT * FROM main."+sqlite.Quote(on.Name)) != nil {
		return nil // the view is what ails
	}
	statements, err := s.edits(on)
	if err != nil {
		return err
	}
	whole := on.Type == "table" // of a view those that no trigger answers to fail
	for _, sql := range statements {
		whole = whole && s.compiles(sql) == nil
	}
	if whole {
		return nil
	}
	return s.try(false, func() error {
		for _, o := range list {
			if err := s.run("DROP TRIGGER main." + sqlite.Quote(o.Name)); err != nil {
				return err
			}
		}
		without := make([]string, len(statements))
		for i, sql := range statements {
			if err := s.compiles(sql); err != nil {
				without[i] = message(err)
			}
		}
		for _, o := range list {
			if err := s.run(o.SQL); err != nil {
				return err
			}
			for i, sql := range statements {
				if err := s.compiles(sql); err != nil && message(err) != without[i] {
					note(o, message(err))
				}
			}
			if err := s.run("DROP TRIGGER main." + sqlite.Quote(o.Name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// edits are an INSERT, an UPDATE of every column and a DELETE.
func (s *sketch) edits(on *Object) ([]string, error) {
	f, err := s.facts(on.Name)
	if err != nil {
		return nil, err
	}
	var sets []string
	for _, c := range f.columns {
		if c.hidden == 0 {
			sets = append(sets, sqlite.Quote(c.name)+"="+sqlite.Quote(c.name))
		}
	}
	name := "main." + sqlite.Quote(on.Name)
	return []string{"INSERT INTO " + name + " DEFAULT VALUES", "UPDATE " + name + " SET " + strings.Join(sets, ","), "DELETE FROM " + name}, nil
}
