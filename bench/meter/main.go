// Command meter runs statements in this process, on demand: bench builds it with the exact row meter and without, and has
// the two take turns. A line of its input is the name of a work and how many statements to run; the answer to it is a line
// with the nanoseconds of CPU that they took. The first line of its output is the row meter's name.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/persqld/persqld/internal/sqlite"
)

const rows = 1000 // of the table that is read

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "meter:", err)
		os.Exit(1)
	}
}

// work is one kind of statement.
type work struct {
	sql   string
	param func(i int) []sqlite.Param
	// undone: the statements are one transaction, which is taken back.
	undone bool
}

var works = map[string]work{
	"point reads": {sql: "SELECT id, a, b FROM t WHERE id=?", param: func(i int) []sqlite.Param { return integers(i*7919%rows + 1) }},
	"scans":       {sql: "SELECT id FROM t WHERE a=-1", param: func(int) []sqlite.Param { return nil }},
	"inserts":     {sql: "INSERT INTO w(a, b) VALUES(?, 'some text')", param: func(i int) []sqlite.Param { return integers(i) }, undone: true},
}

func integers(n int) []sqlite.Param {
	return []sqlite.Param{{Value: sqlite.Value{Kind: sqlite.Integer, Int: int64(n)}}}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: meter FOLDER")
	}
	dir, err := os.MkdirTemp(os.Args[1], "")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "meter.db")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		return fmt.Errorf("make database: %w", err)
	}
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.Open(sqlite.Config{Path: path}, th)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer c.Close()
	for _, sql := range []string{
		"CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b TEXT)",
		"CREATE TABLE w(id INTEGER PRIMARY KEY, a INTEGER, b TEXT)",
		"CREATE INDEX wa ON w(a)",
		fmt.Sprintf("WITH RECURSIVE i(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM i WHERE n<%d) INSERT INTO t SELECT n, n*3, 'row '||n FROM i", rows),
	} {
		if err := c.Exec(sql); err != nil {
			return fmt.Errorf("fill database: %w", err)
		}
	}
	fmt.Println(sqlite.RowMeter())
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil // the bench has closed it
		}
		var n int
		var name string
		if _, err := fmt.Sscanf(line, "%d %q", &n, &name); err != nil {
			return fmt.Errorf("read %q: %w", line, err)
		}
		spent, err := measure(c, works[name], n)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Println(spent)
	}
}

// measure runs the work's statement n times and returns the CPU that it took, in ns.
func measure(c *sqlite.Conn, w work, n int) (int64, error) {
	if w.undone {
		if err := c.Exec("BEGIN"); err != nil {
			return 0, err
		}
		defer c.Exec("ROLLBACK")
	}
	before, err := cpu()
	if err != nil {
		return 0, err
	}
	for i := range n {
		s, _, err := c.Prepare([]byte(w.sql), nil)
		if err != nil {
			return 0, err
		}
		err = s.Bind(w.param(i))
		for row := true; row && err == nil; {
			row, err = s.Step()
		}
		s.Counts(0)
		s.Done()
		if err != nil {
			return 0, err
		}
	}
	after, err := cpu()
	return after - before, err
}

// cpu is this process's time on processors so far, in ns.
func cpu() (int64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read the CPU's time: %w", err)
	}
	return u.Utime.Nano() + u.Stime.Nano(), nil
}
