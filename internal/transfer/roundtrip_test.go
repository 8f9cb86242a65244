package transfer_test

import (
	"path/filepath"
	"testing"
)

// shapes are databases that hold every shape which a dump has to carry.
var shapes = []struct {
	name    string
	foreign bool // Debian's shell writes a text of it that is whole
	sql     []string
}{
	{"values", true, []string{
		"CREATE TABLE v(a, b TEXT, c INTEGER, d REAL, e BLOB, f NUMERIC)",
		"INSERT INTO v(a) VALUES(NULL),(0),(1),(-1),(9223372036854775807),(-9223372036854775808)",
		"INSERT INTO v(a) VALUES(-0.0),(0.0),(1e999),(-1e999),(0.1),(1.0),(1e15),(1e16),(9007199254740993.0),(1.7976931348623157e308),(-123.456)",
		"INSERT INTO v(d) VALUES(1),(2.5),(1e300),(-1e999),(9223372036854775807)",
		"INSERT INTO v(a) VALUES(2.19179203834392),(7.37946363770308),(0.00735133648597345),(255695562.655607),(3.53998367043528e-05)",
		"INSERT INTO v(a) VALUES(''),('a'),('it''s'),('\"'),('a'||char(0)||'b'),(char(0)),('x'||char(10)||'y'||char(10)),(char(13)),('a'||char(13,10)||'b'),('\\r'||char(13)),('\\n'),(char(9,8,7,27)),(char(0xfeff)||'bom'),('€𝄞')",
		"INSERT INTO v(b) VALUES(CAST(x'ff' AS TEXT)),(CAST(x'41c328' AS TEXT)),(CAST(x'eda080' AS TEXT)),(CAST(x'f8888080' AS TEXT)),('1e999'),('0x1'),('-- ;'),('/*'),(';'),(char(10)||'.quit'||char(10)||'/'||char(10)||'go'||char(10))",
		"INSERT INTO v(e) VALUES(x''),(x'00'),(x'27'),(zeroblob(5000)),(randomblob(70000))",
		"INSERT INTO v(f) VALUES('12'),('12x'),(x'3132'),('1.50'),(' 7 ')",
	}},
	{"tables", true, []string{
		"CREATE TABLE empty(a)",
		"CREATE TABLE k(id INTEGER PRIMARY KEY, a)", "INSERT INTO k VALUES(-9223372036854775808,1),(-1,2),(0,3),(7,4),(9223372036854775807,5)",
		"CREATE TABLE plain(a)", "INSERT INTO plain(rowid,a) VALUES(1,'a'),(2,'b'),(5,'c'),(6,'d'),(9223372036854775807,'e')",
		"CREATE TABLE early(a)", "INSERT INTO early(rowid,a) VALUES(-5,'a'),(-4,'b'),(0,'c'),(1,'d')",
		"CREATE TABLE two(rowid TEXT, a)", "INSERT INTO two(_rowid_,rowid,a) VALUES(3,'r',1),(9,'s',2)",
		"CREATE TABLE norowid(rowid, _rowid_, oid)", "INSERT INTO norowid VALUES(1,2,3)",
		"CREATE TABLE w(a TEXT, b, PRIMARY KEY(b, a)) WITHOUT ROWID", "INSERT INTO w VALUES('x',2),('y',1),('z',3.5)",
		"CREATE TABLE st(a INTEGER, b TEXT, c ANY, d REAL) STRICT", "INSERT INTO st VALUES(1,'x','007',2)", "INSERT INTO st(c) VALUES(7),(x'00')",
		"CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, a)", "INSERT INTO auto(a) VALUES(1),(2),(3)", "DELETE FROM auto WHERE id=3",
		"CREATE TABLE auto2(id INTEGER PRIMARY KEY AUTOINCREMENT)",
		"CREATE TABLE g(a INTEGER, b AS (a*2), c TEXT AS (a||'!') STORED, d)", "INSERT INTO g(a,d) VALUES(1,2),(3,4)",
		"CREATE TABLE dflt(a DEFAULT 'x;y', b DEFAULT (1+1), c CHECK(c<>';') -- a comment; with one\n, d COLLATE NOCASE UNIQUE)", "INSERT INTO dflt(c,d) VALUES('c','D')",
		"CREATE TABLE desc(id INTEGER PRIMARY KEY DESC, a)", "INSERT INTO desc VALUES(5,1),(2,2)",
	}},
	{"names", true, []string{
		"CREATE TABLE \"select \"\" ' x\" (\"from\", \"a\nb\", \"\", \"a;b\", \"ünï\" DEFAULT 1)",
		`INSERT INTO "select "" ' x" VALUES(1,2,3,4,5)`,
		`CREATE TABLE ""(a)`, `INSERT INTO "" VALUES(1)`,
		`CREATE TABLE "日本 🎌"(x)`, `INSERT INTO "日本 🎌" VALUES('é')`,
		`CREATE TABLE "a--b"(x)`, `CREATE TABLE "a/*b"(x)`, `CREATE TABLE 'quoted'(x)`, `INSERT INTO quoted VALUES(1)`,
		`CREATE INDEX "i;x" ON "a--b"(x)`, `CREATE VIEW "v ""w" AS SELECT x AS "'" FROM "a/*b"`,
	}},
	{"objects", true, []string{
		"CREATE TABLE t(a, b, c)", "CREATE TABLE log(x)",
		"CREATE TRIGGER g1 AFTER INSERT ON t BEGIN INSERT INTO log VALUES(new.a||';'); UPDATE t SET b=CASE WHEN new.a THEN 1 END; END",
		"CREATE TRIGGER g2 BEFORE UPDATE OF a ON t WHEN new.a<>';' BEGIN SELECT 1; END",
		"INSERT INTO t(a) VALUES('one'),('two')",
		"CREATE INDEX i1 ON t(a)", "CREATE UNIQUE INDEX i2 ON t(a, lower(b)) WHERE a IS NOT NULL",
		"CREATE VIEW v AS SELECT a, count(*) AS n FROM t GROUP BY a -- the end; of it\n",
		"CREATE VIEW v2 AS SELECT 1 /* it ends here */",
		"CREATE VIEW broken AS SELECT * FROM nowhere",
		"CREATE TRIGGER g3 INSTEAD OF INSERT ON v BEGIN INSERT INTO log VALUES(new.a); END",
	}},
	{"statistics", false, []string{
		"CREATE TABLE t(a, b, c)", "INSERT INTO t VALUES(1,2,3),(1,3,4),(2,2,2)", "CREATE INDEX i ON t(a, b)", "ANALYZE",
		"PRAGMA user_version=7", "PRAGMA application_id=-5",
	}},
	{"extreme reals", false, []string{
		"CREATE TABLE v(a)", "INSERT INTO v VALUES(5e-324),(1.5e-323),(2.2250738585072014e-308),(2.2250738585072009e-308),(1.7976931348623155e308),(-4.4501477170144023e-308)",
		"WITH RECURSIVE n(i,x) AS (SELECT 1, 1.2345678901234567e-320 UNION ALL SELECT i+1, x*7.77777 FROM n WHERE i<700) INSERT INTO v SELECT x FROM n",
	}},
	{"foreign keys", true, []string{
		"CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent(id) ON DELETE CASCADE)",
		"CREATE TABLE parent(id INTEGER PRIMARY KEY, c REFERENCES child(id))",
		"INSERT INTO child VALUES(1,2)", "INSERT INTO parent VALUES(2,1)",
		"CREATE TABLE odd(a REFERENCES t3(b))", "CREATE TABLE t3(b)",
	}},
	{"fts5", true, []string{
		"CREATE VIRTUAL TABLE f USING fts5(title, body)", "INSERT INTO f VALUES('hello world','the quick brown fox'),('it''s','a;b')", "DELETE FROM f WHERE rowid=1",
		"INSERT INTO f(rowid,title) VALUES(99,'later')", "INSERT INTO f(f,rank) VALUES('rank','bm25(2.0)')",
		"CREATE VIRTUAL TABLE fc USING fts5(a, content='', tokenize='porter')", "INSERT INTO fc(rowid,a) VALUES(5,'running')",
		"CREATE TABLE doc(a, b)", "INSERT INTO doc(rowid,a,b) VALUES(3,'x y','1'),(8,'y z','2')",
		"CREATE VIRTUAL TABLE fe USING fts5(a, content='doc', prefix='2 3')", "INSERT INTO fe(fe) VALUES('rebuild')",
		"CREATE VIRTUAL TABLE fn USING fts5(a, columnsize=0, detail=none)", "INSERT INTO fn VALUES('one two')",
		"CREATE VIRTUAL TABLE fv USING fts5vocab(f, 'row')",
		"CREATE VIRTUAL TABLE \"f \"\"' q\" USING fts5(\"a b\")", "INSERT INTO \"f \"\"' q\" VALUES('quoted')",
		"CREATE TRIGGER dg AFTER INSERT ON doc BEGIN INSERT INTO fe(rowid,a) VALUES(new.rowid,new.a); END",
	}},
	{"vacuumed", true, []string{
		"CREATE VIRTUAL TABLE f USING fts5(title)", "INSERT INTO f VALUES('hello world')",
		"CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, +note)", "INSERT INTO r VALUES(1,2,3,'n')",
		"CREATE TABLE f_extra(a)", "INSERT INTO f_extra VALUES(1)",
	}},
	{"contentless delete", false, []string{
		"CREATE VIRTUAL TABLE fd USING fts5(a, content='', contentless_delete=1)", "INSERT INTO fd(rowid,a) VALUES(1,'one'),(2,'two')", "DELETE FROM fd WHERE rowid=1",
	}},
	{"rtree", true, []string{
		"CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1, +label)", "INSERT INTO r SELECT value, value, value+1, -value, value*2, 'l'||value FROM json_each('[1,2,3,4,5,6,7,8,9,10]')",
		"WITH RECURSIVE n(i) AS (SELECT 11 UNION ALL SELECT i+1 FROM n WHERE i<500) INSERT INTO r SELECT i, i, i+1, -i, i*2, 'x' FROM n",
		"CREATE VIRTUAL TABLE ri USING rtree_i32(id, a, b)", "INSERT INTO ri VALUES(1,-5,5)",
	}},
	{"geopoly", false, []string{
		"CREATE VIRTUAL TABLE geo USING geopoly(name)", "INSERT INTO geo(_shape,name) VALUES('[[0,0],[1,0],[1,1],[0,0]]','triangle')",
	}},
	{"dropped counters", true, []string{
		"CREATE TABLE gone(id INTEGER PRIMARY KEY AUTOINCREMENT)", "DROP TABLE gone", "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)",
	}},
}

// build makes the database of a shape.
func build(t testing.TB, name string, sql []string) string {
	path := fresh(t)
	edit(t, path, sql...)
	if name == "vacuumed" {
		fresh := path + "-v"
		if err := vacuum(path, fresh); err != nil {
			t.Fatal(err)
		}
		return fresh
	}
	return path
}

func TestDumpLoads(t *testing.T) {
	for _, tt := range shapes {
		t.Run(tt.name, func(t *testing.T) {
			path := build(t, tt.name, tt.sql)
			want := content(t, path)
			edit(t, path)
			text := dump(t, path)
			got := fresh(t)
			load(t, got, text)
			integrity(t, got)
			same(t, "the database read back", content(t, got), want)
			// And what is written of it is the same text.
			same(t, "the second text", dump(t, got), text)
		})
	}
}

func TestShellReadsDump(t *testing.T) {
	for _, tt := range shapes {
		t.Run(tt.name, func(t *testing.T) {
			path := build(t, tt.name, tt.sql)
			want := content(t, path)
			edit(t, path)
			text := dump(t, path)
			got := filepath.Join(t.TempDir(), "shell.db")
			shell(t, got, text)
			same(t, "what the shell read", content(t, got), want)
			integrity(t, got)
		})
	}
}

func TestShellDumpLoads(t *testing.T) {
	for _, tt := range shapes {
		if !tt.foreign {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			path := build(t, tt.name, tt.sql)
			edit(t, path)
			text := shell(t, path, "", ".dump --preserve-rowids")
			// The shell's text is not exact: what counts is that we read it as the shell does.
			want := filepath.Join(t.TempDir(), "shell.db")
			if tt.name == "dropped counters" {
				want = path // the shell can't read its own text
			} else {
				shell(t, want, text)
			}
			got := fresh(t)
			load(t, got, text)
			integrity(t, got)
			same(t, "the shell's dump read by us", content(t, got), content(t, want))
		})
	}
}
