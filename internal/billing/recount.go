package billing

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/store"
)

// recountMargin is how much earlier than the last writing of counts a file may have been written to whose counts are missing: clocks of file systems are coarse,
// and a writing takes a while.
const recountMargin = time.Minute

// recountWorkers is how many databases are asked at the same time.
const recountWorkers = 8

// recountPatience is how long a start waits for databases that an earlier process wrote to at its end. The rest is asked while the server runs.
const recountPatience = 20 * time.Second

// Files tells of databases' files without opening them.
type Files interface {
	// Modified is when a database's files were last written to; zero if it has none.
	Modified(database string) time.Time
}

// Recount asks databases for their counts that the last process may have written and not told of: after a stop in order none. It comes back when that is done
// or has taken long; done is closed when it is.
func (b *Books) Recount(ctx context.Context, owner store.Placement, files Files) (done <-chan struct{}, err error) {
	finished := make(chan struct{})
	kept, there := b.cat.Setting(catalog.UsageKeptAt)
	if !there || kept == "" {
		// From here on what is counted may be missing until it is kept. A full disk stops no start: the first counts that are kept say the same.
		err := b.cat.SetSetting(ctx, catalog.UsageKeptAt, strconv.FormatInt(b.opt.Now().UnixMilli(), 10))
		if err != nil && !errors.Is(err, catalog.ErrDiskFull) {
			return nil, err
		}
		b.unmarked.Store(err != nil)
		close(finished)
		return finished, nil
	}
	ms, err := strconv.ParseInt(kept, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("the catalog's setting %s is %q", catalog.UsageKeptAt, kept)
	}
	owed := time.UnixMilli(ms)
	b.owed.Store(&owed)
	since := owed.Add(-recountMargin)
	if b.opt.Restored {
		since = time.Time{}
	}
	// First those that will soon be gone.
	ids, err := b.cat.CondemnedIDs(ctx)
	if err != nil {
		return nil, err
	}
	ids = append(ids, b.cat.DatabaseIDs()...)
	work := make(chan string)
	var group sync.WaitGroup
	for range recountWorkers {
		group.Go(func() {
			for id := range work {
				b.recountOne(ctx, owner, id)
			}
		})
	}
	go func() {
		defer close(finished)
		for _, id := range ids {
			if ctx.Err() == nil && files.Modified(id).After(since) {
				work <- id
			}
		}
		close(work)
		group.Wait()
		if ctx.Err() == nil {
			b.owed.Store(nil) // the next writing has what was told
		}
	}()
	select {
	case <-finished:
		err := b.Flush(ctx)
		if errors.Is(err, catalog.ErrDiskFull) { // which stops no start; the next writing tries again
			b.log.Error("keep usage: it is tried again", "error", err)
			err = nil
		}
		return finished, err
	case <-time.After(recountPatience):
		b.log.Warn("databases are asked what they counted before the last stop; usage and balances lack some of it until that is done")
	case <-ctx.Done():
	}
	return finished, nil
}

func (b *Books) recountOne(ctx context.Context, placement store.Placement, id string) {
	owner, err := placement.Owner(ctx, id)
	if err == nil {
		err = owner.Do(ctx, id, &store.Request{Job: store.JobFunc(func(tx *store.Tx) error { return tx.Recount() })})
	}
	if err != nil && ctx.Err() == nil {
		b.log.Error("ask a database what it counted; it tells with its next write", "database", id, "error", err)
	}
}
