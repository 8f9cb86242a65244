package sqlite_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// folder is what a directory holds: names, times and contents.
func folder(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = info.ModTime().String() + info.Mode().String() + string(content)
	}
	return found
}

func TestInspectionChangesNothing(t *testing.T) {
	for _, state := range []string{"log", "no log", "empty log", "read-only", "odd name"} {
		t.Run(state, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "t.db")
			if state == "odd name" {
				path = filepath.Join(dir, "100% ? # ä&b=c.db")
			}
			c := open(t, sqlite.Config{Path: path})
			for _, sql := range []string{"CREATE TABLE t(a UNIQUE, b)", "CREATE VIRTUAL TABLE f USING fts5(x)", "CREATE VIRTUAL TABLE r USING rtree(id, a, b)",
				"INSERT INTO f VALUES('hello')", "INSERT INTO r VALUES(1, 2, 3)", "INSERT INTO t VALUES(1, zeroblob(20000)), (2, NULL)"} {
				must(t, c, sql)
			}
			if state != "log" && state != "read-only" {
				if err := c.Checkpoint(sqlite.CheckpointTruncate); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if state == "no log" || state == "odd name" {
				if err := os.Remove(path + "-wal"); err != nil {
					t.Fatal(err)
				}
			}
			was := folder(t, dir)
			if state == "read-only" {
				for name := range was {
					if err := os.Chmod(filepath.Join(dir, name), 0o400); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Chmod(dir, 0o500); err != nil {
					t.Fatal(err)
				}
				defer os.Chmod(dir, 0o700)
				was = folder(t, dir)
			}
			thread := sqlite.NewThread()
			defer thread.Close()
			for _, full := range []bool{false, true} {
				c, err := sqlite.OpenInspection(path, thread)
				if err != nil {
					t.Fatal(err)
				}
				if problems, err := c.Examine(full); err != nil || problems != nil {
					t.Errorf("problems %q, %v", problems, err)
				}
				if got := must(t, c, "SELECT count(*) FROM t, f WHERE f MATCH 'hello'")[0][0]; got != "2" {
					t.Errorf("%s rows, want 2: the log was not read", got)
				}
				if _, err := run(t, c, "INSERT INTO t VALUES(3, 3)"); err == nil {
					t.Error("an inspection wrote")
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
			now := folder(t, dir)
			for name := range now {
				if now[name] != was[name] {
					t.Errorf("%s was made or changed", name)
				}
			}
			if len(now) != len(was) {
				t.Errorf("files %d, were %d", len(now), len(was))
			}
		})
	}
}

func TestExamineFindsDamage(t *testing.T) {
	for _, inLog := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "t.db")
		c := open(t, sqlite.Config{Path: path})
		must(t, c, "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
		must(t, c, "CREATE INDEX t_b ON t(b)")
		must(t, c, "INSERT INTO t SELECT value, 'needle' || value FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value+1 FROM n WHERE value < 300) SELECT value FROM n)")
		if err := c.Checkpoint(sqlite.CheckpointTruncate); err != nil {
			t.Fatal(err)
		}
		if inLog {
			must(t, c, "CREATE TABLE other(a)")
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// One entry of the index says another word than its row.
		at := bytes.LastIndex(content, []byte("needle77"))
		content[at] = 'b'
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		thread := sqlite.NewThread()
		defer thread.Close()
		look := func(full bool) []string {
			c, err := sqlite.OpenInspection(path, thread)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			problems, err := c.Examine(full)
			if err != nil {
				problems = append(problems, err.Error())
			}
			return problems
		}
		if got := look(true); !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "t_b") }) {
			t.Errorf("full: %q", got)
		}
		content[at] = 'n'
		copy(content[sqlite.PageSize+3:], []byte{0xff, 0xff, 0xff})
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := look(false); len(got) == 0 {
			t.Error("quick: a torn page was not found")
		}
	}
}
