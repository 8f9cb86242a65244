package api

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/password"
)

// The page of an invitation: rendered here, without scripts, and usable by keyboard, on a phone, in light and dark.

//go:embed invite.css
var inviteStyle string

//go:embed invite.html
var inviteHTML string

var invitePage = template.Must(template.New("invite").Parse(inviteHTML))

// invitePolicy lets the page have its one style sheet, send its forms to this server, and nothing else.
var invitePolicy = func() string {
	sum := sha256.Sum256([]byte(inviteStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

// invitationPage is what the page shows.
type invitationPage struct {
	Style     template.CSS
	Title     string
	Namespace string
	Role      string
	For       string // the e-mail address that it is for
	ExpiresAt string
	SignedIn  string // the e-mail address of who is signed in
	SignUp    bool   // an account can be made
	Open      bool   // it can be accepted
	Accepted  bool
	Problem   string
	Hint      string
	Email     string // as it was sent, when a form is shown again
	Name      string
	MinLength int
	MaxLength int
}

// sendPage sends the page with a status.
func (x *exchange) sendPage(status int, p *invitationPage) error {
	p.Style = template.CSS(inviteStyle)
	p.MinLength, p.MaxLength = password.MinLength, password.MaxLength
	var b bytes.Buffer
	if err := invitePage.Execute(&b, p); err != nil {
		return err
	}
	h := x.w.Header()
	h["Content-Type"] = []string{"text/html; charset=utf-8"}
	h["X-Request-Id"] = []string{x.id}
	h["Cache-Control"] = noStore
	h["Content-Security-Policy"] = []string{invitePolicy}
	h["Referrer-Policy"] = []string{"no-referrer"} // the address is the secret
	h["X-Content-Type-Options"] = []string{"nosniff"}
	x.sent, x.status = true, status
	x.w.WriteHeader(status)
	// A client that left is no failure of ours.
	_, _ = x.w.Write(b.Bytes())
	return nil
}

// look finds out what the page shows of an invitation.
func (x *exchange) look(secret string) (*invitationPage, error) {
	in, ns, err := x.invitation(secret)
	if err != nil {
		return &invitationPage{Title: "Invitation"}, err
	}
	p := &invitationPage{Title: "Join " + ns.Slug, Namespace: ns.Slug, Role: in.Role, For: in.Email, Email: in.Email, Open: true,
		ExpiresAt: in.ExpiresAt.Format(time.RFC1123), SignUp: x.s.opt.SignUp != SignUpClosed}
	if x.user != nil {
		p.SignedIn = x.user.Email
	}
	return p, nil
}

// showInvitation serves GET /invite/:token.
func (s *Server) showInvitation(x *exchange) error {
	x.session, x.user = s.sessionOf(x.r)
	p, err := x.look(unescape(x.param("token")))
	return x.invitePage(p, err)
}

// invitePage sends the page, with what went wrong if something did.
func (x *exchange) invitePage(p *invitationPage, err error) error {
	status := http.StatusOK
	if err != nil {
		f := x.s.faultOf(err)
		status, p.Problem, p.Hint = f.status, f.message, f.hint
		h := x.w.Header()
		if f.retry > 0 {
			h["Retry-After"] = retryAfter(f.retry)
		}
		if f.status == http.StatusUnauthorized {
			h["Www-Authenticate"] = cookieChallenge
		}
	}
	return x.sendPage(status, p)
}

var errForm = newFault(http.StatusBadRequest, codeBadRequest, "This is not the form of this page", "")

// answerInvitation serves POST /invite/:token: the page's forms.
func (s *Server) answerInvitation(x *exchange) error {
	secret := unescape(x.param("token"))
	blank := &invitationPage{Title: "Invitation"}
	if err := x.sameSite(); err != nil {
		return x.invitePage(blank, err)
	}
	if media, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return x.invitePage(blank, errForm)
	}
	if err := x.readUpTo(min(maxAccountBody, s.opt.MaxRequest)); err != nil {
		return x.invitePage(blank, err)
	}
	form, err := url.ParseQuery(string(x.body))
	if err != nil {
		return x.invitePage(blank, errForm)
	}
	x.session, x.user = s.sessionOf(x.r)
	p, err := x.look(secret)
	if err != nil {
		return x.invitePage(p, err)
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
			p.SignedIn = x.user.Email
			m, err = x.acceptAsUser(secret)
		}
	case action == "signup":
		if m, err = x.acceptAsNew(secret, &signUpRequest{Email: form.Get("email"), Password: form.Get("password"), Name: form.Get("name")}); err == nil {
			p.SignedIn = x.user.Email
		}
	default:
		err = errForm
	}
	if err == nil {
		p.Accepted, p.Open, p.Role = true, false, m.Role
		p.Title = "You joined " + strings.TrimSpace(m.Slug)
	}
	return x.invitePage(p, err)
}
