package e2e_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/sqlite"
)

// A directory, or a catalog, of a newer version stops the start; both versions are named, and nothing is written.
func TestNewerDataDirIsRefused(t *testing.T) {
	newer := map[string]func(t *testing.T, data string){
		"has format 2, this version of persqld knows format 1": func(t *testing.T, data string) {
			if err := os.WriteFile(filepath.Join(data, "format"), []byte("2\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"has schema 99, this version of persqld knows schema": func(t *testing.T, data string) {
			db, err := sqlite.OpenDriver(filepath.Join(data, "catalog.db"), sqlite.DriverOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec("INSERT INTO goose_db_version(version_id, is_applied) VALUES(99, 1)"); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		},
	}
	for message, change := range newer {
		s := harness.Start(t, binary, harness.Options{})
		newDB(t, s.Client(t, harness.Token))
		if code := s.Stop(t); code != 0 {
			t.Fatalf("exit status %d", code)
		}
		change(t, s.Data)
		was := map[string][]byte{}
		for _, name := range []string{"catalog.db", "format", "query-log.db"} {
			content, err := os.ReadFile(filepath.Join(s.Data, name))
			if err != nil {
				t.Fatal(err)
			}
			was[name] = content
		}
		for _, command := range [][]string{{"serve", "--listen", "127.0.0.1:0"}, {"token", "list"}} {
			_, stderr, code := s.CLI(t, command...)
			if code != 1 || !strings.Contains(stderr, message) || !strings.Contains(stderr, "hint: run the version") {
				t.Errorf("%v: exit status %d: %s; want %q", command, code, stderr, message)
			}
		}
		for name, content := range was {
			if now, err := os.ReadFile(filepath.Join(s.Data, name)); err != nil || !bytes.Equal(now, content) {
				t.Errorf("%s was changed, %v", name, err)
			}
		}
	}
}

// A database that a newer version wrote fails alone, and its file is left as it is.
func TestNewerDatabaseFailsAlone(t *testing.T) {
	row(t, "DP-S-6")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	d, other := newDB(t, c), newDB(t, c)
	d.Must("CREATE TABLE t(a)")
	path := databaseFile(s.Data, d.Get("/v1/databases/"+d.Slug).OK().Str("data.id"))
	if code := s.Stop(t); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	thread := sqlite.NewThread()
	defer thread.Close()
	conn, err := sqlite.Open(sqlite.Config{Path: path}, thread)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.CreateReserved("CREATE TABLE sqlite_persql_kept_v9(x)"); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil { // with the commit in its log, as by kill -9
		t.Fatal(err)
	}
	read := func() (content []byte) {
		t.Helper()
		for _, suffix := range []string{"", "-wal"} {
			part, err := os.ReadFile(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			content = append(content, part...)
		}
		return content
	}
	was := read()
	s = harness.Start(t, binary, harness.Options{Data: s.Data})
	c = s.Client(t, harness.Token)
	d, other = c.DB(d.Slug), c.DB(other.Slug)
	for range 2 {
		for _, a := range []*harness.Answer{d.Query("SELECT 1"), d.Query("INSERT INTO t VALUES(1)"), d.Get(d.Path("describe"))} {
			a.Fails(http.StatusServiceUnavailable, "database_newer").Tells("sqlite_persql_kept_v9", "sqlite_persql_kept_v1", "hint")
		}
		other.Must("SELECT 1")
	}
	if code := s.Stop(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if !bytes.Equal(read(), was) {
		t.Error("the file was written")
	}
}
