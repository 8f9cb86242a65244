package config_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/config"
)

var update = flag.Bool("update", false, "write the settings' table into docs/settings.md")

// The documentation's table is the one that the declaration makes: `go test ./internal/config -update` writes it.
func TestSettingsTable(t *testing.T) {
	const path, begin, end = "../../docs/settings.md", "<!-- settings: begin -->\n", "<!-- settings: end -->"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no %s … %s", path, begin, end)
	}
	want := before + begin + config.Table() + end + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("%s is out of step; run: go test ./internal/config -update", path)
	}
}
