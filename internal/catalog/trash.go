package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Trashed is a deleted database that can be brought back. It is not changed after it was handed out.
type Trashed struct {
	Database
	DeletedAt       time.Time
	RestorableUntil time.Time // from this moment on it is gone
}

// DeleteDatabase ends a database: from now on nobody finds it, and its slug is dead until CreateDatabase or
// UndeleteDatabase gives it to one. It stays in the trash for keep, until the moment that is returned; the zero time
// stands for one that can't be brought back, since keep is not positive or it is a branch without its parent's rows. A branch's tokens and handoffs end with it.
// It returns ErrDatabaseNotFound, or ErrHasBranches where branches of it live. approved is the id of the approval that is used up with it, or empty: ErrApprovalUsed if it can't be any more.
func (c *Catalog) DeleteDatabase(ctx context.Context, id string, keep time.Duration, approved string) (restorableUntil time.Time, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.DatabaseByID(id)
	if err != nil {
		return time.Time{}, fmt.Errorf("delete database: %w", err)
	}
	if len(c.Branches(id)) > 0 {
		return time.Time{}, fmt.Errorf("delete database %q: %w", d.Slug, ErrHasBranches)
	}
	a, err := c.redeemable(ctx, approved)
	if err != nil {
		return time.Time{}, fmt.Errorf("delete database %q: %w", d.Slug, err)
	}
	var t *Trashed
	var dead []Hash
	err = c.change(ctx, func(tx *sql.Tx) error {
		if err := c.redeem(ctx, tx, a); err != nil {
			return err
		}
		if d.IsBranch() {
			if d.Fork.Content == ContentSchema {
				keep = 0
			}
			if dead, err = c.revokePinned(ctx, tx, id); err != nil {
				return err
			}
		}
		if t, err = c.trash(ctx, tx, d, keep); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO ended_slugs (namespace_id, slug, ended_at) VALUES (?, ?, ?)
			ON CONFLICT DO UPDATE SET ended_at = excluded.ended_at`, d.NamespaceID, d.Slug, t.DeletedAt.UnixMilli())
		return err
	}, func(m *mirror) {
		m.endDatabase(d)
		for _, h := range dead {
			delete(m.tokens, h)
		}
		if !t.RestorableUntil.IsZero() {
			m.addTrashed(t)
		}
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("delete database %q: %w", d.Slug, err)
	}
	return t.RestorableUntil, nil
}

// trash writes that a database is deleted: in the trash for keep or, if that is not positive, condemned at once.
func (c *Catalog) trash(ctx context.Context, tx *sql.Tx, d *Database, keep time.Duration) (*Trashed, error) {
	now := c.moment()
	t := &Trashed{Database: *d, DeletedAt: now}
	var condemned time.Time
	metadata := map[string]any{"restorableUntil": nil}
	if keep > 0 {
		t.RestorableUntil = now.Add(keep).Truncate(time.Millisecond)
		metadata["restorableUntil"] = t.RestorableUntil
	} else {
		condemned = now
	}
	if _, err := tx.ExecContext(ctx, `UPDATE databases SET deleted_at = ?, restorable_until = ?, condemned_at = ? WHERE id = ?`,
		now.UnixMilli(), nullMillis(t.RestorableUntil), nullMillis(condemned), d.ID); err != nil {
		return nil, err
	}
	return t, c.audit(ctx, tx, databaseEvent("database.deleted", d, metadata))
}

// Trashed is the deleted database of an id, while it can be brought back; else ErrDatabaseNotFound.
func (c *Catalog) Trashed(id string) (*Trashed, error) {
	now := c.now()
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	t, ok := c.mirror.trash[id]
	if !ok || !now.Before(t.RestorableUntil) {
		return nil, ErrDatabaseNotFound
	}
	return t, nil
}

// TrashedSlug is the database in the trash that was deleted last of those that had a slug, else ErrDatabaseNotFound.
func (c *Catalog) TrashedSlug(namespaceID, slug string) (*Trashed, error) {
	now := c.now()
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	h, ok := c.mirror.byID[namespaceID]
	if !ok {
		return nil, ErrDatabaseNotFound
	}
	for i := len(h.trash) - 1; i >= 0; i-- {
		if t := h.trash[i]; t.Slug == slug && now.Before(t.RestorableUntil) {
			return t, nil
		}
	}
	return nil, ErrDatabaseNotFound
}

// Trash is a page of a namespace's deleted databases, the one that was deleted last first. Beyond the last page it is
// empty.
func (c *Catalog) Trash(namespaceID string, page Page) []*Trashed {
	now := c.now()
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	h, ok := c.mirror.byID[namespaceID]
	if !ok {
		return nil
	}
	return pageOf(h.trash, page, func(t *Trashed) bool {
		return now.Before(t.RestorableUntil) && (t.Test || !page.TestOnly)
	})
}

// UndeleteDatabase brings a deleted database back, under its old slug if slug is empty. One that lives under the slug
// already is returned as it is, so that a call can be repeated. It returns ErrDatabaseNotFound for one that isn't in the
// trash (any more), ErrSlug, ErrSlugTaken where another living database has the slug, or ErrDatabaseLives where this one
// lives under another.
func (c *Catalog) UndeleteDatabase(ctx context.Context, id, slug string) (*Database, error) {
	return c.UndeleteInto(ctx, id, slug, "")
}

// UndeleteInto is UndeleteDatabase for the operator, who may give the database to another namespace than it was in: that one may
// be gone. It returns ErrNamespaceNotFound where the namespace is.
func (c *Catalog) UndeleteInto(ctx context.Context, id, slug, namespaceID string) (*Database, error) {
	if slug != "" && !ValidSlug(slug) {
		return nil, fmt.Errorf("undelete database %s as %q: %w", id, slug, ErrSlug)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	if d, err := c.DatabaseByID(id); err == nil {
		if (slug == "" || slug == d.Slug) && (namespaceID == "" || namespaceID == d.NamespaceID) {
			return d, nil
		}
		return nil, fmt.Errorf("undelete database %s as %q: %w", id, slug, ErrDatabaseLives)
	}
	t, err := c.Trashed(id)
	if err != nil {
		return nil, fmt.Errorf("undelete database %s: %w", id, err)
	}
	d := t.Database
	if slug != "" {
		d.Slug = slug
	}
	if namespaceID != "" {
		d.NamespaceID = namespaceID
	}
	ns, ok := c.namespaceByID(d.NamespaceID)
	if !ok {
		return nil, fmt.Errorf("undelete database %s: %w", id, ErrNamespaceNotFound)
	}
	d.NamespaceID = ns.ID
	if _, err := c.Database(d.NamespaceID, d.Slug); err == nil {
		return nil, fmt.Errorf("undelete database %s as %q: %w", id, d.Slug, ErrSlugTaken)
	}
	if d.Fork != nil {
		// Its time may be over, and its ref another one's: who brings it back wants to keep it.
		fork := *d.Fork
		fork.ExpiresAt = time.Time{}
		if _, err := c.Branch(fork.From, fork.Ref); err == nil || d.NamespaceID != t.NamespaceID {
			fork.Ref = ""
		}
		d.Fork = &fork
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE databases SET namespace_id = ?, slug = ?, deleted_at = NULL, restorable_until = NULL, expires_at = NULL,
			branch_ref = iif(?, branch_ref, NULL) WHERE id = ?`, d.NamespaceID, d.Slug, d.IsBranch(), id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM ended_slugs WHERE namespace_id = ? AND slug = ?`, d.NamespaceID, d.Slug); err != nil {
			return err
		}
		metadata := map[string]any{"formerSlug": t.Slug}
		if d.NamespaceID != t.NamespaceID {
			if err := moveFiled(ctx, tx, id, t.NamespaceID, d.NamespaceID); err != nil {
				return err
			}
			metadata["formerNamespaceId"] = t.NamespaceID
		}
		return c.audit(ctx, tx, databaseEvent("database.undeleted", &d, metadata))
	}, func(m *mirror) {
		m.endTrashed(t)
		m.addDatabase(&d)
	})
	if err != nil {
		return nil, fmt.Errorf("undelete database %s as %q: %w", id, d.Slug, err)
	}
	return &d, nil
}

// CondemnedIDs are the ids of databases whose files are still there, or may be, though nothing brings them back.
func (c *Catalog) CondemnedIDs(ctx context.Context) (ids []string, err error) {
	err = each(ctx, c.db, `SELECT id FROM databases WHERE condemned_at IS NOT NULL`, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read condemned databases: %w", err)
	}
	return ids, nil
}

// NamespaceOf is the id of the namespace that a database belongs to, or did until it was deleted. It reads the file.
func (c *Catalog) NamespaceOf(ctx context.Context, id string) (namespaceID string, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT namespace_id FROM databases WHERE id = ?`, id).Scan(&namespaceID)
	if errors.Is(err, sql.ErrNoRows) {
		return "", ErrDatabaseNotFound
	}
	return namespaceID, err
}

// CondemnOverdue ends the time of the databases in the trash that are over it, and returns everything that is condemned:
// their files may go, or went before a crash, and PurgeDatabase is to be told when they have. Nothing brings such a
// database back, or an undelete could find its row without its file.
func (c *Catalog) CondemnOverdue(ctx context.Context) ([]*Database, error) {
	if err := c.condemnOverdue(ctx); err != nil {
		return nil, fmt.Errorf("condemn deleted databases: %w", err)
	}
	var list []*Database
	err := each(ctx, c.db, selectDatabases+` WHERE condemned_at IS NOT NULL ORDER BY condemned_at, seq`, func(rows *sql.Rows) error {
		t, err := scanDatabase(rows)
		if err == nil {
			list = append(list, &t.Database)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list condemned databases: %w", err)
	}
	return list, nil
}

func (c *Catalog) condemnOverdue(ctx context.Context) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	now := c.moment()
	var over []*Trashed
	c.mirror.mu.RLock()
	for _, t := range c.mirror.trash {
		if !now.Before(t.RestorableUntil) {
			over = append(over, t)
		}
	}
	c.mirror.mu.RUnlock()
	if len(over) == 0 {
		return nil
	}
	return c.change(ctx, func(tx *sql.Tx) error {
		for _, t := range over {
			if _, err := tx.ExecContext(ctx, `UPDATE databases SET condemned_at = ? WHERE id = ?`, now.UnixMilli(), t.ID); err != nil {
				return err
			}
			if err := c.audit(ctx, tx, databaseEvent("database.purged", &t.Database, nil)); err != nil {
				return err
			}
		}
		return nil
	}, func(m *mirror) {
		for _, t := range over {
			delete(m.trash, t.ID)
		}
		for _, h := range m.byID {
			h.trash = slices.DeleteFunc(h.trash, func(t *Trashed) bool { return m.trash[t.ID] == nil })
		}
	})
}

// PurgeDatabase forgets a condemned database whose files are gone; its slug stays dead. It returns ErrDatabaseNotFound
// for a database that is not condemned.
func (c *Catalog) PurgeDatabase(ctx context.Context, id string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	err := c.change(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `DELETE FROM databases WHERE id = ? AND condemned_at IS NOT NULL`, id)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrDatabaseNotFound)
		}
		return nil
	}, func(*mirror) {})
	if err != nil {
		return fmt.Errorf("purge database %s: %w", id, err)
	}
	return nil
}
