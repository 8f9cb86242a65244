package upstream_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/persqld/persqld/internal/identity/identitytest"
	"github.com/persqld/persqld/internal/outbound"
	"github.com/persqld/persqld/internal/upstream"
	"github.com/persqld/persqld/internal/upstream/upstreamtest"
)

const back = "http://sql.test/login/oidc/callback"

var loopback = outbound.Networks{Any: true, Contains: func(a netip.Addr) bool { return a.IsLoopback() }}

func options(now func() time.Time) upstream.Options {
	return upstream.Options{ClientID: upstreamtest.ClientID, ClientSecret: upstreamtest.ClientSecret, Now: now,
		Client: outbound.NewClient(loopback, outbound.ClientOptions{Timeout: 5 * time.Second, MaxBody: 1 << 20})}
}

// visit is what the provider sends a browser back with that follows an address.
func visit(t testing.TB, address string) url.Values {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	to, err := answer.Location()
	if err != nil {
		t.Fatalf("%s: %d leads nowhere", address, answer.StatusCode)
	}
	if !strings.HasPrefix(to.String(), back+"?") {
		t.Fatalf("it leads to %s", to)
	}
	return to.Query()
}

// signIn goes the whole way.
func signIn(t testing.TB, p upstream.Provider) (*upstream.Person, error) {
	t.Helper()
	a := upstream.NewAttempt(back)
	address, err := p.Begin(t.Context(), a)
	if err != nil {
		return nil, err
	}
	return p.Finish(t.Context(), a, visit(t, address))
}

func ada(change map[string]any) map[string]any {
	c := map[string]any{"sub": "ada-1", "email": "ada@example.com", "email_verified": true, "name": "Ada"}
	for name, v := range change {
		c[name] = v
	}
	return c
}

func TestOpenID(t *testing.T) {
	is := upstreamtest.NewOIDC(t)
	p := upstream.NewOIDC(is.URL, "", options(nil))
	is.Person(ada(nil))
	who, err := signIn(t, p)
	if want := (upstream.Person{Issuer: is.URL, Subject: "ada-1", Email: "ada@example.com", EmailVerified: true, Name: "Ada"}); err != nil || *who != want {
		t.Fatalf("got %+v, %v, want %+v", who, err, want)
	}
	if p.Label() != "127.0.0.1" || p.Name() != "oidc" || p.Issuer() != is.URL {
		t.Errorf("%s, %s, %s", p.Label(), p.Name(), p.Issuer())
	}
	for name, c := range map[string]struct {
		change   map[string]any
		userinfo map[string]any
		email    string
		verified bool
	}{
		"verified as a text":         {change: map[string]any{"email_verified": "true"}, email: "ada@example.com", verified: true},
		"not verified":               {change: map[string]any{"email_verified": false}, email: "ada@example.com"},
		"nothing said":               {change: map[string]any{"email_verified": nil}, email: "ada@example.com"},
		"verified as a number":       {change: map[string]any{"email_verified": 1}, email: "ada@example.com"},
		"no address, but verified":   {change: map[string]any{"email": nil}},
		"userinfo":                   {change: map[string]any{"email": nil}, userinfo: map[string]any{"sub": "ada-1", "email": "ada@b.example", "email_verified": true}, email: "ada@b.example", verified: true},
		"userinfo of somebody else":  {change: map[string]any{"email": nil}, userinfo: map[string]any{"sub": "bob-1", "email": "bob@b.example", "email_verified": true}},
		"audiences with azp":         {change: map[string]any{"aud": []string{"other", upstreamtest.ClientID}, "azp": upstreamtest.ClientID}, email: "ada@example.com", verified: true},
		"access token's hash":        {change: map[string]any{"at_hash": "Pxa-1wifRlPl7yG_0oJNfw"}, email: "ada@example.com", verified: true},
		"a clock that is behind":     {change: map[string]any{"iat": time.Now().Add(time.Minute).Unix()}, email: "ada@example.com", verified: true},
		"a subject of 255 bytes":     {change: map[string]any{"sub": strings.Repeat("s", 255)}, email: "ada@example.com", verified: true},
		"a name that is in userinfo": {change: map[string]any{"name": nil, "email": nil}, userinfo: map[string]any{"sub": "ada-1", "name": "Ada"}},
	} {
		t.Run(name, func(t *testing.T) {
			is.Person(ada(c.change))
			is.UserInfo(c.userinfo)
			defer is.UserInfo(nil)
			who, err := signIn(t, p)
			if err != nil || who.Email != c.email || who.EmailVerified != c.verified {
				t.Errorf("got %+v, %v", who, err)
			}
		})
	}
	if n := is.LookUps(); n != 1 {
		t.Errorf("%d look-ups of the document", n)
	}
}

// What is signed otherwise, by others, for others, or for another time, is nobody's.
func TestOpenIDRefuses(t *testing.T) {
	is := upstreamtest.NewOIDC(t)
	p := upstream.NewOIDC(is.URL, "", options(nil))
	stranger := identitytest.NewRSA(t, is.Key.ID, 2048)
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	for name, c := range map[string]struct {
		change map[string]any
		sign   func(map[string]any) string
	}{
		"another nonce":           {change: map[string]any{"nonce": "another"}},
		"no nonce":                {change: map[string]any{"nonce": nil}},
		"another audience":        {change: map[string]any{"aud": "another"}},
		"no audience":             {change: map[string]any{"aud": nil}},
		"audiences without azp":   {change: map[string]any{"aud": []string{"other", upstreamtest.ClientID}}},
		"another azp":             {change: map[string]any{"azp": "other"}},
		"another issuer":          {change: map[string]any{"iss": "https://evil.example"}},
		"expired":                 {change: map[string]any{"exp": ago(time.Second)}},
		"no expiry":               {change: map[string]any{"exp": nil}},
		"not yet":                 {change: map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}},
		"no subject":              {change: map[string]any{"sub": nil}},
		"a long subject":          {change: map[string]any{"sub": strings.Repeat("s", 256)}},
		"another access token":    {change: map[string]any{"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}},
		"alg none":                {sign: func(c map[string]any) string { return identitytest.Unsigned(c) }},
		"HS256 by the public key": {sign: is.SignedWithPublicKey},
		"HS256 by the secret": {sign: func(c map[string]any) string {
			return identitytest.HMAC([]byte(upstreamtest.ClientSecret), map[string]any{"alg": "HS256"}, c)
		}},
		"another key": {sign: func(c map[string]any) string {
			return identitytest.Sign(stranger, map[string]any{"alg": "RS256", "kid": stranger.ID}, c)
		}},
		// Of the right key, and good but for what we take.
		"PS256":    {sign: func(c map[string]any) string { return is.SignedAs(jose.PS256, c) }},
		"RS512":    {sign: func(c map[string]any) string { return is.SignedAs(jose.RS512, c) }},
		"no token": {sign: func(map[string]any) string { return "" }},
		"garbage":  {sign: func(map[string]any) string { return "<script>alert(1)</script>" }},
	} {
		t.Run(name, func(t *testing.T) {
			is.Person(ada(c.change))
			is.Sign(c.sign)
			defer is.Sign(nil)
			if who, err := signIn(t, p); !errors.Is(err, upstream.ErrRefused) || strings.Contains(err.Error(), "<script") && name != "garbage" {
				t.Errorf("got %+v, %v", who, err)
			}
		})
	}
}

// What comes back must be what was asked for, once, of the provider that was asked.
func TestAnswers(t *testing.T) {
	is := upstreamtest.NewOIDC(t)
	is.SetIss(is.URL)
	p := upstream.NewOIDC(is.URL, "", options(nil))
	is.Person(ada(nil))
	if _, err := signIn(t, p); err != nil {
		t.Fatal(err)
	}
	begin := func() (upstream.Attempt, url.Values) {
		a := upstream.NewAttempt(back)
		address, err := p.Begin(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"code_challenge_method=S256", "nonce=" + a.Nonce, "scope=openid+email+profile", "state=" + a.State} {
			if !strings.Contains(address, want) {
				t.Errorf("%s lacks %s", address, want)
			}
		}
		if strings.Contains(address, a.Verifier) || strings.Contains(address, upstreamtest.ClientSecret) {
			t.Error("the address has a secret")
		}
		return a, visit(t, address)
	}
	for name, c := range map[string]struct {
		change func(a *upstream.Attempt, answer url.Values)
		err    error
	}{
		"another state": {func(a *upstream.Attempt, _ url.Values) { a.State = "another" }, upstream.ErrRefused},
		"no state":      {func(a *upstream.Attempt, answer url.Values) { a.State = ""; answer.Del("state") }, upstream.ErrRefused},
		"another verifier": {func(a *upstream.Attempt, _ url.Values) {
			a.Verifier = "another-verifier-of-at-least-43-characters-0000"
		}, upstream.ErrRefused},
		"another return address": {func(a *upstream.Attempt, _ url.Values) { a.Return = "https://evil.example" }, upstream.ErrRefused},
		"iss of another":         {func(_ *upstream.Attempt, answer url.Values) { answer.Set("iss", "https://evil.example") }, upstream.ErrRefused},
		"no iss, which it sends": {func(_ *upstream.Attempt, answer url.Values) { answer.Del("iss") }, upstream.ErrRefused},
		"code twice":             {func(_ *upstream.Attempt, answer url.Values) { answer.Add("code", "x") }, upstream.ErrRefused},
		"no code":                {func(_ *upstream.Attempt, answer url.Values) { answer.Del("code") }, upstream.ErrRefused},
		"a long code":            {func(_ *upstream.Attempt, answer url.Values) { answer.Set("code", strings.Repeat("x", 5000)) }, upstream.ErrRefused},
		"an error":               {func(_ *upstream.Attempt, answer url.Values) { answer.Set("error", "login_required") }, upstream.ErrRefused},
		"denied":                 {func(_ *upstream.Attempt, answer url.Values) { answer.Set("error", "access_denied") }, upstream.ErrDenied},
		"busy":                   {func(_ *upstream.Attempt, answer url.Values) { answer.Set("error", "temporarily_unavailable") }, upstream.ErrUnavailable},
		"denied by another": {func(_ *upstream.Attempt, answer url.Values) {
			answer.Set("error", "access_denied")
			answer.Set("iss", "https://evil.example")
		}, upstream.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			a, answer := begin()
			c.change(&a, answer)
			if who, err := p.Finish(t.Context(), a, answer); !errors.Is(err, c.err) {
				t.Errorf("got %+v, %v, want %v", who, err, c.err)
			}
		})
	}
	a, answer := begin()
	if _, err := p.Finish(t.Context(), a, answer); err != nil {
		t.Error(err)
	}
	if _, err := p.Finish(t.Context(), a, answer); !errors.Is(err, upstream.ErrRefused) {
		t.Errorf("the code again: %v", err)
	}
}

// A provider that is down is asked again, though not by everybody; one that was known goes on counting.
func TestDiscovery(t *testing.T) {
	is := upstreamtest.NewOIDC(t)
	now := time.Now()
	p := upstream.NewOIDC(is.URL, "Example", options(func() time.Time { return now }))
	is.Person(ada(nil))
	is.Down(true)
	for range 3 {
		if _, err := signIn(t, p); !errors.Is(err, upstream.ErrUnavailable) || strings.Contains(err.Error(), "<") {
			t.Fatalf("got %v", err)
		}
	}
	if n := is.LookUps(); n != 1 {
		t.Errorf("%d look-ups within the time between two", n)
	}
	is.Down(false)
	now = now.Add(6 * time.Second)
	if _, err := signIn(t, p); err != nil {
		t.Fatal(err)
	}
	is.Down(true)
	now = now.Add(2 * time.Minute)
	if _, err := signIn(t, p); err != nil || is.LookUps() != 2 {
		t.Errorf("%v, %d look-ups", err, is.LookUps())
	}
	now = now.Add(time.Hour)
	if _, err := p.Begin(t.Context(), upstream.NewAttempt(back)); err != nil || is.LookUps() != 3 {
		t.Errorf("what is known while it is down: %v, %d look-ups", err, is.LookUps())
	}

	for name, change := range map[string]map[string]any{
		"another issuer":         {"issuer": "https://evil.example"},
		"authorization by http":  {"authorization_endpoint": "http://evil.example/authorize"},
		"authorization by js":    {"authorization_endpoint": "javascript:alert(1)"},
		"the token's by http":    {"token_endpoint": "http://evil.example/token"},
		"no keys":                {"jwks_uri": ""},
		"keys of another scheme": {"jwks_uri": "file:///etc/passwd"},
	} {
		lying := upstreamtest.NewOIDC(t)
		lying.Document(change)
		if _, err := upstream.NewOIDC(lying.URL, "", options(nil)).Begin(t.Context(), upstream.NewAttempt(back)); !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	posting := upstreamtest.NewOIDC(t)
	posting.Person(ada(nil))
	posting.Document(map[string]any{"token_endpoint_auth_methods_supported": []string{"client_secret_post"}})
	if _, err := signIn(t, upstream.NewOIDC(posting.URL, "", options(nil))); err != nil {
		t.Errorf("the secret in the body: %v", err)
	}
}

// What the server asks stays where it may connect to.
func TestOutbound(t *testing.T) {
	is := upstreamtest.NewOIDC(t)
	o := options(nil)
	o.Client = outbound.NewClient(outbound.Networks{}, outbound.ClientOptions{Timeout: time.Second, MaxBody: 1 << 20})
	if _, err := upstream.NewOIDC(is.URL, "", o).Begin(t.Context(), upstream.NewAttempt(back)); !errors.Is(err, upstream.ErrUnavailable) || is.LookUps() != 0 {
		t.Errorf("without a network: %v, %d look-ups", err, is.LookUps())
	}
	o.Client = outbound.NewClient(loopback, outbound.ClientOptions{Timeout: time.Second, MaxBody: 100})
	if _, err := upstream.NewOIDC(is.URL, "", o).Begin(t.Context(), upstream.NewAttempt(back)); !errors.Is(err, upstream.ErrUnavailable) {
		t.Errorf("a document over the limit: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := upstream.NewOIDC(is.URL, "", options(nil)).Begin(ctx, upstream.NewAttempt(back)); err != nil {
		t.Errorf("one who leaves must not end the look-up for all: %v", err)
	}
}

func TestGitHub(t *testing.T) {
	hub := upstreamtest.NewGitHub(t)
	p := upstream.NewGitHub(hub.URL+"/", "", options(nil))
	email := func(address string, primary, verified bool) upstreamtest.Email {
		return upstreamtest.Email{Email: address, Primary: primary, Verified: verified}
	}
	for name, c := range map[string]struct {
		emails []upstreamtest.Email
		want   string
	}{
		"primary and verified":           {[]upstreamtest.Email{email("other@example.com", false, true), email("ada@example.com", true, true)}, "ada@example.com"},
		"primary, not verified":          {[]upstreamtest.Email{email("ada@example.com", true, false), email("other@example.com", false, true)}, ""},
		"none":                           {nil, ""},
		"verified ones, none is primary": {[]upstreamtest.Email{email("ada@example.com", false, true)}, ""},
	} {
		hub.Person(7, "ada", "Ada Lovelace", c.emails...)
		who, err := signIn(t, p)
		if want := (upstream.Person{Issuer: hub.URL, Subject: "7", Email: c.want, EmailVerified: c.want != "", Name: "Ada Lovelace"}); err != nil || *who != want {
			t.Errorf("%s: got %+v, %v, want %+v", name, who, err, want)
		}
	}
	hub.Person(8, "bob", "")
	if who, err := signIn(t, p); err != nil || who.Name != "bob" {
		t.Errorf("got %+v, %v", who, err)
	}
	hub.Person(0, "nobody", "")
	if who, err := signIn(t, p); !errors.Is(err, upstream.ErrRefused) {
		t.Errorf("without an id: %+v, %v", who, err)
	}
	hub.Person(7, "ada", "Ada")
	a := upstream.NewAttempt(back)
	address, err := p.Begin(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	answer := visit(t, address)
	if _, err := p.Finish(t.Context(), a, answer); err != nil {
		t.Error(err)
	}
	if _, err := p.Finish(t.Context(), a, answer); !errors.Is(err, upstream.ErrRefused) || strings.Contains(err.Error(), "<") {
		t.Errorf("the code again: %v", err)
	}
	hub.Deny("access_denied")
	if _, err := signIn(t, p); !errors.Is(err, upstream.ErrDenied) {
		t.Errorf("denied: %v", err)
	}
	if l := upstream.NewGitHub("", "", options(nil)); l.Label() != "GitHub" || l.Issuer() != "https://github.com" {
		t.Errorf("%s at %s", l.Label(), l.Issuer())
	}
}

func TestCheckURL(t *testing.T) {
	for _, good := range []string{"https://id.example.com", "https://id.example.com/realms/x", "http://127.0.0.1:8080", "http://localhost/x", "http://[::1]:1"} {
		if err := upstream.CheckURL(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "id.example.com", "http://id.example.com", "http://10.0.0.1", "https://a:b@id.example.com", "https://id.example.com?x", "https://id.example.com#x", "javascript:alert(1)", "https://", "file:///etc/passwd", "https://id.example.com/ x", "https://" + strings.Repeat("x", 1100)} {
		if upstream.CheckURL(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
