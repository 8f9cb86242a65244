package querylog_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/sqlite"
)

func TestDamagedFileIsBegunAnew(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"not SQLite": func(t *testing.T, path string) {
			write(t, path, []byte(strings.Repeat("no database ", 1000)))
		},
		"pages overwritten": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 4096-100), 100); err != nil {
				t.Fatal(err)
			}
		},
		"another program's": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			db, err := sqlite.OpenDriver(path, sqlite.DriverOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec("CREATE TABLE t(a)"); err != nil {
				t.Fatal(err)
			}
		},
		"a folder": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"of a later version": func(t *testing.T, path string) {
			db, err := sqlite.OpenDriver(path, sqlite.DriverOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, path := newClock(), logPath(t)
			l := begin(t, path, querylog.Options{Now: c.now, Text: true})
			add(l, c, "d", "before")
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			damage(t, path)
			var told bytes.Buffer
			l = begin(t, path, querylog.Options{Now: c.now, Text: true, Logger: slog.New(slog.NewTextHandler(&told, nil))})
			add(l, c, "d", "after")
			flush(t, l)
			if got := texts(read(t, l, "d", querylog.Filter{})); got != "after" {
				t.Errorf("got %q", got)
			}
			if !strings.Contains(told.String(), "level=WARN") || !strings.Contains(told.String(), ".damaged") {
				t.Errorf("told: %s", told.String())
			}
			if _, err := os.Stat(path + ".damaged"); err != nil {
				t.Error(err)
			}
			if s := l.Stats(); s.Failures != 0 {
				t.Errorf("stats: %+v", s)
			}
		})
	}
}

// Damage that only shows while the server runs.
func TestDamageWhileRunning(t *testing.T) {
	for name, use := range map[string]func(t *testing.T, l *querylog.Log){
		"seen by a flush": func(t *testing.T, l *querylog.Log) { flush(t, l) },
		"seen by a read":  func(t *testing.T, l *querylog.Log) { read(t, l, "d", querylog.Filter{}) },
	} {
		t.Run(name, func(t *testing.T) {
			c, path := newClock(), logPath(t)
			l := begin(t, path, querylog.Options{Now: c.now, Text: true})
			add(l, c, "d", "before")
			flush(t, l)
			add(l, c, "d", "after")
			if err := l.Exec("DROP TABLE chunk"); err != nil {
				t.Fatal(err)
			}
			use(t, l)
			flush(t, l)
			if got := texts(read(t, l, "d", querylog.Filter{})); got != "after" {
				t.Errorf("got %q", got)
			}
			if _, err := os.Stat(path + ".damaged"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDamagedChunkIsLeftOut(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true})
	for _, sql := range []string{"a", "b", "c"} {
		add(l, c, "d", sql)
		flush(t, l)
	}
	if err := l.Exec("UPDATE chunk SET body = CAST(zeroblob(3) || substr(body, 4) AS BLOB) WHERE last_id = (SELECT last_id FROM chunk ORDER BY 1 LIMIT 1 OFFSET 1)"); err != nil {
		t.Fatal(err)
	}
	if got := texts(read(t, l, "d", querylog.Filter{})); got != "c a" {
		t.Errorf("got %q", got)
	}
}

// No file at all: entries stay in memory, and reach the file when there can be one.
func TestWithoutAFile(t *testing.T) {
	c, dir := newClock(), filepath.Join(t.TempDir(), "missing")
	l := begin(t, filepath.Join(dir, "query-log.db"), querylog.Options{Now: c.now, Text: true})
	add(l, c, "d", "a")
	if got := texts(read(t, l, "d", querylog.Filter{})); got != "a" {
		t.Errorf("got %q", got)
	}
	c.advance(time.Minute)
	if err := l.Flush(); err == nil {
		t.Error("flushed to nowhere")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	flush(t, l) // too early to try again
	if got := l.Stats(); got.Flushed != 0 || got.Failures != 2 || got.Dropped != 0 {
		t.Errorf("stats: %+v", got)
	}
	c.advance(time.Minute)
	flush(t, l)
	if got := l.Stats(); got.Flushed != 1 {
		t.Errorf("stats: %+v", got)
	}
	if got := texts(read(t, l, "d", querylog.Filter{})); got != "a" {
		t.Errorf("got %q", got)
	}
}

// A flush that fails loses nothing.
func TestFullDisk(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true})
	if err := l.Exec("PRAGMA max_page_count = 10"); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		add(l, c, "d", strings.Repeat(string(rune('a'+i%26)), 3000+i))
	}
	if err := l.Flush(); err == nil {
		t.Fatal("flushed to a full disk")
	}
	add(l, c, "d", "last")
	if got := read(t, l, "d", querylog.Filter{Limit: 1000}); len(got) != 101 || got[0].SQL != "last" {
		t.Errorf("%d rows", len(got))
	}
	if err := l.Exec("PRAGMA max_page_count = 10000"); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Minute)
	flush(t, l)
	if got := read(t, l, "d", querylog.Filter{Limit: 1000}); len(got) != 101 || got[0].SQL != "last" {
		t.Errorf("%d rows", len(got))
	}
	if got := l.Stats(); got.Flushed != 101 || got.Dropped != 0 || got.Failures != 1 {
		t.Errorf("stats: %+v", got)
	}
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
