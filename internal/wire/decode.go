package wire

import (
	"unsafe"

	"github.com/persqld/persqld/internal/sqlite"
)

// paramSize is the memory of one parameter, in bytes.
const paramSize = int(unsafe.Sizeof(sqlite.Param{}))

// Limits bound what a body may ask for. A zero or negative field means its default.
type Limits struct {
	SQLBytes   int // bytes of SQL in one statement, as UTF-8; default 100,000
	Statements int // statements in a batch; default 100
	Params     int // parameters of one statement; default 32,766, SQLite's own limit
}

func (l Limits) orDefaults() Limits {
	if l.SQLBytes <= 0 {
		l.SQLBytes = 100_000
	}
	if l.Statements <= 0 {
		l.Statements = 100
	}
	if l.Params <= 0 {
		l.Params = 32_766
	}
	return l
}

// Statement is one statement with its parameters. SQL is valid UTF-8 and may contain NUL; it may be empty. Params are
// either all positional (Name empty) or all named, each name once, with or without prefix as it was sent.
type Statement struct {
	SQL    []byte
	Params []sqlite.Param
}

// Query is the body of a query call. The zero value is ready for use. Its slices hold until Reset, see the package.
type Query struct {
	Statement
	arena arena
}

// Reset empties q and keeps its memory for the next body.
func (q *Query) Reset() {
	q.Statement = Statement{}
	q.arena.reset()
}

// Footprint is the memory, in bytes, that q keeps after Reset; a pool should drop a Query for which it is large.
func (q *Query) Footprint() int { return q.arena.footprint() }

// Batch is the body of a batch call. The zero value is ready for use. Its slices hold until Reset, see the package.
type Batch struct {
	Statements  []Statement
	Transaction bool
	arena       arena
}

// Reset empties b and keeps its memory for the next body.
func (b *Batch) Reset() {
	clear(b.Statements)
	b.Statements = b.Statements[:0]
	b.Transaction = false
	b.arena.reset()
}

// Footprint is the memory, in bytes, that b keeps after Reset; a pool should drop a Batch for which it is large.
func (b *Batch) Footprint() int {
	return b.arena.footprint() + cap(b.Statements)*int(unsafe.Sizeof(Statement{}))
}

// DecodeQuery reads {"sql": "…", "params": […] or {…}} from body into q, which it resets first. Missing params or null
// are none. The error is an [*Error]; q is empty then.
func DecodeQuery(body []byte, lim Limits, q *Query) error {
	q.Reset()
	d := decoder{scanner: scanner{buf: body}, arena: &q.arena, lim: lim.orDefaults()}
	err := d.query(&q.Statement)
	if err != nil {
		q.Reset()
		return d.judge(err)
	}
	return nil
}

// DecodeBatch reads {"statements": [{"sql", "params"}, …], "transaction": false} from body into b, which it resets
// first. Each statement is read as DecodeQuery does. The error is an [*Error]; b is empty then.
func DecodeBatch(body []byte, lim Limits, b *Batch) error {
	b.Reset()
	d := decoder{scanner: scanner{buf: body}, arena: &b.arena, lim: lim.orDefaults()}
	err := d.batch(b)
	if err != nil {
		b.Reset()
		return d.judge(err)
	}
	return nil
}

const (
	queryHint = `Send {"sql": "SELECT ?", "params": [1]}.`
	batchHint = `Send {"statements": [{"sql": "SELECT ?", "params": [1]}], "transaction": false}.`
)

// decoder reads one body.
type decoder struct {
	scanner
	arena *arena
	lim   Limits
}

// judge returns the error to report for a body that err was met in: a body that isn't JSON is called that, even if
// something else was noticed before the place where it stops being JSON.
func (d *decoder) judge(err *Error) *Error {
	if err.Code == CodeBadJSON {
		return err
	}
	whole := scanner{buf: d.buf}
	if bad := whole.skip(0); bad != nil {
		return bad
	}
	if bad := whole.end(); bad != nil {
		return bad
	}
	return err
}

// open takes the brace of the body's object.
func (d *decoder) open(hint string) *Error {
	c := d.peek()
	switch {
	case d.pos >= len(d.buf):
		return newError(CodeBadJSON, d.pos, hint, "the request has no body")
	case c != '{':
		return newError(CodeBadRequest, d.pos, hint, "the body is not a JSON object")
	}
	d.pos++
	return nil
}

func (d *decoder) query(st *Statement) *Error {
	if err := d.open(queryHint); err != nil {
		return err
	}
	if err := d.statement(st, 1); err != nil {
		return err
	}
	return d.end()
}

func (d *decoder) batch(b *Batch) *Error {
	if err := d.open(batchHint); err != nil {
		return err
	}
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
		switch string(d.arena.text(raw, plain)) {
		case "statements":
			given, err = d.statements(b)
		case "transaction":
			b.Transaction, err = d.transaction()
		default:
			err = d.skip(1)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case !given:
		return newError(CodeBadRequest, d.pos, batchHint, "statements is missing")
	case len(b.Statements) == 0:
		return newError(CodeBadRequest, d.pos, batchHint, "statements is empty: a batch has at least one statement")
	}
	return d.end()
}

// statements takes the array of a batch's statements; it reports false for null, which is as good as missing.
func (d *decoder) statements(b *Batch) (given bool, err *Error) {
	// The name may have been given before.
	clear(b.Statements)
	b.Statements = b.Statements[:0]
	d.arena.cutParams(0)
	switch d.peek() {
	case 'n':
		return false, d.literal("null")
	case '[':
	default:
		return false, newError(CodeBadRequest, d.pos, batchHint, "statements is not an array")
	}
	d.pos++
	for first := true; ; first = false {
		more, err := d.more(first, ']')
		if err != nil || !more {
			return true, err
		}
		i := len(b.Statements)
		if i == d.lim.Statements {
			return true, newError(CodeTooManyStatements, d.pos, "Send them in several batches.",
				"a batch holds at most %d statements", d.lim.Statements)
		}
		b.Statements = append(b.Statements, Statement{})
		if d.peek() != '{' {
			err = newError(CodeBadRequest, d.pos, batchHint, "statements[%d] is not an object", i)
		} else {
			d.pos++
			err = d.statement(&b.Statements[i], 3)
		}
		if err != nil {
			err.StatementIndex = i
			return true, err
		}
	}
}

func (d *decoder) transaction() (bool, *Error) {
	switch d.peek() {
	case 't':
		return true, d.literal("true")
	case 'f':
		return false, d.literal("false")
	case 'n':
		return false, d.literal("null")
	}
	return false, newError(CodeBadRequest, d.pos, "", "transaction is neither true nor false")
}

// statement takes the members of an object with sql and params, whose brace has been taken and which is the depth'th
// around them, and its closing brace.
func (d *decoder) statement(st *Statement, depth int) *Error {
	given := false
	start := len(d.arena.params)
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
		switch string(d.arena.text(raw, plain)) {
		case "sql":
			given = true
			st.SQL, err = d.sql()
		case "params":
			d.arena.cutParams(start) // the name may have been given before
			err = d.params(start)
		default:
			err = d.skip(depth)
		}
		if err != nil {
			return err
		}
	}
	if !given {
		return newError(CodeBadRequest, d.pos, queryHint, "sql is missing")
	}
	end := len(d.arena.params)
	st.Params = d.arena.params[start:end:end]
	return nil
}

func (d *decoder) sql() ([]byte, *Error) {
	if d.peek() != '"' {
		return nil, newError(CodeBadRequest, d.pos, queryHint, "sql is not a string")
	}
	at := d.pos
	raw, plain, err := d.str()
	if err != nil {
		return nil, err
	}
	sql := d.arena.text(raw, plain)
	if len(sql) > d.lim.SQLBytes {
		return nil, newError(CodeSQLTooLong, at, "Pass data as parameters instead of writing it into the SQL.",
			"the SQL has %d bytes; a statement may have at most %d", len(sql), d.lim.SQLBytes)
	}
	return sql, nil
}
