package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
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

// pastLife writes to databases that keep a history, replaces them, and has bases made, on a recorded disk.
func pastLife(t *testing.T, drop string) *crashfs.Recorder {
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
	s, err := store.New(store.Options{Dir: rec.Root(), VFS: vfs, Files: recorded(rec), MaxOpen: 1, StatementTimeout: time.Minute, Past: h, Clock: times{}})
	if err != nil {
		t.Fatal(err)
	}
	house := &house{t: t, Store: s}
	var all sync.WaitGroup
	for db := range 2 {
		id := dbName(db)
		if err := s.Create(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if j := script("CREATE TABLE t(n INTEGER PRIMARY KEY, body)"); true {
			if house.on(id, j); j.err != nil {
				t.Fatal(j.err)
			}
		}
		all.Go(func() {
			for n := range 14 {
				j := script(fmt.Sprintf("INSERT INTO t VALUES(%d, randomblob(%d))", n, n*37%900))
				if house.on(id, j); j.err != nil {
					t.Error(j.err)
				}
				rec.Mark(wrote{db, 0, n})
				switch n {
				case 5:
					if err := s.Base(t.Context(), id); err != nil {
						t.Error(err)
					}
				case 9:
					if err := s.Rebuild(t.Context(), id, store.FromCopy, func(string) error { return nil }); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := rec.Verify(); err != nil {
		t.Fatal(err)
	}
	return rec
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

// The test above would notice.
func TestMissingSyncOfHistoryIsFound(t *testing.T) {
	for name, pattern := range map[string]string{"records": `history/.*\.log`, "directories": `history/\d\d.*`, "bases": `history/.*\.pending`} {
		t.Run(name, func(t *testing.T) {
			err := pastLife(t, pattern).Log().Crashes(300, 7, t.TempDir(), remembers)
			var loss *crashfs.CrashError
			if !errors.As(err, &loss) {
				t.Fatalf("got %v, want a loss", err)
			}
			t.Log(loss)
		})
	}
}
