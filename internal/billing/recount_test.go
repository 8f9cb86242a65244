package billing_test

import (
	"context"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
)

// oldFiles are files that nobody wrote to. before is called when they are looked at.
type oldFiles struct{ before func() }

func (f oldFiles) Modified(string) time.Time {
	f.before()
	return time.Time{}
}

// TestRecountIsNotForgotten: a stop, or counts that are kept, before all databases were asked must not make the next start ask fewer.
func TestRecountIsNotForgotten(t *testing.T) {
	cat, err := catalog.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cat.Close()
	ns, err := cat.CreateNamespace(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := cat.CreateDatabase(t.Context(), catalog.NewDatabase{NamespaceID: ns.ID, Slug: "shop"}); err != nil {
		t.Fatal(err)
	}
	began := strconv.FormatInt(time.Now().Add(-time.Hour).UnixMilli(), 10)
	if err := cat.SetSetting(t.Context(), catalog.UsageKeptAt, began); err != nil {
		t.Fatal(err)
	}
	run := func(cut bool) (kept, after string) {
		t.Helper()
		b, err := billing.Open(t.Context(), billing.Options{Catalog: cat})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done, err := b.Recount(ctx, nil, oldFiles{func() {
			if cut {
				cancel()
			}
		}})
		if done == nil {
			t.Fatal(err)
		}
		<-done
		p, err := b.Purse(t.Context(), ns.ID, "tok", false)
		if err != nil {
			t.Fatal(err)
		}
		p.Spend(catalog.Work{Requests: 1})
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		kept, _ = cat.Setting(catalog.UsageKeptAt)
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		after, _ = cat.Setting(catalog.UsageKeptAt)
		return kept, after
	}
	if kept, after := run(true); kept != began || after != began {
		t.Errorf("cut short: %q, then %q; want %q", kept, after, began)
	}
	if kept, after := run(false); kept == began || kept == "" || after != "" {
		t.Errorf("all asked: %q, then %q", kept, after)
	}
}
