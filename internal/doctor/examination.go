package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// Options are Examine's options.
type Options struct {
	// Full compares every index entry with its row, and reads all of the history; without it a database is read once, and of the history what files say of
	// themselves and the last record of each.
	Full bool
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// examination is one run.
type examination struct {
	opts   Options
	dir    datadir.Layout
	report Report
	known  map[string]*catalog.InspectedDatabase // by id
	whole  bool                                  // known are all that there are
	open   bool                                  // others than the owner get into the directory
	mu     sync.Mutex                            // guards the report while files are examined side by side
}

// Examine looks at the data directory at path. It returns an error that is datadir.ErrLocked while a server holds the
// directory, and other errors only where it could not look at all.
func Examine(ctx context.Context, path string, opts Options) (_ *Report, err error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	dir, err := datadir.Hold(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	x := &examination{opts: opts, dir: dir.Layout, report: Report{Data: dir.Root(), Full: opts.Full}, known: map[string]*catalog.InspectedDatabase{}}
	x.format()
	x.root()
	x.catalog()
	x.queryLog()
	files, err := x.files()
	if err != nil {
		return nil, err
	}
	x.compare(files)
	if err := x.examine(ctx, files); err != nil {
		return nil, err
	}
	if err := x.past(ctx); err != nil {
		return nil, err
	}
	x.report.close()
	return &x.report, nil
}

func (x *examination) add(f Finding) {
	if rel, err := filepath.Rel(x.dir.Root(), f.Path); err == nil && f.Path != "" {
		f.Path = rel
	}
	x.mu.Lock()
	x.report.Findings = append(x.report.Findings, f)
	x.mu.Unlock()
}

// format looks at the directory's format.
func (x *examination) format() {
	have, known, err := x.dir.ReadFormat()
	x.report.Format = have
	switch {
	case err != nil:
		x.add(Finding{Severity: Error, Code: "format_damaged", Path: x.dir.Format(), Message: err.Error(),
			Fix: fmt.Sprintf("a directory that this version wrote has format %d: write that number there", known)})
	case have > known:
		x.add(Finding{Severity: Error, Code: "format_newer", Path: x.dir.Format(), Message: fmt.Sprintf("the directory has format %d, this version knows format %d", have, known),
			Fix: "examine it, and serve it, with the version of persqld that wrote it"})
	}
}

// root looks at what lies in the directory itself, and at the leftovers of the last process.
func (x *examination) root() {
	if info, err := os.Stat(x.dir.Root()); err == nil {
		x.open = info.Mode().Perm()&0o077 != 0
	}
	x.mode(x.dir.Root())
	entries, err := os.ReadDir(x.dir.Root())
	if err != nil {
		x.unreadable(x.dir.Root(), err)
		return
	}
	for _, e := range entries {
		path := filepath.Join(x.dir.Root(), e.Name())
		switch base := trimCompanion(path); {
		case base == x.dir.Catalog(), base == x.dir.QueryLog(), path == x.dir.Databases(), path == x.dir.History(), strings.HasPrefix(path, x.dir.CommitTimes()), strings.HasPrefix(path, x.dir.Aside()), strings.HasPrefix(path, x.dir.ReplicaState()), path == x.dir.Temp(), path == x.dir.Lock(), path == x.dir.Format(), path == x.dir.SealKey():
			x.mode(path)
		case path == x.dir.Socket(), strings.HasPrefix(path, x.dir.QueryLog()+".damaged"), path == x.dir.Format()+".new":
		default:
			x.add(Finding{Severity: Info, Code: "unknown_file", Path: path, Message: "this is no file of the server's", Fix: "move it elsewhere, if nobody needs it here"})
		}
	}
	left, bytes := 0, int64(0)
	err = filepath.WalkDir(x.dir.Temp(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		left++
		bytes += sizeOf(path)
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		x.unreadable(x.dir.Temp(), err)
	}
	if left > 0 {
		x.add(Finding{Severity: Info, Code: "temporary_files", Path: x.dir.Temp(), Message: fmt.Sprintf("%d files of a process that was ended, %d bytes", left, bytes), Fix: "the next start takes them away"})
	}
}

// catalog reads the catalog, as far as it goes.
func (x *examination) catalog() {
	path := x.dir.Catalog()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		x.add(Finding{Severity: Error, Code: "catalog_missing", Path: path, Message: "there is no catalog: nothing tells whose the databases are, and no token works",
			Fix: "put it back from a backup; if this is no data directory, give another"})
		return
	}
	var in catalog.Inspection
	err := guarded(func(thread *sqlite.Thread) (err error) {
		in, err = catalog.Inspect(path, x.opts.Full, thread)
		return err
	})
	if err != nil {
		in.Problems = append(in.Problems, err.Error())
	}
	x.report.CatalogSchema = in.Schema
	if len(in.Problems) > 0 {
		x.add(Finding{Severity: Error, Code: "catalog_damaged", Path: path, Message: several(in.Problems),
			Fix: "keep a copy of the directory; put the catalog back from a backup, or take out what can be read: sqlite3 catalog.db .recover"})
	}
	switch {
	case in.Schema > in.Known:
		x.add(Finding{Severity: Error, Code: "catalog_newer", Path: path, Message: fmt.Sprintf("the catalog has schema %d, this version knows schema %d", in.Schema, in.Known),
			Fix: "examine it, and serve it, with the version of persqld that wrote it"})
	case in.Schema < in.Known && len(in.Problems) == 0:
		x.add(Finding{Severity: Info, Code: "catalog_older", Path: path, Message: fmt.Sprintf("the catalog has schema %d, this version knows schema %d", in.Schema, in.Known),
			Fix: "the next start migrates it; copy the directory before, if you may want to go back"})
	}
	for i := range in.Databases {
		x.known[in.Databases[i].ID] = &in.Databases[i]
	}
	x.whole = in.Complete
}

// queryLog examines the query log, which is no record: the server begins a damaged one anew.
func (x *examination) queryLog() {
	path := x.dir.QueryLog()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return
	}
	if problems, err := x.look(path, nil); len(problems) > 0 || err != nil {
		x.add(Finding{Severity: Warning, Code: "query_log_damaged", Path: path, Message: several(withError(problems, err)), Fix: "the next start sets it aside and begins a new one; or remove it, with its -wal"})
	}
}

// look examines one SQLite file; more looks at it further.
func (x *examination) look(path string, more func(*sqlite.Conn) error) (problems []string, err error) {
	err = guarded(func(thread *sqlite.Thread) (err error) {
		conn, err := sqlite.OpenInspection(path, thread)
		if err != nil {
			return err
		}
		problems, err = conn.Examine(x.opts.Full)
		if err == nil && more != nil {
			err = more(conn)
		}
		return errors.Join(err, conn.Close())
	})
	return problems, err
}

// guarded keeps a fault of the engine, which a damaged file may lead to, from ending the examination. The connection and
// its thread are left to themselves then.
func guarded(f func(*sqlite.Thread) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the engine failed on this file: %v", r)
		}
	}()
	thread := sqlite.NewThread()
	err = f(thread)
	thread.Close()
	return err
}

// file is a database's file, as it was found.
type file struct {
	path, id string
	lone     bool // a log, or another companion, without its file
}

// files lists what lies in the folder of databases.
func (x *examination) files() (found []file, err error) {
	root := x.dir.Databases()
	there := map[string]bool{}
	var companions []string
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == root && errors.Is(err, fs.ErrNotExist) {
				return fs.SkipAll
			}
			x.unreadable(path, err)
			return nil
		}
		if path != root {
			x.mode(path)
		}
		if d.IsDir() {
			return nil
		}
		base := trimCompanion(path)
		id, isDB := strings.CutSuffix(filepath.Base(base), ".db")
		switch {
		case !isDB || !d.Type().IsRegular() || len(id) < 2:
			x.add(Finding{Severity: Warning, Code: "unknown_file", Path: path, Message: "this is no file of a database", Fix: "move it elsewhere"})
		case filepath.Dir(path) != filepath.Join(root, id[len(id)-2:]):
			x.add(Finding{Severity: Warning, Code: "misplaced_file", Path: path, Message: "the server doesn't look for this file here", Fix: fmt.Sprintf("its place is db/%s/", id[len(id)-2:])})
		case base != path:
			companions = append(companions, path)
		default:
			there[path] = true
			found = append(found, file{path: path, id: id})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list databases: %w", err)
	}
	for _, path := range companions {
		if base := trimCompanion(path); !there[base] && sizeOf(path) > 0 {
			found = append(found, file{path: path, id: strings.TrimSuffix(filepath.Base(base), ".db"), lone: true})
		}
	}
	return found, nil
}

// compare holds the catalog and the files against each other.
func (x *examination) compare(files []file) {
	there := map[string]bool{}
	for _, f := range files {
		there[f.id] = there[f.id] || !f.lone
	}
	for _, f := range files {
		d := x.known[f.id]
		switch {
		case f.lone && !there[f.id]:
			x.add(Finding{Severity: Warning, Code: "orphan_log", Path: f.path, Database: nameOf(d), Message: "this belongs to a file that isn't there",
				Fix: "a crash in the middle of a deletion leaves one: if the database was deleted, remove it; else put the file back from a backup, without this"})
		case d == nil && x.whole:
			x.add(Finding{Severity: Warning, Code: "orphan_file", Path: f.path, Message: "no database of the catalog has this file",
				Fix: "a crash while a database was made leaves an empty one: if it holds nothing that is missed, move it away"})
		}
	}
	now := x.opts.Now()
	for id, d := range x.known {
		path := filepath.Join(x.dir.Databases(), id[max(0, len(id)-2):], id+".db")
		condemned := !d.DeletedAt.IsZero() && d.RestorableUntil.IsZero()
		switch {
		case condemned:
			x.add(Finding{Severity: Info, Code: "purge_pending", Path: path, Database: nameOf(d), Message: "a deletion for good was not finished", Fix: "the next start finishes it"})
		case !there[id]:
			x.add(Finding{Severity: Error, Code: "file_missing", Path: path, Database: nameOf(d), Message: "the catalog has this database, and there is no file of it",
				Fix: "put the file back from a backup, or delete the database"})
		case !d.DeletedAt.IsZero() && !now.Before(d.RestorableUntil):
			x.add(Finding{Severity: Info, Code: "trash_overdue", Path: path, Database: nameOf(d), Message: "deleted, and its time in the trash is over since " + d.RestorableUntil.Format(time.RFC3339), Fix: "the next start takes it away"})
		}
	}
}

// examine looks into every database's file, some side by side.
func (x *examination) examine(ctx context.Context, files []file) error {
	todo := make(chan file)
	var all sync.WaitGroup
	for range min(8, runtime.GOMAXPROCS(0)) {
		all.Go(func() {
			for f := range todo {
				x.database(f)
			}
		})
	}
	for _, f := range files {
		if f.lone {
			continue
		}
		select {
		case todo <- f:
		case <-ctx.Done():
		}
	}
	close(todo)
	all.Wait()
	return ctx.Err()
}

// database looks into one file.
func (x *examination) database(f file) {
	d := x.known[f.id]
	size := sizeOf(f.path)
	x.mu.Lock()
	x.report.Databases++
	x.report.Bytes += size + sizeOf(f.path+"-wal")
	x.mu.Unlock()
	restore := "put it back from a backup, or take out what can be read: sqlite3 file.db .recover; other databases are not concerned"
	if size == 0 {
		x.add(Finding{Severity: Error, Code: "file_empty", Path: f.path, Database: nameOf(d), Message: "the file is empty, which no database of the server's is", Fix: "put it back from a backup"})
		return
	}
	if is, err := sqlite.LooksLikeDatabase(f.path); !is && err == nil {
		x.add(Finding{Severity: Error, Code: "damaged", Path: f.path, Database: nameOf(d), Message: "the file doesn't begin as a database does", Fix: restore})
		return
	}
	var newer *store.NewerError
	problems, err := x.look(f.path, func(c *sqlite.Conn) error {
		return c.EachRow(`SELECT name FROM sqlite_schema WHERE type='table' AND name LIKE 'sqlite\_persql\_%' ESCAPE '\'`, func(s *sqlite.Stmt) error {
			return store.CheckSystemTable(string(s.Column(0).Bytes))
		})
	})
	switch {
	case errors.As(err, &newer):
		x.add(Finding{Severity: Error, Code: "database_newer", Path: f.path, Database: nameOf(d), Message: newer.Error(), Fix: "serve it with the version of persqld that wrote it, or a newer one"})
		err = nil
	case errors.Is(err, fs.ErrPermission):
		x.unreadable(f.path, err)
		return
	}
	if problems = withError(problems, err); len(problems) > 0 {
		x.add(Finding{Severity: Error, Code: "damaged", Path: f.path, Database: nameOf(d), Message: several(problems), Fix: restore})
	}
}

// mode looks whether the server's user can use a file, and whether others can: the mode of what lies in a directory that
// they don't get into is of no matter.
func (x *examination) mode(path string) {
	info, err := os.Lstat(path)
	if err != nil {
		x.unreadable(path, err)
		return
	}
	if others := info.Mode().Perm() & 0o077; x.open && others != 0 && info.Mode()&fs.ModeSymlink == 0 {
		x.add(Finding{Severity: Warning, Code: "permissions", Path: path, Message: fmt.Sprintf("its mode is %#o: others than its owner may use it", info.Mode().Perm()), Fix: "chmod go= " + filepath.Base(path)})
	}
	if need := fs.FileMode(0o600); info.Mode().Perm()&need != need {
		x.add(Finding{Severity: Error, Code: "permissions", Path: path, Message: fmt.Sprintf("its mode is %#o: its owner can't read and write it", info.Mode().Perm()), Fix: "chmod u+rw " + filepath.Base(path)})
	}
}

func (x *examination) unreadable(path string, err error) {
	x.add(Finding{Severity: Error, Code: "unreadable", Path: path, Message: err.Error(), Fix: "run this as the user that the server runs as; or give the files to it"})
}

// trimCompanion is the database that a file lies beside: its log, or what else SQLite may leave.
func trimCompanion(path string) string {
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		if base, ok := strings.CutSuffix(path, suffix); ok {
			return base
		}
	}
	return path
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func nameOf(d *catalog.InspectedDatabase) string {
	if d == nil {
		return ""
	}
	name := d.Namespace + "/" + d.Slug
	if !d.DeletedAt.IsZero() {
		name += " (deleted)"
	}
	return name
}

func withError(problems []string, err error) []string {
	if err == nil || errors.Is(err, context.Canceled) {
		return problems
	}
	return append(problems, err.Error())
}

// several is some lines as one text, those that stand there twice once.
func several(lines []string) string {
	lines = slices.Compact(slices.Clone(lines))
	const most = 5
	text := strings.Join(lines[:min(most, len(lines))], "; ")
	if len(lines) > most {
		text += fmt.Sprintf("; and %d more", len(lines)-most)
	}
	return text
}
