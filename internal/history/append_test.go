package history_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
)

// Where a crash took times, the last one that is known stands; more times than commits are a mistake.
func TestTimesOfCommits(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	l.exec("INSERT INTO t0(b) VALUES('first')")
	l.keep()
	l.exec("INSERT INTO t0(b) VALUES('second')")
	l.exec("INSERT INTO t0(b) VALUES('third')")
	log, err := os.Open(l.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	end, err := l.conn.LogSize()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.h.Append(id, l.head, log, end, []int64{l.now, l.now, l.now}, true); err == nil || !strings.Contains(err.Error(), "3 times for 2 transactions") {
		t.Errorf("got %v", err)
	}
	if head, err := l.h.Head(id); err != nil || head != l.head {
		t.Errorf("head %+v, %v, want %+v", head, err, l.head)
	}
	// None are known: they were committed after the last that is.
	head, err := l.h.Append(id, l.head, log, end, nil, true)
	if err != nil || head.Position != 4 || head.Time != l.head.Time {
		t.Fatalf("head %+v, %v", head, err)
	}
	if again, err := l.h.Append(id, head, log, end, nil, true); err != nil || again != head {
		t.Errorf("nothing new: %+v, %v", again, err)
	}
	if got, err := l.restore(3); err != nil || got != l.was[3] {
		t.Errorf("position 3: %v", err)
	}
	if at, err := l.h.At(id, head.Time); err != nil || at != 4 {
		t.Errorf("position %d, %v", at, err)
	}
}

// A damaged base at the end of the history takes nothing else along: neither the head nor what was before it.
func TestDamagedBaseAtTheEnd(t *testing.T) {
	for _, what := range []string{"trailer", "content", "empty"} {
		t.Run(what, func(t *testing.T) {
			l := newLive(t)
			l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
			l.base()
			l.exec("INSERT INTO t0(b) VALUES('row')")
			l.base()
			list := files(t, l.root)
			last := ""
			for _, f := range list {
				if strings.HasSuffix(f, ".base") {
					last = f
				}
			}
			fi, err := os.Stat(last)
			if err != nil {
				t.Fatal(err)
			}
			switch what {
			case "trailer":
				damage(t, last, fi.Size()-40)
			case "content":
				damage(t, last, 5000)
			case "empty":
				if err := os.Truncate(last, 0); err != nil {
					t.Fatal(err)
				}
			}
			if head, err := l.h.Head(id); err != nil || head.Position != l.position() {
				t.Errorf("head %+v, %v", head, err)
			}
			if span, err := l.h.Span(id); err != nil || span.First != 0 || span.Last != l.position() {
				t.Errorf("span %+v, %v", span, err)
			}
			if at, err := l.h.At(id, l.now); err != nil || at != l.position() {
				t.Errorf("position %d, %v", at, err)
			}
			// The records lead there without it.
			if there := l.check(); len(there) != int(l.position())+1 {
				t.Errorf("only %v", there)
			}
			// And it is no beginning.
			if freed, err := l.h.Prune(t.Context(), id, history.Policy{KeepSince: l.now + 1}); err != nil {
				t.Errorf("%d freed, %v", freed, err)
			}
			if got, err := l.restore(l.position()); err != nil || got != l.was[l.position()] {
				t.Errorf("after a prune: %v", err)
			}
		})
	}
}

// A newer server's files are not touched, and named.
func TestNewerVersion(t *testing.T) {
	for _, suffix := range []string{".log", ".base", ".pages"} {
		l := newLive(t)
		l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
		l.exec(fmt.Sprintf("INSERT INTO t0(b) VALUES(zeroblob(%d))", 100_000))
		l.base()
		if suffix == ".pages" {
			if _, err := l.h.Prune(t.Context(), id, history.Policy{ExactSince: l.now + 1}); err != nil {
				t.Fatal(err)
			}
		}
		var path string
		for _, f := range files(t, l.root) {
			if strings.HasSuffix(f, suffix) {
				path = f
			}
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := 3
		if suffix == ".base" {
			at = len(b) - 40 + 3
		}
		b[at] = '3'
		if suffix == ".log" {
			binary.LittleEndian.PutUint32(b[92:], crc32.Checksum(b[:92], crc32.MakeTable(crc32.Castagnoli)))
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		problems, err := verify(l.h)
		if text := fmt.Sprint(problems, err); !strings.Contains(text, "version '3'") {
			t.Errorf("%s: %s", suffix, text)
		}
		if after, err := os.ReadFile(path); err != nil || len(after) != len(b) {
			t.Errorf("%s was changed: %v", suffix, err)
		}
	}
}

// Records are appended and moments restored while everything is merged over and over.
func TestBesideAMerge(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	l.keep()
	var kept atomic.Uint64
	kept.Store(1)
	var done atomic.Bool
	var all sync.WaitGroup
	all.Go(func() {
		for !done.Load() {
			if _, err := l.h.Prune(t.Context(), id, history.Policy{ExactSince: 1 << 50}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	restored := 0
	all.Go(func() {
		r := rand.New(rand.NewPCG(5, 5))
		path := filepath.Join(t.TempDir(), "restored.db")
		th := sqlite.NewThread()
		defer th.Close()
		for !done.Load() {
			at := 1 + r.Uint64N(kept.Load())
			if r.IntN(2) == 0 {
				at = kept.Load()
			}
			err := l.h.Restore(t.Context(), id, at, path)
			var gap *history.GapError
			if errors.As(err, &gap) && errors.Is(gap.Cause, history.ErrMerged) {
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			c, err := sqlite.OpenInspection(path, th)
			if err != nil {
				t.Error(err)
				return
			}
			rows := uint64(0)
			err = c.EachRow("SELECT count(*) FROM t0", func(s *sqlite.Stmt) error { rows = uint64(s.Column(0).Int); return nil })
			c.Close()
			if err != nil || rows != at-1 {
				t.Errorf("position %d has %d rows, %v", at, rows, err)
				return
			}
			restored++
			_ = os.Remove(path)
		}
	})
	for i := range 120 {
		l.exec("INSERT INTO t0(b) VALUES(hex(randomblob(9000)))")
		if i%3 == 0 {
			l.checkpoint(sqlite.CheckpointPassive)
			kept.Store(l.head.Position)
		}
	}
	l.keep()
	done.Store(true)
	all.Wait()
	if restored == 0 {
		t.Error("nothing was restored")
	}
	if head, err := l.h.Head(id); err != nil || head != l.head {
		t.Errorf("head %+v, %v, want %+v", head, err, l.head)
	}
	if problems, err := verify(l.h); err != nil || len(problems) > 0 {
		t.Errorf("problems %v, %v", problems, err)
	}
	if got, err := l.restore(l.position()); err != nil || got != l.was[l.position()] {
		t.Errorf("the last position: %v", err)
	}
}

func TestIdsAreNoPaths(t *testing.T) {
	h, err := history.New(history.Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "db_", "db_../../etc/passwd", "DB_ABCDEFGHIJ", "db_abc.def", "db_" + strings.Repeat("a", 80), "db_abcdef\x00"} {
		if _, err := h.Head(bad); err == nil {
			t.Errorf("%q is an id", bad)
		}
	}
}

// A flipped bit anywhere in what files say of themselves makes no other database, and no other answer to a time.
func TestEveryByteOfHeaders(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	write := func() {
		for i := range 3 {
			l.now += 40_000
			l.exec(fmt.Sprintf("INSERT INTO t0(b) VALUES('%d' || hex(zeroblob(15000)))", i))
		}
		l.keep()
	}
	write()
	if _, err := l.h.Prune(t.Context(), id, history.Policy{ExactSince: l.now + 1}); err != nil {
		t.Fatal(err)
	}
	write()
	l.base()
	write()
	kinds := map[string]bool{}
	list := files(t, l.root)
	for i, path := range list {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		kinds[filepath.Ext(path)] = true
		for at := range whole {
			if at >= 140 && at < len(whole)-220 {
				continue
			}
			broken := append([]byte{}, whole...)
			broken[at] ^= 1 << (at % 8)
			if err := os.WriteFile(path, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			h, err := history.New(history.Options{Root: l.root})
			if err != nil {
				t.Fatal(err)
			}
			l.h = h
			for _, position := range []uint64{3, 6, l.position()} {
				if got, err := l.restoreBytes(position); err != nil && !gap(err) || err == nil && got != l.bytes[position] {
					t.Fatalf("%s, byte %d, position %d: %v", filepath.Base(path), at, position, err)
				}
			}
			if i == len(list)-1 {
				continue // its torn end is the business of Head.Torn
			}
			for _, position := range []uint64{3, 6} {
				if got, err := h.At(id, l.at[position]+5); err != nil && !gap(err) || err == nil && got != position {
					t.Fatalf("%s, byte %d: time of %d is position %d, %v", filepath.Base(path), at, position, got, err)
				}
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(kinds) != 3 {
		t.Errorf("only %v", kinds)
	}
}

// restoreBytes is a checksum of what is restored.
func (l *live) restoreBytes(at uint64) (sum [32]byte, err error) {
	path := filepath.Join(l.root, "restored.db")
	defer os.Remove(path)
	if err := l.h.Restore(l.t.Context(), id, at, path); err != nil {
		return sum, err
	}
	b, err := os.ReadFile(path)
	return sha256.Sum256(b), err
}

// A record that says less than its frames hold would give positions behind it another's content.
func TestRecordThatCountsWrong(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	l.exec("INSERT INTO t0(b) VALUES('first')")
	l.exec("INSERT INTO t0(b) VALUES('second')")
	l.keep()
	path := files(t, l.root)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	le := binary.LittleEndian
	const header, trailer = 96, 16
	le.PutUint32(b[16:], 2) // of three
	le.PutUint32(b[header-4:], crc32.Checksum(b[:header-4], table))
	b = append(b[:len(b)-trailer-8], b[len(b)-trailer:]...)
	times := b[len(b)-trailer-16 : len(b)-trailer]
	le.PutUint32(b[len(b)-trailer:], crc32.Checksum(times, table))
	le.PutUint64(b[len(b)-8:], uint64(len(b)))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if l.h, err = history.New(history.Options{Root: l.root}); err != nil {
		t.Fatal(err)
	}
	if problems, err := verify(l.h); err != nil || len(problems) == 0 || !strings.Contains(fmt.Sprint(problems), "more than 2 transactions") {
		t.Errorf("problems %v, %v", problems, err)
	}
	if _, err := l.restore(2); !gap(err) {
		t.Errorf("position 2: %v", err)
	}
}

// A damaged merged file at the end of the history is torn, as a record is: what it had is not passed over in silence.
func TestDamagedMergedFileAtTheEnd(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	l.exec("INSERT INTO t0(b) VALUES(zeroblob(90000))")
	l.keep()
	if _, err := l.h.Prune(t.Context(), id, history.Policy{ExactSince: l.now + 1}); err != nil {
		t.Fatal(err)
	}
	path := files(t, l.root)[0]
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	damage(t, path, fi.Size()-10)
	head, err := l.h.Head(id)
	if err != nil || head.Torn != 2 || head.Position != 0 {
		t.Fatalf("head %+v, %v", head, err)
	}
	// The log still has it.
	log, err := os.Open(l.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	n, end, err := l.h.Pending(log, head)
	if err != nil || n != 2 {
		t.Fatalf("%d commits pending, %v", n, err)
	}
	if err := l.h.DropTorn(id); err != nil {
		t.Fatal(err)
	}
	if head, err = l.h.Head(id); err != nil || head.Torn != 0 {
		t.Fatalf("head %+v, %v", head, err)
	}
	if _, err := l.h.Append(id, head, log, end, []int64{l.now, l.now}, true); err != nil {
		t.Fatal(err)
	}
	if got, err := l.restore(2); err != nil || got != l.was[2] {
		t.Errorf("position 2: %v", err)
	}
}

// atWarning does something when something is logged.
type atWarning struct {
	slog.Handler
	do func()
}

func (a atWarning) Enabled(context.Context, slog.Level) bool { return true }

func (a atWarning) Handle(context.Context, slog.Record) error {
	a.do()
	return nil
}

// A record that is appended between the look at a chapter and its end stays: that chapter isn't merged yet. The warning of a damaged file comes then.
func TestRecordBetweenLookAndMerge(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	l.exec("INSERT INTO t0(b) VALUES(zeroblob(90000))")
	l.keep()
	p := history.Policy{ExactSince: 1 << 50}
	if _, err := l.h.Prune(t.Context(), id, p); err != nil {
		t.Fatal(err)
	}
	path := files(t, l.root)[0]
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	l.base()
	l.exec("INSERT INTO t0(b) VALUES(zeroblob(90000))")
	l.keep()
	damage(t, path, fi.Size()-10)
	appended := 0
	if l.h, err = history.New(history.Options{Root: l.root, Logger: slog.New(atWarning{slog.DiscardHandler, func() {
		if appended++; appended == 1 {
			l.exec("INSERT INTO t0(b) VALUES('between')")
			l.keep()
		}
	}})}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.h.Prune(t.Context(), id, p); err != nil {
		t.Fatal(err)
	}
	if appended == 0 {
		t.Fatal("nothing was appended")
	}
	if head, err := l.h.Head(id); err != nil || head.Position != l.position() {
		t.Errorf("head %+v, %v, want position %d", head, err, l.position())
	}
	if got, err := l.restore(l.position()); err != nil || got != l.was[l.position()] {
		t.Errorf("the last position: %v", err)
	}
}

// A chapter that is old and not small ends, so that it can be merged while the database is written to.
func TestChapterEndsByItsAge(t *testing.T) {
	l := newLive(t)
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	for _, step := range []struct {
		bytes, hours int
		want         int // chapters
	}{{10_000, 7, 1}, {2 << 20, 0, 1}, {10_000, 5, 1}, {10_000, 7, 2}, {10_000, 7, 2}} {
		l.now += int64(step.hours) * 3_600_000
		l.exec(fmt.Sprintf("INSERT INTO t0(b) VALUES(zeroblob(%d))", step.bytes))
		l.keep()
		if list := files(t, l.root); len(list) != step.want {
			t.Errorf("%+v: %d chapters", step, len(list))
		}
	}
	if there := l.check(); len(there) != int(l.position())+1 {
		t.Errorf("only %v", there)
	}
}

// counted tells which files were synced since it was last asked.
type counted struct {
	history.File
	path  string
	syncs *[]string
}

func (c counted) Sync() error {
	*c.syncs = append(*c.syncs, filepath.Base(c.path))
	return c.File.Sync()
}

// What is appended unsynced is synced when that is asked for, and before it isn't the last chapter any more; by another process too, which can't know.
func TestSync(t *testing.T) {
	l := newLive(t)
	var syncs []string
	begin := func() {
		t.Helper()
		var err error
		l.h, err = history.New(history.Options{Root: l.root, Files: history.Files{Open: func(path string, flag int, perm fs.FileMode) (history.File, error) {
			f, err := os.OpenFile(path, flag, perm)
			return counted{f, path, &syncs}, err
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	sync := func() {
		t.Helper()
		if err := l.h.Sync(id); err != nil {
			t.Fatal(err)
		}
	}
	write := func(bytes int, durable bool) func() {
		return func() {
			t.Helper()
			l.exec(fmt.Sprintf("INSERT INTO t0(b) VALUES(zeroblob(%d))", bytes))
			l.keepAs(durable)
		}
	}
	begin()
	sync() // of nothing
	l.exec("CREATE TABLE t0(a INTEGER PRIMARY KEY, b)")
	const first = "0000000000000001.log"
	for i, step := range []struct {
		do   func()
		want []string
	}{
		{write(10, false), []string{first}}, // it was made
		{write(10, false), nil},
		{write(10, false), nil},
		{sync, []string{first}},
		{sync, nil},
		{write(10, false), nil},
		{write(10, true), []string{first}},
		{sync, nil},
		{begin, nil},
		{sync, []string{first}},
		{sync, nil},
		{write(2<<20, false), nil},
		{func() { l.now += 7 * 3_600_000 }, nil},
		{write(10, false), []string{first, "0000000000000008.log"}},
		{write(10, false), nil},
		{begin, nil},
		{func() { l.now += 7 * 3_600_000 }, nil},
		{write(2<<20, false), nil},
		{func() { l.now += 7 * 3_600_000 }, nil},
		{write(10, true), []string{"0000000000000008.log", "000000000000000b.log"}},
		{sync, nil},
	} {
		syncs = nil
		if step.do(); !slices.Equal(syncs, step.want) {
			t.Errorf("step %d: synced %v, want %v", i, syncs, step.want)
		}
	}
	if there := l.check(); len(there) != int(l.position())+1 {
		t.Errorf("only %v", there)
	}
}
