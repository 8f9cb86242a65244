package sqlite

import (
	"sync/atomic"

	"modernc.org/libc"
)

// Heap counts the memory that SQLite's code has allocated on one Thread, less what it has freed there: since a statement
// runs on one, the difference over its run is what it holds. Any goroutine may read it. It counts on Linux only, where
// the allocator is ours; elsewhere it stays at zero.
type Heap struct {
	now, begin, peak atomic.Int64
	_                [40]byte // a cache line each
}

// heaps are found by the number of a thread, so that counting needs no look-up. Two threads whose numbers are 4,096 apart
// share one: then a statement may be taken for larger than it is.
var heaps [4096]Heap

func heapOf(tls *libc.TLS) *Heap { return &heaps[uint32(tls.ID)%uint32(len(heaps))] }

func (h *Heap) add(n int64) {
	if now := h.now.Add(n); now > h.peak.Load() {
		h.peak.Store(now)
	}
}

// Begin starts the count of a request.
func (h *Heap) Begin() {
	now := h.now.Load()
	h.begin.Store(now)
	h.peak.Store(now)
}

// Held is how many bytes the request holds now; less than zero if it gave more back than it took.
func (h *Heap) Held() int64 { return h.now.Load() - h.begin.Load() }

// Peak is the most that the request held.
func (h *Heap) Peak() int64 { return h.peak.Load() - h.begin.Load() }

// Heap is the thread's count of memory.
func (t *Thread) Heap() *Heap { return heapOf(t.tls) }
