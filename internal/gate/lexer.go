package gate

import (
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// kind is what a token of SQL is.
type kind uint8

const (
	word     kind = iota // a keyword, or a name without quotes
	quoted               // a name in quotes: "a", `a` or [a]
	text                 // 'a', which SQLite takes for a name where only a name can stand
	variable             // ?1, :a, @a or $a
	comment
	other // a number, a blob or an operator
)

// token is one token of a statement.
type token struct {
	kind       kind
	start, end int
	depth      int // of the parentheses around it
}

// lex splits SQL as SQLite's tokenizer does, without white space; comments are tokens. ok is false for text that SQLite would not
// take: a quote or parenthesis that isn't closed. Everything that is lexed here SQLite has compiled before, but for policies.
func lex(sql string) (tokens []token, ok bool) {
	depth := 0
	for i := 0; i < len(sql); {
		start, c := i, sql[i]
		k := other
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\v' || c == '\f' || c == '\r': // \v where another is before it
			i++
			continue
		case strings.HasPrefix(sql[i:], "\ufeff"):
			i += len("\ufeff") // a byte order mark is white space
			continue
		case strings.HasPrefix(sql[i:], "--"):
			k = comment
			if n := strings.IndexByte(sql[i:], '\n'); n >= 0 {
				i += n
			} else {
				i = len(sql)
			}
		case strings.HasPrefix(sql[i:], "/*"):
			k = comment
			if n := strings.Index(sql[i+2:], "*/"); n >= 0 {
				i += n + 4
			} else {
				i = len(sql)
			}
		case c == '\'' || c == '"' || c == '`':
			k = quoted
			if c == '\'' {
				k = text
			}
			for i++; ; i++ {
				if i >= len(sql) {
					return nil, false
				}
				if sql[i] == c {
					if i++; i >= len(sql) || sql[i] != c {
						break
					}
				}
			}
		case c == '[':
			n := strings.IndexByte(sql[i:], ']')
			if n < 0 {
				return nil, false
			}
			k, i = quoted, i+n+1
		case (c == 'x' || c == 'X') && i+1 < len(sql) && sql[i+1] == '\'':
			n := strings.IndexByte(sql[i+2:], '\'')
			if n < 0 {
				return nil, false
			}
			i += n + 3
		case c == '?':
			k = variable
			for i++; i < len(sql) && sql[i] >= '0' && sql[i] <= '9'; i++ {
			}
		case c == ':' || c == '@' || c == '#' || c == '$':
			k = variable
			i = afterVariable(sql, i+1)
		case nameByte(c):
			if k = word; c >= '0' && c <= '9' {
				k = other
			}
			for i++; i < len(sql) && nameByte(sql[i]); i++ {
			}
		case c == '(':
			depth++
			i++
		case c == ')':
			depth--
			i++
		default:
			i++
		}
		if depth < 0 {
			return nil, false
		}
		t := token{k, start, i, depth}
		if c == '(' {
			t.depth-- // it stands outside, as its other half does
		}
		tokens = append(tokens, t)
	}
	return tokens, depth == 0
}

// afterVariable is the end of a variable's name: Tcl's may hold :: and end in parentheses.
func afterVariable(sql string, i int) int {
	for n := 0; i < len(sql); {
		switch c := sql[i]; {
		case nameByte(c):
			i, n = i+1, n+1
		case c == ':' && i+1 < len(sql) && sql[i+1] == ':':
			i += 2
		case c == '(' && n > 0:
			for i++; i < len(sql) && sql[i] != ')' && !strings.ContainsRune(" \t\n\f\r", rune(sql[i])); i++ {
			}
			return min(i+1, len(sql))
		default:
			return i
		}
	}
	return i
}

func nameByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// statement is lexed SQL without its comments.
type statement struct {
	sql    string
	tokens []token
}

// lexAll lexes SQL that may hold semicolons, as a trigger does.
func lexAll(sql string) (*statement, bool) {
	all, ok := lex(sql)
	s := &statement{sql: sql, tokens: slices.DeleteFunc(all, func(t token) bool { return t.kind == comment })}
	return s, ok
}

// lexStatement lexes one statement, up to its semicolon.
func lexStatement(sql string) (*statement, bool) {
	s, ok := lexAll(sql)
	semicolon := func(t token) bool { return sql[t.start:t.end] == ";" }
	for len(s.tokens) > 0 && semicolon(s.tokens[0]) {
		s.tokens = s.tokens[1:]
	}
	if i := slices.IndexFunc(s.tokens, semicolon); i >= 0 {
		s.tokens = s.tokens[:i]
	}
	return s, ok
}

// is tells whether token i is one of these keywords, which are given in upper case.
func (s *statement) is(i int, keywords ...string) bool {
	if i < 0 || i >= len(s.tokens) || s.tokens[i].kind != word {
		return false
	}
	folded := sqlite.Fold(s.raw(i)) // as SQLite folds: ASCII alone
	for _, k := range keywords {
		if folded == sqlite.Fold(k) {
			return true
		}
	}
	return false
}

// raw is the text of token i, "" behind the last.
func (s *statement) raw(i int) string {
	if i < 0 || i >= len(s.tokens) {
		return ""
	}
	return s.sql[s.tokens[i].start:s.tokens[i].end]
}

// name is token i as a folded name, "" if it can be none.
func (s *statement) name(i int) string {
	if i < 0 || i >= len(s.tokens) {
		return ""
	}
	raw := s.raw(i)
	switch s.tokens[i].kind {
	case word:
		return sqlite.Fold(raw)
	case quoted, text:
		inner := raw[1 : len(raw)-1]
		if raw[0] != '[' {
			inner = strings.ReplaceAll(inner, raw[:1]+raw[:1], raw[:1])
		}
		return sqlite.Fold(inner)
	}
	return ""
}

// find is the first token from i on, outside of all parentheses, that is one of the keywords; -1 if there is none.
func (s *statement) find(i int, keywords ...string) int {
	for ; i < len(s.tokens); i++ {
		if s.tokens[i].depth == 0 && s.is(i, keywords...) {
			return i
		}
	}
	return -1
}

// qualifies tells whether token i is that name, before a dot.
func (s *statement) qualifies(i int, name string) bool { return s.raw(i+1) == "." && s.name(i) == name }

// end is where the last token ends.
func (s *statement) end() int {
	if len(s.tokens) == 0 {
		return 0
	}
	return s.tokens[len(s.tokens)-1].end
}
