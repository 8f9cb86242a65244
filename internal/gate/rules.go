package gate

import (
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/sqlite"
)

// The approval rules of a database: see "Approval rules" in DESIGN.md.

// writing is what a statement writes to, and which rules of which Rules stop that before it runs.
type writing struct {
	writes []approval.Write
	rules  *approval.Rules
	hits   []approval.Hit
}

// rows is the rows that one statement changes, of one table.
type rows struct {
	table  string // as the hook tells it
	counts string // the table that they count as: "" for none
	shadow bool
	op     approval.Op
	n      int64
}

// judgeRules decides on what a statement writes, as far as that is known before it runs.
func (g *Gate) judgeRules(s *sqlite.Stmt, v *verdict) error {
	if !s.Writes || off("rule") {
		return nil
	}
	w := v.writing
	if w == nil {
		w = &writing{writes: writesOf(s)}
		v.writing = w
	}
	if w.rules != g.Rules {
		w.rules, w.hits = g.Rules, g.Rules.Judge(w.writes)
	}
	return g.stop(w.hits)
}

// stop stops a request for rules that it hits, unless an approval let it pass by them.
func (g *Gate) stop(hits []approval.Hit) error {
	if len(hits) == 0 || g.Looks {
		return nil
	}
	if s := g.Pass.Stop(hits); s != nil {
		if g.Whole && !s.Denied() {
			g.waits = g.Rules.Merge(g.waits, hits)
			return nil
		}
		return &approval.Stop{Hits: g.Rules.Merge(g.passed, s.Hits)}
	}
	g.passed = g.Rules.Merge(g.passed, hits)
	return nil
}

// ops are the kinds of writes by what the authorizer calls them.
var ops = map[sqlite.Action]approval.Op{sqlite.Insert: approval.Insert, sqlite.Update: approval.Update, sqlite.Delete: approval.Delete}

// writesOf are the writes of a compiled statement, as the authorizer reported them: each table and kind once.
func writesOf(s *sqlite.Stmt) []approval.Write {
	var own kindOfWork
	for i := range s.Accesses {
		own |= workOf(&s.Accesses[i])
	}
	var list []approval.Write
	add := func(table string, op approval.Op) {
		if w := (approval.Write{Table: table, Op: op}); table != "" && !slices.Contains(list, w) {
			list = append(list, w)
		}
	}
	for i := range s.Accesses {
		a := &s.Accesses[i]
		switch a.Action {
		case sqlite.Insert, sqlite.Update, sqlite.Delete:
			if off("rule of a trigger") && a.By != "" {
				continue
			}
			switch {
			case schemaTable(a.Name):
			case statistics(a.Name):
				// SQLite's own work, unless the statement names it: then it is a row like any other.
				if own == 0 {
					add(a.Name, ops[a.Action])
				}
			case s.Kind(a.Name) == sqlite.ShadowTable:
				// The module's own work, which no client can do: a write to the virtual table is reported as one. R-Tree compiles all of its
				// statements when it is connected, be it to be read.
			default:
				add(a.Name, ops[a.Action])
			}
		case sqlite.CreateTable, sqlite.CreateView, sqlite.CreateVTable, sqlite.DropTable, sqlite.DropView, sqlite.DropVTable:
			if !IsSystem(a.Name) && !off("rule of the schema") {
				add(a.Name, approval.DDL)
			}
		case sqlite.CreateIndex, sqlite.DropIndex, sqlite.CreateTrigger, sqlite.DropTrigger, sqlite.AlterTable:
			if !off("rule of the schema") {
				add(a.Detail, approval.DDL)
			}
		}
	}
	return list
}

// JudgeWrites decides on writes that no statement of the client's tells: a new name, or what a merge does.
func (g *Gate) JudgeWrites(writes []approval.Write) error {
	if g.Rules == nil {
		return nil
	}
	return g.stop(g.Rules.Judge(writes))
}

// JudgeWhole decides on a call that replaces or ends all of these tables, and perhaps brings others.
func (g *Gate) JudgeWhole(tables []string, brings bool) error {
	if g.Rules == nil || off("rule") {
		return nil
	}
	return g.stop(g.Rules.Whole(tables, brings))
}

// Watches tells whether rows are to be counted. It forgets what an earlier run of the same request did.
func (g *Gate) Watches() bool {
	g.tally.Reset()
	g.rows, g.passed, g.waits = g.rows[:0], nil, nil
	return g.Rules != nil
}

// Settled stops a request that is done for what was gathered.
func (g *Gate) Settled() error {
	if len(g.waits) == 0 {
		return nil
	}
	return &approval.Stop{Hits: g.Rules.Merge(g.passed, g.waits)}
}

// Begin forgets what a statement changed that failed.
func (g *Gate) Begin() { g.rows = g.rows[:0] }

// Changing counts a row. Nearly all rows of a statement are of the same table and kind.
func (g *Gate) Changing(ch *sqlite.Change) {
	op := ops[ch.Op]
	for i := range g.rows {
		if r := &g.rows[i]; r.op == op && r.table == ch.Table {
			r.n++
			return
		}
	}
	r := rows{table: ch.Table, counts: ch.Table, op: op, n: 1}
	switch {
	case ch.Schema != "main", IsSystem(ch.Table):
		r.counts = ""
	case ch.Shadow():
		r.shadow, r.counts = true, ""
		if tells(ch.Table) {
			r.counts = sqlite.ShadowOf(ch.Table)
		}
	}
	g.rows = append(g.rows, r)
}

// tells tells whether a shadow table has a row for each of its virtual table: FTS5's and R-Tree's, of which one has one or more.
func tells(shadow string) bool {
	for _, suffix := range []string{"_content", "_docsize", "_rowid"} {
		if n := len(shadow) - len(suffix); n > 0 && strings.EqualFold(shadow[n:], suffix) {
			return true
		}
	}
	return false
}

// Changed decides on the rows that a statement changed: those that the authorizer didn't tell of, such as the ones that REPLACE takes away, and how many there
// are, over the whole request.
func (g *Gate) Changed(s *sqlite.Stmt) error {
	if len(g.rows) == 0 || g.Rules == nil {
		return nil
	}
	virtual := false
	for i := range g.rows {
		switch r := &g.rows[i]; {
		case r.shadow:
			virtual = true
		case r.counts != "":
			g.tally.Add(r.counts, r.op, r.n)
		}
	}
	if virtual {
		g.countVirtual(s)
	}
	g.rows = g.rows[:0]
	if off("rule of rows") {
		return nil
	}
	if g.Seen != nil {
		if seen := g.Rules.Beyond(&g.tally, g.Seen); seen != nil {
			return &approval.DriftError{Seen: *seen}
		}
	}
	return g.stop(g.Rules.Counted(&g.tally))
}

// Counts are the rows that the request has changed so far of tables that rules are about.
func (g *Gate) Counts() []approval.Count {
	if g.Rules == nil {
		return nil
	}
	return g.Rules.Counts(&g.tally)
}

// countVirtual counts the rows of virtual tables by the shadow tables that tell of them.
func (g *Gate) countVirtual(s *sqlite.Stmt) {
	type key struct {
		table string
		op    approval.Op
	}
	most := map[key]int64{}
	var order []key
	for i := range g.rows {
		r := &g.rows[i]
		if !r.shadow || r.counts == "" {
			continue
		}
		k := key{r.counts, r.op}
		if updatesOnly(s, r.counts) {
			k.op = approval.Update // FTS5 and R-Tree delete and insert
		}
		if _, there := most[k]; !there {
			order = append(order, k)
		}
		most[k] = max(most[k], r.n)
	}
	for _, k := range order {
		g.tally.Add(k.table, k.op, most[k])
	}
}

// updatesOnly tells whether all that a statement does to a virtual table is UPDATE.
func updatesOnly(s *sqlite.Stmt, table string) bool {
	updates := false
	for i := range s.Accesses {
		a := &s.Accesses[i]
		if !strings.EqualFold(a.Name, table) {
			continue
		}
		switch a.Action {
		case sqlite.Update:
			updates = true
		case sqlite.Insert, sqlite.Delete:
			return false
		}
	}
	return updates
}
