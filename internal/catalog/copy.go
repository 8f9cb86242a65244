package catalog

import (
	"context"
	"fmt"

	"github.com/persqld/persqld/internal/sqlite"
)

// Copy writes the catalog as it is between two changes to a new file, page by page: the same page stands in the same place in each copy.
func (c *Catalog) Copy(ctx context.Context, to string) error {
	if err := sqlite.CopyDriver(ctx, c.db, to); err != nil {
		return fmt.Errorf("copy catalog: %w", err)
	}
	return nil
}

// DatabaseIDs are the ids of all databases that have, or may get back, their content: those in the trash included.
func (c *Catalog) DatabaseIDs() []string {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	ids := make([]string, 0, len(c.mirror.databases)+len(c.mirror.trash))
	for id := range c.mirror.databases {
		ids = append(ids, id)
	}
	for id := range c.mirror.trash {
		ids = append(ids, id)
	}
	return ids
}

// EachTrashed calls visit for every database in the trash, those whose time is over but that are there still among them, until it returns false, in no order.
// visit must not call the catalog.
func (c *Catalog) EachTrashed(visit func(*Trashed) bool) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	for _, t := range c.mirror.trash {
		if !visit(t) {
			return
		}
	}
}
