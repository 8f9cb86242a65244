package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// npmFolder is the absolute path of a folder beside the tests whose packages are installed, by the lock file.
func npmFolder(ctx context.Context, t testing.TB, name, installed string) string {
	t.Helper()
	npm := harness.Need(t, "npm")
	dir, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", installed, "package.json")); err != nil {
		install := exec.CommandContext(ctx, npm, "ci", "--no-audit", "--no-fund")
		install.Dir = dir
		if out, err := install.CombinedOutput(); err != nil {
			t.Logf("npm ci: %v\n%s", err, out)
			harness.Lacking(t, installed+" (npm ci failed)")
		}
	}
	return dir
}

// TestGeneratedClient makes a client of the OpenAPI document that the server gives (openapi-typescript), compiles the README's
// quick start with it, as strictly as TypeScript can, and runs it.
func TestGeneratedClient(t *testing.T) {
	row(t, "DP-DOC-3")
	node := harness.Need(t, "node")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	packages := npmFolder(ctx, t, "client", "openapi-typescript")
	s := harness.Start(t, binary, harness.Options{})

	dir := t.TempDir() // what is generated is kept out of the tree
	for _, file := range []string{"quickstart.ts", "tsconfig.json", "package.json"} {
		text, err := os.ReadFile(filepath.Join(packages, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	document := s.Client(t, "").Get("/api/openapi.json").Raw
	if err := os.WriteFile(filepath.Join(dir, "openapi.json"), document, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(ctx, node, args...)
		cmd.Dir = dir
		cmd.Env = append(harness.Environ(), "API="+s.URL, "TOKEN="+harness.Token)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("node %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("node_modules/openapi-typescript/bin/cli.js", "openapi.json", "-o", "openapi.d.ts")
	run("node_modules/typescript/bin/tsc")
	const want = `{"changes":0,"id":1,"sameId":1,"replayed":"true","totals":[2,13.5],"statements":2,"columns":["id","item","price"],"rowCount":2,"code":"unknown_column","column":"x"}`
	if got := strings.TrimSpace(run("out/quickstart.js")); got != want {
		t.Errorf("the quick start prints\n%s\nwant\n%s", got, want)
	}
}
