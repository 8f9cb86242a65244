package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// quick are settings with which many sign-ins take little time.
var quick = []string{"PERSQLD_SIGN_IN_PER_ADDRESS=1000000", "PERSQLD_SIGN_IN_PER_ACCOUNT=1000000", "PERSQLD_PASSWORD_MEMORY=8MiB", "PERSQLD_PASSWORD_PASSES=1", "PERSQLD_PASSWORD_CHECKS=8"}

// people starts a server for tests of accounts.
func people(t testing.TB, env ...string) *harness.Server {
	t.Helper()
	return harness.Start(t, binary, harness.Options{Env: append(append([]string{}, quick...), env...)})
}

const thePassword = "correct horse battery"

// person is somebody who is signed in.
type person struct {
	*harness.Client
	t     testing.TB
	id    string
	email string
}

// enrol makes a user by the command line, a member of the namespace unless that is empty, and signs in.
func enrol(t testing.TB, s *harness.Server, email, namespace, role string) *person {
	t.Helper()
	args := []string{"user", "create", "--email", email, "--password", thePassword}
	if namespace != "" {
		args = append(args, "--namespace", namespace, "--role", role)
	}
	s.JSONOf(t, args...)
	return signIn(t, s, email)
}

// signIn signs in with thePassword.
func signIn(t testing.TB, s *harness.Server, email string) *person {
	t.Helper()
	c := s.Client(t, "")
	a := c.Post("/api/session", body{"email": email, "password": thePassword}).OK()
	return &person{Client: c.AsSession(cookieOf(t, a)), t: t, id: a.Str("data.user.id"), email: email}
}

// cookieOf is the value of the session's cookie that an answer sets.
func cookieOf(t testing.TB, a *harness.Answer) string {
	t.Helper()
	for _, c := range (&http.Response{Header: a.Header}).Cookies() {
		if c.Name == "persql_session" && c.Value != "" {
			return c.Value
		}
	}
	t.Fatalf("%s: no cookie in %v", a.What, a.Header["Set-Cookie"])
	return ""
}

// signedOut checks that an answer says that nobody is signed in.
func signedOut(t testing.TB, a *harness.Answer) {
	t.Helper()
	a.Fails(http.StatusUnauthorized, "unauthorized")
	if got := a.Header.Get("WWW-Authenticate"); got != `Cookie cookie-name="persql_session"` {
		t.Errorf("%s: WWW-Authenticate %q", a.What, got)
	}
}

// invited makes an invitation and returns its token and id.
func (p *person) invite(namespace string, request body) (token, id string) {
	p.t.Helper()
	a := p.Post("/api/namespaces/"+namespace+"/invitations", request).OK()
	if !strings.HasSuffix(a.Str("data.url"), "/invite/"+a.Str("data.token")) {
		p.t.Errorf("the link %s doesn't end in the token", a.Str("data.url"))
	}
	return a.Str("data.token"), a.Str("data.id")
}
