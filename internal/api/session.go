package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/wire"
)

// maxAccountBody bounds the bodies of calls about people, in bytes: some of them take one from whoever asks.
const maxAccountBody = 64_000

// accountObject reads the body of a call about people. A member that the call doesn't know is refused: a misspelled role or e-mail
// address must not make more than was meant.
func (x *exchange) accountObject(v any) error {
	if err := x.readUpTo(min(maxAccountBody, x.s.opt.MaxRequest)); err != nil {
		return err
	}
	if len(bytes.TrimSpace(x.body)) == 0 {
		return nil // as good as {}
	}
	if err := wire.DecodeObject(x.body, v); err != nil {
		return err
	}
	return x.strictly(v, true)
}

type signInRequest struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

var errWrongPassword = newFault(http.StatusUnauthorized, codeUnauthorized, "The e-mail address or the password is wrong", "")

// signIn serves POST /api/session.
func (s *Server) signIn(x *exchange) error {
	var req signInRequest
	if err := x.accountObject(&req); err != nil {
		return err
	}
	if err := x.signInAs(&req); err != nil {
		return err
	}
	return x.reply(x.whoAmI())
}

// signInAs checks a password and begins a session.
func (x *exchange) signInAs(req *signInRequest) error {
	if x.s.opt.NoLocalSignIn {
		return errLocalOff
	}
	email, err := catalog.FoldEmail(req.Email)
	if err != nil {
		email = "" // nobody's, and found out to be so in the same time
	}
	u, err := x.s.opt.Catalog.UserByEmail(email)
	if err != nil {
		u = nil
	}
	if err := x.admitSignIn(email, u); err != nil {
		return err
	}
	hash := ""
	if u != nil && u.DisabledAt.IsZero() {
		hash = u.PasswordHash()
	}
	ctx := x.r.Context()
	ok, outdated, err := x.s.passwords.Verify(ctx, hash, req.Password)
	if err != nil {
		return err
	}
	if !ok {
		x.recordRefusal(u)
		return errWrongPassword
	}
	if outdated {
		// A hashing that must not be now is done at the next sign-in.
		if better, err := x.s.passwords.Hash(ctx, req.Password); err == nil && x.s.opt.Catalog.Rehash(ctx, u.ID, hash, better) == nil {
			// Unless the password was reset meanwhile, which this one must not pass for.
			if now, err := x.s.opt.Catalog.User(u.ID); err == nil && now.PasswordHash() == better {
				hash = better
			}
		}
	}
	return x.beginSession(u, hash)
}

// recordRefusal notes a failed sign-in, unless there are more of them than are worth a log that is kept for good.
func (x *exchange) recordRefusal(u *catalog.User) {
	if x.s.refusals.try("") > 0 {
		return
	}
	ctx := context.WithoutCancel(x.r.Context())
	if err := x.s.opt.Catalog.RecordRefusal(x.actingAs(ctx, nil), u); err != nil {
		x.s.log.Error("write audit log", "action", "session.refused", "error", err)
	}
}

// beginSession signs a user in whose password fits that hash. A session that the request has already ends: its cookie may have been put there by
// somebody who knows it.
func (x *exchange) beginSession(u *catalog.User, hash string) error {
	return x.begin(u, catalog.NewSession{UserID: u.ID, PasswordHash: hash})
}

// begin begins a session, of a user who has just shown to be who it is.
func (x *exchange) begin(u *catalog.User, n catalog.NewSession) error {
	s := x.s
	ctx := x.actingAs(context.WithoutCancel(x.r.Context()), u)
	if err := s.ensureHome(ctx, u); err != nil {
		return err
	}
	n.Former, _ = s.sessionOf(x.r)
	n.Address = addressName(s.clientAddress(x.r))
	session, secret, err := s.opt.Catalog.CreateSession(ctx, n)
	if errors.Is(err, catalog.ErrUserNotFound) && n.Identity != nil {
		return errNoAccount
	}
	if errors.Is(err, catalog.ErrUserNotFound) {
		return errWrongPassword // it was right a moment ago
	}
	if err != nil {
		return err
	}
	x.session = session
	if x.user, err = s.opt.Catalog.User(u.ID); err != nil {
		return err
	}
	x.setCookie(secret, session)
	return nil
}

// actingAs is a context that says who acts, for the audit log: a user, or nobody that is known.
func (x *exchange) actingAs(ctx context.Context, u *catalog.User) context.Context {
	a := catalog.Actor{Type: catalog.ActorAnonymous}
	if u != nil {
		a = catalog.Actor{Type: catalog.ActorUser, ID: u.ID}
	}
	if address := x.s.clientAddress(x.r); address.IsValid() {
		a.Address = address.String()
	}
	return catalog.WithActor(ctx, a)
}

// homeDatabase is the database that a person's own namespace begins with.
const homeDatabase = "main"

// ensureHome makes a person's own namespace at the first sign-in: the database's file first, then all names at once, so that no
// crash and no race leaves half of it, or two.
func (s *Server) ensureHome(ctx context.Context, u *catalog.User) error {
	if !u.HomeAt.IsZero() {
		return nil
	}
	n := catalog.NewHome{UserID: u.ID, Slug: homeSlug(u.Email), DatabaseID: catalog.NewID("db"), Database: homeDatabase}
	owner, err := s.opt.Placement.Owner(ctx, n.DatabaseID)
	if err != nil {
		return err
	}
	if err := owner.Create(ctx, n.DatabaseID); err != nil {
		return err
	}
	made, err := s.opt.Catalog.CreateHome(ctx, n)
	if err != nil || !made {
		if derr := owner.Delete(ctx, n.DatabaseID); derr != nil {
			s.log.Warn("a database's file without a name was left behind", "database", n.DatabaseID, "error", derr)
		}
	}
	return err
}

// homeSlug is the slug that a person's namespace should have: the part of the e-mail address before the @.
func homeSlug(email string) string {
	local, _, _ := strings.Cut(email, "@")
	slug := slugOf(local)
	if slug == "" {
		return "user"
	}
	if reservedNamespace(slug) {
		return "user-" + slug
	}
	return slug
}

type sessionInfo struct {
	User       userInfo         `json:"user"`
	Session    sessionTimes     `json:"session"`
	Namespaces []membershipInfo `json:"namespaces"`
}

type userInfo struct {
	ID            string `json:"id"`
	Email         string `json:"email"`
	Name          string `json:"name"`
	EmailVerified bool   `json:"emailVerified"`
	CreatedAt     string `json:"createdAt"`
}

type sessionTimes struct {
	ID         string `json:"id"`
	CreatedAt  string `json:"createdAt"`
	IdleEndsAt string `json:"idleEndsAt"`
	ExpiresAt  string `json:"expiresAt"`
	Others     int    `json:"others"` // of the same user
}

type membershipInfo struct {
	ID        string `json:"id"`
	Slug      string `json:"slug"`
	Role      string `json:"role"`
	CreatedAt string `json:"createdAt"`
}

func infoOfUser(u *catalog.User) userInfo {
	return userInfo{ID: u.ID, Email: u.Email, Name: u.Name, EmailVerified: u.EmailVerified, CreatedAt: u.CreatedAt.Format(timeFormat)}
}

func infoOfMembership(m catalog.Membership) membershipInfo {
	return membershipInfo{ID: m.ID, Slug: m.Slug, Role: m.Role, CreatedAt: m.CreatedAt.Format(timeFormat)}
}

func (x *exchange) whoAmI() sessionInfo {
	c := x.s.opt.Catalog
	idle, last := c.SessionEnds(x.session)
	others := 0
	for _, session := range c.Sessions(x.user.ID) {
		if session != x.session {
			others++
		}
	}
	return sessionInfo{User: infoOfUser(x.user), Namespaces: membershipsOf(c, x.user),
		Session: sessionTimes{x.session.ID, x.session.CreatedAt.Format(timeFormat), idle.Format(timeFormat), last.Format(timeFormat), others}}
}

func membershipsOf(c *catalog.Catalog, u *catalog.User) []membershipInfo {
	list := []membershipInfo{}
	for _, m := range c.Memberships(u.ID) {
		list = append(list, infoOfMembership(m))
	}
	return list
}

// getSession serves GET /api/session.
func (s *Server) getSession(x *exchange) error { return x.reply(x.whoAmI()) }

// signOut serves DELETE /api/session.
func (s *Server) signOut(x *exchange) error {
	if err := s.opt.Catalog.EndSession(x.acting(context.WithoutCancel(x.r.Context())), x.session); err != nil {
		return err
	}
	x.setCookie("", nil)
	return x.reply(struct {
		Ended int `json:"ended"`
	}{1})
}

// signOutEverywhere serves DELETE /api/sessions.
func (s *Server) signOutEverywhere(x *exchange) error {
	n, err := s.opt.Catalog.EndSessions(x.acting(context.WithoutCancel(x.r.Context())), x.user.ID)
	if err != nil {
		return err
	}
	x.setCookie("", nil)
	return x.reply(struct {
		Ended int `json:"ended"`
	}{n})
}
