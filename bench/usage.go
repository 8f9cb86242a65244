package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

const (
	usageDatabases = 10_000
	usageDays      = 5
	usageTurns     = 20
	usageBar       = 100 * time.Millisecond
)

// measureUsage asks for the usage of a namespace with 10,000 databases that were used on each of the last days. The counts are put into the catalog
// beforehand, while no server has it.
func measureUsage(ctx context.Context, ours *program, _ pace) (verdicts []verdict, err error) {
	s, err := ours.start(ctx, "usage", 0) // makes the namespace
	if err != nil {
		return nil, err
	}
	s.stop()
	if err := fillUsage(ctx, filepath.Join(ours.dir, "usage", "catalog.db")); err != nil {
		return nil, fmt.Errorf("put usage into the catalog: %w", err)
	}
	if s, err = ours.start(ctx, "usage", 0); err != nil {
		return nil, err
	}
	defer s.stop()
	c, err := dial(s.address)
	if err != nil {
		return nil, err
	}
	defer c.close()
	today := "&from=" + time.Now().UTC().Format(time.DateOnly)
	for _, q := range []struct{ name, query string }{{"month by day", "day"}, {"month by token", "token"}, {"month by database", "database"}, {"day by database", "database" + today}} {
		request := []byte("GET /v1/usage?groupBy=" + q.query + " HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer " + benchToken + "\r\n\r\n")
		var times []float64
		for range usageTurns {
			began := time.Now()
			if _, err := c.do(request); err != nil {
				return nil, err
			}
			times = append(times, float64(time.Since(began)))
		}
		verdicts = append(verdicts, limit("usage of 10,000 databases, this "+q.name, "p50", median(times), float64(usageBar), formatMillis))
	}
	return verdicts, nil
}

func fillUsage(ctx context.Context, path string) (err error) {
	cat, err := catalog.Open(ctx, path, catalog.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cat.Close()) }()
	ns, err := cat.Namespace(benchNamespace)
	if err != nil {
		return err
	}
	today := catalog.Day(time.Now())
	for day := today - usageDays + 1; day <= today; day++ {
		changes := make([]catalog.UsageChange, usageDatabases)
		samples := make([]catalog.Sample, usageDatabases)
		for i := range usageDatabases {
			id := fmt.Sprintf("db_%026d", i)
			changes[i] = catalog.UsageChange{UsageKey: catalog.UsageKey{NamespaceID: ns.ID, DatabaseID: id, TokenID: "tok_bench", Day: day, Series: 1},
				Added: catalog.Work{Requests: 10, RowsRead: 1000, RowsWritten: 10}}
			samples[i] = catalog.Sample{NamespaceID: ns.ID, DatabaseID: id, Day: day, Bytes: 40_960, Nanos: 1}
		}
		if _, err := cat.KeepUsage(ctx, changes, nil, false, time.Now()); err != nil {
			return err
		}
		if _, err := cat.KeepSamples(ctx, samples, false); err != nil {
			return err
		}
	}
	return nil
}
