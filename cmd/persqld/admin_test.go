package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binary is the program under test, built once by TestMain.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "persqld-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "persqld")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build persqld: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// command is the program with arguments, and no setting but those in extra.
func command(extra []string, args ...string) *exec.Cmd {
	c := exec.Command(binary, args...)
	c.Env = append([]string{"HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}, extra...)
	return c
}

// run runs the program to its end.
func run(t *testing.T, extra []string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	c := command(extra, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

// runJSON runs the program with --json and decodes the one object that it prints.
func runJSON(t *testing.T, wantStatus int, args ...string) map[string]any {
	t.Helper()
	status, stdout, stderr := run(t, nil, append(args, "--json")...)
	var object map[string]any
	decoder := json.NewDecoder(strings.NewReader(stdout))
	if err := decoder.Decode(&object); err != nil || decoder.More() {
		t.Fatalf("%v printed %q, no single object: %v", args, stdout, err)
	}
	if status != wantStatus {
		t.Fatalf("%v: exit status %d, want %d: %s%s", args, status, wantStatus, stdout, stderr)
	}
	return object
}

// startServer runs serve on data until it takes subcommands.
func startServer(t *testing.T, data string) *exec.Cmd {
	t.Helper()
	server := command(nil, "serve", "--data", data, "--listen", "127.0.0.1:0")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if server.ProcessState == nil {
			server.Process.Kill()
			server.Wait()
		}
	})
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	patience := time.After(20 * time.Second)
	for {
		if holder, err := os.ReadFile(filepath.Join(data, "lock")); err == nil && strings.TrimSpace(string(holder)) == fmt.Sprint(server.Process.Pid) {
			if _, err := os.Stat(filepath.Join(data, "admin.sock")); err == nil {
				return server
			}
		}
		select {
		case <-poll.C:
		case <-patience:
			t.Fatal("the server did not start")
		}
	}
}

// The subcommands do the same with a server, without one, and after one was killed.
func TestSubcommands(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 20), strings.Repeat("path", 20))
	for name, data := range map[string]string{"files": filepath.Join(t.TempDir(), "d"), "server": filepath.Join(t.TempDir(), "d"), "server, long path": long} {
		t.Run(name, func(t *testing.T) {
			var server *exec.Cmd
			if name != "files" {
				server = startServer(t, data)
			}
			ns := runJSON(t, 0, "namespace", "create", "acme", "--data", data)
			if ns["slug"] != "acme" || ns["id"] == "" {
				t.Errorf("namespace %v", ns)
			}
			if again := runJSON(t, 1, "namespace", "create", "acme", "--data", data); again["code"] != "conflict" {
				t.Errorf("a second time: %v", again)
			}
			token := runJSON(t, 0, "token", "create", "--namespace", "acme", "--name", "ci", "--expires", "24h", "--test", "--data", data)
			if secret, _ := token["token"].(string); !strings.HasPrefix(secret, "psql_test_p1_") || token["name"] != "ci" ||
				token["expiresAt"] == nil || token["role"] != "admin" || token["test"] != true {
				t.Errorf("token %v", token)
			}
			id := token["id"].(string)
			if revoked := runJSON(t, 0, "token", "revoke", id, "--data", data); revoked["revokedAt"] == nil || revoked["token"] != nil {
				t.Errorf("revoked %v", revoked)
			}
			if server != nil {
				// Killed, it leaves its socket; the files still answer.
				server.Process.Kill()
				server.Wait()
			}
			list := runJSON(t, 0, "token", "list", "--namespace", "acme", "--data", data)["tokens"].([]any)
			if len(list) != 1 || list[0].(map[string]any)["id"] != id || list[0].(map[string]any)["revokedAt"] == nil {
				t.Errorf("tokens %v", list)
			}
			for _, tt := range []struct {
				code string
				args []string
			}{
				{"not_found", []string{"token", "create", "--namespace", "none"}},
				{"not_found", []string{"token", "create", "--namespace", "acme", "--database", "none"}},
				{"not_found", []string{"token", "revoke", "tok_none"}},
				{"role_unavailable", []string{"token", "create", "--namespace", "acme", "--role", "readonly"}},
				{"bad_role", []string{"token", "create", "--namespace", "acme", "--role", "root"}},
				{"bad_slug", []string{"namespace", "create", "Acme"}},
			} {
				if got := runJSON(t, 1, append(tt.args, "--data", data)...); got["code"] != tt.code || got["error"] == "" {
					t.Errorf("%v: %v, want %s", tt.args, got, tt.code)
				}
			}
			found := runJSON(t, 0, "namespace", "list", "--data", data)["namespaces"].([]any)
			if len(found) == 0 || found[0].(map[string]any)["slug"] != "acme" {
				t.Errorf("namespaces %v", found)
			}
		})
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	data := filepath.Join(t.TempDir(), "d")
	server := startServer(t, data)
	status, _, stderr := run(t, nil, "serve", "--data", data, "--listen", "127.0.0.1:0")
	if status != 1 || !strings.Contains(stderr, fmt.Sprintf("held by process %d", server.Process.Pid)) || !strings.Contains(stderr, "hint:") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if _, err := os.Stat(filepath.Join(data, "admin.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestVersion(t *testing.T) {
	v := runJSON(t, 0, "version")
	if v["version"] == "" || v["sqliteVersion"] != "3.54.1" || v["rowMeter"] != "estimated" {
		t.Errorf("version %v", v)
	}
}

func TestUsage(t *testing.T) {
	data := "--data=" + filepath.Join(t.TempDir(), "none")
	tests := []struct {
		name   string
		env    string
		args   []string
		status int
		stderr string
	}{
		{"no command", "", nil, 2, "expected one of"},
		{"unknown flag", "", []string{"serve", "--nope"}, 2, "--nope"},
		{"missing flag", "", []string{"token", "create", data}, 2, "--namespace"},
		{"expires at once", "", []string{"token", "create", "--namespace", "a", "--expires", "1ms", data}, 2, "at least 1s"},
		{"unknown variable", "PERSQLD_DTA=x", []string{"token", "list"}, 2, "persqld: unknown setting PERSQLD_DTA in the environment; the nearest known one is PERSQLD_DATA\n"},
		{"out of range", "PERSQLD_MAX_OPEN=1", []string{"serve", data}, 2, "out of its range 8 to 1000000"},
		{"not this command's", "PERSQLD_MAX_OPEN=50", []string{"token", "list", data}, 1, "no catalog in this data directory"},
		{"help", "", []string{"serve", "--help"}, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, _, stderr := run(t, strings.Fields(tt.env), tt.args...)
			if status != tt.status || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit status %d, want %d; stderr %q lacks %q", status, tt.status, stderr, tt.stderr)
			}
		})
	}
}
