package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// beside is a verdict on a number that has another one measured beside it.
func beside(trial, what string, floor, got float64, bar string, pass bool, format func(float64) string) verdict {
	return verdict{Work: trial, Metric: what, Floor: floor, Ours: got, Ratio: got / floor, Bar: bar, Pass: pass, Judged: true, format: format}
}

const (
	// A database has at most 1,000 snapshots. The bar is a time and not a ratio, so the best turn counts: what else the machine does only adds.
	snapshotTurns = 4
	snapshotCount = 200
	snapshotBar   = time.Millisecond
)

// measureSnapshot makes snapshots over one connection, each beside a durable insert.
func measureSnapshot(ctx context.Context, ours *program, _ pace) ([]verdict, error) {
	s, err := ours.start(ctx, "snapshot", 0)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	if err := prepareOne(s); err != nil {
		return nil, err
	}
	c, err := dial(s.address)
	if err != nil {
		return nil, err
	}
	defer c.close()
	insert, label := insertRequest("one"), newTemplate("one", "snapshots", `{"label":"`+keyMark+`"}`)
	floor, got := math.Inf(1), math.Inf(1)
	for turn := range snapshotTurns {
		var inserts, labels []float64
		for i := range snapshotCount {
			for _, r := range []struct {
				request template
				times   *[]float64
			}{{insert, &inserts}, {label, &labels}} {
				r.request.set(0, keyFrom+turn*snapshotCount+i)
				began := time.Now()
				if _, err := c.do(r.request.bytes); err != nil {
					return nil, err
				}
				*r.times = append(*r.times, float64(time.Since(began)))
			}
		}
		floor, got = min(floor, median(inserts)), min(got, median(labels))
	}
	return []verdict{beside("snapshot, beside a durable insert", "p50", floor, got, "< "+formatMillis(float64(snapshotBar)), got < float64(snapshotBar), formatMillis)}, nil
}

const (
	restoreRows  = 25_000 // of a page each
	restoreTurns = 5
	restoreBar   = 3
)

// measureRestore restores a database of 100 MB in place, to a moment behind which a tenth of it changed, beside a copy of the file and a check of that.
func measureRestore(ctx context.Context, ours *program, _ pace) ([]verdict, error) {
	s, err := ours.start(ctx, "restore", 0)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	c, err := dial(s.address)
	if err != nil {
		return nil, err
	}
	defer c.close()
	statements := []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)"}
	for part := range 5 {
		from := part * restoreRows / 5
		statements = append(statements, fmt.Sprintf("WITH RECURSIVE s(n) AS (SELECT %d UNION ALL SELECT n+1 FROM s WHERE n < %d) INSERT INTO t SELECT n, randomblob(3900) FROM s",
			from+1, from+restoreRows/5))
	}
	const change = "UPDATE t SET b = randomblob(3900) WHERE a % 10 = 0"
	for _, sql := range append(statements, change) {
		if _, err := c.do(queryRequest("big", sql).bytes); err != nil {
			return nil, err
		}
	}
	answer, err := c.do(newTemplate("big", "snapshots", `{"label":"then"}`).bytes)
	if err != nil {
		return nil, err
	}
	var made struct{ Data struct{ ID string } }
	if err := json.Unmarshal(answer, &made); err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	request := newTemplate("big", "restore", `{"snapshotId":`+strconv.Quote(made.Data.ID)+`}`)
	var restores, copies, checks []float64
	var size int64
	for turn := range restoreTurns + 1 {
		if _, err := c.do(queryRequest("big", change).bytes); err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := c.do(request.bytes); err != nil {
			return nil, err
		}
		took := time.Since(began)
		// What was restored just now is whole without its log, which has no more than a label: it can be copied.
		var path string
		if path, size, err = largestFile(filepath.Join(ours.dir, "restore")); err != nil {
			return nil, err
		}
		copied, checked, err := copyAndCheck(path, filepath.Join(ours.dir, "restore.copy"))
		if err != nil {
			return nil, err
		}
		if turn == 0 {
			continue // to warm up
		}
		restores, copies, checks = append(restores, float64(took)), append(copies, float64(copied)), append(checks, float64(checked))
	}
	floors := make([]float64, len(restores))
	ratios := make([]float64, len(restores))
	for i := range restores {
		floors[i] = copies[i] + checks[i]
		ratios[i] = restores[i] / floors[i]
	}
	name := fmt.Sprintf("restore of %s in place, beside copy and check", formatMB(float64(size)))
	v := beside(name, "time", median(floors), median(restores), fmt.Sprintf("≤ %.2f ×", float64(restoreBar)), median(ratios) <= restoreBar, formatMillis)
	v.Ratio = median(ratios)
	return []verdict{v,
		{Work: "copy of the file, for that", Metric: "time", Ours: median(copies), Bar: "shown", Pass: true, format: formatMillis},
		{Work: "PRAGMA integrity_check of the copy, for that", Metric: "time", Ours: median(checks), Bar: "shown", Pass: true, format: formatMillis},
	}, nil
}

var errUnsound = errors.New("the copy is not sound")

// copyAndCheck copies a database file through memory, syncs the copy, and has the engine check it.
func copyAndCheck(from, to string) (copied, checked time.Duration, err error) {
	defer os.Remove(to)
	began := time.Now()
	if err := copyFile(from, to); err != nil {
		return 0, 0, err
	}
	copied = time.Since(began)
	began = time.Now()
	th := sqlite.NewThread()
	defer th.Close()
	conn, err := sqlite.OpenInspection(to, th)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	problems, err := conn.Examine(true)
	if err == nil && len(problems) > 0 {
		err = fmt.Errorf("%w: %s", errUnsound, problems[0])
	}
	return copied, time.Since(began), err
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	// The interfaces hide that the kernel could do it without reading.
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 1<<20)); err != nil {
		return err
	}
	return out.Sync()
}
