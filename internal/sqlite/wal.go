package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The layout of a write-ahead log: https://sqlite.org/fileformat2.html#walformat.
const (
	walHeaderSize      = 32
	walFrameHeaderSize = 24
	walMagicLE         = 0x377f0682
	walMagicBE         = 0x377f0683
)

// ErrNoLog means that the log is empty or was never begun.
var ErrNoLog = errors.New("the write-ahead log is empty")

// WALHeader is how a log begins. Every time SQLite writes the log from its beginning again the salts change, so a
// pair of salts names one run of the log.
type WALHeader struct {
	PageSize   int
	Sequence   uint32
	Salt1      uint32
	Salt2      uint32
	order      binary.ByteOrder
	sum1, sum2 uint32
}

// Frame is one page in the log.
type Frame struct {
	Page   uint32
	Commit uint32 // pages in the database after this frame's transaction, if it is the last of one; else 0
	Data   []byte
}

// WALReader reads the committed frames of a log in order: those that a recovery would replay. It checks salts and
// checksums, so that frames of an earlier run of the log, and those that a crash tore, end it.
type WALReader struct {
	r      io.ReaderAt
	head   WALHeader
	off    int64
	s1, s2 uint32
	ahead  []Frame // of the transaction being read; the next call uses its memory again
}

// NewWALReader reads the header of a log. ErrNoLog if there is none.
func NewWALReader(r io.ReaderAt) (*WALReader, error) {
	var b [walHeaderSize]byte
	if n, err := r.ReadAt(b[:], 0); n < len(b) {
		if err == io.EOF {
			return nil, ErrNoLog
		}
		return nil, fmt.Errorf("read log header: %w", err)
	}
	var h WALHeader
	switch binary.BigEndian.Uint32(b[0:]) {
	case walMagicLE:
		h.order = binary.LittleEndian
	case walMagicBE:
		h.order = binary.BigEndian
	default:
		return nil, ErrNoLog
	}
	h.PageSize = int(binary.BigEndian.Uint32(b[8:]))
	h.Sequence = binary.BigEndian.Uint32(b[12:])
	h.Salt1 = binary.BigEndian.Uint32(b[16:])
	h.Salt2 = binary.BigEndian.Uint32(b[20:])
	h.sum1, h.sum2 = WALChecksum(h.order, 0, 0, b[:24])
	if h.sum1 != binary.BigEndian.Uint32(b[24:]) || h.sum2 != binary.BigEndian.Uint32(b[28:]) {
		return nil, ErrNoLog
	}
	if h.PageSize < 512 || h.PageSize > 65536 || h.PageSize&(h.PageSize-1) != 0 {
		return nil, fmt.Errorf("read log header: page size %d", h.PageSize)
	}
	return &WALReader{r: r, head: h, off: walHeaderSize, s1: h.sum1, s2: h.sum2}, nil
}

// Header is the log's header.
func (w *WALReader) Header() WALHeader { return w.head }

// Offset is the position in the file behind the last frame of the last transaction given out.
func (w *WALReader) Offset() int64 { return w.off }

// Next returns the frames of the next committed transaction, in the order in which they were written, valid until
// the next call; io.EOF when there is none (yet): a later call looks again.
func (w *WALReader) Next() ([]Frame, error) {
	size := walFrameHeaderSize + w.head.PageSize
	off, s1, s2 := w.off, w.s1, w.s2
	w.ahead = w.ahead[:0]
	for {
		b := make([]byte, size)
		if n, err := w.r.ReadAt(b, off); n < size {
			if err == io.EOF || err == nil {
				return nil, io.EOF
			}
			return nil, fmt.Errorf("read log frame: %w", err)
		}
		if binary.BigEndian.Uint32(b[8:]) != w.head.Salt1 || binary.BigEndian.Uint32(b[12:]) != w.head.Salt2 {
			return nil, io.EOF
		}
		s1, s2 = WALChecksum(w.head.order, s1, s2, b[:8])
		s1, s2 = WALChecksum(w.head.order, s1, s2, b[walFrameHeaderSize:])
		if s1 != binary.BigEndian.Uint32(b[16:]) || s2 != binary.BigEndian.Uint32(b[20:]) {
			return nil, io.EOF
		}
		if binary.BigEndian.Uint32(b[0:]) == 0 {
			return nil, io.EOF // no page has that number: SQLite stops here too
		}
		f := Frame{Page: binary.BigEndian.Uint32(b[0:]), Commit: binary.BigEndian.Uint32(b[4:]), Data: b[walFrameHeaderSize:]}
		w.ahead = append(w.ahead, f)
		off += int64(size)
		if f.Commit != 0 {
			w.off, w.s1, w.s2 = off, s1, s2
			return w.ahead, nil
		}
	}
}

// WALChecksum continues the log's running checksum over b, whose length is a multiple of 8.
func WALChecksum(order binary.ByteOrder, s1, s2 uint32, b []byte) (uint32, uint32) {
	// A loop for each order: by the interface it takes ten times as long.
	if order == binary.ByteOrder(binary.LittleEndian) {
		for ; len(b) >= 8; b = b[8:] {
			s1 += binary.LittleEndian.Uint32(b) + s2
			s2 += binary.LittleEndian.Uint32(b[4:]) + s1
		}
		return s1, s2
	}
	for ; len(b) >= 8; b = b[8:] {
		s1 += binary.BigEndian.Uint32(b) + s2
		s2 += binary.BigEndian.Uint32(b[4:]) + s1
	}
	return s1, s2
}
