package harness

import (
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/persqld/persqld/e2e/openapi"
)

// document is what the first server that was started says of itself; all have the same binary.
var document struct {
	sync.Mutex
	*openapi.Document
}

// loadDocument reads the OpenAPI document of a server, unless one was read before.
func loadDocument(url string) error {
	document.Lock()
	defer document.Unlock()
	if document.Document != nil {
		return nil
	}
	resp, err := http.Get(url + "/api/openapi.json")
	if err != nil {
		return fmt.Errorf("get OpenAPI document: %w", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("get OpenAPI document: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get OpenAPI document: status %d: %s", resp.StatusCode, Tail(string(raw), 300))
	}
	document.Document, err = openapi.Load(raw)
	return err
}

// Operations are the calls of the OpenAPI document.
func Operations() []*openapi.Operation {
	document.Lock()
	defer document.Unlock()
	return document.Operations()
}

// Unmet lists the statuses of the OpenAPI document that no exchange of this process has met.
func Unmet() []string {
	document.Lock()
	d := document.Document
	document.Unlock()
	if d == nil {
		return nil
	}
	return d.Unmet()
}

// checkDocument holds the answer and its request against the OpenAPI document.
func (a *Answer) checkDocument(e *openapi.Exchange) {
	a.t.Helper()
	document.Lock()
	d := document.Document
	document.Unlock()
	if d == nil {
		return // no server of ours
	}
	e.Status, e.Header, e.Body = a.Status, a.Header, a.Raw
	if a.Body != nil {
		e.Decoded = a.Body
	}
	if err := d.Check(e); err != nil {
		a.t.Errorf("%s: not as the OpenAPI document says: %s\nanswer: %s", a.What, Tail(err.Error(), 2000), a.short())
	}
}
