package harness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/openapi"
)

// transport keeps connections open between tests and clients.
var transport = &http.Transport{MaxIdleConnsPerHost: 128, DisableCompression: true}

// Client speaks HTTP with a server. Its methods fail the test where no answer comes or where an answer breaks what
// holds for all of them.
type Client struct {
	t     testing.TB
	url   string
	token string
	// cookie is the session's, sent beside the token: neither opens what the other one does.
	cookie string
	data   string // the server's data directory, which no answer may name
	apart  bool   // what it talks with is not what the OpenAPI document describes
	http   *http.Client
}

// NewClient is a client of the server at url; an empty token sends none. It goes nowhere by itself: a redirect is an answer.
func NewClient(t testing.TB, url, token, data string) *Client {
	return &Client{t: t, url: url, token: token, data: data, http: &http.Client{Transport: transport, Timeout: 60 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// URL is the server's, and Token what the client sends, for a test that speaks HTTP by itself.
func (c *Client) URL() string { return c.url }

// Token is the client's token.
func (c *Client) Token() string { return c.token }

// With is the same client for another test.
func (c *Client) With(t testing.TB) *Client {
	d := *c
	d.t = t
	return &d
}

// As is the same client with another token.
func (c *Client) As(token string) *Client {
	d := *c
	d.token = token
	return &d
}

// AsSession is the same client with the cookie of a session.
func (c *Client) AsSession(cookie string) *Client {
	d := *c
	d.cookie = cookie
	return &d
}

// Cookie is the value of the session's cookie that the client sends.
func (c *Client) Cookie() string { return c.cookie }

// Apart is the same client for a listener that serves other things than the OpenAPI document says.
func (c *Client) Apart() *Client {
	d := *c
	d.apart = true
	return &d
}

// Raw is a body that is sent as it is.
type Raw string

// Stream is a body of unknown length.
type Stream struct{ io.Reader }

// Number is a number that is sent as it is written.
type Number string

// MarshalJSON is the number.
func (n Number) MarshalJSON() ([]byte, error) { return []byte(n), nil }

// Header is a header of a request, "Name: value".
type Header string

// Try sends one request and returns the answer; the error is the network's. A body is marshaled unless it is nil, Raw
// or a Stream.
func (c *Client) Try(method, path string, body any, headers ...Header) (*Answer, error) {
	var reader io.Reader
	var sent []byte
	switch b := body.(type) {
	case nil:
	case Raw:
		sent = []byte(b)
	case Stream:
		reader = b
	default:
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(body); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		sent = buf.Bytes()
	}
	_, unknown := body.(Stream)
	if body != nil && !unknown {
		reader = bytes.NewReader(sent)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, reader)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.cookie != "" {
		req.Header.Set("Cookie", "persql_session="+c.cookie)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(string(h), ":")
		if value = strings.TrimSpace(value); value == "" {
			req.Header.Del(name)
			continue
		}
		req.Header.Set(name, value)
	}
	begin := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: read answer: %w", method, path, err)
	}
	a := &Answer{t: c.t, What: what(method, path, body), Status: resp.StatusCode, Header: resp.Header, Raw: raw, Took: time.Since(begin)}
	page := strings.HasPrefix(path, "/api/billing/checkout/") && resp.StatusCode == http.StatusOK // for browsers
	if !page && (strings.HasPrefix(path, "/v1") || strings.HasPrefix(path, "/api/") && path != "/api/openapi.json") && method != http.MethodOptions && method != http.MethodHead {
		a.check(c.data)
	}
	if !c.apart {
		a.checkDocument(&openapi.Exchange{Method: method, Target: path, RequestHeader: req.Header, RequestBody: sent, BodyUnknown: unknown})
	}
	return a, nil
}

// Send sends a POST, drops the answer and returns its status, 0 if none came: for load that a test makes beside what it
// looks at. ctx's end breaks it off.
func (c *Client) Send(ctx context.Context, path string, body any) (status int) {
	b, ok := body.(Raw)
	if !ok {
		j, err := json.Marshal(body)
		if err != nil {
			return 0
		}
		b = Raw(j)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, strings.NewReader(string(b)))
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := c.http.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0
	}
	return res.StatusCode
}

// Do sends one request.
func (c *Client) Do(method, path string, body any, headers ...Header) *Answer {
	c.t.Helper()
	a, err := c.Try(method, path, body, headers...)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// Get reads path.
func (c *Client) Get(path string, headers ...Header) *Answer {
	c.t.Helper()
	return c.Do(http.MethodGet, path, nil, headers...)
}

// Post sends body to path.
func (c *Client) Post(path string, body any, headers ...Header) *Answer {
	c.t.Helper()
	return c.Do(http.MethodPost, path, body, headers...)
}

// Target sends a request whose target goes out byte for byte, past every cleaning that net/http does.
func (c *Client) Target(method, target, body string) *Answer {
	c.t.Helper()
	host := strings.TrimPrefix(c.url, "http://")
	conn, err := net.DialTimeout("tcp", host, 10*time.Second)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		method, target, host, c.token, len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		c.t.Fatalf("%s %q: %v", method, target, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("%s %q: read answer: %v", method, target, err)
	}
	a := &Answer{t: c.t, What: method + " " + target, Status: resp.StatusCode, Header: resp.Header, Raw: raw}
	if !c.apart {
		a.checkDocument(&openapi.Exchange{Method: method, Target: target, RequestBody: []byte(body)})
	}
	return a
}

// what names a request in messages.
func what(method, path string, body any) string {
	switch b := body.(type) {
	case nil, Stream:
		return method + " " + path
	case Raw:
		return method + " " + path + " " + Tail(string(b), 300)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return method + " " + path
	}
	return method + " " + path + " " + Tail(string(raw), 300)
}

// DB is a database of the default namespace, as a client sees it.
type DB struct {
	*Client
	Slug string
}

// DB names a database.
func (c *Client) DB(slug string) *DB { return &DB{c, slug} }

// Path is a path under the database.
func (d *DB) Path(rest string) string { return "/v1/db/default/" + d.Slug + "/" + rest }

// Body is the body of a query.
func Body(sql string, params ...any) map[string]any {
	b := map[string]any{"sql": sql}
	if len(params) > 0 {
		b["params"] = params
	}
	return b
}

// Query runs one statement, whatever comes of it.
func (d *DB) Query(sql string, params ...any) *Answer {
	d.t.Helper()
	return d.Post(d.Path("query"), Body(sql, params...))
}

// Must runs one statement that has to succeed.
func (d *DB) Must(sql string, params ...any) *Answer {
	d.t.Helper()
	return d.Query(sql, params...).OK()
}

// Batch runs statements, each a string or the result of Body.
func (d *DB) Batch(transaction bool, statements ...any) *Answer {
	d.t.Helper()
	return d.Post(d.Path("batch"), BatchBody(transaction, statements...))
}

// BatchBody is the body of a batch.
func BatchBody(transaction bool, statements ...any) map[string]any {
	list := make([]any, len(statements))
	for i, s := range statements {
		if text, ok := s.(string); ok {
			s = Body(text)
		}
		list[i] = s
	}
	return map[string]any{"statements": list, "transaction": transaction}
}

// One is the only value that a statement yields, as text of its JSON.
func (d *DB) One(sql string, params ...any) string {
	d.t.Helper()
	rows := d.Must(sql, params...).Rows()
	if len(rows) != 1 || len(rows[0]) != 1 {
		d.t.Fatalf("%s: got %v, want one value", sql, rows)
	}
	return Text(rows[0][0])
}
