package sqlite_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// heapEnv tells the test binary, run again, to be the process with a heap limit: SQLite is configured once a process.
const heapEnv = "PERSQLD_TEST_HEAP_LIMIT"

func TestMain(m *testing.M) {
	if limit := os.Getenv(heapEnv); limit != "" {
		n, err := strconv.ParseInt(limit, 10, 64)
		if err == nil {
			err = sqlite.Initialize(sqlite.Setup{HeapLimit: n, TempDir: filepath.Join(os.Getenv("PERSQLD_TEST_DIR"), "spill")})
		}
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(2)
		}
	}
	os.Exit(m.Run())
}

func TestHeapLimit(t *testing.T) {
	if os.Getenv(heapEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHeapLimit$", "-test.v")
		cmd.Env = append(os.Environ(), heapEnv+"=8000000", "PERSQLD_TEST_DIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestHeapLimit") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a)")
	if used := sqlite.MemoryUsed(); used <= 0 || used > 8_000_000 {
		t.Errorf("%d bytes in use", used)
	}
	_, err := run(t, c, "SELECT length(group_concat(zeroblob(1000000))) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<15) SELECT i FROM n)")
	var e *sqlite.Error
	if !errors.As(err, &e) || e.Code.Primary() != sqlite.CodeNoMem {
		t.Fatalf("14 MB under a limit of 8: %v", err)
	}
	// The connection lives, and so do others.
	must(t, c, "INSERT INTO t VALUES(1)")
	must(t, open(t, sqlite.Config{}), "CREATE TABLE t(a)")
	// A big sort spills into files instead.
	if got := must(t, c, "SELECT count(*) FROM (SELECT i, hex(randomblob(100)) AS h FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<60000) SELECT i FROM n) ORDER BY h LIMIT 59999)"); got[0][0] != "59999" {
		t.Errorf("sorted %v rows", got)
	}
	if _, err := os.Stat(filepath.Join(os.Getenv("PERSQLD_TEST_DIR"), "spill")); err != nil {
		t.Error(err)
	}
}

// Versions before 3.51.3 can corrupt a database when the write-ahead log begins anew.
func TestVersion(t *testing.T) {
	var v [3]int
	for i, s := range strings.Split(sqlite.Version(), ".") {
		v[i], _ = strconv.Atoi(s)
	}
	if n := v[0]*1_000_000 + v[1]*1_000 + v[2]; n < 3_051_003 {
		t.Errorf("SQLite %s is older than 3.51.3", sqlite.Version())
	}
	c := open(t, sqlite.Config{})
	if got := must(t, c, "SELECT sqlite_version()"); got[0][0] != sqlite.Version() {
		t.Errorf("it says of itself that it is %v", got)
	}
}

// The generated code goes with one version of its C library: modernc.org/sqlite's go.mod names it, ours must too.
func TestPin(t *testing.T) {
	list := func(module string) (m struct{ Version, GoMod string }) {
		t.Helper()
		out, err := exec.Command("go", "list", "-m", "-json", module).Output()
		if err != nil {
			t.Fatalf("go list -m %s: %v", module, err)
		}
		if err := json.Unmarshal(out, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	const libc = "modernc.org/libc"
	gomod, err := os.ReadFile(list("modernc.org/sqlite").GoMod)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?m)^\s*(?:require\s+)?` + regexp.QuoteMeta(libc) + `\s+(v\S+)`).FindSubmatch(gomod)
	if want == nil {
		t.Fatalf("modernc.org/sqlite requires no %s", libc)
	}
	if got := list(libc).Version; got != string(want[1]) {
		t.Errorf("%s is %s, modernc.org/sqlite needs %s", libc, got, want[1])
	}
}

func TestLimits(t *testing.T) {
	c := open(t, sqlite.Config{Limits: sqlite.Limits{Length: 100_000, SQL: 2000, TriggerDepth: 5, Pages: 50}})
	must(t, c, "CREATE TABLE t(a)")
	must(t, c, "PRAGMA recursive_triggers=ON")
	must(t, c, "CREATE TRIGGER deep AFTER INSERT ON t WHEN new.a>0 BEGIN INSERT INTO t VALUES(new.a-1); END")
	must(t, c, "INSERT INTO t VALUES(4)")
	for _, test := range []struct {
		sql  string
		code sqlite.Code
	}{
		{"SELECT zeroblob(100001)", sqlite.CodeTooBig},
		{"SELECT '" + strings.Repeat("x", 2000) + "'", sqlite.CodeTooBig},
		{"INSERT INTO t VALUES(5)", sqlite.CodeError}, // too many levels of trigger recursion
		{"ATTACH ':memory:' AS x", sqlite.CodeError},
		{"INSERT INTO t SELECT zeroblob(90000) FROM (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3)", sqlite.CodeFull},
	} {
		_, err := run(t, c, test.sql)
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Code.Primary() != test.code {
			t.Errorf("%.60s: got %v, want %d", test.sql, err, test.code)
		}
	}
	c.SetMaxPages(100)
	must(t, c, "INSERT INTO t SELECT zeroblob(90000) FROM (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3)")
}

func TestErrorOffset(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a UNIQUE)")
	must(t, c, "INSERT INTO t VALUES(1)")
	for _, test := range []struct {
		sql    string
		offset int
	}{
		{"SELECT a FRM t", 13},
		{"SELECT a, nope FROM t", 10},
		{"/* é */ SELECT nope", 16},
		{"SELECT a FROM t WHERE", -1}, // incomplete: SQLite knows no place
		{"INSERT INTO t VALUES(1)", -1},
		{"SELECT abs(-9223372036854775808)", -1},
		{"SELECT 1\x00", 8},
		{"\x00SELECT 1", 0},
	} {
		_, err := run(t, c, test.sql)
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Offset != test.offset {
			t.Errorf("%q: got %#v, want offset %d", test.sql, err, test.offset)
		}
	}
}

// Interrupt comes from other goroutines, at any time: while a statement runs, while none does, while the connection is
// closed or given up.
func TestInterruptRacesClose(t *testing.T) {
	const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n"
	for i, end := range []func(*sqlite.Conn) error{(*sqlite.Conn).Close, (*sqlite.Conn).Abandon} {
		for range 5 {
			c := open(t, sqlite.Config{})
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for range 3 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for {
						select {
						case <-stop:
							return
						default:
							c.Interrupt()
						}
					}
				}()
			}
			for range 3 {
				var e *sqlite.Error
				if _, err := run(t, c, endless); !errors.As(err, &e) || e.Code.Primary() != sqlite.CodeInterrupt || e.Cause != nil {
					t.Errorf("%d: got %v", i, err)
				}
			}
			if err := end(c); err != nil {
				t.Errorf("%d: %v", i, err)
			}
			close(stop)
			wg.Wait()
		}
	}
}

// A table under SQLite's own prefix: ours to use, nobody else's to drop, index or see in a dump.
func TestCreateReserved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	c := open(t, sqlite.Config{Path: path})
	must(t, c, "CREATE TABLE t(a)")
	if err := c.CreateReserved("CREATE TABLE sqlite_persql_x(k PRIMARY KEY, v) WITHOUT ROWID"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"INSERT INTO sqlite_persql_x VALUES(1, 2)", "UPDATE sqlite_persql_x SET v=3", "SELECT v FROM sqlite_persql_x"} {
		must(t, c, sql)
	}
	for _, sql := range []string{
		"DROP TABLE sqlite_persql_x", "CREATE INDEX i ON sqlite_persql_x(v)", "ALTER TABLE sqlite_persql_x RENAME TO y", "CREATE TABLE sqlite_persql_y(a)",
		"CREATE TRIGGER g AFTER INSERT ON sqlite_persql_x BEGIN SELECT 1; END", "ALTER TABLE t RENAME TO sqlite_persql_z",
		"DELETE FROM sqlite_schema WHERE name='sqlite_persql_x'", "UPDATE sqlite_schema SET name='y'",
	} {
		if _, err := run(t, c, sql); err == nil {
			t.Errorf("%s ran", sql)
		}
	}
	check := func(c *sqlite.Conn) {
		t.Helper()
		if got := must(t, c, "PRAGMA integrity_check"); got[0][0] != "ok" {
			t.Errorf("integrity_check: %v", got)
		}
		if got := must(t, c, "SELECT v FROM sqlite_persql_x"); len(got) != 1 || got[0][0] != "3" {
			t.Errorf("rows: %v", got)
		}
		// What the shell's .tables and .dump go by.
		if got := must(t, c, "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"); len(got) != 1 || got[0][0] != "t" {
			t.Errorf("visible tables: %v", got)
		}
	}
	check(c)
	if err := c.AllowVacuum(func() error { _, err := run(t, c, "VACUUM"); return err }); err != nil {
		t.Fatal(err)
	}
	check(c)
	c.Close()
	c = open(t, sqlite.Config{Path: path})
	check(c)
	// In a transaction that is rolled back it leaves nothing, and the switches are off again.
	must(t, c, "BEGIN")
	if err := c.CreateReserved("CREATE TABLE sqlite_persql_gone(a)"); err != nil {
		t.Fatal(err)
	}
	must(t, c, "ROLLBACK")
	c.DropStatements()
	if _, err := run(t, c, "SELECT * FROM sqlite_persql_gone"); err == nil {
		t.Error("the table outlived the rollback")
	}
	if err := c.CreateReserved("CREATE TABLE sqlite_persql_x(a)"); err == nil {
		t.Error("made a table twice")
	}
	if _, err := run(t, c, "CREATE TABLE sqlite_y(a)"); err == nil {
		t.Error("writable_schema stayed on")
	}
	check(c)
}

// A pragma that switches something does so when it runs, not when it is compiled or explained; each time that it runs.
func TestPragmasActWhenTheyRun(t *testing.T) {
	c := open(t, sqlite.Config{})
	is := func(want string) {
		t.Helper()
		if got := must(t, c, "PRAGMA recursive_triggers")[0][0]; got != want {
			t.Errorf("the switch is %s, want %s", got, want)
		}
	}
	for _, sql := range []string{"PRAGMA recursive_triggers=ON", "EXPLAIN PRAGMA recursive_triggers=ON"} {
		prepare(t, c, sql).Done()
		is("0")
	}
	must(t, c, "EXPLAIN PRAGMA recursive_triggers=ON")
	is("0")
	for range 3 {
		must(t, c, "PRAGMA recursive_triggers=ON")
		is("1")
		must(t, c, "PRAGMA recursive_triggers=OFF")
		is("0")
	}
	must(t, c, "PRAGMA recursive_triggers=ON")
	if err := c.Exec("PRAGMA recursive_triggers=OFF"); err != nil {
		t.Error(err)
	}
	is("0")
	no := errors.New("no")
	if _, _, err := c.Prepare([]byte("PRAGMA recursive_triggers=ON"), func(sqlite.Access) error { return no }); !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	is("0")

	must(t, c, "CREATE TABLE p(id INTEGER PRIMARY KEY)")
	must(t, c, "CREATE TABLE c(p REFERENCES p)")
	must(t, c, "BEGIN")
	for range 2 {
		must(t, c, "PRAGMA defer_foreign_keys=ON")
		must(t, c, "INSERT INTO c VALUES(7)")
		if bad, err := c.DeferredViolations(); err != nil || !bad {
			t.Errorf("violation: %v %v", bad, err)
		}
		must(t, c, "DELETE FROM c")
		if err := c.Exec("PRAGMA defer_foreign_keys=OFF"); err != nil {
			t.Fatal(err)
		}
		if _, err := run(t, c, "INSERT INTO c VALUES(7)"); err == nil {
			t.Error("still deferred")
		}
	}
	must(t, c, "ROLLBACK")
}
