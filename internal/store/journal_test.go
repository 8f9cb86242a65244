package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

// ear hears what a store tells.
type ear struct {
	mu      sync.Mutex
	batches []*store.Batch
	broken  int
}

func (e *ear) Committed(_ string, b *store.Batch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.batches = append(e.batches, b)
}

func (e *ear) Broken(string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.broken++
}

// take is what was heard since the last take.
func (e *ear) take() []*store.Batch {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.batches
	e.batches = nil
	return b
}

func valueText(v sqlite.Value) string {
	switch v.Kind {
	case sqlite.Integer:
		return fmt.Sprint(v.Int)
	case sqlite.Real:
		return fmt.Sprintf("%.1f", v.Float)
	case sqlite.Text:
		return string(v.Bytes)
	case sqlite.Blob:
		return fmt.Sprintf("x%x", v.Bytes)
	}
	return "NULL"
}

func valuesText(list []sqlite.Value) string {
	var parts []string
	for _, v := range list {
		parts = append(parts, valueText(v))
	}
	return "(" + strings.Join(parts, ",") + ")"
}

// told is changes in few words: "+t 1(1,a)" is an insert, "-" a delete, "~" an update, "!" the schema, "?" unknown.
func told(t *testing.T, batches []*store.Batch) string {
	t.Helper()
	var list []string
	for _, b := range batches {
		seq := b.First
		err := b.Each(func(c *store.RowChange) error {
			if c.Seq != seq {
				t.Errorf("seq %d, want %d", c.Seq, seq)
			}
			seq++
			text := map[store.ChangeKind]string{store.InsertChange: "+", store.UpdateChange: "~", store.DeleteChange: "-", store.SchemaChange: "!", store.UnknownChange: "?"}[c.Kind] + c.Table
			if c.HasRowid {
				text += fmt.Sprintf(" %d", c.Rowid)
			}
			if c.Key != nil {
				text += " " + strings.Join(c.KeyNames, ",") + "=" + valuesText(c.Key)
			}
			if c.Old != nil {
				text += valuesText(c.Old)
			}
			if c.New != nil {
				text += ">" + valuesText(c.New)
			}
			list = append(list, text)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if seq != b.Last+1 {
			t.Errorf("the batch ends at %d, and its changes at %d", b.Last, seq-1)
		}
	}
	return strings.Join(list, " ")
}

func listening(t *testing.T, opt store.Options, rows bool, setup ...string) (*house, *ear) {
	t.Helper()
	e := &ear{}
	opt.Feed = e
	opt.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	h := newHouse(t, opt, setup...)
	if _, err := h.Listen(t.Context(), database, rows); err != nil {
		t.Fatal(err)
	}
	return h, e
}

func TestJournalTellsWhatChanged(t *testing.T) {
	t.Parallel()
	base := []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)", "INSERT INTO t VALUES(1,'x'),(2,'y')"}
	for _, test := range []struct {
		name  string
		setup []string
		jobs  []*job // a group
		want  string
		rows  bool
		fails bool // some of the jobs
	}{
		{name: "insert", jobs: []*job{script("INSERT INTO t VALUES(3,'z')")}, want: "+t 3"},
		{name: "values", rows: true, jobs: []*job{script("INSERT INTO t VALUES(3,'z')", "UPDATE t SET b=NULL WHERE a=3", "DELETE FROM t WHERE a=3")},
			want: "+t 3>(3,z) ~t 3(3,z)>(3,NULL) -t 3(3,NULL)"},
		{name: "a REAL column", rows: true, setup: []string{"CREATE TABLE r(a REAL)"}, jobs: []*job{script("INSERT INTO r VALUES(7)", "UPDATE r SET a=8")}, want: "+r 1>(7.0) ~r 1(7.0)>(8.0)"},
		{name: "a generated column is not told", rows: true, setup: []string{"CREATE TABLE g(a, b AS (a+1), c AS (a+2) STORED)"}, jobs: []*job{script("INSERT INTO g VALUES(7)")}, want: "+g 1>(7)"},
		{name: "a row from before its column", rows: true, setup: []string{"ALTER TABLE t ADD COLUMN c DEFAULT 5"}, jobs: []*job{script("DELETE FROM t WHERE a=1")}, want: "-t 1(1,x,5)"},
		{name: "a row moves", jobs: []*job{script("UPDATE t SET a=9 WHERE a=1")}, want: "-t 1 +t 9"},
		{name: "truncating DELETE", jobs: []*job{script("DELETE FROM t")}, want: "-t 1 -t 2"},
		{name: "REPLACE", jobs: []*job{script("REPLACE INTO t VALUES(1,'y')")}, want: "-t 1 -t 2 +t 1"},
		{name: "UPSERT", jobs: []*job{script("INSERT INTO t VALUES(1,'q'),(5,'p') ON CONFLICT(a) DO UPDATE SET b=excluded.b")}, want: "~t 1 +t 5"},
		{name: "OR IGNORE", jobs: []*job{script("INSERT OR IGNORE INTO t VALUES(1,'q'),(5,'p')")}, want: "+t 5"},
		{name: "a failing statement", jobs: []*job{script("INSERT INTO t VALUES(5,'p'),(1,'q')")}, fails: true},
		{name: "a failing step keeps the earlier", jobs: []*job{steps("INSERT INTO t VALUES(5,'p')", "INSERT INTO t VALUES(6,'p6'),(1,'q')")}, want: "+t 5", fails: true},
		{name: "OR FAIL in steps is undone with its step", jobs: []*job{steps("INSERT INTO t VALUES(5,'p')", "INSERT OR FAIL INTO t VALUES(6,'p6'),(1,'q')")}, want: "+t 5", fails: true},
		{name: "OR FAIL", jobs: []*job{stubborn("INSERT OR FAIL INTO t VALUES(5,'p'),(6,'q'),(1,'q')", "INSERT INTO t VALUES(7,'r')")}, want: "?t +t 7"},
		{name: "OR FAIL that changed nothing", jobs: []*job{stubborn("INSERT OR FAIL INTO t VALUES(1,'q')", "INSERT INTO t VALUES(7,'r')")}, want: "+t 7"},
		{name: "OR ABORT, taken for its own to tell", jobs: []*job{stubborn("INSERT INTO t VALUES(5,'p'),(1,'q')", "INSERT INTO t VALUES(7,'r')")}, want: "+t 7"},
		{name: "OR ROLLBACK", jobs: []*job{script("INSERT INTO t VALUES(4,'o')"), script("INSERT OR ROLLBACK INTO t VALUES(5,'p'),(1,'q')"), script("INSERT INTO t VALUES(6,'s')")}, want: "+t 4 +t 6", fails: true},
		{name: "RAISE(FAIL)", setup: []string{"CREATE TRIGGER r AFTER INSERT ON t WHEN new.a=6 BEGIN SELECT raise(FAIL,'no'); END"},
			jobs: []*job{stubborn("INSERT INTO t VALUES(5,'p'),(6,'q')", "INSERT INTO t VALUES(7,'r')")}, want: "?t +t 7"},
		{name: "RAISE(ABORT)", setup: []string{"CREATE TRIGGER r AFTER INSERT ON t WHEN new.a=6 BEGIN SELECT raise(ABORT,'no'); END"},
			jobs: []*job{stubborn("INSERT INTO t VALUES(5,'p'),(6,'q')", "INSERT INTO t VALUES(7,'r')")}, want: "+t 7"},
		{name: "RAISE(IGNORE)", setup: []string{"CREATE TRIGGER r BEFORE INSERT ON t WHEN new.a=5 BEGIN SELECT raise(IGNORE); END"},
			jobs: []*job{script("INSERT INTO t VALUES(5,'p'),(6,'q')")}, want: "+t 6"},
		{name: "a trigger", setup: []string{"CREATE TABLE l(x)", "CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO l VALUES(new.a); END"},
			jobs: []*job{script("INSERT INTO t VALUES(5,'p')")}, want: "+t 5 +l 1"},
		{name: "a cascade", setup: []string{"CREATE TABLE c(x REFERENCES t(a) ON DELETE CASCADE)", "INSERT INTO c VALUES(1),(2),(1)"},
			jobs: []*job{script("DELETE FROM t WHERE a=1")}, want: "-t 1 -c 1 -c 3"},
		{name: "WITHOUT ROWID", rows: true, setup: []string{"CREATE TABLE w(a, b, c, PRIMARY KEY(c, a)) WITHOUT ROWID"},
			jobs: []*job{script("INSERT INTO w VALUES(1,2,3)", "UPDATE w SET b=4", "UPDATE w SET a=7", "DELETE FROM w")},
			want: "+w c,a=(3,1)>(1,2,3) ~w c,a=(3,1)(1,2,3)>(1,4,3) -w c,a=(3,1)(1,4,3) +w c,a=(3,7)>(7,4,3) -w c,a=(3,7)(7,4,3)"},
		{name: "a failing request of a group", jobs: []*job{script("INSERT INTO t VALUES(5,'p')"), script("INSERT INTO t VALUES(6,'q')", "INSERT INTO t VALUES(1,'q')"), script("INSERT INTO t VALUES(7,'r')")},
			want: "+t 5 +t 7", fails: true},
		{name: "schema", jobs: []*job{script("CREATE TABLE n(a)", "CREATE INDEX i ON n(a)", "ALTER TABLE n ADD COLUMN b", "CREATE TRIGGER g AFTER INSERT ON n BEGIN SELECT 1; END", "CREATE VIEW v AS SELECT 1", "DROP VIEW v", "DROP TABLE n")},
			want: "!n !n !n !n !v !v !n"},
		{name: "a table gets another name", jobs: []*job{script("ALTER TABLE t RENAME TO u", "INSERT INTO u VALUES(5,'p')")}, want: "!t !u +u 5"},
		{name: "CREATE TABLE AS", jobs: []*job{script("CREATE TABLE n AS SELECT * FROM t")}, want: "!n"},
		{name: "a schema that is undone", jobs: []*job{script("CREATE TABLE n(a)", "INSERT INTO n VALUES(1)", "INSERT INTO t VALUES(1,1)")}, fails: true},
		{name: "columns change in between", rows: true, jobs: []*job{script("INSERT INTO t VALUES(5,'p')", "ALTER TABLE t DROP COLUMN a2", "INSERT INTO t VALUES(6,'q')")},
			setup: []string{"ALTER TABLE t ADD COLUMN a2 DEFAULT 8"}, want: "", fails: true}, // three columns, two values
		{name: "FTS5", setup: []string{"CREATE VIRTUAL TABLE f USING fts5(a)"}, jobs: []*job{script("INSERT INTO f VALUES('one')", "UPDATE f SET a='two'", "DELETE FROM f WHERE a='none'")}, want: "?f ?f"},
		{name: "FTS5 without content", setup: []string{"CREATE VIRTUAL TABLE f USING fts5(a, content='', columnsize=0)"}, jobs: []*job{script("INSERT INTO f(rowid,a) VALUES(1,'one')")}, want: "?f"},
		{name: "FTS5 by a trigger", setup: []string{"CREATE VIRTUAL TABLE f USING fts5(b, content='t', content_rowid='a')", "CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO f(rowid,b) VALUES(new.a,new.b); END"},
			jobs: []*job{script("INSERT INTO t VALUES(5,'p')")}, want: "+t 5 ?f"},
		{name: "R-Tree", setup: []string{"CREATE VIRTUAL TABLE g USING rtree(id, a, b)"}, jobs: []*job{script("INSERT INTO g VALUES(1,2,3),(2,3,4)")}, want: "?g"},
		{name: "a virtual table is made", jobs: []*job{script("CREATE VIRTUAL TABLE f USING fts5(a)")}, want: "!f"},
		{name: "SQLite's own", setup: []string{"CREATE TABLE q(a INTEGER PRIMARY KEY AUTOINCREMENT)"}, jobs: []*job{script("INSERT INTO q VALUES(NULL)", "ANALYZE")}, want: "+q 1"},
		{name: "VACUUM", jobs: []*job{script("VACUUM")}},
		{name: "a read", jobs: []*job{script("SELECT * FROM t")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, e := listening(t, store.Options{}, test.rows, slices.Concat(base, test.setup)...)
			e.take()
			h.group(test.jobs...)
			failed := false
			for _, j := range test.jobs {
				failed = failed || j.err != nil || j.failed != nil
			}
			if failed != test.fails {
				for _, j := range test.jobs {
					t.Logf("%v: %v %v", j.stmts, j.err, j.failed)
				}
				t.Errorf("failed: %v, want %v", failed, test.fails)
			}
			live := e.take()
			if got := told(t, live); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if len(live) == 0 {
				return
			}
			kept, err := h.Journal(t.Context(), database, live[0].First-1, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := told(t, kept); got != test.want {
				t.Errorf("the journal has %s\nwant %s", got, test.want)
			}
		})
	}
}

// stubborn is a job that goes on after a statement that fails.
func stubborn(first, second string) *job {
	return hooked(func(_ int, tx *store.Tx) error {
		if err := (&job{}).statement(tx, first); err == nil {
			return errors.New("the statement was to fail")
		}
		return nil
	}, second)
}

func TestLargeRequestsTellTheirTables(t *testing.T) {
	t.Parallel()
	setup := []string{"CREATE TABLE t(a)", "CREATE TABLE u(a)", "CREATE TABLE v(a)"}
	many := func(table string, n int) string {
		return fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) INSERT INTO %s SELECT i FROM c", n, table)
	}
	h, e := listening(t, store.Options{FeedChanges: 10}, false, setup...)
	for _, test := range []struct {
		jobs []*job
		want string
	}{
		{[]*job{script("INSERT INTO u VALUES(1)", many("t", 10))}, "?u ?t"},
		{[]*job{script(many("t", 11), "INSERT INTO u VALUES(1)", "INSERT INTO t VALUES(1)")}, "?t ?u"},
		{[]*job{script("INSERT INTO u VALUES(1)"), script(many("t", 11)), script("INSERT INTO v VALUES(1)")}, "+u # ?t +v #"},
		{[]*job{steps("INSERT INTO u VALUES(1)", many("t", 11)+" UNION ALL SELECT abs(-9223372036854775808)", "SELECT 1")}, "?u"},
		{[]*job{steps("INSERT INTO u VALUES(1)", "INSERT INTO v VALUES(1)", many("t", 11), "INSERT INTO v SELECT abs(-9223372036854775808)")}, "?u ?v ?t"},
		{[]*job{script("CREATE TABLE x AS SELECT 1", many("t", 11), "DROP TABLE x")}, "!x ?t !x"},
	} {
		e.take()
		h.group(test.jobs...)
		got := told(t, e.take())
		var words []string
		for _, w := range strings.Fields(got) {
			if strings.Trim(w, "0123456789") == "" {
				w = "#"
			}
			words = append(words, w)
		}
		if got := strings.Join(words, " "); got != test.want {
			t.Errorf("%v: got %s, want %s", test.jobs[0].stmts, got, test.want)
		}
	}
	// By bytes, of one value more than all may have.
	h, e = listening(t, store.Options{}, true, setup...)
	h.must("INSERT INTO t VALUES(zeroblob(5000000))")
	if got := told(t, e.take()); got != "?t" {
		t.Errorf("got %.100s", got)
	}
	var jobs []*job
	for range 8 {
		jobs = append(jobs, script("INSERT INTO t VALUES(zeroblob(3000000))"))
	}
	h.group(jobs...)
	for _, b := range e.take() {
		if b.Size() > 11<<20 {
			t.Errorf("a batch of %d bytes", b.Size())
		}
	}
}

// A change is told when it is on the disk, not before, and not at all if it doesn't come there.
func TestToldWhenItIsOnTheDisk(t *testing.T) {
	h, e := listening(t, store.Options{}, false, "CREATE TABLE t(a INTEGER PRIMARY KEY)")
	early := 0
	h.rec.Intercept(func(op crashfs.FileOp, rel string) int32 {
		if op == crashfs.OpSync && strings.HasSuffix(rel, "-wal") {
			e.mu.Lock()
			early += len(e.batches)
			e.mu.Unlock()
		}
		return crashfs.OK
	})
	h.must("INSERT INTO t VALUES(1)")
	if got := told(t, e.take()); got != "+t 1" || early > 0 {
		t.Errorf("told %q, %d before the sync", got, early)
	}
	h.fail(crashfs.OpSync, "-wal", crashfs.ErrSync, 1)
	if j := script("INSERT INTO t VALUES(2)"); h.do(j).err == nil {
		t.Fatal("a commit whose sync failed was answered")
	}
	if got := told(t, e.take()); got != "" {
		t.Errorf("told %q of a commit whose sync failed", got)
	}
	h.must("INSERT INTO t VALUES(3)")
	if got := told(t, e.take()); got != "+t 3" {
		t.Errorf("told %q after it", got)
	}
}

func TestListening(t *testing.T) {
	t.Parallel()
	c := newClock()
	h, e := listening(t, store.Options{Now: c.Now, FeedFor: time.Hour}, false, "CREATE TABLE t(a)")
	first, err := h.Listen(t.Context(), database, false)
	if err != nil {
		t.Fatal(err)
	}
	h.must("INSERT INTO t VALUES(1)")
	h.restart() // it listens without anybody asking again
	h.must("INSERT INTO t VALUES(2)")
	if got, want := told(t, e.take()), "+t 1 +t 2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	list, err := h.Journal(t.Context(), database, first, 0)
	if got, want := told(t, list), "+t 1 +t 2"; got != want || err != nil {
		t.Errorf("got %s %v, want %s", got, err, want)
	}
	for _, since := range []int64{first - 1, first + 3, -1} {
		if _, err := h.Journal(t.Context(), database, since, 0); !errors.Is(err, store.ErrUnheard) {
			t.Errorf("since %d: %v", since, err)
		}
	}
	c.Advance(2 * time.Hour)
	h.must("INSERT INTO t VALUES(3)")
	if got := told(t, e.take()); got != "" {
		t.Errorf("long after the last listener it told %s", got)
	}
	next, err := h.Listen(t.Context(), database, false)
	if err != nil || next != first+3 {
		t.Errorf("head %d, %v; want %d", next, err, first+3)
	}
	if _, err := h.Journal(t.Context(), database, first+2, 0); !errors.Is(err, store.ErrUnheard) {
		t.Errorf("from before a time when nobody listened: %v", err)
	}
	h.must("INSERT INTO t VALUES(4)")
	if list, err = h.Journal(t.Context(), database, next, 0); err != nil || told(t, list) != "+t 4" || list[0].First != next+1 {
		t.Errorf("got %v %v", list, err)
	}
}

// Who listens for good need not call again: not after a year, not after a restart, and a listener for a while in between ends nothing.
func TestListeningForGood(t *testing.T) {
	t.Parallel()
	c := newClock()
	h, e := listening(t, store.Options{Now: c.Now, FeedFor: time.Hour}, false, "CREATE TABLE t(a)")
	first, err := h.ListenForGood(t.Context(), database, true)
	if err != nil {
		t.Fatal(err)
	}
	c.Advance(8760 * time.Hour)
	h.must("INSERT INTO t VALUES(1)")
	h.restart()
	if _, err := h.Listen(t.Context(), database, true); err != nil { // it writes anew, for the values
		t.Fatal(err)
	}
	c.Advance(8760 * time.Hour)
	h.restart()
	h.must("INSERT INTO t VALUES(2)")
	if got, want := told(t, e.take()), "+t 1 +t 2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if head, err := h.ListenForGood(t.Context(), database, true); head != first+2 || err != nil {
		t.Errorf("head %d %v, want %d", head, err, first+2)
	}
	if _, err := h.ListenForGood(t.Context(), database, false); err != nil {
		t.Fatal(err)
	}
	h.must("INSERT INTO t VALUES(3)") // for a while it goes on
	c.Advance(2 * time.Hour)
	h.restart()
	h.must("INSERT INTO t VALUES(4)")
	if got, want := told(t, e.take()), "+t 3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if head, err := h.ListenForGood(t.Context(), database, false); head != 0 || err != nil {
		t.Errorf("head %d %v of a database that nobody listens to", head, err)
	}
}

func TestJournalIsBounded(t *testing.T) {
	t.Parallel()
	h, _ := listening(t, store.Options{FeedKeep: 100}, false, "CREATE TABLE t(a)")
	for range 400 {
		h.must("INSERT INTO t VALUES(1)")
	}
	if got := h.rows("SELECT count(*)<200, count(*)>=100 FROM sqlite_persql_feed_v1"); got != "1" {
		t.Errorf("rows of the journal: %s", h.rows("SELECT count(*) FROM sqlite_persql_feed_v1"))
	}
	if _, err := h.Journal(t.Context(), database, 10, 0); !errors.Is(err, store.ErrUnheard) {
		t.Errorf("a change that is gone: %v", err)
	}
	if _, err := h.Journal(t.Context(), database, 310, 0); err != nil {
		t.Errorf("a change that is kept: %v", err)
	}
}

// What is older than the time goes, and what isn't stays, however much of it there is.
func TestJournalForgetsWithTime(t *testing.T) {
	t.Parallel()
	c := newClock()
	h, _ := listening(t, store.Options{Now: c.Now, FeedFor: time.Hour}, false, "CREATE TABLE t(a)")
	head, err := h.ListenForGood(t.Context(), database, true)
	if err != nil {
		t.Fatal(err)
	}
	write := func(commits int) {
		for range commits {
			h.must("INSERT INTO t VALUES(1)")
		}
	}
	write(1100)
	c.Advance(30 * time.Minute)
	write(100)
	if list, err := h.Journal(t.Context(), database, head, 0); err != nil || len(list) == 0 {
		t.Errorf("within the hour: %d, %v", len(list), err)
	}
	c.Advance(45 * time.Minute)
	write(64)
	if got := h.rows("SELECT count(*) FROM sqlite_persql_feed_v1 WHERE seq>0"); got != "241" { // one sweep takes 1,024, the gap at the beginning among them
		t.Errorf("%s rows behind the first sweep, want 241", got)
	}
	write(64)
	for since, want := range map[int64]error{head: store.ErrUnheard, head + 1099: store.ErrUnheard, head + 1100: nil, head + 1228: nil} {
		if _, err := h.Journal(t.Context(), database, since, 0); !errors.Is(err, want) {
			t.Errorf("since %d: %v, want %v", since-head, err, want)
		}
	}
}

func TestAnotherFileBreaksTheJournal(t *testing.T) {
	t.Parallel()
	h, e := listening(t, store.Options{}, false, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	head, err := h.Listen(t.Context(), database, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []store.Beginning{store.FromNothing, store.FromCopy, store.FromPast} {
		if err := h.Rebuild(t.Context(), database, from, nil, func(string) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Journal(t.Context(), database, head, 0); !errors.Is(err, store.ErrUnheard) {
			t.Errorf("from before: %v", err)
		}
		head++
		h.must("CREATE TABLE IF NOT EXISTS n(a)", "INSERT INTO n VALUES(1)", "DROP TABLE n")
		list, err := h.Journal(t.Context(), database, head, 0)
		if got, want := told(t, list), "!n +n 1 !n"; got != want || err != nil {
			t.Errorf("got %s %v, want %s", got, err, want)
		}
		head += 3
	}
	if e.broken != 3 {
		t.Errorf("told of %d breaks, want 3", e.broken)
	}
}

// The changes of random statements, applied to a copy, make the table.
func TestJournalMakesTheTable(t *testing.T) {
	t.Parallel()
	h, e := listening(t, store.Options{FeedChanges: 1 << 20}, true, "CREATE TABLE t(a INTEGER PRIMARY KEY, b INTEGER, c UNIQUE ON CONFLICT REPLACE)", "CREATE TABLE log(a)",
		"CREATE TRIGGER g AFTER DELETE ON t WHEN old.b%3=0 BEGIN INSERT INTO t VALUES(old.a+1000, old.b+1, NULL); END")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	n := func() int { return r.IntN(40) }
	statement := func() string {
		or := []string{"", "OR REPLACE", "OR IGNORE", "OR ABORT", "OR FAIL", "OR ROLLBACK"}[r.IntN(6)]
		switch r.IntN(7) {
		case 0, 1:
			return fmt.Sprintf("INSERT %s INTO t VALUES(%d,%d,%d),(%d,%d,%d)", or, n(), n(), n(), n(), n(), n())
		case 2:
			return fmt.Sprintf("UPDATE %s t SET a=a+%d, c=%d WHERE b<%d", or, r.IntN(3), n(), n())
		case 3:
			return fmt.Sprintf("DELETE FROM t WHERE b=%d", n())
		case 4:
			return fmt.Sprintf("INSERT INTO t VALUES(%d,%d,%d) ON CONFLICT(a) DO UPDATE SET b=b+1", n(), n(), n())
		case 5:
			return fmt.Sprintf("UPDATE t SET b=%d WHERE a>%d", n(), n())
		}
		if r.IntN(10) == 0 {
			return "DELETE FROM t"
		}
		return fmt.Sprintf("INSERT INTO t SELECT a+50, b, NULL FROM t WHERE a<%d", n())
	}
	shadow := map[int64]string{}
	seq := int64(0)
	for round := range 60 {
		var jobs []*job
		for range 1 + r.IntN(5) {
			var stmts []string
			for range 1 + r.IntN(4) {
				stmts = append(stmts, statement())
			}
			jobs = append(jobs, &job{stmts: stmts, steps: r.IntN(2) == 0})
		}
		h.group(jobs...)
		for _, b := range e.take() {
			if seq != 0 && b.First != seq+1 {
				t.Fatalf("round %d: a batch begins at %d behind %d", round, b.First, seq)
			}
			seq = b.Last
			err := b.Each(func(c *store.RowChange) error {
				was, there := shadow[c.Rowid]
				if c.Table != "t" {
					return fmt.Errorf("a change of %s", c.Table)
				}
				switch c.Kind {
				case store.InsertChange:
					if there {
						return fmt.Errorf("insert of row %d, which is there", c.Rowid)
					}
					shadow[c.Rowid] = valuesText(c.New)
				case store.UpdateChange, store.DeleteChange:
					if was != valuesText(c.Old) {
						return fmt.Errorf("%s of row %d %s, which is %s", c.Kind.Word(), c.Rowid, valuesText(c.Old), was)
					}
					if c.Kind == store.DeleteChange {
						delete(shadow, c.Rowid)
					} else {
						shadow[c.Rowid] = valuesText(c.New)
					}
				default:
					return fmt.Errorf("a change of kind %s", c.Kind.Word())
				}
				return nil
			})
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		var want []string
		for _, row := range shadow {
			want = append(want, row)
		}
		slices.Sort(want)
		got := strings.Fields(h.rows("SELECT '('||a||','||ifnull(b,'NULL')||','||ifnull(c,'NULL')||')' FROM t"))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: the table is %v, its changes make %v", round, got, want)
		}
	}
}

func TestNoHookWithoutListeners(t *testing.T) {
	t.Parallel()
	e := &ear{}
	h := newHouse(t, store.Options{Feed: e}, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	if got := told(t, e.take()); got != "" {
		t.Errorf("told %s", got)
	}
	if got := h.rows("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'sqlite_persql_feed%'"); got != "0" {
		t.Errorf("there are %s journals", got)
	}
	if _, err := h.Journal(context.Background(), database, 0, 0); !errors.Is(err, store.ErrUnheard) {
		t.Errorf("a journal that isn't: %v", err)
	}
}
