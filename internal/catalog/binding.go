package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// maxBindings is how many bindings a namespace may have.
const maxBindings = 1000

// NewBinding is what a binding is made of.
type NewBinding struct {
	NamespaceID string
	Issuer      string // "" for GitHub Actions, or one that the operator has named: the first that uses it
	Name        string // owner/repo
	StableID    string // the repository's id; "" for that of the first who uses it
}

func bindingEvent(action string, b *Binding, metadata map[string]any) Event {
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["issuer"], metadata["stableId"] = b.Issuer, b.StableID
	return Event{NamespaceID: b.NamespaceID, Action: action, TargetType: "binding", TargetID: b.ID, TargetName: b.Name, Metadata: metadata}
}

// Bind lets a machine into a namespace; made is false where it was let in already. It returns ErrNamespaceNotFound, ErrIdentityName, ErrIdentityBound where it is bound to
// another namespace, or to this one with another id, or ErrTooManyBindings.
func (c *Catalog) Bind(ctx context.Context, n NewBinding) (b *Binding, made bool, err error) {
	if err := checkIdentityName(n.Name); err != nil {
		return nil, false, fmt.Errorf("bind identity: %w", err)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	ns, ok := c.namespaceByID(n.NamespaceID)
	if !ok {
		return nil, false, fmt.Errorf("bind identity: %w", ErrNamespaceNotFound)
	}
	folded := foldIdentity(n.Name)
	var there []*Binding
	err = each(ctx, c.db, selectBindings+` WHERE b.folded = ?1 AND (?2 IN ('', b.issuer) OR b.issuer = '') ORDER BY b.issuer = ?2 DESC, b.seq`, func(rows *sql.Rows) error {
		other, err := scanBinding(rows)
		there = append(there, other)
		return err
	}, folded, n.Issuer)
	if err != nil {
		return nil, false, fmt.Errorf("bind identity: %w", err)
	}
	for _, other := range there {
		// An open one counts against every issuer: naming one must be no way to come before it.
		if other.NamespaceID != ns.ID || n.StableID != "" && other.StableID != n.StableID {
			return nil, false, fmt.Errorf("bind identity %q: %w", n.Name, ErrIdentityBound)
		}
	}
	if len(there) > 0 && (n.Issuer == "" || there[0].Issuer == n.Issuer) {
		return there[0], false, nil
	}
	b = &Binding{ID: NewID("bnd"), NamespaceID: ns.ID, NamespaceSlug: ns.Slug, Issuer: n.Issuer, Name: n.Name, StableID: n.StableID, CreatedAt: c.moment(), CreatedBy: actorOf(ctx).ID,
		folded: folded, owner: ownerOfIdentity(folded)}
	err = c.change(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM identity_bindings WHERE namespace_id = ?`, ns.ID).Scan(&n); err != nil {
			return err
		}
		if n >= maxBindings {
			return ErrTooManyBindings
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO identity_bindings (id, namespace_id, issuer, name, folded, stable_id, owner, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			b.ID, b.NamespaceID, b.Issuer, b.Name, b.folded, nullText(b.StableID), b.owner, b.CreatedAt.UnixMilli(), b.CreatedBy); err != nil {
			return err
		}
		return c.audit(ctx, tx, bindingEvent("identity.bound", b, nil))
	}, func(*mirror) {})
	if err != nil {
		return nil, false, fmt.Errorf("bind identity %q: %w", n.Name, err)
	}
	return b, true, nil
}

// Bindings are those of a namespace, or of all where its id is "", in the order of their making. It reads the file.
func (c *Catalog) Bindings(ctx context.Context, namespaceID string) ([]*Binding, error) {
	list := []*Binding{}
	err := each(ctx, c.db, selectBindings+` WHERE ?1 IN ('', b.namespace_id) ORDER BY b.seq`, func(rows *sql.Rows) error {
		b, err := scanBinding(rows)
		list = append(list, b)
		return err
	}, namespaceID)
	if err != nil {
		return nil, fmt.Errorf("list bindings: %w", err)
	}
	return list, nil
}

// BindingNamed is the binding of a name in a namespace, of an issuer unless that is "". It returns ErrBindingNotFound.
func (c *Catalog) BindingNamed(ctx context.Context, namespaceID, issuer, name string) (*Binding, error) {
	return scanBinding(c.db.QueryRowContext(ctx, selectBindings+` WHERE b.namespace_id = ?1 AND b.folded = ?2 AND ?3 IN ('', b.issuer) ORDER BY b.seq LIMIT 1`, namespaceID, foldIdentity(name), issuer))
}

// Unbind ends a binding of a namespace, with the tokens that it got. The database stays. It returns ErrBindingNotFound.
func (c *Catalog) Unbind(ctx context.Context, namespaceID, id string) (b *Binding, ended int, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	b, err = scanBinding(c.db.QueryRowContext(ctx, selectBindings+` WHERE b.id = ? AND b.namespace_id = ?`, id, namespaceID))
	if err != nil {
		return nil, 0, fmt.Errorf("unbind %q: %w", id, err)
	}
	var dead []Hash
	err = c.change(ctx, func(tx *sql.Tx) error {
		if dead, err = c.revokeVia(ctx, tx, b.ID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM identity_bindings WHERE id = ?`, b.ID); err != nil {
			return err
		}
		return c.audit(ctx, tx, bindingEvent("identity.unbound", b, map[string]any{"tokensEnded": len(dead)}))
	}, func(m *mirror) { m.endTokens(dead) })
	if err != nil {
		return nil, 0, fmt.Errorf("unbind %q: %w", id, err)
	}
	return b, len(dead), nil
}

// RecognizeBinding is the binding of a machine. One whose issuer is open is a machine's of an issuer for which open is true, and from then on of that issuer alone. It
// returns ErrBindingNotFound, or ErrIdentityMismatch with the reason.
func (c *Catalog) RecognizeBinding(ctx context.Context, m Machine, open bool) (*Binding, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	// The binding that names the issuer comes before the one that leaves it open.
	b, err := scanBinding(c.db.QueryRowContext(ctx, selectBindings+` WHERE b.folded = ?1 AND (b.issuer = ?2 OR ?3 AND b.issuer = '') ORDER BY b.issuer DESC LIMIT 1`, foldIdentity(m.Name), m.Issuer, open))
	if err != nil {
		return nil, err
	}
	fresh, err := sameMachine(&b.StableID, &b.OwnerID, m)
	if err != nil {
		return nil, err
	}
	if b.Issuer == m.Issuer && !fresh {
		return b, nil
	}
	b.Issuer = m.Issuer
	return b, c.change(ctx, func(tx *sql.Tx) error {
		if err := sameOwner(ctx, tx, m); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE identity_bindings SET issuer = ?, stable_id = ?, owner_id = ? WHERE id = ?`, b.Issuer, nullText(b.StableID), nullText(b.OwnerID), b.ID); err != nil {
			return err
		}
		return c.audit(ctx, tx, bindingEvent("identity.recognized", b, map[string]any{"ownerId": b.OwnerID}))
	}, func(*mirror) {})
}

// SetBindingDatabase says which database is a binding's. It returns ErrBindingNotFound.
func (c *Catalog) SetBindingDatabase(ctx context.Context, id, databaseID string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	err := c.change(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE identity_bindings SET database_id = ? WHERE id = ?`, databaseID, id)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrBindingNotFound)
		}
		return nil
	}, func(*mirror) {})
	if err != nil {
		return fmt.Errorf("set the database of binding %q: %w", id, err)
	}
	return nil
}
