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
	// Exact is how far back every transaction is; 0 merges nothing. Max is how many bytes all histories may have; 0 is no bound.
	Exact time.Duration
	Max   int64
	// Pins are the positions that stay restorable: labelled snapshots. If they can't be told, nothing is pruned.
	Pins   func(ctx context.Context, id string) ([]uint64, error)
	Every  time.Duration // between two looks at what grew; a minute
	Now    func() time.Time
	Logger *slog.Logger
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
		grown := k.History.Grown()
		for _, id := range grown {
			k.Tend(ctx, id)
		}
		if len(grown) > 0 {
			k.Bound(ctx)
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
		k.prune(ctx, id)
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
	k.prune(ctx, id)
}

func (k *Keeper) prune(ctx context.Context, id string) {
	p, err := k.policy(ctx, id)
	if err == nil {
		_, err = k.History.Prune(ctx, id, p)
	}
	if err != nil && ctx.Err() == nil {
		k.Logger.Warn("drop old history", "database", id, "error", err)
	}
}

func (k *Keeper) policy(ctx context.Context, id string) (p Policy, err error) {
	now := k.Now()
	p.KeepSince = now.Add(-k.Keep).UnixMilli()
	if k.Exact > 0 {
		p.ExactSince = now.Add(-k.Exact).UnixMilli()
	}
	if k.Pins != nil {
		p.Pins, err = k.Pins(ctx, id)
	}
	return p, err
}

// Bound keeps the histories below their bound of size. Where nothing can go because there is no later base to begin with, the longest history gets one.
func (k *Keeper) Bound(ctx context.Context) {
	if k.Max <= 0 || ctx.Err() != nil {
		return
	}
	policy := func(id string) (Policy, error) { return k.policy(ctx, id) }
	_, left, err := k.History.PruneTo(ctx, k.Max, nil, policy)
	if err == nil && left > 0 {
		var id string
		if id, err = k.longest(); err == nil && id != "" {
			if err = k.Base(ctx, id); err == nil {
				_, left, err = k.History.PruneTo(ctx, k.Max, nil, policy)
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		k.Logger.Warn("drop old history", "error", err)
	}
	if left > 0 {
		k.Logger.Warn("the history is longer than it may be", "bytes", left)
	}
}

// longest is the database whose history is the longest, if a base of it would be shorter by far.
func (k *Keeper) longest() (longest string, err error) {
	ids, err := k.History.all()
	if err != nil {
		return "", err
	}
	var most int64
	for _, id := range ids {
		n, err := k.History.Usage(id)
		if err != nil {
			return "", err
		}
		if n > most && n > 2*k.Size(id) {
			longest, most = id, n
		}
	}
	return longest, nil
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
