package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	driver "modernc.org/sqlite"
)

// copyPages is how many pages are copied between two looks at the context.
const copyPages = 4096

// CopyDriver writes a database that OpenDriver opened, as it is between two transactions, to a new file: page by page, so that what didn't change since the last
// copy is where it was. Statements wait meanwhile. The file is not synced.
func CopyDriver(ctx context.Context, db *sql.DB, path string) (err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", path, err)
	}
	f, err := os.OpenFile(abs, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(abs)
		}
	}()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	to := url.URL{Scheme: "file", Path: abs, RawQuery: url.Values{"_pragma": {"synchronous(OFF)", "journal_mode(OFF)", "locking_mode(EXCLUSIVE)"}}.Encode()}
	return conn.Raw(func(raw any) error {
		from, ok := raw.(interface {
			NewBackup(string) (*driver.Backup, error)
		})
		if !ok {
			return errors.New("copy database: the driver has no backup")
		}
		b, err := from.NewBackup(to.String())
		if err != nil {
			return fmt.Errorf("copy database: %w", err)
		}
		more := true
		for more && err == nil {
			if more, err = b.Step(copyPages); err == nil {
				err = ctx.Err()
			}
		}
		if err = errors.Join(err, b.Finish()); err != nil {
			return fmt.Errorf("copy database: %w", err)
		}
		return nil
	})
}
