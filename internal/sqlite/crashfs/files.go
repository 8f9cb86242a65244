package crashfs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// The methods of this file do the operation on the real file and note it. They
// have the shape of the os package's functions, so that code under test can
// take either through a func field. Outside the root they only do it.

// SyncFile does f.Sync. What was written through f past the recorder is
// captured first. f must still have the name it was opened with.
func (r *Recorder) SyncFile(f *os.File) error {
	rel, ino, upto, err := r.beginSync(f)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if ino == none {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sync(opSync, ino, rel, upto)
	return nil
}

func (r *Recorder) beginSync(f *os.File) (rel string, ino, upto int, err error) {
	path, err := filepath.Abs(f.Name())
	if err != nil {
		return "", none, 0, fmt.Errorf("resolve file name: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rel, ok := r.rel(path)
	if !ok {
		return "", none, 0, nil
	}
	opened, err := f.Stat()
	if err != nil {
		return "", none, 0, err
	}
	named, err := os.Stat(path)
	if err != nil || !os.SameFile(opened, named) {
		return "", none, 0, fmt.Errorf("sync file: %s is no longer the file that was opened by that name", rel)
	}
	if err := r.capture(rel); err != nil {
		return "", none, 0, err
	}
	_, _, ino = r.walk(rel)
	return rel, ino, len(r.ops), nil
}

// SyncDir opens a directory, syncs it and closes it. Entries that were made or
// removed past the recorder are noted first.
func (r *Recorder) SyncDir(dir string) error {
	rel, ino, upto, err := r.beginSyncDir(dir)
	if err != nil {
		return err
	}
	d, err := os.Open(r.real(dir))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return err
	}
	if ino == none {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sync(opSyncDir, ino, rel, upto)
	return nil
}

func (r *Recorder) beginSyncDir(dir string) (rel string, ino, upto int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rel, ok := r.rel(dir)
	if !ok {
		return "", none, 0, nil
	}
	if err := r.captureEntries(rel); err != nil {
		return "", none, 0, err
	}
	_, _, ino = r.walk(rel)
	return rel, ino, len(r.ops), nil
}

// Rename does os.Rename. What lies at from is captured first.
func (r *Recorder) Rename(from, to string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rel, ok := r.rel(from); ok {
		if err := r.capture(rel); err != nil {
			return err
		}
	}
	if err := os.Rename(r.real(from), r.real(to)); err != nil {
		return err
	}
	r.rename(from, to)
	return nil
}

// Remove does os.Remove.
func (r *Recorder) Remove(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.Remove(r.real(path)); err != nil {
		return err
	}
	if rel, ok := r.rel(path); ok {
		if _, _, ino := r.walk(rel); ino != none {
			r.remove(rel)
		}
	}
	return nil
}

// RemoveAll does os.RemoveAll; in the log each file is a removal of its own,
// children before parents.
func (r *Recorder) RemoveAll(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.RemoveAll(r.real(path)); err != nil {
		return err
	}
	rel, ok := r.rel(path)
	if !ok {
		return nil
	}
	_, _, ino := r.walk(rel)
	if ino == none {
		return nil
	}
	var paths []string
	if r.inodes[ino].entries != nil {
		err := r.eachLive(ino, rel, func(p string) error {
			paths = append(paths, p)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for i := len(paths) - 1; i >= 0; i-- {
		r.remove(paths[i])
	}
	r.remove(rel)
	return nil
}

// Mkdir does os.Mkdir.
func (r *Recorder) Mkdir(path string, perm os.FileMode) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.Mkdir(r.real(path), perm); err != nil {
		return err
	}
	if rel, ok := r.rel(path); ok {
		r.mkdir(rel)
	}
	return nil
}

// MkdirAll does os.MkdirAll; each new directory is an entry of its own.
func (r *Recorder) MkdirAll(path string, perm os.FileMode) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.MkdirAll(r.real(path), perm); err != nil {
		return err
	}
	if rel, ok := r.rel(path); ok {
		r.mkdir(rel)
	}
	return nil
}

// WriteFile does os.WriteFile: it makes or empties the file and writes it, and
// syncs nothing.
func (r *Recorder) WriteFile(path string, data []byte, perm os.FileMode) error {
	f, err := r.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Create does os.Create.
func (r *Recorder) Create(path string) (*File, error) {
	return r.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// OpenFile does os.OpenFile; the file's writes, truncations and syncs are
// noted, whatever becomes of its name.
func (r *Recorder) OpenFile(path string, flag int, perm os.FileMode) (*File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.OpenFile(r.real(path), flag, perm)
	if err != nil {
		return nil, err
	}
	file := &File{rec: r, f: f, appends: flag&os.O_APPEND != 0}
	rel, ok := r.rel(path)
	if !ok {
		return file, nil
	}
	// Also right for a file that was there already and only opened or emptied.
	if err := r.capture(rel); err != nil {
		f.Close()
		return nil, err
	}
	_, _, file.ino = r.walk(rel)
	file.rel = rel
	return file, nil
}

// real is the path to give to the operating system.
func (r *Recorder) real(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(r.root, path)
}

// File is an [os.File] whose changes are in the log.
type File struct {
	rec     *Recorder
	f       *os.File
	ino     int // none outside the root
	rel     string
	appends bool
}

// Write is [os.File.Write].
func (f *File) Write(p []byte) (int, error) {
	f.rec.mu.Lock()
	defer f.rec.mu.Unlock()
	if f.ino == none {
		return f.f.Write(p)
	}
	off := int64(len(f.rec.inodes[f.ino].data))
	if !f.appends {
		var err error
		if off, err = f.f.Seek(0, io.SeekCurrent); err != nil {
			return 0, err
		}
	}
	n, err := f.f.Write(p)
	if n > 0 {
		f.rec.write(f.ino, off, p[:n])
	}
	return n, err
}

// WriteAt is [os.File.WriteAt].
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	f.rec.mu.Lock()
	defer f.rec.mu.Unlock()
	n, err := f.f.WriteAt(p, off)
	if n > 0 && f.ino != none {
		f.rec.write(f.ino, off, p[:n])
	}
	return n, err
}

// Truncate is [os.File.Truncate].
func (f *File) Truncate(size int64) error {
	f.rec.mu.Lock()
	defer f.rec.mu.Unlock()
	if err := f.f.Truncate(size); err != nil {
		return err
	}
	if f.ino != none {
		f.rec.truncate(f.ino, size)
	}
	return nil
}

// Sync is [os.File.Sync].
func (f *File) Sync() error {
	f.rec.mu.Lock()
	upto := len(f.rec.ops)
	f.rec.mu.Unlock()
	if err := f.f.Sync(); err != nil {
		return err
	}
	if f.ino != none {
		f.rec.mu.Lock()
		defer f.rec.mu.Unlock()
		f.rec.sync(opSync, f.ino, f.rel, upto)
	}
	return nil
}

// Read is [os.File.Read].
func (f *File) Read(p []byte) (int, error) { return f.f.Read(p) }

// ReadAt is [os.File.ReadAt].
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

// Seek is [os.File.Seek].
func (f *File) Seek(off int64, whence int) (int64, error) { return f.f.Seek(off, whence) }

// Stat is [os.File.Stat].
func (f *File) Stat() (os.FileInfo, error) { return f.f.Stat() }

// Name is [os.File.Name].
func (f *File) Name() string { return f.f.Name() }

// Close is [os.File.Close]. It makes nothing durable.
func (f *File) Close() error { return f.f.Close() }
