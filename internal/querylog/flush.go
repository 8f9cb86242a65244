package querylog

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

const (
	// trimEvery is the time between two looks for entries that are too old; a look takes at most trimChunks of them.
	trimEvery  = time.Minute
	trimChunks = 512

	// A database that runs a statement a second would make 10,000 chunks of one entry: after mergeChunks of fewer than
	// smallEntries each they become one, which costs each entry one more write in its life.
	smallEntries  = 64
	mergeChunks   = 64
	mergeBytes    = 1 << 20 // read for one merge, at most
	mergesAtOnce  = 32      // in one flush; the others' turn comes with their next entries
	rowTrimChunks = 256     // chunks of a database that one flush takes away, at most

	// keptDatabases bounds how many databases' sums are remembered; beyond it they are read again.
	keptDatabases = 20_000
)

// kept is what is known of a database's chunks in the file.
type kept struct {
	entries int // in all chunks
	small   int // chunks of few entries since the last merge
}

// ErrClosed is what a closed log answers.
var ErrClosed = errors.New("the query log is closed")

// Flush writes what waits in memory and does what retention is due. Its errors are logged and counted too; what
// couldn't be written stays in memory.
func (l *Log) Flush() error {
	<-l.file
	defer l.unlock()
	if l.closed {
		return ErrClosed
	}
	return l.flush()
}

// flush is Flush for who holds the file.
func (l *Log) flush() error {
	now := l.opts.Now()
	if now.Before(l.retryAt) {
		return nil
	}
	if l.db == nil {
		if err := l.openFile(); err != nil {
			l.failed("open query log", err)
			return fmt.Errorf("open query log: %w", err)
		}
	}
	forgotten := l.toForget()
	taken, entries := l.takeAll()
	trim := !now.Before(l.trimAt)
	if entries == 0 && len(forgotten) == 0 && !trim {
		return nil
	}
	f := flusher{l: l, now: now, forgotten: forgotten, trim: trim}
	err := f.write(taken)
	if err != nil && l.faulty(err) {
		if aside := l.setAside(err); aside != nil {
			err = errors.Join(err, aside)
		} else if err = l.tryFile(); err == nil {
			f = flusher{l: l, now: now, forgotten: forgotten, trim: trim}
			err = f.write(taken)
		}
	}
	if err != nil {
		l.giveBack(taken)
		l.kept = map[string]*kept{}
		l.failed("flush query log", err)
		return fmt.Errorf("flush query log: %w", err)
	}
	for _, segs := range taken {
		l.pool.release(segs)
	}
	l.flushed.Add(entries)
	if len(forgotten) > 0 {
		l.forgetting.Lock()
		for _, database := range forgotten {
			delete(l.forgotten, database)
		}
		l.forgetting.Unlock()
	}
	if trim && !f.more {
		l.trimAt = now.Add(trimEvery)
	}
	if len(l.kept) > keptDatabases {
		l.kept = map[string]*kept{}
	}
	l.worked()
	return nil
}

func (l *Log) toForget() (databases []string) {
	l.forgetting.Lock()
	defer l.forgetting.Unlock()
	for d := range l.forgotten {
		databases = append(databases, d)
	}
	return databases
}

// takeAll takes the segments out of the shards: nobody appends to them any more.
func (l *Log) takeAll() (taken [shards][]*segment, entries uint64) {
	for i := range l.shards {
		sh := &l.shards[i]
		sh.mu.Lock()
		taken[i], sh.segs = sh.segs, nil
		sh.mu.Unlock()
		for _, s := range taken[i] {
			entries += uint64(s.n)
		}
	}
	return taken, entries
}

// giveBack undoes takeAll.
func (l *Log) giveBack(taken [shards][]*segment) {
	for i := range l.shards {
		sh := &l.shards[i]
		sh.mu.Lock()
		sh.segs = append(taken[i], sh.segs...)
		sh.mu.Unlock()
	}
}

// flusher is one flush.
type flusher struct {
	l         *Log
	now       time.Time
	forgotten []string
	trim      bool

	more   bool // retention has more to do
	merges int
}

// write puts the segments of all shards into the file, in one transaction.
func (f *flusher) write(taken [shards][]*segment) error {
	err := inTx(f.l.db, func(tx *sql.Tx) error {
		for _, database := range f.forgotten {
			if _, err := tx.Exec("DELETE FROM chunk WHERE database = ?", database); err != nil {
				return fmt.Errorf("forget a database: %w", err)
			}
			delete(f.l.kept, database)
		}
		insert, err := tx.Prepare("INSERT INTO chunk(last_id, database, entries, max_ts, body) VALUES(?, ?, ?, ?, ?)")
		if err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		defer insert.Close()
		for _, segs := range taken {
			for database, b := range f.sort(segs) {
				if err := f.add(tx, insert, database, b.take()); err != nil {
					return err
				}
			}
		}
		if f.trim {
			return f.trimAge(tx)
		}
		return nil
	})
	if err != nil || !f.trim {
		return err
	}
	return vacuum(f.l.db)
}

// sort makes the chunks of each database in the segments of a shard. Of a database with more entries than are kept it
// takes the newest.
func (f *flusher) sort(segs []*segment) map[string]*builder {
	found := map[string]*sorted{}
	for _, d := range f.forgotten {
		found[d] = &sorted{left: 0}
	}
	var it item
	for i := len(segs) - 1; i >= 0; i-- {
		seg := segs[i]
		var at uint32
		var to *sorted
		for n := seg.n - 1; n >= 0; n-- {
			if d := seg.records[n].database; to == nil || d != at {
				name := seg.text(d)
				if at, to = d, found[string(name)]; to == nil {
					to = &sorted{left: f.l.opts.KeepRows}
					found[string(name)] = to
				}
			}
			if to.left > 0 {
				to.left--
				seg.item(n, &it)
				to.add(&it)
			}
		}
	}
	builders := make(map[string]*builder, len(found))
	for name, s := range found {
		if s.lastID != 0 {
			builders[name] = &s.builder
		}
	}
	return builders
}

type sorted struct {
	builder
	left int // entries it may still take
}

// add inserts the new chunks of a database and keeps it within its bounds.
func (f *flusher) add(tx *sql.Tx, insert *sql.Stmt, database string, chunks []chunk) error {
	k := f.l.kept[database]
	if k == nil {
		k = &kept{}
		if err := tx.QueryRow("SELECT coalesce(sum(entries), 0), count(*) FILTER (WHERE entries < ?) FROM chunk WHERE database = ?",
			smallEntries, database).Scan(&k.entries, &k.small); err != nil {
			return fmt.Errorf("sum up a database: %w", err)
		}
		f.l.kept[database] = k
	}
	for _, c := range chunks {
		if _, err := insert.Exec(c.lastID, database, c.entries, c.maxTS, c.body); err != nil {
			return fmt.Errorf("insert a chunk: %w", err)
		}
		k.entries += c.entries
		if c.entries < smallEntries {
			k.small++
		}
	}
	if k.small >= mergeChunks && f.merges < mergesAtOnce {
		f.merges++
		if err := f.merge(tx, insert, database, k); err != nil {
			return fmt.Errorf("merge chunks: %w", err)
		}
	}
	if k.entries > f.l.opts.KeepRows {
		if err := f.trimRows(tx, database, k); err != nil {
			return fmt.Errorf("trim a database: %w", err)
		}
	}
	return nil
}

// merge makes one of the newest chunks of a database.
func (f *flusher) merge(tx *sql.Tx, insert *sql.Stmt, database string, k *kept) error {
	rows, err := tx.Query("SELECT last_id, entries, body FROM chunk WHERE database = ? ORDER BY last_id DESC LIMIT ?", database, mergeChunks)
	if err != nil {
		return err
	}
	defer rows.Close()
	var b builder
	var oldest int64
	had, bytes := 0, 0
	for bytes < mergeBytes && rows.Next() {
		var entries int
		var body []byte
		if err := rows.Scan(&oldest, &entries, &body); err != nil {
			return err
		}
		had, bytes = had+entries, bytes+len(body)
		o, err := openChunk(body)
		if err != nil {
			f.l.opts.Logger.Warn("entries of the query log are lost", "entries", entries, "error", err)
			continue
		}
		var it item
		for o.next(&it) {
			b.add(&it)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows.Close()
	if _, err := tx.Exec("DELETE FROM chunk WHERE database = ? AND last_id >= ?", database, oldest); err != nil {
		return err
	}
	k.entries, k.small = k.entries-had, 0
	for _, c := range b.take() {
		if _, err := insert.Exec(c.lastID, database, c.entries, c.maxTS, c.body); err != nil {
			return err
		}
		k.entries += c.entries
	}
	return nil
}

// trimRows takes away a database's oldest chunks whose entries all lie beyond KeepRows. Reading leaves out the rest.
func (f *flusher) trimRows(tx *sql.Tx, database string, k *kept) error {
	rows, err := tx.Query("SELECT last_id, entries FROM chunk WHERE database = ? ORDER BY last_id LIMIT ?", database, rowTrimChunks)
	if err != nil {
		return err
	}
	defer rows.Close()
	var upTo int64
	for rows.Next() {
		var id int64
		var entries int
		if err := rows.Scan(&id, &entries); err != nil {
			return err
		}
		if k.entries-entries < f.l.opts.KeepRows {
			break
		}
		upTo, k.entries = id, k.entries-entries
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows.Close()
	if upTo == 0 {
		return nil
	}
	_, err = tx.Exec("DELETE FROM chunk WHERE database = ? AND last_id <= ?", database, upTo)
	return err
}

// trimAge takes away chunks whose newest entry is too old. Reading leaves out older entries of the others.
func (f *flusher) trimAge(tx *sql.Tx) error {
	rows, err := tx.Query(`DELETE FROM chunk WHERE last_id IN (SELECT last_id FROM chunk WHERE max_ts < ? ORDER BY max_ts LIMIT ?)
		RETURNING database, entries`, f.now.Add(-f.l.opts.KeepFor).UnixMilli(), trimChunks)
	if err != nil {
		return fmt.Errorf("trim what is too old: %w", err)
	}
	defer rows.Close()
	deleted := 0
	for rows.Next() {
		var database string
		var entries int
		if err := rows.Scan(&database, &entries); err != nil {
			return fmt.Errorf("trim what is too old: %w", err)
		}
		if k := f.l.kept[database]; k != nil {
			k.entries -= entries
		}
		deleted++
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("trim what is too old: %w", err)
	}
	f.more = deleted == trimChunks
	return nil
}

// vacuum gives some free pages back to the disk. Trouble with it is told where it is damage; else what was written
// stays written.
func vacuum(db *sql.DB) error {
	rows, err := db.Query("PRAGMA incremental_vacuum(1024)")
	if err == nil {
		for rows.Next() {
		}
		err = errors.Join(rows.Err(), rows.Close())
	}
	if code, ok := sqlite.DriverErrorCode(err); ok && code&0xff == codeCorrupt {
		return fmt.Errorf("shrink query log: %w", err)
	}
	return nil
}
