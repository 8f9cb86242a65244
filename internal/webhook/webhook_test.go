package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/feed"
	"github.com/persqld/persqld/internal/outbound"
)

// world is a catalog with a database and a webhook, and its other end, which is no network.
type world struct {
	t       *testing.T
	cat     *catalog.Catalog
	ns      catalog.Namespace
	d       *catalog.Database
	hook    *catalog.Webhook
	options Options
	stop    func()

	mu     sync.Mutex
	status map[string]int // by URL; 204 where there is none, 0 hangs
	came   map[string][]string
	at     map[string][]time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	cat, err := catalog.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, cat: cat, status: map[string]int{}, came: map[string][]string{}, at: map[string][]time.Time{}}
	if w.ns, err = cat.CreateNamespace(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	w.d = w.database("shop")
	w.options = Options{Catalog: cat, Hub: feed.New(feed.Options{}), Way: w, BaseURL: "https://sql.example.com"}
	return w
}

func (w *world) database(slug string) *catalog.Database {
	d, _, err := w.cat.CreateDatabase(w.t.Context(), catalog.NewDatabase{NamespaceID: w.ns.ID, Slug: slug})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// makes makes a webhook that is told of low balances, which need no database.
func (w *world) makes(d *catalog.Database, url string) *catalog.Webhook {
	h, err := w.cat.CreateWebhook(w.t.Context(), d.ID, catalog.Webhook{Name: "w", URL: url, Events: catalog.EventBalanceLow, Enabled: true}, 0, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// says has something happen.
func (w *world) says(usd string) {
	if err := w.cat.BalanceLow(w.t.Context(), w.ns.ID, usd); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	url := r.URL.String()
	status, special := w.status[url]
	w.came[url] = append(w.came[url], string(b[bytes.Index(b, []byte("balanceUsd"))+13:len(b)-2]))
	w.at[url] = append(w.at[url], time.Now())
	w.mu.Unlock()
	switch {
	case !special:
		status = http.StatusNoContent
	case status == 0:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case status == 299:
		time.Sleep(900 * time.Millisecond)
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

func (w *world) answers(url string, status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status[url] = status
}

func (w *world) got(url string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.came[url])
}

// begins runs a Dispatcher until w.stop.
func (w *world) begins() *Dispatcher {
	d := New(w.options)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	w.stop = func() {
		cancel()
		<-done
	}
	return d
}

// bubble runs a test in a bubble of its own time.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f(t, w)
		w.stop()
		if err := w.cat.Close(); err != nil {
			t.Error(err)
		}
	})
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestBackoffAndParking(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const url = "https://a.example/"
		h := w.makes(w.d, url)
		w.answers(url, 500)
		w.begins()
		w.says("1")
		w.says("2")
		pass(time.Hour)
		w.mu.Lock()
		for i := 2; i < len(w.at[url]); i++ {
			last, this := w.at[url][i-1].Sub(w.at[url][i-2]), w.at[url][i].Sub(w.at[url][i-1])
			if this < last/2 || this > 4*last+time.Second { // jitter leaves half of each out at most
				t.Errorf("attempt %d came %v after the one before, that %v", i, this, last)
			}
		}
		if n := len(w.at[url]); n < 10 || n > 16 {
			t.Errorf("%d attempts in the first hour", n)
		}
		w.mu.Unlock()
		if got := w.got(url); slices.Contains(got, "2") {
			t.Error("the second was told before the first was taken")
		}
		// A restart changes nothing of the wait.
		n := len(w.got(url))
		w.stop()
		w.begins()
		pass(2 * time.Second)
		if more := len(w.got(url)) - n; more > 1 {
			t.Errorf("%d attempts at the start", more)
		}
		pass(26 * time.Hour)
		if n, err := w.cat.ParkedDeliveries(t.Context(), h.ID); n != 2 || err != nil {
			t.Errorf("%d messages are parked, %v", n, err)
		}
		n = len(w.got(url))
		if n > 70 {
			t.Errorf("%d attempts in a day", n)
		}
		w.says("3")
		pass(2 * time.Hour)
		if got := w.got(url); !slices.Contains(got, "2") || !slices.Contains(got, "3") {
			t.Errorf("told %v", got)
		}
		w.answers(url, 204)
		if n, err := w.cat.Replay(t.Context(), w.d.ID, h.ID, ""); n != 2 || err != nil {
			t.Fatalf("%d replayed, %v", n, err)
		}
		before := len(w.got(url))
		pass(time.Second) // at once, not after the wait
		if got := w.got(url)[before:]; !slices.Equal(got, []string{"3", "1", "2"}) {
			t.Errorf("told %v", got)
		}
	})
}

// Those that hang, and those that are merely slow, take their own namespace's places, so others are told in time.
func TestOnesThatHang(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.options.AtOnce = 8
		evil, err := w.cat.CreateNamespace(t.Context(), "evil")
		if err != nil {
			t.Fatal(err)
		}
		bad, _, err := w.cat.CreateDatabase(t.Context(), catalog.NewDatabase{NamespaceID: evil.ID, Slug: "bad"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 80 {
			url := fmt.Sprintf("https://hangs.example/%d", i)
			w.makes(bad, url)
			w.answers(url, []int{0, 299}[i%2]) // 299 is what takes its time
		}
		const url, near = "https://well.example/", "https://near.example/"
		w.makes(w.d, url)
		w.makes(w.database("near"), near)
		w.answers(near, 0) // one that hangs in the same namespace
		d := w.begins()
		for i := range 60 {
			for _, ns := range []string{evil.ID, w.ns.ID} {
				if err := w.cat.BalanceLow(t.Context(), ns, fmt.Sprint(i)); err != nil {
					t.Fatal(err)
				}
			}
			pass(time.Second)
			if got := w.got(url); len(got) != i+1 {
				t.Fatalf("a second after message %d told %v", i, got)
			}
		}
		pass(30 * time.Minute)
		if n := d.Failing(); n != 41 {
			t.Errorf("%d fail", n)
		}
		if n := len(w.got("https://hangs.example/1")); n != 60 {
			t.Errorf("a slow one was told %d messages", n)
		}
	})
}

// What was told stays told over a restart, and what wasn't is told then, in order.
func TestRestart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const url = "https://a.example/"
		h := w.makes(w.d, url)
		w.begins()
		w.says("1")
		pass(time.Second)
		w.stop()
		w.says("2")
		w.says("3")
		w.begins()
		pass(time.Second)
		if got := w.got(url); !slices.Equal(got, []string{"1", "2", "3"}) {
			t.Errorf("told %v", got)
		}
		// Disabled and deleted ones are told nothing, from that moment on.
		off := func(w *catalog.Webhook) error { w.Enabled = false; return nil }
		if _, err := w.cat.UpdateWebhook(t.Context(), w.d.ID, h.ID, off, -1); err != nil {
			t.Fatal(err)
		}
		w.says("4")
		pass(time.Minute)
		if n := len(w.got(url)); n != 3 {
			t.Errorf("a disabled webhook was told %v", w.got(url))
		}
		list, err := w.cat.Deliveries(t.Context(), catalog.DeliveryQuery{WebhookID: h.ID, Limit: 10})
		if err != nil || len(list) != 3 || list[0].State != catalog.Delivered || string(list[0].Content) != `{"balanceUsd":"3"}` {
			t.Errorf("the log is %+v %v", list, err)
		}
		w.makes(w.database("other"), "https://b.example/")
		w.says("5")
		pass(time.Second)
		if got := w.got("https://b.example/"); !slices.Equal(got, []string{"5"}) {
			t.Errorf("another database's webhook was told %v", got)
		}
	})
}

func TestSignatures(t *testing.T) {
	secrets := []string{"whsec_" + strings.Repeat("QUJD", 16), "whsec_" + strings.Repeat("REVG", 16)}
	body, at := []byte(`{"a":1}`), time.Now()
	signature, err := signatures(secrets, "msg_x", at, body)
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	header.Set("webhook-id", "msg_x")
	header.Set("webhook-timestamp", fmt.Sprint(at.Unix()))
	header.Set("webhook-signature", signature)
	for _, secret := range secrets {
		w, err := standardwebhooks.NewWebhook(secret)
		if err == nil {
			err = w.Verify(body, header)
		}
		if err != nil {
			t.Error(err)
		}
	}
	w, err := standardwebhooks.NewWebhook("whsec_" + strings.Repeat("R0hJ", 16))
	if err != nil || w.Verify(body, header) == nil {
		t.Errorf("another secret has signed it, %v", err)
	}
	for _, bad := range []string{"", "whsec_", "whsec_!"} {
		if _, err := signatures([]string{bad}, "x", at, body); !errors.Is(err, errSecret) {
			t.Errorf("secret %q: %v", bad, err)
		}
	}
}

// A name is judged by where it leads at the moment, whatever was said of it before.
func TestNamesAreLookedAtWhenConnecting(t *testing.T) {
	reached := 0
	answer := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ })
	plain, secure := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	defer plain.Close()
	defer secure.Close()
	here := netip.MustParsePrefix("127.0.0.0/8")
	here6 := netip.MustParsePrefix("::1/128")
	for _, url := range []string{plain.URL, secure.URL, strings.Replace(plain.URL, "127.0.0.1", "localhost", 1), strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), strings.Replace(plain.URL, "127.0.0.1", "127.1", 1)} {
		for _, networks := range []outbound.Networks{{}, {Any: true, Contains: netip.MustParsePrefix("10.0.0.0/8").Contains}} {
			o := newSender(networks, 5*time.Second, "").post(t.Context(), url, "msg_x", time.Now(), "", nil)
			if o.ok() || strings.Contains(url, "127.0.0.1") && !strings.Contains(o.reason, outbound.ErrAddress.Error()) {
				t.Errorf("%s: %+v", url, o)
			}
		}
	}
	if reached != 0 {
		t.Errorf("%d requests came through", reached)
	}
	t.Setenv("HTTP_PROXY", plain.URL)
	t.Setenv("HTTPS_PROXY", plain.URL)
	allowed := newSender(outbound.Networks{Any: true, Contains: func(a netip.Addr) bool { return here.Contains(a) || here6.Contains(a) }}, 5*time.Second, "")
	if o := allowed.post(t.Context(), plain.URL, "msg_x", time.Now(), "", nil); !o.ok() || reached != 1 {
		t.Errorf("an allowed one: %+v, reached %d", o, reached)
	}
	if o := allowed.post(t.Context(), "https://nowhere.invalid/?secret=hush", "msg_x", time.Now(), "", nil); o.ok() || strings.Contains(o.reason, "hush") || reached != 1 {
		t.Errorf("a name that leads nowhere: %+v, reached %d", o, reached)
	}
}

func TestLastOf(t *testing.T) {
	var all []catalog.FinishedDelivery
	for i := range 20 {
		all = append(all, catalog.FinishedDelivery{WebhookID: fmt.Sprint(i % 2), Delivery: catalog.Delivery{ID: fmt.Sprint(i), State: catalog.Delivered}})
	}
	all[1].State, all[4].Seq = catalog.DeliveryParked, 7
	ids := ""
	for _, f := range lastOf(all, 3) {
		ids += f.ID + " "
	}
	if want := "1 4 14 15 16 17 18 19 "; ids != want {
		t.Errorf("kept %s, want %s", ids, want)
	}
}

// Somebody who wants it to be tried at once is not put off by an attempt that is under way.
func TestTriedAtOnceMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const old, fresh = "https://old.example/", "https://new.example/"
		h := w.makes(w.d, old)
		w.answers(old, 0)
		d := w.begins()
		w.says("1")
		pass(5 * time.Minute)
		for began := len(w.got(old)); len(w.got(old)) == began; { // an attempt has begun, which takes 15 s
			pass(time.Second)
		}
		if _, err := w.cat.UpdateWebhook(t.Context(), w.d.ID, h.ID, func(h *catalog.Webhook) error { h.URL = fresh; return nil }, -1); err != nil {
			t.Fatal(err)
		}
		pass(17 * time.Second)
		if got := w.got(fresh); len(got) != 1 || d.Failing() != 0 {
			t.Errorf("told %v, %d fail", got, d.Failing())
		}
		// One that parked all it had rests.
		w.answers(fresh, 500)
		w.says("2")
		pass(30 * time.Hour)
		n := len(w.got(fresh))
		looks := d.turns.Load()
		pass(time.Hour)
		if len(w.got(fresh)) != n || d.turns.Load()-looks > 1 {
			t.Errorf("nothing is left to tell, and it looked %d times in an hour", d.turns.Load()-looks)
		}
	})
}

// 410 of a receiver that isn't the webhook's any more disables nothing.
func TestGoneMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.makes(w.d, "https://old.example/")
		d := w.begins()
		url := func(h *catalog.Webhook) error { h.URL = "https://new.example/"; return nil }
		if _, err := w.cat.UpdateWebhook(t.Context(), w.d.ID, h.ID, url, -1); err != nil {
			t.Fatal(err)
		}
		d.gone(t.Context(), h) // of an attempt that began before
		now, err := w.cat.DatabaseByID(w.d.ID)
		if err != nil {
			t.Fatal(err)
		}
		if h, err = now.Webhook(h.ID); err != nil || !h.Enabled {
			t.Errorf("%+v %v", h, err)
		}
		d.gone(t.Context(), h)
		if now, err = w.cat.DatabaseByID(w.d.ID); err != nil || now.Webhooks.All()[0].Enabled {
			t.Errorf("it goes on, %v", err)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for text, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-1": 0, "100000": time.Hour, "x": 0, time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat): 90 * time.Second, "Sun, 06 Nov 1994 08:49:37 GMT": 0} {
			if got := retryAfter(text); got != want {
				t.Errorf("%q: %v, want %v", text, got, want)
			}
		}
	})
}
