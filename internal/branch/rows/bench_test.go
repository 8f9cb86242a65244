package rows_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/branch/rows"
	"github.com/persqld/persqld/internal/store"
)

// million is a parent with a million rows, and a branch that changed ten of them.
func million(t testing.TB) *house {
	h := newHouse(t, "CREATE TABLE p(id INTEGER PRIMARY KEY)", "INSERT INTO p VALUES(1),(2),(3)", "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n UNIQUE, p REFERENCES p)",
		"WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<1000000) INSERT INTO t SELECT i, 'name of '||i, i, i%3+1 FROM n")
	h.fork()
	for i := range 5 {
		h.must(branch, fmt.Sprintf("UPDATE t SET name='x' WHERE id=%d", 100_000*i+7), fmt.Sprintf("DELETE FROM t WHERE id=%d", 100_000*i+9))
	}
	return h
}

// What a merge costs is what changed, not what is stored.
func TestMergeCostsWhatChanged(t *testing.T) {
	if testing.Short() {
		t.Skip("a million rows")
	}
	h := million(t)
	best := func(opt rows.Options) time.Duration {
		least := time.Hour
		for range 5 {
			began := time.Now()
			r, err := h.merge(opt)
			if err != nil && !errors.Is(err, rows.ErrConflict) {
				t.Fatal(err)
			}
			least = min(least, time.Since(began))
			if opt.Preview && (r.Updated != 5 || r.Deleted != 5) {
				t.Fatalf("%+v", r)
			}
		}
		return least
	}
	preview := best(rows.Options{Preview: true})
	began := time.Now()
	if r, err := h.merge(rows.Options{}); err != nil || r.Updated != 5 || r.Deleted != 5 {
		t.Fatal(r, err)
	}
	merge := time.Since(began)
	t.Logf("10 changed rows of 1,000,000: preview %v, merge %v", preview, merge)
	if limit := 30 * time.Millisecond * slow; preview > limit || merge > limit {
		t.Errorf("preview %v, merge %v: more than %v", preview, merge, limit)
	}
}

func BenchmarkMergeUndone(b *testing.B) {
	h := million(b)
	undo := errors.New("undo")
	for b.Loop() {
		var c *rows.Changes
		if err := h.do(branch, func(tx *store.Tx) (err error) { c, err = rows.Collect(tx, h.dir); return err }); err != nil {
			b.Fatal(err)
		}
		err := h.do(parent, func(tx *store.Tx) error {
			if _, err := rows.Merge(tx, c, rows.Options{Dir: h.dir}); err != nil {
				return err
			}
			return undo
		})
		c.Close()
		if err != undo {
			b.Fatal(err)
		}
	}
}
