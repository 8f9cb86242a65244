package billing_test

import (
	"fmt"
	"testing"

	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
)

// BenchmarkUsage asks for the usage of a namespace with 10,000 databases, which were all used on each of 30 days.
func BenchmarkUsage(b *testing.B) {
	o := newOffice(b, billing.Options{})
	today := catalog.Day(o.clock.Now())
	for day := today - 29; day <= today; day++ {
		var changes []catalog.UsageChange
		var samples []catalog.Sample
		for i := range 10_000 {
			id := fmt.Sprintf("db_%026d", i)
			changes = append(changes, catalog.UsageChange{UsageKey: catalog.UsageKey{NamespaceID: o.ns.ID, DatabaseID: id, TokenID: "tok_a", Day: day, Series: o.Series()}, Added: catalog.Work{Requests: 1, RowsRead: 10, RowsWritten: 1}})
			samples = append(samples, catalog.Sample{NamespaceID: o.ns.ID, DatabaseID: id, Day: day, Bytes: 4096, Nanos: 1})
		}
		if _, err := o.cat.KeepUsage(b.Context(), changes, nil, false, o.clock.Now()); err != nil {
			b.Fatal(err)
		}
		if _, err := o.cat.KeepSamples(b.Context(), samples, false); err != nil {
			b.Fatal(err)
		}
	}
	for _, by := range []string{billing.ByDay, billing.ByMeter, billing.ByToken, billing.ByDatabase} {
		for _, days := range []int64{1, 30} {
			b.Run(fmt.Sprintf("%s/%d days", by, days), func(b *testing.B) {
				for b.Loop() {
					if _, err := o.Usage(b.Context(), catalog.UsageQuery{NamespaceID: o.ns.ID, From: today - days + 1, To: today, GroupBy: by}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
