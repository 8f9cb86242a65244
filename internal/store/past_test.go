package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

// times is a Clock that remembers nothing of the process before.
type times struct{}

func (times) Note(string, uint64, int64) error { return nil }
func (times) Times(string, uint64) []int64     { return nil }

// remembered makes the history's own work on files part of the recording.
func remembered(rec *crashfs.Recorder) history.Files {
	return history.Files{
		Open: func(path string, flag int, perm fs.FileMode) (history.File, error) {
			return rec.OpenFile(path, flag, perm)
		},
		SyncDir: rec.SyncDir,
		Mkdir:   func(dir string) error { return rec.Mkdir(dir, 0o700) },
		Remove:  rec.Remove,
		Rename:  rec.Rename,
	}
}

// pastStore is a store that keeps a history, on a recorded disk where syncs of what drop names do nothing.
func pastStore(t *testing.T, drop string, opt store.Options) (*house, *crashfs.Recorder) {
	t.Helper()
	if err := sqlite.Initialize(sqlite.Setup{}); err != nil {
		t.Fatal(err)
	}
	rec, err := crashfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	vfs, err := rec.VFS()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(rec.Root(), "history")
	if err := rec.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := rec.SyncDir(rec.Root()); err != nil {
		t.Fatal(err)
	}
	if drop != "" {
		rec.DropSyncs(drop)
	}
	h, err := history.New(history.Options{Root: root, Files: remembered(rec)})
	if err != nil {
		t.Fatal(err)
	}
	opt.Dir, opt.VFS, opt.Files, opt.StatementTimeout, opt.Past, opt.Clock = rec.Root(), vfs, recorded(rec), time.Minute, h, times{}
	s, err := store.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return &house{t: t, Store: s}, rec
}

// ended closes a store of pastStore.
func ended(t *testing.T, s *house, rec *crashfs.Recorder) *crashfs.Recorder {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := rec.Verify(); err != nil {
		t.Fatal(err)
	}
	return rec
}

// pastLife writes to databases that keep a history, replaces them, and has bases made.
func pastLife(t *testing.T, drop string) *crashfs.Recorder {
	t.Helper()
	s, rec := pastStore(t, drop, store.Options{MaxOpen: 1})
	var all sync.WaitGroup
	for db := range 2 {
		id := dbName(db)
		if err := s.Create(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if j := script("CREATE TABLE t(n INTEGER PRIMARY KEY, body)"); true {
			if s.on(id, j); j.err != nil {
				t.Fatal(j.err)
			}
		}
		all.Go(func() {
			for n := range 14 {
				j := script(fmt.Sprintf("INSERT INTO t VALUES(%d, randomblob(%d))", n, n*37%900))
				if s.on(id, j); j.err != nil {
					t.Error(j.err)
				}
				rec.Mark(wrote{db, 0, n})
				switch n {
				case 5:
					if err := s.Base(t.Context(), id); err != nil {
						t.Error(err)
					}
				case 9:
					if err := s.Rebuild(t.Context(), id, store.FromCopy, nil, func(string) error { return nil }); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	return ended(t, s, rec)
}

// oneTable begins the life of one database; insert acknowledges what it inserts.
func oneTable(t *testing.T, drop string) (s *house, rec *crashfs.Recorder, id string, insert func(n int, body string)) {
	t.Helper()
	s, rec = pastStore(t, drop, store.Options{})
	id = dbName(0)
	if err := s.Create(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	run := func(sql string) {
		t.Helper()
		j := script(sql)
		if s.on(id, j); j.err != nil {
			t.Fatal(j.err)
		}
	}
	run("CREATE TABLE t(n INTEGER PRIMARY KEY, body)")
	return s, rec, id, func(n int, body string) {
		t.Helper()
		run(fmt.Sprintf("INSERT INTO t VALUES(%d, %s)", n, body))
		rec.Mark(wrote{0, 0, n})
	}
}

// replicatedLife hands over each commit for somebody who reads the history, unsynced; twice the log is copied back.
func replicatedLife(t *testing.T, drop string) *crashfs.Recorder {
	t.Helper()
	s, rec, id, insert := oneTable(t, drop)
	for n := range 14 {
		insert(n, fmt.Sprintf("randomblob(%d)", n*371%9000))
		if err := s.KeepUnsynced(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if n == 4 || n == 9 {
			if err := s.Base(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	return ended(t, s, rec)
}

// fullLogLife makes the log so long that it is copied back, and writes over it: the first one, before there is a history, and a second one, which the history
// takes meanwhile.
func fullLogLife(t *testing.T, drop string) *crashfs.Recorder {
	t.Helper()
	s, rec, _, insert := oneTable(t, drop)
	for n, size := range []int{10, 4_200_000, 20_000, 4_200_000, 20_000, 10} {
		insert(n, fmt.Sprintf("zeroblob(%d)", size))
	}
	return ended(t, s, rec)
}

// remembers checks that after a power loss the history goes on where it was: the last moment, and those before, can be restored.
func remembers(c crashfs.Crash) (err error) {
	most := map[string]int{}
	for _, a := range c.Acked {
		if w, ok := a.(wrote); ok {
			most[dbName(w.db)] = max(most[dbName(w.db)], w.n+1)
		}
	}
	root := filepath.Join(c.Dir, "history")
	if len(most) == 0 {
		return nil
	}
	h, err := history.New(history.Options{Root: root})
	if err != nil {
		return err
	}
	for id := range most {
		if err := faultless(h, id, c.Dir); err != nil {
			return err
		}
	}
	s, err := store.New(store.Options{Dir: c.Dir, Past: h, Clock: times{}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(context.Background())) }()
	for id, n := range most {
		if err := s.Keep(context.Background(), id); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		last, _, err := s.Position(context.Background(), id)
		if err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		before := -1
		for at := uint64(1); at <= last; at++ {
			rows, err := rowsAt(h, id, at, filepath.Join(c.Dir, "restored.db"))
			if err != nil {
				return fmt.Errorf("%s at %d of %d: %w", id, at, last, err)
			}
			if rows < before {
				return fmt.Errorf("%s at %d of %d has %d rows, before it had %d", id, at, last, rows, before)
			}
			before = rows
		}
		if before < n {
			return fmt.Errorf("%s: the history ends with %d rows, %d were acknowledged", id, before, n)
		}
	}
	return nil
}

// faultless checks that what a crash left is nothing that persqld doctor would call damage: unfinished it may be.
func faultless(h *history.History, id, dir string) error {
	log, err := os.Open((&house{opt: store.Options{Dir: dir}}).file(id) + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		log = nil
	} else if err != nil {
		return err
	} else {
		defer log.Close()
	}
	found, err := h.Verify(context.Background(), id, log, true)
	if err != nil || len(found.Problems) > 0 {
		return fmt.Errorf("examined before it is opened, %s: %v, %w", id, found.Problems, err)
	}
	return nil
}

func rowsAt(h *history.History, id string, at uint64, path string) (rows int, err error) {
	defer os.Remove(path)
	if err := h.Restore(context.Background(), id, at, path); err != nil {
		return 0, err
	}
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.OpenInspection(path, th)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if problems, err := c.Examine(true); err != nil || len(problems) > 0 {
		return 0, fmt.Errorf("%v, %w", problems, err)
	}
	err = c.EachRow("SELECT count(*) FROM t", func(s *sqlite.Stmt) error {
		rows = int(s.Column(0).Int)
		return nil
	})
	return rows, err
}

func TestHistoryAfterPowerLoss(t *testing.T) {
	if err := pastLife(t, "").Log().Crashes(150, 7, t.TempDir(), remembers); err != nil {
		t.Fatal(err)
	}
}

// What the history has unsynced is made anew of the log, whatever is lost of it.
func TestUnsyncedHistoryAfterPowerLoss(t *testing.T) {
	if err := replicatedLife(t, "").Log().Crashes(300, 7, t.TempDir(), remembers); err != nil {
		t.Fatal(err)
	}
}

// A log that is copied back while the history takes it stays until the history has it.
func TestFullLogAfterPowerLoss(t *testing.T) {
	if err := fullLogLife(t, "").Log().Crashes(100, 7, t.TempDir(), remembers); err != nil {
		t.Fatal(err)
	}
}

// The tests above would notice.
func TestMissingSyncOfHistoryIsFound(t *testing.T) {
	for name, lost := range map[string]struct {
		life    func(*testing.T, string) *crashfs.Recorder
		pattern string
	}{
		"records":          {pastLife, `history/.*\.log`},
		"unsynced records": {replicatedLife, `history/.*\.log`},
		"full log":         {fullLogLife, `history/.*\.log`},
		"directories":      {pastLife, `history/\d\d.*`},
		"bases":            {pastLife, `history/.*\.pending`},
	} {
		t.Run(name, func(t *testing.T) {
			err := lost.life(t, lost.pattern).Log().Crashes(300, 7, t.TempDir(), remembers)
			var loss *crashfs.CrashError
			if !errors.As(err, &loss) {
				t.Fatalf("got %v, want a loss", err)
			}
			t.Log(loss)
		})
	}
}

// paused is a history that lets whoever hands over a log wait, once it is told to.
type paused struct {
	*history.History
	armed   atomic.Bool
	began   chan struct{}
	instead func() // of going on
}

func (p *paused) Append(id string, head history.Head, log *os.File, end int64, times []int64, durable bool) (history.Head, error) {
	if p.armed.CompareAndSwap(true, false) {
		close(p.began)
		p.instead()
	}
	return p.History.Append(id, head, log, end, times, durable)
}

// newPaused is a house that keeps such a history, and whose log one more row makes long enough to be copied back.
func newPaused(t *testing.T, instead func()) (*house, *paused) {
	t.Helper()
	past, err := history.New(history.Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	p := &paused{History: past, began: make(chan struct{}), instead: instead}
	h := newHouse(t, store.Options{Past: p, Clock: times{}}, "CREATE TABLE t(n, body)")
	if err := h.Keep(t.Context(), database); err != nil { // the first hand-over isn't beside a checkpoint
		t.Fatal(err)
	}
	p.armed.Store(true)
	return h, p
}

const longRow = "INSERT INTO t VALUES(1, randomblob(5000000))"

// wantRows checks how many rows positions have.
func (h *house) wantRows(p *history.History, want map[uint64]int) {
	h.t.Helper()
	if err := h.Keep(h.t.Context(), database); err != nil {
		h.t.Error(err)
	}
	for at, want := range want {
		if got, err := rowsAt(p, database, at, filepath.Join(h.t.TempDir(), "restored.db")); err != nil || got != want {
			h.t.Errorf("position %d: %d rows, %v, want %d", at, got, err, want)
		}
	}
}

// The log is copied back while the history takes it, and isn't written over before it has.
func TestCheckpointBesideTheHistory(t *testing.T) {
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	h, p := newPaused(t, func() { <-held })
	t.Cleanup(release)
	h.must(longRow)
	h.reach("the hand-over", p.began)
	h.until("the log is copied back", func() bool {
		fi, err := os.Stat(h.file(database))
		return err == nil && fi.Size() > 5_000_000
	})
	next := h.begin(script("INSERT INTO t VALUES(2, '')"))
	select {
	case <-next.done:
		t.Error("the log was written over before the history had it")
	case <-time.After(50 * time.Millisecond): // it passes by itself if this is too short
	}
	release()
	h.wait(next)
	h.wantRows(p.History, map[uint64]int{1: 0, 2: 1, 3: 2})
	h.sound()
}

// A fault of the history beside the lane ends neither the process nor the database: the history begins anew.
func TestHistoryFailsBesideACheckpoint(t *testing.T) {
	h, p := newPaused(t, func() { panic("boom") })
	h.must(longRow)
	h.reach("the hand-over", p.began)
	h.must("INSERT INTO t VALUES(2, '')")
	h.wantRows(p.History, map[uint64]int{2: 1, 3: 2})
	h.sound()
}

// dying is a history in which the process dies between the swap of a file and its confirmation.
type dying struct{ *history.History }

func (dying) Confirm(string, uint64) error { return errors.New("killed") }

// A file that took the database's place before a crash is in the history, though its first opening comes before the history looks at it.
func TestSwapWithoutConfirmation(t *testing.T) {
	if err := sqlite.Initialize(sqlite.Setup{}); err != nil {
		t.Fatal(err)
	}
	past, err := history.New(history.Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	opt := store.Options{Dir: t.TempDir(), Past: dying{past}, Clock: times{}}
	h := &house{t: t, opt: opt}
	h.start()
	if err := h.Create(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	h.must("CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	err = h.Rebuild(t.Context(), database, store.FromNothing, nil, func(path string) error {
		th := sqlite.NewThread()
		defer th.Close()
		c, err := sqlite.OpenScratch(sqlite.Scratch{Path: path}, th)
		if err != nil {
			return err
		}
		return errors.Join(c.Exec("CREATE TABLE t(a)"), c.Exec("INSERT INTO t VALUES(2),(3)"), c.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Close(context.Background())
	h.opt.Past = past
	h.start()
	defer h.Close(context.Background())
	if got := h.rows("SELECT count(*) FROM t"); got != "2" { // the opening, before anything is written
		t.Fatalf("%s rows", got)
	}
	h.must("INSERT INTO t VALUES(4)")
	if err := h.Keep(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	last, _, err := h.Position(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[uint64]int{last: 3, last - 1: 2, last - 2: 1} {
		if rows, err := rowsAt(past, database, at, filepath.Join(t.TempDir(), "r.db")); err != nil || rows != want {
			t.Errorf("position %d has %d rows, %v, want %d", at, rows, err, want)
		}
	}
}

// TestKeepForgetsTimes: a killed process leaves the times of commits, those of logs that it had handed over too; a start that hands over all has none left.
func TestKeepForgetsTimes(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	past, err := history.New(history.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "clock")
	clock, err := history.OpenClock(path)
	if err != nil {
		t.Fatal(err)
	}
	id := dbName(0)
	s, err := store.New(store.Options{Dir: dir, Past: past, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if j := script("CREATE TABLE t(a)"); true {
		if (&house{t: t, Store: s}).on(id, j); j.err != nil {
			t.Fatal(j.err)
		}
	}
	// The database closes and takes its log with it; the process is killed before it says so.
	if err := errors.Join(s.Close(context.Background()), clock.Close(false)); err != nil {
		t.Fatal(err)
	}
	if clock, err = history.OpenClock(path); err != nil {
		t.Fatal(err)
	}
	if !clock.Has(id) {
		t.Fatal("no times are left: the test tests nothing")
	}
	if s, err = store.New(store.Options{Dir: dir, Past: past, Clock: clock}); err != nil {
		t.Fatal(err)
	}
	if err := s.Keep(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if clock.Has(id) {
		t.Error("the times are kept although the history has all")
	}
	if err := errors.Join(s.Close(context.Background()), clock.Close(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the clock's file is still there: %v", err)
	}
}
