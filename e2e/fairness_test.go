package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// crowd keeps n connections busy with statements on databases of their own until the test ends.
func crowd(t *testing.T, c *harness.Client, n int, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() { cancel(); all.Wait() })
	ready := make(chan struct{}, n)
	for i := range n {
		all.Go(func() {
			ready <- struct{}{}
			for ctx.Err() == nil {
				c.Send(ctx, fmt.Sprintf("/v1/db/default/crowd%d/query", i), harness.Body(statements[i%len(statements)]))
			}
		})
	}
	for range n {
		<-ready
	}
}

// p99 is the time that the slowest of a hundred takes.
func p99(n int, f func()) time.Duration {
	times := make([]time.Duration, n)
	for i := range times {
		start := time.Now()
		f()
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return times[n*99/100]
}

// heavy are statements that a quiet neighbour must not feel: endless ones, and some inside of single calls of the engine's
// that take long.
var heavy = []string{
	endless,
	"WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c) SELECT max(a.n * b.n) FROM c a, c b",
	"WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 2000000) SELECT n, hex(n) FROM c ORDER BY 2 DESC LIMIT 1",
	"SELECT count(*) FROM json_each((SELECT json_group_array(value) FROM generate_series(1, 100000)))",
}

func TestQuietTenantUnderLoad(t *testing.T) {
	row(t, "DP-F-1")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_PARK_TIMEOUT=60s", "PERSQLD_STATEMENT_TIMEOUT=60s"}})
	c := s.Client(t, harness.Token)
	d := c.DB("quiet")
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	d.Must("INSERT INTO t VALUES(1, 'x')")
	one := func() { d.Must("SELECT b FROM t WHERE a = 1") }
	alone := p99(300, one)
	crowd(t, c, 64, heavy...)
	loaded := p99(300, one)
	health := p99(50, func() {
		if a, err := c.Try("GET", "/healthz", nil); err != nil || a.Status != http.StatusOK {
			t.Errorf("health: %v", err)
		}
	})
	t.Logf("p99 alone %s, beside 64 heavy statements %s, health %s", alone, loaded, health)
	if limit := max(100*time.Millisecond, 8*alone); loaded > limit {
		t.Errorf("p99 of a quiet tenant is %s, alone it is %s", loaded, alone)
	}
	if health > 200*time.Millisecond {
		t.Errorf("/healthz takes %s", health)
	}
}

// An honest long statement gets its share beside a crowd of another namespace's endless ones.
func TestHonestLongStatementUnderLoad(t *testing.T) {
	row(t, "DP-F-2")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_PARK_TIMEOUT=60s", "PERSQLD_STATEMENT_TIMEOUT=60s"}})
	s.JSONOf(t, "namespace", "create", "other")
	token := s.JSONOf(t, "token", "create", "--namespace", "other")["token"].(string)
	honest := s.Client(t, token)
	work := func(n int) time.Duration {
		start := time.Now()
		honest.Post("/v1/db/other/honest/query", harness.Body(fmt.Sprintf("WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT %d) SELECT count(*) FROM c", n))).OK()
		return time.Since(start)
	}
	// About a second's work on this machine.
	n := 1_000_000
	n = int(float64(n) * float64(time.Second) / float64(work(n)))
	alone := work(n)
	crowd(t, s.Client(t, harness.Token), 63, endless)
	loaded := work(n)
	t.Logf("%s alone, %s beside 63 endless statements", alone, loaded)
	if loaded > 5*alone {
		t.Errorf("a statement of %s takes %s", alone, loaded)
	}
}

// A long statement that gets no turn for too long is told so, and what it would have done is undone.
func TestParkedTooLong(t *testing.T) {
	row(t, "DP-F-2")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_PARK_TIMEOUT=300ms", "PERSQLD_STATEMENT_TIMEOUT=60s"}})
	c := s.Client(t, harness.Token)
	d := c.DB("mine")
	d.Must("CREATE TABLE t(a)")
	crowd(t, c, 12, endless)
	d.Query("WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c) INSERT INTO t SELECT n FROM c").Fails(http.StatusServiceUnavailable, "server_busy")
	if got := d.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("%s rows", got)
	}
}
