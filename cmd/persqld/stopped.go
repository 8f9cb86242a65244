package main

import (
	"context"
	"errors"
	"fmt"
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

// stopped is a data directory that no server has, opened as one does. The operator's machine is the limit, not the server's settings: they may be smaller than what
// is there.
type stopped struct {
	dir     *datadir.Dir
	catalog *catalog.Catalog
	log     *querylog.Log
	past    *past
	store   *store.Store
}

// openStopped opens a data directory. The error is datadir.ErrLocked where a server has it.
func openStopped(ctx context.Context, data string) (_ *stopped, err error) {
	root, err := filepath.Abs(data)
	if err != nil {
		return nil, fmt.Errorf("resolve data directory %s: %w", data, err)
	}
	if missing(datadir.Layout(root).Catalog()) {
		return nil, fmt.Errorf("%w: %s", errNoData, root)
	}
	s := &stopped{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(ctx))
		}
	}()
	if s.dir, err = datadir.Open(root); err != nil {
		return nil, err
	}
	if err := sqlite.Initialize(sqlite.Setup{TempDir: s.dir.Temp()}); err != nil {
		return nil, err
	}
	if s.catalog, err = catalog.Open(ctx, s.dir.Catalog(), catalog.Options{}); err != nil {
		return nil, err
	}
	s.log = querylog.Open(s.dir.QueryLog(), querylog.Options{Text: true})
	if hasHistory(s.dir) {
		s.past, err = openPast(s.dir, pastOptions{keep: math.MaxInt64}, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
	} else {
		s.past = &past{}
	}
	s.store, err = store.New(store.Options{
		Past: s.past.forStore(), Clock: s.past.forClock(),
		Dir: s.dir.Databases(), Temp: s.dir.Temp(), StatementTimeout: 24 * time.Hour, Limits: sqlite.Limits{Pages: math.MaxUint32 - 1},
		Tables: func(id string) []*sqlite.Table { return []*sqlite.Table{s.log.Table(id), api.DatabaseListTable()} },
	})
	return s, err
}

// hasHistory tells whether the last server on a directory kept a history. What is written here must then be in it, or moments behind it would be restored without:
// the settings of that server aren't known here.
func hasHistory(dir *datadir.Dir) bool {
	entries, err := os.ReadDir(dir.History())
	return err != nil || len(entries) > 0
}

// close closes what was opened.
func (s *stopped) close(ctx context.Context) (err error) {
	if s.store != nil {
		err = s.store.Close(context.WithoutCancel(ctx))
	}
	if s.past != nil {
		err = errors.Join(err, s.past.close(err == nil))
	}
	if s.log != nil {
		err = errors.Join(err, s.log.Close())
	}
	if s.catalog != nil {
		err = errors.Join(err, s.catalog.Close())
	}
	if s.dir != nil {
		err = errors.Join(err, s.dir.Close())
	}
	return err
}
