package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/bucket/buckettest"
)

// inParts are limits with which a few MB are put in parts.
var inParts = bucket.Limits{PutOnePiece: 6 << 20, PartSize: 5 << 20, Tries: 3}

// completes tells whether a request ends an upload in parts.
func completes(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}

// TestParts puts a large object in parts. Each kind of request fails once.
func TestParts(t *testing.T) {
	x := behindProxy(t, inParts)
	content := noise(17 << 20)
	failed := map[string]bool{}
	x.proxy.Choose(func(r *http.Request) buckettest.Fault {
		what := r.Method + r.URL.Query().Get("partNumber")
		if completes(r) {
			what = "complete"
		}
		if failed[what] || what == "PUT3" || r.Method == http.MethodGet {
			return buckettest.None
		}
		failed[what] = true
		switch what {
		case "PUT1":
			return buckettest.Cut
		case "PUT2":
			return buckettest.Flip
		}
		return buckettest.Error500
	})
	if err := x.b.Put(t.Context(), "large", bytes.NewReader(content), int64(len(content)), modified); err != nil {
		t.Fatal(err)
	}
	if got := get(t, x.b, "large", 0, -1); got != string(content) {
		t.Error("not what was put")
	}
	x.tries.want(t, map[string]int{"put retried": 5, "put ok": 6, "get ok": 1})
	if got := metadata(t, x, "large"); got != "2026-03-04T05:06:07.123Z" {
		t.Errorf("litestream-timestamp is %q", got)
	}
}

// TestPartsWithALostAnswer has the upload completed, but nobody told: some servers know nothing of it any more when they are asked again, others say that
// it is well.
func TestPartsWithALostAnswer(t *testing.T) {
	for name, second := range map[string]buckettest.Fault{"remembered": buckettest.None, "forgotten": buckettest.NoUpload} {
		t.Run(name, func(t *testing.T) {
			x := behindProxy(t, inParts)
			content := noise(7 << 20)
			n := 0
			x.proxy.Choose(func(r *http.Request) buckettest.Fault {
				if completes(r) {
					n++
					return map[int]buckettest.Fault{1: buckettest.CutReply, 2: second}[n]
				}
				return buckettest.None
			})
			if err := x.b.Put(t.Context(), "large", bytes.NewReader(content), int64(len(content)), modified); err != nil {
				t.Fatal(err)
			}
			if got := get(t, x.b, "large", 0, -1); got != string(content) {
				t.Error("not what was put")
			}
		})
	}
}

// TestPartsAreTakenBack ends an upload that fails, or whose caller gives up: its parts would cost for ever.
func TestPartsAreTakenBack(t *testing.T) {
	for _, why := range []string{"failed", "canceled"} {
		t.Run(why, func(t *testing.T) {
			x := behindProxy(t, inParts)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			x.proxy.Choose(func(r *http.Request) buckettest.Fault {
				if r.URL.Query().Get("partNumber") != "2" {
					return buckettest.None
				}
				if why == "canceled" {
					cancel()
				}
				return buckettest.Error500
			})
			err := x.b.Put(ctx, "large", bytes.NewReader(noise(11<<20)), 11<<20, modified)
			var failure *bucket.Error
			if !errors.As(err, &failure) || failure.Op != bucket.OpPut || errors.Is(err, context.Canceled) != (why == "canceled") {
				t.Errorf("Put = %v", err)
			}
			if !slices.ContainsFunc(x.proxy.Seen(), func(s string) bool { return strings.HasPrefix(s, "DELETE ") && strings.Contains(s, "uploadId=") }) {
				t.Errorf("nothing was taken back: %v", x.proxy.Seen())
			}
			if got := list(t, x.b, ""); len(got) != 0 {
				t.Errorf("there are %v", got)
			}
		})
	}
}

// TestDamagedOnItsWay is refused by the server, and put again.
func TestDamagedOnItsWay(t *testing.T) {
	x := behindProxy(t, quick)
	x.proxy.SetNext(buckettest.Flip, 2)
	put(t, x.b, "o", "content")
	if got := get(t, x.b, "o", 0, -1); got != "content" {
		t.Errorf("got %q", got)
	}
	x.tries.want(t, map[string]int{"put retried": 2, "put ok": 1, "get ok": 1})
	if got := metadata(t, x, "o"); got != "2026-03-04T05:06:07.123Z" {
		t.Errorf("litestream-timestamp is %q", got)
	}
}

// TestBodyThatBreaks does so when it is sent, not when it is read for its hash: that is no fault of the network's.
func TestBodyThatBreaks(t *testing.T) {
	x := behindProxy(t, quick)
	broken := errors.New("the disk is broken")
	body := &secondTime{Reader: bytes.NewReader(noise(1 << 20)), err: broken}
	err := x.b.Put(t.Context(), "o", body, 1<<20, modified)
	var failure *bucket.Error
	if !errors.Is(err, broken) || !errors.As(err, &failure) || failure.Tries != 1 {
		t.Errorf("Put = %v", err)
	}
}

// secondTime fails when it is read for the second time.
type secondTime struct {
	*bytes.Reader
	err    error
	begins int
}

func (s *secondTime) Read(p []byte) (int, error) {
	if s.Len() == int(s.Size()) {
		s.begins++
	}
	if s.begins > 1 && s.Len() < int(s.Size()) {
		return 0, s.err
	}
	return s.Reader.Read(p)
}

// TestBodyIsLetGo has a body that notices who reads it when Put is over: a connection that was given up may go on sending.
func TestBodyIsLetGo(t *testing.T) {
	x := behindProxy(t, bucket.Limits{Tries: 1})
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		x.proxy.OnRequest(func(*http.Request) { cancel() })
		body := &owned{Reader: bytes.NewReader(noise(4 << 20)), t: t}
		if err := x.b.Put(ctx, "o", body, 4<<20, modified); err == nil {
			t.Log("it was quicker")
		}
		// The race detector sees a reading that isn't over.
		body.over = true
		body.Reader = nil
	}
}

type owned struct {
	*bytes.Reader
	t    *testing.T
	over bool
}

func (o *owned) Read(p []byte) (int, error) {
	if o.over {
		o.t.Error("read after Put")
		return 0, errors.New("over")
	}
	return o.Reader.Read(p)
}
