package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// UserIdentity is what another sign-in provider knows a user as.
type UserIdentity struct {
	ID       string
	UserID   string
	Issuer   string
	Subject  string
	Name     string // what the person was called there when it was linked
	LinkedAt time.Time
}

// NewUserIdentity is who signed in at a provider, as the provider says and somebody has verified.
type NewUserIdentity struct {
	Issuer  string
	Subject string
	Name    string // cut to 200 characters
	Picture string // the address of the person's picture there, which becomes the user's; "" for none
}

const (
	// MaxUserIdentities is how many a user may have.
	MaxUserIdentities = 20

	maxIssuer  = 1024 // bytes
	maxSubject = 255  // bytes; OpenID Connect Core 1.0, section 2
)

// describeIdentity is the identity that will be.
func (c *Catalog) describeIdentity(n NewUserIdentity, userID string) (*UserIdentity, error) {
	if n.Issuer == "" || len(n.Issuer) > maxIssuer || n.Subject == "" || len(n.Subject) > maxSubject || !utf8.ValidString(n.Issuer+n.Subject) {
		return nil, ErrUserIdentity
	}
	name := []rune(n.Name)
	name = slices.DeleteFunc(name[:min(len(name), maxName)], unseenBut)
	return &UserIdentity{ID: NewID("uid"), UserID: userID, Issuer: n.Issuer, Subject: n.Subject, Name: string(name), LinkedAt: c.moment()}, nil
}

// pictured is the user when the provider of an identity of the user's has told the picture that the person has there, "" for none. Of several providers the one
// that told any last counts; one that tells none takes back what it told itself.
func (u *User) pictured(picture, identityID string) *User {
	if picture == "" && u.pictureOf != identityID {
		return u
	}
	v := *u
	if v.Picture, v.pictureOf = picture, identityID; picture == "" {
		v.pictureOf = ""
	}
	return &v
}

// writePicture writes down what a user's picture became, if it did. The audit log says so, and not which: what it has stays for good.
func writePicture(ctx context.Context, tx *sql.Tx, u, v *User, metadata map[string]any) error {
	if u.Picture == v.Picture && u.pictureOf == v.pictureOf {
		return nil
	}
	metadata["pictureChanged"] = true
	if _, err := tx.ExecContext(ctx, `UPDATE users SET picture = ?, picture_of = ? WHERE id = ?`, v.Picture, v.pictureOf, u.ID); err != nil {
		return fmt.Errorf("set picture: %w", err)
	}
	return nil
}

// unseenBut tells of the characters that no name has: those that can't be seen, but for a space.
func unseenBut(r rune) bool { return r != ' ' && unseen(r) }

func (c *Catalog) insertIdentity(ctx context.Context, tx *sql.Tx, i *UserIdentity, u *User, metadata map[string]any) error {
	var taken bool
	var has int
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM user_identities WHERE issuer = ?1 AND subject = ?2), (SELECT count(*) FROM user_identities WHERE user_id = ?3)`,
		i.Issuer, i.Subject, i.UserID).Scan(&taken, &has); err != nil {
		return fmt.Errorf("look for identity: %w", err)
	}
	if taken {
		return ErrIdentityLinked
	}
	if has >= MaxUserIdentities {
		return ErrTooManyUserIdentities
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO user_identities (id, user_id, issuer, subject, name, linked_at) VALUES (?, ?, ?, ?, ?, ?)`,
		i.ID, i.UserID, i.Issuer, i.Subject, i.Name, i.LinkedAt.UnixMilli()); err != nil {
		return fmt.Errorf("insert identity: %w", err)
	}
	return c.audit(ctx, tx, identityEvent("user.linked", i, u, metadata))
}

func identityEvent(action string, i *UserIdentity, u *User, metadata map[string]any) Event {
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["identityId"], metadata["issuer"], metadata["subject"] = i.ID, i.Issuer, i.Subject
	return userEvent(action, "", u, metadata)
}

const selectUserIdentities = `SELECT id, user_id, issuer, subject, name, linked_at FROM user_identities`

func userIdentities(ctx context.Context, q querier, where string, args ...any) (list []*UserIdentity, err error) {
	rows, err := q.QueryContext(ctx, selectUserIdentities+` WHERE `+where+` ORDER BY seq`, args...)
	if err != nil {
		return nil, fmt.Errorf("read identities: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		i := &UserIdentity{}
		var linked int64
		if err := rows.Scan(&i.ID, &i.UserID, &i.Issuer, &i.Subject, &i.Name, &linked); err != nil {
			return nil, fmt.Errorf("read identities: %w", err)
		}
		i.LinkedAt = fromMillis(linked)
		list = append(list, i)
	}
	return list, rows.Err()
}

// UserIdentity is what an issuer's subject is linked as, or ErrUserIdentityNotFound. It reads the file.
func (c *Catalog) UserIdentity(ctx context.Context, issuer, subject string) (*UserIdentity, error) {
	list, err := userIdentities(ctx, c.db, `issuer = ? AND subject = ?`, issuer, subject)
	if err == nil && len(list) == 0 {
		err = ErrUserIdentityNotFound
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// UserIdentities are a user's, in the order of their linking. It reads the file.
func (c *Catalog) UserIdentities(ctx context.Context, userID string) ([]*UserIdentity, error) {
	return userIdentities(ctx, c.db, `user_id = ?`, userID)
}

// Linking says what is linked to whom.
type Linking struct {
	UserID   string
	Identity NewUserIdentity
	// Session is of the user who asks for it. If it ended meanwhile nothing is linked.
	Session *Session
	// VerifiedEmail is the address that the provider has verified; the user's own is verified with it, if it is the same.
	VerifiedEmail string
}

// LinkIdentity lets a user sign in by an identity. It returns ErrUserIdentity, ErrIdentityLinked where it is linked already, to whomever,
// ErrTooManyUserIdentities, ErrSessionUnknown or ErrUserNotFound.
func (c *Catalog) LinkIdentity(ctx context.Context, l Linking) (i *UserIdentity, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.User(l.UserID)
	if err == nil && !u.DisabledAt.IsZero() {
		err = ErrUserNotFound
	}
	if err == nil && (l.Session == nil || l.Session.UserID != u.ID || !slices.Contains(c.sessionsOf(u.ID), l.Session)) {
		err = ErrSessionUnknown
	}
	if err == nil {
		i, err = c.describeIdentity(l.Identity, l.UserID)
	}
	if err != nil {
		return nil, fmt.Errorf("link identity: %w", err)
	}
	v := *u.pictured(l.Identity.Picture, i.ID)
	v.EmailVerified = u.EmailVerified || l.VerifiedEmail != "" && l.VerifiedEmail == u.Email
	err = c.change(ctx, func(tx *sql.Tx) error {
		metadata := map[string]any{}
		if err := writePicture(ctx, tx, u, &v, metadata); err != nil {
			return err
		}
		if v.EmailVerified != u.EmailVerified {
			metadata["emailVerified"] = true
			if _, err := tx.ExecContext(ctx, `UPDATE users SET email_verified = 1 WHERE id = ?`, u.ID); err != nil {
				return err
			}
		}
		return c.insertIdentity(ctx, tx, i, u, metadata)
	}, func(m *mirror) { m.addUser(&v) })
	if err != nil {
		return nil, fmt.Errorf("link identity: %w", err)
	}
	return i, nil
}

// Ways are how people may sign in at present.
type Ways struct {
	Password bool
	Issuers  []string
}

// UnlinkIdentity ends a user's identity, unless no way to sign in would be left, and takes away the picture that its provider told. Sessions go on. It returns ErrUserIdentityNotFound,
// ErrLastWay or ErrUserNotFound.
func (c *Catalog) UnlinkIdentity(ctx context.Context, userID, id string, ways Ways) (i *UserIdentity, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.User(userID)
	if err != nil {
		return nil, fmt.Errorf("unlink identity: %w", err)
	}
	v := u.pictured("", id)
	err = c.change(ctx, func(tx *sql.Tx) error {
		list, err := userIdentities(ctx, tx, `user_id = ?`, userID)
		if err != nil {
			return err
		}
		left := ways.Password && u.password != ""
		for _, other := range list {
			if other.ID == id {
				i = other
			} else if slices.Contains(ways.Issuers, other.Issuer) {
				left = true
			}
		}
		if i == nil {
			return ErrUserIdentityNotFound
		}
		if !left {
			return ErrLastWay
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM user_identities WHERE id = ?`, id); err != nil {
			return err
		}
		metadata := map[string]any{}
		if err := writePicture(ctx, tx, u, v, metadata); err != nil {
			return err
		}
		return c.audit(ctx, tx, identityEvent("user.unlinked", i, u, metadata))
	}, func(m *mirror) { m.addUser(v) })
	if err != nil {
		return nil, fmt.Errorf("unlink identity %q: %w", id, err)
	}
	return i, nil
}
