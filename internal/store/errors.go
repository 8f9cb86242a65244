package store

import (
	"errors"

	"github.com/persqld/persqld/internal/sqlite"
)

var (
	// ErrQueueFull is returned at once when a database's queue has no room. Nothing ran.
	ErrQueueFull = errors.New("the database's queue is full")
	// ErrStuck is returned while the engine is inside a call of another request's statement that can't be
	// interrupted. Nothing ran, or what ran is undone with that statement.
	ErrStuck = errors.New("the database is busy undoing a statement that passed its time limit")
	// ErrClosing is returned when the server shuts down. Nothing ran.
	ErrClosing = errors.New("the server is shutting down")
	// ErrNotFound is returned for a database that was deleted while the request waited.
	ErrNotFound = errors.New("database not found")
	// ErrDamaged is returned when the file of a database is missing, empty, or not one of SQLite's.
	ErrDamaged = errors.New("the database's file is damaged or gone")
	// ErrTimeout is the cause of an interrupted statement that passed its time limit. It was undone.
	ErrTimeout = errors.New("statement over its time limit")
	// ErrAbandoned comes beside ErrTimeout when the answer left while the engine still runs the statement, which
	// will be undone: what the request's Job holds must not be used again.
	ErrAbandoned = errors.New("the statement is still being undone")
	// ErrParked is returned for a long statement that got no turn among other long ones for longer than it may wait. It
	// was undone.
	ErrParked = errors.New("the server is busy with other long statements")
	// ErrHog is returned for a statement that was stopped since it held more memory than any other when there was none
	// left. It was undone.
	ErrHog = errors.New("the statement uses too much memory")
	// ErrDiskFull is returned for a write that the disk has no room for. It was undone.
	ErrDiskFull = errors.New("the disk is full")
	// ErrQuota is returned for a write that would make the database larger than its limit. It was undone.
	ErrQuota = errors.New("the database reached its size limit")
	// ErrOutOfMemory is returned for a statement that found no memory, twice. It was undone.
	ErrOutOfMemory = errors.New("the server's memory is used up")
	// ErrStorage is returned when the disk failed under a commit: whether the write survives is not known.
	ErrStorage = errors.New("the disk failed")
	// ErrFault is returned when the engine itself failed; the connection was given up and the file opened anew.
	ErrFault = errors.New("the engine failed on this request")
	// ErrKeptFull is returned when a keyed write's answer would pass the cap on kept answers. It was undone.
	ErrKeptFull = errors.New("too many idempotency keys are kept for this database")
	// ErrRebuilding is returned for a write, or another replacement, while the database is being replaced by an import
	// or a restore. Reads go on.
	ErrRebuilding = errors.New("the database is being replaced")
	// ErrUnheard is returned for changes that a database's journal doesn't have: nobody listened, or they are too old.
	ErrUnheard = errors.New("the changes are not in the journal")
	// ErrNoRowid is returned for an insert into an AUTOINCREMENT table that has used the greatest rowid. It was undone.
	ErrNoRowid = errors.New("no rowid is left")
	// ErrTransactionControl is returned for BEGIN, COMMIT and the like: transactions belong to the actor.
	ErrTransactionControl = errors.New("transactions are the server's")

	// What follows never leaves the package.

	// errPreempted interrupts a statement that turned long while finished writes of its group wait for their commit.
	errPreempted = errors.New("run again in a group of its own")
	// errBoundary says that a request must run in a group of its own.
	errBoundary = errors.New("commit the group first")
	// errPinned says that the log can't be copied back yet: the file is being copied.
	errPinned = errors.New("the file is being copied")
	// errEnded is what the rest of a request gets when the transaction was lost under it.
	errEnded = errors.New("the transaction ended")
)

// translate turns an engine error that the actor knows more about into one of ours, with the engine's behind it.
// quota says that a FULL is the database's own limit and not the disk's.
func translate(err error, quota bool) error {
	if err == nil { // before the variables, which errors.As has allocated
		return nil
	}
	var e *sqlite.Error
	var known *wrapped
	if !errors.As(err, &e) || errors.As(err, &known) {
		return err
	}
	switch e.Code.Primary() {
	case sqlite.CodeFull:
		if quota {
			return &wrapped{ErrQuota, err}
		}
		return &wrapped{ErrDiskFull, err}
	case sqlite.CodeNoMem:
		return &wrapped{ErrOutOfMemory, err}
	case sqlite.CodeIOErr:
		return &wrapped{ErrStorage, err}
	case sqlite.CodeCorrupt, sqlite.CodeNotADB:
		if e.Code != sqlite.CodeCorruptVTab && e.Code != sqlite.CodeCorruptSequence {
			return &wrapped{ErrDamaged, err}
		}
	case sqlite.CodeInterrupt:
		if e.Cause == nil { // Interrupt was called: the server stops or the watchdog gave up
			return &wrapped{ErrTimeout, err}
		}
	}
	return err
}

// Translate turns an error of the engine about a file beside the databases, in a directory of the same file system, into
// one of this package's.
func Translate(err error, dir string) error {
	free, ferr := freeBytes(dir)
	return translate(diskFull(err), ferr == nil && free > roomLeft)
}

// wrapped is a domain error with the engine's error that led to it.
type wrapped struct{ is, err error }

func (w *wrapped) Error() string   { return w.is.Error() }
func (w *wrapped) Unwrap() []error { return []error{w.is, w.err} }
