package checkout

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v85"
	"github.com/stripe/stripe-go/v85/webhook"
)

const (
	// tolerance is how old a signature may be.
	tolerance = 5 * time.Minute
	// maxCents is what a ledger of nano-dollars can count.
	maxCents = math.MaxInt64 / 10_000_000
)

// Payment is money that has come.
type Payment struct {
	SessionID   string
	NamespaceID string
	Cents       int64 // US cents
	Livemode    bool
}

// eventSession is what an event says of a session, in every version of Stripe's API that an endpoint can have.
type eventSession struct {
	ID            string            `json:"id"`
	Mode          string            `json:"mode"`
	PaymentStatus string            `json:"payment_status"`
	Currency      string            `json:"currency"`
	AmountTotal   int64             `json:"amount_total"`
	Livemode      bool              `json:"livemode"`
	Metadata      map[string]string `json:"metadata"`
}

// Payment reads an event of the webhook, whose header Stripe-Signature is signature. It returns nil where the event tells of no payment of ours: other
// events, sessions of other programs with the account, sessions that aren't paid yet. Its errors are ErrSignature, ErrStale, ErrEvent, ErrMode,
// ErrCurrency and ErrAmount. The same payment can come any number of times; its session's id stays.
func (c *Checkout) Payment(payload []byte, signature string) (*Payment, error) {
	// The age is looked at below, by our clock. Fields that are read here have been the same in all versions of the API for years.
	event, err := webhook.ConstructEventWithOptions(payload, signature, c.webhookSecret,
		webhook.ConstructEventOptions{IgnoreTolerance: true, IgnoreAPIVersionMismatch: true})
	switch {
	case errors.Is(err, webhook.ErrNotSigned), errors.Is(err, webhook.ErrInvalidHeader), errors.Is(err, webhook.ErrNoValidSignature):
		return nil, ErrSignature
	case err != nil:
		return nil, fmt.Errorf("%w: %s", ErrEvent, clean(err.Error()))
	}
	if at, ok := signedAt(signature); !ok || c.now().Sub(at) > tolerance {
		return nil, ErrStale
	}
	switch event.Type {
	case stripe.EventTypeCheckoutSessionCompleted, stripe.EventTypeCheckoutSessionAsyncPaymentSucceeded:
	default:
		return nil, nil
	}
	if event.Data == nil {
		return nil, fmt.Errorf("%w: it has no data", ErrEvent)
	}
	var s eventSession
	if err := json.Unmarshal(event.Data.Raw, &s); err != nil || s.ID == "" {
		return nil, fmt.Errorf("%w: it has no session", ErrEvent)
	}
	namespace := s.Metadata[namespaceKey]
	if namespace == "" || s.Mode != string(stripe.CheckoutSessionModePayment) || s.PaymentStatus != string(stripe.CheckoutSessionPaymentStatusPaid) {
		c.log.Debug("an event of Stripe's tells of no payment for a balance", "event", event.ID, "type", event.Type, "session", s.ID, "paymentStatus", s.PaymentStatus)
		return nil, nil
	}
	switch {
	case event.Livemode != c.live || s.Livemode != c.live:
		return nil, fmt.Errorf("%w: session %s, live %t, under a key whose live is %t", ErrMode, s.ID, s.Livemode, c.live)
	case s.Currency != currency:
		return nil, fmt.Errorf("%w: session %s is in %q", ErrCurrency, s.ID, clean(s.Currency))
	case s.AmountTotal <= 0 || s.AmountTotal > maxCents:
		return nil, fmt.Errorf("%w: session %s has %d cents", ErrAmount, s.ID, s.AmountTotal)
	}
	return &Payment{SessionID: s.ID, NamespaceID: namespace, Cents: s.AmountTotal, Livemode: s.Livemode}, nil
}

// signedAt is the time in a header that was found good. Where it has several, the last is the signed one, as in Stripe's client.
func signedAt(header string) (at time.Time, ok bool) {
	for pair := range strings.SplitSeq(header, ",") {
		if value, found := strings.CutPrefix(pair, "t="); found {
			seconds, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return time.Time{}, false
			}
			at, ok = time.Unix(seconds, 0), true
		}
	}
	return at, ok
}
