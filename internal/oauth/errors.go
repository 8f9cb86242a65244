package oauth

import (
	"errors"

	"github.com/ory/fosite"

	"github.com/persqld/persqld/internal/catalog"
)

// Error is a failure in the words of the protocol (RFC 6749, sections 4.1.2.1 and 5.2).
type Error struct {
	Code        string
	Description string
}

func (e *Error) Error() string { return e.Description }

func fail(code, description string) *Error { return &Error{code, description} }

// toldError is an *Error of what failed or, where the server did, that failure itself: its words are for the log.
func toldError(err error) error {
	var e *Error
	var f *fosite.RFC6749Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, catalog.ErrOAuthReused):
		return fail("invalid_grant", "it was used before; what it got has ended")
	case errors.Is(err, catalog.ErrOAuthUnknown):
		return fail("invalid_grant", "it is unknown, expired or ended")
	case errors.As(err, &e):
		return e
	case errors.Is(err, catalog.ErrDiskFull), errors.Is(err, catalog.ErrClosed):
		return err
	case !errors.As(err, &f), f.ErrorField == fosite.ErrServerError.ErrorField, f.ErrorField == fosite.ErrMisconfiguration.ErrorField:
		for next := err; next != nil; next = errors.Unwrap(next) { // fosite's words hide what they wrap
			if _, isFosite := next.(*fosite.RFC6749Error); !isFosite {
				err = next
			}
		}
		return err
	}
	description := f.HintField // what fosite says of debugging stays here
	if description == "" {
		description = f.DescriptionField
	}
	switch f.ErrorField {
	case "scope_not_granted":
		return fail("invalid_grant", "the refresh token was given without offline_access")
	}
	return fail(f.ErrorField, description)
}
