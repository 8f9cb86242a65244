package rows

import (
	"fmt"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// reference is a foreign key.
type reference struct {
	table, to  string
	from, cols []string // columns, and those that they refer to
}

// references reads the foreign keys of the parent's tables, if any changes.
func (m *merge) references() error {
	m.refs, m.own = map[string][]reference{}, map[string][]reference{}
	type part struct {
		table, to, from, col string
		id                   int64
	}
	var parts []part
	_, err := m.side.run("SELECT m.name, f.\"table\", f.\"from\", f.\"to\", f.id FROM main.sqlite_schema m, pragma_foreign_key_list(m.name) f WHERE m.type='table' AND m.sql LIKE '%references%' ORDER BY m.name, f.id, f.seq", nil, func(st *sqlite.Stmt) error {
		parts = append(parts, part{text(st, 0), text(st, 1), text(st, 2), text(st, 3), st.Column(4).Int})
		return nil
	})
	if err != nil {
		return err
	}
	for i := 0; i < len(parts); {
		r := reference{table: parts[i].table, to: parts[i].to}
		id := parts[i].id
		for ; i < len(parts) && parts[i].table == r.table && parts[i].id == id; i++ {
			r.from = append(r.from, parts[i].from)
			if parts[i].col != "" {
				r.cols = append(r.cols, parts[i].col)
			}
		}
		if len(r.cols) != len(r.from) { // it refers to the primary key
			t, err := m.side.table(r.to)
			if err != nil || t == nil || len(t.key) != len(r.from) {
				continue // SQLite finds that key of no use either, and refuses the statements that need it
			}
			r.cols = t.keyNames()
		}
		m.refs[sqlite.Fold(r.to)] = append(m.refs[sqlite.Fold(r.to)], r)
		m.own[sqlite.Fold(r.table)] = append(m.own[sqlite.Fold(r.table)], r)
	}
	return nil
}

// join is a condition on pairs of columns; the column that is referred to stands first, since its collation counts.
func join(to, from string, cols, names []string) string {
	parts := make([]string, len(cols))
	for i := range cols {
		parts[i] = to + "." + sqlite.Quote(cols[i]) + "=" + from + "." + sqlite.Quote(names[i])
	}
	return strings.Join(parts, " AND ")
}

// checkReferences finds rows that refer to none, among those that the merge touched: both those that it wrote and those that refer to what it took away. Nothing
// acted on the way: what a cascade did on the branch was recorded there.
func (m *merge) checkReferences() error {
	if len(m.refs) == 0 {
		return nil
	}
	return m.steps(m.plan, func(p *pair, s *step) error {
		t := p.parent
		if s.op != doDelete {
			key, plain := s.key, s.plain
			if s.op == doUpdate { // it may be spelled in another way now
				key = slices.Clone(key)
				if plain && t.key != nil {
					for i, k := range t.key {
						for j, c := range p.common {
							if c.parent == k {
								key[i] = s.new[j]
							}
						}
					}
				}
			}
			for _, r := range m.own[sqlite.Fold(t.name)] {
				some := make([]string, len(r.from))
				for i, f := range r.from {
					some[i] = "c." + sqlite.Quote(f) + " IS NOT NULL"
				}
				sql := "SELECT 1 FROM main." + sqlite.Quote(t.name) + " c WHERE " + t.where("c.", plain) + " AND " + strings.Join(some, " AND ") +
					" AND NOT EXISTS(SELECT 1 FROM main." + sqlite.Quote(r.to) + " p WHERE " + join("p", "c", r.cols, r.from) + ")"
				if err := m.look(p, s, sql, key, fmt.Sprintf("the row refers to none of %s", r.to)); err != nil {
					return err
				}
			}
		}
		if s.op == doInsert {
			return nil
		}
		for _, r := range m.refs[sqlite.Fold(t.name)] {
			values := make([]sqlite.Value, len(r.cols))
			null := false
			for i, c := range r.cols {
				at := slices.IndexFunc(t.columns, func(o string) bool { return strings.EqualFold(o, c) })
				if at < 0 { // a generated column
					return &Problem{Table: t.name, Message: "a foreign key of " + r.table + " refers to a generated column of it"}
				}
				values[i] = s.old[at]
				null = null || values[i].Kind == sqlite.Null
			}
			if null {
				continue
			}
			if s.op == doUpdate && !m.moves(p, s, r.cols) {
				continue
			}
			// Those who refer to the old values, and find nobody there. The values are bound to the column that is referred to, for its affinity and collation.
			parts := make([]string, len(r.cols))
			for i := range r.cols {
				parts[i] = "c." + sqlite.Quote(r.from[i]) + "=?" + fmt.Sprint(i+1)
			}
			sql := "SELECT 1 FROM main." + sqlite.Quote(r.table) + " c WHERE " + strings.Join(parts, " AND ") +
				" AND NOT EXISTS(SELECT 1 FROM main." + sqlite.Quote(t.name) + " p WHERE " + join("p", "c", r.cols, r.from) + ") LIMIT 1"
			if err := m.look(p, s, sql, values, fmt.Sprintf("rows of %s refer to it", r.table)); err != nil {
				return err
			}
		}
		return nil
	}, doDelete, doUpdate, doInsert)
}

// moves tells whether an update changes one of these columns.
func (m *merge) moves(p *pair, s *step, cols []string) bool {
	for i, c := range p.common {
		if slices.ContainsFunc(cols, func(o string) bool { return strings.EqualFold(o, p.parent.columns[c.parent]) }) && !same(s.old[c.parent], s.new[i]) {
			return true
		}
	}
	return false
}

// look notes a conflict if the query finds a row.
func (m *merge) look(p *pair, s *step, sql string, params []sqlite.Value, message string) error {
	found := false
	if _, err := m.side.run(sql, params, func(*sqlite.Stmt) error { found = true; return nil }); err != nil {
		return err
	}
	if found {
		m.block(p, s, ForeignKey, message)
	}
	return nil
}
