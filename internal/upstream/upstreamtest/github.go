package upstreamtest

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/persqld/persqld/internal/identity/identitytest"
)

// Email is one of a GitHub user's.
type Email struct {
	Email    string `json:"email"`
	Primary  bool   `json:"primary"`
	Verified bool   `json:"verified"`
}

// GitHub is a GitHub Enterprise Server that listens on 127.0.0.1.
type GitHub struct {
	flow
	URL string

	user   map[string]any
	emails []Email
}

// NewGitHub starts one. It ends with the test.
func NewGitHub(t testing.TB) *GitHub {
	t.Helper()
	p := &GitHub{flow: flow{t: t, codes: map[string]url.Values{}}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login/oauth/authorize", p.authorize)
	mux.HandleFunc("POST /login/oauth/access_token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		answer := url.Values{"access_token": {"gho_test"}, "token_type": {"bearer"}, "scope": {"read:user,user:email"}}
		if _, problem := p.redeem(r, false); problem != "" { // with 200, as GitHub does
			answer = url.Values{"error": {"bad_verification_code"}, "error_description": {"<script>alert(3)</script>"}}
		}
		_, _ = w.Write([]byte(answer.Encode()))
	})
	api := func(what func() any) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if r.Header.Get("Authorization") != "Bearer gho_test" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			identitytest.Send(w, what())
		}
	}
	mux.HandleFunc("GET /api/v3/user", api(func() any { return p.user }))
	mux.HandleFunc("GET /api/v3/user/emails", api(func() any { return p.emails }))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

// Person is who signs in next.
func (p *GitHub) Person(id int, login, name string, emails ...Email) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.user, p.emails = map[string]any{"id": id, "login": login, "name": name}, emails
}

// Picture is what is told as the person's picture; nil is nothing.
func (p *GitHub) Picture(v any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.user["avatar_url"] = v
}

// Settings are those of a server that people sign in to with it.
func (p *GitHub) Settings() []string {
	return []string{"PERSQLD_GITHUB_URL=" + p.URL, "PERSQLD_GITHUB_CLIENT_ID=" + ClientID, "PERSQLD_GITHUB_CLIENT_SECRET=" + ClientSecret, "PERSQLD_ALLOW_NETWORKS=127.0.0.0/8"}
}
