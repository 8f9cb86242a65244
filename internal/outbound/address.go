package outbound

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// MaxURL is the longest address that may be connected to, in bytes.
const MaxURL = 2048

// ErrURL is returned for an address that can't be asked. ErrAddress is it for one in a network that may not be reached.
var (
	ErrURL     = errors.New("the url can't be used")
	ErrAddress = errors.New("the address is in a network that may not be reached")
)

// notPublic are the networks of special use that netip doesn't tell of (IANA's registries of special-purpose addresses, RFC 6890).
var notPublic = prefixes("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")

// internet6 is what is routed of IPv6: so all that embeds an IPv4 address under another prefix is out too.
var internet6 = netip.MustParsePrefix("2000::/3")

func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

// Public tells whether an address is one of the internet's.
func Public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || a.Zone() != "" || a.IsPrivate() || !a.IsGlobalUnicast() || a.Is6() && !internet6.Contains(a) {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// Networks says what may be reached beside the internet.
type Networks struct {
	Any      bool                  // there are some
	Contains func(netip.Addr) bool // nil for none
}

// MayReach tells whether an address may be connected to. Plain http stays within the networks that the operator has named.
func (n Networks) MayReach(a netip.Addr, plain bool) bool {
	return n.Contains != nil && n.Contains(a.Unmap()) || !plain && Public(a)
}

// CheckURL tells whether an address may be asked: https to the internet, or http or https to a network that the operator has named. A name is looked up only when it is connected to. It returns
// ErrURL or ErrAddress, with a reason.
func (n Networks) CheckURL(text string) error {
	refuse := func(why string) error { return fmt.Errorf("%w: %s", ErrURL, why) }
	if len(text) > MaxURL {
		return refuse("it is longer than 2048 bytes")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return refuse("it doesn't read as one")
	case u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "" || u.Hostname() == "":
		return refuse("it must begin with https:// and a host")
	case u.User != nil:
		return refuse("it has a user or password in it; put what the server there checks into the path or the query")
	case strings.Contains(text, "#"):
		return refuse("it has a fragment, which no server is sent")
	case u.Scheme == "http" && !n.Any:
		return refuse("it must be https; http is for networks in PERSQLD_ALLOW_NETWORKS")
	}
	if port := u.Port(); port != "" {
		if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
			return refuse("the port must be from 1 to 65535")
		}
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	a, err := netip.ParseAddr(host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761, section 6.3
		a, err = netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	if err == nil && !n.MayReach(a, u.Scheme == "http") {
		return fmt.Errorf("%w: %s", ErrAddress, host)
	}
	return nil
}
