package main_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// freePort is a port of the loopback address that nobody listens on; of IPv6's where it can be.
func freePort(t *testing.T) (port string, ipv6 bool) {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	ipv6 = err == nil
	if !ipv6 {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	defer l.Close()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, ipv6
}

func TestHealthcheck(t *testing.T) {
	for _, host := range []string{"", "0.0.0.0", "127.0.0.1", "localhost", "[::]", "[::1]"} {
		t.Run(host, func(t *testing.T) {
			port, ipv6 := freePort(t)
			if !ipv6 && strings.HasPrefix(host, "[") {
				if os.Getenv("CI") != "" {
					t.Fatal("this machine has no IPv6, and CI is set: nothing may be left out")
				}
				t.Skip("NOT TESTED: this machine has no IPv6")
			}
			listen := host + ":" + port
			settings := filepath.Join(t.TempDir(), "persqld.yaml")
			if err := os.WriteFile(settings, []byte("listen: '"+listen+"'\nmax-open: 50\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			// Whatever proxy the environment names, the server is here.
			environ := []string{"PERSQLD_LISTEN=" + listen, "http_proxy=http://127.0.0.1:1"}
			if status, out, errs := run(t, environ, "healthcheck"); status != 1 || out != "" || !strings.Contains(errs, "hint:") {
				t.Fatalf("without a server: exit status %d, stdout %q, stderr %q", status, out, errs)
			}
			server := command(environ, "serve", "--data", filepath.Join(t.TempDir(), "d"))
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				server.Process.Kill()
				server.Wait()
			})
			poll := time.NewTicker(10 * time.Millisecond)
			defer poll.Stop()
			patience := time.After(20 * time.Second)
			for status := 1; status != 0; {
				var errs string
				if status, _, errs = run(t, environ, "healthcheck"); status == 0 {
					break
				}
				select {
				case <-poll.C:
				case <-patience:
					t.Fatalf("the server is not found healthy: %s", errs)
				}
			}
			for name, args := range map[string][]string{"flag": {"--listen", listen}, "file": {"--config", settings}} {
				answer := runJSON(t, 0, append([]string{"healthcheck"}, args...)...)
				if url, _ := answer["url"].(string); answer["status"] != "ready" || !strings.HasSuffix(url, ":"+port+"/readyz") {
					t.Errorf("by %s: %v", name, answer)
				}
			}
		})
	}
}

func TestHealthcheckFails(t *testing.T) {
	answers := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if status == 0 {
				<-r.Context().Done()
				return
			}
			if r.URL.Path != "/readyz" {
				t.Errorf("asked for %s", r.URL)
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	nobody, _ := freePort(t)
	tests := []struct {
		name, listen, code string
		status             int
		says               string
	}{
		{"nobody", "127.0.0.1:" + nobody, "no_answer", 1, "connection refused"},
		{"starting", answers(503, `{"success":false,"error":"The server is starting","code":"not_ready"}`), "not_ready", 1, "The server is starting"},
		{"another program", answers(200, "It works!"), "not_persqld", 1, "not as persqld does"},
		{"another API", answers(200, `{"data":{"status":"fine"}}`), "not_persqld", 1, "not as persqld does"},
		{"a redirect", answers(302, `{"data":{"status":"ready"}}`), "not_persqld", 1, "302"},
		{"hanging", answers(0, ""), "timeout", 1, "within 200ms"},
		{"port unknown", "127.0.0.1:0", "no_port", 1, "chooses the port"},
		{"no address", "8080", "usage", 2, "PERSQLD_LISTEN"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answer := runJSON(t, tt.status, "healthcheck", "--timeout", "200ms", "--listen", tt.listen)
			if said, _ := answer["error"].(string); answer["code"] != tt.code || !strings.Contains(said, tt.says) {
				t.Errorf("got %v, want code %s and %q", answer, tt.code, tt.says)
			}
		})
	}
	if answer := runJSON(t, 2, "healthcheck", "--timeout", "2m"); !strings.Contains(answer["error"].(string), "10ms to 1m") {
		t.Errorf("a long timeout: %v", answer)
	}
}
