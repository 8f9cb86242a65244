package e2e_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/e2e/openapi"
)

// unaudited are the calls that change nothing which the audit log tells of: what they change of rows is the query log's. Those of payments need a Stripe,
// and are looked at in checkout_test.go; those of machines an issuer, in identity_test.go.
var unaudited = map[string]bool{"previewBranchByPost": true, "query": true, "batch": true, "validate": true, "explain": true, "searchByBody": true, "propose": true, "apply": true, "startCheckout": true, "stripeEvent": true,
	"federate": true, "connectRepository": true, "agentIdentity": true, "requestToken": true,
	// Of people's apps: oauth_test.go.
	"authorizeByPost": true, "answerConsent": true, "revokeOAuthToken": true, "introspectOAuthToken": true, "postUserInfo": true, "answerConnectedApps": true, "disconnectApp": true,
	"registerClient": true} // of what strangers register the log tells when somebody lets it in

// TestEveryChangeIsAudited makes each call of the OpenAPI document that changes something, and looks for its entry: whose it is, of what,
// and from where.
func TestEveryChangeIsAudited(t *testing.T) {
	row(t, "DP-AUDIT-2", "DP-AUDIT-4")
	s := people(t, append(prepaid("PERSQLD_SIGNUP=open"), keepsHistory...)...)
	admin := s.Client(t, harness.Token)
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	nobody := s.Client(t, "")
	admin.DB("audited").Must("CREATE TABLE ruled(a)") // makes it
	admin.DB("held").Must("SELECT 1")

	// change makes the call, and returns the id of the target ("" for any).
	type change func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (action, target string)
	plain := func(action string, request any) change {
		return func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			send := request
			if fields, ok := request.(body); ok && fields["slug"] == "fresh" {
				send = body{"slug": unused()}
			}
			c.Do(op.Method, path, send).OK()
			return action, ""
		}
	}
	session := func(t *testing.T) *person { return signIn(t, s, owner.email) }
	account := func() body { return body{"email": unused() + "@example.com", "password": thePassword} }
	redeemed := func(t *testing.T, path string) string {
		ref := "/v1/db/default/audited/branches/" + unused()
		admin.Do(http.MethodPut, ref, nil).OK()
		token := nobody.Post(path, body{"token": admin.Post(ref+"/pin", nil).OK().Str("data.token")}).OK().Str("data.token")
		return s.Client(t, token).Get("/v1/me").OK().Str("data.tokenId")
	}
	changes := map[string]change{
		"createDatabase":  plain("database.created", body{"slug": "fresh"}),
		"putDescriptions": plain("database.described", body{"databaseDescription": "x"}),
		"importDatabase":  plain("database.imported", harness.Raw("CREATE TABLE IF NOT EXISTS i(a);")),
		"setCaps":         plain("billing.caps_set", harness.Raw(`[{"scope":"namespace","window":"month","usd":1000}]`)),
		"addCredit":       plain("billing.credited", body{"usd": 5, "note": "audited"}),
		"createToken":     plain("token.created", body{}),
		"claimBranch":     plain("database.created", nil),
		"putBranch": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			return "database.created", c.Do(op.Method, strings.Replace(path, "{ref}", unused(), 1), nil).OK().Str("data.id")
		},
		"deleteBranch": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			ref := unused()
			id := admin.Do(http.MethodPut, "/v1/db/default/audited/branches/"+ref, nil).OK().Str("data.id")
			c.Do(op.Method, strings.Replace(path, "{ref}", ref, 1), nil).OK()
			return "database.deleted", id
		},
		"pinBranch": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			ref := unused()
			id := admin.Do(http.MethodPut, "/v1/db/default/audited/branches/"+ref, nil).OK().Str("data.id")
			c.Do(op.Method, strings.Replace(path, "{ref}", ref, 1), nil).OK()
			return "branch.pinned", id
		},
		"mergeBranch": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			ref := unused()
			admin.Do(http.MethodPut, "/v1/db/default/audited/branches/"+ref, nil).OK()
			c.Do(op.Method, strings.Replace(path, "{ref}", ref, 1), nil).OK()
			return "branch.merged", ""
		},
		"mergeBranchByName": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			ref := unused()
			admin.Do(http.MethodPut, "/v1/db/default/audited/branches/"+ref, nil).OK()
			c.Do(op.Method, path, body{"ref": ref}).OK()
			return "branch.merged", ""
		},
		"forkDatabase": plain("database.created", body{"slug": "fresh"}),
		"createBinding": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			return "identity.bound", c.Post(path, body{"repository": "audited/" + unused()}).OK().Str("data.id")
		},
		"deleteBinding": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := admin.Post("/v1/actions/bindings", body{"repository": "audited/" + unused()}).OK().Str("data.id")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "identity.unbound", id
		},
		"createOAuthApp": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			return "oauth_client.created", c.Post(path, body{"name": "app", "redirectUris": []string{"https://app.example.com/callback"}}).OK().Str("data.clientId")
		},
		"updateOAuthApp": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := anApp(t, admin, "")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), body{"name": "other"}).OK()
			return "oauth_client.updated", id
		},
		"deleteOAuthApp": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := anApp(t, admin, "")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "oauth_client.deleted", id
		},
		"rotateOAuthSecret": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := anApp(t, admin, "")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "oauth_client.secret_rotated", id
		},
		"createNamespace": plain("member.added", body{"slug": "fresh"}),
		"createUser": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			return "token.created", c.Post(path, body{"subject": unused()}).OK().Str("data.tokenId")
		},
		"loadCSV": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			c.Post(path+"?table="+unused(), harness.Raw("a\n1\n")).OK()
			return "database.csv_loaded", ""
		},
		"deleteDatabase": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			slug := unused()
			id := admin.Post("/v1/databases", body{"slug": slug}).OK().Str("data.id")
			c.Do(op.Method, strings.Replace(path, "/audited", "/"+slug, 1), nil).OK()
			return "database.deleted", id
		},
		"undeleteDatabase": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			slug := unused()
			id := admin.Post("/v1/databases", body{"slug": slug}).OK().Str("data.id")
			admin.Do(http.MethodDelete, "/v1/databases/"+slug, nil).OK()
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "database.undeleted", id
		},
		"createSnapshot": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			c.Post(path, body{"label": "x"}).OK()
			return "snapshot.created", ""
		},
		"deleteSnapshot": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := admin.Post("/v1/db/default/audited/snapshots", body{"label": "x"}).OK().Str("data.id")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "snapshot.deleted", ""
		},
		"restoreDatabase": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			c.Post(path, body{"timestamp": "2100-01-01"}).OK()
			return "database.restored", ""
		},
		"createPolicy": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			return "policy.created", c.Post(path, body{"name": unused(), "tableName": "ruled", "expression": "a = :auth_sub"}).OK().Str("data.id")
		},
		"deletePolicy": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := admin.Post("/v1/db/default/audited/policies", body{"name": unused(), "tableName": "ruled", "expression": "a = :auth_sub"}).OK().Str("data.id")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "policy.deleted", id
		},
		"createWebhook": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			return "webhook.created", c.Post(path, body{"name": "w", "url": "https://example.com/", "events": []string{"balance_low"}}).OK().Str("data.id")
		},
		"updateWebhook": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := aWebhook(t, admin, "audited")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), body{"enabled": false}).OK()
			return "webhook.updated", id
		},
		"deleteWebhook": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := aWebhook(t, admin, "audited")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "webhook.deleted", id
		},
		"rotateWebhookSecret": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := aWebhook(t, admin, "audited")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "webhook.secret_rotated", id
		},
		"replayWebhook": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := aWebhook(t, admin, "audited")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "webhook.replayed", id
		},
		"createSchedule": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			return "schedule.created", c.Post(path, body{"name": unused(), "sql": "SELECT 1", "intervalSec": 60}).OK().Str("data.id")
		},
		"changeSchedule": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := aSchedule(t, admin, "audited")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), body{"enabled": false}).OK()
			return "schedule.changed", id
		},
		"deleteSchedule": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := aSchedule(t, admin, "audited")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "schedule.deleted", id
		},
		"runSchedule": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := aSchedule(t, admin, "audited")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "schedule.run", id
		},
		"createApprovalRule": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			slug := unused() // any rule stops imports and restores
			admin.Post("/v1/databases", body{"slug": slug}).OK()
			path = strings.Replace(path, "/audited/", "/"+slug+"/", 1)
			return "approval_rule.created", c.Post(path, body{"tableGlob": unused(), "action": "deny"}).OK().Str("data.id")
		},
		"deleteApprovalRule": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := admin.Post("/v1/db/default/audited/approval-rules", body{"tableGlob": unused(), "action": "deny"}).OK().Str("data.id")
			path = strings.Replace(path, "{id}", id, 1)
			if a := c.Do(op.Method, path, nil); a.Status != http.StatusOK { // by a token it takes an approval
				token := holds(a)
				owner.Post("/api/approvals/"+token+"/approve", body{}).OK()
				c.Post("/v1/db/default/audited/redeem_approval", body{"approvalToken": token}).OK()
			}
			return "approval_rule.deleted", id
		},
		"approveApproval": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			a := heldRow(admin, "/v1/db/default/held/")
			c.Post(strings.Replace(path, "{token}", a.Str("approvalToken"), 1), nil).OK()
			return "approval.approved", a.Str("approvalId")
		},
		"denyApproval": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			a := heldRow(admin, "/v1/db/default/held/")
			c.Post(strings.Replace(path, "{token}", a.Str("approvalToken"), 1), nil).OK()
			return "approval.denied", a.Str("approvalId")
		},
		"redeemApproval": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			path = strings.Replace(path, "audited", "held", 1)
			before, _, _ := strings.Cut(path, "approvals/")
			a := heldRow(c, before)
			owner.Post("/api/approvals/"+a.Str("approvalToken")+"/approve", nil).OK()
			c.Post(strings.Replace(path, "{token}", a.Str("approvalToken"), 1), nil).OK()
			return "approval.redeemed", a.Str("approvalId")
		},
		"redeemNamedApproval": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			path = strings.Replace(path, "audited", "held", 1)
			a := heldRow(c, strings.TrimSuffix(path, "redeem_approval"))
			owner.Post("/api/approvals/"+a.Str("approvalToken")+"/approve", nil).OK()
			c.Post(path, body{"approvalToken": a.Str("approvalToken")}).OK()
			return "approval.redeemed", a.Str("approvalId")
		},
		"revokeToken": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			id := admin.Post("/v1/tokens", body{}).OK().Str("data.id")
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "token.revoked", id
		},
		"redeemHandoff": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			return "token.created", redeemed(t, path)
		},
		"redeem": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			return "token.created", redeemed(t, path)
		},
		"signIn": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			return "session.created", nobody.Post(path, body{"email": owner.email, "password": thePassword}).OK().Str("data.session.id")
		},
		"signOut": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			p := session(t)
			id := p.Get("/api/session").OK().Str("data.session.id")
			p.Do(op.Method, path, nil).OK()
			return "session.ended", id
		},
		"signOutEverywhere": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			p := enrol(t, s, unused()+"@example.com", "", "")
			id := p.Get("/api/session").OK().Str("data.session.id")
			p.Do(op.Method, path, nil).OK()
			return "session.ended", id
		},
		"signUp": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			nobody.Post(path, account()).OK()
			return "user.created", ""
		},
		"acceptInvitation": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			token, id := owner.invite("default", body{"role": "viewer"})
			nobody.Post(strings.Replace(path, "{token}", token, 1), account()).OK()
			return "invitation.accepted", id
		},
		"answerInvitation": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			token, id := owner.invite("default", body{"role": "viewer"})
			form := url.Values{"action": {"signup"}, "email": {unused() + "@example.com"}, "password": {thePassword}}
			nobody.Post(strings.Replace(path, "{token}", token, 1), harness.Raw(form.Encode()), formType).OK()
			return "invitation.accepted", id
		},
		"answerSignIn": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			form := url.Values{"email": {owner.email}, "password": {thePassword}}
			cookie := cookieOf(t, nobody.Post(path, harness.Raw(form.Encode()), formType))
			return "session.created", nobody.AsSession(cookie).Get("/api/session").OK().Str("data.session.id")
		},
		"answerSignOut": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			p := session(t)
			id := p.Get("/api/session").OK().Str("data.session.id")
			p.Post(path, harness.Raw(""), formType).OK()
			return "session.ended", id
		},
		"answerSignUp": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			form := url.Values{"email": {unused() + "@example.com"}, "password": {thePassword}}
			cookieOf(t, nobody.Post(path, harness.Raw(form.Encode()), formType))
			return "user.created", ""
		},
		"answerApproval": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			token, _ := hold(t, ruledShop(t, s, unused()), "DELETE FROM prod_users")
			leadsTo(t, sendForm(c, strings.Replace(path, "{token}", token, 1), url.Values{"decision": {"approve"}}), "/approve/"+token)
			return "approval.approved", ""
		},
		"deleteNamespace": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			slug := unused()
			id := c.Post("/api/namespaces", body{"slug": slug}).OK().Str("data.id")
			c.Do(op.Method, strings.Replace(path, "/default", "/"+slug, 1), nil).OK()
			return "namespace.deleted", id
		},
		"setMemberRole": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			p := enrol(t, s, unused()+"@example.com", "default", "viewer")
			c.Do(op.Method, strings.Replace(path, "{userId}", p.id, 1), body{"role": "editor"}).OK()
			return "member.role_changed", p.id
		},
		"removeMember": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			p := enrol(t, s, unused()+"@example.com", "default", "viewer")
			c.Do(op.Method, strings.Replace(path, "{userId}", p.id, 1), nil).OK()
			return "member.removed", p.id
		},
		"createInvitation": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			return "invitation.created", c.Post(path, body{"role": "viewer"}).OK().Str("data.id")
		},
		"revokeInvitation": func(t *testing.T, op *openapi.Operation, c *harness.Client, path string) (string, string) {
			_, id := owner.invite("default", body{"role": "viewer"})
			c.Do(op.Method, strings.Replace(path, "{id}", id, 1), nil).OK()
			return "invitation.revoked", id
		},
	}
	entries := func() (list []map[string]any) {
		for _, e := range s.JSONOf(t, "audit", "--limit", "100000")["entries"].([]any) {
			list = append(list, e.(map[string]any))
		}
		return list
	}
	tokenID := admin.Get("/v1/me").OK().Str("data.tokenId")
	for _, op := range harness.Operations() {
		name := strings.TrimSuffix(op.ID, "AsMember")
		if op.Method == http.MethodGet || unaudited[name] {
			continue
		}
		make := changes[name]
		if make == nil {
			t.Errorf("%s changes something, and is not looked at", op.ID)
			continue
		}
		t.Run(op.ID, func(t *testing.T) {
			before := len(entries())
			c, who, actor := admin, "token", tokenID
			if forPeople(op) {
				c, who, actor = owner.Client, "user", owner.id
			}
			path := strings.NewReplacer("{namespace}", "default", "{database}", "audited").Replace(op.Path)
			action, target := make(t, op, c.With(t), path)
			now := entries()
			for _, e := range now[:len(now)-before] { // the newest first
				of := e["target"].(map[string]any)
				by := e["actor"].(map[string]any)
				if e["action"] != action || target != "" && of["id"] != target {
					continue
				}
				if of["id"] == nil || of["id"] == "" || e["address"] != "127.0.0.1" {
					t.Errorf("%v: no target or address", e)
				}
				switch name {
				case "signUp", "answerSignUp", "acceptInvitation", "answerInvitation", "redeemHandoff", "redeem":
					who, actor = "anonymous", ""
				case "signOutEverywhere":
					actor = by["id"].(string) // another user
				}
				if id, _ := by["id"].(string); by["type"] != who || id != actor {
					t.Errorf("%v: not by %s %s", e, who, actor)
				}
				return
			}
			t.Errorf("no entry of %s %s among %v", action, target, now[:len(now)-before])
		})
	}

	// What is none of the document's calls.
	latest := func(action string) map[string]any {
		t.Helper()
		e := entries()[0]
		if e["action"] != action {
			t.Errorf("the latest entry is %v, want %s", e, action)
		}
		return e
	}
	nobody.Post("/api/session", body{"email": owner.email, "password": "wrong password"})
	if e := latest("session.refused"); e["actor"].(map[string]any)["type"] != "anonymous" || e["target"].(map[string]any)["id"] != owner.id || e["address"] != "127.0.0.1" {
		t.Errorf("%v", e)
	}
	nobody.Post("/api/session", body{"email": "nobody-in-particular@example.com", "password": "wrong password"})
	if e := latest("session.refused"); e["target"].(map[string]any)["id"] != nil {
		t.Errorf("%v", e)
	}
	s.JSONOf(t, "user", "reset-password", "--email", owner.email, "--password", thePassword)
	latest("user.password_reset")
	s.JSONOf(t, "user", "disable", "--email", owner.email)
	latest("user.disabled")
	s.JSONOf(t, "user", "enable", "--email", owner.email)
	latest("user.enabled")
	s.JSONOf(t, "user", "create", "--email", "last@example.com", "--password", thePassword)
	if e := latest("user.created"); e["actor"].(map[string]any)["type"] != "operator" {
		t.Errorf("%v", e)
	}
	s.JSONOf(t, "namespace", "create", "last")
	s.JSONOf(t, "namespace", "delete", "last")
	latest("namespace.deleted")
	// However many fail, the log doesn't grow with them.
	before, begin := len(entries()), time.Now()
	for range 100 {
		nobody.Post("/api/session", body{"email": "nobody@example.com", "password": "x"})
	}
	if n := len(entries()) - before; float64(n) > 31+30*time.Since(begin).Minutes() {
		t.Errorf("%d entries of 100 failed sign-ins", n)
	}
	// The log tells no address of strangers, no password, no secret.
	for _, bad := range []string{"nobody-in-particular", thePassword, "wrong password", owner.Cookie(), "pinv_", "$argon2id"} {
		out, _, _ := s.CLI(t, "audit", "--limit", "100000")
		if strings.Contains(out, bad) {
			t.Errorf("the log has %s", bad)
		}
	}
}
