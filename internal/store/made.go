package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/persqld/persqld/internal/sqlite"
)

// CreateFrom makes a database of a file. See Runner.
func (s *Store) CreateFrom(ctx context.Context, database, file string) error {
	return s.createFrom(ctx, database, file, nil, nil)
}

// createFrom makes a database of a file. finish, if given, is the last that happens to its content; reserve, if given, comes before the file has its place.
func (s *Store) createFrom(_ context.Context, database, file string, finish func(*sqlite.Conn) error, reserve func() error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("create database: %w", translate(diskFull(err), false))
		}
	}()
	path, err := s.path(database)
	if err != nil {
		return err
	}
	if err := s.adopt(file, finish); err != nil {
		return err
	}
	fi, err := os.Stat(file)
	if err != nil {
		return err
	}
	limit := s.opt.Limits.Pages
	if limit <= 0 {
		limit = sqlite.DefaultPages
	}
	if fi.Size() > limit*sqlite.PageSize {
		return fmt.Errorf("%d bytes: %w", fi.Size(), ErrQuota)
	}
	// What has to be on the disk before the name is, at a time: a disk that syncs two files takes little longer than for one.
	files := s.opt.Files
	before := []func() error{func() error { return files.sync(file) }, func() error { return s.makeDir(filepath.Dir(path)) }}
	if reserve != nil {
		before = append(before, reserve)
	}
	if err := together(before...); err != nil {
		return err
	}
	// A rename would put it in another's place.
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s: %w", database, fs.ErrExist), err)
	}
	if err := files.Rename(file, path); err != nil {
		return err
	}
	if err := files.SyncDir(filepath.Dir(path)); err != nil {
		return errors.Join(err, files.Remove(path))
	}
	if s.opt.Made != nil {
		s.opt.Made(database)
	}
	return nil
}

// together runs functions beside each other, to their ends.
func together(do ...func() error) error {
	errs := make([]error, len(do))
	var all sync.WaitGroup
	for i, f := range do {
		all.Go(func() { errs[i] = safely(f) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// adopt takes from a file the tables that belong to the database alone that it is a copy of, and finishes it. It returns a *NewerError for a file with a table whose fate
// isn't known.
func (s *Store) adopt(file string, finish func(*sqlite.Conn) error) error {
	err := withScratch(file, func(c *sqlite.Conn) error {
		names, err := c.TableNames(SystemPrefix)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := s.system.check(name); err != nil {
				return err
			}
		}
		for _, name := range names {
			for _, t := range s.system.all() {
				if family(t.Name) == family(name) && t.Branch != Carry { // former versions too
					if err := c.DropReserved(name); err != nil {
						return err
					}
				}
			}
		}
		if finish != nil {
			return finish(c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return sqlite.SetLogMode(file)
}

// Ending is how a retired database ends.
type Ending struct {
	Position  uint64 // of its last transaction; 0 where no history is kept
	Snapshots []Snapshot
}

// Ending is what a retired database ends with. See Runner.
func (s *Store) Ending(ctx context.Context, database string) (e Ending, err error) {
	err = s.act(ctx, database, func(w *worker, a *actor) (err error) {
		e, err = w.ending(a)
		return err
	})
	return e, err
}

// CopyEnded writes a retired database to a new file. See Runner.
func (s *Store) CopyEnded(ctx context.Context, database, path string) error {
	var from *os.File
	err := s.act(ctx, database, func(w *worker, a *actor) error {
		if _, err := w.ending(a); err != nil {
			return err
		}
		file, err := s.path(a.id)
		if err == nil {
			from, err = os.Open(file)
		}
		return err
	})
	if err != nil {
		return err
	}
	defer from.Close()
	return s.opt.Files.Copy(ctx, from, path)
}

// ending opens a database that nothing reaches for as long as it takes to read how it ends, and closes it: what a crash left in its log is in the history
// and in its file then.
func (w *worker) ending(a *actor) (e Ending, err error) {
	s := w.store
	s.mu.Lock()
	gone := a.deleted
	s.mu.Unlock()
	if gone {
		return e, ErrNotFound
	}
	if err := w.ensureOpen(a); err != nil {
		return e, err
	}
	a.conn.Watch(nil)
	err = w.guard(a, func() error {
		if s.keeps() {
			if err := s.recall(a); err != nil {
				return &wrapped{ErrStorage, err}
			}
			e.Position = a.past.position()
		}
		if !a.tables.known[s.system.snapshots.Name] {
			return nil
		}
		return a.conn.EachRow(selectSnapshots+s.system.snapshots.Name+newestFirst, func(st *sqlite.Stmt) error {
			e.Snapshots = append(e.Snapshots, snapshotOf(st))
			return nil
		})
	})
	if rerr := w.retire(a); err == nil {
		err = rerr
	}
	if err == nil && a.pins.Load() > 0 {
		err = ErrStuck // somebody copies it still, and its log stays so long
	}
	return e, translate(err, false)
}

const (
	selectSnapshots = "SELECT id, label, position, created_at, automatic FROM "
	newestFirst     = " ORDER BY seq DESC"
)

func snapshotOf(s *sqlite.Stmt) Snapshot {
	return Snapshot{ID: string(s.Column(0).Bytes), Label: string(s.Column(1).Bytes), Position: uint64(s.Column(2).Int),
		CreatedAt: s.Column(3).Int, Automatic: s.Column(4).Int != 0}
}
