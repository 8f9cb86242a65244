package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// The types of messages to webhooks.
const (
	MessageRowChange        = "row.change"
	MessageApprovalRequired = "approval.required"
	MessageApprovalResolved = "approval.resolved"
	MessageBalanceLow       = "balance.low"
)

// DeliveryState is where a message to a webhook stands.
type DeliveryState string

// The states. A parked message is told again only when somebody asks for it.
const (
	DeliveryWaiting DeliveryState = "waiting"
	Delivered       DeliveryState = "delivered"
	DeliveryParked  DeliveryState = "parked"
)

// Delivery is a message to a webhook.
type Delivery struct {
	Seq      int64  // its place; 0 for one that isn't kept yet
	ID       string // the same however often it is told
	Type     string
	Content  []byte // a JSON object: what it says beside its id, type, time and database
	At       time.Time
	State    DeliveryState
	Since    time.Time // it waits since then, or again since then
	Attempts int
	LastAt   time.Time
	Status   int // of the answer, an HTTP status; 0 without one
	Error    string
	Duration time.Duration
}

// WebhookProgress is how far a webhook has got.
type WebhookProgress struct {
	WebhookID  string
	Cursor     int64 // the last change that was told; a negative one leaves what is kept
	Failures   int   // attempts since the last that succeeded
	RetryAt    time.Time
	LastAt     time.Time
	LastStatus int
	LastError  string
}

// WebhookProgress is how far each webhook of a database has got, by their ids; of all databases if the id is empty. It reads the file.
func (c *Catalog) WebhookProgress(ctx context.Context, databaseID string) (map[string]WebhookProgress, error) {
	all := map[string]WebhookProgress{}
	err := each(ctx, c.db, `SELECT webhook_id, cursor, failures, retry_at, last_at, last_status, last_error FROM webhook_progress
		WHERE ?1 = '' OR webhook_id IN (SELECT id FROM webhooks WHERE database_id = ?1)`, func(rows *sql.Rows) error {
		var p WebhookProgress
		var retry, last, status sql.NullInt64
		var text sql.NullString
		if err := rows.Scan(&p.WebhookID, &p.Cursor, &p.Failures, &retry, &last, &status, &text); err != nil {
			return err
		}
		p.RetryAt, p.LastAt, p.LastStatus, p.LastError = fromNullMillis(retry), fromNullMillis(last), int(status.Int64), text.String
		all[p.WebhookID] = p
		return nil
	}, databaseID)
	if err != nil {
		return nil, fmt.Errorf("read progress of webhooks: %w", err)
	}
	return all, nil
}

// FinishedDelivery is a message that was told, or parked.
type FinishedDelivery struct {
	WebhookID string
	Delivery
}

// SaveDeliveries keeps how far webhooks have got and what became of messages: of each webhook the last so many that were delivered and that were parked.
// What belongs to a webhook that is gone is passed over.
func (c *Catalog) SaveDeliveries(ctx context.Context, progress []WebhookProgress, finished []FinishedDelivery, keepDelivered, keepParked int) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	err := c.commit(ctx, func(tx *sql.Tx) error {
		for _, p := range progress {
			if _, err := tx.ExecContext(ctx, `UPDATE webhook_progress SET cursor = CASE WHEN ?1 < 0 THEN cursor ELSE ?1 END, failures = ?, retry_at = ?, last_at = ?, last_status = ?, last_error = ? WHERE webhook_id = ?`,
				p.Cursor, p.Failures, nullMillis(p.RetryAt), nullMillis(p.LastAt), nullInt(p.LastStatus), nullText(p.LastError), p.WebhookID); err != nil {
				return err
			}
		}
		touched := map[string]struct{}{}
		for _, f := range finished {
			touched[f.WebhookID] = struct{}{}
			if f.Seq > 0 { // it goes to its place in the log, which is in the order of telling
				if _, err := tx.ExecContext(ctx, `DELETE FROM webhook_deliveries WHERE seq = ?`, f.Seq); err != nil {
					return err
				}
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO webhook_deliveries (state, attempts, last_at, status, error, duration_ms, id, type, content, at, since, webhook_id)
				SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, id FROM webhooks WHERE id = ?`, string(f.State), f.Attempts, nullMillis(f.LastAt), nullInt(f.Status), nullText(f.Error), f.Duration.Milliseconds(),
				f.ID, f.Type, string(f.Content), f.At.UnixMilli(), f.Since.UnixMilli(), f.WebhookID); err != nil {
				return err
			}
		}
		for id := range touched {
			for state, keep := range map[DeliveryState]int{Delivered: keepDelivered, DeliveryParked: keepParked} {
				if _, err := tx.ExecContext(ctx, `DELETE FROM webhook_deliveries WHERE webhook_id = ?1 AND state = ?2 AND seq <=
					(SELECT seq FROM webhook_deliveries WHERE webhook_id = ?1 AND state = ?2 ORDER BY seq DESC LIMIT 1 OFFSET ?3)`, id, string(state), keep); err != nil {
					return err
				}
			}
		}
		return nil
	}, func(*mirror) {})
	if err != nil {
		return fmt.Errorf("save deliveries: %w", err)
	}
	return nil
}

func nullInt(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

// queue has all enabled webhooks of a database that want to hear of an event be told of it, in the transaction of what it tells of.
func (c *Catalog) queue(ctx context.Context, tx *sql.Tx, d *Database, event WebhookEvents, messageType string, content any) error {
	var text []byte
	for _, w := range d.Webhooks.All() {
		if !w.Enabled || w.Events&event == 0 {
			continue
		}
		if text == nil {
			var err error
			if text, err = json.Marshal(content); err != nil {
				return err
			}
		}
		now := c.moment().UnixMilli()
		if _, err := tx.ExecContext(ctx, `INSERT INTO webhook_deliveries (id, webhook_id, type, content, at, state, since, attempts) VALUES (?, ?, ?, ?, ?, 'waiting', ?, 0)`,
			NewID("msg"), w.ID, messageType, string(text), now, now); err != nil {
			return err
		}
	}
	return nil
}

// Queued is another number whenever something was queued for webhooks.
func (c *Catalog) Queued() uint64 { return c.queued.Load() }

// queueApproval has webhooks be told of an approval.
func (c *Catalog) queueApproval(ctx context.Context, tx *sql.Tx, event WebhookEvents, messageType string, a *Approval, status string) error {
	d, err := c.DatabaseByID(a.DatabaseID)
	if err != nil {
		return nil // it was deleted meanwhile: nobody is there to be told
	}
	return c.queue(ctx, tx, d, event, messageType, map[string]any{"approvalId": a.ID, "status": status, "hits": a.Hits})
}

// WaitingWebhooks are the ids of the webhooks for which a message waits that is no change of a row. It reads the file.
func (c *Catalog) WaitingWebhooks(ctx context.Context) (ids []string, err error) {
	err = each(ctx, c.db, `SELECT DISTINCT webhook_id FROM webhook_deliveries WHERE state = 'waiting'`, func(rows *sql.Rows) error {
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for waiting webhooks: %w", err)
	}
	return ids, nil
}

const selectDeliveries = `SELECT seq, id, type, content, at, state, since, attempts, last_at, status, error, duration_ms FROM webhook_deliveries `

func (c *Catalog) deliveries(ctx context.Context, query string, args ...any) ([]Delivery, error) {
	list := []Delivery{}
	err := each(ctx, c.db, query, func(rows *sql.Rows) error {
		var d Delivery
		var at, since int64
		var last, status, ms sql.NullInt64
		var text sql.NullString
		if err := rows.Scan(&d.Seq, &d.ID, &d.Type, &d.Content, &at, &d.State, &since, &d.Attempts, &last, &status, &text, &ms); err != nil {
			return err
		}
		d.At, d.Since, d.LastAt, d.Status, d.Error, d.Duration = fromMillis(at), fromMillis(since), fromNullMillis(last), int(status.Int64), text.String, time.Duration(ms.Int64)*time.Millisecond
		list = append(list, d)
		return nil
	}, args...)
	return list, err
}

// WaitingDeliveries are messages that wait for a webhook, in their order, behind one. It reads the file.
func (c *Catalog) WaitingDeliveries(ctx context.Context, webhookID string, after int64, limit int) ([]Delivery, error) {
	list, err := c.deliveries(ctx, selectDeliveries+`WHERE webhook_id = ? AND state = 'waiting' AND seq > ? ORDER BY seq LIMIT ?`, webhookID, after, limit)
	if err != nil {
		return nil, fmt.Errorf("look for waiting deliveries: %w", err)
	}
	return list, nil
}

// DeliveryQuery says which deliveries are listed.
type DeliveryQuery struct {
	WebhookID string
	State     DeliveryState // of all if empty
	Before    int64         // only those of earlier places, if it isn't 0
	Limit     int
}

// Deliveries lists what a webhook was told, was not told, or is about to be, the newest first. It reads the file.
func (c *Catalog) Deliveries(ctx context.Context, q DeliveryQuery) ([]Delivery, error) {
	list, err := c.deliveries(ctx, selectDeliveries+`WHERE webhook_id = ?1 AND (?2 = '' OR state = ?2) AND (?3 = 0 OR seq < ?3) ORDER BY seq DESC LIMIT ?4`,
		q.WebhookID, string(q.State), q.Before, q.Limit)
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	return list, nil
}

// ParkedDeliveries counts the messages of a webhook that are parked. It reads the file.
func (c *Catalog) ParkedDeliveries(ctx context.Context, webhookID string) (n int, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT count(*) FROM webhook_deliveries WHERE state = 'parked' AND webhook_id = ?`, webhookID).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count parked deliveries: %w", err)
	}
	return n, nil
}

// Replay has messages that were told or parked wait again: one by its id, or all that are parked if the id is empty. They keep their ids and their order among each other, and
// the webhook is tried at once. It returns how many they are; ErrDatabaseNotFound, ErrWebhookNotFound, or ErrDeliveryNotFound where one is asked for that isn't kept. What waits already doesn't wait twice.
func (c *Catalog) Replay(ctx context.Context, databaseID, webhookID, id string) (n int, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.DatabaseByID(databaseID)
	if err != nil {
		return 0, fmt.Errorf("replay deliveries: %w", err)
	}
	w, err := d.Webhook(webhookID)
	if err != nil {
		return 0, fmt.Errorf("replay deliveries of %q: %w", webhookID, err)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		// What was delivered stays in the log, so it is a copy that waits.
		result, err := tx.ExecContext(ctx, `INSERT INTO webhook_deliveries (id, webhook_id, type, content, at, state, since, attempts)
			SELECT id, webhook_id, type, content, at, 'waiting', ?3, 0 FROM webhook_deliveries WHERE webhook_id = ?1 AND (?2 = '' AND state = 'parked' OR id = ?2)
				AND id NOT IN (SELECT id FROM webhook_deliveries WHERE webhook_id = ?1 AND state = 'waiting')
			GROUP BY id ORDER BY min(seq)`, w.ID, id, c.moment().UnixMilli())
		if err != nil {
			return err
		}
		many, err := result.RowsAffected()
		if err != nil {
			return err
		}
		if n = int(many); n == 0 && id != "" {
			kept := false
			if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_id = ? AND id = ?)`, w.ID, id).Scan(&kept); err != nil {
				return err
			}
			if !kept {
				return ErrDeliveryNotFound
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM webhook_deliveries WHERE webhook_id = ?1 AND state = 'parked' AND (?2 = '' OR id = ?2)`, w.ID, id); err != nil {
			return err
		}
		e := webhookEvent("webhook.replayed", d, w)
		e.Metadata["deliveries"] = n
		return c.audit(ctx, tx, e)
	}, func(m *mirror) {
		again := *w
		again.Tries++
		all := slices.Clone(d.Webhooks.All())
		all[slices.Index(all, w)] = &again
		m.replaceDatabase(d.hooked(all))
	})
	if err != nil {
		return 0, fmt.Errorf("replay deliveries of webhook %q: %w", w.ID, err)
	}
	c.queued.Add(1)
	return n, nil
}

// BalanceLow notes that a namespace's balance is low, and has those be told who want to hear of it. It returns ErrNamespaceNotFound.
func (c *Catalog) BalanceLow(ctx context.Context, namespaceID, usd string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	ns, ok := c.namespaceByID(namespaceID)
	if !ok {
		return fmt.Errorf("note low balance: %w", ErrNamespaceNotFound)
	}
	var hooked []*Database
	for id := range c.Webhooks() {
		if d, err := c.DatabaseByID(id); err == nil && d.NamespaceID == namespaceID {
			hooked = append(hooked, d)
		}
	}
	defer c.queued.Add(1)
	return c.change(ctx, func(tx *sql.Tx) error {
		for _, d := range hooked {
			if err := c.queue(ctx, tx, d, EventBalanceLow, MessageBalanceLow, map[string]any{"balanceUsd": usd}); err != nil {
				return err
			}
		}
		return c.audit(ctx, tx, namespaceEvent("billing.balance_low", ns, map[string]any{"balanceUsd": usd}))
	}, func(*mirror) {})
}
