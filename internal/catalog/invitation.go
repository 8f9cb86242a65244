package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Invitation lets one person become a member of a namespace.
type Invitation struct {
	ID          string
	NamespaceID string
	Role        string
	Email       string // folded; the only person who may accept it; "" for whoever has the link
	InvitedBy   string // id of a user; "" for the operator and the first start
	CreatedAt   time.Time
	ExpiresAt   time.Time
}

// prefixInvitation begins the token of an invitation's link, so that secret scanners recognise it.
const prefixInvitation = "pinv_"

// defaultInvitations is how many invitations of a namespace may be open, where Options names no number.
const defaultInvitations = 100

// invitationsKept is how long an invitation that is over is remembered.
const invitationsKept = 30 * 24 * time.Hour

// NewInvitation is what an invitation is made of.
type NewInvitation struct {
	NamespaceID string
	Role        string
	Email       string // folded by CreateInvitation; may be empty
	InvitedBy   string // id of the member; "" for the operator and the first start
	ExpiresAt   time.Time
}

// CreateInvitation makes an invitation, and returns it with the token of its link, which is not kept. It returns
// ErrNamespaceNotFound, ErrMemberRole, ErrEmail, ErrExpiry, ErrLadder where the inviter may not give the role, or
// ErrTooManyInvitations.
func (c *Catalog) CreateInvitation(ctx context.Context, n NewInvitation) (in *Invitation, secret string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("create invitation: %w", err)
		}
	}()
	if err := CheckMemberRole(n.Role); err != nil {
		return nil, "", err
	}
	if n.Email != "" {
		if n.Email, err = FoldEmail(n.Email); err != nil {
			return nil, "", err
		}
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	if !n.ExpiresAt.After(c.now()) {
		return nil, "", ErrExpiry
	}
	if _, ok := c.namespaceByID(n.NamespaceID); !ok {
		return nil, "", ErrNamespaceNotFound
	}
	if n.InvitedBy != "" {
		by, err := c.member(n.NamespaceID, n.InvitedBy)
		if err != nil || !mayManage(by.Role, n.Role) {
			return nil, "", ErrLadder
		}
	}
	in = &Invitation{ID: NewID("inv"), NamespaceID: n.NamespaceID, Role: n.Role, Email: n.Email, InvitedBy: n.InvitedBy,
		CreatedAt: c.moment(), ExpiresAt: n.ExpiresAt.UTC().Truncate(time.Millisecond)}
	secret = prefixInvitation + randomText(randomDigits)
	hash := hashToken(secret)
	err = c.change(ctx, func(tx *sql.Tx) error {
		open, err := c.openInvitations(ctx, tx, n.NamespaceID)
		if err != nil {
			return err
		}
		if len(open) >= c.maxInvitations {
			return ErrTooManyInvitations
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO invitations (id, namespace_id, hash, role, email, invited_by, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			in.ID, in.NamespaceID, hash[:], in.Role, nullText(in.Email), nullText(in.InvitedBy), in.CreatedAt.UnixMilli(), in.ExpiresAt.UnixMilli()); err != nil {
			return err
		}
		metadata := map[string]any{"role": in.Role, "expiresAt": in.ExpiresAt}
		return c.audit(ctx, tx, invitationEvent("invitation.created", in, metadata))
	}, func(*mirror) {})
	if err != nil {
		return nil, "", err
	}
	return in, secret, nil
}

func invitationEvent(action string, in *Invitation, metadata map[string]any) Event {
	return Event{NamespaceID: in.NamespaceID, Action: action, TargetType: "invitation", TargetID: in.ID, TargetName: in.Email, Metadata: metadata}
}

// querier is a *sql.DB or *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func invitations(ctx context.Context, q querier, where string, args ...any) (list []*Invitation, err error) {
	rows, err := q.QueryContext(ctx, `SELECT id, namespace_id, role, email, invited_by, created_at, expires_at FROM invitations WHERE `+where+` ORDER BY seq DESC`, args...)
	if err != nil {
		return nil, fmt.Errorf("read invitations: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		in := &Invitation{}
		var email, by sql.NullString
		var created, expires int64
		if err := rows.Scan(&in.ID, &in.NamespaceID, &in.Role, &email, &by, &created, &expires); err != nil {
			return nil, fmt.Errorf("read invitations: %w", err)
		}
		in.Email, in.InvitedBy, in.CreatedAt, in.ExpiresAt = email.String, by.String, fromMillis(created), fromMillis(expires)
		list = append(list, in)
	}
	return list, rows.Err()
}

func (c *Catalog) openInvitations(ctx context.Context, q querier, namespaceID string) ([]*Invitation, error) {
	return invitations(ctx, q, `namespace_id = ? AND ended_at IS NULL AND expires_at > ?`, namespaceID, c.now().UnixMilli())
}

// Invitations are a namespace's open invitations, the newest first. It reads the file.
func (c *Catalog) Invitations(ctx context.Context, namespaceID string) ([]*Invitation, error) {
	return c.openInvitations(ctx, c.db, namespaceID)
}

// Invitation is the open invitation of a link's token, with its namespace. It returns ErrInvitationNotFound for one that
// is unknown, accepted, revoked or expired: callers are not told which. It reads the file.
func (c *Catalog) Invitation(ctx context.Context, secret string) (*Invitation, Namespace, error) {
	return c.invitation(ctx, c.db, secret)
}

func (c *Catalog) invitation(ctx context.Context, q querier, secret string) (*Invitation, Namespace, error) {
	if !strings.HasPrefix(secret, prefixInvitation) || len(secret) != len(prefixInvitation)+randomDigits {
		return nil, Namespace{}, ErrInvitationNotFound
	}
	hash := hashToken(secret)
	list, err := invitations(ctx, q, `hash = ? AND ended_at IS NULL AND expires_at > ?`, hash[:], c.now().UnixMilli())
	if err != nil {
		return nil, Namespace{}, err
	}
	if len(list) == 0 {
		return nil, Namespace{}, ErrInvitationNotFound
	}
	ns, ok := c.namespaceByID(list[0].NamespaceID)
	if !ok {
		return nil, Namespace{}, ErrInvitationNotFound
	}
	return list[0], ns, nil
}

func (c *Catalog) endInvitation(ctx context.Context, tx *sql.Tx, in *Invitation, action string, metadata map[string]any) error {
	result, err := tx.ExecContext(ctx, `UPDATE invitations SET ended_at = ? WHERE id = ? AND ended_at IS NULL`, c.moment().UnixMilli(), in.ID)
	if err != nil {
		return fmt.Errorf("end invitation: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrInvitationNotFound)
	}
	return c.audit(ctx, tx, invitationEvent(action, in, metadata))
}

// RevokeInvitation ends an open invitation of a namespace, for a member, by. It returns ErrInvitationNotFound, or ErrLadder
// where the member could not have made it.
func (c *Catalog) RevokeInvitation(ctx context.Context, namespaceID, by, id string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	err := c.change(ctx, func(tx *sql.Tx) error {
		list, err := invitations(ctx, tx, `id = ? AND namespace_id = ? AND ended_at IS NULL AND expires_at > ?`, id, namespaceID, c.now().UnixMilli())
		if err != nil {
			return err
		}
		m, err := c.member(namespaceID, by)
		if err != nil || memberRung(m.Role) < memberRung(MemberAdmin) {
			return ErrLadder
		}
		if len(list) == 0 {
			return ErrInvitationNotFound
		}
		if !mayManage(m.Role, list[0].Role) {
			return ErrLadder
		}
		return c.endInvitation(ctx, tx, list[0], "invitation.revoked", nil)
	}, func(*mirror) {})
	if err != nil {
		return fmt.Errorf("revoke invitation %q: %w", id, err)
	}
	return nil
}

// Acceptance says who accepts an invitation: the user of an id or, if that is empty, a new one.
type Acceptance struct {
	Secret string
	UserID string
	User   NewUser // without namespace and role
}

// AcceptInvitation makes its member, and the user too if need be, all or nothing; of two that race one gets it. It returns
// ErrInvitationNotFound, ErrInvitationEmail, ErrAlreadyMember, ErrUserNotFound, and for a new user the errors of CreateUser:
// an account that is there is never taken over.
func (c *Catalog) AcceptInvitation(ctx context.Context, a Acceptance) (u *User, ms Membership, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	isNew := a.UserID == ""
	var m *Member
	err = c.change(ctx, func(tx *sql.Tx) error {
		in, ns, err := c.invitation(ctx, tx, a.Secret)
		if err != nil {
			return err
		}
		if isNew {
			u, err = c.describeUser(a.User)
		} else {
			u, err = c.User(a.UserID)
		}
		if err != nil {
			return err
		}
		if in.Email != "" && in.Email != u.Email {
			return ErrInvitationEmail
		}
		if !u.DisabledAt.IsZero() {
			return ErrUserNotFound
		}
		if _, err := c.member(in.NamespaceID, u.ID); err == nil {
			return ErrAlreadyMember
		}
		if isNew {
			if err := c.insertUser(ctx, tx, u); err != nil {
				return err
			}
		}
		m = &Member{NamespaceID: in.NamespaceID, UserID: u.ID, Role: in.Role, CreatedAt: c.moment()}
		ms = Membership{ns, in.Role}
		if err := c.endInvitation(ctx, tx, in, "invitation.accepted", map[string]any{"userId": u.ID}); err != nil {
			return err
		}
		return c.insertMember(ctx, tx, m, u, map[string]any{"invitationId": in.ID})
	}, func(mr *mirror) {
		if isNew {
			mr.addUser(u)
		}
		mr.addMember(m)
	})
	if err != nil {
		return nil, Membership{}, fmt.Errorf("accept invitation: %w", err)
	}
	return u, ms, nil
}

// SweepInvitations forgets the invitations that were over long ago.
func (c *Catalog) SweepInvitations(ctx context.Context) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	before := c.now().Add(-invitationsKept).UnixMilli()
	var old bool
	if err := c.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM invitations WHERE expires_at < ?)`, before).Scan(&old); err != nil || !old {
		return err
	}
	err := c.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM invitations WHERE expires_at < ?`, before)
		return err
	}, func(*mirror) {})
	if err != nil {
		return fmt.Errorf("sweep invitations: %w", err)
	}
	return nil
}
