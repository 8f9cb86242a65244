package querylog_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/querylog"
)

// clock is a clock that stands still until it is moved.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli())
	return c
}
func (c *clock) now() time.Time          { return time.UnixMilli(c.ms.Load()) }
func (c *clock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// begin opens a log that flushes when it is told to.
func begin(t testing.TB, path string, opts querylog.Options) *querylog.Log {
	t.Helper()
	if opts.FlushEvery == 0 {
		opts.FlushEvery = -1
	}
	l := querylog.Open(path, opts)
	t.Cleanup(func() { l.Close() })
	return l
}

func logPath(t testing.TB) string { return filepath.Join(t.TempDir(), "query-log.db") }

// add appends an entry of database d.
func add(l *querylog.Log, c *clock, d, sql string) querylog.ID {
	return l.Append(querylog.Entry{Database: d, TS: c.ms.Load(), SQL: []byte(sql), Status: "ok", TokenID: "tok_1"})
}

func read(t testing.TB, l *querylog.Log, d string, f querylog.Filter) []querylog.Row {
	t.Helper()
	rows, err := l.Read(context.Background(), d, f)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func texts(rows []querylog.Row) string {
	var s []string
	for _, r := range rows {
		s = append(s, r.SQL)
	}
	return strings.Join(s, " ")
}

func flush(t testing.TB, l *querylog.Log) {
	t.Helper()
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestEntryComesBackWhole(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true})
	e := querylog.Entry{
		Database: "db_a", TS: c.ms.Load(), SQL: []byte("SELECT 'é'"), RowsRead: 1 << 40, RowsWritten: 3, Duration: 1234567 * time.Nanosecond,
		Status: "error", Error: "no such table: x", TokenID: "tok_9",
	}
	id := l.Append(e)
	want := querylog.Row{
		ID: id, TS: e.TS, SQL: string(e.SQL), RowsRead: e.RowsRead, RowsWritten: 3, Duration: e.Duration,
		Status: e.Status, Error: e.Error, TokenID: e.TokenID,
	}
	copy(e.SQL, "xxxxxx") // the log has its own copy
	for _, when := range []string{"in memory", "in the file"} {
		if got := read(t, l, "db_a", querylog.Filter{}); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %+v, want %+v", when, got, want)
		}
		if got := read(t, l, "db_b", querylog.Filter{}); len(got) != 0 {
			t.Errorf("%s: another database sees %+v", when, got)
		}
		flush(t, l)
	}
	if id.String()[:2] != "q_" {
		t.Errorf("id: %s", id)
	}
	if back, ok := querylog.ParseID(id.String()); !ok || back != id {
		t.Errorf("parse %s: %d, %v", id, back, ok)
	}
	for _, bad := range []string{"", "q_", "q_0", "q_-1", "x_1", "q_!", "q_01", "q_Z"} {
		if _, ok := querylog.ParseID(bad); ok {
			t.Errorf("parsed %q", bad)
		}
	}
}

func TestNewestFirstAcrossFileAndMemory(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true})
	var last querylog.ID
	for i := range 9 {
		if id := add(l, c, "db_a", fmt.Sprint(i)); id <= last {
			t.Errorf("id %d after %d", id, last)
		} else {
			last = id
		}
		add(l, c, "db_b", "other")
		if i == 2 || i == 5 {
			flush(t, l)
		}
	}
	if got, want := texts(read(t, l, "db_a", querylog.Filter{})), "8 7 6 5 4 3 2 1 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFilter(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true})
	start := c.ms.Load()
	for i := range 6 {
		l.Append(querylog.Entry{Database: "d", TS: c.ms.Load(), SQL: fmt.Append(nil, i), TokenID: fmt.Sprint("tok_", i%2)})
		c.advance(time.Second)
		if i == 3 {
			flush(t, l)
		}
	}
	for _, tt := range []struct {
		f    querylog.Filter
		want string
	}{
		{querylog.Filter{}, "5 4 3 2 1 0"},
		{querylog.Filter{Limit: 3}, "5 4 3"},
		{querylog.Filter{TokenID: "tok_0"}, "4 2 0"},
		{querylog.Filter{TokenID: "tok_0", Limit: 2}, "4 2"},
		{querylog.Filter{TokenID: "tok_7"}, ""},
		{querylog.Filter{SinceMS: start + 3000}, "5 4 3"},
		{querylog.Filter{SinceMS: start + 2001, TokenID: "tok_1"}, "5 3"},
	} {
		if got := texts(read(t, l, "d", tt.f)); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.f, got, tt.want)
		}
	}
}

func TestCloseFlushesAndOpenReads(t *testing.T) {
	c, path := newClock(), logPath(t)
	l := begin(t, path, querylog.Options{Now: c.now, Text: true})
	add(l, c, "d", "a")
	first := add(l, c, "d", "b")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	add(l, c, "d", "late") // harms nobody
	if _, err := l.Read(t.Context(), "d", querylog.Filter{}); err == nil {
		t.Error("read a closed log")
	}
	c.ms.Add(-time.Hour.Milliseconds()) // ids grow even if the clock was set back
	l = begin(t, path, querylog.Options{Now: c.now, Text: true})
	if id := add(l, c, "d", "c"); id <= first {
		t.Errorf("id %d after %d", id, first)
	}
	if got := texts(read(t, l, "d", querylog.Filter{})); got != "c b a" {
		t.Errorf("got %q", got)
	}
}

func TestFlushesByItself(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, FlushEvery: time.Millisecond})
	add(l, c, "d", "a")
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for l.Stats().Flushed == 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("not flushed")
		}
	}
}

func TestTextIsCutBetweenCharacters(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true})
	for _, tt := range []struct{ sql, want string }{
		{strings.Repeat("a", 4096), strings.Repeat("a", 4096)},
		{strings.Repeat("a", 4097), strings.Repeat("a", 4096)},
		{strings.Repeat("a", 4095) + "é", strings.Repeat("a", 4095)},
		{strings.Repeat("a", 4093) + "😀b", strings.Repeat("a", 4093)},
		{strings.Repeat("a", 4092) + "😀b", strings.Repeat("a", 4092) + "😀"},
		{strings.Repeat("\x80", 5000), strings.Repeat("\x80", 4096)},
	} {
		add(l, c, "d", tt.sql)
		if got := read(t, l, "d", querylog.Filter{Limit: 1})[0].SQL; got != tt.want {
			t.Errorf("%q…: %d bytes, want %d", tt.sql[4080:], len(got), len(tt.want))
		}
	}
}

func TestTextOff(t *testing.T) {
	c, path := newClock(), logPath(t)
	l := begin(t, path, querylog.Options{Now: c.now, Text: true})
	add(l, c, "d", "old secret")
	l.Close()
	l = begin(t, path, querylog.Options{Now: c.now})
	add(l, c, "d", "new secret")
	flush(t, l)
	rows := read(t, l, "d", querylog.Filter{})
	if len(rows) != 2 || rows[0].SQL != "" || rows[1].SQL != "" {
		t.Errorf("rows: %+v", rows)
	}
	if n, err := l.Query("SELECT count(*) FROM chunk WHERE instr(body, CAST('new secret' AS BLOB))"); n != 0 || err != nil {
		t.Errorf("the text was stored: %d, %v", n, err)
	}
}

func TestRowsKept(t *testing.T) {
	const keep = 100
	for _, every := range []int{1, 7, 1000} {
		t.Run(fmt.Sprint("flush every ", every), func(t *testing.T) {
			c := newClock()
			l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true, KeepRows: keep})
			for i := range 1000 {
				add(l, c, "d", fmt.Sprint(i))
				if (i+1)%every == 0 {
					flush(t, l)
				}
			}
			rows := read(t, l, "d", querylog.Filter{Limit: 5000})
			if len(rows) != keep {
				t.Fatalf("%d rows, want %d", len(rows), keep)
			}
			for i, r := range rows {
				if r.SQL != fmt.Sprint(999-i) {
					t.Fatalf("row %d: %s", i, r.SQL)
				}
			}
			flush(t, l)
			// Whole chunks go: at most one more than is kept stays.
			if n, err := l.Query("SELECT sum(entries) FROM chunk"); err != nil || n > 2*keep {
				t.Errorf("%d entries in the file, %v", n, err)
			}
		})
	}
}

func TestSmallChunksAreMerged(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true})
	for i := range 1000 {
		add(l, c, "d", fmt.Sprint(i))
		add(l, c, "e", "other")
		flush(t, l)
		if n, err := l.Query("SELECT count(*) FROM chunk WHERE database = 'd'"); err != nil || n > 64+1000/60 {
			t.Fatalf("%d chunks, %v", n, err)
		}
	}
	rows := read(t, l, "d", querylog.Filter{Limit: 5000})
	if len(rows) != 1000 || rows[0].SQL != "999" || rows[500].SQL != "499" || rows[999].SQL != "0" {
		t.Errorf("%d rows", len(rows))
	}
}

func TestAgeKept(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true})
	add(l, c, "d", "old")
	add(l, c, "gone", "old")
	flush(t, l)
	c.advance(6 * 24 * time.Hour)
	add(l, c, "d", "new")
	if got := texts(read(t, l, "d", querylog.Filter{})); got != "new old" {
		t.Errorf("after 6 days: %q", got)
	}
	flush(t, l)
	c.advance(25 * time.Hour)
	if got := texts(read(t, l, "d", querylog.Filter{})); got != "new" {
		t.Errorf("after 7 days: %q", got)
	}
	if got := texts(read(t, l, "gone", querylog.Filter{})); got != "" {
		t.Errorf("after 7 days: %q", got)
	}
	flush(t, l) // with nothing new to write
	if n, err := l.Query("SELECT sum(entries) FROM chunk"); n != 1 || err != nil {
		t.Errorf("%d entries left in the file, %v", n, err)
	}
}

func TestFreedSpaceGoesBack(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true})
	for i := range 300 {
		add(l, c, "d", fmt.Sprint(i, strings.Repeat("x", 4000)))
	}
	flush(t, l)
	before, err := l.Query("SELECT page_count FROM pragma_page_count")
	if err != nil || before < 300 {
		t.Fatalf("%d pages, %v", before, err)
	}
	c.advance(8 * 24 * time.Hour)
	flush(t, l)
	if after, err := l.Query("SELECT page_count FROM pragma_page_count"); err != nil || after > 20 {
		t.Errorf("%d pages of %d, %v", after, before, err)
	}
}

func TestForget(t *testing.T) {
	c, path := newClock(), logPath(t)
	l := begin(t, path, querylog.Options{Now: c.now, Text: true})
	add(l, c, "d", "a")
	add(l, c, "e", "kept")
	flush(t, l)
	add(l, c, "d", "b")
	l.Forget("d")
	for _, when := range []string{"at once", "after a flush"} {
		if got := read(t, l, "d", querylog.Filter{}); len(got) != 0 {
			t.Errorf("%s: %+v", when, got)
		}
		flush(t, l)
	}
	if got := texts(read(t, l, "e", querylog.Filter{})); got != "kept" {
		t.Errorf("another database: %q", got)
	}
	if n, err := l.Query("SELECT count(*) FROM chunk WHERE database = 'd'"); n != 0 || err != nil {
		t.Errorf("%d chunks left, %v", n, err)
	}
}

func TestOverloadDropsTheOldest(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true, MaxBuffer: 4 * querylog.SegmentBytes})
	const n = 10 * querylog.SegmentRecords
	for i := range n {
		add(l, c, "d", fmt.Sprint(i))
	}
	quiet := "quiet"
	for l.SameShard("d", quiet) {
		quiet += "+"
	}
	add(l, c, quiet, "x") // whoever else has something to say still can
	rows := read(t, l, "d", querylog.Filter{Limit: n})
	if want := 4 * querylog.SegmentRecords; len(rows) != want {
		t.Errorf("%d rows, want %d", len(rows), want)
	}
	for i, r := range rows {
		if r.SQL != fmt.Sprint(n-1-i) {
			t.Fatalf("row %d: %s", i, r.SQL)
		}
	}
	if got, want := l.Stats().Dropped, uint64(6*querylog.SegmentRecords); got != want {
		t.Errorf("dropped %d, want %d", got, want)
	}
	flush(t, l)
	if got := l.Stats(); got.Flushed != 4*querylog.SegmentRecords+1 || got.Dropped != 6*querylog.SegmentRecords {
		t.Errorf("stats: %+v", got)
	}
	if got := texts(read(t, l, quiet, querylog.Filter{})); got != "x" {
		t.Errorf("quiet: %q", got)
	}
	// Texts of 4 KB fill the buffer by bytes.
	for i := range 1000 {
		add(l, c, "d", strings.Repeat("y", 4000)+fmt.Sprint(i))
	}
	flush(t, l)
	if got := l.Stats().Flushed - 4*querylog.SegmentRecords - 1; got == 0 || got*4000 > 4*querylog.SegmentBytes {
		t.Errorf("%d long entries were kept", got)
	}
}

// Sixteen writers, of one database and of others, readers and flushes side by side: no entry is lost or read twice.
func TestConcurrent(t *testing.T) {
	c := newClock()
	const writers, each = 16, 600
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true})
	var wg, readers sync.WaitGroup
	stop := make(chan struct{})
	for w := range writers {
		wg.Go(func() {
			d := fmt.Sprint("db_", w%4)
			var last querylog.ID
			for i := range each {
				id := add(l, c, d, fmt.Sprint("SELECT ", i%10))
				if id <= last {
					t.Errorf("id %d after %d", id, last)
				}
				last = id
			}
		})
	}
	for r := range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if r == 0 {
					if err := l.Flush(); err != nil {
						t.Error(err)
					}
				}
				rows, err := l.Read(context.Background(), "db_1", querylog.Filter{Limit: 10_000})
				if err != nil {
					t.Error(err)
				}
				for i := 1; i < len(rows); i++ {
					if rows[i].ID >= rows[i-1].ID {
						t.Errorf("id %d after %d", rows[i].ID, rows[i-1].ID)
					}
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	readers.Wait()
	for d := range 4 {
		if got, want := len(read(t, l, fmt.Sprint("db_", d), querylog.Filter{Limit: 10_000})), writers*each/4; got != want {
			t.Errorf("database %d: %d rows, want %d", d, got, want)
		}
	}
	if s := l.Stats(); s.Dropped != 0 || s.Failures != 0 {
		t.Errorf("stats: %+v", s)
	}
}
