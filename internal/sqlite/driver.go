package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	driver "modernc.org/sqlite"
)

// DriverOptions are OpenDriver's options. The zero value opens the file with SQLite's default VFS.
type DriverOptions struct {
	// VFS names a registered SQLite VFS. Tests of power loss open the catalog through one of their own.
	VFS string
}

// driverPragmas are run on each new connection. The driver puts them in an order of its own, by their names; exclusive
// locking must be set before the first access in WAL mode, so that no shared-memory file is made and a server also starts
// on a full disk. So nothing here may look into the file: journal_mode, which does, follows when the connection is open.
var driverPragmas = []string{
	"busy_timeout(5000)", // milliseconds
	"locking_mode(EXCLUSIVE)",
	"synchronous(FULL)",
	"foreign_keys(1)",
}

// OpenDriver opens the SQLite file at path, made if need be, through database/sql: write-ahead log, an fsync with every
// commit, foreign keys on, one connection that holds the file to itself. It is meant for the catalog, where convenience
// counts for more than the last microsecond; tenant databases are opened with this package's own connection.
//
// The file is opened at once, so that a path that can't be opened, a damaged file or one that is held by another
// connection is reported here and not by the first statement.
func OpenDriver(path string, opts DriverOptions) (*sql.DB, error) {
	if err := Initialize(Setup{}); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", path, err)
	}
	query := url.Values{
		"_pragma":    driverPragmas,
		"_txlock":    {"immediate"},
		"_dqs":       {"0"},
		"_defensive": {"1"},
		"_error_rc":  {"1"},
	}
	if opts.VFS != "" {
		query.Set("vfs", opts.VFS)
	}
	name := url.URL{Scheme: "file", Path: abs, RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(1)
	db.SetConnMaxIdleTime(0)
	db.SetConnMaxLifetime(0)
	var mode string
	if err := db.QueryRow("PRAGMA journal_mode=WAL").Scan(&mode); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if mode != "wal" {
		db.Close()
		return nil, fmt.Errorf("open %s: the journal mode is %q instead of wal", path, mode)
	}
	return db, nil
}

// DriverErrorCode is the extended SQLite result code of an error of a database that OpenDriver opened, and false for an
// error that is none of SQLite's.
func DriverErrorCode(err error) (code int, ok bool) {
	var e *driver.Error
	if !errors.As(err, &e) {
		return 0, false
	}
	return e.Code(), true
}

// CopyDriver copies a database that OpenDriver opened to a new file, page by page as it is between two transactions. The database's one connection does
// nothing else meanwhile.
func CopyDriver(ctx context.Context, db *sql.DB, to string) error {
	abs, err := filepath.Abs(to)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", to, err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(c any) error {
		source, ok := c.(interface {
			NewBackup(string) (*driver.Backup, error)
		})
		if !ok {
			return fmt.Errorf("copy database: the driver's connection is a %T", c)
		}
		name := url.URL{Scheme: "file", Path: abs, RawQuery: url.Values{"_pragma": {"synchronous(OFF)"}}.Encode()}
		b, err := source.NewBackup(name.String())
		if err != nil {
			return fmt.Errorf("copy database: %w", err)
		}
		_, err = b.Step(-1)
		if err = errors.Join(err, b.Finish()); err != nil {
			return fmt.Errorf("copy database: %w", err)
		}
		return nil
	})
}
