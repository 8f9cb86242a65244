package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Series are prices that hold together, in nano-dollars.
type Series struct {
	ID                           int64
	Request, RowRead, RowWritten int64
}

// Cost is what work costs, in nano-dollars; the greatest number where it is more than that.
func (s Series) Cost(w Work) int64 {
	return satAdd(satAdd(satMul(w.Requests, s.Request), satMul(w.RowsRead, s.RowRead)), satMul(w.RowsWritten, s.RowWritten))
}

func satMul(a, b int64) int64 {
	if a != 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}

func satAdd(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// Work is what is counted of requests.
type Work struct{ Requests, RowsRead, RowsWritten int64 }

// Add adds other work.
func (w *Work) Add(o Work) {
	w.Requests += o.Requests
	w.RowsRead += o.RowsRead
	w.RowsWritten += o.RowsWritten
}

// UsageKey says what a count is of.
type UsageKey struct {
	NamespaceID string
	DatabaseID  string // "" for a call that concerns none
	TokenID     string
	Day         int64 // days since 1970-01-01, UTC
	Series      int64
	Free        bool // counted, never charged
}

// UsageChange is what there is to be kept of a key.
type UsageChange struct {
	UsageKey
	Filed Work // the running totals of the database's own file; a part of it that isn't greater than what is known changes nothing
	Added Work // what was counted elsewhere, since the last change
}

// Day is the day of a moment, in days since 1970-01-01, UTC.
func Day(t time.Time) int64 { return int64(math.Floor(float64(t.Unix()) / 86400)) }

// DayTime is when a day begins.
func DayTime(day int64) time.Time { return time.Unix(day*86400, 0).UTC() }

// BeginSeries is the series of these prices: the last one if it has them and anew is false, else a new one.
func (c *Catalog) BeginSeries(ctx context.Context, prices Series, anew bool) (Series, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	err := c.commit(ctx, func(tx *sql.Tx) error {
		var last Series
		err := tx.QueryRowContext(ctx, `SELECT id, request, row_read, row_written FROM series ORDER BY id DESC LIMIT 1`).Scan(&last.ID, &last.Request, &last.RowRead, &last.RowWritten)
		if err != nil && err != sql.ErrNoRows {
			return err
		}
		prices.ID = last.ID
		if err == nil && !anew && last == prices {
			return nil
		}
		prices.ID++
		_, err = tx.ExecContext(ctx, `INSERT INTO series (id, request, row_read, row_written, began_at) VALUES (?, ?, ?, ?, ?)`,
			prices.ID, prices.Request, prices.RowRead, prices.RowWritten, c.now().UnixMilli())
		return err
	}, func(*mirror) {})
	if err != nil {
		return Series{}, fmt.Errorf("begin a series of prices: %w", err)
	}
	return prices, nil
}

// EverySeries are all series by their ids.
func (c *Catalog) EverySeries(ctx context.Context) (map[int64]Series, error) {
	all := map[int64]Series{}
	err := each(ctx, c.db, `SELECT id, request, row_read, row_written FROM series`, func(rows *sql.Rows) error {
		var s Series
		err := rows.Scan(&s.ID, &s.Request, &s.RowRead, &s.RowWritten)
		all[s.ID] = s
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read prices: %w", err)
	}
	return all, nil
}

// UsageKeptAt is the setting that says when usage was last kept, in Unix milliseconds: what databases' files have counted since may be missing here. It is ""
// after a stop in order.
const UsageKeptAt = "billing_kept_at"

// KeepUsage makes counts durable that were taken at a moment, all or none. charge says that what they cost is charged to the namespaces, of which it returns how much that was: of
// counts that were known already nothing.
func (c *Catalog) KeepUsage(ctx context.Context, changes []UsageChange, series map[int64]Series, charge bool, at time.Time) (charged map[string]int64, err error) {
	charged = map[string]int64{}
	kept := strconv.FormatInt(at.UnixMilli(), 10)
	c.changing.Lock()
	defer c.changing.Unlock()
	err = c.commit(ctx, func(tx *sql.Tx) error {
		k := usageKeeper{ctx: ctx, tx: tx}
		if err := k.prepare(); err != nil {
			return err
		}
		defer k.close()
		costs := map[chargeKey]int64{}
		for i := range changes {
			ch := &changes[i]
			added, err := k.keep(ch)
			if err != nil {
				return err
			}
			if !ch.Free && charge {
				at := chargeKey{ch.NamespaceID, ch.Day}
				costs[at] = satAdd(costs[at], series[ch.Series].Cost(added))
			}
		}
		for at, nanos := range costs {
			if nanos == 0 {
				continue
			}
			if err := addCharge(ctx, tx, at.namespaceID, at.day, nanos); err != nil {
				return err
			}
			charged[at.namespaceID] += nanos
		}
		return putSetting(ctx, tx, UsageKeptAt, kept)
	}, func(m *mirror) { m.settings[UsageKeptAt] = kept })
	if err != nil {
		return nil, fmt.Errorf("keep usage: %w", err)
	}
	return charged, nil
}

type chargeKey struct {
	namespaceID string
	day         int64
}

func addCharge(ctx context.Context, tx *sql.Tx, namespaceID string, day, nanos int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO charges (namespace_id, day, nanos) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET nanos = nanos + excluded.nanos`,
		namespaceID, day, nanos)
	return err
}

// usageKeeper has the statements of KeepUsage.
type usageKeeper struct {
	ctx                context.Context
	tx                 *sql.Tx
	known, keepIt, sum *sql.Stmt
}

func (k *usageKeeper) prepare() (err error) {
	for to, text := range map[**sql.Stmt]string{
		&k.known: `SELECT filed_requests, filed_read, filed_written FROM usage
			WHERE namespace_id = ? AND database_id = ? AND day = ? AND token_id = ? AND series = ? AND free = ?`,
		&k.keepIt: `INSERT INTO usage (namespace_id, database_id, day, token_id, series, free, filed_requests, filed_read, filed_written, requests, rows_read, rows_written)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET filed_requests = excluded.filed_requests, filed_read = excluded.filed_read,
			filed_written = excluded.filed_written, requests = requests + excluded.requests, rows_read = rows_read + excluded.rows_read, rows_written = rows_written + excluded.rows_written`,
		&k.sum: `INSERT INTO usage_days (namespace_id, day, token_id, series, free, requests, rows_read, rows_written) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, rows_read = rows_read + excluded.rows_read, rows_written = rows_written + excluded.rows_written`,
	} {
		if *to, err = k.tx.PrepareContext(k.ctx, text); err != nil {
			k.close()
			return err
		}
	}
	return nil
}

func (k *usageKeeper) close() {
	for _, s := range []*sql.Stmt{k.known, k.keepIt, k.sum} {
		if s != nil {
			s.Close()
		}
	}
}

// keep keeps one key's counts and returns how much they grew.
func (k *usageKeeper) keep(ch *UsageChange) (Work, error) {
	var was Work
	if ch.Filed != (Work{}) || ch.DatabaseID != "" {
		err := k.known.QueryRowContext(k.ctx, ch.NamespaceID, ch.DatabaseID, ch.Day, ch.TokenID, ch.Series, ch.Free).Scan(&was.Requests, &was.RowsRead, &was.RowsWritten)
		if err != nil && err != sql.ErrNoRows {
			return Work{}, err
		}
	}
	is := Work{max(was.Requests, ch.Filed.Requests), max(was.RowsRead, ch.Filed.RowsRead), max(was.RowsWritten, ch.Filed.RowsWritten)}
	grown := Work{is.Requests - was.Requests, is.RowsRead - was.RowsRead, is.RowsWritten - was.RowsWritten}
	grown.Add(ch.Added)
	if grown == (Work{}) {
		return grown, nil
	}
	if _, err := k.keepIt.ExecContext(k.ctx, ch.NamespaceID, ch.DatabaseID, ch.Day, ch.TokenID, ch.Series, ch.Free,
		is.Requests, is.RowsRead, is.RowsWritten, ch.Added.Requests, ch.Added.RowsRead, ch.Added.RowsWritten); err != nil {
		return Work{}, err
	}
	_, err := k.sum.ExecContext(k.ctx, ch.NamespaceID, ch.Day, ch.TokenID, ch.Series, ch.Free, grown.Requests, grown.RowsRead, grown.RowsWritten)
	return grown, err
}

// UsageQuery says what usage is asked for.
type UsageQuery struct {
	NamespaceID string
	DatabaseID  string // of this one only; "" for all of the namespace
	TokenID     string // likewise
	From, To    int64  // days, both included
	GroupBy     string // "day", "database" or "token"
}

// UsageRow is what was used of one group of a query.
type UsageRow struct {
	Key string // a day as a number, or an id
	Work
	StorageBytes                                        int64 // of the last day in the span that has a sample, of each database
	RequestNanos, ReadNanos, WrittenNanos, StorageNanos int64
}

// Nanos is what all of it cost.
func (r *UsageRow) Nanos() int64 {
	return satAdd(satAdd(r.RequestNanos, r.ReadNanos), satAdd(r.WrittenNanos, r.StorageNanos))
}

func (r *UsageRow) add(w Work, s Series, free bool) {
	r.Work.Add(w)
	if !free {
		r.RequestNanos = satAdd(r.RequestNanos, satMul(w.Requests, s.Request))
		r.ReadNanos = satAdd(r.ReadNanos, satMul(w.RowsRead, s.RowRead))
		r.WrittenNanos = satAdd(r.WrittenNanos, satMul(w.RowsWritten, s.RowWritten))
	}
}

// Usage is what was used: in all, and by the groups, in the order of their keys. It reads the file.
func (c *Catalog) Usage(ctx context.Context, q UsageQuery, series map[int64]Series) (total UsageRow, groups []*UsageRow, err error) {
	byKey := map[string]*UsageRow{}
	row := func(key string) *UsageRow {
		r := byKey[key]
		if r == nil {
			r = &UsageRow{Key: key}
			byKey[key] = r
			groups = append(groups, r)
		}
		return r
	}
	key := map[string]string{"day": "day", "database": "database_id", "token": "token_id"}[q.GroupBy]
	if key == "" {
		return total, nil, fmt.Errorf("usage by %q", q.GroupBy)
	}
	// By day and token the sums without databases are enough, of which there are few.
	from := `SELECT ` + key + `, series, free, sum(requests), sum(rows_read), sum(rows_written) FROM usage_days WHERE namespace_id = ?1 AND day BETWEEN ?2 AND ?3 AND (?4 = '' OR token_id = ?4) AND ?5 = ''`
	if q.GroupBy == "database" || q.DatabaseID != "" {
		from = `SELECT ` + key + `, series, free, sum(requests + filed_requests), sum(rows_read + filed_read), sum(rows_written + filed_written) FROM usage
			WHERE namespace_id = ?1 AND day BETWEEN ?2 AND ?3 AND (?4 = '' OR token_id = ?4) AND (?5 = '' OR database_id = ?5)`
		if q.DatabaseID != "" {
			from += ` AND database_id = ?5` // by the key
		}
	}
	err = each(ctx, c.db, from+` GROUP BY 1, 2, 3 ORDER BY 1`, func(rows *sql.Rows) error {
		var k string
		var id int64
		var free bool
		var w Work
		if err := rows.Scan(&k, &id, &free, &w.Requests, &w.RowsRead, &w.RowsWritten); err != nil {
			return err
		}
		row(k).add(w, series[id], free)
		total.add(w, series[id], free)
		return nil
	}, q.NamespaceID, q.From, q.To, q.TokenID, q.DatabaseID)
	if err != nil {
		return total, nil, fmt.Errorf("read usage: %w", err)
	}
	if q.TokenID == "" {
		if err := c.storageUsage(ctx, q, &total, row); err != nil {
			return total, nil, fmt.Errorf("read storage: %w", err)
		}
	}
	return total, groups, nil
}

// storageUsage adds what was stored: of each database, the sample of its last day in the span.
func (c *Catalog) storageUsage(ctx context.Context, q UsageQuery, total *UsageRow, row func(string) *UsageRow) error {
	// max(day) picks the row that bytes are of (a promise of SQLite's for bare columns).
	text := `SELECT day, bytes, nanos FROM storage_days WHERE namespace_id = ?1 AND day BETWEEN ?2 AND ?3 AND ?4 = '' ORDER BY day`
	switch {
	case q.GroupBy == "database" && q.DatabaseID == "":
		text = `SELECT database_id, bytes, sum(nanos), max(day) FROM storage WHERE namespace_id = ?1 AND day BETWEEN ?2 AND ?3 AND ?4 = '' GROUP BY database_id`
	case q.GroupBy == "database":
		text = `SELECT database_id, bytes, sum(nanos), max(day) FROM storage WHERE namespace_id = ?1 AND day BETWEEN ?2 AND ?3 AND database_id = ?4 GROUP BY database_id`
	case q.DatabaseID != "":
		text = `SELECT day, bytes, nanos FROM storage WHERE namespace_id = ?1 AND database_id = ?4 AND day BETWEEN ?2 AND ?3 ORDER BY day`
	}
	return each(ctx, c.db, text, func(rows *sql.Rows) error {
		var key string
		var bytes, nanos, day int64
		to := []any{&key, &bytes, &nanos, &day}
		if q.GroupBy != "database" {
			to = to[:3]
		}
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if q.GroupBy != "token" {
			r := row(key)
			r.StorageBytes, r.StorageNanos = bytes, nanos
		}
		if q.GroupBy == "database" {
			total.StorageBytes += bytes
		} else {
			total.StorageBytes = bytes // the last day's stays
		}
		total.StorageNanos = satAdd(total.StorageNanos, nanos)
		return nil
	}, q.NamespaceID, q.From, q.To, q.DatabaseID)
}

// Sample is what a database stored on a day.
type Sample struct {
	NamespaceID string
	DatabaseID  string
	Day         int64
	Bytes       int64
	Nanos       int64
	Modified    int64 // what its files were, see the store
}

// LastSamples are the last samples of each database of a namespace, by its id.
func (c *Catalog) LastSamples(ctx context.Context, namespaceID string) (map[string]Sample, error) {
	last := map[string]Sample{}
	err := each(ctx, c.db, `SELECT database_id, max(day), bytes, nanos, modified FROM storage WHERE namespace_id = ? GROUP BY database_id`, func(rows *sql.Rows) error {
		s := Sample{NamespaceID: namespaceID}
		err := rows.Scan(&s.DatabaseID, &s.Day, &s.Bytes, &s.Nanos, &s.Modified)
		last[s.DatabaseID] = s
		return err
	}, namespaceID)
	if err != nil {
		return nil, fmt.Errorf("read samples: %w", err)
	}
	return last, nil
}

// KeepSamples makes samples durable, all or none; of a database and day the first one stands. charge is as for KeepUsage.
func (c *Catalog) KeepSamples(ctx context.Context, samples []Sample, charge bool) (charged map[string]int64, err error) {
	charged = map[string]int64{}
	c.changing.Lock()
	defer c.changing.Unlock()
	err = c.commit(ctx, func(tx *sql.Tx) error {
		for _, s := range samples {
			r, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO storage (namespace_id, database_id, day, bytes, nanos, modified) VALUES (?, ?, ?, ?, ?, ?)`,
				s.NamespaceID, s.DatabaseID, s.Day, s.Bytes, s.Nanos, s.Modified)
			if err != nil {
				return err
			}
			if n, err := r.RowsAffected(); err != nil || n == 0 {
				if err != nil {
					return err
				}
				continue
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO storage_days (namespace_id, day, bytes, nanos) VALUES (?, ?, ?, ?)
				ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes, nanos = nanos + excluded.nanos`, s.NamespaceID, s.Day, s.Bytes, s.Nanos); err != nil {
				return err
			}
			if charge && s.Nanos != 0 {
				if err := addCharge(ctx, tx, s.NamespaceID, s.Day, s.Nanos); err != nil {
					return err
				}
				charged[s.NamespaceID] += s.Nanos
			}
		}
		return nil
	}, func(*mirror) {})
	if err != nil {
		return nil, fmt.Errorf("keep samples: %w", err)
	}
	return charged, nil
}
