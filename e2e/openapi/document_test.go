package openapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/persqld/persqld/internal/api"
)

// TestExamplesFitTheirSchemas reads the server's own document: an example that no longer fits misleads whoever copies it.
func TestExamplesFitTheirSchemas(t *testing.T) {
	raw, err := api.Document("v1.2.3", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(raw); err != nil {
		t.Fatal(err)
	}
	root, err := decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := closeObjects(root); err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(closed, root); err != nil {
		t.Fatal(err)
	}
	examples := 0
	fits := func(at string, example any) {
		t.Helper()
		examples++
		s, err := c.Compile(closed + "#" + at)
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := example.(string); ok {
			err = validateText(s, text)
		} else {
			err = s.Validate(example)
		}
		if err != nil {
			t.Errorf("%s: example: %v", at, err)
		}
	}
	var walk func(v any, at string)
	walk = func(v any, at string) {
		if l := list(v); l != nil {
			for i := range l {
				walk(l[i], fmt.Sprintf("%s/%d", at, i))
			}
			return
		}
		o := object(v)
		if e, ok := o["example"]; ok && o["schema"] != nil {
			fits(at+"/schema", e)
		}
		for _, e := range list(o["examples"]) {
			fits(at, e)
		}
		for key, part := range o {
			if key != "example" && key != "examples" {
				walk(part, at+"/"+escape(key))
			}
		}
	}
	walk(root, "")
	if examples < 40 {
		t.Errorf("only %d examples were found", examples)
	}
}

const small = `{"openapi":"3.1.0","info":{"title":"t","version":"1"},"security":[{"token":[]}],"paths":{
"/things":{"get":{"operationId":"list","security":[],"parameters":[{"name":"n","in":"query","schema":{"type":"integer","maximum":5}}],"responses":{
	"200":{"content":{"text/plain":{"schema":{"type":"string","maxLength":3}}}}}}},
"/things/{id}":{"parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"string","pattern":"^[a-z]+$"}}],
"put":{"operationId":"put","parameters":[{"name":"Key","in":"header","schema":{"type":"string","maxLength":2}}],
	"requestBody":{"required":true,"content":{"application/json":{"schema":{"type":"object","required":["v"],"properties":{"v":{"type":"number"}}}}}},
	"responses":{
	"200":{"headers":{"X-Id":{"required":true,"schema":{"type":"integer"}},"X-Also":{"schema":{"const":"yes"}}},"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Thing","required":["v"]}}}},
	"204":{},
	"default":{"content":{"application/json":{"schema":{"type":"object","properties":{"e":{"type":"string"}}}}}}}}},
"/wide/{ref}":{"parameters":[{"name":"ref","in":"path","required":true,"x-slashes":true,"schema":{"type":"string","pattern":"^[a-z/]+$"}}],"get":{"operationId":"wide","responses":{"200":{}}}},
"/wide/{ref}/pin":{"parameters":[{"name":"ref","in":"path","required":true,"x-slashes":true,"schema":{"type":"string","pattern":"^[a-z/]+$"}}],"post":{"operationId":"pin","responses":{"200":{}}}},
"/things/all":{"get":{"operationId":"all","responses":{"200":{}}}}},
"components":{"schemas":{"Thing":{"type":"object","properties":{"v":{"type":"number"},"parts":{"type":"array","items":{"type":"object","properties":{"p":{"type":"integer"}}}}}}},
"responses":{"NoSuchRoute":{"headers":{"Allow":{"schema":{"type":"string"}}},"content":{"application/json":{"schema":{"type":"object","properties":{"none":{"const":true}}}}}}}}}`

func TestCheck(t *testing.T) {
	json := http.Header{"Content-Type": {"application/json"}, "X-Id": {"7"}}
	none := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
	with := func(name, value string) http.Header {
		h := json.Clone()
		h.Set(name, value)
		return h
	}
	tests := []struct {
		name string
		e    Exchange
		want string // a part of the error; none if it is empty
	}{
		{"as documented", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 200, Header: json, Body: []byte(`{"v":9e999,"parts":[{"p":9223372036854775807}]}`)}, ""},
		{"a request with a field of tomorrow", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1,"w":2}`), Status: 200, Header: json, Body: []byte(`{"v":1}`)}, ""},
		{"an unknown field", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 200, Header: json, Body: []byte(`{"v":1,"w":2}`)}, "'w' not allowed"},
		{"an unknown field deep down", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 200, Header: json, Body: []byte(`{"v":1,"parts":[{"p":1},{"q":1}]}`)}, "'q' not allowed"},
		{"a field is missing", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 200, Header: json, Body: []byte(`{}`)}, "missing property 'v'"},
		{"no JSON", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 200, Header: json, Body: []byte(`{"v":1`)}, "the answer: "},
		{"a header is missing", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 200, Header: none, Body: []byte(`{"v":1}`)}, "no X-Id"},
		{"a header of another type", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 200, Header: with("X-Id", "x"), Body: []byte(`{"v":1}`)}, "X-Id of the answer"},
		{"a header of another value", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 200, Header: with("X-Also", "no"), Body: []byte(`{"v":1}`)}, "X-Also of the answer"},
		{"a header that isn't documented", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 200, Header: with("X-New", "1"), Body: []byte(`{"v":1}`)}, "no header X-New"},
		{"another content type", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 200, Header: with("Content-Type", "text/html"), Body: []byte(`{"v":1}`)}, "content type text/html"},
		{"a body where there is none", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 204, Header: http.Header{}, Body: []byte(`{}`)}, "has a body"},
		{"a status that isn't documented", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":1}`), Status: 409, Header: none, Body: []byte(`{}`)}, "put does not document status 409"},
		{"a parameter with slashes", Exchange{Method: "GET", Target: "/wide/a/b/c", Status: 200, Header: http.Header{}}, ""},
		{"which fits", Exchange{Method: "GET", Target: "/wide/a/B", Status: 200, Header: http.Header{}}, "ref of the request"},
		{"with something behind it", Exchange{Method: "POST", Target: "/wide/a/b/pin", Status: 200, Header: http.Header{}}, ""},
		{"that wins", Exchange{Method: "GET", Target: "/wide/a/b/pin", Status: 200, Header: http.Header{}}, "want 405"},
		{"without a part", Exchange{Method: "GET", Target: "/wide/a", Status: 200, Header: http.Header{}}, ""},
		{"default is for failures of the server", Exchange{Method: "PUT", Target: "/things/a", Status: 500, Header: none, Body: []byte(`{"e":"x"}`)}, ""},
		{"and is looked at", Exchange{Method: "PUT", Target: "/things/a", Status: 500, Header: none, Body: []byte(`{"f":"x"}`)}, "'f' not allowed"},
		{"an accepted body that isn't documented", Exchange{Method: "PUT", Target: "/things/a", RequestBody: []byte(`{"v":"1"}`), Status: 200, Header: json, Body: []byte(`{"v":1}`)}, "body of the request"},
		{"an accepted request without a body", Exchange{Method: "PUT", Target: "/things/a", Status: 200, Header: json, Body: []byte(`{"v":1}`)}, "no body"},
		{"a body that nobody knows", Exchange{Method: "PUT", Target: "/things/a", BodyUnknown: true, Status: 200, Header: json, Body: []byte(`{"v":1}`)}, ""},
		{"an accepted part of the path", Exchange{Method: "PUT", Target: "/things/A", RequestBody: []byte(`{"v":1}`), Status: 200, Header: json, Body: []byte(`{"v":1}`)}, "id of the request"},
		{"an accepted header", Exchange{Method: "PUT", Target: "/things/a", RequestHeader: http.Header{"Key": {"long"}}, RequestBody: []byte(`{"v":1}`), Status: 200, Header: json, Body: []byte(`{"v":1}`)}, "Key of the request"},
		{"an accepted query", Exchange{Method: "GET", Target: "/things?n=6", Status: 200, Header: with("Content-Type", "text/plain"), Body: []byte("abc")}, "n of the request"},
		{"a query that isn't documented", Exchange{Method: "GET", Target: "/things?m=6", Status: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("abc")}, "no query parameter m"},
		{"text", Exchange{Method: "GET", Target: "/things?n=5", Status: 200, Header: http.Header{"Content-Type": {"text/plain; version=1"}}, Body: []byte("abc")}, ""},
		{"text that is too long", Exchange{Method: "GET", Target: "/things", Status: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("abcd")}, "the answer: "},
		{"HEAD is GET without a body", Exchange{Method: "HEAD", Target: "/things", Status: 200, Header: http.Header{"Content-Type": {"text/plain"}}}, ""},
		{"a name goes before a parameter", Exchange{Method: "GET", Target: "/things/all", Status: 200, Header: http.Header{}}, ""},
		{"no such path", Exchange{Method: "GET", Target: "/none", Status: 404, Header: none, Body: []byte(`{"none":true}`)}, ""},
		{"a path that isn't documented", Exchange{Method: "GET", Target: "/none", Status: 200, Header: none, Body: []byte(`{"none":true}`)}, "want 404"},
		{"an escaped slash parts nothing", Exchange{Method: "PUT", Target: "/things%2fa", Status: 404, Header: none, Body: []byte(`{"none":true}`)}, ""},
		{"no such method", Exchange{Method: "POST", Target: "/things", Status: 405, Header: none, Body: []byte(`{"none":true}`)}, ""},
		{"its body is looked at", Exchange{Method: "POST", Target: "/things", Status: 405, Header: none, Body: []byte(`{"none":false}`)}, "the answer: "},
		{"preflight", Exchange{Method: "OPTIONS", Target: "/things", Status: 204}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Load([]byte(small))
			if err != nil {
				t.Fatal(err)
			}
			err = d.Check(&tt.e)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestUnmet(t *testing.T) {
	d, err := Load([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	unmet := func(want string) {
		t.Helper()
		if got := strings.Join(d.Unmet(), ", "); got != want {
			t.Errorf("unmet are %q, want %q", got, want)
		}
	}
	unmet("list 200, all 200, put 200, put 204, wide 200, pin 200")
	if err := d.Check(&Exchange{Method: "GET", Target: "/things/all", Status: 200, Header: http.Header{}}); err != nil {
		t.Error(err)
	}
	if err := d.Check(&Exchange{Method: "PUT", Target: "/things/a", Status: 200, Header: http.Header{}}); err == nil {
		t.Error("an answer without anything is as documented")
	}
	unmet("list 200, put 200, put 204, wide 200, pin 200")
	for _, op := range d.Operations() {
		if op.Secured == (op.ID == "list") || op.HasBody != (op.ID == "put") {
			t.Errorf("%+v", op)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"another version", "3.1.0", "3.0.3", "want 3.1"},
		{"allOf", `"type":"number"`, `"allOf":[]`, "allOf"},
		{"no operationId", `"operationId":"list",`, ``, "no operationId"},
		{"a range of statuses", `"204"`, `"2XX"`, "2XX"},
		{"a cookie", `"in":"query"`, `"in":"cookie"`, "cookie"},
		{"a parameter that isn't in the path", `/things/{id}`, `/things/{other}`, "id is not in the path"},
		{"a reference to nothing", `#/components/schemas/Thing`, `#/components/schemas/None`, "None"},
		{"no answer for unknown paths", `NoSuchRoute`, `Other`, "there is none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load([]byte(strings.Replace(small, tt.old, tt.new, 1)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
