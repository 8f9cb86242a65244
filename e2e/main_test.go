package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// binary is the server under test, built once by TestMain.
var binary string

// shared is one server with the defaults, for all tests that need no settings of their own.
var shared struct {
	sync.Mutex
	server *harness.Server
	err    error
	dir    string
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "persqld-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared.dir = dir
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	if binary = os.Getenv("E2E_BINARY"); binary == "" {
		if binary, err = harness.Build(ctx, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = 1
	}
	if code != 0 && shared.server != nil {
		fmt.Fprintln(os.Stderr, "end of the shared server's log:", harness.Tail(shared.server.Log(), 8000))
	}
	harness.Missing(os.Stderr)
	if unmet := slices.DeleteFunc(harness.Unmet(), func(what string) bool { return unprovoked[what] != "" || ofTwin(what) }); code == 0 && wholeSuite() && len(unmet) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: the OpenAPI document promises what no test has met; add a test (see \"A route\" in CONTRIBUTING.md) for each of\n\t%s\n", strings.Join(unmet, "\n\t"))
		code = 1
	}
	return code
}

// unprovoked says why no test meets a status that the OpenAPI document has, by the call and the status.
var unprovoked = map[string]string{
	"createDatabase 408": slowBody,
	"subscribe 101":      "a WebSocket is opened by a client of its own, in feed_test.go",
	"createPolicy 408":   slowBody,

	"createApprovalRule 408": slowBody,
	"createApprovalRule 409": "200 rules are more than a test should make; the unit test of the catalog does",
	"deleteApprovalRule 200": "by a token it is held, and the redeem deletes it; by a member it is the twin's",
	"createWebhook 408":      slowBody,
	"updateWebhook 408":      slowBody,
	"replayWebhook 408":      slowBody,
	"approveApproval 408":    slowBody,
	"denyApproval 408":       slowBody,
	"propose 408":            slowBody,

	"federate 403":          ofMachines,
	"connectRepository 403": ofMachines,
	"connectRepository 409": "a hundred slugs would have to be taken",
	"agentIdentity 403":     ofMachines,
	"createBinding 408":     slowBody,
	"createOAuthApp 408":    slowBody,
	"updateOAuthApp 408":    slowBody,
	"rotateOAuthSecret 408": slowBody,
	"registerClient 408":    slowBody,
	"agentIdentity 408":     slowBody,
	"requestToken 408":      slowBody,

	"authorizeByPost 408":      slowBody,
	"answerConsent 408":        slowBody,
	"answerConsent 409":        "who has no namespace of one's own has deleted it; the unit test of the door does",
	"revokeOAuthToken 408":     slowBody,
	"introspectOAuthToken 408": slowBody,
	"answerConnectedApps 408":  slowBody,

	"changeSchedule 408": ofAnother,
	"changeSchedule 503": ofAnother,

	"apply 408":               heldAsQuery,
	"apply 413":               heldAsQuery,
	"apply 503":               heldAsQuery,
	"redeemApproval 400":      heldAsQuery,
	"redeemApproval 408":      heldAsQuery,
	"redeemApproval 413":      heldAsQuery,
	"redeemApproval 503":      heldAsQuery,
	"redeemNamedApproval 408": heldAsQuery,
	"redeemNamedApproval 413": heldAsQuery,
	"redeemNamedApproval 503": heldAsQuery,

	"putBranch 409":     "no schema is known that a database has and a branch can't be given; it is there for the one that is found",
	"pinBranch 408":     slowBody,
	"previewBranch 413": "a plan of over a kilobyte is one of a branch, which the test of that status has none of",
	"previewBranch 408": slowMerge,
	"mergeBranch 408":   slowMerge,

	"previewBranchByPost 408": slowMerge,
	"mergeBranchByName 408":   slowMerge,
	"previewBranch 503":       damagedMerge,
	"previewBranchByPost 503": damagedMerge,
	"mergeBranch 503":         damagedMerge,
	"mergeBranchByName 503":   damagedMerge,
	"redeemHandoff 408":       slowBody,
	"redeem 408":              slowBody,
	"createToken 408":         slowBody,
	"createSnapshot 408":      slowBody,
	"createUser 408":          slowBody,
	"createUser 409":          "no schema is known that a database has and another can't be given; it is there for the one that is found",
	"undeleteDatabase 408":    slowBody,
	"signIn 408":              slowBody,
	"signUp 408":              slowBody,
	"acceptInvitation 408":    slowBody,
	"answerInvitation 408":    slowBody,
	"answerSignIn 408":        slowBody,
	"answerApproval 408":      slowBody,
	"answerSignOut 408":       slowBody,
	"answerSignUp 408":        slowBody,
	"answerConfirm 408":       slowBody,
	"answerAccount 408":       slowBody,
	"answerReset 408":         slowBody,
	"createNamespace 408":     slowBody,
	"setMemberRole 408":       slowBody,
	"createInvitation 408":    slowBody,
	"setCaps 408":             slowBody,
	"addCredit 408":           slowBody,
	"startCheckout 408":       slowBody,
	"stripeEvent 408":         slowBody,
	"exportDatabase 408":      "an export over a second, the shortest limit, is one of a larger database than a test should make",
	"restoreDatabase 408":     "a restore over a second, the shortest limit, is one of a larger database than a test should make",
	"validate 408":            slowBody,
}

// ofTwin tells whether a status of the document is a twin's, and not one that each has by its cookie: the others are those of the call
// under /v1, by the same handler.
func ofTwin(what string) bool {
	id, status, _ := strings.Cut(what, " ")
	return strings.HasSuffix(id, "AsMember") && !slices.Contains([]string{"200", "401", "404"}, status)
}

const (
	heldAsQuery  = "it is the query's own failure: this call runs one"
	ofAnother    = "it is that of createSchedule, which looks at the SQL by the same code; here a schedule has to be there"
	ofMachines   = "it takes a token of an issuer that is trusted: identity_test.go meets it"
	slowMerge    = "a merge over its time limit is one of larger databases than a test should make"
	damagedMerge = "it takes a branch, and a database that is damaged has none that was made since; its failure is every call's about a database"
)

const slowBody = "a body may take 30 s, which is longer than a test should"

// wholeSuite tells whether every test was to run: of a part nobody expects that it meets each documented status.
func wholeSuite() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if f := flag.Lookup(name); f == nil || f.Value.String() != "" {
			return false
		}
	}
	return !testing.Short()
}

// sharedServer is the server with the defaults, started at the first call.
func sharedServer(t testing.TB) *harness.Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = harness.Run(binary, harness.Options{Data: filepath.Join(shared.dir, "data")})
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// stopper lets a server be stopped outside a test.
type stopper struct {
	testing.TB
	err error
}

func (s *stopper) Helper() {}
func (s *stopper) Errorf(format string, a ...any) {
	s.err = errors.Join(s.err, fmt.Errorf(format, a...))
}
func (s *stopper) Fatalf(format string, a ...any) { s.Errorf(format, a...) }

func stopShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		return nil
	}
	s := &stopper{}
	if code := shared.server.Stop(s); code != 0 {
		s.Errorf("the shared server ended with status %d", code)
	}
	shared.server.CheckLog(s)
	return s.err
}

// client is an admin client of the shared server.
func client(t testing.TB) *harness.Client {
	t.Helper()
	return sharedServer(t).Client(t, harness.Token)
}

var databases atomic.Int64

// unused is a slug that no other test uses.
func unused() string { return "t" + strconv.FormatInt(databases.Add(1), 10) }

// db is a new database of the shared server.
func db(t testing.TB) *harness.DB {
	t.Helper()
	return newDB(t, client(t))
}

// newDB is a new database of any server.
func newDB(t testing.TB, c *harness.Client) *harness.DB {
	t.Helper()
	d := c.DB(unused())
	c.Post("/v1/databases", map[string]any{"slug": d.Slug}).OK()
	return d
}

// row says which facts of docs/contract a test stands for; TestEveryFactHasATest reads the calls from the
// source, so ids must be string literals.
func row(t testing.TB, ids ...string) {
	t.Helper()
	if len(ids) == 0 {
		t.Fatal("row names no fact")
	}
}

// body is short for the fields of a request.
type body = map[string]any
