package catalog

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Session is a person's being signed in on one browser. Nothing of it changes but the moment of its last use.
type Session struct {
	ID        string
	UserID    string
	Address   string // where it was signed in from
	CreatedAt time.Time

	hash    Hash
	used    atomic.Int64 // Unix milliseconds; in memory it is true at once,
	written atomic.Int64 // and in the file what SweepSessions and Close wrote last
}

// The lives of a session, where Options names none.
const (
	defaultSessionIdle = 7 * 24 * time.Hour
	defaultSessionLife = 30 * 24 * time.Hour
	defaultSessions    = 100
)

// sessionDigits is the length of a cookie's value: 190 random bits.
const sessionDigits = randomDigits

// SessionEnds is when a session ends if it is used no more, and when it does however often it is used.
func (c *Catalog) SessionEnds(s *Session) (idle, last time.Time) {
	last = s.CreatedAt.Add(c.sessionLife)
	idle = fromMillis(s.used.Load()).Add(c.sessionIdle)
	if idle.After(last) {
		idle = last
	}
	return idle, last
}

func (c *Catalog) sessionOver(s *Session, now time.Time) bool {
	idle, _ := c.SessionEnds(s)
	return !now.Before(idle)
}

// AuthenticateSession is the session of a cookie's value, and whose it is. It returns ErrSessionUnknown. It reads memory
// alone; the moment the session's end has returned, it answers ErrSessionUnknown.
func (c *Catalog) AuthenticateSession(secret string) (*Session, *User, error) {
	if len(secret) != sessionDigits {
		return nil, nil, ErrSessionUnknown
	}
	hash := hashToken(secret)
	now := c.now()
	c.mirror.mu.RLock()
	s, ok := c.mirror.sessions[hash]
	var u *User
	if ok {
		u = c.mirror.users[s.UserID]
	}
	c.mirror.mu.RUnlock()
	if !ok || subtle.ConstantTimeCompare(s.hash[:], hash[:]) != 1 || c.sessionOver(s, now) || !u.DisabledAt.IsZero() {
		return nil, nil, ErrSessionUnknown
	}
	// A clock that is set back must not take use away.
	for ms := now.UnixMilli(); ; {
		last := s.used.Load()
		if last >= ms || s.used.CompareAndSwap(last, ms) {
			return s, u, nil
		}
	}
}

// NewSession is what a session is made of.
type NewSession struct {
	UserID string
	// PasswordHash is what the password was verified against. If it is no longer the user's, nobody is signed in: the
	// password was reset in between.
	PasswordHash string
	// Identity is what a provider knows the user as, where that is how the user comes and no password is. If it was unlinked
	// meanwhile, nobody is signed in.
	Identity *UserIdentity
	Picture  string // of the person at Identity's provider, as it tells now: it becomes the user's; "" for none
	Address  string
	Former   *Session // ends with the beginning of the new one, if not nil
}

// CreateSession signs a user in, and returns the session with the cookie's value, which is not kept. The oldest sessions of
// a user who has too many end. It returns ErrUserNotFound, also for one who is disabled, has another password by now, or comes by an identity that
// is no longer the user's.
func (c *Catalog) CreateSession(ctx context.Context, n NewSession) (s *Session, secret string, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.User(n.UserID)
	v := u
	var metadata map[string]any
	if n.Identity != nil {
		metadata = map[string]any{"identityId": n.Identity.ID, "issuer": n.Identity.Issuer}
		if err == nil {
			v = u.pictured(n.Picture, n.Identity.ID)
		}
	} else if err == nil && (n.PasswordHash == "" || u.password != n.PasswordHash) {
		err = ErrUserNotFound
	}
	if err == nil && !u.DisabledAt.IsZero() {
		err = ErrUserNotFound
	}
	if err != nil {
		return nil, "", fmt.Errorf("create session: %w", err)
	}
	secret = randomText(sessionDigits)
	s = &Session{ID: NewID("ses"), UserID: u.ID, Address: n.Address, CreatedAt: c.moment(), hash: hashToken(secret)}
	s.used.Store(s.CreatedAt.UnixMilli())
	s.written.Store(s.CreatedAt.UnixMilli())
	ended := c.sessionsOf(u.ID)
	ended = ended[:max(0, len(ended)-c.maxSessions+1)]
	if n.Former != nil && !slices.Contains(ended, n.Former) {
		ended = append(ended, n.Former)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if n.Identity != nil {
			if list, err := userIdentities(ctx, tx, `id = ? AND user_id = ?`, n.Identity.ID, u.ID); err != nil || len(list) == 0 {
				return errors.Join(err, ErrUserNotFound)
			}
			if err := writePicture(ctx, tx, u, v, metadata); err != nil {
				return err
			}
		}
		if err := c.deleteSessions(ctx, tx, ended, map[string]any{"signedInAgain": true}); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO sessions (hash, id, user_id, address, created_at, used_at) VALUES (?, ?, ?, ?, ?, ?)`,
			s.hash[:], s.ID, s.UserID, s.Address, s.CreatedAt.UnixMilli(), s.used.Load()); err != nil {
			return err
		}
		return c.audit(ctx, tx, sessionEvent("session.created", s, u, metadata))
	}, func(m *mirror) {
		for _, e := range ended {
			m.endSession(e)
		}
		m.addUser(v)
		m.addSession(s)
	})
	if err != nil {
		return nil, "", fmt.Errorf("create session: %w", err)
	}
	return s, secret, nil
}

// sessionEvent names the user, not the cookie: who reads the log must not learn more than the session's id.
func sessionEvent(action string, s *Session, u *User, metadata map[string]any) Event {
	return Event{Action: action, TargetType: "session", TargetID: s.ID, TargetName: u.Email, Metadata: metadata}
}

// deleteSessions ends sessions in the file. Those that have ended already are passed over.
func (c *Catalog) deleteSessions(ctx context.Context, tx *sql.Tx, list []*Session, metadata map[string]any) error {
	for _, s := range list {
		result, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE hash = ?`, s.hash[:])
		if err != nil {
			return fmt.Errorf("delete session: %w", err)
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			continue
		}
		u, err := c.User(s.UserID)
		if err != nil {
			return err
		}
		if err := c.audit(ctx, tx, sessionEvent("session.ended", s, u, metadata)); err != nil {
			return err
		}
	}
	return nil
}

// EndSession signs out: after it returned, the cookie opens nothing. To end it again changes nothing.
func (c *Catalog) EndSession(ctx context.Context, s *Session) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	return c.endSessions(ctx, []*Session{s}, nil)
}

// EndSessions signs a user out everywhere, and returns how many sessions ended.
func (c *Catalog) EndSessions(ctx context.Context, userID string) (int, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	list := c.sessionsOf(userID)
	return len(list), c.endSessions(ctx, list, map[string]any{"everywhere": true})
}

func (c *Catalog) endSessions(ctx context.Context, list []*Session, metadata map[string]any) error {
	err := c.change(ctx, func(tx *sql.Tx) error {
		return c.deleteSessions(ctx, tx, list, metadata)
	}, func(m *mirror) {
		for _, s := range list {
			m.endSession(s)
		}
	})
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// sessionsOf are a user's sessions, the oldest first; a list of the caller's own.
func (c *Catalog) sessionsOf(userID string) []*Session {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	return slices.Clone(c.mirror.userSessions[userID])
}

// Sessions are a user's sessions that are not over, the oldest first.
func (c *Catalog) Sessions(userID string) []*Session {
	now := c.now()
	return slices.DeleteFunc(c.sessionsOf(userID), func(s *Session) bool { return c.sessionOver(s, now) })
}

// SweepSessions forgets the sessions that are over, and writes down when the others were used last.
func (c *Catalog) SweepSessions(ctx context.Context) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	if err := c.sweepSessions(ctx, c.now()); err != nil {
		return fmt.Errorf("sweep sessions: %w", err)
	}
	return nil
}

func (c *Catalog) sweepSessions(ctx context.Context, now time.Time) error {
	var over, used []*Session
	c.mirror.mu.RLock()
	for _, s := range c.mirror.sessions {
		if c.sessionOver(s, now) {
			over = append(over, s)
		} else if s.used.Load() > s.written.Load() {
			used = append(used, s)
		}
	}
	c.mirror.mu.RUnlock()
	if len(over)+len(used) == 0 {
		return nil
	}
	moments := make([]int64, len(used))
	return c.change(ctx, func(tx *sql.Tx) error {
		for _, s := range over {
			// No entry in the log: what ends by its time was said when it began.
			if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE hash = ?`, s.hash[:]); err != nil {
				return err
			}
		}
		for i, s := range used {
			moments[i] = s.used.Load()
			if _, err := tx.ExecContext(ctx, `UPDATE sessions SET used_at = ? WHERE hash = ?`, moments[i], s.hash[:]); err != nil {
				return err
			}
		}
		return nil
	}, func(m *mirror) {
		for _, s := range over {
			m.endSession(s)
		}
		for i, s := range used {
			s.written.Store(moments[i])
		}
	})
}

func (m *mirror) addSession(s *Session) {
	m.sessions[s.hash] = s
	m.userSessions[s.UserID] = append(m.userSessions[s.UserID], s)
}

func (m *mirror) endSession(s *Session) {
	delete(m.sessions, s.hash)
	left := slices.DeleteFunc(m.userSessions[s.UserID], func(o *Session) bool { return o == s })
	if len(left) == 0 {
		delete(m.userSessions, s.UserID)
		return
	}
	m.userSessions[s.UserID] = left
}

// RecordRefusal notes a failed sign-in, to the account that was meant if there is one.
func (c *Catalog) RecordRefusal(ctx context.Context, u *User) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	e := Event{Action: "session.refused", TargetType: "user"}
	if u != nil {
		e.TargetID, e.TargetName = u.ID, u.Email
	}
	return c.change(ctx, func(tx *sql.Tx) error { return c.audit(ctx, tx, e) }, func(*mirror) {})
}
