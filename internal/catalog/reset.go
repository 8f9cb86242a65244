package catalog

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// prefixReset begins the token of a link that resets a password, so that secret scanners recognise it.
const prefixReset = "prst_"

// CreateReset makes the link by which a user sets another password, and returns its token, which is not kept. The user's former link ends. It
// returns ErrUserNotFound, also for one who is disabled, or ErrExpiry.
func (c *Catalog) CreateReset(ctx context.Context, userID string, expires time.Time) (secret string, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.User(userID)
	if err == nil && !u.DisabledAt.IsZero() {
		err = ErrUserNotFound
	}
	if err == nil && !expires.After(c.now()) {
		err = ErrExpiry
	}
	if err != nil {
		return "", fmt.Errorf("create reset link: %w", err)
	}
	secret = prefixReset + randomText(randomDigits)
	hash := hashToken(secret)
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO password_resets (user_id, hash, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)
			ON CONFLICT (user_id) DO UPDATE SET hash = ?2, created_at = ?3, expires_at = ?4`, u.ID, hash[:], c.moment().UnixMilli(), expires.UnixMilli()); err != nil {
			return fmt.Errorf("insert reset link: %w", err)
		}
		return c.audit(ctx, tx, userEvent("user.reset_link_created", "", u, map[string]any{"expiresAt": expires.UTC().Truncate(time.Millisecond)}))
	}, func(*mirror) {})
	if err != nil {
		return "", fmt.Errorf("create reset link: %w", err)
	}
	return secret, nil
}

// Reset is whose password a link's token sets. It returns ErrResetNotFound for one that is unknown, used, expired or followed by another:
// callers are not told which. It reads the file.
func (c *Catalog) Reset(ctx context.Context, secret string) (*User, error) {
	return c.reset(ctx, c.db, secret)
}

func (c *Catalog) reset(ctx context.Context, q querier, secret string) (*User, error) {
	if !strings.HasPrefix(secret, prefixReset) || len(secret) != len(prefixReset)+randomDigits {
		return nil, ErrResetNotFound
	}
	hash := hashToken(secret)
	rows, err := q.QueryContext(ctx, `SELECT user_id, hash FROM password_resets WHERE hash = ? AND expires_at > ?`, hash[:], c.now().UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("read reset link: %w", err)
	}
	var id string
	var kept []byte
	found := rows.Next()
	if found {
		err = rows.Scan(&id, &kept)
	}
	if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("read reset link: %w", err)
	}
	if !found || subtle.ConstantTimeCompare(kept, hash[:]) != 1 {
		return nil, ErrResetNotFound
	}
	u, err := c.User(id)
	if err != nil || !u.DisabledAt.IsZero() {
		return nil, ErrResetNotFound
	}
	return u, nil
}

// UseReset sets the password of a link's user, ends all of the user's sessions, and the link: of two that race one does. It returns
// ErrResetNotFound.
func (c *Catalog) UseReset(ctx context.Context, secret, passwordHash string) (u *User, ended int, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	if u, err = c.reset(ctx, c.db, secret); err == nil {
		ended, err = c.setPassword(ctx, u, passwordHash, nil, "user.password_reset", map[string]any{"byLink": true})
	}
	if err != nil {
		return nil, 0, fmt.Errorf("use reset link: %w", err)
	}
	return u, ended, nil
}

// ChangePassword gives a user who is signed in another password, unless the former is no longer the user's. All of the user's sessions end but
// the one that asks. It returns ErrUserNotFound.
func (c *Catalog) ChangePassword(ctx context.Context, s *Session, former, passwordHash string) (ended int, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.User(s.UserID)
	if err == nil && (u.password != former || !slices.Contains(c.sessionsOf(u.ID), s)) {
		err = ErrUserNotFound
	}
	if err == nil {
		ended, err = c.setPassword(ctx, u, passwordHash, s, "user.password_changed", map[string]any{"first": former == ""})
	}
	if err != nil {
		return 0, fmt.Errorf("change password: %w", err)
	}
	return ended, nil
}

// setPassword sets a user's password, and ends the user's link and sessions but one. The caller holds changing.
func (c *Catalog) setPassword(ctx context.Context, u *User, passwordHash string, keep *Session, action string, metadata map[string]any) (ended int, err error) {
	v := *u
	v.password = passwordHash
	sessions := slices.DeleteFunc(c.sessionsOf(u.ID), func(s *Session) bool { return s == keep })
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE users SET password = ? WHERE id = ?`, passwordHash, u.ID); err != nil {
			return err
		}
		if err := endReset(ctx, tx, u.ID); err != nil {
			return err
		}
		for _, s := range sessions {
			if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE hash = ?`, s.hash[:]); err != nil {
				return err
			}
		}
		metadata["sessionsEnded"] = len(sessions)
		return c.audit(ctx, tx, userEvent(action, "", u, metadata))
	}, func(m *mirror) {
		m.addUser(&v)
		for _, s := range sessions {
			m.endSession(s)
		}
	})
	return len(sessions), err
}

// endReset ends a user's link, if there is one.
func endReset(ctx context.Context, tx *sql.Tx, userID string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM password_resets WHERE user_id = ?`, userID)
	return err
}
