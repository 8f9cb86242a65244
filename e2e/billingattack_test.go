package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// TestWorkThatIsNotAnsweredInFull has clients hang up in the middle of an export, and members load rows: each is counted.
func TestWorkThatIsNotAnsweredInFull(t *testing.T) {
	row(t, "DP-BILL-4")
	s := harness.Start(t, binary, harness.Options{Env: append(prepaid("PERSQLD_WELCOME_CREDIT=1000", "PERSQLD_PRICE_STORAGE_GB_MONTH=0"), ownerEnv...)})
	c := s.Client(t, harness.Token).Apart()
	d := c.DB("d")
	d.Query("CREATE TABLE t(a)").OK()
	d.Query("INSERT INTO t WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x<4000) SELECT hex(randomblob(2000)) FROM c").OK()
	used := func(what string) int64 {
		n, err := c.Get("/v1/usage").OK().At("data.totals." + what).(json.Number).Int64()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	requests := used("requests")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", c.URL()+d.Path("export"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.Token())
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Read(make([]byte, 100))
	answer.Body.Close() // hangs up
	if !eventually(t, 10*time.Second, func() bool { return used("requests") == requests+1 }) {
		t.Fatalf("an export that was broken off is not counted: %d requests, %d before", used("requests"), requests)
	}
	// A member that writes rows pays for them by whichever call.
	o := owner(t, s)
	written := used("rowsWritten")
	o.Do("POST", "/api/namespaces/default/databases/d/load-csv?table=csv", harness.Raw("a\n1\n2\n3\n")).OK()
	if got := used("rowsWritten"); got < written+3 {
		t.Errorf("a member's load-csv wrote 3 rows, usage went from %d to %d", written, got)
	}
	written = used("rowsWritten")
	o.Do("POST", "/api/namespaces/default/databases/d/import", harness.Raw("CREATE TABLE i(a); INSERT INTO i VALUES(1),(2),(3),(4);")).OK()
	if got := used("rowsWritten"); got < written+4 {
		t.Errorf("a member's import wrote 4 rows, usage went from %d to %d", written, got)
	}
}

// TestUsageOfAllTimes asks for thousands of years.
func TestUsageOfAllTimes(t *testing.T) {
	row(t, "DP-BILL-4")
	s := harness.Start(t, binary, harness.Options{Env: prepaid()})
	c := s.Client(t, harness.Token).Apart()
	c.DB("d").Query("CREATE TABLE t(a)").OK()
	want := c.Get("/v1/usage").OK().At("data.totals").(map[string]any)
	for _, by := range []string{"day", "database", "token", "meter"} {
		began := time.Now()
		got := c.Get("/v1/usage?from=0&to=9999-12-31&groupBy=" + by).OK().At("data.totals").(map[string]any)
		if took := time.Since(began); took > 300*time.Millisecond {
			t.Errorf("by %s it took %s", by, took)
		}
		if fmt.Sprint(got["requests"]) != fmt.Sprint(want["requests"]) || fmt.Sprint(got["rowsWritten"]) != fmt.Sprint(want["rowsWritten"]) {
			t.Errorf("by %s: %v, want %v", by, got, want)
		}
	}
}

// TestBatchCannotOutspend has the statements of a batch without a transaction end at the balance: what stands is paid, and what was read.
func TestBatchCannotOutspend(t *testing.T) {
	row(t, "DP-BILL-8")
	s := harness.Start(t, binary, harness.Options{Env: append(prepaid("PERSQLD_PRICE_REQUESTS=0", "PERSQLD_PRICE_ROWS_READ=1000", "PERSQLD_PRICE_ROWS_WRITTEN=1000", "PERSQLD_PRICE_STORAGE_GB_MONTH=0", "PERSQLD_WELCOME_CREDIT=20"), ownerEnv...)})
	c := s.Client(t, harness.Token).Apart()
	d := c.DB("d")
	d.Query("CREATE TABLE t(a)").OK()
	d.Query("INSERT INTO t SELECT value FROM json_each('" + numbers(1000) + "')").OK()
	o := owner(t, s)
	credits := int64(20e9)
	for _, last := range []string{"SELECT count(*) FROM t a, t b, t c WHERE a.a+b.a+c.a=-1", "INSERT INTO t SELECT a.a FROM t a, t b, t c"} {
		for {
			left := nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd"))
			if left > 0 {
				break
			}
			o.Post("/api/namespaces/default/billing/credits", map[string]any{"usd": 20}).OK()
			credits += 20e9
		}
		a := d.Batch(false, "INSERT INTO t(a) VALUES(1), (2), (3)", last)
		a.Fails(http.StatusPaymentRequired, "balance_exhausted")
		n, _ := a.At("meta.rowsWritten").(json.Number).Int64()
		read, _ := a.At("meta.rowsRead").(json.Number).Int64()
		if n != 3 || read < 1000 {
			t.Errorf("%s: %s", last, a.Raw)
		}
		if left := nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd")); left > 0 {
			t.Errorf("%s was stopped at the balance's end, and %d nano-dollars are left", last, left)
		}
		if got := ledgerBalance(t, o, "default"); got != nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd")) {
			t.Errorf("the ledger comes to %d", got)
		}
	}
	used := nanos(t, c.Get("/v1/usage").OK().At("data.totals.costUsd"))
	if left := nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd")); left != credits-used {
		t.Errorf("%d nano-dollars are left of %d, %d were used", left, credits, used)
	}
}

// TestScopedTokenIsToldNoBalance has a token of one database stopped in the middle: what the namespace has left is not its matter.
func TestScopedTokenIsToldNoBalance(t *testing.T) {
	row(t, "DP-BILL-8")
	s := harness.Start(t, binary, harness.Options{Env: prepaid("PERSQLD_PRICE_REQUESTS=0", "PERSQLD_PRICE_ROWS_READ=1000", "PERSQLD_PRICE_ROWS_WRITTEN=0", "PERSQLD_WELCOME_CREDIT=50")})
	c := s.Client(t, harness.Token).Apart()
	d := c.DB("d")
	d.Query("CREATE TABLE t(a)").OK()
	d.Query("INSERT INTO t SELECT value FROM json_each('" + numbers(1000) + "')").OK()
	token := c.Post("/v1/tokens", body{"name": "one", "role": "readonly", "database": "d"}).OK().Str("data.token")
	scan := "SELECT count(*) FROM t a, t b, t c WHERE a.a+b.a+c.a=-1"
	c.As(token).DB("d").Query(scan).Fails(http.StatusPaymentRequired, "balance_exhausted").Is("balanceUsd", "0")
}

// TestImportStopsAtTheBalance has an import whose text would read and write without end, and one that fails: each pays what it read.
func TestImportStopsAtTheBalance(t *testing.T) {
	row(t, "DP-BILL-8")
	s := harness.Start(t, binary, harness.Options{Env: append(prepaid("PERSQLD_PRICE_REQUESTS=0", "PERSQLD_PRICE_ROWS_READ=1000", "PERSQLD_PRICE_ROWS_WRITTEN=0", "PERSQLD_PRICE_STORAGE_GB_MONTH=0", "PERSQLD_WELCOME_CREDIT=50"), ownerEnv...)})
	c := s.Client(t, harness.Token).Apart()
	d := c.DB("d")
	d.Query("CREATE TABLE t(a)").OK()
	d.Query("INSERT INTO t SELECT value FROM json_each('" + numbers(1000) + "')").OK()
	balance := func() int64 { return nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd")) }
	before := balance()
	c.Do("POST", d.Path("import"), harness.Raw("SELECT CASE WHEN a = (SELECT max(a) FROM t) THEN abs(-9223372036854775807 - 1) END FROM t;")).Fails(http.StatusBadRequest, "import_statement")
	if read := before - balance(); read < 1000*1_000_000 {
		t.Errorf("an import that failed paid %d nano-dollars for 1000 rows that it read", read)
	}
	began := time.Now()
	before = balance()
	c.Do("POST", d.Path("import"), harness.Raw("CREATE TABLE u(a); INSERT INTO u SELECT a.a FROM t a, t b, t c;")).Fails(http.StatusPaymentRequired, "balance_exhausted")
	if left := balance(); time.Since(began) > 10*time.Second || left > 0 || left < -before {
		t.Errorf("after %s an import had taken the balance from %d to %d nano-dollars", time.Since(began), before, left)
	}
	if got := ledgerBalance(t, owner(t, s), "default"); got != balance() {
		t.Errorf("the ledger comes to %d, the balance is %d", got, balance())
	}
}

// TestCapsOutliveTheirDatabase sends the list of caps back as it was read, with one whose database is deleted.
func TestCapsOutliveTheirDatabase(t *testing.T) {
	row(t, "DP-BILL-9")
	s := harness.Start(t, binary, harness.Options{Env: prepaid()})
	c := s.Client(t, harness.Token).Apart()
	c.DB("d").Query("SELECT 1").OK()
	c.Do("PUT", "/v1/billing/caps", []body{{"scope": "database", "id": "d", "window": "day", "usd": 0}}).OK()
	id := c.Get("/v1/billing/caps").OK().Str("data.0.id")
	gone := c.Post("/v1/databases", body{"slug": "other"}).OK().Str("data.id")
	c.Do("DELETE", "/v1/databases/other", nil).OK()
	c.Do("PUT", "/v1/billing/caps", []body{{"scope": "database", "id": gone, "window": "day", "usd": 0}}).Fails(http.StatusBadRequest, "invalid_cap")
	c.Do("DELETE", "/v1/databases/d", nil).OK()
	c.Do("PUT", "/v1/billing/caps", c.Get("/v1/billing/caps").OK().At("data")).OK()
	c.Post("/v1/databases/"+id+"/undelete", body{}).OK()
	c.DB("d").Query("SELECT 1").Fails(http.StatusPaymentRequired, "spend_cap_reached")
}

// TestRefusedAtTheLastMomentIsFree has requests that are let in wait behind a long one, which spends all: they are refused when they would begin, and cost nothing.
func TestRefusedAtTheLastMomentIsFree(t *testing.T) {
	row(t, "DP-BILL-8")
	s := harness.Start(t, binary, harness.Options{Env: append(prepaid("PERSQLD_PRICE_REQUESTS=1000000", "PERSQLD_PRICE_ROWS_READ=100000", "PERSQLD_PRICE_ROWS_WRITTEN=0", "PERSQLD_PRICE_STORAGE_GB_MONTH=0", "PERSQLD_WELCOME_CREDIT=100000"), ownerEnv...)})
	c := s.Client(t, harness.Token).Apart()
	d := c.DB("d")
	d.Query("CREATE TABLE t(a)").OK()
	d.Query("INSERT INTO t SELECT value FROM json_each('" + numbers(1000) + "')").OK()
	var sum spending
	var mu sync.Mutex
	var wg sync.WaitGroup
	used := c.Get("/v1/usage").OK().At("data.totals.requests")
	before, _ := used.(json.Number).Int64()
	for i := range 60 {
		wg.Go(func() {
			var a *harness.Answer
			switch i % 3 {
			case 0:
				a = d.Query("SELECT count(*) FROM t a, t b, t c WHERE a.a+b.a+c.a=-1")
			case 1:
				a = d.Query("SELECT 1")
			default:
				a = d.Batch(i%2 == 0, "SELECT 1", "SELECT 2")
			}
			mu.Lock()
			defer mu.Unlock()
			if a.Status == http.StatusOK || a.Body["meta"] != nil {
				sum.requests++
			}
		})
	}
	wg.Wait()
	after, _ := c.Get("/v1/usage").OK().At("data.totals.requests").(json.Number).Int64()
	if after-before != sum.requests {
		t.Errorf("%d requests are counted, %d did some work", after-before, sum.requests)
	}
	if got := ledgerBalance(t, owner(t, s), "default"); got != nanos(t, c.Get("/v1/billing/balance").OK().At("data.balanceUsd")) {
		t.Errorf("the ledger comes to %d", got)
	}
}
