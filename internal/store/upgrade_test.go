package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

// nextTables are a made-up next version's: each has a column more.
func nextTables() (kept, notes store.SystemTable) {
	now := store.SystemTables()
	kept, notes = now[0], now[1]
	kept.Name, notes.Name = "sqlite_persql_kept_v2", "sqlite_persql_notes_v2"
	kept.Columns = "scope BLOB NOT NULL UNIQUE, body BLOB NOT NULL, answer BLOB NOT NULL, kept_at INTEGER NOT NULL, size INTEGER AS (length(answer)), UNIQUE(kept_at, scope)"
	kept.Former = []store.FormerTable{{Name: now[0].Name, Take: "SELECT scope, body, answer, kept_at FROM " + now[0].Name}}
	notes.Columns = "tbl TEXT NOT NULL, col TEXT NOT NULL, note TEXT NOT NULL, author TEXT AS ('x'), PRIMARY KEY(tbl, col)"
	notes.Former = []store.FormerTable{{Name: now[1].Name, Take: "SELECT tbl, col, note FROM " + now[1].Name}}
	return kept, notes
}

var onceKey = store.Key{Scope: [32]byte{1}, Body: [32]byte{2}}

// furnish puts content into the system tables of this version.
func furnish(h *house, id string) {
	h.t.Helper()
	j := hooked(func(_ int, tx *store.Tx) error {
		for i := range 100 {
			if err := tx.SetNote(store.Note{Table: fmt.Sprintf("table_%d", i), Text: strings.Repeat("x", 100)}); err != nil {
				return err
			}
			if err := tx.Keep(store.Key{Scope: [32]byte{3, byte(i)}}, []byte("other")); err != nil {
				return err
			}
		}
		return tx.Keep(onceKey, []byte("answer"))
	}, "CREATE TABLE mine(a)", "INSERT INTO mine VALUES(1)")
	if h.on(id, j); j.err != nil {
		h.t.Fatal(j.err)
	}
}

// found looks at what furnish left.
func found(h *house, id string) error {
	j := hooked(func(_ int, tx *store.Tx) error {
		answer, err := tx.Kept(onceKey)
		if err != nil || string(answer) != "answer" {
			return fmt.Errorf("kept answer %q, %w", answer, err)
		}
		notes, err := tx.Notes()
		if err != nil || len(notes) != 100 || notes[0].Table != "table_0" || len(notes[0].Text) != 100 {
			return fmt.Errorf("notes %v, %w", notes, err)
		}
		return nil
	})
	h.on(id, j)
	return j.err
}

func systemTables(h *house, id string) string {
	h.t.Helper()
	j := script("SELECT group_concat(name, ' ') FROM (SELECT name FROM sqlite_schema WHERE type='table' AND name LIKE 'sqlite_persql%' ORDER BY name)")
	if h.on(id, j); j.err != nil {
		h.t.Fatal(j.err)
	}
	return strings.ReplaceAll(j.results[0].rows, "sqlite_persql_", "")
}

// next is the house as a newer version opens it.
func (h *house) next() *house {
	h.t.Helper()
	if err := h.Close(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	h.start()
	h.Know(nextTables())
	return h
}

// A newer version takes over what a file holds when it first needs it, and an older one leaves such a file alone.
func TestSystemTablesOfAnotherVersion(t *testing.T) {
	const other = "db_untouched"
	h := newHouse(t, store.Options{})
	h.create(other)
	furnish(h, database)
	furnish(h, other)
	if got := systemTables(h, database); got != "kept_v1 notes_v1" {
		t.Fatalf("system tables %s", got)
	}
	h.next()
	h.must("SELECT * FROM mine") // needs none of them
	if got := systemTables(h, database); got != "kept_v1 notes_v1" {
		t.Errorf("system tables %s before they are needed", got)
	}

	// Taken over in a transaction that is undone, in the middle of a group: nothing happened, and the others stand.
	undone := errors.New("undone")
	before, after := script("INSERT INTO mine VALUES(2)"), script("INSERT INTO mine VALUES(3)")
	fails := hooked(func(_ int, tx *store.Tx) error {
		if _, err := tx.Notes(); err != nil {
			return err
		}
		return undone
	})
	h.group(before, fails, after)
	wantErr(t, "the request that took over", fails.err, undone)
	if got := systemTables(h, database) + ": " + h.rows("SELECT a FROM mine"); got != "kept_v1 notes_v1: 1 2 3" {
		t.Errorf("after a request that was undone: %s", got)
	}
	for range 2 {
		if err := found(h, database); err != nil {
			t.Fatal(err)
		}
		if got := systemTables(h, database); got != "kept_v2 notes_v2" {
			t.Errorf("system tables %s once they were needed", got)
		}
		h.sound()
	}
	if got := systemTables(h, other); got != "kept_v1 notes_v1" {
		t.Errorf("system tables %s of a database that nobody used", got)
	}

	h.restart() // this version again
	was := files(t, h.opt.Dir)
	for range 2 {
		err := h.do(script("INSERT INTO mine VALUES(4)")).err
		var newer *store.NewerError
		if !errors.As(err, &newer) || newer.Table != "sqlite_persql_kept_v2" || newer.Known != "sqlite_persql_kept_v1" {
			t.Errorf("an older version: %v", err)
		}
	}
	if err := found(h, other); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	now := files(t, h.opt.Dir)
	for path, content := range was {
		if strings.Contains(path, database) && !bytes.Equal(now[path], content) {
			t.Errorf("an older version wrote to %s", path)
		}
	}
}

// A table of a kind that this version has never heard of is as much a reason to leave the file alone.
func TestUnknownSystemTable(t *testing.T) {
	h := newHouse(t, store.Options{}, "CREATE TABLE mine(a)")
	kept, notes := nextTables()
	kept.Name = "sqlite_persql_journal_v1"
	kept.Former = nil
	h.restart()
	h.Know(kept, notes)
	wantErr(t, "keep", h.do(hooked(func(_ int, tx *store.Tx) error { return tx.Keep(onceKey, nil) })).err, nil)
	h.restart()
	var newer *store.NewerError
	if err := h.do(script("SELECT 1")).err; !errors.As(err, &newer) || newer.Table != "sqlite_persql_journal_v1" || newer.Known != "" {
		t.Errorf("got %v", err)
	}
}

func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			found[path], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// After a power loss at any moment of the taking over, the file holds one version or the other, whole.
func TestTakeOverSurvivesPowerLoss(t *testing.T) {
	const id = "db_takeover"
	h := newHouse(t, store.Options{})
	h.opt.Files = recorded(h.rec)
	h.next()
	h.Know(store.SystemTables()[0], store.SystemTables()[1])
	h.create(id)
	furnish(h, id)
	h.rec.Mark("furnished")
	h.next()
	if err := found(h, id); err != nil {
		t.Fatal(err)
	}
	h.rec.Mark("taken over")
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	err := h.rec.Log().Crashes(120, 5, t.TempDir(), func(c crashfs.Crash) error {
		if !slices.Contains(c.Acked, any("furnished")) {
			return nil
		}
		k := &house{t: t, opt: store.Options{Dir: c.Dir}}
		k.start()
		defer k.Close(context.Background())
		k.Know(nextTables())
		tables := systemTables(k, id)
		seen[tables]++
		if tables != "kept_v1 notes_v1" && tables != "kept_v2 notes_v2" || tables == "kept_v1 notes_v1" && slices.Contains(c.Acked, any("taken over")) {
			return fmt.Errorf("system tables %s", tables)
		}
		j := script("PRAGMA integrity_check")
		if k.on(id, j); j.err != nil || j.results[0].rows != "ok" {
			return fmt.Errorf("integrity: %v, %w", j.results, j.err)
		}
		return found(k, id)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 {
		t.Errorf("the crashes left %v: the test shows too little", seen)
	}
}
