package history

import (
	"errors"
	"os"
	"slices"
)

// Head is where a database's history ends.
func (h *History) Head(id string) (Head, error) {
	s, err := h.shelf(id)
	if err != nil {
		return Head{}, err
	}
	return h.head(id, s)
}

func (h *History) head(id string, s *shelf) (Head, error) {
	var head Head
	// A damaged base has its position still, which its name says. Without its time that of the records stands.
	if n := len(s.bases); n > 0 {
		head = Head{Position: s.bases[n-1], Known: true}
		for i := n - 1; i >= 0 && head.Time == 0; i-- {
			if t, err := readTrailer(s.path(s.bases[i], baseSuffix)); err == nil {
				head.Time = t.time
			} else if !damaged(err) {
				return Head{}, err
			}
		}
	}
	if n := len(s.merged); n > 0 && s.merged[n-1].last >= head.Position {
		m, err := readMerged(s.mergedPath(s.merged[n-1]))
		switch {
		case err == nil:
			head = m.head()
		case !damaged(err):
			return Head{}, err
		default:
			head.Torn = s.merged[n-1].last
			if n > 1 {
				if m, err = readMerged(s.mergedPath(s.merged[n-2])); err == nil && m.last >= head.Position {
					torn := head.Torn
					head = m.head()
					head.Torn = torn
				} else if err != nil && !damaged(err) {
					return Head{}, err
				}
			}
		}
	}
	n := len(s.chapters)
	if n == 0 {
		return head, nil
	}
	last, torn, err := h.lastSound(id, s.path(s.chapters[n-1], chapterSuffix))
	if err == nil && last == nil && n > 1 {
		// Nothing of the last chapter came to stay: the one before ends the history.
		last, err = lastRecord(s.path(s.chapters[n-2], chapterSuffix))
	}
	if err != nil {
		return Head{}, err
	}
	if last != nil && last.last() >= head.Position {
		if last.last() >= head.Torn {
			head.Torn = 0 // the chapters that it was made of are still there
		}
		head = Head{Position: last.last(), Time: last.time, Salt1: last.salt1, Salt2: last.salt2, Offset: last.offset + last.length, Known: true, Torn: head.Torn}
	}
	head.Torn = max(head.Torn, torn)
	return head, nil
}

func damaged(err error) bool {
	var damage *DamageError
	return errors.As(err, &damage)
}

// lastSound is the last record up to which a chapter is whole. A crash can have lost any of what was made of a log that is still there, for it needn't be
// synced until then: the first look of a process verifies all records of the last one's log.
func (h *History) lastSound(id, path string) (last *record, torn uint64, err error) {
	last, err = lastRecord(path)
	h.mu.Lock()
	sound := h.sound[id]
	h.mu.Unlock()
	if err != nil || last == nil || sound {
		return last, 0, err
	}
	good, err := soundUpTo(path, last)
	if err != nil {
		return nil, 0, err
	}
	if good == nil || good.at != last.at {
		return good, last.last(), nil
	}
	h.mu.Lock()
	h.sound[id] = true
	h.mu.Unlock()
	return last, 0, nil
}

// soundUpTo is the record of a chapter up to which those that are of the last one's log are whole; nil if none is.
func soundUpTo(path string, last *record) (good *record, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	good, run, err := sameLog(f, path, last)
	if err != nil {
		return nil, err
	}
	for _, r := range run {
		if err := r.verify(f, path); damaged(err) {
			break
		} else if err != nil {
			return nil, err
		}
		good = r
	}
	return good, nil
}

// sameLog are the last records of a chapter that are of one log, and the one before them. Where one of them isn't even a record, they are those before that.
func sameLog(f *os.File, path string, last *record) (before *record, run []*record, err error) {
	same := func(r *record) bool { return r.salt1 == last.salt1 && r.salt2 == last.salt2 }
	run = []*record{last}
	for at := last.at; at > 0; at = run[len(run)-1].at {
		r, err := recordBefore(f, at)
		if err != nil {
			all, _, _, err := records(path)
			if err != nil {
				return nil, nil, err
			}
			n := len(all)
			for n > 0 && same(all[n-1]) {
				n--
			}
			if n > 0 {
				before = all[n-1]
			}
			return before, all[n:], nil
		}
		if !same(r) {
			before = r
			break
		}
		run = append(run, r)
	}
	slices.Reverse(run)
	return before, run, nil
}

// DropTorn cuts off what is torn: what that was made of is still there.
func (h *History) DropTorn(id string) error {
	h.beginWrite(id)
	defer h.endWrite(id)
	s, err := h.shelf(id)
	if err != nil {
		return err
	}
	if n := len(s.merged); n > 0 && (len(s.chapters) == 0 || s.merged[n-1].last >= s.chapters[len(s.chapters)-1]) {
		path := s.mergedPath(s.merged[n-1])
		if _, err := readMerged(path); damaged(err) {
			return errors.Join(h.files.Remove(path), h.files.SyncDir(s.dir))
		} else if err != nil {
			return err
		}
	}
	if len(s.chapters) == 0 {
		return nil
	}
	path := s.path(s.chapters[len(s.chapters)-1], chapterSuffix)
	last, err := lastRecord(path)
	if err != nil || last == nil {
		return err
	}
	good, err := soundUpTo(path, last)
	if err != nil || good != nil && good.at == last.at {
		return err
	}
	end := int64(0)
	if good != nil {
		end = good.at + good.size()
	}
	f, err := h.files.Open(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(end), f.Sync(), f.Close())
}
