package querylog_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/querylog"
)

func entry(d, i int) querylog.Entry {
	return querylog.Entry{
		Database: databases[d%len(databases)], TS: 1_700_000_000_000 + int64(i), SQL: statements[i%len(statements)],
		RowsRead: 1, Duration: 12345, Status: "ok", TokenID: "tok_6h3k2j5h4g2k3j4h5g2k3j4h5g",
	}
}

var (
	statements = [][]byte{
		[]byte("SELECT id, email, name FROM users WHERE id = ?"),
		[]byte("INSERT INTO orders(user_id, total, note) VALUES(?, ?, ?)"),
		[]byte("SELECT * FROM orders WHERE user_id = ? ORDER BY created_at DESC LIMIT 20"),
	}
	databases = func() (d []string) {
		for i := range 16 {
			d = append(d, fmt.Sprintf("db_%026d", i))
		}
		return d
	}()
)

// BenchmarkAppend is what a statement's lane pays, with the flushes that its entries cause in the time and allocations.
func BenchmarkAppend(b *testing.B) {
	for _, bb := range []struct {
		name            string
		writers, spread int
	}{{"1 writer", 1, 1}, {"16 writers of 16 databases", 16, 16}, {"16 writers of 1 database", 16, 1}} {
		b.Run(bb.name, func(b *testing.B) {
			l := begin(b, logPath(b), querylog.Options{Text: true, FlushEvery: time.Second})
			b.ReportAllocs()
			if bb.writers == 1 {
				for i := 0; b.Loop(); i++ {
					l.Append(entry(0, i))
				}
			} else {
				var writer atomic.Int64
				b.SetParallelism(bb.writers / runtime.GOMAXPROCS(0))
				b.RunParallel(func(pb *testing.PB) {
					d := int(writer.Add(1)) % bb.spread
					for i := 0; pb.Next(); i++ {
						l.Append(entry(d, i))
					}
				})
			}
			b.ReportMetric(float64(l.Stats().Dropped)/float64(b.N), "dropped/op")
		})
	}
}

// BenchmarkFlush is a second of 30,000 statements of 16 databases.
func BenchmarkFlush(b *testing.B) {
	l := begin(b, logPath(b), querylog.Options{Text: true})
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i := range 30_000 {
			l.Append(entry(i, i))
		}
		b.StartTimer()
		if err := l.Flush(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead is the newest 100 and all 10,000 entries of a database.
func BenchmarkRead(b *testing.B) {
	l := begin(b, logPath(b), querylog.Options{Text: true, Now: func() time.Time { return time.UnixMilli(1_700_000_000_000) }})
	for i := range 10_000 {
		l.Append(entry(0, i))
		if i%500 == 0 {
			l.Flush()
		}
	}
	for _, limit := range []int{100, 10_000} {
		b.Run(fmt.Sprint(limit), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if rows, err := l.Read(context.Background(), databases[0], querylog.Filter{Limit: limit}); err != nil || len(rows) != limit {
					b.Fatal(len(rows), err)
				}
			}
		})
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true, MaxBuffer: 4 * querylog.SegmentBytes})
	entries := []querylog.Entry{entry(0, 0), entry(1, 1), entry(2, 2)}
	for i := range 10_000 { // until the buffer is full and segments go round
		l.Append(entries[i%3])
	}
	if n := testing.AllocsPerRun(5000, func() {
		for _, e := range entries {
			l.Append(e)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
