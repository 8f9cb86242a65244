package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// progressOps is how many virtual-machine operations pass between two looks at the watch: about 20 µs. SQLite's
// own counting makes it free.
const progressOps = 1000

// firstOps is how many pass until the first look: what an operation of this statement costs is not known yet. A point
// query or a small insert has a few dozen, and ends without a look.
const firstOps = 128

// Limits bounds what a statement of a connection may be (https://sqlite.org/limits.html). The zero value of a
// field is the default that stands beside it.
type Limits struct {
	Length       int   // bytes of a value or a row; 16 MB
	SQL          int   // bytes of a statement; 1,000,000
	TriggerDepth int   // nested triggers; 100
	Pages        int64 // pages of the file, its quota; 2,621,440 (10 GiB)
	Statements   int   // cached statements; 64
}

const (
	defaultLength       = 16_000_000
	defaultTriggerDepth = 100
	defaultStatements   = 64
	// cacheBytes bounds the SQL text of the cached statements of a connection.
	cacheBytes = 256 << 10
)

// logIndexPiece is WALINDEX_PGSZ: two bytes for each of 8,192 slots of a hash table, four for each of 4,096 frames.
const logIndexPiece = 32 << 10

// DefaultPages is the quota of a database without one of its own, in pages: 10 GiB.
const DefaultPages = 10 << 30 / PageSize

// Config says how to open a connection.
type Config struct {
	Path   string
	VFS    string // the name of a VFS; "" is the system's
	Limits Limits
	// Tables are virtual tables that statements of this connection can read by name.
	Tables []*Table
}

// Conn is one connection to one database file, for one owner at a time.
type Conn struct {
	db     uintptr
	handle uintptr
	thread *Thread
	cfg    Config

	cache   cache
	loose   list // statements in use that the cache does not hold
	mode    mode
	collect collector
	nested  *Stmt // the statement being stepped, for what SQLite prepares inside it
	denied  error // why the authorizer said no
	stopped error // why the watch said stop
	watch   func() error
	looked  time.Time // when the watch had been asked last
	began   bool      // a call of the engine's began after that

	frames   int // frames in the log after the last commit, as the wal hook reported
	commits  uint64
	log      bool // the log takes room
	opening  bool // its statements run once: they are not kept
	altered  bool // the schema changed in the open transaction
	changes  *changeHook
	tables   []*module
	filling  map[string]bool // virtual tables that the open transaction wrote to, by folded names: they write to their shadow tables when they like
	claims   Claims          // of who runs the statement
	claiming bool            // ClaimFunction is registered
	damaged  bool            // a fault in the engine: never touch its memory again

	interrupting sync.Mutex // keeps Interrupt and Close apart
}

// Open opens the file at cfg.Path, which must exist ([CreateFile] makes one): a missing file is a loss to be
// told, not a database to begin. The connection comes with t lent to it.
//
// The settings are those of a single owner: exclusive locking before the first look at the log, so that there is
// no shared-memory file; a log that only [Conn.Checkpoint] copies back; every commit synced.
func Open(cfg Config, t *Thread) (c *Conn, err error) {
	if err := Initialize(Setup{}); err != nil {
		return nil, err
	}
	cfg.Limits = cfg.Limits.withDefaults()
	c = &Conn{thread: t, cfg: cfg}
	defer func() {
		if err != nil {
			c.Close()
			c = nil
		}
	}()
	used, spilled := t.mark()
	defer t.rewind(used, spilled)
	path, vfs := t.place([]byte(cfg.Path)), plain.name
	if cfg.VFS != "" {
		vfs = t.place([]byte(cfg.VFS))
	}
	if path == 0 || cfg.VFS != "" && vfs == 0 {
		return c, fmt.Errorf("open database: %w", noMemory()) // a nil path would open a database in memory
	}
	rc := sqlite3.Xsqlite3_open_v2(t.tls, path, t.out, sqlite3.SQLITE_OPEN_READWRITE|sqlite3.SQLITE_OPEN_NOMUTEX|sqlite3.SQLITE_OPEN_EXRESCODE, vfs)
	c.db = *(*uintptr)(at(t.out))
	if rc != sqlite3.SQLITE_OK {
		return c, fmt.Errorf("open database: %w", c.fail(rc))
	}
	if !c.hasHeader() && empty(cfg.Path) { // the header of a longer file may be torn, and whole in the log
		// SQLite would take an empty file for a new database.
		return c, fmt.Errorf("open database: %w", &Error{Code: CodeNotADB, Message: "the file is empty", Offset: -1})
	}
	c.handle = newHandle(c)
	c.cache.init(cfg.Limits.Statements)
	c.opening = true

	for _, s := range []struct {
		op   int32
		args []any
	}{
		{sqlite3.SQLITE_DBCONFIG_LOOKASIDE, []any{uintptr(0), int32(0), int32(0)}}, // 40 KB a connection for little gain
		{sqlite3.SQLITE_DBCONFIG_DEFENSIVE, []any{int32(1), uintptr(0)}},
		{sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, []any{int32(1), uintptr(0)}},
		// On: a view that uses highlight() or bm25() of FTS5 would fail as unsafe without it. We register no
		// function that a schema could misuse.
		{sqlite3.SQLITE_DBCONFIG_TRUSTED_SCHEMA, []any{int32(1), uintptr(0)}},
		{sqlite3.SQLITE_DBCONFIG_ENABLE_FKEY, []any{int32(1), uintptr(0)}},
	} {
		if err := c.configure(s.op, s.args...); err != nil {
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
	for _, tab := range cfg.Tables {
		if err := c.register(tab); err != nil {
			return c, err
		}
	}
	c.ownFile()
	if err := c.readSchema(); err != nil {
		return c, fmt.Errorf("open database: %w", err)
	}
	// synchronous=FULL is how SQLite is built; TestEmptyFileIsADatabase looks.
	if c.pager().FpWal == 0 { // the file's header said another journal mode
		if mode, err := c.pragma("journal_mode=WAL"); err != nil || string(mode.Bytes) != "wal" {
			return c, errors.Join(fmt.Errorf("open database: the journal mode is %q instead of wal", mode.Bytes), err)
		}
	}
	c.opening = false
	c.hideName()
	// What an earlier connection left in the log is there to be copied back too.
	if fi, err := os.Stat(cfg.Path + "-wal"); err == nil && fi.Size() > walHeaderSize {
		c.frames = int((fi.Size() - walHeaderSize) / (walFrameHeaderSize + PageSize))
		c.log = true
	}
	// The last: setting a hook is what switches modernc's own checkpoint every 1,000 pages off.
	sqlite3.Xsqlite3_wal_hook(t.tls, c.db, funcptr(onCommit), c.handle)
	return c, nil
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.Length, defaultLength)
	set(&l.SQL, 1_000_000)
	set(&l.TriggerDepth, defaultTriggerDepth)
	set(&l.Statements, defaultStatements)
	if l.Pages <= 0 {
		l.Pages = DefaultPages
	}
	return l
}

func (c *Conn) configure(op int32, args ...any) error {
	tls := c.thread.tls
	va := libc.Xmalloc(tls, 64)
	if va == 0 {
		return errors.New("configure connection: out of memory")
	}
	defer libc.Xfree(tls, va)
	if rc := sqlite3.Xsqlite3_db_config(tls, c.db, op, libc.VaList(va, args...)); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("configure connection (option %d): %w", op, c.fail(rc))
	}
	return nil
}

func (c *Conn) shared() *sqlite3.TBtShared {
	db := (*sqlite3.Tsqlite3)(at(c.db))
	btree := (*sqlite3.TBtree)(at((*sqlite3.TDb)(at(db.FaDb)).FpBt))
	return (*sqlite3.TBtShared)(at(btree.FpBt))
}

func (c *Conn) pager() *sqlite3.TPager { return (*sqlite3.TPager)(at(c.shared().FpPager)) }

// hasHeader tells whether SQLite found a database's header in the file when it opened it.
func (c *Conn) hasHeader() bool { return c.shared().FbtsFlags&sqlite3.BTS_PAGESIZE_FIXED != 0 }

// ownFile is PRAGMA locking_mode=EXCLUSIVE, which must come before the log is opened, or a shared-memory file appears, and
// PRAGMA max_page_count, without the two statements, which are a tenth of a cold open. TestEmptyFileIsADatabase and the tests of the quota look.
func (c *Conn) ownFile() {
	(*sqlite3.Tsqlite3)(at(c.db)).FdfltLockMode = sqlite3.PAGER_LOCKINGMODE_EXCLUSIVE
	p := c.pager()
	p.FexclusiveMode = sqlite3.PAGER_LOCKINGMODE_EXCLUSIVE
	p.FmxPgno = sqlite3.TPgno(c.cfg.Limits.Pages)
}

func empty(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Size() == 0
}

// hideName makes SQLite forget the name of the file, which PRAGMA database_list and its function would tell a client.
// It is open, and so is its log: nothing opens either by name again.
func (c *Conn) hideName() { c.pager().FzFilename = setup.noName }

// Use lends t to the connection until the next Use. Every call but Interrupt runs on it. No statement may be in use:
// the Thread holds what was bound to it.
func (c *Conn) Use(t *Thread) { c.thread = t }

// Watch sets the function that is asked every 1,000 operations of a running statement whether to go on; an
// error from it interrupts the statement and is the Cause of the Error. Nil asks nobody.
func (c *Conn) Watch(f func() error) { c.watch = f }

// Interrupt stops the statement that runs now, from any goroutine. It does nothing on a closed connection.
func (c *Conn) Interrupt() {
	c.interrupting.Lock()
	defer c.interrupting.Unlock()
	if c.db != 0 && !c.damaged {
		tls := libc.NewTLS()
		sqlite3.Xsqlite3_interrupt(tls, c.db)
		tls.Close()
	}
}

func onProgress(_ *libc.TLS, h uintptr) int32 {
	c := lookup[*Conn](h)
	if c == nil || c.watch == nil {
		return 0
	}
	c.pace()
	if err := c.watch(); err != nil {
		c.stopped = err
		return 1
	}
	return 0
}

// heavyOps is how long 1,000 operations take for them to be heavy ones, such as functions of long texts: then the watch
// is asked more often.
const heavyOps = time.Millisecond

// pace sets how many operations pass until the next look, so that it comes after heavyOps at the latest, but for what is
// a single operation. After the watch has parked the statement it comes early, once.
func (c *Conn) pace() {
	now := time.Now()
	took := now.Sub(c.looked)
	c.looked = now
	if c.began {
		c.began = false
		return
	}
	db := (*sqlite3.Tsqlite3)(at(c.db))
	switch {
	case took > heavyOps:
		db.FnProgressOps = max(1, db.FnProgressOps/8)
	case took < heavyOps/32 && db.FnProgressOps < progressOps:
		db.FnProgressOps = min(progressOps, db.FnProgressOps*2)
	}
}

func onCommit(_ *libc.TLS, h, _, _ uintptr, frames int32) int32 {
	if c := lookup[*Conn](h); c != nil {
		c.frames = int(frames)
		c.commits++
		c.log = true
	}
	return sqlite3.SQLITE_OK
}

// Exec runs one of the server's own statements, which no policy judges, and drops its rows.
func (c *Conn) Exec(sql string) error {
	s, err := c.Own(sql)
	if err != nil {
		return err
	}
	defer s.Done()
	for {
		row, err := s.Step()
		if err != nil {
			return err
		}
		if !row {
			return nil
		}
	}
}

// ForEach runs one of the server's own statements, which gives no rows, with each of the parameters.
func (c *Conn) ForEach(sql string, params [][]Param) error {
	s, err := c.System(sql)
	if err != nil {
		return err
	}
	defer s.Done()
	for _, p := range params {
		if err := s.Bind(p); err != nil {
			return err
		}
		if _, err := s.Step(); err != nil {
			return err
		}
		s.Reset()
	}
	return nil
}

// InTransaction tells whether a transaction is open. After an error it is the only way to know whether SQLite
// rolled the whole transaction back (an interrupted write, a full disk, ON CONFLICT ROLLBACK).
func (c *Conn) InTransaction() bool {
	return (*sqlite3.Tsqlite3)(at(c.db)).FautoCommit == 0
}

// Changes is the number of rows that the last INSERT, UPDATE or DELETE changed directly, as changes() has it.
func (c *Conn) Changes() int64 { return (*sqlite3.Tsqlite3)(at(c.db)).FnChange }

// TotalChanges counts the rows changed since the last Forget, those of triggers and cascades included.
func (c *Conn) TotalChanges() int64 { return (*sqlite3.Tsqlite3)(at(c.db)).FnTotalChange }

// LastInsertRowid is the rowid of the last row inserted since the last Forget.
func (c *Conn) LastInsertRowid() int64 { return (*sqlite3.Tsqlite3)(at(c.db)).FlastRowid }

// SetLastInsertRowid changes what last_insert_rowid() answers.
func (c *Conn) SetLastInsertRowid(n int64) {
	(*sqlite3.Tsqlite3)(at(c.db)).FlastRowid = n
}

// Hidden runs f so that changes(), total_changes() and last_insert_rowid() don't show what it wrote.
func (c *Conn) Hidden(f func() error) error {
	db := (*sqlite3.Tsqlite3)(at(c.db))
	change, total, rowid := db.FnChange, db.FnTotalChange, db.FlastRowid
	defer func() { db.FnChange, db.FnTotalChange, db.FlastRowid = change, total, rowid }()
	return f()
}

// Forget resets changes(), total_changes() and last_insert_rowid(), which would otherwise tell one caller of
// another's writes: the connection is shared.
func (c *Conn) Forget() {
	db := (*sqlite3.Tsqlite3)(at(c.db))
	db.FnChange, db.FnTotalChange, db.FlastRowid = 0, 0, 0
}

// Commits counts the transactions that wrote to the log since the connection was opened.
func (c *Conn) Commits() uint64 { return c.commits }

// DeferredViolations tells whether the open transaction holds a violated deferred foreign key, which would make
// its COMMIT fail: RELEASE of an inner savepoint does not look at it.
func (c *Conn) DeferredViolations() (bool, error) {
	out := c.thread.out
	rc := sqlite3.Xsqlite3_db_status(c.thread.tls, c.db, sqlite3.SQLITE_DBSTATUS_DEFERRED_FKS, out, out+8, 0)
	if rc != sqlite3.SQLITE_OK {
		return false, c.fail(rc)
	}
	return *(*int32)(at(out)) != 0, nil
}

// ReleaseMemory gives back what the connection can do without: cached pages that are not in use, and its
// statements.
func (c *Conn) ReleaseMemory() {
	c.DropStatements()
	sqlite3.Xsqlite3_db_release_memory(c.thread.tls, c.db)
	c.ReleaseLogIndex()
}

// ReleaseLogIndex gives back what the log's index doesn't use of the memory that it was given. SQLite takes 32 KiB at a time and fills
// them with zeros, a third of what an open database takes; the index of a short log touches two of their eight pages.
func (c *Conn) ReleaseLogIndex() {
	p := c.pager().FpWal
	if p == 0 {
		return
	}
	wal := (*sqlite3.TWal)(at(p))
	for i := range wal.FnWiData {
		if piece := *(*uintptr)(at(wal.FapWiData + uintptr(i)*unsafe.Sizeof(p))); piece != 0 {
			releaseZeros(piece, logIndexPiece)
		}
	}
}

// SetMaxPages changes the quota, in pages. A database that is larger already keeps what it has. It is PRAGMA max_page_count without the
// statement, which would be compiled, and kept, for one number.
func (c *Conn) SetMaxPages(n int64) {
	if c.db != 0 && !c.damaged {
		c.pager().FmxPgno = sqlite3.TPgno(max(n, c.Pages()))
	}
}

// Close closes the connection, rolls an open transaction back and ends the statements that are still in use. It neither
// checkpoints nor deletes the log: whoever wants that calls Checkpoint.
func (c *Conn) Close() error {
	if c.db == 0 {
		return nil
	}
	c.cache.owns, c.cache.stmts = nil, nil
	for _, l := range []*list{&c.cache.list, &c.loose} {
		for s := l.head; s != nil; s = l.head {
			l.unlink(s)
			s.finalize()
		}
	}
	c.SetChangeHook(nil)
	c.interrupting.Lock()
	defer c.interrupting.Unlock()
	rc := sqlite3.Xsqlite3_close_v2(c.thread.tls, c.db)
	c.forget()
	if rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("close database: %w", &Error{Code: Code(rc), Message: fmt.Sprintf("SQLite result %d", rc), Offset: -1})
	}
	return nil
}

// Abandon gives a connection up after a panic in the engine: its memory may be in any state, so it is leaked and
// never touched again, and its file descriptors with it. With OFD locks the leaked descriptor would keep the file
// locked, so closing is tried first; if that panics too, the caller learns it and must leave the file alone until
// the process restarts.
func (c *Conn) Abandon() (err error) {
	c.interrupting.Lock()
	c.damaged = true
	c.interrupting.Unlock()
	if c.db == 0 {
		return nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("close a faulted connection: %v", r)
		}
		c.interrupting.Lock()
		c.forget()
		c.interrupting.Unlock()
	}()
	// The old thread's stack pointer is where the panic left it.
	t := NewThread()
	c.thread, c.mode = t, modeOwn
	// SQLite commits a statement of its own transaction when it ends it, however far it came: what the fault left half
	// done must be rolled back instead, which is what closing does within a transaction.
	(*sqlite3.Tsqlite3)(at(c.db)).FautoCommit = 0
	for _, l := range []*list{&c.cache.list, &c.loose} {
		for s := l.head; s != nil; s = s.next {
			sqlite3.Xsqlite3_finalize(t.tls, s.ptr)
			s.ptr, s.busy = 0, false
		}
	}
	if rc := sqlite3.Xsqlite3_close(t.tls, c.db); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("close a faulted connection: SQLite result %d", rc)
	}
	t.Close()
	return nil
}

func (c *Conn) forget() {
	c.db = 0
	if c.handle != 0 {
		freeHandle(c.handle)
		c.handle = 0
	}
	for _, m := range c.tables {
		m.free()
	}
	c.tables = nil
}

// Pages is the size of the file in pages, as the open transaction sees it.
func (c *Conn) Pages() int64 {
	// Within a transaction SQLite keeps the number, and the statement would be a third of what noting a change costs.
	if b := c.shared(); b.FinTransaction != sqlite3.TRANS_NONE {
		return int64(b.FnPage)
	}
	v, err := c.pragma("page_count")
	if err != nil {
		return 0
	}
	return v.Int
}

// pragma is the first value that a pragma answers, with Bytes of its own.
func (c *Conn) pragma(name string) (v Value, err error) {
	s, err := c.Own("PRAGMA " + name)
	if err != nil {
		return v, err
	}
	defer s.Done()
	if row, err := s.Step(); err != nil || !row {
		return v, err
	}
	v = s.Column(0)
	v.Bytes = bytes.Clone(v.Bytes)
	return v, nil
}
