package console_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/console"
)

var (
	tags    = regexp.MustCompile(`<[^>]*>`)
	element = regexp.MustCompile(`<([a-zA-Z][a-zA-Z0-9]*)`)
)

// seen is what a page's reader sees, with the spaces of its source.
func seen(page string) string {
	_, page, _ = strings.Cut(page, "</style>")
	return html.UnescapeString(tags.ReplaceAllString(page, ""))
}

func pages() map[string]console.Page {
	lengths := console.Lengths{Min: 8, Max: 1024}
	signedIn := console.Frame{SignedIn: "ada@example.com"}
	providers := []console.Link{{URL: "/login/oidc?next=%2Fx", Text: "id.example.com"}, {URL: "/login/github", Text: "GitHub"}}
	approved, denied, expired, redeemed := pending(), pending(), pending(), pending()
	for p, status := range map[*console.ApprovalPage]console.Status{approved: console.Approved, denied: console.Denied, expired: console.Expired, redeemed: console.Redeemed} {
		p.Status, p.MayDecide = status, false
	}
	return map[string]console.Page{
		"sign in":             &console.SignIn{Email: "ada@example.com", Password: lengths, Onward: true, SignUpURL: "/signup?next=%2Fx"},
		"providers":           &console.SignIn{NoPassword: true, Providers: providers},
		"invited by provider": &console.Invitation{Title: "Join acme", Namespace: "acme", Role: "editor", Open: true, NoPassword: true, Providers: providers, ExpiresAt: asked},
		"confirm link":        &console.Confirm{Frame: signedIn, Kind: console.ConfirmLink, Provider: "id.example.com", Email: "ada@work.example"},
		"confirm password":    &console.Confirm{Kind: console.ConfirmPassword, Provider: "id.example.com", Email: "ada@work.example", Password: lengths},
		"confirm elsewhere":   &console.Confirm{Kind: console.ConfirmElsewhere, Provider: "id.example.com", Email: "ada@work.example"},
		"confirm create":      &console.Confirm{Kind: console.ConfirmCreate, Provider: "id.example.com", Name: "Ada", Namespace: "acme", Role: "editor"},
		"account": &console.Account{Frame: signedIn, Name: "Ada", Email: "ada@example.com", EmailVerified: true, Since: asked, Others: 2, Places: []console.Place{{Slug: "acme", Role: "owner"}}, TakesPasswords: true, HasPassword: true, Password: lengths,
			Linked: []console.LinkedSignIn{{ID: "uid_1", Provider: "GitHub", Name: "ada@example.com", At: asked}}, Linkable: providers},
		"reset":      &console.Reset{Email: "ada@example.com", Open: true, Password: lengths},
		"reset over": &console.Reset{Frame: console.Frame{Problem: "The link is over"}},
		"set":        console.PasswordSet("ada@example.com"),
		"everywhere": console.SignedOutEverywhere(),
		"sign up":    &console.SignUp{Password: lengths, SignInURL: "/login"},
		"home":       &console.Home{Frame: signedIn, Places: []console.Place{{Slug: "acme", Role: "owner"}}},
		"message":    &console.Message{Title: "Not found", Frame: console.Frame{Problem: "There is no such path", Hint: "look elsewhere"}},
		"out":        console.SignedOut(),
		"invited":    &console.Invitation{Title: "Join acme", Namespace: "acme", Role: "editor", Open: true, CanSignUp: true, Password: lengths, ExpiresAt: asked},
		"joined":     &console.Invitation{Frame: signedIn, Title: "You joined acme", Namespace: "acme", Role: "editor", Accepted: true},
		"pending":    pending(), "approved": approved, "denied": denied, "expired": expired, "redeemed": redeemed,
	}
}

func TestEveryPage(t *testing.T) {
	for name, p := range pages() {
		t.Run(name, func(t *testing.T) {
			page := rendered(t, p)
			_, sheet, _ := strings.Cut(page, "<style>")
			sheet, _, _ = strings.Cut(sheet, "</style>")
			sum := sha256.Sum256([]byte(sheet))
			if want := "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(console.Policy, want) {
				t.Errorf("the policy %q doesn't let the style sheet in: %s", console.Policy, want)
			}
			for _, want := range []string{`<html lang="en">`, `name="viewport" content="width=device-width, initial-scale=1"`, `name="color-scheme" content="light dark"`, `name="referrer" content="same-origin"`, " · persqld</title>"} {
				if !strings.Contains(page, want) {
					t.Errorf("the page lacks %s", want)
				}
			}
			if n := strings.Count(page, "<h1"); n != 1 {
				t.Errorf("%d headings of the first rank", n)
			}
			if found := regexp.MustCompile(`(?i)<script|javascript:|\son\w+=|\sstyle=|https?://|<img|<link|@import|url\(`).FindString(page); found != "" {
				t.Errorf("the page has %q", found)
			}
			inputs := regexp.MustCompile(`<(?:input|textarea) id="([^"]+)"`).FindAllStringSubmatch(page, -1)
			if n := strings.Count(page, "<input") + strings.Count(page, "<textarea"); n != len(inputs) {
				t.Errorf("%d inputs, %d with an id", n, len(inputs))
			}
			for _, in := range inputs {
				if !strings.Contains(page, `<label for="`+in[1]+`">`) {
					t.Errorf("input %s has no label", in[1])
				}
			}
			ids := regexp.MustCompile(`\sid="([^"]+)"`).FindAllStringSubmatch(page, -1)
			counted := map[string]int{}
			for _, id := range ids {
				if counted[id[1]]++; counted[id[1]] > 1 {
					t.Errorf("id %s twice", id[1])
				}
			}
			for _, ref := range regexp.MustCompile(`(?:aria-labelledby|aria-describedby|href="#)="?([^"]+)"`).FindAllStringSubmatch(page, -1) {
				if counted[ref[1]] != 1 {
					t.Errorf("%s leads nowhere", ref[0])
				}
			}
		})
	}
}

func TestProblem(t *testing.T) {
	page := rendered(t, &console.SignIn{Frame: console.Frame{Problem: "It <b>failed</b>", Hint: "try again"}})
	if !strings.Contains(page, `role="alert"`) || !strings.Contains(seen(page), "It <b>failed</b>. Hint: try again.") {
		t.Error(seen(page))
	}
	if strings.Contains(rendered(t, &console.SignIn{}), "alert") {
		t.Error("an alert of nothing")
	}
}

func TestApprovalPage(t *testing.T) {
	page := rendered(t, pending())
	text := regexp.MustCompile(`\s+`).ReplaceAllString(seen(page), " ")
	for _, want := range []string{
		"A write waits for approval", "Waiting", "the token cleanup agent, made by bob@example.com tok_3ifq4yzc5qk6w7xj2n4tqv5h3g",
		"Mon 4 May 2026, 12:30 UTC 5 minutes ago", "shop of the namespace acme", "nightly/cleanup", "Tue 5 May 2026, 12:30 UTC in 23 hours",
		"carol@example.com approved it", "As agreed in the stand-up.",
		"Rule production_* asks for approval of updates and deletes of more than 100 rows. It matches production_users. It takes 2 people. Whoever made the token may not decide.",
		"Note of the rule: Real customers. Ask in #billing first.", "Rule * asks for approval of any write. It matches production_users, sessions.",
		"as one transaction: all of them, or none", "Together: 1,210 rows would change now.", "Statement 1 of 2", "SET plan = ?1, renewed_at = NULL", "?1 text expired", "?2 integer 1767225600",
		"1,208 rows would change now.", "The first 2 rows of production_users that would be updated, of 1,208", "was trial → becomes expired", "was 1767200000 → becomes NULL",
		"SEARCH production_users USING INDEX users_by_plan (plan=?)", "2 rows of sessions that would be deleted", "x'" + strings.Repeat("deadbeef", 8) + "' (the first 32 of 80 bytes)", "empty text",
		"(the first 120 of 128 characters)", "Your decision", "Signed in as ada@example.com",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// What changes is said in words and struck out: color adds to it.
	for _, want := range []string{`<del><span class="value text">trial</span></del>`, `<ins><span class="value text">expired</span></ins>`, `name="decision" value="approve"`, `name="decision" value="deny"`, `<pre class="sql" tabindex="0" role="region" aria-label="SQL of statement 1">`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	// Return in the field of the reason must not approve: only in a text area it doesn't send the form.
	if strings.Contains(page, "<input") {
		t.Error("the form has a field whose return key approves")
	}
	nested := strings.Index(page, "CORRELATED SCALAR SUBQUERY 1")
	if !strings.Contains(page[:nested], `(plan=?)<ul class="plan"><li>`) {
		t.Error("the plan is no tree")
	}
}

func TestApprovalStates(t *testing.T) {
	for status, words := range map[console.Status][]string{
		console.Pending:  {"A write waits for approval", "Nothing of it has run", "To be decided by", "Decided so far"},
		console.Approved: {"This write is approved", "has not run yet", "To be run by", "Who decided"},
		console.Denied:   {"This write is denied", "and nothing will", "What was asked for"},
		console.Expired:  {"not decided in time", "and nothing will", "What was asked for"},
		console.Redeemed: {"This write has run", "It can't run again", "What ran"},
	} {
		p := pending()
		p.Status, p.MayDecide, p.WhyNot = status, status == console.Pending, ""
		page := rendered(t, p)
		if got, want := strings.Contains(page, "would change now"), status == console.Pending || status == console.Approved; got != want {
			t.Errorf("%s: says what would change: %v", status, got)
		}
		for _, word := range words {
			if !strings.Contains(seen(page), word) {
				t.Errorf("%s: the page lacks %q", status, word)
			}
		}
		if got := strings.Contains(page, "<button name"); got != p.MayDecide {
			t.Errorf("%s: buttons: %v", status, got)
		}
	}
	p := pending()
	p.MayDecide, p.WhyNot = false, "Viewers don't decide."
	if page := rendered(t, p); strings.Contains(page, "<button name") || !strings.Contains(seen(page), "You can't decide this. Viewers don't decide.") {
		t.Error("the page doesn't say why its reader may not decide")
	}
	p = pending()
	p.Requester = console.Requester{Member: "bob@example.com"}
	if text := seen(rendered(t, p)); !strings.Contains(text, "bob@example.com, a member of the namespace") || strings.Contains(text, "the token bob") {
		t.Error(text)
	}
	p = pending()
	p.Requester = console.Requester{Schedule: "</strong>nightly", Maker: "bob@example.com"}
	if text := seen(rendered(t, p)); !strings.Contains(text, "the schedule </strong>nightly, whose SQL is of bob@example.com") || strings.Contains(text, "bythe token") || !strings.Contains(text, "that the schedule has then") {
		t.Error(text)
	}
	p = pending()
	p.Statements, p.Call = nil, &console.Call{Title: "Restore the database", Details: []console.Detail{{Name: "To", Value: "2026-05-04T12:00:00Z"}}}
	if text := seen(rendered(t, p)); !strings.Contains(text, "Restore the database") || !strings.Contains(text, "2026-05-04T12:00:00Z") || strings.Contains(text, "one transaction") {
		t.Error(text)
	}
}

// TestHostileTexts puts what may hide, move or run something into every place that strangers fill.
func TestHostileTexts(t *testing.T) {
	const evil = "</code></pre></title></style><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202egnp.exe\u2066\u200b\x00\x1b\xff\u00a0\u3164{{.}}"
	const shown = "</code></pre></title></style><script>alert(1)</script>\"'><img src=x onerror=alert(1)>U+202Egnp.exeU+2066U+200BU+0000U+001Bbyte FFU+00A0U+3164{{.}}"
	values := []console.Value{text(evil), {Type: console.Blob, Text: evil}, {Type: console.Real, Text: evil}}
	p := &console.ApprovalPage{
		Frame: console.Frame{SignedIn: evil}, ID: evil, Status: console.Pending, Namespace: evil, Database: evil, Branch: evil,
		Requester: console.Requester{Token: evil, TokenID: evil, Maker: evil}, RequestedAt: asked, ExpiresAt: asked, Now: asked, MayDecide: true, Reason: evil,
		Statements: []console.Statement{{SQL: evil, Params: []console.Param{{Name: evil, Value: text(evil)}}, Plan: []console.Step{{Detail: evil}},
			Effect: &console.Effect{Rows: 1, How: console.Exact, Note: evil, Samples: []console.Sample{{Table: evil, Operation: console.Update, Columns: []string{evil, evil, evil},
				Rows: []console.SampleRow{{Before: values, After: slices.Concat([]console.Value{text("x")}, values[1:])}}}}}}},
		Call:      &console.Call{Title: evil, Details: []console.Detail{{Name: evil, Value: evil}}},
		Rules:     []console.Rule{{Glob: evil, Tables: []string{evil}, Operations: []string{evil}, MaxRows: -1, Note: evil, Approvers: evil}},
		Decisions: []console.Decision{{By: evil, At: asked, Reason: evil}},
	}
	page := rendered(t, p)
	if n := strings.Count(seen(page), shown); n < 18 {
		t.Errorf("shown as it is in %d places", n)
	}
	for _, hidden := range []string{"\u202e", "\u2066", "\u200b", "\x00", "\x1b", "\xff", "\u00a0", "\u3164", "\ufffd"} {
		_, body, _ := strings.Cut(page, "<body")
		before, after, _ := strings.Cut(body, "<textarea") // what is typed again is the typist's own
		_, after, _ = strings.Cut(after, "</textarea>")
		if strings.Contains(before+after, hidden) {
			t.Errorf("the page has %q as it is", hidden)
		}
	}
	allowed := map[string]bool{}
	for _, m := range element.FindAllStringSubmatch(rendered(t, pending()), -1) {
		allowed[m[1]] = true
	}
	for _, m := range element.FindAllStringSubmatch(page, -1) {
		if !allowed[m[1]] && m[1] != "code" && m[1] != "dl" {
			t.Errorf("the page has the element %s", m[1])
		}
	}
	if strings.Contains(page, "onerror=alert(1)>") {
		t.Error("a tag of the stranger's")
	}
}

func TestMarks(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT 'é', '日本', 'अनुच्छेद', '👍', 'א'": "SELECT 'é', '日本', 'अनुच्छेद', '👍', 'א'",
		"a\r\n\tb":                               "a\n\tb",
		"a\rb":                                   "aU+000Db",
		"a\u00adb\u2028c\U000e0041":              "aU+00ADbU+2028cU+E0041",
		"a\xf0\x9f":                              "abyte F0byte 9F",
		"a\ufffdb":                               "a\ufffdb", // which is what it says
		"x" + strings.Repeat("́", 5):             "x" + strings.Repeat("́", 3) + "U+0301U+0301",
		"a" + strings.Repeat(" ", 60):            "a" + strings.Repeat(" ", 60),
		"a" + strings.Repeat(" ", 5000) + "OR 1": "a5,000 spacesOR 1",
		// What follows a comment's end must not seem to be in the comment.
		"-- all good" + strings.Repeat("\n ", 300) + "OR 1": "-- all good\n300 line breaks\nOR 1",
	} {
		p := pending()
		p.Statements = []console.Statement{{SQL: sql}}
		_, rest, _ := strings.Cut(rendered(t, p), "<pre")
		_, rest, _ = strings.Cut(rest, "<code>")
		rest, _, _ = strings.Cut(rest, "</code>")
		if got := html.UnescapeString(tags.ReplaceAllString(rest, "")); got != want {
			t.Errorf("%q is shown as %q, want %q", sql, got, want)
		}
	}
	// In a value nothing goes without saying.
	p := pending()
	p.Statements = []console.Statement{{SQL: "x", Params: []console.Param{{Value: text("a\r\nb")}}}}
	if text := seen(rendered(t, p)); !strings.Contains(text, "aU+000D\nb") {
		t.Error(text)
	}
}

func TestMuchIsBounded(t *testing.T) {
	mega, long := strings.Repeat("é", 1<<20), strings.Repeat("é", 1000)
	p := pending()
	p.Statements = nil
	for i := range 100 {
		st := console.Statement{SQL: "SELECT " + strings.Repeat("1,", 50_000), Effect: &console.Effect{Rows: 1, How: console.Exact}}
		if i == 0 {
			st.Params = []console.Param{{Value: text(mega)}}
		}
		for range 300 {
			st.Params = append(st.Params, console.Param{Value: text(long)}, console.Param{Value: console.Value{Type: console.Blob, Text: mega}})
		}
		p.Statements = append(p.Statements, st)
	}
	page := rendered(t, p)
	if len(page) > 3_000_000 {
		t.Errorf("%d bytes", len(page))
	}
	for _, want := range []string{"Some of this is too long to be shown whole.", "the first 500 of 1,048,576 characters", "the first 80 of 1,000 characters", "the first 32 of 2,097,152 bytes",
		"The statement goes on: only 2,000 of its 100,007 bytes are shown", "600 more parameters not shown", "1 line, 100,007 bytes"} {
		if !strings.Contains(seen(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// Where everything is shown nothing is said of it.
	whole := pending()
	if page := rendered(t, whole); strings.Contains(page, "too long to be shown whole") {
		t.Error("a page that shows everything says that it doesn't")
	}
}

func TestChangesThatCannotBeSeen(t *testing.T) {
	long := strings.Repeat("x", 200)
	for name, tt := range map[string]struct {
		before, after console.Value
		want          string
	}{
		"type":       {integer("1"), text("1"), "was 1 (integer) → becomes 1 (text)"},
		"far behind": {console.Value{Type: console.Text, Text: "x", Bytes: 5000, Rest: 1}, console.Value{Type: console.Text, Text: "x", Bytes: 5000, Rest: 2}, "was x (text, the beginning of 5,000 bytes, different behind that) → becomes"},
		"behind":     {text(long + "a"), text(long + "b"), "the first 120 of 201 characters, different behind that) → becomes"},
	} {
		p := pending()
		p.Statements = []console.Statement{{SQL: "x", Effect: &console.Effect{Rows: 1, How: console.Exact, Samples: []console.Sample{{Table: "t", Operation: console.Update, Columns: []string{"a"},
			Rows: []console.SampleRow{{Before: []console.Value{tt.before}, After: []console.Value{tt.after}}}}}}}}
		if text := seen(rendered(t, p)); !strings.Contains(text, tt.want) {
			t.Errorf("%s: the page lacks %q: %s", name, tt.want, text)
		}
	}
}

func TestCallsAreBounded(t *testing.T) {
	p := pending()
	p.Statements = nil
	p.Call = &console.Call{Title: "Restore the database", Details: []console.Detail{{Name: "nothing"}, {Name: "request", Value: strings.Repeat("é", 1<<20)}}}
	p.Rules = []console.Rule{{Glob: "*", MaxRows: -1}}
	for i := range 1000 {
		p.Rules[0].Tables = append(p.Rules[0].Tables, fmt.Sprint("t", i))
	}
	page := rendered(t, p)
	for _, want := range []string{"(only 20,000 of 2,097,152 bytes are shown)", "Some of this is too long", "t29 and 970 others."} {
		if !strings.Contains(seen(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, "nothing") || strings.Contains(page, "t30") || len(page) > 60_000 {
		t.Errorf("%d bytes: %s", len(page), page[:2000])
	}
}

// A value may come as its beginning alone.
func TestBeginnings(t *testing.T) {
	p := pending()
	p.Statements = []console.Statement{{SQL: "x", Params: []console.Param{{Value: console.Value{Type: console.Text, Text: "abc", Bytes: 5_000_000}},
		{Value: console.Value{Type: console.Blob, Text: "abc", Bytes: 5_000_000}}, {Value: console.Value{Type: console.Text, Bytes: 7}}}}}
	text := seen(rendered(t, p))
	for _, want := range []string{"abc (the beginning of 5,000,000 bytes)", "x'616263' (the first 3 of 5,000,000 bytes)", " (the beginning of 7 bytes)", "Some of this is too long"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestHowSure(t *testing.T) {
	for want, e := range map[string]console.Effect{
		"1 row would change now.":  {Rows: 1, How: console.Exact},
		"No row would change now.": {How: console.Exact},
		"About 12,345 rows would change, by a count that did not run it (too many).":   {Rows: 12345, How: console.Counted, Note: "too many"},
		"How many rows would change is not known (it ran over its time of 2 seconds).": {Note: "it ran over its time of 2 seconds"},
	} {
		p := pending()
		p.Statements = []console.Statement{{SQL: "x", Effect: &e}}
		if text := seen(rendered(t, p)); !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestTimes(t *testing.T) {
	for ahead, want := range map[time.Duration]string{30 * time.Second: "in less than a minute", time.Minute: "in 1 minute", 59 * time.Minute: "in 59 minutes", 47 * time.Hour: "in 47 hours", 72 * time.Hour: "in 3 days", -time.Hour: "1 hour ago"} {
		p := pending()
		p.ExpiresAt = p.Now.Add(ahead)
		if text := seen(rendered(t, p)); !strings.Contains(text, want) {
			t.Errorf("%s: the page lacks %q", ahead, want)
		}
	}
}
