package transfer

import (
	"errors"
	"fmt"
)

// Reason is why something that came from outside was not taken: a stable word for the wire.
type Reason string

// The reasons of an [Error].
const (
	ReasonFile       Reason = "invalid_file" // not a SQLite file, encrypted, damaged, or one that this engine can't read
	ReasonTooLarge   Reason = "too_large"    // more pages, bytes or rows than the limit
	ReasonStatement  Reason = "statement"    // SQLite refused a statement of the SQL text
	ReasonIncomplete Reason = "incomplete"   // the SQL text ends in the middle of a statement
	ReasonNotAllowed Reason = "not_allowed"  // a statement or an object that a client may not have
	ReasonForeignKey Reason = "foreign_key"  // rows that refer to rows which are not there
	ReasonIntegrity  Reason = "integrity"    // the result fails SQLite's integrity check
	ReasonCSV        Reason = "invalid_csv"  // a row that is no CSV, or has another number of fields
)

// Error says what is wrong with what came from outside.
type Error struct {
	Reason  Reason
	Message string // whole, with the place in it
	Hint    string // what to do; may be empty
	Place   *Place // the statement, for an error of SQL text
	err     error
}

func (e *Error) Error() string { return e.Message }

// Unwrap is the engine's or the gate's own error: *sqlite.Error, *gate.Refusal.
func (e *Error) Unwrap() error { return e.err }

// Place is where in a SQL text a statement stands.
type Place struct {
	Statement int64  // its number, from 1
	Offset    int64  // of its first byte, from 0, behind white space and comments
	Line      int64  // of that byte, from 1
	SQL       string // its first 80 characters
}

func (p Place) String() string {
	return fmt.Sprintf("statement %d (line %d, byte %d)", p.Statement, p.Line, p.Offset)
}

// ErrFault says that the engine failed in its own code. The file in hand may be in any state.
var ErrFault = errors.New("the engine failed on this file")
