package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The kinds of ledger entries.
const (
	EntryWelcome  = "welcome"  // once a namespace
	EntryCredit   = "credit"   // by an operator
	EntryCheckout = "checkout" // paid
	EntryDebit    = "debit"    // what a day cost
)

// Entry is a line of the ledger.
type Entry struct {
	ID    string
	Seq   int64
	At    time.Time
	Kind  string
	Day   int64 // of a debit
	Nanos int64 // nano-dollars; a debit is negative
	Note  string
}

// AddCredit puts money into the ledger, with an entry in the audit log. false means that its Ref counted before. It returns ErrNamespaceNotFound.
func (c *Catalog) AddCredit(ctx context.Context, credit Credit) (added bool, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	ns, err := c.NamespaceByID(credit.NamespaceID)
	if err != nil {
		return false, err
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if added, err = c.insertEntry(ctx, tx, credit.NamespaceID, Entry{Kind: credit.Kind, Nanos: credit.Nanos, Note: credit.Note}, credit.Ref); err != nil || !added {
			return err
		}
		return c.audit(ctx, tx, namespaceEvent("billing.credited", ns, map[string]any{"kind": credit.Kind, "usd": DollarText(credit.Nanos), "note": credit.Note}))
	}, func(*mirror) {})
	if err != nil {
		return false, fmt.Errorf("credit namespace %s: %w", ns.Slug, err)
	}
	return added, nil
}

// NamespaceByID is the namespace of an id that isn't deleted, or ErrNamespaceNotFound.
func (c *Catalog) NamespaceByID(id string) (Namespace, error) {
	ns, ok := c.namespaceByID(id)
	if !ok {
		return Namespace{}, ErrNamespaceNotFound
	}
	return ns, nil
}

func (c *Catalog) insertEntry(ctx context.Context, tx *sql.Tx, namespaceID string, e Entry, ref string) (added bool, err error) {
	day := sql.NullInt64{Int64: e.Day, Valid: e.Kind == EntryDebit}
	r, err := tx.ExecContext(ctx, `INSERT INTO ledger (id, namespace_id, at, kind, day, nanos, note, ref) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (ref) DO NOTHING`,
		NewID("led"), namespaceID, c.moment().UnixMilli(), e.Kind, day, e.Nanos, e.Note, nullText(ref))
	if err != nil {
		return false, fmt.Errorf("write the ledger: %w", err)
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// SettleDays puts what days before the given one cost, and the ledger doesn't have, into it. A day that something is added to later gets another entry.
func (c *Catalog) SettleDays(ctx context.Context, before int64) error {
	type open struct {
		namespaceID string
		day, nanos  int64
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	var list []open
	err := each(ctx, c.db, `SELECT namespace_id, day, nanos - debited FROM charges WHERE nanos <> debited AND day < ? ORDER BY day, namespace_id`, func(rows *sql.Rows) error {
		var o open
		err := rows.Scan(&o.namespaceID, &o.day, &o.nanos)
		list = append(list, o)
		return err
	}, before)
	if err != nil || len(list) == 0 {
		return err
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		for _, o := range list {
			e := Entry{Kind: EntryDebit, Day: o.day, Nanos: -o.nanos, Note: "usage of " + DayTime(o.day).Format(time.DateOnly)}
			if _, err := c.insertEntry(ctx, tx, o.namespaceID, e, ""); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE charges SET debited = debited + ? WHERE namespace_id = ? AND day = ?`, o.nanos, o.namespaceID, o.day); err != nil {
				return err
			}
		}
		return nil
	}, func(*mirror) {})
	if err != nil {
		return fmt.Errorf("debit the days that are over: %w", err)
	}
	return nil
}

// Balance is the sum of a namespace's ledger less what was charged since and isn't in it yet.
func (c *Catalog) Balance(ctx context.Context, namespaceID string) (nanos int64, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT (SELECT coalesce(sum(nanos), 0) FROM ledger WHERE namespace_id = ?1)
		- (SELECT coalesce(sum(nanos - debited), 0) FROM charges WHERE namespace_id = ?1 AND nanos <> debited)`, namespaceID).Scan(&nanos)
	if err != nil {
		return 0, fmt.Errorf("read balance: %w", err)
	}
	return nanos, nil
}

// ChargedSince is what was charged to a namespace on a day and those after it.
func (c *Catalog) ChargedSince(ctx context.Context, namespaceID string, day int64) (nanos int64, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT coalesce(sum(nanos), 0) FROM charges WHERE namespace_id = ? AND day >= ?`, namespaceID, day).Scan(&nanos)
	return nanos, err
}

// OpenCharges are what was charged and isn't in the ledger yet, as entries without an id: the running debits of today, and of days that aren't settled.
func (c *Catalog) OpenCharges(ctx context.Context, namespaceID string) ([]Entry, error) {
	list := []Entry{}
	err := each(ctx, c.db, `SELECT day, debited - nanos FROM charges WHERE namespace_id = ? AND nanos <> debited ORDER BY day`, func(rows *sql.Rows) error {
		e := Entry{Kind: EntryDebit}
		err := rows.Scan(&e.Day, &e.Nanos)
		list = append(list, e)
		return err
	}, namespaceID)
	return list, err
}

// Ledger lists a namespace's entries, the newest first; before is the id of one, or "".
func (c *Catalog) Ledger(ctx context.Context, namespaceID, before string, limit int) ([]Entry, error) {
	list := []Entry{}
	err := each(ctx, c.db, `SELECT id, seq, at, kind, coalesce(day, 0), nanos, note FROM ledger WHERE namespace_id = ?1
		AND (?2 = '' OR seq < (SELECT seq FROM ledger WHERE id = ?2 AND namespace_id = ?1)) ORDER BY seq DESC LIMIT ?3`, func(rows *sql.Rows) error {
		var e Entry
		var at int64
		err := rows.Scan(&e.ID, &e.Seq, &at, &e.Kind, &e.Day, &e.Nanos, &e.Note)
		e.At = fromMillis(at)
		list = append(list, e)
		return err
	}, namespaceID, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	return list, nil
}

// The scopes and spans of caps.
const (
	CapNamespace = "namespace"
	CapDatabase  = "database"
	CapToken     = "token"
	CapDay       = "day"
	CapMonth     = "month"
)

// Cap is the most that may be spent in a span of time, in UTC.
type Cap struct {
	Scope    string
	TargetID string // of the database or token; "" for the namespace
	Span     string
	Nanos    int64
}

// ErrCap is returned for a cap that none can be.
var ErrCap = errors.New("a cap has a scope (namespace, database or token), an id unless it is the namespace's, a window (day or month) and an amount of 0 or more")

// Caps are a namespace's caps.
func (c *Catalog) Caps(ctx context.Context, namespaceID string) ([]Cap, error) {
	list := []Cap{}
	err := each(ctx, c.db, `SELECT scope, target_id, span, nanos FROM caps WHERE namespace_id = ? ORDER BY scope, target_id, span`, func(rows *sql.Rows) error {
		var one Cap
		err := rows.Scan(&one.Scope, &one.TargetID, &one.Span, &one.Nanos)
		list = append(list, one)
		return err
	}, namespaceID)
	if err != nil {
		return nil, fmt.Errorf("read caps: %w", err)
	}
	return list, nil
}

// SetCaps replaces a namespace's caps.
func (c *Catalog) SetCaps(ctx context.Context, namespaceID string, caps []Cap) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	ns, err := c.NamespaceByID(namespaceID)
	if err != nil {
		return err
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM caps WHERE namespace_id = ?`, namespaceID); err != nil {
			return err
		}
		texts := []map[string]any{}
		for _, one := range caps {
			if _, err := tx.ExecContext(ctx, `INSERT INTO caps (namespace_id, scope, target_id, span, nanos) VALUES (?, ?, ?, ?, ?)`,
				namespaceID, one.Scope, one.TargetID, one.Span, one.Nanos); err != nil {
				return err
			}
			texts = append(texts, map[string]any{"scope": one.Scope, "id": one.TargetID, "window": one.Span, "usd": DollarText(one.Nanos)})
		}
		return c.audit(ctx, tx, namespaceEvent("billing.caps_set", ns, map[string]any{"caps": texts}))
	}, func(*mirror) {})
	if err != nil {
		return fmt.Errorf("set caps: %w", err)
	}
	return nil
}

// DollarText is an amount in dollars, exactly.
func DollarText(nanos int64) string {
	sign := ""
	n := uint64(nanos)
	if nanos < 0 {
		sign, n = "-", -n
	}
	text := fmt.Sprintf("%s%d.%09d", sign, n/1e9, n%1e9)
	end := len(text)
	for text[end-1] == '0' {
		end--
	}
	if text[end-1] == '.' {
		end--
	}
	return text[:end]
}

// ErrDollars is returned for a text that is no amount of dollars.
var ErrDollars = errors.New("an amount is a number of dollars such as 20 or 0.005, with at most 9 decimals")

// MaxNanos is the greatest amount that a text may name: a billion dollars.
const MaxNanos = 1_000_000_000_000_000_000

// ParseDollars reads an amount of dollars, which may be negative, exactly.
func ParseDollars(text string) (nanos int64, err error) {
	number, negative := strings.CutPrefix(text, "-")
	whole, fraction, point := strings.Cut(number, ".")
	if whole == "" || len(whole) > 10 || point && fraction == "" || len(fraction) > 9 {
		return 0, ErrDollars
	}
	for _, c := range []byte(whole + fraction) {
		if c < '0' || c > '9' {
			return 0, ErrDollars
		}
	}
	n, err := strconv.ParseInt(whole+fraction+"000000000"[len(fraction):], 10, 64)
	if err != nil || n > MaxNanos {
		return 0, ErrDollars
	}
	if negative {
		n = -n
	}
	return n, nil
}
