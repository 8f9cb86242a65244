package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// What somebody else writes to a file while no server runs is in no moment before it, and in every one after.
func TestFileChangedOutside(t *testing.T) {
	if err := sqlite.Initialize(sqlite.Setup{}); err != nil {
		t.Fatal(err)
	}
	past, err := history.New(history.Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, opt: store.Options{Dir: t.TempDir(), Past: past, Clock: times{}}}
	h.start()
	if err := h.Create(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(h.opt.Dir, database[len(database)-2:], database+".db")
	position := func() uint64 {
		t.Helper()
		if err := h.Keep(t.Context(), database); err != nil {
			t.Fatal(err)
		}
		at, _, err := h.Position(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	again := func(meanwhile func()) {
		t.Helper()
		if err := h.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		meanwhile()
		h.start()
	}
	h.must("CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	before := position()

	again(func() {})
	h.must("INSERT INTO t VALUES(2)")
	if got := position(); got != before+1 {
		t.Fatalf("a start makes %d of position %d", got, before)
	}

	again(func() { // an archive that knows of seconds only
		if err := os.Chtimes(file, time.Time{}, time.Unix(1_700_000_000, 0)); err != nil {
			t.Fatal(err)
		}
	})
	h.must("INSERT INTO t VALUES(3)")
	if got := position(); got != before+2 {
		t.Fatalf("a copy makes %d of position %d", got, before+1)
	}

	again(func() {
		th := sqlite.NewThread()
		defer th.Close()
		c, err := sqlite.Open(sqlite.Config{Path: file}, th)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Exec("CREATE TABLE aside AS SELECT hex(randomblob(20000)) AS x")
		if err = errors.Join(err, c.Exec("INSERT INTO t VALUES(4)"), c.Checkpoint(sqlite.CheckpointTruncate), c.Close()); err != nil {
			t.Fatal(err)
		}
	})
	h.must("INSERT INTO t VALUES(5)")
	last := position()
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[uint64]int{before: 1, before + 1: 2, before + 2: 3, last - 1: 4, last: 5} {
		if rows, err := rowsAt(past, database, at, filepath.Join(t.TempDir(), fmt.Sprint(at))); err != nil || rows != want {
			t.Errorf("position %d has %d rows, %v, want %d", at, rows, err, want)
		}
	}
}
