package e2e_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// prepaid is how a server with balances is started. What the meter counts is told by other tests: an estimate adds up, too.
func prepaid(env ...string) []string {
	return append([]string{"PERSQLD_BILLING=prepaid", "PERSQLD_BILLING_ESTIMATED=true"}, env...)
}

// nanos is an amount of dollars in an answer, exactly.
func nanos(t testing.TB, v any) int64 {
	t.Helper()
	r, ok := new(big.Rat).SetString(harness.Text(v))
	if !ok {
		t.Fatalf("%v is no amount", v)
	}
	r.Mul(r, big.NewRat(1_000_000_000, 1))
	if !r.IsInt() {
		t.Fatalf("%v is no whole number of nano-dollars", v)
	}
	return r.Num().Int64()
}

// spending adds up what answers say.
type spending struct {
	requests, read, written, nanos int64
}

// take adds an answer's numbers: those of a failure stand in the same place.
func (s *spending) take(t testing.TB, a *harness.Answer) {
	t.Helper()
	s.requests++
	meta, ok := a.Body["meta"].(map[string]any)
	if !ok {
		s.nanos += requestPrice // it came to no statement
		return
	}
	n := func(name string) int64 {
		v, err := meta[name].(json.Number).Int64()
		if err != nil {
			t.Fatalf("%s: %s is %v", a.What, name, meta[name])
		}
		return v
	}
	s.read += n("rowsRead")
	s.written += n("rowsWritten")
	s.nanos += nanos(t, meta["costUsd"])
}

const (
	requestPrice = 500 // nano-dollars
	readPrice    = 5
	writtenPrice = 2000
)

// reckon compares the answers' sums with the usage, the balance and the ledger of the server, whose credits come to so much.
func (s *spending) reckon(t testing.TB, c *harness.Client, credits int64) {
	t.Helper()
	total := c.Get("/v1/usage").OK().At("data.totals").(map[string]any)
	want := map[string]int64{"requests": s.requests, "rowsRead": s.read, "rowsWritten": s.written}
	for name, n := range want {
		if got := harness.Text(total[name]); got != fmt.Sprint(n) {
			t.Errorf("usage says %s %s, the answers came to %d", name, got, n)
		}
	}
	sum := s.requests*requestPrice + s.read*readPrice + s.written*writtenPrice
	if got := nanos(t, total["costUsd"]); got != sum || s.nanos != sum {
		t.Errorf("usage costs %d nano-dollars, the answers said %d, their rows cost %d", got, s.nanos, sum)
	}
	for _, by := range []string{"day", "database", "token", "meter"} {
		var cost int64
		for _, line := range c.Get("/v1/usage?groupBy=" + by).OK().List("data.series") {
			cost += nanos(t, line.(map[string]any)["costUsd"])
		}
		if cost != sum {
			t.Errorf("by %s usage costs %d nano-dollars, want %d", by, cost, sum)
		}
	}
	if got := nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd")); got != credits-sum {
		t.Errorf("the balance is %d nano-dollars, want %d", got, credits-sum)
	}
}

// ownerEnv makes the owner of the server's first namespace.
var ownerEnv = []string{"PERSQLD_ADMIN_EMAIL=owner@example.com", "PERSQLD_ADMIN_PASSWORD=" + thePassword}

// owner is that person, signed in.
func owner(t testing.TB, s *harness.Server) *harness.Client {
	t.Helper()
	return signIn(t, s, "owner@example.com").Apart()
}

// ledgerBalance adds up the ledger of a namespace: its entries, and what runs.
func ledgerBalance(t testing.TB, c *harness.Client, ns string) (sum int64) {
	t.Helper()
	a := c.Get("/api/namespaces/" + ns + "/billing/ledger?limit=500").OK()
	for _, list := range []string{"data.entries", "data.running"} {
		for _, e := range a.List(list) {
			sum += nanos(t, e.(map[string]any)["usd"])
		}
	}
	if got := nanos(t, a.At("data.balanceUsd")); got != sum {
		t.Errorf("the ledger of %s comes to %d nano-dollars, its balance is %d", ns, sum, got)
	}
	return sum
}

// statement is a random one, and whether it must fail.
func statement(r *rand.Rand) string {
	n := func(most int) int { return r.IntN(most) }
	switch n(28) {
	case 0, 1:
		return fmt.Sprintf("INSERT INTO item(name, price, box_id) VALUES('n%d', %d, %d)", n(1000), n(500), 1+n(20))
	case 2:
		return fmt.Sprintf("INSERT INTO item(id, name, price, box_id) VALUES(%d, 'x', 1, 1)", n(4000)) // often a key that is there
	case 3:
		return fmt.Sprintf("INSERT INTO item(name, price, box_id) VALUES('m%d', 1, 1), ('m%d', 2, 2), (NULL, 3, 3)", n(100), n(100)) // fails after two rows
	case 4:
		return fmt.Sprintf("UPDATE item SET price = price + 1 WHERE box_id = %d", 1+n(20))
	case 5:
		return fmt.Sprintf("UPDATE item SET name = name || '!' WHERE id BETWEEN %d AND %d", n(3000), n(3000)+20)
	case 6:
		return fmt.Sprintf("DELETE FROM item WHERE id = %d", n(4000))
	case 7:
		return fmt.Sprintf("DELETE FROM box WHERE id = %d", 1+n(20)) // cascades
	case 8:
		return fmt.Sprintf("INSERT INTO box VALUES(%d, 'again') ON CONFLICT(id) DO UPDATE SET label = label || '.'", 1+n(20))
	case 9:
		return "SELECT i.name, b.label FROM item i JOIN box b ON b.id = i.box_id WHERE i.price > 250"
	case 10:
		return fmt.Sprintf("SELECT name, price FROM item ORDER BY price DESC, name LIMIT %d", 1+n(50)) // a sorter
	case 11:
		return "SELECT box_id, count(*), sum(price) FROM item GROUP BY box_id ORDER BY 2 DESC"
	case 12:
		return fmt.Sprintf("SELECT * FROM item WHERE id = %d", n(4000))
	case 13:
		return "SELECT count(*) FROM item"
	case 14:
		return fmt.Sprintf("INSERT INTO note(body) VALUES('the %d quick brown %d foxes')", n(100), n(100))
	case 15:
		return fmt.Sprintf("SELECT rowid, body FROM note WHERE note MATCH '%d OR foxes' LIMIT %d", n(100), 1+n(20))
	case 16:
		return "SELECT nothing FROM item" // no such column
	case 17:
		return fmt.Sprintf("SELECT abs(-9223372036854775807 - price/%d) FROM item", n(2)+1) // may overflow in the middle
	case 18:
		return fmt.Sprintf("INSERT INTO item(name, price, box_id) SELECT name, price, box_id FROM item WHERE id %% 97 = %d RETURNING id", n(97))
	case 19:
		return fmt.Sprintf("WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x < %d) SELECT sum(x) FROM c", 1+n(300))
	case 20:
		return fmt.Sprintf("REPLACE INTO tag VALUES('k%d', %d)", n(50), n(1000))
	case 21:
		return fmt.Sprintf("DELETE FROM item WHERE id IN (SELECT id FROM item ORDER BY price LIMIT %d)", n(4))
	case 22:
		return fmt.Sprintf("INSERT INTO item(name, price, box_id) VALUES('orphan', 1, %d)", 100+n(10)) // no such box
	case 23:
		return fmt.Sprintf("INSERT INTO box VALUES(%d, 'back') ON CONFLICT DO NOTHING", 1+n(20))
	case 24:
		return fmt.Sprintf("DELETE FROM box WHERE id = %d", 1+n(20)) // cascades
	case 25:
		return fmt.Sprintf("SELECT count(*) FROM item i JOIN tag t ON t.v = i.price LEFT JOIN box b ON b.id = i.box_id WHERE i.id > %d", n(3000))
	case 26:
		return fmt.Sprintf("UPDATE box SET label = (SELECT group_concat(name) FROM item WHERE box_id = box.id ORDER BY 1) WHERE id = %d", 1+n(20))
	default:
		return fmt.Sprintf("SELECT name, rank() OVER (PARTITION BY box_id ORDER BY price) FROM item WHERE box_id = %d", 1+n(20))
	}
}

// furnish makes the tables that random statements are about.
func furnish(t testing.TB, d *harness.DB, sum *spending) {
	t.Helper()
	for _, sql := range []string{
		"CREATE TABLE box(id INTEGER PRIMARY KEY, label TEXT NOT NULL)",
		"CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER, box_id INTEGER REFERENCES box(id) ON DELETE CASCADE)",
		"CREATE INDEX item_box ON item(box_id)",
		"CREATE INDEX item_dear ON item(price) WHERE price > 100",
		"CREATE TABLE tag(k TEXT PRIMARY KEY, v INTEGER) WITHOUT ROWID",
		"CREATE TABLE log(at INTEGER PRIMARY KEY, what TEXT)",
		"CREATE TRIGGER item_new AFTER INSERT ON item BEGIN INSERT INTO log(what) VALUES('new ' || new.id); END",
		"CREATE TRIGGER item_gone AFTER DELETE ON item BEGIN INSERT INTO log(what) VALUES('gone ' || old.id); DELETE FROM log WHERE at < (SELECT max(at) - 500 FROM log); END",
		"CREATE VIRTUAL TABLE note USING fts5(body)",
		"INSERT INTO box WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x < 20) SELECT x, 'box ' || x FROM c",
		"INSERT INTO item(name, price, box_id) WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x < 300) SELECT 'item ' || x, x * 7 % 500, 1 + x % 20 FROM c",
	} {
		sum.take(t, d.Query(sql).OK())
	}
}

// TestEveryAnswerAddsUp sends 10,000 random statements. What the answers say, in all, is the usage, the ledger and the balance, to the unit.
func TestEveryAnswerAddsUp(t *testing.T) {
	row(t, "DP-BILL-1", "DP-BILL-2", "DP-BILL-4", "DP-BILL-6")
	s := harness.Start(t, binary, harness.Options{Env: append(prepaid("PERSQLD_WELCOME_CREDIT=1000", "PERSQLD_PRICE_STORAGE_GB_MONTH=0"), ownerEnv...)})
	c := s.Client(t, harness.Token).Apart()
	d := c.DB("shop")
	var sum spending
	furnish(t, d, &sum)
	random := rand.New(rand.NewPCG(7, 7))
	failed := 0
	kinds := map[string]int{}
	for i := range 10_000 {
		sql := statement(random)
		if i%50 == 49 { // a batch of some, in a transaction or not
			var list []any
			for range 5 {
				list = append(list, statement(random))
			}
			sum.take(t, d.Batch(i%100 == 99, list...))
			continue
		}
		a := d.Query(sql)
		sum.take(t, a)
		if a.Status != http.StatusOK {
			failed++
		}
		for kind, sign := range map[string]string{"joins": " JOIN ", "sorters": "ORDER BY", "triggers": "INSERT INTO item", "cascades": "DELETE FROM box", "FTS5": " note"} {
			if strings.Contains(sql, sign) {
				kinds[kind]++
			}
		}
	}
	kinds["failing"] = failed
	for kind, count := range kinds {
		if count < 500 {
			t.Errorf("only %d statements are %s", count, kind)
		}
	}
	t.Log(kinds)
	sum.reckon(t, c, 1000e9)
	if got, want := ledgerBalance(t, owner(t, s), "default"), int64(1000e9)-sum.nanos; got != want {
		t.Errorf("the ledger comes to %d nano-dollars, want %d", got, want)
	}
	// All of it is there after a stop, and nothing more.
	s.Stop(t)
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: append(prepaid("PERSQLD_WELCOME_CREDIT=1000", "PERSQLD_PRICE_STORAGE_GB_MONTH=0"), ownerEnv...)})
	sum.reckon(t, s.Client(t, harness.Token).Apart(), 1000e9)
}

// TestUsageAfterCrash kills the server under load, again and again. Each write has its count, once: a write is a row here, and costs one.
func TestUsageAfterCrash(t *testing.T) {
	row(t, "DP-BILL-7")
	data := filepath.Join(t.TempDir(), "data")
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	slugs := []string{"a", "b", "c"}
	env := prepaid("PERSQLD_WELCOME_CREDIT=1000", "PERSQLD_PRICE_STORAGE_GB_MONTH=0")
	var acked atomic.Int64
	var made spending // tables
	for round := range 8 {
		s, err := harness.Run(binary, harness.Options{Data: data, Env: env})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Kill)
		c := s.Client(t, harness.Token).Apart()
		if round == 0 {
			for _, slug := range slugs {
				made.take(t, c.DB(slug).Query("CREATE TABLE t(a)").OK())
			}
		}
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for w := range 6 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					d := c.DB(slugs[(w+i)%len(slugs)])
					a, err := c.Try("POST", d.Path("query"), map[string]any{"sql": "INSERT INTO t VALUES(1)"})
					if err == nil && a.Status == http.StatusOK {
						acked.Add(1)
					}
				}
			})
		}
		time.Sleep(time.Duration(20+random.IntN(1500)) * time.Millisecond)
		s.Kill()
		close(stop)
		wg.Wait()
	}
	s := harness.Start(t, binary, harness.Options{Data: data, Env: env})
	c := s.Client(t, harness.Token).Apart()
	written, _ := c.Get("/v1/usage").OK().At("data.totals.rowsWritten").(json.Number).Int64()
	var rows int64
	for _, slug := range slugs {
		var n int64
		fmt.Sscan(c.DB(slug).One("SELECT count(*) FROM t"), &n)
		rows += n
	}
	if rows < acked.Load() {
		t.Errorf("%d rows, %d were acknowledged", rows, acked.Load())
	}
	if written != rows+made.written {
		t.Errorf("usage says %d rows written, the databases have %d and their tables took %d", written, rows, made.written)
	}
	t.Logf("%d rows", rows)
	// And the balance is the ledger's.
	balance := nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd"))
	cost := nanos(t, c.Get("/v1/usage").OK().At("data.totals.costUsd"))
	if balance+cost != 1000e9 {
		t.Errorf("the balance %d and what was used %d come to %d nano-dollars, want the credit", balance, cost, balance+cost)
	}
}

// TestBalanceUnderLoad has 200 requests at once on a balance for 100, over and over.
func TestBalanceUnderLoad(t *testing.T) {
	row(t, "DP-BILL-5", "DP-BILL-8", "DP-BILL-9")
	const workers = 200
	s := harness.Start(t, binary, harness.Options{Env: append(prepaid("PERSQLD_PRICE_REQUESTS=10000", "PERSQLD_PRICE_ROWS_READ=0", "PERSQLD_PRICE_ROWS_WRITTEN=0", "PERSQLD_WELCOME_CREDIT=1"), ownerEnv...)})
	c := s.Client(t, harness.Token).Apart()
	var wg sync.WaitGroup
	var ok, refused atomic.Int64
	for range workers {
		wg.Go(func() {
			for range 3 {
				switch a := c.DB("d").Query("SELECT 1"); a.Status {
				case http.StatusOK:
					ok.Add(1)
				case http.StatusPaymentRequired:
					refused.Add(1)
				default:
					t.Errorf("%s: %d", a.What, a.Status)
				}
			}
		})
	}
	wg.Wait()
	if ok.Load() < 100 || ok.Load() > 100+workers || refused.Load() == 0 {
		t.Errorf("%d requests ran on a balance for 100, %d were refused", ok.Load(), refused.Load())
	}
	t.Logf("%d ran", ok.Load())
	want := int64(1e9) - ok.Load()*10_000_000
	if got := nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd")); got != want {
		t.Errorf("the balance is %d nano-dollars, want %d", got, want)
	}
	o := owner(t, s)
	if got := ledgerBalance(t, o, "default"); got != want {
		t.Errorf("the ledger comes to %d nano-dollars, want %d", got, want)
	}
	c.DB("d").Query("SELECT 1").Fails(http.StatusPaymentRequired, "balance_exhausted").Has("", "topUpUrl", "balanceUsd")
	// Money, and it goes on.
	o.Post("/api/namespaces/default/billing/credits", map[string]any{"usd": 100, "note": "by hand"}).OK()
	c.DB("d").Query("SELECT 1").OK()
}

// TestRunawayScanStops has a balance for few rows, and a statement that would read many.
func TestRunawayScanStops(t *testing.T) {
	row(t, "DP-BILL-8")
	s := harness.Start(t, binary, harness.Options{Env: append(prepaid("PERSQLD_PRICE_REQUESTS=0", "PERSQLD_PRICE_ROWS_READ=1000", "PERSQLD_PRICE_ROWS_WRITTEN=0", "PERSQLD_WELCOME_CREDIT=50"), ownerEnv...)})
	c := s.Client(t, harness.Token).Apart()
	d := c.DB("d")
	d.Query("CREATE TABLE t(a)").OK()
	d.Query("INSERT INTO t SELECT value FROM json_each('" + numbers(1000) + "')").OK()
	before := nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd"))
	for _, sql := range []string{"SELECT count(*) FROM t a, t b, t c WHERE a.a + b.a + c.a = -1", "INSERT INTO t SELECT a.a FROM t a, t b, t c"} {
		began := time.Now()
		a := d.Query(sql).Fails(http.StatusPaymentRequired, "balance_exhausted")
		if time.Since(began) > 10*time.Second {
			t.Errorf("%s ran for %s", sql, time.Since(began))
		}
		after := nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd"))
		if sql[0] == 'S' && (after >= 0 || after < -before) {
			t.Errorf("the balance went from %d to %d nano-dollars (%s)", before, after, a.Raw)
		}
		owner(t, s).Post("/api/namespaces/default/billing/credits", map[string]any{"usd": 60}).OK()
		before = nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd"))
	}
	if got := d.One("SELECT count(*) FROM t"); got != "1000" {
		t.Errorf("%s rows: the INSERT was not undone", got)
	}
}

// TestBillingModes starts servers that charge nothing, count nothing, and refuse to charge by an estimate.
func TestBillingModes(t *testing.T) {
	row(t, "DP-BILL-2", "DP-BILL-3", "DP-BILL-8", "DP-BILL-10")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	d := c.DB("d")
	d.Query("CREATE TABLE t(a)").OK()
	if got := nanos(t, d.Query("INSERT INTO t VALUES(1), (2)").OK().At("meta.costUsd")); got != requestPrice+2*writtenPrice {
		t.Errorf("two rows cost %d nano-dollars", got)
	}
	c.Get("/v1/billing/balance").OK().Is("data.balanceUsd", "null").Is("data.runwayDays", "null")
	cap := func(scope, id string, usd float64) body {
		return body{"scope": scope, "id": id, "window": "day", "usd": usd}
	}
	c.Do("PUT", "/v1/billing/caps", []body{cap("database", "d", 0)}).OK()
	d.Query("SELECT 1").Fails(http.StatusPaymentRequired, "spend_cap_reached").Is("cap.scope", "database").Is("cap.usd", "0")
	c.DB("e").Query("SELECT 1").OK()
	c.Get("/v1/usage").OK()
	c.Do("PUT", "/v1/billing/caps", []body{}).OK()
	d.Query("SELECT 1").OK()
	if _, out, code := s.CLI(t, "credit", "--namespace", "default", "--usd", "5"); code == 0 || !strings.Contains(out, "PERSQLD_BILLING=prepaid") {
		t.Errorf("a credit where nothing is prepaid: %d %s", code, out)
	}
	exact := strings.Contains(string(c.Get("/version").Raw), `"rowMeter":"exact"`)

	s = harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_BILLING=off"}})
	c = s.Client(t, harness.Token)
	c.DB("d").Query("SELECT 1").OK().Is("meta.costUsd", "0")
	c.Get("/v1/usage").OK().Is("data.totals.requests", "0")
	c.Get("/v1/billing/caps").Fails(http.StatusNotFound, "billing_off")

	p, err := harness.Run(binary, harness.Options{Data: filepath.Join(t.TempDir(), "data"), Env: []string{"PERSQLD_BILLING=prepaid"}})
	if err == nil {
		defer p.Kill()
	}
	if exact != (err == nil) || !exact && !strings.Contains(err.Error(), "PERSQLD_BILLING_ESTIMATED") {
		t.Errorf("prepaid on a build whose meter is exact %v: %v", exact, err)
	}
	_, err = harness.Run(binary, harness.Options{Data: filepath.Join(t.TempDir(), "data"), Env: []string{"PERSQLD_PRICE_ROWS_READ=0.0005"}})
	if err == nil || !strings.Contains(err.Error(), "PERSQLD_PRICE_ROWS_READ") {
		t.Errorf("a price of half a nano-dollar a row: %v", err)
	}
}
