package api

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/identity"
	"github.com/persqld/persqld/internal/wire"
)

// Identity says how machines are let in by tokens of trusted issuers. A zero number is the default.
type Identity struct {
	Verifier      *identity.Verifier // nil trusts nobody
	TokenTime     time.Duration      // that the tokens last that they get; 1 h
	AssertionTime time.Duration      // and the assertions; 5 min
	MaxIdentities int                // of an issuer that have a namespace; 10,000
	MaxOwner      int                // of an owner at an issuer that the operator hasn't named; 20
	PerMinute     int                // tokens a minute and identity; 60
}

func (o *Identity) fill() {
	if o.Verifier == nil {
		o.Verifier = identity.NewVerifier(identity.Options{})
	}
	if o.TokenTime <= 0 {
		o.TokenTime = time.Hour
	}
	if o.AssertionTime <= 0 {
		o.AssertionTime = 5 * time.Minute
	}
	if o.MaxIdentities <= 0 {
		o.MaxIdentities = 10_000
	}
	if o.MaxOwner <= 0 {
		o.MaxOwner = 20
	}
	if o.PerMinute <= 0 {
		o.PerMinute = 60
	}
}

const (
	codeNotBound  = "identity_not_bound"
	codeMismatch  = "identity_mismatch"
	codeNotLetIn  = "identity_not_allowed"
	hintBind      = "the operator binds it with persqld identity bind, an admin of the namespace with POST /v1/actions/bindings"
	hintForget    = "if that is right, the operator runs persqld identity forget (and unbind), after which the name is whoever's has it now"
	actionGrant   = "identity.granted"
	actionConnect = "identity.connected"
	actionFederal = "identity.federated"
)

// machineOf is an identity as the catalog knows it.
func machineOf(id *identity.Identity) catalog.Machine {
	return catalog.Machine{Issuer: id.Issuer, Name: id.Name, ID: id.ID, OwnerID: id.OwnerID, BuiltIn: id.BuiltIn}
}

// machine is whose machine the request's bearer names.
func (x *exchange) machine(token string) (*identity.Identity, error) {
	id, err := x.s.opt.Identity.Verifier.Verify(x.r.Context(), token)
	if err != nil {
		return nil, x.refuseMachine(err)
	}
	return id, x.admitMachine(id)
}

// admitMachine bounds what an identity gets a minute.
func (x *exchange) admitMachine(id *identity.Identity) error {
	return tooMany(x.s.machines.try(id.Issuer+"\x00"+id.Folded()), "by this identity")
}

// refuseMachine is the failure of a token that lets nobody in.
func (x *exchange) refuseMachine(err error) error {
	switch {
	case errors.Is(err, identity.ErrToken):
		reason := strings.TrimPrefix(err.Error(), identity.ErrToken.Error()+": ")
		if x.s.refusals.try("machine") == 0 {
			x.s.log.Info("a token of a machine was refused", "reason", reason, "address", addressName(x.s.clientAddress(x.r)))
		}
		return newFault(http.StatusUnauthorized, codeUnauthorized, "The OIDC token can't be verified: "+reason,
			"it is a JWT of an issuer that PERSQLD_TRUSTED_ISSUERS or the server names, for the audience "+identity.Audience)
	case errors.Is(err, identity.ErrNotAllowed):
		return newFault(http.StatusForbidden, codeNotLetIn, "The OIDC identity is not one of those that the operator allows of its issuer", "the operator names them in PERSQLD_TRUSTED_ISSUERS (allow)")
	}
	return err
}

// machineFault is what the catalog's errors about machines mean here.
func machineFault(err error) error {
	switch {
	case errors.Is(err, catalog.ErrIdentityMismatch):
		text := err.Error()
		text = text[strings.Index(text, catalog.ErrIdentityMismatch.Error())+len(catalog.ErrIdentityMismatch.Error()):]
		return newFault(http.StatusForbidden, codeMismatch, "The OIDC identity's name and id do not belong together"+text, hintForget)
	case errors.Is(err, catalog.ErrNamespaceNotFound), errors.Is(err, catalog.ErrIdentityUnknown):
		return newFault(http.StatusForbidden, codeNotLetIn, "The namespace of this OIDC identity is gone", "the operator lets it have another with persqld identity forget")
	case errors.Is(err, catalog.ErrBindingNotFound):
		return newFault(http.StatusForbidden, codeNotBound, "The OIDC identity is not bound to a namespace", hintBind)
	}
	return err
}

// actingAsMachine is a context that says which machine acts.
func (x *exchange) actingAsMachine(id string) context.Context {
	a := catalog.Actor{Type: catalog.ActorIdentity, ID: id}
	if address := x.s.clientAddress(x.r); address != (netip.Addr{}) {
		a.Address = address.String()
	}
	return catalog.WithActor(context.WithoutCancel(x.r.Context()), a)
}

// databaseURL is where a database's calls begin.
func (s *Server) databaseURL(namespace, database string) string {
	return strings.TrimRight(s.opt.BaseURL, "/") + "/v1/db/" + namespace + "/" + database
}

// federate serves POST /v1/identity/federate: a token for the namespace of the machine that the bearer names, which is made at the first call. The request has no body.
func (s *Server) federate(x *exchange) error {
	if err := x.beginMachine(); err != nil {
		return err
	}
	id, err := x.machine(bearerOf(x.r))
	if err != nil {
		return err
	}
	home, created, err := s.machineHome(x, id)
	if err != nil {
		return err
	}
	t, secret, err := s.opt.Catalog.GrantToken(x.actingAsMachine(home.ID), catalog.Grant{Action: actionFederal, Machine: machineOf(id),
		Token: catalog.NewToken{NamespaceID: home.NamespaceID, Name: tokenName("machine ", id.Name), Via: home.ID, ExpiresAt: s.opt.Now().Add(s.opt.Identity.TokenTime)}})
	if err != nil {
		return machineFault(err)
	}
	x.success()
	b := s.appendMachineToken(x.out, t, secret, homeDatabase)
	b = append(b, `,"identity":`...)
	b = wire.AppendString(b, id.Name)
	b = append(b, `,"created":`...)
	x.out = append(strconv.AppendBool(b, created), `}}`...)
	return nil
}

// beginMachine is the way in of the calls that a token of a trusted issuer opens: they are answered to nobody's cache.
func (x *exchange) beginMachine() error {
	x.w.Header()["Cache-Control"] = noStore
	if err := x.s.flood.admit(x); err != nil {
		return err
	}
	return x.refuseKey()
}

// appendMachineToken writes the members that the answers to machines have in common, without the closing brace.
func (s *Server) appendMachineToken(b []byte, t *catalog.Token, secret, database string) []byte {
	b = append(b, `{"token":`...)
	b = wire.AppendString(b, secret)
	b = append(b, `,"url":`...)
	b = wire.AppendString(b, s.databaseURL(t.NamespaceSlug, database))
	b = append(b, `,"namespace":`...)
	b = wire.AppendString(b, t.NamespaceSlug)
	b = append(b, `,"database":`...)
	b = wire.AppendString(b, database)
	b = append(b, `,"expiresAt":`...)
	return appendTime(b, t.ExpiresAt)
}

// tokenName is a name that a token can have.
func tokenName(kind, name string) string { return kind + name[:min(len(name), 180)] }

// machineHome is the namespace of a machine. Where it has none, one is made: the database's file first, then all names at once, so that no crash and no race leaves half
// of it, or two.
func (s *Server) machineHome(x *exchange, id *identity.Identity) (home *catalog.Identity, created bool, err error) {
	ctx := x.r.Context()
	m := machineOf(id)
	home, err = s.opt.Catalog.RecognizeIdentity(ctx, m)
	if !errors.Is(err, catalog.ErrIdentityUnknown) {
		return home, false, machineFault(err)
	}
	if err := s.mayProvision(x, id); err != nil {
		return nil, false, err
	}
	// Those of one machine come one after the other: 30 jobs that begin together need not make 30 files.
	defer s.machineHomes.lock(id.Issuer + "\x00" + id.Folded())()
	if home, err = s.opt.Catalog.RecognizeIdentity(ctx, m); !errors.Is(err, catalog.ErrIdentityUnknown) {
		return home, false, machineFault(err)
	}
	n := catalog.NewMachineHome{Machine: m, IdentityID: catalog.NewID("mid"), Slug: machineSlug(id), DatabaseID: catalog.NewID("db"), Database: homeDatabase, Most: s.opt.Identity.MaxIdentities}
	if id.BuiltIn {
		n.MostOwner = s.opt.Identity.MaxOwner
	}
	acting := x.actingAsMachine(n.IdentityID)
	owner, err := s.opt.Placement.Owner(acting, n.DatabaseID)
	if err != nil {
		return nil, false, err
	}
	if err := owner.Create(acting, n.DatabaseID); err != nil {
		return nil, false, err
	}
	home, created, err = s.opt.Catalog.CreateMachineHome(acting, n)
	if err != nil || !created {
		s.leave(acting, owner, n.DatabaseID)
	}
	return home, created, machineFault(err)
}

// mayProvision refuses a namespace to strangers. Whom the operator's issuers name may have one; of the others those that are bound, or everybody where anybody may sign up.
func (s *Server) mayProvision(x *exchange, id *identity.Identity) error {
	if !id.BuiltIn || s.opt.SignUp == SignUpOpen {
		return nil
	}
	_, err := s.opt.Catalog.RecognizeBinding(x.actingAsMachine(""), machineOf(id), s.opensBindings(id))
	if errors.Is(err, catalog.ErrBindingNotFound) {
		return newFault(http.StatusForbidden, codeNotLetIn, "OIDC identities of this issuer have no namespace here unless they are bound", hintBind+"; or the operator names the issuer in PERSQLD_TRUSTED_ISSUERS")
	}
	return machineFault(err)
}

// opensBindings tells whether a binding that names no issuer may be meant for the machines of this one: GitHub's, as the call is named for, and those that the operator has named.
func (s *Server) opensBindings(id *identity.Identity) bool {
	return !id.BuiltIn || id.Issuer == identity.GitHub
}

// machineSlug is the slug that a machine's namespace should have: its name, and the beginning of a hash of all that makes it one, so that no name can be chosen to meet
// another one's. Where somebody has the slug all the same, the catalog finds another.
func machineSlug(id *identity.Identity) string { return hashedSlug(id, "machine", id.Issuer, id.ID) }

func hashedSlug(id *identity.Identity, empty string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(append(parts, id.Folded()), "\x00")))
	hash := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:10]))
	slug := slugOf(id.Folded())
	if slug == "" {
		slug = empty
	}
	return strings.Trim(slug[:min(len(slug), 63-len(hash)-1)], "-") + "-" + hash
}

// connect serves POST /v1/actions/connect: a token for the database of a repository, in the namespace that it is bound to.
func (s *Server) connect(x *exchange) error {
	if err := x.beginMachine(); err != nil {
		return err
	}
	id, err := x.machine(bearerOf(x.r))
	if err != nil {
		return err
	}
	b, err := s.opt.Catalog.RecognizeBinding(x.actingAsMachine(""), machineOf(id), s.opensBindings(id))
	if err != nil {
		return machineFault(err)
	}
	d, err := s.bindingDatabase(x, id, b)
	if err != nil {
		return machineFault(err)
	}
	t, secret, err := s.opt.Catalog.GrantToken(x.actingAsMachine(b.ID), catalog.Grant{Action: actionConnect, Machine: machineOf(id),
		Token: catalog.NewToken{NamespaceID: b.NamespaceID, Name: tokenName("repository ", id.Name), Database: d.ID, Via: b.ID, ExpiresAt: s.opt.Now().Add(s.opt.Identity.TokenTime)}})
	if errors.Is(err, catalog.ErrIdentityUnknown) {
		err = catalog.ErrBindingNotFound // it was unbound meanwhile
	}
	if err != nil {
		return machineFault(err)
	}
	x.success()
	x.out = append(s.appendMachineToken(x.out, t, secret, d.Slug), `}}`...)
	return nil
}

// bindingDatabase is the database of a binding, made at its first use, and anew where it was deleted. It is a new one each time: a database that somebody else made is
// nobody's to be given.
func (s *Server) bindingDatabase(x *exchange, id *identity.Identity, b *catalog.Binding) (*catalog.Database, error) {
	ctx := x.actingAsMachine(b.ID)
	defer s.machineHomes.lock(b.ID)()
	b, err := s.opt.Catalog.RecognizeBinding(ctx, machineOf(id), s.opensBindings(id))
	if err != nil {
		return nil, err
	}
	if d, err := s.opt.Catalog.DatabaseByID(b.DatabaseID); b.DatabaseID != "" && err == nil && d.NamespaceID == b.NamespaceID {
		return d, nil
	}
	plain, hashed := slugOf(id.Folded()), hashedSlug(id, "repository", b.ID)
	if plain == "" || len(plain) > 50 {
		plain = hashed
	}
	for n := 1; n <= 100; n++ {
		slug := plain
		switch {
		case n == 2:
			slug = hashed
		case n > 2:
			slug = fmt.Sprintf("%s-%d", hashed[max(0, len(hashed)-50):], n)
		}
		// One that had the slug may be in the trash: it isn't this one, and its slug should stay free for it.
		if _, err := s.opt.Catalog.Database(b.NamespaceID, slug); err == nil || errors.Is(err, catalog.ErrDatabaseEnded) && s.trashedSlug(b.NamespaceID, slug) {
			continue
		}
		m, err := s.createMade(ctx, catalog.NewDatabase{NamespaceID: b.NamespaceID, Slug: strings.TrimLeft(slug, "-")}, nil)
		if err != nil {
			return nil, err
		}
		if !m.new {
			continue
		}
		return m.d, s.opt.Catalog.SetBindingDatabase(ctx, b.ID, m.d.ID)
	}
	return nil, newFault(http.StatusConflict, codeSlugTaken, "The namespace has no free slug for the repository's database", "delete databases that nobody needs")
}

func (s *Server) trashedSlug(namespace, slug string) bool {
	_, err := s.opt.Catalog.TrashedSlug(namespace, slug)
	return err == nil
}
