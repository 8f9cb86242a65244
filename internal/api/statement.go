package api

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

var errResultTooLarge = errors.New("result too large")

// run is the job of a query or a batch. The actor may run it more than once, so each run begins with start.
type run struct {
	x *exchange

	began   time.Time
	at      atomic.Int32   // the statement of a batch that runs; read when it is abandoned
	results []store.Result // of the statements that ran, for the query log
	spans   []time.Duration
	entries []querylog.Entry // for the query log; empty between requests
	failed  error            // of the last of them, if it failed
	read    int64
	written int64

	b      []byte        // the result being written
	first  bool          // no row of it is written
	hide   int           // the column that is shown empty, or -1
	width  int           // how many columns are shown
	checks *gate.Refusal // what a row is refused with whose last column, which isn't shown, isn't true; nil if none is checked
	rows   int64         // of the result
	row    func(*sqlite.Stmt) error

	snapshot store.Snapshot // that was taken before a statement of the request; no id if none was
	position uint64         // of the transaction that the request wrote in; 0 if it wrote nothing

	drift drift // of a proposal that is applied

	meteredRead, meteredWritten int64 // what the statements really cost, where less is told
}

func (r *run) reset() {
	clear(r.results)
	r.results, r.spans = r.results[:0], r.spans[:0]
	r.began, r.failed, r.read, r.written, r.b, r.first, r.hide = time.Time{}, nil, 0, 0, nil, false, 0
	r.at.Store(0)
}

// start forgets what an earlier run of the same job did.
func (r *run) start(began time.Time) {
	r.results, r.spans, r.failed = r.results[:0], r.spans[:0], nil
	r.snapshot, r.position = store.Snapshot{}, 0
	r.read, r.written, r.meteredRead, r.meteredWritten = 0, 0, 0, 0
	r.x.out = r.x.out[:0]
	r.x.parts = r.x.parts[:0]
	r.x.status = http.StatusOK
	r.x.key.replayed, r.x.key.retry = false, 0
	r.began = began
	if r.row == nil {
		r.row = r.appendRow
	}
}

// prepare compiles a text that must hold exactly one statement.
func (r *run) prepare(tx *store.Tx, sql []byte) (*sqlite.Stmt, error) {
	s, n, err := tx.Prepare(sql)
	if err != nil {
		return nil, r.uncompiled(tx, err, sql)
	}
	for s == nil && n > 0 && n < len(sql) { // a lone semicolon, or a comment, before it
		var m int
		s, m, err = tx.Prepare(sql[n:])
		if err != nil {
			return nil, r.uncompiled(tx, err, sql)
		}
		if m == 0 {
			break
		}
		n += m
	}
	if s == nil {
		f := newFault(http.StatusBadRequest, codeSyntax, "There is no statement in the SQL", "")
		f.detail = &sqlDetail{kind: kindSyntax, message: f.message, offset: -1}
		return nil, f
	}
	for rest := sql[n:]; len(rest) > 0; {
		second, m, err := tx.Prepare(rest)
		if second != nil {
			second.Done()
		}
		if second != nil || err != nil {
			s.Done()
			f := newFault(http.StatusBadRequest, codeSyntax, "Only one statement can be sent at a time", "send several as a batch: POST …/batch")
			f.detail = &sqlDetail{kind: kindSyntax, message: f.message, hint: f.hint, offset: len(sql) - len(rest)}
			return nil, f
		}
		if m == 0 {
			break
		}
		rest = rest[m:]
	}
	return s, nil
}

// execute runs a compiled statement and appends its result to b.
func (r *run) execute(tx *store.Tx, s *sqlite.Stmt, st *wire.Statement, b []byte) ([]byte, store.Result, error) {
	var checks bool
	r.width, r.rows = s.Columns(), 0
	if checks, r.checks = gate.ChecksRow(s); checks {
		r.width--
	}
	b = append(b, `{"columns":[`...)
	for i := range r.width {
		if i > 0 {
			b = append(b, ',')
		}
		b = wire.AppendText(b, s.ColumnName(i))
	}
	b = append(b, `],"rows":[`...)
	r.b, r.first, r.hide = b, true, gate.PathColumn(s)
	before, err := r.x.namesBefore(tx, s)
	if err != nil {
		return r.b, store.Result{}, err
	}
	if s.Writes && r.x.s.opt.Past != nil {
		if what := gate.Destructive(s); what != "" {
			if err := r.automatic(tx, what); err != nil {
				return r.b, store.Result{}, err
			}
		}
	}
	rows := len(r.b)
	res, err := tx.Run(s, st.Params, r.row)
	if err != nil {
		var fenced *sqlite.Stmt
		if fenced, err = tx.Fenced(s, err); fenced != nil {
			r.b, r.first, r.rows = r.b[:rows], true, 0
			res, err = tx.Run(fenced, st.Params, r.row)
			fenced.Done()
		}
	}
	b, r.b = r.b, nil
	if err == nil {
		err = before.refuseNew(tx, &r.x.gate)
	}
	if err != nil {
		return b, res, r.explain(tx, err, st.SQL, target(s))
	}
	if s.Writes && (res.Changes > 0 || res.RowsWritten > 0 || s.Alters || s.Vacuum || r.snapshot.ID != "" || setsNumber(s)) {
		r.position = tx.Position()
	}
	r.meteredRead += res.RowsRead
	r.meteredWritten += res.RowsWritten
	if r.x.gate.Caller.Bound() {
		// What else was read or written, by triggers and keys too, would tell of rows that policies hide.
		res.RowsRead, res.RowsWritten = r.rows, res.Changes
	}
	b = append(b, `],"rowsRead":`...)
	b = wire.AppendInt(b, res.RowsRead)
	b = append(b, `,"rowsWritten":`...)
	b = wire.AppendInt(b, res.RowsWritten)
	b = append(b, `,"changes":`...)
	b = wire.AppendInt(b, res.Changes)
	b = append(b, `,"lastInsertRowid":`...)
	b = wire.AppendInt(b, res.LastInsertRowid)
	r.read += res.RowsRead
	r.written += res.RowsWritten
	return b, res, nil
}

// setsNumber tells whether a statement sets a number in the file's header: it writes, and no row.
func setsNumber(s *sqlite.Stmt) bool {
	return slices.ContainsFunc(s.Accesses, func(a sqlite.Access) bool {
		return a.Action == sqlite.Pragma && (strings.EqualFold(a.Name, "user_version") || strings.EqualFold(a.Name, "application_id"))
	})
}

// appendRow writes one row straight from the engine's memory.
func (r *run) appendRow(s *sqlite.Stmt) error {
	if r.checks != nil && s.Column(r.width).Int == 0 {
		return r.checks
	}
	if r.width == 0 {
		return nil
	}
	r.rows++
	b := r.b
	if r.first {
		r.first = false
		b = append(b, '[')
	} else {
		b = append(b, ',', '[')
	}
	limit := int(r.x.s.opt.MaxResult)
	for i := range r.width {
		if i > 0 {
			b = append(b, ',')
		}
		v := s.Column(i)
		if i == r.hide {
			v = sqlite.Value{Kind: sqlite.Text}
		}
		if len(b)+len(v.Bytes) > limit {
			return errResultTooLarge
		}
		b = wire.AppendValue(b, v)
	}
	b = append(b, ']')
	r.b = b
	if len(b) > limit {
		return errResultTooLarge
	}
	if cap(b) > freeBuffer {
		return r.x.charge(int(bodyFactor*len(r.x.body)) + cap(b))
	}
	return nil
}

// uncompiled is explain for a statement that could not be compiled.
func (r *run) uncompiled(tx *store.Tx, err error, sql []byte) error {
	err = r.explain(tx, err, sql, "")
	var f *fault
	if errors.As(err, &f) {
		if f.detail != nil && f.detail.kind == kindSyntax {
			return err // it tells nothing of any table
		}
		if hidden := hiddenName(tx, &r.x.gate.Caller, sql); hidden != nil {
			return hidden
		}
	}
	return err
}

// explain makes what the client is told of an error of a statement, with the nearest names that exist.
func (r *run) explain(tx *store.Tx, err error, sql []byte, table string) error {
	err = tx.Explain(err)
	var e *sqlite.Error
	if !errors.As(err, &e) || e.Cause != nil {
		return err
	}
	switch e.Code.Primary() {
	case sqlite.CodeError, sqlite.CodeConstraint, sqlite.CodeMismatch, sqlite.CodeRange, sqlite.CodeTooBig:
	case sqlite.CodeCorrupt:
		if errors.Is(err, store.ErrDamaged) {
			return err
		}
	default:
		return err
	}
	f := sqlFault(e, sql, table)
	suggest(tx, &r.x.gate.Caller, f.detail)
	f.hint = f.detail.hint
	return f
}

// target is the table that a statement itself writes to; "" for none.
func target(s *sqlite.Stmt) string {
	for i := range s.Accesses {
		switch a := &s.Accesses[i]; a.Action {
		case sqlite.Insert, sqlite.Update, sqlite.Delete:
			if a.By == "" {
				return a.Name
			}
		}
	}
	return ""
}

// note keeps what a statement cost, for the query log.
func (r *run) note(res store.Result, span time.Duration, err error) {
	r.results = append(r.results, res)
	r.spans = append(r.spans, span)
	r.failed = err
}

// appendMeta writes the meta object of a query or batch.
func (r *run) appendMeta(b []byte, statements int, d time.Duration) []byte {
	b = append(b, `{"rowsRead":`...)
	b = wire.AppendInt(b, r.read)
	b = append(b, `,"rowsWritten":`...)
	b = wire.AppendInt(b, r.written)
	b = append(b, `,"durationMs":`...)
	b = appendMillis(b, d)
	b = append(b, `,"statementCount":`...)
	b = wire.AppendInt(b, int64(statements))
	if !r.x.gate.Caller.Bound() {
		b = r.x.appendCost(b, r.read, r.written)
	}
	if r.snapshot.ID != "" {
		b = append(b, `,"snapshot":{"id":`...)
		b = wire.AppendString(b, r.snapshot.ID)
		b = append(b, `,"label":`...)
		b = wire.AppendString(b, r.snapshot.Label)
		b = append(b, '}')
	}
	if r.position != 0 {
		b = append(b, `,"bookmark":"`...)
		b = append(history.AppendBookmark(b, r.x.database.ID, r.position), '"')
	}
	return append(r.appendDrift(b), '}')
}

// appendMillis writes a duration in milliseconds with three decimals.
func appendMillis(b []byte, d time.Duration) []byte {
	us := max(0, d.Microseconds())
	b = wire.AppendInt(b, us/1000)
	us %= 1000
	return append(b, '.', byte('0'+us/100), byte('0'+us/10%10), byte('0'+us%10))
}
