package bucket

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func testGate(l Limits) *gate {
	return newGate(Options{Limits: l}.withDefaults(), "here", func(err error) verdict { return verdict{err: err, again: true} })
}

func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := testGate(Limits{Concurrent: 3, RequestsPerSecond: 1000})
		var (
			wg        sync.WaitGroup
			mu        sync.Mutex
			now, most int
		)
		count := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			now += n
			most = max(most, now)
		}
		began := time.Now()
		for range 12 {
			wg.Go(func() {
				err := g.do(t.Context(), request{op: OpPut}, func(context.Context) error {
					count(1)
					defer count(-1)
					time.Sleep(time.Second)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); most != 3 || took != 4*time.Second {
			t.Errorf("%d at a time, and %v in all; want 3 and 4s", most, took)
		}
	})
}

// TestTimeOfATry grows with what is sent, and has no effect on what is left to be read.
func TestTimeOfATry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := testGate(Limits{Tries: 1, TryTimeout: 10 * time.Second, MinBytesPerSecond: 1000})
		for bytes, want := range map[int64]time.Duration{0: 10 * time.Second, 5000: 15 * time.Second} {
			began := time.Now()
			err := g.do(t.Context(), request{op: OpPut, bytes: bytes}, func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			})
			var slow errSlow
			if took := time.Since(began); !errors.As(err, &slow) || took != want || slow.limit != want {
				t.Errorf("%d bytes: %v after %v, want %v", bytes, err, took, want)
			}
		}
		var left context.Context
		err := g.do(t.Context(), request{op: OpGet, streams: true}, func(ctx context.Context) error {
			left = ctx
			return nil
		})
		time.Sleep(time.Hour)
		if err != nil || left.Err() != nil {
			t.Errorf("what is still read ended: %v, %v", err, left.Err())
		}
	})
}

// TestPausesLetOthersIn: who waits to try again has no slot.
func TestPausesLetOthersIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := testGate(Limits{Concurrent: 1, Tries: 2, FirstPause: time.Hour})
		failed := make(chan error)
		go func() {
			failed <- g.do(t.Context(), request{op: OpPut}, func(context.Context) error { return errors.New("broken") })
		}()
		synctest.Wait()
		began := time.Now()
		if err := g.do(t.Context(), request{op: OpPut}, func(context.Context) error { return nil }); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := <-failed; err == nil || time.Since(began) < 30*time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
