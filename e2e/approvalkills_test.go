package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// redeemable is a held call that is redeemed while the server is killed.
type redeemable struct {
	name string
	// hold prepares a round and has its call held; the calls after it are of that round.
	hold   func(admin *harness.Client, round int) (token string)
	redeem func(admin *harness.Client, token string) (*harness.Answer, error)
	ran    func(admin *harness.Client) bool
	// undo takes back what ran, so that it would show if it ran again.
	undo func(admin *harness.Client)
}

// redeemableCalls are the calls of which a rule can hold one.
func redeemableCalls() []redeemable {
	rule := body{"tableGlob": "ledger", "action": "require_approval"}
	ledger := func(admin *harness.Client, slug string) *harness.DB {
		d := admin.DB(slug)
		d.Must("CREATE TABLE ledger(id INTEGER PRIMARY KEY, n INTEGER)")
		d.Must("CREATE TABLE free(n)")
		return d
	}
	var calls []redeemable
	add := func(r redeemable) { calls = append(calls, r) }
	count := func(slug, table string) func(*harness.Client) string {
		return func(admin *harness.Client) string { return admin.DB(slug).One("SELECT count(*) FROM " + table) }
	}

	var before string
	var path string
	redeem := func(admin *harness.Client, token string) (*harness.Answer, error) {
		return admin.Try("POST", path+"redeem_approval", body{"approvalToken": token})
	}
	add(redeemable{"statement", func(admin *harness.Client, round int) string {
		d := admin.DB("statement")
		if round == 0 {
			ledger(admin, "statement")
			admin.Post(d.Path("approval-rules"), rule).OK()
		}
		path, before = d.Path(""), count("statement", "ledger")(admin)
		return holds(d.Query("INSERT INTO ledger(n) VALUES(?)", round))
	}, redeem, func(admin *harness.Client) bool { return count("statement", "ledger")(admin) != before }, nil})

	add(redeemable{"restore", func(admin *harness.Client, round int) string {
		d := admin.DB("restore")
		if round == 0 {
			ledger(admin, "restore")
			admin.Post(d.Path("approval-rules"), rule).OK()
		}
		bookmark := d.Get(d.Path("bookmark")).OK().Str("data.bookmark")
		d.Must("INSERT INTO free VALUES(1)")
		path, before = d.Path(""), count("restore", "free")(admin)
		return holds(admin.Post(d.Path("restore"), body{"bookmark": bookmark}))
	}, redeem, func(admin *harness.Client) bool { return count("restore", "free")(admin) != before },
		func(admin *harness.Client) { admin.DB("restore").Must("INSERT INTO free VALUES(2)") }})

	for _, kind := range []string{"import?format=sql", "import?format=sqlite", "load-csv?table=free&mode=append"} {
		slug, _, _ := strings.Cut(strings.ReplaceAll(kind, "?format=", "-"), "?")
		call, _, _ := strings.Cut(kind, "?format")
		var upload harness.Raw
		add(redeemable{slug, func(admin *harness.Client, round int) string {
			d := admin.DB(slug)
			if round == 0 {
				ledger(admin, slug)
				admin.Post(d.Path("approval-rules"), body{"tableGlob": "*", "action": "require_approval", "maxRows": 1}).OK()
			}
			d.Must("INSERT INTO free VALUES(-1)")
			switch slug {
			case "import-sql":
				upload = harness.Raw(fmt.Sprintf("INSERT INTO free VALUES(%d);", round))
			case "import-sqlite":
				upload = harness.Raw(d.Get(d.Path("export?format=sqlite")).Raw)
				d.Must("INSERT INTO free VALUES(-2)")
			default:
				upload = harness.Raw(fmt.Sprintf("n\n%d\n%d\n", round, round))
			}
			path, before = d.Path(""), count(slug, "free")(admin)
			return holds(admin.Do("POST", path+call, upload))
		}, func(admin *harness.Client, token string) (*harness.Answer, error) {
			return admin.Try("POST", path+call, upload, harness.Header("X-Approval-Token: "+token))
		}, func(admin *harness.Client) bool { return count(slug, "free")(admin) != before },
			func(admin *harness.Client) { admin.DB(slug).Must("INSERT INTO free VALUES(-3)") }})
	}

	var id, slug string
	exists := func(admin *harness.Client) bool {
		return admin.Get("/v1/databases/"+slug).Status == http.StatusOK
	}
	add(redeemable{"delete database", func(admin *harness.Client, round int) string {
		slug = fmt.Sprint("gone-", round)
		d := ledger(admin, slug)
		admin.Post(d.Path("claim_branch"), body{"ref": "work", "content": "full"}).OK()
		admin.Post(d.Path("approval-rules"), rule).OK()
		path, id = d.Path(""), admin.Get("/v1/databases/"+slug).OK().Str("data.id")
		return holds(admin.Do("DELETE", "/v1/databases/"+slug+"?force=true", nil))
	}, redeem, func(admin *harness.Client) bool { return !exists(admin) },
		func(admin *harness.Client) { admin.Post("/v1/databases/"+id+"/undelete", body{}).OK() }})

	add(redeemable{"delete branch", func(admin *harness.Client, round int) string {
		d := admin.DB("tree")
		if round == 0 {
			ledger(admin, "tree")
			admin.Post(d.Path("approval-rules"), rule).OK()
		}
		path = d.Path("")
		slug = fmt.Sprint("work-", round)
		admin.Post(d.Path("claim_branch"), body{"ref": slug, "content": "full"}).OK()
		admin.Post(admin.DB("tree-"+slug).Path("approval-rules"), rule).OK()
		return holds(admin.Do("DELETE", path+"branches/"+slug, nil))
	}, redeem, func(admin *harness.Client) bool {
		return admin.Get(path+"branches/"+slug).Status == http.StatusNotFound
	},
		func(admin *harness.Client) {
			admin.Post(path+"claim_branch", body{"ref": slug, "content": "full"}).OK()
		}})

	var ruled string
	add(redeemable{"delete rule", func(admin *harness.Client, round int) string {
		d := admin.DB("ruled")
		if round == 0 {
			ledger(admin, "ruled")
		}
		path, ruled = d.Path(""), admin.Post(d.Path("approval-rules"), rule).OK().Str("data.id")
		return holds(admin.Do("DELETE", path+"approval-rules/"+ruled, nil))
	}, redeem, func(admin *harness.Client) bool {
		for _, r := range admin.Get(path + "approval-rules").OK().List("data") {
			if r.(map[string]any)["id"] == ruled {
				return false
			}
		}
		return true
	}, nil})
	return calls
}

// A server that is killed runs an approved call once or not yet, whenever that is and whatever the call.
func TestRedeemOutlivesKills(t *testing.T) {
	row(t, "DP-APR-6")
	dir := filepath.Join(t.TempDir(), "data")
	start := func() (*harness.Server, *harness.Client) {
		s := harness.Start(t, binary, harness.Options{Data: dir, Env: quick})
		return s, s.Client(t, harness.Token)
	}
	s, admin := start()
	cookie := enrol(t, s, "boss@example.com", "default", "editor").Cookie()
	random := rand.New(rand.NewPCG(1, 9))
	for _, call := range redeemableCalls() {
		cut, undone := 0, 0
		span := 4 * time.Millisecond // about as long as the redeem takes, which a round that was cut off tells
		const rounds = 8
		for round := range rounds {
			token := call.hold(admin, round)
			s.Client(t, "").AsSession(cookie).Post("/api/approvals/"+token+"/approve", body{}).OK()
			if round%3 == 0 { // between the decision and the redeem
				s.Kill()
				s, admin = start()
			}
			answered := make(chan int, 1)
			go func() {
				status := 0
				if a, err := call.redeem(admin, token); err == nil {
					status = a.Status
				}
				answered <- status
			}()
			// Anywhere in the redeem: what is waited for is the kill itself.
			time.Sleep(time.Duration(random.Int64N(int64(span))))
			s.Kill()
			first := <-answered
			if first != http.StatusOK {
				cut++
			}
			s, admin = start()
			ran := call.ran(admin)
			if first == http.StatusOK && !ran || first != http.StatusOK && first != 0 {
				t.Fatalf("%s, round %d: answered %d, ran: %v", call.name, round, first, ran)
			}
			again := func() int {
				a, err := call.redeem(admin, token)
				if err != nil {
					t.Fatal(err)
				}
				return a.Status
			}
			if !ran {
				undone++
				began := time.Now()
				status := again()
				span = time.Since(began) * 6 / 5
				if status != http.StatusOK || !call.ran(admin) {
					t.Fatalf("%s, round %d: it had not run, and the next redeem is %d, ran: %v", call.name, round, status, call.ran(admin))
				}
			}
			// Taken back by hand, it is not run once more.
			if call.undo != nil {
				call.undo(admin)
			}
			ran = call.ran(admin)
			if status := again(); status != http.StatusNotFound || call.ran(admin) != ran {
				t.Fatalf("%s, round %d: after it had run the next redeem is %d, ran: %v", call.name, round, status, call.ran(admin))
			}
		}
		t.Logf("%s: %d of %d redeems were cut off, %d of them before anything ran", call.name, cut, rounds, undone)
	}
}
