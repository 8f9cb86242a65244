package history

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/persqld/persqld/internal/sqlite"
)

// moment is a state of the database that files of the history lead to.
type moment struct {
	position uint64
	time     int64 // Unix ms; only where it was asked for
	pages    uint32
}

// source is where the newest image of a page is.
type source struct {
	file   int32  // an index into the walker's volumes
	sum    uint32 // CRC32C of the image, if it stands there as it is
	offset int64  // of the image; in a merged file that of its block, times blockPages, and which one of it it is
}

// volume is a file of transactions: a chapter, or what chapters were merged into.
type volume struct {
	path   string
	first  uint64
	merged bool
}

// walker goes through volumes from a state on, verifies what it reads, and notes where the newest image of each page is. It holds 16 bytes and a map's
// slot for each page that changed, but no page.
type walker struct {
	shelf  *shelf
	from   moment // the state that it has come to
	newest map[uint32]source
	files  []volume // whose images newest has
	blind  bool     // it only verifies: where images are isn't noted
}

func newWalker(s *shelf, from moment) *walker {
	return &walker{shelf: s, from: from, newest: map[uint32]source{}}
}

// volumes are those that could have the transaction after the state, the more exact one first.
func (w *walker) volumes() (list []volume) {
	next := w.from.position + 1
	for i := len(w.shelf.chapters) - 1; i >= 0; i-- {
		if first := w.shelf.chapters[i]; first <= next {
			list = append(list, volume{path: w.shelf.path(first, chapterSuffix), first: first})
			break
		}
	}
	for _, m := range w.shelf.merged {
		if m.holds(next) {
			list = append(list, volume{path: w.shelf.mergedPath(m), first: m.first, merged: true})
		}
	}
	return list
}

// ErrMerged is the cause of a gap between two moments of a merged file.
var ErrMerged = errors.New("it was merged with those after it")

// to goes to a position. It returns a *DamageError where a file is damaged or missing, and ErrMerged; w.from is then how far it came.
func (w *walker) to(ctx context.Context, at uint64) error {
	for w.from.position < at {
		var cause error
		was := w.from.position
		for _, v := range w.volumes() {
			err := w.through(ctx, v, at)
			if err != nil && !damaged(err) && err != ErrMerged {
				return err
			}
			if err != nil && cause == nil {
				cause = err
			}
			if w.from.position > was {
				break // another file may go on where this one ends
			}
		}
		if w.from.position > was {
			continue
		}
		if cause == nil {
			cause = &DamageError{w.shelf.dir, fmt.Sprintf("has no record of position %d", was+1)}
		}
		return cause
	}
	return nil
}

// through goes through one file, up to a position.
func (w *walker) through(ctx context.Context, v volume, at uint64) error {
	file := -1
	for i := range w.files {
		if w.files[i] == v {
			file = i
		}
	}
	if file < 0 {
		file = len(w.files)
		w.files = append(w.files, v)
	}
	f, err := os.Open(v.path)
	if err != nil {
		return &DamageError{v.path, err.Error()}
	}
	defer f.Close()
	fresh := map[uint32]source{} // of the transaction that is being read
	visit := visitor{
		page: func(number uint32, offset int64, sum uint32) {
			if !w.blind {
				fresh[number] = source{int32(file), sum, offset}
			}
		},
		end: func(m moment) error {
			if !w.blind {
				for number, from := range fresh {
					w.newest[number] = from
				}
			}
			clear(fresh)
			w.from = m
			return ctx.Err()
		},
	}
	if v.merged {
		return walkMerged(f, v.path, w.from.position, at, visit)
	}
	return walkChapter(f, v.path, w.from.position, at, visit)
}

// visitor is told of each image and, behind those of a moment, of the moment.
type visitor struct {
	page func(number uint32, offset int64, sum uint32)
	end  func(moment) error
}

// walkChapter verifies the records of a chapter that come after a position, up to another one.
func walkChapter(f *os.File, path string, after, upTo uint64, visit visitor) error {
	list, end, size, err := recordsAfter(path, after)
	if err != nil {
		return readError(path, err)
	}
	buf := make([]byte, frameHeader+sqlite.PageSize)
	next := after + 1
	for _, r := range list {
		if r.last() < next {
			continue
		}
		if next > upTo {
			return nil
		}
		if r.first > next {
			return &DamageError{path, fmt.Sprintf("has no record of position %d", next)}
		}
		err := r.walk(f, path, upTo, buf, visitor{page: visit.page, end: func(m moment) error {
			if m.position < next {
				// The state that this one leads to is that of before: its images are of use to it, too.
				return nil
			}
			next = m.position + 1
			return visit.end(m)
		}})
		if err != nil {
			return err
		}
	}
	if next <= upTo && end < size {
		return &DamageError{path, fmt.Sprintf("is torn at %d of %d bytes", end, size)}
	}
	return nil
}

// walk verifies a record's frames up to a position by the log's own running checksum.
func (r *record) walk(f io.ReaderAt, path string, upTo uint64, buf []byte, visit visitor) error {
	order := binary.ByteOrder(binary.LittleEndian)
	if r.bigEndian {
		order = binary.BigEndian
	}
	s1, s2 := r.sum1, r.sum2
	be := binary.BigEndian
	in := io.NewSectionReader(f, r.frames(), r.length)
	next := r.first
	off := r.frames()
	for ; off < r.times() && next <= min(upTo, r.last()); off += int64(len(buf)) {
		if _, err := io.ReadFull(in, buf); err != nil {
			return readError(path, err)
		}
		s1, s2 = sqlite.WALChecksum(order, s1, s2, buf[:8])
		s1, s2 = sqlite.WALChecksum(order, s1, s2, buf[frameHeader:])
		number := be.Uint32(buf)
		if number == 0 || be.Uint32(buf[8:]) != r.salt1 || be.Uint32(buf[12:]) != r.salt2 || be.Uint32(buf[16:]) != s1 || be.Uint32(buf[20:]) != s2 {
			return &DamageError{path, fmt.Sprintf("does not fit its checksum at byte %d", off)}
		}
		visit.page(number, off+frameHeader, crc32.Checksum(buf[frameHeader:], crcTable))
		if pages := be.Uint32(buf[4:]); pages != 0 {
			// A record that ends elsewhere than its last transaction numbers them wrongly: none behind it may count.
			if next == r.last() && off+int64(len(buf)) != r.times() {
				return &DamageError{path, fmt.Sprintf("has more than %d transactions at byte %d", r.commits, r.at)}
			}
			if err := visit.end(moment{position: next, pages: pages}); err != nil {
				return err
			}
			next++
		}
	}
	if next != min(r.last(), upTo)+1 {
		return &DamageError{path, fmt.Sprintf("has %d transactions at byte %d, not %d", next-r.first, r.at, r.commits)}
	}
	return nil
}

// verify reads all of a record.
func (r *record) verify(f io.ReaderAt, path string) error {
	err := r.walk(f, path, r.last(), make([]byte, frameHeader+sqlite.PageSize), visitor{page: func(uint32, int64, uint32) {}, end: func(moment) error { return nil }})
	if err == nil {
		if _, err = r.readTimes(f); err != nil {
			err = readError(path, err)
		}
	}
	return err
}

// readError is what a file that can't be read means: that it is damaged. So another file may be asked.
func readError(path string, err error) error {
	if damaged(err) {
		return err
	}
	return &DamageError{path, err.Error()}
}
