package billing

import (
	"context"
	"errors"
	"math/bits"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

const (
	// sampleEvery is how often databases without a sample of the day are looked for: one that is made today has its first within the hour.
	sampleEvery = time.Hour
	// sampleRows is how many samples are written in one transaction.
	sampleRows = 500
)

// Sample takes the day's sample of what each database stores, of those that have none, and does so again every hour until ctx ends. One is opened after the
// other, and only those that were written to since their last sample.
func (b *Books) Sample(ctx context.Context, owner store.Placement, files Files) {
	for {
		if err := b.SampleNow(ctx, owner, files); err != nil && ctx.Err() == nil {
			b.log.Error("sample what databases store; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(untilSample(b.opt.Now())):
		}
	}
}

// untilSample is the time to the next round: within the hour, and soon after midnight.
func untilSample(now time.Time) time.Duration {
	midnight := catalog.DayTime(catalog.Day(now) + 1).Sub(now)
	return min(sampleEvery, midnight+settleAfter)
}

// SampleNow takes the samples that are missing.
func (b *Books) SampleNow(ctx context.Context, owner store.Placement, files Files) error {
	day := catalog.Day(b.opt.Now())
	var samples []catalog.Sample
	keep := func() error {
		if len(samples) == 0 {
			return nil
		}
		charged, err := b.cat.KeepSamples(ctx, samples, b.opt.Prepaid)
		if err != nil {
			return err
		}
		sampled := map[string]bool{}
		for _, s := range samples {
			sampled[s.NamespaceID] = true
		}
		samples = samples[:0]
		for id := range sampled {
			a, err := b.Account(ctx, id)
			if err != nil {
				return err
			}
			a.correct(-charged[id])
			a.stale.Store(true) // caps are of storage too, where nothing is charged as well
			b.flushing.Lock()   // or counts that are being written would be missed
			a.watch(ctx)
			b.flushing.Unlock()
		}
		return nil
	}
	// Before what is charged, since an account's first look at the balance would have that twice.
	lastOf := map[string]map[string]catalog.Sample{}
	lastSamples := func(namespace string) (map[string]catalog.Sample, error) {
		if last, ok := lastOf[namespace]; ok {
			return last, nil
		}
		if _, err := b.Account(ctx, namespace); err != nil {
			return nil, err
		}
		last, err := b.cat.LastSamples(ctx, namespace)
		if err == nil {
			lastOf[namespace] = last
		}
		return last, err
	}
	apps := b.cat.AppDatabases()
	pays := map[string]bool{}
	for _, app := range apps {
		pays[app.NamespaceID] = true
	}
	for _, ns := range b.cat.Namespaces() {
		last, err := lastSamples(ns.ID)
		if err != nil {
			return err
		}
		for _, d := range b.cat.DatabasesOf(ns.ID) {
			payer, was := ns.ID, last[d.ID]
			if app, ok := apps[d.ID]; ok {
				if app.Connected {
					payer = app.NamespaceID
				}
				others, err := lastSamples(app.NamespaceID)
				if err != nil {
					return err
				}
				if s := others[d.ID]; s.Day >= was.Day { // whoever pays for the day, nobody else does
					was = s
				}
			}
			if was.Day == day && was.DatabaseID != "" {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			modified := files.Modified(d.ID).UnixNano()
			bytes := was.Bytes
			if was.DatabaseID == "" || was.Modified != modified {
				if bytes, err = b.size(ctx, owner, d); err != nil {
					b.log.Warn("sample what a database stores; it is tried again", "database", d.ID, "error", err)
					continue
				}
				// Opening it may have changed its files' times.
				modified = files.Modified(d.ID).UnixNano()
			}
			s := catalog.Sample{NamespaceID: payer, DatabaseID: d.ID, Day: day, Bytes: bytes, Modified: modified}
			if !d.Test {
				s.Nanos = b.storageDay(bytes)
			}
			if samples = append(samples, s); len(samples) >= sampleRows {
				if err := keep(); err != nil {
					return err
				}
			}
		}
		if !pays[ns.ID] {
			delete(lastOf, ns.ID)
		}
	}
	return keep()
}

// size is what a database stores, in bytes, without the server's own tables. A branch that began without rows stores nothing until it has some.
func (b *Books) size(ctx context.Context, placement store.Placement, d *catalog.Database) (bytes int64, err error) {
	owner, err := placement.Owner(ctx, d.ID)
	if err != nil {
		return 0, err
	}
	err = owner.Do(ctx, d.ID, &store.Request{Job: store.JobFunc(func(tx *store.Tx) (err error) {
		if d.IsBranch() && d.Fork.Content == catalog.ContentSchema {
			if rows, err := anyRow(tx); err != nil || !rows {
				return err
			}
		}
		bytes, err = tx.StoredBytes()
		return err
	})})
	return bytes, err
}

// anyRow tells whether a database has a row. A virtual table that can't be read may have some.
func anyRow(tx *store.Tx) (bool, error) {
	type table struct {
		name    string
		virtual bool
	}
	var tables []table
	err := tx.Query(`SELECT name, type FROM pragma_table_list WHERE schema='main' AND type IN ('table','virtual') AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY type`, nil, func(s *sqlite.Stmt) error {
		tables = append(tables, table{string(s.Column(0).Bytes), string(s.Column(1).Bytes) == "virtual"})
		return nil
	})
	if err != nil {
		return false, err
	}
	for _, t := range tables {
		found := false
		err := tx.Query("SELECT 1 FROM main."+sqlite.Quote(t.name)+" LIMIT 1", nil, func(*sqlite.Stmt) error {
			found = true
			return nil
		})
		var e *sqlite.Error
		if t.virtual && errors.As(err, &e) && e.Cause == nil {
			found, err = true, nil
		}
		if err != nil || found {
			return found, err
		}
	}
	return false, nil
}

// storageMonth is the month that a price of storage is for, in days.
const storageMonth = 30

// storageDay is what a day of storage costs, rounded down to whole nano-dollars.
func (b *Books) storageDay(bytes int64) int64 {
	high, low := bits.Mul64(uint64(bytes), uint64(b.opt.Prices.StorageGBMonth))
	const day = storageMonth * 1_000_000_000
	if high >= day {
		return 1<<63 - 1
	}
	n, _ := bits.Div64(high, low, day)
	return int64(min(n, 1<<63-1))
}
