package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/console"
	"github.com/persqld/persqld/internal/oauth"
	"github.com/persqld/persqld/internal/oauth/clientdoc"
)

const (
	authorizePath = "/oauth/authorize"
	consentPath   = "/oauth/consent"

	// afterParam goes along with a request whose user has to sign in again: when that was said, sealed.
	afterParam = "signed_in_after"
	// againParam has the sign-in page ask also who is signed in, hintParam says whom it asks for.
	againParam = "again"
	hintParam  = "login_hint"

	// maxAuthorize bounds an app's request, in bytes: it goes along with a sign-in, in an address.
	maxAuthorize = maxNextPath - len(authorizePath) - 200

	// consentTime is how long a page that asks for consent can be answered.
	consentTime = 30 * time.Minute
)

var (
	errAuthorizeLong = newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("The app's request is longer than the limit of %d bytes", maxAuthorize), "the app should send a shorter state")
	errConsent       = newFault(http.StatusForbidden, codeForbidden, "This is not the consent page that was shown to you, or it is out of date", "begin again in the app")
	errNoApp         = newFault(http.StatusBadRequest, codeBadRequest, "The app that sent you here is not registered on this server", "ask whoever runs the app: its client_id is wrong, or was deleted")
	errNoHome        = newFault(http.StatusConflict, "no_namespace", "You have no namespace of your own in which the app's database could be made", "make one first: POST /api/namespaces")
)

// postAuthorize serves POST /oauth/authorize, by which an app may ask too: its browser comes again with GET, and then with the user's cookie.
func (s *Server) postAuthorize(x *exchange) error {
	err := func() error {
		if err := s.flood.admit(x); err != nil {
			return err
		}
		if media, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type")); err != nil || media != formEncoding {
			return errForm
		}
		if err := x.readUpTo(min(maxOAuthBody, s.opt.MaxRequest)); err != nil {
			return err
		}
		form, err := url.ParseQuery(string(x.body))
		if err != nil {
			return errForm
		}
		if len(form.Encode()) > maxAuthorize {
			return errAuthorizeLong
		}
		return x.goTo(authorizePath + "?" + form.Encode())
	}()
	if err == nil {
		return nil
	}
	return x.sendFault(&console.Message{}, err)
}

// authorize serves GET /oauth/authorize.
func (s *Server) authorize(x *exchange, _ url.Values) error {
	form, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return newFault(http.StatusBadRequest, codeBadRequest, "The address can't be read", "")
	}
	r, done, err := x.ask(form)
	if done || err != nil {
		return err
	}
	if r.None && r.IDTokenHint != "" && !s.oauth.HintIs(r.IDTokenHint, x.user.ID) {
		return x.refuse(r, &oauth.Error{Code: "login_required", Description: "somebody else is signed in"})
	}
	if x.agreed(r) {
		return x.grant(r, "")
	}
	if r.None {
		return x.refuse(r, &oauth.Error{Code: "consent_required", Description: "the user has to be asked"})
	}
	return x.sendPage(http.StatusOK, x.consentPage(r, form))
}

// ask reads an app's request and sees to it that its user is signed in, as it asks for. done says that the browser has its answer already.
func (x *exchange) ask(form url.Values) (r *oauth.Request, done bool, err error) {
	s := x.s
	if len(form.Encode()) > maxAuthorize {
		return nil, false, errAuthorizeLong
	}
	r, err = s.oauth.Ask(x.r.Context(), form, x.oauthClient)
	var told *oauth.Error
	switch {
	case errors.Is(err, catalog.ErrOAuthClientNotFound):
		return nil, false, errNoApp
	case errors.As(err, &told) && r == nil:
		return nil, false, newFault(http.StatusBadRequest, codeBadRequest, "The app's request is wrong: "+told.Description, "the app got nothing, and you were not sent on to it; tell whoever runs the app")
	case errors.As(err, &told):
		return nil, true, x.refuse(r, told)
	case err != nil:
		return nil, false, err
	}
	if x.user != nil && !x.signedInBefore(r, form) {
		return r, false, nil
	}
	if r.None {
		return nil, true, x.refuse(r, &oauth.Error{Code: "login_required", Description: "the user has to sign in"})
	}
	return nil, true, x.signInFor(r, form)
}

// refuse answers an app's request with a failure before its user has agreed to anything. An app that no namespace answers for has nobody sent to a host of its own choice: whoever
// asks registers one, and an address of this server would be as good as one of that host (RFC 9700, section 4.11.2). There a page says what is wrong, and links to the app. Programs on
// the user's own machine wait for their answer, and get it.
func (x *exchange) refuse(r *oauth.Request, e *oauth.Error) error {
	to := x.s.oauth.Refuse(r, e)
	if r.Client.NamespaceID != "" || !strings.HasPrefix(r.RedirectURI, "https://") || x.connected(r) {
		return x.sendAway(to)
	}
	return x.sendFault(&console.Message{Link: &console.Link{URL: to, Text: "Go on to " + hostOfRedirect(r.RedirectURI)}},
		newFault(http.StatusBadRequest, e.Code, "An app sent you here with a request that is refused: "+e.Description, "this server doesn't know the app; go on only where you came from it"))
}

// connected tells whether who is signed in has connected the app.
func (x *exchange) connected(r *oauth.Request) bool {
	if x.user == nil {
		return false
	}
	g, err := x.s.opt.Catalog.OAuthGrantOf(x.user.ID, r.Client.ID)
	return err == nil && g.EndedAt.IsZero()
}

// signedInBefore tells whether the user's sign-in is too old for the request.
func (x *exchange) signedInBefore(r *oauth.Request, form url.Values) bool {
	at := x.session.CreatedAt
	if !r.Login && (r.MaxAge == nil || *r.MaxAge > 0 && !x.s.opt.Now().After(at.Add(*r.MaxAge))) {
		return false
	}
	text, seal, _ := strings.Cut(form.Get(afterParam), ".")
	ms, err := strconv.ParseInt(text, 10, 64)
	return err != nil || !hmac.Equal([]byte(seal), []byte(x.s.sealed("after", text, r.Client.ID))) || at.Before(time.UnixMilli(ms))
}

// signInFor sends somebody to sign in who comes back to an app's request.
func (x *exchange) signInFor(r *oauth.Request, form url.Values) error {
	now := strconv.FormatInt(x.s.opt.Now().UnixMilli(), 10)
	form.Set(afterParam, now+"."+x.s.sealed("after", now, r.Client.ID))
	to := onward(signInPath, localPath(authorizePath+"?"+form.Encode()))
	if x.user != nil {
		to += "&" + againParam + "=1"
	}
	if r.LoginHint != "" && len(r.LoginHint) <= 254 {
		to += "&" + hintParam + "=" + url.QueryEscape(r.LoginHint)
	}
	return x.goTo(to)
}

// loginHint is whom the sign-in page is to ask for, by the app's word.
func (x *exchange) loginHint() string {
	email, err := catalog.FoldEmail(x.r.URL.Query().Get(hintParam))
	if err != nil {
		return ""
	}
	return email
}

// sealed is a seal on texts that this process gave out: nobody else can make it, and it means nothing after a restart.
func (s *Server) sealed(texts ...string) string {
	mac := hmac.New(sha256.New, s.consentKey[:])
	for _, t := range texts {
		fmt.Fprintf(mac, "%d:%s", len(t), t)
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// agreed tells whether the user has agreed to just this before, and need not be asked: with an app that can prove who it is.
func (x *exchange) agreed(r *oauth.Request) bool {
	g, err := x.s.opt.Catalog.OAuthGrantOf(x.user.ID, r.Client.ID)
	if err != nil || !g.EndedAt.IsZero() || r.Consent || r.Client.Public || r.Resource != "" {
		return false
	}
	for _, scope := range r.Scopes {
		if !slices.Contains(g.Scopes, scope) {
			return false
		}
	}
	return !r.Wants(oauth.ScopeDatabase) || x.appDatabase(g) != nil
}

// appDatabase is the database of a connected app that its user still may let it have; nil for none.
func (x *exchange) appDatabase(g *catalog.OAuthGrant) *catalog.Database {
	d, err := x.s.opt.Catalog.DatabaseByID(g.Database)
	if g.Database == "" || err != nil {
		return nil
	}
	for _, m := range x.s.opt.Catalog.Memberships(x.user.ID) {
		if m.ID == d.NamespaceID && m.Role != catalog.MemberViewer {
			return d
		}
	}
	return nil
}

// seal is the seal of the page that asks for consent: on what was asked, of whom, and what the page said of the app.
func (x *exchange) consentSeal(request, moment string, r *oauth.Request) string {
	return x.s.sealed("consent", moment, x.session.ID, request, r.Client.Name, strconv.FormatBool(r.Client.Public), r.Client.NamespaceID)
}

// consentPage asks the user.
func (x *exchange) consentPage(r *oauth.Request, form url.Values) *console.Consent {
	x.leads = r.RedirectURI
	request, moment := form.Encode(), strconv.FormatInt(x.s.opt.Now().UnixMilli(), 10)
	p := &console.Consent{App: r.Client.Name, Host: hostOfRedirect(r.RedirectURI), Unknown: r.Client.NamespaceID == "", Site: documentHost(r.Client.ID), Gets: gets(r.Scopes, r.Resource), Action: consentPath,
		Request: request, Seal: moment + "." + x.consentSeal(request, moment, r)}
	if next := localPath(authorizePath + "?" + request); next != "" {
		p.Switch = onward(signInPath, next) + "&" + againParam + "=1"
	}
	if r.Wants(oauth.ScopeDatabase) && r.Client.NamespaceID == "" {
		p.Gets = append(p.Gets, "What it does in that database is charged to your namespace")
	}
	if r.Resource != "" {
		for _, m := range x.s.opt.Catalog.Memberships(x.user.ID) {
			p.Namespaces = append(p.Namespaces, console.NamespaceChoice{Value: choiceOf(m), Slug: m.Slug, Role: mayThere(m.Role)})
		}
		if len(p.Namespaces) == 1 {
			p.Namespaces[0].Picked = true
		}
	}
	return p
}

func choiceOf(m catalog.Membership) string { return m.ID + " " + m.Role }

// mayThere is what a token may do that has a member's rights.
func mayThere(role string) string {
	switch catalog.TokenRole(role) {
	case catalog.RoleAdmin:
		return "as " + role + ": it may do everything there, and delete it"
	case "readwrite":
		return "as " + role + ": it may read and write rows there"
	}
	return "as " + role + ": it may read there"
}

// gets is what an app gets, in plain words.
func gets(scopes []string, resource string) (list []string) {
	if resource != "" {
		list = append(list, "All databases of one namespace, which you pick below: what you may do there, it may do")
	}
	for _, scope := range scopes {
		switch scope {
		case oauth.ScopeOpenID:
			list = append(list, "Who you are: a number that stands for you, the same at each sign-in")
		case oauth.ScopeEmail:
			list = append(list, "Your e-mail address")
		case oauth.ScopeProfile:
			list = append(list, "Your name and picture")
		case oauth.ScopeDatabase:
			list = append(list, "A private database in your namespace, which no other app gets: it can read, write and make tables there. Your other databases stay closed to it")
		case oauth.ScopeOffline:
			list = append(list, "All this also while you are away, until you disconnect the app")
		}
	}
	if slices.Contains(scopes, oauth.ScopeDatabase) && !slices.Contains(scopes, oauth.ScopeEmail) {
		list = append(list, "Your e-mail address") // user_email comes with the database's token
	}
	return list
}

// documentHost is the host of the document that a client is known by: who it is for sure. It is "" for a client of another kind.
func documentHost(clientID string) string {
	if !clientdoc.Is(clientID) {
		return ""
	}
	u, err := url.Parse(clientID)
	if err != nil {
		return ""
	}
	return u.Host
}

// hostOfRedirect is where an app's answer goes, for people.
func hostOfRedirect(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return uri
	case u.Scheme == "https":
		return u.Host
	case u.Scheme == "http":
		return u.Hostname() + " (a program on your own machine)"
	}
	return u.Scheme + ": (an app on your own machine)"
}

// answerConsent serves POST /oauth/consent.
func (s *Server) answerConsent(x *exchange, form url.Values) error {
	request := form.Get("request")
	asked, err := url.ParseQuery(request)
	if err != nil || request == "" {
		return errForm
	}
	if x.user == nil {
		return x.goTo(onward(signInPath, localPath(authorizePath+"?"+asked.Encode())))
	}
	r, done, err := x.ask(asked)
	if done || err != nil {
		return err
	}
	moment, seal, _ := strings.Cut(form.Get("seal"), ".")
	ms, err := strconv.ParseInt(moment, 10, 64)
	if age := s.opt.Now().Sub(time.UnixMilli(ms)); err != nil || !hmac.Equal([]byte(seal), []byte(x.consentSeal(request, moment, r))) || age < 0 || age > consentTime {
		return errConsent
	}
	switch form.Get("decision") {
	case "allow":
	case "deny":
		return x.sendAway(s.oauth.Refuse(r, &oauth.Error{Code: "access_denied", Description: "the user said no"}))
	default:
		return errForm
	}
	namespace := ""
	if r.Resource != "" {
		for _, m := range s.opt.Catalog.Memberships(x.user.ID) {
			if choiceOf(m) == form.Get("namespace") { // in the role that was shown
				namespace = m.ID
			}
		}
		if namespace == "" {
			p := x.consentPage(r, asked)
			return x.sendFault(p, newFault(http.StatusBadRequest, codeBadRequest, "Pick a namespace", "the app gets that one alone"))
		}
	}
	return x.grant(r, namespace)
}

// grant sends the browser back to the app with a code. Where the app is to have a database and has none, its file is made first, then all names with the code at once.
func (x *exchange) grant(r *oauth.Request, namespace string) error {
	s := x.s
	ctx := x.actingAs(context.WithoutCancel(x.r.Context()), x.user)
	n := &oauth.Consent{User: x.user.ID, AuthAt: x.session.CreatedAt, NamespaceID: namespace}
	if r.Wants(oauth.ScopeDatabase) {
		// Of a double click one makes the file, and both get its database.
		defer s.consenting.lock(x.user.ID + "\x00" + r.Client.ID)()
		g, err := s.opt.Catalog.OAuthGrantOf(x.user.ID, r.Client.ID)
		if err != nil || x.appDatabase(g) == nil {
			home, err := s.opt.Catalog.HomeOf(x.user.ID)
			if err != nil {
				return errNoHome
			}
			n.Database = &catalog.NewDatabase{ID: catalog.NewID("db"), NamespaceID: home.ID, Slug: slugOf(r.Client.Name), Name: r.Client.Name}
			if n.Database.Slug == "" {
				n.Database.Slug = "app"
			}
			owner, err := s.opt.Placement.Owner(ctx, n.Database.ID)
			if err != nil {
				return err
			}
			if err := owner.Create(ctx, n.Database.ID); err != nil {
				return err
			}
			defer func() {
				if !n.Made {
					s.leave(ctx, owner, n.Database.ID)
				}
			}()
		}
	}
	if err := x.useOAuthClient(r.Client); err != nil {
		return err
	}
	to, err := s.oauth.Grant(ctx, r, n)
	var told *oauth.Error
	if errors.As(err, &told) {
		to = s.oauth.Refuse(r, told)
	} else if err != nil {
		return err
	}
	return x.sendAway(to)
}

// sendAway sends the browser to an app.
func (x *exchange) sendAway(to string) error {
	h := x.pageHeaders()
	h["Location"] = []string{to}
	x.sent, x.status = true, http.StatusSeeOther
	x.w.WriteHeader(http.StatusSeeOther)
	return nil
}

// policy is the page's Content-Security-Policy: the form of one that leads on to an app may end there.
func (x *exchange) policy() string {
	to := x.leads
	next := ""
	switch x.r.URL.Path {
	case signInPath, signUpPath:
		next = x.nextPath()
	case confirmPath:
		if state := x.signInUnderWay(); state != nil {
			next = state.Next
		}
	}
	if next != "" {
		if u, err := url.Parse(next); err == nil && u.Path == authorizePath {
			to = u.Query().Get("redirect_uri")
		}
	}
	scheme, _, _ := strings.Cut(to, ":")
	for i := range len(scheme) {
		if c := scheme[i]; (c < 'a' || c > 'z') && (i == 0 || (c < '0' || c > '9') && c != '.' && c != '-' && c != '+') {
			return console.Policy
		}
	}
	if scheme == "" || len(scheme) > 100 {
		return console.Policy
	}
	return console.PolicyOnward(scheme)
}
