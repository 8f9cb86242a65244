package history

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Keeper looks after the history beside the requests: it has bases made where restores would become long, and drops what is too old. It does one
// database after the other.
type Keeper struct {
	History *History
	Base    func(ctx context.Context, id string) error // has a base made: the store's
	Size    func(id string) int64                      // bytes of a database's file
	Keep    time.Duration                              // how far back moments are kept
	Every   time.Duration                              // between two looks at what grew; a minute
	Now     func() time.Time
	Logger  *slog.Logger
}

// Run goes on until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(k.Every)
	defer tick.Stop()
	swept := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, id := range k.History.Grown() {
			k.Tend(ctx, id)
		}
		if now := k.Now(); now.Sub(swept) > sweepEvery {
			swept = now
			k.Sweep(ctx)
		}
	}
}

// sweepEvery is how often databases are looked at that nobody writes to: their history grows old too.
const sweepEvery = 6 * time.Hour

// Sweep looks at all databases.
func (k *Keeper) Sweep(ctx context.Context) {
	ids, err := k.History.all()
	if err != nil {
		k.Logger.Error("look for history", "error", err)
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return
		}
		k.prune(id)
	}
}

// Tend makes a base of a database if it needs one, and drops what is too old.
func (k *Keeper) Tend(ctx context.Context, id string) {
	if ctx.Err() != nil {
		return
	}
	needs, err := k.History.NeedsBase(id, k.Size(id))
	if err == nil && needs {
		err = k.Base(ctx, id)
	}
	if err != nil && ctx.Err() == nil {
		// The next look at it tries again; without a base its restores take longer, no more.
		k.Logger.Warn("make base of history", "database", id, "error", err)
		k.History.grew(id)
	}
	k.prune(id)
}

func (k *Keeper) prune(id string) {
	if _, err := k.History.Prune(id, k.Now().Add(-k.Keep).UnixMilli()); err != nil {
		k.Logger.Warn("drop old history", "database", id, "error", err)
	}
}

// all are the databases that have a history.
func (h *History) all() ([]string, error) {
	shelves, err := os.ReadDir(h.root)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, s := range shelves {
		if !s.IsDir() {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(h.root, s.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return ids, err
		}
		for _, e := range entries {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}
