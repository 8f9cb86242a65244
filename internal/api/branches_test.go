package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/store"
)

// grove is a server with all that a branch has to do with: a history, a query log, a trash of a day and prepaid balances.
type grove struct {
	*metered
	dir  string
	past *history.History
	log  *querylog.Log
	warn warnings
}

// warnings takes what the store logs.
type warnings struct {
	slog.Handler
	mu   sync.Mutex
	list []string
}

func (w *warnings) Enabled(context.Context, slog.Level) bool { return true }
func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Level >= slog.LevelWarn {
		w.list = append(w.list, r.Message)
	}
	return nil
}

func newGrove(t *testing.T) *grove {
	t.Helper()
	g := &grove{metered: &metered{t: t, began: time.Now()}, dir: t.TempDir()}
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	g.cat, err = catalog.Open(ctx, filepath.Join(g.dir, "catalog.db"), catalog.Options{Now: g.now})
	must(err)
	g.ns, err = g.cat.CreateNamespace(ctx, "acme")
	must(err)
	g.books, err = billing.Open(ctx, billing.Options{Catalog: g.cat, Prices: defaultPrices, Prepaid: true, Welcome: 1_000_000_000, Now: g.now})
	must(err)
	for _, name := range []string{"history", "db"} {
		must(os.Mkdir(filepath.Join(g.dir, name), 0o700))
	}
	g.past, err = history.New(history.Options{Root: filepath.Join(g.dir, "history"), Now: g.now})
	must(err)
	times, err := history.OpenClock(filepath.Join(g.dir, "times"))
	must(err)
	g.log = querylog.Open(filepath.Join(g.dir, "log.db"), querylog.Options{Now: g.now, Text: true})
	g.st, err = store.New(store.Options{Dir: filepath.Join(g.dir, "db"), Now: g.now, Meter: g.books, Past: g.past, Clock: times, Logger: slog.New(&g.warn)})
	must(err)
	t.Cleanup(func() {
		g.st.Close(ctx)
		g.books.Close(ctx)
		g.log.Close()
		g.cat.Close()
	})
	g.door = api.New(api.Options{Catalog: g.cat, Placement: g.st, Billing: g.books, Past: g.past, QueryLog: g.log, AutoCreate: true, Trash: 24 * time.Hour, Now: g.now, Temp: t.TempDir()})
	g.token, g.secret = g.newToken(catalog.NewToken{})
	return g
}

// sweep is one round of what the server does every half minute.
func (g *grove) sweep() { g.door.SweepOnce(context.Background()) }

func (g *grove) pass(d time.Duration) { g.later.Add(int64(d)) }

// ask sends a request that must be answered with a status, and returns the answer's data.
func (g *grove) ask(by string, status int, method, path, body string) map[string]any {
	g.t.Helper()
	a := g.send(by, method, path, body)
	if a.status != status {
		g.t.Errorf("%s: got %d %s, want %d", a.what, a.status, a.raw, status)
	}
	var data map[string]any
	_ = json.Unmarshal(a.Data, &data)
	if data == nil {
		data = map[string]any{"code": a.Code}
	}
	return data
}

// sql runs a statement that must be answered with a status, and returns the first value of the answer.
func (g *grove) sql(by string, status int, slug, sql string) string {
	g.t.Helper()
	rows, _ := g.ask(by, status, "POST", "/v1/db/acme/"+slug+"/query", fmt.Sprintf(`{"sql":%q}`, sql))["rows"].([]any)
	if len(rows) == 0 {
		return ""
	}
	return fmt.Sprint(rows[0].([]any)[0])
}

// claim claims a branch of shop; more are fields of the request.
func (g *grove) claim(ref, more string) (slug, token string) {
	g.t.Helper()
	data := g.ask(g.secret, http.StatusOK, "POST", "/v1/db/acme/shop/claim_branch", fmt.Sprintf(`{"ref":%q%s}`, ref, more))
	slug, _ = data["databaseSlug"].(string)
	token, _ = data["token"].(string)
	return slug, token
}

// idOf is the id of a database.
func (g *grove) idOf(slug string) string {
	g.t.Helper()
	id, _ := g.ask(g.secret, http.StatusOK, "GET", "/v1/databases/"+slug, "")["id"].(string)
	return id
}

// files are those of a database's, its history's included.
func (g *grove) files(id string) (list []string) {
	g.t.Helper()
	err := filepath.WalkDir(g.dir, func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), id) {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return list
}

// newShop is a grove with a database of three rows.
func newShop(t *testing.T) *grove {
	t.Helper()
	g := newGrove(t)
	g.sql(g.secret, http.StatusOK, "shop", "CREATE TABLE a(id INTEGER PRIMARY KEY, owner TEXT)")
	g.sql(g.secret, http.StatusOK, "shop", "INSERT INTO a(owner) VALUES('ada'), ('bob'), ('ada')")
	return g
}

const countA = "SELECT count(*) FROM a"

func TestLeaseEnds(t *testing.T) {
	g := newShop(t)
	slug, token := g.claim("x", `,"ttlSec":60`)
	full, fullToken := g.claim("f", `,"ttlSec":60,"content":"full"`)
	kept, keptToken := g.claim("kept", `,"ttlSec":0`)
	id, fullID := g.idOf(slug), g.idOf(full)
	pinned := g.ask(g.secret, http.StatusOK, "POST", "/v1/db/acme/shop/branches/x/pin", `{"ttlSec":600}`)["token"].(string)
	g.sql(token, http.StatusOK, slug, countA)
	g.pass(61 * time.Second)
	// At once, before anybody has swept.
	g.sql(token, http.StatusUnauthorized, slug, countA)
	g.sql(fullToken, http.StatusUnauthorized, full, countA)
	g.sql(g.secret, http.StatusNotFound, slug, countA)
	g.sql(g.secret, http.StatusNotFound, "shop.x", countA)
	g.ask(g.secret, http.StatusNotFound, "GET", "/v1/db/acme/shop/branches/x", "")
	g.ask("", http.StatusNotFound, "POST", "/v1/handoff", fmt.Sprintf(`{"token":%q}`, pinned))
	if list := g.get("/v1/db/acme/shop/branches").raw; strings.Contains(list, `"x"`) || !strings.Contains(list, `"kept"`) {
		t.Errorf("the branches are %s", list)
	}
	g.sweep()
	if left := g.files(id); len(left) > 0 {
		t.Errorf("of a branch that ended %v are left", left)
	}
	if len(g.files(fullID)) == 0 {
		t.Error("a full branch is not in the trash")
	}
	g.ask(g.secret, http.StatusNotFound, "POST", "/v1/databases/"+id+"/undelete", "")
	back := g.ask(g.secret, http.StatusOK, "POST", "/v1/databases/"+fullID+"/undelete", "")
	if back["expiresAt"] != nil || back["branchRef"] != "f" {
		t.Errorf("a branch that is back: %v", back)
	}
	if n := g.sql(g.secret, http.StatusOK, full, countA); n != "3" {
		t.Errorf("with %s rows", n)
	}
	g.sql(fullToken, http.StatusUnauthorized, full, countA)
	g.pass(1000 * 24 * time.Hour)
	g.sweep()
	g.sql(keptToken, http.StatusOK, kept, countA)
	g.sql(g.secret, http.StatusOK, full, countA)
}

func TestLeaseIsRenewed(t *testing.T) {
	g := newShop(t)
	for _, renew := range []func(){
		func() { g.claim("x", `,"ttlSec":60`) },
		func() {
			until := g.now().Add(time.Minute + time.Second).Format(time.RFC3339Nano)
			g.ask(g.secret, http.StatusOK, "PUT", "/v1/db/acme/shop/branches/x", fmt.Sprintf(`{"expiresAt":%q}`, until))
		},
	} {
		g.claim("x", `,"ttlSec":60`)
		g.pass(40 * time.Second)
		renew()
		g.pass(40 * time.Second)
		g.sweep()
		g.sql(g.secret, http.StatusOK, "shop.x", countA)
		g.pass(30 * time.Second)
		g.sql(g.secret, http.StatusNotFound, "shop.x", countA)
	}
}

// A database that ends takes its branches along, and theirs.
func TestParentsExpire(t *testing.T) {
	g := newGrove(t)
	g.ask(g.secret, http.StatusOK, "POST", "/v1/databases", `{"slug":"shop","ttlDays":1}`)
	g.claim("x", `,"ttlSec":0`)
	g.ask(g.secret, http.StatusOK, "PUT", "/v1/db/acme/shop-x/branches/y", "")
	g.ask(g.secret, http.StatusOK, "POST", "/v1/db/acme/shop/fork", `{"slug":"fork"}`)
	g.pass(23 * time.Hour)
	g.sweep()
	g.ask(g.secret, http.StatusOK, "GET", "/v1/databases/shop-x-y", "")
	g.pass(time.Hour + time.Second)
	g.ask(g.secret, http.StatusNotFound, "GET", "/v1/databases/shop", "")
	g.sweep()
	for _, slug := range []string{"shop", "shop-x", "shop-x-y"} {
		g.ask(g.secret, http.StatusNotFound, "GET", "/v1/databases/"+slug, "")
	}
	g.ask(g.secret, http.StatusOK, "GET", "/v1/databases/fork", "")
}

func TestBranchOfAMoment(t *testing.T) {
	g := newShop(t)
	bookmark := g.ask(g.secret, http.StatusOK, "GET", "/v1/db/acme/shop/bookmark", "")["bookmark"].(string)
	then := g.now().Add(time.Second)
	g.pass(time.Hour)
	g.sql(g.secret, http.StatusOK, "shop", "DELETE FROM a WHERE owner = 'ada'")
	for _, at := range []string{fmt.Sprintf("%q", bookmark), fmt.Sprint(then.UnixMilli()), fmt.Sprintf("%q", then.Format(time.RFC3339))} {
		slug, token := g.claim("x", `,"content":"full","at":`+at)
		if n := g.sql(token, http.StatusOK, slug, countA); n != "3" {
			t.Errorf("at %s it has %s rows", at, n)
		}
	}
	slug, _ := g.claim("now", `,"content":"full"`)
	if n := g.sql(g.secret, http.StatusOK, slug, countA); n != "1" {
		t.Errorf("now it has %s rows", n)
	}
	for at, code := range map[string]string{`1000`: "not_in_history", `"ffffffffffffffff-00000000"`: "invalid_bookmark", `"soon"`: "bad_request", `true`: "bad_request", `{}`: "bad_request"} {
		a := g.send(g.secret, "POST", "/v1/db/acme/shop/claim_branch", `{"ref":"y","content":"full","at":`+at+`}`)
		if a.Code != code {
			t.Errorf("at %s: %d %s, want %s", at, a.status, a.raw, code)
		}
	}
	g.ask(g.secret, http.StatusNotFound, "GET", "/v1/db/acme/shop/branches/y", "")
	// A new file isn't taken for one that somebody changed.
	if len(g.warn.list) > 0 {
		t.Errorf("the store warns: %v", g.warn.list)
	}
}

func TestBranchesOfTestTokens(t *testing.T) {
	g := newShop(t)
	_, test := g.newToken(catalog.NewToken{Test: true})
	g.ask(test, http.StatusNotFound, "POST", "/v1/db/acme/shop/claim_branch", `{"ref":"x"}`)
	g.sql(test, http.StatusOK, "trial", "CREATE TABLE a(b)")
	data := g.ask(test, http.StatusOK, "POST", "/v1/db/acme/trial/claim_branch", `{"ref":"x"}`)
	token, _ := data["token"].(string)
	if !strings.HasPrefix(token, "psql_test_") {
		t.Errorf("a test token's branch has the token %.10s", token)
	}
	g.sql(token, http.StatusOK, "trial-x", countA)
	g.sql(test, http.StatusOK, "trial.x", countA)
	// A branch of a test database is one too, whoever makes it.
	g.ask(g.secret, http.StatusOK, "PUT", "/v1/db/acme/trial/branches/y", "")
	g.sql(test, http.StatusOK, "trial.y", countA)
}

func TestWhoMayDoWhatOnABranch(t *testing.T) {
	g := newShop(t)
	slug, token := g.claim("x", "")
	g.sql(token, http.StatusOK, slug, "ALTER TABLE a ADD COLUMN c")
	g.sql(token, http.StatusForbidden, "shop", "ALTER TABLE a ADD COLUMN c")
	_, writer := g.newToken(catalog.NewToken{Role: "write"})
	g.sql(writer, http.StatusForbidden, slug, "DROP TABLE a") // it isn't a token of the branch
	_, pinned := g.newToken(catalog.NewToken{Role: "write", Database: g.idOf("shop")})
	g.sql(pinned, http.StatusForbidden, "shop", "ALTER TABLE a ADD COLUMN c")
	for _, path := range []string{"claim_branch", "fork"} {
		g.ask(token, http.StatusForbidden, "POST", "/v1/db/acme/"+slug+"/"+path, `{"slug":"s"}`)
		g.ask(writer, http.StatusForbidden, "POST", "/v1/db/acme/shop/"+path, `{"slug":"s"}`)
	}
	reader, readToken := g.claim("r", `,"role":"read"`)
	g.sql(readToken, http.StatusForbidden, reader, "INSERT INTO a(owner) VALUES('x')")
	// An admin who is held to the parent makes branches of it, and sees no others; a fork is a database of the namespace.
	_, admin := g.newToken(catalog.NewToken{Database: g.idOf("shop")})
	g.ask(admin, http.StatusOK, "POST", "/v1/db/acme/shop/claim_branch", `{"ref":"mine"}`)
	g.ask(admin, http.StatusOK, "PUT", "/v1/db/acme/shop/branches/mine", "")
	g.ask(admin, http.StatusOK, "GET", "/v1/db/acme/shop/branches/mine", "")
	g.sql(admin, http.StatusForbidden, "shop-mine", countA)
	g.ask(admin, http.StatusForbidden, "POST", "/v1/db/acme/shop/fork", `{"slug":"s"}`)
	g.ask(admin, http.StatusOK, "DELETE", "/v1/db/acme/shop/branches/mine", "")
}

func TestPoliciesGoAlong(t *testing.T) {
	g := newShop(t)
	g.ask(g.secret, http.StatusOK, "POST", "/v1/db/acme/shop/policies", `{"name":"own","tableName":"a","expression":"owner = :auth_sub"}`)
	for _, content := range []string{"schema", "full"} {
		slug, token := g.claim(content, fmt.Sprintf(`,"content":%q`, content))
		if content == "schema" {
			g.sql(g.secret, http.StatusOK, slug, "INSERT INTO a(owner) VALUES('ada'), ('bob')")
		}
		_, ada := g.newToken(catalog.NewToken{Role: "read", Database: g.idOf(slug), Claims: []byte(`{"sub":"ada"}`)})
		want := map[string]string{"schema": "1", "full": "2"}[content]
		if n := g.sql(ada, http.StatusOK, slug, countA); n != want {
			t.Errorf("%s: with her claim ada sees %s rows", content, n)
		}
		if n := g.sql(token, http.StatusOK, slug, countA); n != "0" {
			t.Errorf("%s: without a claim one sees %s rows", content, n)
		}
		g.sql(token, http.StatusForbidden, slug, "CREATE TABLE b AS SELECT * FROM a")
	}
	_, bound := g.newToken(catalog.NewToken{Claims: []byte(`{"sub":"ada"}`)})
	g.ask(bound, http.StatusForbidden, "POST", "/v1/db/acme/shop/claim_branch", `{"content":"full"}`)
}

func TestBranchSlugs(t *testing.T) {
	g := newShop(t)
	// A dot names a branch, never a new database.
	g.sql(g.secret, http.StatusNotFound, "shop.none", countA)
	g.sql(g.secret, http.StatusBadRequest, "none.x", countA)
	slug, _ := g.claim(strings.Repeat("a", 58), "")
	if slug != "shop-"+strings.Repeat("a", 58) {
		t.Errorf("63 bytes are %s", slug)
	}
	if slug, _ = g.claim(strings.Repeat("a", 59), ""); len(slug) != 63 || !strings.HasPrefix(slug, "shop-"+strings.Repeat("a", 49)+"-") {
		t.Errorf("64 bytes are %s", slug)
	}
	// A slug that another database has, or one that had it and is gone.
	g.sql(g.secret, http.StatusOK, "shop-x", "CREATE TABLE other(a)")
	first, _ := g.claim("x", "")
	if first == "shop-x" || !strings.HasPrefix(first, "shop-x-") {
		t.Errorf("a slug that is taken makes %s", first)
	}
	g.ask(g.secret, http.StatusOK, "DELETE", "/v1/databases/shop-x", "")
	if again, _ := g.claim("x", ""); again != first {
		t.Errorf("a branch that is made anew moves from %s to %s", first, again)
	}
	g.ask(g.secret, http.StatusOK, "DELETE", "/v1/db/acme/shop/branches/x", "")
	if after, _ := g.claim("x", ""); after != "shop-x" {
		t.Errorf("a slug that nobody has any more makes %s", after)
	}
	g.ask(g.secret, http.StatusOK, "DELETE", "/v1/db/acme/shop/branches/x", "")
	g.sql(g.secret, http.StatusNotFound, "shop-x", countA) // it isn't made by using it
}

// A branch that is made anew is another database: nothing of the old one is left.
func TestResetTakesAllAlong(t *testing.T) {
	g := newShop(t)
	slug, token := g.claim("x", `,"content":"full"`)
	id := g.idOf(slug)
	g.sql(token, http.StatusOK, slug, "INSERT INTO a(owner) VALUES('eve')")
	g.ask(token, http.StatusOK, "GET", "/v1/db/acme/"+slug+"/bookmark", "")
	if err := g.log.Flush(); err != nil {
		t.Fatal(err)
	}
	entries := func(id string) int {
		t.Helper()
		rows, err := g.log.Read(t.Context(), id, querylog.Filter{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		return len(rows)
	}
	if len(g.files(id)) < 2 || entries(id) == 0 {
		t.Errorf("files %v, %d entries in the log", g.files(id), entries(id))
	}
	data := g.ask(g.secret, http.StatusOK, "PUT", "/v1/db/acme/shop/branches/x", "")
	if data["outcome"] != "reset" || data["id"] == id || data["slug"] != slug {
		t.Errorf("made anew it is %v, and was %s %s", data, id, slug)
	}
	if left := g.files(id); len(left) > 0 || entries(id) > 0 {
		t.Errorf("%v are left, and %d entries of the log", left, entries(id))
	}
	g.sql(token, http.StatusUnauthorized, slug, countA)
	if trash := g.get("/v1/databases?deleted=true").raw; strings.Contains(trash, id) {
		t.Errorf("in the trash is %s", trash)
	}
	// What the branch was made of another way is charged to nobody twice: it has a life of its own.
	if n := g.sql(g.secret, http.StatusOK, slug, countA); n != "0" {
		t.Errorf("it has %s rows", n)
	}
}

// A branch that is made anew takes its own branches along: there is no database any more that they would be listed under.
func TestResetTakesBranchesAlong(t *testing.T) {
	g := newShop(t)
	slug, _ := g.claim("x", `,"content":"full"`)
	g.ask(g.secret, http.StatusOK, "PUT", "/v1/db/acme/"+slug+"/branches/y", `{"content":"full"}`)
	g.ask(g.secret, http.StatusOK, "PUT", "/v1/db/acme/"+slug+"-y/branches/z", "")
	y, z := g.idOf(slug+"-y"), g.idOf(slug+"-y-z")
	// What can't be made takes nothing away.
	g.ask(g.secret, http.StatusBadRequest, "PUT", "/v1/db/acme/shop/branches/x", `{"name":"`+strings.Repeat("n", 1000)+`"}`)
	g.sql(g.secret, http.StatusOK, slug+"-y-z", countA)
	if data := g.ask(g.secret, http.StatusOK, "PUT", "/v1/db/acme/shop/branches/x", ""); data["outcome"] != "reset" {
		t.Errorf("made anew it is %v", data)
	}
	for _, gone := range []string{slug + "-y", slug + "-y-z"} {
		g.sql(g.secret, http.StatusNotFound, gone, countA)
	}
	if left := g.files(z); len(left) > 0 {
		t.Errorf("of a branch without rows %v are left", left)
	}
	g.ask(g.secret, http.StatusOK, "POST", "/v1/databases/"+y+"/undelete", "")
	if n := g.sql(g.secret, http.StatusOK, slug+"-y", countA); n != "3" {
		t.Errorf("back from the trash it has %s rows", n)
	}
}

// A lease that is over is over though nobody has swept: who claims the ref then gets a new branch, and the old one's rows are in the trash.
func TestClaimAfterTheEnd(t *testing.T) {
	g := newShop(t)
	slug, _ := g.claim("x", `,"ttlSec":60,"content":"full"`)
	id := g.idOf(slug)
	g.pass(61 * time.Second)
	data := g.ask(g.secret, http.StatusOK, "PUT", "/v1/db/acme/shop/branches/x", "")
	if data["outcome"] != "created" || data["slug"] != slug {
		t.Errorf("claimed after its end it is %v", data)
	}
	if trash := g.get("/v1/databases?deleted=true").raw; !strings.Contains(trash, id) {
		t.Errorf("in the trash is %s", trash)
	}
	g.ask(g.secret, http.StatusOK, "POST", "/v1/databases/"+id+"/undelete", `{"slug":"kept"}`)
	if n := g.sql(g.secret, http.StatusOK, "kept", countA); n != "3" {
		t.Errorf("back from the trash it has %s rows", n)
	}
}

// TestBranchCostsNothing makes branches with nothing left, and counts what was counted.
func TestBranchCostsNothing(t *testing.T) {
	g := newShop(t)
	total := func() string {
		t.Helper()
		if err := g.books.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		return string(g.get("/v1/usage").Data)
	}
	before := total()
	g.claim("x", `,"content":"full"`)
	g.claim("y", "")
	g.ask(g.secret, http.StatusOK, "PUT", "/v1/db/acme/shop/branches/y", "")
	if after := total(); after != before {
		t.Errorf("the usage was %s, and is %s", before, after)
	}
}

func TestBranchPath(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/db/n/d/branches/x":                           "/v1/db/n/d/branches/x",
		"/v1/db/n/d/branches/a/b":                         "/v1/db/n/d/branches/a%2Fb",
		"/v1/db/n/d/branches/a/b/pin":                     "/v1/db/n/d/branches/a%2Fb/pin",
		"/v1/db/n/d/branches/x/pin":                       "/v1/db/n/d/branches/x/pin",
		"/v1/db/n/d/branches/x%2Fpin/pin":                 "/v1/db/n/d/branches/x%2Fpin/pin",
		"/v1/db/n/d/branches/pin":                         "/v1/db/n/d/branches/pin",
		"/v1/db/n/d/branches//pin":                        "/v1/db/n/d/branches/%2Fpin",
		"/v1/db/n/d/branches/":                            "/v1/db/n/d/branches/",
		"/v1/db/n/d/branches":                             "/v1/db/n/d/branches",
		"/v1/db/n/d/other/a/b":                            "/v1/db/n/d/other/a/b",
		"/v1/db/branches/a/b":                             "/v1/db/branches/a/b",
		"/v1/db/n/branches/branches/a/b":                  "/v1/db/n/branches/branches/a%2Fb",
		"/api/namespaces/n/databases/d/branches/a/b":      "/api/namespaces/n/databases/d/branches/a%2Fb",
		"/api/namespaces/n/databases/d/branches/a/b/pin":  "/api/namespaces/n/databases/d/branches/a%2Fb/pin",
		"/api/namespaces/n/databases/branches/branches/x": "/api/namespaces/n/databases/branches/branches/x",
		"/v1/databases/a/branches/b/c":                    "/v1/databases/a/branches/b/c",
		"":                                                "",
	} {
		if got := api.BranchPath(path); got != want {
			t.Errorf("%s is routed as %s, want %s", path, got, want)
		}
	}
}
