package api_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

func TestCapsAreSet(t *testing.T) {
	s := newMetered(t, "meter", 0)
	s.query("shop", "CREATE TABLE t(a)").ok()
	d, err := s.cat.Database(s.ns.ID, "shop")
	if err != nil {
		t.Fatal(err)
	}
	set := func(body string) *answered { t.Helper(); return s.send(s.secret, "PUT", "/v1/billing/caps", body) }
	s.get("/v1/billing/caps").is(`[]`)
	set(`[{"scope":"namespace","window":"month","usd":50}]`).is(`[{"scope":"namespace","window":"month","usd":50}]`)
	full := `[{"scope":"database","id":"` + d.ID + `","window":"day","usd":0.5},{"scope":"namespace","window":"day","usd":0},{"scope":"namespace","window":"month","usd":1000000},` +
		`{"scope":"token","id":"` + s.token.ID + `","window":"month","usd":0.000000001}]`
	set(full).is(full)
	s.get("/v1/billing/caps").is(full)
	s.send(s.enrol("viewer@example.com", s.ns, catalog.MemberViewer), "GET", "/api/namespaces/acme/billing/caps", "").is(full)
	// A slug stands for its database, the namespace's own for nothing; amounts may be texts, and have exponents. An object around it is good too.
	set(`{"caps":[{"scope":"database","id":"shop","window":"day","usd":"0.10"},{"scope":"namespace","id":"acme","window":"day","usd":1e3},{"scope":"namespace","id":"` + s.ns.ID + `","window":"month","usd":2.50}]}`).
		is(`[{"scope":"database","id":"` + d.ID + `","window":"day","usd":0.1},{"scope":"namespace","window":"day","usd":1000},{"scope":"namespace","window":"month","usd":2.5}]`)
	set(full).ok()

	theirs, err := s.cat.CreateNamespace(t.Context(), "theirs")
	if err != nil {
		t.Fatal(err)
	}
	theirToken, _, err := s.cat.CreateToken(t.Context(), catalog.NewToken{NamespaceID: theirs.ID})
	if err != nil {
		t.Fatal(err)
	}
	theirDB, _, err := s.cat.CreateDatabase(t.Context(), catalog.NewDatabase{NamespaceID: theirs.ID, Slug: "theirs"})
	if err != nil {
		t.Fatal(err)
	}
	for body, code := range map[string]string{
		`[{"scope":"user","window":"day","usd":1}]`:                                                                                 "invalid_cap",
		`[{"window":"day","usd":1}]`:                                                                                                "invalid_cap",
		`[{"scope":"namespace","window":"week","usd":1}]`:                                                                           "invalid_cap",
		`[{"scope":"namespace","usd":1}]`:                                                                                           "invalid_cap",
		`[{"scope":"namespace","window":"day"}]`:                                                                                    "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":-0.01}]`:                                                                        "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":"-1"}]`:                                                                         "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":0.0000000001}]`:                                                                 "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":1e18}]`:                                                                         "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":"1_0"}]`:                                                                        "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":"0xEp1"}]`:                                                                      "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":"Inf"}]`:                                                                        "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":"NaNe"}]`:                                                                       "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":null}]`:                                                                         "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":true}]`:                                                                         "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":[1]}]`:                                                                          "invalid_cap",
		`[{"scope":"namespace","id":"theirs","window":"day","usd":1}]`:                                                              "invalid_cap",
		`[{"scope":"database","window":"day","usd":1}]`:                                                                             "invalid_cap",
		`[{"scope":"database","id":"none","window":"day","usd":1}]`:                                                                 "invalid_cap",
		`[{"scope":"database","id":"theirs","window":"day","usd":1}]`:                                                               "invalid_cap",
		`[{"scope":"database","id":"` + theirDB.ID + `","window":"day","usd":1}]`:                                                   "invalid_cap",
		`[{"scope":"token","window":"day","usd":1}]`:                                                                                "invalid_cap",
		`[{"scope":"token","id":"shop","window":"day","usd":1}]`:                                                                    "invalid_cap",
		`[{"scope":"token","id":"` + theirToken.ID + `","window":"day","usd":1}]`:                                                   "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":1},{"scope":"nothing"}]`:                                                        "invalid_cap",
		`[{"scope":"namespace","window":"day","usd":1},{"scope":"namespace","window":"day","usd":2}]`:                               "bad_request",
		`[{"scope":"database","id":"shop","window":"day","usd":1},{"scope":"database","id":"` + d.ID + `","window":"day","usd":1}]`: "bad_request",
		`[` + strings.TrimSuffix(strings.Repeat(`{"scope":"namespace","window":"day","usd":1},`, 101), ",") + `]`:                   "bad_request",
		``:              "bad_request",
		`null`:          "bad_request",
		`{}`:            "bad_request",
		`{"caps":null}`: "bad_request",
		`{"caps":{}}`:   "bad_request",
		`5`:             "bad_request",
		`[5]`:           "bad_request",
		`[`:             "bad_json",
		`[]]`:           "bad_json",
		`[],"caps":[]`:  "bad_json",
		`[{"scope":"namespace","window":"day","usd":"1e3"}]`: "invalid_cap",
		`nonsense`: "bad_json",
	} {
		set(body).fails(400, code)
	}
	_, reader := s.newToken(catalog.NewToken{Role: "readonly"})
	_, writer := s.newToken(catalog.NewToken{Role: "readwrite"})
	for _, secret := range []string{reader, writer} {
		s.send(secret, "PUT", "/v1/billing/caps", "[]").fails(403, "role_not_allowed")
		s.send(secret, "GET", "/v1/billing/caps", "").is(full)
	}
	s.send(s.enrol("editor@example.com", s.ns, catalog.MemberEditor), "PUT", "/api/namespaces/acme/billing/caps", "[]").fails(403, "role_not_allowed")
	s.get("/v1/billing/caps").is(full) // none of it changed anything
	s.send(s.enrol("admin@example.com", s.ns, catalog.MemberAdmin), "PUT", "/api/namespaces/acme/billing/caps", "[]").is(`[]`)
	s.get("/v1/billing/caps").is(`[]`)
}

func TestCapsHold(t *testing.T) {
	for _, mode := range []string{"meter", "prepaid"} {
		t.Run(mode, func(t *testing.T) {
			s := newMetered(t, mode, 5_000_000_000)
			s.query("shop", "CREATE TABLE t(a)").ok()
			s.query("other", "CREATE TABLE t(a)").ok()
			_, second := s.newToken(catalog.NewToken{})
			_, test := s.newToken(catalog.NewToken{Test: true})
			viewer := s.enrol("viewer@example.com", s.ns, catalog.MemberViewer)
			d, err := s.cat.Database(s.ns.ID, "shop")
			if err != nil {
				t.Fatal(err)
			}
			set := func(body string) { t.Helper(); s.send(s.secret, "PUT", "/v1/billing/caps", body).ok() }
			reached := func(a *answered, c string) {
				t.Helper()
				a.fails(402, "spend_cap_reached").has(`"cap":`+c+`}`).lacks("balanceUsd", "topUpUrl")
			}
			open := func() {
				t.Helper()
				s.get("/v1/usage").ok()
				s.get("/v1/billing/balance").ok()
				s.get("/v1/billing/caps").ok()
				for _, path := range []string{"/usage", "/billing/balance", "/billing/caps", "/databases", "/databases/shop/tables", "/databases/shop/describe"} {
					s.send(viewer, "GET", "/api/namespaces/acme"+path, "").ok()
				}
			}

			nothing := `{"scope":"namespace","window":"day","usd":0}`
			set("[" + nothing + "]")
			usage := s.get("/v1/usage").ok().raw
			for _, a := range []*answered{s.query("shop", "SELECT * FROM t"), s.batch("shop", false, "SELECT 1"), s.get("/v1/databases"), s.get("/v1/me"), s.get("/v1/db/acme/shop/tables"),
				s.get("/v1/tokens"), s.send(s.secret, "POST", "/v1/databases", `{"slug":"new"}`), s.query("none", "SELECT 1"), s.query("shop", "nonsense"), s.get("/v1/db/acme/shop/export"),
				s.queryBy(second, "shop", "SELECT 1"), s.queryBy(viewer, "shop", "SELECT 1"), s.send(viewer, "POST", "/api/namespaces/acme/databases/shop/batch", `{"statements":[{"sql":"SELECT 1"}]}`)} {
				reached(a, nothing)
			}
			if now := s.get("/v1/usage").ok().raw; now != usage {
				t.Errorf("refused requests count: %s\nbefore %s", now, usage)
			}
			s.queryBy(test, "trial", "SELECT 1").ok() // is never charged
			s.send("", "GET", "/v1/me", "").fails(401, "unauthorized")
			open()

			ofShop := `{"scope":"database","id":"` + d.ID + `","window":"month","usd":0}`
			set("[" + ofShop + "]")
			reached(s.query("shop", "SELECT 1"), ofShop)
			reached(s.batch("shop", true, "SELECT 1"), ofShop)
			reached(s.get("/v1/db/acme/shop/tables"), ofShop)
			s.query("other", "SELECT 1").ok()
			s.get("/v1/databases").ok()
			open()

			ofToken := `{"scope":"token","id":"` + s.token.ID + `","window":"day","usd":0}`
			set("[" + ofToken + "]")
			reached(s.query("shop", "SELECT 1"), ofToken)
			reached(s.get("/v1/databases"), ofToken)
			s.queryBy(second, "shop", "SELECT 1").ok()
			s.send(second, "GET", "/v1/databases", "").ok()
			open()

			// What was spent before it was set counts; the next day is another.
			var spent struct{ Totals struct{ CostUSD json.Number } }
			if err := json.Unmarshal(s.get("/v1/usage").ok().Data, &spent); err != nil {
				t.Fatal(err)
			}
			nanos, err := catalog.ParseDollars(spent.Totals.CostUSD.String())
			if err != nil {
				t.Fatal(err)
			}
			exact := `{"scope":"namespace","window":"day","usd":` + catalog.DollarText(nanos) + `}`
			set("[" + exact + "]")
			reached(s.query("shop", "SELECT 1"), exact)
			more := `{"scope":"namespace","window":"day","usd":` + catalog.DollarText(nanos+1) + `}`
			set("[" + more + "]")
			s.query("shop", "SELECT 1").ok()
			reached(s.query("shop", "SELECT 1"), more)
			s.later.Add(int64(24 * time.Hour))
			s.query("shop", "SELECT 1").ok()
			// A month goes on with the day.
			month := `{"scope":"namespace","window":"month","usd":` + catalog.DollarText(nanos) + `}`
			set("[" + month + "]")
			reached(s.query("shop", "SELECT 1"), month)
			s.later.Add(int64(17 * 24 * time.Hour)) // the 2nd of August
			s.query("shop", "SELECT 1").ok()
			set("[]")
			s.query("shop", "SELECT 1").ok()
		})
	}
}

// thousand fills a table n, and endless reads a thousand million rows of it, which the estimate counts too.
const (
	thousand = "INSERT INTO n WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000) SELECT n FROM c"
	endless  = "INSERT INTO t SELECT a.n FROM n a, n b, n c WHERE a.n + b.n + c.n < 0"
)

// TestStatementIsStopped: one whose cost passes what is left, and it is charged what it read until then.
func TestStatementIsStopped(t *testing.T) {
	s := newMetered(t, "prepaid", 10_000_000) // a cent: 2,000,000 rows read
	s.query("shop", "CREATE TABLE t(a)").ok()
	s.query("shop", "CREATE TABLE n(n)").ok()
	s.query("shop", thousand).ok()
	a := s.query("shop", endless).fails(402, "balance_exhausted").has(`"balanceUsd":0,"topUpUrl":"https://sql.example.com/acme/billing"`).costs()
	if a.Meta.RowsRead == 0 || a.Meta.RowsWritten != 0 {
		t.Errorf("%s", a.raw)
	}
	var ledger int64
	if st, err := s.books.Standing(t.Context(), s.ns); err != nil {
		t.Fatal(err)
	} else if ledger = st.Balance; ledger > 0 {
		t.Errorf("%d nano-dollars are left", ledger)
	}
	s.query("shop", "SELECT count(*) FROM t").fails(402, "balance_exhausted").lacks(`"meta"`)
	if _, err := s.books.Credit(t.Context(), catalog.Credit{NamespaceID: s.ns.ID, Nanos: 1_000_000_000 - ledger, Kind: catalog.EntryCredit}); err != nil {
		t.Fatal(err)
	}
	s.query("shop", "SELECT count(*) FROM t").ok().has(`"rows":[[0]]`)
}

// TestBatchIsStopped: what a batch without a transaction kept before its budget ended is charged.
func TestBatchIsStopped(t *testing.T) {
	for i := range 4 {
		key, second := i%2 == 1, endless // which loses the transaction, and has the first statement run again
		if i > 1 {
			second = strings.TrimPrefix(endless, "INSERT INTO t ")
		}
		s := newMetered(t, "prepaid", 1_000_000_000)
		first := sum(s.query("shop", "CREATE TABLE t(a)").ok().work(), s.query("shop", "CREATE TABLE n(n)").ok().work(), s.query("shop", thousand).ok().work())
		s.send(s.secret, "PUT", "/v1/billing/caps", `[{"scope":"namespace","window":"day","usd":0.01}]`).ok()
		body, _ := json.Marshal(map[string]any{"statements": []map[string]string{{"sql": "INSERT INTO t VALUES(1),(2),(3)"}, {"sql": second}}})
		var headers []string
		if key {
			headers = []string{"Idempotency-Key", "k"}
		}
		a := s.send(s.secret, "POST", "/v1/db/acme/shop/batch", string(body), headers...).fails(402, "spend_cap_reached").has(`"completed":[{`).costs()
		if a.Meta.RowsWritten < 3 || a.Meta.RowsWritten > 10 {
			t.Errorf("3 rows are kept: %s", a.raw)
		}
		if a.Meta.RowsRead < 1_000_000 { // for about a cent
			t.Errorf("what the second one read is free: %s", a.raw)
		}
		s.total(sum(first, a.work()))
		s.send(s.secret, "PUT", "/v1/billing/caps", `[]`).ok()
		s.query("shop", "SELECT count(*) FROM t").ok().has(`"rows":[[3]]`)
	}
}

func TestBalanceIsChecked(t *testing.T) {
	s := newMetered(t, "prepaid", 1_000) // two requests
	s.get("/v1/me").ok()
	s.get("/v1/databases").ok()
	viewer := s.enrol("viewer@example.com", s.ns, catalog.MemberViewer)
	owner := s.enrol("owner@example.com", s.ns, catalog.MemberOwner)
	for _, a := range []*answered{s.get("/v1/me"), s.get("/v1/databases"), s.query("shop", "SELECT 1"), s.queryBy(viewer, "shop", "SELECT 1")} {
		a.fails(402, "balance_exhausted").has(`"error":"Prepaid balance exhausted. Top up to continue."`, `"balanceUsd":0,"topUpUrl":"https://sql.example.com/acme/billing"`, `"requestId":"`).lacks(`"cap"`)
	}
	s.get("/v1/usage").ok()
	s.get("/v1/billing/balance").is(`{"balanceUsd":0,"currency":"usd","burnPerDayUsd":0.000001,"runwayDays":0}`)
	s.get("/v1/billing/caps").is(`[]`)
	s.send(s.secret, "PUT", "/v1/billing/caps", "[]").ok()
	s.send(viewer, "GET", "/api/namespaces/acme/databases", "").ok()
	s.send(owner, "GET", "/api/namespaces/acme/tokens", "").ok()
	s.send(owner, "GET", "/api/namespaces/acme/billing/ledger", "").ok()
	s.total(calls(2))
}
