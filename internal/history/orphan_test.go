package history_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/history"
)

// TestDropOrphans: what belongs to a database that nobody knows goes when nobody touched it for a day, and nothing else.
func TestDropOrphans(t *testing.T) {
	root := t.TempDir()
	h, err := history.New(history.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	old := now.Add(-25 * time.Hour)
	place := func(id string, at time.Time) string {
		dir := filepath.Join(root, id[len(id)-2:], id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"0000000000000001.log", "0000000000000001.pending"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range []string{filepath.Join(dir, "0000000000000001.log"), filepath.Join(dir, "0000000000000001.pending"), dir} {
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	there := func(dir string) bool {
		_, err := os.Stat(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return err == nil
	}
	known := map[string]bool{"db_known_aa": true}
	var failure error
	asked := map[string]bool{}
	k := &history.Keeper{History: h, Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)}
	dirs := map[string]string{}
	for _, id := range []string{"db_known_aa", "db_gone_aa", "db_gone_bb", "No-Id-Of-Ours"} {
		dirs[id] = place(id, old)
	}
	dirs["db_young_aa"] = place("db_young_aa", old)
	if err := os.Chtimes(filepath.Join(dirs["db_young_aa"], "0000000000000001.log"), now, now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	all := func(want ...string) {
		t.Helper()
		left := 0
		for _, id := range want {
			if !there(dirs[id]) {
				t.Errorf("%s is gone", id)
			}
		}
		for _, dir := range dirs {
			if there(dir) {
				left++
			}
		}
		if left != len(want) {
			t.Errorf("%d histories are left, want %v", left, want)
		}
	}
	everything := []string{"db_known_aa", "db_gone_aa", "db_gone_bb", "No-Id-Of-Ours", "db_young_aa"}
	k.DropOrphans(context.Background()) // nobody says what is known
	all(everything...)
	k.Known = func(id string) (bool, error) { asked[id] = true; return known[id], failure }
	failure = errors.New("the catalog can't be read")
	k.DropOrphans(context.Background())
	all(everything...)
	failure = nil
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	k.DropOrphans(ended)
	all(everything...)
	k.DropOrphans(context.Background())
	all("db_known_aa", "No-Id-Of-Ours", "db_young_aa")
	if asked["No-Id-Of-Ours"] {
		t.Error("it was asked about a name that is no id")
	}
	now = now.Add(24 * time.Hour)
	k.Exact, k.Keep, k.Pins = 1, time.Hour, func(context.Context, string) ([]uint64, error) { return nil, history.ErrLater }
	k.Sweep(context.Background()) // in time, too
	all("db_known_aa", "No-Id-Of-Ours")
}
