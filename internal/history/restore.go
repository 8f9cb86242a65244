package history

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sort"

	"github.com/persqld/persqld/internal/sqlite"
)

// Span is what can be restored.
type Span struct {
	First, Last uint64
	FirstTime   int64 // Unix ms; 0 where the first is the empty database
	LastTime    int64
}

// Span is what a database's history reaches over.
func (h *History) Span(id string) (Span, error) {
	s, err := h.shelf(id)
	if err != nil {
		return Span{}, err
	}
	head, err := h.Head(id)
	if err != nil {
		return Span{}, err
	}
	span := Span{Last: head.Position, LastTime: head.Time}
	if !s.fromEmpty() {
		if len(s.bases) == 0 {
			return Span{First: head.Position, Last: head.Position, FirstTime: head.Time, LastTime: head.Time}, nil
		}
		t, err := readTrailer(s.path(s.bases[0], baseSuffix))
		if err != nil {
			return Span{}, err
		}
		span.First, span.FirstTime = s.bases[0], t.time
	}
	return span, nil
}

// fromEmpty tells whether the history begins with the empty database.
func (s *shelf) fromEmpty() bool {
	return len(s.chapters) == 0 && len(s.bases) == 0 || len(s.chapters) > 0 && s.chapters[0] == 1 && (len(s.bases) == 0 || s.bases[0] > 0)
}

// At is the position of the last commit at or before a time, in Unix ms. It is a *GapError where the history begins later.
func (h *History) At(id string, ms int64) (uint64, error) {
	s, err := h.shelf(id)
	if err != nil {
		return 0, err
	}
	best, found := uint64(0), s.fromEmpty()
	for _, at := range s.bases {
		t, err := readTrailer(s.path(at, baseSuffix))
		if err != nil {
			continue
		}
		if t.time <= ms && (at >= best || !found) {
			best, found = at, true
		}
	}
	for i := len(s.chapters) - 1; i >= 0; i-- {
		path := s.path(s.chapters[i], chapterSuffix)
		list, _, _, err := records(path)
		if err != nil {
			return 0, err
		}
		position, ok, err := lastBefore(path, list, ms)
		if err != nil {
			return 0, err
		}
		if ok {
			if position >= best || !found {
				best, found = position, true
			}
			break
		}
	}
	if !found {
		return 0, h.gap(id, s, 0, fmt.Errorf("the history begins after that time"))
	}
	return best, nil
}

// lastBefore is the position of the last commit of a chapter at or before a time.
func lastBefore(path string, list []*record, ms int64) (position uint64, ok bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	for i := len(list) - 1; i >= 0; i-- {
		r := list[i]
		if i > 0 && list[i-1].time > ms {
			continue // all of this one is later still
		}
		if r.time <= ms {
			return r.last(), true, nil
		}
		times, err := r.readTimes(f)
		if err != nil {
			return 0, false, &DamageError{path, err.Error()}
		}
		n := sort.Search(len(times), func(k int) bool { return times[k] > ms })
		if n > 0 {
			return r.first + uint64(n) - 1, true, nil
		}
	}
	return 0, false, nil
}

// Restore writes the database as it was at a position to a new file, after everything that it read was verified. It is a *GapError where that moment can't
// be had: what is damaged or missing never becomes a database.
func (h *History) Restore(ctx context.Context, id string, at uint64, to string) error {
	s, err := h.shelf(id)
	if err != nil {
		return err
	}
	head, err := h.Head(id)
	if err != nil {
		return h.gap(id, s, at, err)
	}
	if at > head.Position {
		return h.gap(id, s, at, errors.New("it has not come yet"))
	}
	// The newest base that leads there; an older one if that is damaged.
	var cause error
	for i := len(s.bases) - 1; i >= -1; i-- {
		if i >= 0 && s.bases[i] > at || i < 0 && !s.fromEmpty() {
			continue
		}
		err := h.restoreFrom(ctx, s, i, at, to)
		if err == nil {
			return nil
		}
		if rerr := os.Remove(to); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			return errors.Join(err, rerr)
		}
		var damage *DamageError
		if !errors.As(err, &damage) {
			return err
		}
		h.log.Error("history is damaged", "database", id, "error", err)
		cause = err
	}
	return h.gap(id, s, at, cause)
}

// source is where the newest image of a page is.
type source struct {
	chapter int32
	offset  int64
}

func (h *History) restoreFrom(ctx context.Context, s *shelf, base int, at uint64, to string) (err error) {
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	next := uint64(1) // the position that is to come
	pages := uint32(0)
	if base < 0 {
		if _, err := out.Write(sqlite.EmptyFile()); err != nil {
			return err
		}
		pages = uint32(len(sqlite.EmptyFile()) / sqlite.PageSize)
	} else {
		n, err := copyBase(ctx, s.path(s.bases[base], baseSuffix), s.bases[base], out)
		if err != nil {
			return err
		}
		pages, next = uint32(n/sqlite.PageSize), s.bases[base]+1
	}
	newest := map[uint32]source{}
	for i, first := range s.chapters {
		if next > at {
			break
		}
		if i+1 < len(s.chapters) && s.chapters[i+1] <= next {
			continue
		}
		if next, pages, err = gather(ctx, s.path(first, chapterSuffix), int32(i), next, at, pages, newest); err != nil {
			return err
		}
	}
	if next <= at {
		return &DamageError{s.dir, fmt.Sprintf("has no record of position %d", next)}
	}
	return s.fill(ctx, out, newest, pages)
}

// copyBase copies a base and compares its checksum.
func copyBase(ctx context.Context, path string, at uint64, out io.Writer) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, &DamageError{path, err.Error()}
	}
	defer f.Close()
	t, err := trailerOf(f, path)
	if err != nil {
		return 0, err
	}
	n, sum, err := summed(ctx, out, io.NewSectionReader(f, 0, t.length))
	if err != nil {
		return 0, err
	}
	if sum != t.sum || t.at != at || n%sqlite.PageSize != 0 {
		return 0, &DamageError{path, "does not fit its checksum"}
	}
	return n, nil
}

// gather notes the newest page images of a chapter's records from position next up to at, whose frames it verifies.
func gather(ctx context.Context, path string, chapter int32, next, at uint64, pages uint32, newest map[uint32]source) (uint64, uint32, error) {
	list, end, size, err := records(path)
	if err != nil {
		return 0, 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	buf := make([]byte, frameHeader+sqlite.PageSize)
	for _, r := range list {
		if r.last() < next {
			continue
		}
		if next > at {
			break
		}
		if r.first > next {
			return 0, 0, &DamageError{path, fmt.Sprintf("has no record of position %d", next)}
		}
		if pages, err = r.gather(ctx, f, path, chapter, at, pages, newest, buf); err != nil {
			return 0, 0, err
		}
		next = min(r.last(), at) + 1
	}
	if next <= at && end < size {
		return 0, 0, &DamageError{path, fmt.Sprintf("is torn at %d of %d bytes", end, size)}
	}
	return next, pages, nil
}

func (r *record) gather(ctx context.Context, f io.ReaderAt, path string, chapter int32, at uint64, pages uint32, newest map[uint32]source, buf []byte) (uint32, error) {
	order := binary.ByteOrder(binary.LittleEndian)
	if r.bigEndian {
		order = binary.BigEndian
	}
	s1, s2 := r.sum1, r.sum2
	be := binary.BigEndian
	in := io.NewSectionReader(f, r.frames(), r.length)
	position := r.first
	own := map[uint32]source{} // of the transaction that is being read
	for off := r.frames(); off < r.times() && position <= at; off += int64(len(buf)) {
		if _, err := io.ReadFull(in, buf); err != nil {
			return 0, err
		}
		s1, s2 = sqlite.WALChecksum(order, s1, s2, buf[:8])
		s1, s2 = sqlite.WALChecksum(order, s1, s2, buf[frameHeader:])
		if be.Uint32(buf[8:]) != r.salt1 || be.Uint32(buf[12:]) != r.salt2 || be.Uint32(buf[16:]) != s1 || be.Uint32(buf[20:]) != s2 {
			return 0, &DamageError{path, fmt.Sprintf("does not fit its checksum at byte %d", off)}
		}
		own[be.Uint32(buf)] = source{chapter, off + frameHeader}
		if n := be.Uint32(buf[4:]); n != 0 {
			for page, from := range own {
				newest[page] = from
			}
			clear(own)
			pages = n
			position++
			if err := ctx.Err(); err != nil {
				return 0, err
			}
		}
	}
	if position != min(r.last(), at)+1 {
		return 0, &DamageError{path, fmt.Sprintf("has %d transactions at byte %d, not %d", position-r.first, r.at, r.commits)}
	}
	return pages, nil
}

// verify reads all of a record.
func (r *record) verify(f io.ReaderAt, path string) error {
	_, err := r.gather(context.Background(), f, path, 0, r.last(), 0, map[uint32]source{}, make([]byte, frameHeader+sqlite.PageSize))
	if err == nil {
		_, err = r.readTimes(f)
	}
	return err
}

// fill writes the newest page images and gives the file its length.
func (s *shelf) fill(ctx context.Context, out *os.File, newest map[uint32]source, pages uint32) error {
	numbers := make([]uint32, 0, len(newest))
	for page := range newest {
		if page <= pages {
			numbers = append(numbers, page)
		}
	}
	sort.Slice(numbers, func(i, j int) bool { return numbers[i] < numbers[j] })
	open := map[int32]*os.File{}
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	buf := make([]byte, sqlite.PageSize)
	for i, page := range numbers {
		from := newest[page]
		f := open[from.chapter]
		if f == nil {
			var err error
			if f, err = os.Open(s.path(s.chapters[from.chapter], chapterSuffix)); err != nil {
				return err
			}
			open[from.chapter] = f
		}
		if _, err := f.ReadAt(buf, from.offset); err != nil {
			return err
		}
		if _, err := out.WriteAt(buf, int64(page-1)*sqlite.PageSize); err != nil {
			return err
		}
		if i%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return out.Truncate(int64(pages) * sqlite.PageSize)
}

// gap is the error of a moment that can't be restored: it names those that its bases alone can.
func (h *History) gap(id string, s *shelf, at uint64, cause error) error {
	g := &GapError{At: at, Cause: cause}
	consider := func(position uint64) {
		switch {
		case position <= at && (!g.HasBefore || position > g.Before):
			g.Before, g.HasBefore = position, true
		case position > at && (!g.HasAfter || position < g.After):
			g.After, g.HasAfter = position, true
		}
	}
	for _, b := range s.bases {
		path := s.path(b, baseSuffix)
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		t, err := trailerOf(f, path)
		if err == nil {
			crc := crc32.New(crcTable)
			if _, err = io.Copy(crc, io.NewSectionReader(f, 0, t.length)); err == nil && crc.Sum32() == t.sum {
				consider(b)
			}
		}
		f.Close()
	}
	if s.fromEmpty() {
		consider(0)
	}
	return g
}
