package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

const (
	crashWorkers = 12
	batchRows    = 5
)

// crashDatabases are written to by all workers at the same time.
var crashDatabases = []string{"crash-a", "crash-b"}

// write is one thing that a worker asked for.
type write struct {
	database string
	id       string // in the column id of the rows that it makes
	rows     int    // how many rows it makes, all or none
	key      string // its idempotency key, if it has one
	acked    bool
}

// worker sends writes one after the other and remembers what was acknowledged. Only its own goroutine touches it.
type worker struct {
	n       int
	random  *rand.Rand
	writes  []write
	tries   map[string]int64 // a database: how often the worker's counter was asked to rise
	counted map[string]int64 // a database: the greatest value that was acknowledged
}

// TestCrash kills the server under load, again and again. Each time it comes back, what was acknowledged is there,
// nothing is there twice, a transactional batch is whole or absent, and a keyed write that was retried ran once.
func TestCrash(t *testing.T) {
	rounds := 20
	if n := os.Getenv("TORTURE"); n != "" {
		var err error
		if rounds, err = strconv.Atoi(n); err != nil || rounds < 1 {
			t.Fatalf("TORTURE=%s is no number of rounds", n)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	data := filepath.Join(t.TempDir(), "data")
	workers := make([]*worker, crashWorkers)
	for i := range workers {
		workers[i] = &worker{n: i, random: rand.New(rand.NewPCG(seed, uint64(i+1))), tries: map[string]int64{}, counted: map[string]int64{}}
	}
	made := map[string]bool{}
	deleted := map[string]string{} // ids, by slug
	for round := range rounds {
		s := startCrashed(t, data)
		c := s.Client(t, harness.Token)
		if round == 0 {
			prepareCrash(t, c)
		} else {
			retryKeyed(t, c, workers, random)
			verifyCrash(t, c, workers)
		}
		for slug := range made {
			if got := c.DB(slug).One("SELECT count(*) FROM t"); got != "1" {
				t.Errorf("database %s, made in an earlier round, has %s rows", slug, got)
			}
		}
		for slug, id := range deleted {
			c.DB(slug).Query("SELECT 1").Fails(http.StatusNotFound, "")
			undelete(c, id, "").OK()
			if got := c.DB(slug).One("SELECT count(*) FROM t"); got != "1" {
				t.Errorf("database %s, deleted in an earlier round, came back with %s rows", slug, got)
			}
		}
		if t.Failed() {
			t.Fatalf("stopped after round %d; the server's log:\n%s", round, s.Log())
		}
		load(t, s, c, workers, time.Duration(50+random.IntN(400))*time.Millisecond)

		// A database that was made just before the end lasts, too, and so does a deletion.
		s.CheckLog(t)
		clear(made)
		clear(deleted)
		next := startCrashed(t, data)
		slug := fmt.Sprintf("round-%d", round)
		d := next.Client(t, harness.Token).DB(slug)
		d.Batch(true, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)").OK()
		made[slug] = true
		d = next.Client(t, harness.Token).DB(fmt.Sprintf("deleted-%d", round))
		d.Batch(true, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)").OK()
		deleted[d.Slug] = remove(t, d)
		next.Kill()
	}
	if report, code := doctor(t, data, "--full"); code != 0 {
		t.Errorf("persqld doctor finds, after the last kill: %v", report)
	}
	s := startCrashed(t, data)
	c := s.Client(t, harness.Token)
	retryKeyed(t, c, workers, random)
	verifyCrash(t, c, workers)
	total := 0
	for _, w := range workers {
		total += len(w.writes)
	}
	t.Logf("%d rounds, %d writes", rounds, total)
	if total < rounds*crashWorkers {
		t.Errorf("only %d writes in %d rounds: the load was none", total, rounds)
	}
	if code := s.Stop(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

func startCrashed(t *testing.T, data string) *harness.Server {
	t.Helper()
	s, err := harness.Run(binary, harness.Options{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

func prepareCrash(t *testing.T, c *harness.Client) {
	t.Helper()
	for _, slug := range crashDatabases {
		c.DB(slug).Batch(true,
			"CREATE TABLE log(id TEXT NOT NULL, part INTEGER NOT NULL)", "CREATE INDEX log_id ON log(id)",
			"CREATE TABLE counters(worker INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
			fmt.Sprintf("INSERT INTO counters SELECT value, 0 FROM json_each('%s')", numbers(crashWorkers)),
		).OK()
	}
}

func numbers(n int) string {
	list := "[0"
	for i := 1; i < n; i++ {
		list += "," + strconv.Itoa(i)
	}
	return list + "]"
}

// load runs all workers for a while and kills the server under them.
func load(t *testing.T, s *harness.Server, c *harness.Client, workers []*worker, while time.Duration) {
	t.Helper()
	var wg sync.WaitGroup
	var killed atomic.Bool
	for _, w := range workers {
		wg.Go(func() {
			for !killed.Load() && w.step(t, c) {
			}
		})
	}
	<-time.After(while)
	s.Kill()
	killed.Store(true)
	wg.Wait()
}

// step sends one write; false when the server is gone.
func (w *worker) step(t *testing.T, c *harness.Client) bool {
	d := c.DB(crashDatabases[w.random.IntN(len(crashDatabases))])
	if w.random.IntN(5) == 0 {
		return w.count(t, d)
	}
	one := write{database: d.Slug, id: fmt.Sprintf("%d-%d", w.n, len(w.writes)), rows: 1}
	switch w.random.IntN(4) {
	case 0:
		one.rows = batchRows
	case 1:
		one.key = "key-" + one.id
	case 2:
		one.rows, one.key = batchRows, "key-"+one.id
	}
	w.writes = append(w.writes, one)
	ok := deliver(t, d, one)
	w.writes[len(w.writes)-1].acked = ok
	return ok
}

// deliver sends a write and tells whether it was acknowledged.
func deliver(t *testing.T, d *harness.DB, one write) bool {
	var headers []harness.Header
	if one.key != "" {
		headers = append(headers, key(one.key))
	}
	path, request := "query", any(harness.Body("INSERT INTO log VALUES(?, 0)", one.id))
	if one.rows > 1 {
		statements := make([]any, one.rows)
		for i := range statements {
			statements[i] = harness.Body("INSERT INTO log VALUES(?, ?)", one.id, i)
		}
		path, request = "batch", harness.BatchBody(true, statements...)
	}
	a, err := d.Try(http.MethodPost, d.Path(path), request, headers...)
	if err != nil {
		return false
	}
	if a.Status != http.StatusOK {
		t.Errorf("write %s: %d %s", one.id, a.Status, a.Raw)
		return false
	}
	return true
}

// count raises the worker's counter.
func (w *worker) count(t *testing.T, d *harness.DB) bool {
	w.tries[d.Slug]++
	a, err := d.Try(http.MethodPost, d.Path("query"), harness.Body("UPDATE counters SET n = n + 1 WHERE worker = ? RETURNING n", w.n))
	if err != nil {
		return false
	}
	if a.Status != http.StatusOK {
		t.Errorf("count: %d %s", a.Status, a.Raw)
		return false
	}
	n, err := strconv.ParseInt(harness.Text(a.At("data.rows.0.0")), 10, 64)
	if err != nil || n <= w.counted[d.Slug] {
		t.Errorf("worker %d counts %d after %d: %v", w.n, n, w.counted[d.Slug], err)
	}
	w.counted[d.Slug] = n
	return true
}

// retryKeyed sends every keyed write again that was not acknowledged, as a client does that doesn't know, and some that
// were.
func retryKeyed(t *testing.T, c *harness.Client, workers []*worker, random *rand.Rand) {
	t.Helper()
	for _, w := range workers {
		for i := range w.writes {
			one := &w.writes[i]
			if one.key == "" || one.acked && (i < len(w.writes)-3 || random.IntN(2) == 0) {
				continue
			}
			if !deliver(t, c.DB(one.database), *one) {
				t.Errorf("the retry of %s failed", one.id)
			}
			one.acked = true
		}
	}
}

// verifyCrash compares what is there with what was acknowledged.
func verifyCrash(t *testing.T, c *harness.Client, workers []*worker) {
	t.Helper()
	for _, slug := range crashDatabases {
		d := c.DB(slug)
		found := map[string]int{}
		for _, r := range d.Must("SELECT id, count(*), count(DISTINCT part) FROM log GROUP BY id").Rows() {
			n, err := strconv.Atoi(harness.Text(r[1]))
			if err != nil || harness.Text(r[1]) != harness.Text(r[2]) {
				t.Errorf("%s: %v has a row twice", slug, r)
			}
			found[harness.Text(r[0])] = n
		}
		counters := map[int]int64{}
		for _, r := range d.Must("SELECT worker, n FROM counters").Rows() {
			worker, err1 := strconv.Atoi(harness.Text(r[0]))
			n, err2 := strconv.ParseInt(harness.Text(r[1]), 10, 64)
			if err1 != nil || err2 != nil {
				t.Fatalf("counters: %v", r)
			}
			counters[worker] = n
		}
		for _, w := range workers {
			if n := counters[w.n]; n < w.counted[slug] || n > w.tries[slug] {
				t.Errorf("%s: counter %d is %d, acknowledged were %d, tried %d", slug, w.n, n, w.counted[slug], w.tries[slug])
			}
			for _, one := range w.writes {
				if one.database != slug {
					continue
				}
				switch n := found[one.id]; {
				case n == one.rows, n == 0 && !one.acked:
				case n == 0:
					t.Errorf("%s: acknowledged write %s is lost", slug, one.id)
				default:
					t.Errorf("%s: write %s of %d rows has %d", slug, one.id, one.rows, n)
				}
				delete(found, one.id)
			}
		}
		for id := range found {
			t.Errorf("%s: %s was never written", slug, id)
		}
		if got := d.One("PRAGMA integrity_check"); got != "ok" {
			t.Errorf("%s: integrity_check: %s", slug, got)
		}
	}
}
