package crashfs

import (
	"bytes"
	"maps"
	"slices"
)

// disk is the simulated disk at one position of a log: what is certainly on it,
// and what may or may not be. It only moves forward, so that a series of
// crashes at rising positions reads the log once.
type disk struct {
	log   *Log
	pos   int
	files map[int]*diskFile
	dirs  map[int]map[string]int // durable entries by directory
	// entries are changes of names that no directory sync covers yet, in order;
	// of a rename between two directories one half may be gone already.
	entries []entryChange
	// newest is the position of the newest entry change that is durable.
	newest int
	acked  []any
}

// diskFile is a file's durable content and the positions of the writes and
// truncations after it.
type diskFile struct {
	data    []byte
	pending []int
}

type entryChange struct {
	at   int
	sets []set
}

func newDisk(l *Log) *disk {
	d := &disk{log: l, files: map[int]*diskFile{}, dirs: map[int]map[string]int{}, newest: -1}
	for ino, base := range l.base {
		if base.entries != nil {
			d.dirs[ino] = maps.Clone(base.entries)
		} else {
			d.files[ino] = &diskFile{data: bytes.Clone(base.data)}
		}
	}
	return d
}

// advance runs the log up to, and without, position to.
func (d *disk) advance(to int) {
	for ; d.pos < to; d.pos++ {
		o := &d.log.ops[d.pos]
		switch o.kind {
		case opWrite, opTruncate:
			f := d.file(o.ino)
			f.pending = append(f.pending, d.pos)
		case opSync:
			d.syncFile(d.file(o.ino), o.upto)
		case opEntries:
			d.entries = append(d.entries, entryChange{d.pos, slices.Clone(o.sets)})
		case opSyncDir:
			d.syncDir(o.ino, o.upto)
		case opMark:
			d.acked = append(d.acked, o.mark)
		}
	}
}

func (d *disk) file(ino int) *diskFile {
	f := d.files[ino]
	if f == nil {
		f = &diskFile{}
		d.files[ino] = f
	}
	return f
}

func (d *disk) syncFile(f *diskFile, upto int) {
	n := 0
	for ; n < len(f.pending) && f.pending[n] < upto; n++ {
		f.data = apply(f.data, &d.log.ops[f.pending[n]])
	}
	f.pending = slices.Delete(f.pending, 0, n)
}

// syncDir makes the changes of a directory's entries durable that happened
// before position upto. A removal that is half of a rename takes the new name
// in the other directory along: a file never ends up without either name.
func (d *disk) syncDir(dir, upto int) {
	for i := range d.entries {
		c := &d.entries[i]
		if c.at >= upto {
			break
		}
		last := -1
		for j, s := range c.sets {
			if s.dir == dir {
				last = j
			}
		}
		// Within one directory both halves match; across two, the new name is
		// the first half, and the old one brings it along.
		for range last + 1 {
			s := c.sets[0]
			c.sets = c.sets[1:]
			setEntry(d.dirs, s)
			d.newest = max(d.newest, c.at)
			d.supersede(s, i)
		}
	}
	d.entries = slices.DeleteFunc(d.entries, func(c entryChange) bool { return len(c.sets) == 0 })
}

// supersede forgets older undecided changes of a name that is decided now.
func (d *disk) supersede(s set, before int) {
	for i := range d.entries[:before] {
		c := &d.entries[i]
		c.sets = slices.DeleteFunc(c.sets, func(old set) bool { return old.dir == s.dir && old.name == s.name })
	}
}

func setEntry(dirs map[int]map[string]int, s set) {
	if s.child == none {
		delete(dirs[s.dir], s.name)
		return
	}
	if dirs[s.dir] == nil {
		dirs[s.dir] = map[string]int{}
	}
	dirs[s.dir][s.name] = s.child
}
