package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// memoryMaxOpen leaves room for every database of the memory row.
const memoryMaxOpen = 6_000

// measureMemory starts a server on existing databases and returns by how much
// its resident memory grew for each after one read and one write.
func measureMemory(ctx context.Context, p *program, w *work, pace pace) (sample, error) {
	if err := makeMemoryFixture(ctx, p, w, pace); err != nil {
		return sample{}, err
	}
	s, err := p.start(ctx, w.fixture, memoryMaxOpen)
	if err != nil {
		return sample{}, err
	}
	defer s.stop()
	read := &traffic{
		request: selectRequest("db-" + slugMark), connections: 8, databases: pace.count, keys: smallRows,
		check: checkKey, limit: int64(pace.count),
	}
	write := *read
	write.request, write.check = insertRequest("db-"+slugMark), checkWritten

	// What the process needs once is not any database's: the first requests
	// pay for it, on one database that then counts among the others.
	first := *read
	first.databases, first.limit = 1, 1_000
	if err := visit(s, &first); err != nil {
		return sample{}, err
	}
	before, err := residentBytes(s.pid())
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	cpuBefore, err := cpuTime(s.pid())
	if err != nil {
		return sample{}, err
	}
	for _, t := range []*traffic{read, &write} {
		if err := visit(s, t); err != nil {
			return sample{}, err
		}
	}
	window := time.Since(began)
	cpuAfter, err := cpuTime(s.pid())
	if err != nil {
		return sample{}, err
	}
	if err := wait(ctx, pace.settle, nil); err != nil {
		return sample{}, err
	}
	after, err := residentBytes(s.pid())
	if err != nil {
		return sample{}, err
	}
	requests := 2 * int64(pace.count)
	return sample{
		Requests: requests, Window: window, Rate: float64(requests) / window.Seconds(),
		CPU: (cpuAfter - cpuBefore) / time.Duration(requests), Bytes: (after - before) / int64(pace.count),
	}, nil
}

// makeMemoryFixture makes the databases once a run, with a server of their own.
func makeMemoryFixture(ctx context.Context, p *program, w *work, pace pace) error {
	made := filepath.Join(p.dir, w.fixture+".made")
	if _, err := os.Stat(made); err == nil {
		return nil
	}
	s, err := p.start(ctx, w.fixture, memoryMaxOpen)
	if err != nil {
		return err
	}
	defer s.stop()
	if err := prepareMany(pace.count)(s); err != nil {
		return err
	}
	if err := os.WriteFile(made, nil, 0o600); err != nil {
		return fmt.Errorf("mark the databases as made: %w", err)
	}
	return nil
}
