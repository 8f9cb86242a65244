package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/bucket/buckettest"
)

// unhurried has limits that no test of something else meets.
var unhurried = bucket.Options{Limits: bucket.Limits{RequestsPerSecond: 10_000, Concurrent: 16}}

// each runs a test of what every bucket promises against a folder and against S3.
func each(t *testing.T, test func(t *testing.T, b bucket.Bucket)) {
	t.Run("folder", func(t *testing.T) { test(t, open(t, "file://"+t.TempDir()+"/replica", unhurried)) })
	t.Run("s3", func(t *testing.T) {
		s := buckettest.Start(t)
		buckettest.Setenv(t)
		test(t, open(t, s.URL(s.Endpoint, "some/prefix"), unhurried))
	})
}

func open(t testing.TB, url string, o bucket.Options) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(url, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var modified = time.Date(2026, 3, 4, 5, 6, 7, 123_000_000, time.UTC)

func put(t testing.TB, b bucket.Bucket, key, content string) {
	t.Helper()
	if err := b.Put(t.Context(), key, strings.NewReader(content), int64(len(content)), modified); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, b bucket.Bucket, key string, offset, length int64) string {
	t.Helper()
	r, err := b.Get(t.Context(), key, offset, length)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func list(t testing.TB, b bucket.Bucket, prefix string) (keys []string) {
	t.Helper()
	err := b.List(t.Context(), prefix, func(o bucket.Object) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func noise(n int) []byte {
	p := make([]byte, n)
	chacha := rand.NewChaCha8([32]byte{1, 2, 3})
	_, _ = chacha.Read(p)
	return p
}

func TestObjects(t *testing.T) {
	each(t, func(t *testing.T, b bucket.Bucket) {
		put(t, b, "a/b/c", "hello world")
		put(t, b, "a/empty", "")
		for _, tt := range []struct {
			key            string
			offset, length int64
			want           string
		}{
			{"a/b/c", 0, -1, "hello world"},
			{"a/b/c", 6, -1, "world"},
			{"a/b/c", 6, 3, "wor"},
			{"a/b/c", 0, 1, "h"},
			{"a/b/c", 6, 300, "world"},
			{"a/b/c", 2, 0, ""},
			{"a/b/c", 11, -1, ""},
			{"a/b/c", 12, 5, ""},
			{"a/b/c", 1, 1<<63 - 1, "ello world"},
			{"a/empty", 0, -1, ""},
			{"a/empty", 0, 5, ""},
			{"a/empty", 7, -1, ""},
		} {
			if got := get(t, b, tt.key, tt.offset, tt.length); got != tt.want {
				t.Errorf("Get(%s, %d, %d) = %q, want %q", tt.key, tt.offset, tt.length, got, tt.want)
			}
		}
		put(t, b, "a/b/c", "another")
		if got := get(t, b, "a/b/c", 0, -1); got != "another" {
			t.Errorf("after a second Put: %q", got)
		}
		err := b.List(t.Context(), "a/b/", func(o bucket.Object) error {
			if o.Size != int64(len("another")) || o.Modified.IsZero() {
				t.Errorf("listed %+v", o)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestMissing(t *testing.T) {
	each(t, func(t *testing.T, b bucket.Bucket) {
		put(t, b, "there/is", "x")
		for _, key := range []string{"nothing", "there/isnt", "there", "there/is/not", "x/y/z"} {
			for _, length := range []int64{-1, 0, 5} {
				if _, err := b.Get(t.Context(), key, 0, length); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("Get(%s, 0, %d) = %v, want a fs.ErrNotExist", key, length, err)
				}
			}
			if err := b.Delete(t.Context(), key); err != nil {
				t.Errorf("Delete(%s) = %v", key, err)
			}
		}
		if got := list(t, b, "nowhere/"); len(got) != 0 {
			t.Errorf("List of nothing: %v", got)
		}
		if got, err := b.Groups(t.Context(), "nowhere/"); err != nil || len(got) != 0 {
			t.Errorf("Groups of nothing: %v, %v", got, err)
		}
		if got := get(t, b, "there/is", 0, -1); got != "x" {
			t.Errorf("what is there: %q", got)
		}
	})
}

func TestListing(t *testing.T) {
	each(t, listing)
	t.Run("s3 without prefix", func(t *testing.T) {
		s := buckettest.Start(t)
		buckettest.Setenv(t)
		listing(t, open(t, s.URL(s.Endpoint, ""), unhurried))
	})
}

func listing(t *testing.T, b bucket.Bucket) {
	keys := []string{"a-b/1", "a.b", "a/1", "a/2/3", "a/10", "a0", "A", "ab/1", "b", "b-/x", "b_/y", "z/ltx/0/1.ltx", "z/ltx/1/1.ltx", "z/ltx/9/1.ltx"}
	for _, key := range keys {
		put(t, b, key, key)
	}
	sorted := slices.Sorted(slices.Values(keys))
	for _, prefix := range []string{"", "a", "a/", "a/1", "a-", "b", "z/ltx/", "z/ltx/0", "z/ltx/0/1.ltx", "."} {
		var want []string
		groups := map[string]bool{}
		for _, key := range sorted {
			if rest, ok := strings.CutPrefix(key, prefix); ok {
				want = append(want, key)
				if group, _, is := strings.Cut(rest, "/"); is {
					groups[group] = true
				}
			}
		}
		if got := list(t, b, prefix); !slices.Equal(got, want) {
			t.Errorf("List(%q) = %v, want %v", prefix, got, want)
		}
		if prefix != "" && !strings.HasSuffix(prefix, "/") {
			continue
		}
		wantGroups := make([]string, 0, len(groups))
		for g := range groups {
			wantGroups = append(wantGroups, g)
		}
		slices.Sort(wantGroups)
		if got, err := b.Groups(t.Context(), prefix); err != nil || !slices.Equal(got, wantGroups) {
			t.Errorf("Groups(%q) = %v, %v, want %v", prefix, got, err, wantGroups)
		}
	}
	enough := errors.New("enough")
	n := 0
	err := b.List(t.Context(), "", func(bucket.Object) error {
		if n++; n == 3 {
			return enough
		}
		return nil
	})
	if n != 3 || err != enough {
		t.Errorf("fn's error: %v after %d objects", err, n)
	}
	// A prune deletes what it lists.
	err = b.List(t.Context(), "z/", func(o bucket.Object) error { return b.Delete(t.Context(), o.Key) })
	if got := list(t, b, "z/"); err != nil || len(got) != 0 {
		t.Errorf("deleted while listing: %v left, %v", got, err)
	}
	if got, err := b.Groups(t.Context(), ""); err != nil || slices.Contains(got, "z") {
		t.Errorf("Groups has one without objects: %v, %v", got, err)
	}
}

// TestPages has more objects, and more groups, than an answer of S3's.
func TestPages(t *testing.T) {
	const n = 1203
	each(t, func(t *testing.T, b bucket.Bucket) {
		var keys, groups []string
		work := make(chan string)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for key := range work {
					put(t, b, key, key)
				}
			})
		}
		for i := range n {
			group := fmt.Sprintf("%06d", i*7)
			groups = append(groups, group)
			keys = append(keys, "many/"+group+"/x")
			work <- keys[i]
		}
		close(work)
		wg.Wait()
		if got := list(t, b, "many/"); !slices.Equal(got, keys) {
			t.Errorf("List: %d keys, want %d", len(got), len(keys))
		}
		if got, err := b.Groups(t.Context(), "many/"); err != nil || !slices.Equal(got, groups) {
			t.Errorf("Groups: %d, %v, want %d", len(got), err, len(groups))
		}
		if err := b.Delete(t.Context(), append(keys, "many/not/there")...); err != nil {
			t.Error(err)
		}
		if got := list(t, b, ""); len(got) != 0 {
			t.Errorf("%d left", len(got))
		}
	})
}

func TestBadKeys(t *testing.T) {
	each(t, func(t *testing.T, b bucket.Bucket) {
		for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a b", "a\\b", "a%2fb", "a~b", "a\x00b", "ä", "a:b", "a?b",
			strings.Repeat("a", 201), strings.Repeat("a/", 256) + "a"} {
			var failure *bucket.Error
			_, err := b.Get(t.Context(), key, 0, -1)
			for what, err := range map[string]error{
				"Put":    b.Put(t.Context(), key, strings.NewReader("x"), 1, modified),
				"Get":    err,
				"Delete": b.Delete(t.Context(), "fine", key),
			} {
				if !errors.As(err, &failure) || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s(%q) = %v", what, key, err)
				}
			}
		}
		for _, prefix := range []string{"/", "../", "a/../", "a//", "a b", "*"} {
			if err := b.List(t.Context(), prefix, func(bucket.Object) error { return nil }); err == nil {
				t.Errorf("List(%q) = nil", prefix)
			}
			if _, err := b.Groups(t.Context(), prefix); err == nil {
				t.Errorf("Groups(%q) = nil", prefix)
			}
		}
		if _, err := b.Groups(t.Context(), "a"); err == nil {
			t.Error("Groups of a prefix without /")
		}
		if _, err := b.Get(t.Context(), "a", -1, 5); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a negative offset: %v", err)
		}
		// The longest that there may be.
		part := strings.Repeat("p", 200)
		long := part + "/" + part + "/" + strings.Repeat("q", 110)
		put(t, b, long, "long")
		if got := get(t, b, long, 0, -1); len(long) != 512 || got != "long" {
			t.Errorf("a key of %d bytes: %q", len(long), got)
		}
	})
}

func TestBodies(t *testing.T) {
	each(t, func(t *testing.T, b bucket.Bucket) {
		body := strings.NewReader("0123456789")
		if _, err := body.Seek(3, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if err := b.Put(t.Context(), "piece", body, 4, modified); err != nil {
			t.Fatal(err)
		}
		if got := get(t, b, "piece", 0, -1); got != "3456" {
			t.Errorf("from where it stood: %q", got)
		}
		if err := b.Put(t.Context(), "piece", strings.NewReader("short"), 6, modified); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a body that is too short: %v", err)
		}
		broken := errors.New("the disk is broken")
		if err := b.Put(t.Context(), "piece", &brokenBody{Reader: bytes.NewReader(noise(1 << 20)), at: 1 << 19, err: broken}, 1<<20, modified); !errors.Is(err, broken) {
			t.Errorf("a body that breaks: %v", err)
		}
		if got := get(t, b, "piece", 0, -1); got != "3456" {
			t.Errorf("what failed left %q", got)
		}
		if got := list(t, b, ""); !slices.Equal(got, []string{"piece"}) {
			t.Errorf("what failed left %v", got)
		}
	})
}

// brokenBody fails when it is read from a byte on.
type brokenBody struct {
	*bytes.Reader
	at  int64
	err error
}

func (b *brokenBody) Read(p []byte) (int, error) {
	left := b.at - (b.Size() - int64(b.Len()))
	if left <= 0 {
		return 0, b.err
	}
	return b.Reader.Read(p[:min(int64(len(p)), left)])
}

func TestCanceled(t *testing.T) {
	each(t, func(t *testing.T, b bucket.Bucket) {
		put(t, b, "a/b", "x")
		ctx, cancel := context.WithCancel(t.Context())
		reading, err := b.Get(ctx, "a/b", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer reading.Close()
		cancel()
		_, getErr := b.Get(ctx, "a/b", 0, -1)
		_, groupsErr := b.Groups(ctx, "")
		_, readErr := io.ReadAll(reading)
		for what, err := range map[string]error{
			"Put":    b.Put(ctx, "c", strings.NewReader("x"), 1, modified),
			"Get":    getErr,
			"List":   b.List(ctx, "", func(bucket.Object) error { return nil }),
			"Groups": groupsErr,
			"Delete": b.Delete(ctx, "a/b"),
			"Read":   readErr,
		} {
			var failure *bucket.Error
			if !errors.Is(err, context.Canceled) || !errors.As(err, &failure) {
				t.Errorf("%s = %v, want context.Canceled in a bucket.Error", what, err)
			}
		}
		if got := list(t, b, ""); !slices.Equal(got, []string{"a/b"}) {
			t.Errorf("what is there: %v", got)
		}
	})
}

// TestAtOnce replaces, reads, deletes and lists the same keys at the same time: each object that is read is one that was put, whole.
func TestAtOnce(t *testing.T) {
	each(t, func(t *testing.T, b bucket.Bucket) {
		var deleting [2][2]sync.RWMutex // by directory and name
		s3 := b.LevelDir(0) != "ltx/0"
		if s3 {
			// The test's S3 server keeps directories itself, and stumbles where one goes while an object comes. It also keeps an object's
			// attributes in files of their own, and a delete that races a put may take those of the new object: it has no ETag then, for good.
			// So nothing else happens to a key while it is deleted there.
			put(t, b, "dir0/sub/stay", "x")
			put(t, b, "dir1/sub/stay", "x")
		}
		step := func(rng *rand.Rand) {
			dir, name, what := rng.IntN(2), rng.IntN(2), rng.IntN(4)
			key := fmt.Sprintf("dir%d/sub/%d", dir, name)
			if lock := &deleting[dir][name]; s3 && what == 2 {
				lock.Lock()
				defer lock.Unlock()
			} else {
				lock.RLock()
				defer lock.RUnlock()
			}
			switch what {
			case 0, 1:
				content := strings.Repeat(fmt.Sprint(rng.IntN(10)), 3000)
				if err := b.Put(t.Context(), key, strings.NewReader(content), int64(len(content)), modified); err != nil {
					t.Error(err)
				}
			case 2:
				if err := b.Delete(t.Context(), key); err != nil {
					t.Error(err)
				}
			case 3:
				r, err := b.Get(t.Context(), key, 0, -1)
				if errors.Is(err, fs.ErrNotExist) {
					return
				} else if err != nil {
					t.Error(err)
					return
				}
				data, err := io.ReadAll(r)
				r.Close()
				if err == nil && (len(data) != 3000 || strings.Trim(string(data), string(data[:1])) != "") {
					t.Errorf("read %d bytes, a mixture", len(data))
				} else if err != nil {
					t.Error(err)
				}
			}
		}
		var wg sync.WaitGroup
		for w := range 6 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(w), 1))
				for range 40 {
					step(rng)
				}
			})
		}
		wg.Wait()
		for _, key := range list(t, b, "") {
			if err := b.Delete(t.Context(), key); err != nil {
				t.Error(err)
			}
		}
		if got, err := b.Groups(t.Context(), ""); err != nil || len(got) != 0 {
			t.Errorf("left: %v, %v", got, err)
		}
	})
}
