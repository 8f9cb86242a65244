package e2e_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// An app that nobody has registered is known by the address of a document, from the first page to its last token.
func TestClientIsADocument(t *testing.T) {
	row(t, "DP-OAC-11")
	var asked, strayed atomic.Int64
	var site *httptest.Server
	site = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		id := site.URL + r.URL.Path
		switch r.URL.Path {
		case "/moved.json":
			http.Redirect(w, r, site.URL+"/strayed.json", http.StatusFound)
			return
		case "/strayed.json":
			strayed.Add(1)
		case "/other.json":
			id = "https://other.example/client.json"
		case "/secret.json":
			id += `","client_secret":"x`
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"client_id":"%s","client_name":"An editor","redirect_uris":[%q],"token_endpoint_auth_method":"none"}`, id, theCallback)
	}))
	defer site.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: site.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	client := func(document string, env ...string) *connecting {
		s := people(t, append(env, "SSL_CERT_FILE="+file)...)
		return &connecting{t: t, s: s, admin: s.Client(t, harness.Token), anyone: s.Client(t, ""), ada: enrol(t, s, "ada@example.com", "", ""), public: true, id: site.URL + document}
	}
	c := client("/client.json", "PERSQLD_ALLOW_NETWORKS=127.0.0.0/8")
	showsPage(t, c.ada.Get(c.begins("openid database")), http.StatusOK, "An editor", "app.example.com", "the word of", strings.TrimPrefix(site.URL, "https://"))
	got := c.signsIn("openid database offline_access")
	if a := c.anyone.As(got.Str("access_token")).Post("/v1/db/"+got.Str("database")+"/query", harness.Body("CREATE TABLE t(a)")); a.Status != http.StatusOK {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	next := c.gets(map[string][]string{"grant_type": {"refresh_token"}, "refresh_token": {got.Str("refresh_token")}})
	app := c.ada.Get("/api/connected-apps").OK().Is("data.0.clientId", c.id).Is("data.0.name", "An editor")
	if n := asked.Load(); n != 1 {
		t.Errorf("the document was asked for %d times", n)
	}
	c.ada.Do(http.MethodDelete, "/api/connected-apps/"+app.Str("data.0.id"), nil).OK()
	c.anyone.As(next.Str("access_token")).Get("/v1/me").Fails(http.StatusUnauthorized, "unauthorized")
	for _, document := range []string{"/other.json", "/secret.json", "/moved.json", "/client.json#x", "/a/../client.json"} {
		c.id = site.URL + document
		a := c.ada.Get(c.begins("openid"))
		if a.Status != http.StatusBadRequest && a.Status != http.StatusServiceUnavailable || a.Header.Get("Location") != "" {
			t.Errorf("%s: %d", document, a.Status)
		}
	}
	if strayed.Load() != 0 {
		t.Error("a redirect was followed")
	}
	// The server goes to no network that it may not reach, and takes none where documents are switched off.
	before := asked.Load()
	for _, env := range [][]string{nil, {"PERSQLD_ALLOW_NETWORKS=127.0.0.0/8", "PERSQLD_OAUTH_CLIENT_DOCUMENTS=false"}} {
		c := client("/client.json", env...)
		if a := c.ada.Get(c.begins("openid")); a.Status < 400 || a.Header.Get("Location") != "" {
			t.Errorf("%v: %d", env, a.Status)
		}
	}
	if asked.Load() != before {
		t.Error("it was asked all the same")
	}
}
