package rows

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// op is what is done to a row of the parent.
type op uint8

const (
	doDelete op = iota
	doUpdate
	doInsert
	again // an update that met another row's unique value: the row is deleted, and inserted when the others have theirs
)

// step is one row of the plan.
type step struct {
	op      op
	pair    int
	plain   bool
	key     []sqlite.Value // the parent's row's; of doInsert the branch's
	rowid   int64
	indexed uint64
	old     []sqlite.Value // the parent's row
	new     []sqlite.Value // of the pair's common columns
}

// pair is a table on both sides.
type pair struct {
	branch, parent *table // parent is nil where it has none
	common         []column
}

// column is one that both sides have: where it stands in each.
type column struct{ branch, parent int }

// merge is one merge under way.
type merge struct {
	*Changes
	side   *side
	opt    Options
	result *Result
	pairs  []*pair
	plan   *spool
	refs   map[string][]reference // by the folded name of the table that is referred to
	own    map[string][]reference // by the one that refers
}

// Merge brings a branch's changes into the parent, within the parent's transaction. After an error, ErrConflict too, the caller undoes what was written.
func Merge(parent DB, c *Changes, opt Options) (*Result, error) {
	if opt.Max <= 0 {
		opt.Max = 100
	}
	s, err := newSide(parent)
	if err != nil {
		return nil, err
	}
	defer s.close()
	m := &merge{Changes: c, side: s, opt: opt, result: &Result{Skipped: slices.Clone(c.dropped)}, plan: newSpool(opt.Dir)}
	defer m.plan.close()
	if err := m.pair(); err != nil {
		return nil, err
	}
	if err := m.compare(); err != nil {
		return nil, err
	}
	if m.result.ConflictCount > 0 && opt.OnConflict == Abort && !opt.Preview {
		return m.result, ErrConflict
	}
	if opt.Preview {
		return m.result, nil
	}
	if err := m.apply(); err != nil {
		return nil, err
	}
	if m.result.ConflictCount > 0 && m.blocked() {
		return m.result, ErrConflict
	}
	return m.result, m.sequences()
}

// blocked tells whether the parent can't take what was planned, whoever wins.
func (m *merge) blocked() bool {
	return slices.ContainsFunc(m.result.Conflicts, func(c Conflict) bool { return c.Reason == Constraint || c.Reason == ForeignKey })
}

// pair finds the parent's tables.
func (m *merge) pair() error {
	for _, t := range m.tables {
		p := &pair{branch: t}
		m.pairs = append(m.pairs, p)
		other, err := m.side.table(t.name)
		if err != nil {
			return err
		}
		if other == nil {
			m.result.Skipped = append(m.result.Skipped, t.name)
			continue
		}
		if other.kind != t.kind || !slices.EqualFunc(t.keyNames(), other.keyNames(), strings.EqualFold) || !slices.Equal(t.colls, other.colls) {
			return &Problem{Table: t.name, Message: "its primary key is another one than the parent's"}
		}
		p.parent = other
		for i, name := range t.columns {
			if j := slices.IndexFunc(other.columns, func(o string) bool { return strings.EqualFold(o, name) }); j >= 0 {
				p.common = append(p.common, column{i, j})
			}
		}
		if t.key == nil && t.kind == ordinary {
			m.result.ByRowid = append(m.result.ByRowid, t.name)
		}
	}
	return nil
}

// compare looks at the three versions of each row and plans.
func (m *merge) compare() error {
	return m.spool.each(func(frame []byte) error {
		c, err := m.decode(frame)
		if err != nil {
			return err
		}
		p := m.pairs[c.table]
		if p.parent == nil {
			return nil
		}
		base, branch := p.ofBranch(c.base), p.ofBranch(c.branch)
		if equal(base, branch) {
			return nil // in columns that the parent doesn't have
		}
		row, err := m.side.find(p.parent, c.key, c.plain)
		if err != nil {
			return err
		}
		var full, parent []sqlite.Value
		if row != nil {
			full, parent = row.values, p.ofParent(row.values)
		}
		if equal(parent, branch) {
			return nil
		}
		if !equal(parent, base) {
			reason := BothChanged
			switch {
			case branch == nil || parent == nil:
				reason = Deleted
			case base == nil:
				reason = BothInserted
			}
			if m.result.ConflictCount++; len(m.result.Conflicts) < m.opt.Max {
				m.result.Conflicts = append(m.result.Conflicts, p.conflict(c.key, c.plain, base, branch, parent, reason, ""))
			}
			if m.opt.OnConflict != Theirs {
				return nil
			}
		}
		s := step{pair: c.table, plain: c.plain, key: c.key, rowid: c.rowid, indexed: c.indexed, old: full, new: branch}
		if row != nil {
			s.rowid = row.rowid
			s.key, s.plain = p.parent.keyOf(row)
		}
		switch {
		case branch == nil:
			s.op = doDelete
			m.result.Deleted++
		case row == nil:
			s.op = doInsert
			m.result.Inserted++
		default:
			s.op = doUpdate
			m.result.Updated++
		}
		return m.plan.add(s.encode())
	})
}

// conflict is a conflict of a row, with memory of its own.
func (p *pair) conflict(key []sqlite.Value, plain bool, base, branch, parent []sqlite.Value, reason Reason, message string) Conflict {
	c := Conflict{Table: p.parent.name, KeyColumns: p.parent.keyNames(), Key: clone(key), Base: clone(base), Branch: clone(branch), Parent: clone(parent), Reason: reason, Message: message}
	if !plain {
		c.KeyColumns = []string{"rowid"}
	}
	for _, col := range p.common {
		c.Columns = append(c.Columns, p.parent.columns[col.parent])
	}
	return c
}

func clone(values []sqlite.Value) []sqlite.Value {
	out := slices.Clone(values)
	for i := range out {
		out[i].Bytes = slices.Clone(out[i].Bytes)
	}
	return out
}

// ofBranch are the values of the common columns; nil for no row.
func (p *pair) ofBranch(values []sqlite.Value) []sqlite.Value {
	if values == nil {
		return nil
	}
	out := make([]sqlite.Value, len(p.common))
	for i, c := range p.common {
		out[i] = values[c.branch]
	}
	return out
}

func (p *pair) ofParent(values []sqlite.Value) []sqlite.Value {
	out := make([]sqlite.Value, len(p.common))
	for i, c := range p.common {
		out[i] = values[c.parent]
	}
	return out
}

// equal compares two versions of a row, of which each may be none.
func equal(a, b []sqlite.Value) bool {
	return (a == nil) == (b == nil) && slices.EqualFunc(a, b, same)
}

func (s *step) encode() []byte {
	b := []byte{byte(s.op), 0}
	if s.plain {
		b[1] |= 1
	}
	if s.old != nil {
		b[1] |= 2
	}
	if s.new != nil {
		b[1] |= 4
	}
	b = binary.AppendUvarint(b, uint64(len(s.key)))
	b = binary.AppendUvarint(b, uint64(s.pair))
	b = binary.AppendVarint(b, s.rowid)
	b = binary.AppendUvarint(b, s.indexed)
	return store.AppendValues(b, slices.Concat(s.key, s.old, s.new)...)
}

func (m *merge) decodeStep(b []byte) (s step, err error) {
	flags := b[1]
	s = step{op: op(b[0]), plain: flags&1 != 0}
	b = b[2:]
	keys, size := binary.Uvarint(b)
	b = b[size:]
	n, size := binary.Uvarint(b)
	b = b[size:]
	s.pair = int(n)
	s.rowid, size = binary.Varint(b)
	b = b[size:]
	s.indexed, size = binary.Uvarint(b)
	values, err := store.ParseValues(b[size:])
	if err != nil {
		return s, err
	}
	p := m.pairs[s.pair]
	want := int(keys)
	if flags&2 != 0 {
		want += len(p.parent.columns)
	}
	if flags&4 != 0 {
		want += len(p.common)
	}
	if len(values) != want {
		return s, errFrame
	}
	s.key, values = values[:keys], values[keys:]
	if flags&2 != 0 {
		s.old, values = values[:len(p.parent.columns)], values[len(p.parent.columns):]
	}
	if flags&4 != 0 {
		s.new = values
	}
	return s, nil
}

// steps goes through a plan's steps of one kind.
func (m *merge) steps(plan *spool, f func(p *pair, s *step) error, ops ...op) error {
	return plan.each(func(frame []byte) error {
		if !slices.Contains(ops, op(frame[0])) {
			return nil
		}
		s, err := m.decodeStep(frame)
		if err != nil {
			return err
		}
		return f(m.pairs[s.pair], &s)
	})
}

// refused tells whether an error is the parent's constraints', which is a conflict to be told and no failure.
func (m *merge) refused(p *pair, s *step, err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) || e.Code.Primary() != sqlite.CodeConstraint {
		return false
	}
	m.block(p, s, Constraint, e.Message)
	return true
}

func (m *merge) block(p *pair, s *step, reason Reason, message string) {
	var parent []sqlite.Value
	if s.old != nil {
		parent = p.ofParent(s.old)
	}
	if m.result.ConflictCount++; len(m.result.Conflicts) >= m.opt.Max {
		m.result.Conflicts = m.result.Conflicts[:m.opt.Max-1] // this one ends the merge
	}
	m.result.Conflicts = append(m.result.Conflicts, p.conflict(s.key, s.plain, nil, s.new, parent, reason, message))
}

// apply carries the plan out: deletions, updates, insertions. An update that meets a unique value which another row still has waits, as a deletion and an
// insertion: in the end the rows that stay are those that were planned, so only what they themselves violate is left as a conflict.
func (m *merge) apply() error {
	if err := m.references(); err != nil {
		return err
	}
	if err := m.steps(m.plan, func(p *pair, s *step) error {
		return m.change(p, s, m.deleteSQL(p, s), s.key)
	}, doDelete); err != nil {
		return err
	}
	later := newSpool(m.opt.Dir)
	defer later.close()
	if err := m.steps(m.plan, func(p *pair, s *step) error {
		set := make([]string, len(p.common))
		for i, c := range p.common {
			set[i] = sqlite.Quote(p.parent.columns[c.parent]) + "=?"
		}
		sql := "UPDATE OR ABORT main." + sqlite.Quote(p.parent.name) + " SET " + strings.Join(set, ", ") + " WHERE " + p.parent.where("", s.plain)
		err := m.change(p, s, sql, slices.Concat(s.new, s.key))
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Code.Primary() != sqlite.CodeConstraint {
			return err
		}
		s.op = again
		if err := m.change(p, s, m.deleteSQL(p, s), s.key); err != nil {
			return err
		}
		return later.add(s.encode())
	}, doUpdate); err != nil {
		return err
	}
	insert := func(p *pair, s *step) error {
		err := m.insert(p, s)
		if err != nil && m.refused(p, s, err) {
			return nil
		}
		return err
	}
	if err := m.steps(later, insert, again); err != nil {
		return err
	}
	if err := m.steps(m.plan, insert, doInsert); err != nil {
		return err
	}
	if m.blocked() {
		return nil
	}
	return m.checkReferences()
}

func (m *merge) deleteSQL(p *pair, s *step) string {
	return "DELETE FROM main." + sqlite.Quote(p.parent.name) + " WHERE " + p.parent.where("", s.plain)
}

// change deletes or updates a row, and has what indexes it follow.
func (m *merge) change(p *pair, s *step, sql string, params []sqlite.Value) error {
	had, err := m.unindex(p, s)
	if err != nil {
		return err
	}
	_, err = m.side.run(sql, params, nil)
	switch {
	case err != nil: // the row is as it was
		if ierr := m.index(p, s.rowid, had); ierr != nil {
			return ierr
		}
	case s.op == doUpdate:
		return m.index(p, s.rowid, p.indexed(s, had))
	}
	return err
}

// insert adds a row: all of its columns if it was the parent's before, else those that the branch has.
func (m *merge) insert(p *pair, s *step) error {
	t := p.parent
	var names []string
	var values []sqlite.Value
	if t.rowid != "" && t.alias < 0 {
		rowid := intValue(s.rowid)
		if s.op == doInsert && t.key != nil {
			// Where the primary key is another one the rowid has no meaning, but FTS5 may know the row by it: it is kept if it can be.
			taken, err := m.side.at(t, s.rowid)
			if err != nil {
				return err
			}
			if taken != nil {
				rowid = sqlite.Value{}
			}
		}
		names, values = append(names, t.rowid), append(values, rowid)
	}
	if s.op == again {
		full := slices.Clone(s.old)
		for i, c := range p.common {
			full[c.parent] = s.new[i]
		}
		for i, c := range t.columns {
			names, values = append(names, sqlite.Quote(c)), append(values, full[i])
		}
	} else {
		for i, c := range p.common {
			names, values = append(names, sqlite.Quote(t.columns[c.parent])), append(values, s.new[i])
		}
	}
	r, err := m.side.run("INSERT OR ABORT INTO main."+sqlite.Quote(t.name)+"("+strings.Join(names, ", ")+") VALUES(?"+strings.Repeat(", ?", len(values)-1)+")", values, nil)
	if err != nil {
		return err
	}
	rowid := s.rowid
	if t.rowid != "" && len(t.indexes) > 0 && t.alias < 0 && values[0].Kind == sqlite.Null {
		rowid = r.LastInsertRowid
	}
	return m.index(p, rowid, p.indexed(s, 0))
}

// indexed are the FTS5 tables that shall have a row: those of the branch that have it there, and those of the parent alone that had it.
func (p *pair) indexed(s *step, had uint64) (want uint64) {
	for i, name := range p.parent.indexes {
		bit := had & (1 << i)
		if j := slices.IndexFunc(p.branch.indexes, func(o string) bool { return strings.EqualFold(o, name) }); j >= 0 {
			bit = s.indexed >> j & 1 << i
		}
		want |= bit
	}
	return want
}

// unindex takes a row out of the FTS5 tables that index its table, and tells which had it. That takes the words that were indexed: it comes before any change.
func (m *merge) unindex(p *pair, s *step) (indexed uint64, err error) {
	for i, name := range p.parent.indexes {
		has := false
		_, err := m.side.run("SELECT 1 FROM main."+sqlite.Quote(name+"_docsize")+" WHERE id=?", []sqlite.Value{intValue(s.rowid)}, func(*sqlite.Stmt) error { has = true; return nil })
		if err != nil {
			return 0, err
		}
		if !has {
			continue
		}
		indexed |= 1 << i
		if err := m.command(p, name, "'delete'", s.rowid); err != nil {
			return 0, err
		}
	}
	return indexed, nil
}

// index puts a row into FTS5 tables.
func (m *merge) index(p *pair, rowid int64, indexed uint64) error {
	for i, name := range p.parent.indexes {
		if indexed&(1<<i) == 0 {
			continue
		}
		if err := m.command(p, name, "", rowid); err != nil {
			return err
		}
	}
	return nil
}

// command has an FTS5 table take a row of its content in, or forget it.
func (m *merge) command(p *pair, index, command string, rowid int64) error {
	var columns []string
	_, err := m.side.run("SELECT name FROM pragma_table_xinfo(?) WHERE hidden=0 ORDER BY cid", []sqlite.Value{textValue(index)}, func(st *sqlite.Stmt) error {
		columns = append(columns, sqlite.Quote(text(st, 0)))
		return nil
	})
	if err != nil {
		return err
	}
	list := strings.Join(columns, ", ")
	into, from := "rowid, "+list, p.parent.rowid+", "+list
	if command != "" {
		into, from = sqlite.Quote(index)+", "+into, command+", "+from
	}
	_, err = m.side.run("INSERT INTO main."+sqlite.Quote(index)+"("+into+") SELECT "+from+" FROM main."+sqlite.Quote(p.parent.name)+" WHERE "+p.parent.rowid+"=?", []sqlite.Value{intValue(rowid)}, nil)
	return err
}

// sequences has AUTOINCREMENT give no number that the branch has given.
func (m *merge) sequences() error {
	for _, p := range m.pairs {
		seq, ok := m.Changes.sequences[p.branch.name]
		if !ok || p.parent == nil || !p.parent.counts {
			continue
		}
		name := []sqlite.Value{textValue(p.parent.name), intValue(seq)}
		found := false
		if _, err := m.side.run("SELECT 1 FROM main.sqlite_sequence WHERE name=?", name[:1], func(*sqlite.Stmt) error { found = true; return nil }); err != nil {
			return err
		}
		sql := "INSERT INTO main.sqlite_sequence(name, seq) VALUES(?1, ?2)"
		if found {
			sql = "UPDATE main.sqlite_sequence SET seq=max(seq, ?2) WHERE name=?1 AND seq<?2"
		}
		if _, err := m.side.run(sql, name, nil); err != nil {
			return err
		}
	}
	return nil
}
