package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// from makes a database as another one was; at nil is now.
func from(c *harness.Client, slug, database string, at any) *harness.Answer {
	of := body{"database": database}
	if at != nil {
		of["at"] = at
	}
	return c.Post("/v1/databases", body{"slug": slug, "from": of})
}

func TestDatabaseFrom(t *testing.T) {
	row(t, "DP-HIST-13", "DP-HIST-14")
	s := harness.Start(t, binary, harness.Options{Env: keepsHistory})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	id := d.Get("/v1/databases/" + d.Slug).OK().Str("data.id")
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	d.Do("PUT", d.Path("describe"), body{"databaseDescription": "what it is for"}).OK()
	keyed := d.Post(d.Path("query"), harness.Body("INSERT INTO t(b) VALUES('one')"), key("k")).OK()
	one := keyed.Str("data.meta.bookmark")
	label := d.Post(d.Path("snapshots"), body{"label": "one row"}).OK().Str("data.id")
	d.Must("INSERT INTO t(b) VALUES('two')")
	between := later(t, time.Now()) // a time between two commits
	later(t, between)
	d.Must("DELETE FROM t")
	rows := "SELECT coalesce(group_concat(b), '') FROM t"
	made := map[string]string{}
	for _, tt := range []struct {
		what, database string
		at             any
		want           string
	}{
		{"now", d.Slug, nil, ""}, {"now, by name", "default/" + d.Slug, nil, ""}, {"now, by id", id, nil, ""},
		{"a bookmark", d.Slug, one, "one"}, {"a snapshot", d.Slug, label, "one"},
		{"Unix ms", d.Slug, between.UnixMilli(), "one,two"}, {"ISO 8601", id, between.UTC().Format(time.RFC3339Nano), "one,two"},
	} {
		slug := unused()
		made[tt.what] = slug
		a := from(c, slug, tt.database, tt.at).OK()
		a.Has("data", databaseFields...).Is("data.slug", slug).Is("data.name", slug)
		copied := c.DB(slug)
		if got := copied.One(rows); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
		copied.Get(copied.Path("describe")).OK().Is("data.databaseDescription", "what it is for")
		if list := copied.Get(copied.Path("snapshots")).OK().List("data"); len(list) != 0 {
			t.Errorf("%s: the copy has the snapshots %v", tt.what, list)
		}
	}
	// The key was answered for the source: for the copy it is new.
	copied := c.DB(made["a bookmark"])
	if a := copied.Post(copied.Path("query"), harness.Body("INSERT INTO t(b) VALUES('one')"), key("k")).OK(); a.Header.Get("Idempotency-Replayed") != "" {
		t.Error("a copy answers for writes of its source")
	}
	// It has a life and a history of its own, from its making on, and the source goes on as if nothing had been.
	if got := copied.One(rows); got != "one,one" {
		t.Errorf("the copy holds %q", got)
	}
	createdAt := copied.Get("/v1/databases/" + copied.Slug).OK().Str("data.createdAt")
	restore(copied, body{"timestamp": createdAt}).OK()
	if got := copied.One(rows); got != "one" {
		t.Errorf("the copy was made with %q", got)
	}
	restore(copied, body{"bookmark": one}).Fails(http.StatusBadRequest, "invalid_bookmark")
	if got := d.One(rows); got != "" {
		t.Errorf("the source holds %q", got)
	}
	// A copy of a copy.
	next := unused()
	from(c, next, copied.Slug, createdAt).OK()
	if got := c.DB(next).One(rows); got != "one" {
		t.Errorf("the copy of the copy holds %q", got)
	}
	// All of it survives kill -9 at once.
	s.Kill()
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: keepsHistory})
	c = s.Client(t, harness.Token)
	if got := c.DB(made["Unix ms"]).One(rows); got != "one,two" {
		t.Errorf("after kill -9 the copy holds %q", got)
	}

	for _, bad := range []struct {
		of     any
		status int
		code   string
	}{
		{body{"database": "none"}, 404, "not_found"}, {body{"database": "db_none"}, 404, "not_found"}, {body{"database": ""}, 400, "bad_request"}, {body{}, 400, "bad_request"}, {"x", 400, "bad_request"},
		{body{"database": d.Slug, "when": 1}, 400, "bad_request"}, {body{"database": d.Slug, "at": "soon"}, 400, "bad_request"}, {body{"database": d.Slug, "at": true}, 400, "bad_request"},
		{body{"database": d.Slug, "at": -1}, 400, "bad_request"}, {body{"database": d.Slug, "at": body{"bookmark": one}}, 400, "bad_request"},
		{body{"database": copied.Slug, "at": one}, 400, "invalid_bookmark"}, {body{"database": d.Slug, "at": "snap_none"}, 404, "not_found"},
		{body{"database": d.Slug, "at": 1000}, 409, "not_in_history"}, {body{"database": "other/" + d.Slug}, 403, "forbidden"},
	} {
		slug := unused()
		c.Post("/v1/databases", body{"slug": slug, "from": bad.of}).Fails(bad.status, bad.code)
		c.Get("/v1/databases/"+slug).Fails(http.StatusNotFound, "not_found")
	}
	from(c, d.Slug, d.Slug, nil).Fails(http.StatusConflict, "slug_taken")
	from(c, "Not-A-Slug", d.Slug, nil).Fails(http.StatusBadRequest, "invalid_slug")
	c.Post("/v1/databases", body{"slug": unused(), "ttlDays": 31}).Fails(http.StatusBadRequest, "bad_request")
	c.Post("/v1/databases", body{"slug": next, "from": nil}).OK() // is no from
	for _, as := range []body{{"role": "write"}, {"role": "read"}} {
		from(c.As(mint(c, as)), unused(), d.Slug, nil).Fails(http.StatusForbidden, "role_not_allowed")
	}
	from(c.As(mint(c, body{"tableScope": []string{"t"}})), unused(), d.Slug, nil).Fails(http.StatusForbidden, "scope_not_allowed")
	from(c.As(mint(c, body{"claims": body{"b": "one"}})), unused(), d.Slug, nil).Fails(http.StatusForbidden, "policy_not_allowed")
	from(c.As(mint(c, body{"database": d.Slug})), unused(), d.Slug, nil).Fails(http.StatusForbidden, "forbidden")
	test := c.As(mint(c, body{"test": true}))
	from(test, unused(), d.Slug, nil).Fails(http.StatusNotFound, "not_found")
	if files, err := filepath.Glob(filepath.Join(s.Data, "tmp", "*")); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v %v", files, err)
	}
	entry := c.Get("/v1/audit?action=database.created&limit=500").OK()
	if !strings.Contains(string(entry.Raw), `"from":{"bookmark":"`+one+`","databaseId":"`+id+`"}`) {
		t.Errorf("no entry of the audit log says what a database was made of: %s", entry.Raw)
	}
}

// TestDatabaseFromPolicies: what a policy hides in a database it hides in a copy, of whatever moment.
func TestDatabaseFromPolicies(t *testing.T) {
	row(t, "DP-HIST-13")
	c := harness.Start(t, binary, harness.Options{Env: keepsHistory}).Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(owner, v)")
	before := d.Must("INSERT INTO t VALUES('ada', 1), ('bob', 2)").Str("data.meta.bookmark")
	policy := d.Post(d.Path("policies"), body{"name": "own", "tableName": "t", "expression": "owner = :auth_owner", "appliesTo": []string{"select", "delete"}}).OK()
	off := d.Post(d.Path("policies"), body{"name": "off", "tableName": "t", "expression": "0", "enabled": false}).OK()
	bound := c.As(mint(c, body{"claims": body{"owner": "ada"}}))
	for _, at := range []any{nil, before} {
		slug := unused()
		from(c, slug, d.Slug, at).OK()
		if got := bound.DB(slug).One("SELECT group_concat(v) FROM t"); got != "1" {
			t.Errorf("at %v the bound token sees %s in the copy", at, got)
		}
		list := c.Get(c.DB(slug).Path("policies")).OK()
		for i, of := range []*harness.Answer{policy, off} {
			for _, field := range []string{"name", "tableName", "expression", "enabled", "appliesTo"} {
				list.Is(fmt.Sprintf("data.%d.%s", i, field), harness.Text(of.At("data."+field)))
			}
			if list.Str(fmt.Sprintf("data.%d.id", i)) == of.Str("data.id") {
				t.Error("the copy has the very policy of its source")
			}
		}
		// They are the copy's own.
		c.Do("DELETE", c.DB(slug).Path("policies/"+list.Str("data.0.id")), nil).OK()
		if got := bound.DB(d.Slug).One("SELECT group_concat(v) FROM t"); got != "1" {
			t.Errorf("without the copy's policy the bound token sees %s in the source", got)
		}
	}
}

// TestDatabaseFromTrash: a deleted database can be copied as long as it could be brought back, after a crash too.
func TestDatabaseFromTrash(t *testing.T) {
	row(t, "DP-HIST-12", "DP-HIST-13")
	env := append([]string{"PERSQLD_TRASH=10s"}, keepsHistory...)
	s := harness.Start(t, binary, harness.Options{Env: env})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	one := d.Must("INSERT INTO t VALUES(1)").Str("data.meta.bookmark")
	label := d.Post(d.Path("snapshots"), body{"label": "one"}).OK().Str("data.id")
	d.Must("INSERT INTO t VALUES(2)")
	second := time.Now()
	id := remove(t, d)
	check := func(when string) {
		for _, tt := range []struct {
			at   any
			want string
		}{{nil, "1,2"}, {one, "1"}, {label, "1"}, {second.UnixMilli() + 1, "1,2"}} {
			for _, name := range []string{d.Slug, id} {
				slug := unused()
				from(c, slug, name, tt.at).OK()
				if got := c.DB(slug).One("SELECT group_concat(a) FROM t"); got != tt.want {
					t.Errorf("%s, at %v: %s, want %s", when, tt.at, got, tt.want)
				}
			}
		}
	}
	check("in the trash")
	s.Kill()
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: env})
	c = s.Client(t, harness.Token)
	check("after kill -9")
	undelete(c, id, "back").OK()
	if got := c.DB("back").One("SELECT group_concat(a) FROM t"); got != "1,2" {
		t.Errorf("it came back with %s", got)
	}
	// A living one of the slug goes before.
	c.DB(d.Slug) // dead still
	c.Post("/v1/databases", body{"slug": d.Slug}).OK()
	slug := unused()
	from(c, slug, d.Slug, nil).OK()
	c.DB(slug).Query("SELECT * FROM t").Fails(http.StatusBadRequest, "unknown_table")
	// When its time is over, it is gone with its history.
	c.Do("DELETE", "/v1/databases/back", nil).OK()
	past := filepath.Join(s.Data, "history", id[len(id)-2:], id)
	if !exists(past) {
		t.Error("the history went before the database")
	}
	if !eventually(t, 30*time.Second, func() bool { return !exists(past) && !exists(databaseFile(s.Data, id)) }) {
		t.Error("the history stays")
	}
	from(c, unused(), id, one).Fails(http.StatusNotFound, "not_found")
}

// TestDatabaseFromNamespaces: a member copies between namespaces where the member is an admin of both.
func TestDatabaseFromNamespaces(t *testing.T) {
	row(t, "DP-HIST-13")
	s := people(t, keepsHistory...)
	admin := s.Client(t, harness.Token)
	d := newDB(t, admin)
	d.Must("CREATE TABLE t AS SELECT 7 AS a")
	both := enrol(t, s, "both@example.com", "default", "admin")
	looks := enrol(t, s, "looks@example.com", "default", "editor")
	nobody := enrol(t, s, "nobody@example.com", "", "")
	for i, tt := range []struct {
		who    *person
		status int
	}{{both, http.StatusOK}, {looks, http.StatusForbidden}, {nobody, http.StatusNotFound}} {
		ns := fmt.Sprintf("own-%d", i)
		tt.who.Post("/api/namespaces", body{"slug": ns}).OK()
		a := tt.who.Post("/api/namespaces/"+ns+"/databases", body{"slug": "copy", "from": body{"database": "default/" + d.Slug}})
		if a.Status != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.who.email, a.Status, a.Raw, tt.status)
		}
		tt.who.Post("/api/namespaces/"+ns+"/databases", body{"slug": "by-id", "from": body{"database": d.Get("/v1/databases/" + d.Slug).OK().Str("data.id")}}).Fails(http.StatusNotFound, "not_found")
	}
	a := both.Post("/api/namespaces/own-0/databases/copy/query", harness.Body("SELECT a FROM t")).OK()
	if got := fmt.Sprint(a.Rows()); got != "[[7]]" {
		t.Errorf("the copy holds %s", got)
	}
	both.Post("/api/namespaces/own-0/databases", body{"slug": "copy", "from": body{"database": "copy"}}).Fails(http.StatusConflict, "slug_taken")
}

// TestDatabaseFromWithoutHistory: the present moment needs none.
func TestDatabaseFromWithoutHistory(t *testing.T) {
	row(t, "DP-HIST-10", "DP-HIST-14")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_HISTORY=0s"}})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t AS SELECT 7 AS a")
	from(c, "now", d.Slug, nil).OK()
	from(c, "then", d.Slug, 1).Fails(http.StatusConflict, "no_history")
	remove(t, d)
	from(c, "trash", d.Slug, nil).OK()
	for _, slug := range []string{"now", "trash"} {
		if got := c.DB(slug).One("SELECT a FROM t"); got != "7" {
			t.Errorf("%s: %s", slug, got)
		}
	}
}

// TestDatabaseFromLimits: a copy is bounded like any database, and those who ask for the same slug get one.
func TestDatabaseFromLimits(t *testing.T) {
	row(t, "DP-HIST-13", "DP-HIST-14")
	s := harness.Start(t, binary, harness.Options{Env: keepsHistory})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	small := d.Must("INSERT INTO t VALUES(1)").Str("data.meta.bookmark")
	large := d.Must("INSERT INTO t VALUES(zeroblob(3000000))").Str("data.meta.bookmark")
	d.Must("DELETE FROM t WHERE length(a) > 1")

	var all sync.WaitGroup
	var mu sync.Mutex
	count := map[int]int{}
	for i := range 8 {
		all.Go(func() {
			c := c.Apart()
			for {
				var a *harness.Answer
				var err error
				if i%4 == 3 {
					a, err = c.Try("POST", "/v1/databases", body{"slug": "raced"}) // an empty one
				} else {
					a, err = c.Try("POST", "/v1/databases", body{"slug": "raced", "from": body{"database": d.Slug, "at": large}})
				}
				if err != nil {
					t.Error(err)
					return
				}
				if a.Status == http.StatusTooManyRequests {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				mu.Lock()
				count[a.Status]++
				mu.Unlock()
				return
			}
		})
	}
	all.Wait()
	if count[http.StatusOK]+count[http.StatusConflict] != 8 || count[http.StatusOK] < 2 || count[http.StatusOK] > 3 {
		t.Errorf("answers by status: %v", count)
	}
	files := 0
	_ = filepath.WalkDir(filepath.Join(s.Data, "db"), func(path string, e os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".db") {
			files++
		}
		return nil
	})
	if files != 2 {
		t.Errorf("%d files of 2 databases", files)
	}
	s.Stop(t)
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: append([]string{"PERSQLD_MAX_DATABASE=1MB"}, keepsHistory...)})
	c = s.Client(t, harness.Token)
	from(c, "large", d.Slug, large).Fails(http.StatusBadRequest, "database_full")
	from(c, "small", d.Slug, small).OK()
	c.Get("/v1/databases/large").Fails(http.StatusNotFound, "not_found")
}

// later waits until the clock, which is the server's too, is some milliseconds past a time.
func later(t *testing.T, than time.Time) (now time.Time) {
	t.Helper()
	eventually(t, time.Second, func() bool { now = time.Now(); return now.Sub(than) > 3*time.Millisecond })
	return now
}
