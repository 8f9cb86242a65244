package wire_test

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/wire"
)

// FuzzValues writes one value of each kind and reads them back: bit-equal, and valid to encoding/json with the same
// meaning.
func FuzzValues(f *testing.F) {
	f.Add(int64(0), uint64(0), []byte(nil))
	f.Add(int64(math.MinInt64), math.Float64bits(math.Copysign(0, -1)), []byte("Ada \"L\"\n"))
	f.Add(int64(math.MaxInt64), math.Float64bits(math.Inf(1)), []byte("\xff\xed\xa0\x80é東🦀"))
	f.Add(int64(-1), math.Float64bits(math.Inf(-1)), []byte{0, 1, 2, 0x1f, 0x7f, 0x80})
	f.Add(int64(1), math.Float64bits(math.NaN()), []byte(`\u0041`))
	f.Add(int64(1<<53), math.Float64bits(1<<53), []byte("exactly8"))
	f.Add(int64(7), math.Float64bits(5e-324), bytes.Repeat([]byte("long "), 50))
	f.Add(int64(7), math.Float64bits(9.999999999999999e-6), bytes.Repeat([]byte{0xfb}, 50))
	f.Fuzz(func(t *testing.T, n int64, floatBits uint64, data []byte) {
		x := math.Float64frombits(floatBits)
		values := []sqlite.Param{
			integer(n), float(x), {Value: sqlite.Value{Kind: sqlite.Text, Bytes: data}}, blob(data...), {},
		}
		want := slices.Clone(values)
		want[2] = text(string([]rune(string(data)))) // each stray byte becomes U+FFFD
		if x != x {
			want[1] = sqlite.Param{}
		}

		array := []byte{'['}
		for i, v := range values {
			if i > 0 {
				array = append(array, ',')
			}
			array = wire.AppendValue(array, v.Value)
		}
		array = append(array, ']')
		body := append(wire.AppendString([]byte(`{"sql":`), string(data)), `,"params":`...)
		body = append(append(body, array...), '}')

		var q wire.Query
		if err := wire.DecodeQuery(body, wire.Limits{SQLBytes: math.MaxInt}, &q); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if got, want := normal(q.Params), normal(want); !slices.Equal(got, want) {
			t.Fatalf("%s\n got %+v\nwant %+v", body, got, want)
		}
		if string(q.SQL) != string(want[2].Bytes) {
			t.Fatalf("sql is %q, want %q", q.SQL, want[2].Bytes)
		}

		dec := json.NewDecoder(bytes.NewReader(array))
		dec.UseNumber()
		var read []any
		if err := dec.Decode(&read); err != nil {
			t.Fatalf("encoding/json reads %s: %v", array, err)
		}
		if got := read[0].(json.Number).String(); got != strconv.FormatInt(n, 10) {
			t.Errorf("integer %d is written %s", n, got)
		}
		if number, ok := read[1].(json.Number); ok {
			back, _ := strconv.ParseFloat(number.String(), 64)
			if math.Float64bits(back) != floatBits || !strings.ContainsAny(number.String(), ".e") {
				t.Errorf("float %v (%#x) is written %s", x, floatBits, number)
			}
		} else if x == x {
			t.Errorf("float %v is written %v", x, read[1])
		}
		if read[2] != string(want[2].Bytes) {
			t.Errorf("encoding/json reads the text %q as %q", data, read[2])
		}
	})
}

// fuzzLimits are small, so that the fuzzer comes to them.
var fuzzLimits = wire.Limits{SQLBytes: 40, Statements: 4, Params: 20}

// paramSeeds stand for params in the seeds of both decoders.
var paramSeeds = []string{
	`[]`, `null`, `{}`, `7`, `[1,-2,3.5,1e3,-0.0,-0,9e999]`, `[true,false,null]`, `["a","\u00e9\n\ud83e\udd80\ud83e","\/"]`,
	`[9223372036854775807,-9223372036854775808,9223372036854775808,-9223372036854775809,99999999999999999999]`,
	`[9223372036854775807,-9223372036854775808]`,
	`[{"$blob":"AQ=="},{"$blob":"-_8"},{"$blob":"+\/8A"},{"$blob":"A\nA=="}]`, `[{"$blob":"AQ==\n"}]`,
	`[{"$blob":"A"}]`, `[{"$blob":"A","$blob":"AQ"}]`, `[{"a":1}]`, `[[[]]]`, "[\"\xff\xe2\x82\"]",
	`{"a":1,":b":2,"@c":"x","$d":{"$blob":""},"a":2}`, `{"":1}`, `{"$blob":"AQ"}`,
	`{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":10,"k":11,"l":12,"m":13,"n":14,"o":15,"p":16,"q":17,"a":18,"q":19}`,
	`[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21]`, `[01]`, `[1.]`, `[1,]`, `[.5]`, `[tru]`, `[1`,
}

func querySeeds() (seeds []string) {
	for _, p := range paramSeeds {
		seeds = append(seeds, `{"sql":"SELECT ?","params":`+p+`}`)
	}
	return append(seeds,
		pointBody, ``, ` `, `null`, `[]`, `{`, `{}`, `{}x`, `{"sql":1}`, `{"sql":null}`, `{"SQL":"a"}`, `{"\u0073ql":"a"}`,
		`{"sql":"a","sql":"b","params":[1],"params":[2,3]}`, `{"sql":"a","params":[[]],"params":[1]}`,
		` { "x" : [ { "y" : [ 1 , "z" ] } , true ] , "sql" : "a\u0000b" } `, "{\"sql\":\"a\tb\"}", `{"sql":"a\xb"}`,
		`{"sql":"`+strings.Repeat("x", 41)+`"}`, "{\"s\xffql\":1,\"sql\":\"\xff\"}",
		`{"sql":"a","x":`+strings.Repeat(`[{"a":`, 600)+`1`+strings.Repeat(`}]`, 600)+`}`,
	)
}

func batchSeeds() (seeds []string) {
	for _, q := range querySeeds() {
		seeds = append(seeds, q, `{"statements":[`+q+`]}`, `{"statements":[`+pointBody[:40]+`"},`+q+`],"transaction":true}`)
	}
	return append(seeds,
		`{"statements":[]}`, `{"statements":null}`, `{"statements":{}}`, `{"statements":[null]}`, `{"statements":["SELECT 1"]}`,
		`{"statements":[{"sql":"a"}],"transaction":null}`, `{"statements":[{"sql":"a"}],"transaction":1}`,
		`{"statements":[{"sql":"a"},{"sql":"b"},{"sql":"c"},{"sql":"d"}]}`,
		`{"statements":[{"sql":"a"},{"sql":"b"},{"sql":"c"},{"sql":"d"},{"sql":"e"}]}`,
		`{"statements":[{"sql":"a","params":[1]}],"transaction":true,"statements":[{"sql":"b","params":["\n"]},{"sql":"c"}],"transaction":false}`,
	)
}

// checkCode compares a decoder's failure with the oracle's and reports whether both succeeded.
func checkCode(t *testing.T, body []byte, err error, codes []string) bool {
	t.Helper()
	// A second opinion on what JSON is.
	valid := jsontext.Value(body).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if valid != json.Valid(body) {
		t.Fatalf("%q: encoding/json and jsontext disagree", body)
	}
	if err == nil {
		if codes != nil {
			t.Fatalf("%q is accepted, want one of %v", body, codes)
		}
		return true
	}
	e := wireError(t, err)
	if e.Offset < 0 || e.Offset > len(body) {
		t.Fatalf("%q: offset %d", body, e.Offset)
	}
	if slices.Contains(codes, e.Code) {
		return false
	}
	// Which of several mistakes is met first is free, but bad_json is said exactly when it is true.
	if e.Code != wire.CodeBadJSON && !slices.Contains(codes, wire.CodeBadJSON) && repeatsName(body) {
		return false
	}
	t.Fatalf("%q: got %s (%v), want one of %v", body, e.Code, e, codes)
	return false
}

// FuzzDecodeQuery compares DecodeQuery with the contract's rules upon encoding/json, in a Query that has been used.
func FuzzDecodeQuery(f *testing.F) {
	for _, s := range querySeeds() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var q wire.Query
		if err := wire.DecodeQuery([]byte(`{"sql":"a\n","params":{"x":"\u0041","y":{"$blob":"AQ"}}}`), wire.Limits{}, &q); err != nil {
			t.Fatal(err)
		}
		before := slices.Clone(body)
		err := wire.DecodeQuery(body, fuzzLimits, &q)
		if !bytes.Equal(body, before) {
			t.Fatalf("%q was changed", before)
		}
		want, codes := oracleQuery(body, fuzzLimits)
		if checkCode(t, body, err, codes) && !sameStatements([]wire.Statement{q.Statement}, []wire.Statement{want}) {
			t.Fatalf("%q\n got %+v\nwant %+v", body, q.Statement, want)
		}
	})
}

// FuzzDecodeBatch is FuzzDecodeQuery for batches.
func FuzzDecodeBatch(f *testing.F) {
	for _, s := range batchSeeds() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var b wire.Batch
		if err := wire.DecodeBatch([]byte(`{"statements":[{"sql":"a\n","params":["\n"]},{"sql":"b"}]}`), wire.Limits{}, &b); err != nil {
			t.Fatal(err)
		}
		err := wire.DecodeBatch(body, fuzzLimits, &b)
		want, transaction, codes := oracleBatch(body, fuzzLimits)
		if !checkCode(t, body, err, codes) {
			return
		}
		if !sameStatements(b.Statements, want) || b.Transaction != transaction {
			t.Fatalf("%q\n got %+v %v\nwant %+v %v", body, b.Statements, b.Transaction, want, transaction)
		}
	})
}
