package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Files is how the store makes and deletes files. The zero value works on the disk; tests put a function of their
// own in to make one fail, or to note what would survive a power loss.
type Files struct {
	Open    func(path string, flag int, perm fs.FileMode) (File, error) // os.OpenFile
	SyncDir func(dir string) error                                      // makes the names in dir durable
	Mkdir   func(dir string) error
	Remove  func(path string) error
	Rename  func(from, to string) error     // gives a file the name of another, which it takes the place of
	Free    func(dir string) (int64, error) // the room on its disk, in bytes
	// Copy writes what from holds to a new file; nobody writes to from meanwhile.
	Copy func(ctx context.Context, from *os.File, path string) error
}

// File is what the store does with an open file.
type File interface {
	io.WriteCloser
	Truncate(size int64) error
	Sync() error
}

func (f Files) withDefaults() Files {
	if f.Open == nil {
		f.Open = func(path string, flag int, perm fs.FileMode) (File, error) { return os.OpenFile(path, flag, perm) }
	}
	if f.SyncDir == nil {
		f.SyncDir = f.syncDir
	}
	if f.Mkdir == nil {
		f.Mkdir = func(dir string) error { return os.Mkdir(dir, 0o700) }
	}
	if f.Remove == nil {
		f.Remove = os.Remove
	}
	if f.Free == nil {
		f.Free = freeBytes
	}
	if f.Rename == nil {
		f.Rename = os.Rename
	}
	if f.Copy == nil {
		f.Copy = copier(clone)
	}
	return f
}

// writeFile makes a file, which must not exist, and its content durable.
func (f Files) writeFile(path string, data []byte) (err error) {
	file, err := f.Open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.Sync()
}

// truncate cuts a file, durably.
func (f Files) truncate(path string, size int64) (err error) {
	file, err := f.Open(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.Truncate(size); err != nil {
		return err
	}
	return file.Sync()
}

// sync makes a file's content durable.
func (f Files) sync(path string) error {
	file, err := f.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// syncDir makes the names in a directory durable: it is opened and synced like a file.
func (f Files) syncDir(dir string) error { return f.sync(dir) }

// makeDir makes dir if it isn't there, and its name durable: who made it may not have come to that yet, or failed to.
func (s *Store) makeDir(dir string) error {
	if _, ok := s.dirs.Load(dir); ok {
		return nil
	}
	if err := s.opt.Files.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.opt.Files.SyncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	s.dirs.Store(dir, nil)
	return nil
}

// path is the file of a database. It is named for the id, which the server makes: nothing that a client sends
// becomes part of a path. A thousand directories keep each of them short.
func (s *Store) path(id string) (string, error) {
	if len(id) < 8 || len(id) > 64 {
		return "", fmt.Errorf("database id of %d characters", len(id))
	}
	for _, r := range id {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && r != '_' {
			return "", fmt.Errorf("database id with the character %q", r)
		}
	}
	return filepath.Join(s.opt.Dir, id[len(id)-2:], id+".db"), nil
}

// Modified is when a database's files were last written to, as their file system says; zero if it has none.
func (s *Store) Modified(database string) time.Time {
	path, err := s.path(database)
	if err != nil {
		return time.Time{}
	}
	var last time.Time
	for _, p := range []string{path, path + "-wal"} {
		if fi, err := os.Stat(p); err == nil && fi.ModTime().After(last) {
			last = fi.ModTime()
		}
	}
	return last
}
