package bucket_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/bucket/buckettest"
)

// withoutKeys has the environment of a process that gets its credentials elsewhere.
func withoutKeys(t *testing.T) {
	t.Helper()
	buckettest.Setenv(t)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
	t.Setenv("AWS_CONFIG_FILE", "/nowhere")
}

func TestCredentialsFile(t *testing.T) {
	s := buckettest.Start(t)
	withoutKeys(t)
	file := filepath.Join(t.TempDir(), "credentials")
	text := "[default]\naws_access_key_id=nobody\naws_secret_access_key=nothing\n[backup]\naws_access_key_id=" + buckettest.AccessKey + "\naws_secret_access_key=" + buckettest.SecretKey + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_PROFILE", "backup")
	t.Setenv("AWS_ENDPOINT_URL_S3", s.Endpoint)
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	b := open(t, "s3://"+s.Bucket, bucket.Options{})
	put(t, b, "k", "x")
	if got := get(t, b, "k", 0, -1); got != "x" {
		t.Errorf("got %q", got)
	}
}

// TestContainerRole asks for new credentials when the old ones end.
func TestContainerRole(t *testing.T) {
	s := buckettest.Start(t)
	withoutKeys(t)
	var asked atomic.Int32
	role := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		left := time.Hour
		if asked.Add(1) == 1 {
			left = -time.Second
		}
		fmt.Fprintf(w, `{"AccessKeyId": %q, "SecretAccessKey": %q, "Token": "", "Expiration": %q}`, buckettest.AccessKey, buckettest.SecretKey, time.Now().Add(left).UTC().Format(time.RFC3339))
	}))
	defer role.Close()
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", role.URL)
	b := open(t, s.URL(s.Endpoint, "p"), bucket.Options{})
	for range 3 {
		put(t, b, "k", "x")
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("the role was asked %d times", n)
	}
}

func TestNoCredentials(t *testing.T) {
	s := buckettest.Start(t)
	withoutKeys(t)
	role := httptest.NewServer(http.NotFoundHandler())
	defer role.Close()
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", role.URL)
	err := open(t, s.URL(s.Endpoint, "p"), bucket.Options{}).Put(t.Context(), "k", strings.NewReader("x"), 1, modified)
	if err == nil {
		t.Fatal("put without credentials")
	}
	checkText(t, err, "no credentials", "the role: ", "the credentials file: ", "AWS_PROFILE")
}

func TestCABundle(t *testing.T) {
	s := buckettest.Start(t)
	buckettest.Setenv(t)
	proxy, certificate := buckettest.NewTLSProxy(t, s.Endpoint)
	err := open(t, s.URL(proxy.URL, "p"), bucket.Options{}).Put(t.Context(), "k", strings.NewReader("x"), 1, modified)
	if err == nil {
		t.Fatal("a certificate of nobody's was trusted")
	}
	checkText(t, err, "AWS_CA_BUNDLE")
	if strings.Contains(err.Error(), "tries") {
		t.Error("it was tried again")
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", file)
	b := open(t, s.URL(proxy.URL, "p"), bucket.Options{})
	put(t, b, "k", "x")
	if got := get(t, b, "k", 0, -1); got != "x" {
		t.Errorf("got %q", got)
	}
}
