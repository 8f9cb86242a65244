package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
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

// changes changes a catalog on a recorded disk and marks every change when it was acknowledged.
func changes(t *testing.T, drop string) *crashfs.Recorder {
	t.Helper()
	if err := sqlite.Initialize(sqlite.Setup{}); err != nil {
		t.Fatal(err)
	}
	rec, err := crashfs.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	vfs, err := rec.VFS()
	if err != nil {
		t.Fatal(err)
	}
	if drop != "" {
		rec.DropSyncs(drop)
	}
	clock := newClock()
	c, err := catalog.Open(t.Context(), filepath.Join(rec.Root(), "catalog.db"), catalog.Options{VFS: vfs, Now: clock.Now})
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
		token, secret := mustToken(t, c, catalog.NewToken{NamespaceID: ns.ID, Name: "ci"})
		ack(token.ID, func(c *catalog.Catalog) error {
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
	}
	return rec
}

// deletions deletes a database and, with back, brings it back under another slug, else ends its time in the trash.
func deletions(t *testing.T, c *catalog.Catalog, clock *clock, ns catalog.Namespace, d *catalog.Database, back bool, ack func(string, func(*catalog.Catalog) error)) {
	t.Helper()
	ack(d.ID, nil)
	if _, err := c.DeleteDatabase(t.Context(), d.ID, time.Hour); err != nil {
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

// The test above would notice.
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
