package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrUnfinished is returned for a directory that a restore was filling when it was interrupted.
var ErrUnfinished = errors.New("a restore into this data directory was interrupted")

// ErrNotEmpty is returned by OpenEmpty for a directory that has something in it.
var ErrNotEmpty = errors.New("the directory is not empty")

// Restoring is the file that says that a restore is under way, or was interrupted.
func (l Layout) Restoring() string { return filepath.Join(string(l), "restoring") }

// Restored is the file that says that the directory, or a database in it, was restored since a server last ran on it.
func (l Layout) Restored() string { return filepath.Join(string(l), "restored") }

// MarkRestored makes that file, durably.
func (d *Dir) MarkRestored() error {
	if err := os.WriteFile(d.Restored(), []byte("what is here was restored; the next start begins counting anew\n"), 0o600); err != nil {
		return fmt.Errorf("note the restore: %w", err)
	}
	return d.Sync()
}

// WasRestored tells whether the file is there.
func (d *Dir) WasRestored() bool {
	_, err := os.Lstat(d.Restored())
	return err == nil
}

// ForgetRestored takes the file away.
func (d *Dir) ForgetRestored() error {
	if err := os.Remove(d.Restored()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.Sync()
}

// unfinished returns an ErrUnfinished where a restore hasn't ended.
func (l Layout) unfinished() error {
	_, err := os.Lstat(l.Restoring())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for an interrupted restore: %w", err)
	}
	return fmt.Errorf("%w: %s", ErrUnfinished, l.Root())
}

// OpenEmpty opens a directory to fill it: one that is empty or missing, or in which an earlier try was interrupted, whose files it takes away. Until Filled is
// called nothing but OpenEmpty opens it.
func OpenEmpty(path string) (dir *Dir, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("resolve data directory %s: %w", path, err)
	}
	layout := Layout(abs)
	if err := makeDir(abs); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	entries, err := os.ReadDir(abs)
	if err != nil {
		return nil, fmt.Errorf("look at data directory: %w", err)
	}
	again := layout.unfinished()
	for _, e := range entries {
		// A file system that is mounted there has its own folder in it.
		if name := e.Name(); again == nil && name != filepath.Base(layout.Lock()) && name != "lost+found" {
			return nil, fmt.Errorf("%w: %s has %s in it", ErrNotEmpty, abs, name)
		}
	}
	if again != nil && !errors.Is(again, ErrUnfinished) {
		return nil, again
	}
	lock, err := takeLock(layout)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if again == nil {
		if err := os.WriteFile(layout.Restoring(), []byte("persqld restore fills this directory; if it was interrupted, run it again\n"), 0o600); err != nil {
			return nil, err
		}
		if err := syncDir(abs); err != nil {
			return nil, fmt.Errorf("sync data directory: %w", err)
		}
	}
	if err := layout.clear(); err != nil {
		return nil, fmt.Errorf("take away what an interrupted restore left: %w", err)
	}
	for _, folder := range []string{layout.Databases(), layout.History(), layout.Temp()} {
		if err := makeDir(folder); err != nil {
			return nil, fmt.Errorf("make folder: %w", err)
		}
	}
	if err := writeFormat(layout, 1+len(formatSteps())); err != nil {
		return nil, err
	}
	return &Dir{Layout: layout, lock: lock}, nil
}

// clear takes away what a restore puts into the directory.
func (l Layout) clear() error {
	for _, path := range []string{l.Catalog(), l.Catalog() + "-wal", l.Databases(), l.History(), l.Temp(), l.Restored()} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// Abandon empties the directory again, after a restore that failed.
func (d *Dir) Abandon() error {
	err := errors.Join(d.clear(), os.Remove(d.Format()), d.Sync())
	if err == nil { // until here it was unfinished
		err = errors.Join(os.Remove(d.Restoring()), d.Sync())
	}
	if err != nil {
		return fmt.Errorf("empty the data directory again: %w", err)
	}
	return nil
}

// Filled says that all is in the directory that is to be there. Whoever filled it synced it.
func (d *Dir) Filled() error {
	if err := d.MarkRestored(); err != nil {
		return err
	}
	if err := os.Remove(d.Restoring()); err != nil {
		return fmt.Errorf("finish restore: %w", err)
	}
	return d.Sync()
}
