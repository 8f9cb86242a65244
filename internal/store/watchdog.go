package store

import (
	"errors"
	"time"
)

// watchdogEvery is how often the watchdog looks. With the grace it decides how long after its limit a statement is
// answered that does not notice it by itself.
const watchdogEvery = 20 * time.Millisecond

// watchdog answers requests whose statement is over its limit and does not come back: a single call of the engine,
// such as replace() on a huge value, looks at neither the limit nor an interrupt. The worker undoes the statement
// when the call returns; until then the database takes no requests.
func (s *Store) watchdog() {
	defer s.guardians.Done()
	tick := time.NewTicker(watchdogEvery)
	defer tick.Stop()
	var workers []*worker
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
		}
		workers = workers[:0]
		s.mu.Lock()
		for w := range s.atWork {
			workers = append(workers, w)
		}
		s.mu.Unlock()
		if s.nearLimit() {
			s.stopLargest()
		}
		limit := s.opt.Now().Add(-s.opt.Grace).UnixNano()
		for _, w := range workers {
			if c := w.cur.Load(); c != nil {
				s.giveUp(w, c, limit)
			}
		}
	}
}

// giveUp answers a call that is over its limit.
func (s *Store) giveUp(w *worker, c *call, limit int64) {
	state := c.state.Load()
	if state%callStates != callRunning {
		return
	}
	if d := c.deadline.Load(); d == 0 || d > limit {
		return
	}
	a := w.actor.Load()
	if a == nil {
		return
	}
	s.mu.Lock()
	if !c.state.CompareAndSwap(state, state-callRunning+callAbandoned) {
		s.mu.Unlock()
		return
	}
	a.stuck = true
	var waiting []*call
	for a.queue.len() > 0 {
		waiting = append(waiting, a.queue.pop())
	}
	// The worker is inside the engine, or waits for the lock in unstick: what it holds stands still. Those of its
	// batch that it has not come to wait like the queue; those whose work waits for the commit lose it.
	for i := w.at + 1; i < len(w.batch); i++ {
		if q := w.batch[i]; q != nil {
			waiting = append(waiting, q)
			w.batch[i] = nil
		}
	}
	for _, q := range w.group.pending {
		q.answer(ErrStuck)
	}
	s.mu.Unlock()
	s.log.Warn("a statement does not notice its time limit; its database waits for it", "database", a.id)
	for _, q := range waiting {
		if q.move(callQueued, callFinished) {
			q.answer(ErrStuck)
		} else {
			q.recycle()
		}
	}
	c.answer(errors.Join(ErrTimeout, ErrAbandoned))
}

// unstick lets the database take requests again.
func (w *worker) unstick(a *actor) {
	w.store.mu.Lock()
	a.stuck = false
	w.store.mu.Unlock()
}
