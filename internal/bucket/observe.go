package bucket

import (
	"context"
	"errors"
	"io/fs"
)

// outcomeOf is what came of an operation that ended with an error.
func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return OK
	case errors.Is(err, fs.ErrNotExist):
		return Missing
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Canceled
	}
	return Failed
}
