package api

import (
	"context"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/persqld/persqld/internal/console"
	"github.com/persqld/persqld/internal/password"
)

// The pages for people: signing in and up, and out. Their forms need no script, and no token of their own (see sameSite).

// pageHandler serves a page; form is what was sent with a POST, else nil. Its failure is a page too.
type pageHandler func(x *exchange, form url.Values) error

var errForm = newFault(http.StatusBadRequest, codeBadRequest, "This is not the form of this page", "")

// passwordLengths are what forms say of a password.
var passwordLengths = console.Lengths{Min: password.MinLength, Max: password.MaxLength}

// page is the way in of every page: the bound of the address, then the form, then who is signed in.
func (s *Server) page(h pageHandler) handler {
	return func(x *exchange) error {
		err := s.flood.admit(x)
		var form url.Values
		if err == nil && x.r.Method == http.MethodPost {
			form, err = x.form()
		}
		if err == nil {
			// After the form has come: a session that ended meanwhile must not count.
			x.session, x.user = s.sessionOf(x.r)
			err = h(x, form)
		}
		if err == nil {
			return nil
		}
		return x.sendFault(&console.Message{}, err)
	}
}

// form reads the form that was sent, unless a page of another site had it sent.
func (x *exchange) form() (url.Values, error) {
	if err := x.sameSite(); err != nil {
		return nil, err
	}
	if media, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return nil, errForm
	}
	if err := x.readUpTo(min(maxAccountBody, x.s.opt.MaxRequest)); err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(x.body))
	if err != nil {
		return nil, errForm
	}
	return form, nil
}

// pageHeaders are on everything that a browser gets as a page, or on the way to one. The addresses of some pages are secrets, so that no other site may
// learn of any; and none may show one in a frame.
func (x *exchange) pageHeaders() http.Header {
	h := x.w.Header()
	h["X-Request-Id"] = []string{x.id}
	h["Cache-Control"] = noStore
	h["Content-Security-Policy"] = []string{x.policy()}
	h["Referrer-Policy"] = []string{"no-referrer"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["X-Frame-Options"] = []string{"DENY"}
	return h
}

// sendPage sends a page with a status.
func (x *exchange) sendPage(status int, p console.Page) error {
	if x.user != nil {
		p.Framed().SignedIn = x.user.Email
	}
	b, err := console.Render(p)
	if err != nil {
		return err
	}
	x.pageHeaders()["Content-Type"] = []string{"text/html; charset=utf-8"}
	x.sent, x.status = true, status
	x.w.WriteHeader(status)
	// A client that left is no failure of ours.
	_, _ = x.w.Write(b)
	return nil
}

// sendFault sends a page with what went wrong. A message that has no title gets one.
func (x *exchange) sendFault(p console.Page, err error) error {
	f := x.s.faultOf(err)
	frame := p.Framed()
	frame.Problem, frame.Hint = f.message, f.hint
	if m, ok := p.(*console.Message); ok && m.Title == "" {
		m.Title = faultTitle(f.status)
	}
	h := x.w.Header()
	if f.retry > 0 {
		h["Retry-After"] = retryAfter(f.retry)
	}
	if f.status == http.StatusUnauthorized {
		h["Www-Authenticate"] = cookieChallenge
	}
	if f.status == statusClientGone {
		return x.sendPage(http.StatusBadRequest, p) // nobody reads it
	}
	return x.sendPage(f.status, p)
}

func faultTitle(status int) string {
	switch {
	case status == http.StatusNotFound:
		return "Not found"
	case status == http.StatusForbidden:
		return "Not allowed"
	case status == http.StatusTooManyRequests:
		return "Too many requests"
	case status >= http.StatusInternalServerError:
		return "That failed"
	}
	return "That didn't work"
}

// goTo sends the browser to another page of this server; after a form was sent, so that to reload sends it not again.
func (x *exchange) goTo(path string) error {
	x.pageHeaders()["Location"] = []string{path}
	x.sent, x.status = true, http.StatusSeeOther
	x.w.WriteHeader(http.StatusSeeOther)
	return nil
}

const (
	signInPath  = "/login"
	signUpPath  = "/signup"
	maxNextPath = 8_000 // bytes: an app's whole request goes along with a sign-in
)

// localPath is where a person is to be sent after signing in, if that is a path of this server, else "". A browser takes // and \ for the beginning of another
// server's address, and leaves tabs and line breaks out before it looks.
func localPath(next string) string {
	if len(next) > maxNextPath || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.Contains(next, `\`) {
		return ""
	}
	for i := range len(next) {
		if next[i] <= ' ' || next[i] >= 0x7f {
			return ""
		}
	}
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" {
		return ""
	}
	switch u.Path {
	case signInPath, signUpPath, "/logout":
		return "" // round and round
	}
	if strings.HasPrefix(u.Path, signInPath+"/") {
		return "" // likewise: what begins and ends sign-ins
	}
	return next
}

// nextPath is the place that the request's address names to go on to, or "".
func (x *exchange) nextPath() string { return localPath(x.r.URL.Query().Get("next")) }

// onward is the address of a page that goes on to next.
func onward(path, next string) string {
	if next == "" {
		return path
	}
	return path + "?next=" + url.QueryEscape(next)
}

// signInFirst sends somebody to sign in who is to come back to the page that was asked for.
func (x *exchange) signInFirst() error {
	return x.goTo(onward(signInPath, localPath(x.r.URL.EscapedPath())))
}

// arrive sends somebody on who has signed in, or is.
func (x *exchange) arrive() error {
	if next := x.nextPath(); next != "" {
		return x.goTo(next)
	}
	return x.goTo(signInPath)
}

func (x *exchange) signInPage() *console.SignIn {
	next := x.nextPath()
	p := &console.SignIn{Password: passwordLengths, Onward: next != "", Email: x.loginHint(), Providers: x.s.providerLinks(next), NoPassword: x.s.opt.NoLocalSignIn}
	if x.s.opt.SignUp == SignUpOpen {
		p.SignUpURL = onward(signUpPath, next)
	}
	return p
}

// showSignIn serves GET /login. To somebody who is signed in it says so.
func (s *Server) showSignIn(x *exchange, _ url.Values) error {
	if x.user == nil || x.r.URL.Query().Has(againParam) {
		return x.sendPage(http.StatusOK, x.signInPage())
	}
	if x.nextPath() != "" {
		return x.arrive()
	}
	p := &console.Home{}
	for _, m := range s.opt.Catalog.Memberships(x.user.ID) {
		p.Places = append(p.Places, console.Place{Slug: m.Slug, Role: m.Role})
	}
	return x.sendPage(http.StatusOK, p)
}

// answerSignIn serves POST /login.
func (s *Server) answerSignIn(x *exchange, form url.Values) error {
	if err := x.signInAs(&signInRequest{Email: form.Get("email"), Password: form.Get("password")}); err != nil {
		p := x.signInPage()
		p.Email = form.Get("email")
		x.user = nil // whoever was signed in before isn't who this page is for
		return x.sendFault(p, err)
	}
	return x.arrive()
}

// answerSignOut serves POST /logout. It is done also where nobody is signed in.
func (s *Server) answerSignOut(x *exchange, _ url.Values) error {
	if x.session != nil {
		if err := s.opt.Catalog.EndSession(x.acting(context.WithoutCancel(x.r.Context())), x.session); err != nil {
			return err
		}
	}
	x.session, x.user = nil, nil
	x.setCookie("", nil)
	return x.sendPage(http.StatusOK, console.SignedOut())
}

func (x *exchange) signUpPage() *console.SignUp {
	next := x.nextPath()
	return &console.SignUp{Password: passwordLengths, SignInURL: onward(signInPath, next), Providers: x.s.providerLinks(next), NoPassword: x.s.opt.NoLocalSignIn}
}

// showSignUp serves GET /signup. Who has an invitation makes an account on that one's page.
func (s *Server) showSignUp(x *exchange, _ url.Values) error {
	if x.user != nil {
		return x.arrive()
	}
	if s.opt.SignUp != SignUpOpen {
		return errSignUpClosed
	}
	return x.sendPage(http.StatusOK, x.signUpPage())
}

// answerSignUp serves POST /signup.
func (s *Server) answerSignUp(x *exchange, form url.Values) error {
	if s.opt.SignUp != SignUpOpen {
		return errSignUpClosed
	}
	if err := x.signUpAs(&signUpRequest{Email: form.Get("email"), Password: form.Get("password"), Name: form.Get("name")}); err != nil {
		p := x.signUpPage()
		p.Email, p.Name = form.Get("email"), form.Get("name")
		return x.sendFault(p, err)
	}
	return x.arrive()
}
