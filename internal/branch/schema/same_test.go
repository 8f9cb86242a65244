package schema_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/branch/schema"
	"github.com/persqld/persqld/internal/sqlite"
)

// definitions are what the comparison is tried on. Each is made beside the table o(id INTEGER PRIMARY KEY, "a b", c).
var definitions = []string{
	"CREATE TABLE t(a, b INT NOT NULL DEFAULT 5, c TEXT DEFAULT 'x y', PRIMARY KEY(a, b DESC))",
	"CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b VARCHAR ( 10 , 2 ) COLLATE nocase UNIQUE ON CONFLICT REPLACE, CHECK(b > 'a' || \"a\"))",
	"CREATE TABLE \"t\"([a b] REFERENCES o(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, `c``d` AS ([a b] + 1.50) STORED, 'e' DEFAULT -0x1F)",
	"CREATE TABLE t(k TEXT PRIMARY KEY, v BLOB DEFAULT x'00fF') WITHOUT ROWID",
	"CREATE TABLE t(k TEXT, v ANY, CONSTRAINT \"u\" UNIQUE(v), FOREIGN KEY(k) REFERENCES o ON UPDATE SET NULL) STRICT",
	"CREATE TABLE t(key, \"order\" DEFAULT \"key\", d DEFAULT true, e DEFAULT \"true\", f DEFAULT CURRENT_TIMESTAMP, g DEFAULT (1 << 2 <> 3))",
	"CREATE TABLE t(a /* c, */ INT, -- d\n b CHECK(json_extract(b, '$.a') ->> '$' IS NOT 1e5 AND a NOT NULL))",
	"CREATE INDEX i ON o(c COLLATE NOCASE DESC, \"a b\") WHERE c IS NOT NULL AND \"a b\" > 'x'",
	"CREATE UNIQUE INDEX i ON o(lower(c), c || '-' || id)",
	"CREATE VIEW v AS SELECT id, \"a b\" AS x, count(*) OVER (ORDER BY c) AS n FROM o WHERE c LIKE '%''_' UNION ALL SELECT 1, 2, 3",
	"CREATE VIEW v(x, y) AS WITH RECURSIVE r(n) AS (VALUES(1) UNION SELECT n+1 FROM r WHERE n<3) SELECT n, c FROM r NATURAL LEFT JOIN o",
	"CREATE TRIGGER g AFTER UPDATE OF c ON o WHEN new.c <> old.c BEGIN UPDATE o SET \"a b\" = 'x;y' WHERE id = new.id; DELETE FROM o WHERE id < 0; END",
}

const besides = "CREATE TABLE o(id INTEGER PRIMARY KEY, \"a b\", c)"

// program is what SQLite makes of a definition: what it says of its columns, keys and indexes, and the programs that it compiles statements to.
// ok is false for a text that it doesn't take, or that doesn't work.
func program(d *database, o schema.Object) (string, bool) {
	var b strings.Builder
	ask := func(sql string) bool {
		return d.query(sql, func(s *sqlite.Stmt) error {
			for i := range s.Columns() {
				v := s.Column(i)
				if string(s.ColumnName(i)) == "type" {
					v.Bytes = bare(string(v.Bytes))
				}
				fmt.Fprintf(&b, "%d %d %v %q|", v.Kind, v.Int, v.Float, v.Bytes)
			}
			b.WriteByte('\n')
			return nil
		}) == nil
	}
	explain := func(sql string) bool {
		return d.query("EXPLAIN "+sql, func(s *sqlite.Stmt) error {
			for i := 1; i < 6; i++ { // the opcode and its operands
				// A CHECK that fails is named by its text, and so is the statement of a trigger.
				if v := s.Column(i); i < 5 || string(s.Column(1).Bytes) != "Halt" && string(s.Column(1).Bytes) != "Trace" {
					fmt.Fprintf(&b, "%d %q ", v.Int, v.Bytes)
				}
			}
			b.WriteByte('\n')
			return nil
		}) == nil
	}
	on := sqlite.Quote(o.Table)
	if o.Type == "index" || o.Type == "trigger" || o.Type == "table" {
		if !ask("SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo("+quoteText(o.Table)+")") ||
			!ask("SELECT l.name, l.\"unique\", l.origin, l.partial, x.* FROM pragma_index_list("+quoteText(o.Table)+") l, pragma_index_xinfo(l.name) x") ||
			!ask("SELECT * FROM pragma_foreign_key_list("+quoteText(o.Table)+")") {
			return "", false
		}
		sets := d.rows("SELECT group_concat('\"' || replace(name, '\"', '\"\"') || '\"=1') FROM pragma_table_xinfo(" + quoteText(o.Table) + ") WHERE hidden=0")
		ok := explain("INSERT INTO "+on+" DEFAULT VALUES") && explain("UPDATE "+on+" SET "+sets) && explain("DELETE FROM "+on) && explain("SELECT * FROM "+on)
		return b.String(), ok
	}
	return b.String(), explain("SELECT * FROM " + on)
}

// bare is a type without space and comments, which SQLite keeps as they were written.
func bare(typ string) []byte {
	var b []byte
	all, _ := schema.Lex(typ)
	for _, p := range all {
		b = append(b, strings.ToUpper(typ[p.Start:p.End])+" "...)
	}
	return b
}

// makeOne makes a definition in a new database.
func makeOne(t testing.TB, sql string) (o schema.Object, prog string, ok bool) {
	th := sqlite.NewThread()
	defer th.Close()
	conn, err := sqlite.OpenScratch(sqlite.Scratch{}, th)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := &database{t, conn}
	d.must(besides)
	s, n, err := conn.Prepare([]byte(sql), nil)
	if err != nil || s == nil {
		return o, "", false
	}
	creates := n == len(sql) && !s.Explain && len(s.Accesses) > 0
	_, err = s.Step()
	s.Done()
	if err != nil || !creates {
		return o, "", false
	}
	for _, x := range d.objects() {
		if x.Name != "o" && x.SQL != "" {
			o = x
			prog, ok = program(d, x)
			return o, prog, ok
		}
	}
	return o, "", false
}

// redress writes a definition in another way that means the same: other space, comments, letters of keywords, quotes.
func redress(r *rand.Rand, sql string) string {
	all, _ := schema.Lex(sql)
	var b strings.Builder
	for i, p := range all {
		t := sql[p.Start:p.End]
		b.WriteString([]string{" ", "  ", "\n", "/* ' */ ", " --\"\n", "\t"}[r.IntN(6)])
		switch {
		case p.Word && schema.IsKeyword(strings.ToUpper(t)):
			if r.IntN(2) == 0 && t != "key" { // a name in these texts
				t = strings.ToLower(t)
			}
		case p.Word && schema.Plain(t) && r.IntN(3) == 0 && !(i+1 < len(all) && sql[all[i+1].Start] == '('): // "varchar"(10) is another type
			t = []string{`"` + t + `"`, "`" + t + "`", "[" + t + "]"}[r.IntN(3)]
		}
		b.WriteString(t)
	}
	return b.String()
}

func TestSameMeaning(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, sql := range definitions {
		o, prog, ok := makeOne(t, sql)
		if !ok {
			t.Fatalf("SQLite doesn't take %s", sql)
		}
		taken := 0
		for range 200 {
			other := redress(r, sql)
			p, prog2, ok := makeOne(t, other)
			if !ok {
				continue // a name in quotes where no name can stand
			}
			taken++
			if !schema.Same(&o, &p) {
				t.Fatalf("%s\nisn't the same as\n%s\n%s\n%s", o.SQL, p.SQL, schema.Canon(&o), schema.Canon(&p))
			}
			if prog != prog2 {
				t.Fatalf("%s\nand\n%s\nhave other programs:\n%s", o.SQL, p.SQL, difference(prog, prog2))
			}
		}
		if taken < 20 {
			t.Errorf("only %d of 200 were taken of %s", taken, sql)
		}
		// What one byte more or less makes another thing must be told from it.
		for i := range sql {
			for _, other := range []string{sql[:i] + sql[i+1:], sql[:i] + "x" + sql[i:], sql[:i] + "\"" + sql[i:], sql[:i] + " " + sql[i:], sql[:i] + "1" + sql[i+1:], sql[:i] + "'" + sql[i+1:]} {
				mustDiffer(t, o, prog, other)
			}
		}
	}
}

// difference is the first line that two texts don't have in common.
func difference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return x[i] + "\n" + y[i]
		}
	}
	return "one is longer"
}

// mustDiffer fails if another definition that means something else is taken for the same.
func mustDiffer(t testing.TB, o schema.Object, prog, other string) {
	p, prog2, ok := makeOne(t, other)
	if ok && schema.Same(&o, &p) && prog != prog2 {
		t.Fatalf("%s\nis taken for\n%s\nprograms:\n%s", p.SQL, o.SQL, difference(prog, prog2))
	}
}

// FuzzSame replaces a part of a definition by another. If both are taken for the same, SQLite must make the same programs of them.
func FuzzSame(f *testing.F) {
	for _, sql := range definitions {
		f.Add(sql, 12, 1, "\"a\"")
		f.Add(sql, 20, 0, " /**/ ")
	}
	f.Fuzz(func(t *testing.T, sql string, at, n int, with string) {
		if len(sql) > 2000 || len(with) > 200 {
			return
		}
		o, prog, ok := makeOne(t, sql)
		if !ok {
			return
		}
		at = min(max(at, 0), len(sql))
		end := min(max(at+n, at), len(sql))
		mustDiffer(t, o, prog, sql[:at]+with+sql[end:])
	})
}

func TestSame(t *testing.T) {
	for _, c := range []struct {
		typ, a, b string
		same      bool
	}{
		{"table", "CREATE TABLE t(a)", "CREATE TABLE T(a)", false},
		{"table", "CREATE TABLE t(a)", "create temp table if not exists main . \"t\" ( [a] ) -- x", true},
		{"table", "CREATE TABLE t(a, b)", "CREATE TABLE t(b, a)", false},
		{"table", "CREATE TABLE t(a INT)", "CREATE TABLE t(a INTEGER)", false},
		{"table", "CREATE TABLE t(a DEFAULT 'x')", "CREATE TABLE t(a DEFAULT 'X')", false},
		{"table", "CREATE TABLE t(a DEFAULT 'x')", "CREATE TABLE t(a DEFAULT \"x\")", false},
		{"table", "CREATE TABLE t(a DEFAULT x)", "CREATE TABLE t(a DEFAULT \"x\")", true},
		{"table", "CREATE TABLE t(a DEFAULT null)", "CREATE TABLE t(a DEFAULT \"null\")", false},
		{"table", "CREATE TABLE t(a DEFAULT x'AB')", "CREATE TABLE t(a DEFAULT X'ab')", true},
		{"table", "CREATE TABLE t(a) STRICT", "CREATE TABLE t(a)", false},
		{"table", "CREATE TABLE t(a, \"b\" INT)", "CREATE TABLE t(a, b INT)", true},
		{"table", "CREATE TABLE t(a \"varchar\")", "CREATE TABLE t(a VarChar)", true},
		{"table", "CREATE TABLE t(a \"varchar\"(10))", "CREATE TABLE t(a varchar(10))", false},
		{"table", "CREATE TABLE t(\"a b\")", "CREATE TABLE t(a b)", false},
		{"table", "CREATE TABLE t(\"key\")", "CREATE TABLE t(key)", true},
		{"table", "CREATE TABLE t(\"KEY\")", "CREATE TABLE t(key)", false},
		{"index", "CREATE INDEX i ON t(a)", "CREATE UNIQUE INDEX i ON t(a)", false},
		{"index", "CREATE INDEX i ON t(a)", "CREATE INDEX i ON t(a ASC)", false},
		{"view", "CREATE VIEW v AS SELECT 1--2\n+3", "CREATE VIEW v AS SELECT 1 +3", true},
		{"view", "CREATE VIEW v AS SELECT a->'b'", "CREATE VIEW v AS SELECT a->>'b'", false},
		{"view", "CREATE VIEW v AS SELECT 1 . 5", "CREATE VIEW v AS SELECT 1.5", false},
		{"view", "CREATE VIEW v AS SELECT 1e+5", "CREATE VIEW v AS SELECT 1e + 5", false},
		{"view", "CREATE VIEW v AS SELECT a FROM b natural JOIN c", "CREATE VIEW v AS SELECT a FROM b \"natural\" JOIN c", false},
	} {
		a, b := schema.Object{Type: c.typ, Name: "t", Table: "t", SQL: c.a}, schema.Object{Type: c.typ, Name: "t", Table: "t", SQL: c.b}
		if got := schema.Same(&a, &b); got != c.same {
			t.Errorf("%s\n%s\nsame: %t\n%s\n%s", c.a, c.b, got, schema.Canon(&a), schema.Canon(&b))
		}
	}
}

// TestKeywords asks SQLite whether a word that isn't in the list of keywords can be a name everywhere.
func TestKeywords(t *testing.T) {
	words := strings.Fields("STRICT STORED ROWID TRUE FALSE ANY PERCENT WITHIN ORDINALITY LATERAL QUALIFY MERGE TABLESAMPLE CONCURRENTLY OFF AUTOINCR FUNCTION OVERLAPS SYMMETRIC")
	d := openMemory(t)
	for _, w := range words {
		if err := d.exec("SELECT " + w + " FROM (SELECT 1 AS " + w + ")"); err != nil && !schema.IsKeyword(w) {
			t.Errorf("%s is a keyword that the list hasn't got: %v", w, err)
		}
	}
}
