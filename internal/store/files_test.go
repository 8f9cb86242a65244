package store_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite/crashfs"
	"github.com/persqld/persqld/internal/store"
)

// noted is a file whose changes and syncs are noted.
type noted struct {
	*os.File
	note func(op, path string)
}

func (f *noted) Write(p []byte) (int, error) {
	f.note("write", f.Name())
	return f.File.Write(p)
}

func (f *noted) Truncate(size int64) error {
	f.note("cut", f.Name())
	return f.File.Truncate(size)
}

func (f *noted) Sync() error {
	f.note("sync", f.Name())
	return f.File.Sync()
}

// What the store itself does with files is synced at once, and in this order.
func TestFilesAreSynced(t *testing.T) {
	var did []string
	var h *house
	note := func(op, path string) {
		rel, err := filepath.Rel(h.opt.Dir, path)
		if err != nil {
			t.Error(err)
		}
		did = append(did, op+" "+rel)
	}
	files := store.Files{
		Open: func(path string, flag int, perm fs.FileMode) (store.File, error) {
			f, err := os.OpenFile(path, flag, perm)
			return &noted{f, note}, err
		},
		Mkdir:  func(dir string) error { note("make", dir); return os.Mkdir(dir, 0o700) },
		Remove: func(path string) error { note("remove", path); return os.Remove(path) },
	}
	h = newHouse(t, store.Options{}, tables...)
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.opt.Files = files
	h.start()
	const id = "db_second_xy"
	for _, tt := range []struct {
		what string
		do   func() error
		want string
	}{
		{"create", func() error { return h.Create(t.Context(), id) }, "make xy, sync ., write xy/db_second_xy.db, sync xy/db_second_xy.db, sync xy"},
		{"a failed commit", func() error {
			h.fail(crashfs.OpSync, "-wal", crashfs.ErrSync, 1)
			j := script("CREATE TABLE x(a)")
			if h.on(id, j); j.err == nil {
				t.Error("the commit went well")
			}
			return nil
		}, "cut xy/db_second_xy.db-wal, sync xy/db_second_xy.db-wal"},
		{"delete", func() error { return h.Delete(t.Context(), id) }, "remove xy/db_second_xy.db, sync xy, remove xy/db_second_xy.db-wal, sync xy"},
	} {
		did = nil
		wantErr(t, tt.what, tt.do(), nil)
		if got := strings.Join(did, ", "); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.what, got, tt.want)
		}
	}
}
