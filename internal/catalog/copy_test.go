package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/persqld/persqld/internal/catalog"
)

// A copy is the catalog between two changes; what didn't change is in its place, and it can be opened.
func TestCopyTo(t *testing.T) {
	dir := t.TempDir()
	c, err := catalog.Open(t.Context(), filepath.Join(dir, "catalog.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ns, err := c.CreateNamespace(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	add := func(i int) string {
		d, _, err := c.CreateDatabase(t.Context(), catalog.NewDatabase{NamespaceID: ns.ID, Slug: fmt.Sprintf("db-%d", i)})
		if err != nil {
			t.Error(err)
			return ""
		}
		return d.ID
	}
	for i := range 300 {
		add(i)
	}
	gone := add(1000)
	if _, err := c.DeleteDatabase(t.Context(), gone, 1e12); err != nil {
		t.Fatal(err)
	}
	first, second := filepath.Join(dir, "first.db"), filepath.Join(dir, "second.db")
	if err := c.CopyTo(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := c.CopyTo(t.Context(), first); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	var during sync.WaitGroup
	during.Go(func() {
		for i := range 20 {
			add(2000 + i)
		}
	})
	if err := c.CopyTo(t.Context(), filepath.Join(dir, "during.db")); err != nil {
		t.Error(err)
	}
	during.Wait()
	if err := c.CopyTo(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(first)
	b, _ := os.ReadFile(second)
	if len(a) == 0 || len(a)%4096 != 0 || !bytes.Equal(a[18:20], []byte{2, 2}) {
		t.Fatalf("%d bytes, versions %v", len(a), a[18:20])
	}
	same := 0
	for at := 0; at+4096 <= min(len(a), len(b)); at += 4096 {
		if bytes.Equal(a[at:at+4096], b[at:at+4096]) {
			same++
		}
	}
	if pages := len(a) / 4096; same < pages/2 || same == pages {
		t.Errorf("%d of %d pages are the same", same, pages)
	}
	for path, want := range map[string]int{first: 300, second: 320} {
		copied, err := catalog.Open(t.Context(), path, catalog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		n, trashed := 0, ""
		copied.EachDatabase(func(*catalog.Database) bool { n++; return true })
		copied.EachTrashed(func(d *catalog.Trashed) bool { trashed = d.ID; return true })
		if n != want || trashed != gone {
			t.Errorf("%s: %d databases, want %d; %q in the trash", filepath.Base(path), n, want, trashed)
		}
		if err := copied.Close(); err != nil {
			t.Error(err)
		}
	}
}
