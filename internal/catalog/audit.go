package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"
)

// The kinds of actors.
const (
	ActorToken     = "token"     // a request with a token
	ActorUser      = "user"      // a request of a person who is signed in, or signs in
	ActorAnonymous = "anonymous" // a request of nobody that is known, such as a sign-in that failed
	ActorOperator  = "operator"  // a subcommand
	ActorSchedule  = "schedule"  // a schedule's run
	ActorIdentity  = "identity"  // a request with a token of a trusted issuer
	ActorServer    = "server"    // the server by itself: the first start, the end of a time in the trash
)

// Actor is who changes something.
type Actor struct {
	Type    string // one of the kinds
	ID      string // a token's, a user's, a schedule's, or that of a machine identity or a binding
	Address string // where the request came from
}

type actorKey struct{}

// WithActor says who makes the changes that are made with the context. Without one it is the server.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

func actorOf(ctx context.Context) Actor {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok {
		return a
	}
	return Actor{Type: ActorServer}
}

// Event is an entry of the audit log.
type Event struct {
	ID          string
	At          time.Time
	NamespaceID string // "" for what concerns the server as a whole, such as users and sessions
	Action      string // for example "database.created"
	Actor       Actor
	TargetType  string // "database", "token", "namespace", "user", "session", "invitation", "policy", "schedule", "identity", "binding", "signing_key", "oauth_client" or "oauth_grant"
	TargetID    string
	TargetName  string // a slug, the name of a token, or the e-mail address of a user
	Test        bool   // the target is a test database or a test token
	Metadata    map[string]any
}

func databaseEvent(action string, d *Database, metadata map[string]any) Event {
	return Event{NamespaceID: d.NamespaceID, Action: action, TargetType: "database", TargetID: d.ID, TargetName: d.Slug, Test: d.Test, Metadata: metadata}
}

func tokenEvent(action string, t *Token, metadata map[string]any) Event {
	return Event{NamespaceID: t.NamespaceID, Action: action, TargetType: "token", TargetID: t.ID, TargetName: t.Name, Test: t.Test, Metadata: metadata}
}

// audit adds an entry in the transaction of the change that it tells of.
func (c *Catalog) audit(ctx context.Context, tx *sql.Tx, e Event) error {
	row, err := c.entry(ctx, e)
	if err != nil {
		return err
	}
	return addEntry(ctx, tx, row)
}

// entry is the row of an event that happens now, by whom the context says.
func (c *Catalog) entry(ctx context.Context, e Event) (row []any, err error) {
	actor := actorOf(ctx)
	if e.Metadata == nil {
		e.Metadata = map[string]any{}
	}
	metadata, err := json.Marshal(e.Metadata)
	if err != nil {
		return nil, fmt.Errorf("write audit log: %w", err)
	}
	return []any{NewID("aud"), c.moment().UnixMilli(), e.NamespaceID, e.Action, actor.Type, nullText(actor.ID), nullText(actor.Address), e.TargetType, e.TargetID, e.TargetName, e.Test, string(metadata)}, nil
}

func addEntry(ctx context.Context, tx *sql.Tx, row []any) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO audit (id, at, namespace_id, action, actor_type, actor_id, address, target_type, target_id, target_name, test, metadata)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, row...)
	if err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	return nil
}

// Record adds an entry about a change that is not the catalog's: of a database's content as a whole.
func (c *Catalog) Record(ctx context.Context, action string, d *Database, metadata map[string]any) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	return c.change(ctx, func(tx *sql.Tx) error {
		return c.audit(ctx, tx, databaseEvent(action, d, metadata))
	}, func(*mirror) {})
}

// RecordNamespace adds an entry about what was done for a namespace and isn't the catalog's: ErrNamespaceNotFound if it is gone.
func (c *Catalog) RecordNamespace(ctx context.Context, action, namespaceID string, metadata map[string]any) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	ns, ok := c.namespaceByID(namespaceID)
	if !ok {
		return fmt.Errorf("record %s: %w", action, ErrNamespaceNotFound)
	}
	return c.change(ctx, func(tx *sql.Tx) error {
		return c.audit(ctx, tx, namespaceEvent(action, ns, metadata))
	}, func(*mirror) {})
}

// AuditQuery says which entries are listed.
type AuditQuery struct {
	NamespaceID string // "" for the entries that are of no namespace
	All         bool   // of all namespaces and none, for the operator
	TestOnly    bool
	Action      string // of all if empty
	Before      string // id of an entry: only those before it
	Limit       int
}

// Audit lists entries of the audit log, the newest first. It reads the file.
func (c *Catalog) Audit(ctx context.Context, q AuditQuery) ([]Event, error) {
	if err := c.flushNotes(ctx); err != nil {
		c.logger.Error("write audit log", "error", err) // what is written can be listed all the same
	}
	list := []Event{}
	in := `namespace_id = ?1` // by the index
	if q.All {
		in = `?1 IS NOT NULL`
	}
	err := each(ctx, c.db, `SELECT id, at, namespace_id, action, actor_type, actor_id, address, target_type, target_id, target_name, test, metadata FROM audit
		WHERE `+in+` AND (NOT ?2 OR test) AND (?3 = '' OR action = ?3)
		AND (?4 = '' OR seq < (SELECT seq FROM audit WHERE id = ?4 AND `+in+`)) ORDER BY seq DESC LIMIT ?5`, func(rows *sql.Rows) error {
		var e Event
		var at int64
		var actor, address sql.NullString
		var metadata string
		if err := rows.Scan(&e.ID, &at, &e.NamespaceID, &e.Action, &e.Actor.Type, &actor, &address, &e.TargetType, &e.TargetID, &e.TargetName, &e.Test, &metadata); err != nil {
			return err
		}
		e.At, e.Actor.ID, e.Actor.Address = fromMillis(at), actor.String, address.String
		list = append(list, e)
		return json.Unmarshal([]byte(metadata), &list[len(list)-1].Metadata)
	}, q.NamespaceID, q.TestOnly, q.Action, q.Before, q.Limit)
	if err != nil {
		return nil, fmt.Errorf("list audit log: %w", err)
	}
	return list, nil
}
