package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// pageAnswer is an answer as a page saw it.
type pageAnswer struct {
	Status  int
	Headers map[string]*string
	Body    struct {
		Success bool
		Code    string
		Data    json.RawMessage
	}
}

func (a pageAnswer) header(name string) string {
	if v := a.Headers[name]; v != nil {
		return *v
	}
	return ""
}

// TestBrowserOfAnotherOrigin lets a page that another origin serves query /v1 with a bearer, in Chromium.
func TestBrowserOfAnotherOrigin(t *testing.T) {
	row(t, "DP-CORS-1", "DP-CORS-2", "DP-CORS-3")
	node, chromium := harness.Need(t, "node"), harness.Need(t, "chromium")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	npmFolder(ctx, t, "browser", "playwright-core")
	page := httptest.NewServer(http.FileServer(http.Dir("browser")))
	defer page.Close()
	s := harness.Start(t, binary, harness.Options{})

	cmd := exec.CommandContext(ctx, node, "cross-origin.mjs")
	cmd.Dir = "browser"
	cmd.Env = append(harness.Environ(), "CHROMIUM="+chromium, "PAGE="+page.URL+"/page.html", "API="+s.URL, "TOKEN="+harness.Token)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("the page failed: %v\n%s%s", err, out.String(), errs.String())
	}
	var seen struct {
		Origin                                                                                   string
		Create, Insert, Replay, Plan, PlanReplay, Select, Broken, Describe, Unauthorized, Remove pageAnswer
		Credentials, Version, Metrics                                                            string
	}
	if err := json.Unmarshal(out.Bytes(), &seen); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if seen.Origin == s.URL {
		t.Fatal("the page is of the server's own origin")
	}
	for name, a := range map[string]pageAnswer{"create": seen.Create, "insert": seen.Insert, "replay": seen.Replay, "plan": seen.Plan, "select": seen.Select, "describe": seen.Describe, "delete": seen.Remove} {
		if a.Status != http.StatusOK || !a.Body.Success || a.header("x-request-id") == "" {
			t.Errorf("%s: %+v", name, a)
		}
	}
	var result struct{ Rows json.RawMessage }
	if err := json.Unmarshal(seen.Select.Body.Data, &result); err != nil || string(result.Rows) != `[[1,"from a page"],[2,"planned"]]` {
		t.Errorf("the page reads %s: %v", seen.Select.Body.Data, err)
	}
	if got := seen.Insert.header("x-request-id"); got != "chosen-by-the-page" {
		t.Errorf("the page's request id became %q", got)
	}
	if got := seen.Replay.header("idempotency-replayed"); got != "true" {
		t.Errorf("Idempotency-Replayed reads %q", got)
	}
	if got := seen.PlanReplay.header("plan-replayed"); got != "true" {
		t.Errorf("Plan-Replayed reads %q", got)
	}
	if seen.Broken.Status != http.StatusBadRequest || seen.Broken.Body.Code == "" {
		t.Errorf("the page sees an SQL error as %+v", seen.Broken)
	}
	if seen.Unauthorized.Status != http.StatusUnauthorized || seen.Unauthorized.header("www-authenticate") == "" {
		t.Errorf("the page sees 401 as %+v", seen.Unauthorized)
	}
	for name, got := range map[string]string{"a call with credentials": seen.Credentials, "/version": seen.Version, "/metrics": seen.Metrics} {
		if got != "TypeError" {
			t.Errorf("%s was not refused by the browser: %s", name, got)
		}
	}
}
