package sqlite

import "modernc.org/libc"

// Heap counts the memory that SQLite's code has allocated on one Thread, less what it has freed there: since a statement
// runs on one, the difference over its run is what it holds. Any goroutine may read it. The allocator counts under the
// lock that it holds anyway.
type Heap struct {
	now, begin, peak int64
}

// heaps are found by the number of a thread, so that counting needs no look-up. Two threads whose numbers are 4,096 apart
// share one: then a statement may be taken for larger than it is. Guarded by memory.mu.
var heaps [4096]Heap

func heapOf(tls *libc.TLS) *Heap { return &heaps[uint32(tls.ID)%uint32(len(heaps))] }

// add is called with memory.mu held.
func (h *Heap) add(n int64) {
	h.now += n
	h.peak = max(h.peak, h.now)
}

// addLocked is add for what the library's own allocator gave.
func (h *Heap) addLocked(n int64) {
	memory.mu.Lock()
	h.add(n)
	memory.mu.Unlock()
}

// Begin starts the count of a request.
func (h *Heap) Begin() {
	memory.mu.Lock()
	h.begin, h.peak = h.now, h.now
	memory.mu.Unlock()
}

// Held is how many bytes the request holds now; less than zero if it gave more back than it took.
func (h *Heap) Held() int64 {
	memory.mu.Lock()
	defer memory.mu.Unlock()
	return h.now - h.begin
}

// Peak is the most that the request held.
func (h *Heap) Peak() int64 {
	memory.mu.Lock()
	defer memory.mu.Unlock()
	return h.peak - h.begin
}

// Heap is the thread's count of memory.
func (t *Thread) Heap() *Heap { return heapOf(t.tls) }
