package api_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/sqlite"
)

// TestWhatCounts: who isn't let in, is refused before the work, or meets a fault of the server's doesn't count; a failure of one's own does.
func TestWhatCounts(t *testing.T) {
	s := newMetered(t, "prepaid", 5_000_000_000)
	n := s.query("shop", "CREATE TABLE t(a UNIQUE)").ok().costs().work()
	s.total(n)
	counts := func(a *answered, w catalog.Work) {
		t.Helper()
		n.Add(w)
		s.total(n)
		s.balance(5_000_000_000 - costOf(n))
	}
	for _, a := range []*answered{
		s.send("", "GET", "/v1/me", "").fails(401, "unauthorized"),
		s.send(s.secret+"x", "GET", "/v1/me", "").fails(401, "unauthorized"),
		s.send("", "GET", "/healthz", ""), s.send("", "GET", "/api/openapi.json", ""), s.get("/v1/none").fails(404, "not_found"), s.send(s.secret, "PATCH", "/v1/me", "").fails(405, "method_not_allowed"),
		s.get("/v1/usage").ok(), s.get("/v1/billing/balance").ok(), s.get("/v1/billing/caps").ok(), s.send(s.secret, "PUT", "/v1/billing/caps", "nonsense").fails(400, "bad_json"),
	} {
		counts(a, catalog.Work{})
	}
	counts(s.get("/v1/me").ok(), calls(1))
	counts(s.get("/v1/whoami").ok(), calls(1))
	counts(s.get("/v1/databases/none").fails(404, "not_found"), calls(1))
	counts(s.send(s.secret, "POST", "/v1/db/theirs/shop/query", `{"sql":"SELECT 1"}`).fails(403, "forbidden"), calls(1))
	counts(s.send(s.secret, "POST", "/v1/db/acme/shop/query", `nonsense`).fails(400, "bad_json"), calls(1))
	counts(s.query("shop", "SELEC 1").fails(400, "syntax_error").costs(), calls(1))
	counts(s.query("shop", "SELECT b FROM t").fails(400, "unknown_column").costs(), calls(1))
	counts(s.send(s.secret, "POST", "/v1/db/acme/shop/validate", `{"sql":"SELECT * FROM t"}`).ok(), calls(1))
	a := s.query("shop", "INSERT INTO t VALUES(1),(2),(3)").ok().costs()
	counts(a, a.work())
	if a.Meta.RowsWritten < 3 {
		t.Errorf("%s", a.raw)
	}
	a = s.query("shop", "SELECT * FROM t NOT INDEXED").ok().costs()
	counts(a, a.work())
	a = s.query("shop", "INSERT INTO t VALUES(4),(5),(1)").fails(400, "unique_violation").costs()
	if a.Meta.RowsWritten == 0 && sqlite.RowMeter() == "exact" {
		t.Errorf("a failed insert wrote nothing: %s", a.raw)
	}
	counts(a, a.work())
	a = s.batch("shop", true, "INSERT INTO t VALUES(6)", "INSERT INTO t VALUES(1)").fails(400, "unique_violation").costs()
	counts(a, a.work())
	a = s.batch("shop", false, "INSERT INTO t VALUES(7)", "INSERT INTO t VALUES(1)").fails(400, "unique_violation").costs().has(`"completed":[{`)
	if a.Meta.RowsWritten == 0 {
		t.Errorf("%s", a.raw)
	}
	counts(a, a.work())
	a = s.batch("shop", false, "SELECT * FROM t", "SELECT count(*) FROM t", "INSERT INTO t VALUES(8)").ok().costs()
	counts(a, a.work())
	a = s.batch("shop", true, "SELECT 1", "INSERT INTO t VALUES(9)", "INSERT INTO t VALUES(10)").ok().costs()
	counts(a, a.work())
	a = s.query("shop", "SELECT abs(-9223372036854775808) FROM t").fails(400, "sql_error").costs()
	counts(a, a.work())
	// A counted row is one of the tables', not the server's own: the key's row isn't.
	plain := s.query("shop", "INSERT INTO t VALUES(11)").ok().costs()
	counts(plain, plain.work())
	a = s.queryBy(s.secret, "shop", "INSERT INTO t VALUES(12)", "Idempotency-Key", "k").ok().costs()
	if a.Meta.RowsWritten != plain.Meta.RowsWritten || a.Meta.RowsRead != plain.Meta.RowsRead {
		t.Errorf("with a key %s, without %s", a.raw, plain.raw)
	}
	counts(a, a.work())
	// A replay is a request, and reads nothing.
	for range 3 {
		counts(s.queryBy(s.secret, "shop", "INSERT INTO t VALUES(12)", "Idempotency-Key", "k").ok(), calls(1))
	}
	counts(s.queryBy(s.secret, "shop", "INSERT INTO t VALUES(13)", "Idempotency-Key", "k").fails(409, "idempotency_key_reused"), calls(1))
	// So is the first of two calls that say the same: what it kept, it wrote.
	counts(s.send(s.secret, "GET", "/v1/db/acme/shop/policies", "").ok(), calls(1))
	// By a member, statements count; nothing else does.
	admin := s.enrol("admin@example.com", s.ns, catalog.MemberAdmin)
	counts(s.send(admin, "GET", "/api/namespaces/acme/databases", "").ok(), catalog.Work{})
	counts(s.send(admin, "GET", "/api/namespaces/acme/databases/shop/tables", "").ok(), catalog.Work{})
	a = s.queryBy(admin, "shop", "SELECT * FROM t").ok().costs()
	counts(a, a.work())
	a = s.queryBy(admin, "shop", "INSERT INTO t VALUES(14)").ok().costs()
	counts(a, a.work())
	// What tables and describe count exactly is charged: the rows are.
	least := int64(0) // the estimate doesn't know a count
	if sqlite.RowMeter() == "exact" {
		least = 1
	}
	before := n
	for _, path := range []string{"/tables", "/describe"} {
		s.get("/v1/db/acme/shop" + path).ok()
		var r struct {
			Totals struct{ Requests, RowsRead, RowsWritten int64 }
		}
		if err := json.Unmarshal(s.get("/v1/usage").Data, &r); err != nil {
			t.Fatal(err)
		}
		now := catalog.Work(r.Totals)
		tables := catalog.Work{Requests: now.Requests - before.Requests, RowsRead: now.RowsRead - before.RowsRead, RowsWritten: now.RowsWritten - before.RowsWritten}
		if tables.Requests != 1 || tables.RowsRead < least || tables.RowsRead > 100 || tables.RowsWritten != 0 {
			t.Errorf("%s counts %+v", path, tables)
		}
		before = now
	}
}

// TestNotCounted: 429 and 5xx.
func TestNotCounted(t *testing.T) {
	s := newMetered(t, "prepaid", 5_000_000_000, func(o *api.Options) { o.RatePerAddress = 1 })
	limited := 0
	for range 20 {
		if a := s.get("/v1/me"); a.status == http.StatusTooManyRequests {
			limited++
		} else {
			a.ok()
		}
	}
	if limited == 0 {
		t.Fatal("nothing was limited")
	}
	st, err := s.books.Standing(t.Context(), s.ns)
	if want := 5_000_000_000 - 500*int64(20-limited); err != nil || st.Balance != want {
		t.Errorf("%d of 20 were refused: the balance is %d (%v), want %d", limited, st.Balance, err, want)
	}

	s = newMetered(t, "prepaid", 5_000_000_000)
	w := s.query("shop", "CREATE TABLE t(a)").ok().work()
	if err := s.st.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.query("shop", "SELECT * FROM t").fails(503, "shutting_down").lacks("costUsd")
	}
	s.total(w)
}

func TestBoundAndTestTokens(t *testing.T) {
	s := newMetered(t, "prepaid", 5_000_000_000)
	s.query("shop", "CREATE TABLE t(owner, a)").ok()
	s.query("shop", "INSERT INTO t VALUES('ada', 1), ('bob', 2)").ok()
	s.send(s.secret, "POST", "/v1/db/acme/shop/policies", `{"name":"own","tableName":"t","expression":"owner = :auth_sub"}`).ok()
	// What it costs would tell how many rows there are.
	_, bound := s.newToken(catalog.NewToken{Role: "readwrite", Claims: []byte(`{"sub":"ada"}`)})
	s.queryBy(bound, "shop", "SELECT a FROM t").ok().has(`"rows":[[1]]`).lacks("costUsd")
	s.queryBy(bound, "shop", "SELECT b FROM t").fails(400, "unknown_column").lacks("costUsd")
	s.send(bound, "POST", "/v1/db/acme/shop/batch", `{"statements":[{"sql":"SELECT a FROM t"}]}`).ok().lacks("costUsd")
	s.send(bound, "POST", "/v1/db/acme/shop/batch", `{"statements":[{"sql":"SELECT a FROM t"},{"sql":"SELECT b FROM t"}]}`).fails(400, "unknown_column").lacks("costUsd", `"meta"`)
	s.send(bound, "POST", "/v1/db/acme/shop/batch", `{"transaction":true,"statements":[{"sql":"SELECT a FROM t"},{"sql":"SELECT b FROM t"}]}`).fails(400, "unknown_column").lacks("costUsd", `"meta"`)
	st, err := s.books.Standing(t.Context(), s.ns)
	if err != nil {
		t.Fatal(err)
	}

	test, secret := s.newToken(catalog.NewToken{Test: true})
	w := sum(s.queryBy(secret, "trial", "CREATE TABLE t(a)").ok().work(), s.queryBy(secret, "trial", "INSERT INTO t VALUES(1),(2)").ok().has(`"costUsd":0}`).work(),
		s.queryBy(secret, "trial", "SELECT * FROM t").ok().has(`"costUsd":0}`).work(), s.queryBy(secret, "trial", "INSERT INTO t SELECT b FROM t").fails(400, "unknown_column").has(`"costUsd":0}`).work())
	if w.RowsWritten < 2 {
		t.Errorf("%+v", w)
	}
	s.get("/v1/usage?groupBy=token").ok().has(usedFor(keyed(test.ID), w, 0))
	if after, err := s.books.Standing(t.Context(), s.ns); err != nil || after.Balance != st.Balance {
		t.Errorf("the balance was %d, and is %d (%v)", st.Balance, after.Balance, err)
	}
	// Nor is what it stores.
	if err := s.books.SampleNow(t.Context(), s.st, s.st); err != nil {
		t.Fatal(err)
	}
	d, err := s.cat.Database(s.ns.ID, "trial")
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Series []struct {
			Key          string
			StorageBytes int64
			CostUSD      json.Number
		}
	}
	if err := json.Unmarshal(s.get("/v1/usage?groupBy=database").ok().Data, &r); err != nil {
		t.Fatal(err)
	}
	for _, l := range r.Series {
		if l.Key == d.ID && (l.StorageBytes == 0 || l.CostUSD != "0") {
			t.Errorf("%+v", l)
		}
	}
	// With nothing left it goes on.
	if _, err := s.books.Credit(t.Context(), catalog.Credit{NamespaceID: s.ns.ID, Nanos: -6_000_000_000, Kind: catalog.EntryCredit}); err != nil {
		t.Fatal(err)
	}
	s.query("shop", "SELECT 1").fails(402, "balance_exhausted")
	s.queryBy(secret, "trial", "SELECT 1").ok()
}
