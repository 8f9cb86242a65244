package api

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/console"
)

// look finds out what the page shows of an invitation.
func (x *exchange) look(secret string) (*console.Invitation, error) {
	in, ns, err := x.invitation(secret)
	if err != nil {
		return &console.Invitation{Title: "Invitation"}, err
	}
	return &console.Invitation{Title: "Join " + ns.Slug, Namespace: ns.Slug, Role: in.Role, For: in.Email, Email: in.Email, Open: true,
		ExpiresAt: in.ExpiresAt, CanSignUp: x.s.opt.SignUp != SignUpClosed, Password: passwordLengths,
		Providers: x.s.providerLinks(localPath("/invite/" + secret)), NoPassword: x.s.opt.NoLocalSignIn}, nil
}

// invitationPage sends the page, with what went wrong if something did.
func (x *exchange) invitationPage(p *console.Invitation, err error) error {
	if err != nil {
		return x.sendFault(p, err)
	}
	return x.sendPage(http.StatusOK, p)
}

// showInvitation serves GET /invite/:token.
func (s *Server) showInvitation(x *exchange, _ url.Values) error {
	return x.invitationPage(x.look(unescape(x.param("token"))))
}

// answerInvitation serves POST /invite/:token: the page's forms.
func (s *Server) answerInvitation(x *exchange, form url.Values) error {
	secret := unescape(x.param("token"))
	p, err := x.look(secret)
	if err != nil {
		return x.invitationPage(p, err)
	}
	p.Email, p.Name = form.Get("email"), form.Get("name")
	var m catalog.Membership
	switch action := form.Get("action"); {
	case action == "accept" && x.user != nil:
		m, err = x.acceptAsUser(secret)
	case action == "accept":
		err = errSignedOut
	case action == "signin":
		if err = x.signInAs(&signInRequest{Email: form.Get("email"), Password: form.Get("password")}); err == nil {
			m, err = x.acceptAsUser(secret)
		}
	case action == "signup":
		m, err = x.acceptAsNew(secret, &signUpRequest{Email: form.Get("email"), Password: form.Get("password"), Name: form.Get("name")})
	default:
		err = errForm
	}
	if err == nil {
		p.Accepted, p.Open, p.Role = true, false, m.Role
		p.Title = "You joined " + strings.TrimSpace(m.Slug)
	}
	return x.invitationPage(p, err)
}
