package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/history"
)

// Past is the history that is shipped: internal/history.
type Past interface {
	Head(id string) (history.Head, error)
	TimeOf(id string, position uint64) (int64, error)
	Changes(ctx context.Context, id string, after, upTo uint64, within time.Duration) (*history.Changes, error)
	Restore(ctx context.Context, id string, at uint64, to string) error
}

// Observer is told what a shipper does, for metrics. Its methods are called by many goroutines.
type Observer interface {
	Shipped(level int, bytes int64) // a file is in the replica
	Lag(d time.Duration)            // how old the first transaction of a file of level 0 was then
	ShipFailed()
}

// Options say what a Shipper works with. The zero value of a field below the line is the default that stands beside it.
type Options struct {
	Bucket bucket.Bucket
	Past   Past
	// Keep hands what a database has committed to the history; it need not be durable there, if it comes back after a power loss when Keep is called again.
	Keep func(ctx context.Context, id string) error
	// Base begins a database's history anew with a copy of its file, where it is damaged; nil if nobody can.
	Base func(ctx context.Context, id string) error
	// Size is how many bytes a database's file has.
	Size func(id string) int64
	// Databases are the ids of all that there are, those in the trash included.
	Databases func() []string
	// CopyCatalog writes the catalog as it is to a new file, page by page.
	CopyCatalog func(ctx context.Context, to string) error
	// CatalogFiles are those that change when the catalog does.
	CatalogFiles []string
	// CatalogVersion is another number after a change of the catalog, and the same after one of the counts in it; nil is always another.
	CatalogVersion func() uint64
	Server         string // the server's id: a replica belongs to one
	Temp           string // a directory for files that are being built
	State          string // a file that remembers what was shipped

	Interval time.Duration // between two files of level 0 of a database; 1 s
	Workers  int           // databases that are shipped at the same time; 8
	KeepFor  time.Duration // how far back moments can be restored; 720 h
	Now      func() time.Time
	Logger   *slog.Logger
	Observer Observer
}

// Shipper keeps a replica up to date: a second behind while databases are written, and idle while they aren't.
type Shipper struct {
	opt Options
	log *slog.Logger

	mu      sync.Mutex
	dirty   map[string]int64    // what has transactions that the replica doesn't: since when, in Unix ms
	busy    map[string]int64    // what a worker has, or will: since when it is dirty; 0 if it isn't
	grew    map[string]uint64   // how far histories came while a worker had their databases
	looked  bool                // what the replica may not have was looked for
	gone    map[string]bool     // what is being purged
	tracks  map[string]*track   // what was shipped lately, or couldn't be
	shipped map[string]ltx.TXID // the last transaction that the replica is known to have
	saved   bool                // shipped is as the state file has it
	free    chan struct{}       // closed, and replaced, when a worker is done with a database
	wake    chan struct{}       // something is dirty
	ending  atomic.Bool         // the store is closed: the history has everything
	large   chan struct{}       // has a place for each snapshot that may be made at the same time
	books   catalogTrack
}

// New returns a Shipper. It does nothing before Run.
func New(opt Options) *Shipper {
	if opt.Interval <= 0 {
		opt.Interval = time.Second
	}
	if opt.Workers <= 0 {
		opt.Workers = 8
	}
	if opt.KeepFor <= 0 {
		opt.KeepFor = 720 * time.Hour
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Observer == nil {
		opt.Observer = nobody{}
	}
	return &Shipper{opt: opt, log: opt.Logger, dirty: map[string]int64{}, busy: map[string]int64{}, gone: map[string]bool{}, grew: map[string]uint64{}, tracks: map[string]*track{},
		shipped: map[string]ltx.TXID{}, free: make(chan struct{}), wake: make(chan struct{}, 1), large: make(chan struct{}, max(1, opt.Workers/2))}
}

type nobody struct{}

func (nobody) Shipped(int, int64) {}
func (nobody) Lag(time.Duration)  {}
func (nobody) ShipFailed()        {}

// Note says that a database has a transaction, committed at a time in Unix ms, that the replica doesn't have. It costs a lock and a map's slot.
func (s *Shipper) Note(id string, ms int64) {
	s.mu.Lock()
	_, known := s.dirty[id]
	if !known {
		s.dirty[id] = ms
	}
	first := !known && len(s.dirty) == 1
	s.mu.Unlock()
	if first {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Grew says how far a database's history goes: not all that comes into it was noted as a commit, such as another file in the database's place and what a crash
// left.
func (s *Shipper) Grew(id string, position uint64) {
	s.mu.Lock()
	_, busy := s.busy[id]
	if busy {
		s.grew[id] = position // the worker that has it may ship that, too
	}
	late := !busy && s.shipped[id] < txid(position)
	s.mu.Unlock()
	if late {
		s.Note(id, s.opt.Now().UnixMilli())
	}
}

// Behind is how many databases have transactions that the replica doesn't, and for how long the first of those has waited.
func (s *Shipper) Behind() (databases int, longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opt.Now().UnixMilli()
	for id, ms := range s.dirty {
		if s.busy[id] == 0 {
			databases++
			longest = max(longest, time.Duration(now-ms)*time.Millisecond)
		}
	}
	for _, ms := range s.busy {
		if ms != 0 {
			databases++
			longest = max(longest, time.Duration(now-ms)*time.Millisecond)
		}
	}
	if !s.looked {
		databases = max(databases, 1) // nobody knows yet
	}
	return databases, longest
}

// saveEvery is how often the state is saved while it changes. What is lost of it costs a listing a database.
const saveEvery = 10 * time.Minute

// Run ships until ctx ends, and then what is left for as long as the context that last returns lasts.
func (s *Shipper) Run(ctx context.Context, last func() (context.Context, context.CancelFunc)) {
	if !s.claim(ctx) {
		return
	}
	s.reconcile()
	work := make(chan string)
	var workers sync.WaitGroup
	for range s.opt.Workers {
		workers.Go(func() {
			for id := range work {
				s.serve(ctx, id)
			}
		})
	}
	workers.Go(func() { s.runCatalog(ctx) })
	s.feed(ctx, work)
	close(work)
	workers.Wait()

	end, cancel := last()
	defer cancel()
	s.flush(end)
	s.saveState()
}

// feed hands out what is to be done, the oldest first.
func (s *Shipper) feed(ctx context.Context, work chan<- string) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	saved := s.opt.Now()
	for {
		now := s.opt.Now()
		ids, next := s.ready(now)
		for i, id := range ids {
			select {
			case work <- id:
			case <-ctx.Done():
				s.putBack(ids[i:])
				return
			}
		}
		if now.Sub(saved) > saveEvery {
			saved = now
			s.saveState()
		}
		var wait <-chan time.Time
		if !next.IsZero() {
			timer.Reset(max(next.Sub(s.opt.Now()), 10*time.Millisecond))
			wait = timer.C
		}
		s.mu.Lock()
		free := s.free
		s.mu.Unlock()
		if len(ids) > 0 {
			continue // meanwhile others may have come
		}
		select {
		case <-ctx.Done():
			return
		case <-wait:
		case <-s.wake:
		case <-free:
		}
	}
}

// ready takes the databases whose time has come, and says when that of the next one does: never, if it is zero.
func (s *Shipper) ready(now time.Time) (ids []string, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	type wanted struct {
		id    string
		since int64
	}
	var list []wanted
	consider := func(id string, since int64, at time.Time) {
		_, busy := s.busy[id]
		switch {
		case busy || s.gone[id]:
		case at.After(now):
			if next.IsZero() || at.Before(next) {
				next = at
			}
		default:
			list = append(list, wanted{id, since})
		}
	}
	for id, ms := range s.dirty {
		at := time.UnixMilli(ms).Add(s.opt.Interval)
		if t := s.tracks[id]; t != nil {
			if at.Before(t.retry) {
				at = t.retry
			}
			if e := t.last.Add(s.opt.Interval); at.Before(e) {
				at = e
			}
		}
		consider(id, ms, at)
	}
	for id, t := range s.tracks {
		if _, is := s.dirty[id]; is {
			continue
		}
		if t.due.IsZero() {
			if _, busy := s.busy[id]; !busy {
				delete(s.tracks, id) // nothing is left to be done: it is listed anew when it is written again
			}
			continue
		}
		consider(id, t.due.UnixMilli(), t.due)
	}
	// One that comes meanwhile tells only whoever waits for the first.
	if soon := now.Add(s.opt.Interval); len(s.dirty) > 0 && (next.IsZero() || soon.Before(next)) {
		next = soon
	}
	slices.SortFunc(list, func(a, b wanted) int { return cmp.Compare(a.since, b.since) })
	for _, w := range list {
		s.busy[w.id] = s.dirty[w.id]
		ids = append(ids, w.id)
	}
	return ids, next
}

// putBack gives back what ready took and nobody had.
func (s *Shipper) putBack(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.busy, id)
	}
}

// serve ships one database, and remembers what it couldn't.
func (s *Shipper) serve(ctx context.Context, id string) {
	s.mu.Lock()
	since, dirty := s.dirty[id]
	delete(s.dirty, id)
	s.busy[id] = since
	t := s.tracks[id]
	if t == nil {
		t = &track{id: id}
		s.tracks[id] = t
	}
	s.mu.Unlock()

	err := s.ship(ctx, t, dirty)

	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, id)
	if position, ok := s.grew[id]; ok {
		delete(s.grew, id)
		if _, is := s.dirty[id]; !is && t.shipped < txid(position) {
			s.dirty[id] = s.opt.Now().UnixMilli()
		}
	}
	close(s.free)
	s.free = make(chan struct{})
	t.last = s.opt.Now()
	if t.known && s.shipped[id] != t.shipped {
		s.shipped[id], s.saved = t.shipped, false
	}
	if err == nil {
		t.failures, t.retry = 0, time.Time{}
		return
	}
	if dirty {
		if later, ok := s.dirty[id]; !ok || since < later {
			s.dirty[id] = since
		}
	}
	if ctx.Err() != nil || errors.Is(err, errLater) {
		t.retry = t.last.Add(s.opt.Interval)
		return
	}
	t.failures++
	t.known = false // what the replica has is looked for again
	t.retry = t.last.Add(backoff(t.failures, err))
	if !t.due.IsZero() && t.due.Before(t.retry) {
		t.due = t.retry
	}
	s.opt.Observer.ShipFailed()
	s.log.Warn("ship to the replica; it is tried again", "database", id, "failures", t.failures, "again", t.retry.UTC().Format(time.RFC3339), "error", err)
}

// errLater is for what waits for others' work.
var errLater = errors.New("too much else is under way")

// The times after which what failed is tried again.
const (
	retryFirst    = time.Second
	retryLast     = time.Minute
	retryDiverged = 15 * time.Minute
)

func backoff(failures int, err error) time.Duration {
	var diverged *DivergedError
	if errors.As(err, &diverged) {
		return retryDiverged
	}
	return min(retryFirst<<min(failures-1, 10), retryLast)
}

// flush ships what is left at the end.
func (s *Shipper) flush(ctx context.Context) {
	s.ending.Store(true)
	s.mu.Lock()
	ids := make([]string, 0, len(s.dirty))
	for id := range s.dirty {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	work := make(chan string)
	var workers sync.WaitGroup
	for range s.opt.Workers {
		workers.Go(func() {
			for id := range work {
				s.serve(ctx, id)
			}
		})
	}
	for _, id := range ids {
		select {
		case work <- id:
		case <-ctx.Done():
		}
	}
	close(work)
	workers.Wait()
	if ctx.Err() == nil {
		s.books.at = time.Time{} // the last counts too
		if err := s.shipCatalog(ctx); err != nil {
			s.log.Warn("ship the catalog to the replica", "error", err)
		}
	}
	if n, _ := s.Behind(); n > 0 {
		s.log.Warn("the replica does not have everything; the next start goes on", "databases", n)
	}
}

// reconcile finds what the replica may not have: what was written when the server was killed, and what it never had.
func (s *Shipper) reconcile() {
	now := s.opt.Now().UnixMilli()
	for _, id := range s.opt.Databases() {
		head, err := s.opt.Past.Head(id)
		if err != nil {
			s.log.Warn("read the end of a history", "database", id, "error", err)
			continue
		}
		s.mu.Lock()
		same := head.Known && s.shipped[id] == txid(head.Position)
		s.mu.Unlock()
		if !same {
			s.Note(id, now)
		}
	}
	s.mu.Lock()
	s.looked = true
	s.mu.Unlock()
}

// Forget takes a database out of the replica, which is gone for good. Whoever ships it is waited for.
func (s *Shipper) Forget(ctx context.Context, id string) error {
	s.mu.Lock()
	s.gone[id] = true
	for {
		if _, busy := s.busy[id]; !busy {
			break
		}
		free := s.free
		s.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.mu.Lock()
	}
	delete(s.dirty, id)
	delete(s.tracks, id)
	if _, ok := s.shipped[id]; ok {
		delete(s.shipped, id)
		s.saved = false
	}
	s.mu.Unlock()
	var keys []string
	err := s.opt.Bucket.List(ctx, databasePrefix(id)+"/", func(o bucket.Object) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err == nil && len(keys) > 0 {
		err = s.opt.Bucket.Delete(ctx, keys...)
	}
	if err != nil {
		return fmt.Errorf("purge %s from the replica: %w", id, err)
	}
	s.mu.Lock()
	delete(s.gone, id)
	s.mu.Unlock()
	return nil
}
