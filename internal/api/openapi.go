package api

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// documents are the parts of the OpenAPI document, a file a noun: people write YAML, clients get JSON.
//
//go:embed openapi/*.yaml
var documents embed.FS

// documentFile is the part that the others are put into.
const documentFile = "openapi/document.yaml"

// document is the OpenAPI document as it is served.
type document struct {
	json []byte
	etag []string // the header's value
}

// Document is the OpenAPI 3.1 document of the routes, as JSON. version is the program's, and base the public origin that
// clients reach it at; an empty one means the address that the document came from.
func Document(version, base string) ([]byte, error) { return joinDocument(documents, version, base) }

func joinDocument(parts fs.FS, version, base string) ([]byte, error) {
	whole, err := documentPart(parts, documentFile)
	if err != nil {
		return nil, err
	}
	files, err := fs.Glob(parts, "openapi/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list parts of the OpenAPI document: %w", err)
	}
	for _, file := range files {
		if file == documentFile {
			continue
		}
		part, err := documentPart(parts, file)
		if err != nil {
			return nil, err
		}
		if err := mergeMapping(whole, part); err != nil {
			return nil, fmt.Errorf("%s: %w", path.Base(file), err)
		}
	}
	if paths := mappingValue(whole, "paths"); paths != nil {
		addTwins(paths)
	}
	if base = strings.TrimSuffix(base, "/"); base == "" { // paths bring the slash
		base = "/"
	}
	info, servers := mappingValue(whole, "info"), mappingValue(whole, "servers")
	if info == nil || servers == nil || len(servers.Content) != 1 {
		return nil, fmt.Errorf("%s has no info, or not one server", path.Base(documentFile))
	}
	setText(info, "version", version)
	setText(servers.Content[0], "url", base)
	var b bytes.Buffer
	if err := appendNode(jsontext.NewEncoder(&b), whole); err != nil {
		return nil, fmt.Errorf("encode OpenAPI document: %w", err)
	}
	return b.Bytes(), nil
}

// setText makes a text the value of a key that is there.
func setText(n *yaml.Node, key, value string) {
	if v := mappingValue(n, key); v != nil {
		*v = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
	}
}

// documentPart is the mapping in a file.
func documentPart(parts fs.FS, file string) (*yaml.Node, error) {
	raw, err := fs.ReadFile(parts, file)
	if err != nil {
		return nil, fmt.Errorf("read part of the OpenAPI document: %w", err)
	}
	var n yaml.Node
	if err := yaml.Unmarshal(raw, &n); err != nil {
		return nil, fmt.Errorf("%s: %w", path.Base(file), err)
	}
	if n.Kind != yaml.DocumentNode || n.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s is no mapping", path.Base(file))
	}
	return n.Content[0], nil
}

func mappingValue(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// mergeMapping adds to a mapping what another has. What both have must be mappings too, and is merged likewise, down to
// the names of paths and components: one of those can't be said twice.
func mergeMapping(into, from *yaml.Node) error { return mergeLevel(into, from, 0) }

// mergeDepth is how many keys lead to a name that is said once: paths./v1/me, components.schemas.Slug.
const mergeDepth = 2

func mergeLevel(into, from *yaml.Node, level int) error {
	for i := 0; i+1 < len(from.Content); i += 2 {
		key, value := from.Content[i], from.Content[i+1]
		there := mappingValue(into, key.Value)
		if there == nil {
			into.Content = append(into.Content, key, value)
			continue
		}
		if level == mergeDepth || strings.HasPrefix(key.Value, "/") || there.Kind != yaml.MappingNode || value.Kind != yaml.MappingNode {
			return fmt.Errorf("line %d: %s is in another file already", key.Line, key.Value)
		}
		if err := mergeLevel(there, value, level+1); err != nil {
			return err
		}
	}
	return nil
}

// appendNode writes a node as JSON, in the order of the file.
func appendNode(e *jsontext.Encoder, n *yaml.Node) error {
	switch n.Kind {
	case yaml.MappingNode:
		if err := e.WriteToken(jsontext.BeginObject); err != nil {
			return err
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if err := e.WriteToken(jsontext.String(n.Content[i].Value)); err != nil {
				return fmt.Errorf("line %d: %w", n.Content[i].Line, err)
			}
			if err := appendNode(e, n.Content[i+1]); err != nil {
				return err
			}
		}
		return e.WriteToken(jsontext.EndObject)
	case yaml.SequenceNode:
		if err := e.WriteToken(jsontext.BeginArray); err != nil {
			return err
		}
		for _, item := range n.Content {
			if err := appendNode(e, item); err != nil {
				return err
			}
		}
		return e.WriteToken(jsontext.EndArray)
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!str":
			return e.WriteToken(jsontext.String(n.Value))
		case "!!null":
			return e.WriteToken(jsontext.Null)
		case "!!bool", "!!int", "!!float":
			return e.WriteValue(jsontext.Value(n.Value)) // as JSON writes it, or an error
		}
	}
	return fmt.Errorf("line %d: %s has no counterpart in JSON", n.Line, n.ShortTag())
}

// newDocument makes the document that the server answers with.
func (s *Server) newDocument() (*document, error) {
	raw, err := Document(s.opt.Version, s.opt.BaseURL)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	return &document{json: raw, etag: []string{`"` + hex.EncodeToString(sum[:8]) + `"`}}, nil
}

var revalidate = []string{"no-cache"}

// openAPI serves GET /api/openapi.json and /openapi.json. The document is made at the first call.
func (s *Server) openAPI(x *exchange) error {
	d, err := s.document()
	if err != nil {
		return err
	}
	h := x.w.Header()
	h["Etag"] = d.etag
	h["Cache-Control"] = revalidate
	x.out = x.out[:0]
	if matches(x.r.Header["If-None-Match"], d.etag[0]) {
		x.status = http.StatusNotModified
		return nil
	}
	x.out = append(x.out, d.json...)
	return nil
}

// matches tells whether If-None-Match names an entity tag, by the weak comparison (RFC 9110, section 13.1.2).
func matches(headers []string, etag string) bool {
	for _, tag := range strings.Split(strings.Join(headers, ","), ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
			return true
		}
	}
	return false
}
