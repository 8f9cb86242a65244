package e2e_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// spoken sends a request byte by byte; {host}, {length} and what fill names are put in. The lines of the head end with \n here.
func spoken(t testing.TB, s *harness.Server, head, send string, fill map[string]string) (*http.Response, map[string]any) {
	t.Helper()
	for name, value := range fill {
		head, send = strings.ReplaceAll(head, "{"+name+"}", value), strings.ReplaceAll(send, "{"+name+"}", value)
	}
	head = strings.NewReplacer("{host}", s.Addr, "{length}", harness.Text(len(send)), "\n", "\r\n").Replace(strings.TrimSpace(head))
	conn, err := net.DialTimeout("tcp", s.Addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, head+"\r\n\r\n"+send); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		t.Fatalf("%s\n%s: %d %s", head, send, resp.StatusCode, raw)
	}
	return resp, answer
}

// What the HTTP libraries of Python and Node put before a body.
const (
	byHTTPX = `
POST {path} HTTP/1.1
Host: {host}
Accept: */*
Accept-Encoding: gzip, deflate
Connection: keep-alive
User-Agent: python-httpx/0.28.1
Content-Length: {length}
Content-Type: {type}`
	byFetch = `
POST {path} HTTP/1.1
host: {host}
connection: keep-alive
content-type: {type}
accept: */*
accept-language: *
sec-fetch-mode: cors
user-agent: node
accept-encoding: gzip, deflate
content-length: {length}`
	authorized = "\nauthorization: {authorization}"
)

// TestSDKConnects replays what an SDK's begin_connect and complete_connect send, in each way that they may, and uses what comes of it.
func TestSDKConnects(t *testing.T) {
	row(t, "DP-OAU-20")
	s := harness.Start(t, binary, harness.Options{Public: true, Env: quick})
	ada := enrol(t, s, "ada@example.com", "", "")
	v := visits(t, ada.email)
	const (
		challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" // of theVerifier: RFC 7636, appendix B
		// As Python's urlencode and JavaScript's URLSearchParams write it, as encodeURIComponent does, and by hand.
		encoded   = "/oauth/authorize?response_type=code&client_id={id}&redirect_uri=https%3A%2F%2Fapp.example.com%2Fcallback&scope={scope}&state=s1&code_challenge=" + challenge + "&code_challenge_method=S256"
		component = "/oauth/authorize?client_id={id}&redirect_uri=https%3A%2F%2Fapp.example.com%2Fcallback&response_type=code&scope={%20}&state=s1&code_challenge=" + challenge + "&code_challenge_method=S256"
		byHand    = "/oauth/authorize?client_id={id}&redirect_uri=https://app.example.com/callback&response_type=code&scope={%20}&code_challenge=" + challenge + "&code_challenge_method=S256&state=s1"

		form, formUTF8, asJSON = "application/x-www-form-urlencoded", "application/x-www-form-urlencoded;charset=UTF-8", "application/json"
		formBody               = "grant_type=authorization_code&client_id={id}&redirect_uri=https%3A%2F%2Fapp.example.com%2Fcallback&code={code}&code_verifier=" + theVerifier
		jsonBody               = `{"grant_type": "authorization_code", "client_id": "{id}", "redirect_uri": "https://app.example.com/callback", "code": "{code}", "code_verifier": "` + theVerifier + `"`
	)
	databases := map[string]string{} // of apps, by whose token
	for _, c := range []struct {
		name, begin, head, media, send string
		public, basic                  bool
		scope                          string
	}{
		{name: "public form", begin: encoded, head: byHTTPX, media: form, send: formBody, public: true},
		{name: "public JSON", begin: component, head: byFetch, media: asJSON, send: jsonBody + "}", public: true},
		{name: "public JSON of Python", begin: encoded, head: byHTTPX, media: asJSON, send: jsonBody + `, "client_secret": null}`, public: true},
		{name: "form with the secret", begin: byHand, head: byFetch, media: formUTF8, send: formBody + "&client_secret={secret}"},
		{name: "JSON with the secret", begin: encoded, head: byFetch, media: asJSON, send: strings.ReplaceAll(jsonBody, ": ", ":") + `,"client_secret":"{secret}"}`},
		{name: "form with Basic", begin: component, head: byHTTPX + authorized, media: form, send: formBody, basic: true},
		{name: "JSON with Basic", begin: byHand, head: byFetch + authorized, media: asJSON + "; charset=utf-8", send: jsonBody + "}", basic: true},
		{name: "Basic alone", begin: encoded, head: byHTTPX + authorized, media: form, send: strings.Replace(formBody, "client_id={id}&", "", 1), basic: true},
		{name: "without openid", begin: encoded, head: byHTTPX, media: form, send: formBody, public: true, scope: "database"},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind := map[bool]string{true: "public", false: "confidential"}[c.public]
			a := s.Client(t, harness.Token).Post("/v1/oauth-apps", body{"name": "Notes", "type": kind, "redirectUris": []string{theCallback}}).OK()
			fill := map[string]string{"id": a.Str("data.clientId"), "type": c.media, "path": "/oauth/token"}
			if !c.public {
				fill["secret"] = a.Str("data.clientSecret")
				fill["authorization"] = "Basic " + base64.StdEncoding.EncodeToString([]byte(fill["id"]+":"+fill["secret"]))
			}
			scope := c.scope
			if scope == "" {
				scope = "openid database"
			}
			connect := func() map[string]any {
				t.Helper()
				at := strings.NewReplacer("{id}", fill["id"], "{scope}", strings.ReplaceAll(scope, " ", "+"), "{%20}", strings.ReplaceAll(scope, " ", "%20")).Replace(c.begin)
				back, err := url.Parse(v.with(t).sees(s.URL+at, theCallback, "allow"))
				if err != nil || back.Query().Get("state") != "s1" {
					t.Fatalf("%v: %v", back, err)
				}
				fill["code"] = back.Query().Get("code")
				resp, got := spoken(t, s, c.head, c.send, fill)
				if resp.StatusCode != http.StatusOK || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Content-Type") != "application/json" {
					t.Fatalf("%d %v %v", resp.StatusCode, resp.Header, got)
				}
				members := []string{"access_token", "api_url", "database", "id_token", "scope", "token_type", "user_email", "user_email_verified"}
				if scope == "database" {
					members = slices.DeleteFunc(members, func(m string) bool { return m == "id_token" })
				}
				if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, members) {
					t.Errorf("%v, want %v", names, members)
				}
				if got["token_type"] != "Bearer" || got["scope"] != scope || got["api_url"] != s.URL || got["user_email"] != ada.email || got["user_email_verified"] != false || !strings.HasPrefix(harness.Text(got["access_token"]), "psql_live_") {
					t.Errorf("%v", got)
				}
				return got
			}
			query := func(with map[string]any, database, send string) (int, map[string]any) {
				t.Helper()
				resp, answer := spoken(t, s, byHTTPX+authorized, send, map[string]string{"type": asJSON, "path": "/v1/db/" + database + "/query", "authorization": "Bearer " + with["access_token"].(string)})
				return resp.StatusCode, answer
			}
			first := connect()
			database := first["database"].(string)
			for _, send := range []string{`{"sql": "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL)"}`, `{"sql": "INSERT INTO notes(text) VALUES (?)", "params": ["` + c.name + `"]}`} {
				if status, answer := query(first, database, send); status != http.StatusOK {
					t.Fatalf("%s: %d %v", send, status, answer)
				}
			}
			second := connect()
			if second["database"] != database || second["access_token"] == first["access_token"] {
				t.Errorf("the next sign-in: %v, had %s", second, database)
			}
			for _, with := range []map[string]any{first, second} { // apps store the token
				status, answer := query(with, database, `{"sql": "SELECT text FROM notes"}`)
				if data, _ := answer["data"].(map[string]any); status != http.StatusOK || harness.Text(data["rows"]) != `[["`+c.name+`"]]` {
					t.Errorf("%d %v", status, answer)
				}
			}
			for other, whose := range databases {
				if status, answer := query(first, other, `{"sql": "SELECT 1"}`); other == database || status != http.StatusForbidden {
					t.Errorf("the database of %s: %d %v", whose, status, answer)
				}
			}
			databases[database] = c.name
			// The code is used up, and the secret is asked for.
			if resp, got := spoken(t, s, c.head, c.send, fill); resp.StatusCode != http.StatusBadRequest || got["error"] != "invalid_grant" {
				t.Errorf("%d %v", resp.StatusCode, got)
			}
			if !c.public {
				fill["secret"], fill["authorization"] = "psqlrs_wrong", "Basic "+base64.StdEncoding.EncodeToString([]byte(fill["id"]+":psqlrs_wrong"))
				if resp, got := spoken(t, s, c.head, c.send, fill); resp.StatusCode != http.StatusUnauthorized || got["error"] != "invalid_client" {
					t.Errorf("%d %v", resp.StatusCode, got)
				}
			}
		})
	}
}
