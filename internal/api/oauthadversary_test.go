package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

// Whoever registers a client of their own has nobody sent on from this server's address who hasn't let it in.
func TestStrangersAppSendsNobodyAway(t *testing.T) {
	h := newAppHouse(t)
	stranger := func(uri string) *testApp {
		return h.app(true, func(n *catalog.NewOAuthClient) { n.NamespaceID, n.RedirectURIs = "", []string{uri} })
	}
	a, own, known := stranger("https://evil.example/login"), stranger("http://127.0.0.1/cb"), h.app(true)
	for _, cookie := range []string{"", h.cookie} {
		for _, change := range [][2]string{{"scope", "no"}, {"response_type", "token"}, {"prompt", "none"}, {"code_challenge", ""}, {"resource", "https://other.example"}} {
			ask := func(a *testApp) (int, string, string) {
				w := h.send(http.MethodGet, authorizePath+"?"+a.request("openid", change[0], change[1]).Encode(), cookie, nil)
				return w.Code, w.Header().Get("Location"), w.Body.String()
			}
			if code, to, page := ask(a); code != http.StatusBadRequest || to != "" || !strings.Contains(page, "https://evil.example/login?error=") {
				t.Errorf("%v: %d to %q", change, code, to)
			}
			// A program on one's own machine waits for the answer, and of an app with a namespace somebody here has agreed to where it leads.
			for _, a := range []*testApp{own, known} {
				if code, to, _ := ask(a); code != http.StatusSeeOther || !strings.HasPrefix(to, a.redirect+"?error=") {
					t.Errorf("%v: %d to %q", change, code, to)
				}
			}
		}
	}
	a.code("openid")
	if q := h.away(h.authorize(a.request("openid", "prompt", "none"))).Query(); q.Get("error") != "consent_required" {
		t.Errorf("of a connected app: %v", q)
	}
}

// The token of the scope database comes with user_email, so the page says so.
func TestConsentTellsOfEmail(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(false)
	for _, scope := range []string{"database", "openid database", "database email"} {
		if n := strings.Count(h.authorize(a.request(scope)).Body.String(), "Your e-mail address"); n != 1 {
			t.Errorf("%s: told %d times", scope, n)
		}
	}
	if got := a.exchange(a.code("database")).ok(t); got.Email == "" {
		t.Error("there is no user_email: the page need not say so")
	}
}

// Who refreshes without end has no more than a few tokens that live, of either kind; the newest is among them.
func TestRefreshingPilesNothingUp(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(true)
	mcp := theIssuer + "/mcp"
	for _, bound := range []bool{false, true} {
		change := []string{}
		lives := func(token string) bool { status, _ := h.userinfo(token); return status == http.StatusOK }
		if bound {
			change = []string{"resource", mcp}
			lives = func(token string) bool { _, err := h.cat.AuthenticateFor(token, mcp); return err == nil }
		}
		q := h.consent(a.request("openid offline_access", change...), "namespace", choiceOf(h.cat.Memberships(h.ada.ID)[0])).Query()
		got := a.exchange(q.Get("code")).ok(t)
		all := []string{got.Access}
		for range 15 {
			h.pass(time.Millisecond)
			got = a.refresh(got.Refresh).ok(t)
			all = append(all, got.Access)
		}
		var living []bool
		for _, token := range all {
			living = append(living, lives(token))
		}
		if i := slices.Index(living, true); i != len(all)-10 || slices.Contains(living[i:], false) {
			t.Errorf("bound %v: %v", bound, living)
		}
	}
}

// A token that is refreshed is short-lived also where the app asks for fewer scopes.
func TestNarrowedTokenLivesNoLonger(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(true)
	q := h.consent(a.request("openid offline_access", "resource", theIssuer+"/mcp"), "namespace", choiceOf(h.cat.Memberships(h.ada.ID)[0])).Query()
	got := a.exchange(q.Get("code")).ok(t)
	if got = a.refresh(got.Refresh, "scope", "openid").ok(t); got.Expires != 3600 {
		t.Errorf("it lives for %d s", got.Expires)
	}
}

// What is held for an app runs no more, whoever approves it, once the app's token is refused.
func TestHeldWriteEndsWithAgreement(t *testing.T) {
	h := newAppHouse(t)
	a := h.app(false)
	token, err := h.cat.Authenticate(a.exchange(a.code("database")).ok(t).Access)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := h.door.bearer(t.Context(), token.ID, token.NamespaceID); err != nil || got.OAuth == nil {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := h.cat.SetDisabled(t.Context(), h.ada.ID, true); err != nil {
		t.Fatal(err)
	}
	if got, err := h.door.bearer(t.Context(), token.ID, token.NamespaceID); err == nil {
		t.Errorf("its user is disabled, and %s may run what was held", got.Name)
	}
}

// No app ends what another one got, though it knows a code or refresh token of it that was used.
func TestAppEndsNothingOfAnother(t *testing.T) {
	h := newAppHouse(t)
	a, b := h.app(false), h.app(true)
	code := a.code("openid offline_access")
	first := a.exchange(code).ok(t)
	b.exchange(code).refused(t, "invalid_grant")
	second := a.refresh(first.Refresh).ok(t)
	b.refresh(first.Refresh).refused(t, "invalid_grant")
	b.refresh(second.Refresh).refused(t, "invalid_grant")
	for _, token := range []string{first.Access, first.Refresh, second.Access, second.Refresh} {
		for _, hint := range []string{"", "access_token", "refresh_token"} {
			form := b.names(token)
			form.Set("token_type_hint", hint)
			if w := h.send(http.MethodPost, revokePath, "", form); w.Code != http.StatusOK {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
	}
	if status, _ := h.userinfo(second.Access); status != http.StatusOK {
		t.Errorf("it ended: %d", status)
	}
	a.refresh(second.Refresh).ok(t)
}

// Nothing that an app got survives a disconnect, whatever came at the same time.
func TestDisconnectIsRacedFor(t *testing.T) {
	h := newAppHouse(t)
	for range 5 {
		a := h.app(false)
		scope := "openid database offline_access"
		got := []tokenAnswer{a.exchange(a.code(scope)).ok(t)}
		g, err := h.cat.OAuthGrantOf(h.ada.ID, a.ID)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		started := make(chan struct{}, 100)
		for range 6 {
			code := a.code(scope)
			wg.Go(func() {
				for n := a.exchange(code); n.status == http.StatusOK; n = a.refresh(n.Refresh) {
					mu.Lock()
					got = append(got, n)
					full := len(got) > 40
					mu.Unlock()
					select {
					case started <- struct{}{}:
					default:
					}
					if full {
						return
					}
				}
			})
		}
		<-started
		if _, err := h.cat.DisconnectOAuth(context.Background(), h.ada.ID, g.ID); err != nil {
			t.Error(err)
		}
		wg.Wait()
		for _, n := range got {
			if status, _ := h.sql(n.Access, n.Database, "SELECT 1"); status != http.StatusUnauthorized {
				t.Errorf("a token lives: %d", status)
			}
			a.refresh(n.Refresh).refused(t, "invalid_grant")
		}
	}
}
