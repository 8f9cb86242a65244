package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Document is an OpenAPI 3.1 document. Its methods may be called at the same time.
type Document struct {
	operations []*Operation
	unknown    *response // of a path or a method that isn't in it

	mu  sync.Mutex
	met map[string]bool // by the operation's id and the status
}

// Operation is one call of the document.
type Operation struct {
	ID       string
	Method   string
	Path     string   // the template: /v1/databases/{database}
	Statuses []int    // those that are documented one by one, in order
	HasBody  bool     // the request has one
	Secured  bool     // it needs a token or a cookie
	segments []string // of Path; "" stands for a parameter
	wide     int      // which of segments may be several parts of a path; 0 for none

	params       []parameter
	body         *jsonschema.Schema
	bodyRequired bool
	responses    map[int]*response
	other        *response // default, nil if there is none
}

type parameter struct {
	name, in string
	required bool
	schema   *jsonschema.Schema
	segment  int // of the path, for in: path
}

type response struct {
	headers map[string]header
	content map[string]*jsonschema.Schema
}

type header struct {
	required bool
	schema   *jsonschema.Schema
}

// unknownResponse is the component that describes answers on paths that the document doesn't have.
const unknownResponse = "/components/responses/NoSuchRoute"

// The two readings of the document: as it is, and with closed objects.
const (
	open   = "request.json"
	closed = "response.json"
)

// Load reads a document and compiles its schemas.
func Load(raw []byte) (*Document, error) {
	root, err := decode(raw)
	if err != nil {
		return nil, err
	}
	strict, err := decode(raw)
	if err != nil {
		return nil, err
	}
	if err := closeObjects(strict); err != nil {
		return nil, err
	}
	l := &loader{root: root, compiler: jsonschema.NewCompiler()}
	l.compiler.AssertFormat()
	for name, v := range map[string]any{open: root, closed: strict} {
		if err := l.compiler.AddResource(name, v); err != nil {
			return nil, fmt.Errorf("read schemas: %w", err)
		}
	}
	d := &Document{met: map[string]bool{}}
	paths, _ := root["paths"].(map[string]any)
	secured := len(list(root["security"])) > 0
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item, at := l.follow(paths[path], "/paths/"+escape(path))
		for _, method := range slices.Sorted(maps.Keys(item)) {
			if method == "parameters" {
				continue
			}
			op, err := l.operation(path, method, at, item)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path, err)
			}
			op.Secured = secured
			if operation := object(item[method]); operation["security"] != nil {
				op.Secured = len(list(operation["security"])) > 0
			}
			d.operations = append(d.operations, op)
		}
	}
	// A path without parameters goes before one that has some in the same place.
	slices.SortStableFunc(d.operations, func(a, b *Operation) int {
		return strings.Count(a.Path, "{") - strings.Count(b.Path, "{")
	})
	if d.unknown, err = l.response(map[string]any{"$ref": "#" + unknownResponse}, ""); err != nil {
		return nil, err
	}
	return d, nil
}

// Operations are all calls of the document. They are not to be changed.
func (d *Document) Operations() []*Operation { return d.operations }

// Unmet lists what no exchange has met: "operation status", in the order of the paths. default isn't among them.
func (d *Document) Unmet() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var unmet []string
	for _, op := range d.operations {
		for _, status := range op.Statuses {
			if key := op.key(status); !d.met[key] {
				unmet = append(unmet, key)
			}
		}
	}
	return unmet
}

func (op *Operation) key(status int) string { return op.ID + " " + strconv.Itoa(status) }

func (d *Document) meet(op *Operation, status int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.met[op.key(status)] = true
}

type loader struct {
	root     map[string]any
	compiler *jsonschema.Compiler
}

func (l *loader) operation(path, method, at string, item map[string]any) (*Operation, error) {
	in := at + "/" + method
	o := object(item[method])
	op := &Operation{Method: strings.ToUpper(method), Path: path, responses: map[int]*response{}}
	op.ID, _ = o["operationId"].(string)
	if op.ID == "" {
		return nil, fmt.Errorf("no operationId")
	}
	for part := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(part, "{") {
			part = ""
		}
		op.segments = append(op.segments, part)
	}
	for i, p := range list(item["parameters"]) {
		if err := l.parameter(op, p, at+"/parameters/"+strconv.Itoa(i)); err != nil {
			return nil, err
		}
	}
	for i, p := range list(o["parameters"]) {
		if err := l.parameter(op, p, in+"/parameters/"+strconv.Itoa(i)); err != nil {
			return nil, err
		}
	}
	if o["requestBody"] != nil {
		body, at := l.follow(o["requestBody"], in+"/requestBody")
		op.HasBody = true
		op.bodyRequired, _ = body["required"].(bool)
		// A file or a form is not looked into.
		if content := object(body["content"]); content["application/json"] != nil {
			var err error
			if op.body, err = l.compiler.Compile(open + "#" + at + "/content/application~1json/schema"); err != nil {
				return nil, fmt.Errorf("schema of the request: %w", err)
			}
		} else if len(content) == 0 {
			return nil, fmt.Errorf("the request has no content")
		}
	}
	responses := object(o["responses"])
	for _, status := range slices.Sorted(maps.Keys(responses)) {
		r, err := l.response(responses[status], in+"/responses/"+status)
		if err != nil {
			return nil, fmt.Errorf("response %s: %w", status, err)
		}
		if status == "default" {
			op.other = r
			continue
		}
		n, err := strconv.Atoi(status)
		if err != nil {
			return nil, fmt.Errorf("status %q is no number: ranges of statuses can't be told apart here", status)
		}
		op.responses[n] = r
		op.Statuses = append(op.Statuses, n)
	}
	return op, nil
}

func (l *loader) parameter(op *Operation, v any, at string) error {
	o, at := l.follow(v, at)
	p := parameter{}
	p.name, _ = o["name"].(string)
	p.in, _ = o["in"].(string)
	p.required, _ = o["required"].(bool)
	switch p.in {
	case "query", "header":
	case "path":
		p.segment = slices.Index(strings.Split(op.Path, "/"), "{"+p.name+"}")
		if p.segment < 0 {
			return fmt.Errorf("parameter %s is not in the path", p.name)
		}
		if wide, _ := o["x-slashes"].(bool); wide {
			op.wide = p.segment
		}
	default:
		return fmt.Errorf("parameter %s is in %q, which can't be read here", p.name, p.in)
	}
	var err error
	if p.schema, err = l.compiler.Compile(open + "#" + at + "/schema"); err != nil {
		return fmt.Errorf("schema of parameter %s: %w", p.name, err)
	}
	op.params = append(op.params, p)
	return nil
}

func (l *loader) response(v any, at string) (*response, error) {
	o, at := l.follow(v, at)
	if o == nil {
		return nil, fmt.Errorf("there is none")
	}
	r := &response{headers: map[string]header{}, content: map[string]*jsonschema.Schema{}}
	for name, v := range object(o["headers"]) {
		ho, hat := l.follow(v, at+"/headers/"+escape(name))
		h := header{}
		h.required, _ = ho["required"].(bool)
		var err error
		if h.schema, err = l.compiler.Compile(open + "#" + hat + "/schema"); err != nil {
			return nil, fmt.Errorf("schema of header %s: %w", name, err)
		}
		r.headers[canonical(name)] = h
	}
	for media := range object(o["content"]) {
		s, err := l.compiler.Compile(closed + "#" + at + "/content/" + escape(media) + "/schema")
		if err != nil {
			return nil, fmt.Errorf("schema of %s: %w", media, err)
		}
		r.content[media] = s
	}
	return r, nil
}

// follow is the object that v is or refers to, and the JSON pointer of it.
func (l *loader) follow(v any, at string) (map[string]any, string) {
	o := object(v)
	ref, ok := o["$ref"].(string)
	if !ok {
		return o, at
	}
	pointer := strings.TrimPrefix(ref, "#")
	var found any = l.root
	for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		found = object(found)[strings.NewReplacer("~1", "/", "~0", "~").Replace(step)]
	}
	return object(found), pointer
}

// closeObjects makes every object in the schemas of a document refuse properties that it doesn't name. One that stands
// beside a $ref only narrows what is referred to, which is closed itself.
func closeObjects(v any) error {
	switch v := v.(type) {
	case map[string]any:
		for key, part := range v {
			var err error
			switch key {
			case "schema":
				err = closeSchema(part)
			case "schemas":
				for _, s := range object(part) {
					err = firstOf(err, closeSchema(s))
				}
			case "example", "examples":
			default:
				err = closeObjects(part)
			}
			if err != nil {
				return err
			}
		}
	case []any:
		for _, part := range v {
			if err := closeObjects(part); err != nil {
				return err
			}
		}
	}
	return nil
}

func closeSchema(v any) error {
	s := object(v)
	if s == nil {
		return nil
	}
	for _, keyword := range []string{"allOf", "if", "patternProperties", "dependentSchemas", "unevaluatedProperties", "$dynamicRef"} {
		if s[keyword] != nil {
			return fmt.Errorf("a schema has %s, with which unknown fields can't be told here", keyword)
		}
	}
	if (s["properties"] != nil || s["type"] == "object") && s["additionalProperties"] == nil && s["$ref"] == nil {
		s["additionalProperties"] = false
	}
	var err error
	for _, p := range object(s["properties"]) {
		err = firstOf(err, closeSchema(p))
	}
	for _, keyword := range []string{"items", "additionalProperties", "not"} {
		err = firstOf(err, closeSchema(s[keyword]))
	}
	for _, keyword := range []string{"anyOf", "oneOf", "prefixItems"} {
		for _, p := range list(s[keyword]) {
			err = firstOf(err, closeSchema(p))
		}
	}
	return err
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func decode(raw []byte) (map[string]any, error) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	o := object(v)
	if version, _ := o["openapi"].(string); !strings.HasPrefix(version, "3.1.") {
		return nil, fmt.Errorf("read document: openapi is %q, want 3.1", version)
	}
	return o, nil
}

func object(v any) map[string]any {
	o, _ := v.(map[string]any)
	return o
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// escape makes a name a step of a JSON pointer that stands in a URL's fragment.
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(name)
}

// number tells whether a text is a number in JSON.
func number(text string) bool {
	var n json.Number
	return json.Unmarshal([]byte(text), &n) == nil && !strings.HasPrefix(text, `"`)
}
