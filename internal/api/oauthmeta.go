package api

import (
	"net/http"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/oauth"
)

// OAuthTokens says how long what apps get is good. A zero time is the default.
type OAuthTokens struct {
	AccessTime  time.Duration // of tokens that are refreshed, or read /userinfo alone; 1 h
	TokenTime   time.Duration // of tokens of the MCP endpoint that are not refreshed; 30 days
	RefreshTime time.Duration // of refresh tokens that aren't used; 30 days
	RequirePKCE bool          // of all clients
}

func (s *Server) newOAuth() *oauth.Provider {
	o := s.opt.OAuthTokens
	return oauth.New(oauth.Options{Catalog: s.opt.Catalog, Issuer: s.opt.BaseURL, Key: s.signingKey, Keys: s.publishedKeys, AccessLife: o.AccessTime, TokenLife: o.TokenTime,
		RefreshLife: o.RefreshTime, RequirePKCE: o.RequirePKCE, Now: s.opt.Now})
}

const (
	resourcePath = "/.well-known/oauth-protected-resource"
	authPath     = "/.well-known/auth.md"
)

// metadata is what RFC 8414 and OpenID Connect Discovery say of the server.
type metadata struct {
	Issuer                  string     `json:"issuer"`
	Authorization           string     `json:"authorization_endpoint"`
	Token                   string     `json:"token_endpoint"`
	UserInfo                string     `json:"userinfo_endpoint"`
	Keys                    string     `json:"jwks_uri"`
	Registration            string     `json:"registration_endpoint,omitempty"`
	Revocation              string     `json:"revocation_endpoint"`
	Introspection           string     `json:"introspection_endpoint"`
	Scopes                  []string   `json:"scopes_supported"`
	ResponseTypes           []string   `json:"response_types_supported"`
	ResponseModes           []string   `json:"response_modes_supported"`
	GrantTypes              []string   `json:"grant_types_supported"`
	Subjects                []string   `json:"subject_types_supported"`
	IDTokenAlgorithms       []string   `json:"id_token_signing_alg_values_supported"`
	TokenMethods            []string   `json:"token_endpoint_auth_methods_supported"`
	RevocationMethods       []string   `json:"revocation_endpoint_auth_methods_supported"`
	IntrospectionMethods    []string   `json:"introspection_endpoint_auth_methods_supported"`
	ChallengeMethods        []string   `json:"code_challenge_methods_supported"`
	Prompts                 []string   `json:"prompt_values_supported"`
	Claims                  []string   `json:"claims_supported"`
	ClaimsParameter         bool       `json:"claims_parameter_supported"`
	RequestParameter        bool       `json:"request_parameter_supported"`
	RequestURIParameter     bool       `json:"request_uri_parameter_supported"`
	RequestURIRegistration  bool       `json:"require_request_uri_registration"`
	Iss                     bool       `json:"authorization_response_iss_parameter_supported"`
	ClientMetadataDocuments bool       `json:"client_id_metadata_document_supported"`
	Resources               []string   `json:"protected_resources"`
	AgentAuth               *agentAuth `json:"agent_auth,omitempty"`
}

// agentAuth is how machines come in without a person.
type agentAuth struct {
	Identity string   `json:"identity_endpoint"`
	Token    string   `json:"token_endpoint"`
	Flows    []string `json:"flows"`
	Skill    string   `json:"skill"`
}

func (s *Server) metadata() metadata {
	base := s.oauth.Issuer()
	m := metadata{
		Issuer: base, Authorization: base + authorizePath, Token: base + tokenPath, UserInfo: base + userInfoPath, Keys: base + "/.well-known/jwks.json",
		Revocation: base + revokePath, Introspection: base + introspectPath,
		Scopes: oauth.Scopes(), ResponseTypes: []string{"code"}, ResponseModes: []string{"query"}, GrantTypes: []string{grantCode, grantRefresh, grantJWT},
		Subjects: []string{"public"}, IDTokenAlgorithms: []string{"RS256"},
		TokenMethods: []string{"client_secret_basic", "client_secret_post", "none"}, RevocationMethods: []string{"client_secret_basic", "client_secret_post", "none"},
		IntrospectionMethods: []string{"client_secret_basic", "client_secret_post"}, ChallengeMethods: []string{"S256"},
		Prompts: []string{"none", "login", "consent", "select_account"},
		Claims:  []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "email", "email_verified", "name", "picture"},
		Iss:     true, ClientMetadataDocuments: s.opt.OAuth.Documents != nil, Resources: []string{base, base + "/v1", s.oauth.MCP()},
	}
	if s.opt.OAuth.Register {
		m.Registration = base + registerPath
	}
	return m
}

// metadataCache is how long others may keep what the server says of itself.
var metadataCache = []string{"public, max-age=300"}

func (x *exchange) published(v any) error {
	if err := x.s.flood.admit(x); err != nil {
		return err
	}
	x.w.Header()["Cache-Control"] = metadataCache
	return x.plain(http.StatusOK, v)
}

// openIDMetadata serves GET /.well-known/openid-configuration.
func (s *Server) openIDMetadata(x *exchange) error { return x.published(s.metadata()) }

// serverMetadata serves GET /.well-known/oauth-authorization-server (RFC 8414).
func (s *Server) serverMetadata(x *exchange) error {
	m := s.metadata()
	base := s.oauth.Issuer()
	m.AgentAuth = &agentAuth{Identity: base + "/agent/identity", Token: base + tokenPath, Flows: []string{"identity_assertion"}, Skill: base + authPath}
	return x.published(m)
}

// resourceMetadata serves GET /.well-known/oauth-protected-resource and the same of /mcp and /v1 (RFC 9728).
func (s *Server) resourceMetadata(x *exchange) error {
	base := s.oauth.Issuer()
	resource := base + strings.TrimPrefix(x.r.URL.Path, resourcePath)
	m := struct {
		Resource string   `json:"resource"`
		Servers  []string `json:"authorization_servers"`
		Scopes   []string `json:"scopes_supported,omitempty"`
		Methods  []string `json:"bearer_methods_supported"`
		Name     string   `json:"resource_name"`
	}{Resource: resource, Servers: []string{base}, Methods: []string{"header"}, Name: "persqld"}
	if resource != s.oauth.MCP() { // there a client asks for a namespace, without a scope
		m.Scopes = []string{oauth.ScopeDatabase}
	}
	return x.published(m)
}

// authGuide serves GET /.well-known/auth.md: how to be let in, for agents to read.
func (s *Server) authGuide(x *exchange) error {
	if err := s.flood.admit(x); err != nil {
		return err
	}
	text := strings.ReplaceAll(strings.ReplaceAll(authText, "{base}", s.oauth.Issuer()), "{mcp}", s.oauth.MCP())
	h := x.w.Header()
	h["Cache-Control"], h["Content-Type"], h["X-Request-Id"] = metadataCache, []string{"text/markdown; charset=utf-8"}, []string{x.id}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	x.sent, x.status = true, http.StatusOK
	_, _ = x.w.Write([]byte(text)) // a client that left is no failure of ours
	return nil
}

const authText = "# How to be let in\n" + `
This server keeps SQLite databases. All calls are HTTP with JSON; each needs a token: ` + "`Authorization: Bearer psql_live_…`" + `.

## You have a token
Use it. ` + "`GET {base}/v1/me`" + ` says what it opens, ` + "`GET {base}/openapi.json`" + ` what can be called.

## You run where an issuer of identities vouches for you (GitHub Actions, GitLab CI, Google, or one of the operator's)
1. Get an OIDC token with the audience ` + "`persql`" + ` from your issuer.
2. ` + "`POST {base}/agent/identity`" + ` with ` + "`{\"type\": \"identity_assertion\", \"assertion\": \"<the OIDC token>\"}`" + ` answers ` + "`{\"identity_assertion\": …}`" + `.
3. ` + "`POST {base}/oauth/token`" + ` with ` + "`grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion=<that>`" + ` answers ` + "`{\"access_token\": \"psql_live_…\", \"database\": …}`" + `. It ends within the hour; begin again then.

` + "`POST {base}/v1/identity/federate`" + ` with the OIDC token as bearer does it in one step.

## You act for a person, in an MCP runtime or an app
OAuth 2.1 with PKCE (S256). ` + "`{base}/.well-known/oauth-authorization-server`" + ` has the addresses.
1. Register once: ` + "`POST {base}/oauth/register`" + ` with ` + "`{\"client_name\": …, \"redirect_uris\": […]}`" + `, or be known by the URL of a client metadata document.
2. Send the person to ` + "`{base}/oauth/authorize`" + ` with ` + "`response_type=code`, `client_id`, `redirect_uri`, `state`, `code_challenge`, `code_challenge_method=S256`" + ` and, for the MCP endpoint, ` + "`resource={mcp}`" + `.
3. Exchange the code, within 60 seconds and once, at ` + "`{base}/oauth/token`" + `.

The scope ` + "`database`" + ` gives an app a database of its own in the person's namespace. There is no way around the person.
`
