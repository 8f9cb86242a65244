package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

func TestBadBodies(t *testing.T) {
	row(t, "DP-S-1", "DP-ENV-5")
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	deep := strings.Repeat("[", 100_000)
	notJSON := []string{
		"", " ", "{", "}", "[", `{"sql"`, `{"sql":`, `{"sql":"SELECT 1"`, `{"sql":"SELECT 1"}}`, `{"sql":"SELECT 1"} x`, `{'sql':'SELECT 1'}`, `{sql:"SELECT 1"}`,
		`{"sql":"SELECT 1",}`, `{"sql":"SELECT 1" "params":[]}`, `{"sql":"SELECT ?","params":[NaN]}`, `{"sql":"SELECT ?","params":[Infinity]}`, `{"sql":"SELECT ?","params":[01]}`,
		`{"sql":"SELECT ?","params":[1.]}`, `{"sql":"SELECT ?","params":[.5]}`, `{"sql":"SELECT ?","params":[+1]}`, `{"sql":"SELECT ?","params":[0x10]}`, `{"sql":"SELECT ?","params":[1,]}`,
		"{\"sql\":\"SELECT\n1\"}", `{"sql":"\x41"}`, `{"sql":"\u12"}`, "\ufeff{\"sql\":\"SELECT 1\"}", "// c\n{}", "sql=SELECT+1", "<xml/>", "\x00", "\xff\xfe", deep,
		`{"sql":"SELECT 1","params":` + deep, `{"sql":"SELECT 1","x":` + strings.Repeat(`{"a":`, 50_000), `{"sql":"SELECT 1","x":` + deep + strings.Repeat("]", 100_000) + `}`,
	}
	for _, call := range []string{"query", "batch", "validate", "explain"} {
		for _, raw := range notJSON {
			d.Post(d.Path(call), harness.Raw(raw)).Fails(http.StatusBadRequest, "bad_json")
		}
	}
	for _, raw := range []string{
		"null", "[]", "5", "true", `"SELECT 1"`, "{}", `{"params":[]}`, `{"SQL":"SELECT 1"}`, `{"sql":null}`, `{"sql":5}`, `{"sql":true}`, `{"sql":["SELECT 1"]}`, `{"sql":{"text":"SELECT 1"}}`,
		`{"sql":"SELECT 1","params":"x"}`, `{"sql":"SELECT 1","params":5}`, `{"sql":"SELECT 1","params":true}`, `{"sql":"SELECT :a","params":{"":1}}`,
	} {
		for _, call := range []string{"query", "validate", "explain"} {
			d.Post(d.Path(call), harness.Raw(raw)).Fails(http.StatusBadRequest, "bad_request")
		}
		d.Post(d.Path("batch"), harness.Raw(`{"statements":[{"sql":"INSERT INTO t VALUES(1)"},`+raw+`]}`)).Fails(http.StatusBadRequest, "bad_request")
	}
	for _, raw := range []string{
		"null", "[]", "{}", `{"statements":null}`, `{"statements":"x"}`, `{"statements":{}}`, `{"statements":5}`, `{"statements":[]}`, `{"statements":["SELECT 1"]}`, `{"statements":[null]}`, `{"statements":[[]]}`,
		`{"statements":[{"sql":"SELECT 1"}],"transaction":"yes"}`, `{"statements":[{"sql":"SELECT 1"}],"transaction":1}`, `{"statements":[{"sql":"SELECT 1"}],"transaction":[]}`,
	} {
		d.Post(d.Path("batch"), harness.Raw(raw)).Fails(http.StatusBadRequest, "bad_request")
	}
	if got := d.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("a refused body left %s rows", got)
	}

	// What encoding/json takes is taken.
	for _, raw := range []string{
		" \n\t{ \"sql\" : \"SELECT 1\" } \r\n", `{"sql":"SELECT 2","sql":"SELECT 1"}`, `{"x":{"y":[1,2,{}]},"sql":"SELECT 1","z":null}`, `{"sq\u006c":"SELECT\u00201"}`,
		`{"sql":"SELECT 1","params":null,"transaction":"of no meaning here"}`,
	} {
		rowsAre(t, d.Post(d.Path("query"), harness.Raw(raw)), "[[1]]")
	}
	d.Post(d.Path("query"), harness.Raw("{\"sql\":\"SELECT '\xff'\"}")).OK().Is("data.rows.0.0", "\ufffd")
}

func TestBadParameters(t *testing.T) {
	row(t, "DP-S-1", "DP-ENV-5")
	d := db(t)
	c := d.Client
	for _, q := range []string{"/v1/databases?pageSize=%zz", "/v1/databases?page=;", d.Path("search?q=%zz"), d.Path("query-log?limit=1e3"), d.Path("query-log?limit=99999999999999999999"), d.Path("describe?format=%00")} {
		if a := c.Get(q); a.Status != http.StatusOK && a.Status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", q, a.Status, a.Raw)
		}
	}
	for _, b := range []any{body{"slug": []int{1}}, body{"slug": nil, "name": nil}, body{"name": 5}, harness.Raw("{"), harness.Raw("[]"), body{"slug": "ok-" + unused(), "region": 7}} {
		c.Post("/v1/databases", b).Fails(http.StatusBadRequest, "")
	}
}

func TestBodiesAtRandom(t *testing.T) {
	row(t, "DP-ENV-5")
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	random := rand.New(rand.NewPCG(7, 8))
	seeds := []string{
		`{"sql":"SELECT ?, :a","params":[1,"x",null,true,{"$blob":"AAAA"},1.5e3]}`,
		`{"statements":[{"sql":"INSERT INTO t VALUES(?)","params":[1]},{"sql":"SELECT * FROM t"}],"transaction":true}`,
	}
	pieces := []string{"{", "}", "[", "]", ",", ":", `"`, "\\", "null", "1e400", "-", `{"$blob":`, "\x00", "\xff", `\ud800`, "9223372036854775808", "SELECT", "'", ";", "BEGIN", "--", "?", "PRAGMA"}
	for range 600 {
		b := []byte(seeds[random.IntN(len(seeds))])
		for range 1 + random.IntN(4) {
			at := random.IntN(len(b))
			switch random.IntN(3) {
			case 0:
				b = append(b[:at:at], b[min(len(b), at+1+random.IntN(8)):]...)
			case 1:
				b = append(b[:at:at], append([]byte(pieces[random.IntN(len(pieces))]), b[at:]...)...)
			default:
				b[at] = byte(random.UintN(256))
			}
			if len(b) == 0 {
				b = []byte("x")
			}
		}
		for _, call := range []string{"query", "batch"} { // the client checks the answer
			if a := d.Post(d.Path(call), harness.Raw(b)); a.Status != http.StatusOK && a.Status != http.StatusBadRequest && a.Status != http.StatusForbidden {
				t.Errorf("%s: %d %s", a.What, a.Status, a.Raw)
			}
		}
	}
	d.Must("SELECT count(*) FROM t")
}

func TestSQLThatHurts(t *testing.T) {
	row(t, "DP-ENV-5")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_STATEMENT_TIMEOUT=500ms"}})
	d := newDB(t, s.Client(t, harness.Token))
	d.Must("CREATE TABLE t(a, b)")
	for _, sql := range []string{
		"SELECT printf('%.*c', 2000000000, 'x')", "SELECT printf('%2000000000d', 1)", "SELECT hex(zeroblob(1000000000))", "SELECT randomblob(1000000000)", "SELECT zeroblob(-1)",
		"SELECT group_concat(hex(zeroblob(1000000))) FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c LIMIT 100)",
		"WITH RECURSIVE c(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM c) SELECT length(s) FROM c",
		"SELECT json_extract('" + strings.Repeat("[", 2000) + "', '$')", "SELECT json('" + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + "')",
		"SELECT " + strings.Repeat("(", 5000) + "1" + strings.Repeat(")", 5000), "SELECT " + strings.Repeat("-", 2001) + "1", "SELECT " + strings.Repeat("NOT ", 3000) + "1",
		"SELECT 1 WHERE 1 IN (" + strings.Repeat("(SELECT ", 300) + "1" + strings.Repeat(")", 301),
		"SELECT * FROM " + strings.Repeat("(SELECT * FROM ", 200) + "t" + strings.Repeat(")", 200), "SELECT * FROM t" + strings.Repeat(" JOIN t", 80),
		"CREATE TABLE t2 AS SELECT * FROM t2", "CREATE VIEW v AS SELECT * FROM v", "SELECT * FROM v", "CREATE VIEW v1 AS SELECT * FROM v2", "CREATE VIEW v2 AS SELECT * FROM v1", "SELECT * FROM v1",
		"CREATE TRIGGER loop AFTER INSERT ON t BEGIN INSERT INTO t VALUES(1, 2); END", "INSERT INTO t VALUES(1, 2)",
		"SELECT 'a' LIKE '" + strings.Repeat("%a", 4000) + "'", "SELECT regexp('a', 'b')", "SELECT 'x' REGEXP 'x'", "SELECT 'a' MATCH 'b'", "SELECT 1 COLLATE nocollation",
		"SELECT strftime('%s', 9e999)", "SELECT CAST('9e999' AS INTEGER)", "SELECT 1 << 9223372036854775807", "SELECT -9223372036854775808 / -1", "SELECT -9223372036854775808 % -1", "SELECT substr('x', -9223372036854775808, 9223372036854775807)",
		"VALUES(1),(2,3)", "SELECT * FROM json_each('not json')", "SELECT * FROM json_tree('[[[[[1]]]]]', '$[')", "SELECT sqlite_source_id(), sqlite_version()", "SELECT changes(), total_changes(), last_insert_rowid()",
		"CREATE VIRTUAL TABLE x USING nomodule", "CREATE VIRTUAL TABLE x USING fts5(a, tokenize='none such')", "CREATE TABLE \"\"(a)", "CREATE TABLE x(\"\")", "SELECT \"\" FROM t", "EXPLAIN SELECT 1", "\ufeffSELECT 1", "SELECT\u00a01", "SELECT 'x' -- \x00", "\x00SELECT 1",
	} {
		d.Query(sql) // the client checks the answer: no 5xx, in JSON, nothing leaks
		d.Batch(true, sql)
	}
	d.Must("SELECT 1")
	if got := d.One("PRAGMA integrity_check"); got != "ok" {
		t.Errorf("integrity_check: %s", got)
	}
	rowsAre(t, d.Query("SELECT changes(), total_changes(), last_insert_rowid()"), "[[0,0,0]]")
}

func TestManyWrongNames(t *testing.T) {
	row(t, "DP-ENV-5")
	d := db(t)
	for _, name := range []string{"日本", "a b", "Robert'); DROP TABLE students;--", strings.Repeat("x", 10_000), "\u202e", "'", `\`} {
		d.Query(fmt.Sprintf(`SELECT "%s" FROM [%s]`, strings.ReplaceAll(name, `"`, `""`), name)).Fails(http.StatusBadRequest, "")
		d.Query(fmt.Sprintf(`SELECT * FROM "%s"`, strings.ReplaceAll(name, `"`, `""`))).Fails(http.StatusBadRequest, "").Kind("unknown_table")
	}
}
