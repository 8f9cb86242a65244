package querylog

import (
	"context"
	"database/sql"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Options are Open's options. The zero value of a field is the default that stands beside it.
type Options struct {
	Now    func() time.Time // the clock of retention; time.Now
	Logger *slog.Logger     // takes what the operator should know; nothing is logged

	KeepFor  time.Duration // how long an entry is kept; 7 days
	KeepRows int           // how many entries of a database are kept; 10,000

	// FlushEvery is the time between two flushes; 1 s. A negative one leaves flushing to Flush and Close.
	FlushEvery time.Duration
	// Text keeps the SQL text. Without it no text is stored, and texts that were stored earlier aren't shown.
	Text bool
	// MaxSQL is where a text is cut, in bytes, at most 32,768; 4096. No character is split.
	MaxSQL int
	// MaxBuffer bounds the memory of entries that wait for a flush, in bytes; 16 MiB. Beyond it the oldest are dropped.
	MaxBuffer int
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.KeepFor = orDefault(o.KeepFor, 7*24*time.Hour)
	o.KeepRows = orDefault(o.KeepRows, 10_000)
	o.MaxSQL = min(orDefault(o.MaxSQL, 4096), 32<<10)
	o.MaxBuffer = orDefault(o.MaxBuffer, 16<<20)
	if o.FlushEvery == 0 {
		o.FlushEvery = time.Second
	}
	return o
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// shards is how many databases can append side by side without waiting for each other.
const shards = 16

// Log is the query log of all databases. Its methods may be called from any goroutine.
type Log struct {
	path string
	opts Options

	seed   maphash.Seed
	last   atomic.Int64 // the last id given
	shards [shards]shard
	pool   pool

	forgetting sync.Mutex
	forgotten  map[string]struct{} // databases whose entries are to go; under forgetting

	// file is held, as a token taken from the channel, by whoever uses what follows or moves entries from memory to
	// the file: a reader who holds it finds each entry once.
	file    chan struct{}
	db      *sql.DB // nil while the file can't be used
	retryAt time.Time
	failing bool
	closed  bool
	kept    map[string]*kept
	trimAt  time.Time

	flushed  atomic.Uint64
	failures atomic.Uint64

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

// Stats counts what the log did since Open.
type Stats struct {
	Flushed  uint64 // entries that left memory for the file, or that later ones of the same flush had outnumbered
	Dropped  uint64 // entries lost: the buffer was full, or Close couldn't write them
	Failures uint64 // flushes that failed
}

// Open opens the log in the file at path. It can't fail: a file that is damaged, or is no query log, is renamed to
// path.damaged with a warning and begun anew; while there can be no file at all (no such directory, disk full), entries
// stay in memory within its bound and opening is tried again every half minute. The caller holds the lock of the data
// directory.
func Open(path string, opts Options) *Log {
	l := &Log{
		path: path, opts: opts.withDefaults(), seed: maphash.MakeSeed(),
		forgotten: map[string]struct{}{}, kept: map[string]*kept{},
		file: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	l.pool.limit = max(1, l.opts.MaxBuffer/segmentBytes)
	// Microseconds of the clock grow faster than any number of statements, so the ids that a crash took back aren't
	// given again.
	l.last.Store(l.opts.Now().UnixMicro())
	if err := l.openFile(); err != nil {
		l.failed("open query log", err)
	}
	l.file <- struct{}{}
	if l.opts.FlushEvery > 0 {
		go l.run()
	} else {
		close(l.done)
	}
	return l
}

// Append adds an entry and returns its id; 0 if its database's name is too long to keep it. It copies what it needs,
// allocates nothing in the steady state and never waits for the disk.
func (l *Log) Append(e Entry) ID {
	sh := l.shard(e.Database)
	sh.mu.Lock()
	id, half := l.add(sh, &e)
	sh.mu.Unlock()
	l.wakeIf(half)
	return id
}

// AppendAll is Append for several entries of one database.
func (l *Log) AppendAll(list []Entry) {
	if len(list) == 0 {
		return
	}
	half := false
	sh := l.shard(list[0].Database)
	sh.mu.Lock()
	for i := range list {
		_, h := l.add(sh, &list[i])
		half = half || h
	}
	sh.mu.Unlock()
	l.wakeIf(half)
}

// wakeIf has the log be flushed where it is half full: rather a flush before its time than a loss.
func (l *Log) wakeIf(half bool) {
	if half {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// add is for who holds the shard's lock, so that ids grow within a segment.
func (l *Log) add(sh *shard, e *Entry) (_ ID, half bool) {
	if len(e.Database) > maxName {
		l.pool.dropped.Add(1)
		return 0, false
	}
	var text string
	if l.opts.Text && len(e.SQL) > 0 {
		// Seen as a string for the length of this call only: nothing keeps it.
		text = cut(unsafe.String(&e.SQL[0], len(e.SQL)), l.opts.MaxSQL)
	}
	message, status, token := cut(e.Error, maxError), cut(e.Status, maxName), cut(e.TokenID, maxName)
	need := len(e.Database) + len(text) + len(message) + len(status) + len(token)
	id := l.last.Add(1)
	var seg *segment
	if n := len(sh.segs); n > 0 {
		seg = sh.segs[n-1]
	}
	if seg == nil || !seg.room(need) {
		seg, half = l.pool.next(sh)
	}
	r := &seg.records[seg.n]
	r.id, r.ts = id, e.TS
	r.rowsRead, r.rowsWritten, r.duration = max(0, e.RowsRead), max(0, e.RowsWritten), max(0, int64(e.Duration))
	var last *record // whose texts this entry's probably are: to compare them is cheaper than to hash them
	if seg.n > 0 {
		last = &seg.records[seg.n-1]
	} else {
		last = &record{}
	}
	r.database = seg.intern(l.seed, e.Database, last.database)
	r.sql = seg.intern(l.seed, text, last.sql)
	r.status = seg.intern(l.seed, status, last.status)
	r.err = seg.intern(l.seed, message, last.err)
	r.token = seg.intern(l.seed, token, last.token)
	seg.n++
	return ID(id), half
}

func (l *Log) shard(database string) *shard {
	return &l.shards[maphash.String(l.seed, database)%shards]
}

// Forget removes what is kept of a database, for good. Its entries can't be read any more when Forget returns; the file
// follows with the next flush.
func (l *Log) Forget(database string) {
	l.forgetting.Lock()
	l.forgotten[database] = struct{}{}
	l.forgetting.Unlock()
}

func (l *Log) isForgotten(database string) bool {
	l.forgetting.Lock()
	defer l.forgetting.Unlock()
	_, yes := l.forgotten[database]
	return yes
}

// Stats counts what the log did since Open.
func (l *Log) Stats() Stats {
	return Stats{Flushed: l.flushed.Load(), Dropped: l.pool.dropped.Load(), Failures: l.failures.Load()}
}

func (l *Log) run() {
	defer close(l.done)
	ticker := time.NewTicker(l.opts.FlushEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-l.wake:
		case <-l.stop:
			return
		}
		l.Flush() // logged and counted there
	}
}

// Close flushes and closes the file. Entries that are appended later are lost, reading is [ErrClosed].
func (l *Log) Close() error {
	<-l.file
	if l.closed {
		l.unlock()
		return nil
	}
	l.closed = true
	l.unlock()
	close(l.stop)
	<-l.done
	<-l.file
	defer l.unlock()
	l.retryAt = time.Time{} // the last chance
	err := l.flush()
	if err != nil {
		l.pool.dropped.Add(l.waiting())
	}
	return l.closeFile(err)
}

// lock takes the file, waiting for as long as ctx lasts.
func (l *Log) lock(ctx context.Context) error {
	select {
	case <-l.file:
		return nil
	default:
	}
	select {
	case <-l.file:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Log) unlock() { l.file <- struct{}{} }

// waiting is the number of entries in memory.
func (l *Log) waiting() (n uint64) {
	for i := range l.shards {
		sh := &l.shards[i]
		sh.mu.Lock()
		for _, s := range sh.segs {
			n += uint64(s.n)
		}
		sh.mu.Unlock()
	}
	return n
}
