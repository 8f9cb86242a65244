package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

const copied = "db_made_of_another"

// newPast is a house whose databases keep a history.
func newPast(t *testing.T, setup ...string) (*house, *history.History) {
	t.Helper()
	root := t.TempDir()
	h, err := history.New(history.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return newHouse(t, store.Options{Past: h, Clock: times{}}, setup...), h
}

// scratch is a new file with a table, as a restore leaves one.
func scratch(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "scratch.db")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	editT(t, path, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1),(2)")
	return path
}

func TestCreateFrom(t *testing.T) {
	h := newHouse(t, store.Options{}, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	key := store.Key{Scope: [32]byte{1}}
	write := script("INSERT INTO t VALUES(2)")
	write.key = &key
	h.do(write)
	wantErr(t, "write with a key", write.err, nil)
	wantErr(t, "note", h.do(hooked(func(_ int, tx *store.Tx) error { return tx.SetNote(store.Note{Text: "a note"}) })).err, nil)
	wantErr(t, "label", h.do(hooked(func(_ int, tx *store.Tx) error {
		return tx.AddSnapshot(store.Snapshot{ID: "snap_1", Label: "x", Position: 1})
	})).err, nil)
	path := filepath.Join(h.opt.Dir, "copy.db")
	wantErr(t, "copy", h.Copy(t.Context(), database, path), nil)
	wantErr(t, "create", h.CreateFrom(t.Context(), copied, path), nil)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	before, err := os.ReadFile(h.file(copied))
	if err != nil {
		t.Fatal(err)
	}
	read := hooked(func(_ int, tx *store.Tx) error {
		notes, err := tx.Notes()
		if err != nil || len(notes) != 1 || notes[0].Text != "a note" {
			t.Errorf("notes %v, %v", notes, err)
		}
		if list, err := tx.Snapshots(); err != nil || len(list) != 0 {
			t.Errorf("labels %v, %v", list, err)
		}
		if answer, err := tx.Kept(key); err != nil || answer != nil {
			t.Errorf("a kept answer %q, %v", answer, err)
		}
		return nil
	}, "SELECT a FROM t", "PRAGMA integrity_check")
	if h.on(copied, read); read.err != nil || read.results[0].rows != "1 2" || read.results[1].rows != "ok" {
		t.Errorf("the copy: %v %v", read.results, read.err)
	}
	if after, err := os.ReadFile(h.file(copied)); err != nil || string(after) != string(before) {
		t.Errorf("the file changed when it was opened: its history wouldn't know (%v)", err)
	}
	wantErr(t, "retire", h.Retire(t.Context(), database), nil)
	if names := editT(t, h.file(database), "SELECT count(*) FROM sqlite_schema WHERE name GLOB 'sqlite_persql_*_v1'"); names != "3" {
		t.Errorf("the source has %s tables of the system: the test shows too little", names)
	}

	// Nothing takes another's place.
	again := scratch(t, h.opt.Dir)
	wantErr(t, "create again", h.CreateFrom(t.Context(), copied, again), fs.ErrExist)
	second := script("SELECT a FROM t")
	if h.on(copied, second); second.err != nil || second.results[0].rows != "1 2" {
		t.Errorf("the first one: %v %v", second.results, second.err)
	}
}

func TestCreateFromThatFailsMakesNothing(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		name    string
		opt     func(o *store.Options)
		prepare func(t *testing.T, path string)
		want    error
	}{
		{name: "too large", opt: func(o *store.Options) { o.Limits.Pages = 10 }, prepare: func(t *testing.T, path string) { editT(t, path, "INSERT INTO t VALUES(zeroblob(50000))") }, want: store.ErrQuota},
		{name: "no file", prepare: func(t *testing.T, path string) { os.Remove(path) }, want: fs.ErrNotExist},
		{name: "its sync", opt: func(o *store.Options) {
			o.Files.Open = func(path string, flag int, perm fs.FileMode) (store.File, error) {
				file, err := os.OpenFile(path, flag, perm)
				if strings.Contains(path, "scratch") {
					return failing{file, boom}, err
				}
				return file, err
			}
		}, want: boom},
		{name: "the rename", opt: func(o *store.Options) { o.Files.Rename = func(string, string) error { return boom } }, want: boom},
		{name: "the sync of its name", opt: func(o *store.Options) {
			o.Files.SyncDir = func(dir string) error {
				if strings.HasSuffix(dir, copied[len(copied)-2:]) {
					return boom
				}
				return nil
			}
		}, want: boom},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opt := store.Options{}
			if tt.opt != nil {
				tt.opt(&opt)
			}
			h := newHouse(t, opt)
			path := scratch(t, h.opt.Dir)
			if tt.prepare != nil {
				tt.prepare(t, path)
			}
			if err := h.CreateFrom(t.Context(), copied, path); !errors.Is(err, tt.want) && !(tt.want == fs.ErrNotExist && err != nil) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if _, err := os.Stat(h.file(copied)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a database was made: %v", err)
			}
		})
	}
	h := newHouse(t, store.Options{})
	path := scratch(t, h.opt.Dir)
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.OpenScratch(sqlite.Scratch{Path: path}, th)
	if err == nil {
		err = errors.Join(c.CreateReserved("CREATE TABLE sqlite_persql_kept_v9(a)"), c.Close())
	}
	wantErr(t, "make a table of a later version", err, nil)
	var newer *store.NewerError
	if err := h.CreateFrom(t.Context(), copied, path); !errors.As(err, &newer) {
		t.Errorf("a table that this version doesn't know: %v", err)
	}
	if err := h.CreateFrom(t.Context(), "../../../../etc", path); err == nil {
		t.Error("an id that is a path")
	}
}

// A branch's file has its place once its id is noted: what a crash leaves is found by that.
func TestCreateBranchReservesFirst(t *testing.T) {
	var reserved, placed bool
	opt := store.Options{}
	opt.Files.Rename = func(from, to string) error {
		placed = true
		if !reserved {
			t.Error("the file gets its place before its id is noted")
		}
		return os.Rename(from, to)
	}
	h := newHouse(t, opt)
	boom := errors.New("boom")
	for _, reserve := range []func() error{
		func() error { return boom },
		func() error { panic(boom) },
	} {
		if err := h.CreateBranch(t.Context(), copied, scratch(t, h.opt.Dir), store.NewBranch{Reserve: reserve}); err == nil || !strings.Contains(err.Error(), "boom") || placed {
			t.Errorf("got %v; placed: %v", err, placed)
		}
		if _, err := os.Stat(h.file(copied)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a database was made: %v", err)
		}
		os.Remove(filepath.Join(h.opt.Dir, "scratch.db"))
	}
	err := h.CreateBranch(t.Context(), copied, scratch(t, h.opt.Dir), store.NewBranch{Reserve: func() error {
		reserved = !placed
		return nil
	}})
	if err != nil || !placed || !reserved {
		t.Errorf("got %v; noted: %v, placed: %v", err, reserved, placed)
	}
	wantErr(t, "read", func() error { j := script("SELECT a FROM t"); h.on(copied, j); return j.err }(), nil)
}

// Whenever the power fails, there is the whole of a database that was made of a file, or nothing.
func TestCreateFromStandsAfterPowerLoss(t *testing.T) {
	if err := sqlite.Initialize(sqlite.Setup{}); err != nil {
		t.Fatal(err)
	}
	life := func(drop string) *crashfs.Recorder {
		rec, err := crashfs.New(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if drop != "" {
			rec.DropSyncs(drop)
		}
		s, err := store.New(store.Options{Dir: rec.Root(), Files: recorded(rec)})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 6 {
			path := scratch(t, rec.Root())
			if err := errors.Join(rec.Capture(path), s.CreateFrom(t.Context(), dbName(n), path)); err != nil {
				t.Fatal(err)
			}
			rec.Mark(created{dbName(n)})
		}
		if err := errors.Join(s.Close(context.Background()), rec.Verify()); err != nil {
			t.Fatal(err)
		}
		return rec
	}
	whole := func(c crashfs.Crash) error {
		made := map[string]bool{}
		for _, a := range c.Acked {
			made[a.(created).db] = true
		}
		for n := range 6 {
			id := dbName(n)
			path := filepath.Join(c.Dir, id[len(id)-2:], id+".db")
			if _, err := os.Stat(path); err != nil {
				if made[id] {
					return fmt.Errorf("%s is gone", id)
				}
				continue
			}
			if rows, err := edit(path, "PRAGMA integrity_check", "SELECT count(*) FROM t"); err != nil || rows != "2" {
				return fmt.Errorf("%s holds %s rows: %v", id, rows, err)
			}
		}
		return nil
	}
	if err := life("").Log().Crashes(300, 3, t.TempDir(), whole); err != nil {
		t.Fatal(err)
	}
	for _, drop := range []string{`scratch\.db`, `\d\d`} {
		var loss *crashfs.CrashError
		if err := life(drop).Log().Crashes(300, 3, t.TempDir(), whole); !errors.As(err, &loss) {
			t.Errorf("without the sync of %s: %v, want a loss", drop, err)
		}
	}
}

// TestEnding: what a crash left in the log of a retired database is in its history, and in its file.
func TestEnding(t *testing.T) {
	h, past := newPast(t, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)")
	wantErr(t, "label", h.do(hooked(func(_ int, tx *store.Tx) error {
		return tx.AddSnapshot(store.Snapshot{ID: "snap_1", Label: "x", Position: 2})
	})).err, nil)
	k := h.killed()
	k.Close(context.Background())
	k.opt.Past, k.opt.Clock = past, times{}
	k.start()
	if k.logSize(database) == 0 {
		t.Fatal("there is no log: the test shows nothing")
	}
	e, err := k.Ending(t.Context(), database)
	if err != nil || e.Position != 4 || len(e.Snapshots) != 1 || e.Snapshots[0].Position != 2 || e.Snapshots[0].ID != "snap_1" {
		t.Errorf("ending %+v, %v", e, err)
	}
	if n := k.logSize(database); n != 0 {
		t.Errorf("the log has %d bytes", n)
	}
	for at, want := range []string{1: "", 2: "1", 3: "1 2", 4: "1 2"} {
		if at == 0 {
			continue
		}
		path := filepath.Join(t.TempDir(), "restored.db")
		if err := past.Restore(t.Context(), database, uint64(at), path); err != nil {
			t.Fatal(err)
		}
		if got := editT(t, path, "SELECT a FROM t"); got != want {
			t.Errorf("at %d: %q, want %q", at, got, want)
		}
	}
	path := filepath.Join(k.opt.Dir, "copy.db")
	wantErr(t, "copy", k.CopyEnded(t.Context(), database, path), nil)
	if got := editT(t, path, "SELECT a FROM t"); got != "1 2" {
		t.Errorf("the copy holds %q", got)
	}
	wantErr(t, "delete", k.Delete(t.Context(), database), nil)
	if _, err := k.Ending(t.Context(), database); err == nil {
		t.Error("a deleted database has an ending")
	}
}

// TestRetireHandsOver: a retirement copies the log back, and the history has what it held.
func TestRetireHandsOver(t *testing.T) {
	h, past := newPast(t, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	wantErr(t, "retire", h.Retire(t.Context(), database), nil)
	if head, err := past.Head(database); err != nil || head.Position != 2 {
		t.Errorf("the history ends at %d, %v", head.Position, err)
	}
	wantErr(t, "admit", h.Admit(t.Context(), database), nil)
	h.must("INSERT INTO t VALUES(2)")
	wantErr(t, "keep", h.Keep(t.Context(), database), nil)
	path := filepath.Join(t.TempDir(), "restored.db")
	wantErr(t, "restore", past.Restore(t.Context(), database, 3, path), nil)
	if got := editT(t, path, "SELECT a FROM t"); got != "1 2" {
		t.Errorf("restored %q", got)
	}
}

// unconfirming is a history whose process ends between a swap and its confirmation.
type unconfirming struct{ *history.History }

func (unconfirming) Confirm(string, uint64) error { return errors.New("the process ended") }

// TestSwapThatWasNotConfirmed: the file that took the database's place is known again as what it is, and the history goes on from it.
func TestSwapThatWasNotConfirmed(t *testing.T) {
	for _, from := range []store.Beginning{store.FromPast, store.FromNothing, store.FromCopy} {
		h, past := newPast(t, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
		write := script("INSERT INTO t VALUES(2)")
		write.key = &store.Key{Scope: [32]byte{1}} // a table that a restore keeps
		h.do(write)
		wantErr(t, "keep", h.Keep(t.Context(), database), nil)
		wantErr(t, "close", h.Close(context.Background()), nil)
		h.opt.Past = unconfirming{past}
		h.start()
		err := h.Rebuild(t.Context(), database, from, nil, func(path string) error {
			if from == store.FromPast {
				os.Remove(path)
				return past.Restore(context.Background(), database, 2, path)
			}
			editT(t, path, "CREATE TABLE IF NOT EXISTS t(a)", "DELETE FROM t", "INSERT INTO t VALUES(1)")
			return nil
		})
		wantErr(t, "rebuild", err, nil)
		wantErr(t, "close", h.Close(context.Background()), nil)
		h.opt.Past = past
		h.start()
		h.must("INSERT INTO t VALUES(3)")
		wantErr(t, "keep", h.Keep(t.Context(), database), nil)
		head, err := past.Head(database)
		wantErr(t, "head", err, nil)
		path := filepath.Join(t.TempDir(), "restored.db")
		if err := past.Restore(t.Context(), database, head.Position, path); err != nil {
			t.Fatal(err)
		}
		if got := editT(t, path, "SELECT a FROM t"); got != "1 3" {
			t.Errorf("from %d: at %d the history has %q, want 1 3", from, head.Position, got)
		}
	}
}

// TestBoundaryInAGroup: what ran before in the same group is before the boundary, and can be restored there.
func TestBoundaryInAGroup(t *testing.T) {
	h, past := newPast(t, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	var before uint64
	destroys := hooked(func(_ int, tx *store.Tx) (err error) {
		before, err = tx.Boundary()
		return err
	}, "DELETE FROM t")
	first, last := script("INSERT INTO t VALUES(2)"), script("INSERT INTO t VALUES(3)")
	h.group(first, destroys, last)
	for _, j := range []*job{first, destroys, last} {
		wantErr(t, "a job of the group", j.err, nil)
	}
	if got := h.rows("SELECT a FROM t"); got != "3" {
		t.Fatalf("rows %q: the jobs ran in another order", got)
	}
	wantErr(t, "keep", h.Keep(t.Context(), database), nil)
	path := filepath.Join(t.TempDir(), "restored.db")
	wantErr(t, "restore", past.Restore(t.Context(), database, before, path), nil)
	if got := editT(t, path, "SELECT a FROM t"); got != "1 2" {
		t.Errorf("at the boundary, position %d: %q, want 1 2", before, got)
	}
	// One alone needs no other run.
	if destroys = hooked(func(int, *store.Tx) error { return nil }, "DELETE FROM t"); h.do(destroys).runs != 1 {
		t.Errorf("%d runs", destroys.runs)
	}
}
