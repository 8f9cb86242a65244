package history

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// orphanAge is how long nobody may have touched the history of a database that isn't known before it is taken away: time to notice that it is the catalog
// that is the wrong one.
const orphanAge = 24 * time.Hour

// DropOrphans takes the histories of databases away that are gone: a deletion forgets the history itself, but for one that grew while it did, or whose
// process ended.
func (k *Keeper) DropOrphans(ctx context.Context) {
	if k.Known == nil {
		return
	}
	ids, err := k.History.all()
	if err != nil {
		k.Logger.Error("look for history", "error", err)
		return
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return
		}
		if err := k.dropOrphan(id); err != nil {
			k.Logger.Warn("take away the history of a database that is gone; it is tried again", "database", id, "error", err)
			return
		}
	}
}

func (k *Keeper) dropOrphan(id string) error {
	if !ValidID(id) {
		return nil // nothing of ours
	}
	if known, err := k.Known(id); known || err != nil {
		return err
	}
	touched, err := k.History.touched(id)
	if err != nil || k.Now().Sub(touched) < orphanAge {
		return err
	}
	// No database is made whose id was used before, and each has its file before it has a history: nobody begins one here meanwhile.
	if err := k.History.Forget(id); err != nil {
		return err
	}
	k.Logger.Info("the history of a database that is gone was taken away", "database", id)
	return nil
}

// touched is when a database's history changed last.
func (h *History) touched(id string) (last time.Time, err error) {
	s, err := h.shelf(id)
	if err != nil {
		return last, err
	}
	for _, path := range append(s.files(), s.dir) {
		fi, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return last, err
		}
		if fi.ModTime().After(last) {
			last = fi.ModTime()
		}
	}
	return last, nil
}
