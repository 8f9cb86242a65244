package api

import (
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/persqld/persqld/internal/console"
)

// The page of an approval: what would run, and a person's word on it.

// heldWrites are the writes that wait for a person, as their page needs them. A name is an approval's token or id. To who may not see one it is as if there
// were none.
type heldWrites interface {
	// view is what the page shows to who is signed in, but for the frame.
	view(x *exchange, name string) (*console.ApprovalPage, error)
	// decide casts the vote of who is signed in. seen is the Seen of the page that they saw, if it had one.
	decide(x *exchange, name string, d choice, seen string) error
}

// maxReason is how long the reason of a decision may be, in characters.
const maxReason = 500

// errNoApproval is what the page says to somebody from whom an approval is hidden, or who has a bad link: often it was meant for another account.
var errNoApproval = newFault(http.StatusNotFound, codeNotFound, "There is no such approval, or your account is no member of its namespace", "look whether the link is whole; or sign out, and in with another account")

var errReason = newFault(http.StatusBadRequest, codeBadRequest, "A reason has at most 500 characters", "")

// approvalPages serves the page of these writes.
func (s *Server) approvalPages(held heldWrites) (show, answer pageHandler) {
	view := func(x *exchange) (*console.ApprovalPage, error) {
		p, err := held.view(x, unescape(x.param("token")))
		if err != nil && x.s.faultOf(err).status == http.StatusNotFound {
			return nil, errNoApproval
		}
		if err == nil {
			p.MaxReason = maxReason
		}
		return p, err
	}
	show = func(x *exchange, _ url.Values) error {
		if x.user == nil {
			return x.signInFirst()
		}
		p, err := view(x)
		if err != nil {
			return err
		}
		return x.sendPage(http.StatusOK, p)
	}
	answer = func(x *exchange, form url.Values) error {
		if x.user == nil {
			// The decision is lost, and asked for again: it must be made by who then is signed in.
			return x.signInFirst()
		}
		reason := form.Get("reason")
		err := decidable(form.Get("decision"), reason)
		if err == nil {
			err = held.decide(x, unescape(x.param("token")), choice{approve: form.Get("decision") == "approve", reason: reason, unknown: form.Get("unknown") == "yes"}, form.Get("seen"))
		}
		if err == nil {
			return x.goTo(x.r.URL.EscapedPath())
		}
		if f := x.s.faultOf(err); f.status >= http.StatusInternalServerError {
			return f
		}
		// As it is now, with why the decision didn't count: mostly somebody else was first.
		p, hidden := view(x)
		if hidden != nil {
			return hidden
		}
		p.Reason = reason
		return x.sendFault(p, err)
	}
	return show, answer
}

// decidable tells whether a form has a decision.
func decidable(decision, reason string) error {
	if decision != "approve" && decision != "deny" {
		return errForm
	}
	if utf8.RuneCountInString(reason) > maxReason || !utf8.ValidString(reason) {
		return errReason
	}
	return nil
}
