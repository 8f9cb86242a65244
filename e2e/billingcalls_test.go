package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

func TestUsageCall(t *testing.T) {
	row(t, "DP-BILL-1", "DP-BILL-2", "DP-BILL-6")
	s := people(t, prepaid()...)
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	var sum spending
	sum.requests, sum.nanos = 1, requestPrice // the one that made it
	for _, a := range []*harness.Answer{d.Must("CREATE TABLE t(a UNIQUE)"), d.Must("INSERT INTO t VALUES(1),(2)"), d.Must("SELECT * FROM t"), d.Query("INSERT INTO t VALUES(1)"), d.Query("nonsense"),
		d.Batch(true, "INSERT INTO t VALUES(3)", "INSERT INTO t VALUES(1)"), d.Batch(false, "INSERT INTO t VALUES(3)", "SELECT a FROM t")} {
		sum.take(t, a)
	}
	sum.reckon(t, c, 5_000_000_000)
	for _, by := range []string{"day", "database", "token", "meter"} {
		a := c.Get("/v1/usage?groupBy=" + by).OK()
		a.Has("data.totals", "requests", "rowsRead", "rowsWritten", "storageBytes", "costUsd").Has("data.series.0", "key", "requests", "rowsRead", "rowsWritten", "storageBytes", "costUsd")
	}
	for _, query := range []string{"from=yesterday", "from=2026-02-01&to=2026-01-01", "groupBy=year"} {
		c.Get("/v1/usage?"+query).Fails(http.StatusBadRequest, "bad_request")
	}
	if n := len(c.Get("/v1/usage?from=2000-01-01&to=2000-12-31").OK().Is("data.totals.costUsd", "0").List("data.series")); n != 0 {
		t.Errorf("%d lines of the year 2000", n)
	}
	// Who isn't charged.
	_, secret := newToken(t, s, "--namespace", "default", "--test")
	trial := s.Client(t, secret).DB("trial")
	trial.Must("CREATE TABLE t(a)").Is("meta.costUsd", "0")
	c.Get("/v1/billing/balance").OK().Is("data.balanceUsd", harness.Text(c.Get("/v1/billing/balance").OK().At("data.balanceUsd")))
	s.Client(t, secret).Get("/v1/usage").Fails(http.StatusForbidden, "forbidden")
}

func TestCapsCall(t *testing.T) {
	row(t, "DP-BILL-3", "DP-BILL-8")
	s := people(t, prepaid()...)
	c := s.Client(t, harness.Token)
	viewer := enrol(t, s, "viewer@example.com", "default", "viewer")
	d, other := newDB(t, c), newDB(t, c)
	set := func(v any) *harness.Answer { return c.Do(http.MethodPut, "/v1/billing/caps", v) }
	cap := body{"scope": "database", "id": d.Slug, "window": "day", "usd": 0}
	set([]body{cap}).OK().Is("data.0.scope", "database").Is("data.0.window", "day").Is("data.0.usd", "0")
	id := c.Get("/v1/billing/caps").OK().Str("data.0.id")
	for _, a := range []*harness.Answer{d.Query("SELECT 1"), d.Batch(false, "SELECT 1"), d.Get(d.Path("tables")), viewer.Post("/api/namespaces/default/databases/"+d.Slug+"/query", harness.Body("SELECT 1"))} {
		a.Fails(http.StatusPaymentRequired, "spend_cap_reached").Is("cap.scope", "database").Is("cap.id", id).Is("cap.usd", "0")
	}
	other.Must("SELECT 1")
	set([]body{{"scope": "namespace", "window": "month", "usd": 0}}).OK()
	other.Query("SELECT 1").Fails(http.StatusPaymentRequired, "spend_cap_reached")
	c.Get("/v1/me").Fails(http.StatusPaymentRequired, "spend_cap_reached")
	for _, path := range []string{"/v1/usage", "/v1/billing/balance", "/v1/billing/caps"} {
		c.Get(path).OK()
		viewer.Get(strings.Replace(path, "/v1/", "/api/namespaces/default/", 1)).OK()
	}
	viewer.Get("/api/namespaces/default/databases").OK()
	for _, bad := range []body{{"scope": "user", "window": "day", "usd": 1}, {"scope": "namespace", "window": "year", "usd": 1}, {"scope": "namespace", "window": "day", "usd": -1}, {"scope": "database", "id": "none", "window": "day", "usd": 1}} {
		a, err := c.Try(http.MethodPut, "/v1/billing/caps", []body{bad})
		if err != nil {
			t.Fatal(err)
		}
		a.Fails(http.StatusBadRequest, "invalid_cap")
	}
	set(harness.Raw(`[`)).Fails(http.StatusBadRequest, "bad_json")
	set(harness.Raw(`[]`)).OK()
	d.Must("SELECT 1")
	// A statement that runs is stopped.
	set([]body{{"scope": "database", "id": d.Slug, "window": "day", "usd": "0.01"}}).OK()
	d.Must("CREATE TABLE n(n)")
	d.Must("INSERT INTO n WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000) SELECT n FROM c")
	a := d.Query("SELECT count(*) FROM n a, n b, n c WHERE a.n + b.n + c.n < 0").Fails(http.StatusPaymentRequired, "spend_cap_reached")
	if cost := nanos(t, a.At("meta.costUsd")); cost < 7_000_000 || cost > 11_000_000 {
		t.Errorf("it cost %d nano-dollars: %s", cost, a.Raw)
	}
}

func TestLedgerCalls(t *testing.T) {
	row(t, "DP-BILL-4", "DP-BILL-5")
	s := people(t, prepaid("PERSQLD_WELCOME_CREDIT=0.000001")...)
	operator := enrol(t, s, "operator@example.com", "default", "owner")
	ada := enrol(t, s, "ada@example.com", "", "") // with a namespace of her own
	reader := enrol(t, s, "reader@example.com", "ada", "viewer")
	const at = "/api/namespaces/ada/billing/"
	ada.Get(at+"ledger").OK().Is("data.balanceUsd", "0.000001").Is("data.entries.0.kind", "welcome").Is("data.entries.0.usd", "0.000001")
	reader.Get(at+"ledger").Fails(http.StatusForbidden, "role_not_allowed")
	operator.Get(at+"ledger").Fails(http.StatusNotFound, "not_found")
	ada.Get(at+"ledger?limit=0").Fails(http.StatusBadRequest, "bad_request")
	ada.Post(at+"credits", body{"usd": 5}).Fails(http.StatusForbidden, "forbidden")
	operator.Post("/api/namespaces/none/billing/credits", body{"usd": 5}).Fails(http.StatusNotFound, "not_found")
	operator.Post(at+"credits", body{"usd": 0}).Fails(http.StatusBadRequest, "invalid_amount")
	operator.Post(at+"credits", harness.Raw(strings.Repeat(" ", 64_001))).Fails(http.StatusRequestEntityTooLarge, "request_too_large")
	// The balance is used up by two statements, and then the third is refused.
	select1 := func() *harness.Answer {
		return ada.Post("/api/namespaces/ada/databases/main/query", harness.Body("SELECT 1"))
	}
	select1().OK()
	select1().OK()
	a := select1().Fails(http.StatusPaymentRequired, "balance_exhausted").Is("balanceUsd", "0")
	if !strings.HasSuffix(a.Str("topUpUrl"), "/ada/billing") {
		t.Errorf("%s", a.Raw)
	}
	operator.Post(at+"credits", body{"usd": 20, "note": "invoice 4711"}).OK().Is("data.balanceUsd", "20")
	select1().OK()
	info := s.JSONOf(t, "credit", "--namespace", "ada", "--usd=-5.5", "--note", "taken back")
	if got := harness.Text(info["balanceUsd"]); got != "14.4999995" {
		t.Errorf("the balance is %s", got)
	}
	if sum := ledgerBalance(t, ada.Client, "ada"); sum != 14_499_999_500 {
		t.Errorf("the ledger comes to %d", sum)
	}
	ada.Get("/api/namespaces/ada/billing/balance").OK().Is("data.balanceUsd", "14.4999995").Is("data.currency", "usd").Is("data.burnPerDayUsd", "0.0000015")
}

func TestBillingOff(t *testing.T) {
	row(t, "DP-BILL-10")
	s := people(t, "PERSQLD_BILLING=off")
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)").Is("meta.costUsd", "0")
	c.Get("/v1/usage").OK().Is("data.totals.requests", "0")
	c.Get("/v1/billing/balance").OK().Is("data.balanceUsd", "null").Is("data.runwayDays", "null")
	c.Get("/v1/billing/caps").Fails(http.StatusNotFound, "billing_off")
	owner.Get("/api/namespaces/default/billing/ledger").Fails(http.StatusNotFound, "not_prepaid")
	owner.Post("/api/namespaces/default/billing/credits", body{"usd": 5}).Fails(http.StatusNotFound, "not_prepaid")
	// By default usage is kept, and nothing is charged.
	c = client(t)
	c.Get("/v1/billing/balance").OK().Is("data.balanceUsd", "null")
	c.Get("/v1/billing/caps").OK()
}
