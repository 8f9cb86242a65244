package catalog

import (
	"context"
	"database/sql"
	"fmt"
)

// Setting is what SetSetting kept under key, and false if it kept nothing.
func (c *Catalog) Setting(key string) (value string, ok bool) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	value, ok = c.mirror.settings[key]
	return value, ok
}

// SetSetting keeps value under key.
func (c *Catalog) SetSetting(ctx context.Context, key, value string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	err := c.change(ctx, func(tx *sql.Tx) error {
		return putSetting(ctx, tx, key, value)
	}, func(m *mirror) {
		m.settings[key] = value
	})
	if err != nil {
		return fmt.Errorf("set setting %q: %w", key, err)
	}
	return nil
}

func putSetting(ctx context.Context, tx *sql.Tx, key, value string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO settings (key, value) VALUES (?, ?)
		ON CONFLICT DO UPDATE SET value = excluded.value`, key, value)
	return err
}
