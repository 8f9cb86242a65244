// Package bucket keeps objects off this machine's database directory: in a folder, or in storage that speaks S3.
package bucket

import (
	"context"
	"io"
	"time"
)

// Bucket holds objects by key. A key is of the letters, digits and ._- with / between its parts, none of which is empty, . or .., and at most 512 bytes,
// a part at most 200. No key may be the folder of another: a/b and a/b/c can't both be there. Its methods may be called at the same time.
//
// An error of a method is an *Error, but for one of List's fn.
type Bucket interface {
	// Put stores an object, whole or not at all; when it returns nil the object outlives a crash. An object that has the key already is replaced. The
	// body is the size bytes from where it stands; it is read more than once, and not read any more when Put has returned.
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64, modified time.Time) error

	// Get reads an object from an offset on: length bytes, or all where length is negative; nothing where the offset is at the end or behind it. It is an
	// fs.ErrNotExist where there is none. ctx holds for the reading too. A reader that meets an io.EOF has read all of it.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// List calls fn with the objects whose keys begin with a prefix, in the order of their keys, bytewise. It ends with the error that fn returns. fn may
	// call the bucket.
	List(ctx context.Context, prefix string, fn func(Object) error) error

	// Groups are the distinct parts of keys that follow a prefix, which is empty or ends in a /, up to the next /, sorted: what a directory's directories
	// are.
	Groups(ctx context.Context, prefix string) ([]string, error)

	// Delete takes objects away. One that isn't there is no error. Where it fails some may be gone.
	Delete(ctx context.Context, keys ...string) error

	// LevelDir is where Litestream looks for the files of a level, below a database's own prefix: its clients for folders and for S3 differ.
	LevelDir(level int) string
}

// Object is what a listing tells of an object.
type Object struct {
	Key      string
	Size     int64
	Modified time.Time // a folder's is what Put was given; S3's is when it was stored
}

// Options say how a bucket is used. The zero value works.
type Options struct {
	Limits   Limits   // of requests to S3; a folder has none
	Observer Observer // is told of every try; nil tells nobody
	Files    Files    // of a folder
	// Now and Sleep are the clock that requests are spaced by, and that they wait by between tries; the system's where they are nil. Sleep returns
	// ctx's error where that ends first.
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error
}

func (o Options) withDefaults() Options {
	o.Limits = o.Limits.withDefaults()
	o.Files = o.Files.withDefaults()
	if o.Observer == nil {
		o.Observer = unobserved{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	return o
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Op is what a bucket is asked for.
type Op string

// The operations. Groups counts as List; a large Put is several requests.
const (
	OpPut    Op = "put"
	OpGet    Op = "get"
	OpList   Op = "list"
	OpDelete Op = "delete"
)

// Outcome is what came of a try.
type Outcome string

// The outcomes.
const (
	OK       Outcome = "ok"
	Missing  Outcome = "missing"  // there is no such object
	Retried  Outcome = "retried"  // it failed, and is tried again
	Failed   Outcome = "failed"   // it failed, and so did the operation
	Canceled Outcome = "canceled" // the caller gave up
)

// Observer is told of tries, for metrics. Its methods are called at the same time, and must return at once.
type Observer interface {
	// Tried is called after each try: a request to S3, or an operation of a folder. seconds are without what was waited for its turn; bytes are those of
	// the object that were sent or received.
	Tried(op Op, outcome Outcome, seconds float64, bytes int64)
}

type unobserved struct{}

func (unobserved) Tried(Op, Outcome, float64, int64) {}
