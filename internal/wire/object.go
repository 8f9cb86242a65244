package wire

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// DecodeObject reads the body of a call that is made rarely into the struct v points to, by the field names and tags of
// encoding/json/v2. It accepts the JSON the package's documentation describes. An empty body and null are as good
// as {}; fields that are not named keep their value. The error is an [*Error]: bad_json, or bad_request naming the
// field and what it must be. Errors of a field's own unmarshaling methods are repeated to the client.
func DecodeObject(body []byte, v any) error {
	s := scanner{buf: body}
	c := s.peek()
	if s.pos == len(body) {
		return nil
	}
	if err := s.skip(0); err != nil {
		return err
	}
	if err := s.end(); err != nil {
		return err
	}
	switch c {
	case 'n':
		return nil
	case '{':
	default:
		return newError(CodeBadRequest, 0, "", "the body is not a JSON object")
	}
	err := json.Unmarshal(body, v, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err == nil {
		return nil
	}
	if se, ok := errors.AsType[*json.SemanticError](err); ok {
		return objectError(se)
	}
	return newError(CodeBadJSON, 0, "", "the body is not valid JSON")
}

// objectError words what json says about a value and its Go type without naming the type.
func objectError(se *json.SemanticError) *Error {
	offset := int(se.ByteOffset)
	field := fieldPath(se.JSONPointer)
	want, got := "", kindWord(se.JSONKind)
	if se.GoType != nil {
		want = typeWord(se.GoType)
	}
	switch {
	case errors.Is(se.Err, strconv.ErrRange):
		return newError(CodeBadRequest, offset, "", "%s is a number out of range", field)
	case se.JSONKind == '0' && want == wholeNumber:
		return newError(CodeBadRequest, offset, "", "%s must be %s", field, want)
	case want != "" && got != "" && want != got:
		return newError(CodeBadRequest, offset, "", "%s must be %s, not %s", field, want, got)
	case se.Err != nil:
		return newError(CodeBadRequest, offset, "", "%s can't be used: %s", field, se.Err)
	}
	return newError(CodeBadRequest, offset, "", "%s has a value that can't be used", field)
}

// fieldPath writes the pointer /tables/0/name as tables[0].name.
func fieldPath(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if _, err := strconv.Atoi(token); err == nil {
			fmt.Fprintf(&b, "[%s]", token)
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		if len(token) > maxShown {
			token = strings.ToValidUTF8(token[:maxShown], "") + "…"
		}
		b.WriteString(token)
	}
	if b.Len() == 0 {
		return "the body"
	}
	return b.String()
}

const wholeNumber = "a whole number"

// typeWord says which JSON a Go type is written as; it is empty for types with a form of their own.
func typeWord(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return typeWord(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return wholeNumber
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "a string"
		}
		return "an array"
	case reflect.Map:
		return "an object"
	case reflect.Struct:
		if t.PkgPath() == "time" {
			return "a string"
		}
		return "an object"
	}
	return ""
}

func kindWord(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "true or false"
	case '0':
		return "a number"
	case '"':
		return "a string"
	case '[':
		return "an array"
	case '{':
		return "an object"
	}
	return ""
}
