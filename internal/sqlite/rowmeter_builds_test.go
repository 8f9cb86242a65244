//go:build !rowmeterproof

package sqlite_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// The tests of the row meter once more, in the builds that this one is not: the one that proves the exact meter, with each
// of its additions to the library switched off in turn and with a second count beside; and the plain one, which estimates.
// SQLite is compiled for them without optimization, in a third of the time.
func TestOtherRowMeters(t *testing.T) {
	if testing.Short() {
		t.Skip("builds SQLite twice")
	}
	t.Run("proof", func(t *testing.T) {
		flags := command(t, "", "go", "run", "./rowmeter", "-proof")
		rowMeterTests(t, strings.TrimSpace(flags), "TestRowMeterAnchors", "TestRowMeterOracle", "TestRowMeterRandom", "TestRowMeterTable")
	})
	if sqlite.RowMeter() != "exact" {
		return // this is the plain one
	}
	t.Run("estimated", func(t *testing.T) {
		rowMeterTests(t, "", "TestRowMeterTable", "TestRowMeterCost")
	})
}

// rowMeterTests runs the tests of the row meter under Go's flags. Those named must be among them.
func rowMeterTests(t *testing.T, flags string, named ...string) {
	t.Helper()
	out := command(t, flags, "go", "test", "-count=1", "-vet=off", "-v", "-gcflags=modernc.org/sqlite/lib=-N -l", "-run", "^TestRowMeter", ".")
	for _, name := range named {
		if !strings.Contains(out, "--- PASS: "+name+" ") {
			t.Errorf("%s did not run:\n%s", name, out)
		}
	}
}

// command runs a program and returns what it prints.
func command(t *testing.T, flags string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "GOFLAGS="+flags)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}
