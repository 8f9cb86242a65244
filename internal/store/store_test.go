package store_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

type open struct{}

func (open) Permit(sqlite.Access) error { return nil }
func (open) Judge(*sqlite.Stmt) error   { return nil }

func newStore(t testing.TB, opt store.Options) *store.Store {
	t.Helper()
	if opt.Dir == "" {
		opt.Dir = t.TempDir()
	}
	s, err := store.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

// do runs SQL on a database and returns its rows as strings.
func do(t testing.TB, s *store.Store, db, sql string) ([]string, error) {
	t.Helper()
	var rows []string
	err := s.Do(context.Background(), db, &store.Request{Gate: open{}, Job: store.JobFunc(func(tx *store.Tx) error {
		rows = rows[:0]
		st, _, err := tx.Prepare([]byte(sql))
		if err != nil {
			return err
		}
		defer st.Done()
		_, err = tx.Run(st, nil, func(st *sqlite.Stmt) error {
			v := st.Column(0)
			if v.Kind == sqlite.Integer {
				rows = append(rows, fmt.Sprint(v.Int))
			} else {
				rows = append(rows, string(v.Bytes))
			}
			return nil
		})
		return err
	})})
	return rows, err
}

func TestWriteRead(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, store.Options{Dir: dir})
	ctx := context.Background()
	if err := s.Create(ctx, "db_abcdefgh"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"CREATE TABLE t(a)", "INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)"} {
		if _, err := do(t, s, "db_abcdefgh", sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, store.Options{Dir: dir})
	if rows, err := do(t, s, "db_abcdefgh", "SELECT a FROM t"); err != nil || len(rows) != 2 {
		t.Errorf("got %v, %v", rows, err)
	}
}
