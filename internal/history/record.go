package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// A chapter is a file of records, each a piece of a write-ahead log with the times of its commits:
//
//	header   96 bytes, see record.header
//	frames   as they stand in the log: 24 bytes and a page each
//	times    8 bytes a commit: Unix ms
//	trailer  16 bytes: CRC32C of the times (4), recordEnd (4), length of the whole record (8)
//
// Numbers are little-endian. A record is synced before the log that it is from is written anew: one that a crash tore is of a log that is still there.
const (
	recordMagic  = 0x31484c51 // "QLH1": its version is part of it
	recordEnd    = 0x45484c51
	headerSize   = 96
	trailerSize  = 16
	frameHeader  = 24
	logHeader    = 32
	chapterBytes = 64 << 20 // from where on another chapter begins
	chapterLeast = 1 << 20  // below which none begins because of its age
	chapterAge   = 6 * time.Hour
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// record is a record's header.
type record struct {
	first        uint64 // position of its first transaction
	commits      uint32
	salt1, salt2 uint32
	sum1, sum2   uint32 // the log's running checksum before its first frame
	bigEndian    bool   // how that is computed
	offset       int64  // of its first frame in the log
	length       int64  // bytes of its frames
	time         int64  // of its last commit

	at int64 // where it begins in the chapter
}

func (r *record) last() uint64 { return r.first + uint64(r.commits) - 1 }

// size is the length of the whole record.
func (r *record) size() int64 { return headerSize + r.length + 8*int64(r.commits) + trailerSize }

func (r *record) frames() int64 { return r.at + headerSize }
func (r *record) times() int64  { return r.at + headerSize + r.length }

func (r *record) header() []byte {
	b := make([]byte, headerSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], recordMagic)
	le.PutUint32(b[4:], sqlite.PageSize)
	le.PutUint64(b[8:], r.first)
	le.PutUint32(b[16:], r.commits)
	if r.bigEndian {
		b[20] = 1
	}
	le.PutUint32(b[24:], r.salt1)
	le.PutUint32(b[28:], r.salt2)
	le.PutUint32(b[32:], r.sum1)
	le.PutUint32(b[36:], r.sum2)
	le.PutUint64(b[40:], uint64(r.offset))
	le.PutUint64(b[48:], uint64(r.length))
	le.PutUint64(b[56:], uint64(r.time))
	le.PutUint32(b[headerSize-4:], crc32.Checksum(b[:headerSize-4], crcTable))
	return b
}

var (
	errTorn  = errors.New("torn record")
	errTimes = errors.New("holds times that are damaged")
)

// readRecord reads the header at an offset of a chapter of that size. errTorn is for what no whole record is.
func readRecord(f io.ReaderAt, at, size int64) (*record, error) {
	var b [headerSize]byte
	if at+headerSize+trailerSize > size {
		return nil, errTorn
	}
	if _, err := f.ReadAt(b[:], at); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if crc32.Checksum(b[:headerSize-4], crcTable) != le.Uint32(b[headerSize-4:]) {
		return nil, errTorn
	}
	if le.Uint32(b[0:]) != recordMagic {
		if string(b[:3]) == "QLH" {
			// Nothing may be cut off that a newer server wrote: its headers are as long and have their checksum in the same place.
			return nil, fmt.Errorf("has a record of the version %q, which this one doesn't know", b[3])
		}
		return nil, errTorn
	}
	if le.Uint32(b[4:]) != sqlite.PageSize {
		return nil, fmt.Errorf("a record of pages of %d bytes", le.Uint32(b[4:]))
	}
	r := &record{first: le.Uint64(b[8:]), commits: le.Uint32(b[16:]), bigEndian: b[20] == 1, salt1: le.Uint32(b[24:]), salt2: le.Uint32(b[28:]),
		sum1: le.Uint32(b[32:]), sum2: le.Uint32(b[36:]), offset: int64(le.Uint64(b[40:])), length: int64(le.Uint64(b[48:])), time: int64(le.Uint64(b[56:])), at: at}
	if r.length <= 0 || r.length%(frameHeader+sqlite.PageSize) != 0 || r.commits == 0 || at+r.size() > size {
		return nil, errTorn
	}
	var end [trailerSize]byte
	if _, err := f.ReadAt(end[:], at+r.size()-trailerSize); err != nil {
		return nil, err
	}
	if le.Uint32(end[4:]) != recordEnd || int64(le.Uint64(end[8:])) != r.size() {
		return nil, errTorn
	}
	return r, nil
}

// records are those of a chapter, in order, up to where it is torn: end is that.
func records(path string) (list []*record, end, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, 0, 0, err
	}
	size = fi.Size()
	for end < size {
		r, err := readRecord(f, end, size)
		if err == errTorn {
			return list, end, size, nil
		}
		if err != nil {
			return nil, 0, 0, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, r)
		end += r.size()
	}
	return list, end, size, nil
}

// recordsAfter are those of a chapter that have positions behind one, in order. Each record's end says where it begins, so that those before needn't be read;
// where that leads nowhere, all are read from the beginning. end and size are as of records.
func recordsAfter(path string, after uint64) (list []*record, end, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, 0, 0, err
	}
	size = fi.Size()
	for at := size; at > 0; {
		r, err := recordBefore(f, at)
		if err != nil {
			list = nil
			break
		}
		if r.last() <= after {
			slices.Reverse(list)
			return list, size, size, nil
		}
		list, at = append(list, r), r.at
		if at == 0 {
			slices.Reverse(list)
			return list, size, size, nil
		}
	}
	all, end, size, err := records(path)
	if err != nil {
		return nil, 0, 0, err
	}
	return all[sort.Search(len(all), func(i int) bool { return all[i].last() > after }):], end, size, nil
}

// recordBefore reads the record that ends at an offset of a chapter.
func recordBefore(f io.ReaderAt, at int64) (*record, error) {
	var end [trailerSize]byte
	if at < headerSize+trailerSize {
		return nil, errTorn
	}
	if _, err := f.ReadAt(end[:], at-trailerSize); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint64(end[8:]))
	if binary.LittleEndian.Uint32(end[4:]) != recordEnd || n <= 0 || n > at {
		return nil, errTorn
	}
	r, err := readRecord(f, at-n, at)
	if err == nil && r.size() != n {
		err = errTorn
	}
	return r, err
}

// lastRecord is the last whole record of a chapter, nil if it has none.
func lastRecord(path string) (*record, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// The end says where the last one begins, unless a crash tore it.
	if r, err := recordBefore(f, fi.Size()); err == nil {
		return r, nil
	}
	list, _, _, err := records(path)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[len(list)-1], nil
}

// readTimes are the times of a record's commits.
func (r *record) readTimes(f io.ReaderAt) ([]int64, error) {
	b := make([]byte, 8*int(r.commits)+4)
	if _, err := f.ReadAt(b, r.times()); err != nil {
		return nil, err
	}
	n := len(b) - 4
	if crc32.Checksum(b[:n], crcTable) != binary.LittleEndian.Uint32(b[n:]) {
		return nil, errTimes
	}
	times := make([]int64, r.commits)
	for i := range times {
		times[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return times, nil
}

// Pending is how many transactions a log has beyond the head, and where they end: what an opening after a crash finds.
func (h *History) Pending(log io.ReaderAt, head Head) (commits int, end int64, err error) {
	w, err := sqlite.NewWALReader(log)
	if errors.Is(err, sqlite.ErrNoLog) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	same := w.Header().Salt1 == head.Salt1 && w.Header().Salt2 == head.Salt2
	for {
		_, err := w.Next()
		if err == io.EOF {
			return commits, w.Offset(), nil
		}
		if err != nil {
			return 0, 0, err
		}
		if !same || w.Offset() > head.Offset {
			commits++
		}
	}
}

// Append makes a record of what a log has beyond the head, up to end, where a transaction ends; times are those of its commits in Unix ms, in order. Where
// a crash took the last of them, the last one that is known stands; more times than commits are refused. With durable all of the history is, when it returns.
// Without, the log must stay as it is until Sync, or an Append with it.
func (h *History) Append(id string, head Head, log *os.File, end int64, times []int64, durable bool) (_ Head, err error) {
	if len(times) == 0 && end <= head.Offset {
		if durable {
			err = h.Sync(id)
		}
		return head, err
	}
	r := &record{first: head.Position + 1, offset: logHeader}
	var lh [logHeader]byte
	if _, err := log.ReadAt(lh[:], 0); err != nil {
		return head, fmt.Errorf("read log header: %w", err)
	}
	be := binary.BigEndian
	r.salt1, r.salt2 = be.Uint32(lh[16:]), be.Uint32(lh[20:])
	r.sum1, r.sum2 = be.Uint32(lh[24:]), be.Uint32(lh[28:])
	r.bigEndian = be.Uint32(lh[0:])&1 == 1
	const frame = frameHeader + sqlite.PageSize
	var fh [frameHeader]byte
	if head.Offset > logHeader && head.Salt1 == r.salt1 && head.Salt2 == r.salt2 {
		// The frame before holds the checksum that this part goes on from.
		r.offset = head.Offset
		if _, err := log.ReadAt(fh[:], head.Offset-frame); err != nil {
			return head, fmt.Errorf("read log: %w", err)
		}
		r.sum1, r.sum2 = be.Uint32(fh[16:]), be.Uint32(fh[20:])
	}
	r.length = end - r.offset
	if r.length <= 0 || r.length%frame != 0 {
		return head, fmt.Errorf("the log ends at %d, and the history had it to %d", end, r.offset)
	}
	if _, err := log.ReadAt(fh[:], end-frame); err != nil {
		return head, fmt.Errorf("read log: %w", err)
	}
	if be.Uint32(fh[4:]) == 0 || be.Uint32(fh[8:]) != r.salt1 || be.Uint32(fh[12:]) != r.salt2 {
		return head, errors.New("the log's end is not that of a transaction")
	}
	if r.commits, err = countCommits(log, r, end); err != nil {
		return head, fmt.Errorf("read log: %w", err)
	}
	if times, err = fillTimes(times, int(r.commits), head.Time); err != nil {
		return head, err
	}
	r.time = times[len(times)-1]
	h.beginWrite(id)
	defer h.endWrite(id)
	if err := h.write(id, r, log, times, durable); err != nil {
		return head, fmt.Errorf("keep history: %w", err)
	}
	h.mu.Lock()
	h.sound[id] = true
	h.mu.Unlock()
	h.grew(id)
	h.told(id, r.last())
	return Head{Position: r.last(), Time: r.time, Salt1: r.salt1, Salt2: r.salt2, Offset: end, Known: true}, nil
}

// countCommits reads the headers of a record's frames: a record that says less than its frames would restore an earlier state than it names. It compares
// the salts on the way. The checksums are left to those who have time.
func countCommits(log io.ReaderAt, r *record, end int64) (commits uint32, err error) {
	const frame = frameHeader + sqlite.PageSize
	be := binary.BigEndian
	var fh [frameHeader]byte
	for at := r.offset; at < end; at += frame {
		if _, err := log.ReadAt(fh[:], at); err != nil {
			return 0, err
		}
		if be.Uint32(fh[8:]) != r.salt1 || be.Uint32(fh[12:]) != r.salt2 {
			return 0, fmt.Errorf("the frame at byte %d is of another run of the log", at)
		}
		if be.Uint32(fh[4:]) != 0 {
			commits++
		}
	}
	return commits, nil
}

// fillTimes makes as many times as there are commits.
func fillTimes(times []int64, commits int, last int64) ([]int64, error) {
	if len(times) > commits {
		return nil, fmt.Errorf("%d times for %d transactions", len(times), commits)
	}
	if len(times) == commits {
		return times, nil
	}
	if len(times) > 0 {
		last = times[len(times)-1]
	}
	filled := append(make([]int64, 0, commits), times...)
	for len(filled) < commits {
		filled = append(filled, last)
	}
	return filled, nil
}

func (h *History) write(id string, r *record, log *os.File, times []int64, durable bool) (err error) {
	s, err := h.shelf(id)
	if err != nil {
		return err
	}
	if err := h.makeDir(s.dir); err != nil {
		return err
	}
	path, at, made, err := h.chapter(id, s, r)
	if err != nil {
		return err
	}
	if made { // only the last one may have what isn't synced
		if err := h.syncLast(id); err != nil {
			return err
		}
	}
	h.setSynced(id, false)
	f, err := h.files.Open(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// What stands there of it is nothing; the next one begins where it did.
			_ = f.Truncate(at)
		}
		err = errors.Join(err, f.Close())
	}()
	if _, err := f.Write(r.header()); err != nil {
		return err
	}
	buf := make([]byte, min(r.length, 1<<20))
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{io.NewSectionReader(log, r.offset, r.length)}, buf); err != nil {
		return err
	}
	tail := make([]byte, 0, 8*len(times)+trailerSize)
	for _, t := range times {
		tail = binary.LittleEndian.AppendUint64(tail, uint64(t))
	}
	tail = binary.LittleEndian.AppendUint32(tail, crc32.Checksum(tail, crcTable))
	tail = binary.LittleEndian.AppendUint32(tail, recordEnd)
	tail = binary.LittleEndian.AppendUint64(tail, uint64(r.size()))
	if _, err := f.Write(tail); err != nil {
		return err
	}
	if !durable && !made {
		return nil
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if made {
		if err := h.files.SyncDir(s.dir); err != nil {
			return err
		}
	}
	h.setSynced(id, true)
	return nil
}

// Sync makes durable what was appended without that, also by a process before.
func (h *History) Sync(id string) error {
	h.beginWrite(id)
	defer h.endWrite(id)
	if err := h.syncLast(id); err != nil {
		return fmt.Errorf("keep history: %w", err)
	}
	return nil
}

// syncLast syncs the last chapter, unless this process did. One that was merged meanwhile has its content elsewhere, synced.
func (h *History) syncLast(id string) error {
	h.mu.Lock()
	synced := h.synced[id]
	h.mu.Unlock()
	if synced {
		return nil
	}
	s, err := h.shelf(id)
	if err != nil {
		return err
	}
	if n := len(s.chapters); n > 0 {
		f, err := h.files.Open(s.path(s.chapters[n-1], chapterSuffix), os.O_WRONLY, 0)
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	h.setSynced(id, true)
	return nil
}

func (h *History) setSynced(id string, is bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.synced[id] = is
}

// chapter is the file that a record goes to, whose length is at.
func (h *History) chapter(id string, s *shelf, r *record) (path string, at int64, made bool, err error) {
	fresh := s.path(r.first, chapterSuffix)
	n := len(s.chapters)
	if n == 0 {
		return fresh, 0, true, nil
	}
	current := s.chapters[n-1]
	// Behind what was merged, or is being merged, too; such a one may be gone by now.
	if h.isSealed(id, current) || len(s.merged) > 0 && s.merged[len(s.merged)-1].last >= current {
		return fresh, 0, true, nil
	}
	path = s.path(current, chapterSuffix)
	fi, err := os.Stat(path)
	if err != nil {
		return "", 0, false, err
	}
	last, err := lastRecord(path)
	if err != nil {
		return "", 0, false, err
	}
	end := int64(0)
	if last != nil {
		end = last.at + last.size()
	}
	// Behind a base another chapter begins, so that what is before it can go.
	based := len(s.bases) > 0 && s.bases[len(s.bases)-1] >= current
	if end < fi.Size() { // a crash tore it
		f, err := h.files.Open(path, os.O_WRONLY, 0)
		if err != nil {
			return "", 0, false, err
		}
		if err := errors.Join(f.Truncate(end), f.Close()); err != nil {
			return "", 0, false, err
		}
	}
	if path == fresh {
		return path, end, end == 0, nil
	}
	if last == nil || last.last()+1 != r.first || end >= chapterBytes || based {
		return fresh, 0, true, nil
	}
	old, err := isOld(path, end, r.time)
	if err != nil || old {
		return fresh, 0, true, err
	}
	return path, end, false, nil
}

// isOld tells whether a chapter began so long ago that another one does: what is merged is merged by chapters.
func isOld(path string, size, now int64) (bool, error) {
	if size < chapterLeast {
		return false, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	first, err := readRecord(f, 0, size)
	if err == errTorn {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return now-first.time > chapterAge.Milliseconds(), nil
}
