package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// requestTimeout is how long one answer may take, in every measurement.
const requestTimeout = 30 * time.Second

var (
	errAnswer  = errors.New("malformed HTTP answer")
	errRefused = errors.New("request refused")
)

// template is a prebuilt request in which the database's number and the key
// are changed in place. Both have a fixed width, so that Content-Length stays.
type template struct {
	bytes  []byte
	slugAt int // of the digits; -1 when the request has none
	keyAt  int
}

const (
	slugDigits = 5
	keyDigits  = 5
	slugMark   = "\x00SLUG"
	keyMark    = "\x00KEY0"
)

// newTemplate builds a POST to call ("query" or "batch"). In slug and body,
// slugMark and keyMark stand for what varies.
func newTemplate(slug, call, body string) template {
	request := "POST /v1/db/" + benchNamespace + "/" + slug + "/" + call + " HTTP/1.1\r\n" +
		"Host: bench\r\nAuthorization: Bearer " + benchToken + "\r\n" +
		"Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	t := template{bytes: []byte(request)}
	t.slugAt = bytes.Index(t.bytes, []byte(slugMark))
	t.keyAt = bytes.Index(t.bytes, []byte(keyMark))
	return t
}

// clone returns a copy that shares no bytes.
func (t template) clone() template {
	t.bytes = bytes.Clone(t.bytes)
	return t
}

// set puts the database's number and the key (both < 100,000) in place.
func (t template) set(slug, key int) {
	if t.slugAt >= 0 {
		putDigits(t.bytes[t.slugAt:t.slugAt+slugDigits], slug)
	}
	if t.keyAt >= 0 {
		putDigits(t.bytes[t.keyAt:t.keyAt+keyDigits], key)
	}
}

func putDigits(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// client is one keep-alive connection that does as little as a client can, as
// it shares the processors with the server it measures.
type client struct {
	conn net.Conn
	r    *bufio.Reader
	body []byte
}

func dial(address string) (*client, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &client{conn: c, r: bufio.NewReaderSize(c, 64<<10)}, nil
}

func (c *client) close() { c.conn.Close() }

// do sends the request and returns the answer's body, good until the next
// call. Anything but a 200 with "success":true is an error.
func (c *client) do(request []byte) ([]byte, error) {
	body, err := c.post(request)
	if err == nil && !succeeded(body) {
		return nil, fmt.Errorf("%w: 200 %.300s", errRefused, body)
	}
	return body, err
}

// post is do where an answer has no envelope.
func (c *client) post(request []byte) ([]byte, error) {
	if _, err := c.conn.Write(request); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	status, err := c.readAnswer()
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if status != 200 {
		return nil, fmt.Errorf("%w: %d %.300s", errRefused, status, c.body)
	}
	return c.body, nil
}

// succeeded looks for the envelope's success, which every server so far puts
// first.
func succeeded(body []byte) bool {
	mark := []byte(`"success":true`)
	return bytes.Contains(body[:min(len(body), 64)], mark) || bytes.Contains(body, mark)
}

var (
	headLength   = []byte("content-length:")
	headTransfer = []byte("transfer-encoding:")
)

func (c *client) readAnswer() (status int, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 13 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, errAnswer
	}
	status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
	length, chunked := -1, false
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		switch {
		case hasPrefixFold(line, headLength):
			if length, err = parseNumber(line[len(headLength):], 10); err != nil {
				return 0, err
			}
		case hasPrefixFold(line, headTransfer):
			chunked = true
		}
	}
	c.body = c.body[:0]
	switch {
	case chunked:
		return status, c.readChunks()
	case length < 0:
		return 0, errAnswer
	}
	return status, c.readBody(length)
}

// readBody appends n bytes to the body.
func (c *client) readBody(n int) error {
	start := len(c.body)
	if cap(c.body) < start+n {
		c.body = append(make([]byte, 0, start+n), c.body...)
	}
	c.body = c.body[:start+n]
	_, err := io.ReadFull(c.r, c.body[start:])
	return err
}

func (c *client) readChunks() error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := parseNumber(bytes.TrimRight(line, "\r\n"), 16)
		if err != nil {
			return err
		}
		if n > 0 {
			if err := c.readBody(n); err != nil {
				return err
			}
		}
		if _, err := c.r.Discard(len("\r\n")); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

func hasPrefixFold(line, prefix []byte) bool {
	return len(line) >= len(prefix) && bytes.EqualFold(line[:len(prefix)], prefix)
}

func parseNumber(b []byte, base int) (int, error) {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), base, 31)
	if err != nil || n < 0 {
		return 0, errAnswer
	}
	return int(n), nil
}
