package crashfs

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
)

// captureBlock is the granularity, in bytes, in which a captured file is
// compared with what the log knows of it.
const captureBlock = 4096

// The Note methods put an operation in the log that the caller does itself,
// right after it has succeeded. Paths are absolute or relative to the root;
// those outside it are ignored. A path that the log doesn't know is an error,
// which Verify returns.

// NoteCreate notes that an empty file was made, or that the file was there.
func (r *Recorder) NoteCreate(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rel, ok := r.rel(path); ok {
		r.create(rel)
	}
}

// NoteMkdir notes a new directory.
func (r *Recorder) NoteMkdir(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rel, ok := r.rel(path); ok {
		r.mkdir(rel)
	}
}

// NoteWrite notes that data was written at offset off; data is copied.
func (r *Recorder) NoteWrite(path string, off int64, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ino := r.known("write", path); ino != none {
		r.write(ino, off, data)
	}
}

// NoteTruncate notes a file's new size in bytes, smaller or larger.
func (r *Recorder) NoteTruncate(path string, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ino := r.known("truncate", path); ino != none {
		r.truncate(ino, size)
	}
}

// NoteSync notes an fsync of a file. It covers what was noted before it.
func (r *Recorder) NoteSync(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ino := r.known("sync", path); ino != none {
		rel, _ := r.rel(path)
		r.sync(opSync, ino, rel, len(r.ops))
	}
}

// NoteSyncDir notes an fsync of a directory. It covers the directory's own
// entries, not what is in its subdirectories nor the directory's own name.
func (r *Recorder) NoteSyncDir(dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ino := r.known("sync directory", dir); ino != none {
		rel, _ := r.rel(dir)
		r.sync(opSyncDir, ino, rel, len(r.ops))
	}
}

// NoteRename notes a rename of a file or directory, over whatever had the new
// name.
func (r *Recorder) NoteRename(from, to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rename(from, to)
}

// NoteRemove notes that a file or empty directory was removed.
func (r *Recorder) NoteRemove(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known("remove", path) != none {
		rel, _ := r.rel(path)
		r.remove(rel)
	}
}

// Capture brings the log in line with a real file that was written past the
// recorder: a copy by the kernel, an *os.File. What differs is noted as written
// now, not yet synced. Directories are captured with all they hold.
func (r *Recorder) Capture(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	rel, ok := r.rel(path)
	if !ok {
		return nil
	}
	return r.capture(rel)
}

func (r *Recorder) capture(rel string) error {
	path := filepath.Join(r.root, rel)
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("capture file: %w", err)
	}
	if !watched(info.Mode()) || r.ignored(rel) {
		return nil
	}
	if info.IsDir() {
		r.mkdir(rel)
		entries, err := os.ReadDir(path)
		if err != nil {
			return fmt.Errorf("capture directory: %w", err)
		}
		for _, e := range entries {
			if err := r.capture(filepath.Join(rel, e.Name())); err != nil {
				return err
			}
		}
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("capture file: %w", err)
	}
	ino := r.create(rel)
	node := r.inodes[ino]
	if len(data) < len(node.data) {
		r.truncate(ino, int64(len(data)))
	}
	for at := 0; at < len(data); {
		end := min(at+captureBlock, len(data))
		if end <= len(node.data) && bytes.Equal(node.data[at:end], data[at:end]) {
			at = end
			continue
		}
		start := at
		for at = end; at < len(data); at = end {
			end = min(at+captureBlock, len(data))
			if end <= len(node.data) && bytes.Equal(node.data[at:end], data[at:end]) {
				break
			}
		}
		r.write(ino, int64(start), data[start:at])
	}
	return nil
}

// captureEntries brings a directory's own entries in line with the real ones.
func (r *Recorder) captureEntries(rel string) error {
	entries, err := os.ReadDir(filepath.Join(r.root, rel))
	if err != nil {
		return fmt.Errorf("capture directory: %w", err)
	}
	if rel != "." {
		r.mkdir(rel)
	}
	_, _, dir := r.walk(rel)
	gone := maps.Clone(r.inodes[dir].entries)
	for _, e := range entries {
		if _, ok := gone[e.Name()]; ok {
			delete(gone, e.Name())
		} else if err := r.capture(filepath.Join(rel, e.Name())); err != nil {
			return err
		}
	}
	for name := range gone {
		r.link(set{dir, name, none})
	}
	return nil
}

// known finds the inode of a noted path; none outside the root, or, with an
// error kept for Verify, when nobody noted its making.
func (r *Recorder) known(verb, path string) int {
	rel, ok := r.rel(path)
	if !ok {
		return none
	}
	_, _, ino := r.walk(rel)
	if ino == none {
		r.fail(fmt.Errorf("note %s: %s is not in the log", verb, rel))
	}
	return ino
}

// parent makes sure that a path's directory is in the log. One that was made
// past the recorder is noted now, so that it counts as not yet durable.
func (r *Recorder) parent(rel string) (dir int, name string) {
	if p := filepath.Dir(rel); p != "." {
		r.mkdir(p)
	}
	dir, name, _ = r.walk(rel)
	return dir, name
}

func (r *Recorder) create(rel string) int {
	if _, _, ino := r.walk(rel); ino != none {
		return ino
	}
	dir, name := r.parent(rel)
	ino := r.add(&inode{})
	r.link(set{dir, name, ino})
	return ino
}

func (r *Recorder) mkdir(rel string) {
	if _, _, ino := r.walk(rel); ino != none {
		return
	}
	dir, name := r.parent(rel)
	r.link(set{dir, name, r.add(&inode{entries: map[string]int{}})})
}

func (r *Recorder) remove(rel string) {
	dir, name, _ := r.walk(rel)
	r.link(set{dir, name, none})
}

func (r *Recorder) rename(from, to string) {
	relFrom, okFrom := r.rel(from)
	relTo, okTo := r.rel(to)
	if !okFrom && !okTo {
		return
	}
	if okFrom != okTo {
		r.fail(fmt.Errorf("note rename: %s to %s crosses the border of the log", from, to))
		return
	}
	if relFrom == relTo {
		return
	}
	fromDir, fromName, ino := r.walk(relFrom)
	if ino == none {
		r.fail(fmt.Errorf("note rename: %s is not in the log", relFrom))
		return
	}
	toDir, toName := r.parent(relTo)
	r.link(set{toDir, toName, ino}, set{fromDir, fromName, none})
}

// link logs directory entries that change together, and changes them.
func (r *Recorder) link(sets ...set) {
	r.ops = append(r.ops, op{kind: opEntries, sets: sets})
	for _, s := range sets {
		if s.child == none {
			delete(r.inodes[s.dir].entries, s.name)
		} else {
			r.inodes[s.dir].entries[s.name] = s.child
		}
	}
}

func (r *Recorder) write(ino int, off int64, data []byte) {
	if len(data) == 0 {
		return
	}
	r.change(op{kind: opWrite, ino: ino, off: off, data: bytes.Clone(data)})
}

func (r *Recorder) truncate(ino int, size int64) {
	r.change(op{kind: opTruncate, ino: ino, off: size})
}

func (r *Recorder) change(o op) {
	r.ops = append(r.ops, o)
	node := r.inodes[o.ino]
	node.data = apply(node.data, &o)
}

// sync logs an fsync that began when the log had upto operations.
func (r *Recorder) sync(kind opKind, ino int, rel string, upto int) {
	if !r.dropped(rel) {
		r.ops = append(r.ops, op{kind: kind, ino: ino, upto: upto})
	}
}
