package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"time"
)

// Changes are the newest images of the pages that a stretch of transactions changed: with them, whatever the database was within it becomes what it was at
// its end.
type Changes struct {
	After, Last uint64 // the positions before the first and of the last transaction
	FirstTime   int64  // of those, Unix ms
	Time        int64
	Pages       uint32 // of the database, at the end
	Numbers     []uint32

	w *walker
}

// ErrReplaced is returned by Changes where the next transaction is another file that took the database's place: an import or a restore. The base that has
// its position is the whole of it.
var ErrReplaced = errors.New("another file took the database's place")

// Changes looks for what changed behind a position, up to another one: less where a file took the database's place in between and, if within isn't 0, where
// more time would lie between the first and the last commit. What can't be read because it is damaged or was dropped is a *DamageError.
func (h *History) Changes(ctx context.Context, id string, after, upTo uint64, within time.Duration) (c *Changes, err error) {
	err = h.steady(id, func(s *shelf) error {
		c, err = h.changes(ctx, s, after, upTo, within)
		return err
	})
	return c, err
}

func (h *History) changes(ctx context.Context, s *shelf, after, upTo uint64, within time.Duration) (*Changes, error) {
	c := &Changes{After: after}
	var err error
	if within > 0 {
		if upTo, err = s.within(after+1, upTo, within); err != nil {
			return nil, err
		}
	}
	c.w = newWalker(s, moment{position: after})
	err = c.w.to(ctx, upTo)
	c.Last, c.Pages = c.w.from.position, c.w.from.pages
	if err != nil && !slices.Contains(s.bases, c.Last+1) {
		if errors.Is(err, ErrMerged) {
			err = &DamageError{s.dir, fmt.Sprintf("has no moment at position %d any more", upTo)}
		}
		return nil, err
	}
	if c.Last == after {
		return nil, ErrReplaced
	}
	if c.FirstTime, err = s.commitTime(after + 1); err != nil {
		return nil, err
	}
	if c.Time, err = s.commitTime(c.Last); err != nil {
		return nil, err
	}
	for number := range c.w.newest {
		if number <= c.Pages {
			c.Numbers = append(c.Numbers, number)
		}
	}
	slices.Sort(c.Numbers)
	return c, nil
}

// Each calls fn with each page's image, by number. The image is valid until fn returns.
func (c *Changes) Each(ctx context.Context, fn func(number uint32, image []byte) error) error {
	images := &imageReader{files: c.w.files}
	defer images.close()
	for i, number := range c.Numbers {
		if i%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		image, err := images.read(c.w.newest[number])
		if err != nil {
			return err
		}
		if err := fn(number, image); err != nil {
			return err
		}
	}
	return nil
}

// chapterOf is the path of the chapter that would have a position.
func (s *shelf) chapterOf(position uint64) (string, bool) {
	for i := len(s.chapters) - 1; i >= 0; i-- {
		if s.chapters[i] <= position {
			return s.path(s.chapters[i], chapterSuffix), true
		}
	}
	return "", false
}

// commitTime is when a position was committed, as exactly as the history knows it.
func (s *shelf) commitTime(position uint64) (int64, error) {
	if path, ok := s.chapterOf(position); ok {
		list, _, _, err := recordsAfter(path, position-1)
		if err != nil {
			return 0, readError(path, err)
		}
		if len(list) > 0 && list[0].first <= position && position <= list[0].last() {
			if list[0].last() == position {
				return list[0].time, nil
			}
			f, err := os.Open(path)
			if err != nil {
				return 0, readError(path, err)
			}
			defer f.Close()
			times, err := list[0].readTimes(f)
			if err != nil {
				return 0, readError(path, err)
			}
			return times[position-list[0].first], nil
		}
	}
	for _, m := range s.merged {
		if !m.holds(position) {
			continue
		}
		of, err := readMerged(s.mergedPath(m))
		if err != nil {
			return 0, err
		}
		i := sort.Search(len(of.moments), func(k int) bool { return of.moments[k].position >= position })
		return of.moments[i].time, nil
	}
	return 0, &DamageError{s.dir, fmt.Sprintf("has no record of position %d", position)}
}

// within is the last position up to another one whose commit came at most so long after that of the first. It looks no farther than the first's file.
func (s *shelf) within(first, upTo uint64, span time.Duration) (uint64, error) {
	from, err := s.commitTime(first)
	if err != nil {
		return upTo, nil // whatever stands there says so when it is read
	}
	limit := from + span.Milliseconds()
	if path, ok := s.chapterOf(first); ok {
		list, _, _, err := recordsAfter(path, first-1)
		if err != nil {
			return 0, readError(path, err)
		}
		if len(list) > 0 && list[0].first <= first {
			last, _, err := lastBefore(path, list, limit)
			return min(max(last, first), upTo), err
		}
	}
	for _, m := range s.merged {
		if !m.holds(first) {
			continue
		}
		of, err := readMerged(s.mergedPath(m))
		if err != nil {
			return 0, err
		}
		last := uint64(0)
		for _, k := range of.moments {
			if k.position >= first && (last == 0 || k.time <= limit) {
				last = k.position
			}
		}
		return min(last, upTo), nil
	}
	return upTo, nil
}

// TimeOf is when a position was committed, in Unix ms, as exactly as the history knows it.
func (h *History) TimeOf(id string, position uint64) (ms int64, err error) {
	err = h.steady(id, func(s *shelf) error {
		if ms, err = s.commitTime(position); !damaged(err) {
			return err
		}
		if slices.Contains(s.bases, position) {
			t, berr := readTrailer(s.path(position, baseSuffix))
			if berr == nil {
				ms, err = t.time, nil
			}
		}
		return err
	})
	return ms, err
}
