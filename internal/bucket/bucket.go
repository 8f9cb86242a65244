// Package bucket keeps objects off this machine's database directory: in a folder, or in storage that speaks S3.
package bucket

import (
	"context"
	"io"
	"time"
)

// Bucket holds objects by key. A key is of the letters, digits and ._- with / between its parts, none of which is empty, . or .., and at most 512 bytes.
// Its methods may be called at the same time.
type Bucket interface {
	// Put stores an object, whole or not at all; when it returns nil the object outlives a crash. An object that has the key already is replaced. The
	// body is read more than once where a try failed.
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64, modified time.Time) error

	// Get reads an object from an offset on: length bytes, or all where length is negative. It is an fs.ErrNotExist where there is none.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// List calls fn with the objects whose keys begin with a prefix, in the order of their keys. It ends with the error that fn returns.
	List(ctx context.Context, prefix string, fn func(Object) error) error

	// Groups are the distinct parts of keys that follow a prefix, which ends in a /, up to the next /: what a directory's directories are.
	Groups(ctx context.Context, prefix string) ([]string, error)

	// Delete takes objects away. One that isn't there is no error.
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
