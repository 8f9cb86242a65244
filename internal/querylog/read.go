package querylog

import (
	"context"
	"fmt"
	"time"
)

// DefaultLimit is how many rows Read gives at most where the filter doesn't say.
const DefaultLimit = 100

// Filter says which entries Read gives. The zero value is the newest DefaultLimit.
type Filter struct {
	Limit   int    // at most so many, and never more than KeepRows; DefaultLimit if 0 or less
	TokenID string // of this token only; of all if ""
	SinceMS int64  // begun at this moment, in Unix milliseconds, or later
}

// Read gives the entries of a database that are kept and pass the filter, newest first, those that were appended a
// moment ago among them. Its errors are ctx's, ErrClosed, and trouble with the file.
func (l *Log) Read(ctx context.Context, database string, f Filter) ([]Row, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	limit = min(limit, l.opts.KeepRows)
	var rows []Row
	seen, since := 0, max(f.SinceMS, l.oldest())
	err := l.walk(ctx, database, func(src source) bool {
		var it item
		for seen < l.opts.KeepRows && len(rows) < limit && src.next(&it) {
			seen++
			if it.ts >= since && (f.TokenID == "" || string(it.token) == f.TokenID) {
				rows = append(rows, l.row(&it))
			}
		}
		return seen < l.opts.KeepRows && len(rows) < limit
	})
	if err != nil {
		return nil, fmt.Errorf("read query log: %w", err)
	}
	return rows, nil
}

func (l *Log) row(it *item) Row {
	r := Row{
		ID: ID(it.id), TS: it.ts, RowsRead: it.rowsRead, RowsWritten: it.rowsWritten, Duration: time.Duration(it.duration),
		Status: string(it.status), Error: string(it.err), TokenID: string(it.token),
	}
	if l.opts.Text {
		r.SQL = string(it.sql)
	}
	return r
}

// oldest is the moment, in Unix milliseconds, before which nothing is shown.
func (l *Log) oldest() int64 { return l.opts.Now().Add(-l.opts.KeepFor).UnixMilli() }

// walk shows what is kept of a database, newest first: memory, then chunk after chunk, until more returns false. All of
// it is one moment's. A source stays readable after walk; reading those of the file waits for a flush that is under way.
func (l *Log) walk(ctx context.Context, database string, more func(source) bool) error {
	if err := l.lock(ctx); err != nil {
		return err
	}
	defer l.unlock()
	if l.closed {
		return ErrClosed
	}
	if l.isForgotten(database) || !more(l.buffered(database)) || l.db == nil {
		return nil
	}
	err := l.walkFile(ctx, database, more)
	if err != nil && ctx.Err() == nil && l.faulty(err) {
		if aside := l.openAnew(err); aside != nil {
			l.failed("open query log", aside)
		}
		return nil // what was in the file is gone; the rest has been shown
	}
	return err
}

// openAnew sets a file aside that turned out to be damaged, and begins a new one.
func (l *Log) openAnew(cause error) error {
	if err := l.setAside(cause); err != nil {
		return err
	}
	return l.tryFile()
}

func (l *Log) walkFile(ctx context.Context, database string, more func(source) bool) error {
	rows, err := l.db.QueryContext(ctx, "SELECT entries, body FROM chunk WHERE database = ? ORDER BY last_id DESC", database)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var entries int
		var body []byte
		if err := rows.Scan(&entries, &body); err != nil {
			return err
		}
		o, err := openChunk(body)
		if err != nil {
			l.opts.Logger.Warn("entries of the query log can't be read", "entries", entries, "error", err)
			continue
		}
		if !more(o) {
			return nil
		}
	}
	return rows.Err()
}
