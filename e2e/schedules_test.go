package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/sqlite"
)

// scheduled makes a schedule that runs every hour, and returns its id.
func scheduled(d *harness.DB, name, sql string) string {
	return d.Post(d.Path("schedules"), body{"name": name, "sql": sql, "intervalSec": 3600}).OK().Str("data.id")
}

// runs runs a schedule by hand.
func runs(d *harness.DB, id string) *harness.Answer {
	return d.Post(d.Path("schedules/"+id+"/run"), nil)
}

// scheduleOf is a schedule as the list has it.
func scheduleOf(t testing.TB, d *harness.DB, id string) map[string]any {
	t.Helper()
	for _, one := range d.Get(d.Path("schedules")).OK().List("data") {
		if s := one.(map[string]any); s["id"] == id {
			return s
		}
	}
	t.Fatalf("no schedule %s", id)
	return nil
}

// inCatalog changes the catalog of a server that is stopped, or reads a text from it.
func inCatalog(t testing.TB, data, query string, args ...any) (text string) {
	t.Helper()
	db, err := sqlite.OpenDriver(filepath.Join(data, "catalog.db"), sqlite.DriverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if strings.HasPrefix(query, "SELECT") {
		err = db.QueryRow(query, args...).Scan(&text)
	} else {
		_, err = db.Exec(query, args...)
	}
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return text
}

// restart stops a server, does something, and starts it again on the same data.
func restart(t testing.TB, s *harness.Server, between func(), env ...string) *harness.Server {
	t.Helper()
	if code := s.Stop(t); code != 0 {
		t.Fatalf("stopped with %d", code)
	}
	if between != nil {
		between()
	}
	return harness.Start(t, binary, harness.Options{Data: s.Data, Env: env})
}

func aTime(t testing.TB, v any) time.Time {
	t.Helper()
	text, _ := v.(string)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatalf("%v is no time", v)
	}
	return at
}

func TestScheduleFromMakingToEnd(t *testing.T) {
	row(t, "DP-SCHED-1", "DP-SCHED-2", "DP-SCHED-3", "DP-SCHED-10", "DP-SCHED-15")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	me := c.Get("/v1/me").OK().Str("data.tokenId")
	before := time.Now()
	made := d.Post(d.Path("schedules"), body{"name": "nightly", "sql": "INSERT INTO t VALUES(1); INSERT INTO t SELECT a + 1 FROM t;", "intervalSec": 60}).OK()
	id := made.Str("data.id")
	made.Is("data.name", "nightly").Is("data.intervalSec", "60").Is("data.cron", "null").Is("data.enabled", "true").Is("data.createdBy", me).Is("data.runsAs", me).
		Is("data.lastRunAt", "null").Is("data.lastStatus", "null").Is("data.lastError", "null").Is("data.lastDurationMs", "null").Is("data.lastRowsRead", "null").Is("data.lastRowsWritten", "null").Is("data.runningSince", "null")
	if next := aTime(t, made.At("data.nextRunAt")); next.Before(before.Add(59*time.Second)) || next.After(time.Now().Add(61*time.Second)) {
		t.Errorf("made at %s, next at %s", before, next)
	}
	next := made.Str("data.nextRunAt")
	ran := runs(d, id).OK().Is("data.lastStatus", "ok").Is("data.lastError", "null").Is("data.nextRunAt", next).Is("data.runningSince", "null").Is("data.lastRowsWritten", "2")
	if at := aTime(t, ran.At("data.lastRunAt")); at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("ran at %s", at)
	}
	if n := d.One("SELECT group_concat(a) FROM t"); n != "1,2" {
		t.Errorf("rows %s", n)
	}

	// Cron, in UTC; changes; the pause.
	path := d.Path("schedules/" + id)
	a := c.Do("PATCH", path, body{"cron": "0 3 1 1 *", "name": "yearly"}).OK().Is("data.cron", "0 3 1 1 *").Is("data.intervalSec", "null").Is("data.name", "yearly").Is("data.lastStatus", "ok")
	if at := aTime(t, a.At("data.nextRunAt")); at.Month() != time.January || at.Day() != 1 || at.Hour() != 3 || !at.After(time.Now()) {
		t.Errorf("next at %s", at)
	}
	c.Do("PATCH", path, body{"enabled": false}).OK().Is("data.enabled", "false").Is("data.nextRunAt", "null")
	runs(d, id).OK().Is("data.lastStatus", "ok").Is("data.nextRunAt", "null")
	c.Do("PATCH", path, body{"intervalSec": 120}).OK().Is("data.nextRunAt", "null").Is("data.cron", "null").Is("data.intervalSec", "120")
	resumed := time.Now()
	a = c.Do("PATCH", path, body{"enabled": true}).OK()
	if at := aTime(t, a.At("data.nextRunAt")); at.Before(resumed.Add(119*time.Second)) || at.After(time.Now().Add(121*time.Second)) {
		t.Errorf("goes on at %s, next at %s", resumed, at)
	}
	d.Post(d.Path("schedules"), body{"name": "other", "sql": "SELECT 1", "cron": "@hourly", "enabled": false}).OK().Is("data.nextRunAt", "null")
	if list := d.Get(d.Path("schedules")).OK(); len(list.List("data")) != 2 || list.Str("data.0.name") != "yearly" || list.Str("data.1.cron") != "@hourly" {
		t.Errorf("%s", list.Raw)
	}

	// All of it is there after a restart.
	was := fmt.Sprint(scheduleOf(t, d, id))
	s = restart(t, s, nil)
	c = s.Client(t, harness.Token)
	d = c.DB(d.Slug)
	if now := fmt.Sprint(scheduleOf(t, d, id)); now != was {
		t.Errorf("before the restart\n%s, then\n%s", was, now)
	}
	c.Do("DELETE", path, nil).OK().Is("data.id", id).Is("data.deleted", "true")
	for _, call := range []func() *harness.Answer{func() *harness.Answer { return c.Do("DELETE", path, nil) }, func() *harness.Answer { return c.Do("PATCH", path, body{"enabled": true}) }, func() *harness.Answer { return runs(d, id) }} {
		call().Fails(http.StatusNotFound, "not_found").Says("Schedule not found")
	}
	metrics := string(c.As("").Get("/metrics").Raw)
	for _, want := range []string{`persqld_schedule_runs_total{outcome="ok"} 0`, "persqld_schedules_running 0", "persqld_schedules_overdue_seconds 0"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, action := range []string{"schedule.created", "schedule.changed", "schedule.run", "schedule.deleted"} {
		list := c.Get("/v1/audit?action=" + action).OK()
		if len(list.List("data")) == 0 {
			t.Errorf("nothing of %s in the audit log", action)
			continue
		}
		list.Is("data.0.target.type", "schedule").Is("data.0.actor.id", me)
		if _, has := list.At("data.0.metadata").(map[string]any)["sql"]; has != (action == "schedule.created") {
			t.Errorf("%s has the SQL: %v", action, has)
		}
	}
}

func TestScheduleRefusesBadInput(t *testing.T) {
	row(t, "DP-SCHED-5")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MAX_SCHEDULES=3", "PERSQLD_MAX_SQL=1KB", "PERSQLD_MAX_STATEMENTS=3"}})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	good := scheduled(d, "good", "INSERT INTO t VALUES(1)")
	was := fmt.Sprint(scheduleOf(t, d, good))
	base := body{"name": "x", "sql": "SELECT 1", "intervalSec": 60}
	for _, tt := range []struct {
		change body // of base; nil takes away
		status int
		code   string
		says   string // in the error
		patch  bool   // a change with the same is refused likewise
	}{
		{body{"name": nil}, 400, "invalid_schedule", "1 to 200 characters", false},
		{body{"name": ""}, 400, "invalid_schedule", "1 to 200 characters", true},
		{body{"name": strings.Repeat("é", 201)}, 400, "invalid_schedule", "1 to 200 characters", true},
		{body{"name": "a\nb"}, 400, "invalid_schedule", "control characters", true},
		{body{"name": 5}, 400, "bad_request", "", true},
		{body{"intervalSec": nil}, 400, "invalid_schedule", "either intervalSec or cron", false},
		{body{"intervalSec": 59}, 400, "invalid_schedule", "from 60 to 604800", true},
		{body{"intervalSec": 0}, 400, "invalid_schedule", "from 60 to 604800", true},
		{body{"intervalSec": -60}, 400, "invalid_schedule", "from 60 to 604800", true},
		{body{"intervalSec": 604801}, 400, "invalid_schedule", "from 60 to 604800", true},
		{body{"intervalSec": 60.5}, 400, "invalid_schedule", "whole number", true},
		{body{"intervalSec": harness.Number("1e300")}, 400, "invalid_schedule", "whole number", true},
		{body{"intervalSec": "60"}, 400, "bad_request", "", true},
		{body{"cron": "* * * * *"}, 400, "invalid_schedule", "either intervalSec or cron", true},
		{body{"intervalSec": nil, "cron": ""}, 400, "invalid_schedule", "it is empty", true},
		{body{"intervalSec": nil, "cron": "* * * *"}, 400, "invalid_schedule", "cron expression", true},
		{body{"intervalSec": nil, "cron": "*/10 * * * * *"}, 400, "invalid_schedule", "cron expression", true},
		{body{"intervalSec": nil, "cron": "60 * * * *"}, 400, "invalid_schedule", "cron expression", true},
		{body{"intervalSec": nil, "cron": "0 0 30 2 *"}, 400, "invalid_schedule", "no day", true},
		{body{"intervalSec": nil, "cron": "CRON_TZ=Europe/Berlin 0 3 * * *"}, 400, "invalid_schedule", "UTC", true},
		{body{"intervalSec": nil, "cron": "@every 1s"}, 400, "invalid_schedule", "intervalSec", true},
		{body{"intervalSec": nil, "cron": "@reboot"}, 400, "invalid_schedule", "cron expression", true},
		{body{"intervalSec": nil, "cron": 5}, 400, "bad_request", "", true},
		{body{"sql": nil}, 400, "syntax_error", "no statement", false},
		{body{"sql": " ; -- nothing"}, 400, "syntax_error", "no statement", true},
		{body{"sql": "SELEC 1"}, 400, "syntax_error", "", true},
		{body{"sql": "SELECT 1; SELECT 'a"}, 400, "syntax_error", "isn't closed", true},
		{body{"sql": "SELECT 1; SELECT FROM"}, 400, "syntax_error", "", true},
		{body{"sql": "DELETE FROM t WHERE a = ?"}, 400, "invalid_schedule", "no parameters", true},
		{body{"sql": "DELETE FROM t WHERE a = :a"}, 400, "invalid_schedule", "no parameters", true},
		{body{"sql": "SELECT '" + strings.Repeat("x", 1000) + "'"}, 400, "sql_too_long", "1000", true},
		{body{"sql": "SELECT 1;SELECT 1;SELECT 1;SELECT 1"}, 400, "too_many_statements", "3", true},
		{body{"sql": "VACUUM; SELECT 1"}, 400, "not_in_batch", "VACUUM", true},
		{body{"sql": "BEGIN"}, 400, "transaction_statement", "", true},
		{body{"sql": "SELECT 1; COMMIT"}, 400, "transaction_statement", "", true},
		{body{"sql": "PRAGMA defer_foreign_keys = 1"}, 400, "pragma_not_allowed", "", true},
		{body{"sql": "ATTACH 'x.db' AS x"}, 403, "attach_not_allowed", "", true},
		{body{"sql": "PRAGMA journal_mode = OFF"}, 403, "pragma_not_allowed", "", true},
		{body{"sql": "SELECT 1; SELECT load_extension('x')"}, 403, "function_not_allowed", "", true},
		{body{"enabled": "yes"}, 400, "bad_request", "", true},
		{body{"intervalSecs": 60}, 400, "bad_json", "doesn't know", true},
	} {
		request := body{}
		for k, v := range base {
			request[k] = v
		}
		for k, v := range tt.change {
			if request[k] = v; v == nil {
				delete(request, k)
			}
		}
		a := d.Post(d.Path("schedules"), request).Fails(tt.status, tt.code)
		if !strings.Contains(a.Str("error"), tt.says) {
			t.Errorf("%v: %s", tt.change, a.Raw)
		}
		if tt.patch {
			request = tt.change
			if request["cron"] == "* * * * *" {
				request["intervalSec"] = 60
			}
			if request["intervalSec"] == nil {
				delete(request, "intervalSec")
			}
			c.Do("PATCH", d.Path("schedules/"+good), request).Fails(tt.status, tt.code)
		}
	}
	for _, raw := range []string{"", "null", "[]", `{"name":"a","name":"b","sql":"SELECT 1","intervalSec":60}`, `"x"`} {
		a := d.Post(d.Path("schedules"), harness.Raw(raw))
		if a.Status != http.StatusBadRequest {
			t.Errorf("%s: %s", raw, a.Raw)
		}
	}
	c.Do("PATCH", d.Path("schedules/"+good), body{}).Fails(http.StatusBadRequest, "bad_request").Says("The request changes nothing")
	for _, call := range []string{"POST schedules", "PATCH schedules/" + good, "DELETE schedules/" + good, "POST schedules/" + good + "/run"} {
		method, path, _ := strings.Cut(call, " ")
		c.Do(method, d.Path(path), base, "Plan-Key: x").Fails(http.StatusBadRequest, "invalid_idempotency_key")
	}
	d.Post(d.Path("schedules"), body{"name": "good", "sql": "SELECT 1", "intervalSec": 60}).Fails(http.StatusConflict, "schedule_exists")
	if now := fmt.Sprint(scheduleOf(t, d, good)); now != was || len(d.Get(d.Path("schedules")).OK().List("data")) != 1 {
		t.Errorf("what was refused changed something: %s, then %s", was, now)
	}
	if n := d.One("SELECT count(*) FROM t"); n != "0" {
		t.Errorf("%s rows", n)
	}
	// A table that isn't there yet is no error, and its name may be one later.
	second := scheduled(d, "second", "INSERT INTO later VALUES(1)")
	scheduled(d, "third", "SELECT 1")
	d.Post(d.Path("schedules"), base).Fails(http.StatusConflict, "too_many_schedules").Says("A database has at most 3 schedules").Tells("PERSQLD_MAX_SCHEDULES")
	c.Do("PATCH", d.Path("schedules/"+second), body{"name": "third"}).Fails(http.StatusConflict, "schedule_exists")
	c.Do("PATCH", d.Path("schedules/"+second), body{"name": "second"}).OK()
	other := newDB(t, c)
	scheduled(other, "good", "SELECT 1")
	// One of another database isn't there.
	runs(other, good).Fails(http.StatusNotFound, "not_found")
	c.Do("PATCH", other.Path("schedules/"+good), body{"enabled": false}).Fails(http.StatusNotFound, "not_found")
	c.Do("DELETE", other.Path("schedules/"+good), nil).Fails(http.StatusNotFound, "not_found")
}

func TestScheduleRoles(t *testing.T) {
	row(t, "DP-SCHED-4")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	id := scheduled(d, "mine", "INSERT INTO t VALUES(1)")
	for _, tt := range []struct {
		token body
		code  string
	}{
		{body{"role": "readwrite"}, "role_not_allowed"}, {body{"role": "readonly"}, "role_not_allowed"},
		{body{"tableScope": []string{"t"}}, "scope_not_allowed"}, {body{"claims": body{"sub": 1}}, "policy_not_allowed"},
	} {
		other := c.As(c.Post("/v1/tokens", tt.token).OK().Str("data.token"))
		other.Get(d.Path("schedules")).Fails(http.StatusForbidden, tt.code)
		other.Post(d.Path("schedules"), body{"name": "x", "sql": "SELECT 1", "intervalSec": 60}).Fails(http.StatusForbidden, tt.code)
		other.Do("PATCH", d.Path("schedules/"+id), body{"enabled": false}).Fails(http.StatusForbidden, tt.code)
		other.Post(d.Path("schedules/"+id+"/run"), nil).Fails(http.StatusForbidden, tt.code)
		other.Do("DELETE", d.Path("schedules/"+id), nil).Fails(http.StatusForbidden, tt.code)
	}
	pinned := c.As(c.Post("/v1/tokens", body{"database": d.Slug}).OK().Str("data.token"))
	runs(pinned.DB(d.Slug), scheduled(pinned.DB(d.Slug), "pinned", "INSERT INTO t VALUES(2)")).OK().Is("data.lastStatus", "ok")
	if n := d.One("SELECT count(*) FROM t"); n != "1" {
		t.Errorf("%s rows", n)
	}

	// What is made of the database has none of them; a branch has its own.
	c.Post(d.Path("claim_branch"), body{"ref": "work", "content": "full"}).OK()
	branch := c.DB(d.Slug + ".work")
	fork := c.DB(unused())
	c.Post(d.Path("fork"), body{"slug": fork.Slug}).OK()
	for _, copied := range []*harness.DB{branch, fork} {
		if n := len(copied.Get(copied.Path("schedules")).OK().List("data")); n != 0 {
			t.Errorf("%s has %d schedules", copied.Slug, n)
		}
	}
	own := scheduled(branch, "mine", "DELETE FROM t")
	runs(branch, own).OK().Is("data.lastStatus", "ok")
	if n := branch.One("SELECT count(*) FROM t") + d.One("SELECT count(*) FROM t"); n != "01" {
		t.Errorf("rows of the branch and of its parent: %s", n)
	}
	runs(d, own).Fails(http.StatusNotFound, "not_found")
	c.Do("DELETE", d.Path("branches/work"), nil).OK()
	runs(branch, own).Fails(http.StatusNotFound, "not_found")
}

// A run goes by the door that requests go by: what it does is counted, logged, told and kept.
func TestScheduleRunIsARequest(t *testing.T) {
	row(t, "DP-SCHED-6", "DP-SCHED-7")
	s := people(t, append(prepaid(), keepsHistory...)...)
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Batch(true, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "CREATE INDEX i ON t(b)", "CREATE TABLE once(a UNIQUE)", "INSERT INTO once VALUES(1)").OK()
	id := scheduled(d, "three", "INSERT INTO t(b) VALUES('x'),('y'); UPDATE t SET b = b || 'z' WHERE a > 0; SELECT * FROM t")
	feed := subscribe(t, d, "?tables=t")
	feed.next()
	usage := func(id string) string {
		for _, one := range c.Get("/v1/usage?groupBy=token").OK().List("data.series") {
			if l := one.(map[string]any); l["key"] == "schedule:"+id {
				return fmt.Sprint(l["requests"], " ", l["rowsRead"], " ", l["rowsWritten"])
			}
		}
		return "nothing"
	}
	ran := runs(d, id).OK().Is("data.lastStatus", "ok")
	if read, written := harness.Text(ran.At("data.lastRowsRead")), harness.Text(ran.At("data.lastRowsWritten")); read == "0" || written == "0" {
		t.Errorf("%s rows read, %s written", read, written)
	}
	feed.hears("insert t 1", "insert t 2", "update t 1", "update t 2")
	if got, want := usage(id), "1 "+harness.Text(ran.At("data.lastRowsRead"))+" "+harness.Text(ran.At("data.lastRowsWritten")); got != want {
		t.Errorf("%s (requests, rows read, rows written) are counted; the schedule says %s", got, want)
	}
	if log := c.Get(d.Path("query-log?tokenId=schedule:" + id)).OK().List("data"); len(log) != 3 {
		t.Errorf("%d statements in the query log", len(log))
	}

	// A failure undoes all of it, is counted, and disables nothing.
	broken := scheduled(d, "broken", "INSERT INTO t(b) VALUES('lost'); INSERT INTO once VALUES(1)")
	failed := runs(d, broken).OK().Is("data.lastStatus", "failed").Is("data.enabled", "true")
	if text := failed.Str("data.lastError"); !strings.Contains(text, "Statement 2: ") || !strings.Contains(text, "once.a") {
		t.Errorf("lastError %q", text)
	}
	if failed.At("data.nextRunAt") == nil || harness.Text(failed.At("data.lastRowsWritten")) == "0" {
		t.Errorf("%s", failed.Raw)
	}
	if got, want := usage(broken), "1 "+harness.Text(failed.At("data.lastRowsRead"))+" "+harness.Text(failed.At("data.lastRowsWritten")); got != want {
		t.Errorf("%s are counted of a failure; the schedule says %s", got, want)
	}
	if n := d.One("SELECT count(*) FROM t"); n != "2" {
		t.Errorf("%s rows after a failure", n)
	}
	runs(d, scheduled(d, "no table", "DELETE FROM nowhere")).OK().Is("data.lastStatus", "failed").Tells("no such table")
	d.Must("DELETE FROM once")
	runs(d, broken).OK().Is("data.lastStatus", "ok").Is("data.lastError", "null")

	// What destroys much is preceded by a snapshot. One statement alone may be VACUUM.
	before := len(c.Get(d.Path("snapshots")).OK().List("data"))
	runs(d, scheduled(d, "drop", "DROP TABLE once")).OK().Is("data.lastStatus", "ok")
	if after := len(c.Get(d.Path("snapshots")).OK().List("data")); after != before+1 {
		t.Errorf("%d snapshots, then %d", before, after)
	}
	runs(d, scheduled(d, "vacuum", "VACUUM")).OK().Is("data.lastStatus", "ok")
	runs(d, scheduled(d, "trigger", "CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET b = 'g' WHERE a = new.a; SELECT 1; END; INSERT INTO t(b) VALUES('h')")).OK().Is("data.lastStatus", "ok")
	if b := d.One("SELECT b FROM t ORDER BY a DESC LIMIT 1"); b != "g" {
		t.Errorf("the trigger made %s", b)
	}

	// Where a cap is reached nothing runs, and the schedule says so.
	c.Do("PUT", "/v1/billing/caps", harness.Raw(`[{"scope":"database","id":"`+c.Get("/v1/databases/"+d.Slug).OK().Str("data.id")+`","window":"month","usd":0.000001}]`)).OK()
	member := enrol(t, s, "head@example.com", "default", "owner")
	capped := member.Post("/api/namespaces/default/databases/"+d.Slug+"/schedules/"+id+"/run", nil).OK().Is("data.lastStatus", "failed").Is("data.lastRowsWritten", "0")
	if text := capped.Str("data.lastError"); !strings.Contains(text, "cap") {
		t.Errorf("lastError %q", text)
	}
}

func TestScheduleUnderRules(t *testing.T) {
	row(t, "DP-SCHED-11")
	o := newOffice(t)
	d := o.admin.DB("shop")
	d.Batch(true, "CREATE TABLE prod_users(a)", "CREATE TABLE free(a)", "INSERT INTO prod_users VALUES(1),(2)").OK()
	count := func(want string) {
		t.Helper()
		if n := d.One("SELECT (SELECT count(*) FROM prod_users) || ' ' || (SELECT count(*) FROM free)"); n != want {
			t.Fatalf("rows %s, want %s", n, want)
		}
	}
	rule := o.rule(d, body{"tableGlob": "prod_*", "action": "require_approval", "note": "ask"})
	id := scheduled(d, "grow", "INSERT INTO free VALUES(1); INSERT INTO prod_users VALUES(3)")
	held := func(id string) string {
		t.Helper()
		a := runs(d, id).OK().Is("data.lastStatus", "held")
		pending := o.admin.Get(d.Path("approvals?status=pending")).OK()
		pending.Is("data.0.requestedBy.id", "schedule:"+id)
		approval := pending.Str("data.0.id")
		if text := a.Str("data.lastError"); !strings.Contains(text, approval) || !strings.Contains(text, "/approve/"+approval) {
			t.Fatalf("lastError %q doesn't name %s", text, approval)
		}
		return approval
	}
	pending := func(want int) {
		t.Helper()
		if n := len(o.admin.Get(d.Path("approvals?status=pending")).OK().List("data")); n != want {
			t.Fatalf("%d pending approvals, want %d", n, want)
		}
	}
	first := held(id)
	if again := held(id); again != first {
		t.Errorf("another approval, %s, beside %s", again, first)
	}
	pending(1)
	count("2 0")
	if page := o.boss.Get("/approve/" + first); !strings.Contains(string(page.Raw), "the schedule <strong>grow") {
		t.Errorf("the page doesn't say that a schedule asks: %s", harness.Tail(string(page.Raw), 3000))
	}
	o.approve(first).OK()
	runs(d, id).OK().Is("data.lastStatus", "ok")
	count("3 1")
	o.admin.Get(d.Path("approvals/"+first)).OK().Is("data.status", "redeemed")
	// It was for once.
	second := held(id)
	count("3 1")
	// Denied, and asked anew.
	o.boss.Post("/api/approvals/"+second+"/deny", body{"reason": "no"}).OK()
	third := held(id)
	if third == second {
		t.Error("the denied approval was asked for again")
	}
	// Approved for other SQL than it has by then: that is asked for by itself.
	o.approve(third).OK()
	o.admin.Do("PATCH", d.Path("schedules/"+id), body{"sql": "DELETE FROM prod_users"}).OK()
	fourth := held(id)
	count("3 1")
	o.boss.Post("/api/approvals/"+fourth+"/deny", nil).OK()
	// Approved, and the schema is another one when it runs.
	fifth := held(id)
	o.approve(fifth).OK()
	d.Must("CREATE TABLE later(a)")
	sixth := held(id)
	count("3 1")
	if sixth == fifth {
		t.Error("what was approved on another schema is what is asked for")
	}
	// An admin may redeem it too: once, as the schedule.
	o.approve(sixth).OK()
	o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": sixth}).OK()
	count("0 1")
	o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": sixth}).Fails(http.StatusNotFound, "not_found")
	d.Must("INSERT INTO free VALUES(2)")
	// What is approved waits for the next run by time.
	o.admin.Do("PATCH", d.Path("schedules/"+id), body{"sql": "INSERT INTO prod_users VALUES(9)", "intervalSec": 604800}).OK()
	weekly := held(id)
	o.approve(weekly).OK()
	if at := aTime(t, o.admin.Get(d.Path("approvals/"+weekly)).OK().At("data.expiresAt")); at.Before(time.Now().Add(7 * 24 * time.Hour)) {
		t.Errorf("an approval of a weekly run ends at %s", at)
	}
	// Racing runs and redeems use it once.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { _, _ = o.admin.Try("POST", d.Path("schedules/"+id+"/run"), nil) })
		wg.Go(func() { _, _ = o.admin.Try("POST", d.Path("redeem_approval"), body{"approvalToken": weekly}) })
	}
	wg.Wait()
	count("1 2")

	// Denied by a rule: it fails, and says by which.
	deny := o.rule(d, body{"tableGlob": "free", "action": "deny"})
	other := scheduled(d, "denied", "INSERT INTO free VALUES(3)")
	a := runs(d, other).OK().Is("data.lastStatus", "failed")
	if text := a.Str("data.lastError"); !strings.Contains(text, deny) || !strings.Contains(text, `"free"`) {
		t.Errorf("lastError %q", text)
	}
	count("1 2")
	// Who gave it its SQL is the one who asks: a rule can keep that one from deciding.
	head := enrol(t, o.s, "head@example.com", "default", "admin")
	chief := enrol(t, o.s, "chief@example.com", "default", "admin")
	d.Must("CREATE TABLE eyes(a)")
	o.rule(d, body{"tableGlob": "eyes", "action": "require_approval", "excludeRequester": true})
	path := "/api/namespaces/default/databases/shop/schedules"
	eyes := head.Post(path, body{"name": "four eyes", "sql": "INSERT INTO eyes VALUES(1)", "intervalSec": 3600}).OK().Str("data.id")
	head.Post("/api/approvals/"+held(eyes)+"/approve", nil).Fails(http.StatusForbidden, "own_request")
	chief.Do("PATCH", path+"/"+eyes, body{"sql": "INSERT INTO eyes VALUES(2)"}).OK()
	asked := held(eyes)
	chief.Post("/api/approvals/"+asked+"/approve", nil).Fails(http.StatusForbidden, "own_request")
	head.Post("/api/approvals/"+asked+"/approve", nil).OK()
	runs(d, eyes).OK().Is("data.lastStatus", "ok")

	// A rule that is gone holds nothing, and what waits for people isn't in the way.
	runs(d, id).OK().Is("data.lastStatus", "held")
	head.Do("DELETE", "/api/namespaces/default/databases/shop/approval-rules/"+rule, nil).OK()
	runs(d, id).OK().Is("data.lastStatus", "ok")
	count("2 2")
	if refused := o.admin.Get("/v1/audit?action=approval.refused").OK(); refused.Str("data.0.actor.type") != "schedule" || refused.Str("data.0.actor.id") != other {
		t.Errorf("%s", harness.Tail(string(refused.Raw), 600))
	}
}

// What a schedule's run has redeemed is known from the database's file, whatever a crash kept from the catalog.
func TestScheduleRedeemsOnce(t *testing.T) {
	row(t, "DP-SCHED-11")
	o := newOffice(t)
	d := o.admin.DB("shop")
	d.Must("CREATE TABLE ledger(n)")
	o.rule(d, body{"tableGlob": "ledger", "action": "require_approval"})
	id := scheduled(d, "once", "INSERT INTO ledger VALUES(1)")
	runs(d, id).OK().Is("data.lastStatus", "held")
	o.approve(o.admin.Get(d.Path("approvals?status=pending")).OK().Str("data.0.id")).OK()
	o.s.Stop(t)
	catalog := filepath.Join(o.s.Data, "catalog.db")
	before, err := os.ReadFile(catalog)
	if err != nil {
		t.Fatal(err)
	}
	s := harness.Start(t, binary, harness.Options{Data: o.s.Data, Env: quick})
	d = s.Client(t, harness.Token).DB("shop")
	runs(d, id).OK().Is("data.lastStatus", "ok")
	s.Stop(t)
	if err := os.WriteFile(catalog, before, 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(catalog + "-wal")
	s = harness.Start(t, binary, harness.Options{Data: o.s.Data, Env: quick})
	d = s.Client(t, harness.Token).DB("shop")
	runs(d, id).OK().Is("data.lastStatus", "held")
	if n := d.One("SELECT count(*) FROM ledger"); n != "1" {
		t.Errorf("%s rows", n)
	}
}

// Who answers for a schedule must be able to run it.
func TestScheduleMaker(t *testing.T) {
	row(t, "DP-SCHED-12")
	s := people(t)
	admin := s.Client(t, harness.Token)
	d := newDB(t, admin)
	d.Must("CREATE TABLE t(a)")
	fails := func(id string) {
		t.Helper()
		a := runs(d, id).OK().Is("data.lastStatus", "failed")
		if text := a.Str("data.lastError"); !strings.Contains(text, "may not run it any more") || !strings.Contains(text, "PATCH") {
			t.Errorf("lastError %q", text)
		}
	}
	made := admin.Post("/v1/tokens", body{"name": "maker"}).OK()
	id := scheduled(admin.As(made.Str("data.token")).DB(d.Slug), "of a token", "INSERT INTO t VALUES(1)")
	runs(d, id).OK().Is("data.lastStatus", "ok").Is("data.createdBy", made.Str("data.id"))
	admin.Do("DELETE", "/v1/tokens/"+made.Str("data.id"), nil).OK()
	fails(id)
	// A change of something else takes nothing over; one of the SQL does.
	admin.Do("PATCH", d.Path("schedules/"+id), body{"name": "renamed"}).OK()
	fails(id)
	me := admin.Get("/v1/me").OK().Str("data.tokenId")
	admin.Do("PATCH", d.Path("schedules/"+id), body{"sql": "INSERT INTO t VALUES(2)"}).OK().Is("data.createdBy", made.Str("data.id")).Is("data.runsAs", me)
	runs(d, id).OK().Is("data.lastStatus", "ok")

	owner := enrol(t, s, "owner@example.com", "default", "owner")
	head := enrol(t, s, "head@example.com", "default", "admin")
	path := "/api/namespaces/default/databases/" + d.Slug + "/schedules"
	id = head.Post(path, body{"name": "of a member", "sql": "INSERT INTO t VALUES(3)", "intervalSec": 60}).OK().Is("data.createdBy", "user:"+head.id).Str("data.id")
	runs(d, id).OK().Is("data.lastStatus", "ok")
	owner.Do("PATCH", "/api/namespaces/default/members/"+head.id, body{"role": "editor"}).OK()
	fails(id)
	owner.Do("PATCH", "/api/namespaces/default/members/"+head.id, body{"role": "admin"}).OK()
	runs(d, id).OK().Is("data.lastStatus", "ok")
	owner.Do("DELETE", "/api/namespaces/default/members/"+head.id, nil).OK()
	fails(id)
	if n := d.One("SELECT group_concat(a) FROM t"); n != "1,2,3,3" {
		t.Errorf("rows %s", n)
	}
}

func TestScheduleNeverTwiceAtOnce(t *testing.T) {
	row(t, "DP-SCHED-8", "DP-SCHED-3")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_STATEMENT_TIMEOUT=3s"}})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	id := scheduled(d, "endless", endless)
	var mu sync.Mutex
	got := map[int]int{}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			a, err := c.Try("POST", d.Path("schedules/"+id+"/run"), nil)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if got[a.Status]++; a.Status == http.StatusConflict {
				a.Fails(http.StatusConflict, "schedule_running")
			} else {
				a.OK().Is("data.lastStatus", "failed").Tells("time limit")
			}
		})
	}
	running := eventually(t, 2*time.Second, func() bool { return scheduleOf(t, d, id)["runningSince"] != nil })
	wg.Wait()
	if !running || got[http.StatusOK] != 1 || got[http.StatusConflict] != 5 {
		t.Errorf("answers by status: %v; seen running: %v", got, running)
	}
	// A run can be forgotten by nobody: the next one is free to begin, and one may be deleted while it runs.
	wg.Go(func() { runs(d, id).Fails(http.StatusNotFound, "not_found") })
	eventually(t, 2*time.Second, func() bool { return scheduleOf(t, d, id)["runningSince"] != nil })
	c.Do("DELETE", d.Path("schedules/"+id), nil).OK()
	wg.Wait()
}

// What was missed runs once, and goes on from then; what is paused or rests doesn't.
func TestScheduleMissed(t *testing.T) {
	row(t, "DP-SCHED-9", "DP-SCHED-10", "DP-SCHED-14", "DP-SCHED-16")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	d, marker, deleted := newDB(t, c), newDB(t, c), newDB(t, c)
	for _, one := range []*harness.DB{d, marker, deleted} {
		one.Must("CREATE TABLE t(a)")
	}
	missed := scheduled(d, "missed", "INSERT INTO t VALUES('missed')")
	daily := d.Post(d.Path("schedules"), body{"name": "daily", "sql": "INSERT INTO t VALUES('daily')", "cron": "@daily"}).OK().Str("data.id")
	paused := scheduled(d, "paused", "INSERT INTO t VALUES('paused')")
	c.Do("PATCH", d.Path("schedules/"+paused), body{"enabled": false}).OK()
	resting := scheduled(deleted, "resting", "INSERT INTO t VALUES('resting')")
	last := scheduled(marker, "last", "INSERT INTO t VALUES('last')")
	trashed := c.Get("/v1/databases/" + deleted.Slug).OK().Str("data.id")
	c.Do("DELETE", "/v1/databases/"+deleted.Slug, nil).OK()
	deleted.Get(deleted.Path("schedules")).Fails(http.StatusNotFound, "not_found")
	longAgo := time.Now().Add(-50 * time.Hour).UnixMilli()
	back := func() {
		inCatalog(t, s.Data, `UPDATE schedules SET next_run_at = ? WHERE enabled`, longAgo)
		inCatalog(t, s.Data, `UPDATE schedules SET next_run_at = next_run_at + 1000 WHERE id = ?`, last) // it comes after the others
	}
	// With no room for them none runs.
	s = restart(t, s, back, "PERSQLD_SCHEDULE_RUNS=0")
	c = s.Client(t, harness.Token)
	d, marker, deleted = c.DB(d.Slug), c.DB(marker.Slug), c.DB(deleted.Slug)
	if !eventually(t, 5*time.Second, func() bool {
		return strings.Contains(string(c.As("").Get("/metrics").Raw), "persqld_schedules_overdue_seconds 1")
	}) {
		t.Error("nothing is overdue")
	}
	if a := scheduleOf(t, d, missed); a["lastRunAt"] != nil {
		t.Errorf("%v", a)
	}
	s = restart(t, s, nil, "PERSQLD_SCHEDULE_RUNS=1")
	c = s.Client(t, harness.Token)
	d, marker, deleted = c.DB(d.Slug), c.DB(marker.Slug), c.DB(deleted.Slug)
	began := time.Now()
	if !eventually(t, 10*time.Second, func() bool {
		return scheduleOf(t, marker, last)["lastStatus"] == "ok" && scheduleOf(t, d, daily)["lastStatus"] == "ok" && scheduleOf(t, d, missed)["lastStatus"] == "ok"
	}) {
		t.Fatal("what was missed doesn't run")
	}
	if n := d.One("SELECT group_concat(a) FROM (SELECT a FROM t ORDER BY a)"); n != "daily,missed" {
		t.Errorf("what ran: %s", n)
	}
	if next := aTime(t, scheduleOf(t, d, missed)["nextRunAt"]); next.Before(began.Add(59*time.Minute)) || next.After(time.Now().Add(time.Hour)) {
		t.Errorf("started at %s, next at %s", began, next)
	}
	if next := aTime(t, scheduleOf(t, d, daily)["nextRunAt"]); !next.After(time.Now()) || next.Hour() != 0 || next.After(time.Now().Add(24*time.Hour)) {
		t.Errorf("the daily one is next at %s", next)
	}
	if a := scheduleOf(t, d, paused); a["lastRunAt"] != nil || a["nextRunAt"] != nil {
		t.Errorf("%v", a)
	}
	metrics := string(c.As("").Get("/metrics").Raw)
	if !strings.Contains(metrics, `persqld_schedule_runs_total{outcome="ok"} 3`) {
		t.Error("three runs aren't counted")
	}
	// Nothing of the trash ran; it goes on when the database is back.
	c.Post("/v1/databases/"+trashed+"/undelete", nil).OK()
	if !eventually(t, 10*time.Second, func() bool { return scheduleOf(t, deleted, resting)["lastStatus"] == "ok" }) {
		t.Fatal("it doesn't go on after the undelete")
	}
	if ran := aTime(t, scheduleOf(t, deleted, resting)["lastRunAt"]); ran.Before(aTime(t, scheduleOf(t, marker, last)["lastRunAt"])) || deleted.One("SELECT count(*) FROM t") != "1" {
		t.Errorf("it ran in the trash, at %s", ran)
	}
}

// A run ends after its time, and when its schedule is paused or deleted; nothing of it stands then, and its database answers again.
func TestScheduleEnds(t *testing.T) {
	row(t, "DP-SCHED-17")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_SCHEDULE_TIME=2s"}})
	d := newDB(t, s.Client(t, harness.Token))
	d.Must("CREATE TABLE t(a)")
	long := "INSERT INTO t VALUES(1); " + endless
	late := scheduled(d, "late", long)
	if said := runs(d, late).OK().Is("data.lastStatus", "failed").Str("data.lastError"); !strings.Contains(said, "PERSQLD_SCHEDULE_TIME") {
		t.Errorf("after its time: %s", said)
	}
	s = harness.Start(t, binary, harness.Options{})
	d = newDB(t, s.Client(t, harness.Token))
	d.Must("CREATE TABLE t(a)")
	for what, call := range map[string]func(id string){
		"paused":  func(id string) { d.Do("PATCH", d.Path("schedules/"+id), body{"enabled": false}).OK() },
		"deleted": func(id string) { d.Do(http.MethodDelete, d.Path("schedules/"+id), nil).OK() },
	} {
		id := scheduled(d, what, long)
		ended := make(chan *harness.Answer, 1)
		go func() {
			a, err := d.Try(http.MethodPost, d.Path("schedules/"+id+"/run"), nil)
			if err != nil {
				t.Error(err)
			}
			ended <- a
		}()
		eventually(t, 10*time.Second, func() bool { return scheduleOf(t, d, id)["runningSince"] != nil })
		began := time.Now()
		call(id)
		a := <-ended
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: the run ended after %v", what, took)
		}
		if what != "deleted" && !strings.Contains(a.Str("data.lastError"), "was changed, paused or deleted") {
			t.Errorf("%s: %s", what, a.Raw)
		}
	}
	if n := d.One("SELECT count(*) FROM t"); n != "0" {
		t.Errorf("%s rows of runs that were stopped", n)
	}
}

// What people approved of a schedule ends with the SQL that it was about, and with who answered for that.
func TestScheduleTakenOver(t *testing.T) {
	row(t, "DP-SCHED-18")
	o := newOffice(t)
	d := o.admin.DB("shop")
	d.Must("CREATE TABLE prod(a)")
	o.rule(d, body{"tableGlob": "prod", "action": "require_approval", "excludeRequester": true})
	anna, bert := enrol(t, o.s, "anna@example.com", "default", "admin"), enrol(t, o.s, "bert@example.com", "default", "admin")
	path := "/api/namespaces/default/databases/shop/schedules"
	id := anna.Post(path, body{"name": "s", "sql": "INSERT INTO prod VALUES(77)", "cron": "0 0 29 2 *"}).OK().Str("data.id")
	open := func() string {
		t.Helper()
		anna.Post(path+"/"+id+"/run", nil).OK().Is("data.lastStatus", "held")
		return o.admin.Get(d.Path("approvals?status=pending")).OK().Str("data.0.id")
	}
	first := open()
	anna.Post("/api/approvals/"+first+"/approve", body{}).Fails(http.StatusForbidden, "own_request")
	bert.Do("PATCH", path+"/"+id, body{"sql": "INSERT INTO prod VALUES(77)"}).OK() // the same, and now it is Bert's
	bert.Post("/api/approvals/"+first+"/approve", body{}).Fails(http.StatusConflict, "approval_over")
	second := open()
	bert.Post("/api/approvals/"+second+"/approve", body{}).Fails(http.StatusForbidden, "own_request")
	anna.Post("/api/approvals/"+second+"/approve", body{}).OK()
	if at := aTime(t, o.admin.Get(d.Path("approvals/"+second)).OK().At("data.expiresAt")); at.After(time.Now().Add(33 * 24 * time.Hour)) {
		t.Errorf("it can be redeemed until %s", at)
	}
	bert.Do("PATCH", path+"/"+id, body{"sql": "SELECT 1"}).OK()
	if a := o.admin.Post(d.Path("redeem_approval"), body{"approvalToken": second}); a.Status == http.StatusOK {
		t.Errorf("redeemed after the schedule has other SQL: %s", a.Raw)
	}
	bert.Do("PATCH", path+"/"+id, body{"sql": "DELETE FROM prod"}).OK()
	third := open()
	bert.Do(http.MethodDelete, path+"/"+id, nil).OK()
	o.admin.Get(d.Path("approvals/"+third)).OK().Is("data.status", "expired")
	if n := d.One("SELECT count(*) FROM prod"); n != "0" {
		t.Errorf("%s rows", n)
	}
}
