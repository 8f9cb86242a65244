package sqlite_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

func named(name, v string) sqlite.Param {
	p := text(v)
	p.Name = name
	return p
}

func blob(b ...byte) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Blob, Bytes: b}}
}

func TestBind(t *testing.T) {
	c := open(t, sqlite.Config{})
	for _, test := range []struct {
		sql    string
		params []sqlite.Param
		want   string
	}{
		{"SELECT ?", []sqlite.Param{{}}, "NULL"},
		{"SELECT typeof(?), length(?2)", []sqlite.Param{text(""), text("")}, "text|0"},
		{"SELECT typeof(?), length(?2)", []sqlite.Param{blob(), blob()}, "blob|0"},
		{"SELECT length(CAST(? AS BLOB))", []sqlite.Param{text("a\x00b")}, "3"},
		{"SELECT ?2, ?1", []sqlite.Param{text("a"), text("b")}, "b|a"},
		{"SELECT ?3", []sqlite.Param{text("a"), text("b"), text("c")}, "c"},
		{"SELECT ?1, ?1", []sqlite.Param{text("a")}, "a|a"},
		{"SELECT :a, @b", []sqlite.Param{text("1"), text("2")}, "1|2"},
		{"SELECT :a, @b, $c, :a", []sqlite.Param{named("a", "1"), named("@b", "2"), named("c", "3")}, "1|2|3|1"},
		{"SELECT :a, @a", []sqlite.Param{named("a", "1")}, "1|1"},
		{"SELECT :a, @a", []sqlite.Param{named("a", "1"), named(":a", "2")}, "2|1"},
		{"SELECT :a, ?5", []sqlite.Param{named("a", "1"), named("5", "5")}, "1|5"},
		{"SELECT $x::y(z)", []sqlite.Param{named("x::y(z)", "t")}, "t"},
		{"SELECT :é", []sqlite.Param{named("é", "1")}, "1"},
	} {
		got, err := run(t, c, test.sql, test.params...)
		if err != nil {
			t.Errorf("%s: %v", test.sql, err)
		} else if s := strings.Join(got[0], "|"); s != test.want {
			t.Errorf("%s: got %s, want %s", test.sql, s, test.want)
		}
	}
}

func TestBindRefuses(t *testing.T) {
	c := open(t, sqlite.Config{})
	for _, test := range []struct {
		sql     string
		params  []sqlite.Param
		tooMany bool
		missing string
	}{
		{"SELECT ?5", []sqlite.Param{text("a")}, false, "?2"},
		{"SELECT :a, :b", []sqlite.Param{named("a", "1")}, false, ":b"},
		{"SELECT :a", []sqlite.Param{named("a", "1"), named("z", "1")}, true, ""},
		{"SELECT :a", []sqlite.Param{named("a", "1"), named(":a", "1")}, true, ""},
		{"SELECT :a", []sqlite.Param{named("@a", "1")}, true, ""},
		{"SELECT :a", []sqlite.Param{named("a", "1"), text("2")}, true, ""},
		{"SELECT ?, ?", []sqlite.Param{text("1")}, false, "?2"},
		{"SELECT :a", nil, false, ":a"},
		{"SELECT ?", []sqlite.Param{text("1"), text("2")}, true, ""},
		{"SELECT ?, :a", []sqlite.Param{named("a", "1")}, false, "?1"},
	} {
		var e *sqlite.BindError
		if _, err := run(t, c, test.sql, test.params...); !errors.As(err, &e) || e.TooMany != test.tooMany || e.Missing != test.missing {
			t.Errorf("%s: got %#v", test.sql, err)
		}
	}
}

// As many names as SQLite takes must not cost their square.
func TestBindManyNames(t *testing.T) {
	c := open(t, sqlite.Config{})
	const n = 30_000
	var sql strings.Builder
	sql.WriteString("SELECT 1 WHERE 7 NOT IN (")
	params := make([]sqlite.Param, n)
	for i := range params {
		name := fmt.Sprintf("p%d", i)
		if i > 0 {
			sql.WriteByte(',')
		}
		sql.WriteString(":" + name)
		params[i] = named(name, "v")
	}
	sql.WriteByte(')')
	if got := must(t, c, sql.String(), params...); len(got) != 1 {
		t.Errorf("rows: %v", got)
	}
}

func TestValueOverTheLimit(t *testing.T) {
	c := open(t, sqlite.Config{Limits: sqlite.Limits{Length: 1000}})
	var e *sqlite.Error
	if _, err := run(t, c, "SELECT ?", text(strings.Repeat("x", 1001))); !errors.As(err, &e) || e.Code.Primary() != sqlite.CodeTooBig {
		t.Errorf("got %v", err)
	}
	if got := must(t, c, "SELECT length(?)", text(strings.Repeat("x", 1000))); got[0][0] != "1000" {
		t.Errorf("got %v", got)
	}
}

// Several statements in use at once, of two connections that share a thread: what one of them is bound to stays, whatever
// the others do.
func TestBoundValuesStay(t *testing.T) {
	th := sqlite.NewThread()
	a, b := open(t, sqlite.Config{}), open(t, sqlite.Config{})
	for _, c := range []*sqlite.Conn{a, b} {
		own := sqlite.NewThread()
		t.Cleanup(func() { c.Use(own); c.Close(); own.Close() })
		c.Use(th)
	}
	t.Cleanup(th.Close)
	big := strings.Repeat("abcdefgh", 2000) // beyond the arena's first size
	const sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<50) SELECT ?1, ?2 FROM n"
	s, _, err := a.Prepare([]byte(sql), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Done()
	if err := s.Bind([]sqlite.Param{text(big), text("small")}); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if row, err := s.Step(); err != nil || !row {
			t.Fatalf("row %d: %v %v", i, row, err)
		}
		if x, y := string(s.Column(0).Bytes), string(s.Column(1).Bytes); x != big || y != "small" {
			t.Fatalf("row %d: the bound values changed", i)
		}
		other := strings.Repeat("X", 10+700*i)
		must(t, b, "SELECT ?", text(other))
		must(t, a, "SELECT ?, ?", text(other), text(other))
		must(t, a, "SELECT ?1 /* "+other+" */", text("z"))
		open(t, sqlite.Config{})
	}
}
