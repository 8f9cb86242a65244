package catalog_test

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

var (
	live = regexp.MustCompile(`^psql_live_p1_[0-9A-Za-z]{38}$`)
	test = regexp.MustCompile(`^psql_test_p1_[0-9A-Za-z]{38}$`)
)

func TestTokenForm(t *testing.T) {
	c, _, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	seen := map[string]bool{}
	for range 20 {
		_, secret := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID})
		if !live.MatchString(secret) || seen[secret] {
			t.Fatalf("token %q: malformed or given out before", secret)
		}
		seen[secret] = true
	}
	token, secret := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID, Name: "ci", Test: true})
	if !test.MatchString(secret) {
		t.Fatalf("test token %q is malformed", secret)
	}
	body := strings.TrimPrefix(secret, "psql_test_p1_")
	if want := "psql_test_" + body[:4] + "…" + body[len(body)-4:]; token.Hint != want {
		t.Errorf("hint %q, want %q", token.Hint, want)
	}
	if token.Role != "admin" || !token.Test || !token.Unscoped() || token.NamespaceSlug != "acme" || token.Name != "ci" {
		t.Errorf("token %+v", token)
	}
}

func TestAuthenticateRefuses(t *testing.T) {
	c, _, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	_, good := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID})
	flipped := []byte(good)
	if flipped[20] == 'x' {
		flipped[20] = 'y'
	} else {
		flipped[20] = 'x'
	}
	tests := []struct {
		name, token string
		want        error
	}{
		{"nothing", "", catalog.ErrTokenFormat},
		{"another family", "sk_live_0123456789012345678901234567890123", catalog.ErrTokenFormat},
		{"prefix alone", "psql_live_", catalog.ErrTokenFormat},
		{"31 characters", "psql_live_" + strings.Repeat("a", 31), catalog.ErrTokenFormat},
		{"32 characters", "psql_live_" + strings.Repeat("a", 32), catalog.ErrTokenUnknown},
		{"245 characters", "psql_live_" + strings.Repeat("a", 245), catalog.ErrTokenUnknown},
		{"246 characters", "psql_live_" + strings.Repeat("a", 246), catalog.ErrTokenFormat},
		{"a space", "psql_live_" + strings.Repeat("a", 32) + " x", catalog.ErrTokenFormat},
		{"not ASCII", "psql_live_" + strings.Repeat("ä", 32), catalog.ErrTokenFormat},
		{"wrong case of the prefix", "PSQL_live_" + strings.Repeat("a", 32), catalog.ErrTokenFormat},
		{"mistyped", string(flipped), catalog.ErrTokenUnknown},
		{"cut short", good[:len(good)-1], catalog.ErrTokenUnknown},
		{"too long", good + "a", catalog.ErrTokenUnknown},
		{"live as test", strings.Replace(good, "live", "test", 1), catalog.ErrTokenUnknown},
		{"the hosted product's", "psql_live_s0_" + strings.Repeat("Z", 40), catalog.ErrTokenUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := c.Authenticate(tt.token); !errors.Is(err, tt.want) || got != nil {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
	if _, err := c.Authenticate(good); err != nil {
		t.Errorf("the good token: %v", err)
	}
}

// Every change of one character is caught by the checksum, without a look-up.
func TestChecksumCatchesTypos(t *testing.T) {
	c, _, _ := fresh(t)
	_, good := mustToken(t, c, catalog.NewToken{NamespaceID: mustNamespace(t, c, "acme").ID})
	if err := catalog.CheckToken(good); err != nil {
		t.Fatal(err)
	}
	for i := len("psql_live_p1_"); i < len(good); i++ {
		typo := []byte(good)
		for typo[i] = '0'; typo[i] <= 'z'; typo[i]++ {
			if typo[i] == good[i] {
				continue
			}
			if err := catalog.CheckToken(string(typo)); err == nil {
				t.Fatalf("%s passes for %s", typo, good)
			}
		}
	}
}

func TestAuthenticateAllocatesNothing(t *testing.T) {
	c, _, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	_, secret := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID, ExpiresAt: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)})
	mustDatabase(t, c, ns, "orders")
	if n := testing.AllocsPerRun(100, func() {
		token, err := c.Authenticate(secret)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Database(token.NamespaceID, "orders"); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// After Close no disk is read any more, and tokens are known all the same.
func TestAuthenticateReadsMemory(t *testing.T) {
	c, _, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	_, secret := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Authenticate(secret); err != nil {
		t.Error(err)
	}
	if _, err := c.CreateNamespace(t.Context(), "late"); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("a change after Close: %v", err)
	}
}

func TestTokenExpires(t *testing.T) {
	c, clock, _ := fresh(t)
	ns := mustNamespace(t, c, "acme")
	_, secret := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID, ExpiresAt: clock.Now().Add(time.Hour)})
	clock.Advance(time.Hour - time.Millisecond)
	if _, err := c.Authenticate(secret); err != nil {
		t.Fatalf("before its time: %v", err)
	}
	clock.Advance(time.Millisecond)
	if _, err := c.Authenticate(secret); !errors.Is(err, catalog.ErrTokenUnknown) {
		t.Fatalf("at its time: %v", err)
	}
	if _, _, err := c.CreateToken(t.Context(), catalog.NewToken{NamespaceID: ns.ID, ExpiresAt: clock.Now()}); !errors.Is(err, catalog.ErrExpiry) {
		t.Errorf("born expired: %v", err)
	}
}

func TestCreateTokenRefuses(t *testing.T) {
	c, _, _ := fresh(t)
	acme, other := mustNamespace(t, c, "acme"), mustNamespace(t, c, "other")
	foreign := mustDatabase(t, c, other, "orders")
	tests := []struct {
		name string
		n    catalog.NewToken
		want error
	}{
		{"no namespace", catalog.NewToken{}, catalog.ErrNamespaceNotFound},
		{"no such database", catalog.NewToken{NamespaceID: acme.ID, Database: "db_x"}, catalog.ErrDatabaseNotFound},
		{"another's database", catalog.NewToken{NamespaceID: acme.ID, Database: foreign.ID}, catalog.ErrDatabaseNotFound},
		{"a role in another case", catalog.NewToken{NamespaceID: acme.ID, Role: "ReadOnly"}, catalog.ErrRole},
		{"a scope of nothing", catalog.NewToken{NamespaceID: acme.ID, TableScope: []string{}}, catalog.ErrTableScope},
		{"a scope with an empty name", catalog.NewToken{NamespaceID: acme.ID, TableScope: []string{"a", ""}}, catalog.ErrTableScope},
		{"a scope of too many", catalog.NewToken{NamespaceID: acme.ID, TableScope: slices.Repeat([]string{"a"}, 201)}, catalog.ErrTableScope},
		{"no role", catalog.NewToken{NamespaceID: acme.ID, Role: "root"}, catalog.ErrRole},
		{"a long name", catalog.NewToken{NamespaceID: acme.ID, Name: strings.Repeat("x", 201)}, catalog.ErrName},
		{"a name of two lines", catalog.NewToken{NamespaceID: acme.ID, Name: "a\nb"}, catalog.ErrName},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, secret, err := c.CreateToken(t.Context(), tt.n); !errors.Is(err, tt.want) || secret != "" {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// While readers hammer, each token that was revoked is refused from the moment that RevokeToken returns.
func TestRevokeHoldsAtOnce(t *testing.T) {
	c, clock, path := fresh(t)
	ns := mustNamespace(t, c, "acme")
	const n = 50
	var ids, secrets [n]string
	for i := range n {
		token, secret := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID})
		ids[i], secrets[i] = token.ID, secret
	}
	var revoked atomic.Int64 // tokens before this index are revoked
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for !stop.Load() {
				bound := int(revoked.Load())
				for i := range n {
					_, err := c.Authenticate(secrets[i])
					if i < bound && err == nil {
						t.Errorf("token %d is let in after its revocation", i)
						return
					}
					if err != nil && int64(i) > revoked.Load() {
						t.Errorf("token %d is refused before its revocation: %v", i, err)
						return
					}
				}
			}
		})
	}
	for i := range n {
		if _, err := c.RevokeToken(t.Context(), ids[i]); err != nil {
			t.Fatal(err)
		}
		revoked.Store(int64(i + 1))
	}
	stop.Store(true)
	readers.Wait()

	if _, err := c.RevokeToken(t.Context(), "tok_none"); !errors.Is(err, catalog.ErrTokenNotFound) {
		t.Errorf("revoking nothing: %v", err)
	}
	first, err := c.RevokeToken(t.Context(), ids[0])
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Hour)
	again, err := c.RevokeToken(t.Context(), ids[0])
	if err != nil || !again.RevokedAt.Equal(first.RevokedAt) {
		t.Errorf("revoked again at %v, %v, want %v", again.RevokedAt, err, first.RevokedAt)
	}
	c = reopen(t, c, clock, path)
	if _, err := c.Authenticate(secrets[0]); !errors.Is(err, catalog.ErrTokenUnknown) {
		t.Errorf("revoked and let in after a restart: %v", err)
	}
}

func TestListTokens(t *testing.T) {
	c, _, _ := fresh(t)
	acme, other := mustNamespace(t, c, "acme"), mustNamespace(t, c, "other")
	a, _ := mustToken(t, c, catalog.NewToken{NamespaceID: acme.ID, Name: "a"})
	mustToken(t, c, catalog.NewToken{NamespaceID: acme.ID, Name: "b"})
	mustToken(t, c, catalog.NewToken{NamespaceID: other.ID, Name: "c"})
	if _, err := c.RevokeToken(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ namespace, want string }{{acme.ID, "ba"}, {other.ID, "c"}, {"", "cba"}, {"ns_none", ""}} {
		list, err := c.ListTokens(t.Context(), catalog.TokenQuery{NamespaceID: tt.namespace})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, token := range list {
			got += token.Name
			if revoked := !token.RevokedAt.IsZero(); revoked != (token.ID == a.ID) {
				t.Errorf("token %s revoked: %v", token.Name, revoked)
			}
		}
		if got != tt.want {
			t.Errorf("tokens of %q: %q, want %q", tt.namespace, got, tt.want)
		}
	}
}

func TestOperatorToken(t *testing.T) {
	c, clock, path := fresh(t)
	acme, other := mustNamespace(t, c, "acme"), mustNamespace(t, c, "other")
	first := "psql_live_" + strings.Repeat("first-", 6)
	second := "psql_live_" + strings.Repeat("second", 6)

	ensure := func(secret string) *catalog.Token {
		t.Helper()
		token, err := c.EnsureOperatorToken(t.Context(), acme.ID, secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Authenticate(secret); err != nil || got.ID != token.ID {
			t.Fatalf("the token that was set: %v, %v", got, err)
		}
		return token
	}
	refused := func(secret string, want error) {
		t.Helper()
		if _, err := c.Authenticate(secret); !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
	token := ensure(first)
	if again := ensure(first); again.ID != token.ID {
		t.Error("the same setting made a second token")
	}
	c = reopen(t, c, clock, path)
	if again := ensure(first); again.ID != token.ID {
		t.Error("a restart made a second token")
	}
	ensure(second) // a changed setting
	refused(first, catalog.ErrTokenUnknown)
	ensure(first) // and turned back
	refused(second, catalog.ErrTokenUnknown)

	_, byHand := mustToken(t, c, catalog.NewToken{NamespaceID: acme.ID})
	ensure(byHand)
	refused(first, catalog.ErrTokenUnknown)
	ensure(second) // what was made by hand stays
	if _, err := c.Authenticate(byHand); err != nil {
		t.Errorf("the token made by hand: %v", err)
	}
	if _, err := c.EnsureOperatorToken(t.Context(), other.ID, second); !errors.Is(err, catalog.ErrTokenTaken) {
		t.Errorf("in another namespace: %v", err)
	}
	if _, err := c.RevokeToken(t.Context(), ensure(second).ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnsureOperatorToken(t.Context(), acme.ID, second); !errors.Is(err, catalog.ErrTokenRevoked) {
		t.Errorf("revoked and set again: %v", err)
	}
	refused(second, catalog.ErrTokenUnknown)
	for secret, want := range map[string]error{
		"secret": catalog.ErrTokenFormat,
		"psql_live_p1_" + strings.Repeat("x", 38): catalog.ErrTokenUnknown,
	} {
		if _, err := c.EnsureOperatorToken(t.Context(), acme.ID, secret); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", secret, err, want)
		}
	}
}
