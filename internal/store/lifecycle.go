package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// Create makes an empty database, durably: its file is whole before its name is, and both are on the disk before
// Create returns, so that a catalog that names it finds it.
func (s *Store) Create(_ context.Context, database string) error {
	path, err := s.path(database)
	if err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	if err := s.makeDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("create database: %w", diskFull(err))
	}
	if err := s.opt.Files.writeFile(path, sqlite.EmptyFile()); err != nil {
		if !errors.Is(err, fs.ErrExist) {
			s.opt.Files.Remove(path)
		}
		return fmt.Errorf("create database: %w", diskFull(err))
	}
	if err := s.opt.Files.SyncDir(filepath.Dir(path)); err != nil {
		s.opt.Files.Remove(path)
		return fmt.Errorf("create database: %w", diskFull(err))
	}
	return nil
}

// Delete ends a database. Requests that wait behind it get ErrNotFound.
func (s *Store) Delete(ctx context.Context, database string) error {
	// A caller that leaves doesn't stop a deletion that was begun.
	err := s.act(context.WithoutCancel(ctx), database, (*worker).delete)
	if err == nil {
		err = s.Admit(ctx, database) // there is nothing left to keep requests from
	}
	return err
}

// delete closes the database and takes its files away.
func (w *worker) delete(a *actor) error {
	path, err := w.store.path(a.id)
	if err != nil {
		return err
	}
	if a.conn != nil {
		a.conn.Use(w.thread)
		w.dropConn(a)
	}
	a.deleted, a.broken = true, nil
	files := w.store.opt.Files
	// The log last, when its file is certainly gone: a log without its file is nothing, a file without its log is
	// an older database.
	for _, p := range []string{path, path + "-wal"} {
		if err := files.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete database: %w", err)
		}
		// One that was never made may not even have a directory.
		if err := files.SyncDir(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete database: %w", err)
		}
	}
	return nil
}

// ensureOpen lends the worker's thread to the actor's connection, and opens it first if need be.
func (w *worker) ensureOpen(a *actor) error {
	if a.conn != nil {
		a.conn.Use(w.thread)
		a.conn.Watch(w.watch)
		return nil
	}
	if a.broken != nil {
		return a.broken
	}
	s := w.store
	path, err := s.path(a.id)
	if err != nil {
		return err
	}
	s.makeRoom(w.thread)
	cfg := sqlite.Config{Path: path, VFS: s.opt.VFS, Limits: s.opt.Limits}
	if s.opt.Tables != nil {
		cfg.Tables = s.opt.Tables(a.id)
	}
	var conn *sqlite.Conn
	if err := w.guard(a, func() (err error) { conn, err = sqlite.Open(cfg, w.thread); return err }); err != nil {
		s.log.Error("open database", "database", a.id, "error", err)
		if _, serr := os.Stat(path); errors.Is(serr, fs.ErrNotExist) {
			return ErrDamaged
		}
		return translate(err, false)
	}
	a.conn = conn
	s.mu.Lock()
	a.slim = false
	s.open++
	s.recent.push(a)
	over := s.open > s.opt.MaxOpen
	s.mu.Unlock()
	s.opt.Observer.Open(1)
	if over {
		s.wantReap()
	}
	// Before anything is written: it may be the work of a newer version.
	err = w.guard(a, func() error {
		if err := a.tables.look(conn, &s.system); err != nil {
			return err
		}
		if err := a.begin(s, conn); err != nil {
			return err
		}
		return a.openJournal(s, conn)
	})
	if err != nil {
		if a.conn != nil {
			w.dropConn(a)
		}
		s.log.Error("open database", "database", a.id, "error", err)
		return translate(err, false)
	}
	conn.Watch(w.watch)
	return nil
}

// closed notes that an actor has no connection any more.
func (s *Store) closed(a *actor) {
	s.mu.Lock()
	s.recent.remove(a)
	s.open--
	s.mu.Unlock()
	s.opt.Observer.Open(-1)
}

// dropConn closes the connection as it is: what the log holds stays there.
func (w *worker) dropConn(a *actor) {
	conn := a.conn
	if err := w.guard(a, conn.Close); err != nil {
		w.store.log.Error("close database", "database", a.id, "error", err)
	}
	if a.conn != nil {
		w.forget(a)
	}
}

// forget notes that an actor has no connection any more.
func (w *worker) forget(a *actor) {
	a.conn = nil
	a.tables.forget()
	a.kept.forget()
	a.past = past{}
	w.store.closed(a)
}

// reopen closes the connection after the disk failed under a commit, and takes what followed the last good one out of
// the log; the next request opens the file anew. The failed commit may lie in the log as the system shows it and not
// be on the disk: a later commit behind it, synced and acknowledged, would be out of reach after a power loss.
func (w *worker) reopen(a *actor) {
	conn := a.conn
	if conn == nil {
		return
	}
	var size int64
	err := w.guard(a, func() (err error) { size, err = conn.LogSize(); return err })
	if a.conn != nil {
		w.dropConn(a)
	}
	if err == nil {
		var path string
		if path, err = w.store.path(a.id); err == nil {
			err = w.store.opt.Files.truncate(path+"-wal", size)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.broken = &wrapped{ErrStorage, fmt.Errorf("cut the log: %w", err)}
		w.store.log.Error("a database can't be written again before the server restarts", "database", a.id, "error", err)
	}
}

// abandon gives the connection up after a fault in the engine.
func (w *worker) abandon(a *actor, fault any) {
	w.store.log.Error("the engine failed; the connection is given up", "database", a.id, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
	w.setThread(sqlite.NewThread()) // the old one's stack is where the fault left it
	if a.conn == nil {
		return
	}
	a.giveUp(w.store)
	w.forget(a)
}

// giveUp ends a connection whose memory may be in any state.
func (a *actor) giveUp(s *Store) {
	if err := a.conn.Abandon(); err != nil {
		a.broken = fmt.Errorf("%w: %w", ErrFault, err)
		s.log.Error("a database can't be opened again before the server restarts", "database", a.id, "error", err)
	}
}

// attend does something to the connection of an actor that no worker has. A fault of the engine gives it up.
func (a *actor) attend(s *Store, t *sqlite.Thread, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("the engine failed; the connection is given up", "database", a.id, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			a.giveUp(s)
			err = ErrFault
		}
	}()
	a.conn.Use(t)
	a.conn.Watch(nil)
	return f()
}

// shut checkpoints and closes the connection of an actor that no worker has.
func (a *actor) shut(s *Store, t *sqlite.Thread, checkpoint bool) error {
	if a.conn == nil {
		return nil
	}
	conn := a.conn
	err := a.attend(s, t, func() error {
		var err error
		if checkpoint && a.pins.Load() == 0 && conn.HasLog() {
			s.keep(a)
			// If it fails the log keeps what it has, and the next opening reads it from there.
			if err = conn.Checkpoint(sqlite.CheckpointTruncate); err == nil {
				s.mend(a)
			}
		}
		return errors.Join(err, conn.Close())
	})
	a.conn = nil
	a.past = past{}
	return err
}

// makeRoom closes the least recently used idle database if there are too many. Usually the reaper has done that:
// a request that opens one should not pay for closing another.
func (s *Store) makeRoom(t *sqlite.Thread) {
	s.mu.Lock()
	if s.open < s.opt.MaxOpen+max(8, s.opt.MaxOpen/16) {
		s.mu.Unlock()
		return
	}
	s.evict(t)
}

// evict closes the least recently used idle database, if there is one. The store is locked, and is unlocked on
// return; false means that every open database is busy.
func (s *Store) evict(t *sqlite.Thread) bool {
	a := s.recent.tail
	for a != nil && a.busy {
		a = a.prev
	}
	if a == nil {
		s.mu.Unlock()
		return false
	}
	a.busy = true // ours, like a worker's
	s.running++
	s.mu.Unlock()
	if err := a.shut(s, t, true); err != nil {
		s.log.Warn("close database", "database", a.id, "error", err)
	}
	a.tables.forget()
	a.kept.forget()
	s.closed(a)
	s.giveBack(a)
	return true
}

// giveBack ends the use of an actor that was taken from a goroutine that is no worker.
func (s *Store) giveBack(a *actor) {
	s.mu.Lock()
	if a.queue.len() > 0 { // somebody came meanwhile
		s.dispatch(a)
		s.mu.Lock()
		s.leave() // after the dispatch: the count must not be zero between
		s.mu.Unlock()
		return
	}
	s.leave()
	a.busy = false
	s.forget(a)
	s.mu.Unlock()
}

func (s *Store) wantReap() {
	select {
	case s.reap <- struct{}{}:
	default:
	}
}

// reaper keeps the number of open databases at its bound, and takes memory back from those that rest.
func (s *Store) reaper() {
	defer s.guardians.Done()
	t := sqlite.NewThread()
	defer t.Close()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var slimmed time.Time
	for {
		keep := s.opt.MaxOpen
		select {
		case <-s.quit:
			return
		case <-s.reap:
			keep -= min(keep/16, 8) // a few in advance: waking this goroutine costs more than each of them
		case <-tick.C:
			slimmed = s.slim(t, slimmed)
			s.rest(t)
		}
		for {
			s.mu.Lock()
			if s.open <= keep && !s.memoryHigh() {
				s.mu.Unlock()
				break
			}
			if !s.evict(t) {
				break
			}
		}
	}
}

func (s *Store) memoryHigh() bool {
	return s.opt.MemoryHigh > 0 && s.open > 0 && sqlite.MemoryUsed() > s.opt.MemoryHigh
}

// slimAfter is how long a database isn't used before it is made slim.
const slimAfter = time.Second

// slim takes from databases that have just come to rest what their logs' indexes don't use. It costs 3 µs a database, once for each time that
// one is opened; at the opening it would cost the next one more, which is given the same memory. Those that were used last before since had
// their turn: it returns the next call's since.
func (s *Store) slim(t *sqlite.Thread, since time.Time) time.Time {
	before := s.opt.Now().Add(-slimAfter)
	for {
		var some [16]*actor
		n := s.wide(some[:], since, before)
		for _, a := range some[:n] {
			conn := a.conn
			s.letGo(a, a.attend(s, t, func() error { conn.ReleaseLogIndex(); return nil }))
		}
		if n < len(some) {
			return before
		}
	}
}

// wide takes idle databases that were used last in a span of time, and aren't slim. One whose last statement was long lies further behind than
// its time; such a one is slim when it rests.
func (s *Store) wide(some []*actor, since, before time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := s.recent.head; a != nil && n < len(some) && (a.busy || !a.used.Before(since)); a = a.next {
		if !a.busy && !a.slim && a.conn != nil && a.used.Before(before) {
			a.busy, a.slim = true, true
			s.running++
			some[n] = a
			n++
		}
	}
	return n
}

// rest copies back the logs of databases that were not used for a while, and takes their cached pages. It holds one
// at a time: whoever wants to use it meanwhile waits for that one only.
func (s *Store) rest(t *sqlite.Thread) {
	before := s.opt.Now().Add(-s.opt.IdleAfter)
	for range s.opt.MaxOpen {
		a := s.tired(before)
		if a == nil {
			return
		}
		if s.closeRetired(a, t) {
			continue
		}
		conn := a.conn
		err := a.attend(s, t, func() (err error) {
			if conn.HasLog() {
				s.keep(a)
				if err = conn.Checkpoint(sqlite.CheckpointTruncate); err == nil {
					s.mend(a)
				}
			}
			conn.ReleaseMemory() // not deferred: after a fault nobody touches the connection
			return err
		})
		if err != nil {
			s.log.Warn("checkpoint failed; the log stays", "database", a.id, "error", err)
		}
		s.letGo(a, err)
	}
}

// letGo ends the use of an actor whose connection was attended to, with that outcome.
func (s *Store) letGo(a *actor, err error) {
	if err == ErrFault {
		a.conn = nil
		a.tables.forget()
		a.kept.forget()
		a.past = past{}
		s.closed(a)
	}
	s.giveBack(a)
}

// tired takes the least recently used idle database that was not used since before and has not rested yet.
func (s *Store) tired(before time.Time) *actor {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := s.recent.tail; a != nil && a.used.Before(before); a = a.prev {
		if !a.busy && !a.released && a.conn != nil && a.pins.Load() == 0 {
			a.busy, a.released = true, true
			s.running++
			return a
		}
	}
	return nil
}

// atQuota tells whether the database has as many pages as it may: then a FULL is its own limit, not the disk's.
func (w *worker) atQuota(a *actor) bool {
	if a.conn == nil {
		return false
	}
	limit := w.store.opt.Limits.Pages
	if limit <= 0 {
		limit = sqlite.DefaultPages
	}
	return w.diskHasRoom(a) || a.conn.Pages() >= limit
}

// roomLeft is how many bytes a disk must have left not to be the full one.
const roomLeft = 16 << 20

// diskHasRoom asks the file system, since a rollback has already taken back the pages that were too many.
func (w *worker) diskHasRoom(a *actor) bool {
	free, err := w.store.opt.Files.Free(w.store.opt.Dir)
	return err == nil && free > roomLeft
}
