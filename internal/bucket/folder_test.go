package bucket_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
)

func TestFolderKeepsTimes(t *testing.T) {
	root := t.TempDir()
	b := open(t, "file://"+root, bucket.Options{})
	put(t, b, "db/ltx/0/x.ltx", "content")
	fi, err := os.Stat(filepath.Join(root, "db/ltx/0/x.ltx"))
	if err != nil || !fi.ModTime().Equal(modified) || fi.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v, %v", fi.ModTime(), fi.Mode(), err)
	}
	err = b.List(t.Context(), "", func(o bucket.Object) error {
		if !o.Modified.Equal(modified) || o.Size != 7 {
			t.Errorf("listed %+v", o)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestFolderHidesTheRest leaves what isn't an object where it is, but for old leftovers.
func TestFolderHidesTheRest(t *testing.T) {
	root := t.TempDir()
	b := open(t, "file://"+root, bucket.Options{})
	put(t, b, "a/b", "x")
	now := time.Now().Unix()
	names := []string{fmt.Sprintf("a/b~ABCDEFGH-1-%d", now), "a/note~", "a/~x-1", "a/with space", fmt.Sprintf("a/b~ABCDEFGH-2-%d", now-2*86_400)}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := list(t, b, ""); !slices.Equal(got, []string{"a/b"}) {
		t.Errorf("listed %v", got)
	}
	if got, err := b.Groups(t.Context(), ""); err != nil || !slices.Equal(got, []string{"a"}) {
		t.Errorf("groups %v, %v", got, err)
	}
	for i, name := range names {
		_, err := os.Stat(filepath.Join(root, name))
		if gone := errors.Is(err, fs.ErrNotExist); gone != (i == len(names)-1) {
			t.Errorf("%s is gone: %v", name, gone)
		}
	}
}

// TestFolderIsNotLeft has links that lead out of the folder.
func TestFolderIsNotLeft(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "file"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"dir": outside, "file": filepath.Join(outside, "file")} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, "file://"+root, bucket.Options{})
	for _, key := range []string{"dir/file", "file"} {
		if _, err := b.Get(t.Context(), key, 0, -1); err == nil {
			t.Errorf("Get(%s) = nil", key)
		}
	}
	if err := b.Put(t.Context(), "dir/new", strings.NewReader("x"), 1, modified); err == nil {
		t.Error("Put through a link = nil")
	}
	if err := b.Delete(t.Context(), "dir/file"); err == nil {
		t.Error("Delete through a link = nil")
	}
	if got := list(t, b, ""); len(got) != 0 {
		t.Errorf("listed %v", got)
	}
	put(t, b, "file", "mine")
	if data, err := os.ReadFile(filepath.Join(outside, "file")); err != nil || string(data) != "secret" {
		t.Errorf("outside is %q, %v", data, err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside are %v, %v", entries, err)
	}
}

func TestFolderOfAnotherKey(t *testing.T) {
	b := open(t, "file://"+t.TempDir(), bucket.Options{})
	put(t, b, "a/b", "x")
	for _, key := range []string{"a", "a/b/c"} {
		if err := b.Put(t.Context(), key, strings.NewReader("x"), 1, modified); err == nil {
			t.Errorf("Put(%s) beside a/b = nil", key)
		}
	}
}

func TestFolderTakesEmptyDirectories(t *testing.T) {
	root := t.TempDir()
	b := open(t, "file://"+root, bucket.Options{})
	put(t, b, "a/b/c", "x")
	put(t, b, "a/d", "x")
	for _, step := range [][2]string{{"a/b/c", "a/b"}, {"a/d", "a"}} {
		if err := b.Delete(t.Context(), step[0]); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(root, step[1])); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", step[1], err)
		}
	}
	if _, err := os.Stat(root); err != nil {
		t.Error(err)
	}
}

// TestFolderThatGoes is not one without objects.
func TestFolderThatGoes(t *testing.T) {
	root := t.TempDir() + "/replica"
	b := open(t, "file://"+root, bucket.Options{})
	put(t, b, "a/b/c", "x")
	if err := os.RemoveAll(root + "/a"); err != nil {
		t.Fatal(err)
	}
	put(t, b, "a/b/c", "y")
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	_, getErr := b.Get(t.Context(), "a/b/c", 0, -1)
	_, groupsErr := b.Groups(t.Context(), "")
	for what, err := range map[string]error{"Get": getErr, "Groups": groupsErr, "List": b.List(t.Context(), "", nil),
		"Put": b.Put(t.Context(), "k/l", strings.NewReader("x"), 1, modified)} {
		if err == nil || what != "Put" && errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s = %v", what, err)
		}
	}
}

// TestFolderErrors has each operation fail: nothing of the object shows, and the former one is as it was.
func TestFolderErrors(t *testing.T) {
	for _, op := range []string{"open", "write", "chtimes", "sync", "close", "rename", "syncdir", "mkdir"} {
		t.Run(op, func(t *testing.T) {
			root := t.TempDir()
			failing := ""
			fail := func(name string) error {
				if name == failing {
					return &fs.PathError{Op: name, Path: "somewhere", Err: syscall.ENOSPC}
				}
				return nil
			}
			o := &tries{}
			b := open(t, "file://"+root, bucket.Options{Observer: o, Files: bucket.Files{
				Open: func(path string, flag int, perm fs.FileMode) (bucket.File, error) {
					if err := fail("open"); err != nil {
						return nil, err
					}
					f, err := os.OpenFile(path, flag, perm)
					return &failingFile{f, fail}, err
				},
				Chtimes: func(path string, at time.Time) error { return errors.Join(fail("chtimes"), os.Chtimes(path, at, at)) },
				SyncDir: func(string) error { return fail("syncdir") },
				Mkdir:   func(dir string) error { return cmpErr(fail("mkdir"), func() error { return os.Mkdir(dir, 0o700) }) },
				Rename: func(from, to string) error {
					return cmpErr(fail("rename"), func() error { return os.Rename(from, to) })
				},
			}})
			put(t, b, "a/b", "former")
			failing = op
			err := b.Put(t.Context(), "a/c/d", strings.NewReader("new"), 3, modified)
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") || !strings.Contains(err.Error(), `"a/c/d"`) {
				t.Errorf("Put = %v", err)
			}
			if op != "mkdir" {
				if err := b.Put(t.Context(), "a/b", strings.NewReader("new"), 3, modified); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("Put = %v", err)
				}
			}
			failing = ""
			// After a rename that isn't known to be durable, the new one is there.
			want := map[bool]string{true: "new", false: "former"}[op == "syncdir"]
			if got := get(t, b, "a/b", 0, -1); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			_ = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
				if strings.Contains(path, "~") {
					t.Errorf("left: %s", path)
				}
				return err
			})
			if o.count["put ok"] != 1 || o.count["put failed"] == 0 {
				t.Errorf("observed %v", o.count)
			}
		})
	}
}

func cmpErr(err error, f func() error) error {
	if err != nil {
		return err
	}
	return f()
}

type failingFile struct {
	*os.File
	fail func(string) error
}

func (f *failingFile) Write(p []byte) (int, error) {
	if err := f.fail("write"); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}
func (f *failingFile) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{f}, r)
}
func (f *failingFile) Sync() error  { return errors.Join(f.fail("sync"), f.File.Sync()) }
func (f *failingFile) Close() error { return errors.Join(f.File.Close(), f.fail("close")) }

// recorded makes the folder's work part of a recording.
func recorded(rec *crashfs.Recorder, steps *[]string) bucket.Files {
	step := func(what, path string) {
		rel, _ := filepath.Rel(rec.Root(), path)
		rel, _, _ = strings.Cut(rel, "~")
		*steps = append(*steps, what+" "+rel)
	}
	return bucket.Files{
		Open: func(path string, flag int, perm fs.FileMode) (bucket.File, error) {
			f, err := rec.OpenFile(path, flag, perm)
			return &steppedFile{f, func() { step("sync", path) }}, err
		},
		Chtimes: func(path string, at time.Time) error {
			step("chtimes", path)
			return os.Chtimes(path, at, at)
		},
		SyncDir: func(dir string) error {
			step("syncdir", dir)
			return rec.SyncDir(dir)
		},
		Mkdir: func(dir string) error {
			step("mkdir", dir)
			return rec.Mkdir(dir, 0o700)
		},
		Remove: rec.Remove,
		Rename: func(from, to string) error {
			step("rename", to)
			return rec.Rename(from, to)
		},
	}
}

type steppedFile struct {
	*crashfs.File
	onSync func()
}

func (f *steppedFile) Sync() error {
	f.onSync()
	return f.File.Sync()
}

func TestFolderSyncs(t *testing.T) {
	rec, err := crashfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	b := open(t, "file://"+rec.Root()+"/replica", bucket.Options{Files: recorded(rec, &steps)})
	put(t, b, "a/b/c", "x")
	put(t, b, "a/b/d", "x")
	want := []string{"mkdir replica", "syncdir .",
		"mkdir replica/a", "syncdir replica", "mkdir replica/a/b", "syncdir replica/a",
		"chtimes replica/a/b/c", "sync replica/a/b/c", "rename replica/a/b/c", "syncdir replica/a/b",
		"chtimes replica/a/b/d", "sync replica/a/b/d", "rename replica/a/b/d", "syncdir replica/a/b"}
	if !slices.Equal(steps, want) {
		t.Errorf("steps\n%s\nwant\n%s", strings.Join(steps, "\n"), strings.Join(want, "\n"))
	}
}

// life puts, replaces and deletes objects on a recorded disk, on which syncs of what drop names do nothing.
func life(t *testing.T, drop string) *crashfs.Recorder {
	t.Helper()
	rec, err := crashfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if drop != "" {
		rec.DropSyncs(drop)
	}
	var steps []string
	b := open(t, "file://"+rec.Root()+"/replica", bucket.Options{Files: recorded(rec, &steps)})
	for i := range 40 {
		key := fmt.Sprintf("db%d/ltx/%d/x", i%4, i%3)
		if i%10 == 9 {
			rec.Mark("delete " + key) // from here on it may be gone
			if err := b.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content := bytes.Repeat(fmt.Appendf(nil, "%d.", i), 2000)
		if err := b.Put(t.Context(), key, bytes.NewReader(content), int64(len(content)), modified); err != nil {
			t.Fatal(err)
		}
		rec.Mark(fmt.Sprintf("put %s %d", key, i))
	}
	if err := rec.Verify(); err != nil {
		t.Fatal(err)
	}
	return rec
}

// stands looks for what was acknowledged before a power loss, and that nothing is half there.
func stands(t *testing.T) func(crashfs.Crash) error {
	return func(c crashfs.Crash) error {
		least, deleted := map[string]int{}, map[string]bool{}
		for _, ack := range c.Acked {
			var key string
			var i int
			if _, err := fmt.Sscanf(ack.(string), "put %s %d", &key, &i); err == nil {
				least[key], deleted[key] = i, false
			} else {
				deleted[strings.TrimPrefix(ack.(string), "delete ")] = true
			}
		}
		if len(least) == 0 {
			return nil
		}
		b, err := bucket.Open("file://"+c.Dir+"/replica", bucket.Options{})
		if err != nil {
			return err
		}
		there := map[string]bool{}
		err = b.List(t.Context(), "", func(o bucket.Object) error {
			there[o.Key] = true
			r, err := b.Get(t.Context(), o.Key, 0, -1)
			if err != nil {
				return err
			}
			defer r.Close()
			data, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			var i int
			if _, err := fmt.Sscanf(string(data), "%d.", &i); err != nil {
				return fmt.Errorf("%s is torn: %w", o.Key, err)
			}
			if !bytes.Equal(data, bytes.Repeat(fmt.Appendf(nil, "%d.", i), 2000)) {
				return fmt.Errorf("%s is torn", o.Key)
			}
			if i < least[o.Key] {
				return fmt.Errorf("%s is the former one", o.Key)
			}
			return nil
		})
		for key := range least {
			if err == nil && !there[key] && !deleted[key] {
				err = fmt.Errorf("%s is gone", key)
			}
		}
		return err
	}
}

func TestPowerLoss(t *testing.T) {
	if err := life(t, "").Log().Crashes(120, 1, t.TempDir(), stands(t)); err != nil {
		t.Error(err)
	}
}

func TestMissingSyncIsFound(t *testing.T) {
	for what, drop := range map[string]string{"files": `.*~.*`, "names": `.*/ltx/\d`, "parents": `replica/db\d`, "the folder": `replica`, "the folder's name": `\.`} {
		t.Run(what, func(t *testing.T) {
			err := life(t, drop).Log().Crashes(600, 2, t.TempDir(), stands(t))
			var loss *crashfs.CrashError
			if !errors.As(err, &loss) {
				t.Errorf("without the sync of %s nothing was lost: %v", what, err)
			}
		})
	}
}
