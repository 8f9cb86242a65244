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

// The scopes of OAuth that the catalog knows: what is made depends on them.
const (
	OAuthDatabase = "database"       // a database of the app's own, in the user's namespace
	OAuthOffline  = "offline_access" // refresh tokens
)

// OAuthCodeLife is how long an authorization code can be used, and oauthCodeKept how long it is remembered: its second use is known for what it is until then.
const (
	OAuthCodeLife = 60 * time.Second
	oauthCodeKept = 10 * time.Minute
)

// oauthFamilyTokens is how many access tokens of one sign-in live at the same time. Each refresh makes another: with one more the oldest ends, or whoever refreshes without end would
// fill the memory, and the lists of the namespace's tokens.
const oauthFamilyTokens = 10

// defaultOAuthFamilies is how many sign-ins of one user with one app live at the same time, where Options names no number.
const defaultOAuthFamilies = 100

// The forms of what OAuth hands out, each with 190 random bits. A refresh token has the id of its family in it, so that an old one, of which nothing is kept, is known to be one.
const (
	prefixOAuthCode    = "psqloc_"
	prefixOAuthAccess  = "psqloa_"
	prefixOAuthRefresh = "psqlor_"

	familyDigits = 26 // of an id, after its prefix
	familyPrefix = "ofa_"
)

// NewOAuthCode is a code that nobody has.
func NewOAuthCode() string { return prefixOAuthCode + randomText(randomDigits) }

// NewOAuthAccess is an access token for /userinfo that nobody has.
func NewOAuthAccess() string { return prefixOAuthAccess + randomText(randomDigits) }

// NewOAuthRefresh is a refresh token of a family that nobody has.
func NewOAuthRefresh(family string) string {
	return prefixOAuthRefresh + strings.TrimPrefix(family, familyPrefix) + randomText(randomDigits)
}

// NewTokenSecret is a token of the API that nobody has.
func NewTokenSecret() string { return newToken(false) }

// familyOfRefresh is the family that a refresh token names; "" for what is none.
func familyOfRefresh(secret string) string {
	rest, ok := strings.CutPrefix(secret, prefixOAuthRefresh)
	if !ok || len(rest) != familyDigits+randomDigits {
		return ""
	}
	return familyPrefix + rest[:familyDigits]
}

// OAuthGrant is an app that a user has connected. It is not changed after it was handed out.
type OAuthGrant struct {
	ID        string
	UserID    string
	ClientID  string
	Name      string   // the app's, as it was when the user agreed
	Scopes    []string // agreed to
	Database  string   // id of the app's database; "" for none. It may be gone
	CreatedAt time.Time
	EndedAt   time.Time // zero while it is connected
}

// OAuthFamily is what one authorization code got, with all that came of it by refreshing. It is not changed after it was handed out.
type OAuthFamily struct {
	ID          string
	GrantID     string
	UserID      string
	ClientID    string
	Scopes      []string
	Resource    string // that its tokens are bound to; "" for the API
	NamespaceID string // that they open databases of; "" for none
	Role        string // there
	AuthAt      time.Time
	CreatedAt   time.Time
	RefreshEnds time.Time // of the refresh token; zero where there is none

	refresh Hash
}

// OAuthToken is a token of a family, of any kind.
type OAuthToken struct {
	Family    *OAuthFamily
	Scopes    []string
	CreatedAt time.Time
	ExpiresAt time.Time // zero for never
	Refresh   bool
	Token     *Token // of one that opens databases
}

// oauthAccess is an access token that reads /userinfo.
type oauthAccess struct {
	family  string
	scopes  []string
	created time.Time
	expires time.Time
	hash    Hash
}

// TokenOAuth is what a token has that an app got for a user.
type TokenOAuth struct {
	Client   string   // client_id of the app
	Resource string   // that it is bound to: it opens nothing of the API; "" for the API
	Payer    string   // id of the namespace that is charged for what it does; "" for its own
	Scopes   []string // agreed to
}

// oauthState is what the mirror has of OAuth.
type oauthState struct {
	grants   map[string]*OAuthGrant     // by id
	grantOf  map[[2]string]*OAuthGrant  // the same, by the ids of user and client
	families map[string]*OAuthFamily    // by id
	byGrant  map[string][]*OAuthFamily  // the same, by the grant's id, the oldest first
	access   map[Hash]*oauthAccess      // an expired one may still be here
	ofFamily map[string][]*oauthAccess  // the same, by the family's id
	payers   map[string]string          // by the token's id, of living and revoked ones
	granted  map[string]map[Hash]*Token // tokens that open databases, by the family's id
}

func newOAuthState() oauthState {
	return oauthState{map[string]*OAuthGrant{}, map[[2]string]*OAuthGrant{}, map[string]*OAuthFamily{}, map[string][]*OAuthFamily{},
		map[Hash]*oauthAccess{}, map[string][]*oauthAccess{}, map[string]string{}, map[string]map[Hash]*Token{}}
}

func (o *oauthState) addGrant(g *OAuthGrant) {
	o.grants[g.ID] = g
	o.grantOf[[2]string{g.UserID, g.ClientID}] = g
}

func (o *oauthState) endGrant(g *OAuthGrant) {
	delete(o.grants, g.ID)
	delete(o.grantOf, [2]string{g.UserID, g.ClientID})
}

// addFamily adds a family, or puts it in its own place.
func (o *oauthState) addFamily(f *OAuthFamily) {
	list := o.byGrant[f.GrantID]
	if i := slices.IndexFunc(list, func(other *OAuthFamily) bool { return other.ID == f.ID }); i >= 0 {
		list = slices.Clone(list)
		list[i] = f
		o.byGrant[f.GrantID] = list
	} else {
		o.byGrant[f.GrantID] = append(list, f)
	}
	o.families[f.ID] = f
}

// endFamily forgets a family with all its tokens.
func (m *mirror) endFamily(f *OAuthFamily) {
	o := &m.oauth
	for _, a := range o.ofFamily[f.ID] {
		delete(o.access, a.hash)
	}
	delete(o.ofFamily, f.ID)
	for hash := range o.granted[f.ID] {
		delete(m.tokens, hash)
	}
	delete(o.granted, f.ID)
	delete(o.families, f.ID)
	left := slices.DeleteFunc(slices.Clone(o.byGrant[f.GrantID]), func(other *OAuthFamily) bool { return other.ID == f.ID })
	if len(left) == 0 {
		delete(o.byGrant, f.GrantID)
		return
	}
	o.byGrant[f.GrantID] = left
}

func (o *oauthState) addAccess(a *oauthAccess) {
	o.access[a.hash] = a
	o.ofFamily[a.family] = append(o.ofFamily[a.family], a)
}

func (o *oauthState) endAccess(a *oauthAccess) {
	delete(o.access, a.hash)
	o.ofFamily[a.family] = slices.DeleteFunc(o.ofFamily[a.family], func(other *oauthAccess) bool { return other == a })
	if len(o.ofFamily[a.family]) == 0 {
		delete(o.ofFamily, a.family)
	}
}

func (o *oauthState) addToken(t *Token) {
	if t.OAuth == nil {
		return
	}
	of := o.granted[t.Via]
	if of == nil {
		of = map[Hash]*Token{}
		o.granted[t.Via] = of
	}
	of[t.hash] = t
	if t.OAuth.Payer != "" {
		o.payers[t.ID] = t.OAuth.Payer
	}
}

// OAuthGrant is a user's grant of an id, connected or not. ErrOAuthGrantNotFound.
func (c *Catalog) OAuthGrant(userID, id string) (*OAuthGrant, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	if g, ok := c.mirror.oauth.grants[id]; ok && g.UserID == userID {
		return g, nil
	}
	return nil, ErrOAuthGrantNotFound
}

// OAuthGrantOf is what a user has agreed to with a client, connected or not. ErrOAuthGrantNotFound.
func (c *Catalog) OAuthGrantOf(userID, clientID string) (*OAuthGrant, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	if g, ok := c.mirror.oauth.grantOf[[2]string{userID, clientID}]; ok {
		return g, nil
	}
	return nil, ErrOAuthGrantNotFound
}

// ConnectedApp is a grant that is connected, with its sign-ins that live.
type ConnectedApp struct {
	*OAuthGrant
	Families []*OAuthFamily // the oldest first
}

// ConnectedApps are the apps that a user has connected, in the order of their names.
func (c *Catalog) ConnectedApps(userID string) (list []ConnectedApp) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	for _, g := range c.mirror.oauth.grants {
		if g.UserID == userID && g.EndedAt.IsZero() {
			list = append(list, ConnectedApp{g, c.mirror.oauth.byGrant[g.ID]})
		}
	}
	slices.SortFunc(list, func(a, b ConnectedApp) int {
		if n := strings.Compare(a.Name, b.Name); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// Payer is the namespace that is charged for what a token does, if that isn't the database's; "" else. Of a revoked token too: what it wrote may be told later.
func (c *Catalog) Payer(tokenID string) string {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	return c.mirror.oauth.payers[tokenID]
}

// AppDatabase is a database that an app has in its user's namespace, or had until it was disconnected.
type AppDatabase struct {
	NamespaceID string // the app's, which is charged for what the database stores while the app is connected
	Connected   bool   // and it has a sign-in that works: an app that has revoked its tokens pays for nothing that its former user stores
}

// AppDatabases are those of the apps that have a namespace, by the databases' ids.
func (c *Catalog) AppDatabases() map[string]AppDatabase {
	now := c.now()
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	list := map[string]AppDatabase{}
	for _, g := range c.mirror.oauth.grants {
		if cl := c.mirror.clients[g.ClientID]; g.Database != "" && cl != nil && cl.NamespaceID != "" {
			lives := slices.ContainsFunc(c.mirror.oauth.byGrant[g.ID], func(f *OAuthFamily) bool { return !c.mirror.oauth.over(f, now) })
			list[g.Database] = AppDatabase{cl.NamespaceID, g.EndedAt.IsZero() && lives}
		}
	}
	return list
}

// roleRung is a token role's place on the ladder, from 1; 0 for no role.
func roleRung(role string) int {
	switch role {
	case "read", "readonly":
		return 1
	case "write", "readwrite":
		return 2
	case RoleAdmin:
		return 3
	}
	return 0
}

// oauthLives tells whether what was agreed to still holds: the user may sign in, the client is there, and in the namespace the user may still do what the tokens may.
func (c *Catalog) oauthLives(f *OAuthFamily) bool {
	if !c.oauthClientLives(f.ClientID) {
		return false
	}
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	return c.mirror.mayGrant(f.UserID, f.NamespaceID, f.Role)
}

// oauthClientLives tells whether a client is there. Metadata documents are no row of ours, and can't be deleted.
func (c *Catalog) oauthClientLives(id string) bool {
	if strings.HasPrefix(id, "https://") {
		return true
	}
	_, err := c.OAuthClient(id)
	return err == nil
}

// mayGrant tells whether a user may sign in and, if there is a namespace, has that role there.
func (m *mirror) mayGrant(userID, namespaceID, role string) bool {
	u := m.users[userID]
	if u == nil || !u.DisabledAt.IsZero() {
		return false
	}
	if namespaceID == "" {
		return true
	}
	member := m.memberOf[userID][namespaceID]
	return member != nil && roleRung(TokenRole(member.Role)) >= roleRung(role)
}

// family is a family that lives and whose agreement still holds.
func (c *Catalog) family(id string) (*OAuthFamily, error) {
	c.mirror.mu.RLock()
	f := c.mirror.oauth.families[id]
	c.mirror.mu.RUnlock()
	if f == nil || !c.oauthLives(f) {
		return nil, ErrOAuthUnknown
	}
	return f, nil
}

// OAuthAccess is the access token that was presented, be it one for /userinfo or one that opens databases. It reads memory alone. ErrOAuthUnknown.
func (c *Catalog) OAuthAccess(secret string) (*OAuthToken, error) {
	if !strings.HasPrefix(secret, prefixOAuthAccess) {
		return c.oauthCatalogToken(secret)
	}
	hash := hashToken(secret)
	c.mirror.mu.RLock()
	a := c.mirror.oauth.access[hash]
	c.mirror.mu.RUnlock()
	if a == nil || subtle.ConstantTimeCompare(a.hash[:], hash[:]) != 1 || !c.now().Before(a.expires) {
		return nil, ErrOAuthUnknown
	}
	f, err := c.family(a.family)
	if err != nil {
		return nil, err
	}
	return &OAuthToken{Family: f, Scopes: a.scopes, CreatedAt: a.created, ExpiresAt: a.expires}, nil
}

func (c *Catalog) oauthCatalogToken(secret string) (*OAuthToken, error) {
	t, err := c.token(secret)
	if err != nil || t.OAuth == nil {
		return nil, ErrOAuthUnknown
	}
	f, err := c.family(t.Via)
	if err != nil {
		return nil, err
	}
	return &OAuthToken{Family: f, Scopes: t.OAuth.Scopes, CreatedAt: t.CreatedAt, ExpiresAt: t.ExpiresAt, Token: t}, nil
}

// OAuthRefresh is the refresh token that was presented. It reads memory alone. For an old one of a family that lives it returns ErrOAuthReused, with the family.
func (c *Catalog) OAuthRefresh(secret string) (*OAuthToken, error) {
	id := familyOfRefresh(secret)
	if id == "" {
		return nil, ErrOAuthUnknown
	}
	f, err := c.family(id)
	if err != nil || f.RefreshEnds.IsZero() || !c.now().Before(f.RefreshEnds) {
		return nil, ErrOAuthUnknown
	}
	t := &OAuthToken{Family: f, Scopes: f.Scopes, CreatedAt: f.CreatedAt, ExpiresAt: f.RefreshEnds, Refresh: true}
	hash := hashToken(secret)
	if subtle.ConstantTimeCompare(f.refresh[:], hash[:]) != 1 {
		return t, ErrOAuthReused
	}
	return t, nil
}

// AuthenticateFor is Authenticate for a resource that tokens are bound to, such as the MCP endpoint: it lets in those of that resource, and those that are bound to none.
func (c *Catalog) AuthenticateFor(token, resource string) (*Token, error) {
	t, err := c.token(token)
	if err != nil {
		return nil, err
	}
	if t.OAuth != nil && (t.OAuth.Resource != "" && t.OAuth.Resource != resource || !c.oauthTokenLives(t)) {
		return nil, ErrTokenUnknown
	}
	return t, nil
}

// TokenHolds tells whether what was agreed to still holds for a token that an app got. Any other token hangs on no agreement.
func (c *Catalog) TokenHolds(t *Token) bool { return t.OAuth == nil || c.oauthTokenLives(t) }

// oauthTokenLives tells whether what was agreed to still holds for a token.
func (c *Catalog) oauthTokenLives(t *Token) bool {
	_, err := c.family(t.Via)
	return err == nil
}

const (
	selectGrants   = `SELECT id, user_id, client_id, name, scopes, database_id, created_at, ended_at FROM oauth_grants`
	selectFamilies = `SELECT f.id, f.grant_id, g.user_id, g.client_id, f.scopes, f.resource, f.namespace_id, f.role, f.auth_at, f.created_at, f.refresh, f.refresh_ends_at
		FROM oauth_families f JOIN oauth_grants g ON g.id = f.grant_id`
)

// loadOAuth reads what has been agreed to, and what came of it. Tokens that open databases are there already.
func (m *mirror) loadOAuth(ctx context.Context, db *sql.DB) error {
	o := &m.oauth
	return errors.Join(
		each(ctx, db, selectGrants, func(rows *sql.Rows) error {
			var g OAuthGrant
			var scopes string
			var database sql.NullString
			var created int64
			var ended sql.NullInt64
			if err := rows.Scan(&g.ID, &g.UserID, &g.ClientID, &g.Name, &scopes, &database, &created, &ended); err != nil {
				return err
			}
			g.Scopes, g.Database, g.CreatedAt, g.EndedAt = strings.Fields(scopes), database.String, fromMillis(created), fromNullMillis(ended)
			o.addGrant(&g)
			return nil
		}),
		each(ctx, db, selectFamilies+` ORDER BY f.seq`, func(rows *sql.Rows) error {
			var f OAuthFamily
			var scopes string
			var ns sql.NullString
			var auth, created int64
			var refresh []byte
			var ends sql.NullInt64
			if err := rows.Scan(&f.ID, &f.GrantID, &f.UserID, &f.ClientID, &scopes, &f.Resource, &ns, &f.Role, &auth, &created, &refresh, &ends); err != nil {
				return err
			}
			f.Scopes, f.NamespaceID, f.AuthAt, f.CreatedAt, f.RefreshEnds = strings.Fields(scopes), ns.String, fromMillis(auth), fromMillis(created), fromNullMillis(ends)
			copy(f.refresh[:], refresh)
			o.addFamily(&f)
			return nil
		}),
		each(ctx, db, `SELECT hash, family_id, scopes, created_at, expires_at FROM oauth_access`, func(rows *sql.Rows) error {
			var a oauthAccess
			var hash []byte
			var scopes string
			var created, expires int64
			if err := rows.Scan(&hash, &a.family, &scopes, &created, &expires); err != nil {
				return err
			}
			copy(a.hash[:], hash)
			a.scopes, a.created, a.expires = strings.Fields(scopes), fromMillis(created), fromMillis(expires)
			o.addAccess(&a)
			return nil
		}),
		each(ctx, db, `SELECT id, payer FROM tokens WHERE payer IS NOT NULL`, func(rows *sql.Rows) error {
			var id, payer string
			if err := rows.Scan(&id, &payer); err != nil {
				return err
			}
			o.payers[id] = payer
			return nil
		}),
	)
}

func grantEvent(action, namespaceID string, g *OAuthGrant, metadata map[string]any) Event {
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["clientId"] = g.ClientID
	return Event{NamespaceID: namespaceID, Action: action, TargetType: "oauth_grant", TargetID: g.ID, TargetName: g.Name, Metadata: metadata}
}

// HomeOf is a user's own namespace: the one that the first sign-in made or, where that is gone or no longer the user's, the oldest that the user has made and owns.
// ErrNamespaceNotFound where there is none.
func (c *Catalog) HomeOf(userID string) (Namespace, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	var home Namespace
	for id, member := range c.mirror.memberOf[userID] {
		ns := c.mirror.byID[id].Namespace
		if member.Role == MemberOwner && ns.CreatedBy == userID && (home.ID == "" || ns.CreatedAt.Before(home.CreatedAt) || ns.CreatedAt.Equal(home.CreatedAt) && ns.ID < home.ID) {
			home = ns
		}
	}
	if home.ID == "" {
		return home, fmt.Errorf("look for a user's own namespace: %w", ErrNamespaceNotFound)
	}
	return home, nil
}
