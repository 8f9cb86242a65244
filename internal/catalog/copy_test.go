package catalog_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// A copy is a catalog that has everything, and a small change changes few of its pages.
func TestCopy(t *testing.T) {
	c, clock, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	for i := range 300 {
		mustDatabase(t, c, ns, fmt.Sprintf("db-%d", i))
	}
	dir := t.TempDir()
	copied := func(name string) []byte {
		path := filepath.Join(dir, name)
		if err := c.Copy(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := copied("first.db")
	if again := copied("again.db"); !bytes.Equal(first, again) {
		t.Error("two copies of the same catalog differ")
	}
	mustDatabase(t, c, ns, "one-more")
	second := copied("second.db")
	differing := 0
	for at := 0; at < len(first) && at < len(second); at += sqlite.PageSize {
		if !bytes.Equal(first[at:at+sqlite.PageSize], second[at:at+sqlite.PageSize]) {
			differing++
		}
	}
	if differing == 0 || differing > 25 {
		t.Errorf("%d of %d pages differ after one change", differing, len(first)/sqlite.PageSize)
	}
	other := open(t, filepath.Join(dir, "second.db"), clock)
	if _, err := other.Database(ns.ID, "one-more"); err != nil {
		t.Error(err)
	}
	if _, err := other.Database(ns.ID, "db-299"); err != nil {
		t.Error(err)
	}
}
