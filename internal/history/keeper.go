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

// Keeper looks after the history beside the requests: it has bases made where restores would become long, and drops what is too old or too much. It
// does one database after the other.
type Keeper struct {
	History *History
	Base    func(ctx context.Context, id string) error // has a base made: the store's
	Size    func(id string) int64                      // bytes of a database's file
	Keep    time.Duration                              // how far back moments are kept
	// Exact is how far back every transaction is; 0 merges nothing.
	Exact time.Duration
	// Max is how many bytes all histories may have, MaxDatabase that of one database; 0 is no bound.
	Max, MaxDatabase int64
	// Pins are the positions that stay exact: labelled snapshots. It is asked only where something is to be merged. If they can't be told, nothing is.
	Pins func(ctx context.Context, id string) ([]uint64, error)
	// Known tells whether a history is that of a database that is there, or can be brought back; nil says that each is. Where it returns an error nothing is
	// taken away.
	Known func(id string) (bool, error)
	// Lost is told what the bounds of size took; nil tells nobody.
	Lost func(Loss)

	Every  time.Duration // between two looks at what grew; a minute
	Now    func() time.Time
	Logger *slog.Logger
}

// ErrLater is what Pins returns for a database that is not to be touched now, such as a deleted one.
var ErrLater = errors.New("not now")

// sweepEvery is how often databases are looked at that nobody writes to, too: their history grows old. It costs a listing of a directory each.
const sweepEvery = time.Hour

// Run goes on until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(k.Every)
	defer tick.Stop()
	swept := k.Now() // not at once: a start has better things to do
	k.DropOrphans(ctx)
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
		if k.Max > 0 && len(grown) > 0 {
			k.bound(ctx, k.Max, nil)
		}
		if now := k.Now(); now.Sub(swept) > sweepEvery {
			swept = now
			k.Sweep(ctx)
		}
	}
}

// Sweep drops and merges what is old, of all databases.
func (k *Keeper) Sweep(ctx context.Context) {
	k.DropOrphans(ctx)
	ids, err := k.History.all()
	if err != nil {
		k.Logger.Error("look for history", "error", err)
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return
		}
		if err := k.prune(ctx, id); err != nil && err != ErrLater && ctx.Err() == nil {
			k.Logger.Warn("drop old history", "database", id, "error", err)
		}
	}
}

// Tend makes a base of a database that grew if it needs one, and keeps its history below its bound.
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
	if k.MaxDatabase > 0 {
		k.bound(ctx, k.MaxDatabase, []string{id})
	}
}

func (k *Keeper) prune(ctx context.Context, id string) error {
	p := k.policy()
	due, err := k.History.due(id, p)
	if err != nil || !due {
		return err
	}
	if p, err = k.pinned(ctx, id); err == nil {
		_, err = k.History.Prune(ctx, id, p)
	}
	return err
}

func (k *Keeper) policy() (p Policy) {
	now := k.Now()
	p.KeepSince = now.Add(-k.Keep).UnixMilli()
	if k.Exact > 0 {
		p.ExactSince = now.Add(-k.Exact).UnixMilli()
	}
	return p
}

// pinned is the policy with a database's snapshots.
func (k *Keeper) pinned(ctx context.Context, id string) (p Policy, err error) {
	p = k.policy()
	if k.Pins != nil {
		p.Pins, err = k.Pins(ctx, id)
	}
	return p, err
}

// bound keeps the histories of these databases, or of all, below a bound. Where nothing can go because there is no later base to begin with, the longest one
// gets one.
func (k *Keeper) bound(ctx context.Context, bytes int64, ids []string) {
	if ctx.Err() != nil {
		return
	}
	policy := func(id string) (Policy, error) { return k.pinned(ctx, id) }
	_, left, err := k.History.PruneTo(ctx, bytes, ids, policy, k.Lost)
	if err == nil && left > 0 {
		var id string
		if id, err = k.longest(ids); err == nil && id != "" {
			if err = k.Base(ctx, id); err == nil {
				_, left, err = k.History.PruneTo(ctx, bytes, ids, policy, k.Lost)
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		k.Logger.Warn("drop history beyond its bound", "error", err)
	}
	if left > 0 {
		k.Logger.Warn("the history is longer than it may be", "bytes", left, "databases", ids)
	}
}

// Bound keeps all histories below the keeper's bound.
func (k *Keeper) Bound(ctx context.Context) { k.bound(ctx, k.Max, nil) }

// longest is that of these databases, or of all, whose history is the longest, if a base of it would be shorter by far.
func (k *Keeper) longest(ids []string) (longest string, err error) {
	if len(ids) == 0 {
		if ids, err = k.History.all(); err != nil {
			return "", err
		}
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
