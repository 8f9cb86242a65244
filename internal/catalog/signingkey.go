package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"
)

// SigningKey is a key that the server signs with, or did. It is not changed after it was handed out.
type SigningKey struct {
	ID        string
	Public    string // a JWK
	CreatedAt time.Time
	EndsAt    time.Time // nothing is verified with it from then on; zero for the one that signs

	private []byte // sealed
}

// SigningKeys are the keys that signatures are verified with, the one that signs first.
func (c *Catalog) SigningKeys() []*SigningKey {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	return livingKeys(c.mirror.keys, c.now())
}

func livingKeys(keys []*SigningKey, now time.Time) (living []*SigningKey) {
	for _, k := range keys {
		if k.EndsAt.IsZero() || now.Before(k.EndsAt) {
			living = append(living, k)
		}
	}
	return living
}

// SigningSecret is the private half of a key, as it was given. ErrSealed where the key is lost that sealed it.
func (c *Catalog) SigningSecret(k *SigningKey) (string, error) {
	secret, err := c.seal.reveal(k.private, k.ID)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrSealed, err)
	}
	return secret, nil
}

// NewSigningKey is what a signing key is made of.
type NewSigningKey struct {
	ID, Public, Private string
	Overlap             time.Duration // how long the one before is still good to verify with
	// Instead is the key in whose place it comes: where another one signs by now, that one is returned and nothing made. nil is for none, Replace for any.
	Instead *SigningKey
	Replace bool
}

// AddSigningKey makes a key the one that signs.
func (c *Catalog) AddSigningKey(ctx context.Context, n NewSigningKey) (*SigningKey, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	c.mirror.mu.RLock()
	all := slices.Clone(c.mirror.keys)
	c.mirror.mu.RUnlock()
	var current *SigningKey
	if len(all) > 0 && all[0].EndsAt.IsZero() {
		current = all[0]
	}
	if !n.Replace && current != nil && (n.Instead == nil || n.Instead.ID != current.ID) {
		return current, nil
	}
	k := &SigningKey{ID: n.ID, Public: n.Public, CreatedAt: c.moment()}
	var err error
	if k.private, err = c.seal.close(n.Private, k.ID); err != nil {
		return nil, fmt.Errorf("add signing key: %w", err)
	}
	ends := c.moment().Add(n.Overlap)
	for i, old := range all {
		if old.EndsAt.IsZero() || ends.Before(old.EndsAt) { // a shorter overlap counts for those before too
			ended := *old
			ended.EndsAt = ends
			all[i] = &ended
		}
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE signing_keys SET ends_at = ?1 WHERE ends_at IS NULL OR ends_at > ?1`, ends.UnixMilli()); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO signing_keys (id, public, private, created_at) VALUES (?, ?, ?, ?)`, k.ID, k.Public, k.private, k.CreatedAt.UnixMilli()); err != nil {
			return err
		}
		metadata := map[string]any{"overlapSeconds": int64(n.Overlap.Seconds())}
		if current != nil {
			metadata["former"] = current.ID
		}
		return c.audit(ctx, tx, Event{Action: "signing_key.created", TargetType: "signing_key", TargetID: k.ID, TargetName: k.ID, Metadata: metadata})
	}, func(m *mirror) {
		m.keys = append([]*SigningKey{k}, livingKeys(all, c.now())...)
	})
	if err != nil {
		return nil, fmt.Errorf("add signing key: %w", err)
	}
	return k, nil
}

func loadSigningKeys(ctx context.Context, db *sql.DB) (keys []*SigningKey, err error) {
	err = each(ctx, db, `SELECT id, public, private, created_at, ends_at FROM signing_keys ORDER BY seq DESC`, func(rows *sql.Rows) error {
		var k SigningKey
		var created int64
		var ends sql.NullInt64
		if err := rows.Scan(&k.ID, &k.Public, &k.private, &created, &ends); err != nil {
			return err
		}
		k.CreatedAt, k.EndsAt = fromMillis(created), fromNullMillis(ends)
		keys = append(keys, &k)
		return nil
	})
	return keys, err
}
