package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/persqld/persqld/internal/schedule"
)

// book is a schedule.Book in memory.
type book struct {
	mu   sync.Mutex
	all  map[string]*schedule.Schedule
	fail error // of Begin
	end  error // of End
	lost error // of Interrupt
}

func newBook() *book { return &book{all: map[string]*schedule.Schedule{}} }

// add makes a schedule that is due in a while, every interval.
func (b *book) add(id, database string, in, every time.Duration) schedule.Wait {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &schedule.Schedule{ID: id, DatabaseID: database, Timing: schedule.Timing{Interval: every}, Enabled: true, NextRunAt: time.Now().Add(in)}
	b.all[id] = s
	return schedule.Wait{ID: id, DatabaseID: database, At: s.NextRunAt}
}

func (b *book) get(id string) schedule.Schedule {
	b.mu.Lock()
	defer b.mu.Unlock()
	return *b.all[id]
}

func (b *book) set(id string, f func(s *schedule.Schedule)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := *b.all[id]
	f(&s)
	b.all[id] = &s
}

func (b *book) Waiting(context.Context) (list []schedule.Wait, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.all {
		if !s.NextRunAt.IsZero() {
			list = append(list, schedule.Wait{ID: s.ID, DatabaseID: s.DatabaseID, At: s.NextRunAt})
		}
	}
	return list, nil
}

func (b *book) Begin(_ context.Context, id string, manual bool) (*schedule.Schedule, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return nil, b.fail
	}
	if b.all[id] == nil {
		return nil, schedule.ErrNotFound
	}
	s, now := *b.all[id], time.Now()
	if !manual {
		if s.NextRunAt.IsZero() || s.NextRunAt.After(now) {
			return &s, schedule.ErrNotDue
		}
		s.Due = s.NextRunAt
		s.NextRunAt = s.Timing.After(s.Due, now)
	}
	s.RunningSince = now
	kept := s
	b.all[id] = &kept
	return &s, nil
}

func (b *book) End(_ context.Context, run *schedule.Schedule, r schedule.Result) (*schedule.Schedule, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end != nil {
		return nil, b.end
	}
	if b.all[run.ID] == nil {
		return nil, schedule.ErrNotFound
	}
	s := *b.all[run.ID]
	s.LastRunAt, s.RunningSince, s.Last = run.RunningSince, time.Time{}, r
	b.all[run.ID] = &s
	return &s, nil
}

func (b *book) Interrupt(_ context.Context, before time.Time) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost != nil {
		return 0, b.lost
	}
	for id, s := range b.all {
		if !s.RunningSince.IsZero() && s.RunningSince.Before(before) {
			ended := *s
			ended.LastRunAt, ended.RunningSince, ended.Last = s.RunningSince, time.Time{}, schedule.Result{Status: schedule.Interrupted}
			b.all[id], n = &ended, n+1
		}
	}
	return n, nil
}

// ran notes what runs, for how long it is told to.
type ran struct {
	mu     sync.Mutex
	start  time.Time
	at     map[string][]time.Duration // since start
	on     map[string]int
	most   int            // at the same time
	twice  []string       // what ran twice at once
	inDB   map[string]int // runs in a database
	many   []string       // databases in which several ran at once
	takes  time.Duration
	result schedule.Result
}

func newRan(takes time.Duration) *ran {
	return &ran{start: time.Now(), at: map[string][]time.Duration{}, on: map[string]int{}, inDB: map[string]int{}, takes: takes, result: schedule.Result{Status: schedule.OK}}
}

func (r *ran) run(_ context.Context, s *schedule.Schedule) schedule.Result {
	r.mu.Lock()
	r.at[s.ID] = append(r.at[s.ID], time.Since(r.start))
	if r.on[s.ID]++; r.on[s.ID] > 1 {
		r.twice = append(r.twice, s.ID)
	}
	if r.inDB[s.DatabaseID]++; r.inDB[s.DatabaseID] > 1 {
		r.many = append(r.many, s.DatabaseID)
	}
	n := 0
	for _, c := range r.on {
		n += c
	}
	r.most = max(r.most, n)
	takes, result := r.takes, r.result
	r.mu.Unlock()
	time.Sleep(takes) // of the bubble's clock
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on[s.ID]--
	r.inDB[s.DatabaseID]--
	return result
}

func (r *ran) times(id string) []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.at[id])
}

// begin has a runner run in a synctest bubble; stop ends it.
func begin(b *book, r *ran, atOnce int) (runner *schedule.Runner, stop func()) {
	runner = schedule.New(schedule.Options{Book: b, Run: r.run, AtOnce: atOnce})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		runner.Run(ctx)
	}()
	synctest.Wait()
	return runner, func() { cancel(); <-done }
}

func seconds(list ...int) (d []time.Duration) {
	for _, s := range list {
		d = append(d, time.Duration(s)*time.Second)
	}
	return d
}

func expect(t *testing.T, r *ran, id string, at ...int) {
	t.Helper()
	if got := r.times(id); !slices.Equal(got, seconds(at...)) {
		t.Errorf("%s ran at %v, want %v", id, got, seconds(at...))
	}
}

func TestRunsWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(), newRan(time.Second)
		b.add("a", "d1", 60*time.Second, time.Minute)
		b.add("b", "d2", 10*time.Second, 2*time.Minute)
		_, stop := begin(b, r, 4)
		time.Sleep(200 * time.Second)
		stop()
		expect(t, r, "a", 60, 120, 180)
		expect(t, r, "b", 10, 130)
	})
}

// A run by hand goes on its own, and moves nothing.
func TestManualRunShiftsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(), newRan(time.Second)
		b.add("a", "d", time.Minute, time.Minute)
		runner, stop := begin(b, r, 4)
		time.Sleep(30 * time.Second)
		s, err := runner.Now("a")
		if err != nil || s.Last.Status != schedule.OK || s.Last.Duration != time.Second || !s.NextRunAt.Equal(r.start.Add(time.Minute)) {
			t.Errorf("%+v, %v", s, err)
		}
		if _, err := runner.Now("none"); !errors.Is(err, schedule.ErrNotFound) {
			t.Errorf("one that isn't there: %v", err)
		}
		time.Sleep(100 * time.Second)
		stop()
		expect(t, r, "a", 30, 60, 120)
		if _, err := runner.Now("a"); !errors.Is(err, schedule.ErrStopping) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// However manual runs and its time come together, a schedule runs once at a time, and what was due meanwhile runs after it.
func TestNeverTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(), newRan(90*time.Second)
		b.add("a", "d", time.Minute, time.Minute)
		runner, stop := begin(b, r, 4)
		time.Sleep(30 * time.Second)
		var wg sync.WaitGroup
		var mu sync.Mutex
		refused := 0
		for range 8 {
			wg.Go(func() {
				if _, err := runner.Now("a"); errors.Is(err, schedule.ErrRunning) {
					mu.Lock()
					refused++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if refused != 7 {
			t.Errorf("%d of 8 refused", refused)
		}
		time.Sleep(300 * time.Second)
		stop()
		// 30 by hand; due at 60 while it ran, so at 120; then every minute that it doesn't run: missed ones once.
		if len(r.twice) > 0 {
			t.Errorf("at the same time: %v", r.twice)
		}
		expect(t, r, "a", 30, 120, 210, 300, 390)
	})
}

// What was missed, while the server was off or the machine slept, runs once, and goes on from there.
func TestMissedRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(), newRan(0)
		b.add("a", "d1", -50*time.Hour, time.Minute)
		b.add("b", "d2", -time.Second, time.Hour)
		_, stop := begin(b, r, 4)
		time.Sleep(150 * time.Second)
		stop()
		expect(t, r, "a", 0, 60, 120)
		expect(t, r, "b", 0)
	})
}

// What is changed while it waits, or runs, holds.
func TestPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(), newRan(10*time.Second)
		w := b.add("a", "d1", time.Minute, time.Minute)
		b.add("gone", "d2", 70*time.Second, time.Minute)
		runner, stop := begin(b, r, 4)
		// Paused.
		b.set("a", func(s *schedule.Schedule) { s.NextRunAt = time.Time{} })
		runner.Put(schedule.Wait{ID: "a"})
		// Deleted, and nobody said so.
		b.mu.Lock()
		delete(b.all, "gone")
		b.mu.Unlock()
		time.Sleep(100 * time.Second)
		expect(t, r, "a")
		expect(t, r, "gone")
		// Goes on, sooner than anything that waits.
		w.At = time.Now().Add(5 * time.Second)
		b.set("a", func(s *schedule.Schedule) { s.NextRunAt = w.At })
		runner.Put(w)
		time.Sleep(7 * time.Second) // it runs, until 115
		// Paused while it runs: that run goes on, and no other comes.
		b.set("a", func(s *schedule.Schedule) { s.NextRunAt = time.Time{} })
		runner.Put(schedule.Wait{ID: "a"})
		time.Sleep(200 * time.Second)
		expect(t, r, "a", 105)
		if s := b.get("a"); s.Last.Status != schedule.OK {
			t.Errorf("%+v", s)
		}
		// Put at a time at which it isn't due, it isn't run.
		runner.Put(schedule.Wait{ID: "a", At: time.Now()})
		// One that is made.
		runner.Put(b.add("new", "d3", time.Second, time.Hour))
		time.Sleep(time.Minute)
		stop()
		expect(t, r, "a", 105)
		expect(t, r, "new", 308)
	})
}

// So many run at once and no more, one a database, and all come to their turn, the longest due first.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(), newRan(10*time.Second)
		for i := range 3 {
			b.add(fmt.Sprint("busy", i), "busy", time.Duration(i+1)*time.Second, time.Hour)
		}
		for i := range 6 {
			b.add(fmt.Sprint("s", i), fmt.Sprint("d", i), time.Duration(i+4)*time.Second, time.Hour)
		}
		runner, stop := begin(b, r, 3)
		time.Sleep(12 * time.Second)
		if runner.Running() != 3 || runner.Overdue() < 5*time.Second {
			t.Errorf("%d running, overdue for %s", runner.Running(), runner.Overdue())
		}
		time.Sleep(60 * time.Second)
		if runner.Running() != 0 || runner.Overdue() != 0 {
			t.Errorf("%d running, overdue for %s", runner.Running(), runner.Overdue())
		}
		stop()
		if r.most != 3 || len(r.many) > 0 {
			t.Errorf("%d at once; several in %v", r.most, r.many)
		}
		for i := range 6 {
			if n := len(r.times(fmt.Sprint("s", i))); n != 1 {
				t.Errorf("s%d ran %d times", i, n)
			}
		}
		// A database with many takes one place, and others go past it.
		expect(t, r, "busy0", 1)
		expect(t, r, "s0", 4)
		expect(t, r, "s1", 5)
		expect(t, r, "busy1", 11)
	})
}

// With no room at all none runs by time, and by hand they do.
func TestNoneByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(), newRan(0)
		b.add("a", "d", time.Second, time.Minute)
		runner, stop := begin(b, r, 0)
		time.Sleep(time.Hour)
		if _, err := runner.Now("a"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		stop()
		expect(t, r, "a", 3600)
	})
}

// A failure, a panic, and a catalog that fails for a while end nothing.
func TestFailuresGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(), newRan(0)
		b.add("a", "d", time.Minute, time.Minute)
		r.result = schedule.Result{Status: schedule.Failed, Error: "no such table: x"}
		var panics atomic.Bool
		runner := schedule.New(schedule.Options{Book: b, AtOnce: 1, Run: func(ctx context.Context, s *schedule.Schedule) schedule.Result {
			result := r.run(ctx, s)
			if panics.Load() {
				panic("x")
			}
			return result
		}})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); runner.Run(ctx) }()
		time.Sleep(130 * time.Second)
		expect(t, r, "a", 60, 120)
		if s := b.get("a"); s.Last.Error != "no such table: x" || !s.Enabled {
			t.Errorf("%+v", s)
		}
		panics.Store(true)
		time.Sleep(time.Minute)
		if s := b.get("a"); s.Last.Status != schedule.Failed || s.Last.Error != "The server failed on this run" {
			t.Errorf("after a panic: %+v", s)
		}
		panics.Store(false)
		b.mu.Lock()
		b.fail = errors.New("disk full")
		b.mu.Unlock()
		time.Sleep(65 * time.Second) // due at 240, tried at 240; again at 270
		b.mu.Lock()
		b.fail, b.end = nil, errors.New("disk full")
		b.mu.Unlock()
		time.Sleep(30 * time.Second) // runs at 270, and nobody can write it down
		b.mu.Lock()
		b.end = nil
		b.mu.Unlock()
		time.Sleep(80 * time.Second)
		cancel()
		<-done
		expect(t, r, "a", 60, 120, 180, 270, 300, 360)
	})
}

// What a killed server began is ended before anything runs, and isn't run for that.
func TestRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(), newRan(0)
		b.add("a", "d", time.Minute, time.Minute)
		b.set("a", func(s *schedule.Schedule) { s.RunningSince = time.Now().Add(-time.Hour) })
		var counted []schedule.Status
		runner := schedule.New(schedule.Options{Book: b, AtOnce: 1, Run: r.run, Ran: func(s schedule.Status) { counted = append(counted, s) }})
		runner.Recover(t.Context())
		if s := b.get("a"); s.Last.Status != schedule.Interrupted || !s.RunningSince.IsZero() || !slices.Equal(counted, []schedule.Status{schedule.Interrupted}) {
			t.Errorf("%+v, counted %v", s, counted)
		}
		// On a full disk it is done later, and what runs by then isn't what the other process began.
		b.add("old", "d2", time.Hour, time.Hour)
		b.set("old", func(s *schedule.Schedule) { s.RunningSince = time.Now().Add(-time.Hour) })
		b.add("new", "d3", time.Second, time.Hour)
		b.lost, r.takes = errors.New("disk full"), 50*time.Second
		_, stop := begin(b, r, 4)
		time.Sleep(20 * time.Second)
		if s := b.get("old"); s.RunningSince.IsZero() {
			t.Errorf("%+v", s)
		}
		b.mu.Lock()
		b.lost = nil
		b.mu.Unlock()
		time.Sleep(25 * time.Second)
		if old, now := b.get("old"), b.get("new"); old.Last.Status != schedule.Interrupted || now.RunningSince.IsZero() {
			t.Errorf("%+v, and what runs %+v", old, now)
		}
		stop()
	})
}

// A stop waits for what runs, and begins nothing more.
func TestStopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(), newRan(20*time.Second)
		b.add("a", "d1", time.Second, time.Minute)
		b.add("b", "d2", 10*time.Second, time.Minute)
		_, stop := begin(b, r, 4)
		time.Sleep(5 * time.Second)
		stop()
		if took := time.Since(r.start); took != 21*time.Second {
			t.Errorf("it stopped after %s", took)
		}
		expect(t, r, "a", 1)
		expect(t, r, "b")
		if s := b.get("a"); s.Last.Status != schedule.OK {
			t.Errorf("%+v", s)
		}
	})
}
