package sqlite

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"os"

	sqlite3 "modernc.org/sqlite/lib"
)

// EmptyFile is the content of a database without tables: one page, in WAL mode, UTF-8. Writing it is what makes a
// database, so that a file of no bytes, or none at all, is never mistaken for one.
func EmptyFile() []byte {
	// The layout is https://sqlite.org/fileformat2.html, sections 1.3 and 1.6.
	p := make([]byte, PageSize)
	copy(p, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(p[16:], PageSize)
	p[18], p[19] = 2, 2                   // written and read through a write-ahead log
	p[21], p[22], p[23] = 64, 32, 32      // payload fractions, fixed by the format
	binary.BigEndian.PutUint32(p[24:], 1) // change counter
	binary.BigEndian.PutUint32(p[28:], 1) // pages
	binary.BigEndian.PutUint32(p[44:], 4) // schema format
	binary.BigEndian.PutUint32(p[56:], 1) // UTF-8
	binary.BigEndian.PutUint32(p[92:], 1) // the change counter for which the number of pages is valid
	binary.BigEndian.PutUint32(p[96:], sqlite3.SQLITE_VERSION_NUMBER)
	p[100] = 13                                   // sqlite_schema's root: a leaf of a table
	binary.BigEndian.PutUint16(p[105:], PageSize) // its content begins at the end: there is none
	return p
}

// TreeKind is what a B-tree holds: https://sqlite.org/fileformat2.html, section 1.6.
type TreeKind byte

// The kinds of B-trees, as the page of an empty one begins.
const (
	IndexTree TreeKind = 10 // an index, or a table WITHOUT ROWID
	TableTree TreeKind = 13 // a table with rowids
)

// lockPage is never used: the file's lock is in its place. Section 1.4 of https://sqlite.org/fileformat2.html.
const lockPage = 1<<30/PageSize + 1

// WriteTrees writes the file of a database in scratch, with a rollback journal, that has empty trees and no schema that names them. The answer is the page of each.
func WriteTrees(to io.Writer, trees []TreeKind) (roots []int64, err error) {
	next := int64(2)
	for range trees {
		if next == lockPage {
			next++
		}
		roots = append(roots, next)
		next++
	}
	w := bufio.NewWriterSize(to, 16*PageSize)
	head := EmptyFile()
	head[18], head[19] = 1, 1
	binary.BigEndian.PutUint32(head[28:], uint32(next-1))
	w.Write(head) // the first error is the Flush's too
	empty := make([]byte, PageSize)
	for i, kind := range trees {
		if roots[i] == lockPage+1 {
			w.Write(make([]byte, PageSize))
		}
		empty[0] = byte(kind)
		binary.BigEndian.PutUint16(empty[5:], PageSize) // its content begins at the end: there is none
		w.Write(empty)
	}
	return roots, w.Flush()
}

// LooksLikeDatabase tells whether the file can be a database at all: it is there and begins as one.
func LooksLikeDatabase(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		if os.IsNotExist(err) {
			return false, nil
		}
		return false, err
	}
	defer f.Close()
	head := make([]byte, 16)
	if n, _ := f.ReadAt(head, 0); n < len(head) {
		return false, nil
	}
	return IsDatabase(head), nil
}

// IsDatabase tells whether a file that begins with head is a SQLite database by its first 16 bytes.
func IsDatabase(head []byte) bool { return bytes.HasPrefix(head, []byte("SQLite format 3\x00")) }
