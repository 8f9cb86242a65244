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

const idIssuer = "https://id.example.com"

func known(subject string) catalog.NewUserIdentity {
	return catalog.NewUserIdentity{Issuer: idIssuer, Subject: subject, Name: subject + "@example.com"}
}

func TestUserIdentities(t *testing.T) {
	c, clock, path := fresh(t)
	ctx := t.Context()
	identity := known("ada-1")
	ada, err := c.CreateUser(ctx, catalog.NewUser{Email: "ada@example.com", EmailVerified: true, Identity: &identity})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateUser(ctx, catalog.NewUser{Email: "eve@example.com", Identity: &identity}); !errors.Is(err, catalog.ErrIdentityLinked) {
		t.Errorf("the identity of two users: %v", err)
	}
	if _, err := c.UserByEmail("eve@example.com"); err == nil {
		t.Error("half of a user was made")
	}
	bob := mustUser(t, c, "bob@example.com")
	session, _ := mustSession(t, c, bob)
	if _, err := c.LinkIdentity(ctx, catalog.Linking{UserID: bob.ID, Identity: identity, Session: session}); !errors.Is(err, catalog.ErrIdentityLinked) {
		t.Errorf("ada's identity for bob: %v", err)
	}
	if _, err := c.LinkIdentity(ctx, catalog.Linking{UserID: ada.ID, Identity: known("x"), Session: session}); !errors.Is(err, catalog.ErrSessionUnknown) {
		t.Errorf("by the session of another: %v", err)
	}
	if _, err := c.LinkIdentity(ctx, catalog.Linking{UserID: bob.ID, Identity: known("bob-1"), Session: session, VerifiedEmail: "bob@elsewhere.example"}); err != nil {
		t.Fatal(err)
	}
	if u, err := c.User(bob.ID); err != nil || u.EmailVerified {
		t.Errorf("verified by another address: %+v, %v", u, err)
	}
	if _, err := c.LinkIdentity(ctx, catalog.Linking{UserID: bob.ID, Identity: known("bob-2"), Session: session, VerifiedEmail: "bob@example.com"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if u, err := c.User(bob.ID); err != nil || !u.EmailVerified {
			t.Errorf("not verified: %+v, %v", u, err)
		}
		i, err := c.UserIdentity(ctx, idIssuer, "ada-1")
		if err != nil || i.UserID != ada.ID || i.Name != "ada-1@example.com" || !i.LinkedAt.Equal(clock.Now()) {
			t.Errorf("got %+v, %v", i, err)
		}
		for _, other := range [][2]string{{"https://other.example", "ada-1"}, {idIssuer, "ADA-1"}, {idIssuer, ""}} {
			if i, err := c.UserIdentity(ctx, other[0], other[1]); !errors.Is(err, catalog.ErrUserIdentityNotFound) {
				t.Errorf("%v: %+v, %v", other, i, err)
			}
		}
		if list, err := c.UserIdentities(ctx, bob.ID); err != nil || len(list) != 2 || list[0].Subject != "bob-1" {
			t.Errorf("bob's are %v, %v", list, err)
		}
		c = reopen(t, c, clock, path)
	}
	for _, bad := range []catalog.NewUserIdentity{{Issuer: idIssuer}, {Subject: "x"}, {Issuer: idIssuer, Subject: strings.Repeat("x", 256)}, {Issuer: idIssuer, Subject: "\xff"}, {Issuer: strings.Repeat("x", 1025), Subject: "x"}} {
		if _, err := c.CreateUser(ctx, catalog.NewUser{Email: "x@example.com", Identity: &bad}); !errors.Is(err, catalog.ErrUserIdentity) {
			t.Errorf("%.40v: %v", bad, err)
		}
	}
	session, _ = mustSession(t, c, bob)
	for i := 2; i < catalog.MaxUserIdentities; i++ {
		if _, err := c.LinkIdentity(ctx, catalog.Linking{UserID: bob.ID, Identity: known(fmt.Sprint("more-", i)), Session: session}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.LinkIdentity(ctx, catalog.Linking{UserID: bob.ID, Identity: known("one more"), Session: session}); !errors.Is(err, catalog.ErrTooManyUserIdentities) {
		t.Errorf("one more than may be: %v", err)
	}
	if err := c.EndSession(ctx, session); err != nil {
		t.Fatal(err)
	}
	if _, err := c.LinkIdentity(ctx, catalog.Linking{UserID: bob.ID, Identity: known("late"), Session: session}); !errors.Is(err, catalog.ErrSessionUnknown) {
		t.Errorf("after the session's end: %v", err)
	}
}

// A way to sign in is left, among those that there are at present.
func TestUnlinkIdentity(t *testing.T) {
	c, _, _ := fresh(t)
	ctx := t.Context()
	first, password := known("ada-1"), known("bob-1")
	ada, err := c.CreateUser(ctx, catalog.NewUser{Email: "ada@example.com", Identity: &first})
	if err != nil {
		t.Fatal(err)
	}
	bob, err := c.CreateUser(ctx, catalog.NewUser{Email: "bob@example.com", PasswordHash: "hash", Identity: &password})
	if err != nil {
		t.Fatal(err)
	}
	idOf := func(u *catalog.User) string {
		list, err := c.UserIdentities(ctx, u.ID)
		if err != nil || len(list) == 0 {
			t.Fatal(list, err)
		}
		return list[0].ID
	}
	all := catalog.Ways{Password: true, Issuers: []string{idIssuer}}
	for name, try := range map[string]struct {
		user *catalog.User
		ways catalog.Ways
	}{
		"the only one": {ada, all}, "with a password that isn't taken": {bob, catalog.Ways{Issuers: []string{idIssuer}}},
	} {
		if _, err := c.UnlinkIdentity(ctx, try.user.ID, idOf(try.user), try.ways); !errors.Is(err, catalog.ErrLastWay) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.UnlinkIdentity(ctx, bob.ID, idOf(ada), all); !errors.Is(err, catalog.ErrUserIdentityNotFound) {
		t.Errorf("ada's by bob: %v", err)
	}
	i, err := c.UserIdentity(ctx, idIssuer, "ada-1")
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := c.CreateSession(ctx, catalog.NewSession{UserID: ada.ID, Identity: i})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.LinkIdentity(ctx, catalog.Linking{UserID: ada.ID, Identity: catalog.NewUserIdentity{Issuer: "https://gone.example", Subject: "1"}, Session: s}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UnlinkIdentity(ctx, ada.ID, i.ID, all); !errors.Is(err, catalog.ErrLastWay) {
		t.Errorf("what is left is of a provider that is gone: %v", err)
	}
	if _, err := c.LinkIdentity(ctx, catalog.Linking{UserID: ada.ID, Identity: known("ada-2"), Session: s}); err != nil {
		t.Fatal(err)
	}
	// Of two that race for the last two one is left.
	list, err := c.UserIdentities(ctx, ada.ID)
	if err != nil {
		t.Fatal(err)
	}
	var racers sync.WaitGroup
	var done atomic.Int64
	for _, of := range []*catalog.UserIdentity{list[0], list[2]} {
		racers.Go(func() {
			if _, err := c.UnlinkIdentity(ctx, ada.ID, of.ID, all); err == nil {
				done.Add(1)
			} else if !errors.Is(err, catalog.ErrLastWay) {
				t.Error(err)
			}
		})
	}
	racers.Wait()
	if done.Load() != 1 {
		t.Errorf("%d of the last two were unlinked", done.Load())
	}
	if _, err := c.UnlinkIdentity(ctx, bob.ID, idOf(bob), all); err != nil {
		t.Error(err)
	}
}

// Nobody is signed in without a password, by an identity that was unlinked, or by that of another.
func TestSessionByIdentity(t *testing.T) {
	c, _, _ := fresh(t)
	ctx := t.Context()
	first := known("ada-1")
	ada, err := c.CreateUser(ctx, catalog.NewUser{Email: "ada@example.com", PasswordHash: "", Identity: &first})
	if err != nil {
		t.Fatal(err)
	}
	bob := mustUser(t, c, "bob@example.com")
	i, err := c.UserIdentity(ctx, idIssuer, "ada-1")
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]catalog.NewSession{"an empty hash": {UserID: ada.ID}, "the identity of another": {UserID: bob.ID, Identity: i}, "one that is not there": {UserID: ada.ID, Identity: &catalog.UserIdentity{ID: "uid_none"}}} {
		if _, _, err := c.CreateSession(ctx, n); !errors.Is(err, catalog.ErrUserNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, secret, err := c.CreateSession(ctx, catalog.NewSession{UserID: ada.ID, Identity: i})
	if err != nil || !works(c, secret) {
		t.Fatal(err)
	}
	if _, err := c.ChangePassword(ctx, s, "", "hash"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UnlinkIdentity(ctx, ada.ID, i.ID, catalog.Ways{Password: true}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.CreateSession(ctx, catalog.NewSession{UserID: ada.ID, Identity: i}); !errors.Is(err, catalog.ErrUserNotFound) {
		t.Errorf("by an identity that was unlinked: %v", err)
	}
	if !works(c, secret) {
		t.Error("unlinking ended a session")
	}
}

// A user's picture is what a provider of the user's told last; it goes with the identity whose provider told it.
func TestPictures(t *testing.T) {
	c, clock, path := fresh(t)
	ctx := t.Context()
	const one, two, three = "https://pictures.example/1", "https://pictures.example/2", "https://pictures.example/3"
	first := known("ada-1")
	first.Picture = one
	ada, err := c.CreateUser(ctx, catalog.NewUser{Email: "ada@example.com", PasswordHash: "hash of ada@example.com", Identity: &first})
	if err != nil || ada.Picture != one {
		t.Fatal(ada, err)
	}
	is := func(what, want string) {
		t.Helper()
		for range 2 {
			if u, err := c.User(ada.ID); err != nil || u.Picture != want || u.Name != "ada" {
				t.Errorf("%s: %+v, %v", what, u, err)
			}
			if u, err := c.UserByEmail("ada@example.com"); err != nil || u.Picture != want {
				t.Errorf("%s: by the address %+v, %v", what, u, err)
			}
			c = reopen(t, c, clock, path)
		}
	}
	told := func(action string, want bool) {
		t.Helper()
		list, err := c.Audit(ctx, catalog.AuditQuery{Limit: 1})
		if err != nil || len(list) != 1 || list[0].Action != action || (list[0].Metadata["pictureChanged"] == true) != want {
			t.Errorf("%s: %+v, %v", action, list, err)
		}
		if strings.Contains(fmt.Sprint(list[0].Metadata), "pictures.example") {
			t.Errorf("%s: the log has the picture: %v", action, list[0].Metadata)
		}
	}
	identity := func(subject string) *catalog.UserIdentity {
		t.Helper()
		i, err := c.UserIdentity(ctx, idIssuer, subject)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	signIn := func(subject, picture string, changed bool) {
		t.Helper()
		if _, _, err := c.CreateSession(ctx, catalog.NewSession{UserID: ada.ID, Identity: identity(subject), Picture: picture}); err != nil {
			t.Fatal(err)
		}
		told("session.created", changed)
	}
	is("made", one)
	signIn("ada-1", one, false)
	is("the same", one)
	signIn("ada-1", two, true)
	is("another", two)
	mustSession(t, c, ada)
	is("by password", two)
	link := func(subject, picture string, changed bool) {
		t.Helper()
		session, _ := mustSession(t, c, ada)
		n := known(subject)
		n.Picture = picture
		if _, err := c.LinkIdentity(ctx, catalog.Linking{UserID: ada.ID, Identity: n, Session: session}); err != nil {
			t.Fatal(err)
		}
		told("user.linked", changed)
	}
	link("ada-2", "", false)
	is("linked, without one", two)
	link("ada-3", three, true)
	is("linked, with one", three)
	signIn("ada-1", "", false)
	is("one that tells none", three)
	unlink := func(subject string, changed bool) {
		t.Helper()
		if _, err := c.UnlinkIdentity(ctx, ada.ID, identity(subject).ID, catalog.Ways{Password: true}); err != nil {
			t.Fatal(err)
		}
		told("user.unlinked", changed)
	}
	unlink("ada-2", false)
	is("another's end", three)
	unlink("ada-3", true)
	is("unlinked", "")
	signIn("ada-1", one, true)
	is("told again", one)
	signIn("ada-1", "", true)
	is("taken back", "")
	signIn("ada-1", "", false)
	is("still none", "")

	// What fails changes nothing: the identity of nobody, a user who is disabled, the last way.
	if _, _, err := c.CreateSession(ctx, catalog.NewSession{UserID: ada.ID, Identity: &catalog.UserIdentity{ID: "uid_none"}, Picture: two}); !errors.Is(err, catalog.ErrUserNotFound) {
		t.Errorf("got %v", err)
	}
	is("an identity that is not there", "")
	signIn("ada-1", one, true)
	if _, err := c.UnlinkIdentity(ctx, ada.ID, identity("ada-1").ID, catalog.Ways{}); !errors.Is(err, catalog.ErrLastWay) {
		t.Errorf("got %v", err)
	}
	is("the last way", one)
	if _, err := c.SetDisabled(ctx, ada.ID, true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.CreateSession(ctx, catalog.NewSession{UserID: ada.ID, Identity: identity("ada-1"), Picture: two}); !errors.Is(err, catalog.ErrUserNotFound) {
		t.Errorf("got %v", err)
	}
	is("disabled", one)
}

func TestResets(t *testing.T) {
	c, clock, path := fresh(t)
	ctx := t.Context()
	ada := mustUser(t, c, "ada@example.com")
	link := func() string {
		t.Helper()
		secret, err := c.CreateReset(ctx, ada.ID, clock.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	dead := func(secret, why string) {
		t.Helper()
		if u, err := c.Reset(ctx, secret); !errors.Is(err, catalog.ErrResetNotFound) {
			t.Errorf("%s: %+v, %v", why, u, err)
		}
		if _, _, err := c.UseReset(ctx, secret, "hash of a thief"); !errors.Is(err, catalog.ErrResetNotFound) {
			t.Errorf("%s: %v", why, err)
		}
	}
	for _, none := range []string{"", "prst_", "prst_" + strings.Repeat("x", 32), "pinv_" + strings.Repeat("x", 32)} {
		dead(none, "no link")
	}
	if _, err := c.CreateReset(ctx, ada.ID, clock.Now()); !errors.Is(err, catalog.ErrExpiry) {
		t.Errorf("one that is over already: %v", err)
	}
	if _, err := c.CreateReset(ctx, "usr_none", clock.Now().Add(time.Hour)); !errors.Is(err, catalog.ErrUserNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	former, secret := link(), link()
	dead(former, "followed by another")
	clock.Advance(time.Hour - time.Millisecond)
	c = reopen(t, c, clock, path)
	if u, err := c.Reset(ctx, secret); err != nil || u.ID != ada.ID {
		t.Errorf("within its time, after a restart: %+v, %v", u, err)
	}
	clock.Advance(time.Millisecond)
	dead(secret, "over its time")

	secret = link()
	_, cookie := mustSession(t, c, ada)
	var racers sync.WaitGroup
	var used atomic.Int64
	for i := range 8 {
		racers.Go(func() {
			if _, ended, err := c.UseReset(ctx, secret, fmt.Sprint("hash ", i)); err == nil {
				if used.Add(1); ended != 1 {
					t.Errorf("%d sessions ended", ended)
				}
			}
		})
	}
	racers.Wait()
	if used.Load() != 1 || works(c, cookie) {
		t.Errorf("%d used it; the session goes on: %v", used.Load(), works(c, cookie))
	}
	dead(secret, "used")

	now, err := c.User(ada.ID)
	if err != nil || !strings.HasPrefix(now.PasswordHash(), "hash ") {
		t.Fatal(now, err)
	}
	for name, end := range map[string]func() error{
		"a reset by the operator": func() error { _, err := c.ResetPassword(ctx, ada.ID, "hash"); return err },
		"a change": func() error {
			u, err := c.User(ada.ID)
			if err != nil {
				return err
			}
			s, _ := mustSession(t, c, u)
			_, err = c.ChangePassword(ctx, s, u.PasswordHash(), "another hash")
			return err
		},
		"disabling": func() error {
			_, err := c.SetDisabled(ctx, ada.ID, true)
			if err == nil {
				_, err = c.SetDisabled(ctx, ada.ID, false)
			}
			return err
		},
	} {
		secret := link()
		if err := end(); err != nil {
			t.Fatal(name, err)
		}
		dead(secret, name)
	}
}

// A change that was asked with a password which is another by now changes nothing; nor does one by a session that ended.
func TestChangePassword(t *testing.T) {
	c, clock, path := fresh(t)
	ctx := t.Context()
	ada := mustUser(t, c, "ada@example.com")
	mine, cookie := mustSession(t, c, ada)
	_, other := mustSession(t, c, ada)
	if _, err := c.ChangePassword(ctx, mine, "another", "hash"); !errors.Is(err, catalog.ErrUserNotFound) {
		t.Errorf("with another password: %v", err)
	}
	if ended, err := c.ChangePassword(ctx, mine, ada.PasswordHash(), "hash"); err != nil || ended != 1 {
		t.Errorf("%d sessions ended, %v", ended, err)
	}
	for range 2 {
		if !works(c, cookie) || works(c, other) {
			t.Error("the session that asked must go on, and the others end")
		}
		if u, err := c.User(ada.ID); err != nil || u.PasswordHash() != "hash" {
			t.Error(u, err)
		}
		c = reopen(t, c, clock, path)
	}
	if _, err := c.ChangePassword(ctx, mine, "hash", "later"); !errors.Is(err, catalog.ErrUserNotFound) {
		t.Errorf("by a session of a former life: %v", err)
	}
}

// No address becomes another person's by being folded.
func TestFoldedEmailIsNobodyElses(t *testing.T) {
	for _, email := range []string{"\u212aate@example.com", "kate@\u212aey.example", "m\u0130a@example.com", "\u212a@example.com"} {
		if got, err := catalog.FoldEmail(email); !errors.Is(err, catalog.ErrEmail) {
			t.Errorf("%q is %q: %v", email, got, err)
		}
	}
	if got, err := catalog.FoldEmail("Ärger.KATE@Example.com"); err != nil || got != "ärger.kate@example.com" {
		t.Errorf("%q %v", got, err)
	}
}
