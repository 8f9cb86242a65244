package bucket_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/bucket/buckettest"
	"github.com/persqld/persqld/internal/sqlite"
)

// litestream runs the stock one.
func litestream(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(buckettest.Tool(t, buckettest.Litestream), args...)
	cmd.Env = append(os.Environ(), buckettest.Env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("litestream %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestLitestreamReads puts what stock Litestream wrote to a folder, and stock Litestream restores it: all of it, and what it was at a time between.
func TestLitestreamReads(t *testing.T) {
	s := buckettest.Start(t)
	buckettest.Setenv(t)
	dir := t.TempDir()
	live, written := filepath.Join(dir, "live.db"), filepath.Join(dir, "written")
	want := map[string][]byte{}
	const begin = "2026-03-01T10:00:00Z"
	for i, state := range []string{"former", "middle", "latest"} {
		// The driver has its file to itself, as long as it is open.
		db, err := sqlite.OpenDriver(live, sqlite.DriverOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = db.Exec(fmt.Sprintf("CREATE TABLE t%d AS SELECT hex(randomblob(5000)) AS x", i))
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		litestream(t, "replicate", "-once", live, "file://"+written)
		out := filepath.Join(dir, state)
		litestream(t, "restore", "-o", out, "file://"+written)
		if want[state], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	first, err := time.Parse(time.RFC3339, begin)
	if err != nil {
		t.Fatal(err)
	}

	folder := filepath.Join(dir, "replica")
	for name, replica := range map[string]struct{ bucket, litestream string }{
		"folder": {"file://" + folder, "file://" + folder + "/acme/orders"},
		"s3": {s.URL(s.Endpoint, "replica"), "s3://" + s.Bucket + "/replica/acme/orders?" +
			url.Values{"endpoint": {s.Endpoint}, "region": {"us-east-1"}, "forcePathStyle": {"true"}}.Encode()},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, replica.bucket, bucket.Options{})
			files := 0
			err := filepath.WalkDir(written, func(file string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				level, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
				if err != nil {
					return err
				}
				data, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				// An hour each, in the order of the transactions.
				at := first.Add(time.Duration(files) * time.Hour)
				key := path.Join("acme/orders", b.LevelDir(level), d.Name())
				if err := b.Put(t.Context(), key, bytes.NewReader(data), int64(len(data)), at); err != nil {
					return err
				}
				if name == "s3" {
					// Litestream looks at the metadata only where the time is within those that the objects were stored at. By these the middle state would be
					// the answer to a time at which it wasn't yet.
					stored := first.Add([]time.Duration{-time.Hour, 10 * time.Minute, 24 * time.Hour}[files])
					if err := os.Chtimes(filepath.Join(s.Folder, "replica", key), stored, stored); err != nil {
						return err
					}
				}
				files++
				return nil
			})
			if err != nil || files != 3 {
				t.Fatalf("%d files, %v", files, err)
			}
			for state, when := range map[string][]string{"latest": nil, "former": {"-timestamp", first.Add(30 * time.Minute).Format(time.RFC3339)}} {
				out := filepath.Join(t.TempDir(), "restored.db")
				litestream(t, append(append([]string{"restore", "-o", out}, when...), replica.litestream)...)
				if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want[state]) {
					t.Errorf("the %s state is another: %d bytes, want %d; %v", state, len(got), len(want[state]), err)
				}
			}
		})
	}
}
