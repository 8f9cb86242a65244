package store

import (
	"encoding/binary"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// What an actor remembers of the changes of its open transaction, for those who listen. See DESIGN.md, "The journal".

const (
	// requestBytes is how many bytes of changes a request may have before they are told as its tables alone, and groupBytes how many all of a group may.
	// A value of SQLite's has 16 MB at most.
	requestBytes = 4 << 20
	groupBytes   = 10 << 20
)

// journal takes what changes in a database that somebody listens to. The worker's; a nil one takes nothing.
type journal struct {
	conn  *sqlite.Conn
	limit int // changes of a request

	head      int64 // the number of the last committed change
	until     int64 // Unix ms up to which it listens, and
	rowsUntil int64 // takes the values of rows
	rows      bool

	tables map[string]*heardTable
	list   []*heardTable // as the entries number them
	buf    []byte        // the entries of the open transaction
	count  int64

	request, step, statement place
	plain                    hearing // of a statement that names no more than the rows that it changes
	own                      bool    // a statement of the server's own runs, which may write the content of virtual tables itself
	collapsed                bool    // of this request only tables are told

	unswept int // commits since the last sweep
	bytes   int64
	summed  bool // bytes is known
}

func newJournal(s *Store, conn *sqlite.Conn) *journal {
	j := &journal{conn: conn, limit: s.opt.FeedChanges, tables: map[string]*heardTable{}}
	j.plain.j = j
	return j
}

// place is a point in the entries, to go back to.
type place struct {
	bytes int
	count int64
}

// heardTable is a table as the journal tells of it.
type heardTable struct {
	name     string
	owner    string // the virtual table that keeps its content in it
	skip     bool
	number   int
	key      []int
	keyNames []string
	columns  []int
	names    []string
	// unknown is where the entry is that says of the table that nothing exact is known; -1 for none. It counts in a request of tables alone.
	unknown int
}

func (j *journal) here() place { return place{len(j.buf), j.count} }

// clear forgets the entries: the transaction is over, or has not begun.
func (j *journal) clear() {
	if j == nil {
		return
	}
	if cap(j.buf) > 1<<20 {
		j.buf = nil
	}
	for _, t := range j.list {
		t.number, t.unknown = -1, -1
	}
	clear(j.list)
	j.buf, j.count, j.list = j.buf[:0], 0, j.list[:0]
	j.request, j.step, j.statement, j.collapsed = place{}, place{}, place{}, false
}

// forget is called when the schema may have changed.
func (j *journal) forget() {
	if j != nil {
		clear(j.tables)
	}
}

// cut goes back to a place.
func (j *journal) cut(to place) {
	j.buf, j.count = j.buf[:to.bytes], to.count
	for _, t := range j.list {
		if t.unknown >= to.bytes {
			t.unknown = -1
		}
	}
	clear(j.tables)
}

func (j *journal) beginRequest() {
	if j == nil {
		return
	}
	j.request = j.here()
	j.step, j.statement, j.collapsed = j.request, j.request, false
	for _, t := range j.list {
		t.unknown = -1
	}
}

func (j *journal) beginStep() {
	if j != nil {
		j.step = j.here()
		j.statement = j.step
	}
}

func (j *journal) undoStep() {
	if j != nil {
		j.cut(j.step)
	}
}

func (j *journal) undoRequest() {
	if j != nil {
		j.cut(j.request)
	}
}

// note is the hook: a row is about to change.
func (j *journal) note(ch *sqlite.Change) {
	t := j.tables[ch.Table]
	if t == nil {
		t = j.learn(ch)
	}
	if t.skip || ch.Schema != "main" {
		return
	}
	if t.owner != "" {
		// A client's statement is known by the tables that it names: FTS5 writes much later than it is written to.
		if j.own {
			j.table(t.owner, UnknownChange)
		}
		return
	}
	if j.collapsed {
		j.unknown(t)
		return
	}
	switch ch.Op {
	case sqlite.Insert:
		j.add(t, InsertChange, ch.NewRowid, ch.New, ch.New, nil)
	case sqlite.Delete:
		j.add(t, DeleteChange, ch.OldRowid, ch.Old, nil, ch.Old)
	case sqlite.Update:
		if j.moves(t, ch) {
			j.add(t, DeleteChange, ch.OldRowid, ch.Old, nil, ch.Old)
			j.add(t, InsertChange, ch.NewRowid, ch.New, ch.New, nil)
		} else {
			j.add(t, UpdateChange, ch.NewRowid, ch.New, ch.New, ch.Old)
		}
	}
	if j.count-j.request.count > int64(j.limit) || len(j.buf)-j.request.bytes > requestBytes || len(j.buf) > groupBytes {
		j.collapse()
	}
}

// moves tells whether a row gets another key.
func (j *journal) moves(t *heardTable, ch *sqlite.Change) bool {
	if t.key == nil {
		return ch.OldRowid != ch.NewRowid
	}
	var was, is []byte
	for _, i := range t.key {
		v, ok := ch.Old(i)
		if !ok {
			return true
		}
		was = appendValue(was, plainNumber(v))
		if v, ok = ch.New(i); !ok {
			return true
		}
		is = appendValue(is, plainNumber(v))
	}
	return string(was) != string(is)
}

func (j *journal) learn(ch *sqlite.Change) *heardTable {
	name, s := strings.Clone(ch.Table), ch.Shape()
	t := &heardTable{name: name, number: -1, unknown: -1, key: s.Key}
	t.skip = reservedName(name)
	if s.Shadow {
		t.owner = sqlite.ShadowOf(name)
		t.skip = t.owner == ""
	}
	for _, i := range s.Key {
		t.keyNames = append(t.keyNames, s.Columns[i].Name)
	}
	for i, c := range s.Columns {
		if !c.Generated {
			t.columns = append(t.columns, i)
			t.names = append(t.names, c.Name)
		}
	}
	j.tables[name] = t
	return t
}

func reservedName(name string) bool { return len(name) >= 7 && strings.EqualFold(name[:7], "sqlite_") }

// put begins an entry.
func (j *journal) put(t *heardTable, head byte) []byte {
	if t.number < 0 {
		t.number = len(j.list)
		j.list = append(j.list, t)
	}
	return binary.AppendUvarint(append(j.buf, head), uint64(t.number))
}

// add takes one change of a row. Where SQLite can't tell a value, it is told that the table changed.
func (j *journal) add(t *heardTable, kind ChangeKind, rowid int64, key, now, old func(int) (sqlite.Value, bool)) {
	head := byte(kind)
	b := j.put(t, head)
	start := len(j.buf)
	if t.key == nil {
		head |= entryRowid
		b = binary.AppendVarint(b, rowid)
	} else {
		head |= entryKey
		var ok bool
		if b, ok = appendRow(b, t.key, key); !ok {
			j.unknown(t)
			return
		}
	}
	if j.rows {
		for _, part := range []struct {
			bit byte
			row func(int) (sqlite.Value, bool)
		}{{entryNew, now}, {entryOld, old}} {
			if part.row == nil {
				continue
			}
			head |= part.bit
			var ok bool
			if b, ok = appendRow(b, t.columns, part.row); !ok {
				j.unknown(t)
				return
			}
		}
	}
	b[start] = head
	j.buf = b
	j.count++
}

// appendRow appends values behind the bytes that they take.
func appendRow(b []byte, columns []int, value func(int) (sqlite.Value, bool)) ([]byte, bool) {
	var row []byte
	for _, i := range columns {
		v, ok := value(i)
		if !ok {
			return b, false
		}
		row = appendValue(row, v)
	}
	b = binary.AppendUvarint(b, uint64(len(row)))
	return append(b, row...), true
}

// unknown notes that rows of a table changed, once in a request of tables alone.
func (j *journal) unknown(t *heardTable) {
	if j.collapsed && t.unknown >= 0 {
		return
	}
	at := len(j.buf)
	j.buf = j.put(t, byte(UnknownChange))
	t.unknown = at
	j.count++
}

// table notes what happened to a table by its name.
func (j *journal) table(name string, kind ChangeKind) {
	if reservedName(name) {
		return
	}
	var t *heardTable
	for _, l := range j.list {
		if strings.EqualFold(l.name, name) {
			t = l
			break
		}
	}
	if t == nil {
		t = &heardTable{name: strings.Clone(name), number: -1, unknown: -1}
	}
	if kind == UnknownChange {
		if t.unknown < 0 || t.unknown < j.statement.bytes && !j.collapsed {
			j.unknown(t)
		}
		return
	}
	j.buf = j.put(t, byte(kind))
	j.count++
}

// entries calls f for the table and the kind of each entry from one place up to another.
func (j *journal) entries(from, to place, f func(t *heardTable, kind ChangeKind)) {
	p := parser{b: j.buf[from.bytes:to.bytes]}
	for len(p.b) > 0 && !p.bad {
		head := p.byte()
		t := j.list[p.uvarint()]
		if head&entryRowid != 0 {
			p.varint()
		}
		for _, bit := range []byte{entryKey, entryNew, entryOld} {
			if head&bit != 0 {
				p.bytes()
			}
		}
		f(t, ChangeKind(head&entryKind))
	}
}

// tellTables puts in the place of all entries behind one that each of their tables changed. Changes of the schema stay.
func (j *journal) tellTables(from place, until ...*place) {
	type told struct {
		t    *heardTable
		kind ChangeKind
	}
	ends := append(until, &place{len(j.buf), j.count})
	at, parts := from, make([][]told, 0, len(ends))
	seen := map[string]bool{}
	for _, end := range ends {
		var part []told
		j.entries(at, *end, func(t *heardTable, kind ChangeKind) {
			if kind == SchemaChange {
				part = append(part, told{t, kind})
			} else if name := sqlite.Fold(t.name); !seen[name] {
				seen[name] = true
				part = append(part, told{t, UnknownChange})
			}
		})
		parts = append(parts, part)
		at = *end
	}
	j.buf, j.count = j.buf[:from.bytes], from.count
	for i, part := range parts {
		for _, e := range part {
			if e.kind == UnknownChange {
				e.t.unknown = len(j.buf)
			}
			j.buf = j.put(e.t, byte(e.kind))
			j.count++
		}
		*ends[i] = j.here()
	}
}

// collapse makes of the request's changes that its tables changed. The places in between stay what they are.
func (j *journal) collapse() {
	j.collapsed = true
	var until []*place
	if j.step.bytes > j.request.bytes {
		until = append(until, &j.step)
	}
	if j.statement.bytes > j.request.bytes {
		until = append(until, &j.statement)
	}
	j.tellTables(j.request, until...)
}

// hear prepares for a statement that is about to run; nil if nobody listens to what it does.
func (tx *Tx) hear(s *sqlite.Stmt) (*hearing, error) {
	j := tx.a.feed
	if j == nil || !s.Writes || s.Vacuum {
		return nil, nil
	}
	j.statement, j.own = j.here(), s.Accesses == nil
	if !s.Alters && !s.WritesVirtual() {
		return &j.plain, nil
	}
	h := &hearing{j: j, accesses: s.Accesses}
	if h.accesses == nil {
		var err error
		if h.accesses, err = s.AccessesOf(s.SQL()); err != nil {
			return nil, tx.check(err)
		}
	}
	if s.Alters {
		shapes, err := tx.a.conn.Shapes()
		if err != nil {
			return nil, tx.check(err)
		}
		h.before = shapes
	}
	return h, nil
}

// hearing is what the journal makes of one statement.
type hearing struct {
	j        *journal
	accesses []sqlite.Access
	before   map[string]sqlite.Shape // the tables, of a statement that changes the schema
}

// end looks at how the statement ended.
func (h *hearing) end(tx *Tx, s *sqlite.Stmt, changed bool, err error) {
	j := h.j
	j.own = false
	if tx.a.feed != j { // the connection was given up
		return
	}
	switch {
	case err != nil && !tx.a.conn.InTransaction():
		j.clear()
		return
	case err == nil || s.Stopped():
	case s.Halfway():
		// Of what it had begun when it failed, some is not in the file.
		j.tellTables(j.statement)
		for _, t := range j.list {
			if !j.collapsed {
				t.unknown = -1
			}
		}
		changed = true
	default:
		j.cut(j.statement)
		return
	}
	if h.accesses == nil {
		return
	}
	if h.before == nil {
		if !changed {
			return
		}
		for i := range h.accesses {
			switch a := &h.accesses[i]; a.Action {
			case sqlite.Insert, sqlite.Update, sqlite.Delete:
				// FTS5's own statements count as changes too, in the total.
				if s.Kind(a.Name) == sqlite.VirtualTable && (a.By != "" || err != nil || tx.a.conn.Changes() != 0) {
					j.table(a.Name, UnknownChange)
				}
			}
		}
		return
	}
	clear(j.tables)
	told := map[string]bool{}
	tell := func(name string) {
		if folded := sqlite.Fold(name); name != "" && !told[folded] {
			told[folded] = true
			j.table(name, SchemaChange)
		}
	}
	for i := range h.accesses {
		switch a := &h.accesses[i]; a.Action {
		case sqlite.CreateTable, sqlite.DropTable, sqlite.CreateView, sqlite.DropView, sqlite.CreateVTable, sqlite.DropVTable:
			if owner := sqlite.ShadowOf(a.Name); owner == "" || !h.before[sqlite.Fold(a.Name)].Shadow {
				tell(a.Name)
			}
		case sqlite.CreateIndex, sqlite.DropIndex, sqlite.CreateTrigger, sqlite.DropTrigger, sqlite.AlterTable:
			tell(a.Detail)
		}
	}
	if after, err := tx.a.conn.Shapes(); err == nil {
		for name, shape := range after {
			if _, there := h.before[name]; !there && !shape.Shadow {
				tell(shape.Name) // the new name of a table that was renamed
			}
		}
	}
}
