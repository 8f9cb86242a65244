package api

import (
	"errors"
	"sync/atomic"
)

// errBuffersFull says that requests and results take all the memory that they may have together.
var errBuffersFull = errors.New("no memory is left for the buffers of requests and results")

// freeBuffer is how many bytes of buffers each request has without asking: nearly all of them never ask.
const freeBuffer = 64 << 10

// bodyFactor is how often a request's body is in memory: as it came, its strings decoded, its parameters bound.
const bodyFactor = 3

// budget is the memory of all buffers together.
type budget struct {
	limit int64 // 0 is none
	used  atomic.Int64
}

// take asks for n bytes. A request that is alone gets what it asks for, or a server with little memory could never
// answer a large one.
func (b *budget) take(n int64) bool {
	if b.limit <= 0 {
		return true
	}
	for {
		used := b.used.Load()
		if used > 0 && used+n > b.limit {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

func (b *budget) give(n int64) {
	if b.limit > 0 {
		b.used.Add(-n)
	}
}

// charge makes n bytes of buffers the request's, counted together with what it has already.
func (x *exchange) charge(n int) error {
	more := int64(n) - x.charged
	if n <= freeBuffer || more <= 0 {
		return nil
	}
	if !x.s.budget.take(more) {
		return errBuffersFull
	}
	x.charged += more
	return nil
}

// refund gives back what the request was charged.
func (x *exchange) refund() {
	if x.charged > 0 {
		x.s.budget.give(x.charged)
		x.charged = 0
	}
}
