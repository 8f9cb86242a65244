package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Policy is a policy of row-level security of a database. It is not changed after it was handed out.
type Policy struct {
	ID         string
	DatabaseID string
	Name       string // unique in the database
	Table      string
	Expression string
	AppliesTo  []string // of select, insert, update, delete
	Enabled    bool
	CreatedAt  time.Time
}

// NewPolicy is what a policy is made of. The caller has checked the expression.
type NewPolicy struct {
	Name       string // 1 to 200 characters
	Table      string
	Expression string
	AppliesTo  []string
	Enabled    bool
}

// MaxPolicies is the greatest number of policies of a database.
const MaxPolicies = 100

// PolicyList is the policies of a database at a moment, in the order of their making. Other policies are another list.
type PolicyList struct {
	All []*Policy

	once sync.Once
	memo any
}

// Memo is what work made of the list, once.
func (l *PolicyList) Memo(work func() any) any {
	l.once.Do(func() { l.memo = work() })
	return l.memo
}

// with is a database with other policies.
func (d *Database) with(all []*Policy) *Database {
	changed := *d
	changed.Policies = nil
	if len(all) > 0 {
		changed.Policies = &PolicyList{All: all}
	}
	return &changed
}

// policies are those of a database in the mirror.
func (d *Database) policies() []*Policy {
	if d.Policies == nil {
		return nil
	}
	return d.Policies.All
}

// replaceDatabase puts a changed record in the place of the database's.
func (m *mirror) replaceDatabase(d *Database) {
	h := m.byID[d.NamespaceID]
	h.bySlug[d.Slug] = d
	m.databases[d.ID] = d
	m.addBranch(d)
	m.noteHooked(d)
	for i := len(h.order) - 1; i >= 0; i-- {
		if h.order[i].ID == d.ID {
			h.order[i] = d
			break
		}
	}
}

func policyEvent(action string, d *Database, p *Policy) Event {
	return Event{NamespaceID: d.NamespaceID, Action: action, TargetType: "policy", TargetID: p.ID, TargetName: p.Name, Test: d.Test,
		Metadata: map[string]any{"databaseId": d.ID, "tableName": p.Table, "expression": p.Expression, "appliesTo": p.AppliesTo, "enabled": p.Enabled}}
}

// CreatePolicy makes a policy, which binds from the next request on. It returns ErrDatabaseNotFound, ErrName, ErrPolicyExists or
// ErrTooManyPolicies.
func (c *Catalog) CreatePolicy(ctx context.Context, databaseID string, n NewPolicy) (*Policy, error) {
	if n.Name == "" || !validName(n.Name) {
		return nil, fmt.Errorf("create policy: %w", ErrName)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.DatabaseByID(databaseID)
	if err != nil {
		return nil, fmt.Errorf("create policy: %w", err)
	}
	all := d.policies()
	if slices.ContainsFunc(all, func(p *Policy) bool { return p.Name == n.Name }) {
		return nil, fmt.Errorf("create policy %q: %w", n.Name, ErrPolicyExists)
	}
	if len(all) >= MaxPolicies {
		return nil, fmt.Errorf("create policy %q: %w", n.Name, ErrTooManyPolicies)
	}
	p := &Policy{ID: NewID("pol"), DatabaseID: d.ID, Name: n.Name, Table: n.Table, Expression: n.Expression,
		AppliesTo: slices.Clone(n.AppliesTo), Enabled: n.Enabled, CreatedAt: c.moment()}
	err = c.change(ctx, func(tx *sql.Tx) error {
		return c.insertPolicy(ctx, tx, d, p)
	}, func(m *mirror) {
		m.replaceDatabase(d.with(append(slices.Clone(all), p)))
	})
	if err != nil {
		return nil, fmt.Errorf("create policy %q: %w", n.Name, err)
	}
	return p, nil
}

// insertPolicy writes a policy that is new.
func (c *Catalog) insertPolicy(ctx context.Context, tx *sql.Tx, d *Database, p *Policy) error {
	applies, err := json.Marshal(p.AppliesTo)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO policies (id, database_id, name, table_name, expression, applies_to, enabled, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		p.ID, p.DatabaseID, p.Name, p.Table, p.Expression, string(applies), p.Enabled, p.CreatedAt.UnixMilli()); err != nil {
		return err
	}
	return c.audit(ctx, tx, policyEvent("policy.created", d, p))
}

// inherit are the policies that a copy of a database begins with: those of the one that it was made of, or what they hide would be open in the copy.
func (c *Catalog) inherit(from string, d *Database) (list []*Policy, err error) {
	source, err := c.DatabaseByID(from)
	if err != nil {
		t, err := c.Trashed(from)
		if err != nil {
			return nil, err
		}
		source = &t.Database
	}
	for _, p := range source.policies() {
		copied := *p
		copied.ID, copied.DatabaseID, copied.CreatedAt = NewID("pol"), d.ID, d.CreatedAt
		list = append(list, &copied)
	}
	return list, nil
}

// DeletePolicy ends a policy: it binds no request that comes after. It returns ErrDatabaseNotFound or ErrPolicyNotFound.
func (c *Catalog) DeletePolicy(ctx context.Context, databaseID, id string) (*Policy, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.DatabaseByID(databaseID)
	if err != nil {
		return nil, fmt.Errorf("delete policy: %w", err)
	}
	all := d.policies()
	i := slices.IndexFunc(all, func(p *Policy) bool { return p.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("delete policy %q: %w", id, ErrPolicyNotFound)
	}
	p := all[i]
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM policies WHERE id = ?`, id); err != nil {
			return err
		}
		return c.audit(ctx, tx, policyEvent("policy.deleted", d, p))
	}, func(m *mirror) {
		m.replaceDatabase(d.with(slices.Delete(slices.Clone(all), i, i+1)))
	})
	if err != nil {
		return nil, fmt.Errorf("delete policy %q: %w", id, err)
	}
	return p, nil
}

// loadPolicies reads all policies, by the databases that they belong to.
func loadPolicies(ctx context.Context, db *sql.DB) (map[string]*PolicyList, error) {
	lists := map[string]*PolicyList{}
	err := each(ctx, db, `SELECT id, database_id, name, table_name, expression, applies_to, enabled, created_at FROM policies ORDER BY seq`, func(rows *sql.Rows) error {
		p := &Policy{}
		var created int64
		var applies string
		if err := rows.Scan(&p.ID, &p.DatabaseID, &p.Name, &p.Table, &p.Expression, &applies, &p.Enabled, &created); err != nil {
			return err
		}
		p.CreatedAt = fromMillis(created)
		if err := json.Unmarshal([]byte(applies), &p.AppliesTo); err != nil {
			return fmt.Errorf("policy %s: %w", p.ID, err)
		}
		if lists[p.DatabaseID] == nil {
			lists[p.DatabaseID] = &PolicyList{}
		}
		lists[p.DatabaseID].All = append(lists[p.DatabaseID].All, p)
		return nil
	})
	return lists, err
}
