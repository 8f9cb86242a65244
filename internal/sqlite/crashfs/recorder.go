package crashfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
)

// Recorder logs what happens to the files below one directory. All methods may
// be called from several goroutines at once.
type Recorder struct {
	root string   // absolute, symbolic links resolved
	seen []string // spellings of root that callers may use

	mu     sync.Mutex
	ops    []op
	base   map[int]baseInode
	inodes []*inode // by number; the first is unused
	drop   []*regexp.Regexp
	ignore []*regexp.Regexp
	err    error // misuse or failed write, told by Verify

	vfs *vfs // made by the first call of VFS

	intercept atomic.Pointer[func(FileOp, string) int32]
}

// inode is a file or directory as the running program sees it now.
type inode struct {
	data    []byte
	entries map[string]int // nil for a file
}

// New starts recording below root, which must exist. What lies there already
// counts as durable.
func New(root string) (*Recorder, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("resolve recorder root: %w", err)
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return nil, fmt.Errorf("resolve recorder root: %w", err)
	}
	r := &Recorder{
		root:   resolved,
		seen:   []string{resolved, abs},
		base:   map[int]baseInode{},
		inodes: []*inode{nil, {entries: map[string]int{}}},
	}
	if err := r.scan(); err != nil {
		return nil, fmt.Errorf("read recorder root: %w", err)
	}
	return r, nil
}

// Root is the watched directory, absolute and with symbolic links resolved.
func (r *Recorder) Root() string { return r.root }

// scan takes what lies below the root as the log's durable beginning.
func (r *Recorder) scan() error {
	err := filepath.WalkDir(r.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == r.root {
			return err
		}
		rel, err := filepath.Rel(r.root, path)
		if err != nil {
			return err
		}
		if !watched(d.Type()) || r.ignored(rel) {
			return nil
		}
		node := &inode{}
		if d.IsDir() {
			node.entries = map[string]int{}
		} else if node.data, err = os.ReadFile(path); err != nil {
			return err
		}
		dir, name, _ := r.walk(rel)
		r.inodes[dir].entries[name] = r.add(node)
		return nil
	})
	if err != nil {
		return err
	}
	for ino := rootIno; ino < len(r.inodes); ino++ {
		node := r.inodes[ino]
		base := baseInode{data: append([]byte(nil), node.data...)}
		if node.entries != nil {
			base.entries = map[string]int{}
			for name, child := range node.entries {
				base.entries[name] = child
			}
		}
		r.base[ino] = base
	}
	return nil
}

// Mark puts an acknowledgement in the log: a crash at a later position returns
// it among what was acknowledged. Call it after the answer is out.
func (r *Recorder) Mark(ack any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op{kind: opMark, mark: ack})
}

// DropSyncs makes every sync of a matching file or directory a no-op for the
// log from now on, as though the program didn't call it (the real file is
// still synced). The pattern must match the whole path relative to the root,
// with slashes; the root itself is ".". A file's sync takes the directory sync
// that SQLite does inside it along. Tests use it to show that they notice. It
// panics on a pattern that doesn't compile.
func (r *Recorder) DropSyncs(pattern string) {
	re := whole(pattern)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop = append(r.drop, re)
}

// KeepSyncs ends the effect of all DropSyncs.
func (r *Recorder) KeepSyncs() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop = nil
}

// Ignore leaves matching paths out of the log and of Verify: a lock file, a
// temporary folder. Patterns are those of DropSyncs. "-shm" files are always
// ignored: SQLite makes them anew after a power loss.
func (r *Recorder) Ignore(pattern string) {
	re := whole(pattern)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ignore = append(r.ignore, re)
}

// Log returns what was recorded so far.
func (r *Recorder) Log() *Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	isDir := make([]bool, len(r.inodes))
	for ino, node := range r.inodes {
		isDir[ino] = node != nil && node.entries != nil
	}
	return &Log{ops: r.ops[:len(r.ops):len(r.ops)], base: r.base, isDir: isDir}
}

// Verify compares the log with the real directory: an error says that something
// was written, made, renamed or removed past the recorder, that a Note named an
// unknown path, or that a recorded write failed; a replay would then mean
// nothing. Nothing may write meanwhile.
func (r *Recorder) Verify() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	found := map[string]bool{}
	err := filepath.WalkDir(r.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == r.root {
			return err
		}
		rel, err := filepath.Rel(r.root, path)
		if err != nil {
			return err
		}
		if !watched(d.Type()) || r.ignored(rel) {
			return nil
		}
		found[rel] = true
		_, _, ino := r.walk(rel)
		if ino == none || (r.inodes[ino].entries != nil) != d.IsDir() {
			return fmt.Errorf("compare log: %s was made past the recorder", rel)
		}
		if d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if string(data) != string(r.inodes[ino].data) {
			return fmt.Errorf("compare log: %s was written past the recorder", rel)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.eachLive(rootIno, "", func(rel string) error {
		if !found[rel] {
			return fmt.Errorf("compare log: %s was removed past the recorder", rel)
		}
		return nil
	})
}

// eachLive calls f with every path below a directory, parents first.
func (r *Recorder) eachLive(dir int, prefix string, f func(rel string) error) error {
	for name, child := range r.inodes[dir].entries {
		rel := filepath.Join(prefix, name)
		if err := f(rel); err != nil {
			return err
		}
		if r.inodes[child].entries != nil {
			if err := r.eachLive(child, rel, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close takes the VFS out of SQLite. Databases that use it must be closed.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.vfs == nil {
		return nil
	}
	if err := r.vfs.unregister(); err != nil {
		return err
	}
	r.vfs = nil
	return nil
}

// rel turns a path into one relative to the root; ok is false outside it or
// where Ignore matches.
func (r *Recorder) rel(path string) (rel string, ok bool) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.root, path)
	}
	for _, root := range r.seen {
		rel, err := filepath.Rel(root, path)
		if err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			return rel, !r.ignored(rel)
		}
	}
	return "", false
}

// walk finds a relative path in the tree. dir is none when its parent is
// unknown, ino when the path itself is.
func (r *Recorder) walk(rel string) (dir int, name string, ino int) {
	ino = rootIno
	if rel == "." {
		return none, ".", ino
	}
	for name = range strings.SplitSeq(rel, string(filepath.Separator)) {
		if ino == none || r.inodes[ino].entries == nil {
			return none, name, none
		}
		dir, ino = ino, r.inodes[ino].entries[name]
	}
	return dir, name, ino
}

func (r *Recorder) ignored(rel string) bool {
	return strings.HasSuffix(rel, "-shm") || matches(r.ignore, rel)
}

func (r *Recorder) dropped(rel string) bool { return matches(r.drop, rel) }

// add gives a new file or directory its number.
func (r *Recorder) add(node *inode) int {
	r.inodes = append(r.inodes, node)
	return len(r.inodes) - 1
}

// fail keeps an error for Verify.
func (r *Recorder) fail(err error) {
	r.err = errors.Join(r.err, err)
}

// watched says whether the simulation knows this type of file; sockets, pipes
// and links are left out.
func watched(mode fs.FileMode) bool { return mode.IsRegular() || mode.IsDir() }

func whole(pattern string) *regexp.Regexp {
	return regexp.MustCompile(`^(?:` + pattern + `)$`)
}

func matches(patterns []*regexp.Regexp, rel string) bool {
	for _, re := range patterns {
		if re.MatchString(filepath.ToSlash(rel)) {
			return true
		}
	}
	return false
}
