package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// TestHistoryUnderFire writes, restores, imports, copies, vacuums and deletes at the same time, while the server is killed again and again. Each write says what it
// left, in its own transaction: that is what its bookmark must restore, and what a copy of it must hold.
func TestHistoryUnderFire(t *testing.T) {
	row(t, "DP-HIST-4", "DP-HIST-7", "DP-HIST-8", "DP-HIST-11", "DP-HIST-13")
	env := append([]string{"PERSQLD_MAX_TRANSFERS=8"}, keepsHistory...)
	s := harness.Start(t, binary, harness.Options{Env: env})
	data := s.Data
	d := s.Client(t, harness.Token).DB("fire")
	d.Must("CREATE TABLE t(n INTEGER PRIMARY KEY, filler)")
	const sees = "SELECT count(*) || ' ' || coalesce(sum(n), 0) || ' ' || coalesce(sum(length(filler)), 0) FROM t"
	var mu sync.Mutex
	states := map[string]string{} // by bookmark
	var marks []string
	torn := map[string]bool{}     // those of commits whose other writers may not have got their answers
	copies := map[string]string{} // bookmarks by the slug of what was copied
	done := map[string]int{}
	next := 0
	learn := func(mark, state string) {
		mu.Lock()
		defer mu.Unlock()
		// Those that share a commit have its bookmark: the last of them saw what it left.
		if was, ok := states[mark]; !ok || rowsOf(state) > rowsOf(was) {
			states[mark] = state
		}
		marks = append(marks, mark)
	}
	some := func() string {
		mu.Lock()
		defer mu.Unlock()
		if len(marks) == 0 {
			return ""
		}
		return marks[max(len(marks)-1-rand.IntN(60), 0)]
	}
	for round := range 10 {
		c := s.Client(t, harness.Token).Apart()
		var all sync.WaitGroup
		end := make(chan struct{})
		work := func(name string, step func() (*harness.Answer, error)) {
			all.Go(func() {
				for {
					select {
					case <-end:
						return
					default:
					}
					a, err := step()
					if err != nil {
						return // killed
					}
					if a == nil {
						continue
					}
					switch a.Status {
					case http.StatusOK, http.StatusServiceUnavailable, http.StatusTooManyRequests:
					default:
						t.Errorf("%s: %d %s", name, a.Status, harness.Tail(string(a.Raw), 400))
					}
					mu.Lock()
					done[fmt.Sprint(name, " ", a.Status)]++
					mu.Unlock()
				}
			})
		}
		for range 3 {
			work("insert", func() (*harness.Answer, error) {
				mu.Lock()
				next++
				n := next
				mu.Unlock()
				a, err := c.Try("POST", d.Path("batch"), harness.BatchBody(true, harness.Body("INSERT INTO t VALUES(?, randomblob(?))", n, n*7919%9000), sees))
				if err == nil && a.Status == http.StatusOK {
					learn(a.Str("meta.bookmark"), a.Str("data.1.rows.0.0"))
				}
				return a, err
			})
		}
		work("restore", func() (*harness.Answer, error) {
			if m := some(); m != "" {
				return c.Try("POST", d.Path("restore"), body{"bookmark": m})
			}
			return nil, nil
		})
		work("from", func() (*harness.Answer, error) {
			m := some()
			if m == "" {
				return nil, nil
			}
			slug := unused()
			mu.Lock()
			copies[slug] = m
			mu.Unlock()
			return c.Try("POST", "/v1/databases", body{"slug": slug, "from": body{"database": "fire", "at": m}})
		})
		work("other", func() (*harness.Answer, error) {
			switch rand.IntN(4) {
			case 0:
				return c.Try("POST", d.Path("query"), harness.Body("VACUUM"))
			case 1:
				return c.Try("POST", d.Path("import"), harness.Raw("UPDATE t SET filler = 'imported' WHERE n % 2;"))
			case 2:
				a, err := c.Try("POST", d.Path("batch"), harness.BatchBody(true, "DELETE FROM t", sees))
				if err == nil && a.Status == http.StatusOK {
					learn(a.Str("meta.bookmark"), a.Str("data.1.rows.0.0"))
				}
				return a, err
			default:
				return c.Try("POST", d.Path("snapshots"), body{"label": "fire"})
			}
		})
		lives := time.After(time.Duration(200+rand.IntN(500)) * time.Millisecond) // wherever the kill falls
		<-lives
		if round%3 < 2 {
			s.Kill()
			close(end)
			all.Wait()
			if len(marks) > 0 {
				torn[slices.Max(marks)] = true
			}
		} else {
			close(end)
			all.Wait()
			s.Stop(t)
		}
		s = harness.Start(t, binary, harness.Options{Data: data, Env: env})
		// The first write after a start may be one that makes its commit by itself.
		if a := s.Client(t, harness.Token).DB("fire").Must("VACUUM"); a.At("data.meta.bookmark") == nil {
			t.Errorf("a VACUUM without a bookmark: %s", a.Raw)
		} else {
			learn(a.Str("data.meta.bookmark"), s.Client(t, harness.Token).DB("fire").One(sees))
		}
	}
	t.Logf("%d moments; %v", len(marks), done)
	c := s.Client(t, harness.Token)
	d = c.DB("fire")
	var there int
	for slug, m := range copies {
		a := c.Get("/v1/databases/" + slug)
		if a.Status == http.StatusNotFound {
			continue
		}
		there++
		if got := c.DB(slug).One(sees); got != states[m] && !torn[m] {
			t.Errorf("the copy of %s holds %q, want %q", m, got, states[m])
		}
	}
	for range 150 {
		m := marks[rand.IntN(len(marks))]
		if a := restore(d, body{"bookmark": m}); a.Status != http.StatusOK {
			t.Errorf("%s: %s", m, a.Raw)
		} else if got := d.One(sees); got != states[m] && (!torn[m] || rowsOf(got) < rowsOf(states[m])) {
			t.Errorf("%s holds %q, want %q", m, got, states[m])
		}
	}
	if there < done["from 200"] {
		t.Errorf("%d copies are there, %d were answered", there, done["from 200"])
	}
	if files, err := filepath.Glob(filepath.Join(data, "tmp", "*")); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v %v", files, err)
	}
}

// rowsOf is how many rows such a state has.
func rowsOf(state string) (n int) {
	fmt.Sscan(state, &n)
	return n
}

// TestHistoryAmongDeletions deletes a database and brings it back, and changes its policies, while it is written, restored and copied: each write that was
// answered is at its bookmark, and a copy has the policies.
func TestHistoryAmongDeletions(t *testing.T) {
	row(t, "DP-HIST-11", "DP-HIST-12", "DP-HIST-13")
	s := harness.Start(t, binary, harness.Options{Env: append([]string{"PERSQLD_MAX_TRANSFERS=8", "PERSQLD_AUTO_CREATE=false"}, keepsHistory...)})
	c := s.Client(t, harness.Token).Apart()
	d := newDB(t, c)
	id := d.Get("/v1/databases/" + d.Slug).OK().Str("data.id")
	d.Must("CREATE TABLE t(n INTEGER PRIMARY KEY, b)")
	const sees = "SELECT count(*) || ' ' || coalesce(sum(n), 0) FROM t"
	var mu sync.Mutex
	states, done := map[string]string{}, map[string]int{}
	var marks []string
	next := 0
	var all sync.WaitGroup
	end := time.Now().Add(4 * time.Second)
	work := func(name string, step func() (*harness.Answer, error)) {
		all.Go(func() {
			for time.Now().Before(end) {
				a, err := step()
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				switch a.Status {
				case http.StatusOK, http.StatusNotFound, http.StatusServiceUnavailable, http.StatusTooManyRequests:
				default:
					t.Errorf("%s: %d %s", name, a.Status, harness.Tail(string(a.Raw), 400))
				}
				mu.Lock()
				done[fmt.Sprint(name, " ", a.Status)]++
				mu.Unlock()
			}
		})
	}
	some := func() string {
		mu.Lock()
		defer mu.Unlock()
		if len(marks) == 0 {
			return d.Slug
		}
		return marks[rand.IntN(len(marks))]
	}
	for range 2 {
		work("insert", func() (*harness.Answer, error) {
			mu.Lock()
			next++
			n := next
			mu.Unlock()
			a, err := c.Try("POST", d.Path("batch"), harness.BatchBody(true, harness.Body("INSERT INTO t(n) VALUES(?)", n), sees))
			if err == nil && a.Status == http.StatusOK {
				mu.Lock()
				m, state := a.Str("meta.bookmark"), a.Str("data.1.rows.0.0")
				if was, ok := states[m]; !ok || rowsOf(state) > rowsOf(was) {
					states[m] = state
				}
				marks = append(marks, m)
				mu.Unlock()
			}
			return a, err
		})
	}
	work("restore", func() (*harness.Answer, error) {
		if m := some(); m != d.Slug {
			return c.Try("POST", d.Path("restore"), body{"bookmark": m})
		}
		return c.Try("GET", d.Path("snapshots"), nil)
	})
	copies := map[string]string{}
	work("from", func() (*harness.Answer, error) {
		m := some()
		if m == d.Slug {
			return c.Try("GET", d.Path("bookmark"), nil)
		}
		slug := unused()
		a, err := c.Try("POST", "/v1/databases", body{"slug": slug, "from": body{"database": id, "at": m}})
		if err == nil && a.Status == http.StatusOK {
			mu.Lock()
			copies[slug] = m
			mu.Unlock()
		}
		return a, err
	})
	seen := 0
	work("delete", func() (*harness.Answer, error) {
		eventually(t, time.Until(end), func() bool { // the others have come to something
			mu.Lock()
			defer mu.Unlock()
			return len(marks) >= seen+10
		})
		mu.Lock()
		seen = len(marks)
		mu.Unlock()
		if a, err := c.Try("DELETE", "/v1/databases/"+d.Slug, nil); err != nil || a.Status != http.StatusOK {
			return a, err
		}
		return c.Try("POST", "/v1/databases/"+id+"/undelete", nil)
	})
	work("policy", func() (*harness.Answer, error) {
		a, err := c.Try("POST", d.Path("policies"), body{"name": "p", "tableName": "t", "expression": "n = :auth_n"})
		if err != nil || a.Status != http.StatusOK && a.Status != http.StatusConflict {
			return a, err
		}
		if a.Status == http.StatusConflict { // one that stayed, because its deletion met that of the database
			if a, err = c.Try("GET", d.Path("policies"), nil); err != nil || a.Status != http.StatusOK || len(a.List("data")) == 0 {
				return a, err
			}
			return c.Try("DELETE", d.Path("policies/"+a.Str("data.0.id")), nil)
		}
		return c.Try("DELETE", d.Path("policies/"+a.Str("data.id")), nil)
	})
	all.Wait()
	t.Logf("%d moments; %v", len(marks), done)
	if a := c.Get("/v1/databases/" + d.Slug); a.Status == http.StatusNotFound {
		if !eventually(t, 10*time.Second, func() bool {
			a, err := c.Try("POST", "/v1/databases/"+id+"/undelete", nil)
			return err == nil && a.Status == http.StatusOK
		}) {
			t.Fatal("it doesn't come back")
		}
	}
	for slug, m := range copies {
		if got := c.DB(slug).One(sees); got != states[m] {
			t.Errorf("the copy of %s holds %q, want %q", m, got, states[m])
		}
	}
	for range 80 {
		m := marks[rand.IntN(len(marks))]
		if a := restore(d, body{"bookmark": m}); a.Status != http.StatusOK {
			t.Errorf("%s: %s", m, a.Raw)
		} else if got := d.One(sees); got != states[m] {
			t.Errorf("%s holds %q, want %q", m, got, states[m])
		}
	}
}
