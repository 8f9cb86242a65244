package api

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// fromRequest is the from of POST /v1/databases: another database, and a moment of it.
type fromRequest struct {
	Database string         `json:"database"`
	At       jsontext.Value `json:"at"`
}

// read reads from. A misspelled at would make a copy of the present moment, so no member is passed over.
func (f *fromRequest) read(raw jsontext.Value) error {
	if err := json.Unmarshal(raw, f, json.RejectUnknownMembers(true)); err != nil || raw.Kind() != '{' || f.Database == "" {
		return newFault(http.StatusBadRequest, codeBadRequest, "from must be an object with the members database and, unless now is meant, at", `for example {"database": "shop", "at": "2026-01-01T00:00:00Z"}`)
	}
	return nil
}

// moment is what at names; nil is now.
func (f *fromRequest) moment(database string) (*moment, error) {
	if len(f.At) == 0 || f.At.Kind() == 'n' {
		return nil, nil
	}
	if f.At.Kind() == '0' {
		return &moment{Timestamp: f.At}, nil
	}
	var text string
	if err := json.Unmarshal(f.At, &text); err == nil {
		if strings.HasPrefix(text, snapshotPrefix) {
			return &moment{SnapshotID: text}, nil
		}
		if _, ok := wire.ParseMoment(text); ok {
			return &moment{Timestamp: f.At}, nil
		}
		if _, err := history.ParseBookmark(database, text); err != nil && len(text) == len(history.Bookmark(database, 0)) {
			return nil, err
		} else if err == nil {
			return &moment{Bookmark: text}, nil
		}
	}
	return nil, newFault(http.StatusBadRequest, codeBadRequest, "at must be a bookmark, a snapshot's id, Unix milliseconds or a time in ISO 8601", "leave it out for the present moment")
}

// source is the database that another one is to be made of.
type source struct {
	*catalog.Database
	trashed bool
}

var errNoSource = newFault(http.StatusNotFound, codeNotFound, "The database that from names was not found", "it is a slug, namespace/slug, or an id as GET /v1/databases lists it; one in the trash will do")

// source finds the database that from names: one that lives or, if there is none, in the trash. Whoever may make databases in its namespace may bring that one back.
func (x *exchange) source(name string) (found source, err error) {
	namespace := x.token.NamespaceID
	if ns, slug, both := strings.Cut(name, "/"); both {
		name = slug
		if ns != x.token.NamespaceSlug {
			if x.user == nil {
				return found, newFault(http.StatusForbidden, codeForbidden, "Token namespace mismatch", "the token belongs to another namespace than from names; GET /v1/me tells which")
			}
			m, err := x.s.opt.Catalog.Membership(ns, x.user.ID)
			if err != nil {
				return found, errNoSource
			}
			if role := catalog.TokenRole(m.Role); gate.LevelOf(role) < gate.LevelAdmin {
				return found, gate.RefuseRole(role, "copies of databases of "+m.Slug, gate.LevelAdmin)
			}
			namespace = m.ID
		}
	}
	found, err = x.s.lookup(namespace, name)
	if err != nil || found.NamespaceID != namespace || x.token.Test && !found.Test {
		return found, errNoSource
	}
	return found, nil
}

// lookup finds a database by its slug or its id, which no slug looks like.
func (s *Server) lookup(namespace, name string) (source, error) {
	c := s.opt.Catalog
	living, err := c.Database(namespace, name)
	if err != nil {
		living, err = c.DatabaseByID(name)
	}
	if err == nil {
		return source{living, false}, nil
	}
	t, err := c.TrashedSlug(namespace, name)
	if err != nil {
		t, err = c.Trashed(name)
	}
	if err != nil {
		return source{}, err
	}
	return source{&t.Database, true}, nil
}

var errSlugTaken = newFault(http.StatusConflict, codeSlugTaken, "A database has this slug already", "choose another slug: a copy takes no other database's place")

// createFrom makes a database as another one was. It is built and verified beside it, and then there at once, with the other one's policies.
func (s *Server) createFrom(x *exchange, n catalog.NewDatabase, from *fromRequest) error {
	if !catalog.ValidSlug(n.Slug) {
		return catalog.ErrSlug
	}
	src, err := x.source(from.Database)
	if err != nil {
		return err
	}
	if _, err := s.opt.Catalog.Database(n.NamespaceID, n.Slug); err == nil {
		return errSlugTaken
	}
	x.database = src.Database
	if err := x.needAllRows("a copy of the database"); err != nil {
		return err
	}
	m, err := from.moment(src.ID)
	if err != nil {
		return err
	}
	if m != nil && s.opt.Past == nil {
		return errNoHistory
	}
	return x.transferring(nil, func(ctx context.Context, dir string, _ func()) error {
		path := filepath.Join(dir, "from.db")
		n.ID, n.From = catalog.NewID("db"), &catalog.Origin{DatabaseID: src.ID}
		if m == nil {
			err = s.copyNow(ctx, src, path)
		} else {
			n.From.Bookmark, err = x.copyOf(ctx, src, m, path)
		}
		if err == nil {
			err = s.sound(ctx, src.ID, path)
		}
		if err != nil {
			return s.sourceGone(src, err)
		}
		owner, err := s.opt.Placement.Owner(ctx, n.ID)
		if err != nil {
			return err
		}
		// From here on it is done, or undone, whoever leaves.
		ctx, cancel := context.WithTimeout(x.acting(context.WithoutCancel(ctx)), endTime)
		defer cancel()
		if err := owner.CreateFrom(ctx, n.ID, path); err != nil {
			if errors.Is(err, store.ErrQuota) {
				return newFault(http.StatusBadRequest, "database_full", "The database was larger at that moment than a database may be", "choose another moment, or raise PERSQLD_MAX_DATABASE")
			}
			return err
		}
		d, isNew, err := s.opt.Catalog.CreateDatabase(ctx, n)
		if err != nil || !isNew {
			s.leave(ctx, owner, n.ID)
			if err == nil {
				err = errSlugTaken
			}
			return s.sourceGone(src, err)
		}
		x.success()
		x.out = append(appendDatabase(x.out, d), `}}`...)
		return nil
	})
}

// sourceGone is the error of a copy whose source was purged meanwhile: whatever failed, failed for that.
func (s *Server) sourceGone(src source, err error) error {
	if _, lives := s.opt.Catalog.DatabaseByID(src.ID); lives == nil {
		return err
	}
	if _, trashed := s.opt.Catalog.Trashed(src.ID); trashed == nil {
		return err
	}
	return errNoSource
}

// copyNow writes a database as it is to a file.
func (s *Server) copyNow(ctx context.Context, src source, path string) error {
	owner, err := s.opt.Placement.Owner(ctx, src.ID)
	if err != nil {
		return err
	}
	if !src.trashed {
		err = owner.Copy(ctx, src.ID, path)
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		// It was deleted meanwhile.
	}
	defer s.ending.lock(src.ID)()
	if _, err := s.opt.Catalog.Trashed(src.ID); err != nil {
		return err
	}
	return owner.CopyEnded(ctx, src.ID, path)
}

// copyOf writes a database as it was to a file.
func (x *exchange) copyOf(ctx context.Context, src source, m *moment, path string) (bookmark string, err error) {
	owner, err := x.s.opt.Placement.Owner(ctx, src.ID)
	if err != nil {
		return "", err
	}
	var at uint64
	if !src.trashed {
		at, err = x.position(ctx, owner, m)
	}
	if src.trashed || errors.Is(err, store.ErrNotFound) { // deleted meanwhile
		at, err = x.positionEnded(ctx, owner, m)
	}
	if err != nil {
		return "", err
	}
	return history.Bookmark(src.ID, at), x.s.past(ctx, src.ID, at, path)
}

// positionEnded is position of a database in the trash.
func (x *exchange) positionEnded(ctx context.Context, owner store.Runner, m *moment) (uint64, error) {
	// Nobody brings it back, or takes it away, while its end is read.
	unlock := x.s.ending.lock(x.database.ID)
	defer unlock()
	if _, err := x.s.opt.Catalog.Trashed(x.database.ID); err != nil {
		return 0, err
	}
	end, err := owner.Ending(ctx, x.database.ID)
	if err != nil {
		return 0, err
	}
	return x.positionOf(m, end.Position, func() ([]store.Snapshot, error) { return end.Snapshots, nil })
}
