package history

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options say where the history is.
type Options struct {
	Root   string // a directory that exists
	Files  Files
	Now    func() time.Time
	Logger *slog.Logger
	// Grew is told of each position that a database's history has come to; nil tells nobody. It must return at once.
	Grew func(id string, position uint64)
}

// Files are the operations that must be durable, so that a test can lose power between them. The zero value is the system's.
type Files struct {
	Open    func(path string, flag int, perm fs.FileMode) (File, error)
	SyncDir func(dir string) error
	Mkdir   func(dir string) error
	Remove  func(path string) error
	Rename  func(from, to string) error
}

// File is an open file that is written.
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

// History is the past of all databases of a server. Calls about one database come one at a time, but for Restore, At and Span, which may run beside the
// others.
type History struct {
	root  string
	files Files
	log   *slog.Logger
	told  func(id string, position uint64)

	mu    sync.Mutex
	dirs  map[string]bool // directories that are there, durably
	dirty map[string]bool // databases whose history grew since Grown was asked
	sound map[string]bool // databases whose last records were verified, or written, by this process
	// synced are databases all of whose records are durable, as far as this process knows.
	synced map[string]bool
	busy   map[string]bool // databases to whose last chapter a record is being written
	// sealed are last chapters that are being merged: the next record begins another one.
	sealed map[string]uint64
	// avoid are files that turned out to be damaged when they were merged: they aren't read again and again.
	avoid map[string]bool

	// tidying is who merges and drops: one database after the other.
	tidying sync.Mutex
}

// New opens the history in a directory.
func New(o Options) (*History, error) {
	if fi, err := os.Stat(o.Root); err != nil || !fi.IsDir() {
		return nil, fmt.Errorf("open history: %s is no directory", o.Root)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Grew == nil {
		o.Grew = func(string, uint64) {}
	}
	return &History{root: o.Root, told: o.Grew, files: o.Files.withDefaults(), log: o.Logger, dirs: map[string]bool{}, dirty: map[string]bool{},
		sound: map[string]bool{}, synced: map[string]bool{}, busy: map[string]bool{}, sealed: map[string]uint64{}, avoid: map[string]bool{}}, nil
}

// Head is where a database's history ends, and how far of which log that is.
type Head struct {
	Position     uint64 // of the last transaction that it has
	Time         int64  // of that, in Unix ms
	Salt1, Salt2 uint32 // of the log that it was taken from; 0 if it was none
	Offset       int64  // behind the last frame that was taken of that log
	Known        bool   // there is a history
	// Torn is the last position of a record that a crash left half written, or that is damaged: 0 if there is none. It counts for nothing. If the
	// log still has what it was made of, DropTorn makes room for it.
	Torn uint64
}

// ValidID tells whether a text can be the id of a database: no other becomes a path.
func ValidID(id string) bool {
	return len(id) >= 8 && len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// dir is the directory of a database.
func (h *History) dir(id string) (string, error) {
	if !ValidID(id) {
		return "", fmt.Errorf("database id %q", id)
	}
	return filepath.Join(h.root, id[len(id)-2:], id), nil
}

// makeDir makes the directory of a database, durably.
func (h *History) makeDir(dir string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if h.dirs[d] {
			continue
		}
		if err := h.files.Mkdir(d); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := h.files.SyncDir(filepath.Dir(d)); err != nil {
			return err
		}
		h.dirs[d] = true
	}
	return nil
}

// Grown are the databases whose history grew since the last call.
func (h *History) Grown() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]string, 0, len(h.dirty))
	for id := range h.dirty {
		list = append(list, id)
	}
	clear(h.dirty)
	slices.Sort(list)
	return list
}

func (h *History) grew(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dirty[id] = true
}

// beginWrite and endWrite stand around what changes the last chapter.
func (h *History) beginWrite(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy[id] = true
}

func (h *History) endWrite(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.busy, id)
}

// seal ends the last chapter, unless it is being written to.
func (h *History) seal(id string, chapter uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy[id] {
		return false
	}
	h.sealed[id] = chapter
	return true
}

func (h *History) isSealed(id string, chapter uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, ok := h.sealed[id]
	return ok && at == chapter
}

// Forget takes the history of a database away, which is gone for good. It waits for a merge that is under way.
func (h *History) Forget(id string) error {
	h.tidying.Lock()
	defer h.tidying.Unlock()
	dir, err := h.dir(id)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := h.files.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	h.mu.Lock()
	delete(h.dirs, dir)
	delete(h.dirty, id)
	delete(h.sound, id)
	delete(h.synced, id)
	delete(h.sealed, id)
	h.mu.Unlock()
	return h.files.Remove(dir)
}
