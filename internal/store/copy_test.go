package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

// edit runs statements on a file that nobody else has open, and leaves no log beside it.
func edit(path string, stmts ...string) (rows string, err error) {
	thread := sqlite.NewThread()
	defer thread.Close()
	conn, err := sqlite.Open(sqlite.Config{Path: path}, thread)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Checkpoint(sqlite.CheckpointTruncate), conn.Close()) }()
	var got []string
	for _, sql := range stmts {
		st, err := conn.Own(sql)
		if err != nil {
			return "", err
		}
		got = got[:0]
		for {
			more, err := st.Step()
			if err != nil {
				st.Done()
				return "", err
			}
			if !more {
				break
			}
			if v := st.Column(0); v.Kind == sqlite.Integer {
				got = append(got, fmt.Sprint(v.Int))
			} else {
				got = append(got, string(v.Bytes))
			}
		}
		st.Done()
	}
	return strings.Join(got, " "), nil
}

func editT(t *testing.T, path string, stmts ...string) string {
	t.Helper()
	rows, err := edit(path, stmts...)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// held makes copies wait until they are let go.
type held struct{ begun, goOn chan struct{} }

func newHeld(opt *store.Options) held {
	h := held{make(chan struct{}, 8), make(chan struct{})}
	opt.Files.Copy = func(ctx context.Context, from *os.File, path string) error {
		h.begun <- struct{}{}
		<-h.goOn
		data := make([]byte, 1<<20)
		var all []byte
		for {
			n, err := from.Read(data)
			all = append(all, data[:n]...)
			if err != nil {
				break
			}
		}
		return os.WriteFile(path, all, 0o600)
	}
	return h
}

const fill = "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c WHERE n<1500) INSERT INTO big SELECT zeroblob(4000) FROM c"

// A copy is the database of one moment, though the database goes on being written, checkpointed, closed and opened.
func TestCopyIsOfOneMoment(t *testing.T) {
	opt := store.Options{MaxOpen: 1}
	held := newHeld(&opt)
	h := newHouse(t, opt, "CREATE TABLE t(a)", "CREATE TABLE big(a)", "INSERT INTO t VALUES(1)")
	other := "db_otherone"
	if err := h.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "copy.db")
	copied := make(chan error, 1)
	go func() { copied <- h.Copy(t.Context(), database, to) }()
	<-held.begun
	// More than a checkpoint waits for, the closing that another database asks for, and the rest of an idle one.
	h.must("INSERT INTO t VALUES(2)", fill, fill, "DELETE FROM big", "INSERT INTO t VALUES(3)")
	for range 12 {
		j := script("SELECT 1")
		if h.on(other, j); j.err != nil {
			t.Fatal(j.err)
		}
	}
	h.must("INSERT INTO t VALUES(4)", fill)

	// Another copy waits for what it would have to copy back.
	again := filepath.Join(t.TempDir(), "again.db")
	go func() { copied <- h.Copy(t.Context(), database, again) }()
	held.goOn <- struct{}{}
	if err := <-copied; err != nil {
		t.Fatal(err)
	}
	<-held.begun
	held.goOn <- struct{}{}
	if err := <-copied; err != nil {
		t.Fatal(err)
	}
	if got := editT(t, to, "PRAGMA integrity_check"); got != "ok" {
		t.Errorf("integrity: %s", got)
	}
	if got := editT(t, to, "SELECT a FROM t ORDER BY a"); got != "1" {
		t.Errorf("rows %s, want 1", got)
	}
	if got := editT(t, again, "SELECT a FROM t ORDER BY a"); got != "1 2 3 4" {
		t.Errorf("rows of the second copy %s, want 1 2 3 4", got)
	}
	h.sound()
	h.restart()
	if got := h.rows("SELECT a FROM t ORDER BY a"); got != "1 2 3 4" {
		t.Errorf("rows %s, want 1 2 3 4", got)
	}
}

func TestCopyThatEndsEarlyLeavesNothing(t *testing.T) {
	h := newHouse(t, store.Options{}, "CREATE TABLE t(a)")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	to := filepath.Join(t.TempDir(), "copy.db")
	wantErr(t, "copy", h.Copy(ctx, database, to), context.Canceled)
	if err := os.WriteFile(to, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Copy(t.Context(), database, to); err == nil {
		t.Error("a copy took the place of a file")
	}
	wantErr(t, "copy of a database that isn't there", h.Copy(t.Context(), "db_nowhere1", filepath.Join(t.TempDir(), "x")), store.ErrDamaged)
	h.must("INSERT INTO t VALUES(1)")
}

// While a database is being replaced reads go on and writes are refused; then the new one is there.
func TestRebuild(t *testing.T) {
	for _, keep := range []bool{true, false} {
		t.Run(fmt.Sprint("keep ", keep), func(t *testing.T) {
			h := newHouse(t, store.Options{}, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
			err := h.Rebuild(t.Context(), database, map[bool]store.Beginning{true: store.FromCopy}[keep], nil, func(path string) error {
				if got := h.rows("SELECT a FROM t"); got != "1" {
					t.Errorf("rows while it is replaced: %s", got)
				}
				for _, sql := range []string{"INSERT INTO t VALUES(9)", "VACUUM", "CREATE TABLE x(a)"} {
					wantErr(t, sql, h.do(script(sql)).err, store.ErrRebuilding)
				}
				partly := h.do(steps("SELECT 1", "INSERT INTO t VALUES(9)"))
				wantErr(t, "step of a batch", partly.failed, store.ErrRebuilding)
				key := script()
				key.hook = func(_ int, tx *store.Tx) error { return tx.Keep(store.Key{}, nil) }
				wantErr(t, "keep", h.do(key).err, store.ErrRebuilding)
				wantErr(t, "another", h.Rebuild(t.Context(), database, store.FromCopy, nil, func(string) error { return nil }), store.ErrRebuilding)
				if keep {
					editT(t, path, "INSERT INTO t VALUES(2)")
				} else {
					editT(t, path, "CREATE TABLE t(a)", "INSERT INTO t VALUES(3)")
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			want := "1 2"
			if !keep {
				want = "3"
			}
			if got := h.rows("SELECT a FROM t ORDER BY a"); got != want {
				t.Errorf("rows %s, want %s", got, want)
			}
			h.must("INSERT INTO t VALUES(4)")
			h.sound()
			if k := h.killed(); k.rows("SELECT a FROM t ORDER BY a") != want+" 4" {
				t.Errorf("rows after kill -9: %s", k.rows("SELECT a FROM t ORDER BY a"))
			}
			h.restart()
			if got := h.rows("SELECT a FROM t ORDER BY a"); got != want+" 4" {
				t.Errorf("rows after a restart: %s", got)
			}
			if left, _ := filepath.Glob(filepath.Join(h.opt.Dir, "rebuild-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// failing is a file whose sync fails.
type failing struct {
	store.File
	err error
}

func (f failing) Sync() error { return f.err }

func TestRebuildThatFailsChangesNothing(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name  string
		files func(f *store.Files)
		build func(h *house, path string) error
		want  error
	}{
		{"the builder", nil, func(*house, string) error { return boom }, boom},
		{"the file is gone", nil, func(_ *house, path string) error { return os.Remove(path) }, os.ErrNotExist},
		{"its sync", func(f *store.Files) {
			f.Open = func(path string, flag int, perm fs.FileMode) (store.File, error) {
				file, err := os.OpenFile(path, flag, perm)
				if strings.Contains(path, "rebuild-") {
					return failing{file, boom}, err
				}
				return file, err
			}
		}, nil, boom},
		{"the rename", func(f *store.Files) { f.Rename = func(string, string) error { return boom } }, nil, boom},
		{"the database was deleted", nil, func(h *house, _ string) error { return h.Delete(context.Background(), database) }, store.ErrNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opt := store.Options{}
			if tt.files != nil {
				tt.files(&opt.Files)
			}
			h := newHouse(t, opt, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
			err := h.Rebuild(t.Context(), database, store.FromCopy, nil, func(path string) error {
				editT(t, path, "INSERT INTO t VALUES(2)")
				if tt.build != nil {
					return tt.build(h, path)
				}
				return nil
			})
			wantErr(t, "rebuild", err, tt.want)
			if tt.want == store.ErrNotFound {
				return
			}
			h.must("INSERT INTO t VALUES(3)")
			h.restart()
			if got := h.rows("SELECT a FROM t ORDER BY a"); got != "1 3" {
				t.Errorf("rows %s, want 1 3", got)
			}
			h.sound()
		})
	}
}

// rebuilt is acknowledged when a replacement returned.
type rebuilt struct{ n int }

func rebuilding(t *testing.T, times int) *crashfs.Recorder {
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
	s, err := store.New(store.Options{Dir: rec.Root(), VFS: vfs, Files: recorded(rec)})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, Store: s, rec: rec}
	if err := s.Create(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	h.must("CREATE TABLE t(a)", "CREATE TABLE generation(n)", "INSERT INTO generation VALUES(0)")
	rec.Mark(rebuilt{0})
	for n := 1; n <= times; n++ {
		for i := range 4 {
			// Many pages, so that a log which came back would show.
			h.must(fmt.Sprintf("INSERT INTO t VALUES(%d), (zeroblob(9000))", 10*n+i))
			rec.Mark(wrote{n: 10*n + i})
		}
		permit := store.Permit{ID: fmt.Sprint(n), Until: time.Now().Add(time.Hour)}
		err := s.Rebuild(t.Context(), database, store.FromCopy, &store.Along{Permit: &permit}, func(path string) error {
			if _, err := edit(path, "UPDATE generation SET n=n+1", "INSERT INTO t SELECT -n FROM generation", "DELETE FROM t WHERE typeof(a)='blob'"); err != nil {
				return err
			}
			return rec.Capture(path)
		})
		if err != nil {
			t.Fatal(err)
		}
		rec.Mark(rebuilt{n})
	}
	if err := errors.Join(s.Close(context.Background()), rec.Verify()); err != nil {
		t.Fatal(err)
	}
	return rec
}

// Whenever the power fails, the database is the old one or the new one, whole, and none of what was acknowledged is
// missing.
func TestRebuildStandsAfterPowerLoss(t *testing.T) {
	for _, tt := range []struct{ times, crashes int }{{5, 300}, {1, 1500}} { // often in the few moments of one swap
		if err := rebuilding(t, tt.times).Log().Crashes(tt.crashes, 5, t.TempDir(), rebuildStands); err != nil {
			t.Fatal(err)
		}
	}
}

func rebuildStands(c crashfs.Crash) error {
	want, rows := -1, []string{}
	for _, a := range c.Acked {
		switch a := a.(type) {
		case rebuilt:
			want = a.n
		case wrote:
			rows = append(rows, fmt.Sprint(a.n))
		}
	}
	if want < 0 {
		return nil
	}
	path := filepath.Join(c.Dir, database[len(database)-2:], database+".db")
	if got, err := edit(path, "PRAGMA integrity_check"); err != nil || got != "ok" {
		return fmt.Errorf("integrity: %s, %v", got, err)
	}
	if got, err := edit(path, "SELECT n FROM generation"); err != nil || got != fmt.Sprint(want) && got != fmt.Sprint(want+1) {
		return fmt.Errorf("generation %s, want %d: %v", got, want, err)
	}
	// A log that came back would take the new file's pages away.
	if got, err := edit(path, "SELECT (SELECT n FROM generation) - (SELECT count(*) FROM t WHERE a<0)"); err != nil || got != "0" {
		return fmt.Errorf("half of a new file: %s, %v", got, err)
	}
	// A permission is used when, and only when, what it was for is there. The table is made with the first.
	spent := "(SELECT count(*) FROM sqlite_persql_spent_v1)"
	if there, _ := edit(path, "SELECT count(*) FROM sqlite_schema WHERE name='sqlite_persql_spent_v1'"); there == "0" {
		spent = "0"
	}
	if got, err := edit(path, "SELECT (SELECT n FROM generation) - "+spent); err != nil || got != "0" {
		return fmt.Errorf("a permission without its write, or the other way round: %s, %v", got, err)
	}
	got, err := edit(path, "SELECT a FROM t WHERE typeof(a)='integer' AND a>0 ORDER BY a")
	if err != nil {
		return err
	}
	have := strings.Fields(got)
	if len(have) < len(rows) {
		return fmt.Errorf("rows %v, want %v at least", have, rows)
	}
	for i, r := range rows {
		if have[i] != r {
			return fmt.Errorf("rows %v, want %v", have, rows)
		}
	}
	return nil
}

// A file system that shares blocks is asked to, and then nothing is copied; another one's file is copied.
func TestCloneIsTaken(t *testing.T) {
	for _, can := range []bool{true, false} {
		var read int64
		cloned := 0
		h := newHouse(t, store.Options{Files: store.Files{Copy: func(ctx context.Context, from *os.File, path string) error {
			err := store.Copier(func(from, to *os.File) error {
				if !can {
					return syscall.EOPNOTSUPP
				}
				cloned++
				whole, err := os.ReadFile(from.Name()) // as a file system would, beside the two files' own reading and writing
				if err != nil {
					return err
				}
				return os.WriteFile(to.Name(), whole, 0o600)
			})(ctx, from, path)
			read, _ = from.Seek(0, io.SeekCurrent)
			return err
		}}}, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n < 3000) INSERT INTO t SELECT n, randomblob(3000) FROM s")
		h.fork()
		h.branch("UPDATE t SET b = 'mine' WHERE a = 7")
		path := filepath.Join(t.TempDir(), "again.db")
		if err := h.Copy(t.Context(), forked, path); err != nil {
			t.Fatal(err)
		}
		if got := editT(t, path, "SELECT count(*) || (SELECT b FROM t WHERE a = 7) FROM t"); got != "3000mine" {
			t.Errorf("can %t: the copy has %s", can, got)
		}
		if can && (cloned != 2 || read != 0) || !can && read < 3000*3000 {
			t.Errorf("can %t: %d clones, %d bytes read", can, cloned, read)
		}
	}
}
