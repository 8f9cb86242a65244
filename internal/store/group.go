package store

import (
	"errors"
	"runtime"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// group is the transaction that a worker builds from the requests that waited together.
type group struct {
	open    bool    // BEGIN was run
	wrote   bool    // it holds the finished work of a request
	altered bool    // something in it changed the schema
	pending []*call // requests that wait for its commit, in order, with their results
	began   time.Time
	bills   []bill // what its writes cost, by payer
}

// outcome is how the run of a call ended.
type outcome uint8

const (
	settled outcome = iota // it was answered, or waits for the group's commit
	apart                  // it must be run again, in a group of its own
	lost                   // the whole transaction is gone, with the work of those before it
)

// run takes a batch of calls through as few transactions as it can.
func (w *worker) run(a *actor, batch []*call) {
	for i, c := range batch {
		w.at = i
		if c == nil {
			continue // the watchdog answered it
		}
		if w.group.wrote && w.store.opt.Now().Sub(w.group.began) > groupTime {
			w.commit(a, false)
		}
		if !c.move(callQueued, callRunning) {
			c.recycle() // its caller left
			continue
		}
		if c.act != nil {
			w.commit(a, false)
			c.move(callRunning, callFinished)
			c.answer(c.act(w, a))
			continue
		}
		if c.req.Alone {
			w.commit(a, false)
			w.solo(a, c)
			continue
		}
		switch w.attempt(a, c, len(batch) == 1) {
		case apart:
			w.commit(a, false)
			w.solo(a, c)
		case lost:
			w.afterLoss(a)
		}
	}
	w.commit(a, false)
	if a.conn != nil && a.conn.LogFrames() >= max(checkpointFrames, a.checkpointAt) && a.pins.Load() == 0 {
		w.checkpoint(a)
	}
}

// attempt runs a call once. What it wrote is in the group's transaction afterwards, or undone.
func (w *worker) attempt(a *actor, c *call, lone bool) outcome {
	s := w.store
	if s.stopping.Load() {
		return w.settle(c, ErrClosing)
	}
	if a.deleted {
		return w.settle(c, ErrNotFound)
	}
	if err := w.ensureOpen(a); err != nil {
		return w.settle(c, err)
	}
	if !w.group.open {
		w.unhear(a)
	}
	a.conn.Forget()
	a.witnessedBy(c.req.Gate)
	c.req.Spent, c.req.Filed = sqlite.Counts{}, false
	tx := &w.tx
	*tx = Tx{w: w, a: a, c: c, lone: lone, witness: a.witness}
	a.rec.clear()

	start := s.opt.Now()
	w.stats = runStats{start: start, yielded: start, stmt: start}
	w.thread.Heap().Begin()
	w.cur.Store(c)
	err, fault := w.runJob(c, tx)
	w.cur.Store(nil)
	a.witness = nil
	w.endTurn()
	c.deadline.Store(0)
	end := tx.ended
	if end.IsZero() || fault {
		end = s.opt.Now()
	}
	w.ended = end
	// From here on nobody else decides about the call. An abandoned one was answered: its work must go.
	mine := c.is(callFinished) || c.move(callRunning, callFinished)
	if !mine {
		w.unstick(a)
		clear(w.group.pending)
		w.group.pending = w.group.pending[:0]
	} else {
		c.req.Stats = Stats{Wait: start.Sub(c.queued), Engine: end.Sub(start) - w.stats.parked, Parked: w.stats.parked}
		c.req.Spent = tx.cost
	}
	s.opt.Observer.Request(start.Sub(c.queued), end.Sub(start)-w.stats.parked)

	if !fault {
		if tx.again != nil {
			err = tx.again
		}
		if !mine {
			// Those whose work stood in the transaction were told that it is undone.
			tx.lost = true
		}
		err, fault = w.conclude(tx, err)
	}
	if fault {
		tx.lost, tx.why, tx.again = true, ErrFault, nil
	}
	if tx.lost {
		return w.lose(c, tx, err, mine)
	}
	if tx.torn {
		w.reopen(a)
	}
	switch {
	case errors.Is(err, errPreempted), errors.Is(err, errBoundary):
		return apart
	case isNoMem(err) && !c.again.retried:
		c.again.retried = true
		a.conn.ReleaseMemory()
		s.relieve()
		return apart
	}
	if err == nil && tx.sealed && tx.cost.RowsWritten > 0 && c.req.Payer.Token != "" && s.opt.Meter != nil {
		w.group.charge(c.req.Payer, tx.cost)
		c.req.Filed = true
	}
	return w.settle(c, translate(err, tx.quota))
}

// settle answers a call, now if it has seen nothing that is not yet durable, else with the group's commit.
func (w *worker) settle(c *call, err error) outcome {
	c.move(callRunning, callFinished)
	if !w.group.wrote {
		c.answer(err)
		return settled
	}
	c.err = err
	w.group.pending = append(w.group.pending, c)
	return settled
}

// runJob calls the Job. It tells whether the engine, or the Job, failed in a way that leaves the connection in a state
// that nobody knows; then it is given up.
func (w *worker) runJob(c *call, tx *Tx) (err error, fault bool) {
	defer func() {
		if r := recover(); r != nil {
			w.abandon(tx.a, r)
			err, fault = ErrFault, true
		}
	}()
	return c.req.Job.Run(tx), false
}

// conclude makes what a request wrote part of the group, or takes it back.
func (w *worker) conclude(tx *Tx, failed error) (err error, fault bool) {
	defer func() {
		if r := recover(); r != nil {
			w.abandon(tx.a, r)
			err, fault = ErrFault, true
		}
	}()
	if tx.lost {
		return failed, false
	}
	if err = failed; err == nil {
		err = tx.seal()
	}
	if err != nil {
		tx.undo()
	}
	if !tx.lost {
		tx.finish()
	}
	return err, false
}

// guard keeps a fault of the engine from ending the process: the connection is given up, and f's error is ErrFault.
func (w *worker) guard(a *actor, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			w.abandon(a, r)
			err = ErrFault
		}
	}()
	return f()
}

// commit ends the group's transaction and answers those who wait for it. alone says that the group is one call's.
func (w *worker) commit(a *actor, alone bool) {
	g := &w.group
	if !g.open {
		w.store.noteCommits(a) // one that a statement made by itself, VACUUM: what comes next has another position
		return
	}
	was := a.conn.Commits()
	var counted *filing
	var batch *Batch
	err := w.guard(a, func() (err error) {
		if counted, err = w.file(a); err != nil {
			return err
		}
		if batch, err = w.writeJournal(a); err != nil {
			return err
		}
		return w.own(a, "COMMIT")
	})
	if err == nil {
		w.filed(a, counted)
		w.journaled(a, batch)
		if a.conn.Commits() != was {
			w.store.opt.Observer.Commit()
			w.store.noteCommits(a)
		}
		pending := g.pending
		g.reset()
		for _, c := range pending {
			c.answer(c.err)
		}
		clear(pending)
		return
	}
	w.rollback(a)
	pending := append([]*call(nil), g.pending...)
	g.reset()
	for _, c := range pending {
		c.req.Filed = false
	}
	if err == ErrFault { // how far it came is not known either
		for _, c := range pending {
			c.answer(err)
		}
		return
	}
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code.Primary() == sqlite.CodeIOErr {
		// Whether the log holds the transaction is not known, and asking for the sync again would be told a
		// success that is none (the kernel forgets the pages that it could not write): reopen takes it out of the
		// log, so that no later commit builds on what may not be there.
		w.store.log.Error("commit failed: the disk reports an error", "database", a.id, "error", err)
		w.reopen(a)
		for _, c := range pending {
			c.answer(&wrapped{ErrStorage, err})
		}
		return
	}
	if alone || len(pending) == 1 {
		for _, c := range pending {
			c.answer(translate(err, false)) // pages are taken before the commit: a FULL is the disk's
		}
		return
	}
	for _, c := range pending {
		w.solo(a, c)
	}
}

func (g *group) reset() {
	g.open, g.wrote, g.altered = false, false, false
	g.pending = g.pending[:0]
	clear(g.bills)
	g.bills = g.bills[:0]
}

// begin opens the group's transaction if it isn't open.
func (w *worker) begin(a *actor) error {
	if w.group.open {
		return nil
	}
	if err := w.store.recall(a); err != nil {
		return &wrapped{ErrStorage, err}
	}
	if err := w.own(a, "BEGIN"); err != nil {
		return err
	}
	a.feed.clear()
	w.group.open = true
	w.group.began = w.stats.start
	return nil
}

// rollback ends the transaction with nothing written, if SQLite has not done that already.
func (w *worker) rollback(a *actor) {
	if a.conn != nil && a.conn.InTransaction() {
		if err := w.guard(a, func() error { return w.own(a, "ROLLBACK") }); err != nil {
			w.store.log.Error("rollback failed", "database", a.id, "error", err)
			w.reopen(a)
		}
	}
	if a.conn != nil {
		w.dropStale(a)
	}
	a.tables.forget()
	a.kept.forget()
	a.rec.forget()
	a.feed.clear()
	a.feed.forget()
}

// dropStale drops the statements that may have been compiled for a schema which a rollback took back. The group remembers
// that there was one: an earlier savepoint may hold it while a later one is undone.
func (w *worker) dropStale(a *actor) {
	if a.conn.Altered() {
		w.group.altered = true
	}
	if w.group.altered {
		a.conn.DropStatements()
	}
}

// own runs one of the actor's own statements: they must not be stopped by the watch of the request's.
func (w *worker) own(a *actor, sql string) error {
	a.conn.Watch(nil)
	err := a.conn.Exec(sql)
	a.conn.Watch(w.watch)
	return err
}

// checkpoint copies the log back, while the history takes what it needs of it: each waits for the disk by itself. After a failure it is not tried again
// before the log has grown: a full disk would make every group wait for it.
func (w *worker) checkpoint(a *actor) {
	kept := w.store.keepBeside(a)
	conn := a.conn
	conn.Watch(nil)
	a.checkpointAt = 0
	if err := w.guard(a, func() error { return conn.Checkpoint(sqlite.CheckpointPassive) }); err != nil {
		a.checkpointAt = conn.LogFrames() + checkpointFrames
		w.store.log.Warn("checkpoint failed; the log grows", "database", a.id, "error", err)
	}
	conn.Watch(w.watch)
	kept() // the next commit writes over the log
	w.store.mend(a)
}

// runStats is what the watch knows of the request that runs.
type runStats struct {
	start   time.Time
	yielded time.Time
	stmt    time.Time // when the running statement began
	writing bool
	turn    time.Time     // when its turn began, as a long statement; zero while it has none
	parked  time.Duration // that it waited for turns
}

const yieldAfter = 500 * time.Microsecond

// look is asked by the engine every 1,000 operations whether to go on.
func (w *worker) look() error {
	c := w.cur.Load()
	if c == nil {
		return nil
	}
	s := w.store
	now := s.opt.Now()
	if d := c.deadline.Load(); d != 0 && now.UnixNano() > d {
		return ErrTimeout
	}
	if s.stopping.Load() {
		return ErrClosing
	}
	if !w.stats.writing && c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	if err := w.evicted(c); err != nil {
		return err
	}
	if err := w.tx.afford(); err != nil {
		return err
	}
	if len(w.group.pending) > 0 && now.Sub(w.stats.stmt) > longStatement {
		return errPreempted
	}
	switch since := w.stats.turn; {
	case !since.IsZero() && now.Sub(since) > turnTime,
		// Not with finished work behind it: a group waits for nobody's turn.
		since.IsZero() && now.Sub(w.stats.start)-w.stats.parked > longAfter && len(w.group.pending) == 0:
		if err := w.takeTurn(c, now); err != nil {
			return err
		}
		now = s.opt.Now()
	}
	if now.Sub(w.stats.yielded) > yieldAfter {
		// Go would let a busy goroutine run for 10 ms; others have requests that take 10 µs.
		runtime.Gosched()
		w.stats.yielded = s.opt.Now()
	}
	return nil
}

func isNoMem(err error) bool {
	if err == nil {
		return false
	}
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code.Primary() == sqlite.CodeNoMem
}
