package transfer

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
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

// Table is a CSV text that is being read.
type Table struct {
	Columns []Column

	csv   *csv.Reader
	limit *limitedReader
	opt   CSVOptions
	first []record // what the types were inferred from
	ended error    // why reading stopped among them
}

// record is a row and the line that it begins in.
type record struct {
	fields []string
	line   int
}

const (
	inferRows       = 200
	defaultCSVRows  = 100_000
	defaultCSVBytes = 10_000_000
)

// ReadCSV reads the beginning of a CSV text (RFC 4180, UTF-8 with or without a byte order mark, lines that end in LF or
// CRLF) and tells its columns. The rest is read by Rows. A quote within a field that has none around it is taken as it
// stands; every record must have as many fields as the first. A column is Integer or Real if each value among the first
// 200 rows reads so and is written as SQLite would write it or without loss: 007, 1_000, true and 2024-01-01 are texts.
func ReadCSV(r io.Reader, opt CSVOptions) (*Table, error) {
	if opt.MaxRows <= 0 {
		opt.MaxRows = defaultCSVRows
	}
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = defaultCSVBytes
	}
	limit := &limitedReader{r: r, left: opt.MaxBytes}
	buf := bufio.NewReader(limit)
	if mark, _ := buf.Peek(3); string(mark) == "\xef\xbb\xbf" {
		buf.Discard(3)
	}
	t := &Table{csv: csv.NewReader(buf), limit: limit, opt: opt}
	t.csv.LazyQuotes = true
	var names []string
	if opt.Header {
		head, err := t.record()
		if errors.Is(err, io.EOF) {
			return nil, &Error{Reason: ReasonCSV, Message: "The CSV text is empty", Hint: "its first line should name the columns"}
		}
		if err != nil {
			return nil, err
		}
		names = head.fields
	}
	for len(t.first) < inferRows {
		rec, err := t.record()
		if err != nil {
			t.ended = err
			break
		}
		t.first = append(t.first, rec)
	}
	if t.ended != nil && !errors.Is(t.ended, io.EOF) {
		return nil, t.ended
	}
	if names == nil {
		if len(t.first) == 0 {
			return nil, &Error{Reason: ReasonCSV, Message: "The CSV text is empty", Hint: "send at least one row"}
		}
		names = make([]string, len(t.first[0].fields))
	}
	if len(names) > maxColumns {
		return nil, &Error{Reason: ReasonTooLarge, Message: fmt.Sprintf("The CSV text has %d columns, the limit is %d", len(names), maxColumns)}
	}
	for i, name := range unique(names) {
		t.Columns = append(t.Columns, Column{Name: name, Type: t.infer(i)})
	}
	return t, nil
}

// record reads one row.
func (t *Table) record() (record, error) {
	fields, err := t.csv.Read()
	if t.limit.over {
		return record{}, &Error{Reason: ReasonTooLarge, Message: fmt.Sprintf("The CSV text is longer than %d bytes, which is the limit", t.opt.MaxBytes),
			Hint: "split it and append the parts"}
	}
	var parse *csv.ParseError
	switch {
	case errors.As(err, &parse) && errors.Is(err, csv.ErrFieldCount):
		return record{}, &Error{Reason: ReasonCSV, Message: fmt.Sprintf("Line %d has %d fields, the first has %d", parse.Line, len(fields), t.csv.FieldsPerRecord),
			Hint: "a field with a comma, a quote or a newline in it needs quotes around it", err: err}
	case errors.As(err, &parse):
		return record{}, &Error{Reason: ReasonCSV, Message: fmt.Sprintf("Line %d: %v", parse.StartLine, parse.Err),
			Hint: "a quoted field isn't closed", err: err}
	case err != nil:
		return record{}, err
	}
	line, _ := t.csv.FieldPos(0)
	return record{fields: fields, line: line}, nil
}

// limitedReader ends with an error behind what it may read.
type limitedReader struct {
	r    io.Reader
	left int64
	over bool
}

func (l *limitedReader) Read(b []byte) (int, error) {
	if int64(len(b)) > l.left+1 {
		b = b[:l.left+1]
	}
	n, err := l.r.Read(b)
	if int64(n) > l.left {
		l.over = true
		return 0, errors.New("too long")
	}
	l.left -= int64(n)
	return n, err
}

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
func (t *Table) infer(column int) sqlite.Kind {
	kind := sqlite.Null
	for _, r := range t.first {
		if column >= len(r.fields) || r.fields[column] == "" {
			continue
		}
		switch k := number(r.fields[column]).Kind; {
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

// Rows reads the rows, once, each with the number of the line that it begins in. A row has a value for each column: NULL
// for an empty field, a number where the column is one and the field reads so, and the text as it stands otherwise. The
// row is valid until the next. An error is the last that comes; an *Error has its line in it.
func (t *Table) Rows() iter.Seq2[[]sqlite.Param, error] {
	return func(yield func([]sqlite.Param, error) bool) {
		row := make([]sqlite.Param, len(t.Columns))
		var count int64
		for i := 0; ; i++ {
			var rec record
			var err error
			switch {
			case i < len(t.first):
				rec = t.first[i]
			case t.ended != nil:
				err = t.ended
			default:
				rec, err = t.record()
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if count++; err == nil && count > t.opt.MaxRows {
				err = &Error{Reason: ReasonTooLarge, Message: fmt.Sprintf("Line %d: the CSV text has more than %d rows, which is the limit", rec.line, t.opt.MaxRows),
					Hint: "split it and append the parts"}
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for c, field := range rec.fields {
				row[c].Value = t.Columns[c].value(field)
			}
			if !yield(row, nil) {
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
		switch v := number(field); {
		case v.Kind == c.Type:
			return v
		case c.Type == sqlite.Real && v.Kind == sqlite.Integer && v.Int == int64(float64(v.Int)) && v.Int > -1<<53 && v.Int < 1<<53:
			return sqlite.Value{Kind: sqlite.Real, Float: float64(v.Int)}
		case v.Kind != sqlite.Text:
			return v
		}
	}
	return sqlite.Value{Kind: sqlite.Text, Bytes: []byte(field)}
}
