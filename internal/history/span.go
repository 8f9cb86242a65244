package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
)

// Span is what can be restored.
type Span struct {
	First, Last uint64
	FirstTime   int64 // Unix ms; 0 where the first is the empty database
	LastTime    int64
	Exact       uint64 // from here on every transaction; before, the moments that merging left
	ExactTime   int64
}

// Span is what a database's history reaches over, by what its files say of themselves.
func (h *History) Span(id string) (Span, error) {
	var span Span
	err := h.steady(id, func(s *shelf) error {
		head, err := h.head(id, s)
		if err != nil {
			return err
		}
		span = Span{First: head.Position, FirstTime: head.Time, Last: head.Position, LastTime: head.Time}
		if s.fromEmpty() {
			span.First, span.FirstTime = 0, 0
		} else {
			for _, at := range s.bases {
				t, err := readTrailer(s.path(at, baseSuffix))
				if err == nil {
					span.First, span.FirstTime = at, t.time
					break
				} else if !damaged(err) {
					return err
				}
			}
		}
		span.Exact, span.ExactTime = span.First, span.FirstTime
		for i := len(s.merged) - 1; i >= 0; i-- {
			if len(s.chapters) > 0 && s.chapters[0] <= s.merged[i].first {
				continue // a crash left what it was made of
			}
			m, err := readMerged(s.mergedPath(s.merged[i]))
			if err == nil && m.last >= span.Exact {
				span.Exact, span.ExactTime = m.last, m.moments[len(m.moments)-1].time
			}
			if err != nil && !damaged(err) {
				return err
			}
			break
		}
		return nil
	})
	return span, err
}

// steady reads a shelf again where a merge or a prune took files away meanwhile.
func (h *History) steady(id string, read func(*shelf) error) error {
	for again := 0; ; again++ {
		s, err := h.shelf(id)
		if err != nil {
			return err
		}
		if err = read(s); !errors.Is(err, fs.ErrNotExist) || again == 3 {
			return err
		}
	}
}

// At is the position of the last commit at or before a time, in Unix ms: of those that merging left. It is a *GapError where the history begins later.
func (h *History) At(id string, ms int64) (at uint64, err error) {
	err = h.steady(id, func(s *shelf) error {
		at, err = h.at(id, s, ms)
		return err
	})
	return at, err
}

func (h *History) at(id string, s *shelf, ms int64) (uint64, error) {
	best, found := uint64(0), s.fromEmpty()
	consider := func(position uint64) {
		if !found || position > best {
			best, found = position, true
		}
	}
	for _, at := range s.bases {
		t, err := readTrailer(s.path(at, baseSuffix))
		if err != nil && !damaged(err) {
			return 0, err
		}
		if err == nil && t.time <= ms {
			consider(at)
		}
	}
	var lost error // of files that may have had a later one
	var lostTo uint64
	for i := len(s.merged) - 1; i >= 0; i-- {
		m, err := readMerged(s.mergedPath(s.merged[i]))
		if damaged(err) {
			lost, lostTo = err, max(lostTo, s.merged[i].last)
			continue
		}
		if err != nil {
			return 0, err
		}
		if n := sort.Search(len(m.moments), func(k int) bool { return m.moments[k].time > ms }); n > 0 {
			consider(m.moments[n-1].position)
			break
		}
	}
	for i := len(s.chapters) - 1; i >= 0; i-- {
		path := s.path(s.chapters[i], chapterSuffix)
		list, end, size, err := records(path)
		if err != nil {
			return 0, err
		}
		if end < size && i+1 < len(s.chapters) {
			lost, lostTo = &DamageError{path, fmt.Sprintf("is torn at %d of %d bytes", end, size)}, max(lostTo, s.chapters[i+1]-1)
		}
		position, ok, err := lastBefore(path, list, ms)
		if damaged(err) {
			lost, lostTo = err, max(lostTo, list[len(list)-1].last())
			continue
		}
		if err != nil {
			return 0, err
		}
		if ok {
			consider(position)
			break
		}
	}
	if !found {
		return 0, h.gap(context.Background(), id, s, &GapError{Cause: errors.New("the history begins after that time")})
	}
	if lost != nil && best < lostTo {
		// What was committed at that time can't be told. An earlier moment would pass for it.
		return 0, h.gap(context.Background(), id, s, &GapError{At: lostTo, Cause: lost})
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
			return 0, false, readError(path, err)
		}
		n := sort.Search(len(times), func(k int) bool { return times[k] > ms })
		if n > 0 {
			return r.first + uint64(n) - 1, true, nil
		}
	}
	return 0, false, nil
}

// gap completes the error of a moment that can't be restored: the nearest ones that can. Before is one that was verified, if the restore came to one;
// After is one whose base was.
func (h *History) gap(ctx context.Context, id string, s *shelf, g *GapError) error {
	h.log.Warn("a moment is not in the history", "database", id, "position", g.At, "cause", g.Cause)
	if s.fromEmpty() {
		g.before(moment{})
	}
	if g.HasBefore && g.Before > 0 && g.BeforeTime == 0 {
		g.BeforeTime = s.timeOf(g.Before)
	}
	for _, at := range s.bases {
		if at < g.At {
			continue // one at g.At itself is damaged, or its time is what is missing
		}
		t, err := checkBase(ctx, s.path(at, baseSuffix), at)
		if err == nil {
			g.after(moment{position: t.at, time: t.time})
			break
		} else if !damaged(err) {
			return errors.Join(g, err)
		}
	}
	if m, ok := s.nextMoment(g); ok {
		g.after(m)
	}
	if g.Cause == nil {
		g.Cause = errors.New("the history begins later")
	}
	return g
}

// nextMoment is the moment of a merged file that follows a position between two of its moments.
func (s *shelf) nextMoment(g *GapError) (moment, bool) {
	if !errors.Is(g.Cause, ErrMerged) {
		return moment{}, false
	}
	for _, m := range s.merged {
		if !m.holds(g.At) {
			continue
		}
		of, err := readMerged(s.mergedPath(m))
		if err != nil {
			return moment{}, false
		}
		i := slices.IndexFunc(of.moments, func(k moment) bool { return k.position > g.At })
		return of.moments[max(i, 0)], i >= 0
	}
	return moment{}, false
}

// timeOf is when a position was committed, 0 if that can't be read.
func (s *shelf) timeOf(position uint64) int64 {
	t, err := s.commitTime(position)
	if err != nil {
		return 0
	}
	return t
}

// checkBase verifies all of a base.
func checkBase(ctx context.Context, path string, at uint64) (trailer, error) {
	return copyBase(ctx, path, at, io.Discard)
}
