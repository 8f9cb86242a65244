package store_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

// The disk is full at the group's commit, once: each request gets a commit of its own.
func TestFullDiskAtCommit(t *testing.T) {
	for _, tt := range []struct {
		name  string
		code  int32
		times int
		want  error
		rows  string
	}{
		{"full once", crashfs.Full, 1, nil, "1 2 3 4"},
		{"full", crashfs.Full, -1, store.ErrDiskFull, "4"},
		{"no memory once", crashfs.NoMem, 1, nil, "1 2 3 4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, store.Options{}, tables...)
			f := h.fail(crashfs.OpWrite, "-wal", tt.code, tt.times)
			jobs := []*job{script("INSERT INTO t VALUES(1)"), script("INSERT INTO t VALUES(2)"), steps("INSERT INTO t VALUES(3)")}
			h.group(jobs...)
			if f.hits() == 0 {
				t.Fatal("the fault was never met")
			}
			h.rec.Intercept(nil)
			for i, j := range jobs {
				if tt.want == nil && j.err != nil || !errors.Is(j.err, tt.want) {
					t.Errorf("request %d: got %v, want %v", i, j.err, tt.want)
				}
			}
			h.must("INSERT INTO t VALUES(4)")
			if got := h.rows("SELECT a FROM t ORDER BY a"); got != tt.rows {
				t.Errorf("rows %s, want %s", got, tt.rows)
			}
			h.restart()
			if got := h.rows("SELECT a FROM t ORDER BY a"); got != tt.rows {
				t.Errorf("rows after a restart %s, want %s", got, tt.rows)
			}
			h.sound()
		})
	}
}

// SQLite says the same of a full disk and of a full database.
func TestFullDiskIsNoQuota(t *testing.T) {
	full := func(string) (int64, error) { return 1 << 20, nil }
	h := newHouse(t, unhurried(store.Options{Files: store.Files{Free: full}}), tables...)
	h.fail(crashfs.OpWrite, "-wal", crashfs.Full, 1)
	first, big, last := script("INSERT INTO t VALUES(1)"), script("INSERT INTO t VALUES(-1)", spill), script("INSERT INTO t VALUES(2)")
	h.group(first, big, last)
	wantErr(t, "first", first.err, nil)
	wantErr(t, "last", last.err, nil)
	wantErr(t, "the one that filled it", big.err, store.ErrDiskFull)
	if got := h.rows("SELECT a FROM t"); got != "1 2" {
		t.Errorf("rows %s", got)
	}
}

// The disk fails under the commit: everybody is told so, and no later commit builds on what may not be there.
func TestDiskErrorAtCommit(t *testing.T) {
	for _, tt := range []struct {
		name string
		op   crashfs.FileOp
		code int32
	}{
		{"write", crashfs.OpWrite, crashfs.ErrWrite},
		{"sync", crashfs.OpSync, crashfs.ErrSync},
	} {
		for _, jobs := range [][]*job{
			{script("INSERT INTO t VALUES(1)")},
			{script("INSERT INTO t VALUES(1)"), script("INSERT INTO t VALUES(2)"), script("SELECT a FROM t")},
			{steps("INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)")},
		} {
			t.Run(tt.name, func(t *testing.T) {
				h := newHouse(t, store.Options{}, tables...)
				h.must("INSERT INTO t VALUES(0)")
				f := h.fail(tt.op, "-wal", tt.code, 1)
				h.group(jobs...)
				if f.hits() != 1 {
					t.Fatal("the fault was never met")
				}
				for i, j := range jobs {
					if !errors.Is(j.err, store.ErrStorage) {
						t.Errorf("request %d: %v", i, j.err)
					}
				}
				// Not told: not there, though the log held it whole when its sync failed.
				if got := h.killed().rows("SELECT a FROM t ORDER BY a"); got != "0" {
					t.Errorf("rows after a crash %s, want 0", got)
				}
				if got := h.rows("SELECT a FROM t ORDER BY a"); got != "0" {
					t.Errorf("rows %s, want 0", got)
				}
				h.must("INSERT INTO t VALUES(5)")
				h.restart()
				if got := h.rows("SELECT a FROM t ORDER BY a"); got != "0 5" {
					t.Errorf("rows after a restart %s, want 0 5", got)
				}
				h.sound()
			})
		}
	}
}

// The log can't be cut after a failed commit: the database stays closed, and others go on.
func TestDiskErrorThatStays(t *testing.T) {
	broken := errors.New("no disk")
	h := newHouse(t, store.Options{Files: store.Files{Open: func(path string, flag int, perm fs.FileMode) (store.File, error) {
		if strings.HasSuffix(path, "-wal") {
			return nil, broken
		}
		return os.OpenFile(path, flag, perm)
	}}}, tables...)
	h.fail(crashfs.OpSync, "-wal", crashfs.ErrSync, 1)
	wantErr(t, "commit", h.do(script("INSERT INTO t VALUES(1)")).err, store.ErrStorage)
	for range 2 {
		j := h.do(script("INSERT INTO t VALUES(2)"))
		wantErr(t, "afterwards", j.err, store.ErrStorage)
		wantErr(t, "afterwards", j.err, broken)
	}
	if err := h.Create(t.Context(), "db_another1"); err != nil {
		t.Fatal(err)
	}
	other := script("CREATE TABLE x(a)")
	h.on("db_another1", other)
	wantErr(t, "another database", other.err, nil)
}

func TestDiskErrorWhileReading(t *testing.T) {
	h := newHouse(t, store.Options{}, append(tables, spill)...)
	h.restart()
	f := h.fail(crashfs.OpRead, ".db", crashfs.ErrRead, 0)
	h.must("SELECT 1")
	f.arm()
	first, read, last := script("INSERT INTO t VALUES(1)"), script("SELECT sum(length(a)) FROM big"), script("INSERT INTO t VALUES(2)")
	read.hook = func(int, *store.Tx) error { f.arm(); return nil }
	h.group(first, read, last)
	wantErr(t, "read", read.err, store.ErrStorage)
	h.rec.Intercept(nil)
	if got := h.rows("SELECT count(*) FROM t WHERE a=2"); got != "1" {
		t.Errorf("a later write is lost: %v, %v", first.err, last.err)
	}
	if got := h.rows("SELECT sum(length(a)) FROM big"); got != "8000000" {
		t.Errorf("big holds %s bytes", got)
	}
}

// A VACUUM commits by itself: its failed sync is treated like a commit's.
func TestDiskErrorInVacuum(t *testing.T) {
	h := newHouse(t, store.Options{}, append(tables, spill, "DELETE FROM big")...)
	h.must("INSERT INTO t VALUES(0)")
	pages := h.rows("PRAGMA page_count")
	h.fail(crashfs.OpSync, "-wal", crashfs.ErrSync, 1)
	wantErr(t, "vacuum", h.do(script("VACUUM")).err, store.ErrStorage)
	if got := h.killed().rows("PRAGMA page_count"); got != pages {
		t.Errorf("%s pages after a crash, want %s as before", got, pages)
	}
	if got := h.rows("PRAGMA page_count"); got != pages {
		t.Errorf("%s pages, want %s as before", got, pages)
	}
	h.must("VACUUM", "INSERT INTO t VALUES(1)")
	if got := h.rows("SELECT a FROM t"); got != "0 1" {
		t.Errorf("rows %s", got)
	}
	h.sound()
}

// A checkpoint that fails is not tried again for every group.
func TestCheckpoint(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	synced := &fault{op: crashfs.OpSync, file: ".db", times: 0}
	tried := 0
	h.rec.Intercept(func(op crashfs.FileOp, rel string) int32 {
		if op == crashfs.OpWrite && strings.HasSuffix(rel, ".db") {
			tried++
			return crashfs.ErrWrite
		}
		return synced.ask(op, rel)
	})
	h.must(spill) // more pages than a checkpoint waits for
	for range 20 {
		h.must("INSERT INTO t VALUES(1)")
	}
	if tried != 1 {
		t.Errorf("a failing checkpoint was tried %d times, want once", tried)
	}
	h.rec.Intercept(nil)
	h.must(spill)
	if got := h.rows("SELECT count(*) FROM big"); got != "4000" {
		t.Errorf("%s rows", got)
	}
	h.sound()
}
