// Package datadir is the server's data directory: what lies where in it, and the lock that keeps a second server out.
package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned by Open while another process holds the directory. The error's text names that process where
// it is known.
var ErrLocked = errors.New("data directory is in use")

// Layout names the files of a data directory. It touches nothing, so it is also good for a directory that another
// process holds or that doesn't exist.
type Layout string

// Root is the directory itself.
func (l Layout) Root() string { return string(l) }

// Catalog is the catalog's SQLite file.
func (l Layout) Catalog() string { return filepath.Join(string(l), "catalog.db") }

// SealKey is the file of the key that seals what the catalog must be able to recover. It is in no backup: what it sealed is then made anew.
func (l Layout) SealKey() string { return filepath.Join(string(l), "seal.key") }

// Databases is the folder of the tenants' files.
func (l Layout) Databases() string { return filepath.Join(string(l), "db") }

// History is the folder of the databases' past.
func (l Layout) History() string { return filepath.Join(string(l), "history") }

// Aside is what the names of histories begin with that were set aside because none was kept any more.
func (l Layout) Aside() string { return filepath.Join(string(l), "history.until-") }

// ReplicaState is the file of what was put into the replica.
func (l Layout) ReplicaState() string { return filepath.Join(string(l), "replica-state") }

// CommitTimes is the file of what the history doesn't have yet.
func (l Layout) CommitTimes() string { return filepath.Join(string(l), "commit-times") }

// Temp is the folder for files of the running process. Open empties it.
func (l Layout) Temp() string { return filepath.Join(string(l), "tmp") }

// QueryLog is the query log's SQLite file.
func (l Layout) QueryLog() string { return filepath.Join(string(l), "query-log.db") }

// Socket is the Unix socket on which the running server takes subcommands.
func (l Layout) Socket() string { return filepath.Join(string(l), "admin.sock") }

// Lock is the file whose lock says that a process uses the directory.
func (l Layout) Lock() string { return filepath.Join(string(l), "lock") }

// Dir is a data directory that this process holds.
type Dir struct {
	Layout
	lock *os.File
}

// Open makes the directory (mode 0700) and its folders where they are missing, takes its lock, brings it to the format of
// this version and empties its folder of temporary files. It returns an error that is ErrLocked when another process
// holds the lock, ErrNewer for a directory of a newer format, or ErrUnfinished for one that a restore didn't fill, which it leaves as it is. The lock goes with the process,
// however it ends.
func Open(path string) (dir *Dir, err error) { return open(path, formatSteps()) }

func open(path string, steps []step) (dir *Dir, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("resolve data directory %s: %w", path, err)
	}
	layout := Layout(abs)
	if err := makeDir(abs); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
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
	if err := layout.unfinished(); err != nil {
		return nil, err
	}
	if err := upgrade(layout, steps); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(layout.Temp()); err != nil {
		return nil, fmt.Errorf("empty temporary folder: %w", err)
	}
	for _, folder := range []string{layout.Databases(), layout.History(), layout.Temp()} {
		if err := makeDir(folder); err != nil {
			return nil, fmt.Errorf("make folder: %w", err)
		}
	}
	if err := syncDir(abs); err != nil {
		return nil, fmt.Errorf("sync data directory: %w", err)
	}
	return &Dir{Layout: layout, lock: lock}, nil
}

// takeLock locks a directory for this process.
func takeLock(layout Layout) (lock *os.File, err error) {
	// A lock file is never removed: whoever opened it before the removal would lock a file that nobody else sees.
	lock, err = os.OpenFile(layout.Lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := flock(lock); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is held by %s", ErrLocked, layout.Root(), holder(lock))
		}
		return nil, fmt.Errorf("lock data directory %s: %w", layout.Root(), err)
	}
	if err := writeHolder(lock); err != nil {
		return nil, fmt.Errorf("write lock file: %w", err)
	}
	return lock, nil
}

// Hold takes the lock of a directory and changes nothing in it: no file is made, and nothing of a crash is cleared away. It
// returns an error that is ErrLocked when another process holds the lock. A directory without a lock file has never been
// opened; nothing holds it then.
func Hold(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("resolve data directory %s: %w", path, err)
	}
	layout := Layout(abs)
	info, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("look at data directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("look at data directory: %s is not a directory", abs)
	}
	if err := layout.unfinished(); err != nil {
		return nil, err
	}
	lock, err := os.Open(layout.Lock())
	if errors.Is(err, fs.ErrNotExist) {
		return &Dir{Layout: layout}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := flock(lock); err != nil {
		defer lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is held by %s", ErrLocked, abs, holder(lock))
		}
		return nil, fmt.Errorf("lock data directory %s: %w", abs, err)
	}
	return &Dir{Layout: layout, lock: lock}, nil
}

// SetHistoryAside gives the history another name, if there is one, and returns that: what is written from now on would be missing in it, and what it
// restored later would be none of what the databases ever were.
func (d *Dir) SetHistoryAside(now time.Time) (aside string, err error) {
	entries, err := os.ReadDir(d.History())
	if err != nil || len(entries) == 0 {
		return "", err
	}
	aside = d.Aside() + now.UTC().Format("20060102T150405Z")
	if err := os.Rename(d.History(), aside); err != nil {
		return "", err
	}
	if err := makeDir(d.History()); err != nil {
		return "", err
	}
	return aside, d.Sync()
}

// Sync makes names that were made or removed in the directory itself (not in its folders) last through a power loss.
func (d *Dir) Sync() error { return syncDir(d.Root()) }

// Close lets the directory go.
func (d *Dir) Close() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// writeHolder leaves this process' number for the message of one that comes second. On a full disk it is left out: a
// server must start there.
func writeHolder(lock *os.File) error {
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	if isFull(err) {
		return nil
	}
	return err
}

func holder(lock *os.File) string {
	text, err := io.ReadAll(io.LimitReader(lock, 32))
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || convErr != nil {
		return "another process"
	}
	return fmt.Sprintf("process %d", pid)
}

// makeDir makes path and what is missing above it, each entry synced in its parent.
func makeDir(path string) error {
	info, err := os.Stat(path)
	if err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a directory", path)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
