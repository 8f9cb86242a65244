package api

import (
	"context"
	"sync"
	"time"
)

// maxWaiters is how many requests wait at the same time for approvals to be decided. Another one is answered at once, as it would be without waiting.
const maxWaiters = 1_000

// bells wake those who wait for something, by its id. A wait costs the goroutine that its request has anyway.
type bells struct {
	mu      sync.Mutex
	waiting int
	rung    map[string]*bell
	closed  bool
}

type bell struct {
	ch      chan struct{}
	waiters int
}

// listen begins to wait: what happens from now on is heard. nil if nobody more may wait. The caller calls leave.
func (b *bells) listen(id string) (heard <-chan struct{}, leave func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.waiting >= maxWaiters {
		return nil, func() {}
	}
	if b.rung == nil {
		b.rung = map[string]*bell{}
	}
	one := b.rung[id]
	if one == nil {
		one = &bell{ch: make(chan struct{})}
		b.rung[id] = one
	}
	one.waiters++
	b.waiting++
	return one.ch, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.waiting--
		if one.waiters--; one.waiters == 0 && b.rung[id] == one {
			delete(b.rung, id)
		}
	}
}

// ring wakes all who wait for an id.
func (b *bells) ring(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if one := b.rung[id]; one != nil {
		close(one.ch)
		delete(b.rung, id)
	}
}

// close wakes everybody: the server is about to end.
func (b *bells) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for id, one := range b.rung {
		close(one.ch)
		delete(b.rung, id)
	}
}

// hear waits until it is heard, the time is over or ctx ends.
func hear(ctx context.Context, heard <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-heard:
	case <-timer.C:
	case <-ctx.Done():
	}
}
