package e2e_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// seenOn is what a page of an approval says of the rows to the one who decides there, as its form sends it back; "" if it says nothing.
func seenOn(a *harness.Answer) string {
	m := regexp.MustCompile(`name="seen" value="([^"]*)"`).FindStringSubmatch(string(a.Raw))
	if m == nil {
		return ""
	}
	return html.UnescapeString(m[1])
}

// heldRows are a table that a rule holds, one that chooses its rows, and one whose key a write can hit or not.
func heldRows(o *office, rule body) *harness.DB {
	d := o.admin.DB("shop")
	d.Batch(true, "CREATE TABLE safe(id INTEGER PRIMARY KEY, v)", "CREATE TABLE free(id INTEGER PRIMARY KEY, v)", "CREATE TABLE keys(k PRIMARY KEY)",
		"INSERT INTO safe(v) VALUES('a'),('b'),('c'),('d')", "INSERT INTO free(v) VALUES(1)", "INSERT INTO keys VALUES('taken')").OK()
	r := body{"tableGlob": "safe", "action": "require_approval"}
	for k, v := range rule {
		r[k] = v
	}
	o.rule(d, r)
	return d
}

// Nobody approves a write of which nobody knows how many rows it changes without saying so: whoever asks can make the count fail, and then not the write.
func TestApprovedWithoutACount(t *testing.T) {
	row(t, "DP-APR-13")
	o := newOffice(t)
	d := heldRows(o, nil)
	held := []any{"INSERT INTO keys VALUES('taken')", "DELETE FROM safe WHERE id IN (SELECT v FROM free)"}
	redeem := func(token string) *harness.Answer {
		return o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token})
	}
	for _, form := range []bool{false, true} {
		token := holds(d.Batch(false, held...))
		path := "/approve/" + token
		page := o.boss.Get(path)
		showsPage(t, page, http.StatusOK, "it fails now", "You don't see how many rows this changes.", "any number of rows is approved with it", "Approve it without knowing how many rows it changes")
		if seen := seenOn(page); seen != "" {
			t.Errorf("the page has a count: %s", seen)
		}
		approve := url.Values{"decision": {"approve"}, "reason": {"I mean <it>"}}
		if form {
			showsPage(t, sendForm(o.boss.Client, path, approve), http.StatusConflict, "isn't known to you", "the page has a box for that", "I mean <it>", "Approve it without knowing")
			o.admin.Get(d.Path("approvals/"+token)).OK().Is("data.status", "pending").Is("data.approvalsGiven", "0").Is("data.estimatedAffectedRows", "null")
			approve.Set("unknown", "yes")
			leadsTo(t, sendForm(o.boss.Client, path, approve), path)
		} else {
			o.boss.Post("/api/approvals/"+token+"/approve", body{}).Fails(http.StatusConflict, "rows_unknown").Tells("unknownRows")
			o.admin.Get(d.Path("approvals/"+token)).OK().Is("data.status", "pending")
			o.boss.Post("/api/approvals/"+token+"/approve", body{"unknownRows": true}).OK().Is("data.status", "approved").Is("data.estimatedAffectedRows", "null")
		}
		o.admin.Get(d.Path("approvals/"+token)).OK().Is("data.status", "approved").Is("data.estimatedAffectedRows", "null")
		o.admin.Get("/v1/audit?action=approval.approved").OK().Is("data.0.metadata.rows", "null")
		// It is what was said: nothing bounds it.
		d.Must("DELETE FROM keys")
		if form {
			d.Must("INSERT INTO free(v) VALUES(2),(3)")
		}
		redeem(token).OK()
	}
	if n := d.One("SELECT group_concat(v) FROM safe"); n != "d" {
		t.Errorf("left: %s", n)
	}
	// To deny takes no tick, and where the number is known there is no box.
	token := holds(d.Batch(false, held...))
	leadsTo(t, sendForm(o.boss.Client, "/approve/"+token, url.Values{"decision": {"deny"}, "reason": {""}}), "/approve/"+token)
	token = holds(d.Query("DELETE FROM safe"))
	page := o.boss.Get("/approve/" + token)
	if text := string(page.Raw); seenOn(page) == "" || strings.Contains(text, `name="unknown"`) {
		t.Errorf("a write whose rows are known: %s", text)
	}
	o.approve(token).OK().Is("data.estimatedAffectedRows", "1")
	o.admin.Get("/v1/audit?action=approval.approved").OK().Is("data.0.metadata.rows", "1")
	// Nor where the rules are gone meanwhile, which a member may do.
	token = holds(d.Query("DELETE FROM safe WHERE id > 0"))
	head := enrol(t, o.s, "head@example.com", "default", "admin")
	head.Do(http.MethodDelete, "/api/namespaces/default/databases/shop/approval-rules/"+d.Get(d.Path("approval-rules")).OK().Str("data.0.id"), nil).OK()
	o.approve(token).OK().Is("data.estimatedAffectedRows", "0")
}

// Of two people who saw different numbers the least counts, whoever saw it: an approval of one row is none of three.
func TestEachApproverIsHeard(t *testing.T) {
	row(t, "DP-APR-12", "DP-APR-13")
	for name, then := range map[string][]string{
		"more, seen by the second":             {"INSERT INTO free(v) VALUES(2),(3)"},
		"not to be counted for the second":     {"DELETE FROM keys", "INSERT INTO keys VALUES('new')"},
		"the same, and more when it is to run": nil,
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t)
			second := enrol(t, o.s, "second@example.com", "default", "editor")
			d := heldRows(o, body{"approvers": 2})
			token := holds(d.Batch(false, "INSERT INTO keys VALUES('new')", "DELETE FROM safe WHERE id IN (SELECT v FROM free)"))
			o.approve(token).OK().Is("data.status", "pending").Is("data.estimatedAffectedRows", "1")
			for _, sql := range then {
				d.Must(sql)
			}
			second.Post("/api/approvals/"+token+"/approve", body{"unknownRows": true}).OK().Is("data.status", "approved").Is("data.estimatedAffectedRows", "1")
			d.Must("DELETE FROM keys")
			d.Must("INSERT OR IGNORE INTO free(id, v) VALUES(2, 2),(3, 3)")
			o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).Fails(http.StatusConflict, "approval_mismatch")
			if n := d.One("SELECT count(*) FROM safe"); n != "4" {
				t.Errorf("%s rows are left", n)
			}
		})
	}
}

// Whom policies bind is told of no rows, neither as an approver nor as the one who asked; what they approve is bounded all the same.
func TestApprovedByWhomPoliciesBind(t *testing.T) {
	row(t, "DP-APR-13")
	o := newOffice(t)
	d := heldRows(o, body{"operations": []string{"delete"}})
	d.Post(d.Path("policies"), body{"name": "all", "tableName": "free", "expression": "1"}).OK()
	secret := o.admin.Post("/v1/tokens", body{"name": "agent", "role": "readwrite"}).OK().Str("data.token")
	agent := o.admin.As(secret).DB("shop")
	for _, countable := range []bool{true, false} {
		if !countable {
			d.Must("CREATE TRIGGER no BEFORE DELETE ON safe BEGIN SELECT RAISE(ABORT, 'not now') WHERE (SELECT count(*) FROM keys) > 0; END")
		}
		token := holds(agent.Query("DELETE FROM safe WHERE id IN (SELECT v FROM free)"))
		showsPage(t, o.boss.Get("/approve/"+token), http.StatusOK, "row-level policies bind your role", "You don't see how many rows this changes.")
		o.boss.Post("/api/approvals/"+token+"/approve", body{}).Fails(http.StatusConflict, "rows_unknown") // whether or not it can be counted
		o.boss.Post("/api/approvals/"+token+"/approve", body{"unknownRows": true}).OK()
		if !countable {
			break
		}
		agent.Get(agent.Path("approvals/"+token)).OK().Is("data.estimatedAffectedRows", "null")
		d.Get(d.Path("approvals/"+token)).OK().Is("data.estimatedAffectedRows", "1")
		d.Must("INSERT INTO free(v) VALUES(2),(3)")
		refusal := agent.Post(agent.Path("redeem_approval"), body{"approvalToken": token})
		refusal.Fails(http.StatusConflict, "approval_mismatch").Says(`The write would change more rows of table "safe" than when it was approved; nothing was changed`)
		d.Post(d.Path("redeem_approval"), body{"approvalToken": token}).Fails(http.StatusConflict, "approval_mismatch")
		d.Must("DELETE FROM free WHERE v > 1")
	}
}
