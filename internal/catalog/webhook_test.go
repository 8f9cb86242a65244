package catalog_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
)

func mustHook(t testing.TB, c *catalog.Catalog, d *catalog.Database, events catalog.WebhookEvents) *catalog.Webhook {
	t.Helper()
	w, err := c.CreateWebhook(t.Context(), d.ID, catalog.Webhook{Name: "w", URL: "https://example.com/a?secret=hush", Events: events, Enabled: true}, 7, 20)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func secretsOf(t testing.TB, c *catalog.Catalog, d *catalog.Database, id string) []string {
	t.Helper()
	d, err := c.DatabaseByID(d.ID)
	if err != nil {
		t.Fatal(err)
	}
	w, err := d.Webhook(id)
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.WebhookSecrets(w)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A former secret signs for a while, and no longer; both outlive a restart, and neither is in the file as it is.
func TestWebhookSecrets(t *testing.T) {
	c, clock, path := fresh(t)
	d := mustDatabase(t, c, mustNamespace(t, c, "acme"), "shop")
	w := mustHook(t, c, d, catalog.AllEvents)
	first := secretsOf(t, c, d, w.ID)
	if _, err := c.RotateWebhookSecret(t.Context(), d.ID, w.ID, time.Hour); err != nil {
		t.Fatal(err)
	}
	both := secretsOf(t, c, d, w.ID)
	if len(first) != 1 || len(both) != 2 || both[1] != first[0] || both[0] == first[0] {
		t.Errorf("secrets %d, then %d", len(first), len(both))
	}
	c = reopen(t, c, clock, path)
	if got := secretsOf(t, c, d, w.ID); !slices.Equal(got, both) {
		t.Error("a restart has changed the secrets")
	}
	clock.Advance(time.Hour - time.Millisecond)
	if got := secretsOf(t, c, d, w.ID); len(got) != 2 {
		t.Error("the former secret ended too early")
	}
	clock.Advance(time.Millisecond)
	if got := secretsOf(t, c, d, w.ID); !slices.Equal(got, both[:1]) {
		t.Errorf("%d secrets after the overlap", len(got))
	}
	if _, err := c.RotateWebhookSecret(t.Context(), d.ID, "wh_none", time.Hour); !errors.Is(err, catalog.ErrWebhookNotFound) {
		t.Errorf("another one: %v", err)
	}
	list, err := c.Audit(t.Context(), catalog.AuditQuery{All: true, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.TargetType == "webhook" && e.Metadata["host"] != "https://example.com" {
			t.Errorf("%s: %v", e.Action, e.Metadata)
		}
		for _, v := range e.Metadata {
			if text, ok := v.(string); ok && (text == first[0] || text == "https://example.com/a?secret=hush") {
				t.Errorf("%s has %s", e.Action, text)
			}
		}
	}
}

// Of an approval webhooks are told twice: when it is asked for, and when it is resolved, whichever way; never before.
func TestWebhooksOfApprovals(t *testing.T) {
	c, clock, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	d := mustDatabase(t, c, ns, "shop")
	w := mustHook(t, c, d, catalog.EventApprovalRequired|catalog.EventApprovalResolved)
	other := mustHook(t, c, d, catalog.EventInsert)
	ask := func(print byte, need int) string {
		t.Helper()
		d, err := c.DatabaseByID(d.ID)
		if err != nil {
			t.Fatal(err)
		}
		rule := &approval.Rule{ID: "rule_x", TableGlob: "*", Action: approval.RequireApproval, Operations: approval.AllOps, MaxRows: approval.NoMaxRows, Approvers: need, ApproverRole: approval.RoleEditor}
		a, _, _, err := c.Hold(t.Context(), catalog.NewApproval{Database: d, Requester: "tok_x", RequesterName: "x", Kind: "query", Request: []byte("{}"), Content: []byte("{}"), Fingerprint: [32]byte{print},
			Hits: []approval.Hit{{Rule: rule, Table: "t", Op: approval.Insert, Rows: -1}}, Lives: time.Hour, MaxPending: 10})
		if err != nil {
			t.Fatal(err)
		}
		return a.ID
	}
	vote := func(id, user string, yes bool) {
		t.Helper()
		if _, err := c.Decide(t.Context(), id, approval.Vote{UserID: user, Role: "owner", Approve: yes}, []approval.Count{}, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	waiting := func(want ...string) {
		t.Helper()
		list, err := c.WaitingDeliveries(t.Context(), w.ID, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range list {
			status := ""
			for _, s := range []string{"pending", "approved", "denied", "expired"} {
				if strings.Contains(string(m.Content), `"status":"`+s+`"`) {
					status = s
				}
			}
			got = append(got, m.Type+" "+status)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("waiting\n\t%v\nwant\n\t%v", got, want)
		}
	}
	queued := c.Queued()
	one, two, _ := ask(1, 1), ask(2, 2), ask(3, 1)
	if c.Queued() == queued {
		t.Error("nothing says that messages were queued")
	}
	asked := []string{"approval.required pending", "approval.required pending", "approval.required pending"}
	waiting(asked...)
	vote(one, "usr_a", false)
	waiting(append(asked, "approval.resolved denied")...)
	vote(two, "usr_a", true)
	waiting(append(asked, "approval.resolved denied")...) // half of it
	vote(two, "usr_b", true)
	waiting(append(asked, "approval.resolved denied", "approval.resolved approved")...)
	clock.Advance(2 * time.Hour)
	if _, err := c.SweepApprovals(t.Context()); err != nil {
		t.Fatal(err)
	}
	waiting(append(asked, "approval.resolved denied", "approval.resolved approved", "approval.resolved expired", "approval.resolved expired")...) // the one that nobody redeemed, too
	if list, err := c.WaitingDeliveries(t.Context(), other.ID, 0, 100); len(list) != 0 || err != nil {
		t.Errorf("one that wants to know of rows is told %v %v", list, err)
	}
}
