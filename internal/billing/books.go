package billing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// Prices are in nano-dollars.
type Prices struct {
	Request, RowRead, RowWritten int64
	StorageGBMonth               int64 // a gigabyte (10⁹ bytes) for 30 days
}

// Options are Open's options.
type Options struct {
	Catalog *catalog.Catalog
	Prices  Prices
	Prepaid bool  // there are balances, and who has none left is refused
	Welcome int64 // nano-dollars that every namespace gets once, where it is prepaid
	Low     int64 // nano-dollars below which a balance is said to be low; 0 says nothing
	// Restored says that databases' files may hold counts of an earlier time than the catalog, or the other way round: what is counted from now on
	// begins at zero, beside the old.
	Restored bool

	Every  time.Duration // between two writings of counts; 1 s
	Now    func() time.Time
	Logger *slog.Logger
}

// Books are the counts and balances of all namespaces. Its methods may be called from any goroutine. It is the store's Meter.
type Books struct {
	opt    Options
	cat    *catalog.Catalog
	log    *slog.Logger
	series catalog.Series
	prices map[int64]catalog.Series // those of earlier times too, for what was counted then

	accounts sync.Map // a namespace's id → *Account
	opening  sync.Mutex

	dirty    dirtyList
	told     atomic.Uint64 // numbers given out by Filed
	taken    atomic.Uint64 // of which these are durable
	unmarked atomic.Bool   // the disk was too full for catalog.UsageKeptAt

	flushing sync.Mutex
	// owed is since when databases may have counted what nobody has asked them for, while that is being done; nil when it is. Until then a crash must
	// have the next start ask all of them again.
	owed    atomic.Pointer[time.Time]
	settled int64 // the day that all days before are settled of; under flushing

	totals struct{ requests, read, written atomic.Int64 }
}

// dirtyList are the accounts with counts that are not durable.
type dirtyList struct {
	sync.Mutex
	list []*Account
}

// Open begins to count.
func Open(ctx context.Context, opt Options) (*Books, error) {
	b := &Books{opt: opt, cat: opt.Catalog, log: opt.Logger}
	b.opt.Every = cmp.Or(opt.Every, time.Second)
	if b.opt.Now == nil {
		b.opt.Now = time.Now
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	var err error
	p := opt.Prices
	if b.series, err = b.cat.BeginSeries(ctx, catalog.Series{Request: p.Request, RowRead: p.RowRead, RowWritten: p.RowWritten}, opt.Restored); err != nil {
		return nil, err
	}
	if b.prices, err = b.cat.EverySeries(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// Run writes counts down until ctx ends. What is left then Close writes.
func (b *Books) Run(ctx context.Context) {
	tick := time.NewTicker(b.opt.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := b.Flush(ctx); err != nil && ctx.Err() == nil {
				b.log.Error("keep usage: it is tried again, and lost if the server ends before", "error", err)
			}
		}
	}
}

// Series is that of the present prices.
func (b *Books) Series() int64 { return b.series.ID }

// Filed is told what a database's file has counted. What a commit added to that is spent at once; rows that were only read are compared with what is known
// when they are written down.
func (b *Books) Filed(database string, rows []store.MeterRow) uint64 {
	ns, known := b.payerOf(database)
	if !known {
		// It has no name yet, or no longer. The file keeps what it has.
		return store.Untold
	}
	for i := range rows { // all of them can be noted, before the first is
		if payer := b.payer(ns, rows[i].Token); i == 0 || payer != ns {
			if _, err := b.Account(context.Background(), payer); err != nil {
				b.log.Error("open a namespace's account", "namespace", payer, "error", err)
				return store.Untold
			}
		}
	}
	for i := range rows {
		r := &rows[i]
		payer := b.payer(ns, r.Token)
		a, err := b.Account(context.Background(), payer)
		if err != nil {
			return store.Untold
		}
		key := catalog.UsageKey{NamespaceID: payer, DatabaseID: database, TokenID: r.Token, Day: r.Day, Series: r.Series, Free: r.Free}
		a.note(key, catalog.Work(r.Total), catalog.Work{}, catalog.Work(r.Added))
	}
	// After the counts, so that a writing that begins with this number has them.
	return b.told.Add(1)
}

// Taken tells whether what came with a number's call is durable.
func (b *Books) Taken(number uint64) bool { return number <= b.taken.Load() }

// payer is the namespace that is charged for what a token did in a database of ns: that one or, of a token that an app got for a user, the app's.
func (b *Books) payer(ns, token string) string {
	if p := b.cat.Payer(token); p != "" {
		return p
	}
	return ns
}

// payerOf is the namespace that a database's work is charged to, unless the token says another: its own.
func (b *Books) payerOf(database string) (string, bool) {
	if d, err := b.cat.DatabaseByID(database); err == nil {
		return d.NamespaceID, true
	}
	if t, err := b.cat.Trashed(database); err == nil {
		return t.NamespaceID, true
	}
	// It is being deleted for good, and this is what was written to it last.
	ns, err := b.cat.NamespaceOf(context.Background(), database)
	return ns, err == nil
}

// Account is a namespace's account. The first call of a namespace reads it, and makes its welcome credit.
func (b *Books) Account(ctx context.Context, namespaceID string) (*Account, error) {
	if a, ok := b.accounts.Load(namespaceID); ok {
		return a.(*Account), nil
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	if a, ok := b.accounts.Load(namespaceID); ok {
		return a.(*Account), nil
	}
	a := &Account{books: b, id: namespaceID, pending: map[catalog.UsageKey]*pending{}}
	if err := a.open(ctx); err != nil {
		return nil, err
	}
	b.accounts.Store(namespaceID, a)
	return a, nil
}

// flushRows is how many rows are written in one transaction: other changes of the catalog wait for it.
const flushRows = 1000

// Flush makes all counts durable that were told before it.
func (b *Books) Flush(ctx context.Context) error {
	b.flushing.Lock()
	defer b.flushing.Unlock()
	now := b.opt.Now()
	kept := now
	if owed := b.owed.Load(); owed != nil {
		kept = *owed
	}
	upto := b.told.Load()
	b.dirty.Lock()
	accounts := b.dirty.list
	b.dirty.list = nil
	b.dirty.Unlock()
	var failed error
	if len(accounts) > 0 {
		failed = b.write(ctx, accounts, kept)
	}
	if failed != nil {
		return failed
	}
	b.taken.Store(upto)
	return b.settle(ctx, now)
}

// write writes the counts of some accounts. What can't be written goes back to them. kept is the moment from which on counts may be missing, when all is written.
func (b *Books) write(ctx context.Context, accounts []*Account, kept time.Time) error {
	series := b.prices
	var changes []catalog.UsageChange
	spent := map[string]int64{} // of the changes, in memory
	byID := map[string]*Account{}
	var taken []takenPending
	flush := func(kept time.Time) error {
		charged, err := b.cat.KeepUsage(ctx, changes, series, b.opt.Prepaid, kept)
		if err != nil {
			return err
		}
		for id, nanos := range spent {
			byID[id].correct(nanos - charged[id])
			delete(charged, id)
		}
		for id, nanos := range charged {
			byID[id].correct(-nanos)
		}
		changes, taken = changes[:0], taken[:0]
		clear(spent)
		return nil
	}
	var failed error
	for _, a := range accounts {
		byID[a.id] = a
		mine := a.take()
		for key, p := range mine {
			if failed != nil {
				a.giveBack(key, p)
				continue
			}
			changes = append(changes, catalog.UsageChange{UsageKey: key, Filed: p.filed, Added: p.added})
			taken = append(taken, takenPending{a, key, p})
			spent[a.id] += p.nanos
			if len(changes) >= flushRows {
				failed = flush(time.Time{})
			}
		}
	}
	if failed == nil {
		failed = flush(kept)
	}
	if failed != nil {
		for _, t := range taken {
			t.account.giveBack(t.key, t.pending)
		}
		return failed
	}
	for _, a := range accounts {
		a.watch(ctx)
	}
	return nil
}

type takenPending struct {
	account *Account
	key     catalog.UsageKey
	pending *pending
}

// settleAfter is how long after a day's end it goes into the ledger: what ran at midnight is told by then. Later counts make another entry.
const settleAfter = 10 * time.Second

// settle puts days that are over into the ledger.
func (b *Books) settle(ctx context.Context, now time.Time) error {
	if !b.opt.Prepaid {
		return nil
	}
	today := catalog.Day(now.Add(-settleAfter))
	if today <= b.settled {
		return nil
	}
	if err := b.cat.SettleDays(ctx, today); err != nil {
		return err
	}
	b.settled = today
	return nil
}

// Close writes everything down. Nothing may be counted any more.
func (b *Books) Close(ctx context.Context) error {
	if err := b.Flush(ctx); err != nil {
		return fmt.Errorf("keep usage: %w", err)
	}
	if b.owed.Load() != nil || b.unmarked.Load() {
		return nil // the next start asks the rest; or there is no mark to take away
	}
	return b.cat.SetSetting(ctx, catalog.UsageKeptAt, "")
}

// Totals are what was counted since the start, of all namespaces.
func (b *Books) Totals() catalog.Work {
	return catalog.Work{Requests: b.totals.requests.Load(), RowsRead: b.totals.read.Load(), RowsWritten: b.totals.written.Load()}
}

// Cost is what work costs at the present prices, in nano-dollars.
func (b *Books) Cost(w catalog.Work) int64 { return b.series.Cost(w) }

// Prepaid tells whether there are balances.
func (b *Books) Prepaid() bool { return b.opt.Prepaid }

// Credit puts money into a namespace's account. false means that what its Ref stands for was credited before.
func (b *Books) Credit(ctx context.Context, c catalog.Credit) (added bool, err error) {
	if !b.opt.Prepaid {
		return false, ErrNoBalances
	}
	if _, err := b.cat.NamespaceByID(c.NamespaceID); err != nil {
		return false, err
	}
	a, err := b.Account(ctx, c.NamespaceID)
	if err != nil {
		return false, err
	}
	if added, err = b.cat.AddCredit(ctx, c); err != nil || !added {
		return added, err
	}
	a.credited(c.Nanos)
	return true, nil
}

// The bounds of a credit by hand.
const (
	MaxCredit     = 1_000_000 * 1_000_000_000 // nano-dollars
	MaxCreditNote = 500                       // bytes
)

// CheckCredit refuses an amount or a note that no credit by hand has.
func CheckCredit(nanos int64, note string) error {
	if nanos == 0 || nanos > MaxCredit || nanos < -MaxCredit {
		return errors.New("A credit is an amount of at most 1,000,000 dollars, and not 0; a negative one takes back")
	}
	if len(note) > MaxCreditNote || !utf8.ValidString(note) || strings.ContainsFunc(note, unicode.IsControl) {
		return fmt.Errorf("A note has at most %d bytes, none of them control characters", MaxCreditNote)
	}
	return nil
}

// ErrNoBalances is returned where nothing is prepaid.
var ErrNoBalances = errors.New("the server keeps no balances")

// Purse is what one request may spend. It is a store.Budget.
type Purse struct {
	account  *Account
	TokenID  string
	Database string // "" while it isn't known
	Free     bool
}

// Purse is a request's purse, in its namespace's account.
func (b *Books) Purse(ctx context.Context, namespaceID, tokenID string, free bool) (Purse, error) {
	a, err := b.Account(ctx, namespaceID)
	return Purse{account: a, TokenID: tokenID, Free: free}, err
}

// Open tells whether there is an account.
func (p *Purse) Open() bool { return p.account != nil }

// Admit refuses a request before its work where nothing is left for it: an *EmptyError.
func (p *Purse) Admit() error {
	if p.Free {
		return nil
	}
	return p.account.afford(p, 0, true)
}

// Afford refuses to go on with a request whose rows have cost more than what is left.
func (p *Purse) Afford(c sqlite.Counts) error {
	if p.Free {
		return nil
	}
	return p.account.afford(p, p.account.books.series.Cost(catalog.Work{RowsRead: c.RowsRead, RowsWritten: c.RowsWritten}), false)
}

// Spend counts a request's work that is in no file.
func (p *Purse) Spend(w catalog.Work) {
	b := p.account.books
	key := catalog.UsageKey{NamespaceID: p.account.id, DatabaseID: p.Database, TokenID: p.TokenID, Day: catalog.Day(b.opt.Now()), Series: b.series.ID, Free: p.Free}
	p.account.note(key, catalog.Work{}, w, w)
}

// Cost is what work costs here, in nano-dollars: nothing for who is never charged.
func (p *Purse) Cost(w catalog.Work) int64 {
	if p.Free || p.account == nil {
		return 0
	}
	return p.account.books.series.Cost(w)
}
