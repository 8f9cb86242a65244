package outbound_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/outbound"
)

func TestClient(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, r.Header.Get("User-Agent")+strings.Repeat(".", 88))
	}))
	defer server.Close()
	loopback := outbound.Networks{Any: true, Contains: func(a netip.Addr) bool { return a.IsLoopback() }}
	c := outbound.NewClient(loopback, outbound.ClientOptions{Timeout: 5 * time.Second, MaxBody: 100, Version: "1.2"})
	read := func(c *http.Client, address string) (string, int, error) {
		answer, err := c.Get(address)
		if err != nil {
			return "", 0, err
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		return string(b), answer.StatusCode, err
	}
	if got, status, err := read(c, server.URL); err != nil || status != http.StatusOK || got != "persqld/1.2"+strings.Repeat(".", 88) {
		t.Errorf("got %q, %d, %v", got, status, err)
	}
	if _, status, err := read(c, server.URL+"/elsewhere"); err != nil || status != http.StatusFound {
		t.Errorf("a redirect: %d, %v", status, err)
	}
	short := outbound.NewClient(loopback, outbound.ClientOptions{Timeout: 5 * time.Second, MaxBody: 94, Version: "1.2"})
	if got, _, err := read(short, server.URL); err == nil {
		t.Errorf("over the limit: %q", got)
	}
	if _, _, err := read(c, strings.Replace(server.URL, "http://", "http://user:password@", 1)); !errors.Is(err, outbound.ErrURL) {
		t.Errorf("with a password: %v", err)
	}
	if _, _, err := read(outbound.NewClient(outbound.Networks{}, outbound.ClientOptions{Timeout: time.Second, MaxBody: 100}), server.URL); !errors.Is(err, outbound.ErrURL) {
		t.Errorf("without a network: %v", err)
	}
}
