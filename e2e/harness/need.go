package harness

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
)

var missing struct {
	sync.Mutex
	lines []string
}

// Need returns the path of a program that the test can't do without. Where it is missing the test is skipped by name
// and listed by Missing; where CI is set it fails instead.
func Need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	Lacking(t, program)
	return ""
}

// Lacking ends the test for want of something that is not a program: as Need does.
func Lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing, and CI is set: nothing may be left out", what)
	}
	missing.Lock()
	missing.lines = append(missing.lines, fmt.Sprintf("%s: %s is missing", t.Name(), what))
	missing.Unlock()
	t.Skipf("NOT TESTED: %s is missing", what)
}

// Missing writes what was not tested; nothing if all was.
func Missing(w io.Writer) {
	missing.Lock()
	defer missing.Unlock()
	for _, line := range missing.lines {
		fmt.Fprintln(w, "NOT TESTED:", line)
	}
}
