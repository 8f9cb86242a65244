package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// files is a data directory that no server uses, opened as one would, with its history if it has one: what is written here must be in it, or moments behind it would be
// restored without. The operator's machine is the limit, not the server's settings: they may be smaller than what is there.
type files struct {
	dir   *datadir.Dir
	cat   *catalog.Catalog
	log   *querylog.Log
	past  *past
	store *store.Store
}

func openFiles(ctx context.Context, data string) (f *files, err error) {
	root, err := filepath.Abs(data)
	if err != nil {
		return nil, fmt.Errorf("resolve data directory %s: %w", data, err)
	}
	// What a restore was filling has no catalog yet, and that isn't what is wrong with it.
	if missing(datadir.Layout(root).Catalog()) && missing(datadir.Layout(root).Restoring()) {
		return nil, fmt.Errorf("%w: %s", errNoData, root)
	}
	f = &files{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close(ctx))
		}
	}()
	if f.dir, err = datadir.Open(root); err != nil {
		return f, err
	}
	if err := sqlite.Initialize(sqlite.Setup{TempDir: f.dir.Temp()}); err != nil {
		return f, err
	}
	if f.cat, err = catalog.Open(ctx, f.dir.Catalog(), catalog.Options{}); err != nil {
		return f, err
	}
	f.log = querylog.Open(f.dir.QueryLog(), querylog.Options{Text: true})
	f.past = &past{}
	kept, err := os.ReadDir(f.dir.History())
	if err != nil {
		return f, err
	}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	if len(kept) > 0 { // a server without a history leaves none there
		if f.past, err = openPast(f.dir, pastOptions{keep: time.Hour}, logger); err != nil {
			return f, err
		}
	}
	f.store, err = store.New(store.Options{
		Past: f.past.forStore(), Clock: f.past.forClock(), Dir: f.dir.Databases(), Temp: f.dir.Temp(),
		StatementTimeout: 24 * time.Hour, Limits: sqlite.Limits{Pages: math.MaxUint32 - 1}, Logger: logger,
		Tables: func(id string) []*sqlite.Table { return []*sqlite.Table{f.log.Table(id), api.DatabaseListTable()} },
	})
	return f, err
}

// close closes what is open. It may be called again.
func (f *files) close(ctx context.Context) (err error) {
	err = f.rest(ctx)
	if f.log != nil {
		err = errors.Join(err, f.log.Close())
	}
	if f.cat != nil {
		err = errors.Join(err, f.cat.Close())
	}
	if f.dir != nil {
		err = errors.Join(err, f.dir.Close())
	}
	f.log, f.cat, f.dir = nil, nil, nil
	return err
}

// rest closes the databases and their history, and keeps the directory.
func (f *files) rest(ctx context.Context) (err error) {
	if f.store != nil {
		err = f.store.Close(context.WithoutCancel(ctx))
	}
	if f.past != nil {
		err = errors.Join(err, f.past.close(err == nil))
	}
	f.store, f.past = nil, nil
	return err
}
