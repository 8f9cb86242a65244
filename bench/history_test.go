package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/datadir"
)

func TestIsDoubtful(t *testing.T) {
	keeps := []keeping{{"a", 0.9}, {"b", 0.8}}
	for _, c := range []struct {
		a, b float64
		want bool
	}{{1, 1, false}, {0.92, 1, true}, {0.88, 1, true}, {1, 0.76, true}, {1, 0.5, true}, {0.5, 1, true}, {0.96, 0.86, false}} {
		rivals := [][]round{rounds(3, sample{Rate: 100}, sample{Rate: 100 * c.a}), rounds(3, sample{Rate: 100}, sample{Rate: 100 * c.b})}
		if got := isDoubtful(keeps, rivals); got != c.want {
			t.Errorf("isDoubtful of %v and %v = %v", c.a, c.b, got)
		}
	}
}

func TestTurns(t *testing.T) {
	first := map[int]int{}
	for i := range 3 {
		first[turns(3, i)[0]]++
	}
	if len(first) != 3 {
		t.Errorf("first in three rounds of three: %v", first)
	}
}

func TestHistoryWorks(t *testing.T) {
	if n := len(historyWorks()); n != 3 {
		t.Errorf("%d works with and without history, want 3: a name changed", n)
	}
}

func TestParseMetrics(t *testing.T) {
	m := parseMetrics([]byte("# HELP a b\na 1.5\nb{c=\"d\"} 2\ne x\nf 3e2\n"))
	if len(m) != 2 || m["a"] != 1.5 || m["f"] != 300 {
		t.Errorf("%v", m)
	}
}

func TestLargestFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(datadir.Layout(dir).Databases(), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := largestFile(dir); !errors.Is(err, errNoDatabase) {
		t.Errorf("without one: %v", err)
	}
	for name, n := range map[string]int{"a.db": 3, "b.db": 5, "c.db-wal": 9} {
		if err := os.WriteFile(filepath.Join(datadir.Layout(dir).Databases(), name), make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if path, n, err := largestFile(dir); err != nil || n != 5 || filepath.Base(path) != "b.db" {
		t.Errorf("%s, %d, %v", path, n, err)
	}
}

// TestLife makes a short history, which the pages changed must be in.
func TestLife(t *testing.T) {
	changed, before, merged, err := liveAndMerge(t.Context(), time.Second, 600)
	if err != nil {
		t.Fatal(err)
	}
	if changed < 4096*(diskRows+600) || before < changed || merged >= before {
		t.Errorf("%.0f bytes changed, %.0f kept, %.0f merged", changed, before, merged)
	}
}
