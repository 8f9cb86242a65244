package catalog

import (
	"context"
	"fmt"

	"github.com/persqld/persqld/internal/sqlite"
)

// CopyTo writes the catalog as it is to a new file, page by page. Changes wait meanwhile, look-ups don't.
func (c *Catalog) CopyTo(ctx context.Context, path string) error {
	if err := sqlite.CopyDriver(ctx, c.db, path); err != nil {
		return fmt.Errorf("copy catalog: %w", err)
	}
	return nil
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
