package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"

	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// track is what is known of a database's files in the replica. The worker that has the database has it.
type track struct {
	id      string
	known   bool // the rest was listed
	shipped ltx.TXID
	levels  [levelHour + 1]reach
	snap    ltx.TXID  // of the last snapshot
	snapAt  time.Time // when that was made
	snapLen int64
	grown   int64 // bytes shipped since

	wrote  time.Time // when transactions were shipped
	tidied time.Time
	untidy bool      // there is something that may go later
	due    time.Time // when something is to be done though nothing is written; zero if nothing is
	last   time.Time // when it was shipped
	retry  time.Time // not before that, after failures

	failures int
}

// reach is how far the files of a level go.
type reach struct {
	last  ltx.TXID
	since time.Time // when the first transaction behind that was shipped; zero if there is none
	files int       // of the level below that are behind it
}

// DivergedError is a replica that has transactions which the server doesn't.
type DivergedError struct {
	ID           string
	Replica, Own uint64 // positions
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("the replica has %s up to transaction %d, this server only up to %d: it is another server's, or this one's history was begun anew. Nothing of it was changed; "+
		"let this server write to another PERSQLD_REPLICA_URL, or delete %s there", e.ID, e.Replica, e.Own, databasePrefix(e.ID))
}

const (
	// apart is the longest time between two moments of the replica, if transactions came in between and the replica could be reached again.
	apart = 30 * time.Second
	// inMemory is the greatest number of pages whose file is built in memory.
	inMemory = 256
)

// ship brings the replica up to date with a database. If it isn't dirty only what is due is done.
func (s *Shipper) ship(ctx context.Context, t *track, dirty bool) error {
	if dirty && !t.known && s.opt.Size(t.id) == 0 {
		if head, err := s.opt.Past.Head(t.id); err != nil || !head.Known {
			return err // what made it failed, or it is gone again
		}
	}
	if dirty && !s.ending.Load() {
		// One that was deleted meanwhile has handed over all it had.
		if err := s.opt.Keep(ctx, t.id); err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("hand over to the history: %w", err)
		}
	}
	if !t.known {
		if err := s.look(ctx, t); err != nil {
			return err
		}
	}
	head, err := s.opt.Past.Head(t.id)
	if err != nil {
		return err
	}
	if !head.Known {
		if dirty && s.opt.Size(t.id) > int64(len(sqlite.EmptyFile())) {
			return errLater // it was made of a file, and the store was closed before its history began
		}
		return nil // it was made, and never written
	}
	to := txid(head.Position)
	if t.shipped > to {
		return &DivergedError{t.id, uint64(t.shipped) - 1, head.Position}
	}
	for t.shipped < to {
		if err := s.step(ctx, t, head); err != nil {
			return err
		}
	}
	return s.tend(ctx, t)
}

// look lists what the replica has of a database.
func (s *Shipper) look(ctx context.Context, t *track) error {
	now := s.opt.Now()
	*t = track{id: t.id, failures: t.failures, last: t.last}
	levels, err := s.levels(ctx, databasePrefix(t.id))
	if err != nil {
		return err
	}
	for _, level := range []int{levelSnapshot, levelHour, levelMoment, levelSync} {
		for _, f := range levels[level] {
			t.shipped = max(t.shipped, f.last)
			if level == levelSnapshot {
				t.snap, t.snapAt, t.snapLen = f.last, f.modified, f.size
				continue
			}
			t.levels[level].last = max(t.levels[level].last, f.last)
			if f.last > t.snap {
				t.grown += f.size
			}
			if level < levelHour && f.last > t.levels[level+1].last {
				up := &t.levels[level+1]
				up.files++
				if up.since.IsZero() {
					up.since = f.modified
				}
			}
		}
	}
	t.known = true
	t.tidied = now
	return nil
}

// file is a file of the replica.
type file struct {
	key         string
	level       int
	first, last ltx.TXID
	size        int64
	modified    time.Time
}

// levels are a database's files by level, in order.
func (s *Shipper) levels(ctx context.Context, prefix string) (levels [levelSnapshot + 1][]file, err error) {
	all, err := listAll(ctx, s.opt.Bucket, prefix)
	for _, f := range all {
		levels[f.level] = append(levels[f.level], f)
	}
	return levels, err
}

// step ships the next file: of some transactions, or a whole database where those aren't to be had.
func (s *Shipper) step(ctx context.Context, t *track, head history.Head) error {
	if t.shipped == 0 {
		return s.snapshot(ctx, t, head.Position)
	}
	after := uint64(t.shipped) - 1
	c, err := s.opt.Past.Changes(ctx, t.id, after, head.Position, apart)
	if errors.Is(err, history.ErrReplaced) {
		return s.snapshot(ctx, t, after+1)
	}
	var damage *history.DamageError
	if errors.As(err, &damage) {
		s.log.Warn("the history has a gap; the replica goes on with a whole copy behind it", "database", t.id, "error", err)
		err = s.snapshot(ctx, t, head.Position)
		var gap *history.GapError
		if errors.As(err, &gap) && s.opt.Base != nil {
			if err := s.opt.Base(ctx, t.id); err != nil {
				return err
			}
			return errLater
		}
		return err
	}
	if err != nil {
		return err
	}
	n, err := s.changes(ctx, t.id, levelSync, c)
	if err != nil {
		return err
	}
	now := s.opt.Now()
	s.opt.Observer.Lag(now.Sub(time.UnixMilli(c.FirstTime)))
	t.shipped = txid(c.Last)
	t.grown += n
	t.wrote, t.untidy = now, true
	up := &t.levels[levelMoment]
	up.files++
	if up.since.IsZero() {
		up.since = now
	}
	return nil
}

// changes puts one file of changes into the replica.
func (s *Shipper) changes(ctx context.Context, id string, level int, c *history.Changes) (int64, error) {
	first, last := txid(c.After)+1, txid(c.Last)
	return s.put(ctx, databasePrefix(id), level, first, last, c.Time, len(c.Numbers) <= inMemory, func(w io.Writer) error {
		return encodeChanges(w, s.opt.Temp, first, last, c.Time, c.Pages, func(page func(uint32, []byte) error) error {
			return c.Each(ctx, page)
		})
	})
}

// snapshot puts a whole database, as it was at a position, into the replica.
func (s *Shipper) snapshot(ctx context.Context, t *track, at uint64) error {
	select {
	case s.large <- struct{}{}:
		defer func() { <-s.large }()
	default:
		return errLater
	}
	ms, err := s.opt.Past.TimeOf(t.id, at)
	if err != nil {
		return err
	}
	if err := s.room(t.id); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.opt.Temp, "replica-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "whole.db")
	if err := s.opt.Past.Restore(ctx, t.id, at, path); err != nil {
		return err
	}
	n, err := s.putSnapshot(ctx, databasePrefix(t.id), path, txid(at), ms)
	if err != nil {
		return err
	}
	t.shipped = max(t.shipped, txid(at))
	t.wrote, t.untidy = s.opt.Now(), t.snap > 0
	t.snap, t.snapAt, t.snapLen, t.grown = txid(at), s.opt.Now(), n, 0
	for i := range t.levels { // nothing before it is needed to go on
		t.levels[i] = reach{last: max(t.levels[i].last, txid(at))}
	}
	return nil
}

// leave is how much room on the disk is left to the databases, beside what a whole copy takes for a while.
const leave = 256 << 20

// room tells whether a whole copy of a database, and its file for the replica, can be built without taking the room that writes need.
func (s *Shipper) room(id string) error {
	need := 2*s.opt.Size(id) + leave
	var fs unix.Statfs_t
	if err := unix.Statfs(s.opt.Temp, &fs); err != nil {
		return err
	}
	if free := int64(fs.Bavail) * int64(fs.Bsize); free < need {
		return fmt.Errorf("a whole copy needs %d MiB of room on the disk for a while, and there are %d", need>>20, free>>20)
	}
	return nil
}

// putSnapshot puts a database file into the replica.
func (s *Shipper) putSnapshot(ctx context.Context, prefix, path string, last ltx.TXID, ms int64) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	pages := uint32(fi.Size() / sqlite.PageSize)
	return s.put(ctx, prefix, levelSnapshot, 1, last, ms, pages <= inMemory, func(w io.Writer) error {
		return encodeSnapshot(w, s.opt.Temp, f, pages, last, ms)
	})
}

// put builds a file and puts it into the replica.
func (s *Shipper) put(ctx context.Context, prefix string, level int, first, last ltx.TXID, ms int64, small bool, build func(io.Writer) error) (int64, error) {
	size, err := putBuilt(ctx, s.opt.Bucket, s.opt.Temp, fileKey(prefix, s.opt.Bucket.LevelDir(level), first, last), ms, small, build)
	if err != nil {
		return 0, err
	}
	s.opt.Observer.Shipped(level, size)
	return size, nil
}
