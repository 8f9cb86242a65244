package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
)

// mirror is the catalog in memory. What its maps point to is never changed, only replaced, so that a pointer handed out
// stays a true picture of the moment it was asked for.
type mirror struct {
	mu         sync.RWMutex
	namespaces map[string]*holding // by slug
	byID       map[string]*holding // the same, by id
	databases  map[string]*Database
	trash      map[string]*Trashed // deleted, not yet condemned; the time of one may be over
	tokens     map[Hash]*Token     // not revoked; an expired one may still be here
	settings   map[string]string
	branches   map[string]map[string]*Database // by the id of what they are of, then the ref
	hooked     map[string]struct{}             // ids of living databases that have webhooks
	leased     map[string]struct{}             // ids of living databases that end by themselves
	keys       []*SigningKey                   // the newest, which signs, first
	clients    map[string]*OAuthClient         // by client_id

	users        map[string]*User              // by id
	byEmail      map[string]*User              // the same, by folded e-mail address
	sessions     map[Hash]*Session             // one that is over may still be here
	userSessions map[string][]*Session         // the same, by the user's id, the oldest first
	memberOf     map[string]map[string]*Member // by the user's id, then the namespace's

	oauth oauthState
}

// holding is a namespace with what it owns.
type holding struct {
	Namespace
	deleted bool // it is in byID alone, for what of it is in the trash
	bySlug  map[string]*Database
	order   []*Database         // in order of creation
	trash   []*Trashed          // in order of deletion
	ended   map[string]struct{} // slugs
	members map[string]*Member  // by the user's id
	clients []*OAuthClient      // in order of creation
}

func newHolding(ns Namespace) *holding {
	return &holding{Namespace: ns, bySlug: map[string]*Database{}, ended: map[string]struct{}{}, members: map[string]*Member{}}
}

func (m *mirror) addNamespace(ns Namespace) {
	h := newHolding(ns)
	m.namespaces[ns.Slug] = h
	m.byID[ns.ID] = h
}

func (m *mirror) addDatabase(d *Database) {
	h := m.byID[d.NamespaceID]
	h.bySlug[d.Slug] = d
	// The newest is the last; one that comes back from the trash has the place that it had.
	at := len(h.order)
	for at > 0 && h.order[at-1].seq > d.seq {
		at--
	}
	h.order = slices.Insert(h.order, at, d)
	delete(h.ended, d.Slug)
	m.databases[d.ID] = d
	m.addBranch(d)
	m.noteHooked(d)
	if d.Fork != nil && !d.Fork.ExpiresAt.IsZero() {
		m.leased[d.ID] = struct{}{}
	}
}

func (m *mirror) endDatabase(d *Database) {
	h := m.byID[d.NamespaceID]
	delete(h.bySlug, d.Slug)
	delete(m.databases, d.ID)
	delete(m.leased, d.ID)
	delete(m.hooked, d.ID)
	m.endBranch(d)
	// Newest are deleted most often: look from the end.
	for i := len(h.order) - 1; i >= 0; i-- {
		if h.order[i].ID == d.ID {
			h.order = slices.Delete(h.order, i, i+1)
			break
		}
	}
	h.ended[d.Slug] = struct{}{}
}

func (m *mirror) addTrashed(t *Trashed) {
	h := m.byID[t.NamespaceID]
	h.trash = append(h.trash, t)
	m.trash[t.ID] = t
}

func (m *mirror) endTrashed(t *Trashed) {
	h := m.byID[t.NamespaceID]
	if i := slices.Index(h.trash, t); i >= 0 {
		h.trash = slices.Delete(h.trash, i, i+1)
	}
	delete(m.trash, t.ID)
}

// load reads the whole catalog. It needs no lock: nobody else has the mirror yet.
func (m *mirror) load(ctx context.Context, db *sql.DB) error {
	m.namespaces = map[string]*holding{}
	m.byID = map[string]*holding{}
	m.databases = map[string]*Database{}
	m.trash = map[string]*Trashed{}
	m.tokens = map[Hash]*Token{}
	m.settings = map[string]string{}
	m.hooked = map[string]struct{}{}
	m.branches, m.leased = map[string]map[string]*Database{}, map[string]struct{}{}
	m.users = map[string]*User{}
	m.byEmail = map[string]*User{}
	m.sessions = map[Hash]*Session{}
	m.userSessions = map[string][]*Session{}
	m.memberOf = map[string]map[string]*Member{}
	m.oauth = newOAuthState()

	err := each(ctx, db, `SELECT id, coalesce(former_slug, slug), created_at, created_by, deleted_at IS NOT NULL FROM namespaces`, func(rows *sql.Rows) error {
		var ns Namespace
		var created int64
		var by sql.NullString
		var deleted bool
		if err := rows.Scan(&ns.ID, &ns.Slug, &created, &by, &deleted); err != nil {
			return err
		}
		ns.CreatedAt, ns.CreatedBy = fromMillis(created), by.String
		if deleted {
			m.byID[ns.ID] = newHolding(ns)
			m.byID[ns.ID].deleted = true
			return nil
		}
		m.addNamespace(ns)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read namespaces: %w", err)
	}
	policies, err := loadPolicies(ctx, db)
	if err != nil {
		return fmt.Errorf("read policies: %w", err)
	}
	rules, err := loadRules(ctx, db)
	if err != nil {
		return fmt.Errorf("read approval rules: %w", err)
	}
	webhooks, err := loadWebhooks(ctx, db)
	if err != nil {
		return fmt.Errorf("read webhooks: %w", err)
	}
	err = each(ctx, db, selectDatabases+` WHERE deleted_at IS NULL ORDER BY seq`, func(rows *sql.Rows) error {
		t, err := scanDatabase(rows)
		if err != nil {
			return err
		}
		d := t.Database // without the times of the trash: there may be 100,000 of them
		m.share(&d)
		d.Policies, d.Rules, d.Webhooks = policies[d.ID], rules[d.ID], webhooks[d.ID]
		m.addDatabase(&d)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read databases: %w", err)
	}
	err = each(ctx, db, selectDatabases+` WHERE deleted_at IS NOT NULL AND condemned_at IS NULL ORDER BY deleted_at, seq`, func(rows *sql.Rows) error {
		t, err := scanDatabase(rows)
		if err != nil {
			return err
		}
		m.share(&t.Database)
		t.Policies, t.Rules, t.Webhooks = policies[t.ID], rules[t.ID], webhooks[t.ID]
		m.addTrashed(t)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read deleted databases: %w", err)
	}
	err = each(ctx, db, `SELECT namespace_id, slug FROM ended_slugs`, func(rows *sql.Rows) error {
		var id, slug string
		if err := rows.Scan(&id, &slug); err != nil {
			return err
		}
		m.byID[id].ended[slug] = struct{}{}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read ended slugs: %w", err)
	}
	err = each(ctx, db, selectTokens+` WHERE revoked_at IS NULL`, func(rows *sql.Rows) error {
		t, err := scanToken(rows)
		if err != nil {
			return err
		}
		m.tokens[t.hash] = t
		m.oauth.addToken(t)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	if err := m.loadPeople(ctx, db); err != nil {
		return fmt.Errorf("read users: %w", err)
	}
	if err := m.loadOAuth(ctx, db); err != nil {
		return fmt.Errorf("read grants: %w", err)
	}
	if m.keys, err = loadSigningKeys(ctx, db); err != nil {
		return fmt.Errorf("read signing keys: %w", err)
	}
	if err := m.loadOAuthClients(ctx, db); err != nil {
		return fmt.Errorf("read OAuth clients: %w", err)
	}
	err = each(ctx, db, `SELECT key, value FROM settings`, func(rows *sql.Rows) error {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil {
			return err
		}
		m.settings[key] = value
		return nil
	})
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	return nil
}

// share makes a database that was read use one copy of the few words that all of them have, instead of 100,000.
func (m *mirror) share(d *Database) {
	d.NamespaceID = m.byID[d.NamespaceID].ID
	d.Region = canonicalRegion(d.Region)
	if d.Status == StatusHealthy {
		d.Status = StatusHealthy
	}
	if d.Name == d.Slug {
		d.Name = d.Slug
	}
}

// each calls row for every row of a query.
func each(ctx context.Context, db *sql.DB, query string, row func(*sql.Rows) error, args ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
