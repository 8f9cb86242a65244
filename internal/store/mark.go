package store

import (
	"hash/fnv"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// The sub-millisecond part of a file's time says which position of the history the file is, as long as it has no log: whoever writes to it without the history,
// such as the sqlite3 shell while the server is stopped, changes the time too. What is behind would else be restored without that.

// markOf is the nanoseconds, 1 to 999,999, that the file of a database at a position has beyond the millisecond.
func markOf(id string, position uint64) int64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	h.Write(strconv.AppendUint(nil, position, 10))
	return int64(h.Sum64()%999_999) + 1
}

// Mark makes a file the one that a database's history has at a position. It has no log, or an empty one.
func Mark(path, id string, position uint64) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Chtimes(path, time.Time{}, time.UnixMilli(fi.ModTime().UnixMilli()).Add(time.Duration(markOf(id, position))))
}

// marked tells whether a file may be the one that the history has at a position. File systems and archives that know no such parts of a second can't tell.
func marked(fi fs.FileInfo, id string, position uint64) bool {
	part := fi.ModTime().UnixNano() % 1_000_000
	return part == 0 || part == markOf(id, position)
}

// mark does that for an open database whose log was just copied back. Where it fails the history begins anew after the next opening, and nothing is lost.
func (s *Store) mark(a *actor, path string) {
	s.markAs(a, path, a.past.position())
}

func (s *Store) markAs(a *actor, path string, position uint64) {
	if err := Mark(path, a.id, position); err != nil {
		s.log.Warn("mark a database's file", "database", a.id, "error", err)
	}
}
