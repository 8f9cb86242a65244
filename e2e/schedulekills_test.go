package e2e_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// After kill -9 in a run all of it stands or nothing, and the schedule says that it doesn't know.
func TestScheduleKilled(t *testing.T) {
	row(t, "DP-SCHED-13")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	id := scheduled(d, "long", "INSERT INTO t VALUES(1); "+endless)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.Try("POST", d.Path("schedules/"+id+"/run"), nil)
	}()
	if !eventually(t, 10*time.Second, func() bool {
		return strings.Contains(string(c.As("").Get("/metrics").Raw), "persqld_schedules_running 1")
	}) {
		t.Fatal("it doesn't run")
	}
	next := scheduleOf(t, d, id)["nextRunAt"]
	s.Kill()
	<-done
	s = harness.Start(t, binary, harness.Options{Data: s.Data})
	c = s.Client(t, harness.Token)
	d = c.DB(d.Slug)
	a := scheduleOf(t, d, id)
	if a["lastStatus"] != "interrupted" || a["runningSince"] != nil || a["lastRunAt"] == nil || a["nextRunAt"] != next || a["lastDurationMs"] != nil || !strings.Contains(fmt.Sprint(a["lastError"]), "killed") {
		t.Errorf("%v", a)
	}
	if n := d.One("SELECT count(*) FROM t"); n != "0" {
		t.Errorf("%s rows", n)
	}
	if !strings.Contains(string(c.As("").Get("/metrics").Raw), `persqld_schedule_runs_total{outcome="interrupted"} 1`) {
		t.Error("it isn't counted")
	}
	c.Do("PATCH", d.Path("schedules/"+id), body{"sql": "INSERT INTO t VALUES(2)"}).OK()
	runs(d, id).OK().Is("data.lastStatus", "ok").Is("data.lastError", "null")
}

// Killed again and again in the midst of runs: each stands as a whole or not at all, those that were answered do, and no schedule is left running.
func TestScheduleOutlivesKills(t *testing.T) {
	row(t, "DP-SCHED-13")
	s := harness.Start(t, binary, harness.Options{})
	d := newDB(t, s.Client(t, harness.Token))
	d.Batch(true, "CREATE TABLE a(n)", "CREATE TABLE b(n)").OK()
	id := scheduled(d, "both", "INSERT INTO a VALUES(1); INSERT INTO b VALUES(1)")
	answered := 0
	for kills := 1; kills <= 4; kills++ {
		c, enough := s.Client(t, harness.Token), make(chan struct{})
		done := make(chan int)
		go func() {
			n := 0
			for {
				a, err := c.Try("POST", d.Path("schedules/"+id+"/run"), nil)
				if err != nil {
					done <- n
					return
				}
				if n++; a.Str("data.lastStatus") != "ok" {
					t.Errorf("%s", a.Raw)
				}
				if n == 20 {
					close(enough)
				}
			}
		}()
		<-enough
		s.Kill()
		answered += <-done
		s = harness.Start(t, binary, harness.Options{Data: s.Data})
		d = s.Client(t, harness.Token).DB(d.Slug)
		if a := scheduleOf(t, d, id); a["runningSince"] != nil || a["lastStatus"] != "ok" && a["lastStatus"] != "interrupted" {
			t.Errorf("after kill %d: %v", kills, a)
		}
		var both, rows int
		if _, err := fmt.Sscan(d.One("SELECT (SELECT count(*) FROM a) || ' ' || (SELECT count(*) FROM b)"), &rows, &both); err != nil || rows != both || rows < answered || rows > answered+kills {
			t.Fatalf("after kill %d: %d and %d rows, %d runs answered, %v", kills, rows, both, answered, err)
		}
	}
}

// A server that stops in order waits for what runs; what it has to end it undoes, and runs after the start.
func TestScheduleStopped(t *testing.T) {
	row(t, "DP-SCHED-13")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	id := scheduled(d, "long", "INSERT INTO t VALUES(1); "+endless)
	due := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	s = restart(t, s, func() { inCatalog(t, s.Data, `UPDATE schedules SET next_run_at = ?`, due.UnixMilli()) })
	c = s.Client(t, harness.Token)
	if !eventually(t, 10*time.Second, func() bool {
		return strings.Contains(string(c.As("").Get("/metrics").Raw), "persqld_schedules_running 1")
	}) {
		t.Fatal("it doesn't run")
	}
	s.Signal(t, syscall.SIGTERM)
	if code := s.Wait(t, 15*time.Second); code != 0 {
		t.Errorf("stopped with %d", code)
	}
	if got := inCatalog(t, s.Data, `SELECT last_status || ' ' || next_run_at || ' ' || (running_since IS NULL) || ' ' || enabled FROM schedules WHERE id = ?`, id); got != fmt.Sprintf("interrupted %d 1 1", due.UnixMilli()) {
		t.Errorf("after the stop: %s", got)
	}
	inCatalog(t, s.Data, `UPDATE schedules SET sql = 'INSERT INTO t VALUES(2)'`)
	s = harness.Start(t, binary, harness.Options{Data: s.Data})
	d = s.Client(t, harness.Token).DB(d.Slug)
	if !eventually(t, 10*time.Second, func() bool { return scheduleOf(t, d, id)["lastStatus"] == "ok" }) {
		t.Fatal("it isn't run after the start")
	}
	if n := d.One("SELECT group_concat(a) FROM t"); n != "2" {
		t.Errorf("rows %s", n)
	}
}
