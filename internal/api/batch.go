package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// batch serves POST /v1/db/:ns/:db/batch.
func (s *Server) batch(x *exchange) error {
	if err := x.readBody(); err != nil {
		return err
	}
	if err := wire.DecodeBatch(x.body, s.limits, &x.many); err != nil {
		return err
	}
	if err := x.readKey("batch"); err != nil {
		return err
	}
	if err := x.openDatabase(true); err != nil {
		return err
	}
	return s.runBatch(x)
}

// runBatch runs the statements that were read.
func (s *Server) runBatch(x *exchange) error {
	x.call = heldCall{kind: kindBatch, body: x.body}
	x.reckons = true
	x.gate.Batch = x.many.Transaction
	x.request.Steps = !x.many.Transaction
	x.run.at.Store(0)
	err := x.do((*batchJob)(&x.run))
	if x.lent {
		// All of it is being undone, what came before the statement too.
		at := int(x.run.at.Load())
		x.logAbandoned(x.many.Statements[at].SQL)
		f := *s.faultOf(err)
		f.index, f.atomic = at, true
		return &batchFault{fault: f, err: err}
	}
	x.run.logBatch(x.many.Statements, err)
	if err == nil {
		x.replayHeader()
	}
	return err
}

// batchJob is run as a store.Job.
type batchJob run

// Run runs the statements in order. In a transaction the first failure undoes all of them; without one each stands by
// itself, and a failure stops the rest: then the failure is the answer, and what ran before is kept.
func (j *batchJob) Run(tx *store.Tx) error {
	r := (*run)(j)
	x := r.x
	r.start(tx.Began())
	atomic := x.many.Transaction
	if done, err := x.replay(tx); done || err != nil {
		return err
	}
	if err := r.judgeWhole(tx); err != nil {
		return err
	}
	// From here on all of it runs, so that people are asked for all of it once: what is held is undone at the end.
	x.gate.Whole = true
	defer func() { x.gate.Whole = false }()
	if err := x.spend(tx); err != nil {
		return err
	}
	last := r.began
	x.parts = x.parts[:0]
	for i := range x.many.Statements {
		st := &x.many.Statements[i]
		mark := len(x.parts)
		var res store.Result
		r.at.Store(int32(i))
		s, err := r.prepare(tx, st.SQL)
		if err == nil && s.Vacuum {
			s.Done()
			err = newFault(http.StatusBadRequest, "not_in_batch", "VACUUM can't be part of a batch", "send it as a query of its own")
		}
		if err == nil {
			if s.Writes && x.key.reused {
				s.Done()
				return store.ErrKeyReused
			}
			if i > 0 {
				x.parts = append(x.parts, ',')
			}
			x.parts, res, err = r.execute(tx, s, st, x.parts)
			s.Done()
			if err == nil && len(x.parts) >= int(x.s.opt.MaxResult) {
				err = errResultTooLarge
			}
			switch {
			case err != nil:
			case !atomic:
				err = tx.Commit()
			case i == len(x.many.Statements)-1:
				err = tx.CheckDeferred() // which the commit would fail for, after the answer was written
			}
			if err != nil {
				err = r.explainRaw(tx, err, st.SQL)
			}
		}
		now := tx.End()
		r.note(res, now.Sub(last), err)
		last = now
		if err != nil {
			if tx.Again() {
				return err // nobody is told of it
			}
			x.parts = x.parts[:mark]
			if !atomic {
				tx.Undo()
			}
			return r.fail(tx, err, i, atomic)
		}
		x.parts = append(x.parts, '}')
	}
	x.success()
	x.out = append(x.out, '[')
	x.out = append(x.out, x.parts...)
	x.out = append(x.out, `],"meta":`...)
	x.out = r.appendMeta(x.out, len(x.many.Statements), last.Sub(r.began))
	x.out = append(x.out, '}')
	if x.key.given && tx.Wrote() {
		return x.keep(tx)
	}
	return nil
}

// explainRaw is explain for an error that may have been explained already. It stands alone since its variable takes memory, which a statement that succeeds needn't pay.
func (r *run) explainRaw(tx *store.Tx, err error, sql []byte) error {
	var raw *sqlite.Error
	if errors.As(err, &raw) {
		return r.explain(tx, err, sql, "")
	}
	return err
}

// judgeWhole judges a batch before any of it runs, where the database has approval rules: it is held or refused as a whole. A statement that doesn't compile yet, because it uses
// what an earlier one makes, is judged when it is reached.
func (r *run) judgeWhole(tx *store.Tx) error {
	rules := r.x.gate.Rules
	if rules == nil || gate.Off("rule of a batch") {
		return nil
	}
	var hits []approval.Hit
	for i := range r.x.many.Statements {
		s, err := r.prepare(tx, r.x.many.Statements[i].SQL)
		var stop *approval.Stop
		switch {
		case err == nil:
			s.Done()
		case errors.As(err, &stop):
			hits = rules.Merge(hits, stop.Hits)
		case tx.Again():
			return err
		}
	}
	if len(hits) > 0 {
		return &approval.Stop{Hits: hits}
	}
	return nil
}

// fail ends a batch at statement i.
func (r *run) fail(tx *store.Tx, err error, i int, atomic bool) error {
	x := r.x
	var stop *approval.Stop
	var drifted *approval.DriftError
	if (errors.As(err, &stop) || errors.As(err, &drifted)) && !atomic && !gate.Off("rule of a step") {
		return err // it is held as a whole: what ran before is undone
	}
	f := *x.s.faultOf(err)
	f.index = i
	if atomic {
		f.atomic = true
		return &batchFault{fault: f, err: err}
	}
	if f.status == http.StatusRequestTimeout {
		// What the answer says is the same; the time limit is what ended it.
		f.hint = "the statements before it were kept"
	}
	x.status = f.status
	if x.parts == nil {
		x.parts = []byte{} // nothing was kept, and the envelope says so
	}
	x.out = x.appendFault(x.out[:0], &f, x.parts)
	if f.status != http.StatusPaymentRequired || tx.Spent() != (sqlite.Counts{}) { // else it is a refusal before its work, and costs nothing
		x.out = x.appendSpent(x.out, tx.Spent())
	}
	x.key.retry = f.retry
	if x.key.given && len(x.parts) > 0 && tx.Wrote() {
		return x.keep(tx)
	}
	return nil
}

// batchFault is the failure of a batch in a transaction: its fault knows the statement, and the engine's error stays
// for the store to see.
type batchFault struct {
	fault fault
	err   error
}

func (b *batchFault) Error() string { return b.fault.message }
func (b *batchFault) Unwrap() error { return b.err }

func (b *batchFault) As(target any) bool {
	if f, ok := target.(**fault); ok {
		*f = &b.fault
		return true
	}
	return false
}

// log writes a query's statement to the query log.
func (r *run) log(st *wire.Statement, err error) {
	if len(r.results) == 0 {
		if err != nil {
			r.entry(st.SQL, store.Result{}, 0, err)
		}
		return // a replay: nothing ran
	}
	if err == nil {
		err = r.failed
	}
	r.entry(st.SQL, r.results[0], r.spans[0], err)
	r.x.s.opt.Metrics.rows(r.meteredRead, r.meteredWritten)
}

// logBatch writes each statement of a batch that ran.
func (r *run) logBatch(statements []wire.Statement, err error) {
	if len(r.results) == 0 && err != nil {
		r.entry(statements[0].SQL, store.Result{}, 0, err)
	}
	if r.x.s.opt.QueryLog != nil && r.x.database != nil && len(r.results) > 0 {
		r.entries = r.entries[:0]
		for i := range r.results {
			var failed error
			if i == len(r.results)-1 {
				failed = r.failed
			}
			r.entries = append(r.entries, r.logged(statements[i].SQL, r.results[i], r.spans[i], failed))
		}
		r.x.s.opt.QueryLog.AppendAll(r.entries)
		clear(r.entries) // the statements' texts are the request's
	}
	r.x.s.opt.Metrics.rows(r.meteredRead, r.meteredWritten)
}

// shortOf is the error's sentence for the query log.
func (s *Server) shortOf(err error) string {
	if err == nil {
		return ""
	}
	var e *sqlite.Error
	if errors.As(err, &e) && e.Cause == nil {
		return e.Message
	}
	return s.faultOf(err).message
}

// logAbandoned notes a statement that is still being undone.
func (x *exchange) logAbandoned(sql []byte) {
	x.run.entry(sql, store.Result{}, time.Duration(0), store.ErrTimeout)
}
