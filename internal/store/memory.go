package store

import (
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// The engine's memory has one limit for all databases. Whoever comes when it is used up finds none, and that is seldom
// who used it. So near the limit the statement that holds the most is stopped, and one that found none is run again.

const (
	// hogShare is which part of the limit a statement must hold to be stopped for it: an eighth.
	hogShare = 8
	// reliefTime is how long a statement that found no memory waits for the one that is stopped for it.
	reliefTime = 250 * time.Millisecond
)

// eviction is a request that is to stop for its memory. Calls are used again: the state has the number of the use.
type eviction struct {
	call  *call
	state uint64
}

// nearLimit tells whether the engine has used nine tenths of its memory.
func (s *Store) nearLimit() bool {
	return s.opt.MemoryLimit > 0 && sqlite.MemoryUsed() > s.opt.MemoryLimit/10*9
}

// consumer is the worker whose request holds the most of the engine's memory now, and how many bytes.
func (s *Store) consumer() (most *worker, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.atWork {
		if h := w.heap.Load(); h != nil && w.cur.Load() != nil && h.Held() > bytes {
			most, bytes = w, h.Held()
		}
	}
	return most, bytes
}

// largest tells whether the request that found no memory is itself the one that used it.
func (s *Store) largest(w *worker) bool {
	mine := w.thread.Heap().Peak() // it has been given back already
	if s.opt.MemoryLimit <= 0 || mine < s.opt.MemoryLimit/hogShare {
		return false
	}
	other, bytes := s.consumer()
	return other == nil || other == w || bytes < mine
}

// stopLargest stops the request that holds the most, if it holds much. It tells whether it did.
func (s *Store) stopLargest() bool {
	w, bytes := s.consumer()
	if w == nil || bytes < s.opt.MemoryLimit/hogShare {
		return false
	}
	c := w.cur.Load()
	if c == nil {
		return false
	}
	state := c.state.Load()
	if state%callStates != callRunning {
		return false
	}
	w.evict.Store(&eviction{c, state})
	select {
	case w.kick <- struct{}{}:
	default:
	}
	return true
}

// evicted tells a running request whether it is to stop for its memory.
func (w *worker) evicted(c *call) error {
	if e := w.evict.Load(); e != nil && e.call == c && e.state == c.state.Load() {
		return ErrHog
	}
	return nil
}

// relieve makes room for a request that found no memory and is about to run again.
func (s *Store) relieve() {
	s.wantReap()
	if !s.nearLimit() || !s.stopLargest() {
		return
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(reliefTime); s.nearLimit(); {
		select {
		case <-tick.C:
		case <-end:
			return
		}
	}
}
