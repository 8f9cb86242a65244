package api

import (
	"sync"
	"testing"
)

func TestBudget(t *testing.T) {
	s := &Server{}
	s.budget.limit = 1_000_000
	a, b := &exchange{s: s}, &exchange{s: s}
	for _, n := range []int{10, freeBuffer} {
		if err := a.charge(n); err != nil || a.charged != 0 {
			t.Errorf("%d bytes: %v, charged %d", n, err, a.charged)
		}
	}
	if err := a.charge(5_000_000); err != nil {
		t.Errorf("a request alone: %v", err)
	}
	if err := b.charge(100_000); err != errBuffersFull {
		t.Errorf("beside it: %v, want %v", err, errBuffersFull)
	}
	a.refund()
	if err := b.charge(600_000); err != nil {
		t.Error(err)
	}
	if err := b.charge(500_000); err != nil || b.charged != 600_000 {
		t.Errorf("less than before: %v, charged %d", err, b.charged)
	}
	if err := a.charge(400_001); err != errBuffersFull {
		t.Errorf("a byte too many: %v", err)
	}
	if err := a.charge(400_000); err != nil {
		t.Error(err)
	}
	a.refund()
	b.refund()
	if got := s.budget.used.Load(); got != 0 {
		t.Errorf("%d bytes are still in use", got)
	}
}

func TestBudgetUnderContention(t *testing.T) {
	b := budget{limit: 100}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10_000 {
				if b.take(30) {
					if used := b.used.Load(); used > 100 {
						t.Errorf("%d in use", used)
					}
					b.give(30)
				}
			}
		})
	}
	all.Wait()
	if got := b.used.Load(); got != 0 {
		t.Errorf("%d in use", got)
	}
}
