package e2e_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// What an adversary tried against rules, beyond statements: the doors that once let something through.

// A branch that dropped a table merges its end: that is a DELETE of its rows too, as DROP TABLE is.
func TestMergeOfADroppedTableAsksRules(t *testing.T) {
	row(t, "DP-RUL-5")
	o := newOffice(t)
	for _, op := range []string{"delete", "ddl"} {
		for _, mode := range []string{"schema", "full"} {
			for what, drop := range map[string]string{"table": "DROP TABLE safe", "virtual": "DROP TABLE words", "view": "DROP VIEW seen", "view of a table": "DROP TABLE free"} {
				d := o.admin.DB(unused())
				d.Batch(true, "CREATE TABLE safe(id INTEGER PRIMARY KEY, v)", "INSERT INTO safe VALUES(1,'a')", "CREATE TABLE free(a)", "CREATE VIRTUAL TABLE words USING fts5(a)", "INSERT INTO words VALUES('x')", "CREATE VIEW seen AS SELECT 1 AS a").OK()
				names := map[string]string{"table": "safe", "virtual": "words", "view": "seen", "view of a table": "free"}
				o.rule(d, body{"tableGlob": names[what], "action": "deny", "operations": []string{op}})
				o.admin.Post(d.Path("claim_branch"), body{"ref": "w", "content": "full"}).OK()
				o.admin.DB(d.Slug + ".w").Must(drop)
				o.admin.Post(d.Path("branches/w/merge"), body{"mode": mode, "onConflict": "theirs"}).Fails(http.StatusForbidden, "approval_denied")
				if n := d.One("SELECT count(*) FROM sqlite_schema WHERE name IN ('safe', 'free', 'words', 'seen')"); n != "4" {
					t.Errorf("%s, %s, %s: %s objects are left", op, mode, what, n)
				}
			}
		}
	}
}

// A virtual table that a branch made anew with other columns: its rows can't be merged, and the merge says so.
func TestMergeOfAVirtualTableMadeAnew(t *testing.T) {
	row(t, "DP-BRANCH-15")
	d := client(t).DB(unused())
	d.Batch(true, "CREATE VIRTUAL TABLE words USING fts5(a)", "INSERT INTO words VALUES('x'),('y')").OK()
	d.Post(d.Path("claim_branch"), body{"ref": "w", "content": "full"}).OK()
	b := client(t).DB(d.Slug + ".w")
	b.Must("DROP TABLE words")
	b.Must("CREATE VIRTUAL TABLE words USING fts5(a, b)")
	d.Post(d.Path("branches/w/merge"), body{"mode": "full", "onConflict": "theirs"}).Fails(http.StatusConflict, "rows_not_mergeable").Tells("words", "made anew")
	if n := d.One("SELECT count(*) FROM words"); n != "2" {
		t.Errorf("%s rows", n)
	}
}

// An approval of a merge is for the rows as they were, also where no history is kept that would tell of another commit.
func TestApprovedMergeIsOfTheSameRows(t *testing.T) {
	row(t, "DP-APR-7")
	for _, history := range []string{"1h", "0s"} {
		o := newOffice(t, "PERSQLD_HISTORY="+history)
		d := o.admin.DB("shop")
		d.Batch(true, "CREATE TABLE safe(id INTEGER PRIMARY KEY, v)", "INSERT INTO safe VALUES(1,'a'),(2,'b')").OK()
		o.rule(d, body{"tableGlob": "safe", "action": "require_approval"})
		o.admin.Post(d.Path("claim_branch"), body{"ref": "w", "content": "full"}).OK()
		b := o.admin.DB("shop.w")
		b.Must("UPDATE safe SET v = 'good' WHERE id = 1")
		b.Must("CREATE INDEX safe_v ON safe(v)")
		token := holds(o.admin.Post(d.Path("branches/w/merge"), body{"mode": "full"}))
		showsPage(t, o.boss.Get("/approve/"+token), http.StatusOK, "CREATE INDEX safe_v ON safe(v)", "SHA-256 of the rows that the branch changed")
		o.approve(token).OK()
		b.Must("UPDATE safe SET v = 'evil' WHERE id = 1")
		redeem := func() *harness.Answer {
			return o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token})
		}
		redeem().Fails(http.StatusConflict, "approval_mismatch")
		if history == "0s" { // where there are positions, each commit has its own
			b.Must("UPDATE safe SET v = 'good' WHERE id = 1")
			redeem().OK()
		}
		if got := d.One("SELECT v FROM safe WHERE id = 1"); got == "evil" {
			t.Errorf("history %s: what was merged is %s", history, got)
		}
	}
}

// Who sends an upload slowly is judged by the rules of when it is there, not of when it began.
func TestSlowUploadsAskTheRulesOfTheirEnd(t *testing.T) {
	row(t, "DP-RUL-9")
	o := newOffice(t)
	for _, call := range []struct{ path, text string }{{"import", "DELETE FROM safe;"}, {"load-csv?table=safe&mode=replace", "id,v\n1,evil\n"}} {
		d := o.admin.DB(unused())
		out, in := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, o.s.URL+d.Path(call.path), out)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+harness.Token)
		answered := make(chan []byte, 1)
		go func() {
			var b []byte
			if a, err := http.DefaultClient.Do(r); err == nil {
				b, _ = io.ReadAll(a.Body)
				a.Body.Close()
			}
			answered <- b
		}()
		if _, err := io.WriteString(in, call.text[:4]); err != nil {
			t.Fatal(err)
		}
		// The upload makes the database when it begins.
		for deadline := time.Now().Add(20 * time.Second); o.admin.Get("/v1/databases/"+d.Slug).Status != http.StatusOK; {
			if time.Now().After(deadline) {
				t.Fatal("the upload doesn't begin")
			}
		}
		d.Batch(true, "CREATE TABLE safe(id INTEGER PRIMARY KEY, v)", "INSERT INTO safe VALUES(1,'a')").OK()
		o.rule(d, body{"tableGlob": "safe", "action": "deny"})
		if _, err := io.WriteString(in, call.text[4:]); err != nil {
			t.Fatal(err)
		}
		in.Close()
		if b := <-answered; !bytes.Contains(b, []byte("approval_denied")) {
			t.Errorf("%s: %s", call.path, b)
		}
		if got := d.One("SELECT v FROM safe"); got != "a" {
			t.Errorf("%s: %s", call.path, got)
		}
	}
}

// The page says of a rule that would be deleted what it does: the end of a denial must not read as that of a question.
func TestPageOfARulesEnd(t *testing.T) {
	row(t, "DP-PAGE-5")
	o := newOffice(t)
	d := o.admin.DB("shop")
	d.Must("CREATE TABLE safe(a)")
	for action, says := range map[string]string{"deny": "denies", "require_approval": "asks for approval of"} {
		id := o.rule(d, body{"tableGlob": "safe", "action": action, "operations": []string{"delete", "ddl"}})
		token := holds(o.admin.Do("DELETE", d.Path("approval-rules/"+id), nil))
		showsPage(t, o.boss.Get("/approve/"+token), http.StatusOK, "Delete the approval rule for safe, which "+says+" delete, ddl", "Rule <code>safe</code> "+says+" deletes and changes of the schema")
	}
}
