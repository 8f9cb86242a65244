package wire_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/wire"
)

func TestAppendFloat(t *testing.T) {
	tests := []struct {
		in   float64
		want string
	}{
		{0, "0.0"},
		{math.Copysign(0, -1), "-0.0"},
		{1, "1.0"},
		{-1, "-1.0"},
		{0.1, "0.1"},
		{-1.5, "-1.5"},
		{1 << 52, "4503599627370496.0"},
		{1<<53 - 1, "9007199254740991.0"},
		{1 << 53, "9.007199254740992e+15"},
		{-(1 << 53), "-9.007199254740992e+15"},
		{1e16, "1e+16"},
		{1e21, "1e+21"},
		{1e-5, "0.00001"},
		{9.5e-6, "9.5e-06"},
		{1.0 / 3, "0.3333333333333333"},
		{math.MaxFloat64, "1.7976931348623157e+308"},
		{math.SmallestNonzeroFloat64, "5e-324"},
		{math.Inf(1), "9e999"},
		{math.Inf(-1), "-9e999"},
		{math.NaN(), "null"},
	}
	for _, tt := range tests {
		if got := string(wire.AppendFloat([]byte("x"), tt.in)); got != "x"+tt.want {
			t.Errorf("AppendFloat(%v) = %s, want %s", tt.in, got[1:], tt.want)
		}
	}
}

func TestAppendText(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", `""`},
		{"Ada", `"Ada"`},
		{"exactly8", `"exactly8"`},
		{"longer than eight", `"longer than eight"`},
		{`say "hi" \ bye`, `"say \"hi\" \\ bye"`},
		{"tab\tline\nreturn\r", `"tab\tline\nreturn\r"`},
		{"nul\x00", `"nul\u0000"`},
		{"del\x7f", "\"del\x7f\""},
		{"<b>&", `"<b>&"`},
		{"Zürich 東京 🦀", `"Zürich 東京 🦀"`},
		{"\u2028", "\"\u2028\""},
		{"bad \xff\xfe end", "\"bad \ufffd\ufffd end\""},
		{"half \xe2\x82", "\"half \ufffd\ufffd\""},
		{"surrogate \xed\xa0\x80", "\"surrogate \ufffd\ufffd\ufffd\""},
	}
	for _, tt := range tests {
		got := string(wire.AppendText(nil, []byte(tt.in)))
		if got != tt.want {
			t.Errorf("AppendText(%q) = %s, want %s", tt.in, got, tt.want)
		}
		if s := string(wire.AppendString(nil, tt.in)); s != got {
			t.Errorf("AppendString(%q) = %s, AppendText %s", tt.in, s, got)
		}
		var back string
		if err := json.Unmarshal([]byte(got), &back); err != nil {
			t.Errorf("AppendText(%q) = %s: %v", tt.in, got, err)
		}
		if want := string([]rune(tt.in)); back != want {
			t.Errorf("AppendText(%q) reads back as %q, want %q", tt.in, back, want)
		}
	}
}

// Every byte stands at every place of a word, so that each lane of the quick scan is tried.
func TestAppendTextEveryByteEverywhere(t *testing.T) {
	for c := range 256 {
		for at := range 19 {
			in := []byte(strings.Repeat("a", 19))
			in[at] = byte(c)
			var back string
			if err := json.Unmarshal(wire.AppendText(nil, in), &back); err != nil || back != string([]rune(string(in))) {
				t.Fatalf("byte %#x at %d reads back as %q, %v", c, at, back, err)
			}
		}
	}
}

func TestAppendValue(t *testing.T) {
	tests := []struct {
		in   sqlite.Value
		want string
	}{
		{sqlite.Value{}, `null`},
		{sqlite.Value{Kind: sqlite.Integer, Int: 42}, `42`},
		{sqlite.Value{Kind: sqlite.Integer, Int: math.MinInt64}, `-9223372036854775808`},
		{sqlite.Value{Kind: sqlite.Integer, Int: math.MaxInt64}, `9223372036854775807`},
		{sqlite.Value{Kind: sqlite.Real, Float: 42}, `42.0`},
		{sqlite.Value{Kind: sqlite.Text, Bytes: []byte("é")}, `"é"`},
		{sqlite.Value{Kind: sqlite.Text}, `""`},
		{sqlite.Value{Kind: sqlite.Blob, Bytes: []byte{0xfb, 0xff, 0}}, `{"$blob":"+/8A"}`},
		{sqlite.Value{Kind: sqlite.Blob, Bytes: []byte{1}}, `{"$blob":"AQ=="}`},
		{sqlite.Value{Kind: sqlite.Blob}, `{"$blob":""}`},
	}
	for _, tt := range tests {
		if got := string(wire.AppendValue(nil, tt.in)); got != tt.want {
			t.Errorf("AppendValue(%+v) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 1024)
	for _, v := range []sqlite.Value{
		{Kind: sqlite.Integer, Int: math.MinInt64},
		{Kind: sqlite.Real, Float: 1.0 / 3},
		{Kind: sqlite.Text, Bytes: []byte("plain ASCII of some length")},
		{Kind: sqlite.Text, Bytes: []byte("Zürich \"東京\"\n")},
		{Kind: sqlite.Blob, Bytes: make([]byte, 100)},
	} {
		if n := testing.AllocsPerRun(100, func() { buf = wire.AppendValue(buf[:0], v) }); n != 0 {
			t.Errorf("AppendValue of a %v allocates %v times", v.Kind, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { buf = wire.AppendString(buf[:0], "Zürich \"東京\"\n") }); n != 0 {
		t.Errorf("AppendString allocates %v times", n)
	}
}
