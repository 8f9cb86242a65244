package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/oauth/clientdoc"
	"github.com/persqld/persqld/internal/outbound"
)

// clientSites answers in the place of the addresses of metadata documents.
type clientSites struct {
	asked int
	err   error
}

func (c *clientSites) GetDocument(_ context.Context, id string, _ int64) (outbound.Document, error) {
	c.asked++
	if c.err != nil {
		return outbound.Document{}, c.err
	}
	return outbound.Document{Body: fmt.Appendf(nil, `{"client_id":%q,"client_name":"An editor","redirect_uris":["cursor://x/cb"],"scope":"openid mcp:tools"}`, id), ContentType: "application/json"}, nil
}

func TestOAuthClientLookUp(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	cat, err := catalog.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer cat.Close()
	sites := &clientSites{}
	door := api.New(api.Options{Catalog: cat, Now: clock, BaseURL: "https://sql.example.com", OAuth: api.OAuthClients{Register: true, Documents: clientdoc.New(clientdoc.Options{Get: sites, Now: clock})}})
	from := func(address string) *http.Request {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/oauth/authorize", nil)
		r.RemoteAddr = address + ":1234"
		return r
	}
	status := func(r *http.Request, id string) int {
		_, err := door.OAuthClient(r, id)
		if err == nil {
			return http.StatusOK
		}
		return door.StatusOf(err)
	}

	// One that registers itself, and is used.
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/oauth/register", strings.NewReader(`{"redirect_uris":["http://localhost/cb"]}`))
	r.Header.Set("Content-Type", "application/json")
	door.ServeHTTP(w, r)
	id := strings.Split(w.Body.String(), `"`)[3]
	cl, err := door.OAuthClient(from("192.0.2.1"), id)
	if err != nil || w.Code != http.StatusCreated || !cl.Public || !cl.Dynamic || cl.NamespaceID != "" || !cl.UsedAt.IsZero() {
		t.Fatalf("%d %s: %+v, %v", w.Code, w.Body, cl, err)
	}
	if err := door.UseOAuthClient(from("192.0.2.1"), cl); err != nil {
		t.Fatal(err)
	}
	if cl, err = door.OAuthClient(from("192.0.2.1"), id); err != nil || !cl.UsedAt.Equal(now) {
		t.Errorf("used: %+v, %v", cl, err)
	}
	if _, err := door.OAuthClient(from("192.0.2.1"), "psqlrp_none"); !errors.Is(err, catalog.ErrOAuthClientNotFound) {
		t.Error(err)
	}

	// One that is a document.
	const editor = "https://editor.example/client.json"
	cl, err = door.OAuthClient(from("192.0.2.1"), editor)
	if err != nil || cl.ID != editor || cl.Name != "An editor" || !cl.Public || cl.NamespaceID != "" || len(cl.RedirectURIs) != 1 || len(cl.Scopes) != 1 || cl.Scopes[0] != "openid" {
		t.Fatalf("%+v, %v", cl, err)
	}
	if err := door.UseOAuthClient(from("192.0.2.1"), cl); err != nil {
		t.Errorf("used: %v", err)
	}
	if _, err := door.OAuthClient(from("192.0.2.1"), "http://editor.example/client.json"); !errors.Is(err, catalog.ErrOAuthClientNotFound) || !strings.Contains(err.Error(), "https") {
		t.Errorf("plain http: %v", err)
	}
	sites.err = errors.New("no route to host")
	if got := status(from("192.0.2.1"), "https://down.example/client.json"); got != http.StatusServiceUnavailable {
		t.Errorf("down: %d", got)
	}
	sites.err = nil

	// An address causes so many look-ups a minute; what is kept costs none.
	for i := range 30 {
		want := http.StatusOK
		if i >= 20 {
			want = http.StatusTooManyRequests
		}
		if got := status(from("198.51.100.1"), fmt.Sprintf("https://many%d.example/c", i)); got != want {
			t.Errorf("look-up %d: %d", i, got)
		}
	}
	if got := status(from("198.51.100.1"), editor); got != http.StatusOK {
		t.Errorf("one that is kept: %d", got)
	}
	// So has a host: then it is asked for known addresses alone.
	now = now.Add(16 * time.Minute) // the editor's document is over
	before := sites.asked
	for i := range 80 {
		want := http.StatusOK
		if i >= 60 {
			want = http.StatusTooManyRequests
		}
		if got := status(from(fmt.Sprintf("198.51.100.%d", i)), fmt.Sprintf("https://editor.example/made-up/%d", i)); got != want {
			t.Errorf("look-up %d at a host: %d", i, got)
		}
	}
	if sites.asked != before+60 {
		t.Errorf("the host was asked %d times", sites.asked-before)
	}
	if got := status(from("203.0.113.1"), editor); got != http.StatusOK || sites.asked != before+61 {
		t.Errorf("a known document at that host: %d", got)
	}

	closed := api.New(api.Options{Catalog: cat, Now: clock})
	if _, err := closed.OAuthClient(from("192.0.2.1"), editor); !errors.Is(err, catalog.ErrOAuthClientNotFound) {
		t.Errorf("switched off: %v", err)
	}
}
