package clientdoc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/oauth/clientdoc"
	"github.com/persqld/persqld/internal/outbound"
)

var certificate tls.Certificate

// TestMain has this process trust a certificate of its own for the names that the tests use, as an operator would: by SSL_CERT_FILE.
func TestMain(m *testing.M) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, DNSNames: []string{"client.example", "turning.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	dir, err := os.MkdirTemp("", "clientdoc")
	if err != nil {
		panic(err)
	}
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		panic(err)
	}
	os.Setenv("SSL_CERT_FILE", file)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// site serves documents over TLS on 127.0.0.1.
type site struct {
	*httptest.Server
	asked atomic.Int64
}

func newSite(t *testing.T, answer http.HandlerFunc) *site {
	t.Helper()
	s := &site{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		answer(w, r)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

var loopback = outbound.Networks{Any: true, Contains: netip.MustParsePrefix("127.0.0.0/8").Contains}

func fetcher(n outbound.Networks) *outbound.Fetcher {
	return outbound.NewFetcher(n, 2*time.Second, "test")
}

func admitted(bool) error { return nil }

func document(id, more string) string {
	return fmt.Sprintf(`{"client_id":%q,"client_name":"An editor","redirect_uris":["http://127.0.0.1/cb","cursor://x/cb"]%s}`, id, more)
}

// refused checks that an address is refused for a reason.
func refused(t *testing.T, d *clientdoc.Documents, id, why string) {
	t.Helper()
	if c, err := d.Client(t.Context(), id, admitted); !errors.Is(err, clientdoc.ErrDocument) || !strings.Contains(err.Error(), why) {
		t.Errorf("%s: %+v, %v; want %q", id, c, err, why)
	}
}

func TestDocument(t *testing.T) {
	var s *site
	s = newSite(t, func(w http.ResponseWriter, r *http.Request) {
		id := s.URL + r.URL.RequestURI()
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		write := func(text string) { _, _ = w.Write([]byte(text)) }
		switch r.URL.Path {
		case "/fine":
			write(document(id, `,"token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"],"response_types":["code"],"scope":"openid database","logo_uri":"x","client_uri":7`))
		case "/nameless":
			write(fmt.Sprintf(`{"client_id":%q,"redirect_uris":["https://a.example/cb"]}`, id))
		case "/other":
			write(document("https://bank.example/client", ""))
		case "/slash":
			write(document(id+"/", ""))
		case "/none":
			write(`{"redirect_uris":["https://a.example/cb"]}`)
		case "/secret":
			write(document(id, `,"client_secret":"x"`))
		case "/expires":
			write(document(id, `,"client_secret_expires_at":0`))
		case "/post", "/basic", "/jwt":
			write(document(id, `,"token_endpoint_auth_method":"client_secret_`+r.URL.Path[1:]+`"`))
		case "/key":
			write(document(id, `,"token_endpoint_auth_method":"private_key_jwt"`))
		case "/nowhere":
			write(fmt.Sprintf(`{"client_id":%q}`, id))
		case "/script":
			write(fmt.Sprintf(`{"client_id":%q,"redirect_uris":["https://a.example/cb","javascript:alert(1)"]}`, id))
		case "/turns":
			write(fmt.Sprintf(`{"client_id":%q,"client_name":"Bank\u202e","redirect_uris":["https://a.example/cb"]}`, id))
		case "/twice":
			write(`{"client_id":"https://bank.example/client",` + document(id, "")[1:])
		case "/list":
			write("[]")
		case "/null":
			write("null")
		case "/grant":
			write(document(id, `,"grant_types":["client_credentials"]`))
		case "/html":
			w.Header().Set("Content-Type", "text/html")
			write(document(id, ""))
		case "/untyped":
			w.Header()["Content-Type"] = nil
			write(document(id, ""))
		case "/large":
			write(document(id, `,"x":"`+strings.Repeat("x", 10<<10)+`"`))
		case "/moved":
			http.Redirect(w, r, "/fine", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	})
	d := clientdoc.New(clientdoc.Options{Get: fetcher(loopback)})
	c, err := d.Client(t.Context(), s.URL+"/fine?v=1", admitted)
	host := strings.TrimPrefix(s.URL, "https://")
	if err != nil || c.Name != "An editor" || c.ID != s.URL+"/fine?v=1" || len(c.RedirectURIs) != 2 || strings.Join(c.Scopes, " ") != "openid database" {
		t.Fatalf("%+v, %v", c, err)
	}
	if c, err := d.Client(t.Context(), s.URL+"/nameless", admitted); err != nil || c.Name != host {
		t.Errorf("%+v, %v", c, err)
	}
	for path, why := range map[string]string{"other": "not the address", "slash": "not the address", "none": "not the address", "secret": "client_secret", "expires": "client_secret", "post": "auth_method", "basic": "auth_method", "jwt": "auth_method", "key": "auth_method",
		"nowhere": "redirect_uris", "script": "javascript", "turns": "client_name", "twice": "JSON", "list": "JSON", "null": "not the address", "grant": "grant_types", "html": "content type", "untyped": "content type", "large": "larger", "moved": "redirects are not followed", "missing": "404"} {
		refused(t, d, s.URL+"/"+path, why)
	}
	before := s.asked.Load()
	for _, id := range []string{"http" + strings.TrimPrefix(s.URL, "https") + "/fine", s.URL, s.URL + "/fine#x", s.URL + "/x/../fine", s.URL + "/./fine", s.URL + "/%2e%2e/fine", "https://u:p@" + host + "/fine", "https://u@" + host + "/fine", "HTTPS://" + host + "/fine",
		"https://LOCALHOST/fine", s.URL + "/" + strings.Repeat("x", 1024), s.URL + "/fi ne", "https:///fine", "https:" + host + "/fine", s.URL + `/fine\x`} {
		refused(t, d, id, "client_id")
	}
	if n := s.asked.Load(); n != before {
		t.Errorf("addresses that can be none were asked for, %d times", n-before)
	}
}

// TestReach has nothing asked for on networks that the operator hasn't named, however they are written.
func TestReach(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(document("https://"+r.Host+r.URL.RequestURI(), "")))
	})
	port := s.URL[strings.LastIndexByte(s.URL, ':'):]
	// Names that lead to this machine, and one whose address is another each time that it is looked up, first one that is allowed: judged when it is connected to.
	names(t)
	d := clientdoc.New(clientdoc.Options{Get: fetcher(outbound.Networks{Any: true, Contains: netip.MustParsePrefix("127.0.0.2/32").Contains})})
	for _, host := range []string{"127.0.0.1", "localhost", "a.localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "[fe80::1]", "[fd00::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
		"client.example"} {
		refused(t, d, "https://"+host+port+"/client", "")
	}
	for i := range 4 {
		id := fmt.Sprintf("https://turning.example%s/%d", port, i)
		if c, err := d.Client(t.Context(), id, admitted); err == nil {
			t.Errorf("%s: %+v", id, c)
		}
	}
	if n := s.asked.Load(); n != 0 {
		t.Errorf("%d requests came", n)
	}
	// Where the operator has named the network, the same name leads there.
	d = clientdoc.New(clientdoc.Options{Get: fetcher(loopback)})
	if c, err := d.Client(t.Context(), "https://client.example"+port+"/client", admitted); err != nil || c.ID != "https://client.example"+port+"/client" {
		t.Errorf("%+v, %v", c, err)
	}
	// A network that is named opens no plain http.
	refused(t, d, "http://127.0.0.1"+port+"/client", "https://")
}

// names has the names of this process looked up at a server that says client.example is 127.0.0.1, and turning.example that and 127.0.0.2 by turns.
func names(t *testing.T) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var turn atomic.Int64
	go func() {
		for b := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			q := b[:n]
			end := 12
			for end < n && q[end] != 0 {
				end += int(q[end]) + 1
			}
			end += 5 // the root, the type and the class
			if end > n {
				continue
			}
			answer := append([]byte{}, q[:end]...)
			binary.BigEndian.PutUint16(answer[2:], 0x8180)
			copy(answer[4:], []byte{0, 1, 0, 0, 0, 0, 0, 0})
			if binary.BigEndian.Uint16(q[end-4:]) == 1 { // A
				address := []byte{127, 0, 0, 1}
				if q[12] == 7 && turn.Add(1)%2 == 1 {
					address[3] = 2
				}
				answer[7] = 1
				answer = append(append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), address...)
			}
			_, _ = conn.WriteTo(answer, from)
		}
	}()
	former := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = former
		conn.Close()
	})
}

// fake answers in the place of the network.
type fake struct {
	mu     sync.Mutex
	answer func(id string) (outbound.Document, error)
	asked  int
	gate   chan struct{} // if not nil, an answer waits for it
}

func (f *fake) GetDocument(_ context.Context, id string, _ int64) (outbound.Document, error) {
	f.mu.Lock()
	f.asked++
	answer, gate := f.answer, f.gate
	f.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return answer(id)
}

func (f *fake) set(answer func(id string) (outbound.Document, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func fine(cacheControl string) func(string) (outbound.Document, error) {
	return func(id string) (outbound.Document, error) {
		return outbound.Document{Body: []byte(document(id, "")), ContentType: "application/json", CacheControl: cacheControl}, nil
	}
}

func down(string) (outbound.Document, error) {
	return outbound.Document{}, errors.New("dial tcp 10.1.2.3:443: connection refused")
}

func TestCache(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	f := &fake{}
	d := clientdoc.New(clientdoc.Options{Get: f, Now: func() time.Time { return now }, Most: 3})
	const id = "https://client.example/c"
	ask := func(id string) error {
		_, err := d.Client(t.Context(), id, admitted)
		return err
	}
	for cache, want := range map[string]time.Duration{"": 15 * time.Minute, "max-age=3600": time.Hour, "public, Max-Age=7200": 2 * time.Hour, "max-age=0": time.Minute, "no-store": time.Minute, "max-age=60, no-cache": time.Minute, "max-age=99999999": 24 * time.Hour, "max-age=x": 15 * time.Minute} {
		f.set(fine(cache))
		other := id + "/kept?" + url.QueryEscape(cache)
		before := f.count()
		for _, after := range []time.Duration{0, want - time.Second} {
			now = now.Add(after)
			if err := ask(other); err != nil || f.count() != before+1 {
				t.Errorf("%q, kept for %v: %v, asked %d times", cache, want, err, f.count()-before)
			}
		}
		now = now.Add(time.Second)
		if err := ask(other); err != nil || f.count() != before+2 {
			t.Errorf("%q, over after %v: %v, asked %d times", cache, want, err, f.count()-before)
		}
	}
	// What fails isn't asked for again at once; then it is, and its reason is for the log alone.
	f.set(down)
	before := f.count()
	for range 3 {
		if err := ask(id); !errors.Is(err, clientdoc.ErrUnavailable) || strings.Contains(err.Error(), "10.1.2.3") {
			t.Errorf("down: %v", err)
		}
	}
	if f.count() != before+1 {
		t.Errorf("asked %d times", f.count()-before)
	}
	now = now.Add(10 * time.Second)
	f.set(fine("max-age=60"))
	if err := ask(id); err != nil {
		t.Errorf("after a while: %v", err)
	}
	// One that was there counts for an hour more while its server is down, and not while that says otherwise.
	f.set(down)
	now = now.Add(time.Hour)
	if err := ask(id); err != nil {
		t.Errorf("while the server is down: %v", err)
	}
	now = now.Add(time.Minute)
	if err := ask(id); !errors.Is(err, clientdoc.ErrUnavailable) {
		t.Errorf("long down: %v", err)
	}
	f.set(fine("max-age=60"))
	now = now.Add(time.Minute)
	if err := ask(id); err != nil {
		t.Error(err)
	}
	f.set(func(string) (outbound.Document, error) {
		return outbound.Document{}, &outbound.StatusError{Status: 404}
	})
	now = now.Add(2 * time.Minute)
	if err := ask(id); !errors.Is(err, clientdoc.ErrDocument) {
		t.Errorf("taken away: %v", err)
	}
	f.set(down)
	now = now.Add(time.Minute)
	if err := ask(id); !errors.Is(err, clientdoc.ErrUnavailable) {
		t.Errorf("taken away, then down: %v", err)
	}
	// A clock that is set back lets nothing count for longer.
	f.set(fine(""))
	now = now.Add(time.Minute)
	_ = ask(id)
	before, now = f.count(), now.Add(-time.Hour)
	if err := ask(id); err != nil || f.count() != before+1 {
		t.Errorf("the clock was set back: %v, asked %d times", err, f.count()-before)
	}
	// There is room for three: the one that ends first goes.
	f.set(fine("max-age=600"))
	d = clientdoc.New(clientdoc.Options{Get: f, Now: func() time.Time { return now }, Most: 3})
	for i := range 5 {
		now = now.Add(time.Second)
		_ = ask(fmt.Sprintf("%s%d", id, i))
	}
	before = f.count()
	_, _, _ = ask(id+"4"), ask(id+"3"), ask(id+"2")
	if f.count() != before {
		t.Errorf("the newest were asked for again, %d times", f.count()-before)
	}
	if _ = ask(id + "0"); f.count() != before+1 {
		t.Error("the oldest was kept")
	}
}

func TestLookUpsAreJoined(t *testing.T) {
	f := &fake{answer: fine(""), gate: make(chan struct{})}
	d := clientdoc.New(clientdoc.Options{Get: f})
	const id = "https://client.example/c"
	var admits atomic.Int64
	var all sync.WaitGroup
	begun := make(chan struct{}, 100)
	ask := func(ctx context.Context, id string) error {
		_, err := d.Client(ctx, id, func(bool) error {
			admits.Add(1)
			begun <- struct{}{}
			return nil
		})
		return err
	}
	gone, leave := context.WithCancel(t.Context())
	all.Go(func() {
		if err := ask(gone, id); !errors.Is(err, context.Canceled) {
			t.Errorf("who left: %v", err)
		}
	})
	<-begun
	for range 20 {
		all.Go(func() {
			if err := ask(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	leave()
	// 31 more are under way, and there is no room for another.
	for i := range 31 {
		all.Go(func() {
			if err := ask(t.Context(), fmt.Sprintf("%s%d", id, i)); err != nil {
				t.Error(err)
			}
		})
	}
	for range 31 {
		<-begun
	}
	if err := ask(t.Context(), id+"more"); !errors.Is(err, clientdoc.ErrUnavailable) {
		t.Errorf("one too many: %v", err)
	}
	close(f.gate)
	all.Wait()
	if n := f.count(); n != 32 || admits.Load() != 32 {
		t.Errorf("asked %d times, admitted %d", n, admits.Load())
	}
	refusal := errors.New("too many")
	if _, err := d.Client(t.Context(), id+"no", func(known bool) error { return refusal }); !errors.Is(err, refusal) || f.count() != 32 {
		t.Errorf("not admitted: %v", err)
	}
}

func FuzzCheckID(f *testing.F) {
	for _, s := range []string{"https://client.example/c", "https://127.0.0.1/", "https://a@b/c", "https://a/../c", "https://[::1]:1/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if clientdoc.CheckID(id) != nil {
			return
		}
		// Whatever may be asked for is asked for as it is: the same text, without anything that is taken out on the way.
		r, err := http.NewRequest(http.MethodGet, id, nil)
		if err != nil || r.URL.Scheme != "https" || r.URL.Hostname() == "" || r.URL.User != nil || r.URL.Fragment != "" || r.URL.Path == "" {
			t.Fatalf("%q: %v", id, err)
		}
		if r.URL.String() != id {
			t.Errorf("%q is asked for as %q", id, r.URL)
		}
	})
}
