package transfer

import (
	"context"
	"fmt"
	"os"

	"github.com/persqld/persqld/internal/sqlite"
)

// Strip makes the copy of a live database at path, in place, a file that may leave: the server's own tables are gone
// with every byte of theirs and of deleted rows, and its journal mode is DELETE, so that any tool opens it without a
// -wal. Rowids stay. It needs as much room again beside the file while it works, under names that begin with path.
func Strip(ctx context.Context, path string) error {
	if err := strip(ctx, path); err != nil {
		return fmt.Errorf("export as SQLite file: %w", err)
	}
	return nil
}

func strip(ctx context.Context, path string) error {
	fresh := path + freshSuffix
	if err := Remove(fresh); err != nil {
		return err
	}
	defer Remove(fresh)
	err := use(ctx, sqlite.Scratch{Path: path, Limits: sqlite.Limits{Length: maxLength, Pages: maxPages}}, func(c *sqlite.Conn) error {
		if err := dropOurs(c); err != nil {
			return err
		}
		return vacuumInto(c, fresh)
	})
	if err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return settle(path)
}
