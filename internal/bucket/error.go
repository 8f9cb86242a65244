package bucket

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Error says what could not be done, where, and what to do about it. It names no credentials: text of the server's that has them is stripped of them.
type Error struct {
	Op    Op
	Key   string // of the object, or the prefix of a listing
	Where string // the folder or the bucket, as s3://bucket/prefix at its endpoint
	Tries int    // that were made; 0 if nothing was asked
	Hint  string // what an operator may do; empty if there is nothing to say
	Err   error  // fs.ErrNotExist, the context's error or what the system or the server said
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q in %s: %v", e.Op, e.Key, e.Where, e.Err)
	if e.Tries > 1 {
		fmt.Fprintf(&b, " (after %d tries)", e.Tries)
	}
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// wrapped makes what an operation failed with an *Error, which it may be already.
func wrapped(op Op, key, where string, err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &Error{Op: op, Key: key, Where: where, Err: err}
}

// ended tells whether a context's end is behind an error.
func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}
