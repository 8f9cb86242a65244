package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/doctor"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// museum is a data directory with a history of every kind of file, as kill -9 left it.
type museum struct {
	house
	id, dir string // the database, and its history
}

type silent struct{}

func (silent) Note(string, uint64, int64) error { return nil }
func (silent) Times(string, uint64) []int64     { return nil }

func newMuseum(t *testing.T) *museum {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(t.TempDir(), "data")
	dir, err := datadir.Open(root)
	must(err)
	var seconds atomic.Int64
	now := func() time.Time { return noon.Add(time.Duration(seconds.Add(1)) * time.Second) }
	cat, err := catalog.Open(t.Context(), dir.Catalog(), catalog.Options{Now: func() time.Time { return noon }})
	must(err)
	ns, err := cat.CreateNamespace(t.Context(), "acme")
	must(err)
	d, _, err := cat.CreateDatabase(t.Context(), catalog.NewDatabase{NamespaceID: ns.ID, Slug: "orders"})
	must(err)
	past, err := history.New(history.Options{Root: dir.History()})
	must(err)
	st, err := store.New(store.Options{Dir: dir.Databases(), Now: now, Past: past, Clock: silent{}})
	must(err)
	must(st.Create(t.Context(), d.ID))
	run := func(sqls ...string) {
		t.Helper()
		for _, sql := range sqls {
			must(st.Do(t.Context(), d.ID, &store.Request{Gate: open{}, Job: store.JobFunc(func(tx *store.Tx) error { return tx.Query(sql, nil, nil) })}))
		}
	}
	grow := func() {
		for range 10 {
			run("INSERT INTO t(b) VALUES(hex(randomblob(5000)))")
		}
		must(st.Keep(t.Context(), d.ID))
	}
	run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	grow()
	must(st.Base(t.Context(), d.ID))
	_, err = past.Prune(t.Context(), d.ID, history.Policy{ExactSince: now().UnixMilli()})
	must(err)
	grow()
	must(st.Base(t.Context(), d.ID))
	grow()
	grow()
	run("INSERT INTO t(b) VALUES('in the log alone')")
	killed := filepath.Join(t.TempDir(), "killed")
	must(os.CopyFS(killed, os.DirFS(root)))
	must(errors.Join(st.Close(context.Background()), cat.Close(), dir.Close()))
	must(filepath.WalkDir(killed, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700)
	}))
	m := &museum{house: house{Layout: datadir.Layout(killed)}, id: d.ID}
	m.orders = filepath.Join(m.Databases(), d.ID[len(d.ID)-2:], d.ID+".db")
	m.dir = filepath.Join(m.History(), d.ID[len(d.ID)-2:], d.ID)
	return m
}

// pick is the first, or the last, file of a kind.
func (m *museum) pick(t *testing.T, kind string, last bool) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(m.dir, "*"+kind))
	if err != nil || len(list) == 0 {
		t.Fatalf("no %s: %v", kind, err)
	}
	if last {
		return list[len(list)-1]
	}
	return list[0]
}

// change changes a file's content.
func change(t *testing.T, path string, f func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, f(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestSoundHistory(t *testing.T) {
	m := newMuseum(t)
	for _, full := range []bool{false, true} {
		if r := m.examine(t, noon, full); !r.Sound || len(r.Findings) != 0 || r.Histories != 1 {
			t.Errorf("full %v: %+v", full, r)
		}
	}
	for _, kind := range []string{".log", ".pages", ".base"} {
		m.pick(t, kind, false)
	}
}

func TestHistoryFindings(t *testing.T) {
	flip := func(at func(size int) int) func(b []byte) []byte {
		return func(b []byte) []byte { b[at(len(b))] ^= 1; return b }
	}
	middle := flip(func(size int) int { return size / 2 })
	remove := func(path string) { os.Remove(path) }
	for _, tt := range []struct {
		name        string
		spoil       func(t *testing.T, m *museum)
		quick, full string // findings
		tells       []string
	}{
		{name: "content of a base", full: "error history_damaged", tells: []string{".base", "checksum", "backup"},
			spoil: func(t *testing.T, m *museum) { change(t, m.pick(t, ".base", false), middle) }},
		{name: "end of a base", quick: "error history_damaged", full: "error history_damaged", tells: []string{"acme/orders", ".base"},
			spoil: func(t *testing.T, m *museum) {
				change(t, m.pick(t, ".base", true), flip(func(size int) int { return size - 5 }))
			}},
		{name: "images of a merged file", full: "error history_damaged, error history_gap", tells: []string{".pages"},
			spoil: func(t *testing.T, m *museum) { change(t, m.pick(t, ".pages", false), middle) }},
		{name: "moments of a merged file", quick: "error history_damaged, error history_gap", full: "error history_damaged, error history_gap", tells: []string{".pages", "positions 1 to"},
			spoil: func(t *testing.T, m *museum) {
				change(t, m.pick(t, ".pages", false), flip(func(size int) int { return size - 60 }))
			}},
		{name: "frames of a record", full: "error history_damaged, error history_gap", tells: []string{".log", "can't be restored, after 2026-", "before 2026-"},
			spoil: func(t *testing.T, m *museum) {
				m.chain(t)
				change(t, m.pick(t, ".log", false), middle)
			}},
		{name: "header of a record", quick: "error history_damaged, error history_gap", full: "error history_damaged, error history_gap", tells: []string{".log", "is torn"},
			spoil: func(t *testing.T, m *museum) {
				m.chain(t)
				change(t, m.pick(t, ".log", false), flip(func(int) int { return 20 }))
			}},
		{name: "a chapter is missing", quick: "error history_gap", full: "error history_gap", tells: []string{"no record of position", "the server refuses"},
			spoil: func(t *testing.T, m *museum) { m.chain(t); remove(m.pick(t, ".log", false)) }},
		{name: "no base to begin with", quick: "error history_gap", full: "error history_gap", tells: []string{"no base to begin with"},
			spoil: func(t *testing.T, m *museum) {
				remove(m.pick(t, ".pages", false))
				remove(m.pick(t, ".base", false))
				remove(m.pick(t, ".base", false))
			}},
		{name: "end that is torn", quick: "info history_unfinished", full: "info history_unfinished", tells: []string{"half written", "nothing is lost"},
			spoil: func(t *testing.T, m *museum) {
				change(t, m.pick(t, ".log", true), func(b []byte) []byte { return append(b, make([]byte, 500)...) })
			}},
		{name: "last record, which the log doesn't have", quick: "error history_gap", full: "error history_damaged, error history_gap", tells: []string{"the end of the history is damaged"},
			spoil: func(t *testing.T, m *museum) {
				remove(m.orders + "-wal")
				change(t, m.pick(t, ".log", true), flip(func(size int) int { return size - 2000 }))
			}},
		{name: "last record, which the log has", quick: "info history_unfinished", full: "info history_unfinished", tells: []string{"the log has all of it"},
			spoil: func(t *testing.T, m *museum) {
				change(t, m.pick(t, ".log", true), flip(func(size int) int { return size - 2000 }))
			}},
		{name: "leftovers", quick: "info history_unfinished, info history_unfinished", full: "info history_unfinished, info history_unfinished", tells: []string{".tmp", ".pending"},
			spoil: func(t *testing.T, m *museum) {
				for _, name := range []string{"0000000000000001-0000000000000002.pages.tmp", "00000000000000ff.pending"} {
					if err := os.WriteFile(filepath.Join(m.dir, name), []byte("x"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}},
		{name: "files of nobody", quick: "warning unknown_file, warning unknown_file, warning unknown_file", full: "warning unknown_file, warning unknown_file, warning unknown_file",
			spoil: func(t *testing.T, m *museum) {
				for _, path := range []string{filepath.Join(m.dir, "notes.txt"), filepath.Join(m.History(), "notes.txt"), filepath.Join(filepath.Dir(m.dir), "x")} {
					if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}},
		{name: "history of nobody", quick: "info history_orphan", full: "info history_orphan", tells: []string{"for a day"},
			spoil: func(t *testing.T, m *museum) {
				orphan := filepath.Join(m.History(), "zz", "db_nobodyszz")
				if err := os.MkdirAll(orphan, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(orphan, "0000000000000001.log"), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "of a file of nobody", quick: "warning orphan_file, info history_orphan", full: "warning orphan_file, info history_orphan", tells: []string{"it stays"},
			spoil: func(t *testing.T, m *museum) {
				for path, content := range map[string][]byte{filepath.Join(m.History(), "zz", "db_nobodyszz", "0000000000000001.log"): nil, filepath.Join(m.Databases(), "zz", "db_nobodyszz.db"): sqlite.EmptyFile()} {
					if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
						t.Fatal(err)
					}
				}
			}},
		{name: "no history", spoil: func(t *testing.T, m *museum) {
			if err := os.RemoveAll(m.History()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMuseum(t)
			tt.spoil(t, m)
			for full, want := range map[bool]string{false: tt.quick, true: tt.full} {
				r := m.examine(t, noon, full)
				if got := codes(r); got != want || r.Sound != !strings.Contains(want, "error") && !strings.Contains(want, "warning") {
					t.Errorf("full %v: got %q, sound %v, want %q\n%+v", full, got, r.Sound, want, r.Findings)
				}
				all := fmt.Sprint(r.Findings)
				for _, word := range tt.tells {
					if want != "" && !strings.Contains(all, word) {
						t.Errorf("full %v: %s does not tell %q", full, all, word)
					}
				}
				for _, f := range r.Findings {
					if f.Message == "" || f.Fix == "" || f.Path == "" || filepath.IsAbs(f.Path) {
						t.Errorf("%+v lacks something", f)
					}
				}
			}
		})
	}
}

// chain sees to it that between the first base and the last there are transactions that only a chapter has.
func (m *museum) chain(t *testing.T) {
	t.Helper()
	if first, last := m.pick(t, ".base", false), m.pick(t, ".base", true); first == last {
		t.Fatal("there is one base")
	} else if list, _ := filepath.Glob(filepath.Join(m.dir, "*.log")); len(list) < 2 || filepath.Base(list[0]) > filepath.Base(last) {
		t.Fatalf("chapters %v, bases %s and %s", list, first, last)
	}
}

// TestManyHistories: what was found is told of each, and a caller that leaves is not kept.
func TestManyHistories(t *testing.T) {
	m := newMuseum(t)
	list, err := filepath.Glob(filepath.Join(m.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(m.Catalog()); err != nil { // then nobody knows whose they are
		t.Fatal(err)
	}
	os.Remove(m.Catalog() + "-wal")
	for i := range 40 {
		id := fmt.Sprintf("db_copy_%02d", i)
		dir := filepath.Join(m.History(), id[len(id)-2:], id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, path := range list {
			b, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			change(t, filepath.Join(dir, filepath.Base(list[slices.IndexFunc(list, func(p string) bool { return strings.HasSuffix(p, ".base") })])), func(b []byte) []byte { return b[:len(b)-1] })
		}
	}
	r := m.examine(t, noon, true)
	damaged := 0
	for _, f := range r.Findings {
		if f.Code == "history_damaged" {
			damaged++
		}
	}
	if r.Histories != 41 || damaged != 20 {
		t.Errorf("%d histories, %d damaged", r.Histories, damaged)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := doctor.Examine(ctx, m.Root(), doctor.Options{Full: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("of a caller that left: %v", err)
	}
}
