package querylog_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// The engine has to be set up before the first file is opened, as the server does at its start.
func TestMain(m *testing.M) {
	if err := sqlite.Initialize(sqlite.Setup{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
