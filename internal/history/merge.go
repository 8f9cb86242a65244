package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// momentsApart is the longest time, in ms, between two moments of a merged file, unless nothing was committed in between.
const momentsApart = 30_000

const (
	mergeBytes  = 256 << 20 // of what is merged into one file
	mergeParts  = 64        // each is an open file meanwhile
	smallMerged = 4 << 20   // merged files below this are joined, when there are enough of them
	joinAtLeast = 8
	sealAtLeast = 64 << 10 // a last chapter below this is left open
)

// part is a file that could be merged.
type part struct {
	volume
	stretch
	size  int64
	file  int64 // bytes of the file, when it was read
	time  int64 // of its last transaction
	end   Head
	known []moment // its moments: for a chapter every transaction, in order, without the pages
	last  bool     // it is the chapter that records go to
}

// parts are the volumes of a shelf, in order; a damaged one is left out, so that what stands around it isn't joined. The caller holds tidying.
func (h *History) parts(s *shelf) (list []part, err error) {
	for i, first := range s.chapters {
		path := s.path(first, chapterSuffix)
		if h.avoid[path] {
			continue
		}
		p, err := readPart(path, first)
		if damaged(err) {
			h.log.Warn("a file of the history can't be merged", "error", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		if p != nil && !s.covered(p.stretch) {
			p.last = i == len(s.chapters)-1
			list = append(list, *p)
		}
	}
	for _, m := range s.merged {
		if h.avoid[s.mergedPath(m)] {
			continue
		}
		of, err := readMerged(s.mergedPath(m))
		if damaged(err) {
			h.log.Warn("a file of the history can't be merged", "error", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, part{volume: volume{path: of.path, first: m.first, merged: true}, stretch: m, size: of.size, time: of.head().Time, end: of.head(), known: of.moments})
	}
	slices.SortFunc(list, func(a, b part) int {
		if a.stretch.first < b.stretch.first {
			return -1
		}
		return 1
	})
	return list, nil
}

// readPart reads what a chapter says of itself; nil if that is nothing.
func readPart(path string, first uint64) (*part, error) {
	list, end, size, err := records(path)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := list[len(list)-1]
	p := &part{volume: volume{path: path, first: first}, stretch: stretch{first, r.last()}, size: end, file: size, time: r.time,
		end: Head{Position: r.last(), Time: r.time, Salt1: r.salt1, Salt2: r.salt2, Offset: r.offset + r.length}}
	next := first
	for _, r := range list {
		if r.first != next {
			return nil, &DamageError{path, fmt.Sprintf("has no record of position %d", next)}
		}
		times, err := r.readTimes(f)
		if err != nil {
			return nil, readError(path, err)
		}
		for i, t := range times {
			p.known = append(p.known, moment{position: r.first + uint64(i), time: t})
		}
		next = r.last() + 1
	}
	return p, nil
}

// close ends a last chapter, if nothing was written to it since it was read.
func (h *History) close(id string, p part) bool {
	return h.seal(id, p.stretch.first) && fileSize(p.path) == p.file && p.file == p.size
}

// choose says which moments stay of those that are known: none more than momentsApart behind the one before, the pins, and the last.
func choose(known []moment, pins map[uint64]bool) map[uint64]int64 {
	kept := map[uint64]int64{}
	var before int64
	for i, m := range known {
		if i > 0 && i < len(known)-1 && !pins[m.position] && known[i+1].time-before <= momentsApart {
			continue // the next one is near enough, too
		}
		kept[m.position] = m.time
		before = m.time
	}
	return kept
}

// merge makes one file of adjacent parts, and takes these away when it is durable. It returns the bytes that it freed.
func (h *History) merge(ctx context.Context, s *shelf, parts []part, pins map[uint64]bool) (freed int64, err error) {
	whole := stretch{parts[0].stretch.first, parts[len(parts)-1].stretch.last}
	var known []moment
	for _, p := range parts {
		known = append(known, p.known...)
	}
	path := s.mergedPath(whole)
	tmp := path + tmpSuffix
	if err := h.files.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return freed, err
	}
	f, err := h.files.Open(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return freed, err
	}
	err = writeMerged(ctx, f, whole, parts, choose(known, pins))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = h.files.Rename(tmp, path)
	}
	if err != nil {
		_ = h.files.Remove(tmp)
		return freed, err
	}
	// Its name must be durable before those that it stands for go.
	if err := h.files.SyncDir(s.dir); err != nil {
		return freed, err
	}
	freed -= fileSize(path)
	for _, p := range parts {
		freed += fileSize(p.path)
		if p.path == path {
			continue
		}
		if err := h.files.Remove(p.path); err != nil {
			return freed, err
		}
	}
	return freed, h.files.SyncDir(s.dir)
}

func writeMerged(ctx context.Context, f File, whole stretch, parts []part, kept map[uint64]int64) error {
	out, err := newMergedWriter(f, whole)
	if err != nil {
		return err
	}
	images := &imageReader{}
	defer images.close()
	g := &gatherer{out: out, kept: kept, newest: map[uint32]source{}, images: images}
	for i, p := range parts {
		images.files = append(images.files, p.volume)
		if err := g.part(ctx, int32(i), p); err != nil {
			return err
		}
	}
	if g.next != whole.last+1 {
		return &DamageError{parts[len(parts)-1].path, fmt.Sprintf("ends at position %d, not %d", g.next-1, whole.last)}
	}
	return out.finish(parts[len(parts)-1].end)
}

// gatherer writes moments from the files that they come from.
type gatherer struct {
	out    *mergedWriter
	kept   map[uint64]int64
	newest map[uint32]source // since the last moment that was written
	next   uint64
	images *imageReader
}

func (g *gatherer) part(ctx context.Context, file int32, p part) error {
	f, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer f.Close()
	visit := visitor{
		page: func(number uint32, offset int64, sum uint32) { g.newest[number] = source{file, sum, offset} },
		end: func(m moment) error {
			g.next = m.position + 1
			t, ok := g.kept[m.position]
			if !ok {
				return ctx.Err()
			}
			m.time = t
			if err := g.write(ctx, m); err != nil {
				return err
			}
			clear(g.newest)
			return g.out.end(m)
		},
	}
	if p.merged {
		return walkMerged(f, p.path, p.stretch.first-1, p.stretch.last, visit)
	}
	return walkChapter(f, p.path, p.stretch.first-1, p.stretch.last, visit)
}

// write writes the newest images of a moment, by number.
func (g *gatherer) write(ctx context.Context, m moment) error {
	numbers := make([]uint32, 0, len(g.newest))
	for number := range g.newest {
		if number <= m.pages {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	for _, number := range numbers {
		if err := ctx.Err(); err != nil {
			return err
		}
		image, err := g.images.read(g.newest[number])
		if err != nil {
			return err
		}
		if err := g.out.page(number, image); err != nil {
			return err
		}
	}
	return nil
}

// checkMerged verifies all of a merged file, the images' compression excepted: that stands below the checksum.
func checkMerged(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return walkMerged(f, path, 0, ^uint64(0), visitor{page: func(uint32, int64, uint32) {}, end: func(moment) error { return nil }})
}

func fileSize(path string) int64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return fi.Size()
}
