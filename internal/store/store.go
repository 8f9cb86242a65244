package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// Options says how a Store works. The zero value of a field is the default that stands beside it.
type Options struct {
	Dir  string // holds the files; it must exist
	Temp string // holds files that are being built, on the same file system, and is emptied by others; Dir

	MaxOpen          int           // open databases; 1,000
	QueueDepth       int           // requests that wait, a database; 1,024
	Workers          int           // databases that run at the same time; 512
	StatementTimeout time.Duration // 30 s
	ParkTimeout      time.Duration // that a long statement may wait for its turns, in all; 30 s
	LongStatements   int           // that run at the same time; processors - 1, at least 1
	Grace            time.Duration // how long past its limit a statement may take to notice; 50 ms
	KeptBytes        int64         // kept idempotency answers of a database; 64 MiB
	KeptFor          time.Duration // how long one is kept; 24 h
	IdleAfter        time.Duration // after which a database gives its memory back; 10 s
	MemoryHigh       int64         // bytes of engine memory above which idle databases close; 0 is never
	MemoryLimit      int64         // bytes of engine memory near which the largest consumer is stopped; 0 is never
	Limits           sqlite.Limits
	VFS              string

	// Past keeps the databases' history, and Clock the times of what it doesn't have yet; nil is none.
	Past  Past
	Clock Clock
	// PastFor is how far back that reaches: automatic snapshots of earlier moments are not kept. 0 keeps them.
	PastFor time.Duration

	// Made is told of each database that was made of a file: there is something in it that no commit told of, and that its history doesn't have. It must not
	// wait; nil is nobody.
	Made func(database string)

	// Meter takes what databases count of their writes; nil counts nothing.
	Meter Meter

	// Feed takes what databases that are listened to commit; nil is nobody.
	Feed        Feed
	FeedKeep    int           // changes that a database's journal keeps; 100,000
	FeedFor     time.Duration // how long it keeps one, and listens after its last listener; 24 h
	FeedChanges int           // of a request, beyond which only the tables are told; 10,000

	// Tables are the virtual tables that statements on a database can read.
	Tables func(database string) []*sqlite.Table

	Now      func() time.Time
	Logger   *slog.Logger
	Observer Observer
	Files    Files
}

// Observer is told what the store does, for metrics. Its methods are called by many goroutines.
type Observer interface {
	Group(size int)                     // a group of requests was taken
	Request(wait, engine time.Duration) // a request was run
	Commit()                            // a transaction was committed and synced
	Open(delta int)                     // a database was opened (1) or closed (-1)
	Parked(delta int)                   // a long statement waits for its turn (1), or no longer (-1)
	HistoryFailed()                     // a database's history could not be kept
}

type nobody struct{}

func (nobody) HistoryFailed()                       {}
func (nobody) Group(int)                            {}
func (nobody) Request(time.Duration, time.Duration) {}
func (nobody) Commit()                              {}
func (nobody) Open(int)                             {}
func (nobody) Parked(int)                           {}

const (
	// groupMax is how many requests a group commit takes at most.
	groupMax = 256
	// groupTime is after how long a group commits, though more requests wait: writes of the group wait for it.
	groupTime = 20 * time.Millisecond
	// longStatement is when a statement has turned long: finished writes of its group don't wait for it.
	longStatement = 10 * time.Millisecond
	// checkpointFrames is the size of the log, in pages, at which a group is followed by a checkpoint.
	checkpointFrames = 1000
)

// Store runs requests on databases, each through its actor.
type Store struct {
	opt Options
	log *slog.Logger

	mu      sync.Mutex
	actors  map[string]*actor // those that are open or busy
	system  systemSet
	later   func(began time.Time) time.Time // the time now, for who has read the clock a moment ago
	retired map[string]struct{}             // databases that take no requests; those of this run of the process
	recent  list                            // the open ones, the least recently used at the tail
	open    int
	closing bool      // no more requests
	ended   bool      // no more work
	idle    []*worker // the last one to stop works next: its memory is warm
	workers int
	atWork  map[*worker]struct{}
	// unpinned is closed, and replaced, when somebody has finished reading a file beside its actor.
	unpinned chan struct{}
	ready    []*actor // waiting for a worker

	running   int           // goroutines that hold actors; guarded by mu
	drained   chan struct{} // closed when a closing store has none of them; guarded by mu
	stopping  atomic.Bool   // running statements are to stop
	stop      chan struct{} // closed then
	turns     *turns
	dirs      sync.Map      // directories whose names are on the disk
	reap      chan struct{} // more databases are open than should be
	quit      chan struct{}
	guardians sync.WaitGroup
}

// New returns a Store over the files in opt.Dir.
func New(opt Options) (*Store, error) {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	span := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&opt.MaxOpen, 1000)
	set(&opt.QueueDepth, 1024)
	set(&opt.Workers, 512)
	span(&opt.StatementTimeout, 30*time.Second)
	span(&opt.ParkTimeout, 30*time.Second)
	set(&opt.FeedKeep, 100_000)
	set(&opt.FeedChanges, 10_000)
	span(&opt.FeedFor, 24*time.Hour)
	set(&opt.LongStatements, max(1, runtime.GOMAXPROCS(0)-1))
	span(&opt.Grace, 50*time.Millisecond)
	span(&opt.KeptFor, 24*time.Hour)
	span(&opt.IdleAfter, 10*time.Second)
	if opt.KeptBytes <= 0 {
		opt.KeptBytes = 64 << 20
	}
	later := func(time.Time) time.Time { return opt.Now() }
	if opt.Now == nil {
		opt.Now = time.Now
		// Half of what time.Now costs: one clock is read instead of two.
		later = func(began time.Time) time.Time { return began.Add(time.Since(began)) }
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Observer == nil {
		opt.Observer = nobody{}
	}
	opt.Files = opt.Files.withDefaults()
	if opt.Temp == "" {
		opt.Temp = opt.Dir
	}
	if fi, err := os.Stat(opt.Dir); err != nil || !fi.IsDir() {
		return nil, fmt.Errorf("open store: %s is no directory", opt.Dir)
	}
	s := &Store{
		opt: opt, log: opt.Logger, system: systemSet{keptTable, notesTable, snapshotsTable, meterTable}, later: later,
		actors: map[string]*actor{}, retired: map[string]struct{}{},
		stop:   make(chan struct{}),
		turns:  newTurns(opt.LongStatements),
		atWork: map[*worker]struct{}{}, unpinned: make(chan struct{}),
		reap: make(chan struct{}, 1),
		quit: make(chan struct{}),
	}
	s.guardians.Add(2)
	go s.watchdog()
	go s.reaper()
	return s, nil
}

// Do runs r on a database. See Runner.
func (s *Store) Do(ctx context.Context, database string, r *Request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	came := r.Came
	if came.IsZero() {
		came = s.opt.Now()
	}
	c := newCall(ctx, r, came)
	if err := s.submit(database, c); err != nil {
		c.recycle()
		return err
	}
	return s.await(c)
}

// act has an actor do something between two groups. It is no load of the clients', and waits behind a full queue.
func (s *Store) act(ctx context.Context, database string, f act) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := newCall(ctx, &Request{}, s.opt.Now())
	c.act = f
	if err := s.submit(database, c); err != nil {
		c.recycle()
		return err
	}
	return s.await(c)
}

// await waits for the answer of a call, or for its caller to leave while it is queued.
func (s *Store) await(c *call) error {
	ctx := c.ctx
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.move(callQueued, callCancelled) {
			return ctx.Err() // the actor throws the call away when it comes to it, perhaps by now
		}
		<-c.done // it runs: a read notices soon, a write is finished
	}
	err := c.err
	if !c.is(callAbandoned) {
		c.recycle()
	}
	return err
}

// submit puts a call into its actor's queue.
func (s *Store) submit(database string, c *call) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return ErrClosing
	}
	if c.act == nil && s.isRetired(database) {
		s.mu.Unlock()
		return ErrNotFound
	}
	a := s.actors[database]
	if a == nil {
		a = &actor{store: s, id: database}
		s.actors[database] = a
	} else {
		s.recent.touch(a)
	}
	if a.stuck {
		s.mu.Unlock()
		return ErrStuck
	}
	if a.queue.len() >= s.opt.QueueDepth && c.act == nil {
		s.mu.Unlock()
		return ErrQueueFull
	}
	a.queue.push(c)
	if a.busy {
		s.mu.Unlock()
		return nil
	}
	a.busy = true
	s.dispatch(a)
	return nil
}

// Waiting is the number of requests in a database's queue.
func (s *Store) Waiting(database string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.actors[database]; a != nil {
		return a.queue.len()
	}
	return 0
}

// Close stops taking requests, finishes those that wait, and closes every database with a checkpoint. When ctx ends
// what still runs is interrupted and what still waits gets ErrClosing; then it takes up to 1.4 s more.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.closing = true
	drained := make(chan struct{})
	s.drained = drained
	s.running++
	s.leave()
	s.mu.Unlock()

	select {
	case <-drained:
	case <-ctx.Done():
		s.stopping.Store(true) // every running statement looks at it
		close(s.stop)
		// A call that can't be interrupted must not hold the others' checkpoints up: its database is left as after
		// a crash, which the next start recovers.
		patience := time.NewTimer(stuckTime)
		defer patience.Stop()
		select {
		case <-drained:
		case <-patience.C:
		}
	}
	close(s.quit)
	s.guardians.Wait()
	// Its own time: the logs are to be copied back also where something ran up to the end of ctx.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return s.closeAll(last)
}

const (
	// stuckTime is how long Close waits for interrupted statements, and closeTime how long it copies logs back then.
	stuckTime = 500 * time.Millisecond
	closeTime = 900 * time.Millisecond
)

// leave ends the use of actors by a goroutine. The store is locked.
func (s *Store) leave() {
	s.running--
	if s.running == 0 && s.drained != nil {
		close(s.drained)
		s.drained = nil
	}
}

// closers is how many databases close at the same time: each waits for the disk.
const closers = 16

// closeAll closes every database. When ctx ends those that are left close as they are: the next start finds what their
// logs hold.
func (s *Store) closeAll(ctx context.Context) error {
	s.mu.Lock()
	s.ended = true
	rest := make([]*actor, 0, len(s.actors))
	for id, a := range s.actors {
		if a.busy {
			// What the engine can't be stopped in is no failure of the shutdown: the next start recovers the file.
			s.log.Warn("a database is left as after a crash: a statement does not notice that it should stop", "database", id)
			continue
		}
		a.busy = true // ours, like a worker's: a rebuild that ends now looks at what we close
		rest = append(rest, a)
	}
	for _, w := range s.idle {
		close(w.work)
	}
	s.idle = nil
	s.mu.Unlock()

	todo := make(chan *actor)
	failed := make([]error, closers)
	var done sync.WaitGroup
	for i := range closers {
		done.Go(func() {
			t := sqlite.NewThread()
			defer t.Close()
			for a := range todo {
				if err := a.shut(s, t, ctx.Err() == nil); err != nil {
					failed[i] = errors.Join(failed[i], fmt.Errorf("close database %s: %w", a.id, err))
				}
			}
		})
	}
	for _, a := range rest {
		todo <- a
	}
	close(todo)
	done.Wait()
	return errors.Join(failed...)
}
