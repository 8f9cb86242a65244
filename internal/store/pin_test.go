package store_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/store"
)

func newHistory(t *testing.T) *history.History {
	t.Helper()
	p, err := history.New(history.Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A pinned file is the database at its position, whatever is written meanwhile; a retired one can be pinned too.
func TestPin(t *testing.T) {
	past := newHistory(t)
	h := newHouse(t, store.Options{Past: past, Clock: times{}}, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	for round := range 3 {
		if round == 2 {
			wantErr(t, "retire", h.Retire(t.Context(), database), nil)
		}
		p, unpin, err := h.Pin(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		if round < 2 {
			h.must("INSERT INTO t VALUES(2)")
		}
		got, err := io.ReadAll(p)
		unpin()
		if want := uint64(2 + min(round, 2)); err != nil || !p.Kept || p.Position != want || p.Time == 0 {
			t.Errorf("round %d: position %d, kept %v, time %d, want position %d: %v", round, p.Position, p.Kept, p.Time, want, err)
		}
		path := filepath.Join(t.TempDir(), "past.db")
		if err := past.Restore(t.Context(), database, p.Position, path); err != nil {
			t.Fatal(err)
		}
		if string(got) != string(readFile(t, path)) {
			t.Errorf("round %d: the file is not what the history has at its position", round)
		}
	}
	wantErr(t, "a request to the retired one", h.do(script("SELECT 1")).err, store.ErrNotFound)
	wantErr(t, "admit", h.Admit(t.Context(), database), nil)
	if got := h.rows("SELECT count(*) FROM t"); got != "3" {
		t.Errorf("%s rows", got)
	}
	_, _, err := h.Pin(t.Context(), dbName(7))
	wantErr(t, "one whose file is missing", err, store.ErrDamaged)
}

// What was committed last before a database was retired is in its history: without that its positions would be used twice.
func TestRetireKeepsHistory(t *testing.T) {
	for _, pinned := range []bool{false, true} {
		past := newHistory(t)
		h := newHouse(t, store.Options{Past: past, Clock: times{}}, "CREATE TABLE t(a)")
		if pinned {
			_, unpin, err := h.Pin(t.Context(), database)
			if err != nil {
				t.Fatal(err)
			}
			defer unpin()
		}
		h.must("INSERT INTO t VALUES(1)")
		wantErr(t, "retire", h.Retire(t.Context(), database), nil)
		head, err := past.Head(database)
		if err != nil || head.Position != 2 {
			t.Errorf("pinned %v: the history ends at %d, want 2: %v", pinned, head.Position, err)
		}
		if err := past.Restore(t.Context(), database, 2, filepath.Join(t.TempDir(), "past.db")); err != nil {
			t.Error(err)
		}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
