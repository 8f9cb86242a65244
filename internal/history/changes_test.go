package history_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
)

// applied is a checksum of what a moment becomes with changes.
func (l *live) applied(c *history.Changes) [32]byte {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), "changed.db")
	if err := l.h.Restore(l.t.Context(), id, c.After, path); err != nil {
		l.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	last := uint32(0)
	err = c.Each(l.t.Context(), func(number uint32, image []byte) error {
		if number <= last || len(image) != sqlite.PageSize {
			return fmt.Errorf("page %d of %d bytes after page %d", number, len(image), last)
		}
		last = number
		_, err := f.WriteAt(image, int64(number-1)*sqlite.PageSize)
		return err
	})
	if err == nil {
		err = f.Truncate(int64(c.Pages) * sqlite.PageSize)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// Whatever stretch is asked for, its changes lead from its beginning to its end, byte by byte; also where it was merged.
func TestChanges(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLive(t)
			r := rand.New(rand.NewPCG(seed, 31))
			l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
			for range 4 {
				l.grow(r, 12)
				l.base()
			}
			l.keep()
			try := func(there []uint64) {
				for range 40 {
					i := r.IntN(len(there) - 1)
					after, upTo := there[i], there[i+1+r.IntN(len(there)-1-i)]
					c, err := l.h.Changes(t.Context(), id, after, upTo, 0)
					if err != nil {
						t.Fatalf("from %d to %d: %v", after, upTo, err)
					}
					if c.Last != upTo || c.Time != l.at[upTo] {
						t.Fatalf("from %d to %d: to %d at %d, want %d", after, upTo, c.Last, c.Time, l.at[upTo])
					}
					if got := l.applied(c); got != l.bytes[upTo] {
						t.Fatalf("from %d to %d: another database", after, upTo)
					}
					within := time.Duration(r.IntN(40_000)) * time.Millisecond
					if c, err = l.h.Changes(t.Context(), id, after, upTo, max(within, 1)); err != nil {
						continue // a moment that was merged
					}
					if got := l.applied(c); got != l.bytes[c.Last] || c.FirstTime != l.at[after+1] && after+1 == c.Last {
						t.Fatalf("from %d to %d within %s: another database", after, c.Last, within)
					}
					if c.Last > after+1 && c.Time-c.FirstTime > within.Milliseconds() {
						t.Fatalf("from %d to %d: %d ms, want at most %s", after, c.Last, c.Time-c.FirstTime, within)
					}
				}
			}
			there := func() (list []uint64) {
				for at := range l.position() + 1 {
					if _, err := l.restoreBytes(at); err == nil {
						list = append(list, at)
					}
				}
				return list
			}
			try(there())
			if _, err := l.h.Prune(t.Context(), id, history.Policy{ExactSince: l.at[l.position()/2]}); err != nil {
				t.Fatal(err)
			}
			try(there())
		})
	}
}

// Where a file took the database's place, changes end before it, and say so behind.
func TestChangesOfAReplacedDatabase(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)", "INSERT INTO t0(b) VALUES('one')")
	l.keep()
	before := l.position()
	other := newLive(t)
	other.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)", "INSERT INTO t0(b) VALUES('another')")
	other.checkpoint(sqlite.CheckpointTruncate)
	f, err := os.Open(other.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := l.h.AddBase(t.Context(), id, before+1, l.now, f, true); err != nil {
		t.Fatal(err)
	}
	if err := l.h.Confirm(id, before+1); err != nil {
		t.Fatal(err)
	}
	c, err := l.h.Changes(t.Context(), id, 0, before+1, 0)
	if err != nil || c.Last != before || l.applied(c) != l.bytes[before] {
		t.Errorf("changes before it: %+v, %v", c, err)
	}
	if _, err := l.h.Changes(t.Context(), id, before, before+1, 0); !errors.Is(err, history.ErrReplaced) {
		t.Errorf("changes over it: %v", err)
	}
}

// What is damaged is not given out, and what is behind a damaged record can be had.
func TestChangesOfADamagedChapter(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	for range 3 {
		l.exec("INSERT INTO t0(b) VALUES(hex(randomblob(3000)))")
		l.keep()
	}
	path := files(t, l.root)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[96+24+100] ^= 1 // the first record's first image
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var damage *history.DamageError
	if _, err := l.h.Changes(t.Context(), id, 0, l.position(), 0); !errors.As(err, &damage) {
		t.Errorf("changes over the damage: %v", err)
	}
	last := l.position()
	c, err := l.h.Changes(t.Context(), id, last-1, last, 0)
	if err != nil || c.Last != last || len(c.Numbers) == 0 {
		t.Errorf("changes behind it: %v", err)
	}
}
