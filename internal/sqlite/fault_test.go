package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// faulty is a table whose scan panics at its third row: a fault with a statement half done.
func faulty() *sqlite.Table {
	return &sqlite.Table{Name: "_faulty", Columns: "n INTEGER", Rows: func() (sqlite.Rows, error) { return &faultyRows{}, nil }}
}

type faultyRows struct{ i int }

func (r *faultyRows) Next() bool {
	if r.i++; r.i == 3 {
		panic("a fault in the engine")
	}
	return true
}
func (r *faultyRows) Column(int) sqlite.Value {
	return sqlite.Value{Kind: sqlite.Integer, Int: int64(r.i)}
}

// fault runs sql, which must panic.
func fault(t *testing.T, c *sqlite.Conn, sql string) {
	t.Helper()
	s, _, err := c.Prepare([]byte(sql), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
	}()
	for {
		if more, err := s.Step(); err != nil || !more {
			t.Fatalf("%s ended: %v", sql, err)
		}
	}
}

// A connection that faulted is given up; the file has everything committed, nothing of the statement that was half
// done, and can be opened again at once, in the same process.
func TestAbandonThenReopen(t *testing.T) {
	for name, test := range map[string]struct {
		before, want string
	}{
		"a statement of its own transaction": {"", "1"},
		"inside a transaction":               {"BEGIN", "1"},
		"inside a savepoint":                 {"SAVEPOINT s", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := sqlite.Config{Path: filepath.Join(t.TempDir(), "t.db"), Tables: []*sqlite.Table{faulty()}}
			c := open(t, cfg)
			must(t, c, "CREATE TABLE t(n)")
			must(t, c, "INSERT INTO t VALUES(100)")
			if test.before != "" {
				must(t, c, test.before)
				must(t, c, "INSERT INTO t VALUES(200)")
			}
			// In use at the time of the fault: one that the cache holds, one that it doesn't.
			for range 2 {
				s, _, err := c.Prepare([]byte("SELECT n FROM t"), nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Step(); err != nil {
					t.Fatal(err)
				}
				defer s.Done()
			}
			fault(t, c, "INSERT INTO t SELECT n FROM _faulty")
			if err := c.Abandon(); err != nil {
				t.Fatalf("abandon: %v", err)
			}
			again := open(t, cfg)
			if got := must(t, again, "SELECT count(*) FROM t"); got[0][0] != test.want {
				t.Errorf("%s rows after the fault, want %s", got[0][0], test.want)
			}
			if got := must(t, again, "PRAGMA integrity_check"); got[0][0] != "ok" {
				t.Errorf("integrity_check: %v", got)
			}
			must(t, again, "INSERT INTO t VALUES(300)")
		})
	}
}

// After Abandon and Close every use of a statement is an error, and none touches the engine.
func TestStatementsEndWithTheirConnection(t *testing.T) {
	for name, end := range map[string]func(*sqlite.Conn) error{"close": (*sqlite.Conn).Close, "abandon": (*sqlite.Conn).Abandon} {
		t.Run(name, func(t *testing.T) {
			cfg := sqlite.Config{Path: filepath.Join(t.TempDir(), "t.db")}
			c := open(t, cfg)
			must(t, c, "CREATE TABLE t(a)")
			must(t, c, "INSERT INTO t VALUES(1), (2)")
			var stmts []*sqlite.Stmt
			for range 3 {
				s, _, err := c.Prepare([]byte("SELECT a FROM t WHERE a<>?"), nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Bind([]sqlite.Param{text("x")}); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Step(); err != nil {
					t.Fatal(err)
				}
				stmts = append(stmts, s)
			}
			if err := end(c); err != nil {
				t.Fatal(err)
			}
			for _, s := range stmts {
				if s.Column(0).Kind != sqlite.Null || s.Columns() != 0 || s.ColumnName(0) != nil || s.Counts(1) != (sqlite.Counts{}) {
					t.Error("an ended statement shows something")
				}
				var e *sqlite.Error
				if _, err := s.Step(); !errors.As(err, &e) || e.Code != sqlite.CodeMisuse {
					t.Errorf("step: %v", err)
				}
				if err := s.Bind([]sqlite.Param{text("x")}); !errors.As(err, &e) || e.Code != sqlite.CodeMisuse {
					t.Errorf("bind: %v", err)
				}
				s.Reset()
				s.Done()
				s.Done()
			}
			if _, _, err := c.Prepare([]byte("SELECT 1"), nil); err == nil {
				t.Error("prepared on a closed connection")
			}
			c.Interrupt()
			if err := c.Close(); err != nil {
				t.Errorf("close again: %v", err)
			}
			// Nothing holds the file any more.
			if got := must(t, open(t, cfg), "SELECT count(*) FROM t"); got[0][0] != "2" {
				t.Errorf("rows: %v", got)
			}
		})
	}
}

func TestOpenWhatIsNoDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret-name.db")
	content := make([]byte, 8192)
	copy(content, "this is no database")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	th := sqlite.NewThread()
	defer th.Close()
	_, err := sqlite.Open(sqlite.Config{Path: path}, th)
	var e *sqlite.Error
	if !errors.As(err, &e) || e.Code.Primary() != sqlite.CodeNotADB {
		t.Errorf("got %v", err)
	}
}
