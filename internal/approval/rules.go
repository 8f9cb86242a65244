package approval

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Write is a kind of write to a table, as far as it is known before it runs.
type Write struct {
	Table string
	Op    Op
}

// Rules are the rules of a database at a moment, in the order of their making. Other rules are other Rules. They may be used by
// any number of goroutines.
type Rules struct {
	All []*Rule

	// matched remembers which rules are about a table: a warm write must not run 50 patterns.
	matched sync.Map // folded name → []*Rule
	names   atomic.Int64
}

// maxMatched is how many names of tables are remembered.
const maxMatched = 4096

// NewRules are these rules, which are checked; nil if there are none.
func NewRules(all []*Rule) *Rules {
	if len(all) == 0 {
		return nil
	}
	return &Rules{All: all}
}

// about are the rules that a table's name fits.
func (r *Rules) about(table string) []*Rule {
	if list, ok := r.matched.Load(table); ok {
		return list.([]*Rule)
	}
	folded := strings.ToLower(table)
	var list []*Rule
	for _, rule := range r.All {
		if rule.glob.match(folded) {
			list = append(list, rule)
		}
	}
	if r.names.Load() < maxMatched {
		if _, there := r.matched.LoadOrStore(strings.Clone(table), list); !there {
			r.names.Add(1)
		}
	}
	return list
}

// About tells whether any rule is about a table.
func (r *Rules) About(table string) bool { return r != nil && len(r.about(table)) > 0 }

// Judge is which rules stop writes of which no rows are counted yet: those that let no write through for being small, and, of
// what changes the schema, all. The hits are in the order of the rules, then of the writes.
func (r *Rules) Judge(writes []Write) []Hit {
	var hits []Hit
	for _, w := range writes {
		for _, rule := range r.about(w.Table) {
			if rule.Operations&w.Op != 0 && (rule.MaxRows == NoMaxRows || w.Op == DDL) {
				hits = append(hits, Hit{Rule: rule, Table: w.Table, Op: w.Op, Rows: -1})
			}
		}
	}
	return r.sorted(hits)
}

// Whole is which rules stop a call that replaces or ends these tables: every rule that could be about one of them, however few
// rows it has. Where it brings others, whose names aren't known, every rule is about one of them.
func (r *Rules) Whole(tables []string, brings bool) []Hit {
	var hits []Hit
	met := map[*Rule]bool{}
	for _, table := range tables {
		for _, rule := range r.about(table) {
			met[rule] = true
			hits = append(hits, Hit{Rule: rule, Table: table, Op: rule.Operations, Rows: -1})
		}
	}
	for _, rule := range r.All {
		if brings && !met[rule] {
			hits = append(hits, Hit{Rule: rule, Table: rule.TableGlob, Op: rule.Operations, Rows: -1})
		}
	}
	return r.sorted(hits)
}

// Counted is which rules stop rows that were changed: those that are about any of them and let no write through for being
// small, and those by whose count, over all tables that they are about, there are too many.
func (r *Rules) Counted(t *Tally) []Hit {
	var hits []Hit
	for i := range t.rows {
		c := &t.rows[i]
		if c.rows == 0 {
			continue
		}
		for _, rule := range r.about(c.table) {
			if rule.Operations&c.op == 0 {
				continue
			}
			if n := t.of(rule, r); rule.MaxRows == NoMaxRows || n > rule.MaxRows {
				hits = append(hits, Hit{Rule: rule, Table: c.table, Op: c.op, Rows: n})
			}
		}
	}
	return r.sorted(hits)
}

// sorted puts hits in the order of the rules, each rule and table once.
func (r *Rules) sorted(hits []Hit) []Hit {
	if len(hits) < 2 {
		return hits
	}
	place := make(map[*Rule]int, len(r.All))
	for i, rule := range r.All {
		place[rule] = i
	}
	slices.SortStableFunc(hits, func(a, b Hit) int { return place[a.Rule] - place[b.Rule] })
	seen := map[passKey]bool{}
	return slices.DeleteFunc(hits, func(h Hit) bool {
		k := keyOf(&h)
		again := seen[k]
		seen[k] = true
		return again
	})
}

// Tally counts the rows that a request changes. Its zero value is empty.
type Tally struct{ rows []counted }

type counted struct {
	table string
	op    Op
	rows  int64
}

// Add counts rows.
func (t *Tally) Add(table string, op Op, n int64) {
	for i := range t.rows {
		if c := &t.rows[i]; c.op == op && c.table == table {
			c.rows += n
			return
		}
	}
	t.rows = append(t.rows, counted{table, op, n})
}

// Reset empties it.
func (t *Tally) Reset() { t.rows = t.rows[:0] }

// Empty tells whether nothing was counted.
func (t *Tally) Empty() bool { return len(t.rows) == 0 }

// of is how many rows a rule is about.
func (t *Tally) of(rule *Rule, r *Rules) (n int64) {
	for i := range t.rows {
		if c := &t.rows[i]; rule.Operations&c.op != 0 && slices.Contains(r.about(c.table), rule) {
			n += c.rows
		}
	}
	return n
}

// Pass is what an approval lets through: rules, by the tables that they held it for. The nil Pass lets nothing through.
type Pass map[passKey]bool

type passKey struct{ rule, table string }

func keyOf(h *Hit) passKey { return passKey{h.Rule.ID, strings.ToLower(h.Table)} }

// NewPass is a pass for these hits.
func NewPass(hits []Hit) Pass {
	p := Pass{}
	for i := range hits {
		p[keyOf(&hits[i])] = true
	}
	return p
}

// Stop is what hits stop: nil if the pass has all of them. A denial no pass has.
func (p Pass) Stop(hits []Hit) *Stop {
	for i := range hits {
		if hits[i].Rule.Action == Deny || !p[keyOf(&hits[i])] {
			return &Stop{Hits: hits}
		}
	}
	return nil
}

// Has tells whether the pass has a hit.
func (p Pass) Has(h *Hit) bool { return p[keyOf(h)] }

// Count is how many rows of a table a write changes in one way.
type Count struct {
	Table string `json:"table"`
	Op    Op     `json:"op"`
	Rows  int64  `json:"rows"`
}

// Counts are the rows that were counted of tables that a rule is about.
func (r *Rules) Counts(t *Tally) []Count {
	list := []Count{}
	for i := range t.rows {
		if c := &t.rows[i]; r.ruled(c) {
			list = append(list, Count{strings.Clone(c.table), c.op, c.rows})
		}
	}
	return list
}

// Total is the sum of counted rows; nil where nobody knows.
func Total(counts []Count) *int64 {
	if counts == nil {
		return nil
	}
	n := int64(0)
	for _, c := range counts {
		n += c.Rows
	}
	return &n
}

// Least is what each of two people saw, where they saw different numbers: who approved a few rows didn't approve many. nil is what nobody knows, and bounds nothing.
func Least(a, b []Count) []Count {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	list := []Count{}
	for _, c := range a {
		for _, other := range b {
			if c.Table == other.Table && c.Op == other.Op {
				c.Rows = min(c.Rows, other.Rows)
				list = append(list, c)
			}
		}
	}
	return list
}

func (r *Rules) ruled(c *counted) bool {
	return slices.ContainsFunc(r.about(c.table), func(rule *Rule) bool { return rule.Operations&c.op != 0 })
}

// Beyond is the first of the counted rows that are more than a tenth more than what was seen when people approved; nil if none are.
func (r *Rules) Beyond(t *Tally, seen []Count) *Count {
	for i := range t.rows {
		c := &t.rows[i]
		if !r.ruled(c) {
			continue
		}
		var was int64
		for _, s := range seen {
			if s.Op == c.op && s.Table == c.table {
				was = s.Rows
			}
		}
		if c.rows > was+was/10 {
			return &Count{c.table, c.op, was}
		}
	}
	return nil
}

// DriftError says that an approved write would change more than people saw.
type DriftError struct{ Seen Count }

// Error names the table.
func (e *DriftError) Error() string {
	return fmt.Sprintf("The write would change more rows of table %q than the %d that it would have changed when it was approved; nothing was changed", e.Seen.Table, e.Seen.Rows)
}

// Merge is both lists of hits in the order of the rules, each rule and table once.
func (r *Rules) Merge(a, b []Hit) []Hit { return r.sorted(slices.Concat(a, b)) }

// Record is a hit as it is kept and told.
type Record struct {
	RuleID           string   `json:"ruleId"`
	TableGlob        string   `json:"tableGlob"`
	Action           Action   `json:"action"`
	MatchedTable     string   `json:"matchedTable"`
	Note             string   `json:"note"`
	Operation        string   `json:"operation"`      // the kind of write that was held
	Rows             *int64   `json:"rows,omitempty"` // that were counted
	Operations       []string `json:"operations,omitempty"`
	MaxRows          *int64   `json:"maxRows,omitempty"`
	Approvers        int      `json:"approvers,omitempty"`
	ApproverRole     string   `json:"approverRole,omitempty"`
	ExcludeRequester bool     `json:"excludeRequester,omitempty"`
}

// Records are hits, to be kept.
func Records(hits []Hit) []Record {
	list := make([]Record, 0, len(hits))
	for i := range hits {
		h := &hits[i]
		r := Record{RuleID: h.Rule.ID, TableGlob: h.Rule.TableGlob, Action: h.Rule.Action, MatchedTable: h.Table, Note: h.Rule.Note, Operation: h.Op.String(),
			Operations: h.Rule.Operations.Names(), Approvers: h.Rule.Approvers, ApproverRole: h.Rule.ApproverRole, ExcludeRequester: h.Rule.ExcludeRequester}
		if h.Rows >= 0 {
			r.Rows = &h.Rows
		}
		if h.Rule.MaxRows != NoMaxRows {
			r.MaxRows = &h.Rule.MaxRows
		}
		list = append(list, r)
	}
	return list
}

// PassOf is a pass for hits that were kept.
func PassOf(list []Record) Pass {
	p := Pass{}
	for i := range list {
		p[passKey{list[i].RuleID, strings.ToLower(list[i].MatchedTable)}] = true
	}
	return p
}
