package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

func key(scope, body byte) store.Key {
	return store.Key{Scope: [32]byte{scope}, Body: [32]byte{body}}
}

// once is a request with a key: it runs, or tells what was kept.
func once(k store.Key, stmts ...string) (*job, *string) {
	j := script(stmts...)
	var kept string
	j.hook = func(_ int, tx *store.Tx) error {
		j.key, j.stmts, kept = &k, stmts, ""
		answer, err := tx.Kept(k)
		if err != nil {
			return err
		}
		if answer != nil {
			kept, j.stmts, j.key = string(answer), nil, nil
		}
		return nil
	}
	return j, &kept
}

func TestRacingKeysRunOnce(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	var jobs []*job
	replayed := 0
	var kepts []*string
	for range 20 {
		j, kept := once(key(1, 1), "INSERT INTO t VALUES(1)")
		jobs, kepts = append(jobs, j), append(kepts, kept)
	}
	other, _ := once(key(1, 2), "INSERT INTO t VALUES(2)")
	h.group(append(jobs, other)...)
	for i, j := range jobs {
		wantErr(t, "request", j.err, nil)
		if *kepts[i] == "1" {
			replayed++
		}
	}
	wantErr(t, "the same key for another request", other.err, store.ErrKeyReused)
	if replayed != 19 {
		t.Errorf("%d answers were replayed, want 19", replayed)
	}
	h.restart()
	again, kept := once(key(1, 1), "INSERT INTO t VALUES(1)")
	wantErr(t, "after a restart", h.do(again).err, nil)
	if *kept != "1" {
		t.Errorf("kept %q", *kept)
	}
	if got := h.rows("SELECT a FROM t"); got != "1" {
		t.Errorf("rows %s, want 1", got)
	}
}

// A key goes with its write: undone together, also by another's fault.
func TestKeyIsUndoneWithItsWrite(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	failed, _ := once(key(1, 1), "INSERT INTO t VALUES(1)")
	hook := failed.hook
	failed.hook = func(run int, tx *store.Tx) error {
		if err := hook(run, tx); err != nil {
			return err
		}
		failed.stmts = nil
		if err := failed.statement(tx, "INSERT INTO t VALUES(1)"); err != nil {
			return err
		}
		if err := tx.Keep(key(1, 1), []byte("x")); err != nil {
			return err
		}
		return failed.statement(tx, "INSERT INTO u VALUES(1)")
	}
	good, _ := once(key(2, 1), "INSERT INTO t VALUES(2)")
	same, kept := once(key(2, 1), "INSERT INTO t VALUES(2)")
	h.group(good, failed, same, script("INSERT OR ROLLBACK INTO u VALUES(1)"))
	wantErr(t, "good", good.err, nil)
	wantErr(t, "same", same.err, nil)
	if failed.err == nil || *kept != "1" {
		t.Errorf("failed: %v; kept %q", failed.err, *kept)
	}
	if got := h.kept(key(1, 1)); got != "" {
		t.Errorf("the key of a failed write is kept: %q", got)
	}
	if got := h.kept(key(2, 1)); got != "1" {
		t.Errorf("the key of a good write: %q", got)
	}
	if got := h.rows("SELECT a FROM t"); got != "2" {
		t.Errorf("rows %s", got)
	}
}

func TestKeysExpire(t *testing.T) {
	c := newClock()
	h := newHouse(t, store.Options{Now: c.Now, KeptFor: time.Hour}, tables...)
	run := func() string {
		t.Helper()
		j, kept := once(key(1, 1), "INSERT INTO t VALUES(1)")
		wantErr(t, "request", h.do(j).err, nil)
		return *kept
	}
	if got := run(); got != "" {
		t.Fatalf("kept before: %q", got)
	}
	c.Advance(time.Hour - time.Millisecond)
	if got := run(); got != "1" {
		t.Errorf("before its time: %q", got)
	}
	c.Advance(time.Millisecond)
	if got := run(); got != "" {
		t.Errorf("at its time: %q", got)
	}
	other, _ := once(key(1, 9), "INSERT INTO t VALUES(1)")
	wantErr(t, "with another body, kept anew", h.do(other).err, store.ErrKeyReused)
	if got := h.rows("SELECT count(*) FROM t"); got != "2" {
		t.Errorf("%s rows, want 2", got)
	}
}

func TestKeysAreCapped(t *testing.T) {
	c := newClock()
	h := newHouse(t, store.Options{Now: c.Now, KeptFor: time.Hour, KeptBytes: 5000}, tables...)
	keep := func(n byte) error {
		k := key(n, 1)
		return h.do(hooked(func(_ int, tx *store.Tx) error {
			return tx.Keep(k, []byte(strings.Repeat("x", 800)))
		}, fmt.Sprintf("INSERT INTO t VALUES(%d)", n))).err
	}
	for n := range byte(5) {
		wantErr(t, "room", keep(n), nil)
		c.Advance(time.Minute)
	}
	for range 3 {
		wantErr(t, "no room", keep(5), store.ErrKeptFull)
	}
	if got := h.rows("SELECT a FROM t"); got != "0 1 2 3 4" {
		t.Errorf("rows %s: the write without room must be undone", got)
	}
	c.Advance(55 * time.Minute) // the first is over its time
	wantErr(t, "room again", keep(6), nil)
	wantErr(t, "no room again", keep(7), store.ErrKeptFull)
	h.restart()
	wantErr(t, "after a restart", keep(8), store.ErrKeptFull)
}

// Sweeps cost time, so they are rare: once a minute, once a second while there is no room.
func TestSweepsAreRare(t *testing.T) {
	c := newClock()
	h := newHouse(t, store.Options{Now: c.Now, KeptFor: 10*time.Minute + 500*time.Millisecond, KeptBytes: 3000}, tables...)
	keep := func(n byte) error {
		return h.do(hooked(func(_ int, tx *store.Tx) error { return tx.Keep(key(n, 1), make([]byte, 700)) })).err
	}
	kept := func() (n int64) {
		h.do(hooked(func(_ int, tx *store.Tx) error {
			return tx.Query("SELECT count(*) FROM sqlite_persql_kept_v1", nil, func(s *sqlite.Stmt) error { n = s.Column(0).Int; return nil })
		}))
		return n
	}
	wantErr(t, "room", keep(1), nil)
	c.Advance(9*time.Minute + 30*time.Second)
	wantErr(t, "room", keep(2), nil) // with a sweep
	c.Advance(59 * time.Second)
	wantErr(t, "room", keep(3), nil)
	if got := kept(); got != 3 {
		t.Errorf("%d are kept: there was a sweep within a minute", got)
	}
	c.Advance(time.Second)
	wantErr(t, "room", keep(4), nil)
	if got := kept(); got != 3 {
		t.Errorf("%d are kept: there was no sweep after a minute", got)
	}
	c.Advance(9 * time.Minute)
	wantErr(t, "no room", keep(5), store.ErrKeptFull) // the second one has half a second left
	c.Advance(time.Second - time.Millisecond)
	wantErr(t, "within a second", keep(5), store.ErrKeptFull)
	c.Advance(time.Millisecond)
	wantErr(t, "after a second", keep(5), nil)
}

// What was undone doesn't count.
func TestUndoneKeysTakeNoRoom(t *testing.T) {
	for name, fails := range map[string]string{"failed": "nonsense", "rolled back": "INSERT OR ROLLBACK INTO u VALUES(1)"} {
		for _, grouped := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				h := newHouse(t, unhurried(store.Options{KeptBytes: 3000}), tables...)
				keep := func(n byte, stmts ...string) *job {
					return hooked(func(_ int, tx *store.Tx) error { return tx.Keep(key(n, 1), make([]byte, 700)) }, stmts...)
				}
				wantErr(t, "room", h.do(keep(1)).err, nil)
				for range 5 {
					j := keep(2, fails)
					if grouped {
						h.group(script("INSERT INTO t VALUES(1)"), j)
					} else {
						h.do(j)
					}
					if j.err == nil || errors.Is(j.err, store.ErrKeptFull) {
						t.Errorf("the one that is undone: %v", j.err)
					}
				}
				wantErr(t, "room for two more", h.do(keep(3)).err, nil)
				wantErr(t, "room for one more", h.do(keep(4)).err, nil)
				wantErr(t, "no room", h.do(keep(5)).err, store.ErrKeptFull)
			})
		}
	}
}

// A note is undone with the request that made it.
func TestNoteIsUndoneWithItsRequest(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	note := func(text string, stmts ...string) *job {
		return hooked(func(_ int, tx *store.Tx) error { return tx.SetNote(store.Note{Table: "t", Text: text}) }, stmts...)
	}
	wantErr(t, "first", h.do(note("first")).err, nil) // the table stands
	for range 2 {
		if j := h.do(note("alone", "nonsense")); j.err == nil {
			t.Error("nonsense ran")
		}
	}
	h.group(script("INSERT INTO t VALUES(1)"), note("in a group", "nonsense"))
	var notes []store.Note
	h.do(hooked(func(_ int, tx *store.Tx) (err error) { notes, err = tx.Notes(); return err }))
	if got := fmt.Sprint(notes); got != "[{t  first}]" {
		t.Errorf("notes %s", got)
	}
}

func TestNotes(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	set := func(n store.Note) {
		t.Helper()
		wantErr(t, "note", h.do(hooked(func(_ int, tx *store.Tx) error { return tx.SetNote(n) })).err, nil)
	}
	notes := func() (got []store.Note) {
		t.Helper()
		wantErr(t, "notes", h.do(hooked(func(_ int, tx *store.Tx) (err error) { got, err = tx.Notes(); return err })).err, nil)
		return got
	}
	if got := notes(); len(got) != 0 {
		t.Errorf("notes %v", got)
	}
	set(store.Note{Table: "t", Text: "old"})
	set(store.Note{Table: "T", Text: "table"})
	set(store.Note{Table: "t", Column: "a", Text: "column"})
	set(store.Note{Text: "database"})
	h.restart()
	if got, want := fmt.Sprint(notes()), "[{  database} {T  table} {t a column}]"; got != want {
		t.Errorf("notes %s, want %s", got, want)
	}
	set(store.Note{Table: "t"})
	if got, want := fmt.Sprint(notes()), "[{  database} {t a column}]"; got != want {
		t.Errorf("notes %s, want %s", got, want)
	}
}
