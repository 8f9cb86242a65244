package feed

import (
	"context"
	"fmt"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

type all struct{}

func (all) Permit(sqlite.Access) error { return nil }
func (all) Judge(*sqlite.Stmt) error   { return nil }

// kept is a Feed that keeps what it is told.
type kept struct{ list []*store.Batch }

func (k *kept) Committed(_ string, b *store.Batch) { k.list = append(k.list, b) }
func (k *kept) Broken(string)                      {}

// Who has heard all isn't behind for what comes at once, though the ring is too small for it; one that doesn't take it before the next comes is.
func TestWhatComesAtOnceIsTold(t *testing.T) {
	const database = "db_abcdefgh"
	k := &kept{}
	s, err := store.New(store.Options{Dir: t.TempDir(), Feed: k})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	if err := s.Create(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	h := New(Options{Placement: s, RingBytes: 4 << 10})
	quiet := &topic{database: database, much: 1 << 30, quit: make(chan struct{})} // without a pump
	h.topics[database] = quiet
	prompt, err := h.Join(t.Context(), database, Now, false)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := h.Join(t.Context(), database, Now, false)
	if err != nil {
		t.Fatal(err)
	}
	write := func(sql string) {
		t.Helper()
		if err := s.Do(t.Context(), database, &store.Request{Gate: all{}, Job: store.JobFunc(func(tx *store.Tx) error {
			st, _, err := tx.Prepare([]byte(sql))
			if err != nil {
				return err
			}
			defer st.Done()
			_, err = tx.Run(st, nil, nil)
			return err
		})}); err != nil {
			t.Fatal(err)
		}
	}
	write("CREATE TABLE t(a INTEGER PRIMARY KEY)")
	for round := range 3 {
		for i := range 200 {
			write(fmt.Sprintf("INSERT INTO t VALUES(%d)", 1000*round+i))
		}
		sent := len(k.list)
		for _, b := range k.list {
			quiet.put(b)
		}
		k.list = nil
		h.round(quiet, 2)
		heard := 0
		for heard < sent {
			list, resync, _, err := prompt.Next(t.Context())
			if err != nil || resync || len(list) == 0 {
				t.Fatalf("round %d: %d of %d commits, resync %v, %v", round, heard, sent, resync, err)
			}
			heard += len(list)
		}
	}
	if _, _, _, err := slow.Next(t.Context()); err != ErrBehind {
		t.Errorf("one that takes nothing: %v", err)
	}
}
