package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/transfer"
)

// fresh is an empty scratch database.
func fresh(t testing.TB) string {
	t.Helper()
	path := filepath.Join(tempDir(t), "scratch.db")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tempDir is a directory of the test's, in memory where that can be had: what is tested here is not the disk.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "persqld-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// edit runs SQL on a scratch file as the server's own.
func edit(t testing.TB, path string, statements ...string) {
	t.Helper()
	err := with(path, func(c *sqlite.Conn) error {
		for _, sql := range statements {
			if err := c.Exec(sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return c.Exec("PRAGMA journal_mode=WAL")
	})
	if err != nil {
		t.Fatal(err)
	}
}

func with(path string, f func(*sqlite.Conn) error) error {
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.OpenScratch(sqlite.Scratch{Path: path, Limits: sqlite.Limits{Length: 1 << 29}}, th)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// vacuum makes a new file with the tables in the order that VACUUM puts them in: virtual ones last.
func vacuum(path, to string) error {
	return with(path, func(c *sqlite.Conn) error {
		return c.AllowVacuum(func() error { return c.Exec("VACUUM INTO '" + to + "'") })
	})
}

// dump is a database as SQL text.
func dump(t testing.TB, path string) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := transfer.Dump(context.Background(), &b, path); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// load runs SQL text on a scratch file.
func load(t testing.TB, path, sql string) transfer.Report {
	t.Helper()
	r, err := transfer.Load(context.Background(), path, strings.NewReader(sql), sqlite.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// content is everything that is in a database, in an order of its own: definitions, and rows with the type and the
// bits of each value, and rowids.
func content(t testing.TB, path string) string {
	t.Helper()
	var lines []string
	err := with(path, func(c *sqlite.Conn) error {
		shapes, err := c.Shapes()
		if err != nil {
			return err
		}
		for _, pragma := range []string{"user_version", "application_id", "encoding"} {
			if err := rows(c, "PRAGMA "+pragma, func(s string) { lines = append(lines, pragma+" "+s) }); err != nil {
				return err
			}
		}
		if err := rows(c, "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT IN ('sqlite_stat4','sqlite_sequence')", func(s string) {
			lines = append(lines, "schema "+s)
		}); err != nil {
			return err
		}
		for _, sh := range shapes {
			if sh.Virtual || sh.Name == "sqlite_stat4" {
				continue
			}
			q := "SELECT * FROM " + sqlite.Quote(sh.Name)
			if sh.Rowid && !strings.HasPrefix(sh.Name, "sqlite_") && !strings.Contains(sh.Name, "norowid") {
				q = "SELECT rowid, * FROM " + sqlite.Quote(sh.Name)
			}
			if err := rows(c, q, func(s string) { lines = append(lines, "row "+sh.Name+" "+s) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func rows(c *sqlite.Conn, query string, f func(string)) error {
	s, err := c.Own(query)
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	defer s.Done()
	for {
		row, err := s.Step()
		if err != nil || !row {
			return err
		}
		var b strings.Builder
		for i := range s.Columns() {
			switch v := s.Column(i); v.Kind {
			case sqlite.Integer:
				fmt.Fprintf(&b, "|int %d", v.Int)
			case sqlite.Real:
				fmt.Fprintf(&b, "|real %x", math.Float64bits(v.Float))
			default:
				fmt.Fprintf(&b, "|%v %q", v.Kind, v.Bytes)
			}
		}
		f(b.String())
	}
}

func integrity(t testing.TB, path string) {
	t.Helper()
	var got []string
	if err := with(path, func(c *sqlite.Conn) error {
		return rows(c, "PRAGMA integrity_check", func(s string) { got = append(got, s) })
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != `|TEXT "ok"` {
		t.Fatalf("integrity_check: %q", got)
	}
}

func same(t testing.TB, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	have := map[string]int{}
	for _, l := range w {
		have[l]++
	}
	for _, l := range g {
		if have[l]--; have[l] < 0 {
			t.Errorf("%s has %.300s", what, l)
		}
	}
	for l, n := range have {
		if n > 0 {
			t.Errorf("%s lacks %.300s", what, l)
		}
	}
	t.FailNow()
}

// shell runs the system's sqlite3 on a file.
func shell(t testing.TB, path, input string, args ...string) string {
	t.Helper()
	bin, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("the sqlite3 shell is not installed: how it reads our text and we its is not tested")
	}
	cmd := exec.Command(bin, append([]string{"-bail", path}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil || errs.Len() > 0 {
		t.Fatalf("sqlite3: %v\n%.2000s", err, errs.String())
	}
	return string(out)
}
