package crashfs

// opKind says what an operation of the log did.
type opKind uint8

const (
	opWrite    opKind = iota // ino, off, data
	opTruncate               // ino, off is the new size
	opSync                   // ino, upto
	opEntries                // sets
	opSyncDir                // ino, upto
	opMark                   // mark
)

// none is the inode number that an entry without a file has.
const none = 0

// rootIno is the inode number of the recorder's root directory.
const rootIno = 1

// op is one operation, in the order in which it took effect in the page cache.
type op struct {
	kind opKind
	ino  int
	off  int64
	data []byte
	// upto is the log's length when a sync began. A sync promises only what was
	// written before it was called, not what another goroutine wrote meanwhile.
	upto int
	// sets are directory entries that change together. A rename has two: the new
	// name first, then the old one.
	sets []set
	mark any
}

// set gives a name in a directory a new inode; none removes the name.
type set struct {
	dir   int
	name  string
	child int
}

// Log is what a [Recorder] saw up to one moment. It doesn't change any more and
// may be replayed from several goroutines at once.
type Log struct {
	ops []op
	// base holds what lay below the root, durably, when the recorder started;
	// isDir has an element for every inode that was ever made.
	base  map[int]baseInode
	isDir []bool
}

// baseInode is the durable content of a file or directory at the log's start.
type baseInode struct {
	data    []byte
	entries map[string]int
}

// Len is the number of operations and marks, and the highest crash point.
func (l *Log) Len() int { return len(l.ops) }

// Marks returns every mark of the log in order.
func (l *Log) Marks() []any {
	var marks []any
	for i := range l.ops {
		if l.ops[i].kind == opMark {
			marks = append(marks, l.ops[i].mark)
		}
	}
	return marks
}

// apply runs a write or truncation on a file's content and returns it.
func apply(data []byte, o *op) []byte {
	if o.kind == opTruncate {
		return resize(data, o.off)
	}
	return overwrite(data, o.off, o.data)
}

// overwrite puts p at offset off, filling a gap before it with zeros.
func overwrite(data []byte, off int64, p []byte) []byte {
	if end := off + int64(len(p)); end > int64(len(data)) {
		data = resize(data, end)
	}
	copy(data[off:], p)
	return data
}

// resize cuts data, or lengthens it with zeros.
func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		return data[:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}
