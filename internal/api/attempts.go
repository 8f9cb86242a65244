package api

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/persqld/persqld/internal/catalog"
)

// attempts bounds how often something is tried, by a name: an address, an account.
type attempts struct {
	perMinute int
	now       func() time.Time
	most      int // names
	mu        sync.Mutex
	names     map[string]*visitor
	others    *rate.Limiter // of all names that find no room
	swept     time.Time
}

// maxAttemptNames bounds the memory of attempts, to some 20 MB.
const maxAttemptNames = 100_000

func newAttempts(perMinute int, now func() time.Time) *attempts {
	a := &attempts{perMinute: perMinute, now: now, most: maxAttemptNames, names: map[string]*visitor{}}
	a.others = a.bucket()
	return a
}

func (a *attempts) bucket() *rate.Limiter {
	return rate.NewLimiter(rate.Every(time.Minute/time.Duration(a.perMinute)), a.perMinute)
}

// try counts an attempt. One that is too many isn't counted, and has to wait.
func (a *attempts) try(name string) (wait time.Duration) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	// A bucket is full again a minute after its last use: to forget it then gives nothing away.
	if now.Sub(a.swept) > time.Minute {
		for n, v := range a.names {
			if now.Sub(v.seen) > time.Minute {
				delete(a.names, n)
			}
		}
		a.swept = now
	}
	bucket := a.others
	if v := a.names[name]; v != nil {
		v.seen, bucket = now, v.bucket
	} else if len(a.names) < a.most {
		v = &visitor{bucket: a.bucket(), seen: now}
		a.names[name], bucket = v, v.bucket
	}
	reserved := bucket.ReserveN(now, 1)
	if wait = reserved.DelayFrom(now); wait > 0 {
		reserved.CancelAt(now)
	}
	return wait
}

// spent is how long a name has to wait, without counting anything.
func (a *attempts) spent(name string) (wait time.Duration) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	bucket := a.others
	if v := a.names[name]; v != nil {
		bucket = v.bucket
	} else if len(a.names) < a.most {
		return 0
	}
	if missing := 1 - bucket.TokensAt(now); missing > 0 {
		return time.Duration(missing * float64(time.Minute) / float64(a.perMinute))
	}
	return 0
}

// tooMany is the failure of an attempt that has to wait.
func tooMany(wait time.Duration, of string) error {
	if wait <= 0 {
		return nil
	}
	f := newFault(http.StatusTooManyRequests, "too_many_attempts", "Too many attempts "+of, "try again after the time in Retry-After")
	f.retry = wait
	return f
}

// addressName is who an address belongs to: of IPv6 a subscriber has a /64, whose single addresses are free to change.
func addressName(a netip.Addr) string {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	return a.String()
}

// admitAttempt bounds what an address tries: signing in and up, and links of invitations.
func (x *exchange) admitAttempt() error {
	return tooMany(x.s.byAddress.try(addressName(x.s.clientAddress(x.r))), "from this address")
}

// admitSignIn bounds the attempts on an account too, whether or not there is one of the name. An address that the account is
// signed in from is held to its own limit alone: whoever tries passwords from elsewhere uses up what strangers have, and doesn't
// lock the owner out.
func (x *exchange) admitSignIn(email string, u *catalog.User) error {
	if err := x.admitAttempt(); err != nil {
		return err
	}
	if u != nil {
		from := addressName(x.s.clientAddress(x.r))
		for _, session := range x.s.opt.Catalog.Sessions(u.ID) {
			if session.Address == from {
				return nil
			}
		}
	}
	return tooMany(x.s.byAccount.try(email), "on this account")
}
