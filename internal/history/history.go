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
	"strconv"
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

	mu    sync.Mutex
	dirs  map[string]bool // directories that are there, durably
	dirty map[string]bool // databases whose history grew since Grown was asked
	sound map[string]bool // databases whose last record was verified, or written, by this process
}

// New opens the history in a directory.
func New(o Options) (*History, error) {
	if fi, err := os.Stat(o.Root); err != nil || !fi.IsDir() {
		return nil, fmt.Errorf("open history: %s is no directory", o.Root)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &History{root: o.Root, files: o.Files.withDefaults(), log: o.Logger, dirs: map[string]bool{}, dirty: map[string]bool{}, sound: map[string]bool{}}, nil
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

// dir is the directory of a database. No id that the server didn't make becomes a path.
func (h *History) dir(id string) (string, error) {
	if len(id) < 8 || len(id) > 64 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
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

// The names of files: positions as 16 hexadecimal digits, so that they sort as they are.
const (
	chapterSuffix = ".log"  // records of logs, by the position of the first transaction
	baseSuffix    = ".base" // a whole file, by the position whose state it is
	pendingSuffix = ".pending"
)

func nameOf(position uint64, suffix string) string { return fmt.Sprintf("%016x%s", position, suffix) }

// shelf is what a database's directory holds.
type shelf struct {
	dir      string
	chapters []uint64
	bases    []uint64
	pending  []uint64
}

func (h *History) shelf(id string) (*shelf, error) {
	dir, err := h.dir(id)
	if err != nil {
		return nil, err
	}
	s := &shelf{dir: dir}
	entries, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		for suffix, list := range map[string]*[]uint64{chapterSuffix: &s.chapters, baseSuffix: &s.bases, pendingSuffix: &s.pending} {
			if digits, ok := strings.CutSuffix(e.Name(), suffix); ok && len(digits) == 16 {
				if n, err := strconv.ParseUint(digits, 16, 64); err == nil {
					*list = append(*list, n)
				}
			}
		}
	}
	return s, nil
}

func (s *shelf) path(position uint64, suffix string) string {
	return filepath.Join(s.dir, nameOf(position, suffix))
}

// Head is where a database's history ends.
func (h *History) Head(id string) (Head, error) {
	s, err := h.shelf(id)
	if err != nil {
		return Head{}, err
	}
	var head Head
	if n := len(s.bases); n > 0 {
		t, err := readTrailer(s.path(s.bases[n-1], baseSuffix))
		if err != nil {
			return Head{}, err
		}
		head = Head{Position: s.bases[n-1], Time: t.time, Known: true}
	}
	if n := len(s.chapters); n > 0 {
		last, torn, err := h.lastSound(id, s.path(s.chapters[n-1], chapterSuffix))
		head.Torn = torn
		switch {
		case err != nil:
			return Head{}, err
		case last != nil && last.last() >= head.Position:
			head = Head{Position: last.last(), Time: last.time, Salt1: last.salt1, Salt2: last.salt2, Offset: last.offset + last.length, Known: true, Torn: torn}
		case last == nil && n > 1:
			// Nothing of the last chapter came to stay: the one before ends the history.
			before, err := lastRecord(s.path(s.chapters[n-2], chapterSuffix))
			if err != nil {
				return Head{}, err
			}
			if before != nil && before.last() >= head.Position {
				head = Head{Position: before.last(), Time: before.time, Salt1: before.salt1, Salt2: before.salt2, Offset: before.offset + before.length, Known: true, Torn: torn}
			}
		}
	}
	return head, nil
}

// lastSound is the last record of a chapter that is whole. A crash can have lost what lies between a record's ends: the first look of a process
// verifies it all.
func (h *History) lastSound(id, path string) (last *record, torn uint64, err error) {
	last, err = lastRecord(path)
	h.mu.Lock()
	sound := h.sound[id]
	h.mu.Unlock()
	if err != nil || last == nil || sound {
		return last, 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	if last.verify(f, path) == nil {
		h.mu.Lock()
		h.sound[id] = true
		h.mu.Unlock()
		return last, 0, nil
	}
	torn = last.last()
	list, _, _, err := records(path)
	if err != nil {
		return nil, 0, err
	}
	for len(list) > 0 && list[len(list)-1].at >= last.at {
		list = list[:len(list)-1]
	}
	if len(list) == 0 {
		return nil, torn, nil
	}
	return list[len(list)-1], torn, nil
}

// DropTorn cuts a torn record off: what it was made of is still there.
func (h *History) DropTorn(id string) error {
	s, err := h.shelf(id)
	if err != nil {
		return err
	}
	if len(s.chapters) == 0 {
		return nil
	}
	path := s.path(s.chapters[len(s.chapters)-1], chapterSuffix)
	last, err := lastRecord(path)
	if err != nil || last == nil {
		return err
	}
	f, err := h.files.Open(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(last.at), f.Sync(), f.Close())
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

// Forget takes the history of a database away, which is gone for good.
func (h *History) Forget(id string) error {
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
	h.mu.Unlock()
	return h.files.Remove(dir)
}

// DamageError is a file of the history that isn't what it should be.
type DamageError struct {
	Path string
	What string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%s %s", filepath.Base(e.Path), e.What)
}

// GapError is a moment that can't be restored, with the nearest ones that can.
type GapError struct {
	At            uint64
	Before, After uint64 // positions; HasBefore and HasAfter tell whether there are any
	HasBefore     bool
	HasAfter      bool
	Cause         error
}

func (e *GapError) Error() string {
	nearest := "no moment can be restored"
	switch {
	case e.HasBefore && e.HasAfter:
		nearest = fmt.Sprintf("the nearest moments are positions %x and %x", e.Before, e.After)
	case e.HasBefore:
		nearest = fmt.Sprintf("the nearest moment is position %x, before it", e.Before)
	case e.HasAfter:
		nearest = fmt.Sprintf("the nearest moment is position %x, after it", e.After)
	}
	if e.Cause != nil {
		return fmt.Sprintf("position %x: %v; %s", e.At, e.Cause, nearest)
	}
	return fmt.Sprintf("position %x; %s", e.At, nearest)
}

func (e *GapError) Unwrap() error { return e.Cause }
