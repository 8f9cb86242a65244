package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
)

// beside is a verdict on a number that has another one measured beside it.
func beside(trial, what string, floor, got float64, bar string, pass bool, format func(float64) string) verdict {
	return verdict{Work: trial, Metric: what, Floor: floor, Ours: got, Ratio: got / floor, Bar: bar, Pass: pass, Judged: true, format: format}
}

const (
	snapshotCount = 400 // a database has at most 1,000
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
	var inserts, labels []float64
	for i := range snapshotCount {
		for _, r := range []struct {
			request template
			times   *[]float64
		}{{insert, &inserts}, {label, &labels}} {
			r.request.set(0, keyFrom+i)
			began := time.Now()
			if _, err := c.do(r.request.bytes); err != nil {
				return nil, err
			}
			*r.times = append(*r.times, float64(time.Since(began)))
		}
	}
	got := median(labels)
	return []verdict{beside("snapshot, beside a durable insert", "p50", median(inserts), got, "< "+formatMillis(float64(snapshotBar)), got < float64(snapshotBar), formatMillis)}, nil
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

const (
	diskID      = "db_benchbenchbench00"
	diskRows    = 5_000 // of a page each, of bytes that nothing compresses
	diskCommits = 8_000
	diskBar     = 3
	logFrames   = 1_000 // of a log, when the server copies it back
)

// measureDisk looks at how long a history is, once it is older than the exact window, beside the pages that transactions changed: where ten transactions a second
// become one moment in 30 s, and where one a minute stays what it is. The history's own keeper decides, as in the server, of which only the clock is made up.
func measureDisk(ctx context.Context, ours *program, _ pace) (verdicts []verdict, err error) {
	for _, life := range []struct {
		name  string
		every time.Duration // between two transactions
	}{{"10 transactions a second", 100 * time.Millisecond}, {"a transaction a minute", time.Minute}} {
		changed, exact, merged, err := liveAndMerge(ctx, filepath.Dir(ours.dir), life.every)
		if err != nil {
			return nil, err
		}
		bar := fmt.Sprintf("≤ %.2f ×", float64(diskBar))
		v := beside("history of "+life.name+", merged, beside the pages changed", "disk", changed, merged, bar, merged <= diskBar*changed, formatMB)
		before := beside("the same in the exact window", "disk", changed, exact, "shown", true, formatMB)
		before.Judged = false
		verdicts = append(verdicts, v, before)
	}
	return verdicts, nil
}

// liveAndMerge writes to a database at random and merges its history. It returns the bytes of pages that transactions changed, and of the history before and after.
func liveAndMerge(ctx context.Context, under string, every time.Duration) (changed, exact, merged float64, err error) {
	dir, err := os.MkdirTemp(under, "disk-")
	if err != nil {
		return 0, 0, 0, err
	}
	defer os.RemoveAll(dir)
	l, err := newLife(dir, every)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.live(ctx); err != nil {
		return 0, 0, 0, err
	}
	before, err := l.history.Usage(diskID)
	if err != nil {
		return 0, 0, 0, err
	}
	l.now = l.now.Add(25 * time.Hour) // past the exact window
	l.keeper.Sweep(ctx)
	after, err := l.history.Usage(diskID)
	return float64(l.frames) * sqlite.PageSize, float64(before), float64(after), err
}

// life is a database and its history, without a server, at a clock of its own.
type life struct {
	path    string
	thread  *sqlite.Thread
	conn    *sqlite.Conn
	history *history.History
	keeper  *history.Keeper
	head    history.Head
	times   []int64
	now     time.Time
	every   time.Duration
	frames  int64 // that transactions wrote
	tended  time.Time
}

func newLife(dir string, every time.Duration) (l *life, err error) {
	l = &life{path: filepath.Join(dir, "t.db"), thread: sqlite.NewThread(), every: every, now: time.UnixMilli(1_750_000_000_000)}
	l.tended = l.now
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if err := os.WriteFile(l.path, sqlite.EmptyFile(), 0o600); err != nil {
		return l, err
	}
	if l.conn, err = sqlite.Open(sqlite.Config{Path: l.path}, l.thread); err != nil {
		return l, err
	}
	root := filepath.Join(dir, "history")
	if err := os.Mkdir(root, 0o700); err != nil {
		return l, err
	}
	log := discard{&l.lost}
	_ = log
	if l.history, err = history.New(history.Options{Root: root}); err != nil {
		return l, err
	}
	return l, nil
}

func (l *life) close() (err error) {
	if l.conn != nil {
		err = l.conn.Close()
	}
	l.thread.Close()
	return err
}
