package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

var errNotScoped = newFault(http.StatusForbidden, codeForbidden, "Token is not scoped to this database", "")

// openDatabase finds the database that the path names, for this token. With create it is made when it is not there
// and the token and the settings allow it.
func (x *exchange) openDatabase(create bool) error {
	slug, err := x.namespaceAndSlug()
	if err != nil {
		return err
	}
	d, err := x.find(slug)
	if err != nil && create && errors.Is(err, catalog.ErrDatabaseNotFound) && !errors.Is(err, catalog.ErrDatabaseEnded) &&
		x.s.opt.AutoCreate && x.token.Unscoped() && gate.LevelOf(x.token.Role) == gate.LevelAdmin {
		d, err = x.s.create(x.acting(x.r.Context()), catalog.NewDatabase{NamespaceID: x.token.NamespaceID, Slug: slug, Test: x.token.Test, Use: true})
		if err == nil && x.token.Test && !d.Test {
			err = catalog.ErrDatabaseNotFound
		}
	}
	x.database = d
	if err == nil {
		err = x.chargeTo(d.ID)
	}
	return err
}

// namespaceAndSlug reads the path and compares its namespace with the token's.
func (x *exchange) namespaceAndSlug() (string, error) {
	ns, slug := x.param("ns"), x.param("db")
	if strings.IndexByte(ns, '%') >= 0 {
		ns = unescape(ns)
	}
	if strings.IndexByte(slug, '%') >= 0 {
		slug = unescape(slug)
	}
	if ns != x.token.NamespaceSlug {
		return "", newFault(http.StatusForbidden, codeForbidden, "Token namespace mismatch", "the token belongs to another namespace than the path names; GET /v1/me tells which")
	}
	return slug, nil
}

// unescape undoes the escapes that a router leaves in a part of a path. What then is no slug is found nowhere.
func unescape(part string) string {
	if s, err := url.PathUnescape(part); err == nil {
		return s
	}
	return part
}

// named is the database of a slug, or the branch of <parent>.<ref>. One whose time is over isn't there, though it may still have to be taken away.
func (s *Server) named(namespace, slug string) (*catalog.Database, error) {
	d, err := s.opt.Catalog.Database(namespace, slug)
	if err != nil {
		parent, ref, both := strings.Cut(slug, ".")
		if !both {
			return nil, err
		}
		p, perr := s.opt.Catalog.Database(namespace, parent)
		if perr != nil {
			return nil, perr
		}
		if d, err = s.opt.Catalog.Branch(p.ID, ref); err != nil {
			return nil, err
		}
	}
	if d.Expired(s.opt.Now()) {
		return nil, catalog.ErrDatabaseEnded
	}
	return d, nil
}

// find is the database of a slug that the token may see.
func (x *exchange) find(slug string) (*catalog.Database, error) {
	d, err := x.s.named(x.token.NamespaceID, slug)
	if x.token.Database != "" && (err != nil || d.ID != x.token.Database) {
		return nil, errNotScoped
	}
	if err == nil && x.token.Test && !d.Test {
		return nil, catalog.ErrDatabaseNotFound
	}
	return d, err
}

// made is a database and whether this call made it.
type made struct {
	d   *catalog.Database
	new bool
}

// create makes a database: first its file, durably, then its name in the catalog, so that a name never lacks a file.
// Calls that name the same one at the same time make it once.
func (s *Server) create(ctx context.Context, n catalog.NewDatabase) (*catalog.Database, error) {
	m, err := s.createMade(ctx, n, nil)
	return m.d, err
}

// createMade also tells whether the database is new. What fill puts into it is there before anybody can name it; fill may be nil.
func (s *Server) createMade(ctx context.Context, n catalog.NewDatabase, fill func(ctx context.Context, owner store.Runner, id string) error) (made, error) {
	if !catalog.ValidSlug(n.Slug) {
		return made{}, catalog.ErrSlug
	}
	// Whoever waits for the same must not be undone by the first one's client hanging up.
	ctx = context.WithoutCancel(ctx)
	mine := false // the calls that wait for another's share its answer, but made nothing
	v, err, _ := s.creating.Do(fmt.Sprint(n.NamespaceID, "/", n.Slug, "/", n.Use), func() (any, error) {
		mine = true
		n.ID = catalog.NewID("db")
		owner, err := s.opt.Placement.Owner(ctx, n.ID)
		if err != nil {
			return made{}, err
		}
		if d, err := s.opt.Catalog.Database(n.NamespaceID, n.Slug); err == nil {
			return made{d: d}, nil
		}
		if err := owner.Create(ctx, n.ID); err != nil {
			return made{}, err
		}
		if fill != nil {
			if err := fill(ctx, owner, n.ID); err != nil {
				return made{}, errors.Join(err, s.unmake(ctx, owner, n.ID))
			}
		}
		d, isNew, err := s.opt.Catalog.CreateDatabase(ctx, n)
		if err != nil || !isNew {
			s.leave(ctx, owner, n.ID)
		}
		return made{d, isNew}, err
	})
	m := v.(made)
	m.new = m.new && mine
	return m, err
}

// unmake takes what was made of a database away that gets no name.
func (s *Server) unmake(ctx context.Context, owner store.Runner, id string) error {
	if err := owner.Delete(ctx, id); err != nil {
		return err
	}
	if s.opt.Past == nil {
		return nil
	}
	return s.opt.Past.Forget(id)
}

// leave is unmake where there is another error to tell, or none.
func (s *Server) leave(ctx context.Context, owner store.Runner, id string) {
	if err := s.unmake(ctx, owner, id); err != nil {
		s.log.Warn("a database's file without a name was left behind", "database", id, "error", err)
	}
}

// listDatabases serves GET /v1/databases.
func (s *Server) listDatabases(x *exchange) error {
	page, err := x.page()
	if err != nil {
		return err
	}
	switch v := x.r.URL.Query().Get("deleted"); v {
	case "", "false":
	case "true":
		return s.listTrash(x, page)
	default:
		return newFault(http.StatusBadRequest, codeBadRequest, "deleted must be true or false", "")
	}
	var list []*catalog.Database
	if x.token.Database != "" {
		if d, err := s.opt.Catalog.DatabaseByID(x.token.Database); err == nil && page.Number == 1 {
			list = append(list, d)
		}
	} else {
		list = s.opt.Catalog.Databases(x.token.NamespaceID, page)
	}
	x.success()
	b := append(x.out, '[')
	for i, d := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendDatabase(b, d), '}')
	}
	x.out = append(b, `]}`...)
	return nil
}

// page reads which page of a list is asked for.
func (x *exchange) page() (catalog.Page, error) {
	page := catalog.Page{Number: 1, Size: 100, TestOnly: x.token.Test}
	q := x.r.URL.Query()
	for name, to := range map[string]*int{"page": &page.Number, "pageSize": &page.Size} {
		v := q.Get(name)
		if v == "" {
			continue
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || name == "pageSize" && n > catalog.MaxPageSize {
			return page, newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("%s must be a whole number from 1%s", name, map[string]string{"pageSize": fmt.Sprintf(" to %d", catalog.MaxPageSize)}[name]), "")
		}
		*to = n
	}
	return page, nil
}

// appendDatabase writes a database's object, but for its closing brace.
func appendDatabase(b []byte, d *catalog.Database) []byte {
	b = append(b, `{"id":`...)
	b = wire.AppendString(b, d.ID)
	b = append(b, `,"slug":`...)
	b = wire.AppendString(b, d.Slug)
	b = append(b, `,"name":`...)
	b = wire.AppendString(b, d.Name)
	b = append(b, `,"status":`...)
	b = wire.AppendString(b, d.Status)
	b = append(b, `,"region":`...)
	b = wire.AppendString(b, d.Region)
	var f catalog.Fork
	if d.Fork != nil {
		f = *d.Fork
	}
	b = append(b, `,"forkedFromId":`...)
	if f.From == "" {
		b = append(b, `null`...)
	} else {
		b = wire.AppendString(b, f.From)
	}
	if f.Ref != "" {
		b = append(b, `,"branchRef":`...)
		b = wire.AppendString(b, f.Ref)
	}
	b = append(b, `,"expiresAt":`...)
	b = appendTime(b, f.ExpiresAt)
	b = append(b, `,"createdAt":`...)
	return appendTime(b, d.CreatedAt)
}

// databaseRequest is the body of POST /v1/databases.
type databaseRequest struct {
	Name    string         `json:"name"`
	Slug    string         `json:"slug"`
	Region  string         `json:"region"`
	TTLDays *float64       `json:"ttlDays"`
	From    jsontext.Value `json:"from"`
}

// createDatabase serves POST /v1/databases.
func (s *Server) createDatabase(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req databaseRequest
	if err := x.object(&req); err != nil {
		return err
	}
	if err := x.needUnscoped("POST /v1/databases"); err != nil {
		return err
	}
	if req.Slug == "" {
		req.Slug = slugOf(req.Name)
	}
	if req.Slug == "" {
		f := newFault(http.StatusBadRequest, codeBadRequest, "A database needs a name or a slug", "")
		if req.Name != "" {
			f = newFault(http.StatusBadRequest, "invalid_slug", "No slug can be made of the name", "send a slug too: letters a-z, digits and -")
		}
		return f
	}
	n := catalog.NewDatabase{NamespaceID: x.token.NamespaceID, Slug: req.Slug, Name: req.Name, Region: req.Region, Test: x.token.Test}
	if req.TTLDays != nil {
		var err error
		if n.ExpiresAt, err = s.daysFromNow(*req.TTLDays); err != nil {
			return err
		}
	}
	if len(req.From) > 0 && req.From.Kind() != 'n' {
		var from fromRequest
		if err := from.read(req.From); err != nil {
			return err
		}
		return s.createFrom(x, n, &from)
	}
	m, err := s.createMade(x.acting(x.r.Context()), n, nil)
	if err != nil {
		return err
	}
	if x.token.Test && !m.d.Test {
		return newFault(http.StatusConflict, codeSlugTaken, "A database that is no test database has this slug", "choose another slug")
	}
	x.success()
	x.out = append(appendDatabase(x.out, m.d), `}}`...)
	return nil
}

// slugOf derives a slug from a name: its letters and digits in lower case, with - between words.
func slugOf(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == 63 {
			break
		}
	}
	return strings.Trim(b.String(), "-")
}

// refuseKey refuses an idempotency key where the call is idempotent by its nature or its answer is never kept.
func (x *exchange) refuseKey() error {
	if x.r.Header["Plan-Key"] != nil || x.r.Header["Plan-Step"] != nil {
		return newFault(http.StatusBadRequest, "invalid_idempotency_key", "This call takes no Plan-Key", "")
	}
	return nil
}

// getDatabase serves GET /v1/databases/:slug.
func (s *Server) getDatabase(x *exchange) error {
	d, err := x.find(unescape(x.param("db")))
	if err != nil {
		return err
	}
	x.database = d
	var size, tables int64
	err = x.do(store.JobFunc(func(tx *store.Tx) error {
		var err error
		if size, err = tx.StoredBytes(); err != nil {
			return err
		}
		list, err := userTables(tx, &x.gate.Caller)
		tables = int64(len(list))
		return err
	}))
	if err != nil {
		return err
	}
	x.success()
	b := appendDatabase(x.out, d)
	b = append(b, `,"sizeBytes":`...)
	if x.gate.Caller.Bound() { // it tells of hidden rows
		b = append(b, `null`...)
	} else {
		b = wire.AppendInt(b, size)
	}
	b = append(b, `,"tableCount":`...)
	b = wire.AppendInt(b, tables)
	x.out = append(b, `}}`...)
	return nil
}

// notSystem leaves the system's objects out of a list of names.
const notSystem = `name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT LIKE '\_persql\_%' ESCAPE '\'`
