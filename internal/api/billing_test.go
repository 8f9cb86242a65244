package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/store"
)

// The default prices, in nano-dollars.
var defaultPrices = billing.Prices{Request: 500, RowRead: 5, RowWritten: 2000, StorageGBMonth: 400_000_000}

// metered is a server that counts, with an admin token of the namespace acme, on 15 July 2026 at noon.
type metered struct {
	t      testing.TB
	cat    *catalog.Catalog
	st     *store.Store
	books  *billing.Books // nil if it is off
	door   *api.Server
	ns     catalog.Namespace
	token  *catalog.Token
	secret string
	later  atomic.Int64 // by how much the clock is put forward
	began  time.Time
}

func (s *metered) now() time.Time {
	return time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC).Add(time.Since(s.began)).Add(time.Duration(s.later.Load()))
}

// newMetered starts one in a mode of PERSQLD_BILLING. The welcome credit is in nano-dollars.
func newMetered(t testing.TB, mode string, welcome int64, change ...func(*api.Options)) *metered {
	t.Helper()
	dir := t.TempDir()
	s := &metered{t: t, began: time.Now()}
	ctx := context.Background()
	var err error
	if s.cat, err = catalog.Open(ctx, filepath.Join(dir, "catalog.db"), catalog.Options{Now: s.now, Reserved: "first"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cat.Close() })
	if s.ns, err = s.cat.CreateNamespace(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	options := store.Options{Dir: dir, Now: s.now}
	if mode != "off" {
		if s.books, err = billing.Open(ctx, billing.Options{Catalog: s.cat, Prices: defaultPrices, Prepaid: mode == "prepaid", Welcome: welcome, Now: s.now}); err != nil {
			t.Fatal(err)
		}
		options.Meter = s.books
	}
	if s.st, err = store.New(options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.st.Close(context.Background())
		if s.books != nil {
			if err := s.books.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	o := api.Options{Catalog: s.cat, Placement: s.st, Billing: s.books, FirstNamespace: "first", BaseURL: "https://sql.example.com", AutoCreate: true, Trash: time.Hour, Now: s.now}
	for _, f := range change {
		f(&o)
	}
	s.door = api.New(o)
	s.token, s.secret = s.newToken(catalog.NewToken{})
	return s
}

func (s *metered) newToken(n catalog.NewToken) (*catalog.Token, string) {
	s.t.Helper()
	n.NamespaceID = s.ns.ID
	token, secret, err := s.cat.CreateToken(context.Background(), n)
	if err != nil {
		s.t.Fatal(err)
	}
	return token, secret
}

// enrol makes a member of a namespace, and signs them in: it returns the cookie.
func (s *metered) enrol(email string, ns catalog.Namespace, role string) string {
	s.t.Helper()
	ctx := context.Background()
	u, err := s.cat.CreateUser(ctx, catalog.NewUser{Email: email, PasswordHash: "hash"})
	if err == nil && role != "" {
		_, err = s.cat.AddMember(ctx, ns.ID, u.ID, role)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	_, cookie, err := s.cat.CreateSession(ctx, catalog.NewSession{UserID: u.ID, PasswordHash: "hash"})
	if err != nil {
		s.t.Fatal(err)
	}
	return "persql_session=" + cookie
}

// answered is an answer to a request.
type answered struct {
	t      testing.TB
	what   string
	status int
	raw    string
	Data   json.RawMessage
	Code   string
	Error  string
	Meta   struct {
		RowsRead, RowsWritten int64
		CostUSD               json.Number `json:"costUsd"`
	}
}

// send sends a request by a token, or by a cookie.
func (s *metered) send(by, method, path, body string, headers ...string) *answered {
	s.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if strings.HasPrefix(by, "persql_session=") {
		r.Header.Set("Cookie", by)
	} else if by != "" {
		r.Header.Set("Authorization", "Bearer "+by)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.door.ServeHTTP(w, r)
	a := &answered{t: s.t, what: method + " " + path + " " + body, status: w.Code, raw: w.Body.String()}
	if err := json.Unmarshal(w.Body.Bytes(), a); err != nil {
		s.t.Errorf("%s: %v: %s", a.what, err, a.raw)
	}
	return a
}

func (s *metered) get(path string) *answered { s.t.Helper(); return s.send(s.secret, "GET", path, "") }

// query runs a statement in a database of acme, by the admin token.
func (s *metered) query(db, sql string) *answered {
	s.t.Helper()
	return s.queryBy(s.secret, db, sql)
}

func (s *metered) queryBy(by, db, sql string, headers ...string) *answered {
	s.t.Helper()
	body, _ := json.Marshal(map[string]string{"sql": sql})
	path := "/v1/db/acme/" + db + "/query"
	if strings.HasPrefix(by, "persql_session=") {
		path = "/api/namespaces/acme/databases/" + db + "/query"
	}
	return s.send(by, "POST", path, string(body), headers...)
}

func (s *metered) batch(db string, atomic bool, sql ...string) *answered {
	s.t.Helper()
	var list []map[string]string
	for _, text := range sql {
		list = append(list, map[string]string{"sql": text})
	}
	body, _ := json.Marshal(map[string]any{"statements": list, "transaction": atomic})
	return s.send(s.secret, "POST", "/v1/db/acme/"+db+"/batch", string(body))
}

func (a *answered) ok() *answered {
	a.t.Helper()
	if a.status != http.StatusOK {
		a.t.Fatalf("%s: %d %s", a.what, a.status, a.raw)
	}
	return a
}

func (a *answered) fails(status int, code string) *answered {
	a.t.Helper()
	if a.status != status || a.Code != code {
		a.t.Errorf("%s: %d %s, want %d %s", a.what, a.status, a.raw, status, code)
	}
	return a
}

// is compares data.
func (a *answered) is(want string) *answered {
	a.t.Helper()
	if string(a.ok().Data) != want {
		a.t.Errorf("%s:\ngot  %s\nwant %s", a.what, a.Data, want)
	}
	return a
}

func (a *answered) has(parts ...string) *answered {
	a.t.Helper()
	for _, p := range parts {
		if !strings.Contains(a.raw, p) {
			a.t.Errorf("%s: %s lacks %s", a.what, a.raw, p)
		}
	}
	return a
}

func (a *answered) lacks(parts ...string) *answered {
	a.t.Helper()
	for _, p := range parts {
		if strings.Contains(a.raw, p) {
			a.t.Errorf("%s: %s has %s", a.what, a.raw, p)
		}
	}
	return a
}

// work is what a call counts: itself, and the rows that its answer tells of.
func (a *answered) work() catalog.Work {
	return catalog.Work{Requests: 1, RowsRead: a.Meta.RowsRead, RowsWritten: a.Meta.RowsWritten}
}

func costOf(w catalog.Work) int64 { return 500*w.Requests + 5*w.RowsRead + 2000*w.RowsWritten }

// costs compares costUsd with what the rows that the answer tells of cost.
func (a *answered) costs() *answered {
	a.t.Helper()
	if got, want := a.Meta.CostUSD.String(), catalog.DollarText(costOf(a.work())); got != want {
		a.t.Errorf("%s: costUsd %s, want %s: %s", a.what, got, want, a.raw)
	}
	return a
}

func sum(work ...catalog.Work) (total catalog.Work) {
	for _, w := range work {
		total.Add(w)
	}
	return total
}

func calls(n int64) catalog.Work { return catalog.Work{Requests: n} }

// used is a line of a report, of work that is charged.
func used(key string, w catalog.Work) string { return usedFor(key, w, costOf(w)) }

func usedFor(key string, w catalog.Work, nanos int64) string {
	return fmt.Sprintf(`{%s"requests":%d,"rowsRead":%d,"rowsWritten":%d,"storageBytes":0,"costUsd":%s}`, key, w.Requests, w.RowsRead, w.RowsWritten, catalog.DollarText(nanos))
}

func keyed(key string) string { return `"key":"` + key + `",` }

func report(total string, lines ...string) string {
	return `{"totals":` + total + `,"series":[` + strings.Join(lines, ",") + `]}`
}

// total compares the usage of this month.
func (s *metered) total(want catalog.Work) {
	s.t.Helper()
	s.get("/v1/usage?groupBy=meter").has(`"totals":` + used("", want) + `,`)
}

func (s *metered) balance(nanos int64) {
	s.t.Helper()
	s.get("/v1/billing/balance").ok().has(`"balanceUsd":` + catalog.DollarText(nanos) + `,"currency":"usd"`)
}

func TestUsage(t *testing.T) {
	for _, mode := range []string{"meter", "prepaid"} {
		t.Run(mode, func(t *testing.T) {
			s := newMetered(t, mode, 5_000_000_000)
			reader, readerSecret := s.newToken(catalog.NewToken{Role: "readonly"})
			s.get("/v1/usage").is(report(used("", catalog.Work{})))
			var made struct{ ID string }
			if err := json.Unmarshal(s.send(s.secret, "POST", "/v1/databases", `{"slug":"shop"}`).ok().Data, &made); err != nil {
				t.Fatal(err)
			}
			other, err := s.cat.Database(s.ns.ID, "other")
			if err == nil {
				t.Fatalf("there is %v", other)
			}
			shop := sum(s.query("shop", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)").ok().costs().work(),
				s.query("shop", "INSERT INTO t(b) VALUES(1),(2),(3)").ok().costs().work(),
				s.query("shop", "SELECT * FROM t WHERE b > 0").ok().costs().work())
			shopDay2 := catalog.Work{}
			s.query("other", "CREATE TABLE t(a)").ok().costs()
			first := s.query("other", "SELECT count(*) FROM sqlite_schema").ok().costs()
			_ = first
			if other, err = s.cat.Database(s.ns.ID, "other"); err != nil {
				t.Fatal(err)
			}
			// What the databases' lines say, each day's and token's lines say too.
			var lines struct {
				Series []struct {
					Key                             string
					Requests, RowsRead, RowsWritten int64
				}
			}
			if err := json.Unmarshal(s.get("/v1/usage?groupBy=database").ok().Data, &lines); err != nil {
				t.Fatal(err)
			}
			otherWork := catalog.Work{}
			for _, l := range lines.Series {
				if l.Key == other.ID {
					otherWork = catalog.Work{Requests: l.Requests, RowsRead: l.RowsRead, RowsWritten: l.RowsWritten}
				}
			}
			if otherWork.Requests != 2 || otherWork.RowsRead == 0 {
				t.Errorf("other: %+v", otherWork)
			}
			day1 := sum(calls(1), shop, otherWork)

			s.later.Add(int64(24 * time.Hour)) // the 16th
			mine := s.query("shop", "UPDATE t SET b = b + 1").ok().costs().work()
			read := s.queryBy(readerSecret, "shop", "SELECT * FROM t").ok().costs().work()
			failed := s.query("shop", "INSERT INTO t(a, b) SELECT a + 2, b FROM t ORDER BY a").fails(400, "unique_violation").costs().work()
			shopDay2 = sum(mine, read, failed)
			all := sum(day1, shopDay2)

			byDay := []string{used(keyed("2026-07-15"), day1), used(keyed("2026-07-16"), shopDay2)}
			s.get("/v1/usage").is(report(used("", all), byDay...))
			s.get("/v1/usage?groupBy=day").is(report(used("", all), byDay...))
			for _, span := range []string{"from=2026-07-16", "from=2026-07-16&to=2026-07-16", "from=2026-07-16T23:59:59Z&to=2026-07-16T00:00:00Z",
				"from=" + strconv.FormatInt(s.now().UnixMilli(), 10), "from=2026-07-16T01:30:00%2B01:00"} {
				s.get("/v1/usage?" + span).is(report(used("", shopDay2), byDay[1]))
			}
			s.get("/v1/usage?to=2026-07-15").is(report(used("", day1), byDay[0]))
			s.get("/v1/usage?from=2026-07-17&to=2100-01-01").is(report(used("", catalog.Work{})))
			s.get("/v1/usage?from=2000-01-01&to=2026-07-14").is(report(used("", catalog.Work{})))

			none := used(`"key":"","slug":null,`, calls(1))
			dbs := []string{used(keyed(made.ID)+`"slug":"shop",`, sum(shop, shopDay2)), used(keyed(other.ID)+`"slug":"other",`, otherWork)}
			slices.Sort(dbs)
			s.get("/v1/usage?groupBy=database").is(report(used("", all), append([]string{none}, dbs...)...))
			s.get("/v1/usage?groupBy=database&from=2026-07-16").is(report(used("", shopDay2), used(keyed(made.ID)+`"slug":"shop",`, shopDay2)))

			tokens := []string{used(keyed(s.token.ID), sum(day1, mine, failed)), used(keyed(reader.ID), read)}
			slices.Sort(tokens)
			s.get("/v1/usage?groupBy=token").is(report(used("", all), tokens...))

			s.get("/v1/usage?groupBy=meter").is(report(used("", all),
				usedFor(keyed("requests"), calls(all.Requests), 500*all.Requests),
				usedFor(keyed("rowsRead"), catalog.Work{RowsRead: all.RowsRead}, 5*all.RowsRead),
				usedFor(keyed("rowsWritten"), catalog.Work{RowsWritten: all.RowsWritten}, 2000*all.RowsWritten),
				usedFor(keyed("storage"), catalog.Work{}, 0)))
			// A reader may see it too, and so may each member.
			viewer := s.enrol("viewer@example.com", s.ns, catalog.MemberViewer)
			if a, b := s.send(readerSecret, "GET", "/v1/usage", "").ok().raw, s.send(viewer, "GET", "/api/namespaces/acme/usage", "").ok().raw; a != b || a != s.get("/v1/usage").raw {
				t.Errorf("a reader sees %s\na viewer %s", a, b)
			}
			if mode == "prepaid" {
				s.balance(5_000_000_000 - costOf(all))
			}
			// A deleted database's usage stays.
			s.send(s.secret, "DELETE", "/v1/databases/other", "").ok()
			all.Add(calls(1))
			s.get("/v1/usage?groupBy=database").has(`"slug":null,`+strings.TrimPrefix(used("", otherWork), "{"), `"totals":`+used("", all)+`,`)
		})
	}
}

// TestStorageInUsage: the last sample of the days that are asked for, and what all of them cost.
func TestStorageInUsage(t *testing.T) {
	s := newMetered(t, "prepaid", 5_000_000_000)
	s.query("shop", "CREATE TABLE t(a)").ok()
	s.query("empty", "SELECT 1").ok()
	s.query("shop", "INSERT INTO t VALUES(zeroblob(9000000))").ok()
	before := s.get("/v1/usage?groupBy=meter").ok()
	if err := s.books.SampleNow(t.Context(), s.st, s.st); err != nil {
		t.Fatal(err)
	}
	s.later.Add(int64(24 * time.Hour))
	for range 2 { // a second round of the day changes nothing
		if err := s.books.SampleNow(t.Context(), s.st, s.st); err != nil {
			t.Fatal(err)
		}
	}
	type line struct {
		Key          string
		Slug         string
		StorageBytes int64
		CostUSD      json.Number `json:"costUsd"`
	}
	var r struct {
		Totals line
		Series []line
	}
	read := func(query string) {
		t.Helper()
		if err := json.Unmarshal(s.get("/v1/usage?"+query).ok().Data, &r); err != nil {
			t.Fatal(err)
		}
	}
	read("groupBy=database")
	bytes := int64(0)
	for _, l := range r.Series {
		if l.Slug == "shop" {
			bytes = l.StorageBytes
		}
		if l.Slug == "empty" && l.StorageBytes > 8192 {
			t.Errorf("an empty database stores %d bytes", l.StorageBytes)
		}
	}
	if bytes < 9_000_000 || bytes > 9_100_000 || r.Totals.StorageBytes < bytes || r.Totals.StorageBytes > bytes+8192 {
		t.Errorf("shop stores %d bytes, all %d", bytes, r.Totals.StorageBytes)
	}
	all := r.Totals.StorageBytes
	read("groupBy=meter")
	perDay := all * 400_000_000 / 30_000_000_000
	got, err := catalog.ParseDollars(r.Series[3].CostUSD.String())
	if err != nil || r.Series[3].Key != "storage" || r.Series[3].StorageBytes != all || got > 2*perDay || got < 2*perDay-4 { // each database's is rounded down
		t.Errorf("two days of %d bytes: %+v, want about %d", all, r.Series[3], 2*perDay)
	}
	read("groupBy=day&from=2026-07-16")
	if len(r.Series) != 1 || r.Series[0].StorageBytes != all {
		t.Errorf("%+v", r)
	}
	read("groupBy=token")
	for _, l := range r.Series {
		if l.StorageBytes != 0 {
			t.Errorf("by token: %+v", l)
		}
	}
	// It is charged.
	nanos := int64(0)
	if err := json.Unmarshal(before.Data, &r); err == nil {
		nanos, err = catalog.ParseDollars(r.Totals.CostUSD.String())
	}
	if err != nil {
		t.Fatal(err)
	}
	s.balance(5_000_000_000 - nanos - got)
}

// TestStorageCountsForCaps: of the namespace and the database, and not of a token.
func TestStorageCountsForCaps(t *testing.T) {
	for _, mode := range []string{"meter", "prepaid"} {
		s := newMetered(t, mode, 5_000_000_000)
		s.query("shop", "CREATE TABLE t(a)").ok()
		s.query("shop", "INSERT INTO t VALUES(zeroblob(9000000))").ok() // 120,000 nano-dollars a day
		for scope, want := range map[string]int{`"namespace"`: 402, `"database","id":"shop"`: 402, `"token","id":"` + s.token.ID + `"`: 200} {
			s.send(s.secret, "PUT", "/v1/billing/caps", `[{"scope":`+scope+`,"window":"day","usd":0.0001}]`).ok()
			s.query("shop", "SELECT 1").ok()
			if err := s.books.SampleNow(t.Context(), s.st, s.st); err != nil {
				t.Fatal(err)
			}
			if a := s.query("shop", "SELECT 1"); a.status != want {
				t.Errorf("%s: a cap of %s: %d %s, want %d", mode, scope, a.status, a.raw, want)
			}
			s.later.Add(int64(24 * time.Hour))
		}
	}
}

func TestUsageRefuses(t *testing.T) {
	s := newMetered(t, "meter", 0)
	for _, query := range []string{"from=yesterday", "to=-1", "from=2026-13-01", "from=2026-07-15&to=2026-07-14", "from=2026-07-16", "groupBy=year", "groupBy=Day",
		"groupBy=namespace", "to=99999999999999999", "from=253402300800000&to=253402300800000", "from=1e3", "to=2026-07-15%2012:00"} {
		s.get("/v1/usage?"+query).fails(400, "bad_request")
	}
	s.query("shop", "CREATE TABLE t(a)").ok()
	d, err := s.cat.Database(s.ns.ID, "shop")
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]catalog.NewToken{"pinned": {Database: d.ID}, "scoped": {TableScope: []string{"t"}}, "with claims": {Claims: []byte(`{"sub":"ada"}`)}, "test": {Test: true}} {
		_, secret := s.newToken(n)
		for _, path := range []string{"/v1/usage", "/v1/billing/balance", "/v1/billing/caps"} {
			if a := s.send(secret, "GET", path, ""); a.status != 403 || a.Code != "forbidden" {
				t.Errorf("%s: %s: %d %s", name, path, a.status, a.raw)
			}
		}
		if a := s.send(secret, "PUT", "/v1/billing/caps", "[]"); a.status != 403 || a.Code != "forbidden" {
			t.Errorf("%s sets caps: %d %s", name, a.status, a.raw)
		}
	}
	stranger := s.enrol("stranger@example.com", s.ns, "")
	for _, path := range []string{"usage", "billing/balance", "billing/caps", "billing/ledger"} {
		s.send(stranger, "GET", "/api/namespaces/acme/"+path, "").fails(404, "not_found")
		s.send("", "GET", "/api/namespaces/acme/"+path, "").fails(401, "unauthorized")
	}
}

func TestBillingModes(t *testing.T) {
	t.Run("off", func(t *testing.T) {
		s := newMetered(t, "off", 0)
		s.query("shop", "CREATE TABLE t(a)").ok().has(`"costUsd":0`)
		s.query("shop", "SELECT b FROM t").fails(400, "unknown_column").lacks("costUsd")
		s.get("/v1/usage").is(report(used("", catalog.Work{})))
		s.get("/v1/billing/balance").is(`{"balanceUsd":null,"currency":"usd","burnPerDayUsd":0,"runwayDays":null}`)
		s.get("/v1/billing/caps").fails(404, "billing_off")
		s.send(s.secret, "PUT", "/v1/billing/caps", "[]").fails(404, "billing_off")
		owner := s.enrol("owner@example.com", s.ns, catalog.MemberOwner)
		s.send(owner, "GET", "/api/namespaces/acme/billing/ledger", "").fails(404, "not_prepaid")
	})
	t.Run("meter", func(t *testing.T) {
		s := newMetered(t, "meter", 5_000_000_000)
		w := s.query("shop", "CREATE TABLE t(a)").ok().costs().work()
		s.get("/v1/billing/balance").is(`{"balanceUsd":null,"currency":"usd","burnPerDayUsd":` + catalog.DollarText(costOf(w)) + `,"runwayDays":null}`)
		owner := s.enrol("owner@example.com", s.ns, catalog.MemberOwner)
		s.send(owner, "GET", "/api/namespaces/acme/billing/ledger", "").fails(404, "not_prepaid")
		s.get("/v1/billing/caps").is(`[]`)
	})
	t.Run("prepaid", func(t *testing.T) {
		s := newMetered(t, "prepaid", 1_000_000)
		s.get("/v1/billing/balance").is(`{"balanceUsd":0.001,"currency":"usd","burnPerDayUsd":0,"runwayDays":null}`)
		s.query("shop", "SELECT 1").ok()
		w := s.query("shop", "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100) SELECT count(*) FROM c").ok().costs().work()
		left := 1_000_000 - costOf(w) - 500 - costOf(catalog.Work{RowsRead: s.query("shop", "SELECT 1").ok().Meta.RowsRead * 2, Requests: 1})
		s.balance(left)
		// Over two days: the average is of both.
		s.later.Add(int64(24 * time.Hour))
		a := s.get("/v1/billing/balance").ok()
		var got struct{ BurnPerDayUSD, RunwayDays json.Number }
		if err := json.Unmarshal(a.Data, &got); err != nil {
			t.Fatal(err)
		}
		if burn, err := catalog.ParseDollars(got.BurnPerDayUSD.String()); err != nil || burn > 1_000_000-left || burn < (1_000_000-left)*9/10 {
			t.Errorf("%s after a day that cost %d", a.raw, 1_000_000-left)
		}
		if days, err := got.RunwayDays.Float64(); err != nil || days <= 0 {
			t.Errorf("%s", a.raw)
		}
	})
}

func TestLedgerAndCredits(t *testing.T) {
	s := newMetered(t, "prepaid", 5_000_000_000)
	first, err := s.cat.CreateNamespace(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	operator := s.enrol("operator@example.com", first, catalog.MemberOwner)
	officer := s.enrol("officer@example.com", first, catalog.MemberAdmin)
	people := map[string]string{}
	for _, role := range []string{catalog.MemberViewer, catalog.MemberEditor, catalog.MemberAdmin, catalog.MemberOwner} {
		people[role] = s.enrol(role+"@example.com", s.ns, role)
	}
	stranger := s.enrol("stranger@example.com", s.ns, "")
	const ledger, credits = "/api/namespaces/acme/billing/ledger", "/api/namespaces/acme/billing/credits"

	// The ledger is for admins and owners of the namespace.
	for _, role := range []string{catalog.MemberViewer, catalog.MemberEditor} {
		s.send(people[role], "GET", ledger, "").fails(403, "role_not_allowed")
	}
	for _, role := range []string{catalog.MemberAdmin, catalog.MemberOwner} {
		s.send(people[role], "GET", ledger, "").ok().has(`"balanceUsd":5,"entries":[{"id":"led_`, `"kind":"welcome","usd":5,"note":"welcome"}],"running":[]`)
	}
	for _, by := range []string{stranger, operator} {
		s.send(by, "GET", ledger, "").fails(404, "not_found")
	}
	s.send("", "GET", ledger, "").fails(401, "unauthorized")
	s.send(s.secret, "GET", ledger, "").fails(401, "unauthorized")
	for _, query := range []string{"?limit=0", "?limit=501", "?limit=x"} {
		s.send(people["owner"], "GET", ledger+query, "").fails(400, "bad_request")
	}

	// Credits are the operator's.
	for _, by := range []string{people["owner"], people["admin"]} {
		s.send(by, "POST", credits, `{"usd":5}`).fails(403, "forbidden")
	}
	for _, by := range []string{stranger, officer} { // to whom it isn't there
		s.send(by, "POST", credits, `{"usd":5}`).fails(404, "not_found")
		s.send(by, "POST", "/api/namespaces/none/billing/credits", `{"usd":5}`).fails(404, "not_found")
	}
	s.send(officer, "POST", "/api/namespaces/first/billing/credits", `{"usd":5}`).fails(403, "forbidden")
	s.send("", "POST", credits, `{"usd":5}`).fails(401, "unauthorized")
	s.send(s.secret, "POST", credits, `{"usd":5}`).fails(401, "unauthorized")
	s.send(operator, "POST", credits, `{"usd":5}`, "Sec-Fetch-Site", "cross-site").fails(403, "forbidden")
	s.send(operator, "POST", "/api/namespaces/none/billing/credits", `{"usd":5}`).fails(404, "not_found")
	for body, code := range map[string]string{`{}`: "invalid_amount", `{"usd":0}`: "invalid_amount", `{"usd":1000000.000000001}`: "invalid_amount", `{"usd":-1000001}`: "invalid_amount",
		`{"usd":"five"}`: "invalid_amount", `{"usd":null}`: "invalid_amount", `{"usd":0.0000000001}`: "invalid_amount", `{"usd":5,"note":"` + strings.Repeat("x", 501) + `"}`: "invalid_amount",
		`{"usd":5,"note":"a\nb"}`: "invalid_amount", `{"usd":5,"note":5}`: "bad_request", `{"usd":5,"usdd":50}`: "bad_json", `[]`: "bad_request", `{`: "bad_json"} {
		s.send(operator, "POST", credits, body).fails(400, code)
	}
	s.balance(5_000_000_000)
	s.send(operator, "POST", credits, `{"usd":20,"note":"invoice 4711"}`).is(`{"balanceUsd":25}`)
	s.send(operator, "POST", credits, `{"usd":"0.1"}`).is(`{"balanceUsd":25.1}`)
	s.send(operator, "POST", credits, `{"usd":-30.1,"note":"taken back"}`).is(`{"balanceUsd":-5}`)
	s.query("shop", "SELECT 1").fails(402, "balance_exhausted").has(`"balanceUsd":0,`)
	s.get("/v1/billing/balance").has(`"balanceUsd":-5,`)
	s.send(operator, "POST", credits, `{"usd":10}`).is(`{"balanceUsd":5}`)
	w := s.query("shop", "CREATE TABLE t(a)").ok().work()
	owner := people[catalog.MemberOwner]
	list := s.send(owner, "GET", ledger, "").ok().has(`"running":[{"kind":"debit","day":"2026-07-15","usd":-`+catalog.DollarText(costOf(w))+`}]`,
		`"kind":"credit","usd":-30.1,"note":"taken back"`, `"kind":"credit","usd":20,"note":"invoice 4711"`)

	// A day that is over is an entry; sums equal the balance.
	s.later.Add(int64(24 * time.Hour))
	w2 := s.query("shop", "SELECT 1").ok().work()
	list = s.send(owner, "GET", ledger, "").ok().has(`"kind":"debit","day":"2026-07-15","usd":-`+catalog.DollarText(costOf(w))+`,"note":"usage of 2026-07-15"}`,
		`"running":[{"kind":"debit","day":"2026-07-16","usd":-`+catalog.DollarText(costOf(w2))+`}]`)
	type entry struct {
		ID  string
		USD json.Number
	}
	var all, page struct {
		BalanceUSD       json.Number
		Entries, Running []entry
	}
	if err := json.Unmarshal(list.Data, &all); err != nil {
		t.Fatal(err)
	}
	nanos := func(n json.Number) int64 {
		v, err := catalog.ParseDollars(n.String())
		if err != nil {
			t.Errorf("%s: %v", n, err)
		}
		return v
	}
	total := int64(0)
	for _, e := range append(slices.Clone(all.Entries), all.Running...) {
		total += nanos(e.USD)
	}
	if total != nanos(all.BalanceUSD) || total != 5_000_000_000-costOf(w)-costOf(w2) {
		t.Errorf("entries sum up to %d, the balance is %s", total, all.BalanceUSD)
	}
	// By pages.
	var ids, paged []string
	for _, e := range all.Entries {
		ids = append(ids, e.ID)
	}
	for before := ""; ; before = "&before=" + paged[len(paged)-1] {
		if err := json.Unmarshal(s.send(owner, "GET", ledger+"?limit=2"+before, "").ok().Data, &page); err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			paged = append(paged, e.ID)
		}
		if len(page.Entries) < 2 {
			break
		}
	}
	if len(ids) != 6 || !slices.Equal(ids, paged) {
		t.Errorf("%v\nby pages %v", ids, paged)
	}
	// And in the audit log, by whom.
	audit := s.send(owner, "GET", "/api/namespaces/acme/audit?action=billing.credited", "").ok()
	audit.has(`"note":"invoice 4711"`, `"usd":"20"`, `"type":"user"`)
}
