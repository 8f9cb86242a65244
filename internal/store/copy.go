package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// Copy writes the database as it is now to a new file. See Runner.
func (s *Store) Copy(ctx context.Context, database, path string) error {
	from, unpin, err := s.pin(ctx, database, (*worker).mayOpen, nil)
	if err != nil {
		return err
	}
	defer unpin()
	return s.opt.Files.Copy(ctx, from, path)
}

// pin has the actor copy its log back and keep it so: until unpin the file is complete and nobody writes to it, since
// what is committed meanwhile stays in the log. more, if given, is done in the same moment; open opens the database, or refuses to.
func (s *Store) pin(ctx context.Context, database string, open func(*worker, *actor) error, more func(*actor) error) (from *os.File, unpin func(), err error) {
	for {
		s.mu.Lock()
		unpinned := s.unpinned
		s.mu.Unlock()
		from, unpin, err = s.tryPin(ctx, database, open, more)
		if err != errPinned {
			return from, unpin, err
		}
		select {
		case <-unpinned:
		case <-s.quit:
			return nil, nil, ErrClosing
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

func (s *Store) tryPin(ctx context.Context, database string, open func(*worker, *actor) error, more func(*actor) error) (from *os.File, unpin func(), err error) {
	var pinned *actor
	err = s.act(ctx, database, func(w *worker, a *actor) error {
		if err := open(w, a); err != nil {
			return err
		}
		path, err := w.cut(a)
		if err != nil {
			return err
		}
		if more != nil {
			if err := more(a); err != nil {
				return err
			}
		}
		if from, err = os.Open(path); err != nil {
			return fmt.Errorf("open database to copy it: %w", err)
		}
		a.pins.Add(1)
		pinned = a
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return from, func() {
		from.Close()
		pinned.pins.Add(-1)
		s.mu.Lock()
		s.forget(pinned)
		close(s.unpinned) // whoever waited for this one, or another, looks again
		s.unpinned = make(chan struct{})
		s.mu.Unlock()
	}, nil
}

// mayOpen opens the database if need be, unless it is gone.
func (w *worker) mayOpen(a *actor) error {
	w.store.mu.Lock()
	retired := w.store.isRetired(a.id)
	w.store.mu.Unlock()
	if retired {
		return ErrNotFound
	}
	return w.openAny(a)
}

// openAny is mayOpen for a retired database too, which the reaper closes again.
func (w *worker) openAny(a *actor) error {
	w.store.mu.Lock()
	deleted := a.deleted
	w.store.mu.Unlock()
	if deleted {
		return ErrNotFound
	}
	return w.ensureOpen(a)
}

// Pinned is a database's file as it was at a moment, which nobody writes to.
type Pinned struct {
	*os.File
	Kept     bool // the database has a history; without one its moments have no number
	Position uint64
	Time     int64 // of its last transaction, in Unix ms; 0 if that isn't known
}

// Pin gives a database's file, those of retired ones too, until unpin is called. Requests go on meanwhile, and what they commit stays in the log.
func (s *Store) Pin(ctx context.Context, database string) (p Pinned, unpin func(), err error) {
	p.File, unpin, err = s.pin(ctx, database, (*worker).openAny, func(a *actor) error {
		if !s.keeps() {
			return nil
		}
		if err := s.recall(a); err != nil {
			return err
		}
		p.Kept, p.Position, p.Time = true, a.past.position(), a.past.head.Time
		if n := len(a.past.times); n > 0 {
			p.Time = a.past.times[n-1]
		}
		return nil
	})
	return p, unpin, err
}

// settled opens the database if need be, copies its log back and cuts it to nothing: the file is all there is.
func (w *worker) settled(a *actor) (path string, err error) {
	if err := w.mayOpen(a); err != nil {
		return "", err
	}
	return w.cut(a)
}

// cut is settled for a database that is open.
func (w *worker) cut(a *actor) (path string, err error) {
	if a.conn.LogFrames() > 0 {
		if a.pins.Load() > 0 {
			return "", errPinned // somebody copies the file as it was before these commits
		}
		w.store.keep(a)
		conn := a.conn
		conn.Watch(nil)
		err := w.guard(a, func() error { return conn.Checkpoint(sqlite.CheckpointTruncate) })
		if a.conn != nil {
			a.conn.Watch(w.watch)
		}
		if err != nil {
			return "", fmt.Errorf("copy the log back: %w", translate(err, false))
		}
		w.store.mend(a)
	}
	return w.store.path(a.id)
}

// copier copies a file that nobody writes to. Where the file system shares blocks between files it takes no time and
// no room; else the kernel copies.
func copier(clone func(from, to *os.File) error) func(ctx context.Context, from *os.File, path string) error {
	return func(ctx context.Context, from *os.File, path string) (err error) {
		to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("copy database: %w", diskFull(err))
		}
		defer func() {
			err = errors.Join(err, to.Close())
			if err != nil {
				os.Remove(path)
			}
		}()
		if clone(from, to) == nil {
			return nil
		}
		for {
			// In pieces, for a caller that leaves, and for the disk, which writes what is there while the rest is copied.
			n, err := io.CopyN(to, from, 2<<20)
			writeBack(to)
			if err == io.EOF || err == nil && n == 0 {
				return nil
			}
			if err != nil {
				return fmt.Errorf("copy database: %w", diskFull(err))
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
}

// Rebuild replaces a database by another file. See Runner.
//
// Writes are refused from the moment at which the copy is taken until the new file stands in its place, or they would be
// lost with the old one.
func (s *Store) Rebuild(ctx context.Context, database string, from Beginning, along *Along, build func(path string) error) error {
	var frozen *actor
	file, unpin, err := s.pin(ctx, database, (*worker).mayOpen, func(a *actor) error {
		if !a.frozen.CompareAndSwap(false, true) {
			return ErrRebuilding
		}
		frozen = a
		return nil
	})
	if frozen != nil {
		defer func() {
			frozen.frozen.Store(false)
			s.mu.Lock()
			s.forget(frozen)
			s.mu.Unlock()
		}()
	}
	if err != nil {
		return err
	}
	if along == nil {
		along = &Along{}
	}
	if along.Permit != nil {
		// No write can use it up from here on, and no other rebuild.
		spent := false
		err := s.Do(ctx, database, &Request{Job: JobFunc(func(tx *Tx) (err error) {
			spent, err = tx.HasSpent(along.Permit.ID)
			return err
		})})
		if err == nil && spent {
			err = ErrSpent
		}
		if err != nil {
			unpin()
			return err
		}
	}
	scratch := filepath.Join(s.opt.Temp, "rebuild-"+rand.Text()+".db")
	left := false
	defer func() {
		if !left {
			removeAll(scratch)
		}
	}()
	if from == FromCopy {
		err = s.opt.Files.Copy(ctx, file, scratch)
	} else if err = s.opt.Files.writeFile(scratch, sqlite.EmptyFile()); err != nil {
		err = fmt.Errorf("make scratch database: %w", diskFull(err))
	}
	unpin()
	if err != nil {
		return err
	}
	built := make(chan error, 1)
	go func() { built <- safely(func() error { return build(scratch) }) }()
	select {
	case err = <-built:
	case <-ctx.Done():
		// It notices soon, unless it is inside of a single call of the engine's.
		patience := time.NewTimer(buildGrace)
		defer patience.Stop()
		select {
		case err = <-built:
		case <-patience.C:
			left = true
			go func() {
				<-built
				removeAll(scratch)
			}()
			s.log.Warn("what builds a database does not notice its time limit; it goes on beside it", "database", database)
			return context.Cause(ctx)
		}
	}
	if err != nil {
		return err
	}
	if fi, err := os.Stat(scratch + "-wal"); err == nil && fi.Size() > 0 {
		return errors.New("rebuild database: what was built left a log beside its file")
	}
	kept := func(t SystemTable) bool {
		return from == FromPast && t.Restore == Keep || from == FromNothing && t.Import == Keep
	}
	if along.Label != nil && s.keeps() {
		// Nobody writes any more: this is the state that is replaced.
		if along.Label.Position, _, err = s.Position(ctx, database); err != nil {
			return err
		}
	} else {
		along = &Along{Permit: along.Permit}
	}
	if err := s.keepTables(ctx, database, scratch, kept, along); err != nil {
		return fmt.Errorf("finish the new file: %w", diskFull(err))
	}
	if err := breakJournal(scratch, s.opt.Now()); err != nil {
		return fmt.Errorf("break the journal off: %w", diskFull(err))
	}
	if from != FromPast {
		if err := endRecording(scratch, replaced); err != nil {
			return fmt.Errorf("end the recording: %w", diskFull(err))
		}
	}
	at, err := s.baseOf(ctx, database, scratch)
	if err != nil {
		return fmt.Errorf("keep the new file in the history: %w", diskFull(err))
	}
	if at > 0 {
		if err := Mark(scratch, database, at); err != nil {
			return fmt.Errorf("mark the new file: %w", err)
		}
	}
	return s.act(context.WithoutCancel(ctx), database, func(w *worker, a *actor) error { return w.swap(a, scratch, at) })
}

// baseOf has the history keep a file that is about to take the database's place, as the state after its next transaction: that is the swap. Until
// then nobody writes to the database. 0 is without a history.
func (s *Store) baseOf(ctx context.Context, database, scratch string) (at uint64, err error) {
	if !s.keeps() {
		return 0, nil
	}
	position, last, err := s.Position(ctx, database)
	if err != nil {
		return 0, err
	}
	file, err := os.Open(scratch)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	at = position + 1
	return at, s.opt.Past.AddBase(ctx, database, at, max(s.opt.Now().UnixMilli(), last.UnixMilli()), file, true) // a clock that is set back doesn't turn the order
}

// Along is what a file that takes a database's place brings with it beside its content.
type Along struct {
	Label  *Snapshot // of what was there, where a history is kept; its position is filled in
	Permit *Permit   // which is used up by the replacement; ErrSpent where it was before
}

// Beginning says what a rebuild begins with, and what of the database's system tables stays.
type Beginning uint8

// The beginnings.
const (
	FromNothing Beginning = iota // an empty file, for one that comes in
	FromCopy                     // the database itself
	FromPast                     // an empty file, for an earlier moment of the database
)

// buildGrace is how long past its context a build may take to notice.
const buildGrace = 500 * time.Millisecond

// safely makes an error of a panic: the goroutine is ours, and nobody else would catch it.
func safely(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrFault, r)
		}
	}()
	return f()
}

// swap puts a file in the place of the database's.
func (w *worker) swap(a *actor, scratch string, at uint64) error {
	path, err := w.settled(a)
	if err != nil {
		return err
	}
	if w.store.keeps() {
		// Idle times may have closed the database: what its log held is in the history by now.
		if err := w.store.recall(a); err != nil {
			return &wrapped{ErrStorage, err}
		}
		if next := a.past.position() + 1; next != at {
			return &wrapped{ErrStorage, fmt.Errorf("the history ends at %d, and the new file was kept as %d", next-1, at)}
		}
	}
	files := w.store.opt.Files
	if err := files.sync(scratch); err != nil {
		return fmt.Errorf("sync the new file: %w", diskFull(err))
	}
	w.dropConn(a)
	// The old log must be gone for certain before the new file has its place: what it held would be read into the new
	// file after a power loss.
	if err := files.Remove(path + "-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the log: %w", err)
	}
	if err := files.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("remove the log: %w", err)
	}
	if err := files.Rename(scratch, path); err != nil {
		return fmt.Errorf("replace database: %w", diskFull(err))
	}
	if err := files.SyncDir(filepath.Dir(path)); err != nil {
		// It may or may not be there after a power loss; what is shown now is the new one.
		return &wrapped{ErrStorage, fmt.Errorf("replace database: %w", err)}
	}
	if w.store.opt.Feed != nil {
		w.store.opt.Feed.Broken(a.id)
	}
	if w.store.keeps() {
		if err := w.store.opt.Past.Confirm(a.id, at); err != nil {
			// The next opening compares the files, and finds that the swap happened.
			w.store.historyFailed(a, err)
		}
	}
	return nil
}

// removeAll takes a scratch file and what SQLite may have left beside it away.
func removeAll(path string) {
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		os.Remove(path + suffix)
	}
}
