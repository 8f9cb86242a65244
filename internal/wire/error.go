package wire

import (
	"fmt"
	"unicode/utf8"
)

// Codes of an [Error]: stable words that clients may compare with. All of them are answered with status 400.
const (
	CodeBadJSON           = "bad_json"            // not JSON at all
	CodeBadRequest        = "bad_request"         // JSON of another shape than the call's
	CodeTypeMismatch      = "type_mismatch"       // a parameter that is no SQLite value
	CodeTooManyParams     = "too_many_params"     // more than Limits.Params for one statement
	CodeTooManyStatements = "too_many_statements" // more than Limits.Statements in a batch
	CodeSQLTooLong        = "sql_too_long"        // more than Limits.SQLBytes in one statement
)

// Error says why a body was refused. Message and Hint are sentences for the person behind the client; they name
// fields and parameters but never repeat a parameter's value.
type Error struct {
	Code    string
	Message string
	Hint    string // empty if there is no advice to give
	// StatementIndex is the statement of a batch, counted from 0, that the error is about; -1 where it is about none.
	StatementIndex int
	// Offset is the byte of the body, counted from 0, at which the error was noticed.
	Offset int
}

// Error returns the message, preceded by the statement's index in a batch.
func (e *Error) Error() string {
	if e.StatementIndex >= 0 {
		return fmt.Sprintf("statement %d: %s", e.StatementIndex, e.Message)
	}
	return e.Message
}

func newError(code string, offset int, hint, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint, StatementIndex: -1, Offset: offset}
}

// maxShown bounds how much of a client's own name is repeated in a message, in bytes.
const maxShown = 64

// shown is a name from the body, quoted and cut to a readable length.
func shown(name []byte) string {
	if len(name) <= maxShown {
		return fmt.Sprintf("%q", name)
	}
	cut := maxShown
	for cut > 0 && !utf8.RuneStart(name[cut]) {
		cut--
	}
	return fmt.Sprintf("%q", append(name[:cut:cut], "…"...))
}
