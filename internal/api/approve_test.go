package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/console"
)

var errFirst = newFault(http.StatusConflict, "approval_decided", "The approval is decided already", "")

// oneHeld is one held write, known as appr_x.
type oneHeld struct {
	status console.Status
	viewer string // who saw it last
	cast   []string
	err    error // of the next decision
}

func (o *oneHeld) view(x *exchange, name string) (*console.ApprovalPage, error) {
	if name != "appr_x" {
		return nil, newFault(http.StatusNotFound, codeNotFound, "Approval not found", "")
	}
	o.viewer = x.user.Email
	now := time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)
	return &console.ApprovalPage{Status: o.status, MayDecide: o.status == console.Pending, Namespace: "ada", Database: "shop", Requester: console.Requester{Token: "agent"},
		RequestedAt: now, ExpiresAt: now.Add(time.Hour), Now: now, Statements: []console.Statement{{SQL: "DELETE FROM t WHERE a = '<script>'"}}}, nil
}

func (o *oneHeld) decide(x *exchange, name string, d choice, seen string) error {
	if o.err != nil {
		return o.err
	}
	o.cast = append(o.cast, fmt.Sprintln(x.user.Email, name, d.approve, d.reason))
	o.status = console.Denied
	if d.approve {
		o.status = console.Approved
	}
	return nil
}

// withHeld serves the page of a held write.
func withHeld(t testing.TB) (*pageHouse, *oneHeld) {
	t.Helper()
	h, held := newPageHouse(t), &oneHeld{status: console.Pending}
	show, answer := h.door.approvalPages(held)
	h.door.router.Method(http.MethodGet, "/held/{token}", h.door.call("/held/{token}", entryOpen, h.door.page(show)))
	h.door.router.Method(http.MethodPost, "/held/{token}", h.door.call("/held/{token}", entryOpen, h.door.page(answer)))
	return h, held
}

func decision(word, reason string) url.Values {
	return url.Values{"decision": {word}, "reason": {reason}}
}

func TestApprovalPage(t *testing.T) {
	for word, outcome := range map[string]string{"approve": "This write is approved", "deny": "This write is denied"} {
		h, held := withHeld(t)
		// Who isn't signed in is sent to do so, and comes back.
		h.leads(h.ask(http.MethodGet, "/held/appr_x?a=b", "", nil), "/login?next=%2Fheld%2Fappr_x")
		w := h.ask(http.MethodPost, "/held/appr_x", "", decision(word, ""))
		h.leads(w, "/login?next=%2Fheld%2Fappr_x")
		if held.viewer != "" || held.cast != nil {
			t.Fatalf("a stranger saw it, or decided: %+v", held)
		}
		w = h.ask(http.MethodPost, w.Header().Get("Location"), "", credentials(adaPassword))
		h.leads(w, "/held/appr_x")
		cookie := setCookie(w)
		w = h.ask(http.MethodGet, "/held/appr_x", cookie, nil)
		h.shows(w, http.StatusOK, "A write waits for approval", "DELETE FROM t WHERE a = '<script>'", `maxlength="500"`, "Signed in as")
		if strings.Contains(w.Body.String(), "<script") {
			t.Error("SQL became an element")
		}
		h.leads(h.ask(http.MethodPost, "/held/appr_x", cookie, decision(word, "because"), "Sec-Fetch-Site", "same-origin"), "/held/appr_x")
		if want := fmt.Sprintln("ada@example.com", "appr_x", word == "approve", "because"); len(held.cast) != 1 || held.cast[0] != want {
			t.Errorf("cast %q, want %q", held.cast, want)
		}
		h.shows(h.ask(http.MethodGet, "/held/appr_x", cookie, nil), http.StatusOK, outcome)
	}
}

func TestRefusedDecisions(t *testing.T) {
	h, held := withHeld(t)
	cookie := h.signedIn()
	for name, form := range map[string]url.Values{"nothing": {}, "another word": decision("APPROVE", ""), "a long reason": decision("approve", strings.Repeat("é", 501)), "no text": decision("approve", "\xff")} {
		w := h.ask(http.MethodPost, "/held/appr_x", cookie, form)
		h.shows(w, http.StatusBadRequest, `role="alert"`, "A write waits for approval")
		if held.cast != nil {
			t.Fatalf("%s: decided", name)
		}
	}
	h.leads(h.ask(http.MethodPost, "/held/appr_x", cookie, decision("approve", strings.Repeat("é", 500))), "/held/appr_x")
	held.err = errFirst
	h.shows(h.ask(http.MethodPost, "/held/appr_x", cookie, decision("deny", "mine")), http.StatusConflict, "The approval is decided already", "This write is approved")
	held.status = console.Pending
	h.shows(h.ask(http.MethodPost, "/held/appr_x", cookie, decision("deny", "mine </textarea>")), http.StatusConflict, `>mine </textarea></textarea>`)
	h.shows(h.ask(http.MethodGet, "/held/appr_y", cookie, nil), http.StatusNotFound, "Not found", "There is no such approval")
	h.shows(h.ask(http.MethodPost, "/held/appr_y", cookie, decision("no", "")), http.StatusNotFound, "There is no such approval")
	held.err = errors.New("the disk's secret words")
	if w := h.ask(http.MethodPost, "/held/appr_x", cookie, decision("deny", "")); w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	held.err = nil
	cast := len(held.cast)
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
		h.shows(h.ask(http.MethodPost, "/held/appr_x", cookie, decision("approve", ""), headers...), http.StatusForbidden, "A page of another site")
	}
	if len(held.cast) != cast {
		t.Error("another site decided")
	}
	// A token is nobody's word.
	h.leads(h.ask(http.MethodPost, "/held/appr_x", "", decision("approve", ""), "Authorization", "Bearer psql_live_x"), "/login?next=%2Fheld%2Fappr_x")
}
