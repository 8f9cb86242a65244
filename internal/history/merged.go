package history

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/persqld/persqld/internal/sqlite"
)

// A merged file has the moments that are kept of a stretch of positions: for each the last images of the pages that changed since the moment before.
//
//	header   32 bytes: mergedMagic (4), page size (4), first position (8), last position (8), zero (4), CRC32C of those (4)
//	blocks   each: pages (4), bytes of the images, compressed (4), CRC32C of all of the block but itself (4), the pages' numbers (4 each, rising), the images
//	         in that order (zstd)
//	moments  32 bytes each: position (8), Unix ms (8), pages of the database (4), zero (4), where its blocks end (8)
//	trailer  48 bytes: salts (4, 4) and offset (8) of the log where the last transaction ended, where the moments begin (8), number of moments (4),
//	         zero (4), length of the file (8), CRC32C of the moments and the trailer before this (4), mergedEnd (4)
//
// Numbers are little-endian; the version is part of the magic. The last moment is the last position: a merged file can be the end of a history.
const (
	mergedMagic   = 0x314d4c51 // "QLM1"
	mergedEnd     = 0x454d4c51
	mergedHeader  = 32
	mergedTrailer = 48
	momentSize    = 32
	blockHeader   = 12
	blockPages    = 16      // in one block, at most
	maxMoments    = 1 << 22 // in one file: what a reader is ready to hold
)

// merged is what a merged file says of itself.
type merged struct {
	stretch
	path         string
	salt1, salt2 uint32
	offset       int64
	size         int64
	moments      []moment
	ends         []int64 // where the blocks of each moment end
}

func (m *merged) head() Head {
	return Head{Position: m.last, Time: m.moments[len(m.moments)-1].time, Salt1: m.salt1, Salt2: m.salt2, Offset: m.offset, Known: true}
}

// readMerged reads all but the blocks.
func readMerged(path string) (*merged, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	m, err := decodeMerged(f, fi.Size())
	if err != nil {
		return nil, readError(path, err)
	}
	m.path = path
	if want := m.stretch.String() + mergedSuffix; want != fi.Name() {
		return nil, &DamageError{path, "is " + want}
	}
	return m, nil
}

var errNotMerged = errors.New("is no merged file, or not all of one")

func decodeMerged(f io.ReaderAt, size int64) (*merged, error) {
	if size < mergedHeader+momentSize+mergedTrailer {
		return nil, errNotMerged
	}
	var head [mergedHeader]byte
	var tail [mergedTrailer]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return nil, err
	}
	if _, err := f.ReadAt(tail[:], size-mergedTrailer); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if magic := le.Uint32(head[0:]); magic != mergedMagic {
		if bytes.HasPrefix(head[:], []byte("QLM")) {
			return nil, fmt.Errorf("is a merged file of the version %q, which this one doesn't know", head[3])
		}
		return nil, errNotMerged
	}
	if crc32.Checksum(head[:mergedHeader-4], crcTable) != le.Uint32(head[mergedHeader-4:]) {
		return nil, errors.New("has a damaged header")
	}
	if n := le.Uint32(head[4:]); n != sqlite.PageSize {
		return nil, fmt.Errorf("has pages of %d bytes", n)
	}
	m := &merged{stretch: stretch{le.Uint64(head[8:]), le.Uint64(head[16:])}, salt1: le.Uint32(tail[0:]), salt2: le.Uint32(tail[4:]),
		offset: int64(le.Uint64(tail[8:])), size: size}
	at, n := int64(le.Uint64(tail[16:])), int64(le.Uint32(tail[24:]))
	if le.Uint32(tail[44:]) != mergedEnd || int64(le.Uint64(tail[32:])) != size || n == 0 || n > maxMoments || at < mergedHeader || at+n*momentSize != size-mergedTrailer {
		return nil, errNotMerged
	}
	list := make([]byte, n*momentSize)
	if _, err := f.ReadAt(list, at); err != nil {
		return nil, err
	}
	if crc32.Update(crc32.Checksum(list, crcTable), crcTable, tail[:40]) != le.Uint32(tail[40:]) {
		return nil, errors.New("has damaged moments")
	}
	before, end := m.first-1, int64(mergedHeader)
	for b := range slices.Chunk(list, momentSize) {
		k := moment{le.Uint64(b[0:]), int64(le.Uint64(b[8:])), le.Uint32(b[16:])}
		to := int64(le.Uint64(b[24:]))
		if k.position <= before || k.position > m.last || to < end || to > at {
			return nil, errors.New("has moments out of order")
		}
		m.moments, m.ends = append(m.moments, k), append(m.ends, to)
		before, end = k.position, to
	}
	if m.first == 0 || before != m.last || end != at {
		return nil, errors.New("doesn't end with its last moment")
	}
	return m, nil
}

// walkMerged verifies the blocks of the moments after a position, up to another one.
func walkMerged(f *os.File, path string, after, upTo uint64, visit visitor) error {
	m, err := readMerged(path)
	if err != nil {
		return readError(path, err)
	}
	start := int64(mergedHeader)
	var b block
	for i, k := range m.moments {
		from := start
		start = m.ends[i]
		if k.position <= after {
			continue
		}
		if k.position > upTo {
			if i == 0 || m.moments[i-1].position < upTo {
				return ErrMerged
			}
			return nil
		}
		for from < m.ends[i] {
			if err := b.read(f, from, m.ends[i]); err != nil {
				return readError(path, err)
			}
			for n, number := range b.numbers {
				visit.page(number, from*blockPages+int64(n), 0)
			}
			from += b.size()
		}
		if err := visit.end(k); err != nil {
			return err
		}
	}
	return nil
}

// block is a block that was read, its images still compressed.
type block struct {
	numbers []uint32
	raw     []byte
	packed  []byte // the images' part of raw
}

func (b *block) size() int64 { return int64(len(b.raw)) }

// read reads and verifies the block at an offset, which ends at limit at the latest.
func (b *block) read(f io.ReaderAt, at, limit int64) error {
	le := binary.LittleEndian
	var head [blockHeader]byte
	if at+blockHeader > limit {
		return fmt.Errorf("has half a block at byte %d", at)
	}
	if _, err := f.ReadAt(head[:], at); err != nil {
		return err
	}
	n, packed := int64(le.Uint32(head[0:])), int64(le.Uint32(head[4:]))
	// What doesn't become smaller is a little longer than it was.
	if n == 0 || n > blockPages || packed > 2*blockPages*sqlite.PageSize || at+blockHeader+4*n+packed > limit {
		return fmt.Errorf("has a damaged block at byte %d", at)
	}
	b.raw = slices.Grow(b.raw[:0], int(blockHeader+4*n+packed))[:blockHeader+4*n+packed]
	if _, err := f.ReadAt(b.raw, at); err != nil {
		return err
	}
	if crc32.Update(crc32.Checksum(b.raw[:8], crcTable), crcTable, b.raw[blockHeader:]) != le.Uint32(b.raw[8:]) {
		return fmt.Errorf("has a damaged block at byte %d", at)
	}
	b.numbers = b.numbers[:0]
	for i := range n {
		b.numbers = append(b.numbers, le.Uint32(b.raw[blockHeader+4*i:]))
	}
	b.packed = b.raw[blockHeader+4*n:]
	return nil
}

// mergedWriter writes a merged file.
type mergedWriter struct {
	w       *bufio.Writer
	zip     *zstd.Encoder
	at      int64
	numbers []uint32
	images  []byte
	out     []byte
	moments []byte
	n       uint32
}

func newMergedWriter(w io.Writer, s stretch) (*mergedWriter, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(false), zstd.WithWindowSize(blockPages*sqlite.PageSize))
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b := le.AppendUint32(nil, mergedMagic)
	b = le.AppendUint32(b, sqlite.PageSize)
	b = le.AppendUint64(b, s.first)
	b = le.AppendUint64(b, s.last)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, crc32.Checksum(b, crcTable))
	m := &mergedWriter{zip: zip, w: bufio.NewWriterSize(w, 256<<10)}
	return m, m.write(b)
}

func (m *mergedWriter) write(b []byte) error {
	m.at += int64(len(b))
	_, err := m.w.Write(b)
	return err
}

// page adds an image to the moment that is being written; the numbers rise.
func (m *mergedWriter) page(number uint32, image []byte) error {
	m.numbers = append(m.numbers, number)
	m.images = append(m.images, image...)
	if len(m.numbers) == blockPages {
		return m.flush()
	}
	return nil
}

func (m *mergedWriter) flush() error {
	if len(m.numbers) == 0 {
		return nil
	}
	le := binary.LittleEndian
	b := le.AppendUint32(m.out[:0], uint32(len(m.numbers)))
	b = append(b, make([]byte, 8)...)
	for _, n := range m.numbers {
		b = le.AppendUint32(b, n)
	}
	head := len(b)
	b = m.zip.EncodeAll(m.images, b)
	le.PutUint32(b[4:], uint32(len(b)-head))
	le.PutUint32(b[8:], crc32.Update(crc32.Checksum(b[:8], crcTable), crcTable, b[blockHeader:]))
	m.numbers, m.images, m.out = m.numbers[:0], m.images[:0], b
	return m.write(b)
}

// end ends a moment.
func (m *mergedWriter) end(k moment) error {
	if err := m.flush(); err != nil {
		return err
	}
	le := binary.LittleEndian
	m.moments = le.AppendUint64(m.moments, k.position)
	m.moments = le.AppendUint64(m.moments, uint64(k.time))
	m.moments = le.AppendUint32(m.moments, k.pages)
	m.moments = le.AppendUint32(m.moments, 0)
	m.moments = le.AppendUint64(m.moments, uint64(m.at))
	m.n++
	return nil
}

// finish writes what stands behind the blocks; head says where the last moment is in its log.
func (m *mergedWriter) finish(head Head) error {
	le := binary.LittleEndian
	t := le.AppendUint32(nil, head.Salt1)
	t = le.AppendUint32(t, head.Salt2)
	t = le.AppendUint64(t, uint64(head.Offset))
	t = le.AppendUint64(t, uint64(m.at))
	t = le.AppendUint32(t, m.n)
	t = le.AppendUint32(t, 0)
	t = le.AppendUint64(t, uint64(m.at)+uint64(len(m.moments))+mergedTrailer)
	t = le.AppendUint32(t, crc32.Update(crc32.Checksum(m.moments, crcTable), crcTable, t))
	t = le.AppendUint32(t, mergedEnd)
	if err := m.write(append(m.moments, t...)); err != nil {
		return err
	}
	return m.w.Flush()
}
