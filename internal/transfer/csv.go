package transfer

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// CSVOptions says how to read CSV. The zero value of a limit is the default beside it.
type CSVOptions struct {
	Header   bool  // the first record names the columns; otherwise they are column1, column2, …
	MaxRows  int64 // records without the header; 100,000
	MaxBytes int64 // of the whole text; 10,000,000
}

// Column is a column of a CSV text.
type Column struct {
	Name string      // not empty, not twice (compared as SQLite does, without case)
	Type sqlite.Kind // Integer, Real or Text: what all values of the first 200 rows are
}

// Table is a CSV text whose every record was looked at.
type Table struct {
	Columns []Column
	Count   int64 // of rows

	text   []byte
	header bool
}

const (
	inferRows       = 200
	defaultCSVRows  = 100_000
	defaultCSVBytes = 10_000_000
)

// ReadCSV reads a CSV text (RFC 4180, UTF-8 with or without a byte order mark, lines that end in LF or CRLF), which it
// holds in memory, and tells its columns. It is strict: a quote in a field that has none around it, or that isn't closed,
// is an error, and every record must have as many fields as the first.
//
// A column is Integer or Real if every value of the first 200 rows is, empty ones apart, and is written like a number
// whose digits all count: 007, +1, 1_000, true and 2024-01-01 are texts. A later value that is no number is kept as a text;
// if it looks like one to SQLite, which would make a number of it in such a column (007), the column is Text after all.
func ReadCSV(r io.Reader, opt CSVOptions) (*Table, error) {
	if opt.MaxRows <= 0 {
		opt.MaxRows = defaultCSVRows
	}
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = defaultCSVBytes
	}
	b, err := io.ReadAll(io.LimitReader(r, opt.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read CSV: %w", err)
	}
	if int64(len(b)) > opt.MaxBytes {
		return nil, &Error{Reason: ReasonTooLarge, Message: fmt.Sprintf("The CSV text is longer than %d bytes, which is the limit", opt.MaxBytes),
			Hint: "split it and append the parts"}
	}
	t := &Table{text: bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), header: opt.Header}
	var names []string
	var first [][]string // what the types are inferred from
	settle := func() {
		for i := range t.Columns {
			t.Columns[i].Type = infer(first, i)
		}
		for _, fields := range first {
			t.check(fields)
		}
	}
	for fields, err := range t.records(false) {
		if err != nil {
			return nil, err
		}
		if t.Columns == nil {
			if names = make([]string, len(fields)); opt.Header {
				copy(names, fields)
			}
			if len(names) > maxColumns {
				return nil, &Error{Reason: ReasonTooLarge, Message: fmt.Sprintf("The CSV text has %d columns, the limit is %d", len(names), maxColumns)}
			}
			for _, name := range unique(names) {
				t.Columns = append(t.Columns, Column{Name: name})
			}
			if opt.Header {
				continue
			}
		}
		if t.Count++; t.Count > opt.MaxRows {
			return nil, &Error{Reason: ReasonTooLarge, Message: fmt.Sprintf("The CSV text has more than %d rows, which is the limit", opt.MaxRows),
				Hint: "split it and append the parts"}
		}
		if t.Count <= inferRows {
			first = append(first, slices.Clone(fields))
			if t.Count == inferRows {
				settle()
			}
			continue
		}
		t.check(fields)
	}
	if t.Columns == nil {
		return nil, &Error{Reason: ReasonCSV, Message: "The CSV text is empty", Hint: "send a header, or at least one row"}
	}
	if t.Count < inferRows {
		settle()
	}
	return t, nil
}

// records reads the text from its beginning. The fields are valid until the next record.
func (t *Table) records(skipHeader bool) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		r := csv.NewReader(bytes.NewReader(t.text))
		r.ReuseRecord = true
		for {
			fields, err := r.Read()
			var parse *csv.ParseError
			switch {
			case errors.Is(err, io.EOF):
				return
			case errors.Is(err, csv.ErrFieldCount) && errors.As(err, &parse):
				err = &Error{Reason: ReasonCSV, Message: fmt.Sprintf("Line %d has %d fields, the first record has %d", parse.StartLine, len(fields), r.FieldsPerRecord),
					Hint: "a field with a comma, a quote or a newline in it needs quotes around it", err: err}
			case errors.As(err, &parse):
				err = &Error{Reason: ReasonCSV, Message: fmt.Sprintf("Line %d: %v", parse.StartLine, parse.Err), Hint: "a field with a quote in it is written in quotes, with the quote doubled", err: err}
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if skipHeader {
				skipHeader = false
				continue
			}
			if !yield(fields, nil) {
				return
			}
		}
	}
}

// check makes a column Text that would not give a value back.
func (t *Table) check(fields []string) {
	for i, field := range fields {
		c := &t.Columns[i]
		if c.Type == sqlite.Text || field == "" {
			continue
		}
		switch v := number(field); v.Kind {
		case sqlite.Text:
			if looksNumeric.MatchString(field) {
				c.Type = sqlite.Text
			}
		case sqlite.Integer:
			if c.Type == sqlite.Real && (v.Int > 1<<53 || v.Int < -1<<53) {
				c.Type = sqlite.Text
			}
		}
	}
}

// looksNumeric is what SQLite makes a number of in a column for numbers.
var looksNumeric = regexp.MustCompile(`^[ \t\n\v\f\r]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\v\f\r]*$`)

// unique makes names of what a header says: none empty, none twice.
func unique(names []string) []string {
	taken := map[string]bool{}
	for _, n := range names {
		taken[lower(strings.TrimSpace(n))] = true
	}
	used := map[string]bool{}
	out := make([]string, len(names))
	for i, n := range names {
		n = strings.ReplaceAll(strings.TrimSpace(strings.ToValidUTF8(n, "\ufffd")), "\x00", "")
		base := n
		if n == "" {
			base = fmt.Sprintf("column%d", i+1)
			if n = base; taken[lower(n)] || used[lower(n)] {
				n = ""
			}
		}
		for k := 2; n == "" || used[lower(n)]; k++ {
			if n = fmt.Sprintf("%s_%d", base, k); taken[lower(n)] {
				n = ""
			}
		}
		used[lower(n)] = true
		out[i] = n
	}
	return out
}

// infer is the type that fits all values of a column among the first rows. Empty ones fit every type.
func infer(rows [][]string, column int) sqlite.Kind {
	kind := sqlite.Null
	for _, fields := range rows {
		if fields[column] == "" {
			continue
		}
		switch k := number(fields[column]).Kind; {
		case k == sqlite.Text:
			return sqlite.Text
		case k == sqlite.Real || kind == sqlite.Null:
			kind = k
		}
	}
	if kind == sqlite.Null {
		return sqlite.Text
	}
	return kind
}

// number reads a field as a number, if the number tells all that the field does; else as a text.
func number(s string) sqlite.Value {
	asText := sqlite.Value{Kind: sqlite.Text, Bytes: []byte(s)}
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || len(s) > 32 {
		return asText
	}
	if digits[0] == '0' && len(digits) > 1 && digits[1] != '.' && digits[1] != 'e' && digits[1] != 'E' {
		return asText // leading zeros: a code, not a quantity
	}
	if !('0' <= digits[0] && digits[0] <= '9') || strings.Trim(digits, "0123456789.eE+-") != "" {
		return asText // also inf, nan, 0x1, 1_000
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if s == "-0" {
			return asText
		}
		return sqlite.Value{Kind: sqlite.Integer, Int: n}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || significant(s) > 17 {
		return asText // a number of 20 digits is one that a double would round
	}
	return sqlite.Value{Kind: sqlite.Real, Float: f}
}

// significant counts the digits of a decimal without leading zeros.
func significant(s string) (n int) {
	for _, c := range s {
		switch {
		case c == 'e' || c == 'E':
			return n
		case '0' <= c && c <= '9' && (n > 0 || c != '0'):
			n++
		}
	}
	return n
}

// Rows are the rows in order. A row has a value for each column: NULL for an empty field, a number where the column is
// one and the field reads so, and the text as it stands otherwise. It is valid until the next.
func (t *Table) Rows() iter.Seq[[]sqlite.Param] {
	return func(yield func([]sqlite.Param) bool) {
		row := make([]sqlite.Param, len(t.Columns))
		for fields, err := range t.records(t.header) {
			if err != nil {
				return // ReadCSV has seen that there is none
			}
			for i, field := range fields {
				row[i].Value = t.Columns[i].value(field)
			}
			if !yield(row) {
				return
			}
		}
	}
}

// value is a field as a value of the column.
func (c Column) value(field string) sqlite.Value {
	if field == "" {
		return sqlite.Value{}
	}
	if c.Type != sqlite.Text {
		v := number(field)
		if c.Type == sqlite.Real && v.Kind == sqlite.Integer {
			v = sqlite.Value{Kind: sqlite.Real, Float: float64(v.Int)}
		}
		return v
	}
	return sqlite.Value{Kind: sqlite.Text, Bytes: []byte(field)}
}
