package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// parentOf is a database with rows, an index, a view, a trigger and a virtual table.
func parentOf(t testing.TB, c *harness.Client) *harness.DB {
	t.Helper()
	d := c.DB(unused())
	d.Batch(true, "CREATE TABLE a(id INTEGER PRIMARY KEY, b TEXT)", "CREATE INDEX a_b ON a(b)", "CREATE VIEW v AS SELECT b FROM a",
		"CREATE TABLE seen(id INTEGER)", "CREATE TRIGGER tr AFTER INSERT ON a BEGIN INSERT INTO seen VALUES(new.id); END",
		"CREATE VIRTUAL TABLE f USING fts5(body)", "INSERT INTO f VALUES('fox')", "INSERT INTO a(b) VALUES('x'), ('y')").OK()
	return d
}

// claim claims a branch and returns its answer, and a client with its token.
func claim(t testing.TB, d *harness.DB, request body) (*harness.Answer, *harness.DB) {
	t.Helper()
	a := d.Post(d.Path("claim_branch"), request).OK()
	return a, d.As(a.Str("data.token")).DB(a.Str("data.databaseSlug"))
}

func TestClaimBranch(t *testing.T) {
	row(t, "DP-BRANCH-1", "DP-BRANCH-6", "DP-BRANCH-7", "DP-BRANCH-8")
	c := client(t)
	d := parentOf(t, c)
	a, b := claim(t, d, body{"ref": "pr-42"})
	a.Is("data.outcome", "created").Is("data.branchRef", "pr-42").Is("data.namespaceSlug", "default").Is("data.databaseSlug", d.Slug+"-pr-42").Has("data", "expiresAt")
	if got := b.One("SELECT count(*) FROM a"); got != "0" {
		t.Errorf("a branch of the schema has %s rows", got)
	}
	if got, want := b.One("SELECT group_concat(name, ' ' ORDER BY name) FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"), d.One("SELECT group_concat(name, ' ' ORDER BY name) FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"); got != want {
		t.Errorf("the branch has %s, its parent %s", got, want)
	}
	b.Query("CREATE TABLE mine(x)").OK() // write may do so on its own branch
	b.Query("INSERT INTO a(b) VALUES('z')").OK()
	if got := d.One("SELECT count(*) FROM a"); got != "2" {
		t.Errorf("the parent has %s rows", got)
	}
	// The token opens nothing else.
	b.Get("/v1/databases/"+d.Slug).Fails(http.StatusForbidden, "")
	b.As(b.Token()).DB(d.Slug).Query("SELECT 1").Fails(http.StatusForbidden, "")
	// <parent>.<ref> is the same database.
	if got := c.DB(d.Slug + ".pr-42").One("SELECT count(*) FROM a"); got != "1" {
		t.Errorf("by its ref the branch has %s rows", got)
	}

	// Claimed again it is another one: the token of the first is dead, its tables gone.
	a2, b2 := claim(t, d, body{"ref": "pr-42", "content": "full", "ttlSec": 0, "role": "read"})
	a2.Is("data.outcome", "reset").Is("data.databaseSlug", d.Slug+"-pr-42").Is("data.expiresAt", "null")
	b.Query("SELECT 1").Fails(http.StatusUnauthorized, "")
	if got := b2.One("SELECT group_concat(b, '') FROM a"); got != "xy" {
		t.Errorf("a full branch has the rows %s", got)
	}
	if got := b2.One("SELECT body FROM f WHERE f MATCH 'fox'"); got != "fox" {
		t.Errorf("its virtual table finds %s", got)
	}
	b2.Query("SELECT * FROM mine").Fails(http.StatusBadRequest, "")
	b2.Query("INSERT INTO a(b) VALUES('z')").Fails(http.StatusForbidden, "")

	// A ref of its own for each purpose.
	a3, _ := claim(t, d, body{"purpose": "Fix the Login!"})
	if ref := a3.Str("data.branchRef"); !strings.HasPrefix(ref, "fix-the-login-") || len(ref) != len("fix-the-login-")+6 {
		t.Errorf("ref %s", ref)
	}
	d.Get(d.Path("branches")).OK().Is("data.0.branchRef", a3.Str("data.branchRef")).Is("data.1.branchRef", "pr-42").Is("data.1.content", "full").Is("data.1.forkedFrom.slug", d.Slug)
}

func TestBranchBadInput(t *testing.T) {
	row(t, "DP-BRANCH-9")
	c := client(t)
	d := parentOf(t, c)
	bad := func(code string, status int, request body) {
		t.Helper()
		d.Post(d.Path("claim_branch"), request).Fails(status, code)
	}
	for _, ref := range []string{"-x", ".x", "/x", "a b", "ä", strings.Repeat("r", 65), "a\x00b", "main"} {
		bad("invalid_ref", http.StatusBadRequest, body{"ref": ref})
	}
	for _, ttl := range []any{59, -1, 2592001, 60.5} {
		bad("bad_request", http.StatusBadRequest, body{"ref": "x", "ttlSec": ttl})
	}
	bad("invalid_role", http.StatusBadRequest, body{"ref": "x", "role": "owner"})
	bad("bad_request", http.StatusBadRequest, body{"ref": "x", "content": "some"})
	bad("bad_request", http.StatusBadRequest, body{"ref": "x", "at": "2026-01-01T00:00:00Z"})
	d.Get(d.Path("branches")).OK().Is("data", "[]")
	d.Get(d.Path("branches/none")).Fails(http.StatusNotFound, "not_found")
	d.Do("DELETE", d.Path("branches/none"), nil).Fails(http.StatusNotFound, "not_found")
	d.Post(d.Path("branches/none/pin"), body{}).Fails(http.StatusNotFound, "not_found")
	d.Post(d.Path("branches/none"), body{}).Fails(http.StatusMethodNotAllowed, "method_not_allowed")
	d.Post(d.Path("branches/no/ne"), body{}).Fails(http.StatusMethodNotAllowed, "method_not_allowed")
	c.DB(d.Slug+".none").Query("SELECT 1").Fails(http.StatusNotFound, "not_found")
	c.DB("nobody").Post(c.DB("nobody").Path("claim_branch"), body{"ref": "x"}).Fails(http.StatusNotFound, "not_found")
	d.Do("PUT", d.Path("branches/x"), body{"ttlDays": 31}).Fails(http.StatusBadRequest, "bad_request")
	d.Do("PUT", d.Path("branches/x"), body{"ttlDays": 1, "expiresAt": "2030-01-01T00:00:00Z"}).Fails(http.StatusBadRequest, "bad_request")
	d.Do("PUT", d.Path("branches/x"), body{"expiresAt": "yesterday"}).Fails(http.StatusBadRequest, "bad_request")
	d.Do("PUT", d.Path("branches/x"), body{"fromRef": "none"}).Fails(http.StatusNotFound, "not_found")
	d.Do("PUT", d.Path("branches/x"), body{"name": strings.Repeat("n", 201)}).Fails(http.StatusBadRequest, "bad_request")
	d.Do("DELETE", d.Path("branches/x"), nil, "Plan-Key: x").Fails(http.StatusBadRequest, "invalid_idempotency_key")
	d.Post(d.Path("branches/none/pin"), body{"role": 1}).Fails(http.StatusBadRequest, "bad_request")
	for _, path := range []string{"/v1/handoff", "/v1/handoffs/redeem"} {
		d.Post(path, harness.Raw("{")).Fails(http.StatusBadRequest, "bad_json")
		d.Post(path, nil).Fails(http.StatusNotFound, "not_found")
	}
	if a := d.Post(d.Path("claim_branch"), body{"ref": "x", "content": "full", "at": 1000}); a.Status != http.StatusConflict {
		t.Errorf("of a moment before all others: %d %s", a.Status, a.Raw)
	}
	c.Do("DELETE", "/v1/databases/"+d.Slug+"?force=perhaps", nil).Fails(http.StatusBadRequest, "bad_request")
	d.Post(d.Path("fork"), body{"slug": d.Slug}).Fails(http.StatusConflict, "slug_taken")
	d.Post(d.Path("fork"), body{"slug": "No Slug"}).Fails(http.StatusBadRequest, "invalid_slug")

	// Only an admin claims, and one who sees all.
	for name, request := range map[string]body{"write": {"role": "write"}, "scoped": {"tableScope": []string{"a"}}} {
		token := c.Post("/v1/tokens", request).OK().Str("data.token")
		e := c.As(token).DB(d.Slug)
		if got := e.Post(e.Path("claim_branch"), body{"ref": "x"}).Status; got != http.StatusForbidden {
			t.Errorf("a %s token claims: %d", name, got)
		}
	}
	// Of a branch that failed nothing is left.
	d.Get(d.Path("branches")).OK().Is("data", "[]")
}

func TestBranchPaths(t *testing.T) {
	row(t, "DP-BRANCH-2", "DP-BRANCH-3", "DP-BRANCH-5", "DP-BRANCH-10")
	c := client(t)
	d := parentOf(t, c)
	put := func(path string, request body) *harness.Answer {
		t.Helper()
		return d.Do("PUT", d.Path("branches/"+path), request).OK()
	}
	put("feature/x", body{"ttlDays": 2, "name": "Feature X"}).Is("data.branchRef", "feature/x").Is("data.slug", d.Slug+"-feature-x").Is("data.name", "Feature X").Is("data.outcome", "created")
	put("feature%2Fpin", body{}).Is("data.branchRef", "feature/pin").Is("data.expiresAt", "null")
	d.Get(d.Path("branches/feature%2Fx")).OK().Is("data.branchRef", "feature/x")
	id := put("Feature/X", body{}).Is("data.outcome", "created").Str("data.id") // another ref, and so another slug
	slug := d.Get(d.Path("branches/Feature/X")).OK().Is("data.id", id).Str("data.slug")
	if !strings.HasPrefix(slug, d.Slug+"-feature-x-") {
		t.Errorf("the slug that clashes is %s", slug)
	}
	if again := put("Feature/X", body{"content": "full"}).Is("data.outcome", "reset").Is("data.slug", slug).Str("data.id"); again == id {
		t.Error("a branch that is reset has its old id")
	}
	long := put(strings.Repeat("long", 16), body{}).Str("data.slug")
	if len(long) != 63 {
		t.Errorf("a long ref makes the slug %s", long)
	}
	// The action wins where it is ambiguous.
	d.Post(d.Path("branches/feature/pin"), body{}).Fails(http.StatusNotFound, "not_found") // pins the branch "feature"
	d.Post(d.Path("branches/feature%2Fpin/pin"), body{"role": "read"}).OK()

	// A branch of a branch, and one made of another.
	e := c.DB(d.Slug + ".Feature/X")
	e.Slug = slug
	e.Query("INSERT INTO a(b) VALUES('w')").OK()
	e.Do("PUT", e.Path("branches/deeper"), body{"content": "full"}).OK().Is("data.slug", slugOfBranch(slug, "deeper"))
	put("of-other", body{"fromRef": "Feature/X", "content": "full"}).Is("data.forkedFrom.slug", d.Slug)
	if got := c.DB(d.Slug + ".of-other").One("SELECT group_concat(b, '') FROM a"); got != "xyw" {
		t.Errorf("made of another branch it has %s", got)
	}
	// A fork has no ref, and takes no other's place.
	f := d.Post(d.Path("fork"), body{"slug": d.Slug + "-fork", "content": "full", "ttlDays": 1}).OK()
	if f.At("data.branchRef") != nil || f.Str("data.forkedFrom.slug") != d.Slug {
		t.Errorf("a fork: %s", f.Raw)
	}
	// A database with branches stays until they may go, too.
	c.Do("DELETE", "/v1/databases/"+d.Slug, nil).Fails(http.StatusConflict, "has_branches")
	c.Do("DELETE", "/v1/databases/"+d.Slug+"?force=true", nil).OK()
	for _, gone := range []string{slug, long, d.Slug} {
		c.DB(gone).Query("SELECT 1").Fails(http.StatusNotFound, "")
	}
	c.DB(d.Slug + "-fork").Query("SELECT 1").OK()
}

// slugOfBranch is the slug that a short ref makes.
func slugOfBranch(parent, ref string) string { return parent + "-" + ref }

// TestBranchRaces claims one ref at the same time, and many.
func TestBranchRaces(t *testing.T) {
	row(t, "DP-BRANCH-6")
	c := client(t).Apart()
	d := parentOf(t, c)
	var mu sync.Mutex
	var tokens []string
	var slugs = map[string]bool{}
	outcomes := map[string]int{}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			content := []string{"schema", "full"}[i%2]
			a, err := retried(c, "POST", d.Path("claim_branch"), body{"ref": "same", "content": content})
			if err != nil || a.Status != http.StatusOK {
				t.Errorf("claim: %v, %v", a, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			tokens = append(tokens, a.Str("data.token"))
			slugs[a.Str("data.databaseSlug")] = true
			outcomes[a.Str("data.outcome")]++
		})
	}
	wg.Wait()
	live := 0
	for _, token := range tokens {
		b := c.As(token).DB(d.Slug + "-same")
		if a := b.Query("SELECT count(*) FROM a"); a.Status == http.StatusOK {
			live++
			b.Query("INSERT INTO a(b) VALUES('w')").OK()
		}
	}
	if live != 1 || len(slugs) != 1 || outcomes["created"] != 1 {
		t.Errorf("of 50 claims of a ref %d tokens live, outcomes %v, slugs %v", live, outcomes, slugs)
	}
	for i := range 50 {
		wg.Go(func() {
			a, err := retried(c, "POST", d.Path("claim_branch"), body{"ref": fmt.Sprint("r", i), "content": "full"})
			if err != nil || a.Status != http.StatusOK {
				t.Errorf("claim: %v, %v", a, err)
				return
			}
			if got := c.As(a.Str("data.token")).DB(a.Str("data.databaseSlug")).One("SELECT group_concat(b, '') FROM a"); got != "xy" {
				t.Errorf("branch %d has %s", i, got)
			}
		})
	}
	wg.Wait()
	if n := len(d.Get(d.Path("branches")).OK().List("data")); n != 51 {
		t.Errorf("%d branches", n)
	}
}

// retried sends a request again while the server is busy with others of its kind, as a client should.
func retried(c *harness.Client, method, path string, request any) (*harness.Answer, error) {
	for {
		a, err := c.Try(method, path, request)
		if err != nil || a.Status != http.StatusTooManyRequests {
			return a, err
		}
	}
}

func TestHandoffRace(t *testing.T) {
	row(t, "DP-BRANCH-4", "DP-BRANCH-11")
	c := client(t)
	d := parentOf(t, c)
	claim(t, d, body{"ref": "x"})
	h := d.Post(d.Path("branches/x/pin"), body{"role": "write", "ttlSec": 60}).OK().Str("data.token")
	anybody := c.As("")
	var won atomic.Int64
	var token atomic.Value
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			a, err := anybody.Apart().Try("POST", "/v1/handoff", body{"token": h})
			if err != nil {
				t.Error(err)
			} else if a.Status == http.StatusOK {
				won.Add(1)
				token.Store(a.Str("data.token"))
			} else if a.Status != http.StatusNotFound {
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d of 20 got a token", won.Load())
	}
	b := c.As(token.Load().(string)).DB(d.Slug + "-x")
	b.Query("INSERT INTO a(b) VALUES('w')").OK()
	// Never more than the pinner's, and gone with the branch.
	reader := c.As(c.Post("/v1/tokens", body{"role": "read"}).OK().Str("data.token")).DB(d.Slug)
	reader.Post(reader.Path("branches/x/pin"), body{"role": "write"}).Fails(http.StatusForbidden, "role_not_allowed")
	left := reader.Post(reader.Path("branches/x/pin"), body{"role": "read"}).OK().Str("data.token")
	anybody.Post("/v1/handoffs/redeem", body{}, harness.Header("Authorization: Bearer "+left)).OK().Is("data.role", "read")
	left = d.Post(d.Path("branches/x/pin"), body{}).OK().Str("data.token")
	d.Do("DELETE", d.Path("branches/x"), nil).OK().Is("data.deleted", "true")
	b.Query("SELECT 1").Fails(http.StatusUnauthorized, "")
	anybody.Post("/v1/handoff", body{"token": left}).Fails(http.StatusNotFound, "not_found")
	for _, bad := range []string{"", "phand_", "psql_live_x", strings.Repeat("x", 5000)} {
		anybody.Post("/v1/handoff", body{"token": bad}).Fails(http.StatusNotFound, "not_found")
	}
}

// TestBranchOfABank takes full branches while money moves: in each of them all of it is there.
func TestBranchOfABank(t *testing.T) {
	row(t, "DP-BRANCH-12")
	c := client(t).Apart()
	d := c.DB(unused())
	d.Batch(true, "CREATE TABLE account(id INTEGER PRIMARY KEY, money INTEGER)", "INSERT INTO account SELECT value, 100 FROM json_each('"+numbers(50)+"')").OK()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 3))
			for {
				select {
				case <-stop:
					return
				default:
				}
				from, to, sum := random.IntN(50), random.IntN(50), random.IntN(20)
				d.Batch(true, fmt.Sprintf("UPDATE account SET money = money - %d WHERE id = %d", sum, from), fmt.Sprintf("UPDATE account SET money = money + %d WHERE id = %d", sum, to)).OK()
			}
		})
	}
	for i := range 15 {
		a, err := retried(c, "POST", d.Path("claim_branch"), body{"ref": fmt.Sprint("r", i%4), "content": "full"})
		if err != nil || a.Status != http.StatusOK {
			t.Fatalf("claim: %v %v", a, err)
		}
		if got := c.DB(a.Str("data.databaseSlug")).One("SELECT sum(money) || ' ' || count(*) FROM account"); got != "5000 50" {
			t.Errorf("branch %d has %s", i, got)
		}
	}
	close(stop)
	wg.Wait()
}

// TestBranchesAfterCrash kills the server while branches are made and reset: each is whole or absent, and the parent as it was.
func TestBranchesAfterCrash(t *testing.T) {
	row(t, "DP-BRANCH-13")
	data := filepath.Join(t.TempDir(), "data")
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 5))
	for round := range 8 {
		s, err := harness.Run(binary, harness.Options{Data: data, Env: []string{"PERSQLD_TRASH=0s"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Kill)
		c := s.Client(t, harness.Token).Apart()
		d := c.DB("bank")
		if round == 0 {
			d.Batch(true, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "INSERT INTO t SELECT value, randomblob(2000) FROM json_each('"+numbers(1000)+"')").OK()
		}
		check := func(slug string, content string) {
			t.Helper()
			if got, want := c.DB(slug).One("SELECT count(*) FROM t"), map[string]string{"full": "1000", "schema": "0"}[content]; got != want {
				t.Errorf("round %d: %s has %s rows, want %s", round, slug, got, want)
			}
			if got := c.DB(slug).One("PRAGMA integrity_check"); got != "ok" {
				t.Errorf("round %d: %s: %s", round, slug, got)
			}
		}
		check("bank", "full")
		for _, b := range d.Get(d.Path("branches")).OK().List("data") {
			m := b.(map[string]any)
			check(m["slug"].(string), m["content"].(string))
		}
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					_, _ = c.Try("POST", d.Path("claim_branch"), body{"ref": fmt.Sprint("r", (w+i)%5), "content": []string{"schema", "full"}[i%2]})
				}
			})
		}
		time.Sleep(time.Duration(20+random.IntN(300)) * time.Millisecond)
		s.Kill()
		close(stop)
		wg.Wait()
	}
	s := harness.Start(t, binary, harness.Options{Data: data, Env: []string{"PERSQLD_TRASH=0s"}})
	c := s.Client(t, harness.Token)
	n := len(c.DB("bank").Get(c.DB("bank").Path("branches")).OK().List("data"))
	// What a crash left goes at the start.
	files := func() int {
		list, err := filepath.Glob(filepath.Join(data, "db", "*", "*.db"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if !eventually(t, 20*time.Second, func() bool { return files() == n+1 }) {
		t.Errorf("%d files lie about, of a database and %d branches", files(), n)
	}
	s.Stop(t)
	if report, code := doctor(t, data); code != 0 || fmt.Sprint(report["databases"]) != fmt.Sprint(n+1) {
		t.Errorf("persqld doctor, with %d branches: %v", n, report)
	}
}
