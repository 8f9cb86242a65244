package api

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/persqld/persqld/internal/catalog"
)

// entry says who may come in by a route.
type entry uint8

const (
	entryOpen     entry = iota // whoever asks
	entryBearer                // a token: /v1
	entryPublic                // whoever asks, but no page of another site: signing in and up
	entrySession               // a person who is signed in
	entryMember                // a member of the namespace in the path
	entryListener              // a token, which a browser may also send as a subprotocol or in the query: it can set no header
)

var (
	errSignedOut   = newFault(http.StatusUnauthorized, codeUnauthorized, "Not signed in, or no longer", "POST /api/session signs in; tokens open /v1 only")
	errCrossSite   = newFault(http.StatusForbidden, codeForbidden, "A page of another site sent this request", "cookies count from the server's own pages; programs of other sites use a token, under /v1")
	errNoNamespace = newFault(http.StatusNotFound, codeNotFound, "Namespace not found", "GET /api/namespaces shows yours")
)

// newCrossSite is the protection of what a cookie opens (see http.CrossOriginProtection): behind a proxy that changes Host,
// the server's own pages are known by the public origin.
func newCrossSite(baseURL string) *http.CrossOriginProtection {
	c := http.NewCrossOriginProtection()
	// One on this machine is the default of a server whose origin isn't set: other pages on the client's machine could have it.
	if u, err := url.Parse(baseURL); err == nil && u.Host != "" && !loopback(u.Hostname()) {
		// Of an origin that is none no page can come.
		_ = c.AddTrustedOrigin(u.Scheme + "://" + u.Host)
	}
	return c
}

// loopback tells whether a host is the machine itself.
func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && address.Unmap().IsLoopback()
}

// sameSite refuses what a page of another site has a browser send.
func (x *exchange) sameSite() error {
	if x.s.crossSite.Check(x.r) != nil {
		return errCrossSite
	}
	return nil
}

// enter lets the request in by its cookie, or refuses it. A token counts nothing here, and a cookie nothing under /v1.
func (x *exchange) enter(by entry) error {
	x.w.Header()["Cache-Control"] = noStore
	if err := x.sameSite(); err != nil || by == entryPublic {
		return err
	}
	if x.session, x.user = x.s.sessionOf(x.r); x.session == nil {
		return errSignedOut
	}
	if by == entrySession {
		return nil
	}
	var err error
	x.membership, err = x.s.opt.Catalog.Membership(unescape(x.param("ns")), x.user.ID)
	if err != nil {
		return errNoNamespace
	}
	// To the calls that have a twin under /v1 a member is a token of the namespace: unscoped, and of the membership's role.
	x.token = &catalog.Token{ID: memberID(x.user), NamespaceID: x.membership.ID, NamespaceSlug: x.membership.Slug, Name: x.user.Email,
		Role: catalog.TokenRole(x.membership.Role), Owner: x.user.ID}
	return nil
}

// enterAgain refuses a request that would no longer be let in, or not in the same role.
func (x *exchange) enterAgain() error {
	switch x.entry {
	case entryBearer:
		_, err := x.s.opt.Catalog.Authenticate(bearerOf(x.r))
		return err
	case entryListener:
		_, err := x.s.opt.Catalog.Authenticate(listenerOf(x.r))
		return err
	case entrySession, entryMember:
		role := x.membership.Role
		if err := x.enter(x.entry); err != nil {
			return err
		}
		if x.membership.Role != role {
			return catalog.ErrLadder
		}
	}
	return nil
}

// memberID stands for a user where a token's id would.
func memberID(u *catalog.User) string { return memberPrefix + u.ID }

// memberPrefix begins a memberID.
const memberPrefix = "user:"

var noStore = []string{"no-store"}

// cookieName is the session's cookie.
const cookieName = "persql_session"

// cookieChallenge is the scheme of a 401 where a cookie is wanted.
var cookieChallenge = []string{`Cookie cookie-name="` + cookieName + `"`}

// sessionOf is the session of the request's cookie, nil if there is none. Two cookies of the name are none: one of them was
// put there by somebody else, such as another host of the same domain.
func (s *Server) sessionOf(r *http.Request) (*catalog.Session, *catalog.User) {
	cookies := r.CookiesNamed(cookieName)
	if len(cookies) != 1 {
		return nil, nil
	}
	session, user, err := s.opt.Catalog.AuthenticateSession(cookies[0].Value)
	if err != nil {
		return nil, nil
	}
	return session, user
}

// https tells whether the client speaks HTTPS, with the server or with a trusted proxy before it.
func (s *Server) https(r *http.Request) bool {
	if r.TLS != nil || strings.HasPrefix(s.opt.BaseURL, "https://") {
		return true
	}
	return s.fromProxy(r) && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// setCookie gives the session's cookie to the client, or takes it away where secret is "".
func (x *exchange) setCookie(secret string, session *catalog.Session) {
	c := &http.Cookie{Name: cookieName, Value: secret, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.s.https(x.r), MaxAge: -1}
	if secret != "" {
		_, last := x.s.opt.Catalog.SessionEnds(session)
		c.MaxAge = int(last.Sub(session.CreatedAt).Seconds())
	}
	http.SetCookie(x.w, c)
}
