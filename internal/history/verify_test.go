package history_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/history"
)

// verify reads all of a history without its log.
func verify(h *history.History) ([]history.Problem, error) {
	c, err := h.Verify(context.Background(), id, nil, true)
	return c.Problems, err
}

// TestVerifyWithoutFull: what files say of themselves is looked at, and that they follow each other; not every byte.
func TestVerifyWithoutFull(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	r := rand.New(rand.NewPCG(3, 3))
	l.grow(r, 60)
	l.base()
	if _, err := l.h.Prune(t.Context(), id, history.Policy{ExactSince: l.now + 1}); err != nil {
		t.Fatal(err)
	}
	l.grow(r, 40)
	l.keep()
	l.base()
	l.grow(r, 20)
	l.keep()
	l.grow(r, 20)
	l.keep()
	look := func(full bool) history.Condition {
		t.Helper()
		h, err := history.New(history.Options{Root: l.root}) // of a process that has not looked yet
		if err != nil {
			t.Fatal(err)
		}
		c, err := h.Verify(t.Context(), id, nil, full)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, full := range []bool{false, true} {
		if c := look(full); len(c.Problems)+len(c.Unfinished) > 0 {
			t.Fatalf("full %v: %+v of a sound history", full, c)
		}
	}
	list := files(t, l.root)
	lost := func(c history.Condition) bool {
		return slices.ContainsFunc(c.Problems, func(p history.Problem) bool { return p.Last >= p.First && p.First > 0 })
	}
	firstBase := true
	for _, path := range list {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		kind := filepath.Ext(path)
		name := filepath.Base(path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for _, full := range []bool{false, true} {
			c := look(full)
			// A base that is missing is missed only where nothing else leads to what is behind it; of a history that begins later, or ended earlier, nobody
			// knows that there was more.
			if kind != ".base" && !strings.HasPrefix(name, "0000000000000001") && !lost(c) && !strings.HasPrefix(name, lastChapter(list)) {
				t.Errorf("full %v, %s is missing: %+v", full, name, c)
			}
		}
		put := func(b []byte) {
			t.Helper()
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		flip := func(at int) history.Condition {
			t.Helper()
			b := slices.Clone(whole)
			b[at] ^= 1
			put(b)
			return look(false)
		}
		heads := map[string]int{".log": 8, ".pages": len(whole) - 20, ".base": len(whole) - 10}
		if c := flip(heads[kind]); len(c.Problems) == 0 {
			t.Errorf("%s: what it says of itself is wrong: %+v", name, c)
		}
		if kind == ".base" && firstBase {
			firstBase = false
			if c := flip(len(whole) / 2); len(c.Problems) > 0 {
				t.Errorf("%s: its content was read: %+v", name, c)
			}
			if c := look(true); len(c.Problems) == 0 {
				t.Errorf("%s: its content was not read", name)
			}
		}
		put(whole)
	}
	// The last record is read whole.
	last := filepath.Join(filepath.Dir(list[0]), lastChapter(list)+".log")
	whole, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	damage(t, last, int64(len(whole))-1000)
	if c := look(false); !lost(c) {
		t.Errorf("the last record is damaged: %+v", c)
	}
	if err := os.WriteFile(last, whole[:len(whole)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	if c := look(false); len(c.Problems) > 0 || len(c.Unfinished) != 1 {
		t.Errorf("the last record is torn: %+v", c)
	}
	if err := os.WriteFile(last, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	// What a crash leaves, and what is none of ours.
	for name, foreign := range map[string]bool{"0000000000000001-0000000000000002.pages.tmp": false, "00000000000fffff.pending": false, "notes.txt": true} {
		path := filepath.Join(filepath.Dir(last), name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := look(false)
		if foreign != (len(c.Problems) == 1 && c.Problems[0].Foreign) || foreign == (len(c.Unfinished) == 1) {
			t.Errorf("%s: %+v", name, c)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func lastChapter(list []string) (last string) {
	for _, path := range list {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".log"); ok {
			last = max(last, name)
		}
	}
	return last
}
