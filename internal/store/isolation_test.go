package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

const (
	// spill writes more than the page cache holds, so that pages go to the log before the commit.
	spill = "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c WHERE n<2000) INSERT INTO big SELECT zeroblob(4000) FROM c"
	// endless runs until it is stopped.
	endlessRead  = "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c) SELECT count(*) FROM c"
	endlessWrite = "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c) INSERT INTO t SELECT n FROM c"
)

var tables = []string{
	"CREATE TABLE t(a)",
	"CREATE TABLE u(a UNIQUE)",
	"CREATE TABLE r(a UNIQUE ON CONFLICT ROLLBACK)",
	"CREATE TABLE big(a)",
	"CREATE TABLE parent(id INTEGER PRIMARY KEY)",
	"CREATE TABLE child(p REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
	"CREATE TABLE strict(p REFERENCES parent)",
	"INSERT INTO u VALUES(1)",
	"INSERT INTO r VALUES(1)",
}

// unhurried makes a test independent of how fast the machine is: on a slow one a group would commit early, or a statement
// turn long and run apart, and the test would look at something else. The clock stands still, or moves by a microsecond
// each time that somebody looks at it, so that only what the engine asks about thousands of times takes time.
func unhurried(opt store.Options) store.Options {
	clock := newClock()
	opt.Now = clock.Now
	if opt.StatementTimeout != 0 {
		opt.Now = func() time.Time {
			clock.Advance(time.Microsecond)
			return clock.Now()
		}
	}
	return opt
}

// One request of a group fails, in each way that a savepoint alone does not isolate: the others stand, once.
func TestFailureHarmsNoOther(t *testing.T) {
	tests := []struct {
		name    string
		opt     store.Options
		prepare func(h *house) *fault
		culprit func() *job
		want    error
		code    sqlite.Code // primary
		again   bool        // the fault comes in each run of the culprit
		other   bool        // the culprit succeeds after all
	}{
		{name: "constraint", culprit: func() *job { return script("INSERT INTO t VALUES(-1)", "INSERT INTO u VALUES(1)") }, code: sqlite.CodeConstraint},
		{name: "deferred foreign key", culprit: func() *job { return script("INSERT INTO t VALUES(-1)", "INSERT INTO child VALUES(7)") }, code: sqlite.CodeConstraint},
		{name: "foreign keys deferred by pragma", culprit: func() *job {
			return script("PRAGMA defer_foreign_keys=ON", "INSERT INTO t VALUES(-1)", "INSERT INTO strict VALUES(7)")
		}, code: sqlite.CodeConstraint},
		{name: "or rollback", culprit: func() *job {
			return script("INSERT INTO t VALUES(-1)", "INSERT OR ROLLBACK INTO u VALUES(1)")
		}, code: sqlite.CodeConstraint},
		{name: "column on conflict rollback", culprit: func() *job { return script("INSERT INTO t VALUES(-1)", "INSERT INTO r VALUES(1)") }, code: sqlite.CodeConstraint},
		{name: "or fail keeps no part", culprit: func() *job {
			return script("INSERT OR FAIL INTO u VALUES(-1),(-2),(1),(-3)")
		}, code: sqlite.CodeConstraint},
		// Shorter than what makes a statement long, so that it is not run apart.
		{name: "time limit", opt: store.Options{StatementTimeout: 3 * time.Millisecond, Grace: time.Minute},
			culprit: func() *job { return script("INSERT INTO t VALUES(-1)", endlessWrite) }, want: store.ErrTimeout},
		{name: "quota", opt: store.Options{Limits: sqlite.Limits{Pages: 300}}, culprit: func() *job { return script("INSERT INTO t VALUES(-1)", spill) }, want: store.ErrQuota},
		{name: "disk error", prepare: func(h *house) *fault { return h.fail(crashfs.OpWrite, "-wal", crashfs.ErrWrite, 1) },
			culprit: func() *job { return script("INSERT INTO t VALUES(-1)", spill) }, want: store.ErrStorage},
		{name: "no memory, twice", prepare: func(h *house) *fault { return h.fail(crashfs.OpWrite, "-wal", crashfs.NoMem, 0) }, again: true,
			culprit: func() *job { return script("INSERT INTO t VALUES(-1)", spill) }, want: store.ErrOutOfMemory},
		{name: "no memory, once", prepare: func(h *house) *fault { return h.fail(crashfs.OpWrite, "-wal", crashfs.NoMem, 1) },
			culprit: func() *job { return script(spill) }, other: true},
		{name: "panic of the job", culprit: func() *job {
			j := script("INSERT INTO t VALUES(-1)")
			j.hook = func(_ int, tx *store.Tx) error {
				defer func() { panic("boom") }()
				return j.statement(tx, "INSERT INTO t VALUES(-2)")
			}
			return j
		}, want: store.ErrFault},
		{name: "panic with a statement in use", culprit: func() *job {
			j := script("INSERT INTO t VALUES(-1)")
			j.hook = func(_ int, tx *store.Tx) error {
				st, _, err := tx.Prepare([]byte("INSERT INTO t VALUES(-2),(-3) RETURNING a"))
				if err != nil {
					return err
				}
				_, err = tx.Run(st, nil, func(*sqlite.Stmt) error { panic("boom") })
				return err
			}
			return j
		}, want: store.ErrFault},
		{name: "fault inside the engine", prepare: func(h *house) *fault {
			f := &fault{op: crashfs.OpWrite, file: "-wal", code: -1, times: 1}
			h.rec.Intercept(func(op crashfs.FileOp, rel string) int32 {
				if rc := f.ask(op, rel); rc != crashfs.OK {
					panic("fault")
				}
				return crashfs.OK
			})
			return f
		}, culprit: func() *job { return script("INSERT INTO t VALUES(-1)", spill) }, want: store.ErrFault},
		{name: "denied", culprit: func() *job { return script("INSERT INTO t VALUES(-1)", "BEGIN", "nonsense") }, code: sqlite.CodeError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, unhurried(tt.opt), tables...)
			var f *fault
			if tt.prepare != nil {
				f = tt.prepare(h)
			}
			before, also := script("INSERT INTO t VALUES(1)"), script("INSERT INTO t VALUES(2)", "SELECT sum(a) FROM t")
			batch := steps("INSERT INTO t VALUES(10)", "INSERT INTO t VALUES(20)")
			read, after := script("SELECT count(*) FROM t"), script("INSERT INTO t VALUES(3)")
			culprit := tt.culprit()
			if tt.again {
				culprit.hook = func(int, *store.Tx) error { f.arm(); return nil }
			}
			h.group(before, also, batch, culprit, read, after)
			for i, j := range []*job{before, also, batch, read, after} {
				if j.err != nil || j.failed != nil {
					t.Errorf("bystander %d: %v, %v", i, j.err, j.failed)
				}
			}
			if !tt.other {
				if tt.want != nil {
					wantErr(t, "culprit", culprit.err, tt.want)
				} else if code(culprit.err).Primary() != tt.code {
					t.Errorf("culprit: got %v, want code %d", culprit.err, tt.code)
				}
			} else if culprit.err != nil {
				t.Errorf("culprit: %v", culprit.err)
			}
			if f != nil && f.hits() == 0 {
				t.Error("the fault was never met")
			}
			if got, want := h.rows("SELECT a FROM t ORDER BY a"), "1 2 3 10 20"; got != want {
				t.Errorf("rows %s, want %s", got, want)
			}
			if got := h.rows("SELECT count(*) FROM u") + h.rows("SELECT count(*) FROM r") + h.rows("SELECT count(*) FROM child"); got != "110" {
				t.Errorf("rows of the other tables: %s", got)
			}
			if got := also.results[1].rows; got != "3" {
				t.Errorf("a request saw %s where its own and the earlier row sum up to 3", got)
			}
			h.must("INSERT INTO t VALUES(4)")
			h.sound()
			h.restart()
			if got, want := h.rows("SELECT a FROM t ORDER BY a"), "1 2 3 4 10 20"; got != want {
				t.Errorf("rows after a restart %s, want %s", got, want)
			}
		})
	}
}

// The switch outlives a savepoint in SQLite. It acts when it is compiled, so a cached one must act again.
func TestDeferredForeignKeysEndWithTheRequest(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	defers := func() *job {
		return script("PRAGMA defer_foreign_keys=ON", "INSERT INTO strict VALUES(1)", "INSERT OR IGNORE INTO parent VALUES(1)")
	}
	plain := func() *job { return script("INSERT INTO strict VALUES(2)", "INSERT OR IGNORE INTO parent VALUES(2)") }
	a, b, c, d := defers(), plain(), defers(), plain()
	prepared := hooked(func(_ int, tx *store.Tx) error {
		st, _, err := tx.Prepare([]byte("PRAGMA defer_foreign_keys=ON"))
		if err == nil {
			st.Done()
		}
		return err
	})
	h.group(a, b, c, d, prepared, plain())
	wantErr(t, "first", a.err, nil)
	wantErr(t, "third", c.err, nil)
	for i, j := range []*job{b, d} {
		if code(j.err) != sqlite.CodeConstraintForeignKey {
			t.Errorf("request %d without the switch: %v", i, j.err)
		}
	}
	for i := range 3 {
		wantErr(t, "with the switch, alone", h.do(defers()).err, nil)
		if j := h.do(plain()); code(j.err) != sqlite.CodeConstraintForeignKey {
			t.Errorf("request %d after it, alone: %v", i, j.err)
		}
	}
	h.do(&job{stmts: prepared.stmts, hook: prepared.hook})
	if j := h.do(plain()); code(j.err) != sqlite.CodeConstraintForeignKey {
		t.Errorf("after one that only compiled it: %v", j.err)
	}
}

// A batch whose statements stand by themselves loses the transaction in its middle: what came before stays, once, and
// with a key the partial answer is kept.
func TestStepsStandByThemselves(t *testing.T) {
	tests := []struct {
		name    string
		opt     store.Options
		prepare func(h *house)
		nomem   bool // each run finds no memory
		loser   string
		want    error
	}{
		{name: "constraint", loser: "INSERT INTO u VALUES(1)"},
		{name: "deferred foreign key", loser: "INSERT INTO child VALUES(7)"},
		{name: "or rollback", loser: "INSERT OR ROLLBACK INTO u VALUES(1)"},
		{name: "or fail", loser: "INSERT OR FAIL INTO u VALUES(5),(1)"},
		{name: "time limit", opt: store.Options{StatementTimeout: 3 * time.Millisecond, Grace: time.Minute}, loser: endlessWrite, want: store.ErrTimeout},
		{name: "quota", opt: store.Options{Limits: sqlite.Limits{Pages: 300}}, loser: spill, want: store.ErrQuota},
		{name: "disk error", loser: spill, want: store.ErrStorage,
			prepare: func(h *house) { h.fail(crashfs.OpWrite, "-wal", crashfs.ErrWrite, 1) }},
		{name: "no memory", loser: spill, want: store.ErrOutOfMemory, nomem: true},
		{name: "fault", loser: spill, want: store.ErrFault, prepare: func(h *house) {
			f := &fault{op: crashfs.OpWrite, file: "-wal", code: -1, times: 1}
			h.rec.Intercept(func(op crashfs.FileOp, rel string) int32 {
				if f.ask(op, rel) != crashfs.OK {
					panic("fault")
				}
				return crashfs.OK
			})
		}},
	}
	for _, tt := range tests {
		for _, lone := range []bool{false, true} {
			name := tt.name
			if lone {
				name += ", alone"
			}
			t.Run(name, func(t *testing.T) {
				h := newHouse(t, unhurried(tt.opt), tables...)
				if tt.prepare != nil {
					tt.prepare(h)
				}
				key := store.Key{Scope: [32]byte{1}, Body: [32]byte{2}}
				batch := steps("INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)", tt.loser, "INSERT INTO t VALUES(99)")
				batch.key = &key
				if tt.nomem {
					f := h.fail(crashfs.OpWrite, "-wal", crashfs.NoMem, 0)
					batch.hook = func(run int, _ *store.Tx) error {
						if run <= 2 { // the third knows the statement
							f.arm()
						}
						return nil
					}
				}
				want := "1 2"
				if lone {
					h.do(batch)
				} else {
					first, last := script("INSERT INTO t VALUES(0)"), script("INSERT INTO t VALUES(3)")
					h.group(first, batch, last)
					wantErr(t, "before", first.err, nil)
					wantErr(t, "after", last.err, nil)
					want = "0 1 2 3"
				}
				if batch.err != nil || batch.failed == nil || len(batch.results) != 2 {
					t.Fatalf("batch: %v, failed %v after %d statements", batch.err, batch.failed, len(batch.results))
				}
				if tt.want != nil {
					wantErr(t, "statement", batch.failed, tt.want)
				}
				if batch.results[0].changes != 1 || batch.results[1].changes != 1 {
					t.Errorf("results %+v", batch.results)
				}
				h.restart()
				if got := h.rows("SELECT a FROM t ORDER BY a"); got != want {
					t.Errorf("rows %s, want %s", got, want)
				}
				if got := h.rows("SELECT count(*) FROM u"); got != "1" {
					t.Errorf("the failed statement left something: %s", got)
				}
				if kept := h.kept(key); kept != "2" {
					t.Errorf("kept answer %q, want 2", kept)
				}
				h.sound()
			})
		}
	}
}

// The replay fails where the first run did not: each request gets what it deserves, alone.
func TestReplayThatFails(t *testing.T) {
	for _, tt := range []struct {
		name string
		runs int // that meet the fault
		want error
		rows string
	}{
		{"once", 1, nil, "1 2 3 4"},
		{"always", 2, store.ErrStorage, "1 3 4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, unhurried(store.Options{}), tables...)
			f := h.fail(crashfs.OpWrite, "-wal", crashfs.ErrWrite, 0)
			big := script("INSERT INTO t VALUES(2)", spill)
			big.hook = func(run int, _ *store.Tx) error {
				if run > 1 && run <= 1+tt.runs {
					f.arm()
				}
				return nil
			}
			first, third, last := script("INSERT INTO t VALUES(1)"), script("INSERT INTO t VALUES(3)"), script("INSERT INTO t VALUES(4)")
			culprit := script("INSERT INTO t VALUES(-1)", "INSERT OR ROLLBACK INTO u VALUES(1)")
			h.group(script("SELECT 1"), first, big, third, culprit, last)
			for i, j := range []*job{first, third, last} {
				if j.err != nil {
					t.Errorf("bystander %d: %v", i, j.err)
				}
			}
			if !errors.Is(big.err, tt.want) {
				t.Errorf("the one that fails: %v, want %v", big.err, tt.want)
			}
			if code(culprit.err).Primary() != sqlite.CodeConstraint {
				t.Errorf("culprit: %v", culprit.err)
			}
			if f.hits() != tt.runs {
				t.Errorf("the fault was met %d times, want %d", f.hits(), tt.runs)
			}
			if got := h.rows("SELECT a FROM t ORDER BY a"); got != tt.rows {
				t.Errorf("rows %s, want %s", got, tt.rows)
			}
			h.sound()
		})
	}
}

// What was compiled while the schema was another one is not run after that schema was undone.
func TestStatementsOfAnUndoneSchema(t *testing.T) {
	const insert = "INSERT INTO t VALUES(1)"
	undone := []string{"DROP TRIGGER heard", insert, "INSERT INTO u VALUES(1)"}
	for name, culprit := range map[string]*job{"alone": script(undone...), "in a group": script(undone...), "step": steps("SELECT 1")} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, store.Options{}, append(tables, "CREATE TRIGGER heard AFTER INSERT ON t BEGIN INSERT INTO big VALUES(new.a); END")...)
			if name == "step" {
				culprit.hook = func(_ int, tx *store.Tx) error {
					for _, sql := range undone[:2] {
						if err := culprit.statement(tx, sql); err != nil {
							return err
						}
					}
					tx.Undo()
					return culprit.statement(tx, insert)
				}
			}
			after := script(insert)
			if name == "alone" {
				h.do(culprit)
				h.do(after)
			} else {
				h.group(script("INSERT INTO t VALUES(0)"), culprit, after)
			}
			wantErr(t, "afterwards", after.err, nil)
			if name == "step" {
				wantErr(t, "after the step that was undone", culprit.err, nil)
			}
			if rows, heard := h.rows("SELECT count(*) FROM t"), h.rows("SELECT count(*) FROM big"); rows != heard {
				t.Errorf("%s rows, the trigger heard of %s", rows, heard)
			}
		})
	}
}

// A step that is undone doesn't make the transaction forget that an earlier one changed the schema.
func TestStatementsOfAnUndoneStepAndSchema(t *testing.T) {
	const drop = "DROP TABLE IF EXISTS strict" // does nothing when it is compiled without the table
	h := newHouse(t, store.Options{}, tables...)
	batch := &job{steps: true}
	batch.hook = func(_ int, tx *store.Tx) error {
		if err := batch.statement(tx, drop); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		if err := batch.statement(tx, "INSERT INTO u VALUES(1)"); err == nil {
			return errors.New("no conflict")
		}
		tx.Undo()
		if err := batch.statement(tx, drop); err != nil {
			return err
		}
		return errors.New("undo it all")
	}
	// In a group, so that it is undone to a savepoint, and alone.
	h.group(script("INSERT INTO t VALUES(1)"), batch, script(drop))
	h.must("CREATE TABLE strict(p)")
	h.do(batch)
	h.must(drop)
	if got := h.rows("SELECT count(*) FROM sqlite_schema WHERE name='strict'"); got != "0" {
		t.Error("the table is still there")
	}
}

// A transaction of a request's own is whole or not at all.
func TestTransactionIsWhole(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	swallowed := hooked(nil)
	swallowed.hook = func(_ int, tx *store.Tx) error {
		if err := swallowed.statement(tx, "INSERT INTO t VALUES(1)"); err != nil {
			return err
		}
		err := swallowed.statement(tx, "INSERT OR ROLLBACK INTO u VALUES(1)")
		if err == nil {
			return errors.New("no conflict")
		}
		// The transaction is gone: whatever the job still tries must not stand by itself.
		if err := swallowed.statement(tx, "INSERT INTO t VALUES(2)"); err == nil {
			return errors.New("a statement ran outside of a transaction")
		}
		if err := tx.Keep(store.Key{}, []byte("x")); err == nil {
			return errors.New("an answer was kept outside of a transaction")
		}
		if err := tx.SetNote(store.Note{Table: "t", Text: "x"}); err == nil {
			return errors.New("a note was kept outside of a transaction")
		}
		return nil
	}
	h.group(script("INSERT INTO t VALUES(0)"), swallowed)
	if code(swallowed.err).Primary() != sqlite.CodeConstraint {
		t.Errorf("got %v, want the error that the job swallowed", swallowed.err)
	}
	if got := h.rows("SELECT a FROM t"); got != "0" {
		t.Errorf("rows %s, want 0", got)
	}
	if got := h.kept(store.Key{}); got != "" {
		t.Errorf("an answer was kept: %q", got)
	}
}

// The engine's counters belong to the connection, which many callers share.
func TestCountersTellNothingOfOthers(t *testing.T) {
	h := newHouse(t, store.Options{}, tables...)
	const ask = "SELECT last_insert_rowid() || ',' || changes() || ',' || total_changes()"
	writer := script("INSERT INTO t VALUES(1),(2),(3)", ask, "SELECT 1", ask, "UPDATE t SET a=a WHERE 0", ask)
	reader := script(ask)
	copier := script("INSERT INTO t SELECT last_insert_rowid()", "SELECT max(a) FROM t")
	h.group(writer, reader, copier)
	for i, want := range []string{1: "3,3,3", 3: "3,3,3", 5: "3,0,3"} {
		if want != "" && writer.results[i].rows != want {
			t.Errorf("own counters after statement %d: %s, want %s", i, writer.results[i].rows, want)
		}
	}
	if got := writer.results[0]; got.rowid != 3 || got.changes != 3 {
		t.Errorf("insert: %+v", got)
	}
	if got := writer.results[4]; got.rowid != 0 || got.changes != 0 {
		t.Errorf("update of nothing: %+v", got)
	}
	if got := reader.results[0].rows; got != "0,0,0" {
		t.Errorf("another request sees %s", got)
	}
	if got := copier.results[0].rowid; got != 4 {
		t.Errorf("rowid of an insert that reads last_insert_rowid(): %d, want 4", got)
	}
	if got := h.rows("SELECT count(*) FROM t WHERE a=0"); got != "1" {
		t.Error("last_insert_rowid() of a new request is not 0")
	}
}

// kept is the answer kept for a key, empty if there is none.
func (h *house) kept(k store.Key) string {
	h.t.Helper()
	var answer []byte
	j := h.do(hooked(func(_ int, tx *store.Tx) (err error) {
		answer, err = tx.Kept(k)
		return err
	}))
	if j.err != nil {
		h.t.Fatal(j.err)
	}
	return string(answer)
}

// The engine faults where no request runs: in the group's commit, in a checkpoint. The process and others go on.
func TestFaultOutsideOfARequest(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		op         crashfs.FileOp
		want       error
	}{
		{"commit", "-wal", crashfs.OpWrite, store.ErrFault},
		{"sync", "-wal", crashfs.OpSync, store.ErrFault},
		{"checkpoint", ".db", crashfs.OpWrite, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, store.Options{}, tables...)
			f := &fault{op: tt.op, file: tt.file, code: -1, times: 1}
			h.rec.Intercept(func(op crashfs.FileOp, rel string) int32 {
				if f.ask(op, rel) != crashfs.OK {
					panic("fault")
				}
				return crashfs.OK
			})
			jobs := []*job{script("INSERT INTO t VALUES(1)", spill), script("INSERT INTO t VALUES(1)")}
			if tt.want != nil {
				jobs[0] = script("INSERT INTO t VALUES(1)")
			}
			h.group(jobs...)
			for i, j := range jobs {
				if !errors.Is(j.err, tt.want) {
					t.Errorf("request %d: %v, want %v", i, j.err, tt.want)
				}
			}
			h.must("INSERT INTO t VALUES(2)")
			if f.hits() != 1 {
				t.Error("the fault was never met")
			}
			if got := h.rows("SELECT count(*) FROM t"); got != "3" && got != "1" || tt.want == nil && got != "3" {
				t.Errorf("%s rows", got)
			}
			h.sound()
		})
	}
}
