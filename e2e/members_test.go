package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

func TestLadder(t *testing.T) {
	row(t, "DP-MEM-1", "DP-MEM-2", "DP-MEM-3", "DP-MEM-4", "DP-INV-6")
	s := people(t)
	actors := map[string]*person{}
	for _, role := range ladder {
		actors[role] = enrol(t, s, role+"@example.com", "default", role)
	}
	boss := enrol(t, s, "boss@example.com", "default", "owner")
	target := enrol(t, s, "target@example.com", "default", "viewer")
	const members = "/api/namespaces/default/members"
	at := members + "/" + target.id
	set := func(role string) { boss.Do(http.MethodPatch, at, body{"role": role}).OK().Is("data.role", role) }
	// What the contract says: admins manage viewers, editors and admins, owners all.
	may := func(actor, role string) bool { return actor == "owner" || actor == "admin" && role != "owner" }
	for _, actor := range ladder {
		a := actors[actor]
		if n := len(a.Get(members).OK().List("data")); n != 6 {
			t.Errorf("%s sees %d members", actor, n)
		}
		for _, now := range ladder {
			for _, role := range ladder {
				set(now)
				got := a.Do(http.MethodPatch, at, body{"role": role})
				if want := may(actor, now) && may(actor, role); want != (got.Status == http.StatusOK) {
					t.Errorf("%s makes a %s a %s: %d", actor, now, role, got.Status)
				} else if !want {
					got.Fails(http.StatusForbidden, "role_not_allowed")
					role = now
				}
				want := http.StatusOK
				if role == "viewer" || role == "editor" {
					want = http.StatusForbidden
				}
				if got := target.Get("/api/namespaces/default/tokens"); got.Status != want { // the very next request
					t.Errorf("after %s made a %s a %s: %d", actor, now, role, got.Status)
				}
			}
			set(now)
			got := a.Do(http.MethodDelete, at, nil)
			if want := may(actor, now); want != (got.Status == http.StatusOK) {
				t.Errorf("%s removes a %s: %d", actor, now, got.Status)
			} else if want {
				target.Get(members).Fails(http.StatusNotFound, "not_found")
				token, _ := boss.invite("default", body{"role": "viewer", "email": target.email})
				target.Post("/api/invitations/"+token+"/accept", nil).OK()
			}
			// Nobody makes by invitation what they may not make; nor ends one.
			got = a.Post("/api/namespaces/default/invitations", body{"role": now})
			if may(actor, now) != (got.Status == http.StatusOK) {
				t.Errorf("%s invites a %s: %d", actor, now, got.Status)
			} else if got.Status != http.StatusOK {
				got.Fails(http.StatusForbidden, "role_not_allowed")
			}
			_, id := boss.invite("default", body{"role": now})
			got = a.Do(http.MethodDelete, "/api/namespaces/default/invitations/"+id, nil)
			if may(actor, now) != (got.Status == http.StatusOK) {
				t.Errorf("%s ends an invitation of a %s: %d", actor, now, got.Status)
			}
		}
		// Nobody raises themselves.
		for _, role := range ladder[slices.Index(ladder, actor)+1:] {
			a.Do(http.MethodPatch, members+"/"+a.id, body{"role": role}).Fails(http.StatusForbidden, "role_not_allowed")
		}
		if got := a.Get("/api/namespaces/default/invitations"); (got.Status == http.StatusOK) != may(actor, "viewer") {
			t.Errorf("%s lists invitations: %d", actor, got.Status)
		}
	}
	for _, bad := range []body{{"role": "god"}, {"role": ""}, {}, {"role": "Owner"}, {"role": 5}, {"rôle": "viewer"}} {
		boss.Do(http.MethodPatch, at, bad).Fails(http.StatusBadRequest, "")
	}
	boss.Do(http.MethodPatch, members+"/usr_none", body{"role": "viewer"}).Fails(http.StatusNotFound, "not_found")
	boss.Do(http.MethodDelete, members+"/usr_none", nil).Fails(http.StatusNotFound, "not_found")
	actors["viewer"].Do(http.MethodDelete, members+"/usr_none", nil).Fails(http.StatusForbidden, "role_not_allowed")
	boss.Do(http.MethodPatch, at, harness.Raw(`{"role":"`+fmt.Sprintf("%064000d", 0)+`"}`)).Fails(http.StatusRequestEntityTooLarge, "request_too_large")
	// Everybody may leave.
	for _, role := range ladder {
		a := actors[role]
		a.Do(http.MethodDelete, members+"/"+a.id, nil).OK().Is("data.removed", "true")
		a.Get(members).Fails(http.StatusNotFound, "not_found")
	}
}

func TestRacingLastOwners(t *testing.T) {
	row(t, "DP-MEM-5", "DP-MEM-7")
	s := people(t)
	ada := enrol(t, s, "ada@example.com", "", "")
	const members = "/api/namespaces/ada/members/"
	ada.Do(http.MethodDelete, members+ada.id, nil).Fails(http.StatusConflict, "last_owner")
	ada.Do(http.MethodPatch, members+ada.id, body{"role": "admin"}).Fails(http.StatusConflict, "last_owner")
	ada.Do(http.MethodPatch, members+ada.id, body{"role": "owner"}).OK()
	bob := enrol(t, s, "bob@example.com", "ada", "owner")
	// A disabled owner is none.
	s.JSONOf(t, "user", "disable", "--email", "bob@example.com")
	ada.Do(http.MethodDelete, members+ada.id, nil).Fails(http.StatusConflict, "last_owner")
	ada.Do(http.MethodPatch, members+bob.id, body{"role": "viewer"}).OK() // who stays can sign in
	ada.Do(http.MethodPatch, members+bob.id, body{"role": "owner"}).OK()
	ada.Do(http.MethodDelete, members+bob.id, nil).OK()
	s.JSONOf(t, "user", "enable", "--email", "bob@example.com")
	back, _ := ada.invite("ada", body{"role": "owner"})
	accept(signIn(t, s, bob.email).Client, back, nil).OK()
	bob = signIn(t, s, bob.email)
	for round := range 20 {
		var left atomic.Int32
		parallel(t, 2, func(i int) {
			p := []*person{ada, bob}[i]
			method, request := http.MethodDelete, any(nil)
			if round%2 == 1 {
				method, request = http.MethodPatch, body{"role": "viewer"}
			}
			if a, err := p.Try(method, members+p.id, request); err == nil && a.Status == http.StatusOK {
				left.Add(1)
			}
		})
		if left.Load() != 1 {
			t.Fatalf("round %d: %d owners went", round, left.Load())
		}
		stayed, gone := ada, bob
		if a := ada.Get("/api/namespaces/ada/members"); a.Status != http.StatusOK || rolesOf(a)[ada.id] != "owner" {
			stayed, gone = bob, ada
		}
		if round%2 == 1 {
			stayed.Do(http.MethodPatch, members+gone.id, body{"role": "owner"}).OK()
			continue
		}
		gone.Get("/api/namespaces/ada/members").Fails(http.StatusNotFound, "not_found")
		token, _ := stayed.invite("ada", body{"role": "owner"})
		gone.Post("/api/invitations/"+token+"/accept", nil).OK()
	}
}

// TestNamespacesOfOthers makes each call of a namespace as somebody who is no member: it answers as one that isn't there, and does nothing.
func TestNamespacesOfOthers(t *testing.T) {
	row(t, "DP-MEM-7")
	s := people(t)
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	stranger := enrol(t, s, "stranger@example.com", "", "")
	_, id := owner.invite("default", body{"role": "viewer"})
	before := string(owner.Get("/api/namespaces/default/audit").OK().Raw)
	calls := 0
	for _, op := range harness.Operations() {
		if !strings.HasPrefix(op.Path, "/api/namespaces/{namespace}") || isTwin(op) {
			continue
		}
		calls++
		var request any
		if op.HasBody {
			request = body{"role": "viewer"}
		}
		var answers []string
		for _, namespace := range []string{"default", "nowhere", "%2e%2e", "Default"} {
			path := strings.NewReplacer("{namespace}", namespace, "{userId}", owner.id, "{id}", id).Replace(op.Path)
			answers = append(answers, withoutID(stranger.Do(op.Method, path, request).Fails(http.StatusNotFound, "not_found")))
		}
		if len(slices.Compact(answers)) != 1 {
			t.Errorf("%s: %v", op.ID, answers)
		}
	}
	if calls != 10 {
		t.Errorf("%d calls", calls)
	}
	after := owner.Get("/api/namespaces/default/audit").OK()
	if len(after.Raw) != len(before) {
		t.Errorf("something was done: %s", after.Raw)
	}
}

// rolesOf are the roles in a list of members, by the user's id.
func rolesOf(a *harness.Answer) map[string]string {
	roles := map[string]string{}
	for i := range a.List("data") {
		roles[a.Str(fmt.Sprintf("data.%d.user.id", i))] = a.Str(fmt.Sprintf("data.%d.role", i))
	}
	return roles
}

func TestRemovedMember(t *testing.T) {
	row(t, "DP-MEM-6")
	s := people(t)
	owner := enrol(t, s, "owner@example.com", "default", "owner")
	admin := enrol(t, s, "admin@example.com", "default", "admin")
	token := s.Client(t, admin.Post("/api/namespaces/default/tokens", body{"name": "lives on"}).OK().Str("data.token"))
	pocket, _ := admin.invite("default", body{"role": "admin"})
	low, _ := admin.invite("default", body{"role": "viewer"})
	other, _ := owner.invite("default", body{"role": "admin"})
	// Less: what he may make no more ends; here, all.
	owner.Do(http.MethodPatch, "/api/namespaces/default/members/"+admin.id, body{"role": "viewer"}).OK()
	for _, in := range []string{pocket, low} {
		admin.Post("/api/invitations/"+in+"/accept", nil).Fails(http.StatusNotFound, "not_found")
	}
	owner.Do(http.MethodDelete, "/api/namespaces/default/members/"+admin.id, nil).OK()
	admin.Get("/api/namespaces/default/databases").Fails(http.StatusNotFound, "not_found")
	admin.Get("/api/namespaces").OK().Is("data.0.slug", "admin")
	token.Get("/v1/databases").OK()
	admin.Post("/api/invitations/"+other+"/accept", nil).OK() // the owner's invitation
	admin.Get("/api/namespaces/default/databases").OK()
}

func TestNamespaces(t *testing.T) {
	row(t, "DP-NS-1", "DP-NS-2", "DP-NS-3")
	s := people(t, "PERSQLD_MAX_NAMESPACES=4")
	ada := enrol(t, s, "ada@example.com", "", "") // has one of her own
	bob := enrol(t, s, "bob@example.com", "", "")
	ada.Post("/api/namespaces", body{"slug": "acme"}).OK().Is("data.role", "owner")
	ada.Get("/api/namespaces").OK().Is("data.0.slug", "acme").Is("data.1.slug", "ada")
	bob.Post("/api/namespaces", body{"slug": "acme"}).Fails(http.StatusConflict, "slug_taken")
	for _, bad := range []string{"", "Acme", "-a", "a_b", "v1", "api", "invite", "ä", "a/b"} {
		ada.Post("/api/namespaces", body{"slug": bad}).Fails(http.StatusBadRequest, "invalid_slug")
	}
	ada.Post("/api/namespaces", harness.Raw(`{"slug":"`+fmt.Sprintf("%064000d", 0)+`"}`)).Fails(http.StatusRequestEntityTooLarge, "request_too_large")
	ada.Post("/api/namespaces", body{"slug": "two"}).OK()
	ada.Post("/api/namespaces", body{"slug": "three"}).OK()
	ada.Post("/api/namespaces", body{"slug": "four"}).Fails(http.StatusConflict, "too_many_namespaces").Tells("PERSQLD_MAX_NAMESPACES")
	// Who gives one away has made it nevertheless.
	token, _ := ada.invite("three", body{"role": "owner"})
	bob.Post("/api/invitations/"+token+"/accept", nil).OK()
	ada.Do(http.MethodDelete, "/api/namespaces/three/members/"+ada.id, nil).OK()
	ada.Post("/api/namespaces", body{"slug": "four"}).Fails(http.StatusConflict, "too_many_namespaces")
	bob.Do(http.MethodDelete, "/api/namespaces/three", nil).OK().Is("data.databases", "0")
	ada.Post("/api/namespaces", body{"slug": "four"}).OK()

	ada.Do(http.MethodDelete, "/api/namespaces/ada?force=perhaps", nil).Fails(http.StatusBadRequest, "bad_request")
	ada.Do(http.MethodDelete, "/api/namespaces/ada", nil).Fails(http.StatusConflict, "namespace_not_empty").Tells("force=true")
	bob.Do(http.MethodDelete, "/api/namespaces/ada?force=true", nil).Fails(http.StatusNotFound, "not_found")
	for _, role := range ladder[:3] {
		token, _ := ada.invite("ada", body{"role": role})
		bob.Post("/api/invitations/"+token+"/accept", nil).OK()
		bob.Do(http.MethodDelete, "/api/namespaces/ada?force=true", nil).Fails(http.StatusForbidden, "role_not_allowed")
		bob.Do(http.MethodDelete, "/api/namespaces/ada/members/"+bob.id, nil).OK()
	}
	ada.Do(http.MethodDelete, "/api/namespaces/ada?force=true", nil).OK().Is("data.deleted", "true").Is("data.databases", "1")
	ada.Do(http.MethodDelete, "/api/namespaces/ada?force=true", nil).Fails(http.StatusNotFound, "not_found")
	// Her own one is not made again.
	signIn(t, s, "ada@example.com").Get("/api/namespaces").OK().Is("data.0.slug", "acme").Is("data.1.slug", "four")
}

// TestDeletedNamespace looks for everything that a namespace could leave to the next one of its slug.
func TestDeletedNamespace(t *testing.T) {
	row(t, "DP-NS-4")
	s := people(t)
	ada := enrol(t, s, "ada@example.com", "", "")
	eve := enrol(t, s, "eve@example.com", "ada", "admin")
	const ns = "/api/namespaces/ada"
	ada.Post(ns+"/databases/main/query", harness.Body("CREATE TABLE secret(a)")).OK()
	trashed := ada.Post(ns+"/databases", body{"slug": "old"}).OK().Str("data.id")
	ada.Do(http.MethodDelete, ns+"/databases/old", nil).OK()
	token := s.Client(t, eve.Post(ns+"/tokens", body{}).OK().Str("data.token"))
	pinned := s.Client(t, eve.Post(ns+"/tokens", body{"database": "main"}).OK().Str("data.token"))
	tokenID := eve.Get(ns + "/tokens?limit=1").OK().Str("data.0.id")
	invitation, invitationID := eve.invite("ada", body{"role": "admin"})
	id := ada.Get(ns + "/databases/main").OK().Str("data.id")
	ada.Do(http.MethodDelete, ns+"?force=true", nil).OK()

	gone := func(c *harness.Client) {
		t.Helper()
		refused(t, c.Get("/v1/me"), "Invalid or expired token")
		refused(t, c.Post("/v1/db/ada/main/query", harness.Body("SELECT * FROM secret")), "Invalid or expired token")
	}
	check := func() {
		t.Helper()
		gone(token)
		gone(pinned)
		eve.Get(ns+"/databases").Fails(http.StatusNotFound, "not_found")
		eve.Post("/api/invitations/"+invitation+"/accept", nil).Fails(http.StatusNotFound, "not_found")
	}
	check()
	ada.Get(ns+"/databases").Fails(http.StatusNotFound, "not_found")
	// A new one of the slug is somebody else's.
	bob := enrol(t, s, "bob@example.com", "", "")
	bob.Post("/api/namespaces", body{"slug": "ada"}).OK()
	for range 2 {
		check()
		ada.Get(ns+"/databases").Fails(http.StatusNotFound, "not_found")
		for _, q := range []string{"", "?deleted=true"} {
			if n := len(bob.Get(ns + "/databases" + q).OK().List("data")); n != 0 {
				t.Errorf("%d databases%s", n, q)
			}
		}
		if n := len(bob.Get(ns + "/members").OK().List("data")); n != 1 {
			t.Errorf("%d members", n)
		}
		if n := len(bob.Get(ns + "/tokens").OK().List("data")); n != 0 {
			t.Errorf("%d tokens", n)
		}
		bob.Get(ns+"/audit").OK().Is("data.0.action", "member.added").Is("data.1.action", "namespace.created").Is("data.2", "null")
		for _, old := range []string{id, trashed} {
			bob.Post(ns+"/databases/"+old+"/undelete", nil).Fails(http.StatusNotFound, "not_found")
		}
		bob.Do(http.MethodDelete, ns+"/tokens/"+tokenID, nil).Fails(http.StatusNotFound, "not_found")
		bob.Do(http.MethodDelete, ns+"/invitations/"+invitationID, nil).Fails(http.StatusNotFound, "not_found")
		s.Kill()
		s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: quick})
		ada, eve, bob = signIn(t, s, ada.email), signIn(t, s, eve.email), signIn(t, s, bob.email)
		token, pinned = s.Client(t, token.Token()), s.Client(t, pinned.Token())
	}
	bob.Post(ns+"/databases/main/query", harness.Body("SELECT * FROM secret")).Fails(http.StatusBadRequest, "unknown_table")

	// What it had can be brought back by the operator, into a namespace that is there.
	found := false
	for _, e := range s.JSONOf(t, "database", "list", "--deleted")["databases"].([]any) {
		if e := e.(map[string]any); e["id"] == id {
			found = e["namespace"] == "ada" && e["namespaceDeleted"] == true
		}
	}
	if !found {
		t.Error("the trash of the deleted namespace is not listed")
	}
	if _, errs, code := s.CLI(t, "database", "undelete", id); code != 1 || !strings.Contains(errs, "--namespace") {
		t.Errorf("undelete without a namespace: %d %s", code, errs)
	}
	s.JSONOf(t, "database", "undelete", id, "--namespace", "default", "--slug", "rescued")
	s.Client(t, harness.Token).DB("rescued").Must("SELECT * FROM secret")
	bob.Get(ns+"/databases/rescued").Fails(http.StatusNotFound, "not_found")
	s.Client(t, harness.Token).Do(http.MethodDelete, "/v1/databases/rescued", nil).OK()
	s.Client(t, harness.Token).Post("/v1/databases/"+id+"/undelete", nil).OK()
	s.Client(t, harness.Token).DB("rescued").Must("DROP TABLE secret")
	s.Client(t, harness.Token).Do(http.MethodDelete, "/v1/databases/rescued", nil).OK()

	// By the command line, with and without a server; the server's own namespace is made anew, and its token let in.
	if _, errs, code := s.CLI(t, "namespace", "delete", "ada"); code != 1 {
		t.Errorf("without --force: %d %s", code, errs)
	}
	s.JSONOf(t, "namespace", "delete", "ada", "--force")
	bob.Get(ns+"/databases").Fails(http.StatusNotFound, "not_found")
	s.Client(t, harness.Token).Post("/v1/databases", body{"slug": "x"}).OK()
	s.Stop(t)
	if got := s.JSONOf(t, "namespace", "delete", "default", "--force")["databases"]; got != float64(1) {
		t.Errorf("%v databases", got)
	}
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: quick})
	if n := len(s.Client(t, harness.Token).Get("/v1/databases").OK().List("data")); n != 0 {
		t.Errorf("the new namespace has %d databases", n)
	}
	s.Stop(t)
	if out, errs, code := s.CLI(t, "doctor"); code != 0 {
		t.Errorf("doctor: %d %s%s", code, out, errs)
	}
}

// TestCrashDuringNamespaceDeletion kills the server while namespaces are deleted: each is whole, or gone.
func TestCrashDuringNamespaceDeletion(t *testing.T) {
	row(t, "DP-NS-4")
	s := people(t, "PERSQLD_MAX_NAMESPACES=1000")
	const count = 40
	ada := enrol(t, s, "ada@example.com", "", "")
	tokens := map[string]string{}
	for i := range count {
		slug := fmt.Sprint("ns-", i)
		ada.Post("/api/namespaces", body{"slug": slug}).OK()
		for _, name := range []string{"a", "b"} {
			ada.Post("/api/namespaces/"+slug+"/databases", body{"slug": name}).OK()
		}
		tokens[slug] = ada.Post("/api/namespaces/"+slug+"/tokens", body{}).OK().Str("data.token")
	}
	var answered [count]atomic.Bool
	done := make(chan struct{})
	some := make(chan struct{})
	go func() {
		defer close(done)
		for i := range count {
			a, err := ada.Try(http.MethodDelete, fmt.Sprint("/api/namespaces/ns-", i, "?force=true"), nil)
			if err != nil {
				return
			}
			if a.Status == http.StatusOK {
				answered[i].Store(true)
			}
			if i == count/4 {
				close(some)
			}
		}
	}()
	<-some
	s.Kill()
	<-done
	s = harness.Start(t, binary, harness.Options{Data: s.Data, Env: quick})
	ada = signIn(t, s, ada.email)
	whole := 0
	for i := range count {
		slug := fmt.Sprint("ns-", i)
		there := ada.Get("/api/namespaces/" + slug + "/databases")
		token := s.Client(t, tokens[slug]).Get("/v1/databases")
		switch {
		case there.Status == http.StatusOK && token.Status == http.StatusOK && len(there.List("data")) == 2 && len(token.List("data")) == 2 && !answered[i].Load():
			whole++
		case there.Status == http.StatusNotFound && token.Status == http.StatusUnauthorized:
		default:
			t.Errorf("%s: %d, its token %d, answered %v", slug, there.Status, token.Status, answered[i].Load())
		}
	}
	t.Logf("%d of %d are whole", whole, count)
}
