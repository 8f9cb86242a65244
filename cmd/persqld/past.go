package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/replica"
	"github.com/persqld/persqld/internal/store"
)

// past is the history of the databases; without one its parts are nil.
type past struct {
	history *history.History
	clock   *history.Clock
	ship    *replica.Shipper // nil without a replica
	opt     pastOptions
}

// pastOptions are the settings of the history.
type pastOptions struct {
	keep, exact      time.Duration
	max, maxDatabase int64
}

func openPast(dir *datadir.Dir, opt pastOptions, logger *slog.Logger) (*past, error) {
	if opt.keep <= 0 {
		aside, err := dir.SetHistoryAside(time.Now())
		if aside != "" {
			logger.Warn("no history is kept any more; what there was is set aside, and nobody reads it: delete it if you don't want it", "folder", aside)
		}
		return &past{}, err
	}
	p := &past{opt: opt}
	var err error
	p.history, err = history.New(history.Options{Root: dir.History(), Logger: logger, Grew: func(id string, position uint64) {
		if p.ship != nil {
			p.ship.Grew(id, position)
		}
	}})
	if err != nil {
		return nil, err
	}
	p.clock, err = history.OpenClock(dir.CommitTimes())
	return p, err
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
	if p.ship != nil {
		return watched{p.clock, p.ship}
	}
	return p.clock
}

// watched is a clock that also tells the replica of commits.
type watched struct {
	*history.Clock
	ship *replica.Shipper
}

func (w watched) Note(id string, position uint64, ms int64) error {
	w.ship.Note(id, ms)
	return w.Clock.Note(id, position, ms)
}

func (p *past) forAPI() api.Past {
	if p.history == nil {
		return nil
	}
	return p.history
}

// made tells the replica of a database that was made of a file.
func (p *past) made(id string) {
	if p.ship != nil {
		p.ship.Note(id, time.Now().UnixMilli())
	}
}

// keep looks after the history until ctx ends.
func (p *past) keep(ctx context.Context, cat *catalog.Catalog, st *store.Store, metrics *api.Metrics, dir *datadir.Dir, logger *slog.Logger) (done <-chan struct{}) {
	ended := make(chan struct{})
	if p.history == nil {
		close(ended)
		return ended
	}
	k := p.keeper(ctx, cat, st, metrics, dir, logger)
	go func() {
		defer close(ended)
		p.recover(ctx, cat, st, logger)
		k.Run(ctx)
	}()
	return ended
}

// keeper is what keeps the history within its times and bounds.
func (p *past) keeper(ctx context.Context, cat *catalog.Catalog, st *store.Store, metrics *api.Metrics, dir *datadir.Dir, logger *slog.Logger) *history.Keeper {
	return &history.Keeper{History: p.history, Base: st.Base, Every: time.Minute, Now: time.Now, Logger: logger,
		Keep: p.opt.keep, Exact: max(p.opt.exact, 1), Max: p.opt.max, MaxDatabase: p.opt.maxDatabase,
		Pins: func(ctx context.Context, id string) ([]uint64, error) { return p.pins(ctx, cat, st, id) },
		Lost: func(l history.Loss) {
			metrics.HistoryLost(l.Exactness, l.Bytes)
			if d, err := cat.DatabaseByID(l.ID); err == nil {
				err = cat.Record(ctx, "history.shortened", d, map[string]any{"before": time.UnixMilli(l.Before).UTC().Format(time.RFC3339), "exactnessOnly": l.Exactness, "bytes": l.Bytes})
				if err != nil && ctx.Err() == nil {
					logger.Warn("write audit log", "error", err)
				}
			}
		},
		Known: func(id string) (bool, error) { return knownDatabase(cat, dir, id) },
		Size:  sizeOf(dir)}
}

// sizeOf tells how many bytes a database's file has.
func sizeOf(dir *datadir.Dir) func(id string) int64 {
	return func(id string) int64 {
		fi, err := os.Stat(fileOf(dir, id))
		if err != nil {
			return 0
		}
		return fi.Size()
	}
}

func fileOf(dir *datadir.Dir, id string) string {
	return filepath.Join(dir.Databases(), id[len(id)-2:], id+".db")
}

var errNoDatabases = errors.New("the catalog has no database at all: it may not be the one that belongs here")

// knownDatabase tells whether a history must stay: its database is in the catalog or in the trash, or has a file, which a purge takes away first.
func knownDatabase(cat *catalog.Catalog, dir *datadir.Dir, id string) (bool, error) {
	if _, err := cat.DatabaseByID(id); err == nil {
		return true, nil
	}
	if _, err := cat.Trashed(id); err == nil {
		return true, nil
	}
	if _, err := os.Lstat(fileOf(dir, id)); !errors.Is(err, fs.ErrNotExist) {
		return err == nil, err
	}
	any := false
	cat.EachDatabase(func(*catalog.Database) bool { any = true; return false })
	if !any {
		return false, errNoDatabases
	}
	return false, nil
}

// pins are the positions of a database's snapshots that are as young as the history is long: older ones go with what they are in.
func (p *past) pins(ctx context.Context, cat *catalog.Catalog, st *store.Store, id string) ([]uint64, error) {
	if _, err := cat.DatabaseByID(id); err != nil {
		return nil, history.ErrLater // it is in the trash, or on its way out of it
	}
	list, err := st.Snapshots(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, history.ErrLater
	}
	oldest := time.Now().Add(-p.opt.keep).UnixMilli()
	var pins []uint64
	for _, n := range list {
		if n.CreatedAt >= oldest {
			pins = append(pins, n.Position)
		}
	}
	return pins, err
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
