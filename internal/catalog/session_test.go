package catalog_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

func mustUser(t testing.TB, c *catalog.Catalog, email string) *catalog.User {
	t.Helper()
	u, err := c.CreateUser(t.Context(), catalog.NewUser{Email: email, PasswordHash: "hash of " + email})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func mustSession(t testing.TB, c *catalog.Catalog, u *catalog.User) (*catalog.Session, string) {
	t.Helper()
	s, secret, err := c.CreateSession(t.Context(), catalog.NewSession{UserID: u.ID, PasswordHash: u.PasswordHash()})
	if err != nil {
		t.Fatal(err)
	}
	return s, secret
}

func works(c *catalog.Catalog, secret string) bool {
	_, _, err := c.AuthenticateSession(secret)
	return err == nil
}

func TestSessionLives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	clock := newClock()
	start := func() *catalog.Catalog {
		c, err := catalog.Open(t.Context(), path, catalog.Options{Now: clock.Now, SessionIdle: time.Hour, SessionLife: 5 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := start()
	u := mustUser(t, c, "ada@example.com")
	_, idle := mustSession(t, c, u)
	s, used := mustSession(t, c, u)
	step := time.Hour - time.Millisecond
	clock.Advance(step)
	if !works(c, used) || !works(c, idle) {
		t.Error("a session ended before its time")
	}
	clock.Advance(step)
	if !works(c, used) {
		t.Error("the session that is used ended")
	}
	clock.Advance(time.Millisecond)
	if works(c, idle) {
		t.Error("the idle session works for longer than an hour")
	}
	// Neither a restart nor the sweep wakes it up, or takes the other one's last use away.
	if err := c.SweepSessions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(c.Sessions(u.ID)); n != 1 {
		t.Errorf("%d sessions", n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = start()
	clock.Advance(step - time.Millisecond)
	if !works(c, used) || works(c, idle) {
		t.Error("after a restart: the idle one works, or the other doesn't")
	}
	// Without a sweep since: Close writes the last use.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = start()
	clock.Advance(step)
	if !works(c, used) {
		t.Error("the last use was lost")
	}
	idleEnd, last := c.SessionEnds(c.Sessions(u.ID)[0])
	if want := s.CreatedAt.Add(5 * time.Hour); !last.Equal(want) || idleEnd.After(last) {
		t.Errorf("it ends at %v and %v, want %v", idleEnd, last, want)
	}
	// However much it is used.
	for clock.Now().Before(last) {
		if !works(c, used) {
			t.Fatalf("it ended %v too early", last.Sub(clock.Now()))
		}
		clock.Advance(min(step, max(time.Millisecond, last.Sub(clock.Now())/2)))
	}
	if works(c, used) {
		t.Error("it works beyond its life")
	}
}

func TestSessionsEndAtOnce(t *testing.T) {
	c, clock, path := fresh(t)
	ctx := t.Context()
	u, other := mustUser(t, c, "ada@example.com"), mustUser(t, c, "bob@example.com")
	_, others := mustSession(t, c, other)
	var ended []string
	defer func() {
		c = reopen(t, c, clock, path)
		for _, secret := range ended {
			if works(c, secret) {
				t.Error("a restart woke a session up")
			}
		}
		if !works(c, others) {
			t.Error("a restart ended a session")
		}
	}()
	for name, end := range map[string]func(s *catalog.Session) error{
		"sign out":   func(s *catalog.Session) error { return c.EndSession(ctx, s) },
		"everywhere": func(*catalog.Session) error { _, err := c.EndSessions(ctx, u.ID); return err },
		"password": func(*catalog.Session) error {
			_, err := c.ResetPassword(ctx, u.ID, "hash of "+u.Email)
			return err
		},
		"disabled": func(*catalog.Session) error {
			_, err := c.SetDisabled(ctx, u.ID, true)
			if err == nil {
				_, err = c.SetDisabled(ctx, u.ID, false)
			}
			return err
		},
		"signed in again": func(s *catalog.Session) error {
			_, _, err := c.CreateSession(ctx, catalog.NewSession{UserID: other.ID, PasswordHash: other.PasswordHash(), Former: s})
			return err
		},
	} {
		s, secret := mustSession(t, c, u)
		ended = append(ended, secret)
		if !works(c, secret) {
			t.Fatalf("%s: it doesn't work", name)
		}
		if err := end(s); err != nil {
			t.Fatal(err)
		}
		if works(c, secret) || !works(c, others) {
			t.Errorf("%s: the session works, or another user's doesn't", name)
		}
		if err := c.EndSession(ctx, s); err != nil {
			t.Errorf("%s: to end it again: %v", name, err)
		}
	}
}

// TestSignInRacesReset resets the password between its check and the session: nobody is signed in by the old one.
func TestSignInRacesReset(t *testing.T) {
	c, _, _ := fresh(t)
	u := mustUser(t, c, "ada@example.com")
	checked := u.PasswordHash()
	if _, err := c.ResetPassword(t.Context(), u.ID, "new"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.CreateSession(t.Context(), catalog.NewSession{UserID: u.ID, PasswordHash: checked}); !errors.Is(err, catalog.ErrUserNotFound) {
		t.Errorf("got %v", err)
	}
	if err := c.Rehash(t.Context(), u.ID, checked, "the old one, hashed anew"); err != nil {
		t.Fatal(err)
	}
	if now, err := c.User(u.ID); err != nil || now.PasswordHash() != "new" {
		t.Errorf("a rehash undid the reset: %v", err)
	}
}

func TestAuthenticateSessionReadsMemory(t *testing.T) {
	c, _, _ := fresh(t)
	u := mustUser(t, c, "ada@example.com")
	_, secret := mustSession(t, c, u)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if !works(c, secret) {
		t.Error("it needs the file")
	}
	for _, odd := range []string{"", secret[1:], secret + "x", strings.ToLower(secret), strings.ToUpper(secret), strings.Repeat("\x00", len(secret))} {
		if works(c, odd) {
			t.Errorf("%q works", odd)
		}
	}
}

func TestInvitationExpires(t *testing.T) {
	c, clock, _ := fresh(t)
	ctx := t.Context()
	ns := mustNamespace(t, c, "acme")
	u := mustUser(t, c, "ada@example.com")
	in, secret, err := c.CreateInvitation(ctx, catalog.NewInvitation{NamespaceID: ns.ID, Role: catalog.MemberViewer, ExpiresAt: clock.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Hour - time.Millisecond)
	if _, _, err := c.Invitation(ctx, secret); err != nil {
		t.Errorf("before its end: %v", err)
	}
	clock.Advance(time.Millisecond)
	if _, _, err := c.AcceptInvitation(ctx, catalog.Acceptance{Secret: secret, UserID: u.ID}); !errors.Is(err, catalog.ErrInvitationNotFound) {
		t.Errorf("after its end: %v", err)
	}
	if list, err := c.Invitations(ctx, ns.ID); err != nil || len(list) != 0 {
		t.Errorf("%v open, %v", list, err)
	}
	if err := c.RevokeInvitation(ctx, ns.ID, u.ID, in.ID); !errors.Is(err, catalog.ErrLadder) {
		t.Errorf("revoked by a stranger: %v", err)
	}
	clock.Advance(31 * 24 * time.Hour)
	if err := c.SweepInvitations(ctx); err != nil {
		t.Error(err)
	}
}

// TestHomeIsMadeOnce has first sign-ins race, with a namespace of the name there already.
func TestHomeIsMadeOnce(t *testing.T) {
	c, clock, path := fresh(t)
	mustNamespace(t, c, "ada")
	u := mustUser(t, c, "ada@example.com")
	var made int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			ok, err := c.CreateHome(t.Context(), catalog.NewHome{UserID: u.ID, Slug: "ada", DatabaseID: catalog.NewID("db"), Database: "main"})
			if err != nil {
				t.Error(err)
			}
			if ok {
				mu.Lock()
				made++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for range 2 {
		list := c.Memberships(u.ID)
		if made != 1 || len(list) != 1 || list[0].Slug != "ada-2" || list[0].Role != catalog.MemberOwner || len(c.Databases(list[0].ID, catalog.Page{})) != 1 {
			t.Errorf("made %d times: %+v", made, list)
		}
		c = reopen(t, c, clock, path)
	}
	// Who deletes it has none from then on.
	if _, err := c.DeleteNamespace(t.Context(), catalog.Deletion{NamespaceID: c.Memberships(u.ID)[0].ID, By: u.ID, Force: true}); err != nil {
		t.Fatal(err)
	}
	if ok, err := c.CreateHome(t.Context(), catalog.NewHome{UserID: u.ID, Slug: "ada", DatabaseID: catalog.NewID("db"), Database: "main"}); ok || err != nil {
		t.Errorf("made again: %v, %v", ok, err)
	}
}

// TestLongSlugsClash has many people of one long name.
func TestLongSlugsClash(t *testing.T) {
	c, _, _ := fresh(t)
	slug := strings.Repeat("x", 63)
	for i := range 12 {
		u := mustUser(t, c, strings.Repeat("x", i+1)+"@example.com")
		if _, err := c.CreateHome(t.Context(), catalog.NewHome{UserID: u.ID, Slug: slug, DatabaseID: catalog.NewID("db"), Database: "main"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.Namespaces()); n != 12 {
		t.Errorf("%d namespaces", n)
	}
}

// TestDeletedNamespaceAfterRestart looks at what the file says of a namespace that is gone.
func TestDeletedNamespaceAfterRestart(t *testing.T) {
	c, clock, path := fresh(t)
	ctx := t.Context()
	ns := mustNamespace(t, c, "acme")
	u := mustUser(t, c, "ada@example.com")
	if _, err := c.AddMember(ctx, ns.ID, u.ID, catalog.MemberOwner); err != nil {
		t.Fatal(err)
	}
	d := mustDatabase(t, c, ns, "shop")
	_, secret := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID})
	if _, err := c.EnsureOperatorToken(ctx, ns.ID, "psql_live_operatorsOwnTokenWithoutAMarker0000"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteNamespace(ctx, catalog.Deletion{NamespaceID: ns.ID, By: u.ID, Keep: time.Hour}); !errors.Is(err, catalog.ErrNamespaceNotEmpty) {
		t.Errorf("with a database: %v", err)
	}
	if ended, err := c.DeleteNamespace(ctx, catalog.Deletion{NamespaceID: ns.ID, By: u.ID, Force: true, Keep: time.Hour}); err != nil || len(ended) != 1 {
		t.Fatalf("%v, %v", ended, err)
	}
	second := mustNamespace(t, c, "acme")
	for range 2 {
		if _, err := c.Authenticate(secret); !errors.Is(err, catalog.ErrTokenUnknown) {
			t.Errorf("its token: %v", err)
		}
		if _, err := c.Membership("acme", u.ID); !errors.Is(err, catalog.ErrNamespaceNotFound) {
			t.Errorf("its owner: %v", err)
		}
		if _, err := c.Database(second.ID, "shop"); !errors.Is(err, catalog.ErrDatabaseNotFound) {
			t.Errorf("its database: %v", err)
		}
		if _, _, err := c.CreateDatabase(ctx, catalog.NewDatabase{NamespaceID: ns.ID, Slug: "x"}); !errors.Is(err, catalog.ErrNamespaceNotFound) {
			t.Errorf("a database in it: %v", err)
		}
		if _, _, err := c.CreateToken(ctx, catalog.NewToken{NamespaceID: ns.ID}); !errors.Is(err, catalog.ErrNamespaceNotFound) {
			t.Errorf("a token in it: %v", err)
		}
		if _, err := c.UndeleteDatabase(ctx, d.ID, ""); !errors.Is(err, catalog.ErrNamespaceNotFound) {
			t.Errorf("its database back: %v", err)
		}
		if _, err := c.DeleteNamespace(ctx, catalog.Deletion{NamespaceID: ns.ID}); !errors.Is(err, catalog.ErrNamespaceNotFound) {
			t.Errorf("once more: %v", err)
		}
		c = reopen(t, c, clock, path)
	}
	// The setting's token is let in to the new one.
	if token, err := c.EnsureOperatorToken(ctx, second.ID, "psql_live_operatorsOwnTokenWithoutAMarker0000"); err != nil || token.NamespaceID != second.ID {
		t.Errorf("the operator's token: %v", err)
	}
	// Its databases go when their time is over.
	clock.Advance(2 * time.Hour)
	if list, err := c.CondemnOverdue(ctx); err != nil || len(list) != 1 || c.PurgeDatabase(ctx, d.ID) != nil {
		t.Errorf("%v, %v", list, err)
	}
}

func TestFoldEmail(t *testing.T) {
	for email, want := range map[string]string{
		"Ada@Example.COM": "ada@example.com", " a.b+c@x.example ": "a.b+c@x.example", "ä@example.com": "ä@example.com",
		"ada": "", "": "", "Ada <a@b.c>": "", "<a@b.c>": "", "a@b@c": "", `"a b"@c.d`: "", "a@b.c\n": "a@b.c", "a\nb@c.d": "", "a\u200bb@c.d": "", "a\u202eb@c.d": "", "a\u009b1mb@c.d": "", "\ufeffa@c.d": "", "a@c\u00add.e": "", "a\u2003b@c.d": "", strings.Repeat("x", 250) + "@a.bc": "",
	} {
		got, err := catalog.FoldEmail(email)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", email, got, err, want)
		}
	}
}

// TestAccountsAreNotTakenOver makes a user anew, in each way that there is: the former one's password stays.
func TestAccountsAreNotTakenOver(t *testing.T) {
	c, clock, path := fresh(t)
	ctx := t.Context()
	ns := mustNamespace(t, c, "acme")
	u := mustUser(t, c, "ada@example.com")
	_, secret, err := c.CreateInvitation(ctx, catalog.NewInvitation{NamespaceID: ns.ID, Role: catalog.MemberOwner, ExpiresAt: clock.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	n := catalog.NewUser{Email: " ADA@Example.com", PasswordHash: "the attacker's"}
	if _, err := c.CreateUser(ctx, n); !errors.Is(err, catalog.ErrUserExists) {
		t.Errorf("made again: %v", err)
	}
	if _, _, err := c.AcceptInvitation(ctx, catalog.Acceptance{Secret: secret, User: n}); !errors.Is(err, catalog.ErrUserExists) {
		t.Errorf("by an invitation: %v", err)
	}
	for range 2 {
		now, err := c.UserByEmail("ada@example.com")
		if err != nil || now.ID != u.ID || now.PasswordHash() != u.PasswordHash() || len(c.Users()) != 1 || len(c.Members(ns.ID)) != 0 {
			t.Errorf("the account is %+v, %v", now, err)
		}
		if _, _, err := c.Invitation(ctx, secret); err != nil {
			t.Errorf("the invitation is used up: %v", err)
		}
		c = reopen(t, c, clock, path)
	}
}

// TestDisablingEndsInvitations: a link that somebody keeps must not let in after its maker was shut out.
func TestDisablingEndsInvitations(t *testing.T) {
	c, clock, path := fresh(t)
	ctx := t.Context()
	ada, bob := mustUser(t, c, "ada@example.com"), mustUser(t, c, "bob@example.com")
	ns, err := c.CreateNamespaceOf(ctx, "acme", ada.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddMember(ctx, ns.ID, bob.ID, catalog.MemberOwner); err != nil {
		t.Fatal(err)
	}
	var secrets []string
	for _, u := range []*catalog.User{ada, bob} {
		_, secret, err := c.CreateInvitation(ctx, catalog.NewInvitation{NamespaceID: ns.ID, Role: catalog.MemberOwner, InvitedBy: u.ID, ExpiresAt: clock.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, secret)
	}
	if _, err := c.SetDisabled(ctx, ada.ID, true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := c.AcceptInvitation(ctx, catalog.Acceptance{Secret: secrets[0], User: catalog.NewUser{Email: "eve@example.com"}}); !errors.Is(err, catalog.ErrInvitationNotFound) {
			t.Errorf("of one who is disabled: %v", err)
		}
		if _, _, err := c.Invitation(ctx, secrets[1]); err != nil {
			t.Errorf("of another: %v", err)
		}
		c = reopen(t, c, clock, path)
	}
	if _, err := c.SetDisabled(ctx, ada.ID, false); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Invitation(ctx, secrets[0]); !errors.Is(err, catalog.ErrInvitationNotFound) {
		t.Errorf("it came back: %v", err)
	}
}

// TestReservedSlug: while the operator's namespace is gone, nobody else gets its slug, and with it what the operator's programs send to
// it after the next start.
func TestReservedSlug(t *testing.T) {
	ctx := t.Context()
	c, err := catalog.Open(ctx, filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{Reserved: "default"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	u := mustUser(t, c, "default@example.com")
	if _, err := c.CreateNamespaceOf(ctx, "default", u.ID); !errors.Is(err, catalog.ErrNamespaceExists) {
		t.Errorf("by its name: %v", err)
	}
	if made, err := c.CreateHome(ctx, catalog.NewHome{UserID: u.ID, Slug: "default", DatabaseID: "db_x", Database: "main"}); !made || err != nil {
		t.Fatal(made, err)
	}
	if list := c.Memberships(u.ID); len(list) != 1 || list[0].Slug != "default-2" {
		t.Errorf("the user's namespaces are %v", list)
	}
	if _, err := c.CreateNamespace(ctx, "default"); err != nil {
		t.Errorf("by the operator: %v", err)
	}
}
