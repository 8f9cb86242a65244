package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// Backup makes whole copies of databases and of the catalog, once, in the form of a replica's.
type Backup struct {
	Bucket bucket.Bucket
	Source Source
	Temp   string           // a directory for copies that are being built
	Now    func() time.Time // the system's if nil
	// Progress is told of each step, by many goroutines; nil tells nobody.
	Progress func(Progress)
}

// Source is the server that is backed up, which may be in another process.
type Source interface {
	// Catalog copies the catalog, as it is at one moment, to a new file.
	Catalog(ctx context.Context, to string) error
	// Pin gives a database's file, which nobody writes to until release is called; release's error says that somebody may have. It returns an error that is
	// store.ErrNotFound or store.ErrDamaged for what is wrong with this database alone.
	Pin(ctx context.Context, id string) (p store.Pinned, release func() error, err error)
}

// Opened is the Source of what this process has opened.
type Opened struct {
	Books *catalog.Catalog
	Store *store.Store
}

var _ Source = Opened{}

// Catalog is part of Source.
func (o Opened) Catalog(ctx context.Context, to string) error { return o.Books.Copy(ctx, to) }

// Pin is part of Source.
func (o Opened) Pin(ctx context.Context, id string) (store.Pinned, func() error, error) {
	p, unpin, err := o.Store.Pin(ctx, id)
	return p, func() error { unpin(); return nil }, err
}

// Progress is how far a backup or a restore has come.
type Progress struct {
	Done, Databases int
	Bytes           int64 // that were written
}

// Report is what came of a backup or a restore.
type Report struct {
	Databases int       `json:"databases"` // that are there now
	Empty     int       `json:"empty"`     // of those, the ones that nothing was ever written to
	Bytes     int64     `json:"bytes"`
	Time      time.Time `json:"time"` // the moment of the catalog
	Failed    []Failure `json:"failed"`
}

// Failure is a database that could not be backed up or restored.
type Failure struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Error string `json:"error"`
}

// ErrReplica is returned for a backup to where a server keeps its replica.
var ErrReplica = errors.New("a server keeps its replica there")

// ErrNoDatabase is returned for a database that the catalog doesn't have.
var ErrNoDatabase = errors.New("there is no such database")

// backupAtOnce is how many databases are backed up, or restored, at the same time.
const backupAtOnce = 4

// Named is a database with the name that people know.
type Named struct {
	ID   string
	Name string // namespace/slug
}

// Databases are all that a catalog has, the trash included, in the order of their names.
func Databases(c *catalog.Catalog) (list []Named) {
	slugs := map[string]string{}
	for _, ns := range slices.Concat(c.Namespaces(), c.DeletedNamespaces()) {
		slugs[ns.ID] = ns.Slug
	}
	c.EachDatabase(func(d *catalog.Database) bool {
		list = append(list, Named{d.ID, slugs[d.NamespaceID] + "/" + d.Slug})
		return true
	})
	c.EachTrashed(func(d *catalog.Trashed) bool {
		list = append(list, Named{d.ID, slugs[d.NamespaceID] + "/" + d.Slug + deletedSuffix})
		return true
	})
	slices.SortFunc(list, func(a, b Named) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return list
}

const deletedSuffix = " (deleted)"

// Deleted tells whether the database is in the trash.
func (d Named) Deleted() bool { return strings.HasSuffix(d.Name, deletedSuffix) }

// find is the one database of a list that a name or an id means: a name means one of the trash where no other has it.
func find(list []Named, name string) (Named, error) {
	var trashed []Named
	for _, d := range list {
		if d.ID == name || d.Name == name {
			return d, nil
		}
		if d.Name == name+deletedSuffix {
			trashed = append(trashed, d)
		}
	}
	switch len(trashed) {
	case 0:
		return Named{}, fmt.Errorf("%w: %s", ErrNoDatabase, name)
	case 1:
		return trashed[0], nil
	}
	var ids []string
	for _, d := range trashed {
		ids = append(ids, d.ID)
	}
	return Named{}, fmt.Errorf("%w: %s was deleted %d times; name one by its id: %s", ErrNoDatabase, name, len(ids), strings.Join(ids, ", "))
}

// All backs everything up. The catalog comes last, so that a backup without one isn't whole.
func (b *Backup) All(ctx context.Context) (*Report, error) {
	return b.backUp(ctx, func(list []Named) ([]Named, error) { return list, nil }, true)
}

// One backs one database up, and not the catalog.
func (b *Backup) One(ctx context.Context, name string) (*Report, error) {
	return b.backUp(ctx, func(list []Named) ([]Named, error) {
		d, err := find(list, name)
		return []Named{d}, err
	}, false)
}

func (b *Backup) backUp(ctx context.Context, choose func([]Named) ([]Named, error), catalogToo bool) (*Report, error) {
	if err := b.refuseReplica(ctx); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.Temp, "backup-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// What is made while the databases are copied isn't in it: the catalog is from before them.
	copied := filepath.Join(dir, "catalog.db")
	if err := b.Source.Catalog(ctx, copied); err != nil {
		return nil, err
	}
	list, err := listCatalog(ctx, copied, dir)
	if err == nil {
		list, err = choose(list)
	}
	if err != nil {
		return nil, err
	}
	report := &Report{Failed: []Failure{}}
	if err := b.some(ctx, list, report); err != nil {
		return nil, err
	}
	// Its time is the backup's: no database has anything later.
	ms := b.now()
	report.Time = time.UnixMilli(ms).UTC()
	if !catalogToo {
		return report, nil
	}
	f, err := os.Open(copied)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := b.put(ctx, catalogName, f, txid(uint64(ms)), ms, func() error { return nil })
	if err != nil {
		return nil, fmt.Errorf("back up the catalog: %w", err)
	}
	report.Bytes += n
	return report, nil
}

func (b *Backup) now() int64 {
	if b.Now != nil {
		return b.Now().UnixMilli()
	}
	return time.Now().UnixMilli()
}

// refuseReplica keeps a backup out of a replica, whose catalog goes on by numbers of its own.
func (b *Backup) refuseReplica(ctx context.Context) error {
	r, err := b.Bucket.Get(ctx, markerKey, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = errors.Join(ErrReplica, r.Close())
	}
	return err
}

func (b *Backup) some(ctx context.Context, list []Named, report *Report) error {
	return each(ctx, list, b.Progress, report, func(ctx context.Context, d Named) (n int64, empty bool, err error) {
		p, release, err := b.Source.Pin(ctx, d.ID)
		if err != nil {
			if ctx.Err() == nil && (errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged)) {
				err = &single{err}
			}
			return 0, false, err
		}
		release = sync.OnceValue(release)
		defer release() //nolint:errcheck // put looks at it
		ms := b.now()
		at := txid(uint64(ms)) // without a history moments have no number, and this one is greater than the last backup's
		if p.Kept {
			at = txid(p.Position)
			ms = cmp.Or(p.Time, ms)
		}
		n, err = b.put(ctx, databasePrefix(d.ID), p.File, at, ms, release)
		return n, p.Kept && p.Position == 0, err
	})
}

// put puts a whole copy of a file that nobody writes to, and lets the file go as soon as it was read.
func (b *Backup) put(ctx context.Context, prefix string, f *os.File, last ltx.TXID, ms int64, release func() error) (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	pages := uint32(fi.Size() / sqlite.PageSize)
	return putBuilt(ctx, b.Bucket, b.Temp, fileKey(prefix, b.Bucket.LevelDir(levelSnapshot), 1, last), ms, pages <= inMemory, func(w io.Writer) error {
		err := encodeSnapshot(ending{ctx, w}, b.Temp, f, pages, last, ms)
		return errors.Join(err, release())
	})
}

// ending ends a long encoding when its context does.
type ending struct {
	ctx context.Context
	io.Writer
}

func (e ending) Write(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return e.Writer.Write(p)
}

// single is an error of one database, behind which the others go on.
type single struct{ error }

func (s *single) Unwrap() error { return s.error }

// each does something with several databases at the same time, and adds what comes of it to a report. An error that isn't of one database alone ends it.
func each(ctx context.Context, list []Named, progress func(Progress), report *Report, do func(ctx context.Context, d Named) (n int64, empty bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	tell := func() {
		if progress != nil {
			progress(Progress{Done: report.Databases + len(report.Failed), Databases: len(list), Bytes: report.Bytes})
		}
	}
	tell()
	work := make(chan Named)
	var workers sync.WaitGroup
	for range min(backupAtOnce, len(list)) {
		workers.Go(func() {
			for d := range work {
				n, empty, err := do(ctx, d)
				var one *single
				if err != nil && !errors.As(err, &one) {
					cancel(fmt.Errorf("%s (%s): %w", d.Name, d.ID, err))
					continue
				}
				mu.Lock()
				if err != nil {
					report.Failed = append(report.Failed, Failure{d.ID, d.Name, one.Error()})
				} else {
					report.Databases++
					report.Bytes += n
					if empty {
						report.Empty++
					}
				}
				tell()
				mu.Unlock()
			}
		})
	}
feeding:
	for _, d := range list {
		select {
		case work <- d:
		case <-ctx.Done():
			break feeding
		}
	}
	close(work)
	workers.Wait()
	slices.SortFunc(report.Failed, func(a, b Failure) int { return cmp.Compare(a.Name, b.Name) })
	return context.Cause(ctx)
}
