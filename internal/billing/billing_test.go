package billing_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

const dollar = 1_000_000_000

// prices are the product's.
var prices = billing.Prices{Request: 500, RowRead: 5, RowWritten: 2000, StorageGBMonth: 400_000_000}

// office is a catalog with a namespace, and its books.
type office struct {
	*billing.Books
	t     testing.TB
	cat   *catalog.Catalog
	ns    catalog.Namespace
	clock *clock
	path  string
	opt   billing.Options
}

func newOffice(t testing.TB, opt billing.Options) *office {
	t.Helper()
	o := &office{t: t, clock: &clock{now: time.Date(2026, 1, 30, 12, 0, 0, 0, time.UTC)}, path: filepath.Join(t.TempDir(), "catalog.db"), opt: opt}
	o.open()
	var err error
	if o.ns, err = o.cat.CreateNamespace(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *office) open() {
	o.t.Helper()
	var err error
	if o.cat, err = catalog.Open(o.t.Context(), o.path, catalog.Options{Now: o.clock.Now}); err != nil {
		o.t.Fatal(err)
	}
	cat := o.cat
	o.t.Cleanup(func() { cat.Close() })
	o.opt.Catalog, o.opt.Now = o.cat, o.clock.Now
	if o.opt.Prices == (billing.Prices{}) {
		o.opt.Prices = prices
	}
	if o.Books, err = billing.Open(o.t.Context(), o.opt); err != nil {
		o.t.Fatal(err)
	}
}

// restart is a stop in order, and the next process.
func (o *office) restart() {
	o.t.Helper()
	if err := errors.Join(o.Close(o.t.Context()), o.cat.Close()); err != nil {
		o.t.Fatal(err)
	}
	o.open()
}

func (o *office) database(slug string, test bool) *catalog.Database {
	o.t.Helper()
	d, _, err := o.cat.CreateDatabase(o.t.Context(), catalog.NewDatabase{ID: catalog.NewID("db"), NamespaceID: o.ns.ID, Slug: slug, Test: test})
	if err != nil {
		o.t.Fatal(err)
	}
	return d
}

func (o *office) purse(token, database string) *billing.Purse {
	o.t.Helper()
	p, err := o.Purse(o.t.Context(), o.ns.ID, token, strings.HasPrefix(token, "test"))
	if err != nil {
		o.t.Fatal(err)
	}
	p.Database = database
	return &p
}

func (o *office) balance() int64 {
	o.t.Helper()
	s, err := o.Standing(o.t.Context(), o.ns)
	if err != nil {
		o.t.Fatal(err)
	}
	// It never drifts from what the file says.
	kept, err := o.cat.Balance(o.t.Context(), o.ns.ID)
	if err != nil || kept != s.Balance {
		o.t.Errorf("the balance is %d in memory and %d in the file, %v", s.Balance, kept, err)
	}
	return s.Balance
}

// ledger is the ledger in words, the oldest first.
func (o *office) ledger() string {
	o.t.Helper()
	entries, running, balance, err := o.Ledger(o.t.Context(), o.ns.ID, "", 500)
	if err != nil {
		o.t.Fatal(err)
	}
	var words []string
	var sum int64
	for i := len(entries) - 1; i >= 0; i-- {
		words = append(words, word(entries[i]))
		sum += entries[i].Nanos
	}
	for _, e := range running {
		words = append(words, "running "+word(e))
		sum += e.Nanos
	}
	if sum != balance {
		o.t.Errorf("the ledger comes to %d, the balance is %d", sum, balance)
	}
	return strings.Join(words, ", ")
}

func word(e catalog.Entry) string {
	if e.Kind == catalog.EntryDebit {
		return fmt.Sprintf("%s %s", catalog.DayTime(e.Day).Format("0102"), catalog.DollarText(e.Nanos))
	}
	return e.Kind + " " + catalog.DollarText(e.Nanos)
}

func (o *office) flush() {
	o.t.Helper()
	if err := o.Flush(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) totals(q catalog.UsageQuery) billing.Used {
	o.t.Helper()
	if q.NamespaceID == "" {
		q.NamespaceID = o.ns.ID
	}
	if q.To == 0 {
		q.To = catalog.Day(o.clock.Now())
	}
	if q.GroupBy == "" {
		q.GroupBy = billing.ByDay
	}
	r, err := o.Usage(o.t.Context(), q)
	if err != nil {
		o.t.Fatal(err)
	}
	return r.Total
}

func TestLedgerOfDays(t *testing.T) {
	o := newOffice(t, billing.Options{Prepaid: true, Welcome: 5 * dollar})
	d := o.database("d", false)
	o.purse("tok_a", d.ID).Spend(catalog.Work{Requests: 1, RowsRead: 100, RowsWritten: 10}) // 500 + 500 + 20,000
	if got := o.ledger(); got != "welcome 5, running 0130 -0.000021" {
		t.Errorf("today: %s", got)
	}
	o.clock.set(time.Date(2026, 1, 31, 0, 0, 5, 0, time.UTC))
	if got := o.ledger(); got != "welcome 5, running 0130 -0.000021" {
		t.Errorf("just after midnight: %s", got)
	}
	o.clock.set(time.Date(2026, 1, 31, 0, 1, 0, 0, time.UTC))
	o.purse("tok_a", d.ID).Spend(catalog.Work{Requests: 2})
	if got := o.ledger(); got != "welcome 5, 0130 -0.000021, running 0131 -0.000001" {
		t.Errorf("the next day: %s", got)
	}
	// A count of yesterday that comes late: a database tells what it filed before a crash.
	o.Filed(d.ID, []store.MeterRow{{Series: o.Series(), Day: catalog.Day(o.clock.Now()) - 1, Token: "tok_a", Total: store.Work{Requests: 3, RowsWritten: 4}}})
	o.flush()
	o.clock.set(time.Date(2026, 2, 1, 1, 0, 0, 0, time.UTC))
	if got := o.ledger(); got != "welcome 5, 0130 -0.000021, 0130 -0.0000095, 0131 -0.000001" {
		t.Errorf("after a late count: %s", got)
	}
	if got := o.balance(); got != 5*dollar-21_000-9_500-1_000 {
		t.Errorf("the balance is %d", got)
	}
	o.restart()
	if got := o.balance(); got != 5*dollar-21_000-9_500-1_000 {
		t.Errorf("the balance after a restart is %d", got)
	}
	if got := o.ledger(); strings.Count(got, "welcome") != 1 {
		t.Errorf("after a restart: %s", got)
	}
}

func TestTotalsToldAgainChangeNothing(t *testing.T) {
	o := newOffice(t, billing.Options{Prepaid: true, Welcome: dollar})
	d := o.database("d", false)
	row := store.MeterRow{Series: o.Series(), Day: catalog.Day(o.clock.Now()), Token: "tok_a", Total: store.Work{Requests: 2, RowsRead: 7, RowsWritten: 5}, Added: store.Work{Requests: 2, RowsRead: 7, RowsWritten: 5}}
	number := o.Filed(d.ID, []store.MeterRow{row})
	if o.Taken(number) {
		t.Error("taken before it is durable")
	}
	o.flush()
	if !o.Taken(number) {
		t.Error("not taken, though it is durable")
	}
	want := int64(dollar - 2*500 - 7*5 - 5*2000)
	for range 3 {
		row.Added = store.Work{}
		o.Filed(d.ID, []store.MeterRow{row})
		if got := o.balance(); got != want {
			t.Errorf("told again, the balance is %d, want %d", got, want)
		}
		o.restart()
	}
	if got := o.totals(catalog.UsageQuery{}); got.Requests != 2 || got.RowsWritten != 5 || got.Nanos != dollar-want {
		t.Errorf("usage %+v", got)
	}
	// What nobody can be charged for stays with its file.
	if o.Taken(o.Filed("db_unknown", []store.MeterRow{row})) {
		t.Error("counts of a database that nobody knows are taken")
	}
}

func TestPricesChange(t *testing.T) {
	o := newOffice(t, billing.Options{})
	first := o.Series()
	o.purse("tok_a", "db_1").Spend(catalog.Work{RowsWritten: 10})
	o.restart()
	if o.Series() != first {
		t.Error("the same prices, and another series")
	}
	o.flush()
	o.opt.Prices.RowWritten = 5000
	o.restart()
	if o.Series() == first {
		t.Error("other prices, and the same series")
	}
	o.purse("tok_a", "db_1").Spend(catalog.Work{RowsWritten: 10})
	if got := o.totals(catalog.UsageQuery{}); got.RowsWritten != 20 || got.Nanos != 20_000+50_000 {
		t.Errorf("usage %+v, want what each cost then", got)
	}
	second := o.Series()
	o.opt.Restored = true
	o.restart()
	if o.Series() == second {
		t.Error("after a restore counts go on where a file that isn't there any more had come to")
	}
}

func TestCaps(t *testing.T) {
	o := newOffice(t, billing.Options{})
	set := func(caps ...catalog.Cap) {
		t.Helper()
		if err := o.SetCaps(t.Context(), o.ns.ID, caps); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(p *billing.Purse, scope string) {
		t.Helper()
		err := p.Admit()
		var e *billing.EmptyError
		if scope == "" && err != nil || scope != "" && (!errors.As(err, &e) || e.Cap == nil || e.Cap.Scope != scope) {
			t.Errorf("%s in %s: %v, want the cap of the %q", p.TokenID, p.Database, err, scope)
		}
	}
	a, b := o.purse("tok_a", "db_1"), o.purse("tok_b", "db_2")
	a.Spend(catalog.Work{RowsWritten: 100}) // 0.0002
	set(catalog.Cap{Scope: catalog.CapToken, TargetID: "tok_a", Span: catalog.CapDay, Nanos: 300_000},
		catalog.Cap{Scope: catalog.CapDatabase, TargetID: "db_2", Span: catalog.CapMonth, Nanos: 500_000})
	refused(a, "")
	if err := a.Afford(sqlite.Counts{RowsWritten: 50}); err != nil {
		t.Errorf("what is left is enough, and %v", err)
	}
	if err := a.Afford(sqlite.Counts{RowsWritten: 51}); err == nil {
		t.Error("more than is left goes on")
	}
	a.Spend(catalog.Work{RowsWritten: 50})
	refused(a, catalog.CapToken)
	refused(o.purse("test_a", "db_1"), "") // never charged
	refused(o.purse("tok_c", "db_1"), "")
	b.Spend(catalog.Work{RowsWritten: 250})
	refused(b, catalog.CapDatabase)
	o.clock.set(o.clock.Now().Add(24 * time.Hour)) // January 31st
	refused(a, "")
	refused(b, catalog.CapDatabase)
	o.restart() // caps and what was spent of them are read from the file
	a, b = o.purse("tok_a", "db_1"), o.purse("tok_b", "db_2")
	refused(a, "")
	refused(b, catalog.CapDatabase)
	o.clock.set(o.clock.Now().Add(24 * time.Hour)) // February
	refused(b, "")
	set(catalog.Cap{Scope: catalog.CapNamespace, Span: catalog.CapDay})
	refused(a, catalog.CapNamespace)
	set()
	refused(a, "")
}

func TestLowBalanceIsToldOnce(t *testing.T) {
	o := newOffice(t, billing.Options{Prepaid: true, Welcome: 2 * dollar, Low: dollar})
	told := func() int {
		t.Helper()
		o.flush()
		list, err := o.cat.Audit(t.Context(), catalog.AuditQuery{NamespaceID: o.ns.ID, Action: "billing.balance_low", Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	p := o.purse("tok_a", "db_1")
	p.Spend(catalog.Work{RowsWritten: 400_000}) // 0.8
	if told() != 0 {
		t.Error("told above the bound")
	}
	for range 3 {
		p.Spend(catalog.Work{RowsWritten: 150_000})
		if n := told(); n != 1 {
			t.Errorf("told %d times", n)
		}
	}
	if _, err := o.Credit(t.Context(), catalog.Credit{NamespaceID: o.ns.ID, Nanos: 5 * dollar, Kind: catalog.EntryCredit}); err != nil {
		t.Fatal(err)
	}
	p.Spend(catalog.Work{RowsWritten: 1})
	if told() != 1 {
		t.Error("told after it was topped up")
	}
	p.Spend(catalog.Work{RowsWritten: 2_400_000})
	if told() != 2 {
		t.Error("not told the second time that it became low")
	}
}

func TestCreditCountsOnce(t *testing.T) {
	o := newOffice(t, billing.Options{Prepaid: true})
	var wg sync.WaitGroup
	var mu sync.Mutex
	added := 0
	for range 20 {
		wg.Go(func() {
			yes, err := o.Credit(context.Background(), catalog.Credit{NamespaceID: o.ns.ID, Nanos: dollar, Kind: catalog.EntryCheckout, Ref: "stripe:cs_1"})
			if err != nil {
				t.Error(err)
			}
			if yes {
				mu.Lock()
				added++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if added != 1 || o.balance() != dollar {
		t.Errorf("credited %d times, the balance is %d", added, o.balance())
	}
	if _, err := o.Credit(t.Context(), catalog.Credit{NamespaceID: "ns_none", Nanos: dollar, Kind: catalog.EntryCredit}); !errors.Is(err, catalog.ErrNamespaceNotFound) {
		t.Errorf("a namespace that isn't there: %v", err)
	}
	for _, nanos := range []int64{0, billing.MaxCredit + 1, -billing.MaxCredit - 1} {
		if billing.CheckCredit(nanos, "") == nil {
			t.Errorf("%d is taken for a credit", nanos)
		}
	}
}

func TestWhatCannotBeWrittenIsKept(t *testing.T) {
	o := newOffice(t, billing.Options{Prepaid: true, Welcome: dollar})
	p := o.purse("tok_a", "db_1")
	p.Spend(catalog.Work{Requests: 1})
	ended, end := context.WithCancel(t.Context())
	end()
	if o.Flush(ended) == nil {
		t.Fatal("written in no time")
	}
	p.Spend(catalog.Work{Requests: 1})
	o.flush()
	if got := o.totals(catalog.UsageQuery{}); got.Requests != 2 {
		t.Errorf("usage %+v, want both", got)
	}
	if got := o.balance(); got != dollar-1000 {
		t.Errorf("the balance is %d", got)
	}
}

func TestDollars(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "20": 20 * dollar, "0.005": 5_000_000, "-5": -5 * dollar, "0.000000001": 1, "1000000000": catalog.MaxNanos} {
		got, err := catalog.ParseDollars(text)
		if err != nil || got != want {
			t.Errorf("%s is %d, %v, want %d", text, got, err, want)
		}
		if back := catalog.DollarText(got); back != text {
			t.Errorf("%d is written %s, want %s", got, back, text)
		}
	}
	for _, text := range []string{"", "-", ".5", "5.", "1e3", "0.0000000001", "12345678901", "1000000000.000000001", "+1", "1,5", "0x1", "--1", "NaN"} {
		if got, err := catalog.ParseDollars(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

// crash is the end of a process that wrote nothing down, and the next one.
func (o *office) crash() {
	o.t.Helper()
	if err := o.cat.Close(); err != nil {
		o.t.Fatal(err)
	}
	o.open()
}

// TestRecountThatIsCutShort ends a process while it asks databases what the one before had counted: the next one asks again.
func TestRecountThatIsCutShort(t *testing.T) {
	for name, end := range map[string]func(*office){"killed": (*office).crash, "stopped": (*office).restart} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, billing.Options{Prepaid: true, Welcome: dollar})
			d := o.database("d", false)
			s := real(t, o.clock)
			recount := func(ctx context.Context, p store.Placement) {
				t.Helper()
				if _, err := o.Recount(ctx, p, s); err != nil && ctx.Err() == nil {
					t.Fatal(err)
				}
			}
			recount(t.Context(), s)
			o.purse("tok_a", d.ID).Spend(catalog.Work{Requests: 1})
			o.flush()
			s.times[d.ID] = o.clock.Now()
			o.crash()

			o.clock.set(o.clock.Now().Add(time.Hour))
			ctx, cancel := context.WithCancel(t.Context())
			asked := make(chan struct{})
			go func() {
				<-asked
				o.purse("tok_a", "").Spend(catalog.Work{Requests: 1}) // others go on
				o.flush()
				cancel()
			}()
			recount(ctx, stuck{asked})
			end(o)

			o.clock.set(o.clock.Now().Add(time.Hour))
			s.opened = nil
			recount(t.Context(), s)
			if len(s.opened) != 1 {
				t.Errorf("%d databases were asked, want the one that was not asked to the end", len(s.opened))
			}
			o.clock.set(o.clock.Now().Add(time.Hour))
			o.flush()
			o.restart()
			s.opened = nil
			if recount(t.Context(), s); len(s.opened) != 0 {
				t.Errorf("%d databases were asked after a stop in order", len(s.opened))
			}
		})
	}
}

// stuck is a placement that doesn't come back.
type stuck struct{ asked chan struct{} }

func (s stuck) Owner(ctx context.Context, _ string) (store.Runner, error) {
	close(s.asked)
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestCapsUnderLoad sets caps while much is spent and written down: what was spent is counted, and nothing twice.
func TestCapsUnderLoad(t *testing.T) {
	o := newOffice(t, billing.Options{})
	d := o.database("d", false)
	const workers, each = 8, 2000
	all := catalog.Work{Requests: workers * each}
	nanos := o.Cost(all)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			p := o.purse("tok_a", d.ID)
			for range each {
				p.Spend(catalog.Work{Requests: 1})
			}
		})
	}
	spending := make(chan struct{})
	go func() { wg.Wait(); close(spending) }()
	caps := func(nanos int64) {
		if err := o.SetCaps(t.Context(), o.ns.ID, []catalog.Cap{{Scope: "token", TargetID: "tok_a", Span: "day", Nanos: nanos}}); err != nil {
			t.Error(err)
		}
	}
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		for {
			select {
			case <-spending:
				return
			default:
				if err := o.Flush(context.Background()); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	// The last caps that are set while it goes on are those that are asked; with one nano-dollar more than was spent something is left.
	for done := false; !done; {
		select {
		case <-spending:
			done = true
		default:
			caps(nanos + 1)
		}
	}
	<-flushed
	p := o.purse("tok_a", d.ID)
	if err := p.Admit(); err != nil {
		t.Errorf("more was counted than spent: %v", err)
	}
	p.Spend(catalog.Work{RowsRead: 1})
	if err := p.Admit(); err == nil {
		t.Error("less was counted than spent")
	}
}

// TestMovedDatabase brings a deleted database back in another namespace: what was charged to the former one isn't charged to the new one again.
func TestMovedDatabase(t *testing.T) {
	o := newOffice(t, billing.Options{Prepaid: true, Welcome: dollar})
	d := o.database("d", false)
	other, err := o.cat.CreateNamespace(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	row := store.MeterRow{Series: o.Series(), Day: catalog.Day(o.clock.Now()), Token: "user:1", Total: store.Work{Requests: 10}}
	written := func(n, added int64) {
		row.Total.RowsWritten, row.Added.RowsWritten = n, added
		o.Filed(d.ID, []store.MeterRow{row})
		o.flush()
	}
	written(10, 10)
	move := func(to catalog.Namespace) {
		if _, err := o.cat.DeleteDatabase(t.Context(), d.ID, time.Hour, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := o.cat.UndeleteInto(t.Context(), d.ID, "", to.ID); err != nil {
			t.Fatal(err)
		}
	}
	used := func(ns catalog.Namespace, want int64) {
		t.Helper()
		for _, q := range []catalog.UsageQuery{{GroupBy: "day"}, {GroupBy: "database"}, {GroupBy: "day", DatabaseID: d.ID}} {
			q.NamespaceID, q.To = ns.ID, catalog.Day(o.clock.Now())
			q.From = q.To
			r, err := o.Usage(t.Context(), q)
			if err != nil || r.Total.RowsWritten != want {
				t.Errorf("%s used %d rows, want %d, %v", ns.Slug, r.Total.RowsWritten, want, err)
			}
		}
		s, err := o.Standing(t.Context(), ns)
		kept, kerr := o.cat.Balance(t.Context(), ns.ID)
		if err != nil || kerr != nil || s.Balance != kept {
			t.Errorf("%s has %d in memory and %d in the file, %v, %v", ns.Slug, s.Balance, kept, err, kerr)
		}
	}
	move(other)
	written(10, 0) // told as it is opened
	written(15, 5)
	used(o.ns, 10)
	used(other, 5)
	move(o.ns)
	written(15, 0)
	written(18, 3)
	used(o.ns, 13)
	used(other, 5)
}
