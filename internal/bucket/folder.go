package bucket

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// tempMark is in the names of temporary files, and of no key.
	tempMark = "~"
	// tempAge is how old a temporary file of another process must be to be a leftover. A Put writes to its own all the time.
	tempAge = 24 * time.Hour
)

// Files are the operations on a folder that must be durable, so that a test can lose power between them. The zero value is the system's.
type Files struct {
	Open    func(path string, flag int, perm fs.FileMode) (File, error)
	Chtimes func(path string, modified time.Time) error
	SyncDir func(dir string) error
	Mkdir   func(dir string) error
	Remove  func(path string) error
	Rename  func(from, to string) error
}

// File is an open file that is written.
type File interface {
	io.WriteCloser
	Sync() error
}

func (f Files) withDefaults() Files {
	if f.Open == nil {
		f.Open = func(path string, flag int, perm fs.FileMode) (File, error) { return os.OpenFile(path, flag, perm) }
	}
	if f.Chtimes == nil {
		f.Chtimes = func(path string, modified time.Time) error { return os.Chtimes(path, modified, modified) }
	}
	if f.SyncDir == nil {
		f.SyncDir = func(dir string) error {
			d, err := os.Open(dir)
			if err != nil {
				return err
			}
			return errors.Join(d.Sync(), d.Close())
		}
	}
	if f.Mkdir == nil {
		f.Mkdir = func(dir string) error { return os.Mkdir(dir, 0o700) }
	}
	if f.Remove == nil {
		f.Remove = os.Remove
	}
	if f.Rename == nil {
		f.Rename = os.Rename
	}
	return f
}

// folder is a bucket in a directory: a key is a path below it.
type folder struct {
	Options
	root  string
	own   string        // in the names of this process's temporary files
	temps atomic.Uint64 // how many there were

	// making is held for reading from when a key's directories are made until there is a file in them, which keeps them: a Delete takes away empty ones.
	making sync.RWMutex
	mu     sync.Mutex
	dirs   map[string]bool // directories that are there, durably
}

func newFolder(root string, o Options) (*folder, error) {
	f := &folder{Options: o, root: root, own: rand.Text()[:8], dirs: map[string]bool{}}
	switch fi, err := os.Stat(root); {
	case err == nil && !fi.IsDir():
		return nil, fmt.Errorf("%s is no folder", root)
	case err == nil:
		return f, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	// Not its parents: where a disk isn't mounted they are missing, and the objects would go to the wrong one.
	if err := o.Files.Mkdir(root); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing, and so is the folder that it is in; mount the disk, or make the folder", root)
	} else if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return f, o.Files.SyncDir(filepath.Dir(root))
}

// LevelDir is what Litestream's client for files calls a level.
func (f *folder) LevelDir(level int) string { return "ltx/" + strconv.Itoa(level) }

// observed tells the observer of an operation, and makes its error an *Error.
func (f *folder) observed(op Op, key string, began time.Time, bytes int64, err error) error {
	outcome := outcomeOf(err)
	if outcome != OK {
		bytes = 0
	}
	f.Observer.Tried(op, outcome, f.Now().Sub(began).Seconds(), bytes)
	return f.wrapped(op, key, err)
}

func (f *folder) wrapped(op Op, key string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: op, Key: key, Where: f.root, Err: err}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.Hint = "make room on the folder's disk"
	case errors.Is(err, syscall.EROFS):
		e.Hint = "the folder's disk is mounted read-only"
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "let the server's user read and write the folder"
	}
	return e
}

// Put writes a file beside the one that it is to be, syncs it and gives it its name.
func (f *folder) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, modified time.Time) error {
	began := f.Now()
	return f.observed(OpPut, key, began, size, f.put(ctx, key, body, size, modified))
}

func (f *folder) put(ctx context.Context, key string, body io.ReadSeeker, size int64, modified time.Time) (err error) {
	if err := checkKey(key); err != nil {
		return err
	}
	path := filepath.Join(f.root, filepath.FromSlash(key))
	if fi, err := os.Lstat(path); err == nil && fi.IsDir() {
		return errors.New("other objects have it as their folder")
	}
	// Not its own time says how old it is, which is to be the object's.
	temp := fmt.Sprintf("%s%s%s-%d-%d", path, tempMark, f.own, f.temps.Add(1), f.Now().Unix())
	file, err := f.create(key, temp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Files.Remove(temp)
		}
	}()
	err = write(ctx, file, body, size)
	if err == nil {
		// Before the sync, with which it becomes durable.
		err = f.Files.Chtimes(temp, modified)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := f.Files.Rename(temp, path); err != nil {
		return err
	}
	if err := f.Files.SyncDir(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// A Delete has taken the object away since, and its directory with it.
	return nil
}

// create makes a key's directories, and a temporary file in them.
func (f *folder) create(key, temp string) (File, error) {
	f.making.RLock()
	defer f.making.RUnlock()
	open := func() (File, error) {
		if err := f.makeDirs(key); err != nil {
			return nil, err
		}
		return f.Files.Open(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	}
	file, err := open()
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody else took away a directory that was there.
		f.mu.Lock()
		clear(f.dirs)
		f.mu.Unlock()
		return open()
	}
	return file, err
}

// makeDirs makes the directories of a key, durably, and refuses those that lead elsewhere.
func (f *folder) makeDirs(key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	parent := f.root
	parts := strings.Split(key, "/")
	for _, part := range parts[:len(parts)-1] {
		dir := filepath.Join(parent, part)
		if !f.dirs[dir] {
			if err := f.Files.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			if fi, err := os.Lstat(dir); err != nil {
				return err
			} else if !fi.IsDir() {
				return fmt.Errorf("%s is no folder", dir)
			}
			// It may have been there, but not durably.
			if err := f.Files.SyncDir(parent); err != nil {
				return err
			}
			f.dirs[dir] = true
		}
		parent = dir
	}
	return nil
}

// write copies a body's next size bytes, and looks at ctx between pieces.
func write(ctx context.Context, to io.Writer, body io.Reader, size int64) error {
	const piece = 1 << 20
	for left := size; ; left -= piece {
		if err := ctx.Err(); err != nil {
			return err
		}
		if left <= 0 {
			return nil
		}
		if _, err := io.CopyN(to, body, min(left, piece)); errors.Is(err, io.EOF) {
			return fmt.Errorf("what is to be stored ends before its %d bytes: %w", size, io.ErrUnexpectedEOF)
		} else if err != nil {
			return err
		}
	}
}

// Get opens a file. No link leads out of the folder.
func (f *folder) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	began := f.Now()
	file, err := f.open(ctx, key, offset)
	if err != nil {
		return nil, f.observed(OpGet, key, began, 0, err)
	}
	r := &fileReader{f: f, ctx: ctx, key: key, file: file, from: file, began: began}
	if length >= 0 {
		r.from = io.LimitReader(file, length)
	}
	return r, nil
}

func (f *folder) open(ctx context.Context, key string, offset int64) (*os.File, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, errors.New("the offset is negative")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(f.root)
	if err != nil {
		// That the folder is gone is not that the object is.
		return nil, fmt.Errorf("open the folder: %w", unlike(err))
	}
	defer root.Close()
	file, err := root.Open(filepath.FromSlash(key))
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, fs.ErrNotExist
	} else if err != nil {
		return nil, err
	}
	if fi, err := file.Stat(); err != nil || !fi.Mode().IsRegular() {
		file.Close()
		return nil, cmp.Or(err, fs.ErrNotExist)
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// unlike is an error that isn't an fs.ErrNotExist any more.
func unlike(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New(err.Error())
	}
	return err
}

// fileReader is an object that is read.
type fileReader struct {
	f     *folder
	ctx   context.Context
	key   string
	file  *os.File
	from  io.Reader
	began time.Time
	bytes int64
	err   error
}

func (r *fileReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		r.err = err
		return 0, r.f.wrapped(OpGet, r.key, err)
	}
	n, err := r.from.Read(p)
	r.bytes += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
		err = r.f.wrapped(OpGet, r.key, err)
	}
	return n, err
}

func (r *fileReader) Close() error {
	err := r.file.Close()
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	r.f.Observer.Tried(OpGet, outcomeOf(cmp.Or(r.err, err)), r.f.Now().Sub(r.began).Seconds(), r.bytes)
	return r.f.wrapped(OpGet, r.key, err)
}

// Delete takes files away, and the directories that have none any more. That isn't durable: what a power loss brings back can be deleted again.
func (f *folder) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		began := f.Now()
		if err := f.observed(OpDelete, key, began, 0, f.delete(ctx, key)); err != nil {
			return err
		}
	}
	return nil
}

func (f *folder) delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	path := filepath.Join(f.root, filepath.FromSlash(key))
	if err := f.inside(key); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := f.Files.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f.making.Lock()
	defer f.making.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for dir := filepath.Dir(path); dir != f.root; dir = filepath.Dir(dir) {
		// Most are not empty, which the system says.
		if err := f.Files.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			break
		}
		delete(f.dirs, dir)
	}
	return nil
}

// inside tells whether a key is a file, without links on the way. It is an fs.ErrNotExist where it is none.
func (f *folder) inside(key string) error {
	path := f.root
	parts := strings.Split(key, "/")
	for i, part := range parts {
		path = filepath.Join(path, part)
		fi, err := os.Lstat(path)
		last := i == len(parts)-1
		switch {
		case err != nil:
			return err
		case last && fi.IsDir(), !last && fi.Mode().IsRegular():
			return fs.ErrNotExist
		case !last && !fi.IsDir():
			return fmt.Errorf("%s is no folder", path)
		}
	}
	return nil
}
