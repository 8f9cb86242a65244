package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// meter notes what it is told.
type meter struct {
	mu     sync.Mutex
	series int64
	told   uint64
	taken  uint64
	totals map[string]store.Work // the last of each row
	added  store.Work
	away   bool // it takes nothing in
}

func (m *meter) Series() int64 { return m.series }

func (m *meter) Filed(database string, rows []store.MeterRow) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		rows = nil
	}
	for _, r := range rows {
		if m.totals == nil {
			m.totals = map[string]store.Work{}
		}
		m.totals[fmt.Sprint(database, " ", r.Series, " ", r.Day, " ", r.Token, " ", r.Free)] = r.Total
		m.added.Requests += r.Added.Requests
		m.added.RowsRead += r.Added.RowsRead
		m.added.RowsWritten += r.Added.RowsWritten
	}
	if m.away {
		return store.Untold
	}
	m.told++
	return m.told
}

func (m *meter) Taken(n uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return n <= m.taken
}

func (m *meter) sum() (all store.Work) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.totals {
		all.Requests += w.Requests
		all.RowsRead += w.RowsRead
		all.RowsWritten += w.RowsWritten
	}
	return all
}

// pay runs statements as one request that a token pays for.
func (h *house) pay(token string, j *job) (*store.Request, error) {
	r := &store.Request{Gate: open{}, Job: j, Steps: j.steps, Payer: store.Payer{Token: token}}
	err := h.Do(context.Background(), database, r)
	return r, err
}

// inFile are the rows of the system table, as the file has them.
func (h *house) inFile() string {
	return h.rows("SELECT group_concat(series || ' ' || day || ' ' || token || ' ' || requests || ' ' || rows_written, '; ' ORDER BY id) FROM sqlite_persql_meter_v1")
}

func TestCountedWithTheWrite(t *testing.T) {
	m := &meter{series: 7}
	h := newHouse(t, store.Options{Meter: m, Now: newClock().Now}, "CREATE TABLE t(a INTEGER PRIMARY KEY)")
	for i := range 3 {
		r, err := h.pay("tok_a", script(fmt.Sprintf("INSERT INTO t VALUES(%d)", i)))
		if err != nil || !r.Filed || r.Spent.RowsWritten != 1 {
			t.Fatalf("insert %d: filed %v, spent %+v, %v", i, r.Filed, r.Spent, err)
		}
	}
	if r, err := h.pay("tok_b", script("INSERT INTO t VALUES(10)", "INSERT INTO t VALUES(11)")); err != nil || !r.Filed || r.Spent.RowsWritten != 2 {
		t.Fatalf("two inserts: %+v, %v", r, err)
	}
	day := newClock().Now().Unix() / 86400
	want := fmt.Sprintf("7 %d tok_a 3 3; 7 %d tok_b 1 2", day, day)
	if got := h.inFile(); got != want {
		t.Errorf("the file counts %q, want %q", got, want)
	}
	if got := m.sum(); got.Requests != 4 || got.RowsWritten != 5 || got != m.added {
		t.Errorf("the meter was told %+v in all and %+v step by step", got, m.added)
	}
	// What wrote nothing is counted by the caller, and costs no commit.
	before := h.rows("SELECT 1") // opens nothing
	for _, sql := range []string{"SELECT * FROM t", "DELETE FROM t WHERE a=99", "INSERT INTO t VALUES(1)"} {
		if r, _ := h.pay("tok_a", script(sql)); r.Filed {
			t.Errorf("%s was counted in the file (%s)", sql, before)
		}
	}
	if r, _ := h.pay("tok_a", script("INSERT INTO t VALUES(50)", "INSERT INTO t VALUES(50)")); r.Filed || r.Spent.RowsWritten < 1 {
		t.Errorf("a request that failed: filed %v, spent %+v", r.Filed, r.Spent)
	}
	if r, _ := h.pay("", script("INSERT INTO t VALUES(60)")); r.Filed {
		t.Error("a request without a payer was counted")
	}
	if got := h.inFile(); got != want {
		t.Errorf("the file counts %q, want %q still", got, want)
	}
}

// A row for each of few tokens is searched, of many looked up; the file is read anew while they are few, and many.
func TestManyPayers(t *testing.T) {
	m := &meter{}
	h := newHouse(t, store.Options{Meter: m}, "CREATE TABLE t(a)")
	const tokens = 30
	for round := range 3 {
		for i := range tokens {
			for range round + 1 {
				if _, err := h.pay(fmt.Sprint("tok_", i), script("INSERT INTO t VALUES(1)")); err != nil {
					t.Fatal(err)
				}
			}
			if round == 0 && i == 5 || i == 20 {
				h.restart()
			}
		}
	}
	if got := h.rows("SELECT count(*) || ' rows of ' || min(rows_written) || ' to ' || max(rows_written) || ', ' || count(DISTINCT token) || ' tokens' FROM sqlite_persql_meter_v1"); got != "30 rows of 6 to 6, 30 tokens" {
		t.Error(got)
	}
	if got := m.sum(); got.RowsWritten != 6*tokens || got != m.added {
		t.Errorf("the meter was told %+v in all and %+v step by step", got, m.added)
	}
}

func TestGroupIsCountedOnce(t *testing.T) {
	m := &meter{}
	h := newHouse(t, store.Options{Meter: m}, "CREATE TABLE t(a)")
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				sql := fmt.Sprintf("INSERT INTO t VALUES(%d)", i)
				switch i % 5 {
				case 3:
					sql = "INSERT INTO missing VALUES(1)"
				case 4:
					sql = "INSERT OR ROLLBACK INTO t SELECT 1 WHERE abs(-9223372036854775808)" // takes the group with it
				}
				_, _ = h.pay(fmt.Sprint("tok_", w%3), script(sql))
			}
		})
	}
	wg.Wait()
	n := h.rows("SELECT count(*) FROM t")
	if got := m.sum(); fmt.Sprint(got.RowsWritten) != n || fmt.Sprint(got.Requests) != n || got != m.added {
		t.Errorf("the meter was told %+v and step by step %+v; there are %s rows, each of its own request", got, m.added, n)
	}
	if got := h.rows("SELECT sum(rows_written) FROM sqlite_persql_meter_v1"); got != n {
		t.Errorf("the file counts %s rows, want %s", got, n)
	}
}

func TestRecountTells(t *testing.T) {
	h := newHouse(t, store.Options{Meter: &meter{}}, "CREATE TABLE t(a)")
	if _, err := h.pay("tok_a", script("INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(h.opt.Dir)); err != nil {
		t.Fatal(err)
	}
	m := &meter{}
	k := &house{t: t, opt: store.Options{Dir: dir, Meter: m}}
	k.start()
	defer k.Close(context.Background())
	if err := k.Do(t.Context(), database, &store.Request{Job: store.JobFunc(func(tx *store.Tx) error { return tx.Recount() })}); err != nil {
		t.Fatal(err)
	}
	if got := m.sum(); got.Requests != 1 || got.RowsWritten != 2 || m.added != (store.Work{}) {
		t.Errorf("the next process was told %+v, of which %+v were new", got, m.added)
	}
	if _, err := k.pay("tok_a", script("INSERT INTO t VALUES(3)")); err != nil {
		t.Fatal(err)
	}
	if got := m.sum(); got.Requests != 2 || got.RowsWritten != 3 {
		t.Errorf("after another write it was told %+v", got)
	}
}

func TestOldCountsGo(t *testing.T) {
	clock := newClock()
	m := &meter{}
	h := newHouse(t, store.Options{Meter: m, Now: clock.Now}, "CREATE TABLE t(a)")
	days := func() string { return h.rows("SELECT count(*) FROM sqlite_persql_meter_v1") }
	for range 3 {
		if _, err := h.pay("tok_a", script("INSERT INTO t VALUES(1)")); err != nil {
			t.Fatal(err)
		}
		clock.Advance(24 * time.Hour)
	}
	if got := days(); got != "3" {
		t.Errorf("%s rows, want 3: nobody has taken them", got)
	}
	m.mu.Lock()
	m.taken = m.told
	m.mu.Unlock()
	if _, err := h.pay("tok_a", script("INSERT INTO t VALUES(1)")); err != nil {
		t.Fatal(err)
	}
	if got := days(); got != "2" {
		t.Errorf("%s rows, want those of today and yesterday", got)
	}
	// A clock that is set back finds what it had counted then.
	clock.Advance(-24 * time.Hour)
	if _, err := h.pay("tok_a", script("INSERT INTO t VALUES(1)")); err != nil {
		t.Fatal(err)
	}
	clock.Advance(24 * time.Hour)
	m.series++
	if _, err := h.pay("tok_a", script("INSERT INTO t VALUES(1)")); err != nil {
		t.Fatal(err)
	}
	if got := m.sum(); got.RowsWritten != 6 || got.Requests != 6 {
		t.Errorf("the meter was told %+v in all, want 6", got)
	}
}

// TestUntoldIsToldAgain has a meter that can't take in what it is told, on the day before it takes all of it as kept.
func TestUntoldIsToldAgain(t *testing.T) {
	clock := newClock()
	m := &meter{away: true}
	h := newHouse(t, store.Options{Meter: m, Now: clock.Now}, "CREATE TABLE t(a)")
	write := func(token string) {
		t.Helper()
		if _, err := h.pay(token, script("INSERT INTO t VALUES(1)")); err != nil {
			t.Fatal(err)
		}
	}
	write("tok_a")
	clock.Advance(24 * time.Hour)
	m.mu.Lock()
	m.away, m.taken = false, 1<<40
	m.mu.Unlock()
	for range 3 {
		write("tok_b")
		clock.Advance(24 * time.Hour)
	}
	if got := m.sum(); got.RowsWritten != 4 || got.Requests != 4 {
		t.Errorf("the meter was told %+v, want 4", got)
	}
}

// TestFullDatabaseTakesADelete has a database at its limit that was never counted in: what makes room must not need any.
func TestFullDatabaseTakesADelete(t *testing.T) {
	h := newHouse(t, store.Options{Meter: &meter{}, Limits: sqlite.Limits{Pages: 20}}, "CREATE TABLE t(a)")
	for {
		err := h.do(script("INSERT INTO t VALUES(zeroblob(3000))")).err
		if errors.Is(err, store.ErrQuota) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if r, err := h.pay("tok_a", script("DELETE FROM t WHERE rowid=1")); err != nil || !r.Filed {
		t.Fatalf("a DELETE of a full database: filed %v, %v", r.Filed, err)
	}
	if _, err := h.pay("tok_a", script("INSERT INTO t VALUES(zeroblob(30000))")); !errors.Is(err, store.ErrQuota) {
		t.Errorf("the limit doesn't hold any more: %v", err)
	}
	h.sound()
}

// budget pays for so many rows read.
type budget int64

var errBroke = errors.New("the budget is used up")

func (b budget) Afford(c sqlite.Counts) error {
	if c.RowsRead > int64(b) {
		return errBroke
	}
	return nil
}

func TestBudgetStopsAStatement(t *testing.T) {
	h := newHouse(t, store.Options{Meter: &meter{}}, "CREATE TABLE t(a)",
		"INSERT INTO t WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x<5000) SELECT x FROM c")
	for _, sql := range []string{"SELECT count(*) FROM t a, t b WHERE a.a+b.a=-1", "INSERT INTO t SELECT a.a FROM t a, t b"} {
		r := &store.Request{Gate: open{}, Job: script(sql), Payer: store.Payer{Token: "tok_a"}, Budget: budget(20_000)}
		if err := h.Do(t.Context(), database, r); !errors.Is(err, errBroke) {
			t.Fatalf("%s: %v", sql, err)
		}
		if r.Filed || r.Spent.RowsRead <= 20_000 || r.Spent.RowsRead > 30_000 || r.Spent.RowsWritten != 0 {
			t.Errorf("%s was stopped after %+v, filed %v", sql, r.Spent, r.Filed)
		}
	}
	if got := h.rows("SELECT count(*) FROM t"); got != "5000" {
		t.Errorf("%s rows after the INSERT was undone", got)
	}
	// Between the statements of a batch too.
	r := &store.Request{Gate: open{}, Job: script(slices.Repeat([]string{"SELECT a FROM t"}, 10)...), Budget: budget(7_000)}
	if err := h.Do(t.Context(), database, r); !errors.Is(err, errBroke) || r.Spent.RowsRead > 16_000 {
		t.Errorf("a batch: %v after %+v", err, r.Spent)
	}
	if r.Budget = budget(1 << 40); h.Do(t.Context(), database, r) != nil {
		t.Error("a budget that is enough stops a batch")
	}
}

// TestCountsNeverShow has a client look for the count's own work.
func TestCountsNeverShow(t *testing.T) {
	h := newHouse(t, store.Options{Meter: &meter{}}, "CREATE TABLE t(a INTEGER PRIMARY KEY)")
	if _, err := h.pay("tok_a", script("INSERT INTO t VALUES(41)")); err != nil {
		t.Fatal(err)
	}
	j := script("INSERT INTO t VALUES(42)", "SELECT changes() || ' ' || total_changes() || ' ' || last_insert_rowid()")
	if _, err := h.pay("tok_a", j); err != nil || j.results[1].rows != "1 1 42" {
		t.Errorf("changes, total changes, last rowid: %v, %v", j.results, err)
	}
	if got := h.rows("SELECT name FROM sqlite_schema WHERE name LIKE 'sqlite_persql%'"); !strings.Contains(got, "meter") {
		t.Errorf("there is no table of counts: %q", got)
	}
}

// TestStepsPayWhatStands has a budget, a time limit and ON CONFLICT ROLLBACK end a batch whose steps stand by themselves.
func TestStepsPayWhatStands(t *testing.T) {
	fill := "INSERT INTO t WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x<5000) SELECT x FROM c"
	const scan = 5000 * 5 // rows that are read at the least before the last of the statements below fails
	for name, c := range map[string]struct {
		budget int64
		last   string
		least  int64
	}{
		"in a read": {20_000, "SELECT count(*) FROM t a, t b WHERE a.a+b.a=-1", 19_000},
		// These take the transaction with them, and the steps before them run again.
		"in a write":           {20_000, "INSERT INTO t SELECT a.a FROM t a, t b", 19_000},
		"ON CONFLICT ROLLBACK": {1 << 40, "INSERT OR ROLLBACK INTO u SELECT 1 FROM (SELECT count(*) AS n FROM t a, (SELECT 1 FROM t LIMIT 5) b) WHERE n > 0 UNION ALL SELECT 1", scan},
	} {
		t.Run(name, func(t *testing.T) {
			m := &meter{}
			h := newHouse(t, store.Options{Meter: m}, "CREATE TABLE t(a)", "CREATE TABLE u(a INTEGER PRIMARY KEY)", "INSERT INTO u VALUES(1)")
			r := &store.Request{Gate: open{}, Job: steps(fill, c.last), Steps: true, Payer: store.Payer{Token: "tok_a"}, Budget: budget(c.budget)}
			if err := h.Do(t.Context(), database, r); err != nil {
				t.Fatal(err)
			}
			if got := h.rows("SELECT count(*) FROM t"); got != "5000" {
				t.Fatalf("%s rows, want those of the first step", got)
			}
			if !r.Filed || r.Spent.RowsWritten != 5000 && c.budget < 1<<40 || r.Spent.RowsWritten < 5000 || r.Spent.RowsRead < c.least {
				t.Errorf("the request is charged %+v, filed %v; its first step stands, and wrote 5000 rows, and at least %d were read", r.Spent, r.Filed, c.least)
			}
			if got := m.sum(); got.Requests != 1 || got.RowsWritten != r.Spent.RowsWritten || got.RowsRead != r.Spent.RowsRead {
				t.Errorf("the meter was told %+v, the request spent %+v", got, r.Spent)
			}
		})
	}
	h := newHouse(t, store.Options{Meter: &meter{}}, "CREATE TABLE t(a)")
	r := &store.Request{Gate: open{}, Job: steps("INSERT INTO t VALUES(1)", "SELECT a FROM t"), Steps: true, Payer: store.Payer{Token: "tok_a"}, Budget: written(0)}
	if err := h.Do(t.Context(), database, r); err != nil || !r.Filed || r.Spent.RowsWritten != 1 {
		t.Errorf("stopped between two steps: spent %+v, filed %v, %v", r.Spent, r.Filed, err)
	}
}

// written is a budget of rows that are written.
type written int64

func (b written) Afford(c sqlite.Counts) error {
	if c.RowsWritten > int64(b) {
		return errBroke
	}
	return nil
}
