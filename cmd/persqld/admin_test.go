package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
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
func startServer(t *testing.T, data string, env ...string) *exec.Cmd {
	t.Helper()
	args := []string{"serve", "--data", data}
	if env == nil {
		args = append(args, "--listen", "127.0.0.1:0")
	}
	server := command(env, args...)
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
				{"bad_role", []string{"token", "create", "--namespace", "acme", "--role", "reader"}},
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

// A deleted database is listed and brought back the same way with a server, without one, and after one was killed.
func TestDatabaseSubcommands(t *testing.T) {
	for _, state := range []string{"server", "killed", "stopped"} {
		t.Run(state, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "d")
			server, url := listeningServer(t, data)
			ids := map[string]string{}
			for _, slug := range []string{"orders", "visits"} {
				ids[slug], _ = call(t, url, http.MethodPost, "/v1/databases", `{"slug":"`+slug+`"}`)["id"].(string)
			}
			call(t, url, http.MethodPost, "/v1/db/default/orders/query", `{"sql":"CREATE TABLE t(a)"}`)
			call(t, url, http.MethodDelete, "/v1/databases/orders", "")
			switch state {
			case "killed":
				server.Process.Kill()
				server.Wait()
			case "stopped":
				server.Process.Signal(syscall.SIGTERM)
				server.Wait()
			}
			list := func(args ...string) string {
				var names []string
				for _, one := range runJSON(t, 0, append([]string{"database", "list", "--data", data}, args...)...)["databases"].([]any) {
					d := one.(map[string]any)
					names = append(names, fmt.Sprint(d["namespace"], "/", d["slug"]))
					if deleted := d["deletedAt"] != nil && d["restorableUntil"] != nil; deleted != (len(args) > 0 && args[0] == "--deleted") {
						t.Errorf("database %v", d)
					}
				}
				return strings.Join(names, " ")
			}
			if got := list(); got != "default/visits" {
				t.Errorf("databases %s", got)
			}
			if got := list("--deleted", "--namespace", "default"); got != "default/orders" {
				t.Errorf("the trash %s", got)
			}
			if _, out, _ := run(t, nil, "database", "list", "--deleted", "--data", data); !strings.Contains(out, "default/orders") || !strings.Contains(out, ids["orders"]) {
				t.Errorf("the trash for people: %s", out)
			}
			for _, tt := range []struct {
				code string
				args []string
			}{
				{"not_found", []string{"undelete", "db_none"}},
				{"not_found", []string{"list", "--namespace", "none"}},
				{"slug_taken", []string{"undelete", ids["orders"], "--slug", "visits"}},
				{"bad_slug", []string{"undelete", ids["orders"], "--slug", "No"}},
			} {
				got := runJSON(t, 1, append(append([]string{"database"}, tt.args...), "--data", data)...)
				if got["code"] != tt.code || got["error"] == "" {
					t.Errorf("%v: %v, want %s", tt.args, got, tt.code)
				}
			}
			back := runJSON(t, 0, "database", "undelete", ids["orders"], "--slug", "old-orders", "--data", data)
			if back["id"] != ids["orders"] || back["namespace"] != "default" || back["slug"] != "old-orders" || back["status"] != "healthy" {
				t.Errorf("undeleted %v", back)
			}
			if state != "server" {
				_, url = listeningServer(t, data)
			}
			call(t, url, http.MethodPost, "/v1/db/default/old-orders/query", `{"sql":"INSERT INTO t VALUES(1)"}`)
		})
	}
}

const testToken = "psql_live_testTokenOfTheSubcommands000000000"

// listeningServer is startServer with a token and an address that a client can use.
func listeningServer(t *testing.T, data string) (server *exec.Cmd, url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	server, url = startServer(t, data, "PERSQLD_LISTEN="+address, "PERSQLD_TOKEN="+testToken), "http://"+address
	// The socket that startServer looks for may be one that a killed server left.
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	patience := time.After(20 * time.Second)
	for {
		if resp, err := http.Get(url + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return server, url
			}
		}
		select {
		case <-poll.C:
		case <-patience:
			t.Fatal("the server takes no requests")
		}
	}
}

// call sends a request that must succeed and returns its data, if that is an object.
func call(t *testing.T, url, method, path, body string) map[string]any {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+testToken)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Success bool
		Data    map[string]any
		Error   string
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || !answer.Success {
		t.Fatalf("%s %s: %d %+v, %v", method, path, resp.StatusCode, answer, err)
	}
	return answer.Data
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
	if v["version"] == "" || v["sqliteVersion"] != "3.54.1" || v["rowMeter"] != sqlite.RowMeter() {
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
