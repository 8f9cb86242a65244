package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
)

// Past keeps what was committed: internal/history.
type Past interface {
	Head(id string) (history.Head, error)
	Pending(log io.ReaderAt, head history.Head) (commits int, end int64, err error)
	Append(id string, head history.Head, log *os.File, end int64, times []int64, durable bool) (history.Head, error)
	Sync(id string) error
	AddBase(ctx context.Context, id string, at uint64, ms int64, from *os.File, pending bool) error
	Confirm(id string, at uint64) error
	Settle(id string, live *os.File) error
	DropTorn(id string) error
}

// Clock remembers when transactions were committed until the history has them.
type Clock interface {
	Note(id string, position uint64, ms int64) error
	Times(id string, after uint64) []int64
}

// past is what an actor knows of its database's history: where it ends, and which commits of the log are not in it yet. It is the worker's, like
// the connection, and is read at the first write: a database that is only read costs nothing.
type past struct {
	known bool // the rest was read
	head  history.Head
	times []int64 // Unix ms of the commits behind the head
	seen  uint64  // commits of the connection that were noted
	hole  bool    // the history could not be kept: it begins anew with a copy of the file
}

// position is the number of the last committed transaction.
func (p *past) position() uint64 { return p.head.Position + uint64(len(p.times)) }

// keeps tells whether there is a history at all.
func (s *Store) keeps() bool { return s.opt.Past != nil }

// recall reads what the history knows of an open database, before anything is written to it.
func (s *Store) recall(a *actor) error {
	if a.past.known || !s.keeps() {
		return nil
	}
	path, err := s.path(a.id)
	if err != nil {
		return err
	}
	if err := s.readPast(a, path); err != nil {
		return fmt.Errorf("read history of %s: %w", a.id, err)
	}
	return nil
}

func (s *Store) readPast(a *actor, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	log, err := os.Open(path + "-wal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	swapped, alone := file, true // unless there is a log
	if log != nil {
		defer log.Close()
		li, err := log.Stat()
		if err != nil {
			return err
		}
		alone = li.Size() == 0
		if n, _, err := s.opt.Past.Pending(log, history.Head{}); err != nil {
			return err
		} else if n > 0 {
			swapped = nil
		}
	}
	if !a.frozen.Load() { // else the base is that of a rebuild which is under way
		if err := s.opt.Past.Settle(a.id, swapped); err != nil {
			return err
		}
	}
	p := past{seen: a.conn.Commits()}
	if p.head, err = s.opt.Past.Head(a.id); err != nil {
		return err
	}
	begins := !p.head.Known && !emptyFile(file)
	if begins {
		// From before there was a history, or made of a file: it begins with the file as it is, behind which the log goes on. Its position is the time: so it
		// is greater than those of a history that was set aside, of which bookmarks, snapshots and a replica may remember some.
		position := uint64(s.opt.Now().UnixMilli())
		if err := s.opt.Past.AddBase(context.Background(), a.id, position, s.since(file, swapped != nil), file, false); err != nil {
			return err
		}
		if p.head, err = s.opt.Past.Head(a.id); err != nil {
			return err
		}
		if alone { // else, closed without a write, it would be another file than the one that its history ends with
			s.markAs(a, path, position)
		}
	}
	if p.head.Known && !begins && alone && !marked(info, a.id, p.head.Position) {
		if err := s.changedOutside(a, &p, file); err != nil {
			return err
		}
	}
	if swapped == nil { // after a crash
		n, _, err := s.opt.Past.Pending(log, p.head)
		if err != nil {
			return err
		}
		p.times = s.opt.Clock.Times(a.id, p.head.Position)
		last := p.head.Time
		for i := range p.times[:min(n, len(p.times))] {
			last = p.times[i]
		}
		for len(p.times) < n {
			p.times = append(p.times, last)
		}
		p.times = p.times[:n]
	}
	switch torn := p.head.Torn; {
	case torn == 0:
	case p.position() >= torn: // the log has what was to be kept
		if err := s.opt.Past.DropTorn(a.id); err != nil {
			return err
		}
	default:
		s.log.Error("the end of the history is damaged; it begins anew", "database", a.id)
		p.head.Position, p.times, p.hole = torn+uint64(len(p.times)), nil, true
	}
	p.known = true
	a.past = p
	return nil
}

// changedOutside begins the history anew where a file without a log isn't the one that the history ends with: somebody wrote to it while no server ran, or took its
// log away. That counts as a transaction. Numbers that were told of transactions which are lost aren't used again.
func (s *Store) changedOutside(a *actor, p *past, file *os.File) error {
	s.log.Warn("the database's file was written to by something else while it was closed; its history begins anew", "database", a.id, "file", file.Name())
	at := p.head.Position + uint64(len(s.opt.Clock.Times(a.id, p.head.Position))) + 1
	if err := s.opt.Past.AddBase(context.Background(), a.id, at, max(p.head.Time, s.since(file, true)), file, false); err != nil {
		return err
	}
	head, err := s.opt.Past.Head(a.id)
	if err != nil {
		return err
	}
	if head.Position != at {
		return fmt.Errorf("the history ends at %d, not at %d", head.Position, at)
	}
	p.head = head
	return nil
}

// since is from when on, in Unix ms, a file is what the database is: without a log that is as long as nobody has written to it.
func (s *Store) since(file *os.File, alone bool) int64 {
	now := s.opt.Now().UnixMilli()
	if fi, err := file.Stat(); err == nil && alone {
		return min(now, fi.ModTime().UnixMilli())
	}
	return now
}

// emptyFile tells whether a file is that of a database in which nothing was ever made.
func emptyFile(f *os.File) bool {
	empty := sqlite.EmptyFile()
	fi, err := f.Stat()
	if err != nil || fi.Size() != int64(len(empty)) {
		return false
	}
	b := make([]byte, len(empty))
	n, err := f.ReadAt(b, 0)
	return n == len(b) && (err == nil || err == io.EOF) && string(b) == string(empty)
}

// noteCommits remembers when the connection's last transactions were committed. What it costs is a clock and a write of 32 bytes a group.
func (s *Store) noteCommits(a *actor) {
	if !a.past.known || a.conn == nil {
		return
	}
	now := a.conn.Commits()
	if now == a.past.seen {
		return
	}
	ms := s.opt.Now().UnixMilli()
	if n := len(a.past.times); n > 0 {
		ms = max(ms, a.past.times[n-1]) // a clock that is set back doesn't turn the order
	} else {
		ms = max(ms, a.past.head.Time)
	}
	for ; a.past.seen < now; a.past.seen++ {
		a.past.times = append(a.past.times, ms)
		if err := s.opt.Clock.Note(a.id, a.past.position(), ms); err != nil {
			s.historyFailed(a, err)
		}
	}
}

// keep hands the log's commits to the history, before a checkpoint lets SQLite write the log from its beginning again. Writes never fail because of
// history: if it can't be kept there is a hole, and a new beginning behind it.
func (s *Store) keep(a *actor) { s.keepAs(a, true) }

// keepAs is keep; what isn't durable behind it is lost with the log.
func (s *Store) keepAs(a *actor, durable bool) {
	if h := s.unkept(a, durable); h != nil {
		h.run()
		h.settle()
	}
}

// keepBeside is keep beside the lane; wait waits for it. Until then the log may be copied back, but neither be written nor cut.
func (s *Store) keepBeside(a *actor) (wait func()) {
	h := s.unkept(a, true)
	if h == nil {
		return func() {}
	}
	if !h.head.Known { // after a crash, a file with something in it and without a history would be one from before there was one
		h.run()
		return h.settle
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := safely(func() error { h.run(); return nil }); err != nil {
			h.err = err
		}
	}()
	return func() {
		<-done
		h.settle()
	}
}

// handover is what the history takes of a log.
type handover struct {
	s     *Store
	a     *actor
	conn  *sqlite.Conn
	log   *os.File
	end   int64
	head  history.Head
	times []int64
	// durable: the log may go afterwards.
	durable bool
	err     error
}

// unkept is what the history doesn't have of the log; nil if there is nothing to do.
func (s *Store) unkept(a *actor, durable bool) *handover {
	if !s.keeps() || a.conn == nil || !a.conn.HasLog() {
		return nil
	}
	if err := s.recall(a); err != nil {
		s.historyFailed(a, err)
		return nil
	}
	s.noteCommits(a)
	if a.past.hole {
		a.past.head.Position, a.past.times = a.past.position(), nil
		return nil
	}
	h := &handover{s: s, a: a, conn: a.conn, head: a.past.head, times: a.past.times, durable: durable}
	if len(h.times) == 0 {
		if durable {
			return h
		}
		return nil
	}
	path, err := s.path(a.id)
	if err == nil {
		h.end, err = a.conn.LogSize()
	}
	if err == nil {
		h.log, err = os.Open(path + "-wal")
	}
	if err != nil {
		h.err = err
		h.settle()
		return nil
	}
	return h
}

// run may be called beside the lane.
func (h *handover) run() {
	if h.log == nil { // the history has everything
		h.err = h.s.opt.Past.Sync(h.a.id)
		return
	}
	defer h.log.Close()
	h.head, h.err = h.s.opt.Past.Append(h.a.id, h.head, h.log, h.end, h.times, h.durable)
}

// settle notes in the lane what became of it.
func (h *handover) settle() {
	switch p := &h.a.past; {
	case h.a.conn != h.conn: // it was given up: the next one reads what the history has
	case h.err != nil:
		p.hole = true
		h.s.historyFailed(h.a, h.err)
	default:
		p.head, p.times = h.head, h.times[:0]
		if cap(p.times) > 1024 {
			p.times = nil
		}
	}
}

// mend looks after the history behind a checkpoint that copied all of the log back: where it has a hole it begins anew with the file as it is now.
func (s *Store) mend(a *actor) {
	if a.conn == nil || !a.past.known && !a.past.hole || a.conn.LogFrames() > 0 {
		return
	}
	path, err := s.path(a.id)
	if err == nil && a.past.hole {
		err = s.beginAnew(a, path)
	}
	if err != nil {
		s.historyFailed(a, err)
		return
	}
	s.mark(a, path)
}

func (s *Store) beginAnew(a *actor, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	at := a.past.position()
	ms := max(s.opt.Now().UnixMilli(), a.past.head.Time)
	if err := s.opt.Past.AddBase(context.Background(), a.id, at, ms, file, false); err != nil {
		return err
	}
	head, err := s.opt.Past.Head(a.id)
	if err != nil {
		return err
	}
	if head.Position != at {
		return fmt.Errorf("the history ends at %d, not at %d", head.Position, at)
	}
	a.past = past{known: true, head: head, seen: a.conn.Commits()}
	return nil
}

func (s *Store) historyFailed(a *actor, err error) {
	s.opt.Observer.HistoryFailed()
	s.log.Error("history could not be kept; writes go on", "database", a.id, "error", err)
}

// Position is the number of a database's last committed transaction, and when that was.
func (s *Store) Position(ctx context.Context, database string) (position uint64, at time.Time, err error) {
	err = s.act(ctx, database, func(w *worker, a *actor) error {
		if err := w.mayOpen(a); err != nil {
			return err
		}
		if err := s.recall(a); err != nil {
			return err
		}
		position = a.past.position()
		at = time.UnixMilli(a.past.head.Time)
		if n := len(a.past.times); n > 0 {
			at = time.UnixMilli(a.past.times[n-1])
		}
		return nil
	})
	return position, at, err
}

// Keep hands what was committed so far to the history, so that it can be restored from there.
func (s *Store) Keep(ctx context.Context, database string) error {
	return s.keepNow(ctx, database, true)
}

// KeepUnsynced is Keep for somebody who reads the history often: what it has isn't durable by itself until the log is copied back, and need not be, for the
// log is.
func (s *Store) KeepUnsynced(ctx context.Context, database string) error {
	return s.keepNow(ctx, database, false)
}

func (s *Store) keepNow(ctx context.Context, database string, durable bool) error {
	return s.act(ctx, database, func(w *worker, a *actor) error {
		if err := w.mayOpen(a); err != nil {
			if errors.Is(err, ErrNotFound) {
				return w.keepEnded(a, err)
			}
			return err
		}
		// One that was made of a file has something in it without a commit: its history begins here.
		if err := s.recall(a); err != nil {
			s.historyFailed(a, err)
			return &wrapped{ErrStorage, err}
		}
		s.keepAs(a, durable)
		if a.past.hole {
			return fmt.Errorf("keep history of %s: %w", database, ErrStorage)
		}
		// The log has nothing that the history hasn't. Only logs with commits are asked about when they are read: what a killed process noted of others must be
		// forgotten here, else each start from then on hands over their databases again.
		if s.keeps() && a.conn != nil && (!a.conn.HasLog() || a.past.known && len(a.past.times) == 0) {
			s.opt.Clock.Times(a.id, a.past.head.Position)
		}
		return nil
	})
}

// keepEnded is keepNow for a database that nothing reaches, which is why. It handed over all that it had when it was retired, unless its history had not begun: then it
// begins here.
func (w *worker) keepEnded(a *actor, why error) error {
	if !w.store.keeps() {
		return why
	}
	head, err := w.store.opt.Past.Head(a.id)
	if err == nil && head.Known {
		return why
	}
	if err == nil {
		_, err = w.ending(a)
	}
	return err
}

// Position is the number that the transaction has which the request writes in, once that is committed; 0 without a history.
func (tx *Tx) Position() uint64 {
	if !tx.a.past.known {
		return 0
	}
	return tx.a.past.position() + 1
}

// Base has the history keep a copy of the whole file, so that later moments need not be restored from far back. Requests go on meanwhile.
func (s *Store) Base(ctx context.Context, database string) error {
	var at uint64
	var ms int64
	file, unpin, err := s.pin(ctx, database, (*worker).mayOpen, func(a *actor) error {
		if err := s.recall(a); err != nil {
			return err
		}
		if a.past.hole || len(a.past.times) > 0 {
			return fmt.Errorf("keep base of %s: %w", database, ErrStorage)
		}
		at, ms = a.past.head.Position, a.past.head.Time
		return nil
	})
	if err != nil {
		return err
	}
	defer unpin()
	return s.opt.Past.AddBase(ctx, database, at, ms, file, false)
}
