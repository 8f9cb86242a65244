package sqlite_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// FuzzSplit splits a script by the tails that Prepare returns and compares every piece with an oracle that knows only
// whether a text compiles: a statement is the shortest beginning of the text, up to a semicolon or the end, that
// compiles to something, whatever comes after it.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{
		"", ";", ";;;", " ", "-- c", "/* c", "SELECT 1", "SELECT 1;", "SELECT 1; SELECT 2", ";SELECT 1;;SELECT a FROM t;", "SELECT ';'; SELECT \";\" ; SELECT [;], `;`",
		"SELECT 1 -- ;\n; /* ; */ SELECT 2 /* ; ", "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; UPDATE t SET a=';'; END; SELECT 3",
		"CREATE TRIGGER g AFTER INSERT ON t WHEN new.a BEGIN INSERT INTO t SELECT CASE a WHEN 1 THEN 2 END FROM t; END;SELECT 1",
		"CREATE TEMP TRIGGER IF NOT EXISTS main.g INSTEAD OF DELETE ON v BEGIN DELETE FROM t; END", "EXPLAIN CREATE TRIGGER g AFTER DELETE ON t BEGIN SELECT 1; END; x",
		"SELEC 1; SELECT 1", "SELECT a FROM nope; SELECT 1", "SELECT 'x; SELECT 1", "SELECT x'0; 1", "SELECT 1\x00; SELECT 2", "\x00", "SELECT 1;\x00", "\xef\xbb\xbfSELECT 1; SELECT 2", "SELECT '\xff\xfe;';SELECT é",
		"BEGIN; COMMIT; END; ROLLBACK", "PRAGMA user_version=3; VACUUM", "INSERT INTO t VALUES(1);DELETE FROM t;", "WITH w AS (SELECT 1) SELECT * FROM w; SELECT ?1, :a, @b, $c::d(;)", "SELECT json('{\"a\":1;}'), a->>'$.b;' FROM t; CREATE TABLE u(a CHECK(a<>';'));",
		"CREATE VIRTUAL TABLE x USING fts5(a, b=';');SELECT 1", "CREATE VIRTUAL TABLE x USING fts5(a;b);SELECT 1",
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	c := open(f, sqlite.Config{Path: filepath.Join(dir, "split.db")})
	oracle := open(f, sqlite.Config{Path: filepath.Join(dir, "oracle.db")})
	for _, conn := range []*sqlite.Conn{c, oracle} {
		must(f, conn, "CREATE TABLE t(a, b)")
		must(f, conn, "INSERT INTO t VALUES(1, 2)")
		must(f, conn, "CREATE VIEW v AS SELECT a FROM t")
	}
	schema := must(f, c, "SELECT group_concat(sql) FROM sqlite_schema")[0][0]

	// Some pragmas act while they are compiled.
	denied := errors.New("denied")
	policy := func(a sqlite.Access) error {
		if a.Action == sqlite.Pragma {
			return denied
		}
		return nil
	}
	// compiles tells whether text holds a statement; an error is its own answer.
	compiles := func(text []byte) (bool, error) {
		s, _, err := oracle.Prepare(text, policy)
		if s != nil {
			s.Done()
		}
		return s != nil, err
	}
	// ends tells whether the semicolon that text ends with ends a statement: then what follows does no harm, which would
	// else be an error, in a comment of either kind too.
	ends := func(text []byte) bool {
		yes, _ := compiles(append(bytes.Clone(text), "*/\n."...))
		return yes
	}

	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 600 {
			return // the oracle's work is a square of it
		}
		var pieces [][]byte
		for rest := script; len(rest) > 0; {
			before := bytes.Clone(rest)
			s, n, err := c.Prepare(rest, policy)
			if !bytes.Equal(rest, before) {
				t.Fatalf("%q was changed", before)
			}
			if err != nil {
				var e *sqlite.Error
				if s != nil || n != 0 || !errors.As(err, &e) || e.Offset < -1 || e.Offset > len(rest) || e.Message == "" {
					t.Fatalf("%q: %v %d %#v", rest, s, n, err)
				}
				// No beginning of it is a statement either.
				for i := range rest {
					if rest[i] != ';' {
						continue
					}
					if ends(rest[:i+1]) {
						t.Fatalf("%q fails, but %q is a statement", rest, rest[:i+1])
					}
				}
				break
			}
			if n <= 0 || n > len(rest) {
				t.Fatalf("%q: a piece of %d bytes", rest, n)
			}
			piece := rest[:n]
			if s == nil {
				// Nothing but white space, comments and semicolons: then it is all there is.
				if yes, err := compiles(piece); yes || err != nil || n != len(rest) {
					t.Fatalf("%q: %q is nothing, the oracle says %v %v", rest, piece, yes, err)
				}
			} else {
				if s.SQL() != string(piece) {
					t.Fatalf("%q: the statement says %q", piece, s.SQL())
				}
				s.Done()
				if yes, err := compiles(piece); !yes || err != nil {
					t.Fatalf("%q alone: %v %v", piece, yes, err)
				}
				for i := range piece[:n-1] {
					if piece[i] != ';' {
						continue
					}
					if ends(piece[:i+1]) {
						t.Fatalf("%q is one piece, but %q is a statement", piece, piece[:i+1])
					}
				}
				if n < len(rest) && piece[n-1] != ';' {
					t.Fatalf("%q ends in the middle: %q follows", piece, rest[n:])
				}
			}
			pieces = append(pieces, piece)
			rest = rest[n:]
		}
		if all := bytes.Join(pieces, nil); !bytes.HasPrefix(script, all) {
			t.Fatalf("%q is split into %q", script, pieces)
		}
		if c.InTransaction() || c.TotalChanges() != 1 {
			t.Fatalf("%q ran", script)
		}
		if got := must(t, c, "SELECT group_concat(sql) FROM sqlite_schema")[0][0]; got != schema {
			t.Fatalf("%q changed the schema to %s", script, got)
		}
	})
}
