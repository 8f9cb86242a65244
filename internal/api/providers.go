package api

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/console"
	"github.com/persqld/persqld/internal/upstream"
)

// Signing in by a provider: /login/{provider} sends the browser there, /login/{provider}/callback is where it comes back to, and /login/confirm asks
// whoever isn't known yet what is to become of it. Nothing but that page's form makes or links an account.

const (
	confirmPath = signInPath + "/confirm"
	accountPath = "/account"

	// providerRetry is when to try again where a provider can't be reached.
	providerRetry = 10 * time.Second
)

var (
	errNoProvider = newFault(http.StatusNotFound, codeNotFound, "There is no such sign-in provider here", "")
	errStale      = newFault(http.StatusBadRequest, "sign_in_over", "This sign-in is over, was used already, or was begun in another browser", "begin it again, and end it within 10 minutes in the same browser")
	errLocalOff   = newFault(http.StatusForbidden, "local_sign_in_off", "Passwords are not taken here", "sign in with a provider, at /login")
	// errNoAccount says the same whether there is no account, one that this sign-in must not open, or one that is disabled.
	errNoAccount = newFault(http.StatusForbidden, "no_account", "There is no account here that this sign-in opens", "if you have one, sign in to it as you did until now, and link this sign-in on your account's page; else ask for an invitation")
)

// beginAgain is where somebody can go whose sign-in failed.
var beginAgain = &console.Link{URL: signInPath, Text: "Back to the sign-in"}

func failedSignIn() *console.Message {
	return &console.Message{Title: "You are not signed in", Link: beginAgain}
}

// provider is the one of a name, or nil.
func (s *Server) provider(name string) upstream.Provider {
	for _, p := range s.opt.Providers {
		if p.Name() == name {
			return p
		}
	}
	return nil
}

// providerOf is the provider of an issuer, or nil.
func (s *Server) providerOf(issuer string) upstream.Provider {
	for _, p := range s.opt.Providers {
		if p.Issuer() == issuer {
			return p
		}
	}
	return nil
}

// providerLinks lead to the providers' sign-ins, and from there to next.
func (s *Server) providerLinks(next string) (links []console.Link) {
	for _, p := range s.opt.Providers {
		links = append(links, console.Link{URL: onward(signInPath+"/"+p.Name(), next), Text: p.Label()})
	}
	return links
}

// ways are how people may sign in.
func (s *Server) ways() catalog.Ways {
	w := catalog.Ways{Password: !s.opt.NoLocalSignIn}
	for _, p := range s.opt.Providers {
		w.Issuers = append(w.Issuers, p.Issuer())
	}
	return w
}

// callback is where a provider sends browsers back to.
func (s *Server) callback(p upstream.Provider) string {
	return strings.TrimRight(s.opt.BaseURL, "/") + signInPath + "/" + p.Name() + "/callback"
}

// beginProvider serves GET /login/:provider.
func (s *Server) beginProvider(x *exchange, _ url.Values) error {
	p := s.provider(unescape(x.param("provider")))
	if p == nil {
		return errNoProvider
	}
	next := x.nextPath()
	if len(next) > maxCarried {
		return newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("What you were about to do is longer than the limit of %d bytes that a sign-in by %s can take along", maxCarried, p.Label()),
			"sign in first, then begin again in the app; it should send a shorter state")
	}
	a := upstream.NewAttempt(s.callback(p))
	address, err := p.Begin(x.r.Context(), a)
	if err != nil {
		return x.providerFailed(p, err)
	}
	state := s.signIns.begin(p.Name(), next)
	state.State, state.Nonce, state.Verifier = a.State, a.Nonce, a.Verifier
	if x.user != nil && x.r.URL.Query().Has("link") {
		state.Link = x.user.ID
	}
	if err := x.keepSignIn(state); err != nil {
		return err
	}
	return x.goTo(address)
}

// providerFailed sends the page of a sign-in that a provider didn't bring about. Of what it said only the log has the rest.
func (x *exchange) providerFailed(p upstream.Provider, err error) error {
	f := newFault(http.StatusBadRequest, "sign_in_refused", "The answer of "+p.Label()+" can't be used", "begin again; if it stays so tell the operator: the server's log has the reason")
	switch {
	case errors.Is(err, upstream.ErrDenied):
		f = newFault(http.StatusForbidden, "sign_in_denied", p.Label()+" did not grant the sign-in", "begin again to change your mind")
	case errors.Is(err, upstream.ErrUnavailable):
		f = newFault(http.StatusServiceUnavailable, "provider_unreachable", p.Label()+" can't be reached now", "try again in a moment, or sign in another way")
		f.retry = providerRetry
	}
	if !errors.Is(err, upstream.ErrDenied) && x.s.complaints.try(p.Name()) == 0 {
		x.s.log.Warn("a sign-in by a provider failed", "provider", p.Name(), "error", err, "requestId", x.id)
	}
	return x.sendFault(failedSignIn(), f)
}

// finishProvider serves GET /login/:provider/callback.
func (s *Server) finishProvider(x *exchange, _ url.Values) error {
	p := s.provider(unescape(x.param("provider")))
	if p == nil {
		return errNoProvider
	}
	answer := x.r.URL.Query()
	state := x.signInUnderWay()
	// An answer of another provider than the one that was asked would have this one's code redeemed there.
	if state == nil || state.Person != nil || state.Provider != p.Name() || subtle.ConstantTimeCompare([]byte(answer.Get("state")), []byte(state.State)) != 1 {
		return x.sendFault(failedSignIn(), errStale)
	}
	if err := x.admitAttempt(); err != nil {
		return x.sendFault(failedSignIn(), err)
	}
	if !s.signIns.use(state) {
		return x.sendFault(failedSignIn(), errStale)
	}
	who, refused := p.Finish(x.r.Context(), state.attempt(s.callback(p)), answer)
	var known *catalog.UserIdentity
	var after *signInState // what the browser goes on with: nothing, but for somebody who isn't known
	var err error
	if refused == nil {
		known, err = s.opt.Catalog.UserIdentity(x.r.Context(), who.Issuer, who.Subject)
	}
	if errors.Is(err, catalog.ErrUserIdentityNotFound) {
		after = s.signIns.begin(p.Name(), state.Next)
		after.Link, after.Person = state.Link, personOf(who, maxCarried-len(state.Next))
	}
	if err := x.keepSignIn(after); err != nil {
		return err
	}
	switch {
	case refused != nil:
		return x.providerFailed(p, refused)
	case after != nil:
		return x.goTo(confirmPath)
	case err != nil:
		return err
	}
	if state.Link != "" && known.UserID != state.Link {
		return x.sendFault(&console.Message{Title: "Not linked", Link: &console.Link{URL: accountPath, Text: "Back to your account"}}, errLinked)
	}
	if state.Link != "" && x.user != nil && x.user.ID == state.Link {
		return x.goTo(accountPath)
	}
	if err := x.signInByIdentity(known, who.Picture); err != nil {
		return x.sendFault(failedSignIn(), err)
	}
	return x.arriveAt(state.Next)
}

// personOf is who signed in, as far as a cookie keeps it, which has room for so many bytes of a picture's address. One that is longer comes with the next sign-in.
func personOf(who *upstream.Person, room int) *signInPerson {
	p := &signInPerson{Subject: who.Subject, Name: nameOf(who.Name)}
	if len(who.Picture) <= room {
		p.Picture = who.Picture
	}
	if email, err := catalog.FoldEmail(who.Email); err == nil {
		p.Email, p.Verified = email, who.EmailVerified
	}
	return p
}

// nameOf is a name that strangers gave as an account may have it: what can't be is left out, and so is what is too long.
func nameOf(name string) string {
	const most = 200 // bytes
	var b strings.Builder
	for _, r := range strings.TrimSpace(name) {
		if b.Len()+4 > most {
			break
		}
		if r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) && r != '\ufffd' {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// signInByIdentity signs in the person whom a provider has just vouched for, and told the picture of.
func (x *exchange) signInByIdentity(i *catalog.UserIdentity, picture string) error {
	u, err := x.s.opt.Catalog.User(i.UserID)
	if err != nil {
		return err
	}
	if !u.DisabledAt.IsZero() {
		x.recordRefusal(u)
		x.user = nil
		return errNoAccount
	}
	return x.begin(u, catalog.NewSession{UserID: u.ID, Identity: i, Picture: picture})
}

// arriveAt sends somebody on who has signed in.
func (x *exchange) arriveAt(next string) error {
	if next == "" {
		next = signInPath
	}
	return x.goTo(next)
}

// lasting is actingAs in a context that outlives the request: what a person has confirmed is done.
func (x *exchange) lasting(u *catalog.User) context.Context {
	return x.actingAs(context.WithoutCancel(x.r.Context()), u)
}
