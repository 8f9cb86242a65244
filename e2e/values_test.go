package e2e_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// send runs SELECT of one parameter given as JSON text, and returns the JSON of what comes back.
func send(t testing.TB, d *harness.DB, params, sql string) *harness.Answer {
	t.Helper()
	return d.Post(d.Path("query"), harness.Raw(`{"sql":`+quoted(sql)+`,"params":`+params+`}`))
}

// echo sends many values at once and returns what comes back for each, with its SQLite type.
func echo(t testing.TB, d *harness.DB, values []string) (back, types []string) {
	t.Helper()
	const chunk = 400
	for len(values) > 0 {
		n := min(chunk, len(values))
		marks := make([]string, n)
		for i := range marks {
			marks[i] = fmt.Sprintf("?%d, typeof(?%d)", i+1, i+1)
		}
		a := send(t, d, "["+strings.Join(values[:n], ",")+"]", "SELECT "+strings.Join(marks, ", ")).OK()
		r := a.Rows()[0]
		for i := range n {
			back = append(back, harness.Text(r[2*i]))
			types = append(types, harness.Text(r[2*i+1]))
		}
		values = values[n:]
	}
	return back, types
}

func TestIntegers(t *testing.T) {
	row(t, "DP-V-1", "DP-V-2")
	d := db(t)
	var values []string
	add := func(n int64) { values = append(values, strconv.FormatInt(n, 10)) }
	for shift := range 64 {
		for delta := int64(-1); delta <= 1; delta++ {
			n := int64(1)<<shift + delta
			add(n)
			add(-n)
		}
	}
	add(math.MinInt64)
	add(math.MaxInt64)
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		add(int64(random.Uint64()))
		add(int64(random.Uint64() >> random.UintN(64)))
	}
	back, types := echo(t, d, values)
	for i, want := range values {
		if back[i] != want || types[i] != "integer" {
			t.Errorf("%s came back as %s %s", want, types[i], back[i])
		}
	}
	// Through a table, where records pack them by size.
	d.Must("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER)")
	send(t, d, "["+quoted("["+strings.Join(values, ",")+"]")+"]", "INSERT INTO t(n) SELECT value FROM json_each(?)").OK()
	for i, r := range d.Must("SELECT n FROM t ORDER BY id").Rows() {
		if got := harness.Text(r[0]); got != values[i] {
			t.Errorf("%s was stored as %s", values[i], got)
		}
	}
	back, types = echo(t, d, []string{"true", "false", "-0", "0"})
	if got := strings.Join(append(back, types...), " "); got != "1 0 0 0 integer integer integer integer" {
		t.Errorf("true, false, -0 and 0 came back as %s", got)
	}
}

func TestFloats(t *testing.T) {
	row(t, "DP-V-3")
	d := db(t)
	values := []float64{0, math.Copysign(0, -1), 1, -1, 0.1, 1.0 / 3, math.Pi, math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64,
		-math.SmallestNonzeroFloat64, 0x1p-1022, 0x1.fffffffffffffp-1023, 1 << 53, 1<<53 + 2, 1 << 63, -(1 << 63), 1e21, 1e-7, 123456789.125, 1e15, 1e16, 1e17, 5e-324, 2.5e-323}
	random := rand.New(rand.NewPCG(3, 4))
	for len(values) < 4000 {
		f := math.Float64frombits(random.Uint64())
		if random.UintN(4) == 0 {
			f = math.Float64frombits(random.Uint64() >> 12) // subnormal
		}
		if !math.IsNaN(f) && !math.IsInf(f, 0) {
			values = append(values, f)
		}
	}
	texts := make([]string, len(values))
	for i, f := range values {
		texts[i] = strconv.FormatFloat(f, 'e', -1, 64)
	}
	back, types := echo(t, d, texts)
	for i, want := range values {
		checkReal(t, back[i], types[i], want)
	}
	// Through a table. The column has no affinity, so that a whole number stays REAL.
	d.Must("CREATE TABLE t(id INTEGER PRIMARY KEY, f)")
	for start := 0; start < len(texts); start += 1000 {
		chunk := texts[start:min(start+1000, len(texts))]
		send(t, d, "["+strings.Join(chunk, ",")+"]", "INSERT INTO t(f) VALUES"+strings.Repeat(",(?)", len(chunk))[1:]).OK()
	}
	for i, r := range d.Must("SELECT f, typeof(f) FROM t ORDER BY id").Rows() {
		checkReal(t, harness.Text(r[0]), harness.Text(r[1]), values[i])
	}
	rowsAre(t, d.Query("SELECT 1.0, -0.0, 2e0, 1e100, 0.5"), "[[1.0,-0.0,2.0,1e+100,0.5]]")
}

func checkReal(t testing.TB, text, kind string, want float64) {
	t.Helper()
	got, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Float64bits(got) != math.Float64bits(want) || kind != "real" {
		t.Errorf("%x came back as %s %s", want, kind, text)
	}
	if !strings.ContainsAny(text, ".eE") {
		t.Errorf("the REAL %s reads like an INTEGER", text)
	}
	digits := func(s string) int {
		mantissa, _, _ := strings.Cut(strings.ToLower(s), "e")
		return len(strings.Trim(strings.NewReplacer("-", "", ".", "").Replace(mantissa), "0"))
	}
	if shortest := strconv.FormatFloat(want, 'e', -1, 64); digits(text) > digits(shortest) {
		t.Errorf("%s is not the shortest form, %s", text, shortest)
	}
}

func TestInfinities(t *testing.T) {
	row(t, "DP-V-4")
	d := db(t)
	back, types := echo(t, d, []string{"9e999", "-9e999", "1e309", "-1e400", "1e-400", "9e99999999999"})
	if got := strings.Join(append(back, types...), " "); got != "9e999 -9e999 9e999 -9e999 0.0 9e999 real real real real real real" {
		t.Errorf("infinities came back as %s", got)
	}
	rowsAre(t, d.Query("SELECT 9e999, -9e999, 9e999 - 9e999, 1e308 * 10"), "[[9e999,-9e999,null,9e999]]")
	if got := d.One("SELECT typeof(?) || ' ' || (?1 > 1e308)", harness.Number("9e999")); got != "real 1" {
		t.Errorf("9e999 is %s", got)
	}
}

func TestTexts(t *testing.T) {
	row(t, "DP-V-5", "DP-V-6")
	d := db(t)
	d.Must("CREATE TABLE t(id INTEGER PRIMARY KEY, s TEXT, n)")
	for i, s := range []string{"", "plain", "ünïcödé", "日本語", "😀", "a\x00b", "\"quoted\" \\ /", "\n\r\t\x01", strings.Repeat("long ", 10_000), "\ufffd", "42", "1e5", "true", "null"} {
		d.Must("INSERT INTO t VALUES(?, ?, ?)", i, s, nil)
		rowsAre(t, d.Query("SELECT s, n, typeof(s), typeof(n) FROM t WHERE id = ?", i), "[["+quoted(s)+`,null,"text","null"]]`)
	}
	for hexed, want := range map[string]string{
		"ff": "\ufffd", "61ff62": "a\ufffdb", "c3": "\ufffd", "c3a9": "é", "eda080": "\ufffd\ufffd\ufffd", "f8888080": "\ufffd\ufffd\ufffd\ufffd", "fffe": "\ufffd\ufffd",
	} {
		got := d.One("SELECT CAST(x'" + hexed + "' AS TEXT)")
		if want != got && !(strings.Trim(got, "\ufffd") == "" && strings.Trim(want, "\ufffd") == "" && got != "") {
			t.Errorf("%s came back as %q, want %q", hexed, got, want)
		}
		// What is stored stays as it is: only its JSON is mended.
		if got := d.One("SELECT hex(CAST(x'" + hexed + "' AS TEXT))"); !strings.EqualFold(got, hexed) {
			t.Errorf("%s became %s", hexed, got)
		}
	}
	// Half a surrogate pair has no UTF-8.
	if got := harness.Text(send(t, d, `["\ud800x"]`, "SELECT ?").OK().At("data.rows.0.0")); got != "\ufffdx" {
		t.Errorf("half a pair came back as %q", got)
	}
	if got := harness.Text(send(t, d, `["\ud83d\ude00"]`, "SELECT ?").OK().At("data.rows.0.0")); got != "😀" {
		t.Errorf("a pair came back as %q", got)
	}
}

func TestBlobs(t *testing.T) {
	row(t, "DP-V-7")
	d := db(t)
	random := rand.New(rand.NewPCG(5, 6))
	for n := range 70 {
		if n > 64 {
			n = 1 << (n - 55)
		}
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		value := body{"$blob": base64.StdEncoding.EncodeToString(b)}
		a := d.Must("SELECT ?1, typeof(?1), hex(?1)", value)
		a.Is("data.rows.0.0.$blob", base64.StdEncoding.EncodeToString(b)).Is("data.rows.0.1", "blob").Is("data.rows.0.2", strings.ToUpper(hex.EncodeToString(b)))
	}
	rowsAre(t, d.Query("SELECT x'', zeroblob(3), x'fffe'"), `[[{"$blob":""},{"$blob":"AAAA"},{"$blob":"//4="}]]`)
}

func TestParametersThatAreNoValues(t *testing.T) {
	row(t, "DP-V-8")
	d := db(t)
	for _, value := range []string{
		"9223372036854775808", "-9223372036854775809", "123456789012345678901234567890",
		"[]", "[1]", "{}", `{"a":1}`, `{"$blob":1}`, `{"$blob":null}`, `{"$blob":["AA=="]}`,
		`{"$blob":"!"}`, `{"$blob":"AAA=A"}`, `{"$blob":"A"}`, `{"$blob":"AAAA","x":1}`, `{"$blob":"ä"}`, `{"$BLOB":"AAAA"}`,
	} {
		a := send(t, d, "["+value+"]", "SELECT ?").Fails(http.StatusBadRequest, "type_mismatch")
		a.Kind("type_mismatch")
		send(t, d, `{"a":`+value+`}`, "SELECT :a").Fails(http.StatusBadRequest, "type_mismatch")
	}
}

func TestNumberOfParameters(t *testing.T) {
	row(t, "DP-V-9")
	d := db(t)
	d.Query("SELECT ?", 1, 2).Fails(http.StatusBadRequest, "").Kind("too_many_params")
	d.Query("SELECT 1", 1).Fails(http.StatusBadRequest, "").Kind("too_many_params")
	d.Query("SELECT ?, ?", 1).Fails(http.StatusBadRequest, "").Kind("type_mismatch").Tells("2")
	d.Query("SELECT ?").Fails(http.StatusBadRequest, "").Kind("type_mismatch").Tells("1")
	d.Query("SELECT :who").Fails(http.StatusBadRequest, "").Kind("type_mismatch").Tells("who")
	d.Query("SELECT ?5", 1, 2, 3).Fails(http.StatusBadRequest, "").Kind("type_mismatch")
	d.Must("CREATE TABLE t(a)")
	d.Query("INSERT INTO t VALUES(?),(?)", 1).Fails(http.StatusBadRequest, "").Kind("type_mismatch")
	if got := d.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("count is %s", got)
	}
}
