package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/e2e/openapi"
)

// isTwin tells whether a call is the twin, for members, of one under /v1.
func isTwin(op *openapi.Operation) bool { return strings.HasSuffix(op.ID, "AsMember") }

// twinCalls are what each call that has a twin is sent here so that it succeeds, and the least role of a member for it. {t} is a fresh
// text. What it needs is made by before, which gets an admin's client of the same namespace, and returns what stands for {id} or {ref}.
var twinCalls = map[string]struct {
	query  string
	body   any
	role   string
	before func(t testing.TB, admin *harness.Client, database string) (id string)
}{
	"query":           {body: harness.Body("SELECT count(*) FROM t"), role: "viewer"},
	"batch":           {body: harness.BatchBody(true, "INSERT INTO t(b) VALUES(1)"), role: "editor"},
	"listTables":      {role: "viewer"},
	"describe":        {role: "viewer"},
	"describeCompact": {role: "viewer"},
	"putDescriptions": {body: body{"databaseDescription": "x"}, role: "admin"},
	"search":          {query: "?q=t", role: "viewer"},
	"searchByBody":    {body: body{"q": "t"}, role: "viewer"},
	"doctor":          {role: "viewer"},
	"validate":        {body: harness.Body("SELECT a FROM t"), role: "viewer"},
	"explain":         {body: harness.Body("SELECT a FROM t"), role: "viewer"},
	"getSchema":       {role: "viewer"},
	"getQueryLog":     {role: "viewer"},
	"exportDatabase":  {role: "admin"},
	"importDatabase":  {body: harness.Raw("CREATE TABLE IF NOT EXISTS imported(a);"), role: "admin"},
	"loadCSV":         {query: "?table=csv", body: harness.Raw("a\n1\n"), role: "admin"},
	"listDatabases":   {role: "viewer"},
	"createDatabase":  {body: body{"slug": "made-{t}"}, role: "admin"},
	"getDatabase":     {role: "viewer"},
	"deleteDatabase": {role: "admin", before: func(t testing.TB, admin *harness.Client, _ string) string {
		slug := unused()
		admin.Post("/v1/databases", body{"slug": slug}).OK()
		return slug
	}},
	"undeleteDatabase": {role: "admin", before: func(t testing.TB, admin *harness.Client, _ string) string {
		slug := unused()
		id := admin.Post("/v1/databases", body{"slug": slug}).OK().Str("data.id")
		admin.Do(http.MethodDelete, "/v1/databases/"+slug, nil).OK()
		return id
	}},
	"listTokens":  {role: "admin"},
	"createToken": {body: body{"name": "x"}, role: "admin"},
	"revokeToken": {role: "admin", before: func(t testing.TB, admin *harness.Client, _ string) string {
		return admin.Post("/v1/tokens", body{"name": "x"}).OK().Str("data.id")
	}},
	"listBindings":  {role: "admin"},
	"createBinding": {body: body{"repository": "twins/{t}"}, role: "admin"},
	"deleteBinding": {role: "admin", before: func(t testing.TB, admin *harness.Client, _ string) string {
		return admin.Post("/v1/actions/bindings", body{"repository": "twins/" + unused()}).OK().Str("data.id")
	}},
	"listOAuthApps":     {role: "admin"},
	"createOAuthApp":    {body: body{"name": "{t}", "redirectUris": []string{"https://app.example.com/callback"}}, role: "admin"},
	"getOAuthApp":       {role: "admin", before: anApp},
	"updateOAuthApp":    {body: body{"name": "{t}"}, role: "admin", before: anApp},
	"deleteOAuthApp":    {role: "admin", before: anApp},
	"rotateOAuthSecret": {role: "admin", before: anApp},

	"getAuditLog": {role: "admin"},
	"getUsage":    {query: "?groupBy=meter", role: "viewer"},
	"getBalance":  {role: "viewer"},
	"listCaps":    {role: "viewer"},
	"setCaps":     {body: harness.Raw(`[{"scope":"namespace","window":"month","usd":1000}]`), role: "admin"},

	"claimBranch":  {body: body{"ref": "{t}"}, role: "admin"},
	"listBranches": {role: "viewer"},
	"getBranch":    {role: "viewer", before: aBranch},
	"putBranch":    {role: "admin"},
	"deleteBranch": {role: "admin", before: aBranch},
	"pinBranch":    {body: body{"role": "admin"}, role: "admin", before: aBranch},

	"previewBranch":       {role: "admin", before: aBranch},
	"previewBranchByPost": {role: "admin", before: aBranch},
	"mergeBranch":         {role: "admin", before: aBranch},
	"mergeBranchByName":   {body: body{"ref": "{ref}"}, role: "admin", before: aBranch},
	"forkDatabase":        {body: body{"slug": "{t}"}, role: "admin"},

	"listChanges": {query: "?wait=0", role: "viewer"},
	"subscribe":   {role: "viewer"}, // no WebSocket: 426; TestFeedOfMembers opens one

	"getBookmark":    {role: "viewer"},
	"listSnapshots":  {role: "admin"},
	"createSnapshot": {body: body{"label": "twin"}, role: "admin"},
	"deleteSnapshot": {role: "admin", before: func(t testing.TB, admin *harness.Client, database string) string {
		return admin.Post("/v1/db/default/"+database+"/snapshots", body{"label": "twin"}).OK().Str("data.id")
	}},
	"restoreDatabase": {body: body{"timestamp": "2100-01-01"}, role: "admin"},

	"propose":           {body: harness.Body("SELECT a FROM t"), role: "viewer"},
	"listApprovals":     {role: "admin"},
	"listApprovalRules": {role: "admin"},
	"createApprovalRule": {body: body{"tableGlob": "{t}", "action": "deny"}, role: "admin", before: func(t testing.TB, admin *harness.Client, database string) string {
		slug := unused() // any rule stops imports and restores
		admin.Post("/v1/databases", body{"slug": slug}).OK()
		return slug
	}},
	"deleteApprovalRule": {role: "admin", before: func(t testing.TB, admin *harness.Client, database string) string {
		return admin.Post("/v1/db/default/"+database+"/approval-rules", body{"tableGlob": unused(), "action": "deny"}).OK().Str("data.id")
	}},

	"listWebhooks":          {role: "admin"},
	"createWebhook":         {body: body{"name": "{t}", "url": "https://example.com/", "events": []string{"balance_low"}}, role: "admin"},
	"getWebhook":            {role: "admin", before: aWebhook},
	"updateWebhook":         {body: body{"enabled": false}, role: "admin", before: aWebhook},
	"deleteWebhook":         {role: "admin", before: aWebhook},
	"rotateWebhookSecret":   {role: "admin", before: aWebhook},
	"listWebhookDeliveries": {role: "admin", before: aWebhook},
	"replayWebhook":         {role: "admin", before: aWebhook},
	"listSchedules":         {role: "admin"},
	"createSchedule":        {body: body{"name": "{t}", "sql": "SELECT 1", "intervalSec": 60}, role: "admin"},
	"changeSchedule":        {body: body{"enabled": false}, role: "admin", before: aSchedule},
	"deleteSchedule":        {role: "admin", before: aSchedule},
	"runSchedule":           {role: "admin", before: aSchedule},

	"listPolicies": {role: "admin"},
	"createPolicy": {body: body{"name": "{t}", "tableName": "ruled", "expression": "a = :auth_sub"}, role: "admin"},
	"deletePolicy": {role: "admin", before: func(t testing.TB, admin *harness.Client, database string) string {
		return admin.Post("/v1/db/default/"+database+"/policies", body{"name": unused(), "tableName": "ruled", "expression": "a = :auth_sub"}).OK().Str("data.id")
	}},
}

// aWebhook makes a webhook that is told of nothing here.
func aWebhook(t testing.TB, admin *harness.Client, database string) string {
	return admin.Post("/v1/db/default/"+database+"/webhooks", body{"name": "w", "url": "https://example.com/", "events": []string{"balance_low"}}).OK().Str("data.id")
}

// anApp makes an OAuth app, whose client id stands for {id}.
func anApp(t testing.TB, admin *harness.Client, _ string) string {
	return admin.Post("/v1/oauth-apps", body{"name": "app", "redirectUris": []string{"https://app.example.com/callback"}}).OK().Str("data.clientId")
}

// ownTwins are the calls that only who made what they name can make: see TestTwinsOfApprovals.
var ownTwins = []string{"applyAsMember", "getApprovalAsMember", "redeemApprovalAsMember", "redeemNamedApprovalAsMember"}

// aBranch makes a branch, whose ref stands for {ref}.
func aBranch(t testing.TB, admin *harness.Client, database string) string {
	ref := unused()
	admin.Do(http.MethodPut, "/v1/db/default/"+database+"/branches/"+ref, nil).OK()
	return ref
}

// aSchedule makes a schedule, whose id stands for {id}.
func aSchedule(t testing.TB, admin *harness.Client, database string) string {
	return admin.Post("/v1/db/default/"+database+"/schedules", body{"name": unused(), "sql": "SELECT 1", "intervalSec": 3600}).OK().Str("data.id")
}

var ladder = []string{"viewer", "editor", "admin", "owner"}

// TestTwins sends each call that has a twin as each kind of member, as somebody who is none, with a token, with both, and with none.
func TestTwins(t *testing.T) {
	row(t, "DP-TWIN-1", "DP-TWIN-2", "DP-TWIN-3", "DP-TWIN-4")
	s := people(t, append(keepsHistory, "PERSQLD_MAX_WEBHOOKS=1000")...)
	admin := s.Client(t, harness.Token)
	d := admin.DB("twins")
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	d.Must("CREATE TABLE ruled(a)")
	members := map[string]*person{}
	for _, role := range ladder {
		members[role] = enrol(t, s, role+"@example.com", "default", role)
	}
	stranger := enrol(t, s, "stranger@example.com", "", "")
	called := 0
	for _, op := range harness.Operations() {
		if !isTwin(op) || slices.Contains(ownTwins, op.ID) {
			continue
		}
		call, ok := twinCalls[strings.TrimSuffix(op.ID, "AsMember")]
		if !ok {
			t.Errorf("%s is not in twinCalls", op.ID)
			continue
		}
		called++
		t.Run(op.ID, func(t *testing.T) {
			send := func(c *harness.Client, namespace string) *harness.Answer {
				id := "none"
				if call.before != nil {
					id = call.before(t, admin, d.Slug)
				}
				b := call.body
				if fields, ok := b.(body); ok {
					b = body{}
					for k, v := range fields {
						if text, ok := v.(string); ok {
							v = strings.NewReplacer("{t}", unused(), "{ref}", id).Replace(text)
						}
						b.(body)[k] = v
					}
				}
				database := d.Slug
				if op.ID == "deleteDatabaseAsMember" || op.ID == "createApprovalRuleAsMember" {
					database = id
				}
				if op.ID == "loadCSVAsMember" {
					return c.With(t).Do(op.Method, strings.NewReplacer("{namespace}", namespace, "{database}", database).Replace(op.Path)+"?table="+unused(), b)
				}
				path := strings.NewReplacer("{namespace}", namespace, "{database}", database, "{id}", id, "{ref}", id).Replace(op.Path)
				return c.With(t).Do(op.Method, path+call.query, b)
			}
			for i, role := range ladder {
				a := send(members[role].Client, "default")
				if i >= slices.Index(ladder, call.role) {
					if a.Status != http.StatusOK && (op.ID != "subscribeAsMember" || a.Status != http.StatusUpgradeRequired) {
						t.Errorf("%s: %d %s", role, a.Status, harness.Tail(string(a.Raw), 300))
					}
					continue
				}
				if a.Status != http.StatusForbidden {
					t.Errorf("%s: %d, want 403", role, a.Status)
				}
			}
			// Somebody who is no member learns nothing, not even whether there is such a namespace.
			there, nowhere := send(stranger.Client, "default"), send(stranger.Client, "nowhere")
			there.Fails(http.StatusNotFound, "not_found")
			nowhere.Fails(http.StatusNotFound, "not_found")
			if a, b := withoutID(there), withoutID(nowhere); a != b {
				t.Errorf("a namespace of others answers %s, one that isn't there %s", a, b)
			}
			signedOut(t, send(s.Client(t, ""), "default"))
			signedOut(t, send(s.Client(t, harness.Token), "default"))
			// A token beside the cookie counts for nothing.
			if a := send(s.Client(t, harness.Token).AsSession(stranger.Cookie()), "default"); a.Status != http.StatusNotFound {
				t.Errorf("a stranger with a token: %d", a.Status)
			}
			// A cookie opens nothing under /v1.
			v1 := strings.Replace(op.Path, "/api/namespaces/{namespace}/databases/{database}/", "/v1/db/default/twins/", 1)
			v1 = strings.Replace(v1, "/api/namespaces/{namespace}/", "/v1/", 1)
			a := members["owner"].With(t).Do(op.Method, strings.NewReplacer("{database}", "twins", "{id}", "x", "{ref}", "x").Replace(v1), nil)
			a.Fails(http.StatusUnauthorized, "unauthorized")
			if a.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s: WWW-Authenticate %q", v1, a.Header.Get("WWW-Authenticate"))
			}
		})
	}
	if called != len(twinCalls) {
		t.Errorf("%d twins, want %d", called, len(twinCalls))
	}
}

// withoutID is an answer without the request's id.
func withoutID(a *harness.Answer) string {
	return fmt.Sprint(a.Status, " ", strings.ReplaceAll(string(a.Raw), a.Header.Get("X-Request-Id"), ""))
}

// TestTwinsUnderPolicies: policies bind members as they bind tokens of the same role without claims.
func TestTwinsUnderPolicies(t *testing.T) {
	row(t, "DP-TWIN-2", "DP-POL-4")
	s := people(t)
	d := s.Client(t, harness.Token).DB("ruled")
	d.Must("CREATE TABLE orders(owner, item)")
	d.Must("INSERT INTO orders VALUES('ada', 'tea'), (NULL, 'cup')")
	d.Post(d.Path("policies"), body{"name": "own", "tableName": "orders", "expression": "owner = :auth_sub"}).OK()
	for _, role := range ladder {
		p := enrol(t, s, role+"@example.com", "default", role)
		want := "2"
		if role == "viewer" || role == "editor" {
			want = "0"
		}
		p.Post("/api/namespaces/default/databases/ruled/query", harness.Body("SELECT count(*) FROM orders")).OK().Is("data.rows", "[["+want+"]]")
	}
}

// TestTwinsSayWho looks at what is written down of a member's requests.
func TestTwinsSayWho(t *testing.T) {
	row(t, "DP-TWIN-5")
	s := people(t)
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	editor := enrol(t, s, "editor@example.com", "default", "editor")
	const db = "/api/namespaces/default/databases/who"
	owner.Post(db+"/query", harness.Body("CREATE TABLE t(a)")).OK() // makes it
	editor.Post(db+"/query", harness.Body("INSERT INTO t VALUES(1)")).OK()
	owner.Get("/api/namespaces/default/audit?limit=1").OK().Is("data.0.action", "database.created").Is("data.0.actor.type", "user").
		Is("data.0.actor.id", owner.id).Is("data.0.address", "127.0.0.1")
	owner.Get(db+"/query-log?limit=1").OK().Is("data.0.tokenId", "user:"+editor.id)
	// An editor sees its own rows alone.
	if n := len(editor.Get(db + "/query-log").OK().List("data")); n != 1 {
		t.Errorf("%d rows", n)
	}
	// Idempotency keys are a person's own.
	insert := harness.Body("INSERT INTO t VALUES(2)")
	owner.Post(db+"/query", insert, key("k")).OK()
	if !replayed(owner.Post(db+"/query", insert, key("k")).OK()) {
		t.Error("not replayed")
	}
	if replayed(editor.Post(db+"/query", insert, key("k")).OK()) {
		t.Error("replayed for somebody else")
	}
	// Tokens that a member makes are the namespace's, and live on.
	made := owner.Post("/api/namespaces/default/tokens", body{"name": "by a person", "role": "readonly"}).OK()
	reader := s.Client(t, made.Str("data.token"))
	reader.Post("/v1/db/default/who/query", harness.Body("SELECT * FROM t")).OK()
	admin := enrol(t, s, "second@example.com", "default", "owner")
	admin.Do(http.MethodDelete, "/api/namespaces/default/members/"+owner.id, nil).OK()
	owner.Get(db).Fails(http.StatusNotFound, "not_found")
	reader.Post("/v1/db/default/who/query", harness.Body("SELECT * FROM t")).OK()
	admin.Do(http.MethodDelete, "/api/namespaces/default/tokens/"+made.Str("data.id"), nil).OK()
	refused(t, reader.Get("/v1/me"), "Invalid or expired token")
}
