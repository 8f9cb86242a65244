// Package config is the one declaration of the server's settings: name, default, unit, range and help of each. Flags,
// environment variables, the YAML file's keys, the help and the documentation's table are made from it.
package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/checkout"
	"github.com/persqld/persqld/internal/identity"
	"github.com/persqld/persqld/internal/password"
	"github.com/persqld/persqld/internal/upstream"
)

// Group is the kong group that marks a flag as a setting. It must be the group of the embedded field where Settings,
// Location or Address are embedded in a command: `embed:"" group:"settings"`.
const Group = "settings"

// Location says where the server's files are. It is all that most subcommands need.
type Location struct {
	Data   string `default:"./data" help:"Data directory, made with mode 0700; a second server on it is refused." placeholder:"DIR"`
	Config string `help:"YAML file of settings; a key is a flag's name." placeholder:"FILE"`
}

// Address says where the server listens. Subcommands that speak to it over HTTP need it.
type Address struct {
	Listen string `default:":8080" help:"Address to listen on." placeholder:"ADDRESS"`
}

// Validate returns an error that names the setting where it is no address.
func (a *Address) Validate() error { return checkAddress("listen", a.Listen) }

// Settings are all settings of the server. A zero value of one that has an auto tag stands for what that tag says, and
// is filled in by Fill. Secrets, which must not be logged, have a secret tag.
type Settings struct {
	Location `embed:""`
	Address  `embed:""`

	BaseURL             string   `name:"base-url" auto:"http://localhost:<port>" help:"Public origin of the server." placeholder:"URL"`
	Namespace           string   `default:"default" help:"Namespace made at the first start." placeholder:"SLUG"`
	Token               string   `auto:"generated" secret:"true" help:"Admin token of that namespace: psql_live_ and at least 32 letters, digits, _ or -. If it is not given, one is generated and printed once, at the first start." placeholder:"TOKEN"`
	AdminEmail          string   `help:"E-mail address of the first user of the console, who becomes owner of that namespace; made at a start if there is no such user, then left as it is. Without one the first start prints a sign-up link." placeholder:"EMAIL"`
	AdminPassword       string   `secret:"true" help:"That user's first password, 8 to 1,024 bytes." placeholder:"PASSWORD"`
	SignUp              string   `name:"signup" default:"invite" enum:"open,invite,closed" help:"Who may make an account: anybody (open), who has an invitation (invite), or the operator alone (closed)." placeholder:"WHO"`
	LocalSignIn         bool     `default:"true" negatable:"" help:"People sign in, and up, with an e-mail address and a password. Off, only sign-in providers are left, of which one must be set; a password then opens nothing."`
	OIDCIssuer          string   `name:"oidc-issuer" help:"Issuer of the OpenID Connect provider that people may sign in with, https (http on loopback alone). Its callback is /login/oidc/callback; a private address must be in PERSQLD_ALLOW_NETWORKS." placeholder:"URL"`
	OIDCClientID        string   `name:"oidc-client-id" help:"Client id of this server at that provider." placeholder:"ID"`
	OIDCClientSecret    string   `name:"oidc-client-secret" secret:"true" help:"Client secret of this server at that provider." placeholder:"SECRET"`
	OIDCLabel           string   `name:"oidc-label" auto:"the issuer's host" help:"What the sign-in page calls that provider, up to 60 characters." placeholder:"TEXT"`
	GitHubClientID      string   `name:"github-client-id" help:"Client id of this server's OAuth app at GitHub, with which people may sign in. Its callback is /login/github/callback." placeholder:"ID"`
	GitHubClientSecret  string   `name:"github-client-secret" secret:"true" help:"Client secret of that OAuth app." placeholder:"SECRET"`
	GitHubURL           string   `name:"github-url" default:"https://github.com" help:"Where GitHub is: another address for a GitHub Enterprise Server." placeholder:"URL"`
	GitHubAPIURL        string   `name:"github-api-url" auto:"of that GitHub" help:"Where its API is: https://api.github.com, or /api/v3 of an Enterprise Server." placeholder:"URL"`
	SessionIdle         Duration `default:"168h" range:"1m..8760h" unit:"time" help:"A session ends that long after its last request." placeholder:"TIME"`
	SessionLife         Duration `default:"720h" range:"1m..8760h" unit:"time" help:"A session ends that long after its sign-in, however much it is used." placeholder:"TIME"`
	MaxSessions         int      `default:"100" range:"1..10000" unit:"sessions" help:"Sessions a user; the oldest ends for the next." placeholder:"N"`
	MaxNamespaces       int      `default:"20" range:"1..100000" unit:"namespaces" help:"Namespaces that a user makes; beyond them 409." placeholder:"N"`
	MaxInvitations      int      `default:"100" range:"1..10000" unit:"invitations" help:"Open invitations a namespace; beyond them 409." placeholder:"N"`
	SignInPerAddress    int      `default:"20" range:"1..1000000" unit:"attempts a minute" help:"Attempts to sign in or up a minute and client address, then 429." placeholder:"N"`
	SignInPerAccount    int      `default:"10" range:"1..1000000" unit:"attempts a minute" help:"Attempts to sign in a minute and account, from addresses that the account is not signed in from, then 429." placeholder:"N"`
	PasswordMemory      Size     `default:"19MiB" range:"8MiB..1GiB" unit:"bytes" help:"Memory that the hash of a password takes (argon2id). A change counts for each user at the next sign-in." placeholder:"SIZE"`
	PasswordPasses      int      `default:"2" range:"1..100" unit:"passes" help:"Passes over that memory." placeholder:"N"`
	PasswordChecks      int      `default:"2" range:"1..1000" unit:"passwords" help:"Passwords that are hashed at the same time; others wait a second for their turn, then 429." placeholder:"N"`
	ApprovalTime        Duration `default:"24h" range:"1s..8760h" unit:"time" help:"How long a write that needs human approval waits to be decided." placeholder:"TIME"`
	RedeemTime          Duration `default:"1h" range:"1s..8760h" unit:"time" help:"How long an approved write can be run." placeholder:"TIME"`
	MaxApprovals        int      `default:"100" range:"1..1000000" unit:"approvals" help:"Pending approvals a token; beyond them 429." placeholder:"N"`
	MaxSchedules        int      `default:"100" range:"1..100000" unit:"schedules" help:"Schedules a database; beyond them 409." placeholder:"N"`
	ScheduleRuns        int      `default:"4" range:"0..1000" unit:"runs" help:"Runs of schedules at the same time, at most one a database; others wait. 0 runs none by time: for a copy of a server, whose schedules should rest." placeholder:"N"`
	ScheduleTime        Duration `default:"5m" range:"1s..24h" unit:"time" help:"How long a schedule's run may take, all of its statements together; then it is stopped, and undone." placeholder:"TIME"`
	AutoCreate          bool     `default:"true" negatable:"" help:"Make a database when an unscoped admin token first names it."`
	BranchContent       string   `default:"schema" enum:"schema,full" help:"What a branch has where the request doesn't say: the objects without rows (schema), or the rows too (full)." placeholder:"WHAT"`
	MaxOpen             int      `auto:"from the descriptor limit" range:"8..1000000" unit:"databases" help:"Open databases; the least recently used idle one closes for the next." placeholder:"N"`
	QueueDepth          int      `default:"1024" range:"1..1000000" unit:"requests" help:"Waiting requests a database; beyond them 429." placeholder:"N"`
	Memory              Size     `auto:"half of the machine's or cgroup's" range:"32MiB..64TiB" unit:"bytes" help:"SQLite's heap, and the buffers of requests and results." placeholder:"SIZE"`
	StatementTimeout    Duration `default:"30s" range:"10ms..24h" unit:"time" help:"Longest time of a statement; then 408." placeholder:"TIME"`
	ParkTimeout         Duration `default:"30s" range:"100ms..24h" unit:"time" help:"Longest that a long statement waits for its turns among other long ones, in all; then 503." placeholder:"TIME"`
	MaxRequest          Size     `default:"10MB" range:"1KB..1GB" unit:"bytes" help:"Largest request body; beyond it 413." placeholder:"SIZE"`
	MaxResult           Size     `default:"32MB" range:"1KB..1GB" unit:"bytes" help:"Largest result; beyond it 413." placeholder:"SIZE"`
	MaxImport           Size     `default:"1GB" range:"1KB..1TB" unit:"bytes" help:"Largest file of an import; beyond it 413." placeholder:"SIZE"`
	MaxCSV              Size     `name:"max-csv" default:"10MB" range:"1KB..1GB" unit:"bytes" help:"Largest text of load-csv; beyond it 413." placeholder:"SIZE"`
	MaxCSVRows          int      `name:"max-csv-rows" default:"100000" range:"1..10000000" unit:"rows" help:"Rows of load-csv; beyond them 413." placeholder:"N"`
	MaxTransfers        int      `default:"4" range:"1..1000" unit:"transfers" help:"Exports and imports at the same time; beyond them 429." placeholder:"N"`
	TransferTimeout     Duration `default:"1h" range:"1s..168h" unit:"time" help:"Longest time of an export or import; then 408." placeholder:"TIME"`
	MaxSQL              Size     `name:"max-sql" default:"100KB" range:"1KB..100MB" unit:"bytes" help:"Longest SQL of a statement." placeholder:"SIZE"`
	MaxDatabase         Size     `default:"10GB" range:"1MB..16TB" unit:"bytes" help:"Largest database." placeholder:"SIZE"`
	MaxStatements       int      `default:"100" range:"1..100000" unit:"statements" help:"Statements a batch." placeholder:"N"`
	RatePerAddress      int      `default:"0" range:"0..1000000" unit:"requests a second" help:"Requests to /v1 and /api a second and client address, then 429; 0 for no limit." placeholder:"N"`
	TrustProxy          Networks `help:"Networks of proxies whose X-Forwarded-For and X-Forwarded-Proto count, as CIDRs with commas between them." placeholder:"CIDR,..."`
	AdminListen         string   `help:"Address of a listener of its own for /metrics and pprof, which then leave the public one." placeholder:"ADDRESS"`
	Log                 string   `default:"info" enum:"debug,info,warn,error" help:"Least level that is logged: debug, info, warn or error." placeholder:"LEVEL"`
	Trash               Duration `default:"168h" range:"0s..87600h" unit:"time" help:"How long a deleted database can be brought back; 0s deletes for good at once. It counts at the deletion: a change leaves what is in the trash already as it is." placeholder:"TIME"`
	History             Duration `default:"720h" range:"0s..87600h" unit:"time" help:"How far back any moment of a database can be restored; 0s keeps no history." placeholder:"TIME"`
	HistoryExact        Duration `default:"24h" range:"0s..87600h" unit:"time" help:"How far back every single commit can be restored; before that, moments at most 30 s apart and every snapshot." placeholder:"TIME"`
	HistoryMax          Size     `default:"0" range:"0..1000TB" unit:"bytes" help:"History of all databases; beyond it the oldest exactness goes first, then the oldest moments. 0 for no limit." placeholder:"SIZE"`
	HistoryMaxDatabase  Size     `default:"0" range:"0..1000TB" unit:"bytes" help:"History of one database, likewise." placeholder:"SIZE"`
	ReplicaURL          string   `name:"replica-url" help:"Where the history is kept off this machine, for persqld restore and Litestream: s3://bucket/prefix?endpoint=…&region=… with the usual AWS_ variables, or file:///folder." placeholder:"URL"`
	ReplicaInterval     Duration `default:"1s" range:"100ms..1h" unit:"time" help:"Between two uploads of a database that is written." placeholder:"TIME"`
	ReplicaRequests     int      `default:"50" range:"1..10000" unit:"requests a second" help:"Requests to S3; what they aren't enough for waits." placeholder:"N"`
	Billing             string   `default:"meter" enum:"off,meter,prepaid" help:"Counting of requests, rows and storage: not at all (off), with prices but without charging (meter), or from a prepaid balance (prepaid)." placeholder:"MODE"`
	PriceRequests       Dollars  `default:"0.5" range:"0..1000000" unit:"dollars" help:"Price of a million requests, in US dollars." placeholder:"USD"`
	PriceRowsRead       Dollars  `default:"0.005" range:"0..1000000" unit:"dollars" help:"Price of a million rows read." placeholder:"USD"`
	PriceRowsWritten    Dollars  `default:"2" range:"0..1000000" unit:"dollars" help:"Price of a million rows written, index entries included." placeholder:"USD"`
	PriceStorage        Dollars  `name:"price-storage-gb-month" default:"0.4" range:"0..1000000" unit:"dollars" help:"Price of a gigabyte stored for 30 days." placeholder:"USD"`
	WelcomeCredit       Dollars  `default:"5" range:"0..1000000" unit:"dollars" help:"Balance that every namespace gets once, where balances are prepaid." placeholder:"USD"`
	LowBalance          Dollars  `default:"1" range:"0..1000000" unit:"dollars" help:"Below it a balance is said to be low, in the log and the audit log; 0 says nothing." placeholder:"USD"`
	BillingEstimated    bool     `help:"Charge also where this build only estimates rows read and written (GET /version: rowMeter)."`
	StripeKey           string   `secret:"true" help:"Secret or restricted key of Stripe's, sk_… or rk_…: a prepaid balance is then topped up by Stripe Checkout." placeholder:"KEY"`
	StripeWebhookSecret string   `secret:"true" help:"Signing secret, whsec_…, of the webhook by which Stripe tells of payments: its address is /api/billing/stripe." placeholder:"SECRET"`
	StripeURL           string   `name:"stripe-url" help:"Another API than Stripe's, such as a stripe-mock." placeholder:"URL"`
	QueryLogText        bool     `default:"true" negatable:"" help:"Keep the SQL text of statements in the query log."`
	FeedKeep            int      `default:"100000" range:"1..100000000" unit:"changes" help:"Changes that a database which is listened to keeps for those who come back." placeholder:"N"`
	FeedKeptFor         Duration `default:"24h" range:"1m..8760h" unit:"time" help:"How long it keeps one, and goes on keeping after its last listener." placeholder:"TIME"`
	FeedRequest         int      `default:"10000" range:"1..1000000" unit:"changes" help:"Changes of a request that are told one by one; beyond them its tables alone are." placeholder:"N"`
	FeedBuffer          Size     `default:"4MiB" range:"64KiB..1GiB" unit:"bytes" help:"Changes of a database that a listener may be behind before it is cut off." placeholder:"SIZE"`
	FeedListeners       int      `default:"10000" range:"1..1000000" unit:"listeners" help:"Listeners to changes, of all databases; beyond them 429." placeholder:"N"`
	FeedListenersHere   int      `name:"feed-listeners-database" default:"2000" range:"1..1000000" unit:"listeners" help:"Listeners to changes, a database; beyond them 429." placeholder:"N"`
	AllowNetworks       Networks `help:"Networks, with commas between them, that webhooks, client metadata documents and look-ups of trusted issuers' keys may reach beside the internet, webhooks by http too, keys only on loopback. None if it is empty." placeholder:"CIDR"`
	TrustedIssuers      string   `help:"Whose tokens let machines in, beside GitHub Actions, GitLab CI and Google: a JSON array, or the path of a file with one, of {issuer, audience, identity, id, ownerId, allow, jwksFile}; see machine-identity.md." placeholder:"JSON"`
	BuiltinIssuers      bool     `default:"true" negatable:"" help:"Trust GitHub Actions, GitLab CI and Google. Their identities get in where they are bound, and have a namespace of their own where they are bound or anybody may sign up."`
	IdentityTokenTime   Duration `default:"1h" range:"1m..24h" unit:"time" help:"How long a token works that a machine got by its identity." placeholder:"TIME"`
	IdentityRate        int      `default:"60" range:"1..100000" unit:"tokens a minute" help:"Tokens a minute and machine identity, then 429." placeholder:"N"`
	MaxIdentities       int      `default:"10000" range:"1..10000000" unit:"identities" help:"Machine identities of an issuer that have a namespace of their own; beyond them 403. Of an owner at a built-in issuer as many as PERSQLD_MAX_NAMESPACES says." placeholder:"N"`
	MaxOAuthApps        int      `name:"max-oauth-apps" default:"100" range:"1..100000" unit:"apps" help:"OAuth apps, a namespace; beyond them 409." placeholder:"N"`
	OAuthSecretOverlap  Duration `name:"oauth-secret-overlap" default:"24h" range:"1s..720h" unit:"time" help:"How long an OAuth app's former secret works after it was rotated, where the call doesn't say." placeholder:"TIME"`
	OAuthRegistration   bool     `name:"oauth-registration" default:"true" negatable:"" help:"Let programs register themselves as public OAuth clients (RFC 7591, POST /oauth/register), as MCP runtimes do."`
	OAuthRegisterRate   int      `name:"oauth-registration-rate" default:"20" range:"1..100000" unit:"registrations a minute" help:"Registrations of OAuth clients a minute and address, then 429." placeholder:"N"`
	MaxOAuthRegistered  int      `name:"max-oauth-registrations" default:"10000" range:"1..1000000" unit:"clients" help:"OAuth clients that registered themselves; beyond them the oldest gives way that nobody let in for an hour, else 503." placeholder:"N"`
	OAuthRegisterUnused Duration `name:"oauth-registration-unused" default:"24h" range:"1h..8760h" unit:"time" help:"After how long a registration is forgotten that nobody has let in." placeholder:"TIME"`
	OAuthRegisterIdle   Duration `name:"oauth-registration-idle" default:"4320h" range:"24h..87600h" unit:"time" help:"After how long a registration is forgotten that nobody lets in any more." placeholder:"TIME"`
	OAuthDocuments      bool     `name:"oauth-client-documents" default:"true" negatable:"" help:"Take https addresses of Client ID Metadata Documents as OAuth client ids."`
	OAuthTokenTime      Duration `name:"oauth-token-time" default:"1h" range:"1m..24h" unit:"time" help:"How long an access token works that an app got for a user, where it reads only who that is or is refreshed. One of a database works until it is revoked." placeholder:"TIME"`
	OAuthMCPTime        Duration `name:"oauth-mcp-time" default:"720h" range:"1m..8760h" unit:"time" help:"How long a token of the MCP endpoint works that is not refreshed." placeholder:"TIME"`
	OAuthRefreshTime    Duration `name:"oauth-refresh-time" default:"720h" range:"1m..87600h" unit:"time" help:"How long a refresh token works that is not used; each use gives another." placeholder:"TIME"`
	OAuthRequirePKCE    bool     `name:"oauth-require-pkce" help:"Require PKCE of confidential OAuth clients too."`
	MaxOAuthSignIns     int      `name:"max-oauth-sign-ins" default:"100" range:"1..10000" unit:"sign-ins" help:"Sign-ins of a user with an app whose tokens work at the same time; the oldest ends, with its tokens." placeholder:"N"`
	MaxWebhooks         int      `default:"20" range:"1..1000" unit:"webhooks" help:"Webhooks, a database; beyond them 409." placeholder:"N"`
	WebhookTimeout      Duration `default:"15s" range:"100ms..5m" unit:"time" help:"How long a webhook's receiver may take to answer." placeholder:"TIME"`
	WebhookRetry        Duration `default:"24h" range:"1s..720h" unit:"time" help:"How long a message to a webhook is tried before it is parked." placeholder:"TIME"`
	WebhookOverlap      Duration `default:"24h" range:"1s..720h" unit:"time" help:"How long a webhook's former secret signs too after it was rotated." placeholder:"TIME"`
	WebhookAttempts     int      `default:"256" range:"0..100000" unit:"attempts" help:"Attempts to tell webhooks at the same time, of a namespace a quarter of them; 0 tells none, which a copy of a server may want." placeholder:"N"`
	WebhookLog          int      `default:"100" range:"1..100000" unit:"messages" help:"Messages that were delivered, a webhook, for its log." placeholder:"N"`
	WebhookParked       int      `default:"1000" range:"1..1000000" unit:"messages" help:"Messages that are parked, a webhook; the oldest go first." placeholder:"N"`
	IdempotencyMax      Size     `default:"64MiB" range:"1MiB..1TiB" unit:"bytes" help:"Kept answers of idempotent requests, a database; the oldest go first." placeholder:"SIZE"`
}

// Validate returns an error that names the setting whose value is out of its range or not of its form.
func (s *Settings) Validate() error {
	if err := checkRanges(s); err != nil {
		return err
	}
	if s.Data == "" {
		return fmt.Errorf("%s is empty; give a directory", name("data"))
	}
	if err := s.Address.Validate(); err != nil {
		return err
	}
	if s.ReplicaURL != "" && s.History.Duration == 0 {
		return fmt.Errorf("%s needs a history, of which it is a copy; %s is 0s", name("replica-url"), name("history"))
	}
	if err := s.checkPrices(); err != nil {
		return err
	}
	if err := s.checkStripe(); err != nil {
		return err
	}
	if _, err := identity.ParseIssuers(s.TrustedIssuers, s.BuiltinIssuers); err != nil {
		return fmt.Errorf("%s: %w", name("trusted-issuers"), err)
	}
	if err := s.checkProviders(); err != nil {
		return err
	}
	if s.AdminListen != "" {
		if err := checkAddress("admin-listen", s.AdminListen); err != nil {
			return err
		}
	}
	if s.BaseURL != "" {
		u, err := url.Parse(s.BaseURL)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil ||
			strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("%s is %q; give an origin such as https://sql.example.com", name("base-url"), s.BaseURL)
		}
	}
	if !catalog.ValidSlug(s.Namespace) {
		return fmt.Errorf("%s is %q; %w", name("namespace"), s.Namespace, catalog.ErrSlug)
	}
	if (s.AdminEmail == "") != (s.AdminPassword == "") {
		return fmt.Errorf("%s and %s go together; give both or neither", name("admin-email"), name("admin-password"))
	}
	if s.AdminEmail != "" {
		if _, err := catalog.FoldEmail(s.AdminEmail); err != nil {
			return fmt.Errorf("%s is %q; %w", name("admin-email"), s.AdminEmail, err)
		}
		if err := password.Check(s.AdminPassword); err != nil {
			return fmt.Errorf("%s: %w", name("admin-password"), err) // without the password
		}
	}
	if s.Token != "" {
		// The token itself stays out of the message.
		if !strings.HasPrefix(s.Token, "psql_live_") {
			return fmt.Errorf("%s must begin with psql_live_", name("token"))
		}
		switch err := catalog.CheckToken(s.Token); err {
		case nil:
		case catalog.ErrTokenUnknown:
			return fmt.Errorf("%s begins with psql_live_p1_, but its checksum is wrong; copy it again, or choose one without p1_", name("token"))
		default:
			return fmt.Errorf("%s must have 32 to 245 letters, digits, _ or - after psql_live_", name("token"))
		}
	}
	return nil
}

// checkPrices refuses a price that is no whole number of nano-dollars a unit: sums of it would not be exact.
func (s *Settings) checkPrices() error {
	const million = 1_000_000
	for _, p := range []struct {
		flag, unit string
		price      Dollars
	}{{"price-requests", "request", s.PriceRequests}, {"price-rows-read", "row", s.PriceRowsRead}, {"price-rows-written", "row", s.PriceRowsWritten}} {
		if p.price%million != 0 {
			return fmt.Errorf("%s is %s, which is no whole number of nano-dollars a %s; give a price of a million in steps of 0.001", name(p.flag), p.price, p.unit)
		}
	}
	return nil
}

// checkStripe returns an error where payments could begin and not be credited.
func (s *Settings) checkStripe() error {
	if (s.StripeKey == "") != (s.StripeWebhookSecret == "") {
		return fmt.Errorf("%s and %s go together; give both or neither", name("stripe-key"), name("stripe-webhook-secret"))
	}
	if s.StripeKey == "" {
		if s.StripeURL != "" {
			return fmt.Errorf("%s needs %s", name("stripe-url"), name("stripe-key"))
		}
		return nil
	}
	if s.Billing != "prepaid" {
		return fmt.Errorf("%s needs a balance to top up; set %s to prepaid, not %s", name("stripe-key"), name("billing"), s.Billing)
	}
	if err := checkout.Check(s.StripeKey, s.StripeWebhookSecret, s.StripeURL); err != nil {
		return fmt.Errorf("%s, %s, %s: %w", name("stripe-key"), name("stripe-webhook-secret"), name("stripe-url"), err)
	}
	return nil
}

// maxLabel is the longest label of a provider, in characters.
const maxLabel = 60

// checkProviders returns an error where people could not sign in.
func (s *Settings) checkProviders() error {
	if (s.OIDCIssuer == "") != (s.OIDCClientID == "") || (s.OIDCIssuer == "") != (s.OIDCClientSecret == "") {
		return fmt.Errorf("%s, %s and %s go together; give all or none", name("oidc-issuer"), name("oidc-client-id"), name("oidc-client-secret"))
	}
	if (s.GitHubClientID == "") != (s.GitHubClientSecret == "") {
		return fmt.Errorf("%s and %s go together; give both or neither", name("github-client-id"), name("github-client-secret"))
	}
	for flag, address := range map[string]string{"oidc-issuer": s.OIDCIssuer, "github-url": s.GitHubURL, "github-api-url": s.GitHubAPIURL} {
		if err := upstream.CheckURL(address); address != "" && err != nil {
			return fmt.Errorf("%s: %w", name(flag), err)
		}
	}
	if utf8.RuneCountInString(s.OIDCLabel) > maxLabel || strings.ContainsFunc(s.OIDCLabel, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%s has up to %d characters that can be seen", name("oidc-label"), maxLabel)
	}
	if !s.LocalSignIn && s.OIDCIssuer == "" && s.GitHubClientID == "" {
		return fmt.Errorf("%s is off, and there is no provider to sign in with; set %s or %s, or leave it on", name("local-sign-in"), name("oidc-issuer"), name("github-client-id"))
	}
	return nil
}

// Fill gives the settings that depend on the machine, and were not given, their values.
func (s *Settings) Fill(m Machine) {
	if s.Memory == 0 {
		s.Memory = max(Size(m.Memory/2), 32<<20)
	}
	if s.MaxOpen == 0 {
		s.MaxOpen = m.openDatabases()
	}
	if s.BaseURL == "" {
		s.BaseURL = "http://localhost"
		if _, port, err := net.SplitHostPort(s.Listen); err == nil && port != "80" && port != "http" {
			s.BaseURL += ":" + port
		}
	}
	s.BaseURL = strings.TrimRight(s.BaseURL, "/")
}

// LogLevel is Log as slog has it.
func (s *Settings) LogLevel() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.Log)); err != nil {
		return slog.LevelInfo
	}
	return level
}

// LocalBaseURL reports whether BaseURL says localhost or a loopback address, which no other machine can reach.
func (s *Settings) LocalBaseURL() bool {
	u, err := url.Parse(s.BaseURL)
	if err != nil {
		return false
	}
	host := u.Hostname()
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func checkAddress(setting, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil || port == "" {
		return fmt.Errorf("%s is %q; give an address such as :8080 or 127.0.0.1:8080", name(setting), address)
	}
	return nil
}
