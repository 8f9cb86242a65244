package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/doctor"
	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/migrations"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// house is a data directory as kill -9 left it.
type house struct {
	datadir.Layout
	orders, gone string // files: of a living database with commits in its log, and of a deleted one
}

type open struct{}

func (open) Permit(sqlite.Access) error { return nil }
func (open) Judge(*sqlite.Stmt) error   { return nil }

func newHouse(t *testing.T) *house {
	t.Helper()
	now := func() time.Time { return noon }
	root := filepath.Join(t.TempDir(), "data")
	dir, err := datadir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cat, err := catalog.Open(t.Context(), dir.Catalog(), catalog.Options{Now: now})
	must(err)
	ns, err := cat.CreateNamespace(t.Context(), "acme")
	must(err)
	st, err := store.New(store.Options{Dir: dir.Databases(), Now: now})
	must(err)
	log := querylog.Open(dir.QueryLog(), querylog.Options{Now: now})
	paths := map[string]string{}
	for _, slug := range []string{"orders", "gone", "visits"} {
		d, _, err := cat.CreateDatabase(t.Context(), catalog.NewDatabase{NamespaceID: ns.ID, Slug: slug})
		must(err)
		must(st.Create(t.Context(), d.ID))
		must(st.Do(t.Context(), d.ID, &store.Request{Gate: open{}, Job: store.JobFunc(func(tx *store.Tx) error {
			for _, sql := range []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)", "CREATE INDEX t_b ON t(b)", "CREATE VIRTUAL TABLE f USING fts5(x)", "INSERT INTO f VALUES('hello')",
				"INSERT INTO t SELECT value, 'needle' || value FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value+1 FROM n WHERE value < 300) SELECT value FROM n)"} {
				if err := tx.Query(sql, nil, nil); err != nil {
					return err
				}
			}
			return tx.SetNote(store.Note{Text: "a note"})
		})}))
		paths[slug] = filepath.Join("db", d.ID[len(d.ID)-2:], d.ID+".db")
		if slug == "gone" {
			_, err := cat.DeleteDatabase(t.Context(), d.ID, time.Hour, "")
			must(err)
		}
		if slug != "orders" {
			must(st.Retire(t.Context(), d.ID))
		}
	}
	killed := filepath.Join(t.TempDir(), "killed")
	must(os.CopyFS(killed, os.DirFS(root)))
	must(errors.Join(st.Close(context.Background()), log.Close(), cat.Close(), dir.Close()))
	must(filepath.WalkDir(killed, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700)
	}))
	h := &house{Layout: datadir.Layout(killed)}
	h.orders, h.gone = filepath.Join(killed, paths["orders"]), filepath.Join(killed, paths["gone"])
	if fi, err := os.Stat(h.orders + "-wal"); err != nil || fi.Size() == 0 {
		t.Fatalf("there is no hot log: the tests show too little (%v)", err)
	}
	return h
}

// examine is an examination that must change nothing.
func (h *house) examine(t *testing.T, now time.Time, full bool) *doctor.Report {
	t.Helper()
	was := h.picture(t)
	report, err := doctor.Examine(t.Context(), h.Root(), doctor.Options{Full: full, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if is := h.picture(t); is != was {
		t.Errorf("the examination changed the directory:\n%s\nwas\n%s", is, was)
	}
	return report
}

// picture is everything that the directory holds: names, modes, times, contents.
func (h *house) picture(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(h.Root(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v %v %d", path, info.Mode(), info.ModTime(), info.Size())
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum := 0
			for _, c := range content {
				sum = sum*31 + int(c)
			}
			fmt.Fprintf(&b, " %x", sum)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func codes(r *doctor.Report) string {
	var list []string
	for _, f := range r.Findings {
		list = append(list, fmt.Sprint(f.Severity, " ", f.Code))
	}
	return strings.Join(list, ", ")
}

func TestSound(t *testing.T) {
	h := newHouse(t)
	files, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	var latest int64
	if _, err := fmt.Sscanf(files[len(files)-1], "%d_", &latest); err != nil {
		t.Fatal(err)
	}
	for _, full := range []bool{false, true} {
		r := h.examine(t, noon, full)
		if !r.Sound || len(r.Findings) != 0 || r.Databases != 3 || r.Format != 1 || int64(r.CatalogSchema) != latest || r.Bytes == 0 || r.Full != full {
			t.Errorf("got %+v", r)
		}
	}
}

func TestFindings(t *testing.T) {
	write := func(t *testing.T, path, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage := func(t *testing.T, path string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(sqlite.PageSize); at < info.Size(); at += 2 * sqlite.PageSize {
			if _, err := f.WriteAt([]byte(strings.Repeat("\xa5", 512)), at); err != nil {
				t.Fatal(err)
			}
		}
	}
	conn := func(t *testing.T, path string, do func(*sqlite.Conn) error) {
		t.Helper()
		thread := sqlite.NewThread()
		defer thread.Close()
		c, err := sqlite.Open(sqlite.Config{Path: path}, thread)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(do(c), c.Close()); err != nil {
			t.Fatal(err)
		}
	}
	sql := func(t *testing.T, path, sql string) {
		t.Helper()
		conn(t, path, func(c *sqlite.Conn) error { return c.Exec(sql) })
	}
	for _, tt := range []struct {
		name   string
		spoil  func(t *testing.T, h *house)
		want   string
		sound  bool
		now    time.Time
		tells  []string
		noFull bool
	}{
		{name: "damaged database", want: "error damaged", tells: []string{"acme/gone (deleted)", "backup"}, spoil: func(t *testing.T, h *house) { damage(t, h.gone) }},
		{name: "database that is none", want: "error damaged", tells: []string{"acme/orders"}, spoil: func(t *testing.T, h *house) { write(t, h.orders, strings.Repeat("no database ", 1000)) }},
		{name: "empty database", want: "error file_empty", tells: []string{"acme/orders"}, spoil: func(t *testing.T, h *house) { write(t, h.orders, "") }},
		{name: "missing file", want: "error file_missing, warning orphan_log", tells: []string{"acme/orders"}, spoil: func(t *testing.T, h *house) { os.Remove(h.orders) }},
		{name: "missing file in the trash", want: "error file_missing", spoil: func(t *testing.T, h *house) { os.Remove(h.gone); os.Remove(h.gone + "-wal") }},
		{name: "orphan", want: "warning orphan_file", spoil: func(t *testing.T, h *house) {
			write(t, filepath.Join(h.Databases(), "zz", "db_nobodyszz.db"), string(sqlite.EmptyFile()))
		}},
		{name: "stray files", want: "warning misplaced_file, warning unknown_file, info unknown_file", spoil: func(t *testing.T, h *house) {
			write(t, filepath.Join(h.Databases(), "zz", "db_elsewhere.db"), string(sqlite.EmptyFile()))
			write(t, filepath.Join(h.Databases(), "zz", "notes.txt"), "x")
			write(t, filepath.Join(h.Root(), "notes.txt"), "x")
		}},
		{name: "leftovers", want: "info temporary_files", sound: true, tells: []string{"2 files"}, spoil: func(t *testing.T, h *house) {
			write(t, filepath.Join(h.Temp(), "a"), "x")
			write(t, filepath.Join(h.Temp(), "b"), "x")
		}},
		{name: "over its time", want: "info trash_overdue", sound: true, now: noon.Add(time.Hour), spoil: func(*testing.T, *house) {}},
		{name: "condemned", want: "info purge_pending", sound: true, spoil: func(t *testing.T, h *house) {
			sql(t, h.Catalog(), "UPDATE databases SET restorable_until = NULL, condemned_at = 1 WHERE deleted_at IS NOT NULL")
			os.Remove(h.gone)
			os.Remove(h.gone + "-wal")
		}},
		{name: "permissions", want: "warning permissions, warning permissions, warning permissions", tells: []string{"0755", "0711", "0664"}, spoil: func(t *testing.T, h *house) {
			filepath.WalkDir(h.Root(), func(path string, d fs.DirEntry, err error) error {
				if !d.IsDir() {
					os.Chmod(path, 0o600)
				}
				return err
			})
			os.Chmod(h.Root(), 0o755)
			os.Chmod(h.Databases(), 0o711)
			os.Chmod(h.orders, 0o664)
		}},
		{name: "nothing for the owner", want: "error permissions", tells: []string{"0400"}, spoil: func(t *testing.T, h *house) { os.Chmod(h.orders, 0o400) }},
		{name: "newer system table", want: "error database_newer", tells: []string{"kept_v9", "kept_v1"}, spoil: func(t *testing.T, h *house) {
			conn(t, h.orders, func(c *sqlite.Conn) error { return c.CreateReserved("CREATE TABLE sqlite_persql_kept_v9(x)") })
		}},
		{name: "newer directory", want: "error format_newer", spoil: func(t *testing.T, h *house) { write(t, h.Format(), "2") }},
		{name: "damaged format", want: "error format_damaged", spoil: func(t *testing.T, h *house) { write(t, h.Format(), "") }},
		{name: "newer catalog", want: "error catalog_newer", tells: []string{"schema 99"}, spoil: func(t *testing.T, h *house) {
			sql(t, h.Catalog(), "INSERT INTO goose_db_version(version_id, is_applied) VALUES(99, 1)")
		}},
		{name: "row of nobody", want: "error catalog_damaged", tells: []string{"belongs to no row of namespaces"}, spoil: func(t *testing.T, h *house) {
			conn(t, h.Catalog(), func(c *sqlite.Conn) error {
				return errors.Join(c.Exec("PRAGMA foreign_keys=OFF"), c.Exec("DELETE FROM namespaces"))
			})
		}},
		{name: "catalog that is none", want: "error catalog_damaged", spoil: func(t *testing.T, h *house) {
			write(t, h.Catalog(), strings.Repeat("no catalog ", 1000))
			os.Remove(h.Catalog() + "-wal")
		}},
		{name: "no catalog", want: "error catalog_missing", spoil: func(t *testing.T, h *house) { os.Remove(h.Catalog()) }},
		{name: "damaged query log", want: "warning query_log_damaged", spoil: func(t *testing.T, h *house) {
			write(t, h.QueryLog(), strings.Repeat("no log ", 1000))
			os.Remove(h.QueryLog() + "-wal")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			tt.spoil(t, h)
			if tt.now.IsZero() {
				tt.now = noon
			}
			r := h.examine(t, tt.now, false)
			if got := codes(r); got != tt.want || r.Sound != tt.sound {
				t.Errorf("got %s, sound %v, want %s, %v\n%+v", got, r.Sound, tt.want, tt.sound, r.Findings)
			}
			all := fmt.Sprint(r.Findings)
			for _, word := range tt.tells {
				if !strings.Contains(all, word) {
					t.Errorf("%s does not tell %q", all, word)
				}
			}
			for _, f := range r.Findings {
				if f.Message == "" || f.Fix == "" {
					t.Errorf("%s says neither what nor what to do: %+v", f.Code, f)
				}
			}
		})
	}
}

// A torn catalog is read as far as it goes, and the files are examined all the same.
func TestDamagedCatalog(t *testing.T) {
	h := newHouse(t)
	// Its log holds all of it: tear that in the middle, and the file behind it.
	log, err := os.ReadFile(h.Catalog() + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.Catalog()+"-wal", log[:len(log)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.gone, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := h.examine(t, noon, false)
	if r.Sound || r.Databases != 3 || !strings.Contains(codes(r), "error damaged") {
		t.Errorf("got %s, %+v", codes(r), r)
	}
}

func TestHeldDirectory(t *testing.T) {
	h := newHouse(t)
	dir, err := datadir.Open(h.Root())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := doctor.Examine(t.Context(), h.Root(), doctor.Options{}); !errors.Is(err, datadir.ErrLocked) {
		t.Errorf("got %v", err)
	}
	if _, err := doctor.Examine(t.Context(), filepath.Join(h.Root(), "none"), doctor.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
