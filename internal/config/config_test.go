package config_test

import (
	"io"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/persqld/persqld/internal/config"
)

// parse reads settings as the serve command does.
func parse(t *testing.T, environ []string, args ...string) (config.Settings, error) {
	t.Helper()
	var command struct {
		config.Settings `embed:"" group:"settings"`
	}
	parser, err := kong.New(&command, kong.Resolvers(config.NewResolver(environ)), kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(args)
	return command.Settings, err
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "persqld.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	s, err := parse(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Fill(config.Machine{Memory: 8 << 30, Descriptors: 20_000})
	want := config.Settings{
		Location: config.Location{Data: "./data"}, Address: config.Address{Listen: ":8080"}, BaseURL: "http://localhost:8080", Namespace: "default",
		AutoCreate: true, BranchContent: "schema", MaxOpen: 5000, QueueDepth: 1024, Memory: 4 << 30, StatementTimeout: config.Duration{Duration: 30 * time.Second},
		ParkTimeout: config.Duration{Duration: 30 * time.Second},
		MaxImport:   1e9, MaxCSV: 10e6, MaxCSVRows: 100_000, MaxTransfers: 4, TransferTimeout: config.Duration{Duration: time.Hour},
		MaxRequest: 10e6, MaxResult: 32e6, MaxSQL: 100e3, MaxDatabase: 10e9, MaxStatements: 100, Log: "info",
		LocalSignIn: true, GitHubURL: "https://github.com", SignUp: "invite", SessionIdle: config.Duration{Duration: 168 * time.Hour}, SessionLife: config.Duration{Duration: 720 * time.Hour},
		MaxSessions: 100, MaxNamespaces: 20, MaxInvitations: 100, SignInPerAddress: 20, SignInPerAccount: 10,
		ApprovalTime: config.Duration{Duration: 24 * time.Hour}, RedeemTime: config.Duration{Duration: time.Hour}, MaxApprovals: 100, MaxSchedules: 100, ScheduleRuns: 4, ScheduleTime: config.Duration{Duration: 5 * time.Minute},
		FeedKeep: 100_000, FeedKeptFor: config.Duration{Duration: 24 * time.Hour}, FeedRequest: 10_000, FeedBuffer: 4 << 20, FeedListeners: 10_000, FeedListenersHere: 2_000,
		BuiltinIssuers: true, IdentityTokenTime: config.Duration{Duration: time.Hour}, IdentityRate: 60, MaxIdentities: 10000,
		MaxOAuthApps: 100, OAuthSecretOverlap: config.Duration{Duration: 24 * time.Hour}, OAuthRegistration: true, OAuthRegisterRate: 20, MaxOAuthRegistered: 10000, OAuthRegisterUnused: config.Duration{Duration: 24 * time.Hour},
		OAuthRegisterIdle: config.Duration{Duration: 180 * 24 * time.Hour}, OAuthDocuments: true,
		OAuthTokenTime: config.Duration{Duration: time.Hour}, OAuthMCPTime: config.Duration{Duration: 720 * time.Hour}, OAuthRefreshTime: config.Duration{Duration: 720 * time.Hour}, MaxOAuthSignIns: 100,
		MaxWebhooks: 20, WebhookTimeout: config.Duration{Duration: 15 * time.Second}, WebhookRetry: config.Duration{Duration: 24 * time.Hour}, WebhookOverlap: config.Duration{Duration: 24 * time.Hour},
		WebhookAttempts: 256, WebhookLog: 100, WebhookParked: 1000,
		PasswordMemory: 19 << 20, PasswordPasses: 2, PasswordChecks: 2,
		QueryLogText: true, Trash: config.Duration{Duration: 168 * time.Hour}, IdempotencyMax: 64 << 20,
		History: config.Duration{Duration: 720 * time.Hour}, HistoryExact: config.Duration{Duration: 24 * time.Hour},
		ReplicaInterval: config.Duration{Duration: time.Second}, ReplicaRequests: 50,
		Billing: "meter", PriceRequests: 500_000_000, PriceRowsRead: 5_000_000, PriceRowsWritten: 2_000_000_000, PriceStorage: 400_000_000,
		WelcomeCredit: 5_000_000_000, LowBalance: 1_000_000_000,
	}
	s.TrustProxy, s.AllowNetworks = nil, nil
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	if !s.LocalBaseURL() {
		t.Error("the default base URL is not local")
	}
}

func TestPrecedence(t *testing.T) {
	path := file(t, "max-open: 100\nqueue-depth: 200\nmax-sql: 50KB\ntrust-proxy: [10.0.0.0/8, 192.0.2.1]\nauto-create: false\n# a comment\nlog:\n")
	environ := []string{"PERSQLD_CONFIG=" + path, "PERSQLD_MAX_OPEN=101", "PERSQLD_QUEUE_DEPTH=201", "PERSQLD_MAX_RESULT=", "HOME=/root"}
	s, err := parse(t, environ, "--queue-depth=202", "--no-query-log-text")
	if err != nil {
		t.Fatal(err)
	}
	if s.MaxOpen != 101 || s.QueueDepth != 202 || s.MaxSQL != 50_000 || s.AutoCreate || s.QueryLogText || s.Log != "info" || s.MaxResult != 32e6 {
		t.Errorf("got %+v", s)
	}
	for address, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "192.0.2.1": true, "192.0.2.2": false, "::1": false} {
		if got := s.TrustProxy.Contains(netip.MustParseAddr(address)); got != want {
			t.Errorf("proxy %s: %v, want %v", address, got, want)
		}
	}
	other := file(t, "max-sql: 60KB")
	if s, err := parse(t, environ, "--config", other); err != nil || s.MaxSQL != 60_000 {
		t.Errorf("the flag's file: %v, %v", s.MaxSQL, err)
	}
}

func TestRefused(t *testing.T) {
	secret := "psql_live_" + strings.Repeat("x", 31)
	tests := []struct {
		name, environ, file string
		want                []string
	}{
		{"unknown variable", "PERSQLD_MAX_OPNE=5", "", []string{"PERSQLD_MAX_OPNE", "nearest known one is PERSQLD_MAX_OPEN"}},
		{"unknown key", "", "\nmax-opne: 5", []string{"line 2", `"max-opne"`, "nearest known one is max-open"}},
		{"a key twice", "", "log: info\nlog: warn", []string{"line 2", "log", "second time"}},
		{"a map", "", "log: {a: b}", []string{"log", "not a map"}},
		{"no map at all", "", "- a", []string{"max-open: 1000"}},
		{"no YAML", "", "a: [", []string{"read settings"}},
		{"no file", "PERSQLD_CONFIG=/nonexistent", "", []string{"/nonexistent"}},
		{"the file in the file", "", "config: x", []string{`unknown setting "config"`}},
		{"too small", "PERSQLD_MAX_OPEN=7", "", []string{"PERSQLD_MAX_OPEN", "is 7", "8 to 1000000"}},
		{"too great", "", "max-result: 2GB", []string{"--max-result", "2GB", "1KB to 1GB"}},
		{"too long", "PERSQLD_STATEMENT_TIMEOUT=25h", "", []string{"25h0m0s", "10ms to 24h"}},
		{"no size", "PERSQLD_MEMORY=lots", "", []string{"PERSQLD_MEMORY", `"lots" is not a size`}},
		{"no number", "", "queue-depth: many", []string{"line 1", "queue-depth", "many"}},
		{"no duration", "PERSQLD_STATEMENT_TIMEOUT=30", "", []string{`"30" is not a duration`}},
		{"no level", "PERSQLD_LOG=loud", "", []string{"debug", "loud"}},
		{"no network", "PERSQLD_TRUST_PROXY=10.0.0.0/8,proxy", "", []string{`"proxy" is not a network`}},
		{"no address", "PERSQLD_LISTEN=8080", "", []string{"PERSQLD_LISTEN", ":8080"}},
		{"no admin address", "PERSQLD_ADMIN_LISTEN=:http:", "", []string{"PERSQLD_ADMIN_LISTEN"}},
		{"no origin", "PERSQLD_BASE_URL=https://a.example/path", "", []string{"PERSQLD_BASE_URL", "origin"}},
		{"no slug", "PERSQLD_NAMESPACE=Acme", "", []string{"PERSQLD_NAMESPACE", "slug"}},
		{"a short token", "PERSQLD_TOKEN=" + secret, "", []string{"PERSQLD_TOKEN", "32"}},
		{"half an admin", "PERSQLD_ADMIN_EMAIL=ada@example.com", "", []string{"PERSQLD_ADMIN_EMAIL", "PERSQLD_ADMIN_PASSWORD", "both"}},
		{"no e-mail address", "", "admin-email: ada\nadmin-password: " + secret, []string{"PERSQLD_ADMIN_EMAIL", "name@example.com"}},
		{"a short password", "", "admin-email: ada@example.com\nadmin-password: short77", []string{"PERSQLD_ADMIN_PASSWORD", "8 to 1024"}},
		{"another token", "PERSQLD_TOKEN=secret" + secret, "", []string{"psql_live_"}},
		{"no mode", "PERSQLD_BILLING=postpaid", "", []string{"billing", "off", "meter", "prepaid", "postpaid"}},
		{"no amount", "PERSQLD_WELCOME_CREDIT=much", "", []string{"PERSQLD_WELCOME_CREDIT", `"much"`, "number of dollars"}},
		{"an amount with an exponent", "", "low-balance: 1e3", []string{"low-balance", "number of dollars"}},
		{"less than nothing", "PERSQLD_WELCOME_CREDIT=-5", "", []string{"PERSQLD_WELCOME_CREDIT (--welcome-credit) is -5", "0 to 1000000"}},
		{"too much", "", "price-storage-gb-month: 1000000.01", []string{"PERSQLD_PRICE_STORAGE_GB_MONTH", "1000000.01", "0 to 1000000"}},
		{"half a nano-dollar a row read", "PERSQLD_PRICE_ROWS_READ=0.0005", "", []string{"PERSQLD_PRICE_ROWS_READ (--price-rows-read) is 0.0005", "nano-dollars a row", "steps of 0.001"}},
		{"a fraction a row written", "", "price-rows-written: 2.0001", []string{"PERSQLD_PRICE_ROWS_WRITTEN (--price-rows-written) is 2.0001", "nano-dollars a row"}},
		{"a fraction a request", "", "price-requests: 0.000000001", []string{"PERSQLD_PRICE_REQUESTS (--price-requests) is 0.000000001", "nano-dollars a request"}},
		{"half of Stripe", "PERSQLD_STRIPE_KEY=sk_test_" + secret, "", []string{"PERSQLD_STRIPE_KEY", "PERSQLD_STRIPE_WEBHOOK_SECRET", "both"}},
		{"the other half", "PERSQLD_STRIPE_WEBHOOK_SECRET=whsec_" + secret, "", []string{"PERSQLD_STRIPE_KEY", "PERSQLD_STRIPE_WEBHOOK_SECRET", "both"}},
		{"Stripe's address alone", "PERSQLD_STRIPE_URL=http://localhost:12111", "", []string{"PERSQLD_STRIPE_URL", "needs PERSQLD_STRIPE_KEY"}},
		{"Stripe without a balance", "PERSQLD_BILLING=meter", "stripe-key: sk_test_" + secret + "\nstripe-webhook-secret: whsec_" + secret, []string{"PERSQLD_STRIPE_KEY", "PERSQLD_BILLING", "prepaid"}},
		{"a publishable key", "PERSQLD_BILLING=prepaid", "stripe-key: pk_test_" + secret + "\nstripe-webhook-secret: whsec_" + secret, []string{"PERSQLD_STRIPE_KEY", "publishable"}},
		{"another secret", "PERSQLD_BILLING=prepaid", "stripe-key: sk_test_" + secret + "\nstripe-webhook-secret: " + secret, []string{"PERSQLD_STRIPE_WEBHOOK_SECRET", "whsec_"}},
		{"a live key by http", "PERSQLD_BILLING=prepaid", "stripe-key: sk_live_" + secret + "\nstripe-webhook-secret: whsec_" + secret + "\nstripe-url: http://mock", []string{"PERSQLD_STRIPE_URL", "https"}},
		{"a mistyped token", "PERSQLD_TOKEN=psql_live_p1_" + strings.Repeat("x", 38), "", []string{"checksum"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var environ []string
			if tt.environ != "" {
				environ = append(environ, tt.environ)
			}
			if tt.file != "" {
				environ = append(environ, "PERSQLD_CONFIG="+file(t, tt.file))
			}
			_, err := parse(t, environ)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), strings.Repeat("x", 31)) {
				t.Errorf("%q shows the token", err)
			}
		})
	}
}

// What Kubernetes sets for a service named persqld, or persqld-admin, is no setting.
func TestKubernetesVariables(t *testing.T) {
	_, err := parse(t, []string{
		"PERSQLD_SERVICE_HOST=10.0.0.1", "PERSQLD_SERVICE_PORT=80", "PERSQLD_SERVICE_PORT_HTTP=80", "PERSQLD_PORT=tcp://10.0.0.1:80",
		"PERSQLD_PORT_80_TCP=tcp://10.0.0.1:80", "PERSQLD_PORT_80_TCP_PROTO=tcp", "PERSQLD_PORT_80_TCP_PORT=80",
		"PERSQLD_PORT_80_TCP_ADDR=10.0.0.1", "PERSQLD_ADMIN_SERVICE_HOST=10.0.0.2", "PERSQLD_ADMIN_PORT=tcp://10.0.0.2:80",
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSize(t *testing.T) {
	tests := []struct {
		text, again string
		want        config.Size
	}{
		{"0", "0B", 0}, {"1", "1B", 1}, {"10MB", "10MB", 10e6}, {"10 mb", "10MB", 10e6}, {"64MiB", "64MiB", 64 << 20},
		{"1.5KiB", "1536B", 1536}, {"100KB", "100KB", 100e3}, {"1000kB", "1MB", 1e6}, {"2TiB", "2TiB", 2 << 40}, {"7B", "7B", 7},
	}
	for _, tt := range tests {
		got, err := config.ParseSize(tt.text)
		if err != nil || got != tt.want || got.String() != tt.again {
			t.Errorf("%q: %d (%v), %v, want %d (%s)", tt.text, int64(got), got, err, int64(tt.want), tt.again)
		}
	}
	for _, text := range []string{"", "MB", "-1", "-1MB", "1XB", "1e300", "NaN", "Inf", "9223372036854775807KB", "99999999TiB"} {
		if got, err := config.ParseSize(text); err == nil {
			t.Errorf("%q is read as %d", text, int64(got))
		}
	}
}

func TestDollars(t *testing.T) {
	for text, want := range map[string]struct {
		nanos config.Dollars
		again string
	}{
		"0": {0, "0"}, "20": {20_000_000_000, "20"}, "0.005": {5_000_000, "0.005"}, "$5": {5_000_000_000, "5"}, " 5 ": {5_000_000_000, "5"}, "$ 5": {},
		"-5": {-5_000_000_000, "-5"}, "-0.5": {-500_000_000, "-0.5"}, "-0": {0, "0"}, "007.10": {7_100_000_000, "7.1"}, "0.000000001": {1, "0.000000001"},
		"-0.000000001": {-1, "-0.000000001"}, "1.000000000": {1_000_000_000, "1"}, "999999999.999999999": {999_999_999_999_999_999, "999999999.999999999"},
		"1000000000": {1_000_000_000_000_000_000, "1000000000"}, "-1000000000": {-1_000_000_000_000_000_000, "-1000000000"}, "0000000001": {1_000_000_000, "1"},
	} {
		var d config.Dollars
		err := d.UnmarshalText([]byte(text))
		if want.again == "" {
			if err == nil {
				t.Errorf("%q is read as %d", text, int64(d))
			}
			continue
		}
		if err != nil || d != want.nanos || d.String() != want.again {
			t.Errorf("%q: %d (%v), %v; want %d (%s)", text, int64(d), d, err, int64(want.nanos), want.again)
		}
	}
	for _, text := range []string{"", "-", ".", "1e3", "1E3", ".5", "5.", "-.5", "--5", "+5", "-$5", "$$5", "1,000", "1.2.3", "0x10", "Inf", "NaN", "1_0", "5 USD", "٥", "12345678901", "00000000001",
		"0.0000000001", "1.0000000000", "1000000000.000000001", "1000000001", "-1000000001", "9999999999"} {
		var d config.Dollars
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %d", text, int64(d))
		} else if !strings.Contains(err.Error(), "number of dollars") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Prices in whole nano-dollars a unit are taken, from nothing to the greatest.
func TestPrices(t *testing.T) {
	for _, text := range []string{"0", "0.001", "0.005", "2", "2.000", "123.456", "1000000"} {
		s, err := parse(t, []string{"PERSQLD_PRICE_REQUESTS=" + text, "PERSQLD_PRICE_ROWS_READ=$" + text}, "--price-rows-written", text, "--price-storage-gb-month", text)
		if err != nil || s.PriceRequests != s.PriceRowsRead || s.PriceRequests != s.PriceRowsWritten || s.PriceRequests != s.PriceStorage || s.PriceRequests%1_000_000 != 0 {
			t.Errorf("%s: %v, %+v", text, err, s)
		}
	}
	// Storage is charged by the day and rounded there, so any price will do.
	if s, err := parse(t, nil, "--price-storage-gb-month=0.000000001", "--welcome-credit=0.000000001", "--low-balance=0"); err != nil || s.PriceStorage != 1 || s.WelcomeCredit != 1 || s.LowBalance != 0 {
		t.Errorf("%v, %+v", err, s)
	}
	path := file(t, "billing: prepaid\nprice-rows-read: 0.01\nwelcome-credit: 20\nbilling-estimated: true\n")
	if s, err := parse(t, nil, "--config", path); err != nil || s.Billing != "prepaid" || s.PriceRowsRead != 10_000_000 || s.WelcomeCredit != 20_000_000_000 || !s.BillingEstimated {
		t.Errorf("%v, %+v", err, s)
	}
}

func TestCgroupMemory(t *testing.T) {
	root := t.TempDir()
	for name, limit := range map[string]string{
		"a/memory.max": "500\n", "a/b/memory.max": "max\n", "c/memory.max": "max", "memory/v1/memory.limit_in_bytes": "300\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(limit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for groups, want := range map[string]int64{
		"0::/a/b\n": 500, "0::/c\n": math.MaxInt64, "5:cpu,memory:/v1\n0::/\n": 300, "5:cpu:/v1\n": math.MaxInt64,
		"": math.MaxInt64, "0::/../../a\n": 500, "nonsense": math.MaxInt64,
	} {
		if got := config.CgroupMemory(root, groups); got != want {
			t.Errorf("%q: %d, want %d", groups, got, want)
		}
	}
	m, err := config.ThisMachine()
	if err != nil || m.Memory < 1<<20 || m.Descriptors < 8 {
		t.Errorf("this machine: %+v, %v", m, err)
	}
}
