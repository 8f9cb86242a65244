package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/persqld/persqld/e2e/harness"
)

// feedMessage is a message of the change feed.
type feedMessage struct {
	Type, Table, Kind, Code, Message string
	Tables                           any
	Seq, Rowid                       int64
	TS                               time.Time
	New, Old, Key                    map[string]any
}

// short is a change in few words.
func (m *feedMessage) short() string {
	switch m.Type {
	case "change":
		return fmt.Sprintf("%s %s %d", m.Kind, m.Table, m.Rowid)
	case "subscribed":
		b, _ := json.Marshal(m.Tables)
		return "subscribed " + string(b)
	}
	return m.Type + " " + m.Code
}

// dialFeed opens a WebSocket, with the token as a browser sends it.
func dialFeed(serverURL, token, path, query string) (*websocket.Conn, *http.Response, error) {
	dialer := websocket.Dialer{HandshakeTimeout: 10 * time.Second}
	if token != "" {
		dialer.Subprotocols = []string{"persql.bearer." + token}
	}
	return dialer.Dial("ws"+strings.TrimPrefix(serverURL, "http")+path+"subscribe?"+query, nil)
}

// feedConn is a subscription of a test.
type feedConn struct {
	*websocket.Conn
	t testing.TB
}

// listening waits until so many listen to a server.
func listening(t testing.TB, d *harness.DB, n int) {
	t.Helper()
	want := fmt.Sprintf("persqld_feed_listeners %d", n)
	if !eventually(t, 10*time.Second, func() bool { return strings.Contains(string(d.As("").Get("/metrics").Raw), want) }) {
		t.Fatalf("no %s", want)
	}
}

func subscribe(t testing.TB, d *harness.DB, query string) *feedConn {
	t.Helper()
	c, resp, err := dialFeed(d.URL(), d.Token(), d.Path(""), query)
	if err != nil {
		status := 0
		if resp != nil {
			status = resp.StatusCode
		}
		t.Fatalf("subscribe: %v (%d)", err, status)
	}
	t.Cleanup(func() { c.Close() })
	if got, want := c.Subprotocol(), "persql.bearer."+d.Token(); got != want {
		t.Errorf("the subprotocol is %q", got)
	}
	return &feedConn{c, t}
}

// next is the next message.
func (c *feedConn) next() *feedMessage {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	var m feedMessage
	if err := c.ReadJSON(&m); err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return &m
}

// hears fails the test where the next messages are others.
func (c *feedConn) hears(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.next().short(); got != w {
			c.t.Fatalf("heard %q, want %q", got, w)
		}
	}
}

// closes fails the test where the connection doesn't close with a code within a time.
func (c *feedConn) closes(code int, within time.Duration) {
	c.t.Helper()
	began := time.Now()
	_ = c.SetReadDeadline(began.Add(20 * time.Second))
	for {
		if _, _, err := c.ReadMessage(); err != nil {
			if !websocket.IsCloseError(err, code) {
				c.t.Errorf("closed with %v, want %d", err, code)
			}
			break
		}
	}
	if took := time.Since(began); took > within {
		c.t.Errorf("closed after %v, want %v at most", took, within)
	}
}

func TestSubscribe(t *testing.T) {
	row(t, "DP-FEED-1", "DP-FEED-4", "DP-FEED-5", "DP-FEED-6")
	d := db(t)
	d.Must("CREATE TABLE orders(id INTEGER PRIMARY KEY, a)")
	d.Must("CREATE TABLE items(id INTEGER PRIMARY KEY, a)")
	c := subscribe(t, d, "tables=orders,ITEMS&rows=1")
	m := c.next()
	if m.short() != `subscribed ["orders","ITEMS"]` || m.Seq < 1 {
		t.Errorf("got %+v", m)
	}
	first := m.Seq
	d.Must("INSERT INTO orders VALUES(7, 'x')")
	m = c.next()
	if m.short() != "insert orders 7" || m.Seq != first+1 || time.Since(m.TS).Abs() > time.Minute || m.New["a"] != "x" || m.Old != nil {
		t.Errorf("got %+v", m)
	}
	d.Query("INSERT INTO orders VALUES(8, 'y'), (7, 'z')").Fails(http.StatusBadRequest, "unique_violation")
	d.Must("UPDATE items SET a=1")
	d.Must("UPDATE orders SET a='w'")
	if m = c.next(); m.short() != "update orders 7" || m.Seq != first+2 || m.New["a"] != "w" || m.Old["a"] != "x" {
		t.Errorf("got %+v", m)
	}
	say := func(text string) {
		if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	say(`{"type":"set-tables","tables":["items"]}`)
	c.hears(`subscribed ["items"]`)
	d.Must("DELETE FROM orders")
	d.Must("INSERT INTO items VALUES(1, 1)")
	c.hears("insert items 1")
	say(`{"type":"set-tables","tables":"*"}`)
	c.hears(`subscribed "*"`)
	say(`{"type":"ping"}`)
	c.hears("pong ")
	say(`{"type":"what is this"}`)
	say(`nothing`)
	say(`{"type":"set-tables","tables":7}`)
	c.hears("error ")
	d.Must("ALTER TABLE items ADD COLUMN b")
	c.hears("schema items 0")
	d.Must("CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID")
	c.hears("schema w 0")
	d.Must("INSERT INTO w VALUES('q')")
	if m = c.next(); m.Key["k"] != "q" {
		t.Errorf("got %+v", m)
	}
	// Behind a change: what came after it, once.
	late := subscribe(t, d, fmt.Sprintf("since=%d&tables=items", first))
	late.hears(`subscribed ["items"]`, "insert items 1", "schema items 0")
	d.Must("INSERT INTO items VALUES(2, 1, 1)")
	late.hears("insert items 2")
	// From before anybody listened, and from a time that has not come.
	for _, since := range []string{"0", "1000000"} {
		lost := subscribe(t, d, "since="+since)
		lost.hears(`subscribed "*"`, "error resync")
		d.Must("UPDATE items SET b=5 WHERE id=2")
		lost.hears("update items 2")
	}
	// Too long a message.
	say(strings.Repeat("x", 70_000))
	c.closes(websocket.CloseMessageTooBig, 5*time.Second)
}

func TestSubscribeRefusesBadInput(t *testing.T) {
	row(t, "DP-FEED-10")
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	d.Get(d.Path("subscribe")).Fails(http.StatusUpgradeRequired, "upgrade_required")
	for _, query := range []string{"since=x", "since=-1", "since=1.5", "rows=2", "tables=a,,b", "tables=" + strings.Repeat("a,", 200) + "a", "tables=" + strings.Repeat("x", 256), "limit=0"} {
		_, resp, err := dialFeed(d.URL(), d.Token(), d.Path(""), query)
		if err == nil || resp == nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("subscribe?%.40s: %v %v", query, resp, err)
		}
	}
	for _, query := range []string{"wait=26", "wait=-1", "wait=x", "limit=10001", "since=9223372036854775808"} {
		d.Get(d.Path("changes?"+query)).Fails(http.StatusBadRequest, "bad_request")
	}
	d.Get(d.Path("subscribe?since=x")).Fails(http.StatusBadRequest, "bad_request")
	for token, status := range map[string]int{"": 401, "psql_live_wrong": 401, "psql_live_" + strings.Repeat("x", 40): 401} {
		if _, resp, err := dialFeed(d.URL(), token, d.Path(""), ""); err == nil || resp == nil || resp.StatusCode != status {
			t.Errorf("token %q: %v %v", token, resp, err)
		}
	}
	if _, resp, err := dialFeed(d.URL(), d.Token(), "/v1/db/default/no-such-database/", ""); err == nil || resp == nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("no such database: %v %v", resp, err)
	}
	// A handshake of another version, and one without a key.
	for _, h := range []http.Header{{"Sec-Websocket-Version": {"8"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}, {"Sec-Websocket-Version": {"13"}}} {
		req, _ := http.NewRequest(http.MethodGet, d.URL()+d.Path("subscribe?token="+d.Token()), nil)
		for k, v := range h {
			req.Header[k] = v
		}
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "websocket")
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("handshake %v: %v %v", h, resp, err)
		}
	}
}

func TestFeedEnds(t *testing.T) {
	row(t, "DP-FEED-7", "DP-FEED-10")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_LOG=debug", "PERSQLD_FEED_LISTENERS_DATABASE=4"}})
	d := s.Client(t, harness.Token).DB("ends")
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY)")
	made := d.Post("/v1/tokens", map[string]any{"role": "readonly"}).OK()
	token, id := made.Str("data.token"), made.Str("data.id")
	// As a query, without a subprotocol.
	raw, _, err := dialFeed(d.URL(), "", d.Path(""), "token="+token)
	if err != nil {
		t.Fatal(err)
	}
	revoked := &feedConn{raw, t}
	revoked.hears(`subscribed "*"`)
	short := d.Post("/v1/tokens", map[string]any{"role": "readonly", "expiresIn": 2}).OK().Str("data.token")
	c := subscribe(t, s.Client(t, short).DB("ends"), "")
	c.hears(`subscribed "*"`)
	d.Do(http.MethodDelete, "/v1/tokens/"+id, nil).OK()
	revoked.closes(4401, time.Second)
	c.closes(4401, 3*time.Second)

	gone := s.Client(t, harness.Token).DB("gone")
	gone.Must("CREATE TABLE t(a)")
	deleted := subscribe(t, gone, "")
	deleted.hears(`subscribed "*"`)
	var polled *harness.Answer
	var poll sync.WaitGroup
	poll.Go(func() { polled = gone.Get(gone.Path("changes?wait=20")) })
	listening(t, d, 2)
	d.Do(http.MethodDelete, "/v1/databases/gone", nil).OK()
	deleted.closes(4404, time.Second)
	poll.Wait()
	polled.Fails(http.StatusNotFound, "not_found")

	// As many as may.
	var last *feedConn
	for range 4 {
		last = subscribe(t, d, "")
		last.hears(`subscribed "*"`)
	}
	if _, resp, err := dialFeed(d.URL(), d.Token(), d.Path(""), ""); err == nil || resp == nil || resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one more than may: %v %v", resp, err)
	}
	d.Get(d.Path("changes")).Fails(http.StatusTooManyRequests, "too_many_listeners")
	stopped := make(chan int, 1)
	go func() { stopped <- s.Stop(t) }()
	last.closes(websocket.CloseServiceRestart, 2*time.Second)
	if code := <-stopped; code != 0 {
		t.Errorf("exit status %d", code)
	}
	if strings.Contains(s.Log(), token) || strings.Contains(s.Log(), url.QueryEscape(token)) {
		t.Error("the log has a token")
	}
}

func TestFeedScopeAndPolicies(t *testing.T) {
	row(t, "DP-FEED-8")
	d := db(t)
	d.Batch(true, "CREATE TABLE seen(id INTEGER PRIMARY KEY)", "CREATE TABLE hidden(id INTEGER PRIMARY KEY)", "CREATE TABLE ruled(id INTEGER PRIMARY KEY, owner)").OK()
	scoped := d.Client.As(d.Post("/v1/tokens", map[string]any{"role": "readonly", "tableScope": []string{"seen", "ruled"}}).OK().Str("data.token")).DB(d.Slug)
	claimed := d.Client.As(d.Post("/v1/tokens", map[string]any{"role": "readonly", "claims": map[string]any{"user_id": "ann"}}).OK().Str("data.token")).DB(d.Slug)
	a := subscribe(t, scoped, "rows=1")
	a.hears(`subscribed ["seen","ruled"]`)
	b := subscribe(t, claimed, "rows=1")
	b.hears(`subscribed "*"`)
	asked := subscribe(t, scoped, "tables=hidden,seen")
	asked.hears(`subscribed ["seen"]`)
	write := func(n int) {
		d.Batch(true, fmt.Sprintf("INSERT INTO hidden VALUES(%d)", n), fmt.Sprintf("INSERT INTO ruled(id,owner) VALUES(%d,'bob')", n), fmt.Sprintf("INSERT INTO seen VALUES(%d)", n)).OK()
	}
	write(1)
	a.hears("insert ruled 1", "insert seen 1")
	b.hears("insert hidden 1", "insert ruled 1", "insert seen 1")
	// From the moment of the policy: no look in between.
	d.Post(d.Path("policies"), map[string]any{"name": "own", "tableName": "ruled", "expression": "owner = :auth_user_id"}).OK()
	write(2)
	d.Must("ALTER TABLE ruled ADD COLUMN x")
	write(3)
	a.hears("insert seen 2", "insert seen 3")
	b.hears("insert hidden 2", "insert seen 2", "insert hidden 3")
	asked.hears("insert seen 1", "insert seen 2", "insert seen 3")
	// The other ways, and from before.
	got := claimed.Get(claimed.Path("changes?since=1&wait=0")).OK()
	for _, c := range got.List("data.changes") {
		if m := c.(map[string]any); m["table"] == "ruled" {
			t.Errorf("told of %v", m)
		}
	}
	if n := len(got.List("data.changes")); n == 0 {
		t.Error("nothing was told")
	}
	// An admin without claims isn't bound.
	free := subscribe(t, d, "tables=ruled&since=1")
	free.hears(`subscribed ["ruled"]`, "insert ruled 1", "insert ruled 2", "schema ruled 0", "insert ruled 3")
}

func TestChangesLongPoll(t *testing.T) {
	row(t, "DP-FEED-2", "DP-FEED-5")
	d := harness.Start(t, binary, harness.Options{}).Client(t, harness.Token).DB("polled")
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY)")
	d.Must("CREATE TABLE u(a INTEGER PRIMARY KEY)")
	at := d.Get(d.Path("changes?wait=0")).OK()
	cursor := harness.Text(at.At("data.cursor"))
	var a *harness.Answer
	var waiting sync.WaitGroup
	var answered atomic.Bool
	waiting.Go(func() {
		a = d.Get(d.Path("changes?tables=t&since=" + cursor))
		answered.Store(true)
	})
	listening(t, d, 1)
	d.Must("INSERT INTO u VALUES(1)") // not asked for
	if others := d.Get(d.Path("changes?since=" + cursor)).OK().List("data.changes"); len(others) != 1 || answered.Load() {
		t.Errorf("%d changes, and answered is %t", len(others), answered.Load())
	}
	d.Must("INSERT INTO t VALUES(5)")
	waiting.Wait()
	if list := a.OK().List("data.changes"); len(list) != 1 || list[0].(map[string]any)["table"] != "t" || a.At("data.resync") != false {
		t.Errorf("got %s", a.Raw)
	}
	if n, _ := json.Number(harness.Text(a.At("data.cursor"))).Int64(); fmt.Sprint(n-2) != cursor {
		t.Errorf("cursor %s behind %s and two changes", harness.Text(a.At("data.cursor")), cursor)
	}
	began := time.Now()
	a = d.Get(d.Path("changes?wait=1&since=" + harness.Text(a.At("data.cursor")))).OK()
	if took := time.Since(began); len(a.List("data.changes")) != 0 || took < 900*time.Millisecond {
		t.Errorf("nothing to tell: %s after %v", a.Raw, took)
	}
	if a = d.Get(d.Path("changes?since=0&wait=20")).OK(); a.At("data.resync") != true {
		t.Errorf("from before anybody listened: %s", a.Raw)
	}
	// Page by page.
	d.Must("WITH RECURSIVE c(i) AS (SELECT 10 UNION ALL SELECT i+1 FROM c WHERE i<34) INSERT INTO t SELECT i FROM c")
	seen := 0
	for cursor, more := harness.Text(a.At("data.cursor")), true; more; {
		a = d.Get(d.Path("changes?limit=10&since=" + cursor)).OK()
		seen += len(a.List("data.changes"))
		cursor, more = harness.Text(a.At("data.cursor")), a.At("data.more") == true
	}
	if seen != 25 {
		t.Errorf("%d changes in pages of 10, want 25", seen)
	}
	// After a restore nobody knows what changed.
	snapshot := d.Post(d.Path("snapshots"), map[string]any{"label": "x"}).OK().Str("data.id")
	live := subscribe(t, d, "")
	live.hears(`subscribed "*"`)
	d.Post(d.Path("restore"), map[string]any{"snapshotId": snapshot}).OK()
	live.hears("error resync")
	if a = d.Get(d.Path("changes?since=" + harness.Text(a.At("data.cursor")))).OK(); a.At("data.resync") != true {
		t.Errorf("from before a restore: %s", a.Raw)
	}
	d.Must("DELETE FROM t WHERE a=5")
	live.hears("delete t 5")
}

func TestChangesAsEvents(t *testing.T) {
	row(t, "DP-FEED-3")
	d := db(t)
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY)")
	open := func(since string) (*bufio.Reader, func()) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.URL()+d.Path("changes?token="+d.Token()), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/event-stream")
		req.Header.Set("Origin", "https://elsewhere.example")
		if since != "" {
			req.Header.Set("Last-Event-ID", since)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Fatalf("%d %v", resp.StatusCode, resp.Header)
		}
		return bufio.NewReader(resp.Body), func() { resp.Body.Close() }
	}
	event := func(r *bufio.Reader) (id, name string, m feedMessage) {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch key {
			case "id":
				id = value
			case "event":
				name = value
			case "data":
				if err := json.Unmarshal([]byte(value), &m); err != nil {
					t.Fatal(err)
				}
			case "":
				return id, name, m
			}
		}
	}
	r, end := open("")
	if _, name, m := event(r); name != "subscribed" || m.short() != `subscribed "*"` {
		t.Errorf("%s %+v", name, m)
	}
	d.Must("INSERT INTO t VALUES(1)")
	id, name, m := event(r)
	if name != "change" || m.short() != "insert t 1" || id != fmt.Sprint(m.Seq) {
		t.Errorf("%s %s %+v", id, name, m)
	}
	end()
	d.Must("INSERT INTO t VALUES(2)")
	r, end = open(id)
	defer end()
	event(r)
	if _, _, m := event(r); m.short() != "insert t 2" {
		t.Errorf("%+v", m)
	}
}

// A client of another make applies what it hears to a copy, which equals the table in the end: 8 writers, connections that break, a server that is killed.
func TestFeedUnderFire(t *testing.T) {
	row(t, "DP-FEED-4")
	const writers, kills = 8, 2
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	data := filepath.Join(t.TempDir(), "data")
	start := func() *harness.Server { return harness.Start(t, binary, harness.Options{Data: data}) }
	type life struct {
		*harness.Server
		over chan struct{} // closed when there is another
	}
	var current atomic.Pointer[life]
	current.Store(&life{start(), make(chan struct{})})
	d := current.Load().Client(t, harness.Token).DB("fire")
	d.Must("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	d.Must("CREATE TABLE other(id INTEGER PRIMARY KEY, v UNIQUE)")
	d.Must("CREATE TRIGGER tr AFTER DELETE ON t BEGIN INSERT INTO other(v) VALUES(old.id || '-' || old.v); END")
	cursor := harness.Text(d.Get(d.Path("changes?wait=0&rows=1")).OK().At("data.cursor"))

	stop := make(chan struct{})
	var written, heard atomic.Int64
	var writing, reading sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				s := current.Load()
				c := s.Client(t, harness.Token)
				id := r.IntN(200)
				var body any
				path := d.Path("query")
				switch r.IntN(5) {
				case 0:
					body = harness.Body(fmt.Sprintf("DELETE FROM t WHERE id=%d", id))
				case 1:
					body, path = harness.BatchBody(true, fmt.Sprintf("INSERT OR REPLACE INTO t VALUES(%d,%d)", id, r.IntN(1e6)), "INSERT INTO t SELECT * FROM t LIMIT 1"), d.Path("batch") // undone
				case 2:
					body, path = harness.BatchBody(true, fmt.Sprintf("INSERT OR REPLACE INTO t VALUES(%d,%d)", id, r.IntN(1e6)), fmt.Sprintf("UPDATE t SET v=%d WHERE id=%d", r.IntN(1e6), id+1)), d.Path("batch")
				default:
					body = harness.Body(fmt.Sprintf("INSERT INTO t VALUES(%d,%d) ON CONFLICT DO UPDATE SET v=v+1", id, r.IntN(1e6)))
				}
				if c.Send(t.Context(), path, body) != 0 {
					written.Add(1)
					continue
				}
				select { // it was killed
				case <-s.over:
				case <-stop:
				}
			}
		})
	}
	// The listener.
	copyOf := map[string]map[int64]string{"t": {}, "other": {}}
	last, err := json.Number(cursor).Int64()
	if err != nil {
		t.Fatal(err)
	}
	var connections, twice int
	var upTo atomic.Int64
	upTo.Store(-1)
	reading.Go(func() {
		r := rand.New(rand.NewPCG(seed, 99))
		for {
			s := current.Load()
			conn, _, err := dialFeed(s.URL, harness.Token, d.Path(""), fmt.Sprintf("rows=1&since=%d", last))
			if err != nil {
				select { // it was killed
				case <-s.over:
				case <-time.After(time.Minute):
					t.Errorf("no connection: %v", err)
					return
				}
				continue
			}
			connections++
			for n := r.IntN(400); n > 0; n-- {
				var m feedMessage
				_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
				if err := conn.ReadJSON(&m); err != nil {
					break
				}
				if m.Type == "error" {
					t.Errorf("told %+v behind %d", m, last)
					conn.Close()
					return
				}
				if m.Type != "change" {
					continue
				}
				if m.Seq <= last {
					twice++
					continue
				}
				if m.Seq != last+1 {
					t.Errorf("seq %d behind %d", m.Seq, last)
				}
				last = m.Seq
				heard.Add(1)
				rows := copyOf[m.Table]
				was, there := rows[m.Rowid]
				if m.Kind == "insert" == there || m.Old != nil && was != fmt.Sprint(m.Old["v"]) {
					t.Errorf("%s of row %d, %v: %v, which was %q", m.Kind, m.Rowid, there, m.Old, was)
				}
				if m.Kind == "delete" {
					delete(rows, m.Rowid)
				} else {
					rows[m.Rowid] = fmt.Sprint(m.New["v"])
				}
			}
			conn.Close()
			if end := upTo.Load(); end >= 0 && last >= end {
				return
			}
		}
	})
	// busy waits until much more was written and heard.
	busy := func() {
		wrote, told := written.Load()+6000, heard.Load()+5000
		if !eventually(t, time.Minute, func() bool { return written.Load() >= wrote && heard.Load() >= told }) {
			t.Fatalf("%d writes, %d changes", written.Load(), heard.Load())
		}
	}
	for range kills {
		busy()
		old := current.Load()
		old.Kill()
		current.Store(&life{start(), make(chan struct{})})
		close(old.over)
	}
	busy()
	close(stop)
	writing.Wait()
	now := current.Load().Client(t, harness.Token).DB("fire")
	end, err := json.Number(harness.Text(now.Get(now.Path("changes?wait=0")).OK().At("data.cursor"))).Int64()
	if err != nil {
		t.Fatal(err)
	}
	upTo.Store(end)
	reading.Wait()
	for table, rows := range copyOf {
		got := now.Must("SELECT id, v FROM " + table).Rows()
		if len(got) != len(rows) {
			t.Errorf("%s has %d rows, its changes make %d", table, len(got), len(rows))
		}
		for _, row := range got {
			id, err := json.Number(harness.Text(row[0])).Int64()
			if err != nil {
				t.Fatal(err)
			}
			if want := rows[id]; harness.Text(row[1]) != want {
				t.Errorf("%s: row %d is %s, its changes make %s", table, id, harness.Text(row[1]), want)
			}
		}
	}
	t.Logf("%d changes in %d connections, %d twice", heard.Load(), connections, twice)
	if twice > 0 {
		t.Errorf("%d changes, %d of them twice", heard.Load(), twice)
	}
}

// One who doesn't read is cut off, and nobody waits for it.
func TestSlowListener(t *testing.T) {
	row(t, "DP-FEED-9")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_FEED_BUFFER=64KiB", "PERSQLD_FEED_REQUEST=1000000"}})
	d := s.Client(t, harness.Token).DB("slow")
	d.Must("CREATE TABLE t(a)")
	slow := subscribe(t, d, "")
	slow.hears(`subscribed "*"`)
	fast := subscribe(t, d, "")
	fast.hears(`subscribed "*"`)
	var all int
	var wg sync.WaitGroup
	const statements, rows = 300, 1000
	wg.Go(func() {
		for all < statements*rows {
			_ = fast.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, _, err := fast.ReadMessage(); err != nil {
				var closed *websocket.CloseError
				if errors.As(err, &closed) && closed.Code == websocket.CloseTryAgainLater {
					return // a loaded machine
				}
				t.Error(err)
				return
			}
			all++
		}
	})
	began := time.Now()
	for range statements {
		d.Must(fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) INSERT INTO t SELECT i FROM c", rows))
	}
	took := time.Since(began)
	t.Logf("%d changes in %v", statements*rows, took)
	wg.Wait()
	slow.closes(websocket.CloseTryAgainLater, 15*time.Second)
	if took > 15*time.Second {
		t.Errorf("writers took %v beside a listener that doesn't read", took)
	}
	text := string(d.As("").Get("/metrics").Raw)
	if !strings.Contains(text, "persqld_feed_cut_off_total") || strings.Contains(text, "persqld_feed_cut_off_total 0\n") {
		t.Error("the metrics tell of no cut-off")
	}
}

// A member's WebSocket is opened by the cookie, which browsers send for other sites' pages too.
func TestFeedOfMembers(t *testing.T) {
	row(t, "DP-FEED-11")
	s := people(t, "PERSQLD_BASE_URL=https://sql.example.com")
	d := s.Client(t, harness.Token).DB("ours")
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY)")
	viewer := enrol(t, s, "viewer@example.com", "default", "viewer")
	open := func(origin string) (*websocket.Conn, *http.Response, error) {
		h := http.Header{"Cookie": {"persql_session=" + viewer.Cookie()}}
		if origin != "" {
			h.Set("Origin", origin)
		}
		return websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(s.URL, "http")+"/api/namespaces/default/databases/ours/subscribe", h)
	}
	for _, origin := range []string{"https://evil.example", "null", "http://sql.example.com"} {
		if _, resp, err := open(origin); err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("from %s: %v %v", origin, resp, err)
		}
	}
	for _, origin := range []string{"", "https://sql.example.com", s.URL} {
		raw, _, err := open(origin)
		if err != nil {
			t.Fatalf("from %s: %v", origin, err)
		}
		c := &feedConn{raw, t}
		c.hears(`subscribed "*"`)
		d.Must("INSERT INTO t VALUES(NULL)")
		if got := c.next().short(); !strings.HasPrefix(got, "insert t ") {
			t.Errorf("heard %s", got)
		}
		if origin == "" {
			defer c.closes(4401, 2*time.Second)
		} else {
			raw.Close()
		}
	}
	viewer.Do(http.MethodDelete, "/api/session", nil).OK()
}

// Listeners that rest take little memory each.
func TestIdleListenersAreSmall(t *testing.T) {
	row(t, "DP-FEED-12")
	const listeners, each = 1000, 40 << 10
	s := harness.Start(t, binary, harness.Options{Env: []string{"GOGC=50"}})
	d := s.Client(t, harness.Token).DB("idle")
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY)")
	subscribe(t, d, "").hears(`subscribed "*"`)
	resident := func() int {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.PID()))
		if err != nil {
			t.Fatal(err)
		}
		var size, pages int
		if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
			t.Fatal(err)
		}
		return pages * os.Getpagesize()
	}
	before := resident()
	var all []*feedConn
	for range listeners {
		c := subscribe(t, d, "")
		c.hears(`subscribed "*"`)
		all = append(all, c)
	}
	d.Must("INSERT INTO t VALUES(1)")
	for _, c := range all {
		c.hears("insert t 1")
	}
	took := 0
	small := eventually(t, 10*time.Second, func() bool {
		took = (resident() - before) / listeners
		return took <= each
	})
	t.Logf("%d bytes a listener", took)
	if !small && !harness.Race() {
		t.Errorf("a listener takes %d bytes, want %d at most", took, each)
	}
}
