package approval_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/approval"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		glob, name string
		want       bool
	}{
		{"users", "users", true}, {"users", "Users", true}, {"USERS", "users", true}, {"users", "users2", false}, {"users", "user", false},
		{"*", "", true}, {"*", "anything", true}, {"prod_*", "prod_", true}, {"prod_*", "PROD_users", true}, {"prod_*", "prod", false}, {"*_log", "a_log", true}, {"*_log", "a_logs", false},
		{"a*b*c", "abc", true}, {"a*b*c", "aXbYc", true}, {"a*b*c", "acb", false}, {"a*bc*c", "abcbcc", true}, {"*a*", "bab", true}, {"*a*", "bbb", false},
		{"?", "a", true}, {"?", "é", true}, {"?", "", false}, {"?", "ab", false}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"??*", "a", false}, {"??*", "ab", true}, {"*??", "abc", true}, {"*??", "a", false},
		{"é*", "ÉTÉ", true}, {"a.b", "a.b", true}, {"a.b", "axb", false}, {"[a]", "a", false}, {"a\\*", "a*", false}, {"%", "x", false},
		{"*a*a*a*a*a*b", strings.Repeat("a", 200), false}, {"a*a", "a", false}, {"ab*ba", "aba", false},
	} {
		if got := approval.NewGlob(c.glob).Match(c.name); got != c.want {
			t.Errorf("%q matches %q: %v, want %v", c.glob, c.name, got, c.want)
		}
	}
	if (approval.Glob{}).Match("x") {
		t.Error("the zero glob matches a name")
	}
}

// FuzzGlob holds the matcher against the obvious one, which takes too long for some patterns.
func FuzzGlob(f *testing.F) {
	f.Add("a*b?c", "aXbYc")
	f.Add("*é*", "Éa\xff")
	f.Fuzz(func(t *testing.T, glob, name string) {
		if len(glob) > 12 || len(name) > 20 {
			return
		}
		glob, name = strings.ToLower(strings.ToValidUTF8(glob, "x")), strings.ToLower(strings.ToValidUTF8(name, "x"))
		if got, want := approval.NewGlob(glob).Match(name), obvious([]rune(glob), []rune(name)); got != want {
			t.Errorf("%q matches %q: %v, want %v", glob, name, got, want)
		}
	})
}

func obvious(glob, name []rune) bool {
	switch {
	case len(glob) == 0:
		return len(name) == 0
	case glob[0] == '*':
		return obvious(glob[1:], name) || len(name) > 0 && obvious(glob, name[1:])
	}
	return len(name) > 0 && (glob[0] == '?' || glob[0] == name[0]) && obvious(glob[1:], name[1:])
}

func rule(t testing.TB, id, glob string, action approval.Action, ops approval.Op, maxRows int64) *approval.Rule {
	t.Helper()
	r := &approval.Rule{ID: id, TableGlob: glob, Action: action, Operations: ops, MaxRows: maxRows}
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	return r
}

func told(hits []approval.Hit) string {
	var b strings.Builder
	for _, h := range hits {
		fmt.Fprintf(&b, "%s:%s:%s ", h.Rule.ID, h.Table, h.Op)
	}
	return strings.TrimSpace(b.String())
}

func TestRules(t *testing.T) {
	const none = approval.NoMaxRows
	rules := approval.NewRules([]*approval.Rule{
		rule(t, "1", "safe*", approval.RequireApproval, approval.Delete, none),
		rule(t, "2", "*", approval.RequireApproval, approval.AllOps, 10),
		rule(t, "3", "SAFE", approval.Deny, approval.DDL, none),
	})
	got := told(rules.Judge([]approval.Write{{Table: "free", Op: approval.Insert}, {Table: "Safe", Op: approval.DDL}, {Table: "safe_2", Op: approval.Delete}}))
	if want := "1:safe_2:delete 2:Safe:ddl 3:Safe:ddl"; got != want {
		t.Errorf("judged: %s, want %s", got, want)
	}
	var tally approval.Tally
	tally.Add("free", approval.Insert, 6)
	tally.Add("other", approval.Update, 4)
	if hits := rules.Counted(&tally); len(hits) != 0 {
		t.Errorf("10 rows: %s", told(hits))
	}
	tally.Add("other", approval.Update, 1)
	if got := told(rules.Counted(&tally)); got != "2:free:insert 2:other:update" {
		t.Errorf("11 rows over two tables: %s", got)
	}
	tally.Reset()
	tally.Add("safe", approval.Delete, 1)
	if got := told(rules.Counted(&tally)); got != "1:safe:delete" {
		t.Errorf("a row: %s", got)
	}
	if got := told(rules.Whole([]string{"zzz"}, false)); !strings.HasPrefix(got, "2:zzz:") {
		t.Errorf("whole: %s", got)
	}

	held := rules.Judge([]approval.Write{{Table: "safe_2", Op: approval.Delete}})
	pass := approval.NewPass(held)
	if pass.Stop(held) != nil || approval.PassOf(approval.Records(held)).Stop(held) != nil {
		t.Error("a pass doesn't let through what it was made of")
	}
	if s := pass.Stop(rules.Judge([]approval.Write{{Table: "safe_3", Op: approval.Delete}})); s == nil || s.Denied() {
		t.Error("a pass lets another table through")
	}
	denied := rules.Judge([]approval.Write{{Table: "safe", Op: approval.DDL}})
	s := approval.NewPass(denied).Stop(denied)
	if s == nil || !s.Denied() || s.Error() != `Write to "safe" is denied by an approval rule` {
		t.Errorf("deny and a pass: %v", s)
	}
	if approval.NewRules(nil) != nil {
		t.Error("no rules are rules")
	}
}

func TestBadRules(t *testing.T) {
	for want, r := range map[error]approval.Rule{
		approval.ErrGlob:      {TableGlob: "", Action: approval.Deny},
		approval.ErrAction:    {TableGlob: "x", Action: "allow"},
		approval.ErrNote:      {TableGlob: "x", Action: approval.Deny, Note: strings.Repeat("x", 501)},
		approval.ErrMaxRows:   {TableGlob: "x", Action: approval.Deny, MaxRows: -2},
		approval.ErrApprovers: {TableGlob: "x", Action: approval.Deny, ApproverRole: "viewer"},
	} {
		if err := r.Check(); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	for _, words := range [][]string{{}, {"select"}, {"insert", "insert"}} {
		if _, err := approval.ParseOps(words); !errors.Is(err, approval.ErrOperations) {
			t.Errorf("%v: %v", words, err)
		}
	}
}

func TestBallot(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	pending := func(n approval.Need, votes ...string) *approval.Ballot {
		b := &approval.Ballot{Status: approval.Pending, ExpiresAt: now.Add(time.Hour), Need: n, Owner: "owner-of-token"}
		for _, v := range votes {
			b.Votes = append(b.Votes, approval.Vote{UserID: v, Approve: true})
		}
		return b
	}
	orphan := func(approvers int, votes ...string) *approval.Ballot {
		b := pending(approval.Need{Approvers: approvers, Role: approval.RoleEditor, ExcludeRequester: true}, votes...)
		b.Owner = ""
		return b
	}
	one := approval.Need{Approvers: 1, Role: approval.RoleEditor}
	two := approval.Need{Approvers: 2, Role: approval.RoleEditor}
	for _, c := range []struct {
		name   string
		b      *approval.Ballot
		v      approval.Vote
		status approval.Status
		err    error
	}{
		{"one says yes", pending(one), approval.Vote{UserID: "a", Role: "editor", Approve: true}, approval.Approved, nil},
		{"one says no", pending(one), approval.Vote{UserID: "a", Role: "editor"}, approval.Denied, nil},
		{"a viewer", pending(one), approval.Vote{UserID: "a", Role: "viewer", Approve: true}, approval.Pending, approval.ErrRank},
		{"the first of two", pending(two), approval.Vote{UserID: "a", Role: "admin", Approve: true}, approval.Pending, nil},
		{"the second of two", pending(two, "a"), approval.Vote{UserID: "b", Role: "editor", Approve: true}, approval.Approved, nil},
		{"the same again", pending(two, "a"), approval.Vote{UserID: "a", Role: "editor", Approve: true}, approval.Pending, approval.ErrVoted},
		{"the same thinks better", pending(two, "a"), approval.Vote{UserID: "a", Role: "editor"}, approval.Denied, nil},
		{"an editor where an owner is asked for", pending(approval.Need{Approvers: 1, Role: "owner"}), approval.Vote{UserID: "a", Role: "admin", Approve: true}, approval.Pending, approval.ErrRank},
		{"whose token it is", pending(approval.Need{Approvers: 1, Role: "editor", ExcludeRequester: true}), approval.Vote{UserID: "owner-of-token", Role: "owner", Approve: true}, approval.Pending, approval.ErrOwn},
		{"whose token it is, where that doesn't matter", pending(one), approval.Vote{UserID: "owner-of-token", Role: "owner", Approve: true}, approval.Approved, nil},
		{"nobody knows whose token it is: one might be whoever asks", orphan(1), approval.Vote{UserID: "a", Role: "owner", Approve: true}, approval.Pending, nil},
		{"nobody knows, and another one too", orphan(1, "a"), approval.Vote{UserID: "b", Role: "editor", Approve: true}, approval.Approved, nil},
		{"nobody knows, the same again", orphan(1, "a"), approval.Vote{UserID: "a", Role: "editor", Approve: true}, approval.Pending, approval.ErrVoted},
		{"nobody knows, the second where two are asked for", orphan(2, "a"), approval.Vote{UserID: "b", Role: "editor", Approve: true}, approval.Pending, nil},
		{"nobody knows, one says no", orphan(2, "a"), approval.Vote{UserID: "b", Role: "editor"}, approval.Denied, nil},
		{"nobody knows, and nobody is barred", &approval.Ballot{Status: approval.Pending, ExpiresAt: now.Add(time.Hour), Need: one}, approval.Vote{UserID: "a", Role: "editor", Approve: true}, approval.Approved, nil},
		{"decided", &approval.Ballot{Status: approval.Denied, ExpiresAt: now.Add(time.Hour), Need: one}, approval.Vote{UserID: "a", Role: "owner", Approve: true}, approval.Denied, approval.ErrDecided},
		{"over", &approval.Ballot{Status: approval.Pending, ExpiresAt: now, Need: one}, approval.Vote{UserID: "a", Role: "owner", Approve: true}, approval.Pending, approval.ErrOver},
	} {
		c.v.At = now
		if status, err := c.b.Cast(c.v); status != c.status || !errors.Is(err, c.err) {
			t.Errorf("%s: %s, %v, want %s, %v", c.name, status, err, c.status, c.err)
		}
	}
	if approval.Approved.At(now, now) != approval.Expired || approval.Redeemed.At(now, now) != approval.Redeemed || approval.Denied.At(now, now) != approval.Denied {
		t.Error("what ends by its time")
	}
}

func TestLeast(t *testing.T) {
	a := []approval.Count{{Table: "t", Op: approval.Delete, Rows: 3}, {Table: "u", Op: approval.Delete, Rows: 1}}
	b := []approval.Count{{Table: "t", Op: approval.Delete, Rows: 5}, {Table: "t", Op: approval.Insert, Rows: 7}}
	for _, c := range []struct{ a, b, want []approval.Count }{
		{a, b, []approval.Count{{Table: "t", Op: approval.Delete, Rows: 3}}}, // what one of them didn't see at all is none
		{b, a, []approval.Count{{Table: "t", Op: approval.Delete, Rows: 3}}},
		{a, nil, a}, {nil, b, b}, {nil, nil, nil}, {a, []approval.Count{}, []approval.Count{}}, {[]approval.Count{}, nil, []approval.Count{}}, {nil, []approval.Count{}, []approval.Count{}},
	} {
		if got := approval.Least(c.a, c.b); !slices.Equal(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%v and %v: %v, want %v", c.a, c.b, got, c.want)
		}
	}
	if approval.Total(nil) != nil || *approval.Total(a) != 4 || *approval.Total([]approval.Count{}) != 0 {
		t.Error("sums")
	}
}

// BenchmarkFiftyRules is what 50 rules cost a warm write, beside the hook: the look-up of its table.
func BenchmarkFiftyRules(b *testing.B) {
	var all []*approval.Rule
	for i := range 50 {
		all = append(all, rule(b, fmt.Sprint(i), fmt.Sprintf("prod_%d_*", i), approval.RequireApproval, approval.AllOps, approval.NoMaxRows))
	}
	rules := approval.NewRules(all)
	var tally approval.Tally
	for b.Loop() {
		tally.Reset()
		tally.Add("orders", approval.Insert, 1)
		if hits := rules.Counted(&tally); hits != nil {
			b.Fatal("hit")
		}
	}
}
