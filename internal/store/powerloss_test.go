package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

// The acknowledgements that a power loss must not undo.
type (
	created  struct{ db string }
	wrote    struct{ db, client, n int }
	deleting struct{ db string } // asked for: it may be whole or gone, not older
	deleted  struct{ db string }
)

// recorded makes the store's own work on files part of the recording.
func recorded(rec *crashfs.Recorder) store.Files {
	return store.Files{
		Open: func(path string, flag int, perm fs.FileMode) (store.File, error) {
			return rec.OpenFile(path, flag, perm)
		},
		SyncDir: rec.SyncDir,
		Mkdir:   func(dir string) error { return rec.Mkdir(dir, 0o700) },
		Remove:  rec.Remove,
		Rename:  rec.Rename,
		Copy: func(_ context.Context, from *os.File, path string) error {
			data, err := io.ReadAll(from)
			if err != nil {
				return err
			}
			return rec.WriteFile(path, data, 0o600)
		},
	}
}

func dbName(n int) string { return fmt.Sprintf("db_loss_%02d", n) }

// work is what the clients do while the power may fail.
type work struct {
	databases, clients, writes int
	bytes                      int    // of a write: the log of a database is copied back after 4 MB
	drop                       string // the syncs that don't happen
	late                       bool   // they do until all databases are made
}

// live does the work on a recorded disk and returns the recording.
func (w work) live(t *testing.T) *crashfs.Recorder {
	t.Helper()
	if err := sqlite.Initialize(sqlite.Setup{}); err != nil {
		t.Fatal(err)
	}
	rec, err := crashfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	vfs, err := rec.VFS()
	if err != nil {
		t.Fatal(err)
	}
	if w.drop != "" && !w.late {
		rec.DropSyncs(w.drop)
	}
	// One open database at most: each use of another closes one, with a checkpoint.
	s, err := store.New(store.Options{Dir: rec.Root(), VFS: vfs, Files: recorded(rec), MaxOpen: 1, StatementTimeout: time.Minute, Meter: &meter{}})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for db := range w.databases {
		id := dbName(db)
		if err := s.Create(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		rec.Mark(created{id})
		h := &house{t: t, Store: s, payer: "tok_a"}
		made := script("CREATE TABLE t(client, n, body, PRIMARY KEY(client, n))", "CREATE TABLE total(n)", "INSERT INTO total VALUES(0)", "CREATE TABLE big(a)", "INSERT INTO big VALUES(0)")
		if h.on(id, made); made.err != nil {
			t.Fatal(made.err)
		}
		for client := range w.clients {
			all.Go(func() {
				for n := range w.writes {
					j := script(
						fmt.Sprintf("INSERT INTO t VALUES(%d, %d, zeroblob(%d))", client, n, n*37%900),
						"UPDATE total SET n=n+1",
						fmt.Sprintf("UPDATE big SET a=randomblob(%d)", w.bytes))
					if h.on(id, j); j.err != nil {
						t.Error(j.err)
					}
					rec.Mark(wrote{db, client, n})
				}
			})
		}
	}
	if w.late {
		rec.DropSyncs(w.drop)
	}
	all.Wait()
	for db := 1; db < w.databases; db += 2 { // into the trash and back: what was written before and after stands
		id := dbName(db)
		if err := s.Retire(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		if err := s.Admit(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		j := script(fmt.Sprintf("INSERT INTO t VALUES(%d, 0, NULL)", w.clients), "UPDATE total SET n=n+1")
		if (&house{t: t, Store: s, payer: "tok_a"}).on(id, j); j.err != nil {
			t.Error(j.err)
		}
		rec.Mark(wrote{db, w.clients, 0})
	}
	for db := 0; db < w.databases; db += 2 {
		rec.Mark(deleting{dbName(db)})
		if err := s.Delete(context.Background(), dbName(db)); err != nil {
			t.Fatal(err)
		}
		rec.Mark(deleted{dbName(db)})
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := rec.Verify(); err != nil {
		t.Fatal(err)
	}
	return rec
}

// stands checks that everything that was acknowledged is there after a power loss.
func stands(c crashfs.Crash) (err error) {
	want := map[string][]wrote{}
	gone := map[string]int{} // 1: perhaps, 2: certainly
	for _, a := range c.Acked {
		switch a := a.(type) {
		case created:
			want[a.db] = nil
		case wrote:
			want[dbName(a.db)] = append(want[dbName(a.db)], a)
		case deleting:
			gone[a.db] = 1
		case deleted:
			gone[a.db] = 2
		}
	}
	thread := sqlite.NewThread()
	defer thread.Close()
	for id, writes := range want {
		path := filepath.Join(c.Dir, id[len(id)-2:], id+".db")
		fi, err := os.Stat(path)
		there := err == nil
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case gone[id] == 2 && there:
			return fmt.Errorf("database %s is back after its deletion", id)
		case gone[id] == 0 && !there:
			return fmt.Errorf("database %s is lost", id)
		case !there:
			continue
		}
		if fi.Size() == 0 {
			return fmt.Errorf("database %s is empty", id)
		}
		if err := holds(path, thread, writes); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}

// holds checks one database. It opens the file as the store does, but closes it without the checkpoint, whose syncs
// would take most of the test's time.
func holds(path string, thread *sqlite.Thread, writes []wrote) (err error) {
	conn, err := sqlite.Open(sqlite.Config{Path: path}, thread)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	column := func(sql string) (rows []string, err error) {
		st, err := conn.Own(sql)
		if err != nil {
			return nil, err
		}
		defer st.Done()
		for {
			more, err := st.Step()
			if err != nil || !more {
				return rows, err
			}
			if v := st.Column(0); v.Kind == sqlite.Integer {
				rows = append(rows, fmt.Sprint(v.Int))
			} else {
				rows = append(rows, string(v.Bytes))
			}
		}
	}
	if got, err := column("PRAGMA integrity_check"); err != nil || got[0] != "ok" {
		return fmt.Errorf("check integrity: %v, %w", got, err)
	}
	tables, err := column("SELECT name FROM sqlite_schema WHERE type='table'")
	if err != nil || len(tables) == 0 && len(writes) == 0 {
		return err // its tables were not acknowledged
	}
	if len(tables) != 4 { // and that of the counts
		return fmt.Errorf("tables %v", tables)
	}
	rows, err := column("SELECT client || '.' || n FROM t")
	if err != nil {
		return err
	}
	if total, err := column("SELECT n FROM total"); err != nil || total[0] != fmt.Sprint(len(rows)) {
		return fmt.Errorf("half a transaction: %d rows, counted as %v, %w", len(rows), total, err)
	}
	// A write and its count, and one of the making of the tables.
	if counted, err := column("SELECT sum(requests) FROM sqlite_persql_meter_v1"); err != nil || counted[0] != fmt.Sprint(len(rows)+1) {
		return fmt.Errorf("%d requests are there, and counted as %v, %w", len(rows)+1, counted, err)
	}
	have := map[string]bool{}
	for _, r := range rows {
		have[r] = true
	}
	for _, a := range writes {
		if !have[fmt.Sprintf("%d.%d", a.client, a.n)] {
			return fmt.Errorf("write %d of client %d is lost, %d rows are there", a.n, a.client, len(have))
		}
	}
	return nil
}

func TestAcknowledgedStandsAfterPowerLoss(t *testing.T) {
	for _, tt := range []struct {
		name    string
		crashes int
		work    work
	}{
		{"many small writes", 900, work{databases: 4, clients: 3, writes: 14, bytes: 10}},
		{"checkpoints under load", 200, work{databases: 1, clients: 2, writes: 25, bytes: 200_000}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec := tt.work.live(t)
			if err := rec.Log().Crashes(tt.crashes, 7, t.TempDir(), stands); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The test above would notice.
func TestMissingSyncIsFound(t *testing.T) {
	for _, tt := range []struct {
		name, pattern string
		late          bool
		checkpoints   bool
	}{
		{"log", `.*-wal`, false, false},
		{"log, later", `.*-wal`, true, false},
		{"file at creation", `.*\.db`, false, false},
		{"file at checkpoints", `.*\.db`, true, true},
		{"tenants' directory", `\d\d`, false, false},
		{"directory at deletion", `\d\d`, true, false},
		{"root", `\.`, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			load := work{databases: 4, clients: 2, writes: 12, bytes: 10, drop: tt.pattern, late: tt.late}
			if tt.checkpoints {
				load.databases, load.writes, load.bytes = 1, 25, 200_000 // enough for the log to begin anew
			}
			rec := load.live(t)
			err := rec.Log().Crashes(400, 7, t.TempDir(), stands)
			var loss *crashfs.CrashError
			if !errors.As(err, &loss) {
				t.Fatalf("got %v, want a loss", err)
			}
			t.Log(loss)
		})
	}
}

// A creation finds its directory made, by one whose sync has not happened: the process ended, or it is still under way.
func TestCreationStandsInADirectoryOfAnother(t *testing.T) {
	rec, err := crashfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	id := dbName(1)
	if err := rec.Mkdir(filepath.Join(rec.Root(), id[len(id)-2:]), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := store.New(store.Options{Dir: rec.Root(), Files: recorded(rec)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	if err := s.Create(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	rec.Mark(created{id})
	for seed := range uint64(50) { // of what is lost when the power fails after the answer
		if err := rec.Log().Crashes(1, seed, t.TempDir(), stands); err != nil {
			t.Fatal(err)
		}
	}
}

// What the journal tells and what the rows are stand together after a power loss, and the numbers go on without a gap.
func TestJournalAndRowsStandTogether(t *testing.T) {
	if err := sqlite.Initialize(sqlite.Setup{}); err != nil {
		t.Fatal(err)
	}
	rec, err := crashfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	vfs, err := rec.VFS()
	if err != nil {
		t.Fatal(err)
	}
	e := &ear{}
	s, err := store.New(store.Options{Dir: rec.Root(), VFS: vfs, Files: recorded(rec), Feed: e})
	if err != nil {
		t.Fatal(err)
	}
	id := dbName(1)
	if err := s.Create(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, Store: s}
	h.on(id, script("CREATE TABLE t(a)"))
	first, err := s.Listen(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	type acked struct{ rows int }
	rec.Mark(acked{0})
	for n := range 40 {
		j := script("INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(zeroblob(3000))")
		if h.on(id, j); j.err != nil {
			t.Fatal(j.err)
		}
		rec.Mark(acked{2 * (n + 1)})
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	err = rec.Log().Crashes(300, 7, t.TempDir(), func(c crashfs.Crash) error {
		want := -1
		for _, a := range c.Acked {
			want = max(want, a.(acked).rows)
		}
		if want < 0 {
			return nil
		}
		again, err := store.New(store.Options{Dir: c.Dir, Feed: &ear{}})
		if err != nil {
			return err
		}
		defer again.Close(context.Background())
		list, err := again.Journal(context.Background(), id, first, 0)
		if err != nil {
			return err
		}
		told := 0
		for _, b := range list {
			if err := b.Each(func(*store.RowChange) error { told++; return nil }); err != nil {
				return err
			}
		}
		j := script("SELECT count(*) FROM t")
		if (&house{t: t, Store: again}).on(id, j); j.err != nil {
			return j.err
		}
		if rows := j.results[0].rows; rows != fmt.Sprint(told) || told < want {
			return fmt.Errorf("%s rows, %d changes, %d acknowledged", rows, told, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
