package history_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
)

// remembered makes the history's work on files part of a recording.
func remembered(rec *crashfs.Recorder) history.Files {
	return history.Files{
		Open: func(path string, flag int, perm fs.FileMode) (history.File, error) {
			return rec.OpenFile(path, flag, perm)
		},
		SyncDir: rec.SyncDir,
		Mkdir:   func(dir string) error { return rec.Mkdir(dir, 0o700) },
		Remove:  rec.Remove,
		Rename:  rec.Rename,
	}
}

// recordedLife appends, makes bases, merges and drops on a recorded disk, on which syncs of what drop names do nothing. The database itself is on
// another one: its log is gone after each loss, so that everything that was acknowledged must be in the history.
func recordedLife(t *testing.T, drop string) (rec *crashfs.Recorder, l *live, p history.Policy, stay []uint64) {
	t.Helper()
	rec, err := crashfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if drop != "" {
		rec.DropSyncs(drop)
	}
	l = newLive(t)
	l.root = rec.Root()
	if l.h, err = history.New(history.Options{Root: l.root, Files: remembered(rec)}); err != nil {
		t.Fatal(err)
	}
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	r := rand.New(rand.NewPCG(4, 4))
	for round := range 6 {
		for range 10 {
			l.now += int64(r.IntN(15_000))
			l.exec(fmt.Sprintf("INSERT INTO t0(b) VALUES(hex(randomblob(%d)))", r.IntN(4000)), fmt.Sprintf("UPDATE t0 SET b = 'row %d' WHERE a = %d", l.position(), r.IntN(20)))
			if r.IntN(3) == 0 {
				l.checkpoint(sqlite.CheckpointTruncate)
				rec.Mark(l.head.Position)
			}
		}
		if round%2 == 0 {
			l.base()
			rec.Mark(l.position())
		}
		if round == 3 || round == 5 {
			l.keep()
			rec.Mark(l.head.Position)
			p = history.Policy{ExactSince: l.now - 30_000, Pins: []uint64{7}}
			if round == 5 {
				p.KeepSince = l.at[25]
				p.Pins = nil
			}
			if _, err := l.h.Prune(t.Context(), id, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := rec.Verify(); err != nil {
		t.Fatal(err)
	}
	return rec, l, p, l.check()
}

// stands checks what a power loss leaves: what was acknowledged and not given up, and nothing that never was.
func stands(t *testing.T, l *live, p history.Policy, stay []uint64) func(crashfs.Crash) error {
	return func(c crashfs.Crash) error {
		var acked uint64
		for _, a := range c.Acked {
			acked = a.(uint64)
		}
		h, err := history.New(history.Options{Root: c.Dir})
		if err != nil {
			return err
		}
		head, err := h.Head(id)
		if err != nil {
			return err
		}
		if head.Position < acked {
			return fmt.Errorf("the history ends at %d, %d was acknowledged", head.Position, acked)
		}
		for _, pruned := range []bool{false, true} { // what the next prune makes of it stands, too
			for at := uint64(0); at <= max(acked, head.Position); at++ {
				path := filepath.Join(c.Dir, "restored.db")
				err := h.Restore(t.Context(), id, at, path)
				var gap *history.GapError
				switch {
				case errors.As(err, &gap):
					// Which moments stay hangs on what was merged together; how far apart they are doesn't.
					if slices.Contains(stay, at) && at <= acked && !pruned {
						return err
					}
					if pruned && at <= acked && at > 0 && l.at[at] >= p.KeepSince && (gap.Before < at && l.at[at]-l.at[gap.Before] > 30_000 || !gap.HasAfter) {
						return err
					}
				case err != nil:
					return err
				case l.content(path) != l.was[at]:
					return fmt.Errorf("position %d is something else", at)
				}
				_ = os.Remove(path)
			}
			if _, err := h.Prune(t.Context(), id, p); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestPowerLoss(t *testing.T) {
	rec, l, p, stay := recordedLife(t, "")
	if err := rec.Log().Crashes(30, 11, t.TempDir(), stands(t, l, p, stay)); err != nil {
		t.Fatal(err)
	}
}

// recordedMerge is the recording of a merge, and little else.
func recordedMerge(t *testing.T, drop string) (*crashfs.Recorder, *live, history.Policy) {
	t.Helper()
	rec, err := crashfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := newLive(t)
	l.root = rec.Root()
	if l.h, err = history.New(history.Options{Root: l.root, Files: remembered(rec)}); err != nil {
		t.Fatal(err)
	}
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	l.exec("INSERT INTO t0(b) VALUES(zeroblob(90000))")
	l.keep()
	rec.Mark(l.head.Position)
	if drop != "" {
		rec.DropSyncs(drop)
	}
	p := history.Policy{ExactSince: l.now + 1}
	if _, err := l.h.Prune(t.Context(), id, p); err != nil {
		t.Fatal(err)
	}
	return rec, l, p
}

// Power is lost around a merge alone: what it stands for doesn't go before its own name is durable.
func TestPowerLossInAMerge(t *testing.T) {
	rec, l, p := recordedMerge(t, "")
	if err := rec.Log().Crashes(200, 3, t.TempDir(), stands(t, l, p, []uint64{2})); err != nil {
		t.Fatal(err)
	}
}

// The test above would notice if the merged file were not synced.
func TestMissingSyncOfAMergeIsFound(t *testing.T) {
	rec, l, p := recordedMerge(t, `.*\.tmp`)
	err := rec.Log().Crashes(200, 3, t.TempDir(), stands(t, l, p, []uint64{2}))
	var loss *crashfs.CrashError
	if !errors.As(err, &loss) {
		t.Fatalf("got %v, want a loss", err)
	}
	t.Log(loss)
}

// The tests above would notice if one of the syncs were missing.
func TestMissingSyncIsFound(t *testing.T) {
	for name, pattern := range map[string]string{
		"records":           `.*\.log`,
		"bases":             `.*\.pending`,
		"database's names":  `../db_[^/]*`,
		"database's parent": `..`,
		"root":              `\.`,
	} {
		t.Run(name, func(t *testing.T) {
			rec, l, p, stay := recordedLife(t, pattern)
			err := rec.Log().Crashes(400, 11, t.TempDir(), stands(t, l, p, stay))
			var loss *crashfs.CrashError
			if !errors.As(err, &loss) {
				t.Fatalf("got %v, want a loss", err)
			}
			t.Log(loss)
		})
	}
}
