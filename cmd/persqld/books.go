package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// books are what the server counts, with what runs for them. Without billing there is nothing in it.
type books struct {
	*billing.Books
	dir  *datadir.Dir
	stop context.CancelFunc
	done sync.WaitGroup
}

var errEstimate = errors.New("PERSQLD_BILLING is prepaid, and this build only estimates rows read and written (make build makes one that counts them); PERSQLD_BILLING_ESTIMATED=true charges by the estimate")

// openBooks begins to count, if that is asked for.
func (cmd *serveCmd) openBooks(ctx context.Context, dir *datadir.Dir, cat *catalog.Catalog, logger *slog.Logger) (*books, error) {
	b := &books{dir: dir}
	if cmd.Billing == "off" {
		return b, nil
	}
	if cmd.Billing == "prepaid" && sqlite.RowMeter() != "exact" && !cmd.BillingEstimated {
		return nil, errEstimate
	}
	var err error
	b.Books, err = billing.Open(ctx, billing.Options{
		Catalog: cat, Logger: logger, Prepaid: cmd.Billing == "prepaid", Welcome: int64(cmd.WelcomeCredit), Low: int64(cmd.LowBalance), Restored: dir.WasRestored(),
		Prices: billing.Prices{Request: int64(cmd.PriceRequests) / 1e6, RowRead: int64(cmd.PriceRowsRead) / 1e6, RowWritten: int64(cmd.PriceRowsWritten) / 1e6,
			StorageGBMonth: int64(cmd.PriceStorage)},
	})
	return b, err
}

// forStore is nil where nothing is counted.
func (b *books) forStore() store.Meter {
	if b.Books == nil {
		return nil
	}
	return b.Books
}

// begin takes over what the last process counted, and starts what goes on beside the requests.
func (b *books) begin(ctx context.Context, st *store.Store, metrics *api.Metrics) error {
	if b.Books == nil {
		return b.dir.ForgetRestored()
	}
	own, stop := context.WithCancel(context.Background())
	b.stop = stop
	told, err := b.Recount(own, st, st)
	if err != nil {
		stop()
		return err
	}
	b.done.Go(func() {
		// Only when all is taken over: a crash before asks all of them again.
		<-told
		if own.Err() == nil {
			if err := b.dir.ForgetRestored(); err != nil {
				slog.Default().Warn("forget that the directory was restored", "error", err)
			}
		}
	})
	b.done.Go(func() { b.Run(own) })
	b.done.Go(func() { b.Sample(own, st, st) })
	metrics.CountBilled(b.Totals)
	return ctx.Err()
}

// endTime is how long a stopping server tries to write its last counts.
const endTime = 5 * time.Second

// end writes down what was counted. Nothing runs any more.
func (b *books) end() error {
	if b.Books == nil || b.stop == nil {
		return nil
	}
	b.stop()
	b.done.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	return b.Close(ctx)
}
