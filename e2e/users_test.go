package e2e_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

func TestDatabasesOfUsers(t *testing.T) {
	row(t, "DP-USER-1", "DP-USER-2", "DP-USER-3", "DP-USER-4", "DP-USER-5")
	s := harness.Start(t, binary, harness.Options{})
	admin := s.Client(t, harness.Token)
	template := admin.DB("template")
	template.Batch(true,
		"CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, body TEXT CHECK(length(body) < 100), UNIQUE(owner, body)) STRICT",
		"CREATE TABLE tags(note INTEGER REFERENCES notes(id) ON DELETE CASCADE, tag TEXT, PRIMARY KEY(note, tag)) WITHOUT ROWID",
		"CREATE INDEX notes_owner ON notes(owner) WHERE body IS NOT NULL",
		"CREATE VIEW mine AS SELECT body FROM notes",
		"CREATE VIRTUAL TABLE notes_fts USING fts5(body, content=notes, content_rowid=id)",
		"CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN INSERT INTO notes_fts(rowid, body) VALUES(new.id, new.body); END",
		"INSERT INTO notes(owner, body) VALUES('admin', 'row of the template')",
	).OK()
	schema := string(template.Get(template.Path("schema")).OK().Raw)
	const subject = "auth0|Bärbel 5f7c8ec7"
	a := admin.Post("/v1/users", body{"subject": subject, "template": "template"}).OK()
	a.Is("data.created", "true").Is("data.namespaceSlug", "default").Is("data.role", "write").Has("data", "token", "expiresAt")
	slug := a.Str("data.database.slug")
	user := admin.As(a.Str("data.token")).DB(slug)
	if got := string(admin.DB(slug).Get(admin.DB(slug).Path("schema")).OK().Raw); got != schema {
		t.Errorf("schema %s, want %s", got, schema)
	}
	if got := user.One("SELECT count(*) FROM notes"); got != "0" {
		t.Errorf("%s rows", got)
	}
	user.Must("INSERT INTO notes(owner, body) VALUES('me', 'hello world')").Is("data.lastInsertRowid", "1")
	if got := user.One("SELECT count(*) FROM notes_fts('hello')"); got != "1" {
		t.Error("the trigger is missing")
	}
	user.Query("CREATE TABLE x(a)").Fails(http.StatusForbidden, "role_not_allowed")
	user.Client.DB("template").Query("SELECT 1").Fails(http.StatusForbidden, "forbidden")
	user.Client.Post("/v1/users", body{"subject": "other"}).Fails(http.StatusForbidden, "")
	// Again: the same database, another token, whatever the template.
	b := admin.Post("/v1/users", body{"subject": subject, "role": "read", "expiresIn": 60, "template": "nowhere"}).OK()
	b.Is("data.created", "false").Is("data.database.slug", slug).Is("data.role", "read")
	if b.Str("data.token") == a.Str("data.token") {
		t.Error("the same token")
	}
	reader := admin.As(b.Str("data.token")).DB(slug)
	reader.Must("SELECT * FROM notes")
	reader.Query("DELETE FROM notes").Fails(http.StatusForbidden, "role_not_allowed")
	// Others are others.
	for _, other := range []string{"auth0|Bärbel 5f7c8ec8", "a", strings.Repeat("ü", 256)} {
		if admin.Post("/v1/users", body{"subject": other}).OK().Str("data.database.slug") == slug {
			t.Errorf("%s has the same database", other)
		}
	}
	test := admin.As(mint(admin, body{"test": true}))
	if test.Post("/v1/users", body{"subject": subject}).OK().Str("data.database.slug") == slug {
		t.Error("a test token has the live database")
	}
	test.Post("/v1/users", body{"subject": "x", "template": "template"}).Fails(http.StatusNotFound, "not_found")

	before := len(admin.Get("/v1/databases?pageSize=500").OK().List("data"))
	for _, bad := range []struct {
		request body
		status  int
		code    string
	}{
		{body{}, http.StatusBadRequest, "bad_request"}, {body{"subject": ""}, http.StatusBadRequest, "bad_request"}, {body{"subject": strings.Repeat("x", 257)}, http.StatusBadRequest, "bad_request"},
		{body{"subject": 5}, http.StatusBadRequest, ""}, {body{"subject": "n", "role": "admin"}, http.StatusBadRequest, "invalid_role"}, {body{"subject": "n", "expiresIn": 59}, http.StatusBadRequest, "bad_request"},
		{body{"subject": "n", "expiresIn": 86401}, http.StatusBadRequest, "bad_request"}, {body{"subject": "n", "expiresIn": 60.5}, http.StatusBadRequest, "bad_request"},
		{body{"subject": "n", "template": "nowhere"}, http.StatusNotFound, "not_found"},
	} {
		admin.Post("/v1/users", bad.request).Fails(bad.status, bad.code)
	}
	for _, raw := range []string{`{"subject":"\ud800"}`, "{\"subject\":\"\xff\"}", `{"subject":"a","subject":"b"}`} {
		admin.Post("/v1/users", harness.Raw(raw)).Fails(http.StatusBadRequest, "bad_json")
	}
	admin.Post("/v1/users", body{"subject": "n"}, harness.Header("Plan-Key: k"), harness.Header("Plan-Step: 1")).Fails(http.StatusBadRequest, "invalid_idempotency_key")
	if after := len(admin.Get("/v1/databases?pageSize=500").OK().List("data")); after != before {
		t.Errorf("%d databases, were %d", after, before)
	}
	s.Stop(t)
	err := filepath.WalkDir(s.Data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if strings.Contains(path+string(content)+s.Log(), "5f7c8ec7") {
			t.Errorf("%s, or the log, tells the subject", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Calls that race make one database, whole; kill -9 leaves none or a whole one.
func TestUsersRace(t *testing.T) {
	row(t, "DP-USER-2", "DP-USER-3")
	s := harness.Start(t, binary, harness.Options{})
	admin := s.Client(t, harness.Token)
	template := admin.DB("template")
	schema := []any{}
	for _, n := range strings.Fields("a b c d e f g h i j k l m n o p") {
		schema = append(schema, "CREATE TABLE t_"+n+"(id INTEGER PRIMARY KEY, v TEXT)", "CREATE INDEX i_"+n+" ON t_"+n+"(v)")
	}
	template.Batch(true, schema...).OK()
	const whole = "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"
	want := template.One(whole)
	for round := range 10 {
		var created atomic.Int32
		var slugs sync.Map
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				c := s.Client(t, harness.Token).Apart()
				a, err := c.Try("POST", "/v1/users", body{"subject": fmt.Sprint("user ", round), "template": "template"})
				if err != nil || a.Status != http.StatusOK {
					t.Errorf("%v %v", a, err)
					return
				}
				if a.At("data.created") == true {
					created.Add(1)
				}
				slugs.Store(a.Str("data.database.slug"), true)
				if got := c.As(a.Str("data.token")).DB(a.Str("data.database.slug")).One(whole); got != want {
					t.Errorf("%s objects, want %s", got, want)
				}
			})
		}
		wg.Wait()
		n := 0
		slugs.Range(func(any, any) bool { n++; return true })
		if created.Load() != 1 || n != 1 {
			t.Errorf("round %d: %d calls made it, %d databases", round, created.Load(), n)
		}
	}
	for round := range 5 {
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for n := range 200 {
					if _, err := s.Client(t, harness.Token).Apart().Try("POST", "/v1/users", body{"subject": fmt.Sprint(round, "/", i, "/", n), "template": "template"}); err != nil {
						return
					}
				}
			})
		}
		for len(admin.Get("/v1/databases?pageSize=500").OK().List("data")) < 12+(round+1)*10 {
		}
		s.Kill()
		wg.Wait()
		s = harness.Start(t, binary, harness.Options{Data: s.Data})
		admin = s.Client(t, harness.Token)
	}
	list := admin.Get("/v1/databases?pageSize=500").OK().List("data")
	for _, e := range list {
		slug := e.(map[string]any)["slug"].(string)
		if got := admin.DB(slug).One(whole); got != want {
			t.Errorf("%s: %s objects, want %s", slug, got, want)
		}
	}
	t.Logf("%d databases", len(list))
}
