package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/persqld/persqld/internal/adminsock"
	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/checkout"
	"github.com/persqld/persqld/internal/config"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/feed"
	"github.com/persqld/persqld/internal/identity"
	"github.com/persqld/persqld/internal/oauth/clientdoc"
	"github.com/persqld/persqld/internal/outbound"
	"github.com/persqld/persqld/internal/password"
	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/webhook"
)

const (
	// drainTime is how long a stopping server lets statements finish before it interrupts them, and stopTime when it
	// gives up on the rest: supervisors send SIGKILL after 10 s.
	drainTime = 8 * time.Second
	stopTime  = 9500 * time.Millisecond

	// feedTime is how long a stopping server waits for listeners to take its word that it stops.
	feedTime = 1500 * time.Millisecond

	maxHeaderBytes = 64 << 10

	// keysTime bounds each of the two documents that a trusted issuer's keys are read from.
	keysTime = 5 * time.Second

	// gcPercent lets the heap, which is small, grow threefold between two collections: at the usual twofold the collector
	// takes twice as much of a point query's time.
	gcPercent = 200

	// goMemory is what the program may take beside buffers before its garbage is collected more often, in bytes.
	goMemory = 192 << 20
)

type serveCmd struct {
	config.Settings `embed:"" group:"settings"`
}

// Run runs the server until SIGTERM or SIGINT. A second signal ends the process at once.
func (cmd *serveCmd) Run(a *app) (err error) {
	ctx, stop := signal.NotifyContext(a.ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	machine, err := config.ThisMachine()
	if err != nil {
		return err
	}
	logger := newLogger(a.stderr, cmd.LogLevel())

	dir, err := datadir.Open(cmd.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()

	listener, err := net.Listen("tcp", cmd.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listener.Close()
	// This one too before anything is made: what the first start makes is shown only once, when the server runs.
	var adminListener net.Listener
	if cmd.AdminListen != "" {
		if adminListener, err = net.Listen("tcp", cmd.AdminListen); err != nil {
			return fmt.Errorf("listen for metrics: %w", err)
		}
		defer adminListener.Close()
	}
	cmd.Listen = listener.Addr().String() // with the port that the system chose, if it did
	cmd.Fill(machine)

	// Before the first file is opened: the engine has one configuration a process.
	if err := sqlite.Initialize(sqlite.Setup{HeapLimit: int64(cmd.Memory) / 4 * 3, TempDir: dir.Temp()}); err != nil {
		return err
	}
	// The collector's goal, no limit that fails anything: buffers, and what the catalog and the rest of the program take.
	debug.SetMemoryLimit(int64(cmd.Memory)/2 + goMemory)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	cat, err := catalog.Open(ctx, dir.Catalog(), catalog.Options{Logger: logger, SessionIdle: cmd.SessionIdle.Duration, SessionLife: cmd.SessionLife.Duration,
		MaxSessions: cmd.MaxSessions, MaxNamespaces: cmd.MaxNamespaces, MaxInvitations: cmd.MaxInvitations, MaxSignIns: cmd.MaxOAuthSignIns, Reserved: cmd.Namespace})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cat.Close()) }()
	if err := makeDatabasesDir(dir); err != nil {
		return err
	}
	passwords := password.New(password.Options{Memory: int(cmd.PasswordMemory), Passes: cmd.PasswordPasses, AtOnce: cmd.PasswordChecks})
	ns, first, err := cmd.ensureAdmin(ctx, cat, passwords)
	if err != nil {
		return err
	}

	qlog := querylog.Open(dir.QueryLog(), querylog.Options{Logger: logger, Text: cmd.QueryLogText})
	defer func() { err = errors.Join(err, qlog.Close()) }()
	metrics := api.NewMetrics()
	limits := sqlite.Limits{Pages: int64(cmd.MaxDatabase) / sqlite.PageSize}
	past, err := openPast(dir, pastOptions{keep: cmd.History.Duration, exact: cmd.HistoryExact.Duration, max: int64(cmd.HistoryMax), maxDatabase: int64(cmd.HistoryMaxDatabase)}, logger)
	if err != nil {
		return err
	}
	books, err := cmd.openBooks(ctx, dir, cat, logger)
	if err != nil {
		return err
	}
	var st *store.Store
	keep := func(ctx context.Context, id string) error { return st.KeepUnsynced(ctx, id) }
	base := func(ctx context.Context, id string) error { return st.Base(ctx, id) }
	past.ship, err = openReplica(ctx, &cmd.Settings, past, cat, dir, keep, base, metrics, logger)
	if err != nil {
		return err
	}
	hub := feed.New(feed.Options{Max: cmd.FeedListeners, MaxHere: cmd.FeedListenersHere, RingBytes: int(cmd.FeedBuffer), For: cmd.FeedKeptFor.Duration, Logger: logger})
	st, err = store.New(store.Options{
		Feed: hub, FeedKeep: cmd.FeedKeep, FeedFor: cmd.FeedKeptFor.Duration, FeedChanges: cmd.FeedRequest,
		Past: past.forStore(), Clock: past.forClock(), PastFor: cmd.History.Duration, Made: past.made,
		Dir: dir.Databases(), MaxOpen: cmd.MaxOpen, QueueDepth: cmd.QueueDepth,
		StatementTimeout: cmd.StatementTimeout.Duration, KeptBytes: int64(cmd.IdempotencyMax),
		ParkTimeout: cmd.ParkTimeout.Duration,
		MemoryHigh:  int64(cmd.Memory) / 2, MemoryLimit: int64(cmd.Memory) / 4 * 3,
		Temp: dir.Temp(), Limits: limits,
		Tables: func(id string) []*sqlite.Table {
			return []*sqlite.Table{qlog.Table(id), api.DatabaseListTable()}
		},
		Meter:  books.forStore(),
		Logger: logger, Observer: metrics,
	})
	if err != nil {
		return err
	}
	hub.Place(st)
	options := api.Options{
		Feed:     hub,
		Webhooks: api.Webhooks{Networks: outbound.Networks{Any: len(cmd.AllowNetworks) > 0, Contains: cmd.AllowNetworks.Contains}, Max: cmd.MaxWebhooks, Overlap: cmd.WebhookOverlap.Duration},
		Billing:  books.Books, FirstNamespace: cmd.Namespace,
		Catalog: cat, Placement: st, QueryLog: qlog, Metrics: metrics, Version: programVersion(), BaseURL: cmd.BaseURL,
		Passwords: passwords, SignUp: cmd.SignUp, SignInPerAddress: cmd.SignInPerAddress, SignInPerAccount: cmd.SignInPerAccount,
		Buffers: int64(cmd.Memory) / 4,
		Temp:    dir.Temp(), Limits: limits, MaxImport: int64(cmd.MaxImport), MaxCSV: int64(cmd.MaxCSV), MaxCSVRows: cmd.MaxCSVRows,
		StatementTimeout: cmd.StatementTimeout.Duration, MemoryLimit: int64(cmd.Memory) / 4 * 3,
		MaxTransfers: cmd.MaxTransfers, TransferTimeout: cmd.TransferTimeout.Duration,
		AutoCreate: cmd.AutoCreate, BranchContent: cmd.BranchContent, Trash: cmd.Trash.Duration, ApprovalTTL: cmd.ApprovalTime.Duration, RedeemTTL: cmd.RedeemTime.Duration, MaxApprovals: cmd.MaxApprovals, MaxSchedules: cmd.MaxSchedules, ScheduleRuns: cmd.ScheduleRuns, ScheduleTime: cmd.ScheduleTime.Duration, MaxRequest: int64(cmd.MaxRequest), MaxResult: int64(cmd.MaxResult),
		MaxSQL: int(cmd.MaxSQL), MaxStatements: cmd.MaxStatements, RatePerAddress: cmd.RatePerAddress,
		TrustProxy: cmd.TrustProxy.Contains, AdminOnly: cmd.AdminListen != "", Logger: logger,
	}
	issuers, err := identity.ParseIssuers(cmd.TrustedIssuers, cmd.BuiltinIssuers)
	if err != nil {
		return err
	}
	options.Identity = api.Identity{TokenTime: cmd.IdentityTokenTime.Duration, MaxIdentities: cmd.MaxIdentities, MaxOwner: cmd.MaxNamespaces, PerMinute: cmd.IdentityRate,
		Verifier: identity.NewVerifier(identity.Options{Issuers: issuers, Get: outbound.NewFetcher(options.Webhooks.Networks, keysTime, options.Version), Logger: logger})}
	options.OAuth = api.OAuthClients{MaxApps: cmd.MaxOAuthApps, Overlap: cmd.OAuthSecretOverlap.Duration, Register: cmd.OAuthRegistration, RegisterRate: cmd.OAuthRegisterRate,
		MaxRegistered: cmd.MaxOAuthRegistered, RegisterUnused: cmd.OAuthRegisterUnused.Duration, RegisterIdle: cmd.OAuthRegisterIdle.Duration}
	if cmd.OAuthDocuments {
		options.OAuth.Documents = clientdoc.New(clientdoc.Options{Get: outbound.NewFetcher(options.Webhooks.Networks, clientdoc.FetchTime, options.Version), Logger: logger})
	}
	options.OAuthTokens = api.OAuthTokens{AccessTime: cmd.OAuthTokenTime.Duration, TokenTime: cmd.OAuthMCPTime.Duration, RefreshTime: cmd.OAuthRefreshTime.Duration, RequirePKCE: cmd.OAuthRequirePKCE}
	options.NoLocalSignIn, options.Providers = !cmd.LocalSignIn, cmd.providers(options.Webhooks.Networks, options.Version, logger)
	if cmd.StripeKey != "" {
		options.Credit = books.Credit
		if options.Checkout, err = checkout.New(checkout.Options{Key: cmd.StripeKey, WebhookSecret: cmd.StripeWebhookSecret, Endpoint: cmd.StripeURL, Logger: logger}); err != nil {
			return err
		}
		logger.Info("payments by Stripe Checkout", "webhook", cmd.BaseURL+"/api/billing/stripe")
	}
	if cmd.LocalBaseURL() {
		logger.Warn("the server's public address is not set: links that it gives lead to this machine", "baseURL", cmd.BaseURL, "setting", "PERSQLD_BASE_URL")
		options.ForeignHost = func(host string) {
			logger.Warn("a request came under a name that PERSQLD_BASE_URL does not have; set it to the server's public origin", "host", host, "baseURL", cmd.BaseURL)
		}
	}
	options.Past = past.forAPI()
	if past.ship != nil {
		options.Replica = past.ship
	}
	door := api.New(options)
	if err := books.begin(ctx, st, metrics); err != nil {
		return err
	}
	pastCtx, stopPast := context.WithCancel(context.Background())
	defer stopPast()
	pastDone := past.keep(pastCtx, cat, st, metrics, dir, logger)
	closed := make(chan struct{})
	stopShip, shipDone := replicate(past.ship, closed)
	defer stopShip()
	metrics.Register("persqld_sqlite_memory_bytes", "Memory that SQLite has allocated.", func() float64 { return float64(sqlite.MemoryUsed()) })
	storage := datadir.NewMeter(dir.Databases())
	metrics.Register("persqld_storage_bytes", "Bytes on disk of all databases with their logs, a minute old at most.", func() float64 { return float64(storage.Bytes()) })
	pasts := datadir.NewMeter(dir.History())
	metrics.Register("persqld_history_bytes", "Bytes on disk of the history of all databases, a minute old at most.", func() float64 { return float64(pasts.Bytes()) })
	metrics.RegisterCounter("persqld_query_log_dropped_total", "Entries of the query log that found no room.", func() float64 { return float64(qlog.Stats().Dropped) })

	hubCtx, stopHub := context.WithCancel(context.Background())
	defer stopHub()
	go hub.Run(hubCtx)
	metrics.Register("persqld_feed_listeners", "Listeners to changes.", func() float64 { return float64(hub.Listeners()) })
	metrics.RegisterCounter("persqld_feed_delivered_total", "Changes that were given to listeners.", func() float64 { return float64(hub.Delivered()) })
	metrics.RegisterCounter("persqld_feed_cut_off_total", "Listeners that were cut off, being too slow.", func() float64 { return float64(hub.CutOff()) })
	metrics.RegisterCounter("persqld_feed_resyncs_total", "Times that a listener was told that it has missed changes.", func() float64 { return float64(hub.Resynced()) })

	teller := webhook.New(webhook.Options{Catalog: cat, Hub: hub, Networks: options.Webhooks.Networks, BaseURL: strings.TrimSuffix(cmd.BaseURL, "/"), Version: options.Version,
		Timeout: cmd.WebhookTimeout.Duration, RetryFor: cmd.WebhookRetry.Duration, AtOnce: cmd.WebhookAttempts, Keep: cmd.WebhookLog, KeepParked: cmd.WebhookParked, Logger: logger})
	tellerCtx, stopTeller := context.WithCancel(context.Background())
	defer stopTeller()
	tellerDone := make(chan struct{})
	go func() {
		defer close(tellerDone)
		if cmd.WebhookAttempts > 0 {
			teller.Run(tellerCtx)
		}
	}()
	metrics.RegisterCounter("persqld_webhook_delivered_total", "Messages that webhooks' receivers have taken.", func() float64 { return float64(teller.Delivered()) })
	metrics.RegisterCounter("persqld_webhook_failed_total", "Attempts to tell webhooks that failed.", func() float64 { return float64(teller.Failed()) })
	metrics.RegisterCounter("persqld_webhook_parked_total", "Messages to webhooks that were given up, and parked.", func() float64 { return float64(teller.Parked()) })
	metrics.Register("persqld_webhook_failing", "Webhooks whose last attempt failed.", func() float64 { return float64(teller.Failing()) })

	web := newHTTPServer(door, logger)
	guard := api.NewConnGuard(nil)
	guarded := guard.Attach(web, listener)
	guardCtx, stopGuard := context.WithCancel(context.Background())
	defer stopGuard()
	go guard.Run(guardCtx)
	failed := make(chan error, 3)
	if adminListener != nil {
		admin := newHTTPServer(adminRoutes(metrics, door), logger)
		admin.ReadHeaderTimeout = 10 * time.Second
		defer admin.Close()
		go func() { failed <- admin.Serve(adminListener) }()
		logger.Info("metrics and pprof", "address", adminListener.Addr().String())
	}
	socket, err := adminsock.Listen(dir.Socket())
	if err != nil {
		return err
	}
	socketCtx, closeSocket := context.WithCancel(context.Background())
	defer closeSocket()
	socketDone := make(chan struct{})
	go func() {
		defer close(socketDone)
		if err := adminsock.Serve(socketCtx, socket, lender(adminHandler(&ledgers{cat, door.Undelete, door.DeleteNamespace, passwords, cmd.MaxOAuthApps, books.Books, true, cmd.BaseURL}), cat, st, dir)); err != nil {
			failed <- err
		}
	}()
	sweepCtx, stopSweep := context.WithCancel(context.Background())
	defer stopSweep()
	sweepDone := make(chan struct{})
	go func() {
		defer close(sweepDone)
		door.Sweep(sweepCtx)
	}()
	schedules := door.Schedules()
	schedules.Recover(ctx)
	metrics.Register("persqld_schedules_running", "Schedules that are running.", func() float64 { return float64(schedules.Running()) })
	metrics.Register("persqld_schedules_overdue_seconds", "For how long the schedule has been due that waits longest.", func() float64 { return schedules.Overdue().Seconds() })
	schedulesCtx, stopSchedules := context.WithCancel(context.Background())
	defer stopSchedules()
	schedulesDone := make(chan struct{})
	go func() {
		defer close(schedulesDone)
		schedules.Run(schedulesCtx)
	}()
	go func() { failed <- web.Serve(guarded) }()
	door.SetReady()
	logger.Info("ready", "address", listener.Addr().String(), "data", dir.Root(), "namespace", ns.Slug,
		"version", options.Version, "sqlite", sqlite.Version(), "maxOpen", cmd.MaxOpen, "memory", int64(cmd.Memory))
	if first.Token != "" || first.SignUpURL != "" {
		if err := a.print(first, first.welcome); err != nil {
			return err
		}
	}

	select {
	case <-ctx.Done():
		logger.Info("stopping: what runs is finished first")
	case err = <-failed:
		err = fmt.Errorf("serve: %w", err)
	}
	stop()
	stopSchedules() // what runs is finished with the requests
	stopSweep()
	stopTeller()
	<-tellerDone
	stopPast()
	stopShip()
	<-pastDone
	err = errors.Join(err, shutDown(door, web, st))
	<-schedulesDone
	err = errors.Join(err, books.end())
	close(closed)
	<-shipDone
	err = errors.Join(err, past.close(err == nil))
	<-sweepDone
	closeSocket()
	<-socketDone
	logger.Info("stopped")
	return err
}

// shutDown takes no more requests, finishes those that are there, and closes the databases.
func shutDown(door *api.Server, web *http.Server, st *store.Store) error {
	door.Drain()
	last, cancelLast := context.WithTimeout(context.Background(), stopTime)
	defer cancelLast()
	soft, cancelSoft := context.WithTimeout(last, drainTime)
	defer cancelSoft()
	listening, cancelListening := context.WithTimeout(last, feedTime)
	door.EndFeeds(listening)
	cancelListening()
	answered := make(chan error, 1)
	go func() { answered <- web.Shutdown(last) }()
	select {
	case err := <-answered:
		return errors.Join(err, st.Close(soft))
	case <-soft.Done():
	}
	door.Interrupt()
	err := st.Close(soft) // interrupts what still runs
	if serr := <-answered; serr != nil {
		web.Close()
	}
	return err
}

func newHTTPServer(h http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// adminRoutes is what the listener of PERSQLD_ADMIN_LISTEN serves.
func adminRoutes(m *api.Metrics, door http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	for _, path := range []string{"GET /healthz", "GET /readyz", "GET /version"} {
		mux.Handle(path, door)
	}
	return mux
}

// newLogger writes lines for people on a terminal, JSON elsewhere.
func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if f, ok := w.(*os.File); ok {
		if fi, err := f.Stat(); err == nil && fi.Mode()&os.ModeCharDevice != 0 {
			return slog.New(slog.NewTextHandler(w, opts))
		}
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

// makeDatabasesDir makes the directory of the databases' files, durably, like everything that is on the way to them.
func makeDatabasesDir(dir *datadir.Dir) error {
	if err := os.MkdirAll(dir.Databases(), 0o700); err != nil {
		return fmt.Errorf("make directory for databases: %w", err)
	}
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync data directory: %w", err)
	}
	return nil
}
