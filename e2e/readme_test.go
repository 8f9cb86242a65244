package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

var quickstart = regexp.MustCompile("(?ms)^```sh quickstart[^\n]*\n(.*?)^```")

// TestQuickStartOfTheReadme runs the README's blocks marked "sh quickstart" one after the other, with URL and TOKEN set,
// as a reader who pastes them does.
func TestQuickStartOfTheReadme(t *testing.T) {
	harness.Need(t, "curl")
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := quickstart.FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Fatal("the README has no block marked ```sh quickstart")
	}
	s := harness.Start(t, binary, harness.Options{})
	for i, block := range blocks {
		script := block[1]
		if !strings.Contains(script, "curl") {
			t.Errorf("block %d has no curl:\n%s", i, script)
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", script)
		cmd.Dir = t.TempDir()
		cmd.Env = append(harness.Environ(), "URL="+s.URL, "TOKEN="+harness.Token)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), `"success":false`) || !strings.Contains(string(out), `"success":true`) {
			t.Errorf("block %d: %v\n%s\nanswers\n%s", i, err, script, out)
		}
	}
}
