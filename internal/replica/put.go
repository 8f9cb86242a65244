package replica

import (
	"bytes"
	"context"
	"io"
	"os"
	"time"

	"github.com/persqld/persqld/internal/bucket"
)

// putBuilt builds an object, in memory or in a file of a directory, and puts it into a bucket.
func putBuilt(ctx context.Context, b bucket.Bucket, temp, key string, ms int64, small bool, build func(io.Writer) error) (size int64, err error) {
	body, size, done, err := built(temp, small, build)
	if err != nil {
		return 0, err
	}
	defer done()
	return size, b.Put(ctx, key, body, size, time.UnixMilli(ms))
}

// built builds an object. done takes away what it lies in.
func built(temp string, small bool, build func(io.Writer) error) (body io.ReadSeeker, size int64, done func(), err error) {
	if small {
		var b bytes.Buffer
		if err := build(&b); err != nil {
			return nil, 0, nil, err
		}
		return bytes.NewReader(b.Bytes()), int64(b.Len()), func() {}, nil
	}
	f, err := os.CreateTemp(temp, "replica-*.ltx")
	if err != nil {
		return nil, 0, nil, err
	}
	done = func() {
		f.Close()
		os.Remove(f.Name())
	}
	if err = build(f); err == nil {
		if size, err = f.Seek(0, io.SeekCurrent); err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
	}
	if err != nil {
		done()
		return nil, 0, nil, err
	}
	return f, size, done, nil
}
