package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

type kind uint8

const (
	kindNull kind = iota
	kindInteger
	kindReal
	kindText
	kindBlob
)

// value is one parameter; text and blobs are a range of their job's text.
type value struct {
	kind   kind
	i      int64
	f      float64
	off, n int
}

// call is one statement of a job: ranges of the job's text and params.
type call struct {
	sql, sqlEnd     int
	params, paramEn int
}

// job is a request on its way through the actor. It is pooled: everything in
// it keeps its memory.
type job struct {
	body  []byte
	text  []byte // SQL and text parameters, unquoted
	calls []call
	args  []value
	out   []byte

	batch       bool
	transaction bool
	err         error
	done        chan struct{}

	reader  bytes.Buffer
	decoder jsontext.Decoder
}

var jobs = sync.Pool{New: func() any { return &job{done: make(chan struct{}, 1)} }}

// maxKept is the largest buffer, in bytes, that goes back to the pool.
const maxKept = 1 << 20

func (j *job) release() {
	if cap(j.out) > maxKept || cap(j.body) > maxKept {
		return
	}
	j.body, j.text, j.calls, j.args, j.out = j.body[:0], j.text[:0], j.calls[:0], j.args[:0], j.out[:0]
	j.batch, j.transaction, j.err = false, false, nil
	jobs.Put(j)
}

// answer hands the job back to its request.
func (j *job) answer(err error) {
	j.err = err
	j.done <- struct{}{}
}

var errBody = errors.New("the body isn't what this call expects")

// decode reads the body's JSON into calls.
func (j *job) decode(batch bool) error {
	j.batch = batch
	j.reader = *bytes.NewBuffer(j.body)
	d := &j.decoder
	d.Reset(&j.reader, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var err error
	if batch {
		err = j.decodeBatch(d)
	} else {
		err = j.decodeCall(d)
	}
	if err != nil {
		return err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return errBody
	}
	if len(j.calls) == 0 {
		return errBody
	}
	return nil
}

// members reads an object and calls member with each name; member reads the value.
func members(d *jsontext.Decoder, member func(name []byte) error) error {
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return errors.Join(errBody, err)
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadValue()
		if err != nil {
			return err
		}
		if err := member(name); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

func (j *job) decodeBatch(d *jsontext.Decoder) error {
	return members(d, func(name []byte) error {
		switch string(name) {
		case `"transaction"`:
			t, err := d.ReadToken()
			j.transaction = t.Kind() == 't'
			return err
		case `"statements"`:
			if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
				return errors.Join(errBody, err)
			}
			for d.PeekKind() == '{' {
				if err := j.decodeCall(d); err != nil {
					return err
				}
			}
			t, err := d.ReadToken()
			if err == nil && t.Kind() != ']' {
				return errBody
			}
			return err
		}
		return d.SkipValue()
	})
}

func (j *job) decodeCall(d *jsontext.Decoder) error {
	c := call{params: len(j.args), paramEn: len(j.args)}
	err := members(d, func(name []byte) error {
		switch string(name) {
		case `"sql"`:
			v, err := d.ReadValue()
			if err != nil {
				return err
			}
			c.sql = len(j.text)
			if j.text, err = jsontext.AppendUnquote(j.text, v); err != nil {
				return err
			}
			c.sqlEnd = len(j.text)
			return nil
		case `"params"`:
			if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
				return errors.Join(errBody, err)
			}
			for d.PeekKind() != ']' {
				if err := j.decodeParam(d); err != nil {
					return err
				}
			}
			c.paramEn = len(j.args)
			_, err := d.ReadToken()
			return err
		}
		return d.SkipValue()
	})
	j.calls = append(j.calls, c)
	return err
}

func (j *job) decodeParam(d *jsontext.Decoder) error {
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	v := value{off: len(j.text)}
	switch raw.Kind() {
	case 'n':
	case 't', 'f':
		v.kind = kindInteger
		if raw[0] == 't' {
			v.i = 1
		}
	case '0':
		v.kind = kindInteger
		if v.i, err = strconv.ParseInt(string(raw), 10, 64); err != nil {
			// Out of a double's range is an infinity, as the contract says.
			v.kind, err = kindReal, nil
			v.f, _ = strconv.ParseFloat(string(raw), 64)
		}
	case '"':
		v.kind = kindText
		j.text, err = jsontext.AppendUnquote(j.text, raw)
		v.n = len(j.text) - v.off
	case '{':
		v.kind = kindBlob
		text, ok := bytes.CutPrefix(bytes.TrimSuffix(raw, []byte(`"}`)), []byte(`{"$blob":"`))
		if !ok {
			return errBody
		}
		j.text, err = base64.StdEncoding.AppendDecode(j.text, text)
		v.n = len(j.text) - v.off
	default:
		return errBody
	}
	j.args = append(j.args, v)
	return err
}

// readsOnly reports whether no statement of the job writes. One that can't be
// prepared counts as a write and fails where it runs.
func (c *conn) readsOnly(w *worker, j *job) bool {
	for i := range j.calls {
		s, err := c.prepare(w, j.text[j.calls[i].sql:j.calls[i].sqlEnd])
		if err != nil || !s.reads {
			return false
		}
	}
	return true
}

// runJob runs the job's statements and appends the whole answer to its out.
func (c *conn) runJob(w *worker, j *job, started time.Time) error {
	var sum tally
	j.out = append(j.out, `{"success":true,"data":`...)
	if j.batch {
		j.out = append(j.out, '[')
	}
	for i := range j.calls {
		if i > 0 {
			j.out = append(j.out, ',')
		}
		done, err := c.runCall(w, j, &j.calls[i])
		if err != nil {
			return err
		}
		sum.rowsRead += done.rowsRead
		sum.rowsWritten += done.rowsWritten
		j.out = append(j.out, `,"meta":`...)
		j.out = appendMeta(j.out, done, 1, time.Since(started))
		j.out = append(j.out, '}')
	}
	if j.batch {
		j.out = append(j.out, ']')
	}
	j.out = append(j.out, `,"meta":`...)
	j.out = appendMeta(j.out, sum, len(j.calls), time.Since(started))
	j.out = append(j.out, '}')
	return nil
}

func (c *conn) runCall(w *worker, j *job, k *call) (tally, error) {
	s, err := c.prepare(w, j.text[k.sql:k.sqlEnd])
	if err != nil {
		return tally{}, err
	}
	if err := c.bind(w, s, j.args[k.params:k.paramEn], j.text); err != nil {
		return tally{}, err
	}
	var done tally
	if j.out, done, err = c.run(w, s, j.out); err != nil {
		return tally{}, err
	}
	if s.ddl {
		c.dropCache(w)
	}
	return done, nil
}

func appendMeta(out []byte, done tally, statements int, took time.Duration) []byte {
	out = append(out, `{"rowsRead":`...)
	out = strconv.AppendInt(out, done.rowsRead, 10)
	out = append(out, `,"rowsWritten":`...)
	out = strconv.AppendInt(out, done.rowsWritten, 10)
	out = append(out, `,"durationMs":`...)
	us := took.Microseconds()
	out = strconv.AppendInt(out, us/1000, 10)
	out = append(out, '.', byte('0'+us/100%10), byte('0'+us/10%10), byte('0'+us%10))
	out = append(out, `,"statementCount":`...)
	out = strconv.AppendInt(out, int64(statements), 10)
	return append(out, '}')
}

// fail replaces the answer with an error's.
func (j *job) fail(err error) {
	j.out = append(j.out[:0], `{"success":false,"error":`...)
	j.out, _ = jsontext.AppendQuote(j.out, fmt.Sprint(err))
	j.out = append(j.out, '}')
}
