package api

import (
	"bytes"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/identity"
	"github.com/persqld/persqld/internal/oauth"
)

// maxOAuthBody bounds the bodies of the token endpoint and of /agent/identity, in bytes: they take one from whoever asks.
const maxOAuthBody = 64_000

// maxAssertionLife is how long an assertion may still be valid that is used once: so long it is remembered.
const maxAssertionLife = 24 * time.Hour

const (
	tokenPath    = "/oauth/token"
	grantJWT     = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
	formEncoding = "application/x-www-form-urlencoded"
)

// oauthError is a failure as RFC 6749, section 5.2, has it.
type oauthError struct {
	status      int
	code        string
	description string
	retry       time.Duration
}

func (e *oauthError) Error() string { return e.description }

func invalidRequest(why string) error {
	return &oauthError{status: http.StatusBadRequest, code: "invalid_request", description: why}
}

// grant answers a request for tokens of one grant type.
type grant func(x *exchange, form url.Values) (any, error)

// grants are the grant types of the token endpoint. What is the same for all is answered before: the form, and how often a parameter may be there.
func (s *Server) grants() map[string]grant {
	return map[string]grant{grantJWT: s.grantAssertion, grantCode: s.grantClient, grantRefresh: s.grantClient}
}

// oauthToken serves POST /oauth/token.
func (s *Server) oauthToken(x *exchange) error {
	h := x.w.Header()
	h["Cache-Control"], h["Pragma"] = noStore, []string{"no-cache"}
	answer, err := s.answerGrant(x)
	if err != nil {
		return x.replyOAuth(err)
	}
	return x.plain(http.StatusOK, answer)
}

func (s *Server) answerGrant(x *exchange) (any, error) {
	form, err := x.oauthCall()
	if err != nil {
		return nil, err
	}
	kind := form.Get("grant_type")
	if kind == "" {
		return nil, invalidRequest("grant_type is missing")
	}
	g := s.grants()[kind]
	if g == nil {
		return nil, &oauthError{status: http.StatusBadRequest, code: "unsupported_grant_type", description: "the grant type is not supported; supported: " + strings.Join([]string{grantCode, grantRefresh, grantJWT}, ", ")}
	}
	return g(x, form)
}

// oauthCall is the way in of the endpoints that programs post to: their parameters.
func (x *exchange) oauthCall() (url.Values, error) {
	if err := x.s.flood.admit(x); err != nil {
		return nil, err
	}
	form, err := x.oauthForm()
	if err != nil {
		return nil, err
	}
	for name, values := range form {
		if len(values) > 1 && name != "resource" { // RFC 6749, section 3.2; RFC 8707, section 2
			return nil, invalidRequest("the parameter " + safeText(name) + " is there twice")
		}
	}
	return form, nil
}

// oauthForm are the parameters of a request: a form, or a JSON object of texts.
func (x *exchange) oauthForm() (url.Values, error) {
	if err := x.readUpTo(min(maxOAuthBody, x.s.opt.MaxRequest)); err != nil {
		return nil, err
	}
	kind, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	switch {
	case err == nil && kind == formEncoding:
		form, err := url.ParseQuery(string(x.body))
		if err != nil {
			return nil, invalidRequest("the form can't be read")
		}
		return form, nil
	case err == nil && kind == "application/json":
		// A name that is there twice is refused by the decoder.
		var fields map[string]jsontext.Value
		if err := json.Unmarshal(x.body, &fields); err != nil || len(bytes.TrimSpace(x.body)) == 0 || bytes.TrimSpace(x.body)[0] != '{' {
			return nil, invalidRequest("the body is no JSON object, or has a member twice")
		}
		form := url.Values{}
		for name, v := range fields {
			var one string
			var list []string
			switch {
			case v.Kind() == 'n':
			case v.Kind() == '"' && json.Unmarshal(v, &one) == nil:
				form.Set(name, one)
			case v.Kind() == '[' && name == "resource" && json.Unmarshal(v, &list) == nil:
				form[name] = list
			default:
				return nil, invalidRequest("the parameter " + safeText(name) + " is no text")
			}
		}
		return form, nil
	}
	return nil, invalidRequest("the body must be " + formEncoding + " or application/json")
}

// safeText is a client's text as it may stand in an error's description (RFC 6749, section 5.2).
func safeText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 60)]
}

// replyOAuth answers a failure in the form of RFC 6749, whatever failed.
func (x *exchange) replyOAuth(err error) error {
	var e *oauthError
	var told *oauth.Error
	if errors.As(err, &told) {
		e = &oauthError{status: http.StatusBadRequest, code: told.Code, description: told.Description}
	} else if !errors.As(err, &e) {
		f := x.s.faultOf(err)
		if f.status == statusClientGone {
			return err
		}
		e = &oauthError{status: f.status, description: f.message, retry: f.retry}
		if f.hint != "" {
			e.description += "; " + f.hint
		}
		switch {
		case f.status == http.StatusTooManyRequests, f.status == http.StatusServiceUnavailable:
			e.code = "temporarily_unavailable"
		case f.status >= http.StatusInternalServerError:
			e.code = "server_error"
		case f.status == http.StatusForbidden:
			e.status, e.code = http.StatusBadRequest, "invalid_grant"
		default:
			e.code = "invalid_request"
		}
	}
	if e.retry > 0 {
		x.w.Header()["Retry-After"] = retryAfter(e.retry)
	}
	if e.status == http.StatusUnauthorized {
		x.w.Header()["Www-Authenticate"] = []string{`Basic realm="persqld"`}
	}
	return x.plain(e.status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{e.code, describeOAuth(e.description)})
}

// describeOAuth leaves in a description what may stand there: printable ASCII without " and \ (RFC 6749, section 5.2).
func describeOAuth(s string) string {
	s = strings.ReplaceAll(s, "…", "...")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r < ' ' || r > '~' || r == '\\':
			return '?'
		}
		return r
	}, s)
}

// plain answers with an object that has no envelope.
func (x *exchange) plain(status int, v any) error {
	out, err := json.Marshal(v)
	if err != nil {
		return err
	}
	x.status, x.out = status, append(x.out[:0], out...)
	return nil
}

type accessToken struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
	Scope       string `json:"scope"`
	Database    string `json:"database"`
	APIURL      string `json:"api_url"`
}

// grantAssertion is the grant of RFC 7523: an assertion of ours, which POST /agent/identity makes, becomes a token for the machine's own database.
func (s *Server) grantAssertion(x *exchange, form url.Values) (any, error) {
	invalid := func(why string) error {
		return &oauthError{status: http.StatusBadRequest, code: "invalid_grant", description: why}
	}
	// Credentials that are sent are to be verified (RFC 7521, section 4.1), and this grant is for machines, which are no clients.
	if x.r.Header["Authorization"] != nil || form.Get("client_secret") != "" {
		return nil, &oauthError{status: http.StatusUnauthorized, code: "invalid_client", description: "this grant takes no client's credentials"}
	}
	if form.Get("assertion") == "" {
		return nil, invalidRequest("assertion is missing")
	}
	for word := range strings.FieldsSeq(form.Get("scope")) {
		if word != "database" {
			return nil, &oauthError{status: http.StatusBadRequest, code: "invalid_scope", description: "the scope of this grant is database"}
		}
	}
	base := strings.TrimRight(s.opt.BaseURL, "/")
	for _, resource := range form["resource"] {
		if r := strings.TrimRight(resource, "/"); len(form["resource"]) > 1 || r != base && r != base+"/v1" {
			return nil, &oauthError{status: http.StatusBadRequest, code: "invalid_target", description: "the resource is not " + base + "/v1"}
		}
	}
	now := s.opt.Now()
	id, err := identity.VerifyAssertion(form.Get("assertion"), s.publishedKeys(), base, base+tokenPath, now)
	if err != nil {
		return nil, invalid(err.Error())
	}
	// What was trusted when the assertion was made may be no more.
	if err := s.opt.Identity.Verifier.Admit(id); err != nil {
		return nil, invalid(err.Error())
	}
	if err := x.admitMachine(id); err != nil {
		return nil, err
	}
	home, _, err := s.machineHome(x, id)
	if err != nil {
		return nil, err
	}
	d, err := s.opt.Catalog.Database(home.NamespaceID, homeDatabase)
	if errors.Is(err, catalog.ErrDatabaseNotFound) {
		return nil, invalid("the identity's namespace or its database " + homeDatabase + " is gone")
	}
	if err != nil {
		return nil, err
	}
	t, secret, err := s.opt.Catalog.GrantToken(x.actingAsMachine(home.ID), catalog.Grant{Action: actionGrant, Machine: machineOf(id), Used: (*catalog.Hash)(&id.Once), UsedUntil: id.Expires.Add(identity.Leeway),
		Token: catalog.NewToken{NamespaceID: home.NamespaceID, Name: tokenName("agent ", id.Name), Database: d.ID, Via: home.ID, ExpiresAt: now.Add(s.opt.Identity.TokenTime)}})
	if errors.Is(err, catalog.ErrAssertionUsed) {
		return nil, invalid("the assertion was used already; POST /agent/identity makes another")
	}
	if err != nil {
		return nil, machineFault(err)
	}
	return accessToken{secret, "Bearer", int64(t.ExpiresAt.Sub(now) / time.Second), "database", t.NamespaceSlug + "/" + d.Slug, base}, nil
}

type agentRequest struct {
	Type      string `json:"type"`
	Assertion string `json:"assertion"`
}

// agentIdentity serves POST /agent/identity: a token of a trusted issuer becomes an assertion of ours. Each is taken once.
func (s *Server) agentIdentity(x *exchange) error {
	if err := x.beginMachine(); err != nil {
		return err
	}
	if err := x.readUpTo(min(maxOAuthBody, s.opt.MaxRequest)); err != nil {
		return err
	}
	var req agentRequest
	if err := x.strictly(&req, true); err != nil {
		return err
	}
	if req.Type != "identity_assertion" {
		return newFault(http.StatusBadRequest, codeBadRequest, "The type must be identity_assertion", "")
	}
	if !utf8.ValidString(req.Assertion) || req.Assertion == "" {
		return newFault(http.StatusBadRequest, codeBadRequest, "The assertion is missing", "it is an OIDC token of a trusted issuer")
	}
	id, err := x.machine(req.Assertion)
	if err != nil {
		return err
	}
	now := s.opt.Now()
	if id.Expires.After(now.Add(maxAssertionLife)) {
		return newFault(http.StatusUnauthorized, codeUnauthorized, "The OIDC token can't be verified: it is valid for more than 24 hours, longer than one that is used once may be", "ask its issuer for one that ends sooner")
	}
	key, err := s.signingKey(x.r.Context())
	if err != nil {
		return err
	}
	base := strings.TrimRight(s.opt.BaseURL, "/")
	token, expires, err := identity.Sign(key, base, base+tokenPath, id, now, s.opt.Identity.AssertionTime)
	if err != nil {
		return err
	}
	// Before the answer: what may have been answered is used, whatever ends this process.
	if err := s.opt.Catalog.UseAssertion(x.actingAsMachine(""), catalog.Hash(id.Once), id.Expires.Add(2*identity.Leeway)); err != nil {
		if errors.Is(err, catalog.ErrAssertionUsed) {
			return newFault(http.StatusUnauthorized, codeUnauthorized, "The OIDC token can't be verified: it was used already", "ask its issuer for another")
		}
		return err
	}
	return x.plain(http.StatusOK, struct {
		Assertion string `json:"identity_assertion"`
		ExpiresAt string `json:"expiresAt"`
	}{token, expires.UTC().Format(timeFormat)})
}

// jwks serves GET /.well-known/jwks.json: what is signed by this server is verified with these.
func (s *Server) jwks(x *exchange) error {
	if _, err := s.signingKey(x.r.Context()); err != nil { // an empty set would stay in somebody's cache
		return err
	}
	raw, err := identity.JWKS(s.publishedKeys())
	if err != nil {
		return err
	}
	x.w.Header()["Cache-Control"] = []string{"public, max-age=" + strconv.Itoa(int(jwksCache.Seconds()))}
	x.status, x.out = http.StatusOK, append(x.out[:0], raw...)
	return nil
}

// jwksCache is how long others may keep our keys without asking again. Keys that were replaced are told of for longer.
const jwksCache = 5 * time.Minute
