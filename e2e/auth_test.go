package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// newToken makes a token with the command line and returns its id and the token.
func newToken(t testing.TB, s *harness.Server, args ...string) (id, token string) {
	t.Helper()
	made := s.JSONOf(t, append([]string{"token", "create"}, args...)...)
	id, _ = made["id"].(string)
	token, _ = made["token"].(string)
	if id == "" || token == "" {
		t.Fatalf("token create printed %v", made)
	}
	return id, token
}

func refused(t testing.TB, a *harness.Answer, sentence string) {
	t.Helper()
	a.Fails(http.StatusUnauthorized, "unauthorized").Says(sentence)
	if got := a.Header.Get("WWW-Authenticate"); got != "Bearer" && !strings.HasPrefix(got, "Bearer ") {
		t.Errorf("%s: WWW-Authenticate %q", a.What, got)
	}
}

func TestTokenFormat(t *testing.T) {
	row(t, "DP-AUTH-1", "DP-AUTH-2", "DP-AUTH-4")
	c := client(t).As("")
	const sentence = "Invalid token format"
	d := db(t)
	for _, call := range [][2]string{
		{"GET", "/v1/me"}, {"GET", "/v1/whoami"}, {"GET", "/v1/databases"}, {"POST", "/v1/databases"},
		{"GET", "/v1/databases/" + d.Slug}, {"DELETE", "/v1/databases/" + d.Slug},
		{"POST", d.Path("query")}, {"POST", d.Path("batch")}, {"GET", d.Path("tables")}, {"GET", d.Path("describe")},
		{"PUT", d.Path("describe")}, {"GET", d.Path("describe/compact")}, {"GET", d.Path("search")}, {"POST", d.Path("search")},
		{"GET", d.Path("doctor")}, {"POST", d.Path("validate")}, {"POST", d.Path("explain")}, {"GET", d.Path("schema")},
		{"GET", d.Path("query-log")},
	} {
		refused(t, c.Do(call[0], call[1], nil), sentence)
	}
	d.Query("SELECT 1").OK() // none of them did anything
	for _, header := range []string{
		"Bearer", "Bearer ", "Basic dXNlcjpwYXNz", harness.Token, "Token " + harness.Token,
		"Bearer " + strings.Replace(harness.Token, "psql_live_", "psql_", 1),
		"Bearer " + strings.Replace(harness.Token, "psql_live_", "PSQL_LIVE_", 1),
		"Bearer psql_live_short",
		"Bearer psql_live_" + strings.Repeat("a", 31),
		"Bearer psql_live_" + strings.Repeat("a", 300),
		"Bearer psql_live_" + strings.Repeat("a", 40) + "!",
		"Bearer psql_live_" + strings.Repeat("a", 40) + "é",
		"Bearer psql_live_" + strings.Repeat("a", 20) + " " + strings.Repeat("a", 20),
		"Bearer " + harness.Token + " more",
		"Bearer " + harness.Token + "," + harness.Token,
	} {
		refused(t, c.Get("/v1/me", harness.Header("Authorization: "+header)), sentence)
	}
}

func TestTokenUnknown(t *testing.T) {
	row(t, "DP-AUTH-3", "DP-AUTH-4")
	s := sharedServer(t)
	c := client(t)
	const sentence = "Invalid or expired token"
	_, good := newToken(t, s, "--namespace", "default", "--name", "checksum")
	c.As(good).Get("/v1/me").OK()
	last := byte('0')
	if good[len(good)-1] == last {
		last = '1'
	}
	refused(t, c.As(good[:len(good)-1]+string(last)).Get("/v1/me"), sentence)
	refused(t, c.As("psql_live_"+strings.Repeat("a", 40)).Get("/v1/me"), sentence)
	refused(t, c.As("psql_test_"+strings.Repeat("a", 40)).Get("/v1/me"), sentence)
	refused(t, c.As(strings.ToLower(harness.Token)).Get("/v1/me"), sentence)
	refused(t, c.As(harness.Token+"x").Get("/v1/me"), sentence)

	_, brief := newToken(t, s, "--namespace", "default", "--expires", "1s")
	expired := eventually(t, 10*time.Second, func() bool { return c.As(brief).Get("/v1/me").Status == http.StatusUnauthorized })
	if !expired {
		t.Fatal("a token of 1s still works after 10s")
	}
	refused(t, c.As(brief).Get("/v1/me"), sentence)
}

// eventually polls until true or the limit.
func eventually(t testing.TB, limit time.Duration, f func() bool) bool {
	t.Helper()
	end := time.After(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if f() {
			return true
		}
		select {
		case <-end:
			return false
		case <-tick.C:
		}
	}
}

func TestRevokedTokenIsRefusedAtOnce(t *testing.T) {
	row(t, "DP-AUTH-7", "DP-AUTH-3")
	s := sharedServer(t)
	d := db(t)
	for range 5 {
		id, token := newToken(t, s, "--namespace", "default")
		c := d.As(token).DB(d.Slug)
		c.Must("SELECT 1")
		s.JSONOf(t, "token", "revoke", id)
		refused(t, c.Query("SELECT 1"), "Invalid or expired token")
	}
}

func TestNamespaceOfToken(t *testing.T) {
	row(t, "DP-AUTH-5")
	s := sharedServer(t)
	c := client(t)
	d := db(t)
	d.Must("CREATE TABLE secret(a)")
	s.JSONOf(t, "namespace", "create", "other")
	_, other := newToken(t, s, "--namespace", "other")
	for _, ns := range []string{"other", "nobody", "OTHER", "-", "default2"} {
		c.Post("/v1/db/"+ns+"/"+d.Slug+"/batch", harness.BatchBody(false, "SELECT 1")).Fails(http.StatusForbidden, "").Says("Token namespace mismatch")
		for _, call := range []string{"query", "validate", "explain"} {
			c.Post("/v1/db/"+ns+"/"+d.Slug+"/"+call, harness.Body("SELECT 1")).Fails(http.StatusForbidden, "").Says("Token namespace mismatch")
		}
		c.Get("/v1/db/"+ns+"/"+d.Slug+"/tables").Fails(http.StatusForbidden, "").Says("Token namespace mismatch")
	}
	o := c.As(other)
	o.DB(d.Slug).Query("SELECT * FROM secret").Fails(http.StatusForbidden, "").Says("Token namespace mismatch")
	o.Get("/v1/databases/"+d.Slug).Fails(http.StatusNotFound, "not_found")
	if got := o.Get("/v1/databases").OK().List("data"); len(got) != 0 {
		t.Errorf("the other namespace lists %v", got)
	}
	// The same slug in two namespaces is two databases.
	o.Post("/v1/databases", body{"slug": d.Slug}).OK()
	o.Post("/v1/db/other/"+d.Slug+"/query", harness.Body("SELECT * FROM secret")).Fails(http.StatusBadRequest, "")
	d.Must("SELECT * FROM secret")
	o.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).OK()
	d.Must("SELECT * FROM secret")
}

func TestPinnedToken(t *testing.T) {
	row(t, "DP-AUTH-6", "DP-DB-10")
	s := sharedServer(t)
	mine, foreign := db(t), db(t)
	_, token := newToken(t, s, "--namespace", "default", "--database", mine.Slug)
	c := client(t).As(token)
	c.DB(mine.Slug).Must("CREATE TABLE t(a)")
	for _, slug := range []string{foreign.Slug, "absent-" + unused()} {
		c.DB(slug).Query("SELECT 1").Fails(http.StatusForbidden, "").Says("Token is not scoped to this database")
		c.DB(slug).Batch(true, "SELECT 1").Fails(http.StatusForbidden, "").Says("Token is not scoped to this database")
		c.Get(c.DB(slug).Path("tables")).Fails(http.StatusForbidden, "").Says("Token is not scoped to this database")
		c.Get("/v1/databases/"+slug).Fails(http.StatusForbidden, "")
		c.Do(http.MethodDelete, "/v1/databases/"+slug, nil).Fails(http.StatusForbidden, "")
		c.Post("/v1/databases", body{"slug": slug}).Fails(http.StatusForbidden, "")
	}
	list := c.Get("/v1/databases").OK()
	if len(list.List("data")) != 1 {
		t.Errorf("a pinned token lists %s", list.Raw)
	}
	list.Is("data.0.slug", mine.Slug)
	c.Get("/v1/databases/" + mine.Slug).OK()
	c.Get("/v1/me").OK()

	// A pin is to the database, not to its slug.
	admin := client(t)
	admin.Do(http.MethodDelete, "/v1/databases/"+mine.Slug, nil).OK()
	admin.Post("/v1/databases", body{"slug": mine.Slug}).OK()
	if a := c.DB(mine.Slug).Query("SELECT 1"); a.Status == http.StatusOK {
		t.Errorf("the pin moved to the new database of the slug: %s", a.Raw)
	}
}

func TestAutoCreate(t *testing.T) {
	row(t, "DP-AUTH-8", "DP-AUTH-9")
	c := client(t)
	d := c.DB(unused())
	for _, rest := range []string{"tables", "describe", "describe/compact", "doctor", "schema", "query-log", "search?q=x"} {
		c.Get(d.Path(rest)).Fails(http.StatusNotFound, "not_found").Says("Database not found")
	}
	for _, rest := range []string{"validate", "explain"} {
		d.Post(d.Path(rest), harness.Body("SELECT 1")).Fails(http.StatusNotFound, "not_found").Says("Database not found")
	}
	c.Do(http.MethodPut, d.Path("describe"), body{"databaseDescription": "x"}).Fails(http.StatusNotFound, "not_found")
	c.Get("/v1/databases/"+d.Slug).Fails(http.StatusNotFound, "not_found").Says("Database not found")
	c.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).Fails(http.StatusNotFound, "not_found")
	d.Query("SELECT 1").OK()
	c.Get("/v1/databases/" + d.Slug).OK()
	batch := c.DB(unused())
	batch.Batch(true, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)").OK()
	if got := batch.One("SELECT count(*) FROM t"); got != "1" {
		t.Errorf("count is %s", got)
	}
}

func TestAutoCreateOff(t *testing.T) {
	row(t, "DP-AUTH-9")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_AUTO_CREATE=false"}})
	c := s.Client(t, harness.Token)
	c.DB("fresh").Query("SELECT 1").Fails(http.StatusNotFound, "not_found").Says("Database not found")
	c.DB("fresh").Batch(false, "SELECT 1").Fails(http.StatusNotFound, "not_found").Says("Database not found")
	c.Post("/v1/databases", body{"slug": "fresh"}).OK()
	c.DB("fresh").Must("SELECT 1")
}

func TestDeadSlug(t *testing.T) {
	row(t, "DP-AUTH-10")
	d := db(t)
	d.Must("CREATE TABLE old(a)")
	d.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).OK()
	d.Query("SELECT 1").Fails(http.StatusNotFound, "not_found").Says("Database not found")
	d.Batch(false, "SELECT 1").Fails(http.StatusNotFound, "not_found").Says("Database not found")
	d.Get(d.Path("tables")).Fails(http.StatusNotFound, "not_found")
	d.Post("/v1/databases", body{"slug": d.Slug}).OK()
	d.Query("SELECT * FROM old").Fails(http.StatusBadRequest, "").Kind("unknown_table")
}

func TestCommandLineErrors(t *testing.T) {
	s := sharedServer(t)
	for _, args := range [][]string{
		{"token", "create", "--namespace", "nobody"}, {"token", "revoke", "nothing"}, {"namespace", "create", "Not A Slug"},
		{"token", "create", "--namespace", "default", "--database", "no-such-database"},
	} {
		if out, errs, code := s.CLI(t, append(args, "--json")...); code != 1 {
			t.Errorf("%v: exit status %d, want 1: %s%s", args, code, out, errs)
		}
	}
	if _, _, code := s.CLI(t, "token", "create"); code != 2 {
		t.Errorf("token create without namespace: exit status %d, want 2", code)
	}
	info, err := os.Stat(filepath.Join(s.Data, "admin.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin.sock: %v, %v, want mode 0600", info, err)
	}
	if info, err := os.Stat(s.Data); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data directory: %v, %v, want mode 0700", info, err)
	}
}
