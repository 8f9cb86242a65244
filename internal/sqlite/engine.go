package sqlite

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// PageSize is the size of a page, in bytes, of every database file. One size in the whole process: mixing
// sizes makes warm reads three times slower, since the page cache can't share its slots.
const PageSize = 4096

// Setup is what the engine as a whole needs to know, once, before the first file is opened.
type Setup struct {
	// HeapLimit bounds the memory of all connections together, in bytes; 0 is no bound. A statement that
	// would pass it fails with NOMEM.
	HeapLimit int64
	// TempDir holds the files that sorters and big transactions spill to; "" is the system's choice.
	TempDir string
}

var setup struct {
	once   sync.Once
	err    error
	noName uintptr // an empty file name as SQLite's pager wants one: zeros before and behind it
}

// Initialize configures the engine. SQLite has one configuration a process, so the first call decides and
// later ones only tell how that went. It must precede the first Open.
func Initialize(s Setup) error {
	setup.once.Do(func() { setup.err = initialize(s) })
	return setup.err
}

func initialize(s Setup) error {
	tls := libc.NewTLS()
	defer tls.Close()
	// Open-file-description locks: POSIX locks belong to the process, and are lost as soon as anybody in it
	// closes any descriptor of the file. It answers -1 where the system has none (not Linux) and POSIX locks do.
	if sqlite3.Xmodernc_ofd_locking(tls, 1) == -2 {
		return errors.New("switch on OFD locks: a database was opened already")
	}
	va := libc.Xmalloc(tls, 64)
	if va == 0 {
		return errors.New("configure SQLite: out of memory")
	}
	defer libc.Xfree(tls, va)
	// Without memory statistics the heap limits do nothing; off is modernc's default.
	if rc := sqlite3.Xsqlite3_config(tls, sqlite3.SQLITE_CONFIG_MEMSTATUS, libc.VaList(va, int32(1))); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("configure SQLite's memory statistics: result %d (was it initialized already?)", rc)
	}
	if err := configureMemory(tls, va); err != nil {
		return err
	}
	if rc := sqlite3.Xsqlite3_initialize(tls); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("initialize SQLite: result %d", rc)
	}
	if err := registerPlainVFS(tls); err != nil {
		return err
	}
	p := libc.Xcalloc(tls, 1, 16)
	if p == 0 {
		return errors.New("initialize SQLite: out of memory")
	}
	setup.noName = p + 4
	if s.HeapLimit > 0 {
		sqlite3.Xsqlite3_hard_heap_limit64(tls, s.HeapLimit)
	}
	if s.TempDir != "" {
		if err := os.MkdirAll(s.TempDir, 0o700); err != nil {
			return fmt.Errorf("make directory for temporary files: %w", err)
		}
		// From SQLite's own allocator, since a pragma makes SQLite free it.
		dir := sqlite3.Xsqlite3_malloc64(tls, uint64(len(s.TempDir)+1))
		if dir == 0 {
			return errors.New("set directory for temporary files: out of memory")
		}
		p := view(dir, len(s.TempDir)+1)
		p[copy(p, s.TempDir)] = 0
		sqlite3.Xsqlite3_temp_directory = dir
	}
	return nil
}

// Version is the version of SQLite, for example "3.54.1".
func Version() string { return sqlite3.SQLITE_VERSION }

// RowMeter says how rowsRead and rowsWritten come about: "exact", or "estimated" from SQLite's statement counters. How
// the program was built decides it, see DESIGN.md.
func RowMeter() string { return rowMeter }

// MemoryUsed is the number of bytes that all connections together have allocated now.
func MemoryUsed() int64 {
	gauge.Lock()
	defer gauge.Unlock()
	if gauge.tls == nil {
		gauge.tls = libc.NewTLS() // once: it is asked many times a second
	}
	return sqlite3.Xsqlite3_memory_used(gauge.tls)
}

var gauge struct {
	sync.Mutex
	tls *libc.TLS
}
