package feed_test

import (
	"context"
	"sync"
	"testing"

	"github.com/persqld/persqld/internal/feed"
	"github.com/persqld/persqld/internal/store"
)

// What listening costs an insert: never listened to, and with a hundred listeners.
func BenchmarkInsert(b *testing.B) {
	for _, c := range []struct {
		name      string
		feed      bool
		listeners int
		rows      bool
		clients   int
	}{
		{"no feed", false, 0, false, 1}, {"never listened to", true, 0, false, 1}, {"100 listeners", true, 100, false, 1}, {"100 listeners to rows", true, 100, true, 1},
		{"64 clients, no feed", false, 0, false, 64}, {"64 clients, never listened to", true, 0, false, 64}, {"64 clients, 100 listeners", true, 100, false, 64},
	} {
		b.Run(c.name, func(b *testing.B) {
			hub := feed.New(feed.Options{RingBytes: 64 << 20})
			opt := store.Options{Dir: b.TempDir()}
			if c.feed {
				opt.Feed = hub
			}
			s, err := store.New(opt)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close(context.Background())
			hub.Place(s)
			if err := s.Create(b.Context(), database); err != nil {
				b.Fatal(err)
			}
			r := &rig{s, hub, b}
			r.must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			for range c.listeners {
				reader := r.join(feed.Now, c.rows)
				wg.Go(func() {
					for {
						list, _, news, err := reader.Next(ctx)
						if err != nil {
							return
						}
						if len(list) == 0 {
							select {
							case <-news:
							case <-ctx.Done():
								return
							}
						}
					}
				})
			}
			var lane, n int64
			var mu sync.Mutex
			b.SetParallelism(c.clients)
			insert := func() {
				req := &store.Request{Gate: open{}, Job: store.JobFunc(func(tx *store.Tx) error {
					st, _, err := tx.Prepare([]byte("INSERT INTO t(b) VALUES('somebody')"))
					if err != nil {
						return err
					}
					defer st.Done()
					_, err = tx.Run(st, nil, nil)
					return err
				})}
				if err := s.Do(context.Background(), database, req); err != nil {
					b.Error(err)
				}
				mu.Lock()
				lane += int64(req.Stats.Engine + req.Stats.Wait)
				n++
				mu.Unlock()
			}
			b.ResetTimer()
			if c.clients == 1 {
				for range b.N {
					insert()
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						insert()
					}
				})
			}
			b.StopTimer()
			b.ReportMetric(float64(lane)/float64(n), "lane-ns/op")
			cancel()
			wg.Wait()
		})
	}
}
