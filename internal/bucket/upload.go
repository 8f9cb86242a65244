package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	maxParts    = 10_000
	putRounds   = 3 // times that an upload in parts is begun, where the server forgot it in between
	abortLimit  = 10 * time.Second
	maxPutBytes = 5 << 40 // S3's
)

// errNoUpload says that the server doesn't know of an upload in parts: it was completed by a try whose answer got lost, or somebody tidied up.
var errNoUpload = errors.New("the upload in parts is gone")

// sourceError is what a body could not be read for. No other try would help.
type sourceError struct{ err error }

func (e sourceError) Error() string { return "read what is to be stored: " + e.err.Error() }
func (e sourceError) Unwrap() error { return e.err }

// Put sends a body with one request, or in parts if it is large. It is read once for its hash, which the server holds what it got against, and once for
// each try: nothing of it is kept in memory.
func (s *s3) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, modified time.Time) error {
	err := checkKey(key)
	if err == nil && (size < 0 || size > maxPutBytes) {
		err = fmt.Errorf("an object has 0 to %d bytes, not %d", int64(maxPutBytes), size)
	}
	if err != nil {
		return wrapped(OpPut, key, s.where, err)
	}
	start, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return s.unreadable(key, err)
	}
	o := minio.PutObjectOptions{
		UserMetadata:         map[string]string{timestampKey: modified.UTC().Format(time.RFC3339Nano)},
		DisableContentSha256: true, // not in the middle of the body: the hash of all of it is signed
	}
	if size > s.Limits.PutOnePiece {
		return s.putParts(ctx, key, body, start, size, o)
	}
	hash, err := hashOf(body, start, size)
	if err != nil {
		return s.unreadable(key, err)
	}
	return s.do(ctx, request{op: OpPut, key: key, bytes: size}, func(ctx context.Context) error {
		return sending(body, start, size, func(r io.Reader) error {
			info, err := s.client.PutObject(ctx, s.bucket, s.prefix+key, r, size, "", hash, o)
			if err == nil && info.ETag == "" {
				err = errNoETag
			}
			return err
		})
	})
}

func (s *s3) unreadable(key string, err error) error {
	return &Error{Op: OpPut, Key: key, Where: s.where, Hint: hintSource, Err: sourceError{err}}
}

// putParts uploads a large body part by part. The parts of an upload that nobody completes stay and cost, so it is ended where it fails.
func (s *s3) putParts(ctx context.Context, key string, body io.ReadSeeker, start, size int64, o minio.PutObjectOptions) (err error) {
	for range putRounds {
		var id string
		err = s.do(ctx, request{op: OpPut, key: key}, func(ctx context.Context) (err error) {
			id, err = s.client.NewMultipartUpload(ctx, s.bucket, s.prefix+key, o)
			return err
		})
		if err != nil {
			return err
		}
		if err = s.sendParts(ctx, key, id, body, start, size); err == nil {
			return nil
		}
		// The caller's context may be over, which is why it fails.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortLimit)
		_ = s.client.AbortMultipartUpload(end, s.bucket, s.prefix+key, id)
		cancel()
		if !errors.Is(err, errNoUpload) {
			return err
		}
	}
	return err
}

func (s *s3) sendParts(ctx context.Context, key, id string, body io.ReadSeeker, start, size int64) error {
	var parts []minio.CompletePart
	partSize := max(s.Limits.PartSize, (size+maxParts-1)/maxParts)
	for at := int64(0); at < size; at += partSize {
		n := min(partSize, size-at)
		hash, err := hashOf(body, start+at, n)
		if err != nil {
			return s.unreadable(key, err)
		}
		number := len(parts) + 1
		err = s.do(ctx, request{op: OpPut, key: key, bytes: n}, func(ctx context.Context) error {
			return sending(body, start+at, n, func(r io.Reader) error {
				part, err := s.client.PutObjectPart(ctx, s.bucket, s.prefix+key, id, number, r, n,
					minio.PutObjectPartOptions{Sha256Hex: hash, DisableContentSha256: true})
				if err == nil && part.ETag == "" {
					err = errNoETag
				}
				if err == nil {
					parts = append(parts, minio.CompletePart{PartNumber: number, ETag: part.ETag})
				}
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	return s.do(ctx, request{op: OpPut, key: key}, func(ctx context.Context) error {
		_, err := s.client.CompleteMultipartUpload(ctx, s.bucket, s.prefix+key, id, parts, minio.PutObjectOptions{})
		return err
	})
}

// hashOf reads a piece of a body for its SHA-256, in hex.
func hashOf(body io.ReadSeeker, start, size int64) (string, error) {
	if _, err := body.Seek(start, io.SeekStart); err != nil {
		return "", err
	}
	h := sha256.New()
	if n, err := io.Copy(h, io.LimitReader(body, size)); err != nil {
		return "", err
	} else if n < size {
		return "", fmt.Errorf("it ends after %d bytes of %d: %w", n, size, io.ErrUnexpectedEOF)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sending has a piece of a body sent. The connection may go on to read it when the request has failed already; it gets nothing then, because the next try,
// or the body's owner, has it.
func sending(body io.ReadSeeker, start, size int64, send func(io.Reader) error) error {
	p := &piece{body: body, start: start, size: size}
	err := send(p)
	if own := p.revoke(); own != nil {
		return sourceError{own}
	}
	return err
}

// piece is a part of a body that one try reads. It has a Seek because the client rewinds what it sends.
type piece struct {
	mu          sync.Mutex
	body        io.ReadSeeker
	start, size int64
	at          int64 // relative to start
	placed      bool  // the body stands at it
	err         error // of the body
	revoked     bool
}

func (p *piece) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.revoked:
		return 0, errors.New("the try is over")
	case p.err != nil:
		return 0, p.err
	case p.at >= p.size:
		return 0, io.EOF
	}
	if !p.placed {
		if _, p.err = p.body.Seek(p.start+p.at, io.SeekStart); p.err != nil {
			return 0, p.err
		}
		p.placed = true
	}
	n, err := p.body.Read(b[:min(int64(len(b)), p.size-p.at)])
	p.at += int64(n)
	switch {
	case err == nil || errors.Is(err, io.EOF) && p.at >= p.size:
		return n, nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	p.err = err
	return n, err
}

func (p *piece) Seek(offset int64, whence int) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += p.at
	case io.SeekEnd:
		offset += p.size
	}
	if offset < 0 || offset > p.size {
		return 0, errors.New("seek outside of the piece")
	}
	p.at, p.placed = offset, false
	return offset, nil
}

// revoke ends the reading, and says what the body failed with.
func (p *piece) revoke() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revoked = true
	return p.err
}
