package schema

import (
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// kind is what a token of SQL is.
type kind uint8

const (
	word   kind = iota // a keyword, or a name without quotes
	quoted             // a name in quotes: "a", `a` or [a]
	text               // 'a', which SQLite takes for a name where only a name can stand
	other              // a number, a blob or an operator
)

// token is one token of a statement.
type token struct {
	kind       kind
	start, end int
	depth      int // of the parentheses around it
}

// statement is SQL in tokens, without white space and comments.
type statement struct {
	sql    string
	tokens []token
}

// lex splits SQL as SQLite's tokenizer does. ok is false for text that SQLite would not take: a quote or parenthesis that isn't closed.
func lex(sql string) (s *statement, ok bool) {
	s = &statement{sql: sql}
	depth := 0
	for i := 0; i < len(sql); {
		start, c := i, sql[i]
		k := other
		switch {
		case c == ' ' || c >= '\t' && c <= '\r':
			i++
			continue
		case strings.HasPrefix(sql[i:], "\ufeff"):
			i += len("\ufeff") // a byte order mark is white space
			continue
		case strings.HasPrefix(sql[i:], "--"):
			if n := strings.IndexByte(sql[i:], '\n'); n >= 0 {
				i += n
			} else {
				i = len(sql)
			}
			continue
		case strings.HasPrefix(sql[i:], "/*"):
			if n := strings.Index(sql[i+2:], "*/"); n >= 0 {
				i += n + 4
			} else {
				i = len(sql)
			}
			continue
		case c == '\'' || c == '"' || c == '`':
			k = quoted
			if c == '\'' {
				k = text
			}
			if i = afterQuote(sql, i); i < 0 {
				return s, false
			}
		case c == '[':
			n := strings.IndexByte(sql[i:], ']')
			if n < 0 {
				return s, false
			}
			k, i = quoted, i+n+1
		case (c == 'x' || c == 'X') && i+1 < len(sql) && sql[i+1] == '\'':
			n := strings.IndexByte(sql[i+2:], '\'')
			if n < 0 {
				return s, false
			}
			i += n + 3
		case digit(c) || c == '.' && i+1 < len(sql) && digit(sql[i+1]):
			i = afterNumber(sql, i)
		case nameByte(c):
			k = word
			for i++; i < len(sql) && nameByte(sql[i]); i++ {
			}
		case c == '(':
			depth++
			i++
		case c == ')':
			depth--
			i++
		default:
			i += operator(sql[i:])
		}
		if depth < 0 {
			return s, false
		}
		t := token{k, start, i, depth}
		if c == '(' {
			t.depth-- // it stands outside, as its other half does
		}
		s.tokens = append(s.tokens, t)
	}
	return s, depth == 0
}

// afterQuote is where the quoted token at i ends, -1 if it doesn't.
func afterQuote(sql string, i int) int {
	q := sql[i]
	for i++; i < len(sql); i++ {
		if sql[i] != q {
			continue
		}
		if i+1 >= len(sql) || sql[i+1] != q {
			return i + 1
		}
		i++
	}
	return -1
}

// afterNumber is where the number at i ends.
func afterNumber(sql string, i int) int {
	hex := len(sql) > i+1 && sql[i] == '0' && sql[i+1]|0x20 == 'x'
	for ; i < len(sql); i++ {
		c := sql[i]
		sign := (c == '+' || c == '-') && !hex && sql[i-1]|0x20 == 'e' && i+1 < len(sql) && digit(sql[i+1])
		if !nameByte(c) && c != '.' && !sign {
			break
		}
	}
	return i
}

// operator is the length of the operator that sql begins with.
func operator(sql string) int {
	for _, o := range []string{"->>", "->", "<<", ">>", "<=", ">=", "<>", "==", "!=", "||"} {
		if strings.HasPrefix(sql, o) {
			return len(o)
		}
	}
	return 1
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func nameByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || digit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// raw is the text of token i, "" behind the last.
func (s *statement) raw(i int) string {
	if i < 0 || i >= len(s.tokens) {
		return ""
	}
	return s.sql[s.tokens[i].start:s.tokens[i].end]
}

// is tells whether token i is one of these keywords, which are given in upper case.
func (s *statement) is(i int, keywords ...string) bool {
	if i < 0 || i >= len(s.tokens) || s.tokens[i].kind != word {
		return false
	}
	for _, k := range keywords {
		if upper(s.raw(i)) == k {
			return true
		}
	}
	return false
}

// name is token i as a name, without its quotes.
func (s *statement) name(i int) string {
	raw := s.raw(i)
	if i >= len(s.tokens) || s.tokens[i].kind != quoted && s.tokens[i].kind != text {
		return raw
	}
	return unquote(raw)
}

func unquote(raw string) string {
	inner := raw[1 : len(raw)-1]
	if raw[0] != '[' {
		inner = strings.ReplaceAll(inner, raw[:1]+raw[:1], raw[:1])
	}
	return inner
}

// normal is token i in the form in which tokens of the same meaning are the same: keywords in upper case, names without quotes they don't
// need. A name that is a keyword keeps them, as it would mean something else in some places, and so do true and false.
func (s *statement) normal(i int) string {
	raw := s.raw(i)
	switch s.tokens[i].kind {
	case word:
		if up := upper(raw); keywords[up] {
			return up
		}
	case quoted:
		name := unquote(raw)
		if plain(name) {
			return name
		}
		return sqlite.Quote(name)
	case other:
		return upper(raw) // X'ab', 1e5
	}
	return raw
}

// join is tokens from to to in normal form.
func (s *statement) join(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		if i > from {
			b.WriteByte(' ')
		}
		b.WriteString(s.normal(i))
	}
	return b.String()
}

// plain tells whether a name means the same without quotes, wherever it stands.
func plain(name string) bool {
	if name == "" || digit(name[0]) || name[0] == '$' {
		return false
	}
	for i := range len(name) {
		if !nameByte(name[i]) {
			return false
		}
	}
	switch up := upper(name); up {
	case "TRUE", "FALSE":
		return false
	default:
		return !keywords[up]
	}
}

// literal makes any text a string of SQL.
func literal(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

// upper is for keywords: ASCII alone.
func upper(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'a' && c <= 'z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= 'a' && b[i] <= 'z' {
					b[i] -= 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

func fold(s string) string { return sqlite.Fold(s) }

// keywords is SQLite's list, https://sqlite.org/lang_keywords.html. TestKeywords asks the engine.
var keywords = func() map[string]bool {
	m := map[string]bool{}
	for _, k := range strings.Fields(`ABORT ACTION ADD AFTER ALL ALTER ALWAYS ANALYZE AND AS ASC ATTACH AUTOINCREMENT BEFORE BEGIN BETWEEN BY CASCADE CASE CAST
		CHECK COLLATE COLUMN COMMIT CONFLICT CONSTRAINT CREATE CROSS CURRENT CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP DATABASE DEFAULT DEFERRABLE
		DEFERRED DELETE DESC DETACH DISTINCT DO DROP EACH ELSE END ESCAPE EXCEPT EXCLUDE EXCLUSIVE EXISTS EXPLAIN FAIL FILTER FIRST FOLLOWING FOR FOREIGN
		FROM FULL GENERATED GLOB GROUP GROUPS HAVING IF IGNORE IMMEDIATE IN INDEX INDEXED INITIALLY INNER INSERT INSTEAD INTERSECT INTO IS ISNULL JOIN KEY
		LAST LEFT LIKE LIMIT MATCH MATERIALIZED NATURAL NO NOT NOTHING NOTNULL NULL NULLS OF OFFSET ON OR ORDER OTHERS OUTER OVER PARTITION PLAN PRAGMA
		PRECEDING PRIMARY QUERY RAISE RANGE RECURSIVE REFERENCES REGEXP REINDEX RELEASE RENAME REPLACE RESTRICT RETURNING RIGHT ROLLBACK ROW ROWS
		SAVEPOINT SELECT SET TABLE TEMP TEMPORARY THEN TIES TO TRANSACTION TRIGGER UNBOUNDED UNION UNIQUE UPDATE USING VACUUM VALUES VIEW VIRTUAL WHEN
		WHERE WINDOW WITH WITHIN WITHOUT`) {
		m[k] = true
	}
	return m
}()
