package querylog

import (
	"context"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

const (
	// TableName is the virtual table's name.
	TableName = "_persql_meta_query_log"
	// TableColumns are its columns, as [sqlite.Table] has them: ts is Unix milliseconds; sql, error and token_id are
	// NULL where there is none.
	TableColumns = "id TEXT, ts INTEGER, sql TEXT, rows_read INTEGER, rows_written INTEGER, duration_ms REAL, status TEXT, error TEXT, token_id TEXT"
)

// tableWait is how long a statement that reads the table waits for the file; its actor waits with it.
const tableWait = 5 * time.Second

// Table is the virtual table through which statements of a database read its log: at most KeepRows entries, newest
// first. Each scan shows what is there when it begins.
func (l *Log) Table(database string) *sqlite.Table {
	return &sqlite.Table{
		Name:    TableName,
		Columns: TableColumns,
		Rows:    func() (sqlite.Rows, error) { return l.scan(database) },
	}
}

// scan takes what the file has of a database out of it at once, undecoded: it holds the file for a short time however
// slowly the statement goes on.
func (l *Log) scan(database string) (sqlite.Rows, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tableWait)
	defer cancel()
	s := &scan{text: l.opts.Text, left: l.opts.KeepRows, since: l.oldest()}
	entries := uint64(0)
	err := l.walk(ctx, database, func(src source) bool {
		s.sources = append(s.sources, src)
		if o, ok := src.(*opened); ok {
			entries += o.left
		}
		return entries < uint64(l.opts.KeepRows)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// scan is one scan of the table.
type scan struct {
	text    bool
	left    int   // entries it may still show
	since   int64 // Unix milliseconds
	sources []source
	item    item
	id      []byte
}

// Next moves to the next entry.
func (s *scan) Next() bool {
	for s.left > 0 && len(s.sources) > 0 {
		if !s.sources[0].next(&s.item) {
			s.sources = s.sources[1:]
			continue
		}
		s.left--
		if s.item.ts >= s.since {
			s.id = ID(s.item.id).Append(s.id[:0])
			return true
		}
	}
	return false
}

// Column is a column of TableColumns.
func (s *scan) Column(i int) sqlite.Value {
	switch i {
	case 0:
		return sqlite.Value{Kind: sqlite.Text, Bytes: s.id}
	case 1:
		return integer(s.item.ts)
	case 2:
		if s.text {
			return textOrNull(s.item.sql)
		}
	case 3:
		return integer(s.item.rowsRead)
	case 4:
		return integer(s.item.rowsWritten)
	case 5:
		return sqlite.Value{Kind: sqlite.Real, Float: float64(s.item.duration) / float64(time.Millisecond)}
	case 6:
		return sqlite.Value{Kind: sqlite.Text, Bytes: s.item.status}
	case 7:
		return textOrNull(s.item.err)
	case 8:
		return textOrNull(s.item.token)
	}
	return sqlite.Value{}
}

func integer(n int64) sqlite.Value { return sqlite.Value{Kind: sqlite.Integer, Int: n} }

func textOrNull(b []byte) sqlite.Value {
	if len(b) == 0 {
		return sqlite.Value{}
	}
	return sqlite.Value{Kind: sqlite.Text, Bytes: b}
}
