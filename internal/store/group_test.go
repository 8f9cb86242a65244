package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

// commits counts what the store tells its observer.
type commits struct{ n, groups, requests, open, parked atomic.Int64 }

func (c *commits) Group(int)                            { c.groups.Add(1) }
func (c *commits) Request(time.Duration, time.Duration) { c.requests.Add(1) }
func (c *commits) Commit()                              { c.n.Add(1) }
func (c *commits) Open(delta int)                       { c.open.Add(int64(delta)) }
func (c *commits) Parked(delta int)                     { c.parked.Add(int64(delta)) }
func (c *commits) HistoryFailed()                       {}

func TestWaitingRequestsShareACommit(t *testing.T) {
	var seen commits
	h := newHouse(t, store.Options{Observer: &seen}, tables...)
	commitsBefore, requestsBefore := seen.n.Load(), seen.requests.Load()
	jobs := make([]*job, 50)
	for i := range jobs {
		jobs[i] = script("INSERT INTO t VALUES(1)")
	}
	h.group(jobs...)
	for _, j := range jobs {
		wantErr(t, "insert", j.err, nil)
		if j.stats.Wait <= 0 || j.stats.Engine <= 0 {
			t.Fatalf("stats %+v", j.stats)
		}
	}
	if got := seen.n.Load() - commitsBefore; got != 1 {
		t.Errorf("%d commits for a group, want 1", got)
	}
	if got := seen.requests.Load() - requestsBefore; got != 51 {
		t.Errorf("%d requests observed, want 51", got)
	}
}

// A group takes so many requests, however many wait.
func TestGroupIsBounded(t *testing.T) {
	var seen commits
	h := newHouse(t, unhurried(store.Options{Observer: &seen}), tables...)
	before := seen.n.Load()
	jobs := make([]*job, 257)
	for i := range jobs {
		jobs[i] = script("INSERT INTO t VALUES(1)")
	}
	h.group(jobs...)
	if got := seen.n.Load() - before; got != 2 {
		t.Errorf("%d commits for 257 requests, want 2", got)
	}
}

// A group that takes long commits early, for those whose writes wait.
func TestGroupCommitsAfterItsTime(t *testing.T) {
	var seen commits
	c := newClock()
	h := newHouse(t, store.Options{Observer: &seen, Now: c.Now}, tables...)
	before := seen.n.Load()
	var got []int64
	takes := func(d time.Duration) *job {
		return hooked(func(int, *store.Tx) error {
			got = append(got, seen.n.Load()-before)
			c.Advance(d)
			return nil
		})
	}
	h.group(takes(time.Second), script("INSERT INTO t VALUES(1)"), takes(20*time.Millisecond), takes(time.Millisecond), takes(0))
	if want := []int64{0, 0, 0, 1}; !slices.Equal(got, want) {
		t.Errorf("commits before each of the requests that take time: %v, want %v", got, want)
	}
}

// A sync that waits holds back every answer that depends on it, and no other.
func TestAnswersWaitForTheSync(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	syncing, proceed := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	held.Store(true)
	h.rec.Intercept(func(op crashfs.FileOp, rel string) int32 {
		if op == crashfs.OpSync && strings.HasSuffix(rel, "-wal") && held.CompareAndSwap(true, false) {
			close(syncing)
			<-proceed
		}
		return crashfs.OK
	})
	early, write := script("SELECT count(*) FROM t"), script("INSERT INTO t VALUES(1)")
	late, failed := script("SELECT count(*) FROM t"), script("INSERT INTO u VALUES(1)")
	release := h.hold()
	h.queue(early, write, late, failed)
	release()
	h.wait(early) // saw nothing that is not durable
	h.reach("the sync", syncing)
	// The commit stands still. Whoever was answered has time to say so while another database answers.
	h.create("db_another1")
	for range 50 {
		h.on("db_another1", script("SELECT 1"))
	}
	for i, j := range []*job{write, late, failed} {
		select {
		case <-j.done:
			t.Errorf("request %d was answered before the sync", i)
		default:
		}
	}
	close(proceed)
	h.wait(write, late, failed)
	if early.results[0].rows != "0" || late.results[0].rows != "1" {
		t.Errorf("reads before and after the write: %s, %s", early.results[0].rows, late.results[0].rows)
	}
}

// A group of reads alone doesn't sync.
func TestReadsWaitForNothing(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	h.rec.Intercept(func(op crashfs.FileOp, rel string) int32 {
		if op != crashfs.OpRead {
			t.Errorf("a read made SQLite write or sync %s", rel)
		}
		return crashfs.OK
	})
	jobs := []*job{script("SELECT 1"), script("SELECT count(*) FROM t"), script("SELECT nothing"), script("SELECT a FROM t")}
	h.group(jobs...)
	for i, j := range jobs {
		if (j.err != nil) != (i == 2) {
			t.Errorf("read %d: %v", i, j.err)
		}
	}
}

// A statement that turns long doesn't hold back the writes before it: they are committed, and it runs again alone.
func TestLongStatementRunsApart(t *testing.T) {
	for name, statement := range map[string]string{"write": endlessWrite, "read": endlessRead} {
		for _, stepwise := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				h := newHouse(t, store.Options{StatementTimeout: patience}, tables...)
				again, proceed := make(chan struct{}), make(chan struct{})
				went := false
				long := script("INSERT INTO t VALUES(-1)")
				long.steps = stepwise
				long.hook = func(run int, tx *store.Tx) error {
					if run > 1 {
						close(again)
						<-proceed
						return nil
					}
					if err := long.statement(tx, "INSERT INTO t VALUES(-2)"); err != nil {
						return err
					}
					if err := tx.Commit(); err != nil {
						return err
					}
					// What the Job makes of the error must not matter.
					if err := long.statement(tx, statement); err == nil {
						return errors.New("the statement ended")
					}
					went = long.statement(tx, "SELECT 1") == nil
					return nil
				}
				first, second, after := script("INSERT INTO t VALUES(1)"), script("INSERT INTO t VALUES(2)"), script("INSERT INTO t VALUES(3)")
				release := h.hold()
				h.queue(first, second, long, after)
				release()
				h.reach("the second run", again)
				h.wait(first, second)
				close(proceed)
				h.wait(long, after)
				for _, j := range []*job{first, second, long, after} {
					wantErr(t, "request", j.err, nil)
				}
				if got := h.rows("SELECT a FROM t ORDER BY a"); got != "-1 1 2 3" {
					t.Errorf("rows %s, want -1 1 2 3", got)
				}
				if long.runs != 2 {
					t.Errorf("%d runs, want 2", long.runs)
				}
				if went {
					t.Error("the first run went on, though it was to be undone")
				}
			})
		}
	}
}

// A request may ask for a commit before it and after it.
func TestAlone(t *testing.T) {
	var seen commits
	h := newHouse(t, store.Options{Observer: &seen}, tables...)
	before := seen.n.Load()
	first, last := script("INSERT INTO t VALUES(1)"), script("INSERT INTO t VALUES(3)")
	alone := script("INSERT INTO t VALUES(2)")
	alone.alone = true
	alone.hook = func(int, *store.Tx) error {
		h.wait(first) // it was answered: its commit is done
		if got := seen.n.Load() - before; got != 1 {
			t.Errorf("%d commits before it, want 1", got)
		}
		return nil
	}
	h.group(first, alone, last)
	if got := seen.n.Load() - before; got != 3 {
		t.Errorf("%d commits, want 3", got)
	}
}

func TestVacuum(t *testing.T) {
	h := newHouse(t, store.Options{}, append(tables, spill, "DELETE FROM big")...)
	before := h.rows("PRAGMA page_count")
	first, vacuum, last := script("INSERT INTO t VALUES(1)"), script("VACUUM"), script("INSERT INTO t VALUES(2)")
	h.group(first, vacuum, last)
	for i, j := range []*job{first, vacuum, last} {
		if j.err != nil {
			t.Errorf("request %d: %v", i, j.err)
		}
	}
	if after := h.rows("PRAGMA page_count"); len(after) >= len(before) {
		t.Errorf("%s pages before, %s after", before, after)
	}
	if got := h.rows("SELECT a FROM t"); got != "1 2" {
		t.Errorf("rows %s", got)
	}
	// Inside a transaction SQLite refuses it, and nothing runs twice.
	inside := steps("INSERT INTO t VALUES(3)", "VACUUM")
	h.group(script("INSERT INTO t VALUES(4)"), inside)
	if inside.err != nil || inside.failed == nil || !strings.Contains(inside.failed.Error(), "VACUUM") {
		t.Errorf("in a batch: %v, %v", inside.err, inside.failed)
	}
	whole := script("INSERT INTO t VALUES(5)", "VACUUM")
	h.group(script("INSERT INTO t VALUES(6)"), whole)
	if whole.err == nil {
		t.Error("VACUUM ran in a transaction")
	}
	begins := steps("VACUUM", "INSERT INTO t VALUES(7)")
	h.group(script("INSERT INTO t VALUES(8)"), begins)
	if begins.err != nil || begins.failed != nil {
		t.Errorf("at the start of a batch: %v, %v", begins.err, begins.failed)
	}
	if got := h.rows("SELECT a FROM t ORDER BY a"); got != "1 2 3 4 6 7 8" {
		t.Errorf("rows %s", got)
	}
	h.sound()
}

func TestQueueIsBounded(t *testing.T) {
	h := newHouse(t, store.Options{QueueDepth: 3}, tables...)
	release := h.hold()
	queued := []*job{script("INSERT INTO t VALUES(1)"), script("INSERT INTO t VALUES(2)"), script("INSERT INTO t VALUES(3)")}
	h.queue(queued...)
	over := h.do(script("INSERT INTO t VALUES(4)"))
	wantErr(t, "one too many", over.err, store.ErrQueueFull)
	if over.runs != 0 {
		t.Error("it ran")
	}
	release()
	h.wait(queued...)
	if got := h.rows("SELECT a FROM t"); got != "1 2 3" {
		t.Errorf("rows %s", got)
	}
}

func TestCancelledWhileQueuedNeverRuns(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	ctx, cancel := context.WithCancel(t.Context())
	gone, stays := script("INSERT INTO t VALUES(1)"), script("INSERT INTO t VALUES(2)")
	gone.ctx = ctx
	release := h.hold()
	h.queue(gone, stays)
	cancel()
	h.wait(gone)
	release()
	h.wait(stays)
	wantErr(t, "cancelled", gone.err, context.Canceled)
	if gone.runs != 0 {
		t.Error("it ran")
	}
	if got := h.rows("SELECT a FROM t"); got != "2" {
		t.Errorf("rows %s", got)
	}
	late := script("INSERT INTO t VALUES(3)")
	late.ctx = ctx
	wantErr(t, "cancelled before", h.do(late).err, context.Canceled)
}

// A read whose caller leaves stops; a write that runs is finished, since half of its answer may be out.
func TestCancelledWhileRunning(t *testing.T) {
	h := newHouse(t, store.Options{StatementTimeout: patience}, tables...)
	ctx, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{})
	read := script(endlessRead)
	read.ctx, read.hook = ctx, func(int, *store.Tx) error { close(entered); return nil }
	h.begin(read)
	h.reach("the read", entered)
	cancel()
	h.wait(read)
	wantErr(t, "read", read.err, context.Canceled)

	ctx, cancel = context.WithCancel(t.Context())
	write := script("WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c WHERE n<5000) INSERT INTO t SELECT n FROM c")
	write.ctx, write.hook = ctx, func(int, *store.Tx) error { cancel(); return nil }
	wantErr(t, "write", h.do(write).err, nil)
	if got := h.rows("SELECT count(*) FROM t"); got != "5000" {
		t.Errorf("%s rows, want 5000", got)
	}
}

func TestTimeLimit(t *testing.T) {
	h := newHouse(t, store.Options{StatementTimeout: 30 * time.Millisecond, Grace: time.Minute}, tables...)
	for _, sql := range []string{endlessRead, endlessWrite} {
		for try := 1; ; try++ { // another program may have the processor for longer than that, but not each time
			start := time.Now()
			j := h.do(script(sql))
			wantErr(t, sql, j.err, store.ErrTimeout)
			d := time.Since(start)
			if d <= 130*time.Millisecond+raceSlack {
				break
			}
			if try == 5 {
				t.Errorf("%s ended after %v, its limit is 30 ms", sql, d)
				break
			}
		}
	}
	if got := h.rows("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("%s rows are left", got)
	}
}

// uninterruptible is a single call of the engine's that takes most of a second and looks at nothing.
const uninterruptible = "INSERT INTO t SELECT instr(zeroblob(1000000), CAST(zeroblob(40000)||x'01' AS BLOB))"

// A statement that can't be stopped is answered all the same, and what waits with it; then it is undone.
func TestAbandonedStatement(t *testing.T) {
	h := newHouse(t, store.Options{StatementTimeout: 20 * time.Millisecond, Grace: 20 * time.Millisecond}, tables...)
	// Others of the group: one whose write is finished, one that was taken with it and one that comes later.
	first, stuck, batched := script("INSERT INTO t VALUES(1)"), script("INSERT INTO t VALUES(2)", uninterruptible, "INSERT INTO t VALUES(3)"), script("INSERT INTO t VALUES(4)")
	came := script("INSERT INTO t VALUES(7)") // while it runs
	var began time.Time
	stuck.hook = func(int, *store.Tx) error { h.queue(came); began = time.Now(); return nil }
	release := h.hold()
	h.queue(first, stuck, batched)
	release()
	h.wait(stuck)
	took := time.Since(began)
	wantErr(t, "the statement", stuck.err, store.ErrTimeout)
	wantErr(t, "the statement", stuck.err, store.ErrAbandoned)
	if took > 140*time.Millisecond+raceSlack {
		t.Errorf("it was answered after %v, its limit is 20 ms", took)
	}
	later := h.do(script("INSERT INTO t VALUES(5)"))
	h.wait(first, batched, came)
	wantErr(t, "finished before", first.err, store.ErrStuck)
	wantErr(t, "taken with it", batched.err, store.ErrStuck)
	wantErr(t, "in the queue", came.err, store.ErrStuck)
	wantErr(t, "asked meanwhile", later.err, store.ErrStuck)
	h.until("the database takes requests again", func() bool { return h.do(script("INSERT INTO t VALUES(6)")).err == nil })
	if got := h.rows("SELECT a FROM t"); got != "6" {
		t.Errorf("rows %s, want 6 alone", got)
	}
	if batched.runs+came.runs+later.runs != 0 {
		t.Error("a request that was told that it didn't run ran")
	}
	h.sound()
}

// A request that runs again is watched like one that runs for the first time.
func TestAbandonedWhenRunAgain(t *testing.T) {
	h := newHouse(t, store.Options{StatementTimeout: 100 * time.Millisecond, Grace: 200 * time.Millisecond}, tables...)
	long := hooked(nil)
	long.hook = func(run int, tx *store.Tx) error {
		if run == 1 {
			return long.statement(tx, endlessRead) // until it is found to be long
		}
		return long.statement(tx, uninterruptible)
	}
	first := script("INSERT INTO t VALUES(1)")
	h.group(first, long)
	wantErr(t, "before", first.err, nil)
	wantErr(t, "the statement", long.err, store.ErrAbandoned)
	h.until("the database takes requests again", func() bool { return h.do(script("INSERT INTO t VALUES(2)")).err == nil })
	if got := h.rows("SELECT a FROM t"); got != "1 2" {
		t.Errorf("rows %s, want 1 2", got)
	}
}

// While one database is stuck or busy, others answer.
func TestDatabasesDoNotWaitForEachOther(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	if err := h.Create(t.Context(), "db_another1"); err != nil {
		t.Fatal(err)
	}
	release := h.hold()
	other := script("CREATE TABLE x(a)")
	h.on("db_another1", other)
	wantErr(t, "another database", other.err, nil)
	release()
}

// With fewer workers than busy databases each gets its turn.
func TestFewWorkers(t *testing.T) {
	h := newHouse(t, store.Options{Workers: 1}, tables...)
	ids := []string{"db_worker_1", "db_worker_2", "db_worker_3"}
	release := h.hold()
	var jobs []*job
	for _, id := range ids {
		if err := h.Create(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			j := script("CREATE TABLE IF NOT EXISTS x(a)", "INSERT INTO x VALUES(1)")
			j.done = make(chan struct{})
			go func() { defer close(j.done); h.on(id, j) }()
			jobs = append(jobs, j)
		}
	}
	h.until("all wait", func() bool {
		n := 0
		for _, id := range ids {
			n += h.Waiting(id)
		}
		return n == len(jobs)
	})
	release()
	h.wait(jobs...)
	for _, j := range jobs {
		wantErr(t, "request", j.err, nil)
	}
}

// A database that always has work leaves the worker to others after each group.
func TestEachGetsItsTurn(t *testing.T) {
	h := newHouse(t, store.Options{Workers: 1}, tables...)
	h.create("db_another1")
	other := script("SELECT 1")
	other.done = make(chan struct{})
	const enough = 1000
	jobs := make(chan *job, enough)
	n := 0
	var next func(int, *store.Tx) error
	next = func(int, *store.Tx) error {
		select {
		case <-other.done:
			close(jobs)
			return nil
		default:
		}
		if n++; n == enough {
			close(jobs)
			return nil
		}
		if n == 1 {
			go func() { defer close(other.done); h.on("db_another1", other) }()
			h.until("the other one waits", func() bool { return h.Waiting("db_another1") == 1 })
		}
		j := hooked(next)
		h.queue(j)
		jobs <- j
		return nil
	}
	h.wait(h.begin(hooked(next)), other)
	for j := range jobs {
		h.wait(j)
	}
	if n == enough {
		t.Errorf("another database waited for %d groups", n)
	}
}
