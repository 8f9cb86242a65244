package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/console"
	"github.com/persqld/persqld/internal/upstream"
)

// newcomer is somebody whom a provider vouches for, and whom no account is linked to.
type newcomer struct {
	state    *signInState
	provider upstream.Provider
	page     *console.Confirm
	user     *catalog.User // the account that has the e-mail address; nil for none, or where it doesn't count
	secret   string        // of the invitation that an account is made with; "" for none
}

func (n *newcomer) identity() catalog.NewUserIdentity {
	name := n.state.Person.Email
	if name == "" {
		name = n.state.Person.Name
	}
	return catalog.NewUserIdentity{Issuer: n.provider.Issuer(), Subject: n.state.Person.Subject, Name: name, Picture: n.state.Person.Picture}
}

// newcomer finds out what may become of who came back from a provider. It returns errStale for nobody, and errNoAccount where nothing may.
func (x *exchange) newcomer() (*newcomer, error) {
	s := x.s
	state := x.signInUnderWay()
	if state == nil || state.Person == nil {
		return nil, errStale
	}
	if state.Link != "" && (x.user == nil || x.user.ID != state.Link) {
		return nil, errStale // somebody else is at the browser by now, or nobody
	}
	n := &newcomer{state: state, provider: s.provider(state.Provider)}
	who := state.Person
	n.page = &console.Confirm{Provider: n.provider.Label(), Email: who.Email, Name: who.Name, Password: passwordLengths}
	if x.user != nil {
		n.page.Kind = console.ConfirmLink
		return n, nil
	}
	if who.Email == "" {
		return n, newFault(http.StatusForbidden, "no_account", errNoAccount.message, n.provider.Label()+" tells no e-mail address of yours that is verified, without which no account can be made")
	}
	u, err := s.opt.Catalog.UserByEmail(who.Email)
	switch {
	case err == nil && !who.Verified:
		// Nobody has shown that the address is theirs, so that nothing is said of who has it.
		return n, errNoAccount
	case err == nil && (s.opt.NoLocalSignIn || u.PasswordHash() == ""):
		n.page.Kind = console.ConfirmElsewhere
		return n, nil
	case err == nil:
		n.page.Kind, n.user = console.ConfirmPassword, u
		return n, nil
	}
	if token, ok := strings.CutPrefix(state.Next, "/invite/"); ok && s.opt.SignUp != SignUpClosed {
		token, _, _ = strings.Cut(token, "?")
		in, ns, err := x.invitation(unescape(token))
		if err == nil && (in.Email == "" || in.Email == who.Email) {
			n.page.Kind, n.page.Namespace, n.page.Role, n.secret = console.ConfirmCreate, ns.Slug, in.Role, unescape(token)
			return n, nil
		}
		if err == nil {
			err = catalog.ErrInvitationEmail
		}
		if s.opt.SignUp != SignUpOpen {
			return n, err
		}
	}
	if s.opt.SignUp != SignUpOpen {
		return n, errNoAccount
	}
	n.page.Kind = console.ConfirmCreate
	return n, nil
}

// showConfirm serves GET /login/confirm.
func (s *Server) showConfirm(x *exchange, _ url.Values) error {
	n, err := x.newcomer()
	if err != nil {
		return x.refuseNewcomer(err)
	}
	return x.sendPage(http.StatusOK, n.page)
}

func (x *exchange) refuseNewcomer(err error) error {
	var f *fault
	if errors.As(err, &f) && f.code == errNoAccount.code {
		x.recordRefusal(nil)
	}
	return x.sendFault(failedSignIn(), err)
}

// answerConfirm serves POST /login/confirm: the page's forms.
func (s *Server) answerConfirm(x *exchange, form url.Values) error {
	n, err := x.newcomer()
	if err != nil {
		return x.refuseNewcomer(err)
	}
	next := n.state.Next
	switch action := form.Get("action"); {
	case action == "link" && n.page.Kind == console.ConfirmLink:
		if err = x.linkNewcomer(n); err == nil {
			next = accountPath
		}
	case action == "signin" && n.page.Kind == console.ConfirmPassword:
		if err = x.signInAs(&signInRequest{Email: n.user.Email, Password: form.Get("password")}); err == nil {
			err = x.linkNewcomer(n)
		}
	case action == "create" && n.page.Kind == console.ConfirmCreate:
		if n.secret != "" {
			next = "" // the invitation is used
		}
		err = x.createNewcomer(n)
	default:
		err = errForm
	}
	if err != nil {
		return x.sendFault(n.page, err)
	}
	// Set-Cookie may have the session's already.
	if err := x.keepSignIn(nil); err != nil {
		return err
	}
	return x.arriveAt(next)
}

// linkNewcomer links who came back to the account that is signed in.
func (x *exchange) linkNewcomer(n *newcomer) error {
	l := catalog.Linking{UserID: x.user.ID, Identity: n.identity(), Session: x.session}
	if n.state.Person.Verified {
		l.VerifiedEmail = n.state.Person.Email
	}
	if !x.s.signIns.use(n.state) {
		return errStale
	}
	_, err := x.s.opt.Catalog.LinkIdentity(x.lasting(x.user), l)
	return linkFault(err)
}

var (
	errLinked   = newFault(http.StatusConflict, "identity_linked", "This sign-in is linked to an account already", "sign in with it, and unlink it there first")
	errManyWays = newFault(http.StatusConflict, "too_many_identities", fmt.Sprintf("An account has at most %d linked sign-ins", catalog.MaxUserIdentities), "unlink one first")
)

// linkFault is what a failure to link means to people, who alone link.
func linkFault(err error) error {
	switch {
	case errors.Is(err, catalog.ErrIdentityLinked):
		return errLinked
	case errors.Is(err, catalog.ErrTooManyUserIdentities):
		return errManyWays
	}
	return err
}

// createNewcomer makes an account for who came back, and signs in.
func (x *exchange) createNewcomer(n *newcomer) error {
	if err := x.admitAttempt(); err != nil {
		return err
	}
	if !x.s.signIns.use(n.state) {
		return errStale
	}
	identity := n.identity()
	user := catalog.NewUser{Email: n.state.Person.Email, EmailVerified: n.state.Person.Verified, Name: n.state.Person.Name, Identity: &identity}
	ctx := x.lasting(nil)
	var err error
	if n.secret != "" {
		_, _, err = x.s.opt.Catalog.AcceptInvitation(ctx, catalog.Acceptance{Secret: n.secret, User: user})
	} else {
		_, err = x.s.opt.Catalog.CreateUser(ctx, user)
	}
	if err != nil {
		return linkFault(err)
	}
	made, err := x.s.opt.Catalog.UserIdentity(ctx, identity.Issuer, identity.Subject)
	if err != nil {
		return err
	}
	return x.signInByIdentity(made, identity.Picture)
}
