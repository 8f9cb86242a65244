package billing

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

// Account is what a namespace has spent and may spend. What a request asks of it takes no lock, and none that another namespace's requests take.
type Account struct {
	books   *Books
	id      string
	balance atomic.Int64 // nano-dollars; what runs now isn't in it
	caps    atomic.Pointer[[]*capState]

	mu      sync.Mutex
	pending map[catalog.UsageKey]*pending // counts that are not durable
	queued  bool                          // in the dirty list
	low     bool                          // the balance was said to be low
	stale   atomic.Bool                   // caps have to be read anew
}

// pending are counts of one key that are not durable.
type pending struct {
	filed catalog.Work // running totals of the database's file
	added catalog.Work
	nanos int64 // what was spent of them already
}

// capState is a cap, and what was spent of it in its present span.
type capState struct {
	catalog.Cap
	span  atomic.Int64 // the first day of the day or month
	spent atomic.Int64
}

// spanStart is the first day of the span that a moment is in.
func spanStart(window string, t time.Time) int64 {
	if window == catalog.CapDay {
		return catalog.Day(t)
	}
	return catalog.MonthStart(catalog.MonthOf(catalog.Day(t)))
}

func (s *capState) of(p *Purse) bool {
	switch s.Scope {
	case catalog.CapDatabase:
		return s.TargetID == p.Database
	case catalog.CapToken:
		return s.TargetID == p.TokenID
	}
	return true
}

// turn begins the cap's next span where the last one is over.
func (s *capState) turn(now time.Time) {
	span := spanStart(s.Span, now)
	if was := s.span.Load(); was < span && s.span.CompareAndSwap(was, span) {
		s.spent.Store(0)
	}
}

// open reads the account.
func (a *Account) open(ctx context.Context) error {
	b := a.books
	if b.opt.Prepaid {
		if b.opt.Welcome > 0 {
			_, err := b.cat.AddCredit(ctx, catalog.Credit{NamespaceID: a.id, Nanos: b.opt.Welcome, Kind: catalog.EntryWelcome, Ref: "welcome:" + a.id, Note: "welcome"})
			// One that is deleted, and whose databases are charged to the end, gets none.
			if err != nil && !isGone(err) {
				return err
			}
		}
		balance, err := b.cat.Balance(ctx, a.id)
		if err != nil {
			return err
		}
		a.balance.Store(balance)
		a.low = balance < b.opt.Low
	}
	return a.loadCaps(ctx)
}

// loadCaps reads the caps, and what was spent of each. Unless the account is new the caller holds flushing: what is on its way into the file would be counted
// nowhere, or twice.
func (a *Account) loadCaps(ctx context.Context) error {
	b := a.books
	caps, err := b.cat.Caps(ctx, a.id)
	if err != nil {
		return err
	}
	now := b.opt.Now()
	states := make([]*capState, 0, len(caps))
	for _, c := range caps {
		s := &capState{Cap: c}
		q := catalog.UsageQuery{NamespaceID: a.id, From: spanStart(c.Span, now), To: catalog.Day(now), GroupBy: "day"}
		switch c.Scope {
		case catalog.CapDatabase:
			q.DatabaseID = c.TargetID
		case catalog.CapToken:
			q.TokenID = c.TargetID
		}
		total, _, err := b.cat.Usage(ctx, q, b.prices)
		if err != nil {
			return err
		}
		s.span.Store(spanStart(c.Span, now))
		s.spent.Store(total.Nanos())
		states = append(states, s)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range states {
		s.spent.Add(a.unkept(s, now))
	}
	a.caps.Store(&states)
	return nil
}

// unkept is what was spent of a cap and isn't durable yet. The account is locked.
func (a *Account) unkept(s *capState, now time.Time) (nanos int64) {
	for key, p := range a.pending {
		if s.of(&Purse{TokenID: key.TokenID, Database: key.DatabaseID}) && key.Day >= spanStart(s.Span, now) {
			nanos += p.nanos
		}
	}
	return nanos
}

// EmptyError is returned where nothing is left to spend.
type EmptyError struct {
	Cap          *catalog.Cap // the one that is reached; nil where it is the balance
	BalanceNanos int64
}

func (e *EmptyError) Error() string {
	if e.Cap == nil {
		return "Prepaid balance exhausted. Top up to continue."
	}
	of := "namespace"
	if e.Cap.Scope != catalog.CapNamespace {
		of = e.Cap.Scope
	}
	return fmt.Sprintf("The %s's spend cap of $%s a %s is reached", of, catalog.DollarText(e.Cap.Nanos), e.Cap.Span)
}

// afford compares what a request has cost so far with what is left. first is before its work: then something must be left.
func (a *Account) afford(p *Purse, cost int64, first bool) error {
	if a.books.opt.Prepaid {
		if left := a.balance.Load(); left < cost || first && left <= 0 {
			return &EmptyError{BalanceNanos: left - cost} // as it is when the request is charged
		}
	}
	caps := a.caps.Load()
	if caps == nil || len(*caps) == 0 {
		return nil
	}
	now := a.books.opt.Now()
	for _, s := range *caps {
		if !s.of(p) {
			continue
		}
		s.turn(now)
		if left := s.Nanos - s.spent.Load(); left < cost || first && left <= 0 {
			return &EmptyError{Cap: &s.Cap, BalanceNanos: a.balance.Load()}
		}
	}
	return nil
}

// note takes counts in: running totals of a file, or an addition. spent is what of them is charged now.
func (a *Account) note(key catalog.UsageKey, filed, added, spent catalog.Work) {
	b := a.books
	b.totals.requests.Add(spent.Requests)
	b.totals.read.Add(spent.RowsRead)
	b.totals.written.Add(spent.RowsWritten)
	var nanos int64
	if !key.Free && spent != (catalog.Work{}) {
		series := b.series
		if key.Series != series.ID {
			if s, ok := b.prices[key.Series]; ok {
				series = s
			}
		}
		nanos = series.Cost(spent)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	// With the lock, so that caps that are read meanwhile have both, or neither.
	if nanos != 0 {
		a.spend(key, nanos)
	}
	p := a.pending[key]
	if p == nil {
		p = &pending{}
		a.pending[key] = p
	}
	p.filed = most(p.filed, filed)
	p.added.Add(added)
	p.nanos += nanos
	a.queue()
}

// queue has the account's counts written. The account is locked: who adds to one that is in the list already must find it there, or a writing
// that begins now would pass its counts over.
func (a *Account) queue() {
	if a.queued {
		return
	}
	a.queued = true
	d := &a.books.dirty
	d.Lock()
	d.list = append(d.list, a)
	d.Unlock()
}

// spend takes from the balance and the caps.
func (a *Account) spend(key catalog.UsageKey, nanos int64) {
	if a.books.opt.Prepaid {
		a.balance.Add(-nanos)
	}
	caps := a.caps.Load()
	if caps == nil || len(*caps) == 0 {
		return
	}
	now := a.books.opt.Now()
	p := Purse{TokenID: key.TokenID, Database: key.DatabaseID}
	for _, s := range *caps {
		if s.of(&p) {
			s.turn(now)
			if key.Day >= spanStart(s.Span, now) {
				s.spent.Add(nanos)
			}
		}
	}
}

func most(a, b catalog.Work) catalog.Work {
	return catalog.Work{Requests: max(a.Requests, b.Requests), RowsRead: max(a.RowsRead, b.RowsRead), RowsWritten: max(a.RowsWritten, b.RowsWritten)}
}

// take empties the account's counts.
func (a *Account) take() map[catalog.UsageKey]*pending {
	a.mu.Lock()
	defer a.mu.Unlock()
	mine := a.pending
	a.pending = make(map[catalog.UsageKey]*pending, len(mine))
	a.queued = false
	return mine
}

// giveBack takes counts back that couldn't be written.
func (a *Account) giveBack(key catalog.UsageKey, back *pending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pending[key]
	if p == nil {
		p = &pending{}
		a.pending[key] = p
	}
	p.filed = most(p.filed, back.filed)
	p.added.Add(back.added)
	p.nanos += back.nanos
	a.queue()
}

// correct changes the balance by the difference between what was spent in memory and what was charged. Only counts that an earlier process left make one.
func (a *Account) correct(nanos int64) {
	if nanos == 0 || !a.books.opt.Prepaid {
		return
	}
	a.balance.Add(nanos)
	a.stale.Store(true)
}

// credited adds to the balance.
func (a *Account) credited(nanos int64) {
	if a.balance.Add(nanos) >= a.books.opt.Low {
		a.mu.Lock()
		a.low = false
		a.mu.Unlock()
	}
}

// watch looks after the account's counts were written: says that its balance is low, once until it is topped up, and reads its caps anew where they may be off. The caller
// holds flushing.
func (a *Account) watch(ctx context.Context) {
	b := a.books
	if a.stale.CompareAndSwap(true, false) {
		if err := a.loadCaps(ctx); err != nil {
			a.stale.Store(true)
			b.log.Error("read spend caps", "namespace", a.id, "error", err)
		}
	}
	if !b.opt.Prepaid || b.opt.Low <= 0 {
		return
	}
	balance := a.balance.Load()
	a.mu.Lock()
	tell := balance < b.opt.Low && !a.low
	a.low = balance < b.opt.Low
	a.mu.Unlock()
	if !tell {
		return
	}
	usd := catalog.DollarText(balance)
	b.log.Warn("a namespace's balance is low", "namespace", a.id, "balanceUsd", usd)
	if err := b.cat.BalanceLow(ctx, a.id, usd); err != nil && !isGone(err) {
		b.log.Error("write audit log", "error", err)
	}
}
