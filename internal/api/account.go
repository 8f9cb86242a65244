package api

import (
	"net/http"
	"net/url"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/console"
)

// The page of a person's own account, and its calls for programs.

// accountOf is the page of who is signed in.
func (x *exchange) accountOf() (*console.Account, error) {
	s := x.s
	linked, err := s.opt.Catalog.UserIdentities(x.r.Context(), x.user.ID)
	if err != nil {
		return nil, err
	}
	p := &console.Account{Name: x.user.Name, Email: x.user.Email, EmailVerified: x.user.EmailVerified, Since: x.session.CreatedAt, Others: x.whoAmI().Session.Others,
		HasPassword: x.user.PasswordHash() != "", TakesPasswords: !s.opt.NoLocalSignIn, Password: passwordLengths}
	for _, m := range s.opt.Catalog.Memberships(x.user.ID) {
		p.Places = append(p.Places, console.Place{Slug: m.Slug, Role: m.Role})
	}
	for _, i := range linked {
		label := i.Issuer
		if of := s.providerOf(i.Issuer); of != nil {
			label = of.Label()
		}
		p.Linked = append(p.Linked, console.LinkedSignIn{ID: i.ID, Provider: label, Name: i.Name, At: i.LinkedAt})
	}
	for _, of := range s.opt.Providers {
		p.Linkable = append(p.Linkable, console.Link{URL: signInPath + "/" + of.Name() + "?link", Text: of.Label()})
	}
	return p, nil
}

// showAccount serves GET /account.
func (s *Server) showAccount(x *exchange, _ url.Values) error {
	if x.user == nil {
		return x.signInFirst()
	}
	p, err := x.accountOf()
	if err != nil {
		return err
	}
	return x.sendPage(http.StatusOK, p)
}

// answerAccount serves POST /account: the page's forms.
func (s *Server) answerAccount(x *exchange, form url.Values) error {
	if x.user == nil {
		return x.sendFault(&console.Message{Title: "You are not signed in", Link: beginAgain}, errSignedOut)
	}
	var err error
	switch {
	case form.Get("action") == "everywhere":
		if _, err = s.opt.Catalog.EndSessions(x.lasting(x.user), x.user.ID); err == nil {
			x.session, x.user = nil, nil
			x.setCookie("", nil)
			return x.sendPage(http.StatusOK, console.SignedOutEverywhere())
		}
	case form.Get("action") == "password":
		err = x.changePassword(form.Get("current"), form.Get("password"))
	case form.Get("unlink") != "":
		_, err = s.opt.Catalog.UnlinkIdentity(x.lasting(x.user), x.user.ID, form.Get("unlink"), s.ways())
	default:
		err = errForm
	}
	if err == nil {
		return x.goTo(accountPath)
	}
	p, perr := x.accountOf()
	if perr != nil {
		return perr
	}
	return x.sendFault(p, err)
}

var errWrongCurrent = newFault(http.StatusForbidden, "wrong_password", "The current password is wrong", "")

// changePassword gives who is signed in another password, or the first one. Other sessions end.
func (x *exchange) changePassword(current, password string) error {
	if x.s.opt.NoLocalSignIn {
		return errLocalOff
	}
	if err := x.admitSignIn(x.user.Email, x.user); err != nil {
		return err
	}
	ctx := x.r.Context()
	former := x.user.PasswordHash()
	if former != "" {
		ok, _, err := x.s.passwords.Verify(ctx, former, current)
		if err != nil {
			return err
		}
		if !ok {
			x.recordRefusal(x.user)
			return errWrongCurrent
		}
	}
	hash, err := x.s.passwords.Hash(ctx, password)
	if err != nil {
		return err
	}
	_, err = x.s.opt.Catalog.ChangePassword(x.lasting(x.user), x.session, former, hash)
	return err
}

type identityInfo struct {
	ID       string  `json:"id"`
	Provider *string `json:"provider"` // null for one that the server has no longer
	Issuer   string  `json:"issuer"`
	Name     string  `json:"name"`
	LinkedAt string  `json:"linkedAt"`
}

// listIdentities serves GET /api/identities: how the user can sign in beside a password.
func (s *Server) listIdentities(x *exchange) error {
	linked, err := s.opt.Catalog.UserIdentities(x.r.Context(), x.user.ID)
	if err != nil {
		return err
	}
	list := []identityInfo{}
	for _, i := range linked {
		info := identityInfo{ID: i.ID, Issuer: i.Issuer, Name: i.Name, LinkedAt: i.LinkedAt.Format(timeFormat)}
		if of := s.providerOf(i.Issuer); of != nil {
			name := of.Name()
			info.Provider = &name
		}
		list = append(list, info)
	}
	return x.reply(list)
}

// unlinkIdentity serves DELETE /api/identities/:id.
func (s *Server) unlinkIdentity(x *exchange) error {
	if _, err := s.opt.Catalog.UnlinkIdentity(x.lasting(x.user), x.user.ID, unescape(x.param("id")), s.ways()); err != nil {
		return err
	}
	return x.reply(struct {
		Unlinked bool `json:"unlinked"`
	}{true})
}

// resetPage finds out what the page of a link shows.
func (x *exchange) resetPage(secret string) (*console.Reset, *catalog.User, error) {
	p := &console.Reset{Password: passwordLengths}
	if x.s.opt.NoLocalSignIn {
		return p, nil, errLocalOff
	}
	u, err := x.s.opt.Catalog.Reset(x.r.Context(), secret)
	if err != nil {
		if limited := x.admitAttempt(); limited != nil {
			err = limited
		}
		return p, nil, err
	}
	p.Email, p.Open = u.Email, true
	return p, u, nil
}

// showReset serves GET /reset/:token. To look at it changes nothing.
func (s *Server) showReset(x *exchange, _ url.Values) error {
	p, _, err := x.resetPage(unescape(x.param("token")))
	if err != nil {
		return x.sendFault(p, err)
	}
	return x.sendPage(http.StatusOK, p)
}

// answerReset serves POST /reset/:token. It signs nobody in: who has the link may not be at the person's own browser.
func (s *Server) answerReset(x *exchange, form url.Values) error {
	secret := unescape(x.param("token"))
	p, _, err := x.resetPage(secret)
	if err == nil {
		err = x.admitAttempt()
	}
	hash := ""
	if err == nil {
		hash, err = s.passwords.Hash(x.r.Context(), form.Get("password"))
	}
	if err == nil {
		var u *catalog.User
		if u, _, err = s.opt.Catalog.UseReset(x.lasting(nil), secret, hash); err == nil {
			if x.user != nil && x.user.ID == u.ID {
				x.session, x.user = nil, nil
				x.setCookie("", nil)
			}
			return x.sendPage(http.StatusOK, console.PasswordSet(u.Email))
		}
		p.Open = false
	}
	return x.sendFault(p, err)
}
