package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/store"
)

// past is the history of the databases, nil where none is kept.
type past struct {
	history *history.History
	clock   *history.Clock
	keepFor time.Duration
}

func openPast(dir *datadir.Dir, keepFor time.Duration, logger *slog.Logger) (*past, error) {
	if keepFor <= 0 {
		return &past{}, nil
	}
	h, err := history.New(history.Options{Root: dir.History(), Logger: logger})
	if err != nil {
		return nil, err
	}
	clock, err := history.OpenClock(dir.CommitTimes())
	if err != nil {
		return nil, err
	}
	return &past{h, clock, keepFor}, nil
}

// forStore, forClock and forAPI are nil interfaces where there is no history.
func (p *past) forStore() store.Past {
	if p.history == nil {
		return nil
	}
	return p.history
}

func (p *past) forClock() store.Clock {
	if p.clock == nil {
		return nil
	}
	return p.clock
}

func (p *past) forAPI() api.Past {
	if p.history == nil {
		return nil
	}
	return p.history
}

// keep looks after the history until ctx ends.
func (p *past) keep(ctx context.Context, cat *catalog.Catalog, st *store.Store, dir *datadir.Dir, logger *slog.Logger) (done <-chan struct{}) {
	ended := make(chan struct{})
	if p.history == nil {
		close(ended)
		return ended
	}
	k := &history.Keeper{History: p.history, Base: st.Base, Keep: p.keepFor, Every: time.Minute, Now: time.Now, Logger: logger,
		Size: func(id string) int64 {
			fi, err := os.Stat(filepath.Join(dir.Databases(), id[len(id)-2:], id+".db"))
			if err != nil {
				return 0
			}
			return fi.Size()
		}}
	go func() {
		defer close(ended)
		p.recover(ctx, cat, st, logger)
		k.Run(ctx)
	}()
	return ended
}

// recover hands over what databases committed before the process was killed, while the times of that are known.
func (p *past) recover(ctx context.Context, cat *catalog.Catalog, st *store.Store, logger *slog.Logger) {
	if p.clock == nil {
		return
	}
	var ids []string
	cat.EachDatabase(func(d *catalog.Database) bool {
		if p.clock.Has(d.ID) {
			ids = append(ids, d.ID)
		}
		return true
	})
	for _, id := range ids {
		if err := st.Keep(ctx, id); err != nil && ctx.Err() == nil {
			logger.Warn("hand over what was committed before the server was killed; the next write does", "database", id, "error", err)
		}
	}
}

// close ends the clock; clean says that the databases closed in order, so that the history has all commits.
func (p *past) close(clean bool) error {
	if p.clock == nil {
		return nil
	}
	return p.clock.Close(clean)
}
