package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/store"
)

// TestPositionsBehindVacuum: VACUUM commits by itself, and what shares its turn of the lane has positions behind it.
func TestPositionsBehindVacuum(t *testing.T) {
	h, past := newPast(t, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	wantErr(t, "close", h.Close(context.Background()), nil)
	h.start() // so that VACUUM is the first that writes
	at := map[string]uint64{}
	says := func(name, sql string) *job {
		return hooked(func(_ int, tx *store.Tx) error {
			st, _, err := tx.Prepare([]byte(sql))
			if err != nil {
				return err
			}
			defer st.Done()
			_, err = tx.Run(st, nil, nil)
			at[name] = tx.Position()
			return err
		})
	}
	h.group(says("vacuum", "VACUUM"), says("second", "INSERT INTO t VALUES(2)"), says("another vacuum", "VACUUM"), says("third", "INSERT INTO t VALUES(3)"))
	wantErr(t, "keep", h.Keep(t.Context(), database), nil)
	for name, want := range map[string]int{"vacuum": 1, "second": 2, "another vacuum": 2, "third": 3} {
		if rows, err := rowsAt(past, database, at[name], filepath.Join(t.TempDir(), "r.db")); err != nil || rows != want {
			t.Errorf("%s: position %d has %d rows, %v, want %d", name, at[name], rows, err, want)
		}
	}
}

// TestRebuildLabels: the label of what was there comes with what takes its place, or not at all.
func TestRebuildLabels(t *testing.T) {
	for _, from := range []store.Beginning{store.FromPast, store.FromNothing, store.FromCopy} {
		for _, first := range []bool{true, false} { // whether the database has no snapshots yet
			h, past := newPast(t, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
			have := 0
			if !first {
				have = 1
				h.do(hooked(func(_ int, tx *store.Tx) error {
					return tx.AddSnapshot(store.Snapshot{ID: "snap_0", Label: "x", Position: 1})
				}))
			}
			last, _, err := h.Position(t.Context(), database)
			wantErr(t, "position", err, nil)
			failed := errors.New("no")
			label := store.Snapshot{ID: "snap_1", Label: "before", CreatedAt: 5, Automatic: true}
			wantErr(t, "a build that fails", h.Rebuild(t.Context(), database, from, &store.Along{Label: &label}, func(string) error { return failed }), failed)
			list, err := h.Snapshots(t.Context(), database)
			if err != nil || len(list) != have {
				t.Errorf("from %d: %v, %v after a build that failed", from, list, err)
			}
			wantErr(t, "keep", h.Keep(t.Context(), database), nil)
			err = h.Rebuild(t.Context(), database, from, &store.Along{Label: &label}, func(path string) error {
				if from == store.FromPast {
					return errors.Join(os.Remove(path), past.Restore(context.Background(), database, 2, path))
				}
				editT(t, path, "CREATE TABLE IF NOT EXISTS t(a)", "INSERT INTO t VALUES(7)")
				return nil
			})
			wantErr(t, "rebuild", err, nil)
			list, err = h.Snapshots(t.Context(), database)
			if err != nil || len(list) != have+1 || list[0] != label || label.Position != last {
				t.Errorf("from %d: %v, %v, want %v at %d", from, list, err, label, last)
			}
			if now, _, err := h.Position(t.Context(), database); err != nil || now != last+1 {
				t.Errorf("from %d: at %d, %v; it was %d", from, now, err, last)
			}
		}
	}
}

// TestRebuildSpends: a permission is used up with what it allows to replace, and by no failure.
func TestRebuildSpends(t *testing.T) {
	for _, from := range []store.Beginning{store.FromPast, store.FromNothing, store.FromCopy} {
		clock := newClock()
		h := newHouse(t, store.Options{Now: clock.Now}, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
		permit := store.Permit{ID: "a", Until: clock.Now().Add(time.Hour)}
		rebuild := func(n int, fail error) error {
			return h.Rebuild(t.Context(), database, from, &store.Along{Permit: &permit}, func(path string) error {
				editT(t, path, "CREATE TABLE IF NOT EXISTS t(a)", "DELETE FROM t", fmt.Sprint("INSERT INTO t VALUES(", n, ")"))
				return fail
			})
		}
		failed := errors.New("no")
		wantErr(t, "a build that fails", rebuild(2, failed), failed)
		if err := rebuild(3, nil); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "again", rebuild(4, nil), store.ErrSpent)
		job := store.JobFunc(func(tx *store.Tx) error { return tx.Spend(&permit) })
		wantErr(t, "a write with it", h.Do(t.Context(), database, &store.Request{Gate: open{}, Job: job}), store.ErrSpent)
		h.restart()
		wantErr(t, "after a restart", rebuild(5, nil), store.ErrSpent)
		h.must("INSERT INTO t VALUES(6)") // what was refused froze nothing
		if got := h.rows("SELECT a FROM t ORDER BY a"); got != "3 6" {
			t.Errorf("from %d: rows %s, want 3 6", from, got)
		}
	}
}

// TestOldSnapshotsGo: automatic ones go when they are older than the history, and the first of too many; those that somebody made never.
func TestOldSnapshotsGo(t *testing.T) {
	h, _ := newPast(t, "CREATE TABLE t(a)")
	wantErr(t, "close", h.Close(context.Background()), nil)
	h.opt.PastFor = time.Hour
	h.start()
	add := func(n int, at int64, automatic bool) error {
		j := hooked(func(_ int, tx *store.Tx) error {
			return tx.AddSnapshot(store.Snapshot{ID: fmt.Sprint("snap_", n), Label: "x", CreatedAt: at, Automatic: automatic})
		})
		return h.do(j).err
	}
	const hour = 3_600_000
	wantErr(t, "by hand", add(0, 1, false), nil)
	wantErr(t, "automatic", add(1, 2, true), nil)
	wantErr(t, "in time", add(2, hour+2, true), nil)
	ids := func() (text string) {
		list, err := h.Snapshots(t.Context(), database)
		wantErr(t, "list", err, nil)
		for _, n := range list {
			text += n.ID + " "
		}
		return text
	}
	if got := ids(); got != "snap_2 snap_1 snap_0 " {
		t.Error(got)
	}
	wantErr(t, "too late", add(3, hour+3, true), nil)
	if got := ids(); got != "snap_3 snap_2 snap_0 " {
		t.Error(got)
	}
}
