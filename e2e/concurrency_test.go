package e2e_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// TestRacingCreates lets many calls name one new database at the same time: it is made once, and nobody is refused.
func TestRacingCreates(t *testing.T) {
	row(t, "DP-AUTH-9", "DP-DB-7")
	c := client(t)
	for range 10 {
		d := c.DB(unused())
		var ids sync.Map
		parallel(t, 24, func(n int) {
			var a *harness.Answer
			var err error
			switch n % 3 {
			case 0:
				a, err = c.Try(http.MethodPost, "/v1/databases", body{"slug": d.Slug})
				if err == nil {
					ids.Store(a.Str("data.id"), true)
				}
			case 1:
				a, err = c.Try(http.MethodPost, d.Path("query"), harness.Body("SELECT 1"))
			default:
				a, err = c.Try(http.MethodPost, d.Path("batch"), harness.BatchBody(true, "CREATE TABLE IF NOT EXISTS t(a)", "INSERT INTO t VALUES(1)"))
			}
			if err != nil || a.Status != http.StatusOK {
				t.Errorf("call %d: %v %s", n, err, a.Raw)
			}
		})
		made := 0
		ids.Range(func(any, any) bool { made++; return true })
		if made != 1 {
			t.Errorf("%d databases of the slug %s", made, d.Slug)
		}
		if got := d.One("SELECT count(*) FROM t"); got != "8" {
			t.Errorf("%s rows, want 8", got)
		}
	}
}

// TestDeleteUnderLoad deletes a database and makes it anew while others write: each call is answered, none with a 5xx,
// and the last database holds only what was written to it.
func TestDeleteUnderLoad(t *testing.T) {
	row(t, "DP-DB-6", "DP-ENV-5")
	c := client(t)
	d := newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	var stop atomic.Bool
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				a, err := d.Try(http.MethodPost, d.Path("query"), harness.Body("INSERT INTO t VALUES(?)", fmt.Sprint(worker, i)))
				if err != nil {
					t.Error(err)
					return
				}
				if a.Status != http.StatusOK && a.Status != http.StatusNotFound && a.Status != http.StatusBadRequest {
					t.Errorf("got %d %s", a.Status, a.Raw)
				}
			}
		})
	}
	for range 20 {
		d.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).OK()
		d.Post("/v1/databases", body{"slug": d.Slug}).OK()
		d.Must("CREATE TABLE t(a)")
		d.Must("INSERT INTO t VALUES('mark')")
	}
	stop.Store(true)
	wg.Wait()
	if got := d.One("SELECT count(*) FROM t WHERE a = 'mark'"); got != "1" {
		t.Errorf("%s marks, want 1: an earlier database lives on", got)
	}
}

func TestTestTokens(t *testing.T) {
	row(t, "DP-AUTH-11")
	s := sharedServer(t)
	live := db(t)
	live.Must("CREATE TABLE t(a)")
	_, token := newToken(t, s, "--namespace", "default", "--test")
	c := live.As(token)
	if token[:10] != "psql_test_" {
		t.Errorf("a test token begins with %s", token[:10])
	}
	c.DB(live.Slug).Query("SELECT * FROM t").Fails(http.StatusNotFound, "not_found")
	c.Get(live.Path("tables")).Fails(http.StatusNotFound, "not_found")
	c.Get("/v1/databases/"+live.Slug).Fails(http.StatusNotFound, "not_found")
	c.Do(http.MethodDelete, "/v1/databases/"+live.Slug, nil).Fails(http.StatusNotFound, "not_found")
	if a := c.Post("/v1/databases", body{"slug": live.Slug}); a.Status == http.StatusOK {
		t.Errorf("a test token was given a live database: %s", a.Raw)
	}
	live.Must("SELECT * FROM t")

	mine := c.DB(unused())
	mine.Must("CREATE TABLE t AS SELECT 1 AS a")
	list := c.Get("/v1/databases?pageSize=500").OK()
	if len(list.List("data")) != 1 || list.Str("data.0.slug") != mine.Slug {
		t.Errorf("a test token lists %s", list.Raw)
	}
	client(t).DB(mine.Slug).Must("SELECT a FROM t")
}
