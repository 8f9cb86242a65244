package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
)

const (
	diskID      = "db_benchbenchbenchbench00"
	diskRows    = 5_000 // of a page each, of bytes that nothing compresses
	diskCommits = 8_000
	diskBar     = 3
	logFrames   = 1_000 // of a log, when the server copies it back

	exactWindow = 24 * time.Hour // as the settings have it
	keptFor     = 30 * 24 * time.Hour
)

// measureDisk looks at how long a history is, once it is older than the exact window, beside the pages that transactions changed: where ten transactions a second
// become one moment in 30 s, and where one a minute stays what it is. The history's own keeper decides, as in the server, of which only the clock is made up.
func measureDisk(ctx context.Context, _ *program, _ pace) (verdicts []verdict, err error) {
	for _, life := range []struct {
		name  string
		every time.Duration // between two transactions
	}{{"10 transactions a second", 100 * time.Millisecond}, {"a transaction a minute", time.Minute}} {
		changed, most, merged, err := liveAndMerge(ctx, life.every, diskCommits)
		if err != nil {
			return nil, err
		}
		bar := fmt.Sprintf("≤ %.2f ×", float64(diskBar))
		v := beside("history of "+life.name+", merged, beside the pages changed", "disk", changed, merged, bar, merged <= diskBar*changed, formatMB)
		before := beside("the same before it was merged", "disk", changed, most, "shown", true, formatMB)
		before.Judged = false
		verdicts = append(verdicts, v, before)
	}
	return verdicts, nil
}

// liveAndMerge writes to a database at random and merges its history. It returns the bytes of pages that transactions changed, and of the history before the
// last of it was merged and after.
func liveAndMerge(ctx context.Context, every time.Duration, commits int) (changed, before, merged float64, err error) {
	// What is measured is a length: no disk has to be waited for.
	dir, err := os.MkdirTemp(memoryFolder(), "persqld-bench-disk-")
	if err != nil {
		return 0, 0, 0, err
	}
	defer os.RemoveAll(dir)
	l, err := newLife(dir)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.live(ctx, every, commits); err != nil {
		return 0, 0, 0, err
	}
	was, err := l.history.Usage(diskID)
	if err != nil {
		return 0, 0, 0, err
	}
	l.now = l.now.Add(exactWindow + time.Hour)
	l.keeper.Sweep(ctx)
	is, err := l.history.Usage(diskID)
	if l.said.err != nil {
		return 0, 0, 0, l.said.err
	}
	return float64(l.frames) * sqlite.PageSize, float64(was), float64(is), err
}

// life is a database and its history, without a server, at a clock of its own.
type life struct {
	path    string
	thread  *sqlite.Thread
	conn    *sqlite.Conn
	history *history.History
	keeper  *history.Keeper
	said    complaints
	head    history.Head
	seen    uint64  // of the connection's commits, those that have a time
	times   []int64 // of those behind the head
	now     time.Time
	tended  time.Time
	swept   time.Time
	frames  int // that transactions wrote
}

func newLife(dir string) (l *life, err error) {
	l = &life{path: filepath.Join(dir, "t.db"), thread: sqlite.NewThread(), now: time.UnixMilli(1_750_000_000_000)}
	l.tended, l.swept = l.now, l.now
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
	l.seen = l.conn.Commits()
	root := filepath.Join(dir, "history")
	if err := os.Mkdir(root, 0o700); err != nil {
		return l, err
	}
	// A keeper says what went wrong to its log alone.
	logger := slog.New(&l.said)
	clock := func() time.Time { return l.now }
	if l.history, err = history.New(history.Options{Root: root, Now: clock, Logger: logger}); err != nil {
		return l, err
	}
	l.keeper = &history.Keeper{History: l.history, Base: l.base, Size: func(string) int64 { return l.size() }, Keep: keptFor, Exact: exactWindow, Every: time.Minute,
		Now: clock, Logger: logger}
	return l, nil
}

func (l *life) close() (err error) {
	if l.conn != nil {
		err = l.conn.Close()
	}
	l.thread.Close()
	return err
}

// live fills the database and changes a row at a time, while the keeper comes when it would.
func (l *life) live(ctx context.Context, every time.Duration, commits int) error {
	fill := fmt.Sprintf("WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n < %d) INSERT INTO t SELECT n, randomblob(3900) FROM s", diskRows)
	for _, sql := range []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)", fill} {
		if err := l.exec(sql); err != nil {
			return err
		}
	}
	for range commits {
		if err := ctx.Err(); err != nil {
			return err
		}
		l.now = l.now.Add(every)
		if err := l.exec(fmt.Sprintf("UPDATE t SET b = randomblob(3900) WHERE a = %d", 1+rand.IntN(diskRows))); err != nil {
			return err
		}
		if l.now.Sub(l.tended) >= time.Minute {
			l.tended = l.now
			for _, id := range l.history.Grown() {
				l.keeper.Tend(ctx, id)
			}
		}
		if l.now.Sub(l.swept) > time.Hour {
			l.swept = l.now
			l.keeper.Sweep(ctx)
		}
	}
	return l.keep()
}

// exec runs a statement, and hands the log over where a server would.
func (l *life) exec(sql string) error {
	if err := l.conn.Exec(sql); err != nil {
		return err
	}
	for ; l.seen < l.conn.Commits(); l.seen++ {
		l.times = append(l.times, l.now.UnixMilli())
	}
	if l.conn.LogFrames() < logFrames {
		return nil
	}
	return l.keep()
}

// keep hands the log to the history and copies it back.
func (l *life) keep() error {
	if len(l.times) == 0 {
		return nil
	}
	log, err := os.Open(l.path + "-wal")
	if err != nil {
		return err
	}
	defer log.Close()
	end, err := l.conn.LogSize()
	if err != nil {
		return err
	}
	if l.head, err = l.history.Append(diskID, l.head, log, end, l.times, true); err != nil {
		return err
	}
	l.times = l.times[:0]
	l.frames += l.conn.LogFrames()
	return l.conn.Checkpoint(sqlite.CheckpointTruncate)
}

// base is what the store does for the keeper.
func (l *life) base(ctx context.Context, id string) error {
	if err := l.keep(); err != nil {
		return err
	}
	file, err := os.Open(l.path)
	if err != nil {
		return err
	}
	defer file.Close()
	return l.history.AddBase(ctx, id, l.head.Position, l.head.Time, file, false)
}

func (l *life) size() int64 {
	fi, err := os.Stat(l.path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// complaints keeps the first warning of a log: what is measured must have gone as planned.
type complaints struct{ err error }

var errComplaint = errors.New("the history says")

func (c *complaints) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}

func (c *complaints) Handle(_ context.Context, r slog.Record) error {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s", errComplaint, r.Message)
		r.Attrs(func(a slog.Attr) bool {
			c.err = fmt.Errorf("%w, %s", c.err, a)
			return true
		})
	}
	return nil
}

func (c *complaints) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c *complaints) WithGroup(string) slog.Handler      { return c }
