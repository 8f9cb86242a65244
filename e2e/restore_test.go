package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
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
	"github.com/persqld/persqld/internal/adminsock"
	"github.com/persqld/persqld/internal/bucket/buckettest"
)

// commanded runs persqld backup or restore on a data directory, and returns its object and its exit status.
func commanded(t *testing.T, data string, args ...string) (report map[string]any, code int) {
	t.Helper()
	out, errs, code := harness.CLI(t, binary, data, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v printed no JSON: %v: %q%s", args, err, out, errs)
	}
	return report, code
}

// replicaPlace is where a replica may be, and what a process needs to get there.
func replicaPlace(t *testing.T, kind string) (url string, env []string) {
	t.Helper()
	if kind == "S3" {
		buckettest.Setenv(t) // for the commands
		return buckettest.StartS3(t)
	}
	return "file://" + filepath.Join(t.TempDir(), "replica"), nil
}

// A whole server is made of its replica in an empty directory: rows, tokens and people, those in the trash; at the latest moment, and at an earlier one. It goes on
// with the same replica, which stock Litestream restores.
func TestRestoreServer(t *testing.T) {
	row(t, "DP-HIST-19", "DP-HIST-21")
	buckettest.Tool(t, buckettest.Litestream)
	for _, kind := range []string{"folder", "S3"} {
		t.Run(kind, func(t *testing.T) {
			url, env := replicaPlace(t, kind)
			env = append(replicates(url, env...), quick...)
			s := people(t, env...)
			c := s.Client(t, harness.Token)
			enrol(t, s, "anna@example.com", "default", "admin")
			token := mint(c, body{"name": "kept", "role": "write"})
			fillWithKinds(c.DB("shop"))
			fillWithKinds(c.DB("gone"))
			// With the first member's own, two are never written to.
			c.Post("/v1/databases", body{"slug": "never"}).OK()
			gone := remove(t, c.DB("gone"))
			s.Stop(t) // the replica has the catalog, then
			s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: env})
			c = s.Client(t, harness.Token)
			at := c.DB("shop").Must("INSERT INTO t(b) VALUES('early')").Str("data.meta.bookmark")
			early := moment(t, c.DB("shop").Get(c.DB("shop").Path("bookmark")).OK().Is("data.bookmark", at), "data.at")
			caughtUp(t, s)
			c.DB("shop").Must("DELETE FROM t")
			c.DB("later").Must("CREATE TABLE x(a)")
			last := c.DB("shop").Must("INSERT INTO t(b) VALUES('late')").Str("data.meta.bookmark")
			id := databaseID(t, c, "shop")
			s.Stop(t)
			want := contentOf(t, fileOf(t, filepath.Join(s.Data, "db"), id))

			// As it was last.
			data := filepath.Join(t.TempDir(), "data")
			report, code := commanded(t, data, "restore", "--from", url)
			if code != 0 || report["databases"] != 5.0 || report["empty"] != 2.0 || len(report["failed"].([]any)) != 0 {
				t.Fatalf("exit status %d: %v", code, report)
			}
			if report, code := doctor(t, data, "--full"); code != 0 {
				t.Errorf("the doctor: %v", report)
			}
			if got := contentOf(t, fileOf(t, filepath.Join(data, "db"), id)); got != want {
				t.Errorf("restored\n%s\nthe server had\n%s", harness.Tail(got, 3000), harness.Tail(want, 3000))
			}
			again := harness.Start(t, binary, harness.Options{Data: data, Env: env})
			c = again.Client(t, harness.Token)
			c.DB("shop").Get(c.DB("shop").Path("bookmark")).OK().Is("data.bookmark", last)
			signIn(t, again, "anna@example.com")
			again.Client(t, token).DB("shop").Must("INSERT INTO t(b) VALUES('by the restored token')")
			again.Client(t, token).DB("never").Must("SELECT 1")
			undelete(c, gone, "").OK()
			if got := c.DB("gone").One("SELECT count(*) FROM w"); got != "1" {
				t.Errorf("the deleted one has %s", got)
			}
			caughtUp(t, again)
			again.Stop(t)
			followed(t, url, data, id, env)

			// As it was earlier: what came later isn't there, and the replica goes on behind it.
			data = filepath.Join(t.TempDir(), "data")
			report, code = commanded(t, data, "restore", "--from", url, "--at", early.Add(time.Millisecond).Format(time.RFC3339Nano))
			if code != 0 || report["databases"] != 4.0 {
				t.Fatalf("exit status %d: %v", code, report)
			}
			again = harness.Start(t, binary, harness.Options{Data: data, Env: env})
			c = again.Client(t, harness.Token)
			if got := c.DB("shop").One("SELECT count(*) FROM t WHERE b = 'early'"); got != "1" {
				t.Errorf("of the early row there are %s", got)
			}
			c.Get("/v1/databases/later").Fails(http.StatusNotFound, "not_found")
			c.DB("shop").Must("INSERT INTO t(b) VALUES('another life')")
			caughtUp(t, again)
			again.Stop(t)
			followed(t, url, data, id, env)
		})
	}
}

// followed checks that stock Litestream makes of a replica what a server's directory has.
func followed(t *testing.T, url, data, id string, env []string) {
	t.Helper()
	if got, want := contentOf(t, litestreamed(t, url, id, env)), contentOf(t, fileOf(t, filepath.Join(data, "db"), id)); got != want {
		t.Errorf("%s: litestream has\n%s\nthe server\n%s", id, harness.Tail(got, 3000), harness.Tail(want, 3000))
	}
}

// One database of a stopped server is replaced by what it was, or written to a file; what it was before stays in its history, also what a kill left in the log.
func TestRestoreDatabase(t *testing.T) {
	row(t, "DP-HIST-20", "DP-HIST-21")
	buckettest.Tool(t, buckettest.Litestream)
	url, _ := replicaPlace(t, "folder")
	env := replicates(url)
	s := harness.Start(t, binary, harness.Options{Env: env})
	c := s.Client(t, harness.Token)
	c.DB("other").Must("CREATE TABLE t(a)")
	c.DB("shop").Must("CREATE TABLE t(a)")
	caughtUp(t, s)
	wanted := c.DB("shop").Must("INSERT INTO t VALUES('wanted')").Str("data.meta.bookmark")
	caughtUp(t, s)
	if report, code := commanded(t, s.Data, "restore", "--from", url, "--database", "default/shop"); code != 1 || report["code"] != "locked" || !strings.Contains(fmt.Sprint(report["hint"]), "stop the server") {
		t.Errorf("under a running server: %d: %v", code, report)
	}
	id, other := databaseID(t, c, "shop"), databaseID(t, c, "other")
	before := c.DB("shop").Must("UPDATE t SET a = 'broken'").Str("data.meta.bookmark")
	s.Kill()

	out := filepath.Join(t.TempDir(), "shop.db")
	if report, code := commanded(t, s.Data, "restore", "--from", url, "--database", "default/shop", "--at", wanted, "--output", out); code != 0 || report["restoredFrom"] != wanted {
		t.Errorf("to a file: %d: %v", code, report)
	}
	if got := contentOf(t, out); !strings.HasSuffix(got, "t [\"wanted\"]\n") {
		t.Errorf("the file has\n%s", got)
	}
	if report, code := commanded(t, s.Data, "restore", "--from", url, "--database", "default/shop", "--output", out); code != 1 || !strings.Contains(fmt.Sprint(report["error"]), "exists") {
		t.Errorf("over a file: %d: %v", code, report)
	}
	untouched := contentOf(t, fileOf(t, filepath.Join(s.Data, "db"), other))
	report, code := commanded(t, s.Data, "restore", "--from", url, "--database", "default/shop", "--at", wanted)
	if code != 0 || report["restoredFrom"] != wanted || report["id"] != id || report["note"] != nil {
		t.Fatalf("exit status %d: %v", code, report)
	}
	for _, wrong := range [][]string{
		{"--database", "default/none"}, {"--database", "default/other", "--at", wanted}, {"--database", "default/shop", "--at", "0"}, {"--database", "default/shop", "--output", out + "/x"},
	} {
		if report, code := commanded(t, s.Data, append([]string{"restore", "--from", url}, wrong...)...); code != 1 || report["error"] == nil {
			t.Errorf("%v: exit status %d: %v", wrong, code, report)
		}
	}
	for _, wrong := range [][]string{{"--at", "yesterday"}, {"--at", wanted}, {"--output", out}} {
		if report, code := commanded(t, s.Data, append([]string{"restore", "--from", url}, wrong...)...); code != 2 || report["code"] != "usage" {
			t.Errorf("%v: exit status %d: %v", wrong, code, report)
		}
	}
	if report, code := doctor(t, s.Data, "--full"); code != 0 {
		t.Errorf("the doctor: %v", report)
	}
	if got := contentOf(t, fileOf(t, filepath.Join(s.Data, "db"), other)); got != untouched {
		t.Errorf("the other one is\n%s", got)
	}
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: env})
	c = s.Client(t, harness.Token)
	d := c.DB("shop")
	d.Get(d.Path("bookmark")).OK().Is("data.bookmark", report["bookmark"].(string))
	if got := d.One("SELECT group_concat(a) FROM t"); got != "wanted" {
		t.Errorf("restored %s", got)
	}
	restore(d, body{"bookmark": before}).OK()
	if got := d.One("SELECT group_concat(a) FROM t"); got != "broken" {
		t.Errorf("what it was before: %s", got)
	}
	restore(d, body{"bookmark": report["bookmark"]}).OK()
	gone := remove(t, c.DB("other"))
	caughtUp(t, s)
	s.Stop(t)
	followed(t, url, s.Data, id, nil)
	// From the trash, too.
	if report, code := commanded(t, s.Data, "restore", "--from", url, "--database", "default/other"); code != 0 || report["id"] != gone || report["deleted"] != true {
		t.Errorf("in the trash: %d: %v", code, report)
	}
	if report, code := commanded(t, s.Data, "restore", "--from", url, "--database", "default/other", "--output", out+".other"); code != 0 || report["id"] != gone {
		t.Errorf("in the trash, to a file: %d: %v", code, report)
	}
}

// A purged database can't be had from the replica any more, under no name and at no time.
func TestRestorePurged(t *testing.T) {
	row(t, "DP-HIST-21")
	url, _ := replicaPlace(t, "folder")
	env := replicates(url, "PERSQLD_TRASH=1s")
	s := harness.Start(t, binary, harness.Options{Env: env})
	c := s.Client(t, harness.Token)
	c.DB("shop").Must("CREATE TABLE t(a)")
	s.Stop(t) // the replica has the catalog, then
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: env})
	c = s.Client(t, harness.Token)
	c.DB("shop").Must("INSERT INTO t VALUES(1)")
	then := moment(t, c.DB("shop").Get(c.DB("shop").Path("bookmark")).OK(), "data.at").UnixMilli()
	caughtUp(t, s)
	id := remove(t, c.DB("shop"))
	if !eventually(t, 30*time.Second, func() bool {
		left, _ := filepath.Glob(filepath.Join(strings.TrimPrefix(url, "file://"), "databases", id, "ltx", "*", "*"))
		return len(left) == 0
	}) {
		t.Fatal("it is in the replica still")
	}
	s.Stop(t)
	data := filepath.Join(t.TempDir(), "data")
	report, code := commanded(t, data, "restore", "--from", url, "--at", fmt.Sprint(then))
	failed, _ := report["failed"].([]any)
	if code != 1 || len(failed) != 1 || !strings.Contains(fmt.Sprint(failed[0]), "deleted for good") || !strings.Contains(fmt.Sprint(failed[0]), "default/shop") {
		t.Errorf("exit status %d: %v", code, report)
	}
	if report, code := commanded(t, data, "restore", "--from", url, "--database", id, "--at", fmt.Sprint(then), "--output", data+".db"); code != 1 || report["code"] != "not_found" {
		t.Errorf("to a file: %d: %v", code, report)
	}
}

// A backup is made while the server runs and is written to: each database is in it as it was at one moment, and no write waits for it.
func TestBackupOfARunningServer(t *testing.T) {
	row(t, "DP-HIST-22")
	for _, kind := range []string{"folder", "S3"} {
		t.Run(kind, func(t *testing.T) {
			to, _ := replicaPlace(t, kind)
			s := harness.Start(t, binary, harness.Options{})
			c := s.Client(t, harness.Token)
			slugs := []string{"one", "two", "three"}
			for _, slug := range slugs {
				c.DB(slug).Must("CREATE TABLE t(n INTEGER PRIMARY KEY, filler)")
				c.DB(slug).Must("CREATE TABLE u(n INTEGER PRIMARY KEY)")
			}
			stop := make(chan struct{})
			var writers sync.WaitGroup
			var mu sync.Mutex
			wrote := map[string]int{}
			for _, slug := range slugs {
				writers.Go(func() {
					d := c.Apart().DB(slug)
					for n := 1; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						a, err := d.Try("POST", d.Path("batch"), body{"transaction": true, "statements": []any{
							body{"sql": "INSERT INTO t VALUES(?, randomblob(3000))", "params": []any{n}}, body{"sql": "INSERT INTO u VALUES(?)", "params": []any{n}}}})
						if err != nil || a.Status != http.StatusOK {
							t.Errorf("a write failed beside the backup: %v %v", a, err)
							return
						}
						mu.Lock()
						wrote[slug] = n
						mu.Unlock()
					}
				})
			}
			counts := func() map[string]int {
				mu.Lock()
				defer mu.Unlock()
				m := map[string]int{}
				for k, v := range wrote {
					m[k] = v
				}
				return m
			}
			if !eventually(t, 20*time.Second, func() bool { return len(counts()) == len(slugs) }) {
				t.Fatal("nothing is written")
			}
			for range 3 {
				before := counts()
				report, code := commanded(t, s.Data, "backup", "--to", to)
				after := counts()
				if code != 0 || report["databases"] != 3.0 || len(report["failed"].([]any)) != 0 {
					t.Fatalf("exit status %d: %v", code, report)
				}
				data := filepath.Join(t.TempDir(), "data")
				if report, code := commanded(t, data, "restore", "--from", to); code != 0 || report["databases"] != 3.0 {
					t.Fatalf("restore: exit status %d: %v", code, report)
				}
				for _, slug := range slugs {
					text := contentOf(t, fileOf(t, filepath.Join(data, "db"), databaseID(t, c, slug)))
					rows, pairs := strings.Count(text, "\nt ["), strings.Count(text, "\nu [")
					if !strings.HasPrefix(text, "[\"ok\"]") || rows != pairs || rows < before[slug] || rows > after[slug]+1 {
						t.Errorf("%s: %d and %d rows; between %d and %d were written", slug, rows, pairs, before[slug], after[slug])
					}
				}
			}
			close(stop)
			writers.Wait()
			// One database; nothing of a backup is left behind; a stopped server.
			other := "file://" + filepath.Join(t.TempDir(), "one")
			if report, code := commanded(t, s.Data, "backup", "--to", other, "--database", "default/two"); code != 0 || report["databases"] != 1.0 {
				t.Errorf("one: %d: %v", code, report)
			}
			if report, code := commanded(t, s.Data, "backup", "--to", other, "--database", "default/none"); code != 1 || report["code"] != "not_found" {
				t.Errorf("none: %d: %v", code, report)
			}
			left, err := os.ReadDir(filepath.Join(s.Data, "tmp"))
			if err != nil || slices.ContainsFunc(left, func(e os.DirEntry) bool {
				return strings.HasPrefix(e.Name(), "backup-") || strings.HasPrefix(e.Name(), "lent-") || strings.HasPrefix(e.Name(), "replica-")
			}) {
				t.Errorf("left in tmp: %v, %v", left, err)
			}
			s.Kill()
			if report, code := commanded(t, s.Data, "backup", "--to", other); code != 0 || report["databases"] != 3.0 {
				t.Errorf("of a server that was killed: %d: %v", code, report)
			}
			data := filepath.Join(t.TempDir(), "data")
			if _, code := commanded(t, data, "restore", "--from", other); code != 0 {
				t.Fatalf("restore: exit status %d", code)
			}
			d := harness.Start(t, binary, harness.Options{Data: data}).Client(t, harness.Token).DB("one")
			if got := d.One("SELECT count(*) FROM t"); got != fmt.Sprint(wrote["one"]) {
				t.Errorf("%s rows, want %d", got, wrote["one"])
			}
		})
	}
}

// What is damaged or missing in a replica is refused with the nearest moment, and costs no other database.
func TestRestoreOverDamage(t *testing.T) {
	row(t, "DP-HIST-23")
	url, _ := replicaPlace(t, "folder")
	folder := strings.TrimPrefix(url, "file://")
	s := harness.Start(t, binary, harness.Options{Env: replicates(url)})
	c := s.Client(t, harness.Token)
	for _, slug := range []string{"shop", "blog"} {
		c.DB(slug).Must("CREATE TABLE t(a)")
	}
	var bookmarks []string
	for i := range 3 {
		caughtUp(t, s)
		bookmarks = append(bookmarks, c.DB("shop").Must("INSERT INTO t VALUES(?)", i).Str("data.meta.bookmark"))
	}
	caughtUp(t, s)
	id := databaseID(t, c, "shop")
	s.Stop(t)
	files, err := filepath.Glob(filepath.Join(folder, "databases", id, "ltx", "0", "*.ltx"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	hurt := files[len(files)-2] // what leads to the last but one
	whole, err := os.ReadFile(hurt)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 4
	for what, damage := range map[string]func() error{
		"flipped":   func() error { return os.WriteFile(hurt, flipped, 0o600) },
		"truncated": func() error { return os.WriteFile(hurt, whole[:len(whole)/2], 0o600) },
		"gone":      func() error { return os.Remove(hurt) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		data := filepath.Join(t.TempDir(), "data")
		report, code := commanded(t, data, "restore", "--from", url)
		failed, _ := report["failed"].([]any)
		if code != 1 || report["databases"] != 1.0 || len(failed) != 1 || !strings.Contains(fmt.Sprint(failed[0]), "default/shop") || !strings.Contains(fmt.Sprint(failed[0]), "bookmark "+bookmarks[0]) {
			t.Errorf("%s: exit status %d: %v", what, code, report)
		}
		for i, at := range bookmarks {
			out := filepath.Join(t.TempDir(), "shop.db")
			report, code := commanded(t, data, "restore", "--from", url, "--database", "default/shop", "--at", at, "--output", out)
			if i == 0 {
				if code != 0 || strings.Count(contentOf(t, out), "\nt [") != 1 {
					t.Errorf("%s: before the damage: %d: %v", what, code, report)
				}
			} else if code != 1 || report["code"] != "not_in_replica" || !strings.Contains(fmt.Sprint(report["error"]), bookmarks[0]) || exists(out) {
				t.Errorf("%s: behind the damage: %d: %v", what, code, report)
			}
		}
		// The named moment fills the gap.
		if report, code := commanded(t, data, "restore", "--from", url, "--database", "default/shop", "--at", bookmarks[0]); code != 0 {
			t.Errorf("%s: the nearest moment: %d: %v", what, code, report)
		}
		if report, code := doctor(t, data, "--full"); code != 0 {
			t.Errorf("%s: the doctor: %v", what, report)
		}
	}
}

// A restore leaves alone what it didn't make; one that was killed leaves a directory that no server takes, and that the next one fills.
func TestRestoreInterrupted(t *testing.T) {
	row(t, "DP-HIST-24")
	gateway := buckettest.Start(t)
	proxy := buckettest.NewProxy(t, gateway.Endpoint)
	buckettest.Setenv(t)
	url, env := gateway.URL(proxy.URL, "replica"), replicates(gateway.URL(proxy.URL, "replica"), buckettest.Env()...)
	s := harness.Start(t, binary, harness.Options{Env: env})
	c := s.Client(t, harness.Token)
	for i := range 8 {
		c.DB(fmt.Sprint("db-", i)).Must("CREATE TABLE t(a)")
	}
	caughtUp(t, s)
	id := databaseID(t, c, "db-7")
	s.Stop(t)

	if report, code := commanded(t, s.Data, "restore", "--from", url); code != 1 || report["code"] != "not_empty" {
		t.Errorf("over a server: %d: %v", code, report)
	}
	data := filepath.Join(t.TempDir(), "data")
	if report, code := commanded(t, data, "restore", "--from", gateway.URL(proxy.URL, "elsewhere")); code != 1 || report["code"] != "not_found" {
		t.Errorf("of nothing: %d: %v", code, report)
	}
	// It hangs at one database when others are there.
	hangs := make(chan struct{}, 100)
	proxy.Choose(func(r *http.Request) buckettest.Fault {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/databases/"+id+"/") {
			hangs <- struct{}{}
			return buckettest.Hang
		}
		return buckettest.None
	})
	begin := func() *exec.Cmd {
		cmd := exec.Command(binary, "restore", "--from", url)
		cmd.Env = append(harness.Environ(), "PERSQLD_DATA="+data)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-hangs
		return cmd
	}
	// One that is told to end leaves nothing.
	cmd := begin()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if left, err := os.ReadDir(data); cmd.ProcessState.ExitCode() != 1 || err != nil || len(left) != 1 || left[0].Name() != "lock" {
		t.Errorf("interrupted: exit status %d, left %v, %v", cmd.ProcessState.ExitCode(), left, err)
	}
	for len(hangs) > 0 {
		<-hangs
	}
	cmd = begin()
	if !eventually(t, 20*time.Second, func() bool {
		there, _ := filepath.Glob(filepath.Join(data, "db", "*", "*.db"))
		return len(there) > 0
	}) {
		t.Error("nothing was restored")
	}
	if report, code := commanded(t, data, "restore", "--from", url); code != 1 || report["code"] != "locked" {
		t.Errorf("a second one beside it: %d: %v", code, report)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	proxy.Set(buckettest.None)
	if other, err := harness.Run(binary, harness.Options{Data: data, Env: env}); err == nil {
		other.Kill()
		t.Fatal("a server starts on it")
	} else if !strings.Contains(err.Error(), "restore") {
		t.Errorf("it says %v", err)
	}
	if report, code := commanded(t, data, "backup", "--to", "file://"+filepath.Join(t.TempDir(), "x")); code != 1 || report["code"] != "unfinished_restore" {
		t.Errorf("a backup of it: %d: %v", code, report)
	}
	if report, code := commanded(t, data, "restore", "--from", url); code != 0 || report["databases"] != 8.0 {
		t.Fatalf("again: exit status %d: %v", code, report)
	}
	c = harness.Start(t, binary, harness.Options{Data: data, Env: env}).Client(t, harness.Token)
	for i := range 8 {
		c.DB(fmt.Sprint("db-", i)).Must("SELECT * FROM t")
	}
}

// A file that a backup reads stays as it is, whatever is written; the server's end isn't held up by it, and is told to the backup.
func TestLentFile(t *testing.T) {
	row(t, "DP-HIST-22")
	s := harness.Start(t, binary, harness.Options{})
	d := s.Client(t, harness.Token).DB("shop")
	d.Must("CREATE TABLE t(a)")
	d.Must("INSERT INTO t VALUES('lent')")
	id := databaseID(t, d.Client, "shop")
	lend := func() *adminsock.Borrowed {
		var said map[string]any
		f, err := adminsock.Borrow(t.Context(), filepath.Join(s.Data, "admin.sock"), "backup.database", map[string]any{"id": id}, &said)
		if err != nil || said["position"] != 2.0 {
			t.Fatalf("%v, %v", said, err)
		}
		return f
	}
	first, second := lend(), lend()
	before, err := io.ReadAll(first)
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 / 50 { // more than a log takes before it is copied back
		d.Batch(true, body{"sql": "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT hex(randomblob(2000)) FROM n"}).OK()
	}
	if err := first.Return(); err != nil {
		t.Error(err)
	}
	after, err := io.ReadAll(second)
	if err != nil || !bytes.Equal(before, after) || !bytes.Contains(after, []byte("lent")) {
		t.Errorf("the lent file changed: %d and %d bytes, %v", len(before), len(after), err)
	}
	s.Stop(t)
	if err := second.Return(); err == nil {
		t.Error("the loan held beyond the server's end")
	}
	s = harness.Start(t, binary, harness.Options{Data: s.Data})
	if got := s.Client(t, harness.Token).DB("shop").One("SELECT count(*) FROM t"); got != "3001" {
		t.Errorf("%s rows", got)
	}
}
