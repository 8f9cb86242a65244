package wire

import (
	"encoding/base64"
	"math"
	"strconv"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/persqld/persqld/internal/sqlite"
)

// AppendNull appends null.
func AppendNull(b []byte) []byte { return append(b, "null"...) }

// AppendInt appends an INTEGER: a number without fraction or exponent, all 64 bits exact.
func AppendInt(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

// exactInt is 2⁵³: whole floats below it are written from their integer, which is several times faster and as short.
const exactInt = 1 << 53

// AppendFloat appends a REAL: the shortest number that reads back to the same bits, always with a fraction or an
// exponent, so that a reader can tell it from an INTEGER. Infinities are ±9e999, which overflows to an infinity in
// every reader that follows IEEE 754. NaN, which SQLite stores as NULL, is null.
func AppendFloat(b []byte, f float64) []byte {
	abs := math.Abs(f)
	switch {
	case abs < exactInt && abs == math.Trunc(abs):
		if math.Signbit(f) {
			b = append(b, '-') // of -0.0 too
		}
		b = strconv.AppendInt(b, int64(abs), 10)
		return append(b, ".0"...)
	case math.IsInf(f, 1):
		return append(b, "9e999"...)
	case math.IsInf(f, -1):
		return append(b, "-9e999"...)
	case math.IsNaN(f):
		return AppendNull(b)
	case abs < 1e-5 || abs >= exactInt:
		return strconv.AppendFloat(b, f, 'e', -1, 64) // always has an exponent
	}
	return strconv.AppendFloat(b, f, 'f', -1, 64) // not whole, so it has a fraction
}

// AppendText appends a TEXT as a JSON string, in valid UTF-8: every byte that belongs to no rune becomes U+FFFD.
func AppendText(b, text []byte) []byte {
	if plainLen(text) == len(text) {
		b = append(b, '"')
		b = append(b, text...)
		return append(b, '"')
	}
	// The error reports invalid UTF-8, which has been replaced by then.
	b, _ = jsontext.AppendQuote(b, text)
	return b
}

// AppendString is AppendText for a string.
func AppendString(b []byte, s string) []byte {
	return AppendText(b, unsafe.Slice(unsafe.StringData(s), len(s))) // only read
}

// AppendBlob appends a BLOB as {"$blob":"…"} in padded standard base64.
func AppendBlob(b, blob []byte) []byte {
	b = append(b, `{"$blob":"`...)
	b = base64.StdEncoding.AppendEncode(b, blob)
	return append(b, `"}`...)
}

// AppendValue appends a value by its kind.
func AppendValue(b []byte, v sqlite.Value) []byte {
	switch v.Kind {
	case sqlite.Integer:
		return AppendInt(b, v.Int)
	case sqlite.Real:
		return AppendFloat(b, v.Float)
	case sqlite.Text:
		return AppendText(b, v.Bytes)
	case sqlite.Blob:
		return AppendBlob(b, v.Bytes)
	}
	return AppendNull(b)
}
