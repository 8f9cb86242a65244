package catalog_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/oauth/redirect"
)

func mustApp(t testing.TB, c *catalog.Catalog, n catalog.NewOAuthClient) (*catalog.OAuthClient, string) {
	t.Helper()
	if n.Name == "" {
		n.Name = "app"
	}
	if n.RedirectURIs == nil {
		n.RedirectURIs = []string{"https://app.example.com/callback"}
	}
	if n.Most == 0 {
		n.Most = 10
	}
	cl, secret, err := c.CreateOAuthClient(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return cl, secret
}

func TestOAuthClientsStay(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	app, secret := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: ns.ID, RedirectURIs: []string{"https://a.example/cb", "http://localhost/cb"}, Scopes: []string{"openid"}, RequirePKCE: true})
	public, none := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: ns.ID, Public: true, RedirectURIs: []string{"cursor://anysphere.cursor-mcp/oauth/callback"}})
	dynamic, _ := mustApp(t, c, catalog.NewOAuthClient{})
	if !strings.HasPrefix(app.ID, "psqlrp_") || !strings.HasPrefix(secret, "psqlrs_") || none != "" || !public.Public || !dynamic.Public || !dynamic.Dynamic {
		t.Fatalf("%+v %q, %+v %q, %+v", app, secret, public, none, dynamic)
	}
	for range 2 {
		got, err := c.OAuthClient(app.ID)
		if err != nil || got.Name != "app" || got.NamespaceID != ns.ID || got.Public || got.Dynamic || !got.RequirePKCE || !slices.Equal(got.RedirectURIs, app.RedirectURIs) ||
			!slices.Equal(got.Scopes, app.Scopes) || !got.CreatedAt.Equal(app.CreatedAt) || len(got.Secrets) != 1 || !strings.HasPrefix(secret, strings.Split(got.Secrets[0].Hint, "…")[0]) {
			t.Fatalf("%+v, %v", got, err)
		}
		if list := c.OAuthClients(ns.ID); len(list) != 2 || list[0].ID != app.ID || list[1].ID != public.ID {
			t.Fatalf("list %+v", list)
		}
		if got, err := c.OAuthClient(dynamic.ID); err != nil || !got.Dynamic || got.NamespaceID != "" {
			t.Fatalf("%+v, %v", got, err)
		}
		for id, want := range map[string]map[string]bool{app.ID: {secret: true, secret + "x": false, strings.ToLower(secret): false, "": false, app.ID: false}, public.ID: {secret: false, "": false}, "psqlrp_x": {secret: false}} {
			for s, ok := range want {
				if c.OAuthClientSecret(id, s) != ok {
					t.Errorf("secret %q of %s: %v", s, id, !ok)
				}
			}
		}
		c = reopen(t, c, clock, path)
	}
	if _, err := c.OAuthClient("psqlrp_x"); !errors.Is(err, catalog.ErrOAuthClientNotFound) {
		t.Error(err)
	}
}

func TestOAuthClientRules(t *testing.T) {
	c, _, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	good := catalog.NewOAuthClient{NamespaceID: ns.ID, Name: "app", RedirectURIs: []string{"https://a.example/cb"}, Most: 2}
	for want, change := range map[error]func(*catalog.NewOAuthClient){
		catalog.ErrOAuthClientName:   func(n *catalog.NewOAuthClient) { n.Name = "" },
		catalog.ErrRedirectURIs:      func(n *catalog.NewOAuthClient) { n.RedirectURIs = nil },
		redirect.ErrURI:              func(n *catalog.NewOAuthClient) { n.RedirectURIs = []string{"cursor://callback"} }, // of a confidential one
		catalog.ErrOAuthScope:        func(n *catalog.NewOAuthClient) { n.Scopes = []string{"a b"} },
		catalog.ErrNamespaceNotFound: func(n *catalog.NewOAuthClient) { n.NamespaceID = "ns_none" },
	} {
		n := good
		change(&n)
		if _, _, err := c.CreateOAuthClient(t.Context(), n); !errors.Is(err, want) {
			t.Errorf("%v instead of %v", err, want)
		}
	}
	var many []string
	for i := range redirect.MaxList + 1 {
		many = append(many, "https://a.example/"+strconv.Itoa(i))
	}
	for _, uris := range [][]string{many, {"https://a.example/", "https://a.example/"}} {
		n := good
		n.RedirectURIs = uris
		if _, _, err := c.CreateOAuthClient(t.Context(), n); !errors.Is(err, catalog.ErrRedirectURIs) {
			t.Errorf("%d URIs: %v", len(uris), err)
		}
	}
	// Whoever races makes no more than may be.
	var made, refused int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, _, err := c.CreateOAuthClient(context.Background(), good)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if errors.Is(err, catalog.ErrTooManyOAuthClients) {
				refused++
			}
		})
	}
	wg.Wait()
	if made != 2 || refused != 18 {
		t.Errorf("%d made, %d refused", made, refused)
	}
}

func TestOAuthClientRotation(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	app, first := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: ns.ID})
	public, _ := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: ns.ID, Public: true})
	rotate := func(overlap time.Duration) string {
		t.Helper()
		_, secret, err := c.RotateOAuthClientSecret(t.Context(), ns.ID, app.ID, overlap)
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	check := func(when string, want map[string]bool) {
		t.Helper()
		for s, ok := range want {
			if c.OAuthClientSecret(app.ID, s) != ok {
				t.Errorf("%s: a secret opens: %v", when, !ok)
			}
		}
	}
	second := rotate(time.Hour)
	check("after rotation", map[string]bool{first: true, second: true})
	clock.Advance(time.Hour - time.Millisecond)
	c = reopen(t, c, clock, path)
	check("at the end", map[string]bool{first: true, second: true})
	clock.Advance(time.Millisecond)
	check("after the end", map[string]bool{first: false, second: true})
	if got, _ := c.OAuthClient(app.ID); len(c.LivingSecrets(got)) != 1 {
		t.Errorf("listed: %+v", c.LivingSecrets(got))
	}
	third := rotate(time.Hour)
	check("again", map[string]bool{first: false, second: true, third: true})
	fourth := rotate(0) // a shorter overlap counts for those before too
	check("without overlap", map[string]bool{second: false, third: false, fourth: true})
	c = reopen(t, c, clock, path)
	check("after a start", map[string]bool{second: false, third: false, fourth: true})
	for range 4 {
		rotate(time.Hour)
	}
	if _, _, err := c.RotateOAuthClientSecret(t.Context(), ns.ID, app.ID, time.Hour); !errors.Is(err, catalog.ErrTooManyOAuthSecrets) {
		t.Errorf("the sixth secret: %v", err)
	}
	check("after a refusal", map[string]bool{fourth: true})
	last := rotate(0)
	check("all at once", map[string]bool{fourth: false, last: true})
	if _, _, err := c.RotateOAuthClientSecret(t.Context(), ns.ID, public.ID, 0); !errors.Is(err, catalog.ErrOAuthClientPublic) {
		t.Error(err)
	}
}

func TestOAuthClientEnds(t *testing.T) {
	c, clock, path := fresh(t)
	acme, other := mustNamespace(t, c, "acme"), mustNamespace(t, c, "other")
	app, secret := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: acme.ID})
	kept, keptSecret := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: acme.ID})
	foreign, foreignSecret := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: other.ID})
	dynamic, _ := mustApp(t, c, catalog.NewOAuthClient{})
	// A token that it got, in the namespace of somebody else.
	ada := aPerson(t, c, "ada")
	token := granted(t, c, ada, app.ID, acme.ID)
	for _, id := range []string{foreign.ID, dynamic.ID, "psqlrp_x"} {
		if _, err := c.DeleteOAuthClient(t.Context(), acme.ID, id); !errors.Is(err, catalog.ErrOAuthClientNotFound) {
			t.Errorf("delete %s: %v", id, err)
		}
		if _, _, err := c.RotateOAuthClientSecret(t.Context(), acme.ID, id, 0); !errors.Is(err, catalog.ErrOAuthClientNotFound) {
			t.Errorf("rotate %s: %v", id, err)
		}
		if _, err := c.UpdateOAuthClient(t.Context(), acme.ID, id, func(cl *catalog.OAuthClient) error { cl.Name = "mine"; return nil }); !errors.Is(err, catalog.ErrOAuthClientNotFound) {
			t.Errorf("update %s: %v", id, err)
		}
	}
	if _, err := c.DeleteOAuthClient(t.Context(), "", dynamic.ID); !errors.Is(err, catalog.ErrOAuthClientNotFound) {
		t.Errorf("delete a registration by no namespace: %v", err)
	}
	if _, err := c.DeleteOAuthClient(t.Context(), acme.ID, app.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.OAuthClient(app.ID); !errors.Is(err, catalog.ErrOAuthClientNotFound) || c.OAuthClientSecret(app.ID, secret) {
			t.Errorf("deleted: %v", err)
		}
		if _, err := c.Authenticate(token); !errors.Is(err, catalog.ErrTokenUnknown) {
			t.Errorf("the token that it got: %v", err)
		}
		if !c.OAuthClientSecret(kept.ID, keptSecret) {
			t.Error("another app's secret ended too")
		}
		c = reopen(t, c, clock, path)
	}
	token = granted(t, c, ada, kept.ID, acme.ID)
	if _, err := c.DeleteNamespace(t.Context(), catalog.Deletion{NamespaceID: acme.ID}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.OAuthClient(kept.ID); !errors.Is(err, catalog.ErrOAuthClientNotFound) || c.OAuthClientSecret(kept.ID, keptSecret) {
			t.Errorf("the namespace is gone: %v", err)
		}
		if _, err := c.Authenticate(token); !errors.Is(err, catalog.ErrTokenUnknown) {
			t.Errorf("the token that it got: %v", err)
		}
		if !c.OAuthClientSecret(foreign.ID, foreignSecret) || len(c.OAuthApps()) != 1 {
			t.Error("another namespace's app ended too")
		}
		if _, err := c.OAuthClient(dynamic.ID); err != nil {
			t.Error(err)
		}
		c = reopen(t, c, clock, path)
	}
}

func TestOAuthClientUpdate(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	app, secret := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: ns.ID})
	_, err := c.UpdateOAuthClient(t.Context(), ns.ID, app.ID, func(cl *catalog.OAuthClient) error {
		cl.Name, cl.RedirectURIs, cl.Scopes, cl.RequirePKCE = "other", []string{"https://b.example/"}, []string{"openid", "email"}, true
		cl.ID, cl.NamespaceID, cl.Public, cl.Secrets = "psqlrp_x", "ns_x", true, nil // none of that counts
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := c.OAuthClient(app.ID)
		if err != nil || got.Name != "other" || !slices.Equal(got.RedirectURIs, []string{"https://b.example/"}) || !slices.Equal(got.Scopes, []string{"openid", "email"}) || !got.RequirePKCE ||
			got.NamespaceID != ns.ID || got.Public || !c.OAuthClientSecret(app.ID, secret) {
			t.Fatalf("%+v, %v", got, err)
		}
		c = reopen(t, c, clock, path)
	}
	if app.Name != "app" || app.RedirectURIs[0] != "https://app.example.com/callback" {
		t.Error("what was handed out has changed")
	}
	if _, err := c.UpdateOAuthClient(t.Context(), ns.ID, app.ID, func(cl *catalog.OAuthClient) error { cl.RedirectURIs[0] = "javascript:alert(1)"; return nil }); !errors.Is(err, redirect.ErrURI) {
		t.Error(err)
	}
	if got, _ := c.OAuthClient(app.ID); got.RedirectURIs[0] != "https://b.example/" {
		t.Error("a refused change has changed what is there")
	}
	actions := []string{}
	list, err := c.Audit(t.Context(), catalog.AuditQuery{NamespaceID: ns.ID, Limit: 10})
	for _, e := range list {
		actions = append(actions, e.Action)
	}
	if err != nil || !slices.Equal(actions, []string{"oauth_client.updated", "oauth_client.created", "namespace.created"}) {
		t.Errorf("audit log: %v, %v", actions, err)
	}
}

func TestOAuthRegistrationsGo(t *testing.T) {
	c, clock, path := fresh(t)
	register := func(name string) (*catalog.OAuthClient, error) {
		cl, _, err := c.CreateOAuthClient(t.Context(), catalog.NewOAuthClient{Name: name, RedirectURIs: []string{"http://localhost/cb"}, Most: 3})
		return cl, err
	}
	there := func(cl *catalog.OAuthClient) bool {
		_, err := c.OAuthClient(cl.ID)
		return err == nil
	}
	sweep := func() int {
		t.Helper()
		n, err := c.SweepOAuthClients(t.Context(), 24*time.Hour, 90*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	ns := mustNamespace(t, c, "acme")
	app, _ := mustApp(t, c, catalog.NewOAuthClient{NamespaceID: ns.ID})
	used, _ := register("used")
	if err := c.UseOAuthClient(t.Context(), used.ID); err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Minute)
	first, _ := register("first")
	second, _ := register("second")
	if _, err := register("too many"); !errors.Is(err, catalog.ErrTooManyOAuthClients) {
		t.Errorf("all are new or used: %v", err)
	}
	clock.Advance(time.Hour + time.Minute)
	third, err := register("third")
	if err != nil || there(first) || !there(second) || !there(used) || !there(third) {
		t.Fatalf("the oldest that nobody has used gives way: %v", err)
	}
	c = reopen(t, c, clock, path)
	if there(first) || !there(second) || !there(used) || !there(third) {
		t.Error("not after a start")
	}
	clock.Advance(23*time.Hour - time.Minute)
	if n := sweep(); n != 1 || there(second) || !there(third) {
		t.Errorf("%d swept", n)
	}
	clock.Advance(60 * 24 * time.Hour)
	if n := sweep(); n != 1 || there(third) || !there(used) {
		t.Errorf("%d swept", n)
	}
	if err := c.UseOAuthClient(t.Context(), used.ID); err != nil {
		t.Fatal(err)
	}
	c = reopen(t, c, clock, path)
	clock.Advance(90*24*time.Hour - time.Minute)
	if n := sweep(); n != 0 || !there(used) {
		t.Errorf("%d swept", n)
	}
	clock.Advance(time.Minute)
	if n := sweep(); n != 1 || there(used) || !there(app) {
		t.Errorf("%d swept", n)
	}
	var actions []string
	list, err := c.Audit(t.Context(), catalog.AuditQuery{Limit: 100})
	for _, e := range list {
		actions = append(actions, e.Action+" "+e.TargetName)
	}
	// Strangers don't fill the log: it tells of what somebody let in.
	if err != nil || !slices.Equal(actions, []string{"oauth_client.forgotten used", "oauth_client.registered used"}) {
		t.Errorf("audit log: %v, %v", actions, err)
	}
}
