package billing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

func isGone(err error) bool { return errors.Is(err, catalog.ErrNamespaceNotFound) }

// The groups of a report.
const (
	ByDay      = "day"
	ByDatabase = "database"
	ByToken    = "token"
	ByMeter    = "meter"
)

// Used is a line of a report.
type Used struct {
	Key          string // a day as YYYY-MM-DD, an id, or the name of a meter
	Requests     int64
	RowsRead     int64
	RowsWritten  int64
	StorageBytes int64
	Nanos        int64
}

// Report is what a namespace used.
type Report struct {
	Total  Used
	Series []Used
}

// Usage reports what was used on some days, both included, up to this moment.
func (b *Books) Usage(ctx context.Context, q catalog.UsageQuery) (Report, error) {
	if err := b.Flush(ctx); err != nil {
		return Report{}, err
	}
	byMeter := q.GroupBy == ByMeter
	if byMeter {
		q.GroupBy = ByDay
	}
	total, groups, err := b.cat.Usage(ctx, q, b.prices)
	if err != nil {
		return Report{}, err
	}
	r := Report{Total: used(total), Series: []Used{}}
	if byMeter {
		r.Series = append(r.Series,
			Used{Key: "requests", Requests: total.Requests, Nanos: total.RequestNanos},
			Used{Key: "rowsRead", RowsRead: total.RowsRead, Nanos: total.ReadNanos},
			Used{Key: "rowsWritten", RowsWritten: total.RowsWritten, Nanos: total.WrittenNanos},
			Used{Key: "storage", StorageBytes: total.StorageBytes, Nanos: total.StorageNanos})
		return r, nil
	}
	for _, g := range groups {
		line := used(*g)
		if q.GroupBy == ByDay {
			day, err := strconv.ParseInt(g.Key, 10, 64)
			if err != nil {
				return Report{}, fmt.Errorf("read usage: the day %q", g.Key)
			}
			line.Key = catalog.DayTime(day).Format(time.DateOnly)
		}
		r.Series = append(r.Series, line)
	}
	slices.SortFunc(r.Series, func(a, b Used) int { return cmp.Compare(a.Key, b.Key) })
	return r, nil
}

func used(r catalog.UsageRow) Used {
	return Used{Key: r.Key, Requests: r.Requests, RowsRead: r.RowsRead, RowsWritten: r.RowsWritten, StorageBytes: r.StorageBytes, Nanos: r.Nanos()}
}

// Standing is a namespace's balance, and for how long it lasts.
type Standing struct {
	Balance    int64 // nano-dollars; where nothing is prepaid it is 0 and says nothing
	BurnPerDay int64 // nano-dollars a day, of the last seven days
	RunwayDays float64
	Burns      bool // else nothing was spent, and the runway has no end
}

// burnDays is over how many days what is spent a day is averaged.
const burnDays = 7

// Standing is a namespace's standing.
func (b *Books) Standing(ctx context.Context, ns catalog.Namespace) (Standing, error) {
	a, err := b.Account(ctx, ns.ID)
	if err != nil {
		return Standing{}, err
	}
	if err := b.Flush(ctx); err != nil {
		return Standing{}, err
	}
	now := b.opt.Now()
	today := catalog.Day(now)
	total, _, err := b.cat.Usage(ctx, catalog.UsageQuery{NamespaceID: ns.ID, From: today - burnDays + 1, To: today, GroupBy: ByDay}, b.prices)
	if err != nil {
		return Standing{}, err
	}
	// The days that are over, and the part of today that is; of a younger namespace those since it was made, and one day at least.
	days := now.Sub(catalog.DayTime(today-burnDays+1)).Hours() / 24
	days = max(1, min(days, now.Sub(ns.CreatedAt).Hours()/24))
	s := Standing{Balance: a.balance.Load(), BurnPerDay: int64(float64(total.Nanos()) / days)}
	if s.Burns = s.BurnPerDay > 0; s.Burns {
		s.RunwayDays = max(0, float64(s.Balance)/float64(s.BurnPerDay))
	}
	return s, nil
}

// Ledger lists a namespace's entries, the newest first, and what was charged and isn't an entry yet: the running debit of today.
func (b *Books) Ledger(ctx context.Context, namespaceID, before string, limit int) (entries, running []catalog.Entry, balance int64, err error) {
	a, err := b.Account(ctx, namespaceID)
	if err != nil {
		return nil, nil, 0, err
	}
	if err := b.Flush(ctx); err != nil {
		return nil, nil, 0, err
	}
	if entries, err = b.cat.Ledger(ctx, namespaceID, before, limit); err != nil {
		return nil, nil, 0, err
	}
	if running, err = b.cat.OpenCharges(ctx, namespaceID); err != nil {
		return nil, nil, 0, err
	}
	return entries, running, a.balance.Load(), nil
}

// Caps are a namespace's caps.
func (b *Books) Caps(ctx context.Context, namespaceID string) ([]catalog.Cap, error) {
	return b.cat.Caps(ctx, namespaceID)
}

// SetCaps replaces a namespace's caps. They hold for the next request; what was spent in the running day and month counts.
func (b *Books) SetCaps(ctx context.Context, namespaceID string, caps []catalog.Cap) error {
	a, err := b.Account(ctx, namespaceID)
	if err != nil {
		return err
	}
	b.flushing.Lock() // or counts that are being written would be missed
	defer b.flushing.Unlock()
	if err := b.cat.SetCaps(ctx, namespaceID, caps); err != nil {
		return err
	}
	// They are set, whoever leaves now.
	if err = a.loadCaps(context.WithoutCancel(ctx)); err != nil {
		a.stale.Store(true)
	}
	return err
}
