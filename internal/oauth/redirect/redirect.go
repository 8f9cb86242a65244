// Package redirect has the rules of redirect URIs: which may be registered, and which of those one that is asked for is. Both are in one place, since a code goes where
// they let it.
package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// MaxLength is how many bytes a redirect URI may have, MaxList how many a client.
const (
	MaxLength = 2048
	MaxList   = 20
)

// ErrURI is returned for what can be no redirect URI, with the reason.
var ErrURI = errors.New("the redirect URI is not allowed")

// never are schemes that run something, read something, or that a browser takes for itself: no program is reached by them.
var never = []string{
	"about", "blob", "chrome", "chrome-extension", "content", "data", "feed", "file", "filesystem", "ftp", "ftps", "gopher", "intent", "jar", "javascript", "jscript",
	"ldap", "livescript", "mailto", "mhtml", "ms-appx", "ms-appx-web", "ms-its", "news", "res", "resource", "safari-web-extension", "sms", "ssh", "tel", "telnet", "urn",
	"vbs", "vbscript", "view-source", "wais", "ws", "wss", "wyciwyg", "moz-extension", "edge", "opera", "brave", "search-ms", "ms-msdt", "ms-settings", "shell", "smb", "nfs",
}

// Validate tells whether a URI may be registered: https, http of this machine's own addresses, and for public clients private-use schemes of native apps (RFC 8252). It
// returns ErrURI with the reason.
func Validate(uri string, public bool) error {
	refuse := func(why string) error { return fmt.Errorf("%w: %s", ErrURI, why) }
	switch {
	case uri == "":
		return refuse("it is empty")
	case len(uri) > MaxLength:
		return refuse("it is longer than " + strconv.Itoa(MaxLength) + " bytes")
	}
	for i := range len(uri) {
		// What a URI has none of (RFC 3986, section 2) readers of it disagree about. A * is allowed there, and looks like a pattern, which it isn't here.
		switch c := uri[i]; {
		case c <= ' ' || c > '~':
			return refuse("it has a character that is no printable ASCII; encode it")
		case strings.IndexByte(`"<>\^`+"`{|}", c) >= 0:
			return refuse("it has the character " + string(rune(c)) + ", which a URI has none of; encode it")
		case c == '*':
			return refuse("it has a *: redirect URIs are compared exactly, patterns are not supported")
		case c == '#':
			return refuse("it has a fragment") // RFC 6749, section 3.1.2
		}
	}
	u, err := url.Parse(uri)
	if err != nil {
		return refuse("it doesn't read as a URI")
	}
	scheme, _, found := strings.Cut(uri, ":")
	if !found || u.Scheme == "" {
		return refuse("it must be absolute, such as https://example.com/callback")
	}
	if scheme != u.Scheme {
		return refuse("its scheme must be in lower case") // it is compared exactly, and browsers write it in lower case
	}
	if u.User != nil {
		return refuse("it has a user or password in it")
	}
	if dots(u.EscapedPath()) || dots(u.Opaque) {
		return refuse("its path has . or .. in it, which browsers take out")
	}
	switch scheme {
	case "https", "http":
		if err := authority(uri, u); err != nil {
			return err
		}
		if scheme == "http" && !IsLoopback(u.Hostname()) {
			return refuse("it must be https; http is for localhost and the loopback addresses")
		}
		return nil
	}
	switch {
	case slices.Contains(never, scheme) || strings.HasPrefix(scheme, "web+"):
		return refuse("a " + scheme + ": URI reaches no app")
	case !public:
		return refuse("a private-use scheme is for public clients: whoever has the device has what is sent to it")
	case len(scheme) < 3: // a letter is a drive
		return refuse("its scheme is too short for a private-use one")
	case strings.ContainsAny(u.Host, "@"):
		return refuse("it has a user or password in it")
	case u.Host == "" && u.Opaque == "" && strings.Trim(u.Path, "/") == "":
		return refuse("it has nothing after its scheme; for example com.example.app:/callback")
	}
	return nil
}

// authority judges host and port of an http or https URI.
func authority(uri string, u *url.URL) error {
	refuse := func(why string) error { return fmt.Errorf("%w: %s", ErrURI, why) }
	host := u.Hostname()
	switch {
	case u.Opaque != "" || !strings.HasPrefix(uri, u.Scheme+"://") || host == "":
		return refuse("it must begin with " + u.Scheme + ":// and a host")
	case host != strings.ToLower(host):
		return refuse("its host must be in lower case")
	case strings.Contains(u.Host, "%"), strings.HasSuffix(host, "."):
		return refuse("its host must be written plainly")
	case strings.HasSuffix(u.Host, ":"):
		return refuse("it has a colon without a port")
	}
	if strings.HasPrefix(u.Host, "[") {
		a, err := netip.ParseAddr(host)
		if err != nil || !a.Is6() || a.String() != host {
			return refuse("its address must be written in the usual short form")
		}
	} else {
		for i := range len(host) {
			if c := host[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
				return refuse("its host has the character " + string(rune(c)) + "; write names of other letters as xn--…")
			}
		}
		// A last label of digits, or 0x…, is an address to browsers (WHATWG URL, "ends in a number"): only the usual form is one to us.
		if last := host[strings.LastIndexByte(host, '.')+1:]; last == "" || number(last) {
			a, err := netip.ParseAddr(host)
			if err != nil || a.String() != host {
				return refuse("its address must be written as four decimal numbers")
			}
		}
	}
	if port := u.Port(); port != "" {
		p, err := strconv.ParseUint(port, 10, 16)
		if err != nil || p == 0 || port[0] == '0' {
			return refuse("the port must be from 1 to 65535")
		}
	}
	return nil
}

// number tells whether a browser takes a host's last label for part of an IPv4 address.
func number(label string) bool {
	digits := strings.Trim(label, "0123456789") == ""
	return digits || len(label) >= 2 && label[0] == '0' && label[1] == 'x' && strings.Trim(label[2:], "0123456789abcdef") == ""
}

// dots tells whether a path has segments that are taken out before it is asked for.
func dots(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case ".", "..":
			return true
		}
	}
	return false
}

// IsLoopback tells whether a host is this machine by name or address, as RFC 8252 has it: localhost, 127.0.0.0/8 and ::1.
func IsLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Zone() == "" && !a.Is4In6() && a.IsLoopback()
}

// Match tells whether a URI that is asked for is one of those that are registered: the same, byte by byte. Of http to this machine the port alone may differ, or be there or
// not: a native app takes what is free when it starts (RFC 8252, section 7.3). localhost and 127.0.0.1 are two hosts.
func Match(registered []string, asked string) bool {
	if slices.Contains(registered, asked) {
		return true
	}
	before, after, ok := loopbackParts(asked)
	if !ok {
		return false
	}
	for _, r := range registered {
		if b, a, ok := loopbackParts(r); ok && a == after && b == before {
			return true
		}
	}
	return false
}

// loopbackParts are what comes before and after the port of an http URI of this machine. It works on the bytes as they are: whatever would have to be understood first is no match.
func loopbackParts(uri string) (before, after string, ok bool) {
	const scheme = "http://"
	rest, found := strings.CutPrefix(uri, scheme)
	if !found || Validate(uri, true) != nil { // what could not be registered is not asked for either
		return "", "", false
	}
	end := len(rest)
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		end = i
	}
	host := rest[:end]
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	if !IsLoopback(strings.Trim(host, "[]")) {
		return "", "", false
	}
	return scheme + host, rest[end:], true
}
