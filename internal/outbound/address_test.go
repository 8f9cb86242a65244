package outbound

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestAddresses(t *testing.T) {
	for _, a := range []string{"1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001:81b::200e", "::ffff:8.8.8.8"} {
		if !Public(netip.MustParseAddr(a)) {
			t.Errorf("%s is not public", a)
		}
	}
	for _, a := range []string{"0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255",
		"198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::a00:1", "100::1", "2001::1", "2001:db8::1", "2002:a00:1::",
		"3fff::1", "5f00::1", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1"} {
		if Public(netip.MustParseAddr(a)) {
			t.Errorf("%s is public", a)
		}
	}
	if Public(netip.Addr{}) || Public(netip.MustParseAddr("fe80::1%eth0")) {
		t.Error("no address is public")
	}
	none := Networks{}
	some := Networks{Any: true, Contains: netip.MustParsePrefix("10.0.0.0/8").Contains}
	for url, want := range map[string][2]bool{ // whether it may be there without networks, and with some
		"https://example.com/": {true, true}, "https://example.com:8443/a?b=c": {true, true}, "https://1.1.1.1/": {true, true}, "https://[2606:4700::1111]/": {true, true},
		"http://example.com/": {false, true}, "http://10.0.0.1/": {false, true}, "https://10.0.0.1/": {false, true}, "http://1.1.1.1/": {false, false}, "https://192.168.0.1/": {false, false},
	} {
		if err := none.CheckURL(url); (err == nil) != want[0] {
			t.Errorf("%s without networks: %v", url, err)
		}
		if err := some.CheckURL(url); (err == nil) != want[1] {
			t.Errorf("%s with 10.0.0.0/8: %v", url, err)
		}
	}
}

func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{"https://example.com/", "https://127.0.0.1/", "http://[::1]:80/", "https://a@b/", "https:///", "https://%31/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if (Networks{}).CheckURL(text) != nil {
			return
		}
		// Whatever may be there makes a request, over TLS, to the host that was judged.
		r, err := http.NewRequest(http.MethodPost, text, nil)
		if err != nil || r.URL.Scheme != "https" || r.URL.Hostname() == "" {
			t.Errorf("%q may be there: %v", text, err)
			return
		}
		if a, err := netip.ParseAddr(r.URL.Hostname()); err == nil && !Public(a) {
			t.Errorf("%q may be there", text)
		}
	})
}
