package bucket_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/bucket/buckettest"
)

func TestOpen(t *testing.T) {
	buckettest.Setenv(t)
	for _, url := range []string{
		"file://" + t.TempDir(),
		"file://localhost" + t.TempDir() + "/new",
		"file://" + t.TempDir() + "/with%20space",
		"s3://bucket",
		"s3://bucket/",
		"s3://my.bucket-1/prefix/of/keys/?region=eu-central-1",
		"s3://bucket/p?endpoint=http://127.0.0.1:9000",
		"s3://bucket/p?endpoint=http%3A%2F%2F127.0.0.1%3A9000&region=auto&path-style=false",
		"s3://bucket/p?endpoint=https://storage.example.com/",
		"s3://bucket/p?endpoint=storage.example.com",
		"s3://bucket/p?endpoint=http://[::1]:9000",
	} {
		if _, err := bucket.Open(url, bucket.Options{}); err != nil {
			t.Errorf("Open(%s) = %v", url, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	buckettest.Setenv(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const secret = "SeCrEt-0815"
	for url, want := range map[string]string{
		"":                          "file:///path",
		"/var/replica":              "file:///path",
		"S" + secret + "://x":       "file:///path",
		"http://bucket.example.com": "file:///path",
		"file://var/replica":        "three slashes",
		"file:replica":              "absolute",
		"file:///x?region=y":        "no parameters",
		"file:///x#y":               "%23",
		"file://" + file:            "no folder",
		"file:///nowhere/at/all":    "mount the disk",
		"s3:///prefix":              "name of a bucket",
		"s3://Bucket_/x":            "name of a bucket",
		"s3://b/x":                  "name of a bucket",
		"s3://bucket/a//b":          "prefix",
		"s3://bucket/a/../b":        "prefix",
		"s3://bucket/ä":             "prefix",
		"s3://bucket/" + strings.Repeat("a/", 300):             "prefix",
		"s3://user:" + secret + "@bucket/x":                    "AWS_ACCESS_KEY_ID",
		"s3://" + secret + "@bucket/x":                         "AWS_ACCESS_KEY_ID",
		"s3://bucket:" + secret + "/x":                         "file:///path",
		"s3://bucket/x?secret-access-key=" + secret:            "AWS_ACCESS_KEY_ID",
		"s3://bucket/x?" + secret + "=1":                       "endpoint, path-style, region",
		"s3://bucket/x?region=" + secret + ";":                 "name=value",
		"s3://bucket/x?region=%21" + secret:                    "region",
		"s3://bucket/x?region=a&region=b":                      "several",
		"s3://bucket/x?endpoint=":                              "no value",
		"s3://bucket/x?endpoint=ftp://host":                    "http://host:port",
		"s3://bucket/x?endpoint=http://":                       "http://host:port",
		"s3://bucket/x?endpoint=http://host/" + secret:         "http://host:port",
		"s3://bucket/x?endpoint=http://a:" + secret + "@host":  "AWS_ACCESS_KEY_ID",
		"s3://bucket/x?endpoint=http%3A%2F%2Fhost%3A" + secret: "http://host:port",
		"s3://bucket/x?path-style=" + secret:                   "true or false",
	} {
		_, err := bucket.Open(url, bucket.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s) = %v, want one that says %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("Open repeats a secret: %v", err)
		}
	}
	t.Setenv("AWS_CA_BUNDLE", file)
	if _, err := bucket.Open("s3://bucket", bucket.Options{}); err == nil || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
		t.Errorf("a bundle without certificates: %v", err)
	}
}

func TestLimitsAreChecked(t *testing.T) {
	for _, l := range []bucket.Limits{{RequestsPerSecond: -1}, {RequestsPerSecond: 1e6}, {Concurrent: 1001}, {Tries: -1}, {TryTimeout: time.Microsecond},
		{MinBytesPerSecond: -1}, {FirstPause: time.Minute, LongestPause: time.Second}, {PutOnePiece: 1 << 20}, {PartSize: 1 << 40}} {
		if _, err := bucket.Open("file://"+t.TempDir(), bucket.Options{Limits: l}); err == nil || !strings.Contains(err.Error(), "the limit") {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

func TestLevelDir(t *testing.T) {
	buckettest.Setenv(t)
	folder, s3 := open(t, "file://"+t.TempDir(), bucket.Options{}), open(t, "s3://bucket", bucket.Options{})
	for level, want := range map[int][2]string{0: {"ltx/0", "0000"}, 1: {"ltx/1", "0001"}, 9: {"ltx/9", "0009"}, 15: {"ltx/15", "000f"}} {
		if got := [2]string{folder.LevelDir(level), s3.LevelDir(level)}; got != want {
			t.Errorf("level %d: %v, want %v", level, got, want)
		}
	}
}

// FuzzOpen refuses URLs without repeating what may be a secret in them.
func FuzzOpen(f *testing.F) {
	for _, around := range [][2]string{{"user:", "@bucket/p"}, {"bucket/p?key=", ""}, {"bucket?endpoint=http://", "_"}, {"bucket?endpoint=http://a:", "@b"}, {"b#", "%"}, {"bucket/%", "?region="}} {
		f.Add(around[0], around[1])
	}
	const secret = "seCret-0815"
	f.Fuzz(func(t *testing.T, before, after string) {
		_, err := bucket.Open("s3://"+before+secret+after, bucket.Options{})
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("repeats a secret: %v", err)
		}
	})
}
