package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/oauth2"

	"github.com/persqld/persqld/internal/outbound"
)

// Where GitHub is.
const (
	GitHubURL    = "https://github.com"
	GitHubAPIURL = "https://api.github.com"
)

// gitHub signs in by GitHub's OAuth 2.0, which is no OpenID Connect: who it is, is asked with the access token.
type gitHub struct {
	Options
	site, api string
}

// NewGitHub is GitHub, or a GitHub Enterprise Server where site is its address. An empty api is that of GitHub or, at another site, below it.
func NewGitHub(site, api string, o Options) Provider {
	o.fill()
	if site = strings.TrimRight(site, "/"); site == "" {
		site = GitHubURL
	}
	if api = strings.TrimRight(api, "/"); api == "" && site == GitHubURL {
		api = GitHubAPIURL
	} else if api == "" {
		api = site + "/api/v3"
	}
	return &gitHub{Options: o, site: site, api: api}
}

// Name is the provider's name in addresses.
func (p *gitHub) Name() string { return GitHub }

// Label is what people call it.
func (p *gitHub) Label() string {
	if u, err := url.Parse(p.site); err == nil && p.site != GitHubURL {
		return "GitHub (" + u.Host + ")"
	}
	return "GitHub"
}

// Issuer is where it is.
func (p *gitHub) Issuer() string { return p.site }

func (p *gitHub) config(a Attempt) *oauth2.Config {
	return &oauth2.Config{ClientID: p.ClientID, ClientSecret: p.ClientSecret, RedirectURL: a.Return, Scopes: []string{"read:user", "user:email"},
		Endpoint: oauth2.Endpoint{AuthURL: p.site + "/login/oauth/authorize", TokenURL: p.site + "/login/oauth/access_token", AuthStyle: oauth2.AuthStyleInParams}}
}

// Begin is the address of GitHub's sign-in.
func (p *gitHub) Begin(_ context.Context, a Attempt) (string, error) {
	return p.config(a).AuthCodeURL(a.State, oauth2.S256ChallengeOption(a.Verifier)), nil
}

// Finish redeems the code, and asks whose the token is.
func (p *gitHub) Finish(ctx context.Context, a Attempt, answer url.Values) (*Person, error) {
	code, err := a.code(answer, false, p.site, p.site+"/login/oauth")
	if err != nil {
		return nil, err
	}
	token, err := redeem(context.WithValue(ctx, oauth2.HTTPClient, p.Client), p.config(a), a, code)
	if err != nil {
		return nil, err
	}
	var user struct {
		ID      int64   `json:"id"`
		Login   string  `json:"login"`
		Name    string  `json:"name"`
		Picture picture `json:"avatar_url"`
	}
	if err := p.get(ctx, token, "/user", &user); err != nil {
		return nil, err
	}
	if user.ID <= 0 || user.Login == "" {
		return nil, fmt.Errorf("%w: the user has no id", ErrRefused)
	}
	var emails []struct {
		Email    string `json:"email"`
		Primary  bool   `json:"primary"`
		Verified bool   `json:"verified"`
	}
	if err := p.get(ctx, token, "/user/emails", &emails); err != nil {
		return nil, err
	}
	// The id, not the login: that can go to somebody else.
	person := &Person{Issuer: p.site, Subject: strconv.FormatInt(user.ID, 10), Name: user.Name, Picture: string(user.Picture)}
	if person.Name == "" {
		person.Name = user.Login
	}
	for _, e := range emails {
		if e.Primary && e.Verified {
			person.Email, person.EmailVerified = e.Email, true
		}
	}
	return person, nil
}

// get asks the API for an object.
func (p *gitHub) get(ctx context.Context, token *oauth2.Token, path string, v any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.api+path, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	r.Header.Set("Authorization", "Bearer "+token.AccessToken)
	r.Header.Set("Accept", "application/vnd.github+json")
	r.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	answer, err := p.Client.Do(r)
	if err != nil {
		return fmt.Errorf("%w: GET %s: %w", ErrUnavailable, path, outbound.Reason(err))
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: GET %s answered %d", ErrUnavailable, path, answer.StatusCode)
	}
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("%w: GET %s: %w", ErrUnavailable, path, outbound.Reason(err))
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%w: GET %s did not answer as it should", ErrRefused, path)
	}
	return nil
}
