package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Files is how the store makes and deletes files. The zero value works on the disk; tests put a function of their
// own in to make one fail, or to note what would survive a power loss.
type Files struct {
	WriteFile func(path string, data []byte) error // makes the file, which must not exist, and syncs its content
	SyncDir   func(dir string) error               // makes the names in dir durable
	Mkdir     func(dir string) error
	Remove    func(path string) error
	Truncate  func(path string, size int64) error // cuts the file and syncs it
	Sync      func(path string) error             // makes a file's content durable
	Rename    func(from, to string) error         // gives a file the name of another, which it takes the place of
	// Copy writes what from holds to a new file; nobody writes to from meanwhile.
	Copy func(ctx context.Context, from *os.File, path string) error
}

func (f Files) withDefaults() Files {
	if f.WriteFile == nil {
		f.WriteFile = writeFile
	}
	if f.SyncDir == nil {
		f.SyncDir = syncDir
	}
	if f.Mkdir == nil {
		f.Mkdir = func(dir string) error { return os.Mkdir(dir, 0o700) }
	}
	if f.Remove == nil {
		f.Remove = os.Remove
	}
	if f.Truncate == nil {
		f.Truncate = truncate
	}
	if f.Sync == nil {
		f.Sync = syncDir // a directory is opened and synced like a file
	}
	if f.Rename == nil {
		f.Rename = os.Rename
	}
	if f.Copy == nil {
		f.Copy = copyFile
	}
	return f
}

func writeFile(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

func truncate(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes dir if it isn't there, and its name durable.
func (f Files) makeDir(dir string) error {
	err := f.Mkdir(dir)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.SyncDir(filepath.Dir(dir))
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
