package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Namespace owns databases and tokens. Its slug is the :ns of a path.
type Namespace struct {
	ID        string
	Slug      string
	CreatedAt time.Time
}

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

// CreateNamespace makes a namespace. It returns ErrSlug, or ErrNamespaceExists where it is there already.
func (c *Catalog) CreateNamespace(ctx context.Context, slug string) (Namespace, error) {
	if !ValidSlug(slug) {
		return Namespace{}, fmt.Errorf("create namespace %q: %w", slug, ErrSlug)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	if _, err := c.Namespace(slug); err == nil {
		return Namespace{}, fmt.Errorf("create namespace %q: %w", slug, ErrNamespaceExists)
	}
	ns := Namespace{ID: NewID("ns"), Slug: slug, CreatedAt: c.moment()}
	err := c.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO namespaces (id, slug, created_at) VALUES (?, ?, ?)`,
			ns.ID, ns.Slug, ns.CreatedAt.UnixMilli())
		if err != nil {
			return err
		}
		return c.audit(ctx, tx, Event{NamespaceID: ns.ID, Action: "namespace.created", TargetType: "namespace", TargetID: ns.ID, TargetName: ns.Slug})
	}, func(m *mirror) {
		m.addNamespace(ns)
	})
	if err != nil {
		return Namespace{}, fmt.Errorf("create namespace %q: %w", slug, err)
	}
	return ns, nil
}

// moment is now as the file keeps it: UTC, whole milliseconds.
func (c *Catalog) moment() time.Time { return c.now().UTC().Truncate(time.Millisecond) }
