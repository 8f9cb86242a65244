package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/feed"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

const (
	laneHouses    = 15
	laneTurns     = 12
	laneInserts   = 200
	laneListeners = 100
	laneQuietBar  = 1.03
	laneBar       = 1.15
)

// laneKinds are what is compared: the first is what the others stand beside.
var laneKinds = []struct {
	feed      bool
	listeners int
}{{false, 0}, {true, 0}, {true, laneListeners}}

// measureLane compares the time that an insert takes of its database's lane, waiting included: with a feed that nobody listens to, and with a hundred listeners, each beside none.
// Where a database's memory lies makes a difference of 5 % between two that are alike, for as long as they are open: so there are several of each.
func measureLane(ctx context.Context, dir string) (verdicts []verdict, err error) {
	ratios := make([][]float64, len(laneKinds))
	for house := range laneHouses {
		if err := compareLanes(ctx, filepath.Join(dir, strconv.Itoa(house)), house, ratios); err != nil {
			return nil, err
		}
	}
	for i, bar := range map[int]float64{1: laneQuietBar, 2: laneBar} {
		verdicts = append(verdicts, limit([]string{1: "feed, never listened to", 2: "feed, 100 listeners"}[i], "lane's time of an insert", median(ratios[i]), bar, func(f float64) string { return fmt.Sprintf("%.2f ×", f) }))
	}
	slices.SortFunc(verdicts, func(a, b verdict) int { return strings.Compare(b.Work, a.Work) })
	return verdicts, nil
}

// compareLanes adds the ratios of a new lane of each kind.
func compareLanes(ctx context.Context, dir string, first int, ratios [][]float64) (err error) {
	lanes := make([]*lane, len(laneKinds))
	defer func() {
		for _, l := range lanes {
			if l != nil {
				l.close()
			}
		}
	}()
	for i := range lanes {
		k := (i + first) % len(lanes) // each is made first as often
		if lanes[k], err = newLane(ctx, filepath.Join(dir, strconv.Itoa(k)), laneKinds[k].feed, laneKinds[k].listeners); err != nil {
			return err
		}
	}
	for turn := range laneTurns + 1 {
		times := make([]float64, len(lanes))
		for i := range lanes {
			k := (i + turn) % len(lanes) // each is first as often
			if times[k], err = lanes[k].inserts(ctx); err != nil {
				return err
			}
		}
		for i := range lanes {
			if turn > 0 { // the first warms up
				ratios[i] = append(ratios[i], times[i]/times[0])
			}
		}
	}
	return nil
}

// lane is a database of a store in this process.
type lane struct {
	store *store.Store
	id    string
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

// newLane makes one, with listeners that take what they are told.
func newLane(ctx context.Context, dir string, listened bool, listeners int) (*lane, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	l := &lane{id: catalog.NewID("db"), stop: stop}
	hub := feed.New(feed.Options{})
	opt := store.Options{Dir: dir}
	if listened {
		opt.Feed = hub
	}
	var err error
	if l.store, err = store.New(opt); err != nil {
		stop()
		return nil, err
	}
	hub.Place(l.store)
	if err = l.store.Create(ctx, l.id); err == nil {
		_, err = l.run(ctx, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	}
	for i := 0; i < listeners && err == nil; i++ {
		var r *feed.Reader
		if r, err = hub.Join(ctx, l.id, feed.Now, false); err == nil {
			l.wg.Go(func() {
				defer r.Leave()
				for {
					list, _, news, err := r.Next(ctx)
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
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// inserts is the lane's time of some inserts, one after the other.
func (l *lane) inserts(ctx context.Context) (sum float64, err error) {
	for range laneInserts {
		took, err := l.run(ctx, "INSERT INTO t(b) VALUES('somebody')")
		if err != nil {
			return 0, err
		}
		sum += float64(took)
	}
	return sum, nil
}

func (l *lane) run(ctx context.Context, sql string) (time.Duration, error) {
	req := &store.Request{Gate: everything{}, Job: store.JobFunc(func(tx *store.Tx) error {
		st, _, err := tx.Prepare([]byte(sql))
		if err != nil {
			return err
		}
		defer st.Done()
		_, err = tx.Run(st, nil, nil)
		return err
	})}
	err := l.store.Do(ctx, l.id, req)
	return req.Stats.Wait + req.Stats.Engine, err
}

func (l *lane) close() {
	l.stop()
	l.wg.Wait()
	_ = l.store.Close(context.Background())
}

// everything is a gate that is open.
type everything struct{}

func (everything) Permit(sqlite.Access) error { return nil }
func (everything) Judge(*sqlite.Stmt) error   { return nil }
