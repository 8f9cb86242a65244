package history

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/persqld/persqld/internal/sqlite"
)

// Restore writes the database as it was at a position to a new file, after everything that it read was verified. It is a *GapError where that moment can't
// be had: what is damaged or missing never becomes a database.
func (h *History) Restore(ctx context.Context, id string, at uint64, to string) error {
	// What a merge or a prune takes away meanwhile looks damaged; there is something else in its place.
	for again := 0; ; again++ {
		s, err := h.shelf(id)
		if err != nil {
			return err
		}
		err = h.restore(ctx, id, s, at, to)
		var gap *GapError
		if !errors.As(err, &gap) || again == 3 {
			return err
		}
		now, serr := h.shelf(id)
		if serr != nil || slices.Equal(now.files(), s.files()) {
			return err
		}
	}
}

func (h *History) restore(ctx context.Context, id string, s *shelf, at uint64, to string) error {
	gap := &GapError{At: at}
	if head, err := h.head(id, s); err == nil && at > head.Position {
		gap.before(moment{position: head.Position, time: head.Time})
		gap.Cause = errors.New("it has not come yet")
		return gap
	}
	// The newest base that leads there; an older one if that is damaged.
	for i := len(s.bases) - 1; i >= -1; i-- {
		if i >= 0 && s.bases[i] > at || i < 0 && !s.fromEmpty() {
			continue
		}
		reached, err := h.restoreFrom(ctx, s, i, at, to)
		if err == nil {
			return nil
		}
		if rerr := os.Remove(to); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			return errors.Join(err, rerr)
		}
		if !damaged(err) && err != ErrMerged {
			return err
		}
		if gap.Cause == nil {
			gap.Cause = err
		}
		if reached != nil {
			// Older bases lead to the same place.
			gap.before(*reached)
			break
		}
	}
	return h.gap(ctx, id, s, gap)
}

// restoreFrom restores by one base, -1 for the empty database. Where it fails, reached is the last moment that it verified.
func (h *History) restoreFrom(ctx context.Context, s *shelf, base int, at uint64, to string) (reached *moment, err error) {
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	var from moment
	if base < 0 {
		if _, err := out.Write(sqlite.EmptyFile()); err != nil {
			return nil, err
		}
		from.pages = uint32(len(sqlite.EmptyFile()) / sqlite.PageSize)
	} else {
		t, err := copyBase(ctx, s.path(s.bases[base], baseSuffix), s.bases[base], out)
		if err != nil {
			return nil, err
		}
		from = moment{t.at, t.time, uint32(t.length / sqlite.PageSize)}
	}
	w := newWalker(s, from)
	if err := w.to(ctx, at); err != nil {
		return &w.from, err
	}
	return nil, w.fill(ctx, out)
}

// fill writes the newest images and gives the file its length. What it reads is verified once more: the bytes that are written are those.
func (w *walker) fill(ctx context.Context, out *os.File) error {
	type wanted struct {
		source
		number uint32
	}
	list := make([]wanted, 0, len(w.newest))
	for number, from := range w.newest {
		if number <= w.from.pages {
			list = append(list, wanted{from, number})
		}
	}
	slices.SortFunc(list, func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.offset, b.offset))
	})
	images := &imageReader{files: w.files}
	defer images.close()
	pages := pageWriter{out: out}
	for i, p := range list {
		if i > 0 && p.file != list[i-1].file {
			images.done(list[i-1].file)
		}
		if i%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		image, err := images.read(p.source)
		if err != nil {
			return err
		}
		if err := pages.write(p.number, image); err != nil {
			return err
		}
	}
	if err := pages.flush(); err != nil {
		return err
	}
	return out.Truncate(int64(w.from.pages) * sqlite.PageSize)
}

// pageWriter writes images of pages to a database file, those of neighbours together.
type pageWriter struct {
	out   *os.File
	first uint32 // the number of the first page in run
	run   []byte
}

func (w *pageWriter) write(number uint32, image []byte) error {
	if len(w.run) == together*sqlite.PageSize || number != w.first+uint32(len(w.run)/sqlite.PageSize) {
		if err := w.flush(); err != nil {
			return err
		}
		w.first = number
	}
	w.run = append(w.run, image...)
	return nil
}

func (w *pageWriter) flush() error {
	if len(w.run) == 0 {
		return nil
	}
	_, err := w.out.WriteAt(w.run, int64(w.first-1)*sqlite.PageSize)
	w.run = w.run[:0]
	return err
}

// copyBase copies a base and compares its checksum.
func copyBase(ctx context.Context, path string, at uint64, out io.Writer) (trailer, error) {
	f, err := os.Open(path)
	if err != nil {
		return trailer{}, &DamageError{path, err.Error()}
	}
	defer f.Close()
	t, err := trailerOf(f, path)
	if err != nil {
		return trailer{}, err
	}
	n, sum, err := summed(ctx, out, reading{path, io.NewSectionReader(f, 0, t.length)})
	if err != nil {
		return trailer{}, err
	}
	if sum != t.sum || t.at != at || n%sqlite.PageSize != 0 {
		return trailer{}, &DamageError{path, "does not fit its checksum"}
	}
	return t, nil
}

// reading tells a file that can't be read from one that can't be written.
type reading struct {
	path string
	r    io.Reader
}

func (r reading) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if err != nil && err != io.EOF {
		err = &DamageError{r.path, err.Error()}
	}
	return n, err
}
