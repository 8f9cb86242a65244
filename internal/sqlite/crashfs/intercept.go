package crashfs

import (
	"path/filepath"

	sqlite3 "modernc.org/sqlite/lib"
)

// FileOp is what SQLite is about to do to a recorded file.
type FileOp uint8

// The operations that an interceptor is asked about.
const (
	OpRead FileOp = iota
	OpWrite
	OpSync
)

// Result codes of SQLite's for an interceptor to return.
const (
	OK       int32 = sqlite3.SQLITE_OK
	NoMem    int32 = sqlite3.SQLITE_NOMEM
	Full     int32 = sqlite3.SQLITE_FULL
	ErrRead  int32 = sqlite3.SQLITE_IOERR_READ
	ErrWrite int32 = sqlite3.SQLITE_IOERR_WRITE
	ErrSync  int32 = sqlite3.SQLITE_IOERR_FSYNC
)

// Intercept has f asked before SQLite reads, writes or syncs a recorded file, named by its path relative to the root,
// with slashes. f may wait, or panic; a result other than OK is what SQLite gets instead of the operation. It is
// called by many goroutines, without a lock. Nil ends it.
func (r *Recorder) Intercept(f func(op FileOp, rel string) int32) {
	if f == nil {
		r.intercept.Store(nil)
		return
	}
	r.intercept.Store(&f)
}

func (r *Recorder) intercepted(op FileOp, rel string) int32 {
	if f := r.intercept.Load(); f != nil {
		return (*f)(op, filepath.ToSlash(rel))
	}
	return OK
}
