package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
)

// Rules hang on their database, survive a restart and the trash, and are bounded; a copy begins without.
func TestRules(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	d := mustDatabase(t, c, ns, "shop")
	if d.Rules != nil {
		t.Fatal("a new database has rules")
	}
	r, err := c.CreateRule(t.Context(), d.ID, approval.Rule{TableGlob: "prod_*", Action: approval.Deny, MaxRows: 5, Operations: approval.Delete, Approvers: 2, Note: "n", Locked: true, ExcludeRequester: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateRule(t.Context(), d.ID, approval.Rule{TableGlob: "x"}); !errors.Is(err, approval.ErrAction) {
		t.Errorf("a bad rule: %v", err)
	}
	c = reopen(t, c, clock, path)
	if d, err = c.DatabaseByID(d.ID); err != nil || d.Rules == nil || len(d.Rules.All) != 1 {
		t.Fatalf("after a restart: %v, %v", d, err)
	}
	got := d.Rules.All[0]
	if got.ID != r.ID || got.TableGlob != "prod_*" || got.Action != approval.Deny || got.MaxRows != 5 || got.Operations != approval.Delete || got.Approvers != 2 || got.Note != "n" || !got.Locked || !got.ExcludeRequester || !got.Matches("PROD_x") {
		t.Errorf("got %+v", got)
	}
	if _, err := c.DeleteDatabase(t.Context(), d.ID, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	if trashed, err := c.Trashed(d.ID); err != nil || trashed.Rules == nil {
		t.Errorf("in the trash: %v, %v", trashed, err)
	}
	other := mustDatabase(t, c, ns, "other")
	for i := range approval.MaxRules {
		if _, err := c.CreateRule(t.Context(), other.ID, approval.Rule{TableGlob: fmt.Sprint(i), Action: approval.Deny, MaxRows: approval.NoMaxRows}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.CreateRule(t.Context(), other.ID, approval.Rule{TableGlob: "more", Action: approval.Deny}); !errors.Is(err, catalog.ErrTooManyRules) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := c.DeleteRule(t.Context(), other.ID, r.ID, ""); !errors.Is(err, catalog.ErrRuleNotFound) {
		t.Errorf("another database's rule: %v", err)
	}
}

// A rule that came after the rules were asked stops the end of a namespace; so does one that went, and another database's.
func TestDeletedNamespaceWasAskedByItsRules(t *testing.T) {
	c, _, _ := fresh(t)
	ctx := t.Context()
	ns := mustNamespace(t, c, "acme")
	d := mustDatabase(t, c, ns, "shop")
	end := func(judged map[string]*approval.Rules) error {
		_, err := c.DeleteNamespace(ctx, catalog.Deletion{NamespaceID: ns.ID, Force: true, Judged: judged})
		return err
	}
	now := func() map[string]*approval.Rules {
		judged := map[string]*approval.Rules{}
		for _, d := range c.DatabasesOf(ns.ID) {
			judged[d.ID] = d.Rules
		}
		return judged
	}
	before := now()
	r, err := c.CreateRule(ctx, d.ID, approval.Rule{TableGlob: "t", Action: approval.Deny, MaxRows: approval.NoMaxRows})
	if err != nil {
		t.Fatal(err)
	}
	ruled := now()
	if err := end(before); !errors.Is(err, catalog.ErrRulesChanged) {
		t.Errorf("a rule more: %v", err)
	}
	if _, err := c.DeleteRule(ctx, d.ID, r.ID, ""); err != nil {
		t.Fatal(err)
	}
	if err := end(ruled); !errors.Is(err, catalog.ErrRulesChanged) {
		t.Errorf("a rule less: %v", err)
	}
	another := now()
	late := mustDatabase(t, c, ns, "late")
	if _, err := c.CreateRule(ctx, late.ID, approval.Rule{TableGlob: "t", Action: approval.Deny, MaxRows: approval.NoMaxRows}); err != nil {
		t.Fatal(err)
	}
	if err := end(another); !errors.Is(err, catalog.ErrRulesChanged) {
		t.Errorf("a database more: %v", err)
	}
	if err := end(now()); err != nil {
		t.Error(err)
	}
}

func heldWrite(d *catalog.Database, what string) catalog.NewApproval {
	n := catalog.NewApproval{Database: d, Requester: "tok_a", RequesterName: "agent", Kind: "query", Request: []byte(what), Content: []byte(`{"sql":"` + what + `"}`), SQL: what,
		Hits:  []approval.Hit{{Rule: &approval.Rule{ID: "rule_x", TableGlob: "t", Action: approval.RequireApproval, MaxRows: approval.NoMaxRows, Approvers: 1, ApproverRole: "editor"}, Table: "t", Op: approval.Delete, Rows: -1}},
		Lives: time.Hour, MaxPending: 3}
	copy(n.Fingerprint[:], what)
	return n
}

// An approval from its making to its end, by the clock.
func TestApprovals(t *testing.T) {
	c, clock, path := fresh(t)
	d := mustDatabase(t, c, mustNamespace(t, c, "acme"), "shop")
	ctx := t.Context()
	a, token, made, err := c.Hold(ctx, heldWrite(d, "one"))
	if err != nil || !made {
		t.Fatal(err)
	}
	c = reopen(t, c, clock, path)
	if b, again, made, err := c.Hold(ctx, heldWrite(d, "one")); err != nil || made || again != token || b.ID != a.ID {
		t.Errorf("asked again: %v, %v, %v", again == token, made, err)
	}
	for _, what := range []string{"two", "three"} {
		if _, _, _, err := c.Hold(ctx, heldWrite(d, what)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, err := c.Hold(ctx, heldWrite(d, "four")); !errors.Is(err, catalog.ErrTooManyApprovals) {
		t.Errorf("one too many: %v", err)
	}
	// The key is lost: the next one to ask has another token, and the first opens nothing.
	if err := os.Remove(filepath.Join(filepath.Dir(path), "seal.key")); err != nil {
		t.Fatal(err)
	}
	c = reopen(t, c, clock, path)
	_, another, made, err := c.Hold(ctx, heldWrite(d, "one"))
	if err != nil || made || another == token {
		t.Errorf("without the key: the same token %v, made %v, %v", another == token, made, err)
	}
	if _, err := c.Approval(ctx, token); !errors.Is(err, catalog.ErrApprovalNotFound) {
		t.Errorf("the former token: %v", err)
	}
	// Racing decisions: one.
	var mu sync.Mutex
	var racers sync.WaitGroup
	outcomes := map[string]int{}
	for i := range 30 {
		racers.Go(func() {
			_, err := c.Decide(ctx, a.ID, approval.Vote{UserID: fmt.Sprint(i), Role: "editor", Approve: i%2 == 0}, nil, time.Minute)
			mu.Lock()
			defer mu.Unlock()
			outcomes[fmt.Sprint(errors.Is(err, approval.ErrDecided), err == nil)]++
		})
	}
	racers.Wait()
	if outcomes["false true"] != 1 || outcomes["true false"] != 29 {
		t.Errorf("racing decisions: %v", outcomes)
	}
	// Time: the pending ones end, and what they would have run is gone.
	clock.Advance(2 * time.Hour)
	ended, err := c.SweepApprovals(ctx)
	if err != nil || len(ended) < 2 {
		t.Errorf("%d ended, %v", len(ended), err)
	}
	list, err := c.Approvals(ctx, catalog.ApprovalQuery{DatabaseID: d.ID, Status: approval.Expired, Limit: 10})
	if err != nil || len(list) < 2 || list[0].Request != nil || list[0].Content != nil {
		t.Errorf("expired: %v, %v", list, err)
	}
	version := c.Version()
	if ended, err := c.SweepApprovals(ctx); err != nil || len(ended) != 0 || c.Version() != version {
		t.Errorf("another sweep: %d, %v", len(ended), err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{path, path + "-wal"} {
		if b, err := os.ReadFile(file); err == nil && (bytes.Contains(b, []byte(token)) || bytes.Contains(b, []byte(another))) {
			t.Errorf("%s has a token", file)
		}
	}
}

func TestProposals(t *testing.T) {
	c, clock, _ := fresh(t)
	d := mustDatabase(t, c, mustNamespace(t, c, "acme"), "shop")
	ctx := t.Context()
	p := catalog.Proposal{DatabaseID: d.ID, Requester: "tok_a", Request: []byte("x"), Estimate: -1, EstimatedBy: catalog.EstimateNone, ExpiresAt: clock.Now().Add(time.Minute)}
	token, err := c.Propose(ctx, p, d.NamespaceID, 1)
	if err != nil || !strings.HasPrefix(token, "pmut_") {
		t.Fatal(err)
	}
	if _, err := c.Propose(ctx, p, d.NamespaceID, 1); !errors.Is(err, catalog.ErrTooManyProposals) {
		t.Errorf("one too many: %v", err)
	}
	for _, bad := range [][3]string{{"pmut_x", "tok_a", d.ID}, {token, "tok_b", d.ID}, {token, "tok_a", "db_other"}} {
		if _, err := c.Proposal(ctx, bad[0], bad[1], bad[2]); !errors.Is(err, catalog.ErrProposal) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if got, err := c.Proposal(ctx, token, "tok_a", d.ID); err != nil || got.Estimate != -1 || string(got.Request) != "x" {
		t.Errorf("%+v, %v", got, err)
	}
	clock.Advance(time.Minute)
	if _, err := c.Proposal(ctx, token, "tok_a", d.ID); !errors.Is(err, catalog.ErrProposal) {
		t.Errorf("over its time: %v", err)
	}
}
