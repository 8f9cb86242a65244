package crashfs

import (
	"os"
	"path/filepath"
	"testing"
)

// What another goroutine writes while a sync is on its way isn't covered by it.
func TestSyncCoversOnlyWhatWasBeforeIt(t *testing.T) {
	rec, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(rec.Root(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rel, ino, upto, err := rec.beginSync(f)
	if err != nil {
		t.Fatal(err)
	}
	rec.NoteWrite("a", 0, []byte("late"))
	rec.sync(opSync, ino, rel, upto)

	disk := newDisk(rec.Log())
	disk.advance(rec.Log().Len())
	if got := disk.file(ino); len(got.pending) != 1 || len(got.data) != 0 {
		t.Errorf("%d undecided writes and %d durable bytes, want 1 and 0", len(got.pending), len(got.data))
	}
}
