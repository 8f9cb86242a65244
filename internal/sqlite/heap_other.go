//go:build !linux

package sqlite

// Heap counts nothing here: the allocator is the library's. So no statement is ever stopped for what it holds.
type Heap struct{}

// Begin starts the count of a request.
func (h *Heap) Begin() {}

// Held is zero.
func (h *Heap) Held() int64 { return 0 }

// Peak is zero.
func (h *Heap) Peak() int64 { return 0 }

// Heap is a count that stays at zero.
func (t *Thread) Heap() *Heap { return &noHeap }

var noHeap Heap
