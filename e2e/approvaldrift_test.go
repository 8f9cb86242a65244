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

// What runs is what people saw: neither the schema, nor the rows that decide what a statement is about, are others when it is redeemed.
func TestApprovedIsWhatRuns(t *testing.T) {
	row(t, "DP-APR-12")
	for _, tt := range []struct {
		name         string
		held         []any // a query if it is one statement
		between      []string
		rule         body
		redeems      bool
		leaves, ends string // of safe
	}{
		{"a view's trigger", []any{"INSERT INTO vw(v) VALUES('good')"}, []string{"DROP VIEW vw", "CREATE VIEW vw AS SELECT 1 AS v", "CREATE TRIGGER vi INSTEAD OF INSERT ON vw BEGIN DELETE FROM safe; END"}, nil, false, "a,b,c", "a,b,c"},
		{"a view's trigger that does as much", []any{"INSERT INTO vw(v) VALUES('good')"}, []string{"DROP VIEW vw", "CREATE VIEW vw AS SELECT 1 AS v", "CREATE TRIGGER vi INSTEAD OF INSERT ON vw BEGIN INSERT INTO safe(v) VALUES('evil'); END"}, nil, false, "a,b,c", "a,b,c"},
		{"a trigger of a free table", []any{"INSERT INTO free(v) VALUES(9)", "INSERT INTO safe(v) VALUES('good')"}, []string{"CREATE TRIGGER tf AFTER INSERT ON free BEGIN UPDATE safe SET v='own'; END"}, nil, false, "a,b,c", "a,b,c"},
		{"rows that choose", []any{"DELETE FROM safe WHERE id IN (SELECT v FROM free)"}, []string{"INSERT INTO free(v) VALUES(2),(3)"}, nil, false, "a,b,c", "a,b,c"},
		{"rows that choose, of a small write", []any{"DELETE FROM safe WHERE id IN (SELECT v FROM free)"}, []string{"INSERT INTO free(v) VALUES(2),(3)"}, body{"maxRows": 0}, false, "a,b,c", "a,b,c"},
		{"rows that choose, none of them", []any{"DELETE FROM safe WHERE id IN (SELECT v - 1 FROM free)"}, []string{"INSERT INTO free(v) VALUES(2),(3)"}, nil, false, "a,b,c", "a,b,c"},
		{"in steps", []any{"INSERT INTO free(v) VALUES(9)", "DELETE FROM safe WHERE id IN (SELECT v FROM free)"}, []string{"INSERT INTO free(v) VALUES(2),(3)"}, nil, false, "a,b,c", "a,b,c"},
		{"nothing", []any{"DELETE FROM safe WHERE id IN (SELECT v FROM free)"}, nil, nil, true, "a,b,c", "b,c"},
		{"less", []any{"UPDATE safe SET v = v || '!'"}, []string{"INSERT INTO free(v) VALUES(2),(3)"}, nil, true, "a,b,c", "a!,b!,c!"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOffice(t)
			d := o.admin.DB("shop")
			d.Batch(true, "CREATE TABLE safe(id INTEGER PRIMARY KEY, v)", "CREATE TABLE free(id INTEGER PRIMARY KEY, v)", "INSERT INTO safe(v) VALUES('a'),('b'),('c')", "INSERT INTO free(v) VALUES(1)",
				"CREATE VIEW vw AS SELECT v FROM safe", "CREATE TRIGGER vi INSTEAD OF INSERT ON vw BEGIN INSERT INTO safe(v) VALUES(new.v); END").OK()
			r := body{"tableGlob": "safe", "action": "require_approval"}
			for k, v := range tt.rule {
				r[k] = v
			}
			o.rule(d, r)
			held := d.Query
			var token string
			if len(tt.held) == 1 {
				token = holds(held(tt.held[0].(string)))
			} else {
				token = holds(d.Batch(false, tt.held...))
			}
			o.approve(token).OK()
			for _, sql := range tt.between {
				d.Must(sql)
			}
			look := func() string { return d.One("SELECT group_concat(v, ',' ORDER BY id) FROM safe") }
			if got := look(); got != tt.leaves {
				t.Fatalf("before: %s", got)
			}
			answer := o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token})
			if tt.redeems {
				answer.OK()
			} else {
				answer.Fails(http.StatusConflict, "approval_mismatch")
				if got := d.One("SELECT count(*) FROM free WHERE v = 9"); got != "0" {
					t.Errorf("a step of what was refused stands")
				}
			}
			if got := look(); got != tt.ends {
				t.Errorf("after: %s, want %s", got, tt.ends)
			}
		})
	}
}

// On the page people approve what it shows them, not what would come of it when they press the button.
func TestApprovedIsWhatThePageShowed(t *testing.T) {
	row(t, "DP-APR-12")
	for _, between := range []string{"", "INSERT INTO free(v) VALUES(2),(3)"} {
		o := newOffice(t)
		d := o.admin.DB("shop")
		d.Batch(true, "CREATE TABLE safe(id INTEGER PRIMARY KEY, v)", "CREATE TABLE free(id INTEGER PRIMARY KEY, v)", "INSERT INTO safe(v) VALUES('a'),('b'),('c')", "INSERT INTO free(v) VALUES(1)").OK()
		o.rule(d, body{"tableGlob": "safe", "action": "require_approval"})
		token := holds(d.Query("DELETE FROM safe WHERE id IN (SELECT v FROM free)"))
		page := string(o.boss.Get("/approve/" + token).Raw)
		seen := regexp.MustCompile(`name="seen" value="([^"]*)"`).FindStringSubmatch(page)
		if seen == nil || !strings.Contains(page, "1 row would change now") {
			t.Fatalf("the page shows %s", page)
		}
		if between != "" {
			d.Must(between)
		}
		form := url.Values{"decision": {"approve"}, "reason": {""}, "seen": {html.UnescapeString(seen[1])}}
		leadsTo(t, sendForm(o.boss.Client, "/approve/"+token, form), "/approve/"+token)
		answer := o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": token})
		want := "2"
		if between == "" {
			answer.OK()
		} else {
			answer.Fails(http.StatusConflict, "approval_mismatch")
			want = "3"
		}
		if n := d.One("SELECT count(*) FROM safe"); n != want {
			t.Errorf("%s rows, want %s", n, want)
		}
	}
}

// A file that is imported, or an earlier state, may have tables that a rule is about, though there are none now.
func TestRulesOfWhatComes(t *testing.T) {
	row(t, "DP-RUL-5")
	o := newOffice(t)
	d := o.admin.DB("shop")
	bookmark := d.Must("CREATE TABLE safe(id INTEGER PRIMARY KEY, v)").Str("meta.bookmark")
	d.Must("DROP TABLE safe")
	o.rule(d, body{"tableGlob": "safe", "action": "deny"})
	o.admin.Post(d.Path("restore"), body{"bookmark": bookmark}).Fails(http.StatusForbidden, "approval_denied")
	o.admin.Do("POST", d.Path("import"), harness.Raw("CREATE TABLE safe(a);")).Fails(http.StatusForbidden, "approval_denied")
	if n := d.One("SELECT count(*) FROM sqlite_schema WHERE name = 'safe'"); n != "0" {
		t.Error("the table came")
	}
}
