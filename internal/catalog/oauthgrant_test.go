package catalog_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

// aPerson is a user with a namespace of the user's own.
func aPerson(t testing.TB, c *catalog.Catalog, name string) *catalog.User {
	t.Helper()
	u, err := c.CreateUser(t.Context(), catalog.NewUser{Email: name + "@example.com", PasswordHash: "hash"})
	if err == nil {
		_, err = c.CreateHome(t.Context(), catalog.NewHome{UserID: u.ID, Slug: name, DatabaseID: catalog.NewID("db"), Database: "main"})
	}
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// agree has a user agree to an app's scopes, and returns the code.
func agree(t testing.TB, c *catalog.Catalog, u *catalog.User, clientID string, scopes ...string) string {
	t.Helper()
	home, err := c.HomeOf(u.ID)
	if err != nil {
		t.Fatal(err)
	}
	n := catalog.OAuthConsent{Code: catalog.NewOAuthCode(), UserID: u.ID, ClientID: clientID, Name: "app", Scopes: scopes, RedirectURI: "https://app.example/", AuthAt: time.UnixMilli(1)}
	if slices.Contains(scopes, catalog.OAuthDatabase) {
		n.Database = &catalog.NewDatabase{ID: catalog.NewID("db"), NamespaceID: home.ID, Slug: "app"}
	}
	if _, _, err := c.ConsentOAuth(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return n.Code
}

// granted is a token of the API that an app got.
func granted(t testing.TB, c *catalog.Catalog, u *catalog.User, clientID, payer string) string {
	t.Helper()
	n := catalog.OAuthIssue{Code: agree(t, c, u, clientID, catalog.OAuthDatabase), Scopes: []string{catalog.OAuthDatabase}, Access: catalog.NewTokenSecret(), Name: "app", Payer: payer}
	if _, err := c.IssueOAuth(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return n.Access
}

func TestGrantsAfterRestart(t *testing.T) {
	c, clock, path := fresh(t)
	acme := mustNamespace(t, c, "acme")
	app, _ := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: acme.ID})
	u := aPerson(t, c, "ada")
	token := granted(t, c, u, app.ID, acme.ID)
	n := catalog.OAuthIssue{Code: agree(t, c, u, app.ID, "openid", catalog.OAuthOffline), Scopes: []string{"openid"}, Access: catalog.NewOAuthAccess(), AccessLife: time.Hour, RefreshLife: 2 * time.Hour}
	o, err := c.OAuthCode(t.Context(), n.Code)
	if err != nil {
		t.Fatal(err)
	}
	n.NewRefresh = catalog.NewOAuthRefresh(o.FamilyID)
	if _, err := c.IssueOAuth(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	unused := agree(t, c, u, app.ID, "openid")
	gone := granted(t, c, u, app.ID, acme.ID)
	dead, err := c.Authenticate(gone)
	if err == nil {
		_, err = c.RevokeToken(t.Context(), dead.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := c.Authenticate(token)
		if err != nil || got.OAuth == nil || got.OAuth.Client != app.ID || got.OAuth.Payer != acme.ID || got.Owner != u.ID || got.Role != "readwrite" || got.Database == "" {
			t.Fatalf("%+v %v", got, err)
		}
		if c.Payer(got.ID) != acme.ID || c.Payer(dead.ID) != acme.ID {
			t.Error("who pays is forgotten")
		}
		access, err := c.OAuthAccess(n.Access)
		if err != nil || access.Family.UserID != u.ID || !slices.Equal(access.Scopes, []string{"openid"}) || !access.ExpiresAt.Equal(clock.Now().Add(time.Hour)) {
			t.Errorf("%+v %v", access, err)
		}
		if refresh, err := c.OAuthRefresh(n.NewRefresh); err != nil || !slices.Equal(refresh.Scopes, []string{"openid", catalog.OAuthOffline}) {
			t.Errorf("%+v %v", refresh, err)
		}
		if _, err := c.OAuthCode(t.Context(), n.Code); !errors.Is(err, catalog.ErrOAuthReused) {
			t.Error(err)
		}
		if _, err := c.OAuthCode(t.Context(), unused); err != nil {
			t.Error(err)
		}
		if apps := c.ConnectedApps(u.ID); len(apps) != 1 || len(apps[0].Families) != 2 || apps[0].Database != got.Database {
			t.Errorf("%+v", apps)
		}
		if _, err := c.Authenticate(gone); err == nil {
			t.Error("a revoked token opens")
		}
		c = reopen(t, c, clock, path)
	}
}

// Of many who use the same, one gets something; the others' use ends that.
func TestRacingIssuesMakeOne(t *testing.T) {
	c, _, _ := fresh(t)
	acme := mustNamespace(t, c, "acme")
	app, _ := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: acme.ID})
	u := aPerson(t, c, "ada")
	code := agree(t, c, u, app.ID, "openid", catalog.OAuthOffline)
	o, err := c.OAuthCode(t.Context(), code)
	if err != nil {
		t.Fatal(err)
	}
	race := func(issue func() catalog.OAuthIssue) (won catalog.OAuthIssue) {
		t.Helper()
		var wg sync.WaitGroup
		var mu sync.Mutex
		winners, reused := 0, 0
		for range 8 {
			n := issue()
			wg.Go(func() {
				_, err := c.IssueOAuth(t.Context(), n)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = n
					winners++
				case errors.Is(err, catalog.ErrOAuthReused), errors.Is(err, catalog.ErrOAuthUnknown):
					reused++
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if winners != 1 || reused != 7 {
			t.Errorf("%d won, %d were reuse", winners, reused)
		}
		return won
	}
	won := race(func() catalog.OAuthIssue {
		return catalog.OAuthIssue{Code: code, Scopes: []string{"openid"}, Access: catalog.NewOAuthAccess(), AccessLife: time.Hour, NewRefresh: catalog.NewOAuthRefresh(o.FamilyID), RefreshLife: time.Hour}
	})
	if _, err := c.OAuthAccess(won.Access); !errors.Is(err, catalog.ErrOAuthUnknown) {
		t.Error(err)
	}
	if _, err := c.OAuthRefresh(won.NewRefresh); !errors.Is(err, catalog.ErrOAuthUnknown) {
		t.Error(err)
	}
	first := catalog.OAuthIssue{Code: agree(t, c, u, app.ID, "openid", catalog.OAuthOffline), Scopes: []string{"openid"}, Access: catalog.NewOAuthAccess(), AccessLife: time.Hour, RefreshLife: time.Hour}
	if o, err = c.OAuthCode(t.Context(), first.Code); err != nil {
		t.Fatal(err)
	}
	first.NewRefresh = catalog.NewOAuthRefresh(o.FamilyID)
	if _, err := c.IssueOAuth(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	won = race(func() catalog.OAuthIssue {
		return catalog.OAuthIssue{Refresh: first.NewRefresh, Scopes: []string{"openid"}, Access: catalog.NewOAuthAccess(), AccessLife: time.Hour, NewRefresh: catalog.NewOAuthRefresh(o.FamilyID), RefreshLife: time.Hour}
	})
	for _, token := range []string{first.Access, won.Access} {
		if _, err := c.OAuthAccess(token); !errors.Is(err, catalog.ErrOAuthUnknown) {
			t.Error(err)
		}
	}
}

func TestSweepOfGrants(t *testing.T) {
	c, clock, path := fresh(t)
	acme := mustNamespace(t, c, "acme")
	app, _ := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: acme.ID})
	u := aPerson(t, c, "ada")
	n := catalog.OAuthIssue{Code: agree(t, c, u, app.ID, "openid"), Scopes: []string{"openid"}, Access: catalog.NewOAuthAccess(), AccessLife: time.Hour}
	if _, err := c.IssueOAuth(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	token := granted(t, c, u, app.ID, acme.ID)
	families := func() int { return len(c.ConnectedApps(u.ID)[0].Families) }
	sweep := func() {
		t.Helper()
		if err := c.SweepOAuth(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sweep()
	if _, err := c.OAuthCode(t.Context(), n.Code); !errors.Is(err, catalog.ErrOAuthReused) || families() != 2 {
		t.Errorf("%v, %d families", err, families())
	}
	clock.Advance(10 * time.Minute)
	sweep()
	if _, err := c.OAuthCode(t.Context(), n.Code); !errors.Is(err, catalog.ErrOAuthUnknown) {
		t.Error(err)
	}
	if _, err := c.OAuthAccess(n.Access); err != nil {
		t.Error(err)
	}
	clock.Advance(time.Hour)
	sweep()
	for range 2 {
		if families() != 1 {
			t.Errorf("%d families, want that of the token alone", families())
		}
		if _, err := c.Authenticate(token); err != nil {
			t.Error(err)
		}
		c = reopen(t, c, clock, path)
	}
}

// What is asked for often needs no disk: a token of either kind, what it is, and a refresh token.
func TestOAuthReadsMemory(t *testing.T) {
	c, _, _ := fresh(t)
	acme := mustNamespace(t, c, "acme")
	app, _ := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: acme.ID})
	u := aPerson(t, c, "ada")
	token := granted(t, c, u, app.ID, acme.ID)
	n := catalog.OAuthIssue{Code: agree(t, c, u, app.ID, "openid", catalog.OAuthOffline), Scopes: []string{"openid"}, Access: catalog.NewOAuthAccess(), AccessLife: time.Hour, RefreshLife: time.Hour}
	o, err := c.OAuthCode(t.Context(), n.Code)
	if err != nil {
		t.Fatal(err)
	}
	n.NewRefresh = catalog.NewOAuthRefresh(o.FamilyID)
	if _, err := c.IssueOAuth(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = c.Authenticate(token)
	_, kind := c.OAuthAccess(token)
	_, access := c.OAuthAccess(n.Access)
	_, refresh := c.OAuthRefresh(n.NewRefresh)
	if err := errors.Join(err, kind, access, refresh); err != nil || c.Payer("none") != "" {
		t.Error(err)
	}
}
