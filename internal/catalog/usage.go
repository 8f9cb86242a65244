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

// KeepUsage makes counts durable that were taken at a moment, all or none; where that is zero there are more of them, and UsageKeptAt stays. charge says that what they cost is charged to the namespaces, of which it returns how much that was: of
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
		if at.IsZero() {
			return nil
		}
		return putSetting(ctx, tx, UsageKeptAt, kept)
	}, func(m *mirror) {
		if !at.IsZero() {
			m.settings[UsageKeptAt] = kept
		}
	})
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
	ctx                       context.Context
	tx                        *sql.Tx
	known, keepIt, sum, month *sql.Stmt
}

func (k *usageKeeper) prepare() (err error) {
	for to, text := range map[**sql.Stmt]string{
		&k.known: `SELECT filed_requests, filed_read, filed_written FROM usage
			WHERE namespace_id = ? AND day = ? AND database_id = ? AND token_id = ? AND series = ? AND free = ?`,
		&k.keepIt: `INSERT INTO usage (namespace_id, database_id, day, token_id, series, free, filed_requests, filed_read, filed_written, requests, rows_read, rows_written)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET filed_requests = excluded.filed_requests, filed_read = excluded.filed_read,
			filed_written = excluded.filed_written, requests = requests + excluded.requests, rows_read = rows_read + excluded.rows_read, rows_written = rows_written + excluded.rows_written`,
		&k.sum: `INSERT INTO usage_days (namespace_id, day, token_id, series, free, requests, rows_read, rows_written) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, rows_read = rows_read + excluded.rows_read, rows_written = rows_written + excluded.rows_written`,
		&k.month: `INSERT INTO usage_months (namespace_id, month, database_id, series, free, requests, rows_read, rows_written) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
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
	for _, s := range []*sql.Stmt{k.known, k.keepIt, k.sum, k.month} {
		if s != nil {
			s.Close()
		}
	}
}

// keep keeps one key's counts and returns how much they grew.
func (k *usageKeeper) keep(ch *UsageChange) (Work, error) {
	var was Work
	if ch.Filed != (Work{}) || ch.DatabaseID != "" {
		err := k.known.QueryRowContext(k.ctx, ch.NamespaceID, ch.Day, ch.DatabaseID, ch.TokenID, ch.Series, ch.Free).Scan(&was.Requests, &was.RowsRead, &was.RowsWritten)
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
	if _, err := k.sum.ExecContext(k.ctx, ch.NamespaceID, ch.Day, ch.TokenID, ch.Series, ch.Free, grown.Requests, grown.RowsRead, grown.RowsWritten); err != nil {
		return Work{}, err
	}
	_, err := k.month.ExecContext(k.ctx, ch.NamespaceID, MonthOf(ch.Day), ch.DatabaseID, ch.Series, ch.Free, grown.Requests, grown.RowsRead, grown.RowsWritten)
	return grown, err
}

// moveFiled has a database's totals known in the namespace that it moves to: the file tells them again, and they were charged to the former one. To the new
// one's usage they add nothing.
func moveFiled(ctx context.Context, tx *sql.Tx, id, from, to string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO usage (namespace_id, database_id, day, token_id, series, free, filed_requests, filed_read, filed_written, requests, rows_read, rows_written)
		SELECT ?3, database_id, day, token_id, series, free, filed_requests, filed_read, filed_written, -filed_requests, -filed_read, -filed_written
		FROM usage WHERE namespace_id = ?2 AND database_id = ?1 AND filed_requests + filed_read + filed_written > 0
		ON CONFLICT DO UPDATE SET requests = requests + filed_requests - excluded.filed_requests, rows_read = rows_read + filed_read - excluded.filed_read,
		rows_written = rows_written + filed_written - excluded.filed_written,
		filed_requests = excluded.filed_requests, filed_read = excluded.filed_read, filed_written = excluded.filed_written`, id, from, to)
	return err
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

// Usage is what was used: in all, and by the groups, in no order. It reads the file.
func (c *Catalog) Usage(ctx context.Context, q UsageQuery, series map[int64]Series) (total UsageRow, groups []*UsageRow, err error) {
	r := usageReader{ctx: ctx, c: c, q: q, series: series, rows: map[string]*UsageRow{}, stored: map[string]int64{}}
	switch {
	case q.GroupBy != "day" && q.GroupBy != "database" && q.GroupBy != "token":
		return total, nil, fmt.Errorf("usage by %q", q.GroupBy)
	case q.DatabaseID != "":
		err = r.ofDatabase()
	case q.GroupBy == "database":
		err = r.byDatabase()
	default:
		err = r.ofNamespace()
	}
	if err != nil {
		return total, nil, fmt.Errorf("read usage: %w", err)
	}
	return r.total, r.groups, nil
}

// usageReader adds up what the tables have.
type usageReader struct {
	ctx    context.Context
	c      *Catalog
	q      UsageQuery
	series map[int64]Series
	total  UsageRow
	rows   map[string]*UsageRow
	groups []*UsageRow
	stored map[string]int64 // the last sample, by database; "" for all of the namespace
}

func (r *usageReader) row(key string) *UsageRow {
	row := r.rows[key]
	if row == nil {
		row = &UsageRow{Key: key}
		r.rows[key] = row
		r.groups = append(r.groups, row)
	}
	return row
}

// work adds rows of a key, a series, whether it is free, and three counts.
func (r *usageReader) work(query string, args ...any) error {
	return each(r.ctx, r.c.db, query, func(rows *sql.Rows) error {
		var key string
		var id int64
		var free bool
		var w Work
		if err := rows.Scan(&key, &id, &free, &w.Requests, &w.RowsRead, &w.RowsWritten); err != nil {
			return err
		}
		r.row(key).add(w, r.series[id], free)
		r.total.add(w, r.series[id], free)
		return nil
	}, args...)
}

// storage adds rows of a day, a database, bytes and what they cost, the earlier days first.
func (r *usageReader) storage(query string, args ...any) error {
	if r.q.TokenID != "" {
		return nil // it is no token's
	}
	return each(r.ctx, r.c.db, query, func(rows *sql.Rows) error {
		var day, database string
		var bytes, nanos int64
		if err := rows.Scan(&day, &database, &bytes, &nanos); err != nil {
			return err
		}
		if key := map[string]string{"day": day, "database": database}[r.q.GroupBy]; key != "" {
			row := r.row(key)
			row.StorageBytes, row.StorageNanos = bytes, satAdd(row.StorageNanos, nanos)
		}
		r.total.StorageBytes += bytes - r.stored[database] // a database's last sample is what counts
		r.stored[database] = bytes
		r.total.StorageNanos = satAdd(r.total.StorageNanos, nanos)
		return nil
	}, args...)
}

// ofNamespace reads the sums without databases, of which there are few.
func (r *usageReader) ofNamespace() error {
	q := &r.q
	key := map[string]string{"day": "day", "token": "token_id"}[q.GroupBy]
	err := r.work(`SELECT `+key+`, series, free, sum(requests), sum(rows_read), sum(rows_written) FROM usage_days WHERE namespace_id = ?1 AND day BETWEEN ?2 AND ?3
		AND (?4 = '' OR token_id = ?4) GROUP BY 1, 2, 3`, q.NamespaceID, q.From, q.To, q.TokenID)
	if err != nil {
		return err
	}
	return r.storage(`SELECT day, '', bytes, nanos FROM storage_days WHERE namespace_id = ? AND day BETWEEN ? AND ? ORDER BY day`, q.NamespaceID, q.From, q.To)
}

// days is a table of the days of a query, for a look-up by each: (?1, ?2) are the first and the last.
const days = `WITH RECURSIVE days(d) AS (VALUES(?1) UNION ALL SELECT d + 1 FROM days WHERE d < ?2) `

// ofDatabase reads what is of one database.
func (r *usageReader) ofDatabase() error {
	q := &r.q
	key := map[string]string{"day": "day", "database": "database_id", "token": "token_id"}[q.GroupBy]
	err := r.work(days+`SELECT `+key+`, series, free, sum(requests + filed_requests), sum(rows_read + filed_read), sum(rows_written + filed_written)
		FROM days CROSS JOIN usage ON namespace_id = ?3 AND day = d AND database_id = ?4 WHERE (?5 = '' OR token_id = ?5) GROUP BY 1, 2, 3`, q.From, q.To, q.NamespaceID, q.DatabaseID, q.TokenID)
	if err != nil {
		return err
	}
	return r.storage(days+`SELECT day, database_id, bytes, nanos FROM days CROSS JOIN storage ON namespace_id = ?3 AND day = d AND database_id = ?4`,
		q.From, q.To, q.NamespaceID, q.DatabaseID)
}

// byDatabase reads whole months from the sums of months, and the rest day by day.
func (r *usageReader) byDatabase() error {
	q := &r.q
	// Whoever asks for all times is asked for those that have something: each month is a look-up.
	var first, end sql.NullInt64
	err := r.c.db.QueryRowContext(r.ctx, `SELECT min(first), max(last) FROM (SELECT min(month) AS first, max(month) AS last FROM usage_months WHERE namespace_id = ?1
		UNION ALL SELECT min(month), max(month) FROM storage_months WHERE namespace_id = ?1)`, q.NamespaceID).Scan(&first, &end)
	if err != nil || !first.Valid {
		return err
	}
	q.From, q.To = max(q.From, MonthStart(first.Int64)), min(q.To, MonthStart(end.Int64+1)-1)
	for day := q.From; day <= q.To; {
		month := MonthOf(day)
		last := MonthStart(month+1) - 1
		if today := Day(r.c.now()); month == MonthOf(today) {
			last = today // it isn't over
		}
		if day == MonthStart(month) && q.To >= last && q.TokenID == "" {
			err := r.work(`SELECT database_id, series, free, requests, rows_read, rows_written FROM usage_months WHERE namespace_id = ? AND month = ?`, q.NamespaceID, month)
			if err == nil {
				err = r.storage(`SELECT day, database_id, bytes, nanos FROM storage_months WHERE namespace_id = ? AND month = ?`, q.NamespaceID, month)
			}
			if err != nil {
				return err
			}
			day = MonthStart(month + 1)
			continue
		}
		err := r.work(`SELECT database_id, series, free, requests + filed_requests, rows_read + filed_read, rows_written + filed_written FROM usage
			WHERE namespace_id = ?1 AND day = ?2 AND (?3 = '' OR token_id = ?3)`, q.NamespaceID, day, q.TokenID)
		if err == nil {
			err = r.storage(`SELECT day, database_id, bytes, nanos FROM storage WHERE namespace_id = ? AND day = ?`, q.NamespaceID, day)
		}
		if err != nil {
			return err
		}
		day++
	}
	return nil
}

// MonthOf is the number of the month that a day is in, from the year 0 on.
func MonthOf(day int64) int64 {
	t := DayTime(day)
	return int64(t.Year())*12 + int64(t.Month()) - 1
}

// MonthStart is the first day of a month.
func MonthStart(month int64) int64 {
	return Day(time.Date(int(month/12), time.Month(month%12)+1, 1, 0, 0, 0, 0, time.UTC))
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

// LastSamples are the last samples of a namespace's databases, of this month or the one before, without what they cost, by id.
func (c *Catalog) LastSamples(ctx context.Context, namespaceID string) (map[string]Sample, error) {
	last := map[string]Sample{}
	month := MonthOf(Day(c.now()))
	err := each(ctx, c.db, `SELECT database_id, day, bytes, modified FROM storage_months WHERE namespace_id = ? AND month BETWEEN ? AND ? ORDER BY month`, func(rows *sql.Rows) error {
		s := Sample{NamespaceID: namespaceID}
		err := rows.Scan(&s.DatabaseID, &s.Day, &s.Bytes, &s.Modified)
		last[s.DatabaseID] = s
		return err
	}, namespaceID, month-1, month)
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
			r, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO storage (namespace_id, day, database_id, bytes, nanos) VALUES (?, ?, ?, ?, ?)`,
				s.NamespaceID, s.Day, s.DatabaseID, s.Bytes, s.Nanos)
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
			if _, err := tx.ExecContext(ctx, `INSERT INTO storage_months (namespace_id, month, database_id, day, bytes, nanos, modified) VALUES (?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT DO UPDATE SET day = excluded.day, bytes = excluded.bytes, nanos = nanos + excluded.nanos, modified = excluded.modified`,
				s.NamespaceID, MonthOf(s.Day), s.DatabaseID, s.Day, s.Bytes, s.Nanos, s.Modified); err != nil {
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
