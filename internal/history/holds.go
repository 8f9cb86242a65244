package history

import (
	"cmp"
	"slices"
)

// Holds tells of each position whether it can be restored, by what the files say of themselves: damage below that only a restore finds. Positions behind the
// history's end are those of commits that it will be handed.
func (h *History) Holds(id string, positions []uint64) (held []bool, err error) {
	err = h.steady(id, func(s *shelf) error {
		held, err = h.holds(id, s, positions)
		return err
	})
	return held, err
}

func (h *History) holds(id string, s *shelf, positions []uint64) ([]bool, error) {
	head, err := h.head(id, s)
	if err != nil {
		return nil, err
	}
	// Nothing leads to what is before the first beginning.
	first, begins := uint64(0), s.fromEmpty()
	for _, at := range s.bases {
		if begins {
			break
		}
		_, err := readTrailer(s.path(at, baseSuffix))
		if err != nil && !damaged(err) {
			return nil, err
		}
		first, begins = at, err == nil
	}
	k := keptMoments{s, map[string][]stretch{}, map[stretch]*merged{}}
	held := make([]bool, len(positions))
	for i, at := range positions {
		switch {
		case at > head.Position:
			held[i] = true
		case !begins || at < first:
		case at == first || slices.Contains(s.bases, at):
			held[i] = true
		default:
			if held[i], err = k.has(at); err != nil {
				return nil, err
			}
		}
	}
	return held, nil
}

// keptMoments remembers what it read of a shelf's files.
type keptMoments struct {
	s        *shelf
	chapters map[string][]stretch
	merged   map[stretch]*merged // nil is a damaged one
}

// has tells whether a position has a record, or is a moment that merging left.
func (k *keptMoments) has(at uint64) (bool, error) {
	if path, ok := k.s.chapterOf(at); ok {
		list, ok := k.chapters[path]
		if !ok {
			all, _, _, err := records(path)
			if err != nil && !damaged(err) {
				return false, err
			}
			for _, r := range all {
				list = append(list, stretch{r.first, r.last()})
			}
			k.chapters[path] = list
		}
		if slices.ContainsFunc(list, func(r stretch) bool { return r.holds(at) }) {
			return true, nil
		}
	}
	for _, m := range k.s.merged {
		if !m.holds(at) {
			continue
		}
		of, ok := k.merged[m]
		if !ok {
			var err error
			if of, err = readMerged(k.s.mergedPath(m)); damaged(err) {
				of = nil
			} else if err != nil {
				return false, err
			}
			k.merged[m] = of
		}
		if of == nil {
			continue
		}
		if _, ok := slices.BinarySearchFunc(of.moments, at, func(m moment, at uint64) int { return cmp.Compare(m.position, at) }); ok {
			return true, nil
		}
	}
	return false, nil
}
