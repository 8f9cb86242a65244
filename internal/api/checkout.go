package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/checkout"
	"github.com/persqld/persqld/internal/console"
)

// Checkout takes payments, as checkout.Checkout does and says.
type Checkout interface {
	Session(ctx context.Context, o checkout.Order) (checkout.Session, error)
	Payment(payload []byte, signature string) (*checkout.Payment, error)
}

const (
	minTopUp = 5_00      // cents of a payment,
	maxTopUp = 10_000_00 // and at the most

	nanosPerCent = 10_000_000

	maxStripeEvent = 1_000_000 // bytes

	// checkoutsPerMinute is how many sessions a user begins: Stripe takes so many a second of the whole server, and no more.
	checkoutsPerMinute = 10
	// straysPerMinute is how many events that are refused the log tells of: whoever asks can send one.
	straysPerMinute = 10
)

var errNoCheckout = newFault(http.StatusNotFound, "checkout_not_configured", "This server takes no payments", "the operator sets PERSQLD_STRIPE_KEY and PERSQLD_STRIPE_WEBHOOK_SECRET, or adds to the balance by hand: persqld credit")

var errNotCredited = func() *fault {
	f := newFault(http.StatusServiceUnavailable, "credit_not_written", "The payment can't be credited now", "Stripe sends the event again by itself")
	f.retry = time.Minute
	return f
}()

// takesPayments refuses what a server does that takes no payments, or could not credit them.
func (s *Server) takesPayments() error {
	if s.opt.Checkout == nil || s.opt.Credit == nil {
		return errNoCheckout
	}
	return nil
}

type checkoutRequest struct {
	USD jsontext.Value `json:"usd"`
}

// cents are the US cents of the amount, where it is one: a JSON number without an exponent, of at most two decimals.
func (r *checkoutRequest) cents() (int64, error) {
	whole, part, _ := strings.Cut(string(r.USD), ".")
	if part = strings.TrimRight(part, "0"); len(part) <= 2 {
		part += "00"[len(part):]
		if n, err := strconv.ParseUint(whole+part, 10, 63); err == nil && n >= minTopUp && n <= maxTopUp {
			return int64(n), nil
		}
	}
	return 0, newFault(http.StatusBadRequest, codeBadRequest, "usd must be an amount in US dollars from 5 to 10,000 with at most two decimals", `for example {"usd": 25} or {"usd": 12.5}, as a number`)
}

// startCheckout serves POST /api/namespaces/:ns/billing/checkout: a page of Stripe's on which the namespace's balance is topped up.
func (s *Server) startCheckout(x *exchange) error {
	if err := s.takesPayments(); err != nil {
		return err
	}
	var req checkoutRequest
	if err := x.accountObject(&req); err != nil {
		return err
	}
	if err := x.needAdmin("POST …/billing/checkout"); err != nil {
		return err
	}
	cents, err := req.cents()
	if err != nil {
		return err
	}
	if err := tooMany(s.payers.try(x.user.ID), "to pay from this account"); err != nil {
		return err
	}
	back := strings.TrimRight(s.opt.BaseURL, "/") + "/api/billing/checkout/"
	session, err := s.opt.Checkout.Session(x.r.Context(), checkout.Order{NamespaceID: x.membership.ID, NamespaceSlug: x.membership.Slug, Cents: cents,
		SuccessURL: back + checkoutDone, CancelURL: back + checkoutCancelled})
	if err != nil {
		// Stripe's words are for the operator, whose account it is.
		if errors.Is(err, checkout.ErrRefused) || errors.Is(err, checkout.ErrUnreachable) {
			s.log.Error("a payment can't be begun", "namespace", x.membership.ID, "error", err, "requestId", x.id)
		}
		return err
	}
	err = s.opt.Catalog.RecordNamespace(x.acting(context.WithoutCancel(x.r.Context())), "billing.checkout_started", x.membership.ID,
		map[string]any{"usd": float64(cents) / 100, "session": session.ID})
	if errors.Is(err, catalog.ErrNamespaceNotFound) {
		return errNoNamespace // deleted meanwhile: nobody should pay for it
	}
	if err != nil {
		s.log.Error("write audit log", "action", "billing.checkout_started", "namespace", x.membership.ID, "error", err)
	}
	return x.reply(struct {
		URL string `json:"url"`
		ID  string `json:"id"`
	}{session.URL, session.ID})
}

type received struct {
	Received bool `json:"received"`
}

// stripeEvent serves POST /api/billing/stripe, Stripe's webhook. Nothing but the signature lets an event in. What is answered with 200 Stripe doesn't send
// again, anything else for days: so an event that can't be credited now must not be 200, and one that never can be must be.
func (s *Server) stripeEvent(x *exchange) error {
	if err := s.flood.admit(x); err != nil {
		return err
	}
	if err := x.readUpTo(min(maxStripeEvent, s.opt.MaxRequest)); err != nil {
		return err
	}
	if err := s.takesPayments(); err != nil {
		return err
	}
	p, err := s.opt.Checkout.Payment(x.body, x.r.Header.Get("Stripe-Signature"))
	if err != nil {
		if s.strays.try("") <= 0 {
			s.log.Warn("an event for Stripe's webhook was refused", "error", err, "requestId", x.id)
		}
		return err
	}
	if p == nil {
		return x.reply(received{true})
	}
	credit := catalog.Credit{NamespaceID: p.NamespaceID, Nanos: p.Cents * nanosPerCent, Kind: "checkout", Ref: "stripe:" + p.SessionID, Note: "Stripe Checkout"}
	// To the end, also if Stripe hangs up: else it sends again what has been done.
	added, err := s.opt.Credit(context.WithoutCancel(x.r.Context()), credit)
	about := []any{"namespace", p.NamespaceID, "usd", float64(p.Cents) / 100, "session", p.SessionID, "live", p.Livemode}
	switch {
	case errors.Is(err, catalog.ErrNamespaceNotFound):
		// Another server's with the same account, or one that was deleted after the payment began: sending again won't bring it back.
		s.log.Error("a payment is for no namespace of this server, and was not credited; pay it back in Stripe's dashboard unless it is another server's", about...)
	case err != nil:
		s.log.Error("a payment can't be credited; Stripe sends it again", append(about, "error", err)...)
		return errNotCredited
	case added:
		s.log.Info("a payment was credited", about...)
	default:
		s.log.Debug("a payment came again", about...)
	}
	return x.reply(received{true})
}

// What the page says to which people come back from Stripe.
const (
	checkoutDone      = "done"
	checkoutCancelled = "cancelled"
)

// checkoutPages are what people see who come back from Stripe.
var checkoutPages = map[string]console.Message{
	checkoutDone: {Title: "Thank you", Text: "Stripe confirms each payment to this server, and the balance grows when it has: mostly within seconds, " +
		"after some days where a bank takes that long. You can close this page."},
	checkoutCancelled: {Title: "Nothing was paid", Text: "The payment was cancelled. You can close this page, and begin another one whenever you like."},
}

// showCheckout serves GET /api/billing/checkout/:outcome, where Stripe sends the browser. It knows nothing of the payment, which only the webhook tells of.
func (s *Server) showCheckout(x *exchange) error {
	page, ok := checkoutPages[unescape(x.param("outcome"))]
	if !ok {
		return newFault(http.StatusNotFound, codeNotFound, "There is no such page", "")
	}
	return x.sendPage(http.StatusOK, &page)
}
