package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Answer is an answer of the server.
type Answer struct {
	t      testing.TB
	What   string // the request, for messages
	Status int
	Header http.Header
	Raw    []byte
	Took   time.Duration
	Body   map[string]any // Raw as JSON, numbers as json.Number
}

// check holds the answer against what is true of every answer under /v1.
func (a *Answer) check(data string) {
	a.t.Helper()
	if a.Status == http.StatusOK && a.Header.Get("Content-Disposition") != "" {
		return // a file
	}
	if ct := a.Header.Get("Content-Type"); ct != "application/json" && !strings.HasPrefix(ct, "application/json;") {
		a.t.Errorf("%s: content type %q, want application/json (%s)", a.What, ct, a.short())
		return
	}
	if a.Header.Get("X-Request-Id") == "" {
		a.t.Errorf("%s: no X-Request-Id", a.What)
	}
	dec := json.NewDecoder(bytes.NewReader(a.Raw))
	dec.UseNumber()
	if err := dec.Decode(&a.Body); err != nil {
		a.t.Errorf("%s: the answer is not a JSON object: %v (%s)", a.What, err, a.short())
		return
	}
	success, ok := a.Body["success"].(bool)
	if !ok || success != (a.Status == http.StatusOK) {
		a.t.Errorf("%s: status %d with success %v (%s)", a.What, a.Status, a.Body["success"], a.short())
	}
	if success {
		if _, ok := a.Body["data"]; !ok {
			a.t.Errorf("%s: success without data (%s)", a.What, a.short())
		}
		return
	}
	if a.Status >= 500 && a.Status != http.StatusServiceUnavailable {
		a.t.Errorf("%s: status %d (%s)", a.What, a.Status, a.short())
	}
	for _, field := range []string{"error", "code", "requestId"} {
		if s, ok := a.Body[field].(string); !ok || s == "" {
			a.t.Errorf("%s: a failure without %s (%s)", a.What, field, a.short())
		}
	}
	// A failure that was kept and is replayed names the call that ran.
	replayed := a.Header.Get("Idempotency-Replayed") != "" || a.Header.Get("Plan-Replayed") != ""
	if got, want := a.Body["requestId"], a.Header.Get("X-Request-Id"); got != want && !replayed {
		a.t.Errorf("%s: requestId %v, header %q", a.What, got, want)
	}
	for _, leak := range []string{data, "goroutine ", ".go:", "/internal/", "modernc", "catalog.db"} {
		if leak != "" && bytes.Contains(a.Raw, []byte(leak)) {
			a.t.Errorf("%s: the answer tells %q (%s)", a.What, leak, a.short())
		}
	}
	if a.Status == http.StatusTooManyRequests || a.Status == http.StatusServiceUnavailable {
		if h := a.Header.Get("Retry-After"); h == "" || h != Text(a.Body["retryAfterSeconds"]) {
			a.t.Errorf("%s: %d with Retry-After %q and retryAfterSeconds %v", a.What, a.Status, h, a.Body["retryAfterSeconds"])
		}
	}
}

func (a *Answer) short() string { return fmt.Sprintf("%d %s", a.Status, Tail(string(a.Raw), 600)) }

// OK is the answer if it is a success; else the test ends.
func (a *Answer) OK() *Answer {
	a.t.Helper()
	if a.Status != http.StatusOK {
		a.t.Fatalf("%s: got %s, want success", a.What, a.short())
	}
	return a
}

// Fails checks that the answer is a failure of this status and code; an empty code is any.
func (a *Answer) Fails(status int, code string) *Answer {
	a.t.Helper()
	if a.Status != status {
		a.t.Errorf("%s: got %s, want status %d", a.What, a.short(), status)
	} else if got := a.Str("code"); code != "" && got != code {
		a.t.Errorf("%s: code %q, want %q (%s)", a.What, got, code, a.short())
	}
	return a
}

// Says checks that error is exactly this sentence.
func (a *Answer) Says(message string) *Answer {
	a.t.Helper()
	if got := a.Str("error"); got != message {
		a.t.Errorf("%s: error %q, want %q", a.What, got, message)
	}
	return a
}

// Tells checks that the answer contains each of the words, case aside.
func (a *Answer) Tells(words ...string) *Answer {
	a.t.Helper()
	for _, w := range words {
		if !strings.Contains(strings.ToLower(string(a.Raw)), strings.ToLower(w)) {
			a.t.Errorf("%s: got %s, want it to contain %q", a.What, a.short(), w)
		}
	}
	return a
}

// Kind checks that errorDetail is of this kind.
func (a *Answer) Kind(kind string) *Answer {
	a.t.Helper()
	if got := a.Str("errorDetail.kind"); got != kind {
		a.t.Errorf("%s: kind %q, want %q (%s)", a.What, got, kind, a.short())
	}
	return a
}

// Is checks that the value at a path is written as want in JSON, without quotes if it is a string.
func (a *Answer) Is(path, want string) *Answer {
	a.t.Helper()
	if got := Text(a.At(path)); got != want {
		a.t.Errorf("%s: %s is %s, want %s (%s)", a.What, path, got, want, a.short())
	}
	return a
}

// Has checks that the object at a path has these keys.
func (a *Answer) Has(path string, keys ...string) *Answer {
	a.t.Helper()
	object, ok := a.At(path).(map[string]any)
	if !ok {
		a.t.Errorf("%s: %s is no object (%s)", a.What, path, a.short())
		return a
	}
	for _, k := range keys {
		if _, ok := object[k]; !ok {
			a.t.Errorf("%s: %s has no %s (%s)", a.What, path, k, a.short())
		}
	}
	return a
}

// At is the value at a path of the body, its steps names or indexes with dots between them; nil if there is none.
func (a *Answer) At(path string) any {
	var v any = a.Body
	if path == "" {
		return v
	}
	for step := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[step]
		case []any:
			var i int
			if _, err := fmt.Sscanf(step, "%d", &i); err != nil || i < 0 || i >= len(at) {
				return nil
			}
			v = at[i]
		default:
			return nil
		}
	}
	return v
}

// Str is the string at a path, or "".
func (a *Answer) Str(path string) string {
	s, _ := a.At(path).(string)
	return s
}

// List is the array at a path, nil if there is none.
func (a *Answer) List(path string) []any {
	l, _ := a.At(path).([]any)
	return l
}

// Rows are the rows of a query's answer.
func (a *Answer) Rows() [][]any {
	a.t.Helper()
	return rowsOf(a.t, a.At("data"))
}

func rowsOf(t testing.TB, result any) [][]any {
	t.Helper()
	object, _ := result.(map[string]any)
	list, ok := object["rows"].([]any)
	if !ok {
		t.Fatalf("no rows in %v", result)
	}
	rows := make([][]any, len(list))
	for i, r := range list {
		if rows[i], ok = r.([]any); !ok {
			t.Fatalf("row %d is no array: %v", i, r)
		}
	}
	return rows
}

// Text is a value of an answer as it stands in JSON, a string without its quotes.
func Text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(b.String())
}
