package e2e_test

import (
	"testing"

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
	restore(d, body{"bookmark": one}).OK()
	if got := d.One("SELECT group_concat(b) FROM t"); got != "one" {
		t.Errorf("restored %s", got)
	}
}
