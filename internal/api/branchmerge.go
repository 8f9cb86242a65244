package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/branch/rows"
	"github.com/persqld/persqld/internal/branch/schema"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// The modes of a merge.
const (
	mergeSchema = "schema"
	mergeFull   = "full" // the rows too
)

// mergeRequest is the body of POST …/branches/:ref/merge, …/preview and …/merge_branch.
type mergeRequest struct {
	Ref        string `json:"ref"` // of merge_branch
	Mode       string `json:"mode"`
	OnConflict string `json:"onConflict"`
}

// merging is a merge under way.
type merging struct {
	mode    string
	ways    rows.OnConflict
	preview bool
	ref     string
	base    []schema.Object // at the fork
	branch  []schema.Object // now
	origins schema.Origins  // of the branch's tables; nil where they aren't known
	parent  []schema.Object // as the plan was made
	plan    schema.Plan
	changes *rows.Changes // nil unless rows are merged
	result  *rows.Result
}

// change is an object that a merge adds, changes or removes, on the wire.
type change struct {
	Type      string `json:"type"`
	Name      string `json:"name"`
	BeforeSQL string `json:"beforeSql,omitempty"`
	AfterSQL  string `json:"afterSql,omitempty"`
}

// mergeConflict is one on the wire: of an object, or of a row.
type mergeConflict struct {
	Kind    string `json:"kind"` // "schema" or "row"
	Type    string `json:"type,omitempty"`
	Name    string `json:"name,omitempty"`
	Table   string `json:"table,omitempty"`
	Key     any    `json:"key,omitempty"`
	Base    any    `json:"base"`
	Branch  any    `json:"branch"`
	Parent  any    `json:"parent"`
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
}

// mergePlan is the plan of a preview.
type mergePlan struct {
	Added   []change `json:"added"`
	Changed []change `json:"changed"`
	Removed []change `json:"removed"`
}

// previewed is the answer of a preview.
type previewed struct {
	Plan          mergePlan       `json:"plan"`
	Statements    []string        `json:"statements"`
	Conflicts     []mergeConflict `json:"conflicts"`
	ConflictCount int64           `json:"conflictCount"`
	Warnings      []string        `json:"warnings"`
	RowsInserted  int64           `json:"rowsInserted"`
	RowsUpdated   int64           `json:"rowsUpdated"`
	RowsDeleted   int64           `json:"rowsDeleted"`
}

// merged is the answer of a merge.
type merged struct {
	Applied      bool            `json:"applied"`
	Statements   []string        `json:"statements"`
	RowsInserted int64           `json:"rowsInserted"`
	RowsUpdated  int64           `json:"rowsUpdated"`
	RowsDeleted  int64           `json:"rowsDeleted"`
	Conflicts    []mergeConflict `json:"conflicts"`
	Warnings     []string        `json:"warnings"`
	Snapshot     *snapshotName   `json:"snapshot"`
	Bookmark     string          `json:"bookmark,omitempty"`
}

// mergeRequestOf reads what is asked for.
func (x *exchange) mergeRequestOf(ref string, preview bool) (*merging, error) {
	var req mergeRequest
	if x.r.Method == http.MethodGet || x.r.Method == http.MethodHead {
		req.Mode, req.OnConflict = x.r.URL.Query().Get("mode"), x.r.URL.Query().Get("onConflict")
	} else {
		if err := x.refuseKey(); err != nil {
			return nil, err
		}
		if err := x.object(&req); err != nil {
			return nil, err
		}
	}
	m := &merging{mode: req.Mode, preview: preview, ref: ref}
	if m.ref == "" {
		m.ref = req.Ref
	}
	switch m.mode {
	case "":
		m.mode = mergeSchema
	case mergeSchema, mergeFull:
	default:
		return nil, newFault(http.StatusBadRequest, codeBadRequest, "mode must be schema or full", "full merges the rows too")
	}
	switch req.OnConflict {
	case "", "abort":
	case "ours":
		m.ways = rows.Ours
	case "theirs":
		m.ways = rows.Theirs
	default:
		return nil, newFault(http.StatusBadRequest, codeBadRequest, "onConflict must be abort, ours or theirs", "ours keeps the parent's row, theirs takes the branch's")
	}
	return m, nil
}

// previewBranch serves GET and POST …/branches/:ref/preview: what a merge would do.
func (s *Server) previewBranch(x *exchange) error { return s.mergeBranch(x, x.ref(), true) }

// mergeRef serves POST …/branches/:ref/merge.
func (s *Server) mergeRef(x *exchange) error { return s.mergeBranch(x, x.ref(), false) }

// mergeNamed serves POST …/merge_branch, whose body names the ref.
func (s *Server) mergeNamed(x *exchange) error { return s.mergeBranch(x, "", false) }

// mergeBranch merges a branch into its parent, or only says what that would do.
func (s *Server) mergeBranch(x *exchange, ref string, preview bool) error {
	m, err := x.mergeRequestOf(ref, preview)
	if err != nil {
		return err
	}
	what := "the merge of a branch"
	if err := x.mayBranch(what); err != nil {
		return err
	}
	parent := x.database
	d, err := s.branchOf(parent, m.ref)
	if err != nil {
		return err
	}
	return x.transferring(nil, func(ctx context.Context, dir string, _ func()) error {
		defer func() {
			if m.changes != nil {
				m.changes.Close()
			}
		}()
		if err := x.readBranch(d, m, dir); err != nil {
			return err
		}
		x.database = parent
		if err := x.refresh(); err != nil { // to read a large branch takes its time
			return err
		}
		parent = x.database
		var res merged
		for try := 0; ; try++ {
			err := x.planMerge(ctx, m)
			if err != nil {
				return err
			}
			if m.preview && m.mode == mergeSchema {
				return x.reply(m.previewed())
			}
			if len(m.plan.Conflicts) > 0 {
				return m.conflict()
			}
			if !m.preview && parent.Rules != nil {
				if x.call, err = x.heldMerge(ctx, m, d); err != nil {
					return err
				}
				if x.redeemed != nil && !maps.Equal(x.call.params, x.approved.Params) {
					return newFault(http.StatusConflict, codeApprovalMismatch, "The branch, or its parent's schema, is not as it was when the merge was approved", "merge again: it is held anew")
				}
			}
			res, err = x.runMerge(m, dir)
			if errors.Is(err, errSchemaMoved) && try < 3 {
				continue
			}
			if m.preview && errors.Is(err, errPreviewed) {
				x.tab.spent.RowsWritten = 0 // it was undone, as it was meant to be
				return x.reply(m.previewed())
			}
			if err != nil {
				return err
			}
			break
		}
		x.record("branch.merged", map[string]any{"branchRef": m.ref, "branchId": d.ID, "mode": m.mode, "statements": len(res.Statements),
			"rowsInserted": res.RowsInserted, "rowsUpdated": res.RowsUpdated, "rowsDeleted": res.RowsDeleted})
		return x.reply(res)
	})
}

var (
	errSchemaMoved = newFault(http.StatusConflict, "schema_changed", "The parent's schema changed while the merge was worked out", "try again")
	errPreviewed   = errors.New("previewed")
)

// onBranch runs a job on a branch of the request's database.
func (x *exchange) onBranch(d *catalog.Database, job func(tx *store.Tx) error) error {
	defer func(parent *catalog.Database) { x.database = parent }(x.database)
	x.database = d
	return x.do(store.JobFunc(job))
}

// readBranch reads what the branch has become.
func (x *exchange) readBranch(d *catalog.Database, m *merging, dir string) error {
	return x.onBranch(d, func(tx *store.Tx) (err error) {
		if m.changes != nil { // an earlier run's
			m.changes.Close()
			m.changes = nil
		}
		facts, err := tx.RecordingFacts()
		if err != nil {
			return err
		}
		if facts == nil {
			return newFault(http.StatusConflict, "not_mergeable", "The branch doesn't know what its parent was when it was made", "it was replaced by an import; claim it anew")
		}
		if err := json.Unmarshal([]byte(facts.Schema), &m.base); err != nil {
			return fmt.Errorf("read the schema of the fork: %w", err)
		}
		m.origins = originsOf(facts.Tables)
		if m.branch, err = schema.Read(queryOf(tx)); err != nil || m.mode != mergeFull {
			return err
		}
		if facts.Ended != "" {
			return newFault(http.StatusConflict, "rows_not_mergeable", "The branch's rows can't be merged: "+facts.Ended, `merge its schema: "mode": "schema"; a branch that is made with "content": "full" records its changes`)
		}
		m.changes, err = rows.Collect(tx, dir)
		return rowsError(err)
	})
}

// originsOf is what a merge of schemas knows of a recording.
func originsOf(tables map[string]store.Origin) schema.Origins {
	if tables == nil {
		return nil
	}
	o := schema.Origins{}
	for name, was := range tables {
		o[name] = schema.Origin(was)
	}
	return o
}

// queryOf runs the server's own queries in a transaction.
func queryOf(tx *store.Tx) schema.Query {
	return func(sql string, row func(*sqlite.Stmt) error) error { return tx.Query(sql, nil, row) }
}

// planMerge works out what becomes of the parent's schema, beside its lane.
func (x *exchange) planMerge(ctx context.Context, m *merging) error {
	err := x.do(store.JobFunc(func(tx *store.Tx) (err error) {
		m.parent, err = schema.Read(queryOf(tx))
		return err
	}))
	if err != nil {
		return schemaError(err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, x.s.opt.StatementTimeout, store.ErrTimeout)
	defer cancel()
	m.plan, err = schema.Merge(ctx, m.base, m.parent, m.branch, m.origins)
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return schemaError(err)
}

// schemaError words what the merge of schemas can't do.
func schemaError(err error) error {
	var limit *schema.LimitError
	switch {
	case errors.As(err, &limit):
		return newFault(http.StatusConflict, "schema_too_large", "The schema is too large to be merged: "+limit.Message, "")
	case errors.Is(err, schema.ErrFault):
		return store.ErrFault
	}
	return err
}

// rowsError words what the merge of rows can't do.
func rowsError(err error) error {
	var problem *rows.Problem
	if errors.As(err, &problem) {
		message := problem.Error()
		return newFault(http.StatusConflict, "rows_not_mergeable", "T"+message[1:], "merge the schema alone, or leave the table out of the branch's changes")
	}
	return err
}

// conflict is the failure of a merge that has conflicts.
func (m *merging) conflict() error {
	f := newFault(http.StatusConflict, "merge_conflict", "The branch and its parent have changed the same things differently; nothing was changed",
		`GET …/preview shows the conflicts; of rows "onConflict": "ours" keeps the parent's, "theirs" takes the branch's`)
	list, err := json.Marshal(m.conflicts())
	if err != nil {
		return fmt.Errorf("encode conflicts: %w", err)
	}
	f.conflicts = list
	return f
}

// runMerge merges, in one transaction of the parent.
func (x *exchange) runMerge(m *merging, dir string) (res merged, err error) {
	x.request.Alone, x.gate.Whole = true, true
	x.unruled = m.preview
	defer func() { x.request.Alone, x.unruled, x.gate.Whole = false, false, false }()
	err = x.do(store.JobFunc(func(tx *store.Tx) error {
		res = merged{Statements: []string{}, Conflicts: []mergeConflict{}, Warnings: m.warnings()}
		m.result = nil
		now, err := schema.Read(queryOf(tx))
		if err != nil {
			return err
		}
		if !slices.Equal(now, m.parent) {
			return errSchemaMoved
		}
		if !m.preview {
			if err := x.gate.JudgeWrites(m.writes()); err != nil {
				return err
			}
			if err := x.spend(tx); err != nil {
				return err
			}
		}
		if x.s.opt.Past != nil && !m.preview && (!m.plan.Empty() || m.changes != nil && m.changes.Len() > 0) {
			label := "before the merge of " + m.ref
			if runes := []rune(label); len(runes) > maxLabel {
				label = string(runes[:maxLabel-1]) + "…"
			}
			made, err := x.snapshot(tx, label, true)
			if err != nil {
				return err
			}
			res.Snapshot = &snapshotName{made.ID, made.Label}
		}
		for _, t := range m.plan.Renamed {
			if policiesOf(x.database).Has(t.From) {
				return refuseRenamed(t.From)
			}
		}
		if err := m.runSchema(tx); err != nil {
			return err
		}
		res.Statements = append(res.Statements, m.plan.Statements...)
		if m.changes != nil {
			m.result, err = rows.Merge(tx, m.changes, rows.Options{OnConflict: m.ways, Preview: m.preview, Dir: dir})
			if errors.Is(err, rows.ErrConflict) {
				return m.conflict()
			}
			if err != nil {
				return rowsError(err)
			}
			res.RowsInserted, res.RowsUpdated, res.RowsDeleted = m.result.Inserted, m.result.Updated, m.result.Deleted
			res.Conflicts = m.conflicts()
			res.Warnings = m.warnings()
		}
		if m.preview {
			return errPreviewed
		}
		if err := tx.CheckDeferred(); err != nil {
			return refusedMerge(err)
		}
		res.Applied = true
		if tx.Wrote() && x.s.opt.Past != nil {
			res.Bookmark = history.Bookmark(x.database.ID, tx.Position())
		}
		return nil
	}))
	return res, err
}

// writes is what the plan does to the schema, as rules know it: an index or trigger is its table's.
func (m *merging) writes() (list []approval.Write) {
	tables := map[string]string{}
	for _, objects := range [][]schema.Object{m.parent, m.branch} {
		for _, o := range objects {
			tables[o.Type+" "+o.Name] = o.Table
		}
	}
	for _, changes := range [][]schema.Change{m.plan.Added, m.plan.Changed, m.plan.Removed} {
		for _, c := range changes {
			name := c.Name
			if on := tables[c.Type+" "+c.Name]; on != "" {
				name = on
			}
			list = append(list, approval.Write{Table: name, Op: approval.DDL})
		}
	}
	for _, c := range m.plan.Removed {
		if c.Type == "table" || c.Type == "view" { // its rows go with it, as SQLite says of DROP
			list = append(list, approval.Write{Table: c.Name, Op: approval.Delete})
		}
	}
	for _, t := range m.plan.Renamed {
		list = append(list, approval.Write{Table: t.From, Op: approval.DDL}, approval.Write{Table: t.To, Op: approval.DDL})
	}
	return list
}

// maxShownPlan is how much of a merge's statements people are shown, in bytes; the digest is of all of them.
const maxShownPlan = 100_000

// heldMerge is what is kept of a merge, if a rule stops it. It is for the branch as it is: another commit there needs another approval.
func (x *exchange) heldMerge(ctx context.Context, m *merging, d *catalog.Database) (heldCall, error) {
	owner, err := x.s.opt.Placement.Owner(ctx, d.ID)
	if err != nil {
		return heldCall{}, err
	}
	position, _, err := owner.Position(ctx, d.ID)
	if err != nil {
		return heldCall{}, err
	}
	changed, content := 0, ""
	if m.changes != nil {
		changed = int(m.changes.Len())
		// Where no history is kept there is no position to tell another commit by.
		if content, err = m.changes.Digest(); err != nil {
			return heldCall{}, err
		}
	}
	text := strings.Join(m.plan.Statements, ";\n")
	return heldCall{kind: kindMerge, body: x.body, title: "Merge the branch " + m.ref + " (" + m.mode + ")",
		params: map[string]string{"ref": m.ref, "branchId": d.ID, "position": strconv.FormatUint(position, 10), "changedRows": strconv.Itoa(changed), "rows": content, "plan": digestOf([]byte(text)),
			"statements": strings.ToValidUTF8(text[:min(len(text), maxShownPlan)], "�")}}, nil
}

// runSchema carries the plan out, and looks at the foreign keys that it may have broken.
func (m *merging) runSchema(tx *store.Tx) error {
	if m.plan.Empty() {
		return nil
	}
	before := map[string]int64{}
	for _, table := range m.plan.Check {
		if n, err := violations(tx, table); err == nil { // one that isn't there yet has none
			before[table] = n
		}
	}
	if err := m.plan.Run(tx.Alter); err != nil {
		return refusedMerge(err)
	}
	for _, table := range m.plan.Check {
		n, err := violations(tx, table)
		if err != nil {
			return refusedMerge(err)
		}
		if n > before[table] {
			return newFault(http.StatusConflict, "merge_refused", fmt.Sprintf("After the merge %d rows of table %s would refer to none; nothing was changed", n-before[table], table), "mend the parent's rows first")
		}
	}
	return nil
}

// violations counts a table's rows that refer to none.
func violations(tx *store.Tx, table string) (n int64, err error) {
	err = tx.Query("SELECT count(*) FROM pragma_foreign_key_check(?)", []sqlite.Param{{Value: sqlite.Value{Kind: sqlite.Text, Bytes: []byte(table)}}}, func(s *sqlite.Stmt) error {
		n = s.Column(0).Int
		return nil
	})
	return n, err
}

// refusedMerge words that the parent's rows don't fit the branch's schema.
func refusedMerge(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) || e.Cause != nil {
		return err
	}
	switch e.Code.Primary() {
	case sqlite.CodeConstraint, sqlite.CodeError, sqlite.CodeMismatch:
		return newFault(http.StatusConflict, "merge_refused", "The parent's rows don't fit the branch's schema; nothing was changed: "+e.Message, "mend the rows first, or the branch's schema")
	}
	return err
}

func (m *merging) warnings() []string {
	list := slices.Clone(m.plan.Warnings)
	if list == nil {
		list = []string{}
	}
	if m.result != nil {
		for _, t := range m.result.Skipped {
			list = append(list, "the changes of rows of table "+t+" are left out: the other side doesn't have it")
		}
		for _, t := range m.result.ByRowid {
			list = append(list, "the rows of table "+t+" are matched by their rowids, since it has no primary key")
		}
	}
	return list
}

func changesOf(list []schema.Change) []change {
	out := make([]change, len(list))
	for i, c := range list {
		out[i] = change{Type: c.Type, Name: c.Name, BeforeSQL: c.BeforeSQL, AfterSQL: c.AfterSQL}
	}
	return out
}

func (m *merging) previewed() previewed {
	p := previewed{Plan: mergePlan{changesOf(m.plan.Added), changesOf(m.plan.Changed), changesOf(m.plan.Removed)}, Statements: slices.Clone(m.plan.Statements),
		Conflicts: m.conflicts(), ConflictCount: int64(len(m.plan.Conflicts)), Warnings: m.warnings()}
	if p.Statements == nil {
		p.Statements = []string{}
	}
	if m.result != nil {
		p.RowsInserted, p.RowsUpdated, p.RowsDeleted = m.result.Inserted, m.result.Updated, m.result.Deleted
		p.ConflictCount += m.result.ConflictCount
	}
	return p
}

// conflicts are those of objects and the first of those of rows, as the client gets them.
func (m *merging) conflicts() []mergeConflict {
	list := []mergeConflict{}
	text := func(sql string) any {
		if sql == "" {
			return nil
		}
		return sql
	}
	for _, c := range m.plan.Conflicts {
		list = append(list, mergeConflict{Kind: "schema", Type: c.Type, Name: c.Name, Base: text(c.Base), Branch: text(c.Branch), Parent: text(c.Parent), Reason: c.Reason})
	}
	if m.result == nil {
		return list
	}
	for i := range m.result.Conflicts {
		c := &m.result.Conflicts[i]
		list = append(list, mergeConflict{Kind: "row", Table: c.Table, Key: rowObject(c.KeyColumns, c.Key), Base: rowObject(c.Columns, c.Base), Branch: rowObject(c.Columns, c.Branch),
			Parent: rowObject(c.Columns, c.Parent), Reason: string(c.Reason), Message: c.Message})
	}
	return list
}

// rowObject is a row by its columns' names; nil if there is none.
func rowObject(columns []string, values []sqlite.Value) any {
	if values == nil {
		return nil
	}
	o := make(map[string]any, len(values))
	for i, v := range values {
		if i < len(columns) {
			o[columns[i]] = plainValue(v)
		}
	}
	return o
}

// plainValue is a value as the wire has it, for what isn't hot.
func plainValue(v sqlite.Value) any {
	switch v.Kind {
	case sqlite.Integer:
		return v.Int
	case sqlite.Real:
		if math.IsInf(v.Float, 0) {
			return fmt.Sprint(v.Float)
		}
		return v.Float
	case sqlite.Text:
		return string(v.Bytes)
	case sqlite.Blob:
		return map[string]string{"$blob": base64.StdEncoding.EncodeToString(v.Bytes)}
	}
	return nil
}

// forkFacts are what the file of a branch knows of its fork. Its schema at the fork is the file's own, unless it is made of another branch.
func (s *Server) forkFacts(x *exchange, parent *catalog.Database, n *newBranch) (f store.RecordingFacts, err error) {
	f = store.RecordingFacts{Parent: parent.ID, CreatedAt: s.opt.Now().UnixMilli()}
	if n.content != catalog.ContentFull {
		f.Ended = "it was made without rows"
	}
	if n.from != nil {
		// Against the parent it has what the other branch has, too: that one's base is its own.
		f.Ended = "it was made of another branch"
		err = x.onBranch(n.from, func(tx *store.Tx) error {
			facts, err := tx.RecordingFacts()
			if err == nil && facts != nil {
				f.Schema, f.Tables = facts.Schema, facts.Tables
			}
			return err
		})
	}
	return f, err
}

// schemaWords are the schema of a database as RecordingFacts keep it.
func schemaWords(c *sqlite.Conn) (string, error) {
	objects, err := schema.Read(c.EachRow)
	if err != nil {
		return "", schemaError(err)
	}
	text, err := json.Marshal(objects)
	if err != nil {
		return "", fmt.Errorf("keep the schema of the fork: %w", err)
	}
	return string(text), nil
}
