package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/persqld/persqld/internal/approval"
)

const (
	// StatusHealthy is the status of a database that can be used.
	StatusHealthy = "healthy"
	// StatusDeleting is what is told of a database in the trash; its own status is kept for its return.
	StatusDeleting = "deleting"
)

// Database is a tenant's database as the catalog knows it. It is not changed after it was handed out.
type Database struct {
	ID          string // opaque, never used twice; also names the file
	NamespaceID string
	Slug        string // unique in the namespace
	Name        string
	Region      string // a label, one of Regions
	Status      string
	Test        bool // made by a test token
	CreatedAt   time.Time
	Policies    *PolicyList     // nil for none
	Rules       *approval.Rules // which of its writes people look at first; nil for none
	Webhooks    *WebhookList    // who is told of what happens in it, nil for nobody
	Fork        *Fork           // of a branch or fork, and of what ends by itself; nil for any other

	seq int64 // the order of creation
}

// NewDatabase is what a database is made of.
type NewDatabase struct {
	// ID is the database's id; a new one is made if it is empty.
	ID          string
	NamespaceID string
	Slug        string
	// Name is the slug if it is empty.
	Name string
	// Region is "auto" if it is empty or unknown.
	Region string
	// Test marks a database that a test token makes.
	Test bool
	// Use says that the database is made because a request named it, not because somebody asked for it: then the slug
	// of a database that was deleted is refused with ErrDatabaseEnded.
	Use bool
	// ExpiresAt is when it ends by itself; zero for never.
	ExpiresAt time.Time
	// From, if set, is the database of which this one is a copy: it begins with that one's policies, as they are when it is made.
	From *Origin
}

// Origin is what a database was made of.
type Origin struct {
	DatabaseID string // one that lives, or is in the trash
	Bookmark   string // of the moment; empty is when it was made
}

// Page is a part of a list. The zero value is the first page of the greatest size.
type Page struct {
	Number int // from 1
	Size   int // 1 to MaxPageSize
	// TestOnly leaves out what no test token made.
	TestOnly bool
}

// MaxPageSize is the greatest number of databases on a page.
const MaxPageSize = 500

// Regions are the labels that a database's region may have.
func Regions() []string {
	return []string{"auto", "wnam", "enam", "sam", "weur", "eeur", "apac", "oc", "afr", "me"}
}

func canonicalRegion(region string) string {
	for _, known := range Regions() {
		if region == known {
			return known
		}
	}
	return "auto"
}

// Database is the database of a slug in a namespace. It returns ErrDatabaseEnded for the slug of a deleted one, else
// ErrDatabaseNotFound; the first is the second, too. It allocates nothing.
func (c *Catalog) Database(namespaceID, slug string) (*Database, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	h, ok := c.mirror.byID[namespaceID]
	if !ok {
		return nil, ErrDatabaseNotFound
	}
	if d, ok := h.bySlug[slug]; ok {
		return d, nil
	}
	if _, ok := h.ended[slug]; ok {
		return nil, ErrDatabaseEnded
	}
	return nil, ErrDatabaseNotFound
}

// DatabaseByID is the database of an id, or ErrDatabaseNotFound.
func (c *Catalog) DatabaseByID(id string) (*Database, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	d, ok := c.mirror.databases[id]
	if !ok {
		return nil, ErrDatabaseNotFound
	}
	return d, nil
}

// Databases is a page of a namespace's databases, the newest first. Beyond the last page it is empty.
func (c *Catalog) Databases(namespaceID string, page Page) []*Database {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	h, ok := c.mirror.byID[namespaceID]
	if !ok {
		return nil
	}
	return pageOf(h.order, page, func(d *Database) bool { return d.Test || !page.TestOnly })
}

// DatabasesOf are all databases of a namespace, in the order of their making.
func (c *Catalog) DatabasesOf(namespaceID string) []*Database {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	h, ok := c.mirror.byID[namespaceID]
	if !ok {
		return nil
	}
	return slices.Clone(h.order)
}

// pageOf is a page of what is shown of a list, the last first.
func pageOf[T any](all []T, page Page, shown func(T) bool) []T {
	if page.Number < 1 {
		page.Number = 1
	}
	if page.Size < 1 || page.Size > MaxPageSize {
		page.Size = MaxPageSize
	}
	// A page number from a client may be so great that the product has no meaning.
	if page.Number-1 > len(all)/page.Size {
		return nil
	}
	skip := (page.Number - 1) * page.Size
	list := make([]T, 0, min(page.Size, len(all)))
	for i := len(all) - 1; i >= 0 && len(list) < page.Size; i-- {
		if !shown(all[i]) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		list = append(list, all[i])
	}
	return list
}

// EachDatabase calls visit for every database of every namespace until it returns false, in no order. visit must not
// call the catalog.
func (c *Catalog) EachDatabase(visit func(*Database) bool) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	for _, d := range c.mirror.databases {
		if !visit(d) {
			return
		}
	}
}

// CreateDatabase makes a database, or returns the one that has the slug already and made false; of two racing calls one
// makes it. It returns ErrSlug, ErrName, ErrNamespaceNotFound, ErrDatabaseEnded (see NewDatabase.Use), or ErrDatabaseNotFound for one of a database that is gone. The slug of a
// deleted database is alive again afterwards.
func (c *Catalog) CreateDatabase(ctx context.Context, n NewDatabase) (d *Database, made bool, err error) {
	if !ValidSlug(n.Slug) {
		return nil, false, fmt.Errorf("create database %q: %w", n.Slug, ErrSlug)
	}
	if n.Name == "" {
		n.Name = n.Slug
	}
	if !validName(n.Name) {
		return nil, false, fmt.Errorf("create database %q: %w", n.Slug, ErrName)
	}
	if n.ID == "" {
		n.ID = NewID("db")
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	ns, ok := c.namespaceByID(n.NamespaceID)
	if !ok {
		return nil, false, fmt.Errorf("create database %q: %w", n.Slug, ErrNamespaceNotFound)
	}
	existing, err := c.Database(n.NamespaceID, n.Slug)
	if err == nil {
		return existing, false, nil
	}
	if errors.Is(err, ErrDatabaseEnded) && n.Use {
		return nil, false, err
	}
	d = &Database{
		ID:          n.ID,
		NamespaceID: ns.ID,
		Slug:        n.Slug,
		Name:        n.Name,
		Region:      canonicalRegion(n.Region),
		Status:      StatusHealthy,
		Test:        n.Test,
		CreatedAt:   c.moment(),
	}
	metadata := map[string]any{"region": d.Region}
	if !n.ExpiresAt.IsZero() {
		d.Fork = &Fork{ExpiresAt: n.ExpiresAt.UTC().Truncate(time.Millisecond)}
		metadata["expiresAt"] = d.Fork.ExpiresAt
	}
	var inherited []*Policy
	if n.From != nil {
		from := map[string]any{"databaseId": n.From.DatabaseID, "bookmark": nil}
		if n.From.Bookmark != "" {
			from["bookmark"] = n.From.Bookmark
		}
		metadata["from"] = from
		if inherited, err = c.inherit(n.From.DatabaseID, d); err != nil {
			return nil, false, fmt.Errorf("create database %q: %w", n.Slug, err)
		}
		d = d.with(inherited)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if err := c.insertDatabase(ctx, tx, d, metadata); err != nil {
			return err
		}
		for _, p := range inherited {
			if err := c.insertPolicy(ctx, tx, d, p); err != nil {
				return err
			}
		}
		return nil
	}, func(m *mirror) {
		m.addDatabase(d)
	})
	if err != nil {
		return nil, false, fmt.Errorf("create database %q: %w", n.Slug, err)
	}
	return d, true, nil
}

// insertDatabase writes a database that is new.
func (c *Catalog) insertDatabase(ctx context.Context, tx *sql.Tx, d *Database, metadata map[string]any) error {
	var f Fork
	if d.Fork != nil {
		f = *d.Fork
	}
	result, err := tx.ExecContext(ctx, `INSERT INTO databases (id, namespace_id, slug, name, region, status, test, created_at, forked_from, branch_ref, content, forked_at, expires_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		d.ID, d.NamespaceID, d.Slug, d.Name, d.Region, d.Status, d.Test, d.CreatedAt.UnixMilli(), nullText(f.From), nullText(f.Ref), nullText(f.Content), nullMillis(f.At), nullMillis(f.ExpiresAt))
	if err != nil {
		return err
	}
	if d.seq, err = result.LastInsertId(); err != nil {
		return err
	}
	if _, err = tx.ExecContext(ctx, `DELETE FROM ended_slugs WHERE namespace_id = ? AND slug = ?`, d.NamespaceID, d.Slug); err != nil {
		return err
	}
	return c.audit(ctx, tx, databaseEvent("database.created", d, metadata))
}

// namespaceByID is a namespace that isn't deleted.
func (c *Catalog) namespaceByID(id string) (Namespace, bool) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	h, ok := c.mirror.byID[id]
	if !ok || h.deleted {
		return Namespace{}, false
	}
	return h.Namespace, true
}

const selectDatabases = `SELECT seq, id, namespace_id, slug, name, region, status, test, created_at, deleted_at, restorable_until,
	forked_from, branch_ref, content, forked_at, expires_at FROM databases`

// scanDatabase reads a row of selectDatabases; a living database's has no times of the trash.
func scanDatabase(rows *sql.Rows) (*Trashed, error) {
	var d Trashed
	var created int64
	var deleted, until, forked, expires sql.NullInt64
	var from, ref, content sql.NullString
	if err := rows.Scan(&d.seq, &d.ID, &d.NamespaceID, &d.Slug, &d.Name, &d.Region, &d.Status, &d.Test, &created, &deleted, &until,
		&from, &ref, &content, &forked, &expires); err != nil {
		return nil, err
	}
	if from.Valid || expires.Valid {
		d.Fork = &Fork{From: from.String, Ref: ref.String, Content: content.String, At: fromNullMillis(forked), ExpiresAt: fromNullMillis(expires)}
	}
	d.CreatedAt, d.DeletedAt, d.RestorableUntil = fromMillis(created), fromNullMillis(deleted), fromNullMillis(until)
	return &d, nil
}
