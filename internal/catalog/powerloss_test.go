package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/sqlite/crashfs"
)

// step is one acknowledged change: what the catalog must answer from then on, unless a later step takes it back.
type step struct {
	about string // what it is about: a later step about the same replaces it
	holds func(c *catalog.Catalog) error
}

// onDisk is a recorded disk, and the name of its layer under SQLite. With made there is a catalog on it, whole and durable.
func onDisk(t *testing.T, made bool) (rec *crashfs.Recorder, path, vfs string) {
	t.Helper()
	if err := sqlite.Initialize(sqlite.Setup{}); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if made {
		c, err := catalog.Open(t.Context(), filepath.Join(root, "catalog.db"), catalog.Options{})
		if err == nil {
			err = c.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rec, err := crashfs.New(root)
	if err != nil {
		t.Fatal(err)
	}
	if vfs, err = rec.VFS(); err != nil {
		t.Fatal(err)
	}
	return rec, filepath.Join(rec.Root(), "catalog.db"), vfs
}

// changes changes a catalog on a recorded disk and marks every change when it was acknowledged.
func changes(t *testing.T, drop string) *crashfs.Recorder {
	t.Helper()
	rec, path, vfs := onDisk(t, true)
	if drop != "" {
		rec.DropSyncs(drop)
	}
	clock := newClock()
	c, err := catalog.Open(t.Context(), path, catalog.Options{VFS: vfs, Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(c.Close(), rec.Verify()); err != nil {
			t.Fatal(err)
		}
	}()
	ack := func(about string, holds func(c *catalog.Catalog) error) { rec.Mark(step{about, holds}) }
	for n := range 12 {
		slug := fmt.Sprintf("team-%d", n)
		ns := mustNamespace(t, c, slug)
		ack(slug, func(c *catalog.Catalog) error {
			_, err := c.Namespace(slug)
			return err
		})
		d := mustDatabase(t, c, ns, "orders")
		ack(d.ID, func(c *catalog.Catalog) error {
			_, err := c.Database(ns.ID, "orders")
			return err
		})
		if err := c.Note(t.Context(), "snapshot.created", d, nil); err != nil {
			t.Fatal(err)
		}
		token, secret := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID, Name: "ci"})
		ack(token.ID, func(c *catalog.Catalog) error {
			if list, err := c.Audit(t.Context(), catalog.AuditQuery{NamespaceID: ns.ID, Action: "snapshot.created", Limit: 10}); err != nil || len(list) != 1 {
				return fmt.Errorf("%d entries of what was noted before: %w", len(list), err)
			}
			_, err := c.Authenticate(secret)
			return err
		})
		if err := c.SetSetting(t.Context(), "greeting", slug); err != nil {
			t.Fatal(err)
		}
		ack("greeting "+slug, func(c *catalog.Catalog) error {
			if got, _ := c.Setting("greeting"); got < "team-" {
				return fmt.Errorf("the setting is %q", got)
			}
			return nil
		})
		if n%3 == 0 {
			// While it is being revoked either answer is right.
			ack(token.ID, nil)
			if _, err := c.RevokeToken(t.Context(), token.ID); err != nil {
				t.Fatal(err)
			}
			ack(token.ID, func(c *catalog.Catalog) error {
				if _, err := c.Authenticate(secret); !errors.Is(err, catalog.ErrTokenUnknown) {
					return fmt.Errorf("a revoked token: %v", err)
				}
				return nil
			})
		}
		if n%4 == 0 {
			deletions(t, c, clock, ns, d, n%8 == 0, ack)
		}
		if n%4 == 1 {
			people(t, c, clock, n, ack)
		}
	}
	return rec
}

// deletions deletes a database and, with back, brings it back under another slug, else ends its time in the trash.
func deletions(t *testing.T, c *catalog.Catalog, clock *clock, ns catalog.Namespace, d *catalog.Database, back bool, ack func(string, func(*catalog.Catalog) error)) {
	t.Helper()
	ack(d.ID, nil)
	if _, err := c.DeleteDatabase(t.Context(), d.ID, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	ack(d.ID, func(c *catalog.Catalog) error {
		if _, err := c.Database(ns.ID, "orders"); !errors.Is(err, catalog.ErrDatabaseEnded) {
			return fmt.Errorf("a deleted database: %v", err)
		}
		if _, err := c.Trashed(d.ID); err != nil && back {
			return fmt.Errorf("the trash: %w", err)
		}
		return nil
	})
	if back {
		ack(d.ID, nil)
		if _, err := c.UndeleteDatabase(t.Context(), d.ID, "again"); err != nil {
			t.Fatal(err)
		}
		ack(d.ID, func(c *catalog.Catalog) error {
			if got, err := c.Database(ns.ID, "again"); err != nil || got.ID != d.ID {
				return fmt.Errorf("an undeleted database: %v, %w", got, err)
			}
			if _, err := c.Database(ns.ID, "orders"); !errors.Is(err, catalog.ErrDatabaseEnded) {
				return fmt.Errorf("its old slug: %v", err)
			}
			return nil
		})
		return
	}
	ack(d.ID, nil)
	clock.Advance(time.Hour)
	if list, err := c.CondemnOverdue(t.Context()); err != nil || len(list) != 1 {
		t.Fatalf("condemned %v, %v", list, err)
	}
	gone := func(c *catalog.Catalog) error {
		if got, err := c.UndeleteDatabase(context.Background(), d.ID, "again"); !errors.Is(err, catalog.ErrDatabaseNotFound) {
			return fmt.Errorf("a condemned database came back: %v, %v", got, err)
		}
		return nil
	}
	ack(d.ID, gone)
	if err := c.PurgeDatabase(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	ack(d.ID, gone)
}

// people makes a user, a home, a session, an invitation that somebody else accepts, another role, and ends session and namespace. What takes
// several rows is whole or not there at every moment, also before it was acknowledged.
func people(t *testing.T, c *catalog.Catalog, clock *clock, n int, ack func(string, func(*catalog.Catalog) error)) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	name := fmt.Sprintf("ada-%d", n)
	email, other := name+"@example.com", name+"@other.example"
	home := func(needed bool) func(c *catalog.Catalog) error {
		return func(c *catalog.Catalog) error {
			u, err := c.UserByEmail(email)
			if err != nil {
				return err
			}
			list := c.Memberships(u.ID)
			if u.HomeAt.IsZero() != (len(list) == 0) || needed && len(list) == 0 {
				return fmt.Errorf("home at %v with the namespaces %v", u.HomeAt, list)
			}
			if len(list) > 0 {
				_, err = c.Database(list[0].ID, "main")
			}
			return err
		}
	}
	u := mustUser(t, c, email)
	ack(name, home(false))
	_, err := c.CreateHome(ctx, catalog.NewHome{UserID: u.ID, Slug: name, DatabaseID: catalog.NewID("db"), Database: "main"})
	must(err)
	ack(name, home(true))
	s, secret := mustSession(t, c, u)
	ack(s.ID, func(c *catalog.Catalog) error { _, _, err := c.AuthenticateSession(secret); return err })

	ns, err := c.Namespace(name)
	must(err)
	_, token := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID})
	_, link, err := c.CreateInvitation(ctx, catalog.NewInvitation{NamespaceID: ns.ID, Role: catalog.MemberViewer, InvitedBy: u.ID, ExpiresAt: clock.Now().Add(1000 * time.Hour)})
	must(err)
	role := func(want ...string) func(c *catalog.Catalog) error {
		return func(c *catalog.Catalog) error {
			v, err := c.UserByEmail(other)
			_, _, lerr := c.Invitation(context.Background(), link)
			if lerr == nil && err != nil && slices.Contains(want, "") {
				return nil // not accepted yet
			}
			if err != nil || !errors.Is(lerr, catalog.ErrInvitationNotFound) {
				return fmt.Errorf("the user: %v, the invitation: %v", err, lerr)
			}
			if m, err := c.Membership(name, v.ID); err != nil || !slices.Contains(want, m.Role) {
				return fmt.Errorf("the member is %q, %v; want one of %q", m.Role, err, want)
			}
			return nil
		}
	}
	ack(other, role("", catalog.MemberViewer))
	v, _, err := c.AcceptInvitation(ctx, catalog.Acceptance{Secret: link, User: catalog.NewUser{Email: other, PasswordHash: "x"}})
	must(err)
	ack(other, role(catalog.MemberViewer, catalog.MemberAdmin))
	_, err = c.SetMemberRole(ctx, ns.ID, u.ID, v.ID, catalog.MemberAdmin)
	must(err)
	ack(other, role(catalog.MemberAdmin))

	ack(s.ID, nil)
	must(c.EndSession(ctx, s))
	ack(s.ID, func(c *catalog.Catalog) error {
		if _, _, err := c.AuthenticateSession(secret); !errors.Is(err, catalog.ErrSessionUnknown) {
			return fmt.Errorf("a session that ended: %v", err)
		}
		return nil
	})
	gone := func(needed bool) func(c *catalog.Catalog) error {
		return func(c *catalog.Catalog) error {
			_, nsErr := c.Namespace(name)
			_, tokenErr := c.Authenticate(token)
			members, databases := len(c.Members(ns.ID)), len(c.Databases(ns.ID, catalog.Page{}))
			whole := nsErr == nil && tokenErr == nil && members == 2 && databases == 1
			none := nsErr != nil && tokenErr != nil && members == 0 && databases == 0
			if !none && (needed || !whole) {
				return fmt.Errorf("the namespace: %v, its token: %v, %d members, %d databases", nsErr, tokenErr, members, databases)
			}
			return nil
		}
	}
	ack(other, nil)
	ack(name, gone(false))
	_, err = c.DeleteNamespace(ctx, catalog.Deletion{NamespaceID: ns.ID, By: u.ID, Force: true, Keep: 1000 * time.Hour})
	must(err)
	ack(name, gone(true))
}

// stands checks that the catalog opens after a power loss and answers as was acknowledged.
func stands(crash crashfs.Crash) (err error) {
	c, err := catalog.Open(context.Background(), filepath.Join(crash.Dir, "catalog.db"), catalog.Options{Now: newClock().Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	last := map[string]step{}
	for _, a := range crash.Acked {
		s := a.(step)
		last[s.about] = s
	}
	for about, s := range last {
		if s.holds == nil {
			continue
		}
		if err := s.holds(c); err != nil {
			return fmt.Errorf("%s: %w", about, err)
		}
	}
	return nil
}

func TestChangesStandAfterPowerLoss(t *testing.T) {
	if err := changes(t, "").Log().Crashes(1000, 3, t.TempDir(), stands); err != nil {
		t.Fatal(err)
	}
}

// A first start that the power ends anywhere is begun again by the next. Each such opening migrates anew, which takes its time.
func TestFirstStartStandsAfterPowerLoss(t *testing.T) {
	rec, path, vfs := onDisk(t, false)
	c, err := catalog.Open(t.Context(), path, catalog.Options{VFS: vfs})
	if err != nil {
		t.Fatal(err)
	}
	ns := mustNamespace(t, c, "acme")
	rec.Mark(step{"acme", func(c *catalog.Catalog) error {
		got, err := c.Namespace("acme")
		if err == nil && got.ID != ns.ID {
			err = errors.New("it is another")
		}
		return err
	}})
	if err := errors.Join(c.Close(), rec.Verify()); err != nil {
		t.Fatal(err)
	}
	if err := rec.Log().Crashes(60, 3, t.TempDir(), stands); err != nil {
		t.Fatal(err)
	}
}

// The tests above would notice.
func TestMissingSyncIsFound(t *testing.T) {
	for name, pattern := range map[string]string{"log": `.*-wal`, "directory": `\.`} {
		t.Run(name, func(t *testing.T) {
			err := changes(t, pattern).Log().Crashes(400, 3, t.TempDir(), stands)
			var loss *crashfs.CrashError
			if !errors.As(err, &loss) {
				t.Fatalf("got %v, want a loss", err)
			}
			t.Log(loss)
		})
	}
}
