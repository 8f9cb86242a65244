package oauth

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/ory/fosite"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/oauth/redirect"
)

// Request is a request to the authorization endpoint.
type Request struct {
	Client      *catalog.OAuthClient
	RedirectURI string
	State       string
	Scopes      []string
	Resource    string // MCP's, or "" for the API
	Nonce       string
	Challenge   string
	LoginHint   string
	IDTokenHint string

	None    bool // prompt: nothing may be shown,
	Login   bool // the user is to sign in again,
	Consent bool // or is to be asked in any case
	MaxAge  *time.Duration

	asked *fosite.AuthorizeRequest
}

// Wants tells whether a scope is asked for.
func (r *Request) Wants(scope string) bool { return slices.Contains(r.Scopes, scope) }

// Ask reads a request. Where the client or the redirect URI is wrong the request is nil: nobody is to be sent anywhere, and the failure is for the person to read. Any other
// failure comes with a Request that has client, redirect URI and state, for Refuse. find looks a client up by its id.
func (p *Provider) Ask(ctx context.Context, form url.Values, find func(id string) (*catalog.OAuthClient, error)) (*Request, error) {
	for _, name := range []string{"client_id", "redirect_uri"} {
		if len(form[name]) != 1 || form.Get(name) == "" {
			return nil, fail("invalid_request", "the address has no "+name+", or several")
		}
	}
	cl, err := find(form.Get("client_id"))
	if err != nil {
		return nil, err
	}
	r := &Request{Client: cl, RedirectURI: form.Get("redirect_uri")}
	if len(r.RedirectURI) > redirect.MaxLength || !redirect.Match(cl.RedirectURIs, r.RedirectURI) || redirect.Validate(r.RedirectURI, cl.Public) != nil {
		return nil, fail("invalid_request", "the app has not registered the redirect_uri of this address")
	}
	if len(form["state"]) == 1 {
		r.State = form.Get("state")
	}
	for name, values := range form {
		if len(values) > 1 && name != "resource" { // RFC 6749, section 3.1
			return r, fail("invalid_request", "a parameter is there twice: "+name)
		}
	}
	for _, name := range []string{"request", "request_uri", "registration"} {
		if form.Get(name) != "" {
			return r, fail(name+"_not_supported", "the parameter "+name+" is not supported")
		}
	}
	if mode := form.Get("response_mode"); mode != "" && mode != "query" {
		return r, fail("invalid_request", "the response_mode is not supported; it is query")
	}
	if r.Resource, _, err = p.resource(form["resource"]); err != nil {
		return r, err
	}
	if err := r.prompts(form); err != nil {
		return r, err
	}
	if err := r.pkce(form, p.opt.RequirePKCE); err != nil {
		return r, err
	}
	for scope := range strings.SplitSeq(form.Get("scope"), " ") {
		if scope != "" && !slices.Contains(r.Scopes, scope) {
			r.Scopes = append(r.Scopes, scope)
		}
	}
	if len(r.Scopes) == 0 && r.Resource == "" {
		r.Scopes = []string{ScopeOpenID}
	}
	if r.Resource != "" && r.Wants(ScopeDatabase) {
		return r, fail("invalid_scope", "a token of the MCP endpoint is for a namespace; the scope database is for the API")
	}
	r.Nonce, r.LoginHint, r.IDTokenHint = form.Get("nonce"), form.Get("login_hint"), form.Get("id_token_hint")
	if len(r.Nonce) > maxNonce {
		return r, fail("invalid_request", "the nonce is longer than "+strconv.Itoa(maxNonce)+" bytes")
	}
	// What fosite is to judge: response type and scopes. It wants a state, which is the client's own matter, and would have it echoed; that is done here.
	given := url.Values{"client_id": {cl.ID}, "redirect_uri": {r.RedirectURI}, "response_type": {form.Get("response_type")}, "scope": {strings.Join(r.Scopes, " ")}, "state": {"kept by the caller"}}
	if r.Challenge != "" {
		given["code_challenge"], given["code_challenge_method"] = []string{r.Challenge}, []string{"S256"}
	}
	ctx = withCall(ctx, &call{client: &client{cl, r.RedirectURI}})
	asked, err := p.fosite.NewAuthorizeRequest(ctx, &http.Request{Method: http.MethodGet, Form: given})
	if err != nil {
		return r, toldError(err)
	}
	r.asked = asked.(*fosite.AuthorizeRequest)
	return r, nil
}

// maxNonce bounds what is kept with each code, in bytes.
const maxNonce = 512

// prompts reads what is to be asked of the user (OpenID Connect Core 1.0, section 3.1.2.1).
func (r *Request) prompts(form url.Values) error {
	words := strings.Fields(form.Get("prompt"))
	for _, word := range words {
		switch word {
		case "none":
			r.None = true
		case "login":
			r.Login = true
		case "consent", "select_account": // the page of the consent says who is signed in
			r.Consent = true
		default:
			return fail("invalid_request", "the prompt is not supported; there are none, login, consent and select_account")
		}
	}
	if r.None && len(words) > 1 {
		return fail("invalid_request", "the prompt none goes with no other")
	}
	if v := form.Get("max_age"); v != "" {
		n, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return fail("invalid_request", "max_age is not a number of seconds")
		}
		age := time.Duration(n) * time.Second
		r.MaxAge = &age
	}
	return nil
}

// pkce reads the challenge (RFC 7636): S256, of everyone who sends one, and from whom one is required.
func (r *Request) pkce(form url.Values, all bool) error {
	r.Challenge = form.Get("code_challenge")
	method := form.Get("code_challenge_method")
	switch {
	case r.Challenge == "" && (r.Client.Public || r.Client.RequirePKCE || all):
		return fail("invalid_request", "PKCE is required: the address has no code_challenge")
	case r.Challenge == "" && method != "":
		return fail("invalid_request", "the code_challenge is missing")
	case r.Challenge == "":
		return nil
	case method != "S256":
		return fail("invalid_request", "the code_challenge_method must be S256")
	case !isS256(r.Challenge):
		return fail("invalid_request", "the code_challenge is no SHA-256 in base64url")
	}
	return nil
}

func isS256(s string) bool {
	if len(s) != 43 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// Consent is what the user has said.
type Consent struct {
	User        string // id
	AuthAt      time.Time
	NamespaceID string               // that was picked, for a resource
	Database    *catalog.NewDatabase // see catalog.OAuthConsent

	Made bool // Database was taken
}

// Grant notes the consent and returns where the browser is to go with the code.
func (p *Provider) Grant(ctx context.Context, r *Request, n *Consent) (string, error) {
	c := &call{client: &client{r.Client, r.RedirectURI}, request: r, consent: n}
	for _, scope := range r.Scopes {
		r.asked.GrantScope(scope)
	}
	resp, err := p.fosite.NewAuthorizeResponse(withCall(ctx, c), r.asked, newSession(n.User, r.Nonce, n.AuthAt))
	if err != nil {
		return "", toldError(err)
	}
	return p.answer(r, url.Values{"code": {resp.GetCode()}}), nil
}

// Refuse is where the browser is to go with a failure.
func (p *Provider) Refuse(r *Request, e *Error) string {
	return p.answer(r, url.Values{"error": {e.Code}, "error_description": {e.Description}})
}

// answer is the redirect URI with an answer, its own query kept, and with who answers (RFC 9207).
func (p *Provider) answer(r *Request, values url.Values) string {
	if r.State != "" {
		values.Set("state", r.State)
	}
	values.Set("iss", p.opt.Issuer)
	if strings.ContainsRune(r.RedirectURI, '?') {
		return strings.TrimSuffix(r.RedirectURI, "&") + "&" + values.Encode()
	}
	return r.RedirectURI + "?" + values.Encode()
}

// HintIs tells whether an id_token of ours, be it expired, is of a user. What is none of ours names nobody.
func (p *Provider) HintIs(hint, user string) bool {
	signed, err := jose.ParseSigned(hint, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || len(signed.Signatures) != 1 {
		return false
	}
	for _, k := range p.opt.Keys() {
		if k.ID != signed.Signatures[0].Header.KeyID {
			continue
		}
		var public jose.JSONWebKey
		var c struct {
			Issuer  string `json:"iss"`
			Subject string `json:"sub"`
		}
		if json.Unmarshal([]byte(k.Public), &public) != nil {
			return false
		}
		raw, err := signed.Verify(public.Key)
		return err == nil && json.Unmarshal(raw, &c) == nil && c.Issuer == p.opt.Issuer && c.Subject == user
	}
	return false
}
