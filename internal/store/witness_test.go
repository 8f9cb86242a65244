package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// teller is a gate that counts rows by table and kind, and may be against them.
type teller struct {
	open
	rows            map[string]int
	changed         int
	against, atLast error
}

func (w *teller) Watches() bool {
	w.rows, w.changed = map[string]int{}, 0
	return true
}
func (w *teller) Begin() {}
func (w *teller) Changing(ch *sqlite.Change) {
	w.rows[fmt.Sprint(ch.Table, " ", ch.Op)]++
}
func (w *teller) Changed(*sqlite.Stmt) error {
	w.changed++
	return w.against
}
func (w *teller) Settled() error { return w.atLast }

// tell runs statements as one request of a teller.
func (h *house) tell(database string, w *teller, sqls ...string) error {
	h.t.Helper()
	return h.Do(h.t.Context(), database, &store.Request{Gate: w, Job: store.JobFunc(func(tx *store.Tx) error {
		for _, sql := range sqls {
			s, _, err := tx.Prepare([]byte(sql))
			if err != nil {
				return err
			}
			_, err = tx.Run(s, nil, nil)
			s.Done()
			if err != nil {
				return err
			}
		}
		return nil
	})})
}

func (h *house) countOf(database, table string) (n int64) {
	h.t.Helper()
	err := h.Do(h.t.Context(), database, &store.Request{Gate: open{}, Job: store.JobFunc(func(tx *store.Tx) error {
		return tx.Query("SELECT count(*) FROM "+table, nil, func(s *sqlite.Stmt) error {
			n = s.Column(0).Int
			return nil
		})
	})})
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// A witness is told of all rows, those of a DELETE that was compiled when nobody listened too; what it is against is undone; and a recording beside it has all of it.
func TestWitness(t *testing.T) {
	h := newHouse(t, store.Options{}, "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE)", "CREATE TABLE kid(p REFERENCES t(id) ON DELETE CASCADE)",
		"INSERT INTO t VALUES(1,1),(2,2),(3,3)", "INSERT INTO kid VALUES(1),(1),(3)")
	h.fork()
	for _, where := range []string{database, forked} {
		h.on(where, script("DELETE FROM kid WHERE p = 99")) // compiled when nobody listens
		w := &teller{against: errors.New("against it")}
		if err := h.tell(where, w, "DELETE FROM t"); err == nil || err.Error() != "against it" {
			t.Errorf("%s: %v", where, err)
		}
		if n := w.rows[fmt.Sprint("t ", sqlite.Delete)]; n != 3 || w.rows[fmt.Sprint("kid ", sqlite.Delete)] != 3 {
			t.Errorf("%s: told of %v", where, w.rows)
		}
		if n := h.countOf(where, "t"); n != 3 {
			t.Errorf("%s: %d rows after what it was against", where, n)
		}
		w = &teller{atLast: errors.New("not in the end")}
		if err := h.tell(where, w, "DELETE FROM kid", "INSERT OR REPLACE INTO t VALUES(4, 1)"); err == nil || err.Error() != "not in the end" {
			t.Errorf("%s: %v", where, err)
		}
		if w.rows[fmt.Sprint("t ", sqlite.Delete)] != 1 || w.changed != 2 || h.countOf(where, "kid") != 3 {
			t.Errorf("%s: told of %v", where, w.rows)
		}
		w = &teller{}
		if err := h.tell(where, w, "DELETE FROM kid"); err != nil || h.countOf(where, "kid") != 0 || w.rows[fmt.Sprint("kid ", sqlite.Delete)] != 3 {
			t.Errorf("%s: %v, told of %v", where, err, w.rows)
		}
	}
	var recorded map[string]string
	err := h.Do(t.Context(), forked, &store.Request{Gate: open{}, Job: store.JobFunc(func(tx *store.Tx) (err error) {
		recorded, err = recordedOf(tx)
		return err
	})})
	if err != nil || len(recorded) != 3 { // the three rows of kid, and none of what was undone
		t.Errorf("recorded: %v, %v", recorded, err)
	}
}

// A permission is used once, with what is written; a failure gives it back; what nobody accepts any more is forgotten.
func TestSpend(t *testing.T) {
	clock := newClock()
	h := newHouse(t, store.Options{Now: clock.Now}, "CREATE TABLE t(a)")
	spend := func(id string, fail error) error {
		return h.Do(t.Context(), database, &store.Request{Gate: open{}, Job: store.JobFunc(func(tx *store.Tx) error {
			if err := tx.Spend(&store.Permit{ID: id, Until: clock.Now().Add(time.Hour)}); err != nil {
				return err
			}
			s, _, err := tx.Prepare([]byte("INSERT INTO t VALUES(1)"))
			if err != nil {
				return err
			}
			defer s.Done()
			if _, err := tx.Run(s, nil, nil); err != nil {
				return err
			}
			return fail
		})})
	}
	failed := errors.New("failed")
	if err := spend("a", failed); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	var ok, spent int
	var mu sync.Mutex
	var racers sync.WaitGroup
	for range 30 {
		racers.Go(func() {
			err := spend("a", nil)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				ok++
			case errors.Is(err, store.ErrSpent):
				spent++
			}
		})
	}
	racers.Wait()
	if ok != 1 || spent != 29 || h.countOf(database, "t") != 1 {
		t.Errorf("%d ran, %d were refused, %d rows", ok, spent, h.countOf(database, "t"))
	}
	h.restart()
	if err := spend("a", nil); !errors.Is(err, store.ErrSpent) {
		t.Errorf("after a restart: %v", err)
	}
	clock.Advance(2 * time.Hour)
	if err := spend("b", nil); err != nil {
		t.Fatal(err)
	}
	if n := h.countOf(database, "sqlite_persql_spent_v1"); n != 1 {
		t.Errorf("%d are remembered, want 1", n)
	}
}
