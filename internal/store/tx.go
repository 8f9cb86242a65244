package store

import (
	"errors"
	"math"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// Tx is what a Job sees of its database: it prepares statements, which the request's gate judges, and runs them.
// It must not be kept beyond Run.
type Tx struct {
	w *worker
	a *actor
	c *call

	lone    bool // the group is this request's alone
	marked  bool // a savepoint holds what the request wrote
	bare    bool // the group's whole transaction does: no savepoint was needed
	stepped bool // a savepoint inside that holds what was written since the last Commit
	held    int  // how often Commit kept something
	wrote   bool
	again   error         // why the request must run again, whatever the Job makes of the error
	ended   time.Time     // what the Job last read from the clock
	index   int           // statements run so far
	lost    bool          // the transaction ended under the request
	why     error         // what ended it
	torn    bool          // a VACUUM failed at the disk: what of it the log holds is not known
	quota   bool          // a FULL was the database's own limit
	defers  bool          // it switched deferred foreign keys on
	sealed  bool          // what it wrote is part of the group
	broke   bool          // its budget stopped it
	cost    sqlite.Counts // of its statements, those that failed or were undone too
	last    sqlite.Counts // of which the last one
	stands  int64         // rows that its finished steps wrote: nothing takes them back but the loss of all
	running *sqlite.Stmt  // for the budget

	witness Witness // is told of the rows that change; nil for nobody

	unrecorded error // why what it changed couldn't be recorded, since the last Undo

	uncounted bool // a statement of the server's own runs, which nobody pays for

	keptBefore keptState // as it was when the savepoint was opened
	stepBefore keptState
}

const (
	markSQL    = "SAVEPOINT request"
	releaseSQL = "RELEASE request"
	undoSQL    = "ROLLBACK TO request"

	markStepSQL    = "SAVEPOINT step"
	releaseStepSQL = "RELEASE step"
	undoStepSQL    = "ROLLBACK TO step"
)

// Prepare compiles the first statement of sql, as far as SQLite's parser reads, and asks the gate. It returns how
// many bytes that took; a text of white space and comments alone is a nil statement. The caller calls Done on it.
func (tx *Tx) Prepare(sql []byte) (*sqlite.Stmt, int, error) {
	if tx.over() {
		return nil, 0, errEnded
	}
	gate := tx.c.req.Gate
	if gate == nil {
		gate = refusal{}
	}
	// Compiling takes time too: nested table expressions can make millions of a few lines.
	began := tx.w.stats.start
	if !tx.ended.IsZero() {
		began = tx.ended
	}
	tx.w.stats.stmt = began
	tx.c.deadline.Store(began.Add(tx.w.store.opt.StatementTimeout + tx.w.stats.parked).UnixNano())
	s, n, err := tx.a.conn.Prepare(sql, gate.Permit)
	tx.c.deadline.Store(0)
	if err != nil || s == nil {
		return nil, n, tx.check(err)
	}
	// Noted here, whether or not it is run: to switch it off once more costs nothing.
	for i := range s.Accesses {
		if s.Accesses[i].Action == sqlite.Pragma && strings.EqualFold(s.Accesses[i].Name, "defer_foreign_keys") {
			tx.defers = true
		}
	}
	if err := gate.Judge(s); err != nil {
		s.Done()
		return nil, n, err
	}
	if binder, ok := gate.(Binder); ok {
		instead, err := binder.Instead(s)
		if err != nil || instead != "" {
			defer s.Done()
			if err != nil {
				return nil, n, err
			}
			s, err := tx.instead(binder, instead, s)
			return s, n, tx.check(err)
		}
	}
	return s, n, nil
}

// instead compiles what has to run in the place of a judged statement.
func (tx *Tx) instead(b Binder, sql string, judged *sqlite.Stmt) (*sqlite.Stmt, error) {
	s, err := tx.compile(sql, b.PermitInstead)
	if err != nil {
		return nil, b.Uncompiled(err)
	}
	if err := b.Vouch(s, judged); err != nil {
		s.Done()
		return nil, err
	}
	return s, nil
}

// compile compiles a text of the server's own, which may ask for claims, within the time of a statement.
func (tx *Tx) compile(sql string, policy sqlite.Policy) (*sqlite.Stmt, error) {
	if err := tx.a.conn.RegisterClaims(); err != nil {
		return nil, err
	}
	tx.c.deadline.Store(tx.w.store.opt.Now().Add(tx.w.store.opt.StatementTimeout).UnixNano())
	defer tx.c.deadline.Store(0)
	s, _, err := tx.a.conn.Prepare([]byte(sql), policy)
	return s, err
}

// Compile compiles one of the server's own statements under a policy of its own, which may let it ask for claims, and throws it away. It returns
// what the statement would touch.
func (tx *Tx) Compile(sql string, policy sqlite.Policy) (accesses []sqlite.Access, err error) {
	if tx.over() {
		return nil, errEnded
	}
	s, err := tx.compile(sql, policy)
	if err == nil && s != nil {
		accesses = s.Accesses
		s.Done()
	}
	return accesses, tx.check(err)
}

// Fenced is a statement to be run once more in the place of one that failed, which the caller calls Done on; nil if there is none.
// The failed one stays the caller's.
func (tx *Tx) Fenced(s *sqlite.Stmt, err error) (*sqlite.Stmt, error) {
	binder, ok := tx.c.req.Gate.(Binder)
	if !ok || err == nil || tx.over() {
		return nil, err
	}
	if sql := binder.Fenced(s, err); sql != "" {
		return tx.instead(binder, sql, s)
	}
	return nil, err
}

// refusal is the gate of a request that brought none.
type refusal struct{}

var errNoGate = errors.New("nobody allowed this statement")

func (refusal) Permit(sqlite.Access) error { return errNoGate }
func (refusal) Judge(*sqlite.Stmt) error   { return errNoGate }

// Result is what a run of a statement did.
type Result struct {
	Changes         int64 // rows it changed directly, as changes() has them; 0 if it changed none
	LastInsertRowid int64 // of the last row it inserted; 0 if it inserted none
	RowsRead        int64
	RowsWritten     int64
}

// Run binds a statement and runs it to its end, with row called for each row. An error of row stops it. Errors are
// *sqlite.Error, *sqlite.BindError, row's, or this package's; after ErrTimeout and the like the transaction may be
// gone, and then every further call fails.
func (tx *Tx) Run(s *sqlite.Stmt, params []sqlite.Param, row func(*sqlite.Stmt) error) (r Result, err error) {
	if tx.over() {
		return r, errEnded
	}
	tx.index++
	if p := tx.c.again.poison[tx.index]; p.why != nil {
		// It isn't run again, and did read, and maybe write, what it did.
		r.RowsRead, r.RowsWritten = p.cost.RowsRead, p.cost.RowsWritten
		tx.cost.RowsRead += r.RowsRead
		tx.cost.RowsWritten += r.RowsWritten
		return r, p.why
	}
	tx.last = sqlite.Counts{}
	if err := tx.afford(); err != nil {
		return r, tx.check(err)
	}
	w, conn := tx.w, tx.a.conn
	if s.Vacuum {
		if tx.Records() {
			return r, ErrRecording
		}
		if tx.a.frozen.Load() {
			return r, ErrRebuilding
		}
		if !tx.lone || w.group.wrote {
			return r, tx.check(errBoundary)
		}
		// It begins no transaction of the group's, and has a position like any other.
		if err := w.store.recall(tx.a); err != nil {
			return r, tx.check(&wrapped{ErrStorage, err})
		}
		tx.wrote = true
	} else if s.Writes {
		if err := tx.mark(); err != nil {
			return r, err
		}
	}
	if err := s.Bind(params); err != nil {
		return r, tx.check(err)
	}

	now := w.stats.start
	switch {
	case !tx.ended.IsZero(): // the Job has just looked at the clock
		now = tx.ended
	case tx.index > 1:
		now = w.store.opt.Now()
	}
	tx.ended = time.Time{}
	w.stats.stmt, w.stats.writing = now, s.Writes
	tx.c.deadline.Store(now.Add(w.store.opt.StatementTimeout).UnixNano())
	if s.Claims {
		if binder, ok := tx.c.req.Gate.(Binder); ok {
			conn.SetClaims(binder.Claims())
			defer conn.SetClaims(nil)
		}
	}
	total, rowid := conn.TotalChanges(), conn.LastInsertRowid()
	asksRowid := s.Writes && usesRowid(s)
	if s.Writes && !asksRowid {
		conn.SetLastInsertRowid(noRowid)
	}

	if tx.witness != nil {
		tx.witness.Begin()
	}
	tx.running = s
	heard, err := tx.hear(s)
	if err != nil {
		// nothing ran
	} else if s.Vacuum {
		err = conn.AllowVacuum(func() error { return steps(s, row) })
	} else if tx.a.rec == nil {
		err = steps(s, row)
	} else {
		err = tx.runRecorded(s, row)
	}
	tx.running = nil
	tx.c.deadline.Store(0)
	w.stats.writing = false

	changed := conn.TotalChanges() - total
	if heard != nil {
		heard.end(tx, s, changed != 0, err)
	}
	counts := s.Counts(changed)
	r.RowsRead, r.RowsWritten = counts.RowsRead, counts.RowsWritten
	if !tx.uncounted {
		tx.last = counts
		if tx.broke { // a budget that is used up pays for what was read, and not for what was undone
			tx.last.RowsWritten = 0
		}
		tx.cost.RowsRead += tx.last.RowsRead
		tx.cost.RowsWritten += tx.last.RowsWritten
	}
	if changed != 0 {
		r.Changes = conn.Changes()
	}
	if s.Writes {
		after := conn.LastInsertRowid()
		switch {
		case asksRowid:
			// The statement reads last_insert_rowid(), so it must not see our mark in its place. A row may have got
			// the very rowid that was the last one's, in another table.
			if after != rowid || changed != 0 && inserts(s) {
				r.LastInsertRowid = after
			}
		case after != noRowid:
			r.LastInsertRowid = after
		default:
			conn.SetLastInsertRowid(rowid)
		}
	}
	if s.Alters { // what it wrote is its own bookkeeping: rows of the schema, of shadow tables
		r.Changes, r.LastInsertRowid = 0, 0
	}
	s.Reset()
	if err != nil {
		var e *sqlite.Error
		if s.Vacuum && errors.As(err, &e) && e.Code.Primary() == sqlite.CodeIOErr {
			tx.torn = true
		}
		return r, tx.check(err)
	}
	return r, tx.witnessed(s)
}

// runRecorded runs a statement and records what it changes. An error of its own counts first: what it changed before may stand (OR FAIL).
func (tx *Tx) runRecorded(s *sqlite.Stmt, row func(*sqlite.Stmt) error) error {
	if !s.Writes {
		return steps(s, row)
	}
	var before drawn
	if s.Alters {
		var err error
		if before, err = tx.beforeAltering(s); err != nil {
			return err
		}
	}
	err := steps(s, row)
	if err != nil && !tx.a.conn.InTransaction() {
		tx.a.rec.clear() // undone, with all the rest
		return err
	}
	// last_insert_rowid() and the like are the statement's own.
	if rerr := tx.record(); err == nil {
		err = rerr
	}
	if err == nil && s.Alters {
		err = tx.afterAltering(before)
	}
	return err
}

// outOfRowids tells whether an AUTOINCREMENT table has used the greatest rowid: an insert into it is FULL too.
func (tx *Tx) outOfRowids() bool {
	found := false
	s, err := tx.a.conn.System("SELECT 1 FROM sqlite_sequence WHERE seq=9223372036854775807 LIMIT 1")
	if err != nil {
		return false // there is no such table
	}
	defer s.Done()
	found, err = s.Step()
	return found && err == nil
}

// steps runs a statement to its end.
func steps(s *sqlite.Stmt, row func(*sqlite.Stmt) error) error {
	for {
		more, err := s.Step()
		if err != nil || !more {
			return err
		}
		if row != nil {
			if err := row(s); err != nil {
				return err
			}
		}
	}
}

// noRowid marks that a statement inserted nothing. A table could hold that very rowid: then an insert of it is
// answered with 0.
const noRowid = math.MinInt64 + 0x5045525351

// inserts tells whether what a statement changed must have been inserted: it is an INSERT without DO UPDATE.
func inserts(s *sqlite.Stmt) bool {
	yes := false
	for i := range s.Accesses {
		if a := &s.Accesses[i]; a.By == "" {
			switch a.Action {
			case sqlite.Insert:
				yes = true
			case sqlite.Update, sqlite.Delete:
				return false
			}
		}
	}
	return yes
}

func usesRowid(s *sqlite.Stmt) bool {
	for i := range s.Accesses {
		if s.Accesses[i].Action == sqlite.Function && strings.EqualFold(s.Accesses[i].Detail, "last_insert_rowid") {
			return true
		}
	}
	return false
}

// Count is Query for a statement whose rows the request pays for.
func (tx *Tx) Count(sql string, params []sqlite.Param, row func(*sqlite.Stmt) error) error {
	if tx.over() {
		return errEnded
	}
	s, err := tx.a.conn.Own(sql)
	if err != nil {
		return tx.check(err)
	}
	defer s.Done()
	_, err = tx.Run(s, params, row)
	return err
}

// Query runs one of the server's own read statements, which no gate judges: what it shows is the caller's business. Nobody pays for it.
func (tx *Tx) Query(sql string, params []sqlite.Param, row func(*sqlite.Stmt) error) error {
	tx.uncounted = true
	defer func() { tx.uncounted = false }()
	return tx.Count(sql, params, row)
}

// Spent is what the request's statements have read and written so far.
func (tx *Tx) Spent() sqlite.Counts { return tx.cost }

// afford asks the request's budget, if it has one.
func (tx *Tx) afford() error {
	b := tx.c.req.Budget
	if b == nil {
		return nil
	}
	cost := tx.cost
	if tx.running != nil && !tx.uncounted {
		more := tx.running.Cost()
		cost.RowsRead += more.RowsRead
		cost.RowsWritten += more.RowsWritten
	}
	err := b.Afford(cost)
	if err != nil {
		tx.broke = true
		tx.cost.RowsWritten = tx.stands
	}
	return err
}

// Explain turns an error of the engine into this package's where the store knows more about it: whether a FULL is the
// database's limit or the disk's.
func (tx *Tx) Explain(err error) error { return translate(err, tx.quota) }

// Again tells whether the request will be run again, whatever its Job makes of the error that it got.
func (tx *Tx) Again() bool { return tx.again != nil }

// Began is when the run of the request began.
func (tx *Tx) Began() time.Time { return tx.w.stats.start }

// End reads the clock; a Job that calls it last saves the actor from reading it again.
func (tx *Tx) End() time.Time {
	tx.ended = tx.w.store.later(tx.w.stats.start)
	return tx.ended
}

// Wrote tells whether anything ran that may have written.
func (tx *Tx) Wrote() bool { return tx.wrote }

// Commit ends a step of a request with Steps: Undo doesn't reach behind it. It fails on a violated deferred foreign
// key, as a COMMIT would; what was written since the last Commit is undone then. All steps become durable together,
// before Do returns, unless Run returns an error: that undoes them too.
func (tx *Tx) Commit() error {
	if tx.over() {
		return errEnded
	}
	if !tx.stepped {
		return nil
	}
	err := tx.unrecorded
	if err == nil {
		err = tx.checkDeferred()
	}
	if err != nil {
		tx.Undo()
		return err
	}
	if err := tx.w.own(tx.a, releaseStepSQL); err != nil {
		return tx.check(err)
	}
	tx.stepped, tx.stands = false, tx.cost.RowsWritten
	tx.held++
	return nil
}

// Undo takes back what a request with Steps wrote since the last Commit.
func (tx *Tx) Undo() {
	if tx.lost || !tx.stepped {
		return
	}
	tx.stepped = false
	if tx.back(undoStepSQL, releaseStepSQL) {
		tx.forget(tx.stepBefore)
		tx.a.feed.undoStep()
	}
}

// back rolls back to a savepoint and ends it. If that fails the transaction is in a state that nobody knows.
func (tx *Tx) back(undo, release string) bool {
	for _, sql := range []string{undo, release} {
		if err := tx.w.own(tx.a, sql); err != nil {
			tx.lost, tx.why = true, translate(err, false)
			return false
		}
	}
	return true
}

// forget drops what a rollback may have made untrue.
func (tx *Tx) forget(kept keptState) {
	tx.w.dropStale(tx.a)
	tx.a.tables.forget()
	tx.a.kept = kept
	tx.a.rec.forget()
	tx.unrecorded = nil
}

// over tells whether the request has to end: its transaction is gone, or it runs again anyway.
func (tx *Tx) over() bool { return tx.lost || tx.again != nil }

// mark opens the group's transaction and, where others share it, the request's savepoint.
func (tx *Tx) mark() error {
	if tx.a.frozen.Load() {
		return ErrRebuilding
	}
	tx.wrote = true
	if !tx.marked && !tx.bare {
		if err := tx.w.begin(tx.a); err != nil {
			return tx.check(err)
		}
		if tx.lone && !tx.w.group.wrote {
			tx.bare = true
		} else {
			if err := tx.w.own(tx.a, markSQL); err != nil {
				return tx.check(err)
			}
			tx.marked = true
		}
		tx.keptBefore = tx.a.kept
		tx.a.feed.beginRequest()
	}
	if tx.c.req.Steps && !tx.stepped {
		if err := tx.w.own(tx.a, markStepSQL); err != nil {
			return tx.check(err)
		}
		tx.stepped = true
		tx.stepBefore = tx.a.kept
		tx.a.feed.beginStep()
	}
	return nil
}

// CheckDeferred fails on a violated deferred foreign key, as the end of the request would: a Job that calls it last can tell
// of it in its own words.
func (tx *Tx) CheckDeferred() error {
	if tx.over() {
		return errEnded
	}
	if !tx.marked && !tx.bare {
		return nil
	}
	return tx.checkDeferred()
}

// checkDeferred finds a violated deferred foreign key: RELEASE doesn't, and the group's COMMIT would fail for it.
func (tx *Tx) checkDeferred() error {
	bad, err := tx.a.conn.DeferredViolations()
	if err != nil {
		return tx.check(err)
	}
	if bad {
		return &sqlite.Error{Code: sqlite.CodeConstraintForeignKey, Message: "FOREIGN KEY constraint failed", Offset: -1}
	}
	return nil
}

// seal makes what the request wrote part of the group.
func (tx *Tx) seal() error {
	if !tx.marked && !tx.bare {
		return nil
	}
	if tx.unrecorded != nil {
		return tx.unrecorded
	}
	if tx.witness != nil {
		if err := tx.witness.Settled(); err != nil {
			return err
		}
	}
	if err := tx.checkDeferred(); err != nil {
		return err
	}
	if tx.stepped {
		if err := tx.w.own(tx.a, releaseStepSQL); err != nil {
			return tx.check(err)
		}
		tx.stepped = false
	}
	if tx.marked {
		if err := tx.w.own(tx.a, releaseSQL); err != nil {
			return tx.check(err)
		}
		tx.marked = false
	}
	tx.w.group.wrote = true
	tx.sealed = true
	return nil
}

// undo takes back what the request wrote.
func (tx *Tx) undo() {
	if tx.lost {
		return
	}
	tx.stepped = false
	switch {
	case tx.marked:
		tx.marked = false
		if tx.back(undoSQL, releaseSQL) {
			tx.forget(tx.keptBefore)
			tx.a.feed.undoRequest()
		}
	case tx.bare:
		tx.bare = false
		tx.w.rollback(tx.a)
		tx.w.group.reset()
		tx.a.kept = tx.keptBefore
	}
}

// finish leaves the connection as the next request expects it.
func (tx *Tx) finish() {
	if tx.defers && tx.a.conn != nil {
		// It would outlive the savepoint and hold for the other requests of the group.
		if err := tx.w.own(tx.a, "PRAGMA defer_foreign_keys=OFF"); err != nil {
			tx.w.store.log.Error("switch deferred foreign keys off", "database", tx.a.id, "error", err)
		}
	}
	tx.defers = false
}

// check looks after an error whether the transaction is still there, and says what the error means.
func (tx *Tx) check(err error) error {
	if err == nil {
		return nil
	}
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code.Primary() == sqlite.CodeFull {
		if tx.outOfRowids() {
			err = &wrapped{ErrNoRowid, err}
		} else {
			tx.quota = tx.w.atQuota(tx.a)
		}
	}
	if isNoMem(err) && tx.w.store.largest(tx.w) {
		err = &wrapped{ErrHog, err}
	}
	if errors.Is(err, errPreempted) || errors.Is(err, errBoundary) || isNoMem(err) && !errors.Is(err, ErrHog) && !tx.c.again.retried {
		tx.again = err
	}
	err = translate(err, tx.quota)
	if !tx.lost && tx.w.group.open && !tx.a.conn.InTransaction() {
		tx.lost, tx.why = true, err
	}
	return err
}
