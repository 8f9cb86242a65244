// Package checkout takes payments by Stripe Checkout: it makes the session that a browser is sent to, and reads what Stripe's webhook tells of it.
// It knows of money and of a namespace's id, and of nothing else of the house: what a payment is worth is the ledger's to say.
package checkout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v85"
)

const (
	// callTime is what the making of a session may take, with all tries.
	callTime = 10 * time.Second
	// retries are tries after the first one, where the connection failed.
	retries = 2

	currency = string(stripe.CurrencyUSD)

	// namespaceKey is the metadata that makes a session one of ours. The account may sell other things as well, and the
	// client_reference_id of a payment link is whatever its visitor puts into the address; metadata needs the key.
	namespaceKey = "persqld_namespace"
)

// Options is what New needs.
type Options struct {
	Key           string // Stripe's secret or restricted key
	WebhookSecret string // the signing secret of the webhook's endpoint
	Endpoint      string // base URL of another API than Stripe's; "" for Stripe's

	Now    func() time.Time
	Logger *slog.Logger
}

// Checkout speaks with one account of Stripe's.
type Checkout struct {
	stripe        stripe.Backend
	key           string
	webhookSecret string
	live          bool
	callTime      time.Duration
	now           func() time.Time
	log           *slog.Logger
}

// New returns a Checkout. It calls nobody: whether Stripe takes the key shows at the first session.
func New(opt Options) (*Checkout, error) {
	if err := Check(opt.Key, opt.WebhookSecret, opt.Endpoint); err != nil {
		return nil, err
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	config := &stripe.BackendConfig{
		// A redirect would take the key elsewhere.
		HTTPClient: &http.Client{Timeout: callTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		// The client would write to stderr; what went wrong comes back as an error.
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull},
		MaxNetworkRetries: stripe.Int64(retries),
		EnableTelemetry:   stripe.Bool(false),
	}
	if opt.Endpoint != "" {
		config.URL = stripe.String(opt.Endpoint)
	}
	return &Checkout{
		// Not stripe.Client, which has every call of Stripe's: the binary would be 7.9 MB larger, not 1.3.
		stripe: stripe.GetBackendWithConfig(stripe.APIBackend, config),
		key:    opt.Key, webhookSecret: opt.WebhookSecret, live: liveKey(opt.Key), callTime: callTime, now: opt.Now, log: opt.Logger,
	}, nil
}

// Check returns an error for a key, a webhook's secret or an endpoint that can't be one, without telling it.
func Check(key, webhookSecret, endpoint string) error {
	switch {
	case strings.HasPrefix(key, "pk_"):
		return errors.New("the key is a publishable one; give the secret key (sk_…) or a restricted one (rk_…)")
	case !prefixed(key, "sk_live_", "sk_test_", "rk_live_", "rk_test_"):
		return errors.New("the key must be a secret or restricted key of Stripe's: sk_live_…, sk_test_…, rk_live_… or rk_test_…")
	case !prefixed(webhookSecret, "whsec_"):
		// An empty one would make every signature easy.
		return errors.New("the webhook's signing secret must begin with whsec_; Stripe shows it with the endpoint")
	case endpoint == "":
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("the endpoint must be a URL such as http://localhost:12111")
	}
	if u.Scheme == "http" && liveKey(key) {
		return errors.New("a live key goes over https only")
	}
	return nil
}

// prefixed tells whether text begins with one of the prefixes, and goes on in printable ASCII.
func prefixed(text string, prefixes ...string) bool {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(text, p); ok && rest != "" {
			return !strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r > '~' })
		}
	}
	return false
}

func liveKey(key string) bool { return !prefixed(key, "sk_test_", "rk_test_") }

// Order is what is to be paid.
type Order struct {
	NamespaceID   string
	NamespaceSlug string // what the payer reads
	Cents         int64  // US cents
	SuccessURL    string // where Stripe sends the browser afterwards
	CancelURL     string
}

// Session is a page of Stripe's on which an order is paid.
type Session struct {
	ID  string
	URL string
}

// Session makes a page of Stripe's for an order. It returns ErrUnreachable, or a Refusal.
func (c *Checkout) Session(ctx context.Context, o Order) (Session, error) {
	ctx, cancel := context.WithTimeout(ctx, c.callTime)
	defer cancel()
	metadata := map[string]string{namespaceKey: o.NamespaceID}
	params := &stripe.CheckoutSessionCreateParams{
		Mode:              stripe.String(string(stripe.CheckoutSessionModePayment)),
		SubmitType:        stripe.String(string(stripe.CheckoutSessionSubmitTypePay)),
		ClientReferenceID: stripe.String(o.NamespaceID),
		Metadata:          metadata,
		SuccessURL:        stripe.String(o.SuccessURL),
		CancelURL:         stripe.String(o.CancelURL),
		// What is paid is what was ordered, in dollars, whatever the account's own settings say of prices abroad.
		AdaptivePricing:   &stripe.CheckoutSessionCreateAdaptivePricingParams{Enabled: stripe.Bool(false)},
		PaymentIntentData: &stripe.CheckoutSessionCreatePaymentIntentDataParams{Metadata: metadata},
		LineItems: []*stripe.CheckoutSessionCreateLineItemParams{{
			Quantity: stripe.Int64(1),
			PriceData: &stripe.CheckoutSessionCreateLineItemPriceDataParams{
				Currency:    stripe.String(currency),
				UnitAmount:  stripe.Int64(o.Cents),
				ProductData: &stripe.CheckoutSessionCreateLineItemPriceDataProductDataParams{Name: stripe.String("Prepaid balance of " + o.NamespaceSlug)},
			},
		}},
	}
	// One key for all tries: a session whose answer got lost isn't made again. Another call is another order.
	params.SetIdempotencyKey("persqld-" + rand.Text())
	params.Context = ctx
	var session stripe.CheckoutSession
	if err := c.stripe.Call(http.MethodPost, "/v1/checkout/sessions", c.key, params, &session); err != nil {
		return Session{}, fmt.Errorf("make a Checkout session: %w", sessionError(err))
	}
	if session.ID == "" || session.URL == "" {
		return Session{}, fmt.Errorf("make a Checkout session: %w: its answer has no id or no url", ErrUnreachable)
	}
	return Session{ID: session.ID, URL: session.URL}, nil
}
