package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// remove deletes a database and returns its id.
func remove(t testing.TB, d *harness.DB) (id string) {
	t.Helper()
	id = d.Get("/v1/databases/" + d.Slug).OK().Str("data.id")
	d.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).OK()
	return id
}

// undelete brings a database back, under a new slug if there is one.
func undelete(c *harness.Client, id, slug string) *harness.Answer {
	if slug == "" {
		return c.Post("/v1/databases/"+id+"/undelete", nil)
	}
	return c.Post("/v1/databases/"+id+"/undelete", body{"slug": slug})
}

// trash are the slugs in the trash.
func trash(c *harness.Client, query string) (slugs []string) {
	a := c.Get("/v1/databases?deleted=true" + query).OK()
	for i := range a.List("data") {
		slugs = append(slugs, a.Str(fmt.Sprintf("data.%d.slug", i)))
	}
	return slugs
}

func moment(t testing.TB, a *harness.Answer, path string) time.Time {
	t.Helper()
	at, err := time.Parse("2006-01-02T15:04:05.000Z", a.Str(path))
	if err != nil {
		t.Errorf("%s: %s: %v", a.What, path, err)
	}
	return at
}

func TestTrash(t *testing.T) {
	row(t, "DP-DB-12", "DP-DB-13", "DP-DB-14")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	d := newDB(t, c)
	d.Batch(true, "CREATE TABLE t(a)", "CREATE VIRTUAL TABLE words USING fts5(w)", "INSERT INTO words VALUES('hello world')").OK()
	write := harness.Body("INSERT INTO t VALUES(?) RETURNING a", 42)
	first := d.Post(d.Path("query"), write, key("once")).OK()
	d.Do(http.MethodPut, d.Path("describe"), body{"databaseDescription": "what it is for"}).OK()
	before := d.Get("/v1/databases/" + d.Slug).OK()
	_, secret := newToken(t, s, "--namespace", "default", "--database", d.Slug)
	pinned := c.As(secret).DB(d.Slug)
	pinned.Must("SELECT 1")

	gone := d.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).OK()
	until := moment(t, gone, "data.restorableUntil")
	if left := time.Until(until); left < 167*time.Hour || left > 168*time.Hour {
		t.Errorf("restorable for %v, want 168h", left)
	}
	id := before.Str("data.id")
	a := c.Get("/v1/databases?deleted=true").OK()
	a.Has("data.0", append([]string{"deletedAt", "restorableUntil"}, databaseFields...)...)
	a.Is("data.0.id", id).Is("data.0.slug", d.Slug).Is("data.0.status", "deleting").Is("data.0.restorableUntil", gone.Str("data.restorableUntil"))
	if deleted := moment(t, a, "data.0.deletedAt"); until.Sub(deleted) != 168*time.Hour {
		t.Errorf("deleted %v, restorable until %v", deleted, until)
	}
	if got := harness.Text(c.Get("/v1/databases?deleted=false").OK().At("data")); got != "[]" {
		t.Errorf("the list of living databases is %s", got)
	}
	c.Get("/v1/databases?deleted=maybe").Fails(http.StatusBadRequest, "bad_request")
	d.Query("SELECT 1").Fails(http.StatusNotFound, "not_found").Tells("deleted=true")
	d.Get(d.Path("query-log")).Fails(http.StatusNotFound, "not_found")
	pinned.Query("SELECT 1").Fails(http.StatusForbidden, "")
	if path := databaseFile(s.Data, id); !exists(path) || sizeOf(path+"-wal") != 0 {
		t.Errorf("the file of a database in the trash: there %v, its log has %d bytes", exists(path), sizeOf(path+"-wal"))
	}

	// Back, with all that it had; also when the server was started anew between.
	for range 2 {
		undelete(c, id, "").OK().Is("data.id", id).Is("data.slug", d.Slug).Is("data.status", "healthy").Is("data.createdAt", before.Str("data.createdAt"))
		undelete(c, id, "").OK().Is("data.id", id) // sent again
		undelete(c, id, d.Slug).OK()
		undelete(c, id, "elsewhere").Fails(http.StatusConflict, "not_deleted")
		again := d.Post(d.Path("query"), write, key("once")).OK()
		if again.Header.Get("Idempotency-Replayed") != "true" || string(again.Raw) != string(first.Raw) {
			t.Errorf("a kept answer after the undelete: %s, want %s", again.Raw, first.Raw)
		}
		if got := d.One("SELECT count(*) || (SELECT w FROM words WHERE words MATCH 'hello') FROM t"); got != "1hello world" {
			t.Errorf("content %s", got)
		}
		d.Get(d.Path("describe")).OK().Is("data.databaseDescription", "what it is for")
		d.Get(d.Path("query-log")+"?limit=1000").OK().Tells("CREATE VIRTUAL TABLE", "INSERT INTO t")
		pinned.Must("SELECT a FROM t")
		if got := d.One("PRAGMA integrity_check"); got != "ok" {
			t.Errorf("integrity: %s", got)
		}
		d.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).OK()
		if code := s.Stop(t); code != 0 {
			t.Errorf("exit status %d", code)
		}
		s = harness.Start(t, binary, harness.Options{Data: s.Data})
		c = s.Client(t, harness.Token)
		d, pinned = c.DB(d.Slug), c.As(secret).DB(d.Slug)
	}
	undelete(c, id, "elsewhere").OK().Is("data.slug", "elsewhere").Is("data.name", before.Str("data.name"))
	c.DB("elsewhere").Must("SELECT a FROM t")
	d.Query("SELECT 1").Fails(http.StatusNotFound, "not_found") // the old slug stays dead
	c.As(secret).DB("elsewhere").Must("SELECT a FROM t")
}

func databaseFile(data, id string) string {
	return filepath.Join(data, "db", id[len(id)-2:], id+".db")
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func sizeOf(path string) int64 {
	if fi, err := os.Stat(path); err == nil {
		return fi.Size()
	}
	return 0
}

func TestTrashList(t *testing.T) {
	row(t, "DP-DB-12", "DP-DB-16")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	_, secret := newToken(t, s, "--namespace", "default", "--test")
	test := c.As(secret)
	var newest []string
	for i := range 5 {
		maker := c
		if i == 3 {
			maker = test
		}
		d := maker.DB(fmt.Sprintf("list-%d", i))
		d.Post("/v1/databases", body{"slug": d.Slug}).OK()
		remove(t, d)
		newest = append([]string{d.Slug}, newest...)
	}
	for query, want := range map[string][]string{
		"": newest, "&pageSize=2": newest[:2], "&pageSize=2&page=3": newest[4:], "&page=2": nil, "&pageSize=500": newest,
	} {
		if got := trash(c, query); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", query, got, want)
		}
	}
	c.Get("/v1/databases?deleted=true&page=0").Fails(http.StatusBadRequest, "")
	if got := trash(test, ""); !slices.Equal(got, []string{"list-3"}) {
		t.Errorf("a test token sees %v in the trash", got)
	}
	a := c.Get("/v1/databases?deleted=true").OK()
	undelete(test, a.Str("data.0.id"), "").Fails(http.StatusNotFound, "not_found")
	undelete(test, a.Str("data.1.id"), "").OK().Is("data.slug", "list-3")
	undelete(test, a.Str("data.1.id"), "").OK()

	// A pin opens neither the trash nor the way out of it.
	d := c.DB("pinned")
	d.Must("SELECT 1")
	_, secret = newToken(t, s, "--namespace", "default", "--database", d.Slug)
	pinned := c.As(secret)
	pinned.Get("/v1/databases?deleted=true").Fails(http.StatusForbidden, "forbidden")
	id := remove(t, d)
	undelete(pinned, id, "").Fails(http.StatusForbidden, "forbidden")

	// Nor does another namespace's token.
	if out := s.JSONOf(t, "namespace", "create", "other"); out["slug"] != "other" {
		t.Fatal(out)
	}
	_, secret = newToken(t, s, "--namespace", "other")
	other := c.As(secret)
	undelete(other, id, "").Fails(http.StatusNotFound, "not_found")
	undelete(other, a.Str("data.1.id"), "").Fails(http.StatusNotFound, "not_found") // it lives
	if got := trash(other, ""); got != nil {
		t.Errorf("another namespace sees %v", got)
	}
	undelete(c, id, "").OK()
}

func TestUndeleteRefusals(t *testing.T) {
	row(t, "DP-DB-15")
	c := client(t)
	d := db(t)
	id := remove(t, d)
	c.Post("/v1/databases", body{"slug": d.Slug}).OK()
	undelete(c, id, "").Fails(http.StatusConflict, "slug_taken").Tells("hint")
	undelete(c, id, d.Slug).Fails(http.StatusConflict, "slug_taken")
	for _, slug := range []string{"-a", "A", "a.b", "a/b"} {
		undelete(c, id, slug).Fails(http.StatusBadRequest, "invalid_slug")
	}
	c.Post("/v1/databases/"+id+"/undelete", harness.Raw(`{"slug":5}`)).Fails(http.StatusBadRequest, "bad_request")
	c.Post("/v1/databases/"+id+"/undelete", nil, "Plan-Key: k", "Plan-Step: 1").Fails(http.StatusBadRequest, "invalid_idempotency_key")
	for _, id := range []string{"db_none", d.Slug, "..", "%2e%2e", "x"} {
		if a := undelete(c, id, ""); a.Status != http.StatusNotFound {
			t.Errorf("undelete of %q: %d %s", id, a.Status, a.Raw)
		}
	}
	undelete(c, id, unused()).OK().Is("data.id", id)
}

func TestRacingUndeletes(t *testing.T) {
	row(t, "DP-DB-15")
	c := client(t)
	d := db(t)
	one := remove(t, d)
	c.Post("/v1/databases", body{"slug": d.Slug}).OK()
	two := remove(t, d)
	a, b := unused(), unused()
	race := func(calls ...[2]string) (won int) {
		var all sync.WaitGroup
		statuses := make([]int, len(calls))
		for i, call := range calls {
			all.Go(func() { statuses[i] = undelete(c, call[0], call[1]).Status })
		}
		all.Wait()
		for _, status := range statuses {
			switch status {
			case http.StatusOK:
				won++
			case http.StatusConflict:
			default:
				t.Errorf("an undelete answered %d", status)
			}
		}
		return won
	}
	if won := race([2]string{one, ""}, [2]string{two, ""}); won != 1 {
		t.Errorf("%d databases came back under one slug", won)
	}
	d.Must("SELECT 1")
	id := remove(t, d)
	if won := race([2]string{id, a}, [2]string{id, b}); won != 1 {
		t.Errorf("one database came back under %d slugs", won)
	}
	// Deleted and brought back under load, it always ends up as the last call left it.
	d = db(t)
	d.Must("CREATE TABLE t(a)")
	id = d.Get("/v1/databases/" + d.Slug).OK().Str("data.id")
	var all sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a := d.Query("INSERT INTO t VALUES(1)"); a.Status != http.StatusOK && a.Status != http.StatusNotFound {
					t.Errorf("a write: %d %s", a.Status, a.Raw)
				}
			}
		})
	}
	for range 20 {
		d.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).OK()
		rows := d.Query("SELECT count(*) FROM t")
		rows.Fails(http.StatusNotFound, "not_found")
		undelete(c, id, "").OK()
		d.Must("SELECT count(*) FROM t")
	}
	close(stop)
	all.Wait()
	if got := d.One("PRAGMA integrity_check"); got != "ok" {
		t.Errorf("integrity: %s", got)
	}
}

// Over its time a database is gone, and so are its files; without a trash at once.
func TestTrashEnds(t *testing.T) {
	row(t, "DP-DB-17")
	for _, keep := range []string{"1s", "0"} {
		t.Run(keep, func(t *testing.T) {
			s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_TRASH=" + keep}})
			c := s.Client(t, harness.Token)
			d := newDB(t, c)
			d.Must("CREATE TABLE t(a)")
			id := d.Get("/v1/databases/" + d.Slug).OK().Str("data.id")
			path := databaseFile(s.Data, id)
			if !exists(path) {
				t.Fatalf("there is no %s: the test shows nothing", path)
			}
			a := d.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).OK()
			if keep == "0" {
				a.Is("data.restorableUntil", "null")
				if exists(path) || exists(path+"-wal") {
					t.Error("the file is left")
				}
			} else {
				until := moment(t, a, "data.restorableUntil")
				if !eventually(t, 20*time.Second, func() bool { return !exists(path) && !exists(path+"-wal") }) {
					t.Fatal("the files stay")
				}
				if time.Now().Before(until) {
					t.Errorf("the files went before %v", until)
				}
			}
			undelete(c, id, "").Fails(http.StatusNotFound, "not_found")
			if got := trash(c, ""); got != nil {
				t.Errorf("the trash has %v", got)
			}
			d.Query("SELECT 1").Fails(http.StatusNotFound, "not_found") // its slug stays dead
			c.Post("/v1/databases", body{"slug": d.Slug}).OK()
			if got := d.One("SELECT count(*) FROM sqlite_schema"); got != "0" {
				t.Errorf("a new database of the slug has %s objects", got)
			}
		})
	}
}
