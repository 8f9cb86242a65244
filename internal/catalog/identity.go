package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Machine is whose machine asks, as a trusted issuer says it.
type Machine struct {
	Issuer  string
	Name    string // owner/repo, or another name that the issuer knows it by
	ID      string // what stays the same when the name goes to somebody else; "" where the issuer has none
	OwnerID string // likewise of the owner
	BuiltIn bool   // the operator has not named the issuer
}

// maxIdentityName is the longest name of a machine, in bytes.
const maxIdentityName = 256

func foldIdentity(name string) string { return strings.ToLower(name) }

// ownerOfIdentity is what comes before the last slash of a folded name: who can make others like it.
func ownerOfIdentity(folded string) string {
	if i := strings.LastIndexByte(folded, '/'); i > 0 {
		return folded[:i]
	}
	return ""
}

func checkIdentityName(name string) error {
	if name == "" || len(name) > maxIdentityName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ErrIdentityName
	}
	return nil
}

// Identity is a machine that has a namespace of its own.
type Identity struct {
	ID          string
	Issuer      string
	Name        string
	StableID    string
	OwnerID     string
	NamespaceID string
	BuiltIn     bool
	CreatedAt   time.Time

	folded, owner string
}

// Binding lets a machine into a namespace.
type Binding struct {
	ID            string
	NamespaceID   string
	NamespaceSlug string
	Issuer        string // "" until its first use: GitHub Actions, or one that the operator has named
	Name          string
	StableID      string // "" until its first use, where its issuer has one
	OwnerID       string
	DatabaseID    string // "" until its first use
	CreatedAt     time.Time
	CreatedBy     string // id of a token or a user; "" for the operator

	folded, owner string
}

const (
	selectIdentities = `SELECT id, issuer, name, folded, stable_id, owner, owner_id, namespace_id, built_in, created_at FROM machine_identities`
	selectBindings   = `SELECT b.id, b.namespace_id, n.slug, b.issuer, b.name, b.folded, b.stable_id, b.owner, b.owner_id, b.database_id, b.created_at, b.created_by
		FROM identity_bindings b JOIN namespaces n ON n.id = b.namespace_id`
)

func scanIdentity(row scanner) (*Identity, error) {
	var id Identity
	var stable, owner sql.NullString
	var created int64
	err := row.Scan(&id.ID, &id.Issuer, &id.Name, &id.folded, &stable, &id.owner, &owner, &id.NamespaceID, &id.BuiltIn, &created)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrIdentityUnknown
	}
	id.StableID, id.OwnerID, id.CreatedAt = stable.String, owner.String, fromMillis(created)
	return &id, err
}

func scanBinding(row scanner) (*Binding, error) {
	var b Binding
	var stable, owner, database sql.NullString
	var created int64
	err := row.Scan(&b.ID, &b.NamespaceID, &b.NamespaceSlug, &b.Issuer, &b.Name, &b.folded, &stable, &b.owner, &owner, &database, &created, &b.CreatedBy)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrBindingNotFound
	}
	b.StableID, b.OwnerID, b.DatabaseID, b.CreatedAt = stable.String, owner.String, database.String, fromMillis(created)
	return &b, err
}

// sameMachine compares what is known of a machine with what is said of it now. What is not known yet is taken in: fresh tells whether there was something. What is known
// and said no more is a mismatch too, or leaving it out would be the way around it.
func sameMachine(stableID, ownerID *string, m Machine) (fresh bool, err error) {
	for _, pair := range []struct {
		known *string
		said  string
		what  string
	}{{stableID, m.ID, "id"}, {ownerID, m.OwnerID, "owner id"}} {
		switch {
		case *pair.known == pair.said:
		case *pair.known == "":
			*pair.known, fresh = pair.said, true
		default:
			return false, fmt.Errorf("%w: %s had another %s when it was first seen, so it was deleted and made again, or is somebody else's now", ErrIdentityMismatch, m.Name, pair.what)
		}
	}
	return fresh, nil
}

// sameOwner looks whether the owner of a name is who had that name when another identity of it was seen.
func sameOwner(ctx context.Context, tx *sql.Tx, m Machine) error {
	owner := ownerOfIdentity(foldIdentity(m.Name))
	if owner == "" || m.OwnerID == "" {
		return nil
	}
	var other bool
	err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM machine_identities WHERE issuer = ?1 AND owner = ?2 AND owner_id <> ?3)
		OR EXISTS (SELECT 1 FROM identity_bindings WHERE issuer = ?1 AND owner = ?2 AND owner_id <> ?3)`, m.Issuer, owner, m.OwnerID).Scan(&other)
	if err == nil && other {
		err = fmt.Errorf("%w: the owner %s had another id when it was first seen, so the name is somebody else's now", ErrIdentityMismatch, owner)
	}
	return err
}

// RecognizeIdentity is the identity that a machine is. It returns ErrIdentityUnknown, or ErrIdentityMismatch with the reason.
func (c *Catalog) RecognizeIdentity(ctx context.Context, m Machine) (id *Identity, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	id, fresh, err := c.identityOf(ctx, m)
	if err != nil || !fresh {
		return id, err
	}
	return id, c.change(ctx, func(tx *sql.Tx) error {
		if err := sameOwner(ctx, tx, m); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE machine_identities SET stable_id = ?, owner_id = ? WHERE id = ?`, nullText(id.StableID), nullText(id.OwnerID), id.ID)
		return err
	}, func(*mirror) {})
}

// identityOf is the identity that a machine is, with what is said of it and wasn't known. The caller holds changing.
func (c *Catalog) identityOf(ctx context.Context, m Machine) (id *Identity, fresh bool, err error) {
	id, err = scanIdentity(c.db.QueryRowContext(ctx, selectIdentities+` WHERE issuer = ? AND folded = ?`, m.Issuer, foldIdentity(m.Name)))
	if errors.Is(err, ErrIdentityUnknown) && m.ID != "" {
		former, ferr := scanIdentity(c.db.QueryRowContext(ctx, selectIdentities+` WHERE issuer = ? AND stable_id = ?`, m.Issuer, m.ID))
		if ferr == nil {
			return nil, false, fmt.Errorf("%w: %s was %s when it was first seen", ErrIdentityMismatch, m.Name, former.Name)
		}
		err = ferr
	}
	if err != nil {
		return nil, false, err
	}
	fresh, err = sameMachine(&id.StableID, &id.OwnerID, m)
	return id, fresh, err
}

// NewMachineHome is what the first federation of a machine makes.
type NewMachineHome struct {
	Machine
	IdentityID string
	Slug       string // wanted for the namespace; another one is found where it is taken
	DatabaseID string // of its database, whose file is there
	Database   string // the database's slug
	Most       int    // identities of the issuer that may have a namespace
	MostOwner  int    // of the owner; 0 is no limit
}

// CreateMachineHome makes a machine's own namespace with a database, once: made is false where it was made before. It returns ErrSlug, ErrIdentityName, ErrIdentityMismatch or
// ErrTooManyIdentities.
func (c *Catalog) CreateMachineHome(ctx context.Context, n NewMachineHome) (id *Identity, made bool, err error) {
	if !ValidSlug(n.Slug) || !ValidSlug(n.Database) {
		return nil, false, fmt.Errorf("create namespace %q of a machine: %w", n.Slug, ErrSlug)
	}
	if err := checkIdentityName(n.Name); err != nil {
		return nil, false, fmt.Errorf("create namespace of a machine: %w", err)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	id, _, err = c.identityOf(ctx, n.Machine)
	if err == nil {
		return id, false, nil
	}
	if !errors.Is(err, ErrIdentityUnknown) {
		return nil, false, err
	}
	now := c.moment()
	ns := Namespace{ID: NewID("ns"), Slug: c.freeSlug(n.Slug), CreatedAt: now}
	d := &Database{ID: n.DatabaseID, NamespaceID: ns.ID, Slug: n.Database, Name: n.Database, Region: canonicalRegion(""), Status: StatusHealthy, CreatedAt: now}
	folded := foldIdentity(n.Name)
	id = &Identity{ID: n.IdentityID, Issuer: n.Issuer, Name: n.Name, StableID: n.Machine.ID, OwnerID: n.OwnerID, NamespaceID: ns.ID, BuiltIn: n.BuiltIn, CreatedAt: now,
		folded: folded, owner: ownerOfIdentity(folded)}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if err := sameOwner(ctx, tx, n.Machine); err != nil {
			return err
		}
		var all, owned int
		if err := tx.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE owner = ?2 AND owner <> '') FROM machine_identities WHERE issuer = ?1`, n.Issuer, id.owner).Scan(&all, &owned); err != nil {
			return err
		}
		if all >= n.Most || n.MostOwner > 0 && owned >= n.MostOwner {
			return ErrTooManyIdentities
		}
		if err := c.insertNamespace(ctx, tx, ns); err != nil {
			return err
		}
		if err := c.insertDatabase(ctx, tx, d, map[string]any{"region": d.Region}); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO machine_identities (id, issuer, name, folded, stable_id, owner, owner_id, namespace_id, built_in, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			id.ID, id.Issuer, id.Name, id.folded, nullText(id.StableID), id.owner, nullText(id.OwnerID), id.NamespaceID, id.BuiltIn, now.UnixMilli()); err != nil {
			return err
		}
		return c.audit(ctx, tx, Event{NamespaceID: ns.ID, Action: "identity.created", TargetType: "identity", TargetID: id.ID, TargetName: id.Name,
			Metadata: map[string]any{"issuer": id.Issuer, "stableId": id.StableID, "ownerId": id.OwnerID, "namespace": ns.Slug}})
	}, func(m *mirror) {
		m.addNamespace(ns)
		m.addDatabase(d)
	})
	if err != nil {
		return nil, false, fmt.Errorf("create namespace %q of a machine: %w", ns.Slug, err)
	}
	return id, true, nil
}

// Identities are all machines that have a namespace of their own, in the order of their coming. It reads the file.
func (c *Catalog) Identities(ctx context.Context) (list []*Identity, err error) {
	err = each(ctx, c.db, selectIdentities+` ORDER BY seq`, func(rows *sql.Rows) error {
		id, err := scanIdentity(rows)
		list = append(list, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list identities: %w", err)
	}
	return list, nil
}

// ForgetIdentity parts a machine from its namespace, which stays: the tokens that it got there end, and its next federation makes another namespace. Who has its name
// now can be somebody else. It returns ErrIdentityUnknown.
func (c *Catalog) ForgetIdentity(ctx context.Context, issuer, name string) (id *Identity, ended int, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	id, err = scanIdentity(c.db.QueryRowContext(ctx, selectIdentities+` WHERE issuer = ? AND folded = ?`, issuer, foldIdentity(name)))
	if err != nil {
		return nil, 0, fmt.Errorf("forget identity %q: %w", name, err)
	}
	var dead []Hash
	err = c.change(ctx, func(tx *sql.Tx) error {
		if dead, err = c.revokeVia(ctx, tx, id.ID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM machine_identities WHERE id = ?`, id.ID); err != nil {
			return err
		}
		return c.audit(ctx, tx, Event{NamespaceID: id.NamespaceID, Action: "identity.forgotten", TargetType: "identity", TargetID: id.ID, TargetName: id.Name,
			Metadata: map[string]any{"issuer": id.Issuer, "tokensEnded": len(dead)}})
	}, func(m *mirror) { m.endTokens(dead) })
	if err != nil {
		return nil, 0, fmt.Errorf("forget identity %q: %w", name, err)
	}
	return id, len(dead), nil
}

func (m *mirror) endTokens(dead []Hash) {
	for _, h := range dead {
		if t := m.tokens[h]; t != nil && t.OAuth != nil {
			m.endOAuthToken(t)
		}
		delete(m.tokens, h)
	}
}

// revokeVia ends the tokens that an identity or a binding got.
func (c *Catalog) revokeVia(ctx context.Context, tx *sql.Tx, via string) (dead []Hash, err error) {
	return c.revokeWhere(ctx, tx, `via = ?`, via)
}

// revokeWhere ends the tokens that a condition on one value is true of.
func (c *Catalog) revokeWhere(ctx context.Context, tx *sql.Tx, condition, value string) (dead []Hash, err error) {
	rows, err := tx.QueryContext(ctx, `UPDATE tokens SET revoked_at = ? WHERE `+condition+` AND revoked_at IS NULL RETURNING hash`, c.moment().UnixMilli(), value)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var hash []byte
		if err := rows.Scan(&hash); err != nil {
			return nil, err
		}
		dead = append(dead, Hash(hash))
	}
	return dead, errors.Join(rows.Err(), rows.Close())
}

// Grant is a token for a machine.
type Grant struct {
	Token   NewToken // with Via
	Action  string   // of the audit log: identity.federated, identity.connected or identity.granted
	Machine Machine
	// Used names the assertion that gets it, if that can be used once, until UsedUntil.
	Used      *Hash
	UsedUntil time.Time
}

// GrantToken makes a token for a machine, and notes with it that its assertion is used. It returns what CreateToken does, and ErrAssertionUsed.
func (c *Catalog) GrantToken(ctx context.Context, g Grant) (t *Token, secret string, err error) {
	if g.Token.Role == "" {
		g.Token.Role = RoleAdmin
	}
	if !validName(g.Token.Name) {
		return nil, "", fmt.Errorf("grant token: %w", ErrName)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	if g.Token.Via == "" || !g.Token.ExpiresAt.After(c.now()) {
		return nil, "", fmt.Errorf("grant token: %w", ErrExpiry)
	}
	secret = newToken(false)
	if t, err = c.describeToken(g.Token, secret); err != nil {
		return nil, "", fmt.Errorf("grant token: %w", err)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if g.Used != nil {
			if err := useAssertion(ctx, tx, *g.Used, g.UsedUntil); err != nil {
				return err
			}
		}
		// It was recognized a moment ago: who was unbound or forgotten meanwhile gets nothing.
		var known bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM machine_identities WHERE id = ?1) OR EXISTS (SELECT 1 FROM identity_bindings WHERE id = ?1)`, t.Via).Scan(&known); err != nil {
			return err
		}
		if !known {
			return ErrIdentityUnknown
		}
		if err := insertToken(ctx, tx, t); err != nil {
			return err
		}
		metadata := t.audited()
		metadata["issuer"], metadata["identity"] = g.Machine.Issuer, g.Machine.Name
		return c.audit(ctx, tx, tokenEvent(g.Action, t, metadata))
	}, func(m *mirror) {
		m.tokens[t.hash] = t
	})
	if err != nil {
		return nil, "", fmt.Errorf("grant token: %w", err)
	}
	return t, secret, nil
}

// UseAssertion notes that an assertion is used, durably. It returns ErrAssertionUsed for one that was.
func (c *Catalog) UseAssertion(ctx context.Context, hash Hash, until time.Time) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	err := c.change(ctx, func(tx *sql.Tx) error { return useAssertion(ctx, tx, hash, until) }, func(*mirror) {})
	if err != nil {
		return fmt.Errorf("use assertion: %w", err)
	}
	return nil
}

func useAssertion(ctx context.Context, tx *sql.Tx, hash Hash, until time.Time) error {
	result, err := tx.ExecContext(ctx, `INSERT INTO used_assertions (hash, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING`, hash[:], until.UnixMilli())
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrAssertionUsed)
	}
	return nil
}

// SweepIdentities forgets tokens of machines and used assertions whose time is over, and signing keys that nothing is verified with any more. It returns how many
// tokens went. The audit log has them.
func (c *Catalog) SweepIdentities(ctx context.Context) (tokens int, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	now := c.moment().UnixMilli()
	var any bool
	if err := c.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM tokens WHERE via IS NOT NULL AND payer IS NULL AND expires_at <= ?1) OR EXISTS (SELECT 1 FROM used_assertions WHERE expires_at <= ?1)
		OR EXISTS (SELECT 1 FROM signing_keys WHERE ends_at <= ?1)`, now).Scan(&any); err != nil || !any {
		return 0, err
	}
	var dead []Hash
	err = c.change(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `DELETE FROM tokens WHERE via IS NOT NULL AND payer IS NULL AND expires_at <= ? RETURNING hash`, now)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var hash []byte
			if err := rows.Scan(&hash); err != nil {
				return err
			}
			dead = append(dead, Hash(hash))
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM used_assertions WHERE expires_at <= ?`, now)
		if err == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM signing_keys WHERE ends_at <= ?`, now)
		}
		return err
	}, func(m *mirror) {
		m.endTokens(dead)
		m.keys = livingKeys(m.keys, fromMillis(now))
	})
	if err != nil {
		return 0, fmt.Errorf("sweep identities: %w", err)
	}
	return len(dead), nil
}
