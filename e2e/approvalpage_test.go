package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"html/template"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// hostileFrame is a page of another site that shows one of ours under something else.
var hostileFrame = template.Must(template.New("frame").Parse(`<!doctype html><title>x</title><iframe src="{{.}}"></iframe><button>win</button>`))

// hold sends a write that a rule holds, and returns the approval's token and the path of its page.
func hold(t testing.TB, d *harness.DB, sql string, params ...any) (token, path string) {
	t.Helper()
	a := d.Query(sql, params...)
	a.Fails(http.StatusForbidden, "approval_required")
	token = a.Str("approvalToken")
	if !strings.HasSuffix(a.Str("approvalUrl"), "/approve/"+token) {
		t.Errorf("approvalUrl %s doesn't end in the token %s", a.Str("approvalUrl"), token)
	}
	return token, "/approve/" + token
}

// ruledShop is a database of the namespace default whose table prod_users is held.
func ruledShop(t testing.TB, s *harness.Server, slug string) *harness.DB {
	t.Helper()
	d := s.Client(t, harness.Token).DB(slug)
	d.Must("CREATE TABLE prod_users(id INTEGER PRIMARY KEY, email TEXT, plan TEXT, note TEXT)")
	d.Must("INSERT INTO prod_users VALUES (1, 'grace@example.com', 'trial', '<script>alert(1)</script>'), (2, 'linus@example.com', 'trial', NULL), (3, 'ada@example.com', 'paid', x'00ff')")
	d.Post(d.Path("approval-rules"), body{"tableGlob": "prod_*", "action": "require_approval", "note": "Real customers <b>"}).OK()
	return d
}

func TestApprovalByForms(t *testing.T) {
	row(t, "DP-PAGE-5", "DP-PAGE-4")
	s := people(t)
	d := ruledShop(t, s, "shop")
	enrol(t, s, "ada@example.com", "default", "editor")
	viewer := enrol(t, s, "vera@example.com", "default", "viewer")
	eve := enrol(t, s, "eve@example.com", "", "")
	nobody := s.Client(t, "")
	decide := func(c *harness.Client, path, decision string, headers ...harness.Header) *harness.Answer {
		return sendForm(c, path, url.Values{"decision": {decision}, "reason": {"because <i>"}}, headers...)
	}
	token, path := hold(t, d, "UPDATE prod_users SET plan = ? WHERE plan = 'trial'", "</code><script>alert(2)</script>")

	// Nobody in particular.
	at := "/login?next=" + url.QueryEscape(path)
	leadsTo(t, nobody.Get(path), at)
	leadsTo(t, decide(nobody, path, "approve"), at)
	leadsTo(t, nobody.As(harness.Token).Get(path), at) // a token is nobody's word
	leadsTo(t, decide(nobody.As(harness.Token), path, "approve"), at)
	// Somebody who is no member can't tell it from one that isn't there.
	showsPage(t, eve.Get(path), http.StatusNotFound, "There is no such approval, or your account is no member")
	showsPage(t, decide(eve.Client, path, "approve"), http.StatusNotFound)
	showsPage(t, eve.Get("/approve/appr_none"), http.StatusNotFound)
	// A member who may not decide.
	showsPage(t, viewer.Get(path), http.StatusOK, "UPDATE prod_users", "You can't decide this")
	showsPage(t, decide(viewer.Client, path, "approve"), http.StatusForbidden, "UPDATE prod_users")

	in := sendForm(nobody, at, url.Values{"email": {"ada@example.com"}, "password": {thePassword}})
	leadsTo(t, in, path)
	ada := nobody.AsSession(cookieOf(t, in))
	page := ada.Get(path)
	showsPage(t, page, http.StatusOK, "A write waits for approval", "UPDATE prod_users SET plan = ? WHERE plan = 'trial'", "</code><script>alert(2)</script>", "prod_*", "Real customers <b>", "shop", "SCAN prod_users",
		"2 rows would change now", "grace@example.com", "linus@example.com", "Approve", "Deny", "Signed in as")
	if text := string(page.Raw); strings.Contains(text, "<script") || strings.Contains(text, "<b>") || strings.Contains(text, "ada@example.com</span></td>") {
		t.Errorf("an element of a stranger's, or a row that doesn't change: %s", text)
	}
	for _, bad := range []string{"", "yes"} {
		showsPage(t, decide(ada, path, bad), http.StatusBadRequest, "A write waits for approval")
	}
	showsPage(t, sendForm(ada, path, url.Values{"decision": {"approve"}, "reason": {strings.Repeat("x", 501)}}), http.StatusBadRequest, "500")
	showsPage(t, sendForm(ada, path, url.Values{"reason": {strings.Repeat("x", 64_000)}}), http.StatusRequestEntityTooLarge)
	for _, headers := range []harness.Header{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example", "Origin: null"} {
		showsPage(t, decide(ada, path, "approve", headers), http.StatusForbidden, "another site")
	}
	d.Post(d.Path("approvals/"+token+"/redeem"), nil).Fails(http.StatusConflict, "approval_pending")

	leadsTo(t, decide(ada, path, "approve", "Sec-Fetch-Site: same-origin"), path)
	showsPage(t, ada.Get(path), http.StatusOK, "This write is approved", "ada@example.com", "because <i>")
	showsPage(t, decide(ada, path, "deny"), http.StatusConflict, "This write is approved")
	rowsAre(t, d.Query("SELECT count(*) FROM prod_users WHERE plan = 'trial'"), "[[2]]") // to approve runs nothing,
	d.Post(d.Path("approvals/"+token+"/redeem"), nil).OK()
	rowsAre(t, d.Query("SELECT count(*) FROM prod_users WHERE plan = 'trial'"), "[[0]]") // to redeem does
	showsPage(t, ada.Get(path), http.StatusOK, "This write has run")

	// Asked for by a member, with a cookie in the place of a token.
	asked := ada.Post("/api/namespaces/default/databases/shop/query", body{"sql": "DELETE FROM prod_users WHERE id = 2"})
	asked.Fails(http.StatusForbidden, "approval_required")
	showsPage(t, viewer.Get("/approve/"+asked.Str("approvalToken")), http.StatusOK, "<strong>ada@example.com</strong>, a member of the namespace")

	// By its id too, and denied.
	token, path = hold(t, d, "DELETE FROM prod_users WHERE id = 3")
	id := d.Get(d.Path("approvals/" + token)).OK().Str("data.id")
	showsPage(t, ada.Get("/approve/"+id), http.StatusOK, "1 row would change now", "deleted", "x'00ff'")
	leadsTo(t, decide(ada, "/approve/"+id, "deny"), "/approve/"+id)
	showsPage(t, ada.Get(path), http.StatusOK, "This write is denied", "because <i>")
	rowsAre(t, d.Query("SELECT count(*) FROM prod_users"), "[[3]]")
}

// TestApprovalLooksAhead opens pages of writes that are long, fail, reach into other tables, differ far behind, or hide something from their reader.
func TestApprovalLooksAhead(t *testing.T) {
	row(t, "DP-PAGE-5")
	s := people(t)
	d := ruledShop(t, s, "shop")
	ada := enrol(t, s, "ada@example.com", "default", "admin")
	edith := enrol(t, s, "edith@example.com", "default", "editor")
	shown := func(p *person, sql string, params ...any) *harness.Answer {
		t.Helper()
		_, path := hold(t, d, sql, params...)
		return p.Get(path)
	}
	before := d.Query("SELECT count(*), max(id), total_changes() FROM prod_users").OK()
	began := time.Now()
	endlessly := "UPDATE prod_users SET note = (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c)"
	showsPage(t, shown(ada, endlessly), http.StatusOK, "How many rows would change is not known (it takes too long to find out)", "Approve")
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("to look took %s", took)
	}
	showsPage(t, shown(ada, "INSERT INTO prod_users(id) VALUES (1)"), http.StatusOK, "it fails now: ", "UNIQUE constraint failed", "Approve")

	d.Must("CREATE TABLE log(id INTEGER PRIMARY KEY, what TEXT)")
	// What anybody may change decides on which rows it is, though not on how many.
	d.Must("CREATE VIEW chosen AS SELECT id FROM log")
	const reads = "which no rule is about. Until it runs, other rows there can make it change other rows than these"
	showsPage(t, shown(ada, "DELETE FROM prod_users WHERE id IN (SELECT id FROM chosen)"), http.StatusOK, "It reads <code>log</code>, "+reads)
	for _, sql := range []string{"DELETE FROM prod_users WHERE id IN (SELECT id FROM prod_users WHERE plan = 'x')", "WITH log(id) AS (VALUES(1)) DELETE FROM prod_users WHERE id IN (SELECT id FROM log)"} {
		if a := shown(ada, sql); strings.Contains(string(a.Raw), reads) {
			t.Errorf("%s: %s", sql, a.Raw)
		}
	}
	long := strings.Repeat("x", 3000)
	d.Must("INSERT INTO log VALUES (1, ?)", long+"a")
	showsPage(t, shown(ada, "INSERT INTO prod_users(id, note) SELECT id + 10, what FROM log"), http.StatusOK, "1 row of prod_users that would be inserted", "the beginning of 3,001 bytes")

	d.Post(d.Path("policies"), body{"name": "own", "tableName": "prod_users", "expression": "email = :auth_sub"}).OK()
	_, path := hold(t, d, "DELETE FROM prod_users")
	showsPage(t, ada.Get(path), http.StatusOK, "3 rows would change now", "grace@example.com")
	a := edith.Get(path)
	showsPage(t, a, http.StatusOK, "DELETE FROM prod_users", "row-level policies bind your role")
	if strings.Contains(string(a.Raw), "grace@example.com") || strings.Contains(string(a.Raw), "3 rows") {
		t.Errorf("rows that policies hide: %s", a.Raw)
	}
	if after := d.Query("SELECT count(*), max(id), total_changes() FROM prod_users").OK(); harness.Text(after.At("data.rows")) != harness.Text(before.At("data.rows")) {
		t.Errorf("to look changed something: %s, before %s", harness.Text(after.At("data.rows")), harness.Text(before.At("data.rows")))
	}
}

// TestApprovalMarksWhatPassesForOthers shows texts that read as others: a table, a column, a value and a comment with letters of another alphabet.
func TestApprovalMarksWhatPassesForOthers(t *testing.T) {
	row(t, "DP-PAGE-6")
	s := people(t)
	d := ruledShop(t, s, "shop")
	d.Must("CREATE TABLE free(a)")
	ada := enrol(t, s, "ada@example.com", "default", "editor")
	const doubt = "This may not be what it reads as"
	page := func(sql string, params ...any) *harness.Answer {
		_, path := hold(t, d, sql, params...)
		return ada.Get(path)
	}
	// The table that it reads as, and the one that it is.
	token, path := hold(t, d, "CREATE TABLE prod_usеrs(id, plаn)")
	a := ada.Get(path)
	showsPage(t, a, http.StatusOK, doubt, `<mark title="U+0435 Cyrillic">е<small>U+0435 Cyrillic</small></mark>`, `<mark title="U+0430 Cyrillic">а<small>U+0430 Cyrillic</small></mark>`)
	leadsTo(t, sendForm(ada.Client, path, url.Values{"decision": {"approve"}, "reason": {""}, "seen": {seenOn(a)}}), path)
	d.Post(d.Path("approvals/"+token+"/redeem"), nil).OK()
	// The rule tells of the table, with the letter marked there too.
	showsPage(t, page("DELETE FROM prod_usеrs"), http.StatusOK, doubt, "It matches <code>prod_us<mark title=", "No row would change now")
	showsPage(t, page("UPDATE prod_users SET plan = ?", "pаid"), http.StatusOK, doubt, "U+0430 Cyrillic")
	showsPage(t, page("UPDATE prod_users SET plan = 'x' -- \u202eteg\u202c"), http.StatusOK, doubt, "U+202E", "U+202C")
	for sql, param := range map[string]any{"UPDATE prod_users SET plan = ? -- 営業部のテスト, été, журнал": "日本語とSQL", "INSERT INTO prod_users(email, note) VALUES('größe@example.com', ?)": "Ελληνικά, русский, العربية"} {
		got := page(sql, param)
		showsPage(t, got, http.StatusOK, "A write waits for approval")
		if text := string(got.Raw); strings.Contains(text, "<mark") || strings.Contains(text, doubt) {
			t.Errorf("%s is marked: %s", sql, text)
		}
	}
}

// TestPagesInABrowser signs in and decides in Chromium, without JavaScript, by keyboard, on a phone; and looks at the pages with axe-core.
func TestPagesInABrowser(t *testing.T) {
	row(t, "DP-PAGE-1", "DP-PAGE-2", "DP-PAGE-4", "DP-PAGE-5", "DP-SES-8")
	node, chromium := harness.Need(t, "node"), harness.Need(t, "chromium")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	npmFolder(ctx, t, "browser", "axe-core")
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		// The client that reads it is looked at below.
		if frame := r.URL.Query().Get("frame"); frame != "" {
			_ = hostileFrame.Execute(w, frame)
			return
		}
		_ = hostileForm.Execute(w, r.URL.Query())
	}))
	defer evil.Close()
	s := people(t)
	d := ruledShop(t, s, "shop")
	enrol(t, s, "ada@example.com", "default", "editor")
	_, approve := hold(t, d, "UPDATE prod_users SET plan = ? WHERE plan = 'trial'", "expired")
	denied, deny := hold(t, d, "DELETE FROM prod_users")
	kept, keep := hold(t, d, "UPDATE prod_users SET email = upper(email), note = 'a note that is so long that no telephone has room for it in one line'")
	// A name with a letter of another alphabet, and a write whose rows can't be counted.
	_, odd := hold(t, d, "INSERT INTO prod_users(id, plan) VALUES (1, 'pаid\u200b')")
	named := func(url, host string) string { return strings.Replace(url, "127.0.0.1", host, 1) }
	cmd := exec.CommandContext(ctx, node, "approval.mjs")
	cmd.Dir = "browser"
	cmd.Env = append(harness.Environ(), "CHROMIUM="+chromium, "API="+named(s.URL, "sql.test"), "EVIL="+named(evil.URL, "evil.test"), "EMAIL=ada@example.com", "PASSWORD="+thePassword,
		"APPROVE="+approve, "DENY="+deny, "KEEP="+keep, "ODD="+odd, "SHOTS="+os.Getenv("SHOTS"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("the pages failed: %v\n%s%s", err, out.String(), errs.String())
	}
	var seen struct {
		FirstAt, Refused, ThenAt, Read, Background, StillAt, ApprovedAt, Approved, Reloaded, Denied, Kept, SignedOut, LastAt, Odd, Unticked string
		Wider, Ticked                                                                                                                       bool
		Problems, Violations, Framed                                                                                                        []string
		Posted                                                                                                                              []struct{ Path, Origin, Site string }
		Order                                                                                                                               []struct {
			What             string
			Outlined, InView bool
		}
		Rules, Attack int
	}
	if err := json.Unmarshal(out.Bytes(), &seen); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	for what, got := range map[string][2]string{
		"the first page":            {seen.FirstAt, "/login?next=" + url.QueryEscape(approve)},
		"the page after signing in": {seen.ThenAt, approve},
		"return in the reason":      {seen.StillAt, approve},
		"the page after approving":  {seen.ApprovedAt, approve},
		"the last page":             {seen.LastAt, "/login?next=" + url.QueryEscape(keep)},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is at %q, want %q", what, got[0], got[1])
		}
	}
	for text, words := range map[string][]string{
		seen.Refused:   {"The e-mail address or the password is wrong"},
		seen.Read:      {"A write waits for approval", "2 rows would change now", "trial", "expired", "Real customers <b>", "<script>alert(1)</script>", "SCAN prod_users"},
		seen.Approved:  {"This write is approved", "ada@example.com", "Looks right\nto me"},
		seen.Reloaded:  {"This write is approved"},
		seen.Denied:    {"This write is denied"},
		seen.Kept:      {"A write waits for approval"},
		seen.SignedOut: {"You are signed out"},
		seen.Odd:       {"This may not be what it reads as", "U+0430 Cyrillic", "U+200B", "You don't see how many rows this changes"},
		seen.Unticked:  {"isn't known to you"},
	} {
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("the page lacks %q: %s", word, text)
			}
		}
	}
	if seen.Background != "rgb(20, 23, 26)" || seen.Wider {
		t.Errorf("background %s, wider than the phone: %v", seen.Background, seen.Wider)
	}
	// What the browser says of the policy, or of anything else; a wrong password and a refused decision it tells of too.
	if problems := slices.DeleteFunc(seen.Problems, func(p string) bool {
		return strings.Contains(p, "401 (Unauthorized)") || strings.Contains(p, "409 (Conflict)")
	}); len(problems) > 0 {
		t.Errorf("the browser says %q", problems)
	}
	for i, want := range []string{"a Go to the decision", "pre SQL"} {
		if i >= len(seen.Order) || seen.Order[i].What != want {
			t.Errorf("the keyboard's way is %+v, want %s at %d", seen.Order, want, i)
		}
	}
	for _, stop := range seen.Order {
		if !stop.Outlined || !stop.InView {
			t.Errorf("the keyboard is on %+v, which one doesn't see", stop)
		}
	}
	if len(seen.Violations) > 0 || seen.Rules < 20 {
		t.Errorf("%d rules of axe-core passed; it says:\n%s", seen.Rules, strings.Join(seen.Violations, "\n"))
	}
	if !seen.Ticked {
		t.Error("the keyboard doesn't tick the box")
	}
	if len(seen.Posted) != 6 {
		t.Errorf("posted %+v", seen.Posted)
	}
	for _, p := range seen.Posted {
		if p.Origin != named(s.URL, "sql.test") || p.Site != "" {
			t.Errorf("posted with %+v", p)
		}
	}
	if seen.Attack != http.StatusForbidden {
		t.Errorf("the form of another site: %d", seen.Attack)
	}
	// The browser has its own page there, which says that it was refused.
	if text := strings.Join(seen.Framed, ""); len(seen.Framed) != 1 || strings.Contains(text, "pprov") || strings.Contains(text, "prod_users") {
		t.Errorf("in a frame of another site: %q", seen.Framed)
	}
	d.Get(d.Path("approvals/"+kept)).OK().Is("data.status", "pending")
	d.Get(d.Path("approvals/"+denied)).OK().Is("data.status", "denied")
}
