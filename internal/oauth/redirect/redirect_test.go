package redirect_test

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/oauth/redirect"
)

func TestValidate(t *testing.T) {
	const both, public, none = 2, 1, 0 // who may register it
	for uri, want := range map[string]int{
		"https://app.example.com/callback": both, "https://app.example.com": both, "https://app.example.com:8443/a/b?c=d&e=%20": both, "https://192.0.2.1/cb": both, "https://[2001:db8::1]:8443/cb": both,
		"https://xn--bcher-kva.example/": both, "https://a.example/a%2fb": both, "https://a.example/...": both, "https://my_app.example/": both,
		"http://localhost/cb": both, "http://localhost:3000/cb": both, "http://127.0.0.1/cb": both, "http://127.0.0.1:1/": both, "http://127.1.2.3/": both, "http://[::1]/cb": both, "http://[::1]:8080/cb?x=y": both, "http://localhost": both,

		"cursor://anysphere.cursor-mcp/oauth/callback": public, "com.example.app:/callback": public, "com.example.app://callback": public, "vscode://vscode.github-authentication/did-authenticate": public,
		"com.example.app:callback": public, "claude://oauth": public,

		"": none, "/callback": none, "app.example.com/callback": none, "//app.example.com/cb": none, "https:": none, "https://": none, "https:///cb": none, "https:/app.example.com/cb": none, "https:app.example.com": none,
		"http://app.example.com/cb": none, "http://10.0.0.1/cb": none, "http://localhost.evil.example/": none, "http://127.0.0.1.evil.example/": none, "http://[::ffff:127.0.0.1]/": none, "http://0.0.0.0/": none,
		"http://localhost./": none, "http://LOCALHOST/": none, "HTTPS://app.example.com/": none, "https://App.example.com/": none,
		"http://2130706433/": none, "http://0x7f000001/": none, "http://0177.0.0.1/": none, "http://127.1/": none, "https://2130706433/": none, "https://0x7f.1/": none, "https://a.0x7f/": none, "https://1.2.3.4.5/": none, "https://[0:0:0:0:0:0:0:1]/": none, "https://[::1%25eth0]/": none,
		"javascript:alert(1)": none, "JavaScript:alert(1)": none, "javascript://app.example.com/%0aalert(1)": none, "data:text/html,x": none, "file:///etc/passwd": none, "vbscript:x": none, "about:blank": none, "blob:https://a.example/x": none,
		"ws://a.example/": none, "wss://a.example/": none, "ftp://a.example/": none, "mailto:a@b.example": none, "intent://x": none, "view-source:https://a.example/": none, "filesystem:https://a.example/x": none, "chrome://settings": none, "web+app:x": none, "c:/cb": none,
		"https://app.example.com/cb#": none, "https://app.example.com/cb#x": none, "com.example.app:/cb#x": none, "https://user@app.example.com/": none, "https://user:pw@app.example.com/": none, "https://app.example.com@evil.example/": none, "cursor://u@host/cb": none,
		"https://*.example.com/cb": none, "https://app.example.com/*": none, "https://app.example.com/cb\n": none, "https://app.example.com/ cb": none, "https://app.example.com/\tcb": none, "https://app.example.com/cb\x00": none, "https://bücher.example/": none,
		`https://app.example.com\@evil.example/`: none, `https://app.example.com/\..\x`: none, "https://app.example.com/<script>": none, `https://app.example.com/"`: none, "https://a.example/{x}": none,
		"https://app.example.com/../cb": none, "https://app.example.com/a/./b": none, "https://app.example.com/%2e%2e/cb": none, "https://app.example.com/.%2E": none,
		"https://app.example.com:/cb": none, "https://app.example.com:0/": none, "https://app.example.com:65536/": none, "https://app.example.com:080/": none, "https://app.example.com:port/": none, "https://app%2eexample.com/": none, "https://app.example.com./": none, "https://app..example.com:x@/": none,
		"com.example.app:": none, "com.example.app:/": none, "com.example.app://": none, "https://a.example/" + strings.Repeat("a", redirect.MaxLength): none,
	} {
		for _, p := range []bool{false, true} {
			err := redirect.Validate(uri, p)
			if ok := want == both || want == public && p; ok != (err == nil) {
				t.Errorf("%q, public %v: %v", uri, p, err)
			}
			if err != nil && !errors.Is(err, redirect.ErrURI) {
				t.Errorf("%q: %v is no ErrURI", uri, err)
			}
		}
	}
}

func TestMatch(t *testing.T) {
	for registered, asked := range map[string]struct{ same, other []string }{
		"https://app.example.com/cb": {[]string{"https://app.example.com/cb"}, []string{"https://app.example.com/cb/", "https://app.example.com/cb?", "https://app.example.com/cb?a=b", "https://app.example.com:443/cb", "https://app.example.com:8443/cb", "https://APP.example.com/cb",
			"http://app.example.com/cb", "https://app.example.com/cb#x", "https://app.example.com/CB", "https://app.example.com/%63b", "https://app.example.com//cb", "https://app.example.com/x/../cb", "https://app.example.com.evil.example/cb", "https://app.example.com@evil.example/cb", "https://app.example.com", ""}},
		"http://localhost/cb": {[]string{"http://localhost/cb", "http://localhost:1/cb", "http://localhost:65535/cb"}, []string{"http://127.0.0.1/cb", "http://127.0.0.1:1/cb", "http://[::1]/cb", "https://localhost/cb", "http://localhost:0/cb", "http://localhost:65536/cb", "http://localhost:/cb", "http://localhost:01/cb",
			"http://localhost:1/cb/", "http://localhost:1/cb?x=y", "http://localhost:1/CB", "http://localhost:1", "http://localhost:1@evil.example/cb", "http://localhost@evil.example/cb", "http://localhost.evil.example/cb", "http://localhost:1#/cb", "http://localhost:1/cb#x", "http://LOCALHOST:1/cb", `http://localhost:1\@evil.example/cb`, "http://user@localhost:1/cb", "http://localhost:1/x/../cb"}},
		"http://localhost:3000/cb?a=b": {[]string{"http://localhost:3000/cb?a=b", "http://localhost:4000/cb?a=b", "http://localhost/cb?a=b"}, []string{"http://localhost:3000/cb", "http://localhost:3000/cb?a=c", "http://localhost:3000/cb?a=b&c=d"}},
		"http://127.0.0.1/":            {[]string{"http://127.0.0.1/", "http://127.0.0.1:5/"}, []string{"http://127.0.0.2:5/", "http://127.0.0.1", "http://127.0.0.1:5", "http://localhost:5/", "http://127.1:5/", "http://2130706433:5/", "http://[::ffff:127.0.0.1]:5/"}},
		"http://127.0.0.1":             {[]string{"http://127.0.0.1:5"}, []string{"http://127.0.0.1:5/"}},
		"http://[::1]/cb":              {[]string{"http://[::1]/cb", "http://[::1]:9/cb"}, []string{"http://localhost:9/cb", "http://[0:0:0:0:0:0:0:1]:9/cb", "http://::1:9/cb"}},
		"cursor://host/cb":             {[]string{"cursor://host/cb"}, []string{"cursor://host:1/cb", "cursor://host/cb2", "CURSOR://host/cb"}},
		"https://localhost/cb":         {[]string{"https://localhost/cb"}, []string{"https://localhost:1/cb", "http://localhost/cb"}},
	} {
		list := []string{"https://other.example/", registered}
		for _, uri := range asked.same {
			if !redirect.Match(list, uri) {
				t.Errorf("%q is not %q", uri, registered)
			}
		}
		for _, uri := range asked.other {
			if redirect.Match(list, uri) {
				t.Errorf("%q is %q", uri, registered)
			}
		}
	}
	if redirect.Match(nil, "https://a.example/") || redirect.Match(nil, "") {
		t.Error("of nothing something matches")
	}
}

func TestShownName(t *testing.T) {
	for name, want := range map[string]bool{"An app": true, "Bücher 書店": true, "": false, "  ": false, "a\nb": false, "a\u202eb": false, "a\u200bb": false, "a\u2028b": false, "\xff": false, strings.Repeat("ü", redirect.MaxName): true, strings.Repeat("a", redirect.MaxName+1): false} {
		if redirect.ShownName(name) != want {
			t.Errorf("%q", name)
		}
	}
}

// FuzzMatch compares with what net/url makes of both: what matches has the same scheme, host, path and query, and goes to no other machine.
func FuzzMatch(f *testing.F) {
	for _, s := range [][2]string{{"http://localhost/cb", "http://localhost:1/cb"}, {"http://[::1]:1/?a", "http://[::1]/?a"}, {"https://a.example/", "https://a.example/"}, {"http://127.0.0.1", "http://127.0.0.1:1@evil.example"}, {"cursor://x/cb", "cursor://x/cb"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, registered, asked string) {
		if redirect.Validate(registered, true) != nil {
			return
		}
		r, err := url.Parse(registered)
		if err != nil || r.User != nil || r.Fragment != "" || slices.Contains([]string{"javascript", "data", "file", "vbscript", "about", "blob"}, r.Scheme) || r.Scheme == "http" && !redirect.IsLoopback(r.Hostname()) {
			t.Fatalf("%q may be registered: %v", registered, err)
		}
		if !redirect.Match([]string{registered}, asked) {
			if registered == asked {
				t.Fatalf("%q does not match itself", registered)
			}
			return
		}
		a, err := url.Parse(asked)
		if err != nil || redirect.Validate(asked, true) != nil {
			t.Fatalf("%q matches %q, and could not be registered: %v", asked, registered, err)
		}
		if a.Scheme != r.Scheme || a.Hostname() != r.Hostname() || a.EscapedPath() != r.EscapedPath() || a.RawQuery != r.RawQuery || a.ForceQuery != r.ForceQuery || a.Opaque != r.Opaque || a.User != nil || a.Fragment != "" {
			t.Errorf("%q matches %q", asked, registered)
		}
		if a.Port() != r.Port() && (a.Scheme != "http" || !redirect.IsLoopback(a.Hostname())) {
			t.Errorf("%q matches %q", asked, registered)
		}
	})
}
