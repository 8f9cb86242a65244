package feed

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/persqld/persqld/internal/store"
)

var (
	// ErrBehind is returned to a listener that was too slow: what comes next for it is no longer held.
	ErrBehind = errors.New("the listener fell behind")
	// ErrMany and ErrManyHere are returned to one who wants to listen where as many do as may: to all databases together, or to this one.
	ErrMany     = errors.New("as many listen to the server as may")
	ErrManyHere = errors.New("as many listen to the database as may")
)

// Options says how a Hub works. The zero value of a field is the default that stands beside it.
type Options struct {
	Placement store.Placement // it may be set later, before anybody listens
	Max       int             // listeners; 10,000
	MaxHere   int             // of a database; 2,000
	RingBytes int             // of changes that a database's listeners may lag behind; 4 MiB
	For       time.Duration   // the store's FeedFor; 24 h
	// A database's listeners are woken WakeEach for each of them apart, and no further than WakeMost: to wake one, and have it write to its
	// connection, takes some 10 µs of a processor, and nearly all of it is left to those who write; 200 µs, 50 ms
	WakeEach, WakeMost time.Duration
	Logger             *slog.Logger
}

// wakeEvery is how far apart a database's listeners are woken at least: under load each commit would wake all of them.
const wakeEvery = 2 * time.Millisecond

// backlog is how many bytes of batches may wait to be rendered, a database; beyond them all of its listeners are cut off.
const backlog = 32 << 20

// Hub knows who listens to what. It is the store's Feed.
type Hub struct {
	opt Options

	mu      sync.RWMutex
	topics  map[string]*topic
	watched map[string]func() // by database; called in the lane
	count   int

	delivered, cutOff, resynced atomic.Uint64
}

// New returns a Hub.
func New(opt Options) *Hub {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&opt.Max, 10_000)
	set(&opt.MaxHere, 2_000)
	set(&opt.RingBytes, 4<<20)
	if opt.For <= 0 {
		opt.For = 24 * time.Hour
	}
	if opt.WakeEach <= 0 {
		opt.WakeEach = 200 * time.Microsecond
	}
	if opt.WakeMost <= 0 {
		opt.WakeMost = 50 * time.Millisecond
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	return &Hub{opt: opt, topics: map[string]*topic{}, watched: map[string]func(){}}
}

// Place says where databases are, before anybody listens.
func (h *Hub) Place(p store.Placement) { h.opt.Placement = p }

// Listeners is how many listen now. Delivered, CutOff and Resynced count the changes that were given to them, the listeners that were too slow, and
// those that have missed changes.
func (h *Hub) Listeners() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.count
}

// Delivered counts the changes that were given to listeners.
func (h *Hub) Delivered() uint64 { return h.delivered.Load() }

// CutOff counts the listeners that were too slow.
func (h *Hub) CutOff() uint64 { return h.cutOff.Load() }

// Resynced counts how often a listener was told that it missed changes.
func (h *Hub) Resynced() uint64 { return h.resynced.Load() }

// Deliver notes that changes were given to a listener.
func (h *Hub) Deliver(n int) { h.delivered.Add(uint64(n)) }

// topic is a database that somebody listens to.
type topic struct {
	database string
	users    int  // guarded by the hub
	rows     bool // somebody wants values; guarded by the hub

	mu      sync.Mutex
	raw     []*store.Batch // not rendered yet, in order; nil is a break
	waiting int            // bytes of raw
	kick    chan struct{}
	much    int           // bytes of raw that wait for nothing: the ring is to hold them when they are rendered
	full    chan struct{} // there are so many
	quit    chan struct{}

	ring   []*Messages           // the latest, without a gap
	held   int                   // bytes of ring
	last   int64                 // the last change that was rendered
	breaks int                   // times that another file took the database's place, or what came was too much
	lost   int                   // times that it was too much
	news   [groups]chan struct{} // of who waits, by group; nil where nobody does
	seats  int                   // Readers that ever were; guarded by the hub
}

// groups is how many parts a topic's listeners are woken in, where they are more than crowd. All at once they would stand in the scheduler's queue
// before a writer that comes back from the disk.
const (
	groups = 8
	crowd  = 16
)

// newsFor is closed when there may be more for a group. t is locked.
func (t *topic) newsFor(group int) <-chan struct{} {
	if t.news[group] == nil {
		t.news[group] = make(chan struct{})
	}
	return t.news[group]
}

// Committed is told by the store's lane: it only puts the batch down.
func (h *Hub) Committed(database string, b *store.Batch) { h.tell(database, b) }

// Broken is told by the store's lane.
func (h *Hub) Broken(database string) { h.tell(database, nil) }

func (h *Hub) tell(database string, b *store.Batch) {
	h.mu.RLock()
	t, wake := h.topics[database], h.watched[database]
	h.mu.RUnlock()
	if t != nil {
		t.put(b)
	}
	if wake != nil {
		wake()
	}
}

// Watch has wake called after each commit of a database that is listened to for good, in its lane: it must not wait. nil ends it. One who reads only then, by Read, is no
// listener, and holds no memory in between.
func (h *Hub) Watch(database string, wake func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if wake == nil {
		delete(h.watched, database)
		return
	}
	h.watched[database] = wake
}

// ListenForGood has a database keep what it commits as long as it is told nothing else. The answer is its last change.
func (h *Hub) ListenForGood(ctx context.Context, database string, on bool) (int64, error) {
	owner, err := h.opt.Placement.Owner(ctx, database)
	if err != nil {
		return 0, err
	}
	return owner.ListenForGood(ctx, database, on)
}

func (t *topic) put(b *store.Batch) {
	t.mu.Lock()
	t.raw = append(t.raw, b)
	if b != nil {
		t.waiting += b.Size()
	}
	if t.waiting > backlog {
		t.raw, t.waiting = nil, 0
		t.lost++
		t.ring, t.held = nil, 0
	}
	full := t.waiting > t.much
	t.mu.Unlock()
	select {
	case t.kick <- struct{}{}:
	default:
	}
	if full {
		select {
		case t.full <- struct{}{}:
		default:
		}
	}
}

// pump renders what was put down and tells the listeners, beside the lane: waking a hundred of them takes as long as an insert.
func (h *Hub) pump(t *topic) {
	for {
		select {
		case <-t.quit:
			return
		case <-t.kick:
		}
		h.mu.RLock()
		users := t.users
		h.mu.RUnlock()
		h.round(t, users)
		// The first change is told at once; those that follow closely are told together.
		select {
		case <-t.quit:
			return
		case <-t.full:
		case <-time.After(min(max(wakeEvery, time.Duration(users)*h.opt.WakeEach), h.opt.WakeMost)):
		}
	}
}

// round renders what was put down, and tells the listeners that it is there.
func (h *Hub) round(t *topic, users int) {
	t.mu.Lock()
	raw, lost := t.raw, t.lost
	t.raw, t.waiting = nil, 0
	select {
	case <-t.full:
	default:
	}
	t.mu.Unlock()
	var fresh []*Messages
	broke := false
	for _, b := range raw {
		if b == nil {
			fresh, broke = nil, true
			continue
		}
		m, err := render(b)
		if err != nil {
			h.opt.Logger.Error("a change can't be told", "database", t.database, "error", err)
			fresh, broke = nil, true
			continue
		}
		fresh = append(fresh, m)
	}
	t.mu.Lock()
	if broke {
		t.breaks++
		t.ring, t.held = nil, 0
	}
	if t.lost == lost {
		for _, m := range fresh {
			if len(t.ring) > 0 && t.ring[len(t.ring)-1].Last+1 != m.First {
				t.ring, t.held = nil, 0
			}
			t.ring = append(t.ring, m)
			t.held += m.size
			t.last = m.Last
		}
		// What is new stays, or somebody who has heard all before would be behind.
		for t.held > h.opt.RingBytes && len(t.ring) > max(1, len(fresh)) {
			t.held -= t.ring[0].size
			t.ring[0] = nil
			t.ring = t.ring[1:]
		}
	}
	waiting := t.news
	t.news = [groups]chan struct{}{}
	t.mu.Unlock()
	for _, c := range waiting {
		if c == nil {
			continue
		}
		close(c)
		if users > crowd {
			runtime.Gosched()
		}
	}
}

// Reader is a listener's place in the changes of a database. It is for one goroutine.
type Reader struct {
	h     *Hub
	t     *topic
	rows  bool
	group int

	next   int64 // the change that comes next
	head   int64 // the last one when it began
	live   bool  // it has caught up once
	breaks int
	lost   int
	unsaid bool // it has missed changes, and wasn't told
	over   bool
}

// Now is the place of one who wants what comes from now on.
const Now = -1

// Read is what a database that is listened to for good has committed behind a change, so many commits at most. missed says that changes are missing behind it: what comes
// from now on follows head.
func (h *Hub) Read(ctx context.Context, database string, since int64, commits int) (list []*Messages, missed bool, head int64, err error) {
	owner, err := h.opt.Placement.Owner(ctx, database)
	if err != nil {
		return nil, false, 0, err
	}
	batches, err := owner.Journal(ctx, database, since, commits)
	if errors.Is(err, store.ErrUnheard) {
		head, err := owner.ListenForGood(ctx, database, true)
		return nil, err == nil, head, err
	}
	if err != nil {
		return nil, false, 0, err
	}
	for _, b := range batches {
		m, err := render(b)
		if err != nil {
			return nil, false, 0, err
		}
		if m.First <= since { // of a commit that was given in part
			m = m.from(since + 1)
		}
		list = append(list, m)
	}
	return list, false, 0, nil
}

// Join begins to listen to a database, behind a change or from now on. The Reader is to be left.
func (h *Hub) Join(ctx context.Context, database string, since int64, rows bool) (_ *Reader, err error) {
	h.mu.Lock()
	t := h.topics[database]
	switch {
	case h.count >= h.opt.Max:
		h.mu.Unlock()
		return nil, ErrMany
	case t != nil && t.users >= h.opt.MaxHere:
		h.mu.Unlock()
		return nil, ErrManyHere
	}
	if t == nil {
		t = &topic{database: database, kick: make(chan struct{}, 1), much: h.opt.RingBytes / 8, full: make(chan struct{}, 1), quit: make(chan struct{})}
		h.topics[database] = t
		go h.pump(t)
	}
	t.users++
	group := t.seats % groups
	t.seats++
	t.rows = t.rows || rows
	h.count++
	h.mu.Unlock()
	r := &Reader{h: h, t: t, rows: rows, group: group}
	defer func() {
		if err != nil {
			r.Leave()
		}
	}()
	t.mu.Lock()
	r.breaks, r.lost = t.breaks, t.lost
	t.mu.Unlock()
	if r.head, err = h.listen(ctx, database, rows); err != nil {
		return nil, err
	}
	switch {
	case since == Now:
		r.next, r.live = r.head+1, true
	case since < 0 || since > r.head:
		r.next, r.unsaid = r.head+1, true
	default:
		r.next = since + 1
	}
	return r, nil
}

func (h *Hub) listen(ctx context.Context, database string, rows bool) (int64, error) {
	owner, err := h.opt.Placement.Owner(ctx, database)
	if err != nil {
		return 0, err
	}
	return owner.Listen(ctx, database, rows)
}

// Leave ends the Reader.
func (r *Reader) Leave() {
	if r.over {
		return
	}
	r.over = true
	h := r.h
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count--
	if r.t.users--; r.t.users == 0 {
		delete(h.topics, r.t.database)
		close(r.t.quit)
	}
}

// Seen is the last change that the Reader has given, or what it began behind.
func (r *Reader) Seen() int64 { return r.next - 1 }

// pullBytes is how much Next gives at a time, one commit at least.
const pullBytes = 256 << 10

// Next gives what comes next, if it is there; else a channel that is closed when there may be more. resync says that changes are missing before it. It returns
// ErrBehind to one who was too slow.
func (r *Reader) Next(ctx context.Context) (list []*Messages, resync bool, news <-chan struct{}, err error) {
	t := r.t
	t.mu.Lock()
	news = t.newsFor(r.group)
	switch {
	case r.unsaid:
		r.unsaid = false
		t.mu.Unlock()
		r.h.resynced.Add(1)
		return nil, true, news, nil
	case r.breaks != t.breaks:
		r.breaks = t.breaks
		t.mu.Unlock()
		// From now on: where the numbers go on the database knows.
		err := r.begin(ctx)
		return nil, err == nil, news, err
	case r.lost != t.lost:
		t.mu.Unlock()
		r.h.cutOff.Add(1)
		return nil, false, nil, ErrBehind
	}
	if len(t.ring) > 0 && t.ring[0].First <= r.next && r.next <= t.last {
		at, _ := slices.BinarySearchFunc(t.ring, r.next, func(m *Messages, seq int64) int {
			if m.Last < seq {
				return -1
			}
			return 1
		})
		for size := 0; at < len(t.ring) && size < pullBytes; at++ {
			list = append(list, t.ring[at])
			size += t.ring[at].size
		}
		t.mu.Unlock()
		r.live = true
		return r.give(list), false, news, nil
	}
	behind := r.next <= t.last && len(t.ring) > 0 || r.next <= r.head
	t.mu.Unlock()
	if !behind {
		r.live = true
		return nil, false, news, nil
	}
	if r.live {
		r.h.cutOff.Add(1)
		return nil, false, nil, ErrBehind
	}
	owner, err := r.h.opt.Placement.Owner(ctx, t.database)
	if err != nil {
		return nil, false, nil, err
	}
	batches, err := owner.Journal(ctx, t.database, r.next-1, 0)
	if errors.Is(err, store.ErrUnheard) {
		err := r.begin(ctx)
		return nil, err == nil, news, err
	}
	if err != nil {
		return nil, false, nil, err
	}
	for _, b := range batches {
		m, err := render(b)
		if err != nil {
			return nil, false, nil, err
		}
		list = append(list, m)
	}
	return r.give(list), false, news, nil
}

// begin goes on from now, with what came before untold.
func (r *Reader) begin(ctx context.Context) error {
	for {
		head, err := r.h.listen(ctx, r.t.database, r.rows)
		if errors.Is(err, store.ErrRebuilding) {
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err == nil {
			r.next, r.head, r.live = head+1, head, true
			r.h.resynced.Add(1)
		}
		return err
	}
}

// give notes what is given, and leaves out of its first commit what was given before.
func (r *Reader) give(list []*Messages) []*Messages {
	if len(list) == 0 {
		return nil
	}
	if first := list[0]; first.First < r.next {
		list[0] = first.from(r.next)
	}
	r.next = list[len(list)-1].Last + 1
	return list
}

// Run keeps the databases listening that somebody listens to, until ctx ends.
func (h *Hub) Run(ctx context.Context) {
	tick := time.NewTicker(max(h.opt.For/48, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		type place struct {
			database string
			rows     bool
		}
		var all []place
		h.mu.RLock()
		for id, t := range h.topics {
			all = append(all, place{id, t.rows})
		}
		h.mu.RUnlock()
		for _, p := range all {
			if _, err := h.listen(ctx, p.database, p.rows); err != nil && ctx.Err() == nil {
				h.opt.Logger.Warn("listening could not be prolonged; it is tried again", "database", p.database, "error", err)
			}
		}
	}
}

// Cut counts a listener that didn't read what was written to it.
func (h *Hub) Cut() { h.cutOff.Add(1) }
