package store

import (
	"sync/atomic"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// actor is a database in use: its connection and the requests that wait for it. Exactly one worker has it while it
// is busy; that worker alone touches what stands below the line. The rest is guarded by the store's lock.
type actor struct {
	store *Store
	id    string

	queue      fifo
	busy       bool
	stuck      bool   // the worker is inside a call of the engine that can't be interrupted
	deleted    bool   // there is no file any more
	prev, next *actor // in the store's list of open databases
	used       time.Time
	released   bool // it gave its memory back since it was last used
	slim       bool // what it has of the log's index is what it uses

	pins   atomic.Int32 // how many read the file beside the actor: no checkpoint may write to it; raised by the worker
	frozen atomic.Bool  // it is being replaced: writes would be lost; set by the worker

	// ――― the worker's

	conn   *sqlite.Conn
	broken error // the file can't be opened until the process ends
	tables tableSet
	kept   keptState
	past   past
	meter  meterState
	rec    *recorder // nil: what changes is not recorded
	feed   *journal  // nil: nobody listens to what changes

	witnessed bool    // the connection tells of every row that changes, to whom the next line says
	witness   Witness // of the request that runs; nil for none
	// checkpointAt is how long the log must be, in pages, for another checkpoint after one that failed.
	checkpointAt int
}

// worker is a goroutine with a thread for the engine. It runs one actor at a time: an actor that has nothing to do
// costs no goroutine, no stack and no thread of its own.
type worker struct {
	store  *Store
	thread *sqlite.Thread
	heap   atomic.Pointer[sqlite.Heap] // the thread's, for others to read
	work   chan *actor
	cur    atomic.Pointer[call] // for the watchdog
	actor  atomic.Pointer[actor]

	batch []*call // the watchdog takes calls behind at out of it, with the store locked, while the worker is stuck
	at    int
	group group
	tx    Tx
	clerk call      // stands for nobody's request: what the actor writes for itself
	ended time.Time // when the last request's job had ended
	watch func() error

	kick  chan struct{} // look at evict, though parked
	evict atomic.Pointer[eviction]

	lostCall  *call // under which the transaction was lost; nil if it was given up
	lostAgain bool  // it is to run again
	stats     runStats
}

// forget lets an actor go that remembers nothing. The store is locked.
func (s *Store) forget(a *actor) {
	if !a.busy && a.conn == nil && a.broken == nil && a.pins.Load() == 0 && !a.frozen.Load() {
		delete(s.actors, a.id)
	}
}

// idleWorkers bounds how many workers wait for work; more of them end.
const idleWorkers = 64

// dispatch gives a busy actor to a worker, or lets it wait for one. The store is locked, and is unlocked on return.
func (s *Store) dispatch(a *actor) {
	if n := len(s.idle); n > 0 {
		w := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.running++
		s.mu.Unlock()
		w.work <- a
		return
	}
	if s.workers >= s.opt.Workers {
		s.ready = append(s.ready, a)
		s.mu.Unlock()
		return
	}
	s.workers++
	s.running++
	w := &worker{store: s, work: make(chan *actor, 1), kick: make(chan struct{}, 1), clerk: call{req: &Request{}}}
	s.atWork[w] = struct{}{}
	s.mu.Unlock()
	go w.loop(a)
}

func (w *worker) loop(a *actor) {
	s := w.store
	w.setThread(sqlite.NewThread())
	w.watch = w.look
	defer func() { w.thread.Close() }()
	for ok := true; ok; a, ok = <-w.work {
		for a != nil {
			w.serve(a)
			s.mu.Lock()
			a = nil
			if len(s.ready) > 0 {
				a = s.ready[0]
				s.ready = s.ready[1:]
				s.mu.Unlock()
				continue
			}
			stay := len(s.idle) < idleWorkers && !s.ended
			if stay {
				s.idle = append(s.idle, w)
			} else {
				s.workers--
				delete(s.atWork, w)
			}
			s.leave()
			s.mu.Unlock()
			if !stay {
				return
			}
		}
	}
}

func (w *worker) setThread(t *sqlite.Thread) {
	w.thread = t
	w.heap.Store(t.Heap())
}

// serve runs an actor until nothing waits for it, or until another actor waits for a worker.
func (w *worker) serve(a *actor) {
	s := w.store
	w.actor.Store(a)
	defer w.actor.Store(nil)
	for {
		s.mu.Lock()
		n := min(a.queue.len(), groupMax)
		if n == 0 {
			a.busy = false
			a.queue.shrink()
			a.used, a.released = w.ended, false
			s.forget(a)
			s.mu.Unlock()
			return
		}
		w.batch = w.batch[:0]
		for range n {
			w.batch = append(w.batch, a.queue.pop())
		}
		s.mu.Unlock()

		s.opt.Observer.Group(n)
		w.ended = time.Time{}
		w.run(a, w.batch)
		if w.ended.IsZero() { // nothing of it ran
			w.ended = s.opt.Now()
		}
		clear(w.batch)

		s.mu.Lock()
		if len(s.ready) > 0 { // others have waited: their turn
			s.ready = append(s.ready, a)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}
