package catalog

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/oauth/redirect"
)

// OAuthClient is a program that sends people here to sign in. It is not changed after it was handed out.
type OAuthClient struct {
	ID           string // client_id: psqlrp_…; for a Client ID Metadata Document its URL
	NamespaceID  string // whose app it is; "" for dynamically registered clients and metadata documents
	Name         string
	Public       bool // no secret; PKCE is required
	RedirectURIs []string
	Scopes       []string // that it may ask for; empty: all
	RequirePKCE  bool     // also of a confidential client
	Dynamic      bool     // registered by RFC 7591
	CreatedAt    time.Time
	CreatedBy    string    // id of a token or a user; "" for the operator, and for what registered itself
	UsedAt       time.Time // when somebody let it in last, to a day; zero for never
	Secrets      []OAuthSecret

	seq int64
}

// OAuthSecret is a secret of a client, as it is listed. The newest is the first, and has no end.
type OAuthSecret struct {
	ID        string
	Hint      string
	CreatedAt time.Time
	EndsAt    time.Time // it opens nothing from then on; zero for the newest

	hash Hash
}

const (
	prefixOAuthClient = "psqlrp"
	prefixOAuthSecret = "psqlrs_"

	// maxOAuthSecrets is how many secrets of a client may work at the same time.
	maxOAuthSecrets = 5
	// maxOAuthScopes is how many scopes a client may be kept to, maxOAuthScope how long each is.
	maxOAuthScopes = 20
	maxOAuthScope  = 100
	// usedEvery is how often a client's use is written down.
	usedEvery = 24 * time.Hour
)

// newOAuthSecret is a secret that nobody has: 190 random bits, and a checksum by which scanners of secrets know a real one.
func newOAuthSecret() (secret, hint string) {
	body := prefixOAuthSecret + randomText(randomDigits)
	sum := checksum(body)
	secret = body + string(sum[:])
	digits := secret[len(prefixOAuthSecret):]
	return secret, prefixOAuthSecret + digits[:4] + "…" + digits[len(digits)-4:]
}

// living are the secrets that still work.
func (cl *OAuthClient) living(now time.Time) (list []OAuthSecret) {
	for _, s := range cl.Secrets {
		if s.EndsAt.IsZero() || now.Before(s.EndsAt) {
			list = append(list, s)
		}
	}
	return list
}

// LivingSecrets are the secrets that still work, the newest first.
func (c *Catalog) LivingSecrets(cl *OAuthClient) []OAuthSecret { return cl.living(c.now()) }

// OAuthClient is the client of an id, or ErrOAuthClientNotFound. It reads memory alone.
func (c *Catalog) OAuthClient(id string) (*OAuthClient, error) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	if cl := c.mirror.clients[id]; cl != nil {
		return cl, nil
	}
	return nil, ErrOAuthClientNotFound
}

// OAuthClientSecret tells whether a secret is one of a client's that have not ended. How long it takes tells nothing of a secret.
func (c *Catalog) OAuthClientSecret(id, secret string) bool {
	cl, err := c.OAuthClient(id)
	if err != nil || !strings.HasPrefix(secret, prefixOAuthSecret) || len(secret) > maxSecret {
		return false
	}
	hash, now, same := hashToken(secret), c.now(), 0
	for _, s := range cl.living(now) {
		same |= subtle.ConstantTimeCompare(s.hash[:], hash[:])
	}
	return same == 1
}

// OAuthClients are the apps of a namespace, in the order of their making.
func (c *Catalog) OAuthClients(namespaceID string) []*OAuthClient {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	h := c.mirror.byID[namespaceID]
	if h == nil {
		return nil
	}
	return slices.Clone(h.clients)
}

// OAuthApps are the apps of all namespaces, in the order of their making.
func (c *Catalog) OAuthApps() []*OAuthClient {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	list := slices.Collect(maps.Values(c.mirror.clients))
	list = slices.DeleteFunc(list, func(cl *OAuthClient) bool { return cl.NamespaceID == "" })
	slices.SortFunc(list, func(a, b *OAuthClient) int { return int(a.seq - b.seq) })
	return list
}

// oauthApp is an app of a namespace.
func (c *Catalog) oauthApp(namespaceID, id string) (*OAuthClient, error) {
	cl, err := c.OAuthClient(id)
	if err != nil || namespaceID == "" || cl.NamespaceID != namespaceID {
		return nil, ErrOAuthClientNotFound
	}
	return cl, nil
}

func oauthClientEvent(action string, cl *OAuthClient, metadata map[string]any) Event {
	if metadata == nil {
		metadata = map[string]any{}
	}
	hosts := []string{}
	for _, uri := range cl.RedirectURIs { // what follows the host may be a secret, and the log is kept for good
		if host := hostOf(uri); !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	metadata["public"], metadata["redirectHosts"], metadata["requirePkce"] = cl.Public, hosts, cl.RequirePKCE
	if len(cl.Scopes) > 0 {
		metadata["scopes"] = cl.Scopes
	}
	if cl.Dynamic {
		metadata["dynamic"] = true
	}
	return Event{NamespaceID: cl.NamespaceID, Action: action, TargetType: "oauth_client", TargetID: cl.ID, TargetName: cl.Name, Metadata: metadata}
}

// CheckOAuthClient tells whether a client may be as it is: ErrOAuthClientName, ErrRedirectURIs, redirect.ErrURI or ErrOAuthScope.
func CheckOAuthClient(cl *OAuthClient) error {
	if !redirect.ShownName(cl.Name) {
		return ErrOAuthClientName
	}
	if n := len(cl.RedirectURIs); n == 0 || n > redirect.MaxList {
		return ErrRedirectURIs
	}
	for i, uri := range cl.RedirectURIs {
		if err := redirect.Validate(uri, cl.Public); err != nil {
			return err
		}
		if slices.Contains(cl.RedirectURIs[:i], uri) {
			return fmt.Errorf("%w: one is there twice", ErrRedirectURIs)
		}
	}
	if len(cl.Scopes) > maxOAuthScopes {
		return ErrOAuthScope
	}
	for i, s := range cl.Scopes {
		if s == "" || len(s) > maxOAuthScope || slices.Contains(cl.Scopes[:i], s) {
			return ErrOAuthScope
		}
		for j := range len(s) { // RFC 6749, section 3.3
			if c := s[j]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
				return ErrOAuthScope
			}
		}
	}
	return nil
}

// NewOAuthClient is what a client is made of.
type NewOAuthClient struct {
	NamespaceID  string // whose app it is; "" for one that registers itself, which is public
	Name         string
	Public       bool
	RedirectURIs []string
	Scopes       []string
	RequirePKCE  bool
	Most         int // apps of the namespace, or clients in all that registered themselves
}

// registrationKept is how long a registration is kept at least that nobody has used: whoever registers sends somebody here within that.
const registrationKept = time.Hour

// CreateOAuthClient makes a client, and returns it with its secret, "" for a public one. Where as many have registered themselves as may, the oldest that nobody has used gives
// way. It returns ErrNamespaceNotFound, ErrTooManyOAuthClients, or CheckOAuthClient's errors.
func (c *Catalog) CreateOAuthClient(ctx context.Context, n NewOAuthClient) (cl *OAuthClient, secret string, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	cl = &OAuthClient{ID: NewID(prefixOAuthClient), NamespaceID: n.NamespaceID, Name: n.Name, Public: n.Public || n.NamespaceID == "", RedirectURIs: slices.Clone(n.RedirectURIs), Scopes: slices.Clone(n.Scopes),
		RequirePKCE: n.RequirePKCE, Dynamic: n.NamespaceID == "", CreatedAt: c.moment()}
	if err := CheckOAuthClient(cl); err != nil {
		return nil, "", fmt.Errorf("create OAuth client: %w", err)
	}
	var gone *OAuthClient
	if cl.Dynamic {
		registered := c.registered()
		if len(registered) >= n.Most {
			if gone = oldestUnused(registered, cl.CreatedAt.Add(-registrationKept)); gone == nil {
				return nil, "", fmt.Errorf("create OAuth client: %w", ErrTooManyOAuthClients)
			}
		}
	} else {
		if _, ok := c.namespaceByID(n.NamespaceID); !ok {
			return nil, "", fmt.Errorf("create OAuth client: %w", ErrNamespaceNotFound)
		}
		if len(c.OAuthClients(n.NamespaceID)) >= n.Most {
			return nil, "", fmt.Errorf("create OAuth client: %w", ErrTooManyOAuthClients)
		}
		cl.CreatedBy = actorOf(ctx).ID
	}
	if !cl.Public {
		s := OAuthSecret{ID: NewID("ocs"), CreatedAt: cl.CreatedAt}
		secret, s.Hint = newOAuthSecret()
		s.hash = hashToken(secret)
		cl.Secrets = []OAuthSecret{s}
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if gone != nil {
			if _, err := tx.ExecContext(ctx, `DELETE FROM oauth_clients WHERE id = ?`, gone.ID); err != nil {
				return err
			}
		}
		uris, scopes, err := cl.lists()
		if err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, `INSERT INTO oauth_clients (id, namespace_id, name, public, redirect_uris, scopes, require_pkce, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			cl.ID, nullText(cl.NamespaceID), cl.Name, cl.Public, uris, scopes, cl.RequirePKCE, cl.CreatedAt.UnixMilli(), cl.CreatedBy)
		if err != nil {
			return err
		}
		if cl.seq, err = result.LastInsertId(); err != nil {
			return err
		}
		for _, s := range cl.Secrets {
			if err := insertOAuthSecret(ctx, tx, cl.ID, s); err != nil {
				return err
			}
		}
		if cl.Dynamic {
			return nil // strangers must not fill a log that is kept for good: it tells of those that somebody lets in, see UseOAuthClient
		}
		return c.audit(ctx, tx, oauthClientEvent("oauth_client.created", cl, nil))
	}, func(m *mirror) {
		if gone != nil {
			m.endOAuthClient(gone)
		}
		m.addOAuthClient(cl)
	})
	if err != nil {
		return nil, "", fmt.Errorf("create OAuth client: %w", err)
	}
	return cl, secret, nil
}

func insertOAuthSecret(ctx context.Context, tx *sql.Tx, clientID string, s OAuthSecret) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO oauth_client_secrets (id, client_id, hash, hint, created_at, ends_at) VALUES (?, ?, ?, ?, ?, ?)`,
		s.ID, clientID, s.hash[:], s.Hint, s.CreatedAt.UnixMilli(), nullMillis(s.EndsAt))
	return err
}

// lists are the lists of a client as the file has them.
func (cl *OAuthClient) lists() (uris string, scopes any, err error) {
	b, err := json.Marshal(cl.RedirectURIs)
	if err != nil || len(cl.Scopes) == 0 {
		return string(b), nil, err
	}
	s, err := json.Marshal(cl.Scopes)
	return string(b), string(s), err
}

// registered are the clients that registered themselves.
func (c *Catalog) registered() (list []*OAuthClient) {
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	for _, cl := range c.mirror.clients {
		if cl.Dynamic {
			list = append(list, cl)
		}
	}
	return list
}

// oldestUnused is the client of a list that was made first of those that nobody used, before a moment; nil for none.
func oldestUnused(list []*OAuthClient, before time.Time) (oldest *OAuthClient) {
	for _, cl := range list {
		if cl.UsedAt.IsZero() && cl.CreatedAt.Before(before) && (oldest == nil || cl.seq < oldest.seq) {
			oldest = cl
		}
	}
	return oldest
}

// UpdateOAuthClient changes an app's name, redirect URIs, scopes, or whether PKCE is required of it; nothing else of what change does counts. It returns ErrOAuthClientNotFound,
// change's error, or CheckOAuthClient's errors.
func (c *Catalog) UpdateOAuthClient(ctx context.Context, namespaceID, id string, change func(*OAuthClient) error) (*OAuthClient, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	old, err := c.oauthApp(namespaceID, id)
	if err != nil {
		return nil, fmt.Errorf("update OAuth client %q: %w", id, err)
	}
	asked := *old
	asked.RedirectURIs, asked.Scopes = slices.Clone(old.RedirectURIs), slices.Clone(old.Scopes)
	if err := change(&asked); err != nil {
		return nil, fmt.Errorf("update OAuth client %q: %w", id, err)
	}
	cl := *old
	cl.Name, cl.RedirectURIs, cl.Scopes, cl.RequirePKCE = asked.Name, slices.Clone(asked.RedirectURIs), slices.Clone(asked.Scopes), asked.RequirePKCE
	if err := CheckOAuthClient(&cl); err != nil {
		return nil, fmt.Errorf("update OAuth client %q: %w", id, err)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		uris, scopes, err := cl.lists()
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE oauth_clients SET name = ?, redirect_uris = ?, scopes = ?, require_pkce = ? WHERE id = ?`, cl.Name, uris, scopes, cl.RequirePKCE, cl.ID); err != nil {
			return err
		}
		return c.audit(ctx, tx, oauthClientEvent("oauth_client.updated", &cl, nil))
	}, func(m *mirror) { m.replaceOAuthClient(old, &cl) })
	if err != nil {
		return nil, fmt.Errorf("update OAuth client %q: %w", id, err)
	}
	return &cl, nil
}

// RotateOAuthClientSecret gives an app a new secret, which it returns. Those before work on for overlap, none longer than it was to. It returns ErrOAuthClientNotFound,
// ErrOAuthClientPublic, or ErrTooManyOAuthSecrets.
func (c *Catalog) RotateOAuthClientSecret(ctx context.Context, namespaceID, id string, overlap time.Duration) (cl *OAuthClient, secret string, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	fail := func(err error) (*OAuthClient, string, error) {
		return nil, "", fmt.Errorf("rotate secret of OAuth client %q: %w", id, err)
	}
	old, err := c.oauthApp(namespaceID, id)
	if err != nil {
		return fail(err)
	}
	if old.Public {
		return fail(ErrOAuthClientPublic)
	}
	now := c.moment()
	ends := now.Add(overlap)
	s := OAuthSecret{ID: NewID("ocs"), CreatedAt: now}
	secret, s.Hint = newOAuthSecret()
	s.hash = hashToken(secret)
	changed := *old
	changed.Secrets = []OAuthSecret{s}
	for _, former := range old.Secrets {
		if former.EndsAt.IsZero() || ends.Before(former.EndsAt) { // a shorter overlap counts for those before too
			former.EndsAt = ends
		}
		if now.Before(former.EndsAt) {
			changed.Secrets = append(changed.Secrets, former)
		}
	}
	if len(changed.Secrets) > maxOAuthSecrets {
		return fail(ErrTooManyOAuthSecrets)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM oauth_client_secrets WHERE client_id = ?`, id); err != nil {
			return err
		}
		for i := len(changed.Secrets) - 1; i >= 0; i-- {
			if err := insertOAuthSecret(ctx, tx, id, changed.Secrets[i]); err != nil {
				return err
			}
		}
		return c.audit(ctx, tx, oauthClientEvent("oauth_client.secret_rotated", &changed, map[string]any{"overlapSeconds": int64(overlap.Seconds()), "secret": s.Hint}))
	}, func(m *mirror) { m.replaceOAuthClient(old, &changed) })
	if err != nil {
		return fail(err)
	}
	return &changed, secret, nil
}

// DeleteOAuthClient ends an app of a namespace, with its secrets and the tokens that it got. It returns ErrOAuthClientNotFound.
func (c *Catalog) DeleteOAuthClient(ctx context.Context, namespaceID, id string) (*OAuthClient, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	cl, err := c.oauthApp(namespaceID, id)
	if err != nil {
		return nil, fmt.Errorf("delete OAuth client %q: %w", id, err)
	}
	var dead []Hash
	err = c.change(ctx, func(tx *sql.Tx) error {
		if dead, err = c.endOAuthClient(ctx, tx, id); err != nil {
			return err
		}
		return c.audit(ctx, tx, oauthClientEvent("oauth_client.deleted", cl, map[string]any{"tokensEnded": len(dead)}))
	}, func(m *mirror) {
		m.endTokens(dead)
		m.endOAuthClient(cl)
	})
	if err != nil {
		return nil, fmt.Errorf("delete OAuth client %q: %w", id, err)
	}
	return cl, nil
}

// endOAuthClient deletes a client in the file, with all that it has there: its secrets, and the tokens that were got by it. It returns those that must go from memory.
func (c *Catalog) endOAuthClient(ctx context.Context, tx *sql.Tx, id string) (dead []Hash, err error) {
	if dead, err = c.revokeOfClient(ctx, tx, id); err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM oauth_clients WHERE id = ?`, id)
	return dead, err
}

// UseOAuthClient notes that somebody let a client in. What registered itself is kept by that, and the log tells of it the first time. It returns ErrOAuthClientNotFound.
func (c *Catalog) UseOAuthClient(ctx context.Context, id string) error {
	cl, err := c.OAuthClient(id)
	if err != nil {
		return fmt.Errorf("use OAuth client %q: %w", id, err)
	}
	if recent(cl, c.now()) { // mostly: no change, no disk
		return nil
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	old, err := c.OAuthClient(id)
	if err != nil {
		return fmt.Errorf("use OAuth client %q: %w", id, err)
	}
	if recent(old, c.now()) {
		return nil
	}
	used := *old
	used.UsedAt = c.moment()
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE oauth_clients SET used_at = ? WHERE id = ?`, used.UsedAt.UnixMilli(), id); err != nil {
			return err
		}
		if !old.Dynamic || !old.UsedAt.IsZero() {
			return nil
		}
		return c.audit(ctx, tx, oauthClientEvent("oauth_client.registered", &used, map[string]any{"registeredAt": used.CreatedAt.Format(time.RFC3339)}))
	}, func(m *mirror) { m.replaceOAuthClient(old, &used) })
	if err != nil {
		return fmt.Errorf("use OAuth client %q: %w", id, err)
	}
	return nil
}

// recent tells whether a client's last use is written down as it is to be.
func recent(cl *OAuthClient, now time.Time) bool {
	passed := now.Sub(cl.UsedAt)
	return !cl.UsedAt.IsZero() && passed >= 0 && passed < usedEvery
}

// holdingTokens are the clients that have got tokens that still work: apps keep those for good, and go on without sending anybody here.
func (c *Catalog) holdingTokens(now time.Time) map[string]bool {
	holding := map[string]bool{}
	c.mirror.mu.RLock()
	defer c.mirror.mu.RUnlock()
	for _, f := range c.mirror.oauth.families {
		if !c.mirror.oauth.over(f, now) {
			holding[f.ClientID] = true
		}
	}
	return holding
}

// SweepOAuthClients forgets the clients that registered themselves and that nobody let in for unused since, or that nobody lets in any more for idle and that have no tokens. It
// returns how many.
func (c *Catalog) SweepOAuthClients(ctx context.Context, unused, idle time.Duration) (int, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	now := c.now()
	var over []*OAuthClient
	for _, cl := range c.registered() {
		since, life := cl.CreatedAt, unused
		if !cl.UsedAt.IsZero() {
			since, life = cl.UsedAt, max(idle, usedEvery) // the last use is known to a day
		}
		if !now.Before(since.Add(life)) {
			over = append(over, cl)
		}
	}
	if slices.ContainsFunc(over, func(cl *OAuthClient) bool { return !cl.UsedAt.IsZero() }) {
		holding := c.holdingTokens(now)
		over = slices.DeleteFunc(over, func(cl *OAuthClient) bool { return holding[cl.ID] })
	}
	if len(over) == 0 {
		return 0, nil
	}
	var dead []Hash
	err := c.change(ctx, func(tx *sql.Tx) error {
		for _, cl := range over {
			tokens, err := c.endOAuthClient(ctx, tx, cl.ID)
			if err != nil {
				return err
			}
			dead = append(dead, tokens...)
			if cl.UsedAt.IsZero() {
				continue // the log never heard of it
			}
			if err := c.audit(ctx, tx, oauthClientEvent("oauth_client.forgotten", cl, map[string]any{"usedAt": cl.UsedAt.Format(time.RFC3339), "tokensEnded": len(tokens)})); err != nil {
				return err
			}
		}
		return nil
	}, func(m *mirror) {
		m.endTokens(dead)
		for _, cl := range over {
			m.endOAuthClient(cl)
		}
	})
	if err != nil {
		return 0, fmt.Errorf("sweep OAuth clients: %w", err)
	}
	return len(over), nil
}

func (m *mirror) addOAuthClient(cl *OAuthClient) {
	m.clients[cl.ID] = cl
	if h := m.byID[cl.NamespaceID]; h != nil {
		h.clients = append(h.clients, cl)
	}
}

func (m *mirror) replaceOAuthClient(old, cl *OAuthClient) {
	m.clients[cl.ID] = cl
	if h := m.byID[cl.NamespaceID]; h != nil {
		h.clients[slices.Index(h.clients, old)] = cl
	}
}

func (m *mirror) endOAuthClient(cl *OAuthClient) {
	delete(m.clients, cl.ID)
	if h := m.byID[cl.NamespaceID]; h != nil {
		h.clients = slices.DeleteFunc(h.clients, func(other *OAuthClient) bool { return other.ID == cl.ID })
	}
}

// loadOAuthClients reads all clients. The namespaces are there already.
func (m *mirror) loadOAuthClients(ctx context.Context, db *sql.DB) error {
	m.clients = map[string]*OAuthClient{}
	secrets := map[string][]OAuthSecret{}
	err := each(ctx, db, `SELECT id, client_id, hash, hint, created_at, ends_at FROM oauth_client_secrets ORDER BY seq DESC`, func(rows *sql.Rows) error {
		var s OAuthSecret
		var client string
		var hash []byte
		var created int64
		var ends sql.NullInt64
		if err := rows.Scan(&s.ID, &client, &hash, &s.Hint, &created, &ends); err != nil {
			return err
		}
		copy(s.hash[:], hash)
		s.CreatedAt, s.EndsAt = fromMillis(created), fromNullMillis(ends)
		secrets[client] = append(secrets[client], s)
		return nil
	})
	if err != nil {
		return err
	}
	return each(ctx, db, `SELECT seq, id, namespace_id, name, public, redirect_uris, scopes, require_pkce, created_at, created_by, used_at FROM oauth_clients ORDER BY seq`, func(rows *sql.Rows) error {
		cl := &OAuthClient{}
		var ns, scopes sql.NullString
		var uris string
		var created int64
		var used sql.NullInt64
		if err := rows.Scan(&cl.seq, &cl.ID, &ns, &cl.Name, &cl.Public, &uris, &scopes, &cl.RequirePKCE, &created, &cl.CreatedBy, &used); err != nil {
			return err
		}
		cl.NamespaceID, cl.Dynamic, cl.CreatedAt, cl.UsedAt, cl.Secrets = ns.String, !ns.Valid, fromMillis(created), fromNullMillis(used), secrets[cl.ID]
		if err := json.Unmarshal([]byte(uris), &cl.RedirectURIs); err != nil {
			return fmt.Errorf("client %s: %w", cl.ID, err)
		}
		if scopes.Valid {
			if err := json.Unmarshal([]byte(scopes.String), &cl.Scopes); err != nil {
				return fmt.Errorf("client %s: %w", cl.ID, err)
			}
		}
		m.addOAuthClient(cl)
		return nil
	})
}
