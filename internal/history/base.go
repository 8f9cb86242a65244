package history

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
)

// A base is a whole database file as it was at a position, with a trailer of 40 bytes: baseMagic (4), CRC32C of the file (4), its length (8), the
// position (8), the time in Unix ms (8), zero (4), CRC32C of the trailer before this (4). One that is to take the database's place is pending until it has: after a crash in between, Settle compares it
// with the file that is there.
const (
	baseMagic   = 0x32424c51 // "QLB2"; the first version had no checksum of the trailer
	baseTrailer = 40
)

type trailer struct {
	sum    uint32
	length int64
	at     uint64
	time   int64
}

func (t trailer) bytes() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, baseMagic)
	b = le.AppendUint32(b, t.sum)
	b = le.AppendUint64(b, uint64(t.length))
	b = le.AppendUint64(b, t.at)
	b = le.AppendUint64(b, uint64(t.time))
	b = le.AppendUint32(b, 0)
	return le.AppendUint32(b, crc32.Checksum(b, crcTable))
}

func readTrailer(path string) (trailer, error) {
	f, err := os.Open(path)
	if err != nil {
		return trailer{}, err
	}
	defer f.Close()
	return trailerOf(f, path)
}

func trailerOf(f *os.File, path string) (trailer, error) {
	fi, err := f.Stat()
	if err != nil {
		return trailer{}, err
	}
	var b [baseTrailer]byte
	if fi.Size() < baseTrailer {
		return trailer{}, &DamageError{path, "is no base"}
	}
	if _, err := f.ReadAt(b[:], fi.Size()-baseTrailer); err != nil {
		return trailer{}, err
	}
	le := binary.LittleEndian
	t := trailer{sum: le.Uint32(b[4:]), length: int64(le.Uint64(b[8:])), at: le.Uint64(b[16:]), time: int64(le.Uint64(b[24:]))}
	if v := b[3]; string(b[:3]) == "QLB" && v > '2' && v <= '9' {
		return trailer{}, &DamageError{path, fmt.Sprintf("is a base of the version %q, which this one doesn't know", v)}
	}
	if le.Uint32(b[0:]) != baseMagic || crc32.Checksum(b[:baseTrailer-4], crcTable) != le.Uint32(b[baseTrailer-4:]) || t.length != fi.Size()-baseTrailer {
		return trailer{}, &DamageError{path, "is no base, or not all of one"}
	}
	return t, nil
}

// summed copies all of r to w and returns how much that was, and its CRC32C.
func summed(ctx context.Context, w io.Writer, r io.Reader) (n int64, sum uint32, err error) {
	crc := crc32.New(crcTable)
	buf := make([]byte, 1<<20)
	for {
		got, err := io.ReadFull(r, buf)
		if got > 0 {
			crc.Write(buf[:got])
			if _, err := w.Write(buf[:got]); err != nil {
				return n, 0, err
			}
			n += int64(got)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return n, crc.Sum32(), nil
		}
		if err != nil {
			return n, 0, err
		}
		if err := ctx.Err(); err != nil {
			return n, 0, err
		}
	}
}

// AddBase keeps a copy of a whole database file as the state at a position. Nobody writes to the file meanwhile, and the log was cut or removed before: what
// it has afterwards is behind the base. A pending one counts when Confirm was
// called; there is one at a time.
func (h *History) AddBase(ctx context.Context, id string, at uint64, ms int64, from *os.File, pending bool) (err error) {
	s, err := h.shelf(id)
	if err != nil {
		return err
	}
	if err := h.makeDir(s.dir); err != nil {
		return err
	}
	for _, old := range s.pending {
		if err := h.files.Remove(s.path(old, pendingSuffix)); err != nil {
			return err
		}
	}
	path := s.path(at, pendingSuffix)
	f, err := h.files.Open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = h.files.Remove(path)
		}
	}()
	fi, err := from.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	n, sum, err := summed(ctx, f, io.NewSectionReader(from, 0, fi.Size()))
	if err == nil {
		_, err = f.Write(trailer{sum, n, at, ms}.bytes())
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep base: %w", err)
	}
	if pending {
		if err := h.files.SyncDir(s.dir); err != nil {
			return fmt.Errorf("keep base: %w", err)
		}
		return nil
	}
	return h.Confirm(id, at)
}

// Confirm makes a pending base count.
func (h *History) Confirm(id string, at uint64) error {
	s, err := h.shelf(id)
	if err != nil {
		return err
	}
	if err := h.files.Rename(s.path(at, pendingSuffix), s.path(at, baseSuffix)); err != nil {
		return fmt.Errorf("keep base: %w", err)
	}
	if err := h.files.SyncDir(s.dir); err != nil {
		return fmt.Errorf("keep base: %w", err)
	}
	h.grew(id)
	h.told(id, at)
	return nil
}

// Settle decides about a base that a crash left pending: it counts if it is what the database's file is now. live is nil for a database that has a log:
// that goes before another file takes the database's place.
func (h *History) Settle(id string, live *os.File) error {
	s, err := h.shelf(id)
	if err != nil || len(s.pending) == 0 {
		return err
	}
	if live == nil {
		for _, at := range s.pending {
			if err := h.files.Remove(s.path(at, pendingSuffix)); err != nil {
				return err
			}
		}
		return nil
	}
	fi, err := live.Stat()
	if err != nil {
		return err
	}
	_, sum, err := summed(context.Background(), io.Discard, io.NewSectionReader(live, 0, fi.Size()))
	if err != nil {
		return err
	}
	for _, at := range s.pending {
		// It was synced before the swap: one that a power loss tore was never swapped in, even if the file is what it was to become.
		t, err := checkBase(context.Background(), s.path(at, pendingSuffix), at)
		if err != nil && !damaged(err) {
			return err
		}
		if err == nil && t.sum == sum && t.length == fi.Size() {
			if err := h.Confirm(id, at); err != nil {
				return err
			}
			continue
		}
		if err := h.files.Remove(s.path(at, pendingSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// baseAfter is how many bytes of records, at the least, are worth another base; and how many times the database's size.
const (
	baseAfter      = 16 << 20
	baseAfterTimes = 2
)

// NeedsBase tells whether a restore of the last moment would have to read much more than the database is long.
func (h *History) NeedsBase(id string, size int64) (bool, error) {
	s, err := h.shelf(id)
	if err != nil {
		return false, err
	}
	since := uint64(0)
	if n := len(s.bases); n > 0 {
		since = s.bases[n-1]
	}
	var bytes int64
	for _, first := range s.chapters {
		if first > since { // behind a base another one begins
			bytes += fileSize(s.path(first, chapterSuffix))
		}
	}
	for _, m := range s.merged {
		if fi, err := os.Stat(s.mergedPath(m)); err == nil && m.last > since {
			bytes += fi.Size()
		}
	}
	return bytes > max(baseAfter, baseAfterTimes*size), nil
}

// Usage is how many bytes the history of a database has.
func (h *History) Usage(id string) (bytes int64, err error) {
	s, err := h.shelf(id)
	if err != nil {
		return 0, err
	}
	for _, path := range s.files() {
		if fi, err := os.Stat(path); err == nil {
			bytes += fi.Size()
		}
	}
	return bytes, nil
}

// UsageAll is how many bytes the history of all databases has.
func (h *History) UsageAll() (bytes int64, err error) {
	ids, err := h.all()
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		n, err := h.Usage(id)
		if err != nil {
			return 0, err
		}
		bytes += n
	}
	return bytes, nil
}
