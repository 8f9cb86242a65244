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
