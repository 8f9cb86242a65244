package e2e_test

import (
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/checkout/checkouttest"
)

// paying starts a server that takes payments.
func paying(t testing.TB, stripe *checkouttest.Stripe, data string) *harness.Server {
	t.Helper()
	return harness.Start(t, binary, harness.Options{Data: data, Env: append([]string{"PERSQLD_BILLING=prepaid", "PERSQLD_BILLING_ESTIMATED=true", "PERSQLD_STRIPE_KEY=" + checkouttest.Key,
		"PERSQLD_STRIPE_WEBHOOK_SECRET=" + checkouttest.WebhookSecret, "PERSQLD_STRIPE_URL=" + stripe.URL}, quick...)})
}

const (
	checkoutPath = "/api/namespaces/default/billing/checkout"
	eventPath    = "/api/billing/stripe"
)

// tell sends an event as Stripe does.
func tell(c *harness.Client, event []byte) *harness.Answer {
	return c.Post(eventPath, harness.Raw(event), harness.Header("Stripe-Signature: "+checkouttest.Sign(checkouttest.WebhookSecret, time.Now(), event)))
}

func TestCheckout(t *testing.T) {
	row(t, "DP-PAY-1", "DP-PAY-2", "DP-PAY-3", "DP-PAY-5", "DP-PAY-6")
	stripe := checkouttest.New(t)
	s := paying(t, stripe, "")
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	editor := enrol(t, s, "editor@example.com", "default", "editor")
	anybody := s.Client(t, "")

	a := owner.Post(checkoutPath, body{"usd": 12.5}).OK()
	if a.Str("data.id") != "cs_test_1" || a.Str("data.url") != "https://checkout.stripe.com/c/pay/cs_test_1" {
		t.Errorf("%s", a.Raw)
	}
	sent := stripe.Calls()[0]
	id := sent.Form.Get("client_reference_id")
	if id == "" || sent.Form.Get("line_items[0][price_data][unit_amount]") != "1250" {
		t.Errorf("sent %v", sent.Form)
	}
	e := owner.Get("/api/namespaces/default/audit?action=billing.checkout_started").OK()
	e.Is("data.0.actor.id", owner.id).Is("data.0.target.id", id).Is("data.0.metadata.usd", "12.5").Is("data.0.metadata.session", "cs_test_1").Is("data.0.address", "127.0.0.1")
	for _, usd := range []any{4.99, 10_000.01, 12.345, "25", nil} {
		owner.Post(checkoutPath, body{"usd": usd}).Fails(http.StatusBadRequest, "bad_request").Tells("5 to 10,000")
	}
	owner.Post(checkoutPath, body{"usd": 25, "currency": "eur"}).Fails(http.StatusBadRequest, "bad_json")
	editor.Post(checkoutPath, body{"usd": 25}).Fails(http.StatusForbidden, "role_not_allowed")
	owner.Post(checkoutPath, harness.Raw(`{"usd":25,"x":"`+strings.Repeat("x", 64_000)+`"}`)).Fails(http.StatusRequestEntityTooLarge, "request_too_large")

	stripe.Answer(func(w http.ResponseWriter, _ *http.Request) {
		checkouttest.Fail(w, 401, "invalid_request_error", "", "Invalid API Key provided: "+checkouttest.Key)
	})
	owner.Post(checkoutPath, body{"usd": 25}).Fails(http.StatusServiceUnavailable, "stripe_refused")
	stripe.Answer(func(w http.ResponseWriter, _ *http.Request) { checkouttest.Fail(w, 500, "api_error", "", "") })
	owner.Post(checkoutPath, body{"usd": 25}).Fails(http.StatusServiceUnavailable, "stripe_unreachable")
	stripe.Answer(nil)
	limited := false
	for range 40 { // ten a minute, however slow the machine is
		if limited = owner.Post(checkoutPath, body{"usd": 25}).Status == http.StatusTooManyRequests; limited {
			break
		}
	}
	if !limited {
		t.Error("nothing bounds how often a payment is begun")
	}

	// The webhook.
	paid := checkouttest.Paid("cs_test_1", id, 1250, nil)
	for _, event := range [][]byte{checkouttest.Event("customer.created", "x", "", 0, nil), checkouttest.Event("checkout.session.expired", "cs_test_2", id, 2500, nil), paid, paid} {
		tell(anybody, event).OK().Is("data.received", "true")
	}
	sign := func(secret string, at time.Time) harness.Header {
		return harness.Header("Stripe-Signature: " + checkouttest.Sign(secret, at, paid))
	}
	now := time.Now()
	anybody.Post(eventPath, harness.Raw(paid)).Fails(http.StatusBadRequest, "invalid_signature")
	anybody.Post(eventPath, harness.Raw(paid), sign("whsec_other", now)).Fails(http.StatusBadRequest, "invalid_signature")
	anybody.Post(eventPath, harness.Raw(string(paid)+" "), sign(checkouttest.WebhookSecret, now)).Fails(http.StatusBadRequest, "invalid_signature")
	anybody.Post(eventPath, harness.Raw(paid), sign(checkouttest.WebhookSecret, now.Add(-6*time.Minute))).Fails(http.StatusBadRequest, "stale_signature")
	for code, change := range map[string]body{"wrong_currency": {"currency": "eur"}, "wrong_amount": {"amount_total": 0}, "wrong_mode": {"livemode": true}, "invalid_event": {"id": ""}} {
		tell(anybody, checkouttest.Paid("cs_test_9", id, 1250, change)).Fails(http.StatusBadRequest, code)
	}
	tell(anybody, checkouttest.Paid("cs_test_9", id, 1250, body{"x": strings.Repeat("x", 1_000_000)})).Fails(http.StatusRequestEntityTooLarge, "request_too_large")
	if log := s.Log(); strings.Contains(log, checkouttest.Key) || strings.Contains(log, checkouttest.WebhookSecret) || !strings.Contains(log, "Invalid API Key provided: …") {
		t.Error("the log has a secret, or not Stripe's reason")
	}

	// Where Stripe sends people.
	for _, outcome := range []string{"done", "cancelled"} {
		url := sent.Form.Get(map[string]string{"done": "success_url", "cancelled": "cancel_url"}[outcome])
		if !strings.HasSuffix(url, "/api/billing/checkout/"+outcome) {
			t.Errorf("%s leads to %s", outcome, url)
		}
		page := anybody.Get("/api/billing/checkout/" + outcome)
		if text := string(page.Raw); page.Status != http.StatusOK || !strings.Contains(text, "You can close this page") || !strings.HasPrefix(page.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %d %s", outcome, page.Status, text)
		}
	}
}

// TestCheckoutCredits pays, and looks at the balance: once for each session, also when its events race, and after a crash.
func TestCheckoutCredits(t *testing.T) {
	row(t, "DP-PAY-4")
	stripe := checkouttest.New(t)
	s := paying(t, stripe, "")
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	admin, anybody := s.Client(t, harness.Token), s.Client(t, "")
	balance := func() float64 {
		number, _ := admin.Get("/v1/billing/balance").OK().At("data.balanceUsd").(json.Number)
		usd, err := number.Float64()
		if err != nil {
			t.Fatal(err)
		}
		return usd
	}
	session := owner.Post(checkoutPath, body{"usd": 12.5}).OK().Str("data.id")
	id := stripe.Calls()[0].Form.Get("client_reference_id")
	before := balance()
	tell(anybody, checkouttest.Paid(session, id, 1250, body{"payment_status": "unpaid"})).OK()
	later := checkouttest.Event("checkout.session.async_payment_succeeded", session, id, 1250, nil)
	done := make(chan *harness.Answer)
	for range 20 {
		go func() { done <- tell(anybody, later) }()
	}
	for range 20 {
		(<-done).OK()
	}
	tell(anybody, checkouttest.Paid(session, id, 1250, nil)).OK()
	tell(anybody, checkouttest.Paid("cs_elsewhere", "ns_elsewhere", 990, nil)).OK()
	s.Kill()
	s = paying(t, stripe, s.Data)
	admin, anybody = s.Client(t, harness.Token), s.Client(t, "")
	tell(anybody, later).OK()
	// Requests cost something too, but not a hundredth of a cent.
	if now := balance(); math.Abs(now-before-12.5) > 0.0001 {
		t.Errorf("from %v to %v", before, now)
	}
}

func TestNoCheckout(t *testing.T) {
	row(t, "DP-PAY-7")
	s := people(t)
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	owner.Post(checkoutPath, body{"usd": 25}).Fails(http.StatusNotFound, "checkout_not_configured").Tells("PERSQLD_STRIPE_KEY")
	tell(s.Client(t, ""), checkouttest.Paid("cs_1", "ns_1", 2500, nil)).Fails(http.StatusNotFound, "checkout_not_configured")
}
