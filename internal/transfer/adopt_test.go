package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/transfer"
)

// foreign makes a file as another program would: with the settings that pragmas give, in its own journal mode.
func foreign(t testing.TB, pragmas string, sql []string, schema ...string) string {
	t.Helper()
	path := filepath.Join(tempDir(t), "foreign.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var edited error // reading an edited schema fails as it shall
	err := with(path, func(c *sqlite.Conn) error {
		for _, p := range strings.Split(pragmas, ";") {
			if err := c.Exec("PRAGMA " + p); err != nil {
				return err
			}
		}
		for _, s := range sql {
			if err := c.Exec(s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		if len(schema) == 0 {
			return nil
		}
		c.WriteSchema(func() error {
			for _, s := range schema {
				if err := c.Exec(s); err != nil {
					edited = fmt.Errorf("%s: %w", s, err)
				}
			}
			return nil
		})
		return nil
	})
	if err := errors.Join(err, edited); err != nil {
		t.Fatal(err)
	}
	return path
}

// ours checks that a file is one that the server opens, and that nothing is beside it.
func ours(t testing.TB, path string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if size := int(b[16])<<8 | int(b[17]); size != sqlite.PageSize || b[18] != 2 || b[19] != 2 || b[59] != 1 || !bytes.Equal(b[52:56], make([]byte, 4)) {
		t.Fatalf("header % x", b[:100])
	}
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.Open(sqlite.Config{Path: path}, th)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Exec("CREATE TABLE adopted(a)"); err != nil {
		t.Error(err)
	}
	c.Exec("DROP TABLE adopted")
	if err := errors.Join(c.Checkpoint(sqlite.CheckpointTruncate), c.Close()); err != nil {
		t.Fatal(err)
	}
	os.Remove(path + "-wal")
}

func TestAdopt(t *testing.T) {
	for _, tt := range shapes {
		for _, pragmas := range []string{"page_size=512;auto_vacuum=FULL", "page_size=65536;auto_vacuum=INCREMENTAL", "page_size=4096;journal_mode=WAL", "encoding='UTF-16le'", "encoding='UTF-16be';page_size=1024"} {
			if strings.Contains(pragmas, "UTF-16") && tt.name == "values" {
				continue // UTF-16 can't hold these bytes
			}
			t.Run(tt.name+"/"+pragmas, func(t *testing.T) {
				path := foreign(t, pragmas, tt.sql)
				want := strings.NewReplacer("encoding |TEXT \"UTF-16le\"", "encoding |TEXT \"UTF-8\"", "encoding |TEXT \"UTF-16be\"", "encoding |TEXT \"UTF-8\"").Replace(content(t, path))
				if err := transfer.Adopt(context.Background(), path, sqlite.Limits{}); err != nil {
					t.Fatal(err)
				}
				ours(t, path)
				integrity(t, path)
				same(t, "the adopted file", content(t, path), want)
			})
		}
	}
}

// A file that the system's sqlite3 made, and one of ours that it reads.
func TestAdoptShellsFile(t *testing.T) {
	for _, tt := range shapes {
		if !tt.foreign {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(tempDir(t), "shell.db")
			shell(t, path, strings.Join(tt.sql, ";\n")+";")
			want := content(t, path)
			if err := transfer.Adopt(context.Background(), path, sqlite.Limits{}); err != nil {
				t.Fatal(err)
			}
			ours(t, path)
			same(t, "the adopted file", content(t, path), want)
			if err := transfer.Strip(context.Background(), path); err != nil {
				t.Fatal(err)
			}
			same(t, "the file that leaves", content(t, path), want)
			if got := shell(t, path, "PRAGMA integrity_check"); got != "ok\n" {
				t.Errorf("the shell says %s", got)
			}
		})
	}
}

func TestAdoptDropsOurs(t *testing.T) {
	path := foreign(t, "page_size=4096", []string{"CREATE TABLE t(a PRIMARY KEY)", "INSERT INTO t VALUES(1)", "CREATE TABLE evil(a UNIQUE)", "INSERT INTO evil VALUES('secret')"},
		"UPDATE sqlite_schema SET name='sqlite_persql_kept_v1', tbl_name='sqlite_persql_kept_v1', sql='CREATE TABLE sqlite_persql_kept_v1(a UNIQUE)' WHERE name='evil'",
		"UPDATE sqlite_schema SET name='sqlite_autoindex_sqlite_persql_kept_v1_1', tbl_name='sqlite_persql_kept_v1' WHERE tbl_name='evil'")
	if err := transfer.Adopt(context.Background(), path, sqlite.Limits{}); err != nil {
		t.Fatal(err)
	}
	ours(t, path)
	integrity(t, path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("persql")) || bytes.Contains(b, []byte("secret")) {
		i := max(bytes.Index(b, []byte("persql")), bytes.Index(b, []byte("secret")))
		t.Errorf("a stranger's system table is there: %q", b[max(0, i-100):i+50])
	}
	if got := content(t, path); !strings.Contains(got, "row t |int 1|int 1") {
		t.Error(got)
	}
}

func TestAdoptRefuses(t *testing.T) {
	good := foreign(t, "page_size=1024", []string{"CREATE TABLE t(a, b UNIQUE)", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<900) INSERT INTO t SELECT i, 'text '||i FROM n"})
	bytesOf := func(change func([]byte) []byte) string {
		b, err := os.ReadFile(good)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(tempDir(t), "bad.db")
		if err := os.WriteFile(path, change(b), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	table := []string{"CREATE TABLE t(a)", "CREATE TABLE x(a)"}
	for _, tt := range []struct {
		name, path string
		limits     sqlite.Limits
		reason     transfer.Reason
		message    string
	}{
		{"empty", bytesOf(func([]byte) []byte { return nil }), sqlite.Limits{}, transfer.ReasonFile, "empty"},
		{"text", bytesOf(func([]byte) []byte { return []byte("CREATE TABLE t(a);") }), sqlite.Limits{}, transfer.ReasonFile, "no SQLite database"},
		{"encrypted", bytesOf(func(b []byte) []byte { return bytes.Repeat([]byte{0xa7, 0x31, 0x5c}, 4096) }), sqlite.Limits{}, transfer.ReasonFile, "encrypted"},
		{"cut", bytesOf(func(b []byte) []byte { return b[:len(b)-1024] }), sqlite.Limits{}, transfer.ReasonFile, "should have"},
		{"page size", bytesOf(func(b []byte) []byte { b[16], b[17] = 3, 0; return b }), sqlite.Limits{}, transfer.ReasonFile, "page size"},
		{"a page of zeros", bytesOf(func(b []byte) []byte { clear(b[5*1024 : 6*1024]); return b }), sqlite.Limits{}, transfer.ReasonIntegrity, "integrity check"},
		{"an index that lies", bytesOf(func(b []byte) []byte {
			return bytes.Replace(b, []byte("text 777"), []byte("text 77x"), 1)
		}), sqlite.Limits{}, transfer.ReasonIntegrity, "integrity check"},
		{"schema", bytesOf(func(b []byte) []byte {
			return bytes.Replace(b, []byte("CREATE TABLE t"), []byte("CREATE TABLE ("), 1)
		}), sqlite.Limits{}, transfer.ReasonFile, "damaged"},
		{"too many pages", good, sqlite.Limits{Pages: 2}, transfer.ReasonTooLarge, "the limit is 8192"},
		{"great value", foreign(t, "page_size=4096", []string{"CREATE TABLE t(a, b)", "INSERT INTO t VALUES(1, zeroblob(2000000))"}), sqlite.Limits{Length: 1000000}, transfer.ReasonTooLarge, `Table "t" has a value of more than 1000000 bytes`},
		{"view of a system table", foreign(t, "page_size=512", append(table, "CREATE VIEW v AS SELECT * FROM pragma_module_list")), sqlite.Limits{}, transfer.ReasonNotAllowed, "view v"},
		{"trigger", foreign(t, "page_size=512", append(table, "CREATE TRIGGER g AFTER UPDATE OF a ON t BEGIN SELECT load_extension('x'); END")), sqlite.Limits{}, transfer.ReasonNotAllowed, "a trigger on t"},
		{"trigger of a view", foreign(t, "page_size=512", append(table, "CREATE VIEW v AS SELECT a FROM t", "CREATE TRIGGER g INSTEAD OF DELETE ON v BEGIN SELECT * FROM pragma_module_list; END")), sqlite.Limits{}, transfer.ReasonNotAllowed, "a trigger on v"},
		{"reserved", foreign(t, "page_size=512", append(table, "CREATE TABLE _persql_x(a)")), sqlite.Limits{}, transfer.ReasonNotAllowed, "_persql_"},
		{"module", foreign(t, "page_size=512", append(table, "CREATE VIRTUAL TABLE d USING dbstat(main)")), sqlite.Limits{}, transfer.ReasonNotAllowed, "dbstat"},
		{"trigger of a shadow table", foreign(t, "page_size=512", append(table, "CREATE VIRTUAL TABLE f USING fts5(a)"),
			"INSERT INTO sqlite_schema VALUES('trigger','g','f_data',0,'CREATE TRIGGER g AFTER INSERT ON f_data BEGIN SELECT 1; END')"), sqlite.Limits{}, transfer.ReasonFile, "shadow"},
		{"shadow table of another shape", foreign(t, "page_size=512", append(table, "CREATE VIRTUAL TABLE r USING rtree(id, a, b)"),
			"UPDATE sqlite_schema SET sql='CREATE TABLE \"r_parent\"(nodeno INTEGER PRIMARY KEY,parentnode,more)' WHERE name='r_parent'"), sqlite.Limits{}, "", ""},
		{"shadow table of another name", foreign(t, "page_size=512", append(table, "CREATE VIRTUAL TABLE r USING rtree(id, a, b)"),
			"UPDATE sqlite_schema SET sql='CREATE TABLE \"r_parent\"(nodeno INTEGER PRIMARY KEY,more)' WHERE name='r_parent'"), sqlite.Limits{}, "", ""},
		{"a table made of rows", foreign(t, "page_size=512", table, "UPDATE sqlite_schema SET sql='CREATE TABLE x AS SELECT a FROM t' WHERE name='x'"), sqlite.Limits{}, "", ""},
		{"another's definition", foreign(t, "page_size=512", table, "UPDATE sqlite_schema SET sql='CREATE TABLE y(a)' WHERE name='x'"), sqlite.Limits{}, "", ""},
		{"a row of another kind", foreign(t, "page_size=512", table, "UPDATE sqlite_schema SET type=CAST('table' AS BLOB) WHERE name='x'"), sqlite.Limits{}, transfer.ReasonFile, "row of \"x\""},
		{"a reserved name", foreign(t, "page_size=512", table, "UPDATE sqlite_schema SET name='sqlite_x', tbl_name='sqlite_x', sql='CREATE TABLE sqlite_x(a)' WHERE name='x'"), sqlite.Limits{}, transfer.ReasonNotAllowed, "sqlite_x"},
		{"a function in a check", foreign(t, "page_size=512", table, "UPDATE sqlite_schema SET sql='CREATE TABLE x(a CHECK(load_extension(a)))' WHERE name='x'"), sqlite.Limits{}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := transfer.Adopt(context.Background(), tt.path, tt.limits)
			var e *transfer.Error
			if !errors.As(err, &e) {
				t.Fatalf("%v is no Error", err)
			}
			if tt.reason != "" && e.Reason != tt.reason || !strings.Contains(e.Message, tt.message) {
				t.Errorf("%s: %s\nwant %s: %s", e.Reason, e.Message, tt.reason, tt.message)
			}
			if strings.Contains(err.Error(), filepath.Dir(tt.path)) {
				t.Errorf("a path of the server: %v", err)
			}
			if left, _ := filepath.Glob(tt.path + "-*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			t.Log(e.Message)
		})
	}
}
