// Package buckettest starts a real S3 server for tests, versitygw, and a proxy before it that breaks what passes through.
package buckettest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// Gateway is the program that plays S3, below the module's folder; scripts/test-setup builds it.
	Gateway = ".cache/tools/versitygw-v1.8.0/versitygw"
	// Litestream is the stock one, which tests restore replicas with.
	Litestream = ".cache/tools/litestream-v0.5.18/litestream"

	// AccessKey and SecretKey are the server's.
	AccessKey = "AKIDOFTHETESTSERVER0"
	SecretKey = "secretOfTheTestServer/which+mustNotShowUp"

	bucket     = "tests"
	region     = "us-east-1"
	healthPath = "/health"
	startLimit = 30 * time.Second
	startTries = 3 // another process may take the port that was free
)

// Tool returns the path of a program of scripts/test-setup's. Where it is missing the test is skipped by name; where CI is set it fails.
func Tool(t testing.TB, path string) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	full := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), filepath.FromSlash(path))
	if _, err := os.Stat(full); err == nil {
		return full
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing, and CI is set: nothing may be left out; scripts/test-setup builds it", path)
	}
	t.Skipf("NOT TESTED: %s is missing; scripts/test-setup builds it", path)
	return ""
}

// S3 is a server with one empty bucket, for one test.
type S3 struct {
	Endpoint string // http://127.0.0.1:port
	Bucket   string
	Folder   string // where the bucket's objects are files, at their keys
}

// URL is the bucket's, at the server or at a proxy before it.
func (s *S3) URL(endpoint, prefix string) string {
	q := url.Values{"endpoint": {endpoint}, "region": {region}}
	return "s3://" + s.Bucket + "/" + prefix + "?" + q.Encode()
}

// Env is the environment of processes that use the server: credentials and region. Nothing of the machine's own gets in their way.
func Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + AccessKey, "AWS_SECRET_ACCESS_KEY=" + SecretKey, "AWS_REGION=" + region, "AWS_SESSION_TOKEN=", "AWS_PROFILE=",
		"AWS_ENDPOINT_URL=", "AWS_ENDPOINT_URL_S3=", "AWS_CA_BUNDLE=", "AWS_EC2_METADATA_DISABLED=true"}
}

// Setenv gives this process the environment of Env, as long as the test runs.
func Setenv(t testing.TB) {
	t.Helper()
	for _, v := range Env() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}

// StartS3 starts a server and returns the URL of its bucket, and the environment of who uses it.
func StartS3(t testing.TB) (bucketURL string, env []string) {
	t.Helper()
	s := Start(t)
	return s.URL(s.Endpoint, "replica"), Env()
}

// Start starts a server on a port and a folder of its own, and stops it when the test ends.
func Start(t testing.TB) *S3 {
	t.Helper()
	program := Tool(t, Gateway)
	dir := t.TempDir()
	// Attributes beside the files, not of them: not every disk that tests run on has those.
	root, sidecar := filepath.Join(dir, "root"), filepath.Join(dir, "sidecar")
	s := &S3{Bucket: bucket, Folder: filepath.Join(root, bucket)}
	for _, d := range []string{s.Folder, sidecar} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var log lockedBuffer
	for range startTries {
		address := freeAddress(t)
		s.Endpoint = "http://" + address
		cmd := exec.Command(program, "--access", AccessKey, "--secret", SecretKey, "--region", region, "--port", address, "--health", healthPath,
			"posix", "--sidecar", sidecar, root)
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatalf("start %s: %v", Gateway, err)
		}
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait() // it is killed
			close(ended)
		}()
		stop := func() {
			_ = cmd.Process.Kill()
			<-ended
		}
		if healthy(t.Context(), s.Endpoint+healthPath, ended) {
			t.Cleanup(stop)
			return s
		}
		stop()
	}
	t.Fatalf("%s didn't start:\n%s", Gateway, log.String())
	return nil
}

// healthy waits until a server answers; false if it ends before, or takes too long.
func healthy(ctx context.Context, address string, ended <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return false
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-ended:
			return false
		case <-tick.C:
		}
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr())
}

// lockedBuffer is what a process says.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
