package sqlite_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// expectation is what a statement reads and writes. The number is reasoned from SQLite's program for the statement and
// from the rules of DESIGN.md; rowmeter_proof_test.go counts it a second way.
type expectation struct {
	class   string // the anchor without which the number is wrong, or "" where nothing counts
	sql     string // statements parted by ";;", of which the last one is measured
	read    int64
	written int64
}

// What a row's text may begin with.
const (
	fails  = "-- fails\n"  // the statement ends with an error
	alone  = "-- alone\n"  // on an empty database instead of the fixture
	hooked = "-- hooked\n" // somebody listens to the changes of rows
	schema = "CREATE TABLE z(a, b);;CREATE INDEX zb ON z(b);;CREATE TABLE q(a PRIMARY KEY);;INSERT INTO z VALUES(1,2),(3,4);;"
)

// meterFixture is what the statements of the table run on.
var meterFixture = []string{
	"CREATE TABLE n(id INTEGER PRIMARY KEY, a, b)", // ten rows: a is 1 2 3 4 0 1 2 3 4 0, b is b1 … b10
	"CREATE TABLE x(id INTEGER PRIMARY KEY, k, v)", // ten rows, k like a above, v is ten times id
	"CREATE INDEX xk ON x(k)",
	"CREATE TABLE u(id INTEGER PRIMARY KEY, e TEXT UNIQUE, v)", // five rows, e is e1 … e5
	"CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID",      // five rows, k1 … k5
	"CREATE TABLE h(a)",                                        // 1 2 3
	"CREATE TABLE e(id INTEGER PRIMARY KEY, a)",                // nothing
	"CREATE TABLE g(id INTEGER PRIMARY KEY, a)",                // a thousand rows
	"CREATE TABLE two(id INTEGER PRIMARY KEY, a, b)",           // four rows, two indexes
	"CREATE TABLE ai(id INTEGER PRIMARY KEY AUTOINCREMENT, a)", // two rows
	"CREATE TABLE p(id INTEGER PRIMARY KEY)",                   // 1 2 3
	"CREATE TABLE c(id INTEGER PRIMARY KEY, pid INTEGER REFERENCES p(id) ON DELETE CASCADE ON UPDATE CASCADE)", // two rows each of p's
	"CREATE TABLE t(id INTEGER PRIMARY KEY, a)",                                                                // 1 2 3, with triggers
	"CREATE TABLE log(id, verb)",
	"CREATE TABLE pt(id INTEGER PRIMARY KEY, s, v)", // six rows, s is 1 0 1 0 1 0
	"CREATE TABLE xe(id INTEGER PRIMARY KEY, s)",    // five rows, S1 … S5
	"CREATE INDEX twoa ON two(a)",
	"CREATE INDEX twob ON two(b)",
	"CREATE INDEX cp ON c(pid)",
	"CREATE INDEX ptv ON pt(v) WHERE s=1",
	"CREATE INDEX xes ON xe(lower(s))",
	"CREATE VIEW vn AS SELECT id, a FROM n WHERE a>2",
	"CREATE VIEW vi AS SELECT id, a FROM e",
	"CREATE VIRTUAL TABLE f USING fts5(body)",        // three rows, of which two have the word red
	"CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)", // three rows
	"WITH RECURSIVE i(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM i WHERE n<1000) INSERT INTO g SELECT n, n%7 FROM i",
	"INSERT INTO n SELECT id, id%5, 'b'||id FROM g WHERE id<=10",
	"INSERT INTO x SELECT id, id%5, id*10 FROM g WHERE id<=10",
	"INSERT INTO u SELECT id, 'e'||id, id FROM g WHERE id<=5",
	"INSERT INTO w SELECT 'k'||id, id FROM g WHERE id<=5",
	"INSERT INTO h SELECT id FROM g WHERE id<=3",
	"INSERT INTO two SELECT id, id%2, id FROM g WHERE id<=4",
	"INSERT INTO ai(a) VALUES(1),(2)",
	"INSERT INTO p SELECT id FROM g WHERE id<=3",
	"INSERT INTO c SELECT id, (id+1)/2 FROM g WHERE id<=6",
	"INSERT INTO t SELECT id, id FROM g WHERE id<=3",
	"INSERT INTO pt SELECT id, id%2, id FROM g WHERE id<=6",
	"INSERT INTO xe SELECT id, 'S'||id FROM g WHERE id<=5",
	"INSERT INTO f(rowid, body) VALUES(1,'red fish'),(2,'blue fish'),(3,'red hat')",
	"INSERT INTO r VALUES(1,0,1),(2,2,3),(3,4,5)",
	"CREATE TRIGGER ti AFTER INSERT ON t BEGIN INSERT INTO log VALUES(new.id,'insert'); END",
	"CREATE TRIGGER td AFTER DELETE ON t BEGIN INSERT INTO log VALUES(old.id,'delete'); END",
	"CREATE TRIGGER tu AFTER UPDATE OF a ON t BEGIN UPDATE h SET a=new.a WHERE a=old.a; END",
	"CREATE TRIGGER vii INSTEAD OF INSERT ON vi BEGIN INSERT INTO e VALUES(new.id, new.a); INSERT INTO log VALUES(new.id,'view'); END",
}

// meterFile is the fixture's file, made once.
var meterFile = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "rowmeter")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "f.db")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		return nil, err
	}
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.Open(sqlite.Config{Path: path}, th)
	if err != nil {
		return nil, err
	}
	for _, sql := range meterFixture {
		if _, err := meter(c, sql); err != nil {
			c.Close()
			return nil, err
		}
	}
	err = c.Checkpoint(sqlite.CheckpointTruncate)
	c.Close()
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// meterConn opens a copy of the fixture.
func meterConn(t testing.TB) *sqlite.Conn {
	t.Helper()
	b, err := meterFile()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "t.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, sqlite.Config{Path: path})
}

// watch is told of each statement before it runs.
var watch func(*sqlite.Stmt)

// meter runs a statement to its end or its error, and says what it cost.
func meter(c *sqlite.Conn, sql string) (n sqlite.Counts, err error) {
	s, _, err := c.Prepare([]byte(sql), nil)
	if err != nil {
		return n, err
	}
	defer s.Done()
	if watch != nil {
		watch(s)
	}
	before := c.TotalChanges()
	run := func() error {
		for {
			if row, err := s.Step(); err != nil || !row {
				return err
			}
		}
	}
	if s.Vacuum {
		err = c.AllowVacuum(run)
	} else {
		err = run()
	}
	return s.Counts(c.TotalChanges() - before), err
}

// measure runs what a row of the table says, on a database of its own.
func (e *expectation) measure(t testing.TB) sqlite.Counts {
	t.Helper()
	var c *sqlite.Conn
	if strings.HasPrefix(e.sql, alone) {
		c = open(t, sqlite.Config{})
	} else {
		c = meterConn(t)
	}
	defer c.Close()
	if strings.HasPrefix(e.sql, hooked) {
		c.SetChangeHook([]sqlite.ChangeHook{func(*sqlite.Change) {}})
	}
	parts := strings.Split(e.sql, ";;")
	for i, sql := range parts {
		n, err := meter(c, sql)
		last := i == len(parts)-1
		if err == nil == (last && strings.HasPrefix(e.sql, fails)) {
			t.Errorf("%s: %v", sql, err)
		}
		if last {
			return n
		}
	}
	return sqlite.Counts{}
}

func (e *expectation) want() sqlite.Counts {
	return sqlite.Counts{RowsRead: e.read, RowsWritten: e.written}
}

// updateEstimate writes the list of what the estimate gets wrong anew.
var updateEstimate = flag.Bool("update-estimate", false, "write testdata/rowmeter/estimate.txt anew")

// The exact meter has every number of the table. The estimate is wrong where its list says, by as much, and nowhere else.
func TestRowMeterTable(t *testing.T) {
	const list = "testdata/rowmeter/estimate.txt"
	wrong := "# What the estimate makes of the table of expectations where it is wrong: rows read and written, and those that are right.\n"
	for i := range expectations {
		e := &expectations[i]
		got := e.measure(t)
		if got == e.want() {
			continue
		}
		if sqlite.RowMeter() == "exact" {
			t.Errorf("%s\n\t%+v, want %+v", e.sql, got, e.want())
		}
		wrong += fmt.Sprintf("%d %d, %d %d: %s\n", got.RowsRead, got.RowsWritten, e.read, e.written, strings.ReplaceAll(e.sql, "\n", " "))
	}
	if sqlite.RowMeter() == "exact" {
		return
	}
	if *updateEstimate {
		if err := os.WriteFile(list, []byte(wrong), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	known, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if string(known) != wrong {
		t.Errorf("the estimate is not wrong as %s says (-update-estimate writes it anew):\n%s", list, wrong)
	}
}

// Enough rows for each kind of opcode, and none twice.
func TestRowMeterTableIsWhole(t *testing.T) {
	classes, seen := make(map[string]int), make(map[string]bool)
	for _, e := range expectations {
		classes[e.class]++
		if seen[e.sql] {
			t.Errorf("twice: %s", e.sql)
		}
		seen[e.sql] = true
	}
	for class, n := range classes {
		if n < 5 {
			t.Errorf("%d rows for %s, want 5 at least", n, class)
		}
	}
	if n := len(expectations); n < 200 {
		t.Errorf("%d rows, want 200 at least", n)
	}
}

// A statement that SQLite compiles anew while it runs has the cost of both programs.
func TestRowMeterReprepare(t *testing.T) {
	if sqlite.RowMeter() != "exact" {
		return // the estimate keeps what it examined of the first program
	}
	c := meterConn(t)
	s, _, err := c.Prepare([]byte("SELECT * FROM n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Done()
	for range 2 {
		for {
			if row, err := s.Step(); err != nil {
				t.Fatal(err)
			} else if !row {
				break
			}
		}
		s.Reset()
		must(t, c, "CREATE TABLE more"+itoa(s.Cost().RowsRead)+"(a)")
	}
	if got, want := s.Counts(0), (sqlite.Counts{RowsRead: 20}); got != want {
		t.Errorf("two runs cost %+v, want %+v", got, want)
	}
	if got := s.Counts(0); got != (sqlite.Counts{}) {
		t.Errorf("%+v are left", got)
	}
}

// Whoever gets a statement out of the cache doesn't pay for another's run.
func TestRowMeterBeginsAnew(t *testing.T) {
	c := meterConn(t)
	must(t, c, "SELECT * FROM g") // nobody asks what it cost
	s, _, err := c.Prepare([]byte("SELECT * FROM g"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Done()
	if got := s.Cost().RowsRead; sqlite.RowMeter() == "exact" && got != 0 || got > 1 {
		t.Errorf("it has read %d rows before it ran", got)
	}
}

// A callback in the middle of a Step sees what has been read, and can end it. What was read then stays.
func TestRowMeterCost(t *testing.T) {
	c := meterConn(t)
	const budget = 100_000
	tooMuch := errors.New("too much")
	for _, sql := range []string{
		"SELECT count(*) FROM g AS a, g AS b, g AS c WHERE a.a+b.a+c.a=-1",
		"WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM i) SELECT count(*) FROM i",
		"INSERT INTO e(a) SELECT 1 FROM g, g AS b, g AS c WHERE g.a+b.a+c.a=4",
	} {
		if sqlite.RowMeter() != "exact" && strings.HasPrefix(sql, "WITH") {
			continue // it doesn't see the queue of a recursion
		}
		s, _, err := c.Prepare([]byte(sql), nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Watch(func() error {
			if s.Cost().RowsRead > budget {
				return tooMuch
			}
			return nil
		})
		_, err = s.Step()
		c.Watch(nil)
		if !errors.Is(err, tooMuch) {
			t.Errorf("%s: %v", sql, err)
		}
		before := s.Cost()
		n := s.Counts(0)
		if n.RowsRead <= budget || n.RowsRead > 3*budget || before.RowsRead != n.RowsRead {
			t.Errorf("%s: it was stopped at %d rows, then %d", sql, before.RowsRead, n.RowsRead)
		}
		if sqlite.RowMeter() == "exact" && (n != before || strings.HasPrefix(sql, "INSERT") != (n.RowsWritten > 0)) {
			t.Errorf("%s: cost %+v, then %+v", sql, before, n)
		}
		s.Done()
	}
}
