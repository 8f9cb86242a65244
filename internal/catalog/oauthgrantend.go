package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// endOAuthToken forgets a token that opens databases.
func (m *mirror) endOAuthToken(t *Token) {
	delete(m.tokens, t.hash)
	delete(m.oauth.granted[t.Via], t.hash)
	if len(m.oauth.granted[t.Via]) == 0 {
		delete(m.oauth.granted, t.Via)
	}
}

// endFamilies ends families with their tokens, in the file.
func (c *Catalog) endFamilies(ctx context.Context, tx *sql.Tx, list []*OAuthFamily) error {
	now := c.moment().UnixMilli()
	for _, f := range list {
		for _, statement := range []string{
			`UPDATE tokens SET revoked_at = ?1 WHERE via = ?2 AND revoked_at IS NULL`,
			`DELETE FROM oauth_access WHERE ?1 AND family_id = ?2`,
			`DELETE FROM oauth_families WHERE ?1 AND id = ?2`,
		} {
			if _, err := tx.ExecContext(ctx, statement, now, f.ID); err != nil {
				return fmt.Errorf("end family: %w", err)
			}
		}
	}
	return nil
}

// revokeOfClient ends the tokens that a client got and that open databases. The others end with the client itself, which is looked for at each use, and go with the next sweep.
func (c *Catalog) revokeOfClient(ctx context.Context, tx *sql.Tx, clientID string) (dead []Hash, err error) {
	return c.revokeWhere(ctx, tx, `client_id = ?`, clientID)
}

// endReused ends the family of a code or refresh token that was used again. The caller holds changing.
func (c *Catalog) endReused(ctx context.Context, f *OAuthFamily, code bool) error {
	if f == nil {
		return nil
	}
	what := "refresh token"
	if code {
		what = "code"
	}
	return c.endFamily(ctx, f, "oauth.reused", map[string]any{"what": what, "userId": f.UserID})
}

// endFamily ends a family. The caller holds changing.
func (c *Catalog) endFamily(ctx context.Context, f *OAuthFamily, action string, metadata map[string]any) error {
	g, err := c.OAuthGrant(f.UserID, f.GrantID)
	if err != nil {
		return err
	}
	return c.change(ctx, func(tx *sql.Tx) error {
		if err := c.endFamilies(ctx, tx, []*OAuthFamily{f}); err != nil {
			return err
		}
		return c.audit(ctx, tx, grantEvent(action, f.NamespaceID, g, metadata))
	}, func(m *mirror) { m.endFamily(f) })
}

// EndOAuthFamily ends what a code got, because of its reuse or because the app asks for it. It is no failure where nothing is left.
func (c *Catalog) EndOAuthFamily(ctx context.Context, id string, reused bool) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	c.mirror.mu.RLock()
	f := c.mirror.oauth.families[id]
	c.mirror.mu.RUnlock()
	if f == nil {
		return nil
	}
	action := "oauth.revoked"
	if reused {
		action = "oauth.reused"
	}
	if err := c.endFamily(ctx, f, action, map[string]any{"userId": f.UserID}); err != nil {
		return fmt.Errorf("end family: %w", err)
	}
	return nil
}

// DisconnectOAuth ends all that an app has of a user: after it returned, none of its tokens opens anything. The app's database stays the user's. It returns
// ErrOAuthGrantNotFound for what is no app that the user has connected.
func (c *Catalog) DisconnectOAuth(ctx context.Context, userID, grantID string) (*OAuthGrant, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	former, err := c.OAuthGrant(userID, grantID)
	if err == nil && !former.EndedAt.IsZero() {
		err = ErrOAuthGrantNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("disconnect app: %w", err)
	}
	v := *former
	g := &v
	g.EndedAt, g.Scopes = c.moment(), nil
	c.mirror.mu.RLock()
	families := c.mirror.oauth.byGrant[g.ID]
	c.mirror.mu.RUnlock()
	err = c.change(ctx, func(tx *sql.Tx) error {
		if err := c.endFamilies(ctx, tx, families); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM oauth_codes WHERE grant_id = ?`, g.ID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE oauth_grants SET ended_at = ?, scopes = '' WHERE id = ?`, g.EndedAt.UnixMilli(), g.ID); err != nil {
			return err
		}
		namespaceID := ""
		if d, err := c.DatabaseByID(g.Database); err == nil {
			namespaceID = d.NamespaceID
		}
		return c.audit(ctx, tx, grantEvent("oauth.disconnected", namespaceID, g, map[string]any{"ended": len(families)}))
	}, func(m *mirror) {
		for _, f := range families {
			m.endFamily(f)
		}
		m.oauth.addGrant(g)
	})
	if err != nil {
		return nil, fmt.Errorf("disconnect app: %w", err)
	}
	return g, nil
}

// SweepOAuth forgets what is over: codes, access tokens, families of which nothing is left, and all of clients that are gone.
func (c *Catalog) SweepOAuth(ctx context.Context) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	now := c.moment()
	before := now.Add(-oauthCodeKept).UnixMilli()
	var codes bool
	if err := c.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM oauth_codes WHERE created_at <= ?)`, before).Scan(&codes); err != nil {
		return fmt.Errorf("sweep grants: %w", err)
	}
	var access []*oauthAccess
	var families []*OAuthFamily
	var grants []*OAuthGrant
	gone := map[string]bool{} // clients
	c.mirror.mu.RLock()
	for _, g := range c.mirror.oauth.grants {
		gone[g.ClientID] = false
	}
	c.mirror.mu.RUnlock()
	for id := range gone {
		gone[id] = !c.oauthClientLives(id)
	}
	c.mirror.mu.RLock()
	for _, a := range c.mirror.oauth.access {
		if !now.Before(a.expires) {
			access = append(access, a)
		}
	}
	for _, f := range c.mirror.oauth.families {
		if h := c.mirror.byID[f.NamespaceID]; gone[f.ClientID] || c.mirror.oauth.over(f, now) || f.NamespaceID != "" && (h == nil || h.deleted) {
			families = append(families, f)
		}
	}
	for _, g := range c.mirror.oauth.grants {
		if gone[g.ClientID] {
			grants = append(grants, g)
		}
	}
	c.mirror.mu.RUnlock()
	if !codes && len(access)+len(families)+len(grants) == 0 {
		return nil
	}
	// No entry in the log: what ends by its time was said when it began, and the end of a client by itself.
	err := c.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM oauth_codes WHERE created_at <= ?`, before)
		for _, a := range access {
			_, aerr := tx.ExecContext(ctx, `DELETE FROM oauth_access WHERE hash = ?`, a.hash[:])
			err = errors.Join(err, aerr)
		}
		err = errors.Join(err, c.endFamilies(ctx, tx, families))
		for _, g := range grants {
			_, cerr := tx.ExecContext(ctx, `DELETE FROM oauth_codes WHERE grant_id = ?`, g.ID)
			_, gerr := tx.ExecContext(ctx, `DELETE FROM oauth_grants WHERE id = ?`, g.ID)
			err = errors.Join(err, cerr, gerr)
		}
		return err
	}, func(m *mirror) {
		for _, a := range access {
			m.oauth.endAccess(a)
		}
		for _, f := range families {
			m.endFamily(f)
		}
		for _, g := range grants {
			m.oauth.endGrant(g)
		}
	})
	if err != nil {
		return fmt.Errorf("sweep grants: %w", err)
	}
	return nil
}

// over tells whether nothing of a family can be used any more.
func (o *oauthState) over(f *OAuthFamily, now time.Time) bool {
	if !f.RefreshEnds.IsZero() && now.Before(f.RefreshEnds) {
		return false
	}
	for _, a := range o.ofFamily[f.ID] {
		if now.Before(a.expires) {
			return false
		}
	}
	for _, t := range o.granted[f.ID] {
		if !t.Expired(now) {
			return false
		}
	}
	return true
}
