package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// traffic is what connections send: one template, with a number for the
// database taken round robin and a random key.
type traffic struct {
	request     template
	connections int
	databases   int // numbers 0…databases-1 are visited in turn
	keys        int // keys keyFrom…keyFrom+keys-1
	check       func(body []byte, key int) error
	limit       int64 // requests in all; 0: as long as the window lasts
	plain       bool  // the answers have no envelope
}

// keyFrom is the least key; all have the same number of digits.
const keyFrom = 10_000

// sample is one measurement.
type sample struct {
	Requests int64         `json:"requests"`
	Window   time.Duration `json:"windowNs"`
	Rate     float64       `json:"ratePerSecond"`
	P50      time.Duration `json:"p50Ns"`
	P99      time.Duration `json:"p99Ns"`
	// CPU is the server's user and system time a request.
	CPU time.Duration `json:"cpuNsPerRequest"`
	// Bytes is resident memory a database; only the memory row has it.
	Bytes int64 `json:"bytesPerDatabase,omitempty"`
}

const (
	phaseWarm = iota
	phaseCount
	phaseEnd
)

// measure drives the server for warm (not counted) and then for window.
func measure(ctx context.Context, s *server, t *traffic, warm, window time.Duration) (sample, error) {
	var (
		phase atomic.Int32
		next  atomic.Int64
		wg    sync.WaitGroup
		fail  = make(chan error, t.connections)
		times = make([][]time.Duration, t.connections)
	)
	for i := range t.connections {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var err error
			if times[i], err = t.drive(s.address, &phase, &next); err != nil {
				fail <- err
			}
		}()
	}
	err := wait(ctx, warm, fail)
	var before, after time.Duration
	var began, ended time.Time
	if err == nil {
		before, err = cpuTime(s.pid())
		began = time.Now()
		phase.Store(phaseCount)
	}
	if err == nil {
		err = wait(ctx, window, fail)
	}
	phase.Store(phaseEnd)
	ended = time.Now()
	if err == nil {
		after, err = cpuTime(s.pid())
	}
	wg.Wait()
	if err == nil {
		err = wait(ctx, 0, fail)
	}
	if err != nil {
		return sample{}, fmt.Errorf("measure %s: %w\n%s", s.program.name, err, s.logTail())
	}
	return summarize(times, ended.Sub(began), after-before), nil
}

// wait returns after d, or sooner with the first connection's error.
func wait(ctx context.Context, d time.Duration, fail <-chan error) error {
	select {
	case err := <-fail:
		return err
	default:
	}
	if d == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err := <-fail:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// drive is one connection's work until the end; it returns how long each
// counted request took.
func (t *traffic) drive(address string, phase *atomic.Int32, next *atomic.Int64) ([]time.Duration, error) {
	c, err := dial(address)
	if err != nil {
		return nil, err
	}
	defer c.close()
	request := t.request.clone()
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	times := make([]time.Duration, 0, 1<<16)
	var armed time.Time // when the connection's deadline was last moved
	for i := 0; ; i++ {
		turn := next.Add(1) - 1
		if t.limit > 0 && turn >= t.limit {
			return times, nil
		}
		key := keyFrom + random.IntN(t.keys)
		request.set(int(turn)%t.databases, key)
		began := time.Now()
		if began.Sub(armed) > time.Second {
			armed = began
			if err := c.conn.SetDeadline(armed.Add(requestTimeout)); err != nil {
				return nil, err
			}
		}
		send := c.do
		if t.plain {
			send = c.post
		}
		body, err := send(request.bytes)
		if err != nil {
			return nil, err
		}
		// A request counts where it ended.
		switch phase.Load() {
		case phaseCount:
			times = append(times, time.Since(began))
		case phaseEnd:
			return times, nil
		}
		if i == 0 && t.check != nil {
			if err := t.check(body, key); err != nil {
				return nil, err
			}
		}
	}
}

// visit sends the traffic's limit of requests and returns when all are
// answered.
func visit(s *server, t *traffic) error {
	var phase atomic.Int32
	var next atomic.Int64
	var wg sync.WaitGroup
	fail := make(chan error, t.connections)
	for range t.connections {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := t.drive(s.address, &phase, &next); err != nil {
				fail <- err
			}
		}()
	}
	wg.Wait()
	select {
	case err := <-fail:
		return fmt.Errorf("visit %s: %w\n%s", s.program.name, err, s.logTail())
	default:
		return nil
	}
}
