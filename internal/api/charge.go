package api

import (
	"errors"
	"net/http"

	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// tab is what a request spends.
type tab struct {
	purse   billing.Purse // not open where nothing is counted
	spent   sqlite.Counts // of its statements
	filed   sqlite.Counts // of those, what the database's file has counted, with the request itself if there is any
	inFile  bool
	worked  bool // it has come to a database
	refused bool // with 402, before any work
	settled bool
}

// bill opens the request's tab, and refuses it where nothing is left for it.
func (x *exchange) bill() error {
	books := x.s.opt.Billing
	if books == nil {
		return nil
	}
	var err error
	if x.tab.purse, err = books.Purse(x.r.Context(), payerOf(x.token), x.token.ID, x.token.Test); err != nil {
		return err
	}
	return x.afford()
}

// payerOf is the namespace that is charged for what a token does: its own or, of one that an app got, the app's.
func payerOf(t *catalog.Token) string {
	if t.OAuth != nil && t.OAuth.Payer != "" {
		return t.OAuth.Payer
	}
	return t.NamespaceID
}

// afford refuses a request for which nothing is left.
func (x *exchange) afford() error {
	err := x.tab.purse.Admit()
	x.tab.refused = err != nil && !x.tab.worked
	return err
}

// chargeTo says which database the request is for: it may have a cap of its own.
func (x *exchange) chargeTo(database string) error {
	t := &x.tab
	if !t.purse.Open() || t.purse.Database == database {
		return nil
	}
	t.purse.Database = database
	return x.afford()
}

// onTab puts what runs on the database on the request's tab.
func (x *exchange) onTab(r *store.Request) error {
	t := &x.tab
	r.Payer, r.Budget = store.Payer{}, nil
	if !t.purse.Open() {
		return nil
	}
	if err := x.chargeTo(x.database.ID); err != nil {
		return err
	}
	t.worked = true
	r.Payer = store.Payer{Token: x.token.ID, Free: x.token.Test, Counted: t.inFile}
	r.Budget = &t.purse
	return nil
}

// ran takes in what ran.
func (t *tab) ran(r *store.Request) {
	t.spent.RowsRead += r.Spent.RowsRead
	t.spent.RowsWritten += r.Spent.RowsWritten
	if r.Filed {
		t.inFile = true
		t.filed.RowsRead += r.Spent.RowsRead
		t.filed.RowsWritten += r.Spent.RowsWritten
	}
}

// unworked tells whether a request was let in and, when its first statement was to run, others had spent what was left: that too is a refusal before its work.
func (t *tab) unworked(status int) bool {
	return status == http.StatusPaymentRequired && t.spent == (sqlite.Counts{}) && !t.inFile
}

// settle counts the request, if its answer has this status, before the answer leaves: whoever has read it finds it in the usage.
func (x *exchange) settle(status int) {
	t := &x.tab
	if t.settled || !t.purse.Open() {
		return
	}
	t.settled = true
	if t.refused || t.unworked(status) || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError {
		return
	}
	w := catalog.Work{Requests: 1, RowsRead: t.spent.RowsRead - t.filed.RowsRead, RowsWritten: t.spent.RowsWritten - t.filed.RowsWritten}
	if t.inFile {
		w.Requests = 0
	}
	if w != (catalog.Work{}) {
		t.purse.Spend(w)
	}
}

// settleNow counts a request that went well, durably: the file that it made has counted nothing.
func (x *exchange) settleNow() error {
	x.settle(http.StatusOK)
	if !x.tab.purse.Open() {
		return nil
	}
	return x.s.opt.Billing.Flush(x.r.Context())
}

// cost is what the request costs with these rows, in nano-dollars.
func (t *tab) cost(read, written int64) int64 {
	return t.purse.Cost(catalog.Work{Requests: 1, RowsRead: read, RowsWritten: written})
}

// appendCost adds to a meta object what the request costs.
func (x *exchange) appendCost(b []byte, read, written int64) []byte {
	b = append(b, `,"costUsd":`...)
	return append(b, catalog.DollarText(x.tab.cost(read, written))...)
}

// appendSpent adds to a failure what the statements read and wrote all the same. Who is bound by policies isn't told.
func (x *exchange) appendSpent(b []byte, c sqlite.Counts) []byte {
	if x.gate.Caller.Bound() {
		return b
	}
	b = append(b[:len(b)-1], `,"meta":{"rowsRead":`...)
	b = wire.AppendInt(b, c.RowsRead)
	b = append(b, `,"rowsWritten":`...)
	b = wire.AppendInt(b, c.RowsWritten)
	b = x.appendCost(b, c.RowsRead, c.RowsWritten)
	return append(b, `}}`...)
}

// appendEmpty adds to a 402 what is left, to who may know it, and where to top up, or which cap is reached.
func (x *exchange) appendEmpty(b []byte, e *billing.EmptyError) []byte {
	b = b[:len(b)-1]
	if e.Cap == nil {
		b = append(b, `,"balanceUsd":`...)
		left := max(0, e.BalanceNanos)
		if x.mayAccount() != nil {
			left = 0 // what is left is the namespace's matter
		}
		b = append(b, catalog.DollarText(left)...)
		b = append(b, `,"topUpUrl":`...)
		slug := x.token.NamespaceSlug
		if payer, err := x.s.opt.Catalog.NamespaceByID(payerOf(x.token)); err == nil {
			slug = payer.Slug // whose balance it is
		}
		b = wire.AppendString(b, x.s.opt.BaseURL+"/"+slug+"/billing")
		return append(b, '}')
	}
	b = append(b, `,"cap":`...)
	b = appendCap(b, *e.Cap)
	return append(b, '}')
}

func appendCap(b []byte, c catalog.Cap) []byte {
	b = append(b, `{"scope":`...)
	b = wire.AppendString(b, c.Scope)
	if c.TargetID != "" {
		b = append(b, `,"id":`...)
		b = wire.AppendString(b, c.TargetID)
	}
	b = append(b, `,"window":`...)
	b = wire.AppendString(b, c.Span)
	b = append(b, `,"usd":`...)
	b = append(b, catalog.DollarText(c.Nanos)...)
	return append(b, '}')
}

// emptyFault is the fault of a request that nothing is left for; nil if err is none.
func emptyFault(err error) *fault {
	var e *billing.EmptyError
	if !errors.As(err, &e) {
		return nil
	}
	code, hint := "balance_exhausted", ""
	if e.Cap != nil {
		code, hint = "spend_cap_reached", "it begins anew with the next "+e.Cap.Span+" (UTC); PUT /v1/billing/caps changes it"
	}
	f := newFault(http.StatusPaymentRequired, code, e.Error(), hint)
	f.empty = e
	return f
}
