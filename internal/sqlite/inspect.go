package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	sqlite3 "modernc.org/sqlite/lib"
)

// OpenInspection opens a file that nobody else uses to look at it, with what its log holds. Nothing is written, neither to
// the file nor to its log nor beside them, and Close leaves the log as it is.
//
// A file with a log is opened for reading, without locks, which a descriptor for reading can't take, and with the log's
// index in memory. A file without one is opened as immutable, or SQLite would make an empty log beside it.
func OpenInspection(path string, t *Thread) (c *Conn, err error) {
	if err := Initialize(Setup{}); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", path, err)
	}
	log, err := os.Stat(abs + "-wal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for log: %w", err)
	}
	hot := err == nil && log.Size() > 0
	name := url.URL{Scheme: "file", Path: abs, RawQuery: "immutable=1"}
	if hot {
		name.RawQuery = "vfs=unix-none"
	}
	c = &Conn{thread: t, cfg: Config{Path: abs, Limits: Limits{}.withDefaults()}}
	c.cache.init(c.cfg.Limits.Statements)
	defer func() {
		if err != nil {
			c.Close()
			c = nil
		}
	}()
	used, spilled := t.mark()
	defer t.rewind(used, spilled)
	place := t.place([]byte(name.String()))
	if place == 0 {
		return c, fmt.Errorf("open database: %w", noMemory())
	}
	rc := sqlite3.Xsqlite3_open_v2(t.tls, place, t.out, sqlite3.SQLITE_OPEN_READONLY|sqlite3.SQLITE_OPEN_URI|sqlite3.SQLITE_OPEN_NOMUTEX|sqlite3.SQLITE_OPEN_EXRESCODE, 0)
	c.db = *(*uintptr)(at(t.out))
	if rc != sqlite3.SQLITE_OK {
		return c, fmt.Errorf("open database: %w", c.fail(rc))
	}
	if err := c.configure(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int32(1), uintptr(0)); err != nil {
		return c, err
	}
	for _, sql := range []string{"PRAGMA locking_mode=EXCLUSIVE", "PRAGMA query_only=ON"} {
		if err := c.Exec(sql); err != nil {
			return c, fmt.Errorf("open database: %w", err)
		}
	}
	return c, nil
}

// maxProblems is how many problems of a file an examination names.
const maxProblems = 20

// Examine looks whether the file is sound and returns what is wrong with it: with full every index entry is compared with
// its row, too. An error is what kept it from looking further.
func (c *Conn) Examine(full bool) (problems []string, err error) {
	pragma := "quick_check"
	if full {
		pragma = "integrity_check"
	}
	err = c.EachRow(fmt.Sprintf("PRAGMA %s(%d)", pragma, maxProblems), func(s *Stmt) error {
		if line := string(s.Column(0).Bytes); line != "ok" {
			problems = append(problems, line)
		}
		return nil
	})
	return problems, err
}

// EachRow runs one of the server's own statements and calls row for each of its rows.
func (c *Conn) EachRow(sql string, row func(*Stmt) error) error {
	s, err := c.Own(sql)
	if err != nil {
		return err
	}
	defer s.Done()
	for {
		more, err := s.Step()
		if err != nil || !more {
			return err
		}
		if err := row(s); err != nil {
			return err
		}
	}
}
