package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/go-chi/chi/v5"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/wire"
)

const howTo = `(see "A route" in CONTRIBUTING.md)`

// parsed is the part of the document that the tests here look at.
type parsed struct {
	OpenAPI string
	Info    struct{ Version string }
	Servers []struct{ URL string }
	Paths   map[string]map[string]json.RawMessage
}

func parse(t testing.TB, raw []byte) (d parsed) {
	t.Helper()
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func document(t testing.TB) []byte {
	t.Helper()
	raw, err := api.Document("v1.2.3", "https://sql.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestDocumentIsValidOpenAPI(t *testing.T) {
	raw := document(t)
	d, err := libopenapi.NewDocument(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.BuildV3Model(); err != nil { // every reference leads somewhere
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(d)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, errs := v.ValidateDocument(); !ok {
		for _, e := range errs {
			t.Errorf("%s: %s", e.Message, e.Reason)
			for _, s := range e.SchemaValidationErrors {
				t.Errorf("line %d, %s: %s", s.Line, s.KeywordLocation, s.Reason)
			}
		}
	}
	if got := parse(t, raw); got.OpenAPI != "3.1.0" || got.Info.Version != "v1.2.3" || len(got.Servers) != 1 || got.Servers[0].URL != "https://sql.example.com" {
		t.Errorf("openapi %q, version %q, servers %v", got.OpenAPI, got.Info.Version, got.Servers)
	}
}

// TestDocumentHasEveryRoute compares the router with the document, both ways. What a path's parameters are called is each
// one's own business.
func TestDocumentHasEveryRoute(t *testing.T) {
	unnamed := func(method, path string) string {
		parts := strings.Split(path, "/")
		for i := range parts {
			if strings.HasPrefix(parts[i], "{") {
				parts[i] = "{}"
			}
		}
		return strings.ToUpper(method) + " " + strings.Join(parts, "/")
	}
	var served, documented []string
	err := chi.Walk(api.New(api.Options{}).Routes(), func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if method != http.MethodHead { // GET's twin, as the document says once for all
			served = append(served, unnamed(method, path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for path, item := range parse(t, document(t)).Paths {
		for method, raw := range item {
			if method == "parameters" {
				continue
			}
			route := unnamed(method, path)
			documented = append(documented, route)
			var op struct{ OperationID string }
			if err := json.Unmarshal(raw, &op); err != nil {
				t.Fatalf("%s: %v", route, err)
			}
			if op.OperationID == "" || ids[op.OperationID] != "" {
				t.Errorf("%s: operationId %q is missing or that of %q too", route, op.OperationID, ids[op.OperationID])
			}
			ids[op.OperationID] = route
		}
	}
	for _, route := range served {
		if !slices.Contains(documented, route) {
			t.Errorf("%s is served, and not in internal/api/openapi %s", route, howTo)
		}
	}
	for _, route := range documented {
		if !slices.Contains(served, route) {
			t.Errorf("%s is in internal/api/openapi, and not served", route)
		}
	}
}

// TestDocumentHasEveryCode looks for each code that the rooms below can be answered with.
func TestDocumentHasEveryCode(t *testing.T) {
	raw := string(document(t))
	codes := api.FaultCodes()
	codes[http.StatusBadRequest] = append(codes[http.StatusBadRequest], wire.CodeBadJSON, wire.CodeBadRequest, wire.CodeTypeMismatch,
		wire.CodeTooManyParams, wire.CodeTooManyStatements, wire.CodeSQLTooLong, gate.CodeTransaction)
	codes[http.StatusForbidden] = append(codes[http.StatusForbidden], gate.CodePragma, gate.CodeSystem, gate.CodeAttach, gate.CodeTemp,
		gate.CodeModule, gate.CodeFunction, gate.CodeNotAllowed, gate.CodeRole, gate.CodeScope)
	for status, list := range codes {
		for _, code := range list {
			if !strings.Contains(raw, fmt.Sprintf("%q", code)) {
				t.Errorf("%d %s is in no response of internal/api/openapi %s", status, code, howTo)
			}
		}
	}
}

func TestDocumentIsServed(t *testing.T) {
	s := api.New(api.Options{Version: "v1.2.3"})
	get := func(method, path string, headers ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w
	}
	first := get("GET", "/api/openapi.json")
	etag := first.Header().Get("ETag")
	if d := parse(t, first.Body.Bytes()); d.Info.Version != "v1.2.3" || d.Servers[0].URL != "/" {
		t.Errorf("version %q, servers %v", d.Info.Version, d.Servers)
	}
	tests := []struct {
		path, match string
		status      int
	}{
		{"/openapi.json", "", http.StatusOK},
		{"/api/openapi.json", `"other"`, http.StatusOK},
		{"/api/openapi.json", etag, http.StatusNotModified},
		{"/openapi.json", `"other", W/` + etag, http.StatusNotModified},
		{"/openapi.json", "*", http.StatusNotModified},
	}
	for _, tt := range tests {
		w := get("GET", tt.path, "If-None-Match", tt.match)
		want := first.Body.String()
		if tt.status == http.StatusNotModified {
			want = ""
		}
		if w.Code != tt.status || w.Body.String() != want || w.Header().Get("ETag") != etag || etag == "" {
			t.Errorf("%s with If-None-Match %s: got %d, %d bytes, ETag %s; want %d, %d bytes, %s", tt.path, tt.match, w.Code, w.Body.Len(), w.Header().Get("ETag"), tt.status, len(want), etag)
		}
	}
}

func TestPartsOfTheDocument(t *testing.T) {
	const whole = "openapi: 3.1.0\ninfo: {version: x}\nservers: [{url: /}]\npaths: {/a: {get: {}}}\ncomponents: {schemas: {A: {type: string}}}\n"
	tests := []struct{ name, part, want string }{
		{"adds", "paths: {/b: {get: {x: 1.5, y: null, z: ['1', true]}}}\ncomponents: {schemas: {B: {}}}",
			`{"openapi":"3.1.0","info":{"version":"v"},"servers":[{"url":"http://h"}],"paths":{"/a":{"get":{}},"/b":{"get":{"x":1.5,"y":null,"z":["1",true]}}},"components":{"schemas":{"A":{"type":"string"},"B":{}}}}`},
		{"a path twice", "paths: {/a: {post: {}}}", "b.yaml: line 1: /a is in another file already"},
		{"a schema twice", "components: {schemas: {A: {}}}", "b.yaml: line 1: A is in another file already"},
		{"another kind", "info: 5", "b.yaml: line 1: info is in another file already"},
		{"no mapping", "[]", "b.yaml is no mapping"},
		{"empty", "", "b.yaml is no mapping"},
		{"no YAML", "{", "b.yaml: yaml: line 1: did not find expected node content"},
		{"an alias", "x: &a {}\ny: *a", "encode OpenAPI document: line 2: "},
		{"a date", "x: 2026-01-01", "encode OpenAPI document: line 1: "},
		{"a number that JSON lacks", "x: .inf", "encode OpenAPI document: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := api.JoinDocument(fstest.MapFS{"openapi/document.yaml": {Data: []byte(whole)}, "openapi/b.yaml": {Data: []byte(tt.part)}}, "v", "http://h")
			text := strings.TrimSuffix(string(got), "\n")
			if err != nil {
				text = err.Error()
			}
			if text != tt.want && (err == nil || !strings.HasPrefix(text, tt.want)) {
				t.Errorf("got  %s\nwant %s", text, tt.want)
			}
		})
	}
}
