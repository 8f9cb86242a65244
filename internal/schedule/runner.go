package schedule

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

var (
	// ErrNotFound is returned for a schedule that isn't there, or whose database isn't.
	ErrNotFound = errors.New("schedule not found")
	// ErrNotDue is returned by Book.Begin for a schedule whose time has not come, or that is paused.
	ErrNotDue = errors.New("the schedule is not due")
	// ErrRunning is returned for a schedule that runs already.
	ErrRunning = errors.New("the schedule is running")
	// ErrStopping is returned when no more runs begin.
	ErrStopping = errors.New("the server is stopping")
)

// Book is where schedules are kept. A change that returned is durable.
type Book interface {
	// Waiting are all schedules of living databases that wait for a time.
	Waiting(ctx context.Context) ([]Wait, error)
	// Begin notes that a run begins, with the time of the one after it, and returns the schedule, with Due set if the run is one by time. Such a run is refused
	// with ErrNotDue, and the schedule is returned all the same. A manual one may begin at any time, and moves nothing. It returns ErrNotFound.
	Begin(ctx context.Context, id string, manual bool) (*Schedule, error)
	// End notes what became of a run, and returns the schedule as it is then. It returns ErrNotFound.
	End(ctx context.Context, run *Schedule, r Result) (*Schedule, error)
	// Interrupt ends the runs that began before a moment and have no end, and returns how many these are.
	Interrupt(ctx context.Context, before time.Time) (int, error)
}

// Options are a Runner's. Book and Run are needed.
type Options struct {
	Book Book
	// Run runs a schedule once. It ends when the context does, at the latest between two statements.
	Run    func(ctx context.Context, s *Schedule) Result
	Limit  time.Duration    // of a run; none if 0
	AtOnce int              // runs by time at the same time; 0 for none at all
	Ran    func(s Status)   // counts; nil for nobody
	Now    func() time.Time // time.Now if nil
	Logger *slog.Logger
}

const (
	// nap is the longest time without a look at the clock: while a machine sleeps, timers may stand still.
	nap = 30 * time.Second
	// again is how long a schedule waits that could not begin, since the catalog failed.
	again = 30 * time.Second
)

// Runner has schedules run when they are due: one goroutine looks at the times, and each run has one of its own.
type Runner struct {
	opt  Options
	wake chan struct{}
	runs sync.WaitGroup
	born time.Time // what began before was another process's

	recovered bool // Run's

	mu      sync.Mutex
	times   times
	place   map[string]*timed             // what is in times, by id
	active  map[string]context.CancelFunc // what runs, and how it is stopped: a schedule never does twice at once
	busy    map[string]struct{}           // databases in which a run by time is on
	parked  map[string][]Wait             // what is due in those
	running int                           // runs by time
	manual  int
	closed  bool
}

// New returns a Runner, of which Recover and then Run are to be called.
func New(opt Options) *Runner {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Ran == nil {
		opt.Ran = func(Status) {}
	}
	return &Runner{opt: opt, born: opt.Now().Truncate(time.Millisecond), wake: make(chan struct{}, 1), place: map[string]*timed{}, active: map[string]context.CancelFunc{}, busy: map[string]struct{}{}, parked: map[string][]Wait{}}
}

// Run runs schedules until the context ends, and returns when no run is on any more.
func (r *Runner) Run(ctx context.Context) {
	defer func() {
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		r.runs.Wait()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for known := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.wake:
		}
		if ctx.Err() != nil {
			return
		}
		wait := again
		if !r.recovered {
			r.Recover(ctx)
		}
		if !known {
			known = r.read(ctx)
		}
		if known {
			wait = r.begin()
		}
		timer.Reset(wait)
	}
}

// Recover ends what a killed server began. It is called before Run, which tries again where it failed: a server starts on a full disk, too.
func (r *Runner) Recover(ctx context.Context) {
	n, err := r.opt.Book.Interrupt(ctx, r.born)
	if err != nil {
		r.opt.Logger.Warn("note which schedules were running when the server was killed; it is tried again", "error", err)
		return
	}
	r.recovered = true
	for range n {
		r.opt.Ran(Interrupted)
	}
	if n > 0 {
		r.opt.Logger.Warn("schedules were running when the server was killed; each stands whole or not at all", "runs", n)
	}
}

// read reads what waits. What was put meanwhile is newer.
func (r *Runner) read(ctx context.Context) bool {
	list, err := r.opt.Book.Waiting(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.opt.Logger.Warn("read the schedules; it is tried again", "error", err)
		}
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range list {
		if r.place[w.ID] == nil {
			r.put(w)
		}
	}
	return true
}

// Put has a schedule run at a time, and no other; at none if it is zero.
func (r *Runner) Put(w Wait) {
	r.mu.Lock()
	r.put(w)
	r.mu.Unlock()
	r.awake()
}

// put is Put for who holds mu, and wakes nobody.
func (r *Runner) put(w Wait) {
	if t := r.place[w.ID]; t != nil {
		heap.Remove(&r.times, t.at)
		delete(r.place, w.ID)
	}
	if !w.At.IsZero() {
		t := &timed{Wait: w}
		r.place[w.ID] = t
		heap.Push(&r.times, t)
	}
}

func (r *Runner) awake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// begin starts what is due, as far as there is room, and returns how long there is nothing to do.
func (r *Runner) begin() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.times) > 0 && r.running < r.opt.AtOnce {
		if wait := r.times[0].At.Sub(r.opt.Now()); wait > 0 {
			return min(wait, nap)
		}
		w := heap.Pop(&r.times).(*timed).Wait
		delete(r.place, w.ID)
		if _, on := r.active[w.ID]; on {
			continue // by hand: at its end this one is put again
		}
		if _, on := r.busy[w.DatabaseID]; on { // they would wait for each other there, in the place of other databases' runs
			r.parked[w.DatabaseID] = append(r.parked[w.DatabaseID], w)
			continue
		}
		r.busy[w.DatabaseID] = struct{}{}
		r.running++
		r.runs.Add(1)
		go r.byTime(r.starts(w.ID), w)
	}
	return nap
}

// starts notes that a schedule runs, for as long as it may. Who holds mu calls it.
func (r *Runner) starts(id string) context.Context {
	// A stopping server ends runs by closing the databases: what began is noted to its end.
	ctx, cancel := context.WithCancel(context.Background())
	if r.opt.Limit > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), r.opt.Limit)
	}
	r.active[id] = cancel
	return ctx
}

// Cancel stops a run that is on, by time or by hand. It doesn't wait for its end.
func (r *Runner) Cancel(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cancel := r.active[id]; cancel != nil {
		cancel()
	}
}

// byTime is a run by time.
func (r *Runner) byTime(ctx context.Context, w Wait) {
	defer r.runs.Done()
	next, err := r.once(ctx, w.ID, false)
	wait := Wait{ID: w.ID, DatabaseID: w.DatabaseID}
	switch {
	case err == nil || errors.Is(err, ErrNotDue):
		wait.At = next.NextRunAt
	case !errors.Is(err, ErrNotFound):
		r.opt.Logger.Error("run a schedule; it is tried again", "schedule", w.ID, "database", w.DatabaseID, "error", err)
		wait.At = r.opt.Now().Add(again)
	}
	r.mu.Lock()
	r.running--
	delete(r.busy, w.DatabaseID)
	for _, p := range r.parked[w.DatabaseID] {
		if r.place[p.ID] == nil {
			r.put(p)
		}
	}
	delete(r.parked, w.DatabaseID)
	r.ended(wait)
	r.mu.Unlock()
	r.awake()
}

// ended says that a schedule doesn't run any more. Who holds mu calls it. What was put while it ran is newer.
func (r *Runner) ended(w Wait) {
	r.active[w.ID]()
	delete(r.active, w.ID)
	if r.place[w.ID] == nil {
		r.put(w)
	}
}

// Now runs a schedule at once, by hand. The time at which it is due is not moved. It returns the schedule with what became of the run; ErrRunning, ErrNotFound or ErrStopping.
func (r *Runner) Now(id string) (*Schedule, error) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, ErrStopping
	}
	if _, on := r.active[id]; on {
		r.mu.Unlock()
		return nil, ErrRunning
	}
	running := r.starts(id)
	r.manual++
	r.runs.Add(1)
	r.mu.Unlock()
	defer r.runs.Done()
	s, err := r.once(running, id, true)
	w := Wait{ID: id}
	if err == nil {
		w.DatabaseID, w.At = s.DatabaseID, s.NextRunAt
	}
	r.mu.Lock()
	r.manual--
	r.ended(w)
	r.mu.Unlock()
	r.awake()
	return s, err
}

// endTries is how often it is tried to write what became of a run.
const endTries = 3

// once runs a schedule, and returns it as it is afterwards.
func (r *Runner) once(running context.Context, id string, manual bool) (*Schedule, error) {
	ctx := context.Background() // however it ends, that is noted
	s, err := r.opt.Book.Begin(ctx, id, manual)
	if err != nil {
		return s, err
	}
	began := r.opt.Now()
	result := r.safely(running, s)
	result.Duration = max(0, r.opt.Now().Sub(began))
	r.opt.Ran(result.Status)
	level := slog.LevelDebug
	if result.Status != OK {
		level = slog.LevelInfo
	}
	r.opt.Logger.Log(ctx, level, "a schedule ran", "schedule", id, "database", s.DatabaseID, "status", result.Status, "manual", manual)
	for try := 1; ; try++ {
		after, err := r.opt.Book.End(ctx, s, result)
		if err == nil || errors.Is(err, ErrNotFound) {
			return after, err
		}
		if try == endTries {
			return nil, fmt.Errorf("write what became of a schedule's run, which was %q: %w", result.Status, err)
		}
	}
}

// safely runs a schedule; a panic is its failure.
func (r *Runner) safely(ctx context.Context, s *Schedule) (result Result) {
	defer func() {
		if p := recover(); p != nil {
			r.opt.Logger.Error("a schedule's run failed", "panic", fmt.Sprint(p), "schedule", s.ID, "stack", string(debug.Stack()))
			result = Result{Status: Failed, Error: "The server failed on this run"}
		}
	}()
	return r.opt.Run(ctx, s)
}

// Running is how many runs are on.
func (r *Runner) Running() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running + r.manual
}

// Overdue is for how long the schedule has been due that waits longest, 0 if none is.
func (r *Runner) Overdue() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.opt.Now()
	oldest := now
	if len(r.times) > 0 && r.times[0].At.Before(oldest) {
		oldest = r.times[0].At
	}
	for _, list := range r.parked {
		for _, w := range list {
			if w.At.Before(oldest) {
				oldest = w.At
			}
		}
	}
	return now.Sub(oldest)
}

// timed is a Wait in times.
type timed struct {
	Wait
	at int // its place
}

// times is a heap of what waits, the next first.
type times []*timed

func (t times) Len() int           { return len(t) }
func (t times) Less(i, j int) bool { return t[i].At.Before(t[j].At) }
func (t times) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].at, t[j].at = i, j
}

// Push is heap.Interface's.
func (t *times) Push(x any) {
	e := x.(*timed)
	e.at = len(*t)
	*t = append(*t, e)
}

// Pop is heap.Interface's.
func (t *times) Pop() any {
	last := len(*t) - 1
	e := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	return e
}
