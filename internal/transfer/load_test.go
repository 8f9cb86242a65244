package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/transfer"
)

func TestLoadRefuses(t *testing.T) {
	const ok = "CREATE TABLE ok(a);\n"
	for _, tt := range []struct {
		sql     string
		reason  transfer.Reason
		message string
	}{
		{"INSERT INTO t VALUES(1);\n\n  -- a comment; with one\nSELEC 1;", transfer.ReasonStatement, `statement 3 (line 5, byte 71): near "SELEC": syntax error: SELEC 1;`},
		{"INSERT INTO t VALUES(1); INSERT INTO t VALUES('cut", transfer.ReasonIncomplete, "statement 3 (line 2, byte 45): the text ends within a statement"},
		{"CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1;", transfer.ReasonIncomplete, "the text ends within a statement"},
		{"BEGIN; INSERT INTO t VALUES(1);", transfer.ReasonIncomplete, "before its COMMIT"},
		{"INSERT INTO nope VALUES(1);", transfer.ReasonStatement, "no such table: nope"},
		{"CREATE TABLE t(b);", transfer.ReasonStatement, "table t already exists"},
		{"INSERT INTO u VALUES(1),(1);", transfer.ReasonStatement, "UNIQUE constraint failed: u.a"},
		{"INSERT INTO child VALUES(5);", transfer.ReasonForeignKey, `1 rows of table "child" refer to rows of "u" that are not there`},
		{"ROLLBACK;", transfer.ReasonNotAllowed, "ROLLBACK can't be imported"},
		{"SAVEPOINT s;", transfer.ReasonNotAllowed, "SAVEPOINT"},
		{"ATTACH '/tmp/x.db' AS x;", transfer.ReasonNotAllowed, "ATTACH"},
		{"VACUUM;", transfer.ReasonNotAllowed, "VACUUM"},
		{"VACUUM INTO '/tmp/x.db';", transfer.ReasonNotAllowed, "VACUUM"},
		{"SELECT load_extension('x');", transfer.ReasonNotAllowed, "load_extension"},
		{"CREATE TEMP TABLE x(a);", transfer.ReasonNotAllowed, "Temporary"},
		{"CREATE TABLE temp.x(a);", transfer.ReasonNotAllowed, "Temporary"},
		{"PRAGMA temp_store_directory='/tmp';", transfer.ReasonNotAllowed, "temp_store_directory"},
		{"PRAGMA writable_schema(1); UPDATE sqlite_schema SET sql='x';", transfer.ReasonStatement, "table sqlite_master may not be modified"},
		{"PRAGMA writable_schema=ON; DELETE FROM sqlite_schema;", transfer.ReasonStatement, "table sqlite_master may not be modified"},
		{"PRAGMA writable_schema=RESET; INSERT OR REPLACE INTO sqlite_master(rowid,name) VALUES(1,'x');", transfer.ReasonNotAllowed, "sqlite_schema can't be written"},
		{"CREATE TABLE _persql_x(a);", transfer.ReasonNotAllowed, "_persql_x is a system object"},
		{"ALTER TABLE t RENAME TO _persql_x;", transfer.ReasonNotAllowed, "_persql_x is a system object"},
		{"INSERT INTO sqlite_persql_notes_v1 VALUES(1);", transfer.ReasonNotAllowed, "sqlite_persql_notes_v1 is a system object"},
		{"DROP TABLE sqlite_persql_notes_v1;", transfer.ReasonNotAllowed, "sqlite_persql_notes_v1 is a system object"},
		{"INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) VALUES('table','x','x',0,'CREATE TABLE x(a)');", transfer.ReasonNotAllowed, "not a virtual table's"},
		{"INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) VALUES('table','x','x',2,'CREATE VIRTUAL TABLE x USING fts5(a)');", transfer.ReasonNotAllowed, "not a virtual table's"},
		{"INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) VALUES('table','y','y',0,'CREATE VIRTUAL TABLE x USING fts5(a)');", transfer.ReasonNotAllowed, "not a virtual table's"},
		{"INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) VALUES('table','x','x',0,'CREATE VIRTUAL TABLE x USING fts5(a); DROP TABLE t');", transfer.ReasonNotAllowed, "not a virtual table's"},
		{"INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) VALUES('table','x','x',0,'CREATE VIRTUAL TABLE x USING dbstat');", transfer.ReasonNotAllowed, "dbstat"},
		{"INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) VALUES('trigger','x','t',0,'CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END');", transfer.ReasonNotAllowed, "not a virtual table's"},
		{"INSERT INTO sqlite_schema SELECT * FROM t;", transfer.ReasonStatement, "no such table: t"},
		{"INSERT INTO sqlite_schema(sql) SELECT sql FROM sqlite_schema;", transfer.ReasonNotAllowed, "Only values"},
		{"INSERT INTO sqlite_schema(sql) VALUES(load_extension('x'));", transfer.ReasonNotAllowed, "Only values"},
		{"CREATE VIEW bad AS SELECT * FROM sqlite_persql_notes_v1;", transfer.ReasonNotAllowed, "What view bad does is not allowed"},
		{"CREATE TRIGGER bad AFTER DELETE ON t BEGIN SELECT load_extension('x'); END;", transfer.ReasonNotAllowed, "What a trigger on t does is not allowed"},
		{"DELETE FROM f_data WHERE id>10;", transfer.ReasonIntegrity, "integrity check"},
		{"SELECT ?1;", transfer.ReasonNotAllowed, "parameters"},
		{"INSERT INTO t VALUES(zeroblob(20000000));", transfer.ReasonStatement, "too big"},
		{"INSERT INTO t VALUES(1); \x00", transfer.ReasonStatement, "zero byte"},
		{".open x", transfer.ReasonStatement, "syntax error"},
	} {
		t.Run(tt.sql, func(t *testing.T) {
			path := fresh(t)
			edit(t, path, "CREATE TABLE t(a)", "CREATE TABLE u(a UNIQUE)", "CREATE TABLE child(p REFERENCES u(a))",
				"CREATE VIRTUAL TABLE f USING fts5(a)", "INSERT INTO f VALUES('x')")
			if err := with(path, func(c *sqlite.Conn) error {
				return c.CreateReserved("CREATE TABLE sqlite_persql_notes_v1(a PRIMARY KEY)")
			}); err != nil {
				t.Fatal(err)
			}
			_, err := transfer.Load(context.Background(), path, strings.NewReader(ok+tt.sql), sqlite.Limits{})
			var e *transfer.Error
			if !errors.As(err, &e) {
				t.Fatalf("%v is no Error", err)
			}
			if e.Reason != tt.reason || !strings.Contains(e.Message, tt.message) {
				t.Errorf("%s: %s\nwant %s: %s", e.Reason, e.Message, tt.reason, tt.message)
			}
			for _, secret := range []string{path, filepath.Dir(path)} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("a path of the server: %v", err)
				}
			}
		})
	}
}

func TestLoadLimitsStatement(t *testing.T) {
	text := "CREATE TABLE t(a); INSERT INTO t VALUES('" + strings.Repeat("x", 300_000) + "');"
	_, err := transfer.Load(context.Background(), fresh(t), strings.NewReader(text+strings.Repeat(" ", 1<<20)), sqlite.Limits{SQL: 100_000})
	var e *transfer.Error
	if !errors.As(err, &e) || e.Reason != transfer.ReasonTooLarge || !strings.HasPrefix(e.Message, "statement 2 (line 1, byte 19): a statement of more than 100000 bytes") {
		t.Errorf("%v", err)
	}
	if _, err := transfer.Load(context.Background(), fresh(t), strings.NewReader(text), sqlite.Limits{}); err != nil {
		t.Error(err)
	}
}

// An import adds to what is there, and leaves alone what it doesn't name.
func TestLoadAdds(t *testing.T) {
	path := fresh(t)
	edit(t, path, "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO a VALUES(41)", "DELETE FROM a",
		"CREATE TABLE orphan(p REFERENCES nobody(x))", "INSERT INTO orphan VALUES(1)", "CREATE VIEW broken AS SELECT * FROM gone")
	if err := with(path, func(c *sqlite.Conn) error {
		return c.CreateReserved("CREATE TABLE sqlite_persql_notes_v1(a PRIMARY KEY)")
	}); err != nil {
		t.Fatal(err)
	}
	r := load(t, path, `PRAGMA foreign_keys=OFF; PRAGMA encoding='UTF-16'; PRAGMA journal_mode=OFF; PRAGMA page_size=512; BEGIN TRANSACTION;
		CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO b VALUES(7);
		DELETE FROM sqlite_sequence; INSERT INTO sqlite_sequence VALUES('b',9); PRAGMA user_version=3; END;
		/* a transaction more */ BEGIN; INSERT INTO b SELECT 100+value FROM json_each('[1,2,3]'); COMMIT; ;; -- the end`)
	if r.Statements != 6 || r.RowsWritten < 6 || r.RowsRead == 0 {
		t.Errorf("report %+v", r)
	}
	got := content(t, path)
	for _, want := range []string{`row sqlite_sequence |TEXT "a"|int 41`, `row sqlite_sequence |TEXT "b"|int 103`, "row b |int 103|int 103", `sqlite_persql_notes_v1`,
		"user_version |int 3", `encoding |TEXT "UTF-8"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.Open(sqlite.Config{Path: path}, th)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// What a statement needs is read and no more, however the text arrives.
func TestLoadReadsPieces(t *testing.T) {
	var b strings.Builder
	b.WriteString("\ufeffCREATE TABLE t(a, b);\n")
	for i := range 300 {
		fmt.Fprintf(&b, "INSERT INTO t VALUES(%d,'%s;''\n--/*'); -- %d;\n/* ; */", i, strings.Repeat("x", i*7%900), i)
	}
	b.WriteString("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT CASE new.a WHEN 1 THEN 2 END; SELECT ';'; END;INSERT INTO t VALUES(1,2)")
	whole := fresh(t)
	load(t, whole, b.String())
	for _, r := range []io.Reader{iotest.OneByteReader(strings.NewReader(b.String())), iotest.DataErrReader(strings.NewReader(b.String()))} {
		path := fresh(t)
		if _, err := transfer.Load(context.Background(), path, r, sqlite.Limits{}); err != nil {
			t.Fatal(err)
		}
		same(t, "in pieces", content(t, path), content(t, whole))
	}
	_, err := transfer.Load(context.Background(), fresh(t), io.MultiReader(strings.NewReader("CREATE TABLE x(a);"), iotest.ErrReader(io.ErrUnexpectedEOF)), sqlite.Limits{})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
}

// A text that was cut somewhere is refused, or it is whole.
func TestLoadOfCutDump(t *testing.T) {
	for _, tt := range shapes {
		t.Run(tt.name, func(t *testing.T) {
			path := build(t, tt.name, tt.sql)
			edit(t, path)
			text := dump(t, path)
			want := content(t, path)
			r := rand.New(rand.NewPCG(1, uint64(len(text))))
			cuts := []int{0, 1, 24, 25, 26, 30, len(text) - 1, len(text) - 2, len(text) - 3, len(text) - 8, len(text) - 9, len(text) - 10}
			for range 8 {
				cuts = append(cuts, r.IntN(len(text)))
			}
			for _, n := range cuts {
				got := fresh(t)
				before := content(t, got)
				_, err := transfer.Load(context.Background(), got, strings.NewReader(text[:n]), sqlite.Limits{})
				if err == nil {
					same(t, fmt.Sprintf("a text of %d bytes cut to %d", len(text), n), content(t, got), want)
					continue
				}
				var e *transfer.Error
				if !errors.As(err, &e) || e.Reason != transfer.ReasonIncomplete && e.Reason != transfer.ReasonStatement && e.Reason != transfer.ReasonNotAllowed {
					t.Fatalf("cut to %d: %v", n, err)
				}
				same(t, fmt.Sprintf("a text of %d bytes cut to %d", len(text), n), content(t, got), before)
			}
		})
	}
}

func TestLoadEndsInTime(t *testing.T) {
	for _, sql := range []string{
		"CREATE TABLE t AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT sum(i) FROM n;",
		bomb(),
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err := transfer.Load(ctx, fresh(t), strings.NewReader(sql), sqlite.Limits{})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%.60s: %v", sql, err)
		}
		if d := time.Since(begin); d > 15*time.Second {
			t.Errorf("%.60s: %v", sql, d)
		}
	}
}

// bomb is a tower of views, each of which uses the one below twice.
func bomb() string {
	var b strings.Builder
	b.WriteString("CREATE VIEW v0 AS SELECT 1 AS a;\n")
	for i := range 40 {
		fmt.Fprintf(&b, "CREATE VIEW v%d AS SELECT a FROM v%d UNION ALL SELECT a FROM v%d;\n", i+1, i, i)
	}
	return b.String()
}

// heap runs f and returns by how much Go's heap and SQLite's together rose at their highest above what they were.
func heap(f func(sample func())) int64 {
	read := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc) + sqlite.MemoryUsed()
	}
	runtime.GC()
	before, top := read(), int64(0)
	f(func() { top = max(top, read()-before) })
	return top
}

// sampler looks at the heap at every so many bytes that pass through it.
type sampler struct {
	sample func()
	n      int
}

func (s *sampler) Write(b []byte) (int, error) {
	if s.n += len(b); s.n > 1<<20 {
		s.n = 0
		s.sample()
	}
	return len(b), nil
}

// Memory does not grow with the database: 60 MB of rows, and rows of 8 MB, go out and come in.
func TestStreams(t *testing.T) {
	path := fresh(t)
	edit(t, path, "CREATE TABLE small(a INTEGER PRIMARY KEY, b)", "CREATE TABLE big(a)",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<60000) INSERT INTO small SELECT i, hex(randomblob(300)) FROM n",
		"INSERT INTO big VALUES(randomblob(8000000)),(CAST(randomblob(8000000) AS TEXT)),(hex(randomblob(4000000)))")
	fi, err := os.Stat(path)
	if err != nil || fi.Size() < 50<<20 {
		t.Fatalf("%v %v", fi.Size(), err)
	}
	out := heap(func(sample func()) {
		if _, err := transfer.Dump(context.Background(), &sampler{sample: sample}, path); err != nil {
			t.Fatal(err)
		}
	})
	if out > 16<<20 {
		t.Errorf("an export of %d MB took %d MB of memory", fi.Size()>>20, out>>20)
	}
	// An import holds its longest statement, here 16 MB of text, a few times: ours, SQLite's copies, and its value.
	in := heap(func(sample func()) {
		r, w := io.Pipe()
		go func() {
			_, err := transfer.Dump(context.Background(), w, path)
			w.CloseWithError(err)
		}()
		if _, err := transfer.Load(context.Background(), fresh(t), io.TeeReader(r, &sampler{sample: sample}), sqlite.Limits{Length: 9_100_000}); err != nil {
			t.Fatal(err)
		}
	})
	if in > 160<<20 {
		t.Errorf("an import of rows up to 8 MB took %d MB of memory", in>>20)
	}
	t.Logf("export %d KB, import %d KB", out>>10, in>>10)
}

func TestDumpLeavesOursOut(t *testing.T) {
	path := fresh(t)
	edit(t, path, "CREATE TABLE t(a PRIMARY KEY)", "INSERT INTO t VALUES(1)")
	if err := with(path, func(c *sqlite.Conn) error {
		if err := c.CreateReserved("CREATE TABLE sqlite_persql_kept_v1(a PRIMARY KEY)"); err != nil {
			return err
		}
		return errors.Join(c.Exec("INSERT INTO sqlite_persql_kept_v1 VALUES('a secret')"), c.Exec("ANALYZE"), c.Exec("PRAGMA journal_mode=WAL"))
	}); err != nil {
		t.Fatal(err)
	}
	text := dump(t, path)
	if strings.Contains(text, "persql") || strings.Contains(text, "secret") || !strings.Contains(text, `INSERT INTO "sqlite_stat1" VALUES('t'`) {
		t.Error(text)
	}
	if err := transfer.Strip(context.Background(), path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("persql")) || bytes.Contains(b, []byte("secret")) {
		t.Error("the file that leaves holds what is the server's own")
	}
	if b[18] != 1 || b[19] != 1 {
		t.Errorf("its journal mode is %d, %d", b[18], b[19])
	}
	integrity(t, path)
	if got := shell(t, path, "SELECT * FROM t; PRAGMA journal_mode; PRAGMA integrity_check;"); got != "1\ndelete\nok\n" {
		t.Errorf("the shell reads %q", got)
	}
}
