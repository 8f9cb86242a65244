package schema

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// Origin is what a table of the branch was at the fork.
type Origin struct {
	Table string // its name
	// Columns are the names that its columns had, by those that they have now. One that was added since isn't there.
	Columns map[string]string
}

// Origins are those of a branch's tables, by their names now. A table that was made since isn't there.
type Origins map[string]Origin

// renamed tells whether anything has another name than it had.
func (o Origins) renamed() bool {
	for now, was := range o {
		if now != was.Table {
			return true
		}
		for now, then := range was.Columns {
			if now != then {
				return true
			}
		}
	}
	return false
}

// move is a name that a table or column got on the branch.
type move struct{ from, to string }

// moves are the renamings of a branch's tables, or of the columns of one. They can be carried out one by one in chains, the last move first (a is b now, and what was b is c): each
// gives a name that nobody has. In a ring (a and b changed names) one has to step aside.
type moves struct{ chains, rings [][]move }

// movesOf puts moves in order. No two have one name in common at the same end.
func movesOf(all []move) (m moves) {
	slices.SortFunc(all, func(a, b move) int { return strings.Compare(a.from, b.from) })
	byTo := map[string]move{}
	froms := map[string]bool{}
	for _, v := range all {
		byTo[fold(v.to)] = v
		froms[fold(v.from)] = true
	}
	follow := func(v move) (line []move) {
		for {
			line = append(line, v)
			delete(byTo, fold(v.to))
			next, ok := byTo[fold(v.from)]
			if !ok {
				return line
			}
			v = next
		}
	}
	for _, v := range all {
		if !froms[fold(v.to)] {
			m.chains = append(m.chains, follow(v))
		}
	}
	for _, v := range all {
		if _, left := byTo[fold(v.to)]; left {
			m.rings = append(m.rings, follow(v))
		}
	}
	return m
}

// around is a ring by way of a name that nobody has.
func around(ring []move, aside string) []move {
	last := ring[len(ring)-1]
	line := append([]move{{last.from, aside}}, ring[:len(ring)-1]...)
	return append(line, move{aside, last.to})
}

// fate is what becomes of a chain or ring on the parent.
type fate string

const (
	pending  fate = ""     // it is to be carried out
	finished fate = "done" // the parent has it: an earlier merge did it, or the parent itself
	// The others are conflicts, and say why.
	taken   fate = "the parent has given the name to another"
	missing fate = "the parent has removed or renamed it"
	unclear fate = "whether the parent has that already can't be told by the names"
	changed fate = "the parent has changed what is affected"
)

// fateOf looks at a chain by the names that there are on each side.
func fateOf(chain []move, base, parent, branch func(name string) bool) fate {
	end, first := chain[0].to, chain[len(chain)-1].from
	switch {
	case !base(end) && !parent(end):
	case !base(end):
		if parent(first) && !branch(first) {
			return taken
		}
		return finished
	case !parent(first): // the branch removed what had the name, and so did the parent
		return finished
	case branch(first):
		return unclear
	}
	for _, v := range chain {
		if !parent(v.from) {
			return missing
		}
	}
	return pending
}

// follow carries out on the base, and where it is to be done on the parent, what the branch is known to have renamed. What is left is compared as if the fork had been made
// of the renamed schema: what the parent made meanwhile goes along, as ALTER TABLE rewrites it.
func (m *merger) follow(origins Origins) error {
	if err := m.followTables(origins); err != nil {
		return err
	}
	for _, now := range slices.Sorted(maps.Keys(origins)) {
		if err := m.followColumns(now, origins[now].Columns); err != nil {
			return err
		}
	}
	return nil
}

func (m *merger) followTables(origins Origins) error {
	var all []move
	for now, o := range origins {
		if o.Table != now && m.base.hasTable(o.Table) && m.branch.hasTable(now) {
			all = append(all, move{o.Table, now})
		}
	}
	if len(all) == 0 {
		return nil
	}
	if err := m.opened(); err != nil {
		return err
	}
	order := movesOf(all)
	for _, chain := range order.chains {
		c := carriage{line: chain, key: "o:" + fold(chain[0].to), rename: renameTable}
		// Whatever has the last name is in the way, a view too; what is renamed is a table.
		c.fate = fateOf(chain, m.base.has, func(name string) bool { return m.parent.hasTable(name) || name == chain[0].to && m.parent.has(name) }, m.branch.has)
		if end := m.base.byKey[c.key]; end != nil {
			c.dropBase = fmt.Sprintf("DROP %s %s", strings.ToUpper(end.Type), sqlite.Quote(end.Name))
			if there := m.parent.byKey[c.key]; there != nil && c.fate == pending {
				c.dropParent = c.dropBase
				switch {
				case !same(end, there):
					c.fate = changed
				case end.Type == "table":
					m.warnGone(end, true)
					m.lost[fold(end.Name)] = true
				}
			}
		}
		if done, err := m.carry(c); err != nil {
			return err
		} else if done {
			m.noteRenamed(chain)
		}
	}
	for _, ring := range order.rings {
		c := carriage{line: around(ring, m.temporary()), key: "o:" + fold(ring[0].to), rename: renameTable}
		var names []string
		for _, v := range ring {
			names = append(names, v.to)
		}
		c.fate = m.fateOfRing(names)
		if done, err := m.carry(c); err != nil {
			return err
		} else if done {
			m.noteRenamed(c.line)
		}
	}
	return nil
}

// followColumns does with the columns of one table what followTables does with tables.
func (m *merger) followColumns(table string, columns map[string]string) error {
	k := "o:" + fold(table)
	if m.conflicting(k) {
		return nil
	}
	var all []move
	for now, then := range columns {
		if now != then {
			all = append(all, move{then, now})
		}
	}
	base, parent, branch := m.base.byKey[k], m.parent.byKey[k], m.branch.byKey[k]
	for _, o := range []*Object{base, parent, branch} {
		if o == nil || o.Type != "table" || moduleOf(o) != "" {
			return nil
		}
	}
	m.warnBack(base, branch, columns)
	if len(all) == 0 {
		return nil
	}
	if err := m.opened(); err != nil {
		return err
	}
	var has [3]func(string) bool
	for i, s := range []*side{&m.base, &m.parent, &m.branch} {
		f, err := s.facts(table)
		if err != nil {
			return err
		}
		has[i] = func(name string) bool { return f.find(name) != nil }
	}
	all = slices.DeleteFunc(all, func(v move) bool { return !has[0](v.from) || !has[2](v.to) })
	order := movesOf(all)
	rename := func(from, to string) string { return renameColumn(parent.Name, from, to) }
	ringFate := m.fateOfRing([]string{table}) // as the table was before anything moved
	for _, chain := range order.chains {
		end := chain[0].to
		c := carriage{line: chain, key: k, rename: rename, fate: fateOf(chain, has[0], has[1], has[2])}
		if has[0](end) {
			c.dropBase = dropColumn(parent.Name, end)
			if has[1](end) && c.fate == pending {
				c.dropParent = c.dropBase
				if sameColumn(base, parent, end) {
					m.warnColumns(parent.Name, []string{end}, nil)
				} else {
					c.fate = changed
				}
			}
		}
		if _, err := m.carry(c); err != nil {
			return err
		}
	}
	for _, ring := range order.rings {
		if _, err := m.carry(carriage{line: around(ring, m.temporary()), key: k, rename: rename, fate: ringFate}); err != nil {
			return err
		}
	}
	return nil
}

// warnBack warns of columns that the branch removed and made anew. On the parent they can't be told from what a merge has made of them already, so their values stay.
func (m *merger) warnBack(base, branch *Object, columns map[string]string) {
	was, ok1 := parseTable(base.SQL)
	is, ok2 := parseTable(branch.SQL)
	if !ok1 || !ok2 {
		return
	}
	left := map[string]bool{} // names at the fork of columns that are still there
	for _, then := range columns {
		left[fold(then)] = true
	}
	for _, c := range is.columns {
		if _, old := columns[c.name]; !old && was.has(c.name) >= 0 && !left[fold(c.name)] {
			m.warn("table %s: column %s was removed and added again on the branch; the parent's keeps its values", sqlite.Quote(branch.Name), sqlite.Quote(c.name))
		}
	}
}

// sameColumn tells whether two tables define a column alike.
func sameColumn(a, b *Object, name string) bool {
	x, ok1 := parseTable(a.SQL)
	y, ok2 := parseTable(b.SQL)
	if !ok1 || !ok2 {
		return same(a, b)
	}
	i, j := x.has(name), y.has(name)
	return i >= 0 && j >= 0 && x.columns[i].def == y.columns[j].def
}

// fateOfRing tells by the definitions of tables, since all names are there before and after.
func (m *merger) fateOfRing(tables []string) fate {
	before, after := true, true
	for _, name := range tables {
		k := "o:" + fold(name)
		before = before && same(m.base.byKey[k], m.parent.byKey[k])
		after = after && same(m.parent.byKey[k], m.branch.byKey[k])
	}
	switch {
	case before && after:
		return unclear
	case before:
		return pending
	case after:
		return finished
	}
	return changed
}

// noteRenamed remembers what the parent's tables were called, for who compares it as it was with what it becomes.
func (m *merger) noteRenamed(line []move) {
	for _, v := range line {
		from, to := "o:"+fold(v.from), "o:"+fold(v.to)
		was, ok := m.renamed[from]
		if !ok {
			was = from
		}
		delete(m.renamed, from)
		m.renamed[to] = was
	}
}

// carriage is a line of moves to be carried out, and what makes way for it first.
type carriage struct {
	key                  string // of what is told to be in conflict
	line                 []move
	fate                 fate
	dropBase, dropParent string // "" for nothing
	rename               func(from, to string) string
}

// carry carries out a line of moves by its fate, and tells whether it did so on the parent.
func (m *merger) carry(c carriage) (bool, error) {
	var moved []string
	for _, v := range c.line {
		moved = append(moved, c.rename(v.from, v.to))
	}
	with := func(drop string) []string {
		if drop == "" {
			return moved
		}
		return append([]string{drop}, moved...)
	}
	var onParent []string
	switch c.fate {
	case pending:
		onParent = with(c.dropParent)
	case finished:
	default:
		m.conflict(c.key, fmt.Sprintf("%s was renamed %s on the branch, and %s", sqlite.Quote(c.line[len(c.line)-1].from), sqlite.Quote(c.line[0].to), c.fate))
		return false, nil
	}
	refused, err := m.alterSides(onParent, with(c.dropBase))
	for _, clear := range []func(*Object) bool{
		func(now *Object) bool { return now == nil },
		func(now *Object) bool { return now == nil || now.Type == "view" || now.Type == "trigger" },
	} {
		if err != nil || refused == nil {
			break
		}
		if err = m.clearWay(clear); err == nil {
			refused, err = m.alterSides(onParent, with(c.dropBase))
		}
	}
	m.refuse(c.key, refused)
	return err == nil && refused == nil && c.fate == pending, err
}

// clearWay takes away on base and parent what could be in the way of a renaming, and is another thing, or nothing, on the branch: which of it goes is told by what it is there.
// It is made anew with all that is missing.
func (m *merger) clearWay(goes func(now *Object) bool) error {
	for _, kind := range []string{"trigger", "view", "index"} {
		for _, o := range slices.Clone(m.base.objects) {
			now, there := m.branch.byKey[o.key()], m.parent.byKey[o.key()]
			if o.Type != kind || !goes(now) || same(&o, now) || !same(&o, there) && !same(now, there) {
				continue
			}
			drop := []string{fmt.Sprintf("DROP %s %s", strings.ToUpper(o.Type), sqlite.Quote(o.Name))}
			onParent := drop
			if !same(&o, there) {
				onParent = nil // it is there as it is on the branch already
			}
			if refused, err := m.alterSides(onParent, drop); err != nil || refused != nil {
				return errors.Join(err, refused)
			}
		}
	}
	return nil
}
