package checkout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"github.com/stripe/stripe-go/v85"
)

var (
	// ErrUnreachable is returned when Stripe doesn't answer in time, or not as Stripe does, or asks to come later. Nothing was paid.
	ErrUnreachable = errors.New("no answer from Stripe that helps")
	// ErrRefused is what every Refusal is.
	ErrRefused = errors.New("refused by Stripe")

	// ErrSignature is returned for an event that isn't signed with the webhook's secret: another secret, another body, none.
	ErrSignature = errors.New("the event isn't signed with the webhook's secret")
	// ErrStale is returned for an event that was signed more than five minutes ago.
	ErrStale = errors.New("the event was signed too long ago")
	// ErrEvent is returned for what is signed and is no event.
	ErrEvent = errors.New("the body is no event")
	// ErrMode is returned for a payment of the test mode under a live key, and the other way round.
	ErrMode = errors.New("the payment is of another mode than the key")
	// ErrCurrency is returned for a payment in another currency than US dollars.
	ErrCurrency = errors.New("the payment is not in US dollars")
	// ErrAmount is returned for a payment of nothing, of less, or of more than can be counted.
	ErrAmount = errors.New("the payment's amount can't be credited")
)

// Refusal is Stripe's own word on why there is no session.
type Refusal struct {
	Status    int    // of Stripe's answer
	Code      string // Stripe's
	Message   string // Stripe's, without keys
	RequestID string // by which Stripe's dashboard finds the request
}

// Error returns all of it.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s: %s (status %d, code %q, request %q)", ErrRefused, r.Message, r.Status, r.Code, r.RequestID)
}

// Is tells that a Refusal is ErrRefused.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }

// sessionError says what an error of Stripe's client means, in words that hold no key.
func sessionError(err error) error {
	var e *stripe.Error
	if errors.As(err, &e) {
		switch {
		case e.HTTPStatusCode >= http.StatusInternalServerError, e.HTTPStatusCode == http.StatusTooManyRequests, e.HTTPStatusCode == http.StatusConflict:
			return fmt.Errorf("%w: it answers with status %d (request %q)", ErrUnreachable, e.HTTPStatusCode, clean(e.RequestID))
		}
		return &Refusal{Status: e.HTTPStatusCode, Code: clean(string(e.Code)), Message: clean(e.Msg), RequestID: clean(e.RequestID)}
	}
	if errors.Is(err, context.Canceled) {
		return context.Canceled // who asked has left
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: it took too long", ErrUnreachable)
	}
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("%w: %s", ErrUnreachable, clean(u.Err.Error()))
	}
	return fmt.Errorf("%w: its answer isn't Stripe's", ErrUnreachable)
}

var anyKey = regexp.MustCompile(`\b(sk|rk|pk|whsec)_[A-Za-z0-9_*]+`)

// clean makes a text of somebody else's fit for a line of the log: without keys (Stripe repeats a part of one that it doesn't know), and short.
func clean(text string) string {
	text = anyKey.ReplaceAllString(text, "…")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	const longest = 300
	if runes := []rune(text); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return text
}
