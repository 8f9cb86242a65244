package wire

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// MaxDepth is how many arrays and objects may stand inside each other in a body, its outermost one included.
const MaxDepth = 1000

// scanner walks over JSON text. Its methods leave pos behind what they took; after an error pos means nothing.
type scanner struct {
	buf []byte
	pos int
}

// peek skips white space and returns the byte that follows, without taking it. At the end it returns 0, which begins
// no JSON value either.
func (s *scanner) peek() byte {
	for s.pos < len(s.buf) {
		switch c := s.buf[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// unexpected is the error for the byte at pos, where want should have stood.
func (s *scanner) unexpected(want string) *Error {
	if s.pos >= len(s.buf) {
		return newError(CodeBadJSON, len(s.buf), "", "the body is not valid JSON: it ends where %s should follow", want)
	}
	found := fmt.Sprintf("byte 0x%02x", s.buf[s.pos])
	if r, _ := utf8.DecodeRune(s.buf[s.pos:]); r != utf8.RuneError {
		found = fmt.Sprintf("%q", r)
	}
	return newError(CodeBadJSON, s.pos, "", "the body is not valid JSON: found %s at byte %d where %s should stand",
		found, s.pos, want)
}

// end takes the white space after the outermost value and refuses anything else there.
func (s *scanner) end() *Error {
	if s.peek(); s.pos < len(s.buf) {
		return s.unexpected("nothing more")
	}
	return nil
}

// more steps to the next element of an array, or member of an object, whose opening bracket has been taken. It takes
// the comma before it, or the closing bracket; then it reports false.
func (s *scanner) more(first bool, closing byte) (bool, *Error) {
	c := s.peek()
	switch {
	case c == closing:
		s.pos++
		return false, nil
	case first:
		return true, nil
	case c != ',':
		return false, s.unexpected(fmt.Sprintf(`"," or %q`, closing))
	}
	s.pos++
	return true, nil
}

// name takes a member's name and the colon behind it. Its result is that of str.
func (s *scanner) name() (raw []byte, plain bool, err *Error) {
	if s.peek() != '"' {
		return nil, false, s.unexpected("a name in quotes")
	}
	if raw, plain, err = s.str(); err != nil {
		return nil, false, err
	}
	if s.peek() != ':' {
		return nil, false, s.unexpected(`":"`)
	}
	s.pos++
	return raw, plain, nil
}

const (
	everyByte = 0x0101010101010101
	highBits  = 0x80 * everyByte
)

// special marks with its high bit each byte of w that is a control character, a quote or a backslash. Only the lowest
// mark is exact: bytes above a marked one may be marked wrongly.
func special(w uint64) uint64 {
	quote := w ^ '"'*everyByte
	slash := w ^ '\\'*everyByte
	marks := (quote-everyByte)&^quote | (slash-everyByte)&^slash | (w-' '*everyByte)&^w
	return marks & highBits
}

// isSpecial is special for one byte.
func isSpecial(c byte) bool { return c < ' ' || c == '"' || c == '\\' }

// plainLen is the length of the beginning of b that is ASCII and stands in a JSON string as it is.
func plainLen(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		if m := special(w) | w&highBits; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for i < len(b) && b[i] < utf8.RuneSelf && !isSpecial(b[i]) {
		i++
	}
	return i
}

// str takes a string, at whose opening quote pos must stand. raw is what stands between the quotes; if plain, it is the
// text itself, in valid UTF-8, else unquote makes the text from it.
func (s *scanner) str() (raw []byte, plain bool, err *Error) {
	start := s.pos + 1
	i := start
	plain = true
	var high uint64 // has a high bit when a byte outside ASCII was seen
	for {
		for i+8 <= len(s.buf) {
			w := binary.LittleEndian.Uint64(s.buf[i:])
			m := special(w)
			if m == 0 {
				high |= w
				i += 8
				continue
			}
			n := bits.TrailingZeros64(m) / 8
			high |= w & (1<<(8*n) - 1)
			i += n
			break
		}
		for i < len(s.buf) && !isSpecial(s.buf[i]) {
			high |= uint64(s.buf[i])
			i++
		}
		if i >= len(s.buf) {
			s.pos = i
			return nil, false, s.unexpected(`the closing quote of a string`)
		}
		switch s.buf[i] {
		case '"':
			s.pos = i + 1
			raw = s.buf[start:i:i]
			return raw, plain && (high&highBits == 0 || utf8.Valid(raw)), nil
		case '\\':
			n := escapeLen(s.buf[i:])
			if n == 0 {
				s.pos = i
				return nil, false, newError(CodeBadJSON, i, `In a JSON string a backslash is written \\.`,
					"the body is not valid JSON: invalid escape sequence in the string at byte %d", i)
			}
			plain = false
			i += n
		default:
			s.pos = i
			return nil, false, newError(CodeBadJSON, i, `In a JSON string a line break is written \n, a tab \t.`,
				"the body is not valid JSON: control character 0x%02x in the string at byte %d", s.buf[i], i)
		}
	}
}

// escapeLen is the length of the escape sequence that b begins with, or 0 if it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(b[2:]); ok {
			return 6
		}
	}
	return 0
}

// number takes a number. whole tells that it has neither fraction nor exponent.
func (s *scanner) number() (raw []byte, whole bool, err *Error) {
	start := s.pos
	if s.at() == '-' {
		s.pos++
	}
	if s.at() == '0' {
		s.pos++
	} else if !s.digits() {
		return nil, false, s.unexpected("a digit")
	}
	whole = true
	if s.at() == '.' {
		whole = false
		s.pos++
		if !s.digits() {
			return nil, false, s.unexpected("a digit")
		}
	}
	if c := s.at(); c == 'e' || c == 'E' {
		whole = false
		s.pos++
		if c := s.at(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return nil, false, s.unexpected("a digit")
		}
	}
	return s.buf[start:s.pos], whole, nil
}

// at is the byte at pos, 0 at the end.
func (s *scanner) at() byte {
	if s.pos < len(s.buf) {
		return s.buf[s.pos]
	}
	return 0
}

// digits takes digits and reports whether there was one.
func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.buf) && s.buf[s.pos]-'0' <= 9 {
		s.pos++
	}
	return s.pos > start
}

// literal takes true, false or null.
func (s *scanner) literal(word string) *Error {
	for i := range len(word) {
		if s.at() != word[i] {
			return s.unexpected(word)
		}
		s.pos++
	}
	return nil
}

// skip takes any value, which stands inside depth arrays and objects, and checks its syntax.
func (s *scanner) skip(depth int) (err *Error) {
	switch c := s.peek(); c {
	case '"':
		_, _, err = s.str()
	case 't':
		err = s.literal("true")
	case 'f':
		err = s.literal("false")
	case 'n':
		err = s.literal("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		_, _, err = s.number()
	case '[', '{':
		err = s.skipAll(c, depth+1)
	default:
		err = s.unexpected("a value")
	}
	return err
}

// skipAll is skip for an array or object, which is the depth'th around its elements.
func (s *scanner) skipAll(opening byte, depth int) *Error {
	if depth > MaxDepth {
		return newError(CodeBadJSON, s.pos, "", "the body nests arrays and objects deeper than %d levels", MaxDepth)
	}
	s.pos++
	closing := opening + 2 // '[' and ']', '{' and '}' are two apart
	for first := true; ; first = false {
		more, err := s.more(first, closing)
		if err != nil || !more {
			return err
		}
		if opening == '{' {
			if _, _, err := s.name(); err != nil {
				return err
			}
		}
		if err := s.skip(depth); err != nil {
			return err
		}
	}
}
