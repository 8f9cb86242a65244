package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// A database that records keeps, for every row that was changed since the recording began, the row as it was before: what a merge compares both sides
// with. See DESIGN.md.

// ErrRecording is returned for VACUUM in a database that records: it may give rows other rowids, by which the recording knows them.
var ErrRecording = errors.New("the database records its changes for a merge, so VACUUM is refused")

// The tables of a recording.
var (
	branchTable = SystemTable{
		Name:    SystemPrefix + "branch_v1",
		Columns: "name TEXT PRIMARY KEY, value NOT NULL",
		// It makes a database record. A branch of a branch records from its own fork. A restored one goes on with the recording of that moment, whose rows it
		// has again. An import has no rows that were recorded: the facts stay, and that the recording ended.
		Branch: Leave, Restore: Carry, Export: Leave, Import: Keep,
	}
	layoutTable = SystemTable{
		Name: SystemPrefix + "layout_v1",
		// Two of a table's may have come to be the same: a column that one has lost the other never had.
		Columns: "id INTEGER PRIMARY KEY, tbl TEXT NOT NULL, cols BLOB NOT NULL",
		Branch:  Leave, Restore: Carry, Export: Leave, Import: Leave,
	}
	changedTable = SystemTable{
		Name: SystemPrefix + "changed_v1",
		// key is the rowid, or the encoded primary key of a WITHOUT ROWID table; old is NULL where there was no row. In the order in which a merge reads, and in
		// one tree: two would be two pages more for an insert.
		Columns: "tbl TEXT NOT NULL, key BLOB NOT NULL, layout INTEGER NOT NULL, old BLOB, PRIMARY KEY(tbl, key)", Options: "WITHOUT ROWID",
		Branch: Leave, Restore: Carry, Export: Leave, Import: Leave,
	}
)

// recordingTables are the tables of a recording.
func recordingTables() []SystemTable { return []SystemTable{branchTable, layoutTable, changedTable} }

const (
	insertChanged = "INSERT OR IGNORE INTO " + SystemPrefix + "changed_v1 VALUES(?,?,?,?)"
	findLayout    = "SELECT id FROM " + SystemPrefix + "layout_v1 WHERE tbl=? AND cols=?"
	insertLayout  = "INSERT INTO " + SystemPrefix + "layout_v1(tbl, cols) VALUES(?,?)"
)

// pendingMax is how many bytes of a statement's old rows are held in memory; more of them wait in a file.
const pendingMax = 1 << 20

// recorder is what an actor needs to record: it takes old rows from SQLite's hook, which can't run statements, and the Tx writes them behind the
// statement. The worker's.
type recorder struct {
	// rows: old rows are recorded. Else only what becomes of names is, for a merge of the schema, and there is no hook.
	rows   bool
	dir    string // for what doesn't fit in memory
	limit  int    // of bytes in memory
	tables map[string]*recordedTable
	list   []*recordedTable // as pending numbers them

	pending []byte   // entries: number of the table, key, old row
	spill   *os.File // earlier entries
	spilled int64
	err     error // why an old row could not be taken
}

// recordedTable is a table whose changes are recorded.
type recordedTable struct {
	name    string
	skip    bool
	number  int
	columns []int    // those that are recorded
	names   []string // of these
	key     []int    // of a WITHOUT ROWID table
	layout  int64    // the row of its names; 0 if that isn't known
}

// begin has an opened connection record, if its file says so. Another one pays nothing.
func (a *actor) begin(s *Store, conn *sqlite.Conn) error {
	a.rec, a.witnessed = nil, false
	if !a.tables.known[branchTable.Name] {
		return nil
	}
	names, rows := false, true
	err := conn.EachRow("SELECT name FROM "+branchTable.Name+" WHERE name IN ('ended','"+originsKnown+"')", func(s *sqlite.Stmt) error {
		if string(s.Column(0).Bytes) == originsKnown {
			names = true
		} else {
			rows = false
		}
		return nil
	})
	if err != nil || !names {
		return err
	}
	a.rec = &recorder{rows: rows, dir: s.opt.Temp, limit: pendingMax, tables: map[string]*recordedTable{}}
	if rows {
		conn.SetChangeHook([]sqlite.ChangeHook{a.rec.note})
	}
	return nil
}

// forget is called when the schema may have changed, or layouts been undone.
func (r *recorder) forget() {
	if r != nil && len(r.tables) > 0 {
		clear(r.tables)
	}
}

// clear drops what wasn't written.
func (r *recorder) clear() {
	if r == nil {
		return
	}
	r.pending, r.list, r.err = r.pending[:0], r.list[:0], nil
	for _, t := range r.tables {
		t.number = -1
	}
	if r.spill != nil {
		r.spill.Close()
		os.Remove(r.spill.Name())
		r.spill, r.spilled = nil, 0
	}
}

func (r *recorder) empty() bool { return len(r.pending) == 0 && r.spill == nil }

// note is the hook: a row is about to change. What it notes is true whether or not the change stands: that is how the row was.
func (r *recorder) note(ch *sqlite.Change) {
	t := r.tables[ch.Table]
	if t == nil {
		t = r.learn(ch)
	}
	if t.skip || ch.Schema != "main" || r.err != nil {
		return
	}
	switch ch.Op {
	case sqlite.Insert:
		r.add(t, ch.NewRowid, ch.New, nil)
	case sqlite.Delete:
		r.add(t, ch.OldRowid, ch.Old, ch.Old)
	case sqlite.Update:
		r.add(t, ch.OldRowid, ch.Old, ch.Old)
		if t.key != nil || ch.NewRowid != ch.OldRowid {
			r.add(t, ch.NewRowid, ch.New, nil) // where the key stays, the entry before is the one that counts
		}
	}
}

// shadowsThatTell are the shadow tables by which a merge knows which rows of a virtual table changed; FTS5's, and R-Tree's.
var shadowsThatTell = []string{"_content", "_docsize", "_rowid", "_node"}

func (r *recorder) learn(ch *sqlite.Change) *recordedTable {
	s := ch.Shape()
	t := newRecordedTable(strings.Clone(ch.Table), s)
	r.tables[t.name] = t
	return t
}

func newRecordedTable(name string, s sqlite.RowShape) *recordedTable {
	t := &recordedTable{name: name, number: -1, key: s.Key}
	t.skip = len(name) >= 7 && sqlite.Fold(name[:7]) == "sqlite_"
	if s.Shadow {
		t.skip = true
		for _, suffix := range shadowsThatTell {
			t.skip = t.skip && !strings.HasSuffix(sqlite.Fold(name), suffix)
		}
	}
	for i, c := range s.Columns {
		if !c.Generated {
			t.columns = append(t.columns, i)
			t.names = append(t.names, c.Name)
		}
	}
	return t
}

var errUntold = &sqlite.Error{Code: sqlite.CodeNoMem, Message: "out of memory while a changed row was recorded", Offset: -1}

// add takes one entry: the row's key, and the row, if there is one.
func (r *recorder) add(t *recordedTable, rowid int64, key, old func(int) (sqlite.Value, bool)) {
	if t.number < 0 {
		t.number = len(r.list)
		r.list = append(r.list, t)
	}
	start := len(r.pending)
	fail := func(err error) { r.pending, r.err = r.pending[:start], err }
	b := append(r.pending, 0, 0, 0, 0) // room for the entry's length
	b = binary.AppendUvarint(b, uint64(t.number))
	if t.key == nil {
		b = binary.BigEndian.AppendUint64(b, uint64(rowid))
	} else {
		at := len(b)
		b = append(b, 0, 0, 0, 0)
		for _, i := range t.key {
			v, ok := key(i)
			if !ok {
				fail(errUntold)
				return
			}
			b = appendValue(b, plainNumber(v))
		}
		binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	}
	if old == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		for _, i := range t.columns {
			v, ok := old(i)
			if !ok {
				fail(errUntold)
				return
			}
			b = appendValue(b, v)
		}
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	r.pending = b
	if len(b) > r.limit {
		if err := r.spillOver(); err != nil {
			r.err = diskFull(err)
		}
	}
}

// spillOver moves the entries from memory to a file.
func (r *recorder) spillOver() (err error) {
	if r.spill == nil {
		if r.spill, err = os.CreateTemp(r.dir, "recording-*"); err != nil {
			return err
		}
	}
	n, err := r.spill.Write(r.pending)
	r.spilled += int64(n)
	if cap(r.pending) > 2*r.limit {
		r.pending = nil // a large row came by
	}
	r.pending = r.pending[:0]
	return err
}

// entry is a row's former state, for a moment.
type entry struct {
	table *recordedTable
	key   sqlite.Value
	old   []byte
	there bool
}

// each goes through the entries in the order in which they came.
func (r *recorder) each(f func(entry) error) error {
	if r.spill != nil {
		if _, err := r.spill.Seek(0, io.SeekStart); err != nil {
			return err
		}
		from := bufio.NewReaderSize(r.spill, 256<<10)
		var size [4]byte
		var b []byte
		for read := int64(0); read < r.spilled; read += int64(len(b)) + 4 {
			if _, err := io.ReadFull(from, size[:]); err != nil {
				return fmt.Errorf("read what was recorded: %w", err)
			}
			n := int(binary.BigEndian.Uint32(size[:]))
			if cap(b) < n {
				b = make([]byte, n)
			}
			b = b[:n]
			if _, err := io.ReadFull(from, b); err != nil {
				return fmt.Errorf("read what was recorded: %w", err)
			}
			if err := f(r.parse(b)); err != nil {
				return err
			}
		}
	}
	for b := r.pending; len(b) > 0; {
		n := 4 + int(binary.BigEndian.Uint32(b))
		if err := f(r.parse(b[4:n])); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (r *recorder) parse(b []byte) entry {
	number, n := binary.Uvarint(b)
	e := entry{table: r.list[number]}
	b = b[n:]
	if e.table.key == nil {
		e.key = sqlite.Value{Kind: sqlite.Integer, Int: int64(binary.BigEndian.Uint64(b))}
		b = b[8:]
	} else {
		size := 4 + int(binary.BigEndian.Uint32(b))
		e.key = sqlite.Value{Kind: sqlite.Blob, Bytes: b[4:size]}
		b = b[size:]
	}
	e.there, e.old = b[0] == 1, b[1:]
	return e
}

// record writes down what the statement that just ran, or is about to, has changed: in the request's own savepoint, so that both stand or neither. It
// counts as part of that statement, for its time limit too.
func (tx *Tx) record() error {
	r := tx.a.rec
	if r == nil || r.empty() && r.err == nil {
		return nil
	}
	err := r.err
	if err == nil {
		err = tx.writeRecord(r)
	}
	r.clear()
	if err != nil {
		tx.unrecorded = err // the request can't be sealed, even if its Job takes the error for its own to tell
		err = tx.check(err)
	}
	return err
}

func (tx *Tx) writeRecord(r *recorder) error {
	if err := tx.mark(); err != nil {
		return err
	}
	for _, t := range []SystemTable{layoutTable, changedTable} { // they are there, unless somebody took the file apart
		if err := tx.need(t); err != nil {
			return err
		}
	}
	conn := tx.a.conn
	insert, err := conn.System(insertChanged)
	if err != nil {
		return err
	}
	defer insert.Done()
	params := make([]sqlite.Param, 4)
	return conn.Hidden(func() error {
		return r.each(func(e entry) error {
			if e.table.layout == 0 {
				if err := tx.findLayout(e.table); err != nil {
					return err
				}
			}
			params[0], params[1], params[2], params[3] = textParam(e.table.name), sqlite.Param{Value: e.key}, intParam(e.table.layout), sqlite.Param{}
			if e.there {
				params[3] = blobParam(e.old)
			}
			return insert.Put(params)
		})
	})
}

// findLayout finds the row that names a table's columns, or makes it.
func (tx *Tx) findLayout(t *recordedTable) error {
	at := []sqlite.Param{textParam(t.name), blobParam(layoutOf(t.names))}
	if err := tx.quietly(findLayout, at, func(s *sqlite.Stmt) { t.layout = s.Column(0).Int }); err != nil || t.layout != 0 {
		return err
	}
	if err := tx.quietly(insertLayout, at, nil); err != nil {
		return err
	}
	t.layout = tx.a.conn.LastInsertRowid()
	return nil
}

// quietly runs a statement on the server's own tables as part of the client's, under its watch.
func (tx *Tx) quietly(sql string, params []sqlite.Param, row func(*sqlite.Stmt)) error {
	s, err := tx.a.conn.System(sql)
	if err != nil {
		return err
	}
	defer s.Done()
	if err := s.Bind(params); err != nil {
		return err
	}
	return steps(s, func(s *sqlite.Stmt) error {
		if row != nil {
			row(s)
		}
		return nil
	})
}

// layoutOf encodes the names of columns. An empty one is a column that was dropped.
func layoutOf(names []string) (b []byte) {
	for _, n := range names {
		b = appendValue(b, sqlite.Value{Kind: sqlite.Text, Bytes: []byte(n)})
	}
	return b
}

func namesOf(layout []byte) (names []string, err error) {
	values, err := ParseValues(layout)
	for i := range values {
		names = append(names, string(values[i].Bytes))
	}
	return names, err
}
