package store_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/store"
)

// A retired database is closed, all in its file, and nothing reaches it until it is admitted.
func TestRetire(t *testing.T) {
	h := newHouse(t, store.Options{}, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	if h.logSize(database) == 0 {
		t.Fatal("the log is empty before: the test shows nothing")
	}
	key := store.Key{Scope: [32]byte{1}}
	write := script("INSERT INTO t VALUES(2)")
	write.key = &key
	if h.do(write); write.err != nil {
		t.Fatal(write.err)
	}
	// What waits runs before; the retirement is behind it.
	release := h.hold()
	waits := script("INSERT INTO t VALUES(3)")
	h.queue(waits)
	retired := make(chan error, 1)
	go func() { retired <- h.Retire(t.Context(), database) }()
	h.until("the retirement is in the queue", func() bool { return h.Waiting(database) == 2 })
	behind := h.begin(script("INSERT INTO t VALUES(4)"))
	release()
	h.wait(waits, behind)
	wantErr(t, "a request behind it", behind.err, store.ErrNotFound)
	wantErr(t, "what waited", waits.err, nil)
	wantErr(t, "retire", <-retired, nil)
	if n := h.logSize(database); n != 0 {
		t.Errorf("the log has %d bytes after the retirement", n)
	}
	for range 2 {
		wantErr(t, "a request", h.do(script("SELECT 1")).err, store.ErrNotFound)
		wantErr(t, "a copy", h.Copy(t.Context(), database, filepath.Join(t.TempDir(), "copy")), store.ErrNotFound)
		wantErr(t, "a rebuild", h.Rebuild(t.Context(), database, store.FromCopy, nil, func(string) error { return nil }), store.ErrNotFound)
		wantErr(t, "retire again", h.Retire(t.Context(), database), nil)
	}
	wantErr(t, "admit", h.Admit(t.Context(), database), nil)
	if got := h.rows("SELECT a FROM t"); got != "1 2 3" {
		t.Errorf("rows %s after it was admitted", got)
	}
	kept := hooked(func(_ int, tx *store.Tx) error {
		answer, err := tx.Kept(key)
		if string(answer) != "1" {
			t.Errorf("the kept answer is %q", answer)
		}
		return err
	})
	wantErr(t, "a kept answer", h.do(kept).err, nil)
	h.sound()

	wantErr(t, "retire", h.Retire(t.Context(), database), nil)
	wantErr(t, "delete", h.Delete(t.Context(), database), nil)
	// Of the actor that knows that it was deleted, or of one that finds no file.
	if err := h.do(script("SELECT 1")).err; !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrDamaged) {
		t.Errorf("a request after the deletion: %v", err)
	}
}

// One whose statement is stuck in the engine can't be closed at once: nothing reaches it all the same, and it closes when
// it rests.
func TestRetireStuck(t *testing.T) {
	clock := newClock()
	h := newHouse(t, store.Options{Now: clock.Now, StatementTimeout: 20 * time.Millisecond, Grace: 20 * time.Millisecond, IdleAfter: time.Second},
		"CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	stuck := h.begin(script(uninterruptible))
	h.until("the statement is given up", func() bool {
		clock.Advance(20 * time.Millisecond)
		select {
		case <-stuck.done:
			return true
		default:
			return false
		}
	})
	wantErr(t, "the statement", stuck.err, store.ErrAbandoned)
	wantErr(t, "retire", h.Retire(t.Context(), database), store.ErrStuck)
	wantErr(t, "a request", h.do(script("SELECT 1")).err, store.ErrNotFound)
	h.until("the log is copied back", func() bool {
		clock.Advance(time.Second)
		return h.logSize(database) == 0
	})
	wantErr(t, "a request", h.do(script("SELECT 1")).err, store.ErrNotFound)
	wantErr(t, "admit", h.Admit(t.Context(), database), nil)
	if got := h.rows("SELECT a FROM t"); got != "1" {
		t.Errorf("rows %s", got)
	}
}
