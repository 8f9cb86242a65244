package checkout_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/checkout"
	"github.com/persqld/persqld/internal/checkout/checkouttest"
)

const secret = checkouttest.WebhookSecret

func TestPayment(t *testing.T) {
	paid := checkouttest.Paid("cs_1", "ns_1", 2550, nil)
	change := func(field string, value any) []byte {
		return checkouttest.Paid("cs_1", "ns_1", 2550, map[string]any{field: value})
	}
	event := func(kind string, change map[string]any) []byte {
		return checkouttest.Event(kind, "cs_1", "ns_1", 2550, change)
	}
	unpaid := map[string]any{"payment_status": "unpaid"}
	tests := []struct {
		name string
		body []byte
		pays bool
		want error
	}{
		{"paid", paid, true, nil},
		{"paid later", event("checkout.session.async_payment_succeeded", nil), true, nil},
		{"not paid yet", event("checkout.session.completed", unpaid), false, nil},
		{"nothing to pay", change("payment_status", "no_payment_required"), false, nil},
		{"failed later", event("checkout.session.async_payment_failed", unpaid), false, nil},
		{"expired", event("checkout.session.expired", unpaid), false, nil},
		{"another object", event("charge.succeeded", nil), false, nil},
		{"a subscription", change("mode", "subscription"), false, nil},
		{"of another program", change("metadata", map[string]string{"order": "1"}), false, nil},
		{"a payment link's", change("metadata", map[string]string{}), false, nil}, // client_reference_id is ours
		{"without metadata", change("metadata", nil), false, nil},
		{"live", change("livemode", true), false, checkout.ErrMode},
		{"a live session in an event that isn't", bytes.Replace(paid, []byte(`"livemode":false`), []byte(`"livemode":true`), 1), false, checkout.ErrMode},
		{"the other way round", bytes.Replace(change("livemode", true), []byte(`"livemode":true`), []byte(`"livemode":false`), 1), false, checkout.ErrMode},
		{"euros", change("currency", "eur"), false, checkout.ErrCurrency},
		{"no currency", change("currency", nil), false, checkout.ErrCurrency},
		{"nothing", change("amount_total", 0), false, checkout.ErrAmount},
		{"less", change("amount_total", -2550), false, checkout.ErrAmount},
		{"no amount", change("amount_total", nil), false, checkout.ErrAmount},
		{"too much to count", change("amount_total", math.MaxInt64/10_000_000+1), false, checkout.ErrAmount},
		{"half a cent", change("amount_total", 0.5), false, checkout.ErrEvent},
		{"without an id", change("id", ""), false, checkout.ErrEvent},
		{"no event", []byte(`{"object":"v2.core.event","type":"checkout.session.completed"}`), false, checkout.ErrEvent},
		{"without data", []byte(`{"object":"event","type":"checkout.session.completed"}`), false, checkout.ErrEvent},
		{"without an object", []byte(`{"object":"event","type":"checkout.session.completed","data":{}}`), false, checkout.ErrEvent},
		{"no JSON", []byte(`{"object":"event"`), false, checkout.ErrEvent},
		{"empty", nil, false, checkout.ErrEvent},
	}
	c := open(t, checkout.Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := c.Payment(tt.body, checkouttest.Sign(secret, now, tt.body))
			if !errors.Is(err, tt.want) || (p != nil) != tt.pays {
				t.Fatalf("%+v, %v", p, err)
			}
			if p != nil && *p != (checkout.Payment{SessionID: "cs_1", NamespaceID: "ns_1", Cents: 2550}) {
				t.Errorf("%+v", p)
			}
			// Whatever it tells, it counts for nothing without the signature.
			if p, err := c.Payment(tt.body, checkouttest.Sign(secret+"x", now, tt.body)); !errors.Is(err, checkout.ErrSignature) || p != nil {
				t.Errorf("with another secret: %+v, %v", p, err)
			}
		})
	}
	for _, key := range []string{"sk_live_x", "rk_live_x"} {
		live := open(t, checkout.Options{Key: key})
		if p, err := live.Payment(paid, checkouttest.Sign(secret, now, paid)); !errors.Is(err, checkout.ErrMode) || p != nil {
			t.Errorf("the test mode's money under %s: %+v, %v", key, p, err)
		}
		body := change("livemode", true)
		if p, err := live.Payment(body, checkouttest.Sign(secret, now, body)); err != nil || !p.Livemode || p.Cents != 2550 {
			t.Errorf("%+v, %v", p, err)
		}
	}
}

func TestSignature(t *testing.T) {
	c := open(t, checkout.Options{})
	body := checkouttest.Paid("cs_1", "ns_1", 2550, nil)
	good := checkouttest.Sign(secret, now, body)
	_, v1, _ := strings.Cut(good, ",")
	stamp := func(at time.Time) string { return fmt.Sprintf("t=%d", at.Unix()) }
	tests := []struct {
		name, header string
		want         error
	}{
		{"good", good, nil},
		{"two secrets, while one is rolled", stamp(now) + ",v1=" + strings.Repeat("0", 64) + "," + v1, nil},
		{"five minutes old", checkouttest.Sign(secret, now.Add(-5*time.Minute), body), nil},
		{"a clock ahead of ours", checkouttest.Sign(secret, now.Add(time.Hour), body), nil},
		{"older", checkouttest.Sign(secret, now.Add(-5*time.Minute-time.Second), body), checkout.ErrStale},
		{"years old", checkouttest.Sign(secret, time.Unix(1, 0), body), checkout.ErrStale},
		{"another secret", checkouttest.Sign("whsec_other", now, body), checkout.ErrSignature},
		{"an empty secret", checkouttest.Sign("", now, body), checkout.ErrSignature},
		{"another time than the signed one", stamp(now.Add(time.Second)) + "," + v1, checkout.ErrSignature},
		{"an old signature made young", checkouttest.Sign(secret, now.Add(-time.Hour), body) + "," + stamp(now), checkout.ErrSignature},
		{"another body", checkouttest.Sign(secret, now, append([]byte(" "), body...)), checkout.ErrSignature},
		{"half of it", good[:len(stamp(now))+40], checkout.ErrSignature},
		{"the scheme of tests", strings.ReplaceAll(strings.ReplaceAll(good, ",v0=", ",x="), ",v1=", ",v0="), checkout.ErrSignature},
		{"no time", v1, checkout.ErrSignature},
		{"no number", "t=x," + v1, checkout.ErrSignature},
		{"none", "", checkout.ErrSignature},
		{"nonsense", "=,=,,", checkout.ErrSignature},
	}
	for _, tt := range tests {
		p, err := c.Payment(body, tt.header)
		if !errors.Is(err, tt.want) || (p != nil) != (tt.want == nil) {
			t.Errorf("%s: %+v, %v", tt.name, p, err)
		}
	}
	for i := range body {
		damaged := bytes.Clone(body)
		damaged[i] ^= 1
		if p, err := c.Payment(damaged, good); !errors.Is(err, checkout.ErrSignature) || p != nil {
			t.Fatalf("with byte %d damaged: %+v, %v", i, p, err)
		}
	}
}

// FuzzSignature signs bodies itself, and holds what is let in against that.
func FuzzSignature(f *testing.F) {
	body := checkouttest.Paid("cs_1", "ns_1", 2550, nil)
	good := checkouttest.Sign(secret, now, body)
	for _, header := range []string{good, "", "t=1,v1=00", good + ",t=1", "t=1," + good, good + ",v1=zz", "v1=,t=,", good + "," + good, " " + good} {
		f.Add(header, body)
	}
	f.Add(checkouttest.Sign(secret, now, nil), []byte(nil))
	c := open(f, checkout.Options{})
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		p, err := c.Payment(body, header)
		if errors.Is(err, checkout.ErrSignature) {
			return
		}
		// One of the times in the header, and one of its signatures, must be what the secret makes of the body.
		var times []time.Time
		for pair := range strings.SplitSeq(header, ",") {
			var seconds int64
			if _, err := fmt.Sscanf(pair, "t=%d", &seconds); err == nil {
				times = append(times, time.Unix(seconds, 0))
			}
		}
		for _, at := range times {
			_, signed, _ := strings.Cut(checkouttest.Sign(secret, at, body), ",")
			signed, _, _ = strings.Cut(signed, ",")
			if strings.Contains(strings.ToLower(header), signed) {
				if p != nil && now.Sub(at) > 5*time.Minute && len(times) == 1 {
					t.Fatalf("%q is too old", header)
				}
				return
			}
		}
		t.Fatalf("%q lets %q in: %+v, %v", header, body, p, err)
	})
}
