package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/persqld/persqld/internal/sqlite"
)

// MaxClaims is the most bytes of a token's claims, as JSON.
const MaxClaims = 4096

// Claims are what policies know of who has a token: a JSON object, as SQL values. Texts are texts, whole numbers of 64 bits integers, other
// numbers reals, true and false 1 and 0; objects and arrays are texts of JSON.
type Claims struct {
	JSON   string
	values map[string]sqlite.Value
}

// Claim is the value under a key; NULL if there is none.
func (c *Claims) Claim(key string) sqlite.Value { return c.values[key] }

// ParseClaims reads claims. It returns ErrClaims for what isn't an object, or is too long.
func ParseClaims(text []byte) (*Claims, error) {
	if len(text) > MaxClaims {
		return nil, ErrClaims
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		return nil, ErrClaims
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClaims, err)
	}
	c := &Claims{JSON: compact.String(), values: make(map[string]sqlite.Value, len(members))}
	for key, raw := range members {
		c.values[key] = claimValue(raw)
	}
	return c, nil
}

func claimValue(raw json.RawMessage) sqlite.Value {
	switch raw[0] {
	case 'n':
		return sqlite.Value{}
	case 't':
		return sqlite.Value{Kind: sqlite.Integer, Int: 1}
	case 'f':
		return sqlite.Value{Kind: sqlite.Integer}
	case '"':
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return sqlite.Value{Kind: sqlite.Text, Bytes: []byte(s)}
		}
	case '{', '[':
		var compact bytes.Buffer
		if json.Compact(&compact, raw) == nil {
			return sqlite.Value{Kind: sqlite.Text, Bytes: compact.Bytes()}
		}
	default:
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
			return sqlite.Value{Kind: sqlite.Integer, Int: n}
		}
		if f, err := strconv.ParseFloat(string(raw), 64); err == nil {
			return sqlite.Value{Kind: sqlite.Real, Float: f}
		}
	}
	return sqlite.Value{}
}
