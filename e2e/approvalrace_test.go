package e2e_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// atOnce calls f n times at the same moment, and counts the answers by status.
func atOnce(n int, f func(i int) (*harness.Answer, error)) map[int]int {
	var mu sync.Mutex
	statuses := map[int]int{}
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			status := 0
			if a, err := f(i); err == nil {
				status = a.Status
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	return statuses
}

// racingApplies proposes a write, applies it n times at once, and returns how many of them ran.
func racingApplies(admin *harness.Client, d *harness.DB, n int) (ran int, statuses map[int]int) {
	d.Must("CREATE TABLE IF NOT EXISTS ran(id INTEGER PRIMARY KEY)")
	before := len(d.Query("SELECT id FROM ran").List("data.rows"))
	token := admin.Post(d.Path("propose"), harness.Body("INSERT INTO ran DEFAULT VALUES")).OK().Str("data.executionToken")
	statuses = atOnce(n, func(int) (*harness.Answer, error) {
		return admin.Try("POST", d.Path("apply"), body{"executionToken": token})
	})
	return len(d.Query("SELECT id FROM ran").List("data.rows")) - before, statuses
}

func TestRacingApprovals(t *testing.T) {
	row(t, "DP-APR-5", "DP-PRO-3")
	o := newOffice(t)
	d := o.admin.DB("shop")
	d.Batch(true, "CREATE TABLE ledger(id INTEGER PRIMARY KEY, n INTEGER)").OK()
	o.rule(d, body{"tableGlob": "ledger", "action": "require_approval"})
	people := []*person{o.boss, enrol(t, o.s, "two@example.com", "default", "editor"), enrol(t, o.s, "three@example.com", "default", "admin")}
	const rounds, racers = 30, 12
	for round := range rounds {
		if ran, statuses := racingApplies(o.admin, o.admin.DB("applies"), racers); ran != 1 || statuses[200] != 1 || statuses[404] != racers-1 {
			t.Fatalf("round %d: of racing applies %d ran, %v", round, ran, statuses)
		}
		// Approve against deny: one of them decides.
		token := holds(d.Query("INSERT INTO ledger(n) VALUES(?)", round))
		votes := atOnce(6, func(i int) (*harness.Answer, error) {
			word := []string{"approve", "deny"}[i%2]
			return people[i/2].Try("POST", "/api/approvals/"+token+"/"+word, body{})
		})
		if votes[200] != 1 || votes[409] != 5 {
			t.Fatalf("round %d: of racing decisions: %v", round, votes)
		}
		status := o.admin.Get(d.Path("approvals/" + token)).OK().Str("data.status")
		redeems := atOnce(racers, func(i int) (*harness.Answer, error) {
			if i%2 == 0 {
				return o.admin.Try("POST", d.Path("redeem_approval"), body{"approvalToken": token})
			}
			return o.admin.Try("POST", d.Path("approvals/"+token+"/redeem"), nil)
		})
		want := 0
		if status == "approved" {
			want = 1
		}
		if rows := d.One("SELECT count(*) FROM ledger WHERE n = ?", round); rows != fmt.Sprint(want) || redeems[200] != want || want == 1 && redeems[404] != racers-1 || want == 0 && redeems[403] != racers {
			t.Fatalf("round %d: %s, then %s rows after racing redeems: %v", round, status, rows, redeems)
		}
	}
}
