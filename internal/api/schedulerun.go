package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/schedule"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// A schedule's run is a query or a batch that nobody sent: it goes the same way, from the purse to the actor.

// schedulePrefix begins what stands for a schedule where a token's id would.
const schedulePrefix = catalog.ScheduleRequester

// maxRunError is how much of a failure is kept, in characters.
const maxRunError = 2000

var errMakerGone = newFault(http.StatusForbidden, "schedule_not_allowed", "Whoever gave the schedule its SQL may not run it any more",
	"the token was revoked or is expired, or the member has left or is no admin; an admin takes it over by PATCH …/schedules/:id with sql")

// runSchedule runs a schedule once. It is the runner's, and nobody else's.
func (s *Server) runSchedule(ctx context.Context, sc *schedule.Schedule) (result schedule.Result) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/", http.NoBody)
	if err != nil {
		return schedule.Result{Status: schedule.Failed, Error: err.Error()}
	}
	x := s.take(nil, r)
	x.came = s.opt.Now()
	defer func() {
		if p := recover(); p != nil { // it isn't used again: who knows what still uses it
			x.refund()
			panic(p)
		}
	}()
	err = x.runAs(sc)
	status := http.StatusOK
	result.Status = schedule.OK
	if err != nil {
		status = s.resultOf(x, sc, err, &result)
	}
	x.settle(status)
	counted := x.tab.spent
	if status >= http.StatusInternalServerError { // the server's failures are at nobody's cost, but for what the file has counted
		counted = x.tab.filed
	}
	result.RowsRead, result.RowsWritten = counted.RowsRead, counted.RowsWritten
	s.give(x)
	return result
}

// runAs runs a schedule as the one who answers for it.
func (x *exchange) runAs(sc *schedule.Schedule) error {
	d, err := x.s.opt.Catalog.DatabaseByID(sc.DatabaseID)
	if err != nil {
		return err
	}
	if d.Expired(x.s.opt.Now()) {
		return catalog.ErrDatabaseEnded
	}
	if x.token, err = x.s.scheduleToken(x.r.Context(), sc, d); err != nil {
		return err
	}
	x.database = d
	if err := x.bill(); err != nil {
		return err
	}
	err = x.runSQL(sc.SQL)
	var stop *approval.Stop
	if errors.As(err, &stop) {
		return &stoppedRun{stop: stop, err: x.held(err)}
	}
	return err
}

// stoppedRun is a run that a rule stopped, with what a client would be told of it.
type stoppedRun struct {
	stop *approval.Stop
	err  error
}

func (s *stoppedRun) Error() string { return s.err.Error() }
func (s *stoppedRun) Unwrap() error { return s.err }

// runSQL runs a schedule's SQL: what people have approved of it, once, if they have.
func (x *exchange) runSQL(sql string) error {
	kind, body, err := scheduledBody(sql)
	if err != nil {
		return err
	}
	if err := x.readCall(kind, body); err != nil {
		return err
	}
	a, err := x.approvedRun()
	if err != nil {
		return err
	}
	if a != nil {
		x.redeemed, x.body = a, append(x.body[:0], x.approved.Body...)
		err = x.concludeRedeem(a, x.runApproved(a))
		if err == nil || !gone(x.s.faultOf(err)) {
			return err
		}
		// It isn't any more what people approved, or somebody else has run it: it is asked for anew.
		x.redeemed, x.approved, x.pass, x.permit, x.asked = nil, heldRequest{}, nil, store.Permit{}, nil
		if err := x.readCall(kind, body); err != nil {
			return err
		}
	}
	if kind == kindBatch {
		return x.s.runBatch(x)
	}
	return x.s.runQuery(x)
}

// scheduledBatch is the body of a batch, as a run of several statements keeps it for people to approve.
type scheduledBatch struct {
	Statements  []scheduledStatement `json:"statements"`
	Transaction bool                 `json:"transaction"`
}

type scheduledStatement struct {
	SQL string `json:"sql"`
}

// scheduledBody is the query or batch that a schedule's SQL stands for.
func scheduledBody(sql string) (kind string, body []byte, err error) {
	statements, _, ok := gate.Split(sql)
	if !ok || len(statements) == 0 {
		return "", nil, newFault(http.StatusBadRequest, codeSyntax, "There is no statement in the SQL", "")
	}
	if len(statements) == 1 {
		body, err = json.Marshal(scheduledStatement{statements[0]})
		return kindQuery, body, err
	}
	batch := scheduledBatch{Transaction: true}
	for _, text := range statements {
		batch.Statements = append(batch.Statements, scheduledStatement{text})
	}
	body, err = json.Marshal(batch)
	return kindBatch, body, err
}

// gone tells whether an approval can't be redeemed any more.
func gone(f *fault) bool { return f.code == codeApprovalMismatch || f == errNotRedeemable }

// readCall makes the exchange one of a query or a batch.
func (x *exchange) readCall(kind string, body []byte) error {
	x.body = append(x.body[:0], body...)
	x.call = heldCall{kind: kind, body: x.body}
	if kind == kindBatch {
		return wire.DecodeBatch(x.body, x.s.limits, &x.many)
	}
	return wire.DecodeQuery(x.body, x.s.limits, &x.one)
}

// approvedRun takes up the approval of just this by this schedule, if there is one that wasn't used; nil if there is none.
func (x *exchange) approvedRun() (*catalog.Approval, error) {
	if x.database.Rules == nil {
		return nil, nil
	}
	print, err := x.fingerprint()
	if err != nil {
		return nil, err
	}
	a, err := x.s.opt.Catalog.Approved(x.r.Context(), x.database.ID, x.token.ID, print)
	if errors.Is(err, catalog.ErrApprovalNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	taken, err := x.takeUp(a.ID)
	if err != nil && x.s.faultOf(err).status < http.StatusInternalServerError {
		return nil, nil // it was used, or is over, by now
	}
	return taken, err
}

// scheduleToken is what a schedule's run has for a token: the rights of who answers for it, as they are now, which must be an admin's.
func (s *Server) scheduleToken(ctx context.Context, sc *schedule.Schedule, d *catalog.Database) (*catalog.Token, error) {
	maker, err := s.bearer(ctx, sc.RunsAs, d.NamespaceID)
	if err != nil {
		if errors.Is(err, errRequesterGone) {
			err = errMakerGone
		}
		return nil, err
	}
	if maker.NamespaceID != d.NamespaceID || gate.LevelOf(maker.Role) < gate.LevelAdmin || maker.TableScope != nil || maker.Claims != nil ||
		maker.Database != "" && maker.Database != d.ID || maker.Test && !d.Test {
		return nil, errMakerGone
	}
	return &catalog.Token{ID: schedulePrefix + sc.ID, NamespaceID: maker.NamespaceID, NamespaceSlug: maker.NamespaceSlug, Name: sc.Name, Role: gate.RoleAdmin, Owner: maker.Owner, Test: maker.Test}, nil
}

// resultOf writes what became of a run that failed, and returns the status that a client would have got.
func (s *Server) resultOf(x *exchange, sc *schedule.Schedule, err error, result *schedule.Result) int {
	f := s.faultOf(err)
	result.Status = schedule.Failed
	text := f.message
	if f.index >= 0 && len(x.many.Statements) > 1 {
		text = fmt.Sprintf("Statement %d: %s", f.index+1, text)
	}
	var stopped *stoppedRun
	switch {
	case errors.As(err, &stopped) && stopped.stop.Denied():
		h := stopped.stop.First()
		text += fmt.Sprintf(" (rule %s: %s on %q)", h.Rule.ID, h.Rule.Action, h.Rule.TableGlob)
	case f.code == codeApprovalRequired && x.heldAs != "":
		result.Status = schedule.Held
		text += fmt.Sprintf(": approval %s, to be decided at %s/approve/%s; once it is approved, the next run redeems it", x.heldAs, strings.TrimSuffix(s.opt.BaseURL, "/"), x.heldAs)
	case errors.Is(x.r.Context().Err(), context.DeadlineExceeded):
		text = fmt.Sprintf("The run took longer than %s and was stopped; nothing of it stands (PERSQLD_SCHEDULE_TIME)", s.opt.ScheduleTime)
	case x.r.Context().Err() != nil:
		text = "The schedule was changed, paused or deleted during the run, which was stopped; nothing of it stands"
	case f.code == codeShuttingDown:
		result.Status, result.Undone = schedule.Interrupted, true
		if text = "The server stopped during the run, which was undone"; !sc.Due.IsZero() {
			text += "; it is run again after the next start"
		}
	case f.hint != "":
		text += "; " + f.hint
	}
	if utf8.RuneCountInString(text) > maxRunError {
		text = string([]rune(text)[:maxRunError]) + "…"
	}
	result.Error = text
	return f.status
}
