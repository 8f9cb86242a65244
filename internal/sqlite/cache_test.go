package sqlite_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// prepare compiles a client's statement, with Done at the test's end.
func prepare(t *testing.T, c *sqlite.Conn, sql string) *sqlite.Stmt {
	t.Helper()
	s, _, err := c.Prepare([]byte(sql), nil)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	t.Cleanup(s.Done)
	return s
}

func TestCacheKeepsStatements(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a)")
	a := prepare(t, c, "SELECT a FROM t")
	b := prepare(t, c, "SELECT a FROM t")
	if a == b {
		t.Fatal("one statement was given out twice")
	}
	a.Done()
	if prepare(t, c, "SELECT a FROM t") != a {
		t.Error("the statement was compiled again")
	}
	own, err := c.Own("SELECT a FROM t")
	if err != nil {
		t.Fatal(err)
	}
	if own == a || own == b || own.Accesses != nil {
		t.Error("the server got a client's statement")
	}
	own.Done()
	if s, _ := c.Own("SELECT a FROM t"); s != own {
		t.Error("the server's statement was compiled again")
	} else {
		s.Done()
	}
}

// Every change of the schema drops the cache, whoever makes it.
func TestCacheIsDropped(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a)")
	must(t, c, "CREATE TABLE u(a)")
	for name, change := range map[string]func() error{
		"a client's CREATE":  func() error { _, err := run(t, c, "CREATE INDEX ta ON t(a)"); return err },
		"a client's ANALYZE": func() error { _, err := run(t, c, "ANALYZE"); return err },
		"the server's own":   func() error { return c.Exec("CREATE TABLE w(a)") },
		"the server's DROP":  func() error { return c.Exec("DROP TABLE u") },
		"a reserved table":   func() error { return c.CreateReserved("CREATE TABLE sqlite_persql_a(a)") },
		"a change hook": func() error {
			c.SetChangeHook([]sqlite.ChangeHook{func(*sqlite.Change) {}})
			return nil
		},
	} {
		s := prepare(t, c, "SELECT a FROM t")
		s.Done()
		busy := prepare(t, c, "SELECT a+1 FROM t")
		if err := change(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if prepare(t, c, "SELECT a FROM t") == s {
			t.Errorf("%s left the cache as it was", name)
		}
		if _, err := busy.Step(); err != nil {
			t.Errorf("%s: a statement in use: %v", name, err)
		}
		busy.Done()
		c.DropStatements()
	}
	c.Altered()
	must(t, c, "CREATE TABLE y(a)")
	if !c.Altered() || c.Altered() {
		t.Error("Altered is not told once")
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := open(t, sqlite.Config{Limits: sqlite.Limits{Statements: 8}})
	first := prepare(t, c, "SELECT 'first'")
	first.Done()
	for i := range 8 {
		must(t, c, fmt.Sprintf("SELECT %d", i))
	}
	if prepare(t, c, "SELECT 'first'") == first {
		t.Error("a ninth statement was kept")
	}
	var busy []*sqlite.Stmt
	for i := range 20 { // more in use than the cache holds
		busy = append(busy, prepare(t, c, fmt.Sprintf("SELECT 'busy', %d", i)))
	}
	for i, s := range busy {
		if row, err := s.Step(); !row || err != nil || s.Column(1).Int != int64(i) {
			t.Errorf("statement %d: %v %v", i, row, err)
		}
		s.Done()
	}
	for i := range 50 { // big texts: bounded in bytes too
		must(t, c, fmt.Sprintf("SELECT %d /* %s */", i, strings.Repeat("x", 60<<10)))
	}
}

// A DELETE without WHERE truncates the table and tells the change hook of no row, unless it was compiled with the hook.
func TestTruncateIsSeenByTheHook(t *testing.T) {
	c := open(t, sqlite.Config{})
	must(t, c, "CREATE TABLE t(a)")
	const wipe = "DELETE FROM t"
	fill := func() { must(t, c, "INSERT INTO t VALUES(1), (2), (3)") }
	fill()
	must(t, c, wipe) // cached now, as a truncation
	seen := 0
	c.SetChangeHook([]sqlite.ChangeHook{func(ch *sqlite.Change) {
		if ch.Op == sqlite.Delete {
			seen++
		}
	}})
	for i := 1; i <= 2; i++ {
		fill()
		must(t, c, wipe)
		if seen != 3*i {
			t.Errorf("%d rows were reported, want %d", seen, 3*i)
		}
	}
	c.SetChangeHook(nil)
	fill()
	must(t, c, wipe)
	if seen != 6 {
		t.Errorf("the hook was told %d rows after it was taken away", seen-6)
	}
}

func TestDiscardedStatementsAreNotKept(t *testing.T) {
	c := open(t, sqlite.Config{})
	take := func() *sqlite.Stmt {
		t.Helper()
		s, err := c.System("SELECT 1")
		if err != nil {
			t.Fatal(err)
		}
		if row, err := s.Step(); err != nil || !row || s.Column(0).Int != 1 {
			t.Fatalf("%v, %v", row, err)
		}
		return s
	}
	kept := take()
	kept.Done()
	if s := take(); s != kept {
		t.Error("it was not kept")
	}
	kept.Discard()
	other := take()
	if other == kept {
		t.Error("it is there though it was discarded")
	}
	beside := take() // while the other is in use, so that it is not kept anyway
	beside.Discard()
	other.Done()
	if s := take(); s != other {
		t.Error("one beside took it along")
	} else {
		s.Done()
	}
}
