package sqlite

import (
	"fmt"
	"net/url"
	"os"

	sqlite3 "modernc.org/sqlite/lib"
)

// Scratch says how to open a file that no tenant's request reaches: a copy that is read out, or one that is being built
// and is thrown away when that fails. See [OpenScratch].
type Scratch struct {
	// Path is the file, which must exist; "" is a new database in memory.
	Path string
	// ReadOnly reads the file as it stands, without looking for a log or a journal, and locks nothing: the file must
	// not change meanwhile.
	ReadOnly bool
	// Hostile is for a file that somebody else made: cells are checked as they are read, and what its schema says
	// (views, triggers) runs only what is harmless.
	Hostile bool
	// Shadows is for running SQL text that somebody else made: statements may write the tables that virtual tables keep
	// their content in, as the sqlite3 shell's .dump does. PRAGMA writable_schema works too then, and a policy has to
	// refuse it. They are not told the file's name, without which its journal mode can't become WAL.
	Shadows bool
	// Limits are those of Config, but SQL is 1,000,000,000 bytes by default, SQLite's own bound.
	Limits Limits
}

// maxSQL is the longest statement that this SQLite can be told to take, in bytes.
const maxSQL = sqlite3.SQLITE_MAX_SQL_LENGTH

// OpenScratch opens a scratch file for one owner, with a rollback journal and without waiting for the disk: whoever
// wants to keep the file syncs it in the end. Foreign keys are not enforced. No file can be attached but by AllowVacuum.
func OpenScratch(cfg Scratch, t *Thread) (c *Conn, err error) {
	if err := Initialize(Setup{}); err != nil {
		return nil, err
	}
	if cfg.Limits.SQL <= 0 {
		cfg.Limits.SQL = maxSQL
	}
	cfg.Limits = cfg.Limits.withDefaults()
	c = &Conn{thread: t, cfg: Config{Path: cfg.Path, Limits: cfg.Limits}}
	defer func() {
		if err != nil {
			c.Close()
			c = nil
		}
	}()
	name, flags := cfg.Path, int32(sqlite3.SQLITE_OPEN_READWRITE)
	switch {
	case cfg.Path == "":
		name, flags = ":memory:", sqlite3.SQLITE_OPEN_READWRITE|sqlite3.SQLITE_OPEN_CREATE|sqlite3.SQLITE_OPEN_MEMORY
	case cfg.ReadOnly:
		// A file in WAL mode gets a log as soon as somebody reads it, unless it is said to be immutable.
		name = (&url.URL{Scheme: "file", Path: cfg.Path, RawQuery: "immutable=1"}).String()
		flags = sqlite3.SQLITE_OPEN_READONLY | sqlite3.SQLITE_OPEN_URI
	}
	if err := c.dial(name, flags); err != nil {
		return c, fmt.Errorf("open scratch file: %w", err)
	}
	b := func(on bool) int32 {
		if on {
			return 1
		}
		return 0
	}
	for _, o := range []struct{ op, value int32 }{
		{sqlite3.SQLITE_DBCONFIG_DEFENSIVE, b(!cfg.Shadows)},
		{sqlite3.SQLITE_DBCONFIG_TRUSTED_SCHEMA, b(!cfg.Hostile)}, // on for the reason that Open has
		{sqlite3.SQLITE_DBCONFIG_ENABLE_FKEY, 0},
	} {
		if err := c.configure(o.op, o.value, uintptr(0)); err != nil {
			return c, err
		}
	}
	for id, n := range map[int32]int{
		sqlite3.SQLITE_LIMIT_LENGTH:         cfg.Limits.Length,
		sqlite3.SQLITE_LIMIT_SQL_LENGTH:     cfg.Limits.SQL,
		sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH:  cfg.Limits.TriggerDepth,
		sqlite3.SQLITE_LIMIT_ATTACHED:       0,
		sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
	} {
		sqlite3.Xsqlite3_limit(t.tls, c.db, id, int32(n))
	}
	sqlite3.Xsqlite3_set_authorizer(t.tls, c.db, funcptr(onAccess), c.handle)
	sqlite3.Xsqlite3_progress_handler(t.tls, c.db, progressOps, funcptr(onProgress), c.handle)
	var pragmas []string
	if cfg.Hostile {
		pragmas = append(pragmas, "PRAGMA cell_size_check=ON")
	}
	if !cfg.ReadOnly && cfg.Path != "" {
		pragmas = append(pragmas,
			"PRAGMA synchronous=OFF",
			"PRAGMA locking_mode=EXCLUSIVE", // before the log is opened, or a shared-memory file appears
			"PRAGMA journal_mode=DELETE",
			fmt.Sprintf("PRAGMA max_page_count=%d", cfg.Limits.Pages))
	}
	for _, sql := range pragmas {
		if err := c.Exec(sql); err != nil {
			return c, fmt.Errorf("open scratch file: %w", err)
		}
	}
	if cfg.Shadows && cfg.Path != "" {
		c.hideName()
	}
	return c, nil
}

// SetLogMode has a database's file that nobody has open, such as one that was written as scratch, say that it has a write-ahead log. Else its first opening
// would, beside all transactions, and whoever compares the file finds another one. As with scratch files, whoever wants to keep it syncs it.
func SetLogMode(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var versions [2]byte // for writing and reading: https://sqlite.org/fileformat2.html, section 1.3.3
	if _, err := f.ReadAt(versions[:], 18); err != nil || versions == [2]byte{2, 2} {
		return err
	}
	_, err = f.WriteAt([]byte{2, 2}, 18)
	return err
}

// dial opens the connection by name alone.
func (c *Conn) dial(name string, flags int32) error {
	t := c.thread
	used, spilled := t.mark()
	defer t.rewind(used, spilled)
	path := t.place([]byte(name))
	if path == 0 {
		return noMemory() // a nil path would open a database in memory
	}
	rc := sqlite3.Xsqlite3_open_v2(t.tls, path, t.out, flags|sqlite3.SQLITE_OPEN_NOMUTEX|sqlite3.SQLITE_OPEN_EXRESCODE, 0)
	c.db = *(*uintptr)(at(t.out))
	if rc != sqlite3.SQLITE_OK {
		return c.fail(rc)
	}
	c.handle = newHandle(c)
	c.cache.init(c.cfg.Limits.Statements)
	return nil
}

// WriteSchema runs f with the two switches that let a statement touch reserved names and rows of sqlite_schema, and reads the schema anew afterwards: what was
// compiled before means nothing then. It is for the server's own statements alone: no policy is asked about what they do.
func (c *Conn) WriteSchema(f func() error) (err error) {
	defensive := (*sqlite3.Tsqlite3)(at(c.db)).Fflags & sqlite3.SQLITE_Defensive
	if err := c.configure(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, int32(0), uintptr(0)); err != nil {
		return err
	}
	defer func() {
		if e := c.Exec("PRAGMA writable_schema=RESET"); err == nil {
			err = e
		}
		if defensive != 0 {
			if e := c.configure(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, int32(1), uintptr(0)); err == nil {
				err = e
			}
		}
		c.DropStatements()
	}()
	if err := c.Exec("PRAGMA writable_schema=ON"); err != nil {
		return err
	}
	return f()
}
