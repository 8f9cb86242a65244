package e2e_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// TestHistoryOfOddDatabases restores and copies databases that have whatever SQLite can do.
func TestHistoryOfOddDatabases(t *testing.T) {
	row(t, "DP-HIST-4", "DP-HIST-13")
	c := harness.Start(t, binary, harness.Options{Env: keepsHistory}).Client(t, harness.Token)
	for _, tt := range []struct {
		name  string
		make  []string
		check string
	}{
		{"nothing", nil, "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE '%persql%'"},
		{"fts5", []string{"CREATE VIRTUAL TABLE f USING fts5(x, y)", "INSERT INTO f VALUES('some words', 'more')"}, "SELECT count(*) FROM f WHERE f MATCH 'words'"},
		{"contentless fts5", []string{"CREATE VIRTUAL TABLE f USING fts5(x, content='')", "INSERT INTO f(rowid, x) VALUES(7, 'words')"}, "SELECT rowid FROM f WHERE f MATCH 'words'"},
		{"fts5 that knows less than its content", []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, x)", "CREATE VIRTUAL TABLE f USING fts5(x, content='t', content_rowid='a')", "INSERT INTO t(x) VALUES('unknown')"}, "SELECT count(*) FROM t"},
		{"fts5 that knows more than its content", []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, x)", "CREATE VIRTUAL TABLE f USING fts5(x, content='t', content_rowid='a')", "INSERT INTO t(x) VALUES('w')", "INSERT INTO f(f) VALUES('rebuild')", "DELETE FROM t WHERE 1"}, "SELECT count(*) FROM t"},
		{"fts5 without its content", []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, x)", "CREATE VIRTUAL TABLE f USING fts5(x, content='t', content_rowid='a')", "DROP TABLE t"}, "SELECT count(*) FROM sqlite_schema WHERE name = 'f'"},
		{"rtree", []string{"CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)", "INSERT INTO r VALUES(1, 0, 10)"}, "SELECT id FROM r WHERE x0 < 5"},
		{"without rowid", []string{"CREATE TABLE w(a ANY, b TEXT, PRIMARY KEY(b, a)) WITHOUT ROWID, STRICT"}, "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE '%persql%'"},
		{"without rowid, with rows", []string{"CREATE TABLE w(a, b, PRIMARY KEY(b, a)) WITHOUT ROWID", "INSERT INTO w VALUES(1, 2), (3, NULL || 'x')"}, "SELECT count(*) FROM w"},
		{"generated", []string{"CREATE TABLE g(a, b AS (a * 2) STORED, c AS (b + 1))", "CREATE INDEX g_c ON g(c)", "INSERT INTO g(a) VALUES(5)"}, "SELECT c FROM g INDEXED BY g_c WHERE c = 11"},
		{"not null, added", []string{"CREATE TABLE t(a)", "INSERT INTO t VALUES(1)", "ALTER TABLE t ADD COLUMN b NOT NULL DEFAULT 5"}, "SELECT b FROM t"},
		{"check", []string{"CREATE TABLE t(a CHECK(a > 0))", "INSERT INTO t VALUES(1)", "ALTER TABLE t ADD COLUMN b CHECK(b IS NULL OR b < 3)"}, "SELECT count(*) FROM t"},
		{"foreign keys that lead nowhere", []string{"CREATE TABLE k(p REFERENCES nobody(x))", "CREATE TABLE q(a PRIMARY KEY, b REFERENCES q(a) DEFERRABLE INITIALLY DEFERRED)", "INSERT INTO q VALUES(1, 1)"}, "SELECT count(*) FROM q"},
		{"views and triggers that are broken", []string{"CREATE TABLE t(a)", "CREATE VIEW v AS SELECT nobody FROM t", "CREATE TABLE u(a)", "CREATE VIEW w AS SELECT a FROM u", "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO u VALUES(1); END", "DROP TABLE u"}, "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE '%persql%'"},
		{"versions", []string{"PRAGMA user_version = 77", "CREATE TABLE t(a)", "PRAGMA user_version = 78", "PRAGMA application_id = 5"}, "PRAGMA user_version"},
		{"odd names", []string{"CREATE TABLE \"a'b\"\"c; --\"(\"\" , \"ü\")", "INSERT INTO \"a'b\"\"c; --\" VALUES(1, 2)"}, "SELECT count(*) FROM \"a'b\"\"c; --\""},
		{"statistics", []string{"CREATE TABLE t(a PRIMARY KEY)", "INSERT INTO t VALUES(1), (2)", "ANALYZE"}, "SELECT count(*) FROM t"},
		{"autoincrement", []string{"CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO t VALUES(9223372036854775807)"}, "SELECT a FROM t"},
		{"large values", []string{"CREATE TABLE t(a)", "INSERT INTO t VALUES(zeroblob(15000000)), (randomblob(3000000))"}, "SELECT sum(length(a)) FROM t"},
		{"vacuumed", []string{"CREATE TABLE t(a)", "INSERT INTO t VALUES(randomblob(500000))", "DELETE FROM t WHERE 1", "VACUUM", "INSERT INTO t VALUES(1)", "VACUUM"}, "SELECT count(*) FROM t"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := c.With(t)
			d := newDB(t, c)
			for _, sql := range tt.make {
				if a := d.Query(sql); a.Status != http.StatusOK {
					t.Logf("%s: %s", sql, a.Raw)
				} else if a.Str("data.meta.bookmark") == "null" || a.At("data.meta.bookmark") == nil {
					t.Errorf("%s: no bookmark", sql)
				}
			}
			want, whole := d.One(tt.check), dumped(t, d)
			mark := d.Get(d.Path("bookmark")).OK().Str("data.bookmark")
			d.Batch(true, "CREATE TABLE later(a, b)", "INSERT INTO later VALUES(randomblob(100000), 1)").OK()
			for _, name := range []string{"t", "f", "w", "g"} {
				d.Query("DROP TABLE IF EXISTS " + name)
			}
			d.Must("VACUUM")
			a := restore(d, body{"bookmark": mark})
			if a.Status != http.StatusOK {
				t.Fatalf("restore: %s", a.Raw)
			}
			slug := unused()
			from(c, slug, d.Slug, mark).OK()
			for what, e := range map[string]*harness.DB{"restored": d, "copied": c.DB(slug)} {
				if got := e.One(tt.check); got != want {
					t.Errorf("%s: %s, want %s", what, got, want)
				}
				if got := dumped(t, e); got != whole {
					t.Errorf("%s:\n%s\nwant\n%s", what, harness.Tail(got, 1000), harness.Tail(whole, 1000))
				}
				e.Get(e.Path("describe")).OK()
				e.Must("CREATE TABLE written_after(a)")
			}
			restore(d, body{"snapshotId": a.Str("data.snapshot.id")}).OK()
			if got := d.One("SELECT count(*) FROM later"); got != "1" {
				t.Errorf("what the restore replaced has %s rows", got)
			}
		})
	}
}

// TestBordersOfMoments: which moment a time is, to the millisecond, and which bookmark is one.
func TestBordersOfMoments(t *testing.T) {
	row(t, "DP-HIST-1", "DP-HIST-4", "DP-HIST-6")
	c := harness.Start(t, binary, harness.Options{Env: keepsHistory}).Client(t, harness.Token)
	d := newDB(t, c)
	createdAt := d.Get("/v1/databases/" + d.Slug).OK().Str("data.createdAt")
	d.Get(d.Path("bookmark")).OK().Is("data.at", "null")
	d.Must("CREATE TABLE t(n)")
	var at []time.Time
	var marks []string
	for n := range 3 {
		later(t, time.Now()) // a time between two commits
		d.Must("INSERT INTO t VALUES(?)", n)
		mark := d.Get(d.Path("bookmark")).OK()
		when, err := time.Parse(time.RFC3339Nano, mark.Str("data.at"))
		if err != nil {
			t.Fatal(err)
		}
		at, marks = append(at, when), append(marks, mark.Str("data.bookmark"))
	}
	d.Must("DELETE FROM t WHERE n = 0")
	rows := func() string { return d.One("SELECT coalesce(group_concat(n), '') FROM t") }
	berlin := time.FixedZone("", 2*3600)
	for n, when := range at {
		want, before := "0,1,2"[:2*n+1], strings.TrimSuffix("0,1,2"[:2*n], ",")
		for _, same := range []any{when.UnixMilli(), fmt.Sprint(when.UnixMilli()), when.UTC().Format(time.RFC3339Nano), when.In(berlin).Format("2006-01-02T15:04:05.000Z07:00"),
			when.Add(999 * time.Microsecond).UTC().Format(time.RFC3339Nano), when.UTC().Format("2006-01-02T15:04:05.000")} {
			if a := restore(d, body{"timestamp": same}); a.Status != http.StatusOK || rows() != want {
				t.Errorf("at %v: %s, rows %s, want %s", same, a.Raw, rows(), want)
			}
		}
		if a := restore(d, body{"timestamp": when.UnixMilli() - 1}); a.Status != http.StatusOK || rows() != before {
			t.Errorf("before %v: %s, rows %s, want %s", when, a.Raw, rows(), before)
		}
	}
	last := rows()
	made, err := time.Parse(time.RFC3339Nano, createdAt)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		at     any
		status int
	}{
		{-1, 400}, {"-1", 400}, {1.5, 400}, {harness.Number("1e3"), 400}, {harness.Number("99999999999999999999"), 400}, {"", 400}, {" ", 400}, {"2026-13-01", 400}, {"2026-01-01T25:00:00Z", 400},
		{"now", 400}, {[]int{1}, 400}, {body{}, 400}, {false, 400}, {0, 409}, {"1970-01-01", 409}, {made.UnixMilli() - 1, 409}, {made.Add(-time.Millisecond).UTC().Format(time.RFC3339Nano), 409}, {"0001-01-01", 409},
	} {
		a := restore(d, body{"timestamp": bad.at})
		if a.Status != bad.status {
			t.Errorf("timestamp %v: %s", bad.at, a.Raw)
		}
		if a := c.Post("/v1/databases", body{"slug": unused(), "from": body{"database": d.Slug, "at": bad.at}}); a.Status != bad.status {
			t.Errorf("from at %v: %s", bad.at, a.Raw)
		}
	}
	for _, bad := range []any{strings.ToUpper(marks[0]), marks[0][:24], marks[0] + "0", " " + marks[0], "ffffffffffffffff" + marks[0][16:], marks[0][:16], marks[0][16:] + marks[0][:16], "", 5, nil, "0x00000000000001" + marks[0][16:],
		"+" + marks[0][1:], marks[0] + "\u0000", strings.Repeat("a", 100000)} {
		if strings.ToUpper(marks[0]) == bad && marks[0] == bad {
			continue // it has no letters
		}
		if a := restore(d, body{"bookmark": bad}); a.Status != http.StatusBadRequest {
			t.Errorf("bookmark %.60v: %s", bad, a.Raw)
		}
	}
	if got := rows(); got != last {
		t.Errorf("what was refused left %s, there was %s", got, last)
	}
	// Times that have not come are the present one, and the time of its making is the empty database.
	for _, future := range []any{time.Now().Add(time.Hour).UnixMilli(), "9999-12-31", harness.Number("9223372036854775807")} {
		restore(d, body{"timestamp": future}).OK()
		if got := rows(); got != last {
			t.Errorf("at %v: %s, there was %s", future, got, last)
		}
	}
	restore(d, body{"timestamp": made.UnixMilli()}).OK()
	if got := d.One("SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE '%persql%'"); got != "0" {
		t.Errorf("when it was made it had %s tables", got)
	}
	restore(d, body{"bookmark": marks[2]}).OK()
	if got := rows(); got != "0,1,2" {
		t.Errorf("restored %s", got)
	}
}

// TestSnapshotsAreNotSeen: a snapshot is taken without a trace in what statements can ask.
func TestSnapshotsAreNotSeen(t *testing.T) {
	row(t, "DP-Q-4", "DP-HIST-7")
	d := newDB(t, harness.Start(t, binary, harness.Options{Env: keepsHistory}).Client(t, harness.Token))
	d.Batch(true, "CREATE TABLE t(a INTEGER PRIMARY KEY)", "CREATE TABLE o(a, b, c)", "INSERT INTO t VALUES(40), (41), (42)").OK()
	for round := range 3 {
		a := d.Batch(true, "INSERT INTO o VALUES(1, 2, 3)", "INSERT INTO t VALUES(77)", "DELETE FROM t", "INSERT INTO o VALUES(last_insert_rowid(), changes(), total_changes())", "SELECT changes(), total_changes()").OK()
		a.Is("data.2.changes", map[bool]string{true: "4", false: "1"}[round == 0]).Is("data.2.lastInsertRowid", "0")
		n := map[bool]int{true: 4, false: 1}[round == 0]
		if got := d.One("SELECT a || ',' || b || ',' || c FROM o ORDER BY rowid DESC LIMIT 1"); got != fmt.Sprintf("77,%d,%d", n, n+2) {
			t.Errorf("round %d: last_insert_rowid(), changes(), total_changes() were %s", round, got)
		}
	}
	empty := d.Must("DELETE FROM t WHERE a < 0")
	if empty.At("data.meta.bookmark") != nil {
		t.Errorf("a bookmark of nothing: %s", empty.Raw)
	}
	d.Must("DELETE FROM t")
	twice := d.Must("DELETE FROM t").Is("data.changes", "0").Str("data.meta.bookmark") // with a snapshot
	d.Get(d.Path("bookmark")).OK().Is("data.bookmark", twice)
	d.Must("DELETE FROM o").Is("data.rowsWritten", "6").Is("data.changes", "6")
	if got := d.One("SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE '%persql%'"); got != "2" {
		t.Errorf("%s tables are seen", got)
	}
}

// TestHistoryIsNoWayAroundPolicies: who may not see all rows sees none of the past, whatever way leads there.
func TestHistoryIsNoWayAroundPolicies(t *testing.T) {
	row(t, "DP-HIST-9", "DP-HIST-13", "DP-POL-4")
	s := harness.Start(t, binary, harness.Options{Env: keepsHistory})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(owner, v)")
	mark := d.Must("INSERT INTO t VALUES('ada', 1), ('bob', 2)").Str("data.meta.bookmark")
	label := d.Post(d.Path("snapshots"), body{"label": "secret"}).OK().Str("data.id")
	id := d.Get("/v1/databases/" + d.Slug).OK().Str("data.id")
	d.Must("DELETE FROM t")
	claims := body{"claims": body{"owner": "ada"}, "role": "admin"}
	tokens := map[string]string{"claims": mint(c, claims), "write": mint(c, body{"role": "write"}), "write with claims": mint(c, body{"role": "write", "claims": body{"owner": "ada"}}),
		"read": mint(c, body{"role": "read"}), "tables": mint(c, body{"role": "admin", "tableScope": []string{"o"}}), "test": mint(c, body{"role": "admin", "test": true})}
	d.Post(d.Path("policies"), body{"name": "own", "tableName": "t", "expression": "owner = :auth_owner"}).OK()
	refuses := func(when string, trashed bool) {
		t.Helper()
		for name, token := range tokens {
			e := c.As(token)
			for _, of := range []string{d.Slug, id, "default/" + d.Slug} {
				for _, at := range []any{nil, mark, label, time.Now().UnixMilli()} {
					slug := unused()
					if a := from(e, slug, of, at); a.Status != http.StatusForbidden && (name != "test" || a.Status != http.StatusNotFound) {
						t.Errorf("%s, %s: from %s at %v: %d %s", when, name, of, at, a.Status, a.Raw)
					}
				}
			}
			if trashed || name == "test" {
				continue // such a one does not reach it at all
			}
			for _, m := range []body{{"bookmark": mark}, {"snapshotId": label}, {"timestamp": time.Now().UnixMilli()}} {
				e.Post(d.Path("restore"), m).Fails(http.StatusForbidden, "")
			}
			e.Get(d.Path("snapshots")).Fails(http.StatusForbidden, "")
			e.Post(d.Path("snapshots"), body{"label": "x"}).Fails(http.StatusForbidden, "")
			e.Do("DELETE", d.Path("snapshots/"+label), nil).Fails(http.StatusForbidden, "")
			for _, table := range []string{"sqlite_persql_snapshots_v1", "main.\"sqlite_persql_snapshots_v1\""} {
				e.Post(d.Path("query"), harness.Body("SELECT * FROM "+table)).Fails(http.StatusForbidden, "")
			}
		}
	}
	refuses("living", false)
	remove(t, d)
	refuses("in the trash", true)
	s.Kill()
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: keepsHistory})
	c = s.Client(t, harness.Token)
	d.Client = c
	refuses("in the trash, after a start", true)
	undelete(c, id, "").OK()
	refuses("back from the trash", false)
	// What an admin restores, the policy binds as before.
	restore(d, body{"bookmark": mark}).OK()
	if got := d.As(tokens["write with claims"]).DB(d.Slug).One("SELECT group_concat(v) FROM t"); got != "1" {
		t.Errorf("after a restore the bound token sees %s", got)
	}
}

// TestHistoryOnAFullDisk: restores and copies that don't fit leave everything as it was, writes go on where they can, and no acknowledged moment is lost.
func TestHistoryOnAFullDisk(t *testing.T) {
	row(t, "DP-E-10", "DP-HIST-4", "DP-HIST-11")
	disk := smallDisk(t, 64<<20)
	opt := harness.Options{Data: filepath.Join(disk, "data"), Env: keepsHistory}
	s := harness.Start(t, binary, opt)
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(n INTEGER PRIMARY KEY, b)")
	mark := d.Must("INSERT INTO t(b) VALUES(randomblob(6000000))").Str("data.meta.bookmark")
	d.Must("INSERT INTO t(b) VALUES('small')")
	state := d.One("SELECT group_concat(length(b)) FROM t")
	labels := len(d.Get(d.Path("snapshots")).OK().List("data"))
	free := fill(t, disk)
	for range 3 {
		if a := restore(d, body{"bookmark": mark}); a.Status != http.StatusServiceUnavailable {
			t.Errorf("restore on a full disk: %s", a.Raw)
		}
		if a := from(c, unused(), d.Slug, mark); a.Status != http.StatusServiceUnavailable {
			t.Errorf("from on a full disk: %s", a.Raw)
		}
		if a := from(c, unused(), d.Slug, nil); a.Status != http.StatusServiceUnavailable {
			t.Errorf("from on a full disk: %s", a.Raw)
		}
		if got := d.One("SELECT group_concat(length(b)) FROM t"); got != state {
			t.Errorf("left %s of %s", got, state)
		}
		if a := d.Get(d.Path("snapshots")); a.Status != http.StatusOK || len(a.List("data")) != labels {
			t.Errorf("snapshots: %s", a.Raw)
		}
		d.Get(d.Path("bookmark")).OK()
	}
	s.Kill()
	s = harness.Start(t, binary, opt)
	c = s.Client(t, harness.Token)
	d.Client = c
	if got := d.One("SELECT group_concat(length(b)) FROM t"); got != state {
		t.Errorf("after kill -9 on a full disk %s of %s", got, state)
	}
	free()
	restore(d, body{"bookmark": mark}).OK()
	if got := d.One("SELECT group_concat(length(b)) FROM t"); got != "6000000" {
		t.Errorf("restored %s", got)
	}
	slug := unused()
	from(c, slug, d.Slug, nil).OK()
	d.Must("INSERT INTO t(b) VALUES('more')")
	if files, err := filepath.Glob(filepath.Join(opt.Data, "tmp", "*")); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v %v", files, err)
	}
}
