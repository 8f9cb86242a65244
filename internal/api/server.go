package api

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"golang.org/x/sync/singleflight"

	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/feed"
	"github.com/persqld/persqld/internal/oauth"
	"github.com/persqld/persqld/internal/password"
	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/schedule"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// Options is what the door needs. A zero limit is the contract's default.
type Options struct {
	Catalog   *catalog.Catalog
	Placement store.Placement
	QueryLog  *querylog.Log
	Feed      *feed.Hub // who listens to changes; nil is none
	Metrics   *Metrics
	Billing   *billing.Books // counts and balances; nil counts nothing
	Past      Past           // the databases' history; nil is none
	Replica   Replica        // and that off this machine
	Version   string
	BaseURL   string // the public origin, for the OpenAPI document

	AutoCreate       bool
	BranchContent    string        // of a branch that doesn't say: schema
	StatementTimeout time.Duration // of a load-csv as a whole; 30 s
	MemoryLimit      int64         // bytes of the engine's memory, of which an export or import may hold a part; 0 is no limit
	Temp             string        // directory for the files of exports and imports
	Limits           sqlite.Limits // of databases, which imports keep too
	MaxImport        int64         // bytes of an imported file; 1 GB
	MaxCSV           int64         // bytes of a loaded CSV text; 10 MB
	MaxCSVRows       int           // 100,000
	MaxTransfers     int           // exports and imports at the same time; 4
	TransferTimeout  time.Duration // of one of them; 1 h
	Passwords        Passwords     // of the people who sign in; one with the defaults if nil
	SignUp           string        // who may make an account: one of the SignUp words; SignUpInvite if empty
	FirstNamespace   string        // slug of the namespace whose owners are the operator's people: they credit any namespace
	SignInPerAddress int           // attempts to sign in or up a minute and address; 20
	SignInPerAccount int           // attempts to sign in a minute and account, from addresses that it isn't signed in from; 10
	Trash            time.Duration // how long a deleted database can be brought back; 0 is not at all
	Buffers          int64         // bytes of the buffers of all requests and results together; 0 is no limit
	MaxRequest       int64         // bytes of a request's body; 10 MB
	MaxResult        int64         // bytes of a result; 32 MB
	MaxSQL           int           // bytes of a statement; 100 KB
	MaxStatements    int           // of a batch; 100
	RatePerAddress   int           // /v1 requests a second and address; 0 is no limit
	// TrustProxy tells whether an address is a proxy's, whose X-Forwarded-For counts.
	TrustProxy func(netip.Addr) bool
	Checkout   Checkout // payments; nil is none
	// Credit adds to a namespace's balance, once for each Ref, and tells whether it did so now. It returns catalog.ErrNamespaceNotFound where there is no such
	// namespace. nil is no balance, and no payments.
	Credit func(ctx context.Context, c catalog.Credit) (added bool, err error)
	// AdminOnly moves /metrics and pprof to AdminHandler.
	AdminOnly bool
	// ForeignHost, if set, is called once, at the first request with a Host that isn't this machine.
	ForeignHost func(host string)

	ApprovalTTL  time.Duration // that a held write waits for people; 24 h
	RedeemTTL    time.Duration // that an approved one can be run; 1 h
	MaxSchedules int           // of a database; 100
	ScheduleRuns int           // runs by time at the same time; none by time if 0
	ScheduleTime time.Duration // of a run; 5 min
	MaxApprovals int           // pending ones of a token; 100
	Webhooks     Webhooks
	Identity     Identity
	OAuth        OAuthClients
	OAuthTokens  OAuthTokens

	Now    func() time.Time
	Logger *slog.Logger
}

// Passwords hashes and verifies passwords, as password.Hasher does and says.
type Passwords interface {
	Hash(ctx context.Context, password string) (string, error)
	Verify(ctx context.Context, hash, password string) (ok, outdated bool, err error)
}

// Server answers HTTP.
type Server struct {
	opt          Options
	log          *slog.Logger
	limits       wire.Limits
	router       chi.Router
	queries      *endpoint // see shortcut
	batches      *endpoint
	listening    listeners
	date         dateHeader
	exchanges    sync.Pool
	creating     singleflight.Group
	ending       keyedMutex // a database's, by its id, while it goes to the trash or comes from there
	branching    keyedMutex // a branch, by its parent's id and its ref, while it is made or deleted
	machineHomes keyedMutex // an identity or a binding, while what it has is made
	ruling       keyedMutex // a database's, by its id, while a policy is made
	flood        *flood
	crossSite    *http.CrossOriginProtection
	passwords    Passwords
	byAddress    *attempts // signing in and up
	byAccount    *attempts
	refusals     *attempts // entries of the audit log about failed sign-ins
	payers       *attempts // beginning payments, by user
	machines     *attempts // tokens for machines, by identity
	signer       signer

	oauth      *oauth.Provider
	consentKey [32]byte   // seals pages that ask for consent
	consenting keyedMutex // a user and a client, while the client's database is made
	badClients *attempts  // that clients fail to prove who they are, by address and client

	registrations     *attempts // of clients that register themselves, by address
	documentAddresses *attempts // look-ups of client metadata documents, by who caused them,
	documentHosts     *attempts // and by the host that is asked

	denials     *attempts // entries of the audit log about writes that rules denied, by token
	schedules   *schedule.Runner
	bells       bells     // for those who wait for approvals
	strays      *attempts // lines of the log about events that aren't Stripe's
	budget      budget
	interrupted context.Context // ends when transfers are to stop
	interrupt   context.CancelFunc
	transfers   chan struct{} // holds one for each export or import under way
	draining    atomic.Bool
	ready       atomic.Bool
	foreign     sync.Once
	lastHost    atomic.Pointer[string] // the Host that was looked at last
	document    func() (*document, error)
}

// New returns the Server. It answers 503 on /readyz until SetReady.
func New(opt Options) *Server {
	if opt.MaxRequest <= 0 {
		opt.MaxRequest = 10_000_000
	}
	if opt.MaxResult <= 0 {
		opt.MaxResult = 32_000_000
	}
	if opt.MaxSQL <= 0 {
		opt.MaxSQL = 100_000
	}
	if opt.MaxStatements <= 0 {
		opt.MaxStatements = 100
	}
	if opt.Temp == "" {
		opt.Temp = os.TempDir()
	}
	if opt.MaxImport <= 0 {
		opt.MaxImport = 1_000_000_000
	}
	if opt.MaxCSV <= 0 {
		opt.MaxCSV = 10_000_000
	}
	if opt.MaxCSVRows <= 0 {
		opt.MaxCSVRows = 100_000
	}
	if opt.MaxTransfers <= 0 {
		opt.MaxTransfers = 4
	}
	if opt.StatementTimeout <= 0 {
		opt.StatementTimeout = 30 * time.Second
	}
	if opt.TransferTimeout <= 0 {
		opt.TransferTimeout = time.Hour
	}
	if opt.ApprovalTTL <= 0 {
		opt.ApprovalTTL = 24 * time.Hour
	}
	if opt.RedeemTTL <= 0 {
		opt.RedeemTTL = time.Hour
	}
	if opt.ScheduleTime <= 0 {
		opt.ScheduleTime = 5 * time.Minute
	}
	if opt.Webhooks.Max <= 0 {
		opt.Webhooks.Max = 20
	}
	if opt.Webhooks.Overlap <= 0 {
		opt.Webhooks.Overlap = 24 * time.Hour
	}
	opt.Identity.fill()
	opt.OAuth.fill()
	if opt.MaxApprovals <= 0 {
		opt.MaxApprovals = 100
	}
	if opt.MaxSchedules <= 0 {
		opt.MaxSchedules = 100
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Metrics == nil {
		opt.Metrics = NewMetrics()
	}
	if opt.BranchContent == "" {
		opt.BranchContent = catalog.ContentSchema
	}
	if opt.SignUp == "" {
		opt.SignUp = SignUpInvite
	}
	if opt.SignInPerAddress <= 0 {
		opt.SignInPerAddress = 20
	}
	if opt.SignInPerAccount <= 0 {
		opt.SignInPerAccount = 10
	}
	if opt.Passwords == nil {
		opt.Passwords = password.New(password.Options{})
	}
	s := &Server{opt: opt, log: opt.Logger, flood: newFlood(opt.RatePerAddress, opt.Now)}
	s.crossSite, s.passwords = newCrossSite(opt.BaseURL), opt.Passwords
	s.byAddress, s.byAccount = newAttempts(opt.SignInPerAddress, opt.Now), newAttempts(opt.SignInPerAccount, opt.Now)
	s.machines = newAttempts(opt.Identity.PerMinute, opt.Now)
	s.badClients = newAttempts(opt.SignInPerAddress, opt.Now)
	rand.Read(s.consentKey[:]) // never fails
	s.oauth = s.newOAuth()
	s.registrations = newAttempts(opt.OAuth.RegisterRate, opt.Now)
	s.documentAddresses, s.documentHosts = newAttempts(documentsPerAddress, opt.Now), newAttempts(documentsPerHost, opt.Now)
	s.denials = newAttempts(refusalsPerMinute, opt.Now)
	s.refusals = newAttempts(refusalsPerMinute, opt.Now)
	s.payers, s.strays = newAttempts(checkoutsPerMinute, opt.Now), newAttempts(straysPerMinute, opt.Now)
	s.limits = wire.Limits{SQLBytes: opt.MaxSQL, Statements: opt.MaxStatements}
	s.budget.limit = opt.Buffers
	s.transfers = make(chan struct{}, opt.MaxTransfers)
	s.interrupted, s.interrupt = context.WithCancel(context.Background())
	s.schedules = schedule.New(schedule.Options{Book: opt.Catalog.ScheduleBook(), Run: s.runSchedule, AtOnce: opt.ScheduleRuns, Limit: opt.ScheduleTime, Ran: opt.Metrics.scheduleRan, Now: opt.Now, Logger: opt.Logger})
	s.document = sync.OnceValues(s.newDocument)
	s.exchanges.New = func() any { return newExchange(s) }
	s.routes()
	return s
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		s.preflight(w, r)
		return
	}
	if e, parts := s.shortcut(r); e != nil {
		e.serve(w, r, &parts)
		return
	}
	s.router.ServeHTTP(w, withBranchPath(r))
}

// withBranchPath is the request with a path of branchPath.
func withBranchPath(r *http.Request) *http.Request {
	path := r.URL.RawPath // as the router takes it
	if path == "" {
		path = r.URL.Path
	}
	routed := branchPath(path)
	if routed == path {
		return r
	}
	r = r.WithContext(r.Context())
	u := *r.URL
	u.RawPath = routed
	r.URL = &u
	return r
}

// pathParts are the namespace and the database of a path.
type pathParts struct{ namespace, database string }

// shortcut finds the two calls that nearly all requests are, without the router, which costs as much as a third of what
// is ours of a point query. What it isn't sure of it leaves to the router.
func (s *Server) shortcut(r *http.Request) (e *endpoint, parts pathParts) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/v1/db/")
	if !ok || r.Method != http.MethodPost || r.URL.RawPath != "" {
		return nil, parts
	}
	if rest, ok = strings.CutSuffix(rest, "/query"); ok {
		e = s.queries
	} else if rest, ok = strings.CutSuffix(rest, "/batch"); ok {
		e = s.batches
	} else {
		return nil, parts
	}
	parts.namespace, parts.database, _ = strings.Cut(rest, "/")
	if parts.namespace == "" || parts.database == "" || strings.ContainsAny(parts.database, "/%") || strings.IndexByte(parts.namespace, '%') >= 0 {
		return nil, pathParts{}
	}
	return e, parts
}

// SetReady opens /readyz.
func (s *Server) SetReady() { s.ready.Store(true) }

// Drain closes /readyz: no new requests should be sent here.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.bells.close()
}

// Interrupt ends exports and imports that are still under way.
func (s *Server) Interrupt() { s.interrupt() }

// refusalsPerMinute is how many failed sign-ins the audit log tells of: it is kept for good, and strangers must not fill the disk.
const refusalsPerMinute = 30

// handler serves one call. The exchange's answer is sent when it returns nil, else the error's fault.
type handler func(x *exchange) error

func (s *Server) routes() {
	r := chi.NewRouter()
	s.router = r

	add := func(by entry, method, pattern string, h handler) *endpoint {
		served := s.call(pattern, by, h)
		r.Method(method, pattern, served)
		if method == http.MethodGet {
			r.Method(http.MethodHead, pattern, served) // RFC 9110, section 9.3.2; net/http leaves the body out
		}
		return served
	}
	// v1 registers a call for tokens and, if there is one, its twin for members.
	v1 := func(method, pattern string, h handler) *endpoint {
		if twin := TwinOf(pattern); twin != "" {
			e := add(entryMember, method, twin, h)
			e.paid = countedTwin(twin)
		}
		e := add(entryBearer, method, pattern, h)
		e.paid = true
		return e
	}
	// These stay open to who has nothing left.
	for _, e := range []*endpoint{
		v1("GET", "/v1/usage", s.usage),
		v1("GET", "/v1/billing/balance", s.balance),
		v1("GET", "/v1/billing/caps", s.listCaps),
		v1("PUT", "/v1/billing/caps", s.setCaps),
	} {
		e.paid = false
	}
	v1("GET", "/v1/me", s.me)
	v1("GET", "/v1/whoami", s.me)
	v1("GET", "/v1/tokens", s.listTokens)
	v1("POST", "/v1/tokens", s.createToken)
	v1("DELETE", "/v1/tokens/{id}", s.revokeToken)
	v1("GET", "/v1/audit", s.auditLog)
	v1("POST", "/v1/users", s.createUser)
	v1("GET", "/v1/databases", s.listDatabases)
	v1("POST", "/v1/databases", s.createDatabase)
	v1("GET", "/v1/databases/{db}", s.getDatabase)
	v1("DELETE", "/v1/databases/{db}", s.deleteDatabase)
	v1("POST", "/v1/databases/{db}/undelete", s.undeleteDatabase)

	const db = "/v1/db/{ns}/{db}"
	s.queries = v1("POST", db+"/query", s.query)
	s.batches = v1("POST", db+"/batch", s.batch)
	v1("GET", db+"/tables", s.tables)
	v1("GET", db+"/describe", s.describe)
	v1("GET", db+"/describe/compact", s.describeCompact)
	v1("PUT", db+"/describe", s.putDescribe)
	v1("GET", db+"/search", s.search)
	v1("POST", db+"/search", s.search)
	v1("GET", db+"/doctor", s.doctor)
	v1("POST", db+"/validate", s.validate)
	v1("POST", db+"/explain", s.explain)
	v1("GET", db+"/schema", s.schema)
	v1("GET", db+"/query-log", s.queryLog)
	v1("GET", db+"/policies", s.listPolicies)
	v1("POST", db+"/policies", s.createPolicy)
	v1("DELETE", db+"/policies/{id}", s.deletePolicy)
	v1("POST", db+"/propose", s.propose)
	v1("POST", db+"/apply", s.apply)
	v1("GET", db+"/approval-rules", s.listRules)
	v1("POST", db+"/approval-rules", s.createRule)
	v1("DELETE", db+"/approval-rules/{id}", s.deleteRule)
	v1("GET", db+"/webhooks", s.listWebhooks)
	v1("POST", db+"/webhooks", s.createWebhook)
	v1("GET", db+"/webhooks/{id}", s.getWebhook)
	v1("PATCH", db+"/webhooks/{id}", s.updateWebhook)
	v1("DELETE", db+"/webhooks/{id}", s.deleteWebhook)
	v1("POST", db+"/webhooks/{id}/rotate-secret", s.rotateWebhookSecret)
	v1("GET", db+"/webhooks/{id}/deliveries", s.listDeliveries)
	v1("POST", db+"/webhooks/{id}/replay", s.replayWebhook)
	v1("GET", db+"/approvals", s.listApprovals)
	v1("GET", db+"/approvals/{token}", s.getApproval)
	v1("POST", db+"/approvals/{token}/redeem", s.redeemInPath)
	v1("POST", db+"/redeem_approval", s.redeemNamed)
	v1("GET", db+"/schedules", s.listSchedules)
	v1("POST", db+"/schedules", s.createSchedule)
	v1("PATCH", db+"/schedules/{id}", s.changeSchedule)
	v1("DELETE", db+"/schedules/{id}", s.deleteSchedule)
	v1("POST", db+"/schedules/{id}/run", s.runScheduleNow)
	v1("GET", db+"/bookmark", s.bookmark)
	v1("GET", db+"/snapshots", s.listSnapshots)
	v1("POST", db+"/snapshots", s.createSnapshot)
	v1("DELETE", db+"/snapshots/{id}", s.deleteSnapshot)
	v1("POST", db+"/restore", s.restore)
	v1("GET", db+"/export", s.export)
	v1("POST", db+"/import", s.importFile)
	v1("POST", db+"/load-csv", s.loadCSV)
	for path, h := range map[string]handler{db + "/changes": s.changes, db + "/subscribe": s.subscribe} {
		add(entryMember, "GET", TwinOf(path), h)
		add(entryListener, "GET", path, h).paid = true
	}
	v1("GET", db+"/branches", s.listBranches)
	v1("POST", db+"/fork", s.fork)
	// Making a branch costs nothing.
	v1("POST", db+"/claim_branch", s.claimBranch).paid = false
	v1("PUT", db+"/branches/{ref}", s.putBranch).paid = false
	v1("GET", db+"/branches/{ref}", s.getBranch)
	v1("DELETE", db+"/branches/{ref}", s.deleteBranch)
	v1("POST", db+"/branches/{ref}/pin", s.pinBranch)
	v1("GET", db+"/branches/{ref}/preview", s.previewBranch)
	v1("POST", db+"/branches/{ref}/preview", s.previewBranch)
	v1("POST", db+"/branches/{ref}/merge", s.mergeRef)
	v1("POST", db+"/merge_branch", s.mergeNamed)
	add(entryOpen, "POST", "/v1/handoff", s.redeemHandoff)
	add(entryOpen, "POST", "/v1/handoffs/redeem", s.redeemHandoff)

	v1("GET", "/v1/actions/bindings", s.listBindings)
	v1("POST", "/v1/actions/bindings", s.createBinding)
	v1("DELETE", "/v1/actions/bindings/{id}", s.deleteBinding)
	v1("GET", "/v1/oauth-apps", s.listOAuthApps)
	v1("POST", "/v1/oauth-apps", s.createOAuthApp)
	v1("GET", "/v1/oauth-apps/{id}", s.getOAuthApp)
	v1("PATCH", "/v1/oauth-apps/{id}", s.updateOAuthApp)
	v1("DELETE", "/v1/oauth-apps/{id}", s.deleteOAuthApp)
	v1("POST", "/v1/oauth-apps/{id}/rotate-secret", s.rotateOAuthSecret)
	add(entryOpen, "POST", registerPath, s.registerClient)
	add(entryOpen, "POST", "/v1/identity/federate", s.federate)
	add(entryOpen, "POST", "/v1/actions/connect", s.connect)
	add(entryOpen, "POST", "/agent/identity", s.agentIdentity)
	add(entryOpen, "POST", tokenPath, s.oauthToken)
	add(entryOpen, "GET", "/.well-known/jwks.json", s.jwks)
	add(entryOpen, "GET", authorizePath, s.page(s.authorize))
	add(entryOpen, "POST", authorizePath, s.postAuthorize)
	add(entryOpen, "POST", consentPath, s.page(s.answerConsent))
	add(entryOpen, "POST", revokePath, s.oauthRevoke)
	add(entryOpen, "POST", introspectPath, s.oauthIntrospect)
	add(entryOpen, "GET", userInfoPath, s.userInfo)
	add(entryOpen, "POST", userInfoPath, s.userInfo)
	add(entryOpen, "GET", "/.well-known/openid-configuration", s.openIDMetadata)
	add(entryOpen, "GET", "/.well-known/oauth-authorization-server", s.serverMetadata)
	add(entryOpen, "GET", resourcePath, s.resourceMetadata)
	add(entryOpen, "GET", resourcePath+"/mcp", s.resourceMetadata)
	add(entryOpen, "GET", resourcePath+"/v1", s.resourceMetadata)
	add(entryOpen, "GET", authPath, s.authGuide)
	add(entryOpen, "GET", appsPath, s.page(s.showApps))
	add(entryOpen, "POST", appsPath, s.page(s.answerApps))
	add(entrySession, "GET", "/api/connected-apps", s.listConnectedApps)
	add(entrySession, "DELETE", "/api/connected-apps/{id}", s.disconnectApp)

	add(entryPublic, "POST", "/api/session", s.signIn)
	add(entrySession, "GET", "/api/session", s.getSession)
	add(entrySession, "DELETE", "/api/session", s.signOut)
	add(entrySession, "DELETE", "/api/sessions", s.signOutEverywhere)
	add(entryPublic, "POST", "/api/signup", s.signUp)
	add(entryPublic, "POST", "/api/invitations/{token}/accept", s.acceptInvitation)
	add(entryOpen, "GET", "/invite/{token}", s.page(s.showInvitation))
	add(entryOpen, "POST", "/invite/{token}", s.page(s.answerInvitation))
	add(entryOpen, "GET", signInPath, s.page(s.showSignIn))
	add(entryOpen, "POST", signInPath, s.page(s.answerSignIn))
	add(entryOpen, "POST", "/logout", s.page(s.answerSignOut))
	add(entryOpen, "GET", signUpPath, s.page(s.showSignUp))
	add(entryOpen, "POST", signUpPath, s.page(s.answerSignUp))
	showApproval, decideApproval := s.approvalPages(approvalDesk{})
	add(entryOpen, "GET", "/approve/{token}", s.page(showApproval))
	add(entryOpen, "POST", "/approve/{token}", s.page(decideApproval))
	add(entrySession, "POST", "/api/approvals/{token}/approve", s.approve)
	add(entrySession, "POST", "/api/approvals/{token}/deny", s.deny)
	add(entrySession, "GET", "/api/namespaces", s.listNamespaces)
	add(entrySession, "POST", "/api/namespaces", s.createNamespace)
	const ns = "/api/namespaces/{ns}"
	add(entryMember, "DELETE", ns, s.deleteNamespace)
	add(entryMember, "GET", ns+"/members", s.listMembers)
	add(entryMember, "PATCH", ns+"/members/{user}", s.setMemberRole)
	add(entryMember, "DELETE", ns+"/members/{user}", s.removeMember)
	add(entryMember, "GET", ns+"/invitations", s.listInvitations)
	add(entryMember, "POST", ns+"/invitations", s.createInvitation)
	add(entryMember, "DELETE", ns+"/invitations/{id}", s.revokeInvitation)
	add(entryMember, "GET", ns+"/billing/ledger", s.ledger)
	add(entrySession, "POST", ns+"/billing/credits", s.addCredit)
	add(entryMember, "POST", ns+"/billing/checkout", s.startCheckout)
	add(entryOpen, "POST", "/api/billing/stripe", s.stripeEvent)
	add(entryOpen, "GET", "/api/billing/checkout/{outcome}", s.showCheckout)

	for path, h := range map[string]handler{"/healthz": s.healthz, "/readyz": s.readyz, "/version": s.version,
		"/api/openapi.json": s.openAPI, "/openapi.json": s.openAPI} {
		served := s.call(path, entryOpen, h)
		r.Method(http.MethodGet, path, served)
		r.Method(http.MethodHead, path, served) // what load balancers ask with
	}
	if !s.opt.AdminOnly {
		r.Method("GET", "/metrics", s.opt.Metrics.Handler())
	}
	r.NotFound(s.call("none", entryOpen, func(*exchange) error {
		return newFault(http.StatusNotFound, codeNotFound, "There is no such path", "")
	}).ServeHTTP)
	r.MethodNotAllowed(s.call("none", entryOpen, func(x *exchange) error {
		return newFault(http.StatusMethodNotAllowed, "method_not_allowed", "The path does not take "+safeMethod(x.r.Method), "")
	}).ServeHTTP)
}

// allowed lists the methods that a path takes (RFC 9110, section 15.5.6).
func (s *Server) allowed(r *http.Request) string {
	path := r.URL.RawPath
	if path == "" {
		path = r.URL.Path
	}
	methods := []string{}
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if s.router.Match(chi.NewRouteContext(), m, path) {
			methods = append(methods, m)
		}
	}
	return strings.Join(append(methods, http.MethodOptions), ", ")
}

// safeMethod is a method as it may stand in an answer.
func safeMethod(m string) string {
	if len(m) > 16 {
		return "this method"
	}
	for _, c := range m {
		if c < 'A' || c > 'Z' {
			return "this method"
		}
	}
	return m
}
