package catalog_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/migrations"
)

func TestRestartKeepsEverything(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	kept, _, err := c.CreateDatabase(t.Context(), catalog.NewDatabase{
		ID: "db_mine", NamespaceID: ns.ID, Slug: "orders", Name: "Orders ✓", Region: "weur", Test: true})
	if err != nil {
		t.Fatal(err)
	}
	gone := mustDatabase(t, c, ns, "gone")
	if _, err := c.DeleteDatabase(t.Context(), gone.ID, 0, ""); err != nil {
		t.Fatal(err)
	}
	token, secret := mustToken(t, c, catalog.NewToken{
		NamespaceID: ns.ID, Name: "ci", Role: "admin", Database: kept.ID, ExpiresAt: clock.Now().Add(time.Hour)})
	if err := c.SetSetting(t.Context(), "greeting", "hello"); err != nil {
		t.Fatal(err)
	}

	c = reopen(t, c, clock, path)
	if got, err := c.Namespace("acme"); err != nil || got != ns {
		t.Errorf("namespace %+v, %v, want %+v", got, err, ns)
	}
	if got, err := c.Database(ns.ID, "orders"); err != nil || *got != *kept {
		t.Errorf("database %+v, %v, want %+v", got, err, kept)
	}
	if _, err := c.Database(ns.ID, "gone"); !errors.Is(err, catalog.ErrDatabaseEnded) {
		t.Errorf("deleted database: %v", err)
	}
	if list, err := c.CondemnOverdue(t.Context()); err != nil || len(list) != 1 || *list[0] != *gone {
		t.Errorf("deleted databases %v, %v, want %+v", list, err, gone)
	}
	if got, err := c.Authenticate(secret); err != nil || !reflect.DeepEqual(got, token) {
		t.Errorf("token %+v, %v, want %+v", got, err, token)
	}
	if got, ok := c.Setting("greeting"); !ok || got != "hello" {
		t.Errorf("setting %q, %v", got, ok)
	}
	if _, ok := c.Setting("none"); ok {
		t.Error("a setting that nobody set")
	}
}

func TestMigrationsRunOnce(t *testing.T) {
	c, clock, path := fresh(t)
	mustNamespace(t, c, "acme")
	c = reopen(t, c, clock, path)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	db := rawOpen(t, path)
	files, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	var applied int
	if err := db.QueryRow(`SELECT count(*) FROM goose_db_version WHERE version_id > 0`).Scan(&applied); err != nil || applied != len(files) {
		t.Errorf("%d migrations applied, %v, want %d", applied, err, len(files))
	}
	for _, table := range []string{"namespaces", "databases", "ended_slugs", "tokens", "settings"} {
		var strict bool
		if err := db.QueryRow(`SELECT strict FROM pragma_table_list WHERE name = ?`, table).Scan(&strict); err != nil || !strict {
			t.Errorf("table %s is STRICT: %v, %v", table, strict, err)
		}
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "locking_mode": "exclusive"} {
		var got string
		if err := db.QueryRow(`PRAGMA ` + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("pragma %s = %q, %v, want %q", pragma, got, err, want)
		}
	}
}

func TestNewerCatalogIsRefused(t *testing.T) {
	c, _, path := fresh(t)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	db := rawOpen(t, path)
	if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`); err != nil {
		t.Fatal(err)
	}
	db.Close()
	_, err := catalog.Open(t.Context(), path, catalog.Options{})
	if !errors.Is(err, catalog.ErrNewer) || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("got %v", err)
	}
}

func TestDamagedCatalogIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.Open(t.Context(), path, catalog.Options{}); err == nil {
		t.Error("a damaged file was opened")
	}
}

// A file name is a name, whatever characters it has.
func TestPathIsNoURL(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#d%20&e", "catalog.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	open(t, path, newClock())
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestSecretsAreNotKept(t *testing.T) {
	c, _, path := fresh(t)
	_, secret := mustToken(t, c, catalog.NewToken{NamespaceID: mustNamespace(t, c, "acme").ID})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(secret)) || bytes.Contains(data, []byte(secret[20:40])) {
			t.Errorf("%s holds the token", file)
		}
	}
}

func TestSlugs(t *testing.T) {
	c, _, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	tests := []struct {
		slug string
		ok   bool
	}{
		{"a", true}, {"0", true}, {"a-b", true}, {"a-", true}, {"a--b", true},
		{strings.Repeat("a", 63), true}, {strings.Repeat("a", 64), false},
		{"", false}, {"-a", false}, {"A", false}, {"a_b", false}, {"a.b", false}, {"../a", false},
		{"a/b", false}, {"ä", false}, {"a b", false}, {"a\x00", false}, {"a\n", false},
	}
	for _, tt := range tests {
		if got := catalog.ValidSlug(tt.slug); got != tt.ok {
			t.Errorf("slug %q: %v, want %v", tt.slug, got, tt.ok)
		}
		_, _, err := c.CreateDatabase(t.Context(), catalog.NewDatabase{NamespaceID: ns.ID, Slug: tt.slug})
		if refused := errors.Is(err, catalog.ErrSlug); refused == tt.ok {
			t.Errorf("database %q: %v", tt.slug, err)
		}
		_, err = c.CreateNamespace(t.Context(), tt.slug)
		if refused := errors.Is(err, catalog.ErrSlug); refused == tt.ok {
			t.Errorf("namespace %q: %v", tt.slug, err)
		}
	}
}

func TestNamespaces(t *testing.T) {
	c, _, _ := fresh(t)
	for _, slug := range []string{"b", "c", "a"} {
		mustNamespace(t, c, slug)
	}
	if _, err := c.CreateNamespace(t.Context(), "a"); !errors.Is(err, catalog.ErrNamespaceExists) {
		t.Errorf("a second time: %v", err)
	}
	if _, err := c.Namespace("x"); !errors.Is(err, catalog.ErrNamespaceNotFound) {
		t.Errorf("unknown: %v", err)
	}
	got := ""
	for _, ns := range c.Namespaces() {
		got += ns.Slug
	}
	if got != "abc" {
		t.Errorf("namespaces %q, want abc", got)
	}
}

func TestDatabases(t *testing.T) {
	c, _, _ := fresh(t)
	ns, other := mustNamespace(t, c, "acme"), mustNamespace(t, c, "other")
	for i := range 7 {
		_, made, err := c.CreateDatabase(t.Context(), catalog.NewDatabase{
			NamespaceID: ns.ID, Slug: fmt.Sprintf("d%d", i), Region: "mars", Test: i%2 == 0})
		if err != nil || !made {
			t.Fatal(made, err)
		}
	}
	theirs := mustDatabase(t, c, other, "d0")
	again, made, err := c.CreateDatabase(t.Context(), catalog.NewDatabase{NamespaceID: other.ID, Slug: "d0", Name: "x"})
	if err != nil || made || again != theirs {
		t.Errorf("a slug that exists: %v, %v, %v", again, made, err)
	}
	d, err := c.Database(ns.ID, "d3")
	if err != nil || d.Region != "auto" || d.Name != "d3" || d.Status != catalog.StatusHealthy {
		t.Errorf("database %+v, %v", d, err)
	}
	if byID, err := c.DatabaseByID(d.ID); err != nil || byID != d {
		t.Errorf("by id: %v, %v", byID, err)
	}
	for _, tt := range []struct {
		page catalog.Page
		want string
	}{
		{catalog.Page{}, "d6d5d4d3d2d1d0"},
		{catalog.Page{Number: 1, Size: 3}, "d6d5d4"},
		{catalog.Page{Number: 3, Size: 3}, "d0"},
		{catalog.Page{Number: 4, Size: 3}, ""},
		{catalog.Page{Number: 1 << 62, Size: 500}, ""},
		{catalog.Page{Number: -1, Size: 9999}, "d6d5d4d3d2d1d0"},
		{catalog.Page{Number: 2, Size: 3, TestOnly: true}, "d0"},
	} {
		got := ""
		for _, d := range c.Databases(ns.ID, tt.page) {
			got += d.Slug
		}
		if got != tt.want {
			t.Errorf("page %+v: %q, want %q", tt.page, got, tt.want)
		}
	}
	if list := c.Databases("ns_none", catalog.Page{}); len(list) != 0 {
		t.Errorf("databases of nobody: %v", list)
	}
	n := 0
	c.EachDatabase(func(*catalog.Database) bool { n++; return true })
	if n != 8 {
		t.Errorf("%d databases in all, want 8", n)
	}
}

// A slug that ended makes no database by being used, until somebody asks for it.
func TestEndedSlug(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	first := mustDatabase(t, c, ns, "orders")
	_, pinned := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID, Database: first.ID})
	if until, err := c.DeleteDatabase(t.Context(), first.ID, 0, ""); err != nil || !until.IsZero() {
		t.Fatal(err)
	}
	if _, err := c.DeleteDatabase(t.Context(), first.ID, 0, ""); !errors.Is(err, catalog.ErrDatabaseNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	if list := c.Databases(ns.ID, catalog.Page{}); len(list) != 0 {
		t.Errorf("a deleted database is listed: %v", list)
	}
	if err := c.PurgeDatabase(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.PurgeDatabase(t.Context(), first.ID); !errors.Is(err, catalog.ErrDatabaseNotFound) {
		t.Errorf("purged twice: %v", err)
	}
	use := catalog.NewDatabase{NamespaceID: ns.ID, Slug: "orders", Use: true}
	for range 2 {
		if _, _, err := c.CreateDatabase(t.Context(), use); !errors.Is(err, catalog.ErrDatabaseEnded) {
			t.Errorf("used after its end: %v", err)
		}
		c = reopen(t, c, clock, path)
	}
	use.Use = false
	second, made, err := c.CreateDatabase(t.Context(), use)
	if err != nil || !made || second.ID == first.ID {
		t.Fatalf("asked for: %+v, %v, %v", second, made, err)
	}
	if err := c.PurgeDatabase(t.Context(), second.ID); !errors.Is(err, catalog.ErrDatabaseNotFound) {
		t.Errorf("a living database was purged: %v", err)
	}
	c = reopen(t, c, clock, path)
	if got, err := c.Database(ns.ID, "orders"); err != nil || got.ID != second.ID {
		t.Errorf("alive again: %v, %v", got, err)
	}
	if token, err := c.Authenticate(pinned); err != nil || token.Database != first.ID {
		t.Errorf("a pin moved: %+v, %v", token, err)
	}
	never := catalog.NewDatabase{NamespaceID: ns.ID, Slug: "fresh", Use: true}
	if _, made, err := c.CreateDatabase(t.Context(), never); err != nil || !made {
		t.Errorf("used for the first time: %v, %v", made, err)
	}
}

func TestRacingCreatesMakeOne(t *testing.T) {
	c, _, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	var mu sync.Mutex
	ids, made := map[string]bool{}, 0
	var racers sync.WaitGroup
	for range 16 {
		racers.Go(func() {
			d, m, err := c.CreateDatabase(context.Background(), catalog.NewDatabase{NamespaceID: ns.ID, Slug: "orders", Use: true})
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := c.Database(ns.ID, "orders"); err != nil || got != d {
				t.Errorf("right after: %v, %v", got, err)
			}
			mu.Lock()
			defer mu.Unlock()
			ids[d.ID] = true
			if m {
				made++
			}
		})
	}
	racers.Wait()
	if len(ids) != 1 || made != 1 {
		t.Errorf("%d ids, made %d times", len(ids), made)
	}
}

func TestCancelledChangeChangesNothing(t *testing.T) {
	c, _, _ := fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.CreateNamespace(ctx, "acme"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Namespace("acme"); !errors.Is(err, catalog.ErrNamespaceNotFound) {
		t.Errorf("it is there: %v", err)
	}
	mustNamespace(t, c, "acme")
}

// A file that must not grow stands for a full disk.
func TestFullDisk(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	_, secret := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID})
	restore := catalog.LimitPages(t, c)
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		err = c.SetSetting(t.Context(), fmt.Sprint("key", i), strings.Repeat("x", 1000))
	}
	if !errors.Is(err, catalog.ErrDiskFull) {
		t.Fatalf("got %v, want ErrDiskFull", err)
	}
	if _, err := c.Authenticate(secret); err != nil {
		t.Errorf("look-ups stopped: %v", err)
	}
	restore()
	if err := c.SetSetting(t.Context(), "after", "x"); err != nil {
		t.Errorf("after room was made: %v", err)
	}
	c = reopen(t, c, clock, path)
	if _, err := c.Authenticate(secret); err != nil {
		t.Error(err)
	}
}

// 100,000 databases are read at a start and found at once.
func TestManyDatabases(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	const n = 100_000
	db := rawOpen(t, path)
	_, err := db.Exec(`WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < ?)
		INSERT INTO databases (id, namespace_id, slug, name, region, status, test, created_at)
		SELECT 'db_' || n, ?, 'd' || n, 'd' || n, 'auto', 'healthy', 0, n FROM i`, n, ns.ID)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	c = open(t, path, clock)
	d, err := c.Database(ns.ID, "d77777")
	if err != nil || d.ID != "db_77777" {
		t.Fatal(d, err)
	}
	last := c.Databases(ns.ID, catalog.Page{Number: n / 500, Size: 500})
	if len(last) != 500 || last[499].Slug != "d1" {
		t.Errorf("the last page has %d, ends with %v", len(last), last[len(last)-1])
	}
	if _, err := c.DeleteDatabase(t.Context(), d.ID, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	if got := len(c.Databases(ns.ID, catalog.Page{Number: n / 500, Size: 500})); got != 499 {
		t.Errorf("the last page has %d after a deletion", got)
	}
}

func rawOpen(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sqlite.OpenDriver(path, sqlite.DriverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func BenchmarkAuthenticate(b *testing.B) {
	c, _, _ := fresh(b)
	ns := mustNamespace(b, c, "acme")
	_, secret := mustToken(b, c, catalog.NewToken{NamespaceID: ns.ID})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Authenticate(secret); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
