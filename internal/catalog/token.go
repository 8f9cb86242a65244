package catalog

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/persqld/persqld/internal/sqlite"
)

// RoleAdmin is the role that may do everything in its namespace.
const RoleAdmin = "admin"

// Token is a token as the catalog keeps it: everything but the secret. It is not changed after it was handed out.
type Token struct {
	ID            string
	NamespaceID   string
	NamespaceSlug string
	Name          string
	Hint          string    // psql_live_xxxx…yyyy
	Role          string    // the word that was given
	Test          bool      // a psql_test_ token: it sees only databases that test tokens made
	Database      string    // id of the only database that it opens; "" for all of the namespace
	TableScope    []string  // the only tables and views that it touches; nil for all
	Claims        *Claims   // what policies know of who has it; nil for nothing
	ExpiresAt     time.Time // zero for never
	CreatedAt     time.Time
	RevokedAt     time.Time   // zero while it is not revoked
	Owner         string      // id of the user who made it, or made the token that made it; "" where nobody is known to
	Via           string      // id of the machine identity, the binding or the family of OAuth that got it; "" for every other token
	OAuth         *TokenOAuth // of one that an app got for a user; nil for every other

	hash   Hash
	tables TableSet // of TableScope
}

// TableSet is a set of tables and views, whose names compare as SQLite compares them.
type TableSet map[string]struct{}

// Has tells whether the table is in the set.
func (s TableSet) Has(table string) bool {
	if _, ok := s[table]; ok {
		return true
	}
	_, ok := s[sqlite.Fold(table)]
	return ok
}

// Tables is the set of the tables in TableScope; false if the token has none, and touches all.
func (t *Token) Tables() (TableSet, bool) { return t.tables, t.TableScope != nil }

// audited is what the audit log keeps of a new token.
func (t *Token) audited() map[string]any {
	m := map[string]any{"role": t.Role, "hint": t.Hint}
	if t.TableScope != nil {
		m["tableScope"] = t.TableScope
	}
	if t.Claims != nil {
		m["claims"] = json.RawMessage(t.Claims.JSON)
	}
	if t.Database != "" {
		m["databaseId"] = t.Database
	}
	if !t.ExpiresAt.IsZero() {
		m["expiresAt"] = t.ExpiresAt
	}
	return m
}

func (t *Token) setScope(tables []string) {
	t.TableScope = tables
	if tables == nil {
		return
	}
	t.tables = make(TableSet, len(tables))
	for _, table := range tables {
		t.tables[sqlite.Fold(table)] = struct{}{}
	}
}

// Unscoped reports whether the token is held to no part of its namespace.
func (t *Token) Unscoped() bool { return t.Database == "" && t.TableScope == nil && t.Claims == nil }

// Expired reports whether the token's time has come.
func (t *Token) Expired(now time.Time) bool { return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt) }

// NewToken is what a token is made of.
type NewToken struct {
	NamespaceID string
	Name        string // up to 200 characters, may be empty
	Role        string // RoleAdmin if empty
	Test        bool
	Database    string    // id of a database of the namespace that the token is pinned to, if not empty
	TableScope  []string  // 1 to 200 names of tables and views; nil for all
	Claims      []byte    // a JSON object of at most MaxClaims bytes; nil for none
	ExpiresAt   time.Time // never if zero
	Via         string    // id of the machine identity or binding that gets it
}

// settingOperatorToken is the setting that holds the id of the token that EnsureOperatorToken made.
const settingOperatorToken = "operator_token_id"

// Authenticate is the token that a bearer presented at the API: none that is bound to another resource. It returns ErrTokenFormat or ErrTokenUnknown. It reads memory
// alone and allocates nothing; the moment a revocation has returned, it answers ErrTokenUnknown.
func (c *Catalog) Authenticate(token string) (*Token, error) {
	t, err := c.token(token)
	if err == nil && t.OAuth != nil && (t.OAuth.Resource != "" || !c.oauthTokenLives(t)) {
		return nil, ErrTokenUnknown
	}
	return t, err
}

// token is the token that a bearer presented, wherever that was.
func (c *Catalog) token(token string) (*Token, error) {
	if err := CheckToken(token); err != nil {
		return nil, err
	}
	hash := hashToken(token)
	c.mirror.mu.RLock()
	t, ok := c.mirror.tokens[hash]
	c.mirror.mu.RUnlock()
	// The map compares hashes, whose timing tells nothing about a token that nobody knows; the comparison in constant
	// time keeps that so whatever the map does.
	if !ok || subtle.ConstantTimeCompare(t.hash[:], hash[:]) != 1 {
		return nil, ErrTokenUnknown
	}
	if !t.ExpiresAt.IsZero() && t.Expired(c.now()) {
		return nil, ErrTokenUnknown
	}
	return t, nil
}

// CheckRole returns ErrRole for a word that is no role.
func CheckRole(word string) error {
	switch word {
	case RoleAdmin, "readwrite", "write", "readonly", "read":
		return nil
	}
	return fmt.Errorf("role %q: %w", word, ErrRole)
}

// maxScope is the greatest number of names in a table scope, maxTableName the longest of them in bytes.
const (
	maxScope     = 200
	maxTableName = 255
)

// checkScope returns ErrTableScope for a table scope that no token can have.
func checkScope(scope []string) error {
	if scope == nil {
		return nil
	}
	if len(scope) == 0 || len(scope) > maxScope {
		return ErrTableScope
	}
	for _, name := range scope {
		if name == "" || len(name) > maxTableName || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
			return ErrTableScope
		}
	}
	return nil
}

// CreateToken makes a token and returns it with its secret, which is not kept and can't be had again. It returns
// ErrNamespaceNotFound, ErrDatabaseNotFound (for the pin), ErrRole, ErrTableScope, ErrClaims, ErrName or ErrExpiry.
func (c *Catalog) CreateToken(ctx context.Context, n NewToken) (t *Token, secret string, err error) {
	if n.Role == "" {
		n.Role = RoleAdmin
	}
	if err := CheckRole(n.Role); err != nil {
		return nil, "", fmt.Errorf("create token: %w", err)
	}
	if err := checkScope(n.TableScope); err != nil {
		return nil, "", fmt.Errorf("create token: %w", err)
	}
	if !validName(n.Name) {
		return nil, "", fmt.Errorf("create token: %w", ErrName)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	if !n.ExpiresAt.IsZero() && !n.ExpiresAt.After(c.now()) {
		return nil, "", fmt.Errorf("create token: %w", ErrExpiry)
	}
	secret = newToken(n.Test)
	t, err = c.describeToken(n, secret)
	if err != nil {
		return nil, "", fmt.Errorf("create token: %w", err)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if err := insertToken(ctx, tx, t); err != nil {
			return err
		}
		return c.audit(ctx, tx, tokenEvent("token.created", t, t.audited()))
	}, func(m *mirror) {
		m.tokens[t.hash] = t
	})
	if err != nil {
		return nil, "", fmt.Errorf("create token: %w", err)
	}
	return t, secret, nil
}

// describeToken is the token that secret will be. The caller holds changing.
func (c *Catalog) describeToken(n NewToken, secret string) (*Token, error) {
	ns, ok := c.namespaceByID(n.NamespaceID)
	if !ok {
		return nil, ErrNamespaceNotFound
	}
	if n.Database != "" {
		d, err := c.DatabaseByID(n.Database)
		if err != nil {
			return nil, err
		}
		if d.NamespaceID != ns.ID {
			return nil, ErrDatabaseNotFound
		}
	}
	t := &Token{
		ID:            NewID("tok"),
		NamespaceID:   ns.ID,
		NamespaceSlug: ns.Slug,
		Name:          n.Name,
		Hint:          hintOf(secret),
		Role:          n.Role,
		Test:          n.Test,
		Database:      n.Database,
		CreatedAt:     c.moment(),
		Via:           n.Via,
		hash:          hashToken(secret),
	}
	t.setScope(slices.Clone(n.TableScope))
	if n.Claims != nil {
		var err error
		if t.Claims, err = ParseClaims(n.Claims); err != nil {
			return nil, err
		}
	}
	if !n.ExpiresAt.IsZero() {
		t.ExpiresAt = n.ExpiresAt.UTC().Truncate(time.Millisecond)
	}
	return t, nil
}

// TokenQuery says which tokens are listed.
type TokenQuery struct {
	NamespaceID string // of all namespaces if empty
	TestOnly    bool
	Current     bool   // leave those out that were revoked
	Before      string // id of a token: only those made before it
	Limit       int    // at most so many; all if 0
}

// ListTokens lists tokens, the newest first. It reads the file.
func (c *Catalog) ListTokens(ctx context.Context, q TokenQuery) ([]*Token, error) {
	list := []*Token{}
	if q.Limit == 0 {
		q.Limit = -1
	}
	err := each(ctx, c.db, selectTokens+` WHERE ?1 IN ('', t.namespace_id) AND (NOT ?2 OR t.test) AND (NOT ?3 OR t.revoked_at IS NULL)
		AND (?4 = '' OR t.seq < (SELECT seq FROM tokens WHERE id = ?4 AND ?1 IN ('', namespace_id))) ORDER BY t.seq DESC LIMIT ?5`, func(rows *sql.Rows) error {
		t, err := scanToken(rows)
		list = append(list, t)
		return err
	}, q.NamespaceID, q.TestOnly, q.Current, q.Before, q.Limit)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return list, nil
}

// Token is the token of an id, revoked and expired ones too. It returns ErrTokenNotFound. It reads the file.
func (c *Catalog) Token(ctx context.Context, id string) (*Token, error) {
	t, err := scanOneToken(c.db.QueryRowContext(ctx, selectTokens+` WHERE t.id = ?`, id))
	if err != nil {
		return nil, fmt.Errorf("look for token %q: %w", id, err)
	}
	return t, nil
}

// HasTokens reports whether a namespace ever had a token, be it revoked since. It reads the file.
func (c *Catalog) HasTokens(ctx context.Context, namespaceID string) (bool, error) {
	var has bool
	err := c.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM tokens WHERE namespace_id = ?)`, namespaceID).Scan(&has)
	if err != nil {
		return false, fmt.Errorf("look for tokens: %w", err)
	}
	return has, nil
}

// RevokeToken ends a token for good: after it returned, no request with that token is let in. Revoking it again changes
// nothing. It returns ErrTokenNotFound.
func (c *Catalog) RevokeToken(ctx context.Context, id string) (*Token, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	var t *Token
	var families []*OAuthFamily // what an app's token belongs to ends with it, or its refresh token would bring another
	err := c.change(ctx, func(tx *sql.Tx) error {
		var err error
		if t, err = tokenByID(ctx, tx, id); err != nil || !t.RevokedAt.IsZero() {
			return err
		}
		t.RevokedAt = c.moment()
		if _, err = tx.ExecContext(ctx, `UPDATE tokens SET revoked_at = ? WHERE id = ?`, t.RevokedAt.UnixMilli(), id); err != nil {
			return err
		}
		if t.OAuth != nil {
			c.mirror.mu.RLock()
			if f := c.mirror.oauth.families[t.Via]; f != nil {
				families = []*OAuthFamily{f}
			}
			c.mirror.mu.RUnlock()
			if err := c.endFamilies(ctx, tx, families); err != nil {
				return err
			}
		}
		return c.audit(ctx, tx, tokenEvent("token.revoked", t, nil))
	}, func(m *mirror) {
		delete(m.tokens, t.hash)
		for _, f := range families {
			m.endFamily(f)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("revoke token %q: %w", id, err)
	}
	return t, nil
}

// EnsureOperatorToken lets the operator's own token, the setting PERSQLD_TOKEN, in as an admin of the namespace. The
// token of an earlier call that was another one is let in no more: a setting that was changed has changed. It returns
// ErrTokenFormat or ErrTokenUnknown for what can't be a token, ErrTokenRevoked for one that was revoked (a restart must
// not undo that) and ErrTokenTaken for one of another namespace.
func (c *Catalog) EnsureOperatorToken(ctx context.Context, namespaceID, secret string) (*Token, error) {
	if err := CheckToken(secret); err != nil {
		return nil, fmt.Errorf("set operator token: %w", err)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	former, err := c.operatorToken(ctx)
	if err != nil {
		return nil, fmt.Errorf("set operator token: %w", err)
	}
	t, err := c.tokenByHash(ctx, hashToken(secret))
	known := err == nil
	switch {
	case known && !t.RevokedAt.IsZero():
		return nil, fmt.Errorf("set operator token: %w", ErrTokenRevoked)
	case known && t.NamespaceID != namespaceID:
		return nil, fmt.Errorf("set operator token: %w", ErrTokenTaken)
	case known && (former == nil || former.ID == t.ID):
		return t, nil
	case errors.Is(err, ErrTokenNotFound):
		test := secret[:len(prefixTest)] == prefixTest
		n := NewToken{NamespaceID: namespaceID, Name: "PERSQLD_TOKEN", Role: RoleAdmin, Test: test}
		t, err = c.describeToken(n, secret)
	}
	if err != nil {
		return nil, fmt.Errorf("set operator token: %w", err)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		// Removed, not revoked, so that the setting may be turned back; what was revoked by hand stays so.
		if former != nil && former.RevokedAt.IsZero() {
			if _, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE id = ?`, former.ID); err != nil {
				return err
			}
			if err := c.audit(ctx, tx, tokenEvent("token.revoked", former, map[string]any{"setting": "PERSQLD_TOKEN"})); err != nil {
				return err
			}
		}
		if known {
			// A token that was made by hand is not the setting's to remove one day.
			_, err := tx.ExecContext(ctx, `DELETE FROM settings WHERE key = ?`, settingOperatorToken)
			return err
		}
		if err := insertToken(ctx, tx, t); err != nil {
			return err
		}
		if err := c.audit(ctx, tx, tokenEvent("token.created", t, map[string]any{"role": t.Role, "setting": "PERSQLD_TOKEN"})); err != nil {
			return err
		}
		return putSetting(ctx, tx, settingOperatorToken, t.ID)
	}, func(m *mirror) {
		if former != nil {
			delete(m.tokens, former.hash)
		}
		if known {
			delete(m.settings, settingOperatorToken)
			return
		}
		m.tokens[t.hash] = t
		m.settings[settingOperatorToken] = t.ID
	})
	if err != nil {
		return nil, fmt.Errorf("set operator token: %w", err)
	}
	return t, nil
}

// operatorToken is the token that EnsureOperatorToken made last, nil if there is none.
func (c *Catalog) operatorToken(ctx context.Context) (*Token, error) {
	id, ok := c.Setting(settingOperatorToken)
	if !ok {
		return nil, nil
	}
	t, err := scanOneToken(c.db.QueryRowContext(ctx, selectTokens+` WHERE t.id = ?`, id))
	if errors.Is(err, ErrTokenNotFound) {
		return nil, nil
	}
	return t, err
}

const selectTokens = `SELECT t.id, t.namespace_id, n.slug, t.name, t.hint, t.hash, t.role, t.test, t.database_id,
	t.table_scope, t.claims, t.expires_at, t.created_at, t.revoked_at, t.owner, t.via, t.client_id, t.resource, t.scopes, t.payer FROM tokens t JOIN namespaces n ON n.id = t.namespace_id`

func tokenByID(ctx context.Context, tx *sql.Tx, id string) (*Token, error) {
	return scanOneToken(tx.QueryRowContext(ctx, selectTokens+` WHERE t.id = ?`, id))
}

func (c *Catalog) tokenByHash(ctx context.Context, hash Hash) (*Token, error) {
	return scanOneToken(c.db.QueryRowContext(ctx, selectTokens+` WHERE t.hash = ?`, hash[:]))
}

func scanOneToken(row *sql.Row) (*Token, error) {
	t, err := scanToken(row)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrTokenNotFound
	}
	return t, err
}

// scanner is a *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

func scanToken(row scanner) (*Token, error) {
	var t Token
	var hash []byte
	var database, scope, claims, owner, via, client, resource, scopes, payer sql.NullString
	var expires, revoked sql.NullInt64
	var created int64
	err := row.Scan(&t.ID, &t.NamespaceID, &t.NamespaceSlug, &t.Name, &t.Hint, &hash, &t.Role, &t.Test, &database,
		&scope, &claims, &expires, &created, &revoked, &owner, &via, &client, &resource, &scopes, &payer)
	if err != nil {
		return nil, err
	}
	copy(t.hash[:], hash)
	t.Database, t.Owner, t.Via = database.String, owner.String, via.String
	if client.Valid {
		t.OAuth = &TokenOAuth{Client: client.String, Resource: resource.String, Payer: payer.String, Scopes: strings.Fields(scopes.String)}
	}
	if scope.Valid {
		// Whatever is wrong with it: a token must not become one of all tables.
		var tables []string
		if err := json.Unmarshal([]byte(scope.String), &tables); err != nil || tables == nil {
			return nil, fmt.Errorf("read scope of token %s: %w", t.ID, errors.Join(err, ErrTableScope))
		}
		t.setScope(tables)
	}
	if claims.Valid {
		if t.Claims, err = ParseClaims([]byte(claims.String)); err != nil {
			return nil, fmt.Errorf("read claims of token %s: %w", t.ID, err)
		}
	}
	t.ExpiresAt = fromNullMillis(expires)
	t.CreatedAt = fromMillis(created)
	t.RevokedAt = fromNullMillis(revoked)
	return &t, nil
}

func insertToken(ctx context.Context, tx *sql.Tx, t *Token) error {
	scope := ""
	if t.TableScope != nil {
		b, err := json.Marshal(t.TableScope)
		if err != nil {
			return fmt.Errorf("insert token: %w", err)
		}
		scope = string(b)
	}
	claims := ""
	if t.Claims != nil {
		claims = t.Claims.JSON
	}
	if t.Owner == "" {
		var err error
		if t.Owner, err = ownerOf(ctx, tx); err != nil {
			return fmt.Errorf("insert token: %w", err)
		}
	}
	var o TokenOAuth
	if t.OAuth != nil {
		o = *t.OAuth
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO tokens
		(id, namespace_id, name, hint, hash, role, test, database_id, table_scope, claims, expires_at, created_at, owner, via, client_id, resource, scopes, payer)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		t.ID, t.NamespaceID, t.Name, t.Hint, t.hash[:], t.Role, t.Test, nullText(t.Database), nullText(scope), nullText(claims),
		nullMillis(t.ExpiresAt), t.CreatedAt.UnixMilli(), nullText(t.Owner), nullText(t.Via),
		nullText(o.Client), nullText(o.Resource), nullText(strings.Join(o.Scopes, " ")), nullText(o.Payer))
	if err != nil {
		return fmt.Errorf("insert token: %w", err)
	}
	return nil
}

// ownerOf is the user who answers for what is made now: whoever makes it, or made the token that makes it. "" where nobody is known to.
func ownerOf(ctx context.Context, tx *sql.Tx) (string, error) {
	switch a := actorOf(ctx); a.Type {
	case ActorUser:
		return a.ID, nil
	case ActorToken:
		var owner sql.NullString
		err := tx.QueryRowContext(ctx, `SELECT owner FROM tokens WHERE id = ?`, a.ID).Scan(&owner)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return "", err
		}
		return owner.String, nil
	}
	return "", nil
}
