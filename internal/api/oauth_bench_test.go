package api

import (
	"net/http"
	"sync/atomic"
	"testing"
)

// BenchmarkCodeExchange is the token endpoint alone, a code each: one durable change.
func BenchmarkCodeExchange(b *testing.B) {
	h := newAppHouse(b)
	a := h.app(false)
	a.code("openid")
	codes := make([]string, b.N)
	for i := range codes {
		codes[i] = a.code("openid")
	}
	var next atomic.Int64
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if got := a.exchange(codes[next.Add(1)-1]); got.status != http.StatusOK {
				b.Errorf("%+v", got)
			}
		}
	})
}

// BenchmarkIntrospect is a look at a token, which reads memory alone.
func BenchmarkIntrospect(b *testing.B) {
	h := newAppHouse(b)
	a := h.app(false)
	got := a.exchange(a.code("openid")).ok(b)
	form := a.names(got.Access)
	b.ResetTimer()
	for b.Loop() {
		if status, _ := h.post(introspectPath, form); status != http.StatusOK {
			b.Fatal(status)
		}
	}
}
