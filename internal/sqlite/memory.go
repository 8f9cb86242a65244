package sqlite

import (
	"fmt"

	sqlite3 "modernc.org/sqlite/lib"
)

// OpenMemory opens an empty database in memory, for work of the server's own that wants SQL. Nothing in it outlives
// Close.
func OpenMemory(t *Thread) (c *Conn, err error) {
	if err := Initialize(Setup{}); err != nil {
		return nil, err
	}
	c = &Conn{thread: t, cfg: Config{Limits: Limits{}.withDefaults()}}
	defer func() {
		if err != nil {
			c.Close()
			c = nil
		}
	}()
	path := t.place([]byte(":memory:"))
	if path == 0 {
		return c, fmt.Errorf("open database in memory: %w", noMemory())
	}
	rc := sqlite3.Xsqlite3_open_v2(t.tls, path, t.out, sqlite3.SQLITE_OPEN_READWRITE|sqlite3.SQLITE_OPEN_CREATE|sqlite3.SQLITE_OPEN_MEMORY|sqlite3.SQLITE_OPEN_NOMUTEX|sqlite3.SQLITE_OPEN_EXRESCODE, 0)
	c.db = *(*uintptr)(at(t.out))
	t.release()
	if rc != sqlite3.SQLITE_OK {
		return c, fmt.Errorf("open database in memory: %w", c.fail(rc))
	}
	c.handle = newHandle(c)
	c.cache.init(c.cfg.Limits.Statements)
	return c, nil
}
