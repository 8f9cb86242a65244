package catalog_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/schedule"
)

func hourly(name string) catalog.NewSchedule {
	return catalog.NewSchedule{Name: name, SQL: "SELECT 1", Timing: schedule.Timing{Interval: time.Hour}, By: "tok_x", Max: 3}
}

func mustSchedule(t testing.TB, c *catalog.Catalog, d *catalog.Database, n catalog.NewSchedule) *schedule.Schedule {
	t.Helper()
	s, err := c.CreateSchedule(t.Context(), d.ID, n)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func waiting(t testing.TB, c *catalog.Catalog) string {
	t.Helper()
	list, err := c.ScheduleBook().Waiting(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, w := range list {
		text = append(text, w.ID+" "+w.At.Format(time.TimeOnly))
	}
	return strings.Join(text, ",")
}

// Schedules hang on their database, survive a restart, rest in the trash and go with the file.
func TestSchedules(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	d, other := mustDatabase(t, c, ns, "orders"), mustDatabase(t, c, ns, "other")
	s := mustSchedule(t, c, d, hourly("a"))
	if !s.NextRunAt.Equal(clock.Now().Add(time.Hour)) || s.RunsAs != "tok_x" || !s.Enabled {
		t.Errorf("%+v", s)
	}
	paused := hourly("paused")
	paused.Paused, paused.Timing = true, schedule.Timing{Cron: "@daily"}
	p := mustSchedule(t, c, d, paused)
	for name, want := range map[string]error{"": catalog.ErrScheduleName, "a": catalog.ErrScheduleExists, "x\ny": catalog.ErrScheduleName, strings.Repeat("é", 201): catalog.ErrScheduleName} {
		if _, err := c.CreateSchedule(t.Context(), d.ID, hourly(name)); !errors.Is(err, want) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := c.ChangeSchedule(t.Context(), d.ID, p.ID, catalog.ScheduleChange{Name: &name}); !errors.Is(err, want) {
			t.Errorf("change to %q: %v", name, err)
		}
	}
	bad := hourly("bad")
	bad.Timing = schedule.Timing{}
	if _, err := c.CreateSchedule(t.Context(), d.ID, bad); !errors.Is(err, schedule.ErrTiming) {
		t.Errorf("without a time: %v", err)
	}
	mustSchedule(t, c, d, hourly("third"))
	if _, err := c.CreateSchedule(t.Context(), d.ID, hourly("fourth")); !errors.Is(err, catalog.ErrTooManySchedules) {
		t.Errorf("a fourth: %v", err)
	}
	if _, err := c.CreateSchedule(t.Context(), "db_none", hourly("a")); !errors.Is(err, catalog.ErrDatabaseNotFound) {
		t.Errorf("of no database: %v", err)
	}
	if _, err := c.DeleteSchedule(t.Context(), other.ID, s.ID); !errors.Is(err, schedule.ErrNotFound) {
		t.Errorf("of another database: %v", err)
	}
	list, err := c.Schedules(t.Context(), d.ID)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	before := fmt.Sprintf("%+v %+v %+v", *list[0], *list[1], *list[2])
	c = reopen(t, c, clock, path)
	if list, err = c.Schedules(t.Context(), d.ID); err != nil || fmt.Sprintf("%+v %+v %+v", *list[0], *list[1], *list[2]) != before {
		t.Errorf("after a restart %+v, %v", list, err)
	}
	if _, err := c.DeleteSchedule(t.Context(), d.ID, list[2].ID); err != nil {
		t.Fatal(err)
	}
	if got := waiting(t, c); got != s.ID+" 13:00:00" {
		t.Errorf("%s waits", got)
	}

	// The trash, and back.
	if _, err := c.DeleteDatabase(t.Context(), d.ID, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Schedule(t.Context(), s.ID); !errors.Is(err, schedule.ErrNotFound) || waiting(t, c) != "" {
		t.Errorf("in the trash: %v", err)
	}
	if _, err := c.ScheduleBook().Begin(t.Context(), s.ID, true); !errors.Is(err, schedule.ErrNotFound) {
		t.Errorf("a run in the trash: %v", err)
	}
	if _, err := c.UndeleteDatabase(t.Context(), d.ID, ""); err != nil {
		t.Fatal(err)
	}
	if got := waiting(t, c); got != s.ID+" 13:00:00" {
		t.Errorf("%s waits after the undelete", got)
	}
	if _, err := c.DeleteDatabase(t.Context(), d.ID, 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := c.PurgeDatabase(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := rawOpen(t, path).QueryRow(`SELECT count(*) FROM schedules`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d schedules of a database that is gone, %v", n, err)
	}
}

// What a change does to the next run, and to whose schedule it is.
func TestChangeSchedule(t *testing.T) {
	c, clock, _ := fresh(t)
	d := mustDatabase(t, c, mustNamespace(t, c, "acme"), "orders")
	s := mustSchedule(t, c, d, hourly("a"))
	clock.Advance(10 * time.Minute)
	yes, no, name, sql := true, false, "b", "SELECT 2"
	for _, step := range []struct {
		what   string
		change catalog.ScheduleChange
		next   string
		runsAs string
	}{
		{"its name", catalog.ScheduleChange{Name: &name, By: "tok_y"}, "13:00:00", "tok_x"},
		{"its SQL", catalog.ScheduleChange{SQL: &sql, By: "tok_y"}, "13:00:00", "tok_y"},
		{"the same interval", catalog.ScheduleChange{Timing: &schedule.Timing{Interval: time.Hour}, By: "tok_z"}, "13:00:00", "tok_y"},
		{"that it goes on, which it does", catalog.ScheduleChange{Enabled: &yes}, "13:00:00", "tok_y"},
		{"another interval", catalog.ScheduleChange{Timing: &schedule.Timing{Interval: 2 * time.Hour}}, "14:10:00", "tok_y"},
		{"cron", catalog.ScheduleChange{Timing: &schedule.Timing{Cron: "30 * * * *"}}, "12:30:00", "tok_y"},
		{"the pause", catalog.ScheduleChange{Enabled: &no}, "", "tok_y"},
		{"an interval in the pause", catalog.ScheduleChange{Timing: &schedule.Timing{Interval: time.Minute}}, "", "tok_y"},
		{"the end of the pause", catalog.ScheduleChange{Enabled: &yes}, "12:11:00", "tok_y"},
	} {
		got, err := c.ChangeSchedule(t.Context(), d.ID, s.ID, step.change)
		if err != nil {
			t.Fatal(err)
		}
		next := ""
		if !got.NextRunAt.IsZero() {
			next = got.NextRunAt.Format(time.TimeOnly)
		}
		again, err := c.Schedule(t.Context(), s.ID)
		if err != nil || fmt.Sprint(*again) != fmt.Sprint(*got) || next != step.next || got.RunsAs != step.runsAs || got.CreatedBy != "tok_x" {
			t.Errorf("%s: next at %s, as %s; read again %+v, %v", step.what, next, got.RunsAs, again, err)
		}
	}
}

// A run begins when it is due and not before, its next time is written with that, and what a crash left of it is told.
func TestScheduleBook(t *testing.T) {
	c, clock, path := fresh(t)
	d := mustDatabase(t, c, mustNamespace(t, c, "acme"), "orders")
	s := mustSchedule(t, c, d, hourly("a"))
	b, ctx, version := c.ScheduleBook(), t.Context(), c.Version()
	if got, err := b.Begin(ctx, s.ID, false); !errors.Is(err, schedule.ErrNotDue) || got == nil || !got.NextRunAt.Equal(s.NextRunAt) {
		t.Errorf("before its time: %+v, %v", got, err)
	}
	clock.Advance(time.Hour + 3*time.Second)
	run, err := b.Begin(ctx, s.ID, false)
	if err != nil || !run.Due.Equal(s.NextRunAt) || !run.NextRunAt.Equal(s.NextRunAt.Add(time.Hour)) || !run.RunningSince.Equal(clock.Now()) {
		t.Fatalf("%+v, %v", run, err)
	}
	if _, err := b.Begin(ctx, s.ID, false); !errors.Is(err, schedule.ErrNotDue) {
		t.Errorf("a second time: %v", err)
	}
	after, err := b.End(ctx, run, schedule.Result{Status: schedule.Failed, Error: "no", Duration: 1234567 * time.Nanosecond, RowsRead: 3, RowsWritten: 4})
	if err != nil || after.Last != (schedule.Result{Status: schedule.Failed, Error: "no", Duration: 1234 * time.Microsecond, RowsRead: 3, RowsWritten: 4}) || !after.RunningSince.IsZero() ||
		!after.LastRunAt.Equal(run.RunningSince) || !after.Enabled {
		t.Errorf("%+v, %v", after, err)
	}
	// By hand: nothing moves, and what was undone isn't due for it.
	if run, err = b.Begin(ctx, s.ID, true); err != nil || !run.Due.IsZero() || !run.NextRunAt.Equal(after.NextRunAt) {
		t.Errorf("by hand: %+v, %v", run, err)
	}
	if got, err := b.End(ctx, run, schedule.Result{Status: schedule.Interrupted, Undone: true}); err != nil || !got.NextRunAt.Equal(after.NextRunAt) {
		t.Errorf("%+v, %v", got, err)
	}
	// What a stop undid is due again, unless it is paused by then.
	clock.Advance(30 * time.Hour)
	if run, err = b.Begin(ctx, s.ID, false); err != nil || !run.NextRunAt.Equal(clock.Now().Add(time.Hour)) {
		t.Errorf("missed ones: %+v, %v", run, err)
	}
	if got, err := b.End(ctx, run, schedule.Result{Status: schedule.Interrupted, Undone: true}); err != nil || !got.NextRunAt.Equal(run.Due) {
		t.Errorf("%+v, %v", got, err)
	}
	if run, err = b.Begin(ctx, s.ID, false); err != nil {
		t.Fatal(err)
	}
	no, yes := false, true
	if c.Version() != version {
		t.Error("a run is a change of the catalog, which is copied for it")
	}
	if _, err := c.ChangeSchedule(ctx, d.ID, s.ID, catalog.ScheduleChange{Enabled: &no}); err != nil {
		t.Fatal(err)
	}
	if got, err := b.End(ctx, run, schedule.Result{Status: schedule.Interrupted, Undone: true}); err != nil || !got.NextRunAt.IsZero() {
		t.Errorf("paused meanwhile: %+v, %v", got, err)
	}
	if _, err := b.Begin(ctx, s.ID, false); !errors.Is(err, schedule.ErrNotDue) {
		t.Errorf("paused: %v", err)
	}
	if _, err := c.ChangeSchedule(ctx, d.ID, s.ID, catalog.ScheduleChange{Enabled: &yes}); err != nil {
		t.Fatal(err)
	}
	// Killed.
	clock.Advance(2 * time.Hour)
	if run, err = b.Begin(ctx, s.ID, false); err != nil {
		t.Fatal(err)
	}
	c = reopen(t, c, clock, path)
	b = c.ScheduleBook()
	if n, err := b.Interrupt(ctx, run.RunningSince); n != 0 || err != nil {
		t.Errorf("%d of this process interrupted, %v", n, err)
	}
	if n, err := b.Interrupt(ctx, run.RunningSince.Add(time.Millisecond)); n != 1 || err != nil {
		t.Errorf("%d interrupted, %v", n, err)
	}
	if n, err := b.Interrupt(ctx, clock.Now().Add(time.Hour)); n != 0 || err != nil {
		t.Errorf("%d interrupted once more, %v", n, err)
	}
	got, err := c.Schedule(ctx, s.ID)
	if err != nil || got.Last.Status != schedule.Interrupted || !strings.Contains(got.Last.Error, "killed") || !got.RunningSince.IsZero() || !got.LastRunAt.Equal(run.RunningSince) || !got.NextRunAt.Equal(run.NextRunAt) {
		t.Errorf("%+v, %v", got, err)
	}
	// Deleted while it runs.
	if run, err = b.Begin(ctx, s.ID, true); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteSchedule(ctx, d.ID, s.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.End(ctx, run, schedule.Result{Status: schedule.OK}); !errors.Is(err, schedule.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// An approval is found by who asked for what, as long as it can be redeemed.
func TestApproved(t *testing.T) {
	c, clock, _ := fresh(t)
	d := mustDatabase(t, c, mustNamespace(t, c, "acme"), "orders")
	print := sha256.Sum256([]byte("this"))
	hit := approval.Hit{Rule: &approval.Rule{ID: "rule_1", TableGlob: "t", Action: approval.RequireApproval, Approvers: 1, ApproverRole: approval.RoleEditor}, Table: "t", Op: approval.DDL, Rows: -1}
	hold := func() string {
		a, _, _, err := c.Hold(t.Context(), catalog.NewApproval{Database: d, Requester: "schedule:a", Kind: "query", Request: []byte("{}"), Content: []byte("{}"), Fingerprint: print,
			Hits: []approval.Hit{hit}, Lives: time.Hour, MaxPending: 10})
		if err != nil {
			t.Fatal(err)
		}
		return a.ID
	}
	found := func(database, requester string, print [32]byte) string {
		a, err := c.Approved(t.Context(), database, requester, print)
		if errors.Is(err, catalog.ErrApprovalNotFound) {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		return a.ID
	}
	approve := func(id string) {
		if _, err := c.Decide(t.Context(), id, approval.Vote{UserID: "usr_1", Role: approval.RoleEditor, Approve: true}, nil, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	first := hold()
	if got := found(d.ID, "schedule:a", print); got != "" {
		t.Errorf("a pending one is found: %s", got)
	}
	approve(first)
	if found(d.ID, "schedule:a", print) != first || found(d.ID, "schedule:b", print) != "" || found("db_x", "schedule:a", print) != "" || found(d.ID, "schedule:a", sha256.Sum256(nil)) != "" {
		t.Error("what was approved isn't found, or for another")
	}
	second := hold()
	approve(second)
	if got := found(d.ID, "schedule:a", print); got != second {
		t.Errorf("%s is found, not the latest", got)
	}
	if err := c.Redeemed(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if got := found(d.ID, "schedule:a", print); got != first {
		t.Errorf("%s is found when the latest is used", got)
	}
	clock.Advance(time.Minute)
	if got := found(d.ID, "schedule:a", print); got != "" {
		t.Errorf("%s is found when its time is over", got)
	}
}
