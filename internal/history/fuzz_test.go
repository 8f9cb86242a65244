package history_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
)

// small is a history with a merged file, a base and a chapter, and a database at each position that is there.
func small(f *testing.F) (root string, was map[uint64][]byte) {
	f.Helper()
	root = f.TempDir()
	path := filepath.Join(f.TempDir(), "t.db")
	check := func(err error) {
		if err != nil {
			f.Fatal(err)
		}
	}
	check(os.WriteFile(path, sqlite.EmptyFile(), 0o600))
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.Open(sqlite.Config{Path: path}, th)
	check(err)
	defer c.Close()
	h, err := history.New(history.Options{Root: root})
	check(err)
	var head history.Head
	for _, sql := range []string{"CREATE TABLE t(a)", "INSERT INTO t VALUES(1)", "", "INSERT INTO t VALUES(2)", "base", "INSERT INTO t VALUES(3)", ""} {
		switch sql {
		case "base":
			file, err := os.Open(path)
			check(err)
			check(h.AddBase(f.Context(), id, head.Position, head.Time, file, false))
			check(file.Close())
			_, err = h.Prune(f.Context(), id, history.Policy{ExactSince: 1 << 40})
			check(err)
		case "":
		default:
			check(c.Exec(sql))
			log, err := os.Open(path + "-wal")
			check(err)
			end, err := c.LogSize()
			check(err)
			head, err = h.Append(id, head, log, end, []int64{int64(1000 * (head.Position + 1))}, true)
			check(err)
			check(log.Close())
			check(c.Checkpoint(sqlite.CheckpointTruncate))
		}
	}
	was = map[uint64][]byte{}
	for at := uint64(0); at <= head.Position; at++ {
		to := filepath.Join(f.TempDir(), "r")
		check(h.Restore(f.Context(), id, at, to))
		was[at], err = os.ReadFile(to)
		check(err)
	}
	return root, was
}

// FuzzFiles puts any bytes in the place of a file of a history. Whatever they are, a restore is what the database was, or a gap, and nothing panics.
func FuzzFiles(f *testing.F) {
	root, was := small(f)
	var list []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	original := map[string][]byte{}
	for i, path := range list {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		original[path] = b
		f.Add(uint8(i), b)
		f.Add(uint8(i), b[:len(b)/2])
		f.Add(uint8(i), b[len(b)/3:])
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		dir := t.TempDir()
		place := list[int(which)%len(list)]
		for path, b := range original {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(dir, rel)
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				t.Fatal(err)
			}
			if path == place {
				b = data
			}
			if err := os.WriteFile(to, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		h, err := history.New(history.Options{Root: dir})
		if err != nil {
			t.Fatal(err)
		}
		for at, want := range was {
			to := filepath.Join(dir, "restored")
			err := h.Restore(t.Context(), id, at, to)
			var gap *history.GapError
			if errors.As(err, &gap) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(to)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("position %d with %s damaged: something else was restored", at, filepath.Base(place))
			}
			_ = os.Remove(to)
		}
		if _, err := verify(h); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzClock opens any bytes as commit times.
func FuzzClock(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1}, 70))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "clock")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := history.OpenClock(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Note(id, 7, 5); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(false); err != nil {
			t.Fatal(err)
		}
		if c, err = history.OpenClock(path); err != nil {
			t.Fatal(err)
		}
		if got := c.Times(id, 6); len(got) == 0 || got[0] != 5 {
			t.Fatalf("times %v", got)
		}
	})
}
