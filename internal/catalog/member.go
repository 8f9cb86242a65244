package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The roles of members, from the lowest.
const (
	MemberViewer = "viewer"
	MemberEditor = "editor"
	MemberAdmin  = "admin"
	MemberOwner  = "owner"
)

// memberRung is a role's place on the ladder, from 1; 0 for no role.
func memberRung(role string) int {
	return 1 + slices.Index([]string{MemberViewer, MemberEditor, MemberAdmin, MemberOwner}, role)
}

// CheckMemberRole returns ErrMemberRole for a word that is no role of a member.
func CheckMemberRole(role string) error {
	if memberRung(role) == 0 {
		return fmt.Errorf("role %q: %w", role, ErrMemberRole)
	}
	return nil
}

// mayManage tells whether a member of a role may give, change and take another: an admin all but owner, an owner all.
func mayManage(role, other string) bool {
	return memberRung(role) >= memberRung(MemberAdmin) && memberRung(role) >= memberRung(other)
}

// TokenRole is what a member may do with the namespace's databases, in the word that tokens have for it.
func TokenRole(memberRole string) string {
	switch memberRole {
	case MemberOwner, MemberAdmin:
		return RoleAdmin
	case MemberEditor:
		return "readwrite"
	}
	return "readonly"
}

// Member is a user's place in a namespace. It is not changed after it was handed out.
type Member struct {
	NamespaceID string
	UserID      string
	Role        string
	CreatedAt   time.Time
}

// Membership is a namespace that a user is a member of.
type Membership struct {
	Namespace
	Role string
}

// describeMember is the member that will be. The caller holds changing.
func (c *Catalog) describeMember(namespaceID, userID, role string) (*Member, error) {
	if err := CheckMemberRole(role); err != nil {
		return nil, err
	}
	if _, ok := c.namespaceByID(namespaceID); !ok {
		return nil, ErrNamespaceNotFound
	}
	return &Member{NamespaceID: namespaceID, UserID: userID, Role: role, CreatedAt: c.moment()}, nil
}

// insertMember writes a member who is new.
func (c *Catalog) insertMember(ctx context.Context, tx *sql.Tx, m *Member, u *User, metadata map[string]any) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO members (namespace_id, user_id, role, created_at) VALUES (?, ?, ?, ?)`,
		m.NamespaceID, m.UserID, m.Role, m.CreatedAt.UnixMilli())
	if err != nil {
		return fmt.Errorf("insert member: %w", err)
	}
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["role"] = m.Role
	return c.audit(ctx, tx, userEvent("member.added", m.NamespaceID, u, metadata))
}

// Membership is a user's place in the namespace of a slug. It returns ErrNamespaceNotFound also where the namespace is there
// and the user no member: who is none must not learn which.
func (c *Catalog) Membership(slug, userID string) (Membership, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	h, ok := c.mirror.namespaces[slug]
	if !ok {
		return Membership{}, ErrNamespaceNotFound
	}
	m, ok := h.members[userID]
	if !ok {
		return Membership{}, ErrNamespaceNotFound
	}
	return Membership{h.Namespace, m.Role}, nil
}

// Memberships are the namespaces of a user in the order of their slugs.
func (c *Catalog) Memberships(userID string) []Membership {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	list := make([]Membership, 0, len(c.mirror.memberOf[userID]))
	for id, m := range c.mirror.memberOf[userID] {
		list = append(list, Membership{c.mirror.byID[id].Namespace, m.Role})
	}
	slices.SortFunc(list, func(a, b Membership) int { return strings.Compare(a.Slug, b.Slug) })
	return list
}

// MemberInfo is a member with the user.
type MemberInfo struct {
	Member
	User *User
}

// Members are a namespace's members, the oldest first.
func (c *Catalog) Members(namespaceID string) []MemberInfo {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	h, ok := c.mirror.byID[namespaceID]
	if !ok {
		return nil
	}
	list := make([]MemberInfo, 0, len(h.members))
	for _, m := range h.members {
		list = append(list, MemberInfo{*m, c.mirror.users[m.UserID]})
	}
	slices.SortFunc(list, func(a, b MemberInfo) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.User.seq, b.User.seq))
	})
	return list
}

// member is a user's place in a namespace; ErrMemberNotFound if there is none.
func (c *Catalog) member(namespaceID, userID string) (*Member, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	if m, ok := c.mirror.memberOf[userID][namespaceID]; ok {
		return m, nil
	}
	return nil, ErrMemberNotFound
}

// keepsOwner tells whether a namespace has an owner who may sign in without this member.
func (c *Catalog) keepsOwner(without *Member) bool {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	for _, m := range c.mirror.byID[without.NamespaceID].members {
		if m.UserID != without.UserID && m.Role == MemberOwner && c.mirror.users[m.UserID].DisabledAt.IsZero() {
			return true
		}
	}
	return false
}

// AddMember makes a user a member, or gives one another role, for the operator: no ladder holds him. It returns
// ErrMemberRole, ErrNamespaceNotFound, ErrUserNotFound or ErrLastOwner.
func (c *Catalog) AddMember(ctx context.Context, namespaceID, userID, role string) (*Member, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.User(userID)
	if err != nil {
		return nil, fmt.Errorf("add member: %w", err)
	}
	m, err := c.describeMember(namespaceID, userID, role)
	if err != nil {
		return nil, fmt.Errorf("add member: %w", err)
	}
	if former, err := c.member(namespaceID, userID); err == nil {
		return c.setRole(ctx, former, u, role)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		return c.insertMember(ctx, tx, m, u, nil)
	}, func(mr *mirror) {
		mr.addMember(m)
	})
	if err != nil {
		return nil, fmt.Errorf("add member: %w", err)
	}
	return m, nil
}

// SetMemberRole gives a member another role, for another member, by. It returns ErrMemberRole, ErrMemberNotFound, ErrLadder
// where by may not, or ErrLastOwner.
func (c *Catalog) SetMemberRole(ctx context.Context, namespaceID, by, userID, role string) (*Member, error) {
	if err := CheckMemberRole(role); err != nil {
		return nil, fmt.Errorf("set role of member: %w", err)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	former, u, err := c.managed(namespaceID, by, userID, role)
	if err != nil {
		return nil, fmt.Errorf("set role of member: %w", err)
	}
	return c.setRole(ctx, former, u, role)
}

// managed is a member whom another one is about to manage, if that one may. The caller holds changing, so that the roles
// that are looked at are those of the moment of the change.
func (c *Catalog) managed(namespaceID, by, userID, role string) (*Member, *User, error) {
	actor, err := c.member(namespaceID, by)
	if err != nil {
		return nil, nil, ErrLadder
	}
	m, err := c.member(namespaceID, userID)
	if err != nil {
		if memberRung(actor.Role) < memberRung(MemberAdmin) {
			err = ErrLadder
		}
		return nil, nil, err
	}
	u, err := c.User(userID)
	if err != nil {
		return nil, nil, err
	}
	leaves := by == userID && role == ""
	if !leaves && (!mayManage(actor.Role, m.Role) || role != "" && !mayManage(actor.Role, role)) {
		return nil, nil, ErrLadder
	}
	return m, u, nil
}

// setRole changes a member's role. The caller holds changing.
func (c *Catalog) setRole(ctx context.Context, former *Member, u *User, role string) (*Member, error) {
	if former.Role == role {
		return former, nil
	}
	if former.Role == MemberOwner && !c.keepsOwner(former) {
		return nil, fmt.Errorf("set role of member: %w", ErrLastOwner)
	}
	m := *former
	m.Role = role
	err := c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE members SET role = ? WHERE namespace_id = ? AND user_id = ?`, role, m.NamespaceID, m.UserID); err != nil {
			return err
		}
		if err := c.endGrants(ctx, tx, &m); err != nil {
			return err
		}
		return c.audit(ctx, tx, userEvent("member.role_changed", m.NamespaceID, u, map[string]any{"role": role, "formerRole": former.Role}))
	}, func(mr *mirror) {
		mr.addMember(&m)
	})
	if err != nil {
		return nil, fmt.Errorf("set role of member: %w", err)
	}
	return &m, nil
}

// endGrants ends the open invitations of a member that the member's new role may not make; of one who leaves, with no role,
// all. Else whoever is about to lose a role could keep it in the pocket.
func (c *Catalog) endGrants(ctx context.Context, tx *sql.Tx, m *Member) error {
	list, err := invitations(ctx, tx, `namespace_id = ? AND invited_by = ? AND ended_at IS NULL`, m.NamespaceID, m.UserID)
	if err != nil {
		return err
	}
	for _, in := range list {
		if mayManage(m.Role, in.Role) {
			continue
		}
		if err := c.endInvitation(ctx, tx, in, "invitation.revoked", map[string]any{"inviterMayNoMore": true}); err != nil {
			return err
		}
	}
	return nil
}

// RemoveMember ends a membership, for another member, by, who may be the same: everybody may leave. It returns
// ErrMemberNotFound, ErrLadder or ErrLastOwner. The tokens that the member made live on.
func (c *Catalog) RemoveMember(ctx context.Context, namespaceID, by, userID string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	m, u, err := c.managed(namespaceID, by, userID, "")
	if err == nil && m.Role == MemberOwner && !c.keepsOwner(m) {
		err = ErrLastOwner
	}
	if err != nil {
		return fmt.Errorf("remove member: %w", err)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM members WHERE namespace_id = ? AND user_id = ?`, namespaceID, userID); err != nil {
			return err
		}
		if err := c.endGrants(ctx, tx, &Member{NamespaceID: namespaceID, UserID: userID}); err != nil {
			return err
		}
		return c.audit(ctx, tx, userEvent("member.removed", namespaceID, u, map[string]any{"formerRole": m.Role}))
	}, func(mr *mirror) {
		mr.endMember(m)
	})
	if err != nil {
		return fmt.Errorf("remove member: %w", err)
	}
	return nil
}

func (m *mirror) addMember(member *Member) {
	m.byID[member.NamespaceID].members[member.UserID] = member
	of := m.memberOf[member.UserID]
	if of == nil {
		of = map[string]*Member{}
		m.memberOf[member.UserID] = of
	}
	of[member.NamespaceID] = member
}

func (m *mirror) endMember(member *Member) {
	delete(m.byID[member.NamespaceID].members, member.UserID)
	delete(m.memberOf[member.UserID], member.NamespaceID)
	if len(m.memberOf[member.UserID]) == 0 {
		delete(m.memberOf, member.UserID)
	}
}

// loadPeople reads users, members and sessions.
func (m *mirror) loadPeople(ctx context.Context, db *sql.DB) error {
	return errors.Join(
		each(ctx, db, selectUsers, func(rows *sql.Rows) error {
			u, err := scanUser(rows)
			if err == nil {
				m.addUser(u)
			}
			return err
		}),
		each(ctx, db, `SELECT namespace_id, user_id, role, created_at FROM members`, func(rows *sql.Rows) error {
			var member Member
			var created int64
			if err := rows.Scan(&member.NamespaceID, &member.UserID, &member.Role, &created); err != nil {
				return err
			}
			member.CreatedAt = fromMillis(created)
			m.addMember(&member)
			return nil
		}),
		each(ctx, db, `SELECT hash, id, user_id, address, created_at, used_at FROM sessions ORDER BY created_at`, func(rows *sql.Rows) error {
			s := &Session{}
			var hash []byte
			var created, used int64
			if err := rows.Scan(&hash, &s.ID, &s.UserID, &s.Address, &created, &used); err != nil {
				return err
			}
			copy(s.hash[:], hash)
			s.CreatedAt = fromMillis(created)
			s.used.Store(used)
			s.written.Store(used)
			m.addSession(s)
			return nil
		}),
	)
}
