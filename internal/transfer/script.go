package transfer

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"
)

// script reads SQL text in pieces, no more of it than a statement needs.
type script struct {
	r    io.Reader
	buf  []byte
	from int // where the next statement begins in buf
	eof  bool
	scan scanner
	max  int // bytes of a statement

	offset int64 // of the next statement in the text
	line   int64 // complete lines before it
}

// readSize is how much is read at a time, in bytes.
const readSize = 64 << 10

// piece is the text from the next statement to where it probably ends, but at least min bytes if there are as many.
// last says that it goes to the end of the text. It is valid until the next call. With errTooLong it is a beginning.
func (s *script) piece(min int) (b []byte, last bool, err error) {
	s.scan = scanner{}
	cut := 0 // pieces that were found too short end here
	for {
		rest := s.buf[s.from:]
		if n := s.scan.scan(rest[cut:], s.eof); n >= 0 {
			cut += n
			if cut >= min {
				return rest[:cut], s.eof && cut == len(rest), nil
			}
			continue
		}
		if s.eof {
			return rest, true, nil
		}
		if len(rest) > s.max {
			return rest, false, errTooLong
		}
		if err := s.more(); err != nil {
			return nil, false, err
		}
	}
}

var errTooLong = errors.New("the statement is too long")

// more reads on.
func (s *script) more() error {
	if s.from > 0 {
		// What was taken makes room, once it is worth the copying.
		rest := len(s.buf) - s.from
		if big := cap(s.buf) > 1<<20 && rest < cap(s.buf)/8; big {
			s.buf = append(make([]byte, 0, 2*max(rest, readSize)), s.buf[s.from:]...)
			s.from = 0
		} else if s.from >= rest {
			s.buf = s.buf[:copy(s.buf, s.buf[s.from:])]
			s.from = 0
		}
	}
	if cap(s.buf)-len(s.buf) < readSize {
		grown := make([]byte, len(s.buf), max(2*cap(s.buf), len(s.buf)+readSize))
		copy(grown, s.buf)
		s.buf = grown
	}
	n, err := s.r.Read(s.buf[len(s.buf) : len(s.buf)+readSize])
	s.buf = s.buf[:len(s.buf)+n]
	if errors.Is(err, io.EOF) {
		s.eof = true
		return nil
	}
	return err
}

// take moves past n bytes.
func (s *script) take(n int) {
	s.line += int64(bytes.Count(s.buf[s.from:s.from+n], []byte("\n")))
	s.from += n
	s.offset += int64(n)
}

// shown is how much of a statement an error shows, in characters.
const shown = 80

// place is where the statement at the beginning of b stands, which is the next one.
func (s *script) place(number int64, b []byte) *Place {
	skip := blank(b)
	p := &Place{Statement: number, Offset: s.offset + int64(skip), Line: 1 + s.line + int64(bytes.Count(b[:skip], []byte("\n")))}
	text := b[skip:]
	end := 0
	for i := 0; i < shown && end < len(text); i++ {
		_, n := utf8.DecodeRune(text[end:])
		end += n
	}
	p.SQL = string(bytes.ToValidUTF8(text[:end], []byte("\ufffd")))
	return p
}

// blank is the length of the white space and comments that b begins with.
func blank(b []byte) int {
	n := 0
	for n < len(b) {
		rest := b[n:]
		switch {
		case bytes.IndexByte([]byte(" \t\n\r\f"), rest[0]) >= 0:
			n++
		case bytes.HasPrefix(rest, []byte("--")):
			end := bytes.IndexByte(rest, '\n')
			if end < 0 {
				return len(b)
			}
			n += end + 1
		case bytes.HasPrefix(rest, []byte("/*")):
			end := bytes.Index(rest[2:], []byte("*/"))
			if end < 0 {
				return len(b)
			}
			n += end + 4
		case bytes.HasPrefix(rest, []byte("\xef\xbb\xbf")):
			n += 3
		default:
			return n
		}
	}
	return n
}
