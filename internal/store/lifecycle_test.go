package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

// file is where a database lies.
func (h *house) file(id string) string { return filepath.Join(h.opt.Dir, id[len(id)-2:], id+".db") }

func (h *house) create(ids ...string) {
	h.t.Helper()
	for _, id := range ids {
		if err := h.Create(h.t.Context(), id); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *house) logSize(id string) int64 {
	fi, err := os.Stat(h.file(id) + "-wal")
	if err != nil {
		return 0
	}
	return fi.Size()
}

func TestCreateRefusesPaths(t *testing.T) {
	h := newHouse(t, store.Options{})
	for _, id := range []string{"", "short", "../../../../etc", "db_ABCDEFGH", "db_abcdef/gh", "db_abcdef.gh", "db_abcdefg\x00", "db_äbcdefgh", string(make([]byte, 65))} {
		if err := h.Create(t.Context(), id); err == nil {
			t.Errorf("%q was made", id)
		}
		j := script("SELECT 1")
		h.on(id, j)
		if j.err == nil {
			t.Errorf("%q was opened", id)
		}
	}
	if err := h.Create(t.Context(), database); err == nil {
		t.Error("a database was made twice")
	}
	h.must("SELECT 1")
}

// The name of a database that couldn't be made durable is free again.
func TestCreateThatFails(t *testing.T) {
	h := newHouse(t, store.Options{})
	h.restart()
	fails := errors.New("no disk")
	opt := h.opt
	opt.Files.SyncDir = func(string) error { return fails }
	s, err := store.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	wantErr(t, "create", s.Create(t.Context(), "db_second_gh"), fails)
	h.create("db_second_gh")
}

// A directory whose name is not on the disk yet must not be taken for one that is: another creation's sync may be on
// its way, or have failed, or never have come to it before the process ended.
func TestCreateInADirectoryOfAnother(t *testing.T) {
	h := newHouse(t, store.Options{})
	opt := h.opt
	fails, synced := errors.New("no disk"), 0
	opt.Files.SyncDir = func(dir string) error {
		if dir != opt.Dir {
			return nil
		}
		if synced++; synced == 1 {
			return fails
		}
		return nil
	}
	s, err := store.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	wantErr(t, "first", s.Create(t.Context(), "db_second_xy"), fails)
	for i, id := range []string{"db_third_xy", "db_fourth_xy"} {
		wantErr(t, "later", s.Create(t.Context(), id), nil)
		if synced != 2 {
			t.Errorf("after %d more databases the directory above was synced %d times, want 2", i+1, synced)
		}
	}
}

func TestEviction(t *testing.T) {
	var seen commits
	h := newHouse(t, store.Options{MaxOpen: 2, Observer: &seen}, tables...)
	var ids []string
	for i := range 40 {
		id := fmt.Sprintf("db_many_%04d", i)
		ids = append(ids, id)
		h.create(id)
		j := script("CREATE TABLE x(a)", fmt.Sprintf("INSERT INTO x VALUES(%d)", i))
		h.on(id, j)
		wantErr(t, "write", j.err, nil)
		if n := seen.open.Load(); n > 2+8+1 {
			t.Fatalf("%d databases are open", n)
		}
	}
	h.until("idle ones are closed", func() bool { return seen.open.Load() <= 2 })
	h.until("the oldest one is copied back", func() bool { return h.logSize(ids[0]) == 0 })
	for i, id := range ids {
		j := script("SELECT a FROM x")
		h.on(id, j)
		if j.err != nil || j.results[0].rows != fmt.Sprint(i) {
			t.Fatalf("database %d after its eviction: %v, %v", i, j.results, j.err)
		}
	}
}

// The one that was used least recently is closed.
func TestEvictionTakesTheLeastRecentlyUsed(t *testing.T) {
	var seen commits
	h := newHouse(t, store.Options{MaxOpen: 2, Observer: &seen}, tables...)
	h.create("db_another1", "db_another2")
	for _, id := range []string{"db_another1", database, "db_another2"} {
		j := script("CREATE TABLE IF NOT EXISTS x(a)")
		h.on(id, j)
		wantErr(t, id, j.err, nil)
	}
	h.until("one is closed", func() bool { return seen.open.Load() == 2 })
	if h.logSize("db_another1") != 0 || h.logSize(database) == 0 || h.logSize("db_another2") == 0 {
		t.Error("another one than the least recently used was closed")
	}
}

// When the reaper is behind, a request that opens a database closes another.
func TestEvictionWithoutTheReaper(t *testing.T) {
	var seen commits
	h := newHouse(t, store.Options{MaxOpen: 1, Observer: &seen}, tables...)
	held, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.rec.Intercept(func(op crashfs.FileOp, rel string) int32 {
		if op == crashfs.OpWrite && strings.HasSuffix(rel, database+".db") {
			once.Do(func() { close(held); <-proceed })
		}
		return crashfs.OK
	})
	for i := range 20 {
		id := fmt.Sprintf("db_many_%04d", i)
		h.create(id)
		j := script("CREATE TABLE x(a)")
		h.on(id, j)
		wantErr(t, "write", j.err, nil)
		if i == 0 {
			h.reach("the checkpoint", held)
		}
		if n := seen.open.Load(); n > 1+8 {
			t.Errorf("%d databases are open", n)
			break
		}
	}
	close(proceed)
	h.until("idle ones are closed", func() bool { return seen.open.Load() == 1 })
}

// Too much memory in use closes idle databases.
func TestMemoryHigh(t *testing.T) {
	var seen commits
	h := newHouse(t, store.Options{MemoryHigh: 1, Observer: &seen}, tables...)
	h.until("idle ones are closed", func() bool { return seen.open.Load() == 0 })
	h.must("INSERT INTO t VALUES(1)")
}

// A busy database isn't evicted, however many others are opened.
func TestBusyStaysOpen(t *testing.T) {
	h := newHouse(t, store.Options{MaxOpen: 1}, tables...)
	inside := script("INSERT INTO t VALUES(2)")
	inside.hook = func(_ int, tx *store.Tx) error {
		if err := inside.statement(tx, "INSERT INTO t VALUES(1)"); err != nil {
			return err
		}
		for i := range 30 {
			id := fmt.Sprintf("db_push_%04d", i)
			if err := h.Create(context.Background(), id); err != nil {
				return err
			}
			j := script("SELECT 1")
			h.on(id, j)
			if j.err != nil {
				return j.err
			}
		}
		return nil
	}
	wantErr(t, "request", h.do(inside).err, nil)
	if got := h.rows("SELECT a FROM t"); got != "1 2" {
		t.Errorf("rows %s", got)
	}
}

// A database that rests gives its log back to the disk.
func TestRest(t *testing.T) {
	c := newClock()
	h := newHouse(t, store.Options{Now: c.Now, IdleAfter: time.Second}, append(tables, spill)...)
	if h.logSize(database) == 0 {
		t.Fatal("nothing in the log")
	}
	used := sqlite.MemoryUsed()
	h.until("the log is copied back", func() bool {
		c.Advance(time.Second)
		return h.logSize(database) == 0
	})
	h.until("the pages are given back", func() bool { return sqlite.MemoryUsed() < used-500<<10 })
	h.must("INSERT INTO t VALUES(1)")
}

// A database that isn't used for a second gives back what its log's index doesn't use, each time that it was opened.
func TestSlim(t *testing.T) {
	c := newClock()
	h := newHouse(t, store.Options{Now: c.Now, IdleAfter: time.Hour, MaxOpen: 1}, tables...)
	for range 2 {
		h.must("INSERT INTO t VALUES(1)")
		if h.IsSlim(database) {
			t.Fatal("at once")
		}
		h.until("it is slim", func() bool { c.Advance(time.Second); return h.IsSlim(database) })
		h.must("INSERT INTO t VALUES(1)")
		if !h.IsSlim(database) {
			t.Error("again, though it was open")
		}
		h.create("db_another1")
		h.on("db_another1", script("SELECT 1"))
		h.until("it is closed", func() bool { return !h.IsSlim(database) })
		h.must("DELETE FROM t")
		h.Delete(context.Background(), "db_another1")
	}
}

// The engine faults while nobody's request runs: in the checkpoint of a database that rests, or is closed.
func TestFaultInTheReaper(t *testing.T) {
	for name, opt := range map[string]store.Options{"rest": {IdleAfter: time.Second}, "eviction": {MaxOpen: 1}} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			opt.Now = c.Now
			h := newHouse(t, opt, tables...)
			f := &fault{op: crashfs.OpWrite, file: database + ".db", code: -1, times: 1}
			h.rec.Intercept(func(op crashfs.FileOp, rel string) int32 {
				if f.ask(op, rel) != crashfs.OK {
					panic("fault")
				}
				return crashfs.OK
			})
			if name == "eviction" {
				h.create("db_another1")
				h.on("db_another1", script("SELECT 1"))
			}
			h.until("the fault is met", func() bool { c.Advance(time.Second); return f.hits() == 1 })
			h.must("INSERT INTO t VALUES(1)")
			if got := h.rows("SELECT a FROM t"); got != "1" {
				t.Errorf("rows %s", got)
			}
			h.sound()
		})
	}
}

// astray is a history that reads memory that isn't there, once it is told to.
type astray struct {
	*history.History
	armed atomic.Bool
}

func (a *astray) Append(id string, head history.Head, log *os.File, end int64, times []int64, durable bool) (history.Head, error) {
	if a.armed.CompareAndSwap(true, false) {
		nowhere := uintptr(1) << 45
		head.Position += uint64(**(**byte)(unsafe.Pointer(&nowhere)))
	}
	return a.History.Append(id, head, log, end, times, durable)
}

// What reads memory that isn't there beside SQLite's own guard ends the connection too, and not the process.
func TestMemoryFaultInTheReaper(t *testing.T) {
	past, err := history.New(history.Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c, a := newClock(), &astray{History: past}
	h := newHouse(t, store.Options{Now: c.Now, IdleAfter: time.Second, Past: a, Clock: times{}}, tables...)
	a.armed.Store(true)
	h.until("the fault is met", func() bool { c.Advance(time.Second); return !a.armed.Load() })
	h.must("INSERT INTO t VALUES(1)")
	if got := h.rows("SELECT a FROM t"); got != "1" {
		t.Errorf("rows %s", got)
	}
	h.sound()
}

func TestDelete(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	release := h.hold()
	before := script("INSERT INTO t VALUES(1)")
	h.queue(before)
	deleted := make(chan error, 1)
	go func() { deleted <- h.Delete(context.Background(), database) }()
	h.until("the deletion is in the queue", func() bool { return h.Waiting(database) == 2 })
	after := script("SELECT 1")
	h.queue(after)
	release()
	h.wait(before, after)
	wantErr(t, "deletion", <-deleted, nil)
	wantErr(t, "before it", before.err, nil)
	wantErr(t, "behind it", after.err, store.ErrNotFound)
	left, err := filepath.Glob(h.file(database) + "*")
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	// One that was begun is finished, though its caller leaves.
	h.create("db_another1")
	gone, leave := context.WithCancel(t.Context())
	leave()
	h.on("db_another1", hooked(func(int, *store.Tx) error {
		go func() { deleted <- h.Delete(gone, "db_another1") }()
		h.until("the deletion is in the queue", func() bool { return h.Waiting("db_another1") == 1 })
		return nil
	}))
	wantErr(t, "deletion without its caller", <-deleted, nil)
	if err := h.Delete(t.Context(), database); err != nil {
		t.Errorf("again: %v", err)
	}
	// The actor may still remember, or be gone: then there is a database without its file.
	if j := h.do(script("SELECT 1")); !errors.Is(j.err, store.ErrNotFound) && !errors.Is(j.err, store.ErrDamaged) {
		t.Errorf("used afterwards: %v", j.err)
	}
}

func TestDamagedFiles(t *testing.T) {
	whole := func(h *house) []byte {
		data, err := os.ReadFile(h.file(database))
		if err != nil {
			h.t.Fatal(err)
		}
		return data
	}
	for name, damage := range map[string]func(h *house) error{
		"missing": func(h *house) error { return os.Remove(h.file(database)) },
		"empty":   func(h *house) error { return os.Truncate(h.file(database), 0) },
		"short":   func(h *house) error { return os.Truncate(h.file(database), 50) },
		"other": func(h *house) error {
			return os.WriteFile(h.file(database), []byte("this is no database, it is a text that somebody copied here"), 0o600)
		},
		"header": func(h *house) error {
			data := whole(h)
			for i := range 4096 {
				data[i] ^= 0x55
			}
			return os.WriteFile(h.file(database), data, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, store.Options{}, tables...)
			if err := h.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			os.Remove(h.file(database) + "-wal")
			if err := damage(h); err != nil {
				t.Fatal(err)
			}
			h.start()
			for range 2 {
				j := h.do(script("SELECT * FROM t"))
				wantErr(t, "request", j.err, store.ErrDamaged)
			}
			if _, err := os.Stat(h.file(database)); (err != nil) != (name == "missing") {
				t.Errorf("the file: %v", err)
			}
		})
	}
}

func TestCloseDrains(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	release := h.hold()
	waiting := []*job{script("INSERT INTO t VALUES(1)"), script("INSERT INTO t VALUES(2)")}
	h.queue(waiting...)
	closed := make(chan error, 1)
	go func() { closed <- h.Close(context.Background()) }()
	h.until("no more requests are taken", func() bool { return errors.Is(h.takes(), store.ErrClosing) })
	release()
	h.wait(waiting...)
	wantErr(t, "close", <-closed, nil)
	for _, j := range waiting {
		wantErr(t, "waited", j.err, nil)
	}
	if n := h.logSize(database); n != 0 {
		t.Errorf("the log holds %d bytes after a close", n)
	}
	h.start()
	if got := h.rows("SELECT a FROM t"); got != "1 2" {
		t.Errorf("rows %s", got)
	}
}

// takes asks another database for something, to see whether the store takes requests.
func (h *house) takes() error {
	j := script("SELECT 1")
	h.on("db_nowhere1", j)
	return j.err
}

// A log that was copied back while it was in use is cut at the end too.
func TestCloseCutsALogThatWasCopied(t *testing.T) {
	h := newHouse(t, store.Options{}, append(tables, spill)...)
	for range 2 {
		h.restart()
		if n := h.logSize(database); n != 0 {
			t.Errorf("the log holds %d bytes after a close", n)
		}
		h.must("SELECT 1")
	}
}

func TestCloseInterruptsAtItsDeadline(t *testing.T) {
	h := newHouse(t, store.Options{StatementTimeout: time.Hour}, tables...)
	entered := make(chan struct{})
	running := script("INSERT INTO t VALUES(1)", endlessWrite)
	running.hook = func(int, *store.Tx) error { close(entered); return nil }
	h.begin(running)
	h.reach("the write", entered)
	waiting := script("INSERT INTO t VALUES(2)")
	h.queue(waiting)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	wantErr(t, "close", h.Close(ctx), nil)
	h.wait(running, waiting)
	wantErr(t, "running", running.err, store.ErrClosing)
	wantErr(t, "waiting", waiting.err, store.ErrClosing)
	h.start()
	if got := h.rows("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("%s rows", got)
	}
}
