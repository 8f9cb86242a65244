package e2e_test

import (
	"sync"
	"testing"
)

// parallel runs f n times at the same time and waits for all.
func parallel(t testing.TB, n int, f func(worker int)) {
	t.Helper()
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	wg.Wait()
}
