package catalog

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/migrations"
)

// Options are Open's options. The zero value is good.
type Options struct {
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Logger takes what the operator should know; nothing is logged if nil.
	Logger *slog.Logger
	// VFS names the SQLite VFS for the file; SQLite's default if empty.
	VFS string

	SessionIdle    time.Duration // a session ends that long after its last use; 7 days if 0
	SessionLife    time.Duration // and that long after its beginning in any case; 30 days if 0
	MaxSessions    int           // of a user, the oldest ends; 100 if 0
	MaxNamespaces  int           // that a user makes; 20 if 0
	MaxInvitations int           // of a namespace, open at the same time; 100 if 0
	MaxSignIns     int           // of a user with an app, at the same time, the oldest ends; 100 if 0

	// SealKey is the file of the key that seals what must be recovered; seal.key beside the catalog's file if empty. It is made when it is first needed.
	SealKey string

	// Reserved is a slug that no user's namespace may have, also while no namespace has it: the next start gives the operator's token
	// a namespace of this slug.
	Reserved string
}

// Catalog is the open catalog. Its methods may be called from any goroutine.
type Catalog struct {
	db     *sql.DB
	now    func() time.Time
	logger *slog.Logger
	mirror mirror

	// changing is held by a change from its first look at the mirror to its last update of it, so that changes happen
	// one after the other while look-ups go on.
	changing sync.Mutex
	closed   bool // under changing
	version  atomic.Uint64
	queued   atomic.Uint64 // see Queued
	seal     seal
	notes    notes

	sessionIdle, sessionLife                   time.Duration
	maxSessions, maxNamespaces, maxInvitations int
	maxFamilies                                int
	reserved                                   string
}

// Open opens the catalog's file, made if need be, applies the migrations it lacks and reads it into memory. The caller
// holds the lock of the data directory.
func Open(ctx context.Context, path string, opts Options) (c *Catalog, err error) {
	c = &Catalog{now: opts.Now, logger: opts.Logger,
		sessionIdle: cmp.Or(opts.SessionIdle, defaultSessionIdle), sessionLife: cmp.Or(opts.SessionLife, defaultSessionLife),
		maxSessions: cmp.Or(opts.MaxSessions, defaultSessions), maxNamespaces: cmp.Or(opts.MaxNamespaces, defaultNamespaces),
		maxInvitations: cmp.Or(opts.MaxInvitations, defaultInvitations), maxFamilies: cmp.Or(opts.MaxSignIns, defaultOAuthFamilies), reserved: opts.Reserved}
	c.seal.path = cmp.Or(opts.SealKey, filepath.Join(filepath.Dir(path), "seal.key"))
	if c.now == nil {
		c.now = time.Now
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	db, err := sqlite.OpenDriver(path, sqlite.DriverOptions{VFS: opts.VFS})
	if err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	c.db = db
	if err := c.migrate(ctx); err != nil {
		return nil, fmt.Errorf("migrate catalog: %w", err)
	}
	if err := c.mirror.load(ctx, c.db); err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	return c, nil
}

// Close closes the file after the change that is under way. Look-ups go on to answer what they answered last.
func (c *Catalog) Close() error {
	c.changing.Lock()
	defer c.changing.Unlock()
	if c.closed {
		return nil
	}
	if err := c.commitNotes(context.Background()); err != nil {
		c.logger.Error("write audit log", "error", err)
	}
	// Sessions' last uses, which are written now and then only. What can't be written ends those sessions a little earlier.
	if err := c.sweepSessions(context.Background(), c.now()); err != nil {
		c.logger.Warn("write the last uses of sessions", "error", err)
	}
	c.closed = true
	if err := c.db.Close(); err != nil {
		return fmt.Errorf("close catalog: %w", err)
	}
	return nil
}

func (c *Catalog) migrate(ctx context.Context) error {
	provider, err := goose.NewProvider(goose.DialectSQLite3, c.db, migrations.FS,
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(c.logger))
	if err != nil {
		return err
	}
	known := provider.ListSources()
	latest := known[len(known)-1].Version
	have, err := provider.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	if have > latest {
		return fmt.Errorf("%w: it has schema %d, this version of persqld knows schema %d", ErrNewer, have, latest)
	}
	if have == latest {
		return nil
	}
	applied, err := provider.Up(ctx)
	if err != nil {
		return err
	}
	for _, m := range applied {
		c.logger.Info("catalog migrated", "version", m.Source.Version, "file", m.Source.Path)
	}
	return nil
}

// change commits what do does in one transaction and then, before it returns, lets show update the mirror. The caller
// holds changing. An error means that nothing was changed, in the file or in memory; only where the commit itself
// failed may the file, read at the next start, still have it.
func (c *Catalog) change(ctx context.Context, do func(tx *sql.Tx) error, show func(m *mirror)) error {
	err := c.commit(ctx, do, show)
	if err == nil {
		c.version.Add(1)
	}
	return err
}

// Version is another number after each change but those of usage, which is written every second.
func (c *Catalog) Version() uint64 { return c.version.Load() }

// commit is change for usage: it changes nothing that Version tells of.
func (c *Catalog) commit(ctx context.Context, do func(tx *sql.Tx) error, show func(m *mirror)) error {
	if c.closed {
		return ErrClosed
	}
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return diskFull(fmt.Errorf("begin: %w", err))
	}
	noted := c.notes.waiting()
	for _, row := range noted {
		if err := addEntry(ctx, tx, row); err != nil {
			return diskFull(errors.Join(err, rollback(tx)))
		}
	}
	if err := do(tx); err != nil {
		return diskFull(errors.Join(err, rollback(tx)))
	}
	if err := tx.Commit(); err != nil {
		return diskFull(errors.Join(fmt.Errorf("commit: %w", err), rollback(tx)))
	}
	if len(noted) > 0 {
		c.notes.written(len(noted))
		c.version.Add(1)
	}
	c.mirror.mu.Lock()
	defer c.mirror.mu.Unlock()
	show(&c.mirror)
	return nil
}

func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

// diskFull makes err ErrDiskFull too where SQLite says so.
func diskFull(err error) error {
	const sqliteFull = 13 // SQLITE_FULL
	if code, ok := sqlite.DriverErrorCode(err); ok && code&0xff == sqliteFull {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}

// NewID is a new opaque id: the prefix, an underscore and 130 random bits in lower-case letters and digits, so that it
// is also a safe file name where names compare without case.
func NewID(prefix string) string {
	return prefix + "_" + strings.ToLower(rand.Text())
}

// fromMillis is the time of Unix milliseconds, in UTC.
func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// fromNullMillis is the zero time for NULL.
func fromNullMillis(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return fromMillis(ms.Int64)
}

// nullMillis is NULL for the zero time.
func nullMillis(t time.Time) sql.NullInt64 {
	if t.IsZero() {
		return sql.NullInt64{}
	}
	return sql.NullInt64{Int64: t.UnixMilli(), Valid: true}
}

func nullText(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }
