package history_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
)

// written is a database with rows, its log not copied back.
func written(b *testing.B, rows, size int) (conn *sqlite.Conn, path string) {
	b.Helper()
	path = filepath.Join(b.TempDir(), "t.db")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		b.Fatal(err)
	}
	th := sqlite.NewThread()
	b.Cleanup(th.Close)
	conn, err := sqlite.Open(sqlite.Config{Path: path}, th)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	sql := fmt.Sprintf("WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n < %d) INSERT INTO t SELECT n, hex(randomblob(%d)) FROM s", rows, size/2)
	for _, sql := range []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, b)", sql} {
		if err := conn.Exec(sql); err != nil {
			b.Fatal(err)
		}
	}
	return conn, path
}

// BenchmarkAppend takes a log of about a thousand frames, one after the other, synced. "floor" writes and syncs as many bytes.
func BenchmarkAppend(b *testing.B) {
	conn, path := written(b, 1000, 3800)
	log, err := os.Open(path + "-wal")
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	end, err := conn.LogSize()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("history", func(b *testing.B) {
		h, err := history.New(history.Options{Root: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		var head history.Head
		b.SetBytes(end)
		for b.Loop() {
			if head, err = h.Append(id, history.Head{Position: head.Position}, log, end, []int64{1, 1}, true); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("floor", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		b.SetBytes(end)
		for b.Loop() {
			if _, err := io.Copy(f, io.NewSectionReader(log, 0, end)); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRestore restores 100 MB: from records alone, from a base with a tenth of it changed since, and from a merged file. "copy" is a plain copy.
func BenchmarkRestore(b *testing.B) {
	conn, path := written(b, 25_000, 3900)
	h, err := history.New(history.Options{Root: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	var head history.Head
	now := int64(1)
	keep := func() {
		log, err := os.Open(path + "-wal")
		if err != nil {
			b.Fatal(err)
		}
		defer log.Close()
		end, err := conn.LogSize()
		if err != nil {
			b.Fatal(err)
		}
		if head, err = h.Append(id, head, log, end, []int64{now}, true); err != nil {
			b.Fatal(err)
		}
		if err := conn.Checkpoint(sqlite.CheckpointTruncate); err != nil {
			b.Fatal(err)
		}
	}
	run := func(name string) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(100 << 20)
			for b.Loop() {
				to := filepath.Join(b.TempDir(), "r")
				if err := h.Restore(b.Context(), id, head.Position, to); err != nil {
					b.Fatal(err)
				}
				if err := os.Remove(to); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	keep()
	run("records")
	base, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer base.Close()
	if _, err := h.Prune(b.Context(), id, history.Policy{ExactSince: 1 << 40}); err != nil {
		b.Fatal(err)
	}
	run("merged")
	if err := h.AddBase(b.Context(), id, head.Position, now, base, false); err != nil {
		b.Fatal(err)
	}
	if err := conn.Exec("UPDATE t SET b = hex(randomblob(1950)) WHERE a % 10 = 0"); err != nil {
		b.Fatal(err)
	}
	keep()
	run("base")
	b.Run("copy", func(b *testing.B) {
		b.SetBytes(100 << 20)
		for b.Loop() {
			to, err := os.Create(filepath.Join(b.TempDir(), "r"))
			if err != nil {
				b.Fatal(err)
			}
			// Through memory, as a restore does it.
			if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{io.NewSectionReader(base, 0, 1<<40)}, make([]byte, 1<<20)); err != nil {
				b.Fatal(err)
			}
			if err := to.Close(); err != nil {
				b.Fatal(err)
			}
			if err := os.Remove(to.Name()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkNote(b *testing.B) {
	c, err := history.OpenClock(filepath.Join(b.TempDir(), "clock"))
	if err != nil {
		b.Fatal(err)
	}
	n := uint64(0)
	for b.Loop() {
		n++
		if err := c.Note(id, n, int64(n)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHead(b *testing.B) {
	conn, path := written(b, 100, 3800)
	log, err := os.Open(path + "-wal")
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	end, err := conn.LogSize()
	if err != nil {
		b.Fatal(err)
	}
	h, err := history.New(history.Options{Root: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := h.Append(id, history.Head{}, log, end, []int64{1, 1}, true); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := h.Head(id); err != nil {
			b.Fatal(err)
		}
	}
}
