package catalog_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

const theIssuer = "https://issuer.example"

func machine(name, id, owner string) catalog.Machine {
	return catalog.Machine{Issuer: theIssuer, Name: name, ID: id, OwnerID: owner}
}

func home(t testing.TB, c *catalog.Catalog, m catalog.Machine) (*catalog.Identity, bool, error) {
	t.Helper()
	return c.CreateMachineHome(t.Context(), catalog.NewMachineHome{Machine: m, IdentityID: catalog.NewID("mid"), Slug: "machine", DatabaseID: catalog.NewID("db"), Database: "main", Most: 100})
}

func mustHome(t testing.TB, c *catalog.Catalog, m catalog.Machine) *catalog.Identity {
	t.Helper()
	id, made, err := home(t, c, m)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	return id
}

func grantOf(id *catalog.Identity, ends time.Time) catalog.Grant {
	return catalog.Grant{Action: "identity.federated", Machine: machine(id.Name, id.StableID, id.OwnerID), Token: catalog.NewToken{NamespaceID: id.NamespaceID, Name: "m", Via: id.ID, ExpiresAt: ends}}
}

func TestMachineIdentities(t *testing.T) {
	c, clock, path := fresh(t)
	first := mustHome(t, c, machine("Acme/Shop", "7", "1"))
	for range 2 { // before and after a restart
		for _, m := range []catalog.Machine{machine("acme/shop", "7", "1"), machine("ACME/SHOP", "7", "1")} {
			if id, err := c.RecognizeIdentity(t.Context(), m); err != nil || id.ID != first.ID {
				t.Errorf("%+v: %v %v", m, id, err)
			}
			if id, made, err := home(t, c, m); err != nil || made || id.ID != first.ID {
				t.Errorf("made again: %v %v", made, err)
			}
		}
		for name, m := range map[string]catalog.Machine{"made again": machine("acme/shop", "8", "1"), "renamed": machine("acme/store", "7", "1"), "the id left out": machine("acme/shop", "", "1"),
			"of another owner": machine("acme/shop", "7", "2"), "the owner left out": machine("acme/shop", "7", "")} {
			if _, err := c.RecognizeIdentity(t.Context(), m); !errors.Is(err, catalog.ErrIdentityMismatch) {
				t.Errorf("%s: %v", name, err)
			}
			if _, _, err := home(t, c, m); !errors.Is(err, catalog.ErrIdentityMismatch) {
				t.Errorf("%s, made: %v", name, err)
			}
		}
		// Another one of an owner whose name is somebody else's now.
		if _, _, err := home(t, c, machine("acme/new", "9", "2")); !errors.Is(err, catalog.ErrIdentityMismatch) {
			t.Errorf("another owner: %v", err)
		}
		if _, err := c.RecognizeIdentity(t.Context(), machine("acme/new", "9", "1")); !errors.Is(err, catalog.ErrIdentityUnknown) {
			t.Errorf("a new one: %v", err)
		}
		other := machine("acme/shop", "7", "1")
		other.Issuer = "https://other.example"
		if _, err := c.RecognizeIdentity(t.Context(), other); !errors.Is(err, catalog.ErrIdentityUnknown) {
			t.Errorf("of another issuer: %v", err)
		}
		c = reopen(t, c, clock, path)
	}
	// What an issuer begins to say is kept from then on.
	plain := mustHome(t, c, machine("beta/app", "", ""))
	if _, err := c.RecognizeIdentity(t.Context(), machine("beta/app", "55", "5")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.RecognizeIdentity(t.Context(), machine("beta/app", "56", "5")); !errors.Is(err, catalog.ErrIdentityMismatch) {
		t.Errorf("it was not kept: %v", err)
	}
	if got, err := c.Identities(t.Context()); err != nil || len(got) != 2 || got[1].ID != plain.ID || got[1].StableID != "55" {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"", "a b", "a\x00b", "é", strings.Repeat("x", 257)} {
		if _, _, err := home(t, c, machine(bad, "", "")); !errors.Is(err, catalog.ErrIdentityName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestIdentityLimits(t *testing.T) {
	c, _, _ := fresh(t)
	make := func(name string, most, mostOwner int) error {
		_, _, err := c.CreateMachineHome(t.Context(), catalog.NewMachineHome{Machine: machine(name, name, ""), IdentityID: catalog.NewID("mid"), Slug: "m", DatabaseID: catalog.NewID("db"), Database: "main", Most: most, MostOwner: mostOwner})
		return err
	}
	for _, tt := range []struct {
		name            string
		most, mostOwner int
		ok              bool
	}{{"acme/a", 3, 2, true}, {"acme/b", 3, 2, true}, {"acme/c", 3, 2, false}, {"beta/a", 3, 2, true}, {"gamma/a", 3, 2, false}, {"acme/c", 100, 0, true}} {
		if err := make(tt.name, tt.most, tt.mostOwner); (err == nil) != tt.ok || err != nil && !errors.Is(err, catalog.ErrTooManyIdentities) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestRacingMachineHomes(t *testing.T) {
	c, _, _ := fresh(t)
	var all sync.WaitGroup
	var made atomic.Int64
	for range 30 {
		all.Go(func() {
			if _, new, err := home(t, c, machine("acme/shop", "7", "1")); err != nil {
				t.Error(err)
			} else if new {
				made.Add(1)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 || len(c.Namespaces()) != 1 {
		t.Errorf("%d made, %d namespaces", made.Load(), len(c.Namespaces()))
	}
}

// A job that asks each minute fills neither the file nor memory.
func TestMachineTokensAreSwept(t *testing.T) {
	c, clock, path := fresh(t)
	id := mustHome(t, c, machine("acme/shop", "7", "1"))
	byHand, secretByHand := mustToken(t, c, catalog.NewToken{NamespaceID: id.NamespaceID, ExpiresAt: clock.Now().Add(time.Minute)})
	var last string
	for range 200 {
		_, secret, err := c.GrantToken(t.Context(), grantOf(id, clock.Now().Add(time.Hour)))
		if err != nil {
			t.Fatal(err)
		}
		last = secret
		clock.Advance(time.Minute)
		if _, err := c.SweepIdentities(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	list, err := c.ListTokens(t.Context(), catalog.TokenQuery{})
	if err != nil || len(list) > 61 {
		t.Errorf("%d tokens, %v", len(list), err)
	}
	if _, err := c.Authenticate(last); err != nil {
		t.Errorf("one that still works was swept: %v", err)
	}
	// Other tokens stay, so that who looks for one finds that it is expired.
	if _, err := c.Token(t.Context(), byHand.ID); err != nil {
		t.Errorf("a token of another kind was swept: %v", err)
	}
	clock.Advance(2 * time.Hour)
	if n, err := c.SweepIdentities(t.Context()); err != nil || n != 60 && n != 59 {
		t.Errorf("%d swept, %v", n, err)
	}
	before := c.Version()
	if n, err := c.SweepIdentities(t.Context()); err != nil || n != 0 || c.Version() != before {
		t.Errorf("a sweep without work changed something: %d %v", n, err)
	}
	c = reopen(t, c, clock, path)
	for _, secret := range []string{last, secretByHand} {
		if _, err := c.Authenticate(secret); !errors.Is(err, catalog.ErrTokenUnknown) {
			t.Errorf("%v", err)
		}
	}
	if events, err := c.Audit(t.Context(), catalog.AuditQuery{NamespaceID: id.NamespaceID, Action: "identity.federated", Limit: 500}); err != nil || len(events) != 200 {
		t.Errorf("%d entries, %v", len(events), err)
	}
}

func TestAssertionsAreUsedOnce(t *testing.T) {
	c, clock, path := fresh(t)
	ends := clock.Now().Add(time.Hour)
	id := mustHome(t, c, machine("acme/shop", "7", "1"))
	hash, other := catalog.Hash{1}, catalog.Hash{2}
	if err := c.UseAssertion(t.Context(), hash, ends); err != nil {
		t.Fatal(err)
	}
	g := grantOf(id, ends)
	g.Used, g.UsedUntil = &other, ends
	if _, _, err := c.GrantToken(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.UseAssertion(t.Context(), hash, ends); !errors.Is(err, catalog.ErrAssertionUsed) {
			t.Errorf("used twice: %v", err)
		}
		if _, _, err := c.GrantToken(t.Context(), g); !errors.Is(err, catalog.ErrAssertionUsed) {
			t.Errorf("granted twice: %v", err)
		}
		clock.Advance(time.Minute)
		if _, err := c.SweepIdentities(t.Context()); err != nil {
			t.Fatal(err)
		}
		c = reopen(t, c, clock, path)
	}
	// A grant that fails uses nothing up.
	third := catalog.Hash{3}
	g.Used, g.Token.Via = &third, "mid_gone"
	if _, _, err := c.GrantToken(t.Context(), g); !errors.Is(err, catalog.ErrIdentityUnknown) {
		t.Errorf("for nobody: %v", err)
	}
	g.Token.Via = id.ID
	if _, _, err := c.GrantToken(t.Context(), g); err != nil {
		t.Errorf("it was used up: %v", err)
	}
	clock.Advance(2 * time.Hour)
	if _, err := c.SweepIdentities(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.UseAssertion(t.Context(), hash, clock.Now()); err != nil {
		t.Errorf("it is remembered for longer than it is valid: %v", err)
	}
}

func TestForgetIdentity(t *testing.T) {
	c, clock, path := fresh(t)
	id := mustHome(t, c, machine("acme/shop", "7", "1"))
	_, secret, err := c.GrantToken(t.Context(), grantOf(id, clock.Now().Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	_, byHand := mustToken(t, c, catalog.NewToken{NamespaceID: id.NamespaceID})
	if _, n, err := c.ForgetIdentity(t.Context(), theIssuer, "ACME/shop"); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	for range 2 {
		if _, err := c.Authenticate(secret); !errors.Is(err, catalog.ErrTokenUnknown) {
			t.Errorf("its token still opens: %v", err)
		}
		if _, err := c.Authenticate(byHand); err != nil {
			t.Errorf("another token ended too: %v", err)
		}
		c = reopen(t, c, clock, path)
	}
	if _, _, err := c.GrantToken(t.Context(), grantOf(id, clock.Now().Add(time.Hour))); !errors.Is(err, catalog.ErrIdentityUnknown) {
		t.Errorf("a token for who was forgotten: %v", err)
	}
	if second := mustHome(t, c, machine("acme/shop", "8", "1")); second.NamespaceID == id.NamespaceID {
		t.Error("the new one has the old one's namespace")
	}
	if _, _, err := c.ForgetIdentity(t.Context(), theIssuer, "no/body"); !errors.Is(err, catalog.ErrIdentityUnknown) {
		t.Errorf("nobody: %v", err)
	}
}

func TestBindings(t *testing.T) {
	c, clock, path := fresh(t)
	acme, rival := mustNamespace(t, c, "acme"), mustNamespace(t, c, "rival")
	bind := func(ns catalog.Namespace, issuer, name, id string) (*catalog.Binding, bool, error) {
		return c.Bind(t.Context(), catalog.NewBinding{NamespaceID: ns.ID, Issuer: issuer, Name: name, StableID: id})
	}
	open, made, err := bind(acme, "", "Acme/Shop", "")
	if err != nil || !made {
		t.Fatal(made, err)
	}
	if b, made, err := bind(acme, "", "acme/shop", ""); err != nil || made || b.ID != open.ID {
		t.Errorf("again: %v %v", made, err)
	}
	for _, issuer := range []string{"", theIssuer} {
		if _, _, err := bind(rival, issuer, "acme/shop", ""); !errors.Is(err, catalog.ErrIdentityBound) {
			t.Errorf("to another namespace, of %q: %v", issuer, err)
		}
	}
	m := machine("acme/shop", "7", "1")
	// An issuer that doesn't open bindings doesn't take this one.
	foreign := m
	foreign.Issuer = "https://gitlab.example"
	if _, err := c.RecognizeBinding(t.Context(), foreign, false); !errors.Is(err, catalog.ErrBindingNotFound) {
		t.Errorf("of an issuer that isn't meant: %v", err)
	}
	got, err := c.RecognizeBinding(t.Context(), m, true)
	if err != nil || got.ID != open.ID || got.Issuer != theIssuer || got.StableID != "7" || got.NamespaceSlug != "acme" {
		t.Fatalf("%+v %v", got, err)
	}
	for range 2 {
		// From the first use on it is that machine's alone.
		if _, err := c.RecognizeBinding(t.Context(), foreign, true); !errors.Is(err, catalog.ErrBindingNotFound) {
			t.Errorf("of another issuer: %v", err)
		}
		for _, bad := range []catalog.Machine{machine("acme/shop", "8", "1"), machine("acme/shop", "", "1"), machine("acme/shop", "7", "2")} {
			if _, err := c.RecognizeBinding(t.Context(), bad, true); !errors.Is(err, catalog.ErrIdentityMismatch) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
		c = reopen(t, c, clock, path)
	}
	// A binding of an owner whose name is somebody else's now.
	if _, _, err := bind(rival, theIssuer, "acme/second", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.RecognizeBinding(t.Context(), machine("acme/second", "9", "2"), true); !errors.Is(err, catalog.ErrIdentityMismatch) {
		t.Errorf("another owner: %v", err)
	}
	// Another issuer's repository of the same name can be bound elsewhere.
	if _, _, err := bind(rival, "https://gitlab.example", "acme/shop", ""); err != nil {
		t.Error(err)
	}
	d := mustDatabase(t, c, acme, "shop")
	if err := c.SetBindingDatabase(t.Context(), open.ID, d.ID); err != nil {
		t.Fatal(err)
	}
	g := catalog.Grant{Action: "identity.connected", Machine: m, Token: catalog.NewToken{NamespaceID: acme.ID, Database: d.ID, Via: open.ID, ExpiresAt: clock.Now().Add(time.Hour)}}
	_, secret, err := c.GrantToken(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Unbind(t.Context(), rival.ID, open.ID); !errors.Is(err, catalog.ErrBindingNotFound) {
		t.Errorf("unbound by another namespace: %v", err)
	}
	if b, n, err := c.Unbind(t.Context(), acme.ID, open.ID); err != nil || n != 1 || b.DatabaseID != d.ID {
		t.Errorf("%v %d %v", b, n, err)
	}
	if _, err := c.Authenticate(secret); !errors.Is(err, catalog.ErrTokenUnknown) {
		t.Errorf("its token still opens: %v", err)
	}
	if _, _, err := c.GrantToken(t.Context(), g); !errors.Is(err, catalog.ErrIdentityUnknown) {
		t.Errorf("a token for what is unbound: %v", err)
	}
	// Bindings go with their namespace.
	if _, err := c.DeleteNamespace(t.Context(), catalog.Deletion{NamespaceID: rival.ID, Force: true}); err != nil {
		t.Fatal(err)
	}
	if list, err := c.Bindings(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
	if _, _, err := bind(acme, "", "a b", ""); !errors.Is(err, catalog.ErrIdentityName) {
		t.Error(err)
	}
	for i := range 1000 {
		if _, _, err := bind(acme, "", fmt.Sprint("many/", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := bind(acme, "", "one/more", ""); !errors.Is(err, catalog.ErrTooManyBindings) {
		t.Errorf("1001 bindings: %v", err)
	}
}

func TestSigningKeys(t *testing.T) {
	c, clock, path := fresh(t)
	add := func(id string, overlap time.Duration) {
		t.Helper()
		if _, err := c.AddSigningKey(t.Context(), catalog.NewSigningKey{ID: id, Public: "{}", Private: "secret of " + id, Overlap: overlap, Replace: true}); err != nil {
			t.Fatal(err)
		}
	}
	ids := func() (s string) {
		for _, k := range c.SigningKeys() {
			s += k.ID + " "
		}
		return s
	}
	want := func(list string) {
		t.Helper()
		if got := ids(); got != list {
			t.Errorf("keys %q, want %q", got, list)
		}
	}
	// Who needs a key first makes it; who comes second has that one.
	for _, id := range []string{"a", "late"} {
		if k, err := c.AddSigningKey(t.Context(), catalog.NewSigningKey{ID: id, Public: "{}", Private: "secret of " + id}); err != nil || k.ID != "a" {
			t.Fatal(k, err)
		}
	}
	want("a ")
	add("b", time.Hour)
	want("b a ")
	c = reopen(t, c, clock, path)
	want("b a ")
	for _, k := range c.SigningKeys() {
		if secret, err := c.SigningSecret(k); err != nil || secret != "secret of "+k.ID {
			t.Errorf("%s: %q %v", k.ID, secret, err)
		}
	}
	clock.Advance(time.Hour)
	want("b ")
	if _, err := c.SweepIdentities(t.Context()); err != nil {
		t.Fatal(err)
	}
	add("c", time.Hour)
	add("d", 0) // ends all before it at once
	want("d ")
	c = reopen(t, c, clock, path)
	want("d ")
}
