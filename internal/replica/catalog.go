package replica

import (
	"context"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"

	"github.com/persqld/persqld/internal/sqlite"
)

// catalogTrack is what is known of the catalog's files in the replica. The catalog has no history of its own: it is copied, and what changed is found by the
// checksums of its pages. One goroutine has it, and after that has ended the flush.
type catalogTrack struct {
	known  bool
	last   ltx.TXID
	moment ltx.TXID  // the last one that level 1 has
	since  time.Time // when the first one behind that was shipped
	seed   maphash.Seed
	pages  []uint64 // checksums of the pages as they were last shipped
	lower  []uint64 // and as they were in the last file of level 1
	seen   [][2]int64
	took   time.Duration // the last copy
	at     time.Time     // when that was

	version uint64 // of the catalog, as it was then

	snapAt   time.Time
	snapLen  int64
	grown    int64
	tidied   time.Time
	failures int
}

// copyShare is how much of the time the copying of a large catalog may take, as a divisor: a copy that takes 100 ms is made every 2 s.
const copyShare = 20

// runCatalog ships the catalog when it has changed, until ctx ends.
func (s *Shipper) runCatalog(ctx context.Context) {
	tick := time.NewTicker(s.opt.Interval)
	defer tick.Stop()
	b := &s.books
	var retry time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := s.opt.Now()
		if now.Before(retry) || now.Sub(b.at) < copyShare*b.took {
			continue
		}
		err := s.shipCatalog(ctx)
		switch {
		case err == nil:
			b.failures = 0
		case ctx.Err() == nil:
			b.failures++
			b.known = false
			retry = now.Add(backoff(b.failures, err))
			s.opt.Observer.ShipFailed()
			s.log.Warn("ship the catalog to the replica; it is tried again", "failures", b.failures, "again", retry.UTC().Format(time.RFC3339), "error", err)
		}
	}
}

// countsEvery is how old the usage in the replica may get while nothing else of the catalog changes: it is written every second, and each time the whole catalog
// is copied to find what changed.
const countsEvery = 10 * time.Second

// settleTime is how old the last change of a file must be for its time to tell it from the next one: clocks of file systems tick that slowly.
const settleTime = 20 * time.Millisecond

// catalogChanged tells whether the catalog's files are others than at the last copy.
func (s *Shipper) catalogChanged() (seen [][2]int64, changed bool) {
	b := &s.books
	for _, path := range s.opt.CatalogFiles {
		var is [2]int64
		if fi, err := os.Stat(path); err == nil {
			is = [2]int64{fi.ModTime().UnixNano(), fi.Size()}
			if time.Since(fi.ModTime()) < settleTime {
				is[1] = -1 // it is looked at again
			}
		}
		seen = append(seen, is)
	}
	for i := range seen {
		changed = changed || i >= len(b.seen) || seen[i] != b.seen[i]
	}
	return seen, changed
}

// shipCatalog brings the replica up to date with the catalog.
func (s *Shipper) shipCatalog(ctx context.Context) error {
	b := &s.books
	now := s.opt.Now()
	if !b.known {
		if err := s.lookCatalog(ctx); err != nil {
			return err
		}
	}
	seen, changed := s.catalogChanged()
	var version uint64
	if s.opt.CatalogVersion != nil {
		version = s.opt.CatalogVersion()
		if changed && len(b.seen) > 0 && version == b.version && now.Sub(b.at) < countsEvery {
			changed = false // counts alone
		}
	}
	due := !b.since.IsZero() && now.Sub(b.since) >= momentEvery
	if !changed && !due {
		return nil
	}
	dir, err := os.MkdirTemp(s.opt.Temp, "replica-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "catalog.db")
	began := time.Now()
	if err := s.opt.CopyCatalog(ctx, path); err != nil {
		return err
	}
	b.took, b.at = time.Since(began), now
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sums, err := b.sums(f)
	if err != nil {
		return err
	}
	if err := s.shipCopy(ctx, f, path, sums, now); err != nil {
		return err
	}
	b.seen, b.version = seen, version
	if now.Sub(b.tidied) >= tidyEvery {
		if err := s.tidy(ctx, catalogName, now); err != nil {
			return err
		}
		b.tidied = now
	}
	return nil
}

// lookCatalog lists what the replica has of the catalog. What its pages were isn't known: it begins with a whole copy.
func (s *Shipper) lookCatalog(ctx context.Context) error {
	b := &s.books
	*b = catalogTrack{seed: maphash.MakeSeed(), took: b.took, at: b.at, failures: b.failures, tidied: s.opt.Now()}
	files, err := listAll(ctx, s.opt.Bucket, catalogName)
	if err != nil {
		return err
	}
	b.last = files.end()
	b.known = true
	return nil
}

// shipCopy ships what a copy of the catalog has that the replica doesn't.
func (s *Shipper) shipCopy(ctx context.Context, f *os.File, path string, sums []uint64, now time.Time) error {
	b := &s.books
	ms := now.UnixMilli()
	if b.pages == nil || b.grown >= max(snapshotBytes, b.snapLen) && now.Sub(b.snapAt) >= snapshotLeast {
		n, err := s.putSnapshot(ctx, catalogName, path, b.last+1, ms)
		if err != nil {
			return err
		}
		b.last++
		b.pages, b.lower, b.moment, b.since = sums, sums, b.last, time.Time{}
		b.snapAt, b.snapLen, b.grown = now, n, 0
		return nil
	}
	if changed := differing(b.pages, sums); len(changed) > 0 || len(sums) != len(b.pages) {
		n, err := s.putPages(ctx, levelSync, b.last+1, b.last+1, ms, f, changed, uint32(len(sums)))
		if err != nil {
			return err
		}
		b.last++
		b.pages = sums
		b.grown += n
		if b.since.IsZero() {
			b.since = now
		}
	}
	if !b.since.IsZero() && now.Sub(b.since) >= momentEvery {
		if _, err := s.putPages(ctx, levelMoment, b.moment+1, b.last, ms, f, differing(b.lower, sums), uint32(len(sums))); err != nil {
			return err
		}
		b.moment, b.lower, b.since = b.last, sums, time.Time{}
	}
	return nil
}

// putPages puts some pages of the catalog into the replica. There is always one: a file of none is none.
func (s *Shipper) putPages(ctx context.Context, level int, first, last ltx.TXID, ms int64, f io.ReaderAt, numbers []uint32, pages uint32) (int64, error) {
	if len(numbers) == 0 {
		numbers = []uint32{1}
	}
	return s.put(ctx, catalogName, level, first, last, ms, len(numbers) <= inMemory, func(w io.Writer) error {
		return encodeChanges(w, s.opt.Temp, first, last, ms, pages, func(page func(uint32, []byte) error) error {
			image := make([]byte, sqlite.PageSize)
			for _, number := range numbers {
				if _, err := f.ReadAt(image, int64(number-1)*sqlite.PageSize); err != nil {
					return err
				}
				if err := page(number, image); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// sums are checksums of a file's pages.
func (b *catalogTrack) sums(f *os.File) ([]uint64, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sums := make([]uint64, fi.Size()/sqlite.PageSize)
	in := io.NewSectionReader(f, 0, fi.Size())
	image := make([]byte, sqlite.PageSize)
	for i := range sums {
		if _, err := io.ReadFull(in, image); err != nil {
			return nil, err
		}
		sums[i] = maphash.Bytes(b.seed, image)
	}
	return sums, nil
}

// differing are the numbers of the pages that are others than they were.
func differing(was, is []uint64) (numbers []uint32) {
	for i, sum := range is {
		if i >= len(was) || was[i] != sum {
			numbers = append(numbers, uint32(i+1))
		}
	}
	return numbers
}
