package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
)

// endTime bounds a deletion or its undoing, which go on when the client leaves.
const endTime = time.Minute

// keyedMutex is a lock for each of any number of names.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]*heldMutex
}

type heldMutex struct {
	sync.Mutex
	users int
}

// lock waits for a name's lock; the function that it returns lets it go.
func (k *keyedMutex) lock(name string) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*heldMutex{}
	}
	m := k.held[name]
	if m == nil {
		m = &heldMutex{}
		k.held[name] = m
	}
	m.users++
	k.mu.Unlock()
	m.Lock()
	return func() {
		m.Unlock()
		k.mu.Lock()
		if m.users--; m.users == 0 {
			delete(k.held, name)
		}
		k.mu.Unlock()
	}
}

// deleteDatabase serves DELETE /v1/databases/:slug.
func (s *Server) deleteDatabase(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	d, err := x.find(unescape(x.param("db")))
	if err != nil {
		return err
	}
	if err := x.needUnscoped("DELETE /v1/databases"); err != nil {
		return err
	}
	force := false
	wanted := x.r.URL.Query().Get("force")
	if x.redeemed != nil {
		wanted = x.approved.Params["force"]
	}
	switch wanted {
	case "", "false":
	case "true":
		force = true
	default:
		return newFault(http.StatusBadRequest, codeBadRequest, "force must be true or false", "")
	}
	ctx, cancel := context.WithTimeout(x.acting(context.WithoutCancel(x.r.Context())), endTime)
	defer cancel()
	x.database = d
	x.call = heldCall{kind: kindDeleteDatabase, params: map[string]string{"force": wanted}, title: "Delete the database"}
	if err := x.guardTree(d, force); err != nil {
		return err
	}
	until, err := s.deleteTree(ctx, d.ID, force, x.permit.ID)
	if err != nil {
		return err
	}
	x.success()
	x.out = append(appendTime(append(x.out, `{"deleted":true,"restorableUntil":`...), until), `}}`...)
	return nil
}

// guardTree is guard for a database and, where they go with it, its branches.
func (x *exchange) guardTree(d *catalog.Database, branches bool) error {
	whole := x.database
	defer func() { x.database = whole }()
	var hits []approval.Hit
	var visit func(d *catalog.Database) error
	visit = func(d *catalog.Database) error {
		x.database = d
		err := x.guard(false)
		var stop *approval.Stop
		if errors.As(err, &stop) {
			hits, err = append(hits, stop.Hits...), nil
		}
		if err != nil || !branches {
			return err
		}
		for _, b := range x.s.opt.Catalog.Branches(d.ID) {
			if err := visit(b); err != nil {
				return err
			}
		}
		return nil
	}
	if err := visit(d); err != nil {
		return err
	}
	if len(hits) > 0 {
		return &approval.Stop{Hits: hits}
	}
	return nil
}

// deleteTree deletes a database with its branches, if those may go too. An approval, if there is one, is used up with the database itself, which is the last to go: killed before that, it
// can be redeemed again.
func (s *Server) deleteTree(ctx context.Context, id string, force bool, approved string) (restorableUntil time.Time, err error) {
	for {
		if force {
			if err := s.deleteBranches(ctx, id); err != nil {
				return time.Time{}, err
			}
		}
		until, err := s.delete(ctx, id, approved)
		if force && errors.Is(err, catalog.ErrHasBranches) && ctx.Err() == nil {
			continue // another one was made meanwhile
		}
		return until, err
	}
}

// deleteBranches deletes the branches of a database, with theirs.
func (s *Server) deleteBranches(ctx context.Context, id string) error {
	for _, b := range s.opt.Catalog.Branches(id) {
		if _, err := s.deleteTree(ctx, b.ID, true, ""); err != nil && !errors.Is(err, catalog.ErrDatabaseNotFound) {
			return err
		}
	}
	return nil
}

// delete moves a database to the trash, or ends it for good where there is none.
func (s *Server) delete(ctx context.Context, id, approved string) (restorableUntil time.Time, err error) {
	defer s.ending.lock(id)()
	// First the name, so that no new request comes; then those that have found it already are kept out.
	until, err := s.opt.Catalog.DeleteDatabase(ctx, id, s.opt.Trash, approved)
	if err != nil {
		return until, err
	}
	s.shut(ctx, id, until.IsZero())
	return until, nil
}

// shut keeps out those who have found a database before it was deleted, and takes its files if it is deleted for good. The
// caller holds its lock.
func (s *Server) shut(ctx context.Context, id string, forGood bool) {
	if forGood {
		if err := s.purge(ctx, id); err != nil {
			s.log.Error("purge database; it is tried again", "database", id, "error", err)
		}
		return
	}
	owner, err := s.opt.Placement.Owner(ctx, id)
	if err == nil {
		err = owner.Retire(ctx, id)
	}
	if err != nil {
		s.log.Warn("close deleted database; it is closed later", "database", id, "error", err)
	}
}

// listTrash serves GET /v1/databases?deleted=true.
func (s *Server) listTrash(x *exchange, page catalog.Page) error {
	if err := x.needUnscoped("GET /v1/databases?deleted=true"); err != nil {
		return err
	}
	x.success()
	b := append(x.out, '[')
	for i, d := range s.opt.Catalog.Trash(x.token.NamespaceID, page) {
		if i > 0 {
			b = append(b, ',')
		}
		shown := d.Database
		shown.Status = catalog.StatusDeleting
		b = appendDatabase(b, &shown)
		b = appendTime(append(b, `,"deletedAt":`...), d.DeletedAt)
		b = appendTime(append(b, `,"restorableUntil":`...), d.RestorableUntil)
		b = append(b, '}')
	}
	x.out = append(b, `]}`...)
	return nil
}

// undeleteRequest is the body of POST /v1/databases/:id/undelete.
type undeleteRequest struct {
	Slug string `json:"slug"`
}

// undeleteDatabase serves POST /v1/databases/:id/undelete.
func (s *Server) undeleteDatabase(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req undeleteRequest
	if err := x.object(&req); err != nil {
		return err
	}
	if err := x.needUnscoped("POST /v1/databases/:id/undelete"); err != nil {
		return err
	}
	id := unescape(x.param("db"))
	if !x.ownsTrashed(id) {
		return newFault(http.StatusNotFound, codeNotFound, "Database not found", "GET /v1/databases?deleted=true shows the ids of those that can be brought back")
	}
	ctx, cancel := context.WithTimeout(x.acting(context.WithoutCancel(x.r.Context())), endTime)
	defer cancel()
	d, err := s.Undelete(ctx, id, req.Slug, "")
	if err != nil {
		return err
	}
	x.success()
	x.out = append(appendDatabase(x.out, d), `}}`...)
	return nil
}

// ownsTrashed tells whether a database that can be brought back, or was just now, is one that the token may see.
func (x *exchange) ownsTrashed(id string) bool {
	var d catalog.Database
	if t, err := x.s.opt.Catalog.Trashed(id); err == nil {
		d = t.Database
	} else if living, err := x.s.opt.Catalog.DatabaseByID(id); err == nil {
		d = *living
	}
	return d.NamespaceID == x.token.NamespaceID && (d.Test || !x.token.Test)
}

// Undelete brings a deleted database back, under its old slug if slug is empty, in its old namespace if namespaceID is. Its errors
// are those of catalog.UndeleteInto.
func (s *Server) Undelete(ctx context.Context, id, slug, namespaceID string) (*catalog.Database, error) {
	defer s.ending.lock(id)()
	if s.opt.Billing != nil && namespaceID != "" {
		// What it counted in its former namespace is that one's to pay.
		if err := s.opt.Billing.Flush(ctx); err != nil {
			return nil, err
		}
	}
	d, err := s.opt.Catalog.UndeleteInto(ctx, id, slug, namespaceID)
	if err != nil {
		return nil, err
	}
	owner, err := s.opt.Placement.Owner(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := owner.Admit(ctx, id); err != nil {
		return d, err
	}
	s.wakeSchedules(ctx, id)
	return d, nil
}

// purge takes the files of a condemned database away, then its row: what a crash leaves between is done by the next
// Sweep. The caller holds its lock.
func (s *Server) purge(ctx context.Context, id string) error {
	owner, err := s.opt.Placement.Owner(ctx, id)
	if err != nil {
		return err
	}
	// What it counted of its last writes is gone with the file: nothing may write to it any more when that is written down.
	if s.opt.Billing != nil {
		if err := owner.Retire(ctx, id); err != nil {
			s.log.Warn("close database before it is purged", "database", id, "error", err)
		}
		if err := s.opt.Billing.Flush(ctx); err != nil {
			return err
		}
	}
	if err := owner.Delete(ctx, id); err != nil {
		return err
	}
	if s.opt.QueryLog != nil {
		s.opt.QueryLog.Forget(id)
	}
	if s.opt.Past != nil {
		if err := s.opt.Past.Forget(id); err != nil {
			return fmt.Errorf("forget history: %w", err)
		}
	}
	if s.opt.Replica != nil {
		ctx, cancel := context.WithTimeout(ctx, forgetTime)
		defer cancel()
		if err := s.opt.Replica.Forget(ctx, id); err != nil {
			return err
		}
	}
	err = s.opt.Catalog.PurgeDatabase(ctx, id)
	if errors.Is(err, catalog.ErrDatabaseNotFound) {
		return nil // somebody else has just done it
	}
	return err
}

// forgetTime is how long one purge may try to reach the replica: the others wait for it.
const forgetTime = 10 * time.Second

// sweepEvery is the time between two looks at the trash; less where databases stay there for less than ten times that.
const sweepEvery = 30 * time.Second

// Sweep purges what is over its time in the trash, and what a crash left of a purge, and sweeps sessions and invitations, at
// once and then every half minute, until ctx ends.
func (s *Server) Sweep(ctx context.Context) {
	tick := time.NewTicker(min(sweepEvery, max(time.Second, s.opt.Trash/10)))
	defer tick.Stop()
	for {
		s.expire(ctx)
		s.sweep(ctx)
		if err := errors.Join(s.opt.Catalog.SweepSessions(ctx), s.opt.Catalog.SweepInvitations(ctx)); err != nil && ctx.Err() == nil {
			s.log.Warn("sweep sessions and invitations; it is tried again", "error", err)
		}
		if _, err := s.opt.Catalog.SweepIdentities(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("sweep tokens of machines; it is tried again", "error", err)
		}
		if err := s.opt.Catalog.SweepOAuth(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("sweep codes and tokens of apps; it is tried again", "error", err)
		}
		if _, err := s.opt.Catalog.SweepOAuthClients(ctx, s.opt.OAuth.RegisterUnused, s.opt.OAuth.RegisterIdle); err != nil && ctx.Err() == nil {
			s.log.Warn("sweep clients that registered themselves; it is tried again", "error", err)
		}
		s.sweepApprovals(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// expire deletes databases whose time is over, with their branches.
func (s *Server) expire(ctx context.Context) {
	for _, id := range s.opt.Catalog.Overdue() {
		if _, err := s.deleteTree(ctx, id, true, ""); err != nil && ctx.Err() == nil && !errors.Is(err, catalog.ErrDatabaseNotFound) {
			s.log.Warn("delete a database whose time is over; it is tried again", "database", id, "error", err)
		}
	}
}

func (s *Server) sweep(ctx context.Context) {
	list, err := s.opt.Catalog.CondemnOverdue(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("look for databases whose time in the trash is over; it is tried again", "error", err)
	}
	for _, d := range list {
		unlock := s.ending.lock(d.ID)
		var err error
		// What was being made when the list was made may be there by now.
		if _, lives := s.opt.Catalog.DatabaseByID(d.ID); lives != nil {
			err = s.purge(ctx, d.ID)
		}
		unlock()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Warn("purge database; it is tried again", "database", d.ID, "error", err)
		}
	}
}

// sweepApprovals ends the approvals that nobody decided on, or redeemed, in time.
func (s *Server) sweepApprovals(ctx context.Context) {
	ended, err := s.opt.Catalog.SweepApprovals(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("sweep approvals; it is tried again", "error", err)
	}
	for _, a := range ended {
		s.noteApproval(EventApprovalResolved, a)
		s.bells.ring(a.ID)
	}
}
