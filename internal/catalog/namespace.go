package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/approval"
)

// Namespace owns databases and tokens. Its slug is the :ns of a path.
type Namespace struct {
	ID        string
	Slug      string
	CreatedAt time.Time
	CreatedBy string // id of a user; "" for the operator and the first start
}

// defaultNamespaces is how many namespaces a user may make, where Options names no number.
const defaultNamespaces = 20

// Namespace is the namespace of a slug, or ErrNamespaceNotFound.
func (c *Catalog) Namespace(slug string) (Namespace, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	h, ok := c.mirror.namespaces[slug]
	if !ok {
		return Namespace{}, ErrNamespaceNotFound
	}
	return h.Namespace, nil
}

// Namespaces are all namespaces in the order of their slugs.
func (c *Catalog) Namespaces() []Namespace {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	list := make([]Namespace, 0, len(c.mirror.namespaces))
	for _, h := range c.mirror.namespaces {
		list = append(list, h.Namespace)
	}
	slices.SortFunc(list, func(a, b Namespace) int { return strings.Compare(a.Slug, b.Slug) })
	return list
}

// DeletedNamespaces are the namespaces that are gone and have databases in the trash, in the order of their slugs.
func (c *Catalog) DeletedNamespaces() []Namespace {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	list := []Namespace{}
	for _, h := range c.mirror.byID {
		if h.deleted && len(h.trash) > 0 {
			list = append(list, h.Namespace)
		}
	}
	slices.SortFunc(list, func(a, b Namespace) int { return cmp.Or(strings.Compare(a.Slug, b.Slug), strings.Compare(a.ID, b.ID)) })
	return list
}

// CreateNamespace makes a namespace. It returns ErrSlug, or ErrNamespaceExists where it is there already.
func (c *Catalog) CreateNamespace(ctx context.Context, slug string) (Namespace, error) {
	return c.createNamespace(ctx, slug, "")
}

// CreateNamespaceOf makes a namespace whose owner is the user. It returns what CreateNamespace does, ErrUserNotFound, or
// ErrTooManyNamespaces.
func (c *Catalog) CreateNamespaceOf(ctx context.Context, slug, userID string) (Namespace, error) {
	return c.createNamespace(ctx, slug, userID)
}

func (c *Catalog) createNamespace(ctx context.Context, slug, userID string) (Namespace, error) {
	if !ValidSlug(slug) {
		return Namespace{}, fmt.Errorf("create namespace %q: %w", slug, ErrSlug)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	var u *User
	if userID != "" {
		var err error
		if u, err = c.User(userID); err != nil {
			return Namespace{}, fmt.Errorf("create namespace %q: %w", slug, err)
		}
		if c.madeBy(userID) >= c.maxNamespaces {
			return Namespace{}, fmt.Errorf("create namespace %q: %w", slug, ErrTooManyNamespaces)
		}
	}
	if _, err := c.Namespace(slug); err == nil || u != nil && slug == c.reserved {
		return Namespace{}, fmt.Errorf("create namespace %q: %w", slug, ErrNamespaceExists)
	}
	ns := Namespace{ID: NewID("ns"), Slug: slug, CreatedAt: c.moment(), CreatedBy: userID}
	owner := &Member{NamespaceID: ns.ID, UserID: userID, Role: MemberOwner, CreatedAt: ns.CreatedAt}
	err := c.change(ctx, func(tx *sql.Tx) error {
		if err := c.insertNamespace(ctx, tx, ns); err != nil || u == nil {
			return err
		}
		return c.insertMember(ctx, tx, owner, u, nil)
	}, func(m *mirror) {
		m.addNamespace(ns)
		if u != nil {
			m.addMember(owner)
		}
	})
	if err != nil {
		return Namespace{}, fmt.Errorf("create namespace %q: %w", slug, err)
	}
	return ns, nil
}

func (c *Catalog) insertNamespace(ctx context.Context, tx *sql.Tx, ns Namespace) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO namespaces (id, slug, created_at, created_by) VALUES (?, ?, ?, ?)`,
		ns.ID, ns.Slug, ns.CreatedAt.UnixMilli(), nullText(ns.CreatedBy))
	if err != nil {
		return fmt.Errorf("insert namespace: %w", err)
	}
	return c.audit(ctx, tx, namespaceEvent("namespace.created", ns, nil))
}

func namespaceEvent(action string, ns Namespace, metadata map[string]any) Event {
	return Event{NamespaceID: ns.ID, Action: action, TargetType: "namespace", TargetID: ns.ID, TargetName: ns.Slug, Metadata: metadata}
}

// madeBy counts the namespaces that a user made, whoever owns them now.
func (c *Catalog) madeBy(userID string) (n int) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	for _, h := range c.mirror.namespaces {
		if h.CreatedBy == userID {
			n++
		}
	}
	return n
}

// Deletion says how a namespace is deleted.
type Deletion struct {
	NamespaceID string
	By          string        // id of the owner who does it; "" for the operator
	Force       bool          // also with living databases, which go to the trash
	Keep        time.Duration // how long those can be brought back; 0 is not at all
	// Judged is by which approval rules each database was asked about, by its id: one that has other rules by now wasn't. nil where nobody asks.
	Judged map[string]*approval.Rules
}

// DeleteNamespace ends a namespace: its databases go to the trash, its tokens open nothing any more, its OAuth apps, memberships and
// invitations end, all at once. Its slug is free again, for a namespace that has nothing to do with this one. It returns the
// databases that it ended, and ErrNamespaceNotFound, ErrLadder where By is no owner, ErrNamespaceNotEmpty, or ErrRulesChanged.
func (c *Catalog) DeleteNamespace(ctx context.Context, d Deletion) (ended []*Database, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	ns, ok := c.namespaceByID(d.NamespaceID)
	if !ok {
		return nil, fmt.Errorf("delete namespace: %w", ErrNamespaceNotFound)
	}
	if d.By != "" {
		if m, err := c.member(ns.ID, d.By); err != nil || m.Role != MemberOwner {
			return nil, fmt.Errorf("delete namespace %q: %w", ns.Slug, ErrLadder)
		}
	}
	operator, err := c.operatorToken(ctx)
	if err != nil {
		return nil, fmt.Errorf("delete namespace %q: %w", ns.Slug, err)
	}
	if operator != nil && operator.NamespaceID != ns.ID {
		operator = nil
	}
	c.mirror.mu.RLock()
	h := c.mirror.byID[ns.ID]
	ended = slices.Clone(h.order)
	members := slices.Collect(maps.Values(h.members))
	clients := slices.Clone(h.clients)
	tokens := 0
	for _, t := range c.mirror.tokens {
		if t.NamespaceID == ns.ID {
			tokens++
		}
	}
	c.mirror.mu.RUnlock()
	if len(ended) > 0 && !d.Force {
		return nil, fmt.Errorf("delete namespace %q: %w", ns.Slug, ErrNamespaceNotEmpty)
	}
	for _, database := range ended {
		if d.Judged != nil && database.Rules != d.Judged[database.ID] {
			return nil, fmt.Errorf("delete namespace %q: %w", ns.Slug, ErrRulesChanged)
		}
	}
	trashed := make([]*Trashed, len(ended))
	now := c.moment()
	var dead []Hash // tokens that its apps got, in namespaces of others
	err = c.change(ctx, func(tx *sql.Tx) error {
		for _, cl := range clients {
			tokens, err := c.endOAuthClient(ctx, tx, cl.ID)
			if err != nil {
				return err
			}
			dead = append(dead, tokens...)
		}
		for i, database := range ended {
			if trashed[i], err = c.trash(ctx, tx, database, d.Keep); err != nil {
				return err
			}
		}
		if operator != nil {
			// Removed, not revoked: the setting lets it in to the namespace that the next start makes.
			if _, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE id = ?`, operator.ID); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM settings WHERE key = ?`, settingOperatorToken); err != nil {
				return err
			}
		}
		for _, statement := range []string{
			`UPDATE tokens SET revoked_at = ?1 WHERE namespace_id = ?2 AND revoked_at IS NULL`,
			`DELETE FROM members WHERE ?1 AND namespace_id = ?2`,
			`UPDATE invitations SET ended_at = ?1 WHERE namespace_id = ?2 AND ended_at IS NULL`,
			`DELETE FROM ended_slugs WHERE ?1 AND namespace_id = ?2`,
			`DELETE FROM identity_bindings WHERE ?1 AND namespace_id = ?2`,
			`UPDATE namespaces SET former_slug = slug, slug = '~' || id, deleted_at = ?1 WHERE id = ?2`,
		} {
			if _, err := tx.ExecContext(ctx, statement, now.UnixMilli(), ns.ID); err != nil {
				return err
			}
		}
		return c.audit(ctx, tx, namespaceEvent("namespace.deleted", ns, map[string]any{"databases": len(ended), "tokens": tokens, "members": len(members), "oauthClients": len(clients)}))
	}, func(m *mirror) {
		m.endTokens(dead)
		for _, cl := range clients {
			m.endOAuthClient(cl)
		}
		for i, database := range ended {
			m.endDatabase(database)
			if !trashed[i].RestorableUntil.IsZero() {
				m.addTrashed(trashed[i])
			}
		}
		maps.DeleteFunc(m.tokens, func(_ Hash, t *Token) bool { return t.NamespaceID == ns.ID })
		for _, member := range members {
			m.endMember(member)
		}
		if operator != nil {
			delete(m.settings, settingOperatorToken)
		}
		h.deleted = true
		clear(h.ended)
		delete(m.namespaces, ns.Slug)
	})
	if err != nil {
		return nil, fmt.Errorf("delete namespace %q: %w", ns.Slug, err)
	}
	return ended, nil
}

// moment is now as the file keeps it: UTC, whole milliseconds.
func (c *Catalog) moment() time.Time { return c.now().UTC().Truncate(time.Millisecond) }
