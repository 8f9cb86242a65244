package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// office is a server with somebody who decides.
type office struct {
	s     *harness.Server
	admin *harness.Client
	boss  *person // an editor of the namespace default
}

func newOffice(t testing.TB, env ...string) *office {
	t.Helper()
	s := people(t, env...)
	return &office{s, s.Client(t, harness.Token), enrol(t, s, "boss@example.com", "default", "editor")}
}

// rule makes an approval rule and returns its id.
func (o *office) rule(d *harness.DB, r body) string {
	return o.admin.Post(d.Path("approval-rules"), r).OK().Str("data.id")
}

// holds checks that an answer says that people have to approve, and returns the approval's token.
func holds(a *harness.Answer) string {
	a.Fails(http.StatusForbidden, "approval_required").Says("Statement requires human approval before it can run")
	token := a.Str("approvalToken")
	if !strings.HasPrefix(token, "appr_") || !strings.HasSuffix(a.Str("approvalUrl"), "/approve/"+token) {
		panic(fmt.Sprintf("%s: token %q, URL %q", a.What, token, a.Str("approvalUrl")))
	}
	return token
}

func (o *office) approve(token string) *harness.Answer {
	return o.boss.Post("/api/approvals/"+token+"/approve", body{"reason": "fine"})
}

func TestApprovalFromHoldToRedeem(t *testing.T) {
	row(t, "DP-APR-1", "DP-APR-2", "DP-APR-3", "DP-APR-4")
	o := newOffice(t)
	d := o.admin.DB("shop")
	d.Batch(true, "CREATE TABLE production_users(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT)", "INSERT INTO production_users(name) VALUES('ann'),('bob'),('cid')").OK()
	o.rule(d, body{"tableGlob": "production_*", "action": "require_approval", "note": "ask the boss"})

	agent := o.admin.Post("/v1/tokens", body{"name": "agent", "role": "readwrite"}).OK()
	mine := o.admin.As(agent.Str("data.token"))
	md := mine.DB("shop")
	held := md.Query("DELETE FROM production_users WHERE id > ?", 1)
	token := holds(held)
	held.Is("hits.0.tableGlob", "production_*").Is("hits.0.action", "require_approval").Is("hits.0.matchedTable", "production_users").Is("hits.0.note", "ask the boss")
	if again := holds(md.Query("DELETE FROM production_users WHERE id > ?", 1)); again != token {
		t.Errorf("a retry got the token %s, want %s", again, token)
	}
	if other := holds(md.Query("DELETE FROM production_users WHERE id > ?", 2)); other == token {
		t.Error("another parameter got the same approval")
	}
	if n := md.One("SELECT count(*) FROM production_users"); n != "3" {
		t.Errorf("%s rows after a held DELETE", n)
	}
	a := mine.Get(d.Path("approvals/" + token)).OK()
	a.Is("data.status", "pending").Is("data.sql", "DELETE FROM production_users WHERE id > ?").Is("data.params", "[1]").Is("data.requestedBy.name", "agent")
	mine.Post(d.Path("approvals/"+token+"/redeem"), nil).Fails(http.StatusConflict, "approval_pending")

	// Neither a token nor a viewer decides.
	mine.Post("/api/approvals/"+token+"/approve", body{}).Fails(http.StatusUnauthorized, "unauthorized")
	viewer := enrol(t, o.s, "viewer@example.com", "default", "viewer")
	viewer.Post("/api/approvals/"+token+"/approve", body{}).Fails(http.StatusForbidden, "role_not_allowed")
	stranger := enrol(t, o.s, "stranger@example.com", "", "")
	stranger.Post("/api/approvals/"+token+"/approve", body{}).Fails(http.StatusNotFound, "not_found")

	o.approve(token).OK().Is("data.status", "approved").Is("data.decidedBy", "boss@example.com").Is("data.reason", "fine")
	o.approve(token).Fails(http.StatusConflict, "already_decided")
	other := o.admin.Post("/v1/tokens", body{"name": "other", "role": "readwrite"}).OK().Str("data.token")
	o.admin.As(other).Post(d.Path("redeem_approval"), body{"approvalToken": token}).Fails(http.StatusNotFound, "not_found")
	mine.Post(d.Path("redeem_approval"), body{"approvalToken": token}).OK().Is("data.changes", "2")
	mine.Post(d.Path("redeem_approval"), body{"approvalToken": token}).Fails(http.StatusNotFound, "not_found")
	if n := md.One("SELECT count(*) FROM production_users"); n != "1" {
		t.Errorf("%s rows after it was redeemed", n)
	}
	mine.Get(d.Path("approvals/"+token)).OK().Is("data.status", "redeemed")
	if n := len(o.admin.Get(d.Path("approvals?status=pending")).OK().List("data")); n != 1 {
		t.Errorf("%d pending approvals, want 1", n)
	}
	page := o.boss.Get("/approve/" + token)
	if page.Status != http.StatusOK || !strings.Contains(string(page.Raw), "DELETE FROM production_users") {
		t.Errorf("the page: %d", page.Status)
	}
	// With a denial it is over.
	second := holds(md.Query("DELETE FROM production_users"))
	page = o.boss.Get("/approve/" + second)
	for _, want := range []string{"1 row would change now", "ask the boss", "ann", "SCAN production_users"} {
		if !strings.Contains(string(page.Raw), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := md.One("SELECT count(*) FROM production_users"); n != "1" {
		t.Errorf("%s rows after the page was looked at", n)
	}
	o.boss.Post("/api/approvals/"+second+"/deny", body{"reason": "no"}).OK().Is("data.status", "denied")
	mine.Post(d.Path("approvals/"+second+"/redeem"), nil).Fails(http.StatusForbidden, "approval_denied")

	// The rights are those of the moment.
	third := holds(md.Query("DELETE FROM production_users WHERE 1"))
	o.approve(third).OK()
	o.admin.Do("DELETE", "/v1/tokens/"+agent.Str("data.id"), nil).OK()
	o.admin.Post(d.Path("approvals/"+third+"/redeem"), nil).Fails(http.StatusForbidden, "requester_not_allowed")
}

func TestProposeAndApply(t *testing.T) {
	row(t, "DP-PRO-1", "DP-PRO-2")
	o := newOffice(t)
	d := o.admin.DB("shop")
	d.Batch(true, "CREATE TABLE events(id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER)", "CREATE TABLE log(id INTEGER PRIMARY KEY)",
		"CREATE TRIGGER logged AFTER DELETE ON events BEGIN INSERT INTO log VALUES(old.id); END",
		"INSERT INTO events(at) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 500) SELECT i FROM n").OK()
	before := o.admin.Get(d.Path("bookmark")).OK().Str("data.bookmark")
	p := o.admin.Post(d.Path("propose"), harness.Body("DELETE FROM events WHERE at <= ?", 120)).OK()
	p.Is("data.action", "write").Is("data.estimatedAffectedRows", "120").Is("meta.estimate", "exact").Is("data.plan.0.3", "SCAN events")
	if after := o.admin.Get(d.Path("bookmark")).OK().Str("data.bookmark"); after != before {
		t.Errorf("a proposal made a commit: %s, then %s", before, after)
	}
	if n := d.One("SELECT count(*) FROM events"); n != "500" {
		t.Errorf("%s rows after a proposal", n)
	}
	token := body{"executionToken": p.Str("data.executionToken")}
	other := o.admin.Post("/v1/tokens", body{"name": "other"}).OK().Str("data.token")
	o.admin.As(other).Post(d.Path("apply"), token).Fails(http.StatusNotFound, "not_found")
	o.admin.Post(d.Path("apply"), token).OK().Is("data.changes", "120").Is("meta.drift.schema", "false").Is("meta.drift.estimate", "false")
	o.admin.Post(d.Path("apply"), token).Fails(http.StatusNotFound, "not_found")
	for sql, want := range map[string]string{"SELECT * FROM events": "read", "CREATE TABLE x(a)": "ddl", "INSERT INTO events(at) VALUES(1),(2)": "write"} {
		o.admin.Post(d.Path("propose"), harness.Body(sql)).OK().Is("data.action", want)
	}
	p = o.admin.Post(d.Path("propose"), harness.Body("UPDATE events SET at = 0")).OK().Is("data.estimatedAffectedRows", "380")
	d.Must("ALTER TABLE events ADD COLUMN x")
	d.Must("DELETE FROM events WHERE id < 400")
	o.admin.Post(d.Path("apply"), body{"executionToken": p.Str("data.executionToken")}).OK().Is("meta.drift.schema", "true").Is("meta.drift.estimate", "true")
	o.admin.Post(d.Path("propose"), body{"sql": "SELECT 1", "ttlSec": 3601}).Fails(http.StatusBadRequest, "bad_request")

	// A rule holds what is applied, and the proposal is not used up.
	o.rule(d, body{"tableGlob": "EVENTS", "action": "require_approval"})
	p = o.admin.Post(d.Path("propose"), harness.Body("DELETE FROM events")).OK()
	token = body{"executionToken": p.Str("data.executionToken")}
	held := holds(o.admin.Post(d.Path("apply"), token))
	if again := holds(o.admin.Post(d.Path("apply"), token)); again != held {
		t.Error("another approval for the same apply")
	}
}

// heldRow has an INSERT into a table held, by a rule that is made if need be. path is that of the database's calls.
func heldRow(c *harness.Client, path string) *harness.Answer {
	c.Post(path+"query", harness.Body("CREATE TABLE IF NOT EXISTS held_rows(a)"))
	if len(c.Get(path+"approval-rules").OK().List("data")) == 0 || c.Post(path+"query", harness.Body("INSERT INTO held_rows VALUES('probe')")).Status == http.StatusOK {
		c.Post(path+"approval-rules", body{"tableGlob": "held_rows", "action": "require_approval", "operations": []string{"insert"}}).OK()
	}
	return c.Post(path+"query", harness.Body("INSERT INTO held_rows VALUES(?)", unused())).Fails(http.StatusForbidden, "approval_required")
}

// The calls that only who made what they name can make, by members.
func TestTwinsOfApprovals(t *testing.T) {
	row(t, "DP-TWIN-1")
	o := newOffice(t)
	head := enrol(t, o.s, "head@example.com", "default", "admin")
	o.admin.DB("shop").Must("CREATE TABLE t(a)")
	path := "/api/namespaces/default/databases/shop/"
	token := head.Post(path+"propose", harness.Body("INSERT INTO t VALUES(1)")).OK().Str("data.executionToken")
	o.boss.Post(path+"apply", body{"executionToken": token}).Fails(http.StatusNotFound, "not_found")
	head.Post(path+"apply", body{"executionToken": token}).OK().Is("data.changes", "1")
	a := heldRow(head.Client, path)
	approval := a.Str("approvalToken")
	head.Get(path+"approvals/"+approval).OK().Is("data.requestedBy.name", "head@example.com")
	o.boss.Get(path+"approvals/"+approval).Fails(http.StatusNotFound, "not_found")
	o.approve(approval).OK()
	head.Post(path+"approvals/"+approval+"/redeem", nil).OK()
	head.Post(path+"approvals/"+approval+"/redeem", nil).Fails(http.StatusNotFound, "not_found")
	approval = heldRow(head.Client, path).Str("approvalToken")
	o.approve(approval).OK()
	head.Post(path+"redeem_approval", body{"approvalToken": approval}).OK()
	head.Post(path+"redeem_approval", body{"approvalToken": approval}).Fails(http.StatusNotFound, "not_found")
	// A member who has become less may run less.
	approval = heldRow(head.Client, path).Str("approvalToken")
	o.approve(approval).OK()
	enrol(t, o.s, "owner@example.com", "default", "owner").Do("PATCH", "/api/namespaces/default/members/"+head.id, body{"role": "viewer"}).OK()
	o.admin.Post("/v1/db/default/shop/redeem_approval", body{"approvalToken": approval}).Fails(http.StatusForbidden, "role_not_allowed")
	none := o.s.Client(t, "")
	for _, call := range []string{"propose", "apply", "redeem_approval", "approvals/x/redeem"} {
		signedOut(t, none.Post(path+call, body{"sql": "SELECT 1", "executionToken": "x", "approvalToken": "x"}))
	}
	signedOut(t, none.Get(path+"approvals/x"))
}

// What takes too long to try out is counted, and what takes too long to count is left open; nothing of either stays, and others are served.
func TestProposeWithinBounds(t *testing.T) {
	row(t, "DP-PRO-1")
	o := newOffice(t)
	d := o.admin.DB("large")
	d.Batch(true, "CREATE TABLE big(id INTEGER PRIMARY KEY, v INTEGER)", "CREATE TABLE log(v INTEGER)",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 700000) INSERT INTO big SELECT i, i FROM n").OK()
	before := o.admin.Get(d.Path("bookmark")).OK().Str("data.bookmark")
	for _, c := range []struct {
		body     body
		by, rows string
	}{
		{harness.Body("DELETE FROM big"), "exact", "700000"}, // which truncates
		{harness.Body("DELETE FROM big WHERE v > 0"), "counted", "700000"},
		{harness.Body("DELETE FROM big AS b WHERE b.v > ? RETURNING id", 100), "counted", "699900"},
		{harness.Body("UPDATE big SET v = v + ?, id = id + ? WHERE v <= ? AND 1", 1, 1000000, 690000), "counted", "690000"},
		{harness.Body("INSERT INTO log SELECT a.v FROM big a, big b"), "none", "null"},
		{harness.Body("WITH x AS (SELECT 1) DELETE FROM big WHERE v > 0"), "none", "null"},
		{harness.Body("DELETE FROM big WHERE id = ?", 7), "exact", "1"},
	} {
		a := o.admin.Post(d.Path("propose"), c.body).OK()
		a.Is("meta.estimate", c.by).Is("data.estimatedAffectedRows", c.rows).Is("meta.rowsWritten", "0")
	}
	// The page looks ahead within the same bounds.
	o.rule(d, body{"tableGlob": "log", "action": "require_approval"})
	token := holds(d.Query("INSERT INTO log SELECT a.v FROM big a, big b"))
	if page := o.boss.Get("/approve/" + token); !strings.Contains(string(page.Raw), "it takes too long to find out") {
		t.Errorf("the page of what takes too long: %d %s", page.Status, harness.Tail(string(page.Raw), 2000))
	}
	if after := o.admin.Get(d.Path("bookmark")).OK().Str("data.bookmark"); after != before {
		t.Errorf("proposals made commits: %s, then %s", before, after)
	}
	if n := d.One("SELECT count(*) || ' ' || sum(v) FROM big"); n != "700000 245000350000" {
		t.Errorf("after proposals: %s", n)
	}
}

// Requests about approvals that can't be understood.
func TestBadApprovals(t *testing.T) {
	row(t, "DP-APR-8", "DP-PRO-2", "DP-RUL-1")
	o := newOffice(t)
	d := o.admin.DB("shop")
	d.Must("CREATE TABLE t(a)")
	id := o.rule(d, body{"tableGlob": "t", "action": "require_approval"})
	token := holds(d.Query("INSERT INTO t VALUES(1)"))
	for _, word := range []string{"approve", "deny"} {
		o.boss.Post("/api/approvals/"+token+"/"+word, harness.Raw(`{"reason": 1}`)).Fails(http.StatusBadRequest, "bad_request")
		o.boss.Post("/api/approvals/"+token+"/"+word, body{"reason": strings.Repeat("é", 501)}).Fails(http.StatusBadRequest, "bad_request")
		o.boss.Post("/api/approvals/"+token+"/"+word, body{"reason": strings.Repeat("x", 70_000)}).Fails(http.StatusRequestEntityTooLarge, "request_too_large")
		o.boss.Post("/api/approvals/appr_nobodys/"+word, body{}).Fails(http.StatusNotFound, "not_found")
		// A page of another site decides nothing.
		o.boss.Post("/api/approvals/"+token+"/"+word, body{}, "Sec-Fetch-Site: cross-site").Fails(http.StatusForbidden, "forbidden")
	}
	o.admin.Get(d.Path("approvals/"+token)).OK().Is("data.status", "pending")
	o.admin.Post(d.Path("apply"), harness.Raw(`[]`)).Fails(http.StatusBadRequest, "")
	o.admin.Get(d.Path("approvals?limit=0")).Fails(http.StatusBadRequest, "bad_request")
	o.admin.Get(d.Path("approvals?status=open")).Fails(http.StatusBadRequest, "bad_request")
	o.admin.Do("DELETE", d.Path("approval-rules/"+id), nil, "Plan-Key: x").Fails(http.StatusBadRequest, "invalid_idempotency_key")
	o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}, "Idempotency-Key: x").Fails(http.StatusBadRequest, "invalid_idempotency_key")
	for _, bad := range []body{{"action": "deny"}, {"tableGlob": "x", "action": "allow"}, {"tableGlob": "x", "action": "deny", "operations": []string{"select"}}, {"tableGlob": "x", "action": "deny", "maxRows": -1},
		{"tableGlob": "x", "action": "deny", "approvers": 11}, {"tableGlob": "x", "action": "deny", "approvers": "viewer"}, {"tableGlob": "x", "action": "deny", "note": strings.Repeat("x", 501)}} {
		o.admin.Post(d.Path("approval-rules"), bad).Fails(http.StatusBadRequest, "invalid_rule")
	}
	// More than can be kept isn't held, and hasn't run.
	large := make([]any, 100)
	for i := range large {
		large[i] = harness.Body("INSERT INTO t VALUES(?)", strings.Repeat("x", 20_000))
	}
	o.admin.Post(d.Path("batch"), body{"statements": large}).Fails(http.StatusRequestEntityTooLarge, "held_write_too_large")
	if n := d.One("SELECT count(*) FROM t"); n != "0" {
		t.Errorf("%s rows", n)
	}
}
