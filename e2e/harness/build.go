package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build builds cmd/persqld into dir and returns the binary's path. GOFLAGS holds as it is set. With PERSQLD_RACE=1
// and a C compiler on the machine, the race detector is built in, but for SQLite's transpiled code: that is one
// thread's work by construction and many times slower under the detector.
func Build(ctx context.Context, dir string, tags ...string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	// Not "persqld": whoever ends his own server by that name must not end the tests'.
	bin := filepath.Join(dir, "under-test")
	args := []string{"build", "-o", bin}
	if len(tags) > 0 {
		args = append(args, "-tags="+strings.Join(append(tags, setTags()...), ","))
	}
	env := os.Environ()
	if Race() {
		args = append(args, "-race", "-gcflags=modernc.org/sqlite/lib=-race=false", "-gcflags=modernc.org/libc=-race=false")
		env = append(env, "CGO_ENABLED=1")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/persqld")...)
	cmd.Dir, cmd.Env = root, env
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build persqld: %w\n%s", err, out)
	}
	return bin, nil
}

// setTags are the tags in GOFLAGS, in whose place those of the command line would step.
func setTags() (tags []string) {
	for _, flag := range strings.Fields(os.Getenv("GOFLAGS")) {
		if list, ok := strings.CutPrefix("-"+strings.TrimLeft(flag, "-'\""), "-tags="); ok {
			tags = strings.Split(strings.TrimRight(list, "'\""), ",")
		}
	}
	return tags
}

// Race tells whether the server is built with the race detector.
func Race() bool {
	if os.Getenv("PERSQLD_RACE") != "1" {
		return false
	}
	_, err := exec.LookPath("gcc")
	return err == nil
}

// Root is the folder of the module.
func Root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
