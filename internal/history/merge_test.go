package history_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
)

// chapter ends the chapter that records go to, as its age would.
func (l *live) chapter() {
	l.t.Helper()
	l.base()
}

// grow writes numbered rows, some seconds apart.
func (l *live) grow(r *rand.Rand, n int) {
	for range n {
		l.now += int64(r.IntN(20_000))
		switch k := r.IntN(12); k {
		case 0:
			l.exec("VACUUM")
		case 1:
			l.exec("DELETE FROM t0 WHERE a % 3 = 0")
		case 2:
			l.checkpoint(sqlite.CheckpointPassive)
		case 3:
			l.checkpoint(sqlite.CheckpointTruncate)
		case 4:
			l.keep()
		case 5:
			l.crash()
		default:
			l.exec(fmt.Sprintf("INSERT INTO t0(b) VALUES(hex(randomblob(%d)))", r.IntN(9000)), fmt.Sprintf("UPDATE t0 SET b = 'row %d' WHERE a = %d", l.position(), r.IntN(20)))
		}
	}
}

// check restores every position: it is what it was, or a gap whose nearest moments are there. It returns those that are there.
func (l *live) check() (there []uint64) {
	l.t.Helper()
	nearest := map[uint64]*history.GapError{}
	for at := uint64(0); at <= l.position(); at++ {
		got, err := l.restore(at)
		var gap *history.GapError
		switch {
		case errors.As(err, &gap):
			nearest[at] = gap
		case err != nil:
			l.t.Fatalf("position %d: %v", at, err)
		case got != l.was[at]:
			l.t.Fatalf("position %d: got\n%s\nwant\n%s", at, got, l.was[at])
		default:
			there = append(there, at)
		}
	}
	all := make([]uint64, l.position()+1)
	for at := range all {
		all[at] = uint64(at)
	}
	held, err := l.h.Holds(id, all)
	if err != nil {
		l.t.Fatal(err)
	}
	for at, is := range held {
		if is != slices.Contains(there, uint64(at)) {
			l.t.Fatalf("position %d: held %v, there is %v", at, is, there)
		}
	}
	for at, gap := range nearest {
		i, _ := slices.BinarySearch(there, at)
		if i > 0 != gap.HasBefore || i > 0 && there[i-1] != gap.Before {
			l.t.Fatalf("position %d: %v; there is %v", at, gap, there)
		}
		if i < len(there) && gap.HasAfter && there[i] != gap.After {
			l.t.Fatalf("position %d: %v; there is %v", at, gap, there)
		}
		if i < len(there) && !gap.HasAfter {
			l.t.Fatalf("position %d: %v; there is %v", at, gap, there)
		}
		if gap.HasBefore && gap.Before > 0 && gap.BeforeTime != l.at[gap.Before] || gap.HasAfter && gap.AfterTime != l.at[gap.After] {
			l.t.Fatalf("position %d: times %d and %d, want %d and %d", at, gap.BeforeTime, gap.AfterTime, l.at[gap.Before], l.at[gap.After])
		}
	}
	return there
}

// apart checks that the moments that are there are near enough to each other, and that the exact ones are all there.
func (l *live) apart(there []uint64, p history.Policy) {
	l.t.Helper()
	for i := 1; i < len(there); i++ {
		a, b := there[i-1], there[i]
		if b > a+1 && l.at[b]-l.at[a] > 30_000 {
			l.t.Fatalf("%d ms between positions %d and %d", l.at[b]-l.at[a], a, b)
		}
		if b > a+1 && l.at[b-1] >= p.ExactSince {
			l.t.Fatalf("positions %d to %d are missing, though exact", a+1, b-1)
		}
	}
	if len(there) == 0 || there[len(there)-1] != l.position() {
		l.t.Fatalf("the last position is not there: %v", there)
	}
	for _, pin := range p.Pins {
		if !slices.Contains(there, pin) {
			l.t.Fatalf("pin %d is not there", pin)
		}
	}
}

func TestMergeKeepsMoments(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 9))
			l := newLive(t)
			l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
			var pins []uint64
			for range 4 {
				l.grow(r, 40)
				l.keep()
				if r.IntN(2) == 0 {
					l.chapter()
				}
				pins = append(pins, r.Uint64N(l.position()+1))
				p := history.Policy{ExactSince: l.now + 1 - int64(r.IntN(4))*100_000}
				pins = slices.DeleteFunc(pins, func(pin uint64) bool {
					_, err := l.restore(pin)
					return err != nil // it was merged away before it was a pin
				})
				p.Pins = slices.Clone(pins)
				due, err := l.h.Due(id, p)
				if err != nil {
					t.Fatal(err)
				}
				had := files(t, l.root)
				if _, err := l.h.Prune(t.Context(), id, p); err != nil {
					t.Fatal(err)
				}
				if !due && !slices.Equal(had, files(t, l.root)) {
					t.Error("nothing was due, and something was done")
				}
				if due, err := l.h.Due(id, p); err != nil || due {
					t.Errorf("what was done is due again: %v, %v", due, err)
				}
				there := l.check()
				l.apart(there, p)
				before, _ := l.h.Usage(id)
				if freed, err := l.h.Prune(t.Context(), id, p); err != nil || freed != 0 {
					t.Errorf("again: %d freed, %v", freed, err)
				}
				if after, _ := l.h.Usage(id); after != before {
					t.Errorf("again: %d bytes, before %d", after, before)
				}
				if problems, err := verify(l.h); err != nil || len(problems) > 0 {
					t.Errorf("problems %v, %v", problems, err)
				}
				for _, at := range there {
					if got, err := l.h.At(id, l.at[at]); err != nil || l.at[got] != l.at[at] {
						t.Errorf("time of %d: position %d, %v", at, got, err)
					}
				}
				span, err := l.h.Span(id)
				if err != nil || span.First != 0 || span.Last != l.position() {
					t.Errorf("span %+v, %v", span, err)
				}
				for at := span.Exact; at <= span.Last; at++ {
					if !slices.Contains(there, at) {
						t.Errorf("position %d is not there, and the span says %+v", at, span)
					}
				}
				l.crash()
			}
			var merged int
			for _, f := range files(t, l.root) {
				if strings.HasSuffix(f, ".pages") {
					merged++
				}
			}
			if merged == 0 {
				t.Error("nothing was merged")
			}
		})
	}
}

// The chapter that records go to is merged, too, when all of it is old, and records go on behind it.
func TestMergeOfTheLastChapter(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	for i := range 60 {
		l.exec(fmt.Sprintf("INSERT INTO t0(b) VALUES('%d' || hex(randomblob(500)))", i))
	}
	l.keep()
	freed, err := l.h.Prune(t.Context(), id, history.Policy{ExactSince: l.now + 1})
	if err != nil || freed <= 0 {
		t.Fatalf("%d freed, %v", freed, err)
	}
	head, err := l.h.Head(id)
	if err != nil || head != l.head {
		t.Fatalf("head %+v, %v, want %+v", head, err, l.head)
	}
	l.exec("INSERT INTO t0(b) VALUES('behind')")
	l.crash()
	l.keep()
	there := l.check()
	l.apart(there, history.Policy{ExactSince: l.now})
	if len(there) > 10 {
		t.Errorf("%d moments of half a second", len(there))
	}
}

func TestPruneTo(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	r := rand.New(rand.NewPCG(1, 1))
	for range 5 {
		l.grow(r, 40)
		l.base()
	}
	policy := func(string) (history.Policy, error) { return history.Policy{}, nil }
	used, err := l.h.UsageAll()
	if err != nil {
		t.Fatal(err)
	}
	all := len(l.check())
	for range 40 {
		bound := used * 3 / 4
		freed, left, err := l.h.PruneTo(t.Context(), bound, nil, policy, nil)
		if err != nil {
			t.Fatal(err)
		}
		now, err := l.h.UsageAll()
		if err != nil || now != used-freed || now > bound+left {
			t.Fatalf("%d bytes, %v: were %d, %d freed, %d left over %d", now, err, used, freed, left, bound)
		}
		there := l.check()
		if len(there) == 0 || there[len(there)-1] != l.position() {
			t.Fatalf("the last position is not there: %v", there)
		}
		used, all = now, len(there)
		if left > 0 {
			break
		}
	}
	if all > 3 {
		t.Errorf("%d moments are left", all)
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	r := rand.New(rand.NewPCG(2, 2))
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
	if problems, err := verify(l.h); err != nil || len(problems) > 0 {
		t.Fatalf("problems %v, %v", problems, err)
	}
	kinds := map[string]bool{}
	list := files(t, l.root)
	for i, path := range list {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 12 {
			damage(t, path, int64(r.IntN(len(whole))))
			problems, err := verify(l.h)
			// The end of the last chapter may be torn: that is what a crash leaves, if the log has it.
			last := strings.HasSuffix(path, ".log") && !slices.ContainsFunc(list[i+1:], func(f string) bool { return strings.HasSuffix(f, ".log") })
			if err != nil || len(problems) == 0 && !last {
				t.Fatalf("%s: problems %v, %v", path, problems, err)
			}
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		kinds[filepath.Ext(path)] = true
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		problems, err := verify(l.h)
		t.Log(filepath.Base(path), problems, err)
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(kinds) != 3 {
		t.Errorf("only %v", kinds)
	}
}

// The keeper merges, and stays below the bound of size: where there is no later base to begin with, it has one made.
func TestKeeperHoldsTheBound(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	for range 200 {
		l.exec("INSERT INTO t0(b) VALUES(hex(randomblob(2000)))", "DELETE FROM t0 WHERE a < (SELECT max(a) FROM t0) - 5")
		l.now += 40_000
	}
	l.keep()
	based := 0
	const bound = 200_000
	k := &history.Keeper{History: l.h, Keep: 1000 * time.Hour, Exact: time.Hour, Max: bound, Every: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.UnixMilli(l.now) }, Size: func(string) int64 { return 50_000 },
		Pins: func(context.Context, string) ([]uint64, error) { return nil, nil },
		Base: func(context.Context, string) error { based++; l.base(); return nil }}
	k.Tend(t.Context(), id)
	before, err := l.h.UsageAll()
	if err != nil || before <= bound {
		t.Fatalf("%d bytes, %v: too few to test with", before, err)
	}
	k.Bound(t.Context())
	after, err := l.h.UsageAll()
	if err != nil || after > bound || based != 1 {
		t.Errorf("%d bytes, %v, %d bases made", after, err, based)
	}
	if got, err := l.restore(l.position()); err != nil || got != l.was[l.position()] {
		t.Errorf("the last position: %v", err)
	}
	if problems, err := verify(l.h); err != nil || len(problems) > 0 {
		t.Errorf("problems %v, %v", problems, err)
	}
}

// What a crash leaves between a merge and the removal of what was merged is read as one, goes on, and is cleaned away.
func TestLeftoversOfAMerge(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	for i := range 40 {
		l.now += 10_000
		l.exec(fmt.Sprintf("INSERT INTO t0(b) VALUES('%d' || hex(randomblob(3000)))", i))
	}
	l.keep()
	chapter := files(t, l.root)[0]
	whole, err := os.ReadFile(chapter)
	if err != nil {
		t.Fatal(err)
	}
	p := history.Policy{ExactSince: l.now + 1}
	if _, err := l.h.Prune(t.Context(), id, p); err != nil {
		t.Fatal(err)
	}
	merged := len(l.check())
	for path, b := range map[string][]byte{chapter: whole, filepath.Join(filepath.Dir(chapter), "0000000000000001-0000000000000005.pages.tmp"): whole[:100]} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if l.h, err = history.New(history.Options{Root: l.root}); err != nil {
		t.Fatal(err)
	}
	if problems, err := verify(l.h); err != nil || len(problems) > 0 {
		t.Errorf("problems %v, %v", problems, err)
	}
	l.crash()
	l.exec("INSERT INTO t0(b) VALUES('behind')")
	l.keep()
	if there := l.check(); len(there) != int(l.position())+1 {
		t.Errorf("only %v", there)
	}
	if _, err := l.h.Prune(t.Context(), id, p); err != nil {
		t.Fatal(err)
	}
	if there := l.check(); len(there) != merged+1 {
		t.Errorf("there is %v", there)
	}
	if list := files(t, l.root); len(list) != 2 {
		t.Errorf("left: %v", list)
	}
}
