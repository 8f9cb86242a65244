package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/persqld/persqld/internal/branch"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

const (
	defaultLease = 3600           // seconds
	minLease     = 60             // seconds
	maxLease     = 30 * 24 * 3600 // seconds
	maxDays      = 30
)

// lease is when a branch ends that is kept for so many seconds; 0 is for ever.
func (s *Server) lease(seconds float64) (time.Time, error) {
	if seconds == 0 {
		return time.Time{}, nil
	}
	if seconds < minLease || seconds > maxLease || seconds != float64(int64(seconds)) {
		return time.Time{}, newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("ttlSec must be a whole number of seconds from %d to %d, or 0", minLease, maxLease), "0 keeps the branch until it is deleted")
	}
	return s.opt.Now().Add(time.Duration(seconds) * time.Second), nil
}

// daysFromNow is when something ends that is kept for so many days.
func (s *Server) daysFromNow(days float64) (time.Time, error) {
	if days < 1 || days > maxDays || days != float64(int64(days)) {
		return time.Time{}, newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("ttlDays must be a whole number of days from 1 to %d", maxDays), "")
	}
	return s.opt.Now().AddDate(0, 0, int(days)), nil
}

// optional reads a body that may be missing.
func (x *exchange) optional(v any) error {
	if err := x.object(v); err != nil || len(bytes.TrimSpace(x.body)) == 0 {
		return err
	}
	return x.strictly(v, false)
}

// mayBranch opens the parent that the path names, for an admin who sees all of it.
func (x *exchange) mayBranch(what string) error {
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.needAdmin(what); err != nil {
		return err
	}
	return x.needAllRows(what)
}

// claimRequest is the body of POST …/claim_branch.
type claimRequest struct {
	Ref     string         `json:"ref"`
	Purpose string         `json:"purpose"`
	TTLSec  *float64       `json:"ttlSec"`
	Role    string         `json:"role"`
	Content string         `json:"content"`
	At      jsontext.Value `json:"at"`
}

// claimBranch serves POST …/claim_branch: a branch, made or made anew, with a token of its own.
func (s *Server) claimBranch(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req claimRequest
	if err := x.optional(&req); err != nil {
		return err
	}
	if err := x.mayBranch("POST …/claim_branch"); err != nil {
		return err
	}
	n := newBranch{content: req.Content, at: req.At, ref: req.Ref}
	if n.ref == "" {
		purpose := slugOf(req.Purpose)
		if purpose == "" {
			purpose = "branch"
		}
		n.ref = purpose[:min(len(purpose), 57)] + "-" + strings.ToLower(rand.Text()[:6])
	}
	seconds := float64(defaultLease)
	if req.TTLSec != nil {
		seconds = *req.TTLSec
	}
	var err error
	if n.expires, err = s.lease(seconds); err != nil {
		return err
	}
	role := req.Role
	switch role {
	case "":
		role = "write"
	case "read", "write", "admin":
	default:
		return newFault(http.StatusBadRequest, "invalid_role", "The role of a branch's token is read, write or admin", "")
	}
	n.token = &catalog.NewToken{NamespaceID: x.token.NamespaceID, Name: "branch " + n.ref, Role: role, Test: x.token.Test, ExpiresAt: n.expires}
	f, err := s.makeBranch(x, n)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"branchRef":`...)
	b = wire.AppendString(b, f.Database.Fork.Ref)
	b = append(b, `,"token":`...)
	b = wire.AppendString(b, f.Secret)
	b = append(b, `,"expiresAt":`...)
	b = appendTime(b, f.Database.Fork.ExpiresAt)
	b = appendOutcome(b, f)
	b = append(b, `,"namespaceSlug":`...)
	b = wire.AppendString(b, x.token.NamespaceSlug)
	b = append(b, `,"databaseSlug":`...)
	b = wire.AppendString(b, f.Database.Slug)
	x.out = append(b, `}}`...)
	return nil
}

func appendOutcome(b []byte, f catalog.Forked) []byte {
	if f.Former != nil {
		return append(b, `,"outcome":"reset"`...)
	}
	return append(b, `,"outcome":"created"`...)
}

// branchRequest is the body of PUT …/branches/:ref.
type branchRequest struct {
	FromRef   string         `json:"fromRef"`
	ExpiresAt jsontext.Value `json:"expiresAt"`
	TTLDays   *float64       `json:"ttlDays"`
	Name      string         `json:"name"`
	Region    string         `json:"region"`
	Content   string         `json:"content"`
}

// mainRef stands for the parent itself.
const mainRef = "main"

// putBranch serves PUT …/branches/:ref: the branch is made, or made anew.
func (s *Server) putBranch(x *exchange) error {
	ref := x.ref()
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req branchRequest
	if err := x.optional(&req); err != nil {
		return err
	}
	if err := x.mayBranch("PUT …/branches/:ref"); err != nil {
		return err
	}
	n := newBranch{ref: ref, content: req.Content, name: req.Name, region: req.Region}
	if req.FromRef != "" && req.FromRef != mainRef {
		from, err := s.branchOf(x.database, req.FromRef)
		if err != nil {
			return err
		}
		if req.FromRef == ref {
			return newFault(http.StatusBadRequest, codeBadRequest, "A branch can't be made of itself", "leave fromRef out to make it of the parent")
		}
		n.from = from
	}
	var err error
	switch given := len(req.ExpiresAt) > 0 && req.ExpiresAt.Kind() != 'n'; {
	case given && req.TTLDays != nil:
		return newFault(http.StatusBadRequest, codeBadRequest, "Either expiresAt or ttlDays can be given", "")
	case given:
		if n.expires, err = s.moment(req.ExpiresAt); err != nil {
			return err
		}
	case req.TTLDays != nil:
		if n.expires, err = s.daysFromNow(*req.TTLDays); err != nil {
			return err
		}
	}
	f, err := s.makeBranch(x, n)
	if err != nil {
		return err
	}
	x.success()
	b := x.s.appendBranch(x.out, f.Database)
	b = appendOutcome(b, f)
	x.out = append(b, `}}`...)
	return nil
}

// moment reads when a branch is to end: Unix milliseconds or ISO 8601.
func (s *Server) moment(v jsontext.Value) (time.Time, error) {
	bad := newFault(http.StatusBadRequest, codeBadRequest, "expiresAt must be a time of ISO 8601 or Unix milliseconds, from 60 seconds to 30 days from now", "leave it out to keep the branch until it is deleted")
	text := string(v)
	if v.Kind() == '"' {
		if unquoted, err := jsontext.AppendUnquote(nil, v); err == nil {
			text = string(unquoted)
		}
	}
	ms, ok := wire.ParseMoment(text)
	if !ok {
		return time.Time{}, bad
	}
	at, now := time.UnixMilli(ms), s.opt.Now()
	if at.Before(now.Add(minLease*time.Second)) || at.After(now.Add(maxLease*time.Second)) {
		return time.Time{}, bad
	}
	return at, nil
}

// branchOf is the living branch of a ref.
func (s *Server) branchOf(parent *catalog.Database, ref string) (*catalog.Database, error) {
	d, err := s.opt.Catalog.Branch(parent.ID, ref)
	if err == nil && d.Expired(s.opt.Now()) {
		err = catalog.ErrBranchNotFound
	}
	return d, err
}

// appendBranch writes a branch's object, but for its closing brace.
func (s *Server) appendBranch(b []byte, d *catalog.Database) []byte {
	b = appendDatabase(b, d)
	b = append(b, `,"content":`...)
	b = wire.AppendString(b, d.Fork.Content)
	b = append(b, `,"forkedAt":`...)
	b = appendTime(b, d.Fork.At)
	b = append(b, `,"forkedFrom":`...)
	from, err := s.opt.Catalog.DatabaseByID(d.Fork.From)
	if err != nil {
		return append(b, `null`...)
	}
	b = append(b, `{"id":`...)
	b = wire.AppendString(b, from.ID)
	b = append(b, `,"slug":`...)
	b = wire.AppendString(b, from.Slug)
	b = append(b, `,"name":`...)
	b = wire.AppendString(b, from.Name)
	return append(b, '}')
}

// newBranch is what a branch or fork is to be.
type newBranch struct {
	ref     string // "" for a fork
	slug    string // of a fork
	name    string
	region  string
	content string
	at      jsontext.Value
	from    *catalog.Database // a branch of the parent; nil for the parent itself
	expires time.Time
	token   *catalog.NewToken
}

// makeBranch makes a branch, or a fork, of the request's database. Two calls for one ref come one after the other; the later one's stays.
func (s *Server) makeBranch(x *exchange, n newBranch) (f catalog.Forked, err error) {
	if x.token.OAuth != nil { // what it made would outlive it
		return f, errOfApp
	}
	if n.ref != "" {
		if err := catalog.CheckRef(n.ref); err != nil {
			return f, err
		}
		if n.ref == mainRef {
			return f, newFault(http.StatusBadRequest, "invalid_ref", "main stands for the parent itself", "choose another ref")
		}
	}
	switch n.content {
	case "":
		n.content = s.opt.BranchContent
	case catalog.ContentSchema, catalog.ContentFull:
	default:
		return f, newFault(http.StatusBadRequest, codeBadRequest, "content must be schema or full", "full copies the rows too")
	}
	at := len(n.at) > 0 && n.at.Kind() != 'n'
	if at && n.content != catalog.ContentFull {
		return f, newFault(http.StatusBadRequest, codeBadRequest, "at needs content full", `send "content": "full"`)
	}
	parent := x.database
	if n.ref != "" {
		defer s.branching.lock(parent.ID + "/" + n.ref)()
	}
	makeFile := s.makeSchema
	if n.content == catalog.ContentFull {
		makeFile = s.makeFull
	}
	err = makeFile(x, &n, func(ctx context.Context, path string, fill func(*sqlite.Conn) error) error {
		f, err = s.giveBranch(ctx, x, parent, &n, path, fill)
		return err
	})
	return f, err
}

// giver makes a branch of its file, which fill puts the last into if it isn't nil.
type giver func(ctx context.Context, path string, fill func(*sqlite.Conn) error) error

// makeSchema makes the file of a branch without rows.
func (s *Server) makeSchema(x *exchange, n *newBranch, give giver) error {
	shape, err := x.shape(n.from)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.opt.Temp, "branch-")
	if err != nil {
		return store.DiskFull(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "branch.db")
	fill, err := branch.Make(path, shape)
	if err != nil {
		return store.DiskFull(err)
	}
	err = give(x.r.Context(), path, fill)
	var refused *branch.ShapeError
	if errors.As(err, &refused) {
		return newFault(http.StatusConflict, "schema_not_copied", "The schema can't be made anew: "+refused.Err.Error(), `mend it, or send "content": "full"`)
	}
	return err
}

// shape is the schema of a database: the request's, or a branch of it.
func (x *exchange) shape(from *catalog.Database) (shape branch.Shape, err error) {
	if from != nil {
		defer func(d *catalog.Database) { x.database = d }(x.database)
		x.database = from
	}
	err = x.do(store.JobFunc(func(tx *store.Tx) error {
		tables, err := tx.Shapes()
		if err != nil {
			return err
		}
		shape, err = branch.Read(tables, func(sql string, row func(*sqlite.Stmt) error) error { return tx.Query(sql, nil, row) })
		return err
	}))
	return shape, err
}

// makeFull copies the file of a branch with rows.
func (s *Server) makeFull(x *exchange, n *newBranch, give giver) error {
	parent := x.database
	from := parent
	if n.from != nil {
		from = n.from
	}
	request := fromRequest{At: n.at}
	m, err := request.moment(from.ID)
	if err != nil {
		return err
	}
	if m != nil && s.opt.Past == nil {
		return errNoHistory
	}
	x.database = from
	defer func() { x.database = parent }()
	return x.transferring(nil, func(ctx context.Context, dir string, _ func()) error {
		path := filepath.Join(dir, "branch.db")
		if m == nil {
			err = s.copyNow(ctx, source{Database: from}, path)
		} else if _, err = x.copyOf(ctx, source{Database: from}, m, path); err == nil {
			err = s.sound(ctx, from.ID, path)
		}
		if err != nil {
			return err
		}
		return give(ctx, path, nil)
	})
}

// errBranchRuled is the refusal to make a branch anew that has approval rules of its own.
var errBranchRuled = newFault(http.StatusForbidden, codeApprovalDenied, "The branch has approval rules, which would end with it", "DELETE …/branches/:ref asks them; then the branch can be made anew")

// giveBranch makes a database of a branch's file, with its name. From here on it is done, or undone, whoever leaves.
func (s *Server) giveBranch(ctx context.Context, x *exchange, parent *catalog.Database, n *newBranch, path string, fill func(*sqlite.Conn) error) (f catalog.Forked, err error) {
	ctx, cancel := context.WithTimeout(x.acting(context.WithoutCancel(ctx)), endTime)
	defer cancel()
	if former, err := s.opt.Catalog.Branch(parent.ID, n.ref); n.ref != "" && err == nil && former.Rules != nil && !former.Expired(s.opt.Now()) {
		return f, errBranchRuled
	}
	facts, err := s.forkFacts(x, parent, n)
	if err != nil {
		return f, err
	}
	id := catalog.NewID("db")
	// A sweep must not take it for one that was left behind.
	defer s.ending.lock(id)()
	owner, err := s.opt.Placement.Owner(ctx, id)
	if err != nil {
		return f, err
	}
	reserve := func() error { return s.opt.Catalog.Reserve(ctx, parent.NamespaceID, id) }
	if err := owner.CreateBranch(ctx, id, path, store.NewBranch{Fill: fill, Facts: facts, Words: schemaWords, Reserve: reserve}); err != nil {
		if errors.Is(err, store.ErrQuota) {
			return f, newFault(http.StatusBadRequest, "database_full", "The database is larger than a database may be", "delete rows and VACUUM, or raise PERSQLD_MAX_DATABASE")
		}
		return f, err
	}
	from := parent
	if n.from != nil {
		from = n.from
	}
	f, err = s.takeRef(ctx, catalog.NewFork{ID: id, From: from.ID, Parent: parent.ID, Ref: n.ref, Slug: n.slug, Name: n.name, Region: n.region, Content: n.content,
		ExpiresAt: n.expires, Test: x.token.Test, Token: n.token})
	if err != nil {
		if perr := s.purge(ctx, id); perr != nil {
			s.log.Warn("take away a branch that was not made; it is tried again", "database", id, "error", perr)
		}
		return f, err
	}
	if f.Former != nil {
		unlock := s.ending.lock(f.Former.ID)
		s.shut(ctx, f.Former.ID, true)
		unlock()
	}
	return f, nil
}

// takeRef gives a file that is there its name. A branch whose lease is over isn't reset: its end comes first, as if the sweep had been in time. One that is reset
// takes its own branches along, as a deleted one does.
func (s *Server) takeRef(ctx context.Context, n catalog.NewFork) (catalog.Forked, error) {
	former, err := s.opt.Catalog.Branch(n.Parent, n.Ref)
	if err == nil && former.Expired(s.opt.Now()) {
		if _, err := s.deleteTree(ctx, former.ID, true, ""); err != nil && !errors.Is(err, catalog.ErrDatabaseNotFound) {
			return catalog.Forked{}, err
		}
	}
	for {
		f, err := s.opt.Catalog.CreateFork(ctx, n)
		if !errors.Is(err, catalog.ErrHasBranches) || ctx.Err() != nil {
			return f, err
		}
		if err := s.deleteBranches(ctx, f.Former.ID); err != nil {
			return f, err
		}
	}
}

// listBranches serves GET …/branches.
func (s *Server) listBranches(x *exchange) error {
	if err := x.openDatabase(false); err != nil {
		return err
	}
	x.success()
	b := append(x.out, '[')
	now := s.opt.Now()
	for _, d := range s.opt.Catalog.Branches(x.database.ID) {
		if d.Expired(now) {
			continue
		}
		if b[len(b)-1] != '[' {
			b = append(b, ',')
		}
		b = append(s.appendBranch(b, d), '}')
	}
	x.out = append(b, `]}`...)
	return nil
}

// branchCalls are what the end of a branch's path may ask for. A ref with such an end has to be escaped.
var branchCalls = []string{"/pin", "/preview", "/merge"}

// branchPath is a path as the routes take it: with the slashes of a branch's ref escaped, where they stand as they are. It is the path itself where there
// is nothing to escape.
func branchPath(path string) string {
	rest, skip := path, 0
	for _, p := range []struct {
		prefix string
		skip   int // parts behind it, before those of the branch
	}{{"/v1/db/", 2}, {"/api/namespaces/", 3}} {
		if r, ok := strings.CutPrefix(path, p.prefix); ok {
			rest, skip = r, p.skip
		}
	}
	for range skip {
		_, after, ok := strings.Cut(rest, "/")
		if !ok {
			return path
		}
		rest = after
	}
	ref, ok := strings.CutPrefix(rest, "branches/")
	if skip == 0 || !ok {
		return path
	}
	call := ""
	for _, c := range branchCalls {
		if strings.HasSuffix(ref, c) && len(ref) > len(c) {
			ref, call = strings.TrimSuffix(ref, c), c
			break
		}
	}
	if strings.IndexByte(ref, '/') < 0 {
		return path
	}
	return path[:len(path)-len(ref)-len(call)] + strings.ReplaceAll(ref, "/", "%2F") + call
}

// ref is the ref in the path.
func (x *exchange) ref() string { return unescape(x.param("ref")) }

// getBranch serves GET …/branches/:ref.
func (s *Server) getBranch(x *exchange) error {
	ref := x.ref()
	if err := x.openDatabase(false); err != nil {
		return err
	}
	d, err := s.branchOf(x.database, ref)
	if err != nil {
		return err
	}
	x.success()
	x.out = append(s.appendBranch(x.out, d), `}}`...)
	return nil
}

// deleteBranch serves DELETE …/branches/:ref.
func (s *Server) deleteBranch(x *exchange) error {
	ref := x.ref()
	if err := x.refuseKey(); err != nil {
		return err
	}
	if err := x.mayBranch("DELETE …/branches/:ref"); err != nil {
		return err
	}
	// Before it is looked up: while one waits it may be made anew.
	defer s.branching.lock(x.database.ID + "/" + ref)()
	d, err := s.branchOf(x.database, ref)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(x.acting(context.WithoutCancel(x.r.Context())), endTime)
	defer cancel()
	x.call = heldCall{kind: kindDeleteBranch, params: map[string]string{"ref": ref}, title: "Delete the branch " + ref}
	if err := x.guardTree(d, true); err != nil {
		return err
	}
	until, err := s.deleteTree(ctx, d.ID, true, x.permit.ID)
	if errors.Is(err, catalog.ErrDatabaseNotFound) {
		err = catalog.ErrBranchNotFound
	}
	if err != nil {
		return err
	}
	x.success()
	x.out = append(appendTime(append(x.out, `{"deleted":true,"restorableUntil":`...), until), `}}`...)
	return nil
}

// forkRequest is the body of POST …/fork.
type forkRequest struct {
	Slug    string   `json:"slug"`
	Name    string   `json:"name"`
	TTLDays *float64 `json:"ttlDays"`
	Content string   `json:"content"`
}

// fork serves POST …/fork: a database of its own, like a branch but without a ref.
func (s *Server) fork(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req forkRequest
	if err := x.optional(&req); err != nil {
		return err
	}
	if err := x.mayBranch("POST …/fork"); err != nil {
		return err
	}
	// It is a database of the namespace, which a token of one database can't make.
	if err := x.needUnscoped("POST …/fork"); err != nil {
		return err
	}
	n := newBranch{slug: req.Slug, name: req.Name, content: req.Content}
	if n.slug == "" {
		n.slug = slugOf(req.Name)
	}
	if !catalog.ValidSlug(n.slug) {
		return catalog.ErrSlug
	}
	if req.TTLDays != nil {
		var err error
		if n.expires, err = s.daysFromNow(*req.TTLDays); err != nil {
			return err
		}
	}
	f, err := s.makeBranch(x, n)
	if err != nil {
		return err
	}
	x.success()
	x.out = append(s.appendBranch(x.out, f.Database), `}}`...)
	return nil
}

// pinRequest is the body of POST …/branches/:ref/pin.
type pinRequest struct {
	Role   string   `json:"role"`
	TTLSec *float64 `json:"ttlSec"`
}

const (
	defaultHandoff = 600   // seconds
	minHandoff     = 60    // seconds
	maxHandoff     = 86400 // seconds
)

// pinBranch serves POST …/branches/:ref/pin: a handoff, which somebody else changes into a token of the branch.
func (s *Server) pinBranch(x *exchange) error {
	ref := x.ref()
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req pinRequest
	if err := x.optional(&req); err != nil {
		return err
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if x.token.OAuth != nil {
		return errOfApp
	}
	if err := x.needAllRows("POST …/branches/:ref/pin"); err != nil {
		return err
	}
	d, err := s.branchOf(x.database, ref)
	if err != nil {
		return err
	}
	switch req.Role {
	case "":
		req.Role = "read"
	case "read", "write", "admin":
	default:
		return newFault(http.StatusBadRequest, "invalid_role", "The role of a handoff is read, write or admin", "")
	}
	if gate.LevelOf(req.Role) > gate.LevelOf(x.token.Role) {
		return newFault(http.StatusForbidden, "role_not_allowed", "A handoff's role can't be higher than that of the token that makes it", "ask for "+x.token.Role+" or less")
	}
	seconds := float64(defaultHandoff)
	if req.TTLSec != nil {
		seconds = *req.TTLSec
	}
	if seconds < minHandoff || seconds > maxHandoff || seconds != float64(int64(seconds)) {
		return newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("ttlSec must be a whole number of seconds from %d to %d", minHandoff, maxHandoff), "it is how long the handoff can be redeemed; the token that comes of it ends with the branch")
	}
	expires := s.opt.Now().Add(time.Duration(seconds) * time.Second)
	if end := d.Fork.ExpiresAt; !end.IsZero() && end.Before(expires) {
		expires = end
	}
	secret, err := s.opt.Catalog.CreateHandoff(x.acting(x.r.Context()), d, req.Role, x.token.Test, expires)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"token":`...)
	b = wire.AppendString(b, secret)
	b = append(b, `,"expiresAt":`...)
	b = appendTime(b, expires)
	x.out = append(b, `}}`...)
	return nil
}

// handoffRequest is the body of POST /v1/handoff.
type handoffRequest struct {
	Token string `json:"token"`
}

// redeemHandoff serves POST /v1/handoff, without a bearer, or with the handoff as one.
func (s *Server) redeemHandoff(x *exchange) error {
	if err := s.flood.admit(x); err != nil {
		return err
	}
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req handoffRequest
	if err := x.optional(&req); err != nil {
		return err
	}
	if req.Token == "" {
		req.Token = bearerOf(x.r)
	}
	ctx := catalog.WithActor(x.r.Context(), catalog.Actor{Type: catalog.ActorAnonymous, Address: addressName(s.clientAddress(x.r))})
	t, secret, d, err := s.opt.Catalog.RedeemHandoff(ctx, req.Token)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"token":`...)
	b = wire.AppendString(b, secret)
	b = append(b, `,"namespaceSlug":`...)
	b = wire.AppendString(b, t.NamespaceSlug)
	b = append(b, `,"databaseSlug":`...)
	b = wire.AppendString(b, d.Slug)
	b = append(b, `,"role":`...)
	b = wire.AppendString(b, t.Role)
	b = append(b, `,"expiresAt":`...)
	b = appendTime(b, t.ExpiresAt)
	x.out = append(b, `}}`...)
	return nil
}
