package rows_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/branch/rows"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// open is a gate that lets everything through.
type open struct{}

func (open) Permit(sqlite.Access) error { return nil }
func (open) Judge(*sqlite.Stmt) error   { return nil }

// house is a store with a parent and branches of it.
type house struct {
	*store.Store
	t   testing.TB
	dir string
}

const (
	parent = "db_parent"
	branch = "db_branch"
)

func newHouse(t testing.TB, setup ...string) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir()}
	var err error
	if h.Store, err = store.New(store.Options{Dir: h.dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(context.Background()) })
	if err := h.Create(t.Context(), parent); err != nil {
		t.Fatal(err)
	}
	h.must(parent, setup...)
	return h
}

// fork makes the branch.
func (h *house) fork() {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), "fork.db")
	if err := h.Copy(context.Background(), parent, path); err != nil {
		h.t.Fatal(err)
	}
	if err := h.CreateBranch(context.Background(), branch, path, store.NewBranch{Facts: store.RecordingFacts{Parent: parent}}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) do(db string, f func(tx *store.Tx) error) error {
	return h.Do(context.Background(), db, &store.Request{Gate: open{}, Job: store.JobFunc(f)})
}

// exec runs a statement as a request of its own.
func (h *house) exec(db, sql string) error {
	return h.do(db, func(tx *store.Tx) error {
		st, _, err := tx.Prepare([]byte(sql))
		if err != nil {
			return err
		}
		defer st.Done()
		_, err = tx.Run(st, nil, nil)
		return err
	})
}

func (h *house) must(db string, sqls ...string) {
	h.t.Helper()
	for _, sql := range sqls {
		if err := h.exec(db, sql); err != nil {
			h.t.Fatalf("%s: %s: %v", db, sql, err)
		}
	}
}

func show(v sqlite.Value) string {
	switch v.Kind {
	case sqlite.Null:
		return "NULL"
	case sqlite.Integer:
		return fmt.Sprint(v.Int)
	case sqlite.Real:
		return fmt.Sprintf("%#g", v.Float)
	case sqlite.Blob:
		return fmt.Sprintf("x'%x'", v.Bytes)
	}
	return fmt.Sprintf("%q", v.Bytes)
}

// rows are the rows of a query, each as a text.
func (h *house) rows(db, sql string) (all []string) {
	h.t.Helper()
	err := h.do(db, func(tx *store.Tx) error {
		all = nil
		return tx.Query(sql, nil, func(st *sqlite.Stmt) error {
			var row []string
			for i := range st.Columns() {
				row = append(row, show(st.Column(i)))
			}
			all = append(all, strings.Join(row, "|"))
			return nil
		})
	})
	if err != nil {
		h.t.Fatalf("%s: %s: %v", db, sql, err)
	}
	return all
}

func (h *house) want(db, sql string, want ...string) {
	h.t.Helper()
	if got := h.rows(db, sql); strings.Join(got, "\n") != strings.Join(want, "\n") {
		h.t.Errorf("%s: %s:\n got %q\nwant %q", db, sql, got, want)
	}
}

func (h *house) merge(opt rows.Options) (r *rows.Result, err error) {
	h.t.Helper()
	var c *rows.Changes
	if err := h.do(branch, func(tx *store.Tx) (err error) { c, err = rows.Collect(tx, h.dir); return err }); err != nil {
		return nil, err
	}
	defer c.Close()
	opt.Dir = h.dir
	err = h.do(parent, func(tx *store.Tx) (err error) { r, err = rows.Merge(tx, c, opt); return err })
	return r, err
}

func (h *house) merged(opt rows.Options, inserted, updated, deleted int64) *rows.Result {
	h.t.Helper()
	r, err := h.merge(opt)
	if err != nil {
		h.t.Fatalf("%v: %+v", err, r)
	}
	if r.Inserted != inserted || r.Updated != updated || r.Deleted != deleted {
		h.t.Errorf("inserted, updated, deleted: %d, %d, %d, want %d, %d, %d", r.Inserted, r.Updated, r.Deleted, inserted, updated, deleted)
	}
	for _, line := range h.rows(parent, "PRAGMA integrity_check") {
		if line != `"ok"` {
			h.t.Error(line)
		}
	}
	if bad := h.rows(parent, "PRAGMA foreign_key_check"); len(bad) > 0 {
		h.t.Error(bad)
	}
	return r
}

func TestMerge(t *testing.T) {
	h := newHouse(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)", "INSERT INTO t VALUES(1,'a',1.5),(2,'b',x'00ff'),(3,'c',NULL),(4,'d',4)")
	h.fork()
	h.must(branch, "INSERT INTO t VALUES(5,'e',5)", "UPDATE t SET a='B' WHERE id=2", "DELETE FROM t WHERE id=3", "UPDATE t SET a='x' WHERE id=4", "UPDATE t SET a='d' WHERE id=4")
	h.must(parent, "UPDATE t SET b=7 WHERE id=1", "INSERT INTO t VALUES(9,'i',9)")
	preview := h.merged(rows.Options{Preview: true}, 1, 1, 1)
	if preview.ConflictCount != 0 {
		t.Error(preview)
	}
	h.want(parent, "SELECT count(*) FROM t", "5")
	h.merged(rows.Options{}, 1, 1, 1)
	h.want(parent, "SELECT * FROM t", `1|"a"|7`, `2|"B"|x'00ff'`, `4|"d"|4`, `5|"e"|5`, `9|"i"|9`)
	h.merged(rows.Options{}, 0, 0, 0) // again: both sides are the same
}

func TestConflicts(t *testing.T) {
	setup := func(t *testing.T) *house {
		h := newHouse(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES(1,'a'),(2,'b'),(3,'c'),(4,'d')")
		h.fork()
		h.must(branch, "UPDATE t SET a='branch' WHERE id<4", "DELETE FROM t WHERE id=3", "INSERT INTO t VALUES(7,'branch')", "DELETE FROM t WHERE id=4")
		h.must(parent, "UPDATE t SET a='parent' WHERE id=1", "DELETE FROM t WHERE id=2", "UPDATE t SET a='parent' WHERE id=3", "INSERT INTO t VALUES(7,'parent')")
		return h
	}
	h := setup(t)
	r, err := h.merge(rows.Options{Max: 3})
	if !errors.Is(err, rows.ErrConflict) || r.ConflictCount != 4 || len(r.Conflicts) != 3 {
		t.Fatalf("%v, %+v", err, r)
	}
	for i, want := range []string{`[1] both_changed ["a"] ["branch"] ["parent"]`, `[2] deleted_and_changed ["b"] ["branch"] []`, `[3] deleted_and_changed ["c"] [] ["parent"]`} {
		c := r.Conflicts[i]
		list := func(v []sqlite.Value) string {
			var s []string
			for i := range v {
				if c.Columns[i] == "a" {
					s = append(s, show(v[i]))
				}
			}
			return "[" + strings.Join(s, " ") + "]"
		}
		if got := fmt.Sprintf("[%s] %s %s %s %s", show(c.Key[0]), c.Reason, list(c.Base), list(c.Branch), list(c.Parent)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	h.want(parent, "SELECT * FROM t", `1|"parent"`, `3|"parent"`, `4|"d"`, `7|"parent"`)
	h.merged(rows.Options{OnConflict: rows.Ours}, 0, 0, 1)
	h.want(parent, "SELECT * FROM t", `1|"parent"`, `3|"parent"`, `7|"parent"`)
	h = setup(t)
	h.merged(rows.Options{OnConflict: rows.Theirs}, 1, 2, 2)
	h.want(parent, "SELECT * FROM t", `1|"branch"`, `2|"branch"`, `7|"branch"`)
}

// Two rows that swap unique values, and a chain that moves on by one, in any order.
func TestUniqueValuesSwap(t *testing.T) {
	h := newHouse(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE ON CONFLICT ROLLBACK, note)", "INSERT INTO t VALUES(1,'a','x'),(2,'b','y'),(3,'c','z'),(4,'d','w')")
	h.fork()
	h.must(branch, "UPDATE t SET u=NULL WHERE id=1", "UPDATE t SET u='a' WHERE id=2", "UPDATE t SET u='b' WHERE id=1", "DELETE FROM t WHERE id=3", "UPDATE t SET u='c' WHERE id=4", "INSERT INTO t VALUES(5,'d','n')")
	h.merged(rows.Options{}, 1, 3, 1)
	h.want(parent, "SELECT * FROM t", `1|"b"|"x"`, `2|"a"|"y"`, `4|"c"|"w"`, `5|"d"|"n"`)

	h.must(branch, "UPDATE t SET u='new' WHERE id=1")
	h.must(parent, "INSERT INTO t VALUES(99,'new','')")
	r, err := h.merge(rows.Options{OnConflict: rows.Theirs})
	if !errors.Is(err, rows.ErrConflict) || r.Conflicts[len(r.Conflicts)-1].Reason != rows.Constraint || !strings.Contains(r.Conflicts[len(r.Conflicts)-1].Message, "UNIQUE constraint failed: t.u") {
		t.Fatalf("%v, %+v", err, r)
	}
	h.want(parent, "SELECT u FROM t WHERE id=1", `"b"`)
}

func TestTriggersAndCascadesActOnce(t *testing.T) {
	h := newHouse(t, "CREATE TABLE p(id INTEGER PRIMARY KEY, n)", "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id) ON DELETE CASCADE ON UPDATE CASCADE)", "CREATE TABLE log(what)",
		"CREATE TRIGGER told AFTER UPDATE ON p BEGIN INSERT INTO log VALUES(old.n||'>'||new.n); END", "INSERT INTO p VALUES(1,1),(2,2),(3,3)", "INSERT INTO c VALUES(10,1),(11,1),(20,2),(30,3)")
	h.fork()
	h.must(branch, "DELETE FROM p WHERE id=1", "UPDATE p SET n=22 WHERE id=2", "UPDATE p SET id=33 WHERE id=3")
	h.merged(rows.Options{}, 3, 2, 4) // into p: 33; into log: two
	h.want(parent, "SELECT * FROM p", "2|22", "33|3")
	h.want(parent, "SELECT * FROM c", "20|2", "30|33")
	h.want(parent, "SELECT * FROM log", `"2>22"`, `"3>3"`)

}

// A row of the parent's that refers to what the branch deleted, and one of the branch's to what the parent did.
func TestReferencesToNone(t *testing.T) {
	h := newHouse(t, "CREATE TABLE p(id INTEGER PRIMARY KEY, n)", "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p)", "INSERT INTO p VALUES(1,1),(2,2),(33,3)")
	h.fork()
	h.must(branch, "DELETE FROM p WHERE id=2", "INSERT INTO c VALUES(40,33)")
	h.must(parent, "INSERT INTO c VALUES(21,2)")
	r, err := h.merge(rows.Options{OnConflict: rows.Theirs})
	if !errors.Is(err, rows.ErrConflict) || r.Conflicts[len(r.Conflicts)-1].Reason != rows.ForeignKey {
		t.Fatalf("%v, %+v", err, r)
	}
	h.must(parent, "DELETE FROM c WHERE id=21", "DELETE FROM p WHERE id=33")
	r, err = h.merge(rows.Options{OnConflict: rows.Ours})
	if !errors.Is(err, rows.ErrConflict) || r.Conflicts[len(r.Conflicts)-1].Reason != rows.ForeignKey {
		t.Fatalf("%v, %+v", err, r)
	}
	h.must(parent, "INSERT INTO p VALUES(33,3)")
	h.merged(rows.Options{}, 1, 0, 1)
}

func TestVirtualTables(t *testing.T) {
	h := newHouse(t, "CREATE VIRTUAL TABLE f USING fts5(a, b)", "INSERT INTO f(rowid,a,b) VALUES(1,'one','x'),(2,'two','y'),(3,'three','z')",
		"CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, +note)", "INSERT INTO r VALUES(1,0,1,'a'),(2,2,3,'b'),(3,4,5,'c')",
		"CREATE TABLE d(id INTEGER PRIMARY KEY, body)", "CREATE VIRTUAL TABLE df USING fts5(body, content=d, content_rowid=id)",
		"CREATE TRIGGER d_i AFTER INSERT ON d BEGIN INSERT INTO df(rowid, body) VALUES(new.id, new.body); END",
		"CREATE TRIGGER d_d AFTER DELETE ON d BEGIN INSERT INTO df(df, rowid, body) VALUES('delete', old.id, old.body); END",
		"CREATE TRIGGER d_u AFTER UPDATE ON d BEGIN INSERT INTO df(df, rowid, body) VALUES('delete', old.id, old.body); INSERT INTO df(rowid, body) VALUES(new.id, new.body); END",
		"INSERT INTO d VALUES(1,'apple'),(2,'pear'),(3,'plum')")
	h.fork()
	h.must(branch, "UPDATE f SET a='uno' WHERE rowid=1", "DELETE FROM f WHERE rowid=2", "INSERT INTO f(rowid,a) VALUES(9,'nine')",
		"UPDATE r SET x1=1.25 WHERE id=1", "DELETE FROM r WHERE id=2", "INSERT INTO r VALUES(9,8,9,'i')",
		"UPDATE d SET body='cherry' WHERE id=1", "DELETE FROM d WHERE id=2", "INSERT INTO d VALUES(9,'quince')")
	h.must(parent, "UPDATE r SET note='C' WHERE id=3", "UPDATE f SET b='Z' WHERE rowid=3", "UPDATE d SET body='prune' WHERE id=3")
	h.merged(rows.Options{}, 3, 3, 3)
	h.want(parent, "SELECT rowid, * FROM f", `1|"uno"|"x"`, `3|"three"|"Z"`, `9|"nine"|NULL`)
	h.want(parent, "SELECT rowid FROM f('uno OR nine OR two OR one') ORDER BY rowid", "1", "9")
	h.want(parent, "SELECT * FROM r ORDER BY id", `1|0.00000|1.25000|"a"`, `3|4.00000|5.00000|"C"`, `9|8.00000|9.00000|"i"`)
	h.want(parent, "SELECT rowid FROM df('apple OR cherry OR pear OR quince OR prune') ORDER BY rowid", "1", "3", "9")
	h.must(parent, "INSERT INTO df(df, rank) VALUES('integrity-check', 1)", "INSERT INTO f(f) VALUES('integrity-check')")

	h.must(parent, "UPDATE r SET x1=2 WHERE id=1", "UPDATE f SET a='eins' WHERE rowid=1")
	r, err := h.merge(rows.Options{})
	if !errors.Is(err, rows.ErrConflict) || r.ConflictCount != 2 {
		t.Fatalf("%v, %+v", err, r)
	}
	if base := r.Conflicts[1].Base; len(base) != 4 || base[2].Float != 1 || r.Conflicts[0].Base[0].Kind != sqlite.Text {
		t.Errorf("%+v", r.Conflicts)
	}
}

func TestContentlessIsNotMerged(t *testing.T) {
	h := newHouse(t, "CREATE VIRTUAL TABLE f USING fts5(a, content='')")
	h.fork()
	h.must(branch, "INSERT INTO f(rowid, a) VALUES(1,'one')")
	var p *rows.Problem
	if _, err := h.merge(rows.Options{}); !errors.As(err, &p) || p.Table != "f" {
		t.Fatal(err)
	}
}

func TestAutoincrement(t *testing.T) {
	h := newHouse(t, "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a)", "INSERT INTO t(a) VALUES(1)")
	h.fork()
	h.must(branch, "INSERT INTO t(a) VALUES(2),(3),(4)", "DELETE FROM t WHERE id>2")
	h.merged(rows.Options{}, 1, 0, 0)
	h.must(parent, "INSERT INTO t(a) VALUES(9)")
	h.want(parent, "SELECT id FROM t", "1", "2", "5")
}

// The schema changes while rows are recorded. The parent has the same schema then, by a merge of it.
func TestSchemaChanges(t *testing.T) {
	alter := []string{"ALTER TABLE t RENAME COLUMN a TO z", "ALTER TABLE t ADD COLUMN n TEXT DEFAULT 7", "ALTER TABLE t DROP COLUMN b", "ALTER TABLE t RENAME TO u"}
	h := newHouse(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c)", "INSERT INTO t VALUES(1,'a','b','c'),(2,'aa','bb','cc'),(3,'aaa','bbb','ccc')")
	h.fork()
	h.must(branch, "UPDATE t SET a='A' WHERE id=1", "UPDATE t SET b='gone' WHERE id=3")
	h.must(branch, alter...)
	h.must(branch, "UPDATE u SET n='N' WHERE id=2", "UPDATE u SET c='C' WHERE id=1", "INSERT INTO u VALUES(4,'z','c','n')")
	h.must(parent, alter...)
	h.merged(rows.Options{}, 1, 2, 0)
	h.want(parent, "SELECT * FROM u", `1|"A"|"C"|"7"`, `2|"aa"|"cc"|"N"`, `3|"aaa"|"ccc"|"7"`, `4|"z"|"c"|"n"`)
}

// A table that is rebuilt by hand, as migration tools do: each of its rows is a new one, and merges by its key all the same.
func TestRebuiltByHand(t *testing.T) {
	rebuild := []string{"CREATE TABLE n(k TEXT PRIMARY KEY, v, w DEFAULT 'w')", "INSERT INTO n(k, v) SELECT k, v FROM t", "DROP TABLE t", "ALTER TABLE n RENAME TO t"}
	for _, tt := range []struct{ name, create string }{
		{"rowid", "CREATE TABLE t(k TEXT PRIMARY KEY, v)"},
		{"without rowid", "CREATE TABLE t(k TEXT PRIMARY KEY, v) WITHOUT ROWID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, tt.create, "INSERT INTO t VALUES('c',3),('b',2),('a',1)", "DELETE FROM t WHERE k='b'")
			h.fork()
			h.must(branch, "UPDATE t SET v=33 WHERE k='c'", "INSERT INTO t VALUES('d',4)")
			h.must(branch, rebuild...)
			h.must(branch, "UPDATE t SET v=11 WHERE k='a'")
			h.must(parent, rebuild...)
			h.must(parent, "INSERT INTO t VALUES('x',0,'')")
			h.merged(rows.Options{}, 1, 2, 0)
			h.want(parent, "SELECT k, v FROM t ORDER BY k", `"a"|11`, `"c"|33`, `"d"|4`, `"x"|0`)
		})
	}
}

func TestColumnsOfOneSide(t *testing.T) {
	h := newHouse(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b AS (a||'!'))", "INSERT INTO t VALUES(1,'a'),(2,'b')")
	h.fork()
	h.must(branch, "ALTER TABLE t ADD COLUMN mine DEFAULT 1", "UPDATE t SET a='A' WHERE id=1", "UPDATE t SET mine=2 WHERE id=2", "INSERT INTO t(id, a) VALUES(3,'c')")
	h.must(parent, "ALTER TABLE t ADD COLUMN yours DEFAULT 'y'", "UPDATE t SET yours='kept' WHERE id=1")
	h.merged(rows.Options{}, 1, 1, 0)
	h.want(parent, "SELECT * FROM t", `1|"A"|"A!"|"kept"`, `2|"b"|"b!"|"y"`, `3|"c"|"c!"|"y"`)
}

// A long merge notices that nobody waits for it any more.
func TestMergeStops(t *testing.T) {
	h := newHouse(t, "CREATE TABLE t(id INTEGER PRIMARY KEY)")
	h.fork()
	h.must(branch, "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<1000) INSERT INTO t SELECT i FROM n")
	var c *rows.Changes
	if err := h.do(branch, func(tx *store.Tx) (err error) { c, err = rows.Collect(tx, h.dir); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	err := h.Do(ctx, parent, &store.Request{Gate: open{}, Job: store.JobFunc(func(tx *store.Tx) error {
		cancel()
		_, err := rows.Merge(tx, c, rows.Options{})
		return err
	})})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	h.want(parent, "SELECT count(*) FROM t", "0")
}

// SQLite lets a declared key hold NULL, more than once.
func TestNullKeys(t *testing.T) {
	h := newHouse(t, "CREATE TABLE t(k TEXT PRIMARY KEY, v)", "INSERT INTO t VALUES(NULL,1),('a',2),(NULL,3),(NULL,4)")
	h.fork()
	h.must(branch, "UPDATE t SET v=10 WHERE rowid=1", "DELETE FROM t WHERE rowid=3", "UPDATE t SET k='b' WHERE rowid=4", "INSERT INTO t VALUES(NULL,5)", "UPDATE t SET k=NULL WHERE k='a'")
	h.must(parent, "INSERT INTO t(rowid, k, v) VALUES(5,'own',7)")
	h.merged(rows.Options{}, 3, 1, 3)
	h.want(parent, "SELECT k, v FROM t ORDER BY k, v", "NULL|2", "NULL|5", "NULL|10", `"b"|4`, `"own"|7`)
}

// The server's own statements change the schema too, as a merge of it does in a parent that is a branch itself.
func TestOwnStatementsAreRecorded(t *testing.T) {
	h := newHouse(t, "CREATE TABLE t(k PRIMARY KEY, v)", "INSERT INTO t VALUES('a',1),('b',2)")
	h.fork()
	rebuild := []string{"CREATE TABLE n(k PRIMARY KEY, v, w DEFAULT 0)", "INSERT INTO n SELECT k, v+(k='b'), 0 FROM t ORDER BY k DESC", "DROP TABLE t", "ALTER TABLE n RENAME TO t"}
	err := h.do(branch, func(tx *store.Tx) error {
		for _, sql := range rebuild {
			if err := tx.Count(sql, nil, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.must(parent, "ALTER TABLE t ADD COLUMN w DEFAULT 0")
	h.merged(rows.Options{}, 0, 1, 0)
	h.want(parent, "SELECT k, v FROM t", `"a"|1`, `"b"|3`)
}

// What doesn't fit in memory is kept in files, which are gone afterwards.
func TestManyChanges(t *testing.T) {
	h := newHouse(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<20000) INSERT INTO t SELECT i, printf('%0300d', i) FROM n")
	h.fork()
	h.must(branch, "UPDATE t SET a='new'||id WHERE id%2", "DELETE FROM t WHERE id%2=0")
	h.merged(rows.Options{}, 0, 10000, 10000)
	h.want(parent, "SELECT count(*), sum(a='new'||id) FROM t", "10000|10000")
	left, err := filepath.Glob(filepath.Join(h.dir, "*-*"))
	if err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	if _, err := os.Stat(h.dir); err != nil {
		t.Error(err)
	}
}

// A branch of a branch: what is merged into the one in the middle is recorded there, and goes on to its parent.
func TestBranchOfABranch(t *testing.T) {
	h := newHouse(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)", "CREATE TABLE log(id INTEGER PRIMARY KEY, what)", "CREATE TRIGGER told AFTER UPDATE ON t BEGIN INSERT INTO log(what) VALUES(new.a); END",
		"INSERT INTO t VALUES(1,'a'),(2,'b'),(3,'c')")
	h.fork()
	h.must(branch, "UPDATE t SET a='B' WHERE id=2")
	const leaf = "db_leaf0001"
	path := filepath.Join(t.TempDir(), "leaf.db")
	if err := h.Copy(t.Context(), branch, path); err != nil {
		t.Fatal(err)
	}
	if err := h.CreateBranch(t.Context(), leaf, path, store.NewBranch{Facts: store.RecordingFacts{Parent: branch}}); err != nil {
		t.Fatal(err)
	}
	h.must(leaf, "UPDATE t SET a='x' WHERE id=1", "UPDATE t SET a='a' WHERE id=2", "DELETE FROM t WHERE id=3", "INSERT INTO t VALUES(4,'d')")
	into := func(from, to string, inserted, updated, deleted int64) {
		t.Helper()
		var c *rows.Changes
		if err := h.do(from, func(tx *store.Tx) (err error) { c, err = rows.Collect(tx, h.dir); return err }); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var r *rows.Result
		err := h.do(to, func(tx *store.Tx) (err error) { r, err = rows.Merge(tx, c, rows.Options{Dir: h.dir}); return err })
		if err != nil || r.Inserted != inserted || r.Updated != updated || r.Deleted != deleted {
			t.Fatalf("%v, %+v", err, r)
		}
	}
	into(leaf, branch, 3, 2, 1)
	into(branch, parent, 4, 2, 1)
	for _, db := range []string{branch, parent} {
		h.want(db, "SELECT * FROM t", `1|"x"`, `2|"a"`, `4|"d"`)
		h.want(db, "SELECT what FROM log", `"B"`, `"x"`, `"a"`)
	}
}

// A key may have as many columns as a table.
func TestWideKey(t *testing.T) {
	names := make([]string, 300)
	for i := range names {
		names[i] = fmt.Sprint("c", i)
	}
	h := newHouse(t, "CREATE TABLE t("+strings.Join(names, ",")+", v, PRIMARY KEY("+strings.Join(names, ",")+")) WITHOUT ROWID", "INSERT INTO t VALUES("+strings.Repeat("1,", 300)+"'a')")
	h.fork()
	h.must(branch, "UPDATE t SET v = 'b'", "INSERT INTO t VALUES("+strings.Repeat("2,", 300)+"'c')")
	if r, err := h.merge(rows.Options{}); err != nil || r.Inserted != 1 || r.Updated != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	h.want(parent, "SELECT v FROM t", `"b"`, `"c"`)
}
