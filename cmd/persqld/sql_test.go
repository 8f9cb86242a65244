package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// runWith is run with a standard input.
func runWith(t *testing.T, stdin string, extra []string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	c := command(extra, args...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

// One statement does the same through a server and on the files that it left.
func TestSQL(t *testing.T) {
	data := filepath.Join(t.TempDir(), "d")
	server, url := listeningServer(t, data)
	call(t, url, http.MethodPost, "/v1/databases", `{"slug":"orders"}`)
	call(t, url, http.MethodPost, "/v1/databases", `{"slug":"gone"}`)
	call(t, url, http.MethodDelete, "/v1/databases/gone", "")
	env := []string{"PERSQL_API_URL=" + url + "/", "PERSQL_TOKEN=" + testToken}

	if status, _, stderr := run(t, nil, "sql", "default/orders", "SELECT 1", "--data", data); status != 1 || !strings.Contains(stderr, "held by process") || !strings.Contains(stderr, "PERSQL_API_URL") {
		t.Errorf("on the files under a server: exit status %d: %s", status, stderr)
	}
	for _, way := range []string{"server", "files"} {
		t.Run(way, func(t *testing.T) {
			var extra, flags []string
			if way == "server" {
				extra = env
			} else {
				flags = []string{"--data", data}
				server.Process.Signal(syscall.SIGTERM)
				server.Wait()
			}
			for _, tt := range []struct {
				name   string
				args   []string
				stdin  string
				status int
				stdout string
				stderr []string
			}{
				{name: "DDL", args: []string{"default/orders", "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c)"}, stdout: "0 rows changed\n"},
				{name: "insert", args: []string{"default/orders", "INSERT INTO t(b, c) VALUES(?, ?)", "--param", "tea, with milk", "--param", `{"$blob":"AP8="}`}, stdout: "1 row changed, last insert rowid 1\n"},
				{name: "named", args: []string{"default/orders", "INSERT INTO t VALUES(:id, @b, NULL) RETURNING a", "--param", ":id=9007199254740993", "--param", "@b=x=y"}, stdout: "a\n-\n9007199254740993\n(1 row)\n"},
				{name: "table", args: []string{"default/orders", "SELECT a, b, c, 0.5 AS d FROM t ORDER BY a"},
					stdout: "a                 b               c        d\n-                 -               -        -\n1                 tea, with milk  x'00ff'  0.5\n9007199254740993  x=y             NULL     0.5\n(2 rows)\n"},
				{name: "types of parameters", args: []string{"default/orders", "SELECT typeof(?), typeof(?), typeof(?), typeof(?), typeof(?), typeof(?), ?7",
					"--param", "1", "--param", "1.0", "--param", `"1"`, "--param", "null", "--param", "007", "--param", "[1]", "--param", "true"},
					stdout: "typeof(?)  typeof(?)  typeof(?)  typeof(?)  typeof(?)  typeof(?)  ?7\n---------  ---------  ---------  ---------  ---------  ---------  --\ninteger    real       text       null       text       text       1\n(1 row)\n"},
				{name: "stdin", args: []string{"default/orders", "-"}, stdin: "-- a comment\nSELECT 'a\tb\nc\x1b[31m' AS x;\n", stdout: "x\n-\na\\tb\\nc\\x1b[31m\n(1 row)\n"},
				{name: "no rows", args: []string{"default/orders", "SELECT a FROM t WHERE a < 0"}, stdout: "a\n-\n(0 rows)\n"},
				{name: "error of SQL", args: []string{"default/orders", "SELECT x FROM tt"}, status: 1, stderr: []string{"persqld: no such table: tt\n", "hint: "}},
				{name: "the gate", args: []string{"default/orders", "ATTACH 'x' AS y"}, status: 1, stderr: []string{"ATTACH"}},
				{name: "the gate's pragmas", args: []string{"default/orders", "PRAGMA max_page_count=1"}, status: 1, stderr: []string{"max_page_count"}},
				{name: "too few parameters", args: []string{"default/orders", "SELECT ?"}, status: 1, stderr: []string{"persqld: "}},
				{name: "two statements", args: []string{"default/orders", "SELECT 1; SELECT 2"}, status: 1, stderr: []string{"one statement"}},
				{name: "a deleted database", args: []string{"default/gone", "SELECT 1"}, status: 1, stderr: []string{"Database not found", "hint: one of that slug was deleted"}},
				{name: "no namespace in it", args: []string{"orders", "SELECT 1"}, status: 2, stderr: []string{"give namespace/database"}},
				{name: "no statement", args: []string{"default/orders"}, status: 2, stderr: []string{"statement"}},
				{name: "named and not", args: []string{"default/orders", "SELECT 1", "--param", ":a=1", "--param", "2"}, status: 2, stderr: []string{"give every --param a name"}},
				{name: "a name twice", args: []string{"default/orders", "SELECT 1", "--param", ":a=1", "--param", ":a=2"}, status: 2, stderr: []string{"given twice"}},
			} {
				if way == "files" {
					tt.args = append(tt.args, flags...)
					switch tt.name {
					case "DDL", "insert", "named": // it was made through the server
						continue
					}
				}
				status, stdout, stderr := runWith(t, tt.stdin, extra, append([]string{"sql"}, tt.args...)...)
				if status != tt.status || stdout != tt.stdout {
					t.Errorf("%s: exit status %d, want %d; got\n%s\nwant\n%s\n%s", tt.name, status, tt.status, stdout, tt.stdout, stderr)
				}
				for _, word := range tt.stderr {
					if !strings.Contains(stderr, word) {
						t.Errorf("%s: %q is not in %q", tt.name, word, stderr)
					}
				}
			}
			// As JSON: one object, the answer's data; a failure with its code.
			status, stdout, _ := run(t, extra, append([]string{"sql", "default/orders", "SELECT a, c FROM t LIMIT 1", "--json"}, flags...)...)
			var result struct {
				Columns []string
				Rows    json.RawMessage
				Meta    map[string]any
			}
			if err := json.Unmarshal([]byte(stdout), &result); err != nil || status != 0 || len(result.Columns) != 2 || string(result.Rows) != `[[1,{"$blob":"AP8="}]]` || result.Meta == nil {
				t.Errorf("--json: exit status %d: %s", status, stdout)
			}
			status, stdout, _ = run(t, extra, append([]string{"sql", "default/orders", "SELECT x FROM tt", "--json"}, flags...)...)
			var failure map[string]any
			if err := json.Unmarshal([]byte(stdout), &failure); err != nil || status != 1 || failure["code"] == "" || failure["error"] != "no such table: tt" {
				t.Errorf("--json of a failure: exit status %d: %s", status, stdout)
			}
		})
	}
	// On the files nothing is made by being named, and what was written stays; the log says who.
	for _, tt := range []struct {
		args         []string
		code, stderr string
	}{
		{[]string{"default/nothing", "CREATE TABLE t(a)"}, "not_found", "Database not found"},
		{[]string{"nobody/orders", "SELECT 1"}, "not_found", "namespace not found"},
	} {
		if got := runJSON(t, 1, append(append([]string{"sql"}, tt.args...), "--data", data)...); got["code"] != tt.code || !strings.Contains(got["error"].(string), tt.stderr) {
			t.Errorf("%v: %v", tt.args, got)
		}
	}
	if got := runJSON(t, 1, "sql", "default/orders", "SELECT 1", "--data", filepath.Join(data, "none")); got["code"] != "not_found" {
		t.Errorf("no directory: %v", got)
	}
	if status, stdout, stderr := run(t, nil, "sql", "default/orders", "UPDATE t SET b = 'changed' WHERE a = 1", "--data", data); status != 0 || stdout != "1 row changed\n" {
		t.Errorf("an update on the files: %d %s%s", status, stdout, stderr)
	}
	_, url = listeningServer(t, data)
	rows, _ := call(t, url, http.MethodPost, "/v1/db/default/orders/query", `{"sql":"SELECT b, (SELECT count(*) FROM _persql_meta_query_log WHERE token_id = 'operator' AND sql LIKE 'UPDATE%') FROM t WHERE a = 1"}`)["rows"].([]any)
	if got, err := json.Marshal(rows); err != nil || string(got) != `[["changed",1]]` {
		t.Errorf("after a start: %s, %v", got, err)
	}
}

func TestSQLWithoutServer(t *testing.T) {
	env := []string{"PERSQL_API_URL=http://127.0.0.1:9", "PERSQL_TOKEN=" + testToken}
	for _, tt := range []struct {
		env    []string
		status int
		stderr string
	}{
		{env, 1, "hint: is it running? PERSQL_API_URL says where"},
		{env[:1], 2, "PERSQL_TOKEN is not set"},
		{[]string{"PERSQL_API_URL=localhost", env[1]}, 2, `PERSQL_API_URL (--url) is "localhost"`},
	} {
		status, stdout, stderr := run(t, tt.env, "sql", "default/orders", "SELECT 1")
		if status != tt.status || stdout != "" || !strings.Contains(stderr, tt.stderr) || strings.Contains(stderr, testToken) {
			t.Errorf("%v: exit status %d: %s%s", tt.env, status, stdout, stderr)
		}
	}
}
