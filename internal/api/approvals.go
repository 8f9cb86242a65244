package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// The lines of the log about approvals. Webhooks are told by the catalog, in the transaction of what they are told of.
const (
	EventApprovalRequired = "approval_required"
	EventApprovalResolved = "approval_resolved"
)

// noteApproval writes a line about an approval into the log.
func (s *Server) noteApproval(event string, a *catalog.Approval) {
	s.log.Info(event, "approval", a.ID, "database", a.DatabaseID, "kind", a.Kind, "requestedBy", a.Requester, "status", a.Status)
}

// maxWait is how long a request may wait for a decision, in seconds.
const maxWait = 25

// approvalOf is an approval of the request's database that the caller may see: its requester, or an admin.
func (x *exchange) approvalOf(tokenOrID string) (*catalog.Approval, error) {
	a, err := x.s.opt.Catalog.Approval(x.r.Context(), tokenOrID)
	if err != nil {
		return nil, err
	}
	if a.DatabaseID != x.database.ID || a.Requester != x.token.ID && x.mayRule("approvals") != nil {
		return nil, catalog.ErrApprovalNotFound
	}
	return x.mended(a), nil
}

// mended is an approval as it is: one that has run, and of which a crash kept the catalog from knowing, is redeemed.
func (x *exchange) mended(a *catalog.Approval) *catalog.Approval {
	if a.Status != approval.Approved {
		return a
	}
	spent := false
	x.unruled = true
	err := x.do(store.JobFunc(func(tx *store.Tx) (err error) {
		spent, err = tx.HasSpent(a.ID)
		return err
	}))
	x.unruled = false
	if err != nil || !spent {
		return a // what can't be looked at is found out when it is redeemed
	}
	if err := x.s.redeemed(x.acting(context.WithoutCancel(x.r.Context())), a); err != nil {
		return a
	}
	done := *a
	done.Status = approval.Redeemed
	return &done
}

// redeemed notes that an approval was used up, and tells who waits.
func (s *Server) redeemed(ctx context.Context, a *catalog.Approval) error {
	err := s.opt.Catalog.Redeemed(ctx, a.ID)
	if err != nil {
		s.log.Warn("note that an approval was redeemed; it is noted at the next look", "approval", a.ID, "error", err)
	}
	s.bells.ring(a.ID)
	return err
}

// getApproval serves GET …/approvals/:token. ?wait= holds the answer until it is decided.
func (s *Server) getApproval(x *exchange) error {
	wait := 0
	if v := x.r.URL.Query().Get("wait"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > maxWait {
			return newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("wait must be a whole number of seconds from 0 to %d", maxWait), "")
		}
		wait = n
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	name := unescape(x.param("token"))
	a, err := x.approvalOf(name)
	if err != nil {
		return err
	}
	if wait > 0 && a.Status == approval.Pending {
		heard, leave := s.bells.listen(a.ID)
		defer leave()
		// It may have been decided before we listened.
		if a, err = x.approvalOf(name); err == nil && a.Status == approval.Pending && heard != nil {
			hear(x.r.Context(), heard, min(time.Duration(wait)*time.Second, a.ExpiresAt.Sub(s.opt.Now())+time.Second))
			if err := x.enterAgain(); err != nil {
				return err
			}
			a, err = x.approvalOf(name)
		}
		if err != nil {
			return err
		}
	}
	x.success()
	x.out = append(s.appendApproval(x.out, a, boundBy(x.token, x.database) != nil), '}')
	return nil
}

const (
	approvalsLimit    = 100
	approvalsMaxLimit = 500
)

// listApprovals serves GET …/approvals, the newest first.
func (s *Server) listApprovals(x *exchange) error {
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayRule("GET …/approvals"); err != nil {
		return err
	}
	q := catalog.ApprovalQuery{DatabaseID: x.database.ID, Before: x.r.URL.Query().Get("before")}
	if word := x.r.URL.Query().Get("status"); word != "" {
		var ok bool
		if q.Status, ok = approval.ParseStatus(word); !ok {
			return newFault(http.StatusBadRequest, codeBadRequest, "status must be pending, approved, denied, expired or redeemed", "")
		}
	}
	var err error
	if q.Limit, err = x.limit(approvalsLimit, approvalsMaxLimit); err != nil {
		return err
	}
	list, err := s.opt.Catalog.Approvals(x.r.Context(), q)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, '[')
	for i, a := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = s.appendApproval(b, a, false)
		if len(b) > int(s.opt.MaxResult) {
			return errResultTooLarge
		}
	}
	x.out = append(b, `]}`...)
	return nil
}

// appendApproval writes an approval's object.
func (s *Server) appendApproval(b []byte, a *catalog.Approval, bound bool) []byte {
	shown := heldContent{Params: json.RawMessage("null"), Statements: []heldStatement{}}
	if a.Content != nil {
		_ = json.Unmarshal(a.Content, &shown) // which we wrote
	}
	statements, err := json.Marshal(shown.Statements)
	if err != nil {
		statements = []byte("[]")
	}
	b = append(b, `{"id":`...)
	b = wire.AppendString(b, a.ID)
	b = append(b, `,"status":`...)
	b = wire.AppendString(b, string(a.Status))
	b = append(b, `,"kind":`...)
	b = wire.AppendString(b, a.Kind)
	b = append(b, `,"sql":`...)
	if a.Content == nil || len(shown.Statements) == 0 {
		b = append(b, `null`...)
	} else {
		b = wire.AppendString(b, shown.SQL)
	}
	b = append(b, `,"params":`...)
	b = append(b, shown.Params...)
	b = append(b, `,"statements":`...)
	b = append(b, statements...)
	if shown.Title != "" {
		b = append(b, `,"title":`...)
		b = wire.AppendString(b, shown.Title)
	}
	b = append(b, `,"hits":`...)
	b = appendHits(b, slices.Clone(a.Hits), bound)
	b = append(b, `,"requestedBy":{"id":`...)
	b = wire.AppendString(b, a.Requester)
	b = append(b, `,"name":`...)
	b = wire.AppendString(b, a.RequesterName)
	b = append(b, `},"requestedAt":`...)
	b = appendTime(b, a.RequestedAt)
	b = append(b, `,"estimatedAffectedRows":`...)
	if rows := approval.Total(a.Counts); rows == nil || bound {
		b = append(b, `null`...)
	} else {
		b = wire.AppendInt(b, *rows)
	}
	if !a.DecidedAt.IsZero() {
		last := a.Votes[len(a.Votes)-1]
		b = append(b, `,"decidedBy":`...)
		b = wire.AppendString(b, s.voter(last.UserID))
		b = append(b, `,"decidedAt":`...)
		b = appendTime(b, a.DecidedAt)
		b = append(b, `,"reason":`...)
		b = wire.AppendString(b, last.Reason)
	}
	b = append(b, `,"approvalsGiven":`...)
	given := 0
	for _, v := range a.Votes {
		if v.Approve {
			given++
		}
	}
	b = wire.AppendInt(b, int64(given))
	b = append(b, `,"approvalsNeeded":`...)
	b = wire.AppendInt(b, int64(a.Ballot().Needed()))
	b = append(b, `,"expiresAt":`...)
	b = appendTime(b, a.ExpiresAt)
	return append(b, '}')
}

// voter is the e-mail address of somebody who decided.
func (s *Server) voter(userID string) string {
	if u, err := s.opt.Catalog.User(userID); err == nil {
		return u.Email
	}
	return userID
}

// decisionRequest is the body of POST /api/approvals/:token/approve and …/deny.
type decisionRequest struct {
	Reason      string `json:"reason"`
	UnknownRows bool   `json:"unknownRows"`
}

// choice is what somebody says, and what they know.
type choice struct {
	approve bool
	reason  string
	seen    []approval.Count // the rows that they were shown; nil where nobody showed them any, and it is found out now
	unknown bool             // they approve it although they don't know how many rows it changes
}

var errUnknownRows = newFault(http.StatusConflict, "rows_unknown", "How many rows the write would change isn't known to you, so that nothing you saw bounds it; it is not approved yet", `{"unknownRows": true} approves it all the same; the page has a box for that`)

// approve serves POST /api/approvals/:token/approve.
func (s *Server) approve(x *exchange) error { return s.answerApproval(x, true) }

// deny serves POST /api/approvals/:token/deny.
func (s *Server) deny(x *exchange) error { return s.answerApproval(x, false) }

func (s *Server) answerApproval(x *exchange, yes bool) error {
	var req decisionRequest
	if err := x.accountObject(&req); err != nil {
		return err
	}
	a, err := x.decide(unescape(x.param("token")), choice{approve: yes, reason: req.Reason, unknown: req.UnknownRows})
	if err != nil {
		return err
	}
	x.success()
	x.out = append(s.appendApproval(x.out, a, false), '}')
	return nil
}

// place is the caller's membership of the namespace that an approval is of. Whoever isn't a member is told that there is none.
func (x *exchange) place(a *catalog.Approval) (m catalog.Membership, err error) {
	if x.user != nil {
		for _, m := range x.s.opt.Catalog.Memberships(x.user.ID) {
			if m.ID == a.NamespaceID {
				return m, nil
			}
		}
	}
	return m, catalog.ErrApprovalNotFound
}

// decide lets the person who is signed in approve or deny.
func (x *exchange) decide(tokenOrID string, d choice) (*catalog.Approval, error) {
	if utf8.RuneCountInString(d.reason) > maxReason {
		return nil, errReason
	}
	a, err := x.s.opt.Catalog.Approval(x.r.Context(), tokenOrID)
	if err != nil {
		return nil, err
	}
	m, err := x.place(a)
	if err != nil {
		return nil, err
	}
	ctx := x.actingAs(context.WithoutCancel(x.r.Context()), x.user)
	vote := approval.Vote{UserID: x.user.ID, Role: m.Role, Approve: d.approve, Reason: strings.ToValidUTF8(d.reason, "�")}
	if d.approve && counts(a.Kind) && a.Ballot().May(x.user.ID, m.Role, x.s.opt.Now()) == nil {
		hidden := false
		if d.seen == nil {
			d.seen, hidden = x.seen(a, m)
		}
		if !d.unknown && (d.seen == nil || hidden) {
			return nil, errUnknownRows
		}
	}
	if a, err = x.s.opt.Catalog.Decide(ctx, a.ID, vote, d.seen, x.s.redeemable(ctx, a)); err != nil {
		return nil, err
	}
	if a.Status != approval.Pending {
		x.s.noteApproval(EventApprovalResolved, a)
		x.s.bells.ring(a.ID)
	}
	return a, nil
}

// maxScheduled bounds for how long an approved write waits for its schedule's next run: what people saw a year ago they have not seen.
const maxScheduled = 31 * 24 * time.Hour

// redeemable is how long a write can be run once it is approved. One of a schedule waits for its next run.
func (s *Server) redeemable(ctx context.Context, a *catalog.Approval) time.Duration {
	lives := s.opt.RedeemTTL
	if id, scheduled := strings.CutPrefix(a.Requester, schedulePrefix); scheduled {
		if sc, err := s.opt.Catalog.Schedule(ctx, id); err == nil && !sc.NextRunAt.IsZero() {
			lives += max(0, min(sc.NextRunAt.Sub(s.opt.Now()), maxScheduled))
		}
	}
	return lives
}

// redeemNamed serves POST …/redeem_approval, whose body names the approval.
func (s *Server) redeemNamed(x *exchange) error {
	var req struct {
		ApprovalToken string `json:"approvalToken"`
	}
	if err := x.object(&req); err != nil {
		return err
	}
	return s.redeemApproval(x, req.ApprovalToken)
}

// redeemInPath serves POST …/approvals/:token/redeem.
func (s *Server) redeemInPath(x *exchange) error {
	return s.redeemApproval(x, unescape(x.param("token")))
}

var errNotRedeemable = newFault(http.StatusNotFound, codeNotFound, "The approval is expired, or was redeemed", "send the write again: it is held anew")

// takeUp makes the request one that runs what was approved.
func (x *exchange) takeUp(tokenOrID string) (*catalog.Approval, error) {
	a, err := x.approvalOf(tokenOrID)
	if err != nil {
		return nil, err
	}
	switch a.Status {
	case approval.Pending:
		return nil, newFault(http.StatusConflict, codeApprovalPending, "The approval is not decided yet", "GET …/approvals/:token?wait=25 waits for the decision")
	case approval.Denied:
		reason := ""
		if n := len(a.Votes); n > 0 && a.Votes[n-1].Reason != "" {
			reason = ": " + a.Votes[n-1].Reason
		}
		return nil, newFault(http.StatusForbidden, codeApprovalDenied, "The write was denied by a person"+reason, "")
	case approval.Approved:
	default:
		return nil, errNotRedeemable
	}
	if err := json.Unmarshal(a.Request, &x.approved); err != nil {
		return nil, fmt.Errorf("read approved write: %w", err)
	}
	x.pass, x.permit = approval.PassOf(a.Hits), store.Permit{ID: a.ID, Until: a.ExpiresAt}
	if onSchema(a.Kind) {
		x.asked = a
	}
	return a, nil
}

// redeemApproval runs what was approved, as the one who asked for it.
func (s *Server) redeemApproval(x *exchange, tokenOrID string) error {
	if err := x.refuseAnyKey(); err != nil {
		return err
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	a, err := x.takeUp(tokenOrID)
	if err != nil {
		return err
	}
	if x.approved.Digest != "" {
		return newFault(http.StatusBadRequest, codeBadRequest, "The approval is for an upload, which is not kept", "send the same "+a.Kind+" request again with the header X-Approval-Token")
	}
	if err := x.become(a); err != nil {
		return err
	}
	x.redeemed, x.body = a, append(x.body[:0], x.approved.Body...)
	if err := x.openDatabase(false); err != nil {
		return err
	}
	return x.concludeRedeem(a, x.runApproved(a))
}

// runApproved runs the call that was held.
func (x *exchange) runApproved(a *catalog.Approval) error {
	s := x.s
	switch a.Kind {
	case kindQuery:
		if err := wire.DecodeQuery(x.body, s.limits, &x.one); err != nil {
			return err
		}
		return s.runQuery(x)
	case kindBatch:
		if err := wire.DecodeBatch(x.body, s.limits, &x.many); err != nil {
			return err
		}
		return s.runBatch(x)
	case kindMerge:
		return s.mergeBranch(x, x.ref(), false)
	case kindRestore:
		return s.restore(x)
	case kindDeleteDatabase:
		return s.deleteDatabase(x)
	case kindDeleteBranch:
		return s.deleteBranch(x)
	case kindDeleteRule:
		return s.deleteRule(x)
	}
	return newFault(http.StatusConflict, codeBadRequest, "This version of the server doesn't know what was approved", "")
}

// concludeRedeem notes that an approval was used up. What ran stands, whatever becomes of the note: the database's file has another.
func (x *exchange) concludeRedeem(a *catalog.Approval, err error) error {
	spent := errors.Is(err, store.ErrSpent) || errors.Is(err, catalog.ErrApprovalUsed)
	if err != nil && !spent {
		return err
	}
	ctx := x.acting(context.WithoutCancel(x.r.Context()))
	if nerr := x.s.redeemed(ctx, a); nerr == nil && !spent {
		a.Status = approval.Redeemed
	}
	if spent {
		return errNotRedeemable
	}
	return nil
}

var errRequesterGone = newFault(http.StatusForbidden, "requester_not_allowed", "Whoever asked for the write may not run it any more", "the token was revoked or is expired, or the member has left")

// become has the rest of the request run with the rights that the requester has now.
func (x *exchange) become(a *catalog.Approval) error {
	if a.Requester == x.token.ID {
		return nil
	}
	t, err := x.s.requester(x.r.Context(), a)
	if err == nil {
		x.token = t
	}
	return err
}

// requester is who asked for a write, with the rights of now.
func (s *Server) requester(ctx context.Context, a *catalog.Approval) (*catalog.Token, error) {
	id, scheduled := strings.CutPrefix(a.Requester, schedulePrefix)
	if !scheduled {
		return s.bearer(ctx, a.Requester, a.NamespaceID)
	}
	sc, err := s.opt.Catalog.Schedule(ctx, id)
	if err != nil {
		return nil, errRequesterGone
	}
	d, err := s.opt.Catalog.DatabaseByID(sc.DatabaseID)
	if err != nil {
		return nil, errRequesterGone
	}
	return s.scheduleToken(ctx, sc, d)
}

// bearer is the token of an id, or the member of user:<id> in a namespace as a token, with the rights of now; errRequesterGone if there is none any more.
func (s *Server) bearer(ctx context.Context, requester, namespaceID string) (*catalog.Token, error) {
	c := s.opt.Catalog
	if id, member := strings.CutPrefix(requester, memberPrefix); member {
		u, err := c.User(id)
		if err != nil || !u.DisabledAt.IsZero() {
			return nil, errRequesterGone
		}
		for _, m := range c.Memberships(id) {
			if m.ID == namespaceID {
				return &catalog.Token{ID: requester, NamespaceID: m.ID, NamespaceSlug: m.Slug, Name: u.Email, Role: catalog.TokenRole(m.Role), Owner: id}, nil
			}
		}
		return nil, errRequesterGone
	}
	t, err := c.Token(ctx, requester)
	if err != nil || !t.RevokedAt.IsZero() || t.Expired(s.opt.Now()) || !c.TokenHolds(t) {
		return nil, errRequesterGone
	}
	return t, nil
}

// presented makes the request one that was approved, where it brings the token of an approval for this very upload.
func (x *exchange) presented(kind, digest string) (*catalog.Approval, error) {
	h := x.r.Header["X-Approval-Token"]
	if h == nil {
		return nil, nil
	}
	if len(h) != 1 {
		return nil, newFault(http.StatusBadRequest, codeBadRequest, "X-Approval-Token must be sent once", "")
	}
	a, err := x.takeUp(h[0])
	if err != nil {
		return nil, err
	}
	if a.Kind != kind || x.approved.Digest != digest || a.Requester != x.token.ID {
		x.permit, x.pass, x.asked = store.Permit{}, nil, nil
		return nil, newFault(http.StatusConflict, codeApprovalMismatch, "The approval is for another request", "the upload, its parameters and the token must be those that were approved")
	}
	return a, nil
}
