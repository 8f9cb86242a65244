package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/persqld/persqld/internal/approval"
)

// withRules is a database with other approval rules.
func (d *Database) withRules(all []*approval.Rule) *Database {
	changed := *d
	changed.Rules = approval.NewRules(all)
	return &changed
}

// rules are those of a database in the mirror.
func (d *Database) rules() []*approval.Rule {
	if d.Rules == nil {
		return nil
	}
	return d.Rules.All
}

func ruleEvent(action string, d *Database, r *approval.Rule) Event {
	m := map[string]any{"databaseId": d.ID, "tableGlob": r.TableGlob, "action": r.Action, "operations": r.Operations.Names(), "note": r.Note, "locked": r.Locked,
		"approvers": r.Approvers, "approverRole": r.ApproverRole, "excludeRequester": r.ExcludeRequester}
	if r.MaxRows != approval.NoMaxRows {
		m["maxRows"] = r.MaxRows
	}
	return Event{NamespaceID: d.NamespaceID, Action: action, TargetType: "approval_rule", TargetID: r.ID, TargetName: r.TableGlob, Test: d.Test, Metadata: m}
}

// CreateRule makes an approval rule, which binds from the next request on. It returns ErrDatabaseNotFound, ErrTooManyRules, or what
// approval.Rule.Check returns.
func (c *Catalog) CreateRule(ctx context.Context, databaseID string, r approval.Rule) (*approval.Rule, error) {
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("create approval rule: %w", err)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.DatabaseByID(databaseID)
	if err != nil {
		return nil, fmt.Errorf("create approval rule: %w", err)
	}
	all := d.rules()
	if len(all) >= approval.MaxRules {
		return nil, fmt.Errorf("create approval rule: %w", ErrTooManyRules)
	}
	r.ID, r.DatabaseID, r.CreatedAt, r.CreatedBy = NewID("rule"), d.ID, c.moment(), actorOf(ctx).ID
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO approval_rules (id, database_id, table_glob, action, operations, max_rows, note, locked, by_member, approvers, approver_role,
			exclude_requester, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.ID, d.ID, r.TableGlob, string(r.Action), int64(r.Operations), r.MaxRows, r.Note, r.Locked, r.ByMember, r.Approvers, r.ApproverRole,
			r.ExcludeRequester, r.CreatedAt.UnixMilli(), r.CreatedBy); err != nil {
			return err
		}
		return c.audit(ctx, tx, ruleEvent("approval_rule.created", d, &r))
	}, func(m *mirror) {
		m.replaceDatabase(d.withRules(append(slices.Clone(all), &r)))
	})
	if err != nil {
		return nil, fmt.Errorf("create approval rule: %w", err)
	}
	return &r, nil
}

// Rule is an approval rule of a database, or ErrRuleNotFound.
func (d *Database) Rule(id string) (*approval.Rule, error) {
	for _, r := range d.rules() {
		if r.ID == id {
			return r, nil
		}
	}
	return nil, ErrRuleNotFound
}

// DeleteRule ends an approval rule: it binds no request that comes after. It returns ErrDatabaseNotFound or ErrRuleNotFound.
// approved is as for DeleteDatabase.
func (c *Catalog) DeleteRule(ctx context.Context, databaseID, id, approved string) (*approval.Rule, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.DatabaseByID(databaseID)
	if err != nil {
		return nil, fmt.Errorf("delete approval rule: %w", err)
	}
	r, err := d.Rule(id)
	if err != nil {
		return nil, fmt.Errorf("delete approval rule %q: %w", id, err)
	}
	a, err := c.redeemable(ctx, approved)
	if err != nil {
		return nil, fmt.Errorf("delete approval rule %q: %w", id, err)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if err := c.redeem(ctx, tx, a); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM approval_rules WHERE id = ?`, id); err != nil {
			return err
		}
		return c.audit(ctx, tx, ruleEvent("approval_rule.deleted", d, r))
	}, func(m *mirror) {
		m.replaceDatabase(d.withRules(slices.DeleteFunc(slices.Clone(d.rules()), func(other *approval.Rule) bool { return other == r })))
	})
	if err != nil {
		return nil, fmt.Errorf("delete approval rule %q: %w", id, err)
	}
	return r, nil
}

// loadRules reads all approval rules, by the databases that they belong to.
func loadRules(ctx context.Context, db *sql.DB) (map[string]*approval.Rules, error) {
	lists := map[string][]*approval.Rule{}
	err := each(ctx, db, `SELECT id, database_id, table_glob, action, operations, max_rows, note, locked, by_member, approvers, approver_role, exclude_requester, created_at, created_by
		FROM approval_rules ORDER BY seq`, func(rows *sql.Rows) error {
		r := &approval.Rule{}
		var created int64
		if err := rows.Scan(&r.ID, &r.DatabaseID, &r.TableGlob, &r.Action, &r.Operations, &r.MaxRows, &r.Note, &r.Locked, &r.ByMember, &r.Approvers, &r.ApproverRole,
			&r.ExcludeRequester, &created, &r.CreatedBy); err != nil {
			return err
		}
		r.CreatedAt = fromMillis(created)
		// A rule that can't be read must not become none.
		if err := r.Check(); err != nil {
			return fmt.Errorf("approval rule %s: %w", r.ID, err)
		}
		lists[r.DatabaseID] = append(lists[r.DatabaseID], r)
		return nil
	})
	rules := make(map[string]*approval.Rules, len(lists))
	for id, list := range lists {
		rules[id] = approval.NewRules(list)
	}
	return rules, err
}
