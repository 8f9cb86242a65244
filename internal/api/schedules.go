package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/schedule"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// scheduleRequest is the body of POST …/schedules and PATCH …/schedules/:id.
type scheduleRequest struct {
	Name        *string  `json:"name"`
	SQL         *string  `json:"sql"`
	IntervalSec *float64 `json:"intervalSec"`
	Cron        *string  `json:"cron"`
	Enabled     *bool    `json:"enabled"`
}

const codeInvalidSchedule = "invalid_schedule"

// timing is when it is to run; nil if the request doesn't say.
func (req *scheduleRequest) timing() (*schedule.Timing, error) {
	if req.IntervalSec == nil && req.Cron == nil {
		return nil, nil
	}
	var t schedule.Timing
	if seconds := req.IntervalSec; seconds != nil {
		if *seconds < schedule.MinInterval.Seconds() || *seconds > schedule.MaxInterval.Seconds() || *seconds != float64(int64(*seconds)) {
			return nil, badSchedule(schedule.ErrInterval)
		}
		t.Interval = time.Duration(*seconds) * time.Second
	}
	if req.Cron != nil {
		if t.Cron = *req.Cron; t.Cron == "" {
			return nil, badSchedule(&schedule.CronError{Why: "it is empty"})
		}
	}
	if err := t.Check(); err != nil {
		return nil, badSchedule(err)
	}
	return &t, nil
}

// badSchedule is the fault of a schedule that can be none.
func badSchedule(err error) error {
	var c *schedule.CronError
	switch {
	case errors.As(err, &c):
		return newFault(http.StatusBadRequest, codeInvalidSchedule, "Invalid cron expression: "+c.Why, `five fields: minute, hour, day of the month, month, day of the week, in UTC; for example "0 3 * * 1", or @daily`)
	case errors.Is(err, schedule.ErrInterval):
		return newFault(http.StatusBadRequest, codeInvalidSchedule, "intervalSec must be a whole number of seconds from 60 to 604800", "604800 are 7 days; a cron expression goes on for longer")
	case errors.Is(err, schedule.ErrTiming):
		return newFault(http.StatusBadRequest, codeInvalidSchedule, "A schedule has either intervalSec or cron", `for example {"name": "cleanup", "sql": "DELETE FROM sessions WHERE expires < unixepoch()", "intervalSec": 3600}`)
	case errors.Is(err, catalog.ErrScheduleName):
		return newFault(http.StatusBadRequest, codeInvalidSchedule, "A schedule's name has 1 to 200 characters, none of them control characters", "")
	}
	return err
}

// scheduleFault is what the client is told where the catalog or the runner refuses.
func (s *Server) scheduleFault(err error) error {
	switch {
	case errors.Is(err, catalog.ErrTooManySchedules):
		return newFault(http.StatusConflict, "too_many_schedules", fmt.Sprintf("A database has at most %d schedules", s.opt.MaxSchedules), "delete one, or ask the operator to raise PERSQLD_MAX_SCHEDULES; one schedule can hold several statements")
	default:
		return badSchedule(err)
	}
}

// judgeSQL refuses SQL that could never run: by its form, or by what no admin may do. Whether its tables are there is found out when it runs.
func (x *exchange) judgeSQL(sql string) error {
	if len(sql) > x.s.opt.MaxSQL {
		return newFault(http.StatusBadRequest, wire.CodeSQLTooLong, fmt.Sprintf("The SQL has %d bytes; a schedule may have at most %d", len(sql), x.s.opt.MaxSQL), "the operator can raise PERSQLD_MAX_SQL")
	}
	statements, params, ok := gate.Split(sql)
	switch {
	case !ok:
		return newFault(http.StatusBadRequest, codeSyntax, "A quote, a parenthesis or a trigger of the SQL isn't closed", "")
	case len(statements) == 0:
		return newFault(http.StatusBadRequest, codeSyntax, "There is no statement in the SQL", "")
	case len(statements) > x.s.opt.MaxStatements:
		return newFault(http.StatusBadRequest, wire.CodeTooManyStatements, fmt.Sprintf("A schedule holds at most %d statements", x.s.opt.MaxStatements), "the operator can raise PERSQLD_MAX_STATEMENTS")
	case params:
		return newFault(http.StatusBadRequest, codeInvalidSchedule, "The SQL of a schedule takes no parameters", "write values into the SQL, for example datetime('now')")
	}
	x.gate.Batch, x.unruled = len(statements) > 1, true // rules are asked at each run
	defer func() { x.gate.Batch, x.unruled = false, false }()
	return x.do(store.JobFunc(func(tx *store.Tx) error {
		x.run.start(tx.Began())
		for i, text := range statements {
			st, err := x.run.prepare(tx, []byte(text))
			if err == nil {
				vacuum := st.Vacuum
				st.Done()
				if !vacuum || len(statements) == 1 {
					continue
				}
				err = newFault(http.StatusBadRequest, "not_in_batch", "VACUUM can't be one of several statements", "give it a schedule of its own")
			} else if tx.Again() {
				return err
			}
			var f *fault
			if errors.As(err, &f) && f.detail != nil && f.code != codeSyntax {
				continue // about the schema, which may be another one when it runs
			}
			var r *gate.Refusal
			if f == nil && !errors.As(err, &r) {
				return err
			}
			told := *x.s.faultOf(err)
			if told.index = -1; len(statements) > 1 {
				told.index = i
			}
			return &told
		}
		return nil
	}))
}

// openScheduled opens the database for who may see and change its schedules.
func (x *exchange) openScheduled(what string) error {
	if err := x.openDatabase(false); err != nil {
		return err
	}
	return x.mayRule(what)
}

// listSchedules serves GET …/schedules, in the order of their making.
func (s *Server) listSchedules(x *exchange) error {
	if err := x.openScheduled("GET …/schedules"); err != nil {
		return err
	}
	list, err := s.opt.Catalog.Schedules(x.r.Context(), x.database.ID)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, '[')
	for i, sc := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendSchedule(b, sc)
		if len(b) > int(s.opt.MaxResult) {
			return errResultTooLarge
		}
	}
	x.out = append(b, `]}`...)
	return nil
}

// scheduleObject reads the body of a call that makes or changes a schedule.
func (x *exchange) scheduleObject(req *scheduleRequest) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	if err := x.object(req); err != nil {
		return err
	}
	// A misspelled member must not make a schedule that does something else.
	return x.strictly(req, true)
}

// createSchedule serves POST …/schedules.
func (s *Server) createSchedule(x *exchange) error {
	var req scheduleRequest
	if err := x.scheduleObject(&req); err != nil {
		return err
	}
	if err := x.openScheduled("POST …/schedules"); err != nil {
		return err
	}
	timing, err := req.timing()
	if err != nil {
		return err
	}
	if timing == nil {
		return badSchedule(schedule.ErrTiming)
	}
	if req.Name == nil {
		return badSchedule(catalog.ErrScheduleName)
	}
	sql := ""
	if req.SQL != nil {
		sql = *req.SQL
	}
	if err := x.judgeSQL(sql); err != nil {
		return err
	}
	n := catalog.NewSchedule{Name: *req.Name, SQL: sql, Timing: *timing, Paused: req.Enabled != nil && !*req.Enabled, By: x.token.ID, Max: s.opt.MaxSchedules}
	sc, err := s.opt.Catalog.CreateSchedule(x.acting(x.r.Context()), x.database.ID, n)
	if err != nil {
		return s.scheduleFault(err)
	}
	s.schedules.Put(waitOf(sc))
	x.success()
	x.out = append(appendSchedule(x.out, sc), '}')
	return nil
}

func waitOf(sc *schedule.Schedule) schedule.Wait {
	return schedule.Wait{ID: sc.ID, DatabaseID: sc.DatabaseID, At: sc.NextRunAt}
}

// changeSchedule serves PATCH …/schedules/:id. Who gives it SQL answers for it from then on.
func (s *Server) changeSchedule(x *exchange) error {
	var req scheduleRequest
	if err := x.scheduleObject(&req); err != nil {
		return err
	}
	if err := x.openScheduled("PATCH …/schedules"); err != nil {
		return err
	}
	if _, err := x.scheduleOf(); err != nil {
		return err
	}
	timing, err := req.timing()
	if err != nil {
		return err
	}
	if timing == nil && req.Name == nil && req.SQL == nil && req.Enabled == nil {
		return newFault(http.StatusBadRequest, codeBadRequest, "The request changes nothing", "give name, sql, intervalSec or cron, or enabled")
	}
	if req.SQL != nil {
		if err := x.judgeSQL(*req.SQL); err != nil {
			return err
		}
	}
	sc, err := s.opt.Catalog.ChangeSchedule(x.acting(x.r.Context()), x.database.ID, x.scheduleID(), catalog.ScheduleChange{Name: req.Name, SQL: req.SQL, Timing: timing, Enabled: req.Enabled, By: x.token.ID})
	if err != nil {
		return s.scheduleFault(err)
	}
	if req.SQL != nil || !sc.Enabled {
		s.schedules.Cancel(sc.ID) // what runs isn't it any more
	}
	s.schedules.Put(waitOf(sc))
	x.success()
	x.out = append(appendSchedule(x.out, sc), '}')
	return nil
}

// scheduleID is the id in the path.
func (x *exchange) scheduleID() string { return unescape(x.param("id")) }

// scheduleOf is the schedule in the path, of the request's database.
func (x *exchange) scheduleOf() (*schedule.Schedule, error) {
	sc, err := x.s.opt.Catalog.Schedule(x.r.Context(), x.scheduleID())
	if err == nil && sc.DatabaseID != x.database.ID {
		err = schedule.ErrNotFound
	}
	return sc, err
}

// deleteSchedule serves DELETE …/schedules/:id.
func (s *Server) deleteSchedule(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	if err := x.openScheduled("DELETE …/schedules"); err != nil {
		return err
	}
	sc, err := s.opt.Catalog.DeleteSchedule(x.acting(x.r.Context()), x.database.ID, x.scheduleID())
	if err != nil {
		return err
	}
	s.schedules.Cancel(sc.ID)
	s.schedules.Put(schedule.Wait{ID: sc.ID})
	x.success()
	b := append(x.out, `{"id":`...)
	b = wire.AppendString(b, sc.ID)
	x.out = append(b, `,"deleted":true}}`...)
	return nil
}

// runScheduleNow serves POST …/schedules/:id/run: it runs at once, and the answer says what became of it. A client that leaves doesn't end it.
func (s *Server) runScheduleNow(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	if err := x.openScheduled("POST …/schedules/:id/run"); err != nil {
		return err
	}
	sc, err := x.scheduleOf()
	if err != nil {
		return err
	}
	after, err := s.schedules.Now(sc.ID)
	if err != nil {
		return err
	}
	ctx := x.acting(context.WithoutCancel(x.r.Context()))
	if err := s.opt.Catalog.RecordSchedule(ctx, x.database, after); err != nil {
		s.log.Error("write audit log", "action", "schedule.run", "schedule", sc.ID, "error", err)
	}
	x.success()
	x.out = append(appendSchedule(x.out, after), '}')
	return nil
}

// Schedules runs the schedules.
func (s *Server) Schedules() *schedule.Runner { return s.schedules }

// wakeSchedules has the schedules of a database that came back go on.
func (s *Server) wakeSchedules(ctx context.Context, databaseID string) {
	list, err := s.opt.Catalog.Schedules(ctx, databaseID)
	if err != nil {
		s.log.Error("read the schedules of a database that came back; they go on after the next start", "database", databaseID, "error", err)
	}
	for _, sc := range list {
		s.schedules.Put(waitOf(sc))
	}
}

func appendSchedule(b []byte, s *schedule.Schedule) []byte {
	b = append(b, `{"id":`...)
	b = wire.AppendString(b, s.ID)
	b = append(b, `,"name":`...)
	b = wire.AppendString(b, s.Name)
	b = append(b, `,"sql":`...)
	b = wire.AppendString(b, s.SQL)
	b = append(b, `,"intervalSec":`...)
	if s.Timing.Cron == "" {
		b = wire.AppendInt(b, int64(s.Timing.Interval/time.Second))
	} else {
		b = append(b, `null`...)
	}
	b = append(b, `,"cron":`...)
	b = appendOptional(b, s.Timing.Cron)
	b = append(b, `,"enabled":`...)
	b = strconv.AppendBool(b, s.Enabled)
	b = append(b, `,"createdAt":`...)
	b = appendTime(b, s.CreatedAt)
	b = append(b, `,"createdBy":`...)
	b = wire.AppendString(b, s.CreatedBy)
	b = append(b, `,"runsAs":`...)
	b = wire.AppendString(b, s.RunsAs)
	b = append(b, `,"nextRunAt":`...)
	b = appendTime(b, s.NextRunAt)
	b = append(b, `,"runningSince":`...)
	b = appendTime(b, s.RunningSince)
	b = append(b, `,"lastRunAt":`...)
	b = appendTime(b, s.LastRunAt)
	b = append(b, `,"lastStatus":`...)
	b = appendOptional(b, string(s.Last.Status))
	b = append(b, `,"lastError":`...)
	b = appendOptional(b, s.Last.Error)
	if s.LastRunAt.IsZero() || s.Last.Status == schedule.Interrupted && s.Last.Duration == 0 { // nobody knows
		return append(b, `,"lastDurationMs":null,"lastRowsRead":null,"lastRowsWritten":null}`...)
	}
	b = append(b, `,"lastDurationMs":`...)
	b = appendMillis(b, s.Last.Duration)
	b = append(b, `,"lastRowsRead":`...)
	b = wire.AppendInt(b, s.Last.RowsRead)
	b = append(b, `,"lastRowsWritten":`...)
	b = wire.AppendInt(b, s.Last.RowsWritten)
	return append(b, '}')
}

// appendOptional writes a text, or null for an empty one.
func appendOptional(b []byte, text string) []byte {
	if text == "" {
		return append(b, `null`...)
	}
	return wire.AppendString(b, text)
}
