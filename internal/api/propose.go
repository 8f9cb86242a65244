package api

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// The bounds of proposals.
const (
	proposalLives = 10 * time.Minute
	maxProposal   = time.Hour
	maxProposals  = 1_000 // open ones of a bearer

	// What an estimate may take: a run that is undone holds the database meanwhile.
	estimateTime = 2 * time.Second
	estimateRows = 1_000_000 // read and written
)

// estimate is what a statement would change.
type estimate struct {
	rows int64 // negative where nobody knows
	by   string
	plan []byte // JSON
}

var errEstimateBudget = errors.New("the estimate takes too long")

// thrift stops an estimate that costs too much time or rows, besides what the request can afford.
type thrift struct {
	budget store.Budget // of the request; nil is none
	now    func() time.Time
	until  time.Time
}

// Afford returns what the estimate is stopped with.
func (t *thrift) Afford(c sqlite.Counts) error {
	if t.budget != nil {
		if err := t.budget.Afford(c); err != nil {
			return err
		}
	}
	if c.RowsRead+c.RowsWritten > estimateRows || t.now().After(t.until) {
		return errEstimateBudget
	}
	return nil
}

// propose serves POST …/propose: what a statement would do, and the right to run it once.
func (s *Server) propose(x *exchange) error {
	if err := x.refuseAnyKey(); err != nil {
		return err
	}
	if err := x.readStatement(); err != nil {
		return err
	}
	var req struct {
		TTL *float64 `json:"ttlSec"`
	}
	if err := json.Unmarshal(x.body, &req); err != nil {
		return newFault(http.StatusBadRequest, codeBadRequest, "ttlSec must be a number", "")
	}
	lives := proposalLives
	if req.TTL != nil {
		if *req.TTL < 1 || *req.TTL > maxProposal.Seconds() || *req.TTL != float64(int(*req.TTL)) {
			return newFault(http.StatusBadRequest, codeBadRequest, "ttlSec must be a whole number of seconds from 1 to 3600", "leave it out for 600")
		}
		lives = time.Duration(*req.TTL) * time.Second
	}
	if len(x.body) > maxHeld {
		return newFault(http.StatusRequestEntityTooLarge, "proposal_too_large", fmt.Sprintf("A proposal has at most %d bytes", maxHeld), "send it as a query")
	}
	x.reckons = true
	began := s.opt.Now()
	look, err := x.looked()
	if err != nil {
		return err
	}
	p := catalog.Proposal{DatabaseID: x.database.ID, Requester: x.token.ID, Request: x.body, SchemaVersion: look.schema, Estimate: look.rows, EstimatedBy: look.by,
		ExpiresAt: s.opt.Now().Add(lives).UTC().Truncate(time.Millisecond)}
	token, err := s.opt.Catalog.Propose(x.r.Context(), p, x.database.NamespaceID, maxProposals)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"sql":`...)
	b = wire.AppendText(b, x.one.SQL)
	b = append(b, `,"plan":`...)
	b = append(b, look.plan...)
	b = append(b, `,"estimatedAffectedRows":`...)
	if look.rows < 0 {
		b = append(b, `null`...)
	} else {
		b = wire.AppendInt(b, look.rows)
	}
	b = append(b, `,"executionToken":`...)
	b = wire.AppendString(b, token)
	b = append(b, `,"expiresAt":`...)
	b = appendTime(b, p.ExpiresAt)
	b = append(b, `,"action":`...)
	b = wire.AppendString(b, look.action)
	b = append(b, `},"meta":{"estimate":`...)
	b = wire.AppendString(b, look.by)
	b = append(b, `,"rowsRead":`...)
	read := x.tab.spent.RowsRead
	if x.gate.Caller.Bound() {
		read = 0
	}
	b = wire.AppendInt(b, read)
	b = append(b, `,"rowsWritten":0,"durationMs":`...)
	b = appendMillis(b, s.opt.Now().Sub(began))
	if !x.gate.Caller.Bound() {
		b = x.appendCost(b, read, 0)
	}
	x.out = append(b, `}}`...)
	return nil
}

// looked is what was found out of a statement.
type looked struct {
	estimate
	action string
	schema int64
}

// looked compiles the statement, and runs it in a transaction that is undone.
func (x *exchange) looked() (look looked, err error) {
	x.unruled = true // nothing of it stays; when it is applied, rules count
	defer func() { x.unruled = false }()
	count := ""
	began, allowed := x.s.opt.Now(), min(estimateTime, x.s.opt.StatementTimeout/2) // of both
	look, count, err = x.tryOut("", began.Add(allowed/2))
	if errors.Is(err, errEstimateBudget) && count != "" {
		// It is run anew: the one before was stopped, and undone.
		if again, _, cerr := x.tryOut(count, began.Add(allowed)); cerr == nil {
			look, err = again, nil
		} else if !errors.Is(cerr, errEstimateBudget) {
			return look, cerr
		}
	}
	x.tab.spent.RowsWritten = 0 // they were undone, as they were meant to be
	if errors.Is(err, errEstimateBudget) {
		look.rows, look.by, err = -1, catalog.EstimateNone, nil
	}
	return look, err
}

// tryOut runs the statement and undoes it, or in its place counts; instead is what counts.
func (x *exchange) tryOut(instead string, until time.Time) (look looked, count string, err error) {
	x.request.Alone = true
	x.thrift = &thrift{now: x.s.opt.Now, until: until}
	defer func() { x.request.Alone, x.thrift = false, nil }()
	err = x.do(store.JobFunc(func(tx *store.Tx) error {
		r := &x.run
		r.start(tx.Began())
		look, count = looked{estimate: estimate{rows: -1, by: catalog.EstimateNone}, action: "read"}, ""
		if look.schema, err = schemaMark(tx); err != nil {
			return err
		}
		st, err := r.prepare(tx, x.one.SQL)
		if err != nil {
			return err
		}
		defer st.Done()
		if st.Vacuum {
			return newFault(http.StatusBadRequest, "not_proposable", "VACUUM can't be proposed", "send it as a query of its own")
		}
		switch {
		case gate.DefinesSchema(st):
			look.action = "ddl"
		case st.Writes:
			look.action = "write"
		}
		if look.plan, err = x.planRows(tx, st); err != nil {
			return err
		}
		if look.action != "write" {
			return errForeseen
		}
		if instead != "" {
			counting, err := r.prepare(tx, []byte(instead))
			if err != nil {
				return err
			}
			defer counting.Done()
			_, err = tx.Run(counting, x.one.Params, func(s *sqlite.Stmt) error {
				look.rows, look.by = s.Column(0).Int, catalog.EstimateCounted
				return nil
			})
			if err != nil {
				return err
			}
			return errForeseen
		}
		if !gate.Mixed(st) { // under policies a count would be another statement than the one that runs
			count = gate.CountOf(st)
		}
		var refused func(*sqlite.Stmt) error
		if checks, refusal := gate.ChecksRow(st); checks {
			refused = func(s *sqlite.Stmt) error {
				if s.Column(s.Columns()-1).Int == 0 {
					return refusal
				}
				return nil
			}
		}
		res, err := tx.Run(st, x.one.Params, refused)
		if err != nil {
			if errors.Is(err, errEstimateBudget) {
				return err
			}
			return r.explain(tx, err, x.one.SQL, target(st))
		}
		look.rows, look.by = res.Changes, catalog.EstimateExact
		return errForeseen
	}))
	if errors.Is(err, errForeseen) {
		err = nil
	}
	return look, count, err
}

// planRows is EXPLAIN QUERY PLAN of a compiled statement, as JSON. Under policies it is empty: it could tell of hidden rows.
func (x *exchange) planRows(tx *store.Tx, st *sqlite.Stmt) ([]byte, error) {
	b := []byte{'['}
	if !gate.Mixed(st) && !st.Explain {
		explained, err := x.run.prepare(tx, append([]byte(explainPrefix), st.SQL()...))
		if err != nil {
			return nil, err
		}
		defer explained.Done()
		if _, err = tx.Run(explained, x.one.Params, func(s *sqlite.Stmt) error {
			if len(b) > 1 {
				b = append(b, ',')
			}
			b = append(b, '[')
			for i := range s.Columns() {
				if i > 0 {
					b = append(b, ',')
				}
				b = wire.AppendValue(b, s.Column(i))
			}
			b = append(b, ']')
			return nil
		}); err != nil {
			return nil, x.run.explain(tx, err, x.one.SQL, "")
		}
	}
	return append(b, ']'), nil
}

// schemaMark is another number for another schema of the tenant's: the server's own tables, which come and go, aren't part of it.
func schemaMark(tx *store.Tx) (int64, error) {
	sum := sha256.New()
	err := tx.Query(`SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite\_persql\_%' ESCAPE '\' AND tbl_name NOT LIKE 'sqlite\_persql\_%' ESCAPE '\' ORDER BY type, name`, nil, func(s *sqlite.Stmt) error {
		for i := range 4 {
			v := s.Column(i).Bytes
			fmt.Fprintf(sum, "%d:", len(v))
			sum.Write(v)
		}
		return nil
	})
	return int64(binary.BigEndian.Uint64(sum.Sum(nil))), err
}

// apply serves POST …/apply: the statement that was proposed, once.
func (s *Server) apply(x *exchange) error {
	if err := x.refuseAnyKey(); err != nil {
		return err
	}
	var req struct {
		ExecutionToken string `json:"executionToken"`
	}
	if err := x.object(&req); err != nil {
		return err
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	p, err := s.opt.Catalog.Proposal(x.r.Context(), req.ExecutionToken, x.token.ID, x.database.ID)
	if err != nil {
		return err
	}
	x.body = append(x.body[:0], p.Request...)
	if err := wire.DecodeQuery(x.body, s.limits, &x.one); err != nil {
		return err
	}
	x.permit, x.proposal = store.Permit{ID: p.ID, Until: p.ExpiresAt}, p
	err = s.runQuery(x)
	spent := errors.Is(err, store.ErrSpent)
	if err != nil && !spent {
		return err
	}
	if aerr := s.opt.Catalog.Applied(context.WithoutCancel(x.r.Context()), p.ID); aerr != nil {
		s.log.Warn("forget a proposal that was applied; nobody can apply it again", "proposal", p.ID, "error", aerr)
	}
	if spent {
		return catalog.ErrProposal
	}
	return nil
}

// drift is what became untrue of a proposal.
type drift struct{ schema, rows bool }

// appendDrift adds to a meta object, before its brace, what became untrue of the proposal that was applied.
func (r *run) appendDrift(b []byte) []byte {
	p := r.x.proposal
	if p == nil {
		return b
	}
	b = append(b, `,"drift":{"schema":`...)
	b = fmt.Appendf(b, `%t,"estimate":%t`, r.drift.schema, r.drift.rows)
	b = append(b, `,"estimatedAffectedRows":`...)
	if p.Estimate < 0 {
		b = append(b, `null`...)
	} else {
		b = wire.AppendInt(b, p.Estimate)
	}
	return append(b, '}')
}

// far tells whether a number of rows is far from what was estimated.
func far(rows, estimated int64) bool {
	return estimated >= 0 && (rows > 2*estimated+10 || rows < estimated/2-10)
}
