package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// The doors that no statement goes through ask the rules too.
func TestHeldDoors(t *testing.T) {
	row(t, "DP-RUL-5", "DP-RUL-6", "DP-RUL-7", "DP-APR-7")
	o := newOffice(t)
	d := o.admin.DB("shop")
	d.Batch(true, "CREATE TABLE safe(id INTEGER PRIMARY KEY, v)", "CREATE TABLE free(id INTEGER PRIMARY KEY, v)", "INSERT INTO safe(v) VALUES('a'),('b')").OK()
	bookmark := d.Must("INSERT INTO safe(v) VALUES('c')").Str("meta.bookmark")
	d.Must("INSERT INTO safe(v) VALUES('d')")
	count := func(want string) {
		t.Helper()
		if n := d.One("SELECT count(*) FROM safe"); n != want {
			t.Fatalf("%s rows, want %s", n, want)
		}
	}
	id := o.rule(d, body{"tableGlob": "safe", "action": "require_approval", "maxRows": 100})

	t.Run("restore", func(t *testing.T) {
		token := holds(o.admin.Post(d.Path("restore"), body{"bookmark": bookmark}))
		count("4")
		o.approve(token).OK()
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).OK().Is("data.restoredTo", bookmark)
		count("3")
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).Fails(http.StatusNotFound, "not_found")
	})
	t.Run("import", func(t *testing.T) {
		sql := harness.Raw("INSERT INTO safe(v) VALUES('i');")
		token := holds(o.admin.Do("POST", d.Path("import"), sql))
		count("3")
		present := harness.Header("X-Approval-Token: " + token)
		o.admin.Do("POST", d.Path("import"), sql, present).Fails(http.StatusConflict, "approval_pending")
		o.approve(token).OK()
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).Fails(http.StatusBadRequest, "bad_request")
		o.admin.Do("POST", d.Path("import"), harness.Raw("DELETE FROM safe;"), present).Fails(http.StatusConflict, "approval_mismatch")
		count("3")
		o.admin.Do("POST", d.Path("import"), sql, present).OK()
		count("4")
		o.admin.Do("POST", d.Path("import"), sql, present).Fails(http.StatusNotFound, "not_found")
		count("4")
	})
	t.Run("load-csv", func(t *testing.T) {
		o.rule(d, body{"tableGlob": "free", "action": "require_approval"})
		csv := harness.Raw("v\nx\ny\n")
		path := d.Path("load-csv?table=free&mode=append")
		token := holds(o.admin.Do("POST", path, csv))
		o.approve(token).OK()
		present := harness.Header("X-Approval-Token: " + token)
		o.admin.Do("POST", d.Path("load-csv?table=safe&mode=append"), csv, present).Fails(http.StatusConflict, "approval_mismatch")
		o.admin.Do("POST", path, csv, present).OK().Is("data.rowsInserted", "2")
		o.admin.Do("POST", path, csv, present).Fails(http.StatusNotFound, "not_found")
		if n := d.One("SELECT count(*) FROM free"); n != "2" {
			t.Errorf("%s rows of CSV", n)
		}
	})
	t.Run("merge", func(t *testing.T) {
		branch := o.admin.Post(d.Path("claim_branch"), body{"ref": "work", "content": "full"}).OK()
		b := o.admin.DB("shop.work")
		_ = branch
		b.Must("INSERT INTO safe(v) SELECT 'm' FROM pragma_table_list LIMIT 1")
		b.Must("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 101) INSERT INTO safe(v) SELECT i FROM n")
		b.Must("CREATE TABLE safe_2(a)") // the rule is for "safe" alone
		o.admin.Get(d.Path("branches/work/preview?mode=full")).OK().Is("data.rowsInserted", "102")
		token := holds(o.admin.Post(d.Path("branches/work/merge"), body{"mode": "full"}))
		count("4")
		o.approve(token).OK()
		b.Must("INSERT INTO free(v) VALUES('later')")
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).Fails(http.StatusConflict, "approval_mismatch")
		count("4")
		token = holds(o.admin.Post(d.Path("branches/work/merge"), body{"mode": "full"}))
		o.approve(token).OK()
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).OK().Is("data.applied", "true").Is("data.rowsInserted", "103")
		count("106")
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).Fails(http.StatusNotFound, "not_found")
		// The plan alone: a table that a rule is about.
		b.Must("ALTER TABLE safe ADD COLUMN more")
		holds(o.admin.Post(d.Path("merge_branch"), body{"ref": "work"}))
		o.admin.Do("DELETE", d.Path("branches/work"), nil).OK()
	})
	t.Run("a branch with rules of its own", func(t *testing.T) {
		o.admin.Post(d.Path("claim_branch"), body{"ref": "ruled", "content": "full"}).OK()
		b := o.admin.DB("shop.ruled")
		b.Must("DELETE FROM safe") // it begins without rules
		o.rule(b, body{"tableGlob": "free", "action": "require_approval"})
		holds(b.Query("DELETE FROM free"))
		o.admin.Post(d.Path("claim_branch"), body{"ref": "ruled", "content": "full"}).Fails(http.StatusForbidden, "approval_denied")
		token := holds(o.admin.Do("DELETE", d.Path("branches/ruled"), nil))
		holds(o.admin.Do("DELETE", "/v1/databases/shop?force=true", nil))
		o.approve(token).OK()
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).OK().Is("data.deleted", "true")
		o.admin.Get(d.Path("branches/ruled")).Fails(http.StatusNotFound, "not_found")
	})
	t.Run("a rule", func(t *testing.T) {
		token := holds(o.admin.Do("DELETE", d.Path("approval-rules/"+id), nil))
		o.boss.Do("DELETE", "/api/namespaces/default/databases/shop/approval-rules/"+id, nil).Fails(http.StatusForbidden, "role_not_allowed") // an editor
		o.approve(token).OK()
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).OK().Is("data.deleted", "true")
		o.admin.Do("DELETE", d.Path("approval-rules/"+id), nil).Fails(http.StatusNotFound, "not_found")
		locked := o.rule(d, body{"tableGlob": "x", "action": "deny", "locked": true})
		o.admin.Do("DELETE", d.Path("approval-rules/"+locked), nil).Fails(http.StatusForbidden, "rule_locked")
		head := enrol(t, o.s, "head@example.com", "default", "admin")
		made := head.Post("/api/namespaces/default/databases/shop/approval-rules", body{"tableGlob": "safe", "action": "deny"}).OK()
		made.Is("data.locked", "true")
		o.admin.Do("DELETE", d.Path("approval-rules/"+made.Str("data.id")), nil).Fails(http.StatusForbidden, "rule_locked")
		head.Do("DELETE", "/api/namespaces/default/databases/shop/approval-rules/"+made.Str("data.id"), nil).OK()
		head.Do("DELETE", "/api/namespaces/default/databases/shop/approval-rules/"+locked, nil).OK()
		o.admin.Post(d.Path("approval-rules"), body{"tableGlob": "", "action": "deny"}).Fails(http.StatusBadRequest, "invalid_rule")
		o.admin.Post(d.Path("approval-rules"), body{"tableGlob": "x", "action": "deny", "operation": []string{"insert"}}).Fails(http.StatusBadRequest, "bad_json")
	})
	t.Run("the database", func(t *testing.T) {
		deny := o.rule(d, body{"tableGlob": "safe", "action": "deny"})
		o.admin.Do("DELETE", "/v1/databases/shop", nil).Fails(http.StatusForbidden, "approval_denied")
		token := holds(o.admin.Do("DELETE", d.Path("approval-rules/"+deny), nil))
		o.approve(token).OK()
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).OK()
		token = holds(o.admin.Do("DELETE", "/v1/databases/shop", nil))
		o.approve(token).OK()
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).OK().Is("data.deleted", "true")
		o.admin.Get("/v1/databases/shop").Fails(http.StatusNotFound, "not_found")
	})
	for _, action := range []string{"approval.required", "approval.approved", "approval.redeemed", "approval.refused", "approval_rule.created", "approval_rule.deleted"} {
		if len(o.admin.Get("/v1/audit?action="+action).OK().List("data")) == 0 {
			t.Errorf("nothing of %s in the audit log", action)
		}
	}
}

// Four eyes: as many people as a rule asks for, of the role that it asks for, and not the one who asks.
func TestWhoApproves(t *testing.T) {
	row(t, "DP-APR-8")
	o := newOffice(t)
	d := o.admin.DB("shop")
	d.Batch(true, "CREATE TABLE two(a)", "CREATE TABLE top(a)", "CREATE TABLE mine(a)").OK()
	o.rule(d, body{"tableGlob": "two", "action": "require_approval", "approvers": 2})
	o.rule(d, body{"tableGlob": "top", "action": "require_approval", "approvers": "owner"})
	o.rule(d, body{"tableGlob": "mine", "action": "require_approval", "excludeRequester": true})
	second := enrol(t, o.s, "second@example.com", "default", "admin")
	owner := enrol(t, o.s, "owner@example.com", "default", "owner")
	votes := func(p *person, word, token string) *harness.Answer {
		return p.Post("/api/approvals/"+token+"/"+word, body{})
	}
	token := holds(d.Query("INSERT INTO two VALUES(1)"))
	votes(o.boss, "approve", token).OK().Is("data.status", "pending").Is("data.approvalsGiven", "1").Is("data.approvalsNeeded", "2")
	votes(o.boss, "approve", token).Fails(http.StatusConflict, "already_voted")
	o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).Fails(http.StatusConflict, "approval_pending")
	votes(second, "approve", token).OK().Is("data.status", "approved")
	o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).OK()
	token = holds(d.Query("INSERT INTO two VALUES(2)"))
	votes(o.boss, "approve", token).OK()
	votes(o.boss, "deny", token).OK().Is("data.status", "denied") // who thinks better of it

	token = holds(d.Query("INSERT INTO top VALUES(1)"))
	votes(o.boss, "approve", token).Fails(http.StatusForbidden, "role_not_allowed")
	votes(second, "approve", token).Fails(http.StatusForbidden, "role_not_allowed")
	votes(owner, "approve", token).OK().Is("data.status", "approved")

	// A token that a person made, and one that this one made, are that person's.
	made := second.Post("/api/namespaces/default/tokens", body{"name": "of second"}).OK().Str("data.token")
	child := o.admin.As(made).Post("/v1/tokens", body{"name": "child", "role": "readwrite"}).OK().Str("data.token")
	for i, secret := range []string{made, child} {
		token = holds(o.admin.As(secret).DB("shop").Query("INSERT INTO mine VALUES(?)", i))
		votes(second, "approve", token).Fails(http.StatusForbidden, "own_request")
		page := second.Get("/approve/" + token)
		if !strings.Contains(string(page.Raw), "A rule keeps whoever owns the requesting token") {
			t.Error("the page doesn't say why one may not decide")
		}
		votes(o.boss, "approve", token).OK().Is("data.status", "approved")
	}
	// The operator's token is nobody's that the server knows, and so are one that it made, and the command line's: any one who approves might be who asks, so it takes two.
	orphan := o.admin.Post("/v1/tokens", body{"name": "orphan", "role": "readwrite"}).OK().Str("data.token")
	_, byHand := newToken(t, o.s, "--namespace", "default", "--name", "by hand")
	for i, secret := range []string{harness.Token, orphan, byHand} {
		token = holds(o.admin.As(secret).DB("shop").Query("INSERT INTO mine VALUES(?)", 100+i))
		showsPage(t, second.Get("/approve/"+token), http.StatusOK, "Nobody knows who that is, so one person more has to approve.", "2 people have to approve, you among them")
		votes(second, "approve", token).OK().Is("data.status", "pending").Is("data.approvalsNeeded", "2")
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).Fails(http.StatusConflict, "approval_pending")
		votes(second, "approve", token).Fails(http.StatusConflict, "already_voted")
		votes(o.boss, "approve", token).OK().Is("data.status", "approved")
	}
	// The token of a branch, of a handoff or of a user's database is whose its maker is.
	seconds := o.admin.As(made)
	branch := seconds.Post(d.Path("claim_branch"), body{"ref": "work", "content": "full"}).OK().Str("data.token")
	handed := o.admin.As("").Post("/v1/handoff", body{"token": seconds.Post(d.Path("branches/work/pin"), body{"role": "write"}).OK().Str("data.token")}).OK().Str("data.token")
	user := seconds.Post("/v1/users", body{"subject": "u1", "template": "shop"}).OK()
	theirs := user.Str("data.database.slug")
	for _, slug := range []string{"shop-work", theirs} {
		o.rule(o.admin.DB(slug), body{"tableGlob": "mine", "action": "require_approval", "excludeRequester": true})
	}
	for _, of := range [][2]string{{branch, "shop-work"}, {handed, "shop-work"}, {user.Str("data.token"), theirs}} {
		secret, slug := of[0], of[1]
		token = holds(o.admin.As(secret).DB(slug).Query("INSERT INTO mine VALUES(8)"))
		votes(second, "approve", token).Fails(http.StatusForbidden, "own_request")
		votes(o.boss, "approve", token).OK().Is("data.status", "approved")
	}
	// A member's own write by the console.
	token = holds(second.Post("/api/namespaces/default/databases/shop/query", harness.Body("INSERT INTO mine VALUES(7)")))
	votes(second, "approve", token).Fails(http.StatusForbidden, "own_request")
	votes(o.boss, "approve", token).OK()
	second.Post("/api/namespaces/default/databases/shop/redeem_approval", body{"approvalToken": token}).OK()
}

// Who waits for a decision has it when it is made.
func TestWaitForApproval(t *testing.T) {
	row(t, "DP-APR-9", "DP-APR-10")
	o := newOffice(t, "PERSQLD_MAX_APPROVALS=3")
	d := o.admin.DB("shop")
	d.Must("CREATE TABLE safe(a)")
	o.rule(d, body{"tableGlob": "*", "action": "require_approval"})
	token := holds(d.Query("INSERT INTO safe VALUES(1)"))
	o.admin.Get(d.Path("approvals/"+token+"?wait=26")).Fails(http.StatusBadRequest, "bad_request")
	answers := make(chan *harness.Answer, 20)
	for range cap(answers) {
		go func() {
			a, err := o.admin.Try("GET", d.Path("approvals/"+token+"?wait=25"), nil)
			if err != nil {
				a = nil
			}
			answers <- a
		}()
	}
	began := time.Now()
	o.approve(token).OK()
	for range cap(answers) {
		if a := <-answers; a == nil || a.Str("data.status") != "approved" {
			t.Errorf("who waited got %v", a)
		}
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("they waited %s", took)
	}
	// Pending ones are bounded.
	for i := range 3 {
		holds(d.Query("INSERT INTO safe VALUES(?)", 10+i))
	}
	d.Query("INSERT INTO safe VALUES(99)").Fails(http.StatusTooManyRequests, "too_many_approvals").Tells("PERSQLD_MAX_APPROVALS")
	holds(d.Query("INSERT INTO safe VALUES(?)", 10)) // which is one of them
}

// What is over its time is gone, but for the audit log's copy of the SQL.
func TestApprovalsExpire(t *testing.T) {
	row(t, "DP-APR-11")
	o := newOffice(t, "PERSQLD_APPROVAL_TIME=1s", "PERSQLD_REDEEM_TIME=1s", "PERSQLD_TRASH=0s")
	d := o.admin.DB("shop")
	d.Must("CREATE TABLE safe(a)")
	o.rule(d, body{"tableGlob": "*", "action": "require_approval"})
	token := holds(d.Query("INSERT INTO safe VALUES('the secret')"))
	approved := holds(d.Query("INSERT INTO safe VALUES('another secret')"))
	o.approve(approved).OK()
	deadline := time.Now().Add(20 * time.Second)
	for _, one := range []string{token, approved} {
		for o.admin.Get(d.Path("approvals/"+one+"?wait=1")).OK().Str("data.status") != "expired" {
			if time.Now().After(deadline) {
				t.Fatal("it doesn't end")
			}
		}
		o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": one}).Fails(http.StatusNotFound, "not_found")
		o.boss.Post("/api/approvals/"+one+"/approve", body{}).Fails(http.StatusConflict, "")
		o.admin.Get(d.Path("approvals/"+one)).OK().Is("data.sql", "null").Is("data.params", "null")
	}
	if got := o.admin.Get("/v1/audit?action=approval.required").OK().Str("data.1.metadata.sql"); got != "INSERT INTO safe VALUES('the secret')" {
		t.Errorf("the audit log has %q", got)
	}
	o.s.Stop(t)
	info, err := os.Stat(filepath.Join(o.s.Data, "seal.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v", info, err)
	}
	for _, secret := range []string{token, approved} {
		for _, file := range []string{"catalog.db", "catalog.db-wal"} {
			if b, err := os.ReadFile(filepath.Join(o.s.Data, file)); err == nil && strings.Contains(string(b), secret) {
				t.Errorf("%s has a token of an approval", file)
			}
		}
	}
}

// A crash after the write and before the catalog knows of it: the catalog of before the redeem takes the place of the one after it.
func TestRedeemedIsKnownFromTheFile(t *testing.T) {
	row(t, "DP-APR-6")
	dir := filepath.Join(t.TempDir(), "data")
	start := func() (*harness.Server, *harness.Client) {
		s := harness.Start(t, binary, harness.Options{Data: dir, Env: quick})
		return s, s.Client(t, harness.Token)
	}
	s, admin := start()
	boss := enrol(t, s, "boss@example.com", "default", "editor")
	d := admin.DB("shop")
	d.Must("CREATE TABLE ledger(id INTEGER PRIMARY KEY, n INTEGER)")
	admin.Post(d.Path("approval-rules"), body{"tableGlob": "ledger", "action": "require_approval"}).OK()
	looked := holds(d.Query("INSERT INTO ledger(n) VALUES(1)"))
	redeemed := holds(d.Query("INSERT INTO ledger(n) VALUES(2)"))
	for _, token := range []string{looked, redeemed} {
		boss.Post("/api/approvals/"+token+"/approve", body{}).OK()
	}
	s.Stop(t)
	catalog := filepath.Join(dir, "catalog.db")
	before, err := os.ReadFile(catalog)
	if err != nil {
		t.Fatal(err)
	}
	s, admin = start()
	for _, token := range []string{looked, redeemed} {
		admin.Post(d.Path("redeem_approval"), body{"approvalToken": token}).OK()
	}
	s.Stop(t)
	if err := os.WriteFile(catalog, before, 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(catalog + "-wal")
	_, admin = start()
	d = admin.DB("shop")
	admin.Get(d.Path("approvals/"+looked)).OK().Is("data.status", "redeemed")
	admin.Post(d.Path("redeem_approval"), body{"approvalToken": redeemed}).Fails(http.StatusNotFound, "not_found")
	admin.Get(d.Path("approvals/"+redeemed)).OK().Is("data.status", "redeemed")
	if n := d.One("SELECT count(*) FROM ledger"); n != "2" {
		t.Errorf("%s rows", n)
	}
}

// Rules are asked again when an approval is redeemed; and a batch is one piece of work, for maxRows and for the approval.
func TestRulesAtRedeem(t *testing.T) {
	row(t, "DP-RUL-3", "DP-APR-4")
	o := newOffice(t)
	d := o.admin.DB("shop")
	d.Batch(true, "CREATE TABLE safe(id INTEGER PRIMARY KEY, v UNIQUE)", "CREATE TABLE free(id INTEGER PRIMARY KEY)", "INSERT INTO free VALUES(1)").OK()
	o.rule(d, body{"tableGlob": "safe", "action": "require_approval", "maxRows": 3})
	count := func(want string) {
		t.Helper()
		if n := d.One("SELECT (SELECT count(*) FROM safe) || ' ' || (SELECT count(*) FROM free)"); n != want {
			t.Fatalf("%s rows, want %s", n, want)
		}
	}
	insert := func(v int) any { return harness.Body("INSERT INTO safe(v) VALUES(?)", v) }
	redeem := func(token string) *harness.Answer {
		return o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token})
	}
	// Three rows pass, alone and together; the fourth of a request is too many, and takes the others along.
	d.Batch(false, insert(1), insert(2), insert(3)).OK()
	count("3 1")
	for _, transaction := range []bool{false, true} {
		token := holds(d.Batch(transaction, insert(4), "INSERT INTO free VALUES(NULL)", insert(5), insert(6), insert(7)))
		count("3 1")
		o.admin.Get(d.Path("approvals/"+token)).OK().Is("data.kind", "batch").Is("data.statements.4.params", "[7]").Is("data.hits.0.maxRows", "3")
		o.approve(token).OK()
		redeem(token).OK().Is("data.4.changes", "1")
		count("7 2")
		redeem(token).Fails(http.StatusNotFound, "not_found")
		d.Batch(false, "DELETE FROM safe WHERE v IN (4, 5)", "DELETE FROM free WHERE id > 1").OK()
		d.Must("DELETE FROM safe WHERE v IN (6, 7)")
		count("3 1")
	}
	// What fails leaves the approval as it was, unless a part of it stands.
	token := holds(d.Batch(true, insert(4), insert(5), insert(6), insert(7)))
	o.approve(token).OK()
	d.Must("INSERT INTO safe(v) VALUES(7)")
	redeem(token).Fails(http.StatusBadRequest, "unique_violation")
	d.Must("DELETE FROM safe WHERE v = 7")
	redeem(token).OK()
	count("7 1")
	// Another rule that holds it: held again, for both; approved once more it runs.
	token = holds(d.Query("UPDATE safe SET v = v + 100"))
	o.approve(token).OK()
	o.rule(d, body{"tableGlob": "s*", "action": "require_approval", "operations": []string{"update"}})
	again := redeem(token)
	if anew := holds(again); anew == token || len(again.List("hits")) < 1 {
		t.Errorf("held again as %s with %v", anew, again.List("hits"))
	}
	o.approve(again.Str("approvalToken")).OK()
	final := redeem(again.Str("approvalToken"))
	if final.Status != http.StatusOK { // the rows were counted only now
		o.approve(holds(final)).OK()
		final = redeem(final.Str("approvalToken"))
	}
	final.OK().Is("data.changes", "7")
	// A denial that came meanwhile wins.
	token = holds(d.Query("DELETE FROM safe"))
	o.approve(token).OK()
	o.rule(d, body{"tableGlob": "safe", "action": "deny"})
	redeem(token).Fails(http.StatusForbidden, "approval_denied")
	count("7 1")
}
