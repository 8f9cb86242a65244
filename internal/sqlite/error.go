package sqlite

import (
	"fmt"

	sqlite3 "modernc.org/sqlite/lib"
)

// Code is an extended result code of SQLite's (https://sqlite.org/rescode.html).
type Code int32

// The result codes that callers tell apart.
const (
	CodeError      Code = sqlite3.SQLITE_ERROR
	CodeBusy       Code = sqlite3.SQLITE_BUSY
	CodeLocked     Code = sqlite3.SQLITE_LOCKED
	CodeNoMem      Code = sqlite3.SQLITE_NOMEM
	CodeReadonly   Code = sqlite3.SQLITE_READONLY
	CodeInterrupt  Code = sqlite3.SQLITE_INTERRUPT
	CodeIOErr      Code = sqlite3.SQLITE_IOERR
	CodeCorrupt    Code = sqlite3.SQLITE_CORRUPT
	CodeFull       Code = sqlite3.SQLITE_FULL
	CodeCantOpen   Code = sqlite3.SQLITE_CANTOPEN
	CodeSchema     Code = sqlite3.SQLITE_SCHEMA
	CodeTooBig     Code = sqlite3.SQLITE_TOOBIG
	CodeConstraint Code = sqlite3.SQLITE_CONSTRAINT
	CodeMismatch   Code = sqlite3.SQLITE_MISMATCH
	CodeMisuse     Code = sqlite3.SQLITE_MISUSE
	CodeAuth       Code = sqlite3.SQLITE_AUTH
	CodeRange      Code = sqlite3.SQLITE_RANGE
	CodeNotADB     Code = sqlite3.SQLITE_NOTADB

	// These two speak of what a tenant's statements wrote, not of a damaged file: an index of a virtual table that
	// doesn't fit its content, a sqlite_sequence that was written by hand.
	CodeCorruptVTab     Code = sqlite3.SQLITE_CORRUPT_VTAB
	CodeCorruptSequence Code = sqlite3.SQLITE_CORRUPT_SEQUENCE

	CodeConstraintCheck      Code = sqlite3.SQLITE_CONSTRAINT_CHECK
	CodeConstraintForeignKey Code = sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
	CodeConstraintNotNull    Code = sqlite3.SQLITE_CONSTRAINT_NOTNULL
	CodeConstraintPrimaryKey Code = sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	CodeConstraintTrigger    Code = sqlite3.SQLITE_CONSTRAINT_TRIGGER
	CodeConstraintUnique     Code = sqlite3.SQLITE_CONSTRAINT_UNIQUE
	CodeConstraintVTab       Code = sqlite3.SQLITE_CONSTRAINT_VTAB
	CodeConstraintRowid      Code = sqlite3.SQLITE_CONSTRAINT_ROWID
	CodeConstraintDatatype   Code = sqlite3.SQLITE_CONSTRAINT_DATATYPE
)

// Primary is the code without its extension: CONSTRAINT for CONSTRAINT_UNIQUE.
func (c Code) Primary() Code { return c & 0xff }

// Error is a failure as SQLite tells it.
type Error struct {
	Code    Code
	Message string // SQLite's own words, without a path of the server
	Offset  int    // byte position in the SQL text, or -1 where SQLite knows none
	// Cause is why the engine was told to stop: the error of the policy that denied an access
	// (Code AUTH), or of the watch that interrupted the statement (Code INTERRUPT).
	Cause error
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Cause.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Cause }

// EndsTransaction tells whether the code is one that may roll back a whole transaction instead of a statement.
// Only Conn.InTransaction says whether it did.
func (c Code) EndsTransaction() bool {
	switch c.Primary() {
	case CodeInterrupt, CodeFull, CodeIOErr, CodeNoMem, CodeConstraint, CodeBusy, CodeCorrupt, CodeError:
		return true
	}
	return false
}

func noMemory() *Error { return &Error{Code: CodeNoMem, Message: "out of memory", Offset: -1} }

// errClosed is what a statement answers that is used after its connection was closed or given up.
func errClosed() *Error {
	return &Error{Code: CodeMisuse, Message: "the statement was ended with its connection", Offset: -1}
}

// fail is the connection's last error as an Error.
func (c *Conn) fail(rc int32) *Error {
	e := &Error{Code: Code(rc), Offset: -1}
	if c.db != 0 {
		if ext := sqlite3.Xsqlite3_extended_errcode(c.thread.tls, c.db); ext != sqlite3.SQLITE_OK && Code(ext).Primary() == Code(rc).Primary() {
			e.Code = Code(ext)
		}
		e.Message = cstr(sqlite3.Xsqlite3_errmsg(c.thread.tls, c.db))
		e.Offset = int(sqlite3.Xsqlite3_error_offset(c.thread.tls, c.db))
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("SQLite result %d", rc)
	}
	switch {
	case c.denied != nil:
		// Some denials come out as plain errors: of a virtual table that could not run a statement of its own.
		e.Code, e.Cause = CodeAuth, c.denied
	case e.Code.Primary() == CodeInterrupt:
		e.Cause = c.stopped
	}
	c.denied, c.stopped = nil, nil
	return e
}
