package catalog

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// WebhookEvents is a set of what a webhook is told of.
type WebhookEvents uint16

// What a webhook can be told of. The values are in the catalog's file.
const (
	EventInsert WebhookEvents = 1 << iota
	EventUpdate
	EventDelete
	EventSchema
	EventApprovalRequired
	EventApprovalResolved
	EventBalanceLow

	// RowEvents are the events that the database's journal tells of, and AllEvents are all.
	RowEvents = EventInsert | EventUpdate | EventDelete | EventSchema
	AllEvents = 1<<iota - 1
)

var webhookEventNames = []string{"insert", "update", "delete", "schema", "approval_required", "approval_resolved", "balance_low"}

// ParseWebhookEvents is the set of names; none at all are all. It returns ErrWebhookEvents.
func ParseWebhookEvents(names []string) (e WebhookEvents, err error) {
	if names == nil {
		return AllEvents, nil
	}
	for _, name := range names {
		i := slices.Index(webhookEventNames, name)
		if i < 0 {
			return 0, fmt.Errorf("%w, not %q", ErrWebhookEvents, name)
		}
		e |= 1 << i
	}
	if e == 0 {
		return 0, ErrWebhookEvents
	}
	return e, nil
}

// Names are the names of the events, in the contract's order.
func (e WebhookEvents) Names() []string {
	names := []string{}
	for i, name := range webhookEventNames {
		if e&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// Webhook is who is told of what happens in a database. It is not changed after it was handed out.
type Webhook struct {
	ID         string
	DatabaseID string
	Name       string
	URL        string
	Tables     []string // nil for all
	Events     WebhookEvents
	Enabled    bool
	BegunAt    time.Time // it is told of what happens since then: since it was made, or enabled
	Tries      int       // how often somebody has asked for it to be tried at once, since the server has started
	CreatedAt  time.Time
	CreatedBy  string // id of a token or a user

	secret, former []byte    // sealed
	formerUntil    time.Time // the former secret signs until then
}

// prefixWebhookSecret begins the secret of a webhook (Standard Webhooks, "Signature scheme").
const prefixWebhookSecret = "whsec_"

// webhookSecretSize is the bytes of a secret: 64 characters in base64.
const webhookSecretSize = 48

// newWebhookSecret makes a secret.
func newWebhookSecret() string {
	b := make([]byte, webhookSecretSize)
	rand.Read(b) // never fails
	return prefixWebhookSecret + base64.StdEncoding.EncodeToString(b)
}

// WebhookList is the webhooks of a database at a moment, in the order of their making.
type WebhookList struct{ all []*Webhook }

// All are the webhooks of a list; of nil there are none.
func (l *WebhookList) All() []*Webhook {
	if l == nil {
		return nil
	}
	return l.all
}

// hooked is a database with other webhooks.
func (d *Database) hooked(all []*Webhook) *Database {
	changed := *d
	changed.Webhooks = nil
	if len(all) > 0 {
		changed.Webhooks = &WebhookList{all}
	}
	return &changed
}

// Webhook is a webhook of a database, or ErrWebhookNotFound.
func (d *Database) Webhook(id string) (*Webhook, error) {
	for _, w := range d.Webhooks.All() {
		if w.ID == id {
			return w, nil
		}
	}
	return nil, ErrWebhookNotFound
}

// hostOf is what the audit log keeps of an address: whatever follows the host may be a secret, and the log is kept for good.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func webhookEvent(action string, d *Database, w *Webhook) Event {
	return Event{NamespaceID: d.NamespaceID, Action: action, TargetType: "webhook", TargetID: w.ID, TargetName: w.Name, Test: d.Test,
		Metadata: map[string]any{"databaseId": d.ID, "host": hostOf(w.URL), "tables": w.Tables, "events": w.Events.Names(), "enabled": w.Enabled}}
}

// CreateWebhook makes a webhook with a new secret, which is told of what follows a change of the database. It returns ErrDatabaseNotFound, ErrName or
// ErrTooManyWebhooks.
func (c *Catalog) CreateWebhook(ctx context.Context, databaseID string, w Webhook, cursor int64, most int) (*Webhook, error) {
	if w.Name == "" || !validName(w.Name) {
		return nil, fmt.Errorf("create webhook: %w", ErrName)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.DatabaseByID(databaseID)
	if err != nil {
		return nil, fmt.Errorf("create webhook: %w", err)
	}
	if len(d.Webhooks.All()) >= most {
		return nil, fmt.Errorf("create webhook: %w", ErrTooManyWebhooks)
	}
	w.ID, w.DatabaseID, w.CreatedAt, w.CreatedBy = NewID("wh"), d.ID, c.moment(), actorOf(ctx).ID
	w.BegunAt = w.CreatedAt
	if w.secret, err = c.seal.close(newWebhookSecret(), w.ID); err != nil {
		return nil, fmt.Errorf("create webhook: %w", err)
	}
	tables, err := tablesText(w.Tables)
	if err != nil {
		return nil, fmt.Errorf("create webhook: %w", err)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO webhooks (id, database_id, name, url, tables, events, enabled, secret, begun_at, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			w.ID, d.ID, w.Name, w.URL, tables, int64(w.Events), w.Enabled, w.secret, w.BegunAt.UnixMilli(), w.CreatedAt.UnixMilli(), w.CreatedBy); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO webhook_progress (webhook_id, cursor, failures) VALUES (?, ?, 0)`, w.ID, cursor); err != nil {
			return err
		}
		return c.audit(ctx, tx, webhookEvent("webhook.created", d, &w))
	}, func(m *mirror) {
		m.replaceDatabase(d.hooked(append(slices.Clone(d.Webhooks.All()), &w)))
	})
	if err != nil {
		return nil, fmt.Errorf("create webhook: %w", err)
	}
	return &w, nil
}

func tablesText(tables []string) (any, error) {
	if tables == nil {
		return nil, nil
	}
	b, err := json.Marshal(tables)
	return string(b), err
}

// changeWebhook has a webhook's record be another one.
func (c *Catalog) changeWebhook(ctx context.Context, databaseID, id, action string, change func(*Webhook) error, also func(*sql.Tx) error) (*Webhook, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.DatabaseByID(databaseID)
	if err != nil {
		return nil, err
	}
	old, err := d.Webhook(id)
	if err != nil {
		return nil, err
	}
	w := *old
	if err := change(&w); err != nil {
		return nil, err
	}
	tables, err := tablesText(w.Tables)
	if err != nil {
		return nil, err
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE webhooks SET name = ?, url = ?, tables = ?, events = ?, enabled = ?, secret = ?, former = ?, former_until = ?, begun_at = ? WHERE id = ?`,
			w.Name, w.URL, tables, int64(w.Events), w.Enabled, w.secret, w.former, nullMillis(w.formerUntil), w.BegunAt.UnixMilli(), id); err != nil {
			return err
		}
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		return c.audit(ctx, tx, webhookEvent(action, d, &w))
	}, func(m *mirror) {
		all := slices.Clone(d.Webhooks.All())
		all[slices.Index(all, old)] = &w
		m.replaceDatabase(d.hooked(all))
	})
	if err != nil {
		return nil, err
	}
	return &w, nil
}

// UpdateWebhook changes a webhook's name, address, tables, events or whether it is enabled. cursor, if it isn't negative, is the change behind which it goes on. It returns
// ErrDatabaseNotFound, ErrWebhookNotFound, ErrName, or change's error.
func (c *Catalog) UpdateWebhook(ctx context.Context, databaseID, id string, change func(*Webhook) error, cursor int64) (*Webhook, error) {
	w, err := c.changeWebhook(ctx, databaseID, id, "webhook.updated", func(w *Webhook) error {
		if err := change(w); err != nil {
			return err
		}
		if w.Name == "" || !validName(w.Name) {
			return ErrName
		}
		if cursor >= 0 { // a moment of its own, or who is telling it now wouldn't notice
			w.BegunAt = later(c.moment(), w.BegunAt)
		}
		return nil
	}, func(tx *sql.Tx) error {
		if cursor < 0 {
			return nil
		}
		if _, err := tx.ExecContext(ctx, `UPDATE webhook_progress SET cursor = ?, failures = 0, retry_at = NULL WHERE webhook_id = ?`, cursor, id); err != nil {
			return err
		}
		// It goes on from now. What somebody wants told again has waited for less long than since it happened, and stays.
		_, err := tx.ExecContext(ctx, `DELETE FROM webhook_deliveries WHERE webhook_id = ? AND state = 'waiting' AND at = since`, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("update webhook %q: %w", id, err)
	}
	return w, nil
}

// later is a time, or the millisecond after another one if it isn't behind that.
func later(t, than time.Time) time.Time {
	if t.After(than) {
		return t
	}
	return than.Add(time.Millisecond)
}

// RotateWebhookSecret gives a webhook a new secret. The one before signs too for a while.
func (c *Catalog) RotateWebhookSecret(ctx context.Context, databaseID, id string, overlap time.Duration) (*Webhook, error) {
	w, err := c.changeWebhook(ctx, databaseID, id, "webhook.secret_rotated", func(w *Webhook) (err error) {
		w.former, w.formerUntil = w.secret, c.moment().Add(overlap)
		w.secret, err = c.seal.close(newWebhookSecret(), w.ID)
		return err
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("rotate secret of webhook %q: %w", id, err)
	}
	return w, nil
}

// DeleteWebhook ends a webhook, with what waits for it.
func (c *Catalog) DeleteWebhook(ctx context.Context, databaseID, id string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.DatabaseByID(databaseID)
	if err != nil {
		return fmt.Errorf("delete webhook: %w", err)
	}
	w, err := d.Webhook(id)
	if err != nil {
		return fmt.Errorf("delete webhook %q: %w", id, err)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM webhooks WHERE id = ?`, id); err != nil {
			return err
		}
		return c.audit(ctx, tx, webhookEvent("webhook.deleted", d, w))
	}, func(m *mirror) {
		m.replaceDatabase(d.hooked(slices.DeleteFunc(slices.Clone(d.Webhooks.All()), func(other *Webhook) bool { return other == w })))
	})
	if err != nil {
		return fmt.Errorf("delete webhook %q: %w", id, err)
	}
	return nil
}

// WebhookSecrets are what a webhook's messages are signed with: its secret, and the one before while that still signs. ErrSealed where the key is lost that sealed it.
func (c *Catalog) WebhookSecrets(w *Webhook) ([]string, error) {
	secret, err := c.seal.reveal(w.secret, w.ID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	list := []string{secret}
	if w.former != nil && c.now().Before(w.formerUntil) {
		if former, err := c.seal.reveal(w.former, w.ID); err == nil {
			list = append(list, former)
		}
	}
	return list, nil
}

// Webhooks are the webhooks of all living databases that have any.
func (c *Catalog) Webhooks() map[string][]*Webhook {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	all := make(map[string][]*Webhook, len(c.mirror.hooked))
	for id := range c.mirror.hooked {
		all[id] = c.mirror.databases[id].Webhooks.All()
	}
	return all
}

// noteHooked keeps the set of databases with webhooks.
func (m *mirror) noteHooked(d *Database) {
	if d.Webhooks != nil {
		m.hooked[d.ID] = struct{}{}
	} else {
		delete(m.hooked, d.ID)
	}
}

// loadWebhooks reads all webhooks, by the databases that they belong to.
func loadWebhooks(ctx context.Context, db *sql.DB) (map[string]*WebhookList, error) {
	lists := map[string]*WebhookList{}
	err := each(ctx, db, `SELECT id, database_id, name, url, tables, events, enabled, secret, former, former_until, begun_at, created_at, created_by FROM webhooks ORDER BY seq`, func(rows *sql.Rows) error {
		w := &Webhook{}
		var tables sql.NullString
		var until sql.NullInt64
		var begun, created int64
		if err := rows.Scan(&w.ID, &w.DatabaseID, &w.Name, &w.URL, &tables, &w.Events, &w.Enabled, &w.secret, &w.former, &until, &begun, &created, &w.CreatedBy); err != nil {
			return err
		}
		w.BegunAt, w.CreatedAt, w.formerUntil = fromMillis(begun), fromMillis(created), fromNullMillis(until)
		if tables.Valid {
			if err := json.Unmarshal([]byte(tables.String), &w.Tables); err != nil {
				return fmt.Errorf("webhook %s: %w", w.ID, err)
			}
		}
		if lists[w.DatabaseID] == nil {
			lists[w.DatabaseID] = &WebhookList{}
		}
		lists[w.DatabaseID].all = append(lists[w.DatabaseID].all, w)
		return nil
	})
	return lists, err
}
