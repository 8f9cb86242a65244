package catalog_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

// What an entry tells of and the entry are one: neither is there without the other, and what failed has none.
func TestAuditIsOfTheChange(t *testing.T) {
	c, clock, _ := fresh(t)
	ctx := catalog.WithActor(t.Context(), catalog.Actor{Type: catalog.ActorToken, ID: "tok_1", Address: "192.0.2.1"})
	ns, err := c.CreateNamespace(ctx, "acme")
	if err != nil {
		t.Fatal(err)
	}
	actions := func(q catalog.AuditQuery) string {
		t.Helper()
		q.NamespaceID = ns.ID
		if q.Limit == 0 {
			q.Limit = 100
		}
		list, err := c.Audit(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range list {
			names = append(names, e.Action+" by "+e.Actor.Type)
			if e.NamespaceID != ns.ID || e.At.IsZero() || e.TargetID == "" || e.Metadata == nil || (e.Actor.Type == catalog.ActorToken) != (e.Actor.Address == "192.0.2.1") {
				t.Errorf("entry %+v", e)
			}
		}
		return strings.Join(names, ", ")
	}
	d, _, err := c.CreateDatabase(ctx, catalog.NewDatabase{NamespaceID: ns.ID, Slug: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if _, made, err := c.CreateDatabase(ctx, catalog.NewDatabase{NamespaceID: ns.ID, Slug: "shop"}); made || err != nil {
		t.Fatal(made, err)
	}
	if _, _, err := c.CreateToken(ctx, catalog.NewToken{NamespaceID: ns.ID, Role: "none"}); !errors.Is(err, catalog.ErrRole) {
		t.Fatal(err)
	}
	over, stop := context.WithCancel(ctx)
	stop()
	if _, _, err := c.CreateToken(over, catalog.NewToken{NamespaceID: ns.ID}); err == nil {
		t.Fatal("made under a context that was over")
	}
	if _, _, err := c.CreateToken(ctx, catalog.NewToken{NamespaceID: ns.ID, Test: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteDatabase(ctx, d.ID, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	clock.Advance(2 * time.Hour)
	if list, err := c.CondemnOverdue(t.Context()); err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if got, want := actions(catalog.AuditQuery{}), "database.purged by server, database.deleted by token, token.created by token, database.created by token, namespace.created by token"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := actions(catalog.AuditQuery{TestOnly: true}); got != "token.created by token" {
		t.Errorf("of tests: %s", got)
	}
	if got := actions(catalog.AuditQuery{Action: "database.deleted"}); got != "database.deleted by token" {
		t.Errorf("deletions: %s", got)
	}
	if got := actions(catalog.AuditQuery{Limit: 1}); got != "database.purged by server" {
		t.Errorf("the last: %s", got)
	}
}

// What was done for a namespace is noted while the namespace is there.
func TestRecordNamespace(t *testing.T) {
	c, _, _ := fresh(t)
	ctx := catalog.WithActor(t.Context(), catalog.Actor{Type: catalog.ActorUser, ID: "usr_1"})
	ns, err := c.CreateNamespace(ctx, "acme")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.RecordNamespace(ctx, "billing.checkout_started", ns.ID, map[string]any{"usd": 12.5}); err != nil {
		t.Fatal(err)
	}
	list, err := c.Audit(ctx, catalog.AuditQuery{NamespaceID: ns.ID, Limit: 1})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if e := list[0]; e.Action != "billing.checkout_started" || e.Actor.ID != "usr_1" || e.TargetType != "namespace" || e.TargetID != ns.ID || e.TargetName != "acme" || e.Metadata["usd"] != 12.5 {
		t.Errorf("%+v", e)
	}
	if _, err := c.DeleteNamespace(ctx, catalog.Deletion{NamespaceID: ns.ID}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{ns.ID, "ns_none", ""} {
		if err := c.RecordNamespace(ctx, "billing.checkout_started", id, nil); !errors.Is(err, catalog.ErrNamespaceNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
