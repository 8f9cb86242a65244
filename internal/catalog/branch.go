package catalog

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The contents of a branch or fork.
const (
	ContentSchema = "schema" // the objects, without rows
	ContentFull   = "full"   // the rows too
)

// Fork is what a branch or fork is of. It is not changed after it was handed out.
type Fork struct {
	From      string    // id of the database that it was made of
	Ref       string    // of a branch; "" for a fork
	Content   string    // one of the contents
	At        time.Time // when it was made
	ExpiresAt time.Time // when it ends by itself; zero for never
}

// IsBranch tells whether a database is a branch of another.
func (d *Database) IsBranch() bool { return d.Fork != nil && d.Fork.Ref != "" }

// Expired tells whether a database's time is over, though it may still be there.
func (d *Database) Expired(now time.Time) bool {
	return d.Fork != nil && !d.Fork.ExpiresAt.IsZero() && !now.Before(d.Fork.ExpiresAt)
}

var (
	// ErrRef is returned for what can't be the ref of a branch.
	ErrRef = errors.New("a ref has 1 to 64 characters from A-Z, a-z, 0-9, '.', '_', '-' and '/', and begins with a letter or digit")
	// ErrBranchNotFound is returned for a ref that a database has no branch of.
	ErrBranchNotFound = errors.New("branch not found")
	// ErrHasBranches is returned for the deletion, or the making anew, of a database that has branches.
	ErrHasBranches = errors.New("the database has branches")
	// ErrHandoff is returned for a handoff that is unknown, used or expired. Callers are not told which.
	ErrHandoff = errors.New("unknown, used or expired handoff")
)

// maxRef is a ref's greatest length in bytes.
const maxRef = 64

// CheckRef returns ErrRef for what can't be the ref of a branch.
func CheckRef(ref string) error {
	if ref == "" || len(ref) > maxRef {
		return ErrRef
	}
	for i := range len(ref) {
		switch c := ref[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-' || c == '/'):
		default:
			return ErrRef
		}
	}
	return nil
}

// branchSlug is the slug that a branch should have.
func branchSlug(parent, ref string) string {
	slug := parent + "-" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(ref))
	if len(slug) > maxSlug {
		slug = slug[:maxSlug-9] + "-" + digest(parent + "\x00" + ref)[:8]
	}
	return slug
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// freeBranchSlug is branchSlug where no database has it, else one with a hash behind it.
func (c *Catalog) freeBranchSlug(namespaceID, parent, ref string) string {
	slug := branchSlug(parent, ref)
	if _, err := c.Database(namespaceID, slug); err != nil {
		return slug
	}
	for n := 0; ; n++ {
		hash := digest(fmt.Sprint(parent, "\x00", ref, "\x00", n))[:6]
		try := slug[:min(len(slug), maxSlug-7)] + "-" + hash
		if _, err := c.Database(namespaceID, try); err != nil {
			return try
		}
	}
}

// Branch is the branch of a database with a ref, or ErrBranchNotFound.
func (c *Catalog) Branch(databaseID, ref string) (*Database, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	if d := c.mirror.branches[databaseID][ref]; d != nil {
		return d, nil
	}
	return nil, ErrBranchNotFound
}

// Branches are the branches of a database, in the order of their refs.
func (c *Catalog) Branches(databaseID string) []*Database {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	return slices.SortedFunc(maps.Values(c.mirror.branches[databaseID]), func(a, b *Database) int { return cmp.Compare(a.Fork.Ref, b.Fork.Ref) })
}

// addBranch and endBranch keep the branches of each database.
func (m *mirror) addBranch(d *Database) {
	if !d.IsBranch() {
		return
	}
	of := m.branches[d.Fork.From]
	if of == nil {
		of = map[string]*Database{}
		m.branches[d.Fork.From] = of
	}
	of[d.Fork.Ref] = d
}

func (m *mirror) endBranch(d *Database) {
	if of := m.branches[d.ID]; len(of) == 0 {
		delete(m.branches, d.ID)
	}
	if !d.IsBranch() || m.branches[d.Fork.From][d.Fork.Ref] == nil || m.branches[d.Fork.From][d.Fork.Ref].ID != d.ID {
		return
	}
	delete(m.branches[d.Fork.From], d.Fork.Ref)
	if len(m.branches[d.Fork.From]) == 0 {
		delete(m.branches, d.Fork.From)
	}
}

// Reserve notes that a database is being made under an id: what a crash leaves of it is taken away at the next start, like one that was deleted for good.
func (c *Catalog) Reserve(ctx context.Context, namespaceID, id string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	now := c.moment().UnixMilli()
	err := c.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO databases (id, namespace_id, slug, name, region, status, test, created_at, deleted_at, condemned_at)
			VALUES (?1, ?2, ?1, ?1, 'auto', 'deleting', 0, ?3, ?3, ?3)`, id, namespaceID, now)
		return err
	}, func(*mirror) {})
	if err != nil {
		return fmt.Errorf("reserve a database: %w", err)
	}
	return nil
}

// NewFork is what a branch or fork is made of.
type NewFork struct {
	ID        string // reserved
	From      string // id of a living database
	Parent    string // id of the database that a branch is listed under, and merges into; From if it is empty
	Ref       string // "" for a fork
	Slug      string // of a fork; a branch's follows from its ref
	Name      string // the slug if it is empty
	Region    string // the parent's if it is empty
	Content   string
	ExpiresAt time.Time
	Test      bool
	Token     *NewToken // made with it, for its Database, if not nil
}

// Forked is a branch or fork that was made.
type Forked struct {
	Database *Database
	Former   *Database // the branch that had the ref before, which is gone for good; nil for none
	Token    *Token
	Secret   string
}

// CreateFork makes a branch or fork, whose file is there, known. A branch of the same ref is gone with that, its tokens too: the new one has its slug. It returns
// ErrDatabaseNotFound where the parent is gone, ErrHasBranches, and that branch as Former, where the branch of the same ref has branches, ErrRef, ErrSlug, ErrSlugTaken or ErrName.
func (c *Catalog) CreateFork(ctx context.Context, n NewFork) (f Forked, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	from, err := c.DatabaseByID(n.From)
	if err != nil {
		return f, fmt.Errorf("fork database: %w", err)
	}
	parent := from
	if n.Parent != "" {
		if parent, err = c.DatabaseByID(n.Parent); err != nil {
			return f, fmt.Errorf("fork database: %w", err)
		}
	}
	now := c.moment()
	fork := &Fork{From: parent.ID, Ref: n.Ref, Content: n.Content, At: now}
	if !n.ExpiresAt.IsZero() {
		fork.ExpiresAt = n.ExpiresAt.UTC().Truncate(time.Millisecond)
	}
	d := &Database{ID: n.ID, NamespaceID: parent.NamespaceID, Slug: n.Slug, Name: n.Name, Region: parent.Region, Status: StatusHealthy, Test: n.Test || parent.Test,
		CreatedAt: now, Fork: fork}
	if n.Ref != "" {
		if err := CheckRef(n.Ref); err != nil {
			return f, fmt.Errorf("fork database: %w", err)
		}
		if f.Former, err = c.Branch(parent.ID, n.Ref); err == nil {
			d.Slug = f.Former.Slug
		} else {
			d.Slug = c.freeBranchSlug(parent.NamespaceID, parent.Slug, n.Ref)
		}
	} else if !ValidSlug(d.Slug) {
		return f, fmt.Errorf("fork database: %w", ErrSlug)
	} else if _, err := c.Database(d.NamespaceID, d.Slug); err == nil {
		return f, fmt.Errorf("fork database: %w", ErrSlugTaken)
	}
	if n.Region != "" {
		d.Region = canonicalRegion(n.Region)
	}
	d.Name = cmp.Or(d.Name, d.Slug)
	if !validName(d.Name) {
		return f, fmt.Errorf("fork database: %w", ErrName)
	}
	if f.Former != nil && len(c.Branches(f.Former.ID)) > 0 {
		return f, fmt.Errorf("fork database: %w", ErrHasBranches)
	}
	// The policies of rows go where the rows go, or may come.
	inherited, err := c.inherit(from.ID, d)
	if err != nil {
		return f, fmt.Errorf("fork database: %w", err)
	}
	d = d.with(inherited)
	if n.Token != nil {
		t := *n.Token
		t.Database = "" // which isn't there yet
		f.Secret = newToken(t.Test)
		if f.Token, err = c.describeToken(t, f.Secret); err != nil {
			return f, fmt.Errorf("fork database: %w", err)
		}
		f.Token.Database = d.ID
	}
	var dead []Hash
	err = c.change(ctx, func(tx *sql.Tx) error {
		if f.Former != nil {
			if _, err := c.trash(ctx, tx, f.Former, 0); err != nil {
				return err
			}
			if dead, err = c.revokePinned(ctx, tx, f.Former.ID); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM databases WHERE id = ? AND condemned_at IS NOT NULL`, d.ID); err != nil {
			return err
		}
		metadata := map[string]any{"region": d.Region, "from": map[string]any{"databaseId": from.ID}, "content": n.Content}
		if n.Ref != "" {
			metadata["branchRef"] = n.Ref
		}
		if err := c.insertDatabase(ctx, tx, d, metadata); err != nil {
			return err
		}
		for _, p := range inherited {
			if err := c.insertPolicy(ctx, tx, d, p); err != nil {
				return err
			}
		}
		if f.Token == nil {
			return nil
		}
		if err := insertToken(ctx, tx, f.Token); err != nil {
			return err
		}
		return c.audit(ctx, tx, tokenEvent("token.created", f.Token, f.Token.audited()))
	}, func(m *mirror) {
		if f.Former != nil {
			m.endDatabase(f.Former)
		}
		for _, h := range dead {
			delete(m.tokens, h)
		}
		m.addDatabase(d)
		if f.Token != nil {
			m.tokens[f.Token.hash] = f.Token
		}
	})
	if err != nil {
		return Forked{}, fmt.Errorf("fork database: %w", err)
	}
	f.Database = d
	return f, nil
}

// revokePinned ends the tokens and handoffs of a database, and returns the hashes of those tokens.
func (c *Catalog) revokePinned(ctx context.Context, tx *sql.Tx, databaseID string) (dead []Hash, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT hash FROM tokens WHERE database_id = ? AND revoked_at IS NULL`, databaseID)
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
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked_at = ? WHERE database_id = ? AND revoked_at IS NULL`, c.moment().UnixMilli(), databaseID); err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM handoffs WHERE database_id = ?`, databaseID)
	return dead, err
}

// Overdue are the ids of living databases whose time is over.
func (c *Catalog) Overdue() (ids []string) {
	now := c.now()
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	for id := range c.mirror.leased {
		if c.mirror.databases[id].Expired(now) {
			ids = append(ids, id)
		}
	}
	return ids
}

// prefixHandoff begins a handoff.
const prefixHandoff = "phand_"

// CreateHandoff makes a text that is changed into a token of a database, of this role, once and until it expires.
func (c *Catalog) CreateHandoff(ctx context.Context, d *Database, role string, test bool, expires time.Time) (secret string, err error) {
	if err := CheckRole(role); err != nil {
		return "", err
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	if living, err := c.DatabaseByID(d.ID); err != nil || living.Expired(c.now()) {
		return "", fmt.Errorf("make handoff: %w", ErrDatabaseNotFound)
	}
	secret = prefixHandoff + randomText(randomDigits)
	hash := hashToken(secret)
	id := NewID("hand")
	err = c.change(ctx, func(tx *sql.Tx) error {
		now := c.moment().UnixMilli()
		if _, err := tx.ExecContext(ctx, `DELETE FROM handoffs WHERE expires_at <= ?`, now); err != nil {
			return err
		}
		owner, err := ownerOf(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO handoffs (hash, id, namespace_id, database_id, role, test, created_at, expires_at, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			hash[:], id, d.NamespaceID, d.ID, role, test, now, expires.UnixMilli(), nullText(owner)); err != nil {
			return err
		}
		return c.audit(ctx, tx, databaseEvent("branch.pinned", d, map[string]any{"handoffId": id, "role": role, "expiresAt": expires.UTC()}))
	}, func(*mirror) {})
	if err != nil {
		return "", fmt.Errorf("make handoff: %w", err)
	}
	return secret, nil
}

// RedeemHandoff changes a handoff into a token, which ends with its database. Of any number of callers one gets it, the others ErrHandoff.
func (c *Catalog) RedeemHandoff(ctx context.Context, secret string) (t *Token, token string, d *Database, err error) {
	if len(secret) != len(prefixHandoff)+randomDigits || !strings.HasPrefix(secret, prefixHandoff) {
		return nil, "", nil, ErrHandoff
	}
	hash := hashToken(secret)
	c.changing.Lock()
	defer c.changing.Unlock()
	err = c.change(ctx, func(tx *sql.Tx) error {
		var id, databaseID, role string
		var owner sql.NullString
		var test bool
		var expires int64
		err := tx.QueryRowContext(ctx, `DELETE FROM handoffs WHERE hash = ? RETURNING id, database_id, role, test, expires_at, owner`, hash[:]).Scan(&id, &databaseID, &role, &test, &expires, &owner)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrHandoff
		}
		if err != nil {
			return err
		}
		if d, err = c.DatabaseByID(databaseID); err != nil || d.Expired(c.now()) || c.now().UnixMilli() >= expires {
			return ErrHandoff
		}
		token = newToken(test)
		n := NewToken{NamespaceID: d.NamespaceID, Name: "handoff " + d.Slug, Role: role, Test: test, Database: d.ID}
		if d.Fork != nil {
			n.ExpiresAt = d.Fork.ExpiresAt
		}
		if t, err = c.describeToken(n, token); err != nil {
			return err
		}
		t.Owner = owner.String
		if err := insertToken(ctx, tx, t); err != nil {
			return err
		}
		metadata := t.audited()
		metadata["handoffId"] = id
		return c.audit(ctx, tx, tokenEvent("token.created", t, metadata))
	}, func(m *mirror) {
		m.tokens[t.hash] = t
	})
	if err != nil {
		return nil, "", nil, fmt.Errorf("redeem handoff: %w", err)
	}
	return t, token, d, nil
}
