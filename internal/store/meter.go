package store

import (
	"fmt"
	"math"

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
	next int64  // id of the next row
	told uint64 // the meter's number for the last telling
}

type meterEntry struct {
	id int64
	MeterRow
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

// file writes the group's bills into the open transaction. The state that stands when it is committed is tentative until then.
func (w *worker) file(a *actor) (rows []meterEntry, err error) {
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
	series, day := meter.Series(), w.stats.start.Unix()/86400
	rows = append(rows, m.rows...)
	for i := range rows {
		rows[i].Added = Work{}
	}
	next := m.next
	fresh := false
	var changed []int
	for _, b := range g.bills {
		at := -1
		for i := range rows {
			if r := &rows[i].MeterRow; r.Series == series && r.Day == day && r.Token == b.token && r.Free == b.free {
				at = i
				break
			}
		}
		if at < 0 {
			at, fresh = len(rows), true
			rows = append(rows, meterEntry{next, MeterRow{Series: series, Day: day, Token: b.token, Free: b.free}})
			next++
		}
		rows[at].Total.add(b.work)
		rows[at].Added = b.work
		changed = append(changed, at)
	}
	if fresh {
		if err := a.conn.SetMaxPages(w.pageLimit() + meterSlack); err != nil {
			return nil, err
		}
		defer func() {
			if lerr := a.conn.SetMaxPages(w.pageLimit()); err == nil {
				err = lerr
			}
		}()
		if err := tx.need(meterTable); err != nil {
			return nil, err
		}
		// With a new row, which is rare, those go that are durable elsewhere and of other days.
		if rows, changed, err = w.dropTaken(tx, rows, changed, series, day); err != nil {
			return nil, err
		}
	}
	for _, i := range changed {
		r := &rows[i]
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
	return rows, nil
}

// filed keeps the totals as they were committed, and tells the meter of them.
func (w *worker) filed(a *actor, rows []meterEntry) {
	if rows == nil {
		return
	}
	m := &a.meter
	m.rows = rows
	var changed []MeterRow
	for i := range rows {
		m.next = max(m.next, rows[i].id+1)
		if rows[i].Added != (Work{}) || m.told == Untold {
			changed = append(changed, rows[i].MeterRow)
			rows[i].Added = Work{}
		}
	}
	m.told = w.store.opt.Meter.Filed(a.id, changed)
}

// dropTaken deletes the rows of other days and series that the meter has.
func (w *worker) dropTaken(tx *Tx, rows []meterEntry, changed []int, series, day int64) ([]meterEntry, []int, error) {
	if told := tx.a.meter.told; told == Untold || !w.store.opt.Meter.Taken(told) {
		return rows, changed, nil
	}
	var kept []meterEntry
	var still []int
	for i, r := range rows {
		if r.Added == (Work{}) && (r.Series != series || r.Day != day) {
			if err := tx.own("DELETE FROM "+meterTable.Name+" WHERE id=?", []sqlite.Param{intParam(r.id)}, nil); err != nil {
				return nil, nil, err
			}
			continue
		}
		if r.Added != (Work{}) {
			still = append(still, len(kept))
		}
		kept = append(kept, rows[i])
	}
	return kept, still, nil
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
		err = tx.own("SELECT id, series, day, token, free, requests, rows_read, rows_written FROM "+meterTable.Name, nil, func(s *sqlite.Stmt) error {
			n := func(i int) int64 { return s.Column(i).Int }
			m.rows = append(m.rows, meterEntry{n(0), MeterRow{Series: n(1), Day: n(2), Token: string(s.Column(3).Bytes), Free: n(4) != 0, Total: Work{n(5), n(6), n(7)}}})
			m.next = max(m.next, n(0)+1)
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
