package api

import (
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// query serves POST /v1/db/:ns/:db/query.
func (s *Server) query(x *exchange) error {
	if err := x.readBody(); err != nil {
		return err
	}
	if err := wire.DecodeQuery(x.body, s.limits, &x.one); err != nil {
		return err
	}
	if err := x.readKey("query"); err != nil {
		return err
	}
	if err := x.openDatabase(true); err != nil {
		return err
	}
	return s.runQuery(x)
}

// runQuery runs the statement that was read.
func (s *Server) runQuery(x *exchange) error {
	x.call = heldCall{kind: kindQuery, body: x.body}
	x.reckons = true
	err := x.do((*queryJob)(&x.run))
	if x.lent {
		x.logAbandoned(x.one.SQL)
		return err
	}
	x.run.log(&x.one.Statement, err)
	if err == nil {
		x.replayHeader()
	}
	return err
}

// queryJob is run as a store.Job.
type queryJob run

// Run runs the one statement.
func (j *queryJob) Run(tx *store.Tx) error {
	r := (*run)(j)
	x := r.x
	r.start(tx.Began())
	st := &x.one.Statement
	if done, err := x.replay(tx); done || err != nil {
		return err
	}
	if x.proposal != nil {
		now, err := schemaMark(tx)
		if err != nil {
			return err
		}
		r.drift.schema = now != x.proposal.SchemaVersion
	}
	if err := x.spend(tx); err != nil {
		return err
	}
	s, err := r.prepare(tx, st.SQL)
	if err != nil {
		r.note(store.Result{}, 0, err)
		return err
	}
	defer s.Done()
	if x.key.reused && s.Writes {
		return store.ErrKeyReused
	}
	x.success()
	out, res, err := r.execute(tx, s, st, x.out)
	x.out = out
	span := tx.End().Sub(r.began)
	r.note(res, span, err)
	if err != nil {
		return err
	}
	r.drift.rows = x.proposal != nil && far(res.Changes, x.proposal.Estimate)
	out = append(out, `,"meta":`...)
	at := len(out)
	out = r.appendMeta(out, 1, span)
	end := len(out)
	out = append(out, `},"meta":`...)
	out = append(out, out[at:end]...)
	x.out = append(out, '}')
	if x.key.given && s.Writes {
		return x.keep(tx)
	}
	return nil
}
