package api

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/wire"
)

var (
	errBillingOff = newFault(http.StatusNotFound, "billing_off", "This server counts nothing", "its operator can set PERSQLD_BILLING to meter or prepaid")
	errNotPrepaid = newFault(http.StatusNotFound, "not_prepaid", "This server keeps no balances", "its operator can set PERSQLD_BILLING to prepaid")
)

// mayAccount refuses a token that doesn't stand for the whole namespace.
func (x *exchange) mayAccount() error {
	if !x.token.Unscoped() || x.token.Test {
		return newFault(http.StatusForbidden, codeForbidden, "This token sees a part of the namespace, and usage and balance are of all of it", "use a token without a database, a table scope or claims that is no test token")
	}
	return nil
}

// usage serves GET /v1/usage.
func (s *Server) usage(x *exchange) error {
	if err := x.mayAccount(); err != nil {
		return err
	}
	now := s.opt.Now().UTC()
	q := catalog.UsageQuery{NamespaceID: x.token.NamespaceID, GroupBy: billing.ByDay,
		From: catalog.Day(time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)), To: catalog.Day(now)}
	given := x.r.URL.Query()
	for name, to := range map[string]*int64{"from": &q.From, "to": &q.To} {
		text := given.Get(name)
		if text == "" {
			continue
		}
		ms, ok := wire.ParseMoment(text)
		if !ok || ms > maxUsageMoment {
			return newFault(http.StatusBadRequest, codeBadRequest, name+" must be a day such as 2026-01-31, a time of ISO 8601 or Unix milliseconds", "usage is kept by day, UTC")
		}
		*to = catalog.Day(time.UnixMilli(ms))
	}
	if q.From > q.To {
		return newFault(http.StatusBadRequest, codeBadRequest, "from must not be after to", "without from it is the first day of this month, without to it is today")
	}
	if by := given.Get("groupBy"); by != "" {
		q.GroupBy = by
	}
	switch q.GroupBy {
	case billing.ByDay, billing.ByDatabase, billing.ByToken, billing.ByMeter:
	default:
		return newFault(http.StatusBadRequest, codeBadRequest, "groupBy must be day, database, token or meter", "")
	}
	var r billing.Report
	if s.opt.Billing != nil {
		var err error
		if r, err = s.opt.Billing.Usage(x.r.Context(), q); err != nil {
			return err
		}
	}
	x.success()
	b := append(x.out, `{"totals":`...)
	b = appendUsed(append(b, '{'), r.Total)
	b = append(b, `,"series":[`...)
	for i, u := range r.Series {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"key":`...)
		b = wire.AppendString(b, u.Key)
		if q.GroupBy == billing.ByDatabase {
			b = append(b, `,"slug":`...)
			if d, err := s.opt.Catalog.DatabaseByID(u.Key); err == nil {
				b = wire.AppendString(b, d.Slug)
			} else {
				b = append(b, `null`...) // it is deleted, or the line is of calls that concern none
			}
		}
		b = appendUsed(append(b, ','), u)
		if len(b) > int(s.opt.MaxResult) {
			return errResultTooLarge
		}
	}
	x.out = append(b, `]}}`...)
	return nil
}

// maxUsageMoment is the end of the year 9999.
const maxUsageMoment = 253402300799999

// appendUsed writes the members of an object, and its end.
func appendUsed(b []byte, u billing.Used) []byte {
	for _, m := range []struct {
		name string
		n    int64
	}{{`"requests":`, u.Requests}, {`,"rowsRead":`, u.RowsRead}, {`,"rowsWritten":`, u.RowsWritten}, {`,"storageBytes":`, u.StorageBytes}} {
		b = append(b, m.name...)
		b = wire.AppendInt(b, m.n)
	}
	b = append(b, `,"costUsd":`...)
	b = append(b, catalog.DollarText(u.Nanos)...)
	return append(b, '}')
}

// balance serves GET /v1/billing/balance.
func (s *Server) balance(x *exchange) error {
	if err := x.mayAccount(); err != nil {
		return err
	}
	var st billing.Standing
	prepaid := false
	if s.opt.Billing != nil {
		ns, err := s.opt.Catalog.NamespaceByID(x.token.NamespaceID)
		if err != nil {
			return err
		}
		if st, err = s.opt.Billing.Standing(x.r.Context(), ns); err != nil {
			return err
		}
		prepaid = s.opt.Billing.Prepaid()
	}
	x.success()
	b := append(x.out, `{"balanceUsd":`...)
	if prepaid {
		b = append(b, catalog.DollarText(st.Balance)...)
	} else {
		b = append(b, `null`...)
	}
	b = append(b, `,"currency":"usd","burnPerDayUsd":`...)
	b = append(b, catalog.DollarText(st.BurnPerDay)...)
	b = append(b, `,"runwayDays":`...)
	if prepaid && st.Burns {
		b = strconv.AppendFloat(b, math.Floor(st.RunwayDays*10)/10, 'f', -1, 64)
	} else {
		b = append(b, `null`...)
	}
	x.out = append(b, `}}`...)
	return nil
}

// listCaps serves GET /v1/billing/caps.
func (s *Server) listCaps(x *exchange) error {
	if err := x.mayAccount(); err != nil {
		return err
	}
	if s.opt.Billing == nil {
		return errBillingOff
	}
	caps, err := s.opt.Billing.Caps(x.r.Context(), x.token.NamespaceID)
	if err != nil {
		return err
	}
	x.answerCaps(caps)
	return nil
}

func (x *exchange) answerCaps(caps []catalog.Cap) {
	x.success()
	b := append(x.out, '[')
	for i, c := range caps {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendCap(b, c)
	}
	x.out = append(b, `]}`...)
}

// capRequest is one cap of PUT /v1/billing/caps.
type capRequest struct {
	Scope  string         `json:"scope"`
	ID     string         `json:"id"`
	Window string         `json:"window"`
	USD    jsontext.Value `json:"usd"`
}

// maxCaps is how many caps a namespace has at most: each request is compared with all of them.
const maxCaps = 100

// setCaps serves PUT /v1/billing/caps: the caps of the body take the place of those that were there.
func (s *Server) setCaps(x *exchange) error {
	if err := x.needAdmin("PUT /v1/billing/caps"); err != nil {
		return err
	}
	if err := x.mayAccount(); err != nil {
		return err
	}
	if s.opt.Billing == nil {
		return errBillingOff
	}
	if err := x.readBody(); err != nil {
		return err
	}
	var list struct {
		Caps []capRequest `json:"caps"`
	}
	// The body is the list itself; an object that has it is good too.
	body := x.body
	if text := strings.TrimSpace(string(body)); strings.HasPrefix(text, "[") && jsontext.Value(text).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
		body = []byte(`{"caps":` + text + `}`)
	}
	if err := wire.DecodeObject(body, &list); err != nil {
		return err
	}
	if list.Caps == nil {
		return newFault(http.StatusBadRequest, codeBadRequest, "The body is a list of caps", `send [{"scope": "namespace", "window": "day", "usd": 5}], or [] for none`)
	}
	if len(list.Caps) > maxCaps {
		return newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("A namespace has at most %d caps", maxCaps), "")
	}
	// What a cap is of may be deleted, and come back: whoever reads the list, and sends it with one more, must be let.
	former, err := s.opt.Billing.Caps(x.r.Context(), x.token.NamespaceID)
	if err != nil {
		return err
	}
	caps := make([]catalog.Cap, 0, len(list.Caps))
	seen := map[catalog.Cap]bool{}
	for i := range list.Caps {
		c, err := x.capOf(&list.Caps[i], former)
		if err != nil {
			return err
		}
		if key := (catalog.Cap{Scope: c.Scope, TargetID: c.TargetID, Span: c.Span}); seen[key] {
			return newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("Two caps are of the same %s and %s", c.Scope, c.Span), "")
		} else {
			seen[key] = true
		}
		caps = append(caps, c)
	}
	if err := s.opt.Billing.SetCaps(x.acting(x.r.Context()), x.token.NamespaceID, caps); err != nil {
		return err
	}
	x.answerCaps(caps)
	return nil
}

// capOf reads a cap. A database may be named by its slug; former are the caps that hold.
func (x *exchange) capOf(r *capRequest, former []catalog.Cap) (catalog.Cap, error) {
	c := catalog.Cap{Scope: r.Scope, TargetID: r.ID, Span: r.Window}
	bad := func(message, hint string) (catalog.Cap, error) {
		return c, newFault(http.StatusBadRequest, "invalid_cap", message, hint)
	}
	if r.Window != catalog.CapDay && r.Window != catalog.CapMonth {
		return bad("A cap's window is day or month", "")
	}
	nanos, err := dollars(r.USD)
	if err != nil || nanos < 0 {
		return bad("A cap's usd is a number of dollars, 0 or more, with at most 9 decimals", "0 refuses everything")
	}
	c.Nanos = nanos
	if r.ID != "" && slices.ContainsFunc(former, func(f catalog.Cap) bool { return f.Scope == r.Scope && f.TargetID == r.ID }) {
		return c, nil
	}
	switch r.Scope {
	case catalog.CapNamespace:
		if r.ID != "" && r.ID != x.token.NamespaceID && r.ID != x.token.NamespaceSlug {
			return bad("A namespace's cap is of the namespace itself", "leave its id out")
		}
		c.TargetID = ""
	case catalog.CapDatabase:
		d, err := x.s.opt.Catalog.DatabaseByID(r.ID)
		if err != nil {
			d, err = x.s.opt.Catalog.Database(x.token.NamespaceID, r.ID)
		}
		if err != nil || d.NamespaceID != x.token.NamespaceID {
			return bad("The namespace has no database "+strconv.Quote(r.ID), "id is a database's id or slug")
		}
		c.TargetID = d.ID
	case catalog.CapToken:
		if t, err := x.s.opt.Catalog.Token(x.r.Context(), r.ID); err != nil || t.NamespaceID != x.token.NamespaceID {
			return bad("The namespace has no token "+strconv.Quote(r.ID), "GET /v1/tokens lists them with their ids")
		}
	default:
		return bad("A cap's scope is namespace, database or token", "")
	}
	return c, nil
}

// dollars reads an amount of JSON, a number or a text of one, exactly.
func dollars(v jsontext.Value) (int64, error) {
	text := strings.Trim(string(v), `"`)
	if v.Kind() == '0' && strings.ContainsAny(text, "eE") {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.Abs(f) > catalog.MaxNanos/1e9 {
			return 0, catalog.ErrDollars
		}
		text = strconv.FormatFloat(f, 'f', -1, 64)
	}
	return catalog.ParseDollars(text)
}

// ledger serves GET /api/namespaces/:ns/billing/ledger, to admins of the namespace.
func (s *Server) ledger(x *exchange) error {
	if gate.LevelOf(x.token.Role) < gate.LevelAdmin {
		return catalog.ErrLadder
	}
	if s.opt.Billing == nil || !s.opt.Billing.Prepaid() {
		return errNotPrepaid
	}
	limit, err := x.limit(100, 500)
	if err != nil {
		return err
	}
	entries, running, balance, err := s.opt.Billing.Ledger(x.r.Context(), x.token.NamespaceID, x.r.URL.Query().Get("before"), limit)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"balanceUsd":`...)
	b = append(b, catalog.DollarText(balance)...)
	b = append(b, `,"entries":[`...)
	for i, e := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"id":`...)
		b = wire.AppendString(b, e.ID)
		b = append(b, `,"at":`...)
		b = wire.AppendString(b, e.At.Format(time.RFC3339Nano))
		b = appendEntry(b, e)
		b = append(b, `,"note":`...)
		b = wire.AppendString(b, e.Note)
		b = append(b, '}')
	}
	b = append(b, `],"running":[`...)
	for i, e := range running {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendEntry(append(b, '{'), e), '}')
	}
	x.out = append(b, `]}}`...)
	return nil
}

// appendEntry writes what all lines of a ledger have.
func appendEntry(b []byte, e catalog.Entry) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, `"kind":`...)
	b = wire.AppendString(b, e.Kind)
	if e.Kind == catalog.EntryDebit {
		b = append(b, `,"day":`...)
		b = wire.AppendString(b, catalog.DayTime(e.Day).Format(time.DateOnly))
	}
	b = append(b, `,"usd":`...)
	return append(b, catalog.DollarText(e.Nanos)...)
}

// creditRequest is the body of POST /api/namespaces/:ns/billing/credits.
type creditRequest struct {
	USD  jsontext.Value `json:"usd"`
	Note string         `json:"note"`
}

// addCredit serves POST /api/namespaces/:ns/billing/credits, to the owners of the server's first namespace.
func (s *Server) addCredit(x *exchange) error {
	first, err := s.opt.Catalog.Membership(s.opt.FirstNamespace, x.user.ID)
	if err != nil || first.Role != catalog.MemberOwner {
		if _, err := s.opt.Catalog.Membership(unescape(x.param("ns")), x.user.ID); err != nil {
			return errNoNamespace
		}
		return newFault(http.StatusForbidden, codeForbidden, "Credits are given by owners of the server's first namespace", "persqld credit does it on the server's machine")
	}
	if s.opt.Billing == nil || !s.opt.Billing.Prepaid() {
		return errNotPrepaid
	}
	ns, err := s.opt.Catalog.Namespace(unescape(x.param("ns")))
	if err != nil {
		return err
	}
	var req creditRequest
	if err := x.accountObject(&req); err != nil {
		return err
	}
	nanos, err := dollars(req.USD)
	if err != nil {
		return newFault(http.StatusBadRequest, "invalid_amount", "usd is a number of dollars with at most 9 decimals", "")
	}
	if err := billing.CheckCredit(nanos, req.Note); err != nil {
		return newFault(http.StatusBadRequest, "invalid_amount", err.Error(), "")
	}
	if _, err := s.opt.Billing.Credit(x.acting(x.r.Context()), catalog.Credit{NamespaceID: ns.ID, Nanos: nanos, Kind: catalog.EntryCredit, Note: req.Note}); err != nil {
		return err
	}
	st, err := s.opt.Billing.Standing(x.r.Context(), ns)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"balanceUsd":`...)
	b = append(b, catalog.DollarText(st.Balance)...)
	x.out = append(b, `}}`...)
	return nil
}
