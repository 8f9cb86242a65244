package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

// open is a gate that lets everything through.
type open struct{}

func (open) Permit(sqlite.Access) error { return nil }
func (open) Judge(*sqlite.Stmt) error   { return nil }

// patience bounds every wait of a test: reaching it is a failure.
const patience = 20 * time.Second

const database = "db_abcdefgh"

// clock is a clock that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// house is a store on a recorded disk, with one database.
type house struct {
	*store.Store
	t   testing.TB
	rec *crashfs.Recorder
	opt store.Options

	payer string // a token whose requests are counted; "" for none
}

func newHouse(t testing.TB, opt store.Options, setup ...string) *house {
	t.Helper()
	if err := sqlite.Initialize(sqlite.Setup{}); err != nil { // before the recorder does it
		t.Fatal(err)
	}
	rec, err := crashfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, rec: rec}
	if opt.VFS, err = rec.VFS(); err != nil {
		t.Fatal(err)
	}
	opt.Dir = rec.Root()
	h.opt = opt
	h.start()
	t.Cleanup(func() {
		h.rec.Intercept(nil)
		h.Close(context.Background())
		h.rec.Close()
	})
	if err := h.Create(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	h.must(setup...)
	return h
}

func (h *house) start() {
	h.t.Helper()
	var err error
	if h.Store, err = store.New(h.opt); err != nil {
		h.t.Fatal(err)
	}
}

// restart closes the store and opens another over the same files.
func (h *house) restart() {
	h.t.Helper()
	if err := h.Close(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	h.start()
}

// killed is the store as it would be found if the process died now: a copy of its files, opened.
func (h *house) killed() *house {
	h.t.Helper()
	dir := h.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(h.opt.Dir)); err != nil {
		h.t.Fatal(err)
	}
	k := &house{t: h.t, opt: store.Options{Dir: dir}}
	k.start()
	h.t.Cleanup(func() { k.Close(context.Background()) })
	return k
}

// must runs statements, each a request.
func (h *house) must(sqls ...string) {
	h.t.Helper()
	for _, sql := range sqls {
		if err := h.do(script(sql)).err; err != nil {
			h.t.Fatalf("%s: %v", sql, err)
		}
	}
}

// rows is the first column of a query's rows, joined by spaces.
func (h *house) rows(sql string) string {
	h.t.Helper()
	j := h.do(script(sql))
	if j.err != nil {
		h.t.Fatalf("%s: %v", sql, j.err)
	}
	return j.results[0].rows
}

// sound checks the file and that it holds no page too many.
func (h *house) sound() {
	h.t.Helper()
	if got := h.rows("PRAGMA integrity_check"); got != "ok" {
		h.t.Errorf("integrity check: %s", got)
	}
}

type result struct {
	rows    string
	changes int64
	rowid   int64
}

// job is a request that runs statements in order and stops at the first that fails.
type job struct {
	stmts []string
	steps bool // each stands by itself
	alone bool
	key   *store.Key // kept with the number of the failed statement
	ctx   context.Context
	hook  func(run int, tx *store.Tx) error // called first in each run, counted from 1

	runs    int
	results []result
	failed  error // of a statement of steps, where those before it stay
	err     error
	stats   store.Stats
	done    chan struct{}
}

func script(stmts ...string) *job { return &job{stmts: stmts} }

func steps(stmts ...string) *job { return &job{stmts: stmts, steps: true} }

func hooked(f func(run int, tx *store.Tx) error, stmts ...string) *job {
	return &job{stmts: stmts, hook: f}
}

func (j *job) Run(tx *store.Tx) error {
	j.runs++
	j.results, j.failed = nil, nil
	if j.hook != nil {
		if err := j.hook(j.runs, tx); err != nil {
			return err
		}
	}
	for _, sql := range j.stmts {
		err := j.statement(tx, sql)
		if err == nil && j.steps {
			if err = tx.Commit(); err != nil {
				j.results = j.results[:len(j.results)-1]
			}
		}
		if err == nil {
			continue
		}
		if !j.steps {
			return err
		}
		tx.Undo()
		j.failed = err
		break
	}
	if j.key != nil && tx.Wrote() {
		return tx.Keep(*j.key, fmt.Appendf(nil, "%d", len(j.results)))
	}
	return nil
}

func (j *job) statement(tx *store.Tx, sql string) error {
	st, _, err := tx.Prepare([]byte(sql))
	if err != nil {
		return err
	}
	defer st.Done()
	var rows []string
	r, err := tx.Run(st, nil, func(st *sqlite.Stmt) error {
		v := st.Column(0)
		switch v.Kind {
		case sqlite.Integer:
			rows = append(rows, fmt.Sprint(v.Int))
		case sqlite.Null:
			rows = append(rows, "NULL")
		default:
			rows = append(rows, string(v.Bytes))
		}
		return nil
	})
	if err != nil {
		return err
	}
	j.results = append(j.results, result{strings.Join(rows, " "), r.Changes, r.LastInsertRowid})
	return nil
}

// do runs a job to its end.
func (h *house) do(j *job) *job {
	h.t.Helper()
	h.on(database, j)
	return j
}

func (h *house) on(db string, j *job) {
	ctx := j.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	r := &store.Request{Gate: open{}, Job: j, Steps: j.steps, Alone: j.alone, Payer: store.Payer{Token: h.payer}}
	j.err = h.Do(ctx, db, r)
	if !errors.Is(j.err, store.ErrAbandoned) {
		j.stats = r.Stats
	}
}

// begin runs a job in a goroutine; wait waits for it.
func (h *house) begin(j *job) *job {
	j.done = make(chan struct{})
	go func() {
		defer close(j.done)
		h.on(database, j)
	}()
	return j
}

func (h *house) wait(jobs ...*job) {
	h.t.Helper()
	for i, j := range jobs {
		select {
		case <-j.done:
		case <-time.After(patience):
			h.t.Fatalf("job %d is not answered", i)
		}
	}
}

// reach waits until something is reached that closes ch.
func (h *house) reach(what string, ch <-chan struct{}) {
	h.t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		h.t.Fatalf("%s is not reached", what)
	}
}

// hold keeps the database busy until the returned function is called.
func (h *house) hold() (release func()) {
	h.t.Helper()
	entered, gate := make(chan struct{}), make(chan struct{})
	blocker := h.begin(hooked(func(int, *store.Tx) error {
		close(entered)
		<-gate
		return nil
	}))
	h.reach("the request that holds the database", entered)
	return func() { close(gate); h.wait(blocker) }
}

// queue puts jobs into the database's queue, in order, while it is held.
func (h *house) queue(jobs ...*job) {
	h.t.Helper()
	for _, j := range jobs {
		n := h.Waiting(database)
		h.begin(j)
		h.until("the job is in the queue", func() bool { return h.Waiting(database) > n })
	}
}

// group runs jobs as one group and waits for them.
func (h *house) group(jobs ...*job) {
	h.t.Helper()
	release := h.hold()
	h.queue(jobs...)
	release()
	h.wait(jobs...)
}

// until polls for something that no event tells.
func (h *house) until(what string, f func() bool) {
	h.t.Helper()
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			h.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// faults makes the disk fail.
type fault struct {
	mu    sync.Mutex
	op    crashfs.FileOp
	file  string // suffix
	code  int32
	times int
	hit   int
}

func (f *fault) ask(op crashfs.FileOp, rel string) int32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.times == 0 || op != f.op || !strings.HasSuffix(rel, f.file) {
		return crashfs.OK
	}
	f.times--
	f.hit++
	return f.code
}

// fail makes the next operations of a kind fail; negative times is for ever.
func (h *house) fail(op crashfs.FileOp, file string, code int32, times int) *fault {
	f := &fault{op: op, file: file, code: code, times: times}
	h.rec.Intercept(f.ask)
	return f
}

// arm makes the next operation fail.
func (f *fault) arm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.times = 1
}

func (f *fault) hits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hit
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if want == nil && got != nil || want != nil && !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func code(err error) sqlite.Code {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}
