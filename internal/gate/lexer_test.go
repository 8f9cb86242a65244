package gate

import (
	"strings"
	"testing"
)

func TestLex(t *testing.T) {
	for sql, want := range map[string]string{
		`SELECT 'a''b', "c""d", [e], ` + "`f``g`": `SELECT|'a''b'|,|"c""d"|,|[e]|,|` + "`f``g`",
		"a--b\nc/*d*/e/**/":                       "a|--b|c|/*d*/|e|/**/",
		"a/*b":                                    "a|/*b",
		"?1,:a,@b,$c::d(ef),#1":                   "?1|,|:a|,|@b|,|$c::d(ef)|,|#1",
		"x'00'X'1'ax'2'":                          "x'00'|X'1'|ax|'2'",
		"1e5 0x1F 1_0 a1$ é":                      "1e5|0x1F|1_0|a1$|é",
		"(a(b)c)":                                 "(|a|(|b|)|c|)",
		"\ufeffSELECT\f\r1":                       "SELECT|1",
		"a;b":                                     "a|;|b",
		"a->>'$'||b":                              "a|-|>|>|'$'|||||b",
	} {
		tokens, _ := lex(sql)
		var got []string
		for _, tk := range tokens {
			if raw := sql[tk.start:tk.end]; raw != "\ufeff" {
				got = append(got, raw)
			}
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%q: %s, want %s", sql, strings.Join(got, "|"), want)
		}
	}
	for _, bad := range []string{"'a", `"a`, "`a", "[a", "(", ")", "a)(", "x'0"} {
		if _, ok := lex(bad); ok {
			t.Errorf("%q lexed", bad)
		}
	}
}

func FuzzLex(f *testing.F) {
	f.Add("WITH a AS (SELECT ':x' FROM [b]) UPDATE \"c\" SET d = $e::f(g) WHERE 1 -- h")
	f.Fuzz(func(t *testing.T, sql string) {
		tokens, _ := lex(sql)
		last := 0
		for _, tk := range tokens {
			if tk.start < last || tk.end <= tk.start || tk.end > len(sql) || strings.Trim(sql[last:tk.start], " \t\n\f\r\ufeff") != "" {
				t.Fatalf("%q: token %d to %d after %d", sql, tk.start, tk.end, last)
			}
			last = tk.end
		}
	})
}
