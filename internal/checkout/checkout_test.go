package checkout_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/checkout"
	"github.com/persqld/persqld/internal/checkout/checkouttest"
)

var now = time.Unix(1_800_000_000, 0)

func open(t testing.TB, opt checkout.Options) *checkout.Checkout {
	t.Helper()
	if opt.Key == "" {
		opt.Key = checkouttest.Key
	}
	opt.WebhookSecret = checkouttest.WebhookSecret
	opt.Now = func() time.Time { return now }
	c, err := checkout.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var order = checkout.Order{NamespaceID: "ns_1", NamespaceSlug: "acme", Cents: 2550, SuccessURL: "https://sql.example.com/paid?a=b&c", CancelURL: "https://sql.example.com/not"}

func TestSession(t *testing.T) {
	stripe := checkouttest.New(t)
	c := open(t, checkout.Options{Endpoint: stripe.URL})
	for i := range 2 {
		s, err := c.Session(t.Context(), order)
		id := fmt.Sprintf("cs_test_%d", i+1)
		if err != nil || s.ID != id || s.URL != "https://checkout.stripe.com/c/pay/"+id {
			t.Errorf("%+v, %v", s, err)
		}
	}
	calls := stripe.Calls()
	if len(calls) != 2 || calls[0].Header.Get("Idempotency-Key") == calls[1].Header.Get("Idempotency-Key") {
		t.Fatalf("calls %v", calls)
	}
	if key := calls[0].Header.Get("Idempotency-Key"); !strings.HasPrefix(key, "persqld-") || len(key) < 30 {
		t.Errorf("idempotency key %q", key)
	}
	sent := calls[0]
	if sent.Header.Get("Authorization") != "Bearer "+checkouttest.Key || sent.Header.Get("Stripe-Version") == "" || sent.Header.Get("X-Stripe-Client-Telemetry") != "" {
		t.Errorf("header %v", sent.Header)
	}
	want := map[string]string{
		"mode": "payment", "submit_type": "pay", "client_reference_id": "ns_1", "metadata[persqld_namespace]": "ns_1", "payment_intent_data[metadata][persqld_namespace]": "ns_1",
		"success_url": order.SuccessURL, "cancel_url": order.CancelURL, "adaptive_pricing[enabled]": "false",
		"line_items[0][quantity]": "1", "line_items[0][price_data][currency]": "usd", "line_items[0][price_data][unit_amount]": "2550",
		"line_items[0][price_data][product_data][name]": "Prepaid balance of acme",
	}
	for field, value := range want {
		if got := sent.Form[field]; len(got) != 1 || got[0] != value {
			t.Errorf("%s is %q, want %q", field, got, value)
		}
	}
	if len(sent.Form) != len(want) {
		t.Errorf("sent %v", sent.Form)
	}
}

// What Stripe answers is told apart: what helps to wait for, and what the operator has to mend. No key comes out.
func TestSessionFails(t *testing.T) {
	key, elsewhere := checkouttest.Key, checkouttest.New(t)
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   error
		tells  string
	}{
		{"a key that isn't known", func(w http.ResponseWriter, _ *http.Request) {
			checkouttest.Fail(w, 401, "invalid_request_error", "", "Invalid API Key provided: sk_test_****test, "+key+"\n")
		}, checkout.ErrRefused, "Invalid API Key provided: …"},
		{"an amount", func(w http.ResponseWriter, _ *http.Request) {
			checkouttest.Fail(w, 400, "invalid_request_error", "amount_too_small", "too small")
		}, checkout.ErrRefused, `too small (status 400, code "amount_too_small", request "req_stripe")`},
		{"an error of Stripe's", func(w http.ResponseWriter, _ *http.Request) { checkouttest.Fail(w, 500, "api_error", "", key) }, checkout.ErrUnreachable, "status 500"},
		{"too many", func(w http.ResponseWriter, _ *http.Request) {
			checkouttest.Fail(w, 429, "invalid_request_error", "rate_limit", "")
		}, checkout.ErrUnreachable, "status 429"},
		{"a page", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprintf(w, "<html>%s</html>", key)
		}, checkout.ErrUnreachable, "isn't Stripe's"},
		{"another page", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, checkout.ErrUnreachable, ""},
		{"an empty session", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }, checkout.ErrUnreachable, "no url"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/v1/checkout/sessions", http.StatusTemporaryRedirect)
		}, checkout.ErrUnreachable, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stripe := checkouttest.New(t)
			stripe.Answer(tt.answer)
			_, err := open(t, checkout.Options{Endpoint: stripe.URL}).Session(t.Context(), order)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.tells) {
				t.Fatalf("%v", err)
			}
			if strings.Contains(err.Error(), "test_") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v tells of the key, or has a line of its own", err)
			}
			if n := len(stripe.Calls()); n < 1 || n > 3 {
				t.Errorf("%d tries", n)
			}
		})
	}
	if n := len(elsewhere.Calls()); n > 0 {
		t.Errorf("the key went elsewhere %d times", n)
	}
	t.Run("nobody there", func(t *testing.T) {
		_, err := open(t, checkout.Options{Endpoint: "http://127.0.0.1:1"}).Session(t.Context(), order)
		if !errors.Is(err, checkout.ErrUnreachable) || strings.Contains(err.Error(), "test_") {
			t.Error(err)
		}
	})
	t.Run("slow", func(t *testing.T) {
		stripe := checkouttest.New(t)
		stripe.Answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		c := open(t, checkout.Options{Endpoint: stripe.URL})
		c.SetCallTime(50 * time.Millisecond)
		begin := time.Now()
		if _, err := c.Session(t.Context(), order); !errors.Is(err, checkout.ErrUnreachable) || time.Since(begin) > 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
	t.Run("who asked has left", func(t *testing.T) {
		stripe := checkouttest.New(t)
		ctx, leave := context.WithCancel(t.Context())
		stripe.Answer(func(_ http.ResponseWriter, r *http.Request) {
			leave()
			<-r.Context().Done()
		})
		if _, err := open(t, checkout.Options{Endpoint: stripe.URL}).Session(ctx, order); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A connection that breaks behind the session's making is tried again under the same key: one session.
func TestLostAnswer(t *testing.T) {
	stripe := checkouttest.New(t)
	var broken atomic.Bool
	stripe.Answer(func(w http.ResponseWriter, r *http.Request) {
		if !broken.Swap(true) {
			panic(http.ErrAbortHandler)
		}
		stripe.Answer(nil)
		panic(http.ErrAbortHandler)
	})
	s, err := open(t, checkout.Options{Endpoint: stripe.URL}).Session(t.Context(), order)
	if err != nil || s.ID != "cs_test_1" || stripe.Made() != 1 {
		t.Fatalf("%+v, %v, %d made", s, err, stripe.Made())
	}
	calls := stripe.Calls()
	if len(calls) != 3 {
		t.Fatalf("%d calls", len(calls))
	}
	for _, call := range calls {
		if call.Header.Get("Idempotency-Key") != calls[0].Header.Get("Idempotency-Key") || call.Form.Encode() != calls[0].Form.Encode() {
			t.Errorf("%v differs from %v", call, calls[0])
		}
	}
}

func TestRefusedOptions(t *testing.T) {
	const live = "sk_live_51abcdef"
	tests := []struct{ key, secret, endpoint, want string }{
		{live, "whsec_x", "", ""},
		{"rk_live_x", "whsec_x", "https://stripe.example.com", ""},
		{checkouttest.Key, "whsec_x", "http://localhost:12111/", ""},
		{"pk_live_secretish", "whsec_x", "", "publishable"},
		{"sk_secretish", "whsec_x", "", "sk_live_"},
		{"", "whsec_x", "", "sk_live_"},
		{"sk_live_", "whsec_x", "", "sk_live_"},
		{"sk_live_secretish\n", "whsec_x", "", "sk_live_"},
		{live, "", "", "whsec_"},
		{live, "secretish", "", "whsec_"},
		{live, "whsec_", "", "whsec_"},
		{live, "whsec_x", "http://localhost:12111", "https"},
		{live, "whsec_x", "stripe.example.com", "URL"},
		{live, "whsec_x", "https://secretish@stripe.example.com", "URL"},
		{live, "whsec_x", "https://secretish:%zz", "URL"},
	}
	for _, tt := range tests {
		_, err := checkout.New(checkout.Options{Key: tt.key, WebhookSecret: tt.secret, Endpoint: tt.endpoint})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secretish")) {
			t.Errorf("%q, %q, %q: %v, want %q", tt.key, tt.secret, tt.endpoint, err, tt.want)
		}
	}
}
