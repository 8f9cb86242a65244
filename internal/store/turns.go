package store

import (
	"context"
	"sync"
	"time"
)

const (
	// longAfter is the engine time after which a request's statements count as long: few of those run at a time.
	longAfter = 5 * time.Millisecond
	// turnTime is how long a long statement runs before others that wait have their turn.
	turnTime = 20 * time.Millisecond
	// maxParked bounds how many statements wait for a turn: each holds a goroutine, a thread of the engine and an open
	// database.
	maxParked = 1024
)

// turns lets a few long statements run at a time and parks the others, in the engine's progress handler. Whose turn is
// next goes round by namespace, and within one in the order of coming: a namespace with a hundred long statements gets
// as much as one with a single one.
type turns struct {
	mu      sync.Mutex
	slots   int // how many may run; processors - 1, so that short statements always find one
	running int
	parked  int
	ring    []*party // namespaces in which somebody waits, the next one first
	parties map[string]*party
}

// party is a namespace's statements that wait.
type party struct {
	namespace string
	waiters   []*waiter
}

type waiter struct {
	granted chan struct{} // closed when it is its turn
	party   *party
}

func newTurns(slots int) *turns {
	return &turns{slots: max(1, slots), parties: map[string]*party{}}
}

// take gives a turn at once, or a waiter to wait with; neither if too many wait.
func (t *turns) take(namespace string) (*waiter, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running < t.slots {
		t.running++
		return nil, true
	}
	if t.parked >= maxParked {
		return nil, false
	}
	return t.wait(namespace), true
}

func (t *turns) wait(namespace string) *waiter {
	p := t.parties[namespace]
	if p == nil {
		p = &party{namespace: namespace}
		t.parties[namespace] = p
		t.ring = append(t.ring, p)
	}
	w := &waiter{granted: make(chan struct{}), party: p}
	p.waiters = append(p.waiters, w)
	t.parked++
	return w
}

// swap ends a turn if somebody waits, and waits for the next; nil if nobody does.
func (t *turns) swap(namespace string) *waiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.parked == 0 {
		return nil
	}
	w := t.wait(namespace)
	t.next()
	return w
}

// give ends a turn.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next()
}

// next hands a turn that ended to who waits longest in the namespace whose turn it is.
func (t *turns) next() {
	if len(t.ring) == 0 {
		t.running--
		return
	}
	p := t.ring[0]
	t.ring = t.ring[1:]
	w := p.waiters[0]
	p.waiters[0] = nil
	p.waiters = p.waiters[1:]
	t.parked--
	if len(p.waiters) > 0 {
		t.ring = append(t.ring, p)
	} else {
		delete(t.parties, p.namespace)
	}
	close(w.granted)
}

// leave stops waiting. False means that the turn had come: the caller has it.
func (t *turns) leave(w *waiter) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-w.granted:
		return false
	default:
	}
	p := w.party
	for i, other := range p.waiters {
		if other == w {
			p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
			break
		}
	}
	t.parked--
	if len(p.waiters) == 0 {
		delete(t.parties, p.namespace)
		for i, other := range t.ring {
			if other == p {
				t.ring = append(t.ring[:i], t.ring[i+1:]...)
				break
			}
		}
	}
	return true
}

// takeTurn is asked by the engine's watch when the request's statements have run for so long that they count as long,
// and now and then from there on. It returns when the statement may go on, or why it must stop.
func (w *worker) takeTurn(c *call, now time.Time) error {
	s, t := w.store, w.store.turns
	var wait *waiter
	if w.stats.turn.IsZero() {
		var ok bool
		if wait, ok = t.take(c.req.Namespace); !ok {
			return ErrParked
		}
	} else if wait = t.swap(c.req.Namespace); wait == nil {
		w.stats.turn = now // nobody else waits
		return nil
	}
	w.stats.turn = now
	if wait == nil {
		return nil
	}
	// Time that it waits is not the statement's: neither its limit nor the watchdog counts it.
	deadline := c.deadline.Swap(0)
	s.opt.Observer.Parked(1)
	s.lend(1)
	left := time.NewTimer(max(0, s.opt.ParkTimeout-w.stats.parked))
	defer left.Stop()
	done := c.ctx.Done()
	if w.stats.writing {
		done = nil // what writes is finished, whether or not its caller waits
	}
	err := error(nil)
	for waiting := true; waiting && err == nil; {
		select {
		case <-wait.granted:
			waiting = false
		case <-left.C:
			err = ErrParked
		case <-done:
			err = c.ctx.Err()
		case <-s.stop:
			err = ErrClosing
		case <-w.kick:
			err = w.evicted(c)
		}
	}
	s.lend(-1)
	s.opt.Observer.Parked(-1)
	w.stats.turn = time.Time{}
	if err == nil || !t.leave(wait) {
		w.stats.turn = s.opt.Now() // it has a turn, to go on with or to end
	}
	after := s.opt.Now()
	d := after.Sub(now)
	w.stats.parked += d
	w.stats.stmt, w.stats.yielded = w.stats.stmt.Add(d), after
	if deadline != 0 {
		c.deadline.Store(deadline + int64(d))
	}
	return err
}

// endTurn is called when the request's job has returned.
func (w *worker) endTurn() {
	if !w.stats.turn.IsZero() {
		w.stats.turn = time.Time{}
		w.store.turns.give()
	}
}

// lend changes how many workers count as free for others: one whose statement is parked does nothing.
func (s *Store) lend(n int) {
	s.mu.Lock()
	s.workers -= n
	if n < 0 || len(s.ready) == 0 {
		s.mu.Unlock()
		return
	}
	a := s.ready[0]
	s.ready = s.ready[1:]
	s.dispatch(a) // unlocks
}

// Share lets work beside the actors (an export, an import) take turns with long statements. look is asked again and again
// while the work goes on, by one goroutine; it returns when the work may go on, or why it must stop. end is called when
// the work is done, and before it waits for something else (a client that reads slowly).
func (s *Store) Share(ctx context.Context, namespace string) (look func() error, end func()) {
	began := s.opt.Now()
	var turn time.Time // when it began; zero while there is none
	look = func() error {
		now := s.opt.Now()
		var wait *waiter
		switch {
		case turn.IsZero() && now.Sub(began) <= longAfter, !turn.IsZero() && now.Sub(turn) <= turnTime:
			return ctx.Err()
		case turn.IsZero():
			var ok bool
			if wait, ok = s.turns.take(namespace); !ok {
				return ErrParked
			}
		default:
			wait = s.turns.swap(namespace)
		}
		turn = now
		if wait == nil {
			return ctx.Err()
		}
		s.opt.Observer.Parked(1)
		defer s.opt.Observer.Parked(-1)
		var err error
		select {
		case <-wait.granted:
		case <-ctx.Done():
			err = ctx.Err()
		case <-s.stop:
			err = ErrClosing
		}
		turn = time.Time{}
		if err == nil || !s.turns.leave(wait) {
			turn = s.opt.Now()
		}
		return err
	}
	return look, func() {
		if !turn.IsZero() {
			turn = time.Time{}
			s.turns.give()
		}
	}
}
