package e2e_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

const endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"

// slack is what a timing may take more where the race detector slows everything down.
func slack(d time.Duration) time.Duration {
	if harness.Race() {
		return 5 * d
	}
	return d
}

func TestStatementTimeout(t *testing.T) {
	row(t, "DP-S-2", "DP-S-1")
	const limit = 300 * time.Millisecond
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_STATEMENT_TIMEOUT=300ms"}})
	c := s.Client(t, harness.Token)
	slow, quick := newDB(t, c), newDB(t, c)
	slow.Must("CREATE TABLE t(a)")
	quick.Must("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
	quick.Must("INSERT INTO t(a) VALUES('x'),('y'),('z')")

	// One tenant's endless statements, one after the other; another's point reads meanwhile.
	var stop atomic.Bool
	var late []time.Duration
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			a, err := slow.Try(http.MethodPost, slow.Path("query"), harness.Body(endless))
			if err != nil {
				t.Error(err)
				return
			}
			if a.Status == http.StatusTooManyRequests {
				continue // on a busy machine a statement may be given up, and is being undone
			}
			a.Fails(http.StatusRequestTimeout, "")
			late = append(late, a.Took-limit)
		}
	}()
	var reads []time.Duration
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		a := quick.Must("SELECT a FROM t WHERE id = ?", 2)
		a.Is("data.rows", `[["y"]]`)
		reads = append(reads, a.Took)
	}
	stop.Store(true)
	<-done
	slices.Sort(late)
	slices.Sort(reads)
	if median := late[len(late)/2]; median < 0 || median > slack(100*time.Millisecond) {
		t.Errorf("endless statements were answered %v after their limit, all: %v", median, late)
	}
	if p99 := reads[len(reads)*99/100]; p99 > slack(150*time.Millisecond) {
		t.Errorf("p99 of another database's %d point reads is %v", len(reads), p99)
	}

	// What it wrote is undone, and the database goes on.
	slow.Query("INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c").Fails(http.StatusRequestTimeout, "")
	if got := slow.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("an interrupted INSERT left %s rows", got)
	}
	slow.Batch(true, "INSERT INTO t VALUES(1)", endless).Fails(http.StatusRequestTimeout, "")
	if got := slow.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("an interrupted transaction left %s rows", got)
	}
	a := slow.Batch(false, "INSERT INTO t VALUES(1)", endless, "INSERT INTO t VALUES(2)").Fails(http.StatusRequestTimeout, "")
	if got := len(a.List("completed")); got != 1 {
		t.Errorf("%d completed: %s", got, a.Raw)
	}
	if got := slow.One("SELECT count(*) FROM t"); got != "1" {
		t.Errorf("an interrupted batch left %s rows, want 1", got)
	}
	// Innocent writes of the same group survive another's interruption.
	slow.Must("DELETE FROM t")
	var acknowledged atomic.Int32
	parallel(t, 12, func(worker int) {
		sql := "INSERT INTO t VALUES(1)"
		if worker%4 == 0 {
			sql = "INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c"
		}
		a, err := slow.Try(http.MethodPost, slow.Path("query"), harness.Body(sql))
		if err != nil {
			t.Error(err)
			return
		}
		if a.Status == http.StatusOK {
			acknowledged.Add(1)
		} else if worker%4 != 0 {
			t.Errorf("an innocent write failed: %s", a.Raw)
		}
	})
	if got := slow.One("SELECT count(*) FROM t"); got != harness.Text(acknowledged.Load()) {
		t.Errorf("%s rows after %d acknowledged", got, acknowledged.Load())
	}
}

// untilBusy returns when a statement holds the database: a call there then waits.
func untilBusy(t testing.TB, s *harness.Server, d *harness.DB) {
	t.Helper()
	waits := eventually(t, 5*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+d.Path("tables"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+harness.Token)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err != nil
	})
	if !waits {
		t.Fatal("the endless statement doesn't run")
	}
}

func TestQueueFull(t *testing.T) {
	row(t, "DP-S-4")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_QUEUE_DEPTH=4", "PERSQLD_STATEMENT_TIMEOUT=1500ms"}})
	c := s.Client(t, harness.Token)
	d, other := newDB(t, c), newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	var full, fine, blocked atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		if a, err := d.Try(http.MethodPost, d.Path("query"), harness.Body(endless)); err == nil && a.Status == http.StatusRequestTimeout {
			blocked.Add(1)
		}
	}()
	untilBusy(t, s, d)
	parallel(t, 40, func(int) {
		a, err := d.Try(http.MethodPost, d.Path("query"), harness.Body("INSERT INTO t VALUES(1)"))
		if err != nil {
			t.Error(err)
			return
		}
		switch a.Status {
		case http.StatusOK:
			fine.Add(1)
		case http.StatusTooManyRequests: // the client has compared Retry-After with retryAfterSeconds
			full.Add(1)
		default:
			t.Errorf("got %d %s", a.Status, a.Raw)
		}
	})
	other.Must("SELECT 1")
	<-done
	if full.Load() == 0 || blocked.Load() != 1 {
		t.Errorf("%d of 40 found a full queue of 4, %d were interrupted", full.Load(), blocked.Load())
	}
	if got := d.One("SELECT count(*) FROM t"); got != harness.Text(fine.Load()) {
		t.Errorf("%s rows, %d acknowledged", got, fine.Load())
	}
}

func TestRateOfAnAddress(t *testing.T) {
	row(t, "DP-S-4")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_RATE_PER_ADDRESS=20"}})
	c := s.Client(t, harness.Token)
	refused := 0
	for range 200 {
		if a := c.Get("/v1/me"); a.Status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 {
		t.Error("200 requests at once passed a limit of 20 a second")
	}
	if !eventually(t, 5*time.Second, func() bool { return c.Get("/v1/me").Status == http.StatusOK }) {
		t.Error("the address is still refused after 5 s")
	}
}

func TestTooLarge(t *testing.T) {
	row(t, "DP-S-3")
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	large := `{"sql":"INSERT INTO t VALUES(length(?))","params":["` + strings.Repeat("x", 10_500_000) + `"]}`
	for name, send := range map[string]func() any{
		"with length":    func() any { return harness.Raw(large) },
		"without length": func() any { return harness.Stream{Reader: io.MultiReader(strings.NewReader(large))} },
	} {
		// A server that answers before it has read everything may close the connection under the client.
		answered := false
		for range 5 {
			a, err := d.Try(http.MethodPost, d.Path("query"), send())
			if err == nil {
				a.Fails(http.StatusRequestEntityTooLarge, "").Tells("request")
				answered = true
				break
			}
			t.Logf("%s: %v", name, err)
		}
		if !answered {
			t.Errorf("%s: no answer to a request of 10.5 MB", name)
		}
	}
	if got := d.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("%s rows", got)
	}
	d.Must("SELECT length(?)", strings.Repeat("x", 9_900_000))

	d.Query("SELECT zeroblob(15000000), zeroblob(15000000)").Fails(http.StatusRequestEntityTooLarge, "").Tells("result")
	d.Query("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT hex(zeroblob(5000)) FROM c").Fails(http.StatusRequestEntityTooLarge, "").Tells("result", "limit")
	d.Batch(false, "SELECT zeroblob(12000000)", "SELECT zeroblob(12000000)", "SELECT zeroblob(12000000)").Fails(http.StatusRequestEntityTooLarge, "")
	d.Query("INSERT INTO t VALUES(1),(2),(3) RETURNING zeroblob(12000000)").Fails(http.StatusRequestEntityTooLarge, "")
	if got := d.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("a write whose result was too large left %s rows", got)
	}
	if got := len(d.Must("SELECT zeroblob(15000000)").Raw); got < 20_000_000 {
		t.Errorf("15 MB in base64 are %d bytes", got)
	}
}

func TestDamagedDatabase(t *testing.T) {
	row(t, "DP-S-5")
	data := filepath.Join(t.TempDir(), "data")
	s := harness.Start(t, binary, harness.Options{Data: data})
	c := s.Client(t, harness.Token)
	var ids []string
	for _, slug := range []string{"garbled", "cut", "gone", "whole"} {
		ids = append(ids, c.Post("/v1/databases", body{"slug": slug}).OK().Str("data.id"))
		d := c.DB(slug)
		d.Must("CREATE TABLE t(a)")
		d.Must("INSERT INTO t VALUES(?)", strings.Repeat("x", 20_000))
	}
	if code := s.Stop(t); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	for i, damage := range []func(path string) error{
		func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte(strings.Repeat("garbage ", 1000)), 0)
			return err
		},
		func(path string) error { return os.Truncate(path, 0) },
		os.Remove,
	} {
		if err := damage(fileOf(t, data, ids[i])); err != nil {
			t.Fatal(err)
		}
	}
	s = harness.Start(t, binary, harness.Options{Data: data})
	c = s.Client(t, harness.Token)
	for _, slug := range []string{"garbled", "cut", "gone"} {
		d := c.DB(slug)
		for range 2 {
			d.Query("SELECT * FROM t").Fails(http.StatusServiceUnavailable, "database_damaged")
			d.Query("CREATE TABLE t(a)").Fails(http.StatusServiceUnavailable, "database_damaged")
			d.Get(d.Path("tables")).Fails(http.StatusServiceUnavailable, "database_damaged")
		}
	}
	if got := c.DB("whole").One("SELECT length(a) FROM t"); got != "20000" {
		t.Errorf("the whole database has %s", got)
	}
	c.Get("/v1/databases").OK()
}

// fileOf is the file of a database in a data directory.
func fileOf(t testing.TB, data, id string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(data, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasPrefix(e.Name(), id) && !strings.HasSuffix(path, "-wal") {
			found = path
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("no file of database %s: %v", id, err)
	}
	return found
}
