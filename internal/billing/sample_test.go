package billing_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// shelf is a placement whose databases all store as much, and a disk.
type shelf struct {
	store.Runner
	mu     sync.Mutex
	opened []string
	times  map[string]time.Time
}

func (s *shelf) Owner(context.Context, string) (store.Runner, error) { return s, nil }
func (s *shelf) Modified(id string) time.Time                        { return s.times[id] }

// real is a store of real files; its Do notes who was opened.
func real(t *testing.T, clock *clock) *shelf {
	t.Helper()
	if err := sqlite.Initialize(sqlite.Setup{}); err != nil {
		t.Fatal(err)
	}
	st, err := store.New(store.Options{Dir: t.TempDir(), Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close(context.Background()) })
	return &shelf{Runner: st, times: map[string]time.Time{}}
}

func (s *shelf) Do(ctx context.Context, id string, r *store.Request) error {
	s.mu.Lock()
	s.opened = append(s.opened, id)
	s.mu.Unlock()
	return s.Runner.Do(ctx, id, r)
}

// free lets everything through.
type free struct{}

func (free) Permit(sqlite.Access) error { return nil }
func (free) Judge(*sqlite.Stmt) error   { return nil }

// A branch without rows costs nothing, until it has one.
func TestSamplesOfBranches(t *testing.T) {
	o := newOffice(t, billing.Options{Prepaid: true, Welcome: dollar})
	s := real(t, o.clock)
	run := func(id string, sqls ...string) {
		t.Helper()
		err := s.Runner.Do(t.Context(), id, &store.Request{Gate: free{}, Job: store.JobFunc(func(tx *store.Tx) error {
			for _, sql := range sqls {
				st, _, err := tx.Prepare([]byte(sql))
				if err != nil {
					return err
				}
				_, err = tx.Run(st, nil, nil)
				st.Done()
				if err != nil {
					return err
				}
			}
			return nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		s.times[id] = s.times[id].Add(time.Second)
	}
	parent := o.database("parent", false)
	branch := func(ref, content string) string {
		t.Helper()
		id := catalog.NewID("db")
		if err := s.Create(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := o.cat.CreateFork(t.Context(), catalog.NewFork{ID: id, From: parent.ID, Ref: ref, Slug: "fork", Content: content}); err != nil {
			t.Fatal(err)
		}
		run(id, `CREATE TABLE "odd ""name"(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE)`, "CREATE VIRTUAL TABLE f USING fts5(b)", "CREATE VIEW v AS SELECT 1")
		return id
	}
	empty, filled, searched, full, fork := branch("empty", "schema"), branch("filled", "schema"), branch("searched", "schema"), branch("full", "full"), branch("", "schema")
	external := branch("external", "schema")
	run(filled, `INSERT INTO "odd ""name"(b) VALUES(1)`)
	run(searched, "INSERT INTO f VALUES('fox')")
	run(external, "CREATE TABLE c(b)", "CREATE VIRTUAL TABLE g USING fts5(b, content='c')", "DROP TABLE c")
	sample := func() {
		t.Helper()
		if err := o.SampleNow(t.Context(), s, s); err != nil {
			t.Fatal(err)
		}
	}
	sample()
	for name, of := range map[string]struct {
		id   string
		free bool
	}{"empty": {empty, true}, "with a row": {filled, false}, "with a row in a virtual table": {searched, false}, "full": {full, false}, "a fork": {fork, false}, "with a table that can't be read": {external, false}} {
		if got := o.totals(catalog.UsageQuery{DatabaseID: of.id}); (got.StorageBytes == 0) != of.free || (got.Nanos == 0) != of.free {
			t.Errorf("%s: %+v", name, got)
		}
	}
	o.clock.set(o.clock.Now().Add(24 * time.Hour))
	run(empty, `INSERT INTO "odd ""name"(b) VALUES(1)`)
	run(filled, `DELETE FROM "odd ""name"`)
	sample()
	if a, b := o.totals(catalog.UsageQuery{DatabaseID: empty}), o.totals(catalog.UsageQuery{DatabaseID: filled}); a.StorageBytes == 0 || b.StorageBytes != 0 {
		t.Errorf("a row that came makes %d bytes, one that went leaves %d", a.StorageBytes, b.StorageBytes)
	}
}

func TestSamples(t *testing.T) {
	o := newOffice(t, billing.Options{Prepaid: true, Welcome: dollar})
	s := real(t, o.clock)
	fill := func(d *catalog.Database, bytes int) {
		t.Helper()
		err := s.Runner.Do(t.Context(), d.ID, &store.Request{Gate: free{}, Job: store.JobFunc(func(tx *store.Tx) error {
			for _, sql := range []string{"CREATE TABLE IF NOT EXISTS t(a)", fmt.Sprintf("INSERT INTO t VALUES(zeroblob(%d))", bytes)} {
				st, _, err := tx.Prepare([]byte(sql))
				if err != nil {
					return err
				}
				_, err = tx.Run(st, nil, nil)
				st.Done()
				if err != nil {
					return err
				}
			}
			return nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		s.times[d.ID] = s.times[d.ID].Add(time.Second)
	}
	var list []*catalog.Database
	for i := range 3 {
		d := o.database(fmt.Sprint("d", i), i == 2)
		if err := s.Create(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
		fill(d, 1_000_000)
		list = append(list, d)
	}
	sample := func(want int) {
		t.Helper()
		s.opened = nil
		if err := o.SampleNow(t.Context(), s, s); err != nil {
			t.Fatal(err)
		}
		if len(s.opened) != want {
			t.Errorf("%d databases were opened, want %d", len(s.opened), want)
		}
	}
	sample(3)
	bytes := o.totals(catalog.UsageQuery{}).StorageBytes
	if bytes < 3_000_000 || bytes > 3_100_000 {
		t.Errorf("%d bytes stored", bytes)
	}
	one := bytes / 3
	day := one * 400_000_000 / (30 * 1_000_000_000)
	if got := o.balance(); got != dollar-2*day {
		t.Errorf("the balance is %d, want that of two databases for a day, %d: the third is a test's", got, dollar-2*day)
	}
	sample(0) // once a day
	o.clock.set(o.clock.Now().Add(24 * time.Hour))
	fill(list[0], 500_000)
	sample(1) // the others were not written to
	sample(0)
	if got := o.totals(catalog.UsageQuery{GroupBy: billing.ByDatabase}); got.StorageBytes <= bytes || got.StorageBytes > bytes+520_000 {
		t.Errorf("%d bytes stored on the second day, %d on the first", got.StorageBytes, bytes)
	}
	if got := o.totals(catalog.UsageQuery{DatabaseID: list[1].ID}); got.StorageBytes != one || got.Nanos != 2*day {
		t.Errorf("a database of its own: %+v", got)
	}
	// A deletion ends it.
	if _, err := o.cat.DeleteDatabase(t.Context(), list[1].ID, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	o.clock.set(o.clock.Now().Add(24 * time.Hour))
	sample(0)
	if got := o.totals(catalog.UsageQuery{DatabaseID: list[1].ID}); got.Nanos != 2*day {
		t.Errorf("a deleted database is charged: %+v", got)
	}
	o.balance()
	o.ledger()
}

// What a connected app's database stores is the app's to pay, and nobody pays a day twice.
func TestSamplesOfApps(t *testing.T) {
	o := newOffice(t, billing.Options{Prepaid: true, Welcome: dollar})
	s := real(t, o.clock)
	ctx := t.Context()
	u, err := o.cat.CreateUser(ctx, catalog.NewUser{Email: "ada@example.com", PasswordHash: "x"})
	if err == nil {
		_, err = o.cat.CreateHome(ctx, catalog.NewHome{UserID: u.ID, Slug: "ada", DatabaseID: catalog.NewID("db"), Database: "main"})
	}
	if err != nil {
		t.Fatal(err)
	}
	home, err := o.cat.HomeOf(u.ID)
	if err != nil {
		t.Fatal(err)
	}
	app, _, err := o.cat.CreateOAuthClient(ctx, catalog.NewOAuthClient{NamespaceID: o.ns.ID, Name: "App", RedirectURIs: []string{"https://app.example/"}, Most: 10})
	if err != nil {
		t.Fatal(err)
	}
	n := &catalog.NewDatabase{ID: catalog.NewID("db"), NamespaceID: home.ID, Slug: "app"}
	other := o.cat.DatabasesOf(home.ID)[0]
	if err := s.Create(ctx, other.ID); err != nil {
		t.Fatal(err)
	}
	own := func() int64 {
		return o.totals(catalog.UsageQuery{NamespaceID: home.ID, DatabaseID: other.ID}).StorageBytes
	}
	if err := s.Create(ctx, n.ID); err != nil {
		t.Fatal(err)
	}
	consent := func(n *catalog.NewDatabase) *catalog.OAuthGrant {
		t.Helper()
		code := catalog.NewOAuthCode()
		g, _, err := o.cat.ConsentOAuth(ctx, catalog.OAuthConsent{Code: code, UserID: u.ID, ClientID: app.ID, Name: "App", Scopes: []string{catalog.OAuthDatabase},
			RedirectURI: "https://app.example/", AuthAt: o.clock.Now(), Database: n})
		if err == nil {
			_, err = o.cat.IssueOAuth(ctx, catalog.OAuthIssue{Code: code, Scopes: []string{catalog.OAuthDatabase}, Access: catalog.NewTokenSecret(), Name: "app", Payer: o.ns.ID})
		}
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	g := consent(n)
	stored := func(namespace string) int64 {
		t.Helper()
		if err := o.SampleNow(ctx, s, s); err != nil {
			t.Fatal(err)
		}
		return o.totals(catalog.UsageQuery{NamespaceID: namespace}).StorageBytes
	}
	if app, user := stored(o.ns.ID), stored(home.ID); app == 0 || user != own() {
		t.Errorf("connected: %d bytes are the app's, %d the user's", app, user)
	}
	if _, err := o.cat.DisconnectOAuth(ctx, u.ID, g.ID); err != nil {
		t.Fatal(err)
	}
	if user := stored(home.ID); user != own() {
		t.Errorf("disconnected on the same day: %d bytes are the user's, who would pay the day again", user)
	}
	o.clock.set(o.clock.Now().Add(24 * time.Hour))
	if user := stored(home.ID); user <= own() {
		t.Error("disconnected: nobody pays")
	}
	consent(nil)
	before := o.totals(catalog.UsageQuery{NamespaceID: o.ns.ID}).Nanos
	stored(o.ns.ID)
	if after := o.totals(catalog.UsageQuery{NamespaceID: o.ns.ID}).Nanos; after != before {
		t.Errorf("connected again on the same day: %d, %d before", after, before)
	}
	// An app that has ended its tokens doesn't pay for what its former user stores.
	o.clock.set(o.clock.Now().Add(24 * time.Hour))
	if err := o.cat.EndOAuthFamily(ctx, o.cat.ConnectedApps(u.ID)[0].Families[0].ID, false); err != nil {
		t.Fatal(err)
	}
	before = o.totals(catalog.UsageQuery{NamespaceID: o.ns.ID}).Nanos
	if stored(o.ns.ID); o.totals(catalog.UsageQuery{NamespaceID: o.ns.ID}).Nanos != before || stored(home.ID) <= own() {
		t.Error("an app without a token pays")
	}
}
