package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// flood bounds the /v1 and /api requests of an address.
type flood struct {
	perSecond int
	now       func() time.Time
	mu        sync.Mutex
	addresses map[netip.Addr]*visitor
	swept     time.Time
}

type visitor struct {
	bucket *rate.Limiter
	seen   time.Time
}

// floodKeep is how long an address is remembered; its bucket is full again long before.
const floodKeep = time.Minute

func newFlood(perSecond int, now func() time.Time) *flood {
	return &flood{perSecond: perSecond, now: now, addresses: map[netip.Addr]*visitor{}}
}

func (f *flood) admit(x *exchange) error {
	if f.perSecond <= 0 {
		return nil
	}
	address := x.s.clientAddress(x.r)
	if address.Is6() {
		// A subscriber has a /64: single addresses of it are free to change.
		if p, err := address.Prefix(64); err == nil {
			address = p.Addr()
		}
	}
	now := f.now()
	f.mu.Lock()
	if now.Sub(f.swept) > floodKeep {
		for a, v := range f.addresses {
			if now.Sub(v.seen) > floodKeep {
				delete(f.addresses, a)
			}
		}
		f.swept = now
	}
	v := f.addresses[address]
	if v == nil {
		v = &visitor{bucket: rate.NewLimiter(rate.Limit(f.perSecond), f.perSecond)}
		f.addresses[address] = v
	}
	v.seen = now
	f.mu.Unlock()
	if v.bucket.AllowN(now, 1) {
		return nil
	}
	fault := newFault(http.StatusTooManyRequests, codeTooManyReqs, "Too many requests from this address", "slow down; the limit counts requests a second")
	fault.retry = time.Second
	return fault
}

// clientAddress is who sent the request: the peer, or behind trusted proxies the last address in X-Forwarded-For that
// isn't one of them.
func (s *Server) clientAddress(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	peer, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	peer = peer.Unmap()
	if !s.trusted(peer) {
		return peer
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop := strings.TrimSpace(hops[i])
		a, err := netip.ParseAddr(hop)
		if withPort, perr := netip.ParseAddrPort(hop); perr == nil { // as some proxies write it
			a, err = withPort.Addr(), nil
		}
		if err != nil {
			break
		}
		peer = a.Unmap()
		if !s.trusted(peer) {
			break
		}
	}
	return peer
}

// trusted tells whether an address is that of a proxy whose X-Forwarded headers count.
func (s *Server) trusted(a netip.Addr) bool { return s.opt.TrustProxy != nil && s.opt.TrustProxy(a) }

// fromProxy tells whether the request came from such a proxy.
func (s *Server) fromProxy(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && s.trusted(peer.Addr().Unmap())
}

// noticeHost tells once that a request came under a name that isn't this machine's.
func (s *Server) noticeHost(hostport string) {
	if last := s.lastHost.Load(); last != nil && *last == hostport {
		return
	}
	s.lastHost.Store(&hostport)
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "" || loopback(host) {
		return
	}
	s.foreign.Do(func() { s.opt.ForeignHost(host) })
}
