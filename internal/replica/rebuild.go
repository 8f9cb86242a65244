package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// ErrNoCatalog is returned for a place that has no catalog: it is no replica and no backup of a server, or a backup that didn't end.
var ErrNoCatalog = errors.New("there is no catalog of a server")

// Server fills a directory that datadir.OpenEmpty opened with a server as it was at a target: the latest moment, or a time. What it returns with an error may be
// taken away; Failed names the databases that are missing in it though it succeeded.
func (r *Restorer) Server(ctx context.Context, dir *datadir.Dir, t Target, progress func(Progress)) (*Report, error) {
	live, err := r.isReplica(ctx)
	if err != nil {
		return nil, err
	}
	got, err := r.Catalog(ctx, t, dir.Catalog())
	if errors.Is(err, ErrNotKept) {
		return nil, ErrNoCatalog
	}
	if err != nil {
		return nil, fmt.Errorf("restore the catalog: %w", err)
	}
	list, err := listCatalog(ctx, dir.Catalog(), r.Temp)
	if err != nil {
		return nil, err
	}
	purged, err := r.purgedSince(ctx, t, list)
	if err != nil {
		return nil, err
	}
	past, err := history.New(history.Options{Root: dir.History()})
	if err != nil {
		return nil, err
	}
	report := &Report{Failed: []Failure{}, Time: time.UnixMilli(got.Time).UTC()}
	err = each(ctx, list, progress, report, func(ctx context.Context, d Named) (int64, bool, error) {
		path := filepath.Join(dir.Temp(), d.ID+".db")
		got, err := r.Database(ctx, d.ID, t, path)
		var gap *MomentError
		switch {
		case errors.Is(err, ErrNotKept) && purged[d.ID]:
			return 0, false, &single{errors.New("it was deleted for good since, and so was what the replica had of it")}
		case errors.Is(err, ErrNotKept) && !live:
			return 0, false, &single{errors.New("the backup has nothing of it")}
		case errors.Is(err, ErrNotKept):
			// A database is shipped when it is written to.
			return 0, true, newDatabase(dir, d.ID)
		case errors.As(err, &gap):
			return 0, false, &single{err}
		case err != nil:
			return 0, false, err
		}
		n, err := r.place(ctx, dir, past, d.ID, live, got, path)
		return n, false, err
	})
	if err != nil {
		return nil, err
	}
	return report, syncDir(dir.Databases())
}

// isReplica tells a server's replica from a backup.
func (r *Restorer) isReplica(ctx context.Context) (bool, error) {
	in, err := r.Bucket.Get(ctx, markerKey, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, in.Close()
}

// listCatalog lists the databases of a catalog's file, which stays as it is: opening it brings it to this version's schema.
func listCatalog(ctx context.Context, path, temp string) (list []Named, err error) {
	dir, err := os.MkdirTemp(temp, "catalog-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	copied := filepath.Join(dir, "catalog.db")
	if err := copyFile(path, copied); err != nil {
		return nil, err
	}
	c, err := catalog.Open(ctx, copied, catalog.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return Databases(c), nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// purgedSince are those of a list that the latest catalog doesn't have any more.
func (r *Restorer) purgedSince(ctx context.Context, t Target, list []Named) (map[string]bool, error) {
	purged := map[string]bool{}
	if t.Latest() {
		return purged, nil
	}
	now, err := r.catalogAt(ctx, Target{})
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		purged[d.ID] = true
	}
	for _, d := range now {
		delete(purged, d.ID)
	}
	return purged, nil
}

// catalogAt lists the databases of the replica's catalog at a target.
func (r *Restorer) catalogAt(ctx context.Context, t Target) ([]Named, error) {
	dir, err := os.MkdirTemp(r.Temp, "catalog-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "catalog.db")
	if _, err := r.Catalog(ctx, t, path); errors.Is(err, ErrNotKept) {
		return nil, ErrNoCatalog
	} else if err != nil {
		return nil, fmt.Errorf("restore the catalog: %w", err)
	}
	return listCatalog(ctx, path, r.Temp)
}

// Find is the database that a name meant at a target, or an id means, by the replica's catalog. A backup of one database has none: there only ids mean anything.
func (r *Restorer) Find(ctx context.Context, t Target, name string) (Named, error) {
	if t.kind == atPosition {
		t = Target{}
	}
	list, err := r.catalogAt(ctx, t)
	if !errors.Is(err, ErrNoCatalog) {
		if err != nil {
			return Named{}, err
		}
		return find(list, name)
	}
	ids, lerr := r.Bucket.Groups(ctx, databasesName+"/")
	switch {
	case lerr != nil:
		return Named{}, lerr
	case len(ids) == 0:
		return Named{}, err
	case slices.Contains(ids, name):
		return Named{name, name}, nil
	}
	return Named{}, fmt.Errorf("%w: it has no catalog with names; name the database by its id: %s", ErrNoDatabase, strings.Join(ids[:min(len(ids), 10)], ", "))
}

// FindIn is Find by a catalog that is open.
func FindIn(c *catalog.Catalog, name string) (Named, error) { return find(Databases(c), name) }

// newDatabase makes one that nothing was written to.
func newDatabase(dir *datadir.Dir, id string) error {
	path := filepath.Join(dir.Temp(), id+".db")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(sqlite.EmptyFile())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return moveIn(dir, id, path)
}

// databasePath is where a database's file is in a data directory.
func databasePath(dir *datadir.Dir, id string) string {
	return filepath.Join(dir.Databases(), id[len(id)-2:], id+".db")
}

// moveIn syncs a file and gives it its place, durably.
func moveIn(dir *datadir.Dir, id, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	to := databasePath(dir, id)
	if err := os.Mkdir(filepath.Dir(to), 0o700); err == nil {
		if err := syncDir(dir.Databases()); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// place gives a restored file its place in a directory that has nothing of the database, and a history that begins with it. The replica's latest moment keeps its
// position; an earlier one is the transaction after the last, as one that is restored in place. Of what a backup doesn't know the server's replica may have more:
// what comes from one gets the time as its position, so that it is greater than any that the replica has, and nothing is taken for what goes on from there.
func (r *Restorer) place(ctx context.Context, dir *datadir.Dir, past *history.History, id string, live bool, got Restored, path string) (int64, error) {
	at, ms := got.Position, got.Time
	switch {
	case !live:
		ms = r.now()
		at = max(got.End+1, uint64(ms))
	case got.Position != got.End:
		at, ms = got.End+1, r.now()
	}
	if err := sqlite.SetLogMode(path); err != nil {
		return 0, err
	}
	if at > 0 {
		if err := addBase(ctx, past, id, at, ms, path, false); err != nil {
			return 0, err
		}
	}
	return got.Bytes, moveIn(dir, id, path)
}

// addBase has the history keep a file, and marks the file as what the history has there.
func addBase(ctx context.Context, past *history.History, id string, at uint64, ms int64, path string, pending bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := past.AddBase(ctx, id, at, ms, f, pending); err != nil {
		return err
	}
	return store.Mark(path, id, at)
}

// Replace puts a database, as it was at a target, into the place of what a data directory has of it, which no server uses. It is the transaction after the last
// that the directory or the replica has: at is its position.
func (r *Restorer) Replace(ctx context.Context, dir *datadir.Dir, id string, t Target) (got Restored, at uint64, err error) {
	scratch, err := os.MkdirTemp(r.Temp, "restore-")
	if err != nil {
		return got, 0, err
	}
	defer os.RemoveAll(scratch)
	path := filepath.Join(scratch, "restored.db")
	got, err = r.Database(ctx, id, t, path)
	if err != nil {
		return got, 0, err
	}
	if err := sqlite.SetLogMode(path); err != nil {
		return got, 0, err
	}
	past, err := history.New(history.Options{Root: dir.History()})
	if err != nil {
		return got, 0, err
	}
	live := databasePath(dir, id)
	last, ms, err := r.lastHere(past, id, live)
	if err != nil {
		return got, 0, err
	}
	at = max(last, got.End) + 1
	// As the store does it: the base is pending until the file has its place, and the log is gone before that. A crash in between is settled at the next opening.
	if err := addBase(ctx, past, id, at, max(ms, r.now()), path, true); err != nil {
		return got, 0, err
	}
	if err := os.Remove(live + "-wal"); err == nil {
		if err := syncDir(filepath.Dir(live)); err != nil {
			return got, 0, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return got, 0, err
	}
	if err := moveIn(dir, id, path); err != nil {
		return got, 0, err
	}
	return got, at, past.Confirm(id, at)
}

// lastHere is the last position that a data directory has of a database, and when that was. Where there is no history it is the time: greater than the positions
// of one that was set aside.
func (r *Restorer) lastHere(past *history.History, id, live string) (at uint64, ms int64, err error) {
	if f, err := os.Open(live); err == nil {
		log, lerr := os.Stat(live + "-wal")
		if lerr == nil && log.Size() > 0 {
			err = past.Settle(id, nil)
		} else {
			err = past.Settle(id, f)
		}
		f.Close()
		if err != nil {
			return 0, 0, err
		}
	}
	head, err := past.Head(id)
	if err != nil {
		return 0, 0, err
	}
	if !head.Known {
		if _, err := os.Stat(live); errors.Is(err, fs.ErrNotExist) {
			return 0, 0, nil
		}
		ms = r.now()
		return uint64(ms), ms, nil
	}
	at = max(head.Position, head.Torn)
	log, err := os.Open(live + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return at, head.Time, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer log.Close()
	n, _, err := past.Pending(log, head)
	return at + uint64(n), head.Time, err
}
