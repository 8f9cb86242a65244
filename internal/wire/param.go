package wire

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"

	"github.com/persqld/persqld/internal/sqlite"
)

const (
	paramsHint = "params is an array for ? and ?1, or an object for :name, @name and $name."
	valueHint  = `A parameter is null, true, false, a number, a string, or a blob as {"$blob": "<base64>"}.`
	rangeHint  = "Send it as a string, or with a fraction (1.0) or exponent (1e0) to have it stored as REAL."
)

// paramRef is the parameter that is being read, for messages: its name as it was sent, or else its position from 1.
type paramRef struct {
	name     []byte // nil if positional
	position int
}

func (p paramRef) String() string {
	if p.name != nil {
		return "parameter " + shown(p.name)
	}
	return fmt.Sprintf("parameter %d", p.position)
}

// params takes the value of params and adds the parameters to the arena, where this statement's begin at start.
func (d *decoder) params(start int) *Error {
	c := d.peek()
	switch c {
	case 'n':
		return d.literal("null")
	case '[', '{':
		d.pos++
	default:
		return newError(CodeBadRequest, d.pos, paramsHint, "params is neither an array nor an object")
	}
	named := c == '{'
	for first := true; ; first = false {
		more, err := d.more(first, c+2) // the closing bracket
		if err != nil || !more {
			return err
		}
		ref := paramRef{position: len(d.arena.params) - start + 1}
		if named {
			raw, plain, err := d.name()
			if err != nil {
				return err
			}
			ref.name = d.arena.text(raw, plain)
			if len(ref.name) == 0 {
				return newError(CodeBadRequest, d.pos, paramsHint, "a parameter's name in params is empty")
			}
		}
		var p sqlite.Param
		if err := d.value(&p.Value, ref); err != nil {
			return err
		}
		if named {
			p.Name = d.arena.name(ref.name)
			d.arena.addNamed(start, p)
		} else {
			d.arena.params = append(d.arena.params, p)
		}
		if len(d.arena.params)-start > d.lim.Params {
			return newError(CodeTooManyParams, d.pos, "", "a statement has at most %d parameters", d.lim.Params)
		}
	}
}

// value takes a parameter's value into v, which is NULL.
func (d *decoder) value(v *sqlite.Value, ref paramRef) *Error {
	switch d.peek() {
	case '"':
		raw, plain, err := d.str()
		if err != nil {
			return err
		}
		v.Kind, v.Bytes = sqlite.Text, d.arena.text(raw, plain)
		return nil
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return d.numeric(v, ref)
	case 'n':
		return d.literal("null")
	case 't':
		v.Kind, v.Int = sqlite.Integer, 1
		return d.literal("true")
	case 'f':
		v.Kind = sqlite.Integer
		return d.literal("false")
	case '{':
		return d.blob(v, ref)
	case '[':
		return newError(CodeTypeMismatch, d.pos, valueHint, "%s is an array, which is not a SQLite value", ref)
	}
	return d.unexpected("a value")
}

func (d *decoder) numeric(v *sqlite.Value, ref paramRef) *Error {
	at := d.pos
	raw, whole, err := d.number()
	if err != nil {
		return err
	}
	if !whole {
		// The only error that is left is that of the range, and then the number is ±Inf, as the contract wants it.
		v.Kind = sqlite.Real
		v.Float, _ = strconv.ParseFloat(string(raw), 64)
		return nil
	}
	n, ok := parseInt(raw)
	if !ok {
		return newError(CodeTypeMismatch, at, rangeHint, "%s is a whole number outside the 64-bit range, %d to %d",
			ref, int64(math.MinInt64), int64(math.MaxInt64))
	}
	v.Kind, v.Int = sqlite.Integer, n
	return nil
}

// parseInt is the value of a whole JSON number, false if it has no 64 bits' place.
func parseInt(raw []byte) (int64, bool) {
	negative := raw[0] == '-'
	if negative {
		raw = raw[1:]
	}
	if len(raw) > len("9223372036854775808") { // JSON allows no leading zeros
		return 0, false
	}
	var n uint64 // 19 digits can't overflow it
	for _, c := range raw {
		n = n*10 + uint64(c-'0')
	}
	if negative {
		return -int64(n), n <= 1<<63
	}
	return int64(n), n <= math.MaxInt64
}

// blob takes {"$blob": "<base64>"}, the only object that is a value.
func (d *decoder) blob(v *sqlite.Value, ref paramRef) *Error {
	at := d.pos
	d.pos++
	given := false
	for first := true; ; first = false {
		more, err := d.more(first, '}')
		if err != nil {
			return err
		}
		if !more {
			break
		}
		raw, plain, err := d.name()
		if err != nil {
			return err
		}
		if string(d.arena.text(raw, plain)) != "$blob" {
			return newError(CodeTypeMismatch, at, valueHint, "%s is an object, which is not a SQLite value", ref)
		}
		given = true
		if d.peek() != '"' {
			return newError(CodeTypeMismatch, d.pos, valueHint, "%s: $blob is not a string", ref)
		}
		start := d.pos
		if raw, plain, err = d.str(); err != nil {
			return err
		}
		ok := false
		if v.Bytes, ok = d.arena.base64(d.arena.text(raw, plain)); !ok {
			return newError(CodeTypeMismatch, start, valueHint, "%s: $blob is not base64", ref)
		}
	}
	if !given {
		return newError(CodeTypeMismatch, at, valueHint, "%s is an object, which is not a SQLite value", ref)
	}
	v.Kind = sqlite.Blob
	return nil
}

// base64 decodes text, which may use the standard or the URL-safe alphabet, with or without padding. Line breaks in it
// are passed over, as MIME encoders put them there.
func (a *arena) base64(text []byte) ([]byte, bool) {
	enc := base64.RawStdEncoding
	padded := bytes.IndexByte(text, '=') >= 0
	urlSafe := bytes.IndexByte(text, '-') >= 0 || bytes.IndexByte(text, '_') >= 0
	switch {
	case padded && urlSafe:
		enc = base64.URLEncoding
	case padded:
		enc = base64.StdEncoding
	case urlSafe:
		enc = base64.RawURLEncoding
	}
	a.reserve(enc.DecodedLen(len(text)))
	start := len(a.scratch)
	n, err := enc.Decode(a.scratch[start:cap(a.scratch)], text)
	if err != nil {
		return nil, false
	}
	end := start + n
	a.scratch = a.scratch[:end]
	return a.scratch[start:end:end], true
}
