package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// doctor runs persqld doctor and returns its report.
func doctor(t testing.TB, data string, args ...string) (report map[string]any, code int) {
	t.Helper()
	out, errs, code := harness.CLI(t, binary, data, append([]string{"doctor", "--json"}, args...)...)
	decoder := json.NewDecoder(strings.NewReader(out))
	if err := decoder.Decode(&report); err != nil || decoder.More() {
		t.Fatalf("doctor printed no single object: %v: %q%s", err, out, errs)
	}
	return report, code
}

func TestDoctorCommand(t *testing.T) {
	s := harness.Start(t, binary, harness.Options{})
	d := newDB(t, s.Client(t, harness.Token))
	d.Must("CREATE TABLE t(a)")
	id := d.Get("/v1/databases/" + d.Slug).OK().Str("data.id")
	if report, code := doctor(t, s.Data); code != 1 || report["code"] != "locked" || !strings.Contains(report["error"].(string), "held by process") {
		t.Errorf("under a running server: exit status %d: %v", code, report)
	}
	s.Kill()
	for _, args := range [][]string{nil, {"--full"}} {
		if report, code := doctor(t, s.Data, args...); code != 0 || report["sound"] != true || len(report["findings"].([]any)) != 0 || report["databases"] != 1.0 {
			t.Errorf("%v: exit status %d: %v", args, code, report)
		}
	}
	path := databaseFile(s.Data, id)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	report, code := doctor(t, s.Data)
	if findings, _ := report["findings"].([]any); code != 1 || report["sound"] != false || len(findings) == 0 || findings[0].(map[string]any)["code"] != "file_missing" {
		t.Errorf("exit status %d: %v", code, report)
	}
	out, errs, code := harness.CLI(t, binary, s.Data, "doctor")
	if code != 1 || errs != "" || !strings.Contains(out, "error file_missing: default/"+d.Slug) || !strings.Contains(out, "→ put the file back") {
		t.Errorf("for people: exit status %d: %s%s", code, out, errs)
	}
	if report, code := doctor(t, filepath.Join(s.Data, "none")); code != 1 || report["error"] == nil {
		t.Errorf("no directory: exit status %d: %v", code, report)
	}
	if _, errs, code := harness.CLI(t, binary, s.Data, "doctor", "--nope"); code != 2 {
		t.Errorf("usage: exit status %d: %s", code, errs)
	}
}

// TestDoctorOfHistory: a server that was killed leaves a sound history; a byte that changed in it is found, by name, and what it takes away too.
func TestDoctorOfHistory(t *testing.T) {
	s := harness.Start(t, binary, harness.Options{Env: keepsHistory})
	d := newDB(t, s.Client(t, harness.Token))
	d.Must("CREATE TABLE t(a)")
	for range 40 {
		d.Must("INSERT INTO t VALUES(zeroblob(50000))")
	}
	d.Post(d.Path("restore"), body{"timestamp": "2100-01-01"}).OK() // keeps what came so far, and a base
	d.Must("INSERT INTO t VALUES(1)")
	id := d.Get("/v1/databases/" + d.Slug).OK().Str("data.id")
	s.Kill()
	for _, args := range [][]string{nil, {"--full"}} {
		if report, code := doctor(t, s.Data, args...); code != 0 || report["sound"] != true || report["histories"] != 1.0 {
			t.Errorf("%v: exit status %d: %v", args, code, report)
		}
	}
	chapters, err := filepath.Glob(filepath.Join(s.Data, "history", id[len(id)-2:], id, "*.log"))
	if err != nil || len(chapters) == 0 {
		t.Fatalf("no chapter: %v", err)
	}
	b, err := os.ReadFile(chapters[0])
	if err != nil {
		t.Fatal(err)
	}
	b[1000] ^= 1
	if err := os.WriteFile(chapters[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := harness.CLI(t, binary, s.Data, "doctor", "--full")
	if code != 1 || errs != "" || !strings.Contains(out, "error history_damaged: default/"+d.Slug) || !strings.Contains(out, filepath.Base(chapters[0])) || !strings.Contains(out, "can't be restored") ||
		!strings.Contains(out, "1 histories examined: 2 errors") {
		t.Errorf("exit status %d: %s%s", code, out, errs)
	}
}
