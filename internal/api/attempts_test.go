package api

import (
	"fmt"
	"testing"
	"time"
)

func TestAttempts(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	a := newAttempts(3, func() time.Time { return now })
	a.most = 2
	try := func(name string, want time.Duration) {
		t.Helper()
		if got := a.try(name).Round(time.Millisecond); got != want {
			t.Errorf("%s: wait %v, want %v", name, got, want)
		}
	}
	for range 3 {
		try("a", 0)
	}
	try("a", 20*time.Second)
	try("a", 20*time.Second) // one that waits isn't counted
	try("b", 0)
	now = now.Add(19 * time.Second)
	try("a", time.Second)
	now = now.Add(time.Second)
	try("a", 0)
	try("a", 20*time.Second)
	// Names that find no room share one bucket, and take nobody else's away.
	for i := range 3 {
		try(fmt.Sprint("c", i), 0)
	}
	try("d", 20*time.Second)
	try("a", 20*time.Second)
	if len(a.names) != 2 {
		t.Errorf("%d names", len(a.names))
	}
	// A minute after its last use a name is forgotten, and nothing is given away by that: its bucket is full.
	now = now.Add(time.Minute + time.Second)
	try("d", 0)
	if len(a.names) != 1 {
		t.Errorf("%d names", len(a.names))
	}
}

func TestTwinOf(t *testing.T) {
	for v1, want := range map[string]string{
		"/v1/db/{ns}/{db}/query": "/api/namespaces/{ns}/databases/{db}/query", "/v1/databases": "/api/namespaces/{ns}/databases",
		"/v1/databases/{db}/undelete": "/api/namespaces/{ns}/databases/{db}/undelete", "/v1/tokens/{id}": "/api/namespaces/{ns}/tokens/{id}",
		"/v1/audit": "/api/namespaces/{ns}/audit", "/v1/me": "", "/v1/users": "", "/v1/auditors": "", "/healthz": "",
	} {
		if got := TwinOf(v1); got != want {
			t.Errorf("%s: %q, want %q", v1, got, want)
		}
	}
}
