package console_test

import (
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/console"
)

var asked = time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)

func text(s string) console.Value    { return console.Value{Type: console.Text, Text: s} }
func integer(s string) console.Value { return console.Value{Type: console.Integer, Text: s} }

// pending is an approval that waits.
func pending() *console.ApprovalPage {
	return &console.ApprovalPage{
		Frame: console.Frame{SignedIn: "ada@example.com"}, ID: "apr_1", Status: console.Pending, Namespace: "acme", Database: "shop", Branch: "nightly/cleanup",
		Requester:   console.Requester{Token: "cleanup agent", TokenID: "tok_3ifq4yzc5qk6w7xj2n4tqv5h3g", Maker: "bob@example.com"},
		RequestedAt: asked, ExpiresAt: asked.Add(24 * time.Hour), Now: asked.Add(5 * time.Minute), Transaction: true, MayDecide: true,
		Statements: []console.Statement{
			{SQL: "UPDATE production_users\n   SET plan = ?1, renewed_at = NULL\n WHERE plan = 'trial'\n   AND created_at < ?2",
				Params: []console.Param{{Value: text("expired")}, {Value: integer("1767225600")}},
				Plan:   []console.Step{{ID: 2, Detail: "SEARCH production_users USING INDEX users_by_plan (plan=?)"}, {ID: 5, Parent: 2, Detail: "CORRELATED SCALAR SUBQUERY 1"}},
				Effect: &console.Effect{Rows: 1208, How: console.Exact, Samples: []console.Sample{{Table: "production_users", Operation: console.Update, More: true,
					Columns: []string{"id", "email", "plan", "created_at", "renewed_at"},
					Rows: []console.SampleRow{
						{Before: []console.Value{integer("17"), text("grace@example.com"), text("trial"), integer("1767100000"), integer("1767200000")},
							After: []console.Value{integer("17"), text("grace@example.com"), text("expired"), integer("1767100000"), {Type: console.Null}}},
						{Before: []console.Value{integer("23"), text("linus@example.com"), text("trial"), integer("1767100400"), {Type: console.Null}},
							After: []console.Value{integer("23"), text("linus@example.com"), text("expired"), integer("1767100400"), {Type: console.Null}}},
					}}}}},
			{SQL: "DELETE FROM sessions WHERE user_id NOT IN (SELECT id FROM production_users)",
				Plan: []console.Step{{ID: 2, Detail: "SCAN sessions"}, {ID: 7, Detail: "LIST SUBQUERY 1"}, {ID: 9, Parent: 7, Detail: "SCAN production_users USING COVERING INDEX users_by_id"}},
				Effect: &console.Effect{Rows: 2, How: console.Exact, Samples: []console.Sample{{Table: "sessions", Operation: console.Delete,
					Columns: []string{"id", "user_id", "cookie", "note"},
					Rows: []console.SampleRow{
						{Before: []console.Value{integer("1"), integer("99"), {Type: console.Blob, Text: strings.Repeat("\xde\xad\xbe\xef", 20)}, text("")}},
						{Before: []console.Value{integer("2"), integer("98"), {Type: console.Null}, text("signed in from an old phone that nobody has seen since the move to the other building, probably lost, and never reported as such")}},
					}}}}},
		},
		Rules: []console.Rule{
			{Glob: "production_*", Tables: []string{"production_users"}, Operations: []string{"update", "delete"}, MaxRows: 100, Note: "Real customers. Ask in #billing first.", Approvers: "2 people", Excludes: true},
			{Glob: "*", Tables: []string{"production_users", "sessions"}, MaxRows: -1},
		},
		Needed: 2, Decisions: []console.Decision{{By: "carol@example.com", At: asked.Add(time.Minute), Approve: true, Reason: "As agreed in the stand-up."}},
	}
}

// rendered is a page's HTML.
func rendered(t testing.TB, p console.Page) string {
	t.Helper()
	b, err := console.Render(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
