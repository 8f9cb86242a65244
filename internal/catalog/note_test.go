package catalog_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/persqld/persqld/internal/catalog"
)

// entries are those of a namespace, the oldest first.
func entries(t *testing.T, c *catalog.Catalog, namespaceID, action string) (list []catalog.Event) {
	t.Helper()
	q := catalog.AuditQuery{NamespaceID: namespaceID, Action: action, Limit: 1000}
	for {
		page, err := c.Audit(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return list
		}
		for _, e := range page {
			list = append([]catalog.Event{e}, list...)
		}
		q.Before = page[len(page)-1].ID
	}
}

// What is noted is listed at once, by its order and its actor, and before what is changed later, whoever writes it.
func TestNotesStandInOrder(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	d := mustDatabase(t, c, ns, "orders")
	const racers, each = 8, 60
	var all sync.WaitGroup
	for racer := range racers {
		all.Go(func() {
			ctx := catalog.WithActor(t.Context(), catalog.Actor{Type: catalog.ActorToken, ID: fmt.Sprint("tok_", racer), Address: "192.0.2.1"})
			for n := range each {
				if err := c.Note(ctx, "snapshot.created", d, map[string]any{"n": n}); err != nil {
					t.Error(err)
				}
				switch {
				case n%20 == 0:
					if _, _, err := c.CreateToken(ctx, catalog.NewToken{NamespaceID: ns.ID, Name: fmt.Sprint(n)}); err != nil {
						t.Error(err)
					}
				case n%20 == 10:
					if list, err := c.Audit(ctx, catalog.AuditQuery{NamespaceID: ns.ID, Action: "snapshot.created", Limit: 1000}); err != nil || !told(list, racer, n) {
						t.Errorf("entry %d of %d isn't listed (%v)", n, racer, err)
					}
				}
			}
		})
	}
	all.Wait()
	check := func() {
		t.Helper()
		next := map[string]int{}
		for _, e := range entries(t, c, ns.ID, "") {
			switch e.Action {
			case "snapshot.created":
				if e.Metadata["n"] != float64(next[e.Actor.ID]) || e.Actor.Address != "192.0.2.1" || e.TargetID != d.ID || e.At.IsZero() {
					t.Errorf("entry %+v, want %d", e, next[e.Actor.ID])
				}
				next[e.Actor.ID]++
			case "token.created":
				if want := fmt.Sprint(next[e.Actor.ID] - 1); e.TargetName != want {
					t.Errorf("token %s stands behind entry %s", e.TargetName, want)
				}
			}
		}
		for racer := range racers {
			if n := next[fmt.Sprint("tok_", racer)]; n != each {
				t.Errorf("%d entries of %d, want %d", n, racer, each)
			}
		}
	}
	check()
	c = reopen(t, c, clock, path)
	check()
}

func told(list []catalog.Event, racer, n int) bool {
	for _, e := range list {
		if e.Actor.ID == fmt.Sprint("tok_", racer) && e.Metadata["n"] == float64(n) {
			return true
		}
	}
	return false
}

// A server that stops writes what waits.
func TestNotesAreWrittenAtTheEnd(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	d := mustDatabase(t, c, ns, "orders")
	for n := range 20 {
		if err := c.Note(t.Context(), "snapshot.created", d, nil); err != nil {
			t.Fatal(err)
		}
		c = reopen(t, c, clock, path)
		if got := len(entries(t, c, ns.ID, "snapshot.created")); got != n+1 {
			t.Fatalf("%d entries, want %d", got, n+1)
		}
	}
}

// Where the disk takes nothing, entries wait until it does, as many as may; then it is said.
func TestNotesOutlastFullDisk(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	d := mustDatabase(t, c, ns, "orders")
	restore := catalog.LimitPages(t, c)
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		err = c.SetSetting(t.Context(), fmt.Sprint("key", i), strings.Repeat("x", 1000))
	}
	noted := 0
	for err = nil; err == nil && noted < 5000; {
		if err = c.Note(t.Context(), "snapshot.created", d, map[string]any{"text": strings.Repeat("x", 400)}); err == nil {
			noted++
		}
	}
	if !errors.Is(err, catalog.ErrDiskFull) || noted < 1000 {
		t.Fatalf("after %d entries: %v", noted, err)
	}
	if _, err := c.Audit(t.Context(), catalog.AuditQuery{NamespaceID: ns.ID, Limit: 10}); err != nil {
		t.Errorf("what is written isn't listed: %v", err)
	}
	if err := c.SetSetting(t.Context(), "key1", "y"); !errors.Is(err, catalog.ErrDiskFull) {
		t.Errorf("a change went before what waits: %v", err)
	}
	restore()
	if err := c.SetSetting(t.Context(), "after", "x"); err != nil {
		t.Errorf("after room was made: %v", err)
	}
	c = reopen(t, c, clock, path)
	if got := len(entries(t, c, ns.ID, "snapshot.created")); got != noted {
		t.Errorf("%d entries, want %d", got, noted)
	}
}
