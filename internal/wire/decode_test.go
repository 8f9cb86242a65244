package wire_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/wire"
)

func integer(n int64) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Integer, Int: n}}
}

func float(f float64) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Real, Float: f}}
}

func text(s string) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Text, Bytes: []byte(s)}}
}

func blob(b ...byte) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Blob, Bytes: append([]byte{}, b...)}}
}

func named(name string, p sqlite.Param) sqlite.Param {
	p.Name = name
	return p
}

// wireError returns the *wire.Error in err, which must be one.
func wireError(t testing.TB, err error) *wire.Error {
	t.Helper()
	e, ok := errors.AsType[*wire.Error](err)
	if !ok {
		t.Fatalf("error is %v (%T), want a *wire.Error", err, err)
	}
	return e
}

func TestDecodeQueryParams(t *testing.T) {
	tests := []struct {
		params string
		want   []sqlite.Param
	}{
		{`null`, nil},
		{`[]`, nil},
		{`{}`, nil},
		{`[null, true, false]`, []sqlite.Param{{}, integer(1), integer(0)}},
		{`[0, -0, 7, -7]`, []sqlite.Param{integer(0), integer(0), integer(7), integer(-7)}},
		{`[9223372036854775807, -9223372036854775808]`, []sqlite.Param{integer(math.MaxInt64), integer(math.MinInt64)}},
		{`[1.0, -0.0, 1e0, 1E+2, 5e-324]`,
			[]sqlite.Param{float(1), float(math.Copysign(0, -1)), float(1), float(100), float(5e-324)}},
		{`[9e999, -9e999, 1e-999]`, []sqlite.Param{float(math.Inf(1)), float(math.Inf(-1)), float(0)}},
		{`[0.1000000000000000055511151231257827021181583404541015625]`, []sqlite.Param{float(0.1)}},
		{`["", "Ada", "é", "a\"b\\c\/d\b\f\n\r\t"]`,
			[]sqlite.Param{text(""), text("Ada"), text("é"), text("a\"b\\c/d\b\f\n\r\t")}},
		{`["\u0041\u00e9\u6771\ud83e\udd80\u0000"]`, []sqlite.Param{text("Aé東🦀\x00")}},
		{`["\ud83e", "\ud83ex", "\udd80\ud83e", "\ud83e\u0041", "\ud83e\ud83e\udd80"]`,
			[]sqlite.Param{text("\ufffd"), text("\ufffdx"), text("\ufffd\ufffd"), text("\ufffdA"), text("\ufffd🦀")}},
		{"[\"\xff\xfe\", \"\xe2\x82\\n\"]", []sqlite.Param{text("\ufffd\ufffd"), text("\ufffd\ufffd\n")}},
		{`[{"$blob":""}, {"$blob":"+/8A"}, {"$blob":"-_8A"}]`, []sqlite.Param{blob(), blob(0xfb, 0xff, 0), blob(0xfb, 0xff, 0)}},
		{`[{"$blob":"AQ=="}, {"$blob":"AQ"}, {"$blob":"-w=="}, {"$blob":"-w"}]`,
			[]sqlite.Param{blob(1), blob(1), blob(0xfb), blob(0xfb)}},
		{`[ { "\u0024blob" : "+\/8A" } ]`, []sqlite.Param{blob(0xfb, 0xff, 0)}},
		{`[{"$blob":"AQ==","$blob":"Ag=="}]`, []sqlite.Param{blob(2)}},
		{`{"a":1, ":b":"x", "@c":null, "$d":1.5}`,
			[]sqlite.Param{named("a", integer(1)), named(":b", text("x")), {Name: "@c"}, named("$d", float(1.5))}},
		{`{"a":1, "b":2, "a":3}`, []sqlite.Param{named("a", integer(3)), named("b", integer(2))}},
		{`{"\u0061":1, "a":"last"}`, []sqlite.Param{named("a", text("last"))}},
		{`{"$blob":"AQ=="}`, []sqlite.Param{named("$blob", text("AQ=="))}},
	}
	var q wire.Query
	for _, tt := range tests {
		body := `{"sql":"SELECT 1","params":` + tt.params + `}`
		if err := wire.DecodeQuery([]byte(body), wire.Limits{}, &q); err != nil {
			t.Errorf("params %s: %v", tt.params, err)
			continue
		}
		if string(q.SQL) != "SELECT 1" {
			t.Errorf("params %s: sql is %q", tt.params, q.SQL)
		}
		if got := fmt.Sprintf("%#v", normal(q.Params)); got != fmt.Sprintf("%#v", normal(tt.want)) {
			t.Errorf("params %s:\n got %s\nwant %#v", tt.params, got, normal(tt.want))
		}
	}
}

func TestDecodeQueryShape(t *testing.T) {
	tests := []struct {
		body, sql string
		params    int
	}{
		{`{"sql":"SELECT 1"}`, "SELECT 1", 0},
		{"\t{ \"sql\"\r\n: \"SELECT 1\" } \n", "SELECT 1", 0},
		{`{"params":[1],"sql":"SELECT ?"}`, "SELECT ?", 1},
		{`{"sql":"old","params":[1,2],"sql":"new","params":[3]}`, "new", 1},
		{`{"\u0073ql":"SELECT 1"}`, "SELECT 1", 0},
		{`{"sql":"SELECT '\u00e9'","other":{"sql":[1,{"a":null}],"x":-1.5e3},"SQL":7}`, "SELECT 'é'", 0},
		{`{"sql":""}`, "", 0},
		{`{"sql":"SELECT 1\u0000 garbage"}`, "SELECT 1\x00 garbage", 0},
		{"{\"sql\":\"SELECT '\xff'\"}", "SELECT '\ufffd'", 0},
	}
	var q wire.Query
	for _, tt := range tests {
		before := strings.Clone(tt.body)
		if err := wire.DecodeQuery([]byte(tt.body), wire.Limits{}, &q); err != nil {
			t.Errorf("%s: %v", tt.body, err)
			continue
		}
		if string(q.SQL) != tt.sql || len(q.Params) != tt.params {
			t.Errorf("%s: got %q with %d parameters, want %q with %d", tt.body, q.SQL, len(q.Params), tt.sql, tt.params)
		}
		if tt.body != before {
			t.Errorf("%s: the body was changed", before)
		}
	}
}

func TestDecodeQueryErrors(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	tests := []struct{ body, code, message string }{
		{``, wire.CodeBadJSON, "the request has no body"},
		{" \n", wire.CodeBadJSON, "the request has no body"},
		{`null`, wire.CodeBadRequest, "not a JSON object"},
		{`[]`, wire.CodeBadRequest, "not a JSON object"},
		{`sql=SELECT`, wire.CodeBadJSON, "found 's' at byte 0"},
		{"\ufeff{}", wire.CodeBadJSON, "at byte 0"},
		{"\x00", wire.CodeBadJSON, `'\x00'`},
		{"\xff", wire.CodeBadJSON, `byte 0xff`},
		{`{`, wire.CodeBadJSON, "it ends where a name"},
		{`{"sql"`, wire.CodeBadJSON, `it ends where ":"`},
		{`{"sql":"SELECT`, wire.CodeBadJSON, "closing quote"},
		{`{"sql":"SELECT 1"`, wire.CodeBadJSON, `it ends where "," or '}'`},
		{`{"sql":"SELECT 1",}`, wire.CodeBadJSON, "found '}' at byte 18"},
		{`{"sql":"SELECT 1"}}`, wire.CodeBadJSON, "where nothing more"},
		{`{"sql":"SELECT 1"} {"sql":""}`, wire.CodeBadJSON, "where nothing more"},
		{`{'sql':1}`, wire.CodeBadJSON, "a name in quotes"},
		{"{\"sql\":\"a\nb\"}", wire.CodeBadJSON, "control character 0x0a in the string at byte 9"},
		{`{"sql":"a\xb"}`, wire.CodeBadJSON, "invalid escape sequence in the string at byte 9"},
		{`{"sql":"a\u12g4"}`, wire.CodeBadJSON, "invalid escape"},
		{`{"sql":"\`, wire.CodeBadJSON, "invalid escape"},
		{`{}`, wire.CodeBadRequest, "sql is missing"},
		{`{"SQL":"SELECT 1"}`, wire.CodeBadRequest, "sql is missing"},
		{`{"sql":1}`, wire.CodeBadRequest, "sql is not a string"},
		{`{"sql":null}`, wire.CodeBadRequest, "sql is not a string"},
		{`{"sql":"","params":"x"}`, wire.CodeBadRequest, "params is neither"},
		{`{"sql":"","params":{"":1}}`, wire.CodeBadRequest, "name in params is empty"},
		{`{"sql":"","params":[1,[2]]}`, wire.CodeTypeMismatch, "parameter 2 is an array"},
		{`{"sql":"","params":[{"a":1}]}`, wire.CodeTypeMismatch, "parameter 1 is an object"},
		{`{"sql":"","params":[{}]}`, wire.CodeTypeMismatch, "parameter 1 is an object"},
		{`{"sql":"","params":{":x":[]}}`, wire.CodeTypeMismatch, `parameter ":x" is an array`},
		{`{"sql":"","params":[{"$blob":"AQ==","b":1}]}`, wire.CodeTypeMismatch, "parameter 1 is an object"},
		{`{"sql":"","params":[{"$blob":1}]}`, wire.CodeTypeMismatch, "parameter 1: $blob is not a string"},
		{`{"sql":"","params":[0,{"$blob":"A"}]}`, wire.CodeTypeMismatch, "parameter 2: $blob is not base64"},
		{`{"sql":"","params":[{"$blob":"AQ="}]}`, wire.CodeTypeMismatch, "not base64"},
		{`{"sql":"","params":[{"$blob":"+_8A"}]}`, wire.CodeTypeMismatch, "not base64"},
		{`{"sql":"","params":{"p":{"$blob":"é"}}}`, wire.CodeTypeMismatch, `parameter "p": $blob is not base64`},
		{`{"sql":"","params":[9223372036854775808]}`, wire.CodeTypeMismatch, "parameter 1 is a whole number outside the 64-bit range"},
		{`{"sql":"","params":[-9223372036854775809]}`, wire.CodeTypeMismatch, "outside the 64-bit range"},
		{`{"sql":"","params":[100000000000000000000]}`, wire.CodeTypeMismatch, "outside the 64-bit range"},
		{`{"sql":"","params":[01]}`, wire.CodeBadJSON, `"," or ']'`},
		{`{"sql":"","params":[-]}`, wire.CodeBadJSON, "a digit"},
		{`{"sql":"","params":[1.]}`, wire.CodeBadJSON, "a digit"},
		{`{"sql":"","params":[1e]}`, wire.CodeBadJSON, "a digit"},
		{`{"sql":"","params":[+1]}`, wire.CodeBadJSON, "a value"},
		{`{"sql":"","params":[NaN]}`, wire.CodeBadJSON, "a value"},
		{`{"sql":"","params":[nul]}`, wire.CodeBadJSON, "null"},
		{`{"sql":"","params":[1 2]}`, wire.CodeBadJSON, `"," or ']'`},
		{`{"sql":"","params":[1,]}`, wire.CodeBadJSON, "a value"},
		{`{"sql":"","params":[,1]}`, wire.CodeBadJSON, "a value"},
		{`{"sql":"","x":` + deep(wire.MaxDepth) + `}`, wire.CodeBadJSON, "deeper than 1000 levels"},
		// Whatever is noticed first, a body that isn't JSON is called that.
		{`{"sql":1,"params":[`, wire.CodeBadJSON, "it ends where"},
		{`{"sql":"","params":[[1]`, wire.CodeBadJSON, "it ends where"},
		{`[1] x`, wire.CodeBadJSON, "where nothing more"},
	}
	var q wire.Query
	for _, tt := range tests {
		err := wire.DecodeQuery([]byte(tt.body), wire.Limits{}, &q)
		if err == nil {
			t.Errorf("%.60s: no error, want %s", tt.body, tt.code)
			continue
		}
		e := wireError(t, err)
		if e.Code != tt.code || !strings.Contains(e.Message, tt.message) {
			t.Errorf("%.60s: got %s %q, want %s %q", tt.body, e.Code, e.Message, tt.code, tt.message)
		}
		if e.StatementIndex != -1 || e.Offset < 0 || e.Offset > len(tt.body) {
			t.Errorf("%.60s: statement index %d, offset %d", tt.body, e.StatementIndex, e.Offset)
		}
		if q.SQL != nil || q.Params != nil {
			t.Errorf("%.60s: the query isn't empty after an error", tt.body)
		}
	}
	if err := wire.DecodeQuery([]byte(`{"sql":"","x":`+deep(wire.MaxDepth-1)+`}`), wire.Limits{}, &q); err != nil {
		t.Errorf("nested exactly as deep as allowed: %v", err)
	}
}

func TestDecodeLimits(t *testing.T) {
	var q wire.Query
	lim := wire.Limits{SQLBytes: 10, Params: 3}
	for _, body := range []string{`{"sql":"0123456789","params":[1,2,3]}`, `{"sql":"\u0030123456789","params":{"a":1,"b":2,"c":3,"a":4}}`} {
		if err := wire.DecodeQuery([]byte(body), lim, &q); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
	for body, want := range map[string]string{
		`{"sql":"01234567890"}`:                              wire.CodeSQLTooLong + ": the SQL has 11 bytes; a statement may have at most 10",
		`{"sql":"01234567é"}`:                                "",
		`{"sql":"012345678é"}`:                               wire.CodeSQLTooLong + ": the SQL has 11 bytes; a statement may have at most 10",
		`{"sql":"","params":[1,2,3,4]}`:                      wire.CodeTooManyParams + ": a statement has at most 3 parameters",
		`{"sql":"","params":{"a":1,"b":2,"c":3,"d":4}}`:      wire.CodeTooManyParams + ": a statement has at most 3 parameters",
		`{"sql":"` + strings.Repeat("x", 100_001) + `","p":`: wire.CodeBadJSON + ": the body is not valid JSON: it ends where a value should follow",
	} {
		got := ""
		if err := wire.DecodeQuery([]byte(body), lim, &q); err != nil {
			e := wireError(t, err)
			got = e.Code + ": " + e.Message
		}
		if got != want {
			t.Errorf("%.60s: got %q, want %q", body, got, want)
		}
	}
	for n, want := range map[int]bool{100_000: true, 100_001: false} {
		err := wire.DecodeQuery([]byte(`{"sql":"`+strings.Repeat("x", n)+`"}`), wire.Limits{}, &q)
		if (err == nil) != want {
			t.Errorf("%d bytes of SQL under the default limit: %v", n, err)
		}
	}
	for n, want := range map[int]bool{32_766: true, 32_767: false} {
		err := wire.DecodeQuery([]byte(`{"sql":"","params":[1`+strings.Repeat(",1", n-1)+`]}`), wire.Limits{}, &q)
		if (err == nil) != want {
			t.Errorf("%d parameters under the default limit: %v", n, err)
		}
	}
}

func TestDecodeBatch(t *testing.T) {
	body := `{"statements":[
		{"sql":"INSERT INTO t VALUES (?, ?)","params":[1,"\u0061"]},
		{"sql":"DELETE FROM t"},
		{"params":{"x":{"$blob":"AQ"}},"sql":"UPDATE t SET b = \"\u00e9\" WHERE id = :x","note":[]}
	],"transaction":true,"plan":{}}`
	body = strings.ReplaceAll(body, `\"\u00e9\"`, `'\u00e9'`)
	want := []wire.Statement{
		{SQL: []byte("INSERT INTO t VALUES (?, ?)"), Params: []sqlite.Param{integer(1), text("a")}},
		{SQL: []byte("DELETE FROM t")},
		{SQL: []byte("UPDATE t SET b = 'é' WHERE id = :x"), Params: []sqlite.Param{named("x", blob(1))}},
	}
	var b wire.Batch
	for range 2 { // the second time in used memory
		if err := wire.DecodeBatch([]byte(body), wire.Limits{}, &b); err != nil {
			t.Fatal(err)
		}
		if !b.Transaction {
			t.Error("transaction is false")
		}
		if !sameStatements(b.Statements, want) {
			t.Errorf("got %+v\nwant %+v", b.Statements, want)
		}
	}
	for body, want := range map[string]bool{
		`{"statements":[{"sql":""}]}`:                                        false,
		`{"statements":[{"sql":""}],"transaction":null}`:                     false,
		`{"statements":[{"sql":""}],"transaction":false}`:                    false,
		`{"statements":[{"sql":""}],"transaction":true}`:                     true,
		`{"transaction":true,"transaction":false,"statements":[{"sql":""}]}`: false,
		`{"statements":[{"sql":"a"},{"sql":"b"}],"statements":[{"sql":""}]}`: false,
		`{"statements":null,"statements":[{"sql":""}]}`:                      false,
	} {
		if err := wire.DecodeBatch([]byte(body), wire.Limits{}, &b); err != nil {
			t.Errorf("%s: %v", body, err)
		} else if b.Transaction != want || len(b.Statements) != 1 || len(b.Statements[0].SQL) != 0 {
			t.Errorf("%s: got %+v, transaction %v", body, b.Statements, b.Transaction)
		}
	}
}

func TestDecodeBatchErrors(t *testing.T) {
	many := `{"statements":[{"sql":""}` + strings.Repeat(`,{"sql":""}`, 100) + `]}`
	tests := []struct {
		body, code, message string
		index               int
	}{
		{``, wire.CodeBadJSON, "the request has no body", -1},
		{`[]`, wire.CodeBadRequest, "not a JSON object", -1},
		{`{}`, wire.CodeBadRequest, "statements is missing", -1},
		{`{"statements":null}`, wire.CodeBadRequest, "statements is missing", -1},
		{`{"statements":{}}`, wire.CodeBadRequest, "statements is not an array", -1},
		{`{"statements":[]}`, wire.CodeBadRequest, "statements is empty", -1},
		{`{"statements":[{"sql":""}],"statements":[]}`, wire.CodeBadRequest, "statements is empty", -1},
		{`{"statements":[{"sql":""}],"transaction":1}`, wire.CodeBadRequest, "transaction is neither", -1},
		{`{"statements":[{"sql":""},"SELECT 1"]}`, wire.CodeBadRequest, "statements[1] is not an object", 1},
		{`{"statements":[null]}`, wire.CodeBadRequest, "statements[0] is not an object", 0},
		{`{"statements":[{"sql":""},{}]}`, wire.CodeBadRequest, "sql is missing", 1},
		{`{"statements":[{"sql":""},{"sql":"","params":[0,{}]}]}`, wire.CodeTypeMismatch, "parameter 2 is an object", 1},
		{many, wire.CodeTooManyStatements, "at most 100 statements", -1},
		{many[:len(many)-1], wire.CodeBadJSON, "it ends where", -1},
		{`{"statements":[{"sql":""}]}]`, wire.CodeBadJSON, "nothing more", -1},
		{`{"statements":[{"sql":1},]}`, wire.CodeBadJSON, "a value", -1},
	}
	var b wire.Batch
	for _, tt := range tests {
		err := wire.DecodeBatch([]byte(tt.body), wire.Limits{}, &b)
		if err == nil {
			t.Errorf("%.60s: no error, want %s", tt.body, tt.code)
			continue
		}
		e := wireError(t, err)
		if e.Code != tt.code || !strings.Contains(e.Message, tt.message) || e.StatementIndex != tt.index {
			t.Errorf("%.60s: got %s %q in %d, want %s %q in %d",
				tt.body, e.Code, e.Message, e.StatementIndex, tt.code, tt.message, tt.index)
		}
		if len(b.Statements) != 0 || b.Transaction {
			t.Errorf("%.60s: the batch isn't empty after an error", tt.body)
		}
	}
	err := wire.DecodeBatch([]byte(`{"statements":[{"sql":""},{}]}`), wire.Limits{}, &b)
	if got, want := err.Error(), "statement 1: sql is missing"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

// Names beyond the few that are compared one by one, some of them twice, in a Query used again and again.
func TestDecodeManyNames(t *testing.T) {
	var q wire.Query
	for _, n := range []int{1, 15, 16, 17, 18, 40, 3000, 5, 17} {
		var body strings.Builder
		var want []sqlite.Param
		body.WriteString(`{"sql":"","params":{`)
		for i := range n {
			fmt.Fprintf(&body, `"n%d":0,`, i)
			want = append(want, named(fmt.Sprintf("n%d", i), integer(int64(i))))
		}
		for i := range n {
			fmt.Fprintf(&body, `"n%d":%d,`, i, i)
		}
		fmt.Fprintf(&body, `"n0":0}}`)
		if err := wire.DecodeQuery([]byte(body.String()), wire.Limits{}, &q); err != nil {
			t.Fatalf("%d names: %v", n, err)
		}
		if !reflect.DeepEqual(q.Params, want) {
			t.Fatalf("%d names: got %d parameters, %+v", n, len(q.Params), q.Params[:min(5, len(q.Params))])
		}
	}
}

// What was decoded first stays as it is while the arena grows behind it.
func TestDecodeArenaGrows(t *testing.T) {
	var body strings.Builder
	body.WriteString(`{"statements":[`)
	const statements, params = 90, 20
	for i := range statements {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"sql":"s\u0020%d","params":[`, i)
		for j := range params {
			if j > 0 {
				body.WriteByte(',')
			}
			fmt.Fprintf(&body, `"\u0041%d-%d"`, i, j)
		}
		body.WriteString("]}")
	}
	body.WriteString("]}")
	var b wire.Batch
	for range 3 {
		if err := wire.DecodeBatch([]byte(body.String()), wire.Limits{}, &b); err != nil {
			t.Fatal(err)
		}
		for i, st := range b.Statements {
			if want := fmt.Sprintf("s %d", i); string(st.SQL) != want || len(st.Params) != params {
				t.Fatalf("statement %d is %q with %d parameters", i, st.SQL, len(st.Params))
			}
			for j, p := range st.Params {
				if want := fmt.Sprintf("A%d-%d", i, j); string(p.Bytes) != want {
					t.Fatalf("statement %d, parameter %d is %q", i, j, p.Bytes)
				}
			}
		}
	}
	if n := b.Footprint(); n < statements*params*64 {
		t.Errorf("footprint is %d bytes", n)
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	var q wire.Query
	for _, body := range []string{
		pointBody,
		`{"sql":"SELECT \"a\" FROM t","params":["\u00e9 \n", 1.5, {"$blob":"AQIDBA=="}, true, null]}`,
		`{"sql":"SELECT :a","params":{":a":1,"b":"x"}}`,
	} {
		raw := []byte(body)
		n := testing.AllocsPerRun(100, func() {
			if err := wire.DecodeQuery(raw, wire.Limits{}, &q); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", body, n)
		}
	}
	var b wire.Batch
	raw := []byte(`{"statements":[` + strings.Repeat(pointBody+",", 99) + pointBody + `],"transaction":true}`)
	n := testing.AllocsPerRun(100, func() {
		if err := wire.DecodeBatch(raw, wire.Limits{}, &b); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("a batch of 100: %v allocations", n)
	}
}
