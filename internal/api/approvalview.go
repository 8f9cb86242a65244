package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/console"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// approvalDesk is what the page of an approval needs of the server.
type approvalDesk struct{}

var _ heldWrites = approvalDesk{}

// decide casts the vote of who is signed in.
func (approvalDesk) decide(x *exchange, name string, d choice, seen string) error {
	if seen != "" && json.Unmarshal([]byte(seen), &d.seen) != nil {
		return errForm
	}
	_, err := x.decide(name, d)
	return err
}

// view is what the page shows to who is signed in: to who isn't a member of the namespace, that there is none.
func (approvalDesk) view(x *exchange, name string) (*console.ApprovalPage, error) {
	c := x.s.opt.Catalog
	a, err := c.Approval(x.r.Context(), name)
	if err != nil {
		return nil, err
	}
	m, err := x.place(a)
	if err != nil {
		return nil, err
	}
	now := x.s.opt.Now()
	p := &console.ApprovalPage{ID: a.ID, Status: console.Status(a.Status), Namespace: m.Slug, RequestedAt: a.RequestedAt, ExpiresAt: a.ExpiresAt, Now: now,
		Requester: console.Requester{Token: a.RequesterName, TokenID: a.Requester}, Needed: a.Ballot().Needed()}
	if id, member := strings.CutPrefix(a.Requester, memberPrefix); member {
		p.Requester = console.Requester{Member: x.s.voter(id)}
	} else if a.Owner != "" {
		p.Requester.Maker = x.s.voter(a.Owner)
	}
	if strings.HasPrefix(a.Requester, schedulePrefix) {
		p.Requester.Schedule, p.Requester.Token, p.Requester.TokenID = a.RequesterName, "", ""
	}
	d, err := c.DatabaseByID(a.DatabaseID)
	if err == nil {
		x.database, p.Database = d, d.Slug
		if d.IsBranch() {
			p.Branch = d.Fork.Ref
			if parent, perr := c.DatabaseByID(d.Fork.From); perr == nil {
				p.Database = parent.Slug
			}
		}
	} else {
		p.Database = "(deleted)"
	}
	for i := range a.Hits { // those of a rule stand together
		if h := &a.Hits[i]; i > 0 && a.Hits[i-1].RuleID == h.RuleID {
			last := &p.Rules[len(p.Rules)-1]
			last.Tables = append(last.Tables, h.MatchedTable)
		} else {
			p.Rules = append(p.Rules, ruleShown(h))
		}
	}
	for _, v := range a.Votes {
		p.Decisions = append(p.Decisions, console.Decision{By: x.s.voter(v.UserID), At: v.At, Approve: v.Approve, Reason: v.Reason})
	}
	if a.Status == approval.Pending {
		if why := a.Ballot().May(x.user.ID, m.Role, now); why == nil {
			p.MayDecide = true
		} else {
			f := x.s.faultOf(why)
			p.WhyNot = f.message + "."
		}
	}
	if a.Content == nil {
		return p, nil
	}
	var shown heldContent
	if err := json.Unmarshal(a.Content, &shown); err != nil {
		return nil, fmt.Errorf("read held write: %w", err)
	}
	p.Transaction = shown.Transaction
	if shown.Title != "" {
		p.Call = &console.Call{Title: shown.Title}
		for name, value := range shown.Details {
			p.Call.Details = append(p.Call.Details, console.Detail{Name: detailName(name), Value: value})
		}
		sort.Slice(p.Call.Details, func(i, j int) bool { return p.Call.Details[i].Name < p.Call.Details[j].Name })
		return p, nil
	}
	statements, err := x.heldStatements(a, m, &shown)
	if err != nil {
		return nil, err
	}
	for i := range statements {
		p.Statements = append(p.Statements, console.Statement{SQL: string(statements[i].SQL), Params: paramsShown(&statements[i])})
	}
	if a.Status != approval.Pending || d == nil {
		return p, nil
	}
	if boundBy(x.token, d) == nil {
		if counts := x.foresee(p, statements); counts != nil {
			text, err := json.Marshal(counts)
			if err != nil {
				return nil, fmt.Errorf("show held write: %w", err)
			}
			p.Seen = string(text)
		}
		p.RowsUnknown = p.Seen == ""
		return p, nil
	}
	p.RowsUnknown = true
	for i := range p.Statements {
		p.Statements[i].Effect = &console.Effect{How: console.Unknown, Note: "row-level policies bind your role, so that rows and their number aren't shown to you"}
	}
	return p, nil
}

// detailName is what people read in the place of a detail's name.
func detailName(name string) string {
	switch name {
	case "sha256":
		return "SHA-256 of the file, which isn't kept: only the same one can be sent"
	case "rows":
		return "SHA-256 of the rows that the branch changed"
	case "plan":
		return "SHA-256 of the statements"
	}
	return name
}

// ruleShown is a rule that holds the write.
func ruleShown(h *approval.Record) console.Rule {
	r := console.Rule{Denies: h.Action == approval.Deny, Glob: h.TableGlob, Tables: []string{h.MatchedTable}, MaxRows: approval.NoMaxRows, Note: h.Note, Excludes: h.ExcludeRequester}
	if len(h.Operations) < len(approval.AllOps.Names()) {
		r.Operations = h.Operations
	}
	if h.MaxRows != nil {
		r.MaxRows = *h.MaxRows
	}
	switch {
	case h.ApproverRole != "" && h.ApproverRole != approval.RoleEditor:
		r.Approvers = "a member with the role " + h.ApproverRole + " or higher"
	case h.Approvers > 1:
		r.Approvers = fmt.Sprintf("%d people", h.Approvers)
	}
	return r
}

// heldStatements are the statements of a held query or batch. Of one that has run what was shown is all that is left.
func (x *exchange) heldStatements(a *catalog.Approval, m catalog.Membership, shown *heldContent) ([]wire.Statement, error) {
	var kept heldRequest
	if a.Request == nil {
		b, err := json.Marshal(shown)
		if err != nil {
			return nil, fmt.Errorf("read held write: %w", err)
		}
		kept.Body = string(b)
	} else if err := json.Unmarshal(a.Request, &kept); err != nil {
		return nil, fmt.Errorf("read held write: %w", err)
	}
	// Only to be looked at: with the rights of who looks, which may be less than who asked has.
	x.token = &catalog.Token{ID: memberID(x.user), NamespaceID: m.ID, NamespaceSlug: m.Slug, Name: x.user.Email, Role: catalog.TokenRole(m.Role), Owner: x.user.ID}
	if a.Kind == kindBatch {
		if err := wire.DecodeBatch([]byte(kept.Body), x.s.limits, &x.many); err != nil {
			return nil, err
		}
		return slices.Clone(x.many.Statements), nil
	}
	if err := wire.DecodeQuery([]byte(kept.Body), x.s.limits, &x.one); err != nil {
		return nil, err
	}
	return []wire.Statement{x.one.Statement}, nil
}

func paramsShown(st *wire.Statement) (list []console.Param) {
	for i := range st.Params {
		list = append(list, console.Param{Name: st.Params[i].Name, Value: valueShown(st.Params[i].Value)})
	}
	return list
}

// The bounds of what a page looks ahead to.
const (
	foresight    = 2 * time.Second // for all statements
	sampleRows   = 20
	sampleBytes  = 64_000 // of all samples
	sampleValue  = 2_000  // of a value
	sampleTables = 20     // of a statement, with triggers and cascades
)

// foresee fills in what the statements would do now: their plans, their rows and some of these, before and after. They are run one after the other, and all is undone.
// It returns how many rows of ruled tables they change, nil unless all of them ran.
func (x *exchange) foresee(p *console.ApprovalPage, statements []wire.Statement) (counts []approval.Count) {
	var reached []console.Statement
	failed := ""
	// With all rights: whoever asked may have more than who looks, and what is run is undone.
	x.token.Role = catalog.RoleAdmin
	x.gate.Looks, x.gate.Batch = true, true
	// To look must not hold the database for longer than to propose does.
	x.request.Alone = true
	x.thrift = &thrift{now: x.s.opt.Now, until: x.s.opt.Now().Add(min(foresight, x.s.opt.StatementTimeout/2))}
	defer func() { x.gate.Looks, x.gate.Batch, x.request.Alone, x.thrift = false, false, false, nil }()
	watch := &watcher{Gate: &x.gate, seed: maphash.MakeSeed()}
	err := x.doBy(watch, store.JobFunc(func(tx *store.Tx) error {
		x.run.start(tx.Began())
		reached, failed, watch.room, counts = reached[:0], "", sampleBytes, nil
		for i := range statements {
			st, err := x.foreseen(tx, watch, &statements[i])
			if tx.Again() || errors.Is(err, errEstimateBudget) {
				return err
			}
			if err != nil {
				failed = "it fails now: " + x.s.shortOf(x.run.explain(tx, err, statements[i].SQL, ""))
				st.Effect = &console.Effect{How: console.Unknown, Note: failed}
			}
			reached = append(reached, st)
			if err != nil {
				failed = "an earlier statement fails now"
				return errForeseen
			}
		}
		if counts = x.gate.Counts(); counts == nil { // its rules are gone: none of it is ruled
			counts = []approval.Count{}
		}
		return errForeseen
	}))
	switch {
	case errors.Is(err, errEstimateBudget):
		failed = "it takes too long to find out"
	case !errors.Is(err, errForeseen):
		failed = x.s.shortOf(err)
	}
	for i := range p.Statements {
		if i < len(reached) {
			p.Statements[i].Plan, p.Statements[i].Effect = reached[i].Plan, reached[i].Effect
		} else {
			p.Statements[i].Effect = &console.Effect{How: console.Unknown, Note: failed}
		}
	}
	if !errors.Is(err, errForeseen) {
		return nil
	}
	return counts
}

// counts tells whether the rows that a call changes are counted before people decide on it. Others are pinned to what they bring, or end what is there.
func counts(kind string) bool { return kind == kindQuery || kind == kindBatch }

// seen is how many rows of ruled tables a held query or batch would change now; nil where that can't be found out. Whom policies bind isn't told, whether or not it can
// be: hidden rows decide that.
func (x *exchange) seen(a *catalog.Approval, m catalog.Membership) (rows []approval.Count, hidden bool) {
	d, err := x.s.opt.Catalog.DatabaseByID(a.DatabaseID)
	if err != nil {
		return nil, false
	}
	statements, err := x.heldStatements(a, m, &heldContent{})
	if err != nil {
		return nil, false
	}
	x.database, hidden = d, boundBy(x.token, d) != nil
	return x.foresee(&console.ApprovalPage{Statements: make([]console.Statement, len(statements))}, statements), hidden
}

// errForeseen ends a transaction that was only looked at.
var errForeseen = errors.New("what a write would do was looked at")

// foreseen runs a statement in a transaction that is undone.
func (x *exchange) foreseen(tx *store.Tx, watch *watcher, st *wire.Statement) (shown console.Statement, err error) {
	s, err := x.run.prepare(tx, st.SQL)
	if err != nil {
		return shown, err
	}
	defer s.Done()
	if s.Vacuum {
		shown.Effect = &console.Effect{How: console.Unknown, Note: "VACUUM can't be tried"}
		return shown, nil
	}
	if shown.Plan, err = x.plan(tx, s, st.Params); err != nil {
		return shown, err
	}
	res, err := tx.Run(s, st.Params, nil)
	if err != nil {
		return shown, err
	}
	shown.Effect = &console.Effect{Rows: res.Changes, How: console.Exact, Samples: watch.samples, Reads: x.freely(s)}
	return shown, nil
}

// freely are the tables that a write reads and no rule is about: whoever may write there decides until it runs which rows it is about, and what becomes of them.
func (x *exchange) freely(s *sqlite.Stmt) (tables []string) {
	for i := range s.Accesses {
		a := &s.Accesses[i]
		if a.Action != sqlite.Read || !s.Writes || gate.IsSystem(a.Name) || x.database.Rules.About(a.Name) || slices.Contains(tables, a.Name) {
			continue
		}
		if k := s.Kind(a.Name); k == sqlite.OrdinaryTable || k == sqlite.VirtualTable {
			tables = append(tables, strings.Clone(a.Name))
		}
	}
	return tables
}

// plan is the plan of a compiled statement; empty where SQLite has none.
func (x *exchange) plan(tx *store.Tx, s *sqlite.Stmt, params []sqlite.Param) (steps []console.Step, err error) {
	if s.Explain {
		return nil, nil
	}
	explained, err := x.run.prepare(tx, append([]byte(explainPrefix), s.SQL()...))
	if err != nil {
		return nil, err
	}
	defer explained.Done()
	_, err = tx.Run(explained, params, func(s *sqlite.Stmt) error {
		steps = append(steps, console.Step{ID: int(s.Column(0).Int), Parent: int(s.Column(1).Int), Detail: str(s.Column(3))})
		return nil
	})
	return steps, err
}

// watcher is a gate that looks at the rows that change, and keeps some of them.
type watcher struct {
	*gate.Gate
	samples []console.Sample
	room    int          // bytes
	seed    maphash.Seed // tells values apart behind what is kept of them
}

// Watches says that it wants to know.
func (w *watcher) Watches() bool {
	w.Gate.Watches()
	return true
}

// Begin forgets the rows of the statement before.
func (w *watcher) Begin() {
	w.Gate.Begin()
	w.samples = nil
}

// Changing counts a row, and keeps it as far as there is room.
func (w *watcher) Changing(ch *sqlite.Change) {
	w.Gate.Changing(ch)
	if ch.Schema != "main" || gate.IsSystem(ch.Table) || ch.Shadow() {
		return
	}
	op := map[sqlite.Action]string{sqlite.Insert: console.Insert, sqlite.Update: console.Update, sqlite.Delete: console.Delete}[ch.Op]
	var sample *console.Sample
	for i := range w.samples {
		if s := &w.samples[i]; s.Table == ch.Table && s.Operation == op {
			sample = s
		}
	}
	if sample == nil {
		if len(w.samples) >= sampleTables {
			return
		}
		w.samples = append(w.samples, console.Sample{Table: strings.Clone(ch.Table), Operation: op})
		sample = &w.samples[len(w.samples)-1]
		for _, c := range ch.Shape().Columns {
			sample.Columns = append(sample.Columns, c.Name)
		}
	}
	if len(sample.Rows) >= sampleRows || w.room <= 0 {
		sample.More = true
		return
	}
	var row console.SampleRow
	if ch.Op != sqlite.Insert {
		row.Before = w.row(len(sample.Columns), ch.Old)
	}
	if ch.Op != sqlite.Delete {
		row.After = w.row(len(sample.Columns), ch.New)
	}
	sample.Rows = append(sample.Rows, row)
}

// row is the values of a row. One that takes more than there is room for is cut.
func (w *watcher) row(columns int, value func(int) (sqlite.Value, bool)) []console.Value {
	list := make([]console.Value, 0, columns)
	for i := range columns {
		v, ok := value(i)
		if !ok {
			v = sqlite.Value{}
		}
		whole := v.Bytes
		v.Bytes = whole[:min(len(whole), sampleValue)]
		shown := valueShown(v)
		if len(whole) > sampleValue {
			shown.Bytes, shown.Rest = int64(len(whole)), maphash.Bytes(w.seed, whole[sampleValue:])
		}
		w.room -= len(shown.Text) + 16
		list = append(list, shown)
	}
	return list
}

// valueShown is a value as a page shows it.
func valueShown(v sqlite.Value) console.Value {
	switch v.Kind {
	case sqlite.Integer:
		return console.Value{Type: console.Integer, Text: strconv.FormatInt(v.Int, 10)}
	case sqlite.Real:
		return console.Value{Type: console.Real, Text: string(wire.AppendFloat(nil, v.Float))}
	case sqlite.Text:
		return console.Value{Type: console.Text, Text: string(v.Bytes)}
	case sqlite.Blob:
		return console.Value{Type: console.Blob, Text: string(v.Bytes)}
	}
	return console.Value{Type: console.Null}
}
