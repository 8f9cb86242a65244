package upstream

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/persqld/persqld/internal/outbound"
)

const (
	// keepDiscovery is how long a provider's document counts, and retryDiscovery the least time between two look-ups that fail.
	keepDiscovery  = time.Hour
	retryDiscovery = 5 * time.Second
)

// algorithms are those that an id_token may be signed with: of asymmetric keys, which the provider alone has.
var algorithms = []string{oidc.RS256, oidc.ES256}

// openID is an OpenID Connect provider.
type openID struct {
	Options
	issuer, label string

	mu     sync.Mutex // also held while the document is looked up: others wait for it
	known  *discovered
	looked time.Time // when it was looked up last, with or without success
	failed error     // of that look-up
}

// discovered is what a provider's document says.
type discovered struct {
	provider *oidc.Provider
	endpoint oauth2.Endpoint
	saysIss  bool // its answers name it (RFC 9207)
	at       time.Time
}

// NewOIDC is the provider of an issuer. Nothing of it is looked up before somebody signs in. An empty label is the issuer's host.
func NewOIDC(issuer, label string, o Options) Provider {
	o.fill()
	if label == "" {
		if u, err := url.Parse(issuer); err == nil {
			label = u.Hostname()
		}
	}
	return &openID{Options: o, issuer: issuer, label: label}
}

// Name is the provider's name in addresses.
func (p *openID) Name() string { return OIDC }

// Label is what people call it.
func (p *openID) Label() string { return p.label }

// Issuer is the provider's issuer identifier.
func (p *openID) Issuer() string { return p.issuer }

// discover is what the provider's document says. One that was known goes on counting while it can't be had anew.
func (p *openID) discover(ctx context.Context) (*discovered, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now()
	if p.known != nil && within(now, p.known.at, keepDiscovery) {
		return p.known, nil
	}
	if p.failed == nil || !within(now, p.looked, retryDiscovery) {
		// For all who wait, not for one who may leave; the client bounds its time.
		d, err := p.lookUp(context.WithoutCancel(ctx))
		p.looked, p.failed = now, err
		if err == nil {
			d.at, p.known = now, d
		} else {
			p.Logger.Warn("the OpenID provider's document can't be had; people can't sign in with it unless it is known from before", "issuer", p.issuer, "error", err)
		}
	}
	if p.known != nil {
		return p.known, nil
	}
	return nil, fmt.Errorf("%w: read its discovery document: %w", ErrUnavailable, p.failed)
}

// within tells whether less than d has passed since a moment. A clock that was set back says no.
func within(now, since time.Time, d time.Duration) bool {
	passed := now.Sub(since)
	return passed >= 0 && passed < d
}

func (p *openID) lookUp(ctx context.Context) (*discovered, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, p.Client), p.issuer)
	var mismatch *oidc.IssuerMismatchError
	if errors.As(err, &mismatch) {
		return nil, fmt.Errorf("it is of the issuer %s", safe(mismatch.Discovered))
	}
	if err != nil {
		var sent *url.Error
		if errors.As(err, &sent) {
			return nil, outbound.Reason(err)
		}
		// Of another status go-oidc's error begins with it, and goes on with what came: it may be a page of any length.
		if status, _, ok := strings.Cut(err.Error(), " "); ok && len(status) == 3 && status[0] >= '1' && status[0] <= '9' {
			return nil, errors.New("it answered " + safe(status))
		}
		return nil, errors.New("the answer is no such document: " + safeReason(err))
	}
	d := &discovered{provider: provider, endpoint: provider.Endpoint()}
	var more struct {
		SaysIss bool     `json:"authorization_response_iss_parameter_supported"`
		Auth    []string `json:"token_endpoint_auth_methods_supported"`
		JWKS    string   `json:"jwks_uri"`
	}
	if err := provider.Claims(&more); err != nil {
		return nil, errors.New("the document has a member of another type")
	}
	// The browser is sent to one of them, and the secret to the other.
	for name, address := range map[string]string{"authorization_endpoint": d.endpoint.AuthURL, "token_endpoint": d.endpoint.TokenURL, "jwks_uri": more.JWKS} {
		if err := checkEndpoint(address); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	d.saysIss = more.SaysIss
	// Without a word client_secret_basic is meant (OpenID Connect Discovery 1.0, section 3). To try both would use the code up.
	d.endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if more.Auth != nil && !slices.Contains(more.Auth, "client_secret_basic") {
		d.endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return d, nil
}

// safeReason is the beginning of an error's text, for a line of the log.
func safeReason(err error) string {
	text := []rune(err.Error())
	text = text[:min(len(text), 200)]
	for i, r := range text {
		if r < ' ' || r > '~' {
			text[i] = ' '
		}
	}
	return string(text)
}

// checkEndpoint refuses what no browser, and no secret, may be sent to. An endpoint may have a query.
func checkEndpoint(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Fragment != "" {
		return fmt.Errorf("%q is no address", safe(address))
	}
	u.RawQuery, u.ForceQuery = "", false
	return CheckURL(u.String())
}

func (p *openID) config(d *discovered, a Attempt) *oauth2.Config {
	return &oauth2.Config{ClientID: p.ClientID, ClientSecret: p.ClientSecret, Endpoint: d.endpoint, RedirectURL: a.Return,
		Scopes: []string{oidc.ScopeOpenID, oidc.ScopeEmail, oidc.ScopeProfile}}
}

// Begin is the address of the provider's sign-in.
func (p *openID) Begin(ctx context.Context, a Attempt) (string, error) {
	d, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	return p.config(d, a).AuthCodeURL(a.State, oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)), nil
}

// Finish redeems the code, and verifies the id_token.
func (p *openID) Finish(ctx context.Context, a Attempt, answer url.Values) (*Person, error) {
	d, err := p.discover(ctx)
	if err != nil {
		return nil, err
	}
	code, err := a.code(answer, d.saysIss, p.issuer)
	if err != nil {
		return nil, err
	}
	ctx = oidc.ClientContext(ctx, p.Client)
	token, err := redeem(ctx, p.config(d, a), a, code)
	if err != nil {
		return nil, err
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, fmt.Errorf("%w: there is no id_token", ErrRefused)
	}
	id, err := d.provider.VerifierContext(ctx, &oidc.Config{ClientID: p.ClientID, SupportedSigningAlgs: algorithms, Now: p.Now}).Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrRefused, safeReason(err))
	}
	if a.Nonce == "" || subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(a.Nonce)) != 1 {
		return nil, fmt.Errorf("%w: the id_token is for another attempt", ErrRefused)
	}
	var claims claims
	if err := id.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: the id_token has a claim of another type", ErrRefused)
	}
	// OpenID Connect Core 1.0, section 3.1.3.7: one that is for others too must say that we asked for it.
	if claims.Azp != "" && claims.Azp != p.ClientID || claims.Azp == "" && len(id.Audience) > 1 {
		return nil, fmt.Errorf("%w: the id_token was made for another client", ErrRefused)
	}
	if id.Subject == "" || len(id.Subject) > maxSubject {
		return nil, fmt.Errorf("%w: the id_token's subject is missing, or longer than %d bytes", ErrRefused, maxSubject)
	}
	if id.AccessTokenHash != "" {
		if err := id.VerifyAccessToken(token.AccessToken); err != nil {
			return nil, fmt.Errorf("%w: the id_token is of another access token", ErrRefused)
		}
	}
	if claims.Email == "" && d.provider.UserInfoEndpoint() != "" {
		p.ask(ctx, d, token, id.Subject, &claims)
	}
	return &Person{Issuer: p.issuer, Subject: id.Subject, Email: claims.Email, EmailVerified: claims.Email != "" && bool(claims.EmailVerified), Name: claims.Name, Picture: string(claims.Picture)}, nil
}

// maxSubject is the longest subject, in bytes (OpenID Connect Core 1.0, section 2).
const maxSubject = 255

// ask completes the claims by what the provider's userinfo says, of the same subject. Without it they stay as they are.
func (p *openID) ask(ctx context.Context, d *discovered, token *oauth2.Token, subject string, c *claims) {
	info, err := d.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil || info.Subject != subject {
		p.Logger.Warn("the OpenID provider's userinfo can't be had, and its id_token has no e-mail address", "issuer", p.issuer)
		return
	}
	c.Email, c.EmailVerified = info.Email, yes(info.EmailVerified)
	var more struct {
		Name    string  `json:"name"`
		Picture picture `json:"picture"`
	}
	if err := info.Claims(&more); err != nil {
		return
	}
	if c.Name == "" {
		c.Name = more.Name
	}
	if c.Picture == "" {
		c.Picture = more.Picture
	}
}

// claims are what is read of an id_token beside what go-oidc reads.
type claims struct {
	Azp           string  `json:"azp"`
	Email         string  `json:"email"`
	EmailVerified yes     `json:"email_verified"`
	Name          string  `json:"name"`
	Picture       picture `json:"picture"`
}

// yes is a claim that is true; some providers write it as a text.
type yes bool

// UnmarshalJSON takes anything but true for false.
func (y *yes) UnmarshalJSON(b []byte) error {
	*y = string(b) == "true" || string(b) == `"true"`
	return nil
}
