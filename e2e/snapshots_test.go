package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// destroying are statements before which a snapshot is taken, with its label, on what destroyed makes.
var destroying = []struct{ sql, label string }{
	{"DROP TABLE o", "before DROP TABLE o"}, {"DROP TABLE IF EXISTS main.o", "before DROP TABLE o"}, {"DROP INDEX t_b", "before DROP INDEX t_b"},
	{"DROP VIEW v", "before DROP VIEW v"}, {"DROP TRIGGER tr", "before DROP TRIGGER tr"}, {"/* WHERE */ drop -- WHERE\n table o;", "before DROP TABLE o"},
	{"DROP TABLE f", "before DROP TABLE f"}, {"ALTER TABLE o DROP COLUMN y", "before ALTER TABLE o DROP"},
	{"DELETE FROM t", "before DELETE of all of t"}, {"-- WHERE\nDELETE /* WHERE a=1 */ FROM main.t AS x;", "before DELETE of all of t"},
	{"DELETE FROM \"t\" RETURNING 'WHERE', a AS \"where\"", "before DELETE of all of t"}, {"DELETE FROM t RETURNING (SELECT 1 WHERE 1)", "before DELETE of all of t"},
	{"WITH c AS (SELECT a FROM t WHERE a = 1) DELETE FROM t", "before DELETE of all of t"}, {"DELETE FROM f", "before DELETE of all of f"},
	{"DELETE FROM w", "before DELETE of all of w"}, {"DELETE FROM v", "before DELETE of all of v"},
	{"UPDATE t SET b = 'WHERE'", "before UPDATE of all of t"}, {"UPDATE OR REPLACE t SET b = (SELECT x FROM o WHERE x = 1)", "before UPDATE of all of t"},
	{"WITH c(n) AS (SELECT 1 WHERE 1) UPDATE t SET b = n FROM c", "before UPDATE of all of t"}, {"UPDATE t SET b = b || '!' RETURNING (SELECT 1 WHERE 1)", "before UPDATE of all of t"},
}

// sparing are statements before which none is.
var sparing = []string{
	"DELETE FROM t WHERE 1", "UPDATE t SET b = 1 WHERE a = 1", "WITH c AS (SELECT 1) DELETE FROM t WHERE a IN c", "DELETE FROM t NOT INDEXED WHERE a > 0",
	"INSERT INTO t VALUES(1, 'x') ON CONFLICT(a) DO UPDATE SET b = excluded.b", "INSERT INTO t(b) SELECT b FROM t", "REPLACE INTO t VALUES(1, 'y')", "INSERT INTO ins VALUES(1)",
	"CREATE TABLE n(a)", "CREATE VIEW n2 AS SELECT 1", "ALTER TABLE o RENAME TO p", "ALTER TABLE o ADD COLUMN z", "SELECT 'DELETE FROM t'", "EXPLAIN DELETE FROM t",
	"EXPLAIN QUERY PLAN UPDATE t SET b = 1", "DROP TABLE IF EXISTS nobody", "REINDEX", "PRAGMA user_version", "VACUUM",
}

// destroyed makes a database of every kind of object, and returns the bookmark of when it was empty.
func destroyed(t testing.TB, c *harness.Client) (d *harness.DB, empty string) {
	d = newDB(t, c)
	empty = d.Get(d.Path("bookmark")).OK().Str("data.bookmark")
	d.Batch(true, "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b, g AS (b || '?') STORED)", "CREATE INDEX t_b ON t(b)", "CREATE TABLE o(x, y)", "CREATE VIEW v AS SELECT * FROM t",
		"CREATE TRIGGER tr INSTEAD OF DELETE ON v BEGIN DELETE FROM t WHERE a = old.a; END", "CREATE VIRTUAL TABLE f USING fts5(x)", "CREATE TABLE w(k PRIMARY KEY, x) WITHOUT ROWID",
		"CREATE TABLE ins(a)", "CREATE TRIGGER ins AFTER INSERT ON ins BEGIN DELETE FROM t; DELETE FROM ins; END", "CREATE TABLE log(n)", "CREATE TABLE kid(p REFERENCES w(k))",
		"INSERT INTO t(b) VALUES('one'), ('two'), (NULL)", "INSERT INTO o VALUES(1, x'00ff'), (2.5, NULL)", "INSERT INTO f VALUES('some words')", "INSERT INTO w VALUES('k', 1)").OK()
	return d, empty
}

// dumped is all that a database holds, as text.
func dumped(t testing.TB, d *harness.DB) string {
	t.Helper()
	_, text := download(t, d, "export")
	return string(text)
}

// TestSnapshotBeforeEach: every way of taking much away is preceded by a snapshot, whose moment is what was there.
func TestSnapshotBeforeEach(t *testing.T) {
	row(t, "DP-HIST-4", "DP-HIST-7")
	s := people(t, keepsHistory...)
	c := s.Client(t, harness.Token)
	d, empty := destroyed(t, c)
	admin := enrol(t, s, "admin@example.com", "default", "admin")
	twin := "/api/namespaces/default/databases/" + d.Slug + "/"
	ways := []struct {
		name string
		send func(sql string) *harness.Answer
		meta string
	}{
		{"query", func(sql string) *harness.Answer { return d.Query(sql) }, "data.meta"},
		{"transaction", func(sql string) *harness.Answer {
			return d.Batch(true, "INSERT INTO log VALUES(1)", sql, "INSERT INTO log VALUES(2)")
		}, "meta"},
		{"batch", func(sql string) *harness.Answer {
			return d.Batch(false, "INSERT INTO log VALUES(1)", sql, "INSERT INTO log VALUES(2)")
		}, "meta"},
		{"query of a member", func(sql string) *harness.Answer { return admin.Post(twin+"query", harness.Body(sql)) }, "data.meta"},
		{"batch of a member", func(sql string) *harness.Answer { return admin.Post(twin+"batch", harness.BatchBody(true, sql)) }, "meta"},
	}
	was := dumped(t, d)
	for _, way := range ways {
		for _, tt := range destroying {
			a := way.send(tt.sql).OK().Is(way.meta+".snapshot.label", tt.label)
			if now := dumped(t, d); now == was {
				t.Errorf("%s: %s did nothing", way.name, tt.sql)
			}
			restore(d, body{"snapshotId": a.Str(way.meta + ".snapshot.id")}).OK()
			if now := dumped(t, d); now != was {
				t.Errorf("%s: before %s there was\n%s\nrestored\n%s", way.name, tt.sql, was, now)
			}
		}
	}
	begin := d.Get(d.Path("bookmark")).OK().Str("data.bookmark")
	for _, way := range ways[:2] {
		for _, sql := range sparing {
			if way.name != "query" && sql == "VACUUM" {
				continue
			}
			if a := way.send(sql).OK(); a.At(way.meta+".snapshot") != nil {
				t.Errorf("%s: a snapshot before %s", way.name, sql)
			}
			restore(d, body{"bookmark": begin}).OK()
		}
	}

	// What comes as a file.
	for _, tt := range []struct {
		name, label, field string
		send               func() *harness.Answer
	}{
		{"load-csv", "before load-csv into o", "meta.snapshot", func() *harness.Answer { return loads(t, d, "x,y\n7,8\n", "table=o", "mode=replace") }},
		{"load-csv of a member", "before load-csv into o", "meta.snapshot", func() *harness.Answer {
			return admin.Post(twin+"load-csv?table=o&mode=replace", harness.Raw("x,y\n7,8\n"))
		}},
		{"import of SQL", "before import", "data.snapshot", func() *harness.Answer { return imports(t, d, []byte("DROP TABLE t; CREATE TABLE t(z);")) }},
		{"import of SQL of a member", "before import", "data.snapshot", func() *harness.Answer { return admin.Post(twin+"import", harness.Raw("DELETE FROM t;")) }},
		{"import of a file", "before import", "data.snapshot", func() *harness.Answer {
			e := newDB(t, c)
			e.Must("CREATE TABLE other AS SELECT 1 AS a")
			_, file := download(t, e, "export?format=sqlite")
			return imports(t, d, file)
		}},
		{"restore", "before restore", "data.snapshot", func() *harness.Answer { return restore(d, body{"bookmark": empty}) }},
	} {
		a := tt.send().OK().Is(tt.field+".label", tt.label)
		if now := dumped(t, d); now == was {
			t.Errorf("%s did nothing", tt.name)
		}
		restore(d, body{"snapshotId": a.Str(tt.field + ".id")}).OK()
		if now := dumped(t, d); now != was {
			t.Errorf("before %s there was\n%s\nrestored\n%s", tt.name, was, now)
		}
	}

	// Where nothing was done, nothing is labelled.
	labels := func() int { return len(d.Get(d.Path("snapshots")).OK().List("data")) }
	n := labels()
	d.Must("CREATE TABLE strict_one(a NOT NULL UNIQUE)")
	d.Must("INSERT INTO strict_one VALUES(1), (2)")
	for _, way := range ways {
		for _, sql := range []string{"UPDATE strict_one SET a = 1", "UPDATE strict_one SET a = NULL", "DROP TABLE nobody", "DELETE FROM nobody", "DELETE FROM t RETURNING nobody"} {
			if a := way.send(sql); a.Status == http.StatusOK {
				t.Errorf("%s: %s: %s", way.name, sql, a.Raw)
			}
		}
	}
	d.Batch(true, "DELETE FROM t", "UPDATE strict_one SET a = 1").Fails(http.StatusBadRequest, "unique_violation")
	d.Batch(false, "INSERT INTO log VALUES(1)", "UPDATE strict_one SET a = 1", "DELETE FROM t").Fails(http.StatusBadRequest, "unique_violation")
	loads(t, d, "a\n7\n7\n", "table=strict_one", "mode=replace").Fails(http.StatusBadRequest, "unique_violation")
	imports(t, d, []byte("DROP TABLE t; SELECT nonsense;")).Fails(http.StatusBadRequest, "")
	restore(d, body{"timestamp": 5}).Fails(http.StatusConflict, "not_in_history")
	reader := d.As(mint(c, body{"role": "read"}))
	reader.Post(d.Path("query"), harness.Body("DELETE FROM t")).Fails(http.StatusForbidden, "")
	d.As(mint(c, body{"role": "write"})).Post(d.Path("query"), harness.Body("DROP TABLE t")).Fails(http.StatusForbidden, "")
	d.As(mint(c, body{"role": "write", "tableScope": []string{"o"}})).Post(d.Path("query"), harness.Body("DELETE FROM t")).Fails(http.StatusForbidden, "")
	if got := labels(); got != n {
		t.Errorf("%d snapshots stay of what failed: %s", got-n, d.Get(d.Path("snapshots")).Raw)
	}
	// In a batch what stands before the failure stays, and its snapshot too.
	d.Batch(false, "DELETE FROM o", "UPDATE strict_one SET a = 1").Fails(http.StatusBadRequest, "unique_violation")
	if got := labels(); got != n+1 {
		t.Errorf("%d snapshots more of a batch that was kept in part", got-n)
	}

	// Writers whom policies bind destroy as much as they may.
	d.Post(d.Path("policies"), body{"name": "p", "tableName": "t", "expression": "b = :auth_b"}).OK()
	bound := d.As(mint(c, body{"role": "write", "claims": body{"b": "one"}}))
	was = dumped(t, d)
	for _, sql := range []string{"DELETE FROM t", "UPDATE t SET a = a + 100", "WITH c AS (SELECT 1) DELETE FROM t"} {
		a := bound.Post(d.Path("query"), harness.Body(sql)).OK()
		if a.At("data.meta.snapshot") == nil {
			t.Errorf("under a policy: no snapshot before %s: %s", sql, a.Raw)
			continue
		}
		restore(d, body{"snapshotId": a.Str("data.meta.snapshot.id")}).OK()
		if now := dumped(t, d); now != was {
			t.Errorf("under a policy: before %s there was\n%s\nrestored\n%s", sql, was, now)
		}
	}
}

// TestSnapshotsAmongWriters: what was answered to others before a DELETE is in its snapshot, and what came later isn't, however they meet in a commit.
func TestSnapshotsAmongWriters(t *testing.T) {
	row(t, "DP-HIST-6", "DP-HIST-7")
	c := harness.Start(t, binary, harness.Options{Env: keepsHistory}).Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(n INTEGER PRIMARY KEY)")
	var mu sync.Mutex
	written := map[int]string{} // the bookmark of each number's INSERT
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			c := c.Apart()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				n := i*8 + w
				path, b := d.Path("query"), any(harness.Body("INSERT INTO t VALUES(?)", n))
				if i%3 == 1 {
					path, b = d.Path("batch"), harness.BatchBody(i%2 == 0, harness.Body("INSERT INTO t VALUES(?)", n), "SELECT 1")
				}
				a, err := c.Try("POST", path, b)
				if err != nil || a.Status != http.StatusOK {
					t.Errorf("insert %d: %v %s", n, err, a.Raw)
					return
				}
				mark := a.Str("meta.bookmark")
				mu.Lock()
				written[n] = mark
				mu.Unlock()
			}
		})
	}
	type deletion struct{ snapshot, bookmark string }
	var deletions []deletion
	for i := range 30 {
		var a *harness.Answer
		if i%2 == 1 {
			a = d.Batch(i%4 == 1, "DELETE FROM t", "SELECT 1").OK()
		} else {
			a = d.Must("DELETE FROM t")
		}
		deletions = append(deletions, deletion{a.Str("meta.snapshot.id"), a.Str("meta.bookmark")})
	}
	close(stop)
	writers.Wait()
	at := map[string]string{}
	for i := range d.Get(d.Path("snapshots")).OK().List("data") {
		list := d.Get(d.Path("snapshots")).OK()
		at[list.Str(fmt.Sprintf("data.%d.id", i))] = list.Str(fmt.Sprintf("data.%d.bookmark", i))
	}
	last, many := "", 0
	for _, del := range deletions {
		mark := at[del.snapshot]
		if mark == "" || del.bookmark != "" && del.bookmark != "null" && mark >= del.bookmark {
			t.Fatalf("the snapshot %s is at %q, its DELETE at %q", del.snapshot, mark, del.bookmark)
		}
		restore(d, body{"snapshotId": del.snapshot}).OK()
		var want []int
		for _, n := range slices.Sorted(maps.Keys(written)) {
			if written[n] <= mark && written[n] > last {
				want = append(want, n)
			}
		}
		many += len(want)
		var got []int
		for _, r := range d.Must("SELECT n FROM t ORDER BY n").Rows() {
			var n int
			fmt.Sscan(harness.Text(r[0]), &n)
			got = append(got, n)
		}
		if !slices.Equal(got, want) {
			t.Errorf("at %s: restored %v, want %v", mark, got, want)
		}
		last = mark
	}
	if many == 0 {
		t.Error("nothing was written between the deletions")
	}
}

// TestHistoryOfMembers: what members may do with the history of a database, by their cookies.
func TestHistoryOfMembers(t *testing.T) {
	row(t, "DP-HIST-9", "DP-TWIN-1", "DP-TWIN-2")
	s := people(t, keepsHistory...)
	d := newDB(t, s.Client(t, harness.Token))
	d.Must("CREATE TABLE t(a)")
	one := d.Must("INSERT INTO t VALUES(1)").Str("data.meta.bookmark")
	d.Must("INSERT INTO t VALUES(2)")
	path := "/api/namespaces/default/databases/" + d.Slug + "/"
	id := d.Post(d.Path("snapshots"), body{"label": "two"}).OK().Str("data.id")
	for _, role := range []string{"viewer", "editor"} {
		p := enrol(t, s, role+"@example.com", "default", role)
		p.Get(path + "bookmark").OK()
		p.Get(path+"snapshots").Fails(http.StatusForbidden, "role_not_allowed")
		p.Post(path+"snapshots", body{"label": "x"}).Fails(http.StatusForbidden, "role_not_allowed")
		p.Do("DELETE", path+"snapshots/"+id, nil).Fails(http.StatusForbidden, "role_not_allowed")
		p.Post(path+"restore", body{"bookmark": one}).Fails(http.StatusForbidden, "role_not_allowed")
		p.Post("/api/namespaces/default/databases", body{"slug": "copy", "from": body{"database": d.Slug, "at": one}}).Fails(http.StatusForbidden, "role_not_allowed")
	}
	for _, role := range []string{"admin", "owner"} {
		p := enrol(t, s, role+"@example.com", "default", role)
		for _, foreign := range []harness.Header{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: https://evil.example"} {
			p.Post(path+"restore", body{"bookmark": one}, foreign).Fails(http.StatusForbidden, "")
			p.Post(path+"snapshots", body{"label": "x"}, foreign).Fails(http.StatusForbidden, "")
			p.Do("DELETE", path+"snapshots/"+id, nil, foreign).Fails(http.StatusForbidden, "")
			p.Post("/api/namespaces/default/databases", body{"slug": "copy", "from": body{"database": d.Slug, "at": one}}, foreign).Fails(http.StatusForbidden, "")
		}
		if got := d.One("SELECT count(*) FROM t"); got != "2" {
			t.Errorf("another site's request left %s rows", got)
		}
		p.Get(path+"snapshots").OK().Has("data.0", "id", "label", "createdAt", "bookmark", "automatic")
		mine := p.Post(path+"snapshots", body{"label": "of " + role}).OK().Str("data.id")
		a := p.Post(path+"restore", body{"bookmark": one}).OK()
		if got := d.One("SELECT count(*) FROM t"); got != "1" {
			t.Errorf("%s restored %s rows", role, got)
		}
		p.Post(path+"restore", body{"snapshotId": a.Str("data.snapshot.id")}).OK()
		p.Do("DELETE", path+"snapshots/"+mine, nil).OK()
		p.Post("/api/namespaces/default/databases", body{"slug": "copy-" + role, "from": body{"database": d.Slug, "at": one}}).OK()
		if entry := p.Get("/api/namespaces/default/audit?action=database.restored").OK(); entry.Str("data.0.actor.id") != p.id {
			t.Errorf("the audit log has %s", entry.Raw)
		}
	}
}

// snapshotsOf are a database's snapshots by id, and their ids in order.
func snapshotsOf(d *harness.DB) (byID map[string]body, ids []string) {
	byID = map[string]body{}
	for _, n := range d.Get(d.Path("snapshots")).OK().List("data") {
		n := n.(body)
		byID[n["id"].(string)] = n
		ids = append(ids, n["id"].(string))
	}
	return byID, ids
}

// TestSnapshotLimits: no number of snapshots keeps a write from being done, and none that somebody made goes by itself.
func TestSnapshotLimits(t *testing.T) {
	row(t, "DP-HIST-2", "DP-HIST-3", "DP-HIST-7")
	d := newDB(t, harness.Start(t, binary, harness.Options{Env: keepsHistory}).Client(t, harness.Token))
	d.Must("CREATE TABLE t(a)")
	const most = 1000
	first := d.Must("DELETE FROM t").Str("data.meta.snapshot.id")
	for range most {
		d.Post(d.Path("snapshots"), body{"label": "by hand"}).OK()
	}
	d.Post(d.Path("snapshots"), body{"label": "one more"}).Fails(http.StatusConflict, "too_many_snapshots")
	second := d.Must("DELETE FROM t").Str("data.meta.snapshot.id")
	count := func() (automatic, byHand int) {
		all, _ := snapshotsOf(d)
		for _, n := range all {
			if n["automatic"] == true {
				automatic++
			} else {
				byHand++
			}
		}
		return automatic, byHand
	}
	if a, h := count(); a != 2 || h != most {
		t.Errorf("%d automatic ones and %d by hand", a, h)
	}
	for range most - 1 {
		d.Must("DELETE FROM t")
	}
	all, _ := snapshotsOf(d)
	if a, h := count(); a != most || h != most || all[first] != nil || all[second] == nil {
		t.Errorf("%d automatic ones and %d by hand; the first of them %v, the second %v", a, h, all[first], all[second])
	}
	a := restore(d, body{"snapshotId": second}).OK()
	if after, _ := snapshotsOf(d); len(after) != 2*most || after[second] != nil || after[a.Str("data.snapshot.id")] == nil {
		t.Errorf("after a restore there are %d", len(after))
	}
	imports(t, d, []byte("INSERT INTO t VALUES(1);")).OK()
	if a, h := count(); a != most || h != most {
		t.Errorf("after an import %d automatic ones and %d by hand", a, h)
	}
	for id, n := range all {
		if n["automatic"] == false {
			d.Do("DELETE", d.Path("snapshots/"+id), nil).OK()
			break
		}
	}
	d.Post(d.Path("snapshots"), body{"label": "in its place"}).OK()
}

// TestSnapshotsThatLeft: what can't be restored any more is said to be so, and it is refused.
func TestSnapshotsThatLeft(t *testing.T) {
	row(t, "DP-HIST-2", "DP-HIST-10")
	s := harness.Start(t, binary, harness.Options{Env: keepsHistory})
	start := func(env ...string) *harness.DB {
		s.Stop(t)
		s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: env})
		return s.Client(t, harness.Token).DB("left")
	}
	label := func(d *harness.DB, text string) string {
		return d.Post(d.Path("snapshots"), body{"label": text}).OK().Is("data.restorable", "true").Str("data.id")
	}
	want := func(d *harness.DB, when string, held map[string]bool) {
		t.Helper()
		all, _ := snapshotsOf(d)
		for id, is := range held {
			if all[id]["restorable"] != is {
				t.Errorf("%s: %v, want restorable %v", when, all[id], is)
			}
		}
		for id := range held {
			a := restore(d, body{"snapshotId": id})
			if (a.Status == http.StatusOK) != held[id] {
				t.Errorf("%s: restore of %v: %s", when, all[id], a.Raw)
			}
		}
	}
	d := s.Client(t, harness.Token).DB("left")
	d.Post("/v1/databases", body{"slug": d.Slug}).OK()
	empty := label(d, "empty")
	d.Must("CREATE TABLE t(a)")
	d.Must("INSERT INTO t VALUES(1)")
	by := label(d, "one")
	automatic := d.Must("DELETE FROM t").Str("data.meta.snapshot.id")
	want(d, "at first", map[string]bool{empty: true, by: true, automatic: true})
	s.Kill()
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: keepsHistory})
	d = s.Client(t, harness.Token).DB("left")
	want(d, "after kill -9", map[string]bool{empty: true, by: true, automatic: true})
	restore(d, body{"snapshotId": by}).OK() // the last one that was restored may be the empty one
	d.Must("INSERT INTO t VALUES(2)")

	// Set aside: the history begins anew, whoever asks first.
	start("PERSQLD_HISTORY=0s")
	d = start(keepsHistory...)
	want(d, "set aside", map[string]bool{empty: false, by: false, automatic: false})
	d.Must("INSERT INTO t VALUES(3)")
	now := label(d, "now")
	want(d, "begun anew", map[string]bool{empty: false, by: false, automatic: false, now: true})

	// Automatic ones that are older than the history go, when there is another one. Those that somebody made stay.
	d = start("PERSQLD_HISTORY=1s")
	started := time.Now()
	eventually(t, 5*time.Second, func() bool { return time.Since(started) > 1100*time.Millisecond }) // the age that the history has
	next := d.Must("DELETE FROM t").Str("data.meta.snapshot.id")
	all, _ := snapshotsOf(d)
	if all[automatic] != nil || all[next] == nil || all[by] == nil || all[empty] == nil {
		t.Errorf("left: %v", all)
	}
}

// TestRestoreTakesBackNoCount: what was written is counted, and costs, though the rows are gone; and what is written afterwards does, too.
func TestRestoreTakesBackNoCount(t *testing.T) {
	row(t, "DP-HIST-8")
	c := harness.Start(t, binary, harness.Options{Env: keepsHistory}).Client(t, harness.Token)
	d := newDB(t, c)
	then := d.Must("CREATE TABLE t(a)").Str("data.meta.bookmark")
	written := func() (n int64) {
		n, _ = c.Get("/v1/usage").OK().At("data.totals.rowsWritten").(json.Number).Int64()
		return n
	}
	before := written()
	for round := range int64(3) {
		for range 10 {
			d.Must("INSERT INTO t VALUES(1)")
		}
		if got := written() - before; got < 10*(round+1) {
			t.Errorf("%d rows are counted after %d", got, 10*(round+1))
		}
		restore(d, body{"bookmark": then}).OK()
	}
}

// TestRestoresAmongEachOther: each restore and import that was answered 200 was done and has its snapshot, and no other has.
func TestRestoresAmongEachOther(t *testing.T) {
	row(t, "DP-HIST-4", "DP-HIST-7", "DP-HIST-8")
	c := harness.Start(t, binary, harness.Options{Env: keepsHistory}).Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	var marks []string
	for i := range 8 {
		marks = append(marks, d.Must("INSERT INTO t VALUES(?)", i).Str("data.meta.bookmark"))
	}
	before := d.Get(d.Path("bookmark")).OK().Str("data.bookmark")
	var all sync.WaitGroup
	var done, refused atomic.Int64
	for w := range 4 {
		all.Go(func() {
			c := c.Apart()
			for i := range 25 {
				path, b := d.Path("restore"), any(body{"bookmark": marks[(w+i)%len(marks)]})
				if w == 3 {
					path, b = d.Path("import"), harness.Raw("UPDATE t SET a = a + 100;")
				}
				a, err := c.Try("POST", path, b)
				switch {
				case err != nil:
					t.Error(err)
				case a.Status == http.StatusOK:
					done.Add(1)
				case a.Status == http.StatusServiceUnavailable || a.Status == http.StatusTooManyRequests:
					refused.Add(1)
					if a.Header.Get("Retry-After") == "" {
						t.Errorf("refused without a time to come again: %s", a.Raw)
					}
				default:
					t.Errorf("%d %s", a.Status, a.Raw)
				}
			}
		})
	}
	all.Wait()
	list, ids := snapshotsOf(d)
	if len(ids) != int(done.Load()) || done.Load() == 0 {
		t.Errorf("%d were done, %d refused, and there are %d snapshots", done.Load(), refused.Load(), len(ids))
	}
	if entries := len(c.Get("/v1/audit?action=database.restored&limit=500").OK().List("data")) + len(c.Get("/v1/audit?action=database.imported&limit=500").OK().List("data")); entries != int(done.Load()) {
		t.Errorf("%d entries of %d that were done", entries, done.Load())
	}
	var from, to uint64
	fmt.Sscanf(before[:16], "%x", &from)
	fmt.Sscanf(d.Get(d.Path("bookmark")).OK().Str("data.bookmark")[:16], "%x", &to)
	if to-from != uint64(done.Load()) {
		t.Errorf("%d transactions for %d", to-from, done.Load())
	}
	seen := map[any]bool{}
	for _, n := range list {
		if seen[n["bookmark"]] || n["restorable"] != true {
			t.Errorf("twice, or not there: %v", n)
		}
		seen[n["bookmark"]] = true
	}
}
