package e2e_test

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// tree lists the files and folders under dir.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // a log may go while we look
		}
		if base := filepath.Base(path); !strings.HasSuffix(base, "-wal") && !strings.HasSuffix(base, "-journal") {
			names = append(names, strings.TrimPrefix(path, dir))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestPathTricks(t *testing.T) {
	row(t, "DP-N-1", "DP-ENV-5")
	around := t.TempDir()
	data := filepath.Join(around, "outer", "data")
	s := harness.Start(t, binary, harness.Options{Data: data})
	c := s.Client(t, harness.Token)
	s.JSONOf(t, "namespace", "create", "victim")
	_, token := newToken(t, s, "--namespace", "victim")
	victim := c.As(token)
	victim.Post("/v1/databases", body{"slug": "vault"}).OK()
	ask := func(c *harness.Client, ns, db, sql string) *harness.Answer {
		return c.Post("/v1/db/"+ns+"/"+db+"/query", harness.Body(sql))
	}
	ask(victim, "victim", "vault", "CREATE TABLE secrets AS SELECT 'the-crown-jewels' AS s").OK()
	mine := c.DB("mine")
	mine.Must("CREATE TABLE t AS SELECT 'my-own' AS s")
	before := tree(t, around)
	databases := string(c.Get("/v1/databases").OK().Raw)

	targets := map[string]bool{}
	for _, ns := range []string{"default", "victim", "..", ".", "", "%2e%2e", "default/..", "default%2f..%2fvictim", "default/../victim", "default/%2e%2e/victim", "default%2fvictim",
		"VICTIM", "Victim", "DEFAULT", "Default", "ｖｉｃｔｉｍ", "vıctım", "victim%00", "default%00", "default%20", "%64efault", "defau%6ct", "default;victim", "default?x=", "default%3f", "~", "*", "%", "%zz", "%c0%ae%c0%ae", "..%5c..", "default\\..\\victim", "%E2%80%8Bdefault"} {
		for _, db := range []string{"vault", "..", "%2e%2e", "..%2f..%2fcatalog.db", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "../../catalog.db", "..%252f..%252fcatalog", "mine%2f..%2fvault", "mine/../vault", "MINE", "Mine", "mine%00", "mine.db", "mine%20", "ｍｉｎｅ", "mıne", "mine%2f", "", "%2fetc%2fpasswd", "C:%5cx", "nul%00.db", ".", "%2e", "mine;x", "..;"} {
			// An encoded letter is that letter (RFC 3986): these name the caller's own namespace, where a vault may be made.
			if own, err := url.PathUnescape(ns); err == nil && own == "default" && db == "vault" {
				continue
			}
			targets["/v1/db/"+ns+"/"+db+"/query"] = true
		}
	}
	for _, extra := range []string{
		"//v1/db/victim/vault/query", "/v1//db/victim/vault/query", "/v1/db//victim/vault/query", "/v1/db/victim//vault/query", "/v1/db/victim/vault//query",
		"/v1/../v1/db/victim/vault/query", "/v1/db/default/mine/../../victim/vault/query", "/%76%31/db/victim/vault/query", "/v1/db/victim/vault/query/", "/V1/db/victim/vault/query",
		"/v1/db/default/mine/..%2f..%2fvictim%2fvault%2fquery", "/../../etc/passwd", "/v1/db/default/mine%2fquery", "/v1/db/default%2fmine/query", "/v1/db/victim/vault/%71uery",
		"http://127.0.0.1/v1/db/victim/vault/query", "/v1/db/victim/vault/query?ns=default", "/v1/db/victim/vault/query#/../../default/mine/query",
	} {
		targets[extra] = true
	}
	const sql = `{"sql":"SELECT * FROM secrets"}`
	for target := range targets {
		wire := strings.ReplaceAll(target, " ", "%20")
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			a := c.Target(method, wire, sql)
			if strings.Contains(string(a.Raw), "crown-jewels") {
				t.Errorf("%s %s crosses namespaces: %s", method, target, a.Raw)
			}
			if a.Status < 400 || a.Status >= 500 {
				// A spelling of one's own database is no crossing, but only SELECT of its own table could succeed.
				t.Errorf("%s %s: got %d %s", method, target, a.Status, a.Raw)
			}
			var answer struct {
				Success *bool
				Code    string
			}
			// net/http itself refuses a target that is no URL, in plain text.
			_, invalid := url.ParseRequestURI(wire)
			if err := json.Unmarshal(a.Raw, &answer); invalid == nil && strings.HasPrefix(target, "/v1/") && (err != nil || answer.Success == nil || *answer.Success || answer.Code == "") {
				t.Errorf("%s %s: not a failure in JSON: %d %s", method, target, a.Status, a.Raw)
			}
			for _, leak := range []string{around, "catalog.db", "goroutine"} {
				if strings.Contains(string(a.Raw), leak) && !strings.Contains(target, leak) {
					t.Errorf("%s %s tells %s: %s", method, target, leak, a.Raw)
				}
			}
		}
	}
	for _, slug := range []string{"..", "%2e%2e", "..%2fvictim", "vault", "..%2f..%2fcatalog.db", ".", "%00"} {
		for _, method := range []string{http.MethodGet, http.MethodDelete} {
			if a := c.Target(method, "/v1/databases/"+slug, ""); a.Status < 400 || a.Status >= 500 {
				t.Errorf("%s of %s: got %d %s", method, slug, a.Status, a.Raw)
			}
		}
	}

	if after := tree(t, around); !slices.Equal(before, after) {
		t.Errorf("files before: %v\nafter: %v", before, after)
	}
	if got := string(c.Get("/v1/databases").OK().Raw); got != databases {
		t.Errorf("databases before: %s\nafter: %s", databases, got)
	}
	rowsAre(t, ask(victim, "victim", "vault", "SELECT s FROM secrets"), `[["the-crown-jewels"]]`)
	rowsAre(t, mine.Query("SELECT s FROM t"), `[["my-own"]]`)
}
