package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// Writes that rules stop: what is kept of one, and what the client is told.

// The kinds of calls that can be held.
const (
	kindQuery          = "query"
	kindBatch          = "batch"
	kindMerge          = "merge"
	kindRestore        = "restore"
	kindImport         = "import"
	kindLoadCSV        = "load-csv"
	kindDeleteDatabase = "delete-database"
	kindDeleteBranch   = "delete-branch"
	kindDeleteRule     = "delete-rule"
)

const (
	codeApprovalRequired = "approval_required"
	codeApprovalDenied   = "approval_denied"
	codeApprovalPending  = "approval_pending"
	codeApprovalMismatch = "approval_mismatch"
)

// maxHeld is the largest request that is kept until people have decided, in bytes.
const maxHeld = 1_000_000

// heldCall is what is kept of a call, if a rule stops it. The zero one can't be held.
type heldCall struct {
	kind   string
	body   []byte            // what it runs with
	params map[string]string // and the parts of its address that say what it does
	title  string            // of a call that isn't statements
	digest string            // SHA-256 of an upload, which isn't kept: the client sends it again
}

// onSchema tells whether what a call does depends on the schema, which then must not change before it is redeemed. A merge has a look of its own; the others replace, or end, what is there.
func onSchema(kind string) bool { return kind == kindQuery || kind == kindBatch || kind == kindLoadCSV }

// heldRequest is a heldCall as it is kept.
type heldRequest struct {
	Body   string            `json:"body"`
	Params map[string]string `json:"params,omitempty"`
	Digest string            `json:"digest,omitempty"`
}

// heldContent is what people are shown of a call.
type heldContent struct {
	SQL         string            `json:"sql"`
	Params      json.RawMessage   `json:"params"`
	Statements  []heldStatement   `json:"statements"`
	Transaction bool              `json:"transaction,omitempty"`
	Title       string            `json:"title,omitempty"`
	Details     map[string]string `json:"details,omitempty"`
}

type heldStatement struct {
	SQL    string          `json:"sql"`
	Params json.RawMessage `json:"params"`
}

// spendMargin is how much longer than it can be used it is known that a permit was.
const spendMargin = time.Hour

// spend uses the request's permit up, with what the transaction writes.
func (x *exchange) spend(tx *store.Tx) error {
	if a := x.asked; a != nil {
		// Triggers and views say what a statement does: it isn't what people saw if these are others.
		now, err := schemaMark(tx)
		if err != nil {
			return err
		}
		if now != a.SchemaMark {
			return newFault(http.StatusConflict, codeApprovalMismatch, "The schema isn't the one any more that the approved write was asked for on; nothing was changed", "send the write again: it is held anew")
		}
	}
	p := x.toSpend()
	if p == nil {
		return nil
	}
	if err := tx.Spend(p); err != nil {
		return err
	}
	return tx.Commit() // of a request with steps: what fails later doesn't give it back
}

// toSpend is the request's permit, an approval's or a proposal's, as the database remembers that it was used; nil where it has none.
func (x *exchange) toSpend() *store.Permit {
	if x.permit.ID == "" || gate.Off("spent") {
		return nil
	}
	return &store.Permit{ID: x.permit.ID, Until: x.permit.Until.Add(spendMargin)}
}

// guard holds a call that replaces or ends the whole database, wherever a rule is about something in it. One that brings other tables is held by every rule: what these are
// called isn't known.
func (x *exchange) guard(brings bool) error {
	if x.database.Rules == nil {
		return nil
	}
	var tables []string
	x.unruled = true
	err := x.do(store.JobFunc(func(tx *store.Tx) error {
		tables = tables[:0]
		// Names that can't be read are no reason to let it pass.
		return tx.Query(objectsSQL, nil, func(s *sqlite.Stmt) error {
			if name := string(s.Column(0).Bytes); !gate.IsSystem(name) {
				tables = append(tables, name)
			}
			return nil
		})
	}))
	x.unruled = false
	if errors.Is(err, store.ErrDamaged) {
		brings = true // what is in it nobody can tell, and it must be possible to end or replace it
	} else if err != nil {
		return err
	}
	x.gate.Rules, x.gate.Pass = x.database.Rules, x.pass
	return x.gate.JudgeWhole(tables, brings)
}

// refresh looks the database up once more, behind what may take long: a client that sends slowly must not be judged by the rules of when it began.
func (x *exchange) refresh() error {
	d, err := x.s.opt.Catalog.DatabaseByID(x.database.ID)
	if err != nil {
		return err
	}
	x.database = d
	return nil
}

// held makes of a rule's word what the client is told: a failure, and for what people may allow an approval.
func (x *exchange) held(err error) error {
	var stop *approval.Stop
	var drifted *approval.DriftError
	if errors.As(err, &drifted) && x.gate.Caller.Bound() { // who is bound by policies isn't told of rows
		return newFault(http.StatusConflict, codeApprovalMismatch, fmt.Sprintf("The write would change more rows of table %q than when it was approved; nothing was changed", drifted.Seen.Table), driftHint)
	}
	if err == nil || !errors.As(err, &stop) || x.lent {
		return err
	}
	bound := x.gate.Caller.Bound()
	f := newFault(http.StatusForbidden, codeApprovalDenied, stop.Error(), "GET …/approval-rules lists the rules of the database")
	f.extra = appendHits([]byte(`,"hits":`), approval.Records(stop.Hits), bound)
	if stop.Denied() {
		x.noteDenied(stop)
		return f
	}
	f.code, f.hint = codeApprovalRequired, "a person approves it at approvalUrl; then POST …/redeem_approval with the approvalToken runs it, once"
	if x.call.kind == "" {
		f.hint = "send it as a query or a batch, which people can approve"
		return f
	}
	n, err := x.newApproval(stop)
	if err != nil {
		return err
	}
	if onSchema(x.call.kind) {
		x.unruled = true
		err = x.do(store.JobFunc(func(tx *store.Tx) (err error) {
			n.SchemaMark, err = schemaMark(tx)
			return err
		}))
		x.unruled = false
		if err != nil {
			return err
		}
	}
	ctx := x.acting(context.WithoutCancel(x.r.Context()))
	a, token, made, err := x.s.opt.Catalog.Hold(ctx, *n)
	if err != nil {
		return err
	}
	x.heldAs = a.ID
	if made {
		x.s.noteApproval(EventApprovalRequired, a)
	}
	if x.call.digest != "" {
		f.hint = "a person approves it at approvalUrl; then send the same request again with the header X-Approval-Token: <approvalToken>"
	}
	f.extra = append(f.extra, `,"approvalToken":`...)
	f.extra = wire.AppendString(f.extra, token)
	f.extra = append(f.extra, `,"approvalId":`...)
	f.extra = wire.AppendString(f.extra, a.ID)
	f.extra = append(f.extra, `,"approvalUrl":`...)
	f.extra = wire.AppendString(f.extra, strings.TrimSuffix(x.s.opt.BaseURL, "/")+"/approve/"+token)
	f.extra = append(f.extra, `,"expiresAt":`...)
	f.extra = appendTime(f.extra, a.ExpiresAt)
	return f
}

// noteDenied notes that a rule of the database has denied what was asked for.
func (x *exchange) noteDenied(stop *approval.Stop) {
	if x.s.denials.try(x.token.ID) != 0 {
		return // the audit log is kept for good, and a token may try all day
	}
	names := tablesOf(stop.Hits)
	x.s.log.Info("a write was denied by an approval rule", "database", x.database.ID, "token", x.token.ID, "tables", names)
	x.record("approval.refused", map[string]any{"tables": names, "ruleId": stop.First().Rule.ID, "requestedBy": x.token.ID})
}

func tablesOf(hits []approval.Hit) []string {
	names := make([]string, len(hits))
	for i := range hits {
		names[i] = hits[i].Table
	}
	return names
}

// newApproval is what is kept of the request.
func (x *exchange) newApproval(stop *approval.Stop) (*catalog.NewApproval, error) {
	content := x.heldContent()
	n := &catalog.NewApproval{Database: x.database, Requester: x.token.ID, RequesterName: x.token.Name, Owner: x.token.Owner, Kind: x.call.kind, SQL: content.SQL,
		Hits: stop.Hits, Lives: x.s.opt.ApprovalTTL, MaxPending: x.s.opt.MaxApprovals}
	if n.SQL == "" {
		n.SQL = content.Title
	}
	var err error
	if n.Request, err = json.Marshal(heldRequest{string(x.call.body), x.call.params, x.call.digest}); err != nil {
		return nil, fmt.Errorf("keep held write: %w", err)
	}
	if n.Content, err = json.Marshal(content); err != nil {
		return nil, fmt.Errorf("keep held write: %w", err)
	}
	if len(n.Request) > maxHeld || len(n.Content) > 2*maxHeld {
		return nil, newFault(http.StatusRequestEntityTooLarge, "held_write_too_large", fmt.Sprintf("The write needs human approval, for which a request of more than %d bytes is too large; nothing was changed", maxHeld), "send less at a time")
	}
	n.Fingerprint = x.fingerprintOf(n.Content)
	return n, nil
}

// fingerprintOf tells what the request asks for from anything else: by what is asked for, not by how the request spells it.
func (x *exchange) fingerprintOf(content []byte) (print [32]byte) {
	sum := sha256.New()
	for _, part := range [][]byte{[]byte(x.call.kind), content, []byte(x.call.digest)} {
		fmt.Fprintf(sum, "%d:", len(part))
		sum.Write(part)
	}
	sum.Sum(print[:0])
	return print
}

// fingerprint is that of the request.
func (x *exchange) fingerprint() (print [32]byte, err error) {
	content, err := json.Marshal(x.heldContent())
	if err != nil {
		return print, fmt.Errorf("keep held write: %w", err)
	}
	return x.fingerprintOf(content), nil
}

// heldContent is what is shown of the request.
func (x *exchange) heldContent() heldContent {
	c := heldContent{Params: json.RawMessage("null"), Statements: []heldStatement{}}
	switch x.call.kind {
	case kindQuery:
		c.Statements = append(c.Statements, shownStatement(&x.one.Statement))
		c.SQL, c.Params = c.Statements[0].SQL, c.Statements[0].Params
	case kindBatch:
		texts := make([]string, len(x.many.Statements))
		for i := range x.many.Statements {
			st := shownStatement(&x.many.Statements[i])
			texts[i] = st.SQL
			c.Statements = append(c.Statements, st)
		}
		c.SQL, c.Transaction = strings.Join(texts, ";\n"), x.many.Transaction
	default:
		c.Title, c.Details = x.call.title, map[string]string{}
		for name, value := range x.call.params {
			c.Details[name] = value
		}
		if x.call.digest != "" {
			c.Details["sha256"] = x.call.digest
		}
		if len(x.call.body) > 0 {
			c.Details["request"] = string(x.call.body)
		}
	}
	return c
}

// shownStatement is a statement with its parameters, as JSON: an array, or an object of those that have names.
func shownStatement(st *wire.Statement) heldStatement {
	named := len(st.Params) > 0 && st.Params[0].Name != ""
	b := []byte{'['}
	if named {
		b[0] = '{'
	}
	for i := range st.Params {
		if i > 0 {
			b = append(b, ',')
		}
		if named {
			b = wire.AppendString(b, st.Params[i].Name)
			b = append(b, ':')
		}
		b = wire.AppendValue(b, st.Params[i].Value)
	}
	return heldStatement{strings.ToValidUTF8(string(st.SQL), "�"), append(b, b[0]+2)}
}

// digestOf is how an upload is known again.
func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// appendHits writes the rules that stop a write. Who is bound by policies isn't told of rows.
func appendHits(b []byte, hits []approval.Record, bound bool) []byte {
	if bound {
		for i := range hits {
			hits[i].Rows = nil
		}
	}
	list, err := json.Marshal(hits)
	if err != nil { // it has nothing that could fail
		list = []byte("[]")
	}
	return append(b, bytes.TrimSpace(list)...)
}

// digestOfFile is digestOf for a file.
func digestOfFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read upload: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", fmt.Errorf("read upload: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
