package e2e_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// TestHistoryThroughTheTrash: what is committed when a database is deleted is in its history, when it comes back.
func TestHistoryThroughTheTrash(t *testing.T) {
	row(t, "DP-HIST-12")
	s := harness.Start(t, binary, harness.Options{Env: keepsHistory})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	for range 3 {
		d.Must("INSERT INTO t(b) VALUES('before')")
	}
	last := d.Must("INSERT INTO t(b) VALUES('last')").Str("data.meta.bookmark")
	id := remove(t, d)
	undelete(c, id, "").OK()
	d.Get(d.Path("bookmark")).OK().Is("data.bookmark", last)
	after := d.Must("UPDATE t SET b = 'after' WHERE a = 1").Str("data.meta.bookmark")
	d.Must("DELETE FROM t")
	restore(d, body{"bookmark": after}).OK()
	if got := d.One("SELECT group_concat(b) FROM t"); got != "after,before,before,last" {
		t.Errorf("after the trash: %s", got)
	}
	restore(d, body{"bookmark": last}).OK()
	if got := d.One("SELECT group_concat(b) FROM t"); got != "before,before,before,last" {
		t.Errorf("before the trash: %s", got)
	}
}

// TestHistoryThatPaused: what was written while no history was kept is not missing in what is restored later.
func TestHistoryThatPaused(t *testing.T) {
	row(t, "DP-HIST-10")
	s := harness.Start(t, binary, harness.Options{Env: keepsHistory})
	start := func(env ...string) *harness.DB {
		s.Stop(t)
		s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: env})
		return s.Client(t, harness.Token).DB("paused")
	}
	d := s.Client(t, harness.Token).DB("paused")
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	one := d.Must("INSERT INTO t(b) VALUES('one')").Str("data.meta.bookmark")
	d = start("PERSQLD_HISTORY=0s")
	d.Must("INSERT INTO t(b) VALUES('unkept')")
	d = start(keepsHistory...)
	two := d.Must("CREATE TABLE u(a)").Str("data.meta.bookmark")
	d.Must("DELETE FROM t")
	if a := restore(d, body{"bookmark": two}); a.Status == 200 {
		if got := d.One("SELECT group_concat(b) FROM t"); got != "one,unkept" {
			t.Errorf("restored %s", got)
		}
	} else {
		t.Errorf("%s", a.Raw)
	}
	restore(d, body{"bookmark": one}).Fails(409, "not_in_history") // the history before was set aside
	if got := d.One("SELECT group_concat(b) FROM t"); got != "one,unkept" {
		t.Errorf("after the refusal: %s", got)
	}
}

// TestOrphanedHistory: the history of a database that is gone goes at a start, and no other does.
func TestOrphanedHistory(t *testing.T) {
	row(t, "DP-HIST-12")
	s := harness.Start(t, binary, harness.Options{Env: keepsHistory})
	c := s.Client(t, harness.Token)
	var ids []string
	for range 3 { // one that lives, one in the trash, one that only a file is of
		d := newDB(t, c)
		d.Must("CREATE TABLE t(a)")
		ids = append(ids, d.Get("/v1/databases/"+d.Slug).OK().Str("data.id"))
		if len(ids) == 2 {
			remove(t, d)
		}
	}
	s.Stop(t)
	past := func(id string) string { return filepath.Join(s.Data, "history", id[len(id)-2:], id) }
	copyAs := func(id string) string {
		orphan := id[:len(id)-4] + "aaaa"
		if err := os.CopyFS(past(orphan), os.DirFS(past(id))); err != nil {
			t.Fatal(err)
		}
		return orphan
	}
	orphan, nameless := copyAs(ids[0]), copyAs(ids[2])
	if err := os.MkdirAll(filepath.Dir(databaseFile(s.Data, nameless)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(databaseFile(s.Data, nameless), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-25 * time.Hour)
	err := filepath.WalkDir(filepath.Join(s.Data, "history"), func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(path, old, old))
	})
	if err != nil {
		t.Fatal(err)
	}
	young := copyAs(ids[1])
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: keepsHistory})
	if !eventually(t, 10*time.Second, func() bool { return !exists(past(orphan)) }) {
		t.Error("the history of a database that is gone stays")
	}
	for what, id := range map[string]string{"living": ids[0], "deleted": ids[1], "third": ids[2], "young": young, "nameless": nameless} {
		if !exists(past(id)) {
			t.Errorf("the history of the %s database is gone", what)
		}
	}
}

// TestHistoryWithoutServer: what `persqld sql --data` writes while no server runs is history too, with the snapshots that a server would take.
func TestHistoryWithoutServer(t *testing.T) {
	row(t, "DP-HIST-7", "DP-HIST-11")
	s := harness.Start(t, binary, harness.Options{Env: keepsHistory})
	d := s.Client(t, harness.Token).DB("offline")
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	d.Must("INSERT INTO t(b) VALUES('online')")
	s.Stop(t)
	for _, sql := range []string{"INSERT INTO t(b) VALUES('offline')", "CREATE TABLE u AS SELECT hex(randomblob(20000)) AS x", "DELETE FROM t"} {
		if out, errs, code := harness.CLI(t, binary, s.Data, "sql", "default/offline", sql, "--data", s.Data); code != 0 {
			t.Fatalf("%s: %d: %s%s", sql, code, out, errs)
		}
	}
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: keepsHistory})
	d = s.Client(t, harness.Token).DB("offline")
	last := d.Must("INSERT INTO t(b) VALUES('later')").Str("data.meta.bookmark")
	list := d.Get(d.Path("snapshots")).OK().Is("data.0.automatic", "true")
	restore(d, body{"snapshotId": list.Str("data.0.id")}).OK()
	if got := d.One("SELECT group_concat(b) || (SELECT length(x) FROM u) FROM t"); got != "online,offline40000" {
		t.Errorf("before the deletion: %s", got)
	}
	restore(d, body{"bookmark": last}).OK()
	if got := d.One("SELECT group_concat(b) || (SELECT length(x) FROM u) FROM t"); got != "later40000" {
		t.Errorf("the last moment: %s", got)
	}
}
