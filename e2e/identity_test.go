package e2e_test

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/identity/identitytest"
)

// trusts are the settings of a server that trusts issuers of tests; more are further members of each entry.
func trusts(more string, issuers ...*identitytest.Issuer) []string {
	var entries []string
	for _, is := range issuers {
		entries = append(entries, fmt.Sprintf(`{"issuer":%q,"audience":"persql","identity":"{repository}"%s}`, is.URL, more))
	}
	return []string{"PERSQLD_TRUSTED_ISSUERS=[" + strings.Join(entries, ",") + "]", "PERSQLD_ALLOW_NETWORKS=127.0.0.0/8"}
}

// trusting is a server that trusts issuers.
func trusting(t testing.TB, more string, issuers []*identitytest.Issuer, env ...string) *harness.Server {
	t.Helper()
	return harness.Start(t, binary, harness.Options{Env: append(append(trusts(more, issuers...), quick...), env...)})
}

const (
	federatePath = "/v1/identity/federate"
	connectPath  = "/v1/actions/connect"
)

func federate(t testing.TB, s *harness.Server, token string) *harness.Answer {
	t.Helper()
	return s.Client(t, token).Post(federatePath, nil)
}

// oidcRefused checks that a token was refused, as clients know it.
func oidcRefused(t testing.TB, a *harness.Answer, why string) {
	t.Helper()
	a.Fails(http.StatusUnauthorized, "unauthorized").Tells("OIDC", why)
	if a.Header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("%s: WWW-Authenticate %q", a.What, a.Header.Get("WWW-Authenticate"))
	}
}

func TestFederate(t *testing.T) {
	row(t, "DP-MID-1", "DP-MID-14")
	is := identitytest.New(t)
	s := trusting(t, "", []*identitytest.Issuer{is}, prepaid("PERSQLD_WELCOME_CREDIT=7", "PERSQLD_BASE_URL=https://sql.example.com/")...)
	oidcToken := is.Token("acme/shop", "7", nil)
	first := federate(t, s, oidcToken).OK()
	ns := first.Str("data.namespace")
	first.Is("data.database", "main").Is("data.identity", "acme/shop").Is("data.created", "true").Is("data.url", "https://sql.example.com/v1/db/"+ns+"/main")
	if first.Header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(ns, "acme-shop-") {
		t.Errorf("Cache-Control %q, namespace %s", first.Header.Get("Cache-Control"), ns)
	}
	ends, err := time.Parse(time.RFC3339, first.Str("data.expiresAt"))
	if left := time.Until(ends); err != nil || left < 59*time.Minute || left > time.Hour {
		t.Errorf("it lasts %v, %v", left, err)
	}
	// The same token again, and another one, are the same machine.
	for _, token := range []string{oidcToken, is.Token("acme/shop", "7", nil)} {
		again := federate(t, s, token).OK().Is("data.created", "false").Is("data.namespace", ns)
		if again.Str("data.token") == first.Str("data.token") {
			t.Error("the same token twice")
		}
	}
	c := s.Client(t, first.Str("data.token"))
	c.Post("/v1/db/"+ns+"/main/query", harness.Body("CREATE TABLE t(a)")).OK()
	c.Post("/v1/databases", body{"slug": "second"}).OK()
	c.Get("/v1/me").OK().Is("data.role", "admin").Is("data.namespaceSlug", ns)
	c.Get("/v1/billing/balance").OK().Tells("7")
	// It opens nothing of others.
	c.Post("/v1/db/default/main/query", harness.Body("SELECT 1")).Fails(http.StatusForbidden, "forbidden")
	// An API token is no OIDC token, nor the other way round.
	oidcRefused(t, federate(t, s, harness.Token), "")
	oidcRefused(t, federate(t, s, ""), "there is none")
	s.Client(t, oidcToken).Get("/v1/me").Fails(http.StatusUnauthorized, "unauthorized")
	// No body, no length, no content type, as curl -X POST sends it; and a body that nobody asked for.
	for _, request := range []string{"\r\n", "Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Content-Length: 2\r\n\r\n{}"} {
		conn, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: bearer %s\r\n%s", federatePath, oidcToken, request)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Errorf("%q: %v %v", request, answer, err)
		}
		conn.Close()
	}
	s.Client(t, oidcToken).Post(federatePath, nil, "Plan-Key: x", "Plan-Step: 1").Fails(http.StatusBadRequest, "invalid_idempotency_key")
}

func TestRacingFederationsMakeOneNamespace(t *testing.T) {
	row(t, "DP-MID-12")
	is := identitytest.New(t)
	s := trusting(t, "", []*identitytest.Issuer{is})
	var all sync.WaitGroup
	var made atomic.Int64
	var namespaces sync.Map
	for i := range 30 {
		name := "acme/shop"
		if i%2 == 1 {
			name = "Acme/SHOP" // the same machine
		}
		token := is.Token(name, "7", map[string]any{"repository_owner_id": "1"})
		all.Go(func() {
			a := federate(t, s, token)
			if a.Status != http.StatusOK {
				t.Errorf("%d %s", a.Status, a.Raw)
				return
			}
			if a.At("data.created") == true {
				made.Add(1)
			}
			namespaces.Store(a.Str("data.namespace"), true)
		})
	}
	all.Wait()
	n := 0
	namespaces.Range(func(any, any) bool { n++; return true })
	if made.Load() != 1 || n != 1 {
		t.Errorf("%d calls made it, %d namespaces", made.Load(), n)
	}
	if files, err := filepath.Glob(filepath.Join(s.Data, "databases", "*", "*.db")); err == nil && len(files) > 1 {
		t.Errorf("%d files of databases: %v", len(files), files)
	}
	// Somebody who makes the namespace of a name first doesn't get who comes, and whoever comes doesn't get that.
	taken := is.Token("beta/app", "9", nil)
	slug := federate(t, trusting(t, "", []*identitytest.Issuer{is}), taken).OK().Str("data.namespace") // what it would be called
	s.JSONOf(t, "namespace", "create", slug)
	a := federate(t, s, taken).OK().Is("data.created", "true")
	if got := a.Str("data.namespace"); got == slug || !strings.HasPrefix(got, "beta-app-") {
		t.Errorf("namespace %s, where %s is somebody else's", got, slug)
	}
	// Two names whose slugs would be alike are two.
	one, two := federate(t, s, is.Token("a/b-c", "21", nil)).OK(), federate(t, s, is.Token("a-b/c", "22", nil)).OK()
	if one.Str("data.namespace") == two.Str("data.namespace") {
		t.Error("two machines have one namespace")
	}
}

func TestConnect(t *testing.T) {
	row(t, "DP-MID-2", "DP-MID-3", "DP-MID-14")
	is := identitytest.New(t)
	s := trusting(t, "", []*identitytest.Issuer{is}, append(keepsHistory, "PERSQLD_BASE_URL=https://sql.example.com")...)
	admin := s.Client(t, harness.Token)
	job := func(repository, id string) *harness.Answer {
		return s.Client(t, is.Token(repository, id, nil)).Post(connectPath, nil)
	}
	job("acme/shop", "7").Fails(http.StatusForbidden, "identity_not_bound").Tells("persqld identity bind")
	b := admin.Post("/v1/actions/bindings", body{"repository": "acme/shop"}).OK().Is("data.repository", "acme/shop").Is("data.issuer", "null").Is("data.database", "null")
	// A database of the name that somebody else made is not given away.
	admin.Post("/v1/databases", body{"slug": "acme-shop"}).OK()
	a := job("acme/shop", "7").OK().Is("data.namespace", "default")
	slug := a.Str("data.database")
	if slug == "acme-shop" || !strings.HasPrefix(slug, "acme-shop-") || a.Str("data.url") != "https://sql.example.com/v1/db/default/"+slug {
		t.Errorf("database %s, url %s", slug, a.Str("data.url"))
	}
	job("Acme/Shop", "7").Fails(http.StatusForbidden, "identity_mismatch") // of an owner with another id
	again := job("acme/shop", "7").OK().Is("data.database", slug)
	c := s.Client(t, again.Str("data.token"))
	db := "/v1/db/default/" + slug + "/"
	c.Post(db+"query", harness.Body("CREATE TABLE t(a)")).OK()
	claimed := c.Post(db+"claim_branch", body{"ref": "pr-1", "ttlSec": 600}).OK()
	s.Client(t, claimed.Str("data.token")).Post("/v1/db/default/"+claimed.Str("data.databaseSlug")+"/query", harness.Body("INSERT INTO t VALUES(1)")).OK()
	c.Do(http.MethodDelete, db+"branches/pr-1", nil).OK()
	// It opens that database and nothing else.
	c.Post("/v1/db/default/acme-shop/query", harness.Body("SELECT 1")).Fails(http.StatusForbidden, "forbidden")
	c.Post("/v1/tokens", body{}).Fails(http.StatusForbidden, "")
	c.Post("/v1/actions/bindings", body{"repository": "evil/repo"}).Fails(http.StatusForbidden, "")
	c.Get("/v1/actions/bindings").Fails(http.StatusForbidden, "")
	c.Do(http.MethodDelete, "/v1/actions/bindings/"+b.Str("data.id"), nil).Fails(http.StatusForbidden, "")
	c.Get("/v1/me").OK().Is("data.role", "admin").Is("data.scope.database", slug)
	admin.Get("/v1/actions/bindings").OK().Is("data.0.database", slug).Is("data.0.issuer", is.URL).Is("data.0.repositoryId", "7")

	// One repository, one namespace; the same again changes nothing.
	admin.Post("/v1/actions/bindings", body{"repository": "ACME/shop"}).OK().Is("data.id", b.Str("data.id"))
	s.JSONOf(t, "namespace", "create", "rival")
	_, rivalToken := newToken(t, s, "--namespace", "rival")
	rival := s.Client(t, rivalToken)
	for _, request := range []body{{"repository": "acme/shop"}, {"repository": "Acme/Shop", "issuer": is.URL}} {
		rival.Post("/v1/actions/bindings", request).Fails(http.StatusConflict, "identity_bound")
	}
	// Naming the issuer is no way to come before a binding that leaves it open.
	admin.Post("/v1/actions/bindings", body{"repository": "acme/open"}).OK()
	rival.Post("/v1/actions/bindings", body{"repository": "acme/open", "issuer": is.URL}).Fails(http.StatusConflict, "identity_bound")
	rival.Get("/v1/actions/bindings").OK().Is("data", "[]")
	rival.Do(http.MethodDelete, "/v1/actions/bindings/"+b.Str("data.id"), nil).Fails(http.StatusNotFound, "not_found")

	s.Client(t, is.Token("acme/shop", "7", nil)).Post(connectPath, nil, "Plan-Key: x", "Plan-Step: 1").Fails(http.StatusBadRequest, "invalid_idempotency_key")
	for _, bad := range []any{body{}, body{"repository": "a b"}, body{"repository": strings.Repeat("x", 300)}, body{"repository": "a/b", "issuer": "https://evil.example"}, body{"repository": "a/b", "isuer": "x"},
		body{"repository": "a/b", "repositoryId": strings.Repeat("1", 300)}, harness.Raw("[]"), harness.Raw("null")} {
		admin.Post("/v1/actions/bindings", bad).Fails(http.StatusBadRequest, "")
	}
	admin.Post("/v1/actions/bindings", body{"repository": "acme/idd", "repositoryId": "5"}).OK()
	job("acme/idd", "6").Fails(http.StatusForbidden, "identity_mismatch")
	job("acme/idd", "5").OK()
	admin.Post("/v1/actions/bindings", body{"repository": "acme/idd", "repositoryId": "6"}).Fails(http.StatusConflict, "identity_bound")
	test := s.Client(t, admin.Post("/v1/tokens", body{"test": true}).OK().Str("data.token"))
	test.Post("/v1/actions/bindings", body{"repository": "x/y"}).Fails(http.StatusForbidden, "forbidden")
	test.Do(http.MethodDelete, "/v1/actions/bindings/"+b.Str("data.id"), nil).Fails(http.StatusForbidden, "forbidden")

	// A deleted database is made anew, without touching the one in the trash.
	admin.Do(http.MethodDelete, "/v1/databases/"+slug, nil).OK()
	refreshed := job("acme/shop", "7").OK().Str("data.database")
	if refreshed == slug {
		t.Errorf("%s is that in the trash", refreshed)
	}
	c.Post(db+"query", harness.Body("SELECT 1")).Fails(http.StatusForbidden, "forbidden")

	// Unbound, the tokens end at once; the database stays.
	c = s.Client(t, job("acme/shop", "7").OK().Str("data.token"))
	c.Get("/v1/me").OK()
	admin.Do(http.MethodDelete, "/v1/actions/bindings/"+b.Str("data.id"), nil, "Plan-Key: x").Fails(http.StatusBadRequest, "invalid_idempotency_key")
	admin.Do(http.MethodDelete, "/v1/actions/bindings/"+b.Str("data.id"), nil).OK().Is("data.deleted", "true").Is("data.tokensEnded", "4")
	c.Get("/v1/me").Fails(http.StatusUnauthorized, "unauthorized")
	job("acme/shop", "7").Fails(http.StatusForbidden, "identity_not_bound")
	admin.Get("/v1/databases/" + refreshed).OK()
	admin.Do(http.MethodDelete, "/v1/actions/bindings/"+b.Str("data.id"), nil).Fails(http.StatusNotFound, "not_found")
}

func TestRacingConnectsMakeOneDatabase(t *testing.T) {
	row(t, "DP-MID-2")
	is := identitytest.New(t)
	s := trusting(t, "", []*identitytest.Issuer{is})
	s.Client(t, harness.Token).Post("/v1/actions/bindings", body{"repository": "acme/shop"}).OK()
	var all sync.WaitGroup
	var slugs sync.Map
	for range 30 {
		token := is.Token("acme/shop", "7", nil)
		all.Go(func() {
			slugs.Store(s.Client(t, token).Post(connectPath, nil).Str("data.database"), true)
		})
	}
	all.Wait()
	slugs.Range(func(slug, _ any) bool {
		if slug != "acme-shop" {
			t.Errorf("database %q", slug)
		}
		return true
	})
}

// TestOIDCAttacks sends what must not let anybody in, to all that take such a token.
func TestOIDCAttacks(t *testing.T) {
	row(t, "DP-MID-7", "DP-MID-8")
	is, other := identitytest.New(t), identitytest.New(t)
	s := trusting(t, "", []*identitytest.Issuer{is, other})
	s.Client(t, harness.Token).Post("/v1/actions/bindings", body{"repository": "acme/shop"}).OK()
	k := is.Key()
	der, err := x509.MarshalPKIXPublicKey(k.Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	claims := func(change map[string]any) map[string]any { return is.Claims("acme/shop", "7", change) }
	sign := func(change map[string]any) string {
		return identitytest.Sign(k, map[string]any{"alg": "RS256", "kid": k.ID}, claims(change))
	}
	stranger := identitytest.NewRSA(t, k.ID, 2048)
	now := time.Now()
	for name, token := range map[string]string{
		"alg none":                 identitytest.Unsigned(claims(nil)),
		"HS256 by the PEM":         identitytest.HMAC(public, map[string]any{"alg": "HS256", "kid": k.ID}, claims(nil)),
		"HS256 as RS256":           identitytest.HMAC(public, map[string]any{"alg": "RS256", "kid": k.ID}, claims(nil)),
		"a stranger's key":         identitytest.Sign(stranger, map[string]any{"alg": "RS256", "kid": k.ID}, claims(nil)),
		"a key in the header":      identitytest.Sign(stranger, map[string]any{"alg": "RS256", "kid": k.ID, "jwk": stranger.JWK()}, claims(nil)),
		"another issuer's key":     other.Token("acme/shop", "7", map[string]any{"iss": is.URL}),
		"kid is a path":            identitytest.Sign(k, map[string]any{"alg": "RS256", "kid": "../../../dev/null"}, claims(nil)),
		"issuer with a suffix":     sign(map[string]any{"iss": is.URL + ".evil.example"}),
		"issuer with a prefix":     sign(map[string]any{"iss": "http://evil.example/" + is.URL}),
		"issuer with a slash":      sign(map[string]any{"iss": is.URL + "/"}),
		"another audience":         sign(map[string]any{"aud": "sts.amazonaws.com"}),
		"expired":                  sign(map[string]any{"exp": now.Add(-time.Minute).Unix()}),
		"not yet valid":            sign(map[string]any{"nbf": now.Add(2 * time.Minute).Unix()}),
		"without an end":           sign(map[string]any{"exp": nil}),
		"a name that looks alike":  sign(map[string]any{"repository": "acme/shоp"}),
		"GitHub's, which it isn't": identitytest.Sign(k, map[string]any{"alg": "RS256", "kid": k.ID}, claims(map[string]any{"iss": "https://evil.example"})),
		"too long":                 sign(map[string]any{"x": strings.Repeat("x", 20_000)}),
	} {
		oidcRefused(t, federate(t, s, token), "")
		oidcRefused(t, s.Client(t, token).Post(connectPath, nil), "")
		oidcRefused(t, askAgent(t, s, agentBody(token)), "")
		if t.Failed() {
			t.Fatal(name)
		}
	}
	// A storm of unknown keys has the issuer asked once in 10 s, and keeps nobody out.
	federate(t, s, is.Token("acme/shop", "7", nil)).OK()
	before, begin := is.Fetches(), time.Now()
	for i := range 60 {
		oidcRefused(t, federate(t, s, identitytest.Sign(k, map[string]any{"alg": "RS256", "kid": fmt.Sprint("k", i)}, claims(nil))), "does not have")
	}
	if n := is.Fetches() - before; float64(n) > 1+time.Since(begin).Seconds()/10 {
		t.Errorf("%d look-ups in %v", n, time.Since(begin))
	}
	federate(t, s, is.Token("acme/shop", "7", nil)).OK()
	// What was refused is in the log, and no token is.
	log := s.Log()
	if !strings.Contains(log, "a token of a machine was refused") || strings.Contains(log, "eyJ") || strings.Contains(log, "psql_live_p1_") {
		t.Errorf("the log: %s", harness.Tail(log, 3000))
	}
}

func TestIssuerRotates(t *testing.T) {
	row(t, "DP-MID-8")
	is := identitytest.New(t)
	s := trusting(t, "", []*identitytest.Issuer{is})
	first := is.Key()
	federate(t, s, is.Token("acme/shop", "7", nil)).OK()
	is.SetKeys(identitytest.NewEC(t, "key-2"), first)
	token := is.Token("acme/shop", "7", nil)
	if !eventually(t, time.Minute, func() bool { return federate(t, s, token).Status == http.StatusOK }) {
		t.Error("the new key was not found")
	}
	federate(t, s, identitytest.Sign(first, map[string]any{"alg": "RS256", "kid": first.ID}, is.Claims("acme/shop", "7", nil))).OK()
}

// TestKeyLookupsGoNowhereElse has issuers whose documents lead the server elsewhere.
func TestKeyLookupsGoNowhereElse(t *testing.T) {
	row(t, "DP-MID-9")
	inner := identitytest.New(t) // what should not be reached
	lies := map[string]*identitytest.Issuer{}
	for _, name := range []string{"redirect", "keys redirect", "metadata", "private", "huge", "slow"} {
		lies[name] = identitytest.New(t)
	}
	say := func(name, jwks string) {
		is := lies[name]
		is.Lie(func(w http.ResponseWriter, _ *http.Request) {
			identitytest.Send(w, map[string]any{"issuer": is.URL, "jwks_uri": jwks})
		}, nil)
	}
	say("metadata", "http://169.254.169.254/latest/meta-data/")
	say("private", "https://10.1.2.3/keys")
	lies["redirect"].Lie(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inner.URL+"/.well-known/openid-configuration", http.StatusFound)
	}, nil)
	lies["keys redirect"].Lie(nil, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inner.URL+"/keys", http.StatusFound) })
	var sent atomic.Int64
	lies["huge"].Lie(nil, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			n, err := io.WriteString(w, strings.Repeat(" ", 64<<10))
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	lies["slow"].Lie(nil, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	var list []*identitytest.Issuer
	for _, is := range lies {
		list = append(list, is)
	}
	s := trusting(t, "", list)
	for name, is := range lies {
		begin := time.Now()
		a := federate(t, s, is.Token("acme/shop", "7", nil))
		oidcRefused(t, a, "keys of its issuer can't be had")
		if took := time.Since(begin); took > 12*time.Second || strings.Contains(string(a.Raw), "10.1.2.3") {
			t.Errorf("%s: %v, %s", name, took, a.Raw)
		}
	}
	if inner.Fetches() != 0 {
		t.Error("a redirect was followed")
	}
	if n := sent.Load(); n > 64<<20 {
		t.Errorf("%d bytes were read", n)
	}
	// Without the setting a private address is not asked at all.
	is := identitytest.New(t)
	closed := harness.Start(t, binary, harness.Options{Env: append(trusts("", is)[:1:1], quick...)})
	oidcRefused(t, federate(t, closed, is.Token("acme/shop", "7", nil)), "keys of its issuer can't be had")
	if is.Fetches() != 0 {
		t.Error("it was asked")
	}
	// Keys in a file need no way there.
	raw, err := json.Marshal(identitytest.Set(is.Key()))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	entries := filepath.Join(t.TempDir(), "issuers.json")
	if err := os.WriteFile(entries, fmt.Appendf(nil, `[{"issuer":%q,"identity":"{repository}","jwksFile":%q}]`, is.URL, file), 0o600); err != nil {
		t.Fatal(err)
	}
	apart := harness.Start(t, binary, harness.Options{Env: append([]string{"PERSQLD_TRUSTED_ISSUERS=" + entries}, quick...)})
	federate(t, apart, is.Token("acme/shop", "7", nil)).OK()
}

// TestNamesChangeHands: a name that somebody else has now opens nothing of who had it.
func TestNamesChangeHands(t *testing.T) {
	row(t, "DP-MID-11", "DP-MID-15")
	is := identitytest.New(t)
	s := trusting(t, "", []*identitytest.Issuer{is})
	first := federate(t, s, is.Token("acme/shop", "7", nil)).OK()
	ns := first.Str("data.namespace")
	for name, token := range map[string]string{
		"made again":                                is.Token("acme/shop", "8", nil),
		"made again, in capitals":                   is.Token("ACME/Shop", "8", map[string]any{"repository_owner_id": "owner-of-acme"}),
		"renamed":                                   is.Token("acme/store", "7", nil),
		"the id left out":                           is.Token("acme/shop", "7", map[string]any{"repository_id": nil}),
		"the owner's id left out":                   is.Token("acme/shop", "7", map[string]any{"repository_owner_id": nil}),
		"the owner is another one":                  is.Token("acme/shop", "7", map[string]any{"repository_owner_id": "x"}),
		"a new one of an owner that is another one": is.Token("acme/new", "9", map[string]any{"repository_owner_id": "x"}),
	} {
		if a := federate(t, s, token); a.Status != http.StatusForbidden || a.Str("code") != "identity_mismatch" || !strings.Contains(a.Str("hint"), "persqld identity forget") {
			t.Errorf("%s: %d %s", name, a.Status, a.Raw)
		}
	}
	federate(t, s, is.Token("Acme/SHOP", "7", map[string]any{"repository_owner_id": "owner-of-acme"})).OK().Is("data.namespace", ns).Is("data.created", "false")
	federate(t, s, is.Token("acme/new", "9", nil)).OK().Is("data.created", "true")
	// The operator decides that the name is the new one's: what the old one had stays where it is.
	s.JSONOf(t, "identity", "forget", "--issuer", is.URL, "--identity", "Acme/Shop")
	s.Client(t, first.Str("data.token")).Get("/v1/me").Fails(http.StatusUnauthorized, "unauthorized")
	second := federate(t, s, is.Token("acme/shop", "8", nil)).OK().Is("data.created", "true")
	if second.Str("data.namespace") == ns {
		t.Error("the new one has the old one's namespace")
	}
	// A namespace that the operator has deleted doesn't come again by itself.
	s.JSONOf(t, "namespace", "delete", "--force", second.Str("data.namespace"))
	federate(t, s, is.Token("acme/shop", "8", nil)).Fails(http.StatusForbidden, "identity_not_allowed").Tells("gone")

	_, _, code := s.CLI(t, "identity", "forget", "--issuer", is.URL, "--identity", "no/body")
	if code != 1 {
		t.Errorf("forgetting nobody: status %d", code)
	}
}

func TestAllowedIdentities(t *testing.T) {
	row(t, "DP-MID-13")
	is := identitytest.New(t)
	s := trusting(t, `,"allow":["acme/*"]`, []*identitytest.Issuer{is})
	federate(t, s, is.Token("Acme/shop", "7", nil)).OK()
	for _, path := range []string{federatePath, connectPath} {
		s.Client(t, is.Token("evil/shop", "8", nil)).Post(path, nil).Fails(http.StatusForbidden, "identity_not_allowed")
	}
	askAgent(t, s, agentBody(is.Token("evil/shop", "8", nil))).Fails(http.StatusForbidden, "")
	few := trusting(t, "", []*identitytest.Issuer{is}, "PERSQLD_MAX_IDENTITIES=2")
	federate(t, few, is.Token("acme/a", "1", nil)).OK()
	federate(t, few, is.Token("acme/b", "2", nil)).OK()
	federate(t, few, is.Token("acme/c", "3", nil)).Fails(http.StatusForbidden, "identity_not_allowed").Tells("PERSQLD_MAX_IDENTITIES")
	federate(t, few, is.Token("acme/a", "1", nil)).OK().Is("data.created", "false")
	// Settings that make no sense stop the start, with the reason.
	for setting, why := range map[string]string{"[{\"issuer\":\"http://ci.example.com\"}]": "https://", "/nowhere.json": "no such file", "[{\"isuer\":\"x\"}]": "isuer"} {
		_, err := harness.Run(binary, harness.Options{Data: filepath.Join(t.TempDir(), "data"), Env: []string{"PERSQLD_TRUSTED_ISSUERS=" + setting}})
		if err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "PERSQLD_TRUSTED_ISSUERS") {
			t.Errorf("%s: %v", setting, err)
		}
	}
}

// askAgent sends a token to /agent/identity, whose answers have an envelope only where they are failures.
func askAgent(t testing.TB, s *harness.Server, request any) *harness.Answer {
	t.Helper()
	a := s.Client(t, "").Post("/agent/identity", request)
	if err := json.Unmarshal(a.Raw, &a.Body); err != nil {
		t.Errorf("%s: %s", a.What, a.Raw)
	}
	return a
}

// agentBody is the body of a request to it.
func agentBody(token string) body { return body{"type": "identity_assertion", "assertion": token} }

// assertion changes a token of an issuer into one of the server's.
func assertion(t testing.TB, s *harness.Server, token string) string {
	t.Helper()
	return askAgent(t, s, agentBody(token)).OK().Str("identity_assertion")
}

const jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"

func tokenForm(t testing.TB, s *harness.Server, form url.Values) *harness.Answer {
	t.Helper()
	a := s.Client(t, "").Post("/oauth/token", harness.Raw(form.Encode()), formType)
	if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Pragma") != "no-cache" {
		t.Errorf("%s: Cache-Control %q", a.What, a.Header.Get("Cache-Control"))
	}
	if err := json.Unmarshal(a.Raw, &a.Body); err != nil {
		t.Errorf("%s: %s", a.What, a.Raw)
	}
	return a
}

// oauthFails checks a failure as RFC 6749 has it.
func oauthFails(t testing.TB, a *harness.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || a.Str("error") != code || a.Str("error_description") == "" || strings.ContainsAny(a.Str("error_description"), "\"\\") {
		t.Errorf("%s: got %d %s, want %d %s", a.What, a.Status, a.Raw, status, code)
	}
}

func TestAgentIdentity(t *testing.T) {
	row(t, "DP-MID-4", "DP-MID-5", "DP-MID-6", "DP-MID-10")
	is := identitytest.New(t)
	s := trusting(t, "", []*identitytest.Issuer{is})
	c := s.Client(t, "")
	oidcToken := is.Token("acme/shop", "7", nil)
	mine := assertion(t, s, oidcToken)
	oidcRefused(t, askAgent(t, s, agentBody(oidcToken)), "used already")
	// What it is was made by us, as somebody else's library sees it, with keys from where our discovery will say.
	base := baseOf(s)
	keys := oidc.NewRemoteKeySet(t.Context(), s.URL+"/.well-known/jwks.json")
	verifier := oidc.NewVerifier(base, keys, &oidc.Config{ClientID: base + "/oauth/token"})
	if got, err := verifier.Verify(t.Context(), mine); err != nil || got.Subject != "acme/shop" {
		t.Errorf("go-oidc: %v", err)
	}
	// It opens nothing by itself.
	oidcRefused(t, federate(t, s, mine), "not trusted")
	oidcRefused(t, askAgent(t, s, agentBody(mine)), "not trusted")
	s.Client(t, mine).Get("/v1/me").Fails(http.StatusUnauthorized, "unauthorized")

	got := tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {mine}, "scope": {"database"}, "client_id": {"any"}}).OK()
	if got.Str("token_type") != "Bearer" || got.At("refresh_token") != nil || !strings.HasSuffix(got.Str("database"), "/main") || got.Str("api_url") != base {
		t.Errorf("%s", got.Raw)
	}
	agent := s.Client(t, got.Str("access_token"))
	ns, _, _ := strings.Cut(got.Str("database"), "/")
	agent.Post("/v1/db/"+got.Str("database")+"/query", harness.Body("CREATE TABLE t(a)")).OK()
	agent.Post("/v1/databases", body{"slug": "more"}).Fails(http.StatusForbidden, "")
	// The same machine, by the other door.
	federate(t, s, is.Token("acme/shop", "7", nil)).OK().Is("data.namespace", ns).Is("data.created", "false")
	oauthFails(t, tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {mine}}), http.StatusBadRequest, "invalid_grant")
	// JSON too.
	second := assertion(t, s, is.Token("acme/shop", "7", nil))
	c.Post("/oauth/token", body{"grant_type": jwtBearer, "assertion": second, "resource": base + "/v1"}).OK()

	// Of 20 at the same time one gets it.
	third := assertion(t, s, is.Token("acme/shop", "7", nil))
	var all sync.WaitGroup
	var won atomic.Int64
	for range 20 {
		all.Go(func() {
			if s.Client(t, "").Post("/oauth/token", body{"grant_type": jwtBearer, "assertion": third}).Status == http.StatusOK {
				won.Add(1)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 20 got a token", won.Load())
	}
	c.Post("/agent/identity", agentBody("x"), "Plan-Key: x").Fails(http.StatusBadRequest, "")
	for _, bad := range []any{nil, body{}, body{"type": "x", "assertion": "y"}, body{"type": "identity_assertion"}, body{"type": "identity_assertion", "assertion": 5}, harness.Raw("["), harness.Raw("null"),
		body{"type": "identity_assertion", "assertion": "x", "more": 1}} {
		askAgent(t, s, bad).Fails(http.StatusBadRequest, "")
	}
	oidcRefused(t, askAgent(t, s, agentBody(is.Token("acme/shop", "7", map[string]any{"exp": time.Now().Add(48 * time.Hour).Unix()}))), "24 hours")
	askAgent(t, s, agentBody(strings.Repeat("x", 70_000))).Fails(http.StatusRequestEntityTooLarge, "")
}

// baseOf is the public origin of a server that wasn't told its own.
func baseOf(s *harness.Server) string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return "http://localhost:" + port
}

func TestOAuthErrors(t *testing.T) {
	row(t, "DP-MID-5")
	is := identitytest.New(t)
	s := trusting(t, "", []*identitytest.Issuer{is})
	good := func() string { return assertion(t, s, is.Token("acme/shop", "7", nil)) }
	mine := good()
	for _, tt := range []struct {
		form   url.Values
		status int
		code   string
	}{
		{url.Values{}, http.StatusBadRequest, "invalid_request"},
		{url.Values{"grant_type": {"password"}, "username": {"a"}}, http.StatusBadRequest, "unsupported_grant_type"},
		{url.Values{"grant_type": {"client_credentials"}}, http.StatusBadRequest, "unsupported_grant_type"},
		{url.Values{"grant_type": {"authorization_code"}}, http.StatusBadRequest, "invalid_request"},
		{url.Values{"grant_type": {jwtBearer}}, http.StatusBadRequest, "invalid_request"},
		{url.Values{"grant_type": {jwtBearer, jwtBearer}, "assertion": {mine}}, http.StatusBadRequest, "invalid_request"},
		{url.Values{"grant_type": {jwtBearer}, "assertion": {mine}, "a\"b": {"1", "2"}}, http.StatusBadRequest, "invalid_request"},
		{url.Values{"grant_type": {jwtBearer}, "assertion": {mine}, "scope": {"openid"}}, http.StatusBadRequest, "invalid_scope"},
		{url.Values{"grant_type": {jwtBearer}, "assertion": {mine}, "resource": {"https://other.example"}}, http.StatusBadRequest, "invalid_target"},
		{url.Values{"grant_type": {jwtBearer}, "assertion": {mine}, "resource": {baseOf(s), baseOf(s)}}, http.StatusBadRequest, "invalid_target"},
		{url.Values{"grant_type": {jwtBearer}, "assertion": {mine}, "client_secret": {"x"}}, http.StatusUnauthorized, "invalid_client"},
		{url.Values{"grant_type": {jwtBearer}, "assertion": {"x.y.z"}}, http.StatusBadRequest, "invalid_grant"},
		{url.Values{"grant_type": {jwtBearer}, "assertion": {is.Token("acme/shop", "7", nil)}}, http.StatusBadRequest, "invalid_grant"}, // not ours
		{url.Values{"grant_type": {jwtBearer}, "assertion": {mine[:len(mine)-8] + "AAAAAAAA"}}, http.StatusBadRequest, "invalid_grant"},
	} {
		oauthFails(t, tokenForm(t, s, tt.form), tt.status, tt.code)
	}
	c := s.Client(t, "")
	for _, tt := range []struct {
		body   any
		header harness.Header
	}{
		{harness.Raw(`[]`), "X-A: b"}, {harness.Raw(`{"grant_type":"a","grant_type":"b"}`), "X-A: b"}, {harness.Raw(`{"grant_type":5}`), "X-A: b"}, {harness.Raw(""), "X-A: b"},
		{harness.Raw("grant_type=x"), "Content-Type: text/plain"}, {harness.Raw("%zz"), formType},
	} {
		a := c.Post("/oauth/token", tt.body, tt.header)
		if err := json.Unmarshal(a.Raw, &a.Body); err != nil {
			t.Error(err)
		}
		oauthFails(t, a, http.StatusBadRequest, "invalid_request")
	}
	a := c.Post("/oauth/token", harness.Raw("grant_type="+strings.Repeat("x", 70_000)), formType)
	if a.Status != http.StatusRequestEntityTooLarge || !strings.Contains(string(a.Raw), `"invalid_request"`) {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	// All of these have used nothing up.
	tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {mine}}).OK()
	// Two machines' names that don't belong together get nothing here either.
	oauthFails(t, tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {assertion(t, s, is.Token("acme/shop", "8", nil))}}), http.StatusBadRequest, "invalid_grant")
}

// TestIdentityAfterKill: what was used stays used, and what was made stays there, whatever ended the server.
func TestIdentityAfterKill(t *testing.T) {
	row(t, "DP-MID-10", "DP-MID-6", "DP-MID-15")
	is := identitytest.New(t)
	data := filepath.Join(t.TempDir(), "data")
	env := append(append(trusts("", is), quick...), "PERSQLD_BASE_URL=https://sql.example.com")
	start := func() *harness.Server { return harness.Start(t, binary, harness.Options{Data: data, Env: env}) }
	s := start()
	used := is.Token("acme/shop", "7", nil)
	spent, kept := assertion(t, s, used), assertion(t, s, is.Token("acme/shop", "7", nil))
	tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {spent}}).OK()
	first := federate(t, s, is.Token("acme/shop", "7", nil)).OK()
	before := s.Client(t, "").Get("/.well-known/jwks.json")
	s.Kill()
	s = start()
	oidcRefused(t, askAgent(t, s, agentBody(used)), "used already")
	oauthFails(t, tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {spent}}), http.StatusBadRequest, "invalid_grant")
	federate(t, s, is.Token("acme/shop", "7", nil)).OK().Is("data.namespace", first.Str("data.namespace")).Is("data.created", "false")
	s.Client(t, first.Str("data.token")).Get("/v1/me").OK()
	if after := s.Client(t, "").Get("/.well-known/jwks.json"); string(after.Raw) != string(before.Raw) {
		t.Errorf("the keys were %s, and are %s", before.Raw, after.Raw)
	}
	// Another key signs; what the one before signed is still good.
	list := func() []any { return s.JSONOf(t, "keys", "list")["keys"].([]any) }
	former := list()[0].(map[string]any)["kid"]
	made := s.JSONOf(t, "keys", "rotate")["kid"]
	published := string(s.Client(t, "").Get("/.well-known/jwks.json").Raw)
	if n := len(list()); n != 2 || made == former || !strings.Contains(published, fmt.Sprint(made)) || !strings.Contains(published, fmt.Sprint(former)) || strings.Contains(published, `"d"`) {
		t.Errorf("%d keys: %s", n, published)
	}
	tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {kept}}).OK()
	next := assertion(t, s, is.Token("acme/shop", "7", nil))
	// Without overlap nothing that a former key signed is good any more.
	s.JSONOf(t, "keys", "rotate", "--overlap", "0s")
	if n := len(list()); n != 1 {
		t.Errorf("%d keys", n)
	}
	oauthFails(t, tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {next}}), http.StatusBadRequest, "invalid_grant")
	tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {assertion(t, s, is.Token("acme/shop", "7", nil))}}).OK()
	// On a stopped server too, and its next start has it. A private key is nowhere in the catalog as it is.
	s.Stop(t)
	rotated := s.JSONOf(t, "keys", "rotate")["kid"]
	s.JSONOf(t, "identity", "bind", "--namespace", "default", "--identity", "acme/stopped")
	raw, err := os.ReadFile(filepath.Join(data, "catalog.db"))
	if err == nil && (strings.Contains(string(raw), "PRIVATE KEY") || strings.Contains(string(raw), "MIIEv")) {
		t.Error("a private key is in the catalog")
	}
	s = start()
	if got := list()[0].(map[string]any)["kid"]; got != rotated {
		t.Errorf("%v signs, not %v", got, rotated)
	}
	s.Client(t, is.Token("acme/stopped", "70", nil)).Post(connectPath, nil).OK().Is("data.namespace", "default")
	// A server that lost the key's seal makes another key, and goes on.
	s.Stop(t)
	if err := os.Remove(filepath.Join(data, "seal.key")); err != nil {
		t.Fatal(err)
	}
	s = start()
	tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {assertion(t, s, is.Token("acme/shop", "7", nil))}}).OK()
	if got := list()[0].(map[string]any)["kid"]; got == rotated {
		t.Error("a key signs that can't be opened")
	}
}

func TestIdentityCLI(t *testing.T) {
	row(t, "DP-MID-15", "DP-MID-16", "DP-MID-14")
	is := identitytest.New(t)
	s := trusting(t, "", []*identitytest.Issuer{is}, "PERSQLD_IDENTITY_RATE=5")
	b := s.JSONOf(t, "identity", "bind", "--namespace", "default", "--identity", "acme/shop", "--id", "7")
	if b["identity"] != "acme/shop" || b["namespace"] != "default" || b["issuer"] != nil || b["stableId"] != "7" {
		t.Errorf("%v", b)
	}
	c := s.Client(t, is.Token("acme/shop", "7", nil))
	token := c.Post(connectPath, nil).OK().Str("data.token")
	own := federate(t, s, is.Token("acme/shop", "7", nil)).OK()
	list := s.JSONOf(t, "identity", "list")
	if n := len(list["bindings"].([]any)); n != 1 || list["identities"].([]any)[0].(map[string]any)["namespace"] != own.Str("data.namespace") {
		t.Errorf("%v", list)
	}
	out, _, code := s.CLI(t, "identity", "list")
	if code != 0 || !strings.Contains(out, "acme/shop") || !strings.Contains(out, is.URL) {
		t.Errorf("%d %s", code, out)
	}
	if _, errs, code := s.CLI(t, "identity", "bind", "--namespace", "none", "--identity", "a/b"); code != 1 || !strings.Contains(errs, "namespace not found") {
		t.Errorf("%d %s", code, errs)
	}
	if _, errs, code := s.CLI(t, "identity", "bind", "--namespace", "default", "--identity", "a b"); code != 1 || !strings.Contains(errs, "ASCII") {
		t.Errorf("%d %s", code, errs)
	}
	s.JSONOf(t, "identity", "unbind", "--namespace", "default", "--identity", "ACME/shop")
	s.Client(t, token).Get("/v1/me").Fails(http.StatusUnauthorized, "unauthorized")
	if _, _, code := s.CLI(t, "identity", "unbind", "--namespace", "default", "--identity", "acme/shop"); code != 1 {
		t.Errorf("unbound twice: %d", code)
	}
	// As many tokens a minute as there may be.
	var last *harness.Answer
	for range 6 {
		last = federate(t, s, is.Token("acme/shop", "7", nil))
	}
	last.Fails(http.StatusTooManyRequests, "too_many_attempts")
	federate(t, s, is.Token("acme/other", "8", nil)).OK()

	tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {assertion(t, s, is.Token("acme/other", "8", nil))}}).OK()
	s.JSONOf(t, "keys", "rotate")
	s.JSONOf(t, "identity", "forget", "--issuer", is.URL, "--identity", "acme/other")
	seen := map[string]map[string]any{}
	for _, e := range s.JSONOf(t, "audit", "--limit", "1000")["entries"].([]any) {
		e := e.(map[string]any)
		seen[e["action"].(string)] = e
	}
	for _, action := range []string{"identity.created", "identity.federated", "identity.connected", "identity.granted", "identity.bound", "identity.recognized", "identity.unbound", "identity.forgotten", "signing_key.created"} {
		if seen[action] == nil {
			t.Errorf("no entry %s", action)
		}
	}
	e := seen["identity.federated"]
	if actor := e["actor"].(map[string]any); actor["type"] != "identity" || actor["id"] == nil || e["address"] != "127.0.0.1" || e["metadata"].(map[string]any)["identity"] == nil {
		t.Errorf("%v", e)
	}
	if e := seen["identity.recognized"]; e["actor"].(map[string]any)["type"] != "identity" || e["address"] != "127.0.0.1" {
		t.Errorf("%v", e)
	}
	all, _, _ := s.CLI(t, "audit", "--limit", "1000")
	if strings.Contains(all, "eyJ") || strings.Contains(all, token) {
		t.Error("the audit log has a token")
	}
}

// TestIssuersThatAreNotTrusted: an issuer is trusted where the settings say so, for all that was made by it before too.
func TestIssuersThatAreNotTrusted(t *testing.T) {
	row(t, "DP-MID-13")
	is, other := identitytest.New(t), identitytest.New(t)
	data := filepath.Join(t.TempDir(), "data")
	base := "PERSQLD_BASE_URL=https://sql.example.com"
	s := harness.Start(t, binary, harness.Options{Data: data, Env: append(append(trusts("", is), quick...), base)})
	federate(t, s, is.Token("acme/shop", "7", nil)).OK()
	oidcRefused(t, federate(t, s, other.Token("acme/shop", "7", nil)), "not trusted")
	kept := assertion(t, s, is.Token("acme/shop", "7", nil))
	s.Stop(t)
	s = harness.Start(t, binary, harness.Options{Data: data, Env: append(append(trusts("", other), quick...), base, "PERSQLD_BUILTIN_ISSUERS=false")})
	oidcRefused(t, federate(t, s, is.Token("acme/shop", "7", nil)), "not trusted")
	oauthFails(t, tokenForm(t, s, url.Values{"grant_type": {jwtBearer}, "assertion": {kept}}), http.StatusBadRequest, "invalid_grant")
	// The same name at another issuer is another machine.
	federate(t, s, other.Token("acme/shop", "7", nil)).OK().Is("data.created", "true")
	s.Client(t, harness.Token).Post("/v1/actions/bindings", body{"repository": "a/b", "issuer": "https://token.actions.githubusercontent.com"}).Fails(http.StatusBadRequest, "bad_request")
}
