package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	// timestampKey is the metadata that Litestream reads a file's time from, RFC 3339 with nanoseconds.
	timestampKey = "litestream-timestamp"

	pageSize    = 1000 // objects of a listing, and keys of a deletion, that one request may have
	dialTimeout = 10 * time.Second
	idleTimeout = time.Minute // for which a connection is kept for the next request
)

// s3 is a bucket in storage that speaks S3.
type s3 struct {
	*gate
	client      minio.Core
	credentials *awsCredentials
	bucket      string
	prefix      string // of all keys: empty, or ends in a /
}

func newS3(t s3Target, o Options) (*s3, error) {
	transport, err := newTransport(o.Limits.Concurrent)
	if err != nil {
		return nil, err
	}
	s := &s3{credentials: newCredentials(), bucket: t.bucket}
	lookup := minio.BucketLookupDNS
	if t.pathStyle {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.NewCore(t.host, &minio.Options{
		Creds:        credentials.New(s.credentials),
		Secure:       t.secure,
		Transport:    transport,
		Region:       t.region,
		BucketLookup: lookup,
		MaxRetries:   1, // the gate tries again: it knows the limits, and tells the observer
	})
	if err != nil {
		return nil, errors.New("the endpoint's host is neither a name nor an address") // which the error repeats
	}
	// The names that firewalls and gateways of private networks know.
	client.SetS3EnableDualstack(false)
	client.SetAppInfo("persqld", "1")
	s.client = *client
	where := "s3://" + t.bucket
	if t.prefix != "" {
		s.prefix = t.prefix + "/"
		where += "/" + t.prefix
	}
	if !t.aws {
		where += " at " + t.host
	}
	s.gate = newGate(o, where, s.judge)
	return s, nil
}

func newTransport(connections int) (http.RoundTripper, error) {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		MaxIdleConns:        connections,
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true, // an object's bytes are its bytes
	}
	if file := os.Getenv("AWS_CA_BUNDLE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("AWS_CA_BUNDLE: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("AWS_CA_BUNDLE: %s has no certificate in PEM", file)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return noPages{t}, nil
}

// noPages refuses answers that succeed with a page: a portal's, or a proxy's.
type noPages struct{ *http.Transport }

func (t noPages) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.Transport.RoundTrip(r)
	if err == nil && res.StatusCode < 300 && strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		res.Body.Close()
		return nil, errPage
	}
	return res, err
}

// LevelDir is what Litestream's client for S3 calls a level.
func (s *s3) LevelDir(level int) string { return fmt.Sprintf("%04x", level) }

// List asks for a page at a time, and for the next one only when fn has had it: nothing waits for fn.
func (s *s3) List(ctx context.Context, prefix string, fn func(Object) error) error {
	if _, _, err := checkPrefix(prefix); err != nil {
		return wrapped(OpList, prefix, s.where, err)
	}
	after := ""
	for {
		page, more, err := s.page(ctx, prefix, minio.ListObjectsOptions{Prefix: s.prefix + prefix, StartAfter: after, Recursive: true})
		if err != nil {
			return err
		}
		for _, o := range page {
			after = o.Key
			key := strings.TrimPrefix(o.Key, s.prefix)
			// Others may have put more there. What isn't a key could not be read or deleted here.
			if checkKey(key) != nil {
				continue
			}
			if err := fn(Object{Key: key, Size: o.Size, Modified: o.LastModified}); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// Groups asks for a page at a time.
func (s *s3) Groups(ctx context.Context, prefix string) ([]string, error) {
	if err := checkGroup(prefix); err != nil {
		return nil, wrapped(OpList, prefix, s.where, err)
	}
	var groups []string
	full := s.prefix + prefix
	after := ""
	for {
		page, more, err := s.page(ctx, prefix, minio.ListObjectsOptions{Prefix: full, StartAfter: after})
		if err != nil {
			return nil, err
		}
		for _, o := range page {
			name := strings.TrimPrefix(o.Key, full)
			group, isGroup := strings.CutSuffix(name, "/")
			// Servers differ in whether a group comes once more when the page begins within it, but not about the first key behind it: 0 is what
			// follows / bytewise.
			if isGroup {
				after = max(after, full+group+"0")
			} else {
				after = max(after, o.Key)
			}
			if isGroup && checkPart(group) == nil {
				groups = append(groups, group)
			}
		}
		if !more {
			slices.Sort(groups)
			return slices.Compact(groups), nil
		}
	}
}

// page makes one request for a listing, and tells whether there may be more.
func (s *s3) page(ctx context.Context, prefix string, o minio.ListObjectsOptions) (page []minio.ObjectInfo, more bool, err error) {
	noOwner := false
	o.MaxKeys, o.FetchOwner = pageSize, &noOwner
	err = s.do(ctx, request{op: OpList, key: prefix}, func(ctx context.Context) error {
		page, more = make([]minio.ObjectInfo, 0, 16), false
		for info := range s.client.ListObjectsIter(ctx, s.bucket, o) {
			if info.Err != nil {
				return info.Err
			}
			page = append(page, info)
			if len(page) == pageSize {
				// The client would ask for the next page by itself, in this try's time and turn.
				more = true
				break
			}
		}
		// An iteration that the context ends looks like the end of the listing.
		return ctx.Err()
	})
	return page, more, err
}

// Delete makes a request for 1,000 keys at a time.
func (s *s3) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return wrapped(OpDelete, key, s.where, err)
		}
	}
	for batch := range slices.Chunk(keys, pageSize) {
		err := s.do(ctx, request{op: OpDelete, key: batch[0]}, func(ctx context.Context) error {
			if len(batch) == 1 {
				return s.missingIsFine(s.client.RemoveObject(ctx, s.bucket, s.prefix+batch[0], minio.RemoveObjectOptions{}))
			}
			results, err := s.client.RemoveObjectsWithIter(ctx, s.bucket, s.infos(batch), minio.RemoveObjectsOptions{})
			if err != nil {
				return err
			}
			for r := range results {
				if err := s.missingIsFine(r.Err); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *s3) infos(keys []string) iter.Seq[minio.ObjectInfo] {
	return func(yield func(minio.ObjectInfo) bool) {
		for _, key := range keys {
			if !yield(minio.ObjectInfo{Key: s.prefix + key}) {
				return
			}
		}
	}
}

// missingIsFine is for deletions, which some servers refuse for what isn't there.
func (s *s3) missingIsFine(err error) error {
	if err != nil && errors.Is(s.judge(err).err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Get begins to read an object, and goes on where a connection breaks.
func (s *s3) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	err := checkKey(key)
	if err == nil && offset < 0 {
		err = errors.New("the offset is negative")
	}
	if err != nil {
		return nil, wrapped(OpGet, key, s.where, err)
	}
	if length == 0 {
		// No range says that.
		err := s.do(ctx, request{op: OpGet, key: key}, func(ctx context.Context) error {
			_, err := s.client.StatObject(ctx, s.bucket, s.prefix+key, minio.StatObjectOptions{})
			return err
		})
		if err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	r := &reader{s: s, ctx: ctx, key: key, at: offset, end: -1}
	if length > 0 && offset+length > 0 {
		r.end = offset + length
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}
