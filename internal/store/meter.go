package store

import (
	"fmt"
	"math"
	"slices"

	"github.com/persqld/persqld/internal/sqlite"
)

// Payer is whom the work of a request is counted for.
type Payer struct {
	Token string // its id; nothing is counted if empty
	Free  bool   // counted, and never charged
	// Counted says that the request itself was counted already: only its rows are.
	Counted bool
}

// Budget says how much of a request's work is paid for.
type Budget interface {
	// Afford returns what a request is stopped with that has cost so much; nil if it may go on. It is asked while the request runs.
	Afford(sqlite.Counts) error
}

// Meter takes what databases count of the writes in their own files, each count in the transaction of the write that it is of.
type Meter interface {
	// Series is a number that rows carry. Rows of another one are other rows, and a new series begins at zero.
	Series() int64
	// Filed is told what a database's file holds, durably: running totals, and what the last commit added to them. The answer is a number for Taken, or
	// Untold: then it is told all of them again with the next commit.
	Filed(database string, rows []MeterRow) uint64
	// Taken tells whether what came with a number's call, and before it, is durable at the meter too, so that the file needs it no longer.
	Taken(uint64) bool
}

// Untold is Filed's answer where it couldn't take in what it was told.
const Untold = math.MaxUint64

// MeterRow is what writes of one payer on one day cost, in one database.
type MeterRow struct {
	Series int64
	Day    int64 // days since 1970-01-01, UTC
	Token  string
	Free   bool
	Total  Work
	Added  Work // of which the last commit; none where it was only read from the file
}

// Work is what is counted of a request.
type Work struct{ Requests, RowsRead, RowsWritten int64 }

func (w *Work) add(o Work) {
	w.Requests += o.Requests
	w.RowsRead += o.RowsRead
	w.RowsWritten += o.RowsWritten
}

// meterTable holds the running totals. A row is known by its number, so that a commit changes one page: an index would be another.
var meterTable = SystemTable{
	Name: SystemPrefix + "meter_v1",
	Columns: "id INTEGER PRIMARY KEY, series INTEGER NOT NULL, day INTEGER NOT NULL, token TEXT NOT NULL, free INTEGER NOT NULL, " +
		"requests INTEGER NOT NULL, rows_read INTEGER NOT NULL, rows_written INTEGER NOT NULL",
	// A branch begins at zero, or what its parent wrote would be charged twice. What was written stays written, whatever is restored.
	Branch: Leave, Restore: Keep, Export: Leave, Import: Keep,
}

// meterState is what an actor knows of its file's totals. The worker's.
type meterState struct {
	conn *sqlite.Conn // of which; another one's are read anew
	rows []meterEntry
	at   map[meterKey]int // where in rows, once they are many: most databases have one
	next int64            // id of the next row
	told uint64           // the meter's number for the last telling
	// clean is the day and series at which those that are past were last deleted: there are none as long as it is the same.
	clean meterKey
}

type meterEntry struct {
	id int64
	MeterRow
}

// meterKey is what a row counts.
type meterKey struct {
	series, day int64
	token       string
	free        bool
}

func (r *MeterRow) key() meterKey { return meterKey{r.Series, r.Day, r.Token, r.Free} }

// past tells whether a row isn't counted in any more, at a moment of this day and series. Those of yesterday may be: a clock is set back by a second just after midnight, and
// a row that begins at zero again would be less than what the meter knows of it.
func (now meterKey) past(r *MeterRow) bool { return r.Series != now.series || r.Day < now.day-1 }

func (m *meterState) add(e meterEntry) {
	m.rows = append(m.rows, e)
	m.next = max(m.next, e.id+1)
	switch {
	case m.at != nil:
		m.at[e.key()] = len(m.rows) - 1
	case len(m.rows) > fewRows:
		m.at = make(map[meterKey]int, 2*fewRows)
		for i := range m.rows {
			m.at[m.rows[i].key()] = i
		}
	}
}

// fewRows is how many rows are searched as fast as hashed.
const fewRows = 8

// find is where a key's row is, or -1.
func (m *meterState) find(k meterKey) int {
	if m.at != nil {
		if at, ok := m.at[k]; ok {
			return at
		}
		return -1
	}
	return slices.IndexFunc(m.rows, func(e meterEntry) bool { return e.key() == k })
}

// filing is what a group's commit changes of the totals. A database may have a row for each of thousands of tokens: none of them is touched for another's.
type filing struct {
	rows  []meterEntry
	swept bool // those that are past are deleted
	clean meterKey
}

// meterSlack is how many pages a file may have beyond its limit for the totals: a database that is full must take a DELETE.
const meterSlack = 16

// bill is what a group's writes cost one payer.
type bill struct {
	token string
	free  bool
	work  Work
}

// charge adds a request's work to the group's bills.
func (g *group) charge(p Payer, c sqlite.Counts) {
	work := Work{Requests: 1, RowsRead: c.RowsRead, RowsWritten: c.RowsWritten}
	if p.Counted {
		work.Requests = 0
	}
	for i := range g.bills {
		if b := &g.bills[i]; b.token == p.Token && b.free == p.Free {
			b.work.add(work)
			return
		}
	}
	g.bills = append(g.bills, bill{p.Token, p.Free, work})
}

// file writes the group's bills into the open transaction. What it changes is tentative until that is committed.
func (w *worker) file(a *actor) (f *filing, err error) {
	g, meter := &w.group, w.store.opt.Meter
	if len(g.bills) == 0 || meter == nil {
		return nil, nil
	}
	// It is nobody's request, and part of the transaction as it stands.
	tx := &Tx{w: w, a: a, c: &w.clerk, lone: true, bare: true}
	if err := w.loadMeter(tx); err != nil {
		return nil, err
	}
	m := &a.meter
	now := meterKey{series: meter.Series(), day: w.stats.start.Unix() / 86400}
	f = &filing{clean: m.clean}
	next := m.next
	for _, b := range g.bills {
		e := meterEntry{next, MeterRow{Series: now.series, Day: now.day, Token: b.token, Free: b.free}}
		if at := m.find(e.key()); at >= 0 {
			e = m.rows[at]
		} else {
			next++
		}
		e.Total.add(b.work)
		e.Added = b.work
		f.rows = append(f.rows, e)
	}
	fresh := next > m.next
	defer w.beyondLimit(a, meterSlack)() // a total that grows may need a page, too
	if fresh {
		if err := tx.need(meterTable); err != nil {
			return nil, err
		}
		// With a new row, which is rare, those go that are past and durable elsewhere.
		if err := w.dropTaken(tx, f, now); err != nil {
			return nil, err
		}
	}
	for i := range f.rows {
		r := &f.rows[i]
		free := int64(0)
		if r.Free {
			free = 1
		}
		err := tx.own("INSERT OR REPLACE INTO "+meterTable.Name+" VALUES(?,?,?,?,?,?,?,?)", []sqlite.Param{intParam(r.id), intParam(r.Series), intParam(r.Day),
			textParam(r.Token), intParam(free), intParam(r.Total.Requests), intParam(r.Total.RowsRead), intParam(r.Total.RowsWritten)}, nil)
		if err != nil {
			return nil, fmt.Errorf("count the write: %w", err)
		}
	}
	return f, nil
}

// filed keeps the totals as they were committed, and tells the meter of them.
func (w *worker) filed(a *actor, f *filing) {
	if f == nil {
		return
	}
	m := &a.meter
	var changed []MeterRow
	for _, e := range f.rows {
		changed = append(changed, e.MeterRow)
		e.Added = Work{}
		if at := m.find(e.key()); at >= 0 {
			m.rows[at] = e
		} else {
			m.add(e)
		}
	}
	m.clean = f.clean
	if f.swept {
		old := m.rows
		m.rows, m.at = nil, nil
		for _, e := range old {
			if !f.clean.past(&e.MeterRow) {
				m.add(e)
			}
		}
	}
	if m.told == Untold {
		for i := range m.rows {
			if e := &m.rows[i].MeterRow; !slices.ContainsFunc(f.rows, func(c meterEntry) bool { return c.key() == e.key() }) {
				changed = append(changed, *e)
			}
		}
	}
	m.told = w.store.opt.Meter.Filed(a.id, changed)
}

// dropTaken deletes the rows that are past and that the meter has.
func (w *worker) dropTaken(tx *Tx, f *filing, now meterKey) error {
	m := &tx.a.meter
	if m.clean == now || m.told == Untold || !w.store.opt.Meter.Taken(m.told) {
		return nil
	}
	f.clean = now
	for i := range m.rows {
		if r := &m.rows[i]; now.past(&r.MeterRow) {
			f.swept = true
			if err := tx.own("DELETE FROM "+meterTable.Name+" WHERE id=?", []sqlite.Param{intParam(r.id)}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadMeter reads the totals of a file that was just opened, and tells the meter of them: an earlier process may not have.
func (w *worker) loadMeter(tx *Tx) error {
	a := tx.a
	if a.meter.conn == a.conn {
		return nil
	}
	m := meterState{conn: a.conn, next: 1}
	have, err := tx.has(meterTable)
	if err != nil {
		return err
	}
	if have {
		err = tx.once("SELECT id, series, day, token, free, requests, rows_read, rows_written FROM "+meterTable.Name, nil, func(s *sqlite.Stmt) error {
			n := func(i int) int64 { return s.Column(i).Int }
			m.add(meterEntry{n(0), MeterRow{Series: n(1), Day: n(2), Token: string(s.Column(3).Bytes), Free: n(4) != 0, Total: Work{n(5), n(6), n(7)}}})
			return nil
		})
		if err != nil {
			return fmt.Errorf("read what was counted: %w", err)
		}
	}
	if len(m.rows) > 0 {
		rows := make([]MeterRow, len(m.rows))
		for i := range m.rows {
			rows[i] = m.rows[i].MeterRow
		}
		m.told = w.store.opt.Meter.Filed(a.id, rows)
	}
	a.meter = m
	return nil
}

// pageLimit is how many pages a database may have.
func (w *worker) pageLimit() int64 {
	if limit := w.store.opt.Limits.Pages; limit > 0 {
		return limit
	}
	return sqlite.DefaultPages
}

// Recount tells the meter again what a database's file has counted. It is for a database whose last writes the meter may not know, after a crash.
func (tx *Tx) Recount() error {
	if tx.w.store.opt.Meter == nil {
		return nil
	}
	return tx.w.loadMeter(tx)
}
