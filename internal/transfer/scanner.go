package transfer

import "bytes"

// scanner finds where a statement of SQL probably ends, so that as much as that is read before SQLite is asked. It
// knows quotes, comments and the bodies of triggers, like sqlite3_complete(); where it is wrong, more is read.
type scanner struct {
	pos  int // how far the text was looked at
	in   state
	at   word // how the statement began
	last word // in a trigger: the last token, if it can be part of its end
}

// state is what the scanner stands inside of.
type state byte

const (
	inNothing state = 0
	inLine    state = '-' // a comment to the end of the line
	inBlock   state = '*' // a comment like this one /* */
	// Otherwise the character that ends a quoted string or name.
)

// word is how far the beginning of a statement was recognized, or which token of a trigger's end was.
type word byte

const (
	wordStart   word = iota
	wordExplain      // EXPLAIN, or that and QUERY, PLAN
	wordCreate       // CREATE, or that and TEMP
	wordTrigger
	wordOther
	wordSemicolon
	wordEnd
)

// scan goes on where it stopped in b, which begins where the statement does and may have grown. It returns the length
// of the statement with its semicolon, or -1. With final, b is all there is.
func (s *scanner) scan(b []byte, final bool) int {
	for s.pos < len(b) {
		switch s.in {
		case inNothing:
		case inLine:
			n := bytes.IndexByte(b[s.pos:], '\n')
			if n < 0 {
				s.pos = len(b)
				return -1
			}
			s.pos, s.in = s.pos+n+1, inNothing
			continue
		case inBlock:
			n := bytes.Index(b[s.pos:], []byte("*/"))
			if n < 0 {
				if s.pos < len(b)-1 { // the last may be the star
					s.pos = len(b) - 1
				}
				if final {
					s.pos = len(b)
				}
				return -1
			}
			s.pos, s.in = s.pos+n+2, inNothing
			continue
		default:
			// A quote within quotes is doubled, which is the end of one and the beginning of another.
			n := bytes.IndexByte(b[s.pos:], byte(s.in))
			if n < 0 {
				s.pos = len(b)
				return -1
			}
			s.pos, s.in = s.pos+n+1, inNothing
			continue
		}
		c := b[s.pos]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f':
			s.pos++
		case c == ';':
			s.pos++
			if s.at != wordTrigger || s.last == wordEnd {
				n := s.pos
				*s = scanner{}
				return n
			}
			s.last = wordSemicolon
		case c == '\'' || c == '"' || c == '`':
			s.token(nil)
			s.pos, s.in = s.pos+1, state(c)
		case c == '[':
			s.token(nil)
			s.pos, s.in = s.pos+1, ']'
		case c == '-' || c == '/':
			if s.pos == len(b)-1 && !final {
				return -1
			}
			switch {
			case c == '-' && s.pos < len(b)-1 && b[s.pos+1] == '-':
				s.pos, s.in = s.pos+2, inLine
			case c == '/' && s.pos < len(b)-1 && b[s.pos+1] == '*':
				s.pos, s.in = s.pos+2, inBlock
			default:
				s.token(nil)
				s.pos++
			}
		case inWord(c):
			n := s.pos + 1
			for n < len(b) && inWord(b[n]) {
				n++
			}
			if n == len(b) && !final && n-s.pos < 16 {
				return -1 // there may be more of it
			}
			s.token(b[s.pos:n])
			s.pos = n
		default:
			s.token(nil)
			s.pos++
		}
	}
	return -1
}

func inWord(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// token notes a word, or nil for what is none.
func (s *scanner) token(w []byte) {
	is := func(names ...string) bool {
		for _, n := range names {
			if len(n) == len(w) && bytes.EqualFold(w, []byte(n)) {
				return true
			}
		}
		return false
	}
	switch s.at {
	case wordStart, wordExplain:
		switch {
		case is("create"):
			s.at = wordCreate
		case s.at == wordStart && is("explain"), s.at == wordExplain && is("query", "plan"):
			s.at = wordExplain
		case bytes.Equal(w, []byte("\xef\xbb\xbf")): // a byte order mark is white space
		default:
			s.at = wordOther
		}
	case wordCreate:
		switch {
		case is("trigger"):
			s.at, s.last = wordTrigger, wordOther
		case !is("temp", "temporary"):
			s.at = wordOther
		}
	case wordTrigger:
		if s.last == wordSemicolon && is("end") {
			s.last = wordEnd
		} else {
			s.last = wordOther
		}
	}
}
