package transfer_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/transfer"
)

// hostileCases is how many imports are made up, half of them SQL texts, half SQLite files. PERSQLD_HOSTILE says another
// number: the count that a release is tested with is 50,000.
func hostileCases(t *testing.T) int {
	s := os.Getenv("PERSQLD_HOSTILE")
	if s == "" {
		return 3000
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const (
	caseTime  = time.Second      // what an import may take, which its context says
	stuckTime = 15 * time.Second // what it may take to notice
)

// tally counts how cases ended.
type tally map[string]int

// TestHostileDumps runs made-up and mutilated SQL texts on a database that holds something.
func TestHostileDumps(t *testing.T) {
	var texts []string
	for _, tt := range shapes {
		path := build(t, tt.name, tt.sql)
		edit(t, path)
		if text := dump(t, path); len(text) < 20_000 {
			texts = append(texts, text)
		}
	}
	texts = append(texts, dumpOfShell, bomb()[:400])
	base := fresh(t)
	edit(t, base, "CREATE TABLE kept(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE)", "INSERT INTO kept(b) VALUES('one'),('two')", "CREATE VIRTUAL TABLE ft USING fts5(x)",
		"INSERT INTO ft VALUES('some words here')", "CREATE VIEW kv AS SELECT b FROM kept", "CREATE TABLE child(p REFERENCES kept(a))", "INSERT INTO child VALUES(1)")
	if err := with(base, func(c *sqlite.Conn) error {
		return errors.Join(c.CreateReserved("CREATE TABLE sqlite_persql_notes_v1(a PRIMARY KEY)"), c.Exec("PRAGMA journal_mode=WAL"))
	}); err != nil {
		t.Fatal(err)
	}
	original, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	ended := tally{}
	for i := range hostileCases(t) / 2 {
		r := rand.New(rand.NewPCG(4, uint64(i)))
		text := hostileText(r, texts)
		attempt(t, ended, i, original, []byte(text), func(ctx context.Context, path string) error {
			_, err := transfer.Load(ctx, path, strings.NewReader(text), sqlite.Limits{Pages: 500, Length: 1_000_000})
			return err
		})
	}
	t.Log(ended)
}

// TestHostileFiles adopts damaged and hostile SQLite files.
func TestHostileFiles(t *testing.T) {
	var files [][]byte
	pragmas := []string{"page_size=512", "page_size=1024;auto_vacuum=FULL", "page_size=4096;journal_mode=WAL", "encoding='UTF-16le';page_size=512"}
	for i, tt := range shapes {
		b, err := os.ReadFile(foreign(t, pragmas[i%len(pragmas)], tt.sql))
		if err != nil {
			t.Fatal(err)
		}
		if len(b) < 200_000 {
			files = append(files, b)
		}
	}
	ended := tally{}
	for i := range hostileCases(t) / 2 {
		r := rand.New(rand.NewPCG(5, uint64(i)))
		b := hostileFile(r, files)
		attempt(t, ended, i, b, b, func(ctx context.Context, path string) error {
			return transfer.Adopt(ctx, path, sqlite.Limits{Pages: 500, Length: 1_000_000})
		})
	}
	t.Log(ended)
}

// attempt makes one import and looks at what became of it.
func attempt(t *testing.T, ended tally, i int, scratch, input []byte, f func(ctx context.Context, path string) error) {
	t.Helper()
	dir := tempDir(t)
	defer os.RemoveAll(dir)
	path, live := filepath.Join(dir, "scratch"), filepath.Join(dir, "live.db")
	for p, b := range map[string][]byte{path: scratch, live: input} {
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fail := func(format string, args ...any) {
		t.Helper()
		saved := filepath.Join(os.TempDir(), fmt.Sprintf("persqld-%s-%d", t.Name(), i))
		os.WriteFile(saved, input, 0o600)
		t.Fatalf("case %d (%s): %s", i, saved, fmt.Sprintf(format, args...))
	}
	ctx, cancel := context.WithTimeout(context.Background(), caseTime)
	defer cancel()
	begin := time.Now()
	err := f(ctx, path)
	if d := time.Since(begin); d > stuckTime {
		fail("%v", d)
	}
	if b, e := os.ReadFile(live); e != nil || !bytes.Equal(b, input) {
		fail("it reached another file: %v", e)
	}
	files, _ := os.ReadDir(dir)
	for _, file := range files {
		if n := file.Name(); n != "live.db" && n != "scratch" && (err == nil || !strings.HasPrefix(n, "scratch-")) {
			fail("it left a file %s", n)
		}
	}
	var mine *transfer.Error
	switch {
	case err == nil:
		ended["taken"]++
	case errors.As(err, &mine):
		ended[string(mine.Reason)]++
		return
	case errors.Is(err, context.DeadlineExceeded):
		ended["late"]++
		return
	case errors.Is(err, transfer.ErrFault):
		ended["fault"]++
		t.Logf("case %d: %v", i, err)
		return
	default:
		var e *sqlite.Error
		if errors.As(err, &e) && (e.Code.Primary() == sqlite.CodeFull || e.Code.Primary() == sqlite.CodeNoMem) {
			ended["quota"]++
			return
		}
		fail("%v", err)
	}
	if err := acceptable(path); err != nil {
		fail("it was taken: %v", err)
	}
}

// acceptable checks what an import that succeeded promises, as the server will meet the file.
func acceptable(path string) (err error) {
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.Open(sqlite.Config{Path: path}, th)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Watch(nil)
	if err := rows(c, "PRAGMA integrity_check", func(s string) {
		if s != `|TEXT "ok"` && err == nil {
			err = errors.New(s)
		}
	}); err != nil {
		return err
	}
	var names [][2]string
	s, err := c.Own("SELECT type, name FROM sqlite_schema WHERE name LIKE '%persql%' AND name NOT IN ('sqlite_persql_notes_v1', 'sqlite_autoindex_sqlite_persql_notes_v1_1') OR sql IS NOT NULL")
	if err != nil {
		return err
	}
	for {
		row, err := s.Step()
		if err != nil {
			return err
		}
		if !row {
			break
		}
		names = append(names, [2]string{string(s.Column(0).Bytes), string(s.Column(1).Bytes)})
	}
	s.Done()
	for _, n := range names {
		lower := strings.ToLower(n[1])
		if strings.HasPrefix(lower, "_persql_") || strings.HasPrefix(lower, "sqlite_persql_") && !strings.Contains(lower, "notes_v1") {
			return fmt.Errorf("%s %s was brought", n[0], n[1])
		}
		if n[0] != "table" && n[0] != "view" || strings.HasPrefix(lower, "sqlite_") {
			continue
		}
		// Whatever triggers and views do is judged with the statement that they belong to.
		for _, sql := range []string{"SELECT * FROM " + sqlite.Quote(n[1]), "DELETE FROM " + sqlite.Quote(n[1]), "INSERT INTO " + sqlite.Quote(n[1]) + " DEFAULT VALUES"} {
			st, _, err := c.Prepare([]byte(sql), (&gate.Gate{}).Permit)
			var refusal *gate.Refusal
			if errors.As(err, &refusal) {
				return fmt.Errorf("%s: %w", sql, err)
			}
			if err == nil {
				st.Done()
			}
		}
	}
	return nil
}

// dumpOfShell is what Debian's shell writes for a database with an FTS5 and an R-Tree table.
const dumpOfShell = `PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
PRAGMA writable_schema=ON;
INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','f','f',0,'CREATE VIRTUAL TABLE f USING fts5(x, y)');
CREATE TABLE IF NOT EXISTS 'f_data'(id INTEGER PRIMARY KEY, block BLOB);
INSERT INTO f_data VALUES(1,X'010201');
INSERT INTO f_data VALUES(10,X'000000000101010001010101');
INSERT INTO f_data VALUES(137438953473,X'000000220430666f6f0106010102010568656c6c6f0102020105776f726c64010203040a0a');
CREATE TABLE IF NOT EXISTS 'f_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID;
INSERT INTO f_idx VALUES(1,X'',2);
CREATE TABLE IF NOT EXISTS 'f_content'(id INTEGER PRIMARY KEY, c0, c1);
INSERT INTO f_content VALUES(1,'hello world','foo');
CREATE TABLE IF NOT EXISTS 'f_docsize'(id INTEGER PRIMARY KEY, sz BLOB);
INSERT INTO f_docsize VALUES(1,X'0201');
CREATE TABLE IF NOT EXISTS 'f_config'(k PRIMARY KEY, v) WITHOUT ROWID;
INSERT INTO f_config VALUES('version',4);
CREATE TRIGGER tr AFTER INSERT ON kept BEGIN SELECT 1; INSERT INTO f(x) VALUES(new.a); END;
PRAGMA writable_schema=OFF;
COMMIT;
`

// fragments are statements that do harm, or would where they were let.
var fragments = []string{
	"ATTACH 'live.db' AS x;", "DETACH main;", "VACUUM;", "VACUUM INTO 'live.db';", "ROLLBACK;", "COMMIT;", "BEGIN EXCLUSIVE;", "END;", "SAVEPOINT a;", "RELEASE a;",
	"PRAGMA writable_schema=ON;", "PRAGMA writable_schema=RESET;", "PRAGMA journal_mode=OFF;", "PRAGMA journal_mode=WAL;", "PRAGMA schema_version=1;", "PRAGMA page_size=512;",
	"PRAGMA foreign_keys=ON;", "PRAGMA encoding='UTF-16';", "PRAGMA query_only=1;", "PRAGMA max_page_count=1;", "PRAGMA cell_size_check=0;", "PRAGMA user_version=99;", "PRAGMA hard_heap_limit=1;",
	"DELETE FROM sqlite_schema;", "UPDATE sqlite_schema SET rootpage=1;", "UPDATE sqlite_master SET sql='CREATE TABLE kept(x)' WHERE name='kept';", "DELETE FROM sqlite_sequence;", "DROP TABLE sqlite_sequence;",
	"INSERT INTO sqlite_schema VALUES('table','x','x',0,'CREATE VIRTUAL TABLE x USING fts5(a)');", "INSERT INTO sqlite_schema VALUES('table','x','x',3,'CREATE TABLE x(a)');",
	"INSERT INTO sqlite_schema VALUES('table','ft','ft',0,'CREATE VIRTUAL TABLE ft USING rtree(a,b,c)');", "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) SELECT type,name,tbl_name,rootpage,sql FROM sqlite_schema;",
	"INSERT INTO sqlite_master VALUES('view','x','x',0,'CREATE VIEW x AS SELECT * FROM sqlite_persql_notes_v1'),('table','y','y',0,'CREATE VIRTUAL TABLE y USING fts5(a)');",
	"CREATE TABLE _persql_x(a);", "CREATE TABLE sqlite_persql_x(a);", "ALTER TABLE kept RENAME TO _persql_y;", "ALTER TABLE ft RENAME TO _persql_z;", "DROP TABLE sqlite_persql_notes_v1;", "INSERT INTO sqlite_persql_notes_v1 VALUES(1);",
	"CREATE VIEW w AS SELECT * FROM sqlite_persql_notes_v1;", "CREATE VIEW w2 AS SELECT * FROM pragma_module_list;", "CREATE TRIGGER w3 AFTER INSERT ON kept BEGIN DELETE FROM sqlite_persql_notes_v1; END;",
	"CREATE TRIGGER w4 AFTER INSERT ON ft_data BEGIN SELECT 1; END;", "CREATE TRIGGER w5 BEFORE DELETE ON kept BEGIN SELECT load_extension(old.b); END;", "CREATE TEMP TRIGGER w6 AFTER INSERT ON kept BEGIN SELECT 1; END;",
	"CREATE TEMP TABLE q(a);", "CREATE TABLE temp.q(a);", "CREATE VIRTUAL TABLE q USING dbstat;", "CREATE VIRTUAL TABLE q USING fts5(a, content=sqlite_schema);", "CREATE VIRTUAL TABLE q2 USING fts5vocab(ft, instance);", "SELECT * FROM q2;",
	"DELETE FROM ft_data;", "UPDATE ft_data SET block=randomblob(20);", "DROP TABLE ft_idx;", "DROP TABLE ft;", "INSERT INTO ft(ft) VALUES('rebuild');", "INSERT INTO ft(ft) VALUES('optimize');", "INSERT INTO ft(ft, rank) VALUES('pgsz', 64);", "DELETE FROM ft;",
	"UPDATE ft_config SET v='x';", "INSERT INTO ft_docsize VALUES(7,x'00');", "INSERT INTO ft_content VALUES(8,'eight');", "ALTER TABLE ft_content ADD COLUMN more;", "INSERT INTO ft VALUES(zeroblob(900000));",
	"CREATE TABLE big AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000) SELECT i, hex(zeroblob(200)) AS x FROM n;", "SELECT zeroblob(2000000);", "INSERT INTO kept(b) SELECT printf('%.900000c', 'x');",
	"INSERT INTO child VALUES(77);", "INSERT INTO kept VALUES(1,2);", "REPLACE INTO kept VALUES(1,'two');", "CREATE INDEX ci ON kept(a, sqlite_log(1,2));", "CREATE TABLE g(a, b AS (load_extension(a)));", "ANALYZE;", "REINDEX;",
	"ANALYZE sqlite_schema;", "INSERT INTO sqlite_stat1 VALUES('kept','sqlite_autoindex_kept_1','x y z');", "INSERT INTO sqlite_stat4 VALUES('kept','sqlite_autoindex_kept_1','1','1','1',x'ff');", "DROP TABLE sqlite_stat1;",
	"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) SELECT count(*) FROM n;", "EXPLAIN DELETE FROM kept;", "SELECT ?1;", "SELECT 'unclosed;", "/* unclosed", "-- comment\n", ";", "\x00", "\xff\xfe", ".quit\n",
	"CREATE TABLE transfer_0(a);", "CREATE TABLE f_data(a, b);", "CREATE TABLE f_idx(a);", "CREATE TABLE IF NOT EXISTS 'f_config'(k, v, w);", "CREATE VIRTUAL TABLE f USING fts5(x);", "CREATE VIRTUAL TABLE r USING rtree(id,x,y);", "UPDATE r_node SET data=zeroblob(10);", "INSERT INTO r VALUES(1,2,3);",
}

// hostileText makes up one text: dumps cut into lines, with harmful ones between, and bytes changed.
func hostileText(r *rand.Rand, texts []string) string {
	pick := func() string { return texts[r.IntN(len(texts))] }
	var lines []string
	switch r.IntN(4) {
	case 0:
		lines = strings.SplitAfter(pick(), "\n")
	case 1: // two, interleaved
		a, b := strings.SplitAfter(pick(), "\n"), strings.SplitAfter(pick(), "\n")
		for len(a)+len(b) > 0 {
			if n := min(len(a), 1+r.IntN(6)); len(b) == 0 || n > 0 && r.IntN(2) == 0 {
				lines, a = append(lines, a[:n]...), a[n:]
			} else {
				n := min(len(b), 1+r.IntN(6))
				lines, b = append(lines, b[:n]...), b[n:]
			}
		}
	case 2:
		lines = strings.SplitAfter(dumpOfShell, "\n")
	}
	for range r.IntN(r.IntN(6) + 1) {
		at := r.IntN(len(lines) + 1)
		f := fragments[r.IntN(len(fragments))]
		lines = append(lines[:at:at], append([]string{f + "\n"}, lines[at:]...)...)
	}
	for range r.IntN(r.IntN(3) + 1) {
		if len(lines) > 1 { // lost, doubled, moved
			i, j := r.IntN(len(lines)), r.IntN(len(lines))
			switch r.IntN(3) {
			case 0:
				lines = append(lines[:i:i], lines[i+1:]...)
			case 1:
				lines = append(lines, lines[i])
			case 2:
				lines[i], lines[j] = lines[j], lines[i]
			}
		}
	}
	b := []byte(strings.Join(lines, ""))
	if r.IntN(2) == 0 {
		return string(b)
	}
	for range 1 + r.IntN(4) {
		if len(b) == 0 {
			break
		}
		i := r.IntN(len(b))
		switch r.IntN(6) {
		case 0:
			b[i] ^= 1 << r.IntN(8)
		case 1:
			b[i] = "'\"`[];()-/*\x00 0X\n,"[r.IntN(17)]
		case 2:
			n := min(len(b)-i, 1+r.IntN(30))
			b = append(b[:i:i], b[i+n:]...)
		case 3:
			f := fragments[r.IntN(len(fragments))]
			b = append(b[:i:i], append([]byte(f), b[i:]...)...)
		case 4:
			b = b[:i]
		case 5:
			// The inside of a value changes: shadow tables are full of them.
			if at := bytes.Index(b[i:], []byte("X'")); at >= 0 && i+at+3 < len(b) {
				b[i+at+2] = "0123456789abcdef"[r.IntN(16)]
			}
		}
	}
	return string(b)
}

// hostileFile damages one file.
func hostileFile(r *rand.Rand, files [][]byte) []byte {
	b := bytes.Clone(files[r.IntN(len(files))])
	page := int(binary.BigEndian.Uint16(b[16:]))
	pages := len(b) / page
	for range 1 + r.IntN(4) {
		if len(b) < 200 {
			break
		}
		at := r.IntN(len(b))
		switch r.IntN(12) {
		case 0, 1:
			b[at] ^= 1 << r.IntN(8)
		case 2:
			b[at] = byte(r.IntN(256))
		case 3: // the header
			b[r.IntN(100)] = byte(r.IntN(256))
		case 4: // the head of a page
			p := r.IntN(pages) * page
			if p+12 < len(b) {
				b[p+r.IntN(12)] = byte(r.IntN(256))
			}
		case 5: // a pointer to a cell
			p := r.IntN(pages)*page + 8 + 2*r.IntN(10)
			if p+2 < len(b) {
				binary.BigEndian.PutUint16(b[p:], uint16(r.IntN(page)))
			}
		case 6:
			b = b[:at]
		case 7: // a page in another's place
			i, j := r.IntN(pages)*page, r.IntN(pages)*page
			if max(i, j)+page <= len(b) {
				copy(b[i:i+page], bytes.Clone(b[j:j+page]))
			}
		case 8:
			n := min(len(b)-at, r.IntN(page))
			clear(b[at : at+n])
		case 9: // words of the schema
			words := []string{"CREATE", "TABLE", "INTEGER", "PRIMARY", "fts5", "rtree", "table", "index", "view", "trigger", "UNIQUE", "WITHOUT", "SELECT", "f_data", "r_node", "content"}
			w := []byte(words[r.IntN(len(words))])
			if i := bytes.Index(b[at:], w); i >= 0 {
				o := words[r.IntN(len(words))]
				copy(b[at+i:at+i+len(w)], o)
			}
		case 10:
			n := min(len(b)-at, 1+r.IntN(16))
			for i := range n {
				b[at+i] = byte(r.IntN(256))
			}
		case 11: // a number of several bytes
			p := r.IntN(pages)*page + r.IntN(40)
			if p+4 < len(b) {
				binary.BigEndian.PutUint32(b[p:], uint32(r.IntN(2*pages+2)))
			}
		}
	}
	return b
}
