package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

const (
	invitationTime    = 7 * 24 * 3600  // seconds that an invitation lasts,
	maxInvitationTime = 30 * 24 * 3600 // and can last
)

type invitationRequest struct {
	Role      string   `json:"role"`
	Email     string   `json:"email"`
	ExpiresIn *float64 `json:"expiresIn"`
}

type invitationInfo struct {
	ID        string  `json:"id"`
	Role      string  `json:"role"`
	Email     *string `json:"email"`
	InvitedBy *string `json:"invitedBy"`
	CreatedAt string  `json:"createdAt"`
	ExpiresAt string  `json:"expiresAt"`
	Token     string  `json:"token,omitempty"`
	URL       string  `json:"url,omitempty"`
}

func infoOfInvitation(in *catalog.Invitation) invitationInfo {
	optional := func(v string) *string {
		if v == "" {
			return nil
		}
		return &v
	}
	return invitationInfo{ID: in.ID, Role: in.Role, Email: optional(in.Email), InvitedBy: optional(in.InvitedBy),
		CreatedAt: in.CreatedAt.Format(timeFormat), ExpiresAt: in.ExpiresAt.Format(timeFormat)}
}

// InvitationURL is the link of an invitation's token.
func InvitationURL(baseURL, token string) string {
	return strings.TrimRight(baseURL, "/") + "/invite/" + token
}

// createInvitation serves POST /api/namespaces/:ns/invitations.
func (s *Server) createInvitation(x *exchange) error {
	var req invitationRequest
	if err := x.accountObject(&req); err != nil {
		return err
	}
	if err := x.needAdmin("POST …/invitations"); err != nil {
		return err
	}
	seconds := float64(invitationTime)
	if req.ExpiresIn != nil {
		seconds = *req.ExpiresIn
	}
	expires, err := s.expiry(seconds, 1, maxInvitationTime)
	if err != nil {
		return err
	}
	in, secret, err := s.opt.Catalog.CreateInvitation(x.acting(x.r.Context()), catalog.NewInvitation{NamespaceID: x.membership.ID, Role: req.Role, Email: req.Email,
		InvitedBy: x.user.ID, ExpiresAt: expires})
	if err != nil {
		return memberFault(err)
	}
	info := infoOfInvitation(in)
	info.Token, info.URL = secret, InvitationURL(s.opt.BaseURL, secret)
	return x.reply(info)
}

// listInvitations serves GET /api/namespaces/:ns/invitations: those that are open.
func (s *Server) listInvitations(x *exchange) error {
	if err := x.needAdmin("GET …/invitations"); err != nil {
		return err
	}
	open, err := s.opt.Catalog.Invitations(x.r.Context(), x.membership.ID)
	if err != nil {
		return err
	}
	list := []invitationInfo{}
	for _, in := range open {
		list = append(list, infoOfInvitation(in))
	}
	return x.reply(list)
}

// revokeInvitation serves DELETE /api/namespaces/:ns/invitations/:id.
func (s *Server) revokeInvitation(x *exchange) error {
	if err := s.opt.Catalog.RevokeInvitation(x.acting(x.r.Context()), x.membership.ID, x.user.ID, unescape(x.param("id"))); err != nil {
		return err
	}
	return x.reply(struct {
		Revoked bool `json:"revoked"`
	}{true})
}

// acceptInvitation serves POST /api/invitations/:token/accept: for the person who is signed in or, without a session, for a new one.
func (s *Server) acceptInvitation(x *exchange) error {
	var req signUpRequest
	if err := x.accountObject(&req); err != nil {
		return err
	}
	secret := unescape(x.param("token"))
	x.session, x.user = s.sessionOf(x.r)
	var err error
	if x.user != nil {
		if req != (signUpRequest{}) {
			return newFault(http.StatusBadRequest, codeBadRequest, "Somebody is signed in already: the body has to be empty", "DELETE /api/session first, to accept as somebody else")
		}
		_, err = x.acceptAsUser(secret)
	} else {
		_, err = x.acceptAsNew(secret, &req)
	}
	if err != nil {
		return err
	}
	return x.reply(x.whoAmI())
}

// acceptAsUser makes the person who is signed in a member.
func (x *exchange) acceptAsUser(secret string) (catalog.Membership, error) {
	if err := x.admitAttempt(); err != nil {
		return catalog.Membership{}, err
	}
	_, m, err := x.s.opt.Catalog.AcceptInvitation(x.actingAs(context.WithoutCancel(x.r.Context()), x.user), catalog.Acceptance{Secret: secret, UserID: x.user.ID})
	return m, err
}

// acceptAsNew makes a new person a member, and signs in.
func (x *exchange) acceptAsNew(secret string, req *signUpRequest) (m catalog.Membership, err error) {
	// Without a good invitation nobody learns whether there is an account, nor has a password hashed.
	in, _, err := x.invitation(secret)
	if err != nil {
		return m, err
	}
	if x.s.opt.SignUp == SignUpClosed {
		return m, errSignUpClosed
	}
	if email, err := catalog.FoldEmail(req.Email); in.Email != "" && err == nil && email != in.Email {
		return m, catalog.ErrInvitationEmail
	}
	n, err := x.newUser(req)
	if err != nil {
		return m, err
	}
	u, m, err := x.s.opt.Catalog.AcceptInvitation(x.actingAs(context.WithoutCancel(x.r.Context()), nil), catalog.Acceptance{Secret: secret, User: n})
	if err != nil {
		return m, err
	}
	return m, x.beginSession(u, n.PasswordHash)
}

// invitation looks for an open invitation, as often as an address may.
func (x *exchange) invitation(secret string) (*catalog.Invitation, catalog.Namespace, error) {
	in, ns, err := x.s.opt.Catalog.Invitation(x.r.Context(), secret)
	if errors.Is(err, catalog.ErrInvitationNotFound) {
		if limited := x.admitAttempt(); limited != nil {
			err = limited
		}
	}
	return in, ns, err
}

// firstInvitation is how long the sign-up link of the first start works.
const firstInvitation = 7 * 24 * time.Hour

// FirstInvitation is the link by which the first person becomes the owner of a namespace.
func FirstInvitation(ctx context.Context, c *catalog.Catalog, ns catalog.Namespace, baseURL string, now time.Time) (url string, err error) {
	_, secret, err := c.CreateInvitation(ctx, catalog.NewInvitation{NamespaceID: ns.ID, Role: catalog.MemberOwner, ExpiresAt: now.Add(firstInvitation)})
	if err != nil {
		return "", err
	}
	return InvitationURL(baseURL, secret), nil
}
