package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Exchange is a request and its answer.
type Exchange struct {
	Method        string
	Target        string // of the request line: the path, with the query
	RequestHeader http.Header
	RequestBody   []byte
	BodyUnknown   bool // RequestBody is not what was sent

	Status  int
	Header  http.Header
	Body    []byte
	Decoded any // Body as JSON with numbers as json.Number, if somebody has read it already
}

// Check says what of an exchange isn't as the document says, nil if all is. The request is looked at where the server
// accepted it: what it refuses may be anything.
func (d *Document) Check(e *Exchange) error {
	if e.Method == http.MethodOptions {
		return nil // preflight has no place in OpenAPI
	}
	u, err := url.ParseRequestURI(e.Target)
	if err != nil {
		return nil // net/http answers by itself
	}
	path := u.RawPath // as the server's router takes it
	if path == "" {
		path = u.Path
	}
	op, parts, known := d.find(e.Method, path)
	if op == nil {
		want := http.StatusNotFound
		if known {
			want = http.StatusMethodNotAllowed
		}
		if e.Status != want {
			return fmt.Errorf("the document has no such path and method, and the status is %d, want %d", e.Status, want)
		}
		return d.unknown.check(e)
	}
	r := op.responses[e.Status]
	if r == nil && e.Status >= 500 {
		r = op.other
	}
	if r == nil {
		return fmt.Errorf("%s does not document status %d", op.ID, e.Status)
	}
	err = r.check(e)
	if e.Status < 300 {
		err = errors.Join(err, op.checkRequest(e, u, parts))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op.key(e.Status), err)
	}
	d.meet(op, e.Status)
	return nil
}

// find is the operation of a request, and the parts of its path; known tells whether the path has any. A parameter that may have slashes is taken for that only
// where no path fits without, and of several paths the longest fits: so it is with the server's.
func (d *Document) find(method, path string) (op *Operation, parts []string, known bool) {
	if method == http.MethodHead {
		method = http.MethodGet // its twin
	}
	all := strings.Split(path, "/")
	for _, op := range d.operations {
		if !op.matches(all) {
			continue
		}
		if op.Method == method {
			return op, all, true
		}
		known = true
	}
	if known {
		return nil, nil, true
	}
	length := 0
	for _, o := range d.operations {
		joined := o.join(all)
		if joined == nil || len(o.segments) < length {
			continue
		}
		if len(o.segments) > length {
			length, op, parts = len(o.segments), nil, nil
		}
		if o.Method == method {
			op, parts = o, joined
		}
	}
	return op, parts, length > 0
}

func (op *Operation) matches(parts []string) bool {
	if len(parts) != len(op.segments) {
		return false
	}
	for i, s := range op.segments {
		if s != parts[i] && (s != "" || i == 0 || parts[i] == "") {
			return false
		}
	}
	return true
}

// join makes one of those parts of a path that are a parameter with slashes; nil if the path isn't the operation's.
func (op *Operation) join(parts []string) []string {
	more := len(parts) - len(op.segments)
	if op.wide == 0 || more <= 0 {
		return nil
	}
	joined := slices.Concat(parts[:op.wide], []string{strings.Join(parts[op.wide:op.wide+more+1], "/")}, parts[op.wide+more+1:])
	if !op.matches(joined) {
		return nil
	}
	return joined
}

func (op *Operation) checkRequest(e *Exchange, u *url.URL, parts []string) error {
	var errs []error
	query := u.Query()
	for i := range op.params {
		p := &op.params[i]
		var values []string
		switch p.in {
		case "path":
			part, err := url.PathUnescape(parts[p.segment])
			if err != nil {
				part = parts[p.segment]
			}
			values = []string{part}
		case "query":
			values = query[p.name]
			query.Del(p.name)
		case "header":
			values = e.RequestHeader[canonical(p.name)]
		}
		if len(values) == 0 && p.required {
			errs = append(errs, fmt.Errorf("the request has no %s", p.name))
		}
		for _, v := range values {
			if v == "" && p.in == "query" {
				continue // as good as missing
			}
			if err := validateText(p.schema, v); err != nil {
				errs = append(errs, fmt.Errorf("%s of the request: %w", p.name, err))
			}
		}
	}
	for name := range query {
		errs = append(errs, fmt.Errorf("the document has no query parameter %s", name))
	}
	if e.BodyUnknown {
		return errors.Join(errs...)
	}
	body := bytes.TrimSpace(e.RequestBody)
	switch {
	case len(body) == 0 && op.bodyRequired:
		errs = append(errs, errors.New("the request has no body"))
	case len(body) > 0 && !op.HasBody:
		errs = append(errs, errors.New("the document has no body for the request"))
	case len(body) > 0 && op.body != nil:
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err == nil {
			err = op.body.Validate(v)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("body of the request: %w", err))
		}
	}
	return errors.Join(errs...)
}

// general are the headers of any answer (RFC 9110 and 9112) that no operation documents.
var general = map[string]bool{"Content-Type": true, "Content-Length": true, "Date": true, "Connection": true, "Transfer-Encoding": true, "Vary": true,
	"Cache-Control": true} // said of all answers to cookies

func (r *response) check(e *Exchange) error {
	var errs []error
	for name, h := range r.headers {
		values := e.Header[name]
		if len(values) == 0 && h.required {
			errs = append(errs, fmt.Errorf("the answer has no %s", name))
		}
		for _, v := range values {
			if err := validateText(h.schema, v); err != nil {
				errs = append(errs, fmt.Errorf("%s of the answer: %w", name, err))
			}
		}
	}
	for name := range e.Header {
		if _, ok := r.headers[name]; !ok && !general[name] && !strings.HasPrefix(name, "Access-Control-") {
			errs = append(errs, fmt.Errorf("the document has no header %s for the answer", name))
		}
	}
	if e.Method == http.MethodHead {
		return errors.Join(errs...)
	}
	if err := r.checkBody(e); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *response) checkBody(e *Exchange) error {
	if len(r.content) == 0 {
		if len(e.Body) > 0 {
			return errors.New("the answer has a body, the document has none")
		}
		return nil
	}
	media, _, err := mime.ParseMediaType(e.Header.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("content type of the answer: %w", err)
	}
	schema := r.content[media]
	if schema == nil {
		return fmt.Errorf("the document has no content type %s for the answer", media)
	}
	v := e.Decoded
	switch {
	case media != "application/json":
		v = string(e.Body)
	case v == nil:
		if v, err = jsonschema.UnmarshalJSON(bytes.NewReader(e.Body)); err != nil {
			return fmt.Errorf("the answer: %w", err)
		}
	}
	if err := schema.Validate(v); err != nil {
		return fmt.Errorf("the answer: %w", err)
	}
	return nil
}

// validateText holds a parameter or header, which is a text on the wire, against a schema that may be of numbers.
func validateText(s *jsonschema.Schema, text string) error {
	err := s.Validate(text)
	if err != nil && number(text) {
		err = s.Validate(json.Number(text))
	}
	return err
}

func canonical(name string) string { return http.CanonicalHeaderKey(name) }
