package crashfs_test

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite/crashfs"
)

// seeds is how many power losses at one point show all that may come of names;
// contents take ten times as many.
const seeds = 100

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// tree is a directory in one line: names in order, files with their content,
// directories with a slash.
func tree(tb testing.TB, dir string) string {
	tb.Helper()
	var parts []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			parts = append(parts, rel+"/")
			return nil
		}
		data, err := os.ReadFile(path)
		parts = append(parts, rel+"="+string(data))
		return err
	})
	must(tb, err)
	return strings.Join(parts, " ")
}

// outcomes replays n power losses at the log's end and returns the trees seen.
func outcomes(tb testing.TB, log *crashfs.Log, n uint64) []string {
	tb.Helper()
	tmp := tb.TempDir()
	seen := map[string]bool{}
	for seed := range n {
		dir := filepath.Join(tmp, "crash")
		_, err := crashfs.Replay(log, log.Len(), seed, dir)
		must(tb, err)
		seen[tree(tb, dir)] = true
		must(tb, os.RemoveAll(dir))
	}
	return slices.Sorted(maps.Keys(seen))
}

// syncedFile makes a file whose content is durable; its name isn't.
func syncedFile(tb testing.TB, rec *crashfs.Recorder, path, content string) {
	tb.Helper()
	f, err := rec.Create(path)
	must(tb, err)
	_, err = f.Write([]byte(content))
	must(tb, err)
	must(tb, f.Sync())
	must(tb, f.Close())
}

func TestNamesAfterPowerLoss(t *testing.T) {
	tests := []struct {
		name string
		// The root holds a=old and empty directories d/ and e/, durably.
		do   func(tb testing.TB, rec *crashfs.Recorder)
		want []string
	}{
		{"nothing done", func(testing.TB, *crashfs.Recorder) {},
			[]string{"a=old d/ e/"}},
		{"replaced and synced", func(tb testing.TB, rec *crashfs.Recorder) {
			syncedFile(tb, rec, "tmp", "new")
			must(tb, rec.Rename("tmp", "a"))
			must(tb, rec.SyncDir("."))
		}, []string{"a=new d/ e/"}},
		{"replaced, directory not synced", func(tb testing.TB, rec *crashfs.Recorder) {
			syncedFile(tb, rec, "tmp", "new")
			must(tb, rec.SyncDir("."))
			must(tb, rec.Rename("tmp", "a"))
		}, []string{"a=new d/ e/", "a=old d/ e/ tmp=new"}},
		{"replaced, directory sync taken out", func(tb testing.TB, rec *crashfs.Recorder) {
			rec.DropSyncs(`\.`)
			syncedFile(tb, rec, "tmp", "new")
			must(tb, rec.Rename("tmp", "a"))
			must(tb, rec.SyncDir("."))
		}, []string{"a=new d/ e/", "a=old d/ e/", "a=old d/ e/ tmp=new"}},
		{"made, file synced but not its directory", func(tb testing.TB, rec *crashfs.Recorder) {
			syncedFile(tb, rec, "b", "new")
		}, []string{"a=old b=new d/ e/", "a=old d/ e/"}},
		{"made and removed, then synced", func(tb testing.TB, rec *crashfs.Recorder) {
			syncedFile(tb, rec, "b", "new")
			must(tb, rec.Remove("b"))
			must(tb, rec.SyncDir("."))
		}, []string{"a=old d/ e/"}},
		{"removed", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, rec.Remove("a"))
		}, []string{"a=old d/ e/", "d/ e/"}},
		{"removed and synced", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, rec.Remove("a"))
			must(tb, rec.SyncDir("."))
		}, []string{"d/ e/"}},
		{"in a new directory whose name isn't synced", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, rec.MkdirAll("n/m", 0o700))
			must(tb, rec.SyncDir("n"))
			syncedFile(tb, rec, "n/m/b", "new")
			must(tb, rec.SyncDir("n/m"))
		}, []string{"a=old d/ e/", "a=old d/ e/ n/ n/m/ n/m/b=new"}},
		{"in a new directory", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, rec.Mkdir("n", 0o700))
			must(tb, rec.SyncDir("."))
			syncedFile(tb, rec, "n/b", "new")
			must(tb, rec.SyncDir("n"))
		}, []string{"a=old d/ e/ n/ n/b=new"}},
		{"moved to another directory", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, rec.Rename("a", "d/a"))
		}, []string{"a=old d/ d/a=old e/", "a=old d/ e/", "d/ d/a=old e/"}},
		{"moved, new directory synced", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, rec.Rename("a", "d/a"))
			must(tb, rec.SyncDir("d"))
		}, []string{"a=old d/ d/a=old e/", "d/ d/a=old e/"}},
		{"moved, old directory synced: never without a name", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, rec.Rename("a", "d/a"))
			must(tb, rec.SyncDir("."))
		}, []string{"d/ d/a=old e/"}},
		{"moved on over an unsynced file", func(tb testing.TB, rec *crashfs.Recorder) {
			syncedFile(tb, rec, "d/b", "other")
			must(tb, rec.Rename("a", "d/b"))
			must(tb, rec.SyncDir("."))
		}, []string{"d/ d/b=old e/"}},
		{"directory moved with what it holds", func(tb testing.TB, rec *crashfs.Recorder) {
			syncedFile(tb, rec, "d/b", "new")
			must(tb, rec.SyncDir("d"))
			must(tb, rec.Rename("d", "f"))
			must(tb, rec.SyncDir("."))
		}, []string{"a=old e/ f/ f/b=new"}},
		{"renamed to itself", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, rec.Rename("a", "a"))
			must(tb, rec.SyncDir("."))
		}, []string{"a=old d/ e/"}},
		{"tree removed and synced", func(tb testing.TB, rec *crashfs.Recorder) {
			syncedFile(tb, rec, "d/b", "new")
			must(tb, rec.RemoveAll("d"))
			must(tb, rec.SyncDir("."))
		}, []string{"a=old e/"}},
		{"noted by hand", func(tb testing.TB, rec *crashfs.Recorder) {
			// The real operations beside the notes, for Verify.
			root := rec.Root()
			must(tb, os.Mkdir(filepath.Join(root, "n"), 0o700))
			rec.NoteMkdir("n")
			rec.NoteSyncDir(".")
			must(tb, os.WriteFile(filepath.Join(root, "n/t"), []byte("new"), 0o600))
			rec.NoteCreate("n/t")
			rec.NoteWrite("n/t", 0, []byte("newer"))
			rec.NoteTruncate("n/t", 3)
			rec.NoteSync("n/t")
			must(tb, os.Rename(filepath.Join(root, "n/t"), filepath.Join(root, "n/b")))
			rec.NoteRename("n/t", "n/b")
			rec.NoteSyncDir(filepath.Join(root, "n"))
			must(tb, os.Remove(filepath.Join(root, "a")))
			rec.NoteRemove("a")
			rec.NoteSyncDir(root)
		}, []string{"d/ e/ n/ n/b=new"}},
		{"done with package os, then synced through the recorder", func(tb testing.TB, rec *crashfs.Recorder) {
			f, err := os.Create(filepath.Join(rec.Root(), "tmp"))
			must(tb, err)
			_, err = f.WriteString("new")
			must(tb, err)
			must(tb, rec.SyncFile(f))
			must(tb, f.Close())
			must(tb, rec.Rename(f.Name(), filepath.Join(rec.Root(), "b")))
			must(tb, os.Remove(filepath.Join(rec.Root(), "a")))
			must(tb, rec.SyncDir(rec.Root()))
		}, []string{"b=new d/ e/"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			must(t, os.WriteFile(filepath.Join(root, "a"), []byte("old"), 0o600))
			must(t, os.Mkdir(filepath.Join(root, "d"), 0o700))
			must(t, os.Mkdir(filepath.Join(root, "e"), 0o700))
			rec, err := crashfs.New(root)
			must(t, err)
			tt.do(t, rec)
			must(t, rec.Verify())
			if got := outcomes(t, rec.Log(), seeds); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// A file whose sync was forgotten may be empty, short, torn or whole, although
// its name is durable: the classic loss of write, rename, no fsync.
func TestContentAfterPowerLoss(t *testing.T) {
	content := strings.Repeat("n", 1500)
	rec := record(t)
	must(t, rec.WriteFile("tmp", []byte(content), 0o600))
	must(t, rec.Rename("tmp", "a"))
	must(t, rec.SyncDir("."))
	var whole, empty, short, holes bool
	for _, got := range outcomes(t, rec.Log(), 10*seeds) {
		data, ok := strings.CutPrefix(got, "a=")
		if !ok {
			t.Fatalf("got %q, want a file a", got)
		}
		whole = whole || data == content
		empty = empty || data == ""
		short = short || data == content[:512]
		holes = holes || strings.HasPrefix(data, strings.Repeat("\x00", 512)) && strings.HasSuffix(data, "n")
	}
	if !whole || !empty || !short || !holes {
		t.Errorf("seen: whole %v, empty %v, first sector alone %v, holes %v; want all", whole, empty, short, holes)
	}

	f, err := os.Open(filepath.Join(rec.Root(), "a"))
	must(t, err)
	defer f.Close()
	must(t, rec.SyncFile(f))
	if got := outcomes(t, rec.Log(), seeds); len(got) != 1 || got[0] != "a="+content {
		t.Errorf("after the sync: %d outcomes, want the whole file alone", len(got))
	}
}

// A torn overwrite harms only its own range (POWERSAFE_OVERWRITE).
func TestTornWriteStaysInItsRange(t *testing.T) {
	const from, to = 700, 2500
	root := t.TempDir()
	old := bytes.Repeat([]byte("o"), 4096)
	must(t, os.WriteFile(filepath.Join(root, "a"), old, 0o600))
	rec, err := crashfs.New(root)
	must(t, err)
	f, err := rec.OpenFile("a", os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("n"), to-from), from)
	must(t, err)
	must(t, f.Close())

	var sectors, bytewise, garbage bool
	for _, got := range outcomes(t, rec.Log(), 10*seeds) {
		data := []byte(strings.TrimPrefix(got, "a="))
		if len(data) != len(old) || !bytes.Equal(data[:from], old[:from]) || !bytes.Equal(data[to:], old[to:]) {
			t.Fatal("bytes outside the write's range changed")
		}
		for i := from + 1; i < to; i++ {
			switch {
			case data[i] != 'o' && data[i] != 'n':
				garbage = true
			case data[i] != data[i-1] && i%512 == 0:
				sectors = true
			case data[i] != data[i-1]:
				bytewise = true
			}
		}
	}
	if !sectors || !bytewise || !garbage {
		t.Errorf("seen: torn at a sector %v, inside one %v, garbage %v; want all", sectors, bytewise, garbage)
	}
}

func TestUnsyncedTruncationMayBeUndone(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "a"), []byte("long"), 0o600))
	rec, err := crashfs.New(root)
	must(t, err)
	f, err := rec.OpenFile("a", os.O_RDWR|os.O_TRUNC, 0)
	must(t, err)
	if got, want := outcomes(t, rec.Log(), seeds), []string{"a=", "a=long"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	must(t, f.Truncate(2))
	must(t, f.Sync())
	if got, want := outcomes(t, rec.Log(), seeds), []string{"a=\x00\x00"}; !slices.Equal(got, want) {
		t.Errorf("after the sync: got %q, want %q", got, want)
	}
	must(t, f.Close())
}

func TestAppendsAndDescriptorsOutliveNames(t *testing.T) {
	rec := record(t)
	f, err := rec.OpenFile("a", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(t, err)
	_, err = f.Write([]byte("one "))
	must(t, err)
	must(t, rec.Rename("a", "b"))
	_, err = f.Write([]byte("two"))
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, rec.SyncDir("."))
	must(t, rec.Verify())
	if got, want := outcomes(t, rec.Log(), seeds), []string{"b=one two"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMarksAndReplay(t *testing.T) {
	rec := record(t)
	rec.Mark("first")
	syncedFile(t, rec, "a", strings.Repeat("x", 5000))
	rec.Mark("second")
	log := rec.Log()
	rec.Mark("after the snapshot")

	for point, want := range map[int][]any{0: nil, 1: {"first"}, log.Len(): {"first", "second"}} {
		acked, err := crashfs.Replay(log, point, 1, filepath.Join(t.TempDir(), "crash"))
		must(t, err)
		if !slices.Equal(acked, want) {
			t.Errorf("point %d: acknowledged %v, want %v", point, acked, want)
		}
	}
	if got, want := log.Marks(), []any{"first", "second"}; !slices.Equal(got, want) {
		t.Errorf("marks: got %v, want %v", got, want)
	}
	for _, point := range []int{-1, log.Len() + 1} {
		if _, err := crashfs.Replay(log, point, 1, t.TempDir()); err == nil {
			t.Errorf("point %d: no error", point)
		}
	}

	// A crash from a series is the one that its point and seed give alone.
	n, last := 0, -1
	err := log.Crashes(100, 7, t.TempDir(), func(c crashfs.Crash) error {
		n++
		if c.Point < last || c.Point > log.Len() {
			t.Errorf("point %d after %d of %d", c.Point, last, log.Len())
		}
		last = c.Point
		dir := filepath.Join(t.TempDir(), "again")
		acked, err := crashfs.Replay(log, c.Point, c.Seed, dir)
		must(t, err)
		if tree(t, dir) != tree(t, c.Dir) || !slices.Equal(acked, c.Acked) {
			t.Errorf("point %d, seed %d: two replays differ", c.Point, c.Seed)
		}
		return nil
	})
	must(t, err)
	if n != 100 || last != log.Len() {
		t.Errorf("%d crashes up to point %d, want 100 up to %d", n, last, log.Len())
	}
}

func TestVerifyNoticesWhatWentPast(t *testing.T) {
	tests := []struct {
		name string
		do   func(tb testing.TB, rec *crashfs.Recorder)
		want string
	}{
		{"written", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, os.WriteFile(filepath.Join(rec.Root(), "a"), []byte("new"), 0o600))
		}, "a was written"},
		{"made", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, os.WriteFile(filepath.Join(rec.Root(), "b"), nil, 0o600))
		}, "b was made"},
		{"removed", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, os.Remove(filepath.Join(rec.Root(), "a")))
		}, "a was removed"},
		{"unknown path", func(tb testing.TB, rec *crashfs.Recorder) { rec.NoteWrite("b", 0, []byte("x")) }, "note write: b"},
		{"rename out", func(tb testing.TB, rec *crashfs.Recorder) { rec.NoteRename("a", "/elsewhere") }, "crosses the border"},
		{"captured", func(tb testing.TB, rec *crashfs.Recorder) {
			must(tb, os.MkdirAll(filepath.Join(rec.Root(), "n/m"), 0o700))
			must(tb, os.WriteFile(filepath.Join(rec.Root(), "n/m/b"), []byte("new"), 0o600))
			must(tb, os.WriteFile(filepath.Join(rec.Root(), "a"), []byte("o"), 0o600))
			must(tb, rec.Capture("n"))
			must(tb, rec.Capture("a"))
		}, ""},
		{"ignored", func(tb testing.TB, rec *crashfs.Recorder) {
			rec.Ignore(`.*\.lock`)
			must(tb, os.WriteFile(filepath.Join(rec.Root(), "a.lock"), nil, 0o600))
			must(tb, os.WriteFile(filepath.Join(rec.Root(), "a.db-shm"), nil, 0o600))
		}, ""},
		{"outside", func(tb testing.TB, rec *crashfs.Recorder) {
			dir := tb.TempDir()
			must(tb, rec.WriteFile(filepath.Join(dir, "x"), []byte("x"), 0o600))
			must(tb, rec.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "y")))
			must(tb, rec.SyncDir(dir))
			must(tb, rec.RemoveAll(dir))
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := record(t)
			syncedFile(t, rec, "a", "old")
			must(t, rec.Verify())
			tt.do(t, rec)
			err := rec.Verify()
			if tt.want == "" {
				must(t, err)
			} else if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSyncFileRefusesAStaleName(t *testing.T) {
	rec := record(t)
	f, err := os.Create(filepath.Join(rec.Root(), "a"))
	must(t, err)
	defer f.Close()
	must(t, rec.Rename("a", "b"))
	if err := rec.SyncFile(f); err == nil {
		t.Error("a file that was renamed since it was opened was synced by its old name")
	}
}
