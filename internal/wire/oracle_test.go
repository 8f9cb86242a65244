package wire_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/wire"
)

// The contract's decoder once more, slow and plain, upon encoding/json: what the fuzz targets compare with. A failure is
// only a code.

// nesting is how deep arrays and objects stand inside each other in valid JSON.
func nesting(body []byte) (deepest int) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	for depth := 0; ; {
		token, err := dec.Token()
		if err != nil {
			return deepest
		}
		if d, ok := token.(json.Delim); ok {
			if d == '[' || d == '{' {
				depth++
				deepest = max(deepest, depth)
			} else {
				depth--
			}
		}
	}
}

// members splits a JSON object, as encoding/json does into a map, in the order in which names first stand.
func members(raw json.RawMessage) (names []string, values map[string]json.RawMessage, ok bool) {
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || raw[0] != '{' {
		return nil, nil, false
	}
	if json.Unmarshal(raw, &values) != nil {
		return nil, nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil {
		return nil, nil, false
	}
	for dec.More() {
		name, err := dec.Token()
		var value json.RawMessage
		if err != nil || dec.Decode(&value) != nil {
			return nil, nil, false
		}
		if n := name.(string); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names, values, true
}

func oracleString(raw json.RawMessage) (s string, ok bool) {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return "", false
	}
	s, ok = v.(string)
	return s, ok
}

func oracleValue(raw json.RawMessage) (v sqlite.Value, code string) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var value any
	if dec.Decode(&value) != nil {
		return v, wire.CodeBadJSON
	}
	switch x := value.(type) {
	case nil:
		return sqlite.Value{}, ""
	case bool:
		if x {
			return integer(1).Value, ""
		}
		return integer(0).Value, ""
	case string:
		return text(x).Value, ""
	case json.Number:
		if !strings.ContainsAny(x.String(), ".eE") {
			n, err := strconv.ParseInt(x.String(), 10, 64)
			if err != nil {
				return v, wire.CodeTypeMismatch
			}
			return integer(n).Value, ""
		}
		f, err := strconv.ParseFloat(x.String(), 64)
		if err != nil && !math.IsInf(f, 0) {
			return v, wire.CodeBadJSON
		}
		return float(f).Value, ""
	case map[string]any:
		s, ok := x["$blob"].(string)
		if !ok || len(x) != 1 {
			return v, wire.CodeTypeMismatch
		}
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			if b, err := enc.DecodeString(s); err == nil {
				return blob(b...).Value, ""
			}
		}
	}
	return v, wire.CodeTypeMismatch
}

func oracleStatement(names []string, values map[string]json.RawMessage, lim wire.Limits) (st wire.Statement, codes []string) {
	if raw, given := values["sql"]; !given {
		codes = append(codes, wire.CodeBadRequest)
	} else if s, ok := oracleString(raw); !ok {
		codes = append(codes, wire.CodeBadRequest)
	} else if len(s) > lim.SQLBytes {
		codes = append(codes, wire.CodeSQLTooLong)
	} else {
		st.SQL = []byte(s)
	}
	raw := bytes.TrimSpace(values["params"])
	var array []json.RawMessage
	switch {
	case len(raw) == 0 || string(raw) == "null":
	case raw[0] == '[':
		if json.Unmarshal(raw, &array) != nil {
			return st, []string{wire.CodeBadJSON}
		}
		for _, e := range array {
			v, code := oracleValue(e)
			if code != "" {
				codes = append(codes, code)
			}
			st.Params = append(st.Params, sqlite.Param{Value: v})
		}
	case raw[0] == '{':
		pnames, pvalues, _ := members(raw)
		for _, name := range pnames {
			v, code := oracleValue(pvalues[name])
			if code != "" {
				codes = append(codes, code)
			}
			if name == "" {
				codes = append(codes, wire.CodeBadRequest)
			}
			st.Params = append(st.Params, sqlite.Param{Name: name, Value: v})
		}
	default:
		codes = append(codes, wire.CodeBadRequest)
	}
	if len(st.Params) > lim.Params {
		codes = append(codes, wire.CodeTooManyParams)
	}
	return st, codes
}

// oracleQuery returns what the body says, or the codes any of which is right.
func oracleQuery(body []byte, lim wire.Limits) (wire.Statement, []string) {
	if !json.Valid(body) || nesting(body) > wire.MaxDepth {
		return wire.Statement{}, []string{wire.CodeBadJSON}
	}
	names, values, ok := members(body)
	if !ok {
		return wire.Statement{}, []string{wire.CodeBadRequest}
	}
	return oracleStatement(names, values, lim)
}

// oracleBatch is oracleQuery for batches.
func oracleBatch(body []byte, lim wire.Limits) (sts []wire.Statement, transaction bool, codes []string) {
	if !json.Valid(body) || nesting(body) > wire.MaxDepth {
		return nil, false, []string{wire.CodeBadJSON}
	}
	_, values, ok := members(body)
	if !ok {
		return nil, false, []string{wire.CodeBadRequest}
	}
	switch raw := string(bytes.TrimSpace(values["transaction"])); raw {
	case "true":
		transaction = true
	case "", "false", "null":
	default:
		codes = append(codes, wire.CodeBadRequest)
	}
	var array []json.RawMessage
	if raw := bytes.TrimSpace(values["statements"]); len(raw) == 0 || raw[0] != '[' || json.Unmarshal(raw, &array) != nil || len(array) == 0 {
		return nil, false, append(codes, wire.CodeBadRequest)
	}
	if len(array) > lim.Statements {
		codes = append(codes, wire.CodeTooManyStatements)
	}
	for _, e := range array {
		names, values, ok := members(e)
		if !ok {
			codes = append(codes, wire.CodeBadRequest)
			continue
		}
		st, bad := oracleStatement(names, values, lim)
		codes = append(codes, bad...)
		sts = append(sts, st)
	}
	return sts, transaction, codes
}

// repeatsName tells whether a name stands twice in some object of a valid body. A mistake in a member that a later one of
// the same name replaces is an error to one who reads in one pass, and none to the oracle.
func repeatsName(raw []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	type level struct {
		names  map[string]bool // nil in an array
		isName bool
	}
	var levels []level
	for {
		token, err := dec.Token()
		if err != nil {
			return false
		}
		if d, ok := token.(json.Delim); ok && (d == ']' || d == '}') {
			levels = levels[:len(levels)-1]
			continue
		}
		if n := len(levels); n > 0 && levels[n-1].names != nil {
			top := &levels[n-1]
			if top.isName {
				name := token.(string)
				if top.names[name] {
					return true
				}
				top.names[name] = true
				top.isName = false
				continue
			}
			top.isName = true
		}
		switch token {
		case json.Delim('['):
			levels = append(levels, level{})
		case json.Delim('{'):
			levels = append(levels, level{names: map[string]bool{}, isName: true})
		}
	}
}

// bits is a value that compares with ==, floats bit for bit.
type bits struct {
	name  string
	kind  sqlite.Kind
	int   int64
	float uint64
	bytes string
}

func normal(params []sqlite.Param) []bits {
	out := make([]bits, len(params))
	for i, p := range params {
		out[i] = bits{p.Name, p.Kind, p.Int, math.Float64bits(p.Float), string(p.Bytes)}
	}
	return out
}

func sameStatements(a, b []wire.Statement) bool {
	return slices.EqualFunc(a, b, func(a, b wire.Statement) bool {
		return bytes.Equal(a.SQL, b.SQL) && slices.Equal(normal(a.Params), normal(b.Params))
	})
}
