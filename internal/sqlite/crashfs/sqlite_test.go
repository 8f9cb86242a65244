package crashfs_test

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/persqld/persqld/internal/sqlite/crashfs"
)

// crashes is how many power losses a test over a whole log simulates.
const crashes = 350

func record(tb testing.TB) *crashfs.Recorder {
	tb.Helper()
	rec, err := crashfs.New(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := rec.Close(); err != nil {
			tb.Error(err)
		}
	})
	return rec
}

// open opens one connection; an empty vfs is the default one.
func open(tb testing.TB, path, vfs string, pragmas ...string) *sql.DB {
	tb.Helper()
	q := url.Values{"_pragma": pragmas}
	if vfs != "" {
		q.Set("vfs", vfs)
	}
	db, err := sql.Open("sqlite", "file:"+path+"?"+q.Encode())
	if err != nil {
		tb.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	tb.Cleanup(func() { db.Close() })
	return db
}

func exec(tb testing.TB, db *sql.DB, query string, args ...any) {
	tb.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
}

// commits writes rows, each committed and then marked with its id, updates old
// ones beside it, and checkpoints in the ways that SQLite knows.
func commits(tb testing.TB, rec *crashfs.Recorder, db *sql.DB, n int) {
	tb.Helper()
	exec(tb, db, `CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT, n INTEGER)`)
	exec(tb, db, `CREATE INDEX t_n ON t(n, id)`)
	exec(tb, db, `CREATE TABLE total(n INTEGER)`)
	exec(tb, db, `INSERT INTO total VALUES (0)`)
	for id := range n {
		tx, err := db.Begin()
		if err != nil {
			tb.Fatal(err)
		}
		for _, q := range []string{
			fmt.Sprintf(`INSERT INTO t VALUES (%d, '%s', %d)`, id, strings.Repeat("x", id*37%900), id%7),
			fmt.Sprintf(`UPDATE t SET n = n + 1 WHERE id = %d`, id*31%(id+1)),
			`UPDATE total SET n = n + 1`,
		} {
			if _, err := tx.Exec(q); err != nil {
				tb.Fatalf("%s: %v", q, err)
			}
		}
		if err := tx.Commit(); err != nil {
			tb.Fatal(err)
		}
		rec.Mark(id)
		switch id % 60 {
		case 20:
			exec(tb, db, `PRAGMA wal_checkpoint(PASSIVE)`)
		case 40:
			exec(tb, db, `PRAGMA wal_checkpoint(TRUNCATE)`)
		case 59:
			exec(tb, db, `PRAGMA wal_checkpoint(RESTART)`)
		}
	}
}

// intact says whether the database of a replayed directory is sound and holds
// every acknowledged row and no half transaction.
func intact(c crashfs.Crash) error {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(c.Dir, "a.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	var verdict string
	if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&verdict); err != nil {
		return fmt.Errorf("check integrity: %w", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("check integrity: %s", verdict)
	}
	if len(c.Acked) == 0 {
		return nil
	}
	var count, highest, total int
	if err := db.QueryRow(`SELECT count(*), coalesce(max(id), -1), (SELECT n FROM total) FROM t`).Scan(&count, &highest, &total); err != nil {
		return fmt.Errorf("read rows: %w", err)
	}
	if last := c.Acked[len(c.Acked)-1].(int); highest < last {
		return fmt.Errorf("row %d was acknowledged, the last one there is %d", last, highest)
	}
	if count != highest+1 || total != count {
		return fmt.Errorf("%d rows up to %d, counted as %d", count, highest, total)
	}
	return nil
}

func TestCommitsStandAfterPowerLoss(t *testing.T) {
	tests := []struct {
		name    string
		pragmas []string
	}{
		{"wal", []string{"journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(0)"}},
		{"wal exclusive", []string{"locking_mode(exclusive)", "journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(0)"}},
		{"wal with its own checkpoints", []string{"journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(10)"}},
		{"rollback journal", []string{"journal_mode(delete)", "synchronous(extra)"}},
		{"kept journal", []string{"journal_mode(persist)", "synchronous(extra)"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := record(t)
			vfs, err := rec.VFS()
			if err != nil {
				t.Fatal(err)
			}
			db := open(t, filepath.Join(rec.Root(), "a.db"), vfs, tt.pragmas...)
			commits(t, rec, db, 240)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if err := rec.Verify(); err != nil {
				t.Fatal(err)
			}
			if err := rec.Log().Crashes(crashes, 1, t.TempDir(), intact); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestDroppedSyncLosesCommits(t *testing.T) {
	wal := []string{"journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(0)"}
	rollback := []string{"journal_mode(delete)", "synchronous(extra)"}
	tests := []struct {
		name, drop string
		fromStart  bool // else after the database was made
		pragmas    []string
	}{
		{"log", `.*-wal`, false, wal},
		{"log exclusive", `.*-wal`, false, append([]string{"locking_mode(exclusive)"}, wal...)},
		{"log from the start", `.*-wal`, true, wal},
		{"database at checkpoints", `.*\.db`, false, wal},
		{"directory", `\.`, true, wal},
		{"journal", `.*-journal`, false, rollback},
		{"database in rollback mode", `.*\.db`, false, rollback},
		// SQLite syncs the directory after removing a journal with EXTRA only: with
		// FULL the journal may be back and roll the last commit back.
		{"removed journal", `nothing else`, true, []string{"journal_mode(delete)", "synchronous(full)"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := record(t)
			vfs, err := rec.VFS()
			if err != nil {
				t.Fatal(err)
			}
			if tt.fromStart {
				rec.DropSyncs(tt.drop)
			}
			db := open(t, filepath.Join(rec.Root(), "a.db"), vfs, tt.pragmas...)
			exec(t, db, `CREATE TABLE first(x)`)
			rec.DropSyncs(tt.drop)
			commits(t, rec, db, 120)
			var loss *crashfs.CrashError
			err = rec.Log().Crashes(crashes, 1, t.TempDir(), intact)
			if !errors.As(err, &loss) {
				t.Fatalf("got %v, want a loss after one of %d crashes", err, crashes)
			}
			t.Log(loss)
		})
	}
}

// With synchronous=NORMAL, SQLite syncs the log at checkpoints only: sound
// after a power loss, but acknowledgements are lost.
func TestNormalIsSoundButForgets(t *testing.T) {
	rec := record(t)
	vfs, err := rec.VFS()
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, filepath.Join(rec.Root(), "a.db"), vfs, "journal_mode(wal)", "synchronous(normal)", "wal_autocheckpoint(0)")
	commits(t, rec, db, 120)
	lost := 0
	err = rec.Log().Crashes(crashes, 2, t.TempDir(), func(c crashfs.Crash) error {
		if intact(c) != nil {
			lost++
		}
		c.Acked = nil
		return intact(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	if lost == 0 {
		t.Fatal("no acknowledgement was lost without a sync for it")
	}
}

// Several databases written at once share one log; a sync of one promises
// nothing about the others.
func TestDatabasesSideBySide(t *testing.T) {
	type ack struct{ database, id int }
	const databases, rows = 4, 60
	rec := record(t)
	vfs, err := rec.VFS()
	if err != nil {
		t.Fatal(err)
	}
	path := func(dir string, n int) string { return filepath.Join(dir, fmt.Sprintf("%d.db", n)) }
	var writers sync.WaitGroup
	for n := range databases {
		db := open(t, path(rec.Root(), n), vfs, "locking_mode(exclusive)", "journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(15)")
		writers.Go(func() {
			if _, err := db.Exec(`CREATE TABLE t(id INTEGER PRIMARY KEY)`); err != nil {
				t.Error(err)
			}
			for id := range rows {
				if _, err := db.Exec(`INSERT INTO t VALUES (?)`, id); err != nil {
					t.Error(err)
				}
				rec.Mark(ack{n, id})
			}
		})
	}
	writers.Wait()
	if err := rec.Verify(); err != nil {
		t.Fatal(err)
	}
	err = rec.Log().Crashes(60, 4, t.TempDir(), func(c crashfs.Crash) error {
		acked := [databases]int{}
		for _, a := range c.Acked {
			acked[a.(ack).database] = a.(ack).id + 1
		}
		for n, want := range acked {
			if want == 0 {
				continue
			}
			db := open(t, path(c.Dir, n), "")
			var got int
			if err := db.QueryRow(`SELECT count(*) FROM t`).Scan(&got); err != nil {
				return err
			}
			if err := db.Close(); err != nil {
				return err
			}
			if got < want {
				return fmt.Errorf("database %d has %d rows, %d were acknowledged", n, got, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSecondPowerLossDuringRecovery(t *testing.T) {
	rec := record(t)
	vfs, err := rec.VFS()
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, filepath.Join(rec.Root(), "a.db"), vfs, "journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(0)")
	commits(t, rec, db, 60)
	err = rec.Log().Crashes(20, 3, t.TempDir(), func(c crashfs.Crash) error {
		again, err := crashfs.New(c.Dir)
		if err != nil {
			return err
		}
		name, err := again.VFS()
		if err != nil {
			return err
		}
		db := open(t, filepath.Join(c.Dir, "a.db"), name)
		// Recovers the log; closing checkpoints and removes it.
		if err := db.QueryRow(`SELECT count(*) FROM sqlite_schema`).Scan(new(int)); err != nil {
			return err
		}
		if err := db.Close(); err != nil {
			return err
		}
		if err := again.Close(); err != nil {
			return err
		}
		return again.Log().Crashes(10, c.Seed, t.TempDir(), func(second crashfs.Crash) error {
			second.Acked = c.Acked
			return intact(second)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCloseRefusesWhileOpen(t *testing.T) {
	rec, err := crashfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	vfs, err := rec.VFS()
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, filepath.Join(rec.Root(), "a.db"), vfs)
	exec(t, db, `CREATE TABLE t(x)`)
	if err := rec.Close(); !errors.Is(err, crashfs.ErrInUse) {
		t.Fatalf("close with an open database: got %v, want %v", err, crashfs.ErrInUse)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
}

// Temporary files and databases elsewhere work through the VFS, unrecorded.
func TestUnrecordedFilesWork(t *testing.T) {
	rec := record(t)
	vfs, err := rec.VFS()
	if err != nil {
		t.Fatal(err)
	}
	before := rec.Log().Len()
	db := open(t, filepath.Join(t.TempDir(), "elsewhere.db"), vfs, "journal_mode(wal)", "temp_store(file)", "cache_size(10)")
	exec(t, db, `CREATE TABLE t(x)`)
	exec(t, db, `CREATE TEMP TABLE big(x)`)
	exec(t, db, `WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n < 500) INSERT INTO big SELECT randomblob(1000) FROM c`)
	exec(t, db, `INSERT INTO t SELECT x FROM big ORDER BY x`)
	exec(t, db, `VACUUM`)
	if got := rec.Log().Len(); got != before {
		t.Errorf("%d operations were recorded outside the root", got-before)
	}
}
