package billing_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
)

// TestUsageOfSpans compares every span and grouping with plain sums over what was counted.
func TestUsageOfSpans(t *testing.T) {
	type count struct {
		day             int64
		database, token string
		free            bool
		work            catalog.Work
	}
	o := newOffice(t, billing.Options{})
	o.clock.set(time.Date(2026, 3, 17, 12, 0, 0, 0, time.UTC))
	today := catalog.Day(o.clock.Now())
	first := catalog.Day(time.Date(2025, 12, 29, 0, 0, 0, 0, time.UTC))
	r := rand.New(rand.NewPCG(1, 2))
	var all []count
	var changes []catalog.UsageChange
	stored := map[int64]map[string]int64{}
	var samples []catalog.Sample
	for range 3000 {
		c := count{day: first + r.Int64N(today-first+1), database: fmt.Sprint("db_", r.IntN(5)), token: fmt.Sprint("tok_", r.IntN(3)), free: r.IntN(4) == 0,
			work: catalog.Work{Requests: r.Int64N(5), RowsRead: r.Int64N(100), RowsWritten: r.Int64N(10)}}
		all = append(all, c)
		changes = append(changes, catalog.UsageChange{UsageKey: catalog.UsageKey{NamespaceID: o.ns.ID, DatabaseID: c.database, TokenID: c.token, Day: c.day, Series: o.Series(), Free: c.free}, Added: c.work})
	}
	for day := first; day <= today; day++ {
		stored[day] = map[string]int64{}
		for i := range 5 {
			if i == 3 && day > first+20 || i == 4 && day%2 == 0 {
				continue // it was deleted, or its sample failed
			}
			bytes := r.Int64N(10_000)
			stored[day][fmt.Sprint("db_", i)] = bytes
			samples = append(samples, catalog.Sample{NamespaceID: o.ns.ID, DatabaseID: fmt.Sprint("db_", i), Day: day, Bytes: bytes, Nanos: bytes / 10})
		}
	}
	if _, err := o.cat.KeepUsage(t.Context(), changes, nil, false, o.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := o.cat.KeepSamples(t.Context(), samples, false); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		q := catalog.UsageQuery{NamespaceID: o.ns.ID, From: first + r.Int64N(today-first+1), GroupBy: []string{"day", "database", "token"}[r.IntN(3)]}
		q.To = q.From + r.Int64N(today-q.From+1)
		if i%3 == 0 { // whole months, and what is left of them
			q.From = catalog.Day(time.Date(2026, time.Month(1+r.IntN(3)), 1, 0, 0, 0, 0, time.UTC))
			q.To = today + r.Int64N(3)
		}
		if r.IntN(3) == 0 {
			q.DatabaseID = fmt.Sprint("db_", r.IntN(5))
		}
		if r.IntN(4) == 0 {
			q.TokenID = fmt.Sprint("tok_", r.IntN(3))
		}
		want := map[string]*billing.Used{}
		total := &billing.Used{}
		line := func(key string) *billing.Used {
			if want[key] == nil {
				want[key] = &billing.Used{Key: key}
			}
			return want[key]
		}
		for _, c := range all {
			if c.day < q.From || c.day > q.To || q.DatabaseID != "" && c.database != q.DatabaseID || q.TokenID != "" && c.token != q.TokenID || c.work == (catalog.Work{}) {
				continue
			}
			key := map[string]string{"day": catalog.DayTime(c.day).Format(time.DateOnly), "database": c.database, "token": c.token}[q.GroupBy]
			for _, u := range []*billing.Used{line(key), total} {
				u.Requests += c.work.Requests
				u.RowsRead += c.work.RowsRead
				u.RowsWritten += c.work.RowsWritten
				if !c.free {
					u.Nanos += o.Cost(c.work)
				}
			}
		}
		last := map[string]int64{}
		for day := q.From; day <= q.To && q.TokenID == ""; day++ {
			var sum int64
			for db, bytes := range stored[day] {
				if q.DatabaseID != "" && db != q.DatabaseID {
					continue
				}
				last[db] = bytes
				sum += bytes
				total.Nanos += bytes / 10
				if q.GroupBy == "database" {
					line(db).StorageBytes = bytes
					line(db).Nanos += bytes / 10
				}
				if q.GroupBy == "day" {
					line(catalog.DayTime(day).Format(time.DateOnly)).Nanos += bytes / 10
				}
			}
			if q.GroupBy == "day" && (sum > 0 || want[catalog.DayTime(day).Format(time.DateOnly)] != nil) {
				line(catalog.DayTime(day).Format(time.DateOnly)).StorageBytes = sum
			}
			if q.GroupBy != "database" && q.DatabaseID == "" && len(stored[day]) > 0 {
				last = map[string]int64{"": sum} // of the namespace as a whole, the last day
			}
		}
		for _, bytes := range last {
			total.StorageBytes += bytes
		}
		got, err := o.Usage(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if got.Total != *total {
			t.Fatalf("%+v: in all %+v, want %+v", q, got.Total, *total)
		}
		if len(got.Series) != len(want) {
			t.Fatalf("%+v: %d lines, want %d", q, len(got.Series), len(want))
		}
		for _, u := range got.Series {
			if w := want[u.Key]; w == nil || *w != u {
				t.Fatalf("%+v: %+v, want %+v", q, u, w)
			}
		}
	}
}
