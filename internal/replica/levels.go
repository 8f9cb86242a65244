package replica

import (
	"context"
	"errors"
	"sort"
	"time"

	"github.com/superfly/ltx"

	"github.com/persqld/persqld/internal/history"
)

// The times of compaction. Files of a higher level are made from the history here, not from those of the lower one, so that nothing is ever downloaded.
const (
	momentEvery = 30 * time.Second
	hourEvery   = time.Hour
	hourFiles   = 8             // of level 1, at the least, that one of level 2 is worth
	syncKept    = time.Hour     // how long files of level 0 stay when level 1 has what is in them
	tidyEvery   = 3 * time.Hour // between two looks for what may go
	// A whole copy is made when as many bytes as the last one has were shipped since, after snapshotLeast; and a day after the last one.
	snapshotLeast = time.Hour
	snapshotMost  = 24 * time.Hour
	snapshotBytes = 4 << 20
)

// tend makes what is due of a database whose transactions are all shipped, and says when something is due again.
func (s *Shipper) tend(ctx context.Context, t *track) error {
	now := s.opt.Now()
	if r := &t.levels[levelMoment]; r.files > 0 && now.Sub(r.since) >= momentEvery {
		if err := s.compact(ctx, t, levelMoment); err != nil {
			return err
		}
	}
	if r := &t.levels[levelHour]; r.files >= hourFiles && now.Sub(r.since) >= hourEvery {
		if err := s.compact(ctx, t, levelHour); err != nil {
			return err
		}
	}
	if s.wantsSnapshot(t, now) {
		if err := s.snapshot(ctx, t, uint64(t.shipped)-1); err != nil && !errors.Is(err, errLater) {
			return err
		}
	}
	if t.tidied.IsZero() {
		t.tidied = now
	}
	if t.untidy && now.Sub(t.tidied) >= tidyEvery {
		if err := s.tidy(ctx, databasePrefix(t.id), now); err != nil {
			return err
		}
		t.tidied = now
		t.untidy = now.Sub(t.wrote) < syncKept
	}
	t.due = time.Time{}
	next := func(at time.Time) {
		if t.due.IsZero() || at.Before(t.due) {
			t.due = at
		}
	}
	if r := t.levels[levelMoment]; r.files > 0 {
		next(r.since.Add(momentEvery))
	}
	if r := t.levels[levelHour]; r.files >= hourFiles {
		next(r.since.Add(hourEvery))
	}
	if t.untidy {
		next(t.tidied.Add(tidyEvery))
	}
	return nil
}

func (s *Shipper) wantsSnapshot(t *track, now time.Time) bool {
	age := now.Sub(t.snapAt)
	return t.grown >= max(snapshotBytes, t.snapLen) && age >= snapshotLeast || t.grown >= snapshotBytes/16 && age >= snapshotMost
}

// compact makes the next file of a level, of everything that was shipped since its last one.
func (s *Shipper) compact(ctx context.Context, t *track, level int) error {
	r := &t.levels[level]
	if r.last == 0 {
		r.last = t.snap
	}
	upTo, within := t.shipped, apart
	if level > levelMoment {
		upTo, within = t.levels[level-1].last, hourEvery
	}
	for r.last < upTo {
		c, err := s.opt.Past.Changes(ctx, t.id, uint64(r.last)-1, uint64(upTo)-1, within)
		var damage *history.DamageError
		if errors.Is(err, history.ErrReplaced) {
			r.last++ // a snapshot has it, and the files behind that go on from there
			continue
		}
		if errors.As(err, &damage) {
			// The lower levels, or a snapshot, have it.
			s.log.Warn("the history has a gap; the replica is not compacted there", "database", t.id, "level", level, "error", err)
			r.last = upTo
			break
		}
		if err != nil {
			return err
		}
		if _, err := s.changes(ctx, t.id, level, c); err != nil {
			return err
		}
		r.last = txid(c.Last)
		if level < levelHour {
			up := &t.levels[level+1]
			up.files++
			if up.since.IsZero() {
				up.since = s.opt.Now()
			}
		}
	}
	r.files, r.since = 0, time.Time{}
	return nil
}

// tidy takes away what no moment needs: files of level 0 that are an hour old and in level 1, and all before the newest snapshot that is older than what is kept.
func (s *Shipper) tidy(ctx context.Context, prefix string, now time.Time) error {
	all, err := s.levels(ctx, prefix)
	if err != nil {
		return err
	}
	if keys := superfluous(all[levelSync], all[levelMoment], all[levelHour], all[levelSnapshot], now.Add(-syncKept), now.Add(-s.opt.KeepFor)); len(keys) > 0 {
		return s.opt.Bucket.Delete(ctx, keys...)
	}
	return nil
}

// superfluous are the keys of files that may go. sync is from when on those of level 0 stay, and kept from when on every moment does.
func superfluous(sync0, moments, hours, snapshots []file, sync, kept time.Time) (keys []string) {
	var first ltx.TXID // the snapshot that everything begins with
	for _, f := range snapshots {
		if f.modified.Before(kept) {
			first = max(first, f.last)
		}
	}
	for _, list := range [][]file{snapshots, hours, moments, sync0} {
		for _, f := range list {
			if f.last < first || f.last == first && f.level != levelSnapshot {
				keys = append(keys, f.key)
			}
		}
	}
	for _, f := range sync0 {
		if f.last > first && f.modified.Before(sync) && covers(moments, f) {
			keys = append(keys, f.key)
		}
	}
	return keys
}

// covers tells whether one of a level's files, which are in order, has all of another file's transactions.
func covers(level []file, f file) bool {
	i := sort.Search(len(level), func(i int) bool { return level[i].last >= f.last })
	return i < len(level) && level[i].first <= f.first
}
