package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/e2e/openapi"
)

// requests are what each call of the OpenAPI document is sent in the tests here, by its operationId: what is needed for the
// server to look further than at the request itself. A call that isn't here is sent without query and body.
var requests = map[string]struct {
	query string
	body  any
}{
	"createDatabase":       {body: body{"slug": "made"}},
	"createToken":          {body: body{"database": "made"}},
	"createSnapshot":       {body: body{"label": "x"}},
	"restoreDatabase":      {body: body{"timestamp": "2100-01-01"}},
	"createPolicy":         {body: body{"name": "p", "tableName": "t", "expression": "a = 1"}},
	"createApprovalRule":   {body: body{"tableGlob": "unheard_of", "action": "deny"}},
	"propose":              {body: harness.Body("SELECT a FROM v8")},
	"updateWebhook":        {body: body{"enabled": false}},
	"replayWebhook":        {body: body{}},
	"createWebhook":        {body: body{"name": "w", "url": "https://example.com/"}},
	"createSchedule":       {body: body{"name": "s", "sql": "SELECT a FROM v8", "intervalSec": 60}},
	"changeSchedule":       {body: body{"enabled": true}},
	"createBinding":        {body: body{"repository": "documented/shop"}},
	"createOAuthApp":       {body: body{"name": "app", "redirectUris": []string{"https://app.example.com/callback"}}},
	"updateOAuthApp":       {body: body{"name": "other"}},
	"registerClient":       {body: body{"redirect_uris": []string{"https://app.example.com/callback"}}},
	"agentIdentity":        {body: body{"type": "identity_assertion", "assertion": "x"}},
	"requestToken":         {body: body{"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "client_secret": "x"}},
	"revokeOAuthToken":     {body: body{"client_id": "psqlrp_none", "token": "x"}},
	"introspectOAuthToken": {body: body{"client_id": "psqlrp_none", "token": "x"}},
	"createUser":           {body: body{"subject": "u", "template": "made"}},
	"listDatabases":        {query: "?deleted=true"},
	"listChanges":          {query: "?wait=0"},
	"query":                {body: harness.Body(endless)},
	"batch":                {body: harness.BatchBody(false, endless)},
	"validate":             {body: harness.Body("SELECT 1")},
	"explain":              {body: harness.Body("SELECT a FROM v8")},
	"search":               {query: "?q=table&limit=200"},
	"searchByBody":         {body: body{"q": "table", "limit": 200}},
	"importDatabase":       {body: harness.Raw(endless + ";")},
	"loadCSV":              {query: "?table=t", body: harness.Raw("a\n1\n")},
	"putDescriptions":      {body: body{"databaseDescription": "x"}},
	"forkDatabase":         {body: body{"slug": "made"}},
	"getUsage":             {query: "?groupBy=database"},
	"setCaps":              {body: harness.Raw(`[]`)},
}

// ask sends a call of the document; send replaces its body unless it is nil.
func ask(c *harness.Client, op *openapi.Operation, namespace, slug string, send any) *harness.Answer {
	r := requests[op.ID]
	if send == nil {
		send = r.body
	}
	path := strings.NewReplacer("{namespace}", namespace, "{database}", slug, "{ref}", "x").Replace(op.Path)
	return c.Do(op.Method, path+r.query, send)
}

// copyOf is what makes a call that makes databases one about a database.
func copyOf(op *openapi.Operation, slug string) any {
	if op.ID != "createDatabase" {
		return nil
	}
	return body{"slug": "made", "from": body{"database": slug}}
}

// forPeople tells whether a cookie opens a call, or leads to one. What is under /api/billing is Stripe's, and where its page sends people.
func forPeople(op *openapi.Operation) bool {
	if slices.Contains([]string{"/login", "/logout", "/signup", "/account", "/account/apps", "/oauth/authorize", "/oauth/consent"}, op.Path) || strings.HasPrefix(op.Path, "/login/") || strings.HasPrefix(op.Path, "/reset/") || strings.HasPrefix(op.Path, "/invite/") || strings.HasPrefix(op.Path, "/approve/") {
		return true
	}
	return !strings.HasPrefix(op.Path, "/api/billing/") && strings.HasPrefix(op.Path, "/api/") && op.Path != "/api/openapi.json"
}

// TestDocumentedStatuses provokes what the OpenAPI document says of each call: that a request fails in this way, whatever
// the call does. TestMain fails for a documented status that no test has met; not for "default", under which are the
// failures that can't be made from outside: faults of the server (500), a full or failing disk, used up memory, and a
// request that comes in while the server stops.
func TestDocumentedStatuses(t *testing.T) {
	row(t, "DP-DOC-2")
	each := func(t *testing.T, status int, f func(op *openapi.Operation) *harness.Answer) {
		met := false
		for _, op := range harness.Operations() {
			if forPeople(op) && status != http.StatusUnauthorized || slices.Contains([]string{"answerInvitation", "answerSignIn", "answerConfirm", "answerAccount"}, op.ID) || op.Path == "/userinfo" && status == http.StatusForbidden {
				continue // oauth_test.go, upstream_test.go, twins_test.go, session_test.go, members_test.go, invitations_test.go and pages_test.go
			}
			if !slices.Contains(op.Statuses, status) || op.Path == "/metrics" || op.Path == "/readyz" || unprovoked[fmt.Sprint(op.ID, " ", status)] != "" {
				continue
			}
			met = true
			if a := f(op); a.Status != status {
				t.Errorf("%s: got %d %s, want %d: say in requests what it takes", op.ID, a.Status, harness.Tail(string(a.Raw), 300), status)
			}
		}
		if !met {
			t.Errorf("no call documents %d", status)
		}
	}
	// Until an answer has the status: others may come before it, but not for long.
	until := func(t *testing.T, status int, f func() *harness.Answer) (a *harness.Answer) {
		eventually(t, 10*time.Second, func() bool { a = f(); return a.Status == status })
		return a
	}

	t.Run("401 without a token", func(t *testing.T) {
		c := client(t).As("")
		each(t, http.StatusUnauthorized, func(op *openapi.Operation) *harness.Answer { return ask(c, op, "default", "none", nil) })
		for _, op := range harness.Operations() {
			if signsIn := slices.Contains([]string{"signIn", "answerInvitation", "answerSignIn", "answerConfirm", "answerAccount", "agentIdentity", "requestToken", "revokeOAuthToken", "introspectOAuthToken"}, op.ID); !signsIn && op.Secured != slices.Contains(op.Statuses, http.StatusUnauthorized) {
				t.Errorf("%s needs a token: %v, and documents the statuses %v", op.ID, op.Secured, op.Statuses)
			}
		}
	})
	t.Run("402 without a balance", func(t *testing.T) {
		s := harness.Start(t, binary, harness.Options{Env: prepaid("PERSQLD_WELCOME_CREDIT=0")})
		c := s.Client(t, harness.Token)
		each(t, http.StatusPaymentRequired, func(op *openapi.Operation) *harness.Answer { return ask(c, op, "default", "none", nil) })
	})
	t.Run("403 with a token for another database", func(t *testing.T) {
		s := sharedServer(t)
		own, other := db(t), db(t)
		_, token := newToken(t, s, "--namespace", "default", "--database", own.Slug)
		c := s.Client(t, token)
		closed := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_OAUTH_REGISTRATION=false"}}).Client(t, "")
		each(t, http.StatusForbidden, func(op *openapi.Operation) *harness.Answer {
			if op.ID == "registerClient" { // open to whoever asks, unless it is to nobody
				return ask(closed, op, "default", other.Slug, nil)
			}
			return ask(c, op, "default", other.Slug, nil)
		})
	})
	t.Run("404 for a database that isn't there", func(t *testing.T) {
		s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_AUTO_CREATE=false", "PERSQLD_BILLING=off"}})
		c := s.Client(t, harness.Token)
		each(t, http.StatusNotFound, func(op *openapi.Operation) *harness.Answer { return ask(c, op, "default", "none", copyOf(op, "none")) })
	})
	t.Run("408 over the time limit", func(t *testing.T) {
		// A branch without rows takes but the rows of its parent's sqlite_schema: here are 20,000 of them, most of them indexes of constraints.
		data := filepath.Join(t.TempDir(), "data")
		s := harness.Start(t, binary, harness.Options{Data: data})
		many := s.Client(t, harness.Token).DB("many")
		for table := range 40 {
			many.Must(fmt.Sprintf("CREATE TABLE t%d(c0 UNIQUE", table) + strings.Join(numbered(", c%d UNIQUE", 1, 500), "") + ")")
		}
		s.Stop(t)
		s = harness.Start(t, binary, harness.Options{Data: data, Env: []string{"PERSQLD_STATEMENT_TIMEOUT=10ms", "PERSQLD_TRANSFER_TIMEOUT=1s"}})
		c := s.Client(t, harness.Token)
		d := c.DB("heavy")
		top := makeHeavy(t, d)
		each(t, http.StatusRequestTimeout, func(op *openapi.Operation) *harness.Answer {
			if slices.Contains([]string{"claimBranch", "forkDatabase", "putBranch"}, op.ID) {
				return ask(c, op, "default", many.Slug, nil)
			}
			return until(t, http.StatusRequestTimeout, func() *harness.Answer {
				d.Batch(true, "DROP VIEW v8", top) // so that SQLite looks for its columns again
				return ask(c, op, "default", d.Slug, nil)
			})
		})
	})
	t.Run("413 over the limits of bodies and results", func(t *testing.T) {
		s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MAX_REQUEST=4KB", "PERSQLD_MAX_RESULT=1KB", "PERSQLD_MAX_IMPORT=4KB", "PERSQLD_MAX_CSV=4KB"}})
		c := s.Client(t, harness.Token)
		d := newDB(t, c)
		for range 10 { // a line each of the usage
			newDB(t, c).Must("SELECT 1")
		}
		for range 40 {
			d.Must("CREATE TABLE " + unused() + "_table(first_of_two_columns, second_of_two_columns)")
		}
		for range 3 {
			d.Post(d.Path("schedules"), body{"name": unused(), "sql": "SELECT '" + strings.Repeat("x", 400) + "'", "intervalSec": 60}).OK()
			c.Post("/v1/actions/bindings", body{"repository": "documented/" + strings.Repeat("x", 200) + unused()}).OK()
			anApp(t, c, "")
		}
		large := harness.Raw(`{"x":"` + strings.Repeat("x", 5000) + `"}`)
		each(t, http.StatusRequestEntityTooLarge, func(op *openapi.Operation) *harness.Answer {
			if op.HasBody {
				return ask(c, op, "default", d.Slug, large)
			}
			return ask(c, op, "default", d.Slug, nil)
		})
	})
	t.Run("429 over the rate of an address", func(t *testing.T) {
		s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_RATE_PER_ADDRESS=1"}})
		c := s.Client(t, harness.Token)
		each(t, http.StatusTooManyRequests, func(op *openapi.Operation) *harness.Answer {
			return until(t, http.StatusTooManyRequests, func() *harness.Answer { return ask(c, op, "default", "x", nil) })
		})
	})
	t.Run("503 for a damaged database", func(t *testing.T) {
		data := filepath.Join(t.TempDir(), "data")
		s := harness.Start(t, binary, harness.Options{Data: data, Env: keepsHistory})
		id := s.Client(t, harness.Token).Post("/v1/databases", body{"slug": "damaged"}).OK().Str("data.id")
		s.Stop(t)
		if err := os.Truncate(fileOf(t, data, id), 0); err != nil {
			t.Fatal(err)
		}
		s = harness.Start(t, binary, harness.Options{Data: data, Env: keepsHistory})
		c := s.Client(t, harness.Token)
		each(t, http.StatusServiceUnavailable, func(op *openapi.Operation) *harness.Answer {
			return ask(c, op, "default", "damaged", copyOf(op, "damaged"))
		})
	})
	t.Run("400", func(t *testing.T) {
		d := db(t)
		d.Post(d.Path("search"), body{"q": ""}).Fails(http.StatusBadRequest, "bad_request")
		d.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil, "Plan-Key: x").Fails(http.StatusBadRequest, "invalid_idempotency_key")
	})
	t.Run("503 of readyz while the server stops", func(t *testing.T) {
		admin := harness.FreeAddr(t)
		s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_ADMIN_LISTEN=" + admin}})
		d := newDB(t, s.Client(t, harness.Token))
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = d.Try(http.MethodPost, d.Path("query"), harness.Body(endless)) // what runs keeps the server for a while
		}()
		untilBusy(t, s, d)
		s.Signal(t, syscall.SIGTERM)
		c := harness.NewClient(t, "http://"+admin, "", s.Data) // the operator's listener is the last that closes
		a := until(t, http.StatusServiceUnavailable, func() *harness.Answer { return c.Get("/readyz") })
		s.SignalIfRunning(syscall.SIGTERM) // the second one ends it at once
		s.Wait(t, 5*time.Second)
		<-done
		if a.Status != http.StatusServiceUnavailable {
			t.Errorf("readyz of a stopping server answers %d", a.Status)
		}
	})
}

// numbered is a text for each number from first to before end.
func numbered(format string, first, end int) (list []string) {
	for i := first; i < end; i++ {
		list = append(list, fmt.Sprintf(format, i))
	}
	return list
}

// makeHeavy makes a view whose text doubles, and more, at each of its levels when SQLite looks for its columns: a call that
// lists tables does that, in one step that can't be interrupted, and takes some hundred milliseconds.
// It returns the statement that makes the topmost view, v8.
func makeHeavy(t testing.TB, d *harness.DB) (top string) {
	t.Helper()
	views := []any{"CREATE VIEW v0 AS SELECT 1 AS a"}
	for level := range 8 {
		top = strings.NewReplacer("$new", fmt.Sprintf("v%d", level+1), "$old", fmt.Sprintf("v%d", level)).Replace(
			"CREATE VIEW $new AS SELECT (SELECT a FROM $old) + (SELECT a FROM $old) + a AS a FROM $old")
		views = append(views, top)
	}
	if !eventually(t, 10*time.Second, func() bool { return d.Batch(true, views...).Status == http.StatusOK }) { // the limit is short
		t.Fatal("the views can't be made")
	}
	return top
}

func TestDocumentIsServed(t *testing.T) {
	row(t, "DP-DOC-1")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_BASE_URL=https://sql.example.com"}})
	c := s.Client(t, "")
	var program struct{ Version string }
	if err := json.Unmarshal(c.Get("/version").Raw, &program); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/api/openapi.json", "/openapi.json"} {
		a := c.Get(path, origin)
		var d struct {
			OpenAPI string
			Info    struct{ Version string }
			Servers []struct{ URL string }
		}
		if err := json.Unmarshal(a.Raw, &d); err != nil || d.OpenAPI != "3.1.0" || d.Info.Version != program.Version || len(d.Servers) != 1 || d.Servers[0].URL != "https://sql.example.com" {
			t.Errorf("%s: %v %+v, the program is %s", path, err, d, program.Version)
		}
		if got := a.Header.Get("Access-Control-Allow-Origin"); got != "*" {
			t.Errorf("%s: Access-Control-Allow-Origin %q", path, got)
		}
		if b := c.Get(path, harness.Header("If-None-Match: "+a.Header.Get("ETag"))); b.Status != http.StatusNotModified || len(b.Raw) > 0 {
			t.Errorf("%s: with its ETag %d, %d bytes", path, b.Status, len(b.Raw))
		}
	}
}
