package history

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
)

// Policy says what of a database's history stays.
type Policy struct {
	KeepSince  int64    // Unix ms: every moment since then can be restored
	ExactSince int64    // Unix ms: since then every transaction; before, moments at most 30 s apart. 0 merges nothing
	Pins       []uint64 // positions that stay, whatever they are older than: so do those from the oldest of them on
}

// Prune drops what no moment that the policy wants needs, merges what is older than the exact window, and finishes what a crash left half done. It returns
// the bytes that it freed. What is damaged is left as it is. Records may be appended meanwhile.
func (h *History) Prune(ctx context.Context, id string, p Policy) (freed int64, err error) {
	h.tidying.Lock()
	defer h.tidying.Unlock()
	return h.prune(ctx, id, p)
}

func (h *History) prune(ctx context.Context, id string, p Policy) (freed int64, err error) {
	for _, step := range []func() (int64, error){
		func() (int64, error) { return h.clean(id) },
		func() (int64, error) { return h.dropBefore(id, p) },
		func() (int64, error) { return h.mergeOld(ctx, id, p) },
		func() (int64, error) { return h.joinSmall(ctx, id, p) },
	} {
		n, err := step()
		freed += n
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}

// clean takes away what a crash left: half written files, and those that were merged.
func (h *History) clean(id string) (freed int64, err error) {
	s, err := h.shelf(id)
	if err != nil {
		return 0, err
	}
	var gone []string
	for _, name := range s.rest {
		if filepath.Ext(name) == tmpSuffix {
			gone = append(gone, filepath.Join(s.dir, name))
		}
	}
	for _, m := range s.merged {
		if slices.ContainsFunc(s.merged, func(o stretch) bool {
			return o != m && o.first <= m.first && m.last <= o.last && checkMerged(s.mergedPath(o)) == nil
		}) {
			gone = append(gone, s.mergedPath(m))
		}
	}
	for i, first := range s.chapters {
		p, err := readPart(s.path(first, chapterSuffix), first)
		if err != nil && !damaged(err) {
			return 0, err
		}
		if p == nil || !s.covered(p.stretch) || !s.isSound(p.stretch) {
			continue
		}
		if i+1 < len(s.chapters) || h.close(id, *p) {
			gone = append(gone, p.path)
		}
	}
	return h.removeAll(s, gone)
}

// isSound tells whether the merged files of a stretch are whole, before what they were made of goes.
func (s *shelf) isSound(p stretch) bool {
	for _, m := range s.merged {
		if m.last >= p.first && m.first <= p.last && checkMerged(s.mergedPath(m)) != nil {
			return false
		}
	}
	return true
}

// due tells whether Prune would find something to do, by the names of a database's files and the ends of some.
func (h *History) due(id string, p Policy) (bool, error) {
	s, err := h.shelf(id)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(s.rest, func(name string) bool { return filepath.Ext(name) == tmpSuffix }) {
		return true, nil
	}
	small := 0
	for i, m := range s.merged {
		if i > 0 && m.first <= s.merged[i-1].last || slices.ContainsFunc(s.chapters, m.holds) {
			return true, nil // a crash left what it was made of
		}
		if fileSize(s.mergedPath(m)) < smallMerged {
			small++
		}
	}
	if small >= joinAtLeast {
		return true, nil
	}
	for i, at := range s.bases {
		if i == 0 {
			continue
		}
		if t, err := readTrailer(s.path(at, baseSuffix)); err == nil {
			if t.time <= p.KeepSince {
				return true, nil
			}
			break
		}
	}
	for i, first := range s.chapters {
		path := s.path(first, chapterSuffix)
		if i+1 == len(s.chapters) && fileSize(path) < sealAtLeast {
			break
		}
		last, err := lastRecord(path)
		if err == nil && last != nil {
			return last.time < p.ExactSince, nil // the others are younger
		}
	}
	return false, nil
}

func (h *History) removeAll(s *shelf, paths []string) (freed int64, err error) {
	for _, path := range paths {
		n := fileSize(path)
		if err := h.files.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return freed, err
		}
		freed += n
	}
	if len(paths) == 0 {
		return 0, nil
	}
	return freed, h.files.SyncDir(s.dir)
}

// dropBefore drops bases but the last one before the time from which moments are kept, and the files of transactions before that.
func (h *History) dropBefore(id string, p Policy) (freed int64, err error) {
	s, err := h.shelf(id)
	if err != nil {
		return 0, err
	}
	keep := -1
	for i, at := range s.bases {
		t, err := readTrailer(s.path(at, baseSuffix))
		if damaged(err) {
			continue // a damaged one is no beginning
		}
		if err != nil {
			return 0, err
		}
		if t.time <= p.KeepSince && !slices.ContainsFunc(p.Pins, func(pin uint64) bool { return pin < at }) {
			keep = i
		}
	}
	if keep < 0 {
		return 0, nil
	}
	return h.dropTo(s, keep)
}

// dropTo makes a base the beginning of the history.
func (h *History) dropTo(s *shelf, base int) (freed int64, err error) {
	at := s.bases[base]
	// The base that everything rests on from now on must be whole.
	if _, err := checkBase(context.Background(), s.path(at, baseSuffix), at); err != nil {
		if damaged(err) {
			h.log.Warn("a base of the history is damaged; nothing before it is dropped", "error", err)
			return 0, nil
		}
		return 0, err
	}
	var gone []string
	// The records first: a base without those before it is whole, they without theirs are not.
	for i, first := range s.chapters {
		if i+1 >= len(s.chapters) || s.chapters[i+1] > at+1 {
			break
		}
		gone = append(gone, s.path(first, chapterSuffix))
	}
	for _, m := range s.merged {
		// Behind a base the log begins anew, so that nobody needs to know how far of it the history has.
		if m.last <= at {
			gone = append(gone, s.mergedPath(m))
		}
	}
	for _, at := range s.bases[:base] {
		gone = append(gone, s.path(at, baseSuffix))
	}
	return h.removeAll(s, gone)
}

// mergeOld merges the chapters whose last transaction is older than the exact window.
func (h *History) mergeOld(ctx context.Context, id string, p Policy) (freed int64, err error) {
	return h.mergeRuns(ctx, id, p, 1, func(c part) bool {
		if c.merged || c.time >= p.ExactSince {
			return false
		}
		return !c.last || c.size >= sealAtLeast && h.close(id, c)
	})
}

// joinSmall joins small merged files, so that there are few.
func (h *History) joinSmall(ctx context.Context, id string, p Policy) (freed int64, err error) {
	return h.mergeRuns(ctx, id, p, joinAtLeast, func(c part) bool { return c.merged && c.size < smallMerged })
}

// mergeRuns merges adjacent parts that are wanted, where there are so many of them.
func (h *History) mergeRuns(ctx context.Context, id string, p Policy, least int, wanted func(part) bool) (freed int64, err error) {
	s, err := h.shelf(id)
	if err != nil {
		return 0, err
	}
	list, err := h.parts(s)
	if err != nil {
		return 0, err
	}
	pins := map[uint64]bool{}
	for _, at := range slices.Concat(p.Pins, s.bases) {
		pins[at] = true
	}
	var run []part
	var size int64
	end := func() error {
		now := run
		run, size = nil, 0
		if len(now) < least {
			return nil
		}
		n, err := h.merge(ctx, s, now, pins)
		freed += n
		var damage *DamageError
		if errors.As(err, &damage) {
			h.log.Warn("a file of the history can't be merged", "database", id, "error", err)
			h.avoid[damage.Path] = true
			return nil
		}
		return err
	}
	for _, c := range list {
		want := wanted(c)
		if len(run) > 0 && (!want || run[len(run)-1].stretch.last+1 != c.stretch.first || size+c.size > mergeBytes || len(run) == mergeParts) {
			if err := end(); err != nil {
				return freed, err
			}
		}
		if want {
			run, size = append(run, c), size+c.size
		}
	}
	return freed, end()
}

// PruneTo makes the history of these databases, or of all if there are none named, no longer than bound bytes. It gives up exactness first, merging the oldest
// chapters before their time, and then the oldest moments, as far as there is a later base to begin with: pins too. left is what is more than that then. lost,
// if it isn't nil, is told of each step that took something.
func (h *History) PruneTo(ctx context.Context, bound int64, ids []string, policy func(id string) (Policy, error), lost func(Loss)) (freed, left int64, err error) {
	if len(ids) == 0 {
		if ids, err = h.all(); err != nil {
			return 0, 0, err
		}
	}
	var used int64
	for _, id := range ids {
		n, err := h.Usage(id)
		if err != nil {
			return 0, 0, err
		}
		used += n
	}
	for _, list := range []func([]string) ([]saving, error){h.exactness, h.ranges} {
		if used <= bound {
			break
		}
		savings, err := list(ids)
		if err != nil {
			return freed, used - bound, err
		}
		for _, s := range savings {
			if used <= bound {
				break
			}
			var n int64
			p, err := policy(s.id)
			if err == ErrLater {
				continue
			}
			if err == nil {
				n, err = h.save(ctx, s, p)
			}
			used -= n
			freed += n
			if n > 0 && lost != nil {
				lost(Loss{ID: s.id, Before: s.time, Exactness: s.base < 0, Bytes: n})
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return freed, used - bound, err
			}
		}
	}
	return freed, max(used-bound, 0), nil
}

// Loss is what a bound of size took from a database's history.
type Loss struct {
	ID        string
	Before    int64 // Unix ms: what is older
	Exactness bool  // of that only moments that are at most 30 s apart are left; else none of it
	Bytes     int64
}

// saving is what may be given up of a database: the moments before a time.
type saving struct {
	id   string
	time int64 // Unix ms
	base int64 // the position of the base that the history then begins with; -1 if it is merged up to the time
}

func (h *History) save(ctx context.Context, s saving, p Policy) (int64, error) {
	h.tidying.Lock()
	defer h.tidying.Unlock()
	if s.base < 0 {
		p.ExactSince = max(p.ExactSince, s.time+1)
		return h.prune(ctx, s.id, p)
	}
	sh, err := h.shelf(s.id)
	if err != nil {
		return 0, err
	}
	i := slices.Index(sh.bases, uint64(s.base))
	if i < 0 {
		return 0, nil
	}
	return h.dropTo(sh, i)
}

// exactness are the chapters that could be merged, the oldest first.
func (h *History) exactness(ids []string) (list []saving, err error) {
	for _, id := range ids {
		s, err := h.shelf(id)
		if err != nil {
			return nil, err
		}
		for _, first := range s.chapters {
			p, err := readPart(s.path(first, chapterSuffix), first)
			if err != nil && !damaged(err) && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			if p != nil {
				list = append(list, saving{id, p.time, -1})
			}
		}
	}
	sortSavings(list)
	return list, nil
}

// ranges are the bases that a history could begin with, the oldest first.
func (h *History) ranges(ids []string) (list []saving, err error) {
	for _, id := range ids {
		s, err := h.shelf(id)
		if err != nil {
			return nil, err
		}
		for _, at := range s.bases {
			t, err := readTrailer(s.path(at, baseSuffix))
			if err != nil && !damaged(err) && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			if err == nil {
				list = append(list, saving{id, t.time, int64(at)})
			}
		}
	}
	sortSavings(list)
	return list, nil
}

func sortSavings(list []saving) {
	slices.SortStableFunc(list, func(a, b saving) int { return cmp.Compare(a.time, b.time) })
}
