package store

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/persqld/persqld/internal/sqlite"
)

// How values stand in the recording: the kind in a byte, then what it takes. A value that is read back is the one that was written, bit for bit.

func appendValue(b []byte, v sqlite.Value) []byte {
	b = append(b, byte(v.Kind))
	switch v.Kind {
	case sqlite.Integer:
		b = binary.AppendVarint(b, v.Int)
	case sqlite.Real:
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(v.Float))
	case sqlite.Text, sqlite.Blob:
		b = binary.AppendUvarint(b, uint64(len(v.Bytes)))
		b = append(b, v.Bytes...)
	}
	return b
}

// AppendValues encodes values compactly, each with its storage class.
func AppendValues(b []byte, values ...sqlite.Value) []byte {
	for i := range values {
		b = appendValue(b, values[i])
	}
	return b
}

var errEncoding = errors.New("a recorded value is damaged")

// ParseValues is what AppendValues has encoded. Their Bytes are parts of b.
func ParseValues(b []byte) (values []sqlite.Value, err error) {
	for len(b) > 0 {
		v := sqlite.Value{Kind: sqlite.Kind(b[0])}
		b = b[1:]
		n := 0
		switch v.Kind {
		case sqlite.Null:
		case sqlite.Integer:
			if v.Int, n = binary.Varint(b); n <= 0 {
				return nil, errEncoding
			}
		case sqlite.Real:
			if n = 8; len(b) < n {
				return nil, errEncoding
			}
			v.Float = math.Float64frombits(binary.BigEndian.Uint64(b))
		case sqlite.Text, sqlite.Blob:
			size, m := binary.Uvarint(b)
			if m <= 0 || size > uint64(len(b)-m) {
				return nil, errEncoding
			}
			n = m + int(size)
			v.Bytes = b[m:n:n]
		default:
			return nil, errEncoding
		}
		b = b[n:]
		values = append(values, v)
	}
	return values, nil
}

// plainNumber is a value in the form that all values share which SQLite takes for equal in a key: 1.0 is 1.
func plainNumber(v sqlite.Value) sqlite.Value {
	if v.Kind == sqlite.Real && v.Float == math.Trunc(v.Float) && v.Float >= -(1<<63) && v.Float < 1<<63 {
		return sqlite.Value{Kind: sqlite.Integer, Int: int64(v.Float)}
	}
	return v
}
