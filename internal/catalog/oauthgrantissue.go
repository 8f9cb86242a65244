package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// OAuthConsent is what a user agrees to, and the code that says so.
type OAuthConsent struct {
	Code        string // its secret, of which the hash is kept
	UserID      string
	ClientID    string
	Name        string // the app's
	Scopes      []string
	Resource    string // that its tokens are to be bound to; "" for the API
	NamespaceID string // that a token of a resource is for; "" else
	RedirectURI string
	Challenge   string // S256; "" for none
	Nonce       string
	AuthAt      time.Time // when the user signed in
	// Database is made where the scope database is agreed to and the app has none: its file is there, its slug is wanted.
	Database *NewDatabase
}

// ConsentOAuth notes what a user agreed to, makes the app's database if it is to have one and has none, and notes the code: all at once. made tells whether n.Database was
// taken. It returns ErrUserNotFound, ErrOAuthClientNotFound, ErrNamespaceNotFound, ErrLadder where the user may not grant that, or ErrOAuthDatabase where a database is
// needed and none was given.
func (c *Catalog) ConsentOAuth(ctx context.Context, n OAuthConsent) (g *OAuthGrant, made bool, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	u, err := c.User(n.UserID)
	if err == nil && !u.DisabledAt.IsZero() {
		err = ErrUserNotFound
	}
	if err != nil {
		return nil, false, fmt.Errorf("consent: %w", err)
	}
	if !c.oauthClientLives(n.ClientID) {
		return nil, false, fmt.Errorf("consent: %w", ErrOAuthClientNotFound)
	}
	now := c.moment()
	former, err := c.OAuthGrantOf(n.UserID, n.ClientID)
	if err != nil {
		former = &OAuthGrant{ID: NewID("ogr"), UserID: n.UserID, ClientID: n.ClientID, CreatedAt: now}
	}
	v := *former
	g = &v
	g.Name = n.Name
	if !g.EndedAt.IsZero() {
		g.Scopes, g.CreatedAt, g.EndedAt = nil, now, time.Time{}
	}
	g.Scopes = slices.Clone(g.Scopes)
	for _, scope := range n.Scopes {
		if !slices.Contains(g.Scopes, scope) {
			g.Scopes = append(g.Scopes, scope)
		}
	}
	var d *Database
	role := ""
	switch {
	case n.Resource != "":
		ns, ok := c.namespaceByID(n.NamespaceID)
		m, merr := c.member(n.NamespaceID, n.UserID)
		if !ok || merr != nil {
			return nil, false, fmt.Errorf("consent: %w", ErrNamespaceNotFound)
		}
		n.NamespaceID, role = ns.ID, TokenRole(m.Role)
	case slices.Contains(n.Scopes, OAuthDatabase):
		if d, made, err = c.oauthDatabase(g, n.Database); err != nil {
			return nil, false, fmt.Errorf("consent: %w", err)
		}
		n.NamespaceID, role, g.Database = d.NamespaceID, "readwrite", d.ID
	default:
		n.NamespaceID = ""
	}
	hash := hashToken(n.Code)
	err = c.change(ctx, func(tx *sql.Tx) error {
		if made {
			if err := c.insertDatabase(ctx, tx, d, map[string]any{"region": d.Region, "clientId": n.ClientID}); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO oauth_grants (id, user_id, client_id, name, scopes, database_id, created_at, ended_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL)
			ON CONFLICT (id) DO UPDATE SET name = ?4, scopes = ?5, database_id = ?6, created_at = ?7, ended_at = NULL`,
			g.ID, g.UserID, g.ClientID, g.Name, strings.Join(g.Scopes, " "), nullText(g.Database), g.CreatedAt.UnixMilli()); err != nil {
			return fmt.Errorf("insert grant: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO oauth_codes (hash, family_id, grant_id, redirect_uri, challenge, nonce, scopes, resource, namespace_id, role, auth_at, created_at, expires_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, hash[:], NewID(strings.TrimSuffix(familyPrefix, "_")), g.ID, n.RedirectURI, n.Challenge, n.Nonce, strings.Join(n.Scopes, " "),
			n.Resource, nullText(n.NamespaceID), role, n.AuthAt.UnixMilli(), now.UnixMilli(), now.Add(OAuthCodeLife).UnixMilli()); err != nil {
			return fmt.Errorf("insert code: %w", err)
		}
		metadata := map[string]any{"scopes": n.Scopes}
		if d != nil {
			metadata["databaseId"] = d.ID
		}
		if n.Resource != "" {
			metadata["resource"] = n.Resource
		}
		return c.audit(ctx, tx, grantEvent("oauth.consented", n.NamespaceID, g, metadata))
	}, func(m *mirror) {
		if made {
			m.addDatabase(d)
		}
		m.oauth.addGrant(g)
	})
	if err != nil {
		return nil, false, fmt.Errorf("consent: %w", err)
	}
	return g, made, nil
}

// oauthDatabase is the database of a grant, or the one that is to be made for it. The caller holds changing.
func (c *Catalog) oauthDatabase(g *OAuthGrant, n *NewDatabase) (d *Database, made bool, err error) {
	may := func(namespaceID string) bool {
		c.mirror.mu.RLock()
		defer c.mirror.mu.RUnlock()
		return c.mirror.mayGrant(g.UserID, namespaceID, "readwrite")
	}
	if d, err := c.DatabaseByID(g.Database); g.Database != "" && err == nil && may(d.NamespaceID) {
		return d, false, nil
	}
	if n == nil {
		return nil, false, ErrOAuthDatabase
	}
	ns, ok := c.namespaceByID(n.NamespaceID)
	if !ok {
		return nil, false, ErrNamespaceNotFound
	}
	if !may(ns.ID) {
		return nil, false, ErrLadder
	}
	if !ValidSlug(n.Slug) {
		return nil, false, ErrSlug
	}
	if !validName(n.Name) {
		n.Name = ""
	}
	d = &Database{ID: n.ID, NamespaceID: ns.ID, Slug: c.freeDatabaseSlug(ns.ID, n.Slug), Region: canonicalRegion(""), Status: StatusHealthy, CreatedAt: c.moment()}
	if d.Name = n.Name; d.Name == "" {
		d.Name = d.Slug
	}
	return d, true, nil
}

// freeDatabaseSlug is the slug if no database of the namespace has or had it, else the first of slug-2, slug-3, … that none has: one in the trash may come back.
func (c *Catalog) freeDatabaseSlug(namespaceID, slug string) string {
	for n, try := 2, slug; ; n++ {
		if _, err := c.Database(namespaceID, try); errors.Is(err, ErrDatabaseNotFound) && !errors.Is(err, ErrDatabaseEnded) {
			return try
		}
		suffix := fmt.Sprintf("-%d", n)
		try = slug[:min(len(slug), maxSlug-len(suffix))] + suffix
	}
}

// OAuthCode is an authorization code as it was noted. It is not changed after it was handed out.
type OAuthCode struct {
	FamilyID    string
	GrantID     string
	UserID      string
	ClientID    string
	RedirectURI string
	Challenge   string
	Nonce       string
	Scopes      []string
	Resource    string
	NamespaceID string
	Role        string
	AuthAt      time.Time
	CreatedAt   time.Time
	ExpiresAt   time.Time
	UsedAt      time.Time // zero while it is not used
}

const selectCodes = `SELECT c.family_id, c.grant_id, g.user_id, g.client_id, c.redirect_uri, c.challenge, c.nonce, c.scopes, c.resource, c.namespace_id, c.role, c.auth_at, c.created_at,
	c.expires_at, c.used_at FROM oauth_codes c JOIN oauth_grants g ON g.id = c.grant_id WHERE c.hash = ? AND g.ended_at IS NULL`

func scanCode(row scanner) (*OAuthCode, error) {
	var o OAuthCode
	var scopes string
	var ns sql.NullString
	var auth, created, expires int64
	var used sql.NullInt64
	err := row.Scan(&o.FamilyID, &o.GrantID, &o.UserID, &o.ClientID, &o.RedirectURI, &o.Challenge, &o.Nonce, &scopes, &o.Resource, &ns, &o.Role, &auth, &created, &expires, &used)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrOAuthUnknown
	}
	o.Scopes, o.NamespaceID = strings.Fields(scopes), ns.String
	o.AuthAt, o.CreatedAt, o.ExpiresAt, o.UsedAt = fromMillis(auth), fromMillis(created), fromMillis(expires), fromNullMillis(used)
	return &o, err
}

// OAuthCode is the code that was presented. A used one is returned with ErrOAuthReused; what is expired, never was or belongs to a grant that has ended is ErrOAuthUnknown.
// It reads the file.
func (c *Catalog) OAuthCode(ctx context.Context, code string) (*OAuthCode, error) {
	if !strings.HasPrefix(code, prefixOAuthCode) || len(code) != len(prefixOAuthCode)+randomDigits {
		return nil, ErrOAuthUnknown
	}
	hash := hashToken(code)
	o, err := scanCode(c.db.QueryRowContext(ctx, selectCodes, hash[:]))
	if err != nil {
		return nil, err
	}
	if !o.UsedAt.IsZero() {
		return o, ErrOAuthReused
	}
	if !c.now().Before(o.ExpiresAt) {
		return nil, ErrOAuthUnknown
	}
	return o, nil
}

// OAuthIssue is what a code or a refresh token gets.
type OAuthIssue struct {
	Code    string // that is used, or
	Refresh string // that is used
	Scopes  []string
	Access  string // the new access token: one of NewOAuthAccess, or where it opens databases one of NewTokenSecret
	// AccessLife is how long it lives; 0 for until it is revoked.
	AccessLife  time.Duration
	NewRefresh  string // the new refresh token; "" for none
	RefreshLife time.Duration
	Name        string // of a token that opens databases
	Payer       string // id of the namespace that is charged for what that does; "" for its own
}

// IssueOAuth uses a code or a refresh token up and notes what it gets, all at once: of two that come at the same time one is used, and the other is its reuse. That ends the
// family, and returns ErrOAuthReused. It returns ErrOAuthUnknown for what is expired, never was, or is agreed to no more.
func (c *Catalog) IssueOAuth(ctx context.Context, n OAuthIssue) (*OAuthFamily, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	f, ended, err := c.issueFor(ctx, n)
	if errors.Is(err, ErrOAuthReused) {
		return nil, errors.Join(fmt.Errorf("issue token: %w", err), c.endReused(ctx, f, n.Code != ""))
	}
	if err != nil {
		return nil, fmt.Errorf("issue token: %w", err)
	}
	now := c.moment()
	if n.NewRefresh != "" {
		f.refresh, f.RefreshEnds = hashToken(n.NewRefresh), now.Add(n.RefreshLife)
	}
	var expires time.Time
	if n.AccessLife > 0 {
		expires = now.Add(n.AccessLife)
	}
	var a *oauthAccess
	var t *Token
	c.mirror.mu.RLock()
	former := slices.Clone(c.mirror.oauth.ofFamily[f.ID])
	dead := slices.Collect(maps.Values(c.mirror.oauth.granted[f.ID]))
	c.mirror.mu.RUnlock()
	former = oldest(former, func(a *oauthAccess) time.Time { return a.created })
	if strings.HasPrefix(n.Access, prefixOAuthAccess) {
		a = &oauthAccess{family: f.ID, scopes: n.Scopes, created: now, expires: expires, hash: hashToken(n.Access)}
	} else if t, err = c.oauthToken(f, n, expires); err != nil {
		return nil, fmt.Errorf("issue token: %w", err)
	} else if !expires.IsZero() { // else all: they have no end of their own
		dead = oldest(dead, func(t *Token) time.Time { return t.CreatedAt })
	}
	g, err := c.OAuthGrant(f.UserID, f.GrantID)
	if err != nil {
		return nil, fmt.Errorf("issue token: %w", ErrOAuthUnknown)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if err := c.endFamilies(ctx, tx, ended); err != nil {
			return err
		}
		var refresh []byte
		if !f.RefreshEnds.IsZero() {
			refresh = f.refresh[:]
		}
		if n.Code != "" {
			hash := hashToken(n.Code)
			if _, err := tx.ExecContext(ctx, `UPDATE oauth_codes SET used_at = ? WHERE hash = ?`, now.UnixMilli(), hash[:]); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO oauth_families (id, grant_id, scopes, resource, namespace_id, role, auth_at, created_at, refresh, refresh_ends_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				f.ID, f.GrantID, strings.Join(f.Scopes, " "), f.Resource, nullText(f.NamespaceID), f.Role, f.AuthAt.UnixMilli(), f.CreatedAt.UnixMilli(), refresh, nullMillis(f.RefreshEnds)); err != nil {
				return fmt.Errorf("insert family: %w", err)
			}
		} else if _, err := tx.ExecContext(ctx, `UPDATE oauth_families SET refresh = ?, refresh_ends_at = ? WHERE id = ?`, refresh, nullMillis(f.RefreshEnds), f.ID); err != nil {
			return fmt.Errorf("rotate refresh token: %w", err)
		}
		metadata := map[string]any{"userId": f.UserID, "scopes": n.Scopes, "refreshed": n.Code == ""}
		if a != nil {
			for _, before := range former {
				if _, err := tx.ExecContext(ctx, `DELETE FROM oauth_access WHERE hash = ?`, before.hash[:]); err != nil {
					return err
				}
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO oauth_access (hash, family_id, scopes, created_at, expires_at) VALUES (?, ?, ?, ?, ?)`,
				a.hash[:], a.family, strings.Join(a.scopes, " "), a.created.UnixMilli(), a.expires.UnixMilli()); err != nil {
				return fmt.Errorf("insert access token: %w", err)
			}
		} else {
			for _, before := range dead {
				if _, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked_at = ? WHERE id = ?`, now.UnixMilli(), before.ID); err != nil {
					return err
				}
			}
			if err := insertToken(ctx, tx, t); err != nil {
				return err
			}
			metadata["tokenId"] = t.ID
		}
		return c.audit(ctx, tx, grantEvent("oauth.token_issued", f.NamespaceID, g, metadata))
	}, func(m *mirror) {
		for _, old := range ended {
			m.endFamily(old)
		}
		m.oauth.addFamily(f)
		if a != nil {
			for _, before := range former {
				m.oauth.endAccess(before)
			}
			m.oauth.addAccess(a)
			return
		}
		for _, before := range dead {
			m.endOAuthToken(before)
		}
		m.tokens[t.hash] = t
		m.oauth.addToken(t)
	})
	if err != nil {
		return nil, fmt.Errorf("issue token: %w", err)
	}
	return f, nil
}

// oldest are those of a sign-in's access tokens that end where another is made.
func oldest[T any](list []T, at func(T) time.Time) []T {
	slices.SortStableFunc(list, func(a, b T) int { return at(a).Compare(at(b)) })
	return list[:max(0, len(list)-oauthFamilyTokens+1)]
}

// issueFor is the family that a code or a refresh token is for, to be changed, and those that have to end for a new one. With ErrOAuthReused it is the family that has to end; nil
// where that is gone already. The caller holds changing.
func (c *Catalog) issueFor(ctx context.Context, n OAuthIssue) (f *OAuthFamily, ended []*OAuthFamily, err error) {
	if n.Code == "" {
		t, err := c.OAuthRefresh(n.Refresh)
		if t == nil {
			return nil, nil, err
		}
		v := *t.Family
		return &v, nil, err
	}
	o, err := c.OAuthCode(ctx, n.Code)
	if errors.Is(err, ErrOAuthReused) {
		c.mirror.mu.RLock()
		defer c.mirror.mu.RUnlock()
		return c.mirror.oauth.families[o.FamilyID], nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	f = &OAuthFamily{ID: o.FamilyID, GrantID: o.GrantID, UserID: o.UserID, ClientID: o.ClientID, Scopes: o.Scopes, Resource: o.Resource, NamespaceID: o.NamespaceID, Role: o.Role,
		AuthAt: o.AuthAt, CreatedAt: c.moment()}
	if !c.oauthLives(f) {
		return nil, nil, ErrOAuthUnknown
	}
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	ended = c.mirror.oauth.byGrant[f.GrantID]
	return f, ended[:max(0, len(ended)-c.maxFamilies+1)], nil
}

// oauthToken is the token of a family that opens databases.
func (c *Catalog) oauthToken(f *OAuthFamily, n OAuthIssue, expires time.Time) (*Token, error) {
	nt := NewToken{NamespaceID: f.NamespaceID, Name: n.Name, Role: f.Role, Via: f.ID, ExpiresAt: expires}
	if !validName(nt.Name) {
		nt.Name = "app"
	}
	if f.Resource == "" {
		g, err := c.OAuthGrant(f.UserID, f.GrantID)
		if err != nil {
			return nil, ErrOAuthUnknown
		}
		nt.Database = g.Database
	}
	t, err := c.describeToken(nt, n.Access)
	if errors.Is(err, ErrDatabaseNotFound) || errors.Is(err, ErrNamespaceNotFound) {
		return nil, ErrOAuthUnknown // deleted since the user agreed
	}
	if err != nil {
		return nil, err
	}
	t.Owner = f.UserID
	t.OAuth = &TokenOAuth{Client: f.ClientID, Resource: f.Resource, Scopes: slices.Clone(n.Scopes)}
	if n.Payer != f.NamespaceID {
		t.OAuth.Payer = n.Payer
	}
	return t, nil
}
