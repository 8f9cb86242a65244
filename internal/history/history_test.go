package history_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
)

const id = "db_abcdefghijklmnopqrstuvwxyz"

// live is a database that is written, with its history and what it was after each commit.
type live struct {
	t    *testing.T
	path string
	conn *sqlite.Conn
	h    *history.History
	root string

	head  history.Head
	times []int64
	seen  uint64
	now   int64
	was   map[uint64]string // the content at each position
	bytes map[uint64][32]byte
	at    map[uint64]int64 // its time
}

func newLive(t *testing.T) *live {
	t.Helper()
	l := &live{t: t, path: filepath.Join(t.TempDir(), "t.db"), root: t.TempDir(), now: 1_000_000, was: map[uint64]string{}, bytes: map[uint64][32]byte{}, at: map[uint64]int64{}}
	if err := os.WriteFile(l.path, sqlite.EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.h, err = history.New(history.Options{Root: l.root}); err != nil {
		t.Fatal(err)
	}
	l.open()
	l.was[0] = l.content(l.path)
	t.Cleanup(func() { l.conn.Close() })
	return l
}

func (l *live) open() {
	th := sqlite.NewThread()
	c, err := sqlite.Open(sqlite.Config{Path: l.path}, th)
	if err != nil {
		l.t.Fatal(err)
	}
	l.conn, l.seen = c, c.Commits()
	l.t.Cleanup(th.Close)
}

func (l *live) position() uint64 { return l.head.Position + uint64(len(l.times)) }

// exec runs statements in one transaction.
func (l *live) exec(statements ...string) {
	l.t.Helper()
	if len(statements) > 1 {
		statements = append(append([]string{"BEGIN"}, statements...), "COMMIT")
	}
	for _, sql := range statements {
		run := func() error { return l.conn.Exec(sql) }
		if sql == "VACUUM" {
			err := l.conn.AllowVacuum(run)
			if err != nil {
				l.t.Fatal(sql, err)
			}
			continue
		}
		if err := run(); err != nil {
			l.t.Fatal(sql, err)
		}
	}
	l.now += 7
	for ; l.seen < l.conn.Commits(); l.seen++ {
		l.times = append(l.times, l.now)
		l.at[l.position()] = l.now
		l.was[l.position()] = l.contentNow()
		l.bytes[l.position()] = l.image()
	}
}

// image is a checksum of what a copy of the file would be now, the log copied back.
func (l *live) image() [32]byte {
	l.t.Helper()
	file, err := os.ReadFile(l.path)
	if err != nil {
		l.t.Fatal(err)
	}
	log, err := os.Open(l.path + "-wal")
	if err != nil {
		l.t.Fatal(err)
	}
	defer log.Close()
	w, err := sqlite.NewWALReader(log)
	if err != nil {
		l.t.Fatal(err)
	}
	for {
		frames, err := w.Next()
		if err == io.EOF {
			return sha256.Sum256(file)
		}
		if err != nil {
			l.t.Fatal(err)
		}
		for _, f := range frames {
			end := int(f.Page) * sqlite.PageSize
			if end > len(file) {
				file = append(file, make([]byte, end-len(file))...)
			}
			copy(file[end-sqlite.PageSize:], f.Data)
			if f.Commit > 0 {
				file = file[:min(len(file), int(f.Commit)*sqlite.PageSize)]
			}
		}
	}
}

// dump is what a connection sees.
func dump(c *sqlite.Conn) (string, error) {
	var b strings.Builder
	var names []string
	if err := c.EachRow("SELECT name, sql FROM sqlite_schema WHERE type='table' ORDER BY 1", func(s *sqlite.Stmt) error {
		names = append(names, string(s.Column(0).Bytes))
		fmt.Fprintf(&b, "%s\n", s.Column(1).Bytes)
		return nil
	}); err != nil {
		return "", err
	}
	for _, n := range names {
		if err := c.EachRow("SELECT count(*), coalesce(sum(length(b)), 0), coalesce(sum(a), 0), coalesce(max(b), '') FROM "+n, func(s *sqlite.Stmt) error {
			fmt.Fprintf(&b, "%s %d %d %d %.40s\n", n, s.Column(0).Int, s.Column(1).Int, s.Column(2).Int, s.Column(3).Bytes)
			return nil
		}); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func (l *live) contentNow() string {
	s, err := dump(l.conn)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// content is what a file holds, which must be sound.
func (l *live) content(path string) string {
	l.t.Helper()
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.OpenInspection(path, th)
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close()
	if problems, err := c.Examine(true); err != nil || len(problems) > 0 {
		l.t.Fatalf("%s: %v %v", path, problems, err)
	}
	s, err := dump(c)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *live) keep() { l.t.Helper(); l.keepAs(true) }

func (l *live) keepAs(durable bool) {
	l.t.Helper()
	log, err := os.Open(l.path + "-wal")
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		l.t.Fatal(err)
	}
	defer log.Close()
	end, err := l.conn.LogSize()
	if err != nil {
		l.t.Fatal(err)
	}
	if l.head, err = l.h.Append(id, l.head, log, end, l.times, durable); err != nil {
		l.t.Fatal(err)
	}
	l.times = nil
}

func (l *live) checkpoint(m sqlite.CheckpointMode) {
	l.t.Helper()
	l.keep()
	if err := l.conn.Checkpoint(m); err != nil {
		l.t.Fatal(err)
	}
}

// base keeps the file as it is now.
func (l *live) base() {
	l.t.Helper()
	l.checkpoint(sqlite.CheckpointTruncate)
	f, err := os.Open(l.path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if err := l.h.AddBase(context.Background(), id, l.position(), l.now, f, false); err != nil {
		l.t.Fatal(err)
	}
}

// crash opens the database anew as after kill -9.
func (l *live) crash() {
	l.t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(l.path + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			l.t.Fatal(err)
		}
		if err := os.WriteFile(l.path+"x"+suffix, b, 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	l.conn.Close()
	times := l.times
	for _, suffix := range []string{"-wal", ""} {
		os.Remove(l.path + suffix)
		if err := os.Rename(l.path+"x"+suffix, l.path+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.t.Fatal(err)
		}
	}
	l.open()
	head, err := l.h.Head(id)
	if err != nil || head != l.head {
		l.t.Fatalf("head %+v, %v, want %+v", head, err, l.head)
	}
	n := 0
	if log, err := os.Open(l.path + "-wal"); err == nil {
		if n, _, err = l.h.Pending(log, head); err != nil {
			l.t.Fatal(err)
		}
		log.Close()
	}
	if n != len(times) {
		l.t.Fatalf("%d commits pending, want %d", n, len(times))
	}
}

func (l *live) restore(at uint64) (string, error) {
	path := filepath.Join(l.t.TempDir(), "restored.db")
	if err := l.h.Restore(context.Background(), id, at, path); err != nil {
		if _, serr := os.Stat(path); serr == nil {
			l.t.Errorf("a file is left of a restore that failed: %v", err)
		}
		return "", err
	}
	if want, ok := l.bytes[at]; ok {
		b, err := os.ReadFile(path)
		if err != nil {
			l.t.Fatal(err)
		}
		if sha256.Sum256(b) != want {
			l.t.Errorf("position %d: the bytes are not those of a copy", at)
		}
	}
	return l.content(path), nil
}

func TestEveryPositionIsThere(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLive(t)
			r := rand.New(rand.NewPCG(seed, 1))
			l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
			for i := range 120 {
				switch n := r.IntN(20); n {
				case 0:
					l.exec(fmt.Sprintf("CREATE TABLE t%d(a INTEGER PRIMARY KEY, b)", i+1))
				case 1:
					l.exec("VACUUM")
				case 2:
					l.exec("DELETE FROM t0 WHERE a % 3 = 0")
				case 3:
					l.checkpoint(sqlite.CheckpointPassive)
				case 4:
					l.checkpoint(sqlite.CheckpointTruncate)
				case 5:
					l.keep()
				case 6:
					l.crash()
				case 7:
					if seed > 1 {
						l.base()
					}
				case 8:
					l.exec("DELETE FROM t0", "INSERT INTO t0(b) VALUES('small')")
				default:
					l.exec(fmt.Sprintf("INSERT INTO t0(b) VALUES(zeroblob(%d))", r.IntN(20000)), fmt.Sprintf("UPDATE t0 SET b = 'row %d' WHERE a = %d", i, r.IntN(20)))
				}
			}
			l.keep()
			for at := uint64(0); at <= l.position(); at++ {
				got, err := l.restore(at)
				if err != nil {
					t.Fatalf("position %d of %d: %v", at, l.position(), err)
				}
				if got != l.was[at] {
					t.Fatalf("position %d of %d:\n%s\nwant\n%s", at, l.position(), got, l.was[at])
				}
			}
			if _, err := l.restore(l.position() + 1); !gap(err) {
				t.Errorf("a moment that has not come: %v", err)
			}
			// A time is the last commit at or before it.
			for at := uint64(1); at <= l.position(); at++ {
				for ms, want := range map[int64]uint64{l.at[at]: at, l.at[at] - 1: at - 1, l.at[at] + 3: at} {
					if got, err := l.h.At(id, ms); err != nil || l.was[got] != l.was[want] || got < want {
						t.Fatalf("time %d: position %d, %v, want %d", ms, got, err, want)
					}
				}
			}
			if got, err := l.h.At(id, 5); err != nil || got != 0 {
				t.Errorf("before the first: %d, %v", got, err)
			}
			if span, err := l.h.Span(id); err != nil || span.First != 0 || span.Last != l.position() || span.LastTime != l.at[l.position()] {
				t.Errorf("span %+v, %v", span, err)
			}
		})
	}
}

func gap(err error) bool {
	var g *history.GapError
	return errors.As(err, &g)
}

func files(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	if err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// What is damaged is never restored as something else.
func TestDamageIsNoDatabase(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	for i := range 40 {
		l.exec(fmt.Sprintf("INSERT INTO t0(b) VALUES('row %d ' || hex(zeroblob(%d)))", i, 100*i))
		if i%7 == 0 {
			l.checkpoint(sqlite.CheckpointTruncate)
		}
		if i == 20 {
			l.base()
			l.now += 1000
			if _, err := l.h.Prune(t.Context(), id, history.Policy{ExactSince: l.now, Pins: []uint64{5, 9, 14}}); err != nil {
				t.Fatal(err)
			}
		}
		if i == 25 || i == 33 {
			l.base()
		}
	}
	l.keep()
	r := rand.New(rand.NewPCG(3, 3))
	refused, right := 0, 0
	if list := files(t, l.root); !slices.ContainsFunc(list, func(f string) bool { return strings.HasSuffix(f, ".pages") }) {
		t.Fatal(list)
	}
	for range 400 {
		list := files(t, l.root)
		path := list[r.IntN(len(list))]
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		broken := slices.Clone(whole)
		switch r.IntN(4) {
		case 0:
			broken = broken[:r.IntN(len(broken))]
		case 1:
			broken = append(broken, byte(r.Uint32()))
		default:
			broken[r.IntN(len(broken))] ^= byte(1 + r.IntN(255))
		}
		if r.IntN(20) == 0 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		// A process that didn't write it.
		var err2 error
		if l.h, err2 = history.New(history.Options{Root: l.root}); err2 != nil {
			t.Fatal(err2)
		}
		at := r.Uint64N(l.position() + 1)
		got, err := l.restore(at)
		switch {
		case err != nil && !gap(err):
			t.Fatalf("position %d with %s damaged: %v", at, path, err)
		case err != nil:
			refused++
		case got != l.was[at]:
			t.Fatalf("position %d with %s damaged: something else was restored", at, path)
		default:
			right++
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if refused < 50 || right < 50 {
		t.Errorf("%d refused, %d right: the damage is too weak, or too strong", refused, right)
	}
}

// A record that a crash tore is written again.
func TestTornRecord(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	l.exec("INSERT INTO t0(b) VALUES('first')")
	l.keep()
	head := l.head
	l.exec("INSERT INTO t0(b) VALUES('second')")
	l.keep()
	path := files(t, l.root)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := len(whole) - 1; cut > len(whole)-4200; cut -= 97 {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := l.h.Head(id)
		if err != nil || got.Position != head.Position {
			t.Fatalf("cut at %d: head %+v, %v", cut, got, err)
		}
		l.head, l.times = got, []int64{l.now}
		l.keep()
		if again, err := os.ReadFile(path); err != nil || len(again) != len(whole) {
			t.Fatalf("cut at %d: %d bytes, want %d", cut, len(again), len(whole))
		}
		if got, err := l.restore(3); err != nil || got != l.was[3] {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

// A file that takes the database's place counts when it has, also if nobody lived to say so.
func TestPendingBase(t *testing.T) {
	for _, swapped := range []bool{false, true} {
		l := newLive(t)
		l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
		l.checkpoint(sqlite.CheckpointTruncate)
		other := newLive(t)
		other.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)", "INSERT INTO t0(b) VALUES('other')")
		other.checkpoint(sqlite.CheckpointTruncate)
		from, err := os.Open(other.path)
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		at := l.position() + 1
		if err := l.h.AddBase(t.Context(), id, at, l.now+1, from, true); err != nil {
			t.Fatal(err)
		}
		if _, err := l.restore(at); !gap(err) {
			t.Errorf("a pending base was restored: %v", err)
		}
		live := from
		if !swapped {
			if live, err = os.Open(l.path); err != nil {
				t.Fatal(err)
			}
			defer live.Close()
		}
		if err := l.h.Settle(id, live); err != nil {
			t.Fatal(err)
		}
		head, err := l.h.Head(id)
		want := at - 1
		if swapped {
			want = at
		}
		if err != nil || head.Position != want {
			t.Errorf("swapped %v: head %+v, %v", swapped, head, err)
		}
		if swapped {
			if got, err := l.restore(at); err != nil || got != other.contentNow() {
				t.Errorf("restored %q, %v", got, err)
			}
		}
		for _, f := range files(t, l.root) {
			if strings.Contains(f, ".pending") {
				t.Errorf("%s is left", f)
			}
		}
	}
}

// A file may become what it was. That a power loss tore the base which said so must be noticed all the same.
func TestPendingBaseThatIsTorn(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	l.checkpoint(sqlite.CheckpointTruncate)
	same, err := os.Open(l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	at := l.position()
	if err := l.h.AddBase(t.Context(), id, at+1, l.now, same, true); err != nil {
		t.Fatal(err)
	}
	for _, path := range files(t, l.root) {
		if strings.HasSuffix(path, ".pending") {
			damage(t, path, 5000)
		}
	}
	if err := l.h.Settle(id, same); err != nil {
		t.Fatal(err)
	}
	if head, err := l.h.Head(id); err != nil || head.Position != at {
		t.Errorf("head %+v, %v, want position %d", head, err, at)
	}
}

// damage changes a byte.
func damage(t *testing.T, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPrune(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	for i := range 30 {
		l.exec(fmt.Sprintf("INSERT INTO t0(b) VALUES('%d')", i))
		if i%10 == 9 {
			l.base()
		}
	}
	l.keep()
	before, err := l.h.Usage(id)
	if err != nil {
		t.Fatal(err)
	}
	if freed, err := l.h.Prune(t.Context(), id, history.Policy{KeepSince: l.at[5]}); err != nil || freed != 0 {
		t.Errorf("%d freed, %v: that moment is still to be had", freed, err)
	}
	freed, err := l.h.Prune(t.Context(), id, history.Policy{KeepSince: l.at[25]})
	if err != nil || freed <= 0 {
		t.Fatalf("%d freed, %v", freed, err)
	}
	if after, err := l.h.Usage(id); err != nil || after != before-freed {
		t.Errorf("usage %d, %v, was %d, freed %d", after, err, before, freed)
	}
	for at := uint64(0); at <= l.position(); at++ {
		got, err := l.restore(at)
		if at >= 21 && (err != nil || got != l.was[at]) || at < 21 && err == nil && got != l.was[at] {
			t.Errorf("position %d: %v", at, err)
		}
	}
	var g *history.GapError
	if _, err := l.restore(3); !errors.As(err, &g) || !g.HasAfter {
		t.Errorf("a moment that is gone: %v", err)
	}
	if err := l.h.Forget(id); err != nil {
		t.Fatal(err)
	}
	if list := files(t, l.root); len(list) > 0 {
		t.Errorf("left: %v", list)
	}
}

func TestClock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	c, err := history.OpenClock(path)
	if err != nil {
		t.Fatal(err)
	}
	for p := uint64(1); p <= 5; p++ {
		if err := c.Note(id, p, int64(100+p)); err != nil {
			t.Fatal(err)
		}
		if err := c.Note(id+"x", p, int64(200+p)); err != nil {
			t.Fatal(err)
		}
	}
	// Killed, and the last note torn.
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b[:len(b)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err = history.OpenClock(path); err != nil {
		t.Fatal(err)
	}
	if got := c.Times(id, 2); !slices.Equal(got, []int64{103, 104, 105}) {
		t.Errorf("times %v", got)
	}
	if got := c.Times(id+"x", 0); !slices.Equal(got, []int64{201, 202, 203, 204}) {
		t.Errorf("times %v", got)
	}
	if got := c.Times(id, 2); got != nil {
		t.Errorf("twice: %v", got)
	}
	for p := range uint64(600_000) { // two turns
		if err := c.Note(id, p+1, int64(p)); err != nil {
			t.Fatal(err)
		}
	}
	if c, err = history.OpenClock(path); err != nil {
		t.Fatal(err)
	}
	if got := c.Times(id, 599_990); len(got) != 10 || got[9] != 599_999 {
		t.Errorf("times %v", got)
	}
	if err := c.Close(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("a clean end leaves times")
	}
}

func TestBookmark(t *testing.T) {
	last := ""
	for _, p := range []uint64{0, 1, 9, 10, 255, 1 << 40} {
		b := history.Bookmark(id, p)
		if got, err := history.ParseBookmark(id, b); err != nil || got != p || b <= last {
			t.Errorf("%s: %d, %v", b, got, err)
		}
		if _, err := history.ParseBookmark(id+"x", b); err == nil {
			t.Errorf("%s is another database's", b)
		}
		last = b
	}
	for _, bad := range []string{"", "x", last + "0", strings.ToUpper(last), last[:16], strings.Replace(last, "0", "1", 1)} {
		if _, err := history.ParseBookmark(id, bad); !errors.Is(err, history.ErrBookmark) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
