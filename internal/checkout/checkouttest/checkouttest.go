// Package checkouttest is a Stripe for tests: the one call that makes a Checkout session, over real HTTP, and events that are signed as Stripe signs
// them. It shares no code with Stripe's client, which it is to judge.
package checkouttest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"
)

// What a Stripe for tests is opened with.
const (
	Key           = "sk_test_51checkouttest"
	WebhookSecret = "whsec_checkouttest"
)

// Call is a request that came.
type Call struct {
	Method, Path string
	Header       http.Header
	Form         url.Values
}

// Stripe makes sessions, until Answer says otherwise.
type Stripe struct {
	URL string

	mu     sync.Mutex
	calls  []Call
	made   map[string]string // session by idempotency key
	answer http.HandlerFunc
}

// New starts a Stripe that ends with the test.
func New(t testing.TB) *Stripe {
	s := &Stripe{made: map[string]string{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Answer has every request answered by h; nil is as before.
func (s *Stripe) Answer(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = h
}

// Calls are the requests that came.
func (s *Stripe) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

func (s *Stripe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	form, ferr := url.ParseQuery(string(raw))
	if err != nil || ferr != nil {
		http.Error(w, "bad form", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.calls = append(s.calls, Call{r.Method, r.URL.Path, r.Header.Clone(), form})
	answer := s.answer
	s.mu.Unlock()
	switch {
	case answer != nil:
		answer(w, r)
	case r.Method != http.MethodPost || r.URL.Path != "/v1/checkout/sessions":
		Fail(w, http.StatusNotFound, "invalid_request_error", "", "Unrecognized request URL")
	case r.Header.Get("Authorization") != "Bearer "+Key:
		Fail(w, http.StatusUnauthorized, "invalid_request_error", "", "Invalid API Key provided: sk_test_****test")
	default:
		s.make(w, r, form)
	}
}

func (s *Stripe) make(w http.ResponseWriter, r *http.Request, form url.Values) {
	s.mu.Lock()
	key := r.Header.Get("Idempotency-Key")
	id, again := s.made[key]
	if !again {
		id = fmt.Sprintf("cs_test_%d", len(s.made)+1)
		s.made[key] = id
	}
	s.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{"id": id, "object": "checkout.session", "url": "https://checkout.stripe.com/c/pay/" + id, "mode": form.Get("mode"),
		"payment_status": "unpaid", "status": "open", "livemode": false, "client_reference_id": form.Get("client_reference_id")})
}

// Made counts the sessions.
func (s *Stripe) Made() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.made)
}

// Fail answers with an error as Stripe writes it.
func Fail(w http.ResponseWriter, status int, kind, code, message string) {
	w.Header().Set("Request-Id", "req_stripe")
	e := map[string]any{"type": kind, "message": message}
	if code != "" {
		e["code"] = code
	}
	reply(w, status, map[string]any{"error": e})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who left isn't told
}

// Paid is the event of a session that was paid, of the test mode and an older version of the API. Fields of change replace those of the session.
func Paid(session, namespace string, cents int64, change map[string]any) []byte {
	return Event("checkout.session.completed", session, namespace, cents, change)
}

// Event is one of any type.
func Event(kind, session, namespace string, cents int64, change map[string]any) []byte {
	of := map[string]any{"id": session, "object": "checkout.session", "mode": "payment", "payment_status": "paid", "status": "complete", "currency": "usd",
		"amount_subtotal": cents, "amount_total": cents, "livemode": false, "client_reference_id": namespace,
		"metadata": map[string]any{"persqld_namespace": namespace}, "payment_intent": "pi_1", "customer": nil}
	live := false
	for field, value := range change {
		of[field] = value
		if field == "livemode" {
			live = value.(bool)
		}
	}
	raw, err := json.Marshal(map[string]any{"id": "evt_" + session, "object": "event", "api_version": "2020-08-27", "created": 1_700_000_000, "type": kind,
		"livemode": live, "pending_webhooks": 1, "request": map[string]any{"id": nil, "idempotency_key": nil}, "data": map[string]any{"object": of}})
	if err != nil {
		panic(err) // a test's own fault
	}
	return raw
}

// Sign is the header Stripe-Signature of a body.
func Sign(secret string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%d.", at.Unix())
	mac.Write(body)
	return fmt.Sprintf("t=%d,v1=%s,v0=%064x", at.Unix(), hex.EncodeToString(mac.Sum(nil)), 0)
}
