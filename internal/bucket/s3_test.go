package bucket_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/bucket/buckettest"
)

// clock is one that nobody waits for: sleeping moves it.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
	// onSleep is called before each sleep.
	onSleep func(n int)
}

func newClock() *clock { return &clock{now: modified} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	c.slept = append(c.slept, d)
	c.now = c.now.Add(d)
	n, f := len(c.slept), c.onSleep
	c.mu.Unlock()
	if f != nil {
		f(n)
	}
	return ctx.Err()
}

// tries is what an Observer was told.
type tries struct {
	mu    sync.Mutex
	count map[string]int
	bytes map[string]int64
}

func (o *tries) Tried(op bucket.Op, outcome bucket.Outcome, seconds float64, bytes int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count == nil {
		o.count, o.bytes = map[string]int{}, map[string]int64{}
	}
	o.count[string(op)+" "+string(outcome)]++
	o.bytes[string(op)+" "+string(outcome)] += bytes
	if seconds < 0 {
		o.count["negative seconds"]++
	}
}

func (o *tries) want(t *testing.T, want map[string]int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if fmt.Sprint(o.count) != fmt.Sprint(want) {
		t.Errorf("observed %v, want %v", o.count, want)
	}
}

// broken is a server behind a proxy that breaks what passes, and a bucket there with a clock and an observer.
type broken struct {
	*buckettest.S3
	proxy *buckettest.Proxy
	clock *clock
	tries *tries
	b     bucket.Bucket
}

func behindProxy(t *testing.T, l bucket.Limits) *broken {
	t.Helper()
	s := buckettest.Start(t)
	buckettest.Setenv(t)
	x := &broken{S3: s, proxy: buckettest.NewProxy(t, s.Endpoint), clock: newClock(), tries: &tries{}}
	x.b = open(t, s.URL(x.proxy.URL, "p"), bucket.Options{Limits: l, Now: x.clock.Now, Sleep: x.clock.Sleep, Observer: x.tries})
	return x
}

var faults = map[string]buckettest.Fault{
	"500": buckettest.Error500, "SlowDown": buckettest.SlowDown, "hang": buckettest.Hang, "cut": buckettest.Cut,
	"502": buckettest.Plain502, "404": buckettest.Plain404, "portal": buckettest.Plain200,
}

// quick has a time limit that a hanging try meets soon.
var quick = bucket.Limits{TryTimeout: 500 * time.Millisecond, MinBytesPerSecond: 16 << 20, Tries: 4}

func TestFaultThatEnds(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			x := behindProxy(t, quick)
			content := string(noise(3 << 20))
			x.proxy.SetNext(fault, 2)
			put(t, x.b, "a/object", content)
			if got := get(t, x.b, "a/object", 0, -1); got != content {
				t.Error("the object isn't what was put")
			}
			if _, met := x.proxy.Requests(); met != 2 || len(x.clock.slept) != 2 {
				t.Errorf("%d requests met the fault, and %v was slept", met, x.clock.slept)
			}
			x.proxy.SetNext(fault, 1)
			if got := list(t, x.b, ""); !slices.Equal(got, []string{"a/object"}) {
				t.Errorf("listed %v", got)
			}
			x.proxy.SetNext(fault, 1)
			if got := get(t, x.b, "a/object", 5, 10); got != content[5:15] {
				t.Error("the piece isn't what was put")
			}
			x.proxy.SetNext(fault, 1)
			if err := x.b.Delete(t.Context(), "a/object", "b"); err != nil {
				t.Error(err)
			}
			if fault == buckettest.Cut {
				// Where a kept connection ends at once, net/http makes requests without a body on another by itself.
				x.tries.want(t, map[string]int{"put retried": 2, "put ok": 1, "get ok": 2, "list ok": 1, "delete retried": 1, "delete ok": 1})
				return
			}
			x.tries.want(t, map[string]int{"put retried": 2, "put ok": 1, "get ok": 2, "get retried": 1, "list retried": 1, "list ok": 1, "delete retried": 1, "delete ok": 1})
			if x.tries.bytes["put ok"] != 3<<20 || x.tries.bytes["get ok"] != 3<<20+10 {
				t.Errorf("observed bytes: %v", x.tries.bytes)
			}
		})
	}
}

func TestFaultThatLasts(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			x := behindProxy(t, quick)
			x.proxy.Set(fault)
			err := x.b.Put(t.Context(), "a/object", strings.NewReader("content"), 7, modified)
			var failure *bucket.Error
			if !errors.As(err, &failure) || failure.Tries != 4 || failure.Key != "a/object" || failure.Op != bucket.OpPut || failure.Hint == "" {
				t.Fatalf("Put = %#v", err)
			}
			checkText(t, err, "put", "a/object", "s3://"+x.Bucket+"/p", "after 4 tries")
			for i, d := range x.clock.slept {
				longest := bucket.DefaultFirstPause << i
				if d < longest/2 || d > longest {
					t.Errorf("pause %d is %v, want %v to %v", i, d, longest/2, longest)
				}
			}
			if len(x.clock.slept) != 3 {
				t.Errorf("slept %v", x.clock.slept)
			}
			x.tries.want(t, map[string]int{"put retried": 3, "put failed": 1})
			if _, err := x.b.Get(t.Context(), "a/object", 0, -1); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Get = %v", err)
			}
			if err := x.b.List(t.Context(), "", nil); err == nil {
				t.Error("List = nil")
			}
			x.proxy.Set(buckettest.None)
			if got := list(t, x.b, ""); len(got) != 0 {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// checkText wants parts in an error, and no credentials.
func checkText(t *testing.T, err error, parts ...string) {
	t.Helper()
	t.Log(err)
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		for _, secret := range []string{buckettest.AccessKey[:10], buckettest.SecretKey[:10]} {
			if strings.Contains(fmt.Sprintf("%v %+v", e, e), secret) {
				t.Errorf("%v has the credentials", e)
			}
		}
	}
}

func TestNotRetried(t *testing.T) {
	x := behindProxy(t, quick)
	put := func(b bucket.Bucket) error { return b.Put(t.Context(), "k", strings.NewReader("x"), 1, modified) }
	tests := []struct {
		name  string
		fails func(t *testing.T) error
		want  []string
	}{
		{"denied", func(t *testing.T) error {
			x.proxy.Set(buckettest.Echo403)
			defer x.proxy.Set(buckettest.None)
			return put(x.b)
		}, []string{"403", "AccessDenied", "policy", "***"}},
		{"no bucket", func(t *testing.T) error {
			return put(open(t, strings.Replace(x.URL(x.proxy.URL, "p"), x.Bucket, "nobucket", 1), bucket.Options{}))
		}, []string{"NoSuchBucket", "make the bucket"}},
		{"no bucket to read", func(t *testing.T) error {
			_, err := open(t, strings.Replace(x.URL(x.proxy.URL, "p"), x.Bucket, "nobucket", 1), bucket.Options{}).Get(t.Context(), "k", 0, -1)
			if errors.Is(err, fs.ErrNotExist) {
				t.Error("a missing bucket is a missing object")
			}
			return err
		}, []string{"NoSuchBucket", "make the bucket"}},
		{"wrong secret", func(t *testing.T) error {
			t.Setenv("AWS_SECRET_ACCESS_KEY", "anotherSecret")
			return put(open(t, x.URL(x.proxy.URL, "p"), bucket.Options{}))
		}, []string{"SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"}},
		{"wrong key", func(t *testing.T) error {
			t.Setenv("AWS_ACCESS_KEY_ID", "ANOTHER")
			return put(open(t, x.URL(x.proxy.URL, "p"), bucket.Options{}))
		}, []string{"AWS_ACCESS_KEY_ID"}},
		{"TLS to HTTP", func(t *testing.T) error {
			return put(open(t, x.URL(strings.Replace(x.proxy.URL, "http:", "https:", 1), "p"), bucket.Options{}))
		}, []string{"endpoint=http://"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before, _ := x.proxy.Requests()
			err := tt.fails(t)
			var failure *bucket.Error
			if !errors.As(err, &failure) || failure.Tries != 1 {
				t.Fatalf("%#v", err)
			}
			checkText(t, err, tt.want...)
			if after, _ := x.proxy.Requests(); after > before+1 {
				t.Errorf("%d requests", after-before)
			}
		})
	}
}

// TestBrokenDownload goes on where a connection broke off or fell silent.
func TestBrokenDownload(t *testing.T) {
	for name, fault := range map[string]buckettest.Fault{"cut": buckettest.CutReply, "silent": buckettest.Silent} {
		t.Run(name, func(t *testing.T) {
			x := behindProxy(t, quick)
			content := string(noise(1 << 20))
			put(t, x.b, "o", content)
			x.proxy.SetNext(fault, 3)
			if got := get(t, x.b, "o", 0, -1); got != content {
				t.Error("not what was put")
			}
			x.proxy.SetNext(fault, 2)
			if got := get(t, x.b, "o", 1000, 500_000); got != content[1000:501_000] {
				t.Error("not the piece that was put")
			}
			x.tries.want(t, map[string]int{"put ok": 1, "get ok": 2, "get retried": 5})

			// Replaced in between: a mixture must not come out.
			x.proxy.SetNext(fault, 1)
			r, err := x.b.Get(t.Context(), "o", 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			put(t, open(t, x.URL(x.Endpoint, "p"), bucket.Options{}), "o", strings.Repeat("x", 1<<20))
			if _, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "replaced") {
				t.Errorf("read a mixture: %v", err)
			}
		})
	}
	t.Run("for good", func(t *testing.T) {
		x := behindProxy(t, quick)
		put(t, x.b, "o", string(noise(1<<20)))
		x.clock.onSleep = func(int) { x.proxy.Set(buckettest.Error500) }
		x.proxy.Set(buckettest.CutReply)
		r, err := x.b.Get(t.Context(), "o", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.Copy(io.Discard, r); err == nil {
			t.Error("read half an object without an error")
		} else {
			checkText(t, err, "get", `"o"`)
		}
	})
}

// TestBrokenListing isn't a shorter one.
func TestBrokenListing(t *testing.T) {
	for name, fault := range map[string]buckettest.Fault{"cut": buckettest.CutReply, "silent": buckettest.Silent} {
		t.Run(name, func(t *testing.T) {
			x := behindProxy(t, quick)
			want := []string{"a/1", "a/2", "b/3"}
			for _, key := range want {
				put(t, x.b, key, "x")
			}
			x.proxy.SetNext(fault, 2)
			if got := list(t, x.b, ""); !slices.Equal(got, want) {
				t.Errorf("List = %v", got)
			}
			x.proxy.SetNext(fault, 2)
			if got, err := x.b.Groups(t.Context(), ""); err != nil || !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("Groups = %v, %v", got, err)
			}
			x.tries.want(t, map[string]int{"put ok": 3, "list retried": 4, "list ok": 2})
			x.proxy.SetNext(fault, 9)
			if err := x.b.List(t.Context(), "", func(bucket.Object) error { return nil }); err == nil {
				t.Error("a broken listing was taken for one")
			}
		})
	}
}

// TestCanceledInFault returns at once, whatever the request is doing: the clock's sleep and the proxy's hanging last forever.
func TestCanceledInFault(t *testing.T) {
	t.Run("hanging", func(t *testing.T) {
		x := behindProxy(t, bucket.Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		x.proxy.OnRequest(func(*http.Request) { cancel() })
		x.proxy.Set(buckettest.Hang)
		err := x.b.Put(ctx, "k", bytes.NewReader(noise(1<<20)), 1<<20, modified)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Put = %v", err)
		}
		x.tries.want(t, map[string]int{"put canceled": 1})
	})
	t.Run("between tries", func(t *testing.T) {
		x := behindProxy(t, bucket.Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		x.clock.onSleep = func(int) { cancel() }
		x.proxy.Set(buckettest.Error500)
		err := x.b.Put(ctx, "k", bytes.NewReader(noise(1<<20)), 1<<20, modified)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Put = %v", err)
		}
		checkText(t, err, "500")
	})
	t.Run("waiting for a turn", func(t *testing.T) {
		x := behindProxy(t, bucket.Limits{Concurrent: 1})
		ctx, cancel := context.WithCancel(t.Context())
		waits := make(chan struct{})
		x.proxy.OnRequest(func(*http.Request) { close(waits) })
		x.proxy.Set(buckettest.Hang)
		first, second := make(chan error), make(chan error)
		go func() { first <- x.b.Put(ctx, "k", strings.NewReader("x"), 1, modified) }()
		<-waits
		go func() { second <- x.b.Put(ctx, "k2", strings.NewReader("x"), 1, modified) }()
		cancel()
		for _, c := range []chan error{first, second} {
			if err := <-c; !errors.Is(err, context.Canceled) {
				t.Errorf("Put = %v", err)
			}
		}
		if all, _ := x.proxy.Requests(); all != 1 {
			t.Errorf("%d requests", all)
		}
	})
}

func TestRate(t *testing.T) {
	x := behindProxy(t, bucket.Limits{RequestsPerSecond: 5})
	for i := range 20 {
		put(t, x.b, fmt.Sprint(i), "x")
	}
	// Five at once, and the others one in 200 ms.
	if took := x.clock.Now().Sub(modified); took < 2900*time.Millisecond || took > 3100*time.Millisecond {
		t.Errorf("20 requests at 5 a second took %v", took)
	}
}

// TestReadersBeside has more readers than requests may be made at a time: who merges objects reads many and writes one.
func TestReadersBeside(t *testing.T) {
	x := behindProxy(t, bucket.Limits{Concurrent: 1})
	put(t, x.b, "o", string(noise(1<<20)))
	for range 10 {
		r, err := x.b.Get(t.Context(), "o", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
	}
	put(t, x.b, "o", "x")
}

func metadata(t *testing.T, x *broken, key string) string {
	t.Helper()
	c, err := minio.New(strings.TrimPrefix(x.Endpoint, "http://"), &minio.Options{Region: "us-east-1", Creds: credentials.NewStaticV4(buckettest.AccessKey, buckettest.SecretKey, "")})
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.StatObject(t.Context(), x.Bucket, "p/"+key, minio.StatObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info.UserMetadata["Litestream-Timestamp"]
}

// zeros is a body of any size that takes no memory.
type zeros struct{ size, at int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.at >= z.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.size-z.at)
	clear(p[:n])
	z.at += n
	return int(n), nil
}

func (z *zeros) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += z.at
	case io.SeekEnd:
		offset += z.size
	}
	z.at = offset
	return offset, nil
}

// TestMemory puts and gets 200 MB within a few.
func TestMemory(t *testing.T) {
	const size, most = 200 << 20, 8 << 20
	s := buckettest.Start(t)
	buckettest.Setenv(t)
	for name, limits := range map[string]bucket.Limits{"parts": {}, "one piece": {PutOnePiece: 1 << 30}} {
		t.Run(name, func(t *testing.T) {
			b := open(t, s.URL(s.Endpoint, "p"), bucket.Options{Limits: limits})
			allocated := func(f func()) uint64 {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				f()
				runtime.ReadMemStats(&after)
				return after.TotalAlloc - before.TotalAlloc
			}
			// What is allocated in all, freed or not, is more than what is held at any time.
			n := allocated(func() {
				if err := b.Put(t.Context(), "large", &zeros{size: size}, size, modified); err != nil {
					t.Fatal(err)
				}
			})
			t.Logf("Put allocated %d KiB", n>>10)
			if n > most {
				t.Errorf("a Put of %d MiB allocated %d KiB", size>>20, n>>10)
			}
			h := sha256.New()
			n = allocated(func() {
				r, err := b.Get(t.Context(), "large", 0, -1)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if _, err := io.Copy(h, r); err != nil {
					t.Fatal(err)
				}
			})
			t.Logf("Get allocated %d KiB", n>>10)
			if n > most {
				t.Errorf("a Get of %d MiB allocated %d KiB", size>>20, n>>10)
			}
			want := sha256.New()
			_, _ = io.Copy(want, &zeros{size: size})
			if !bytes.Equal(h.Sum(nil), want.Sum(nil)) {
				t.Error("not what was put")
			}
		})
	}
}

// A replica makes dozens of requests a second: none of them is to pay for a connection, and TLS, of its own.
func TestConnectionsAreKept(t *testing.T) {
	buckettest.Setenv(t)
	var opened atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
		if r.Method == http.MethodDelete {
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	b, err := bucket.Open("s3://bucket/p?endpoint="+server.URL, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		key := fmt.Sprintf("k%d", i)
		if err := b.Put(t.Context(), key, bytes.NewReader(make([]byte, 100_000)), 100_000, modified); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for 10 requests, want 1", n)
	}
}
