package catalog_test

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

// clock is a clock that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func open(t testing.TB, path string, clock *clock) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), path, catalog.Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// fresh is an empty catalog, with its path.
func fresh(t testing.TB) (*catalog.Catalog, *clock, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "catalog.db")
	clock := newClock()
	return open(t, path, clock), clock, path
}

func reopen(t testing.TB, c *catalog.Catalog, clock *clock, path string) *catalog.Catalog {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, path, clock)
}

func mustNamespace(t testing.TB, c *catalog.Catalog, slug string) catalog.Namespace {
	t.Helper()
	ns, err := c.CreateNamespace(t.Context(), slug)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func mustDatabase(t testing.TB, c *catalog.Catalog, ns catalog.Namespace, slug string) *catalog.Database {
	t.Helper()
	d, _, err := c.CreateDatabase(t.Context(), catalog.NewDatabase{NamespaceID: ns.ID, Slug: slug})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustToken(t testing.TB, c *catalog.Catalog, n catalog.NewToken) (*catalog.Token, string) {
	t.Helper()
	token, secret, err := c.CreateToken(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return token, secret
}
