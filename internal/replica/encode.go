package replica

import (
	"bufio"
	"fmt"
	"io"

	"github.com/superfly/ltx"

	"github.com/persqld/persqld/internal/sqlite"
)

// encoding writes one LTX file. Pages come in ascending order; the lock page, which no database has anything on, is left out.
type encoding struct {
	out *bufio.Writer
	enc *ltx.Encoder
}

// newEncoding begins a file of the transactions first to last, the last of which was committed at a time in Unix ms and left so many pages. spill is a directory
// for the index of a very large one.
func newEncoding(w io.Writer, spill string, first, last ltx.TXID, ms int64, pages uint32) (*encoding, error) {
	e := &encoding{out: bufio.NewWriterSize(w, 128<<10)}
	enc, err := ltx.NewEncoder(e.out)
	if err != nil {
		return nil, err
	}
	enc.SetSpillDir(spill)
	e.enc = enc
	return e, enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: sqlite.PageSize, Commit: pages,
		MinTXID: first, MaxTXID: last, Timestamp: ms})
}

func (e *encoding) page(number uint32, image []byte) error {
	if number == ltx.LockPgno(sqlite.PageSize) {
		return nil
	}
	return e.enc.EncodePage(ltx.PageHeader{Pgno: number}, image)
}

// end completes the file; nothing of it counts if it wasn't called, or failed.
func (e *encoding) end() error {
	if err := e.enc.Close(); err != nil {
		return err
	}
	return e.out.Flush()
}

// encodeSnapshot writes a whole database, as a file of all its transactions.
func encodeSnapshot(w io.Writer, spill string, from io.ReaderAt, pages uint32, last ltx.TXID, ms int64) error {
	e, err := newEncoding(w, spill, 1, last, ms, pages)
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	defer e.enc.Cleanup() //nolint:errcheck // after a failure nothing of the file counts
	in := bufio.NewReaderSize(io.NewSectionReader(from, 0, int64(pages)*sqlite.PageSize), 1<<20)
	image := make([]byte, sqlite.PageSize)
	for number := uint32(1); number <= pages; number++ {
		if _, err := io.ReadFull(in, image); err != nil {
			return fmt.Errorf("encode snapshot: page %d of %d: %w", number, pages, err)
		}
		if err := e.page(number, image); err != nil {
			return fmt.Errorf("encode snapshot: %w", err)
		}
	}
	if err := e.end(); err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	return nil
}

// encodeChanges writes the pages that the transactions first to last changed, which each gives in ascending order.
func encodeChanges(w io.Writer, spill string, first, last ltx.TXID, ms int64, pages uint32, each func(func(number uint32, image []byte) error) error) error {
	e, err := newEncoding(w, spill, first, last, ms, pages)
	if err == nil {
		defer e.enc.Cleanup() //nolint:errcheck // as above
		err = each(e.page)
	}
	if err == nil {
		err = e.end()
	}
	if err != nil {
		return fmt.Errorf("encode changes: %w", err)
	}
	return nil
}
