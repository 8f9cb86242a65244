package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// keepsHistory switches it on.
var keepsHistory = []string{"PERSQLD_HISTORY=720h"}

func restore(d *harness.DB, moment body) *harness.Answer {
	return d.Post(d.Path("restore"), moment)
}

func TestHistory(t *testing.T) {
	row(t, "DP-HIST-1", "DP-HIST-2", "DP-HIST-3", "DP-HIST-4", "DP-HIST-5", "DP-HIST-6", "DP-HIST-7", "DP-HIST-8", "DP-HIST-9")
	admin := harness.Start(t, binary, harness.Options{Env: keepsHistory}).Client(t, harness.Token)
	d := admin.DB(unused())
	began := time.Now()
	d.Batch(true, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "CREATE INDEX t_b ON t(b)", "CREATE TABLE o(x)").OK()
	one := d.Must("INSERT INTO t(b) VALUES('one')").Str("data.meta.bookmark")
	two := d.Must("INSERT INTO t(b) VALUES('two')").Str("data.meta.bookmark")
	if one == "" || one >= two {
		t.Errorf("bookmarks %q and %q", one, two)
	}
	d.Get(d.Path("bookmark")).OK().Is("data.bookmark", two).Has("data", "at")
	if b := d.Must("SELECT * FROM t").Str("data.meta.bookmark"); b != "null" && b != "" {
		t.Errorf("a read has the bookmark %s", b)
	}
	sees := func(want string) {
		t.Helper()
		if got := d.One("SELECT coalesce(group_concat(b), '') FROM t"); got != want {
			t.Errorf("sees %q, want %q", got, want)
		}
	}

	// Labels.
	made := d.Post(d.Path("snapshots"), body{"label": "two rows"}).OK().Is("data.label", "two rows").Is("data.automatic", "false").Is("data.bookmark", two)
	list := d.Get(d.Path("snapshots")).OK()
	list.Is("data.0.id", made.Str("data.id"))
	for _, bad := range []body{{}, {"label": ""}, {"label": strings.Repeat("x", 81)}, {"label": 1}} {
		d.Post(d.Path("snapshots"), bad).Fails(http.StatusBadRequest, "")
	}

	planned := []harness.Header{"Plan-Key: k", "Plan-Step: 1"}
	d.Post(d.Path("snapshots"), body{"label": "x"}, planned...).Fails(http.StatusBadRequest, "invalid_idempotency_key")
	d.Do("DELETE", d.Path("snapshots/"+made.Str("data.id")), nil, planned...).Fails(http.StatusBadRequest, "invalid_idempotency_key")
	d.Post(d.Path("restore"), body{"bookmark": two}, planned...).Fails(http.StatusBadRequest, "invalid_idempotency_key")

	// One is taken before what takes much away, and returned.
	for _, tt := range []struct{ sql, label string }{
		{"DELETE FROM o", "before DELETE of all of o"}, {"UPDATE o SET x = 1", "before UPDATE of all of o"}, {"delete from o returning x", "before DELETE of all of o"},
		{"DROP INDEX t_b", "before DROP INDEX t_b"}, {"ALTER TABLE o ADD COLUMN y", ""}, {"ALTER TABLE o DROP COLUMN y", "before ALTER TABLE o DROP"},
		{"DELETE FROM o WHERE 1", ""}, {"UPDATE o SET x = 'WHERE' WHERE x = 2", ""}, {"UPDATE o SET x = (SELECT 1 WHERE 1)", "before UPDATE of all of o"},
		{"CREATE TABLE IF NOT EXISTS o(x)", ""}, {"EXPLAIN DELETE FROM o", ""}, {"WITH c AS (SELECT 1) DELETE FROM o", "before DELETE of all of o"}, {"DROP TABLE o", "before DROP TABLE o"},
		{"DROP TABLE IF EXISTS nobody", ""},
	} {
		a := d.Must(tt.sql)
		if tt.label == "" {
			if a.At("data.meta.snapshot") != nil {
				t.Errorf("%s: a snapshot %s", tt.sql, a.Raw)
			}
			continue
		}
		a.Is("data.meta.snapshot.label", tt.label)
		d.Get(d.Path("snapshots")).OK().Is("data.0.id", a.Str("data.meta.snapshot.id")).Is("data.0.automatic", "true")
	}
	lost := d.Batch(true, "INSERT INTO t(b) VALUES('three')", "DELETE FROM t", "DELETE FROM t").OK()
	lost.Is("meta.snapshot.label", "before DELETE of all of t")
	d.Batch(true, "DELETE FROM t", "SELECT * FROM nowhere").Fails(http.StatusBadRequest, "unknown_table")
	sees("")
	n := len(d.Get(d.Path("snapshots")).OK().List("data"))
	a := restore(d, body{"snapshotId": lost.Str("meta.snapshot.id")}).OK()
	sees("one,two")
	a.Is("data.snapshot.label", "before restore").Is("data.snapshot.automatic", "true")
	if got := len(d.Get(d.Path("snapshots")).OK().List("data")); got != n+1 {
		t.Errorf("%d snapshots after a restore, want %d: they are not rolled back", got, n+1)
	}
	restore(d, body{"snapshotId": a.Str("data.snapshot.id")}).OK()
	sees("")

	// Bookmarks and times.
	restore(d, body{"bookmark": one}).OK().Is("data.restoredTo", one)
	sees("one")
	three := d.Must("INSERT INTO t(b) VALUES('after')").Str("data.meta.bookmark")
	if three <= two {
		t.Errorf("bookmark %s after %s", three, two)
	}
	sees("one,after")
	restore(d, body{"bookmark": two}).OK()
	sees("one,two")
	restore(d, body{"timestamp": time.Now().UnixMilli()}).OK()
	sees("one,two")
	restore(d, body{"timestamp": time.Now().UTC().Format(time.RFC3339Nano)}).OK()
	sees("one,two")
	restore(d, body{"timestamp": began.Add(-time.Hour).UnixMilli()}).Fails(http.StatusConflict, "not_in_history")

	// A key's answer is not rolled back: what was answered was.
	first := d.Post(d.Path("query"), harness.Body("INSERT INTO t(b) VALUES('keyed')"), key("k")).OK()
	restore(d, body{"bookmark": two}).OK()
	sees("one,two")
	if again := d.Post(d.Path("query"), harness.Body("INSERT INTO t(b) VALUES('keyed')"), key("k")).OK(); string(again.Raw) != string(first.Raw) {
		t.Errorf("sent again: %s, first %s", again.Raw, first.Raw)
	}
	sees("one,two")

	// Imports and load-csv.
	csv := d.Post(d.Path("load-csv?table=t&mode=replace"), harness.Raw("b\nx\n")).OK().Is("meta.snapshot.label", "before load-csv into t")
	sees("x")
	restore(d, body{"snapshotId": csv.Str("meta.snapshot.id")}).OK()
	sees("one,two")
	imported := d.Post(d.Path("import"), harness.Raw("INSERT INTO t(b) VALUES('imported');"), harness.Header("Content-Type: application/sql")).OK().Is("data.snapshot.label", "before import")
	sees("one,two,imported")
	restore(d, body{"snapshotId": imported.Str("data.snapshot.id")}).OK()
	sees("one,two")

	// What is no moment.
	other := admin.DB(unused())
	foreign := other.Must("CREATE TABLE t(a)").Str("data.meta.bookmark")
	for _, bad := range []struct {
		moment body
		status int
		code   string
	}{
		{body{}, 400, "bad_request"}, {body{"bookmark": one, "timestamp": 1}, 400, "bad_request"}, {body{"bookmark": foreign}, 400, "invalid_bookmark"}, {body{"bookmark": "x"}, 400, "invalid_bookmark"},
		{body{"timestamp": "yesterday"}, 400, "bad_request"}, {body{"timestamp": -5}, 400, "bad_request"}, {body{"snapshotId": "snap_none"}, 404, "not_found"}, {body{"timestamp": true}, 400, "bad_request"},
	} {
		restore(d, bad.moment).Fails(bad.status, bad.code)
	}
	d.Do("DELETE", d.Path("snapshots/"+made.Str("data.id")), nil).OK().Is("data.deleted", "true")
	d.Do("DELETE", d.Path("snapshots/"+made.Str("data.id")), nil).Fails(http.StatusNotFound, "not_found")
	restore(d, body{"bookmark": made.Str("data.bookmark")}).OK() // the moment stays
	for _, as := range []body{{"role": "write"}, {"role": "read"}} {
		c := d.As(mint(admin, as))
		c.Post(d.Path("restore"), body{"bookmark": one}).Fails(http.StatusForbidden, "role_not_allowed")
		c.Get(d.Path("snapshots")).Fails(http.StatusForbidden, "role_not_allowed")
		c.Post(d.Path("snapshots"), body{"label": "x"}).Fails(http.StatusForbidden, "role_not_allowed")
		c.Get(d.Path("bookmark")).OK()
	}
	d.As(mint(admin, body{"tableScope": []string{"t"}})).Post(d.Path("restore"), body{"bookmark": one}).Fails(http.StatusForbidden, "scope_not_allowed")
	d.Post(d.Path("policies"), body{"name": "p", "tableName": "t", "expression": "b = :auth_b"}).OK()
	bound := d.As(mint(admin, body{"claims": body{"b": "one"}}))
	bound.Post(d.Path("restore"), body{"bookmark": one}).Fails(http.StatusForbidden, "policy_not_allowed")
	restore(d, body{"bookmark": two}).OK()
	if got := bound.DB(d.Slug).One("SELECT group_concat(b) FROM t"); got != "one" {
		t.Errorf("a policy was rolled back: sees %s", got)
	}
	for _, action := range []string{"snapshot.created", "snapshot.deleted", "database.restored"} {
		if len(admin.Get("/v1/audit?action="+action).OK().List("data")) == 0 {
			t.Errorf("no entry of %s", action)
		}
	}
}

func TestNoHistory(t *testing.T) {
	row(t, "DP-HIST-10")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_HISTORY=0s"}})
	d := s.Client(t, harness.Token).DB("shop")
	if a := d.Must("CREATE TABLE t(a)"); a.At("data.meta.bookmark") != nil {
		t.Errorf("a bookmark without a history: %s", a.Raw)
	}
	if a := d.Must("DROP TABLE t"); a.At("data.meta.snapshot") != nil {
		t.Errorf("a snapshot without a history: %s", a.Raw)
	}
	for _, path := range []string{"bookmark", "snapshots"} {
		d.Get(d.Path(path)).Fails(http.StatusConflict, "no_history")
	}
	d.Post(d.Path("snapshots"), body{"label": "x"}).Fails(http.StatusConflict, "no_history")
	d.Do("DELETE", d.Path("snapshots/x"), nil).Fails(http.StatusConflict, "no_history")
	restore(d, body{"timestamp": 1}).Fails(http.StatusConflict, "no_history")
	s.Stop(t)
	// One that begins later begins with what is there.
	d.Client = nil
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: []string{"PERSQLD_HISTORY=1h"}})
	d = s.Client(t, harness.Token).DB("shop")
	first := d.Must("CREATE TABLE u(a)").Str("data.meta.bookmark")
	d.Must("INSERT INTO u VALUES(1)")
	restore(d, body{"bookmark": first}).OK()
	if got := d.One("SELECT count(*) FROM u"); got != "0" {
		t.Errorf("%s rows", got)
	}
	// One that is switched off is not gone on with: what was written meanwhile would be missing. Nor are its positions used again.
	s.Stop(t)
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: []string{"PERSQLD_HISTORY=0s"}})
	d = s.Client(t, harness.Token).DB("shop")
	d.Must("INSERT INTO u VALUES(1), (2), (3)")
	s.Stop(t)
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: []string{"PERSQLD_HISTORY=1h"}})
	d = s.Client(t, harness.Token).DB("shop")
	begun := d.Must("INSERT INTO u VALUES(4)").Str("data.meta.bookmark")
	d.Must("DELETE FROM u")
	for range 20 {
		d.Must("INSERT INTO u VALUES(5)")
	}
	restore(d, body{"bookmark": first}).Fails(http.StatusConflict, "not_in_history")
	restore(d, body{"bookmark": begun}).OK()
	if got := d.One("SELECT count(*) FROM u"); got != "4" {
		t.Errorf("%s rows", got)
	}
	if aside, _ := filepath.Glob(filepath.Join(s.Data, "history.until-*")); len(aside) != 1 {
		t.Errorf("set aside: %v", aside)
	}
}

// TestRandomMoments writes a ledger while the server is killed again and again, and restores many of its moments: each holds exactly the entries up to it.
func TestRandomMoments(t *testing.T) {
	row(t, "DP-HIST-4", "DP-HIST-11")
	replica := "file://" + filepath.Join(t.TempDir(), "replica")
	env := replicates(replica)
	s := harness.Start(t, binary, harness.Options{Env: env})
	data := s.Data
	type entry struct {
		bookmark     string
		sent, answer time.Time
	}
	var ledger []entry // by number
	s.Client(t, harness.Token).DB("ledger").Must("CREATE TABLE ledger(n INTEGER PRIMARY KEY, filler)")
	r := rand.New(rand.NewPCG(1, 2))
	for life := range 20 {
		c := s.Client(t, harness.Token).Apart()
		d := c.DB("ledger")
		killed := make(chan struct{})
		var once sync.WaitGroup
		once.Add(1)
		lives := 10 + r.IntN(40)
		go func() {
			defer close(killed)
			once.Wait()
			s.Kill()
		}()
		for i := 0; ; i++ {
			if i == lives {
				once.Done()
			}
			n := len(ledger)
			sent := time.Now()
			// Sent again after a crash, it is there already, or not: the key tells.
			a, err := c.Try("POST", d.Path("query"), harness.Body("INSERT INTO ledger VALUES(?, zeroblob(?))", n, (n*7919)%30000), key(fmt.Sprint("entry-", n)))
			if err != nil {
				break
			}
			if a.Status != http.StatusOK {
				t.Fatalf("entry %d: %s", n, a.Raw)
			}
			ledger = append(ledger, entry{a.Str("data.meta.bookmark"), sent, time.Now()})
		}
		<-killed
		s = harness.Start(t, binary, harness.Options{Data: data, Env: env})
		if life%4 == 1 { // and an orderly end
			s.Stop(t)
			s = harness.Start(t, binary, harness.Options{Data: data, Env: env})
		}
	}
	c := s.Client(t, harness.Token)
	d := c.DB("ledger")
	holds := func(what string, least, most int) {
		t.Helper()
		count, last := d.One("SELECT count(*) FROM ledger"), d.One("SELECT coalesce(max(n), -1) FROM ledger")
		var k, m int
		fmt.Sscan(count, &k)
		fmt.Sscan(last, &m)
		if k != m+1 || k < least || k > most {
			t.Fatalf("%s: %d entries, the last is %d, want %d to %d", what, k, m, least, most)
		}
	}
	t.Logf("%d entries", len(ledger))
	for range 100 {
		n := r.IntN(len(ledger))
		restore(d, body{"bookmark": ledger[n].bookmark}).OK()
		holds("bookmark of "+fmt.Sprint(n), n+1, n+1)
	}
	start, end := ledger[0].sent, ledger[len(ledger)-1].answer
	for range 100 {
		at := start.Add(time.Duration(r.Int64N(int64(end.Sub(start))))).Truncate(time.Millisecond)
		least, most := 0, 0
		for _, e := range ledger {
			if e.answer.Before(at) { // committed by then
				least++
			}
			if !e.sent.After(at.Add(time.Millisecond)) {
				most++
			}
		}
		a := restore(d, body{"timestamp": at.UnixMilli()})
		if a.Status == http.StatusConflict && least == 0 {
			continue
		}
		a.OK()
		holds("time "+at.Format(time.RFC3339Nano), least, most+1)
	}
	// What the restores replaced is there too.
	restore(d, body{"bookmark": ledger[len(ledger)-1].bookmark}).OK()
	holds("the last", len(ledger), len(ledger))
	caughtUp(t, s)
	id := databaseID(t, c, "ledger")
	s.Stop(t)
	if got, want := contentOf(t, litestreamed(t, replica, id, nil)), contentOf(t, fileOf(t, filepath.Join(data, "db"), id)); got != want {
		t.Errorf("litestream has\n%s\nthe server\n%s", harness.Tail(got, 2000), harness.Tail(want, 2000))
	}
}
