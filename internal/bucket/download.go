package bucket

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
)

// errChanged says that an object was replaced while it was read.
var errChanged = errors.New("the object was replaced by another while it was read")

// reader reads an object of S3 from an offset on, over as many connections as it takes. It has the limits' tries anew with each byte that it gets.
type reader struct {
	s   *s3
	ctx context.Context // the caller's
	key string
	at  int64 // the next byte
	end int64 // behind the last byte; -1 for the object's own, until that is known

	etag   string // of the object that the first bytes came from
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	watch  *time.Timer // ends the connection when it is silent for too long
	conn   context.Context
	began  time.Time
	first  int64 // the byte that the connection began with
	failed int   // tries in a row that brought nothing
	err    error // what the reading ended with
}

// open connects at the next byte.
func (r *reader) open() error {
	return r.s.do(r.ctx, request{op: OpGet, key: r.key, streams: true}, func(ctx context.Context) error {
		conn, cancel := context.WithCancelCause(ctx)
		limit := r.s.Limits.TryTimeout
		watch := time.AfterFunc(limit, func() { cancel(errSlow{limit}) })
		began := r.s.Now()
		body, err := r.connect(conn)
		if err != nil {
			watch.Stop()
			slow, isSlow := context.Cause(conn).(errSlow)
			cancel(nil)
			if isSlow {
				return slow
			}
			return err
		}
		watch.Stop()
		r.body, r.conn, r.cancel, r.watch, r.began, r.first = body, conn, cancel, watch, began, r.at
		return nil
	})
}

func (r *reader) connect(ctx context.Context) (io.ReadCloser, error) {
	var o minio.GetObjectOptions
	if r.etag != "" {
		if err := o.SetMatchETag(r.etag); err != nil {
			return nil, err
		}
	}
	var err error
	switch {
	case r.end >= 0:
		err = o.SetRange(r.at, r.end-1)
	case r.at > 0:
		err = o.SetRange(r.at, 0)
	}
	if err != nil {
		return nil, err
	}
	body, info, header, err := r.s.client.GetObject(ctx, r.s.bucket, r.s.prefix+r.key, o)
	if a := minio.ToErrorResponse(err); a.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		// The offset is at the object's end or behind it.
		r.end = r.at
		return http.NoBody, nil
	} else if a.StatusCode == http.StatusPreconditionFailed {
		return nil, errChanged
	}
	if err != nil {
		return nil, err
	}
	if info.ETag == "" {
		body.Close()
		return nil, errNoETag
	}
	if r.at > 0 && header.Get("Content-Range") == "" {
		body.Close()
		return nil, errors.New("the server sent the object from its beginning on, though it was asked for a range")
	}
	// The range's length, or the object's where there was none: what is left in any case.
	if info.Size < 0 {
		body.Close()
		return nil, errors.New("the server didn't say how long the object is")
	}
	r.end, r.etag = r.at+info.Size, info.ETag
	return body, nil
}

func (r *reader) Read(p []byte) (int, error) {
	for {
		switch {
		case r.err != nil:
			return 0, r.err
		case r.end >= 0 && r.at >= r.end:
			r.finish(nil)
			r.err = io.EOF
			continue
		case r.ctx.Err() != nil:
			r.finish(r.ctx.Err())
			r.err = &Error{Op: OpGet, Key: r.key, Where: r.s.where, Err: r.ctx.Err()}
			continue
		case len(p) == 0:
			return 0, nil
		case r.body == nil:
			if err := r.open(); err != nil {
				r.err = err
				continue
			}
		}
		if int64(len(p)) > r.end-r.at {
			p = p[:r.end-r.at]
		}
		if len(p) == 0 {
			continue
		}
		r.watch.Reset(r.s.Limits.TryTimeout)
		n, err := r.body.Read(p)
		r.watch.Stop()
		r.at += int64(n)
		if n > 0 {
			// What comes with an error comes again with the next read, if the object doesn't end here.
			r.failed = 0
			return n, nil
		}
		if err != nil {
			r.broke(err)
		}
	}
}

// broke is what happens when a connection ends before the object does.
func (r *reader) broke(err error) {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if slow, ok := context.Cause(r.conn).(errSlow); ok {
		err = slow
	}
	if r.ctx.Err() != nil {
		return // which the next round sees
	}
	r.failed++
	v := r.s.judge(err)
	if r.failed >= r.s.Limits.Tries || !v.again {
		r.finish(v.err)
		r.err = &Error{Op: OpGet, Key: r.key, Where: r.s.where, Tries: r.failed, Hint: v.hint, Err: v.err}
		return
	}
	r.s.Observer.Tried(OpGet, Retried, r.s.Now().Sub(r.began).Seconds(), r.at-r.first)
	r.drop()
	if err := r.s.Sleep(r.ctx, r.s.pause(r.failed)); err != nil {
		r.err = &Error{Op: OpGet, Key: r.key, Where: r.s.where, Tries: r.failed, Err: err}
	}
}

// finish tells the observer what came of the connection, and lets it go.
func (r *reader) finish(err error) {
	if r.body == nil {
		return
	}
	r.s.Observer.Tried(OpGet, outcomeOf(err), r.s.Now().Sub(r.began).Seconds(), r.at-r.first)
	r.drop()
}

func (r *reader) drop() {
	r.body.Close()
	r.cancel(nil)
	r.body = nil
}

// Close lets the connection go. Not to read to the end is no failure.
func (r *reader) Close() error {
	r.finish(nil)
	if r.err == nil {
		r.err = errors.New("the reader is closed")
	}
	return nil
}
