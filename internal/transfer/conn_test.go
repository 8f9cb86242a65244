package transfer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// A fault of the engine ends one transfer: its connection is given up and its file can be opened again.
func TestFault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	err := use(context.Background(), sqlite.Scratch{Path: path}, func(c *sqlite.Conn) error {
		if err := c.Exec("BEGIN"); err != nil {
			return err
		}
		if err := c.Exec("CREATE TABLE t(a)"); err != nil {
			return err
		}
		var nowhere *sqlite.Conn
		nowhere.Watch(nil)
		return nil
	})
	if !errors.Is(err, ErrFault) {
		t.Fatal(err)
	}
	err = use(context.Background(), sqlite.Scratch{Path: path}, func(c *sqlite.Conn) error {
		v, err := first(c, "SELECT count(*) FROM sqlite_schema")
		if v.Int != 0 {
			t.Errorf("%d objects of a transaction that never ended", v.Int)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Remove(path); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Where a statement ends is a guess that must not be behind the end: of two statements, the first is told apart.
func TestScannerEnds(t *testing.T) {
	for _, first := range []string{
		"SELECT 1;", ";", "SELECT ';';", `SELECT ";", [;], ` + "`;`;", "SELECT 1 -- ;\n;", "SELECT 1 /* ; */;", "SELECT 'it''s;';", "/* a */ -- b\n SELECT 1;", "SELECT a/b-c;",
		"CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; SELECT CASE a WHEN 1 THEN 2 END; END;", "create temp trigger g after insert on t begin select 1; end;",
		"EXPLAIN QUERY PLAN CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1;\n/* x */ END /* y */ ;", "CREATE TABLE trigger_(a);", "CREATE VIEW v AS SELECT 1;",
	} {
		text := first + " SELECT 2;"
		for size := 1; size <= len(text); size++ { // as if it arrived in pieces
			var s scanner
			got := -1
			for n := min(size, len(text)); ; n = min(n+size, len(text)) {
				if got = s.scan([]byte(text[:n]), n == len(text)); got >= 0 || n == len(text) {
					break
				}
			}
			if got != len(first) {
				t.Errorf("%q in pieces of %d ends at %d, want %d", text, size, got, len(first))
				break
			}
		}
	}
}
