package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/checkout"
	"github.com/persqld/persqld/internal/checkout/checkouttest"
)

// till is a ledger in memory: once for each Ref, of namespaces that are there.
type till struct {
	mu      sync.Mutex
	catalog *catalog.Catalog
	credits map[string]catalog.Credit
	calls   int
	broken  error
}

func (l *till) credit(_ context.Context, c catalog.Credit) (added bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.broken != nil {
		return false, l.broken
	}
	found := false
	for _, ns := range l.catalog.Namespaces() {
		found = found || ns.ID == c.NamespaceID
	}
	if !found {
		return false, fmt.Errorf("credit: %w", catalog.ErrNamespaceNotFound)
	}
	if _, there := l.credits[c.Ref]; there {
		return false, nil
	}
	l.credits[c.Ref] = c
	return true, nil
}

// shop is a server that takes payments, with a namespace and its members.
type shop struct {
	t       *testing.T
	door    *api.Server
	catalog *catalog.Catalog
	stripe  *checkouttest.Stripe
	till    *till
	ns      catalog.Namespace
	cookies map[string]string // by role
	now     time.Time
	log     bytes.Buffer
}

func openShop(t *testing.T, change func(*api.Options)) *shop {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	s := &shop{t: t, stripe: checkouttest.New(t), cookies: map[string]string{}, now: time.Now()}
	var err error
	s.catalog, err = catalog.Open(ctx, filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
	must(err)
	t.Cleanup(func() { s.catalog.Close() })
	for _, role := range []string{catalog.MemberOwner, catalog.MemberAdmin, catalog.MemberEditor, catalog.MemberViewer} {
		u, err := s.catalog.CreateUser(ctx, catalog.NewUser{Email: role + "@example.com", PasswordHash: "hash"})
		must(err)
		if role == catalog.MemberOwner {
			s.ns, err = s.catalog.CreateNamespaceOf(ctx, "acme", u.ID)
		} else {
			_, err = s.catalog.AddMember(ctx, s.ns.ID, u.ID, role)
		}
		must(err)
		_, cookie, err := s.catalog.CreateSession(ctx, catalog.NewSession{UserID: u.ID, PasswordHash: "hash"})
		must(err)
		s.cookies[role] = cookie
	}
	pay, err := checkout.New(checkout.Options{Key: checkouttest.Key, WebhookSecret: checkouttest.WebhookSecret, Endpoint: s.stripe.URL, Now: func() time.Time { return s.now }})
	must(err)
	s.till = &till{catalog: s.catalog, credits: map[string]catalog.Credit{}}
	opt := api.Options{Catalog: s.catalog, Checkout: pay, Credit: s.till.credit, BaseURL: "https://sql.example.com", Now: func() time.Time { return s.now },
		Logger: slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&opt)
	}
	s.door = api.New(opt)
	return s
}

type reply struct {
	*httptest.ResponseRecorder
	Word  string `json:"code"`
	Error string
	Hint  string
	Data  struct {
		URL, ID  string
		Received bool
	}
}

func (s *shop) send(method, path, body string, headers ...string) *reply {
	s.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a := &reply{ResponseRecorder: httptest.NewRecorder()}
	s.door.ServeHTTP(a, r)
	if a.Header().Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(a.Body.Bytes(), a); err != nil {
			s.t.Errorf("%s %s: %v in %s", method, path, err, a.Body)
		}
	}
	return a
}

func (s *shop) begin(role, body string) *reply {
	s.t.Helper()
	return s.send(http.MethodPost, "/api/namespaces/acme/billing/checkout", body, "Cookie", "persql_session="+s.cookies[role])
}

func (s *shop) event(body []byte, signature string) *reply {
	s.t.Helper()
	return s.send(http.MethodPost, "/api/billing/stripe", string(body), "Stripe-Signature", signature)
}

func (s *shop) signed(body []byte) *reply {
	s.t.Helper()
	return s.event(body, checkouttest.Sign(checkouttest.WebhookSecret, s.now, body))
}

func (a *reply) fails(t *testing.T, status int, code string) {
	t.Helper()
	if a.Code != status || a.Word != code || a.Error == "" || (status == 503) != (a.Header().Get("Retry-After") != "") && status != 429 {
		t.Errorf("got %d %s, want %d %s", a.Code, a.Body, status, code)
	}
}

func TestStartCheckout(t *testing.T) {
	s := openShop(t, nil)
	a := s.begin(catalog.MemberAdmin, `{"usd":25.5}`)
	if a.Code != 200 || a.Data.ID != "cs_test_1" || a.Data.URL != "https://checkout.stripe.com/c/pay/cs_test_1" {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	sent := s.stripe.Calls()[0].Form
	for field, want := range map[string]string{"line_items[0][price_data][unit_amount]": "2550", "client_reference_id": s.ns.ID, "metadata[persqld_namespace]": s.ns.ID,
		"success_url": "https://sql.example.com/api/billing/checkout/done", "cancel_url": "https://sql.example.com/api/billing/checkout/cancelled"} {
		if sent.Get(field) != want {
			t.Errorf("%s is %q, want %q", field, sent.Get(field), want)
		}
	}
	log, err := s.catalog.Audit(t.Context(), catalog.AuditQuery{NamespaceID: s.ns.ID, Action: "billing.checkout_started", Limit: 10})
	if err != nil || len(log) != 1 {
		t.Fatal(log, err)
	}
	if e := log[0]; e.Actor.Type != catalog.ActorUser || e.Actor.Address == "" || e.TargetID != s.ns.ID || e.Metadata["usd"] != 25.5 || e.Metadata["session"] != "cs_test_1" {
		t.Errorf("%+v", e)
	}
	if a := s.begin(catalog.MemberOwner, `{"usd":5}`); a.Code != 200 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if s.till.calls != 0 {
		t.Error("something was credited already")
	}
	if strings.Contains(s.log.String(), checkouttest.Key) || strings.Contains(s.log.String(), checkouttest.WebhookSecret) {
		t.Error("the log has a secret")
	}

	for role, code := range map[string]string{catalog.MemberEditor: "role_not_allowed", catalog.MemberViewer: "role_not_allowed"} {
		s.begin(role, `{"usd":25}`).fails(t, 403, code)
	}
	path := "/api/namespaces/acme/billing/checkout"
	s.send(http.MethodPost, path, `{"usd":25}`).fails(t, 401, "unauthorized")
	s.send(http.MethodPost, path, `{"usd":25}`, "Cookie", "persql_session="+s.cookies["owner"], "Sec-Fetch-Site", "cross-site").fails(t, 403, "forbidden")
	s.send(http.MethodPost, "/api/namespaces/other/billing/checkout", `{"usd":25}`, "Cookie", "persql_session="+s.cookies["owner"]).fails(t, 404, "not_found")
	if n := s.stripe.Made(); n != 2 {
		t.Errorf("%d sessions", n)
	}
}

func TestAmounts(t *testing.T) {
	s := openShop(t, nil)
	for body, cents := range map[string]string{`{"usd":5}`: "500", `{"usd":5.00}`: "500", `{"usd":5.1}`: "510", `{"usd":19.99}`: "1999", `{"usd":10000}`: "1000000", `{"usd":64.10000000000000000000000}`: "6410"} {
		before := len(s.stripe.Calls())
		if a := s.begin("owner", body); a.Code != 200 {
			t.Errorf("%s: %d %s", body, a.Code, a.Body)
		} else if got := s.stripe.Calls()[before].Form.Get("line_items[0][price_data][unit_amount]"); got != cents {
			t.Errorf("%s: %s cents", body, got)
		}
	}
	made := s.stripe.Made()
	for _, body := range []string{"", "{}", "null", "[]", "25", `{"usd":null}`, `{"usd":"25"}`, `{"usd":4.99}`, `{"usd":10000.01}`, `{"usd":0}`, `{"usd":-25}`, `{"usd":25.001}`, `{"usd":1e3}`,
		`{"usd":2.5e1}`, `{"usd":99999999999999999999}`, `{"usd":1e400}`, `{"usd":true}`, `{"usd":[25]}`, `{"usd":{"usd":25}}`, `{"usd":25,"usd":30}`, `{"usd":25,"currency":"eur"}`, `{"USD":25}`, `{"usd":25`} {
		a := s.begin("owner", body)
		if a.Code != 400 || a.Word != "bad_request" && a.Word != "bad_json" {
			t.Errorf("%s: %d %s", body, a.Code, a.Body)
		}
		if strings.HasPrefix(body, `{"usd":4`) && (!strings.Contains(a.Error, "5 to 10,000") || a.Hint == "") {
			t.Errorf("%s: %s", body, a.Body)
		}
	}
	s.begin("owner", `{"usd":25,"x":"`+strings.Repeat("x", 64_000)+`"}`).fails(t, 413, "request_too_large")
	if s.stripe.Made() != made {
		t.Error("a session was made")
	}
}

func TestStartCheckoutFails(t *testing.T) {
	s := openShop(t, nil)
	s.stripe.Answer(func(w http.ResponseWriter, _ *http.Request) {
		checkouttest.Fail(w, 401, "invalid_request_error", "", "Invalid API Key provided: "+checkouttest.Key)
	})
	a := s.begin("owner", `{"usd":25}`)
	a.fails(t, 503, "stripe_refused")
	s.stripe.Answer(func(w http.ResponseWriter, _ *http.Request) {
		checkouttest.Fail(w, 500, "api_error", "", "sorry "+checkouttest.Key)
	})
	b := s.begin("owner", `{"usd":25}`)
	b.fails(t, 503, "stripe_unreachable")
	for _, text := range []string{a.Body.String(), b.Body.String(), s.log.String()} {
		if strings.Contains(text, checkouttest.Key) {
			t.Errorf("%s has the key", text)
		}
	}
	if strings.Contains(a.Body.String(), "API Key") || !strings.Contains(s.log.String(), "Invalid API Key") || !strings.Contains(s.log.String(), "req_stripe") {
		t.Errorf("Stripe's reason is the operator's: %s; %s", a.Body, s.log.String())
	}
	// As often as a user may, and no more; others go on.
	s.stripe.Answer(nil)
	for range 8 {
		if a := s.begin("owner", `{"usd":25}`); a.Code != 200 {
			t.Errorf("%d %s", a.Code, a.Body)
		}
	}
	a = s.begin("owner", `{"usd":25}`)
	a.fails(t, 429, "too_many_attempts")
	if a.Header().Get("Retry-After") != "6" {
		t.Errorf("Retry-After %q", a.Header().Get("Retry-After"))
	}
	if a := s.begin("admin", `{"usd":25}`); a.Code != 200 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	// Nobody pays for a namespace that went while Stripe was asked.
	s.stripe.Answer(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := s.catalog.DeleteNamespace(context.Background(), catalog.Deletion{NamespaceID: s.ns.ID, Force: true}); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, `{"id":"cs_late","object":"checkout.session","url":"https://checkout.stripe.com/late"}`)
	})
	s.begin("admin", `{"usd":25}`).fails(t, 404, "not_found")
}

func TestNoCheckout(t *testing.T) {
	paid := checkouttest.Paid("cs_1", "ns_1", 2550, nil)
	for name, change := range map[string]func(*api.Options){
		"no key":      func(o *api.Options) { o.Checkout = nil },
		"no balances": func(o *api.Options) { o.Credit = nil },
	} {
		s := openShop(t, change)
		a := s.begin("owner", `{"usd":25}`)
		a.fails(t, 404, "checkout_not_configured")
		if !strings.Contains(a.Hint, "PERSQLD_STRIPE_KEY") || s.stripe.Made() > 0 {
			t.Errorf("%s: %s", name, a.Body)
		}
		s.begin("viewer", `{"usd":25}`).fails(t, 404, "checkout_not_configured")
		s.signed(paid).fails(t, 404, "checkout_not_configured")
		if s.till.calls > 0 {
			t.Errorf("%s: credited", name)
		}
	}
}

func TestStripeEvent(t *testing.T) {
	s := openShop(t, nil)
	paid := checkouttest.Paid("cs_1", s.ns.ID, 2550, nil)
	want := catalog.Credit{NamespaceID: s.ns.ID, Nanos: 25_500_000_000, Kind: "checkout", Ref: "stripe:cs_1", Note: "Stripe Checkout"}
	// Once, however often it comes, by whichever event, and from a browser's point of view wherever.
	for i, body := range [][]byte{paid, paid, checkouttest.Event("checkout.session.async_payment_succeeded", "cs_1", s.ns.ID, 2550, nil)} {
		if a := s.signed(body); a.Code != 200 || !a.Data.Received {
			t.Errorf("%d: %d %s", i, a.Code, a.Body)
		}
	}
	a := s.send(http.MethodPost, "/api/billing/stripe", string(paid), "Stripe-Signature", checkouttest.Sign(checkouttest.WebhookSecret, s.now, paid),
		"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Cookie", "persql_session=x", "Authorization", "Bearer x")
	if a.Code != 200 || a.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if len(s.till.credits) != 1 || s.till.credits["stripe:cs_1"] != want || s.till.calls != 4 {
		t.Fatalf("%+v in %d calls", s.till.credits, s.till.calls)
	}

	// What tells of no payment of this server's is taken, and changes nothing.
	for _, body := range [][]byte{
		checkouttest.Paid("cs_2", s.ns.ID, 2550, map[string]any{"payment_status": "unpaid"}),
		checkouttest.Event("checkout.session.expired", "cs_2", s.ns.ID, 2550, nil),
		checkouttest.Event("invoice.paid", "cs_2", s.ns.ID, 2550, nil),
		checkouttest.Paid("cs_2", "", 2550, nil),
	} {
		if a := s.signed(body); a.Code != 200 || !a.Data.Received {
			t.Errorf("%s: %d %s", body, a.Code, a.Body)
		}
	}
	if s.till.calls != 4 {
		t.Errorf("%d calls", s.till.calls)
	}
	// A namespace that isn't there: nothing to send again, and a line for the operator.
	if a := s.signed(checkouttest.Paid("cs_3", "ns_gone", 990, nil)); a.Code != 200 || !a.Data.Received {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if log := s.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "ns_gone") || !strings.Contains(log, "cs_3") || !strings.Contains(log, "usd=9.9") {
		t.Errorf("the log: %s", log)
	}
	// What can't be written now comes again.
	s.till.broken = errors.New("no room for secrets")
	again := checkouttest.Paid("cs_4", s.ns.ID, 500, nil)
	a = s.signed(again)
	a.fails(t, 503, "credit_not_written")
	if strings.Contains(a.Body.String(), "no room") {
		t.Errorf("%s", a.Body)
	}
	s.till.broken = catalog.ErrDiskFull
	s.signed(again).fails(t, 503, "credit_not_written")
	s.till.broken = nil
	if a := s.signed(again); a.Code != 200 || s.till.credits["stripe:cs_4"].Nanos != 5_000_000_000 || len(s.till.credits) != 2 {
		t.Errorf("%d %s, %+v", a.Code, a.Body, s.till.credits)
	}
	if strings.Contains(s.log.String(), checkouttest.WebhookSecret) {
		t.Error("the log has the secret")
	}
}

func TestStripeEventIsRefused(t *testing.T) {
	s := openShop(t, func(o *api.Options) { o.RatePerAddress = 1000 })
	change := func(field string, value any) []byte {
		return checkouttest.Paid("cs_1", s.ns.ID, 2550, map[string]any{field: value})
	}
	paid := change("mode", "payment")
	good := checkouttest.Sign(checkouttest.WebhookSecret, s.now, paid)
	s.event(paid, "").fails(t, 400, "invalid_signature")
	s.event(paid, "t=1,v1="+strings.Repeat("0", 64)).fails(t, 400, "invalid_signature")
	s.event(paid, checkouttest.Sign("whsec_other", s.now, paid)).fails(t, 400, "invalid_signature")
	s.event(bytes.Replace(paid, []byte("2550"), []byte("9550"), 1), good).fails(t, 400, "invalid_signature")
	s.event(append(paid, ' '), good).fails(t, 400, "invalid_signature")
	s.event(nil, good).fails(t, 400, "invalid_signature")
	s.event(paid, checkouttest.Sign(checkouttest.WebhookSecret, s.now.Add(-301*time.Second), paid)).fails(t, 400, "stale_signature")
	s.signed([]byte("{}")).fails(t, 400, "invalid_event")
	s.signed(change("currency", "eur")).fails(t, 400, "wrong_currency")
	s.signed(change("amount_total", 0)).fails(t, 400, "wrong_amount")
	s.signed(change("amount_total", -1)).fails(t, 400, "wrong_amount")
	s.signed(change("livemode", true)).fails(t, 400, "wrong_mode")
	s.signed(change("padding", strings.Repeat("x", 1_000_000))).fails(t, 413, "request_too_large")
	// Of unknown length too.
	r := httptest.NewRequest(http.MethodPost, "/api/billing/stripe", io.MultiReader(strings.NewReader(strings.Repeat("x", 1_000_001))))
	w := httptest.NewRecorder()
	if s.door.ServeHTTP(w, r); w.Code != 413 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for range 1000 {
		s.event(paid, "")
	}
	s.event(paid, good).fails(t, 429, "too_many_requests")
	if s.till.calls != 0 || strings.Count(s.log.String(), "was refused") != 10 {
		t.Errorf("%d credits, the log: %d bytes", s.till.calls, s.log.Len())
	}
	s.now = s.now.Add(time.Minute)
	if a := s.signed(change("padding", strings.Repeat("x", 900_000))); a.Code != 200 || s.till.calls != 1 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if w := s.send(http.MethodGet, "/api/billing/stripe", ""); w.Code != 405 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRacingEvents(t *testing.T) {
	s := openShop(t, nil)
	server := httptest.NewServer(s.door)
	defer server.Close()
	paid := checkouttest.Paid("cs_1", s.ns.ID, 2550, nil)
	signature := checkouttest.Sign(checkouttest.WebhookSecret, s.now, paid)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			r, err := http.NewRequest(http.MethodPost, server.URL+"/api/billing/stripe", bytes.NewReader(paid))
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Stripe-Signature", signature)
			a, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			a.Body.Close()
			if a.StatusCode != 200 {
				t.Errorf("status %d", a.StatusCode)
			}
		})
	}
	all.Wait()
	if s.till.calls != 20 || len(s.till.credits) != 1 || s.till.credits["stripe:cs_1"].Nanos != 25_500_000_000 {
		t.Errorf("%d calls, %+v", s.till.calls, s.till.credits)
	}
}

// A client that hangs up has its event credited all the same.
func TestStripeHangsUp(t *testing.T) {
	var s *shop
	var over error
	ctx, hangUp := context.WithCancel(t.Context())
	s = openShop(t, func(o *api.Options) {
		o.Credit = func(ctx context.Context, c catalog.Credit) (bool, error) {
			hangUp()
			over = ctx.Err()
			return s.till.credit(ctx, c)
		}
	})
	paid := checkouttest.Paid("cs_1", s.ns.ID, 2550, nil)
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/api/billing/stripe", bytes.NewReader(paid))
	r.Header.Set("Stripe-Signature", checkouttest.Sign(checkouttest.WebhookSecret, s.now, paid))
	s.door.ServeHTTP(httptest.NewRecorder(), r)
	if over != nil || len(s.till.credits) != 1 {
		t.Errorf("%v, %+v", over, s.till.credits)
	}
}

func TestCheckoutPage(t *testing.T) {
	s := openShop(t, nil)
	for outcome, text := range map[string]string{"done": "Thank you", "cancelled": "Nothing was paid"} {
		a := s.send(http.MethodGet, "/api/billing/checkout/"+outcome+"?session=<script>", "")
		if a.Code != 200 || !strings.Contains(a.Body.String(), "<h1>"+text+"</h1>") || strings.Contains(a.Body.String(), "script") ||
			!strings.HasPrefix(a.Header().Get("Content-Security-Policy"), "default-src 'none'") || a.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s: %d %v %s", outcome, a.Code, a.Header(), a.Body)
		}
	}
	s.send(http.MethodGet, "/api/billing/checkout/else", "").fails(t, 404, "not_found")
}
