package api

import "strings"

// twins says where the calls of /v1 that a member has too are under /api: what a path begins with there and here. The first
// that fits counts.
var twins = []struct{ v1, api string }{
	{"/v1/db/{ns}/{db}/", "/api/namespaces/{ns}/databases/{db}/"},
	{"/v1/db/{namespace}/{database}/", "/api/namespaces/{namespace}/databases/{database}/"}, // as the OpenAPI document names them
	{"/v1/databases", "/api/namespaces/{ns}/databases"},
	{"/v1/tokens", "/api/namespaces/{ns}/tokens"},
	{"/v1/audit", "/api/namespaces/{ns}/audit"},
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
