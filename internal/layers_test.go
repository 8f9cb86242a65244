package internal_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/persqld/persqld/"

// floors is the house from the cellar to the roof. A package may import those of the floors below its own, and none
// beside or above it. A package that stands on no floor fails the test: find its place first.
var floors = [][]string{
	{ // the ground: each knows only itself
		"internal/datadir",               // where files lie, and that one server has them
		"internal/password",              // hashes of passwords
		"internal/oauth/redirect",        // where an OAuth client may have people sent
		"internal/sqlite",                // the engine
		"internal/bucket",                // objects in a folder or in S3
		"internal/checkout",              // payments by Stripe
		"internal/console",               // what people see
		"internal/outbound",              // where the server may connect to by itself
		"internal/identity/identitytest", // an issuer of tokens for tests
		"migrations",                     // the catalog's schema
	},
	{
		"internal/checkout/checkouttest", // what tests pay with
		"internal/wire",                  // JSON in and out; its values are the engine's
		"internal/approval",              // which writes a person looks at first
		"internal/schedule",              // what runs by time
		"internal/identity",              // whose machine a token of somebody else's names
		"internal/oauth/clientdoc",       // OAuth clients that are documents elsewhere
		"internal/upstream",              // who somebody is at a provider that people sign in with
		"internal/upstream/upstreamtest", // such providers for tests
		"internal/sqlite/crashfs",        // the simulated disk that tests lose power on
		"internal/bucket/buckettest",     // a real S3 server for tests, and what breaks the way to it
	},
	{
		"internal/history",       // what every database was
		"internal/branch/schema", // what a branch changed, told and made by SQL
	},
	{ // the rooms that keep something
		"internal/catalog",  // who owns what
		"internal/querylog", // what ran
		"internal/store",    // one actor a database
	},
	{
		"internal/gate",    // who may run what: the one place that decides
		"internal/billing", // what it costs, and who may still spend
		"internal/feed",    // who hears of what databases commit
		"internal/oauth",   // what apps get, and what for
		"internal/config",  // settings, checked by the rules of the packages that they are for

		"internal/branch/rows", // a branch's rows, merged into its parent
	},
	{
		"internal/branch",   // what branches begin with
		"internal/transfer", // data in and out, on files that nobody else has open
		"internal/webhook",  // who is told of what happens, by POST
		"internal/doctor",   // what is wrong with a directory that nobody serves
		"internal/replica",  // the databases' history off this machine, and back
	},
	{"internal/api"},       // the door
	{"internal/adminsock"}, // the operator's door
	{"cmd/persqld"},        // the program
	{"e2e/openapi"},        // judges exchanges by the document; knows nothing of the house
	{ // beside the house: nobody imports them
		"internal", // this test
		"bench", "bench/floor", "bench/meter",
		"internal/tools/testsummary",
		"internal/sqlite/rowmeter",
		"e2e/harness",
	},
	{"e2e"},
}

// reserved says who alone may import what. A name that ends in / means all below it.
var reserved = []struct {
	what   string
	who    []string
	tests  bool // tests may, anywhere
	reason string
}{
	{"modernc.org/sqlite/lib", engines, false, "nothing but the engine sees SQLite's C API"},
	{"modernc.org/libc", engines, false, "nothing but the engine sees SQLite's C API"},
	{"modernc.org/sqlite", engines, false, "databases are opened in one place"},
	{"golang.org/x/oauth2", []string{"internal/upstream"}, true, "people sign in elsewhere by one place"},
	{"github.com/stripe/stripe-go/v85", []string{"internal/checkout"}, false, "money comes in by one place"},
	{"github.com/ory/fosite", []string{"internal/oauth"}, false, "OAuth is one room's matter"},
	{"net/http", []string{"internal/api", "internal/adminsock", "internal/bucket", "internal/bucket/", "internal/checkout", "internal/checkout/", "internal/identity/", "internal/oauth", "internal/outbound", "internal/upstream", "internal/upstream/", "internal/webhook", "cmd/", "bench", "bench/", "e2e", "e2e/"}, true, "a room never sees an http.Request"},
}

// engines are the engine, the disk that its tests lose power on, and the floor that the bench judges it by.
var engines = []string{"internal/sqlite", "internal/sqlite/crashfs", "bench/floor"}

// strangers must not know each other, though the floors would allow it; not even in tests.
var strangers = []struct{ who, whom, reason string }{
	{"internal/store", "internal/catalog", "the store is told what to open, not whose it is"},
	{"internal/store", "internal/gate", "the store knows that somebody decides, not what"},
	{"internal/wire", "internal/store", "the codec knows values, not where they are kept"},
	{"internal/sqlite", "internal/wire", "the engine knows nothing of the wire"},
	{"bench/floor", "internal/", "a floor that shares the house's code measures nothing"},
}

type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func (p *pkg) name() string {
	if p.ImportPath+"/" == module {
		return "."
	}
	return strings.TrimPrefix(p.ImportPath, module)
}

func packages(t *testing.T) (all []pkg) {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"...")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list: %v", err)
	}
	if len(all) == 0 {
		t.Fatal("go list found no package")
	}
	return all
}

// matches tells whether a package is named by the list.
func matches(list []string, name string) bool {
	return slices.ContainsFunc(list, func(l string) bool {
		return name == l || strings.HasSuffix(l, "/") && strings.HasPrefix(name, l)
	})
}

func floorOf(name string) int {
	return slices.IndexFunc(floors, func(f []string) bool { return slices.Contains(f, name) })
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		floor := floorOf(p.name())
		if floor < 0 {
			t.Errorf("%s stands on no floor", p.name())
			continue
		}
		for _, imp := range p.Imports {
			below, ours := strings.CutPrefix(imp, module)
			if ours && floorOf(below) >= floor {
				t.Errorf("%s (floor %d) imports %s (floor %d): imports point down only", p.name(), floor, below, floorOf(below))
			}
		}
	}
}

func TestReservedImports(t *testing.T) {
	for _, p := range packages(t) {
		tests := slices.Concat(p.TestImports, p.XTestImports)
		for _, r := range reserved {
			if matches(r.who, p.name()) {
				continue
			}
			if slices.Contains(p.Imports, r.what) {
				t.Errorf("%s imports %s: %s", p.name(), r.what, r.reason)
			}
			if !r.tests && slices.Contains(tests, r.what) {
				t.Errorf("a test of %s imports %s: %s", p.name(), r.what, r.reason)
			}
		}
		for _, s := range strangers {
			if p.name() != s.who {
				continue
			}
			for _, imp := range slices.Concat(p.Imports, tests) {
				if name, ours := strings.CutPrefix(imp, module); ours && name != p.name() && matches([]string{s.whom}, name) {
					t.Errorf("%s imports %s: %s", s.who, name, s.reason)
				}
			}
		}
	}
}
