package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// schemaOf is a database's schema, as text to compare.
func schemaOf(d *harness.DB) string {
	return d.One(`SELECT group_concat(type || ' ' || name || ': ' || sql, char(10) ORDER BY type, name) FROM sqlite_schema WHERE name NOT LIKE 'sqlite\_%' ESCAPE '\' AND sql IS NOT NULL`)
}

func TestMergeSchema(t *testing.T) {
	row(t, "DP-BRANCH-14", "DP-BRANCH-15")
	c := client(t)
	d := parentOf(t, c)
	d.Batch(true, "CREATE TABLE child(id INTEGER PRIMARY KEY, a_id REFERENCES a(id) ON DELETE CASCADE)", "INSERT INTO child VALUES(1, 1), (2, 2)").OK()
	_, b := claim(t, d, body{"ref": "dev/x"})
	preview := func() *harness.Answer { return d.Get(d.Path("branches/dev/x/preview")).OK() }
	preview().Is("data.statements", "[]").Is("data.conflicts", "[]").Is("data.plan.added", "[]")
	for _, sql := range []string{"ALTER TABLE a ADD COLUMN c INTEGER DEFAULT 7", "CREATE TABLE z(x PRIMARY KEY)", "DROP VIEW v", "CREATE VIEW w AS SELECT id, c FROM a", "DROP TABLE seen",
		"DROP TRIGGER tr", "CREATE UNIQUE INDEX child_a ON child(a_id)"} {
		b.Query(sql).OK()
	}
	p := preview()
	p.Is("data.conflictCount", "0")
	names := func(what string) (list []string) {
		for _, o := range p.List("data.plan." + what) {
			list = append(list, o.(map[string]any)["name"].(string))
		}
		return list
	}
	if got := fmt.Sprint(len(names("added")), len(names("changed")), len(names("removed"))); got != "3 1 3" {
		t.Errorf("the plan adds, changes and removes %s objects: %s", got, p.Raw)
	}
	before := schemaOf(d)
	if preview(); schemaOf(d) != before {
		t.Error("a preview changed the schema")
	}
	// The statements by hand, on a copy, make what the merge makes.
	f := d.Post(d.Path("fork"), body{"slug": d.Slug + "-hand", "content": "full"}).OK()
	hand := c.DB(f.Str("data.slug"))
	for _, sql := range p.List("data.statements") {
		if s := sql.(string); !strings.HasPrefix(s, "PRAGMA") {
			hand.Query(s).OK()
		}
	}
	m := d.Post(d.Path("branches/dev/x/merge"), body{}).OK()
	m.Is("data.applied", "true").Is("data.snapshot.label", "before the merge of dev/x").Has("data", "bookmark", "statements")
	if schemaOf(d) != schemaOf(hand) {
		t.Errorf("merged:\n%s\nby hand:\n%s", schemaOf(d), schemaOf(hand))
	}
	if got := d.One("SELECT group_concat(b || c, ' ') || ' ' || (SELECT count(*) FROM child) FROM a"); got != "x7 y7 2" {
		t.Errorf("after the merge: %s", got)
	}
	d.Post(d.Path("merge_branch"), body{"ref": "dev/x"}).OK().Is("data.statements", "[]").Is("data.snapshot", "null")

	// Both sides.
	b.Query("ALTER TABLE a ADD COLUMN e TEXT DEFAULT 'branch'").OK()
	d.Query("ALTER TABLE a ADD COLUMN e TEXT DEFAULT 'parent'").OK()
	a := d.Post(d.Path("branches/dev/x/merge"), body{}).Fails(http.StatusConflict, "merge_conflict")
	if len(a.List("conflicts")) != 1 || a.Str("conflicts.0.name") != "a" || a.Str("conflicts.0.kind") != "schema" {
		t.Errorf("conflicts %s", a.Raw)
	}
	preview().Is("data.conflictCount", "1").Is("data.statements", "[]")

	// Rows that don't fit.
	_, b = claim(t, d, body{"ref": "strict"})
	b.Query("CREATE UNIQUE INDEX a_all ON a(c)").OK()
	d.Post(d.Path("branches/strict/merge"), body{}).Fails(http.StatusConflict, "merge_refused")

	// Bad input.
	d.Post(d.Path("branches/strict/merge"), body{"mode": "full"}).Fails(http.StatusConflict, "rows_not_mergeable")
	d.Post(d.Path("branches/strict/merge"), body{"mode": "all"}).Fails(http.StatusBadRequest, "bad_request")
	d.Post(d.Path("branches/strict/merge"), body{"onConflict": "both"}).Fails(http.StatusBadRequest, "bad_request")
	d.Get(d.Path("branches/strict/preview?mode=all")).Fails(http.StatusBadRequest, "bad_request")
	d.Get(d.Path("branches/strict/preview?mode=full")).Fails(http.StatusConflict, "rows_not_mergeable")
	for call, ref := range map[string]string{"branches/strict/preview": "", "merge_branch": "strict"} {
		d.Post(d.Path(call), body{"ref": ref, "mode": "full"}).Fails(http.StatusConflict, "rows_not_mergeable")
		d.Post(d.Path(call), body{"ref": ref, "mode": "all"}).Fails(http.StatusBadRequest, "bad_request")
	}
	d.Post(d.Path("branches/none/merge"), body{}).Fails(http.StatusNotFound, "not_found")
	d.Post(d.Path("merge_branch"), body{}).Fails(http.StatusNotFound, "not_found")
	d.Post(d.Path("branches/none/preview"), body{}).Fails(http.StatusNotFound, "not_found")
	for _, role := range []string{"read", "write"} {
		e := c.As(c.Post("/v1/tokens", body{"role": role}).OK().Str("data.token")).DB(d.Slug)
		e.Post(e.Path("branches/strict/merge"), body{}).Fails(http.StatusForbidden, "role_not_allowed")
	}
}

func TestMergeRows(t *testing.T) {
	row(t, "DP-BRANCH-16")
	c := client(t)
	d := parentOf(t, c)
	_, b := claim(t, d, body{"ref": "dev", "content": "full"})
	b.Query("VACUUM").Fails(http.StatusConflict, "branch_records")
	b.Query("ALTER TABLE a ADD COLUMN c DEFAULT 0").OK()
	b.Batch(true, "INSERT INTO a(b, c) VALUES('new', 1)", "UPDATE a SET b = 'branch' WHERE id = 1", "DELETE FROM a WHERE id = 2", "INSERT INTO f VALUES('a quick dog')").OK()
	d.Get(d.Path("branches/dev/preview?mode=full")).OK().Is("data.rowsInserted", "3").Is("data.rowsUpdated", "1").Is("data.rowsDeleted", "1").Is("data.conflicts", "[]")
	if got := d.One("SELECT count(*) FROM a"); got != "2" {
		t.Errorf("after a preview there are %s rows", got)
	}
	d.Query("UPDATE a SET b = 'parent' WHERE id = 1").OK()
	a := d.Post(d.Path("branches/dev/merge"), body{"mode": "full"}).Fails(http.StatusConflict, "merge_conflict")
	a.Is("conflicts.0.table", "a").Is("conflicts.0.key.id", "1").Is("conflicts.0.base.b", "x").Is("conflicts.0.branch.b", "branch").Is("conflicts.0.parent.b", "parent").Is("conflicts.0.reason", "both_changed")
	if got := d.One("SELECT group_concat(b, ' ') FROM a"); got != "parent y" {
		t.Errorf("a merge that was refused left %s", got)
	}
	d.Post(d.Path("branches/dev/preview"), body{"mode": "full"}).OK().Is("data.conflictCount", "1")
	m := d.Post(d.Path("branches/dev/merge"), body{"mode": "full", "onConflict": "theirs"}).OK()
	m.Is("data.rowsInserted", "3").Is("data.rowsUpdated", "1").Is("data.rowsDeleted", "1")
	if got := d.One("SELECT group_concat(b || c, ' ' ORDER BY id) FROM a"); got != "branch0 new1" {
		t.Errorf("merged: %s", got)
	}
	// The trigger of the parent didn't fire: what it did on the branch came along.
	if got := d.One("SELECT count(*) || ' ' || (SELECT count(*) FROM f WHERE f MATCH 'dog') FROM seen"); got != "3 1" {
		t.Errorf("rows of the trigger, and found in the virtual table: %s", got)
	}
	// Back to the moment before it.
	d.Post(d.Path("restore"), body{"snapshotId": m.Str("data.snapshot.id")}).OK()
	if got := d.One("SELECT group_concat(b, ' ') FROM a"); got != "parent y" {
		t.Errorf("restored: %s", got)
	}
	d.Post(d.Path("branches/dev/merge"), body{"mode": "full", "onConflict": "ours"}).OK()
	if got := d.One("SELECT group_concat(b, ' ' ORDER BY id) FROM a"); got != "parent new" {
		t.Errorf("merged with ours: %s", got)
	}
	// An import ends the recording.
	_, admin := claim(t, d, body{"ref": "other", "content": "full", "role": "admin"})
	admin.Post(admin.Path("import"), harness.Raw("CREATE TABLE n(x);"), harness.Header("Content-Type: application/sql")).OK()
	d.Post(d.Path("branches/other/merge"), body{"mode": "full"}).Fails(http.StatusConflict, "rows_not_mergeable")
}

// What a branch has renamed is known to it, through a kill too.
func TestMergeRenames(t *testing.T) {
	row(t, "DP-BRANCH-18")
	data := filepath.Join(t.TempDir(), "data")
	s := harness.Start(t, binary, harness.Options{Data: data})
	d := s.Client(t, harness.Token).DB("shop")
	for _, content := range []string{"full", "schema"} {
		name := "of_" + content
		d.Batch(true, "CREATE TABLE "+name+"(id INTEGER PRIMARY KEY, a, b)", "INSERT INTO "+name+" VALUES(1, 'a1', 'b1'), (2, 'a2', 'b2')").OK()
		slug := d.Post(d.Path("claim_branch"), body{"ref": content, "content": content}).OK().Str("data.databaseSlug")
		s.Client(t, harness.Token).DB(slug).Must("ALTER TABLE " + name + " RENAME COLUMN b TO c")
		s.Kill()
		s = harness.Start(t, binary, harness.Options{Data: data})
		d = s.Client(t, harness.Token).DB("shop")
		b := s.Client(t, harness.Token).DB(slug)
		b.Must("ALTER TABLE " + name + " RENAME TO x_" + content)
		b.Must("ALTER TABLE x_" + content + " ADD COLUMN d DEFAULT 7")
		d.Must("INSERT INTO " + name + " VALUES(3, 'a3', 'b3')") // the branch never sees it
		for range 2 {
			d.Post(d.Path("branches/"+content+"/merge"), body{"mode": content}).OK()
			if got := d.One("SELECT group_concat(concat_ws(',', id, a, c, d), ' ' ORDER BY id) FROM x_" + content); got != "1,a1,b1,7 2,a2,b2,7 3,a3,b3,7" {
				t.Errorf("%s: %s", content, got)
			}
		}
	}
	// Whether logs were rotated already their names don't tell.
	d.Batch(true, "CREATE TABLE log(m)", "CREATE TABLE old_log(m)", "INSERT INTO log VALUES('new')", "INSERT INTO old_log VALUES('old')").OK()
	b := s.Client(t, harness.Token).DB(d.Post(d.Path("claim_branch"), body{"ref": "logs", "content": "full"}).OK().Str("data.databaseSlug"))
	b.Batch(true, "DROP TABLE old_log", "ALTER TABLE log RENAME TO old_log", "CREATE TABLE log(m)").OK()
	d.Post(d.Path("branches/logs/merge"), body{"mode": "full"}).Fails(http.StatusConflict, "merge_conflict").Is("conflicts.0.name", "old_log")
	if got := d.One("SELECT (SELECT m FROM log) || ' ' || (SELECT m FROM old_log)"); got != "new old" {
		t.Errorf("a conflict left %s", got)
	}
}

// TestMergeAfterCrash kills the server while a branch is merged, over and over: the parent has all of it, or none.
func TestMergeAfterCrash(t *testing.T) {
	row(t, "DP-BRANCH-17")
	data := filepath.Join(t.TempDir(), "data")
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 9))
	seen := map[string]int{}
	for round := range 8 {
		s, err := harness.Run(binary, harness.Options{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Kill)
		c := s.Client(t, harness.Token).Apart()
		d := c.DB(fmt.Sprint("round-", round))
		d.Batch(true, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "INSERT INTO t SELECT value, 0 FROM json_each('"+numbers(2000)+"')").OK()
		_, b := claim(t, d, body{"ref": "r", "content": "full"})
		b.Query("ALTER TABLE t ADD COLUMN c DEFAULT 1").OK()
		b.Query("UPDATE t SET b = 1").OK()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.Try("POST", d.Path("branches/r/merge"), body{"mode": "full"}) })
		time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
		s.Kill()
		wg.Wait()
		again, err := harness.Run(binary, harness.Options{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(again.Kill)
		e := again.Client(t, harness.Token).Apart().DB(d.Slug)
		got := e.One("SELECT sum(b) || ' ' || count(*) || ' ' || (SELECT count(*) FROM pragma_table_info('t')) FROM t")
		seen[got]++
		if got != "0 2000 2" && got != "2000 2000 3" {
			t.Errorf("round %d: half a merge: %s", round, got)
		}
		e.Post(e.Path("branches/r/merge"), body{"mode": "full", "onConflict": "theirs"}).OK()
		if got := e.One("SELECT sum(b) FROM t"); got != "2000" {
			t.Errorf("round %d: merged again: %s", round, got)
		}
		again.Kill()
	}
	t.Log(seen)
}
