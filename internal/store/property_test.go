package store_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

var world = []string{
	"CREATE TABLE clock(n)", "INSERT INTO clock VALUES(0)",
	"CREATE TABLE kv(k INTEGER PRIMARY KEY, v)",
	"CREATE TABLE u(a UNIQUE)",
	"CREATE TABLE r(a UNIQUE ON CONFLICT ROLLBACK)",
	"CREATE TABLE parent(id INTEGER PRIMARY KEY)",
	"CREATE TABLE child(p REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
	"CREATE TABLE audit(k, v)",
	"CREATE TRIGGER heard AFTER INSERT ON kv BEGIN INSERT INTO audit VALUES(new.k, new.v); END",
}

// randomJob reads the clock first, so that the order in which jobs took effect is known afterwards; a writing one
// moves it on.
func randomJob(rng *rand.Rand) *job {
	j := script("SELECT n FROM clock")
	j.steps = rng.IntN(3) == 0
	if rng.IntN(4) == 0 {
		reads := []string{"SELECT coalesce(sum(v),0) FROM kv", "SELECT group_concat(a) FROM (SELECT a FROM u ORDER BY a)",
			"SELECT last_insert_rowid()||','||changes()||','||total_changes()", "SELECT count(*) FROM audit", "SELECT nothing FROM kv",
			// Long enough to be run apart when it meets finished writes.
			"WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c WHERE n<60000) SELECT count(*) FROM c"}
		for range 1 + rng.IntN(3) {
			j.stmts = append(j.stmts, reads[rng.IntN(len(reads))])
		}
		return j
	}
	j.stmts = append(j.stmts, "UPDATE clock SET n=n+1")
	for range 1 + rng.IntN(4) {
		a, b := rng.IntN(40), rng.IntN(1000)
		pool := []string{
			fmt.Sprintf("INSERT INTO kv(v) VALUES(%d)", b),
			fmt.Sprintf("INSERT OR REPLACE INTO kv VALUES(%d, %d)", a, b),
			fmt.Sprintf("UPDATE kv SET v=v+1 WHERE k<%d", a),
			fmt.Sprintf("DELETE FROM kv WHERE k=%d", a),
			fmt.Sprintf("INSERT INTO kv(v) SELECT last_insert_rowid()+%d", b),
			fmt.Sprintf("INSERT INTO u VALUES(%d)", a),
			fmt.Sprintf("INSERT OR ROLLBACK INTO u VALUES(%d)", a),
			fmt.Sprintf("INSERT INTO r VALUES(%d)", a),
			fmt.Sprintf("DELETE FROM u WHERE a<%d", a/4),
			fmt.Sprintf("DELETE FROM r WHERE a<%d", a/4),
			fmt.Sprintf("INSERT OR IGNORE INTO parent VALUES(%d)", a),
			fmt.Sprintf("INSERT INTO child VALUES(%d)", a),
			fmt.Sprintf("CREATE TABLE IF NOT EXISTS x%d(a)", a/8),
			fmt.Sprintf("DROP TABLE IF EXISTS x%d", a/8),
			"SELECT last_insert_rowid()||','||changes()||','||total_changes()",
			"SELECT coalesce(sum(v),0) FROM kv",
		}
		if !j.steps {
			// Outside of a transaction SQLite keeps the rows before the conflict; a failed request keeps none.
			pool = append(pool, fmt.Sprintf("INSERT OR FAIL INTO u VALUES(%d),(%d)", a, (a+7)%40), "PRAGMA defer_foreign_keys=ON")
		}
		j.stmts = append(j.stmts, pool[rng.IntN(len(pool))])
	}
	return j
}

// model runs jobs one after another on a connection of its own, in SQLite's own transactions.
type model struct {
	t    *testing.T
	conn *sqlite.Conn
}

func newModel(t *testing.T) *model {
	path := filepath.Join(t.TempDir(), "model.db")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	thread := sqlite.NewThread()
	conn, err := sqlite.Open(sqlite.Config{Path: path}, thread)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); thread.Close() })
	m := &model{t, conn}
	for _, sql := range world {
		if err := conn.Exec(sql); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *model) statement(sql string) (r result, err error) {
	st, _, err := m.conn.Prepare([]byte(sql), nil)
	if err != nil {
		return r, err
	}
	defer st.Done()
	total, rowid := m.conn.TotalChanges(), m.conn.LastInsertRowid()
	var rows []string
	for {
		more, err := st.Step()
		if err != nil {
			return r, err
		}
		if !more {
			break
		}
		switch v := st.Column(0); v.Kind {
		case sqlite.Integer:
			rows = append(rows, fmt.Sprint(v.Int))
		case sqlite.Null:
			rows = append(rows, "NULL")
		default:
			rows = append(rows, string(v.Bytes))
		}
	}
	st.Reset()
	r.rows = strings.Join(rows, " ")
	if m.conn.TotalChanges() != total {
		r.changes = m.conn.Changes()
	}
	r.rowid = m.conn.LastInsertRowid()
	if r.rowid == rowid && !(strings.HasPrefix(sql, "INSERT") && r.changes > 0) {
		r.rowid = 0
	}
	return r, nil
}

// run is what a job of its own would do.
func (m *model) run(j *job) (results []result, failed, err error) {
	m.conn.Forget()
	if !j.steps {
		if err := m.conn.Exec("BEGIN"); err != nil {
			m.t.Fatal(err)
		}
	}
	for _, sql := range j.stmts {
		r, e := m.statement(sql)
		if e != nil {
			err = e
			break
		}
		results = append(results, r)
	}
	if j.steps {
		return results, err, nil
	}
	if err == nil {
		err = m.conn.Exec("COMMIT")
	}
	if err != nil && m.conn.InTransaction() {
		if err := m.conn.Exec("ROLLBACK"); err != nil {
			m.t.Fatal(err)
		}
	}
	return results, nil, err
}

// Many clients at once come to what a single one would have come to, request by request.
func TestGroupsEqualOneAfterAnother(t *testing.T) {
	const clients, each = 12, 50
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			h := newHouse(t, store.Options{}, world...)
			jobs := make([][]*job, clients)
			panics := map[*job]bool{}
			for c := range clients {
				rng := rand.New(rand.NewPCG(seed, uint64(c)))
				for range each {
					j := randomJob(rng)
					if rng.IntN(60) == 0 {
						stmts := j.stmts
						j.stmts = nil
						panics[j] = true
						j.hook = func(_ int, tx *store.Tx) error {
							for _, sql := range stmts {
								if err := j.statement(tx, sql); err != nil {
									break
								}
							}
							panic("fault")
						}
					}
					jobs[c] = append(jobs[c], j)
				}
			}
			var all sync.WaitGroup
			for c := range clients {
				all.Go(func() {
					for _, j := range jobs[c] {
						h.on(database, j)
					}
				})
			}
			all.Wait()

			type seen struct {
				at     int
				writes bool
				job    *job
			}
			var order []seen
			for c := range jobs {
				for _, j := range jobs[c] {
					if panics[j] {
						wantErr(t, "a panic", j.err, store.ErrFault)
						continue
					}
					if len(j.results) == 0 {
						t.Fatalf("no result: %v, %v", j.err, j.failed)
					}
					at, err := strconv.Atoi(j.results[0].rows)
					if err != nil {
						t.Fatal(err)
					}
					writes := j.err == nil && len(j.results) > 1 && j.stmts[1] == "UPDATE clock SET n=n+1"
					order = append(order, seen{at, writes, j})
				}
			}
			sort.SliceStable(order, func(a, b int) bool {
				if order[a].at != order[b].at {
					return order[a].at < order[b].at
				}
				return !order[a].writes && order[b].writes
			})
			m := newModel(t)
			for _, s := range order {
				results, failed, err := m.run(s.job)
				if code(err).Primary() != code(s.job.err).Primary() || code(failed).Primary() != code(s.job.failed).Primary() ||
					(err == nil) != (s.job.err == nil) || (failed == nil) != (s.job.failed == nil) {
					t.Fatalf("at %d %q: got %v, %v, want %v, %v", s.at, s.job.stmts, s.job.err, s.job.failed, err, failed)
				}
				if fmt.Sprint(results) != fmt.Sprint(s.job.results) {
					t.Fatalf("at %d %q, steps %v:\n got %v\nwant %v", s.at, s.job.stmts, s.job.steps, s.job.results, results)
				}
			}
			h.restart()
			for _, sql := range []string{"SELECT n FROM clock", "SELECT k||':'||v FROM kv ORDER BY k", "SELECT a FROM u ORDER BY a", "SELECT a FROM r ORDER BY a",
				"SELECT id FROM parent ORDER BY id", "SELECT p FROM child ORDER BY rowid", "SELECT k||':'||v FROM audit ORDER BY rowid", "SELECT name FROM sqlite_schema ORDER BY name"} {
				want, err := m.statement(sql)
				if err != nil {
					t.Fatal(err)
				}
				if got := h.rows(sql); got != want.rows {
					t.Errorf("%s:\n got %s\nwant %s", sql, got, want.rows)
				}
			}
			h.sound()
		})
	}
}
