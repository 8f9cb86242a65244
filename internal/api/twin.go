package api

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// twins says where the calls of /v1 that a member has too are under /api: what a path begins with there and here. The first
// that fits counts.
var twins = []struct{ v1, api string }{
	{"/v1/db/{ns}/{db}/", "/api/namespaces/{ns}/databases/{db}/"},
	{"/v1/db/{namespace}/{database}/", "/api/namespaces/{namespace}/databases/{database}/"}, // as the OpenAPI document names them
	{"/v1/databases", "/api/namespaces/{ns}/databases"},
	{"/v1/tokens", "/api/namespaces/{ns}/tokens"},
	{"/v1/actions/bindings", "/api/namespaces/{ns}/actions/bindings"},
	{"/v1/oauth-apps", "/api/namespaces/{ns}/oauth-apps"},
	{"/v1/audit", "/api/namespaces/{ns}/audit"},
	{"/v1/usage", "/api/namespaces/{ns}/usage"},
	{"/v1/billing", "/api/namespaces/{ns}/billing"},
}

// TwinOf is the path under /api that does for a member what a path under /v1 does for a token; "" if there is none.
func TwinOf(v1 string) string {
	for _, t := range twins {
		if rest, ok := strings.CutPrefix(v1, t.v1); ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(t.v1, "/")) {
			return t.api + rest
		}
	}
	return ""
}

// countedTwin tells whether the twin of a path is counted and charged: of what members call only statements are, and what writes as many rows as they do.
func countedTwin(path string) bool {
	_, call, _ := strings.Cut(path, "}/databases/{db}/")
	if call == "" {
		_, call, _ = strings.Cut(path, "/v1/db/{namespace}/{database}/") // as the OpenAPI document names it
	}
	switch call {
	case "query", "batch", "import", "load-csv", "propose", "apply", "redeem_approval", "approvals/{token}/redeem":
		return true
	}
	return false
}

// twinSuffix ends the operationId of a twin.
const twinSuffix = "AsMember"

// addTwins adds to the OpenAPI document's paths the twins of those under /v1: the same calls, by cookie instead of token.
func addTwins(paths *yaml.Node) {
	for i, end := 0, len(paths.Content); i+1 < end; i += 2 {
		v1 := paths.Content[i].Value
		path := strings.ReplaceAll(TwinOf(v1), "{ns}", "{namespace}")
		if path == "" {
			continue
		}
		item := copyNode(paths.Content[i+1])
		for j := 0; j+1 < len(item.Content); j += 2 {
			if method := item.Content[j].Value; method != "parameters" {
				makeTwin(item.Content[j+1], v1, method)
			}
		}
		if !strings.Contains(v1, "{namespace}") {
			parameters := mappingValue(item, "parameters")
			if parameters == nil {
				parameters = &yaml.Node{Kind: yaml.SequenceNode}
				item.Content = append(item.Content, textNode("parameters"), parameters)
			}
			parameters.Content = append(parameters.Content, refNode("parameters/Namespace"))
		}
		paths.Content = append(paths.Content, textNode(path), item)
	}
}

// makeTwin turns an operation under /v1 into its twin.
func makeTwin(op *yaml.Node, v1, method string) {
	if id := mappingValue(op, "operationId"); id != nil {
		id.Value += twinSuffix
	}
	setNode(op, "description", textNode("For members what "+strings.ToUpper(method)+" "+v1+
		" is for tokens, which has the description: a viewer is a readonly token there, an editor a readwrite one, an admin and an owner an admin token."))
	setNode(op, "security", &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{
		{Kind: yaml.MappingNode, Content: []*yaml.Node{textNode("session"), {Kind: yaml.SequenceNode}}}}})
	responses := mappingValue(op, "responses")
	setNode(responses, "401", refNode("responses/SignedOut"))
	if !countedTwin(v1) {
		dropNode(responses, "402")
	}
	for _, missing := range [][2]string{{"403", "Forbidden"}, {"404", "NamespaceNotFound"}} {
		if mappingValue(responses, missing[0]) == nil {
			setNode(responses, missing[0], refNode("responses/"+missing[1]))
		}
	}
}

func textNode(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func refNode(component string) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{textNode("$ref"), textNode("#/components/" + component)}}
}

// setNode makes value that of a key, which may be new.
func setNode(n *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content[i+1] = value
			return
		}
	}
	n.Content = append(n.Content, textNode(key), value)
}

// dropNode takes a key and its value away, if they are there.
func dropNode(n *yaml.Node, key string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = append(n.Content[:i], n.Content[i+2:]...)
			return
		}
	}
}

func copyNode(n *yaml.Node) *yaml.Node {
	c := *n
	c.Content = make([]*yaml.Node, len(n.Content))
	for i := range n.Content {
		c.Content[i] = copyNode(n.Content[i])
	}
	return &c
}
