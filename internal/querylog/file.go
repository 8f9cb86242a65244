package querylog

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// retryAfter is how long a file that failed is left alone.
const retryAfter = 30 * time.Second

// fileVersion is the user_version of the file. One of another version is begun anew: the log is no record.
const fileVersion = 1

// The index by database finds a database's newest and oldest chunks, the one by age what retention takes. A chunk's
// row number is the id of its newest entry.
const fileSchema = `
CREATE TABLE chunk(
	last_id  INTEGER PRIMARY KEY,
	database TEXT NOT NULL,
	entries  INTEGER NOT NULL,
	max_ts   INTEGER NOT NULL, -- Unix milliseconds
	body     BLOB NOT NULL
) STRICT;
CREATE INDEX chunk_of ON chunk(database, last_id);
CREATE INDEX chunk_age ON chunk(max_ts);
PRAGMA user_version = 1;
`

var errForeign = errors.New("it is not a query log of this version")

// SQLite's result codes that are told apart here.
const (
	codeError    = 1
	codeCorrupt  = 11
	codeCantOpen = 14
	codeNotADB   = 26
)

// openFile opens the file, and where that is the file's own fault begins a new one. The caller holds the file.
func (l *Log) openFile() error {
	l.closeFile(nil)
	err := l.tryFile()
	if err == nil || !l.faulty(err) {
		return err
	}
	if aside := l.setAside(err); aside != nil {
		return errors.Join(err, aside)
	}
	return l.tryFile()
}

// faulty tells whether another file would do better.
func (l *Log) faulty(err error) bool {
	if errors.Is(err, errForeign) {
		return true
	}
	code, ok := sqlite.DriverErrorCode(err)
	switch code & 0xff {
	case codeError, codeCorrupt, codeNotADB:
		return ok
	case codeCantOpen:
		// A folder in its place; not a lack of descriptors.
		info, err := os.Lstat(l.path)
		return err == nil && info.IsDir()
	}
	return false
}

// setAside renames the file out of the way, over one that was renamed before: at most one is kept.
func (l *Log) setAside(cause error) error {
	l.closeFile(nil)
	aside := l.path + ".damaged"
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.RemoveAll(aside + suffix); err != nil {
			return fmt.Errorf("remove the former damaged query log: %w", err)
		}
		if err := os.Rename(l.path+suffix, aside+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set the damaged query log aside: %w", err)
		}
	}
	l.opts.Logger.Warn("the query log was damaged: begun anew", "kept as", aside, "error", cause)
	return nil
}

func (l *Log) tryFile() (err error) {
	db, err := sqlite.OpenDriver(l.path, sqlite.DriverOptions{})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	// The write-ahead log keeps the file whole with NORMAL too; a power loss costs some of the last entries, and
	// commits need no fsync.
	if _, err := db.Exec("PRAGMA synchronous = NORMAL"); err != nil {
		return fmt.Errorf("prepare query log: %w", err)
	}
	var version, tables int
	if err := db.QueryRow("SELECT user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_user_version").Scan(&version, &tables); err != nil {
		return fmt.Errorf("read query log: %w", err)
	}
	switch {
	case version == 0 && tables == 0:
		// Space that retention frees goes back to the disk. On a file with nothing in it VACUUM only sets the mode.
		if _, err := db.Exec("PRAGMA auto_vacuum = INCREMENTAL; VACUUM"); err != nil {
			return fmt.Errorf("prepare query log: %w", err)
		}
		if err := inTx(db, func(tx *sql.Tx) error { _, err := tx.Exec(fileSchema); return err }); err != nil {
			return fmt.Errorf("create query log: %w", err)
		}
	case version != fileVersion:
		return errForeign
	}
	var last sql.NullInt64
	if err := db.QueryRow("SELECT max(last_id) FROM chunk").Scan(&last); err != nil {
		return fmt.Errorf("read query log: %w", err)
	}
	for id := l.last.Load(); id < last.Int64 && !l.last.CompareAndSwap(id, last.Int64); {
		id = l.last.Load()
	}
	l.db, l.kept, l.trimAt = db, map[string]*kept{}, time.Time{}
	return nil
}

// closeFile closes the file, if it is open, and adds an error of that to err.
func (l *Log) closeFile(err error) error {
	if l.db == nil {
		return err
	}
	db := l.db
	l.db = nil
	if cerr := db.Close(); cerr != nil {
		return errors.Join(err, fmt.Errorf("close query log: %w", cerr))
	}
	return err
}

// failed tells the operator of trouble, once until it is over.
func (l *Log) failed(what string, err error) {
	l.retryAt = l.opts.Now().Add(retryAfter)
	l.failures.Add(1)
	if !l.failing {
		l.failing = true
		l.opts.Logger.Warn(what+": entries stay in memory", "error", err)
	}
}

func (l *Log) worked() {
	l.retryAt = time.Time{}
	if l.failing {
		l.failing = false
		l.opts.Logger.Info("the query log is written again")
	}
}

func inTx(db *sql.DB, do func(*sql.Tx) error) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		tx.Rollback() // what do returned says more
		return err
	}
	if err := tx.Commit(); err != nil {
		db.Exec("ROLLBACK") // the driver may leave its one connection in the transaction; an error says it didn't
		return err
	}
	return nil
}
