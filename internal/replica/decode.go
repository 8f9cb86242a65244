package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/superfly/ltx"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/sqlite"
)

// DamageError is a file of a replica that isn't what it should be, or that is gone.
type DamageError struct {
	Key  string
	What string
	gone bool
}

func (e *DamageError) Error() string { return fmt.Sprintf("%s of the replica %s", e.Key, e.What) }

func asDamage(err error) (damage *DamageError, ok bool) {
	ok = errors.As(err, &damage)
	return damage, ok
}

// maxFrame is more than a page takes in any form: the decoder makes room for what a frame says of itself, before it is known to be true.
const maxFrame = 2*sqlite.PageSize + 64

// source remembers why a file could not be read on: that says nothing about what is in it.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// decodeFile reads all of a file, calls page for each of its pages and checks it in the end: until then nothing of it may count. What is wrong with it is a
// *DamageError.
func decodeFile(r io.Reader, f file, page func(number uint32, image []byte) error) (ltx.Header, error) {
	src := &source{r: r}
	h, own, err := decodePages(bufio.NewReaderSize(src, 128<<10), f, page)
	switch {
	case err == nil, own:
		return h, err
	case src.err != nil:
		return h, src.err
	}
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it ends too early")
	}
	return h, &DamageError{Key: f.key, What: "is damaged: " + err.Error()}
}

// decodePages does that. own tells that the error is page's.
func decodePages(in *bufio.Reader, f file, page func(number uint32, image []byte) error) (h ltx.Header, own bool, err error) {
	dec := ltx.NewDecoder(in)
	dec.SetRetainPageIndex(false)
	if err := dec.DecodeHeader(); err != nil {
		return h, false, err
	}
	h = dec.Header()
	switch {
	case h.MinTXID != f.first || h.MaxTXID != f.last:
		return h, false, fmt.Errorf("it says that it has the transactions %s to %s", h.MinTXID, h.MaxTXID)
	case h.PageSize != sqlite.PageSize:
		return h, false, fmt.Errorf("its pages have %d bytes", h.PageSize)
	case h.Commit == 0:
		return h, false, errors.New("it leaves a database without a page")
	}
	lock := ltx.LockPgno(sqlite.PageSize)
	image := make([]byte, sqlite.PageSize)
	var before uint32
	for {
		head, err := in.Peek(ltx.PageHeaderSize + 4)
		if len(head) == ltx.PageHeaderSize+4 && head[4] == 0 && head[5] == byte(ltx.PageHeaderFlagSize) {
			if n := uint32(head[6])<<24 | uint32(head[7])<<16 | uint32(head[8])<<8 | uint32(head[9]); n > maxFrame {
				return h, false, fmt.Errorf("a page of it takes %d bytes", n)
			}
		} else if err != nil && err != io.EOF {
			return h, false, err
		}
		var ph ltx.PageHeader
		if err := dec.DecodePage(&ph, image); err == io.EOF {
			break
		} else if err != nil {
			return h, false, err
		}
		if ph.Pgno <= before || ph.Pgno > h.Commit || ph.Pgno == lock {
			return h, false, fmt.Errorf("page %d of %d comes after page %d", ph.Pgno, h.Commit, before)
		}
		if f.whole() && ph.Pgno != before+1 && (ph.Pgno != before+2 || before+1 != lock) {
			return h, false, fmt.Errorf("page %d is missing", before+1)
		}
		before = ph.Pgno
		if err := page(ph.Pgno, image); err != nil {
			return h, true, err
		}
	}
	if err := dec.Close(); err != nil {
		return h, false, err
	}
	if f.whole() && before != h.Commit && (before != h.Commit-1 || h.Commit != lock) {
		return h, false, fmt.Errorf("it has %d of %d pages", before, h.Commit)
	}
	return h, false, nil
}

// get opens a file of the replica. One that isn't there any more is a *DamageError.
func get(ctx context.Context, b bucket.Bucket, f file, length int64) (io.ReadCloser, error) {
	r, err := b.Get(ctx, f.key, 0, length)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DamageError{Key: f.key, What: "is gone", gone: true}
	}
	return r, err
}

// stamp is the time of a file's last commit in Unix ms as its header has it, which nothing vouches for.
func stamp(ctx context.Context, b bucket.Bucket, f file) (ms int64, err error) {
	r, err := get(ctx, b, f, ltx.HeaderSize)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	src := &source{r: r}
	h, _, err := ltx.DecodeHeader(src)
	if src.err != nil {
		return 0, src.err
	}
	if err == nil {
		err = h.Validate()
	}
	if err == nil && (h.MinTXID != f.first || h.MaxTXID != f.last) {
		err = fmt.Errorf("it says that it has the transactions %s to %s", h.MinTXID, h.MaxTXID)
	}
	if err != nil {
		return 0, &DamageError{Key: f.key, What: "is damaged: " + err.Error()}
	}
	return h.Timestamp, nil
}

// checked is stamp after all of the file was read and found right.
func checked(ctx context.Context, b bucket.Bucket, f file) (ms int64, err error) {
	r, err := get(ctx, b, f, -1)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	h, err := decodeFile(r, f, func(uint32, []byte) error { return nil })
	return h.Timestamp, err
}
