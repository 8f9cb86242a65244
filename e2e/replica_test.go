package e2e_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/bucket/buckettest"
	"github.com/persqld/persqld/internal/sqlite"
)

// replicates is the environment of a server with a replica.
func replicates(url string, more ...string) []string {
	return append([]string{"PERSQLD_REPLICA_URL=" + url, "PERSQLD_REPLICA_INTERVAL=100ms"}, more...)
}

// caughtUp waits until the replica has everything.
func caughtUp(t *testing.T, s *harness.Server) {
	t.Helper()
	c := s.Client(t, "")
	behind := 0.0
	if !eventually(t, 60*time.Second, func() bool { behind = metric(t, c, "persqld_replica_behind_databases"); return behind == 0 }) {
		t.Fatalf("%v databases are not in the replica\n%s", behind, harness.Tail(s.Log(), 2000))
	}
}

// metric is the value of a metric without labels.
func metric(t *testing.T, c *harness.Client, name string) float64 {
	t.Helper()
	for line := range strings.Lines(string(c.Get("/metrics").Raw)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			var v float64
			fmt.Sscan(rest, &v)
			return v
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// litestreamed is what stock Litestream makes of a database of a replica.
func litestreamed(t *testing.T, url, id string, env []string) string {
	t.Helper()
	program := buckettest.Tool(t, buckettest.Litestream)
	path := filepath.Join(t.TempDir(), "litestream.db")
	at, query, _ := strings.Cut(url, "?")
	source := at + "/databases/" + id
	if query != "" {
		source += "?" + query
	}
	cmd := exec.Command(program, "restore", "-o", path, source)
	cmd.Env = append(append(os.Environ(), env...), "AWS_CA_BUNDLE=") // with one, its S3 client doesn't start
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("litestream restore %s: %v\n%s", id, err, out)
	}
	return path
}

// contentOf is a database's schema and rows, and what an integrity check finds, as text.
func contentOf(t *testing.T, path string) string {
	t.Helper()
	db, err := sqlite.OpenDriver(path, sqlite.DriverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var b strings.Builder
	read := func(query string) (list []string) {
		rows, err := db.Query(query)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		defer rows.Close()
		columns, _ := rows.Columns()
		for rows.Next() {
			values, at := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				at[i] = &values[i]
			}
			if err := rows.Scan(at...); err != nil {
				t.Fatal(err)
			}
			list = append(list, fmt.Sprintf("%q", values))
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return list
	}
	for _, line := range read("PRAGMA integrity_check") {
		fmt.Fprintln(&b, line)
	}
	for _, line := range read("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name") {
		fmt.Fprintln(&b, line)
	}
	names, err := db.Query("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
	if err != nil {
		t.Fatal(err)
	}
	tables, err := textColumn(names)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tables {
		lines := read("SELECT * FROM \"" + name + "\"")
		slices.Sort(lines)
		for _, line := range lines {
			fmt.Fprintln(&b, name, line)
		}
	}
	return b.String()
}

func textColumn(rows *sql.Rows) (list []string, err error) {
	defer rows.Close()
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

// databaseID is the id of a database of the default namespace.
func databaseID(t *testing.T, c *harness.Client, slug string) string {
	t.Helper()
	for _, d := range c.Get("/v1/databases").OK().List("data") {
		if m := d.(map[string]any); m["slug"] == slug {
			return m["id"].(string)
		}
	}
	t.Fatalf("no database %s", slug)
	return ""
}

// fillWithKinds writes what a database can have.
func fillWithKinds(d *harness.DB) {
	for _, sql := range []string{
		"CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b TEXT, c BLOB)", "CREATE INDEX IF NOT EXISTS i ON t(b)", "CREATE VIEW IF NOT EXISTS v AS SELECT b FROM t",
		"CREATE TRIGGER IF NOT EXISTS r AFTER DELETE ON t BEGIN INSERT INTO t(b) VALUES('gone'); END", "CREATE VIRTUAL TABLE IF NOT EXISTS f USING fts5(x)",
		"INSERT INTO f VALUES('some words'), ('other words')", "DROP TABLE IF EXISTS w", "CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
	} {
		d.Must(sql)
	}
	for i := range 30 {
		d.Must("INSERT INTO t(b, c) VALUES(?, zeroblob(?))", fmt.Sprint("row ", i), i*400)
	}
	d.Must("DELETE FROM t WHERE a % 7 = 3")
	d.Must("INSERT INTO w VALUES('k', 1)")
}

// Stock Litestream restores every database of a folder, and of S3, as the server has it: after imports, restores, kill -9 and an orderly end.
func TestReplicaForLitestream(t *testing.T) {
	row(t, "DP-HIST-15")
	buckettest.Tool(t, buckettest.Litestream)
	for _, kind := range []string{"folder", "S3"} {
		t.Run(kind, func(t *testing.T) {
			url, env := "file://"+filepath.Join(t.TempDir(), "replica"), []string(nil)
			if kind == "S3" {
				url, env = buckettest.StartS3(t)
			}
			s := harness.Start(t, binary, harness.Options{Env: replicates(url, env...)})
			c := s.Client(t, harness.Token)
			fillWithKinds(c.DB("shop"))
			fillWithKinds(c.DB("blog"))
			before := c.DB("blog").Must("INSERT INTO t(b) VALUES('restored')").Str("data.meta.bookmark")
			c.DB("blog").Must("DELETE FROM t")
			restore(c.DB("blog"), body{"bookmark": before}).OK()
			caughtUp(t, s)
			s.Kill()
			s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: replicates(url, env...)})
			c = s.Client(t, harness.Token)
			c.DB("shop").Must("INSERT INTO t(b) VALUES('after the kill')")
			c.DB("blog").Must("VACUUM")
			ids := []string{databaseID(t, c, "shop"), databaseID(t, c, "blog")}
			s.Stop(t)
			for _, id := range ids {
				if got, want := contentOf(t, litestreamed(t, url, id, env)), contentOf(t, fileOf(t, filepath.Join(s.Data, "db"), id)); got != want || !strings.HasPrefix(got, "[\"ok\"]") {
					t.Errorf("%s: litestream has\n%s\nthe server\n%s", id, harness.Tail(got, 3000), harness.Tail(want, 3000))
				}
			}
		})
	}
}

// Storage that fails in every way for a while costs no write, and leaves no hole.
func TestReplicaOutage(t *testing.T) {
	row(t, "DP-HIST-16")
	buckettest.Tool(t, buckettest.Litestream)
	gateway := buckettest.Start(t)
	proxy := buckettest.NewProxy(t, gateway.Endpoint)
	url, env := gateway.URL(proxy.URL, "replica"), buckettest.Env()
	s := harness.Start(t, binary, harness.Options{Env: replicates(url, env...)})
	c := s.Client(t, harness.Token)
	slugs := []string{"one", "two", "three"}
	for _, slug := range slugs {
		c.DB(slug).Must("CREATE TABLE t(n INTEGER PRIMARY KEY, filler)")
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	wrote := make([]int, len(slugs))
	for i, slug := range slugs {
		writers.Go(func() {
			d := c.Apart().DB(slug)
			pace := time.NewTicker(5 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
				if a, err := d.Try("POST", d.Path("query"), harness.Body("INSERT INTO t VALUES(?, randomblob(2000))", wrote[i])); err != nil || a.Status != http.StatusOK {
					t.Errorf("a write failed beside the outage: %v %v", a, err)
					return
				}
				wrote[i]++
			}
		})
	}
	end := sync.OnceFunc(func() { close(stop); writers.Wait() })
	defer end()
	// met waits until so many requests have run into the fault, through until one has not.
	met := func(fault buckettest.Fault, n int) {
		_, was := proxy.Requests()
		proxy.Set(fault)
		if !eventually(t, 60*time.Second, func() bool { _, is := proxy.Requests(); return is >= was+n }) {
			t.Fatalf("no request met fault %d", fault)
		}
	}
	through := func() {
		proxy.Set(buckettest.None)
		passed := func() int { all, met := proxy.Requests(); return all - met }
		was := passed()
		if !eventually(t, 60*time.Second, func() bool { return passed() > was }) {
			t.Fatal("no request gets through")
		}
	}
	for _, fault := range []buckettest.Fault{buckettest.Error500, buckettest.SlowDown, buckettest.Hang, buckettest.Cut, buckettest.Plain502} {
		met(fault, 3)
		through()
	}
	shown := func(names ...string) {
		for _, name := range names {
			if !eventually(t, 60*time.Second, func() bool { return metric(t, c, name) > 0 }) {
				t.Errorf("%s is 0 in an outage", name)
			}
		}
	}
	shown("persqld_replica_lag_seconds_count") // something has arrived
	met(buckettest.Hang, 2)
	shown("persqld_replica_behind_databases", "persqld_replica_behind_seconds")
	end()
	s.Kill() // in the middle of it
	proxy.Set(buckettest.None)
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: replicates(url, env...)})
	c = s.Client(t, harness.Token)
	caughtUp(t, s)
	if metric(t, c, "persqld_history_failures_total") != 0 {
		t.Error("the history failed")
	}
	ids := map[string]string{}
	for _, slug := range slugs {
		ids[slug] = databaseID(t, c, slug)
	}
	s.Stop(t)
	for i, slug := range slugs {
		got, want := contentOf(t, litestreamed(t, url, ids[slug], env)), contentOf(t, fileOf(t, filepath.Join(s.Data, "db"), ids[slug]))
		if got != want || strings.Count(got, "\nt ") < wrote[i] {
			t.Errorf("%s: litestream has %d rows, the server %d, written %d", slug, strings.Count(got, "\nt "), strings.Count(want, "\nt "), wrote[i])
		}
	}
}

// What was made of another database is in the replica though nobody has used it yet: copies, branches, and what was made before there was a replica.
func TestReplicaOfWhatWasMade(t *testing.T) {
	row(t, "DP-HIST-15", "DP-HIST-17")
	folder := filepath.Join(t.TempDir(), "replica")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	c.DB("shop").Must("CREATE TABLE t(a)")
	c.DB("shop").Must("INSERT INTO t VALUES(1),(2)")
	from := func(slug string) {
		t.Helper()
		c.Post("/v1/databases", body{"slug": slug, "from": body{"database": "shop"}}).OK()
	}
	from("former")
	from("buried")
	buried := databaseID(t, c, "buried")
	c.Do("DELETE", "/v1/databases/buried", nil).OK()
	s = restart(t, s, func() {}, replicates("file://"+folder)...)
	c = s.Client(t, harness.Token)
	from("copy")
	from("gone")
	gone := databaseID(t, c, "gone")
	c.Do("DELETE", "/v1/databases/gone", nil).OK()
	shop := c.DB("shop")
	full := shop.Do("PUT", shop.Path("branches/full"), body{"content": "full"}).OK().Str("data.slug")
	schema := shop.Do("PUT", shop.Path("branches/schema"), body{"content": "schema"}).OK().Str("data.slug")
	caughtUp(t, s)
	s.Stop(t) // the replica has the catalog, then

	data := filepath.Join(t.TempDir(), "data")
	if report, code := commanded(t, data, "restore", "--from", "file://"+folder); code != 0 || harness.Text(report["empty"]) != "0" {
		t.Fatalf("exit status %d: %v", code, report)
	}
	c = harness.Start(t, binary, harness.Options{Data: data}).Client(t, harness.Token)
	undelete(c, buried, "").OK()
	undelete(c, gone, "").OK()
	for slug, want := range map[string]string{"shop": "1,2", "former": "1,2", "buried": "1,2", "copy": "1,2", "gone": "1,2", full: "1,2", schema: "null"} {
		if got := c.DB(slug).One("SELECT group_concat(a) FROM t"); got != want {
			t.Errorf("%s has %s, want %s", slug, got, want)
		}
	}
}

// A deleted database stays in the replica as long as it can be brought back, and is purged from it with everything else of it.
func TestReplicaOfADeletedDatabase(t *testing.T) {
	row(t, "DP-HIST-17")
	folder := filepath.Join(t.TempDir(), "replica")
	env := replicates("file://"+folder, "PERSQLD_TRASH=3s")
	s := harness.Start(t, binary, harness.Options{Env: env})
	c := s.Client(t, harness.Token)
	for _, slug := range []string{"shop", "blog"} {
		c.DB(slug).Must("CREATE TABLE t(a)")
	}
	caughtUp(t, s)
	gone, stays := databaseID(t, c, "shop"), databaseID(t, c, "blog")
	c.Do("DELETE", "/v1/databases/shop", nil).OK()
	if _, err := os.Stat(filepath.Join(folder, "databases", gone, "ltx", "9")); err != nil {
		t.Errorf("it is not in the replica any more: %v", err)
	}
	var left []string
	if !eventually(t, 30*time.Second, func() bool {
		left, _ = filepath.Glob(filepath.Join(folder, "databases", gone, "ltx", "*", "*"))
		return len(left) == 0
	}) {
		t.Fatalf("%v is left\n%s", left, s.Log())
	}
	if left, _ := filepath.Glob(filepath.Join(folder, "databases", stays, "ltx", "9", "*.ltx")); len(left) != 1 {
		t.Errorf("of the other one there is %v", left)
	}
}

// A full branch that expired stays in the replica as long as it can be brought back, by a server made of that too, and is purged from it then.
func TestReplicaOfAnExpiredBranch(t *testing.T) {
	row(t, "DP-HIST-17")
	folder := filepath.Join(t.TempDir(), "replica")
	env := replicates("file://" + folder)
	s := harness.Start(t, binary, harness.Options{Env: env})
	c := s.Client(t, harness.Token)
	d := c.DB("shop")
	d.Must("CREATE TABLE t(a)")
	d.Must("INSERT INTO t VALUES(1),(2)")
	branch := d.Do("PUT", d.Path("branches/pr"), body{"content": "full", "ttlDays": 1}).OK()
	id, slug := branch.Str("data.id"), branch.Str("data.slug")
	c.DB(slug).Must("INSERT INTO t VALUES(3)")
	s = restart(t, s, func() {
		inCatalog(t, s.Data, "UPDATE databases SET expires_at = ? WHERE id = ?", time.Now().Add(-time.Minute).UnixMilli(), id)
	}, env...)
	c = s.Client(t, harness.Token)
	if !eventually(t, 30*time.Second, func() bool { return slices.Contains(trash(c, ""), slug) }) {
		t.Fatalf("in the trash are %v", trash(c, ""))
	}
	s.Stop(t) // the replica has the catalog, then

	data := filepath.Join(t.TempDir(), "data")
	if report, code := commanded(t, data, "restore", "--from", "file://"+folder); code != 0 {
		t.Fatalf("exit status %d: %v", code, report)
	}
	again := harness.Start(t, binary, harness.Options{Data: data})
	c = again.Client(t, harness.Token)
	undelete(c, id, "").OK()
	if got := c.DB(slug).One("SELECT group_concat(a) FROM t"); got != "1,2,3" {
		t.Errorf("the branch has %s", got)
	}
	again.Stop(t)

	s = restart(t, s, func() {
		inCatalog(t, s.Data, "UPDATE databases SET restorable_until = ? WHERE id = ?", time.Now().Add(-time.Minute).UnixMilli(), id)
	}, env...)
	if !eventually(t, 30*time.Second, func() bool {
		left, _ := filepath.Glob(filepath.Join(folder, "databases", id, "ltx", "*", "*"))
		return len(left) == 0
	}) {
		t.Errorf("it is in the replica still\n%s", s.Log())
	}
	if shop, _ := filepath.Glob(filepath.Join(folder, "databases", databaseID(t, s.Client(t, harness.Token), "shop"), "ltx", "9", "*.ltx")); len(shop) == 0 {
		t.Error("its parent isn't there any more")
	}
}

// What was written, and isn't any more, costs neither a descriptor of its history nor a goroutine, whatever keeps its past.
func TestIdlePastCostsNothing(t *testing.T) {
	s := harness.Start(t, binary, harness.Options{Env: replicates("file://" + filepath.Join(t.TempDir(), "replica"))})
	c := s.Client(t, harness.Token)
	write := func(first, end int) {
		for i := first; i < end; i++ {
			c.DB(fmt.Sprintf("db-%d", i)).Must("CREATE TABLE t(a)")
		}
		caughtUp(t, s)
	}
	const some = 10 // what lies about by chance: connections, workers that end in a while
	write(0, some)
	few := metric(t, c, "go_goroutines")
	write(some, 20*some)
	var held []string
	if !eventually(t, 30*time.Second, func() bool {
		held = held[:0]
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.PID()))
		if err != nil || len(fds) == 0 {
			t.Fatalf("%d descriptors, %v", len(fds), err)
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && (strings.Contains(to, "/history/") || strings.Contains(to, "/replica/")) {
				held = append(held, to)
			}
		}
		return len(held) == 0 && metric(t, c, "go_goroutines") <= few+some
	}) {
		t.Errorf("open are %v; goroutines: %v, with %d databases %v", held, metric(t, c, "go_goroutines"), some, few)
	}
}

// A server does not write into another's replica.
func TestForeignReplica(t *testing.T) {
	row(t, "DP-HIST-18")
	env := replicates("file://" + filepath.Join(t.TempDir(), "replica"))
	s := harness.Start(t, binary, harness.Options{Env: env})
	s.Stop(t)
	other, err := harness.Run(binary, harness.Options{Data: t.TempDir(), Env: env})
	if err == nil {
		other.Kill()
		t.Fatal("it started")
	}
	if text := err.Error(); !strings.Contains(text, "another server's") || !strings.Contains(text, "PERSQLD_REPLICA_URL") {
		t.Errorf("it says %s", text)
	}
}
