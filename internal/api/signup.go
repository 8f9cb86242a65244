package api

import (
	"context"
	"net/http"

	"github.com/persqld/persqld/internal/catalog"
)

// The words of PERSQLD_SIGNUP: who may make an account.
const (
	SignUpOpen   = "open"   // anybody
	SignUpInvite = "invite" // who has an invitation
	SignUpClosed = "closed" // the operator alone
)

type signUpRequest struct {
	Email    string `json:"email"`
	Password string `json:"password"`
	Name     string `json:"name"`
}

var errSignUpClosed = newFault(http.StatusForbidden, "signup_closed", "Accounts are made by the operator here", "ask for persqld user create, or for an invitation where the server takes them (PERSQLD_SIGNUP)")

// signUp serves POST /api/signup.
func (s *Server) signUp(x *exchange) error {
	var req signUpRequest
	if err := x.accountObject(&req); err != nil {
		return err
	}
	if s.opt.SignUp != SignUpOpen {
		return errSignUpClosed
	}
	if err := x.signUpAs(&req); err != nil {
		return err
	}
	return x.reply(x.whoAmI())
}

// signUpAs makes an account, and signs in.
func (x *exchange) signUpAs(req *signUpRequest) error {
	n, err := x.newUser(req)
	if err != nil {
		return err
	}
	u, err := x.s.opt.Catalog.CreateUser(x.actingAs(context.WithoutCancel(x.r.Context()), nil), n)
	if err != nil {
		return err
	}
	return x.beginSession(u, n.PasswordHash)
}

// newUser is the user that a request asks for, with the password hashed. What can be refused without that work is.
func (x *exchange) newUser(req *signUpRequest) (n catalog.NewUser, err error) {
	if x.s.opt.NoLocalSignIn {
		return n, errLocalOff
	}
	if err := x.admitAttempt(); err != nil {
		return n, err
	}
	email, err := catalog.FoldEmail(req.Email)
	if err != nil {
		return n, err
	}
	if _, err := x.s.opt.Catalog.UserByEmail(email); err == nil {
		return n, catalog.ErrUserExists
	}
	hash, err := x.s.passwords.Hash(x.r.Context(), req.Password)
	if err != nil {
		return n, err
	}
	return catalog.NewUser{Email: email, Name: req.Name, PasswordHash: hash}, nil
}
