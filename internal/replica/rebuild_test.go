package replica

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/store"
)

// server is a world with a catalog, in a data directory.
type server struct {
	*world
	cat *catalog.Catalog
	ns  catalog.Namespace
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{world: newWorld(t)}
	path := datadir.Layout(s.root).Catalog()
	var err error
	if s.cat, err = catalog.Open(t.Context(), path, catalog.Options{Now: s.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cat.Close() })
	if s.ns, err = s.cat.CreateNamespace(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	s.ship.opt.CopyCatalog, s.ship.opt.CatalogFiles = s.cat.Copy, []string{path, path + "-wal"}
	if _, err := Claim(t.Context(), s.bucket, "srv_a"); err != nil {
		t.Fatal(err)
	}
	return s
}

// database makes one, and its file.
func (s *server) database(slug string) string {
	s.t.Helper()
	d, _, err := s.cat.CreateDatabase(s.t.Context(), catalog.NewDatabase{NamespaceID: s.ns.ID, Slug: slug})
	if err == nil {
		err = s.Create(s.t.Context(), d.ID)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return d.ID
}

// shipped ships all that there is.
func (s *server) shipped() {
	s.t.Helper()
	s.pass(3 * time.Second)
	s.round()
	s.ship.books.seen = nil // whatever the file system's clock says
	if err := s.ship.shipCatalog(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	if n, _ := s.ship.Behind(); n != 0 {
		s.t.Fatalf("%d databases behind", n)
	}
}

func (s *server) restorer() *Restorer {
	return &Restorer{Bucket: s.bucket, Temp: s.t.TempDir(), Now: s.clock}
}

// rebuilt is a directory that a server was restored into.
func (s *server) rebuilt(t Target) (*datadir.Dir, *Report) {
	s.t.Helper()
	dir, err := datadir.OpenEmpty(filepath.Join(s.t.TempDir(), "data"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { dir.Close() })
	report, err := s.restorer().Server(s.t.Context(), dir, t, nil)
	if err == nil {
		err = dir.Filled()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if report.Databases+len(report.Failed) != len(s.names(dir)) {
		s.t.Errorf("%+v of %d databases", report, len(s.names(dir)))
	}
	return dir, report
}

func (s *server) names(dir *datadir.Dir) (names []string) {
	s.t.Helper()
	list, err := listCatalog(s.t.Context(), dir.Catalog(), s.t.TempDir())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, d := range list {
		names = append(names, d.Name)
	}
	return names
}

// is checks that a directory has a database as it was at a position of the world's, with a history that has it at another.
func (s *server) is(dir *datadir.Dir, id string, was, at uint64) {
	s.t.Helper()
	b, err := os.ReadFile(databasePath(dir, id))
	if err != nil {
		s.t.Fatal(err)
	}
	if sum(b) != s.here(id, was) {
		s.t.Errorf("%s is not as it was at %d", id, was)
	}
	past, err := history.New(history.Options{Root: dir.History()})
	if err != nil {
		s.t.Fatal(err)
	}
	head, err := past.Head(id)
	if err != nil || !head.Known || head.Position != at {
		s.t.Errorf("%s: its history is %+v, want position %d: %v", id, head, at, err)
	}
	path := filepath.Join(s.t.TempDir(), "past.db")
	if err := past.Restore(s.t.Context(), id, at, path); err != nil {
		s.t.Fatal(err)
	}
	if restored, err := os.ReadFile(path); err != nil || !bytes.Equal(restored, b) {
		s.t.Errorf("%s: its history has something else: %v", id, err)
	}
}

// A server comes back with everything: databases that were never written to, those in the trash, at the latest moment and at a time.
func TestServer(t *testing.T) {
	s := newServer(t)
	one, two, gone := s.database("one"), s.database("two"), s.database("gone")
	s.database("never")
	for _, id := range []string{one, two, gone} {
		s.exec(id, "CREATE TABLE t(a)")
	}
	s.shipped()
	s.pass(time.Minute)
	s.exec(one, "INSERT INTO t VALUES('early')")
	s.shipped()
	then, at := s.clock(), s.position(one)
	s.pass(time.Hour)
	s.exec(one, "INSERT INTO t VALUES('late')")
	s.exec(two, "DROP TABLE t")
	late := s.database("late")
	s.exec(late, "CREATE TABLE t(a)")
	if _, err := s.cat.DeleteDatabase(t.Context(), gone, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	s.shipped()

	dir, report := s.rebuilt(Target{})
	if want := []string{"acme/gone (deleted)", "acme/late", "acme/never", "acme/one", "acme/two"}; !slices.Equal(s.names(dir), want) || report.Empty != 1 || len(report.Failed) != 0 {
		t.Errorf("%v, %+v", s.names(dir), report)
	}
	for _, id := range []string{one, two, gone, late} {
		s.is(dir, id, s.position(id), s.position(id))
	}
	dir, report = s.rebuilt(AtTime(then.UnixMilli()))
	if want := []string{"acme/gone", "acme/never", "acme/one", "acme/two"}; !slices.Equal(s.names(dir), want) || len(report.Failed) != 0 {
		t.Errorf("then: %v, %+v", s.names(dir), report)
	}
	s.is(dir, one, at, s.position(one)+1)
	s.is(dir, two, 1, s.position(two)+1)
	s.is(dir, gone, s.position(gone), s.position(gone))

	// A restored server goes on where the replica ends.
	past, err := history.New(history.Options{Root: dir.History()})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.New(store.Options{Dir: dir.Databases(), Temp: dir.Temp(), Past: past, Clock: s, Now: s.clock})
	if err != nil {
		t.Fatal(err)
	}
	again := New(Options{Bucket: s.bucket, Past: past, Server: "srv_a", Temp: dir.Temp(), Now: s.clock, Keep: st.Keep, Size: sizeIn(dir.Databases())})
	if err := again.ship(t.Context(), &track{id: two}, true); err != nil {
		t.Error(err)
	}
	if err := st.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(databasePath(dir, two))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.bucket.there(databasePrefix(two), txid(s.position(two)+1)); err != nil || got != sum(b) {
		t.Errorf("the replica does not have what was restored: %v", err)
	}
}

// What is damaged is named with its nearest moment, and the rest is there; without its catalog there is no server.
func TestServerOverDamage(t *testing.T) {
	s := newServer(t)
	one, two := s.database("one"), s.database("two")
	for _, id := range []string{one, two} {
		s.exec(id, "CREATE TABLE t(a)")
	}
	s.shipped()
	s.pass(time.Minute)
	s.exec(one, "INSERT INTO t VALUES(1)")
	s.shipped()
	newest := func(prefix string) string {
		list, err := listAll(t.Context(), s.bucket, prefix)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if f.last == list.end() {
				return f.key
			}
		}
		return ""
	}
	for key := range s.bucket.objects {
		if f := filepath.Base(key); strings.HasPrefix(key, databasePrefix(one)) && strings.HasSuffix(f, strings.TrimPrefix(filepath.Base(newest(databasePrefix(one))), f[:17])) {
			body := bytes.Clone(s.bucket.objects[key].body)
			body[len(body)/2] ^= 1
			s.bucket.objects[key] = object{body, s.bucket.objects[key].modified}
		}
	}
	dir, report := s.rebuilt(Target{})
	if report.Databases != 1 || len(report.Failed) != 1 || report.Failed[0].ID != one || report.Failed[0].Name != "acme/one" ||
		!strings.Contains(report.Failed[0].Error, "the nearest moment before it is ") || !strings.Contains(report.Failed[0].Error, history.Bookmark(one, 1)) {
		t.Errorf("%+v", report)
	}
	s.is(dir, two, 1, 1)
	if _, err := os.Stat(databasePath(dir, one)); err == nil {
		t.Error("the damaged one is there")
	}
	for key := range s.bucket.objects {
		if strings.HasPrefix(key, catalogName) {
			s.bucket.objects[key] = object{s.bucket.objects[key].body[:200], time.Time{}}
		}
	}
	empty, err := datadir.OpenEmpty(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	var gap *MomentError
	if _, err := s.restorer().Server(t.Context(), empty, Target{}, nil); !errors.As(err, &gap) {
		t.Errorf("a damaged catalog: %v", err)
	}
	s.bucket.objects = map[string]object{}
	if err := empty.Abandon(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.restorer().Server(t.Context(), empty, Target{}, nil); !errors.Is(err, ErrNoCatalog) {
		t.Errorf("an empty place: %v", err)
	}
}

// A backup has every database as it was at one moment, also while it is written to, and a later one beside it doesn't replace it. Its positions are greater than
// any that a replica of the server may have.
func TestBackup(t *testing.T) {
	s := newServer(t)
	one, never := s.database("one"), s.database("never")
	s.exec(one, "CREATE TABLE t(a)")
	to := newMemory()
	backup := &Backup{Bucket: to, Source: during{Opened{s.cat, s.Store}, func() { s.exec(one, "INSERT INTO t VALUES('meanwhile')") }}, Temp: t.TempDir(), Now: s.clock}
	first, err := backup.All(t.Context())
	if err != nil || first.Databases != 2 || first.Empty != 1 || len(first.Failed) != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	s.pass(time.Hour)
	s.exec(one, "INSERT INTO t VALUES('between')")
	second, err := backup.All(t.Context())
	if err != nil || second.Databases != 2 {
		t.Fatalf("%+v, %v", second, err)
	}
	s.pass(time.Hour)
	replica := s.bucket
	s.bucket = to
	ms := uint64(s.clock().UnixMilli())
	dir, report := s.rebuilt(Target{})
	if report.Databases != 2 || !report.Time.Equal(second.Time) {
		t.Errorf("%+v", report)
	}
	s.is(dir, one, 3, ms)
	s.is(dir, never, 0, ms)
	dir, _ = s.rebuilt(AtTime(first.Time.UnixMilli()))
	s.is(dir, one, 1, ms)

	s.bucket = replica
	backup.Bucket = newMemory()
	if report, err := backup.One(t.Context(), "acme/one"); err != nil || report.Databases != 1 {
		t.Errorf("one: %+v, %v", report, err)
	}
	alone := &Restorer{Bucket: backup.Bucket, Temp: t.TempDir()}
	if d, err := alone.Find(t.Context(), Target{}, one); err != nil || d.ID != one {
		t.Errorf("found by its id: %v, %v", d, err)
	}
	if _, err := alone.Find(t.Context(), Target{}, "acme/one"); !errors.Is(err, ErrNoDatabase) || !strings.Contains(err.Error(), one) {
		t.Errorf("found by its name where no catalog is: %v", err)
	}
	if _, err := backup.One(t.Context(), "acme/two"); !errors.Is(err, ErrNoDatabase) {
		t.Errorf("none: %v", err)
	}
	backup.Bucket = replica
	if _, err := backup.All(t.Context()); !errors.Is(err, ErrReplica) {
		t.Errorf("into the replica: %v", err)
	}
	// What is wrong with one database holds up no other.
	if err := os.WriteFile(filepath.Join(s.root, "db", never[len(never)-2:], never+".db"), []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.restart(true)
	backup.Bucket, backup.Source = newMemory(), Opened{s.cat, s.Store}
	if report, err := backup.All(t.Context()); err != nil || report.Databases != 1 || len(report.Failed) != 1 || report.Failed[0].Name != "acme/never" {
		t.Errorf("with a damaged one: %+v, %v", report, err)
	}
	// A file that was written to while it was read doesn't count.
	backup.Bucket, backup.Source = newMemory(), broken{Opened{s.cat, s.Store}}
	if _, err := backup.All(t.Context()); !errors.Is(err, errGone) || backup.Bucket.(*memory).ops["put"] != 0 {
		t.Errorf("from a server that ended: %v", err)
	}
}

// during is a source of which something happens while a file is read.
type during struct {
	Opened
	meanwhile func()
}

func (d during) Pin(ctx context.Context, id string) (store.Pinned, func() error, error) {
	p, release, err := d.Opened.Pin(ctx, id)
	if err == nil && p.Position > 0 {
		d.meanwhile()
	}
	return p, release, err
}

var errGone = errors.New("gone")

// broken is a source whose files can't be relied on.
type broken struct{ Opened }

func (b broken) Pin(ctx context.Context, id string) (store.Pinned, func() error, error) {
	p, release, err := b.Opened.Pin(ctx, id)
	return p, func() error { return errors.Join(errGone, release()) }, err
}

// One database is replaced in a directory, with what a crash left in its log; its history goes on, and the replica with it.
func TestReplace(t *testing.T) {
	s := newServer(t)
	one := s.database("one")
	s.exec(one, "CREATE TABLE t(a)")
	s.shipped()
	s.pass(time.Minute)
	s.exec(one, "INSERT INTO t VALUES(1)")
	s.shipped()
	s.pass(time.Minute)
	s.exec(one, "DELETE FROM t")
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir, err := datadir.Open(s.root)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := FindIn(s.cat, "acme/one"); err != nil || d.ID != one {
		t.Errorf("%v, %v", d, err)
	}
	got, at, err := s.restorer().Replace(t.Context(), dir, one, Target{})
	if err != nil || got.Position != 2 || at != 4 {
		t.Fatalf("%+v at %d, %v", got, at, err)
	}
	s.is(dir, one, 2, 4)
	if got, at, err = s.restorer().Replace(t.Context(), dir, one, AtPosition(1)); err != nil || got.Position != 1 || at != 5 {
		t.Fatalf("%+v at %d, %v", got, at, err)
	}
	s.is(dir, one, 1, 5)
	var gap *MomentError
	if _, _, err := s.restorer().Replace(t.Context(), dir, one, AtPosition(9)); !errors.As(err, &gap) {
		t.Errorf("what isn't there: %v", err)
	}
	s.is(dir, one, 1, 5)
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.ship.reconcile()
	s.exec(one, "INSERT INTO t VALUES(2)")
	s.pass(3 * time.Second)
	s.round()
	if got, err := s.bucket.there(databasePrefix(one), txid(6)); err != nil || got != s.here(one, 6) {
		t.Errorf("the replica: %v", err)
	}
}

// A name means what lives, else the one of the trash.
func TestFind(t *testing.T) {
	list := []Named{{"db_1", "acme/a"}, {"db_2", "acme/a (deleted)"}, {"db_3", "acme/b (deleted)"}, {"db_4", "acme/c (deleted)"}, {"db_5", "acme/c (deleted)"}}
	for name, want := range map[string]string{"acme/a": "db_1", "db_2": "db_2", "acme/b": "db_3", "acme/c": "", "acme/d": ""} {
		got, err := find(list, name)
		if got.ID != want || (err == nil) != (want != "") {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := find(list, "acme/c"); !strings.Contains(err.Error(), "db_4, db_5") {
		t.Error(err)
	}
}

// A database that is deleted before it was shipped is shipped all the same: it is in the trash.
func TestDeletedWhileBehind(t *testing.T) {
	w := newWorld(t)
	w.exec(shop, "CREATE TABLE t(a)")
	w.pass(3 * time.Second)
	if err := w.Retire(t.Context(), shop); err != nil {
		t.Fatal(err)
	}
	w.round()
	if n, _ := w.ship.Behind(); n != 0 {
		t.Errorf("%d databases behind", n)
	}
	if got, err := w.bucket.there(databasePrefix(shop), txid(1)); err != nil || got != w.here(shop, 1) {
		t.Errorf("the replica: %v", err)
	}
}

// What a crash leaves of a replacement is settled at the next opening: the database is the one from before, or the restored one, and its history agrees.
func TestReplaceInterrupted(t *testing.T) {
	for _, moved := range []bool{false, true} {
		s := newServer(t)
		one := s.database("one")
		s.exec(one, "CREATE TABLE t(a)")
		s.shipped()
		s.exec(one, "INSERT INTO t VALUES(1)")
		if err := s.Keep(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		before := s.here(one, s.position(one))
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		dir, err := datadir.Open(s.root)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir.Temp(), "restored.db")
		if _, err := s.restorer().Database(t.Context(), one, Target{}, path); err != nil {
			t.Fatal(err)
		}
		restored, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		past, err := history.New(history.Options{Root: dir.History()})
		if err != nil {
			t.Fatal(err)
		}
		if err := addBase(t.Context(), past, one, 3, s.clock().UnixMilli(), path, true); err != nil {
			t.Fatal(err)
		}
		want, at := before, uint64(2)
		if moved {
			if err := moveIn(dir, one, path); err != nil {
				t.Fatal(err)
			}
			want, at = sum(restored), 3
		}
		if err := dir.Close(); err != nil {
			t.Fatal(err)
		}
		s.start()
		if got := s.position(one); got != at || s.here(one, at) != want {
			t.Errorf("moved %v: position %d, want %d, or something else", moved, got, at)
		}
		s.exec(one, "INSERT INTO t VALUES(2)")
		if got := s.position(one); got != at+1 {
			t.Errorf("moved %v: the next position is %d", moved, got)
		}
	}
}
