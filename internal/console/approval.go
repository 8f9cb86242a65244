package console

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const approvalFile = "approval.html"

// Status is what has become of an approval.
type Status string

// The states of an approval.
const (
	Pending  Status = "pending"
	Approved Status = "approved"
	Denied   Status = "denied"
	Expired  Status = "expired"
	Redeemed Status = "redeemed"
)

// ApprovalPage shows what waits for a person's word, and takes it.
type ApprovalPage struct {
	Frame
	ID          string
	Status      Status
	Namespace   string
	Database    string
	Branch      string // empty for the database itself
	Requester   Requester
	RequestedAt time.Time
	ExpiresAt   time.Time // of a pending one: to decide; of an approved one: to redeem
	Now         time.Time

	// What would run: statements, or a call that has none.
	Statements  []Statement
	Transaction bool // the statements are one transaction
	Call        *Call

	Rules []Rule

	Decisions []Decision
	Needed    int    // people who have to approve; 0 is 1
	MayDecide bool   // the viewer may decide now
	WhyNot    string // why not, a sentence; empty where there is nothing to decide
	Reason    string // as it was sent, when the form is shown again
	MaxReason int    // characters; 0 is 500
	// Seen is what the page shows of the rows, in the words of who handles the form: it comes back with the decision. Empty where they aren't known.
	Seen string
	// RowsUnknown says that the viewer doesn't know how many rows would change: whoever approves has to say that they do so all the same.
	RowsUnknown bool
}

// Requester is who asked.
type Requester struct {
	Token    string // the token's name
	TokenID  string
	Maker    string // e-mail address of who made the token; empty where that isn't known
	Schedule string // the name of a schedule that asked; the token's is empty then
	Member   string // e-mail address of a member who asked without a token; then the others are empty
}

// Unknown tells whether nobody knows whose request it is.
func (r Requester) Unknown() bool { return r.Maker == "" && r.Member == "" }

// Call is something else than statements: a restore, an import, the end of a database or of a rule.
type Call struct {
	Title   string // Restore the database
	Details []Detail
}

// Detail is one line of a call.
type Detail struct{ Name, Value string }

// Statement is one statement that would run, and what it would do.
type Statement struct {
	SQL    string
	Params []Param
	Plan   []Step // empty where SQLite has none, as for DDL
	Effect *Effect
}

// Param is a parameter's name, such as ?1 or :id, and its value.
type Param struct {
	Name  string
	Value Value
}

// The types of values.
const (
	Null    = "null"
	Integer = "integer"
	Real    = "real"
	Text    = "text"
	Blob    = "blob"
)

// Value is a value of SQLite's: for a blob its bytes, else as text.
type Value struct {
	Type, Text string
	// Bytes is the value's length where Text is only its beginning; else 0.
	Bytes int64
	// Rest tells values apart, in one page, by what isn't in Text: a hash, or 0.
	Rest uint64
}

// Step is a line of EXPLAIN QUERY PLAN.
type Step struct {
	ID, Parent int
	Detail     string
}

// Effect is what a statement changes, found out by running it and undoing it, or why that isn't known.
type Effect struct {
	Rows    int64 // that it changes
	How     How
	Note    string // why the number isn't exact, or isn't known; a clause
	Samples []Sample
	Reads   []string // the tables that it reads and no rule is about: which rows it changes may be others when it runs
}

// How tells how sure a number is.
type How uint8

const (
	Unknown How = iota
	Counted     // by the condition of the statement, not by running it
	Exact
)

// The operations of a sample.
const (
	Insert = "insert"
	Update = "update"
	Delete = "delete"
)

// Sample are some of the rows of a table that a statement changes.
type Sample struct {
	Table     string
	Operation string // Insert, Update or Delete
	Columns   []string
	Rows      []SampleRow
	More      bool // there are others
}

// SampleRow is a row, with a value for each column. Before is nil for an insert, After for a delete.
type SampleRow struct{ Before, After []Value }

// Rule is a rule that holds the write.
type Rule struct {
	Denies     bool // it would be the end of this rule, which denies writes
	Glob       string
	Tables     []string // that it matches
	Operations []string // that it is about; empty for all
	MaxRows    int64    // up to which it lets a write through; negative for none
	Note       string
	Approvers  string // who has to decide, a clause; empty for any one editor
	Excludes   bool   // the person who made the token may not decide; where that is unknown, one more has to
}

// Decision is what somebody said.
type Decision struct {
	By      string
	At      time.Time
	Approve bool
	Reason  string
}

func (p *ApprovalPage) title() string {
	switch p.Status {
	case Approved:
		return "This write is approved"
	case Denied:
		return "This write is denied"
	case Expired:
		return "This write was not decided in time"
	case Redeemed:
		return "This write has run"
	default:
		return "A write waits for approval"
	}
}

func (p *ApprovalPage) view() (string, any) { return approvalFile, newApprovalView(p) }

// The bounds of what is shown. A page with everything that a request may hold would be no page for a person.
const (
	maxSQL         = 200_000 // characters of a statement, above any limit that a server should have,
	maxAllSQL      = 500_000 // until this many are shown, then
	shortSQL       = 2_000
	maxValue       = 500 // characters of a parameter,
	maxAllValues   = 300_000
	shortValue     = 80
	maxParams      = 2_000 // parameters of all statements
	maxCell        = 120   // characters of a sample's value
	maxBlob        = 32    // bytes of a blob
	maxNote        = 2_000 // characters of what people wrote
	maxDetail      = 10_000
	maxTables      = 30 // tables of a rule
	maxName        = 300
	longStatement  = 24 // lines that are counted aloud
	maxPlanSteps   = 200
	standardReason = 500
)

// approvalView is the page as the template needs it.
type approvalView struct {
	*ApprovalPage
	Lead      string
	Badge     badge
	When      string // the distance of the end
	Asked     string
	Items     []statementView
	Deed      []detailView // of the call
	Total     string       // rows of all statements
	CutShort  bool         // something is not shown whole
	Doubt     string       // what isn't what it looks like, a clause
	Left      int          // approvals that are missing
	Who       string       // the headings of the decisions,
	What      string       // and of the statements
	ReasonMax int
}

type detailView struct{ Name, Value, Note string }

type badge struct{ Mark, Text, Class string }

type statementView struct {
	Number   int
	Of       int
	SQL      []run
	Size     string // of a long one
	More     string // what is not shown of it
	Params   []paramView
	MoreArgs string
	Plan     []*planNode
	Rows     string
	Samples  []sampleView
	Reads    []string
	Others   int // tables that Reads leaves out
	Effect   bool
}

type paramView struct {
	Name  []run
	Value valueView
}

// valueView is a value as it is shown.
type valueView struct {
	Type  string
	Class string
	Runs  []run
	Note  string // what isn't to be seen: the length of a long one
}

type planNode struct {
	Detail []run
	Nodes  []*planNode
}

type sampleView struct {
	ID      string // of the caption, in the document
	Caption string
	Columns []columnView
	Rows    []sampleRowView
}

type columnView struct {
	Name    []run
	Changed bool
}

type sampleRowView struct{ Cells []cellView }

type cellView struct {
	Value   valueView
	Changed bool
	After   valueView
}

// shower shows texts until its bounds are reached, and knows whether one was.
type shower struct {
	sql, values, params, samples int
	cutShort                     bool
	alike, unseen                int // characters that pass for others, and such that can't be seen
}

// seen counts what of a text isn't what it looks like.
func (s *shower) seen(list []run) []run {
	for i := range list {
		switch r := &list[i]; {
		case r.Text != "" && r.Mark != "":
			s.alike++
		case strings.HasPrefix(r.Mark, "U+") || strings.HasPrefix(r.Mark, "byte "):
			s.unseen++
		}
	}
	return list
}

// people are the texts around what would run: who asked for it and where, why it is held, and who decided.
func (s *shower) people(p *ApprovalPage) {
	names := []string{p.Namespace, p.Database, p.Branch, p.Requester.Maker, p.Requester.Member}
	texts := []string{p.Requester.Token}
	for _, r := range p.Rules {
		names, texts = append(append(names, r.Glob), r.Shown()...), append(texts, r.Note)
	}
	for _, d := range p.Decisions {
		names, texts = append(names, d.By), append(texts, d.Reason)
	}
	if p.Call != nil {
		texts = append(texts, p.Call.Title)
	}
	for _, name := range names {
		s.seen(nameRuns(name))
	}
	for _, t := range texts {
		s.seen(textRuns(t))
	}
}

// doubt says that a text may be another one than it reads as; "" where there is no reason to.
func (s *shower) doubt() string {
	var of []string
	if s.alike > 0 {
		of = append(of, noun(int64(s.alike), "character")+" of another alphabet or form than the word around")
	}
	if s.unseen > 0 {
		of = append(of, noun(int64(s.unseen), "character")+" that can't be seen")
	}
	return strings.Join(of, " and ")
}

func newApprovalView(p *ApprovalPage) *approvalView {
	v := &approvalView{ApprovalPage: p, When: distance(p.ExpiresAt, p.Now), Asked: distance(p.RequestedAt, p.Now), ReasonMax: p.MaxReason}
	if v.ReasonMax <= 0 {
		v.ReasonMax = standardReason
	}
	yes := 0
	for _, d := range p.Decisions {
		if d.Approve {
			yes++
		}
	}
	v.Left = max(1, p.Needed) - yes
	v.Who, v.What = "Who decided", "What was asked for"
	switch p.Status {
	case Approved:
		v.What = "What would run"
		v.Badge, v.Lead = badge{"✓", "Approved", "good"}, "It has not run yet. Whoever asked for it can now run exactly this, once, until the time below."
	case Denied:
		v.Badge, v.Lead = badge{"✕", "Denied", "bad"}, "Nothing of it has run, and nothing will."
	case Expired:
		v.Badge, v.Lead = badge{"–", "Expired", "over"}, "Nothing of it has run, and nothing will. It can be asked for again."
	case Redeemed:
		v.What = "What ran"
		v.Badge, v.Lead = badge{"✓", "Approved and run", "good"}, "It was approved and has run, once. It can't run again."
	default:
		v.Who, v.What = "Decided so far", "What would run"
		v.Badge, v.Lead = badge{"…", "Waiting", "wait"}, "Nothing of it has run. It runs only if it is approved here and asked for once more."
	}
	s := &shower{}
	ahead := p.Status != Denied && p.Status != Expired && p.Status != Redeemed // something may still be done
	sum, exact := int64(0), true
	for i, st := range p.Statements {
		if !ahead {
			st.Effect = nil
		}
		item := s.statement(st)
		item.Number, item.Of = i+1, len(p.Statements)
		v.Items = append(v.Items, item)
		if st.Effect == nil || st.Effect.How == Unknown {
			exact = false
		} else {
			sum += st.Effect.Rows
			exact = exact && st.Effect.How == Exact
		}
	}
	if p.Call != nil {
		for _, d := range p.Call.Details {
			if d.Value == "" {
				continue
			}
			v.Deed = append(v.Deed, s.detail(d))
		}
	}
	if len(p.Statements) > 1 && exact {
		v.Total = noun(sum, "row")
	}
	s.people(p)
	v.CutShort, v.Doubt = s.cutShort, s.doubt()
	return v
}

// detail shows a line of a call.
func (s *shower) detail(d Detail) detailView {
	name, _ := cut(d.Name, maxName)
	value, more := cut(d.Value, maxDetail)
	s.seen(textRuns(value))
	v := detailView{Name: name, Value: value}
	if more {
		s.cutShort = true
		v.Note = fmt.Sprintf("only %s of %s are shown", count(int64(len(value))), noun(int64(len(d.Value)), "byte"))
	}
	return v
}

func (s *shower) statement(st Statement) statementView {
	item := statementView{Effect: st.Effect != nil}
	limit := maxSQL
	if s.sql >= maxAllSQL {
		limit = shortSQL
	}
	shown, more := cut(st.SQL, limit)
	s.sql += len(shown)
	item.SQL = s.seen(sqlRuns(shown))
	if lines := strings.Count(st.SQL, "\n") + 1; lines > longStatement || len(st.SQL) > 2_000 {
		item.Size = noun(int64(lines), "line") + ", " + noun(int64(len(st.SQL)), "byte")
	}
	if more {
		s.cutShort = true
		item.More = fmt.Sprintf("The statement goes on: only %s of its %s are shown", count(int64(len(shown))), noun(int64(len(st.SQL)), "byte"))
	}
	for i, a := range st.Params {
		if s.params == maxParams {
			s.cutShort = true
			item.MoreArgs = noun(int64(len(st.Params)-i), "more parameter") + " not shown"
			break
		}
		s.params++
		limit := maxValue
		if s.values >= maxAllValues {
			limit = shortValue
		}
		name := a.Name
		if name == "" {
			name = fmt.Sprintf("?%d", i+1)
		}
		name, _ = cut(name, maxName)
		value := s.value(a.Value, limit)
		s.seen(value.Runs)
		s.cutShort = s.cutShort || value.Note != ""
		item.Params = append(item.Params, paramView{s.seen(nameRuns(name)), value})
	}
	item.Plan = planTree(st.Plan)
	if st.Effect != nil {
		item.Rows = rowsText(st.Effect)
		item.Reads = st.Effect.Reads[:min(len(st.Effect.Reads), maxTables)]
		item.Others = len(st.Effect.Reads) - len(item.Reads)
		for _, sample := range st.Effect.Samples {
			item.Samples = append(item.Samples, s.sample(sample, st.Effect))
		}
	}
	return item
}

// rowsText says how many rows change, and how sure that is.
func rowsText(e *Effect) string {
	note := ""
	if e.Note != "" {
		n, _ := cut(e.Note, maxNote)
		note = " (" + n + ")"
	}
	switch e.How {
	case Exact:
		if e.Rows == 0 {
			return "No row would change now" + note
		}
		return noun(e.Rows, "row") + " would change now" + note
	case Counted:
		return "About " + noun(e.Rows, "row") + " would change, by a count that did not run it" + note
	}
	return "How many rows would change is not known" + note
}

// value shows a value's beginning.
func (s *shower) value(v Value, limit int) valueView {
	w := valueView{Type: v.Type, Class: v.Type}
	switch v.Type {
	case Null:
		w.Runs = []run{{Text: "NULL"}}
	case Blob:
		b := v.Text[:min(len(v.Text), maxBlob)]
		if whole := max(v.Bytes, int64(len(v.Text))); whole > int64(len(b)) {
			w.Note = fmt.Sprintf("the first %d of %s", len(b), noun(whole, "byte"))
		}
		w.Runs = []run{{Text: "x'" + hex.EncodeToString([]byte(b)) + "'"}}
	default:
		text, more := cut(v.Text, limit)
		if v.Bytes > int64(len(v.Text)) {
			w.Note = "the beginning of " + noun(v.Bytes, "byte")
		} else if more {
			w.Note = fmt.Sprintf("the first %s of %s", count(int64(limit)), noun(int64(utf8.RuneCountInString(v.Text)), "character"))
		}
		w.Runs = valueRuns(text)
		s.values += len(text)
	}
	if v.Type == Text && v.Text == "" && v.Bytes == 0 {
		w.Class, w.Runs = "empty", []run{{Text: "empty text"}}
	}
	return w
}

// sample shows rows as a table: a cell that changes has its former and its new value.
func (s *shower) sample(m Sample, e *Effect) sampleView {
	table, _ := cut(m.Table, maxName)
	verb := map[string]string{Insert: "inserted", Update: "updated", Delete: "deleted"}[m.Operation]
	s.samples++
	v := sampleView{ID: fmt.Sprintf("sample-%d", s.samples)}
	v.Caption = noun(int64(len(m.Rows)), "row") + " of " + table + " that would be " + verb
	if m.More {
		v.Caption = "The first " + v.Caption
		if e.How == Exact && len(e.Samples) == 1 {
			v.Caption += ", of " + count(e.Rows)
		}
	}
	changed := make([]bool, len(m.Columns))
	for _, r := range m.Rows {
		var row sampleRowView
		for i := range m.Columns {
			before, after := at(r.Before, i), at(r.After, i)
			var c cellView
			switch {
			case before == nil && after == nil:
				c.Value = s.value(Value{Type: Null}, maxCell)
			case before == nil:
				c.Value = s.value(*after, maxCell)
			case after == nil, *before == *after:
				c.Value = s.value(*before, maxCell)
			default:
				c.Changed, changed[i] = true, true
				c.Value, c.After = s.value(*before, maxCell), s.value(*after, maxCell)
				if slices.Equal(c.Value.Runs, c.After.Runs) {
					// They differ where it can't be seen: in type, or behind what is shown.
					c.Value.Note, c.After.Note = unlike(*before, c.Value), unlike(*after, c.After)
				}
			}
			row.Cells = append(row.Cells, c)
		}
		v.Rows = append(v.Rows, row)
	}
	for i, name := range m.Columns {
		name, _ := cut(name, maxName)
		v.Columns = append(v.Columns, columnView{nameRuns(name), changed[i]})
	}
	return v
}

func unlike(v Value, w valueView) string {
	if w.Note == "" {
		return v.Type
	}
	return v.Type + ", " + w.Note + ", different behind that"
}

func at(values []Value, i int) *Value {
	if i < len(values) {
		return &values[i]
	}
	return nil
}

// planTree makes a tree of the plan's steps. A parent that isn't there is the root.
func planTree(steps []Step) (roots []*planNode) {
	nodes := map[int]*planNode{}
	for i, s := range steps {
		if i == maxPlanSteps {
			roots = append(roots, &planNode{Detail: []run{{Mark: noun(int64(len(steps)-i), "more step")}}})
			break
		}
		detail, _ := cut(s.Detail, maxName)
		n := &planNode{Detail: nameRuns(detail)}
		if parent := nodes[s.Parent]; parent != nil && s.Parent != s.ID {
			parent.Nodes = append(parent.Nodes, n)
		} else {
			roots = append(roots, n)
		}
		nodes[s.ID] = n
	}
	return roots
}

// Shown are the tables that it matches, as far as there is room, and Others how many more there are.
func (r Rule) Shown() []string { return r.Tables[:min(len(r.Tables), maxTables)] }

// Others is how many tables Shown leaves out.
func (r Rule) Others() int { return len(r.Tables) - len(r.Shown()) }

// operations are the words of a rule's operations in a sentence.
var operations = map[string]string{Insert: "inserts", Update: "updates", Delete: "deletes", "ddl": "changes of the schema"}

// Scope is what the rule is about, as a sentence says it.
func (r Rule) Scope() string {
	var parts []string
	for _, o := range r.Operations {
		word := operations[o]
		if word == "" {
			word = o
		}
		parts = append(parts, word)
	}
	scope := "any write"
	if n := len(parts); n > 1 {
		scope = strings.Join(parts[:n-1], ", ") + " and " + parts[n-1]
	} else if n == 1 {
		scope = parts[0]
	}
	if r.MaxRows >= 0 {
		scope += " of more than " + noun(r.MaxRows, "row")
	}
	return scope
}
