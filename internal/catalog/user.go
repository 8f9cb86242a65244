package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// User is a person who signs in. It is not changed after it was handed out.
type User struct {
	ID            string
	Email         string // folded
	Name          string
	Picture       string // its address, as the provider of one of the user's identities told it last; "" for none
	EmailVerified bool
	CreatedAt     time.Time
	HomeAt        time.Time // when the first sign-in made the person's own namespace; zero before
	DisabledAt    time.Time // zero while the person may sign in

	password  string
	pictureOf string // id of the identity whose provider told Picture; "" for none
	seq       int64
	first     *UserIdentity // that a new user begins with; nil for none
}

// PasswordHash is what the password is verified against; "" for a user without one, whom no password signs in.
func (u *User) PasswordHash() string { return u.password }

// maxEmail is the greatest length of an e-mail address in bytes (RFC 5321, section 4.5.3.1.3, without the angle brackets).
const maxEmail = 254

// FoldEmail is an e-mail address as users are known by it: without white space around it, in lower case. It returns
// ErrEmail for what is no address, and for one with characters that can't be seen or that turn the text around: it would look
// like another person's in a list of members.
func FoldEmail(email string) (string, error) {
	// The Kelvin sign and the I with a dot would become letters of somebody else's address.
	if strings.ContainsFunc(email, func(r rune) bool { return r >= utf8.RuneSelf && unicode.ToLower(r) < utf8.RuneSelf }) {
		return "", ErrEmail
	}
	email = strings.ToLower(strings.TrimSpace(email))
	a, err := mail.ParseAddress(email)
	if err != nil || a.Name != "" || a.Address != email || len(email) > maxEmail || strings.ContainsAny(email, "\"<>") || strings.ContainsFunc(email, unseen) {
		return "", ErrEmail
	}
	return email, nil
}

func unseen(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }

// NewUser is what a user is made of.
type NewUser struct {
	Email        string // folded by CreateUser
	Name         string // up to 200 characters; the part of Email before the @ if empty
	PasswordHash string // "" for a user who signs in by Identity alone
	// Identity is what a provider knows the user as, linked from the start; nil for none. EmailVerified is what it says of Email.
	Identity      *NewUserIdentity
	EmailVerified bool
	// NamespaceID and Role make the user a member from the start, unless they are empty.
	NamespaceID string
	Role        string
}

// describeUser is the user that will be. The caller holds changing.
func (c *Catalog) describeUser(n NewUser) (*User, error) {
	email, err := FoldEmail(n.Email)
	if err != nil {
		return nil, err
	}
	if n.Name == "" {
		n.Name, _, _ = strings.Cut(email, "@")
	}
	if !validName(n.Name) {
		return nil, ErrName
	}
	if _, err := c.UserByEmail(email); err == nil {
		return nil, ErrUserExists
	}
	u := &User{ID: NewID("usr"), Email: email, Name: n.Name, EmailVerified: n.EmailVerified, CreatedAt: c.moment(), password: n.PasswordHash}
	if n.Identity != nil {
		if u.first, err = c.describeIdentity(*n.Identity, u.ID); err != nil {
			return nil, err
		}
		u = u.pictured(n.Identity.Picture, u.first.ID)
	}
	return u, nil
}

// CreateUser makes a user. It returns ErrEmail, ErrName, ErrUserExists, ErrNamespaceNotFound, ErrMemberRole, ErrUserIdentity or ErrIdentityLinked.
func (c *Catalog) CreateUser(ctx context.Context, n NewUser) (*User, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.describeUser(n)
	if err != nil {
		return nil, fmt.Errorf("create user: %w", err)
	}
	var first *Member
	if n.NamespaceID != "" {
		if first, err = c.describeMember(n.NamespaceID, u.ID, n.Role); err != nil {
			return nil, fmt.Errorf("create user: %w", err)
		}
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if err := c.insertUser(ctx, tx, u); err != nil || first == nil {
			return err
		}
		return c.insertMember(ctx, tx, first, u, nil)
	}, func(m *mirror) {
		m.addUser(u)
		if first != nil {
			m.addMember(first)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("create user: %w", err)
	}
	return u, nil
}

func (c *Catalog) insertUser(ctx context.Context, tx *sql.Tx, u *User) error {
	result, err := tx.ExecContext(ctx, `INSERT INTO users (id, email, name, password, email_verified, created_at, picture, picture_of) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		u.ID, u.Email, u.Name, u.password, u.EmailVerified, u.CreatedAt.UnixMilli(), u.Picture, u.pictureOf)
	if err != nil {
		return fmt.Errorf("insert user: %w", err)
	}
	if u.seq, err = result.LastInsertId(); err != nil {
		return fmt.Errorf("insert user: %w", err)
	}
	if err := c.audit(ctx, tx, userEvent("user.created", "", u, nil)); err != nil || u.first == nil {
		return err
	}
	return c.insertIdentity(ctx, tx, u.first, u, nil)
}

// userEvent is an entry about a user, in a namespace or, if namespaceID is empty, of the server.
func userEvent(action, namespaceID string, u *User, metadata map[string]any) Event {
	return Event{NamespaceID: namespaceID, Action: action, TargetType: "user", TargetID: u.ID, TargetName: u.Email, Metadata: metadata}
}

// User is the user of an id, or ErrUserNotFound.
func (c *Catalog) User(id string) (*User, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	if u, ok := c.mirror.users[id]; ok {
		return u, nil
	}
	return nil, ErrUserNotFound
}

// UserByEmail is the user of a folded e-mail address, or ErrUserNotFound.
func (c *Catalog) UserByEmail(email string) (*User, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	if u, ok := c.mirror.byEmail[email]; ok {
		return u, nil
	}
	return nil, ErrUserNotFound
}

// Users are all users in the order of their making.
func (c *Catalog) Users() []*User {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	list := make([]*User, 0, len(c.mirror.users))
	for _, u := range c.mirror.users {
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b *User) int { return int(a.seq - b.seq) })
	return list
}

// ResetPassword gives a user another password and ends all of the user's sessions, and an open link to reset it. It returns ErrUserNotFound.
func (c *Catalog) ResetPassword(ctx context.Context, id, passwordHash string) (ended int, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.User(id)
	if err != nil {
		return 0, fmt.Errorf("reset password: %w", err)
	}
	if ended, err = c.setPassword(ctx, u, passwordHash, nil, "user.password_reset", map[string]any{}); err != nil {
		return 0, fmt.Errorf("reset password: %w", err)
	}
	return ended, nil
}

// Rehash keeps another hash of the same password, unless that was changed since. It returns ErrUserNotFound.
func (c *Catalog) Rehash(ctx context.Context, id, former, hash string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.User(id)
	if err != nil || u.password != former {
		return err
	}
	v := *u
	v.password = hash
	err = c.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE users SET password = ? WHERE id = ?`, hash, id)
		return err
	}, func(m *mirror) {
		m.addUser(&v)
	})
	if err != nil {
		return fmt.Errorf("rehash password: %w", err)
	}
	return nil
}

// NewHome is what a first sign-in makes.
type NewHome struct {
	UserID     string
	Slug       string // wanted for the namespace; another one is found where it is taken
	DatabaseID string // of its database, whose file is there
	Database   string // the database's slug
}

// CreateHome makes a user's own namespace with a database, once: made is false where it was made before, whatever became
// of it. It returns ErrSlug or ErrUserNotFound.
func (c *Catalog) CreateHome(ctx context.Context, n NewHome) (made bool, err error) {
	if !ValidSlug(n.Slug) || !ValidSlug(n.Database) {
		return false, fmt.Errorf("create home namespace %q: %w", n.Slug, ErrSlug)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.User(n.UserID)
	if err != nil {
		return false, fmt.Errorf("create home namespace: %w", err)
	}
	if !u.HomeAt.IsZero() {
		return false, nil
	}
	now := c.moment()
	v := *u
	v.HomeAt = now
	ns := Namespace{ID: NewID("ns"), Slug: c.freeSlug(n.Slug), CreatedAt: now, CreatedBy: u.ID}
	owner := &Member{NamespaceID: ns.ID, UserID: u.ID, Role: MemberOwner, CreatedAt: now}
	d := &Database{ID: n.DatabaseID, NamespaceID: ns.ID, Slug: n.Database, Name: n.Database, Region: canonicalRegion(""), Status: StatusHealthy, CreatedAt: now}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if err := c.insertNamespace(ctx, tx, ns); err != nil {
			return err
		}
		if err := c.insertMember(ctx, tx, owner, u, nil); err != nil {
			return err
		}
		if err := c.insertDatabase(ctx, tx, d, map[string]any{"region": d.Region}); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE users SET home_at = ? WHERE id = ?`, now.UnixMilli(), u.ID)
		return err
	}, func(m *mirror) {
		m.addUser(&v)
		m.addNamespace(ns)
		m.addMember(owner)
		m.addDatabase(d)
	})
	if err != nil {
		return false, fmt.Errorf("create home namespace %q: %w", ns.Slug, err)
	}
	return true, nil
}

// freeSlug is the slug if no namespace has it, else the first of slug-2, slug-3, … that none has.
func (c *Catalog) freeSlug(slug string) string {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	for n, try := 2, slug; ; n++ {
		if _, taken := c.mirror.namespaces[try]; !taken && try != c.reserved {
			return try
		}
		suffix := fmt.Sprintf("-%d", n)
		try = slug[:min(len(slug), maxSlug-len(suffix))] + suffix
	}
}

const selectUsers = `SELECT seq, id, email, name, password, email_verified, created_at, home_at, disabled_at, picture, picture_of FROM users`

func scanUser(rows *sql.Rows) (*User, error) {
	var u User
	var created int64
	var home, disabled sql.NullInt64
	if err := rows.Scan(&u.seq, &u.ID, &u.Email, &u.Name, &u.password, &u.EmailVerified, &created, &home, &disabled, &u.Picture, &u.pictureOf); err != nil {
		return nil, err
	}
	u.CreatedAt, u.HomeAt, u.DisabledAt = fromMillis(created), fromNullMillis(home), fromNullMillis(disabled)
	return &u, nil
}

func (m *mirror) addUser(u *User) {
	m.users[u.ID] = u
	m.byEmail[u.Email] = u
}

// SetDisabled keeps a user from signing in, or lets the user again; disabling ends all sessions, an open link to reset the password, and the open invitations that
// the user made, which would let in whoever has their links. It returns ErrUserNotFound.
func (c *Catalog) SetDisabled(ctx context.Context, id string, disabled bool) (*User, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.User(id)
	if err != nil {
		return nil, fmt.Errorf("disable user: %w", err)
	}
	if disabled != u.DisabledAt.IsZero() {
		return u, nil
	}
	v, action := *u, "user.enabled"
	v.DisabledAt = time.Time{}
	var sessions []*Session
	if disabled {
		v.DisabledAt, action = c.moment(), "user.disabled"
		sessions = c.sessionsOf(id)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE users SET disabled_at = ? WHERE id = ?`, nullMillis(v.DisabledAt), id)
		if err == nil && disabled {
			_, err = tx.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = ?`, id)
			err = errors.Join(err, endReset(ctx, tx, id))
			for _, m := range c.Memberships(id) {
				err = errors.Join(err, c.endGrants(ctx, tx, &Member{NamespaceID: m.ID, UserID: id}))
			}
		}
		return errors.Join(err, c.audit(ctx, tx, userEvent(action, "", u, nil)))
	}, func(m *mirror) {
		m.addUser(&v)
		for _, s := range sessions {
			m.endSession(s)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("disable user: %w", err)
	}
	return &v, nil
}
