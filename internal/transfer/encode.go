package transfer

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"github.com/persqld/persqld/internal/sqlite"
)

// encoder writes values as SQL literals that this engine and the sqlite3 shell, from 3.40 on, read back bit for bit.
type encoder struct {
	buf   [4096]byte
	float oldReader
}

func (e *encoder) value(w *bufio.Writer, v sqlite.Value) {
	switch v.Kind {
	case sqlite.Null:
		w.WriteString("NULL")
	case sqlite.Integer:
		w.Write(strconv.AppendInt(e.buf[:0], v.Int, 10))
	case sqlite.Real:
		w.Write(e.real(e.buf[:0], v.Float))
	case sqlite.Text:
		e.text(w, v.Bytes)
	case sqlite.Blob:
		e.hex(w, v.Bytes)
	}
}

// text writes a text. SQLite takes a zero byte for the end of the statement, the text of an export shall be UTF-8, and
// the shell takes a carriage return away that stands before a newline.
func (e *encoder) text(w *bufio.Writer, b []byte) {
	switch {
	case !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0:
	case bytes.IndexByte(b, '\r') < 0:
		quoteText(w, b, false)
		return
	case len(b) <= maxReplace && !bytes.Contains(b, []byte(`\r`)):
		w.WriteString("replace(")
		quoteText(w, b, true)
		w.WriteString(`,'\r',char(13))`)
		return
	}
	w.WriteString("CAST(")
	e.hex(w, b)
	w.WriteString(" AS TEXT)")
}

// maxReplace is how long a text with carriage returns may be, in bytes, to be written with them replaced: it gets longer,
// and must not pass the bound of a value that the reader has.
const maxReplace = 1 << 20

// quoteText writes b between quotes, carriage returns as \r if asked to.
func quoteText(w *bufio.Writer, b []byte, returns bool) {
	w.WriteByte('\'')
	for len(b) > 0 {
		var n int
		if returns {
			n = bytes.IndexAny(b, "'\r")
		} else {
			n = bytes.IndexByte(b, '\'')
		}
		if n < 0 {
			w.Write(b)
			break
		}
		w.Write(b[:n])
		if b[n] == '\'' {
			w.WriteString("''")
		} else {
			w.WriteString(`\r`)
		}
		b = b[n+1:]
	}
	w.WriteByte('\'')
}

func (e *encoder) hex(w *bufio.Writer, b []byte) {
	w.WriteString("X'")
	for len(b) > 0 {
		n := min(len(b), len(e.buf)/2)
		w.Write(e.buf[:hex.Encode(e.buf[:], b[:n])])
		b = b[n:]
	}
	w.WriteByte('\'')
}

// real writes a number that is read back to the same bits. This engine reads every decimal exactly, so the shortest
// would do; the SQLite that Debian 12 has does not, in one of 10,000 usual numbers and one of 200 extreme ones. Where
// its arithmetic would come to another result, 17 digits are tried, and then an expression that is exact everywhere.
func (e *encoder) real(b []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(b, "1e999"...)
	case math.IsInf(f, -1):
		return append(b, "-1e999"...)
	case f == 0:
		if math.Signbit(f) {
			return append(b, "-0.0"...)
		}
		return append(b, "0.0"...)
	}
	if t := math.Trunc(f); t == f && math.Abs(f) < 1<<53 {
		return append(strconv.AppendInt(b, int64(f), 10), ".0"...)
	}
	for _, digits := range [...]int{-1, 16} {
		out := strconv.AppendFloat(b, f, 'e', digits, 64)
		if !e.float.reads(out[len(b):], f) {
			continue
		}
		if exp := math.Abs(f); exp >= 1e-5 && exp < 1e15 {
			prec := -1
			if digits == 16 { // the same digits, without the exponent
				_, e10, _ := bytes.Cut(out[len(b):], []byte("e"))
				n, _ := strconv.Atoi(string(e10))
				prec = 16 - n
			}
			return strconv.AppendFloat(b, f, 'f', prec, 64)
		}
		return out
	}
	return appendExact(b, f)
}

// appendExact writes f as an integer times or through powers of two, each step of which is exact.
func appendExact(b []byte, f float64) []byte {
	m, exp := math.Frexp(f)
	n := int64(m * (1 << 53)) // whole: a double has 53 bits
	exp -= 53
	zeros := bits.TrailingZeros64(uint64(n))
	n, exp = n>>zeros, exp+zeros
	b = append(strconv.AppendInt(append(b, '('), n, 10), ".0"...)
	op := byte('*')
	if exp < 0 {
		op, exp = '/', -exp
	}
	for exp > 0 {
		step := min(exp, 62)
		b = append(append(strconv.AppendInt(append(b, op), 1<<step, 10), '.'), '0')
		exp -= step
	}
	return append(b, ')')
}

// oldReader works out what SQLite before 3.43 reads a decimal as, on a machine whose long double has 64 bits of mantissa
// (x86): the digits as an integer, times or through a power of ten that is rounded to 64 bits at each multiplication,
// the result rounded to 64 and then to 53 bits.
type oldReader struct {
	powers [308]*big.Float
	a, b   big.Float
}

// reads tells whether a decimal in the form of strconv's 'e' comes to f. It says no too often, never too seldom.
func (o *oldReader) reads(s []byte, f float64) bool {
	if s[0] == '-' {
		s, f = s[1:], -f
	}
	digits, exponent, _ := bytes.Cut(s, []byte("e"))
	e, err := strconv.Atoi(string(exponent))
	if err != nil {
		return false
	}
	var n int64
	for _, c := range digits { // 17 at most
		if c != '.' {
			n = n*10 + int64(c-'0')
		}
	}
	if dot := bytes.IndexByte(digits, '.'); dot >= 0 {
		e -= len(digits) - dot - 1
	}
	for ; e > 0 && n < math.MaxInt64/10; e-- {
		n *= 10
	}
	for ; e < 0 && n%10 == 0; e++ {
		n /= 10
	}
	if e == 0 {
		return float64(n) == f
	}
	if e >= len(o.powers) || -e >= len(o.powers) {
		return false // it takes two steps there
	}
	o.a.SetPrec(64).SetInt64(n)
	o.b.SetPrec(64)
	if e > 0 {
		o.b.Mul(&o.a, o.power(e))
	} else {
		o.b.Quo(&o.a, o.power(-e))
	}
	got, _ := o.b.Float64()
	return got == f
}

// power is 10 to the n as squaring and multiplying in 64 bits makes it.
func (o *oldReader) power(n int) *big.Float {
	if o.powers[n] == nil {
		r, x := newFloat64(1), newFloat64(10)
		for i := n; ; {
			if i&1 != 0 {
				r.Mul(r, x)
			}
			if i >>= 1; i == 0 {
				break
			}
			x.Mul(x, x)
		}
		o.powers[n] = r
	}
	return o.powers[n]
}

func newFloat64(n int64) *big.Float { return new(big.Float).SetPrec(64).SetInt64(n) }
