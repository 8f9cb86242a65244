package e2e_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// A data directory of each release is kept in testdata/datadirs, as it was when its server was killed, and every later
// version opens a copy of it. That of a new release is made with
//
//	go test ./e2e -run TestMakeDataDir -make-datadir v0.2
var makeDataDir = flag.String("make-datadir", "", "make testdata/datadirs/`name`.tar.gz with this version")

// fixtureClock is the time in the house that makes a directory. Kept answers, the query log and the trash have an end;
// counted from there it doesn't come before the test is out of use.
var fixtureClock = time.Date(2100, 1, 1, 12, 0, 0, 0, time.UTC)

// What the directories hold.
const (
	fixtureNote = "orders of tea"
	fixtureKey  = "order-1"
	fixtureSQL  = "INSERT INTO orders(item) VALUES('tea') RETURNING id"
)

// fixtureHouse is the server in this process, with its clock.
type fixtureHouse struct {
	t    *testing.T
	dir  *datadir.Dir
	cat  *catalog.Catalog
	log  *querylog.Log
	st   *store.Store
	door *api.Server
}

func openFixtureHouse(t *testing.T, path string) *fixtureHouse {
	t.Helper()
	now := func() time.Time { return fixtureClock }
	h := &fixtureHouse{t: t}
	var err error
	if h.dir, err = datadir.Open(path); err != nil {
		t.Fatal(err)
	}
	if h.cat, err = catalog.Open(t.Context(), h.dir.Catalog(), catalog.Options{Now: now}); err != nil {
		t.Fatal(err)
	}
	h.log = querylog.Open(h.dir.QueryLog(), querylog.Options{Now: now, Text: true})
	if h.st, err = store.New(store.Options{Dir: h.dir.Databases(), Now: now,
		Tables: func(id string) []*sqlite.Table { return []*sqlite.Table{h.log.Table(id), api.DatabaseListTable()} }}); err != nil {
		t.Fatal(err)
	}
	h.door = api.New(api.Options{Catalog: h.cat, Placement: h.st, QueryLog: h.log, AutoCreate: true, Trash: 168 * time.Hour, Now: now})
	return h
}

func (h *fixtureHouse) close() {
	h.t.Helper()
	if err := errors.Join(h.st.Close(context.Background()), h.log.Close(), h.cat.Close(), h.dir.Close()); err != nil {
		h.t.Fatal(err)
	}
}

// call sends a request that must succeed.
func (h *fixtureHouse) call(token, method, path, body string, headers ...string) {
	h.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.door.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		h.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
}

func (h *fixtureHouse) query(token, database, sql string, headers ...string) {
	h.t.Helper()
	h.call(token, "POST", "/v1/db/"+database+"/query", fmt.Sprintf(`{"sql":%q}`, sql), headers...)
}

// TestMakeDataDir makes a directory of this version, if it is asked to.
func TestMakeDataDir(t *testing.T) {
	if *makeDataDir == "" {
		return
	}
	path := filepath.Join(t.TempDir(), "data")
	h := openFixtureHouse(t, path)
	def, err := h.cat.CreateNamespace(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	acme, err := h.cat.CreateNamespace(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	token := harness.Token
	if _, err := h.cat.EnsureOperatorToken(t.Context(), def.ID, token); err != nil {
		t.Fatal(err)
	}
	_, other, err := h.cat.CreateToken(t.Context(), catalog.NewToken{NamespaceID: acme.ID, Name: "of acme"})
	if err != nil {
		t.Fatal(err)
	}
	h.query(token, "default/orders", "CREATE TABLE orders(id INTEGER PRIMARY KEY, item TEXT NOT NULL)")
	h.query(token, "default/orders", fixtureSQL, "Idempotency-Key: "+fixtureKey)
	h.call(token, "PUT", "/v1/db/default/orders/describe", fmt.Sprintf(`{"databaseDescription":%q}`, fixtureNote))
	h.query(token, "default/words", "CREATE VIRTUAL TABLE words USING fts5(w)")
	h.query(token, "default/words", "INSERT INTO words VALUES('hello world'), ('good night')")
	h.query(other, "acme/things", "CREATE TABLE things(a REAL, b BLOB) STRICT")
	h.query(other, "acme/things", "INSERT INTO things VALUES(0.1, x'00ff'), (-9e999, NULL)")
	h.query(token, "default/gone", "CREATE TABLE gone(a)")
	h.query(token, "default/gone", "INSERT INTO gone VALUES(7)")
	h.query(token, "default/late", "CREATE TABLE late(a)")
	h.close()

	// Killed, with commits in a log that nobody copied back.
	h = openFixtureHouse(t, path)
	h.call(token, "DELETE", "/v1/databases/gone", "")
	for i := range 20 {
		h.query(token, "default/late", fmt.Sprintf("INSERT INTO late VALUES(%d)", i))
	}
	if err := h.log.Flush(); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(t.TempDir(), "killed")
	if err := os.CopyFS(killed, os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	h.close()
	to := filepath.Join("testdata", "datadirs", *makeDataDir+".tar.gz")
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), pack(killed, to)); err != nil {
		t.Fatal(err)
	}
	t.Logf("made %s, %d bytes", to, sizeOf(to))
}

// pack makes an archive of a directory.
func pack(dir, to string) (err error) {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(f)
	archive := tar.NewWriter(zip)
	defer func() { err = errors.Join(err, archive.Close(), zip.Close(), f.Close()) }()
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "lock" {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := archive.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: 0o600, Size: int64(len(content))}); err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	})
}

// unpack makes a data directory of an archive, as it was.
func unpack(t testing.TB, archive string) (dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "data")
	for files := tar.NewReader(zip); ; {
		header, err := files.Next()
		if err == io.EOF {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(header.Name))
		if !filepath.IsLocal(header.Name) {
			t.Fatalf("%s holds %s", archive, header.Name)
		}
		content, err := io.ReadAll(files)
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// This version finds everything that each earlier one kept.
func TestDataDirOfEachRelease(t *testing.T) {
	archives, err := filepath.Glob(filepath.Join("testdata", "datadirs", "*.tar.gz"))
	if err != nil || len(archives) == 0 {
		t.Fatalf("no directories of releases: %v", err)
	}
	for _, archive := range archives {
		name := strings.TrimSuffix(filepath.Base(archive), ".tar.gz")
		t.Run(name, func(t *testing.T) {
			data := unpack(t, archive)
			late := 0
			if err := filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
				if strings.HasSuffix(path, "-wal") && strings.Contains(path, "/db/") && sizeOf(path) > 0 {
					late++
				}
				return err
			}); err != nil || late != 1 {
				t.Fatalf("%d databases have a log that is not copied back, %v: the directory shows too little", late, err)
			}
			if report, code := doctor(t, data, "--full"); code != 0 {
				t.Errorf("persqld doctor finds: %v", report)
			}
			s := harness.Start(t, binary, harness.Options{Data: data})
			c := s.Client(t, harness.Token)
			findFixture(t, s, c, name != "v0.0") // which had no trash
			if code := s.Stop(t); code != 0 {
				t.Errorf("exit status %d", code)
			}
			s = harness.Start(t, binary, harness.Options{Data: data})
			findFixture(t, s, s.Client(t, harness.Token), false)
		})
	}
}

// findFixture looks for everything that TestMakeDataDir put there.
func findFixture(t *testing.T, s *harness.Server, c *harness.Client, trashed bool) {
	t.Helper()
	orders := c.DB("orders")
	a := orders.Post(orders.Path("query"), harness.Raw(fmt.Sprintf(`{"sql":%q}`, fixtureSQL)), key(fixtureKey)).OK().Is("data.rows.0.0", "1")
	if a.Header.Get("Idempotency-Replayed") != "true" {
		t.Error("the kept answer is lost: the statement ran again")
	}
	if got := orders.One("SELECT group_concat(id || item) FROM orders"); got != "1tea" {
		t.Errorf("orders: %s", got)
	}
	orders.Get(orders.Path("describe")).OK().Is("data.databaseDescription", fixtureNote)
	orders.Get(orders.Path("query-log")+"?limit=1000").OK().Tells("CREATE TABLE orders", fixtureSQL)
	if got := c.DB("words").One("SELECT w FROM words WHERE words MATCH 'hello'"); got != "hello world" {
		t.Errorf("words: %s", got)
	}
	if got := c.DB("late").One("SELECT count(*) || ' ' || sum(a) FROM late"); got != "20 190" {
		t.Errorf("late: %s", got)
	}
	_, secret := newToken(t, s, "--namespace", "acme")
	things := c.As(secret).Post("/v1/db/acme/things/query", harness.Body("SELECT * FROM things")).OK()
	if got := harness.Text(things.At("data.rows")); got != `[[0.1,{"$blob":"AP8="}],[-9e999,null]]` {
		t.Errorf("things: %s", got)
	}
	if out, _, _ := s.CLI(t, "token", "list", "--namespace", "acme"); !strings.Contains(out, "of acme") {
		t.Errorf("tokens of acme: %s", out)
	}
	c.DB("gone").Query("SELECT 1").Fails(http.StatusNotFound, "not_found")
	if trashed {
		if got := trash(c, ""); !slices.Equal(got, []string{"gone"}) {
			t.Fatalf("the trash has %v", got)
		}
		undelete(c, c.Get("/v1/databases?deleted=true").OK().Str("data.0.id"), "back").OK()
		if got := c.DB("back").One("SELECT a FROM gone"); got != "7" {
			t.Errorf("back: %s", got)
		}
	}
	for _, slug := range []string{"orders", "words", "late"} {
		if got := c.DB(slug).One("PRAGMA integrity_check"); got != "ok" {
			t.Errorf("%s: integrity: %s", slug, got)
		}
	}
}
