package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/sqlite"
)

// toldMessage is a message that a receiver was sent.
type toldMessage struct {
	ID, Type, Database, Table, Kind, ApprovalID, ApprovalURL, Status, BalanceUSD string
	TS                                                                           time.Time
	Seq, Changes                                                                 int64
	Resync                                                                       bool
	Hits                                                                         []any

	header http.Header
	body   []byte
}

func (m *toldMessage) short() string {
	switch {
	case m.Resync:
		return "resync"
	case m.Type == "row.change":
		return fmt.Sprintf("%s %s %d", m.Kind, m.Table, m.Changes)
	}
	return strings.TrimSpace(m.Type + " " + m.Status)
}

// receiver is a webhook's other end.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	took   []*toldMessage // that it has answered with 2xx
	saw    int            // requests
	answer http.HandlerFunc
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// answers has the receiver answer in another way than with 204; nil for that again.
func (r *receiver) answers(h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = h
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	b, err := io.ReadAll(req.Body)
	if err != nil {
		return // the server was killed
	}
	r.mu.Lock()
	r.saw++
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		req.Body = io.NopCloser(bytes.NewReader(b))
		answer(w, req)
		return
	}
	r.take(w, req, b)
}

// take takes a message.
func (r *receiver) take(w http.ResponseWriter, req *http.Request, b []byte) {
	m := &toldMessage{header: req.Header.Clone(), body: b}
	if json.Unmarshal(b, m) != nil || req.Method != http.MethodPost {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	r.mu.Lock()
	r.took = append(r.took, m)
	r.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) list() []*toldMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.took)
}

// told waits for so many messages, and returns all of them in short.
func (r *receiver) told(t testing.TB, n int) []string {
	t.Helper()
	eventually(t, 20*time.Second, func() bool { return len(r.list()) >= n })
	var all []string
	for _, m := range r.list() {
		all = append(all, m.short())
	}
	return all
}

// hears fails the test where the receiver is told anything but this, in this order.
func (r *receiver) hears(t testing.TB, want ...string) {
	t.Helper()
	if got := r.told(t, len(want)); !slices.Equal(got, want) {
		t.Fatalf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// seen waits until so many requests have come.
func (r *receiver) seen(t testing.TB, n int) {
	t.Helper()
	if !eventually(t, 20*time.Second, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.saw >= n }) {
		t.Fatalf("fewer than %d requests have come", n)
	}
}

const allowHere = "PERSQLD_ALLOW_NETWORKS=127.0.0.0/8"

// hook makes a webhook and returns its path.
func hook(d *harness.DB, url string, more body) (path string, made *harness.Answer) {
	b := body{"name": "test", "url": url}
	for k, v := range more {
		b[k] = v
	}
	made = d.Post(d.Path("webhooks"), b).OK()
	return d.Path("webhooks/" + made.Str("data.id")), made
}

// verify fails the test where the secret hasn't signed the message.
func verify(t testing.TB, secret string, m *toldMessage) {
	t.Helper()
	w, err := standardwebhooks.NewWebhook(secret)
	if err == nil {
		err = w.Verify(m.body, m.header)
	}
	if err != nil {
		t.Errorf("message %s: %v", m.body, err)
	}
}

func TestWebhook(t *testing.T) {
	row(t, "DP-HOOK-1", "DP-HOOK-2", "DP-HOOK-3", "DP-HOOK-4", "DP-HOOK-7")
	o := newOffice(t, allowHere)
	d := newDB(t, o.admin)
	d.Batch(true, "CREATE TABLE orders(id INTEGER PRIMARY KEY, a)", "CREATE TABLE items(id INTEGER PRIMARY KEY)", "CREATE TABLE log(a)", "CREATE TRIGGER t AFTER INSERT ON orders BEGIN INSERT INTO log VALUES(new.a); END").OK()
	all, some := newReceiver(t), newReceiver(t)
	path, made := hook(d, all.URL+"/all?x=1", nil)
	secret := made.Str("data.secret")
	if !strings.HasPrefix(secret, "whsec_") || len(secret) != 70 {
		t.Errorf("the secret is %q", secret)
	}
	hook(d, some.URL, body{"tables": []string{"ORDERS"}, "events": []string{"update", "schema"}})

	d.Must("INSERT INTO orders VALUES(1, 'x'), (2, 'y')")
	d.Query("INSERT INTO orders VALUES(3, 'z'), (1, 'z')").Fails(http.StatusBadRequest, "unique_violation")
	d.Must("UPDATE orders SET a='w' WHERE id=1")
	d.Must("UPDATE orders SET a='w' WHERE id=5") // none
	d.Must("DELETE FROM log")
	d.Must("ALTER TABLE orders ADD COLUMN b")
	all.hears(t, "insert orders 2", "insert log 2", "update orders 1", "delete log 2", "schema orders 1")
	some.hears(t, "update orders 1", "schema orders 1")
	for _, m := range all.list() {
		verify(t, secret, m)
		if m.Database != "default:"+d.Slug || time.Since(m.TS).Abs() > time.Minute || m.ID != m.header.Get("webhook-id") || m.Seq == 0 {
			t.Errorf("message %s, header %v", m.body, m.header)
		}
		if strings.Contains(string(m.body), "w") && strings.Contains(string(m.body), `"a"`) {
			t.Errorf("a row is in %s", m.body)
		}
	}

	// Rotated: both secrets sign for a while.
	rotated := d.Post(path+"/rotate-secret", nil).OK().Str("data.secret")
	if rotated == secret || d.Get(path).OK().Str("data.secret") != rotated {
		t.Error("the secret is the same, or isn't the one that was told")
	}
	d.Must("INSERT INTO items VALUES(1)")
	all.told(t, 6)
	last := all.list()[5]
	verify(t, rotated, last)
	verify(t, secret, last)

	// Approvals.
	o.rule(d, body{"tableGlob": "items", "action": "require_approval"})
	held := d.Query("DELETE FROM items")
	o.approve(holds(held)).OK()
	got := all.told(t, 8)
	if !slices.Equal(got[6:], []string{"approval.required pending", "approval.resolved approved"}) {
		t.Fatalf("told %v", got[6:])
	}
	asked := all.list()[6]
	if asked.ApprovalID != held.Str("approvalId") || !strings.HasSuffix(asked.ApprovalURL, "/approve/"+asked.ApprovalID) || len(asked.Hits) != 1 || strings.Contains(string(asked.body), held.Str("approvalToken")) {
		t.Errorf("told %s", asked.body)
	}
	if page := o.boss.Get("/approve/" + asked.ApprovalID); page.Status != http.StatusOK || !strings.Contains(string(page.Raw), "DELETE FROM items") {
		t.Errorf("the page of an approval's id: %d", page.Status)
	}

	// Denied is resolved too; one of two who have to approve resolves nothing.
	o.boss.Post("/api/approvals/"+holds(d.Query("DELETE FROM items WHERE id=1"))+"/deny", body{}).OK()
	o.rule(d, body{"tableGlob": "items", "action": "require_approval", "approvers": 2})
	both := holds(d.Query("DELETE FROM items WHERE id=2"))
	o.approve(both).OK().Is("data.status", "pending")
	enrol(t, o.s, "second@example.com", "default", "editor").Post("/api/approvals/"+both+"/approve", body{}).OK().Is("data.status", "approved")
	if got = all.told(t, 12); !slices.Equal(got[8:], []string{"approval.required pending", "approval.resolved denied", "approval.required pending", "approval.resolved approved"}) {
		t.Fatalf("told %v", got[8:])
	}

	// The log, and again.
	log := d.Get(path + "/deliveries?limit=2").OK()
	if !eventually(t, 10*time.Second, func() bool {
		log = d.Get(path + "/deliveries?state=delivered").OK()
		return len(log.List("data")) == 12
	}) {
		t.Fatalf("the log has %d entries", len(log.List("data")))
	}
	log.Is("data.0.state", "delivered").Is("data.0.status", "204").Is("data.0.attempts", "1").Is("data.11.body.table", "orders")
	if n := len(d.Get(path + "/deliveries?limit=3&before=" + harness.Text(log.At("data.9.number"))).OK().List("data")); n != 2 {
		t.Errorf("%d entries before the tenth", n)
	}
	first := all.list()[0]
	d.Post(path+"/replay", body{"id": first.ID}).OK().Is("data.deliveries", "1")
	all.told(t, 13)
	if again := all.list()[12]; again.ID != first.ID || again.TS != first.TS {
		t.Errorf("replayed %s, want %s", again.body, first.body)
	}
	d.Post(path+"/replay", nil).OK().Is("data.deliveries", "0")

	// Disabled: what happens meanwhile isn't told.
	d.Do("PATCH", path, body{"enabled": false}).OK().Is("data.enabled", "false").Is("data.name", "test")
	d.Must("UPDATE orders SET b=1")
	d.Do("PATCH", path, body{"enabled": true, "events": []string{"insert"}, "tables": nil}).OK().Is("data.tables", "null")
	d.Must("INSERT INTO log VALUES(2)")
	if got := all.told(t, 14); got[13] != "insert log 1" {
		t.Errorf("told %v", got[13:])
	}
	d.Do(http.MethodDelete, path, nil).OK().Is("data.deleted", "true")
	d.Get(path).Fails(http.StatusNotFound, "not_found")
	d.Must("INSERT INTO log VALUES(3)")
	some.told(t, 3)
	if n := len(all.list()); n != 14 {
		t.Errorf("a deleted webhook was told %v", all.told(t, 15)[14:])
	}
}

func TestWebhookInput(t *testing.T) {
	row(t, "DP-HOOK-5", "DP-HOOK-6")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MAX_WEBHOOKS=2"}})
	admin := s.Client(t, harness.Token)
	d := newDB(t, admin)
	d.Must("CREATE TABLE t(a)")
	for _, url := range []string{
		"", "x", "ftp://example.com/", "https://", "https:///x", "https:example.com", "http://example.com/", "https://user:pw@example.com/", "https://example.com/#x", "https://example.com:0/", "https://example.com:99999/",
		"https://" + strings.Repeat("x", 2048) + ".com/", "https://localhost/", "https://LOCALHOST./", "https://a.localhost/", "https://127.0.0.1/", "https://127.1.2.3/", "https://10.0.0.1/", "https://172.16.0.1/", "https://192.168.0.1:8080/",
		"https://169.254.169.254/latest/meta-data", "https://100.64.0.1/", "https://0.0.0.0/", "https://224.0.0.1/", "https://255.255.255.255/", "https://192.0.2.1/", "https://[::1]/", "https://[::]/", "https://[fe80::1]/", "https://[fd00::1]/",
		"https://[::ffff:127.0.0.1]/", "https://[::127.0.0.1]/", "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://[ff02::1]/", "https://[2001:db8::1]/", "https://exa mple.com/", "https://example.com:x/",
	} {
		d.Post(d.Path("webhooks"), body{"name": "x", "url": url}).Fails(http.StatusBadRequest, "invalid_webhook")
	}
	for _, b := range []body{{"name": "", "url": "https://example.com/"}, {"url": "https://example.com/"}, {"name": "x"}, {"events": []string{"x"}}, {"events": []string{}}, {"events": "insert"}, {"tables": []string{}}, {"tables": 7}} {
		if b["name"] == nil && b["url"] == nil {
			b["name"], b["url"] = "x", "https://example.com/"
		}
		d.Post(d.Path("webhooks"), b).Fails(http.StatusBadRequest, "invalid_webhook")
	}
	for _, b := range []body{{"tables": []string{""}}, {"name": "a\nb"}, {"name": strings.Repeat("x", 201)}} {
		if b["name"] == nil {
			b["name"] = "x"
		}
		b["url"] = "https://example.com/"
		d.Post(d.Path("webhooks"), b).Fails(http.StatusBadRequest, "bad_request")
	}
	d.Post(d.Path("webhooks"), body{"name": "x", "url": "https://example.com/", "event": []string{"insert"}}).Fails(http.StatusBadRequest, "bad_json")
	d.Post(d.Path("webhooks"), body{"name": "x", "url": "https://example.com/"}, "Plan-Key: x").Fails(http.StatusBadRequest, "invalid_idempotency_key")
	for _, call := range [][2]string{{"PATCH", ""}, {"DELETE", ""}, {"POST", "/rotate-secret"}, {"POST", "/replay"}} {
		d.Do(call[0], d.Path("webhooks/wh_none"+call[1]), body{}, "Plan-Key: x").Fails(http.StatusBadRequest, "invalid_idempotency_key")
	}
	// Reached only when something happens, of which this is not told.
	path, _ := hook(d, "https://example.com/", body{"events": []string{"balance_low"}})
	hook(d, "https://192.0.3.1:8443/", body{"enabled": false})
	d.Post(d.Path("webhooks"), body{"name": "x", "url": "https://example.com/"}).Fails(http.StatusConflict, "too_many_webhooks").Tells("PERSQLD_MAX_WEBHOOKS")
	if n := len(d.Get(d.Path("webhooks")).OK().List("data")); n != 2 {
		t.Errorf("%d webhooks", n)
	}
	d.Do("PATCH", path, body{"url": "https://10.1.1.1/"}).Fails(http.StatusBadRequest, "invalid_webhook").Tells("PERSQLD_ALLOW_NETWORKS")
	d.Do("PATCH", path, body{"name": ""}).Fails(http.StatusBadRequest, "invalid_webhook")
	d.Get(path+"/deliveries?state=x").Fails(http.StatusBadRequest, "bad_request")
	d.Get(path+"/deliveries?before=0").Fails(http.StatusBadRequest, "bad_request")
	d.Get(path+"/deliveries?limit=501").Fails(http.StatusBadRequest, "bad_request")
	d.Post(path+"/replay", body{"id": "msg_none"}).Fails(http.StatusNotFound, "not_found")
	for _, role := range []body{{"role": "readwrite"}, {"role": "readonly"}, {"role": "admin", "tableScope": []string{"t"}}, {"role": "admin", "claims": body{"user_id": "7"}}} {
		role["name"] = "x"
		low := admin.As(admin.Post("/v1/tokens", role).OK().Str("data.token"))
		for _, call := range [][2]string{{"GET", d.Path("webhooks")}, {"POST", d.Path("webhooks")}, {"GET", path}, {"PATCH", path}, {"DELETE", path}, {"POST", path + "/rotate-secret"}, {"GET", path + "/deliveries"}, {"POST", path + "/replay"}} {
			if a := low.Do(call[0], call[1], body{}); a.Status != http.StatusForbidden {
				t.Errorf("%v: %s %s: %d %s", role, call[0], call[1], a.Status, a.Raw)
			}
		}
	}
	// Another database's webhook is none of this one's.
	other := newDB(t, admin)
	other.Get(other.Path("webhooks/"+path[strings.LastIndex(path, "/")+1:])).Fails(http.StatusNotFound, "not_found")

	// One that could not be made leaves nothing behind: the database keeps its changes as long as for anybody who has listened, and no longer.
	spare := newDB(t, admin)
	spare.Must("CREATE TABLE t(a)")
	spare.Post(spare.Path("webhooks"), body{"name": "a\x01b", "url": "https://example.com/"}).Fails(http.StatusBadRequest, "bad_request")
	id := databaseID(t, admin, spare.Slug)
	s.Stop(t)
	file, err := sqlite.OpenDriver(fileOf(t, filepath.Join(s.Data, "db"), id), sqlite.DriverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var until int64
	if err := file.QueryRow("SELECT at FROM sqlite_persql_feed_v1 WHERE seq=0").Scan(&until); err != nil || until > time.Now().Add(25*time.Hour).UnixMilli() {
		t.Errorf("it is listened to until %v, %v", time.UnixMilli(until), err)
	}
}

// A receiver that fails is told everything later, in order, and holds back nobody else.
func TestWebhookReceiversThatFail(t *testing.T) {
	row(t, "DP-HOOK-8", "DP-HOOK-9")
	s := harness.Start(t, binary, harness.Options{Env: []string{allowHere, "PERSQLD_WEBHOOK_TIMEOUT=500ms", "PERSQLD_WEBHOOK_ATTEMPTS=4"}})
	d := newDB(t, s.Client(t, harness.Token))
	d.Must("CREATE TABLE t(a)")
	inner := newReceiver(t) // nobody may be led to it
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	failing := map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"answered 307: redirects are not followed": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, inner.URL, http.StatusTemporaryRedirect)
		},
		"in time": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		},
		"EOF": func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			c.Close()
		},
		"headers exceeded": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) },
		"malformed HTTP": func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			c.Write([]byte("what?\r\n\r\n"))
			c.Close()
		},
		"answered 503": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "1"); w.WriteHeader(503) },
	}
	receivers, paths := map[string]*receiver{}, map[string]string{}
	for what, answer := range failing {
		receivers[what] = newReceiver(t)
		receivers[what].answers(answer)
		paths[what], _ = hook(d, receivers[what].URL, nil)
	}
	// One that answers without end is well, and costs no more than others.
	endless := newReceiver(t)
	var wrote int64
	endless.answers(func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<16)
		for {
			n, err := w.Write(chunk)
			endless.mu.Lock()
			wrote += int64(n)
			endless.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	endlessPath, _ := hook(d, endless.URL, nil)
	well := newReceiver(t)
	hook(d, well.URL, nil)
	var want []string
	for range 40 {
		d.Must("INSERT INTO t VALUES(1)")
		want = append(want, "insert t 1")
	}
	well.hears(t, want...)
	for what, r := range receivers {
		r.seen(t, 2)
		shown := func() bool {
			a := d.Get(paths[what]).OK()
			return strings.Contains(a.Str("data.lastError"), what) && a.Str("data.nextAttemptAt") != "" && a.At("data.failures") != nil
		}
		if !eventually(t, 10*time.Second, shown) {
			t.Errorf("%s: shown %s", what, d.Get(paths[what]).Raw)
		}
	}
	endless.seen(t, 40)
	if !eventually(t, 10*time.Second, func() bool { return harness.Text(d.Get(endlessPath).OK().At("data.lastStatus")) == "200" }) {
		t.Errorf("one that answers without end: %s", d.Get(endlessPath).Raw)
	}
	endless.mu.Lock()
	if wrote > 40*(16<<20) {
		t.Errorf("%d bytes of answers were taken", wrote)
	}
	endless.mu.Unlock()
	if inner.saw != 0 {
		t.Error("a redirect was followed")
	}
	for what, r := range receivers {
		r.answers(nil)
		d.Post(paths[what]+"/replay", nil).OK().Is("data.deliveries", "0") // now, not after the wait
		r.hears(t, want...)
		if ids := r.list(); ids[0].ID == ids[1].ID || ids[0].Seq+1 != ids[1].Seq {
			t.Errorf("%s: %s, then %s", what, ids[0].body, ids[1].body)
		}
	}
	// Gone is gone.
	gone := newReceiver(t)
	gone.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	path, _ := hook(d, gone.URL, nil)
	d.Must("INSERT INTO t VALUES(1)")
	if !eventually(t, 10*time.Second, func() bool { return harness.Text(d.Get(path).OK().At("data.enabled")) == "false" }) {
		t.Error("a webhook whose receiver answers 410 goes on")
	}
	if !strings.Contains(string(s.Client(t, "").Get("/metrics").Raw), "persqld_webhook_failed_total") {
		t.Error("no metrics")
	}
}

// What nobody takes for long is parked, and told again when somebody asks.
func TestWebhookParks(t *testing.T) {
	row(t, "DP-HOOK-10")
	s := harness.Start(t, binary, harness.Options{Env: []string{allowHere, "PERSQLD_WEBHOOK_RETRY=1s", "PERSQLD_WEBHOOK_PARKED=3"}})
	d := newDB(t, s.Client(t, harness.Token))
	d.Must("CREATE TABLE t(a)")
	r := newReceiver(t)
	r.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	path, _ := hook(d, r.URL, nil)
	d.Must("INSERT INTO t VALUES(1)")
	d.Must("DELETE FROM t")
	parked := func(n string) bool {
		return eventually(t, 20*time.Second, func() bool { return harness.Text(d.Get(path).OK().At("data.parked")) == n })
	}
	if !parked("2") {
		t.Fatalf("shown %s", d.Get(path).Raw)
	}
	list := d.Get(path + "/deliveries?state=parked").OK()
	list.Is("data.1.body.kind", "insert").Is("data.0.status", "500").Is("data.0.error", "the receiver answered 500")
	r.answers(nil)
	d.Post(path+"/replay", nil).OK().Is("data.deliveries", "2")
	r.hears(t, "insert t 1", "delete t 1")
	if !parked("0") {
		t.Errorf("shown %s", d.Get(path).Raw)
	}
}

// What was committed is told in spite of kills, in order, and what is told twice has the same id.
func TestWebhookAfterCrash(t *testing.T) {
	row(t, "DP-HOOK-11")
	options := harness.Options{Env: []string{allowHere}}
	s := harness.Start(t, binary, options)
	options.Data = s.Data
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	r := newReceiver(t)
	_, made := hook(d, r.URL, nil)
	secret := made.Str("data.secret")
	for round := range 3 {
		var writers sync.WaitGroup
		for range 3 {
			writers.Go(func() {
				for {
					if a, err := c.Try("POST", d.Path("query"), harness.Body("INSERT INTO t VALUES(1)")); err != nil || a.Status != http.StatusOK {
						return // it was killed
					}
				}
			})
		}
		r.seen(t, (round+1)*20)
		s.Kill()
		writers.Wait()
		s = harness.Start(t, binary, options)
		c = s.Client(t, harness.Token)
		d = c.DB(d.Slug)
	}
	rows := d.One("SELECT count(*) FROM t")
	sum := func() string {
		told := map[string]int64{}
		for _, m := range r.list() {
			told[m.ID] = m.Changes
		}
		n := int64(0)
		for _, changes := range told {
			n += changes
		}
		return fmt.Sprint(n)
	}
	if !eventually(t, 20*time.Second, func() bool { return sum() == rows }) {
		t.Errorf("told of %s rows, there are %s", sum(), rows)
	}
	known, last := map[string]bool{}, int64(0)
	for _, m := range r.list() {
		verify(t, secret, m)
		if known[m.ID] {
			continue
		}
		known[m.ID] = true
		if m.Seq <= last || m.Resync {
			t.Errorf("told %s after %d", m.body, last)
		}
		last = m.Seq
	}
}

// A database that comes back from the trash goes on telling; what a restore does can't be told one by one.
func TestWebhookOfOtherFiles(t *testing.T) {
	row(t, "DP-HOOK-12")
	s := harness.Start(t, binary, harness.Options{Env: []string{allowHere}})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	r := newReceiver(t)
	hook(d, r.URL, body{"tables": []string{"t"}})
	bookmark := d.Must("INSERT INTO t VALUES(1)").Str("data.meta.bookmark")
	r.hears(t, "insert t 1")
	id := databaseID(t, c, d.Slug)
	c.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).OK()
	undelete(c, id, "").OK()
	d.Must("DELETE FROM t")
	r.hears(t, "insert t 1", "delete t 1")
	// A branch begins without webhooks: what is tried there is nobody's business.
	made := d.Do(http.MethodPut, d.Path("branches/quiet"), body{"content": "full"}).OK()
	branch := c.DB(made.Str("data.slug"))
	if n := len(branch.Get(branch.Path("webhooks")).OK().List("data")); n != 0 {
		t.Errorf("a branch has %d webhooks", n)
	}
	branch.Must("INSERT INTO t VALUES(5)")
	d.Post(d.Path("restore"), body{"bookmark": bookmark}).OK()
	r.hears(t, "insert t 1", "delete t 1", "resync") // what is committed before that is sent is among what it stands for
	d.Must("UPDATE t SET a=2")
	r.hears(t, "insert t 1", "delete t 1", "resync", "update t 1")
}

func TestWebhookOfALowBalance(t *testing.T) {
	row(t, "DP-HOOK-13")
	s := harness.Start(t, binary, harness.Options{Env: []string{allowHere, "PERSQLD_BILLING=prepaid", "PERSQLD_BILLING_ESTIMATED=true", "PERSQLD_WELCOME_CREDIT=1.00001"}})
	d := newDB(t, s.Client(t, harness.Token))
	d.Must("CREATE TABLE t(a)")
	r := newReceiver(t)
	hook(d, r.URL, body{"events": []string{"balance_low"}})
	for range 40 {
		d.Must("INSERT INTO t VALUES(1)")
	}
	r.hears(t, "balance.low")
	if m := r.list()[0]; !strings.HasPrefix(m.BalanceUSD, "0.99") {
		t.Errorf("told %s", m.body)
	}
}

// What of a commit was told stays told, and the rest is told, whatever the webhook is asked to tell meanwhile; and approvals come before what was committed after them.
func TestWebhookOrder(t *testing.T) {
	row(t, "DP-HOOK-8", "DP-HOOK-11")
	s := harness.Start(t, binary, harness.Options{Env: []string{allowHere, "PERSQLD_WEBHOOK_RETRY=3s"}})
	d := newDB(t, s.Client(t, harness.Token))
	d.Batch(true, "CREATE TABLE a(x)", "CREATE TABLE b(x)", "CREATE TABLE c(x)", "CREATE TABLE p(x)").OK()
	r := newReceiver(t)
	path, _ := hook(d, r.URL, body{"events": []string{"insert", "update", "delete", "approval_required"}})
	r.answers(failsAbout(r, `"table":"b"`))
	d.Batch(true, "INSERT INTO a VALUES(1)", "INSERT INTO b VALUES(1)", "INSERT INTO c VALUES(1)").OK()
	r.hears(t, "insert a 1")
	if !eventually(t, 10*time.Second, func() bool { return d.Get(path).OK().Str("data.lastError") != "" }) {
		t.Fatal("no failure")
	}
	d.Do("PATCH", path, body{"tables": []string{"b", "c", "p"}}).OK()
	r.answers(nil)
	d.Post(path+"/replay", nil).OK()
	r.hears(t, "insert a 1", "insert b 1", "insert c 1")

	d.Post(d.Path("approval-rules"), body{"tableGlob": "p", "action": "require_approval"}).OK()
	for i := range 20 {
		holds(d.Query("INSERT INTO p VALUES(?)", i))
		d.Must("INSERT INTO c VALUES(2)")
	}
	got := r.told(t, 43)[3:]
	if len(got) != 40 {
		t.Fatalf("told %v", got)
	}
	for i, m := range r.list()[3:] {
		if i > 0 && m.TS.Before(r.list()[3+i-1].TS) { // of what happened in the same millisecond nobody knows
			t.Fatalf("told %v, number %d before %s", got, i, m.TS)
		}
	}
}

// failsAbout answers 500 to what has a text in it, and takes anything else.
func failsAbout(r *receiver, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		if strings.Contains(string(b), text) {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		r.take(w, req, b)
	}
}

// One that never takes the word that changes are missing is told what follows all the same.
func TestWebhookParksResync(t *testing.T) {
	row(t, "DP-HOOK-12")
	s := harness.Start(t, binary, harness.Options{Env: []string{allowHere, "PERSQLD_WEBHOOK_RETRY=1s"}})
	d := newDB(t, s.Client(t, harness.Token))
	d.Must("CREATE TABLE t(a)")
	r := newReceiver(t)
	path, _ := hook(d, r.URL, nil)
	bookmark := d.Must("INSERT INTO t VALUES(1)").Str("data.meta.bookmark")
	r.hears(t, "insert t 1")
	r.answers(failsAbout(r, `"resync":true`))
	d.Post(d.Path("restore"), body{"bookmark": bookmark}).OK()
	r.seen(t, 2)
	d.Must("UPDATE t SET a=2")
	r.hears(t, "insert t 1", "update t 1")
	parked := d.Get(path + "/deliveries?state=parked").OK()
	if !eventually(t, 10*time.Second, func() bool {
		parked = d.Get(path + "/deliveries?state=parked").OK()
		return len(parked.List("data")) == 1
	}) {
		t.Fatalf("parked %s", parked.Raw)
	}
	parked.Is("data.0.body.resync", "true")
}
