package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

const forked = "db_forked01"

// fork makes a branch of the house's database, which records.
func (h *house) fork() {
	h.t.Helper()
	path := filepath.Join(h.opt.Dir, "fork.db") // on the recorded disk
	if err := h.Copy(context.Background(), database, path); err != nil {
		h.t.Fatal(err)
	}
	if err := h.CreateBranch(context.Background(), forked, path, store.NewBranch{Facts: store.RecordingFacts{Parent: database, Position: 7, CreatedAt: 8, Schema: "[]"}}); err != nil {
		h.t.Fatal(err)
	}
}

// branch runs statements on the branch, each a request.
func (h *house) branch(sqls ...string) {
	h.t.Helper()
	for _, sql := range sqls {
		j := script(sql)
		if h.on(forked, j); j.err != nil {
			h.t.Fatalf("%s: %v", sql, j.err)
		}
	}
}

func shown(v sqlite.Value) string {
	switch v.Kind {
	case sqlite.Null:
		return "NULL"
	case sqlite.Integer:
		return fmt.Sprint(v.Int)
	case sqlite.Real:
		return fmt.Sprintf("%v.", v.Float)
	case sqlite.Blob:
		return fmt.Sprintf("x'%x'", v.Bytes)
	}
	return fmt.Sprintf("%q", v.Bytes)
}

// recorded is the recording of a database, by table and key: the old row, or "-".
func recordedOf(tx *store.Tx) (map[string]string, error) {
	all := map[string]string{}
	tables, err := tx.RecordedTables()
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		var after *sqlite.Value
		for {
			rows, err := tx.RecordedRows(table, after, 3)
			if err != nil {
				return nil, err
			}
			for _, r := range rows {
				key := shown(r.Key)
				if r.Key.Kind == sqlite.Blob {
					values, err := store.ParseValues(r.Key.Bytes)
					if err != nil {
						return nil, err
					}
					key = ""
					for _, v := range values {
						key += shown(v)
					}
				}
				old := "-"
				if r.There {
					old = ""
					for i, v := range r.Old {
						old += r.Columns[i] + "=" + shown(v) + " "
					}
				}
				all[table+" "+key] = strings.TrimSpace(old)
			}
			if len(rows) < 3 {
				break
			}
			after = &rows[len(rows)-1].Key
		}
	}
	return all, nil
}

func (h *house) recorded() (all map[string]string) {
	h.t.Helper()
	j := hooked(func(_ int, tx *store.Tx) (err error) { all, err = recordedOf(tx); return err })
	if h.on(forked, j); j.err != nil {
		h.t.Fatal(j.err)
	}
	return all
}

// records checks what was recorded, and takes it away for the next step.
func (h *house) records(want ...string) {
	h.t.Helper()
	var got []string
	for k, v := range h.recorded() {
		got = append(got, k+": "+v)
	}
	slices.Sort(got)
	slices.Sort(want)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		h.t.Errorf("recorded\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
	h.branch("DELETE FROM sqlite_persql_changed_v1")
}

func TestRecording(t *testing.T) {
	h := newHouse(t, store.Options{},
		"CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v REAL, g AS (u+1), s AS (u+2) STORED)", "INSERT INTO t VALUES(1,1,1),(2,2,2.5),(3,3,NULL)",
		"CREATE TABLE w(a, b, v, PRIMARY KEY(b, a)) WITHOUT ROWID", "INSERT INTO w VALUES('x',1,x'00'),('y',2.5,'')",
		"CREATE TABLE k(k TEXT PRIMARY KEY, v)", "INSERT INTO k VALUES('a',1)",
		"CREATE TABLE p(id INTEGER PRIMARY KEY)", "CREATE TABLE c(p REFERENCES p ON DELETE CASCADE)", "INSERT INTO p VALUES(1)", "INSERT INTO c VALUES(1)",
		"CREATE TABLE l(n)", "CREATE TRIGGER k_u AFTER UPDATE ON k BEGIN INSERT INTO l VALUES(new.v); END")
	h.fork()
	for _, tt := range []struct {
		sql  string
		want []string
	}{
		{"INSERT INTO t(id,u) VALUES(9,9)", []string{"t 9: -"}},
		{"UPDATE t SET u=99 WHERE id=9", []string{"t 9: id=9 u=9 v=NULL"}},
		{"UPDATE t SET id=10 WHERE id=9", []string{"t 9: id=9 u=99 v=NULL", "t 10: -"}},
		{"INSERT OR REPLACE INTO t(id,u) VALUES(1,2)", []string{"t 1: id=1 u=1 v=1.", "t 2: id=2 u=2 v=2.5."}},
		{"INSERT INTO t(id,u) VALUES(1,5) ON CONFLICT(id) DO UPDATE SET u=6", []string{"t 1: id=1 u=2 v=NULL"}},
		{"DELETE FROM t", []string{"t 1: id=1 u=6 v=NULL", "t 3: id=3 u=3 v=NULL", "t 10: id=10 u=99 v=NULL"}},
		{"UPDATE w SET v=5 WHERE a='x'", []string{`w 1"x": a="x" b=1 v=x'00'`}},
		{"UPDATE w SET b=3 WHERE a='y'", []string{`w 2.5."y": a="y" b=2.5. v=""`, `w 3"y": -`}},
		{"INSERT INTO w VALUES('z',4.0,1)", []string{`w 4"z": -`}},
		{"UPDATE k SET v=7", []string{`k 1: k="a" v=1`, "l 1: -"}},
		{"DELETE FROM p", []string{"p 1: id=1", "c 1: p=1"}},
		{"INSERT INTO l SELECT v FROM k", []string{"l 2: -"}}, // by SQLite's copy of whole rows
		{"CREATE TABLE made AS SELECT * FROM k", []string{"made 1: -"}},
		{"DROP TABLE made", nil},
		{"ALTER TABLE k RENAME TO kk", nil},
		{"UPDATE kk SET v=8", []string{`kk 1: k="a" v=7`, "l 3: -"}},
		{"ALTER TABLE kk RENAME COLUMN v TO vv", nil},
		{"ALTER TABLE kk ADD COLUMN n DEFAULT 'n'", nil},
		{"UPDATE kk SET vv=9", []string{`kk 1: k="a" vv=8 n="n"`, "l 4: -"}},
		{"ALTER TABLE kk DROP COLUMN n", nil},
		{"CREATE TABLE sqlite_like(a)", nil},
	} {
		j := script(tt.sql)
		h.on(forked, j)
		if j.err != nil && !strings.Contains(tt.sql, "sqlite_like") {
			t.Fatalf("%s: %v", tt.sql, j.err)
		}
		t.Run(tt.sql, func(t *testing.T) { (&house{t: t, Store: h.Store}).records(tt.want...) })
	}
	// The first state counts, also beyond a renaming and the end of a column.
	h.branch("INSERT INTO kk VALUES('b',1)", "UPDATE kk SET vv=2", "ALTER TABLE kk RENAME COLUMN vv TO x", "ALTER TABLE kk RENAME TO k3", "UPDATE k3 SET x=3")
	h.records(`k3 1: k="a" x=9`, "k3 2: -", "l 5: -", "l 6: -", "l 7: -", "l 8: -")
	var facts *store.RecordingFacts
	j := hooked(func(_ int, tx *store.Tx) (err error) { facts, err = tx.RecordingFacts(); return err })
	if h.on(forked, j); j.err != nil || facts.Parent != database || facts.Position != 7 || facts.CreatedAt != 8 || facts.Schema != "[]" || facts.Tables["k3"].Table != "k" || facts.Tables["k3"].Columns["x"] != "v" || facts.Ended != "" {
		t.Errorf("%+v, %v", facts, j.err)
	}
}

// What is undone leaves no record: a request, a step, a whole group.
func TestRecordIsUndoneWithItsChange(t *testing.T) {
	h := newHouse(t, store.Options{}, "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE)", "INSERT INTO t VALUES(1,1),(2,2)")
	h.fork()
	on := func(jobs ...*job) {
		entered, gate := make(chan struct{}), make(chan struct{})
		go h.on(forked, hooked(func(int, *store.Tx) error { close(entered); <-gate; return nil }))
		<-entered
		var all sync.WaitGroup
		for _, j := range jobs {
			n := h.Waiting(forked)
			all.Go(func() { h.on(forked, j) })
			h.until("the job is in the queue", func() bool { return h.Waiting(forked) > n })
		}
		close(gate)
		all.Wait()
	}
	failing := hooked(func(_ int, tx *store.Tx) error {
		if err := (&job{}).statement(tx, "UPDATE t SET u=50 WHERE id=1"); err != nil {
			return err
		}
		return errors.New("undo it")
	})
	on(script("INSERT INTO t VALUES(10,10)"), failing, steps("INSERT INTO t VALUES(11,11)", "INSERT INTO t VALUES(12,1)"),
		script("INSERT INTO t VALUES(13,13)", "INSERT OR ROLLBACK INTO t VALUES(14,1)"), script("INSERT INTO t VALUES(15,15)"))
	h.records("t 10: -", "t 11: -", "t 15: -")
	// The names of a table's columns are undone with the request, or the step, that first needed them.
	h.branch("CREATE TABLE a(x)", "CREATE TABLE b(x)")
	undone := func(table string) *job {
		return hooked(func(_ int, tx *store.Tx) error {
			if err := (&job{}).statement(tx, "INSERT INTO "+table+" VALUES(1)"); err != nil {
				return err
			}
			return errors.New("undo it")
		})
	}
	byStep := hooked(func(_ int, tx *store.Tx) error {
		if err := (&job{}).statement(tx, "INSERT INTO b VALUES(1)"); err != nil {
			return err
		}
		tx.Undo()
		return nil
	}, "INSERT INTO b VALUES(2)")
	byStep.steps = true
	on(script("INSERT INTO t VALUES(16,16)"), undone("a"), script("INSERT INTO a VALUES(2)"), byStep)
	h.records("t 16: -", "a 1: -", "b 1: -")
	on(hooked(func(_ int, tx *store.Tx) error {
		(&job{}).statement(tx, "UPDATE t SET u=60 WHERE id=2")
		panic("fault")
	}))
	h.records()
	// What stands before the conflict stands with its record.
	j := hooked(func(_ int, tx *store.Tx) error {
		(&job{}).statement(tx, "INSERT OR FAIL INTO t VALUES(20,20),(21,1)")
		return nil
	})
	if on(j); j.err != nil {
		t.Fatal(j.err)
	}
	h.records("t 20: -")
	if got := script("SELECT id FROM t WHERE id>=20"); true {
		if h.on(forked, got); got.results[0].rows != "20" {
			t.Error(got.results)
		}
	}
}

func TestRecordingSurvives(t *testing.T) {
	h := newHouse(t, store.Options{}, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES(1,1),(2,2)")
	h.fork()
	h.branch("UPDATE t SET a=3 WHERE id=1")
	k := h.killed()
	k.branch("UPDATE t SET a=4")
	k.records("t 1: id=1 a=1", "t 2: id=2 a=2")
	h.restart()
	h.branch("UPDATE t SET a=4")
	h.records("t 1: id=1 a=1", "t 2: id=2 a=2")
}

// VACUUM may change rowids.
func TestNoVacuumWhileRecording(t *testing.T) {
	h := newHouse(t, store.Options{}, "CREATE TABLE t(a)")
	h.fork()
	j := script("VACUUM")
	h.on(forked, j)
	wantErr(t, "VACUUM of a branch", j.err, store.ErrRecording)
	h.must("VACUUM")
}

// A database that doesn't record has no hook: SQLite truncates its tables.
func TestNoHookWithoutRecording(t *testing.T) {
	h := newHouse(t, store.Options{}, "CREATE TABLE t(a)")
	h.fork()
	truncates := func(id string) bool {
		j := script("SELECT 1")
		var ops []string
		j.hook = func(_ int, tx *store.Tx) error {
			return tx.Query("EXPLAIN DELETE FROM t", nil, func(s *sqlite.Stmt) error {
				ops = append(ops, string(s.Column(1).Bytes))
				return nil
			})
		}
		if h.on(id, j); j.err != nil {
			t.Fatal(j.err)
		}
		return slices.Contains(ops, "Clear")
	}
	if !truncates(database) || truncates(forked) {
		t.Errorf("truncates: the parent %v, the branch %v", truncates(database), truncates(forked))
	}
}

// A branch of a branch begins anew, and an import ends the recording.
func TestRecordingEnds(t *testing.T) {
	h := newHouse(t, store.Options{}, "CREATE TABLE t(id INTEGER PRIMARY KEY)")
	h.fork()
	h.branch("INSERT INTO t VALUES(1)")
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := h.Copy(t.Context(), forked, path); err != nil {
		t.Fatal(err)
	}
	const copied = "db_copied01"
	if err := h.CreateFrom(t.Context(), copied, path); err != nil {
		t.Fatal(err)
	}
	facts := func(id string) (f *store.RecordingFacts, records bool) {
		j := hooked(func(_ int, tx *store.Tx) (err error) {
			f, err = tx.RecordingFacts()
			records = tx.Records()
			return err
		})
		if h.on(id, j); j.err != nil {
			t.Fatal(j.err)
		}
		return f, records
	}
	if f, records := facts(copied); f != nil || records {
		t.Errorf("a copy records: %+v, %v", f, records)
	}
	for _, from := range []store.Beginning{store.FromNothing, store.FromCopy} {
		if f, records := facts(forked); from == store.FromNothing && (f == nil || f.Ended != "" || !records) {
			t.Errorf("%+v, %v", f, records)
		}
		if err := h.Rebuild(t.Context(), forked, from, nil, func(string) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if f, records := facts(forked); f == nil || f.Parent != database || f.Ended == "" || records {
			t.Errorf("%+v, %v", f, records)
		}
	}
	h.branch("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES(7)", "VACUUM")
}

// After random requests of many at once, some of which fail in all ways, each row that isn't as it was is recorded as it was, and nothing else is said of any.
func TestRecordingIsExact(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			h := newHouse(t, store.Options{}, world...)
			rng := rand.New(rand.NewPCG(seed, 99))
			for range 40 {
				h.do(randomJob(rng))
			}
			h.fork()
			tables := []string{"clock", "kv", "u", "r", "parent", "child", "audit"}
			read := func(id string) map[string]string {
				all := map[string]string{}
				j := hooked(func(_ int, tx *store.Tx) error {
					clear(all)
					for _, table := range tables {
						err := tx.Query("SELECT rowid, * FROM "+table, nil, func(s *sqlite.Stmt) error {
							row := ""
							for i := 1; i < s.Columns(); i++ {
								row += string(s.ColumnName(i)) + "=" + shown(s.Column(i)) + " "
							}
							all[table+" "+shown(s.Column(0))] = strings.TrimSpace(row)
							return nil
						})
						if err != nil {
							return err
						}
					}
					return nil
				})
				if h.on(id, j); j.err != nil {
					t.Fatal(j.err)
				}
				return all
			}
			was := read(forked)
			var all sync.WaitGroup
			for c := range 8 {
				all.Go(func() {
					rng := rand.New(rand.NewPCG(seed, uint64(c)))
					for range 40 {
						j := randomJob(rng)
						if rng.IntN(40) == 0 {
							stmts := j.stmts
							j.stmts = nil
							j.hook = func(_ int, tx *store.Tx) error {
								for _, sql := range stmts {
									j.statement(tx, sql)
								}
								panic("fault")
							}
						}
						h.on(forked, j)
					}
				})
			}
			all.Wait()
			now, recorded := read(forked), h.recorded()
			for key, old := range recorded {
				if want, there := was[key]; there && old != want || !there && old != "-" {
					if !strings.HasPrefix(key, "x") { // tables that came and went
						t.Errorf("%s is recorded as %s, and was %s", key, old, want)
					}
				}
			}
			changed := 0
			for key := range was {
				if now[key] != was[key] {
					changed++
					if _, ok := recorded[key]; !ok {
						t.Errorf("%s has changed and isn't recorded", key)
					}
				}
			}
			for key := range now {
				if _, there := was[key]; !there {
					changed++
					if _, ok := recorded[key]; !ok {
						t.Errorf("%s is new and isn't recorded", key)
					}
				}
			}
			if changed < 30 {
				t.Errorf("%d changes show too little", changed)
			}
		})
	}
}

// At any moment of a power loss a row and its record stand together.
func TestRecordAndRowStandTogether(t *testing.T) {
	h := newHouse(t, store.Options{StatementTimeout: patience}, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<60) INSERT INTO t SELECT i, 0 FROM n")
	h.opt.Files = recorded(h.rec)
	h.restart()
	path := filepath.Join(h.opt.Dir, "fork.db")
	if err := h.Copy(t.Context(), database, path); err != nil {
		t.Fatal(err)
	}
	if err := store.BeginRecording(path, store.RecordingFacts{Parent: database}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.rec.Remove(path); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(h.opt.Dir, forked[len(forked)-2:])
	if err := h.rec.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := h.rec.OpenFile(filepath.Join(dir, forked+".db"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, h.opt.Dir} {
		if err := h.rec.SyncDir(d); err != nil {
			t.Fatal(err)
		}
	}
	h.rec.Mark("forked")
	var all sync.WaitGroup
	for c := range 3 {
		all.Go(func() {
			for n := range 10 {
				id := 1 + c*20 + n
				j := script(fmt.Sprintf("UPDATE t SET v=%d WHERE id=%d", n+1, id), fmt.Sprintf("INSERT INTO t VALUES(%d,1)", 1000+id), fmt.Sprintf("DELETE FROM t WHERE id=%d", id+10))
				if h.on(forked, j); j.err != nil {
					t.Error(j.err)
				}
				h.rec.Mark(id)
			}
		})
	}
	all.Wait()
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	sizes := map[int]int{}
	err = h.rec.Log().Crashes(250, 3, t.TempDir(), func(c crashfs.Crash) error {
		if !slices.Contains(c.Acked, any("forked")) {
			return nil
		}
		k := &house{t: t, opt: store.Options{Dir: c.Dir}}
		k.start()
		defer k.Close(context.Background())
		var rec map[string]string
		rows := map[string]string{}
		j := hooked(func(_ int, tx *store.Tx) (err error) {
			if rec, err = recordedOf(tx); err != nil {
				return err
			}
			clear(rows)
			return tx.Query("SELECT id, v FROM t", nil, func(s *sqlite.Stmt) error {
				rows["t "+shown(s.Column(0))] = shown(s.Column(1))
				return nil
			})
		})
		if k.on(forked, j); j.err != nil {
			return j.err
		}
		changed := map[string]string{}
		for id := 1; id < 1100; id++ {
			key := fmt.Sprintf("t %d", id)
			v, there := rows[key]
			switch {
			case id <= 60 && v != "0":
				changed[key] = fmt.Sprintf("id=%d v=0", id)
			case id > 60 && there:
				changed[key] = "-"
			}
		}
		sizes[len(changed)]++
		for _, a := range c.Acked {
			if id, ok := a.(int); ok && changed[fmt.Sprintf("t %d", id)] == "" {
				return fmt.Errorf("the write of %d is lost", id)
			}
		}
		if fmt.Sprint(changed) != fmt.Sprint(rec) {
			return fmt.Errorf("changed %v, recorded %v", changed, rec)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(sizes) < 5 {
		t.Errorf("the crashes left %v: the test shows too little", sizes)
	}
}

func BenchmarkInsert(b *testing.B) {
	for _, recording := range []bool{false, true} {
		b.Run(fmt.Sprint("recording=", recording), func(b *testing.B) {
			s, err := store.New(store.Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close(context.Background())
			h := &house{t: b, Store: s, opt: store.Options{Dir: b.TempDir()}}
			if err := s.Create(b.Context(), database); err != nil {
				b.Fatal(err)
			}
			h.must("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INTEGER)", "INSERT INTO t VALUES(1,'first',1)")
			id := database
			if recording {
				h.opt.Dir = b.TempDir()
				h.fork()
				id = forked
			}
			j := script("INSERT INTO t(name, n) VALUES('somebody', 42)")
			for b.Loop() {
				if h.on(id, j); j.err != nil {
					b.Fatal(j.err)
				}
			}
		})
	}
}
