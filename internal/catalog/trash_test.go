package catalog_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/migrations"
)

func mustDelete(t testing.TB, c *catalog.Catalog, id string, keep time.Duration) time.Time {
	t.Helper()
	until, err := c.DeleteDatabase(t.Context(), id, keep, "")
	if err != nil {
		t.Fatal(err)
	}
	return until
}

func slugsOf(list []*catalog.Database) (slugs []string) {
	for _, d := range list {
		slugs = append(slugs, d.Slug)
	}
	return slugs
}

func trashOf(list []*catalog.Trashed) (slugs []string) {
	for _, d := range list {
		slugs = append(slugs, d.Slug)
	}
	return slugs
}

// What is undeleted is what was deleted, in its old place in the list, also after a restart between.
func TestUndelete(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	a, b := mustDatabase(t, c, ns, "a"), mustDatabase(t, c, ns, "b")
	mustDatabase(t, c, ns, "c")
	for _, name := range []string{"at once", "after a restart"} {
		clock.Advance(time.Second)
		until := mustDelete(t, c, b.ID, time.Hour)
		if want := clock.Now().Add(time.Hour); !until.Equal(want) {
			t.Errorf("%s: restorable until %v, want %v", name, until, want)
		}
		clock.Advance(time.Second)
		mustDelete(t, c, a.ID, time.Hour)
		if name != "at once" {
			c = reopen(t, c, clock, path)
		}
		if got, want := trashOf(c.Trash(ns.ID, catalog.Page{})), []string{"a", "b"}; !slices.Equal(got, want) {
			t.Errorf("%s: the trash holds %v, want %v", name, got, want)
		}
		if got := trashOf(c.Trash(ns.ID, catalog.Page{Number: 2, Size: 1})); !slices.Equal(got, []string{"b"}) {
			t.Errorf("%s: the second page of the trash is %v", name, got)
		}
		if got, err := c.Trashed(b.ID); err != nil || got.Database != *b || !got.RestorableUntil.Equal(until) {
			t.Errorf("%s: trashed %+v, %v, want %+v", name, got, err, b)
		}
		if _, err := c.DatabaseByID(b.ID); !errors.Is(err, catalog.ErrDatabaseNotFound) {
			t.Errorf("%s: a deleted database is found by its id: %v", name, err)
		}
		for _, id := range []string{b.ID, a.ID} {
			for range 2 { // a call can be repeated
				if got, err := c.UndeleteDatabase(t.Context(), id, ""); err != nil || got.ID != id {
					t.Fatalf("%s: undelete: %+v, %v", name, got, err)
				}
			}
		}
		if got, want := slugsOf(c.Databases(ns.ID, catalog.Page{})), []string{"c", "b", "a"}; !slices.Equal(got, want) {
			t.Errorf("%s: databases %v, want %v", name, got, want)
		}
		if got, err := c.Database(ns.ID, "b"); err != nil || *got != *b {
			t.Errorf("%s: database %+v, %v, want %+v", name, got, err, b)
		}
		c = reopen(t, c, clock, path)
		if got, err := c.Database(ns.ID, "b"); err != nil || *got != *b || len(c.Trash(ns.ID, catalog.Page{})) != 0 {
			t.Errorf("%s: database %+v, %v after a restart, want %+v", name, got, err, b)
		}
	}
}

func TestUndeleteRefused(t *testing.T) {
	c, clock, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	old := mustDatabase(t, c, ns, "orders")
	mustDelete(t, c, old.ID, time.Hour)
	other := mustDatabase(t, c, ns, "orders")
	for _, tt := range []struct {
		name, id, slug string
		want           error
	}{
		{"the old slug has another", old.ID, "", catalog.ErrSlugTaken},
		{"the new slug has another", old.ID, "orders", catalog.ErrSlugTaken},
		{"no slug", old.ID, "No", catalog.ErrSlug},
		{"it lives under another", other.ID, "elsewhere", catalog.ErrDatabaseLives},
		{"unknown", "db_none", "", catalog.ErrDatabaseNotFound},
	} {
		if _, err := c.UndeleteDatabase(t.Context(), tt.id, tt.slug); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	back, err := c.UndeleteDatabase(t.Context(), old.ID, "old-orders")
	if err != nil || back.Slug != "old-orders" || back.Name != old.Name {
		t.Fatalf("under a new slug: %+v, %v", back, err)
	}
	mustDelete(t, c, back.ID, time.Hour)
	clock.Advance(time.Hour - time.Millisecond)
	if _, err := c.Trashed(back.ID); err != nil {
		t.Errorf("a millisecond before its end: %v", err)
	}
	clock.Advance(time.Millisecond)
	if _, err := c.UndeleteDatabase(t.Context(), back.ID, ""); !errors.Is(err, catalog.ErrDatabaseNotFound) {
		t.Errorf("over its time: %v", err)
	}
	if list := c.Trash(ns.ID, catalog.Page{}); len(list) != 0 {
		t.Errorf("the trash lists what is over its time: %v", trashOf(list))
	}
}

// What is condemned stays so until its files are gone, through restarts.
func TestCondemn(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	over, kept, atOnce := mustDatabase(t, c, ns, "over"), mustDatabase(t, c, ns, "kept"), mustDatabase(t, c, ns, "at-once")
	mustDelete(t, c, over.ID, time.Hour)
	mustDelete(t, c, kept.ID, 2*time.Hour)
	if until := mustDelete(t, c, atOnce.ID, 0); !until.IsZero() {
		t.Errorf("deleted for good, and restorable until %v", until)
	}
	if err := c.PurgeDatabase(t.Context(), over.ID); !errors.Is(err, catalog.ErrDatabaseNotFound) {
		t.Errorf("purged from the trash: %v", err)
	}
	clock.Advance(time.Hour)
	for range 2 {
		list, err := c.CondemnOverdue(t.Context())
		if err != nil || !slices.Equal(slugsOf(list), []string{"at-once", "over"}) {
			t.Fatalf("condemned %v, %v", slugsOf(list), err)
		}
		for _, d := range list {
			if _, err := c.UndeleteDatabase(t.Context(), d.ID, ""); !errors.Is(err, catalog.ErrDatabaseNotFound) {
				t.Errorf("%s came back: %v", d.Slug, err)
			}
		}
		c = reopen(t, c, clock, path)
	}
	if got := trashOf(c.Trash(ns.ID, catalog.Page{})); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("the trash holds %v", got)
	}
	for _, d := range []*catalog.Database{over, atOnce} {
		if err := c.PurgeDatabase(t.Context(), d.ID); err != nil {
			t.Error(err)
		}
	}
	if list, err := c.CondemnOverdue(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("condemned %v, %v after the purge", slugsOf(list), err)
	}
}

// Of racing undeletes one wins: of one database under two slugs, and of two databases under one.
func TestRacingUndeletes(t *testing.T) {
	c, _, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	race := func(calls ...func() error) (won int, errs []error) {
		var all sync.WaitGroup
		errs = make([]error, len(calls))
		for i, call := range calls {
			all.Go(func() { errs[i] = call() })
		}
		all.Wait()
		for _, err := range errs {
			if err == nil {
				won++
			}
		}
		return won, errs
	}
	undelete := func(id, slug string) func() error {
		return func() error { _, err := c.UndeleteDatabase(context.Background(), id, slug); return err }
	}
	for range 20 {
		one := mustDatabase(t, c, ns, "one")
		mustDelete(t, c, one.ID, time.Hour)
		two := mustDatabase(t, c, ns, "one")
		mustDelete(t, c, two.ID, time.Hour)
		if won, errs := race(undelete(one.ID, ""), undelete(two.ID, "")); won != 1 {
			t.Fatalf("%d of two databases have one slug: %v", won, errs)
		}
		d, err := c.Database(ns.ID, "one")
		if err != nil {
			t.Fatal(err)
		}
		mustDelete(t, c, d.ID, time.Hour)
		if won, errs := race(undelete(d.ID, "left"), undelete(d.ID, "right")); won != 1 {
			t.Fatalf("%d of two undeletes of one database: %v", won, errs)
		}
		mustDelete(t, c, d.ID, time.Hour)
	}
}

// A catalog of before the trash: what it deleted was gone, and stays so.
func TestMigrateFromBeforeTheTrash(t *testing.T) {
	c, clock, path := fresh(t)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	first, err := migrations.FS.ReadFile("00001_catalog.sql")
	if err != nil {
		t.Fatal(err)
	}
	db := rawOpen(t, path)
	for _, sql := range []string{
		strings.Split(string(first), "-- +goose Down")[0],
		`CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now')))`,
		`INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (1, 1)`,
		`INSERT INTO namespaces VALUES ('ns_a', 'acme', 1)`,
		`INSERT INTO databases (id, namespace_id, slug, name, region, status, test, created_at, deleted_at) VALUES
			('db_lives', 'ns_a', 'lives', 'Lives', 'auto', 'healthy', 0, 1, NULL), ('db_gone', 'ns_a', 'gone', 'Gone', 'auto', 'healthy', 0, 2, 3)`,
		`INSERT INTO ended_slugs VALUES ('ns_a', 'gone', 3)`,
	} {
		if _, err := db.ExecContext(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, path, clock)
	if d, err := c.Database("ns_a", "lives"); err != nil || d.Name != "Lives" {
		t.Errorf("database %+v, %v", d, err)
	}
	if _, err := c.UndeleteDatabase(t.Context(), "db_gone", ""); !errors.Is(err, catalog.ErrDatabaseNotFound) {
		t.Errorf("a deleted database came back without its file: %v", err)
	}
	if list, err := c.CondemnOverdue(t.Context()); err != nil || !slices.Equal(slugsOf(list), []string{"gone"}) {
		t.Errorf("condemned %v, %v", slugsOf(list), err)
	}
}
