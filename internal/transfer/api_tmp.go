package transfer

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/persqld/persqld/internal/sqlite"
)

// Report counts what a Load did, for the meter.
type Report struct {
	Statements  int64 // statements that ran; BEGIN, COMMIT and skipped pragmas are none
	RowsRead    int64 // as sqlite.Counts estimates them
	RowsWritten int64
}

var errTmp = errors.New("not yet")

// Dump writes the database as SQL text in the shape of the sqlite3 shell's .dump, so that [Load] and the shell read it
// back to the same schema and the same rows, bit for bit. It returns the number of rows written out. The file is
// opened read-only and must not change meanwhile. Memory is bounded by one row: the text goes to w as it is made.
//
// Left out are the server's own tables (sqlite_persql_…, _persql_…), what ANALYZE noted about them, and sqlite_stat4.
func Dump(ctx context.Context, w io.Writer, path string) (rows int64, err error) { return 0, errTmp }

// Load runs SQL text on the scratch database at path, in one transaction: all of it or nothing. The text is read in
// pieces; memory is bounded by its longest statement, whose length has no limit but SQLite's 1,000,000,000 bytes.
// Of the limits, Length, TriggerDepth and Pages are the database's own.
func Load(ctx context.Context, path string, text io.Reader, limits sqlite.Limits) (Report, error) {
	return Report{}, errTmp
}

// Adopt makes a stranger's SQLite file at path one of ours, in place: checked, without system tables, UTF-8, pages of
// 4,096 bytes, WAL mode. It needs as much room again beside the file while it works (names that begin with path).
// Of the limits, Pages and Length count.
func Adopt(ctx context.Context, path string, limits sqlite.Limits) error { return errTmp }

// Strip makes the copy of a live database at path, in place, a file that may leave: the server's own tables are gone
// with every byte of theirs, and its journal mode is DELETE, so that any tool opens it without a -wal. It needs as much
// room again beside the file while it works (names that begin with path).
func Strip(ctx context.Context, path string) error { return errTmp }

// CSVOptions says how to read CSV. The zero value of a limit is the default beside it.
type CSVOptions struct {
	Header   bool  // the first record names the columns; otherwise they are column1, column2, …
	MaxRows  int64 // records without the header; 100,000
	MaxBytes int64 // of the whole text; 10,000,000
}

// Column is a column of a CSV text.
type Column struct {
	Name string      // not empty, not twice (compared as SQLite does, without case)
	Type sqlite.Kind // Integer, Real or Text: what all values of the first 200 rows are
}

// Table is a CSV text that is being read.
type Table struct {
	Columns []Column
}

// ReadCSV reads the beginning of a CSV text and tells its columns. The rest is read by Rows.
func ReadCSV(r io.Reader, opt CSVOptions) (*Table, error) { return nil, errTmp }

// Rows reads the rows, once. The slice and its bytes are valid until the next. An error, an *Error with the line in it, is the last.
func (t *Table) Rows() iter.Seq2[[]sqlite.Param, error] { return nil }

// Quote makes any name an identifier of SQL.
func Quote(name string) string { return name }
