package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/schedule"
)

// Schedules are read from the file, not from memory: the SQL of all would be much to keep, and none is looked at more often than it runs.

// NewSchedule is what a schedule is made of.
type NewSchedule struct {
	Name   string
	SQL    string
	Timing schedule.Timing
	Paused bool
	By     string // id of a token, or of a member as user:<id>
	Max    int    // schedules of a database
}

// ScheduleChange is what is changed of a schedule; nil leaves it.
type ScheduleChange struct {
	Name    *string
	SQL     *string // with it the schedule becomes By's
	Timing  *schedule.Timing
	Enabled *bool
	By      string
}

const selectSchedules = `SELECT s.id, s.database_id, s.name, s.sql, s.interval_ms, s.cron, s.enabled, s.created_at, s.created_by, s.runs_as, s.next_run_at, s.running_since, s.last_run_at,
	s.last_status, s.last_error, s.last_duration, s.rows_read, s.rows_written FROM schedules s JOIN databases d ON d.id = s.database_id AND d.deleted_at IS NULL`

// scheduleEvent is an entry about a schedule; sql is what it was given, empty if that isn't told: the log is kept for good.
func scheduleEvent(action string, d *Database, s *schedule.Schedule, sql string) Event {
	m := map[string]any{"databaseId": d.ID, "enabled": s.Enabled, "runsAs": s.RunsAs}
	if sql != "" {
		m["sql"] = sql[:min(len(sql), MaxAuditSQL)]
	}
	if s.Timing.Cron != "" {
		m["cron"] = s.Timing.Cron
	} else {
		m["intervalSec"] = int64(s.Timing.Interval / time.Second)
	}
	return Event{NamespaceID: d.NamespaceID, Action: action, TargetType: "schedule", TargetID: s.ID, TargetName: s.Name, Test: d.Test, Metadata: m}
}

// CreateSchedule makes a schedule, whose first run is one interval, or one time of its expression, from now. It returns ErrDatabaseNotFound, ErrScheduleName, ErrScheduleExists,
// ErrTooManySchedules, or what schedule.Timing.Check returns.
func (c *Catalog) CreateSchedule(ctx context.Context, databaseID string, n NewSchedule) (*schedule.Schedule, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.DatabaseByID(databaseID)
	if err != nil {
		return nil, fmt.Errorf("create schedule: %w", err)
	}
	if err := n.Timing.Check(); err != nil {
		return nil, fmt.Errorf("create schedule: %w", err)
	}
	if err := c.scheduleName(ctx, d, "", n.Name); err != nil {
		return nil, fmt.Errorf("create schedule: %w", err)
	}
	var have int
	if err := c.db.QueryRowContext(ctx, `SELECT count(*) FROM schedules WHERE database_id = ?`, d.ID).Scan(&have); err != nil {
		return nil, fmt.Errorf("create schedule: %w", err)
	}
	if have >= n.Max {
		return nil, fmt.Errorf("create schedule: %w", ErrTooManySchedules)
	}
	now := c.moment()
	s := &schedule.Schedule{ID: NewID("sch"), DatabaseID: d.ID, Name: n.Name, SQL: n.SQL, Timing: n.Timing, Enabled: !n.Paused, CreatedAt: now, CreatedBy: n.By, RunsAs: n.By}
	if s.Enabled {
		s.NextRunAt = s.Timing.First(now)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		interval, cron := timingColumns(s.Timing)
		if _, err := tx.ExecContext(ctx, `INSERT INTO schedules (id, database_id, name, sql, interval_ms, cron, enabled, created_at, created_by, runs_as, next_run_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			s.ID, d.ID, s.Name, s.SQL, interval, cron, s.Enabled, s.CreatedAt.UnixMilli(), s.CreatedBy, s.RunsAs, nullMillis(s.NextRunAt)); err != nil {
			return err
		}
		return c.audit(ctx, tx, scheduleEvent("schedule.created", d, s, s.SQL))
	}, func(*mirror) {})
	if err != nil {
		return nil, fmt.Errorf("create schedule: %w", err)
	}
	return s, nil
}

// scheduleName refuses a name that can be none, or is another schedule's than that of the id.
func (c *Catalog) scheduleName(ctx context.Context, d *Database, id, name string) error {
	if name == "" || !validName(name) {
		return ErrScheduleName
	}
	taken := false
	if err := c.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM schedules WHERE database_id = ? AND name = ? AND id <> ?)`, d.ID, name, id).Scan(&taken); err != nil {
		return err
	}
	if taken {
		return ErrScheduleExists
	}
	return nil
}

func timingColumns(t schedule.Timing) (interval sql.NullInt64, cron sql.NullString) {
	if t.Cron != "" {
		return interval, nullText(t.Cron)
	}
	return sql.NullInt64{Int64: t.Interval.Milliseconds(), Valid: true}, cron
}

// Schedules are the schedules of a living database, in the order of their making.
func (c *Catalog) Schedules(ctx context.Context, databaseID string) ([]*schedule.Schedule, error) {
	list, err := c.schedules(ctx, selectSchedules+` WHERE s.database_id = ? ORDER BY s.seq`, databaseID)
	if err != nil {
		return nil, fmt.Errorf("list schedules: %w", err)
	}
	return list, nil
}

// Schedule is the schedule of an id, while its database lives; else schedule.ErrNotFound.
func (c *Catalog) Schedule(ctx context.Context, id string) (*schedule.Schedule, error) {
	list, err := c.schedules(ctx, selectSchedules+` WHERE s.id = ?`, id)
	if err != nil {
		return nil, fmt.Errorf("look for schedule: %w", err)
	}
	if len(list) == 0 {
		return nil, schedule.ErrNotFound
	}
	return list[0], nil
}

func (c *Catalog) schedules(ctx context.Context, query string, args ...any) ([]*schedule.Schedule, error) {
	list := []*schedule.Schedule{}
	err := each(ctx, c.db, query, func(rows *sql.Rows) error {
		s := &schedule.Schedule{}
		var created int64
		var interval, next, running, last, duration, read, written sql.NullInt64
		var cron, status, failure sql.NullString
		if err := rows.Scan(&s.ID, &s.DatabaseID, &s.Name, &s.SQL, &interval, &cron, &s.Enabled, &created, &s.CreatedBy, &s.RunsAs, &next, &running, &last,
			&status, &failure, &duration, &read, &written); err != nil {
			return err
		}
		s.Timing = schedule.Timing{Interval: time.Duration(interval.Int64) * time.Millisecond, Cron: cron.String}
		s.CreatedAt, s.NextRunAt, s.RunningSince, s.LastRunAt = fromMillis(created), fromNullMillis(next), fromNullMillis(running), fromNullMillis(last)
		s.Last = schedule.Result{Status: schedule.Status(status.String), Error: failure.String, Duration: time.Duration(duration.Int64) * time.Microsecond, RowsRead: read.Int64, RowsWritten: written.Int64}
		list = append(list, s)
		return nil
	}, args...)
	return list, err
}

// scheduleOf is a schedule of a living database, with the database.
func (c *Catalog) scheduleOf(ctx context.Context, databaseID, id string) (*Database, *schedule.Schedule, error) {
	d, err := c.DatabaseByID(databaseID)
	if err != nil {
		return nil, nil, err
	}
	s, err := c.Schedule(ctx, id)
	if err == nil && s.DatabaseID != d.ID {
		err = schedule.ErrNotFound
	}
	return d, s, err
}

// ScheduleRequester begins what asks for approvals where a schedule does, before its id.
const ScheduleRequester = "schedule:"

// ChangeSchedule changes a schedule. With another timing, and when it is no longer paused, its next run is counted from now: what was missed in a pause isn't made up for. A run that is on is the runner's to stop. Other SQL ends
// the approvals of what was asked for before. It returns ErrDatabaseNotFound, schedule.ErrNotFound, or what CreateSchedule returns of what is changed.
func (c *Catalog) ChangeSchedule(ctx context.Context, databaseID, id string, n ScheduleChange) (*schedule.Schedule, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	d, was, err := c.scheduleOf(ctx, databaseID, id)
	if err != nil {
		return nil, fmt.Errorf("change schedule %q: %w", id, err)
	}
	changed := *was
	s := &changed
	if n.Name != nil {
		if err := c.scheduleName(ctx, d, id, *n.Name); err != nil {
			return nil, fmt.Errorf("change schedule %q: %w", id, err)
		}
		s.Name = *n.Name
	}
	if n.SQL != nil {
		s.SQL, s.RunsAs = *n.SQL, n.By
	}
	if n.Timing != nil {
		if err := n.Timing.Check(); err != nil {
			return nil, fmt.Errorf("change schedule %q: %w", id, err)
		}
		s.Timing = *n.Timing
	}
	if n.Enabled != nil {
		s.Enabled = *n.Enabled
	}
	switch {
	case !s.Enabled:
		s.NextRunAt = time.Time{}
	case !was.Enabled || s.Timing != was.Timing:
		s.NextRunAt = s.Timing.First(c.moment())
	}
	given := ""
	var asked []*Approval
	if n.SQL != nil {
		given = s.SQL
		if asked, err = c.openApprovals(ctx, ScheduleRequester+id); err != nil {
			return nil, fmt.Errorf("change schedule %q: %w", id, err)
		}
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		interval, cron := timingColumns(s.Timing)
		if _, err := tx.ExecContext(ctx, `UPDATE schedules SET name = ?, sql = ?, interval_ms = ?, cron = ?, enabled = ?, runs_as = ?, next_run_at = ? WHERE id = ?`,
			s.Name, s.SQL, interval, cron, s.Enabled, s.RunsAs, nullMillis(s.NextRunAt), id); err != nil {
			return err
		}
		if n.SQL != nil { // people were asked about other SQL, or on behalf of somebody else
			if err := c.expireApprovals(ctx, tx, asked); err != nil {
				return err
			}
		}
		return c.audit(ctx, tx, scheduleEvent("schedule.changed", d, s, given))
	}, func(*mirror) {})
	c.queued.Add(1)
	if err != nil {
		return nil, fmt.Errorf("change schedule %q: %w", id, err)
	}
	return s, nil
}

// DeleteSchedule ends a schedule, with its approvals that wait; a run that is on is the runner's to stop. It returns ErrDatabaseNotFound or schedule.ErrNotFound.
func (c *Catalog) DeleteSchedule(ctx context.Context, databaseID, id string) (*schedule.Schedule, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	d, s, err := c.scheduleOf(ctx, databaseID, id)
	if err != nil {
		return nil, fmt.Errorf("delete schedule %q: %w", id, err)
	}
	asked, err := c.openApprovals(ctx, ScheduleRequester+id)
	if err != nil {
		return nil, fmt.Errorf("delete schedule %q: %w", id, err)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM schedules WHERE id = ?`, id); err != nil {
			return err
		}
		if err := c.expireApprovals(ctx, tx, asked); err != nil {
			return err
		}
		return c.audit(ctx, tx, scheduleEvent("schedule.deleted", d, s, ""))
	}, func(*mirror) {})
	if err != nil {
		return nil, fmt.Errorf("delete schedule %q: %w", id, err)
	}
	return s, nil
}

// RecordSchedule notes in the audit log that somebody runs a schedule by hand.
func (c *Catalog) RecordSchedule(ctx context.Context, d *Database, s *schedule.Schedule) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	return c.change(ctx, func(tx *sql.Tx) error {
		return c.audit(ctx, tx, scheduleEvent("schedule.run", d, s, ""))
	}, func(*mirror) {})
}

// Approved is the latest approved write of a requester that asked for just this and can still be redeemed; ErrApprovalNotFound if there is none.
func (c *Catalog) Approved(ctx context.Context, databaseID, requester string, fingerprint [32]byte) (*Approval, error) {
	list, err := c.approvals(ctx, selectApprovals+` WHERE requester = ? AND database_id = ? AND status = 'approved' AND fingerprint = ? AND expires_at > ? ORDER BY seq DESC LIMIT 1`,
		requester, databaseID, fingerprint[:], c.now().UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("look for approval: %w", err)
	}
	if len(list) == 0 || list[0].Status != approval.Approved {
		return nil, ErrApprovalNotFound
	}
	return list[0], nil
}

// ScheduleBook is the catalog as a runner of schedules sees it.
func (c *Catalog) ScheduleBook() schedule.Book { return scheduleBook{c} }

// scheduleBook makes a Catalog a schedule.Book. What it writes is no change that Version tells of, as usage isn't: else each run would have the catalog copied.
type scheduleBook struct{ c *Catalog }

// Waiting is part of schedule.Book.
func (b scheduleBook) Waiting(ctx context.Context) (list []schedule.Wait, err error) {
	err = each(ctx, b.c.db, `SELECT s.id, s.database_id, s.next_run_at FROM schedules s JOIN databases d ON d.id = s.database_id AND d.deleted_at IS NULL WHERE s.next_run_at IS NOT NULL`, func(rows *sql.Rows) error {
		var w schedule.Wait
		var at int64
		if err := rows.Scan(&w.ID, &w.DatabaseID, &at); err != nil {
			return err
		}
		w.At = fromMillis(at)
		list = append(list, w)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read schedules: %w", err)
	}
	return list, nil
}

// Begin is part of schedule.Book.
func (b scheduleBook) Begin(ctx context.Context, id string, manual bool) (*schedule.Schedule, error) {
	c := b.c
	c.changing.Lock()
	defer c.changing.Unlock()
	s, err := c.Schedule(ctx, id)
	if err != nil {
		return nil, err
	}
	now := c.moment()
	if !manual {
		if s.NextRunAt.IsZero() || s.NextRunAt.After(now) {
			return s, schedule.ErrNotDue
		}
		s.Due = s.NextRunAt
		s.NextRunAt = s.Timing.After(s.Due, now)
	}
	s.RunningSince = now
	err = c.commit(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE schedules SET running_since = ?, next_run_at = ? WHERE id = ?`, now.UnixMilli(), nullMillis(s.NextRunAt), id)
		return err
	}, func(*mirror) {})
	if err != nil {
		return nil, fmt.Errorf("begin run of schedule %s: %w", id, err)
	}
	return s, nil
}

// End is part of schedule.Book.
func (b scheduleBook) End(ctx context.Context, run *schedule.Schedule, r schedule.Result) (*schedule.Schedule, error) {
	c := b.c
	c.changing.Lock()
	defer c.changing.Unlock()
	again := r.Undone && !run.Due.IsZero()
	err := c.commit(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE schedules SET running_since = NULL, last_run_at = ?, last_status = ?, last_error = ?, last_duration = ?, rows_read = ?, rows_written = ?,
			next_run_at = iif(? AND enabled, min(next_run_at, ?), next_run_at) WHERE id = ?`,
			run.RunningSince.UnixMilli(), string(r.Status), nullText(r.Error), r.Duration.Microseconds(), r.RowsRead, r.RowsWritten, again, nullMillis(run.Due), run.ID)
		return err
	}, func(*mirror) {})
	if err != nil {
		return nil, fmt.Errorf("end run of schedule %s: %w", run.ID, err)
	}
	return c.Schedule(ctx, run.ID)
}

// interruptedError is what is told of a run that was under way when the server was killed.
const interruptedError = "The server was killed during the run: its statements stand as a whole or not at all, and it is not repeated before its next time"

// Interrupt is part of schedule.Book.
func (b scheduleBook) Interrupt(ctx context.Context, before time.Time) (n int, err error) {
	c := b.c
	c.changing.Lock()
	defer c.changing.Unlock()
	err = c.commit(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE schedules SET last_run_at = running_since, running_since = NULL, last_status = 'interrupted', last_error = ?, last_duration = NULL, rows_read = NULL, rows_written = NULL
			WHERE running_since < ?`, interruptedError, before.UnixMilli())
		if err != nil {
			return err
		}
		many, err := result.RowsAffected()
		n = int(many)
		return err
	}, func(*mirror) {})
	if err != nil {
		return 0, fmt.Errorf("end runs that a killed server began: %w", err)
	}
	return n, nil
}
